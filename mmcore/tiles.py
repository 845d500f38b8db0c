r"""(2.1) 与 (2.4) 一片一片地算 / (2.1) and (2.4), a tile at a time.

The N × N similarities of a batch are made in tiles of about `TILE` numbers, used, and forgotten, so that memory grows
with N and not with N². For (2.1) a first round adds up the exponentials of every row and column, and a second makes
each tile again and turns it into gradients. The rows of u stay where they are, those of v may come from other
processes: they go round a `Ring`. One process is a ring of one, and `mmcore.distributed` has the ring of many.

一批的 N × N 个相似度按片计算，一片约 `TILE` 个数，用完就忘，所以内存随 N 增长，而不是随 N²。(2.1) 的第一轮把每行每列的
指数加起来，第二轮重新算出每一片，变成梯度。u 的行留在原处，v 的行可以来自别的进程，沿着 `Ring` 转一圈。一个进程就是只有
一个成员的环，多个进程的环在 `mmcore.distributed`。

Paper: Cheng et al. 2024, Breaking the Memory Barrier: Near Infinite Batch Size Scaling for Contrastive Loss (Inf-CL).
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from mmcore.checks import refuse

TILE = 2**19  # numbers in a tile: 2 MiB of float32
KEPT = 2**23  # numbers of the first round that the second need not make again
SAFE = 40  # exponents from −40 to 40: float32 holds their powers, and quotients of these

Gradients = tuple[Tensor, ...]


class Ring:
    """一个进程的环 / The ring of one process: nothing travels, and a sum over all is a sum over one."""

    size = 1  # how many processes

    def turn(self, stop: int, *held: Tensor) -> tuple[Tensor, ...]:
        """每一站之后交给前一个进程，从后一个接来 / After a stop, hand these back and take those of the next."""
        return held

    def sum(self, x: Tensor) -> Tensor:
        """全部进程之和 / The sum over all processes."""
        return x

    def total(self, rows: int) -> int:
        """全部进程的行数 / How many rows all processes have."""
        return rows


ALONE = Ring()


def loss(kernel: Callable[..., tuple[Tensor, Gradients]], plain: Callable[..., Tensor], ring: Ring,
         a: Tensor, b: Tensor, tau: Tensor, *more: Tensor) -> Tensor:
    """`kernel(ring, wanted, u, v, …)`：u 是 a 的方向除以 τ，v 是 b 的方向 / The directions of a over τ, those of b.

    The kernel gives the value and its gradients by u, v and the numbers of `more`. `plain(a, b, tau, *more)` is the
    same loss in one piece, used where a gradient is differentiated once more. The value is that of the whole ring.
    Gradients are multiplied by its size, since DistributedDataParallel divides by it. Raises ValueError for a row of
    zeros.

    `kernel` 给出值，和对 u、v、`more` 里的数的梯度。`plain(a, b, tau, *more)` 是不分片的同一个损失，对梯度再求导时用。
    值是整个环的。梯度乘以环里的进程数，因为 DistributedDataParallel 会除以它。有一行全是 0 时报 ValueError。
    """
    given = (a, b, tau, *more)
    if has_torch_function(given):  # who watches what is computed from what sees one step
        return handle_torch_function(loss, given, kernel, plain, ring, *given)
    return _Tiled.apply(kernel, plain, ring, *given)


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Callable, plain: Callable, ring: Ring, *given: Tensor) -> Tensor:
        (a, b, tau), more = given[:3], [x.item() if x.is_floating_point() else x for x in given[3:]]
        (u, u_length), (v, v_length), s = directions(a, "a"), directions(b, "b"), 1 / tau.item()
        ctx.plain, wanted = plain, any(ctx.needs_input_grad)
        value, gradients = kernel(ring, wanted, u.mul_(s), v, s, *more)
        if wanted:  # of the gradients only what turns a row counts: to stretch it changes nothing
            gu, gv, *rest = gradients
            along_u, along_v = torch.linalg.vecdot(gu, u)[:, None] / s, torch.linalg.vecdot(gv, v)[:, None]
            gradients = (gu.addcmul_(along_u, u, value=-1 / s).mul_(s / u_length),
                         gv.addcmul_(along_v, v, value=-1).div_(v_length), along_u.sum() * -s * s, *rest)
        ctx.save_for_backward(*given, *gradients)
        return value

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple:
        count = len(ctx.needs_input_grad) - 3
        given, gradients = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        if torch.is_grad_enabled():  # somebody differentiates the gradient
            gradients = torch.autograd.grad(ctx.plain(*given), given[:len(gradients)], create_graph=True)
        return None, None, None, *(g * x for x in gradients), *[None] * (count - len(gradients))


def near_1(x: Tensor) -> tuple[Tensor, Tensor]:
    """太长或太短的行先缩放，别的不变 / Rows whose squares over- or underflow, scaled; others as they are: x / c, c."""
    most = x.detach().abs().amax(1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)
    c = most / most.clamp(1e-12, 1e12)
    return x / c, c


def directions(x: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """每行除以长度，和长度 / Each row over its length, and the lengths. They are read: 0/0 would be silent."""
    length = x.norm(dim=1, keepdim=True)
    low, high = length.detach().aminmax()
    if not (low.item() > 1e-12 and high.item() < 1e12):
        x, c = near_1(x)
        length = x.norm(dim=1, keepdim=True)
        if bool((length == 0).any()):
            refuse(f"{name} 有一行全是 0，没有方向，算不出余弦",
                   f"{name} has a row of zeros: it has no direction, and a cosine needs one")
        return x / length, length * c
    return x / length, length


def contrastive(ring: Ring, wanted: bool, u: Tensor, v: Tensor, s: float) -> tuple[Tensor, Gradients]:
    """(2.1) 的值与梯度，指数不超过 s = 1/τ / (2.1): its value and its gradients by u and v; exponents reach s = 1/τ."""
    n, count, safe = len(u), ring.total(len(u)), s < SAFE
    positive = (u * v).sum(1)
    rows, columns, held = u.new_full((n,), -torch.inf), u.new_full((len(v),), -torch.inf), v
    kept, room = {}, KEPT

    def tile(i: slice, held: Tensor) -> Tensor:  # of e^S where one exponential can serve rows and columns, or else of S
        S = u[i] @ held.T
        return S.exp_() if safe else S

    for stop in range(ring.size):
        for i in _parts(n, held):
            S = tile(i, held)
            if stop == 0:
                S.diagonal(i.start).fill_(0.0 if safe else -torch.inf)
            if safe:
                by_row, by_column = (S @ S.new_ones(len(held))).log_(), (S.new_ones(len(S)) @ S).log_()
                if S.numel() <= room:
                    kept[stop, i.start], room = S, room - S.numel()
            else:
                by_row, by_column = S.logsumexp(1), S.logsumexp(0)
            rows[i] = torch.logaddexp(rows[i], by_row)
            columns = torch.logaddexp(columns, by_column)
        columns, = ring.turn(stop, columns)
        if stop < ring.size - 1:
            held, = ring.turn(stop, held)
    # log Σ − positive, written so that it and its gradient stay exact where the loss is near 0
    value = ring.sum((F.softplus(rows - positive) + F.softplus(columns - positive)).sum()) / (2 * count)
    if not wanted:
        return value, ()
    R, C = torch.logaddexp(rows, positive), torch.logaddexp(columns, positive)
    own = -((rows - R).exp() + (columns - C).exp())
    gu, gv, held = torch.zeros_like(u), torch.zeros_like(v), v
    for stop in range(ring.size):
        for i in _parts(n, held):
            S = kept.pop((stop, i.start), None)
            if S is None:
                S = tile(i, held)
            if safe:
                G = S.mul_(R[i].neg().exp_()[:, None] + C.neg().exp_())
            else:
                G = (S - R[i][:, None]).exp_().add_(S.sub_(C).exp_())
            if stop == 0:
                G.diagonal(i.start).copy_(own[i])
            gu[i].addmm_(G, held)
            gv.addmm_(G.T, u[i])
        gv, C = ring.turn(stop, gv, C)
        if stop < ring.size - 1:
            held, = ring.turn(stop, held)
    share = ring.size / (2 * count)
    return value, (gu.mul_(share), gv.mul_(share))


def sigmoid(ring: Ring, wanted: bool, u: Tensor, v: Tensor, _: float, c: float,
            positives: Tensor | None = None) -> tuple[Tensor, Gradients]:
    """(2.4) 的值与梯度，c 是偏置 / (2.4): its value, and its gradients by u, v and the bias c."""
    n, count, held = len(u), ring.total(len(u)), v
    value, gu, gv, gc = u.new_zeros(()), torch.zeros_like(u), torch.zeros_like(v), u.new_zeros(())

    def turned(x: Tensor, i: slice, stop: int) -> Tensor:  # −x where the right answer is yes
        if positives is not None:
            return torch.where(positives[i], -x, x)
        if stop == 0:
            x.diagonal(i.start).neg_()
        return x

    for stop in range(ring.size):
        for i in _parts(n, held):
            S = turned((u[i] @ held.T).add_(c), i, stop)
            value += F.softplus(S).sum()
            if wanted:
                G = turned(S.sigmoid_(), i, stop)
                gu[i].addmm_(G, held)
                gv.addmm_(G.T, u[i])
                gc += G.sum()
        gv, = ring.turn(stop, gv)
        if stop < ring.size - 1:
            held, = ring.turn(stop, held)
    share = ring.size / count
    return ring.sum(value) / count, (gu.mul_(share), gv.mul_(share), gc.mul_(share)) if wanted else ()


def by_rows(_: Ring, wanted: bool, u: Tensor, v: Tensor, s: float, positives: Tensor,
            rows: Callable[..., Tensor]) -> tuple[Tensor, Gradients]:
    """一个方向的平均 / One direction: the mean of what `rows(S, positives)` gives for some rows of S at a time."""
    value, gu, gv = u.new_zeros(()), torch.empty_like(u), torch.zeros_like(v)
    for i in _parts(len(u), v):
        part, whole = u[i].requires_grad_(wanted), v.detach().requires_grad_(wanted)
        with torch.set_grad_enabled(wanted):
            mean = rows(part @ whole.T, positives[i]).sum() / len(u)
        value += mean.detach()
        if wanted:
            gu[i], g = torch.autograd.grad(mean, (part, whole))
            gv += g
    return value, (gu, gv)


def _parts(n: int, held: Tensor) -> list[slice]:
    """Which rows make a tile with all that is held."""
    rows = max(64, TILE // len(held))
    return [slice(i, min(i + rows, n)) for i in range(0, n, rows)]
