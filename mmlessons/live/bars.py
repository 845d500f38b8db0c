"""横条：一个数一条，或几份拼成一条 / Bars: one for each number, or several shares joined into one."""

from collections.abc import Callable, Sequence
from html import escape

from matplotlib.colors import to_hex, to_rgb

from mmcore.checks import positive, require, whole
from mmlessons.border import typed
from mmlessons.intervals import Interval

from .axes import COLOURS
from .output import Output, Text, bilingual, plain, title_html

Part = tuple[Text, str]  # a label and a colour


@typed
def bars(rows: Sequence[tuple[Text, float | Interval]], title: Text | None = None,
         colour: str | Sequence[str] = "#0072B2", digits: int = 2) -> Output:
    """横条，每条写着自己的数，长度以 1 为满 / Horizontal bars, each with its number; 1 fills the width.

    A number may be an `Interval`: a line across the end of its bar then reaches from low to high. `colour`: one for all
    bars or one for each, where a modality serves as a colour.

    数可以是 `Interval`：横条的末端会有一条线，从低画到高。`colour`：所有横条一种颜色，或每条一种；颜色可以是模态名。
    """
    whole(digits, "digits", 0)
    shades = [shade(c) for c in ([colour] * len(rows) if isinstance(colour, str) else colour)]
    require(len(shades) == len(rows), f"{len(rows)} 条需要 {len(rows)} 种颜色，收到 {len(shades)}",
            f"{len(rows)} bars need {len(rows)} colours, got {len(shades)}")
    for name, value in rows:
        inside = all(0 <= x <= 1 for x in _reach(value))
        require(inside, f"{plain(name)} 需要在 0 与 1 之间，收到 {value}",
                f"{plain(name)} must lie between 0 and 1, got {value}")
    body = "".join(f'<tr><th scope="row">{bilingual(name)}</th><td>{_bar(value, its)}</td>'
                   f'<td class="mm-number">{_said(value, digits)}</td></tr>'
                   for (name, value), its in zip(rows, shades, strict=True))
    caption = "" if title is None else f"<caption>{bilingual(title)}</caption>"
    text = "\n".join(f"{plain(name)}  {_said(value, digits)}" for name, value in rows)
    html = ('<div class="mm mm-scroll" tabindex="0"><table class="mm-table mm-bars">'
            f'{caption}<tbody>{body}</tbody></table></div>')
    return Output(html, text if title is None else f"{plain(title)}\n{text}")


def _reach(value: float | Interval) -> tuple[float, float, float]:
    """How long the bar is, and from where to where its line goes."""
    return (value.value, value.low, value.high) if isinstance(value, Interval) else (value, value, value)


def _bar(value: float | Interval, colour: str) -> str:
    length, low, high = (100 * x for x in _reach(value))
    bar = f'<div class="mm-bar" style="width:{length:.1f}%;background:{colour}"></div>'
    if low == high:
        return bar
    whisker = (f'<div style="position:absolute;top:calc(50% - 4px);height:8px;left:{low:.1f}%;width:{high - low:.1f}%;'
               'border:solid;border-width:0 2px;box-sizing:border-box;'
               'background:linear-gradient(currentColor,currentColor) center/100% 2px no-repeat"></div>')
    return f'<div style="position:relative">{bar}{whisker}</div>'


def _said(value: float | Interval, digits: int) -> str:
    said = [f"{x:.{digits}f}" for x in _reach(value)]
    return "{} [{}, {}]".format(*said) if isinstance(value, Interval) else said[0]


@typed
def shares(rows: Sequence[tuple[Text, Sequence[float]]], parts: Sequence[Part], title: Text | None = None,
           total: float = 1.0) -> Output:
    """每行一条，由几份拼成 / One bar a row, joined from shares.

    填满的宽度是各份之和除以 total。`parts` 是各份的（名字, 颜色），颜色可以是模态名；`rows` 是（行的名字, 各份的数）。
    数写在条里，太窄时写在条外。

    The filled width is the sum of the shares over `total`. `parts` are the (name, colour) of the shares, where a
    modality serves as a colour; `rows` are (name of the row, numbers). A number stands inside its share, or outside
    where that is too narrow.
    """
    positive(total, "total")
    for name, values in rows:
        require(len(values) == len(parts), f"{plain(name)} 需要 {len(parts)} 个数，收到 {len(values)}",
                f"{plain(name)} needs {len(parts)} numbers, got {len(values)}")
        require(all(value >= 0 for value in values) and sum(values) <= total * (1 + 1e-6),
                f"{plain(name)} 需要不为负、且和不超过 {total:g} 的数，收到 {[float(v) for v in values]}",
                f"{plain(name)} needs numbers that are not negative and sum to {total:g} at most, "
                f"got {[float(v) for v in values]}")

    number = "{:.2f}".format
    key = "".join(f'<span><i style="background:{shade(colour)}"></i><span>{bilingual(label)}</span></span>'
                  for label, colour in parts)
    body = "".join(f'<div class="mm-row-name">{bilingual(name)}</div>{stacked(parts, values, total, number)}'
                   for name, values in rows)
    lines = [f"{plain(name)}: " + ", ".join(f"{plain(label)} {number(value)}"
                                            for (label, _), value in zip(parts, values, strict=True))
             for name, values in rows]
    html = (f'<div class="mm">{title_html(title)}<div class="mm-key">{key}</div>'
            f'<div class="mm-shares">{body}</div></div>')
    return Output(html, "\n".join(lines if title is None else [plain(title), *lines]))


def stacked(parts: Sequence[Part], values: Sequence[float], total: float, number: Callable[[float], str]) -> str:
    """一条由几份拼成的横条 / One bar joined from shares, each with its name and number in it where they fit."""
    pieces, narrow, filled = [], 0, 0.0
    for (label, colour), value in zip(parts, values, strict=True):
        if value > 0:
            narrow = narrow + 1 if value < 0.12 * total else 0
            filled += value
            # where they have to stand outside, neighbours go above and below; a third one is told by its title alone
            place = {2: " mm-below"}.get(narrow, " mm-crowded" if narrow > 2 else "")
            place += " mm-ending" * (filled > total / 2)
            pieces.append(f'<div class="mm-share{place}" title="{escape(plain(label))} {number(value)}" '
                          f'style="width:{100 * value / total:.2f}%;background:{shade(colour)};color:{ink_on(colour)}">'
                          f"<span>{bilingual(label)}</span><b>{number(value)}</b></div>")
    said = escape(", ".join(f"{plain(label)} {number(value)}" for (label, _), value in zip(parts, values, strict=True)))
    return f'<div class="mm-stack" role="img" aria-label="{said}">{"".join(pieces)}</div>'


def shade(colour: str) -> str:
    """模态名或任何颜色，写成 #rrggbb / A modality or any colour as #rrggbb."""
    return to_hex(COLOURS.get(colour, colour))


def ink_on(colour: str) -> str:
    """在这种颜色上看得清的字色：黑或白，取对比度高的 / Black or white, whichever stands out more on this colour."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(shade(colour))]
    brightness = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "#000" if (brightness + 0.05) / 0.05 > 1.05 / (brightness + 0.05) else "#fff"
