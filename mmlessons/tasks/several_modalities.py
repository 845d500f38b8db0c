"""几种模态，先各学各的，再一起学 / Several modalities, each by itself at first, then all together.

What lessons 00, 03, 03b and 07 share. A lesson says of its modalities what `Modalities` holds; `Separately` and
`Together` are the two tasks of a `Learner`.

第 00、03、03b、07 课共用的部分。一课用 `Modalities` 说明自己的模态；`Separately` 与 `Together` 是 `Learner` 的两个
任务。
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.fusion import CANDIDATES, MultimodalFusion, MultimodalFusionTrainer, weighted_sum
from mmcore.training import evaluating
from mmlessons.border import holds, typed
from mmlessons.tasks.learner import Descent, Learner, Losses
from mmlessons.tasks.scoring import accuracy

Batch = Mapping[str, Tensor]


@dataclass(frozen=True)
class Modalities:
    """一课有哪些模态 / What a lesson says of its modalities.

    `draw(generator, dropout)` draws a batch: the input of every modality, and "label"; with probability `dropout` a row
    lacks one of them.

    `draw(generator, dropout)` 抽一批：每个模态的输入与 "label"；每行以概率 `dropout` 缺一个模态。
    """

    names: tuple[str, ...]
    classes: int
    widths: Mapping[str, int]  # of the features
    make_encoders: Callable[[], dict[str, nn.Module]]
    draw: Callable[[torch.Generator, float], dict[str, Tensor]]
    inputs: Mapping[str, str]  # what each encoder takes, as `shapes` declares it


@typed
class Experts(nn.Module):
    """每个模态一个编码器和一个线性分类头，互不相干 / An encoder and a linear head for each modality, nothing shared."""

    def __init__(self, modalities: Modalities):
        super().__init__()
        self.inputs = modalities.inputs
        self.encoders = nn.ModuleDict(modalities.make_encoders())
        self.heads = nn.ModuleDict({m: nn.Linear(modalities.widths[m], modalities.classes) for m in modalities.names})

    def forward(self, seen: Batch) -> dict[str, Tensor]:
        return {m: head(self.encoders[m](seen[m].to(head.weight.device))) for m, head in self.heads.items()}

    def decisions(self, seen: Batch) -> list[Tensor]:
        """每个模态的决策 / The decision of each modality: M × (B, K), probabilities."""
        holds(seen, "seen", **self.inputs)
        with evaluating(self):
            return [scores.softmax(-1).cpu() for scores in self(seen).values()]

    def evaluate(self, seen: Batch) -> dict[str, float]:
        """每个模态的正确率 / The accuracy of each modality."""
        holds(seen, "seen", **self.inputs, label="int64 B")
        return {m: accuracy(p, seen["label"], m) for m, p in zip(self.heads, self.decisions(seen), strict=True)}


@dataclass(frozen=True)
class Separately:
    """每个模态各学各的 / Each modality by itself.

    With `start` it goes on from a copy of what that one has learned. The models share no parameter, so that adding
    their losses is the same as training each by itself. A row that lacks a modality has to be answered all the same;
    as it cannot be, the model learns not to be sure.

    给了 `start`，就从它学到的（一份副本）继续。各个模型没有共同的参数，所以把损失加起来与各训各的是一回事。失灵的样本
    照样要答，答不出，就学会不把话说满。
    """

    modalities: Modalities
    rate: float
    start: Experts | None = None

    def begin(self, device: torch.device) -> Descent:
        experts = Experts(self.modalities) if self.start is None else copy.deepcopy(self.start)
        return Descent.of(experts.to(device), self.losses, self.rate, weight_decay=0.01)

    def losses(self, experts: Experts, batch: Batch) -> dict[str, Tensor]:
        own = {m: F.cross_entropy(scores, batch["label"].to(scores.device)) for m, scores in experts(batch).items()}
        return {**own, "total_loss": sum(own.values())}

    def step(self, trainer: Descent, generator: torch.Generator, dropout: float = 0.0) -> Losses:
        found = trainer.train_step(self.modalities.draw(generator, dropout))
        return {m: found[m] for m in self.modalities.names}


@dataclass(frozen=True)
class Together:
    """各模态的编码器与五种融合 (3.5) 一起学 / The encoders and the five fusions of (3.5), learned together.

    The encoders start from copies of those of `start`. `step` raises ValueError if `dropout` is not from 0 to 1 or
    `pull` is below 0; its losses are those of `MultimodalFusionTrainer.train_step`.

    编码器从 `start` 的副本开始。`dropout` 不在 0 到 1、`pull` 小于 0 时 `step` 报 ValueError；它的损失就是
    `MultimodalFusionTrainer.train_step` 的。
    """

    modalities: Modalities
    rate: float
    start: Experts
    fused: int  # the common width
    dropout: float

    def begin(self, device: torch.device) -> MultimodalFusionTrainer:
        encoders = [copy.deepcopy(self.start.encoders[m]) for m in self.modalities.names]
        model = MultimodalFusion([self.modalities.widths[m] for m in self.modalities.names], self.fused)
        return MultimodalFusionTrainer(model, device, self.modalities.classes, self.rate, encoders=encoders)

    def step(self, trainer: MultimodalFusionTrainer, generator: torch.Generator, dropout: float | None = None,
             pull: float = 0.02) -> Losses:
        checks.not_negative(pull, "pull")
        batch = self.modalities.draw(generator, self.dropout if dropout is None else dropout)
        trainer.pull = pull
        return trainer.train_step([batch[m] for m in self.modalities.names], batch["label"])


def learner(task: Separately | Together, steps: int, seed: int, device: str | torch.device | None) -> Learner:
    """学其中一个任务的学习者 / The learner of one of these tasks.

    Learners of one seed which go on from one another draw different batches.

    同一个种子、一个接着另一个学时，抽到的批不同。
    """
    draws = 2 * checks.whole(seed, "seed", 0) + (task.start is not None)
    return Learner(task, steps, seed, device, draws, rise=25, fall=1e4)


def mean_weights(out: Batch) -> dict[str, list[float]]:
    """`fuse` 给出的权重，对样本求平均 / The weights that `fuse` gives, averaged over the samples: w, alpha, g, pi."""
    holds(out, "out", w="B M", alpha="B M", g="B M", pi=f"B {len(CANDIDATES)}")
    return {name: out[name].mean(0).tolist() for name in ("w", "alpha", "g", "pi")}


def projected(out: Batch) -> list[Tensor]:
    """`fuse` 给出的 f_1 … f_M / The f_1 … f_M that `fuse` gives."""
    holds(out, "out", w="B M")
    names = [f"f_{i}" for i in range(1, out["w"].shape[1] + 1)]
    holds(out, "out", w="B M", **dict.fromkeys(names, "B D"))
    return [out[name] for name in names]


@typed
def accuracy_of(trainer: MultimodalFusionTrainer, out: Batch, label: Tensor, w: Sequence[float]) -> float:
    """用给定的权重 w 相加的正确率 / The accuracy of adding with given weights w; `out` is what `fuse` gives."""
    features = projected(out)
    return accuracy(trainer.head(weighted_sum(torch.tensor(w).to(features[0]), features)), label)
