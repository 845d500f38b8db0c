"""训练的公共部分：一步要么完整地发生，要么什么也不改变 / What trainers share: a step happens whole or not at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import Tensor, nn

from mmcore import checks
from mmcore.checks import refuse, typed


@typed
def choose_device(device: str | torch.device | None = None) -> torch.device:
    """没有指定时：CUDA，其次 MPS，再次 CPU / Where none is named: CUDA, then MPS, then the CPU."""
    if device is not None:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError):
            refuse(f"没有 {device} 这个设备；可以不指定", f"there is no device {device} here; name no device")
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(best if device is None else device)


def brought(device: torch.device, **given: Any) -> dict[str, Any]:
    """张量（列表里的也是）移到设备上，不许有 NaN 或无穷 / Tensors, in lists too, on the device; all must be finite."""
    for name, x in given.items():
        if isinstance(x, (list, tuple)):
            given[name] = list(brought(device, **{f"{name}[{i}]": each for i, each in enumerate(x)}).values())
        elif isinstance(x, Tensor):
            if x.is_floating_point() and not bool(x.isfinite().all()):
                refuse(f"{name} 里有 NaN 或无穷；请先去掉或换成有限的数",
                       f"{name} holds NaN or infinity; drop such values or replace them by finite ones first")
            with suppress(TypeError):  # MPS has no float64: the border says so better
                given[name] = x.to(device)
    return given


class Bounded(nn.Linear):
    """线性层，平方会溢出的行缩短，免得归一化成 0 / A linear layer that shortens rows whose squares would overflow."""

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        most, bound = x.detach().abs().amax(-1, keepdim=True), torch.finfo(x.dtype).max ** 0.25
        return x / (most.clamp_min(bound) / bound)


@typed
def device_of(model: nn.Module) -> torch.device:
    """模型在哪里 / Where the model is."""
    return next(model.parameters()).device


@typed
def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW，只对矩阵做权重衰减 / AdamW that decays matrices only: biases and normalisations need no pull to zero."""
    lr, weight_decay = checks.positive(lr, "lr"), checks.not_negative(weight_decay, "weight_decay")
    groups = [{"params": [p for p in model.parameters() if (p.ndim > 1) is matrix], "weight_decay": decay}
              for matrix, decay in ((True, weight_decay), (False, 0.0))]
    return torch.optim.AdamW(groups, lr=lr, fused=True)


@typed
def optimize(model: nn.Module, optimizer: torch.optim.Optimizer, forward: Callable[[], Tensor]) -> float:
    """算损失、求梯度、走一步，返回损失 / Compute the loss, its gradient, take one step, return the loss.

    If the loss or a gradient is not finite (FloatingPointError), the loss does not depend on the model (ValueError), or
    `forward` fails or is interrupted, everything goes back to where it was, the statistics of batch normalisation too.

    损失或梯度不是有限数、损失与模型无关，或 `forward` 报错、被打断时，一切（包括批归一化的统计量）回到这一步之前。

    >>> model = nn.Linear(2, 1)
    >>> step = optimize(model, make_optimizer(model, 0.1, 0.0), lambda: model(torch.ones(3, 2)).square().mean())
    """
    before = [buffer.clone() for buffer in model.buffers()]
    optimizer.zero_grad()
    try:
        loss = forward()
        checks.fits(loss, "loss", "")
        _check_finite(loss.detach(), "损失 loss")
        if loss.requires_grad:
            loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        if not gradients:
            refuse("没有一个参数有梯度：损失与这个模型无关",
                   "no parameter has a gradient: the loss does not depend on this model")
        # the norm squares, as AdamW does: what overflows there would spoil the optimiser for good
        _check_finite(nn.utils.get_total_norm(gradients), "梯度 gradient")
    except BaseException:
        optimizer.zero_grad()
        with torch.no_grad():
            for buffer, old in zip(model.buffers(), before, strict=True):
                buffer.copy_(old)
        raise
    optimizer.step()
    return loss.item()


@typed
def train_on(model: nn.Module, optimizer: torch.optim.Optimizer, losses: Callable[[], dict[str, Tensor]],
             total: str = "total_loss") -> dict[str, float]:
    """`optimize` 一步，模式照旧，返回各项损失 / One step of `optimize`, each mode kept; returns all the losses."""
    found: dict[str, Tensor] = {}

    def forward() -> Tensor:
        found.update(losses())
        return found.get(total)

    optimize(model, optimizer, forward)
    return {name: value.item() for name, value in found.items()}


@contextmanager
@typed
def evaluating(model: nn.Module) -> Iterator[None]:
    """期间不训练、不记梯度，结束后恢复原状 / No training, no gradients inside; afterwards each mode is what it was."""
    modes = [(module, module.training) for module in model.modules()]  # a frozen encoder stays in eval mode
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, was in modes:
            module.training = was


def _check_finite(x: Tensor, name: str) -> None:
    if not bool(torch.isfinite(x).all()):
        refuse(f"{name} 出现了 NaN 或无穷，这一步没有改变任何东西；请降低学习率",
               f"{name} is NaN or infinite and this step has changed nothing; lower the learning rate",
               FloatingPointError)
