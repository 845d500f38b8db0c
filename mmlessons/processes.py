"""几个一直在的进程，互相传数 / A few processes that stay and send each other numbers.

They are a group of `torch.distributed` (gloo) on this machine, and stand for as many machines. They start once, which
takes seconds, and then do one piece of work after another. They never outlive whoever started them.

它们是这台机器上 `torch.distributed`（gloo）的一组，代表同样多台机器。只启动一次，要几秒，然后一件接一件地做事。启动
它们的一结束，它们也就结束。
"""

import os
import pickle
import shutil
import signal
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from multiprocessing import connection, get_context
from pathlib import Path
from typing import Any

import torch.distributed as dist

import mmcore.distributed  # noqa: F401  (imported once, before the processes part)
from mmcore import checks
from mmcore.checks import refuse
from mmlessons.workers import begin, in_both_languages

MOST = 8
SECONDS = 60.0  # how long an answer may take
GRACE = 2.0  # and how long the others have when one has failed


class Processes:
    """几个进程，各做一份 / A few processes, each of which does its share.

    `run(job, shares)` calls `job(group, *shares[k])` in process k and returns what they return, in order. `group` holds
    just these processes, for `torch.distributed`. The job must be a function that can be imported. If one fails, ends
    or does not answer within `seconds`, or if Stop is pressed, all of them end; the next `run` starts new ones. They
    keep nothing between two pieces of work. Raises TypeError or ValueError for a wrong argument, RuntimeError if a
    process fails.

    `run(job, shares)` 在第 k 个进程里调用 `job(group, *shares[k])`，按次序返回结果。`group` 就是这几个进程，给
    `torch.distributed` 用。`job` 必须是能导入的函数。有一个出错、中途结束、过了 `seconds` 秒没有应答，或者按了停止，就
    全部结束，下一次 `run` 会启动新的。两件事之间它们什么也不记。参数不对时报 TypeError 或 ValueError，有进程出错时报
    RuntimeError。
    """

    def __init__(self, count: int = 4, seconds: float = SECONDS):
        self.count, self.seconds = checks.whole(count, "count"), checks.positive(seconds, "seconds")
        if self.count > MOST:
            refuse(f"最多 {MOST} 个进程，收到 {count}", f"there may be {MOST} processes at most, got {count}")
        self._turn = threading.RLock()  # a slider may ask from another thread while training does
        self._start()

    def run(self, job: Callable[..., Any], shares: Sequence[tuple]) -> list[Any]:
        """每个进程做一份，等它们做完 / Each does its share; waits for all of them."""
        if not 1 <= len(shares) <= self.count:
            refuse(f"需要 1 到 {self.count} 份，收到 {len(shares)} 份",
                   f"there must be 1 to {self.count} shares, got {len(shares)}")
        try:
            work = [pickle.dumps((job, tuple(share), len(shares))) for share in shares]
            here = job.__module__ == "__main__"
        except Exception:
            here = True
        if here:
            refuse("job 需要是能导入的函数（写在文件里，不是写在格子里），参数要能用 pickle 传过去",
                   "job must be a function that can be imported (from a file, not from a cell), with arguments that "
                   "pickle can send", TypeError)
        with self._turn:
            if not self._end.alive or any(process.exitcode is not None for process in self._processes):
                self.close()
                self._start()
            try:
                return self._answers(work)
            except BaseException:  # Stop as well: who has not answered is in the middle of something
                self.close()
                raise

    def close(self) -> None:
        """全部结束 / End all of them."""
        self._end()

    def pids(self) -> list[int]:
        """它们的进程号 / Their process ids."""
        return [process.pid for process in self._processes]

    def _start(self) -> None:
        forks = sys.platform.startswith("linux")  # elsewhere a process that has imported much had better not be forked
        context = get_context("forkserver" if forks else "spawn")
        if forks:
            context.set_forkserver_preload([__name__])  # imported once for all
        folder = tempfile.mkdtemp(prefix="mm-meet-")
        pipes = [context.Pipe() for _ in range(self.count)]
        self._pipes = [mine for mine, _ in pipes]
        self._processes = [context.Process(target=_serve, daemon=True,
                                           args=(theirs, rank, self.count, folder, self.seconds))
                           for rank, (_, theirs) in enumerate(pipes)]
        self._end = weakref.finalize(self, _end, self._processes, self._pipes, folder)
        with _stop_is_not_for_them():
            for process in self._processes:
                process.start()
        for _, theirs in pipes:
            theirs.close()

    def _answers(self, work: list[bytes]) -> list[Any]:
        for pipe, share in zip(self._pipes, work, strict=False):
            with suppress(OSError):  # it has ended, which is seen below
                pipe.send_bytes(share)
        pipes, found, wrong = self._pipes[:len(work)], {}, {}
        until = time.monotonic() + self.seconds
        while len(found) + len(wrong) < len(work):
            waiting = [pipe for k, pipe in enumerate(pipes) if k not in found and k not in wrong]
            ready = connection.wait(waiting, max(0.0, until - time.monotonic()))
            if not ready:
                break
            for pipe in ready:
                k = pipes.index(pipe)
                try:
                    fine, answer = pickle.loads(pipe.recv_bytes())
                except (EOFError, OSError):
                    fine, answer = False, (False, "它中途结束了", "it has ended")
                (found if fine else wrong)[k] = answer
                if not fine:
                    until = min(until, time.monotonic() + GRACE)
        if wrong:
            k = min(wrong, key=lambda k: (wrong[k][0], k))  # the cause, before what follows from it elsewhere
            _, zh, en = wrong[k]
            refuse(f"第 {k} 个进程出错：{zh}；再运行一次，会启动新的进程",
                   f"process {k} has failed: {en}; run this again, and new processes will start", RuntimeError)
        silent = [k for k in range(len(work)) if k not in found]
        if silent:
            refuse(f"进程 {silent} 在 {self.seconds:g} 秒内没有应答；再运行一次，会启动新的进程",
                   f"process {silent} has not answered for {self.seconds:g} s; run this again, and new processes will "
                   "start", RuntimeError)
        return [found[k] for k in range(len(work))]


@contextmanager
def _stop_is_not_for_them():
    """Ctrl-C reaches all processes of a terminal, and one that is just starting would die of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _end(processes: list, pipes: list, folder: str) -> None:
    for process in processes:
        if process.pid is not None:
            process.kill()
    for pipe in pipes:
        pipe.close()
    for process in processes:
        if process.pid is not None:
            process.join(5)
    shutil.rmtree(folder, ignore_errors=True)


def _serve(pipe: connection.Connection, rank: int, count: int, folder: str, seconds: float) -> None:
    begin(leave=lambda: shutil.rmtree(folder, ignore_errors=True))
    local = {"linux": "lo", "darwin": "lo0"}.get(sys.platform)
    if local:
        os.environ["GLOO_SOCKET_IFNAME"] = local  # nothing leaves this machine
    try:
        dist.init_process_group("gloo", store=dist.FileStore(str(Path(folder, "meet")), count), rank=rank,
                                world_size=count, timeout=timedelta(seconds=seconds))
        groups = {size: dist.new_group(list(range(size))) for size in range(1, count + 1)}
        dist.barrier()
        if rank == 0:  # all have met, and whatever kills all at once leaves nothing behind
            shutil.rmtree(folder, ignore_errors=True)
        problem = None
    except Exception as error:
        problem = _told(error)
    while True:
        try:
            job, share, size = pickle.loads(pipe.recv_bytes())
        except EOFError:  # whoever started this process is gone
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)
        except Exception as error:  # what was sent cannot be read here
            pipe.send_bytes(pickle.dumps((False, _told(error))))
            continue
        try:
            answer = (True, job(groups[size], *share)) if problem is None else (False, problem)
            answer = pickle.dumps(answer)
        except (Exception, SystemExit) as error:
            answer = pickle.dumps((False, _told(error)))
        pipe.send_bytes(answer)


def _told(error: BaseException) -> tuple[bool, str, str]:
    """Does it follow from an error elsewhere? And what it says; ours say it in two languages already."""
    follows = isinstance(error, RuntimeError) or str(error).endswith("see the error there")
    zh, found, en = str(error).partition(" / ")
    return (follows, zh, en) if found and isinstance(error, (TypeError, ValueError, RuntimeError)) else (
        follows, *in_both_languages(error))
