"""几处测试共用的 / Shared by several tests: numbers, are weights as before, does a seed decide, what is lacking."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

NO_BROWSER = "没有 Chromium 或 playwright，不作浏览器测试 / no Chromium or playwright, so no tests in a browser"


def tensor(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers in float64, the same at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def state(model: nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter and buffer as it is now."""
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, Tensor]) -> bool:
    """Is everything as `state` found it?"""
    return all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def check_seed(made: Any, other: Any, steps: int = 2) -> None:
    """The same steps after `reset`, and others with another seed."""
    first = [made.train_step() for _ in range(steps)]
    learned = state(made.model)
    made.reset()
    assert [made.train_step() for _ in range(steps)] == first
    assert same(made.model, learned)
    assert other.train_step() != first[0]


@contextlib.contextmanager
def small_disk(most: int = 100) -> Iterator[None]:
    """As if the disk were full after `most` bytes of any file."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class OnMPS(torch.Tensor):
    """As if on Apple's MPS, which has no float64: what is computed from it lies there too, until it is moved."""

    @classmethod
    def __torch_function__(cls, function: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(function, kinds, args, kwargs or {})
        if isinstance(result, OnMPS) and result.dtype == torch.float64:
            raise TypeError("MPS has no float64")
        return result

    def cpu(self) -> torch.Tensor:
        return self.as_subclass(torch.Tensor)


class MovingToMPS(TorchFunctionMode):
    """Whatever is moved to a device is `OnMPS` from then on, and so is all that is computed from it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        moved = func is torch.Tensor.to and any(isinstance(x, torch.device) for x in args)
        if moved and type(out) is torch.Tensor:
            out = out.as_subclass(OnMPS)
        if isinstance(out, OnMPS) and out.dtype == torch.float64:
            raise TypeError("MPS has no float64")
        return out


def need_browser() -> Any:
    """`tests.notebooks.lab`, if a browser is there; MM_REQUIRE_BROWSER=1 makes its absence a failure."""
    try:
        from tests.notebooks import lab
    except ImportError:
        lab = None
    if lab is None or lab.find_chromium() is None:
        (pytest.fail if os.environ.get("MM_REQUIRE_BROWSER") == "1" else pytest.skip)(NO_BROWSER)
    return lab
