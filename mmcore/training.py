"""训练的公共部分 / What all trainers share.

一步训练要么完整地发生，要么什么也不改变。

A training step happens as a whole or changes nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmcore import checks


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """没有指定时：CUDA，其次 MPS，再次 CPU / Where none is named: CUDA, then MPS, then the CPU."""
    if device is not None:
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW，只对矩阵做权重衰减 / AdamW that decays matrices only: biases and normalisations need no pull to zero."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW([{"params": decayed, "weight_decay": weight_decay},
                              {"params": others, "weight_decay": 0.0}], lr=lr, fused=True)


def optimize(model: nn.Module, optimizer: torch.optim.Optimizer, forward: Callable[[], Tensor]) -> float:
    """算损失、求梯度、走一步，返回损失 / Compute the loss, its gradient, take one step, return the loss.

    损失或梯度出现 NaN 或无穷时，一切（包括批归一化的统计量）回到这一步之前。

    If the loss or a gradient is NaN or infinite, everything (the statistics of batch normalisation included) goes
    back to where it was before the step.

    Raises: FloatingPointError 损失或梯度不是有限数 / if the loss or a gradient is not finite.
    """
    before = [buffer.clone() for buffer in model.buffers()]
    optimizer.zero_grad()
    try:
        loss = forward()
        checks.finite(loss.detach(), "损失 loss")
        loss.backward()
        checks.finite(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]),
                      "梯度 gradient")
    except FloatingPointError:
        optimizer.zero_grad()
        with torch.no_grad():
            for buffer, old in zip(model.buffers(), before, strict=True):
                buffer.copy_(old)
        raise
    optimizer.step()
    return loss.item()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """期间不训练、不记梯度，结束后恢复原状 / No training, no gradients inside; afterwards the mode is what it was."""
    was = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was)
