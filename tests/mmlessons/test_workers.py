"""后台训练 / Training in the background."""

import asyncio
import contextlib
import dataclasses
import gc
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from mmlessons import workers
from mmlessons.workers import Background
from tests.support import small_disk

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


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _conditions() -> tuple[int, int, int, bool]:
    time.sleep(0.5)
    return os.getpid(), os.nice(0), torch.get_num_threads(), signal.getsignal(signal.SIGINT) != signal.SIG_IGN


def finished(job, runs, first=None):
    return asyncio.run(Background(job, runs).results(first))


def test_results_come_in_order_and_may_be_asked_for_twice() -> None:
    work = Background(divmod, [(7, 2), (9, 4), (5, 5)])
    assert asyncio.run(work.results()) == [(3, 1), (2, 1), (1, 0)]
    assert asyncio.run(work.results()) == [(3, 1), (2, 1), (1, 0)]


class Odd(Exception):
    """It can be sent from a process, and not received."""

    def __init__(self, a: int, b: int):
        super().__init__(f"odd {a + b}")


def _fail(kind: str) -> object:
    if kind == "unsendable":
        return threading.Lock()
    if kind == "exit":
        sys.exit(3)
    raise {"memory": MemoryError(), "odd": Odd(1, 2), "plain": KeyError("x")}[kind]


FAILURES = {
    "plain": r"后台训练失败：KeyError: 'x'；请重新.* / .* failed: KeyError: 'x'; run the cell",
    "odd": r"后台训练失败：Odd: odd 3；.* / .* failed: Odd: odd 3; run",
    "memory": r"内存不够，.* / .* failed: memory ran out, so close other programs",
    "exit": r"后台训练失败：SystemExit: 3；.* / .* failed: SystemExit: 3;",
    "unsendable": r"结果无法传回（TypeError: .*lock.* / .* its result cannot be sent back \(TypeError: .*lock",
}


def test_processes__each_run_that_fails_says_why_in_plain_words_and_spoils_no_other() -> None:
    work = Background(_fail, [(kind,) for kind in FAILURES])
    for number, says in enumerate(FAILURES.values()):
        with pytest.raises(RuntimeError, match=says):
            work._receive(number)
    with pytest.raises(RuntimeError, match=FAILURES["plain"]):
        asyncio.run(work.results())


@pytest.mark.parametrize(("job", "arguments", "says"), [
    (os._exit, (7,), r"进程中途结束（退出码 7）.* / .*the process ended early \(exit code 7\)"),
    (_kill, (), r"进程被系统终止，多半是内存不够.* / .*the process was killed, most likely because memory ran out"),
])
def test_processes__one_that_dies_is_an_error_that_says_why_and_no_endless_wait(job, arguments, says) -> None:
    if job is _kill and not hasattr(signal, "SIGKILL"):
        pytest.skip("no SIGKILL here")
    work = Background(job, [arguments, arguments])
    for _ in range(2):
        with pytest.raises(RuntimeError, match=says):
            asyncio.run(work.results())


def test_processes__any_result_that_can_be_pickled_comes_back_tensors_included() -> None:
    state = torch.nn.BatchNorm1d(3).state_dict()
    sent = [torch.arange(3.0), {"f": [torch.ones(2, 2)]}, state, Unknown(), STUDY]
    one, two, three, four, five = finished(_slowly, [(0, result) for result in sent])
    torch.testing.assert_close((one, two, three, five.table), (sent[0], sent[1], state, STUDY.table), rtol=0, atol=0)
    assert isinstance(four, Unknown)
    assert (five.name, five.scores) == (STUDY.name, STUDY.scores)


@pytest.mark.parametrize("job", [lambda: 0, threading.Lock])
def test_a_job_that_cannot_be_sent_is_refused_before_a_process_starts(job) -> None:
    runs = [()] if job is not threading.Lock else [(threading.Lock(),)]
    with pytest.raises(TypeError, match=r"job 需要是能导入的函数.*job must be a function that can be imported"):
        Background(job, runs)


def test_a_job_written_in_a_cell_is_refused() -> None:
    def job() -> None: ...
    job.__module__, job.__qualname__ = "__main__", "job"
    with pytest.raises(TypeError, match="from a file, not from a cell"):
        Background(job, [()])


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


@pytest.mark.parametrize(("said", "cores", "processes"), [
    (None, 8, 2), ("", 8, 2), ("3", 8, 3), ("9", 8, 4), ("3", 1, 1), (None, 1, 1)])
def test_there_are_as_many_processes_as_MM_WORKERS_says_and_never_more_than_cores_or_runs(
        said, cores, processes, monkeypatch) -> None:
    monkeypatch.delenv("MM_RESULTS", raising=False)
    monkeypatch.delenv("MM_WORKERS", raising=False)
    if said is not None:
        monkeypatch.setenv("MM_WORKERS", said)
    monkeypatch.setattr(workers, "cores_here", lambda: cores)
    work = Background(_slowly, [(0, 1), (0, 2), (0, 3), (0, 4)])
    assert len(work._processes) == processes
    assert asyncio.run(work.results()) == [1, 2, 3, 4]


@pytest.mark.parametrize("said", ["two", "-1", "1.5", "²"])
def test_a_number_of_processes_that_is_none_is_refused_in_both_languages(said, monkeypatch) -> None:
    monkeypatch.setenv("MM_WORKERS", said)
    with pytest.raises(ValueError, match=r"MM_WORKERS 需要是 .* / .* MM_WORKERS must be a whole number"):
        Background(divmod, [(7, 2)])


def test_without_processes_what_is_not_kept_is_done_here_when_it_is_asked_for(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MM_WORKERS", "0")
    monkeypatch.setenv("MM_RESULTS", str(tmp_path / "kept"))
    (tmp_path / "traces").mkdir()
    before = set(multiprocessing.active_children())
    work = Background(_study, [(str(tmp_path / "traces"), float(number)) for number in (1, 2, 3)])
    assert list((tmp_path / "traces").iterdir()) == []
    assert len(asyncio.run(work.results(2))) == len(list((tmp_path / "traces").iterdir())) == 2
    assert [study.table.tolist() for study in asyncio.run(work.results())] == [[[1, 2]], [[2, 4]], [[3, 6]]]
    assert set(multiprocessing.active_children()) <= before
    assert len(finished(_study, [(str(tmp_path / "traces"), 2.0)])) == 1
    assert len(list((tmp_path / "traces").iterdir())) == 3  # nothing ran twice, with this object or the next


def _interrupted_once(file: str) -> str:
    if not os.path.exists(file):
        Path(file).write_text("")
        raise KeyboardInterrupt
    return "done"


def test_without_processes_a_failure_says_why_and_stop_stops_and_can_be_followed_by_another_try(
        tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MM_WORKERS", "0")
    with pytest.raises(RuntimeError, match=FAILURES["plain"]):
        finished(_fail, [("plain",)])
    work = Background(_interrupted_once, [(str(tmp_path / "file"),)])
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(work.results())
    assert asyncio.run(work.results()) == ["done"]


def test_a_cell_run_again_ends_the_first_processes() -> None:
    before = set(multiprocessing.active_children())
    work = Background(time.sleep, [(60,), (60,)])
    processes = set(multiprocessing.active_children()) - before
    assert processes
    del work
    gc.collect()
    began = time.monotonic()
    while any(process.is_alive() for process in processes):  # not by join: the pool's own thread waits for them too
        assert time.monotonic() - began < 30
        time.sleep(0.1)


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
    large = torch.zeros(5000)
    assert workers._file(divmod, (large,)) != workers._file(divmod, (large.clone().index_fill_(0, torch.tensor(9), 1),))


def test_without_a_store_no_checksum_of_code_and_data_is_computed(monkeypatch) -> None:
    monkeypatch.delenv("MM_RESULTS", raising=False)
    monkeypatch.setattr(workers, "_code", lambda: pytest.fail("computed"))
    assert workers._file(divmod, (7, 2)) is None


@pytest.mark.parametrize("store", ["a file", "no folder may be made", "an empty result", "a foreign result"])
def test_processes__a_store_that_cannot_be_used_fails_no_training_and_is_said_once(store, tmp_path, monkeypatch,
                                                                                  capsys) -> None:
    workers._say_once.cache_clear()
    folder = tmp_path / "kept"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MM_RESULTS", str({"a file": tmp_path / "file", "no folder may be made": tmp_path / "file/kept"}
                                         .get(store, folder)))
    if store.endswith("result"):
        folder.mkdir()
        workers._file(divmod, (7, 2)).write_bytes(b"" if store == "an empty result" else b"foreign")
    assert finished(divmod, [(7, 2)]) == [(3, 1)]
    assert capsys.readouterr().out.count("some results cannot be kept or read") == 1
    if store.endswith("result"):
        assert workers._kept(divmod, workers._file(divmod, (7, 2))) == [(3, 1)]  # and it is whole again


def test_processes__a_disk_that_fills_up_keeps_the_older_result_and_leaves_no_litter(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MM_RESULTS", str(tmp_path))
    file = workers._file(divmod, (7, 2))
    file.write_bytes(b"older")
    with small_disk():
        content, kept, why = workers._do(divmod, (7, 2), file)
    assert (len(content) > 100, kept, why) == (True, False, None)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"older"]


@contextlib.contextmanager
def _somebody_else() -> Iterator[None]:
    """For whom permissions count, which they do not for root."""
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


@pytest.mark.skipif(os.name != "posix", reason="no permissions of this kind here")
def test_a_folder_that_may_only_be_read_is_left_as_it_is_and_is_no_fault_unless_it_cannot_be_made() -> None:
    with tempfile.TemporaryDirectory() as place:  # not below pytest's own folder, which nobody else may enter
        os.chmod(place, 0o555)
        with _somebody_else():
            for folder, well in ((place, True), (f"{place}/kept", False)):
                content, kept, why = workers._do(divmod, (7, 2), Path(folder) / "one.pt")
                assert (len(content) > 100, kept, why) == (True, well, None)
        assert os.listdir(place) == []


@pytest.mark.skipif(os.name != "posix", reason="no umask here")
def test_processes__a_result_that_is_kept_has_the_permissions_that_the_umask_asks_for(tmp_path) -> None:
    old = os.umask(0o027)
    try:
        workers._do(divmod, (7, 2), tmp_path / "shared/one.pt")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "shared/one.pt").stat().st_mode) == 0o640


def test_a_class_that_is_not_ours_is_not_read_from_a_store(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MM_RESULTS", str(tmp_path))
    file = workers._file(_unknown, ())
    workers._do(_unknown, (), file)
    assert file.is_file()
    assert workers._kept(_unknown, file) == []
