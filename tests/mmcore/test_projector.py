"""投影、最近的词、掩码、重采样器 / Projector, nearest word, masks, resampler: (10.1) to (10.6)."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmcore import (
    CausalDecoder,
    Resampler,
    attention_mask,
    generation_loss,
    masked_attention,
    nearest_word,
    project,
    word_prefix,
)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.formula("10.1")
def test_10_1_equals_its_explicit_loops() -> None:
    E = normal(9, 5)
    words = torch.randint(9, (6, 4, 3), generator=torch.Generator().manual_seed(1))
    words[0, 1] = 0  # nothing at all at one place
    found = word_prefix(E, words)
    for b in range(6):
        for k in range(4):
            named = [w for w in words[b, k].tolist() if w != 0]
            for i in range(5):
                wanted = sum(E[w, i].item() for w in named) / len(named) if named else 0.0
                assert found[b, k, i].item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.formula("10.2")
def test_10_2_equals_its_explicit_loops() -> None:
    f, W, b = normal(2, 4, 3), normal(5, 3, seed=1), normal(5, seed=2)
    found = project(f, W, b)
    for n in range(2):
        for k in range(4):
            for i in range(5):
                wanted = b[i].item() + sum(W[i, j].item() * f[n, k, j].item() for j in range(3))
                assert found[n, k, i].item() == pytest.approx(wanted, abs=1e-12)


@pytest.mark.formula("10.3")
def test_10_3_equals_its_explicit_loops() -> None:
    x, e = normal(20, 6), normal(7, 6, seed=1)

    def cosine(a: list[float], b: list[float]) -> float:
        return sum(p * q for p, q in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    for row, found in zip(x.tolist(), nearest_word(x, e).tolist(), strict=True):
        likeness = [cosine(row, word) for word in e.tolist()]
        assert found == likeness.index(max(likeness))


@pytest.mark.formula("10.4")
@pytest.mark.parametrize("kind", ["causal", "prefix", "all"])
def test_10_4_equals_its_explicit_loops(kind: str) -> None:
    Q, K, V = normal(2, 5, 3), normal(2, 5, 3, seed=1), normal(2, 5, 4, seed=2)
    M = attention_mask(5, 2, kind).double()
    Y, A = masked_attention(Q, K, V, M)
    for b in range(2):
        for i in range(5):
            seen = [j for j in range(5) if M[i, j] == 0]
            weight = {j: math.exp(sum(Q[b, i, c].item() * K[b, j, c].item() for c in range(3)) / math.sqrt(3))
                      for j in seen}
            total = sum(weight.values())
            assert A[b, i].tolist() == pytest.approx([weight.get(j, 0.0) / total for j in range(5)], abs=1e-12)
            for c in range(4):
                wanted = sum(weight[j] / total * V[b, j, c].item() for j in seen)
                assert Y[b, i, c].item() == pytest.approx(wanted, abs=1e-12)


def test_10_4_is_the_attention_of_pytorch_and_its_gradient_is_that_of_the_formula() -> None:
    Q, K, V = (normal(2, 5, 4, seed=s).requires_grad_() for s in range(3))
    M = attention_mask(5).double()
    ours = masked_attention(Q, K, V, M)[0]
    assert torch.allclose(ours, F.scaled_dot_product_attention(Q, K, V, is_causal=True), atol=1e-12)
    assert torch.autograd.gradcheck(lambda *x: masked_attention(*x, M)[0], (Q, K, V))


@pytest.mark.formula("10.5")
@pytest.mark.parametrize(("kind", "wanted"), [
    ("causal", ["X...", "XX..", "XXX.", "XXXX"]), ("prefix", ["XX..", "XX..", "XXX.", "XXXX"]),
    ("all", ["XXXX", "XXXX", "XXXX", "XXXX"])])
def test_10_5_says_who_may_look_at_whom(kind: str, wanted: list[str]) -> None:
    M = attention_mask(4, 2, kind)
    assert ["".join("X" if x == 0 else "." for x in row) for row in M.tolist()] == wanted
    assert set(M.flatten().tolist()) <= {0.0, -math.inf}
    for i in range(1, 5):  # as the formula says it, counted from 1
        for j in range(1, 5):
            allowed = {"causal": j <= i, "prefix": j <= i or j <= 2, "all": True}[kind]
            assert (M[i - 1, j - 1] == 0) == allowed


@pytest.mark.formula("10.6")
def test_10_6_equals_its_explicit_loops() -> None:
    torch.manual_seed(0)
    resampler = Resampler(3, width=4, queries=2, cells=5).double()
    f = normal(2, 5, 3)
    x, alpha = resampler(f), resampler.weights(f)
    p, q = resampler.p.tolist(), resampler.q.tolist()

    def linear(layer: nn.Linear, g: list[float]) -> list[float]:
        return [bias + sum(w * c for w, c in zip(row, g, strict=True))
                for row, bias in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)]

    for b in range(2):
        g = [[f[b, k, c].item() + p[k][c] for c in range(3)] for k in range(5)]
        keys, values = ([linear(layer, row) for row in g] for layer in (resampler.key, resampler.value))
        for i in range(2):
            weight = [math.exp(sum(q[i][c] * key[c] for c in range(4)) / 2) for key in keys]
            share = [w / sum(weight) for w in weight]
            assert alpha[b, i].tolist() == pytest.approx(share, abs=1e-9)
            wanted = [sum(share[k] * values[k][c] for k in range(5)) for c in range(4)]
            assert x[b, i].tolist() == pytest.approx(wanted, abs=1e-9)


def test_one_query_that_looks_everywhere_alike_cannot_tell_which_cell_is_which() -> None:
    """q = 0：四格的平均，两格对调也不变 / With q = 0 it is the mean of the cells, whichever way round they stand."""
    resampler = Resampler(3, width=4, queries=1, cells=2).double()
    nn.init.zeros_(resampler.q)
    f = normal(1, 2, 3)
    swapped = f.flip(1)
    assert torch.allclose(resampler(f), resampler(swapped))
    with torch.no_grad():
        resampler.q.copy_(normal(1, 4))
    assert not torch.allclose(resampler(f), resampler(swapped))


def test_fault_19_a_projector_with_a_cut_gradient_would_learn_nothing_and_raise_no_error() -> None:
    """冻结是参数不动，不是切断梯度 / To freeze is to keep parameters, not to cut the way of the gradient.

    The faulty way wraps the decoder in `no_grad` and ties the loss to something that needs a gradient so that nothing
    complains. The projector then stays as it was for ever.

    错的写法把解码器放进 `no_grad`，再随便连上一个要梯度的数，免得报错。投影就永远不变。
    """
    torch.manual_seed(0)
    projector, decoder = nn.Linear(5, 8), CausalDecoder(9, 8, width=8, prefix=4, one_each=True)
    decoder.open = nn.Identity()  # the prefix is given to it
    f, tokens = torch.randn(6, 4, 5), torch.tensor([[9, 4, 7, 3]] * 6)

    def loss(cut: bool) -> Tensor:
        with torch.set_grad_enabled(not cut):
            x = project(f, projector.weight, projector.bias)
            logits = decoder.logits(x, tokens[:, :-1])
        return generation_loss(logits, tokens) + 0 * projector.bias.sum()

    def trained(cut: bool) -> tuple[float, float]:
        nn.init.normal_(projector.weight, generator=torch.Generator().manual_seed(0))
        optimizer = torch.optim.AdamW(projector.parameters(), 0.1, weight_decay=0.0)
        before = loss(cut).item()
        for _ in range(40):
            optimizer.zero_grad()
            loss(cut).backward()
            optimizer.step()
        return before, loss(cut).item()

    before, after = trained(cut=True)
    assert before == after  # forty steps, no error, and nothing has happened
    decoder.requires_grad_(False)
    kept = [p.clone() for p in decoder.parameters()]
    before, after = trained(cut=False)
    assert after < before - 0.05
    assert all(torch.equal(a, b) for a, b in zip(kept, decoder.parameters(), strict=True))
    assert all(p.grad is None for p in decoder.parameters())


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="words must lie between 0 and 2"):
        word_prefix(torch.ones(3, 2), torch.tensor([[[3]]]))
    with pytest.raises(ValueError, match="that place may look at nothing"):
        masked_attention(*[torch.ones(1, 2, 2)] * 3, torch.tensor([[-math.inf] * 2, [0.0, 0.0]]))
    with pytest.raises(ValueError, match=r"M holds NaN or \+∞"):
        masked_attention(*[torch.ones(1, 2, 2)] * 3, torch.full((2, 2), math.inf))
    with pytest.raises(ValueError, match="prefix must not be above length=3, got 4"):
        attention_mask(3, 4)
    with pytest.raises(ValueError, match="kind must be one of causal, prefix, all"):
        attention_mask(3, 1, "none")
