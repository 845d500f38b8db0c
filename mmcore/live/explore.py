"""拖动滑块，看结果怎样变 / Move a slider and see what changes.

不训练，只重算：适合手算得出的小例子，和训练好的模型。

Nothing is trained, only computed again: for examples small enough to check by hand, and for a model already trained.
"""

from collections.abc import Callable, Mapping, Sequence

import ipywidgets

from ..checks import require
from .cards import Output, Shown, Text, bilingual, plain, reason


def explore(sliders: Mapping[str, ipywidgets.Widget], view: Callable[..., Output | Shown]) -> ipywidgets.VBox:
    """滑块一动，就显示 view(滑块的值) / Whenever a slider moves, show view(its values).

    `view(**values)` 返回 `table`、`note`、`bars` 或 `gallery`。它抛出的 ValueError 显示在原处，滑块仍可继续拖动。

    `view(**values)` returns a `table`, a `note`, `bars` or a `gallery`. A ValueError it raises is shown in its place,
    and the sliders go on working.
    """
    require(len(sliders) > 0, "至少需要一个滑块", "at least one slider wanted")
    shown = Shown()

    def show(*_: object) -> None:
        try:
            result = view(**{name: control.value for name, control in sliders.items()})
            shown.value = result.value if isinstance(result, Shown) else result.html
        except ValueError as error:
            shown.value = f'<div class="mm mm-say mm-error">{reason(error)}</div>'

    for control in sliders.values():
        control.observe(show, "value")
    show()
    panel = _Explore([*sliders.values(), shown])
    panel.add_class("mm")
    panel.add_class("mm-panel")
    return panel


class _Explore(ipywidgets.VBox):
    def __repr__(self) -> str:  # the same whatever the slider says: nbval compares this text
        return "<mmcore.live.explore>"


def bars(rows: Sequence[tuple[Text, float]], title: Text | None = None, colour: str = "#0072B2",
         digits: int = 2) -> Output:
    """横条，每条写着自己的数，长度以 1 为满 / Horizontal bars, each with its number; 1 fills the width."""
    for name, value in rows:
        require(0 <= value <= 1, f"{plain(name)} 需要在 0 与 1 之间，收到 {value}",
                f"{plain(name)} must lie between 0 and 1, got {value}")
    body = "".join(
        f'<tr><th scope="row">{bilingual(name)}</th><td><div class="mm-bar" style="width:{100 * value:.1f}%;'
        f'background:{colour}"></div></td><td class="mm-number">{value:.{digits}f}</td></tr>' for name, value in rows)
    caption = "" if title is None else f"<caption>{bilingual(title)}</caption>"
    text = "\n".join(f"{plain(name)}  {value:.{digits}f}" for name, value in rows)
    html = f'<div class="mm mm-scroll"><table class="mm-table mm-bars">{caption}<tbody>{body}</tbody></table></div>'
    return Output(html, text if title is None else f"{plain(title)}\n{text}")
