r"""认数字：看、听、读，再融合 / Recognising digits: seen, heard and read, then fused.

三个小编码器各看一种模态：先由 `AloneTrainer` 各学各的，再由 `DigitTrainer` 与五种融合一起学。

Three small encoders look at one modality each: `AloneTrainer` first lets each learn by itself, then `DigitTrainer`
trains them together with all five ways of fusion.
"""

from collections.abc import Collection, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.fusion import CANDIDATES, LateFusion, weighted_sum
from mmcore.training import optimize
from mmlessons.data import digits
from mmlessons.data.digits import MODALITIES
from mmlessons.tasks import several_modalities as fusing
from mmlessons.tasks.several_modalities import accuracy, accuracy_of, finish, mean_weights

WIDTHS = {"image": 48, "sound": 64, "text": 32}  # of the features; a common width comes with the projections
FUSED = 128
CLASSES = 10
ALONE_STEPS, TOGETHER_STEPS = 450, 300  # chosen on the validation split: about five seconds of one thread each
ALONE_RATE, TOGETHER_RATE = 4e-3, 3e-3
DROPOUT = 0.4
DIALS = {"image_noise": digits.IMAGE_NOISE, "babble_snr_db": digits.BABBLE_SNR_DB, "typo_rate": digits.TYPO_RATE}


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

    0 没有噪声，1 是平常的量 / 0 is no noise, 1 the usual amount.

    图：标准差的倍数；声：嘈杂声振幅的倍数（平常是 5 dB，两倍就是 −1 dB）；字：错字率的倍数，至多 1。

    Image: times the standard deviation; sound: times the amplitude of the babble (5 dB as a rule, −1 dB at twice);
    text: times the rate of typos, at most 1.

    Raises: ValueError 模态未知 / if the modality is unknown.
    """
    turned = {}
    for modality, level in levels.items():
        checks.one_of(modality, "modality", MODALITIES)
        level = torch.as_tensor(level, dtype=torch.float32)
        if modality == "image":
            turned["image_noise"] = level * digits.IMAGE_NOISE
        elif modality == "sound":
            turned["babble_snr_db"] = digits.BABBLE_SNR_DB - 20 * level.clamp(min=1e-3).log10()
        else:
            turned["typo_rate"] = (level * digits.TYPO_RATE).clamp(max=1)
    return turned


def training_noise(count: int, generator: torch.Generator, dropout: float) -> dict[str, object]:
    """训练时每一行的噪声 / The noise of every row in training: arguments of `Digits.observe`.

    每行每个模态的噪声是平常的 0 到 1.5 倍。**模态丢弃**：以概率 `dropout` 让三个模态之一失灵，一半是只剩噪声，一半是
    缺失。

    For every row and modality the noise is 0 to 1.5 times the usual. **Modality dropout**: with probability `dropout`
    one of the three modalities fails, half of the time by being nothing but noise, half by being absent.
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
    return [seen[modality] for modality in MODALITIES]


class _Digits:
    """认数字：三个模态，十个类别 / Recognising digits: three modalities, ten classes."""

    modalities, classes, widths = MODALITIES, CLASSES, WIDTHS

    def make_encoders(self) -> dict[str, nn.Module]:
        return make_encoders()

    def draw(self, dropout: float) -> dict[str, Tensor]:
        noise = training_noise(self.batch, self.generator, dropout)
        indices = torch.randint(len(self.data.labels), (self.batch,), generator=self.generator)
        return self.data.observe(indices, self.generator, **noise)


class AloneTrainer(_Digits, fusing.AloneTrainer):
    """三个模态各学各的 / Each modality by itself: see `fusing.AloneTrainer`; failures are those of `training_noise`."""

    def __init__(self, steps: int = ALONE_STEPS, seed: int = 0, batch: int = 256,
                 device: str | torch.device | None = None, start: "AloneTrainer | None" = None):
        super().__init__(digits.load("train"), steps, seed, batch, device, ALONE_RATE, start)


class DigitTrainer(_Digits, fusing.TogetherTrainer):
    """三个编码器与五种融合一起学 / Three encoders and five ways of fusion: see `fusing.TogetherTrainer`."""

    def __init__(self, alone: AloneTrainer, steps: int = TOGETHER_STEPS, seed: int = 0, batch: int = 256,
                 device: str | torch.device | None = None):
        super().__init__(alone, digits.load("train"), steps, seed, batch, device, TOGETHER_RATE, FUSED)

    def train_step(self, dropout: float = DROPOUT, pull: float = 0.02) -> dict[str, float]:
        """走一步 / Take one step, see `fusing.TogetherTrainer.train_step`."""
        return super().train_step(dropout, pull)


def observe_all(data: digits.Digits, times: int = 1, seed: int = 0, **noise: object) -> dict[str, Tensor]:
    """一个划分的每幅图各观察 `times` 次 / Every picture of a split, observed `times` times.

    没给的旋钮停在平常的位置；`noise_only` 与 `missing` 在这里是一个模态的名字，对所有行有效。同一个 `seed` 给出同样的
    录音、写法与噪声。

    Dials that are not given stand where they usually do; `noise_only` and `missing` name a modality here and act on
    every row. The same `seed` gives the same recordings, forms and noise.
    """
    checks.whole(times, "times")
    indices = torch.arange(len(data.labels)).repeat(times)
    for name in ("noise_only", "missing"):
        if noise.get(name) is not None:
            noise[name] = {noise[name]: torch.ones(len(indices), dtype=torch.bool)}
    return data.observe(indices, torch.Generator().manual_seed(seed), **{**DIALS, **noise})


def one_sample(data: digits.Digits, clip: digits.Clip, levels: Mapping[str, float], noise_only: Collection[str] = (),
               missing: Collection[str] = ()) -> tuple[dict[str, Tensor], Tensor]:
    """听得见的一个样本 / One sample that can be heard: what `observe` would give, and the waveform.

    图和字按 `clip` 的数字取，噪声按 `levels`（见 `dials`）；声音就是听到的这一段。`noise_only` 里的模态只剩噪声，
    `missing` 里的全是 0。同一个 `clip` 总是配同一幅图、同一种写法。

    Picture and word are of the clip's digit, with noise as `levels` say (see `dials`); the sound is the very one that
    is heard. Modalities in `noise_only` are nothing but noise, those in `missing` are zeros. One `clip` always goes
    with the same picture and form.
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


def product_rule(decisions: list[Tensor]) -> Tensor:
    """乘法规则：各模态的概率相乘 / The product rule: multiply the probabilities of the modalities; (B, 10), log scale.

    若给定标签后各模态互不相关、每类一样多，而且每个 pᵢ 都准，这就是最好的答案（贝叶斯定理），什么也不用学。

    If the modalities are independent given the label, the classes equally frequent and every pᵢ exact, this is the best
    answer there is (Bayes' theorem), and nothing needs to be learned.

    Paper: Kittler et al. 1998, On Combining Classifiers.
    """
    return sum((p_i + 1e-9).log() for p_i in decisions)


def weigh_decisions(decisions: list[Tensor], label: Tensor, steps: int = 150) -> Tensor:
    """决策的晚期融合 (3.2)：学出 w / Late fusion of decisions (3.2): learn w, (M,).

    可学的只有 M 个数；损失是融合后概率的 −ln。

    There are only M numbers to learn; the loss is −ln of the fused probability.
    """
    late = LateFusion(CLASSES, len(decisions))
    optimizer = torch.optim.Adam(late.parameters(), lr=0.1)
    for _ in range(steps):
        optimize(late, optimizer, lambda: F.nll_loss((late(decisions) + 1e-9).log(), label))
    return late.weights(decisions)[0].detach()


def good_and_bad_days(count: int, shared: bool, seed: int = 0) -> dict[str, Tensor]:
    """一半的样本噪声大，一半小 / Half of the rows have much noise (2.2 times the usual), half little (0.3 times).

    `shared` 时三个模态同好同坏；否则各管各的。每个模态自己的噪声分布都一样。

    With `shared`, all three modalities have their bad days together; otherwise each has its own. For each modality by
    itself the noise is distributed alike.
    """
    bad = torch.rand(1 if shared else len(MODALITIES), count, generator=torch.Generator().manual_seed(seed)) < 0.5
    levels = torch.where(bad, 2.2, 0.3).expand(len(MODALITIES), -1)
    return dials(dict(zip(MODALITIES, levels, strict=True)))


NOISY = {"clean": {}, **{f"noise_only {m}": {"noise_only": m} for m in MODALITIES}}
CONDITIONS = {**NOISY, **{f"missing {m}": {"missing": m} for m in MODALITIES}}


def examine(trainer: DigitTrainer, data: digits.Digits, times: int = 4,
            conditions: Mapping[str, dict] = NOISY) -> dict[str, dict]:
    """每种情形的正确率与平均权重 / For each condition the accuracies and the mean weights.

    键是 `evaluate` 和 `weights` 的；另有 "alpha frozen"、"g frozen"：同一个模型，权重却换成照平常时的平均，正确率。

    The keys are those of `evaluate` and `weights`; also "alpha frozen" and "g frozen", the accuracy of the same model
    with its weights replaced by what they are on average as usual.
    """
    results: dict[str, dict] = {}
    for name, noise in conditions.items():
        seen = observe_all(data, times, **noise)
        out = trainer.trainer.fuse(inputs(seen))
        results[name] = {method: accuracy(trainer.trainer.head(out[method]), seen["label"])
                         for method in (*CANDIDATES, "f")} | mean_weights(out)
        for key in ("alpha", "g"):
            results[name][f"{key} frozen"] = accuracy_of(trainer.trainer, out, seen["label"], results["clean"][key])
    return results


def train_and_test(seed: int, alone_steps: int = ALONE_STEPS, together_steps: int = TOGETHER_STEPS) -> dict[str, dict]:
    """训练一遍，考一遍 / Train all of it once with one seed, and test it.

    | 键 key | 内容 what |
    |---|---|
    | `alone` | 各模态单独的正确率 / accuracy of each modality by itself |
    | `homework` | 同上，在训练集上 / the same on the training split |
    | `with`, `without` | 有、没有模态丢弃时的 `examine` / `examine` with and without modality dropout |
    | `pulled`, `free` | 有、没有拉力：平均的 π 与正确率 / the mean π and the accuracy f, with and without the pull |
    | `product`, `warned` | 乘法规则的正确率，单独的模型没见过、见过失灵 / accuracy of the product rule, the single
      models never having seen a failure, and having seen some |
    | `sure` | 只剩嘈杂声时，声音模型最大的概率，平均 / the mean largest probability of the sound model hearing babble |
    | `noisy w` | 哪个模态是噪声 → 决策融合学到的 w / which modality was noise → w learned by fusing decisions |
    | `w`, `fused` | w 学自 train、validation，或均分：w 与测试正确率 / w from train, validation or equal: the w and
      its test accuracy |
    | `apart`, `shared` | 坏日子各管各的、同好同坏时：f 与最好的单个模态 / accuracy of f and of the best single modality
      with bad days apart, and shared |
    """
    train, validation, test = (digits.load(role) for role in digits.ROLES)
    alone = finish(AloneTrainer(alone_steps, seed, device="cpu"))
    warned = finish(AloneTrainer(together_steps, seed, device="cpu", start=alone), dropout=DROPOUT)
    trained = {}
    for name, steps, values in (("with", together_steps, {}), ("without", together_steps, {"dropout": 0.0}),
                                ("free", together_steps // 2, {"pull": 0.0})):
        trained[name] = finish(DigitTrainer(alone, steps, seed, device="cpu"), **values)
    noisy = {condition: observe_all(test, 2, **noise) for condition, noise in NOISY.items()}
    clean, homework = noisy["clean"], observe_all(train)
    result = {"alone": alone.evaluate(clean), "homework": alone.evaluate(homework),
              **{name: examine(trained[name], test) for name in ("with", "without")}}
    for name, key in (("with", "pulled"), ("free", "free")):
        result[key] = {"pi": trained[name].weights(clean)["pi"], "f": trained[name].evaluate(clean)["f"]}
    sure = result["sure"] = {}
    for name, models in (("product", alone), ("warned", warned)):
        decisions = {condition: models.decisions(seen) for condition, seen in noisy.items()}
        result[name] = {condition: accuracy(product_rule(p), noisy[condition]["label"])
                        for condition, p in decisions.items()}
        sure[name] = decisions["noise_only sound"][MODALITIES.index("sound")].amax(1).mean().item()
    result["noisy w"] = {}
    for modality in MODALITIES:
        seen = observe_all(validation, 4, noise_only=modality)
        result["noisy w"][modality] = weigh_decisions(alone.decisions(seen), seen["label"]).tolist()
    result["w"] = {"equal": [1 / len(MODALITIES)] * len(MODALITIES)}
    for name, seen in (("train", homework), ("validation", observe_all(validation, 4))):
        result["w"][name] = weigh_decisions(alone.decisions(seen), seen["label"]).tolist()
    decisions = alone.decisions(clean)
    result["fused"] = {name: accuracy(weighted_sum(torch.tensor(w), decisions), clean["label"])
                       for name, w in result["w"].items()}
    for name in ("apart", "shared"):
        seen = observe_all(test, 4, **good_and_bad_days(4 * len(test.labels), shared=name == "shared"))
        result[name] = {"f": trained["with"].evaluate(seen)["f"], "alone": max(alone.evaluate(seen).values())}
    return result
