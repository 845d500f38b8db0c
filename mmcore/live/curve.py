"""会动的曲线 / The moving picture.

每次更新只画线（blit），坐标轴的范围变了才重画一切；PNG 用最快的压缩。两个图一次更新约 10 毫秒。

An update draws the lines alone (blitting), and everything only when the limits of an axis change; PNG is compressed
the quick way. An update of two plots takes about 10 ms.
"""

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from ..checks import require, whole
from .fonts import use_chinese

COLOURS = {"image": "#0072B2", "text": "#D55E00", "sound": "#009E73"}  # Okabe-Ito: colour-blind safe
# a line is told by its dashes as well as by its colour
STYLES = [("#0072B2", "-"), ("#D55E00", (0, (5, 1.5))), ("#009E73", (0, (1.2, 1.2))),
          ("#B0508A", (0, (6, 1.5, 1.2, 1.5))), ("#5B4FA2", (0, (3, 1, 1, 1, 1, 1))), ("#6B6B6B", (0, (9, 2)))]
MOST_POINTS = 600  # more than the pixels can show
Name = tuple[str, str]


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
    log: bool = False
    colours: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(len(self.lines) > 0, "Plot 至少需要一条线", "a Plot needs at least one line")
        for name in [*self.lines.values(), *self.levels]:
            require(isinstance(name, tuple) and len(name) == 2,
                    f"名字需要是 (中文, English)，收到 {name!r}",
                    f"a name must be (Chinese, English), got {name!r}", TypeError)
        stray = sorted(set(self.colours) - set(self.lines))
        require(not stray, f"colours 里的 {stray} 不是任何一条线", f"colours has {stray}, which is no line")
        if self.log:
            low = [v for v in [*self.levels.values(), *(self.ylim or ())] if v <= 0]
            require(not low,
                    f"对数坐标需要正数，收到 {low}", f"a logarithmic axis needs positive numbers, got {low}")


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
        self._figure = Figure(figsize=(self.size[0] / 100, self.size[1] / 100), dpi=100, layout="constrained")
        self._canvas = FigureCanvasAgg(self._figure)
        self._background = None
        axes = self._figure.subplots(1, len(plots), squeeze=False)[0]
        # a lone line that the title names already needs no legend; titles side by side stand at one height
        legends = [[both(*name) for name in plot.lines.values()] != [both(plot.zh, plot.en)] for plot in self.plots]
        self._drawn = [_Axes(ax, plot, steps, legend, 32 if any(legends) else 8)
                       for ax, plot, legend in zip(axes, self.plots, legends, strict=True)]

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
        self._background = None

    def png(self) -> bytes:
        for axes in self._drawn:
            if axes.fit(self.history):
                self._background = None
        if self._background is None:
            self._canvas.draw()
            self._background = self._canvas.copy_from_bbox(self._figure.bbox)
        self._canvas.restore_region(self._background)
        for axes in self._drawn:
            axes.draw_lines(self.history)
        out = io.BytesIO()
        Image.fromarray(np.asarray(self._canvas.buffer_rgba())).convert("RGB").save(out, "PNG", compress_level=1)
        return out.getvalue()


def both(zh: str, en: str) -> str:
    return zh if zh == en else f"{zh} · {en}"


class _Axes:
    """一个图在画布上的样子 / One plot as drawn."""

    def __init__(self, ax, plot: Plot, steps: int, legend: bool, pad: float) -> None:
        self.ax, self.plot, self.ghosts = ax, plot, []
        self.fitted = False  # the first limits are a guess
        ax.set_title(both(plot.zh, plot.en), fontsize=15, loc="left", pad=pad)
        ax.set_xlabel("步 · step", fontsize=13)
        ax.tick_params(labelsize=12)
        ax.grid(alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
        ax.set_xlim(0, steps)
        if plot.log:
            ax.set_yscale("log")
        ax.set_ylim(plot.ylim or self._room([]))
        self.lines = {}
        for k, (name, (zh, en)) in enumerate(plot.lines.items()):
            colour, dashes = STYLES[k % len(STYLES)]
            colour = plot.colours.get(name, colour)
            (self.lines[name],) = ax.plot([], [], color=COLOURS.get(colour, colour), linestyle=dashes, linewidth=2.2,
                                          markersize=5, label=both(zh, en), animated=True)
        if legend:
            ax.legend(loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=min(3, len(self.lines)), frameon=False,
                      fontsize=12, borderaxespad=0.2, handlelength=2.4, columnspacing=1.4)
        for level in plot.levels.values():
            ax.axhline(level, color="#555555", linestyle=(0, (4, 3)), linewidth=1.3, zorder=1)
        self.labels = [ax.text(1.015, 0.5, f"{zh}\n{en} {level:.3g}", fontsize=12, color="#444444", va="center",
                               linespacing=1.1, transform=ax.transAxes) for (zh, en), level in self._levels()]
        self._place_labels()

    def _levels(self) -> list[tuple[Name, float]]:
        return sorted(self.plot.levels.items(), key=lambda item: item[1])

    def _room(self, values: Iterable[float]) -> tuple[float, float]:
        """容得下这些数的范围，留有余地 / Limits that hold these values, with room to grow."""
        seen = [v for v in [*values, *self.plot.levels.values()] if math.isfinite(v) and (v > 0 or not self.plot.log)]
        if self.plot.log:
            return (min(seen, default=0.1) / 2.5, max(seen, default=1.0) * 1.6)
        low, high = min(0.0, *seen, 0.0), max(seen, default=1.0)
        spread = (high - low) or 1.0
        return (low - 0.1 * spread if low < 0 else 0.0, high + 0.1 * spread)

    def fit(self, history) -> bool:
        """需要时放宽纵轴；变了就说 / Widen the vertical axis if needed, and tell whether it changed."""
        if self.plot.ylim:
            return False
        values = [v for name in self.lines for v in history.get(name, ([], []))[1]]
        low, high = self.ax.get_ylim()
        seen = [v for v in values if math.isfinite(v) and (v > 0 or not self.plot.log)]
        if not seen or (low <= min(seen) and max(seen) <= high and self.fitted):
            return False
        self.ax.set_ylim(self._room(seen))
        self.fitted = True
        self._place_labels()
        return True

    def _place_labels(self) -> None:
        """线的名字写在右边，彼此不重叠 / The names of the levels stand at the right and do not overlap."""
        floor = 0.05
        for text, (_, level) in zip(self.labels, self._levels(), strict=True):
            y = self.ax.transAxes.inverted().transform(self.ax.transData.transform((0, level)))[1]
            y = max(y, floor)
            text.set_y(y)
            floor = y + 0.17  # two lines of text

    def draw_lines(self, history) -> None:
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
