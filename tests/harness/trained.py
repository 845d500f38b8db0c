"""训练器的测试共用的：权重变了没有，同样的种子给不给同样的模型 / Shared by tests of trainers: weights, seeds."""

from typing import Any

import torch
from torch import Tensor, nn


def state(model: nn.Module) -> dict[str, Tensor]:
    """现在的一切参数与缓冲的副本 / A copy of every parameter and buffer as it is now."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, Tensor]) -> bool:
    """与 `state` 给的一样吗 / Is everything as `state` found it?"""
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def check_seed(made: Any, other: Any, steps: int = 2) -> None:
    """`reset` 以后走的步一样，另一个种子的不同 / The same steps after `reset`, and others with another seed."""
    first = [made.train_step() for _ in range(steps)]
    learned = state(made.model)
    made.reset()
    assert [made.train_step() for _ in range(steps)] == first
    assert same(made.model, learned)
    assert other.train_step() != first[0]
