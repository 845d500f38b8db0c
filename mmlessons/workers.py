"""后台训练：读者往下读，它自己做完 / Training in the background, done while the reader reads on."""

import asyncio
import hashlib
import json
import os
import signal
import weakref
from collections.abc import Callable, Sequence
from functools import cache
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from mmcore import checks

WORKERS = 2  # more would take the memory of a small machine


class Background:
    """在另外的进程里做完几件事 / Does several things in other processes.

    `job(*arguments)` 必须是能导入的函数，对 `runs` 里的每一组参数各做一次，每次用一个线程，最多两次同时进行。它们让着
    前台：有人在用的核，它们不抢。这个对象不再被用到（例如格子重新运行）或内核关闭时，进程随之结束。

    `job(*arguments)` must be a function that can be imported; it is called once for each group of arguments in `runs`,
    on one thread, at most two at a time. They give way to the foreground and take no core that is in use. The processes
    end when nobody holds this object any more (a cell run again, say), and with the kernel.

    环境变量 MM_RESULTS 给出一个文件夹时，做完的结果留在那里，同样的代码和参数不做第二遍：测试要把同一课打开三次。

    Where the environment variable MM_RESULTS names a folder, finished results are kept there, and the same code with
    the same arguments is not run twice: the tests open each lesson three times.

    Raises: ValueError `runs` 是空的 / if `runs` is empty.
    """

    def __init__(self, job: Callable[..., Any], runs: Sequence[tuple]):
        checks.require(len(runs) > 0, "runs 是空的，需要至少一组参数", "runs is empty, expected at least one")
        context = get_context("spawn")
        self._done: dict[int, Any] = {}
        self._owed: dict[Connection, list[int]] = {}  # which results each process still has to send
        self._processes = []
        todo = []
        for number, arguments in enumerate(runs):
            kept = _place(job, arguments)
            if kept is not None and kept.is_file():
                self._done[number] = json.loads(kept.read_text(encoding="utf-8"))
            else:
                todo.append((number, arguments, kept))
        count = min(WORKERS, os.cpu_count() or 1, len(todo))
        for worker in range(count):
            mine = todo[worker::count]
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_do_all, args=(job, mine, there), daemon=True)
            process.start()
            there.close()  # so that the end of the process ends the pipe
            self._owed[here] = [number for number, *_ in mine]
            self._processes.append(process)
            weakref.finalize(self, process.terminate)

    async def results(self, first: int | None = None) -> list[Any]:
        """等它做完，每组参数一份结果；等的时候滑块照样有效 / Wait for it, one result for each; sliders act meanwhile.

        给了 `first`，只等最前面这么多组 / With `first` it waits for that many at the front alone.

        Raises: TypeError / ValueError `first` 不对 / if `first` is wrong; RuntimeError 进程中途结束，或某一次出了错 /
        if a process ended early or one of the runs failed.
        """
        count = len(self._done) + sum(len(owed) for owed in self._owed.values())
        wanted = count if first is None else first
        checks.whole(wanted, "first")
        checks.require(wanted <= count, f"first 最多 {count}，收到 {wanted}",
                       f"first may be at most {count}, got {wanted}")
        while not all(number in self._done for number in range(wanted)):
            ready = [pipe for pipe, owed in self._owed.items() if owed and pipe.poll()]
            if not ready:
                await asyncio.sleep(0.1)
            for pipe in ready:
                try:
                    number, result, failure = pipe.recv()
                except EOFError:
                    number, result, failure = None, None, "进程中途结束 / the process ended early"
                checks.require(failure is None, f"后台训练失败：{failure}；请重新运行开始它的那一格",
                               f"the training in the background failed: {failure}; run the cell that started it again",
                               RuntimeError)
                self._done[number] = result
                self._owed[pipe].remove(number)
        return [self._done[number] for number in range(wanted)]


def _place(job: Callable[..., Any], arguments: tuple) -> Path | None:
    """这次的结果留在哪里；None 表示不留 / Where the result of this run is kept, None if it is not."""
    folder = os.environ.get("MM_RESULTS")
    if not folder:
        return None
    run = f"{_code()} {job.__module__}.{job.__qualname__} {arguments!r}"
    return Path(folder) / f"{hashlib.sha256(run.encode()).hexdigest()}.json"


@cache
def _code() -> str:
    """mmcore 的代码和数据的校验和 / A checksum of mmcore's code and data."""
    package = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()


def _keep(place: Path | None, result: Any) -> None:
    """留下结果，但只留读回来一模一样的 / Keep a result, if it can be read back exactly as it is."""
    if place is None:
        return
    try:
        written = json.dumps(result)
        same = json.loads(written) == result
    except (TypeError, ValueError):
        return
    if same:
        new = place.with_suffix(f".{os.getpid()}")
        new.write_text(written, encoding="utf-8")
        new.replace(place)


def _do_all(job: Callable[..., Any], runs: list[tuple[int, tuple, Path | None]], out: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Stop is for the notebook's own training
    if hasattr(os, "nice"):
        os.nice(10)
    torch.set_num_threads(1)
    for number, arguments, place in runs:
        try:
            result = job(*arguments)
            _keep(place, result)
            out.send((number, result, None))
        except Exception as error:
            out.send((number, None, f"{type(error).__name__}: {error}"))
