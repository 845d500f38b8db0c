"""边训练边看边调 / Train, watch and steer: a run, the panel that shows and steers it, and both in one call."""

import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from html import escape

import ipywidgets
from IPython.display import Image, display

from mmlessons.border import typed

from .cards import note
from .curve import Curves, Plot
from .kernel import hand_over, is_live, running_cell, running_loop, say_idle
from .output import Box, Name, Output, Shown, bilingual, html_of, styled
from .run import LATEST, Record, Run
from .snapshots import Keepable

STATES = {"ready": ("尚未开始", "not started"), "running": ("训练中", "training"), "paused": ("已暂停", "paused"),
          "finished": ("训练完成", "finished"), "failed": ("出错，已停止", "stopped by an error"),
          "replaced": ("已由新的一次代替", "replaced by a newer run")}
WAITING = ("下一格在等训练结束：请按“继续”或“开始”，或按工具栏的停止键（■），用已经学到的继续往下。",
           "The next cell waits for the training to end: press Resume or Start, or Stop (■) in the toolbar to go on "
           "with what has been learned.")
RESET_LATER = ("已记下：下次 start() 或 finish() 从头训练；在那之前，学到的都留着。",
               "Noted: the next start() or finish() trains from the beginning; until then what was learned is kept.")
OTHER_MODEL = ("存下的几份是另一个模型的，放不回去；按“重置”可以从头训练。",
               "The copies that were kept belong to another model and cannot be put back; Reset trains from the start.")
NOTHING = ("这个内核里还没有训练；先运行开始训练的那一格。",
           "There is no training in this kernel yet; run the cell that starts one first.")
NO_LOOP = ("这里没有人在看，训练已经一口气做完；要边看边训练，请在 JupyterLab 里运行这一格。",
           "Nobody was watching, so the training ran to its end at once; run this cell in JupyterLab to watch it.")


@typed
class Training:
    """一次看得见、能调节的训练 / A training that can be watched and steered.

    `step`, `steps`, `evaluate`, `every`, `reset` and `keeps` are those of `Run`; `sliders` say what goes into `step`.
    `plots` draw what `step` and `evaluate` return. `view()` returns a picture or a table to be shown under the sliders:
    it only looks, changes no model and draws no random numbers. A new training takes the place of an older one from the
    same cell. After an error or in a pause “Back to step …” puts back one of the copies that `keeps` gave. Raises
    TypeError or ValueError for a wrong argument, and while training FloatingPointError where `step` returns NaN or
    infinity.

    `step`、`steps`、`evaluate`、`every`、`reset`、`keeps` 见 `Run`；`sliders` 的值交给 `step`。`plots` 画出 `step` 和
    `evaluate` 返回的数。`view()` 返回一幅图或一张表，显示在滑块下面：它只看，不改模型，也不取随机数。同一个格子的新
    训练代替旧的。出错或暂停时，“回到第 … 步”放回 `keeps` 存下的一份。参数不对时报 TypeError 或 ValueError；训练时
    `step` 返回 NaN 或无穷则报 FloatingPointError。
    """

    def __init__(self, step: Callable[..., Record], steps: int, plots: Sequence[Plot],
                 sliders: Mapping[str, ipywidgets.Widget] | None = None, evaluate: Callable[[], Record] | None = None,
                 every: int = 50, reset: Callable[[], None] | None = None,
                 view: Callable[[], Output | Shown] | None = None, view_every: int | None = None,
                 keeps: Callable[[], Sequence[Keepable]] | None = None) -> None:
        self.sliders = dict(sliders or {})
        self.curves = Curves(plots, steps)
        self.run = Run(step, steps, self.curves, lambda: {name: x.value for name, x in self.sliders.items()}, evaluate,
                       every, reset, view, view_every, keeps, wanted=[name for plot in plots for name in plot.lines])
        self.panel = Panel(self.run, self.curves, self.sliders, sees=view is not None)
        self._key = running_cell() or getattr(step, "__qualname__", "train")

    @property
    def i(self) -> int:
        """走了几步 / How many steps have been made."""
        return self.run.i

    @property
    def undisturbed(self) -> bool:
        """走完了每一步，滑块没动过 / Every step was made, and no slider stood elsewhere than at the beginning.

        What a lesson claims of a training holds if nobody changed it.

        说“这次训练会怎样”，只对没人动过的训练成立。
        """
        return self.run.undisturbed

    def start(self) -> None:
        """显示面板并从头训练 / Show the panel and train from the beginning."""
        self.run.begin()  # if the model cannot be built, what runs already goes on
        self.run.take_the_place(self._key)
        loop = running_loop() if is_live() else None
        if loop is not None:
            self.panel.add_moving_curves()
        self.panel.show()
        if loop is None:
            self.finish()
        else:
            for control in self.sliders.values():
                control.observe(say_idle, "value")
            self.run.live_on(loop)

    def finish(self) -> None:
        """就在这里做完余下的步，期间滑块不动 / Make the remaining steps here and now; sliders rest meanwhile."""
        self.run.finish()

    async def wait(self) -> None:
        """等训练结束，滑块照样有效 / Wait for the end of the training; sliders go on acting.

        Put it first in the next cell: `await run.wait()`. Returns at once if nobody is watching. Stop ends the wait and
        keeps what has been learned.

        写在下一格的开头：`await run.wait()`。没有人在看时立刻返回。停止键结束等待，保留学到的一切。
        """
        await self.run.wait()


def show() -> None:
    """把正在进行的训练的面板再显示一次 / Show the panels of the trainings again, as they go on.

    For a page that was loaded again before it was saved: nothing is started anew.

    页面还没保存就重新载入时用它：什么也不会重新开始。
    """
    runs = [run for run in LATEST.values() if run.watcher is not None]
    for run in runs:
        run.watcher.show()
    if not runs:
        display(note(*NOTHING))


class Panel:
    """看得见的那一半：按钮、滑块、进度、曲线 / The half that is seen: buttons, sliders, progress, curves."""

    def __init__(self, run: Run, curves: Curves, sliders: Mapping[str, ipywidgets.Widget], sees: bool):
        self.run, self.curves, self.sliders = run, curves, sliders
        self._picture, self._told, self._moving = None, "", []
        self._drawn_at, self._draw_cost, self._drawn_state = 0.0, 0.0, run.state
        self._start_button = styled(ipywidgets.Button(description="暂停 · Pause", icon="pause"), "mod-primary")
        self._reset_button = ipywidgets.Button(description="重置 · Reset", icon="undo")
        self._back_button = ipywidgets.Button(icon="step-backward")
        for button, action in ((self._start_button, self._toggle), (self._reset_button, self._reset),
                               (self._back_button, self._back)):
            button.on_click(lambda _, action=action: (say_idle(), hand_over(run.loop, action)))
        self._used, self._message, self._view = ipywidgets.HTML(), ipywidgets.HTML(), Shown()
        self._progress = styled(ipywidgets.HTML(), "mm-progress", "mm-status")  # where a browser test reads the step
        row = styled(ipywidgets.HBox([self._start_button, self._reset_button, self._back_button, self._progress]),
                     "mm-row")
        self.widget = Box("Training", [row, *sliders.values(), self._used, self._message,
                                       *([self._view] if sees else [])], "mm-panel")
        self._refresh()
        run.watcher = self

    def add_moving_curves(self) -> None:
        """曲线也作控件 / Curves that are widgets too: they move in every window that shows them, also after a reload.

        The picture below stays for readers that know no widgets; page.css hides it where the moving ones are seen.
        """
        self._moving = [ipywidgets.Image(value=png) for png in self.curves.pngs()]
        curves = styled(ipywidgets.HBox(self._moving), "mm-curves")
        self.widget.children = (*self.widget.children, curves)

    def show(self) -> None:
        """显示在格子里 / Show it in the cell."""
        display(self.widget)
        # JupyterLab and nbconvert drop a picture's alternative text: page.js takes it from here
        words = f"<summary>图的文字说明 · the figure in words</summary><p>{escape(self.curves.alt)}</p>"
        display(Output(f'<details class="mm-alt mm-unseen">{words}</details>', self.curves.alt))
        self._picture = display(self._image(), display_id=True)

    # -- what the run tells -------------------------------------------------------------------------------------------

    def changed(self) -> None:
        if self.run.state == "ready":
            self._told = ""
        if self.run.state == "failed":
            self._told = self._error()
        if self.run.state == "finished" and self.run.loop is None:
            self._told = _say(NO_LOOP)
        self._draw()

    def moved_on(self) -> None:
        # eight pictures a second, or as few as two where drawing is slow: it should take about 3 % of the time
        pause = min(max(0.125, 30 * self._draw_cost), 0.5)
        if self._drawn_state != self.run.state or time.perf_counter() - self._drawn_at > pause:
            self._draw(picture=self.run.loop is not None)

    def uses(self, values: Record) -> None:
        listed = escape(" ".join(f"{name}={_written(value)}" for name, value in values.items()))
        said = bilingual(("这一步用的值", "used by this step"))
        self._used.value = f'<div class="mm-used">{said} <b class="mm-values">{listed}</b></div>'

    def looked(self, seen: Output | Shown) -> None:
        self._view.value = html_of(seen)

    def stopped_waiting(self) -> None:
        display(note(f"等待已停止，训练暂停在第 {self.run.i} 步；学到的都留着，按“继续”可以接着训练。",
                     f"The wait was stopped and training paused at step {self.run.i}; "
                     "what was learned is kept, and Resume goes on."))

    def cannot_go_back(self) -> None:
        self._tell(OTHER_MODEL)

    # -- what buttons do ----------------------------------------------------------------------------------------------

    def _toggle(self) -> None:
        if self.run.loop is None:
            self._tell(NO_LOOP)
        else:
            if self.run.error is not None:
                self._told = ""
            self.run.toggle()

    def _reset(self) -> None:
        self.run.ask_reset()
        if self.run.loop is None:
            self._tell(RESET_LATER)

    def _back(self) -> None:
        self._told = ""
        if self.run.loop is None:
            self.run.go_back()
            self.run.state = "paused"
            self._draw()
        else:
            self.run.ask_back()

    # -- what is seen -------------------------------------------------------------------------------------------------

    def _tell(self, text: Name) -> None:
        self._told = _say(text)
        self._refresh()

    def _error(self) -> str:
        zh = f"训练停在第 {self.run.i} 步；之前学到的都留着。"
        en = f"Training stopped at step {self.run.i}; what was learned before is kept."
        where = "".join(traceback.format_exception(self.run.error)[-2:])
        return f'<div class="mm-say mm-error">{bilingual((zh, en), "div")}<pre>{escape(where)}</pre></div>'

    def _refresh(self) -> None:
        """Buttons and progress."""
        run, state = self.run, self.run.state
        word, icon = {"running": ("暂停 · Pause", "pause"), "paused": ("继续 · Resume", "play"),
                      "failed": ("再试 · Try again", "play")}.get(state, ("开始 · Start", "play"))
        self._start_button.description, self._start_button.icon = word, icon
        self._start_button.disabled = state == "replaced" or (state == "finished" and run.loop is not None)
        self._reset_button.disabled = state == "replaced"
        kept = run.snapshots.before(run.i)
        back = kept[-1][0] if kept else 0
        self._back_button.description = f"回到第 {back} 步 · Back to step {back}"
        self._back_button.layout.display = "" if kept and state in ("paused", "failed") else "none"
        zh, en = STATES[state]
        count = bilingual((f"{zh}，第 {run.i} / {run.steps} 步", f"{en}, step {run.i} / {run.steps}"))
        for doing in (f"{zh}，", f"{en}, "):  # page.css hides it once the kernel is gone
            count = count.replace(doing, f'<span class="mm-doing">{doing}</span>', 1)
        names = {name: label for plot in self.curves.plots for name, label in plot.lines.items()}
        now = " ".join(f"<div>{bilingual(names[name])} <b>{values[-1]:.3g}</b></div>"
                       for name, (_, values) in self.curves.history.items() if name in names)
        bar = f'<progress max="{run.steps}" value="{run.i}" aria-label="训练进度 · progress"></progress>'
        self._progress.value = f'{bar}<div>{count}</div><div class="mm-now">{now}</div>'
        waits = run.waiting and state in ("paused", "ready")
        self._message.value = self._told + (_say(WAITING) if waits else "")

    def _image(self) -> Image:
        width, height = self.curves.size
        # not by Image's own `alt`, which IPython 7 (on Colab and Kaggle) does not know
        return Image(self.curves.png(), width=width, height=height, metadata={"alt": self.curves.alt})

    def _draw(self, picture: bool = True) -> None:
        began = time.perf_counter()
        self._refresh()
        if picture:
            for widget, png in zip(self._moving, self.curves.pngs() if self._moving else (), strict=True):
                widget.value = png
            if self._picture is not None and not (self._moving and self.run.state == "running"):
                self._picture.update(self._image())
        self._drawn_at, self._drawn_state = time.perf_counter(), self.run.state
        self._draw_cost = self._drawn_at - began


def _say(text: Name) -> str:
    return f'<div class="mm-say">{bilingual(text, "div")}</div>'


def _written(value: object) -> str:
    if isinstance(value, Mapping):
        return "(" + " ".join(f"{name}={_written(part)}" for name, part in value.items()) + ")"
    return f"{value:.3g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)
