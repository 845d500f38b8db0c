"""(4.1)、(4.2) 问题看哪几格 / (4.1), (4.2): which cells a question looks at, against explicit loops in float64."""

import math

import pytest
import torch
from torch import Tensor

from mmcore.attention import CellAttention, cell_gates, cell_scores
from tests.support import tensor

B, P, D = 3, 4, 5


def scores_by_loops(f_t: Tensor, x: Tensor) -> list[list[float]]:
    return [[sum(float(f_t[n, k]) * float(x[n, i, k]) for k in range(D)) / math.sqrt(D) for i in range(P)]
            for n in range(B)]


def seen_by_loops(w: list[list[float]], x: Tensor) -> Tensor:
    return torch.tensor([[sum(w[n][i] * float(x[n, i, k]) for i in range(P)) for k in range(D)] for n in range(B)],
                        dtype=torch.float64)


def module(look: str) -> CellAttention:
    made = CellAttention(D, P, look).double()
    with torch.no_grad():
        for k, parameter in enumerate(made.parameters()):
            parameter.copy_(tensor(*parameter.shape, seed=9 + k))
    return made


@pytest.mark.formula("4.1")
def test_attention_is_a_softmax_over_the_cells_and_what_is_seen_their_weighted_sum() -> None:
    f_t, f_v, made = tensor(B, D, seed=1), tensor(B, P, D, seed=2), module("attention")
    x = torch.stack([torch.stack([f_v[n, i] + made.p[i] for i in range(P)]) for n in range(B)]).detach()
    alpha = []
    for row in scores_by_loops(f_t, x):
        total = sum(math.exp(s) for s in row)
        alpha.append([math.exp(s) / total for s in row])
    wanted = torch.tensor(alpha, dtype=torch.float64)
    assert torch.allclose(made.weights(f_t, made.with_positions(f_v)), wanted, rtol=1e-10)
    assert torch.allclose(made(f_t, f_v), seen_by_loops(alpha, x), rtol=1e-10)


@pytest.mark.formula("4.2")
def test_a_gate_is_a_sigmoid_for_every_cell_and_what_is_seen_their_weighted_sum() -> None:
    f_t, f_v, made = tensor(B, D, seed=1), tensor(B, P, D, seed=2), module("gates")
    x = (f_v + made.p).detach()
    g = [[1 / (1 + math.exp(-s - made.b_g.item())) for s in row] for row in scores_by_loops(f_t, x)]
    assert torch.allclose(made.weights(f_t, made.with_positions(f_v)), torch.tensor(g, dtype=torch.float64), rtol=1e-10)
    assert torch.allclose(made(f_t, f_v), seen_by_loops(g, x), rtol=1e-10)


def test_positions_start_at_half_a_normal_number_and_gates_mostly_shut() -> None:
    torch.manual_seed(0)
    made = CellAttention(D, P)
    torch.manual_seed(0)
    assert torch.equal(made.p, 0.5 * torch.randn(P, D))
    assert (made.b_g.item(), made.look) == (-2.0, "gates")
    assert not hasattr(CellAttention(D, P, "attention"), "b_g")


@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda: cell_scores(tensor(B, D), tensor(P, D)), ValueError, "x must have shape"),
    (lambda: cell_gates(tensor(B, D), tensor(B, P, D), tensor(2)), ValueError, r"b_g must have shape \(\), got \(2\)"),
    (lambda: module("gates")(tensor(B, D), tensor(B, 1, D)), ValueError, r"f_v must have shape \(3, 4, 5\)"),
    (lambda: module("gates")(tensor(B, D), tensor(B, P, 1)), ValueError, r"f_v must have shape \(3, 4, 5\)"),
])
def test_bad_input_is_refused(call, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_a_single_cell_is_looked_at_whole() -> None:
    x = torch.randn(2, 1, 8)
    look = CellAttention(8, cells=1, look="attention")
    assert torch.allclose(look(torch.randn(2, 8), x), look.with_positions(x)[:, 0])
