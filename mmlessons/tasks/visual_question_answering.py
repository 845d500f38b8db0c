"""视觉问答：看图回答问题 / Visual question answering: questions about a picture.

The picture is cut into four cells with a visual feature each (1.1); the question is one text feature (1.2). The
question decides which cells to look at, (4.2) or (4.1); what was seen is fused with the question (1.3), and a linear
layer chooses among all answers. What learns nothing is here as well: eyes that compare pixels, and a program that
executes the question on what eyes report.

图画切成四格，每格一个视觉特征 (1.1)；问题是一个文本特征 (1.2)。问题决定看哪几格 (4.2) 或 (4.1)，看到的与问题融合
(1.3)，再由一个线性层在所有答案里选一个。什么也不学的也在这里：逐个像素比的“眼睛”，和照着问题执行的一小段程序。
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks
from mmcore import tokens as text
from mmcore.alignment import contrastive_loss, cosine_similarity
from mmcore.attention import LOOKS, CellAttention
from mmcore.checks import shapes
from mmcore.encoders import TextEncoder, VisualEncoder
from mmcore.fusion import weighted_sum
from mmcore.training import device_of, evaluating
from mmcore.vision_language import CrossModalFusion
from mmlessons.border import check_pictures, typed
from mmlessons.data import scenes
from mmlessons.data.augment import augment
from mmlessons.tasks.learner import Descent, Learner, Losses
from mmlessons.tasks.pixels import pixel_similarity
from mmlessons.tasks.scoring import best

SEES = ("both", "question", "picture")
FEATURE_DIM, HIDDEN_DIM = 128, 256
TAU = 0.1  # of the naming loss
LEARNING_RATE, WEIGHT_DECAY = 6e-3, 0.1
STEPS = 250
DRAWINGS = 4  # of every thing in one step, from which its scenes are put together
BIAS = 0.97
VARIANTS = {  # what a training of the lesson differs in
    "gates": {}, "attention": {"look": "attention"},
    "question": {"sees": "question", "steps": 100}, "picture": {"sees": "picture", "steps": 80},
    "biased": {"bias": BIAS, "kinds": ("whether",), "steps": 80},
    "biased question": {"bias": BIAS, "kinds": ("whether",), "steps": 80, "sees": "question"},
    "fair": {"kinds": ("whether",), "steps": 80},
}
Scores = dict[str, Tensor]  # right or wrong, question by question: of "all", and of every kind that was asked
Eyes = Callable[[Tensor], Tensor]  # pictures (N, 3, 64, 64) uint8 → how much each cell is like each thing (N, 4, K + 1)


# -- the model --------------------------------------------------------------------------------------------------------

@typed
class AnsweringModel(nn.Module):
    """看图回答的模型 / The model that answers.

    `forward(image, input_ids, attention_mask)` returns named tensors:

    | name | shape | meaning | 含义 |
    |---|---|---|---|
    | `f_v` | (B, 4, D) | visual feature of every cell (1.1) | 每格的视觉特征 |
    | `f_t` | (B, D) | feature of the question (1.2) | 问题的特征 |
    | `x` | (B, 4, D) | what is in every cell, and where that is | 每格有什么、在哪里 |
    | `w` | (B, 4) | weight of every cell, (4.2) or (4.1) | 每格的权重 |
    | `c` | (B, D) | what was seen | 看到的 |
    | `h` | (B, H) | fused with the question (1.3) | 与问题融合后 |
    | `z` | (B, K) | score of every answer, see `scenes.ANSWERS` | 每个答案的得分 |

    `sees`: with "question" it does not see the picture, with "picture" it does not hear the question: the feature of
    that side is 0, a baseline without any evidence from there.

    `sees`："question" 看不见图，"picture" 听不见问题：那一边的特征是 0，一个什么证据也没有的基线。
    """

    def __init__(self, feature_dim: int = FEATURE_DIM, hidden_dim: int = HIDDEN_DIM, look: str = "gates",
                 sees: str = "both", tokenizer: Tokenizer | None = None):
        super().__init__()
        checks.one_of(sees, "sees", SEES)
        self.sees, self.feature_dim = sees, feature_dim
        self.visual_encoder = VisualEncoder(feature_dim)
        self.text_encoder = TextEncoder("bert-tiny", feature_dim, tokenizer or make_tokenizer())
        self.look = CellAttention(feature_dim, scenes.CELLS, look)
        self.fuse = CrossModalFusion(feature_dim, hidden_dim)
        self.head = nn.Linear(hidden_dim, len(scenes.ANSWERS))

    @shapes(like="head.weight", image="B 3 64 64", input_ids="int B L", attention_mask="mask B L")
    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        cells = scenes.split(image).flatten(0, 1)
        f_v = self.visual_encoder(cells).view(len(image), scenes.CELLS, -1)
        return self.answer(f_v, self.text_encoder(input_ids, attention_mask))

    @shapes(like="head.weight", own="D=feature_dim", f_v=f"B {scenes.CELLS} D", f_t="B D")
    def answer(self, f_v: Tensor, f_t: Tensor) -> dict[str, Tensor]:
        """从特征到得分 / From features to scores."""
        if self.sees == "picture":
            f_t = torch.zeros_like(f_t)
        x = self.look.with_positions(f_v)
        w = self.look.weights(f_t, x)
        c = weighted_sum(w, x.unbind(1))
        if self.sees == "question":
            c = torch.zeros_like(c)
        h = self.fuse(c, f_t)
        return {"f_v": f_v, "f_t": f_t, "x": x, "w": w, "c": c, "h": h, "z": self.head(h)}

    @cached_property
    def tokens(self) -> dict[str, Tensor]:
        """所有问题的词元，然后是所有名字的 / The tokens of all questions, then of all names."""
        return self.text_encoder.tokenize(_texts())

    def encode(self, rows: Tensor) -> Tensor:
        """`tokens` 里几行的特征 / The features of some rows of `tokens`."""
        return self.text_encoder(**{name: ids.to(rows.device)[rows] for name, ids in self.tokens.items()})

    @typed
    def ask(self, picture: Tensor, question: str) -> tuple[Tensor, Tensor]:
        """一幅图画，一个问题 / One picture (3, 64, 64) uint8, one question → probabilities (K,), weights of cells (4,).

        Raises ValueError if the question is empty or holds a word never learned; for the picture see `check_pictures`.

        问题为空，或有没学过的词时报 ValueError；图画见 `check_pictures`。
        """
        check_pictures(picture, "picture", 3, 2 * scenes.SIZE, 2 * scenes.SIZE)
        text.check_known(self.text_encoder.tokenizer, question)
        tokens = self.text_encoder.tokenize([question])
        device = device_of(self)
        with evaluating(self):
            out = self(picture[None].to(device) / 255, **{name: ids.to(device) for name, ids in tokens.items()})
        return out["z"][0].softmax(0).cpu(), out["w"][0].cpu()

    @typed
    def recognise(self, pictures: Tensor) -> Tensor:
        """学来的眼睛 / The eyes that it learned: (N, 3, 64, 64) uint8 → (N, 4, K + 1), as those of `by_pixels`.

        How much a cell is like a thing is the cosine of its f_v with the features of the two names, on average.

        一格有多像一样东西，是它的 f_v 与两个名字的特征的余弦的平均。
        """
        cells, device, things = _cells(pictures), device_of(self), len(scenes.THINGS)
        with evaluating(self):
            names = self.encode(torch.arange(-len(scenes.LANGUAGES) * things, 0, device=device))
            f_v = torch.cat([self.visual_encoder(part.to(device) / 255) for part in cells.split(500)])
            like = cosine_similarity(f_v, names).view(len(cells), -1, things).mean(1)
        return _report(like.cpu(), cells)


def make_tokenizer() -> Tokenizer:
    """认得所有问题和名字的分词器 / A tokenizer that knows all questions and names."""
    return text.build_tokenizer(_texts())


def _texts() -> list[str]:
    names = [thing.title[k] for k in range(len(scenes.LANGUAGES)) for thing in scenes.THINGS]
    return [*scenes.questions(), *names]


@shapes(w=f"{scenes.CELLS}")
def spotlight(picture: Tensor, w: Tensor) -> Tensor:
    """看得越少的格越暗 / The less a cell is looked at, the darker: (3, 64, 64) uint8, (4,) → (3, 64, 64) uint8."""
    check_pictures(picture, "picture", 3, 2 * scenes.SIZE, 2 * scenes.SIZE)
    checks.require(bool(w.isfinite().all()), "w 里有 NaN 或无穷", "w holds NaN or infinity")
    cells = scenes.split(picture[None].float())
    light = 0.15 + 0.85 * w.clamp(0, 1).view(1, -1, 1, 1, 1)
    return scenes.join(cells * light)[0].round().to(torch.uint8)


# -- what is learned --------------------------------------------------------------------------------------------------

@typed
@dataclass(frozen=True, eq=False)
class Answering:
    """学会看图回答 / The task of learning to answer.

    Each step takes `DRAWINGS` drawings of every thing, changed at random (empty cells too), encodes them once, and puts
    `batch` scenes together from these cells, each with a question to answer. As cells are encoded one by one, this is
    the same as encoding whole pictures, and far cheaper. The loss is L = L_answer + β L_name. L_answer is the
    cross-entropy of the answers; L_name is (2.1) between cells and names: only once pictures and words agree can a
    question find the cell to look at. For `kinds` and `bias` see `Scenes.draw`, for `look` and `sees` `AnsweringModel`.
    Raises TypeError or ValueError for a wrong number or option.

    每一步：每样东西取 `DRAWINGS` 幅随机变化过的图画（空格也是），编码一次；再用这些格拼出 `batch` 个场景，每个回答一个
    问题。格与格互不相干地编码，所以这与编码整幅图画是一回事，只是省得多。损失 L = L_answer + β L_name：L_answer 是答案
    的交叉熵；L_name 是格与名字之间的 (2.1)，图和字先要对得上，问题才找得到该看的格。`kinds`、`bias` 见 `Scenes.draw`，
    `look`、`sees` 见 `AnsweringModel`。个数或选项不对时报 TypeError 或 ValueError。
    """

    batch: int = 256
    look: str = "gates"
    sees: str = "both"
    bias: float | None = None
    kinds: Sequence[str] = scenes.KINDS

    def __post_init__(self) -> None:
        checks.whole(self.batch, "batch", 2)
        checks.one_of(self.sees, "sees", SEES)
        checks.one_of(self.look, "look", LOOKS)
        scenes.check_questions(self.kinds, self.bias)

    @cached_property
    def data(self) -> scenes.Scenes:
        return scenes.load("train")

    def begin(self, device: torch.device) -> Descent:
        model = AnsweringModel(look=self.look, sees=self.sees).to(device)
        return Descent.of(model, self.losses, LEARNING_RATE, WEIGHT_DECAY, total="L")

    def step(self, trainer: Descent, generator: torch.Generator, beta: float = 1.0) -> Losses:
        checks.not_negative(beta, "beta")
        device = device_of(trainer.model)
        return trainer.train_step({name: x.to(device) for name, x in self.draw(generator).items()}, beta=beta)

    @typed
    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """一步要用的：格、由格拼成的场景、问题和答案 / Of one step: cells, scenes made of them, questions, answers."""
        tiles = self.data.with_empty
        drawn = self.data.draw(self.batch, generator, self.kinds, bias=self.bias)
        thing = torch.arange(tiles.shape[1]).repeat(DRAWINGS)
        artist = torch.randint(len(tiles), thing.shape, generator=generator)
        which = torch.randint(DRAWINGS, drawn["cells"].shape, generator=generator)
        language = torch.randint(len(scenes.LANGUAGES), thing.shape, generator=generator)
        return {"tiles": augment(tiles[artist, thing] / 255, generator), "thing": thing, "language": language,
                "cells": drawn["cells"] % tiles.shape[1] + tiles.shape[1] * which,
                "question": scenes.question_number(drawn), "answer": drawn["answer"]}

    def losses(self, model: AnsweringModel, batch: Mapping[str, Tensor], beta: float) -> dict[str, Tensor]:
        blind = self.sees == "question"  # nothing to see, and nothing to name
        tiles = batch["tiles"]
        f = tiles.new_zeros(len(tiles), FEATURE_DIM) if blind else model.visual_encoder(tiles)
        z = model.answer(f[batch["cells"]], model.encode(batch["question"]))["z"]
        L_answer = F.cross_entropy(z, batch["answer"])
        L_name = f.sum() if blind else naming_loss(model, f, batch["thing"], batch["language"])
        return {"L": L_answer + beta * L_name, "L_answer": L_answer, "L_name": L_name}


def naming_loss(model: AnsweringModel, f: Tensor, thing: Tensor, language: Tensor) -> Tensor:
    """格与名字之间的 (2.1)，空格没有名字 / (2.1) between cells and names; an empty cell has none."""
    real = thing < len(scenes.THINGS)
    row = thing[real] + len(scenes.THINGS) * language[real]
    named = model.encode(torch.arange(-2 * len(scenes.THINGS), 0, device=f.device))[row]
    return contrastive_loss(f[real], named, TAU, positives=thing[real][:, None] == thing[real])


@typed
def learner(steps: int = STEPS, seed: int = 0, device: str | torch.device | None = None, **options: object) -> Learner:
    """学习看图回答；选项见 `Answering` / Learns to answer; for the options see `Answering`."""
    return Learner(Answering(**options), steps, seed, device)


# -- what learns nothing ----------------------------------------------------------------------------------------------

@typed
def empty_or_not(pictures: Tensor) -> Tensor:
    """只看得出一格空不空的眼睛 / Eyes that tell an empty cell from a filled one: (N, 3, 64, 64) → (N, 4, K + 1).

    To them every filled cell is like every thing, by 1, and an empty one is like nothing, the last column.

    在它们看来，有东西的格像每一样东西，都是 1；空格只像“空”，也就是最后一列。
    """
    cells = _cells(pictures)
    return _report(torch.ones(len(cells), len(scenes.THINGS)), cells)


@typed
def by_pixels(pictures: Tensor, crop: bool = True) -> Tensor:
    """像素近邻的眼睛 / Eyes that compare pixels: each cell with all training drawings, (N, 3, 64, 64) → (N, 4, K + 1).

    How much a cell is like a thing is the cosine, less the mean, with that of the five drawings of it that comes
    closest; the last column is “empty”. They have learned nothing: they keep 150 drawings. With `crop` every drawing is
    first cropped to its edges and enlarged to one size.

    一格有多像一样东西，就是减去均值以后，与它的五幅图画里最像的那一幅的余弦；最后一列是“空”。它们什么也没学，只是存着
    150 幅图画。`crop` 为真时，每幅图画先裁到画的边，放大到一样大。
    """
    cells, known = _cells(pictures), scenes.load("train").tiles
    different, which = cells.unique(dim=0, return_inverse=True)  # what stands in many pictures is compared once
    return _report(pixel_similarity(different, known, crop)[which], cells)


@shapes(seen=f"N {scenes.CELLS} {len(scenes.THINGS) + 1}", kind="int64 N", about="int64 N", least={"N": 1})
def execute(seen: Tensor, kind: Tensor, about: Tensor) -> Tensor:
    """照着问题执行，每种问题一行 / Executes the question, one line for each kind: (N,), numbers of `scenes.ANSWERS`.

    `seen` is what eyes report, how much each cell is like each thing; `kind` and `about` are those of `Scenes.draw`.
    It learns nothing: we wrote it, and it is told what the question means.

    `seen` 是眼睛报告的：每一格有多像每一样东西；`kind`、`about` 与 `Scenes.draw` 的相同。它什么也不学：程序是我们写的，
    问题是什么意思也是告诉它的。
    """
    checks.ranked(seen, "seen")
    for name, x, most in (("kind", kind, len(scenes.KINDS)), ("about", about, len(scenes.THINGS))):
        checks.require(bool(((x >= 0) & (x < most)).all()), f"{name} 需要在 0 与 {most - 1} 之间",
                       f"{name} must lie between 0 and {most - 1}")
    rows = torch.arange(len(seen))
    like = seen[rows, :, about]  # (N, 4): how much each cell is like the thing that is asked about
    is_it = like == seen.amax(-1)  # and like nothing more than that
    found = {"what": seen[rows, about % scenes.CELLS, :-1].argmax(-1),  # here `about` is the cell
             "how many": is_it.sum(-1),
             "whether": is_it.any(-1).long(),
             "where": like.argmax(-1)}
    first = torch.tensor([scenes.answers_of(name).start for name in scenes.KINDS])
    return torch.stack([found[name] for name in scenes.KINDS])[kind, rows] + first[kind]


@typed
def by_program(eyes: Eyes, data: scenes.Scenes, count: int = 1000, seed: int = 12345, **draw: object) -> Scores:
    """眼睛看，程序答，对不对 / Eyes look and `execute` answers: right or wrong, on the questions of `scores`.

    `eyes` are `by_pixels`, `empty_or_not` or a model's `recognise`.

    `eyes` 是 `by_pixels`、`empty_or_not`，或某个模型的 `recognise`。
    """
    drawn = _ask(data, count, seed, draw)
    seen = eyes(data.pictures(drawn["cells"], drawn["artist"]))
    return by_kind(execute(seen, drawn["kind"], drawn["about"]), drawn)


def _cells(pictures: Tensor) -> Tensor:
    check_pictures(pictures, "pictures", "N", 3, 2 * scenes.SIZE, 2 * scenes.SIZE)
    return scenes.split(pictures).flatten(0, 1)


def _report(like: Tensor, cells: Tensor) -> Tensor:
    """(4 N, K) → (N, 4, K + 1): where all pixels of a cell are alike it is empty, and like nothing else."""
    pixels = cells.flatten(1)
    empty = (pixels == pixels[:, :1]).all(1, keepdim=True)
    like = torch.where(empty, -2.0, like)  # below any cosine
    return torch.cat([like, torch.where(empty, 1.0, -2.0)], 1).view(-1, scenes.CELLS, like.shape[1] + 1)


# -- what is tested ---------------------------------------------------------------------------------------------------

@typed
def scores(model: AnsweringModel, data: scenes.Scenes, count: int = 1000, seed: int = 12345, **draw: object) -> Scores:
    """在 `count` 个新场景上，每题对不对 / Right or wrong, on one question about each of `count` new scenes.

    The same `seed` gives the same questions; for `draw` see `Scenes.draw`.

    同样的 `seed` 是同样的问题；`draw` 见 `Scenes.draw`。

    | 返回 returned | 形状 shape | 含义 meaning |
    |---|---|---|
    | `"all"` | (count,) bool | 每题对不对 / is each answer right |
    | `"what"`, `"how many"`, … | (n,) bool | 其中这一种问题的 / those of this kind among them |
    """
    drawn = _ask(data, count, seed, draw)
    return by_kind(predict(model, data, drawn)[0], drawn)


@typed
def per_thing(right: Tensor, seed: int = 12345) -> Tensor:
    """每样东西的成绩 / The score of each thing that is asked about: (N,) or (S, N) → (K,), the mean over S trainings.

    `right` is "all" of `scores` or `by_program`, drawn by the same `seed` and with no other options. Asked what is
    somewhere, the thing is the one that is there.

    `right` 是 `scores` 或 `by_program` 的 "all"，同样的 `seed`，没有别的选项。问“是什么”时，就是那里的那样东西。
    """
    checks.require(right.ndim in (1, 2) and right.numel() > 0 and not right.is_complex(),
                   f"right 需要是实数，形状 (N,) 或 (S, N)，收到 {tuple(right.shape)}",
                   f"right must be real numbers of shape (N,) or (S, N), got {tuple(right.shape)}")
    items = right.double().mean(0) if right.ndim == 2 else right.double()
    drawn = _ask(scenes.load("test"), len(items), seed, {})
    there = drawn["cells"].gather(1, drawn["about"][:, None] % scenes.CELLS)[:, 0]
    thing = torch.where(drawn["kind"] == scenes.KINDS.index("what"), there, drawn["about"])
    return torch.stack([items[thing == k].mean() for k in thing.unique()])


@typed
def accuracy(model: AnsweringModel, data: scenes.Scenes, count: int = 1000, seed: int = 12345,
             **draw: object) -> dict[str, float]:
    """`scores` 的平均：正确率，全部与每种 / The means of `scores`: the accuracy, over all and for each kind."""
    return {name: right.double().mean().item() for name, right in scores(model, data, count, seed, **draw).items()}


def predict(model: AnsweringModel, data: scenes.Scenes, drawn: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """每个问题的答案，和各格的权重 / The answer to every question (N,), and the weights of its cells (N, 4)."""
    number, device, answers, weights = scenes.question_number(drawn), device_of(model), [], []
    with evaluating(model):
        for rows in torch.arange(len(number)).split(500):
            image = data.pictures(drawn["cells"][rows], drawn["artist"][rows]).to(device) / 255
            out = model(image, **{name: ids[number[rows]].to(device) for name, ids in model.tokens.items()})
            answers.append(best(out["z"], "z").cpu())
            weights.append(out["w"].cpu())
    return torch.cat(answers), torch.cat(weights)


def by_kind(answers: Tensor, drawn: Mapping[str, Tensor]) -> Scores:
    """全部与每种问题，每题对不对 / Right or wrong, of all questions and of every kind that occurs."""
    right = answers == drawn["answer"]
    kinds = {name: right[drawn["kind"] == k] for k, name in enumerate(scenes.KINDS)}
    return {"all": right, **{name: part for name, part in kinds.items() if len(part)}}


@typed
def majority(count: int = 1000, seed: int = 12345, examples: int = 20_000) -> Scores:
    """什么也不看，每种问题总答训练里最多的 / Looking at nothing: each kind's most frequent answer in training."""
    checks.whole(examples, "examples", 100)  # so that each kind is among them
    train = scenes.load("train")
    known = train.draw(examples, torch.Generator().manual_seed(seed + 1))
    usual = torch.stack([torch.bincount(known["answer"][known["kind"] == k]).argmax()
                         for k in range(len(scenes.KINDS))])
    drawn = _ask(train, count, seed, {})
    return by_kind(usual[drawn["kind"]], drawn)


def _ask(data: scenes.Scenes, count: int, seed: int, draw: Mapping[str, object]) -> dict[str, Tensor]:
    return data.draw(count, torch.Generator().manual_seed(seed), **draw)


@dataclass(frozen=True)
class Counting:
    """怎样数数 / How it counts, asked “how many” of something that is there."""

    beside: dict[str, dict[int, Tensor]]  # right or wrong, by `pairs` and by how many other things are in the picture
    opened: dict[str, float]  # the mean weight of cells with the thing "asked" about, with "other" things, and "empty"


@dataclass(frozen=True)
class AnsweringStudies:
    """一次训练之后的测试，没有测的是空的 / What one training was tested on; what it was not tested on is empty."""

    test: Scores  # the test set: an artist it never saw
    elsewhere: dict[str, Scores]  # of "gates", see `study_elsewhere`
    eyes: dict[str, Scores]  # of "gates": what its eyes see, answered by the program, for each role of artists
    biased: dict[str, Scores]  # where "whether" was all it was asked, see `study_bias`
    counting: Counting  # of "gates", see `study_counting`


@typed
def study_elsewhere(model: AnsweringModel) -> dict[str, Scores]:
    """别的作者，别的搭配 / Other artists, other combinations.

    "known" are artists it learned from, "validation" and "shift" artists it never saw; "new" is the test artist with
    two things that were never together in training.

    "known" 是学过的作者，"validation"、"shift" 没见过；"new" 是测试作者，图里有训练中从不同时出现的两样。
    """
    known, validation, shift = (scores(model, scenes.load(role)) for role in ("train", "validation", "shift"))
    return {"known": known, "validation": validation, "shift": shift,
            "new": scores(model, scenes.load("test"), pairs="new")}


@typed
def study_counting(model: AnsweringModel, count: int = 2000) -> Counting:
    """数数时旁边还有几样别的，门又开在哪里 / What else is in the picture when it counts, and which gates it opens.

    On `count` scenes of the test artist, with either `pairs` of `Scenes.draw`; the gates are those of "seen".

    测试作者的 `count` 个场景，`Scenes.draw` 的两种 `pairs` 都有；门是 "seen" 的。
    """
    test, beside, opened = scenes.load("test"), {}, {}
    for pairs in scenes.PAIRS:
        drawn = _ask(test, count, 12345, {"kinds": ("how many",), "pairs": pairs})
        answers, w = predict(model, test, drawn)
        asked, empty = drawn["cells"] == drawn["about"][:, None], drawn["cells"] == scenes.EMPTY
        others = (~asked & ~empty).sum(1)
        beside[pairs] = {n: (answers == drawn["answer"])[asked.any(1) & (others == n)]
                         for n in range(pairs == "new", scenes.CELLS)}
        if pairs == "seen":
            where = {"asked": asked, "other": ~asked & ~empty, "empty": empty}
            opened = {name: w[cells].mean().item() for name, cells in where.items()}
    return Counting(beside, opened)


@typed
def study_bias(answer: Callable[..., Scores]) -> dict[str, Scores]:
    """有偏的测试集：同样偏、公平、反过来 / Biased as in training, fair, and the other way round.

    All are asked “whether” of the test artist. `answer(data, kinds=…, …)` is `scores` of a model, or `by_program` of
    some eyes.

    都是测试作者的“有没有”。`answer(data, kinds=…, …)` 是某个模型的 `scores`，或某双眼睛的 `by_program`。
    """
    test, kinds = scenes.load("test"), ("whether",)
    return {"alike": answer(test, kinds=kinds, bias=BIAS), "fair": answer(test, kinds=kinds),
            "turned": answer(test, kinds=kinds, bias=BIAS, turned=True)}


@typed
def study(variant: str, seed: int, **options: object) -> AnsweringStudies:
    """训练一次，然后测试 / Train once, then test.

    `variant` is one of `VARIANTS`, whose options those given replace. Raises ValueError for an unknown variant.

    `variant` 是 `VARIANTS` 里的一个，给出的选项代替它的。变体未知时报 ValueError。
    """
    checks.one_of(variant, "variant", tuple(VARIANTS))
    learned = learner(seed=seed, device="cpu", **{**VARIANTS[variant], **options}).finish()
    model, task = learned.model, learned.task
    whole, roles = variant == "gates", ("test", "validation", "shift")
    return AnsweringStudies(
        test=scores(model, scenes.load("test"), kinds=task.kinds),
        elsewhere=study_elsewhere(model) if whole else {},
        eyes={role: by_program(model.recognise, scenes.load(role)) for role in roles} if whole else {},
        biased=study_bias(partial(scores, model)) if tuple(task.kinds) == ("whether",) else {},
        counting=study_counting(model) if whole else Counting({}, {}))
