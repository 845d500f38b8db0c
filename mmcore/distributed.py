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

Paper: Cheng et al. 2024, Inf-CL (the ring); Zhai et al. 2023, SigLIP (texts passed on from device to device); Zhang et
al. 2018, Context Encoding for Semantic Segmentation (batch normalisation over several devices).
"""

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

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


def gather(x: Tensor, gradient: bool = True, group: dist.ProcessGroup | None = None,
           timeout: float = TIMEOUT) -> Tensor:
    """收齐所有进程的行 / The rows of all processes in the order of their ranks: (n, D) → (N, D).

    Each process sends its rows to every other. On the way back each sends what it found for the rows of another, and
    the owner adds up what comes. With `gradient=False` nothing comes back, as after `torch.distributed.all_gather`:
    the values are the same, and all rows, one's own too, are constants. Errors are those of `contrastive_loss`.

    每个进程把自己的行交给其余每一个。求导时，各自把对别人的行求出的梯度送回去，主人把收到的加起来。`gradient=False` 时
    什么也不送回，与 `torch.distributed.all_gather` 一样：值相同，可是所有的行，连自己的在内，都成了常数。报错与
    `contrastive_loss` 相同。
    """
    checks.positive(timeout, "timeout")
    checks.instance(gradient, "gradient", bool)
    ring = _of_all(group, timeout)
    try:
        rows, wrong = _rows(x if gradient or not isinstance(x, Tensor) else x.detach()), None
    except (TypeError, ValueError) as error:
        rows, wrong = None, error
    ring.agree((rows, rows) if wrong is None else (), wrong)
    return _Gathered.apply(rows, ring)


@shapes(x="N D", least={"N": 1, "D": 1})
def _rows(x: Tensor) -> Tensor:
    return x


class _Gathered(torch.autograd.Function):
    """The rows of all. A row of mine was used everywhere, so its gradient is the sum of what all others found."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ring: "_Group") -> Tensor:
        ctx.ring, ctx.rows = ring, ring.rows
        come = ring.exchange([x] * ring.size, [x.new_empty(n, *x.shape[1:]) for n in ring.rows])
        return torch.cat([x if rank == ring.rank else theirs for rank, theirs in enumerate(come)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ring, parts = ctx.ring, gradient.split(ctx.rows)
        own = parts[ring.rank]
        come = ring.exchange(list(parts), [torch.empty_like(own) for _ in parts])
        return own + sum(theirs for rank, theirs in enumerate(come) if rank != ring.rank), None


def batch_norm_over_all(model: nn.Module, group: dist.ProcessGroup | None = None,
                        timeout: float = TIMEOUT) -> nn.Module:
    """批归一化改用整批的均值和方差 / Let batch normalisation use the mean and the variance of the whole batch.

    Each `BatchNorm1d`, `2d` or `3d` in the model is replaced by one with the same parameters and the same names, which
    in training asks all processes of `group` for their sums. Without it each process would normalise its own rows, and
    several processes would learn something else than one. Torch's own SyncBatchNorm does the same on a GPU only.
    Returns the model. Raises TypeError if it is no module, RuntimeError without a process group.

    模型里的 `BatchNorm1d`、`2d`、`3d` 都换成参数和名字相同的一个，训练时它向 `group` 的所有进程要各自的和。不换的话，
    每个进程只按自己的几行归一化，几个进程学到的就与一个进程不同。torch 自带的 SyncBatchNorm 做同样的事，但只能在 GPU
    上。返回这个模型。它不是模块时报 TypeError，没有进程组时报 RuntimeError。
    """
    if not isinstance(model, nn.Module):
        refuse(f"model 需要是 torch.nn.Module，收到 {type(model).__name__}",
               f"model must be a torch.nn.Module, got {type(model).__name__}", TypeError)
    checks.positive(timeout, "timeout")
    ring = _of_all(group, timeout)
    return _replaced(model, ring)


def _replaced(module: nn.Module, ring: "_Group") -> nn.Module:
    for name, child in module.named_children():
        setattr(module, name, _replaced(child, ring))
    if not isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
        return module
    new = _BatchNormOverAll(module.num_features, module.eps, module.momentum, module.affine,
                            module.track_running_stats)
    new.ring, new.training = ring, module.training
    new._parameters, new._buffers = module._parameters, module._buffers
    return new


class _BatchNormOverAll(nn.modules.batchnorm._BatchNorm):
    ring: "_Group"

    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2 or x.shape[1] != self.num_features:
            refuse(f"批归一化需要 (N, {self.num_features}, …)，收到 {tuple(x.shape)}",
                   f"batch normalisation needs (N, {self.num_features}, …), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.running_mean is not None:
            return super().forward(x)  # what was learned, the same everywhere
        self._check_input_dim(x)
        over, wide = [d for d in range(x.dim()) if d != 1], (1, -1, *[1] * (x.dim() - 2))
        z = x if x.dtype == torch.float64 else x.float()
        sums = _Summed.apply(torch.cat([z.sum(over), z.new_tensor([x.numel() / x.shape[1]])]), self.ring)
        n = sums[-1]
        mean = sums[:-1] / n
        centred = z - mean.view(wide)
        var = _Summed.apply(centred.square().sum(over), self.ring) / n
        if self.training and self.running_mean is not None:
            with torch.no_grad():
                self.num_batches_tracked += 1
                share = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
                for kept, new in ((self.running_mean, mean), (self.running_var, var * n / (n - 1).clamp(min=1))):
                    kept += share * (new - kept)
        y = centred * (var + self.eps).rsqrt().view(wide)
        if self.affine:
            y = y * self.weight.view(wide) + self.bias.view(wide)
        return y.to(x.dtype)


class _Summed(torch.autograd.Function):
    """A sum over all processes. What depends on it does so in all of them, so its gradient is a sum as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, ring: "_Group") -> Tensor:
        ctx.ring = ring
        return ring.sum(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.ring.sum(gradient), None


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
    ring = _of_all(group, timeout)
    try:
        ready, wrong = _checked(*given), None
    except (TypeError, ValueError) as error:
        ready, wrong = (), error
    ring.agree(ready, wrong)
    return tiles.loss(kernel, _once_only, ring, *ready)


def _of_all(group: dist.ProcessGroup | None, timeout: float) -> "_Group":
    if not (dist.is_available() and dist.is_initialized()):
        refuse("还没有进程组：先调用 torch.distributed.init_process_group，再用 torchrun 启动",
               "there is no process group: call torch.distributed.init_process_group and start with torchrun",
               RuntimeError)
    return _Group(group, timeout)


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
            mine = [1.0, len(a), a.shape[1], 8 * a.element_size(), wanted, len(numbers), *numbers, 0.0, 0.0][:len(SAID)]
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

    def exchange(self, give: list[Tensor], come: list[Tensor]) -> list[Tensor]:
        """每个进程给其余每一个 / Every process hands something to every other: `give[rank]` goes there."""
        others = [rank for rank in range(self.size) if rank != self.rank]
        if others:
            self._wait(lambda: dist.batch_isend_irecv(
                [dist.P2POp(dist.isend, give[rank].contiguous(), self._there(rank), self.group) for rank in others]
                + [dist.P2POp(dist.irecv, come[rank], self._there(rank), self.group) for rank in others]))
        return come

    def _neighbour(self, step: int) -> int:
        return self._there((self.rank + step) % self.size)

    def _there(self, rank: int) -> int:
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
