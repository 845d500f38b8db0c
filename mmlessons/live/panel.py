"""边训练边看边调 / Train, watch and steer.

有人在看时，训练是内核事件循环上的一个任务：做大约 20 毫秒，让出一次，滑块的消息就在这时到达，下一步便用新的值。
没有人在看时（nbval、导出），同一个调用一口气训练到底，数字完全相同。

With a person watching, training is a task on the kernel's event loop: it works for about 20 ms and yields once; the
messages of the sliders arrive then, and the very next step uses the new values. With nobody watching (nbval, an export)
the same call trains to the end at once, with the same numbers.
"""

import asyncio
import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from html import escape
from typing import Protocol

import ipywidgets
from IPython.display import Image, display

from mmcore.checks import positive, require, whole

from .cards import note
from .curve import Curves, Plot
from .kernel import awaiting_cell, hand_over, is_live, on_stop, running_cell, running_loop, say_idle
from .output import Output, Shown, bilingual, html_of

Record = Mapping[str, float]

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
NO_LOOP = ("这里没有人在看，训练已经一口气做完；要边看边训练，请在 JupyterLab 里运行这一格。",
           "Nobody was watching, so the training ran to its end at once; run this cell in JupyterLab to watch it.")


KEPT = 4  # states of what is learned, to go back to
VIEW_PAUSE = 0.5  # seconds between two views that no evaluation asks for
YIELDS = 5  # a message takes several turns of the loop from the socket to the slider


class Keepable(Protocol):
    """能存下、能放回的东西：模型、优化器、步长表 / What can be kept and put back: a model, an optimiser, a schedule."""

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> object: ...


class Training:
    """一次看得见、能调节的训练 / A training that can be watched and steered.

    `step(**values)` 做一步，返回名字到数的字典；values 是各滑块此刻的值。`evaluate()` 返回同样的字典，在第 0 步、每
    `every` 步和最后各调用一次。`reset()` 重建模型，在开始和按下“重置”时调用。同一个格子（或同一个 `key`）的新训练
    代替旧的。`view()` 返回一幅图或一张表，显示在滑块下面：第 0 步、每次评估和最后都重画；给了 `view_every` 时，中间每
    `view_every` 步也画，每秒至多两次。它只看，不改模型，也不取随机数。`keeps()` 返回学到的东西，例如模型和优化器：每
    `every` 步存一份，最近的 4 份；训练出错或暂停时，“回到第 … 步”把它们放回去。

    `step(**values)` makes one step and returns a dict from names to numbers; values are what the sliders say now.
    `evaluate()` returns such a dict and is called at step 0, every `every` steps and at the end. `reset()` builds the
    model anew; it is called at the start and by the Reset button. A new training takes the place of an older one from
    the same cell (or with the same `key`). `view()` returns a picture or a table to be shown under the sliders: at
    step 0, at every evaluation and at the end, and with `view_every` also every so many steps in between, twice a
    second at most. It only looks: it neither changes the model nor draws random numbers. `keeps()` returns what is
    learned, the model and the optimiser for example: every `every` steps a copy is kept, the latest 4 of them, and
    after an error or in a pause “Back to step …” puts one back.

    Raises: TypeError / ValueError 参数不对 / for a wrong argument. 训练时 / in training: FloatingPointError step 返回的
    数里有 NaN 或无穷 / if step returns NaN or infinity.
    """

    _latest: dict[str, "Training"] = {}  # noqa: RUF012  (a cell run again must find the run it replaces)

    def __init__(self, step: Callable[..., Record], steps: int, plots: Sequence[Plot],
                 sliders: Mapping[str, ipywidgets.Widget] | None = None, evaluate: Callable[[], Record] | None = None,
                 every: int = 50, reset: Callable[[], None] | None = None, key: str | None = None,
                 tick: float = 0.02, view: Callable[[], Output | Shown] | None = None,
                 view_every: int | None = None, keeps: Callable[[], Sequence[Keepable]] | None = None) -> None:
        whole(steps, "steps")
        whole(every, "every")
        if view_every is not None:
            whole(view_every, "view_every")
        positive(tick, "tick")
        for name, function in {"step": step, "evaluate": evaluate, "reset": reset, "view": view,
                               "keeps": keeps}.items():
            require(callable(function) or (function is None and name != "step"),
                    f"{name} 需要是函数，收到 {function!r}", f"{name} must be a function, got {function!r}", TypeError)
        for name, control in (sliders or {}).items():
            require(hasattr(control, "value") and hasattr(control, "observe"),
                    f"滑块 {name!r} 需要是有 value 的控件", f"slider {name!r} must be a widget with a value", TypeError)
        self.curves = Curves(plots, steps)
        self.steps, self.sliders = steps, dict(sliders or {})
        self.i, self.error = 0, None
        self._step, self._evaluate, self._every, self._rebuild = step, evaluate, every, reset
        self._key, self._tick = key or running_cell() or getattr(step, "__qualname__", "train"), tick
        self._view, self._view_every = view, view_every
        self._keeps, self._kept = keeps, []
        self._evaluated_at = self._viewed_at = -1
        self._viewed_time = 0.0
        self._state, self._wish = "ready", "run"
        self._started = self._reset_asked = self._back_asked = False
        self._loop = self._task = self._picture = None
        self._wake, self._settled = asyncio.Event(), asyncio.Event()
        self._waiting, self._told = False, ""
        self._used: Record = {}
        self._planned, self._moved = self.values, False
        self._drawn_at, self._draw_cost = 0.0, 0.0
        self._build_panel()

    # -- what a lesson uses -------------------------------------------------------------------------------------------

    @property
    def values(self) -> dict[str, object]:
        """各滑块此刻的值 / What the sliders say now."""
        return {name: control.value for name, control in self.sliders.items()}

    @property
    def history(self) -> dict[str, tuple[list[int], list[float]]]:
        """名字 →（步数的列表, 数的列表）/ name → (list of steps, list of values)."""
        return self.curves.history

    @property
    def done(self) -> bool:
        return self.i >= self.steps and not self._evaluation_due() and not self._view_due()

    @property
    def undisturbed(self) -> bool:
        """走完了每一步，滑块没动过 / Every step was made, and no slider stood elsewhere than at the beginning.

        说“这次训练会怎样”，只对没人动过的训练成立 / What a lesson claims of a training holds if nobody changed it.
        """
        return self.done and not self._moved

    def start(self) -> None:
        """显示面板并从头训练 / Show the panel and train from the beginning."""
        self._begin()  # if the model cannot be built, what runs already goes on
        older = Training._latest.get(self._key)
        if older is not None and older is not self:
            older._close()
        Training._latest[self._key] = self
        self._loop = running_loop() if is_live() else None
        display(self.panel)
        # JupyterLab and nbconvert drop a picture's alternative text: page.js takes it from here
        display(Output(f'<div class="mm-alt mm-unseen">{escape(self.curves.alt)}</div>', self.curves.alt))
        self._picture = display(self._image(), display_id=True)
        if self._loop is None:
            self.finish()
        else:
            for control in self.sliders.values():
                control.observe(say_idle, "value")
            self._task = self._loop.create_task(self._live())

    def finish(self) -> None:
        """就在这里做完余下的步，期间滑块不动 / Make the remaining steps here and now; sliders rest meanwhile."""
        self._check_not_replaced()
        if self._reset_asked or not self._started:
            self._begin()
        self._wish = "run"
        if self.error is not None:
            raise self.error
        try:
            while not self.done:
                self._advance()
                if self._loop is not None:
                    self._show_now_and_then("running")
        except KeyboardInterrupt:
            self._wish = "pause"
            self._show("paused")
            if self._loop is None:
                raise
            self._say_stopped()
        except Exception as error:
            self._fail(error)
            raise
        else:
            self._show("finished")
            self._settled.set()

    async def wait(self) -> None:
        """等训练结束，滑块照样有效 / Wait for the end of the training; sliders go on acting.

        写在下一格的开头：`await run.wait()`。没有人在看时立刻返回。停止键结束等待，保留学到的一切。

        Put it first in the next cell: `await run.wait()`. Returns at once if nobody is watching. Stop ends the wait and
        keeps what has been learned.
        """
        require(self._started, "请先调用 start()", "call start() first")
        self._check_not_replaced()
        if self._task is not None and not self._settled.is_set():
            self._waiting = True
            self._refresh()
            try:
                with awaiting_cell():
                    await self._settled.wait()
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()
                self._wish = "pause"
                self._say_stopped()
            finally:
                self._waiting = False
                self._refresh()
        self._check_not_replaced()
        if self.error is not None:
            raise self.error

    def _check_not_replaced(self) -> None:
        require(self._state != "replaced",
                f"这次训练在第 {self.i} 步被新的一次代替了；请重新运行开始它的那一格",
                f"this training was replaced by a newer one at step {self.i}; run the cell that started it again",
                RuntimeError)

    # -- one step -----------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._evaluated_at = self._viewed_at = -1
        self.i, self.error = 0, None
        self.curves.clear()
        self._settled.clear()
        self._reset_asked, self._wish, self._told = False, "run", ""
        self._moved, self._back_asked, self._kept = False, False, []
        if self._rebuild is not None:
            self._rebuild()
        self._started, self._state = True, "ready"
        self._refresh()

    def _evaluation_due(self) -> bool:
        return self._evaluate is not None and self._stands_out() and self._evaluated_at != self.i

    def _view_due(self) -> bool:
        if self._view is None or self._viewed_at == self.i:
            return False
        between = self._loop is not None and self._view_every is not None and self.i % self._view_every == 0
        return self._stands_out() or (between and time.perf_counter() - self._viewed_time > VIEW_PAUSE)

    def _stands_out(self) -> bool:
        return self.i % self._every == 0 or self.i == self.steps

    def _advance(self) -> None:
        """做一步，或评估一次，或看一次 / Make one step, or one evaluation, or take one look."""
        if self._evaluation_due():
            self.curves.add(self.i, _record(self._evaluate(), "evaluate"))
            self._evaluated_at = self.i
        elif self._view_due():
            self._view_shown.value = html_of(self._view())
            self._viewed_at, self._viewed_time = self.i, time.perf_counter()
        else:
            if self._keeps is not None and self._stands_out() and not (self._kept and self._kept[-1][0] == self.i):
                self._kept = [*self._kept, (self.i, [deepcopy(thing.state_dict()) for thing in self._keeps()])][-KEPT:]
            values = self.values
            self._moved = self._moved or values != self._planned
            if values != self._used:
                self._show_used(values)  # before the step, so that it is on its way while the step is made
            record = _finite(_record(self._step(**values), "step"))
            self.i += 1
            self.curves.add(self.i, record)
            if self.i == 1:
                self._check_lines()

    def _check_lines(self) -> None:
        absent = [name for plot in self.curves.plots for name in plot.lines if name not in self.history]
        require(not absent, f"step 和 evaluate 都没有返回 {absent}；它们返回的是 {sorted(self.history)}",
                f"neither step nor evaluate returns {absent}; they return {sorted(self.history)}")

    # -- live ---------------------------------------------------------------------------------------------------------

    async def _live(self) -> None:
        """内核循环上的任务，一切改变都在这里 / The task on the kernel's loop, where every change happens."""
        while True:
            try:
                if self._reset_asked:
                    goes_on = self._wish == "run" and not self.done
                    self._begin()
                    self._wish = "run" if goes_on else "pause"
                if self._back_asked:
                    self._go_back()
                if self._wish == "run" and not self.done:
                    on_stop(_pause_all)
                    self._slice()
                    self._show_now_and_then("running")
                    for _ in range(YIELDS):
                        await asyncio.sleep(0)
                    continue
            except Exception as error:
                self._fail(error)
            if self.error is None:
                self._show("finished" if self.done else "paused" if self.i else "ready")
            if self.done:
                self._settled.set()
            self._wake.clear()
            await self._wake.wait()

    def _slice(self) -> None:
        until = time.perf_counter() + self._tick
        while not self.done and time.perf_counter() < until:
            self._advance()

    def _fail(self, error: Exception) -> None:
        self.error, self._wish = error, "pause"
        zh = f"训练停在第 {self.i} 步；之前学到的都留着。"
        en = f"Training stopped at step {self.i}; what was learned before is kept."
        where = "".join(traceback.format_exception(error)[-2:])
        self._told = f'<div class="mm-say mm-error">{bilingual((zh, en), "div")}<pre>{escape(where)}</pre></div>'
        self._show("failed")
        self._settled.set()

    def _pause(self) -> None:
        self._wish = "pause"
        self._wake.set()

    def _toggle(self) -> None:
        if self._loop is None:
            self._tell(NO_LOOP)
        elif self._wish == "run":
            self._pause()
        else:
            if self.error is not None:  # try again from where it stopped
                self.error, self._told = None, ""
                self._settled.clear()
            self._wish = "run"
            self._wake.set()

    def _reset(self) -> None:
        self._reset_asked = True
        self._wake.set()
        if self._loop is None:
            self._tell(RESET_LATER)

    def _back(self) -> None:
        self._back_asked = True
        if self._loop is None:
            self._go_back()
            self._show("paused")
        else:
            self._wake.set()

    @property
    def _earlier(self) -> list[tuple[int, list[dict]]]:
        """此刻以前的副本，最近的在最后；没有就是第一份 / The copies from before now, else the first."""
        return [kept for kept in self._kept if kept[0] < self.i] or self._kept[:1]

    def _go_back(self) -> None:
        """放回最近存下的一份；接着再按，退到更早的一份 / Put back the latest copy; pressed again, the one before it."""
        self._back_asked = False
        earlier = self._earlier
        if not earlier or self._wish == "run":
            return
        at, states = earlier[-1]
        things = list(self._keeps())
        if [_form(thing.state_dict()) for thing in things] != [_form(state) for state in states]:
            self._kept = []  # another model was built since then
            self._tell(OTHER_MODEL)
            return
        for thing, state in zip(things, states, strict=True):
            thing.load_state_dict(deepcopy(state))
        self.i, self._kept = at, earlier
        self.curves.cut(self.i)
        self._evaluated_at, self._viewed_at, self._moved = self.i, -1, True
        self.error, self._told = None, ""
        self._settled.clear()

    def _tell(self, text: tuple[str, str]) -> None:
        self._told = f'<div class="mm-say">{bilingual(text, "div")}</div>'
        self._refresh()

    def _close(self) -> None:
        if self._task is not None:
            for control in self.sliders.values():
                control.unobserve(say_idle, "value")
            self._task.cancel()
            self._task = None
        self._settled.set()
        self._state = "replaced"
        self._refresh()

    # -- what is seen -------------------------------------------------------------------------------------------------

    def _build_panel(self) -> None:
        self._start_button = ipywidgets.Button(description="暂停 · Pause", icon="pause")
        self._start_button.add_class("mod-primary")
        self._reset_button = ipywidgets.Button(description="重置 · Reset", icon="undo")
        self._back_button = ipywidgets.Button(icon="step-backward")
        for button, action in ((self._start_button, self._toggle), (self._reset_button, self._reset),
                               (self._back_button, self._back)):
            button.on_click(lambda _, action=action: (say_idle(), hand_over(self._loop, action)))
        self._progress, self._used_shown, self._message = ipywidgets.HTML(), ipywidgets.HTML(), ipywidgets.HTML()
        self._progress.add_class("mm-progress")
        self._progress.add_class("mm-status")  # where a browser test reads the step
        row = ipywidgets.HBox([self._start_button, self._reset_button, self._back_button, self._progress])
        row.add_class("mm-row")
        self._view_shown = Shown()
        views = [self._view_shown] if self._view is not None else []
        self.panel = _Panel([row, *self.sliders.values(), self._used_shown, self._message, *views])
        self.panel.add_class("mm")
        self.panel.add_class("mm-panel")
        self._refresh()

    def _refresh(self) -> None:
        """按钮和进度 / Buttons and progress."""
        state = self._state
        word, icon = {"running": ("暂停 · Pause", "pause"), "paused": ("继续 · Resume", "play"),
                      "failed": ("再试 · Try again", "play")}.get(state, ("开始 · Start", "play"))
        button = self._start_button
        button.description, button.icon = word, icon
        button.disabled = state in ("finished", "replaced")
        self._reset_button.disabled = state == "replaced"
        back = self._earlier[-1][0] if self._kept else 0
        self._back_button.description = f"回到第 {back} 步 · Back to step {back}"
        self._back_button.layout.display = "" if self._kept and state in ("paused", "failed") else "none"
        zh, en = STATES[state]
        count = bilingual((f"{zh}，第 {self.i} / {self.steps} 步", f"{en}, step {self.i} / {self.steps}"))
        names = {name: label for plot in self.curves.plots for name, label in plot.lines.items()}
        now = " ".join(f"<div>{bilingual(names[name])} <b>{values[-1]:.3g}</b></div>"
                       for name, (_, values) in self.history.items() if name in names)
        bar = f'<progress max="{self.steps}" value="{self.i}" aria-label="训练进度 · progress"></progress>'
        self._progress.value = f'{bar}<div>{count}</div><div class="mm-now">{now}</div>'
        waits = self._waiting and state in ("paused", "ready")
        self._message.value = self._told + (f'<div class="mm-say">{bilingual(WAITING, "div")}</div>' if waits else "")

    def _show_used(self, values: Record) -> None:
        """这一步真正用的值，一变就写出来 / What the step being made really uses, written as soon as it changes."""
        self._used = values
        listed = escape(" ".join(f"{name}={_written(value)}" for name, value in values.items()))
        said = bilingual(("这一步用的值", "used by this step"))
        self._used_shown.value = f'<div class="mm-used">{said} <b class="mm-values">{listed}</b></div>'

    def _image(self) -> Image:
        width, height = self.curves.size
        return Image(self.curves.png(), width=width, height=height, alt=self.curves.alt)

    def _show(self, state: str) -> None:
        began = time.perf_counter()
        self._state = state
        self._refresh()
        if self._picture is not None:
            self._picture.update(self._image())
        self._drawn_at = time.perf_counter()
        self._draw_cost = self._drawn_at - began

    def _show_now_and_then(self, state: str) -> None:
        # eight pictures a second, or as few as two where drawing is slow: it should take about 3 % of the time
        if self._state != state or time.perf_counter() - self._drawn_at > min(max(0.125, 30 * self._draw_cost), 0.5):
            self._show(state)

    def _say_stopped(self) -> None:
        display(note(f"等待已停止，训练暂停在第 {self.i} 步；学到的都留着，按“继续”可以接着训练。",
                     f"The wait was stopped and training paused at step {self.i}; "
                     "what was learned is kept, and Resume goes on."))


def _pause_all() -> None:
    for run in Training._latest.values():
        if run._task is not None:
            hand_over(run._loop, run._pause)


class _Panel(ipywidgets.VBox):
    def __repr__(self) -> str:  # the same whatever the state: nbval compares this text
        return "<mmlessons.live.Training>"


def _written(value: object) -> str:
    if isinstance(value, Mapping):
        return "(" + " ".join(f"{name}={_written(part)}" for name, part in value.items()) + ")"
    return f"{value:.3g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def _form(state: object) -> object:
    """名字与大小，不看数值；优化器的记录从第一步才有，不算 / Names and sizes, no values; what an optimiser notes, which
    only its first step creates, is left out."""
    if isinstance(state, Mapping):
        return {name: _form(part) for name, part in state.items() if name != "state"}
    return tuple(state.shape) if hasattr(state, "shape") else None


def _finite(record: Record) -> Record:
    bad = [name for name, value in record.items() if not math.isfinite(value)]
    require(not bad, f"这一步返回的 {', '.join(bad)} 不是有限数；把滑块拨回去，再按“回到第 … 步”或“重置”",
            f"this step returned {', '.join(bad)} that are not finite; move the sliders back, then press “Back to "
            f"step …” or “Reset”", FloatingPointError)
    return record


def _record(record: object, source: str) -> Record:
    require(isinstance(record, Mapping), f"{source} 需要返回名字到数的字典，收到 {type(record).__name__}",
            f"{source} must return a dict from names to numbers, got {type(record).__name__}", TypeError)
    return record
