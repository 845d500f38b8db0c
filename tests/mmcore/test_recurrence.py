"""(8.1)、(8.2)、(8.3) 许多帧合成一个特征 / (8.1), (8.2), (8.3): frames become one feature, against explicit loops."""

import math

import pytest
import torch
from torch import Tensor, nn

from mmcore.attention import TemporalAttention, attended
from mmcore.recurrence import Recurrence, mean_over_time
from tests.support import tensor

B, T, D, H, A = 2, 4, 3, 5, 2


def filled(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for k, parameter in enumerate(module.parameters()):
            parameter.copy_(tensor(*parameter.shape, seed=20 + k))
    return module.double()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def dot(a: Tensor, b: Tensor) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


@pytest.mark.formula("8.1")
def test_the_mean_adds_every_frame_and_divides_by_their_number() -> None:
    f = tensor(B, T, D)
    wanted = [[sum(float(f[n, t, k]) for t in range(T)) / T for k in range(D)] for n in range(B)]
    assert torch.allclose(mean_over_time(f), torch.tensor(wanted, dtype=torch.float64), rtol=1e-12)


def states_by_loops(f: Tensor, W: Tensor, U: Tensor, b: Tensor, c: Tensor) -> Tensor:
    states = torch.zeros(B, T, H, dtype=torch.float64)
    for n in range(B):
        h = [0.0] * H
        for t in range(T):
            old = torch.tensor(h, dtype=torch.float64)
            new = []
            for i in range(H):
                r = sigmoid(dot(W[i], f[n, t]) + dot(U[i], old) + float(b[i]))
                z = sigmoid(dot(W[H + i], f[n, t]) + dot(U[H + i], old) + float(b[H + i]))
                candidate = math.tanh(dot(W[2 * H + i], f[n, t]) + float(b[2 * H + i])
                                      + r * (dot(U[2 * H + i], old) + float(c[i])))
                new.append((1 - z) * candidate + z * h[i])
            h = new
            states[n, t] = torch.tensor(h, dtype=torch.float64)
    return states


@pytest.mark.formula("8.2")
def test_the_unit_reads_frame_by_frame_as_its_formula_says() -> None:
    f, made = tensor(B, T, D), filled(Recurrence(D, H))
    wanted = states_by_loops(f, made.W.detach(), made.U.detach(), made.b.detach(), made.c.detach())
    assert torch.allclose(made.states(f), wanted, rtol=1e-10)
    assert torch.allclose(made(f), wanted[:, -1], rtol=1e-10)


def test_it_is_the_gru_of_torch_forward_and_backward() -> None:
    made, theirs = filled(Recurrence(D, H)), nn.GRU(D, H, batch_first=True).double()
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(made.W)
        theirs.weight_hh_l0.copy_(made.U)
        theirs.bias_ih_l0.copy_(made.b)
        theirs.bias_hh_l0.copy_(torch.cat([torch.zeros(2 * H, dtype=torch.float64), made.c]))
    f, g = tensor(B, T, D).requires_grad_(), tensor(B, T, D).requires_grad_()
    ours, gru = made.states(f), theirs(g)[0]
    assert torch.allclose(ours, gru, rtol=1e-10)
    ours.square().sum().backward()
    gru.square().sum().backward()
    assert torch.allclose(f.grad, g.grad, rtol=1e-10)
    assert torch.allclose(made.U.grad, theirs.weight_hh_l0.grad, rtol=1e-10)


@pytest.mark.formula("8.3")
def test_attention_scores_each_frame_with_its_position_and_sums_by_a_softmax_over_time() -> None:
    f, made = tensor(B, T, D), filled(TemporalAttention(D, T, A, H))
    p, W, b, w = (x.detach() for x in (made.p, made.W, made.b, made.w))
    wanted = torch.zeros(B, A, D, dtype=torch.float64)
    for n in range(B):
        x = [f[n, t] + p[t] for t in range(T)]
        for k in range(A):
            scores = [sum(float(w[k, i]) * math.tanh(dot(W[i], x[t]) + float(b[i])) for i in range(H))
                      for t in range(T)]
            total = sum(math.exp(s) for s in scores)
            alpha = [math.exp(s) / total for s in scores]
            assert made.weights(f)[n, :, k].tolist() == pytest.approx(alpha, rel=1e-10)
            wanted[n, k] = sum(alpha[t] * x[t] for t in range(T))
    assert torch.allclose(attended(made.weights(f), made.with_positions(f)), wanted, rtol=1e-10)
    assert torch.allclose(made(f), wanted.flatten(1), rtol=1e-10)


def test_parameters_start_where_lessons_expect_them_drawn_in_this_order() -> None:
    torch.manual_seed(0)
    unit, eye = Recurrence(D, H), TemporalAttention(D, T)
    torch.manual_seed(0)
    for parameter in (unit.W, unit.U, unit.b, unit.c):
        assert torch.equal(parameter, torch.empty_like(parameter).uniform_(-H ** -0.5, H ** -0.5))
    assert torch.equal(eye.p, 0.5 * torch.randn(T, D))
    assert torch.equal(eye.W, nn.init.xavier_uniform_(torch.empty(32, D)))
    assert torch.equal(eye.w, torch.empty(1, 32).normal_(std=32 ** -0.5))
    assert not eye.b.any()


def test_without_positions_there_is_no_p_any_number_of_frames_is_taken_and_their_order_changes_nothing() -> None:
    made = TemporalAttention(D, T, positions=False)
    assert made.p is None
    assert "p" not in dict(made.named_parameters())
    f = tensor(B, T + 2, D).float()
    assert torch.allclose(made(f), made(f.flip(1)), atol=1e-6)
    with_p, f = TemporalAttention(D, T), f[:, :T]
    assert not torch.allclose(with_p(f), with_p(f.flip(1)), atol=1e-2)


@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda: mean_over_time(tensor(B, 0, D)), ValueError, "expected at least 1 frames, got 0"),
    (lambda: TemporalAttention(D, T).double()(tensor(B, T + 1, D)), ValueError, r"f must have shape \(2, 4, 3\)"),
    (lambda: TemporalAttention(D, T).double()(tensor(B, 1, D)), ValueError, r"f must have shape \(2, 4, 3\)"),
    (lambda: TemporalAttention(D, T).double()(tensor(B, T, 1)), ValueError, r"f must have shape \(2, 4, 3\)"),
    (lambda: attended(tensor(B, T + 1, A), tensor(B, T, D)), ValueError, r"alpha must have shape \(2, 4, A\), got"),
])
def test_bad_input_is_refused(call, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        call()
