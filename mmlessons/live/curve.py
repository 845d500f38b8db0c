"""会动的曲线 / The moving picture.

每次更新只画线（blit），坐标轴的范围变了才重画一切；PNG 用最快的压缩。两个图一次更新约 10 毫秒。

An update draws the lines alone (blitting), and everything only when the limits of an axis change; PNG is compressed
the quick way. An update of two plots takes about 10 ms.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmcore.checks import require, whole
from mmlessons.border import typed

from .axes import Levels, check_name, dress, encode, legend, legend_columns, room, style
from .fonts import use_chinese
from .output import Name, both

MOST_POINTS = 600  # more than the pixels can show


@typed
@dataclass(frozen=True)
class Plot:
    """一个图 / One plot.

    `lines` 把 step 和 evaluate 返回的名字对应到（中文, English）。`levels` 是用来比较的水平线。`colours` 可以给某条线
    指定颜色：COLOURS 里的模态名，或任何颜色。

    `lines` maps names that step and evaluate return to (Chinese, English). `levels` are horizontal lines to compare
    with. `colours` may give a line a colour: a modality of COLOURS, or any colour.
    """

    zh: str
    en: str
    lines: Mapping[str, Name]
    levels: Mapping[Name, float] = field(default_factory=dict)
    ylim: tuple[float, float] | None = None
    colours: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(len(self.lines) > 0, "Plot 至少需要一条线", "a Plot needs at least one line")
        for name in [*self.lines.values(), *self.levels]:
            check_name(name)
        stray = sorted(set(self.colours) - set(self.lines))
        require(not stray, f"colours 里的 {stray} 不是任何一条线", f"colours has {stray}, which is no line")


@typed
class Curves:
    """一排一个或两个图，随训练增长 / A row of one or two plots that grow with the training."""

    def __init__(self, plots: Sequence[Plot], steps: int) -> None:
        whole(steps, "steps")
        require(1 <= len(plots) <= 2,
                f"需要一个或两个图，收到 {len(plots)}", f"one or two plots wanted, got {len(plots)}")
        use_chinese()
        self.plots, self.steps = list(plots), steps
        self.history: dict[str, tuple[list[int], list[float]]] = {}
        self.size = (680, 380) if len(plots) == 1 else (1120, 380)
        size = (self.size[0] // len(plots), self.size[1])
        # a lone line that the title names already needs no legend; titles side by side stand at one height
        columns = [0 if [both(*name) for name in plot.lines.values()] == [both(plot.zh, plot.en)]
                   else legend_columns(list(plot.lines.values()), size[0] - 120)
                   for plot in self.plots]
        rows = max(-(-len(plot.lines) // n) if n else 0 for plot, n in zip(self.plots, columns, strict=True))
        self._drawn = [_Axes(plot, size, steps, n, rows) for plot, n in zip(self.plots, columns, strict=True)]

    @property
    def alt(self) -> str:
        """给看不见图的人的一句话 / A sentence for those who do not see the picture."""
        def listed(k: int) -> str:
            return "; ".join(f"{(p.zh, p.en)[k]}: " + ", ".join(name[k] for name in [*p.lines.values(), *p.levels])
                             for p in self.plots)
        return f"随训练步数变化的曲线。{listed(0)} · Curves over the training steps. {listed(1)}"

    def add(self, i: int, record: Mapping[str, float]) -> None:
        """记下第 i 步的数 / Keep the numbers of step i."""
        for name, value in record.items():
            at, values = self.history.setdefault(name, ([], []))
            at.append(i)
            values.append(float(value))

    def clear(self) -> None:
        """忘掉一切，旧曲线留作浅影以便比较 / Forget all, keeping the old curve as a pale ghost to compare with."""
        for axes in self._drawn:
            axes.keep_ghost(self.history)
        self.history = {}

    def cut(self, i: int) -> None:
        """忘掉第 i 步以后的，留作浅影 / Forget what came after step i, but for a pale ghost."""
        for axes in self._drawn:
            axes.keep_ghost(self.history)
        kept = {name: sum(step <= i for step in at) for name, (at, _) in self.history.items()}
        self.history = {name: (at[:kept[name]], values[:kept[name]]) for name, (at, values) in self.history.items()}

    def pngs(self) -> list[bytes]:
        """每个图一幅 PNG / A PNG of each plot."""
        return [encode(axes.pixels(self.history)) for axes in self._drawn]

    def png(self) -> bytes:
        """整排合成一幅 PNG / The whole row as one PNG."""
        return encode(np.hstack([axes.pixels(self.history) for axes in self._drawn]))


class _Axes:
    """One plot as drawn."""

    def __init__(self, plot: Plot, size: tuple[int, int], steps: int, columns: int, rows: int) -> None:
        self._figure = Figure(figsize=(size[0] / 100, size[1] / 100), dpi=100, layout="constrained")
        self._canvas, self._background = FigureCanvasAgg(self._figure), None
        self.ax, self.plot, self.ghosts = self._figure.subplots(), plot, []
        ax = self.ax
        self.fitted = False  # the first limits are a guess
        dress(ax, (plot.zh, plot.en), ("步", "step"), rows)
        ax.set_xlim(0, steps)
        ax.set_ylim(plot.ylim or self._room([]))
        self.lines = {name: ax.plot([], [], label=both(*label), animated=True, **style(k, plot.colours.get(name)))[0]
                      for k, (name, label) in enumerate(plot.lines.items())}
        if columns:
            legend(ax, list(self.lines.values()), columns)
        self.levels = Levels(ax, plot.levels)

    def _room(self, values: Sequence[float]) -> tuple[float, float]:
        return room([*values, *self.plot.levels.values()])

    def fit(self, history) -> bool:
        """Widen the vertical axis if needed, and tell whether it changed."""
        if self.plot.ylim:
            return False
        values = [v for name in self.lines for v in history.get(name, ([], []))[1]]
        low, high = self.ax.get_ylim()
        seen = [v for v in values if math.isfinite(v)]
        if not seen or (low <= min(seen) and max(seen) <= high and self.fitted):
            return False
        self.ax.set_ylim(self._room(seen))
        self.fitted = True
        self.levels.place()
        return True

    def pixels(self, history) -> np.ndarray:
        if self.fit(history) or self._background is None:
            self._canvas.draw()
            self._background = self._canvas.copy_from_bbox(self._figure.bbox)
        self._canvas.restore_region(self._background)
        self._draw_lines(history)
        return np.asarray(self._canvas.buffer_rgba())

    def _draw_lines(self, history) -> None:
        for name, line in self.lines.items():
            at, values = history.get(name, ([], []))
            stride = -(-len(at) // MOST_POINTS) or 1
            line.set_data(at[::stride], values[::stride])
            line.set_marker("o" if len(at) <= 40 else "")
            self.ax.draw_artist(line)

    def keep_ghost(self, history) -> None:
        for ghost in self.ghosts:
            ghost.remove()
        self.ghosts = [self.ax.plot(*history[name], color=line.get_color(), linestyle=line.get_linestyle(),
                                    linewidth=1.6, alpha=0.28, zorder=1)[0]
                       for name, line in self.lines.items() if history.get(name, ([], []))[0]]
        self.fitted = False
        self._background = None
