"""后台训练：读者往下读，它自己做完 / Training in the background, done while the reader reads on."""

import asyncio
import contextlib
import dataclasses
import errno
import hashlib
import io
import os
import pickle
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

import torch

from mmcore import checks
from mmcore.checks import refuse
from mmlessons.machine import cores_here

WORKERS = 2  # unless MM_WORKERS says otherwise; more would take the memory of a small machine
ROOT = Path(__file__).parents[1]
CODE = ("mmcore", "mmlessons/data", "mmlessons/tasks")  # what can change a result

Name = tuple[str, str]  # (Chinese, English)


class Background:
    """在另外的进程里做完几件事 / Do several things in other processes.

    `job(*arguments)` is called once for each group of arguments in `runs`, on one thread, at most two at a time. The
    job must be a function that can be imported. Its processes give way to the foreground and take no core that is in
    use. They end when nobody holds this object any more (when the cell runs again, for example), and with the kernel.
    Where the environment variable MM_RESULTS names a folder, finished results are kept there, and the same code with
    the same arguments does not run twice. A folder that we may only read (that of a teacher) is read and left as it
    is. MM_WORKERS is another number of processes, up to the cores that there are. With 0 there is none: what is not
    kept is done here, when it is asked for, and meanwhile no slider acts. Raises ValueError if `runs` is empty or
    MM_WORKERS is no such number, TypeError if the job or its arguments cannot be sent.

    对 `runs` 里的每一组参数，`job(*arguments)` 各做一次，每次用一个线程，最多两次同时进行。它必须是能导入的函数。这些
    进程让着前台，不抢有人在用的核；不再有人用到这个对象时（例如重新运行那一格），或者内核关闭时，它们随之结束。环境变量
    MM_RESULTS 若给出一个文件夹，做完的结果就留在那里，同样的代码和参数不做第二遍；只许读的文件夹（例如老师的）就只读，
    不去写。MM_WORKERS 可以另定进程的个数，不超过现有的核数。它是 0 时一个进程也没有：没有存下的结果，等到要用时就在这里
    算，这期间滑块不起作用。`runs` 为空，或 MM_WORKERS 不是这样的数时报 ValueError，`job` 或参数传不过去时报 TypeError。
    """

    def __init__(self, job: Callable[..., Any], runs: Sequence[tuple]):
        if not runs:
            refuse("runs 是空的，需要至少一组参数", "runs is empty, expected at least one")
        try:
            pickle.dumps((job, runs))
            here = job.__module__ == "__main__"
        except Exception:  # PicklingError, AttributeError, TypeError, whatever the objects themselves raise
            here = True
        if here:
            refuse("job 需要是能导入的函数（写在文件里，不是写在格子里），参数要能用 pickle 传过去",
                   "job must be a function that can be imported (from a file, not from a cell), with arguments that "
                   "pickle can send", TypeError)
        workers = _workers()
        files = [_file(job, arguments) for arguments in runs]
        self._count = len(runs)
        self._done = {number: kept for number, file in enumerate(files) for kept in _kept(job, file)}
        todo = [number for number in range(len(runs)) if number not in self._done]
        if not workers:
            self._owed = {number: _Here(job, runs[number], files[number]) for number in todo}
        elif todo:
            pool = ProcessPoolExecutor(min(workers, cores_here(), len(todo)), get_context("spawn"), begin)
            self._owed = {number: pool.submit(_do, job, runs[number], files[number]) for number in todo}
            self._processes = list(pool._processes.values())
            end = weakref.finalize(self, _end, self._processes)
            threading._register_atexit(end)  # before the pool's own hook, which waits for the work; atexit comes after
            pool.shutdown(wait=False)  # each process ends when there is no work left

    async def results(self, first: int | None = None) -> list[Any]:
        """等它做完，每组参数一份结果 / Wait for it; one result for each group of arguments.

        With `first` it waits only for that many at the front. Sliders act meanwhile. Raises TypeError or ValueError if
        `first` is wrong, RuntimeError if a process ended early or a run failed.

        给了 `first`，只等最前面这么多组。等的时候滑块照样有效。`first` 不对时报 TypeError 或 ValueError；进程中途结束，
        或某一次出了错，报 RuntimeError。
        """
        wanted = checks.whole(self._count if first is None else first, "first")
        if wanted > self._count:
            refuse(f"first 最多 {self._count}，收到 {wanted}", f"first may be at most {self._count}, got {wanted}")
        while missing := [number for number in range(wanted) if number not in self._done]:
            ready = [number for number in missing if self._owed[number].done()]
            for number in ready:
                self._done[number] = self._receive(number)
            if not ready:
                await asyncio.sleep(0.1)  # interrupted here, the runs go on
        return [self._done[number] for number in range(wanted)]

    def _receive(self, number: int) -> Any:
        try:
            content, kept, why = self._owed[number].result()
            result = None if why else torch.load(io.BytesIO(content), weights_only=False)  # we have just written it
        except BrokenProcessPool:
            why = _ended(self._processes)
        except Exception as error:  # arguments that cannot be sent, a result that cannot be received
            why = in_both_languages(error)
        if why:
            refuse(f"后台训练失败：{why[0]}；请重新运行开始它的那一格",
                   f"the training in the background failed: {why[1]}; run the cell that started it again", RuntimeError)
        if not kept:
            _say_once()
        return result


@dataclasses.dataclass(frozen=True)
class _Here:
    """What is owed where there are no processes: it is done when its result is asked for."""

    job: Callable[..., Any]
    arguments: tuple
    file: Path | None

    def done(self) -> bool:
        return True

    def result(self) -> tuple[bytes, bool, Name | None]:
        return _do(self.job, self.arguments, self.file)


def _workers() -> int:
    """How many processes at most, 0 for none."""
    said = os.environ.get("MM_WORKERS", "").strip() or str(WORKERS)
    if not (said.isascii() and said.isdigit()):
        refuse(f"环境变量 MM_WORKERS 需要是 0、1、2 这样的整数，收到 {said!r}；请改正它，再重新打开笔记本",
               f"the environment variable MM_WORKERS must be a whole number such as 0, 1 or 2, got {said!r}; correct "
               "it and open the notebook again")
    return int(said)


def begin(leave: Callable[[], object] = lambda: None) -> None:
    """一个自己的进程这样开始 / How a process of ours begins: it gives way, hears no Stop, ends with who started it.

    `leave` 在它随之结束以前调用 / `leave` is called before it ends like that.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Stop is for the notebook's own training
    if hasattr(os, "nice"):
        os.nice(10)
    torch.set_num_threads(1)
    threading.Thread(target=lambda: (parent_process().join(), leave(), os._exit(1)), daemon=True).start()


def _end(processes: list) -> None:
    for process in processes:
        process.terminate()


def _ended(processes: list) -> Name:
    """Why the processes are gone; those that were only told to end along with the first do not count."""
    until = time.monotonic() + 5
    while any(process.exitcode is None for process in processes) and time.monotonic() < until:
        time.sleep(0.01)  # join may come back too early: the pool's own thread waits for them as well
    codes = [p.exitcode for p in processes if p.exitcode not in (0, None, -signal.SIGTERM)] or ["?"]
    if codes[0] == -getattr(signal, "SIGKILL", 9):
        return ("进程被系统终止，多半是内存不够，请关掉别的程序",
                "the process was killed, most likely because memory ran out, so close other programs")
    return f"进程中途结束（退出码 {codes[0]}）", f"the process ended early (exit code {codes[0]})"


def in_both_languages(error: BaseException) -> Name:
    """错误说了什么 / What an error says, in both languages."""
    if isinstance(error, MemoryError):
        return "内存不够，请关掉别的程序", "memory ran out, so close other programs"
    said = f"{type(error).__name__}: {error}"
    return said, said


def _do(job: Callable[..., Any], arguments: tuple, file: Path | None) -> tuple[bytes, bool, Name | None]:
    """The result as bytes (tensors would be shared memory otherwise), whether it is where it should be kept, or why
    there is none: an error itself may be impossible to send."""
    written = io.BytesIO()
    try:
        result = job(*arguments)
    except (Exception, SystemExit) as error:  # Stop, where the runs are done here, is for whoever pressed it
        return b"", True, in_both_languages(error)
    try:
        torch.save(result, written)
    except Exception as error:
        zh, en = in_both_languages(error)
        return b"", True, (f"结果无法传回（{zh}）", f"its result cannot be sent back ({en})")
    return written.getvalue(), file is None or keep(file, written.getvalue()), None


def keep(file: Path, content: bytes) -> bool:
    """是否放到了该在的地方（只许读的文件夹里不用放）/ Whether it is where it should be, which in a folder that we may
    only read is nowhere."""
    aside = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        aside.write_bytes(content)
        aside.replace(file)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()
        return error.errno in (errno.EACCES, errno.EROFS) and os.path.isdir(file.parent)
    return True


def _file(job: Callable[..., Any], arguments: tuple) -> Path | None:
    """Where the result of this run is kept, None if it is not."""
    folder = os.environ.get("MM_RESULTS")
    if not folder:
        return None
    own = getattr(sys.modules.get(job.__module__), "__file__", None)
    code = _code(), Path(own).read_bytes() if own else b"", torch.__version__
    run = pickle.dumps((code, job, arguments))  # all of it: what is printed of a large tensor leaves numbers out
    return Path(folder) / f"{hashlib.sha256(run).hexdigest()}.pt"


@cache
def _code() -> str:
    """A checksum of the code and data that can change a result."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in CODE for path in (ROOT / folder).rglob("*")):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def _kept(job: Callable[..., Any], file: Path | None) -> list[Any]:
    """The stored result, or nothing. Of classes it may hold only the dataclasses of the job's module and of ours."""
    modules = [module for name, module in list(sys.modules.items())
               if name == job.__module__ or name.startswith(("mmcore.", "mmlessons."))]
    known = [x for module in modules for x in vars(module).values() if dataclasses.is_dataclass(x)]
    try:
        with torch.serialization.safe_globals([x for x in known if isinstance(x, type)]):
            return [torch.load(file, weights_only=True)] if file else []
    except FileNotFoundError:
        return []
    except Exception:  # whatever a damaged file brings about
        _say_once()
        return []


@cache
def _say_once() -> None:
    print("MM_RESULTS：有的结果存不进或读不出，照常训练 / "
          "MM_RESULTS: some results cannot be kept or read; training as usual")
