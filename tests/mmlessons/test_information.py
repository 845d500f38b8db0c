"""信息的四份，对着手算的和另一种算法 / The parts of information, against sums by hand and another way to compute."""

import itertools
import math

import pytest
import torch
from scipy.optimize import LinearConstraint, minimize
from torch import Tensor

from mmlessons.tasks import information
from mmlessons.tasks.information import Parts


def gate(of) -> Tensor:
    """p(x, z, y) of two fair coins and y = of(x, z)."""
    p = torch.zeros(2, 2, 2)
    for x, z in itertools.product((0, 1), repeat=2):
        p[x, z, of(x, z)] += 0.25
    return p


def witnesses(right: float) -> Tensor:
    """Two who each see a fair coin rightly this often, conditionally independent."""
    p = torch.zeros(2, 2, 2)
    for x, z, y in itertools.product((0, 1), repeat=3):
        p[x, z, y] = 0.5 * (right if x == y else 1 - right) * (right if z == y else 1 - right)
    return p


BOTH_THE_SAME = torch.zeros(2, 2, 2)
BOTH_THE_SAME[0, 0, 0] = BOTH_THE_SAME[1, 1, 1] = 0.5


def test_told_is_the_sum_by_hand() -> None:
    p = torch.tensor([[0.4, 0.1], [0.1, 0.4]])
    assert information.told(p) == pytest.approx(2 * 0.4 * math.log2(1.6) + 2 * 0.1 * math.log2(0.4))
    assert information.told(torch.full((2, 3), 1 / 6)) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("p", "wanted"), [
    (gate(lambda x, z: x ^ z), Parts(0, 0, 0, 1)), (BOTH_THE_SAME, Parts(1, 0, 0, 0)),
    (gate(lambda x, z: x), Parts(0, 1, 0, 0)), (gate(lambda x, z: z), Parts(0, 0, 1, 0)),
    (gate(lambda x, z: x & z), Parts(1.5 - 0.75 * math.log2(3), 0, 0, 0.5)),  # as Bertschinger et al. give it
])
def test_the_parts_of_the_gates_are_those_of_the_paper(p: Tensor, wanted: Parts) -> None:
    got = information.parts(p)
    for name in ("shared", "first", "second", "joint"):
        assert getattr(got, name) == pytest.approx(getattr(wanted, name), abs=1e-4)
    assert got.total == pytest.approx(information.told(p.flatten(0, 1)), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_the_parts_are_those_of_a_general_solver(seed: int) -> None:
    p = torch.rand(2, 3, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    p = (p / p.sum()).numpy()
    same = []  # rows of a linear map from a table to its p(x, y) and p(z, y)
    for x, z, y in itertools.product(range(2), range(3), range(2)):
        if z == 0:
            row = torch.zeros(2, 3, 2)
            row[x, :, y] = 1
            same.append(row.flatten())
        if x == 0:
            row = torch.zeros(2, 3, 2)
            row[:, z, y] = 1
            same.append(row.flatten())
    same = torch.stack(same).double().numpy()[:-2]  # the last two follow from the others

    def told(flat) -> float:
        return information.told(torch.as_tensor(flat).clamp_min(0).reshape(6, 2) / flat.sum())

    start = p.sum(1, keepdims=True) * p.sum(0, keepdims=True) / p.sum((0, 1))
    found = minimize(told, start.flatten(), method="trust-constr", bounds=[(0, 1)] * 12,
                     constraints=[LinearConstraint(same, same @ p.flatten(), same @ p.flatten())],
                     options={"maxiter": 2000, "gtol": 1e-10})
    got = information.parts(torch.as_tensor(p))
    assert got.joint == pytest.approx(information.told(torch.as_tensor(p).flatten(0, 1)) - found.fun, abs=2e-4)


def test_two_witnesses_without_any_interaction_have_joint_information_all_the_same() -> None:
    p = witnesses(0.8)
    assert information.dependence(p) == pytest.approx(0, abs=1e-9)
    assert information.parts(p).joint > 0.15


def test_dependence_is_what_given_y_x_tells_of_z() -> None:
    p = gate(lambda x, z: x ^ z)
    assert information.dependence(p) == pytest.approx(1)
    given = p[:, :, 0] / p[:, :, 0].sum()
    assert information.told(given) == pytest.approx(1)


@pytest.mark.parametrize("bad", [torch.full((2, 2, 2), 1.0), torch.tensor([[[1.5, -0.5]]]),
                                 torch.full((1, 1, 2), float("nan"))])
def test_what_is_no_probability_is_refused(bad: Tensor) -> None:
    for function in (information.parts, information.dependence):
        with pytest.raises(ValueError, match="p must hold probabilities"):
            function(bad)
