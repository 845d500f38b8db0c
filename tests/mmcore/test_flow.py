"""(11.1)–(11.6) 画图 / (11.1) to (11.6) drawing, held against explicit loops in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import mmcore
from mmcore.flow import (
    euler_steps,
    flow_matching_loss,
    flow_path,
    frechet_distance,
    guided_velocity,
    nearest_distance,
    variety,
)


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


X_0, X_1, V = (normal(5, 3, seed=seed) for seed in range(3))
T = torch.rand(5, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


@pytest.mark.formula("11.1")
def test_11_1_equals_its_explicit_loops() -> None:
    total = 0.0
    for i in range(5):
        for p in range(3):
            total += (float(V[i, p]) - (float(X_1[i, p]) - float(X_0[i, p]))) ** 2
            t = float(T[i, 0])
            wanted = (1 - t) * X_0[i, p].item() + t * X_1[i, p].item()
            assert flow_path(X_0, X_1, T)[i, p].item() == pytest.approx(wanted)
    assert flow_matching_loss(V, X_0, X_1).item() == pytest.approx(total / 15, rel=1e-12)


def test_11_1_gradient_is_the_gradient_of_the_formula() -> None:
    v, x_0, x_1, t = (x.clone().requires_grad_() for x in (V, X_0, X_1, T))
    assert torch.autograd.gradcheck(flow_matching_loss, (v, x_0, x_1))
    assert torch.autograd.gradcheck(flow_path, (x_0, x_1, t.detach()))


def test_the_path_begins_at_the_noise_and_ends_at_the_picture_and_its_slope_is_the_target() -> None:
    ends = [flow_path(X_0, X_1, torch.full((5, 1), t, dtype=torch.float64)) for t in (0.0, 1.0, 0.5, 0.75)]
    assert torch.equal(ends[0], X_0)
    assert torch.equal(ends[1], X_1)
    assert torch.allclose((ends[3] - ends[2]) / 0.25, X_1 - X_0)
    assert flow_matching_loss(X_1 - X_0, X_0, X_1) == 0


@pytest.mark.formula("11.2")
@pytest.mark.parametrize("w", [0.0, 1.0, 2.5])
def test_11_2_equals_its_explicit_loops(w: float) -> None:
    found = guided_velocity(V, X_0, w)
    for i in range(5):
        for p in range(3):
            with_word, without = V[i, p].item(), X_0[i, p].item()
            assert found[i, p].item() == pytest.approx(without + w * (with_word - without))


@pytest.mark.formula("11.3")
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_11_3_equals_its_explicit_loops(steps: int) -> None:
    frames = euler_steps(lambda x, t: t * x - 1, X_0, steps)
    assert frames.shape == (steps + 1, 5, 3)
    for i in range(5):
        for p in range(3):
            x = X_0[i, p].item()
            for k in range(steps):
                assert frames[k, i, p].item() == pytest.approx(x)
                x += (k / steps * x - 1) / steps
            assert frames[steps, i, p].item() == pytest.approx(x)


def test_on_a_straight_path_one_step_is_enough() -> None:
    for steps in (1, 4):
        assert torch.allclose(euler_steps(lambda x, t: X_1 - X_0, X_0, steps)[-1], X_1)


@pytest.mark.formula("11.4")
def test_11_4_equals_its_explicit_loops() -> None:
    a, b = normal(9, 2, seed=4) @ torch.tensor([[1.0, 0.4], [0.0, 2.0]]).double() + 1, normal(7, 2, seed=5)

    def moments(x: Tensor) -> tuple[list[float], list[list[float]]]:
        n, rows = len(x), x.tolist()
        mean = [sum(row[p] for row in rows) / n for p in range(2)]
        return mean, [[sum((row[p] - mean[p]) * (row[q] - mean[q]) for row in rows) / (n - 1) for q in range(2)]
                      for p in range(2)]

    (mean_a, A), (mean_b, B) = moments(a), moments(b)
    product = [[sum(A[i][k] * B[k][j] for k in range(2)) for j in range(2)] for i in range(2)]
    trace = product[0][0] + product[1][1]
    determinant = product[0][0] * product[1][1] - product[0][1] * product[1][0]
    root = math.sqrt(trace + 2 * math.sqrt(determinant))  # of a 2 × 2 matrix: tr √M = √(tr M + 2 √det M)
    wanted = sum((mean_a[p] - mean_b[p]) ** 2 for p in range(2)) + A[0][0] + A[1][1] + B[0][0] + B[1][1] - 2 * root
    assert frechet_distance(a, b).item() == pytest.approx(wanted, rel=1e-10)
    assert frechet_distance(b, a).item() == pytest.approx(wanted, rel=1e-10)


def test_11_4_is_0_for_equal_sets_and_does_not_break_where_a_covariance_is_flat() -> None:
    x = normal(20, 6)
    assert frechet_distance(x, x).item() == pytest.approx(0, abs=1e-9)
    assert frechet_distance(x, x.flip(0)).item() == pytest.approx(0, abs=1e-9)
    flat = x[:3]  # of rank 2
    assert frechet_distance(flat, x).isfinite()
    assert frechet_distance(x[:1].expand(4, -1), x).item() == pytest.approx(
        (x[0] - x.mean(0)).square().sum().item() + x.var(0).sum().item())


@pytest.mark.formula("11.5")
def test_11_5_equals_its_explicit_loops() -> None:
    for i, found in enumerate(variety(X_0).tolist()):
        others = [math.dist(X_0[i].tolist(), X_0[j].tolist()) for j in range(5) if j != i]
        assert found == pytest.approx(sum(others) / 4)
    assert variety(X_0[:1].expand(3, -1)).tolist() == [0.0, 0.0, 0.0]


@pytest.mark.formula("11.6")
def test_11_6_equals_its_explicit_loops_and_a_copy_is_at_0() -> None:
    found = nearest_distance(X_0, X_1)
    for i in range(5):
        assert found[i].item() == pytest.approx(min(math.dist(X_0[i].tolist(), X_1[m].tolist()) for m in range(5)))
    many = torch.rand(300, 64)
    assert nearest_distance(many[:50], many).tolist() == [0.0] * 50  # the quick way by products leaves some 1e-3


# -- faults by name ---------------------------------------------------------------------------------------------------

ENDS = torch.tensor([[-2.0, 1.0], [3.0, -1.0]], dtype=torch.float64)  # two words, one picture each


def learned(sign: float) -> Tensor:
    """每个词一个速度场 v = A x + b，由最小二乘学成 / A field for each word, learned by least squares on (11.1).

    At t = 0, where x_t is the noise: with one picture to go to, the best field there is exactly x_1 − x_0.
    """
    fields = []
    for word, x_1 in enumerate(ENDS):
        x_0 = normal(400, 2, seed=word)
        x_t = flow_path(x_0, x_1.expand_as(x_0), torch.zeros(400, 1, dtype=torch.float64))
        fields.append(torch.linalg.lstsq(F.pad(x_t, (0, 1), value=1.0), sign * (x_1 - x_0)).solution)
    return torch.stack(fields)


def drawn(fields: Tensor, word: int) -> Tensor:
    """一步 / In one step."""
    return euler_steps(lambda x, t: F.pad(x, (0, 1), value=1.0) @ fields[word], normal(6, 2, seed=9), 1)[-1]


def test_fault_19_a_flow_trained_on_x0_minus_x1_would_run_away_from_the_picture() -> None:
    """目标写反，越走越远 / With the target the wrong way round every step leads away."""
    for word, x_1 in enumerate(ENDS):
        assert torch.allclose(drawn(learned(1.0), word), x_1.expand(6, -1), atol=1e-6)
        away = (drawn(learned(-1.0), word) - x_1).norm(dim=1)
        assert torch.allclose(away, 2 * (normal(6, 2, seed=9) - x_1).norm(dim=1), atol=1e-6)  # twice as far as before
    assert flow_matching_loss(X_0 - X_1, X_0, X_1) > 1  # and (11.1) says so
    assert flow_matching_loss(X_1 - X_0, X_0, X_1) == 0


def test_fault_20_guidance_with_its_two_fields_exchanged_would_draw_what_was_not_asked_for() -> None:
    """两个速度对调，引导越大越往别处去 / Exchanged, more guidance leads away from the word instead of towards it."""
    asked, anything = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]])  # the word pulls to the right
    right = [guided_velocity(asked, anything, w)[0, 0].item() for w in (0.0, 1.0, 3.0)]
    faulty = [guided_velocity(anything, asked, w)[0, 0].item() for w in (0.0, 1.0, 3.0)]
    assert right == [0.0, 1.0, 3.0]
    assert faulty == [1.0, 0.0, -2.0]
    assert torch.equal(guided_velocity(asked, anything, 1.0), asked)  # 1 is the word, 0 is no word
    assert torch.equal(guided_velocity(asked, anything, 0.0), anything)


def test_fault_21_a_frechet_distance_without_the_trace_would_not_see_that_all_drawings_are_one() -> None:
    """只比平均，十个平均图就是满分 / By means only, the mean of everything drawn again and again is perfect."""
    real = normal(500, 4)
    one = real.mean(0, keepdim=True).expand(500, -1)
    faulty = (one.mean(0) - real.mean(0)).square().sum()
    assert faulty < 1e-12
    assert frechet_distance(one, real).item() == pytest.approx(real.var(0).sum().item(), rel=1e-6)
    assert frechet_distance(3 * real, real) > 10  # nor one that is spread three times as wide


def test_what_cannot_be_drawn_or_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="t must be from 0 to 1"):
        flow_path(X_0, X_1, T + 1)
    with pytest.raises(ValueError, match="w may not be below 0"):
        guided_velocity(V, X_0, -1.0)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        euler_steps(lambda x, t: x, X_0, 0)
    with pytest.raises(ValueError, match=r"velocity\(x, t\) must have shape \(5, 3\)"):
        euler_steps(lambda x, t: x[:1], X_0, 2)
    with pytest.raises(ValueError, match="the velocity of step 1 is not finite"):
        euler_steps(lambda x, t: x / 0, X_0, 2)
    with pytest.raises(ValueError, match="expected at least 2 pairs, got 1"):
        frechet_distance(X_0[:1], X_1)
    with pytest.raises(ValueError, match="a holds NaN"):
        frechet_distance(X_0 * math.nan, X_1)
    assert mmcore.frechet_distance is frechet_distance
