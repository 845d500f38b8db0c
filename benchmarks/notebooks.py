"""每一课的时间和最多用的内存 / The time of each lesson, and the most memory it holds.

    python -m benchmarks.notebooks [01 06 ...]      # all of them by default

从头到尾运行一次，没有人在看。时间是墙上的钟；内存是内核连同后台进程的物理内存之和，十分之一秒看一次。

Runs each from top to bottom with nobody watching. The time is that of the clock on the wall; memory is the sum of the
physical memory of the kernel and its background processes, looked at every tenth of a second.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

NOTEBOOKS = sorted(Path(__file__).parents[1].glob("notebooks/*.ipynb"))


def memory(process: psutil.Process) -> int:
    total = 0
    for one in [process, *process.children(recursive=True)]:
        with suppress(psutil.Error):
            total += one.memory_info().rss
    return total


def run(path: Path) -> tuple[float, float]:
    """秒，GB / Seconds, GB."""
    with tempfile.TemporaryDirectory() as folder:
        began, most = time.perf_counter(), 0
        process = psutil.Popen(
            [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output-dir", folder, str(path),
             "--ExecutePreprocessor.timeout=1800"], env=os.environ | {"MM_LIVE": "0"}, stderr=subprocess.PIPE)
        while process.poll() is None:
            with suppress(psutil.Error):
                most = max(most, memory(process))
            time.sleep(0.1)
        if process.returncode:
            raise RuntimeError(f"{path.name}: {process.stderr.read().decode()[-2000:]}")
        return time.perf_counter() - began, most / 1e9


def lines(chosen: tuple[str, ...] = ()) -> Iterator[str]:
    yield f"{'lesson':<34s} {'seconds':>8s} {'GB':>6s}"
    for path in NOTEBOOKS:
        if not chosen or path.stem.startswith(chosen):
            seconds, most = run(path)
            yield f"{path.stem:<34s} {seconds:>8.0f} {most:>6.1f}"


if __name__ == "__main__":
    for line in lines(tuple(sys.argv[1:])):
        print(line, flush=True)
