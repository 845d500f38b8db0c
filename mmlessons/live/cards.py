"""卡片、搜索框、表格和句子 / Cards, a search box, tables and sentences.

凡是一对（中文, English），都写成带 lang 的 HTML，语言切换对它有效。图库和搜索框是控件（各机器的结果可以不同，nbval
不比较它们）；表格和句子是普通输出，应当处处相同。

Every pair (Chinese, English) becomes HTML with lang, so that the language switch acts on it. Galleries and search boxes
are widgets (their results may differ from machine to machine, nbval does not compare them); tables and sentences are
ordinary output and ought to be the same everywhere.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets
import numpy as np
from PIL import Image

from mmcore.checks import require, shape_of, whole
from mmlessons.border import typed
from mmlessons.intervals import Interval

from .kernel import hand_over, is_live, running_loop, say_idle
from .output import Box, Output, Shown, Text, bilingual, data_uri, plain, player, reason, styled, title_html, width

PAUSE = 0.25  # seconds without a letter before a search answers


# -- cards ------------------------------------------------------------------------------------------------------------

@typed
@dataclass(frozen=True)
class Card:
    """一张卡片 / A card: a picture, what is written under it, whether it is right, and how it sounds.

    `picture`：uint8 的张量或数组，(3, h, w)、(h, w, 3) 或 (h, w)；None 表示只有文字。`mark`：True 画 ✓，False 画 ✗。
    `alt` 是给看不见图的人的话，默认用 caption。`sound`：WAV 文件的字节，卡片上会有播放器。

    `picture`: a tensor or array of uint8, (3, h, w), (h, w, 3) or (h, w); None for text alone. `mark`: True shows ✓,
    False shows ✗. `alt` is for those who do not see the picture, the caption by default. `sound`: the bytes of a WAV
    file, for which the card gets a player.
    """

    picture: Any = None
    caption: Text | None = None
    mark: bool | None = None
    alt: Text | None = None
    sound: bytes | None = None

    def __post_init__(self) -> None:
        require(any(part is not None for part in (self.picture, self.caption, self.sound)),
                "卡片需要图片、文字或声音", "a card needs a picture or a caption or a sound")
        if self.picture is not None:
            _pixels(self.picture)
        if self.sound is not None:
            player(self.sound, "")

    def html(self) -> str:
        parts, kind = [], ""
        if self.mark is not None:
            kind, sign, said = (" mm-good", "✓", "正确 / right") if self.mark else (" mm-bad", "✗", "错误 / wrong")
            parts.append(f'<span class="mm-mark" aria-hidden="true">{sign}</span>'
                         f'<span class="mm-unseen">{said}</span>')
        if self.picture is not None:
            out = io.BytesIO()
            Image.fromarray(_pixels(self.picture)).save(out, "PNG")
            alt = escape(plain(self.alt or self.caption or ("图片", "picture")))
            parts.append(f'<img alt="{alt}" src="{data_uri(out.getvalue(), "image/png")}">')
        if self.caption is not None:
            parts.append(f'<div class="mm-caption">{bilingual(self.caption)}</div>')
        if self.sound is not None:
            parts.append(player(self.sound, self.caption or self.alt or ("声音", "sound")))
        return f'<div class="mm-card{kind}" role="listitem">{"".join(parts)}</div>'


def _pixels(picture: Any) -> np.ndarray:
    x = np.asarray(picture)
    require(x.dtype == np.uint8,
            f"图片需要 uint8，收到 {x.dtype}", f"a picture must be uint8, got {x.dtype}", TypeError)
    colour = x.ndim == 3 and 3 in (x.shape[0], x.shape[2])
    require((colour or x.ndim == 2) and x.size > 0,
            f"图片需要形状 (3, h, w)、(h, w, 3) 或 (h, w)，收到 {shape_of(x)}",
            f"a picture must have shape (3, h, w), (h, w, 3) or (h, w), got {shape_of(x)}")
    return np.ascontiguousarray(x.transpose(1, 2, 0) if colour and x.shape[0] == 3 else x)


def _cards_html(cards: Sequence[Card], size: int, columns: int | None) -> str:
    for card in cards:
        require(isinstance(card, Card),
                f"需要 Card，收到 {type(card).__name__}", f"a Card wanted, got {type(card).__name__}", TypeError)
    whole(size, "size", 16)
    style = f"--mm-size:{size}px"
    if columns is not None:
        whole(columns, "columns")
        style += f";--mm-columns:{columns}"
    return f'<div class="mm-cards" role="list" style="{style}">{"".join(card.html() for card in cards)}</div>'


@typed
def gallery(cards: Sequence[Card], columns: int | None = None, title: Text | None = None, size: int = 72) -> Shown:
    """一组卡片，放不下就换行 / Cards in a row that wraps, or in so many columns."""
    return Shown(f'<div class="mm">{title_html(title)}{_cards_html(cards, size, columns)}</div>')


# -- search -----------------------------------------------------------------------------------------------------------

@typed
class search_box(Box):
    """边打字边回答的搜索框 / A search box that answers as one types.

    `search(text)` 返回卡片的列表，或一个控件。它抛出的 ValueError 是写给读者的话，照样显示，原来的结果留着；其他异常也
    显示，但标明是错误。搜索在内核的循环上进行，所以绝不与训练同时碰模型。

    `search(text)` returns a list of cards or a widget. A ValueError it raises is a word to the reader: it is shown, and
    the result before it stays; any other exception is shown too, marked as an error. The search runs on the kernel's
    loop, so that it never touches a model at the same time as the training does.
    """

    def __init__(self, zh: str, en: str, search: Callable[[str], Any], examples: Sequence[str] = ()) -> None:
        require(callable(search), "search 需要是函数", "search must be a function", TypeError)
        self._search, self._asked = search, None
        self._loop = running_loop() if is_live() else None
        name = f"{zh} · {en}"
        self.box = ipywidgets.Text(description=name, continuous_update=True, style={"description_width": "initial"},
                                   placeholder="输入文字 · type here")
        self.box.observe(self._typed, "value")
        buttons = [ipywidgets.Button(description=text) for text in examples]
        for button in buttons:
            button.on_click(self._use_example)
        self.message, self.cards, self.answer = ipywidgets.HTML(), Shown(), ipywidgets.VBox()
        row = styled(ipywidgets.HBox(buttons), "mm-row")
        super().__init__("search_box", [self.box, row, self.message, self.answer], "mm-panel", "mm-search")
        if examples:
            self.box.value = examples[0]

    def _use_example(self, button: ipywidgets.Button) -> None:
        say_idle()
        self.box.value = button.description

    def _typed(self, change: dict) -> None:
        say_idle()
        self._asked = text = change["new"]
        if self._loop is None:
            self._answer(text)
        else:  # half a word is no question: wait until the typing pauses
            hand_over(self._loop, lambda: self._loop.call_later(PAUSE, self._answer, text))

    def _answer(self, text: str) -> None:
        if text != self._asked:  # more has been typed since
            return
        try:
            found = self._search(text)
            html = None if isinstance(found, ipywidgets.Widget) else _cards_html(found, 72, None)
        except ValueError as error:
            self.message.value = f'<div class="mm-say">{reason(error)}</div>'
            self.answer.add_class("mm-stale")  # what is still shown answers an earlier question
        except Exception as error:
            self.message.value = (f'<div class="mm-say mm-error">{bilingual(("搜索出错", "The search failed"))}'
                                  f"<pre>{escape(f'{type(error).__name__}: {error}')}</pre></div>")
        else:
            self.message.value = ""
            self.answer.remove_class("mm-stale")
            if html is None:
                self.answer.children = (found,)
            else:
                self.cards.value, self.answer.children = html, (self.cards,)


# -- tables and sentences ---------------------------------------------------------------------------------------------

@typed
def table(header: Sequence[Text], rows: Sequence[Sequence[Text | float | Interval | Sequence[float]]],
          title: Text | None = None, digits: int | Sequence[int] = 2) -> Output:
    """双语的小表格 / A small bilingual table.

    A cell is a string, (Chinese, English), a number, an `Interval`, shown as value [low, high], or several numbers
    (over seeds, say; a list or a tensor of one dimension), shown as lowest – highest; fractions are shown to `digits`
    places, one number for all columns or one for each. A column of numbers is aligned right.

    单元格是字符串、（中文, English）、数，`Interval`（写成 数 [低, 高]），或几个数（例如几个种子；列表或一维张量，写成
    “最低 – 最高”）。小数保留 digits 位，各栏相同或一栏一个。一列全是数时靠右对齐。
    """
    for row in rows:
        require(len(row) == len(header), f"每行需要 {len(header)} 格，收到 {len(row)}",
                f"each row needs {len(header)} cells, got {len(row)}")
    number = [bool(rows) and all(_is_number(row[k]) for row in rows) for k in range(len(header))]
    places = [digits] * len(header) if isinstance(digits, int) else digits
    require(len(places) == len(header), f"digits 需要 {len(header)} 个数，收到 {len(places)}",
            f"digits must be {len(header)} numbers, got {len(places)}")
    for place in places:
        whole(place, "digits", 0)
    body = [[_cell(x, d) for x, d in zip(row, places, strict=True)] for row in rows]

    def line(cells: Sequence[Text], tag: str) -> str:
        kinds = [' class="mm-number"' if right else "" for right in number]
        filled = (f"<{tag}{kind}>{bilingual(x)}</{tag}>" for kind, x in zip(kinds, cells, strict=True))
        return f"<tr>{''.join(filled)}</tr>"

    caption = "" if title is None else f"<caption>{bilingual(title)}</caption>"
    html = ('<div class="mm mm-scroll" tabindex="0"><table class="mm-table">'
            f'{caption}<thead>{line(header, "th")}</thead>'
            f'<tbody>{"".join(line(row, "td") for row in body)}</tbody></table></div>')
    lines = [[plain(x) for x in row] for row in [list(header), *body]]
    widths = [max(width(row[k]) for row in lines) for k in range(len(header))]
    text = "\n".join("  ".join(_pad(x, w, right) for x, w, right in zip(row, widths, number, strict=True)).rstrip()
                     for row in lines)
    return Output(html, text if title is None else f"{plain(title)}\n{text}")


@typed
def note(zh: str, en: str) -> Output:
    """一句双语的话 / A bilingual sentence."""
    return Output(f'<div class="mm mm-note">{bilingual((zh, en), "div")}</div>', f"{zh} / {en}")


def _is_number(x: object) -> bool:
    return isinstance(x, (int, float, np.number, Interval)) and not isinstance(x, bool)


def _cell(x: Text | float, digits: int) -> Text:
    if hasattr(x, "tolist"):
        x = x.tolist()
    if isinstance(x, list):
        require(len(x) > 0, "一格里的几个数是空的", "a cell of several numbers is empty")
        return " – ".join(_cell(end, digits) for end in (min(x), max(x))).replace("-", "−")
    if isinstance(x, Interval):
        return f"{_cell(x.value, digits)} [{_cell(x.low, digits)}, {_cell(x.high, digits)}]".replace("-", "−")
    if not _is_number(x):
        return x if isinstance(x, tuple) else str(x)
    return str(x) if isinstance(x, (int, np.integer)) else f"{round(float(x), digits) + 0.0:.{digits}f}"  # no "-0.00"


def _pad(text: str, cells: int, right: bool) -> str:
    space = " " * (cells - width(text))
    return space + text if right else text + space
