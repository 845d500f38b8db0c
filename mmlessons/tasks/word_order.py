"""词序：找得到，就算读了吗 / Word order: it finds the caption, but has it read it?

Every model here sees with the same frozen eyes, those of lesson 05, which give each of the four cells a feature (1.1).
What differs is how a sentence meets the picture: two towers that compare two features (2.1), with exchanged captions
among the negatives if the share says so (9.4); the same towers with a bag of words; one transformer over cells and
words together; and the decoder of lesson 05, which has to write the sentence (5.1). Each of them can be asked how well
a picture and a sentence fit, and nothing more is needed for the scores (9.1) to (9.3).

这里的模型用同一双冻结的眼睛，就是第 05 课的，它给四格各一个特征 (1.1)。不同的是句子怎样与图画相遇：两座塔，各得一个特征
再比较 (2.1)，负例里可以有换过的说明 (9.4)；同样的塔，读的是词袋；一个 Transformer，格子和词一起看；第 05 课的解码器，
它要把句子写出来 (5.1)。每一个都能回答“这幅图和这句话有多配”，成绩 (9.1) 到 (9.3) 只需要这个。
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks
from mmcore import tokens as text
from mmcore.alignment import cosine_similarity
from mmcore.checks import shapes
from mmcore.decoder import CausalDecoder, generation_loss
from mmcore.encoders import TextEncoder, VisualEncoder
from mmcore.ranking import ranks
from mmcore.training import choose_device, evaluating, make_optimizer
from mmcore.word_order import exchanged_loss, winoground_scores
from mmlessons.border import holds, typed
from mmlessons.data import scenes
from mmlessons.data.scenes import ARRANGEMENTS, CELLS, LANGUAGES, THINGS, sentence
from mmlessons.tasks.image_captioning import CaptioningModel, CellNaming, training_set
from mmlessons.tasks.learner import Descent, Learner, Losses, seeded
from mmlessons.tasks.pixels import pixel_similarity

FEATURE_DIM = 128
EYE_STEPS, STEPS, BATCH = 300, 1000, 96
TAU = 0.07
RATE, DECAY = 4e-3, 0.05
BETAS = 0.9, 0.95  # of the AdamW of one transformer
NOISE = 0.5  # on the features of the eyes: an unseen artist's lie elsewhere
CANDIDATES, FEWER = 500, 100  # of a search: for towers, for those that look at every pair
ASKED = 240  # scenes of each kind in a test of order
WORDS = 16  # places for a sentence in one transformer
SAID = {"kind": f"int64 N <{len(ARRANGEMENTS)}", "first": f"int64 N <{len(THINGS)}",
        "second": f"int64 N <{len(THINGS)}", "language": f"int64 N <{len(LANGUAGES)}"}
SHOWN = {"cells": f"int64 N {CELLS}", "mirrored": f"int64 N {CELLS}"}


# -- what is seen and what is said ------------------------------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class Eyes:
    """学好并冻结的眼睛 / Eyes that have learned and are frozen."""

    encoder: VisualEncoder
    seen: Tensor  # (drawings · 31, D): 训练图画变化后的特征，每样东西一样多 / features of varied training drawings


@typed
@cache
def eyes(seed: int = 0, steps: int = EYE_STEPS, device: str | torch.device | None = None) -> Eyes:
    """第 05 课的第一段：学认每一格是什么 / Stage one of lesson 05: learn to say what is in a cell."""
    device = choose_device(device)
    with seeded(seed):
        model = CaptioningModel().to(device)
    generator, naming = torch.Generator().manual_seed(seed), CellNaming(model)
    Learner(naming, steps, seed, device, draws=generator).finish()
    return Eyes(model.visual_encoder, naming.features(generator))


@typed
def look(looking: Eyes, data: scenes.Scenes) -> Tensor:
    """第一位作者的 31 幅 → 特征，最后是空格 / The 31 drawings of its first artist, the empty one last: (31, D)."""
    with evaluating(looking.encoder):
        return looking.encoder(data.with_empty[0].to(looking.seen.device) / 255)


@dataclass(frozen=True, eq=False)
class SentenceTable:
    """所有的句子，切成词元 / All sentences there are, as tokens."""

    tokenizer: Tokenizer
    input_ids: Tensor  # (R, L)
    attention_mask: Tensor  # (R, L)

    def of(self, rows: Tensor, device: torch.device) -> dict[str, Tensor]:
        """这几行，去掉都是填充的列 / Some rows, without the columns that are padding in all of them."""
        mask = self.attention_mask[rows]
        longest = int(mask.sum(1).max()) if len(rows) else 1
        return {"input_ids": self.input_ids[rows, :longest].to(device),
                "attention_mask": mask[:, :longest].to(device)}


@cache
def sentences() -> SentenceTable:
    """三种摆法、两种语言的全部句子 / Every sentence of the three kinds in both languages, in the order of `row_of`."""
    things, said = range(len(THINGS)), []
    for kind in ARRANGEMENTS:
        for language in LANGUAGES:
            said += [sentence(kind, a, b if a != b else (a + 1) % len(THINGS), language) for a in things
                     for b in things]
    tokenizer = text.build_tokenizer(said)
    encoded = tokenizer.encode_batch(said)
    return SentenceTable(tokenizer, torch.tensor([row.ids for row in encoded]),
                     torch.tensor([row.attention_mask for row in encoded]))


def row_of(drawn: Mapping[str, Tensor], exchanged: bool = False) -> Tensor:
    """每个场景的话在 `sentences` 的第几行 / In which row of `sentences` stands what is said of each scene: (N,)."""
    first, second = (drawn[name] for name in (("second", "first") if exchanged else ("first", "second")))
    return ((drawn["kind"] * len(LANGUAGES) + drawn["language"]) * len(THINGS) + first) * len(THINGS) + second


@typed
def said(drawn: Mapping[str, Tensor], exchanged: bool = False) -> list[str]:
    """每个场景的话，或对调了两样东西的 / What is said of each scene, or the same with its two things exchanged."""
    _check_drawn(drawn)
    first, second = (drawn[name] for name in (("second", "first") if exchanged else ("first", "second")))
    rows = zip(drawn["kind"].tolist(), first.tolist(), second.tolist(), drawn["language"].tolist(), strict=True)
    return [sentence(ARRANGEMENTS[kind], a, b, LANGUAGES[language]) for kind, a, b, language in rows]


@typed
@cache
def pairs(which: str = "seen") -> list[tuple[int, int]]:
    """训练里会同时出现的两样东西，或从不的 / Which two things stand together in training, or "new": never do."""
    checks.one_of(which, "which", scenes.PAIRS)
    never = scenes.apart()
    together = never if which == "new" else ~never
    return [(a, b) for a, b in together.triu(1).nonzero().tolist()]


# -- those who are asked how well a picture and a sentence fit --------------------------------------------------------

class BagOfWords(nn.Module):
    """词向量的平均，不管次序 / The mean of the vectors of the words, in whatever order they come."""

    def __init__(self, vocabulary: int, feature_dim: int = FEATURE_DIM):
        super().__init__()
        self.embed, self.normalise = nn.Embedding(vocabulary, feature_dim), nn.BatchNorm1d(feature_dim)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        real = attention_mask.unsqueeze(2).to(self.embed.weight)
        sums = torch.zeros(len(input_ids), self.embed.num_embeddings, device=input_ids.device)
        sums.scatter_add_(1, input_ids, real.squeeze(2))  # how often each word occurs: exactly the same in any order
        return self.normalise(sums / real.sum(1) @ self.embed.weight)


@typed
class Towers(nn.Module):
    """图像塔和文本塔，最后才比较 / A picture tower and a text tower, compared at the very end.

    `forward` returns named tensors; the first N of the sentences are the captions of the N pictures, the others are
    exchanged ones.

    `forward` 返回有名字的张量；句子的前 N 句是 N 幅图的说明，后面的是换过的。

    | name | shape | meaning | 含义 |
    |---|---|---|---|
    | `f_v` | (N, D) | what the picture tower makes of four cells | 图像塔从四格得出的 |
    | `f_t` | (N, D) | features of the captions (1.2) | 说明的特征 |
    | `c` | (M, D) | features of the exchanged captions | 换过的说明的特征 |
    | `S` | (N, N) | cosine similarity | 余弦相似度 |
    | `L` | | the loss (9.4) | 损失 |
    """

    def __init__(self, feature_dim: int = FEATURE_DIM, bag: bool = False):
        super().__init__()
        words = sentences().tokenizer
        self.place = nn.Parameter(0.5 * torch.randn(CELLS, feature_dim))
        self.picture_tower = nn.Sequential(nn.Flatten(), nn.Linear(CELLS * feature_dim, 256), nn.GELU(),
                                           nn.Linear(256, feature_dim))
        self.text_tower = (BagOfWords(words.get_vocab_size(), feature_dim) if bag
                           else TextEncoder("bert-tiny", feature_dim, words))

    @shapes(like="place", f=f"N {CELLS} D", input_ids="int M L", attention_mask="mask M L", tau="scalar")
    def forward(self, f: Tensor, input_ids: Tensor, attention_mask: Tensor, tau: Tensor) -> dict[str, Tensor]:
        f_v = self.picture_tower(f + self.place)
        both = self.text_tower(input_ids, attention_mask)
        f_t, c = both[:len(f)], both[len(f):]
        S = cosine_similarity(f_v, f_t)
        L = exchanged_loss(f_v, f_t, c, tau)
        return {"f_v": f_v, "f_t": f_t, "c": c, "S": S, "L": L}

    def match(self, f: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """余弦 / The cosine: (B, 4, D), (B, L), (B, L) → (B,)."""
        return F.cosine_similarity(self.picture_tower(f + self.place), self.text_tower(input_ids, attention_mask))


class OneTransformer(nn.Module):
    """格子和词元排成一列，一个 Transformer 全看 / Cells and tokens in one row, and a transformer that sees them all."""

    def __init__(self, feature_dim: int = FEATURE_DIM, width: int = 96, layers: int = 2, heads: int = 4):
        super().__init__()
        self.open = nn.Linear(feature_dim, width)
        self.embed = nn.Embedding(sentences().tokenizer.get_vocab_size(), width)
        self.positions = nn.Embedding(CELLS + WORDS, width)
        for table in (self.embed, self.positions):
            nn.init.normal_(table.weight, std=width ** -0.5)
        nn.init.normal_(self.open.weight, std=feature_dim ** -0.5)
        layer = nn.TransformerEncoderLayer(width, heads, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, 1)

    def match(self, f: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """一个数：有多配 / One number, how well they fit: (B, 4, D), (B, L), (B, L) → (B,)."""
        x = torch.cat([self.open(f), self.embed(input_ids)], 1)
        x = x + self.positions.weight[:x.shape[1]]
        hidden = F.pad(attention_mask == 0, (CELLS, 0))
        real = (~hidden).unsqueeze(2).to(x)
        x = self.blocks(x, src_key_padding_mask=hidden)
        return self.head((x * real).sum(1) / real.sum(1)).squeeze(1)


class Writer(nn.Module):
    """第 05 课的解码器，分数是 log p(句子 | 图) / The decoder of lesson 05, scored by log p(sentence | picture)."""

    def __init__(self, feature_dim: int = FEATURE_DIM, blind: bool = False):
        super().__init__()
        self.blind = blind
        self.decoder = CausalDecoder(sentences().tokenizer.get_vocab_size(), feature_dim, width=96, layers=2, heads=6,
                                     prefix=CELLS, max_tokens=WORDS, one_each=True)

    def forward(self, f: Tensor, input_ids: Tensor) -> Tensor:
        return self.decoder(torch.zeros_like(f) if self.blind else f, input_ids)

    def match(self, f: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """log p(句子 | 图) / log p(sentence | picture): (B, 4, D), (B, L), (B, L) → (B,)."""
        log_p = self(f, input_ids[:, :-1]).log_softmax(2).gather(2, input_ids[:, 1:].unsqueeze(2)).squeeze(2)
        return (log_p * attention_mask[:, 1:]).sum(1)


# -- how they learn ---------------------------------------------------------------------------------------------------

class Draws:
    """一步的场景：看到的、说的、换过的 / The scenes of one step: what is seen, said, and said with two exchanged."""

    def __init__(self, eyes: Eyes, batch: int = BATCH, exchanged: Sequence[str] = ARRANGEMENTS):
        self.eyes, self.batch = eyes, checks.whole(batch, "batch", 2)
        self.kinds = torch.tensor([ARRANGEMENTS.index(checks.one_of(kind, "exchanged", ARRANGEMENTS))
                                   for kind in exchanged], dtype=torch.int64)

    def draw(self, generator: torch.Generator, share: float = 0.0) -> dict[str, Tensor]:
        """N 幅图、N 句说明、换过的 M 句 / N pictures, N captions, then M exchanged ones.

        `share` 是换过的占几成，只换 `exchanged` 里的种类 / `share` of them are exchanged, if of a kind in `exchanged`.
        """
        drawn, things = scenes.draw_arrangements(self.batch, generator, pairs()), len(THINGS) + 1
        which = torch.randint(len(self.eyes.seen) // things, drawn["cells"].shape, generator=generator)
        noise = NOISE * torch.randn(*which.shape, self.eyes.seen.shape[1], generator=generator)
        chosen = torch.rand(self.batch, generator=generator) < checks.share(share, "share")
        chosen &= torch.isin(drawn["kind"], self.kinds)
        rows = torch.cat([row_of(drawn), row_of(drawn, exchanged=True)[chosen]])
        device = self.eyes.seen.device
        f = self.eyes.seen[drawn["cells"] % things + things * which] + noise.to(device)
        return {"f": f, **sentences().of(rows, device), "chosen": chosen.to(device)}


class Comparing(Draws):
    """两座塔学 (9.4)；`share=0` 时就是 (2.1) / Two towers learn (9.4), which is (2.1) where `share=0`."""

    def __init__(self, eyes: Eyes, batch: int = BATCH, exchanged: Sequence[str] = ARRANGEMENTS, bag: bool = False):
        super().__init__(eyes, batch, exchanged)
        self.bag = bag

    def begin(self, device: torch.device) -> Descent:
        return Descent.of(Towers(self.eyes.seen.shape[1], self.bag).to(device), self.losses, RATE, DECAY, total="L")

    def step(self, trainer: Descent, generator: torch.Generator, share: float = 0.0, tau: float = TAU) -> Losses:
        checks.positive(tau, "tau")
        return trainer.train_step(self.draw(generator, share), tau=tau)

    def losses(self, towers: Towers, batch: Mapping[str, Tensor], tau: float) -> dict[str, Tensor]:
        return {"L": towers(batch["f"], batch["input_ids"], batch["attention_mask"], tau)["L"]}


class Joining(Draws):
    """一个 Transformer 学同一道选择题 / One transformer learns the same choice, from every pair of the batch."""

    def begin(self, device: torch.device) -> Descent:
        model = OneTransformer(self.eyes.seen.shape[1]).to(device)
        optimizer = make_optimizer(model, 3e-3, 0.02)
        for group in optimizer.param_groups:
            group["betas"] = BETAS
        return Descent(model, optimizer, self.losses, "L")

    def step(self, trainer: Descent, generator: torch.Generator, share: float = 0.0) -> Losses:
        return trainer.train_step(self.draw(generator, share))

    def losses(self, model: OneTransformer, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        n, f, words, mask = len(batch["f"]), batch["f"], batch["input_ids"], batch["attention_mask"]
        picture, caption = torch.arange(n).repeat_interleave(n), torch.arange(n).repeat(n)
        own = batch["chosen"].nonzero().squeeze(1)
        picture = torch.cat([picture, own])
        caption = torch.cat([caption, torch.arange(n, len(words))])
        z = model.match(f[picture], words[caption], mask[caption])
        S, target = z[:n * n].view(n, n), torch.arange(n)
        extra = torch.full((n,), -torch.inf).index_put((own,), z[n * n:])  # each exchanged one beside its own picture
        L = (F.cross_entropy(torch.cat([S, extra.unsqueeze(1)], 1), target) + F.cross_entropy(S.T, target)) / 2
        return {"L": L}


class Writing(Draws):
    """解码器学写这句话 / The decoder learns to write what is said."""

    def __init__(self, eyes: Eyes, batch: int = BATCH, blind: bool = False):
        super().__init__(eyes, batch)
        self.blind = blind

    def begin(self, device: torch.device) -> Descent:
        writer = Writer(self.eyes.seen.shape[1], self.blind).to(device)
        return Descent.of(writer, self.losses, RATE, DECAY, total="L")

    def step(self, trainer: Descent, generator: torch.Generator) -> Losses:
        return trainer.train_step(self.draw(generator))

    def losses(self, writer: Writer, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"L": generation_loss(writer(batch["f"], batch["input_ids"][:, :-1]), batch["input_ids"])}


@typed
def learner(seen: Eyes, steps: int = STEPS, seed: int = 0, batch: int = BATCH, exchanged: Sequence[str] = ARRANGEMENTS,
            bag: bool = False) -> Learner:
    """学比较的两座塔：`train_step(share=…)` 用这一步的那一成 / Towers that learn to compare: `train_step(share=…)`.

    `share` says how many captions are exchanged among the negatives of this very step. Raises TypeError or ValueError
    for a wrong number of steps, batch, seed or kind.

    `share` 说这一步的负例里，换过的说明占几成。步数、批大小、种子或种类不对时报 TypeError 或 ValueError。
    """
    return Learner(Comparing(seen, batch, exchanged, bag), steps, seed, seen.seen.device)


# -- what is tested ---------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class OrderScores:
    """一类场景的三项成绩，一个场景一个 / The three scores of one kind of scenes, one for each scene: (N,) bool."""

    text: Tensor
    image: Tensor
    group: Tensor


@typed
def asked(kind: str, which: str = "seen", count: int = ASKED, seed: int = 12345) -> dict[str, Tensor]:
    """一类场景的题；`which="new"` 时，两样东西在训练里从不同时出现 / The questions of one kind.

    With `which="new"` the two things of a scene never stood together in training; of these there are 75 in each kind.
    """
    return scenes.draw_arrangements(count, torch.Generator().manual_seed(seed), pairs(which), (kind,))


@typed
def candidates(count: int = CANDIDATES, seed: int = 54321) -> dict[str, Tensor]:
    """检索用的场景，没有一句是另一句对调来的 / The scenes of a search; no caption is another one exchanged."""
    return scenes.draw_arrangements(count, torch.Generator().manual_seed(seed), pairs())


@typed
def match(judge: nn.Module, f: Tensor, rows: Tensor) -> Tensor:
    """每幅图与同一行的句子有多配 / How well each picture fits the sentence in its row: (N, 4, D), (N,) → (N,)."""
    with evaluating(judge):
        parts = zip(f.split(1000), rows.split(1000), strict=True)
        return torch.cat([judge.match(each, *sentences().of(row, f.device).values()) for each, row in parts])


@typed
def squares(judge: nn.Module, tiles: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
    """每个场景的两幅图和两句话有多配 / How well the two pictures of each scene fit its two sentences: (N, 2, 2).

    `tiles` are the features of the 31 drawings of one artist. `tiles` 是一位作者的 31 幅图画的特征。
    """
    _check(judge, tiles, drawn)
    pictures = [tiles[drawn[name].to(tiles.device) % len(tiles)] for name in ("cells", "mirrored")]
    rows = [row_of(drawn), row_of(drawn, exchanged=True)]
    return torch.stack([match(judge, f, row) for f in pictures for row in rows], 1).view(-1, 2, 2).cpu()


def _check(judge: nn.Module, tiles: Tensor, drawn: Mapping[str, Tensor]) -> None:
    checks.require(callable(getattr(judge, "match", None)), f"judge 需要有 match，收到 {type(judge).__name__}",
                   f"judge must have match, got {type(judge).__name__}", TypeError)
    checks.fits(tiles, "tiles", f"{len(THINGS) + 1} {FEATURE_DIM}", next(judge.parameters()))
    _check_drawn(drawn)


def _check_drawn(drawn: Mapping[str, Tensor]) -> None:
    holds(drawn, "drawn", **SAID, **SHOWN)
    for name in SHOWN:
        checks.require(bool(((drawn[name] >= -1) & (drawn[name] < len(THINGS))).all()),
                       f"drawn['{name}'] 需要在 −1（空）与 {len(THINGS) - 1} 之间",
                       f"drawn['{name}'] must lie between −1 (empty) and {len(THINGS) - 1}")


def order(S: Tensor) -> OrderScores:
    """(9.1) 到 (9.3) / (9.1) to (9.3): (N, 2, 2) → the scores."""
    return OrderScores(**winoground_scores(S))


@typed
def found(judge: nn.Module, tiles: Tensor, drawn: Mapping[str, Tensor]) -> Tensor:
    """每幅图的说明在全部候选里排第几 / The rank of each picture's caption among all of them: (N,)."""
    _check(judge, tiles, drawn)
    f, rows = tiles[drawn["cells"].to(tiles.device) % len(tiles)], row_of(drawn)
    if isinstance(judge, Towers):  # each side once
        with evaluating(judge):
            f_v, f_t = judge.picture_tower(f + judge.place), judge.text_tower(**sentences().of(rows, f.device))
        return ranks(cosine_similarity(f_v, f_t)).cpu()
    return ranks(torch.stack([match(judge, one.expand_as(f), rows) for one in f])).cpu()  # every pair of them


# -- a rule that learns nothing ---------------------------------------------------------------------------------------

@typed
def by_rule(data: scenes.Scenes, drawn: Mapping[str, Tensor], crop: bool = True) -> Tensor:
    """像素有多像，照句子说的摆法加起来 / How alike pixels are, summed as the sentence says they stand: (N, 2, 2).

    It learns nothing, and is given the meaning of “left of”, “above” and “twice”, that is `scenes.places`. A sentence
    fits a picture as well as the best of the ways in which it may be meant: for every cell, how much its drawing is
    like the training drawings of the thing that should be there (`pixel_similarity`), and 1 for nothing where nothing
    should be.

    它什么也不学，“左边”“上面”“两次”的意思是给它的，就是 `scenes.places`。一句话与一幅图有多配，看它能指的各种摆法里最配
    的一种：每格的画与那里该有的东西的训练图画有多像（`pixel_similarity`），该空而空的格得 1，全部加起来。
    """
    _check_drawn(drawn)
    like = _alike(data, crop)
    columns = [_fit(like, drawn[shown], drawn["kind"], drawn[a], drawn[b]) for shown in SHOWN
               for a, b in (("first", "second"), ("second", "first"))]
    return torch.stack(columns, 1).view(-1, 2, 2)


@typed
def found_by_rule(data: scenes.Scenes, drawn: Mapping[str, Tensor], crop: bool = True) -> Tensor:
    """照规则找，每幅图的说明排第几 / The rank of each picture's caption, by the same rule: (N,)."""
    _check_drawn(drawn)
    like, told = _alike(data, crop), (drawn["kind"], drawn["first"], drawn["second"])
    return ranks(torch.stack([_fit(like, cells.expand(len(told[0]), -1), *told) for cells in drawn["cells"]]))


def _alike(data: scenes.Scenes, crop: bool) -> Tensor:
    """How much what is in a cell looks like each thing, and like nothing: (31, 31)."""
    like = F.pad(pixel_similarity(data.tiles[0], training_set().tiles, crop), (0, 1, 0, 1))
    like[-1, -1] = 1.0
    return like


def _fit(like: Tensor, cells: Tensor, kind: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """How well pictures fit sentences, by the best of the ways in which a sentence may be meant: (N, 4) → (N,)."""
    nothing, ways = len(like) - 1, scenes.places()[kind]  # (N, 12, 4)
    told = torch.stack([first, second, torch.full_like(first, nothing)], 1)  # 0, 1, and −1 for nothing
    wanted = told.unsqueeze(1).expand(-1, ways.shape[1], -1).gather(2, ways % 3)
    seen = like[cells % len(like)].unsqueeze(1).expand(-1, ways.shape[1], -1, -1)  # (N, 12, 4, 31)
    return seen.gather(3, wanted.unsqueeze(3)).squeeze(3).sum(2).amax(1)


# -- the studies of the lesson ----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class WordOrderStudies:
    """一次训练的各项成绩 / What one training gave."""

    found: Tensor  # (500,) where the right caption stands, or of fewer for one transformer
    seen: dict[str, OrderScores]  # by kind, the unseen artist
    new: OrderScores  # left of, two things that never stood together in training
    shift: OrderScores  # left of, an artist of quite another style
    seconds: float  # of processor time for the training, that of the eyes apart


VARIANTS = {  # what a training of the lesson differs in
    "ordinary": (Comparing, {}, STEPS, {"share": 0.0}),
    "exchanged": (Comparing, {}, STEPS, {"share": 1.0}),
    "side only": (Comparing, {"exchanged": ("side",)}, STEPS, {"share": 1.0}),
    "bag of words": (Comparing, {"bag": True}, STEPS, {"share": 0.0}),
    "writer": (Writing, {}, 300, {}),
    "blind writer": (Writing, {"blind": True}, 100, {}),  # what it could see, it never sees
    "one transformer": (Joining, {"batch": 16}, 400, {"share": 0.0}),
    "one transformer, exchanged": (Joining, {"batch": 16}, 400, {"share": 1.0}),
}


@typed
def study(variant: str, seed: int, steps: int | None = None) -> WordOrderStudies:
    """训练一次，然后测试 / Train once, then test.

    `found` is of 500 candidates for towers and of 100 for the others, which have to look at every pair. Raises
    ValueError for an unknown variant or a wrong number of steps.

    `found` 对两座塔是 500 个候选，其余的要一对一对地看，是 100 个。变体未知或步数不对时报 ValueError。
    """
    checks.one_of(variant, "variant", tuple(VARIANTS))
    kind, options, usual, dials = VARIANTS[variant]
    steps = usual if steps is None else checks.whole(steps, "steps")
    looking = eyes(seed, device="cpu")
    begun = time.process_time()
    judge = Learner(kind(looking, **options), steps, seed, "cpu").finish(**dials).model
    seconds = time.process_time() - begun
    test, shift = (look(looking, scenes.load(role)) for role in ("test", "shift"))

    def scored(tiles: Tensor, kind: str, which: str = "seen") -> OrderScores:
        drawn = asked(kind, which, ASKED if which == "seen" else len(pairs(which)))
        return order(squares(judge, tiles, drawn))

    many = CANDIDATES if kind is Comparing else FEWER
    return WordOrderStudies(found(judge, test, candidates(many)), {name: scored(test, name) for name in ARRANGEMENTS},
                            scored(test, "side", "new"), scored(shift, "side"), seconds)


# -- sentences that a reader types ------------------------------------------------------------------------------------

@typed
def fits(judge: nn.Module, f: Tensor, texts: Sequence[str]) -> Tensor:
    """一幅图与几句话各有多配 / How well one picture fits each of some sentences: (4, D), M texts → (M,).

    Raises ValueError for a word that was never learned, or a sentence that is too long.

    有没学过的词，或句子太长时，报 ValueError。
    """
    checks.fits(f, "f", f"{CELLS} {FEATURE_DIM}", next(judge.parameters()))
    text.check_texts(texts)
    tokenizer = sentences().tokenizer
    for each in texts:
        text.check_known(tokenizer, each)
    rows = tokenizer.encode_batch(list(texts))
    checks.require(len(rows[0].ids) <= WORDS, f"句子最多 {WORDS - 2} 个词元",
                   f"a sentence may have {WORDS - 2} tokens at most")
    ids, mask = (torch.tensor([getattr(row, name) for row in rows], device=f.device)
                 for name in ("ids", "attention_mask"))
    with evaluating(judge):
        return judge.match(f.expand(len(texts), -1, -1), ids, mask)
