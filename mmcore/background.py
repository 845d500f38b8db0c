"""后台训练：读者往下读，它自己做完 / Training in the background, done while the reader reads on."""

import asyncio
import os
import signal
import weakref
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
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

    Raises: ValueError `runs` 是空的 / if `runs` is empty.
    """

    def __init__(self, job: Callable[..., Any], runs: Sequence[tuple]):
        checks.require(len(runs) > 0, "runs 是空的，需要至少一组参数", "runs is empty, expected at least one")
        context = get_context("spawn")
        numbered = list(enumerate(runs))
        count = min(WORKERS, os.cpu_count() or 1, len(runs))
        self._done: dict[int, Any] = {}
        self._owed: dict[Connection, list[int]] = {}  # which results each process still has to send
        self._processes = []
        for worker in range(count):
            mine = numbered[worker::count]
            here, there = context.Pipe(duplex=False)
            process = context.Process(target=_do_all, args=(job, mine, there), daemon=True)
            process.start()
            there.close()  # so that the end of the process ends the pipe
            self._owed[here] = [number for number, _ in mine]
            self._processes.append(process)
            weakref.finalize(self, process.terminate)

    async def results(self) -> list[Any]:
        """等它做完，每组参数一份结果；等的时候滑块照样有效 / Wait for it, one result for each; sliders act meanwhile.

        Raises: RuntimeError 进程中途结束，或某一次出了错 / if a process ended early or one of the runs failed.
        """
        while any(self._owed.values()):
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
        return [self._done[number] for number in sorted(self._done)]


def _do_all(job: Callable[..., Any], runs: list[tuple[int, tuple]], out: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Stop is for the notebook's own training
    if hasattr(os, "nice"):
        os.nice(10)
    torch.set_num_threads(1)
    for number, arguments in runs:
        try:
            out.send((number, job(*arguments), None))
        except Exception as error:
            out.send((number, None, f"{type(error).__name__}: {error}"))
