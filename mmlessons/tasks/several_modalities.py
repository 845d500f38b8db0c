"""几种模态，先各学各的，再一起学 / Several modalities, each by itself at first, then all together.

认数字与听懂话共用的部分：取一批、定下随机数、走一步、考试。应用自己说明有哪些模态、用什么编码器、一批怎样抽。

What recognising digits and understanding utterances share: drawing a batch, settling the random numbers, taking a step,
testing. An application says for itself which modalities there are, by which encoders, and how a batch is drawn.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.fusion import MultimodalFusion, MultimodalFusionTrainer, weighted_sum
from mmcore.training import check_steps_left, choose_device, evaluating, make_optimizer, one_cycle, seeded, train_on


class Learner:
    """两个训练器共有的：取一批，定下随机数 / What both trainers share: drawing a batch, settling the random numbers.

    应用给出 / An application gives:

    | 名字 name | 含义 meaning |
    |---|---|
    | `modalities` | 模态的名字，次序固定 / names of the modalities, in a fixed order |
    | `classes` | 有几类 / how many classes |
    | `make_encoders()` | 模态 → 编码器 / modality → encoder |
    | `widths` | 模态 → 特征的宽度 / modality → width of its feature |
    | `draw(dropout)` | 抽一批：每个模态的输入与 "label" / a batch: the input of each modality, and "label" |
    """

    modalities: tuple[str, ...]
    classes: int
    widths: Mapping[str, int]
    stream = 0  # so that trainers of one seed which go on from one another draw different batches

    def __init__(self, data: Any, steps: int, seed: int, batch: int, device: str | torch.device | None):
        for value, name, least in ((steps, "steps", 1), (seed, "seed", 0), (batch, "batch", 2)):
            checks.whole(value, name, least)
        self.data = data
        self.steps, self.seed, self.batch, self.device = steps, seed, batch, choose_device(device)
        self.reset()

    def reset(self) -> None:
        """从头再来，同样的随机数 / Start anew with the same random numbers."""
        self.generator = torch.Generator().manual_seed(2 * self.seed + self.stream)
        with seeded(self.seed):
            optimizer = self._build()
        self.schedule = one_cycle(optimizer, self.steps, rise=25, fall=1e4)

    def make_encoders(self) -> dict[str, nn.Module]:
        raise NotImplementedError

    def draw(self, dropout: float) -> dict[str, Tensor]:
        raise NotImplementedError

    def inputs(self, seen: Mapping[str, Tensor]) -> list[Tensor]:
        """一批里每个模态的输入，按次序 / The input of every modality in a batch, in order."""
        return [seen[modality] for modality in self.modalities]

    def _build(self) -> torch.optim.Optimizer:
        raise NotImplementedError

    def _next_batch(self, dropout: float) -> dict[str, Tensor]:
        check_steps_left(self.schedule)
        return self.draw(dropout)


class AloneTrainer(Learner):
    """每个模态各学各的：编码器加一个线性分类头 / Each modality by itself: an encoder and a linear head.

    给了 `start`，就从它学到的继续，`start` 自己不变。

    With `start` it goes on from what that one has learned, which itself stays as it is.
    """

    def __init__(self, data: Any, steps: int, seed: int, batch: int, device: str | torch.device | None,
                 rate: float, start: "AloneTrainer | None" = None):
        self.rate, self.start = rate, start
        self.stream = 0 if start is None else 1
        super().__init__(data, steps, seed, batch, device)

    def _build(self) -> torch.optim.Optimizer:
        if self.start is None:
            encoders = self.make_encoders()
            self.models = nn.ModuleDict({m: nn.Sequential(encoders[m], nn.Linear(self.widths[m], self.classes))
                                         for m in self.modalities})
        else:
            self.models = copy.deepcopy(self.start.models)
        self.models.to(self.device)
        self.optimizer = make_optimizer(self.models, self.rate, weight_decay=0.01)
        return self.optimizer

    def train_step(self, dropout: float = 0.0) -> dict[str, float]:
        """走一步，返回每个模态的损失 / Take one step, return the loss of each modality.

        `dropout` 是模态失灵的概率；失灵的样本照样要答，答不出，就学会不把话说满。

        `dropout` is the probability that a modality fails; a failed sample has to be answered all the same, and as it
        cannot be, the model learns not to be sure.

        各个模型没有共同的参数，所以把损失加起来与各训各的是一回事。

        The models share no parameter, so that adding their losses is the same as training each by itself.
        """
        seen = self._next_batch(dropout)

        def losses() -> dict[str, Tensor]:
            scores = self._scores(seen)
            own = {m: F.cross_entropy(scores[m], seen["label"].to(self.device)) for m in self.modalities}
            return {**own, "total_loss": sum(own.values())}

        found = train_on(self.models, self.optimizer, losses)
        self.schedule.step()
        return {modality: found[modality] for modality in self.modalities}

    def decisions(self, seen: Mapping[str, Tensor]) -> list[Tensor]:
        """每个模态的决策 / The decision of each modality: M × (B, K), probabilities."""
        with evaluating(self.models):
            return [scores.softmax(-1).cpu() for scores in self._scores(seen).values()]

    def evaluate(self, seen: Mapping[str, Tensor]) -> dict[str, float]:
        """每个模态的正确率 / The accuracy of each modality."""
        return {m: accuracy(p, seen["label"]) for m, p in zip(self.modalities, self.decisions(seen), strict=True)}

    def _scores(self, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: self.models[m](seen[m].to(self.device)) for m in self.modalities}


class TogetherTrainer(Learner):
    """各模态的编码器与五种融合一起学 / The encoders and five ways of fusion, learned together.

    编码器从 `alone` 学到的开始；`alone` 自己不变。

    The encoders start from what `alone` has learned; `alone` itself stays as it is.

    `trainer` 是 (3.5) 的 `MultimodalFusionTrainer`；`trainer.fuse(inputs(seen))` 给出所有有名字的张量。

    `trainer` is the `MultimodalFusionTrainer` of (3.5); `trainer.fuse(inputs(seen))` gives all named tensors.
    """

    stream = 1

    def __init__(self, alone: AloneTrainer, data: Any, steps: int, seed: int, batch: int,
                 device: str | torch.device | None, rate: float, fused: int):
        self.alone, self.rate, self.fused = alone, rate, fused
        super().__init__(data, steps, seed, batch, device)

    def _build(self) -> torch.optim.Optimizer:
        encoders = [copy.deepcopy(self.alone.models[m][0]) for m in self.modalities]
        model = MultimodalFusion([self.widths[m] for m in self.modalities], self.fused)
        self.trainer = MultimodalFusionTrainer(model, self.device, self.classes, self.rate, encoders=encoders)
        return self.trainer.optimizer

    def train_step(self, dropout: float, pull: float = 0.02) -> dict[str, float]:
        """走一步，返回各项损失 / Take one step, return the losses of `MultimodalFusionTrainer.train_step`.

        Raises: ValueError `dropout` 不在 0 到 1、`pull` 小于 0，或步数走完了 / if `dropout` is not from 0 to 1, `pull`
        is below 0, or all steps are done.
        """
        checks.not_negative(pull, "pull")
        seen = self._next_batch(dropout)
        self.trainer.pull = pull
        losses = self.trainer.train_step(self.inputs(seen), seen["label"])
        self.schedule.step()
        return losses

    def evaluate(self, seen: Mapping[str, Tensor]) -> dict[str, float]:
        """五种融合的正确率 / The accuracy of the five fusions: `CANDIDATES` and the mixture "f"."""
        return self.trainer.evaluate(self.inputs(seen), seen["label"])

    def weights(self, seen: Mapping[str, Tensor]) -> dict[str, list[float]]:
        """权重在这些样本上的平均 / The weights, averaged over these samples: "w", "alpha", "g", "pi"."""
        return mean_weights(self.trainer.fuse(self.inputs(seen)))


def mean_weights(out: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """`fuse` 给出的权重，对样本求平均 / The weights that `fuse` gives, averaged over the samples."""
    return {name: out[name].mean(0).tolist() for name in ("w", "alpha", "g", "pi")}


def projected(out: Mapping[str, Tensor]) -> list[Tensor]:
    """`fuse` 给出的 f_1 … f_M / The f_1 … f_M that `fuse` gives."""
    return [out[f"f_{i}"] for i in range(1, out["w"].shape[1] + 1)]


def accuracy(scores: Tensor, label: Tensor) -> float:
    """最大的一项就是标签的比例 / The share of rows whose largest entry is the label."""
    return (scores.argmax(1).cpu() == label.cpu()).double().mean().item()


def accuracy_of(trainer: MultimodalFusionTrainer, out: Mapping[str, Tensor], label: Tensor,
                w: Sequence[float]) -> float:
    """用给定的权重 w 相加的正确率 / The accuracy of adding with given weights w; `out` is what `fuse` gives."""
    features = projected(out)
    return accuracy(trainer.head(weighted_sum(torch.tensor(w).to(features[0]), features)), label)


def finish(trainer: AloneTrainer | TogetherTrainer, **values: float) -> AloneTrainer | TogetherTrainer:
    """走完所有的步 / Take all steps; `values` go to `train_step`."""
    for _ in range(trainer.steps):
        trainer.train_step(**values)
    return trainer
