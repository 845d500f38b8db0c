"""因果解码器与它的损失 / The causal decoder and its loss."""

import math

import pytest
import torch
from torch import Tensor, nn

from mmcore.generation import CausalDecoder, generation_loss

V, D, PAD, END = 9, 5, 0, 3
TOKENS = torch.tensor([[9, 4, 5, END], [10, 6, END, PAD], [9, END, PAD, PAD]])  # start, words, end, padding


def tensor(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decoder(layers: int = 2, **options: int) -> CausalDecoder:
    torch.manual_seed(0)
    return CausalDecoder(V, D, width=8, layers=layers, max_tokens=6, **options).double()


# -- the loss ---------------------------------------------------------------------------------------------------------

def test_the_loss_is_the_mean_of_minus_ln_p_over_the_real_tokens_by_loops() -> None:
    logits, total, count = tensor(3, 3, V), 0.0, 0
    for n in range(3):
        for place in range(3):
            wanted = int(TOKENS[n, place + 1])
            if wanted != PAD:
                scores = [math.exp(x) for x in logits[n, place].tolist()]
                total -= math.log(scores[wanted] / sum(scores))
                count += 1
    assert count == 6
    assert generation_loss(logits, TOKENS).item() == pytest.approx(total / count, rel=1e-12)


def test_blind_guessing_costs_ln_v_however_much_padding_there_is() -> None:
    """每个词元都一样可能：−ln(1/9) = ln 9 / Every token alike: −ln(1/9) = ln 9."""
    assert generation_loss(torch.zeros(3, 3, V), TOKENS).item() == pytest.approx(math.log(9))
    longer = torch.cat([TOKENS, torch.zeros(3, 4, dtype=torch.long)], 1)
    assert generation_loss(torch.zeros(3, 7, V), longer).item() == pytest.approx(math.log(9))


def test_the_loss_of_the_decoder_is_what_it_says_token_by_token() -> None:
    """一次算完，与一个词元一个词元地问，是同一个数 / All at once, or asked token by token: the same number."""
    model, h, total = decoder(), tensor(3, D), []
    for n in range(3):
        for place in range(1, 4):
            if TOKENS[n, place] != PAD:
                before = TOKENS[n:n + 1, :place]
                p = model(h[n:n + 1], before)[0, -1].softmax(0)
                total.append(-math.log(p[TOKENS[n, place]].item()))
    assert generation_loss(model(h, TOKENS[:, :-1]), TOKENS).item() == pytest.approx(sum(total) / len(total), rel=1e-9)


@pytest.mark.parametrize(("logits", "tokens", "error", "match"), [
    (torch.zeros(3, V), TOKENS, TypeError, r"logits must be a floating tensor \(B, L, V\)"),
    (torch.zeros(3, 3, V), TOKENS.float(), TypeError, "tokens must be an int64 tensor"),
    (torch.zeros(3, 3, V), TOKENS[:, :3], ValueError, r"tokens must have shape \(3, 4\), got \(3, 3\)"),
    (torch.zeros(2, 3, V), TOKENS, ValueError, r"tokens must have shape \(2, 4\), got \(3, 4\)"),
    (torch.zeros(3, 3, V), torch.zeros(3, 4, dtype=torch.long), ValueError, "no token to write, all is padding"),
])
def test_logits_and_tokens_that_do_not_fit_are_refused(logits: Tensor, tokens: Tensor, error: type,
                                                       match: str) -> None:
    with pytest.raises(error, match=match):
        generation_loss(logits, tokens)


# -- the decoder ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("prefix", [1, 3])
def test_no_place_sees_a_later_token(prefix: int) -> None:
    model, h = decoder(prefix=prefix), tensor(3, D)
    before = model(h, TOKENS)
    changed = TOKENS.clone()
    changed[:, 2] = 7
    after = model(h, changed)
    assert torch.allclose(before[:, :2], after[:, :2], atol=1e-12)
    assert not torch.allclose(before[:, 2:], after[:, 2:], atol=1e-3)


def test_every_place_sees_h_and_the_start_token() -> None:
    model, h = decoder(), tensor(3, D)
    before = model(h, TOKENS)
    other = torch.cat([model.start(torch.tensor([1, 0, 1])), TOKENS[:, 1:]], 1)
    for after in (model(h + 1, TOKENS), model(h, other)):
        assert (before - after).abs().amax(2).min() > 1e-4


def test_padding_behind_a_name_changes_nothing_before_it() -> None:
    model, h = decoder(), tensor(1, D)
    short = torch.tensor([[9, 4, 5]])
    padded = torch.tensor([[9, 4, 5, PAD, PAD]])
    assert torch.allclose(model(h, short), model(h, padded)[:, :3], atol=1e-12)


def test_every_parameter_is_registered_and_reached_by_a_gradient() -> None:
    model = decoder(prefix=2)
    generation_loss(model(tensor(3, D), TOKENS[:, :-1]), TOKENS).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_state_dict_carries_a_decoder_over() -> None:
    first, second = decoder(), decoder()
    with torch.no_grad():
        for p in second.parameters():
            p.add_(1)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(tensor(3, D), TOKENS), second(tensor(3, D), TOKENS))


def greedy_by_loops(model: CausalDecoder, h: Tensor, start: int) -> tuple[list[int], list[float]]:
    tokens, chances = [V + start], []
    while len(tokens) <= model.max_tokens and tokens[-1] != END:
        p = model(h.unsqueeze(0), torch.tensor([tokens]))[0, -1].softmax(0)
        tokens.append(p.argmax().item())
        chances.append(p.max().item())
    return tokens[1:], chances


@pytest.fixture(scope="module")
def trained() -> tuple[CausalDecoder, Tensor]:
    torch.manual_seed(0)
    model, h = CausalDecoder(V, D, width=16, max_tokens=6), tensor(3, D).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        generation_loss(model(h, TOKENS[:, :-1]), TOKENS).backward()
        optimizer.step()
    return model, h


def test_a_decoder_learns_to_write_what_h_says(trained: tuple[CausalDecoder, Tensor]) -> None:
    model, h = trained
    assert model.generate(h, torch.tensor([0, 1, 0]))[0].tolist() == TOKENS[:, 1:].tolist()


def test_greedy_generation_takes_the_most_probable_token_each_time(trained: tuple[CausalDecoder, Tensor]) -> None:
    model, h = trained
    for some in (h, h.flip(0) + 0.1):
        tokens, p = model.generate(some, torch.tensor([0, 1, 0]))
        for n in range(3):
            wanted, chances = greedy_by_loops(model, some[n], n % 2)
            assert tokens[n].tolist() == wanted + [PAD] * (tokens.shape[1] - len(wanted))
            assert p[n].tolist() == pytest.approx(chances + [1.0] * (p.shape[1] - len(chances)), rel=1e-4)


def test_sampled_generation_follows_the_tempered_probabilities() -> None:
    model, n = decoder(), 4000
    h = tensor(1, D).expand(n, D)
    logits = model(h[:1], model.start(torch.zeros(1, dtype=torch.long)))[0, -1]
    for temperature in (0.5, 2.0):
        tokens, p = model.generate(h, torch.zeros(n, dtype=torch.long), temperature, torch.Generator().manual_seed(0))
        wanted = (logits / temperature).softmax(0)
        seen = torch.bincount(tokens[:, 0], minlength=V).double() / n
        assert (seen - wanted).abs().max() < 4 * (0.25 / n) ** 0.5
        assert torch.allclose(p[:, 0], logits.softmax(0)[tokens[:, 0]])  # before the temperature


def test_the_same_generator_draws_the_same_and_the_global_numbers_stay() -> None:
    model, h, which = decoder(), tensor(5, D), torch.zeros(5, dtype=torch.long)
    torch.manual_seed(7)
    wanted = torch.rand(2)
    torch.manual_seed(7)
    draws = [model.generate(h, which, 1.5, torch.Generator().manual_seed(s))[0] for s in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert draws[0].shape != draws[2].shape or not torch.equal(draws[0], draws[2])
    assert torch.equal(torch.rand(2), wanted)


def test_a_start_token_is_never_written() -> None:
    model = decoder()
    assert model(tensor(3, D), TOKENS).shape == (3, 4, V)
    assert model.start(torch.tensor([0, 1])).tolist() == [[V], [V + 1]]


MODEL, H = decoder(), tensor(2, D)
WHICH = torch.tensor([0, 1])


@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda: CausalDecoder(V, D, width=9), ValueError, "width must be a multiple of heads, got 9 and 2"),
    (lambda: CausalDecoder(V, D, end=V), ValueError, r"pad and end must be in the vocabulary \(0 to 8\)"),
    (lambda: CausalDecoder(V, 0), ValueError, "feature_dim must be at least 1, got 0"),
    (lambda: MODEL(tensor(2, D + 1), TOKENS[:2]), ValueError, r"h must have shape \(\*, 5\), got \(2, 6\)"),
    (lambda: MODEL(H, TOKENS), ValueError, r"tokens must have shape \(2, \*\), got \(3, 4\)"),
    (lambda: MODEL(H, TOKENS[:2].int()), TypeError, "tokens must be an int64 tensor"),
    (lambda: MODEL(H, torch.ones(2, 7, dtype=torch.long)), ValueError, "expected 1 to 6 tokens, got 7"),
    (lambda: MODEL(H, torch.full((2, 2), V + 2)), ValueError, "token ids must lie between 0 and 10"),
    (lambda: MODEL.generate(H, torch.tensor([0, 2])), ValueError, "numbers from 0 to 1"),
    (lambda: MODEL.generate(H, torch.tensor([0])), ValueError, "which must have 2 entries, got 1"),
    (lambda: MODEL.generate(H, WHICH, -1.0), ValueError, "temperature must be positive"),
    (lambda: MODEL.generate(H, WHICH, 1.0), TypeError, "a temperature above 0 needs a generator"),
])
def test_sizes_tokens_and_temperatures_that_do_not_fit_are_refused(call: object, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_generation_needs_no_gradient_and_keeps_the_mode() -> None:
    model = decoder().train()
    tokens, p = model.generate(tensor(2, D), WHICH)
    assert not p.requires_grad
    assert model.training
    assert isinstance(model, nn.Module)
    assert tokens.dtype == torch.int64
