"""滑块、开关、菜单、按钮和填字的格 / Sliders, switches, menus, buttons and fields to type in."""

import math
from collections.abc import Hashable, Mapping

import ipywidgets

from mmcore.checks import positive, require
from mmlessons.border import typed

from .output import Name, both, styled


@typed
def slider(zh: str, en: str, value: float, min: float, max: float, step: float | None = None,
           log: bool = False) -> ipywidgets.Widget:
    """一个双语滑块 / A bilingual slider.

    四个数都是整数时得到整数滑块。`log=True` 时按比例移动，`step` 是一格的十倍程数（0.05 即一格约 12%）。滑块的值总在
    它的格点上：不在格点上的值，浏览器会取整后送回，来回不止。所以线性滑块要求 value 在格点上；对数滑块则把两端移动
    不到半格，使 value 准确地落在格点上。

    Four whole numbers give a slider of whole numbers. With `log=True` it moves by ratios, and `step` is the share of a
    decade in one notch (0.05 is about 12 %). The value always lies on the slider's grid: a value off it is rounded by
    the browser and sent back, without end. So a linear slider wants `value` on its grid, and a logarithmic one moves
    its ends by less than half a notch to have `value` on it exactly.
    """
    require(min < max, f"需要 min < max，收到 {min} 和 {max}", f"min < max wanted, got {min} and {max}")
    require(min <= value <= max, f"value 需要在 {min} 与 {max} 之间，收到 {value}",
            f"value must lie between {min} and {max}, got {value}")
    if step is not None:
        positive(step, "step")
    name = both(zh, en)
    look = {"description": name, "tooltip": name, "continuous_update": True, "style": {"description_width": "initial"}}
    if log:
        positive(min, "min")
        control = _log_slider(value, min, max, step, look)
    else:
        kinds = {type(x) for x in (value, min, max, 1 if step is None else step)}
        control = _linear_slider(value, min, max, step, kinds == {int}, look)
    return styled(control, "mm-slider")


@typed
def switch(zh: str, en: str, value: bool = False) -> ipywidgets.Checkbox:
    """一个双语开关，value 为 True 或 False / A bilingual switch whose value is True or False."""
    control = ipywidgets.Checkbox(value=value, description=both(zh, en), indent=False)
    return styled(control, "mm", "mm-check")


@typed
def menu(zh: str, en: str, options: Mapping[Hashable, Name], value: Hashable = None) -> ipywidgets.Dropdown:
    """一个双语菜单 / A bilingual menu.

    `options`：值 →（中文, English），`.value` 是选中的值；`value` 默认是第一个。

    `options`: value → (Chinese, English); `.value` is the value chosen, the first unless `value` says otherwise.
    """
    value = _chosen(options, value)
    control = ipywidgets.Dropdown(options=[(both(*name), key) for key, name in options.items()], value=value,
                                  description=both(zh, en), style={"description_width": "initial"})
    return styled(control, "mm", "mm-menu")


@typed
def buttons(zh: str, en: str, options: Mapping[Hashable, Name], value: Hashable = None) -> ipywidgets.ToggleButtons:
    """一排双语按钮，点哪个就是哪个；参数同 `menu` / A row of bilingual buttons to click on; arguments as in `menu`."""
    value = _chosen(options, value)
    control = ipywidgets.ToggleButtons(
        options=[(both(*name), key) for key, name in options.items()], value=value, description=both(zh, en),
        style={"description_width": "initial", "button_width": "auto"}, layout={"width": "100%", "height": "auto"})
    return styled(control, "mm", "mm-buttons")


def _chosen(options: Mapping[Hashable, Name], value: Hashable) -> Hashable:
    """The first option unless `value` says which."""
    require(len(options) > 0 and None not in options, "options 至少需要一项，且不能有 None",
            "options needs at least one entry, and none that is None")
    value = next(iter(options)) if value is None else value
    require(value in options, f"value 需要是 {list(options)} 之一，收到 {value!r}",
            f"value must be one of {list(options)}, got {value!r}")
    return value


@typed
def field(zh: str, en: str) -> ipywidgets.Text:
    """一个填字的格，`.value` 是其中的话 / A field to type in, whose `.value` is what it says.

    按回车或离开时才算写完：半个词不是问题。

    What is typed counts once Enter is pressed or the field is left: half a word is no question.
    """
    control = ipywidgets.Text(description=both(zh, en), continuous_update=False,
                              placeholder="打字，按回车 · type, press Enter", style={"description_width": "initial"},
                              layout={"width": "min(36em, 100%)"})  # a menu is as wide as its options, this is not
    return styled(control, "mm", "mm-field")


def _log_slider(value, low, high, step, look):
    at, low, high = (math.log10(x) for x in (value, low, high))
    step = step or (high - low) / 60
    below, above = round((at - low) / step), round((high - at) / step)
    return ipywidgets.FloatLogSlider(value=value, base=10, min=at - below * step, max=at + above * step, step=step,
                                     readout_format=".3g", **look)


def _linear_slider(value, low, high, step, whole_numbers, look):
    step = step or (1 if whole_numbers else (high - low) / 100)
    notches = (value - low) / step
    require(abs(notches - round(notches)) < 1e-6,
            f"value 需要在从 {low} 起、步长 {step} 的格点上，收到 {value}",
            f"value must lie on the grid from {low} in steps of {step}, got {value}")
    if whole_numbers:
        return ipywidgets.IntSlider(value=value, min=low, max=high, step=step, readout_format="d", **look)
    digits = 0 if step >= 1 else math.ceil(-math.log10(step) - 1e-9)
    return ipywidgets.FloatSlider(value=value, min=low, max=high, step=step, readout_format=f".{digits}f", **look)
