"""一个格子显示什么 / What a cell shows: text in two languages, and HTML with a text form.

nbval 逐字比较 HTML 和文字，却不比较控件。所以处处相同的是 `Output`；随机器略有不同的（图）是 `Drawn`，在格子里以控件
出现。

nbval compares HTML and text letter by letter, and widgets not at all. So what is the same everywhere is an `Output`;
what differs a little from machine to machine (a picture) is a `Drawn`, which a cell shows as a widget.
"""

import base64
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import ipywidgets

from mmcore.checks import require

Name = tuple[str, str]  # (Chinese, English)
Text = str | Name


def bilingual(text: Text, tag: str = "span") -> str:
    """（中文, English）写成 HTML；一个字符串两种语言共用 / A pair as HTML; one string serves both languages."""
    if isinstance(text, str):
        return escape(text)
    require(isinstance(text, tuple) and len(text) == 2 and all(isinstance(part, str) for part in text),
            f"需要 (中文, English) 或一个字符串，收到 {text!r}",
            f"(Chinese, English) or one string wanted, got {text!r}", TypeError)
    zh, en = map(escape, text)
    dot = '<span class="mm-dot"> · </span>' if tag == "span" else ""  # between the two; hidden with one of them
    return f'<{tag} lang="zh">{zh}{dot}</{tag}><{tag} lang="en">{en}</{tag}>'


def reason(error: Exception) -> str:
    """错误里的“中文 / English”分成两种语言 / The "Chinese / English" of an error, one for each language."""
    zh, slash, en = str(error).partition(" / ")
    return bilingual((zh, en), "div") if slash else escape(zh)


def pair(text: Text) -> Name:
    """（中文, English）；一个字符串两种语言共用 / (Chinese, English); one string serves both languages."""
    return (text, text) if isinstance(text, str) else text


def plain(text: Text) -> str:
    return text if isinstance(text, str) else f"{text[0]} / {text[1]}"


def both(zh: str, en: str) -> str:
    return zh if zh == en else f"{zh} · {en}"


def title_html(title: Text | None) -> str:
    return "" if title is None else f'<div class="mm-title">{bilingual(title)}</div>'


def data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def width(text: str) -> int:
    """占几格，汉字算两格 / How many cells wide, a Chinese character being two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def styled(widget: ipywidgets.Widget, *styles: str) -> ipywidgets.Widget:
    """同一个控件，加上这些 CSS 类 / The same widget with these classes of CSS."""
    for style in styles:
        widget.add_class(style)
    return widget


def player(wav: bytes, label: Text) -> str:
    """一段 WAV 的播放器 / The player of a WAV."""
    require(isinstance(wav, bytes) and wav[:4] == b"RIFF" and wav[8:12] == b"WAVE",
            f"声音需要是 WAV 文件的字节，收到 {type(wav).__name__}",
            f"a sound must be the bytes of a WAV file, got {type(wav).__name__}", TypeError)
    name = escape(plain(label))
    return f'<audio controls preload="metadata" aria-label="{name}" src="{data_uri(wav, "audio/wav")}"></audio>'


class Box(ipywidgets.VBox):
    """上下排列的控件，文字形式永远相同 / Widgets one below the other, with a text form that never changes."""

    def __init__(self, name: str, children: Sequence[ipywidgets.Widget], *styles: str) -> None:
        super().__init__(children)
        self._name = name
        styled(self, "mm", *styles)

    def __repr__(self) -> str:
        return f"<mmlessons.live.{self._name}>"


class Shown(ipywidgets.HTML):
    """一个控件，文字形式永远相同：nbval 比较的是文字 / A widget whose text form never changes: nbval compares text."""

    def __repr__(self) -> str:
        return "<mmlessons.live>"

    def bundle(self, text: str) -> dict[str, object]:
        """格子里存的：控件和这段文字 / What a cell holds: the widget and this text. (ipywidgets 7 gives no bundle.)"""
        view = {"version_major": 2, "version_minor": 0, "model_id": self.model_id}
        return {"application/vnd.jupyter.widget-view+json": view, "text/plain": text}


@dataclass(frozen=True)
class Output:
    """普通输出：HTML 和同样内容的文字 / Ordinary output: HTML, and text that says the same."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


@dataclass(frozen=True, repr=False)
class Drawn(Output):
    """一幅画好的图 / A picture: the HTML that shows it, and its title for text.

    The last digit of a float differs between machines, and so do a few pixels; hence a cell gets a widget, and beside
    it the PNG for readers that know no widgets, such as GitHub.
    """

    png: bytes | None = None
    _repr_html_ = None  # HTML that holds a picture would be compared byte by byte

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, object]:
        picture = {} if self.png is None else {"image/png": self.png}
        return {**Shown(self.html).bundle(self.text), **picture}


@dataclass(frozen=True)
class Folded:
    """一句话，点开看见更多 / A sentence that opens to more: the sentence is compared, what it opens to is not."""

    said: tuple[str, Name]  # a sign and a sentence
    inside: str
    text: str

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, object]:
        sign, sentence = self.said
        line = f'<span class="mm-sign">{sign}</span> {bilingual(sentence)}'
        closed = f'<div class="mm mm-note">{line}</div>'
        opens = f'<details class="mm mm-note mm-claims"><summary>{line}</summary>{self.inside}</details>'
        text = self.text or f"{sign} {plain(sentence)}"
        return {**(Shown(opens).bundle(text) if self.inside else {}), "text/html": closed, "text/plain": text}


def html_of(result: Output | Shown) -> str:
    """`Output` 或图库的 HTML / The HTML of an `Output` or of a gallery."""
    require(isinstance(result, (Output, Shown)),
            f"需要 table、note、gallery、scatter 之类的结果，收到 {type(result).__name__}",
            f"what table, note, gallery, scatter and the like return is wanted, got {type(result).__name__}", TypeError)
    return result.value if isinstance(result, Shown) else result.html
