"""一次训练，没有任何控件 / A training without any widget: steps, evaluations, looks.

With a loop to live on, it works for about 20 ms and yields once; the messages of sliders arrive then, and the very next
step uses the new values. Without a loop it runs to its end at once, with the same numbers.

有事件循环时，做大约 20 毫秒，让出一次，滑块的消息就在这时到达，下一步便用新的值。没有循环时一口气做到底，数字相同。
"""

import asyncio
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from mmcore.checks import require, whole

from .curve import Curves
from .kernel import awaiting_cell, hand_over, on_stop
from .snapshots import Keepable, Snapshots

Record = Mapping[str, float]

TICK = 0.02  # seconds of work between two yields
LOOK_PAUSE = 0.5  # seconds between two looks that no evaluation asks for
YIELDS = 5  # a message takes several turns of the loop from the socket to the slider
LATEST: dict[str, "Run"] = {}  # a cell run again must find the run that it replaces


class Run:
    """一步一步走，能暂停、重置、退回 / Goes step by step, and can be paused, reset and taken back.

    `step(**values)` makes a step and returns numbers by name; `values()` is what sliders say now. `evaluate()` returns
    such numbers and is called at step 0, every `every` steps and at the end, and so is `look()`, with `look_every` also
    in between. `reset()` builds the model again. For `keeps` see `Snapshots`.

    `step(**values)` 走一步，返回名字到数的字典；`values()` 是滑块现在的值。`evaluate()` 也返回这样的数，在第 0 步、每
    `every` 步和最后各调用一次；`look()` 也是，给了 `look_every` 时中间还有。`reset()` 重新造出模型。`keeps` 见
    `Snapshots`。
    """

    def __init__(self, step: Callable[..., Record], steps: int, log: Curves, values: Callable[[], dict] = dict,
                 evaluate: Callable[[], Record] | None = None, every: int = 50,
                 reset: Callable[[], None] | None = None, look: Callable[[], object] | None = None,
                 look_every: int | None = None, keeps: Callable[[], Sequence[Keepable]] | None = None,
                 wanted: Collection[str] = ()):
        self.steps, self._every = whole(steps, "steps"), whole(every, "every")
        self._look_every = None if look_every is None else whole(look_every, "view_every")
        functions = {"step": step, "evaluate": evaluate, "reset": reset, "view": look, "keeps": keeps}
        for name, function in functions.items():
            require(callable(function) or (function is None and name != "step"),
                    f"{name} 需要是函数，收到 {function!r}", f"{name} must be a function, got {function!r}", TypeError)
        self._step, self._evaluate, self._rebuild, self._look = step, evaluate, reset, look
        self.wanted = tuple(wanted)  # names that step and evaluate must return
        self.log, self.values, self.snapshots = log, values, Snapshots(keeps)
        self.watcher = None  # a panel, whose methods are told what happens
        self.i, self.error, self.state, self.waiting = 0, None, "ready", False
        self._wish, self._started, self._reset_asked, self._back_asked = "run", False, False, False
        self._evaluated_at = self._looked_at = -1
        self._looked_time = 0.0
        self.loop = self._task = None
        self._wake, self._settled = asyncio.Event(), asyncio.Event()
        self._used: Record = {}
        self._planned, self._moved = values(), False

    # -- what is asked from outside ---------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        return self.i >= self.steps and not self._evaluation_due() and not self._look_due()

    @property
    def undisturbed(self) -> bool:
        """走完了每一步，滑块没动过 / Every step was made, and no slider stood elsewhere than at the beginning."""
        return self.done and not self._moved

    def begin(self) -> None:
        """从头再来 / Start from the beginning."""
        self._evaluated_at = self._looked_at = -1
        self.i, self.error = 0, None
        self.log.clear()
        self.snapshots.clear()
        self._settled.clear()
        self._reset_asked, self._back_asked, self._wish, self._moved = False, False, "run", False
        if self._rebuild is not None:
            self._rebuild()
        self._started = True
        self._become("ready")

    def live_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """在这个循环上训练，边训练边听滑块 / Train on this loop, listening to the sliders."""
        self.loop = loop
        self._task = loop.create_task(self._live())

    def finish(self) -> None:
        """就在这里做完余下的步 / Make the remaining steps here and now."""
        self._check_not_replaced()
        if self._reset_asked or not self._started:
            self.begin()
        self._wish = "run"
        if self.error is not None:
            raise self.error
        try:
            while not self.done:
                self._advance()
                self.state = "running"
                self._tell("moved_on")
        except KeyboardInterrupt:
            self._wish = "pause"
            self._become("paused")
            if self.loop is None:
                raise
            self._tell("stopped_waiting")
        except Exception as error:
            self._fail(error)
            raise
        else:
            self._become("finished")
            self._settled.set()

    async def wait(self) -> None:
        """等训练结束；停止键结束等待 / Wait for the end; Stop ends the wait."""
        require(self._started, "请先调用 start()", "call start() first")
        self._check_not_replaced()
        if self._task is not None and not self._settled.is_set():
            self.waiting = True
            self._tell("changed")
            try:
                with awaiting_cell():
                    await self._settled.wait()
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()
                self._wish = "pause"
                self._tell("stopped_waiting")
            finally:
                self.waiting = False
                self._tell("changed")
        self._check_not_replaced()
        if self.error is not None:
            raise self.error

    def pause(self) -> None:
        self._wish = "pause"
        self._wake.set()

    def toggle(self) -> None:
        """暂停，或继续；出过错就再试 / Pause, or go on; after an error, try again."""
        if self._wish == "run":
            self.pause()
            return
        if self.error is not None:
            self.error = None
            self._settled.clear()
        self._wish = "run"
        self._wake.set()

    def ask_reset(self) -> None:
        self._reset_asked = True
        self._wake.set()

    def ask_back(self) -> None:
        self._back_asked = True
        self._wake.set()

    def take_the_place(self, key: str) -> None:
        """代替同一个格子里旧的那一次 / Replace the older run of the same cell."""
        older = LATEST.get(key)
        if older is not None and older is not self:
            older.close()
        LATEST[key] = self

    def close(self) -> None:
        """由新的一次代替 / Replaced by a newer one."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._settled.set()
        self._become("replaced")

    def go_back(self) -> None:
        """退到上一份副本；再来一次，退到更早的一份 / Back to the copy before now; again, to the one before that."""
        self._back_asked = False
        if not self.snapshots.taken or self._wish == "run":
            return
        at = self.snapshots.go_back(self.i)
        if at is None:
            self._tell("cannot_go_back")
            return
        self.i = at
        self.log.cut(at)
        self._evaluated_at, self._looked_at, self._moved = at, -1, True
        self.error = None
        self._settled.clear()

    # -- one step -----------------------------------------------------------------------------------------------------

    def _tell(self, what: str, *about: object) -> None:
        if self.watcher is not None:
            getattr(self.watcher, what)(*about)

    def _become(self, state: str) -> None:
        self.state = state
        self._tell("changed")

    def _check_not_replaced(self) -> None:
        require(self.state != "replaced",
                f"这次训练在第 {self.i} 步被新的一次代替了；请重新运行开始它的那一格",
                f"this training was replaced by a newer one at step {self.i}; run the cell that started it again",
                RuntimeError)

    def _stands_out(self) -> bool:
        return self.i % self._every == 0 or self.i == self.steps

    def _evaluation_due(self) -> bool:
        return self._evaluate is not None and self._stands_out() and self._evaluated_at != self.i

    def _look_due(self) -> bool:
        if self._look is None or self._looked_at == self.i:
            return False
        between = self.loop is not None and self._look_every is not None and self.i % self._look_every == 0
        return self._stands_out() or (between and time.perf_counter() - self._looked_time > LOOK_PAUSE)

    def _advance(self) -> None:
        """Make one step, or one evaluation, or take one look."""
        if self._evaluation_due():
            self.log.add(self.i, _record(self._evaluate(), "evaluate"))
            self._evaluated_at = self.i
        elif self._look_due():
            self._tell("looked", self._look())
            self._looked_at, self._looked_time = self.i, time.perf_counter()
        else:
            if self._stands_out():
                self.snapshots.take(self.i)
            values = self.values()
            self._moved = self._moved or values != self._planned
            if values != self._used:
                self._used = values
                self._tell("uses", values)  # before the step, so that it is on its way while the step is made
            record = _finite(_record(self._step(**values), "step"))
            self.i += 1
            self.log.add(self.i, record)
            if self.i == 1:
                self._check_names()

    def _check_names(self) -> None:
        absent = [name for name in self.wanted if name not in self.log.history]
        require(not absent, f"step 和 evaluate 都没有返回 {absent}；它们返回的是 {sorted(self.log.history)}",
                f"neither step nor evaluate returns {absent}; they return {sorted(self.log.history)}")

    async def _live(self) -> None:
        """The task on the kernel's loop, where every change happens."""
        while True:
            try:
                if self._reset_asked:
                    goes_on = self._wish == "run" and not self.done
                    self.begin()
                    self._wish = "run" if goes_on else "pause"
                if self._back_asked:
                    self.go_back()
                if self._wish == "run" and not self.done:
                    on_stop(pause_all)
                    self._slice()
                    self.state = "running"
                    self._tell("moved_on")
                    for _ in range(YIELDS):
                        await asyncio.sleep(0)
                    continue
            except Exception as error:
                self._fail(error)
            if self.error is None:
                self._become("finished" if self.done else "paused" if self.i else "ready")
            if self.done:
                self._settled.set()
            self._wake.clear()
            await self._wake.wait()

    def _slice(self) -> None:
        until = time.perf_counter() + TICK
        while not self.done and time.perf_counter() < until:
            self._advance()

    def _fail(self, error: Exception) -> None:
        self.error, self._wish = error, "pause"
        self._become("failed")
        self._settled.set()


def pause_all() -> None:
    """停止键：每一次正在训练的都暂停 / The Stop button: pause whatever is training."""
    for run in LATEST.values():
        if run._task is not None:
            hand_over(run.loop, run.pause)


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
