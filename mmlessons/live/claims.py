"""断言：句子旁边的比较，当场核对 / Claims: the comparison beside a sentence, checked on the spot.

The sentence is the same on every machine and is compared by nbval; the numbers may differ in their last digit and are
shown in a widget, which opens when asked.

句子在每台机器上相同，nbval 会比较；数的末位可能不同，所以放在控件里，点开才看见。
"""

import math
import operator
from collections.abc import Iterable, Mapping
from html import escape

from mmcore.checks import one_of, refuse, require
from mmlessons.border import typed
from mmlessons.intervals import Interval

from .axes import check_name
from .output import Folded, Name, bilingual, plain

SIGNS = {">": operator.gt, "<": operator.lt, "≥": operator.ge, "≤": operator.le, "=": operator.eq, "≠": operator.ne,
         "≈": lambda a, b: math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6), "in": lambda a, ends: ends[0] < a < ends[1]}
STEERED = ("这次的设置或数据与课上的不同，下面的话不核对",
           "settings or data differ from those of the lesson, so what follows is not checked")


@typed
def claims(*rows: tuple, say: Name | None = None, given: bool = True) -> Folded:
    """核对每一行，显示一个可以点开的 ✓ / Assert every row and show a ✓ that opens to the numbers.

    A row is `(what, values, sign, line)`: `what` is (Chinese, English); `values` one number or several (over seeds,
    say), or an `Interval`; `sign` one of > < ≥ ≤ = ≠ ≈ in; `line` one number, as many as there are values, or for "in"
    the two ends. The whole of an interval must lie on the right side.
    `say` is the sentence beside the ✓, without it that of the only row. With `given=False` nothing is checked, and that
    is said: a training that the reader has steered proves nothing.

    一行是 `(说什么, 数, 符号, 界线)`：数可以是一个或几个（例如几个种子），也可以是 `Interval`，这时整个区间都要在界线的
    这一边；界线是一个数，或与数同样多，"in" 时是两端。
    `say` 是 ✓ 旁边的话，不给就是唯一那一行的。`given=False` 时不核对，并且说明：读者动过的训练说明不了什么。

    Raises: AssertionError 有一行不成立，说出是哪一行、数是多少 / if a row does not hold, naming it and its numbers.
    """
    require(len(rows) > 0 and (say is not None or len(rows) == 1),
            "几行断言需要一句 say", "several claims need a sentence: say=(Chinese, English)")
    say = rows[0][0] if say is None else say
    if not given:
        return Folded(("·", STEERED), "", "")
    listed = "".join(_row(*row) for row in rows)
    return Folded(("✓", say), f'<table class="mm-table"><tbody>{listed}</tbody></table>', "✓ " + plain(say))


def _row(what: Name, values: object, sign: str, line: object) -> str:
    check_name(what)
    one_of(sign, "sign", tuple(SIGNS))
    found = _numbers(values)
    lines = [tuple(line)] * len(found) if sign == "in" else _numbers(line)
    lines = lines * len(found) if len(lines) == 1 else lines
    require(len(found) > 0 and len(lines) == len(found), f"{what[0]}：{len(found)} 个数，{len(lines)} 条界线",
            f"{what[1]}: {len(found)} values and {len(lines)} lines")
    try:
        failed = [(a, b) for a, b in zip(found, lines, strict=True)
                  if not all(SIGNS[sign](x, b) for x in _ends(a, sign))]
    except (TypeError, ValueError):
        refuse(f"{what[0]}：{values!r} 与 {line!r} 不能比较", f"{what[1]}: {values!r} and {line!r} cannot be compared",
               TypeError)
    if failed:
        zh, en = (f"{name}{colon}{'; '.join(f'{_shown(a)} {sign} {_shown(b)}' for a, b in failed)}"
                  for name, colon in zip(what, ("：不成立 ", ": does not hold, "), strict=True))
        raise AssertionError(f"{zh} / {en}")
    return (f'<tr><td>{bilingual(what)}</td><td class="mm-number">{_range(found)}</td><td>{escape(sign)}</td>'
            f'<td class="mm-number">{_shown(line) if sign == "in" else _range(lines)}</td></tr>')


def _ends(x: object, sign: str) -> tuple:
    """Of an interval the end that comes nearest to the line, or both; of anything else itself."""
    if not isinstance(x, Interval):
        return (x,)
    one_of(sign, "sign", (">", "<", "≥", "≤", "in"))  # an interval is not equal to a number
    return {">": (x.low,), "≥": (x.low,), "<": (x.high,), "≤": (x.high,)}.get(sign, (x.low, x.high))


def _numbers(x: object) -> list:
    if hasattr(x, "tolist"):
        x = x.tolist()
    if isinstance(x, Mapping):
        x = list(x.values())
    return list(x) if isinstance(x, Iterable) and not isinstance(x, str) else [x]


def _range(values: list) -> str:
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values) and len(values) > 1:
        low, high = _shown(min(values)), _shown(max(values))
        return low if low == high else f"{low} – {high}"
    return ", ".join(dict.fromkeys(_shown(v) for v in values))


def _shown(x: object) -> str:
    if isinstance(x, tuple):
        return f"{_shown(x[0])} … {_shown(x[1])}"
    if isinstance(x, bool) or not isinstance(x, float):
        return escape(str(x))
    return f"{x:.3g}" if 0 < abs(x) < 1e-3 or abs(x) >= 1e5 else f"{x:.3f}".rstrip("0").rstrip(".")
