"""后台训练 / Training in the background."""

import asyncio
import gc
import os
import time

import pytest

from mmcore.background import Background


def test_results_come_in_order_and_may_be_asked_for_twice() -> None:
    work = Background(divmod, [(7, 2), (9, 4)])
    assert asyncio.run(work.results()) == [(3, 1), (2, 1)]
    assert asyncio.run(work.results()) == [(3, 1), (2, 1)]


def test_a_run_that_fails_says_why() -> None:
    with pytest.raises(RuntimeError, match=r"后台训练失败.*ZeroDivisionError"):
        asyncio.run(Background(divmod, [(1, 0)]).results())


def test_a_process_that_dies_is_an_error_and_no_endless_wait() -> None:
    with pytest.raises(RuntimeError, match="the process ended early"):
        asyncio.run(Background(os._exit, [(1,)]).results())


def test_a_cell_run_again_ends_the_first_process() -> None:
    work = Background(time.sleep, [(60,)])
    process = work._process
    del work
    gc.collect()
    process.join(10)
    assert not process.is_alive()


def test_nothing_to_do_is_refused() -> None:
    with pytest.raises(ValueError, match="runs is empty"):
        Background(divmod, [])
