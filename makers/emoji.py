"""重做表情数据 / Make the emoji data again.

Draws every atlas from public npm packages and writes the table of concepts, the manifest and the licence texts.

从公开的 npm 包画出全部图集，并写出概念表、清单与许可证文本。

    npm install --no-save @iconify-json/noto@1.2.9 @iconify-json/noto-v1@1.2.5 \
        @iconify-json/fluent-emoji-flat@1.2.6 @iconify-json/fxemoji@1.2.2 @iconify-json/emojione@1.2.3 \
        @iconify-json/emojione-v1@1.2.3 @iconify-json/twemoji@1.2.5 @iconify-json/openmoji@1.2.29 \
        emojibase-data@17.0.0 cldr-annotations-full@48.2.0 spdx-license-list@6.12.0
    pip install resvg-py==0.5.0
    python -m makers.emoji node_modules
"""

import argparse
import io
import itertools
import json
import re
import unicodedata
from functools import cached_property
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from mmlessons.data import files
from mmlessons.data.emoji import ASSETS, VERSION

SIZE, COLUMNS = 32, 32
EVERYDAY = {"animals-nature", "food-drink", "travel-places", "activities", "objects"}
ARTISTS = {  # id: (npm package, title, role); the order is the order of the pictures on every page
    "noto": ("noto", "Noto Emoji", "train"),
    "noto-v1": ("noto-v1", "Noto Emoji 1 (blobs)", "train"),
    "fluent": ("fluent-emoji-flat", "Fluent Emoji flat", "train"),
    "emojione": ("emojione", "EmojiOne 2", "train"),
    "emojione-v1": ("emojione-v1", "EmojiOne 1", "train"),
    "fxemoji": ("fxemoji", "FxEmojis", "validation"),
    "twemoji": ("twemoji", "Twemoji", "test"),
    "openmoji": ("openmoji", "OpenMoji", "shift"),
}
REQUIRED = ("noto", "noto-v1", "fluent", "twemoji")  # a concept that one of these did not draw is left out


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def bare(hexcode: str) -> str:
    """无变体选择符的码位 / The code points without the variation selector."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f")


def slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return "-".join(re.findall("[a-z0-9]+", plain))


class Drawings:
    """一位作者的全部图画 / All drawings of one artist."""

    def __init__(self, package: Path):
        self.icons = read(package / "icons.json")
        self.names = {bare(code): name for code, name in read(package / "chars.json").items()}
        self.info = read(package / "info.json")
        self.version = read(package / "package.json")["version"]

    @cached_property
    def known(self) -> set[str]:
        return self.icons["icons"].keys() | self.icons.get("aliases", {}).keys()

    def find(self, code: str, synonyms: list[str]) -> str | None:
        """按码位，没有码位表就按名字 / By code point or, without a table of them, by name."""
        if self.names:
            return self.names.get(code)
        # FxEmojis writes words together, and in another order
        joined = ("".join(p) for s in synonyms if s.count("-") < 5 for p in itertools.permutations(s.split("-")))
        return next((name for name in itertools.chain(synonyms, joined) if name in self.known), None)

    def picture(self, name: str) -> np.ndarray:
        """画在白底上，缩到 32 × 32 / Drawn on white, scaled to 32 × 32."""
        icon = self.icons["icons"].get(name)
        if icon is None:
            alias = self.icons["aliases"][name]
            icon = {**self.icons["icons"][alias["parent"]], **alias}
        left, top, width, height = (icon.get(k, self.icons.get(k, d))
                                    for k, d in (("left", 0), ("top", 0), ("width", 16), ("height", 16)))
        svg = (f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
               f'viewBox="{left} {top} {width} {height}" width="128" height="128">{icon["body"]}</svg>')
        drawn = Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg, width=128, height=128))))
        page = Image.new("RGBA", (128, 128), "white")
        page.alpha_composite(drawn.convert("RGBA"))
        return np.asarray(page.convert("RGB").resize((SIZE, SIZE), Image.Resampling.LANCZOS))


def candidates(npm: Path) -> list[dict]:
    """所有可能的概念，按 Unicode 的次序 / Every possible concept, in the order of Unicode."""
    data = npm / "emojibase-data"
    groups = read(data / "meta" / "groups.json")
    cldr = npm / "cldr-annotations-full" / "annotations"
    words = {lang: read(cldr / lang / "annotations.json")["annotations"]["annotations"] for lang in ("en", "zh")}
    found = []
    for entry in sorted(read(data / "en" / "data.json"), key=lambda e: e.get("order", 0)):
        code = bare(entry["hexcode"])
        char = "".join(chr(int(part, 16)) for part in code.split("-"))
        if "group" not in entry or any(char not in words[lang] for lang in words):
            continue
        group, subgroup = groups["groups"][str(entry["group"])], groups["subgroups"][str(entry["subgroup"])]
        if group in ("component", "flags", "symbols") or "o’clock" in entry["label"] or "-thirty" in entry["label"]:
            continue
        names = {lang: words[lang][char]["tts"][0] for lang in words}
        keywords = {lang: [w for w in words[lang][char]["default"] if w != names[lang]] for lang in words}
        found.append({"code": code, "char": char, "group": group, "subgroup": subgroup, "label": entry["label"],
                      "names": names, "keywords": keywords})
    return found


def drawn_by(entry: dict, drawings: dict[str, Drawings]) -> dict[str, str]:
    """作者 → 图标名 / Artist → name of the icon."""
    synonyms = [slug(entry["label"]), slug(entry["names"]["en"])]
    if len(entry["char"]) == 1:
        synonyms.append(slug(unicodedata.name(entry["char"], "")))
    synonyms += sorted({d.names[entry["code"]] for d in drawings.values() if entry["code"] in d.names})
    icons = {artist: d.find(entry["code"], synonyms) for artist, d in drawings.items()}
    return {artist: icon for artist, icon in icons.items() if icon}


def choose_subsets(concepts: list[dict]) -> None:
    """名字最短的 320 个日常概念：每第五个留出，其余 256 个进课堂 / The 320 everyday concepts with the shortest names:
    every fifth is held out, the other 256 are the classroom's."""
    def length(c: dict) -> int:
        return len(c["names"]["en"].split()) + len(c["names"]["zh"])
    everyday = [c for c in concepts if c["group"] in EVERYDAY and len(c["drawn_by"]) == len(ARTISTS)]
    for place, concept in enumerate(sorted(everyday, key=length)[:320]):
        concept["subset"] = "held-out" if place % 5 == 4 else "classroom"


def atlas(concepts: list[dict], artist: str, drawings: Drawings) -> bytes:
    rows = -(-len(concepts) // COLUMNS)
    page = np.full((rows * SIZE, COLUMNS * SIZE, 3), 255, np.uint8)
    for place, concept in enumerate(concepts):
        if artist in concept["icons"]:
            y, x = SIZE * (place // COLUMNS), SIZE * (place % COLUMNS)
            page[y:y + SIZE, x:x + SIZE] = drawings.picture(concept["icons"][artist])
    out = io.BytesIO()
    Image.fromarray(page).quantize(256, dither=Image.Dither.NONE).save(out, "PNG", optimize=True)
    return out.getvalue()


def main(npm: Path) -> None:
    drawings = {artist: Drawings(npm / "@iconify-json" / package) for artist, (package, _, _) in ARTISTS.items()}
    concepts, taken = [], set()
    for entry in candidates(npm):
        entry["icons"] = drawn_by(entry, drawings)
        entry["drawn_by"] = list(entry["icons"])
        spoken = set(entry["names"].values())
        if set(REQUIRED) <= set(entry["icons"]) and not spoken & taken:
            taken |= spoken
            concepts.append(entry)
    choose_subsets(concepts)

    content, artists = {}, {}
    for artist, (package, title, role) in ARTISTS.items():
        content[f"{artist}.png"] = atlas(concepts, artist, drawings[artist])
        d = drawings[artist]
        artists[artist] = {"title": title, "role": role, "author": d.info["author"]["name"],
                           "license": d.info["license"]["spdx"], "package": f"@iconify-json/{package} {d.version}"}
    keys = ("code", "char", "group", "subgroup", "subset", "names", "keywords", "drawn_by")
    lines = (json.dumps({k: c[k] for k in keys if k in c}, ensure_ascii=False) for c in concepts)
    content["concepts.json"] = ("[\n" + ",\n".join(lines) + "\n]\n").encode()
    licences = {"licenses/MIT-emojibase.txt": (npm / "emojibase-data" / "LICENSE").read_bytes()}
    texts = read(npm / "spdx-license-list" / "spdx-full.json")
    for spdx in sorted({a["license"] for a in artists.values()} | {"Unicode-3.0"}):
        text = texts[spdx]["licenseText"].replace("<year> <copyright holders>", "Microsoft Corporation")  # the MIT set
        licences[f"licenses/{spdx}.txt"] = text.strip().encode() + b"\n"
    files.write(ASSETS, {"version": VERSION, "size": SIZE, "columns": COLUMNS, "artists": artists}, content, licences)
    print({s: sum(c.get("subset") == s for c in concepts) for s in ("classroom", "held-out", None)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="draw the emoji data again")
    parser.add_argument("packages", type=Path, help="the folder node_modules with the packages named above")
    main(parser.parse_args().packages)
