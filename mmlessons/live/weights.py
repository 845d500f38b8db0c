"""和恒为 1 的权重 / Weights whose sum is always 1.

权重是整数个百分之一，和恰为 100，所以总在滑块的格点上：不在格点上的值，浏览器会取整后送回，来回不止。

Weights are whole hundredths that sum to 100 exactly, so that they lie on the grid of their sliders: a value off it is
rounded by the browser and sent back, without end.
"""

import math
import threading
from collections.abc import Mapping, Sequence

import ipywidgets
import traitlets

from mmcore.checks import require
from mmlessons.border import typed

from .axes import COLOURS, STYLES
from .bars import shade, stacked
from .kernel import say_idle
from .output import Box, Name, Shown, both, styled

WHOLE = 100


def apportion(total: int, parts: Sequence[float]) -> list[int]:
    """按比例分成整数 / Whole numbers in proportion that sum to `total` (largest remainder); all parts 0: equal ones."""
    if not sum(parts):
        parts = [1] * len(parts)
    exact = [total * part / sum(parts) for part in parts]
    whole = [math.floor(share + 1e-9) for share in exact]
    largest = sorted(range(len(parts)), key=lambda k: (whole[k] - exact[k], k))
    for k in largest[:total - sum(whole)]:
        whole[k] += 1
    return whole


def moved(percent: Mapping[str, int], name: str, wanted: int, locked: set[str]) -> dict[str, int]:
    """把 name 移到 wanted / Move `name` to `wanted`.

    The others that are not locked share the rest in proportion; where none can give way, nothing changes.
    """
    free = [other for other in percent if other != name and other not in locked]
    if name in locked or not free:
        return dict(percent)
    open_to_all = WHOLE - sum(percent[other] for other in percent if other in locked)
    wanted = min(max(wanted, 0), open_to_all)
    rest = apportion(open_to_all - wanted, [percent[other] for other in free])
    return {**percent, name: wanted, **dict(zip(free, rest, strict=True))}


@typed
class weights(Box):
    """几个和恒为 1 的权重；拖动一个，其余的让位 / Weights that always sum to 1: move one, and the others make room.

    `names`: name → (Chinese, English), with the colours of the modalities; `presets`: (Chinese, English) of a button →
    the weights it sets. `value` is a dict from names to weights, equal shares at first unless given, and can be
    observed; it changes once for each move of a slider. Setting `value` from code checks first and then takes the
    nearest hundredths; locks bind the sliders, not code or presets.

    `names`：名字 →（中文, English），模态用自己的颜色；`presets`：按钮的（中文, English）→ 按下后的权重。`value` 是名字
    → 权重的字典，不给就平分，可以 observe；每次拖动只变一次。从代码里设定 `value` 时先检查，再取到最近的百分之一；
    锁只管拖动，不管代码和预设的按钮。
    """

    value = traitlets.Any()

    def __init__(self, names: Mapping[str, Name], value: Mapping[str, float] | None = None,
                 presets: Mapping[Name, Mapping[str, float]] | None = None) -> None:
        require(len(names) >= 2, f"至少需要两个权重，收到 {len(names)}",
                f"at least two weights wanted, got {len(names)}")
        self._names = dict(names)
        self._colours = {name: shade(name if name in COLOURS else STYLES[k % len(STYLES)][0])
                         for k, name in enumerate(names)}
        start = self._percents(dict.fromkeys(names, 1 / len(names)) if value is None else value)
        presets = {label: _weights(self._percents(preset)) for label, preset in (presets or {}).items()}
        self._percent, self._turn = start, threading.RLock()  # callbacks may come from two threads
        self._sliders = {name: self._slider(name) for name in names}
        self._locks = {name: self._lock(name) for name in names}
        self._bar = Shown()
        buttons = [self._button(label, preset) for label, preset in presets.items()]
        rows = [styled(ipywidgets.HBox([self._sliders[name], self._locks[name]]), "mm-weight") for name in names]
        below = [styled(ipywidgets.HBox(buttons), "mm-row")] if buttons else []
        super().__init__("weights", [*rows, self._bar, *below], "mm-weights")
        self.value = _weights(start)

    # -- the value ----------------------------------------------------------------------------------------------------

    def _percents(self, value: object) -> dict[str, int]:
        require(isinstance(value, Mapping) and set(value) == set(self._names),
                f"权重需要是名字为 {list(self._names)} 的字典，收到 {value!r}",
                f"weights must be a dict with the names {list(self._names)}, got {value!r}")
        numbers = [float(value[name]) for name in self._names]
        require(all(math.isfinite(number) and number >= 0 for number in numbers),
                f"权重不能为负，收到 {numbers}", f"weights must not be negative, got {numbers}")
        require(abs(sum(numbers) - 1) < 1e-3,
                f"权重之和需要为 1，收到 {sum(numbers):.4g}", f"weights must sum to 1, got {sum(numbers):.4g}")
        return dict(zip(self._names, apportion(WHOLE, numbers), strict=True))

    @traitlets.validate("value")
    def _on_the_grid(self, proposal: dict) -> dict[str, float]:
        return _weights(self._percents(proposal["value"]))

    @traitlets.observe("value")
    def _follow(self, change: dict) -> None:
        """Sliders and bar follow the value."""
        self._percent = {name: round(WHOLE * weight) for name, weight in change["new"].items()}
        for name, slider in self._sliders.items():
            slider.value = self._percent[name]  # calls _moved, which finds nothing to do
        parts = [(self._names[name], self._colours[name]) for name in self._names]
        self._bar.value = stacked(parts, list(self._percent.values()), WHOLE, lambda percent: f"{percent} %")

    def _moved(self, name: str, wanted: int) -> None:
        say_idle()
        with self._turn:
            if wanted == self._percent[name]:
                return
            locked = {other for other, lock in self._locks.items() if lock.value}
            after = moved(self._percent, name, wanted, locked)
            if after == self._percent:
                self._sliders[name].value = self._percent[name]  # it cannot go further: back it springs
            else:
                self.value = _weights(after)

    # -- what is seen -------------------------------------------------------------------------------------------------

    def _slider(self, name: str) -> ipywidgets.IntSlider:
        label = both(*self._names[name])
        slider = ipywidgets.IntSlider(value=self._percent[name], min=0, max=WHOLE, description=label, tooltip=label,
                                      continuous_update=True,
                                      style={"description_width": "initial", "handle_color": self._colours[name]})
        slider.observe(lambda change: self._moved(name, change["new"]), "value")
        return styled(slider, "mm-slider")

    def _lock(self, name: str) -> ipywidgets.ToggleButton:
        lock = ipywidgets.ToggleButton(description="锁住 · lock", icon="unlock",
                                       tooltip=f"锁住 · lock: {both(*self._names[name])}")

        def turned(change: dict) -> None:
            say_idle()
            lock.icon = "lock" if change["new"] else "unlock"
            self._sliders[name].disabled = change["new"]

        lock.observe(turned, "value")
        return lock

    def _button(self, label: Name, preset: dict[str, float]) -> ipywidgets.Button:
        button = ipywidgets.Button(description=both(*label))

        def use(_: object) -> None:
            say_idle()
            with self._turn:
                self.value = preset

        button.on_click(use)
        return button


def _weights(percent: Mapping[str, int]) -> dict[str, float]:
    return {name: share / WHOLE for name, share in percent.items()}
