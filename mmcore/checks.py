"""清楚的错误 / Clear errors.

A public function says once, at its border, what shapes it takes: `@shapes(f_v="B d_v", W_v="H d_v")`. What is inside
trusts that. Whatever is wrong is refused before anything changes, in both languages, and a message is made only when
it is needed. Nothing here looks at the values of a tensor (on a GPU that means waiting) except where it says so.

公开的函数在入口处把形状说一次：`@shapes(f_v="B d_v", W_v="H d_v")`，里面就不再检查。不对的在改变任何东西之前就
拒绝，用两种语言；话只在用得着时才拼出来。除非写明，这里都不看张量的数值（在 GPU 上，看就得等）。
"""

import contextlib
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
Kind = tuple[torch.dtype, torch.device]
MISSING = object()
MODALITIES = ("个模态", "modalities")
COUNTED = {"B": ("个样本", "samples"), "N": ("对", "pairs"), "M": ("个候选", "candidates"), "T": ("帧", "frames"),
           "D": ("维", "dimensions"), "P": ("维", "dimensions")}
KINDS = {  # what a declaration may begin with: the types it allows, and their name in both languages
    "float": ((), "浮点张量", "a floating-point tensor"),
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
    | `"int B L"`, `"int64 B"`, `"bool N M"` | whole numbers (int32 or int64), int64 only, truth values |
    | `"mask B L"` | whole numbers or truth values |
    | `"M / B M"` | either shape; they differ in the number of dimensions |
    | `"M*[B D]"` | a list of M tensors, one for each modality; with `D_i` each may have a width of its own |
    | `"scalar"` | one finite number, or a floating tensor () that holds one, whose value is not read |

    All floating tensors have one type and lie on one device (under autocast types may differ). An argument whose
    default is None may be None. `own="M=feature_dims D=output_dim"` binds letters to attributes of `self`: to the
    length of a list, not at all to None. `like` names a tensor of `self` whose type and device count, and
    `least={"M": 2}` sets a lowest size. Arguments are held in the order in which they are declared.

    所有浮点张量同一类型、同一设备（autocast 之下类型可以不同）；默认值是 None 的参数可以是 None。`own` 把字母绑在
    `self` 的属性上（列表取长度，None 不绑），`like` 指出 `self` 的哪个张量定类型和设备，`least` 是最小的大小。按声明的
    次序检查。

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
        todo = [(list(parameters).index(name), name, _Declared(text), parameters[name].default is None)
                for name, text in declared.items()]
        constants = {size: n for *_, wanted, _ in todo for size, n in wanted.constants.items()}
        words = COUNTED | {wanted.count: MODALITIES for *_, wanted, _ in todo if wanted.one}

        @functools.wraps(function)
        def border(*args: Any, **kwargs: Any) -> Any:
            sizes = constants.copy()
            for letter, attribute in bound:
                size = attribute(args[0])
                if size is not None:
                    sizes[letter] = size if isinstance(size, int) or letter == "D_i" else len(size)
            kind = _kind(reference(args[0])) if reference else None
            for position, name, wanted, optional in todo:
                x = args[position] if position < len(args) else kwargs.get(name, MISSING)
                if x is MISSING or (optional and x is None):
                    continue  # what is missing and has no default is Python's to refuse
                kind = wanted.check(x, name, sizes, kind)
            for letter, n in lowest.items():
                if sizes.get(letter, n) < n:
                    zh, en = words[letter]
                    refuse(f"需要至少 {n} {zh}，收到 {sizes[letter]} {zh}",
                           f"expected at least {n} {en}, got {sizes[letter]}")
            return function(*args, **kwargs)

        border.shapes = declared
        return border

    return decorate


class _Declared:
    """What is declared of one argument: its kind and its shapes, or how many there are and what each `one` is."""

    def __init__(self, text: str):
        self.count, listed, inside = text.partition("*[")
        self.one = _Declared(inside[:-1]) if listed else None
        kind, _, rest = text.partition(" ")
        self.kind, text = (kind, rest) if kind in KINDS else ("float", text)
        self.types, *self.named = KINDS[self.kind]
        self.scalar = text == "scalar"
        options = [] if listed else [() if self.scalar else tuple(option.split()) for option in text.split(" / ")]
        self.shapes = {len(option): option for option in options}
        self.letters = self.one.letters | {self.count} if listed else {part for option in options for part in option}
        self.products = [(letter, *_product(letter)) for letter in self.letters if "*" in letter]
        self.constants = {letter: int(letter) for letter in self.letters if letter.isdecimal()}
        self.varied = "D_i" in self.letters

    def check(self, x: Any, name: str, sizes: dict[str, Any], kind: Kind | None) -> Kind | None:
        """Refuse x or bind its letters in `sizes`; returns the type and device that all floating tensors share."""
        if self.one:
            return self._check_list(x, name, sizes, kind)
        if not isinstance(x, Tensor):
            if self.scalar:
                number(x, name)
                return kind
            way = {"ndarray": "torch.from_numpy", "list": "torch.tensor"}.get(type(x).__name__)
            zh, en = (f"；请用 {way}({name})", f"; use {way}({name})") if way else ("", "")
            refuse(f"{name} 需要是张量，收到 {type(x).__name__}{zh}",
                   f"{name} must be a tensor, got {type(x).__name__}{en}", TypeError)
        if self.types:
            if x.dtype not in self.types:
                self._wrong_type(x, name)
        elif kind is None:
            if not x.is_floating_point():
                self._wrong_type(x, name)
            kind = _kind(x)
        elif x.dtype is not kind[0]:
            self._wrong_type(x, name, kind[0])
        if kind is not None and x.device != kind[1]:
            refuse(f"{name} 需要在 {kind[1]} 上，收到 {x.device}；请用 {name}.to({str(kind[1])!r})",
                   f"{name} must be on {kind[1]}, got {x.device}; use {name}.to({str(kind[1])!r})")
        size = x.shape
        letters = self.shapes.get(len(size))
        if letters is None:
            self._wrong_shape(x, name, sizes)
        for letter, n in zip(letters, size, strict=True):
            if sizes.setdefault(letter, n) != n:
                self._wrong_shape(x, name, sizes)
        for letter, factor, base in self.products:  # "3*H" where H is not known yet says what H is
            if sizes[letter] != factor * sizes.setdefault(base, sizes[letter] // factor):
                self._wrong_shape(x, name, sizes)
        return kind

    def _check_list(self, several: Any, name: str, sizes: dict[str, Any], kind: Kind | None) -> Kind | None:
        if not isinstance(several, (list, tuple)):
            came = type(several).__name__
            refuse(f"{name} 需要是列表，每个模态一个张量，收到 {came}",
                   f"{name} must be a list, one tensor for each modality, got {came}", TypeError)
        count = sizes.setdefault(self.count, len(several))
        if count != len(several):
            refuse(f"需要 {count} 个模态，收到 {len(several)} 个", f"expected {count} modalities, got {len(several)}")
        widths, size = sizes.get("D_i"), None
        for i, x in enumerate(several):
            if type(x) is Tensor and x.shape == size and x.dtype is kind[0] and x.device == kind[1]:
                continue  # as the one before
            if self.varied:
                sizes.pop("D_i", None)
                if widths:
                    sizes["D_i"] = widths[i]
            kind = self.one.check(x, _item(name, i), sizes, kind)
            size = None if self.varied or self.one.types else x.shape
        if widths:
            sizes["D_i"] = widths
        return kind

    def _wrong_type(self, x: Tensor, name: str, wanted: torch.dtype | None = None) -> None:
        if wanted is None or not x.is_floating_point():
            way = f"{name} / 255" if x.dtype == torch.uint8 else f"{name}.float()"  # bytes are most often pixels
            zh, en = ("", "") if self.types or x.is_complex() else (f"；请用 {way}", f"; use {way}")
            refuse(f"{name} 需要是{self.named[0]}，收到 {x.dtype}{zh}",
                   f"{name} must be {self.named[1]}, got {x.dtype}{en}", TypeError)
        if not torch.is_autocast_enabled(x.device.type):  # which sees to the types itself
            refuse(f"{name} 需要是 {wanted}，收到 {x.dtype}；请用 {name}.to({wanted})",
                   f"{name} must be {wanted}, got {x.dtype}; use {name}.to({wanted})", TypeError)

    def _wrong_shape(self, x: Tensor, name: str, sizes: dict[str, Any]) -> NoReturn:
        def size(letter: str) -> str:
            factor, base = _product(letter)
            return str(factor * sizes[base]) if base in sizes else letter

        wanted = [f"({', '.join(map(size, option))})" for option in self.shapes.values()]
        refuse(f"{name} 需要形状 {' 或 '.join(wanted)}，收到 {shape_of(x)}",
               f"{name} must have shape {' or '.join(wanted)}, got {shape_of(x)}")


def _kind(x: Tensor) -> Kind:
    return x.dtype, x.device


def _product(letter: str) -> tuple[int, str]:
    factor, _, base = letter.rpartition("*")
    return int(factor or 1), base


@functools.cache
def _item(name: str, i: int) -> str:
    return f"{name}[{i}]"


def fits(x: Any, name: str, declared: str, like: Tensor | None = None, **sizes: Any) -> None:
    """x 必须如所说的那样；给不是参数的用 / x must be as declared: `shapes` for what is no argument."""
    wanted = _Declared(declared)
    wanted.check(x, name, wanted.constants | sizes, None if like is None else _kind(like))


def shape_of(x: Tensor) -> str:
    """形状，写成 (2, 3) / The shape, written (2, 3)."""
    return f"({', '.join(map(str, x.shape))})"


# -- single values: each returns what it has checked, and reads the value where it is given a tensor -------------------

def one_number(x: float | Tensor, name: str) -> float:
    """x 必须是一个数，NaN 也算 / x must be one number, NaN included."""
    good = isinstance(x, numbers.Real) and not isinstance(x, bool)
    if isinstance(x, Tensor):
        good = x.numel() == 1 and not x.is_complex() and x.dtype != torch.bool
    if not good:
        refuse(f"{name} 需要是一个数，收到 {_short(x)}", f"{name} must be one number, got {_short(x)}", TypeError)
    return float(x.detach() if isinstance(x, Tensor) else x)


def number(x: float | Tensor, name: str) -> float:
    """x 必须是有限的数 / x must be a finite number."""
    value = one_number(x, name)
    if not math.isfinite(value):
        refuse(f"{name} 需要有限，收到 {value:g}", f"{name} must be finite, got {value:g}")
    return value


def positive(x: float | Tensor, name: str) -> float:
    """x 必须是大于 0 的有限数 / x must be a finite number above 0."""
    value = one_number(x, name)
    if not 0 < value < math.inf:
        refuse(f"{name} 需要大于 0 且有限，收到 {value:g}", f"{name} must be positive and finite, got {value:g}")
    return value


def not_negative(x: float | Tensor, name: str) -> float:
    """x 必须是不小于 0 的有限数 / x must be a finite number, 0 or above."""
    value = number(x, name)
    if value < 0:
        refuse(f"{name} 不能小于 0，收到 {value:g}", f"{name} may not be below 0, got {value:g}")
    return value


def share(x: float, name: str) -> float:
    """x 必须在 0 到 1 之间 / x must be from 0 to 1."""
    value = one_number(x, name)
    if not 0 <= value <= 1:
        refuse(f"{name} 需要在 0 到 1 之间，收到 {x}", f"{name} must be from 0 to 1, got {x}")
    return value


def whole(x: int, name: str, least: int = 1) -> int:
    """x 必须是不小于 least 的整数，numpy 的也算 / x must be a whole number, numpy's too, at least `least`."""
    value = None
    if not isinstance(x, bool) and not (isinstance(x, Tensor) and (x.ndim > 0 or x.dtype == torch.bool)):
        with contextlib.suppress(TypeError):
            value = operator.index(x)
    if value is None:
        refuse(f"{name} 需要是整数，收到 {_short(x)}", f"{name} must be a whole number, got {_short(x)}", TypeError)
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


def _short(x: object) -> str:
    return f"tensor {shape_of(x)}" if isinstance(x, Tensor) else f"{type(x).__name__} {x!r}"[:80]
