"""每个公开的模块 / Every public module: its parameters learn, its state can be kept, it answers alike twice."""

import pytest
import torch
from torch import Tensor

from tests.mmcore.test_misuse import CALLS

MODULES = [name.removesuffix(".forward") for name in CALLS if name.endswith(".forward")]


def made(name: str, seed: int) -> tuple[torch.nn.Module, dict]:
    """A module, and what a good call of it takes."""
    make, arguments = CALLS[name]
    torch.manual_seed(seed)
    return make(**arguments), CALLS[f"{name}.forward"][1]


def outputs(module: torch.nn.Module, given: dict) -> list[Tensor]:
    out = module(**given)
    return list(out.values()) if isinstance(out, dict) else [out]


def alike(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


@pytest.mark.parametrize("name", MODULES)
def test_every_parameter_is_registered_and_reached_by_a_gradient(name: str) -> None:
    module, given = made(name, 0)
    sum(x.pow(3).sum() for x in outputs(module, given)).backward()
    still = [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]
    assert [n for n in still if not n.endswith("b_a")] == []  # that of b_a is 0 by (3.3)
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize("name", MODULES)
def test_two_evaluations_agree_and_a_state_dict_carries_a_module_over(name: str) -> None:
    (first, given), (second, _) = (made(name, seed) for seed in (0, 1))
    with torch.no_grad():
        for p in second.parameters():  # some start at 0 whatever the seed
            p.add_(0.1 * torch.randn(p.shape))
        wanted = outputs(first.eval(), given)
        assert alike(outputs(first, given), wanted)
        assert not alike(outputs(second.eval(), given), wanted)
        second.load_state_dict(first.state_dict())
        assert alike(outputs(second, given), wanted)
