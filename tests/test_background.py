"""后台训练 / Training in the background."""

import asyncio
import gc
import os
import time

import pytest

from mmcore.background import Background


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


def test_nothing_to_do_is_refused() -> None:
    with pytest.raises(ValueError, match="runs is empty"):
        Background(divmod, [])
