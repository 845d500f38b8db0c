"""因果解码器与它的损失 / The causal decoder and its loss."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from mmcore.decoder import CausalDecoder, beam_search, generation_loss
from tests.support import tensor

V, D, PAD, END = 9, 5, 0, 3
TOKENS = torch.tensor([[9, 4, 5, END], [10, 6, END, PAD], [9, END, PAD, PAD]])  # start, words, end, padding


def decoder(layers: int = 2, **options: int) -> CausalDecoder:
    torch.manual_seed(0)
    return CausalDecoder(V, D, width=8, layers=layers, max_tokens=6, **options).double()


# -- the loss ---------------------------------------------------------------------------------------------------------

def test_the_loss_is_the_mean_of_minus_ln_p_over_the_real_tokens_by_loops() -> None:
    logits, total, count = tensor(3, 3, V), 0.0, 0
    for n in range(3):
        for position in range(3):
            wanted = int(TOKENS[n, position + 1])
            if wanted != PAD:
                scores = [math.exp(x) for x in logits[n, position].tolist()]
                total -= math.log(scores[wanted] / sum(scores))
                count += 1
    assert count == 6
    assert generation_loss(logits, TOKENS).item() == pytest.approx(total / count, rel=1e-12)


@pytest.mark.parametrize(("logits", "tokens", "error", "match"), [
    (torch.zeros(3, 3, V), TOKENS[:, :3], ValueError, r"tokens must have shape \(3, 4\), got \(3, 3\)"),
    (torch.zeros(3, 3, V), torch.zeros(3, 4, dtype=torch.long), ValueError, "no token to write, all is padding"),
])
def test_logits_and_tokens_that_do_not_fit_are_refused(logits: Tensor, tokens: Tensor, error: type,
                                                       match: str) -> None:
    with pytest.raises(error, match=match):
        generation_loss(logits, tokens)


# -- the decoder ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("prefix", [1, 3])
def test_no_position_sees_a_later_token(prefix: int) -> None:
    model, h = decoder(prefix=prefix), tensor(3, D)
    before = model(h, TOKENS)
    changed = TOKENS.clone()
    changed[:, 2] = 7
    after = model(h, changed)
    assert torch.allclose(before[:, :2], after[:, :2], atol=1e-12)
    assert not torch.allclose(before[:, 2:], after[:, 2:], atol=1e-3)


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


def test_what_is_not_given_is_one_layer_one_position_and_sixteen_tokens() -> None:
    model = CausalDecoder(V, D)
    assert (len(model.blocks), model.prefix, model.max_tokens, model.embed.embedding_dim) == (1, 1, 16, 64)
    assert (model.pad, model.end, model.starts) == (0, 3, 2)
    assert model.search(tensor(1, D).float(), torch.tensor([0]))[0].shape[:2] == (1, 4)
    assert CausalDecoder(V, D, end=0).end == 0


def test_tables_start_so_that_products_with_them_are_near_1() -> None:
    torch.manual_seed(0)
    plain, prefix = (CausalDecoder(500, 300, prefix=40, max_tokens=60, one_each=one_each) for one_each in (0, 1))
    stds = [table.weight.std().item() for table in (plain.embed, plain.positions, prefix.positions, prefix.open)]
    assert stds == pytest.approx([1 / 8, 1 / 8, 4 / 8, (300 * 64) ** -0.5], rel=0.03)
    assert not prefix.open.bias.any()


def test_what_is_made_on_the_way_lies_where_the_features_lie() -> None:
    model, h = decoder(), tensor(2, D)
    wanted = model.search(h, WHICH, 3)[1], model.generate(h, WHICH, 0.5, torch.Generator().manual_seed(0))[0]
    with torch.device("meta"):  # where all goes that does not say where
        found = model.search(h, WHICH, 3)[1], model.generate(h, WHICH, 0.5, torch.Generator("cpu").manual_seed(0))[0]
    assert all(torch.equal(a, b) for a, b in zip(wanted, found, strict=True))


# -- a prefix of several features: (5.1) ------------------------------------------------------------------------------

K = 3


def prefixed(**options: int) -> CausalDecoder:
    model = decoder(prefix=K, one_each=True, **options)
    with torch.no_grad():
        for p in model.parameters():  # nothing stays at 0, or it would not be tested
            p.add_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=p.dtype))
    return model


def matrix_by_loops(weight: Tensor, x: list[float], bias: Tensor) -> list[float]:
    return [sum(w * value for w, value in zip(row, x, strict=True)) + b
            for row, b in zip(weight.tolist(), bias.tolist(), strict=True)]


def normalised(layer: nn.LayerNorm, x: list[float]) -> list[float]:
    mean = sum(x) / len(x)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in x) / len(x) + layer.eps)
    return [(value - mean) / deviation * w + b
            for value, w, b in zip(x, layer.weight.tolist(), layer.bias.tolist(), strict=True)]


def block_by_loops(block: nn.Module, xs: list[list[float]]) -> list[list[float]]:
    """每个位置只看自己和前面的 / Each position looks at itself and at those before it."""
    width = len(xs[0])
    size = width // block.heads
    qkv = [matrix_by_loops(block.qkv.weight, normalised(block.before_attention, x), block.qkv.bias) for x in xs]
    out = []
    for i, x in enumerate(xs):
        seen = []
        for head in range(block.heads):
            q, k, v = (slice(part * width + head * size, part * width + (head + 1) * size) for part in range(3))
            scores = [sum(a * b for a, b in zip(qkv[i][q], qkv[j][k], strict=True)) / math.sqrt(size)
                      for j in range(i + 1)]
            total = sum(math.exp(s) for s in scores)
            seen += [sum(math.exp(s) / total * qkv[j][v][d] for j, s in enumerate(scores)) for d in range(size)]
        x = [a + b for a, b in zip(x, matrix_by_loops(block.out.weight, seen, block.out.bias), strict=True)]
        inner = matrix_by_loops(block.network[0].weight, normalised(block.before_network, x), block.network[0].bias)
        inner = [value * (1 + math.erf(value / math.sqrt(2))) / 2 for value in inner]
        outer = matrix_by_loops(block.network[2].weight, inner, block.network[2].bias)
        out.append([a + b for a, b in zip(x, outer, strict=True)])
    return out


def log_p_by_loops(model: CausalDecoder, v: Tensor, y: list[int]) -> float:
    """(5.1) 的 ln p(y | v)，一个数一个数地算 / ln p(y | v) of (5.1), number by number."""
    E, P = model.embed.weight.tolist(), model.positions.weight.tolist()
    total = 0.0
    for position in range(1, len(y)):
        xs = [matrix_by_loops(model.open.weight, v_k.tolist(), model.open.bias) for v_k in v]
        xs += [E[token] for token in y[:position]]
        xs = [[a + b for a, b in zip(x, p, strict=True)] for x, p in zip(xs, P, strict=False)]
        for block in model.blocks:
            xs = block_by_loops(block, xs)
        last = normalised(model.normalise, xs[-1])
        scores = matrix_by_loops(model.embed.weight[:V], last, model.bias)
        total += scores[y[position]] - math.log(sum(math.exp(s) for s in scores))
    return total


@pytest.mark.formula("5.1")
def test_the_probability_of_a_text_after_a_prefix_of_features_is_5_1_by_loops() -> None:
    model, v = prefixed(), tensor(3, K, D)
    log_p = model(v, TOKENS[:, :-1]).log_softmax(2)
    for n in range(3):
        y = [token for token in TOKENS[n].tolist() if token != PAD]
        found = sum(log_p[n, position, y[position + 1]].item() for position in range(len(y) - 1))
        assert found == pytest.approx(log_p_by_loops(model, v[n], y), rel=1e-9)


@pytest.mark.parametrize("v", [tensor(3, K, D + 1), tensor(3, K + 1, D), tensor(3, D)])
def test_a_prefix_of_another_shape_is_refused(v: Tensor) -> None:
    with pytest.raises(ValueError, match=r"h must have shape .*3, 5\), got "):
        prefixed()(v, TOKENS)


# -- beam search: (5.2) -----------------------------------------------------------------------------------------------

def all_texts(model: CausalDecoder, h: Tensor, start: int, power: float) -> list[tuple[float, list[int]]]:
    """每一句能写的话和它的得分 / Every text that can be written, with its score: the best first."""
    found, longest = [], model.max_tokens
    for length in range(1, longest + 1):
        for body in itertools.product([t for t in range(model.vocabulary) if t != END], repeat=length):
            text = [*body[:-1], END] if length < longest else list(body)
            found.append(tuple(text))
            if length == longest:
                found.append((*body[:-1], END))
    scored = []
    for text in set(found):
        log_p = model(h.unsqueeze(0), torch.tensor([[V + start, *text[:-1]]]))[0].log_softmax(1)
        total = sum(log_p[position, token].item() for position, token in enumerate(text))
        scored.append((total / len(text) ** power, list(text)))
    return sorted(scored, reverse=True)


@pytest.mark.formula("5.2")
@pytest.mark.parametrize("power", [0.0, 0.7, 1.0])
def test_a_beam_that_drops_nothing_is_exhaustive_search(power: float) -> None:
    torch.manual_seed(1)
    model = CausalDecoder(V, D, width=8, layers=1, max_tokens=2).double()
    for p in model.parameters():
        p.data.mul_(3)
    h = tensor(2, D)
    tokens, score = model.search(h, torch.tensor([0, 1]), beams=V * V, length_power=power)
    for n in range(2):
        wanted = all_texts(model, h[n], n, power)
        assert len(wanted) == 1 + (V - 1) * V  # the end at once; or another token and then any
        count = len(wanted)
        assert score[n, :count].tolist() == pytest.approx([s for s, _ in wanted], rel=1e-9)
        assert [row[:1] if row[0] == END else row for row in tokens[n, :count].tolist()] == [y for _, y in wanted]
        assert (score[n, count:] == -torch.inf).all()


A, B = 1, 2
TREE = {(): {A: 0.6, B: 0.4}, (A,): {4: 0.35, 5: 0.33, END: 0.32}, (B,): {6: 0.9, END: 0.1}}


def test_greedy_writing_misses_the_likeliest_text_and_two_beams_find_it() -> None:
    """贪心 / greedy: A 0.6, then 0.35: 0.21; 束 / beams: B 0.4, then 0.9: 0.36."""
    def next_log_p(tokens: Tensor) -> Tensor:
        p = torch.zeros(len(tokens), 7, dtype=torch.float64)
        for row, text in enumerate(tokens[:, 1:].tolist()):
            for token, chance in TREE.get(tuple(text), {END: 1.0}).items():
                p[row, token] = chance
        return p.log()

    found = [beam_search(next_log_p, torch.tensor([[8]]), 3, beams) for beams in (1, 2)]
    assert [tokens[0, 0].tolist() for tokens, _ in found] == [[A, 4, END], [B, 6, END]]
    assert [s[0, 0].exp().item() for _, s in found] == pytest.approx([0.21, 0.36])
    assert found[1][1][0].exp().tolist() == pytest.approx([0.36, 0.21])
    assert beam_search(next_log_p, torch.tensor([[8]]), 3)[0].shape == (1, 4, 3)
    with pytest.raises(ValueError, match="most must be at least 1"):
        beam_search(next_log_p, torch.tensor([[8]]), 0)


def test_a_beam_of_one_is_greedy(trained: tuple[CausalDecoder, Tensor]) -> None:
    model, h = trained
    for some in (h, h.flip(0) + 0.1):
        which = torch.tensor([0, 1, 0])
        (greedy, p), (tokens, score) = model.generate(some, which), model.search(some, which, beams=1)
        assert torch.equal(tokens[:, 0], greedy)
        assert score[:, 0].tolist() == pytest.approx(p.log().sum(1).tolist(), rel=1e-4)


def test_search_stops_at_the_end_of_the_decoder_and_pads_with_its_padding() -> None:
    p = torch.tensor([0.1, 0.2, 0.4, 0.3]).double().log()
    tokens, s = beam_search(lambda tokens: p.expand(len(tokens), -1), torch.tensor([[1]]), 2, beams=2, end=0)
    assert tokens[0, 0].tolist() == [2, 2]
    assert s[0].exp().tolist() == pytest.approx([0.16, 0.12])
    tokens = beam_search(lambda tokens: p.expand(len(tokens), -1), torch.tensor([[1]]), 2, beams=2, end=2)[0]
    assert tokens.tolist() == [[[2, 0], [3, 2]]]
    model, v = prefixed(end=1, pad=8), tensor(6, K, D)
    which = torch.zeros(6, dtype=torch.long)
    assert torch.equal(model.search(v, which, 1)[0][:, 0], model.generate(v, which)[0])
    assert (model.generate(v, which)[0] == 8).any()


def test_more_beams_never_find_less_here_and_rows_do_not_disturb_each_other() -> None:
    model, v = prefixed(), tensor(4, K, D)
    which = torch.tensor([0, 1, 0, 1])
    one, many = (model.search(v, which, beams) for beams in (1, 50))
    assert (many[1][:, 0] >= one[1][:, 0] - 1e-9).all()
    assert (many[1].diff(dim=1) <= 0).all(), "from the best down"
    for n in range(4):
        tokens, score = model.search(v[n:n + 1], which[n:n + 1], 50)
        assert score[0].tolist() == pytest.approx(many[1][n].tolist(), rel=1e-9)
        assert torch.equal(tokens[0, 0], many[0][n, 0, :tokens.shape[2]])


MODEL, H = decoder(), tensor(2, D)
WHICH = torch.tensor([0, 1])


@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda: CausalDecoder(V, D, width=9), ValueError, "width must be a multiple of heads, got 9 and 2"),
    (lambda: CausalDecoder(V, D, end=V), ValueError, "end must be below 9, got 9"),
    (lambda: CausalDecoder(V, D, pad=V), ValueError, "pad must be below 9, got 9"),
    (lambda: MODEL(tensor(2, D + 1), TOKENS[:2]), ValueError, r"h must have shape .*, got \(2, 6\)"),
    (lambda: MODEL(tensor(2, 1, D), TOKENS[:2]), ValueError, r"h must have shape \(B, 5\), got \(2, 1, 5\)"),
    (lambda: MODEL(H, torch.ones(2, 7, dtype=torch.long)), ValueError, "expected 1 to 6 tokens, got 7"),
    (lambda: MODEL(H, TOKENS[:2, :0]), ValueError, "expected 1 to 6 tokens, got 0"),
    (lambda: MODEL(H, torch.full((2, 2), V + 2)), ValueError, "token ids must lie between 0 and 10"),
    (lambda: MODEL.generate(H, torch.tensor([0, 2])), ValueError, "numbers from 0 to 1"),
    (lambda: MODEL.generate(H, WHICH, -1.0), ValueError, "temperature may not be below 0"),
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
