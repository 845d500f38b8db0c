"""(13.1)–(13.5) 一批分成几份 / (13.1) to (13.5) a batch in shares, held against explicit loops in float64."""

import math

import pytest
import torch
from torch import Tensor

from mmcore.alignment import contrastive_loss
from mmcore.shares import WAYS, gradient_error, numbers_sent, share_loss

P, n, D = 3, 2, 5
A, B = (torch.randn(P * n, D, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in (0, 1))


def by_loops(a: Tensor, b: Tensor, first: int, tau: float) -> float:
    """(13.1) 逐项照写 / (13.1) written out term by term, in Python numbers."""
    def e(x: Tensor, y: Tensor) -> float:
        dot = sum(float(p) * float(q) for p, q in zip(x, y, strict=True))
        lengths = sum(float(p) ** 2 for p in x) * sum(float(q) ** 2 for q in y)
        return math.exp(dot / math.sqrt(lengths) / tau)

    total = 0.0
    for i in range(len(a)):
        own = e(a[i], b[i])
        total += math.log(own / sum(e(a[i], B[j]) for j in range(len(B))))
        total += math.log(own / sum(e(b[i], A[j]) for j in range(len(A))))
    return -total / (2 * len(a))


@pytest.mark.formula("13.1")
@pytest.mark.parametrize("tau", [0.05, 0.1, 1.0])
def test_13_1_equals_its_explicit_loops_and_the_mean_of_all_shares_is_2_1(tau: float) -> None:
    losses = []
    for k in range(P):
        own = slice(k * n, (k + 1) * n)
        losses.append(share_loss(A[own], B[own], A, B, k * n, tau))
        assert losses[-1].item() == pytest.approx(by_loops(A[own], B[own], k * n, tau), rel=1e-10)
    assert torch.allclose(torch.stack(losses).mean(), contrastive_loss(A, B, tau), rtol=1e-12)


def test_13_1_gradient_is_the_gradient_of_the_formula() -> None:
    given = [x.clone().requires_grad_() for x in (A[n:2 * n], B[n:2 * n], A, B)]
    assert torch.autograd.gradcheck(lambda a, b, A, B: share_loss(a, b, A, B, n, 0.3), given)


def test_13_1_own_rows_must_lie_among_all() -> None:
    with pytest.raises(ValueError, match="from first = 5 on there must be 2 rows, and A has 6"):
        share_loss(A[:n], B[:n], A, B, 5, 0.1)
    with pytest.raises(ValueError, match="first must be at least 0"):
        share_loss(A[:n], B[:n], A, B, -1, 0.1)


@pytest.mark.formula("13.2")
@pytest.mark.formula("13.3")
def test_13_2_and_13_3_equal_their_explicit_loops() -> None:
    g, whole = A[:P], B[0]
    mean = [sum(float(g[p, k]) for p in range(P)) / P for k in range(D)]
    dot = sum(m * float(w) for m, w in zip(mean, whole, strict=True))
    lengths = [math.sqrt(sum(float(x) ** 2 for x in v)) for v in (mean, whole)]
    found = gradient_error(g, whole)
    assert found["cosine"].item() == pytest.approx(dot / (lengths[0] * lengths[1]), rel=1e-10)
    assert found["length"].item() == pytest.approx(lengths[0] / lengths[1], rel=1e-10)


def test_13_3_what_cancels_has_no_direction_and_what_is_zeros_cannot_be_compared_with() -> None:
    assert gradient_error(torch.tensor([[1.0, 2.0], [-1.0, -2.0]]), torch.ones(2))["cosine"].item() == 0.0
    with pytest.raises(ValueError, match="whole is all zeros"):
        gradient_error(torch.ones(2, 3), torch.zeros(3))


@pytest.mark.formula("13.4")
@pytest.mark.formula("13.5")
@pytest.mark.parametrize("machines", [1, 2, 4, 7])
def test_13_4_and_13_5_count_every_number_that_is_handed_on(machines: int) -> None:
    gather = ring = 0
    for _ in range(machines - 1):  # to each of the others
        gather += 2 * n * D  # a and b
        gather += 2 * n * D  # the gradients found for theirs
    for stop in range(machines):
        ring += n  # the sums of the columns, in the first round
        ring += n * D * (stop < machines - 1)  # b itself, which need not come home
        ring += n  # the sums in the second round
        ring += n * D  # the gradients, which must
        ring += n * D * (stop < machines - 1)
    assert numbers_sent(n, D, machines, "gather") == gather
    assert numbers_sent(n, D, machines, "ring") == (ring if machines > 1 else 0)
    assert numbers_sent(n, D, machines, "plain") == numbers_sent(n, D, machines, "own") == gather // 2
    assert numbers_sent(n, D, machines, "local") == 0


def test_13_4_and_13_5_are_those_of_docs_scale() -> None:
    from benchmarks import scale
    for machines in (1, 2, 8, 100):
        for way, cost in (("gather", scale.gather), ("ring", scale.ring)):
            assert numbers_sent(6, 5, machines, way) == cost(6 * machines, 5, machines).sent
    with pytest.raises(ValueError, match="way must be one of"):
        numbers_sent(1, 1, 1, "pigeon")
    assert len(WAYS) == 5
