"""读一幅图画，谁给的都不怕 / Read one picture, whoever gave it.

Only the formats below are tried, so that no other program is started, and the size is known before anything is decoded.

只试下面几种格式，所以不会启动别的程序；先知道大小，再解码。
"""

import hashlib
import io
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms.functional import pil_to_tensor

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF")
SUFFIXES = {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".gif", ".webp", ".bmp", ".tif", ".tiff"}
OTHERS = {".heic", ".heif", ".avif", ".svg", ".psd", ".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".eps", ".ico",
          ".jp2", ".jxl", ".tga", ".pdf"}  # pictures that we do not read, and say so
PIXELS = 100_000_000
ORIENTATION = 0x0112  # the tag of EXIF


class Unreadable(Exception):
    """读不出来：哪一种，知道些什么 / It cannot be read: the kind of problem, and what is known of it."""

    def __init__(self, kind: str, **known: Any):
        super().__init__(kind)
        self.kind, self.known = kind, known


def read(what: Path | bytes) -> tuple[Image.Image, dict[str, dict]]:
    """直立的 RGB 图画，白底，以及改了什么 / The picture in RGB, upright, on white, and what was changed.

    `what` is where the picture is, or what the file holds. `what` 是图画在哪里，或文件的内容。

    Raises Unreadable, whatever is wrong with the file.
    """
    try:
        with io.BytesIO(what) if isinstance(what, bytes) else what.open("rb") as file:
            if not file.read(1):
                raise Unreadable("empty_file")
            with Image.open(file, formats=FORMATS) as image:
                if math.prod(image.size) > PIXELS:
                    raise Unreadable("too_large", pixels=f"{math.prod(image.size):,}")
                return _colours(image)
    except (Unreadable, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # Pillow's own limit
        raise Unreadable("too_large", pixels=f"{int(re.search(r'[0-9]+', str(error))[0]):,}") from None
    except UnidentifiedImageError:
        raise Unreadable("not_a_picture") from None
    except OSError as error:
        if error.errno:
            raise Unreadable("unreadable", why=error.strerror) from None
        raise Unreadable("broken") from None
    except Exception:  # of what kind depends on where in the file the damage is
        raise Unreadable("broken") from None


def prepare(image: Image.Image, size: int | None, transform: Callable | None) -> Any:
    """给模型的样子 / As a model gets it: what `transform` makes of it, or (3, H, W) uint8 of this size or its own."""
    if transform is not None:
        return transform(image)
    if size is not None:
        image = ImageOps.pad(image, (size, size), Image.Resampling.BICUBIC, color="white")
    return pil_to_tensor(image)


def digest(image: Image.Image) -> int:
    """像素的 64 位摘要 / 64 bits for the pixels: two of 300,000 agree by chance in one of 400 million folders."""
    said = hashlib.blake2b(repr(image.size).encode() + image.tobytes(), digest_size=8)
    return int.from_bytes(said.digest(), "little")


def _colours(image: Image.Image) -> tuple[Image.Image, dict[str, dict]]:
    changed: dict[str, dict] = {}
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO: a photograph with a small one behind it
        changed["first_frame"] = {"frames": image.n_frames}
    image.load()
    try:
        turned = image.getexif().get(ORIENTATION, 1) in range(2, 9)
        upright = ImageOps.exif_transpose(image) if turned else image
    except Exception:  # the picture is good, what its camera noted is not
        turned, upright = False, image
    kinds = {"CMYK": "cmyk", "P": "palette", "PA": "palette"}
    if upright.mode.startswith("I;16"):
        changed["sixteen_bit"] = {}
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    elif upright.mode in ("I", "F"):
        raise Unreadable("not_colours")
    elif upright.mode in kinds:
        changed[kinds[upright.mode]] = {}
    if turned:
        changed["turned"] = {}
    if upright.has_transparency_data:
        upright = upright.convert("RGBA")
        white = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(white, upright)
    return upright.convert("RGB"), changed
