"""清楚的错误 / Clear errors.

每个公开函数都用这里的检查来拒绝坏输入：先检查，后改变；错误用两种语言说出需要什么、收到了什么。

Every public function refuses bad input with the checks in this file: check first, change afterwards;
an error says in both languages what was expected and what came.
"""

import math
import numbers
from collections.abc import Sequence

import torch


def require(ok: bool, zh: str, en: str, error: type[Exception] = ValueError) -> None:
    """若不成立就报错，中文在前英文在后 / Raise a bilingual error unless `ok` is true."""
    if not ok:
        raise error(f"{zh} / {en}")


def shape_of(x: torch.Tensor) -> str:
    return "(" + ", ".join(str(n) for n in x.shape) + ")"


def matrix(x: torch.Tensor, name: str, rows: int | None = None, columns: int | None = None) -> None:
    """x 必须是二维浮点张量，且大小相符 / x must be a floating matrix of the size asked for."""
    require(isinstance(x, torch.Tensor),
            f"{name} 需要是张量，收到 {type(x).__name__}",
            f"{name} must be a tensor, got {type(x).__name__}", TypeError)
    require(x.is_floating_point(),
            f"{name} 需要是浮点张量，收到 {x.dtype}",
            f"{name} must be a floating-point tensor, got {x.dtype}", TypeError)
    require(x.ndim == 2 and rows in (None, x.shape[0]) and columns in (None, x.shape[1]),
            f"{name} 需要形状 ({_size(rows)}, {_size(columns)})，收到 {shape_of(x)}",
            f"{name} must have shape ({_size(rows)}, {_size(columns)}), got {shape_of(x)}")


def shape(x: torch.Tensor, name: str, *shapes: tuple[int, ...]) -> None:
    """x 必须是浮点张量，形状是所列之一 / x must be a floating-point tensor of one of the shapes."""
    require(isinstance(x, torch.Tensor) and x.is_floating_point(),
            f"{name} 需要是浮点张量", f"{name} must be a floating-point tensor", TypeError)
    wanted = [f"({', '.join(map(str, sizes))})" for sizes in shapes]
    require(tuple(x.shape) in shapes,
            f"{name} 需要形状 {' 或 '.join(wanted)}，收到 {shape_of(x)}",
            f"{name} must have shape {' or '.join(wanted)}, got {shape_of(x)}")


def positive(x: float | torch.Tensor, name: str) -> None:
    """x 必须是有限正数，或只含一个有限正数的张量 / x must be one finite positive number, or a tensor that holds one."""
    value = one_number(x, name, whole_tensors=True)
    require(math.isfinite(value) and value > 0,
            f"{name} 需要大于 0 且有限，收到 {value:g}", f"{name} must be positive and finite, got {value:g}")


def number(x: float | torch.Tensor, name: str) -> float:
    """x 必须是有限的数，或只含一个有限浮点数的张量 / x must be a finite number, or a floating tensor that holds one."""
    value = one_number(x, name)
    require(math.isfinite(value), f"{name} 需要有限，收到 {value:g}", f"{name} must be finite, got {value:g}")
    return value


def not_negative(x: float | torch.Tensor, name: str) -> None:
    """x 必须是不小于 0 的有限数 / x must be a finite number, 0 or above."""
    value = number(x, name)
    require(value >= 0, f"{name} 不能小于 0，收到 {value:g}", f"{name} may not be below 0, got {value:g}")


def whole(x: int, name: str, least: int = 1) -> None:
    """x 必须是不小于 least 的整数 / x must be a whole number, at least `least`."""
    require(isinstance(x, int) and not isinstance(x, bool),
            f"{name} 需要是整数，收到 {_short(x)}", f"{name} must be a whole number, got {_short(x)}", TypeError)
    require(x >= least, f"{name} 需要至少为 {least}，收到 {x}", f"{name} must be at least {least}, got {x}")


def share(x: float, name: str) -> None:
    """x 必须在 0 到 1 之间 / x must be from 0 to 1."""
    require(0 <= x <= 1, f"{name} 需要在 0 到 1 之间，收到 {x}", f"{name} must be from 0 to 1, got {x}")


def place(x: int, name: str, count: int) -> None:
    """x 必须是 count 个里的编号，从 0 起 / x must be the number of one of `count`, from 0."""
    whole(x, name, 0)
    require(x < count, f"{name} 需要小于 {count}，收到 {x}", f"{name} must be below {count}, got {x}")


def two_widths(x: int | Sequence[int], name: str) -> tuple[int, int]:
    """x 必须是一个宽度，两边共用，或两个 / x must be one width for both sides, or two; returns two."""
    pair = isinstance(x, (list, tuple))
    require(not pair or len(x) == 2,
            f"{name} 需要一个宽度或两个，收到 {x!r}", f"{name} must be one width or two, got {x!r}")
    first, second = x if pair else (x, x)
    whole(first, name)
    whole(second, name)
    return first, second


def one_of(x: str, name: str, choices: Sequence[str]) -> None:
    """x 必须是所列选项之一 / x must be one of the choices."""
    listed = ", ".join(choices)
    require(x in choices,
            f"{name} 需要是 {listed} 之一，收到 {x!r}", f"{name} must be one of {listed}, got {x!r}")


def finite(x: torch.Tensor, name: str) -> None:
    """x 里不能有 NaN 或无穷 / x must hold neither NaN nor infinity."""
    require(bool(torch.isfinite(x).all()),
            f"{name} 出现了 NaN 或无穷，这一步没有改变任何东西；请降低学习率",
            f"{name} is NaN or infinite and this step has changed nothing; lower the learning rate",
            FloatingPointError)


def one_number(x: object, name: str, whole_tensors: bool = False) -> float:
    """x 必须是一个数，NaN 也算，或只含一个数的张量 / x must be one number, NaN included, or a tensor that holds one."""
    if isinstance(x, torch.Tensor):
        kind = x.is_floating_point() or (whole_tensors and not x.is_complex() and x.dtype != torch.bool)
        scalar = x.numel() == 1 and kind
    else:
        scalar = isinstance(x, numbers.Real) and not isinstance(x, bool)
    require(scalar,
            f"{name} 需要是一个数，收到 {_short(x)}", f"{name} must be one number, got {_short(x)}", TypeError)
    return float(x.detach() if isinstance(x, torch.Tensor) else x)


def _size(n: int | None) -> str:
    return "*" if n is None else str(n)


def _short(x: object) -> str:
    return f"tensor {shape_of(x)}" if isinstance(x, torch.Tensor) else f"{type(x).__name__} {x!r}"[:80]
