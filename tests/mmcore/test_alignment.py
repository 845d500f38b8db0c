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


@pytest.mark.parametrize("tau", [torch.tensor([[0.1]]), torch.tensor([0.1], dtype=torch.float64), np.float32(0.1)])
def test_2_1_takes_a_temperature_of_any_shape_and_type_with_one_element(tau: Tensor) -> None:
    a, b = (x.float() for x in pairs(4))
    loss = contrastive_loss(a, b, tau)
    assert loss.shape == ()
    assert loss.dtype == torch.float32
    assert torch.allclose(loss, contrastive_loss(a, b, 0.1))


def test_2_1_refuses_features_without_a_direction_on_either_side() -> None:
    a = torch.ones(3, 4)
    with pytest.raises(ValueError, match=r"b 有一行全是 0.*b has a row of zeros"):
        contrastive_loss(a, torch.tensor([[1.0], [0.0], [1.0]]) * a, 0.1)
    with pytest.raises(ValueError, match="a has a row of zeros"):
        contrastive_loss(torch.zeros(3, 4), a, 0.1)


@pytest.mark.parametrize("tau", [0, -1.0, float("nan"), float("inf"), torch.tensor(0.0)])
def test_a_temperature_that_is_not_positive_and_finite_is_refused(tau: float | Tensor) -> None:
    with pytest.raises(ValueError, match=r"tau 需要大于 0.*tau must be positive"):
        contrastive_loss(torch.ones(2, 4), torch.ones(2, 4), tau)


@pytest.mark.parametrize("loss", [contrastive_loss, lambda a, b, tau, right: sigmoid_loss(a, b, tau, 0.0, right)])
def test_positives_that_leave_a_row_or_column_without_an_answer_are_refused(loss: Callable) -> None:
    for positives in ([[True, True], [False, False]], [[True, False], [True, False]]):
        with pytest.raises(ValueError, match="at least one positive"):
            loss(torch.ones(2, 4), torch.ones(2, 4), 0.1, torch.tensor(positives))


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
def test_a_loss_does_not_depend_on_order_on_a_turn_of_both_clouds_or_on_lengths(name: str) -> None:
    a, b = pairs(6)
    loss, order = LOSSES[name](a, b), torch.tensor([4, 0, 5, 2, 1, 3])
    turn, _ = torch.linalg.qr(pairs(6)[0])
    assert torch.allclose(LOSSES[name](a[order], b[order]), loss)
    assert torch.allclose(LOSSES[name](a @ turn, b @ turn), loss)
    assert not torch.allclose(LOSSES[name](a, b[order]), loss)
    assert torch.allclose(LOSSES[name](3 * a, b / 7), loss) is (name != "2.3")  # which alone feels the lengths


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_loss_of_half_precision_is_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    a, b = (x.to(dtype).requires_grad_() for x in pairs(6))
    loss = LOSSES[name](a, b)
    assert torch.equal(loss, LOSSES[name](a.float(), b.float()))
    loss.backward()
    assert a.grad.dtype == dtype


@pytest.mark.parametrize("function", [*LOSSES.values(), modality_gap])
def test_a_batch_of_nothing_is_refused_with_its_true_size_and_features_of_one_number_are_enough(
        function: Callable) -> None:
    with pytest.raises(ValueError, match=r"收到 0 对 / expected at least [12] pairs, got 0"):
        function(torch.ones(0, 4), torch.ones(0, 4))
    with pytest.raises(ValueError, match="expected at least 1 dimensions, got 0"):
        function(torch.ones(2, 0), torch.ones(2, 0))
    assert function(torch.tensor([[1.0], [2.0]]), torch.tensor([[1.0], [2.0]])).isfinite()
    if function is LOSSES["2.1"]:  # whose loss of one pair is always 0
        with pytest.raises(ValueError, match="收到 1 对 / expected at least 2 pairs, got 1"):
            function(torch.ones(1, 4), torch.ones(1, 4))


@pytest.mark.parametrize("function", [feature_alignment_loss, LOSSES["2.4"], modality_gap])
def test_features_without_a_direction_are_refused_where_lengths_are_divided_by(function: Callable) -> None:
    with pytest.raises(ValueError, match=r"a 有一行全是 0.*a has a row of zeros"):
        function(torch.zeros(2, 3), torch.ones(2, 3))
    assert feature_alignment_loss(torch.zeros(2, 3), torch.ones(2, 3), normalize=False).item() == 3


@pytest.mark.parametrize(("y", "error", "match"), [
    (torch.ones(2, 2), ValueError, r"每行和需要为 1，最多差了 1 .*every row of y must sum to 1, one is off by 1"),
    (torch.tensor([[1.5, -0.5], [0.0, 1.0]]), ValueError, "no entry of y may be below 0"),
    (torch.tensor([[float("nan"), 1.0], [0.0, 1.0]]), ValueError, "no entry of y may be below 0"),
])
def test_a_y_that_is_no_distribution_is_refused(y: object, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        semantic_alignment_loss(torch.ones(2, 4), torch.ones(2, 4), y)


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


def test_every_parameter_of_the_projections_is_reached_by_each_loss_alone() -> None:
    f_A, f_B = pairs(6, 5)[0], pairs(6, 7)[0]
    for loss in LOSSES.values():
        module = CrossModalAlignment((5, 7), 4).double()
        loss(*module.project(f_A, f_B)).backward()
        assert all(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())


def test_the_total_is_the_weighted_sum_of_the_three_formulas() -> None:
    a, b = pairs(6)
    y = meanings(6, 6)
    losses = AlignmentLoss(0.2, 2.0, 3.0, 5.0)(a, b, y)
    assert AlignmentLoss(normalize=False)(a, b)["feature_loss"] == feature_alignment_loss(a, b, normalize=False)
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
    positives[0, 1:3] = positives[1, 0] = True  # three, two and one in a row: each row is shared by itself
    shared = positives.double() / torch.tensor([[3.0], [2.0], [1.0], [1.0]]).double()
    losses = AlignmentLoss()(a, b, positives=positives)
    assert losses["semantic_loss"] == semantic_alignment_loss(a, b, shared)
    assert losses["contrastive_loss"] == contrastive_loss(a, b, 0.1, positives)


def test_temperature_and_weights_may_change_between_two_calls_and_are_checked_each_time() -> None:
    a, b = pairs(6)
    loss = AlignmentLoss(alpha=1.0, beta=0.0, gamma=0.0)
    loss.temperature = 0.02
    assert loss(a, b)["total_loss"] == contrastive_loss(a, b, 0.02)
    loss.beta = -1.0
    with pytest.raises(ValueError, match=r"beta 不能小于 0，收到 -1.*beta may not be below 0, got -1"):
        loss(a, b)


@pytest.mark.parametrize(("widths", "name"), [((4, 5), "features_B"), ((5, 4), "features_A")])
def test_features_of_another_width_than_their_projection_are_refused(widths: tuple[int, int], name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name} must have shape \(\w, 5\), got \(3, 4\)|{name} .*\(3, 5\), got"):
        CrossModalAlignment(widths, 2)(torch.ones(3, 4), torch.ones(3, 4))
