"""看图说话 / Image captioning.

The picture is cut into four cells with a visual feature each (1.1); the four features stand in front of the sentence,
the prefix of the decoder (5.1), and the sentence follows token by token. The start token says in which language and in
which order to speak.

图画切成四格，每格一个视觉特征 (1.1)；四个特征排在句子前面，成为解码器的前缀 (5.1)，句子一个词元一个词元地接在后面。
用哪种语言、按哪种次序说，由起始词元决定。
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks
from mmcore import tokens as text
from mmcore.checks import shapes
from mmcore.decoder import CausalDecoder, generation_loss
from mmcore.encoders import VisualEncoder
from mmcore.training import choose_device, device_of, evaluating, make_optimizer
from mmlessons.border import check_pictures, holds, typed
from mmlessons.data import scenes
from mmlessons.data.augment import augment
from mmlessons.tasks.learner import Descent, Learner, Losses, Stages, seeded
from mmlessons.tasks.pixels import pixel_similarity
from mmlessons.tasks.scoring import best

FEATURE_DIM, WIDTH = 128, 96
MAX_TOKENS = 32
NAMING_STEPS, CAPTION_STEPS = 300, 1000
BATCH = 24
RATES = 6e-3, 4e-3  # of the encoder, of the decoder
DECAY = 0.3, 0.02  # the same
SMOOTHING = 0.1  # of the names in the first stage: surer is not better with an unseen artist
NOISE = 1.0  # on the features in the second stage, as large as their own variation: an unseen artist's lie elsewhere
BETAS = 0.9, 0.95  # of the decoder's AdamW: few steps, so that old gradients are better forgotten sooner
DRAWINGS = 4  # of every thing in one step of naming
COMPARED = 100  # captions of a test that chrF looks at: those that are wrong have to be written for it
KEPT = 96  # drawings of every thing whose features the second stage draws from
STARTS = [(language, order) for order in scenes.ORDERS for language in scenes.LANGUAGES]
DRAWN = {"cells": f"int64 N {scenes.CELLS}", "language": f"int64 N <{len(scenes.LANGUAGES)}",
         "order": f"int64 N <{len(scenes.ORDERS)}"}  # what `draw_to_describe` gives, as far as a sentence needs it
TEMPERATURES = 0.5, 1.0, 2.0
VARIANTS = {  # what a training of the lesson differs in
    "two stages": {},
    "one stage, told": {"naming_steps": 0, "caption_steps": 800, "told": True},  # the processor time of both stages
    "one stage": {"naming_steps": 0, "caption_steps": 800},
    "blind": {"withhold": 1.0, "naming_steps": 1, "caption_steps": 200},  # what it could name, it never sees
}
_NAMES = re.compile("|".join(
    [thing.zh for thing in scenes.THINGS] + [rf"\b{thing.en}\b" for thing in scenes.THINGS]))


# -- the model --------------------------------------------------------------------------------------------------------

@typed
class CaptioningModel(nn.Module):
    """看图说话的模型 / The model that describes.

    `forward(image, tokens)` returns named tensors; for `tokens` see `tokens_of`. Methods raise TypeError or ValueError
    for a wrong picture (`check_pictures`), and for a wrong language, order, feature, temperature, number of beams or λ.

    `forward(image, tokens)` 返回有名字的张量；`tokens` 见 `tokens_of`。图画（见 `check_pictures`）、语言、次序、
    特征、温度、束宽、λ 不符时，各方法报 TypeError 或 ValueError。

    | name | shape | meaning | 含义 |
    |---|---|---|---|
    | `f_v` | (B, 4, D) | visual features of the cells, the v of (5.1) | 每格的视觉特征，就是 (5.1) 的 v |
    | `z` | (B, 4, 31) | which thing is in every cell, the last one is none | 每格是哪样东西，最后一个是空 |
    | `logits` | (B, L, V) | scores of the next token | 下一个词元的得分 |
    """

    def __init__(self, feature_dim: int = FEATURE_DIM, width: int = WIDTH, tokenizer: Tokenizer | None = None):
        super().__init__()
        self.tokenizer = tokenizer or make_tokenizer()
        self.visual_encoder = VisualEncoder(feature_dim)
        self.namer = nn.Linear(feature_dim, len(scenes.THINGS) + 1)
        self.decoder = CausalDecoder(
            self.tokenizer.get_vocab_size(), feature_dim, starts=len(STARTS), width=width, layers=2, heads=6,
            prefix=scenes.CELLS, max_tokens=MAX_TOKENS, one_each=True)

    @shapes(like="namer.weight", image="B 3 64 64", tokens="int64 B L")
    def forward(self, image: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        f_v = self.see(image)
        return {"f_v": f_v, "z": self.namer(f_v), "logits": self.decoder(f_v, tokens)}

    def see(self, image: Tensor) -> Tensor:
        """整幅图画的四个特征 / The four features of whole pictures: (B, 3, 64, 64) → (B, 4, D)."""
        return self.visual_encoder(scenes.split(image).flatten(0, 1)).view(len(image), scenes.CELLS, -1)

    @typed
    def look(self, picture: Tensor | None) -> Tensor:
        """一幅图画的特征；不给图画，全是 0 / The features of one picture, 0 without one: (3, 64, 64) → (1, 4, D)."""
        device = device_of(self)
        if picture is None:
            return torch.zeros(1, scenes.CELLS, self.namer.in_features, device=device)
        check_pictures(picture, "picture", 3, 2 * scenes.SIZE, 2 * scenes.SIZE)
        with evaluating(self):
            return self.see(picture[None].to(device) / 255)

    @typed
    def start(self, language: str, order: str = "reading") -> Tensor:
        """哪个起始词元 / Which start token: (1,)."""
        checks.one_of(language, "language", scenes.LANGUAGES)
        checks.one_of(order, "order", scenes.ORDERS)
        return torch.tensor([STARTS.index((language, order))], device=device_of(self))

    @typed
    def say(self, f_v: Tensor, language: str, order: str = "reading", temperature: float = 0.0,
            generator: torch.Generator | None = None) -> "Said":
        """看着特征说一句，贪心或采样 / Say a sentence for features (1, 4, D): greedily, or sampled as in `generate`."""
        start = self._start(f_v, language, order)
        return self._said(f_v, start, self.decoder.generate(f_v, start, temperature, generator)[0])[0]

    @typed
    def choices(self, f_v: Tensor, language: str, order: str = "reading", beams: int = 4,
                length_power: float = 0.0) -> list["Said"]:
        """束搜索找到的几句，最好的在前 / The sentences that beam search (5.2) finds, the best first."""
        start = self._start(f_v, language, order)
        return self._said(f_v, start, self.decoder.search(f_v, start, beams, length_power)[0][0])

    def _start(self, f_v: Tensor, language: str, order: str) -> Tensor:
        checks.require(bool(f_v.isfinite().all()), "f_v 里有 NaN 或无穷，说不出话", "f_v holds NaN or infinity and "
                       "cannot be described")
        return self.start(language, order)

    def _said(self, f_v: Tensor, start: Tensor, tokens: Tensor) -> list["Said"]:
        given = torch.cat([self.decoder.start(start).expand(len(tokens), -1), tokens], 1)
        with evaluating(self):
            p = self.decoder(f_v.expand(len(tokens), -1, -1), given[:, :-1]).softmax(2)  # (beams, L, V)
        own = p.gather(2, tokens.unsqueeze(2)).squeeze(2)
        rival, other = p.scatter(2, tokens.unsqueeze(2), 0.0).max(2)
        found = []
        for row, line in enumerate(tokens.tolist()):
            end = line.index(self.decoder.end) + 1 if self.decoder.end in line else len(line)
            steps = [(self._word(line[k]), own[row, k].item(), self._word(int(other[row, k])), rival[row, k].item())
                     for k in range(end)]
            found.append(Said(self.spell(tokens[row]), own[row, :end].log().sum().item(), steps))
        return found

    def _word(self, token: int) -> str:
        return "■" if token == self.decoder.end else self.tokenizer.id_to_token(token)

    @shapes(tokens="int64 L")
    def words(self, tokens: Tensor) -> list[str]:
        """词元 → 词和字，到结束为止 / Tokens → words and characters, up to the end."""
        checks.require(bool(((tokens >= 0) & (tokens < self.decoder.vocabulary)).all()),
                       f"tokens 需要在 0 到 {self.decoder.vocabulary - 1} 之间",
                       f"tokens must lie between 0 and {self.decoder.vocabulary - 1}")
        found = []
        for token in tokens.tolist():
            if token == self.decoder.end:
                break
            found.append(self.tokenizer.id_to_token(token))
        return [word for word in found if word != text.PAD]

    def spell(self, tokens: Tensor) -> str:
        """词元 → 一句话 / Tokens → a sentence: Chinese without spaces, English with a capital."""
        line = re.sub(r"(?<=[一-鿿，。]) | (?=[一-鿿，。,.])", "", " ".join(self.words(tokens)))
        return line[:1].upper() + line[1:]


@dataclass(frozen=True)
class Said:
    """说的一句话 / A sentence that was said."""

    sentence: str
    log_p: float
    steps: list[tuple[str, float, str, float]]  # each token, its p, the best rival and its p; ■ is the end


def make_tokenizer() -> Tokenizer:
    """认得说明里每个词的分词器 / A tokenizer that knows every word of the captions."""
    return text.build_tokenizer(scenes.every_word())


@typed
def captions_of(drawn: Mapping[str, Tensor]) -> list[str]:
    """`draw_to_describe` 的每个场景该怎样说 / What is to be said of each scene of `draw_to_describe`."""
    holds(drawn, "drawn", **DRAWN)
    columns = (drawn[name].tolist() for name in DRAWN)
    return [scenes.caption(cells, scenes.LANGUAGES[language], scenes.ORDERS[order])
            for cells, language, order in zip(*columns, strict=True)]


@typed
def tokens_of(model: CaptioningModel, drawn: Mapping[str, Tensor]) -> Tensor:
    """每个场景的起始词元、词、结束、填充 / Start token, words, end and padding of every scene: (N, L + 1)."""
    tokens = torch.tensor([row.ids for row in model.tokenizer.encode_batch(captions_of(drawn))])
    tokens[:, :1] = model.decoder.start(drawn["language"] + len(scenes.LANGUAGES) * drawn["order"])
    return tokens


# -- what is learned --------------------------------------------------------------------------------------------------

@cache
def training_set() -> scenes.Scenes:
    """五位作者的画 / The drawings of five artists."""
    return scenes.load("train")


def draw_tiles(drawings: int, generator: torch.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
    """每样东西几幅随机变化过的画，空格也是 / Some drawings of each thing, changed at random; and of the empty cell."""
    tiles = training_set().with_empty
    thing = torch.arange(tiles.shape[1]).repeat(drawings)
    artist = torch.randint(len(tiles), thing.shape, generator=generator)
    return augment(tiles[artist, thing] / 255, generator).to(device), thing.to(device)


def naming_loss(z: Tensor, thing: Tensor) -> Tensor:
    """交叉熵，标签略加平滑 / Cross-entropy with label smoothing: (N, 31), (N,) → ()."""
    return F.cross_entropy(z, thing, label_smoothing=SMOOTHING)


class CellNaming:
    """第一段：编码器学认出每一格是什么 / Stage one: the encoder learns to say what is in a cell."""

    def __init__(self, model: CaptioningModel):
        self.model, self._features = model, None
        self.recogniser = nn.ModuleList([model.visual_encoder, model.namer])

    def begin(self, device: torch.device) -> Descent:
        self.device = device
        return Descent.of(self.recogniser, self.losses, RATES[0], DECAY[0], total="L")

    def step(self, trainer: Descent, generator: torch.Generator, withhold: float = 0.0) -> Losses:
        checks.share(withhold, "withhold")  # which acts in the second stage
        self._features = None
        tiles, thing = draw_tiles(DRAWINGS, generator, self.device)
        return trainer.train_step({"tiles": tiles, "thing": thing})

    def losses(self, recogniser: nn.ModuleList, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        encoder, namer = recogniser
        L_name = naming_loss(namer(encoder(batch["tiles"])), batch["thing"])
        return {"L_name": L_name, "L": L_name}

    def features(self, generator: torch.Generator) -> Tensor:
        """学完以后的特征，每样东西 `KEPT` 幅 / The features once it has learned, of `KEPT` drawings of each thing."""
        if self._features is None:
            with evaluating(self.model):
                self._features = torch.cat([
                    self.model.visual_encoder(draw_tiles(DRAWINGS, generator, self.device)[0])
                    for _ in range(KEPT // DRAWINGS)])
        return self._features


class Describing:
    """第二段：解码器学说话 / Stage two: the decoder learns to speak.

    The encoder is frozen, so that features need to be computed once only: from those of `naming` each step puts its
    scenes together, with noise, since the features of an unseen artist lie elsewhere. Without `naming` this is a single
    stage: encoder and decoder learn together, from captions only, or with `told` from the thing in each cell as well.
    `withhold` is the share of scenes whose picture is withheld: their features are 0.

    编码器冻结，特征就只需算一次：每一步从 `naming` 存下的特征里拼场景，再加上噪声，因为没见过的作者的特征会落在别处。
    没有 `naming` 就只有一段：编码器和解码器一起，跟着说明学；有 `told` 时，每格是什么也告诉它。`withhold` 是不给看图的
    场景占几成，它们的特征是 0。
    """

    def __init__(self, model: CaptioningModel, naming: CellNaming | None, batch: int = BATCH, told: bool = False):
        self.model, self.naming, self.batch, self.told = model, naming, batch, told

    def begin(self, device: torch.device) -> Descent:
        self.device = device
        optimizer = make_optimizer(self.model.decoder, RATES[1], DECAY[1])
        for group in optimizer.param_groups:
            group["betas"] = BETAS
        if self.naming is not None:
            return Descent(self.model.decoder, optimizer, self.losses, "L")
        for group in CellNaming(self.model).begin(device).optimizer.param_groups:  # the encoder learns in its own way
            optimizer.add_param_group({name: group[name] for name in ("params", "lr", "weight_decay", "betas")})
        return Descent(self.model, optimizer, self.losses, "L")

    def step(self, trainer: Descent, generator: torch.Generator, withhold: float = 0.0) -> Losses:
        checks.share(withhold, "withhold")
        return trainer.train_step(self.draw(generator, withhold))

    def draw(self, generator: torch.Generator, withhold: float) -> dict[str, Tensor]:
        """一步要用的场景和说明 / The scenes and captions of one step."""
        drawn, things = training_set().draw_to_describe(self.batch, generator), len(scenes.THINGS) + 1
        blind = torch.rand(self.batch, generator=generator) < withhold
        drawings = DRAWINGS // 2 if self.naming is None else KEPT
        which = torch.randint(drawings, drawn["cells"].shape, generator=generator)
        batch = {"blind": blind, "cells": drawn["cells"] % things + things * which,
                 "tokens": tokens_of(self.model, drawn)}
        if self.naming is None:
            batch["tiles"], batch["thing"] = draw_tiles(drawings, generator, self.device)
        else:
            batch["seen"] = self.naming.features(generator)
            batch["noise"] = torch.randn(*which.shape, FEATURE_DIM, generator=generator) * NOISE
        return {name: x.to(self.device) for name, x in batch.items()}

    def losses(self, _: nn.Module, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self.naming is None:
            seen = self.model.visual_encoder(batch["tiles"])
            f_v = seen[batch["cells"]]
        else:
            f_v = batch["seen"][batch["cells"]] + batch["noise"]
        f_v = f_v.masked_fill(batch["blind"].view(-1, 1, 1), 0.0)
        L_caption = generation_loss(self.model.decoder(f_v, batch["tokens"][:, :-1]), batch["tokens"])
        if not self.told:
            return {"L_caption": L_caption, "L": L_caption}
        L_name = naming_loss(self.model.namer(seen), batch["thing"])
        return {"L_caption": L_caption, "L_name": L_name, "L": L_caption + L_name}


@typed
def learner(naming_steps: int = NAMING_STEPS, caption_steps: int = CAPTION_STEPS, seed: int = 0, batch: int = BATCH,
            device: str | torch.device | None = None, told: bool = False) -> Stages:
    """先学认，再学说；`naming_steps=0` 只有一段 / Learns to recognise, then to speak; one stage if `naming_steps=0`.

    A step gives {"L_name", "L"} in the first stage, {"L_caption", "L"} in the second: `L` is the loss of the stage.
    One stage that is `told` what each cell holds gives all three, and `L` is the sum. Raises TypeError or ValueError
    for a wrong number, and if two stages are `told`, since their first one is anyway.

    一步给出 {"L_name", "L"}，在第二段是 {"L_caption", "L"}：`L` 是这一段的损失。只有一段，而 `told`（告诉它每格是什么）
    时，三个都有，`L` 是总和。个数不对时报 TypeError 或 ValueError；两段的第一段本来就告诉它，再写 `told` 也报。
    """
    for value, name, least in ((naming_steps, "naming_steps", 0), (caption_steps, "caption_steps", 1),
                               (batch, "batch", 2), (seed, "seed", 0)):
        checks.whole(value, name, least)
    checks.require(not (told and naming_steps), "told=True 需要 naming_steps=0：两段的第一段本来就告诉它",
                   "told=True needs naming_steps=0: the first of two stages is told anyway")
    device = choose_device(device)

    def begin() -> tuple[CaptioningModel, list[Learner]]:
        with seeded(seed):
            model = CaptioningModel().to(device)
        generator = torch.Generator().manual_seed(seed)
        naming = CellNaming(model) if naming_steps else None
        first = [Learner(naming, naming_steps, seed, device, draws=generator)] if naming_steps else []
        second = Learner(Describing(model, naming, batch, told), caption_steps, seed, device, draws=generator)
        return model, [*first, second]

    return Stages(begin)


# -- what is tested ---------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Sentences:
    """N 幅图画的 N 句话，每句一个成绩，从 0 到 1 / N sentences of N pictures, each with its scores, from 0 to 1."""

    exact: Tensor  # (N,) bool: what greedy writing gives is right to the letter
    token: Tensor  # (N,) the share of its next words that are right, given the right ones before
    chrf: Tensor  # (C,) `chrf` of the first C of them


@dataclass(frozen=True)
class CaptionScores(Sentences):
    """还有四格认得怎样 / And how well the four cells are named."""

    named: Tensor  # (N,) the share of cells named right

    @property
    def whole(self) -> Tensor:
        """四格全认对的图画 / The pictures all of whose cells are named right: (N,) bool."""
        return self.named == 1


@typed
def scores(model: CaptioningModel, data: scenes.Scenes, count: int = 400, pairs: str = "seen", blind: bool = False,
           seed: int = 12345, compared: int = COMPARED) -> CaptionScores:
    """在重新抽的 `count` 个场景上的成绩 / The scores on `count` newly drawn scenes.

    With `blind` the pictures are withheld. The first `compared` captions are written out for chrF. The same `seed`
    gives the same scenes.

    `blind`：不给看图。前 `compared` 句真的写出来，用来算 chrF。同样的 `seed` 是同样的场景。
    """
    checks.whole(compared, "compared", 0)
    drawn, device = _asked(data, count, pairs, seed), device_of(model)
    named, right, token, similar = [], [], [], []
    with evaluating(model):
        for rows in torch.arange(count).split(250):
            part = {name: values[rows] for name, values in drawn.items()}
            tokens = tokens_of(model, part).to(device)
            f_v = model.see(data.pictures(part["cells"], part["artist"]).to(device) / 255)
            f_v = torch.zeros_like(f_v) if blind else f_v
            named.append((best(model.namer(f_v), "z").cpu() == part["cells"] % model.namer.out_features).double())
            exact, share = judge(model.decoder(f_v, tokens[:, :-1]), tokens)
            right.append(exact.cpu())
            token.append(share.cpu())
            few = max(0, compared - int(rows[0]))
            texts = captions_of(part)[:few]
            written = _write(model, f_v[:few], tokens[:few, 0], exact[:few], texts)
            similar += [chrf(*pair) for pair in zip(written, texts, strict=True)]
    return CaptionScores(torch.cat(right), torch.cat(token), torch.tensor(similar), torch.cat(named).mean(1))


def _asked(data: scenes.Scenes, count: int, pairs: str, seed: int) -> dict[str, Tensor]:
    """The scenes of a test."""
    return data.draw_to_describe(count, torch.Generator().manual_seed(seed), pairs)


def _write(model: CaptioningModel, f_v: Tensor, start: Tensor, exact: Tensor, texts: Sequence[str]) -> list[str]:
    """What greedy writing gives; what is known to be right is not written."""
    wrong = (~exact).nonzero().squeeze(1)
    written = list(texts)
    if len(wrong):
        tokens = model.decoder.generate(f_v[wrong], start[wrong] - model.decoder.vocabulary)[0]
        for row, line in zip(wrong.tolist(), tokens, strict=True):
            written[row] = model.spell(line)
    return written


def judge(logits: Tensor, tokens: Tensor, pad: int = 0) -> tuple[Tensor, Tensor]:
    """哪几行一字不差，每行的词元对了几成 / Which rows are right to the letter, (B,) bool; the share of right tokens.

    In greedy writing each word follows from those before. If, given the right words before, the most likely next one
    is right at every position, greedy writing gives this very sentence; if it is wrong at one, it does not. So nothing
    has to be written: one forward pass tells.

    贪心的每个词都由前面的词定。如果给定正确的前文，每一步最可能的都正好是下一个正确的词，那么贪心写出的就是这一句；
    只要有一步不是，就不是。所以不必真写，一次前向就知道。
    """
    wanted = tokens[:, 1:]
    real, hit = wanted != pad, best(logits, "logits") == wanted
    return (hit | ~real).all(1), (hit & real).sum(1) / real.sum(1)


@typed
def chrf(written: str, wanted: str) -> float:
    """chrF：字符片段重合了多少 / chrF: how far pieces of characters overlap, from 0 to 1.

    Pieces of 1 to 6 characters are counted on both sides, and precision and recall go into F₂; sacrebleu computes it,
    by characters in Chinese and letters in English, with no need to split words first.

    1 到 6 个字符的片段，两边都数，取精确与召回的 F₂；由 sacrebleu 计算，中文按字、英文按字母，都不用先分词。

    Paper: Popović 2015, chrF: character n-gram F-score for automatic MT evaluation.
    """
    return _sacrebleu().sentence_score(written, [wanted]).score / 100


@cache
def _sacrebleu() -> Any:
    from sacrebleu.metrics import CHRF

    return CHRF()


# -- rules that learn nothing -----------------------------------------------------------------------------------------

@typed
def majority(data: scenes.Scenes, count: int = 400, seed: int = 12345, compared: int = COMPARED,
             examples: int = 20_000) -> Sentences:
    """什么也不看，总说训练里最常见的那一句 / Looks at nothing and always says the most frequent caption of training.

    One for each language and order, on the scenes of `scores`. Here `token` compares position by position.

    对每种语言和次序各选一句，场景就是 `scores` 的那些。这里的 `token` 按位置比。
    """
    checks.whole(examples, "examples", 100)  # so that each language and order is among them
    known = _asked(training_set(), examples, "seen", seed + 1)
    counts: dict[tuple[int, int], Counter[str]] = {}
    for said, key in zip(captions_of(known), _instructions(known), strict=True):
        counts.setdefault(key, Counter())[said] += 1
    usual = {key: said.most_common(1)[0][0] for key, said in counts.items()}
    drawn = _asked(data, count, "seen", seed)
    return _compare([usual[key] for key in _instructions(drawn)], captions_of(drawn), compared)


@typed
def pixel_names(data: scenes.Scenes, crop: bool = False) -> Tensor:
    """像素近邻给每幅画起的名字 / What the pixel neighbour calls every drawing: (A, 31), the empty cell at the end.

    Each drawing gets the name of the training drawing most like it; `crop` is that of
    `pixel_similarity`. A cell that is all white is empty, and no rule needs a neighbour to see that.

    每幅画都用最像它的那幅训练图画的名字，`crop` 同 `pixel_similarity`。全白的格就是空的，看出这一点用不着近邻。
    """
    similarity = pixel_similarity(data.tiles.flatten(0, 1), training_set().tiles, crop)
    names = similarity.argmax(1).unflatten(0, data.tiles.shape[:2])
    return F.pad(names, (0, 1), value=len(scenes.THINGS))


@typed
def pixel_grammar(data: scenes.Scenes, count: int = 400, pairs: str = "seen", seed: int = 12345,
                  compared: int = COMPARED, crop: bool = False) -> CaptionScores:
    """像素近邻认出每一格，句子由写好的语法造 / The pixel neighbour names every cell, a written grammar the sentence.

    It learns nothing, but is given two things that the model has to learn: which thing a training drawing shows, which
    `CellNaming` is told as well, and the grammar, `scenes.caption`. The scenes are those of `scores`, `crop` is that of
    `pixel_names`, and `token` compares position by position.

    它什么也不学，却白得了模型要学的两样：训练图画画的是什么（这个 `CellNaming` 也知道），和语法，即 `scenes.caption`。
    场景就是 `scores` 的那些，`crop` 同 `pixel_names`，`token` 按位置比。
    """
    drawn, names = _asked(data, count, pairs, seed), pixel_names(data, crop)
    facts = drawn["cells"] % names.shape[1]
    seen = names[drawn["artist"].unsqueeze(1), facts]
    cells = torch.where(seen == len(scenes.THINGS), scenes.EMPTY, seen)
    found = _compare(captions_of({**drawn, "cells": cells}), captions_of(drawn), compared)
    return CaptionScores(found.exact, found.token, found.chrf, (seen == facts).double().mean(1))


def _compare(written: Sequence[str], wanted: Sequence[str], compared: int) -> Sentences:
    """The scores of sentences that were written by a rule."""
    checks.whole(compared, "compared", 0)
    tokenizer = make_tokenizer()
    exact = torch.tensor([one == other for one, other in zip(written, wanted, strict=True)])
    token = []
    for one, other in zip(written, wanted, strict=True):
        a, b = (tokenizer.encode(line).ids[1:] for line in (one, other))
        token.append(sum(x == y for x, y in zip(a, b, strict=False)) / len(b))
    similar = [chrf(one, other) for one, other in zip(written[:compared], wanted[:compared], strict=True)]
    return Sentences(exact, torch.tensor(token, dtype=torch.float64), torch.tensor(similar))


def _instructions(drawn: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    return list(zip(drawn["language"].tolist(), drawn["order"].tolist(), strict=True))


@dataclass(frozen=True)
class DescribedElsewhere:
    """别的作者，别的搭配 / Other artists, other combinations."""

    validation: CaptionScores  # an artist it never saw
    shift: CaptionScores  # an artist it never saw, of quite another style
    known_new: CaptionScores  # artists it learned from, with two things that never met in training
    test_new: CaptionScores  # the test artist, with two things that never met in training


@dataclass(frozen=True)
class Way:
    """一种写法 / A way of writing."""

    exact: Tensor  # (N,) bool: which sentences are right to the letter
    log_p: Tensor  # (N,) of the sentences that were written


@dataclass(frozen=True)
class Ways:
    """同样的场景，几种写法 / The same scenes, written in several ways."""

    greedy: Way
    beam: Way  # of four
    drawn: dict[float, Way]  # by temperature


@dataclass(frozen=True)
class Strange:
    """训练里没有的图画 / Pictures that training did not have."""

    blank: list[str]  # what is said of a blank picture, in each language and order
    four: Tensor  # (N,) of pictures with four things, how many are named


@dataclass(frozen=True)
class CaptioningStudies:
    """一次训练之后的测试 / What one training was tested on."""

    known: CaptionScores  # artists it learned from, newly drawn scenes
    test: CaptionScores  # the test set: an artist it never saw
    elsewhere: DescribedElsewhere | None = None  # these for "two stages"
    ways: Ways | None = None
    strange: Strange | None = None


def study_elsewhere(model: CaptioningModel) -> DescribedElsewhere:
    """换了作者或搭配，写得怎样 / How well it writes with other artists and other combinations."""
    train, test = training_set(), scenes.load("test")
    validation, shift = (scores(model, scenes.load(role), compared=0) for role in ("validation", "shift"))
    return DescribedElsewhere(validation, shift, known_new=scores(model, train, pairs="new", compared=0),
                              test_new=scores(model, test, pairs="new", compared=0))


@typed
def study_ways(model: CaptioningModel, data: scenes.Scenes, count: int = 80, seed: int = 12345) -> Ways:
    """贪心、四句的束和 `TEMPERATURES` 的采样 / Greedy, a beam of four, and sampling at `TEMPERATURES`."""
    drawn, device = _asked(data, count, "seen", seed), device_of(model)
    texts, which = captions_of(drawn), tokens_of(model, drawn)[:, 0].to(device) - model.decoder.vocabulary

    def way(tokens: Tensor, log_p: Tensor) -> Way:
        right = [model.spell(line) == text for line, text in zip(tokens, texts, strict=True)]
        return Way(torch.tensor(right), log_p.cpu())

    def write(temperature: float) -> Way:
        tokens, p = model.decoder.generate(f_v, which, temperature, torch.Generator().manual_seed(seed))
        return way(tokens, p.log().sum(1))

    with evaluating(model):
        f_v = model.see(data.pictures(drawn["cells"], drawn["artist"]).to(device) / 255)
        tokens, s = model.decoder.search(f_v, which)
        return Ways(write(0.0), way(tokens[:, 0], s[:, 0]), {t: write(t) for t in TEMPERATURES})


@typed
def study_strange(model: CaptioningModel, data: scenes.Scenes, count: int = 60, seed: int = 12345) -> Strange:
    """空白的图，和四格都满的图画 / A blank picture, and pictures with all four cells full."""
    generator, device = torch.Generator().manual_seed(seed), device_of(model)
    f_v = model.look(torch.full((3, 2 * scenes.SIZE, 2 * scenes.SIZE), 255, dtype=torch.uint8))
    said = [model.say(f_v, language, order).sentence for language, order in STARTS]
    cells = torch.rand(count, len(scenes.THINGS), generator=generator).argsort(1)[:, :scenes.CELLS]
    with evaluating(model):
        f_v = model.see(data.pictures(cells, torch.zeros(count, dtype=torch.int64)).to(device) / 255)
    tokens = model.decoder.generate(f_v, torch.arange(count, device=device) % len(STARTS))[0]
    return Strange(said, torch.tensor([len(things_in(model.spell(line))) for line in tokens]))


@typed
def things_in(sentence: str) -> list[str]:
    """句子里依次提到的东西 / The things a sentence names, in their order: "A dog at the top left." → ["dog"]."""
    return _NAMES.findall(sentence)


@typed
def study(variant: str, seed: int, **options: int) -> CaptioningStudies:
    """训练一次，然后测试 / Train once, then test.

    `variant` is one of `VARIANTS`, whose options those given replace; "blind" never sees a picture, in the tests
    neither. Raises ValueError for an unknown variant.

    `variant` 是 `VARIANTS` 里的一个，给出的选项代替它的；"blind" 从不给看图，测试时也不给。变体未知时报 ValueError。
    """
    checks.one_of(variant, "variant", tuple(VARIANTS))
    options = {**VARIANTS[variant], **options}
    withhold = options.pop("withhold", 0.0)
    model = learner(seed=seed, device="cpu", **options).finish(withhold=withhold).model
    test, blind = scenes.load("test"), variant == "blind"
    known, tested = scores(model, training_set(), blind=blind), scores(model, test, blind=blind)
    if variant != "two stages":
        return CaptioningStudies(known, tested)
    return CaptioningStudies(known, tested, study_elsewhere(model), study_ways(model, test), study_strange(model, test))
