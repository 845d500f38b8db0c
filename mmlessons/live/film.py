"""会动的画面：在页面里播放的短片，和摊开的帧 / Moving pictures: a clip that plays in the page, and its frames laid out.

短片是一幅会动的 PNG（APNG），不用扩展、不用网络，留在保存的笔记本里；它一遍遍地放，每遍之间停一停，好认出哪里是开头。
声音是另外一个播放器：页面里没有程序让两者同步，要看声音与画面怎样对上，看 `strip`。

A clip is a moving PNG (APNG), which needs no extension and no network and stays in the saved notebook; it plays again
and again and rests in between, so that one knows where it begins. The sound is a player of its own: no program in the
page keeps the two together; `strip` shows how they go together.
"""

import io
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from mmcore.checks import positive, require
from mmlessons.border import typed

from .axes import encode
from .figure import numbers
from .output import Drawn, Text, bilingual, data_uri, plain, player

REST = 0.9  # seconds for which the last frame stays
WIDTH = 720  # pixels of a strip


@typed
def film(frames: Any, label: Text, seconds: float, sound: bytes | None = None) -> Drawn:
    """一段短片，每帧一样长，一遍遍地放 / A clip whose frames last equally long and which plays again and again.

    `frames`: uint8 (T, 3, h, w). `seconds` is the length of the clip, the rest at its end not counted; `sound` is the
    bytes of a WAV file.

    `frames`: uint8 (T, 3, h, w)。`seconds` 是整段的长度，不算最后的停顿；`sound` 是 WAV 文件的字节。
    """
    pages = [Image.fromarray(page) for page in _pages(frames)]
    require(positive(seconds, "seconds") <= 600, "seconds 至多 600", "seconds may be at most 600")
    each = 1000 * seconds / len(pages)
    png = _moving(pages, [each] * (len(pages) - 1) + [each + 1000 * REST])
    heard = "" if sound is None else player(sound, label)
    html = (f'<div class="mm mm-film" style="width:max-content;max-width:100%"><div class="mm-title">'
            f"{bilingual(label)}</div>{_image(png, plain(label), 160, 160)}"
            f'<div style="max-width:220px">{heard}</div></div>')
    return Drawn(html, plain(label), png)


@typed
def strip(frames: Any, label: Text, names: Sequence[str] | None = None, below: Any = None) -> Drawn:
    """各帧排成一行，下面可以对齐一幅声音的图 / The frames in a row; below, aligned, a picture of the sound.

    `frames`: uint8 (T, 3, h, w)；`names` 是每帧的名字，默认 1 到 T；`below` 是 (R, C)，0 到 1，从左到右的时间与各帧
    相同，第一行在最下面，越大越深。

    `frames`: uint8 (T, 3, h, w); `names` names the frames, 1 to T by default; `below` is (R, C) from 0 to 1, whose
    time runs from left to right as that of the frames does; its first row is lowest, and more is darker.
    """
    pages = _pages(frames)
    names = [str(t + 1) for t in range(len(pages))] if names is None else list(names)
    require(len(names) == len(pages), f"{len(pages)} 帧需要 {len(pages)} 个名字，收到 {len(names)}",
            f"{len(pages)} frames need {len(pages)} names, got {len(names)}")
    gap = np.full((pages.shape[1], 1, 3), 255, np.uint8)
    row = np.concatenate([part for page in pages for part in (page, gap)], 1)  # (h, T (w + 1), 3)
    png = encode(row)
    head = "".join(f"<span>{escape(name)}</span>" for name in names)
    parts = [f'<div class="mm-title">{bilingual(label)}</div>',
             f'<div aria-hidden="true" style="display:grid;grid-template-columns:repeat({len(pages)},1fr);'
             f'text-align:center;font-size:80%;max-width:{WIDTH}px">{head}</div>',
             _image(png, f"{plain(label)} ({', '.join(names)})", WIDTH, round(WIDTH * row.shape[0] / row.shape[1]))]
    if below is not None:
        shades = numbers(below, "below")
        require(shades.ndim == 2 and shades.size > 0, f"below 需要是二维的，收到形状 {shades.shape}",
                f"below must have two dimensions, got shape {shades.shape}")
        grey = (255 * (1 - shades[::-1].clip(0, 1))).round().astype(np.uint8)
        parts.append(_image(encode(grey), "声音 / sound", WIDTH, WIDTH // 9))
    return Drawn(f'<div class="mm mm-strip">{"".join(parts)}</div>', plain(label), png)


def _pages(frames: Any) -> np.ndarray:
    x = np.asarray(frames)
    require(x.dtype == np.uint8,
            f"frames 需要 uint8，收到 {x.dtype}", f"frames must be uint8, got {x.dtype}", TypeError)
    require(x.ndim == 4 and x.shape[1] == 3 and x.size > 0, f"frames 需要形状 (T, 3, h, w)，收到 {x.shape}",
            f"frames must have shape (T, 3, h, w), got {x.shape}")
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def _moving(pages: Sequence[Image.Image], milliseconds: Sequence[float]) -> bytes:
    out = io.BytesIO()
    pages[0].save(out, "PNG", save_all=True, append_images=list(pages[1:]), loop=0,
                  duration=[round(ms) for ms in milliseconds])  # frames that are alike are kept as one, for longer
    return out.getvalue()


def _image(png: bytes, alt: str, width: int, height: int) -> str:
    return (f'<img alt="{escape(alt)}" width="{width}" height="{height}" decoding="sync" style="display:block;'
            f'aspect-ratio:{width}/{height};height:auto;image-rendering:pixelated;max-width:100%;border-radius:6px" '
            f'src="{data_uri(png, "image/png")}">')
