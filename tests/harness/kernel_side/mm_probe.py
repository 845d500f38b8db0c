"""拨动每一个控件 / Moves every widget of this kernel as a reader would, and lists what went wrong.

ipywidgets swallows what a callback raises: it prints the traceback and goes on. `move_every_widget` therefore listens
where tracebacks are shown, where errors are logged and where background tasks end.
"""

import asyncio
import gc
import logging
import re
import sys
import threading
import time

TEXTS = ["", "red apple", "红色的苹果", "<img src=x onerror=alert(1)> </div> \\frac{ %s 🦄👩🏽‍🚀 \u202e\x00"]
PATIENCE = 10  # seconds: a widget that keeps a reader waiting longer is broken


def states(w, W):
    """The states a reader can put widget w into, the present one last; a button's is None."""
    if isinstance(w, W.Button):
        return [None]
    if isinstance(w, (W.Text, W.Textarea)):
        return [{"value": text} for text in [*TEXTS, w.value]]
    if hasattr(w, "options") and hasattr(w, "index"):
        places = range(len(w.options))
        several = isinstance(w.index, tuple)
        pair = several and "Range" in type(w).__name__
        each = [(0, len(w.options) - 1)] if pair else [(), *((i,) for i in places)] if several else places
        return [{"index": i} for i in [*each, w.index]]
    if hasattr(w, "selected_index"):
        return [{"selected_index": i} for i in [*range(len(w.children)), w.selected_index]]
    value = getattr(w, "value", None)
    if isinstance(value, bool):
        return [{"value": not value}, {"value": value}]
    if isinstance(w, (W.IntProgress, W.FloatProgress)) or not hasattr(w, "min"):
        return [{"value": v} for v in (0, -1, value)] if isinstance(w, (W.IntText, W.FloatText)) else []
    low, high = (w.base**w.min, w.base**w.max) if hasattr(w, "base") else (w.min, w.max)
    if isinstance(value, tuple):
        return [{"value": v} for v in ((low, low), (low, high), (high, high), value)]
    return [{"value": v} for v in (low, high, value)]


class Listener(logging.Handler):
    """Everything that goes wrong, with the move during which it did."""

    def __init__(self, shell):
        super().__init__(logging.ERROR)
        self.shell, self.move, self.problems, self.shown = shell, "before the first move", [], set()

    def note(self, what):
        self.problems.append(f"{self.move}: {what}")

    def emit(self, record):
        reason = record.exc_info[1] if record.exc_info else None
        self.note(f"logged: {record.getMessage()}" + (f" ({type(reason).__name__}: {reason})" if reason else ""))

    def look(self, W, widgets):
        """mmlessons.live shows an unexpected error to the reader in an HTML widget: that is a problem too, once."""
        for w in list(widgets.values()):
            if isinstance(w, W.HTML) and "mm-error" in w.value and w.value not in self.shown:
                self.shown.add(w.value)
                self.note(f"shows {re.sub('<[^>]*>', ' ', w.value).strip()}")

    def __enter__(self):
        self.loggers = [logging.getLogger(), self.shell.kernel.log]
        for logger in self.loggers:
            logger.addHandler(self)
        self.saved = self.shell._showtraceback, threading.excepthook, sys.unraisablehook
        self.shell._showtraceback = lambda kind, error, lines: self.note(f"{kind.__name__}: {error}")
        threading.excepthook = lambda e: self.note(f"in a thread: {e.exc_type.__name__}: {e.exc_value}")
        sys.unraisablehook = lambda e: self.note(f"unraisable: {e.exc_value!r}")
        return self

    def __exit__(self, *_):
        gc.collect()  # a task that nobody awaited reports its exception when it is collected
        self.shell._showtraceback, threading.excepthook, sys.unraisablehook = self.saved
        for logger in self.loggers:
            logger.removeHandler(self)


async def move_every_widget(shell):
    """Returns {"moves": how many, "problems": [...]}."""
    if "ipywidgets" not in sys.modules:
        return {"moves": 0, "problems": []}
    import ipywidgets as W
    from ipywidgets.widgets.widget import _instances

    moves, seen, others = 0, set(), asyncio.all_tasks()
    with Listener(shell) as listener:
        listener.look(W, _instances)
        for _ in range(2):  # the second round is for widgets that the first one made
            fresh = [w for w in list(_instances.values()) if w.model_id not in seen]
            seen.update(w.model_id for w in fresh)
            for w in fresh:
                for state in states(w, W):
                    if w.comm is None or getattr(w, "disabled", False):
                        break
                    listener.move = f"{type(w).__name__} {getattr(w, 'description', '')!r} {state or 'click'}"
                    began = time.perf_counter()
                    try:
                        w.click() if state is None else w.set_state(state)
                    except Exception as error:
                        listener.note(f"{type(error).__name__}: {error}")
                    for _ in range(3):  # what the callback handed to the loop
                        await asyncio.sleep(0)
                    listener.look(W, _instances)
                    moves += 1
                    if (took := time.perf_counter() - began) > PATIENCE:
                        listener.note(f"took {took:.0f} s")
        listener.move = "after the last move"
        if late := asyncio.all_tasks() - others:
            done, _ = await asyncio.wait(late, timeout=2)
            for task in done:
                if not task.cancelled() and task.exception():
                    listener.note(f"in a task: {type(task.exception()).__name__}: {task.exception()}")
        listener.look(W, _instances)
    return {"moves": moves, "problems": listener.problems}
