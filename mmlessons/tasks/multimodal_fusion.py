r"""认数字：看、听、读，再融合 / Recognising digits: seen, heard and read, then fused.

Three small encoders look at one modality each. They first learn each by itself (`separately`), then with all five ways
of fusion (`together`). The studies of the lesson are the functions at the end, and `study` is what runs in the
background. What the weights mean is asked in `what_weights_do_not_say`.

三个小编码器各看一种模态：先各学各的（`separately`），再与五种融合一起学（`together`）。这一课的实验是末尾的几个函数，
在后台运行的是 `study`。权重说明什么，在 `what_weights_do_not_say` 里问。
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.checks import shapes
from mmcore.fusion import CANDIDATES, MultimodalFusionTrainer, weighted_sum
from mmlessons.border import holds, typed
from mmlessons.data import digits
from mmlessons.data.digits import MODALITIES
from mmlessons.tasks import several_modalities as several
from mmlessons.tasks.learner import Learner
from mmlessons.tasks.scoring import best
from mmlessons.tasks.several_modalities import Experts, Modalities, mean_weights, projected

WIDTHS = {"image": 48, "sound": 64, "text": 32}  # of the features; a common width comes with the projections
FUSED = 128
CLASSES = 10
SEPARATE_STEPS, TOGETHER_STEPS = 450, 300  # chosen on the validation split: about five seconds of one thread each
SEPARATE_RATE, TOGETHER_RATE = 4e-3, 3e-3
DROPOUT = 0.4
TIMES = 4  # each picture of the test is seen four times, with other noise
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


FAR = 4.0  # times the usual noise: training goes to 1.5 times
CONDITIONS |= {f"loud {m}": dials({m: FAR}) for m in MODALITIES}


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


# -- studies ----------------------------------------------------------------------------------------------------------

def by_picture(right: Tensor, times: int) -> Tensor:
    """每幅图对了几成 / Of each picture, the share of its observations that is right: (times · N,) → (N,) float64.

    The observations of one picture are one item, see `intervals`; they come in the order of `observe_all`.

    一幅图观察几次仍是一项，见 `intervals`；次序是 `observe_all` 的。
    """
    return right.view(checks.whole(times, "times"), -1).double().mean(0)


@dataclass(frozen=True)
class Tested:
    """五种融合在一种情形下 / The five fusions under one condition; scores are (N,), a number for each picture."""

    right: dict[str, Tensor]  # of `CANDIDATES` and the mixture "f"
    weights: dict[str, list[float]]  # "w", "alpha", "g", "pi", each a mean over the samples
    frozen: dict[str, Tensor]  # with "alpha", "g" kept at what they are on average as usual


@typed
def fused(trainer: MultimodalFusionTrainer, seen: Mapping[str, Tensor], times: int = 1) -> Tested:
    """五种融合对这些样本，每幅图 `times` 次 / The five fusions on these samples, each picture `times` times."""
    return _fused(trainer, seen, times, None)


def _fused(trainer: MultimodalFusionTrainer, seen: Mapping[str, Tensor], times: int,
           usual: Mapping[str, list[float]] | None) -> Tested:
    """With the frozen weights being those of `usual`, or else their own mean."""
    label, out = _label(seen, times), trainer.fuse(inputs(seen))
    weights, features = mean_weights(out), projected(out)

    def each(feature: Tensor) -> Tensor:
        return by_picture(best(trainer.head(feature)).cpu() == label, times)

    right = {method: each(out[method]) for method in (*CANDIDATES, "f")}
    frozen = {key: each(weighted_sum(torch.tensor((usual or weights)[key]).to(features[0]), features))
              for key in ("alpha", "g")}
    return Tested(right, weights, frozen)


def _label(seen: Mapping[str, Tensor], times: int) -> Tensor:
    """The labels, of samples that are `times` observations of every picture."""
    holds(seen, "seen", **INPUTS, label="int64 B")
    label, rows = seen["label"], len(seen["label"])
    checks.classes(label, "label", rows, CLASSES)
    checks.require(rows > 0 and rows % checks.whole(times, "times") == 0,
                   f"{rows} 个样本不能是每幅图 {times} 次", f"{rows} samples cannot be {times} of each picture")
    return label


@typed
def examine(trainer: MultimodalFusionTrainer, data: digits.Digits, conditions: Sequence[str] = tuple(NOISY),
            times: int = TIMES) -> dict[str, Tested]:
    """每种情形下的五种融合；第一种情形是平常的 / The five fusions under each condition, the first being the usual."""
    checks.require(len(conditions) > 0, "conditions 需要至少一种情形", "conditions must name one at least")
    results: dict[str, Tested] = {}
    for name in conditions:
        usual = results[conditions[0]].weights if results else None
        results[name] = _fused(trainer, observe_under(data, name, times), times, usual)
    return results


@dataclass(frozen=True)
class Singles:
    """单独的模型在一种情形下，和它们的乘积 / The single models under one condition, and rules that learn nothing more.

    Every tensor is (N,), a number for each picture.

    每个张量是 (N,)，一幅图一个数。
    """

    right: dict[str, Tensor]  # modality, or "mean", "product", or "any": at least one of the three is right
    sure: dict[str, float]  # modality → the largest of its probabilities, mean


@typed
def singles(experts: Experts, seen: Mapping[str, Tensor], times: int = 1) -> Singles:
    """单独的模型，它们的平均与乘积，对这些样本 / Single models, their mean and their product, on these samples."""
    label, decisions = _label(seen, times), experts.decisions(seen)
    right = {m: best(p) == label for m, p in zip(MODALITIES, decisions, strict=True)}
    right["any"] = torch.stack(list(right.values())).any(0)
    right |= {"mean": best(sum(decisions)) == label, "product": best(product_rule(decisions)) == label}
    sure = {m: p.amax(1).mean().item() for m, p in zip(MODALITIES, decisions, strict=True)}
    return Singles({name: by_picture(each, times) for name, each in right.items()}, sure)


@typed
def nearest(known: Mapping[str, Tensor], seen: Mapping[str, Tensor], times: int = 1) -> dict[str, Tensor]:
    """最近邻：与哪个留着的样本最像，就答它的数字 / The kept sample that is nearest names the digit: modality → (N,).

    Pictures and sounds are compared by distance, words by how many of their 16 places differ. Nothing is learned, all
    of `known` is kept. A score is that of a picture of `seen`, which is seen `times` times, as for `singles`.

    图和声比距离，字比 16 个位置里有几处不同。什么也不学，`known` 全都留着。成绩一幅图一个，`seen` 里每幅图看 `times`
    次，与 `singles` 一样。
    """
    label, right = _label(seen, times), {}
    finite = {m: f"{INPUTS[m]} finite" for m in ("image", "sound")}
    holds(seen, "seen", **finite)
    holds(known, "known", **INPUTS | finite, label="int64 B")
    checks.require(len(known["label"]) > 0, "known 是空的", "known is empty")
    checks.classes(known["label"], "label", len(known["label"]), CLASSES)
    for m in MODALITIES:
        here, kept = ((F.one_hot(x[m].long(), 256) if m == "text" else x[m]).flatten(1).float() for x in (seen, known))
        right[m] = known["label"][torch.cdist(here, kept).argmin(1)] == label
    return {m: by_picture(each, times) for m, each in right.items()}


@typed
def examine_singles(experts: Experts, data: digits.Digits, conditions: Sequence[str] = tuple(NOISY),
                    times: int = TIMES) -> dict[str, Singles]:
    """每种情形下的单独模型 / The single models under each condition, on the samples of `examine`."""
    return {name: singles(experts, observe_under(data, name, times), times) for name in conditions}


@dataclass(frozen=True)
class Constants:
    """晚期融合的常数 w / Constants w of late fusion."""

    w: list[float]
    right: dict[str, Tensor]  # condition → (N,), a number for each picture of the test set


def best_constants(trainer: MultimodalFusionTrainer, chosen_on: digits.Digits, test: digits.Digits,
                   parts: int = 20, times: int = TIMES) -> dict[str, Constants]:
    """为每种情形挑最好的一组常数 / The best constants for each condition, or at the worst of the failures ("worst").

    All w in steps of 1/`parts` that sum to 1 are tried on `chosen_on`, and what was chosen is asked on `test`. The head
    is linear, so that each modality's share of the scores is computed once.

    步长 1/`parts`、和为 1 的 w 全在 `chosen_on` 上试一遍，挑出的再用 `test` 来考。分类头是线性的，所以每个模态对得分的
    贡献只算一次。
    """
    grid = torch.tensor([(a, b, parts - a - b) for a in range(parts + 1) for b in range(parts + 1 - a)]) / parts

    def answers(data: digits.Digits, condition: str, w: Tensor) -> Tensor:  # (W, B): is it right?
        seen = observe_under(data, condition, times)
        features = torch.stack(projected(trainer.fuse(inputs(seen)))).cpu()  # (M, B, D)
        shares = F.linear(features, trainer.head.weight.detach().cpu())  # (M, B, K)
        scores = torch.einsum("wm,mbk->wbk", w, shares) + trainer.head.bias.detach().cpu()
        return scores.argmax(-1) == seen["label"]

    score = {name: answers(chosen_on, name, grid).double().mean(1) for name in NOISY}
    score["worst"] = torch.stack([score[name] for name in NOISY if name != "clean"]).amin(0)
    chosen = {name: grid[found.argmax()] for name, found in score.items()}
    rows = torch.stack([*chosen.values(), trainer.model.late_fusion.logits.detach().softmax(0).cpu()])
    right = {name: answers(test, name, rows) for name in NOISY}
    return {name: Constants(rows[k].tolist(), {case: by_picture(right[case][k], times) for case in NOISY})
            for k, name in enumerate([*chosen, "learned"])}


@dataclass(frozen=True)
class FusionStudies:
    """一个种子的全部实验 / All studies of one seed, on the test set; each dict is by condition."""

    unwarned: dict[str, Singles]  # single models that never saw a failure
    warned: dict[str, Singles]  # and some that did, in as many further steps
    fused: dict[str, Tested]  # the five fusions, trained with modality dropout
    constants: dict[str, Constants]


@typed
def study(seed: int, separate_steps: int = SEPARATE_STEPS, together_steps: int = TOGETHER_STEPS) -> FusionStudies:
    """用一个种子训练一遍，做全部实验 / Train all of it once with one seed, and do all studies."""
    checks.whole(together_steps, "together_steps")
    validation, test = digits.load("validation"), digits.load("test")
    experts = separately(separate_steps, seed, device="cpu").finish().model
    warned = separately(together_steps, seed, device="cpu", start=experts).finish(dropout=DROPOUT).model
    trainer = together(experts, together_steps, seed, device="cpu").finish().trainer
    everything = tuple(CONDITIONS)
    return FusionStudies(examine_singles(experts, test, everything), examine_singles(warned, test, everything),
                         examine(trainer, test, everything), best_constants(trainer, validation, test))
