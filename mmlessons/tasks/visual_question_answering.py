"""看图回答问题 / Answering questions about a picture.

The picture is cut into four cells with a visual feature each (1.1); the question is one text feature (1.2). The
question decides which cells to look at, (4.2) or (4.1); what was seen is fused with the question (1.3), and a linear
layer chooses among all answers.

图画切成四格，每格一个视觉特征 (1.1)；问题是一个文本特征 (1.2)。问题决定看哪几格 (4.2) 或 (4.1)，看到的与问题融合
(1.3)，再由一个线性层在所有答案里选一个。
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks
from mmcore import tokens as text
from mmcore.alignment import contrastive_loss
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
Accuracy = dict[str, float]  # over "all" questions, and on every kind that was asked


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


# -- what is tested ---------------------------------------------------------------------------------------------------

@typed
def accuracy(model: AnsweringModel, data: scenes.Scenes, count: int = 1000, seed: int = 12345,
             **draw: object) -> Accuracy:
    """在 `count` 个新场景上的正确率 / The accuracy on `count` new scenes: {"all", "what", "how many", …}.

    The same `seed` gives the same questions; for `draw` see `Scenes.draw`.

    同样的 `seed` 是同样的问题；`draw` 见 `Scenes.draw`。
    """
    drawn = data.draw(count, torch.Generator().manual_seed(seed), **draw)
    return by_kind(predict(model, data, drawn), drawn)


def predict(model: AnsweringModel, data: scenes.Scenes, drawn: Mapping[str, Tensor]) -> Tensor:
    """每个问题的答案 / The answer to every question: (N,)."""
    number, device, answers = scenes.question_number(drawn), device_of(model), []
    with evaluating(model):
        for rows in torch.arange(len(number)).split(500):
            image = data.pictures(drawn["cells"][rows], drawn["artist"][rows]).to(device) / 255
            tokens = {name: ids[number[rows]].to(device) for name, ids in model.tokens.items()}
            answers.append(best(model(image, **tokens)["z"], "z").cpu())
    return torch.cat(answers)


def by_kind(answers: Tensor, drawn: Mapping[str, Tensor]) -> Accuracy:
    """全部与每种问题的正确率 / The accuracy over all, and on every kind of question that occurs."""
    right = (answers == drawn["answer"]).double()
    kinds = {name: right[drawn["kind"] == k] for k, name in enumerate(scenes.KINDS)}
    return {"all": right.mean().item(), **{name: part.mean().item() for name, part in kinds.items() if len(part)}}


@typed
def majority(count: int = 1000, seed: int = 12345, examples: int = 20_000) -> Accuracy:
    """什么也不看，每种问题总答训练里最常见的 / Looking at nothing: each kind's most frequent answer in training."""
    checks.whole(examples, "examples", 100)  # so that each kind is among them
    train = scenes.load("train")
    known = train.draw(examples, torch.Generator().manual_seed(seed + 1))
    usual = torch.stack([torch.bincount(known["answer"][known["kind"] == k]).argmax()
                         for k in range(len(scenes.KINDS))])
    drawn = train.draw(count, torch.Generator().manual_seed(seed))
    return by_kind(usual[drawn["kind"]], drawn)


@dataclass(frozen=True)
class AnsweredElsewhere:
    """别的作者，别的搭配 / Other artists, other company."""

    known: Accuracy  # artists it learned from, new scenes
    validation: Accuracy  # an artist it never saw
    shift: Accuracy  # an artist it never saw, of quite another style
    new: Accuracy  # the test artist, with two things that never met in training


@dataclass(frozen=True)
class Biased:
    """有偏的数据 / Biased data."""

    alike: Accuracy  # the test artist, biased as in training
    turned: Accuracy  # biased the other way round


@dataclass(frozen=True)
class AnsweringStudies:
    """一次训练之后的测试 / What one training was tested on."""

    test: Accuracy  # the test set: an artist it never saw
    elsewhere: AnsweredElsewhere | None = None  # for "gates"
    biased: Biased | None = None  # where training was biased


@typed
def study_elsewhere(model: AnsweringModel) -> AnsweredElsewhere:
    """换了作者或搭配，还对几成 / How often it is right with other artists and in other company."""
    known, validation, shift = (accuracy(model, scenes.load(role)) for role in ("train", "validation", "shift"))
    return AnsweredElsewhere(known, validation, shift, new=accuracy(model, scenes.load("test"), pairs="new"))


@typed
def study_bias(model: AnsweringModel) -> Biased:
    """问“有没有”，偏的数据上对几成 / How often it is right about “whether” on biased data."""
    alike, turned = (accuracy(model, scenes.load("test"), kinds=("whether",), bias=BIAS, turned=turned)
                     for turned in (False, True))
    return Biased(alike, turned)


@typed
def study(variant: str, seed: int, **options: object) -> AnsweringStudies:
    """训练一次，然后测试 / Train once, then test.

    `variant` is one of `VARIANTS`, whose options those given replace. Raises ValueError for an unknown variant.

    `variant` 是 `VARIANTS` 里的一个，给出的选项代替它的。变体未知时报 ValueError。
    """
    checks.one_of(variant, "variant", tuple(VARIANTS))
    learned = learner(seed=seed, device="cpu", **{**VARIANTS[variant], **options}).finish()
    model = learned.model
    return AnsweringStudies(test=accuracy(model, scenes.load("test"), kinds=learned.task.kinds),
                            elsewhere=study_elsewhere(model) if variant == "gates" else None,
                            biased=study_bias(model) if learned.task.bias is not None else None)
