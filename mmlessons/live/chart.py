"""不动的曲线图 / Line charts that stand still: what several runs found, over what was varied."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmcore.checks import require
from mmlessons.border import typed

from .axes import MARKERS, Levels, check_name, dress, legend, legend_columns, png, room, style
from .figure import image_html
from .fonts import use_chinese
from .output import Drawn, Name, both, plain

WIDTH, HEIGHT, LINE = 720, 400, 24  # pixels; a further row of the legend makes the picture higher by LINE
MOST_LINES = 8  # as many as there are styles


@typed
def chart(title: Name, x: Name, at: Sequence[float], lines: Mapping[Name, Sequence[float]],
          levels: Mapping[Name, float] | None = None,
          bands: Mapping[Name, tuple[Sequence[float], Sequence[float]]] | None = None,
          ylim: tuple[float, float] | None = None, colours: Mapping[Name, str] | None = None) -> Drawn:
    """几条线的图 / A chart of several lines.

    All names are (Chinese, English). `at` are the places on the horizontal axis, `lines` the values of each line there,
    `levels` horizontal lines to compare with; `bands` give a line a range (lowest, highest), over seeds for example;
    `colours` give a line a modality or a colour.

    名字都是（中文, English）。`at` 是横轴上的位置，`lines` 每条线在各位置的值，`levels` 用来比较的水平线；`bands` 给某
    条线一个范围（最低, 最高），例如几个种子的；`colours` 给某条线指定模态名或颜色。
    """
    levels, bands, colours = levels or {}, bands or {}, colours or {}
    require(ylim is None or ylim[0] < ylim[1], f"ylim 需要从小到大，收到 {ylim}", f"ylim must rise, got {ylim}")
    _check(title, x, at, lines, levels, bands, colours)
    use_chinese()
    columns = 0 if list(lines) == [title] else legend_columns(list(lines), WIDTH - 60)
    legend_rows = -(-len(lines) // columns) if columns else 0
    size = (WIDTH, HEIGHT + LINE * max(0, legend_rows - 1))
    figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100, layout="constrained")
    canvas, ax = FigureCanvasAgg(figure), figure.subplots()
    dress(ax, title, x, legend_rows)
    drawn = []
    for k, (name, values) in enumerate(lines.items()):
        look = style(k, colours.get(name))
        drawn += ax.plot(at, values, marker=MARKERS[k], label=both(*name), **{**look, "markersize": 7})
        if name in bands:
            ax.fill_between(at, *bands[name], color=look["color"], alpha=0.16, linewidth=0)
    ax.set_ylim(ylim or room([v for values in [*lines.values(), levels.values(), *(b for pair in bands.values()
                                                                                  for b in pair)] for v in values]))
    if len(at) <= 9:
        ax.set_xticks(list(at), [f"{v:g}" for v in at])
    if columns:
        legend(ax, drawn, columns)
    named = Levels(ax, levels)
    figure.draw_without_rendering()  # gives the axes their place, by which the names of the levels keep apart
    figure.set_layout_engine("none")
    named.place()
    canvas.draw()
    data = png(canvas)
    alt = " / ".join(f"{title[k]}{'：' if k == 0 else ': '}{x[k]}; " + ", ".join(name[k] for name in [*lines, *levels])
                     for k in (0, 1))
    return Drawn(f'<div class="mm mm-chart">{image_html(data, alt, size)}</div>', plain(title), data)


def _check(title, x, at, lines, levels, bands, colours) -> None:
    for name in [title, x, *lines, *levels]:
        check_name(name)
    require(1 <= len(lines) <= MOST_LINES, f"需要 1 到 {MOST_LINES} 条线，收到 {len(lines)}",
            f"1 to {MOST_LINES} lines wanted, got {len(lines)}")
    for name, values in [*lines.items(), *((name, edge) for name, pair in bands.items() for edge in pair)]:
        require(len(values) == len(at), f"{plain(name)} 需要 {len(at)} 个值，收到 {len(values)}",
                f"{plain(name)} needs {len(at)} values, got {len(values)}")
    stray = [plain(name) for name in (*bands, *colours) if name not in lines]
    require(not stray, f"{stray} 不是任何一条线", f"{stray} is no line")
    require(all(map(math.isfinite, at)), "at 里有 NaN 或无穷", "at holds NaN or infinity")
