"""你自己的图画：一个文件夹，走完前面各课的测试 / Your own pictures: a folder taken through the tests of the lessons.

A folder with captions becomes an `Album`, whose pictures and captions get features from a frozen encoder. On these
features a projection for each side learns (2.1). Every study takes an album. What a folder does not have, such as two
captions of the same words, gives a study without questions, and not an error.

一个带说明的文件夹变成 `Album`，图画和说明的特征来自一个冻结的编码器。在这些特征上，两边各有一个投影用 (2.1) 学习。每个
研究都接受一个 album。文件夹里没有的，例如用词相同的两句说明，得到没有题的研究，不报错。
"""

import json
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore import tokens as text
from mmcore.alignment import cosine_similarity
from mmcore.checks import shapes
from mmcore.ranking import ranks
from mmcore.reporting import calibration_error, prompt_ensemble
from mmcore.training import evaluating
from mmcore.word_order import exchanged_loss
from mmlessons.border import typed
from mmlessons.data import folder
from mmlessons.data.features import features
from mmlessons.data.folder import reading
from mmlessons.data.folder.problems import SAY
from mmlessons.intervals import Interval
from mmlessons.tasks.learner import Descent, Learner, Losses
from mmlessons.tasks.stand_in import LANGUAGES, TAU, drawn_things, pretrain, square, stand_in, write_folder
from mmlessons.tasks.what_pairs_do_not_say import correlated

__all__ = ["Album", "album", "drawn_things", "pretrain", "square", "stand_in", "write_folder"]

STEPS, BATCH, WIDTH = 400, 96, 128
PROMPTS = {"en": ("{}", "a {}", "a drawing of a {}"), "zh": ("{}", "一幅{}的画", "画着{}")}
SHOTS, DRAWN = (1, 2, 4, 8), 5  # examples a label, and how often they are drawn
PLAIN = (  # words that are no things
    "the", "and", "with", "for", "from", "that", "this", "are", "was", "his", "her", "its", "not", "has", "have", "one",
    "two", "left", "right", "above", "below", "under", "over", "near", "next", "front", "behind", "into", "onto", "out",
    "off", "drawing", "picture", "photo", "image")


# -- what is wrong with the data, before any score --------------------------------------------------------------------

@typed
def near_duplicates(data: folder.Folder) -> list[tuple[str, str, float]]:
    """不同部分里几乎一样的图 / Pictures of different splits that are nearly alike: (of the test, of training, cosine).

    Small pictures less their mean are compared by cosine, so brightness and contrast do not matter. Exact duplicates
    were already kept together by the loader.

    缩小的图减去平均，比余弦，所以明暗和对比度没有影响。完全相同的，载入时已经放在一起。
    """
    pixels, names, size = {}, {}, 24
    for split in SPLITS:
        shown = data.pictures(split, size)
        once = {data.rows[index].file: i for i, index in reversed(list(enumerate(shown.which.tolist())))}
        names[split] = sorted(once)
        pixels[split] = [shown[once[file]]["picture"] for file in names[split]]
    found = []
    for split in SPLITS[:0:-1]:
        if pixels[split] and pixels["train"]:
            best, where = similar_pixels(torch.stack(pixels[split]), torch.stack(pixels["train"])).max(1)
            found += [(names[split][i], names["train"][where[i]], best[i].item())
                      for i in (best > 0.999).nonzero().squeeze(1).tolist()]
    return found


@dataclass(frozen=True)
class Giveaway:
    """只有一个来源用的词 / A word that only one source uses."""

    word: str
    source: str
    count: int  # captions with it
    captions: int  # of this source


@typed
def giveaways(data: folder.Folder, language: str = "en") -> list[Giveaway]:
    """说明里透露来源的词 / Words of captions that tell the source: in five captions or more, and all of one source.

    Whoever reads such a word knows the style of the picture, and can choose among fewer. Of Chinese captions they are
    single characters. With fewer than two sources there is nothing to find.

    读到这样的词，就知道图是谁的画风，只需在少数几幅里选。中文查的是单个的字。来源不到两个时，没有可查的。
    """
    checks.one_of(language, "language", LANGUAGES)
    tokenizer = text.default_tokenizer()
    held, total = defaultdict(Counter), Counter()
    for row in data.rows:
        total[row.source] += 1
        for word in {word for word in text.words(tokenizer, _said(row, language)) if text.is_word(word)}:
            held[word][row.source] += 1
    if len([source for source in total if source]) < 2:
        return []
    found = [Giveaway(word, source, count, total[source]) for word, by in held.items() if len(by) == 1
             for source, count in by.items() if source and count >= 5]
    return sorted(found, key=lambda each: (-each.count, each.word))


def _said(row: folder.Row, language: str) -> str:
    return (row.text_zh if language == "zh" else "") or row.text


# -- an album: pictures, captions and features of a folder ------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class Part:
    """一部分：N 幅图，M 句不同的说明 / One split: N pictures, M different captions.

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `files`, `sources` | N | 文件名，来源 / names of the files, and their sources |
    | `texts` | M | 说明，每句一次 / the captions, each once |
    | `positives` | (N, M) bool | 哪句说的是哪幅 / which caption is of which picture |
    | `first` | N | 每幅的第一句说明 / the first caption of each picture |
    | `holds` | (N, K) bool | 说明里说到了哪几样东西 / which of the things its captions name |
    | `pixels` | (N, 3, 32, 32) uint8 | 缩小了的图 / the pictures, made small |
    | `f_v`, `f_t` | (N, D), (M, D) | 冻结的特征 / frozen features |
    """

    files: tuple[str, ...]
    sources: tuple[str, ...]
    texts: tuple[str, ...]
    positives: Tensor
    first: tuple[str, ...]
    holds: Tensor
    pixels: Tensor
    f_v: Tensor
    f_t: Tensor


@dataclass(frozen=True, eq=False)
class Album:
    """一个文件夹，有了特征 / A folder with features.

    `fitted` is what is learned from, and `held` a part of the training sources that is not: a quarter, in which no two
    things stand together that do so in `fitted`. `things` are what questions are about.

    `fitted` 是拿来学的，`held` 是训练的来源里留出来不学的四分之一，其中两样东西的搭配，`fitted` 里没有。`things` 是问题
    要问的东西。
    """

    train: Part
    validation: Part
    test: Part
    fitted: Part
    held: Part
    things: tuple[str, ...]
    encoder: nn.Module
    language: str
    tau: float  # the encoder's own temperature
    divided: bool  # by source: no source of the test is in training


SPLITS = ("train", "validation", "test")


@typed
def album(data: folder.Folder, encoder: nn.Module, language: str = "en", things: Sequence[str] = (),
          without: Sequence[str] = (), strip: Sequence[str] = (), cache: str | Path | None = None) -> Album:
    """读图画，算特征 / Read the pictures and compute their features, which are kept in the folder `cache`.

    `without` are files to leave out, `strip` words to take out of the captions. Without `things`, labels or frequent
    words are taken. Raises ValueError where there are too few pictures for any score.

    `without` 是不要的文件，`strip` 是从说明里去掉的词。不给 `things` 时取标签或常见的词。图太少时报 ValueError。
    """
    checks.one_of(language, "language", LANGUAGES)
    checks.require(all(hasattr(encoder, name) for name in ("encode_pictures", "encode_texts")),
                   f"encoder 需要有 encode_pictures 和 encode_texts，收到 {type(encoder).__name__}",
                   f"encoder must have encode_pictures and encode_texts, got {type(encoder).__name__}", TypeError)
    captions = {split: _captions(data, split, language, without, strip) for split in SPLITS}
    counts = [len(mine) for mine, _ in captions.values()]
    checks.require(counts[0] >= 8 and counts[1] >= 2 and counts[2] >= 2,
                   "至少要 8 幅训练、2 幅验证、2 幅测试的图才量得出成绩，现在是 {}、{}、{}；请多放几幅，或在表里写上 "
                   "split".format(*counts),
                   "scores need 8 pictures for training, 2 for validation and 2 for the test at least, and there are "
                   "{}, {} and {}; add some, or say the split in the table".format(*counts))
    things = tuple(dict.fromkeys(things)) or tuple(_likely_things(*captions["train"]))
    train, validation, test = (_part(data, split, *captions[split], things, encoder, cache) for split in SPLITS)
    held = _held(train)
    kept = torch.tensor(sorted(set(range(len(train.files))) - set(held)))
    model = getattr(encoder, "model", None)
    scale = getattr(model, "logit_scale", None)
    tau = math.exp(-scale.detach().item()) if isinstance(scale, Tensor) and scale.numel() == 1 else TAU
    known = {source for source in train.sources if source}
    divided = bool(known) and all(test.sources) and known.isdisjoint(test.sources)
    return Album(train, validation, test, pick(train, kept), pick(train, torch.tensor(held)), things, encoder,
                 language, tau, divided)


def _captions(data: folder.Folder, split: str, language: str, without: Sequence[str],
              strip: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, str]]:
    captions: dict[str, list[str]] = {}
    source = {}
    for index in data.splits[split].tolist():
        row = data.rows[index]
        said = _stripped(_said(row, language), strip)
        if row.file not in without and said:
            mine = captions.setdefault(row.file, [])
            mine += [said] if said not in mine else []
            source[row.file] = row.source
    return captions, source


def _stripped(said: str, words: Sequence[str]) -> str:
    for word in words:
        said = re.sub(rf"\b{re.escape(word)}\b" if word.isascii() else re.escape(word), "", said, flags=re.IGNORECASE)
    return re.sub(r"\s+", " ", said).strip()


def _part(data: folder.Folder, split: str, captions: dict[str, list[str]], source: dict[str, str],
          things: Sequence[str], encoder: nn.Module, cache: str | Path | None) -> Part:
    shown, at, small = data.pictures(split), {}, []
    for i, index in enumerate(shown.which.tolist()):
        at.setdefault(data.rows[index].file, i)

    def read():
        for file in captions:
            picture = shown[at[file]]["picture"]
            small.append(square(picture, 32))
            yield file, picture

    f_v = features(read(), encoder, cache).values
    texts = tuple(dict.fromkeys(said for several in captions.values() for said in several))
    where = {said: j for j, said in enumerate(texts)}
    positives = torch.zeros(len(captions), len(texts), dtype=torch.bool)
    for i, several in enumerate(captions.values()):
        for said in several:
            positives[i, where[said]] = True
    of_text = torch.tensor([[thing in found for thing in things] for found in (named(x, things) for x in texts)],
                           dtype=torch.double).view(len(texts), len(things))
    return Part(tuple(captions), tuple(source[file] for file in captions), texts, positives,
                tuple(several[0] for several in captions.values()), (positives.double() @ of_text) > 0,
                torch.stack(small), f_v, _encode(encoder, texts))


def _encode(encoder: nn.Module, texts: Sequence[str], batch: int = 64) -> Tensor:
    return torch.cat([encoder.encode_texts(list(texts[k:k + batch])) for k in range(0, len(texts), batch)]).float()


def _held(train: Part) -> list[int]:
    """A quarter of the pictures; those that name the same two things go together."""
    groups = defaultdict(list)
    for i, row in enumerate(train.holds.tolist()):
        mine = tuple(k for k, there in enumerate(row) if there)
        groups[mine if len(mine) > 1 else train.files[i]].append(i)
    order, held = list(groups.values()), []
    for g in torch.randperm(len(order), generator=torch.Generator().manual_seed(0)).tolist():
        if len(held) + len(order[g]) <= max(2, len(train.files) // 4):
            held += order[g]
    return sorted(held) if len(held) >= 2 else list(range(2))


def pick(part: Part, rows: Tensor) -> Part:
    """只要这几幅图 / Only these pictures, and the captions that they have."""
    columns = part.positives[rows].any(0).nonzero().squeeze(1)

    def of(names: Sequence[str], which: Tensor) -> tuple[str, ...]:
        return tuple(names[i] for i in which.tolist())

    return Part(of(part.files, rows), of(part.sources, rows), of(part.texts, columns),
                part.positives[rows][:, columns], of(part.first, rows), part.holds[rows], part.pixels[rows],
                part.f_v[rows], part.f_t[columns])


def named(caption: str, things: Sequence[str]) -> list[str]:
    """说明里说到哪几样东西，按出现的先后 / Which of the things a caption names, in the order in which they come.

    The longest name counts where one is part of another. 一个名字是另一个的一部分时，算长的。
    """
    if not things:
        return []
    pattern = "|".join(rf"\b{re.escape(name)}\b" if name.isascii() else re.escape(name)
                       for name in sorted(things, key=len, reverse=True))
    known = {name.lower(): name for name in things}
    return list(dict.fromkeys(known[found.lower()] for found in re.findall(pattern, caption, re.IGNORECASE)))


def turned(caption: str, things: Sequence[str]) -> str | None:
    """两样东西对调的说明，没有两样就是 None / A caption with its two things exchanged, None if it has not just two.

    In English each takes its article along. 英文里冠词跟着走。
    """
    two = named(caption, things)
    if len(two) != 2:
        return None

    def pattern(name: str) -> str:
        return rf"\b(?:an? )?{re.escape(name)}\b" if name.isascii() else re.escape(name)

    one, other = (re.search(pattern(name), caption, re.IGNORECASE) for name in two)
    if one.end() > other.start():
        return None
    first, second = (part[0][:1].lower() + part[0][1:] for part in (other, one))  # without a capital
    said = f"{caption[:one.start()]}{first}{caption[one.end():other.start()]}{second}{caption[other.end():]}"
    return said[:1].upper() + said[1:] if caption[:1].isupper() else said


def _likely_things(captions: Mapping[str, Sequence[str]], source: Mapping[str, str]) -> list[str]:
    """Labels (short captions of three pictures or more), or else frequent words, of English only."""
    several = Counter(said for mine in captions.values() for said in mine)
    labels = [said for said, count in several.items() if count >= 3 and len(said) <= 40]
    if len(labels) > 1 and sum(several[said] for said in labels) > len(captions) / 2:
        return [re.sub(r"^(an?|the) ", "", said, flags=re.IGNORECASE) for said in labels]
    tokenizer, count, by = text.default_tokenizer(), Counter(), defaultdict(set)
    for file, mine in captions.items():
        for word in {word for said in mine for word in text.words(tokenizer, said)}:
            if word.isascii() and word.isalpha() and len(word) > 2 and word not in PLAIN:
                count[word] += 1
                by[word].add(source[file])
    wanted = min(2, len(set(source.values())))
    kept = [word for word, n in count.most_common() if 3 <= n <= len(captions) / 3 and len(by[word]) >= wanted]
    return kept[:30]


# -- who looks for captions -------------------------------------------------------------------------------------------

@shapes(positives="bool N M", least={"N": 1, "M": 1})
def chance(positives: Tensor, k: int = 1) -> float:
    """随机猜测的 R@k / R@k of chance: the mean over the queries."""
    n, right = positives.shape[1], positives.sum(1).double()
    miss = torch.ones_like(right)
    for j in range(min(checks.whole(k, "k"), n)):
        miss = miss * ((n - right - j).clamp_min(0) / (n - j))
    return (1 - miss).mean().item()


def similar_pixels(asked: Tensor, known: Tensor) -> Tensor:
    """像素的余弦，先减去平均 / The cosine of pixels less their mean: (N, 3, H, W), (K, 3, H, W) → (N, K)."""
    def flat(x: Tensor) -> Tensor:
        x = x.flatten(1).float()
        return F.normalize(x - x.mean(1, keepdim=True), dim=1)
    return flat(asked) @ flat(known).T


def by_pixels(known: Part, asked: Part) -> Tensor:
    """不学习：相像的已知图画，说明用了哪些词 / No learning: which words the captions of similar known pictures use.

    S_ij is the largest, over the known pictures, of how alike the pixels are times how many words the captions share.

    S_ij 是对所有已知图画取的最大值：像素有多像，乘以说明有多少词相同。
    """
    tokenizer = text.default_tokenizer()
    every = sorted({word for said in (*known.texts, *asked.texts) for word in text.words(tokenizer, said)})
    number = {word: i for i, word in enumerate(every)}

    def bags(texts: Sequence[str]) -> Tensor:
        out = torch.zeros(len(texts), len(number))
        for i, said in enumerate(texts):
            out[i, [number[word] for word in text.words(tokenizer, said)]] = 1
        return F.normalize(out, dim=1)

    alike = bags(known.texts) @ bags(asked.texts).T  # (known captions, asked captions)
    of_picture = torch.stack([alike[row].amax(0) for row in known.positives])  # (known pictures, asked captions)
    pixels = similar_pixels(asked.pixels, known.pixels).clamp_min(0)  # (asked pictures, known pictures)
    return torch.stack([(row[:, None] * of_picture).amax(0) for row in pixels])


def by_cca(known: Part, ridge: float = 0.1) -> Callable[[Part], Tensor]:
    """典型相关分析，第 02b 课的闭式解，用在冻结的特征上 / CCA, the closed form of lesson 02b, on frozen features."""
    pairs = known.positives.nonzero()
    A, B = known.f_v[pairs[:, 0]].double(), known.f_t[pairs[:, 1]].double()
    mean_A, mean_B = A.mean(0), B.mean(0)
    P, Q = correlated(A - mean_A, B - mean_B, ridge, WIDTH)
    return lambda part: cosine_similarity((part.f_v.double() - mean_A) @ P, (part.f_t.double() - mean_B) @ Q)


@typed
def simple(photos: Album) -> dict[str, Tensor]:
    """在你的图上不训练的三种，对测试集 / Three that train nothing on your pictures, for the test set: (N, M) each.

    "pixels", "frozen" (the cosine of the frozen features), "cca".
    """
    test = photos.test
    return {"pixels": by_pixels(photos.train, test), "frozen": cosine_similarity(test.f_v, test.f_t),
            "cca": by_cca(photos.train)(test)}


@typed
class Heads(nn.Module):
    """冻结的特征上的两个投影 / Two projections on frozen features; they begin as they are, and learn from there.

    | name | shape | meaning | 含义 |
    |---|---|---|---|
    | `a` | (N, D) | projected pictures | 投影后的图画 |
    | `b` | (N, D) | projected captions | 投影后的说明 |
    | `c` | (M, D) | projected captions with two things exchanged | 投影后的换过的说明 |
    | `S` | (N, N) | cosine similarity | 余弦相似度 |
    | `L` | | loss (2.1), or (9.4) with exchanged captions | 损失 |
    """

    def __init__(self, width: int):
        super().__init__()
        self.picture, self.text = nn.Linear(width, width), nn.Linear(width, width)
        for side in (self.picture, self.text):
            nn.init.eye_(side.weight)
            nn.init.zeros_(side.bias)

    @shapes(like="picture.weight", f_v="N D", f_t="N D", f_c="M D", tau="scalar")
    def forward(self, f_v: Tensor, f_t: Tensor, f_c: Tensor, tau: Tensor) -> dict[str, Tensor]:
        a, b, c = self.picture(f_v), self.text(f_t), self.text(f_c)
        return {"a": a, "b": b, "c": c, "S": cosine_similarity(a, b), "L": exchanged_loss(a, b, c, tau)}

    @typed
    def similarity(self, part: Part) -> Tensor:
        """图画与说明 / Pictures with captions: (N, M)."""
        with evaluating(self):
            return cosine_similarity(self.picture(part.f_v), self.text(part.f_t))


class Aligning:
    """要学的事：训练部分的图画与说明 / What is to be learned: the pictures and captions of the training part.

    No two pictures of a batch have a caption in common, so that no negative is right.

    一批里没有两幅图有同样的说明，所以没有负例其实是对的。
    """

    def __init__(self, photos: Album, batch: int = BATCH):
        self.known, self.batch = photos.fitted, min(checks.whole(batch, "batch", 2), len(photos.fitted.files))
        self.pairs = [row.nonzero().squeeze(1).tolist() for row in self.known.positives]
        said = {j: other for j, caption in enumerate(self.known.texts)
                if (other := turned(caption, photos.things)) is not None}
        self.exchanged = (dict(zip(said, _encode(photos.encoder, list(said.values())), strict=True)) if said else {})

    def begin(self, device: torch.device) -> Descent:
        return Descent.of(Heads(self.known.f_v.shape[1]).to(device), self.losses, 1e-3, 0.05, total="L")

    def losses(self, model: Heads, batch: Mapping[str, Tensor], tau: float) -> dict[str, Tensor]:
        return {"L": model(**batch, tau=tau)["L"]}

    def step(self, trainer: Descent, generator: torch.Generator, tau: float = 0.1, share: float = 0.0) -> Losses:
        checks.positive(tau, "tau")
        return trainer.train_step(self.draw(generator, share), tau=tau)

    def draw(self, generator: torch.Generator, share: float = 0.0) -> dict[str, Tensor]:
        """下一批 / The next batch."""
        order = torch.randperm(len(self.pairs), generator=generator).tolist()
        lot = torch.rand(len(self.pairs), generator=generator).tolist()
        rows, captions, used = [], [], set()
        for i in order:
            if used.isdisjoint(self.pairs[i]):
                rows.append(i)
                captions.append(self.pairs[i][int(lot[i] * len(self.pairs[i]))])
                used.update(self.pairs[i])
            if len(rows) == self.batch:
                break
        wanted = torch.rand(len(captions), generator=generator) < checks.share(share, "share")
        chosen = [self.exchanged[j] for j, x in zip(captions, wanted.tolist(), strict=True)
                  if x and j in self.exchanged]
        f_c = torch.stack(chosen) if chosen else self.known.f_t[:0]
        return {"f_v": self.known.f_v[rows], "f_t": self.known.f_t[captions], "f_c": f_c}


@typed
def learner(photos: Album, steps: int = STEPS, seed: int = 0, batch: int = BATCH) -> Learner:
    """在特征上学对齐：`train_step(tau=…, share=…)` / Learns to align the features.

    `share` says how many captions with two things join the negatives with the two exchanged.

    `share` 说有两样东西的说明，有几成对调以后也放进负例。
    """
    task = Aligning(photos, batch)
    fits = len(task.draw(torch.Generator().manual_seed(0))["f_v"]) > 1
    checks.require(fits, "训练的图画都有同样的说明，没有可比的",
                   "all training pictures have one caption, so that there is nothing to compare")
    return Learner(task, steps, seed, "cpu")


@dataclass(frozen=True)
class Group:
    """一组图画的成绩，每幅中没中 / The hits of one group of pictures, each right or wrong: (n,), `learned` (S, n)."""

    kind: str  # "held", "validation", "test", and "one", "two" for the number of things, or "all"
    which: str
    chance: float
    pixels: Tensor
    frozen: Tensor
    cca: Tensor
    learned: Tensor


@typed
def by_source(photos: Album, heads: Sequence[nn.Module]) -> list[Group]:
    """训练里有的来源和没有的，各取同样多的图 / Sources seen in training and others, with as many pictures of each.

    Groups with fewer than ten pictures are left out. 不到十幅的组不列。
    """
    checks.require(len(heads) > 0 and all(isinstance(head, Heads) for head in heads), "heads 需要是一列 Heads",
                   "heads must be a list of Heads", TypeError)
    size, cca, groups = len(photos.held.files), by_cca(photos.fitted), []
    for kind in ("held", "test", "validation"):
        whole = getattr(photos, kind)
        some = torch.randperm(len(whole.files), generator=torch.Generator().manual_seed(0))[:size].sort().values
        part = pick(whole, some)
        S = [by_pixels(photos.fitted, part), cosine_similarity(part.f_v, part.f_t), cca(part),
             *(head.similarity(part) for head in heads)]
        pixels, frozen, closed, *learned = (ranks(x, part.positives) == 1 for x in S)
        count, each = part.holds.sum(1), part.positives.sum(1).double() / part.positives.shape[1]
        for which, rows in (("all", count >= 0), ("one", count == 1), ("two", count == 2)):
            if int(rows.sum()) >= 10 or which == "all":
                groups.append(Group(kind, which, each[rows].mean().item(), pixels[rows], frozen[rows], closed[rows],
                                    torch.stack(learned)[:, rows]))
    return groups


# -- the order of words -----------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class OrderQuestions:
    """两幅图、两句话，用词相同而次序相反 / Two pictures and two captions of the same words in the opposite order.

    `rows` is (Q, 4): a picture, another one of the same source, the caption of each. `captions` and `pictures` are the
    cosines of the features of the two captions and of the two pictures, (Q,). There may be none.

    `rows` 是 (Q, 4)：一幅图，同一来源的另一幅，两者的说明。`captions`、`pictures` 是两句说明、两幅图的特征的余弦。
    可以一题也没有。
    """

    rows: Tensor
    captions: Tensor
    pictures: Tensor

    @typed
    def squares(self, S: Tensor) -> Tensor:
        """(9.1) 到 (9.3) 要的四个数 / The four numbers that (9.1) to (9.3) want: (N, M) → (Q, 2, 2)."""
        q, fits = self.rows, S.ndim == 2 and S.is_floating_point()
        if fits and len(q):
            fits = bool((q[:, :2] < S.shape[0]).all() and (q[:, 2:] < S.shape[1]).all())
        checks.require(fits, f"S 需要是所有图画与所有说明的相似度，收到 {checks.shape_of(S)}",
                       f"S must be the similarity of all pictures with all captions, got {checks.shape_of(S)}")
        checks.ranked(S, "S")
        return torch.stack([S[q[:, k], q[:, 2 + j]] for k in range(2) for j in range(2)], 1).view(-1, 2, 2)


@typed
def order_questions(photos: Album, which: str = "test") -> OrderQuestions:
    """这些图能出的词序的题 / The questions of order that these pictures give: of the "test" or the "fitted" part."""
    checks.one_of(which, "which", ("test", "fitted"))
    asked, at, rows = getattr(photos, which), defaultdict(list), []
    for i, (caption, source) in enumerate(zip(asked.first, asked.sources, strict=True)):
        at[caption.lower(), source].append(i)
    where = {caption: j for j, caption in enumerate(asked.texts)}
    for i, (caption, source) in enumerate(zip(asked.first, asked.sources, strict=True)):
        other = turned(caption, photos.things)
        for j in at[other.lower(), source][:1] if other else ():
            if i < j:
                rows.append((i, j, where[caption], where[asked.first[j]]))
    q = torch.tensor(rows, dtype=torch.int64).view(-1, 4)
    return OrderQuestions(q, F.cosine_similarity(asked.f_t[q[:, 2]], asked.f_t[q[:, 3]]),
                          F.cosine_similarity(asked.f_v[q[:, 0]], asked.f_v[q[:, 1]]))


# -- is there a …? ----------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class YesNo:
    """“图里有没有……”的题和回答，(Q,) / Questions “is there a … in the picture?” and answers: (Q,) each."""

    picture: Tensor
    truth: Tensor
    kind: tuple[str, ...]  # how the missing thing was chosen: random, popular, adversarial
    answers: dict[str, Tensor]  # "frozen", "pixels", "frequent", "rare", "always"


@typed
def yes_or_no(photos: Album, seed: int = 0) -> YesNo | None:
    """POPE 的做法：有的和没有的一样多 / As POPE asks: for each thing that is there, one that is not.

    The missing one is drawn at random ("random"), is frequent in the training captions ("popular"), or often comes with
    a thing that is there ("adversarial"), in turn. The threshold of each answer is chosen on the validation set. None
    where the captions name no things.

    没有的那样轮流取：随便一样；训练说明里常见的；常与图里的东西一起出现的。每种回答的界线在验证集上选。说明里没有说到东西
    时返回 None。
    """
    seed = checks.whole(seed, "seed", 0)
    if len(photos.things) < 2:
        return None
    sets = {split: _questions(getattr(photos, split), photos.train, seed) for split in ("validation", "test")}
    if not all(len(rows) for rows in sets.values()):
        return None
    vectors, often = class_vectors(photos), photos.train.holds.double().mean(0)
    scores, truth = {}, {}
    for split, rows in sets.items():
        part = getattr(photos, split)
        picture, thing, right, kind = zip(*rows, strict=True)
        i, k = torch.tensor(picture), torch.tensor(thing)
        near = similar_pixels(part.pixels, photos.train.pixels).argmax(1)
        truth[split] = torch.tensor(right)
        scores[split] = {"frozen": (F.normalize(part.f_v, dim=1) @ vectors.T)[i, k],
                         "pixels": photos.train.holds[near][i, k].float(), "frequent": often[k].float(),
                         "rare": -often[k].float(), "always": torch.ones(len(rows))}
    answers = {name: scores["test"][name] > _threshold(x, truth["validation"])
               for name, x in scores["validation"].items()}
    answers["always"] = torch.ones_like(truth["test"])
    return YesNo(i, truth["test"], kind, answers)


def _questions(asked: Part, known: Part, seed: int) -> list[tuple[int, int, bool, str]]:
    often, together = known.holds.double().sum(0), known.holds.double().T @ known.holds.double()
    generator, rows = torch.Generator().manual_seed(seed), []
    for i, mine in enumerate(asked.holds):
        for k in mine.nonzero().squeeze(1).tolist():
            lots = torch.rand(mine.shape, generator=generator).double()
            kind = ("random", "popular", "adversarial")[len(rows) // 2 % 3]
            likes = {"random": lots, "popular": often + lots,
                     "adversarial": together[mine].sum(0) + lots}[kind].masked_fill(mine, -1.0)
            if not bool(mine.all()):
                rows += [(i, k, True, kind), (i, int(likes.argmax()), False, kind)]
    return rows


def _threshold(scores: Tensor, truth: Tensor) -> float:
    """The threshold above which to say yes, at which most of these questions are right."""
    order = scores.sort(descending=True)
    gained = torch.cat([torch.zeros(1), (2 * truth[order.indices].float() - 1).cumsum(0)])
    ends = torch.cat([order.values[:1] + 1, order.values, order.values[-1:] - 1])
    gained[1:-1][order.values[:-1] == order.values[1:]] = -torch.inf  # no threshold parts what is equal
    k = int(gained.argmax())
    return ((ends[k] + ends[k + 1]) / 2).item()


# -- zero-shot, a linear probe, few examples --------------------------------------------------------------------------

@typed
def class_vectors(photos: Album, prompts: Sequence[str] = ()) -> Tensor:
    """每样东西一个向量 / One vector for each thing, of these prompts with {} in them (12.2): (K, D)."""
    prompts = prompts or PROMPTS[photos.language]
    for prompt in prompts:
        checks.require("{}" in prompt, f"prompts 的每一句要有 {{}}，收到 {prompt!r}",
                       f"each of the prompts must have {{}} in it, got {prompt!r}")
    checks.require(len(photos.things) > 0, "没有 things，请自己给出", "there are no things; give some")
    said = [prompt.replace("{}", thing) for thing in photos.things for prompt in prompts]
    return prompt_ensemble(_encode(photos.encoder, said).view(len(photos.things), len(prompts), -1))


def linear_probe(f: Tensor, labels: Tensor, count: int, strength: float = 0.003) -> Callable[[Tensor], Tensor]:
    """逻辑回归，解到收敛 / Logistic regression on features of length 1, solved to the end: features → (N, count)."""
    x = 4 * F.normalize(f.double(), dim=1)
    W = torch.zeros(count, x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([W], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(x @ W[:, :-1].T + W[:, -1], labels) + strength * W[:, :-1].square().sum()
        loss.backward()
        return loss

    with torch.enable_grad():
        solver.step(closure)
    learned = W.detach()
    return lambda g: (4 * F.normalize(g.double(), dim=1)) @ learned[:, :-1].T + learned[:, -1]


@dataclass(frozen=True)
class Recognised:
    """认东西的成绩，每幅测试图一个 / Who recognises what, right or wrong for each test picture: (L,) bool.

    `few[n]` is (5, L): five draws of n examples a label. `scores` holds cosines and the probe's scores, and `labels`
    what is right, by split.

    `few[n]` 是 (5, L)：五次各抽 n 个例子。`scores` 是余弦和探针的得分，`labels` 是正确答案，按部分。
    """

    things: tuple[str, ...]
    labels: dict[str, Tensor]
    pixels: Tensor
    zero_shot: dict[str, Tensor]  # by prompt, and "ensemble"
    prompts: float  # the mean cosine of the features of two prompts of one thing
    few: dict[int, Tensor]
    probe: Tensor
    scores: dict[str, dict[str, Tensor]]

    @typed
    def by_thing(self, right: Tensor) -> Tensor:
        """每样东西几成对：几幅同样的画算一项 / The share right of each thing: pictures of one drawing are one item."""
        y = self.labels["test"]
        checks.require(right.dtype == torch.bool and right.ndim in (1, 2) and len(right) > 0
                       and right.shape[-1:] == y.shape,
                       f"right 需要是真假，({len(y)},) 或 (S, {len(y)})，收到 {checks.shape_of(right)}",
                       f"right must be true or false, ({len(y)},) or (S, {len(y)}), got {checks.shape_of(right)}")
        return torch.stack([right[..., y == k].double().mean(-1) for k in y.unique().tolist()], -1)


@typed
def recognise(photos: Album) -> Recognised | None:
    """零样本、少样本、线性探针和像素 / Zero-shot with each prompt and with all, few examples, the probe, and pixels.

    Asked of pictures whose captions name just one thing, of the things that every split has. None if there are not two.

    问的是说明里只说到一样东西的图，这些东西每一部分都有。不到两样时返回 None。
    """
    rows, single = {}, {}
    for split in SPLITS:
        holds = getattr(photos, split).holds
        rows[split] = (holds.sum(1) == 1).nonzero().squeeze(1)
        single[split] = holds[rows[split]]
    kept = torch.stack([x.any(0) for x in single.values()]).all(0).nonzero().squeeze(1)
    if len(kept) < 2:
        return None
    f, y = {}, {}
    for split in SPLITS:
        mine = single[split][:, kept]
        rows[split], mine = rows[split][mine.any(1)], mine[mine.any(1)]
        f[split], y[split] = getattr(photos, split).f_v[rows[split]], mine.int().argmax(1)
    return _recognised(photos, kept, rows, f, y)


def _recognised(photos: Album, kept: Tensor, rows: dict, f: dict, y: dict) -> Recognised:
    prompts, count = PROMPTS[photos.language], len(kept)
    unit = {split: F.normalize(x, dim=1) for split, x in f.items()}
    vectors = {prompt: class_vectors(photos, [prompt])[kept] for prompt in prompts}
    pairs = [F.cosine_similarity(vectors[a], vectors[b]) for a in prompts for b in prompts if a < b]
    vectors["ensemble"] = class_vectors(photos)[kept]
    near = similar_pixels(photos.test.pixels[rows["test"]], photos.train.pixels[rows["train"]]).argmax(1)
    probe = linear_probe(f["train"], y["train"], count)
    least = int(torch.bincount(y["train"], minlength=count).min())
    few = {n: torch.stack([_few_shot(f["train"], y["train"], count, n, seed)(f["test"]).argmax(1) == y["test"]
                           for seed in range(DRAWN)]) for n in SHOTS if n <= least}
    scores = {"zero-shot": {split: x @ vectors["ensemble"].T for split, x in unit.items()},
              "probe": {split: probe(x) for split, x in f.items()}}
    return Recognised(tuple(photos.things[k] for k in kept.tolist()), y, y["train"][near] == y["test"],
                      {name: (unit["test"] @ w.T).argmax(1) == y["test"] for name, w in vectors.items()},
                      torch.cat(pairs).mean().item(), few, probe(f["test"]).argmax(1) == y["test"], scores)


def _few_shot(f: Tensor, labels: Tensor, count: int, shots: int, seed: int) -> Callable[[Tensor], Tensor]:
    generator, rows = torch.Generator().manual_seed(seed), []
    for k in range(count):
        mine = (labels == k).nonzero().squeeze(1)
        rows.append(mine[torch.randperm(len(mine), generator=generator)[:shots]])
    chosen = torch.cat(rows)
    return linear_probe(f[chosen], labels[chosen], count)


@shapes(scores="N K", labels="int64 N", least={"N": 1, "K": 2})
def best_temperature(scores: Tensor, labels: Tensor) -> float:
    """验证集上损失最小的温度 / The temperature at which these labels are most probable (temperature scaling)."""
    checks.classes(labels, "labels", *scores.shape)
    checks.require(bool(scores.isfinite().all()), "scores 里有 NaN 或无穷", "scores holds NaN or infinity")
    choices = torch.logspace(-3, 1, 161, dtype=torch.float64)
    losses = torch.stack([F.cross_entropy(scores.double() / t, labels) for t in choices])
    return choices[int(losses.argmin())].item()


@shapes(scores="N K", labels="int64 N", least={"N": 1, "K": 2})
def softmax_error(scores: Tensor, labels: Tensor, temperature: float = 1.0) -> float:
    """除以温度、取 softmax 之后的 (12.3) / (12.3) of scores divided by a temperature and passed through a softmax."""
    return calibration_error((scores / checks.positive(temperature, "temperature")).softmax(1), labels)


# -- search -----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Searched:
    """一种搜索的快慢和准头 / How fast a search is, and how much of the exact answer it finds."""

    found: Tensor  # (Q,) the share of the exact ten that it returns
    milliseconds: float  # a query
    building: float  # seconds


@shapes(features="N D", least={"N": 2, "D": 1})
def searches(features: Tensor, count: int, queries: int = 200, k: int = 10,
             efforts: Sequence[int] = (16, 64, 256)) -> dict[str, Searched]:
    """精确的搜索和图索引 / Exact search, and the graph index of faiss (HNSW) where it is installed.

    `count` features are made of these: random mixtures of two and some noise. "exact" compares with every one; "16" is
    the index with an effort of 16, that is how many candidates it keeps. Malkov and Yashunin 2020: each vector is
    linked to some of its neighbours, and a search walks along the links.

    由这些特征变出 `count` 个：随机取两个来混合，加一点噪声。"exact" 与每一个比；"16" 是索引，搜索时手上留 16 个候选。
    每个向量与几个邻居相连，搜索沿着连线走。没有装 faiss 时只有 "exact"。
    """
    count, queries = checks.whole(count, "count", 2), checks.whole(queries, "queries")
    checks.require(bool(features.isfinite().all() and (features.norm(dim=1) > 0).all()),
                   "features 里有 NaN、无穷或长度为 0 的", "features holds NaN, infinity or one of length 0")
    known, asked = (_mixed(features.float(), n, seed) for seed, n in enumerate((count, queries)))
    k = min(checks.whole(k, "k"), count)
    begun = time.perf_counter()
    exact = torch.cat([(row[None] @ known.T).topk(k).indices for row in asked])
    results = {"exact": Searched(torch.ones(queries), 1000 * (time.perf_counter() - begun) / queries, 0.0)}
    try:
        import faiss
    except ModuleNotFoundError:
        return results
    faiss.omp_set_num_threads(1)
    begun = time.perf_counter()
    index = faiss.IndexHNSWFlat(known.shape[1], 16, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 128
    index.add(known.contiguous().numpy())
    building = time.perf_counter() - begun
    for effort in efforts:
        index.hnsw.efSearch = checks.whole(effort, "efforts")
        begun = time.perf_counter()
        rows = [index.search(row[None].numpy(), k)[1][0].tolist() for row in asked]
        taken = 1000 * (time.perf_counter() - begun) / queries
        found = (torch.tensor(rows)[:, :, None] == exact[:, None]).any(2).double().mean(1)
        results[f"{effort}"] = Searched(found, taken, building)
    return results


def _mixed(features: Tensor, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = F.normalize(features, dim=1)
    one, other = (torch.randint(len(x), (count,), generator=generator) for _ in range(2))
    share = torch.rand(count, 1, generator=generator)
    noise = torch.randn(count, x.shape[1], generator=generator) / x.shape[1] ** 0.5
    return F.normalize(share * x[one] + (1 - share) * x[other] + 0.5 * noise, dim=1)


# -- the reader's own -------------------------------------------------------------------------------------------------

@typed
def read_picture(content: bytes) -> Tensor:
    """一个上传的文件 → uint8 图像 / An uploaded file as a uint8 picture (3, H, W); ValueError says what is wrong."""
    try:
        image, _ = reading.read(content)
    except reading.Unreadable as error:
        zh, en = (said.format(**error.known) for said in SAY[error.kind])
        checks.refuse(f"这个文件{zh}", f"this file {en}")
    return reading.prepare(image, None, None)


@typed
def ask(photos: Album, content: bytes, most: int = 3) -> tuple[list[tuple[str, float]], list[str]]:
    """一幅图是什么：最像的几样东西，最像的几句说明 / What a picture is: the most similar things and captions.

    Each thing comes with its probability, and the captions are those of the test set. ValueError says what is wrong
    with the file.

    每样东西连着概率，说明是测试集的。文件不对时，ValueError 说哪里不对。
    """
    most = checks.whole(most, "most")
    f = F.normalize(photos.encoder.encode_pictures([read_picture(content)]).float(), dim=1)
    things = []
    if photos.things:
        like = ((f @ class_vectors(photos).T)[0] / photos.tau).softmax(0).topk(min(most, len(photos.things)))
        things = [(photos.things[k], p) for k, p in zip(like.indices.tolist(), like.values.tolist(), strict=True)]
    near = cosine_similarity(f, photos.test.f_t)[0].topk(min(most, len(photos.test.texts))).indices.tolist()
    return things, [photos.test.texts[j] for j in near]


@typed
def write_results(path: Path | str, scores: Mapping[str, Any]) -> Path:
    """写 results.json：每个成绩、区间、多少题 / Write results.json: each score, its interval, and of how many items.

    An `Interval` becomes {"value", "low", "high"}; anything else must be a number or a text.

    `Interval` 写成 {"value", "low", "high"}；别的须是数或文字。
    """
    out = {}
    for name, value in scores.items():
        if isinstance(value, Interval):
            value = {"value": value.value, "low": value.low, "high": value.high}
        elif not isinstance(value, (str, int, float)):
            checks.refuse(f"{name} 需要是 Interval、数或文字，收到 {type(value).__name__}",
                          f"{name} must be an Interval, a number or a text, got {type(value).__name__}", TypeError)
        out[name] = value
    path = Path(path).expanduser()
    path.write_text(json.dumps(out, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return path
