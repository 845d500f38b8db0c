"""拖动滑块，看结果怎样变 / Move a slider and see what changes.

不训练，只重算：适合手算得出的小例子，和训练好的模型。

Nothing is trained, only computed again: for examples small enough to check by hand, and for a model already trained.
"""

from collections.abc import Callable, Mapping

import ipywidgets

from mmcore.checks import require
from mmlessons.border import typed

from .kernel import say_idle
from .output import Box, Drawn, Output, Shown, html_of, reason


@typed
def explore(sliders: Mapping[str, ipywidgets.Widget], view: Callable[..., Output | Shown]) -> ipywidgets.VBox:
    """滑块一动，就显示 view(滑块的值) / Whenever a slider moves, show view(its values).

    `view(**values)` returns what `table`, `note`, `bars`, `scatter`, `beside` and the like return, or a `gallery`. A
    ValueError it raises is shown in its place, and the sliders go on working; where there is a field to type in, it is
    a word to the reader and not marked as an error.

    `view(**values)` 返回 `table`、`note`、`bars`、`scatter`、`beside` 之类的结果，或 `gallery`。它抛出的 ValueError
    显示在原处，滑块仍可继续拖动；有填字的格时，那是写给读者的话，不标作错误。
    """
    require(len(sliders) > 0, "至少需要一个滑块", "at least one slider wanted")
    shown = Shown()
    typed = any(isinstance(control, ipywidgets.Text) for control in sliders.values())

    def show(*_: object) -> None:
        say_idle()
        try:
            shown.value = html_of(view(**{name: control.value for name, control in sliders.items()}))
        except ValueError as error:
            shown.value = f'<div class="mm mm-say{"" if typed else " mm-error"}">{reason(error)}</div>'

    for control in sliders.values():
        control.observe(show, "value")
    show()
    return Box("explore", [*sliders.values(), shown], "mm-panel")


@typed
def beside(*results: Output | Shown) -> Output:
    """几个结果并排，放不下就换行 / Several results side by side, in a row that wraps."""
    return _together(results, "mm mm-beside")


@typed
def stack(*results: Output | Shown) -> Output:
    """几个结果上下排列，各占全宽 / Several results one below the other, each over the full width."""
    return _together(results, "mm")


def _together(results: tuple[Output | Shown, ...], kind: str) -> Output:
    require(len(results) > 0, "至少需要一个结果", "at least one result wanted")
    inside = "".join(f"<div>{html_of(result)}</div>" for result in results)
    text = "\n".join(result.text for result in results if isinstance(result, Output))
    html = f'<div class="{kind}">{inside}</div>'
    drawn = [result.png for result in results if isinstance(result, Drawn) and result.png]
    if 'src="data:' in html:  # a picture or a sound: its bytes are no text to be compared
        return Drawn(html, text or repr(Shown()), *drawn[:1])
    return Output(html, text)
