"""后台训练：读者往下读，它自己做完 / Training in the background, done while the reader reads on."""

import asyncio
import signal
import weakref
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import torch

from mmcore import checks


class Background:
    """在另一个进程里依次做完几件事 / Does several things in turn in another process.

    `job(*arguments)` 必须是能导入的函数，对 `runs` 里的每一组参数各做一次，用一个线程。这个对象不再被用到（例如格子
    重新运行）或内核关闭时，进程随之结束。

    `job(*arguments)` must be a function that can be imported; it is called once for each group of arguments in `runs`,
    on one thread. The process ends when nobody holds this object any more (a cell run again, say), and with the kernel.

    Raises: ValueError `runs` 是空的 / if `runs` is empty.
    """

    def __init__(self, job: Callable[..., Any], runs: Sequence[tuple]):
        checks.require(len(runs) > 0, "runs 是空的，需要至少一组参数", "runs is empty, expected at least one")
        context = get_context("spawn")
        self._results, there = context.Pipe(duplex=False)
        self._process = context.Process(target=_do_all, args=(job, list(runs), there), daemon=True)
        self._process.start()
        there.close()  # so that the end of the process ends the pipe
        self._count, self._done = len(runs), []
        weakref.finalize(self, self._process.terminate)

    async def results(self) -> list[Any]:
        """等它做完，每组参数一份结果；等的时候滑块照样有效 / Wait for it, one result for each; sliders act meanwhile.

        Raises: RuntimeError 进程中途结束，或某一次出了错 / if the process ended early or one of the runs failed.
        """
        while len(self._done) < self._count:
            while not self._results.poll():
                await asyncio.sleep(0.1)
            try:
                result, failure = self._results.recv()
            except EOFError:
                result, failure = None, "进程中途结束 / the process ended early"
            checks.require(failure is None, f"后台训练失败：{failure}；请重新运行开始它的那一格",
                           f"the training in the background failed: {failure}; run the cell that started it again",
                           RuntimeError)
            self._done.append(result)
        return self._done


def _do_all(job: Callable[..., Any], runs: list[tuple], out: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Stop is for the notebook's own training
    torch.set_num_threads(1)
    for arguments in runs:
        try:
            out.send((job(*arguments), None))
        except Exception as error:
            out.send((None, f"{type(error).__name__}: {error}"))
