"""后台训练 / Training in the background."""

import asyncio
import dataclasses
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import torch

from mmlessons import workers
from mmlessons.workers import Background

ROOT = Path(workers.__file__).parents[1]


@dataclasses.dataclass(frozen=True)
class Scores:
    by_artist: dict[int, float]


@dataclasses.dataclass(frozen=True)
class Study:
    name: str
    scores: tuple[Scores, ...]
    table: torch.Tensor


class Unknown:
    """A class that a store may not bring in."""


STUDY = Study("猫", (Scores({1: 0.5}), Scores({})), torch.tensor([[1.0, 2.0]]))


def _slowly(seconds: float, result: object) -> object:
    time.sleep(seconds)
    return result


def _study(folder: str, number: float) -> Study:
    tempfile.mkstemp(dir=folder)  # leaves a trace of having run
    return dataclasses.replace(STUDY, table=STUDY.table * number)


def _unknown() -> Unknown:
    return Unknown()


def _conditions() -> tuple[int, int, int, bool]:
    time.sleep(0.5)
    return os.getpid(), os.nice(0), torch.get_num_threads(), signal.getsignal(signal.SIGINT) != signal.SIG_IGN


def finished(job, runs, first=None):
    return asyncio.run(Background(job, runs).results(first))


def test_results_come_in_order_and_may_be_asked_for_twice() -> None:
    work = Background(divmod, [(7, 2), (9, 4), (5, 5)])
    assert asyncio.run(work.results()) == [(3, 1), (2, 1), (1, 0)]
    assert asyncio.run(work.results()) == [(3, 1), (2, 1), (1, 0)]


def test_a_run_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"后台训练失败.*ZeroDivisionError.* / .*ZeroDivisionError"):
        finished(divmod, [(1, 0)])


def test_a_process_that_dies_is_an_error_and_no_endless_wait() -> None:
    work = Background(os._exit, [(1,), (2,)])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the process ended early"):
            asyncio.run(work.results())


def test_the_first_results_do_not_wait_for_the_rest() -> None:
    work = Background(_slowly, [(0, 1.0), (0, 2.0), (60, 3.0)])
    assert asyncio.run(work.results(2)) == [1.0, 2.0]
    for wrong, says in ((0, "first"), (4, "first may be at most 3, got 4")):
        with pytest.raises(ValueError, match=says):
            asyncio.run(work.results(wrong))
    with pytest.raises(ValueError, match="runs is empty"):
        Background(divmod, [])


def test_waiting_that_is_interrupted_leaves_the_runs_alone() -> None:
    work = Background(_slowly, [(0.5, 1.0), (0.5, 2.0), (0.5, 3.0)])

    async def impatient() -> None:
        await asyncio.wait_for(work.results(), 0.01)

    with pytest.raises(TimeoutError):
        asyncio.run(impatient())
    assert asyncio.run(work.results()) == [1.0, 2.0, 3.0]


@pytest.mark.skipif(not hasattr(os, "nice"), reason="no niceness here")
def test_two_run_at_a_time_on_one_thread_and_give_way_to_the_foreground() -> None:
    pids, niceness, threads, stops = zip(*finished(_conditions, [()] * 4), strict=True)
    assert len(set(pids)) <= 2
    assert min(niceness) > os.nice(0)
    assert set(threads) == {1}
    assert not any(stops)


def test_a_cell_run_again_ends_the_first_processes() -> None:
    before = set(multiprocessing.active_children())
    work = Background(time.sleep, [(60,), (60,)])
    processes = set(multiprocessing.active_children()) - before
    assert processes
    del work
    gc.collect()
    for process in processes:
        process.join(10)
        assert not process.is_alive()


@pytest.mark.parametrize("end", ["sys.exit()", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_processes_end_with_the_kernel_however_it_ends(end) -> None:
    if "SIGKILL" in end and not hasattr(signal, "SIGKILL"):
        pytest.skip("no SIGKILL here")
    program = ("import multiprocessing, os, signal, sys, time; from mmlessons.workers import Background; "
               "work = Background(time.sleep, [(60,), (60,)]); time.sleep(4); "
               f"print(*[p.pid for p in multiprocessing.active_children()], flush=True); {end}")
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=50)
    left = [int(pid) for pid in done.stdout.split()]
    assert len(left) == min(2, os.cpu_count() or 1)
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie" for pid in left):
        assert time.monotonic() - began < 30
        time.sleep(0.1)


def test_the_same_thing_runs_once_where_results_are_kept(tmp_path, monkeypatch) -> None:
    kept, traces = tmp_path / "kept", tmp_path / "traces"  # the first is made when it is needed
    traces.mkdir()
    monkeypatch.setenv("MM_RESULTS", str(kept))
    for _ in range(2):
        one, two = finished(_study, [(str(traces), 1.0), (str(traces), 2.0)])
        assert (one.name, one.scores, two.table.tolist()) == ("猫", STUDY.scores, [[2.0, 4.0]])
    assert len(list(traces.iterdir())) == 2


@pytest.mark.parametrize("result", [0.1, {"a": [1, None]}, (1, 2), {1: {("a", 2): "猫"}}, {1, 2}, [True, b"x"]])
def test_what_is_kept_is_read_back_as_it_was(tmp_path, monkeypatch, result) -> None:
    monkeypatch.setenv("MM_RESULTS", str(tmp_path))
    file = workers._file(_slowly, (0, result))
    assert workers._kept(_slowly, file) == []
    workers._do(_slowly, (0, result), file)
    assert workers._kept(_slowly, file) == [result]


def test_another_job_other_arguments_and_other_code_are_not_the_same_thing(monkeypatch) -> None:
    monkeypatch.setenv("MM_RESULTS", "somewhere")
    files = {workers._file(divmod, (7, 2)), workers._file(divmod, (7, 3)), workers._file(pow, (7, 2))}
    monkeypatch.setattr(workers, "_code", lambda: "another version")
    assert len(files | {workers._file(divmod, (7, 2))}) == 4
    monkeypatch.delenv("MM_RESULTS")
    assert workers._file(divmod, (7, 2)) is None


def test_a_store_that_cannot_be_read_or_written_fails_no_training_and_says_so_once(tmp_path, monkeypatch, capsys):
    workers._say_once.cache_clear()
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MM_RESULTS", str(tmp_path / "file"))  # no folder: neither read nor written
    assert finished(divmod, [(7, 2), (9, 4)]) == [(3, 1), (2, 1)]
    assert capsys.readouterr().out.count("some results cannot be kept or read") == 1
    monkeypatch.setenv("MM_RESULTS", str(tmp_path))
    workers._file(divmod, (7, 2)).write_bytes(b"damaged")
    assert finished(divmod, [(7, 2)]) == [(3, 1)]
    assert workers._kept(divmod, workers._file(divmod, (7, 2))) == [(3, 1)]  # and it is whole again


def test_a_class_that_is_not_ours_is_not_read_from_a_store(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MM_RESULTS", str(tmp_path))
    file = workers._file(_unknown, ())
    workers._do(_unknown, (), file)
    assert file.is_file()
    assert workers._kept(_unknown, file) == []
