"""(2.1) 对比损失 / (2.1) the contrastive loss, held against explicit loops in float64."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mmcore.alignment import contrastive_loss, cosine_similarity


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
    with pytest.raises(TypeError, match=r"same dtype, got torch.float32 and torch.float64"):
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
    (torch.ones(2, 2), "boolean tensor"),
    (torch.ones(3, 3, dtype=torch.bool), r"shape \(2, 2\)"),
    (torch.tensor([[True, True], [False, False]]), "at least one positive"),
    (torch.tensor([[True, False], [True, False]]), "at least one positive"),
])
def test_positives_that_leave_a_row_or_column_without_an_answer_are_refused(positives: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        contrastive_loss(torch.ones(2, 4), torch.ones(2, 4), 0.1, positives)


def test_cosine_similarity_does_not_depend_on_length() -> None:
    a, b = pairs(4)
    assert torch.allclose(cosine_similarity(3 * a, b / 7), cosine_similarity(a, b))
    assert torch.allclose(cosine_similarity(a, a).diagonal(), torch.ones(4, dtype=torch.float64))
