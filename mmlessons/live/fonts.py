"""图里的中文 / Chinese in figures.

matplotlib 自带的字体没有汉字，图里会出现空方框。这里带着 Noto Sans SC 的一个子集（许可证 `assets/OFL.txt`），
登记之后任何图都能显示中文；希腊字母和数学仍由 DejaVu Sans 画。

The fonts of matplotlib have no Chinese characters: a figure would show empty boxes. A subset of Noto Sans SC comes
with the package (licence in `assets/OFL.txt`); once registered, every figure shows Chinese, and DejaVu Sans goes on
drawing Greek letters and mathematics. `makers/font.py` makes the subset.
"""

from pathlib import Path

FAMILY = "MM Sans SC"
FILE = Path(__file__).with_name("assets") / "MMSansSC.ttf"


def use_chinese() -> None:
    """让 matplotlib 用课程的字体；可以重复调用 / Let matplotlib use the font of the lessons; may be called again."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    if FAMILY not in fontManager.get_font_names():
        fontManager.addfont(FILE)
    # ours must come first: the other way round a title with mathematics in it shows boxes for Chinese
    matplotlib.rcParams["font.family"] = [FAMILY, "DejaVu Sans"]
