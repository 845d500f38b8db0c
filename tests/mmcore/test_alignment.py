"""(2.1)–(2.4) 跨模态对齐 / (2.1) to (2.4) cross-modal alignment, held against explicit loops in float64."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mmcore.alignment import (
    AlignmentLoss,
    CrossModalAlignment,
    contrastive_loss,
    cosine_similarity,
    feature_alignment_loss,
    modality_gap,
    semantic_alignment_loss,
    semantic_similarity,
    sigmoid_loss,
)
from mmcore.ranking import retrieval_scores


def pairs(n: int, width: int = 6, noise: float = 1.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, width, generator=generator, dtype=torch.float64)
    return a, a + noise * torch.randn(n, width, generator=generator, dtype=torch.float64)


def by_loops(a: Tensor, b: Tensor, tau: float, positives: Tensor | None = None) -> float:
    """(2.1) 逐项照写 / (2.1) written out term by term, in Python numbers."""
    n, a, b = len(a), a.detach(), b.detach()

    def sim(x: Tensor, y: Tensor) -> float:
        dot = sum(float(p) * float(q) for p, q in zip(x, y, strict=True))
        return dot / math.sqrt(sum(float(p) ** 2 for p in x) * sum(float(q) ** 2 for q in y))

    def mean_log_softmax(logits: list[float], right: list[int]) -> float:
        total = sum(math.exp(x) for x in logits)
        return sum(math.log(math.exp(logits[p]) / total) for p in right) / len(right)

    total = 0.0
    for i in range(n):
        row_right = [j for j in range(n) if (i == j if positives is None else bool(positives[i, j]))]
        column_right = [j for j in range(n) if (i == j if positives is None else bool(positives[j, i]))]
        total += mean_log_softmax([sim(a[i], b[j]) / tau for j in range(n)], row_right)
        total += mean_log_softmax([sim(b[i], a[j]) / tau for j in range(n)], column_right)
    return -total / (2 * n)


@pytest.mark.formula("2.1")
@pytest.mark.parametrize("tau", [0.02, 0.07, 1.0, 5.0])
@pytest.mark.parametrize("n", [2, 3, 9])
def test_2_1_equals_its_explicit_loops(n: int, tau: float) -> None:
    a, b = pairs(n)
    assert contrastive_loss(a, b, tau).item() == pytest.approx(by_loops(a, b, tau), rel=1e-10)


def test_2_1_by_hand() -> None:
    """两对正交的单位向量，τ = 1：每一项都是 log(e / (e + 1))。

    Two pairs of orthogonal unit vectors and τ = 1: each of the four terms is log(e / (e + 1)), so L = log(1 + 1/e).
    """
    a = torch.eye(2)
    assert contrastive_loss(a, a, 1.0).item() == pytest.approx(math.log(1 + 1 / math.e), rel=1e-6)


@pytest.mark.parametrize("tau", [0.02, 0.3])
def test_2_1_gradient_is_the_gradient_of_the_formula(tau: float) -> None:
    a, b = (x.requires_grad_() for x in pairs(5))
    tau = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(contrastive_loss, (a, b, tau))


@pytest.mark.parametrize("tau", [0.3, 0.02])
def test_2_1_takes_several_positives_each_in_the_denominator(tau: float) -> None:
    a, b = pairs(6)
    positives = torch.eye(6, dtype=torch.bool)
    positives[0, 3] = positives[3, 0] = positives[0, 4] = positives[5, 1] = True
    assert contrastive_loss(a, b, tau, positives).item() == pytest.approx(by_loops(a, b, tau, positives), rel=1e-10)


def test_2_1_with_only_the_diagonal_positive_equals_2_1_without_positives() -> None:
    a, b = pairs(7)
    alone = contrastive_loss(a, b, 0.1, torch.eye(7, dtype=torch.bool))
    assert torch.allclose(alone, contrastive_loss(a, b, 0.1), rtol=1e-12)


@pytest.mark.parametrize(("noise", "tau"), [(1.0, 0.05), (0.05, 0.05), (0.01, 0.052), (0.3, 0.015)])
@pytest.mark.parametrize("several", [False, True])
def test_2_1_keeps_its_float32_gradient_where_the_loss_is_tiny(noise: float, tau: float, several: bool) -> None:
    """损失小到 1e-6 时，朴素的交叉熵梯度错 1e-2 / Plain cross-entropy errs by 1e-2 where the loss is 1e-6."""
    a, b = (x.float() for x in pairs(64, 128, noise))
    positives = torch.eye(64, dtype=torch.bool) if several else None

    def gradient(a: Tensor, b: Tensor) -> tuple[float, Tensor]:
        a, b = a.clone().requires_grad_(), b.clone().requires_grad_()
        loss = contrastive_loss(a, b, tau, positives)
        return loss.item(), torch.cat(torch.autograd.grad(loss, (a, b)))

    loss, wanted = gradient(a.double(), b.double())
    _, got = gradient(a, b)
    assert loss < 0.05
    assert ((got - wanted).norm() / wanted.norm()).item() < 1e-5


def test_2_1_learns_its_temperature() -> None:
    a, b = pairs(8, noise=0.3)
    log_scale = torch.tensor(0.0, dtype=torch.float64, requires_grad=True)
    contrastive_loss(a, b, 1 / log_scale.exp()).backward()
    assert log_scale.grad.item() < 0  # the pairs match well, so a colder softmax lowers the loss


def test_2_1_has_a_finite_gradient_where_one_bound_for_all_would_underflow() -> None:
    """2/τ = 159：减去同一个上界，e⁻¹⁵⁸ 在 float32 里是 0 / With one bound for all, e⁻¹⁵⁸ is 0 in float32."""
    a = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
    b = torch.tensor([[1.0, 0.1], [-1.0, 0.1]], requires_grad=True)
    loss = contrastive_loss(a, b, 0.0126)
    assert all(g.isfinite().all() for g in torch.autograd.grad(loss, (a, b)))


@pytest.mark.parametrize("many", [9, 20])
def test_2_1_with_many_positives_in_a_row_equals_its_explicit_loops(many: int) -> None:
    """有的行一个正例，有的行很多 / Some rows have one positive, others many."""
    a, b = (x.requires_grad_() for x in pairs(24))
    positives = torch.eye(24, dtype=torch.bool)
    positives[0, :many] = positives[1, :8] = True
    loss = contrastive_loss(a, b, 0.2, positives)
    assert loss.item() == pytest.approx(by_loops(a, b, 0.2, positives), rel=1e-10)
    assert torch.autograd.gradcheck(lambda a, b: contrastive_loss(a, b, 0.2, positives), (a, b))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_2_1_of_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    a, b = (x.to(dtype).requires_grad_() for x in pairs(6))
    loss = contrastive_loss(a, b, 0.02)
    assert torch.equal(loss, contrastive_loss(a.float(), b.float(), 0.02))
    loss.backward()
    assert a.grad.dtype == dtype


@pytest.mark.parametrize("tau", [torch.tensor([[0.1]]), torch.tensor([0.1], dtype=torch.float64), np.float32(0.1)])
def test_2_1_takes_a_temperature_of_any_shape_and_type_with_one_element(tau: Tensor) -> None:
    a, b = (x.float() for x in pairs(4))
    loss = contrastive_loss(a, b, tau)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, contrastive_loss(a, b, 0.1))


def test_features_without_a_direction_or_of_two_types_are_refused() -> None:
    a = torch.ones(3, 4)
    with pytest.raises(ValueError, match=r"b 有一行全是 0.*b has a row of zeros"):
        contrastive_loss(a, torch.tensor([[1.0], [0.0], [1.0]]) * a, 0.1)
    with pytest.raises(ValueError, match="a has a row of zeros"):
        contrastive_loss(torch.zeros(3, 4), a, 0.1)
    with pytest.raises(TypeError, match=r"b must be torch.float32, got torch.float64"):
        contrastive_loss(a, a.double(), 0.1)


def test_an_empty_batch_is_refused_with_its_true_size() -> None:
    with pytest.raises(ValueError, match=r"收到 0 对.*got 0"):
        contrastive_loss(torch.ones(0, 4), torch.ones(0, 4), 0.1)


def test_a_batch_of_one_is_refused_because_its_loss_is_always_zero() -> None:
    with pytest.raises(ValueError, match=r"收到 1 对.*got 1"):
        contrastive_loss(torch.ones(1, 4), torch.ones(1, 4), 0.1)


@pytest.mark.parametrize("tau", [0, -1.0, float("nan"), float("inf"), torch.tensor(0.0)])
def test_a_temperature_that_is_not_positive_and_finite_is_refused(tau: float | Tensor) -> None:
    with pytest.raises(ValueError, match=r"tau 需要大于 0.*tau must be positive"):
        contrastive_loss(torch.ones(2, 4), torch.ones(2, 4), tau)


@pytest.mark.parametrize("tau", ["0.1", None, True, 1j, torch.ones(2), torch.tensor(1 + 0j), torch.tensor(True)])
def test_a_temperature_that_is_no_number_is_refused(tau: object) -> None:
    with pytest.raises(TypeError, match="tau must be one number"):
        contrastive_loss(torch.ones(2, 4), torch.ones(2, 4), tau)


@pytest.mark.parametrize(("a", "b", "error", "match"), [
    (torch.ones(2, 4), torch.ones(3, 4), ValueError, r"b must have shape \(2, 4\), got \(3, 4\)"),
    (torch.ones(2, 4), torch.ones(2, 5), ValueError, r"b must have shape \(2, 4\), got \(2, 5\)"),
    (torch.ones(4), torch.ones(4), ValueError, r"a must have shape .* got \(4\)"),
    (torch.ones(2, 4, dtype=torch.long), torch.ones(2, 4), TypeError, "a must be a floating-point tensor"),
    ([[1.0]], torch.ones(2, 4), TypeError, "a must be a tensor, got list"),
])
def test_features_of_a_wrong_shape_or_type_are_refused(a: object, b: object, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        contrastive_loss(a, b, 0.1)


@pytest.mark.parametrize(("positives", "match"), [
    (torch.ones(3, 3, dtype=torch.bool), r"shape \(2, 2\)"),
    (torch.tensor([[True, True], [False, False]]), "at least one positive"),
    (torch.tensor([[True, False], [True, False]]), "at least one positive"),
])
def test_positives_that_leave_a_row_or_column_without_an_answer_are_refused(positives: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        contrastive_loss(torch.ones(2, 4), torch.ones(2, 4), 0.1, positives)
    with pytest.raises(TypeError, match=r"positives must be a boolean tensor, got torch.float32"):
        contrastive_loss(torch.ones(2, 4), torch.ones(2, 4), 0.1, positives.float())


def test_cosine_similarity_does_not_depend_on_length() -> None:
    a, b = pairs(4)
    assert torch.allclose(cosine_similarity(3 * a, b / 7), cosine_similarity(a, b))
    assert torch.allclose(cosine_similarity(a, a).diagonal(), torch.ones(4, dtype=torch.float64))


# -- (2.2) feature alignment ------------------------------------------------------------------------------------------

def product(x: Tensor, y: Tensor) -> float:
    return sum(float(p) * float(q) for p, q in zip(x, y, strict=True))


def projected_by_loops(layer: nn.Linear, features: Tensor) -> Tensor:
    rows = [[product(w, f) + float(c) for w, c in zip(layer.weight.detach(), layer.bias.detach(), strict=True)]
            for f in features]
    return torch.tensor(rows, dtype=torch.float64)


def align_by_loops(a: Tensor, b: Tensor, normalize: bool) -> float:
    total = 0.0
    for x, y in zip(a.detach(), b.detach(), strict=True):
        p, q = (math.sqrt(product(v, v)) if normalize else 1.0 for v in (x, y))
        total += sum((float(s) / p - float(t) / q) ** 2 for s, t in zip(x, y, strict=True))
    return total / len(a)


@pytest.mark.formula("2.2")
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_2_2_equals_its_explicit_loops_projections_included(n: int, normalize: bool) -> None:
    f_A, f_B = pairs(n, 5)[0], pairs(n, 7, seed=1)[0]
    module = CrossModalAlignment((5, 7), 4).double()
    a, b = projected_by_loops(module.projection_A, f_A), projected_by_loops(module.projection_B, f_B)
    outputs = module(f_A, f_B)
    assert torch.allclose(outputs["projected_A"], a, rtol=1e-12)
    assert torch.allclose(outputs["projected_B"], b, rtol=1e-12)
    got = feature_alignment_loss(outputs["projected_A"], outputs["projected_B"], normalize)
    assert got.item() == pytest.approx(align_by_loops(a, b, normalize), rel=1e-10)


def test_2_2_by_hand() -> None:
    """(3, 4) 与 (4, 3)：差 (−1, 1)，平方和 2；除以长度 5 以后是 2/25。

    (3, 4) and (4, 3) differ by (−1, 1): 2 in all; once divided by their length 5, 2/25.
    """
    a, b = torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]])
    assert feature_alignment_loss(a, b, normalize=False).item() == pytest.approx(2.0)
    assert feature_alignment_loss(a, b).item() == pytest.approx(2 / 25)


def test_2_2_is_the_squared_length_and_no_mean_over_the_width() -> None:
    """缺陷 9：补零使宽度加倍，损失不变 / Fault 9: zeros double the width and change nothing."""
    a, b = pairs(5)
    wide = [torch.cat([x, torch.zeros_like(x)], 1) for x in (a, b)]
    for normalize in (True, False):
        loss = feature_alignment_loss(a, b, normalize)
        assert torch.allclose(feature_alignment_loss(*wide, normalize), loss)
        assert not torch.allclose(torch.nn.functional.mse_loss(a, b), loss)


def test_2_2_does_not_fall_by_shrinking_unless_asked_not_to_normalise() -> None:
    """缺陷 16：不除以长度时，缩小一半，损失降到四分之一 / Fault 16: not normalised, half the size is a quarter."""
    a, b = pairs(5)
    assert torch.allclose(feature_alignment_loss(a / 2, b / 2), feature_alignment_loss(a, b))
    short, long = (feature_alignment_loss(a / k, b / k, normalize=False) for k in (2, 1))
    assert torch.allclose(short, long / 4)


def test_2_2_normalised_is_two_less_twice_the_mean_cosine() -> None:
    a, b = pairs(6)
    assert torch.allclose(feature_alignment_loss(a, b), 2 - 2 * cosine_similarity(a, b).diagonal().mean())


def test_2_2_is_zero_for_constant_features_which_retrieve_nothing() -> None:
    constant = torch.ones(8, 4)
    assert feature_alignment_loss(constant, constant).item() == 0
    assert retrieval_scores(cosine_similarity(constant, constant))["r@1"] == 0


# -- (2.3) semantic alignment -----------------------------------------------------------------------------------------

def meanings(n: int, m: int, seed: int = 5) -> Tensor:
    y = torch.rand(n, m, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    y = y * (y > 0.3)  # zeros among them
    return (y + 0.1 * torch.eye(n, m)) / (y + 0.1 * torch.eye(n, m)).sum(1, keepdim=True)


def semantic_by_loops(a: Tensor, b: Tensor) -> list[list[float]]:
    rows = []
    for x in a.detach():
        e = [math.exp(product(x, z) / math.sqrt(len(x))) for z in b.detach()]
        rows.append([v / sum(e) for v in e])
    return rows


@pytest.mark.formula("2.3")
@pytest.mark.parametrize(("n", "m"), [(1, 1), (2, 2), (3, 5), (6, 4)])
def test_2_3_equals_its_explicit_loops(n: int, m: int) -> None:
    a, b = pairs(n)[0], pairs(m, seed=3)[1]
    y = meanings(n, m) if m > 1 else torch.ones(1, 1, dtype=torch.float64)
    S = semantic_by_loops(a, b)
    assert torch.allclose(semantic_similarity(a, b), torch.tensor(S, dtype=torch.float64), rtol=1e-10)
    wanted = -sum(float(y[i, j]) * math.log(S[i][j]) for i in range(n) for j in range(m)) / n
    assert semantic_alignment_loss(a, b, y).item() == pytest.approx(wanted, rel=1e-10, abs=1e-12)


def test_2_3_by_hand() -> None:
    """d = 4，a = (2, 0, 0, 0)，b 为 (ln 3, 0, 0, 0) 与 0：内积除以 √4 是 ln 3 与 0，S = (3/4, 1/4)。y = (½, ½) 时损失是
    −½ ln(3/16)。

    d = 4, a = (2, 0, 0, 0), the b are (ln 3, 0, 0, 0) and 0: the products over √4 are ln 3 and 0, so S = (3/4, 1/4),
    and with y = (½, ½) the loss is −½ ln(3/16).
    """
    a, b = torch.tensor([[2.0, 0, 0, 0]]), torch.tensor([[math.log(3), 0, 0, 0], [0, 0, 0, 0]])
    assert semantic_similarity(a, b)[0].tolist() == pytest.approx([0.75, 0.25])
    assert semantic_alignment_loss(a, b, torch.tensor([[0.5, 0.5]])).item() == pytest.approx(-math.log(3 / 16) / 2)


def test_2_3_is_never_below_the_entropy_of_y_and_reaches_it_where_s_is_y() -> None:
    a, y = torch.eye(3, dtype=torch.float64) * math.sqrt(3), meanings(3, 3).clamp_min(1e-3)
    y = y / y.sum(1, keepdim=True)
    entropy = -(y * y.log()).sum() / 3
    assert torch.allclose(semantic_alignment_loss(a, y.T.log(), y), entropy)  # aᵢᵀ bⱼ / √3 = log yᵢⱼ, so S = y
    assert semantic_alignment_loss(a, pairs(3, 3)[1], y) > entropy


def test_2_3_depends_on_both_sides_on_the_labels_and_on_every_negative() -> None:
    """缺陷 2 与 3：“A 的语义”要依赖 A；损失要看标签和负例 / Faults 2 and 3."""
    a, b = pairs(4)
    y = meanings(4, 4)
    loss = semantic_alignment_loss(a, b, y)
    for changed in (semantic_alignment_loss(a.flip(0), b, y), semantic_alignment_loss(a, b.flip(0), y),
                    semantic_alignment_loss(a, b, y.flip(1))):
        assert not torch.allclose(changed, loss)
    b = b.requires_grad_()
    only_first = torch.zeros(1, 4, dtype=torch.float64)
    only_first[0, 0] = 1
    gradient, = torch.autograd.grad(semantic_alignment_loss(a[:1], b, only_first), b)
    assert gradient.abs().sum(1).min() > 0  # the three that are no match are pushed


def test_2_3_divides_by_the_root_of_the_width() -> None:
    """没有 √d，S 的熵随 d 塌到 0；有了它，几乎不随 d 变 / Without √d the entropy of S falls to 0 as d grows."""
    def entropy(d: int, root: bool) -> float:
        a, b = pairs(64, d)[0], pairs(64, d, seed=1)[0]
        S = semantic_similarity(a, b if root else b * math.sqrt(d))
        return -torch.special.xlogy(S, S).sum(1).mean().item()

    assert max(entropy(d, True) for d in (16, 64, 1024)) - min(entropy(d, True) for d in (16, 64, 1024)) < 0.3
    assert entropy(1024, False) < 0.2 < 0.6 < entropy(16, False)


# -- (2.4) the sigmoid loss -------------------------------------------------------------------------------------------

@pytest.mark.formula("2.4")
@pytest.mark.parametrize(("tau", "bias"), [(0.1, -10.0), (0.5, 0.0), (2.0, 1.5)])
@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7])
def test_2_4_equals_its_explicit_loops(n: int, several: bool, tau: float, bias: float) -> None:
    a, b = pairs(n)
    right = torch.eye(n, dtype=torch.bool)
    right[0, -1] = several or n == 1
    total = 0.0
    for i in range(n):
        for j in range(n):
            sim = product(a[i], b[j]) / math.sqrt(product(a[i], a[i]) * product(b[j], b[j]))
            z = 1 if right[i, j] else -1
            total -= math.log(1 / (1 + math.exp(-z * (sim / tau + bias))))
    got = sigmoid_loss(a, b, tau, bias, right if several else None)
    assert got.item() == pytest.approx(total / n, rel=1e-9)


def test_2_4_by_hand() -> None:
    """两对正交的单位向量，τ = 1，c = 0：对角线各 log(1 + 1/e)，其余各 ln 2；和除以 2。

    Two pairs of orthogonal unit vectors, τ = 1 and c = 0: log(1 + 1/e) on the diagonal, ln 2 elsewhere, all over 2.
    """
    assert sigmoid_loss(torch.eye(2), torch.eye(2), 1.0, 0.0).item() == pytest.approx(
        math.log(1 + 1 / math.e) + math.log(2), rel=1e-6)


def test_2_4_needs_no_rival_where_2_1_does() -> None:
    """一对也有得学：这一对是不是一对 / There is something to learn from one pair: whether it is one."""
    a, b = (x.requires_grad_() for x in pairs(1))
    gradient, = torch.autograd.grad(sigmoid_loss(a, b, 0.1, -10.0), a)
    assert gradient.abs().max() > 0


def test_2_4_learns_its_temperature_and_its_bias() -> None:
    """c 太低时全答“否”，该升；太高时全答“是”，该降 / Too low a c says “no” to all, too high a “yes”."""
    a, b = pairs(8, noise=0.1)
    log_scale, low, high = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.0, -10.0, 3.0))
    to_scale, to_low = torch.autograd.grad(sigmoid_loss(a, b, 1 / log_scale.exp(), low), (log_scale, low))
    to_high, = torch.autograd.grad(sigmoid_loss(a, b, 1.0, high), high)
    assert to_scale < 0
    assert to_low < 0 < to_high


# -- all of them ------------------------------------------------------------------------------------------------------

def test_the_gradients_are_those_of_the_formulas() -> None:
    a, b = (x.requires_grad_() for x in pairs(4))
    y, tau, bias = meanings(4, 4), *(torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.3, -1.0))
    check = torch.autograd.gradcheck
    assert check(feature_alignment_loss, (a, b))
    assert check(lambda a, b: feature_alignment_loss(a, b, normalize=False), (a, b))
    assert check(semantic_similarity, (a, b))
    assert check(lambda a, b: semantic_alignment_loss(a, b, y), (a, b))
    assert check(sigmoid_loss, (a, b, tau, bias))
    assert check(modality_gap, (a, b))


LOSSES = {"2.1": lambda a, b: contrastive_loss(a, b, 0.2),
          "2.2": feature_alignment_loss,
          "2.3": lambda a, b: semantic_alignment_loss(a, b, torch.eye(len(a), dtype=torch.as_tensor(a).dtype)),
          "2.4": lambda a, b: sigmoid_loss(a, b, 0.2, -5.0)}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_does_not_depend_on_the_order_of_the_pairs_or_a_turn_of_both_clouds(name: str) -> None:
    a, b = pairs(6)
    loss, order = LOSSES[name](a, b), torch.tensor([4, 0, 5, 2, 1, 3])
    turn, _ = torch.linalg.qr(pairs(6)[0])
    assert torch.allclose(LOSSES[name](a[order], b[order]), loss)
    assert torch.allclose(LOSSES[name](a @ turn, b @ turn), loss)
    assert not torch.allclose(LOSSES[name](a, b[order]), loss)


@pytest.mark.parametrize("name", LOSSES)
def test_only_semantic_alignment_feels_the_lengths_of_the_features(name: str) -> None:
    a, b = pairs(6)
    assert torch.allclose(LOSSES[name](3 * a, b / 7), LOSSES[name](a, b)) is (name != "2.3")


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_loss_of_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    a, b = (x.to(dtype).requires_grad_() for x in pairs(6))
    loss = LOSSES[name](a, b)
    assert torch.equal(loss, LOSSES[name](a.float(), b.float()))
    loss.backward()
    assert a.grad.dtype == dtype


@pytest.mark.parametrize("function", [*LOSSES.values(), modality_gap])
@pytest.mark.parametrize(("a", "b", "error", "match"), [
    (torch.ones(3, 4), torch.ones(3, 5), ValueError, r"b must have shape .*4\), got \(3, 5\)"),
    (torch.ones(4), torch.ones(4), ValueError, r"a must have shape .* got \(4\)"),
    (torch.ones(0, 4), torch.ones(0, 4), ValueError, r"收到 0 对 / expected at least [12] pairs, got 0"),
    (torch.ones(2, 0), torch.ones(2, 0), ValueError, "expected at least 1 dimensions, got 0"),
    (torch.ones(2, 4, dtype=torch.long), torch.ones(2, 4), TypeError, "a must be a floating-point tensor"),
    (torch.ones(2, 4), torch.ones(2, 4).double(), TypeError, "b must be torch.float32, got torch.float64"),
    ([[1.0]], torch.ones(2, 4), TypeError, "a must be a tensor, got list"),
])
def test_features_that_do_not_fit_are_refused_by_every_loss(function: Callable, a: object, b: object, error: type,
                                                            match: str) -> None:
    with pytest.raises(error, match=match):
        function(a, b)


@pytest.mark.parametrize("function", [feature_alignment_loss, LOSSES["2.4"], modality_gap])
def test_features_without_a_direction_are_refused_where_lengths_are_divided_by(function: Callable) -> None:
    with pytest.raises(ValueError, match=r"a 有一行全是 0.*a has a row of zeros"):
        function(torch.zeros(2, 3), torch.ones(2, 3))
    assert feature_alignment_loss(torch.zeros(2, 3), torch.ones(2, 3), normalize=False).item() == 3


@pytest.mark.parametrize("function", [feature_alignment_loss, LOSSES["2.4"]])
def test_a_pair_without_its_other_half_is_refused(function: Callable) -> None:
    with pytest.raises(ValueError, match=r"b must have shape \(2, 4\), got \(3, 4\)"):
        function(torch.ones(2, 4), torch.ones(3, 4))


@pytest.mark.parametrize(("y", "error", "match"), [
    (torch.eye(3), ValueError, r"y must have shape \(2, 2\), got \(3, 3\)"),
    (torch.ones(2, 2), ValueError, r"每行和需要为 1，最多差了 1 .*every row of y must sum to 1, one is off by 1"),
    (torch.tensor([[1.5, -0.5], [0.0, 1.0]]), ValueError, "no entry of y may be below 0"),
    (torch.tensor([[float("nan"), 1.0], [0.0, 1.0]]), ValueError, "no entry of y may be below 0"),
    (torch.eye(2, dtype=torch.bool), TypeError, "y must be a floating-point tensor"),
    ([[1.0, 0.0], [0.0, 1.0]], TypeError, "y must be a tensor, got list"),
])
def test_a_y_that_is_no_distribution_is_refused(y: object, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        semantic_alignment_loss(torch.ones(2, 4), torch.ones(2, 4), y)


@pytest.mark.parametrize(("bias", "error", "match"), [
    (float("inf"), ValueError, r"bias 需要有限.*bias must be finite, got inf"), ("0", TypeError, "bias must be one"),
    (None, TypeError, "bias must be one number"), (torch.ones(2), TypeError, r"got tensor \(2\)"),
    (True, TypeError, "bias must be one number"),
])
def test_a_bias_that_is_no_finite_number_is_refused(bias: object, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        sigmoid_loss(torch.ones(2, 4), torch.ones(2, 4), 0.1, bias)


def test_2_4_refuses_a_wrong_temperature_and_positives_without_an_answer() -> None:
    a = torch.ones(2, 4)
    with pytest.raises(ValueError, match="tau must be positive"):
        sigmoid_loss(a, a, 0.0, 0.0)
    with pytest.raises(ValueError, match="at least one positive"):
        sigmoid_loss(a, a, 0.1, 0.0, torch.zeros(2, 2, dtype=torch.bool))


def test_the_gap_is_the_distance_of_the_two_centres_and_does_not_depend_on_lengths() -> None:
    """两团各指一方，中心 (1, 0) 与 (0, 1)，相距 √2；指向相反时是 2 / √2 at right angles, 2 when opposite."""
    a, b = torch.tensor([[2.0, 0.0], [5.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    assert modality_gap(a, b).item() == pytest.approx(math.sqrt(2))
    assert modality_gap(a, -a).item() == pytest.approx(2)
    assert modality_gap(a, 7 * a).item() == pytest.approx(0, abs=1e-6)


# -- modules ----------------------------------------------------------------------------------------------------------

def test_the_projections_return_what_their_table_names() -> None:
    module = CrossModalAlignment((5, 7), 4, temperature=0.25).double()
    f_A, f_B = pairs(3, 5)[0], pairs(6, 7)[0]
    outputs = module(f_A, f_B)
    a, b = outputs["projected_A"], outputs["projected_B"]
    assert {name: tuple(x.shape) for name, x in outputs.items()} == {
        "projected_A": (3, 4), "projected_B": (6, 4), "similarity": (3, 6), "semantic_A": (3, 6), "semantic_B": (6, 3)}
    assert torch.equal(outputs["similarity"], cosine_similarity(a, b) / 0.25)
    assert torch.equal(outputs["semantic_A"], semantic_similarity(a, b))
    assert torch.equal(outputs["semantic_B"], semantic_similarity(b, a))


def test_features_of_one_number_are_wide_enough() -> None:
    a = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
    for loss in (*LOSSES.values(), modality_gap):
        assert loss(a, a).isfinite()


def test_the_losses_start_from_their_documented_weights() -> None:
    loss = AlignmentLoss()
    assert (loss.temperature, loss.alpha, loss.beta, loss.gamma, loss.normalize) == (0.1, 0.5, 0.3, 0.2, True)
    module = CrossModalAlignment()
    assert (module.feature_dim, module.projection_dim, module.temperature) == ((512, 512), 256, 0.1)


@pytest.mark.parametrize("off", [2e-4, -2e-4])
def test_rows_of_y_may_be_off_by_what_rounding_does_and_no_more(off: float) -> None:
    a, y = pairs(2)[0].float(), torch.eye(2)
    semantic_alignment_loss(a, a, y * (1 + off / 4))
    with pytest.raises(ValueError, match=r"every row of y must sum to 1, one is off by 0\.0002"):
        semantic_alignment_loss(a, a, y * (1 + off))


def test_a_y_of_half_precision_is_a_distribution_up_to_its_rounding() -> None:
    a = pairs(40)[0].bfloat16()
    y = pairs(40)[0].bfloat16() @ pairs(40)[0].bfloat16().T
    assert semantic_alignment_loss(a, a, y.softmax(1)).isfinite()


def test_one_width_serves_both_modalities() -> None:
    module = CrossModalAlignment(5)
    assert [tuple(p.shape) for p in module.parameters()] == [(256, 5), (256,)] * 2


def test_every_parameter_of_the_projections_is_reached_by_each_loss_alone() -> None:
    f_A, f_B = pairs(6, 5)[0], pairs(6, 7)[0]
    for loss in LOSSES.values():
        module = CrossModalAlignment((5, 7), 4).double()
        loss(*module.project(f_A, f_B)).backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())


def test_a_state_dict_carries_the_projections_over() -> None:
    first, second = CrossModalAlignment((5, 7), 4).double(), CrossModalAlignment((5, 7), 4).double()
    f_A, f_B = pairs(6, 5)[0], pairs(6, 7)[0]
    assert not torch.equal(first(f_A, f_B)["similarity"], second(f_A, f_B)["similarity"])
    second.load_state_dict(first.state_dict())
    for name, x in first(f_A, f_B).items():
        assert torch.equal(x, second(f_A, f_B)[name])


def test_what_an_attention_over_one_item_would_call_semantic_depends_on_both_sides() -> None:
    """缺陷 2：对长度为 1 的序列做注意力，权重恒为 1，A 不起作用 / Fault 2: there A did nothing."""
    module = CrossModalAlignment(6, 4).double()
    a, b = (x.requires_grad_() for x in pairs(5))
    for name in ("semantic_A", "semantic_B"):
        for gradient in torch.autograd.grad(module(a, b)[name].square().sum(), (a, b)):
            assert gradient.abs().max() > 1e-6
    assert module(a, b)["semantic_A"].max() < 1


def test_the_total_is_the_weighted_sum_of_the_three_formulas() -> None:
    a, b = pairs(6)
    y = meanings(6, 6)
    losses = AlignmentLoss(0.2, 2.0, 3.0, 5.0)(a, b, y)
    assert losses["contrastive_loss"] == contrastive_loss(a, b, 0.2)
    assert losses["feature_loss"] == feature_alignment_loss(a, b)
    assert losses["semantic_loss"] == semantic_alignment_loss(a, b, y)
    total = 2 * losses["contrastive_loss"] + 3 * losses["feature_loss"] + 5 * losses["semantic_loss"]
    assert losses["total_loss"].item() == pytest.approx(total.item(), rel=1e-12)


def test_without_y_a_pair_means_itself_or_its_positives_in_equal_shares() -> None:
    a, b = pairs(4)
    positives = torch.eye(4, dtype=torch.bool)
    alone = semantic_alignment_loss(a, b, torch.eye(4).double())
    assert AlignmentLoss()(a, b)["semantic_loss"] == alone
    positives[0, 1] = positives[1, 0] = True
    shared = torch.eye(4).double()
    shared[:2, :2] = 0.5
    losses = AlignmentLoss()(a, b, positives=positives)
    assert losses["semantic_loss"] == semantic_alignment_loss(a, b, shared)
    assert losses["contrastive_loss"] == contrastive_loss(a, b, 0.1, positives)


def test_a_weight_of_zero_takes_a_loss_out_of_the_total_and_out_of_the_gradient() -> None:
    a, b = (x.requires_grad_() for x in pairs(6))
    total = AlignmentLoss(0.2, 0.0, 3.0, 0.0)(a, b)["total_loss"]
    wanted = 3 * feature_alignment_loss(a, b)
    assert total == wanted
    assert torch.equal(torch.autograd.grad(total, a)[0], torch.autograd.grad(wanted, a)[0])


def test_the_total_may_be_asked_to_feel_the_lengths() -> None:
    a, b = pairs(6)
    assert AlignmentLoss(normalize=False)(a, b)["feature_loss"] == feature_alignment_loss(a, b, normalize=False)
    assert AlignmentLoss()(a, b)["feature_loss"] == feature_alignment_loss(a, b)


def test_temperature_and_weights_may_change_between_two_calls_and_are_checked_each_time() -> None:
    a, b = pairs(6)
    loss = AlignmentLoss(alpha=1.0, beta=0.0, gamma=0.0)
    loss.temperature = 0.02
    assert loss(a, b)["total_loss"] == contrastive_loss(a, b, 0.02)
    loss.beta = -1.0
    with pytest.raises(ValueError, match=r"beta 不能小于 0，收到 -1.*beta may not be below 0, got -1"):
        loss(a, b)


@pytest.mark.parametrize(("make", "error", "match"), [
    (lambda: AlignmentLoss(temperature=0.0), ValueError, "temperature must be positive"),
    (lambda: AlignmentLoss(alpha=-0.1), ValueError, "alpha may not be below 0"),
    (lambda: AlignmentLoss(gamma=float("nan")), ValueError, "gamma must be finite"),
    (lambda: AlignmentLoss(beta="1"), TypeError, "beta must be one number, got str"),
    (lambda: CrossModalAlignment(0), ValueError, "feature_dim must be at least 1"),
    (lambda: CrossModalAlignment((4, 5, 6)), ValueError, r"one width or two, got \(4, 5, 6\)"),
    (lambda: CrossModalAlignment(4, 2.5), TypeError, "projection_dim must be a whole number"),
    (lambda: CrossModalAlignment(4, 2, -1.0), ValueError, "temperature must be positive"),
    (lambda: CrossModalAlignment((4, 5), 2)(torch.ones(3, 4), torch.ones(3, 4)), ValueError,
     r"features_B must have shape \(3, 5\), got \(3, 4\)"),
    (lambda: CrossModalAlignment(4, 2)(torch.ones(3, 4).double(), torch.ones(3, 4)), TypeError,
     "features_A must be torch.float32, got torch.float64"),
])
def test_arguments_that_do_not_fit_the_modules_are_refused(make: Callable, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        make()
