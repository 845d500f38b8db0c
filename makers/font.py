"""从 npm 包做出课程用的中文字体 / Make the Chinese font of the lessons from an npm package.

    npm install --no-save @fontsource/noto-sans-sc
    pip install "fonttools>=4.60"
    python -m makers.font node_modules/@fontsource/noto-sans-sc

包里的字体按字分成一百来个小文件，没有一个装得下全部，所以先用 `pyftmerge` 合起来，再用 `pyftsubset` 取出要用的字，
改名（OFL 允许修改），许可证放在旁边。

The package splits the font into about a hundred files and none of them has every character. So `pyftmerge` joins them,
`pyftsubset` takes the characters that the lessons need, and the result gets a name of its own (the OFL allows changes)
with the licence beside it.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from fontTools import merge, subset
from fontTools.ttLib import TTFont

from mmlessons.live.fonts import FAMILY, FILE

ASCII = "".join(map(chr, range(32, 127)))
# not the middle dot: in a Chinese font it is as wide as a character, and the figures put one between two languages
SIGNS = "−×÷±°²³≈≠≤≥√∞∑∏∈∝→←↑↓✓—–…‘’“”、。〈〉《》「」【】！（），：；？～％"
UNUSED = "GSUB,GPOS,GDEF,BASE,STAT,VORG,vhea,vmtx"  # layout that the figures do without


def common_characters() -> str:
    """GB2312 一级汉字，3755 个 / The 3,755 characters of GB2312 level 1, which are the common ones."""
    rows = ((high, low) for high in range(0xB0, 0xD8) for low in range(0xA1, 0xFF))
    return b"".join(bytes(pair) for pair in rows).decode("gb2312", errors="ignore")[:3755]


def build(package: Path, target: Path = FILE) -> None:
    # a character that several files share is taken from the first of them
    parts = [str(path) for which in ("latin", "chinese-simplified", "[0-9]*")
             for path in sorted(package.glob(f"files/noto-sans-sc-{which}-400-normal.woff"))]
    with tempfile.TemporaryDirectory() as folder:
        whole = f"{folder}/whole.ttf"
        merge.main([*parts, f"--output-file={whole}"])
        subset.main([whole, f"--text={ASCII + SIGNS + common_characters()}", "--no-hinting", "--notdef-outline",
                     f"--drop-tables+={UNUSED}", "--name-IDs=1,2", "--no-recalc-timestamp", f"--output-file={target}"])
    font = TTFont(target, recalcTimestamp=False)
    font["head"].created = font["head"].modified = TTFont(parts[0])["head"].created  # the same input, the same bytes
    for number, text in {1: FAMILY, 2: "Regular", 4: FAMILY, 6: FAMILY.replace(" ", "")}.items():
        font["name"].setName(text, number, 3, 1, 0x409)
    font.save(target)
    shutil.copy(package / "LICENSE", target.with_name("OFL.txt"))
    print(f"{target.name}: {target.stat().st_size / 1e6:.2f} MB, {len(font.getBestCmap())} characters")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="build the Chinese font of the lessons")
    parser.add_argument("package", type=Path, help="the folder of @fontsource/noto-sans-sc")
    build(parser.parse_args().package)
