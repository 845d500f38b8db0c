r"""看图、听一个提示、说出名字 / Look at a picture, hear a hint, say the name.

融合要有正经活可干，文字就不能是答案。名字（或它的翻译）放进去，文字一个就全答对了；所以放进去的是提示：一个至少三个概念
共有的关键词，例如“水果”。图像和提示各知道一半。

Fusion has honest work only where the text is not the answer. With the name going in, or its translation, the text
alone gets everything right; so what goes in is a hint: a keyword that at least three concepts share, such as “fruit”.
Picture and hint know one half each.
"""

import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mmcore import checks
from mmcore import tokens as text
from mmcore.alignment import cosine_similarity
from mmcore.encoders import TEXT_MODELS
from mmcore.ranking import mutual_scores
from mmcore.training import check_steps_left, choose_device, evaluating, one_cycle, seeded
from mmcore.vision_language import LANGUAGES, VisualLanguageModel, VLMTrainer
from mmlessons.data import emoji
from mmlessons.data.augment import augment
from mmlessons.tasks.cross_modal_retrieval import training_pictures

HINTS = ("keywords", "names")
INPUTS = ("picture", "text", "both")
SHARED_BY = 3  # concepts, at least, for a keyword to be a hint
FEATURE_DIM, HIDDEN_DIM = 128, 256
TAU = 0.0625
LEARNING_RATE = 6e-3
STEPS = 800  # less than 60 s of one thread
NAME_SHARE = 0.4  # of the rows: their text is the name, for retrieval alone
IMAGE_DROPOUT = 0.15
UNCHANGED = {"vit-tiny": 0.4}  # share of drawings left as they are: a small ViT learns too slowly to need more change


@dataclass(frozen=True)
class Task:
    """C 个概念、H 个提示，以及什么配什么 / C concepts, H hints, and what goes with what.

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `data` | C | 有提示的概念与图画 / the concepts that have a hint, and their pictures |
    | `classes` | K | 类别（子组）的名字 / names of the classes (subgroups) |
    | `label` | (C,) | 每个概念的类别 / the class of each concept |
    | `hints` | H | 提示 / the hints |
    | `fits` | (C, H) bool | 提示 h 说得中概念 c，名字也算 / hint h is true of concept c, its name included |
    | `pairs` | (C, H) bool | 其中训练或考试用到的 / those of them that are trained on, or tested |
    """

    data: emoji.Emoji
    classes: tuple[str, ...]
    label: Tensor
    hints: tuple[str, ...]
    fits: Tensor
    pairs: Tensor

    @property
    def names(self) -> list[str]:
        """先全部中文名，再全部英文名 / All Chinese names, then all English ones: row language · C + concept."""
        return [name for language in LANGUAGES for name in self.data.names(language)]

    def shares(self) -> Tensor:
        """每一对的概率，概念一样重，提示也一样重 / The probability of each pair, (C, H): concepts alike, then hints."""
        counts = self.pairs.sum(1, keepdim=True)
        return self.pairs.double() / counts.clamp_min(1) / (counts > 0).sum()


def load_task(hints: str = "keywords", subset: str = "classroom") -> Task:
    """从表情数据造出任务 / Make the task from the emoji data.

    `hints`："keywords" 是至少三个概念共有的关键词，且不是这个概念自己的名字；没有这种关键词的概念不在其中。"names" 是
    名字本身，两种语言：答案泄漏了，用来看泄漏是什么样子。

    `hints`: "keywords" are keywords that at least three concepts share, and never a concept's own name; concepts
    without one are left out. "names" are the names themselves, in both languages: the answer leaks, and one sees what
    that looks like.

    Raises: ValueError 提示或子集未知 / if hints or subset are unknown.
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
    return Task(data, classes, label, listed, pairs | named, pairs)


def _words(by_language: dict[str, str | tuple[str, ...]]) -> set[str]:
    found = [[value] if isinstance(value, str) else value for value in by_language.values()]
    return {word.lower() for words in found for word in words}


def hold_out_pairs(task: Task, seed: int = 0) -> tuple[Task, Task]:
    """留出一些从不一起出现的概念与提示 / Hold out some pairs of concept and hint that never meet in training.

    有两个以上提示的概念各留出一个。返回两个任务，只有 `pairs` 不同：训练用的，考试用的。提示和概念都学过，只是没有一起
    见过。

    Every concept of two hints or more gives up one. Returns two tasks that differ in `pairs` alone: one to train on,
    one for the test. Each hint and each concept has been learned, only never together.
    """
    checks.whole(seed, "seed", 0)
    lot = torch.rand(task.pairs.shape, generator=torch.Generator().manual_seed(seed)).masked_fill(~task.pairs, -1.0)
    chosen = torch.zeros_like(task.pairs).scatter(1, lot.argmax(1, keepdim=True), True)
    chosen &= task.pairs.sum(1, keepdim=True) > 1
    return replace(task, pairs=task.pairs & ~chosen), replace(task, pairs=chosen)


def majority(task: Task) -> dict[str, float]:
    """什么也不看的基线：总答最常见的 / The baseline that looks at nothing: always the commonest answer."""
    weight = task.shares().sum(1)
    by_class = torch.zeros(len(task.classes), dtype=torch.float64).index_add(0, task.label, weight)
    return {"subgroup": by_class.max().item(), "name": weight.max().item()}


def text_limit(task: Task) -> dict[str, float]:
    """只看提示，谁也超不过的成绩 / What nobody can exceed who sees the hint alone.

    每个提示都答最可能的那个：Σₕ maxₖ P(k, h)。是数出来的，不是训练出来的。

    For each hint the most probable answer: Σₕ maxₖ P(k, h). It is counted, not trained.
    """
    P = task.shares()
    by_class = torch.zeros(len(task.classes), P.shape[1], dtype=torch.float64).index_add(0, task.label, P)
    return {"subgroup": by_class.amax(0).sum().item(), "name": P.amax(0).sum().item()}


def loss_floor(n: int, tau: float = 1.0) -> float:
    """对比损失 (2.1) 最低能到多少 / How low the contrastive loss (2.1) can go: N pairs, temperature τ.

    余弦最多是 1，N 个方向两两之间最多平均分开到 −1/(N−1)，所以 L ≥ ln(1 + (N − 1) e^(−N / ((N−1) τ)))。不除以温度
    （τ = 1）时，N = 64 就已经不能低于 3.2。

    A cosine is at most 1, and N directions can at best all be −1/(N−1) apart, so that L ≥ ln(1 + (N − 1)
    e^(−N / ((N−1) τ))). Undivided by a temperature (τ = 1) it cannot fall below 3.2 at N = 64.

    Paper: Wang and Isola 2020, Understanding Contrastive Representation Learning through Alignment and Uniformity on
    the Hypersphere.
    """
    checks.whole(n, "n", least=2)
    checks.positive(tau, "tau")
    return math.log1p((n - 1) * math.exp(-n / ((n - 1) * tau)))


class NamingTrainer:
    """用表情数据训练视觉-语言模型 / Trains the vision-language model on the emoji data.

    每一步：N 个不同的概念，各取一位训练作者的图画（再随机变化），用随机的一种语言写名字。文字有两种：大多数行是提示，
    融合与检索都用它；`name_share` 这么多的行是概念自己的名字，只给检索用，不许融合看见，否则答案就泄漏了。这些行于是
    学会只看图。有提示的行里，`image_dropout` 这么多看不见图像，学会只听提示。

    Each step takes N different concepts, for each the drawing of one training artist, changed at random, and asks for
    the name in a random language. The text is one of two: in most rows a hint, which fusion and retrieval both use; in
    a share of `name_share` the concept's own name, for retrieval alone: fusion must not see it, or the answer would
    leak. These rows thus learn to do with the picture. Of the rows with a hint, a share of `image_dropout` does not see
    the picture and learns to do with the hint.

    一个提示在一批里可能说中好几个概念，它们都算正例。

    A hint may be true of several concepts in a batch, and all of them are its positives.

    `backbone`、`weights`、`model_name` 见 (1.1) 和 (1.2)；预训练的编码器要小得多的 `lr`，例如 1e-4。

    For `backbone`, `weights` and `model_name` see (1.1) and (1.2); pretrained encoders need a far smaller `lr`, 1e-4
    say.

    α、β、γ、τ 每一步都可以换。同一个 `seed` 给出同一个模型。`reset` 丢掉学到的，从头再来。

    α, β, γ and τ may change from step to step. The same `seed` gives the same model. `reset` drops what was learned and
    starts anew.

    Raises: TypeError / ValueError 步数、批大小、种子、比例或骨干不对 / for a wrong number of steps, batch, seed, share
    or backbone.
    """

    def __init__(self, task: Task, steps: int = STEPS, seed: int = 0, batch: int = 128, backbone: str = "resnet-tiny",
                 model_name: str = "bert-tiny", weights: str | Path | None = None, lr: float = LEARNING_RATE,
                 name_share: float = NAME_SHARE, image_dropout: float = IMAGE_DROPOUT,
                 device: str | torch.device | None = None):
        for value, name, least in ((steps, "steps", 1), (batch, "batch", 2), (seed, "seed", 0)):
            checks.whole(value, name, least)
        checks.require(batch <= len(task.label), f"batch 最多 {len(task.label)}（每个概念一次），收到 {batch}",
                       f"batch may be at most {len(task.label)}, each concept once, got {batch}")
        for value, name in ((name_share, "name_share"), (image_dropout, "image_dropout")):
            checks.share(value, name)
        checks.require(bool(task.pairs.any(1).all()), "训练的每个概念都需要至少一个提示",
                       "every concept to train on needs at least one hint")
        self.task, self.steps, self.seed, self.batch = task, steps, seed, batch
        checks.positive(lr, "lr")
        self.backbone, self.model_name, self.weights, self.lr = backbone, model_name, weights, lr
        self.name_share, self.image_dropout = name_share, image_dropout
        self.device = choose_device(device)
        self.pictures = training_pictures(task.data)
        c = len(task.label)
        own = torch.eye(c, dtype=torch.bool)
        self.true_of = torch.cat([task.fits, own, own], 1)  # (C, H + 2 C): which text is true of which concept
        self.reset()

    def reset(self) -> None:
        """新的模型，新的优化器，同样的随机数 / A new model, a new optimiser, the same random numbers."""
        names = self.task.names
        texts = [*self.task.hints, *names]
        with seeded(self.seed):
            tiny = text.build_tokenizer(texts) if self.model_name in TEXT_MODELS else None
            self.model = VisualLanguageModel(len(self.task.classes), FEATURE_DIM, self.backbone, self.model_name,
                                             self.weights, HIDDEN_DIM, tiny, text.build_tokenizer(names))
        self.generator = torch.Generator().manual_seed(self.seed)
        self.trainer = VLMTrainer(self.model, self.device, tau=TAU, lr=self.lr, weight_decay=0.3)
        self.schedule = one_cycle(self.trainer.optimizer, self.steps)
        self.tokens = self.model.text_encoder.tokenize(texts)  # row hint, then row H + language · C + concept
        self.name_ids = _name_ids(self.model, self.task)

    def draw(self) -> dict[str, Tensor]:
        """下一批 / The next batch: the arguments of `VLMTrainer.train_step`."""
        random, (artists, count) = self.generator, self.pictures.shape[:2]
        concept = torch.randperm(count, generator=random)[:self.batch]
        artist, spoken, asked = (torch.randint(n, concept.shape, generator=random)
                                 for n in (artists, len(LANGUAGES), len(LANGUAGES)))
        lot = torch.rand(len(concept), len(self.task.hints), generator=random)
        hint = lot.masked_fill(~self.task.pairs[concept], -1.0).argmax(1)
        named = torch.rand(concept.shape, generator=random) < self.name_share
        blind = torch.rand(concept.shape, generator=random) < self.image_dropout
        said = torch.where(named, len(self.task.hints) + spoken * count + concept, hint)
        drawn = self.pictures[artist, concept] / 255
        image = augment(drawn, random)
        plain = torch.rand(concept.shape, generator=random) < UNCHANGED.get(self.backbone, 0.0)
        image[plain] = drawn[plain]
        return {"image": image,
                "input_ids": self.tokens["input_ids"][said], "attention_mask": self.tokens["attention_mask"][said],
                "labels": self.task.label[concept], "name_ids": self.name_ids[asked * count + concept],
                "positives": self.true_of[concept.unsqueeze(1), said], "image_given": named | ~blind,
                "text_given": ~named}

    def train_step(self, alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0,
                   tau: float = TAU) -> dict[str, float]:
        """走一步，返回各项损失 / Take one step, return the losses of `VLMTrainer.train_step`.

        Raises: TypeError / ValueError 权重小于 0、τ 不是正数，或步数走完了 / if a weight is below 0, τ is not positive,
        or all steps are done; FloatingPointError 损失不是有限数 / if the loss is not finite. In all cases the model
        stays as it was.
        """
        self.trainer.tune(alpha, beta, gamma, tau)
        check_steps_left(self.schedule)
        losses = self.trainer.train_step(**self.draw())
        self.schedule.step()
        return losses


def _name_ids(model: VisualLanguageModel, task: Task) -> Tensor:
    return model.name_tokens(task.names, [language for language in LANGUAGES for _ in task.label])


def evaluate(model: VisualLanguageModel, task: Task, artist: str) -> dict[str, dict[str, float]]:
    """只看图、只听提示、两样都有 / Picture alone, text alone, and both: {"picture", "text", "both"} → scores.

    `subgroup` 是分对类别的比例；`name` 是写出的名字与答案一字不差的比例，两种语言的平均。对 `task.pairs` 的每一对都考，
    概念一样重，同一概念的提示一样重；没有一点是抽样的。

    `subgroup` is the share of right classes; `name` the share of names written exactly, mean of both languages. Every
    one of `task.pairs` is tested, concepts weigh alike, and so do the hints of one concept; nothing is sampled.

    Raises: ValueError 作者未知 / if the artist is unknown.
    """
    f_v, f_t = _features(model, task, artist)
    concept, hint = task.pairs.nonzero().T.to(model.device)
    weight = task.shares()[task.pairs]
    name_ids = _name_ids(model, task).to(model.device)
    label = task.label.to(model.device)
    table = {}
    for given, (v, t) in {"picture": (f_v[concept], None), "text": (None, f_t[hint]),
                          "both": (f_v[concept], f_t[hint])}.items():
        with evaluating(model):
            h = model.fusion(v, t)
            subgroup = model.classifier(h).argmax(1) == label[concept]
            exact = [_same(model.write(h, [language] * len(h))[0],
                           name_ids[i * len(task.label) + concept, 1:], model.generation_head.pad)
                     for i, language in enumerate(LANGUAGES)]
        table[given] = {"subgroup": (weight * subgroup.cpu()).sum().item(),
                        "name": sum((weight * right.cpu()).sum().item() for right in exact) / len(exact)}
    return table


def retrieve(model: VisualLanguageModel, task: Task, artist: str) -> float:
    """名字找图画，图画找名字：四个 r@1 的平均 / Names find pictures, pictures find names: the mean of four r@1."""
    with evaluating(model):
        f_v, _ = _features(model, task, artist)
        tokens = {name: ids.to(model.device) for name, ids in model.text_encoder.tokenize(task.names).items()}
        v, t = model.retrieval_head_v(f_v), model.retrieval_head_t(model.text_encoder(**tokens))
    found = [mutual_scores(cosine_similarity(v, names))["r@1"] for names in t.chunk(len(LANGUAGES))]
    return sum(found) / len(found)


def _features(model: VisualLanguageModel, task: Task, artist: str) -> tuple[Tensor, Tensor]:
    checks.one_of(artist, "artist", tuple(task.data.pictures))
    tokens = {name: ids.to(model.device) for name, ids in model.text_encoder.tokenize(task.hints).items()}
    with evaluating(model):
        return model.visual_encoder(task.data.pictures[artist].to(model.device) / 255), model.text_encoder(**tokens)


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


def answer(model: VisualLanguageModel, task: Task, picture: Tensor | None, hint: str | None, language: str = "zh",
           temperature: float = 0.0, generator: torch.Generator | None = None, k: int = 3) -> Answer:
    """看图、听提示，说出名字和类别 / Look, listen, and say the name and the class.

    `picture` 是 uint8 的 (3, H, W)，`hint` 是任何学过的词；两者之一可以是 None。温度 0 是贪心，大于 0 时用 `generator`
    抽签。

    `picture` is uint8 (3, H, W), `hint` any words that were learned; one of the two may be None. Temperature 0 is
    greedy, above 0 tokens are drawn with `generator`.

    Raises: TypeError / ValueError 图画不符、提示没学过、两者都没有，语言未知，或温度不符 / for a wrong picture, a hint
    never learned, neither of the two, an unknown language, or a wrong temperature.
    """
    checks.whole(k, "k")
    checks.require(picture is None or (isinstance(picture, Tensor) and picture.dtype == torch.uint8
                                       and picture.ndim == 3),
                   "picture 需要是 uint8 的 (3, H, W)", "picture must be uint8 (3, H, W)", TypeError)
    inputs: dict[str, Tensor] = {}
    if picture is not None:
        inputs["image"] = picture.unsqueeze(0).to(model.device) / 255
    if hint is not None:
        if isinstance(model.text_encoder.tokenizer, Tokenizer):  # one of Hugging Face's splits any word into pieces
            text.check_known(model.text_encoder.tokenizer, hint)
        inputs |= {name: ids.to(model.device) for name, ids in model.text_encoder.tokenize([hint]).items()}
    with evaluating(model):
        out = model(**inputs)
    tokens, p = model.write(out["h"], [language], temperature, generator)
    words = [(word, chance) for token, chance in zip(tokens[0], p[0].tolist(), strict=True)
             for word in model.words(token.unsqueeze(0))]
    best = out["classification_logits"][0].softmax(0).topk(min(k, len(task.classes)))
    classes = [(task.classes[i], chance) for i, chance in zip(best.indices, best.values.tolist(), strict=True)]
    return Answer(model.spell(tokens[0]), words, classes)


def train_and_test(seed: int, steps: int = STEPS, weights: Sequence[float] = (1.0, 1.0, 1.0),
                   backbone: str = "resnet-tiny", model_name: str = "bert-tiny", hints: str = "keywords",
                   role: str = "test", new_pairs: bool = False) -> dict[str, dict | float]:
    """训练一次，考一次 / Train once and test once.

    | 键 key | 内容 what |
    |---|---|
    | `picture`, `text`, `both` | `evaluate` 的成绩 / the scores of `evaluate` |
    | `retrieval` | `retrieve` 的成绩 / the score of `retrieve` |
    | `parameters` | 可学的数有多少 / how many numbers are learned |
    | `seconds` | 训练用的 CPU 秒数 / seconds of CPU that the training took |
    | `new` | 只在 `new_pairs` 时：没一起出现过的配对上的成绩 / with `new_pairs` alone: scores on pairs never met |

    `weights` 是 (α, β, γ)；`role` 是考试的作者；`new_pairs` 用 `hold_out_pairs` 留出一些概念与提示的配对。

    `weights` are (α, β, γ); `role` is the artist of the test; `new_pairs` holds out some pairs of concept and hint by
    `hold_out_pairs`.
    """
    task, new = load_task(hints), None
    if new_pairs:
        task, new = hold_out_pairs(task, seed)
    artist = task.data.by_role(role)[0]
    trainer = NamingTrainer(task, steps, seed, backbone=backbone, model_name=model_name, device="cpu")
    start = time.process_time()
    for _ in range(steps):
        trainer.train_step(*weights)
    seconds = time.process_time() - start
    result = {**evaluate(trainer.model, task, artist), "retrieval": retrieve(trainer.model, task, artist),
              "parameters": sum(p.numel() for p in trainer.model.parameters()), "seconds": seconds}
    return result if new is None else {**result, "new": evaluate(trainer.model, new, artist)}
