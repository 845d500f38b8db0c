"""清楚的错误 / Clear errors.

A public function says once, at its border, what shapes it takes: `@shapes(f_v="B d_v", W_v="H d_v")`. What is inside
trusts that. Whatever is wrong is refused before anything changes, in both languages, and a message is made only when
it is needed. Nothing here looks at the values of a tensor (on a GPU that means waiting) except where it says so.

公开的函数在入口处把形状说一次：`@shapes(f_v="B d_v", W_v="H d_v")`，里面就不再检查。不对的在改变任何东西之前就
拒绝，用两种语言；话只在用得着时才拼出来。除非写明，这里都不看张量的数值（在 GPU 上，看就得等）。
"""

import functools
import inspect
import math
import numbers
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable)
MISSING = object()
COUNTED = {"M": ("个模态", "modalities"), "N": ("对", "pairs"), "T": ("帧", "frames"), "P": ("格", "cells")}
KINDS = {  # what a declaration may begin with: the types it allows, and their name in both languages
    "float": (None, "浮点张量", "a floating-point tensor"),
    "int": ((torch.int32, torch.int64), "整数张量", "an integer tensor"),
    "int64": ((torch.int64,), "int64 张量", "an int64 tensor"),
    "bool": ((torch.bool,), "布尔张量", "a boolean tensor"),
    "mask": ((torch.bool, torch.int32, torch.int64), "整数或布尔张量", "an integer or boolean tensor"),
}


def refuse(zh: str, en: str, error: type[Exception] = ValueError) -> NoReturn:
    """报错，中文在前英文在后 / Raise a bilingual error."""
    raise error(f"{zh} / {en}")


def require(ok: bool, zh: str, en: str, error: type[Exception] = ValueError) -> None:
    """若不成立就报错 / Raise a bilingual error unless `ok` is true."""
    if not ok:
        refuse(zh, en, error)


# -- shapes, said once at the border ----------------------------------------------------------------------------------

def shapes(own: str = "", like: str = "", least: Mapping[str, int] | None = None,
           **declared: str) -> Callable[[Function], Function]:
    """在入口处说出每个参数的形状 / Say the shape of every argument, at the border.

    | declaration | allows |
    |---|---|
    | `"B D"` | a floating tensor of two dimensions; one letter is one size across all arguments |
    | `"4 4*D"` | a first size of 4, a second of four times D |
    | `"int B L"`, `"int64 B"`, `"bool N M"` | whole numbers (int32 or int64), int64 alone, truth values |
    | `"M / B M"` | either shape; they differ in the number of dimensions |
    | `"M*[B D]"` | a list of M tensors; with `D_i` each has a width of its own |
    | `"scalar"` | one number, or a floating tensor that holds one |

    All floating tensors have one type and lie on one device (under autocast types may differ). An argument whose
    default is None may be None. `own="M=num_modalities D=feature_dim"` binds letters to attributes of `self`, `like`
    names a tensor of `self` whose type and device count; `least={"M": 2}` sets a lowest size.

    所有浮点张量同一类型、同一设备（autocast 之下类型可以不同）；默认值是 None 的参数可以是 None。`own` 把字母绑在
    `self` 的属性上，`like` 指出 `self` 的哪个张量定类型和设备，`least` 是最小的大小。

    >>> @shapes(a="N D", b="M D")
    ... def products(a, b): return a @ b.T
    >>> products(torch.ones(2, 3), torch.ones(4, 3)).shape
    torch.Size([2, 4])
    """
    bound = [(letter, operator.attrgetter(path)) for letter, _, path in (pair.partition("=") for pair in own.split())]
    reference = operator.attrgetter(like) if like else None
    lowest = dict(least or {})

    def decorate(function: Function) -> Function:
        parameters = inspect.signature(function).parameters
        todo = [(list(parameters).index(name), name, _Declared(text, parameters[name].default is None))
                for name, text in declared.items()]
        constants = {size: int(size) for *_, d in todo for size in d.letters if size.isdecimal()}

        @functools.wraps(function)
        def border(*args: Any, **kwargs: Any) -> Any:
            sizes = constants.copy()
            for letter, attribute in bound:
                sizes[letter] = attribute(args[0])
            first = reference(args[0]) if reference else None
            for position, name, wanted in todo:
                x = args[position] if position < len(args) else kwargs.get(name, MISSING)
                if x is MISSING or (x is None and wanted.optional):
                    continue  # what is missing and has no default is Python's to refuse
                first = wanted.check(x, name, sizes, first)
            for letter, n in lowest.items():
                if letter in sizes and sizes[letter] < n:
                    zh, en = COUNTED.get(letter, (letter, letter))
                    refuse(f"需要至少 {n} {zh}，收到 {sizes[letter]}", f"expected at least {n} {en}, got {sizes[letter]}")
            return function(*args, **kwargs)

        border.shapes = declared
        return border

    return decorate


class _Declared:
    """What is declared of one argument: its kind, its shapes by number of dimensions, whether it is a list."""

    def __init__(self, text: str, optional: bool):
        self.optional = optional
        kind, _, rest = text.partition(" ")
        self.kind, text = (kind, rest) if kind in KINDS else ("float", text)
        self.types, *self.named = KINDS[self.kind]
        self.scalar = text == "scalar"
        self.count, bracket, inside = text.partition("*[")
        self.several = bool(bracket)
        options = (inside[:-1] if self.several else text).split(" / ")
        self.shapes = {0: ()} if self.scalar else {len(option.split()): tuple(option.split()) for option in options}
        self.letters = {part for option in self.shapes.values() for letter in option for part in letter.split("*")}

    def check(self, x: Any, name: str, sizes: dict[str, Any], first: Tensor | None) -> Tensor | None:
        """Refuse x or bind its letters in `sizes`; returns the tensor whose type and device count."""
        if self.several:
            return self._check_list(x, name, sizes, first)
        if self.scalar and not isinstance(x, Tensor):
            one_number(x, name)
            return first
        if not isinstance(x, Tensor):
            _no_tensor(x, name)
        if self.types is not None:
            if x.dtype not in self.types:
                self._wrong_kind(x, name)
        elif first is None:
            if not x.is_floating_point():
                self._wrong_kind(x, name)
            first = x
        elif x.dtype != first.dtype:
            self._wrong_type(x, name, first)
        if first is not None and x.device != first.device:
            refuse(f"{name} 需要在 {first.device} 上，收到 {x.device}；请用 {name}.to({str(first.device)!r})",
                   f"{name} must be on {first.device}, got {x.device}; use {name}.to({str(first.device)!r})")
        letters = self.shapes.get(x.ndim)
        if letters is None:
            self._wrong_shape(x, name, sizes)
        for letter, n in zip(letters, x.shape, strict=True):
            if sizes.setdefault(letter, n) != n or ("*" in letter and not _multiple(letter, n, sizes)):
                self._wrong_shape(x, name, sizes)
        return first

    def _check_list(self, several: Any, name: str, sizes: dict[str, Any], first: Tensor | None) -> Tensor | None:
        if not isinstance(several, (list, tuple)):
            kind = type(several).__name__
            refuse(f"{name} 需要是列表，每个模态一个张量，收到 {kind}",
                   f"{name} must be a list, one tensor for each modality, got {kind}", TypeError)
        count = sizes.setdefault(self.count, len(several))
        count = len(count) if isinstance(count, Sequence) else count
        if count != len(several):
            zh, en = COUNTED.get(self.count, ("个", name))
            refuse(f"{name} 需要 {count} {zh}，收到 {len(several)} 个", f"expected {count} {en}, got {len(several)}")
        one = _Declared.__new__(_Declared)
        one.__dict__ = {**self.__dict__, "several": False}
        own = {letter: sizes.pop(letter, None) for letter in self.letters if letter.endswith("_i")}
        for i, x in enumerate(several):
            for letter, widths in own.items():
                sizes.pop(letter, None)
                if widths is not None:
                    sizes[letter] = widths[i]
            first = one.check(x, f"{name}[{i}]", sizes, first)
        sizes |= own
        return first

    def _wrong_kind(self, x: Tensor, name: str) -> NoReturn:
        zh, en = self.named
        way = f"{name} / 255" if x.dtype == torch.uint8 else f"{name}.float()"  # whole bytes are pixels
        hint = f"；请用 {way}", f"; use {way}"
        hint = hint if self.kind == "float" and not x.is_complex() else ("", "")
        refuse(f"{name} 需要是{zh}，收到 {x.dtype}{hint[0]}", f"{name} must be {en}, got {x.dtype}{hint[1]}", TypeError)

    def _wrong_type(self, x: Tensor, name: str, first: Tensor) -> None:
        if not x.is_floating_point():
            self._wrong_kind(x, name)
        if not torch.is_autocast_enabled(x.device.type):
            refuse(f"{name} 需要是 {first.dtype}，收到 {x.dtype}；请用 {name}.to({first.dtype})",
                   f"{name} must be {first.dtype}, got {x.dtype}; use {name}.to({first.dtype})", TypeError)

    def _wrong_shape(self, x: Tensor, name: str, sizes: dict[str, Any]) -> NoReturn:
        known = {letter: n for letter, n in sizes.items() if isinstance(n, int) and "*" not in letter}
        wanted = [f"({', '.join(_size(letter, known) for letter in letters)})" for letters in self.shapes.values()]
        refuse(f"{name} 需要形状 {' 或 '.join(wanted)}，收到 {shape_of(x)}",
               f"{name} must have shape {' or '.join(wanted)}, got {shape_of(x)}")


def _multiple(letter: str, n: int, sizes: dict[str, Any]) -> bool:
    """Whether n is what "3*H" says; an H that is not known yet becomes n / 3."""
    sizes.pop(letter)
    factor, _, base = letter.partition("*")
    return n % int(factor) == 0 and sizes.setdefault(base, n // int(factor)) == n // int(factor)


def _size(letter: str, known: Mapping[str, int]) -> str:
    factor, star, base = letter.rpartition("*")
    return str(known[base] * int(factor or 1)) if base in known else f"{factor}{star}{base}"


def _no_tensor(x: Any, name: str) -> NoReturn:
    kind = type(x).__name__
    way = f"torch.from_numpy({name})" if kind == "ndarray" else f"torch.tensor({name})"
    hint = (f"；请用 {way}", f"; use {way}") if isinstance(x, list) or kind == "ndarray" else ("", "")
    refuse(f"{name} 需要是张量，收到 {kind}{hint[0]}", f"{name} must be a tensor, got {kind}{hint[1]}", TypeError)


def shape_of(x: Tensor) -> str:
    """形状，写成 (2, 3) / The shape, written (2, 3)."""
    return "(" + ", ".join(str(n) for n in x.shape) + ")"


# -- single values: each returns what it has checked ------------------------------------------------------------------

def positive(x: float | Tensor, name: str) -> float:
    """x 必须是有限正数；看张量的值 / x must be one finite positive number, or a tensor of one, whose value is read."""
    value = one_number(x, name, whole_tensors=True)
    if not (math.isfinite(value) and value > 0):
        refuse(f"{name} 需要大于 0 且有限，收到 {value:g}", f"{name} must be positive and finite, got {value:g}")
    return value


def number(x: float | Tensor, name: str) -> float:
    """x 必须是有限的数；看张量的值 / x must be a finite number, or a floating tensor of one, whose value is read."""
    value = one_number(x, name)
    if not math.isfinite(value):
        refuse(f"{name} 需要有限，收到 {value:g}", f"{name} must be finite, got {value:g}")
    return value


def not_negative(x: float | Tensor, name: str) -> float:
    """x 必须是不小于 0 的有限数 / x must be a finite number, 0 or above."""
    value = number(x, name)
    if value < 0:
        refuse(f"{name} 不能小于 0，收到 {value:g}", f"{name} may not be below 0, got {value:g}")
    return value


def share(x: float, name: str) -> float:
    """x 必须在 0 到 1 之间 / x must be from 0 to 1."""
    if not 0 <= one_number(x, name) <= 1:
        refuse(f"{name} 需要在 0 到 1 之间，收到 {x}", f"{name} must be from 0 to 1, got {x}")
    return float(x)


def whole(x: int, name: str, least: int = 1) -> int:
    """x 必须是不小于 least 的整数，numpy 的也算 / x must be a whole number, numpy's too, at least `least`."""
    if isinstance(x, bool) or not hasattr(x, "__index__") or (isinstance(x, Tensor) and not _holds_an_integer(x)):
        refuse(f"{name} 需要是整数，收到 {_short(x)}", f"{name} must be a whole number, got {_short(x)}", TypeError)
    value = operator.index(x)
    if value < least:
        refuse(f"{name} 需要至少为 {least}，收到 {value}", f"{name} must be at least {least}, got {value}")
    return value


def index(x: int, name: str, count: int) -> int:
    """x 必须是 count 个里的编号，从 0 起 / x must be the number of one of `count`, from 0."""
    value = whole(x, name, 0)
    if value >= count:
        refuse(f"{name} 需要小于 {count}，收到 {value}", f"{name} must be below {count}, got {value}")
    return value


def two_widths(x: int | Sequence[int], name: str) -> tuple[int, int]:
    """x 必须是一个宽度，两边共用，或两个 / x must be one width for both sides, or two; returns two."""
    pair = isinstance(x, (list, tuple))
    if pair and len(x) != 2:
        refuse(f"{name} 需要一个宽度或两个，收到 {x!r}", f"{name} must be one width or two, got {x!r}")
    first, second = x if pair else (x, x)
    return whole(first, name), whole(second, name)


def widths(x: Sequence[int], name: str) -> tuple[int, ...]:
    """x 必须列出至少两个宽度，每个模态一个 / x must list at least two widths, one for each modality."""
    if not isinstance(x, (list, tuple)) or len(x) < 2:
        refuse(f"{name} 需要至少两个宽度，每个模态一个，收到 {x!r}",
               f"{name} must list at least two widths, one for each modality, got {x!r}")
    return tuple(whole(width, f"{name}[{i}]") for i, width in enumerate(x))


def one_of(x: str, name: str, choices: Sequence[str]) -> str:
    """x 必须是所列选项之一 / x must be one of the choices."""
    if x not in choices:
        listed = ", ".join(choices)
        refuse(f"{name} 需要是 {listed} 之一，收到 {x!r}", f"{name} must be one of {listed}, got {x!r}")
    return x


def instance(x: object, name: str, kind: type) -> None:
    """x 必须是这一种 / x must be of this kind."""
    if not isinstance(x, kind):
        refuse(f"{name} 需要是 {kind.__name__}，收到 {type(x).__name__}",
               f"{name} must be a {kind.__name__}, got {type(x).__name__}", TypeError)


def classes(labels: Tensor, name: str, rows: int, count: int) -> None:
    """labels 必须是 (rows,) 的 int64 类别；看它的值 / Must be int64 classes of shape (rows,); their values are read."""
    if not (isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.shape == (rows,)
            and bool(((labels >= 0) & (labels < count)).all())):
        refuse(f"{name} 需要是 ({rows},) 的 int64 类别，在 0 到 {count - 1} 之间",
               f"{name} must be int64 classes of shape ({rows},) between 0 and {count - 1}")


def finite(x: Tensor, name: str) -> None:
    """x 里不能有 NaN 或无穷；看它的值 / x must hold neither NaN nor infinity; its values are read."""
    if not bool(torch.isfinite(x).all()):
        refuse(f"{name} 出现了 NaN 或无穷，这一步没有改变任何东西；请降低学习率",
               f"{name} is NaN or infinite and this step has changed nothing; lower the learning rate",
               FloatingPointError)


def one_number(x: object, name: str, whole_tensors: bool = False) -> float:
    """x 必须是一个数，NaN 也算；看张量的值 / x must be one number, NaN included; the value of a tensor is read."""
    loss(x, name, whole_tensors)
    return float(x.detach() if isinstance(x, Tensor) else x)


def loss(x: object, name: str, whole_tensors: bool = False) -> None:
    """x 必须是一个数，或只含一个数的张量；不看值 / x must be one number, or a tensor of one; its value is not read."""
    if isinstance(x, Tensor):
        kind = x.is_floating_point() or (whole_tensors and not x.is_complex() and x.dtype != torch.bool)
        fits = x.numel() == 1 and kind
    else:
        fits = isinstance(x, numbers.Real) and not isinstance(x, bool)
    if not fits:
        refuse(f"{name} 需要是一个数，收到 {_short(x)}", f"{name} must be one number, got {_short(x)}", TypeError)


def _holds_an_integer(x: Tensor) -> bool:
    return x.ndim == 0 and not x.is_floating_point() and not x.is_complex() and x.dtype != torch.bool


def _short(x: object) -> str:
    return f"tensor {shape_of(x)}" if isinstance(x, Tensor) else f"{type(x).__name__} {x!r}"[:80]


# -- what the modules that still check by hand use; goes with them ----------------------------------------------------

def matrix(x: Tensor, name: str, rows: int | None = None, columns: int | None = None) -> None:
    """x 必须是二维浮点张量，且大小相符 / x must be a floating matrix of the size asked for."""
    if not isinstance(x, Tensor):
        _no_tensor(x, name)
    require(x.is_floating_point(), f"{name} 需要是浮点张量，收到 {x.dtype}",
            f"{name} must be a floating-point tensor, got {x.dtype}", TypeError)
    size = ["*" if n is None else str(n) for n in (rows, columns)]
    require(x.ndim == 2 and rows in (None, x.shape[0]) and columns in (None, x.shape[1]),
            f"{name} 需要形状 ({size[0]}, {size[1]})，收到 {shape_of(x)}",
            f"{name} must have shape ({size[0]}, {size[1]}), got {shape_of(x)}")


def shape(x: Tensor, name: str, *shapes: tuple[int, ...]) -> None:
    """x 必须是浮点张量，形状是所列之一 / x must be a floating-point tensor of one of the shapes."""
    require(isinstance(x, Tensor) and x.is_floating_point(),
            f"{name} 需要是浮点张量", f"{name} must be a floating-point tensor", TypeError)
    wanted = [f"({', '.join(map(str, sizes))})" for sizes in shapes]
    require(tuple(x.shape) in shapes,
            f"{name} 需要形状 {' 或 '.join(wanted)}，收到 {shape_of(x)}",
            f"{name} must have shape {' or '.join(wanted)}, got {shape_of(x)}")
