r"""跨模态检索：用文字找图画，用图画找文字 / Cross-modal retrieval: words find pictures, pictures find words.

The two towers never meet: one gives f_v, the other f_t, and they are compared at the very end. That is why pictures
can be encoded once, kept as an index, and a search encodes its query only.

两座塔互不相见：图像塔给出 f_v，文本塔给出 f_t，只在最后比较。所以图片可以事先编码、存成索引，搜索时只编码查询。
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks
from mmcore import tokens as text
from mmcore.alignment import contrastive_loss, cosine_similarity
from mmcore.checks import shapes
from mmcore.encoders import TextEncoder, VisualEncoder
from mmcore.ranking import mutual_scores, retrieval_scores
from mmcore.training import device_of, evaluating
from mmlessons.border import check_pictures, typed
from mmlessons.data import emoji
from mmlessons.data.augment import augment
from mmlessons.tasks.learner import Descent, Learner, Losses

LANGUAGES = ("zh", "en")
WAYS = ("image→text", "text→image")
TAU = 0.0625
LEARNING_RATE = 6e-3

Scores = dict[tuple[str, str], dict[str, float]]  # (direction, language) → what `retrieval_scores` says


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
    """

    def __init__(self, tokenizer: Tokenizer, feature_dim: int = 128):
        super().__init__()
        self.visual_encoder = VisualEncoder(feature_dim)
        self.text_encoder = TextEncoder(feature_dim=feature_dim, tokenizer=tokenizer)

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


def losses(model: RetrievalModel, batch: dict[str, Tensor], tau: float) -> dict[str, Tensor]:
    """下降的是 (2.1) / What goes down is (2.1)."""
    return {"L": model(**batch, tau=tau)["L"]}


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

    def step(self, trainer: Descent, generator: torch.Generator, tau: float = TAU) -> Losses:
        """走一步 / Take one step. Raises ValueError if τ is not positive."""
        checks.positive(tau, "tau")
        batch = {name: x.to(trainer.model.device) for name, x in self.draw(generator).items()}
        return trainer.train_step(batch, tau=tau)

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

def pixel_similarity(pictures: Tensor, known: Tensor) -> Tensor:
    """像素近邻：不用学习的基线 / Pixel nearest neighbour, the baseline that learns nothing.

    (N, 3, H, W), (A, C, 3, H, W) → (N, C). Each picture less its mean is compared with the A known drawings of each
    concept by cosine; the closest one counts.

    每幅图画减去均值后，与每个概念的 A 幅已知图画比余弦，取最像的一幅。
    """
    check_pictures(pictures, "pictures", "N", 3, "H", "W")
    check_pictures(known, "known", "A", "C", *pictures.shape[1:])

    def flat(x: Tensor) -> Tensor:
        x = x.flatten(-3).float()
        return x - x.mean(-1, keepdim=True)
    return torch.stack([cosine_similarity(flat(pictures), flat(drawings)) for drawings in known]).amax(0)


@typed
def pixel_baseline(data: emoji.Emoji, artist: str) -> Scores:
    """像素近邻的成绩；它不认字，两种语言相同 / The scores of the pixel neighbour, which reads in neither language."""
    S = pixel_similarity(data.pictures_by(artist), data.training_pictures())
    return _both_ways(dict.fromkeys(LANGUAGES, S))


# -- scores and search ------------------------------------------------------------------------------------------------

@typed
def evaluate(model: RetrievalModel, data: emoji.Emoji, artist: str) -> Scores:
    """一位作者的成绩：两个方向 × 两种语言 / One artist's scores: both directions × both languages.

    The keys are (direction, language), the direction "image→text" or "text→image"; for the values see
    `retrieval_scores`. Raises ValueError for an artist who is unknown or did not draw all concepts.

    键是 (方向, 语言)，方向为 "image→text" 或 "text→image"；值见 `retrieval_scores`。没有这位作者，或他没有画全时报
    ValueError。
    """
    f_v = model.encode_pictures(data.pictures_by(artist))
    return _both_ways({language: cosine_similarity(f_v, model.encode_texts(data.names(language)))
                       for language in LANGUAGES})


def _both_ways(S: dict[str, Tensor]) -> Scores:
    """Along the rows of each similarity, then along its columns."""
    return {(way, language): retrieval_scores(scores) for language in LANGUAGES
            for way, scores in zip(WAYS, (S[language], S[language].T), strict=True)}


@typed
def mean_recall(scores: Scores) -> float:
    """四个 r@1 的平均 / The mean of the four r@1."""
    if not scores or not all("r@1" in found for found in scores.values()):
        checks.refuse("scores 需要至少一份含有 r@1 的成绩", "scores must hold at least one that has an r@1")
    return sum(found["r@1"] for found in scores.values()) / len(scores)


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
    """学过的概念，平均 r@1 / Concepts it learned, the mean r@1."""

    known: float  # 训练用过的图画 / the very pictures of one training artist
    test: float  # 没见过的作者 / an artist it never saw
    shift: float  # 画风很不一样的作者 / an artist of another style


@dataclass(frozen=True)
class NewConcepts:
    """没见过的概念，r@1 / Concepts it never saw, r@1."""

    by_chinese: float  # 训练作者的图画，按名字找 / the drawings of a training artist, found by name
    by_english: float
    by_picture: float  # 用没见过的作者的图画去找 / the same, found by the drawing of an artist it never saw


@dataclass(frozen=True)
class RetrievalStudies:
    """一次训练的各项成绩 / What one training gave."""

    artists: Artists
    new_concepts: NewConcepts
    untrained: NewConcepts  # 训练之前 / before the training
    languages: float  # 中文名字找英文名字，反之亦然 / Chinese names find English ones, and the other way round


@typed
def across_artists(model: RetrievalModel, data: emoji.Emoji) -> Artists:
    """换一位作者，还认得吗 / Does it still recognise a concept in another artist's hand?"""
    known, test, shift = (mean_recall(evaluate(model, data, data.by_role(role)[0]))
                          for role in ("train", "test", "shift"))
    return Artists(known, test, shift)


@typed
def new_concepts(model: RetrievalModel) -> NewConcepts:
    """换一个概念，还认得吗 / Does it recognise a concept that it never saw?"""
    new = emoji.load("held-out")
    known, test = new.by_role("train")[0], new.by_role("test")[0]
    scores = evaluate(model, new, known)
    zh, en = (sum(scores[way, language]["r@1"] for way in WAYS) / len(WAYS) for language in LANGUAGES)
    S = cosine_similarity(model.encode_pictures(new.pictures[test]), model.encode_pictures(new.pictures[known]))
    return NewConcepts(zh, en, retrieval_scores(S)["r@1"])


@typed
def across_languages(model: RetrievalModel, data: emoji.Emoji) -> float:
    """两种语言的名字找得到彼此吗 / Do the names of two languages find each other? The mean r@1."""
    zh, en = (model.encode_texts(data.names(language)) for language in LANGUAGES)
    return mutual_scores(cosine_similarity(zh, en))["r@1"]


@typed
def train_and_study(seed: int, tau: float, steps: int) -> RetrievalStudies:
    """训练一次，做完各项研究 / Train once and make every study: what the lesson runs in the background."""
    checks.positive(tau, "tau")
    data = emoji.load()
    learning = learner(data, steps, seed, device="cpu")
    untrained = new_concepts(learning.model)
    model = learning.finish(tau=tau).model
    return RetrievalStudies(across_artists(model, data), new_concepts(model), untrained, across_languages(model, data))
