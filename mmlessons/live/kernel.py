"""与 Jupyter 内核打交道的几件事 / What has to be known about a Jupyter kernel, in one place.

训练是内核自己事件循环上的一个任务，所以滑块的消息在两步之间就能到达。回调可能来自另一个线程（子 shell），
因此它们只把事情交给事件循环，从不直接碰模型。

Training is a task on the kernel's own event loop, so that the message of a slider arrives between two steps. Callbacks
may come from another thread (a subshell), therefore they hand their work to the loop and never touch the model.
"""

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from IPython import get_ipython

_awaiting = 0  # how many cells are busy in `await run.wait()`


def is_live() -> bool:
    """有人在看吗 / Is a person watching?

    The environment variable MM_LIVE decides if it is 0 or 1. Otherwise the request that runs the cell says whether
    somebody could answer a question: JupyterLab and the like say yes, nbconvert and nbval no. Voila says no, but it
    shows the page to a reader.

    环境变量 MM_LIVE 为 0 或 1 时由它决定。否则看运行这一格的请求：它写着有没有人能回答提问。JupyterLab 等等说有，
    nbconvert 和 nbval 说没有。Voila 也说没有，可它把页面给读者看。
    """
    chosen = os.environ.get("MM_LIVE")
    if chosen in ("0", "1"):
        return chosen == "1"
    if "VOILA_REQUEST_URL" in os.environ:
        return hasattr(get_ipython(), "kernel")
    return bool(_request().get("content", {}).get("allow_stdin"))


def running_cell() -> str | None:
    """正在运行的格子的编号，没有就用它的代码 / The id of the cell that is running, or its code where it has none."""
    return _request().get("metadata", {}).get("cellId") or _request().get("content", {}).get("code")


def _request() -> dict:
    """The message that asked for the cell to be run; empty outside a kernel."""
    kernel = getattr(get_ipython(), "kernel", None)
    return {} if kernel is None else kernel.get_parent("shell")


def running_loop() -> asyncio.AbstractEventLoop | None:
    """正在运行的事件循环，没有就是 None / The loop that is running, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def hand_over(loop: asyncio.AbstractEventLoop | None, work: Callable[[], None]) -> None:
    """把事情交给内核的循环；没有循环就当场做 / Give work to the loop of the kernel; without one, do it."""
    if loop is None or loop.is_closed():
        work()
    else:
        loop.call_soon_threadsafe(work)


@contextmanager
def awaiting_cell() -> Iterator[None]:
    """这期间有一个格子在等待 / Meanwhile a cell awaits."""
    global _awaiting
    _awaiting += 1
    try:
        yield
    finally:
        _awaiting -= 1


def say_idle(*_: object) -> None:
    """告诉浏览器这条消息处理完了 / Tell the browser that its message has been dealt with.

    While a cell awaits, ipykernel 7 handles a slider's message yet never reports "idle" for it, and the slider sends no
    further value until it hears that. So we say it; should a later ipykernel say it too, twice does no harm.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    if _awaiting and hasattr(kernel, "_publish_status") and threading.current_thread() is threading.main_thread():
        kernel._publish_status("idle", "shell")


def on_stop(pause: Callable[[], None]) -> None:
    """格子之间按下停止时暂停 / Pause when Stop is pressed between cells.

    ipykernel ignores SIGINT between cells, so that Stop would do nothing. We take it only where it is ignored: while a
    cell runs, the handler is ipykernel's and stays so.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: pause())
