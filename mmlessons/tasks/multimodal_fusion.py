r"""认数字：看、听、读，再融合 / Recognising digits: seen, heard and read, then fused.

Three small encoders look at one modality each. They first learn each by itself (`separately`), then with all five ways
of fusion (`together`). The studies of the lesson are the functions at the end; `study` is what runs in the background.

三个小编码器各看一种模态：先各学各的（`separately`），再与五种融合一起学（`together`）。这一课的实验是末尾的几个函数；
在后台运行的是 `study`。
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.checks import shapes
from mmcore.fusion import CANDIDATES, LateFusion, MultimodalFusionTrainer, weighted_sum
from mmcore.training import optimize
from mmlessons.border import holds, typed
from mmlessons.data import digits
from mmlessons.data.digits import MODALITIES
from mmlessons.tasks import several_modalities as several
from mmlessons.tasks.learner import Learner
from mmlessons.tasks.several_modalities import Experts, Modalities, accuracy, accuracy_of, mean_weights

WIDTHS = {"image": 48, "sound": 64, "text": 32}  # of the features; a common width comes with the projections
FUSED = 128
CLASSES = 10
SEPARATE_STEPS, TOGETHER_STEPS = 450, 300  # chosen on the validation split: about five seconds of one thread each
SEPARATE_RATE, TOGETHER_RATE = 4e-3, 3e-3
DROPOUT = 0.4
DIALS = {"image_noise": digits.IMAGE_NOISE, "babble_snr_db": digits.BABBLE_SNR_DB, "typo_rate": digits.TYPO_RATE}
NOISY = {"clean": {}, **{f"noise_only {m}": {"noise_only": m} for m in MODALITIES}}
INPUTS = {"image": "B 1 8 8", "sound": "B 1 24 32", "text": "int64 B 16 <256"}
CONDITIONS = {**NOISY, **{f"missing {m}": {"missing": m} for m in MODALITIES}}


def make_encoders() -> dict[str, nn.Module]:
    """每个模态一个小编码器 / A small encoder for each modality: `observe`'s tensors → (B, WIDTHS[modality])."""
    return {
        "image": nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 48), nn.GELU()),
        # the 24 mel bands are channels, and the convolution runs along time
        "sound": nn.Sequential(nn.Flatten(1, 2), nn.Conv1d(24, 48, 5, stride=2, padding=2), nn.GELU(),
                               nn.Conv1d(48, 48, 3, stride=2, padding=1), nn.GELU(), nn.Flatten(),
                               nn.Linear(48 * 8, 64), nn.GELU()),
        "text": nn.Sequential(nn.Embedding(256, 16), nn.Flatten(), nn.Linear(16 * 16, 128), nn.GELU(),
                              nn.Linear(128, 32), nn.GELU()),
    }


def dials(levels: Mapping[str, float | Tensor]) -> dict[str, Tensor]:
    """模态 → 噪声的大小，变成 `observe` 的旋钮 / Modality → amount of noise, as dials of `observe`.

    0 is no noise, 1 the usual amount. Image: times the standard deviation; sound: times the amplitude of the babble
    (5 dB as a rule, −1 dB at twice); text: times the rate of typos, at most 1. Raises ValueError if the modality is
    unknown.

    0 没有噪声，1 是平常的量。图：标准差的倍数；声：嘈杂声振幅的倍数（平常是 5 dB，两倍就是 −1 dB）；字：错字率的倍数，
    至多 1。模态未知时报 ValueError。
    """
    turned = {}
    for modality, level in levels.items():
        checks.one_of(modality, "modality", MODALITIES)
        level = torch.as_tensor(level, dtype=torch.float32)
        checks.require(bool((level >= 0).all()), f"{modality} 的噪声不能小于 0",
                       f"the noise of {modality} may not be below 0")
        if modality == "image":
            turned["image_noise"] = level * digits.IMAGE_NOISE
        elif modality == "sound":
            turned["babble_snr_db"] = digits.BABBLE_SNR_DB - 20 * level.clamp(min=1e-3).log10()
        else:
            turned["typo_rate"] = (level * digits.TYPO_RATE).clamp(max=1)
    return turned


def training_noise(count: int, generator: torch.Generator, dropout: float) -> dict[str, object]:
    """训练时每一行的噪声 / The noise of every row in training: arguments of `Digits.observe`.

    For every row and modality the noise is 0 to 1.5 times the usual. **Modality dropout**: with probability `dropout`
    one of the three modalities fails, half of the time by being nothing but noise, half by being absent.

    每行每个模态的噪声是平常的 0 到 1.5 倍。**模态丢弃**：以概率 `dropout` 让三个模态之一失灵，一半是只剩噪声，一半是
    缺失。
    """
    checks.share(dropout, "dropout")
    levels = 1.5 * torch.rand(len(MODALITIES), count, generator=generator)
    failing = torch.rand(count, generator=generator) < dropout
    which = torch.randint(len(MODALITIES), (count,), generator=generator)
    absent = torch.rand(count, generator=generator) < 0.5
    return {**dials(dict(zip(MODALITIES, levels, strict=True))),
            "noise_only": {m: failing & (which == i) & ~absent for i, m in enumerate(MODALITIES)},
            "missing": {m: failing & (which == i) & absent for i, m in enumerate(MODALITIES)}}


def inputs(seen: Mapping[str, Tensor]) -> list[Tensor]:
    """`observe` 的三个模态，按 MODALITIES 的次序 / The three modalities of `observe`, in the order of MODALITIES."""
    holds(seen, "seen", **INPUTS)
    return [seen[modality] for modality in MODALITIES]


def draw(data: digits.Digits, batch: int, generator: torch.Generator, dropout: float) -> dict[str, Tensor]:
    """一批，噪声照 `training_noise` / A batch, with the noise of `training_noise`."""
    noise = training_noise(batch, generator, dropout)
    indices = torch.randint(len(data.labels), (batch,), generator=generator)
    return data.observe(indices, generator, **noise)


def modalities(batch: int) -> Modalities:
    """三个模态，十个类别，取自训练集 / Three modalities, ten classes, drawn from the training set."""
    drawn = partial(draw, digits.load("train"), checks.whole(batch, "batch", 2))
    return Modalities(MODALITIES, CLASSES, WIDTHS, make_encoders, drawn, INPUTS)


@typed
def separately(steps: int = SEPARATE_STEPS, seed: int = 0, batch: int = 256, device: str | torch.device | None = None,
               start: Experts | None = None) -> Learner:
    """三个模态各学各的，可以从 `start` 继续 / Each modality by itself, going on from `start` if it is given."""
    return several.learner(several.Separately(modalities(batch), SEPARATE_RATE, start), steps, seed, device)


@typed
def together(experts: Experts, steps: int = TOGETHER_STEPS, seed: int = 0, batch: int = 256,
             device: str | torch.device | None = None) -> Learner:
    """编码器从 `experts` 的副本开始，与五种融合一起学 / The encoders, from copies, learn with the five fusions."""
    task = several.Together(modalities(batch), TOGETHER_RATE, experts, FUSED, DROPOUT)
    return several.learner(task, steps, seed, device)


@typed
def observe_all(data: digits.Digits, times: int = 1, seed: int = 0, **noise: object) -> dict[str, Tensor]:
    """一个划分的每幅图各观察 `times` 次 / Every picture of a split, observed `times` times.

    Dials that are not given stand where they usually do; `noise_only` and `missing` name a modality here and act on
    every row. The same `seed` gives the same recordings, forms and noise.

    没给的旋钮停在平常的位置；`noise_only` 与 `missing` 在这里是一个模态的名字，对所有行有效。同一个 `seed` 给出同样的
    录音、写法与噪声。
    """
    checks.whole(times, "times")
    indices = torch.arange(len(data.labels)).repeat(times)
    for name in ("noise_only", "missing"):
        if noise.get(name) is not None:
            noise[name] = {checks.one_of(noise[name], name, MODALITIES): torch.ones(len(indices), dtype=torch.bool)}
    return data.observe(indices, torch.Generator().manual_seed(seed), **{**DIALS, **noise})


@typed
def observe_under(data: digits.Digits, condition: str, times: int = 1) -> dict[str, Tensor]:
    """`CONDITIONS` 里的一种情形 / One of `CONDITIONS`, see `observe_all`; ValueError for any other."""
    return observe_all(data, times, **CONDITIONS[checks.one_of(condition, "condition", tuple(CONDITIONS))])


@typed
def observe_at(data: digits.Digits, levels: Mapping[str, float], times: int = 1) -> dict[str, Tensor]:
    """噪声照 `levels`，见 `dials` / With noise as `levels` say, see `dials` and `observe_all`."""
    return observe_all(data, times, **dials(levels))


@typed
def one_sample(data: digits.Digits, clip: digits.Clip, levels: Mapping[str, float], noise_only: Collection[str] = (),
               missing: Collection[str] = ()) -> tuple[dict[str, Tensor], Tensor]:
    """听得见的一个样本 / One sample that can be heard: what `observe` would give, and the waveform.

    Picture and word are of the clip's digit, with noise as `levels` say (see `dials`); the sound is the very one that
    is heard. Modalities in `noise_only` are nothing but noise, those in `missing` are zeros. One `clip` always goes
    with the same picture and form.

    图和字按 `clip` 的数字取，噪声按 `levels`（见 `dials`）；声音就是听到的这一段。`noise_only` 里的模态只剩噪声，
    `missing` 里的全是 0。同一个 `clip` 总是配同一幅图、同一种写法。
    """
    generator = torch.Generator().manual_seed(1000 * clip.digit + clip.spoken)
    same = (data.labels == clip.digit).nonzero().squeeze(1)
    index = same[torch.randint(len(same), (1,), generator=generator)]
    noise = {**DIALS, **dials(levels)}
    here = torch.ones(1, dtype=torch.bool)
    seen = data.observe(index, generator, **noise, noise_only=dict.fromkeys(noise_only, here),
                        missing=dict.fromkeys(missing, here))
    snr = -60.0 if "sound" in noise_only else float(noise["babble_snr_db"])  # at −60 dB no word is left
    heard = data.mixed(clip, generator, snr)
    if "sound" not in missing:
        power = digits.mel_power(heard)
        loud = power.mean() if "sound" in noise_only else digits.mel_power(clip.samples).mean()
        seen["sound"] = digits.sound_feature((power / loud).unsqueeze(0))  # loud as in `observe`
    seen["spoken"] = torch.tensor([clip.spoken])
    return seen, heard


@shapes(decisions="M*[B K]", least={"M": 1, "B": 1})
def product_rule(decisions: list[Tensor]) -> Tensor:
    """乘法规则：各模态的概率相乘 / The product rule: multiply the probabilities of the modalities; (B, 10), log scale.

    If the modalities are independent given the label, the classes equally frequent and every pᵢ exact, this is the best
    answer there is (Bayes' theorem), and nothing needs to be learned.

    若给定标签后各模态相互独立、每类一样多，而且每个 pᵢ 都准，这就是最好的答案（贝叶斯定理），什么也不用学。

    Paper: Kittler et al. 1998, On Combining Classifiers.
    """
    return sum((p_i + 1e-9).log() for p_i in decisions)


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


def good_and_bad_days(count: int, shared: bool, seed: int = 0) -> dict[str, Tensor]:
    """一半的样本噪声大，一半小 / Half of the rows have much noise (2.2 times the usual), half little (0.3 times).

    With `shared`, all three modalities have their bad days together; otherwise each has its own. For each modality by
    itself the noise is distributed alike.

    `shared` 时三个模态同好同坏；否则各管各的。每个模态自己的噪声分布都一样。
    """
    bad = torch.rand(1 if shared else len(MODALITIES), count, generator=torch.Generator().manual_seed(seed)) < 0.5
    levels = torch.where(bad, 2.2, 0.3).expand(len(MODALITIES), -1)
    return dials(dict(zip(MODALITIES, levels, strict=True)))


# -- studies ----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Tested:
    """五种融合在一种情形下 / The five fusions under one condition."""

    accuracy: dict[str, float]  # of `CANDIDATES` and the mixture "f"
    weights: dict[str, list[float]]  # "w", "alpha", "g", "pi", each a mean over the samples
    frozen: dict[str, float]  # accuracy with "alpha", "g" kept at what they are on average as usual


@typed
def fused(trainer: MultimodalFusionTrainer, seen: Mapping[str, Tensor],
          usual: Mapping[str, list[float]] | None = None) -> Tested:
    """五种融合对这些样本；冻住的权重是 `usual` / The five fusions on these samples; `usual` weights are frozen."""
    out, label = trainer.fuse(inputs(seen)), seen["label"]
    weights = mean_weights(out)
    right = {method: accuracy(trainer.head(out[method]), label) for method in (*CANDIDATES, "f")}
    frozen = {key: accuracy_of(trainer, out, label, (usual or weights)[key]) for key in ("alpha", "g")}
    return Tested(right, weights, frozen)


@typed
def examine(trainer: MultimodalFusionTrainer, data: digits.Digits, conditions: Sequence[str] = tuple(NOISY),
            times: int = 4) -> dict[str, Tested]:
    """每种情形下的五种融合；第一种情形是平常的 / The five fusions under each condition, the first being the usual."""
    checks.require(len(conditions) > 0, "conditions 需要至少一种情形", "conditions must name one at least")
    results: dict[str, Tested] = {}
    for name in conditions:
        usual = results[conditions[0]].weights if results else None
        results[name] = fused(trainer, observe_under(data, name, times), usual)
    return results


@dataclass(frozen=True)
class Product:
    """乘法规则 / The product rule."""

    accuracy: dict[str, float]  # condition → accuracy
    babble: float  # the largest probability of the sound model hearing nothing but babble, mean


def product(experts: Experts, noisy: Mapping[str, Mapping[str, Tensor]]) -> Product:
    """这些单独的模型相乘，在每种情形下 / These single models multiplied, under each condition."""
    decisions = {condition: experts.decisions(seen) for condition, seen in noisy.items()}
    right = {condition: accuracy(product_rule(p), noisy[condition]["label"]) for condition, p in decisions.items()}
    sound = decisions["noise_only sound"][MODALITIES.index("sound")]
    return Product(right, sound.amax(1).mean().item())


@dataclass(frozen=True)
class Constants:
    """决策融合的常数 w / The constants w of fusing decisions."""

    w: list[float]
    accuracy: float  # on the test set


def weights_with_noise(experts: Experts, data: digits.Digits) -> dict[str, list[float]]:
    """哪个模态一直是噪声 → 决策融合学到的 w / Which modality was noise throughout → the w learned from decisions."""
    found = {}
    for modality in MODALITIES:
        seen = observe_all(data, 4, noise_only=modality)
        found[modality] = weigh_decisions(experts.decisions(seen), seen["label"]).tolist()
    return found


def weights_from(experts: Experts, splits: Mapping[str, Mapping[str, Tensor]],
                 clean: Mapping[str, Tensor]) -> dict[str, Constants]:
    """w 学自每一份数据，或均分 "equal" / w learned from each split, or "equal" ones, and their accuracy on `clean`."""
    found = {"equal": [1 / len(MODALITIES)] * len(MODALITIES)}
    for name, seen in splits.items():
        found[name] = weigh_decisions(experts.decisions(seen), seen["label"]).tolist()
    decisions = experts.decisions(clean)
    return {name: Constants(w, accuracy(weighted_sum(torch.tensor(w), decisions), clean["label"]))
            for name, w in found.items()}


@dataclass(frozen=True)
class Days:
    """有好日子、坏日子时的正确率 / Accuracy with good and bad days."""

    fused: float  # of the mixture f
    best_single: float


def bad_days(trainer: MultimodalFusionTrainer, experts: Experts, data: digits.Digits, shared: bool) -> Days:
    """坏日子同好同坏，或各管各的 / With bad days that are shared, or apart."""
    seen = observe_all(data, 4, **good_and_bad_days(4 * len(data.labels), shared))
    return Days(trainer.evaluate(inputs(seen), seen["label"])["f"], max(experts.evaluate(seen).values()))


@dataclass(frozen=True)
class FusionStudies:
    """一个种子的全部实验 / All studies of one seed."""

    single: dict[str, float]  # accuracy of each modality by itself, on the test set
    training_accuracy: dict[str, float]  # the same on the training set
    dropout: dict[str, Tested]  # the five fusions, trained with modality dropout
    no_dropout: dict[str, Tested]  # and without
    unwarned: Product  # of single models that never saw a failure
    warned: Product  # and of some that did
    noise_weights: dict[str, list[float]]
    constants: dict[str, Constants]  # w from "train", "validation", or "equal"
    apart: Days
    shared: Days
    pulled: Tested  # trained with the pull towards uniform
    free: Tested  # and without


@typed
def study(seed: int, separate_steps: int = SEPARATE_STEPS, together_steps: int = TOGETHER_STEPS) -> FusionStudies:
    """用一个种子训练一遍，做全部实验 / Train all of it once with one seed, and do all studies."""
    checks.whole(together_steps, "together_steps", 2)
    train, validation, test = (digits.load(role) for role in digits.ROLES)
    experts = separately(separate_steps, seed, device="cpu").finish().model
    warned = separately(together_steps, seed, device="cpu", start=experts).finish(dropout=DROPOUT).model
    dropout = together(experts, together_steps, seed, device="cpu").finish().trainer
    no_dropout = together(experts, together_steps, seed, device="cpu").finish(dropout=0.0).trainer
    free = together(experts, together_steps // 2, seed, device="cpu").finish(pull=0.0).trainer
    noisy = {condition: observe_under(test, condition, 2) for condition in NOISY}
    clean, learned = noisy["clean"], observe_all(train)
    return FusionStudies(
        single=experts.evaluate(clean), training_accuracy=experts.evaluate(learned),
        dropout=examine(dropout, test), no_dropout=examine(no_dropout, test),
        unwarned=product(experts, noisy), warned=product(warned, noisy),
        noise_weights=weights_with_noise(experts, validation),
        constants=weights_from(experts, {"train": learned, "validation": observe_all(validation, 4)}, clean),
        apart=bad_days(dropout, experts, test, shared=False), shared=bad_days(dropout, experts, test, shared=True),
        pulled=fused(dropout, clean), free=fused(free, clean))
