"""读过书的，怎样学会看 / A reader learns to see.

Three parts, as in today's assistants: the frozen eyes of lesson 05, which give each of the four cells a feature (1.1),
a decoder that has only ever read (5.1), and a projector between them (10.2). The decoder reads facts in words (10.1) in
the four places of its prefix and writes the sentence, or answers a question. Then it is frozen, pictures take the place
of the words, and only the projector learns. `LEARNS` says what else may learn.

三个部分，与今天的助手一样：第 05 课的冻结的眼睛，给四格各一个特征 (1.1)；只读过书的解码器 (5.1)；中间一个投影 (10.2)。
解码器在前缀的四个位置读用词写的事实 (10.1)，写出那句话，或者回答一个问题。然后它冻结，图画站到词的位置上，只有投影
在学。还有什么可以学，由 `LEARNS` 说。
"""

import re
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks
from mmcore import tokens as text
from mmcore.checks import shapes
from mmcore.decoder import CausalDecoder, generation_loss
from mmcore.projector import Resampler, attention_mask, masked_attention, nearest_word, project, word_prefix
from mmcore.training import evaluating, make_optimizer
from mmlessons.border import holds, typed
from mmlessons.data import scenes
from mmlessons.data.scenes import ANSWERS, CELLS, LANGUAGES, THINGS, WORDINGS, answers_of
from mmlessons.tasks.image_captioning import STARTS, captions_of, judge, pixel_names, training_set
from mmlessons.tasks.learner import Descent, Learner, Losses, Stages, seeded
from mmlessons.tasks.scoring import best
from mmlessons.tasks.word_order import FEATURE_DIM, Eyes, eyes, look

WIDTH, MAX_TOKENS = 96, 32
READING_STEPS, ANSWERING_STEPS, SEEING_STEPS = 700, 200, 200
NEVER_STEPS = 150  # of a decoder that learns sentences and never a prefix: there is little to learn without facts
SQUEEZING_STEPS = 300
BATCH = 24
READING, ANSWERING, SEEING, SQUEEZING = 4e-3, 2e-3, 3e-3, 4e-3  # rates
DECAY, BETAS = 0.02, (0.9, 0.95)
NOISE = 0.5  # on the features: an unseen artist's lie elsewhere
ASKED = 300  # scenes of a test
KINDS = ("what", "where")  # the questions that the decoder has read
LEARNS = {"projector": "projector.", "positions": "decoder.positions.", "everything": ""}  # how their names begin
VARIANTS = "projector", "positions", "everything", "never read", "no reading"
DRAWN = {"cells": f"int64 N {CELLS}", "language": f"int64 N <{len(LANGUAGES)}",
         "order": f"int64 N <{len(scenes.ORDERS)}"}


# -- the three parts --------------------------------------------------------------------------------------------------

class Reader(CausalDecoder):
    """(5.1) 的解码器，前缀是给它的 / The decoder of (5.1), whose prefix is given to it: x (B, 4, W) and tokens."""

    def __init__(self, vocabulary: int, width: int = WIDTH):
        super().__init__(vocabulary, width, starts=len(STARTS) + 1, width=width, layers=2, heads=6, prefix=CELLS,
                         max_tokens=MAX_TOKENS, one_each=True)
        self.open = nn.Identity()


@typed
class Assistant(nn.Module):
    """读过书的解码器，和它前面的投影 / A decoder that reads, and the projector in front of it.

    `forward(words, f, tokens)` returns named tensors: the same scenes once told in words and once seen.

    `forward(words, f, tokens)` 返回有名字的张量：同样的场景，一次用词告诉它，一次给它看。

    | name | shape | meaning | 含义 |
    |---|---|---|---|
    | `x_read` | (B, 4, W) | a prefix of words (10.1) | 用词写的前缀 (10.1) |
    | `x_seen` | (B, 4, W) | a prefix of pictures (10.2) | 图画的前缀 (10.2) |
    | `L_read`, `L_seen` | | how surprised it is by the sentence | 这句话让它多意外 |
    """

    def __init__(self, feature_dim: int = FEATURE_DIM, width: int = WIDTH):
        super().__init__()
        self.tokenizer = make_tokenizer()
        self.decoder = Reader(self.tokenizer.get_vocab_size(), width)
        self.projector = nn.Linear(feature_dim, width)
        nn.init.normal_(self.projector.weight, std=(feature_dim * width) ** -0.5)  # no larger than words at the start
        nn.init.zeros_(self.projector.bias)
        self.register_buffer("names", name_tokens(self.tokenizer))  # (2, 31, T)

    @shapes(like="projector.weight", words=f"int64 B {CELLS} T", f=f"B {CELLS} D", tokens="int64 B L")
    def forward(self, words: Tensor, f: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        x_read, x_seen = self.read(words), self.see(f)
        L_read = generation_loss(self.decoder.logits(x_read, tokens[:, :-1]), tokens)
        L_seen = generation_loss(self.decoder.logits(x_seen, tokens[:, :-1]), tokens)
        return {"x_read": x_read, "x_seen": x_seen, "L_read": L_read, "L_seen": L_seen}

    def read(self, words: Tensor) -> Tensor:
        """用词写的前缀 / A prefix of words (10.1): (B, 4, T) → (B, 4, W)."""
        return word_prefix(self.decoder.embed.weight, words)

    def see(self, f: Tensor) -> Tensor:
        """图画的前缀 / A prefix of pictures (10.2): (B, 4, D) → (B, 4, W)."""
        return project(f, self.projector.weight, self.projector.bias)

    def spell(self, tokens: list[int]) -> str:
        """词元 → 一句话，到结束为止 / Tokens → a sentence, up to the end: Chinese without spaces."""
        end = tokens.index(self.decoder.end) if self.decoder.end in tokens else len(tokens)
        line = " ".join(self.tokenizer.id_to_token(token) for token in tokens[:end])
        line = re.sub(r"(?<=[一-鿿，。]) | (?=[一-鿿，。,.])", "", line)
        return line[:1].upper() + line[1:]


@cache
def make_tokenizer() -> Tokenizer:
    """认得说明、问题和回答里每个词 / Knows every word of the captions, the questions and the answers."""
    return text.build_tokenizer([*scenes.every_word(), *scenes.questions(), *(x for both in ANSWERS for x in both)])


def name_tokens(tokenizer: Tokenizer) -> Tensor:
    """三十样东西的名字，空格没有 / The names of thirty things, none for the empty cell: (2, 31, T)."""
    names = [[tokenizer.encode(getattr(thing, language)).ids[1:-1] for thing in THINGS] + [[]]
             for language in LANGUAGES]
    longest = max(len(name) for each in names for name in each)
    return torch.tensor([[name + [0] * (longest - len(name)) for name in each] for each in names])


@typed
def word_rows(model: Assistant) -> Tensor:
    """每个词照 (10.1) 写成的一行，最后是空格 / Each word as (10.1) writes it, nothing at the end: (2, 31, W)."""
    with torch.no_grad():
        return model.read(model.names)


@typed
def picture_rows(model: Assistant, f: Tensor) -> Tensor:
    """31 幅图的特征 → 投影 / The features of 31 drawings, projected (10.2): (31, D) → (31, W)."""
    checks.fits(f, "f", "N D", model.projector.weight, N=len(THINGS) + 1, D=model.projector.in_features)
    checks.require(bool(f.isfinite().all()), "f 里有 NaN 或无穷", "f holds NaN or infinity")
    with torch.no_grad():
        return model.see(f.unsqueeze(0)).squeeze(0)


# -- what is said and asked -------------------------------------------------------------------------------------------

@typed
def asked(data: scenes.Scenes, count: int = ASKED, seed: int = 12345) -> dict[str, Tensor]:
    """一次测试的场景，就是 `pixel_grammar` 的那些 / The scenes of a test, those of `pixel_grammar`."""
    return data.draw_to_describe(count, torch.Generator().manual_seed(seed))


def _check_drawn(drawn: Mapping[str, Tensor]) -> None:
    holds(drawn, "drawn", **DRAWN)
    checks.require(bool(((drawn["cells"] >= scenes.EMPTY) & (drawn["cells"] < len(THINGS))).all()),
                   f"drawn['cells'] 需要在 −1（空）与 {len(THINGS) - 1} 之间",
                   f"drawn['cells'] must lie between −1 (empty) and {len(THINGS) - 1}")


@typed
def caption_tokens(model: Assistant, drawn: Mapping[str, Tensor]) -> Tensor:
    """起始词元、词、结束、填充 / Start token, words, end and padding of every caption: (N, L + 1)."""
    _check_drawn(drawn)
    tokens = torch.tensor([row.ids for row in model.tokenizer.encode_batch(captions_of(drawn))])
    tokens[:, :1] = model.decoder.start(drawn["language"] + len(LANGUAGES) * drawn["order"])
    return tokens


def draw_questions(drawn: Mapping[str, Tensor], kind: str, generator: torch.Generator) -> dict[str, Tensor]:
    """每个场景一个问题，问它有的一样东西 / One question for each scene, about one of its things."""
    cells = drawn["cells"]
    place = torch.rand(cells.shape, generator=generator).masked_fill(cells < 0, -1.0).argmax(1)
    thing = cells.gather(1, place.unsqueeze(1)).squeeze(1)
    about, value = (place, thing) if kind == "what" else (thing, place)
    wording = torch.randint(WORDINGS, about.shape, generator=generator)
    return {"kind": torch.full_like(about, scenes.KINDS.index(kind)), "about": about, "wording": wording,
            "language": drawn["language"], "answer": value + answers_of(kind).start}


def question_tokens(model: Assistant, drawn: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """起始、问题、回答、结束；和只留回答的 / Start, question, answer, end; and the same with only the answer kept.

    Two tensors (N, L + 1). The second is what has to be written: padding stands where the question was.

    两个张量 (N, L + 1)。第二个是要写的，问题那几个位置是填充。
    """
    said, rows, wanted = scenes.questions(), [], []
    columns = (scenes.question_number(drawn).tolist(), drawn["answer"].tolist(), drawn["language"].tolist())
    for question, answer, language in zip(*columns, strict=True):
        first = [start_of_question(model), *model.tokenizer.encode(said[question]).ids[1:-1]]
        last = model.tokenizer.encode(ANSWERS[answer][language]).ids[1:]
        rows.append(first + last)
        wanted.append([0] * len(first) + last)
    longest = max(len(row) for row in rows)
    return tuple(torch.tensor([row + [0] * (longest - len(row)) for row in each]) for each in (rows, wanted))


def start_of_question(model: Assistant) -> int:
    """问题的起始词元，在说明的四个之后 / The start token of a question, after the four of captions."""
    return model.decoder.vocabulary + len(STARTS)


# -- how they learn ---------------------------------------------------------------------------------------------------

class FactReading:
    """解码器读用词写的事实，学写句子和回答 / The decoder reads facts in words and learns sentences and answers.

    `questions` scenes of each step come with a question. With `hidden` the facts are withheld: the prefix is 0.

    每一步有 `questions` 个场景带一个问题。`hidden`：不给事实，前缀是 0。
    """

    def __init__(self, model: Assistant, captions: int, questions: int, rate: float, hidden: bool = False):
        self.model, self.captions, self.questions = model, captions, questions
        self.rate, self.hidden = rate, hidden

    def begin(self, device: torch.device) -> Descent:
        return Descent(self.model, _optimizer(self.model.decoder, self.rate, DECAY), self.losses, "L")

    def step(self, trainer: Descent, generator: torch.Generator) -> Losses:
        drawn = training_set().draw_to_describe(self.captions, generator)
        batch = {"words": self._words(drawn, generator), "tokens": caption_tokens(self.model, drawn)}
        if self.questions:
            drawn = training_set().draw_to_describe(self.questions, generator)
            asked = [draw_questions({name: x[k::2] for name, x in drawn.items()}, kind, generator)
                     for k, kind in enumerate(KINDS)]
            together = {name: torch.cat([each[name] for each in asked]) for name in asked[0]}
            words = self._words(drawn, generator)
            batch["asked"], batch["wanted"] = question_tokens(self.model, together)
            batch["about"] = torch.cat([words[k::2] for k in range(len(KINDS))])
        return trainer.train_step(batch)

    def _words(self, drawn: Mapping[str, Tensor], generator: torch.Generator) -> Tensor:
        """The names of what is in the four cells, each scene in a language of its own: (N, 4, T)."""
        language = torch.randint(len(LANGUAGES), (len(drawn["cells"]), 1), generator=generator)
        return self.model.names[language, drawn["cells"] % (len(THINGS) + 1)]

    def losses(self, model: Assistant, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        words, tokens = batch["words"], batch["tokens"]
        x = model.read(words * (not self.hidden))
        L = generation_loss(model.decoder.logits(x, tokens[:, :-1]), tokens)
        if "asked" not in batch:
            return {"L": L}
        logits = model.decoder.logits(model.read(batch["about"]), batch["asked"][:, :-1])
        return {"L": L + generation_loss(logits, batch["wanted"])}


def _optimizer(module: nn.Module, rate: float, decay: float) -> torch.optim.AdamW:
    optimizer = make_optimizer(module, rate, decay)
    for group in optimizer.param_groups:
        group["betas"] = BETAS
    return optimizer


@typed
def reading(steps: int = READING_STEPS, answering: int = ANSWERING_STEPS, seed: int = 0,
            hidden: bool = False) -> Stages:
    """先读说明，再读问答；`hidden` 从不给事实 / First reads captions, then questions too; `hidden` never gives facts.

    Raises TypeError or ValueError for a wrong number of steps or seed.

    步数或种子不对时报 TypeError 或 ValueError。
    """
    checks.whole(steps, "steps")
    checks.whole(answering, "answering", 0)

    def begin() -> tuple[Assistant, list[Learner]]:
        with seeded(seed):
            model = Assistant()
        generator = torch.Generator().manual_seed(seed)
        first = FactReading(model, BATCH, 0, READING, hidden)
        stages = [Learner(first, steps, seed, "cpu", draws=generator)]
        if answering:
            second = FactReading(model, BATCH // 2, BATCH, ANSWERING)
            stages.append(Learner(second, answering, seed, "cpu", draws=generator))
        return model, stages

    return Stages(begin)


class Seeing:
    """图画站到词的位置上；`learns` 说这一步谁在学 / Pictures take the place of words; `learns` says who learns now.

    It works on a copy of the model, with a projector that has learned nothing yet.

    在模型的一个副本上学，投影是新的。
    """

    def __init__(self, model: Assistant, looking: Eyes):
        self.read, self.looking = model, looking

    def begin(self, device: torch.device) -> Descent:
        model, fresh = deepcopy(self.read), Assistant()
        model.projector.load_state_dict(fresh.projector.state_dict())
        return Descent(model, _optimizer(model, SEEING, 0.0), self.losses, "L")

    def step(self, trainer: Descent, generator: torch.Generator, learns: str = "projector",
             noise: float = NOISE) -> Losses:
        free = LEARNS[checks.one_of(learns, "learns", tuple(LEARNS))]
        for name, parameter in trainer.model.named_parameters():
            parameter.requires_grad_(name.startswith(free))
        drawn = training_set().draw_to_describe(BATCH, generator)
        f = varied(self.looking, drawn["cells"], generator, checks.not_negative(noise, "noise"))
        return trainer.train_step({"f": f, "tokens": caption_tokens(trainer.model, drawn)})

    def losses(self, model: Assistant, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        f, tokens = batch["f"], batch["tokens"]
        logits = model.decoder.logits(model.see(f), tokens[:, :-1])
        return {"L": generation_loss(logits, tokens)}


def varied(looking: Eyes, cells: Tensor, generator: torch.Generator, noise: float) -> Tensor:
    """这些格的特征，取自训练图画，加噪声 / The features of cells, of training drawings, with noise: (N, 4, D)."""
    things = len(THINGS) + 1
    which = torch.randint(len(looking.seen) // things, cells.shape, generator=generator)
    f = looking.seen[cells % things + things * which]
    return f + noise * torch.randn(f.shape, generator=generator)


@typed
def seeing(model: Assistant, looking: Eyes, steps: int = SEEING_STEPS, seed: int = 0) -> Learner:
    """看图学说明：`train_step(learns=…, noise=…)` / Learns captions from pictures: `train_step(learns=…, noise=…)`.

    The features come from training drawings, and no question is ever asked. Raises TypeError or ValueError for a wrong
    number of steps or seed.

    特征来自训练图画，从不提问题。步数或种子不对时报 TypeError 或 ValueError。
    """
    return Learner(Seeing(model, looking), steps, seed, "cpu")


@typed
def least_squares(model: Assistant, looking: Eyes, pull: float = 100.0) -> Assistant:
    """不训练的投影：告诉它每幅图的名字，求最小二乘 / A projector without training, by least squares.

    It is told the name of every training drawing: W f + b is to be the mean of its words in both languages. `pull` is
    the weight of the squares of W (ridge regression).

    告诉它每幅训练图画的名字：W f + b 要等于它在两种语言里的词的平均。`pull` 是 W 的平方的权重（岭回归）。
    """
    checks.not_negative(pull, "pull")
    model, f = deepcopy(model), looking.seen.double()
    wanted = word_rows(model).double().mean(0)
    centre, target = f.mean(0), wanted.repeat(len(f) // len(wanted), 1)
    mean = target.mean(0)
    square = (f - centre).T @ (f - centre) + pull * torch.eye(f.shape[1], dtype=f.dtype)
    W = torch.linalg.solve(square, (f - centre).T @ (target - mean)).T
    with torch.no_grad():
        model.projector.weight.copy_(W)
        model.projector.bias.copy_(mean - W @ centre)
    return model


# -- m tokens instead of four -----------------------------------------------------------------------------------------

class Squeezed(nn.Module):
    """m 个查询看遍四格，解码器只读这 m 个 / m queries look at the four cells, and the decoder reads only these m."""

    def __init__(self, assistant: Assistant, queries: int):
        super().__init__()
        self.assistant = assistant
        self.resampler = Resampler(assistant.projector.in_features, assistant.decoder.embed.embedding_dim, queries,
                                   CELLS)

    def see(self, f: Tensor) -> Tensor:
        """(10.6)，空着的位置是 0 / (10.6), with 0 in the places that are left: (B, 4, D) → (B, 4, W)."""
        x = self.resampler(f)
        return F.pad(x, (0, 0, 0, CELLS - x.shape[1]))


class Squeezing(Seeing):
    """重采样器和解码器一起学 / Resampler and decoder learn together."""

    def __init__(self, model: Assistant, looking: Eyes, queries: int):
        super().__init__(model, looking)
        self.queries = checks.whole(queries, "queries")
        checks.require(self.queries <= CELLS, f"queries 至多 {CELLS}，收到 {queries}",
                       f"queries may be {CELLS} at most, got {queries}")

    def begin(self, device: torch.device) -> Descent:
        model = Squeezed(deepcopy(self.read), self.queries)
        return Descent(model, _optimizer(model, SQUEEZING, 0.0), self.losses, "L")

    def step(self, trainer: Descent, generator: torch.Generator) -> Losses:
        drawn = training_set().draw_to_describe(BATCH, generator)
        return trainer.train_step({"f": varied(self.looking, drawn["cells"], generator, NOISE),
                                   "tokens": caption_tokens(self.read, drawn)})

    def losses(self, model: Squeezed, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        tokens = batch["tokens"]
        logits = model.assistant.decoder.logits(model.see(batch["f"]), tokens[:, :-1])
        return {"L": generation_loss(logits, tokens)}


@typed
def squeezing(model: Assistant, looking: Eyes, queries: int, steps: int = SQUEEZING_STEPS, seed: int = 0) -> Learner:
    """m 个词元能装下什么：解码器从读过的接着学 / What m tokens can hold: the decoder goes on from what it has read."""
    return Learner(Squeezing(model, looking, queries), steps, seed, "cpu")


# -- what is tested ---------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Scores:
    """N 个场景的成绩，各一个 / The scores of N scenes, one each."""

    exact: Tensor  # (N,) bool: the sentence is right to the letter
    token: Tensor  # (N,) the share of its next words that are right, given the right ones before
    what: Tensor  # (N,) bool: “What is at the top left?” is answered right
    where: Tensor  # (N,) bool: “Where is the dog?”


def _questions(drawn: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """The questions of a test, the same for all who are asked."""
    return draw_questions(drawn, kind, torch.Generator().manual_seed(7))


@typed
def scores(model: Assistant, x: Tensor, drawn: Mapping[str, Tensor]) -> Scores:
    """前缀是 x 时写得、答得怎样 / How well it writes and answers with the prefix x: (N, 4, W)."""
    _check_drawn(drawn)
    checks.fits(x, "x", "N n W", model.decoder.embed.weight, N=len(drawn["cells"]), n=CELLS,
                W=model.decoder.embed.embedding_dim)
    tokens, answers = caption_tokens(model, drawn), {}
    with evaluating(model):
        exact, token = judge(model.decoder.logits(x, tokens[:, :-1]), tokens)
        for kind in KINDS:
            asked, wanted = question_tokens(model, _questions(drawn, kind))
            answers[kind] = judge(model.decoder.logits(x, asked[:, :-1]), wanted)[0]
    return Scores(exact, token, **answers)


@typed
def placed(rows: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
    """31 行放进每个场景的四格 / 31 rows put into the four cells of each scene: (31, W), (N, 4) → (N, 4, W)."""
    checks.fits(rows, "rows", "M W", M=len(THINGS) + 1)
    _check_drawn(drawn)
    return rows[drawn["cells"] % len(rows)]


@dataclass(frozen=True)
class SqueezedScores:
    """m 个词元装下了什么 / What m tokens held."""

    exact: Tensor  # (N,) bool: the sentence is right to the letter
    weights: Tensor  # (m, 4) where each query looks, on average


@typed
def squeezed(model: Squeezed, f: Tensor, drawn: Mapping[str, Tensor]) -> SqueezedScores:
    """m 个词元时写得怎样 / How well it writes from m tokens: features (31, D) of one artist's drawings."""
    cells = placed(f, drawn)
    with evaluating(model):
        x, weights = model.see(cells), model.resampler.weights(cells).mean(0)
    return SqueezedScores(scores(model.assistant, x, drawn).exact, weights)


@dataclass(frozen=True)
class Nearest:
    """三十样东西，最近的词对不对 / Of thirty things, whether the nearest word is the right one: (30,) bool each."""

    zh: Tensor
    en: Tensor


@typed
def nearest(model: Assistant, f: Tensor) -> Nearest:
    """投影以后离哪个词最近 (10.3) / To which word each drawing is nearest (10.3): (31, D) → whether it is its own."""
    x, things = picture_rows(model, f)[:len(THINGS)], torch.arange(len(THINGS))
    return Nearest(*(nearest_word(x, e[:len(THINGS)]) == things for e in word_rows(model)))


@typed
def by_rule(data: scenes.Scenes, drawn: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """像素近邻给每格起名，再照问题找 / The pixel neighbour names every cell, and the question is looked up: (N,) each.

    It learns nothing and is given the meaning of both questions. Where no cell has the name asked for, it says the
    first place.

    什么也不学，两种问题的意思是给它的。没有一格叫那个名字时，它说第一个位置。
    """
    _check_drawn(drawn)
    names, found = pixel_names(data, crop=True)[0][drawn["cells"] % (len(THINGS) + 1)], {}
    for kind in KINDS:
        asked = _questions(drawn, kind)
        if kind == "what":
            said = names.gather(1, asked["about"].unsqueeze(1)).squeeze(1)
        else:
            said = (names == asked["about"].unsqueeze(1)).int().argmax(1)
        found[kind] = said == asked["answer"] - answers_of(kind).start
    return found


# -- sentences and answers --------------------------------------------------------------------------------------------

@typed
def say(model: Assistant, x: Tensor, language: str, order: str = "reading") -> str:
    """看着前缀说一句，贪心 / Say a sentence for a prefix (4, W), greedily."""
    checks.one_of(language, "language", LANGUAGES)
    checks.one_of(order, "order", scenes.ORDERS)
    return _written(model, x, [model.decoder.vocabulary + STARTS.index((language, order))])


@typed
def answer(model: Assistant, x: Tensor, question: str) -> str:
    """看着前缀回答，贪心 / Answer a question for a prefix (4, W), greedily. ValueError for a word it never read."""
    text.check_texts([question])
    text.check_known(model.tokenizer, question)
    return _written(model, x, [start_of_question(model), *model.tokenizer.encode(question).ids[1:-1]])


def _written(model: Assistant, x: Tensor, given: list[int]) -> str:
    checks.fits(x, "x", "n W", model.decoder.embed.weight, n=CELLS, W=model.decoder.embed.embedding_dim)
    checks.require(len(given) < MAX_TOKENS, f"问题至多 {MAX_TOKENS - 2} 个词元",
                   f"a question may have {MAX_TOKENS - 2} tokens at most")
    tokens = list(given)
    with evaluating(model):
        while len(tokens) < MAX_TOKENS and tokens[-1] != model.decoder.end:
            logits = model.decoder.logits(x.unsqueeze(0), torch.tensor([tokens]))[:, -1]
            tokens.append(int(best(logits, "logits")))
    return model.spell(tokens[len(given):])


# -- who looks at whom ------------------------------------------------------------------------------------------------

def _checked(model: Assistant, x: Tensor, tokens: Tensor) -> CausalDecoder:
    """The decoder, once prefix and tokens are such as it takes."""
    decoder = model.decoder
    checks.fits(x, "x", "n W", decoder.embed.weight, n=CELLS, W=decoder.embed.embedding_dim)
    checks.fits(tokens, "tokens", "int64 L")
    decoder.check_tokens(tokens.unsqueeze(0))
    return decoder


@typed
def attention(model: Assistant, x: Tensor, tokens: Tensor, kind: str = "causal") -> tuple[Tensor, Tensor]:
    """照 (10.4) 重算每一层 / Every layer computed again by (10.4): A (layers, heads, n + L, n + L), logits (L, V).

    With `kind="causal"` the logits are those of the decoder. `x` is (4, W), `tokens` (L,).

    `kind="causal"` 时，logits 就是解码器的那些。`x` 是 (4, W)，`tokens` 是 (L,)。
    """
    decoder, weights = _checked(model, x, tokens), []
    M = attention_mask(CELLS + len(tokens), CELLS, kind)
    h = torch.cat([x, decoder.embed(tokens)]) + decoder.positions.weight[:len(M)]  # (n + L, W)
    for block in decoder.blocks:
        Q, K, V = block.qkv(block.before_attention(h)).view(len(h), 3, block.heads, -1).permute(1, 2, 0, 3)
        Y, A = masked_attention(Q, K, V, M)  # (heads, n + L, W / heads)
        h = h + block.out(Y.transpose(0, 1).flatten(1))
        h = h + block.network(block.before_network(h))
        weights.append(A)
    h = decoder.normalise(h[CELLS:])
    return torch.stack(weights), F.linear(h, decoder.embed.weight[:decoder.vocabulary], decoder.bias)


@typed
def reach(model: Assistant, x: Tensor, tokens: Tensor) -> Tensor:
    """每个词元的得分随哪几个位置而变 / On which places the scores of each token depend: (L, n + L) bool, by gradients.

    Nothing is said of masks here: the decoder itself is asked.

    这里没有说到掩码，问的是解码器本身。
    """
    decoder = _checked(model, x, tokens)
    checks.require(bool(x.isfinite().all()), "x 里有 NaN 或无穷", "x holds NaN or infinity")
    inside = torch.cat([x, decoder.embed(tokens)]).detach().requires_grad_()
    h = (inside + decoder.positions.weight[:len(inside)]).unsqueeze(0)
    for block in decoder.blocks:
        h = block(h)
    rows = decoder.normalise(h[0, CELLS:]) @ torch.randn(h.shape[2], generator=torch.Generator().manual_seed(0))
    return torch.stack([torch.autograd.grad(row, inside, retain_graph=True)[0].abs().amax(1) > 0 for row in rows])


# -- the studies of the lesson ----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class SeeingStudies:
    """一个种子的各项成绩 / What one seed gave."""

    words: Scores  # facts in words, before any picture
    untrained: Scores  # pictures through a projector that has learned nothing
    blind: Scores  # a prefix of 0
    least_squares: Scores  # the projector of `least_squares`
    learned: dict[str, Scores]  # by variant
    shift: dict[str, Scores]  # "projector" and "everything" with an artist of quite another style
    nearest: dict[str, Nearest]  # "projector", and "least squares"
    afterwards: Scores  # facts in words once more, told to "everything" when it has learned from pictures
    seconds: float  # of processor time for the training of "projector"


@typed
def study_of(model: Assistant, looking: Eyes, seed: int, steps: int = SEEING_STEPS) -> SeeingStudies:
    """一个读过书的解码器，看图以后怎样 / What becomes of a decoder that has read, in each of `VARIANTS`.

    "never read" learned sentences and never saw a prefix; "no reading" learned nothing before, and everything learns.

    "never read" 学过句子，没见过前缀；"no reading" 事先什么也没学，全都在学。
    """
    checks.whole(steps, "steps")
    f, elsewhere = (look(looking, scenes.load(role)) for role in ("test", "shift"))
    drawn = asked(scenes.load("test"))

    def tested(model: Assistant, f: Tensor = f) -> Scores:
        return scores(model, placed(picture_rows(model, f), drawn), drawn)

    begun = time.process_time()
    projected = seeing(model, looking, steps, seed).finish().model
    seconds = time.process_time() - begun
    never = reading(min(steps, NEVER_STEPS), 0, seed, hidden=True).finish().model
    with seeded(seed):
        nothing = Assistant()
    everything = seeing(model, looking, steps, seed).finish(learns="everything").model
    learned = {"projector": tested(projected),
               "positions": tested(seeing(model, looking, steps, seed).finish(learns="positions").model),
               "everything": tested(everything),
               "never read": tested(seeing(never, looking, steps, seed).finish().model),
               "no reading": tested(seeing(nothing, looking, steps, seed).finish(learns="everything").model)}
    facts, known = placed(word_rows(model)[1], drawn), least_squares(model, looking)
    return SeeingStudies(
        scores(model, facts, drawn), tested(seeing(model, looking, steps, seed).model),
        scores(model, torch.zeros_like(facts), drawn), tested(known), learned,
        {"projector": tested(projected, elsewhere), "everything": tested(everything, elsewhere)},
        {"projector": nearest(projected, f), "least squares": nearest(known, f)},
        scores(everything, placed(word_rows(everything)[1], drawn), drawn), seconds)


@typed
def study(seed: int, reading_steps: int = READING_STEPS, answering: int = ANSWERING_STEPS,
          steps: int = SEEING_STEPS) -> SeeingStudies:
    """眼睛和解码器从头学，再 `study_of` / Eyes and decoder learn from the start, then `study_of`.

    Raises TypeError or ValueError for a wrong number of steps or seed.

    步数或种子不对时报 TypeError 或 ValueError。
    """
    checks.whole(steps, "steps")
    return study_of(reading(reading_steps, answering, seed).finish().model, eyes(seed, device="cpu"), seed, steps)
