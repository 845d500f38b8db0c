"""训练的公共部分：一步要么完整地发生，要么什么也不改变 / What trainers share: a step happens whole or not at all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mmcore.checks import refuse


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """没有指定时：CUDA，其次 MPS，再次 CPU / Where none is named: CUDA, then MPS, then the CPU."""
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    return torch.device(best if device is None else device)


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW，只对矩阵做权重衰减 / AdamW that decays matrices only: biases and normalisations need no pull to zero."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW([{"params": decayed, "weight_decay": weight_decay},
                              {"params": others, "weight_decay": 0.0}], lr=lr, fused=True)


def one_cycle(optimizer: torch.optim.Optimizer, steps: int, rise: float = 10,
              fall: float = 1000) -> torch.optim.lr_scheduler.OneCycleLR:
    """步长先升后降 / The step size rises from 1/`rise` of itself for 15 % of the steps, then falls.

    Paper: Smith and Topin 2018, Super-Convergence.
    """
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps + 1, pct_start=0.15,
        div_factor=rise, final_div_factor=fall, cycle_momentum=False)


def check_steps_left(schedule: torch.optim.lr_scheduler.OneCycleLR) -> None:
    """`one_cycle` 的步数走完了就报错 / An error once all steps of `one_cycle` are done."""
    steps = schedule.total_steps - 1
    if schedule.last_epoch >= steps:
        refuse(f"这次训练只有 {steps} 步，已经走完；reset() 可以从头再来",
               f"this training has {steps} steps and all are done; reset() starts again")


def device_of(model: nn.Module) -> torch.device:
    """模型在哪里 / Where the model is."""
    return next(model.parameters()).device


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """期间的随机数由种子定，全局的照旧 / Random numbers inside are the seed's; the global ones stay as they were."""
    with torch.random.fork_rng(devices=[]):  # models are built on the CPU and then moved
        torch.default_generator.manual_seed(seed)
        yield


def optimize(model: nn.Module, optimizer: torch.optim.Optimizer, forward: Callable[[], Tensor]) -> float:
    """算损失、求梯度、走一步，返回损失 / Compute the loss, its gradient, take one step, return the loss.

    If the loss or a gradient is not finite (FloatingPointError), the loss does not depend on the model (ValueError), or
    `forward` fails or is interrupted, everything goes back to where it was, the statistics of batch normalisation too.

    损失或梯度不是有限数（FloatingPointError）、损失与模型无关（ValueError），或 `forward` 报错、被打断时，一切（包括
    批归一化的统计量）回到这一步之前。

    >>> model = nn.Linear(2, 1)
    >>> step = optimize(model, make_optimizer(model, 0.1, 0.0), lambda: model(torch.ones(3, 2)).square().mean())
    """
    before = [buffer.clone() for buffer in model.buffers()]
    optimizer.zero_grad()
    try:
        loss = forward()
        _check_finite(loss.detach(), "损失 loss")
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


def train_on(model: nn.Module, optimizer: torch.optim.Optimizer, losses: Callable[[], dict[str, Tensor]],
             total: str = "total_loss") -> dict[str, float]:
    """训练模式下 `optimize` 一步，返回各项损失 / One step of `optimize` in training mode; returns all the losses."""
    found: dict[str, Tensor] = {}

    def forward() -> Tensor:
        found.update(losses())
        return found[total]

    model.train()
    optimize(model, optimizer, forward)
    return {name: value.item() for name, value in found.items()}


@contextmanager
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
