"""几个一直在的进程 / Processes that stay: they share work, say what went wrong, and never outlive who started them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist

from mmcore import distributed
from mmcore.shares import share_loss
from mmlessons.processes import Processes

ROOT = Path(__file__).parents[2]


def _sum(group: dist.ProcessGroup, x: torch.Tensor) -> tuple[int, int, float]:
    x = x.clone()
    dist.all_reduce(x, group=group)
    return dist.get_rank(group), dist.get_world_size(group), x.sum().item()


def _fails(group: dist.ProcessGroup, how: str) -> None:
    if dist.get_rank(group) == 1:
        if how == "ends":
            os._exit(3)
        raise {"ours": ValueError("坏了 / it broke"), "python": KeyError("x")}[how]
    dist.all_reduce(torch.ones(1), group=group)  # which nobody answers


def _sleeps(group: dist.ProcessGroup, seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def _gathers(group: dist.ProcessGroup, x: torch.Tensor, gradient: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
    x = x.clone().requires_grad_()
    rows = distributed.gather(x, gradient, group)
    if not rows.requires_grad:
        return rows, None
    (rows * torch.arange(1.0, len(rows) + 1)[:, None] * (dist.get_rank(group) + 1)).sum().backward()
    return rows.detach(), x.grad


def _wide(group: dist.ProcessGroup, x: torch.Tensor) -> str:
    try:
        distributed.gather(x, True, group)
    except (TypeError, ValueError) as error:
        return str(error)
    return "let through"


def _share(group: dist.ProcessGroup, a: torch.Tensor, b: torch.Tensor) -> float:
    A, B = distributed.gather(a, True, group), distributed.gather(b, True, group)
    return share_loss(a, b, A, B, dist.get_rank(group) * len(a), 0.1).item()


@pytest.fixture(scope="module")
def two() -> Iterator[Processes]:
    machines = Processes(2, seconds=20)
    yield machines
    machines.close()


def test_two_threads_that_ask_at_once_get_their_own_answers(two: Processes) -> None:
    """滑块从另一个线程来问，训练正在用 / A slider asks from another thread while training does."""
    def asks(k: int) -> list[list[float]]:
        return [[found[2] for found in two.run(_sum, [(torch.tensor([float(k)]),)] * 2)] for _ in range(20)]

    with ThreadPoolExecutor(4) as threads:
        for k, found in enumerate(threads.map(asks, range(4))):
            assert found == [[2.0 * k] * 2] * 20


def gone(pids: list[int], seconds: float = 10.0) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
            return True
        time.sleep(0.1)
    return False


def test_each_does_its_share_and_they_stay_for_the_next(two: Processes) -> None:
    before = two.pids()
    assert two.run(_sum, [(torch.ones(3),), (2 * torch.ones(3),)]) == [(0, 2, 9.0), (1, 2, 9.0)]
    assert two.run(_sum, [(torch.ones(3),)]) == [(0, 1, 3.0)]
    assert two.pids() == before


def test_gathered_rows_come_in_order_and_their_gradients_come_home(two: Processes) -> None:
    x = torch.arange(10.0).view(5, 2)
    shares = [(x[:2], True), (x[2:], True)]  # uneven
    for k, (rows, gradient) in enumerate(two.run(_gathers, shares)):
        assert torch.equal(rows, x)
        wanted = 3 * torch.arange(1.0, 6)[:, None].expand(5, 2)  # from process 0 once, from process 1 twice
        assert torch.equal(gradient, [wanted[:2], wanted[2:]][k])
    for rows, gradient in two.run(_gathers, [(x[:2], False), (x[2:], False)]):
        assert torch.equal(rows, x)
        assert gradient is None  # the bug of plain all_gather
    said = two.run(_wide, [(x,), (x[:, :1],)])
    assert all("the width of the features must be the same in every process" in text for text in said)
    assert two.run(_wide, [(x,), ([1.0],)])[0].endswith("the input of process [1] is wrong, see the error there")


def test_one_that_fails_says_why_in_both_languages_and_the_next_run_starts_new_ones(two: Processes) -> None:
    for how, says in (("ours", "第 1 个进程出错：坏了.* / process 1 has failed: it broke"), ("python", "KeyError: 'x'"),
                      ("ends", "process 1 has failed: it has ended")):
        before, begun = two.pids(), time.monotonic()
        with pytest.raises(RuntimeError, match=says):
            two.run(_fails, [(how,), (how,)])
        assert time.monotonic() - begun < 15
        assert gone(before)
    assert two.run(_sum, [(torch.ones(1),), (torch.ones(1),)]) == [(0, 2, 2.0), (1, 2, 2.0)]


def test_one_that_does_not_answer_is_an_error_within_the_time_stated(two: Processes) -> None:
    before, two.seconds = two.pids(), 1.0
    try:
        with pytest.raises(RuntimeError, match=r"process \[0\] has not answered for 1 s"):
            two.run(_sleeps, [(60.0,), (0.0,)])
    finally:
        two.seconds = 20.0
    assert gone(before)


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="no SIGALRM here")
def test_stop_ends_what_they_do_and_they_work_again(two: Processes) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    two.run(_sum, [(torch.ones(1),), (torch.ones(1),)])
    before, handler = two.pids(), signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(KeyboardInterrupt):
            two.run(_sleeps, [(60.0,), (60.0,)])
    finally:
        signal.signal(signal.SIGALRM, handler)
    assert gone(before)
    assert len(two.run(_sleeps, [(0.0,), (0.0,)])) == 2


OWNER = """
import sys, time
from mmlessons.processes import Processes
if __name__ == "__main__":
    machines = Processes(2)
    print(*machines.pids(), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGINT"])
def test_none_outlives_whoever_started_it(how: str, tmp_path: Path) -> None:
    """内核被杀、被重启、被中断 / A kernel that is killed, restarted or interrupted."""
    script = tmp_path / "owner.py"
    script.write_text(OWNER, "utf-8")
    owner = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             text=True, env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)})
    pids = [int(pid) for pid in owner.stdout.readline().split()]
    assert len(pids) == 2
    owner.send_signal(getattr(signal, how))
    owner.wait(20)
    owner.stdout.close()
    assert gone(pids, 20)
    assert list(tmp_path.glob("mm-meet-*")) == []


def test_what_cannot_be_done_is_refused_before_anything_is_sent(two: Processes) -> None:
    with pytest.raises(ValueError, match="there must be 1 to 2 shares, got 3"):
        two.run(_sum, [(torch.ones(1),)] * 3)
    with pytest.raises(TypeError, match=r"job 需要是能导入的函数.*job must be a function that can be imported"):
        two.run(lambda group: 0, [()])
    for count, says in ((0, "count must be at least 1"), (9, "there may be 8 processes at most, got 9")):
        with pytest.raises(ValueError, match=says):
            Processes(count)
    with pytest.raises(ValueError, match="seconds must be positive"):
        Processes(2, seconds=0)
