"""后台训练 / Training in the background."""

import asyncio
import gc
import os
import tempfile
import time

import pytest

from mmlessons import workers as background
from mmlessons.workers import Background


def test_results_come_in_order_and_may_be_asked_for_twice() -> None:
    work = Background(divmod, [(7, 2), (9, 4), (5, 5)])
    assert asyncio.run(work.results()) == [(3, 1), (2, 1), (1, 0)]
    assert asyncio.run(work.results()) == [(3, 1), (2, 1), (1, 0)]


def test_a_run_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"后台训练失败.*ZeroDivisionError"):
        asyncio.run(Background(divmod, [(1, 0)]).results())


def test_a_process_that_dies_is_an_error_and_no_endless_wait() -> None:
    work = Background(os._exit, [(1,), (2,)])
    for _ in range(2):
        with pytest.raises(RuntimeError, match="the process ended early"):
            asyncio.run(work.results())


def test_a_cell_run_again_ends_the_first_processes() -> None:
    work = Background(time.sleep, [(60,), (60,)])
    processes = work._processes
    del work
    gc.collect()
    for process in processes:
        process.join(10)
        assert not process.is_alive()


@pytest.mark.skipif(not hasattr(os, "nice") or (os.cpu_count() or 1) < 2, reason="one core, or no niceness")
def test_two_run_at_a_time_and_give_way_to_the_foreground() -> None:
    assert len(set(asyncio.run(Background(os.getpid, [()] * 4).results()))) == 2
    assert asyncio.run(Background(os.nice, [(0,)]).results())[0] > os.nice(0)


def test_the_first_results_do_not_wait_for_the_rest() -> None:
    work = Background(_slowly, [(0, 1.0), (0, 2.0), (60, 3.0)])
    assert asyncio.run(work.results(2)) == [1.0, 2.0]
    for wrong, says in ((0, "first"), (4, "first may be at most 3, got 4")):
        with pytest.raises(ValueError, match=says):
            asyncio.run(work.results(wrong))


def _slowly(seconds: float, result: object) -> object:
    time.sleep(seconds)
    return result


def _note(folder: str, result: object) -> object:
    """Leave a trace of having run."""
    tempfile.mkstemp(dir=folder)
    return {"as": result}


def test_the_tests_run_the_same_thing_once(tmp_path, monkeypatch) -> None:
    kept, traces = tmp_path / "kept", tmp_path / "traces"
    kept.mkdir()
    traces.mkdir()
    monkeypatch.setenv("MM_RESULTS", str(kept))
    runs = [(str(traces), 0.1), (str(traces), "猫")]
    for _ in range(2):
        assert asyncio.run(Background(_note, runs).results()) == [{"as": 0.1}, {"as": "猫"}]
    assert len(list(traces.iterdir())) == 2


@pytest.mark.parametrize(("result", "kept"), [(0.1, True), ({"a": [1, None]}, True), ((1, 2), False), ({1: 2}, False),
                                              ({1, 2}, False), (float("nan"), False)])
def test_a_result_is_kept_only_if_it_is_read_back_as_it_was(tmp_path, monkeypatch, result, kept) -> None:
    monkeypatch.setenv("MM_RESULTS", str(tmp_path))
    background._keep(background._place(divmod, (7, 2)), result)
    assert len(list(tmp_path.iterdir())) == kept
    assert background._place(divmod, (7, 2)).is_file() == kept
    assert not background._place(divmod, (7, 3)).is_file()
    assert not background._place(pow, (7, 2)).is_file()
    monkeypatch.setattr(background, "_code", lambda: "another version")
    assert not background._place(divmod, (7, 2)).is_file()
    monkeypatch.delenv("MM_RESULTS")
    assert background._place(divmod, (7, 2)) is None


def test_nothing_to_do_is_refused() -> None:
    with pytest.raises(ValueError, match="runs is empty"):
        Background(divmod, [])
