"""权重说明什么，不说明什么 / What the weights of a fusion say, and what they do not.

Further studies of the models of `multimodal_fusion`: whether weights move without modality dropout, what constants
learn from which data, exclusive or, bad days that are shared, and the selector of adaptive fusion without its pull.
`study` is what runs in the background.

继续研究 `multimodal_fusion` 的模型：没有模态丢弃，权重会不会动；常数从哪份数据学到什么；异或；一起来的坏日子；自适应
融合的选择器没有拉力会怎样。在后台运行的是 `study`。
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcore import checks
from mmcore.fusion import CANDIDATES, LateFusion, MultimodalFusion, MultimodalFusionTrainer, weighted_sum
from mmcore.training import optimize
from mmlessons.border import typed
from mmlessons.data import digits
from mmlessons.data.digits import MODALITIES
from mmlessons.tasks.learner import seeded
from mmlessons.tasks.multimodal_fusion import (
    CLASSES,
    SEPARATE_STEPS,
    TIMES,
    TOGETHER_STEPS,
    Singles,
    Tested,
    by_picture,
    dials,
    examine,
    examine_singles,
    fused,
    observe_all,
    observe_under,
    separately,
    singles,
    together,
)
from mmlessons.tasks.scoring import best
from mmlessons.tasks.several_modalities import Experts

PUZZLE_STEPS, PUZZLE_BATCH, PUZZLE_NOISE = 150, 128, 0.3
ASKED = 2000  # questions of the puzzle, the same for every seed


# -- constants --------------------------------------------------------------------------------------------------------

def weigh_decisions(decisions: list[Tensor], label: Tensor, steps: int = 150) -> Tensor:
    """决策的晚期融合 (3.2)：学出 w / Late fusion of decisions (3.2): learn w, (M,).

    There are only M numbers to learn; the loss is −ln of the fused probability.

    可学的只有 M 个数；损失是融合后概率的 −ln。
    """
    late = LateFusion(CLASSES, len(decisions))
    optimizer = torch.optim.Adam(late.parameters(), lr=0.1)
    for _ in range(steps):
        optimize(late, optimizer, lambda: F.nll_loss((late(decisions) + 1e-9).log(), label))
    return late.weights(decisions)[0].detach()


@dataclass(frozen=True)
class Weighed:
    """决策融合的常数 w / The constants w of fusing decisions."""

    w: list[float]
    right: Tensor  # (N,), a number for each picture of the test set


def weights_with_noise(experts: Experts, data: digits.Digits) -> dict[str, list[float]]:
    """哪个模态一直是噪声 → 决策融合学到的 w / Which modality was noise throughout → the w learned from decisions."""
    found = {}
    for modality in MODALITIES:
        seen = observe_all(data, TIMES, noise_only=modality)
        found[modality] = weigh_decisions(experts.decisions(seen), seen["label"]).tolist()
    return found


def weights_from(experts: Experts, splits: Mapping[str, Mapping[str, Tensor]],
                 clean: Mapping[str, Tensor]) -> dict[str, Weighed]:
    """w 学自每一份数据，或均分 "equal" / w learned from each split, or "equal" ones, and how right they are on `clean`.

    `clean` holds every picture TIMES times.

    `clean` 里每幅图出现 TIMES 次。
    """
    found = {"equal": [1 / len(MODALITIES)] * len(MODALITIES)}
    for name, seen in splits.items():
        found[name] = weigh_decisions(experts.decisions(seen), seen["label"]).tolist()
    decisions = experts.decisions(clean)
    return {name: Weighed(w, by_picture(best(weighted_sum(torch.tensor(w), decisions)) == clean["label"], TIMES))
            for name, w in found.items()}


# -- exclusive or -----------------------------------------------------------------------------------------------------

@typed
def exclusive_or(count: int, generator: torch.Generator) -> tuple[list[Tensor], Tensor]:
    """每个模态一位，答案是异或 / A bit for each of two modalities; the answer is 1 if they differ.

    The feature of a modality is (±1 plus noise, 1), (N, 2): 0 is written +1 and 1 is written −1.

    一个模态的特征是 (±1 加噪声, 1)，形状 (N, 2)：0 写成 +1，1 写成 −1。
    """
    bits = torch.randint(2, (checks.whole(count, "count"), 2), generator=generator)
    x = 1 - 2.0 * bits + PUZZLE_NOISE * torch.randn(bits.shape, generator=generator)
    return [torch.stack([x[:, i], torch.ones(len(x))], 1) for i in (0, 1)], bits[:, 0] ^ bits[:, 1]


@dataclass(frozen=True)
class Puzzle:
    """五种融合做异或 / The five fusions on exclusive or."""

    right: dict[str, Tensor]  # method → (ASKED,), each question right or wrong
    loss: dict[str, float]
    pi: list[float]  # of the four fusions, mean


@typed
def puzzle(seed: int, steps: int = PUZZLE_STEPS) -> Puzzle:
    """学一遍异或，再考同样的题 / Learn exclusive or with one seed, then ask the questions asked of all seeds."""
    generator = torch.Generator().manual_seed(checks.whole(seed, "seed", 0))
    with seeded(seed):
        trainer = MultimodalFusionTrainer(MultimodalFusion([2, 2], 16), "cpu", num_classes=2, lr=0.01)
    for _ in range(checks.whole(steps, "steps")):
        trainer.train_step(*exclusive_or(PUZZLE_BATCH, generator))
    features, label = exclusive_or(ASKED, torch.Generator().manual_seed(0))
    out = trainer.fuse(features)
    scores = {method: trainer.head(out[method]) for method in (*CANDIDATES, "f")}
    right = {method: best(s) == label for method, s in scores.items()}
    loss = {method: F.cross_entropy(s, label).item() for method, s in scores.items()}
    return Puzzle(right, loss, out["pi"].mean(0).tolist())


# -- good and bad days ------------------------------------------------------------------------------------------------

def good_and_bad_days(count: int, shared: bool, seed: int = 0) -> dict[str, Tensor]:
    """一半的样本噪声大，一半小 / Half of the rows have much noise (2.2 times the usual), half little (0.3 times).

    With `shared`, all three modalities have their bad days together; otherwise each has its own. For each modality by
    itself the noise is distributed alike.

    `shared` 时三个模态同好同坏；否则各管各的。每个模态自己的噪声分布都一样。
    """
    bad = torch.rand(1 if shared else len(MODALITIES), count, generator=torch.Generator().manual_seed(seed)) < 0.5
    levels = torch.where(bad, 2.2, 0.3).expand(len(MODALITIES), -1)
    return dials(dict(zip(MODALITIES, levels, strict=True)))


@dataclass(frozen=True)
class Days:
    """有好日子、坏日子时 / With good and bad days."""

    fused: Tensor  # of the mixture f: (N,), a number for each picture
    singles: Singles


def bad_days(trainer: MultimodalFusionTrainer, experts: Experts, data: digits.Digits, shared: bool) -> Days:
    """坏日子同好同坏，或各管各的 / With bad days that are shared, or apart."""
    seen = observe_all(data, TIMES, **good_and_bad_days(TIMES * len(data.labels), shared))
    return Days(fused(trainer, seen, TIMES).right["f"], singles(experts, seen, TIMES))


# -- all of it --------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class WeightStudies:
    """一个种子的全部实验 / All studies of one seed, on the test set; the dicts of `Tested` are by condition."""

    dropout: dict[str, Tested]  # the five fusions, trained with modality dropout
    no_dropout: dict[str, Tested]  # and without
    single: dict[str, Singles]  # the single models, which never saw a failure
    elsewhere: dict[str, dict[str, float]]  # "train", "validation" → accuracy of each single model there
    noise_weights: dict[str, list[float]]
    constants: dict[str, Weighed]  # w from "train", "validation", or "equal"
    apart: Days
    shared: Days
    free: Tested  # trained without the pull towards uniform, under the usual condition


@typed
def study(seed: int, separate_steps: int = SEPARATE_STEPS, together_steps: int = TOGETHER_STEPS) -> WeightStudies:
    """用一个种子训练一遍，做全部实验 / Train all of it once with one seed, and do all studies."""
    checks.whole(together_steps, "together_steps", 2)
    train, validation, test = (digits.load(role) for role in digits.ROLES)
    experts = separately(separate_steps, seed, device="cpu").finish().model
    dropout = together(experts, together_steps, seed, device="cpu").finish().trainer
    no_dropout = together(experts, together_steps, seed, device="cpu").finish(dropout=0.0).trainer
    free = together(experts, together_steps // 2, seed, device="cpu").finish(pull=0.0).trainer
    clean = observe_under(test, "clean", TIMES)
    splits = {"train": observe_all(train), "validation": observe_all(validation, TIMES)}
    return WeightStudies(
        dropout=examine(dropout, test), no_dropout=examine(no_dropout, test),
        single=examine_singles(experts, test),
        elsewhere={name: experts.evaluate(seen) for name, seen in splits.items()},
        noise_weights=weights_with_noise(experts, validation),
        constants=weights_from(experts, splits, clean),
        apart=bad_days(dropout, experts, test, shared=False), shared=bad_days(dropout, experts, test, shared=True),
        free=fused(free, clean, TIMES))
