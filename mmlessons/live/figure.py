"""点和矩阵画成图，快得能跟上滑块 / Points and matrices as pictures, quick enough to follow a slider.

点直接交给 Agg 来画，不经过坐标轴：四百个点约十毫秒。标题、图例和行列的名字是 HTML，所以语言切换对它们有效，图缩小时
字也不变小。

Points go straight to Agg without axes: four hundred take about ten milliseconds. Title, legend and the names of rows
and columns are HTML, so that the language switch acts on them and they stay large where the picture is made smaller.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from html import escape
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.colors import to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D, IdentityTransform

from mmcore.checks import refuse, require, whole
from mmlessons.border import typed

from .axes import STYLES, encode
from .bars import shade
from .fonts import FAMILY, use_chinese
from .output import Drawn, Text, bilingual, data_uri, pair, plain, title_html

SHARPNESS = 1.5  # pixels drawn for each pixel of the page
PALETTE = [colour for colour, _ in STYLES] + ["#4BA3D9", "#8B4513"]
SHAPES = {"o": "●", "^": "▲", "s": "■", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "*": "★", "<": "◀", ">": "▶"}
SHADES = ["#f4f4f2", "#b9cfe3", "#6a9fcc", "#1f63a8", "#05224a"]  # ever darker: readable without colour too


@typed
def scatter(points: Any, labels: Sequence[int], names: Sequence[Text], title: Text | None = None,
            size: tuple[int, int] = (520, 400), colours: Sequence[str] | None = None,
            links: Sequence[tuple[int, int]] | None = None,
            limits: tuple[tuple[float, float], tuple[float, float]] | None = None) -> Drawn:
    """平面上的点，每类一种颜色和一种形状 / Points in the plane, each class with its colour and its shape.

    `points`：(N, 2)；`labels`：每个点的类别，从 0 起；`names`：每类的名字。名字都是单个字符时，就用字符本身作记号。
    `colours`：每类一个模态名或颜色。`links`：用细线相连的点的编号对。没有 `limits` 时，范围随点而定，两个方向比例相同。

    `points`: (N, 2); `labels`: the class of each point, counted from 0; `names`: one for each class. Where all names
    are single characters, the characters themselves are the marks. `colours`: a modality or a colour for each class.
    `links`: pairs of points joined by a thin line. Without `limits` they follow from the points, at one scale for both
    directions.
    """
    for side in size:
        whole(side, "size", 64)
    xy, labels = numbers(points, "points"), np.asarray(labels).astype(int).reshape(-1)
    n, kinds = len(xy), len(names)
    require(xy.ndim == 2 and xy.shape[1] == 2 and n > 0,
            f"points 需要形状 (N, 2)，收到 {xy.shape}", f"points must have shape (N, 2), got {xy.shape}")
    require(len(labels) == n and labels.min() >= 0 and labels.max() < kinds,
            f"{n} 个点需要 {n} 个 labels，在 0 与 {kinds - 1} 之间，收到 {labels.tolist()}",
            f"{n} points need {n} labels between 0 and {kinds - 1}, got {labels.tolist()}")
    require(colours is None or len(colours) == kinds,
            f"{kinds} 类需要 {kinds} 种颜色", f"{kinds} classes need {kinds} colours")
    pairs = np.asarray([] if links is None else links, int).reshape(-1, 2)
    require(pairs.size == 0 or (pairs.min() >= 0 and pairs.max() < len(xy)),
            f"links 里的编号需要在 0 与 {len(xy) - 1} 之间", f"links must number points from 0 to {len(xy) - 1}")
    shades = [shade(colour) for colour in colours or [PALETTE[k % len(PALETTE)] for k in range(kinds)]]
    letters = all(isinstance(name, str) and len(name) == 1 for name in names)
    marks = [name if letters else list(SHAPES)[k % len(SHAPES)] for k, name in enumerate(names)]
    png = _draw_points(_on_page(xy, size, limits), labels, marks, shades, pairs, letters, size)

    title_text = title or ("散点图", "scatter plot")
    listed = [", ".join(pair(name)[k] for name in names) for k in (0, 1)]
    zh, en = pair(title_text)
    alt = f"{zh}：{n} 个点，{kinds} 类（{listed[0]}） / {en}: {n} points of {kinds} classes ({listed[1]})"
    key = "" if letters else _key_html(zip(marks, shades, names, strict=True))
    html = (f'<div class="mm mm-scatter" style="max-width:{size[0]}px">{title_html(title)}{key}'
            f"{image_html(png, alt, size)}</div>")
    return Drawn(html, plain(title_text), png)


@typed
def picture(matrix: Any, title: Text | None = None, size: int = 360, low: float | None = None,
            high: float | None = None) -> Drawn:
    """矩阵画成格子：浅灰最小，深蓝最大 / A matrix as cells: light grey is lowest, deep blue highest.

    `size` is the longer side in pixels. `low` and `high` fix the ends, so that pictures can be compared.

    `size` 是长边的像素数。`low` 和 `high` 固定两端，便于比较几幅图。
    """
    x = numbers(matrix, "matrix")
    whole(size, "size", 16)
    require(x.ndim == 2 and x.size > 0,
            f"matrix 需要是二维的，收到形状 {x.shape}", f"matrix must have two dimensions, got shape {x.shape}")
    low, high = float(x.min() if low is None else low), float(x.max() if high is None else high)
    require(low <= high, f"需要 low ≤ high，收到 {low:g} 和 {high:g}", f"low ≤ high wanted, got {low:g} and {high:g}")
    part = np.clip((x - low) / ((high - low) or 1.0), 0, 1)
    stops = np.linspace(0, 1, len(SHADES))
    rgb = np.stack([np.interp(part, stops, channel) for channel in np.array([to_rgb(c) for c in SHADES]).T], axis=-1)
    cell = size / max(x.shape)
    pixels = (255 * rgb).round().astype(np.uint8).repeat(max(1, round(cell)), 0).repeat(max(1, round(cell)), 1)
    png = encode(pixels)
    shown = (round(x.shape[1] * cell), round(x.shape[0] * cell))

    title_text = title or ("矩阵", "matrix")
    zh, en = pair(title_text)
    alt = (f"{zh}：{len(x)} 行 {x.shape[1]} 列，从 {x.min():.2g} 到 {x.max():.2g} / "
           f"{en}: {len(x)} rows and {x.shape[1]} columns, from {x.min():.2g} to {x.max():.2g}")
    html = (f'<div class="mm">{title_html(title)}<div class="mm-heat">'
            f"{image_html(png, alt, shown)}"
            f'<div class="mm-scale"><span>{low:.2g}</span>'
            f'<i style="background:linear-gradient(90deg,{",".join(SHADES)})"></i><span>{high:.2g}</span></div>'
            "</div></div>")
    return Drawn(html, plain(title_text), png)


def image_html(png: bytes, alt: str, size: tuple[int, int]) -> str:
    """图的 HTML；已知大小、同步解码，换图时不闪 / The HTML of a picture; it does not flicker when it is replaced."""
    return (f'<img class="mm-figure" alt="{escape(alt)}" width="{size[0]}" height="{size[1]}" decoding="sync" '
            f'src="{data_uri(png, "image/png")}">')


def _key_html(classes: Iterable[tuple[str, str, Text]]) -> str:
    inside = "".join(f'<span><i class="mm-mark-key" style="color:{colour}">{SHAPES[mark]}\ufe0e</i>'
                     f"<span>{bilingual(name)}</span></span>" for mark, colour, name in classes)
    return f'<div class="mm-key">{inside}</div>'


def numbers(x: Any, name: str) -> np.ndarray:
    try:
        x = np.asarray(x.detach().cpu() if hasattr(x, "detach") else x)
        x = x.astype(float, casting="same_kind" if x.dtype.kind in "cf" else "safe")
    except (TypeError, ValueError):
        refuse(f"{name} 需要是数的矩阵，收到 {type(x).__name__}", f"{name} must be a matrix of numbers, got "
               f"{type(x).__name__}", TypeError)
    require(bool(np.isfinite(x).all()), f"{name} 里有 NaN 或无穷", f"{name} holds NaN or infinity")
    return x


# -- drawing ----------------------------------------------------------------------------------------------------------

def _on_page(xy: np.ndarray, size: tuple[int, int], limits: tuple | None) -> np.ndarray:
    """Points → pixels of the canvas, the vertical axis pointing upwards."""
    extent = np.array(size) * SHARPNESS
    margin = 16 * SHARPNESS
    if limits is not None:
        low, high = np.array(limits, float).T
        require(bool((low < high).all()), f"limits 需要 ((x0, x1), (y0, y1)) 且 x0 < x1、y0 < y1，收到 {limits}",
                f"limits must be ((x0, x1), (y0, y1)) with x0 < x1 and y0 < y1, got {limits}")
        return margin + (xy - low) / (high - low) * (extent - 2 * margin)
    low, high = xy.min(0), xy.max(0)
    span = np.where(high > low, high - low, 1e-9)
    scale = ((extent - 2 * margin) / span).min()
    return extent / 2 + (xy - (low + high) / 2) * scale


def _draw_points(xy, labels, marks, shades, pairs, letters, size) -> bytes:
    w, h = (round(side * SHARPNESS) for side in size)
    agg = RendererAgg(w, h, 72)
    _draw_path(agg, Path([[0, 0], [w, 0], [w, h], [0, h], [0, 0]]), "#ffffff", 0, "#ffffff")
    if len(pairs):
        codes = np.tile([Path.MOVETO, Path.LINETO], len(pairs))
        _draw_path(agg, Path(xy[pairs].reshape(-1, 2), codes), "#8c8c8c", 0.9 * SHARPNESS)
    many = len(xy) > 150
    radius = SHARPNESS * ((13 if many else 17) if letters else (3.6 if many else 5.0))
    for k, (mark, colour) in enumerate(zip(marks, shades, strict=True)):
        at = xy[labels == k]
        if len(at):
            gc = agg.new_gc()
            gc.set_foreground(colour if letters else "#ffffff")
            gc.set_linewidth(0.5 * SHARPNESS)
            agg.draw_markers(gc, _mark(mark, letters), Affine2D().scale(radius), Path(at), IdentityTransform(),
                             (*to_rgb(colour), 0.9))
            gc.restore()
    return encode(np.asarray(agg.buffer_rgba()), palette=256)


def _draw_path(agg, path, colour, line_width, face=None) -> None:
    gc = agg.new_gc()
    gc.set_foreground(colour)
    gc.set_linewidth(line_width)
    agg.draw_path(gc, path, IdentityTransform(), None if face is None else to_rgb(face))
    gc.restore()


@lru_cache(maxsize=256)
def _mark(mark: str, letter: bool) -> Path:
    """Outlines about the origin, 1 in size."""
    if letter:
        use_chinese()
        path = TextPath((0, 0), mark, size=1.25, prop=FontProperties(family=[FAMILY, "DejaVu Sans"]))
        box = path.get_extents()
        return path.transformed(Affine2D().translate(-(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2))
    style = MarkerStyle(mark)
    path = style.get_path().transformed(style.get_transform())
    box = path.get_extents()
    area = {"o": 1.0, "s": 0.9, "D": 1.05}.get(mark, 1.2)  # so that all look about as large
    return path.transformed(Affine2D().scale(2 * area / max(box.width, box.height)))
