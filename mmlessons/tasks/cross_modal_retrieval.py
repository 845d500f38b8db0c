r"""跨模态检索：用文字找图画，用图画找文字 / Cross-modal retrieval: words find pictures, pictures find words.

The two towers never meet: one gives f_v, the other f_t, and they are compared at the very end. That is why pictures
can be encoded once, kept as an index, and a search encodes its query only.

两座塔互不相见：图像塔给出 f_v，文本塔给出 f_t，只在最后比较。所以图片可以事先编码、存成索引，搜索时只编码查询。
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks
from mmcore import tokens as text
from mmcore.alignment import contrastive_loss, cosine_similarity
from mmcore.checks import shapes
from mmcore.encoders import TextEncoder, VisualEncoder
from mmcore.ranking import ranks
from mmcore.training import device_of, evaluating
from mmlessons.border import check_pictures, typed
from mmlessons.data import emoji
from mmlessons.data.augment import augment
from mmlessons.tasks.learner import Descent, Learner, Losses
from mmlessons.tasks.pixels import pixel_similarity

LANGUAGES = ("zh", "en")
WAYS = ("image→text", "text→image")
TAU = 0.0625
LEARNING_RATE = 6e-3

Ranks = dict[tuple[str, str], Tensor]  # (direction, language) → (C,), the rank of the right answer to each query


# -- the model and how it learns --------------------------------------------------------------------------------------

@typed
class RetrievalModel(nn.Module):
    """图文双塔，返回有名字的张量 / Two towers, one for pictures and one for texts; they return named tensors.

    | name | shape | meaning | 含义 |
    |---|---|---|---|
    | `f_v` | (N, D) | visual feature (1.1) | 视觉特征 |
    | `f_t` | (N, D) | text feature (1.2) | 文本特征 |
    | `S` | (N, N) | cosine similarity, what a search ranks by | 余弦相似度，检索时用来排名 |
    | `L` | | contrastive loss, what training lowers (2.1) | 对比损失，训练时下降的量 |

    `log_tau` is a temperature that training may find for itself, as CLIP's does; `forward` takes the one it is given.

    `log_tau` 是可以由训练自己去找的温度，CLIP 就是这样；`forward` 用的是传给它的那一个。
    """

    def __init__(self, tokenizer: Tokenizer, feature_dim: int = 128):
        super().__init__()
        self.visual_encoder = VisualEncoder(feature_dim)
        self.text_encoder = TextEncoder(feature_dim=feature_dim, tokenizer=tokenizer)
        self.log_tau = nn.Parameter(torch.tensor(math.log(TAU)))

    @shapes(like="visual_encoder.project.weight", image="B 3 height width", input_ids="int B L",
            attention_mask="mask B L", tau="scalar")
    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor, tau: Tensor) -> dict[str, Tensor]:
        f_v = self.visual_encoder(image)
        f_t = self.text_encoder(input_ids, attention_mask)
        S = cosine_similarity(f_v, f_t)
        L = contrastive_loss(f_v, f_t, tau)
        return {"f_v": f_v, "f_t": f_t, "S": S, "L": L}

    def encode_pictures(self, pictures: Tensor) -> Tensor:
        """图画 → 特征，不训练 / Pictures (N, 3, H, W), uint8 → features (N, D), without training."""
        check_pictures(pictures, "pictures", "N", 3, "H", "W")
        with evaluating(self):
            return self.visual_encoder(pictures.to(self.device) / 255)

    @typed
    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """文本 → 特征，不训练 / Texts → features (N, D), without training."""
        tokens = self.text_encoder.tokenize(texts)
        with evaluating(self):
            return self.text_encoder(tokens["input_ids"].to(self.device), tokens["attention_mask"].to(self.device))

    @property
    def device(self) -> torch.device:
        return device_of(self)


def losses(model: RetrievalModel, batch: dict[str, Tensor], tau: float, learned: bool = False) -> dict[str, Tensor]:
    """下降的是 (2.1)；`learned` 时 τ 也一起学 / What goes down is (2.1); with `learned` τ is learned as well."""
    return {"L": model(**batch, tau=model.log_tau.exp() if learned else tau)["L"]}


@typed
class Retrieval:
    """要学的事：表情图画与它们的名字 / What is to be learned: emoji drawings and their names.

    A step takes `batch` different concepts, for each the drawing of one training artist, changed at random, and the
    name in one language. The concepts differ, so that no negative in a batch is false. Raises TypeError or ValueError
    for a wrong `batch`, or drawings that a training artist does not have.

    一步取 `batch` 个不同的概念，每个取一位训练作者的图画（随机变化）和一种语言的名字。概念互不相同，所以一批里没有假的
    负例。`batch` 不对，或训练作者缺了图画时，报 TypeError 或 ValueError。
    """

    def __init__(self, data: emoji.Emoji, batch: int = 128):
        self.batch = checks.whole(batch, "batch", 2)
        if batch > len(data.concepts):
            checks.refuse(f"batch 最多 {len(data.concepts)}（每个概念一次），收到 {batch}",
                          f"batch may be at most {len(data.concepts)}, each concept once, got {batch}")
        self.pictures = data.training_pictures()
        names = [name for language in LANGUAGES for name in data.names(language)]  # row: language · C + concept
        self.tokenizer = text.build_tokenizer(names)
        rows = self.tokenizer.encode_batch(names)
        self.input_ids = torch.tensor([row.ids for row in rows])
        self.attention_mask = torch.tensor([row.attention_mask for row in rows])

    def begin(self, device: torch.device) -> Descent:
        """新的双塔 / New towers."""
        return Descent.of(RetrievalModel(self.tokenizer).to(device), losses, LEARNING_RATE, 0.3, total="L")

    def step(self, trainer: Descent, generator: torch.Generator, tau: float = TAU, learned: bool = False) -> Losses:
        """走一步 / Take one step. Raises ValueError if τ is not positive."""
        checks.positive(tau, "tau")
        batch = {name: x.to(trainer.model.device) for name, x in self.draw(generator).items()}
        return trainer.train_step(batch, tau=tau, learned=learned)

    @typed
    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """下一批图画与名字 / The next batch of pictures and names."""
        artists, count = self.pictures.shape[:2]
        concept = torch.randperm(count, generator=generator)[:self.batch]
        artist = torch.randint(artists, concept.shape, generator=generator)
        language = torch.randint(len(LANGUAGES), concept.shape, generator=generator)
        name = language * count + concept
        return {"image": augment(self.pictures[artist, concept] / 255, generator),
                "input_ids": self.input_ids[name], "attention_mask": self.attention_mask[name]}


@typed
def learner(data: emoji.Emoji, steps: int = 600, seed: int = 0, batch: int = 128,
            device: str | torch.device | None = None) -> Learner:
    """学这件事的学习者 / Someone who learns this: `train_step(tau=…)` acts with the τ of this very step.

    Raises TypeError or ValueError for a wrong number of steps, batch or seed.

    步数、批大小或种子不对时报 TypeError 或 ValueError。
    """
    return Learner(Retrieval(data, batch), steps, seed, device)


# -- what learns nothing ----------------------------------------------------------------------------------------------

@typed
def pixel_baseline(data: emoji.Emoji, artist: str, crop: bool = False) -> Ranks:
    """像素近邻的名次；它不认字，两种语言相同 / The ranks of the pixel neighbour, which reads in neither language.

    `crop` is that of `pixel_similarity`. `crop` 同 `pixel_similarity`。
    """
    similarity = pixel_similarity(data.pictures_by(artist), data.training_pictures(), crop)
    return _both_ways(dict.fromkeys(LANGUAGES, similarity))


# -- scores and search ------------------------------------------------------------------------------------------------

@typed
def evaluate(model: RetrievalModel, data: emoji.Emoji, artist: str) -> Ranks:
    """一位作者的名次：两个方向 × 两种语言 / The ranks for one artist: both directions × both languages.

    The keys are (direction, language), the direction "image→text" or "text→image"; a value is (C,), the rank of the
    right answer for each concept, the best being 1. Raises ValueError for an artist who is unknown or did not draw all
    concepts.

    键是 (方向, 语言)，方向为 "image→text" 或 "text→image"；值是 (C,)，每个概念的正确答案排第几，最好是 1。没有这位
    作者，或他没有画全时报 ValueError。
    """
    f_v = model.encode_pictures(data.pictures_by(artist))
    return _both_ways({language: cosine_similarity(f_v, model.encode_texts(data.names(language)))
                       for language in LANGUAGES})


def _both_ways(S: dict[str, Tensor]) -> Ranks:
    """Along the rows of each similarity, then along its columns."""
    return {(way, language): ranks(scores) for language in LANGUAGES
            for way, scores in zip(WAYS, (S[language], S[language].T), strict=True)}


@typed
def found(ranked: Mapping[Any, Tensor]) -> Tensor:
    """每个概念有几成的查询第一个就找对 / For each concept, the share of its queries whose first answer is right: (C,).

    Its mean is R@1, the mean of all directions and languages. Raises ValueError if there are no ranks, or their numbers
    differ.

    它的平均就是 R@1，即各个方向和语言的平均。没有名次，或个数不同时，报 ValueError。
    """
    checks.require(len(ranked) > 0, "ranked 是空的，一份名次也没有", "ranked is empty, without ranks")
    sizes: dict[str, int] = {}
    for key, row in ranked.items():
        checks.fits(row, f"ranked[{key}]", "int64 C", **sizes)
        sizes["C"] = len(row)
    return torch.stack([(row == 1).cpu().double() for row in ranked.values()]).mean(0)


@typed
class Index:
    """可以搜索的图片 / Pictures that can be searched: encoded once, compared with every query."""

    def __init__(self, model: RetrievalModel, pictures: Tensor):
        self.model = model
        self.features = model.encode_pictures(pictures)

    @typed
    def search(self, query: str, k: int = 8) -> list[tuple[int, float]]:
        """最像的 k 幅 / The k pictures most like the query: [(index, cosine), …], the best first.

        Raises ValueError if the query is empty or holds a word that was never learned.

        查询为空，或有没学过的词时报 ValueError。
        """
        checks.whole(k, "k")
        text.check_known(self.model.text_encoder.tokenizer, query)
        S = cosine_similarity(self.model.encode_texts([query]), self.features)[0]
        checks.ranked(S, "similarity")
        best = S.topk(min(k, len(S)))
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


# -- the studies of the lesson ----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Artists:
    """学过的概念，每个 `found` 了几成，(C,) / Concepts it learned, and how far each was `found`, (C,)."""

    known: Tensor  # 训练用过的图画 / the very pictures of one training artist
    test: Tensor  # 没见过的作者 / an artist it never saw
    shift: Tensor  # 画风很不一样的作者 / an artist of another style


@dataclass(frozen=True)
class NewConcepts:
    """没见过的概念，每个 `found` 了几成，(C,) / Concepts it never saw, and how far each was `found`, (C,)."""

    by_chinese: Tensor  # 训练作者的图画，按名字找 / the drawings of a training artist, found by name
    by_english: Tensor
    by_picture: Tensor  # 用没见过的作者的图画去找 / the same, found by the drawing of an artist it never saw


@dataclass(frozen=True)
class RetrievalStudies:
    """一次训练的各项成绩 / What one training gave."""

    artists: Artists
    new_concepts: NewConcepts
    untrained: NewConcepts  # 训练之前 / before the training
    languages: Tensor  # 学过的概念：中文名字找英文名字，反之亦然 / learned: Chinese names find English ones, and back
    new_languages: Tensor  # 没见过的概念，同上 / the same for concepts it never saw
    tau: float  # 最后的 τ，学来的或给定的 / the τ at the end, learned or given


@typed
def across_artists(model: RetrievalModel, data: emoji.Emoji) -> Artists:
    """换一位作者，还认得吗 / Does it still recognise a concept in another artist's hand?"""
    known, test, shift = (found(evaluate(model, data, data.by_role(role)[0])) for role in ("train", "test", "shift"))
    return Artists(known, test, shift)


@typed
def new_concepts(model: RetrievalModel) -> NewConcepts:
    """换一个概念，还认得吗 / Does it recognise a concept that it never saw?"""
    new = emoji.load("held-out")
    known, test = new.by_role("train")[0], new.by_role("test")[0]
    ranked = evaluate(model, new, known)
    zh, en = (found({way: ranked[way, language] for way in WAYS}) for language in LANGUAGES)
    S = cosine_similarity(model.encode_pictures(new.pictures[test]), model.encode_pictures(new.pictures[known]))
    return NewConcepts(zh, en, found({"image→image": ranks(S)}))


@typed
def across_languages(model: RetrievalModel, data: emoji.Emoji) -> Tensor:
    """两种语言的名字找得到彼此吗 / Do the names of two languages find each other? (C,), as `found` says it."""
    zh, en = (model.encode_texts(data.names(language)) for language in LANGUAGES)
    S = cosine_similarity(zh, en)
    return found({"zh→en": ranks(S), "en→zh": ranks(S.T)})


@typed
def train_and_study(seed: int, tau: float, steps: int, learned: bool = False) -> RetrievalStudies:
    """训练一次，做完各项研究 / Train once and make every study: what the lesson runs in the background."""
    checks.positive(tau, "tau")
    data, new = emoji.load(), emoji.load("held-out")
    learning = learner(data, steps, seed, device="cpu")
    untrained = new_concepts(learning.model)
    model = learning.finish(tau=tau, learned=learned).model
    return RetrievalStudies(across_artists(model, data), new_concepts(model), untrained, across_languages(model, data),
                            across_languages(model, new), model.log_tau.exp().item() if learned else tau)
