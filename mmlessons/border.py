"""入口：每个参数都须如注解所说 / The border: every argument must be what its annotation says.

Said once with `@typed`, instead of by hand in every function. What is wrong is refused before anything happens, in both
languages; shapes of tensors are said by `mmcore.checks.shapes`, limits of values by the other checks there.

用 `@typed` 说一次，不必在每个函数里逐个检查。不对的在做任何事之前就拒绝，用两种语言；张量的形状由
`mmcore.checks.shapes` 说，数值的范围由那里的其他检查说。
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmcore import checks

NAMES = {
    int: ("整数", "a whole number"), float: ("数", "a number"), str: ("字符串", "a string"),
    bool: (" True 或 False", "True or False"), Tensor: ("张量", "a tensor"), Mapping: ("字典", "a dict"),
    Callable: ("函数", "a function"), Sequence: ("列表", "a list"), list: ("列表", "a list"),
    tuple: ("元组", "a tuple"),
    Collection: ("列表或集合", "a list or a set"), tuple[str, str]: ("（中文, English）", "(Chinese, English)")}


def typed(function: Callable) -> Callable:
    """每个参数都须如注解所说 / Every argument must be what its annotation says, or there is a TypeError.

    Whole numbers may be numpy's and tensors of one number, and arrive as Python's; True is no number. Of a class it is
    what makes one.

    整数可以是 numpy 的，也可以是只有一个数的张量，到里面就是 Python 的；True 不是数。用在类上，就是造它的参数。

    >>> @typed
    ... def repeat(word: str, times: int) -> str: return word * times
    >>> repeat("ha", np.int64(2))
    'haha'
    """
    if inspect.isclass(function):
        function.__init__ = typed(function.__init__)
        return function
    signature = inspect.signature(function)
    wanted = {name: p for name, p in signature.parameters.items() if p.annotation is not p.empty}

    @functools.wraps(function)
    def border(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        for name, value in list(given.arguments.items()):
            if name not in wanted:
                continue
            kind = wanted[name].annotation
            if wanted[name].kind is inspect.Parameter.VAR_POSITIONAL:
                given.arguments[name] = tuple(fit(x, f"{name}[{i}]", kind) for i, x in enumerate(value))
            elif wanted[name].kind is inspect.Parameter.VAR_KEYWORD:
                given.arguments[name] = {key: fit(x, key, kind) for key, x in value.items()}
            elif value is not wanted[name].default:
                given.arguments[name] = fit(value, name, kind)
        return function(*given.args, **given.kwargs)

    return border


def fit(x: Any, name: str, kind: Any) -> Any:
    """x 必须是这一种 / x must be of this kind; returns it, with numbers of numpy's as Python's."""
    origin, parts = typing.get_origin(kind) or kind, typing.get_args(kind)
    if origin in (Any, object) or isinstance(origin, typing.TypeVar):
        return x
    if origin in (typing.Union, types.UnionType):
        return _one_of(x, name, kind)
    if origin is int:
        return checks.whole(x, name, 0 if name == "seed" else -2**63)
    if origin is float:
        checks.number(x, name)
        return x.item() if isinstance(x, (np.generic, Tensor)) else x
    numbers = origin in (Sequence, Collection) and parts and parts[0] in (int, float)
    if numbers and isinstance(x, (np.ndarray, Tensor)) and x.ndim == 1:
        return x
    if not _is(x, origin):
        way = f"torch.from_numpy({name})" if isinstance(x, np.ndarray) and origin is Tensor else ""
        _refuse(x, name, [kind], way)
    if origin is tuple and parts and parts[-1] is not ...:
        checks.require(len(x) == len(parts), f"{name} 需要 {len(parts)} 项，收到 {len(x)} 项",
                       f"{name} must have {len(parts)} entries, got {len(x)}")
        return tuple(fit(one, f"{name}[{i}]", wanted) for i, (one, wanted) in enumerate(zip(x, parts, strict=True)))
    if origin in (Sequence, Collection, list, tuple) and parts:
        fitted = [fit(one, f"{name}[{i}]", parts[0]) for i, one in enumerate(x)]
        return type(x)(fitted) if type(x) in (list, tuple) else x
    if origin in (Mapping, dict) and parts:
        fitted = {fit(key, f"a key of {name}", parts[0]): fit(value, f"{name}[{key!r}]", parts[1])
                  for key, value in x.items()}
        return fitted if type(x) is dict else x
    return x


def _is(x: Any, origin: Any) -> bool:
    if origin is Callable:
        return callable(x)
    if origin is bool:
        return isinstance(x, (bool, np.bool_))
    return isinstance(x, origin) and not (origin in (Sequence, Collection) and isinstance(x, (str, bytes, Mapping)))


def _one_of(x: Any, name: str, kind: Any) -> Any:
    options = typing.get_args(kind)
    if x is None and type(None) in options:
        return None
    options = [option for option in options if option is not type(None)]
    if len(options) == 1:
        return fit(x, name, options[0])
    wrong_value = None
    for option in options:
        try:
            return fit(x, name, option)
        except TypeError:
            continue
        except ValueError as error:
            wrong_value = error
    if wrong_value is not None:
        raise wrong_value
    _refuse(x, name, options, "")


def _refuse(x: Any, name: str, kinds: Sequence[Any], way: str) -> typing.NoReturn:
    names = [NAMES.get(k) or NAMES.get(typing.get_origin(k)) or (f" {k.__name__}", f"a {k.__name__}") for k in kinds]
    zh, en = (word.join(pair[i] for pair in names) for i, word in enumerate(("或", " or ")))
    zh_way, en_way = (f"；请用 {way}", f"; use {way}") if way else ("", "")
    came = type(x).__name__
    checks.refuse(f"{name} 需要是{zh}，收到 {came}{zh_way}", f"{name} must be {en}, got {came}{en_way}", TypeError)


def check_pictures(x: object, name: str, *shape: int | str) -> None:
    """x 必须是 uint8 的图画，形状如所给，字母是任意大小 / x must be uint8 pictures of this shape; letters are any size.

    A TypeError if x is no tensor or not uint8, else a ValueError; either says what came and how to make it right.

    x 不是张量或不是 uint8 时报 TypeError，形状不对时报 ValueError；都说出收到了什么、怎样改。
    """
    array = isinstance(x, (Tensor, np.ndarray))
    right = isinstance(x, Tensor) and x.dtype == torch.uint8
    fits = array and len(x.shape) == len(shape) and all(
        n > 0 if isinstance(wanted, str) else n == wanted for n, wanted in zip(x.shape, shape, strict=True))
    if right and fits:
        return
    use = name if isinstance(x, Tensor) else f"torch.from_numpy({name})"
    if array and len(x.shape) == len(shape) and x.shape[-1] == 3 != x.shape[-3]:
        use += ".movedim(-1, -3)"
    if array and str(x.dtype).removeprefix("torch.").startswith("float"):
        use = f"(255 * {use}).round().to(torch.uint8)"
    came = f"{x.dtype} {checks.shape_of(x)}" if array else type(x).__name__
    size, known = f"({', '.join(map(str, shape))})", array and use != name
    checks.refuse(f"{name} 需要是 uint8 张量 {size}，收到 {came}" + (f"；请用 {use}" if known else ""),
                  f"{name} must be a uint8 tensor {size}, got {came}" + (f"; use {use}" if known else ""),
                  ValueError if right else TypeError)


def holds(seen: Mapping[str, Any], name: str, **declared: str) -> None:
    """seen 必须有这些张量，行数相同 / seen must hold these tensors, as `shapes` declares them.

    Floating ones must be float32, wherever they lie; "uint8" are pictures. A last word "finite" or "<9" says what the
    values must be; then they are read.

    浮点的须是 float32，在哪个设备上都可以；"uint8" 是图画。末尾的 "finite" 或 "<9" 说数值须怎样，这时会看数值。
    """
    fit(seen, name, Mapping)
    rows: dict[str, int] = {}
    for key, wanted in declared.items():
        if key not in seen:
            checks.refuse(f"{name} 里缺 {key!r}", f"{name} lacks {key!r}")
        x, each = seen[key], f"{name}[{key!r}]"
        shape, _, below = wanted.removesuffix(" finite").partition(" <")
        if shape.startswith("uint8"):
            sizes = [str(rows.get(size, size)) for size in shape.split()[1:]]
            check_pictures(x, each, *(int(size) if size.isdecimal() else size for size in sizes))
        else:
            like = torch.empty(0, device=x.device) if isinstance(x, Tensor) else None
            checks.fits(x, each, shape, like, **rows)
        if wanted.endswith("finite"):
            checks.require(bool(x.isfinite().all()), f"{each} 里有 NaN 或无穷", f"{each} holds NaN or infinity")
        if below:
            checks.require(bool(((x >= 0) & (x < int(below))).all()), f"{each} 需要在 0 到 {int(below) - 1} 之间",
                           f"{each} must lie between 0 and {int(below) - 1}")
        letters = [size for size in shape.split() if size not in (*checks.KINDS, "uint8")]
        rows |= {size: n for size, n in zip(letters, x.shape, strict=True) if not size.isdecimal()}
    checks.require(0 not in rows.values(), f"{name} 是空的，一行也没有", f"{name} is empty, without a row")
