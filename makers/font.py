"""从 npm 包做出课程用的中文字体 / Make the Chinese font of the lessons from an npm package.

    npm install @fontsource/noto-sans-sc
    python -m makers.font node_modules/@fontsource/noto-sans-sc

包里的字体按字分成一百来个小文件。这里从每个文件取出要用的字，合成一个 TTF，改名（OFL 允许修改），许可证放在旁边。

The package splits the font into about a hundred small files. This takes the characters needed from each, merges
them into one TTF under a name of its own (the OFL allows changes), and puts the licence beside it.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from fontTools.merge import Merger
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

from mmlessons.live.fonts import FAMILY, FILE

ASCII = "".join(map(chr, range(32, 127)))
# not the middle dot: in a Chinese font it is as wide as a character, and the figures put one between two languages
SIGNS = "−×÷±°²³≈≠≤≥√∞∑∏∈∝→←↑↓✓—–…‘’“”、。〈〉《》「」【】！（），：；？～％"


def common_characters() -> str:
    """GB2312 一级汉字，3755 个 / The 3 755 characters of GB2312 level 1, which are the common ones."""
    rows = ((high, low) for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF))
    return b"".join(bytes(pair) for pair in rows).decode("gb2312", errors="ignore")[:3755]


def build(package: Path, target: Path = FILE) -> None:
    wanted = set(map(ord, ASCII + SIGNS + common_characters()))
    options = Options(hinting=False, layout_features=[], notdef_outline=True, name_IDs=[1, 2], drop_tables=["STAT"])
    with tempfile.TemporaryDirectory() as folder:
        parts = []
        # the file named "latin" first: punctuation that several files share is taken from there
        for source in sorted(package.glob("files/*-400-normal.woff2"), key=lambda f: ("-latin-400" not in f.name, f)):
            font = TTFont(source)
            made = font["head"].created
            take = wanted & font.getBestCmap().keys()
            if take:
                wanted -= take
                subsetter = Subsetter(options)
                subsetter.populate(unicodes=take)
                subsetter.subset(font)
                font.flavor = None
                parts.append(f"{folder}/{len(parts)}.ttf")
                font.save(parts[-1])
        whole = Merger().merge(parts)
    for record in whole["name"].names:
        record.string = {1: FAMILY, 2: "Regular"}[record.nameID]
    for number, text in {4: FAMILY, 6: FAMILY.replace(" ", "")}.items():
        whole["name"].setName(text, number, 3, 1, 0x409)
    whole["head"].created = whole["head"].modified = made  # the same input gives the same bytes
    whole.recalcTimestamp = False
    target.parent.mkdir(exist_ok=True)
    whole.save(target)
    shutil.copy(package / "LICENSE", target.with_name("OFL.txt"))
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB, {len(whole.getBestCmap())} characters;",
          "not in the package:", "".join(map(chr, sorted(wanted))) or "none")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="build the Chinese font of the lessons")
    parser.add_argument("package", type=Path, help="the folder of @fontsource/noto-sans-sc")
    build(parser.parse_args().package)
