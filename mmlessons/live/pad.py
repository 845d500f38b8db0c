"""画板和上传：读者自己的图画 / A pad to draw on and a button to upload: the reader's own pictures.

The pad is ipycanvas (pip install ipycanvas); where it is not installed there is a word instead, and uploading works.

画板用的是 ipycanvas（pip install ipycanvas）。没有装时，那里是一句话，上传照样能用。
"""

import io
from collections.abc import Callable

import ipywidgets
from PIL import Image, ImageDraw

from mmcore.checks import require
from mmlessons.border import typed

from .controls import menu, slider
from .kernel import is_live, say_idle
from .output import Box, Output, Shown, bilingual, both, html_of, reason, styled

SIDE = 288  # pixels of the pad
COLOURS = {"#c0392b": ("红", "red"), "#e67e22": ("橙", "orange"), "#f1c40f": ("黄", "yellow"),
           "#27ae60": ("绿", "green"), "#2980b9": ("蓝", "blue"), "#8e44ad": ("紫", "purple"),
           "#8d5524": ("棕", "brown"), "#95a5a6": ("灰", "grey"), "#111111": ("黑", "black"),
           "#ffffff": ("白（橡皮）", "white (eraser)")}
STYLE = ".mm-pad { background: #fff; outline: 1px solid #8c8c8c; touch-action: none; }"
MISSING = ("画板需要 ipycanvas（pip install ipycanvas，再刷新页面）。现在可以上传图画。",
           "The pad needs ipycanvas (pip install ipycanvas, then reload the page). For now, upload pictures.")
STILL = ("在 Jupyter 里打开并运行，这里是一块画板。", "Open and run this in Jupyter, and here is a pad to draw on.")


@typed
class pad(Box):
    """画一幅，或上传几幅，就得到回答 / Draw a picture or upload some, and get an answer.

    `answer(name, content)` gets a name and the bytes of a picture file, and returns what `table`, `gallery`, `beside`
    and the like return. A ValueError it raises is a word to the reader. `drawn` is the picture on the pad, PIL and RGB.

    `answer(name, content)` 得到名字和图画文件的字节，返回 `table`、`gallery`、`beside` 之类的结果。它抛出的 ValueError
    是写给读者的话。`drawn` 是画板上的图，PIL，RGB。
    """

    def __init__(self, answer: Callable[[str, bytes], Output | Shown]) -> None:
        require(callable(answer), "answer 需要是函数", "answer must be a function", TypeError)
        self._answer, self._last = answer, None
        self.shown, self.canvas, self.drawn = Shown(), _canvas(), Image.new("RGB", (SIDE, SIDE), "white")
        self.upload = ipywidgets.FileUpload(accept="image/*", multiple=True, description=both("上传", "upload"),
                                            layout={"width": "auto"})
        self.upload.observe(self._uploaded, "value")
        controls = []
        if self.canvas is None:
            board = [Shown(f'<div class="mm mm-say">{bilingual(MISSING if is_live() else STILL, "div")}</div>')]
        else:
            self.colour = menu("颜色", "colour", COLOURS)
            self.width = slider("粗细", "width", 14, 2, 60, 1)
            ask = ipywidgets.Button(description=both("问它", "ask"))
            wipe = ipywidgets.Button(description=both("擦掉", "clear"))
            ask.on_click(lambda _: self.ask())
            wipe.on_click(lambda _: self.clear())
            self.canvas.on_mouse_down(self.down)
            self.canvas.on_mouse_move(self.move)
            self.canvas.on_mouse_up(self.up)
            self.canvas.on_mouse_out(self.up)
            self.canvas.on_touch_start(lambda points: self.down(*points[0]))
            self.canvas.on_touch_move(lambda points: self.move(*points[0]))
            self.canvas.on_touch_end(lambda points: self.up(0, 0))
            board = [Shown(f"<style>{STYLE}</style>"), self.canvas, self.colour, self.width]
            controls = [ask, wipe]
        row = styled(ipywidgets.HBox([*controls, self.upload]), "mm-row")
        super().__init__("pad", [*board, row, self.shown], "mm-panel")

    # The strokes are drawn twice, on the canvas that is seen and on a picture of our own: no pixel has to come back.

    def down(self, x: float, y: float) -> None:
        """落笔 / The pen comes down."""
        self._last = (x, y)
        self.move(x, y)

    def move(self, x: float, y: float) -> None:
        """拖动 / The pen moves."""
        if self._last is None:
            return
        colour, width = self.colour.value, self.width.value
        pen, (x0, y0) = ImageDraw.Draw(self.drawn), self._last
        pen.line([x0, y0, x, y], fill=colour, width=width)
        for at_x, at_y in ((x0, y0), (x, y)):
            pen.ellipse([at_x - width / 2, at_y - width / 2, at_x + width / 2, at_y + width / 2], fill=colour)
        self.canvas.stroke_style = self.canvas.fill_style = colour
        self.canvas.line_width, self.canvas.line_cap = width, "round"
        self.canvas.stroke_line(x0, y0, x, y)
        self.canvas.fill_circle(x, y, width / 2)
        self._last = (x, y)

    def up(self, x: float, y: float) -> None:
        """抬笔 / The pen is lifted."""
        self._last = None

    def clear(self) -> None:
        """擦掉 / Wipe the pad."""
        say_idle()
        self._last, self.drawn = None, Image.new("RGB", (SIDE, SIDE), "white")
        if self.canvas is not None:
            self.canvas.clear()

    def ask(self) -> None:
        """拿画板上的图去问 / Ask about what is on the pad."""
        out = io.BytesIO()
        self.drawn.save(out, "PNG")
        self._show([("", out.getvalue())])

    def _uploaded(self, change: dict) -> None:
        value = change["new"]
        files = value.values() if isinstance(value, dict) else value  # ipywidgets 7 gives a dict
        self._show([(str(file.get("name") or file["metadata"]["name"]), bytes(file["content"])) for file in files])

    def _show(self, files: list[tuple[str, bytes]]) -> None:
        say_idle()
        parts = []
        for name, content in files:
            try:
                parts.append(html_of(self._answer(name, content)))
            except ValueError as error:
                parts.append(f'<div class="mm-say">{bilingual(name)} {reason(error)}</div>')
        self.shown.value = "".join(parts)


def _canvas() -> ipywidgets.Widget | None:
    """A canvas, None where ipycanvas is not installed or nobody is there to draw."""
    if not is_live():
        return None
    try:
        from ipycanvas import Canvas
    except ImportError:
        return None
    # white by its style: what is drawn while the canvas is being made would be lost in the browser
    return styled(Canvas(width=SIDE, height=SIDE, layout={"width": f"{SIDE}px"}), "mm-pad")
