"""对齐冻结的特征：两种从没见过面的视角，看同样的表情 / Aligning frozen features: two views of emoji that never met.

The features of the pictures come from an encoder that saw only pictures, those of the names from one that read only
texts; only two linear projections are learned here, so that a step takes less than two milliseconds. A `Rule` makes the
two sides comparable without any training, and is measured in the same way.

图画的特征来自一个只看过图画的编码器，名字的特征来自一个只读过文字的编码器；这里只学两个线性的投影，所以一步不到两毫秒。
`Rule` 不经训练也让两边可以比较，用同样的办法测量。
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmcore import checks
from mmcore.alignment import (
    CrossModalAligner,
    CrossModalAlignment,
    cosine_similarity,
    feature_alignment_loss,
    modality_gap,
    sigmoid_loss,
)
from mmcore.checks import shapes
from mmcore.ranking import ranks
from mmcore.training import evaluating
from mmlessons.border import typed
from mmlessons.data import views
from mmlessons.tasks.learner import Descent, Learner, Losses
from mmlessons.tasks.scoring import best

LANGUAGES = views.LANGUAGES
WIDTH = 64  # of the projections
TAU = 0.1
LEARNING_RATE = 1e-2
SHARE = 0.5  # of a meaning that goes to the others of its group


@typed
@shapes(concept="int64 N", group="int64 N", least={"N": 1})
def meanings(concept: Tensor, group: Tensor, share: float = SHARE) -> Tensor:
    """y：意思的分布 / y, a distribution over meanings: (N,), (N,) → (N, N), rows sum to 1.

    `share` is divided evenly among the items of other concepts of the group, the rest among the items of the same
    concept; where the group has no other concept, all of it stays. Raises ValueError if `share` is not from 0 to below
    1, or if the two differ in length.

    `share` 平分给同组别的概念的各项，其余平分给同一概念的各项；同组没有别的概念时，全归自己。`share` 不在 0 到 1 之间
    （不含 1），或两者不一样长时报 ValueError。
    """
    if not 0 <= share < 1:
        checks.refuse(f"share 需要在 0 到 1 之间，收到 {share}", f"share must be from 0 to below 1, got {share}")
    same = concept.unsqueeze(1) == concept
    others = (group.unsqueeze(1) == group) & ~same
    given = share * others.any(1, keepdim=True)
    return ((1 - given) * same / same.sum(1, keepdim=True)
            + given * others / others.sum(1, keepdim=True).clamp_min(1))


# -- training ---------------------------------------------------------------------------------------------------------

@typed
class Pairs:
    """一批一批的配对 / The pairs of a batch: for each item a picture by a training artist and a name in one language.

    The concepts of a batch differ. With `repeats` = 4 every concept comes four times, drawn by different artists, so
    that a batch holds texts that mean the same and count as negatives all the same; with `positives` it is said that
    they do mean the same. With `one_language` the pictures by an artist come with names in one language only, as a
    photograph comes with one caption. Raises TypeError or ValueError for a wrong number, or more items than concepts.

    一批里的概念互不相同。`repeats` = 4 时每个概念出现四次，由不同的作者画，一批里就有意思相同、却算作负例的说法；
    `positives` 说出它们其实同义。`one_language` 时每位作者的图画只配一种语言的名字，好比一张照片只有一句说明。个数不
    对，或一批比概念还多时报 TypeError 或 ValueError。
    """

    def __init__(self, data: views.Views, batch: int = 256, repeats: int = 1, positives: bool = False,
                 one_language: bool = False, share: float = SHARE):
        self.batch, self.repeats = checks.whole(batch, "batch", 2), checks.whole(repeats, "repeats")
        self.positives, self.one_language, self.share = positives, one_language, share
        artists = data.by_role("train")
        self.pictures = torch.stack([data.pictures[artist] for artist in artists])  # (A, C, D)
        self.drawn = torch.stack([data.drawn[artist] for artist in artists])  # (A, C)
        self.names = torch.stack([data.names[language] for language in LANGUAGES])  # (L, C, D)
        self.group = data.groups()
        most, hands = len(self.group) * self.repeats, int(self.drawn.sum(0).min())
        if self.batch % self.repeats or self.batch > most:
            checks.refuse(f"batch 需要是 repeats 的倍数，且不超过 {most}，收到 {batch}",
                          f"batch must be a multiple of repeats and at most {most}, got {batch}")
        if self.repeats > hands:
            checks.refuse(f"repeats 最多 {hands}：有的概念只有这么多作者画过，收到 {repeats}",
                          f"repeats may be at most {hands}, as many as drew every concept, got {repeats}")

    @property
    def widths(self) -> tuple[int, int]:
        """图画与名字的特征的宽度 / The widths of the features of pictures and names."""
        return self.pictures.shape[2], self.names.shape[2]

    @typed
    def draw(self, generator: torch.Generator) -> dict[str, Tensor | None]:
        """下一批 / The next batch: features_A, features_B (N, D), concept (N,), y and positives (N, N)."""
        concept = torch.randperm(len(self.group), generator=generator)[:self.batch // self.repeats]
        artist = views.draw_artists(self.drawn[:, concept], self.repeats, generator).flatten()
        concept = concept.repeat(self.repeats)
        language = torch.randint(len(LANGUAGES), concept.shape, generator=generator)
        if self.one_language:
            language = artist % len(LANGUAGES)
        meaning = concept if self.positives else torch.arange(len(concept))  # unsaid, each has a meaning of its own
        return {"features_A": self.pictures[artist, concept], "features_B": self.names[language, concept],
                "concept": concept, "y": meanings(meaning, self.group[concept], self.share),
                "positives": concept.unsqueeze(1) == concept if self.positives else None}


@typed
@dataclass(frozen=True)
class ThreeLosses:
    """两个投影，用 (2.1)、(2.2)、(2.3) 训练 / The projections, trained by (2.1), (2.2) and (2.3).

    τ, α, β and γ may change from step to step. With `normalize=False`, (2.2) does not divide by the lengths.

    τ、α、β、γ 每一步都可以换。`normalize=False` 时，(2.2) 不除以长度。
    """

    pairs: Pairs
    normalize: bool = True

    def begin(self, device: torch.device) -> CrossModalAligner:
        return CrossModalAligner(self.pairs.widths, device, WIDTH, TAU, lr=LEARNING_RATE, normalize=self.normalize)

    def step(self, aligner: CrossModalAligner, generator: torch.Generator, tau: float = TAU, alpha: float = 1.0,
             beta: float = 0.0, gamma: float = 0.0) -> Losses:
        aligner.tune(tau, alpha, beta, gamma)
        batch = self.pairs.draw(generator)
        return aligner.train_step(batch["features_A"], batch["features_B"], batch["y"], batch["positives"])


class SigmoidAlignment(nn.Module):
    """(2.2) 的投影，与 (2.4) 的 τ 和 c / The projections of (2.2), with τ and c of (2.4): learned from 1/10 and −10."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.alignment = CrossModalAlignment(widths, WIDTH)
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.bias = nn.Parameter(torch.tensor(-10.0))

    def project(self, features_A: Tensor, features_B: Tensor) -> tuple[Tensor, Tensor]:
        return self.alignment.project(features_A, features_B)

    def forward(self, features_A: Tensor, features_B: Tensor, positives: Tensor | None = None) -> dict[str, Tensor]:
        tau = (-self.log_scale).exp()
        a, b = self.project(features_A, features_B)
        loss = sigmoid_loss(a, b, tau, self.bias, positives)
        return {"sigmoid_loss": loss, "tau": tau, "bias": self.bias.clone()}  # as they were before the step


@dataclass(frozen=True)
class Sigmoid:
    """同样的投影，用 (2.4) 训练 / The same projections trained by (2.4)."""

    pairs: Pairs

    def begin(self, device: torch.device) -> Descent:
        model = SigmoidAlignment(self.pairs.widths).to(device)
        return Descent.of(model, lambda model, batch: model(**batch), LEARNING_RATE, 0.01, "sigmoid_loss")

    def step(self, trainer: Descent, generator: torch.Generator) -> Losses:
        batch, device = self.pairs.draw(generator), trainer.model.bias.device
        wanted = ("features_A", "features_B", "positives")
        return trainer.train_step({name: batch[name].to(device) for name in wanted if batch[name] is not None})


@typed
def learner(data: views.Views, seed: int = 0, normalize: bool = True, sigmoid: bool = False,
            device: str | torch.device | None = None, **pairs: float | bool) -> Learner:
    """学两个投影，没有尽头 / Learns the two projections, without end; `pairs` are the options of `Pairs`.

    With `sigmoid` it learns by (2.4), else by (2.1), (2.2) and (2.3). The same `seed` gives the same projections.

    `sigmoid` 时用 (2.4) 学，否则用 (2.1)、(2.2)、(2.3)。同一个 `seed` 给出同样的投影。
    """
    batches = Pairs(data, **pairs)
    return Learner(Sigmoid(batches) if sigmoid else ThreeLosses(batches, normalize), None, seed, device)


# -- rules that learn nothing -----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Rule:
    """不训练的规则 / A rule without training: `represent(pictures, names)` makes the two comparable by their cosine.

    (N, 128), (M, 128) → (N, D), (M, D). Where a feature becomes all zeros, the rule has no answer.

    特征变成全 0，就是这条规则没有答案。
    """

    represent: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@typed
def nearest_known(data: views.Views) -> Rule:
    """查旧图：像哪一幅，就叫那一幅的名字 / Looking it up: a picture gets the name of the known picture it is most like.

    A picture becomes its cosine with every concept of `data`, that with the nearest of the drawings by training
    artists; a name becomes 1 at its own concept and 0 elsewhere. A name that is not among them has no answer.

    一幅图画变成它与 `data` 里每个概念的余弦（训练作者画的几幅里，取最近的）；一个名字在自己的概念处是 1，其余是 0。名字
    不在其中，就没有答案。
    """
    known = [data.pictures[artist] for artist in data.by_role("train")]

    def represent(pictures: Tensor, names: Tensor) -> tuple[Tensor, Tensor]:
        alike = torch.stack([cosine_similarity(pictures, drawings) for drawings in known]).amax(0)
        same = [(names.unsqueeze(1) == data.names[language]).all(2) for language in LANGUAGES]
        return alike, torch.stack(same).any(0).to(alike.dtype)
    return Rule(represent)


@typed
def nearest_known_name(data: views.Views) -> Rule:
    """查旧图，换成它的名字 / Looking it up and going on from its name: what is near that name is near the picture.

    A picture becomes the feature of a name, the mean name of the concept of `data` whose drawing it is most like; a
    name stays what it is. So this rule has an answer for names that are not among them, and learns nothing either.

    一幅图画变成一个名字的特征，也就是它最像的那幅旧图的概念的平均名字；名字不变。所以名字不在其中时，它也有答案，同样什么
    也不学。
    """
    known = nearest_known(data)
    names = torch.stack([data.names[language] for language in LANGUAGES]).mean(0)
    return Rule(lambda pictures, asked: (names[known.represent(pictures, asked)[0].argmax(1)], asked))


@typed
def features_of(learned: Learner | Rule | None, data: views.Views, artist: str,
                language: str) -> tuple[Tensor, Tensor]:
    """一位作者的图画与一种语言的名字 / Pictures by one artist and names in one language: projected, or raw for None."""
    checks.one_of(artist, "artist", tuple(data.drawn))
    checks.one_of(language, "language", LANGUAGES)
    drawn = data.drawn[artist]
    a, b = data.pictures[artist][drawn], data.names[language][drawn]
    if learned is None:
        return a, b
    if isinstance(learned, Rule):
        return learned.represent(a, b)
    with evaluating(learned.model):
        a, b = learned.model.project(a.to(learned.device), b.to(learned.device))
    return a.cpu(), b.cpu()


# -- studies: the three sets of concepts, and what is measured on them ------------------------------------------------

@dataclass(frozen=True)
class Recall:
    """各种配对上的 R@1，一个概念一个成绩 / R@1 on all kinds of pairs, a score for each concept, (C,)."""

    seen: Tensor  # 学过的配对 / pairs it learned from
    other_language: Tensor  # 学过的图画，`one_language` 没配给它的语言 / same pictures, the language kept from them
    validation: Tensor  # 学过的概念，验证作者画的 / concepts it learned, by the validation artist
    unseen_artist: Tensor  # 学过的概念，没见过的作者画的 / concepts it learned, by the artist of the test set
    unseen_concepts: Tensor  # 没配过的概念，学过的作者画的 / concepts it never paired, by artists it learned from
    validation_concepts: Tensor  # 没配过的验证概念，同上 / validation concepts, never paired either, same artists


@dataclass(frozen=True)
class Geometry:
    """两团点的样子 / How the two clouds lie."""

    pairs: float  # 配对的平均余弦，没见过的作者 / mean cosine of pairs, by the unseen artist
    others: float  # 不配对的 / of all others
    within: float  # 模态内，不同概念的平均余弦 / within-modality: mean cosine of different concepts
    gap: float  # 模态间隙，学过的配对 / the modality gap, on the pairs it learned from


@dataclass(frozen=True)
class SameGroup:
    """没见过的作者的图画，每个概念一个数 / For pictures by the unseen artist, a number for each concept."""

    nearest: Tensor  # 最近的五个别的名字，同组的比例 / share of its own group among the five nearest other names
    nearest_unseen: Tensor  # 最近的两个，没配过的概念 / among the two nearest, for concepts it never paired
    wrong: Tensor  # 认错的比例 / share of wrong answers
    wrong_within: Tensor  # 认错、而且错成同组的比例 / share of answers that are wrong and of its own group


@dataclass(frozen=True)
class AlignmentStudies:
    """一次训练的各项测量 / All that is measured on one training."""

    recall: Recall
    geometry: Geometry
    same_group: SameGroup


@dataclass(frozen=True)
class Shortening:
    """(2.2) 不除以长度，训练以后剩下几分之几 / (2.2) without dividing by the lengths: what is left after training."""

    length: float
    square: float
    loss: float
    recall: Tensor  # (C,)


@typed
def recall_at_1(learned: Learner | Rule | None, data: views.Views, artists: Sequence[str],
                other: int | None = None) -> Tensor:
    """R@1，一个概念一个成绩 / R@1, a score for each concept, (C,): the mean over artists, languages, directions.

    Of a concept that none of these artists drew there is no score. With `other` = 0 only the language that
    `one_language` gives to each artist is used, with 1 only the other one.

    这些作者都没画过的概念没有成绩。`other` 为 0 时只用 `one_language` 里配给每位作者的那种语言，为 1 时只用另一种。
    """
    checks.require(len(artists) > 0, "artists 需要至少一位", "artists must name one at least")
    if other is not None:
        checks.index(other, "other", len(LANGUAGES))
    right, asked = torch.zeros(2, len(data.concepts), dtype=torch.float64)
    for k, artist in enumerate(artists):
        for i, language in enumerate(LANGUAGES):
            if other is None or (k + other) % len(LANGUAGES) == i:
                S = cosine_similarity(*features_of(learned, data, artist, language))
                right[data.drawn[artist]] += (ranks(S) == 1).double() + (ranks(S.T) == 1).double()
                asked[data.drawn[artist]] += 2
    return (right / asked)[asked > 0]


def cosine_within(x: Tensor) -> float:
    """同一团里不同两点的平均余弦；1 表示坍缩成一点 / The mean cosine of two different points; 1 is collapse."""
    S = cosine_similarity(x, x)
    return ((S.sum() - S.diagonal().sum()) / (S.numel() - len(S))).item()


def same_group_among_nearest(a: Tensor, b: Tensor, group: Tensor, k: int = 5) -> Tensor:
    """除了自己，最近的 k 个名字里同组的比例 / Of the k nearest names other than its own, the share of its group.

    Only pictures whose group has at least k other concepts are counted.

    只数同组至少有 k 个别的概念的那些图画。
    """
    same = (group.unsqueeze(1) == group).fill_diagonal_(False)
    nearest = cosine_similarity(a, b).fill_diagonal_(-torch.inf).topk(k).indices
    return same.gather(1, nearest)[same.sum(1) >= k].double().mean(1)


@typed
@shapes(group="int64 N")
def same_group_at_random(group: Tensor, k: int) -> tuple[int, float]:
    """同组至少有 k 个别的概念的有几个，随便拿同组的比例 / How many have k others in their group, and chance."""
    others = (group.unsqueeze(1) == group).sum(1) - 1
    counted = others >= checks.whole(k, "k", 0)
    checks.require(bool(counted.any()), f"没有哪一组有 {k + 1} 个概念", f"no group has {k + 1} concepts")
    return int(counted.sum()), (others[counted].double() / (len(group) - 1)).mean().item()


def mistakes(a: Tensor, b: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """每幅图画认错没有，错成同组没有 / For each picture: is its answer wrong, and is it wrong but of its group?"""
    first = best(cosine_similarity(a, b), "similarity")
    wrong = first != torch.arange(len(first))
    return wrong.double(), (wrong & (group[first] == group)).double()


@typed
def recall(learned: Learner | Rule | None) -> Recall:
    """各种配对上的 R@1 / R@1 on all kinds of pairs, of a learner or a rule; None measures the raw features."""
    room, new, others = (views.load(subset) for subset in ("classroom", "held-out", "validation"))
    artists, validation, unseen = (room.by_role(role) for role in ("train", "validation", "test"))
    own, other = (recall_at_1(learned, room, artists, k) for k in (0, 1))
    one_language = isinstance(learned, Learner) and learned.task.pairs.one_language
    return Recall(own if one_language else (own + other) / 2, other, recall_at_1(learned, room, validation),
                  recall_at_1(learned, room, unseen), recall_at_1(learned, new, artists),
                  recall_at_1(learned, others, artists))


def geometry(learned: Learner | Rule | None) -> Geometry:
    """两团点的样子 / How the two clouds lie; None measures the raw features."""
    room = views.load()
    unseen, = room.by_role("test")
    S = torch.stack([cosine_similarity(*features_of(learned, room, unseen, language)) for language in LANGUAGES])
    pairs = S.diagonal(dim1=1, dim2=2)
    known = [features_of(learned, room, artist, language)
             for artist in room.by_role("train") for language in LANGUAGES]
    a, b = (torch.cat(side) for side in zip(*known, strict=True))
    return Geometry(pairs.mean().item(), ((S.sum() - pairs.sum()) / (S.numel() - pairs.numel())).item(),
                    (cosine_within(known[0][0]) + cosine_within(known[0][1])) / 2, modality_gap(a, b).item())


def same_group(learned: Learner | Rule | None) -> SameGroup:
    """没见过的作者，落在同组那里的比例 / Shares within the group, by the unseen artist; None for the raw features."""
    room, new = views.load(), views.load("held-out")
    unseen, = room.by_role("test")
    found = []
    for language in LANGUAGES:
        known, fresh = (features_of(learned, data, unseen, language) for data in (room, new))
        found.append([same_group_among_nearest(*known, room.groups(), 5),
                      same_group_among_nearest(*fresh, new.groups(), 2), *mistakes(*known, room.groups())])
    return SameGroup(*(sum(values) / len(LANGUAGES) for values in zip(*found, strict=True)))


@typed
def studies(learned: Learner | Rule | None) -> AlignmentStudies:
    """各项测量 / All measurements, of a learner or a rule; None measures the raw features."""
    return AlignmentStudies(recall(learned), geometry(learned), same_group(learned))


@typed
def shortening(data: views.Views, seed: int, steps: int = 600) -> Shortening:
    """只用 (2.2)，不除以长度 / Train by (2.2) only, without dividing by the lengths, and see what is left of them."""
    checks.whole(steps, "steps")
    learned, artists = learner(data, seed, batch=64, normalize=False), data.by_role("train")

    def measure() -> tuple[float, float]:
        a, b = features_of(learned, data, artists[0], "zh")
        return torch.cat([a, b]).norm(dim=1).mean().item(), feature_alignment_loss(a, b, normalize=False).item()

    length, loss = measure()
    for _ in range(steps):
        learned.train_step(alpha=0.0, beta=1.0)
    shorter, lower = measure()
    left = shorter / length
    return Shortening(left, left ** 2, lower / loss, recall_at_1(learned, data, artists))


@typed
@dataclass(frozen=True)
class Setting:
    """一次训练怎样进行 / How a training is set up; τ, α, β and γ have no part where it trains by (2.4), `sigmoid`."""

    steps: int = 400
    batch: int = 128
    tau: float = TAU
    alpha: float = 1.0
    beta: float = 0.0
    gamma: float = 0.0
    repeats: int = 1
    positives: bool = False
    one_language: bool = False
    sigmoid: bool = False

    def __post_init__(self) -> None:
        checks.whole(self.steps, "steps")
        checks.whole(self.batch, "batch", 2)
        checks.whole(self.repeats, "repeats")
        checks.positive(self.tau, "tau")
        for name in ("alpha", "beta", "gamma"):
            checks.not_negative(getattr(self, name), name)


@typed
def train_and_test(setting: Setting, seed: int) -> AlignmentStudies:
    """训练一次，再测量 / Train once and measure."""
    learned = learner(views.load(), seed, sigmoid=setting.sigmoid, device="cpu", batch=setting.batch,
                      repeats=setting.repeats, positives=setting.positives, one_language=setting.one_language)
    dials = {} if setting.sigmoid else {name: getattr(setting, name) for name in ("tau", "alpha", "beta", "gamma")}
    for _ in range(setting.steps):
        learned.train_step(**dials)
    return studies(learned)
