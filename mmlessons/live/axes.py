"""曲线图共同的样子 / How every line chart looks: titles, line styles, a legend that covers nothing, levels by name."""

import io
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.lines import Line2D
from PIL import Image

from mmcore.checks import require

from .output import Name, both, width

COLOURS = {"image": "#0072B2", "text": "#D55E00", "sound": "#009E73"}  # Okabe-Ito: colour-blind safe
# a line is told by its dashes as well as by its colour
STYLES = [("#0072B2", "-"), ("#D55E00", (0, (5, 1.5))), ("#009E73", (0, (1.2, 1.2))),
          ("#B0508A", (0, (6, 1.5, 1.2, 1.5))), ("#5B4FA2", (0, (3, 1, 1, 1, 1, 1))), ("#6B6B6B", (0, (9, 2))),
          ("#8A6D00", (0, (2, 2.5))), ("#1F1F1F", (0, (7, 1.5, 1.2, 1.5, 1.2, 1.5)))]
MARKERS = "osD^vPX*"


def check_name(name: object) -> None:
    require(isinstance(name, tuple) and len(name) == 2 and all(isinstance(part, str) for part in name),
            f"名字需要是 (中文, English)，收到 {name!r}",
            f"a name must be (Chinese, English), got {name!r}", TypeError)


def dress(ax: Axes, title: Name, x: Name, legend_rows: int) -> None:
    """标题、横轴和网格；标题下面留出图例的行 / Title, axis and grid, with room for the legend under the title."""
    ax.set_title(both(*title), fontsize=15, loc="left", pad=8 if legend_rows == 0 else 14 + 18.5 * legend_rows)
    ax.set_xlabel(both(*x), fontsize=13)
    ax.tick_params(labelsize=12)
    ax.grid(alpha=0.25)
    ax.spines[["top", "right"]].set_visible(False)


def style(k: int, colour: str | None = None) -> dict[str, object]:
    """第 k 条线的颜色和线型 / Colour and dashes of line k."""
    own, dashes = STYLES[k % len(STYLES)]
    colour = own if colour is None else colour
    return {"color": COLOURS.get(colour, colour), "linestyle": dashes, "linewidth": 2.2, "markersize": 5}


def legend_columns(names: Sequence[Name], pixels: float) -> int:
    """一行放得下几个名字，至多三个 / How many names fit into a row, three at most."""
    widest = max(8.6 * width(both(*name)) for name in names) + 62  # the sample of the line, and the gap
    return max(1, min(3, len(names), int(pixels / widest)))


def legend(ax: Axes, lines: Sequence[Line2D], columns: int) -> None:
    """图例在图的上方，不会盖住线 / The legend stands above the plot, where it covers no line."""
    ax.legend(handles=lines, loc="lower left", bbox_to_anchor=(-0.02, 0.99), ncols=columns, frameon=False, fontsize=12,
              borderaxespad=0.2, handlelength=2.8, columnspacing=1.4)


def room(values: Iterable[float]) -> tuple[float, float]:
    """容得下这些数的范围，留有余地 / Limits that hold these values, with room to grow."""
    seen = [v for v in values if math.isfinite(v)]
    low, high = min(0.0, *seen, 0.0), max(seen, default=1.0)
    spread = (high - low) or 1.0
    return (low - 0.1 * spread if low < 0 else 0.0, high + 0.1 * spread)


class Levels:
    """用来比较的水平线，名字写在右边，彼此不重叠 / Horizontal lines to compare with, named at the right, apart."""

    def __init__(self, ax: Axes, levels: Mapping[Name, float]) -> None:
        self.ax, self.heights = ax, sorted(levels.values())
        for height in self.heights:
            ax.axhline(height, color="#555555", linestyle=(0, (4, 3)), linewidth=1.3, zorder=1)
        self.labels = [ax.text(1.015, 0.5, f"{zh}\n{en} {height:.3g}", fontsize=12, color="#444444", va="center",
                               linespacing=1.1, transform=ax.transAxes)
                       for (zh, en), height in sorted(levels.items(), key=lambda item: item[1])]
        self.place()

    def place(self) -> None:
        floor = 0.05
        for text, height in zip(self.labels, self.heights, strict=True):
            y = self.ax.transAxes.inverted().transform(self.ax.transData.transform((0, height)))[1]
            y = min(max(y, floor), 9.0)  # even where it lies far outside
            text.set_y(y)
            floor = y + 0.17  # two lines of text


def png(canvas: FigureCanvasAgg) -> bytes:
    """画布上现在的样子，用最快的压缩 / What the canvas shows now, compressed the quick way."""
    return encode(np.asarray(canvas.buffer_rgba()))


def encode(pixels: np.ndarray, palette: int | None = None) -> bytes:
    """像素 → PNG；给了 palette 就只用这么多种颜色 / Pixels → PNG, with so many colours where `palette` says so."""
    image, out = Image.fromarray(pixels).convert("RGB"), io.BytesIO()
    if palette is not None:  # half the time and a third of the bytes, where colours are few
        image = image.quantize(palette, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()
