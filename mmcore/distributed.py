r"""多个进程上的 (2.1) 与 (2.4) / (2.1) and (2.4) over several processes.

Each process of a `torch.distributed` group has rows of its own, and the batch is all of them. The rows of b go round
in a ring, those of one process at a time, together with the gradients that belong to them. No process ever holds the
whole batch. The value is that of the whole batch, the same everywhere. DistributedDataParallel averages gradients, so
they are made P times as large here, and the average is the gradient of one process with the whole batch.

`torch.distributed` 的一组进程各有几行，合起来是一批。b 的行沿环转一圈，每次是一个进程的，连同属于它们的梯度，所以没有
哪个进程拿着整批。值是整批的，处处相同。DistributedDataParallel 会求梯度的平均，所以这里的梯度放大到 P 倍，平均以后就是
一个进程算整批的梯度。

`torchrun --nproc-per-node 2 train.py` starts two processes, and `torch.distributed.init_process_group("gloo")` in
train.py makes them a group.

Paper: Cheng et al. 2024, Inf-CL (the ring); Zhai et al. 2023, SigLIP (texts passed on from device to device).
"""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import NoReturn

import torch
import torch.distributed as dist
from torch import Tensor

from mmcore import checks, tiles
from mmcore.alignment import one_number
from mmcore.checks import refuse, shapes
from mmcore.tiles import directions

TIMEOUT = 300.0  # seconds
SAID = (  # by every process to all others, before anything is computed
    ("", "is its input fine?"), ("", "rows"), ("特征的宽度", "the width of the features"),
    ("特征的位数", "the bits of a feature"), ("要不要梯度", "whether a gradient is wanted"), ("损失", "the loss"),
    ("tau", "tau"), ("bias", "bias"))


def contrastive_loss(a: Tensor, b: Tensor, tau: float | Tensor, group: dist.ProcessGroup | None = None,
                     timeout: float = TIMEOUT) -> Tensor:
    """整批的 (2.1) / (2.1) of the whole batch, of which this process has some rows: (n, D), (n, D) → ().

    Every process of `group`, by default of all, calls this with features of one width and type and with the same τ. The
    numbers of rows may differ. Raises ValueError or TypeError on every process if what one of them gives is wrong, and
    RuntimeError without a process group, or if a process has not answered after `timeout` seconds.

    `group` 里的每个进程（默认是全部）都要调用它，特征的宽度、类型和 τ 都相同，行数可以不同。有一个进程给的不对，每个
    进程都报 ValueError 或 TypeError；没有进程组，或某个进程过了 `timeout` 秒还没有应答，报 RuntimeError。
    """
    return _over_all(tiles.contrastive, group, timeout, a, b, tau)


def sigmoid_loss(a: Tensor, b: Tensor, tau: float | Tensor, bias: float | Tensor,
                 group: dist.ProcessGroup | None = None, timeout: float = TIMEOUT) -> Tensor:
    """整批的 (2.4) / (2.4) of the whole batch, of which this process has some rows: (n, D), (n, D) → ().

    As `contrastive_loss`; the bias must be the same everywhere, too.

    与 `contrastive_loss` 一样，偏置也要处处相同。
    """
    return _over_all(tiles.sigmoid, group, timeout, a, b, tau, bias)


@shapes(a="N D", b="N D", least={"N": 1, "D": 1}, precise="a b")
def _checked(a: Tensor, b: Tensor, tau: float | Tensor, bias: float | Tensor | None = None) -> tuple[Tensor, ...]:
    """What a process can see of its own input without asking others."""
    checks.positive(tau, "tau")
    if bias is not None:
        checks.number(bias, "bias")
    with torch.no_grad():
        directions(a, "a"), directions(b, "b")
    return a, b, *(one_number(x, a) for x in ((tau,) if bias is None else (tau, bias)))


def _over_all(kernel: Callable, group: dist.ProcessGroup | None, timeout: float, *given: object) -> Tensor:
    checks.positive(timeout, "timeout")
    if not (dist.is_available() and dist.is_initialized()):
        refuse("还没有进程组：先调用 torch.distributed.init_process_group，再用 torchrun 启动",
               "there is no process group: call torch.distributed.init_process_group and start with torchrun",
               RuntimeError)
    ring = _Group(group, timeout)
    try:
        ready, wrong = _checked(*given), None
    except (TypeError, ValueError) as error:
        ready, wrong = (), error
    ring.agree(ready, wrong)
    return tiles.loss(kernel, _once_only, ring, *ready)


def _once_only(*_: Tensor) -> NoReturn:
    refuse("多个进程上的损失只能求导一次", "the loss over several processes can be differentiated only once",
           RuntimeError)


class _Group(tiles.Ring):
    """The ring of a process group: each hands what it holds to the process before it, so that all get all in turn."""

    def __init__(self, group: dist.ProcessGroup | None, timeout: float):
        self.group, self.seconds = group, timeout
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)
        self.rows: list[int] = []
        if self.rank < 0:
            refuse("这个进程不在 group 里", "this process is not in the group", RuntimeError)

    def agree(self, ready: tuple[Tensor, ...], wrong: Exception | None) -> None:
        """各进程互报情况，有一个不对就都拒绝 / All say what they have; if one is wrong or differs, all refuse."""
        mine = [0.0] * len(SAID)
        if not wrong:
            a, *numbers = ready[0], *(x.item() for x in ready[2:])
            wanted = torch.is_grad_enabled() and any(x.requires_grad for x in ready)
            mine = [1.0, len(a), a.shape[1], 8 * a.element_size(), wanted, len(numbers), *numbers, 0.0][:len(SAID)]
        device = torch.device("cuda" if dist.get_backend(self.group) == "nccl" else "cpu")
        told = [torch.zeros(len(SAID), dtype=torch.float64, device=device) for _ in range(self.size)]
        mine = torch.tensor(mine, dtype=torch.float64, device=device)
        self._wait(lambda: [dist.all_gather(told, mine, group=self.group, async_op=True)])
        if wrong:
            raise wrong
        table = torch.stack(told).T.tolist()
        if not all(table[0]):
            which = [rank for rank, fine in enumerate(table[0]) if not fine]
            refuse(f"进程 {which} 的输入不对，详见那里的错误",
                   f"the input of process {which} is wrong, see the error there")
        for (zh, en), values in zip(SAID, table, strict=True):
            if zh and len(set(values)) > 1:
                values = [round(x, 6) for x in values]
                refuse(f"各进程的{zh}需要相同，收到 {values}", f"{en} must be the same in every process, got {values}")
        self.rows = [int(n) for n in table[1]]
        if sum(self.rows) < 2:
            refuse("整批需要至少 2 对", "the whole batch needs at least 2 pairs")

    def total(self, rows: int) -> int:
        return sum(self.rows)

    def sum(self, x: Tensor) -> Tensor:
        x = x.clone()
        self._wait(lambda: [dist.all_reduce(x, group=self.group, async_op=True)])
        return x

    def turn(self, stop: int, *held: Tensor) -> tuple[Tensor, ...]:
        if self.size == 1:
            return held
        rows = self.rows[(self.rank + stop + 1) % self.size]  # of the process whose turn is next
        come = tuple(x.new_empty(rows, *x.shape[1:]) for x in held)
        there, here = (self._neighbour(step) for step in (-1, 1))
        self._wait(lambda: dist.batch_isend_irecv(
            [dist.P2POp(dist.isend, x.contiguous(), there, self.group) for x in held]
            + [dist.P2POp(dist.irecv, x, here, self.group) for x in come]))
        return come

    def _neighbour(self, step: int) -> int:
        rank = (self.rank + step) % self.size
        return rank if self.group is None else dist.get_global_rank(self.group, rank)

    def _wait(self, begin: Callable[[], Iterable[dist.Work]]) -> None:
        try:
            for work in begin():
                work.wait(timedelta(seconds=self.seconds))
        except RuntimeError as error:  # what torch says names addresses, not what to do
            raise RuntimeError(
                f"有一个进程在 {self.seconds:g} 秒内没有应答，或已经结束；请看它的错误，然后全部重新启动 / "
                f"a process has ended or has not answered for {self.seconds:g} s: look at its error, then start all of "
                "them again") from error
