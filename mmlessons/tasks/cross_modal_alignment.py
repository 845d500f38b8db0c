r"""对齐冻结的特征 / Aligning frozen features: two views of the same emoji that have never met.

图画的特征来自一个只看过图画的编码器，名字的特征来自一个只读过文字的编码器；这里只学两个线性的投影，所以一步不到两毫秒。

The features of the pictures come from an encoder that saw pictures alone, those of the names from one that read texts
alone; only two linear projections are learned here, so that a step takes less than two milliseconds.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmcore import checks
from mmcore.alignment import (
    AlignmentLoss,
    CrossModalAligner,
    CrossModalAlignment,
    cosine_similarity,
    modality_gap,
    sigmoid_loss,
)
from mmcore.ranking import mutual_scores
from mmcore.training import choose_device, evaluating, make_optimizer, optimize, seeded
from mmlessons.data import views

LANGUAGES = views.LANGUAGES
WIDTH = 64  # of the projections
TAU = 0.1
LEARNING_RATE = 1e-2
SHARE = 0.5  # of a meaning that goes to the others of its group


def meanings(concept: Tensor, group: Tensor, share: float = SHARE) -> Tensor:
    """y：意思的分布 / y, a distribution over meanings: (N,), (N,) → (N, N), rows sum to 1.

    `share` 平分给同组别的概念的各项，其余平分给同一概念的各项；同组没有别的概念时，全归自己。

    `share` is divided evenly among the items of other concepts of the group, the rest among the items of the same
    concept; where the group has no other concept, all of it stays.

    Raises: ValueError `share` 不在 0 到 1 之间（不含 1），或两者不一样长 / if `share` is not from 0 to below 1, or if
    the two differ in length.
    """
    checks.require(0 <= share < 1, f"share 需要在 0 到 1 之间，收到 {share}",
                   f"share must be from 0 to below 1, got {share}")
    checks.require(concept.ndim == 1 and concept.shape == group.shape,
                   f"concept 和 group 需要一样长，收到 {checks.shape_of(concept)} 和 {checks.shape_of(group)}",
                   "concept and group must be of one length, "
                   f"got {checks.shape_of(concept)} and {checks.shape_of(group)}")
    same = concept.unsqueeze(1) == concept
    kin = (group.unsqueeze(1) == group) & ~same
    given = share * kin.any(1, keepdim=True)
    return (1 - given) * same / same.sum(1, keepdim=True) + given * kin / kin.sum(1, keepdim=True).clamp_min(1)


class AlignmentTrainer:
    """训练两个投影 / Trains the two projections.

    每一步取 `batch` 项：概念互不相同，各取一位训练作者的图画和一种语言的名字。

    Each step takes `batch` items: different concepts, for each the picture by one training artist and the name in one
    language.

    `repeats` = 4 时每个概念出现四次，由不同的作者画，一批里就有意思相同、却算作负例的说法；`mend` 用 `positives` 说出
    它们其实同义。`one_language` 时每位作者的图画只配一种语言的名字，好比一张照片只有一句说明。

    With `repeats` = 4 every concept comes four times, drawn by different artists, so that a batch holds texts that mean
    the same and count as negatives all the same; `mend` says by `positives` that they do mean the same. With
    `one_language` the pictures by an artist come with names in one language only, as a photograph comes with one
    caption.

    `normalize=False`：(2.2) 不除以长度 / (2.2) does not divide by the lengths.

    τ、α、β、γ 每一步都可以换。同一个 `seed` 给出同样的投影。`reset` 丢掉学到的，从头再来。

    τ, α, β and γ may change from step to step. The same `seed` gives the same projections. `reset` drops what was
    learned and starts anew.

    Raises: TypeError / ValueError 个数不对，或一批比概念还多 / for a wrong number, or more items than concepts.
    """

    def __init__(self, data: views.Views, seed: int = 0, batch: int = 256, repeats: int = 1, mend: bool = False,
                 one_language: bool = False, normalize: bool = True, share: float = SHARE,
                 device: str | torch.device | None = None):
        for value, name, least in ((seed, "seed", 0), (batch, "batch", 2), (repeats, "repeats", 1)):
            checks.whole(value, name, least)
        checks.require(batch % repeats == 0 and batch // repeats <= len(data.concepts),
                       f"batch 需要是 repeats 的倍数，且不超过 {len(data.concepts) * repeats}，收到 {batch}",
                       f"batch must be a multiple of repeats and at most {len(data.concepts) * repeats}, got {batch}")
        self.data, self.seed, self.batch, self.repeats, self.mend = data, seed, batch, repeats, mend
        self.one_language, self.normalize, self.share = one_language, normalize, share
        self.device = choose_device(device)
        artists = data.by_role("train")
        self.pictures = torch.stack([data.pictures[artist] for artist in artists])  # (A, C, D)
        self.drawn = torch.stack([data.drawn[artist] for artist in artists])
        self.names = torch.stack([data.names[language] for language in LANGUAGES])
        self.group = data.groups()
        hands = int(self.drawn.sum(0).min())
        checks.require(repeats <= hands, f"repeats 最多 {hands}：有的概念只有这么多作者画过，收到 {repeats}",
                       f"repeats may be at most {hands}, as many as drew every concept, got {repeats}")
        self.reset()

    def reset(self) -> None:
        """新的投影，新的优化器，同样的随机数 / New projections, a new optimiser, the same random numbers."""
        with seeded(self.seed):
            self._begin((self.pictures.shape[2], self.names.shape[2]))
        self.generator = torch.Generator().manual_seed(self.seed)

    def _begin(self, widths: Sequence[int]) -> None:
        self.aligner = CrossModalAligner(widths, self.device, WIDTH, TAU, lr=LEARNING_RATE,
                                         normalize=self.normalize)
        self.model = self.aligner.alignment

    def draw(self) -> dict[str, Tensor]:
        """下一批 / The next batch: features_A, features_B (N, D), concept (N,), y (N, N)."""
        concept = torch.randperm(len(self.group), generator=self.generator)[:self.batch // self.repeats]
        artist = views.draw_artists(self.drawn[:, concept], self.repeats, self.generator).flatten()
        concept = concept.repeat(self.repeats)
        language = torch.randint(len(LANGUAGES), concept.shape, generator=self.generator)
        if self.one_language:
            language = artist % len(LANGUAGES)
        alone = torch.arange(len(concept))  # unmended, every item passes for a meaning of its own
        return {"features_A": self.pictures[artist, concept], "features_B": self.names[language, concept],
                "concept": concept,
                "y": meanings(concept if self.mend else alone, self.group[concept], self.share)}

    def train_step(self, tau: float = TAU, alpha: float = 1.0, beta: float = 0.0, gamma: float = 0.0
                   ) -> dict[str, float]:
        """走一步，返回各项损失 / Take one step, return the losses: the keys of `AlignmentLoss`.

        Raises: TypeError / ValueError τ 或权重不对 / for a wrong τ or weight; FloatingPointError 损失不是有限数 / if
        the loss is not finite. In all cases the projections stay as they were.
        """
        self.aligner.tune(tau, alpha, beta, gamma)
        batch = self.draw()
        return self.aligner.train_step(batch["features_A"], batch["features_B"], batch["y"], self._positives(batch))

    def forward(self, features_A: Tensor, features_B: Tensor, y: Tensor, tau: Tensor, alpha: Tensor, beta: Tensor,
                gamma: Tensor) -> dict[str, Tensor]:
        """一步里的计算，有名字的张量 / What a step computes, as named tensors: the diagram of the lesson."""
        projected_A, projected_B = self.model.project(features_A, features_B)
        return {"projected_A": projected_A, "projected_B": projected_B,
                **AlignmentLoss(tau, alpha, beta, gamma, self.normalize)(projected_A, projected_B, y)}

    def project(self, pictures: Tensor, names: Tensor) -> tuple[Tensor, Tensor]:
        """投影，不训练 / Project, without training: (N, D), (M, D) → (N, P), (M, P)."""
        with evaluating(self.model):
            a, b = self.model.project(pictures.to(self.device), names.to(self.device))
        return a.cpu(), b.cpu()

    def _positives(self, batch: dict[str, Tensor]) -> Tensor | None:
        return batch["concept"].unsqueeze(1) == batch["concept"] if self.mend else None


class SigmoidTrainer(AlignmentTrainer):
    """同样的投影，用 (2.4) 训练 / The same projections trained by (2.4); τ and c are learned too, from 1/10 and −10."""

    def _begin(self, widths: Sequence[int]) -> None:
        self.model = CrossModalAlignment(widths, WIDTH).to(self.device)
        self.scale = nn.ParameterDict({"log": torch.tensor(10.0).log(), "bias": torch.tensor(-10.0)}).to(self.device)
        self.learned = nn.ModuleList([self.model, self.scale])
        self.optimizer = make_optimizer(self.learned, LEARNING_RATE, 0.01)

    def train_step(self) -> dict[str, float]:
        """走一步 / Take one step: {"sigmoid_loss", "tau", "bias"}."""
        batch = self.draw()
        features = batch["features_A"].to(self.device), batch["features_B"].to(self.device)

        def forward() -> Tensor:
            a, b = self.model.project(*features)
            return sigmoid_loss(a, b, (-self.scale["log"]).exp(), self.scale["bias"], self._positives(batch))

        loss = optimize(self.learned, self.optimizer, forward)
        return {"sigmoid_loss": loss, "tau": (-self.scale["log"]).exp().item(), "bias": self.scale["bias"].item()}


def features_of(trainer: AlignmentTrainer | None, data: views.Views, artist: str, language: str
                ) -> tuple[Tensor, Tensor]:
    """一位作者的图画与一种语言的名字，投影之后；没有 trainer 就是原来的特征 / Projected, or raw without a trainer."""
    drawn = data.drawn[artist]
    a, b = data.pictures[artist][drawn], data.names[language][drawn]
    return (a, b) if trainer is None else trainer.project(a, b)


def exam(trainer: AlignmentTrainer | None, data: views.Views, artists: Sequence[str], other: int | None = None
         ) -> float:
    """R@1：对作者、语言、两个方向求平均 / R@1, the mean over artists, languages and both directions.

    `other` 为 0 时只用 `one_language` 里配给每位作者的那种语言，为 1 时只用另一种。

    With `other` = 0 only the language that `one_language` gives to each artist is used, with 1 only the other one.
    """
    found = [mutual_scores(cosine_similarity(*features_of(trainer, data, artist, language)))["r@1"]
             for k, artist in enumerate(artists) for i, language in enumerate(LANGUAGES)
             if other is None or (k + other) % len(LANGUAGES) == i]
    return sum(found) / len(found)


def spread(x: Tensor) -> float:
    """同一团里不同两点的平均余弦；1 表示坍缩成一点 / The mean cosine of two different points; 1 is collapse."""
    S = cosine_similarity(x, x)
    return ((S.sum() - S.diagonal().sum()) / (S.numel() - len(S))).item()


def kin_among_nearest(a: Tensor, b: Tensor, group: Tensor, k: int = 5) -> float:
    """除了自己，最近的 k 个名字里同组的比例 / Of the k nearest names other than its own, the share of its group.

    只数同组至少有 k 个别的概念的那些图画 / Only pictures whose group has at least k other concepts are counted.
    """
    kin = (group.unsqueeze(1) == group).fill_diagonal_(False)
    counted = kin.sum(1) >= k
    nearest = cosine_similarity(a, b).fill_diagonal_(-torch.inf).topk(k).indices
    return kin.gather(1, nearest)[counted].double().mean().item()


def mistaken_for_kin(a: Tensor, b: Tensor, group: Tensor) -> float:
    """认错的图画里，错成同组的占多少；一幅也没认错就是 nan / Of the wrong answers, the share within the group.

    nan where no answer is wrong.
    """
    first = cosine_similarity(a, b).argmax(1)
    wrong = first != torch.arange(len(first))
    return (group[first] == group)[wrong].double().mean().item()


def take_exams(trainer: AlignmentTrainer | None) -> dict[str, float]:
    """各项考试与测量 / All tests and measurements; None tests the raw features.

    | 键 key | 量什么 what is measured |
    |---|---|
    | `seen` | R@1，学过的配对 / on the pairs it learned from |
    | `other_language` | R@1，学过的图画，`one_language` 没配给它的语言 / in the language not given to an artist |
    | `validation` | R@1，学过的概念，验证作者 / concepts it learned, by the validation artist |
    | `artist` | R@1，学过的概念，没见过的作者 / concepts it learned, by an artist nobody saw |
    | `validation_concept` | R@1，验证的概念，学过的作者 / the validation concepts, by the artists it learned from |
    | `concept` | R@1，没见过的概念，学过的作者 / concepts it never paired, by the artists it learned from |
    | `both` | R@1，没见过的概念，没见过的作者 / concepts it never paired, by an artist nobody saw |
    | `mean_cosine` | 配对的平均余弦（`artist` 那项考试）/ of the pairs, in the test `artist` |
    | `other_cosine` | 不配对的平均余弦 / of all that are no pair, in the same test |
    | `gap` | 模态间隙，学过的配对 / the modality gap on the pairs it learned from |
    | `alike` | 同一模态里不同概念的平均余弦 / mean cosine of different concepts within one modality |
    | `kin` | 最近的五个别的名字里同组的比例（`artist`）/ share of its group among the five nearest other names |
    | `wrong_kin` | 认错的图画里错成同组的比例（`artist`）/ of the wrong answers in `artist`, share in the group |
    | `kin_concept` | 最近的两个，没见过的概念（`both`）/ among the two nearest, for concepts it never paired |
    """
    room, choose, new = (views.load(subset) for subset in ("classroom", "validation", "held-out"))
    learned, (validation,), (unseen,) = (room.by_role(role) for role in ("train", "validation", "test"))
    S = torch.stack([cosine_similarity(*features_of(trainer, room, unseen, language)) for language in LANGUAGES])
    pair = S.diagonal(dim1=1, dim2=2)
    known = [features_of(trainer, room, artist, language) for artist in learned for language in LANGUAGES]
    a, b = (torch.cat(side) for side in zip(*known, strict=True))
    asked, fresh = ([features_of(trainer, data, unseen, language) for language in LANGUAGES] for data in (room, new))
    kin = [kin_among_nearest(*sides, room.groups(), 5) for sides in asked]
    wrong = [mistaken_for_kin(*sides, room.groups()) for sides in asked]
    kin_concept = [kin_among_nearest(*sides, new.groups(), 2) for sides in fresh]
    own, other = (exam(trainer, room, learned, k) for k in (0, 1))
    return {"seen": own if trainer and trainer.one_language else (own + other) / 2, "other_language": other,
            "validation": exam(trainer, room, [validation]),
            "artist": exam(trainer, room, [unseen]), "validation_concept": exam(trainer, choose, learned),
            "concept": exam(trainer, new, learned), "both": exam(trainer, new, [unseen]),
            "mean_cosine": pair.mean().item(),
            "other_cosine": ((S.sum() - pair.sum()) / (S.numel() - pair.numel())).item(),
            "gap": modality_gap(a, b).item(), "alike": (spread(known[0][0]) + spread(known[0][1])) / 2,
            "kin": sum(kin) / 2, "kin_concept": sum(kin_concept) / 2, "wrong_kin": sum(wrong) / 2}


def train_and_test(seed: int, steps: int, tau: float = TAU, alpha: float = 1.0, beta: float = 0.0, gamma: float = 0.0,
                   batch: int = 256, repeats: int = 1, mend: bool = False, one_language: bool = False,
                   normalize: bool = True, sigmoid: bool = False, subset: str = "classroom") -> dict[str, float]:
    """训练一次，返回各项考试 / Train once, return the tests: the keys of `take_exams`.

    `sigmoid` 用 (2.4) 训练，那时 τ、α、β、γ 没有作用；`subset` 是用来学习的概念，考试总是同样的。

    `sigmoid` trains by (2.4), and then τ, α, β and γ have no part; `subset` is what it learns from, and the tests are
    always the same.
    """
    kind = SigmoidTrainer if sigmoid else AlignmentTrainer
    trainer = kind(views.load(subset), seed, batch, repeats, mend, one_language, normalize, device="cpu")
    for _ in range(steps):
        trainer.train_step(*() if sigmoid else (tau, alpha, beta, gamma))
    return take_exams(trainer)
