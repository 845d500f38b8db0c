"""每一课的时间和最多用的内存 / The time of each lesson, and the most memory it holds.

    python -m benchmarks.notebooks 00 06      # all of them if none is named

Runs each from top to bottom with nobody watching and nothing kept from an earlier run. The time is that of the clock
on the wall. The memory is that of the kernel and its background processes, looked at every tenth of a second; on Linux
what processes share is counted once, elsewhere once for each.

从头到尾运行一次，没有人在看，也不用以前留下的结果。时间是墙上的钟；内存是内核连同后台进程的物理内存，十分之一秒看一次；
几个进程共用的部分，在 Linux 上只算一次，在别处各算一次。
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

NOTEBOOKS = sorted(Path(__file__).parents[1].glob("notebooks/*.ipynb"))


def memory(process: psutil.Process) -> int:
    """What the children of this process hold."""
    total = 0
    for child in process.children(recursive=True):
        with suppress(psutil.Error):
            total += getattr(child.memory_full_info(), "pss", 0) or child.memory_info().rss
    return total


def run(path: Path) -> tuple[float, float]:
    """秒，GB / Seconds, GB."""
    environment = {name: value for name, value in os.environ.items() if name != "MM_RESULTS"} | {"MM_LIVE": "0"}
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/errors", "w+") as errors:
        began, most = time.perf_counter(), 0
        process = psutil.Popen(
            [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--output-dir", folder, str(path),
             "--ExecutePreprocessor.timeout=1800"], env=environment, stderr=errors)
        while process.poll() is None:
            with suppress(psutil.Error):
                most = max(most, memory(process))
            time.sleep(0.1)
        if process.returncode:
            raise RuntimeError(f"{path.name}: {Path(errors.name).read_text()[-2000:]}")
        return time.perf_counter() - began, most / 1e9


def show(chosen: Sequence[str]) -> None:
    print(f"{'lesson':<34s} {'seconds':>8s} {'GB':>6s}")
    for path in NOTEBOOKS:
        if not chosen or path.stem.startswith(tuple(chosen)):
            seconds, most = run(path)
            print(f"{path.stem:<34s} {seconds:>8.0f} {most:>6.1f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("lessons", nargs="*", help="the first digits of their names; all if none is given")
    show(parser.parse_args().lessons)
