"""训练的公共部分 / What all trainers share.

一步训练要么完整地发生，要么什么也不改变。

A training step happens as a whole or changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.fusion import CANDIDATES, MultimodalFusion, check_features


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

    损失或梯度出现 NaN 或无穷，`forward` 报错或被打断时，一切（包括批归一化的统计量）回到这一步之前。

    If the loss or a gradient is NaN or infinite, or `forward` fails or is interrupted, everything (the statistics of
    batch normalisation included) goes back to where it was before the step.

    Raises: FloatingPointError 损失或梯度不是有限数 / if the loss or a gradient is not finite; what `forward` raises.
    """
    before = [buffer.clone() for buffer in model.buffers()]
    optimizer.zero_grad()
    try:
        loss = forward()
        checks.finite(loss.detach(), "损失 loss")
        loss.backward()
        checks.finite(nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]),
                      "梯度 gradient")
    except BaseException:
        optimizer.zero_grad()
        with torch.no_grad():
            for buffer, old in zip(model.buffers(), before, strict=True):
                buffer.copy_(old)
        raise
    optimizer.step()
    return loss.item()


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """期间不训练、不记梯度，结束后恢复原状 / No training, no gradients inside; afterwards each mode is what it was.

    每个子模块各自恢复，所以冻结的编码器仍在 eval 模式。

    Each submodule gets its own mode back, so that a frozen encoder stays in eval mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, was in modes:
            module.training = was


class MultimodalFusionTrainer:
    """训练自适应融合 (3.5) / Trains adaptive fusion (3.5), on labels or on target features.

    给了 `num_classes`，目标是类别：一个线性的分类头由四种融合和它们的混合共用，从零开始，所以第一步的损失正是
    ln K；头是线性的，所以混合的得分就是四种得分的混合。不给 `num_classes`，目标是 (B, D) 的特征，损失是均方误差。

    With `num_classes` the targets are classes: one linear head is shared by the four fusions and their mixture. It
    starts at zero, so that the first loss is exactly ln K; it is linear, so that the scores of the mixture are the
    mixture of the four scores. Without `num_classes` the targets are features (B, D) and the loss is the mean squared
    error.

    total_loss = final_loss + 四种融合各自损失的平均 + pull · pull_loss。各自的损失让没被选中的融合也继续学；
    pull_loss = −¼ Σₖ ln(4 πₖ) 的平均把每个样本的 π 轻轻拉向均匀，某个 πₖ 越接近 0 就拉得越紧。没有它，选择会坍缩到
    一种融合上；若只拉一批的平均，每个样本仍会各自坍缩到随便一种，平均却看起来均匀。`pull` 可以在两步之间改变。

    total_loss = final_loss + the mean of the losses of the four fusions + pull · pull_loss. Their own losses let the
    fusions that are not chosen go on learning; pull_loss, the mean of −¼ Σₖ ln(4 πₖ), weakly pulls the π of every
    sample to uniform, the harder the closer some πₖ comes to 0. Without it the choice collapses onto one fusion; a pull
    on the batch mean alone lets every sample collapse onto any one of them while the mean looks even. `pull` may be
    changed between steps.

    Raises: TypeError / ValueError 模型、个数或步长不对 / for a wrong model, number or step size.
    Paper: Pereyra et al. 2017, Regularizing Neural Networks by Penalizing Confident Output Distributions.
    """

    def __init__(self, model: MultimodalFusion, device: str | torch.device | None = None,
                 num_classes: int | None = None, lr: float = 1e-3, weight_decay: float = 0.01, pull: float = 0.02):
        checks.require(isinstance(model, MultimodalFusion),
                       f"model 需要是 MultimodalFusion，收到 {type(model).__name__}",
                       f"model must be a MultimodalFusion, got {type(model).__name__}", TypeError)
        checks.positive(lr, "lr")
        checks.require(pull >= 0, f"pull 不能小于 0，收到 {pull}", f"pull may not be below 0, got {pull}")
        if num_classes is not None:
            checks.whole(num_classes, "num_classes", least=2)
        self.num_classes, self.pull = num_classes, pull
        self.device = choose_device(device)
        self.model = model
        self.head = nn.Identity() if num_classes is None else nn.Linear(model.output_dim, num_classes)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        self.learned = nn.ModuleList([self.model, self.head]).to(self.device)
        self.optimizer = make_optimizer(self.learned, lr, weight_decay)

    def train_step(self, features: Sequence[Tensor], targets: Tensor) -> dict[str, float]:
        """走一步，返回各项损失 / Take one step, return the losses.

        键 / keys: "total_loss", "early_loss", "attention_loss", "gated_loss", "late_loss", "final_loss",
        "pull_loss".

        Raises: TypeError / ValueError 特征或目标不符 / if features or targets do not fit; FloatingPointError 损失不是
        有限数 / if the loss is not finite. In all cases the model stays as it was.
        """
        features, targets = self._prepare(features, targets)
        losses: dict[str, Tensor] = {}

        def forward() -> Tensor:
            losses.update(self._losses(features, targets))
            return losses["total_loss"]

        self.learned.train()
        optimize(self.learned, self.optimizer, forward)
        return {name: value.item() for name, value in losses.items()}

    def evaluate(self, features: Sequence[Tensor], targets: Tensor) -> dict[str, float]:
        """每种融合与混合 "f" 的成绩 / The score of each fusion and of the mixture "f".

        有类别时是正确率，否则是均方误差。

        Accuracy where there are classes, else the mean squared error.

        Raises: TypeError / ValueError 特征或目标不符 / if features or targets do not fit.
        """
        features, targets = self._prepare(features, targets)
        with evaluating(self.learned):
            outputs = self.model(features)
            answers = {name: self.head(outputs[name]) for name in (*CANDIDATES, "f")}
        if self.num_classes is None:
            return {name: F.mse_loss(answer, targets).item() for name, answer in answers.items()}
        return {name: (answer.argmax(1) == targets).cpu().double().mean().item() for name, answer in answers.items()}

    def _losses(self, features: list[Tensor], targets: Tensor) -> dict[str, Tensor]:
        outputs = self.model(features)
        loss = F.mse_loss if self.num_classes is None else F.cross_entropy
        own = {f"{name.removeprefix('f_')}_loss": loss(self.head(outputs[name]), targets) for name in CANDIDATES}
        final = loss(self.head(outputs["f"]), targets)
        tiny = torch.finfo(outputs["pi"].dtype).tiny  # a π that has underflowed to 0 has no logarithm
        pull = -(len(CANDIDATES) * outputs["pi"].clamp_min(tiny)).log().mean()
        total = final + sum(own.values()) / len(own) + self.pull * pull
        return {"total_loss": total, **own, "final_loss": final, "pull_loss": pull}

    def _prepare(self, features: Sequence[Tensor], targets: Tensor) -> tuple[list[Tensor], Tensor]:
        check_features(features, len(self.model.feature_dims), self.model.feature_dims)
        b = len(features[0])
        if self.num_classes is None:
            checks.matrix(targets, "targets", b, self.model.output_dim)
        else:
            checks.require(isinstance(targets, Tensor) and targets.dtype == torch.int64 and targets.shape == (b,),
                           f"targets 需要是 ({b},) 的 int64 类别",
                           f"targets must be int64 classes of shape ({b},)")
            checks.require(bool(((targets >= 0) & (targets < self.num_classes)).all()),
                           f"类别需要在 0 到 {self.num_classes - 1} 之间",
                           f"classes must lie between 0 and {self.num_classes - 1}")
        return [f_i.to(self.device) for f_i in features], targets.to(self.device)
