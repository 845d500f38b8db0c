"""清楚的错误 / Clear errors.

A public function says once, at its border, what shapes it takes: `@shapes(f_v="B d_v", W_v="H d_v")`; its body trusts.
What is wrong is refused before anything changes, in both languages. Nothing here looks at the values of a tensor (on a
GPU that means waiting) except where it says so.

公开的函数在入口处把形状说一次：`@shapes(f_v="B d_v", W_v="H d_v")`，里面就不再检查。不对的在改变任何东西之前就
拒绝，用两种语言。除非写明，这里都不看张量的数值（在 GPU 上，看就得等）。
"""

import contextlib
import functools
import inspect
import math
import numbers
import operator
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, get_args, get_origin

import torch
from torch import Tensor

Kind = tuple[torch.dtype, torch.device]
MISSING, HALF = object(), (torch.float16, torch.bfloat16)
COUNTED = {"B": ("个样本", "samples"), "N": ("对", "pairs"), "M": ("个候选", "candidates"), "T": ("帧", "frames"),
           "D": ("维", "dimensions"), "P": ("维", "dimensions"), "K": ("类", "classes")}
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


def _refuse_value(name: str, zh: str, en: str, came: object, error: type[Exception] = ValueError,
                  use: str = "") -> NoReturn:
    """Say of an argument what it must be, what came, and what to use."""
    use_zh, use_en = (f"；请用 {use}", f"; use {use}") if use else ("", "")
    refuse(f"{name} {zh}，收到 {came}{use_zh}", f"{name} {en}, got {came}{use_en}", error)


@contextlib.contextmanager
def luck_kept() -> Iterator[None]:
    """里面若有什么被拒绝，等于没抽过随机数 / Where something inside is refused, no random number has been drawn."""
    before = torch.get_rng_state()
    try:
        yield
    except Exception:
        torch.set_rng_state(before)
        raise


def shapes(own: str = "", like: str = "", least: Mapping[str, int] | None = None, precise: str = "",
           **declared: str) -> Callable:
    """在入口处说出每个参数的形状 / Say the shape of every argument, at the border.

    | declaration | allows |
    |---|---|
    | `"B D"` | a floating tensor of two dimensions; one letter is one size across all arguments |
    | `"4 4*D"` | a first size of 4, a second of four times D |
    | `"int B L"`, `"int64 B"`, `"bool N M"`, `"mask B L"` | int32 or int64, int64, truth values, any of these |
    | `"M / B M"` | either shape; they differ in the number of dimensions |
    | `"M*[B D]"` | a list of M tensors, one for each modality; with `D_i` each may have a width of its own |
    | `"scalar"` | one finite number, or a floating tensor () that holds one, whose value is not read |

    All floating tensors have one type and lie on one device (under autocast types may differ). An argument whose
    default is None may be None. `own="M=feature_dims D=output_dim"` binds letters to attributes of `self`: to the
    length of a list, not at all to None. `like` names a tensor of `self` whose type and device count, `least={"M": 2}`
    sets a lowest size, `precise` names what becomes float32 if it is less, without autocast. Others are as annotated.

    所有浮点张量同一类型、同一设备（autocast 之下类型可以不同）；默认值是 None 的参数可以是 None。`own` 把字母绑在
    `self` 的属性上（列表取长度，None 不绑），`like` 指出 `self` 的哪个张量定类型和设备，`least` 是最小的大小，`precise`
    所列的不到 float32 就变成它，里面没有 autocast。别的参数必须是注解的那一类。

    >>> @shapes(a="N D", b="M D")
    ... def products(a, b): return a @ b.T
    >>> products(torch.ones(2, 3), torch.ones(4, 3)).shape
    torch.Size([2, 4])
    """
    bound = [(letter, operator.attrgetter(path)) for letter, _, path in (pair.partition("=") for pair in own.split())]
    reference = operator.attrgetter(like) if like else None

    def decorate(function: Callable) -> Callable:
        parameters = inspect.signature(function).parameters
        todo = [(list(parameters).index(name), name, _Declared(text), parameters[name].default is None)
                for name, text in declared.items()]
        others = [(i, name, kinds) for i, (name, parameter) in enumerate(parameters.items())
                  if name not in declared and (kinds := _kinds(parameter.annotation))]
        constants = {size: n for *_, wanted, _ in todo for size, n in wanted.constants.items()}
        words = COUNTED | {wanted.count: ("个模态", "modalities") for *_, wanted, _ in todo if wanted.one}

        @functools.wraps(function)
        def border(*args: Any, **kwargs: Any) -> Any:
            sizes = constants.copy()
            for letter, attribute in bound:
                size = attribute(args[0])
                if size is not None:
                    sizes[letter] = size if isinstance(size, int) or letter == "D_i" else len(size)
            kind = (reference(args[0]).dtype, reference(args[0]).device) if reference else None
            for position, name, wanted, optional in todo:
                x = args[position] if position < len(args) else kwargs.get(name, MISSING)
                if x is MISSING or (optional and x is None):
                    continue  # what is missing and has no default is Python's to refuse
                kind = wanted.check(x, name, sizes, kind)
            for letter, n in (least or {}).items():
                if sizes.get(letter, n) < n:
                    zh, en = words[letter]
                    refuse(f"需要至少 {n} {zh}，收到 {sizes[letter]} {zh}",
                           f"expected at least {n} {en}, got {sizes[letter]}")
            for position, name, kinds in others:
                x = args[position] if position < len(args) else kwargs.get(name, MISSING)
                if x is not MISSING:
                    instance(x, name, *kinds)
            if not (precise and kind and (kind[0] in HALF or torch.is_autocast_enabled(kind[1].type))):
                return function(*args, **kwargs)
            given = dict(zip(parameters, args, strict=False)) | kwargs
            given |= {name: x.float() for name, x in given.items() if name in precise.split() and x.dtype in HALF}
            with torch.autocast(kind[1].type, enabled=False):
                return function(**given)

        border.shapes = declared
        return border

    return decorate


typed = shapes()  # for a function that takes no tensors


def _kinds(annotation: Any) -> tuple[type, ...]:
    """The classes that an annotation allows, if it names classes and functions only, no number and no tensor."""
    several = get_args(annotation) if isinstance(annotation, types.UnionType) else (annotation,)
    kinds = [Callable if get_origin(kind) is Callable else kind for kind in several]
    loose = (inspect.Parameter.empty, int, float, bool, object, Tensor)
    return tuple(kinds) if all(isinstance(kind, type) and kind not in loose and get_origin(kind) is None
                               for kind in kinds) else ()


class _Declared:
    """What is declared of one argument: its kind and its shapes, or how many there are and what each `one` is."""

    def __init__(self, text: str):
        self.count, listed, inside = text.partition("*[")
        self.one = _Declared(inside[:-1]) if listed else None
        kind, _, rest = text.partition(" ")
        kind, text = (kind, rest) if kind in KINDS else ("float", text)
        self.types, *self.named = KINDS[kind]
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
            came = type(x).__name__
            way = {"ndarray": f"torch.from_numpy({name})", "list": f"torch.tensor({name})"}.get(came, "")
            _refuse_value(name, "需要是张量", "must be a tensor", came, TypeError, way)
        if self.types:
            if x.dtype not in self.types:
                self._wrong_type(x, name)
        elif kind is None:
            if not x.is_floating_point():
                self._wrong_type(x, name)
            kind = x.dtype, x.device
        elif x.dtype is not kind[0]:
            self._wrong_type(x, name, kind[0])
        if kind is not None and x.device != kind[1]:
            to = str(kind[1])
            _refuse_value(name, f"需要在 {to} 上", f"must be on {to}", x.device, use=f"{name}.to({to!r})")
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
            _refuse_value(name, "需要是列表，每个模态一个张量", "must be a list, one tensor for each modality",
                          type(several).__name__, TypeError)
        count = sizes.setdefault(self.count, len(several))
        if count != len(several):
            refuse(f"需要 {count} 个模态，收到 {len(several)} 个", f"expected {count} modalities, got {len(several)}")
        widths, size = sizes.get("D_i"), None
        for i, x in enumerate(several):
            if type(x) is Tensor and x.shape == size and x.dtype is kind[0] and x.device == kind[1]:
                continue  # as the one before
            if widths:
                sizes["D_i"] = widths[i]
            elif self.varied:
                sizes.pop("D_i", None)
            kind = self.one.check(x, f"{name}[{i}]", sizes, kind)
            size = None if self.varied or self.one.types else x.shape
        if widths:
            sizes["D_i"] = widths
        return kind

    def _wrong_type(self, x: Tensor, name: str, wanted: torch.dtype | None = None) -> None:
        if wanted is None or not x.is_floating_point():
            way = f"{name} / 255" if x.dtype == torch.uint8 else f"{name}.float()"  # bytes are most often pixels
            _refuse_value(name, f"需要是{self.named[0]}", f"must be {self.named[1]}", x.dtype, TypeError,
                          "" if self.types or x.is_complex() else way)
        if torch.float64 in (x.dtype, wanted) or not torch.is_autocast_enabled(x.device.type):  # which mixes the others
            _refuse_value(name, f"需要是 {wanted}", f"must be {wanted}", x.dtype, TypeError, f"{name}.to({wanted})")

    def _wrong_shape(self, x: Tensor, name: str, sizes: dict[str, Any]) -> NoReturn:
        def size(letter: str) -> str:
            factor, base = _product(letter)
            return str(factor * sizes[base]) if base in sizes else letter

        wanted = [f"({', '.join(map(size, option))})" for option in self.shapes.values()]
        _refuse_value(name, f"需要形状 {' 或 '.join(wanted)}", f"must have shape {' or '.join(wanted)}", shape_of(x))


def _product(letter: str) -> tuple[int, str]:
    factor, _, base = letter.rpartition("*")
    return int(factor or 1), base


def fits(x: Any, name: str, declared: str, like: Tensor | None = None, **sizes: Any) -> None:
    """x 必须如所说的那样；给不是参数的用 / x must be as declared: `shapes` for what is no argument."""
    wanted = _Declared(declared)
    wanted.check(x, name, wanted.constants | sizes, None if like is None else (like.dtype, like.device))


def shape_of(x: Tensor) -> str:
    """形状，写成 (2, 3) / The shape, written (2, 3)."""
    return f"({', '.join(map(str, x.shape))})"


# -- single values: each returns what it has checked, and reads the value where it is given a tensor -------------------

def number(x: float | Tensor, name: str) -> float:
    """x 必须是有限的数 / x must be a finite number."""
    return _number(x, name, math.isfinite, "需要有限", "must be finite")


def positive(x: float | Tensor, name: str) -> float:
    """x 必须是大于 0 的有限数 / x must be a finite number above 0."""
    return _number(x, name, lambda value: 0 < value < math.inf, "需要大于 0 且有限", "must be positive and finite")


def not_negative(x: float | Tensor, name: str) -> float:
    """x 必须是不小于 0 的有限数 / x must be a finite number, 0 or above."""
    return _number(number(x, name), name, lambda value: value >= 0, "不能小于 0", "may not be below 0")


def share(x: float, name: str) -> float:
    """x 必须在 0 到 1 之间 / x must be from 0 to 1."""
    return _number(x, name, lambda value: 0 <= value <= 1, "需要在 0 到 1 之间", "must be from 0 to 1")


def _number(x: object, name: str, fits: Callable[[float], bool], zh: str, en: str) -> float:
    good = isinstance(x, numbers.Real) and not isinstance(x, bool)
    if isinstance(x, Tensor):
        good = x.numel() == 1 and not x.is_complex() and x.dtype != torch.bool
    if not good:
        _refuse_value(name, "需要是一个数", "must be one number", _short(x), TypeError)
    value = float(x.detach() if isinstance(x, Tensor) else x)
    if not fits(value):
        _refuse_value(name, zh, en, f"{value:g}")
    return value


def whole(x: int, name: str, least: int = 1) -> int:
    """x 必须是不小于 least 的整数，numpy 的也算 / x must be a whole number, numpy's too, at least `least`."""
    value = None
    truth = "bool" in str(getattr(x, "dtype", type(x)))  # of Python, torch or numpy, whose 2.0 takes one for an index
    if not truth and not (isinstance(x, Tensor) and x.ndim > 0):
        with contextlib.suppress(TypeError):
            value = operator.index(x)
    if value is None:
        _refuse_value(name, "需要是整数", "must be a whole number", _short(x), TypeError)
    if value < least:
        _refuse_value(name, f"需要至少为 {least}", f"must be at least {least}", value)
    return value


def index(x: int, name: str, count: int) -> int:
    """x 必须是 count 个里的编号，从 0 起 / x must be the number of one of `count`, from 0."""
    value = whole(x, name, 0)
    if value >= count:
        _refuse_value(name, f"需要小于 {count}", f"must be below {count}", value)
    return value


def two_widths(x: int | Sequence[int], name: str) -> tuple[int, int]:
    """x 必须是一个宽度，两边共用，或两个 / x must be one width for both sides, or two; returns two."""
    pair = x if isinstance(x, (list, tuple)) else (x, x)
    if len(pair) != 2:
        _refuse_value(name, "需要一个宽度或两个", "must be one width or two", repr(x))
    return whole(pair[0], name), whole(pair[1], name)


def widths(x: Sequence[int], name: str) -> tuple[int, ...]:
    """x 必须列出至少两个宽度，每个模态一个 / x must list at least two widths, one for each modality."""
    if not isinstance(x, (list, tuple)) or len(x) < 2:
        _refuse_value(name, "需要至少两个宽度，每个模态一个", "must list at least two widths, one for each modality",
                      repr(x))
    return tuple(whole(width, f"{name}[{i}]") for i, width in enumerate(x))


def one_of(x: str, name: str, choices: Sequence[str]) -> str:
    """x 必须是所列选项之一 / x must be one of the choices."""
    if not isinstance(x, str) or x not in choices:
        _refuse_value(name, f"需要是 {', '.join(choices)} 之一", f"must be one of {', '.join(choices)}", repr(x))
    return x


def instance(x: object, name: str, *kinds: type) -> None:
    """x 必须是这一种，或这几种之一 / x must be of this kind, or of one of these."""
    if not isinstance(x, kinds):
        zh, en = (word.join(kind.__name__ for kind in kinds) for word in (" 或 ", " or "))
        _refuse_value(name, f"需要是 {zh}", f"must be a {en}", type(x).__name__, TypeError)


def ranked(scores: Tensor, name: str) -> None:
    """scores 不能有 NaN，否则最大的会是随便哪个；看它的值 / The largest of NaN would be any index; values are read."""
    if bool(scores.isnan().any()):
        refuse(f"{name} 里有 NaN，无法排名", f"{name} holds NaN and cannot be ranked")


def classes(labels: Tensor, name: str, rows: int, count: int) -> None:
    """labels 必须是 (rows,) 的 int64 类别；看它的值 / Must be int64 classes of shape (rows,); their values are read."""
    if not (isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.shape == (rows,)
            and bool(((labels >= 0) & (labels < count)).all())):
        refuse(f"{name} 需要是 ({rows},) 的 int64 类别，在 0 到 {count - 1} 之间",
               f"{name} must be int64 classes of shape ({rows},) between 0 and {count - 1}")


def _short(x: object) -> str:
    return f"tensor {shape_of(x)}" if isinstance(x, Tensor) else f"{type(x).__name__} {x!r}"[:80]
