r"""看图、听一个提示、说出名字 / Look at a picture, hear a hint, say the name.

Fusion has honest work only where the text is not the answer. With the name going in, or its translation, the text
by itself gets everything right; so what goes in is a hint: a keyword that at least three concepts share, such as
“fruit”. Picture and hint know one half each.

融合要有正经活可干，文字就不能是答案。名字（或它的翻译）放进去，文字一个就全答对了；所以放进去的是提示：一个至少三个概念
共有的关键词，例如“水果”。图像和提示各知道一半。
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mmcore import checks
from mmcore import tokens as text
from mmcore.alignment import cosine_similarity
from mmcore.encoders import TEXT_MODELS
from mmcore.ranking import ranks
from mmcore.training import device_of, evaluating
from mmcore.vision_language import LANGUAGES, VisualLanguageModel, VLMTrainer
from mmlessons.border import check_pictures, typed
from mmlessons.data import emoji
from mmlessons.data.augment import augment
from mmlessons.tasks.cross_modal_retrieval import found
from mmlessons.tasks.learner import Learner, Losses
from mmlessons.tasks.pixels import pixel_similarity
from mmlessons.tasks.scoring import best

HINTS = ("keywords", "names")
SHARED_BY = 3  # concepts, at least, for a keyword to be a hint
FEATURE_DIM, HIDDEN_DIM = 128, 256
TAU = 0.0625
LEARNING_RATE = 6e-3
STEPS = 800  # less than 60 s of one thread
NAME_SHARE = 0.4  # of the rows: their text is the name, for retrieval only
IMAGE_DROPOUT = 0.15
FILTER = 3.0  # a penalty that no cosine makes up for, since two of them differ by 2 at most
UNCHANGED = {"vit-tiny": 0.4}  # share of drawings left as they are: a small ViT learns too slowly to need more change


@dataclass(frozen=True)
class Concepts:
    """C 个概念、H 个提示，以及什么配什么 / C concepts, H hints, and what goes with what."""

    data: emoji.Emoji  # 有提示的概念与图画 / the concepts that have a hint, and their pictures
    classes: tuple[str, ...]  # K 个类别（子组）的名字 / names of the K classes (subgroups)
    label: Tensor  # (C,) 每个概念的类别 / the class of each concept
    hints: tuple[str, ...]  # H 个提示 / the H hints
    fits: Tensor  # (C, H) bool，提示 h 说得中概念 c，名字也算 / hint h is true of concept c, its name included
    pairs: Tensor  # (C, H) bool，其中训练或测试用到的 / those of them that are trained on, or tested

    @property
    def names(self) -> list[str]:
        """先全部中文名，再全部英文名 / All Chinese names, then all English ones: row language · C + concept."""
        return [name for language in LANGUAGES for name in self.data.names(language)]

    def shares(self) -> Tensor:
        """每一对的概率，概念一样重，提示也一样重 / The probability of each pair, (C, H): concepts alike, then hints."""
        counts = self.pairs.sum(1, keepdim=True)
        return self.pairs.double() / counts.clamp_min(1) / (counts > 0).sum()


@dataclass(frozen=True)
class NamingScores:
    """问到的每个概念一个成绩，(C,) / One score for each concept that is asked, (C,).

    A concept is asked with each of its hints in each language, and its score is their mean: the share of right classes,
    and of names that are exact.

    一个概念用它的每个提示、每种语言各问一次，成绩取平均：类别分对的比例，名字一字不差的比例。
    """

    kind: Tensor
    name: Tensor


@dataclass(frozen=True)
class ByInput:
    """只看图、只听提示、两样都有 / From the picture only, from the hint only, and from both."""

    picture: NamingScores
    text: NamingScores
    both: NamingScores


@typed
def load(hints: str = "keywords", subset: str = "classroom") -> Concepts:
    """表情数据里有提示的概念 / The concepts of the emoji data that have a hint.

    `hints`: "keywords" are keywords that at least three concepts share, and never a concept's own name; concepts
    without one are left out. "names" are the names themselves, in both languages: the answer leaks, and one sees what
    that looks like. Raises ValueError if hints or subset are unknown.

    `hints`："keywords" 是至少三个概念共有的关键词，且不是这个概念自己的名字；没有这种关键词的概念不在其中。"names" 是
    名字本身，两种语言：答案泄漏了，用来看泄漏是什么样子。提示或子集未知时报 ValueError。
    """
    checks.one_of(hints, "hints", HINTS)
    data = emoji.load(subset)
    keywords = [_words(concept.keywords) - _words(concept.names) for concept in data.concepts]
    count = Counter(word for own in keywords for word in own)
    keywords = [{word for word in own if count[word] >= SHARED_BY} for own in keywords]
    keep = [c for c, own in enumerate(keywords) if own]
    data = replace(data, concepts=tuple(data.concepts[c] for c in keep),
                   pictures={artist: pictures[keep] for artist, pictures in data.pictures.items()},
                   drawn={artist: drawn[keep] for artist, drawn in data.drawn.items()})
    names = [_words(concept.names) for concept in data.concepts]
    own = [keywords[c] for c in keep] if hints == "keywords" else names
    listed = tuple(sorted(set().union(*own)))
    pairs = torch.tensor([[word in mine for word in listed] for mine in own])
    named = torch.tensor([[word in mine for word in listed] for mine in names])
    classes = tuple(sorted({concept.subgroup for concept in data.concepts}))
    label = torch.tensor([classes.index(concept.subgroup) for concept in data.concepts])
    return Concepts(data, classes, label, listed, pairs | named, pairs)


def _words(by_language: dict[str, str | tuple[str, ...]]) -> set[str]:
    found = [[value] if isinstance(value, str) else value for value in by_language.values()]
    return {word.lower() for words in found for word in words}


@typed
def hold_out_pairs(concepts: Concepts, seed: int = 0) -> tuple[Concepts, Concepts]:
    """留出一些从不一起出现的概念与提示 / Hold out some pairs of concept and hint that never meet in training.

    Every concept of two hints or more gives up one. Returns two that differ in `pairs` and nothing else: one to train
    on, one for the test. Each hint and each concept has been learned, only never together. That absence is evidence:
    in the training no concept with this hint has this name, and whoever learns its distribution perfectly gives the
    name a probability of 0. Of the class it says little, since other concepts of the class keep the hint.

    至少有两个提示的概念各留出一个。返回两份，只有 `pairs` 不同：训练用的，测试用的。提示和概念都学过，只是没有一起
    见过。没有一起出现，本身就是证据：训练里带这个提示的，从来不叫这个名字，所以把训练的分布学得分毫不差的，会给它 0 的
    概率。对类别却说明不了什么，因为同类的其他概念仍带着这个提示。
    """
    checks.whole(seed, "seed", 0)
    lot = torch.rand(concepts.pairs.shape, generator=torch.Generator().manual_seed(seed))
    lot = lot.masked_fill(~concepts.pairs, -1.0)
    chosen = torch.zeros_like(concepts.pairs).scatter(1, lot.argmax(1, keepdim=True), True)
    chosen &= concepts.pairs.sum(1, keepdim=True) > 1
    return replace(concepts, pairs=concepts.pairs & ~chosen), replace(concepts, pairs=chosen)


@typed
def majority(concepts: Concepts) -> NamingScores:
    """什么也不看，总答最常见的 / Look at nothing and always give the most frequent answer."""
    weight = concepts.shares().sum(1)
    return _asked(concepts, _by_class(concepts, weight).argmax(), weight.argmax())


@typed
def text_limit(concepts: Concepts, known: Concepts | None = None) -> NamingScores:
    """只看提示，谁也超不过的成绩 / What nobody can exceed who sees the hint and nothing else.

    For each hint the most probable answer: Σₕ maxₖ P(k, h). It is counted, not trained. With `known` the answers are
    those most probable among other pairs, for example those of the training, and this is a rule and no limit.

    每个提示都答最可能的那个：Σₕ maxₖ P(k, h)。是数出来的，不是训练出来的。给了 `known`，就答另一些配对（例如训练用的）
    里最可能的，这时它是一条规则，不是极限。
    """
    P = (known or concepts).shares()
    _, hint = concepts.pairs.nonzero().T
    return _asked(concepts, _by_class(concepts, P).argmax(0)[hint], P.argmax(0)[hint])


def _by_class(concepts: Concepts, P: Tensor) -> Tensor:
    """Add up the rows of each class."""
    return P.new_zeros(len(concepts.classes), *P.shape[1:]).index_add(0, concepts.label, P)


def _asked(concepts: Concepts, kind: Tensor, name: Tensor) -> NamingScores:
    """The scores of answers to all pairs, in their order: a class and a concept for each, or one for all of them."""
    concept, _ = concepts.pairs.nonzero().T
    return NamingScores(*(_mean(concepts, right.double()) for right in (kind == concepts.label[concept],
                                                                        name == concept)))


def _mean(concepts: Concepts, right: Tensor) -> Tensor:
    """One number a pair → one a concept that is asked: the mean over its hints."""
    concept, _ = concepts.pairs.nonzero().T
    total = torch.zeros(len(concepts.label), dtype=torch.float64).index_add(0, concept, right)
    asked = concepts.pairs.any(1)
    return total[asked] / concepts.pairs.sum(1)[asked]


@typed
def loss_floor(n: int, tau: float = 1.0) -> float:
    """对比损失 (2.1) 最低能到多少 / How low the contrastive loss (2.1) can go: N pairs, temperature τ.

    A cosine is at most 1, and N directions can at best all be −1/(N−1) apart, so that L ≥ ln(1 + (N − 1)
    e^(−N / ((N−1) τ))). Undivided by a temperature (τ = 1) it cannot fall below 3.2 at N = 64. Features of any width
    obey the bound; to reach it they need at least N − 1 numbers each.

    余弦最多是 1，N 个方向两两之间最多平均分开到 −1/(N−1)，所以 L ≥ ln(1 + (N − 1) e^(−N / ((N−1) τ)))。不除以温度
    （τ = 1）时，N = 64 就已经不能低于 3.2。特征不论几维都低不过这个界，要达到它，至少要 N − 1 维。

    Papers: Lu and Steinerberger 2020, Neural Collapse with Cross-Entropy Loss; Graf et al. 2021, Dissecting Supervised
    Contrastive Learning.
    """
    checks.whole(n, "n", least=2)
    checks.positive(tau, "tau")
    return math.log1p((n - 1) * math.exp(-n / ((n - 1) * tau)))


@typed
class Naming:
    """要学的事：看图、听提示、说名字 / What is to be learned: look, hear a hint, say the name.

    A step takes `batch` different concepts, for each the drawing of one training artist, changed at random, and asks
    for the name in a random language. In most rows the text is a hint, which fusion and retrieval both use. In a share
    of `name_share` it is the concept's own name, for retrieval only: fusion must not see it, or the answer would leak,
    and these rows learn to do with the picture. Of the rows with a hint, a share of `image_dropout` does not see the
    picture and learns to do with the hint. A hint may be true of several concepts in a batch; all of them are its
    positives. For `backbone`, `weights` and `model_name` see (1.1) and (1.2); pretrained encoders need a far smaller
    `lr`, for example 1e-4. Raises TypeError or ValueError for a wrong batch, share, learning rate or backbone.

    一步取 `batch` 个不同的概念，各取一位训练作者的图画（随机变化），用随机的一种语言写名字。大多数行的文字是提示，融合
    与检索都用它；`name_share` 这么多的行是概念自己的名字，只给检索用，不许融合看见，否则答案就泄漏了；这些行学会只看
    图。有提示的行里，`image_dropout` 这么多看不见图像，学会只听提示。一个提示在一批里可能说中好几个概念，它们都算正例。
    `backbone`、`weights`、`model_name` 见 (1.1) 和 (1.2)；预训练的编码器要小得多的 `lr`，例如 1e-4。批大小、比例、学习
    率或骨干网络不对时报 TypeError 或 ValueError。
    """

    def __init__(self, concepts: Concepts, batch: int = 128, backbone: str = "resnet-tiny",
                 model_name: str = "bert-tiny", weights: str | Path | None = None, lr: float = LEARNING_RATE,
                 name_share: float = NAME_SHARE, image_dropout: float = IMAGE_DROPOUT):
        self.concepts, self.batch = concepts, checks.whole(batch, "batch", 2)
        count = len(concepts.label)
        if batch > count:
            checks.refuse(f"batch 最多 {count}（每个概念一次），收到 {batch}",
                          f"batch may be at most {count}, each concept once, got {batch}")
        self.name_share = checks.share(name_share, "name_share")
        self.image_dropout = checks.share(image_dropout, "image_dropout")
        if not bool(concepts.pairs.any(1).all()):
            checks.refuse("训练的每个概念都需要至少一个提示", "every concept to train on needs at least one hint")
        self.backbone, self.model_name, self.weights, self.lr = backbone, model_name, weights, checks.positive(lr, "lr")
        self.pictures = concepts.data.training_pictures()
        own = torch.eye(count, dtype=torch.bool)
        self.true_of = torch.cat([concepts.fits, own, own], 1)  # (C, H + 2 C): which text is true of which concept

    def begin(self, device: torch.device) -> VLMTrainer:
        """新的模型和它的词元 / A new model, and its tokens."""
        names = self.concepts.names
        texts = [*self.concepts.hints, *names]
        tiny = text.build_tokenizer(texts) if self.model_name in TEXT_MODELS else None
        model = VisualLanguageModel(len(self.concepts.classes), FEATURE_DIM, self.backbone, self.model_name,
                                    self.weights, HIDDEN_DIM, tiny, text.build_tokenizer(names))
        self.tokens = model.text_encoder.tokenize(texts)  # row hint, then row H + language · C + concept
        self.name_ids = _name_ids(model, self.concepts)
        return VLMTrainer(model, device, tau=TAU, lr=self.lr, weight_decay=0.3)

    def step(self, trainer: VLMTrainer, generator: torch.Generator, alpha: float = 1.0, beta: float = 1.0,
             gamma: float = 1.0, tau: float = TAU) -> Losses:
        """走一步 / Take one step. Raises TypeError or ValueError if a weight is below 0 or τ is not positive."""
        trainer.tune(alpha, beta, gamma, tau)
        return trainer.train_step(**self.draw(generator))

    @typed
    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """下一批 / The next batch: the arguments of `VLMTrainer.train_step`."""
        artists, count = self.pictures.shape[:2]
        hints = len(self.concepts.hints)
        concept = torch.randperm(count, generator=generator)[:self.batch]
        artist, spoken, asked = (torch.randint(n, concept.shape, generator=generator)
                                 for n in (artists, len(LANGUAGES), len(LANGUAGES)))
        lot = torch.rand(len(concept), hints, generator=generator)
        hint = lot.masked_fill(~self.concepts.pairs[concept], -1.0).argmax(1)
        named = torch.rand(concept.shape, generator=generator) < self.name_share
        blind = torch.rand(concept.shape, generator=generator) < self.image_dropout
        said = torch.where(named, hints + spoken * count + concept, hint)
        drawn = self.pictures[artist, concept] / 255
        image = augment(drawn, generator)
        plain = torch.rand(concept.shape, generator=generator) < UNCHANGED.get(self.backbone, 0.0)
        image[plain] = drawn[plain]
        return {"image": image, "input_ids": self.tokens["input_ids"][said],
                "attention_mask": self.tokens["attention_mask"][said], "labels": self.concepts.label[concept],
                "name_ids": self.name_ids[asked * count + concept],
                "positives": self.true_of[concept.unsqueeze(1), said],
                "image_given": named | ~blind, "text_given": ~named}


@typed
def learner(concepts: Concepts, steps: int = STEPS, seed: int = 0, device: str | torch.device | None = None,
            **options: Any) -> Learner:
    """学这件事的学习者 / Someone who learns this: `train_step(alpha=…, beta=…, gamma=…, tau=…)`; options of `Naming`.

    Raises TypeError or ValueError for a wrong number of steps, seed or option.

    步数、种子或选项不对时报 TypeError 或 ValueError。
    """
    return Learner(Naming(concepts, **options), steps, seed, device)


def _name_ids(model: VisualLanguageModel, concepts: Concepts) -> Tensor:
    return model.name_tokens(concepts.names, [language for language in LANGUAGES for _ in concepts.label])


@typed
def evaluate(model: VisualLanguageModel, concepts: Concepts, artist: str) -> ByInput:
    """只看图、只听提示、两样都有 / From the picture only, from the hint only, and from both.

    Every one of `concepts.pairs` is tested in both languages, nothing is sampled, and a name counts if it is written
    exactly. Raises ValueError if the artist is unknown.

    `concepts.pairs` 的每一对、两种语言都测，没有一点是采样的；名字一字不差才算。作者未知时报 ValueError。
    """
    f_v, f_t = _features(model, concepts, artist)
    concept, hint = concepts.pairs.nonzero().T.to(device_of(model))
    count, label = len(concepts.label), concepts.label.to(device_of(model))
    name_ids = _name_ids(model, concepts).to(device_of(model))

    def scores(v: Tensor | None, t: Tensor | None) -> NamingScores:
        h = model.fusion(v, t)
        right = best(model.classifier(h), "classification_logits") == label[concept]
        exact = [_same(model.write(h, [language] * len(h))[0], name_ids[i * count + concept, 1:],
                       model.generation_head.pad) for i, language in enumerate(LANGUAGES)]
        names = torch.stack(exact).cpu().double().mean(0)
        return NamingScores(_mean(concepts, right.cpu().double()), _mean(concepts, names))

    with evaluating(model):
        return ByInput(scores(f_v[concept], None), scores(None, f_t[hint]), scores(f_v[concept], f_t[hint]))


@typed
def retrieve(model: VisualLanguageModel, concepts: Concepts, artist: str) -> Tensor:
    """名字找图画，图画找名字：每个概念找对几成，(C,) / Names find pictures, pictures find names: as `found`, (C,)."""
    return found({(way, i): ranks(scores) for i, S in enumerate(_name_similarity(model, concepts, artist))
                  for way, scores in (("image→text", S), ("text→image", S.T))})


def _name_similarity(model: VisualLanguageModel, concepts: Concepts, artist: str) -> list[Tensor]:
    """By the retrieval heads, how alike each picture is to each name: one (C, C) for each language."""
    with evaluating(model):
        f_v, _ = _features(model, concepts, artist)
        tokens = {name: ids.to(device_of(model)) for name, ids in model.text_encoder.tokenize(concepts.names).items()}
        v, t = model.retrieval_head_v(f_v), model.retrieval_head_t(model.text_encoder(**tokens))
        return [cosine_similarity(v, names).cpu() for names in t.chunk(len(LANGUAGES))]


def _features(model: VisualLanguageModel, concepts: Concepts, artist: str) -> tuple[Tensor, Tensor]:
    checks.one_of(artist, "artist", tuple(concepts.data.pictures))
    tokens = {name: ids.to(device_of(model)) for name, ids in model.text_encoder.tokenize(concepts.hints).items()}
    drawn = concepts.data.pictures[artist].to(device_of(model)) / 255
    with evaluating(model):
        return model.visual_encoder(drawn), model.text_encoder(**tokens)


def _same(written: Tensor, wanted: Tensor, pad: int) -> Tensor:
    """一字不差吗 / The same to the last token? (N, L), (N, L') → (N,); beyond its end, each is padding."""
    longest = max(written.shape[1], wanted.shape[1])
    written, wanted = (torch.nn.functional.pad(x, (0, longest - x.shape[1]), value=pad) for x in (written, wanted))
    return (written == wanted).all(1)


@dataclass(frozen=True)
class Answer:
    """一次回答 / One answer: the name, its words with their probabilities, and the likeliest classes."""

    name: str
    words: list[tuple[str, float]]
    classes: list[tuple[str, float]]


@typed
def answer(model: VisualLanguageModel, concepts: Concepts, picture: Tensor | None, hint: str | None,
           language: str = "zh", temperature: float = 0.0, generator: torch.Generator | None = None,
           k: int = 3) -> Answer:
    """看图、听提示，说出名字和类别 / Look, listen, and say the name and the class.

    `picture` is uint8 (3, H, W), `hint` any words that were learned; one of the two may be None. Temperature 0 is
    greedy, above 0 tokens are sampled with `generator`. Raises TypeError or ValueError for a wrong picture, a hint
    never learned, neither of the two, an unknown language, or a wrong temperature.

    `picture` 是 uint8 的 (3, H, W)，`hint` 是任何学过的词；两者之一可以是 None。温度 0 是贪心，大于 0 时用 `generator`
    采样。图画不符、提示没学过、两者都没有、语言未知，或温度不符时报 TypeError 或 ValueError。
    """
    checks.whole(k, "k")
    inputs: dict[str, Tensor] = {}
    if picture is not None:
        check_pictures(picture, "picture", 3, "H", "W")
        inputs["image"] = picture.unsqueeze(0).to(device_of(model)) / 255
    if hint is not None:
        if isinstance(model.text_encoder.tokenizer, Tokenizer):  # one of Hugging Face's splits any word into pieces
            text.check_known(model.text_encoder.tokenizer, hint)
        inputs |= {name: ids.to(device_of(model)) for name, ids in model.text_encoder.tokenize([hint]).items()}
    with evaluating(model):
        out = model(**inputs)
    tokens, p = model.write(out["h"], [language], temperature, generator)
    words = [(word, chance) for token, chance in zip(tokens[0], p[0].tolist(), strict=True)
             for word in model.words(token.unsqueeze(0))]
    likeliest = out["classification_logits"][0].softmax(0).topk(min(k, len(concepts.classes)))
    classes = [(concepts.classes[i], p) for i, p in zip(likeliest.indices, likeliest.values.tolist(), strict=True)]
    return Answer(model.spell(tokens[0]), words, classes)


# -- rules that choose a name from the list ---------------------------------------------------------------------------

@typed
def pixel_neighbour(concepts: Concepts, artist: str) -> Tensor:
    """像素近邻：这位作者的每幅图，像每个概念的程度，(C, C) / Pixel nearest neighbour: pictures by concepts, (C, C).

    It learns nothing: each picture counts as like a concept as it is like the nearest training drawing of it.

    什么也不学：一幅图与某个概念最像的那幅训练图有多像，就算与这个概念有多像。
    """
    return pixel_similarity(concepts.data.pictures_by(artist), concepts.data.training_pictures())


@typed
def feature_neighbour(model: VisualLanguageModel, concepts: Concepts, artist: str) -> Tensor:
    """特征近邻：同一条规则，比的是 f_v，不是像素，(C, C) / The same rule with f_v in place of pixels, (C, C)."""
    with evaluating(model):
        f_v, known = (model.visual_encoder(pictures.flatten(0, -4).to(device_of(model)) / 255) for pictures in (
            concepts.data.pictures_by(artist), concepts.data.training_pictures()))
        return cosine_similarity(f_v, known).unflatten(1, (-1, len(concepts.label))).amax(1).cpu()


@typed
def name_neighbour(model: VisualLanguageModel, concepts: Concepts, artist: str) -> Tensor:
    """检索头认为每幅图像每个名字的程度，两种语言平均，(C, C) / By the retrieval heads, pictures by names, (C, C)."""
    return torch.stack(_name_similarity(model, concepts, artist)).mean(0)


@typed
def choose(similarity: Tensor, concepts: Concepts, known: Concepts | None = None, penalty: float = 0.0,
           by_class: bool = False) -> NamingScores:
    """从单子上选最像的 / Choose the concept most alike, with a penalty for those that the hint does not list.

    `similarity` is (C, C), cosines of pictures and concepts. A hint lists the concepts that it is paired with in
    `known` (by default `concepts`, the pairs that are asked), and with `by_class` every concept of their classes. A
    penalty of 0 does not listen to the hint. One of `FILTER` chooses among those listed. A hint that lists nobody is
    not listened to. Raises TypeError or ValueError for a similarity of another shape or a penalty below 0.

    `similarity` 是 (C, C)，图与概念的余弦。一个提示的单子上，是它在 `known` 里配过的概念（缺省是 `concepts`，即要问
    的配对），`by_class` 时还有它们那些类别的全部概念。不在单子上的扣去 `penalty`：扣 0 就是不听提示，扣 `FILTER` 就是
    筛选，只在单子上选。单子空的提示不听。相似度形状不对，或 penalty 小于 0 时，报 TypeError 或 ValueError。
    """
    count = len(concepts.label)
    checks.fits(similarity, "similarity", "C C", C=count)
    checks.require(bool(similarity.isfinite().all()), "similarity 里有 NaN 或无穷", "similarity holds NaN or infinity")
    penalty = checks.not_negative(penalty, "penalty")
    concept, hint = concepts.pairs.nonzero().T
    pairs = (known or concepts).pairs
    if by_class:
        pairs = _by_class(concepts, pairs.double()).bool()[concepts.label]
    listed = pairs.T[hint]
    off = ~listed & listed.any(1, keepdim=True)
    S = similarity[concept].double()
    chosen = S.where(~off, S - penalty).argmax(1)
    return _asked(concepts, concepts.label[chosen], chosen)


# -- the studies of the lessons ---------------------------------------------------------------------------------------

@dataclass(frozen=True)
class OneArtist:
    """一位作者的图画上的成绩 / What the drawings of one artist gave."""

    scores: ByInput
    retrieval: Tensor  # (C,) `retrieve`
    by_name: Tensor  # (C, C) `name_neighbour`
    by_drawing: Tensor  # (C, C) `feature_neighbour`


@dataclass(frozen=True)
class Study:
    """一次训练的成绩 / What one training gave."""

    test: OneArtist  # 测试集的作者 / the artist of the test set
    shift: OneArtist  # 画风很不一样的作者 / an artist of another style
    never_met: ByInput | None  # 没一起出现过的配对 / pairs that never met in training
    parameters: int  # 可学的数有多少 / how many numbers are learned
    seconds: float  # 训练用的 CPU 秒数 / seconds of CPU that the training took


@typed
def train_and_study(seed: int, steps: int = STEPS, weights: Sequence[float] = (1.0, 1.0, 1.0),
                    backbone: str = "resnet-tiny", model_name: str = "bert-tiny", hints: str = "keywords",
                    hold_out: bool = False) -> Study:
    """训练一次，用没见过的两位作者测试 / Train once, and test on two artists it never saw.

    `weights` are (α, β, γ); `hold_out` holds out some pairs of concept and hint by `hold_out_pairs`.

    `weights` 是 (α, β, γ)；`hold_out` 用 `hold_out_pairs` 留出一些概念与提示的配对。
    """
    checks.require(len(weights) == 3, f"weights 需要三个数 (α, β, γ)，收到 {len(weights)} 个",
                   f"weights must be three numbers (α, β, γ), got {len(weights)}")
    concepts, apart = load(hints), None
    if hold_out:
        concepts, apart = hold_out_pairs(concepts, seed)
    learning = learner(concepts, steps, seed, "cpu", backbone=backbone, model_name=model_name)
    start = time.process_time()
    model = learning.finish(**dict(zip(("alpha", "beta", "gamma"), weights, strict=True))).model
    seconds = time.process_time() - start
    test, shift = (_tested(model, concepts, concepts.data.by_role(role)[0]) for role in ("test", "shift"))
    return Study(test, shift, apart and evaluate(model, apart, concepts.data.by_role("test")[0]),
                 sum(p.numel() for p in model.parameters()), seconds)


def _tested(model: VisualLanguageModel, concepts: Concepts, artist: str) -> OneArtist:
    return OneArtist(evaluate(model, concepts, artist), retrieve(model, concepts, artist),
                  name_neighbour(model, concepts, artist), feature_neighbour(model, concepts, artist))
