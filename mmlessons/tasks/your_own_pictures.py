"""你自己的图画：一个文件夹，走完前面各课的考试 / Your own pictures: a folder taken through the exams of the lessons.

A folder with captions becomes an `Album`, whose pictures and captions get features from a frozen encoder. On these
features a projection for each side learns (2.1). Where there is no pretrained model, `stand_in` trains a small one on
other artists than those of the folder that `write_folder` makes.

一个带说明的文件夹变成 `Album`，图画和说明的特征来自一个冻结的编码器。在这些特征上，两边各有一个投影用 (2.1) 学习。没有
预训练模型时，`stand_in` 用别的作者的图画训练一个小的，这些作者不在 `write_folder` 写出的文件夹里。
"""

import csv
import io
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mmcore import checks
from mmcore import tokens as text
from mmcore.alignment import contrastive_loss, cosine_similarity
from mmcore.checks import shapes
from mmcore.encoders import TextEncoder, VisualEncoder
from mmcore.reporting import prompt_ensemble
from mmcore.training import evaluating
from mmcore.word_order import exchanged_loss
from mmlessons.border import check_pictures, typed
from mmlessons.data import emoji, folder
from mmlessons.data.features import features
from mmlessons.data.folder import reading
from mmlessons.data.folder.problems import SAY
from mmlessons.data.scenes import THINGS
from mmlessons.intervals import Interval
from mmlessons.tasks.learner import Descent, Learner, Losses, seeded
from mmlessons.tasks.what_pairs_do_not_say import correlated

OTHERS = ("noto", "noto-v1", "emojione", "emojione-v1")  # whose drawings the stand-in learns from
SIZE, DRAWN = 48, 24  # pixels of a picture, of a drawing in it at its usual size
SINGLES, PAIRS = 4, 100  # how often each artist draws one thing; of how many pairs of things, both ways round
SPLIT = {"fluent": "train", "fxemoji": "train", "openmoji": "validation", "twemoji": "test"}
WORDINGS = {  # what is said of two things side by side, and of one
    "en": ("{A} is left of {b}.", "{B} is right of {a}.", "{a}", "a drawing of {a}"),
    "zh": ("{a}在{b}的左边。", "{b}在{a}的右边。", "{a}", "一幅{a}的画")}
LANGUAGES = ("en", "zh")
WIDTH, STEPS, BATCH, TAU = 128, 400, 96, 0.07
PRETRAINING = 500, 5e-3  # steps and step size of the stand-in
PLAIN = (  # words that are no things
    "the", "and", "with", "for", "from", "that", "this", "are", "was", "his", "her", "its", "not", "has", "have", "one",
    "two", "left", "right", "above", "below", "under", "over", "near", "next", "front", "behind", "into", "onto", "out",
    "off", "drawing", "picture", "photo", "image")


# -- a folder, where the reader has none ------------------------------------------------------------------------------

def said_of(first: int, second: int | None, wording: int, language: str) -> str:
    """说这幅图的一句话 / A sentence about a picture of one thing, or of two side by side."""
    def name(k: int) -> str:
        return THINGS[k].article if language == "en" else THINGS[k].zh
    a, b = name(first), "" if second is None else name(second)
    form = WORDINGS[language][wording if second is not None else 2 + wording]
    return form.format(a=a, b=b, A=a.capitalize(), B=b.capitalize())


def draw_page(drawings: Sequence[Tensor], generator: torch.Generator) -> Tensor:
    """一幅或两幅画，画在一张白纸上 / One drawing or two side by side on a white page: (3, SIZE, SIZE) uint8.

    Size and place are drawn, so that the same drawing never gives the same pixels twice.
    大小和位置是抽的，所以同一幅画不会两次给出同样的像素。
    """
    page = torch.full((3, SIZE, SIZE), 255, dtype=torch.uint8)
    for k, drawing in enumerate(drawings):
        room = SIZE // len(drawings)
        low, high = (DRAWN + 4, 40) if len(drawings) == 1 else (DRAWN - 5, DRAWN)
        size = int(torch.randint(low, high + 1, (), generator=generator))
        x, y = (int(torch.randint(0, free - size + 1, (), generator=generator)) for free in (room, SIZE))
        small = F.interpolate(drawing[None].float(), (size, size), mode="bilinear", antialias=True)[0]
        page[:, y:y + size, k * room + x:k * room + x + size] = small.round().clamp(0, 255).to(torch.uint8)
    return page


def _pairs(generator: torch.Generator, count: int) -> list[tuple[int, int]]:
    n = len(THINGS)
    every = [(a, b) for a in range(n) for b in range(a + 1, n)]
    return [every[k] for k in torch.randperm(len(every), generator=generator)[:count].tolist()]


@typed
def drawn_things(language: str = "en") -> list[str]:
    """那个文件夹里画的三十样东西 / The thirty things drawn in that folder."""
    checks.one_of(language, "language", LANGUAGES)
    return [getattr(thing, language) for thing in THINGS]


@typed
def write_folder(path: Path | str, seed: int = 0) -> Path:
    """写一个画的文件夹，连同说明和毛病 / Write a folder of drawings with captions, and with the faults of real ones.

    Four artists, whose name is the `source`; each draws 30 things four times and 100 pairs both ways round, with two
    captions a picture in both languages. Faults are put in on purpose: files twice, pictures that were copied and made
    a little brighter under another source, captions that sign their artist, a damaged file, a row without a file, an
    empty caption. Raises ValueError if the folder is there and holds anything.

    四位作者，名字就是 `source`；每人把三十样东西各画四次，一百对东西左右各画一次，每幅图两句说明，两种语言都有。特意
    放进了毛病：同一文件两份，换了来源、稍微调亮的翻印，署着作者名的说明，一个坏文件，没有文件的一行，空的说明。文件夹已经有
    东西时报 ValueError。
    """
    root, generator = Path(path).expanduser(), torch.Generator().manual_seed(checks.whole(seed, "seed", 0))
    checks.require(not root.exists() or (root.is_dir() and not any(root.iterdir())),
                   f"{path} 里已经有东西，请换一个新的文件夹", f"{path} is not empty; name a new folder")
    root.mkdir(parents=True, exist_ok=True)
    data = emoji.load("classroom")
    index = [data.names("en").index(thing.concept) for thing in THINGS]
    rows, kept = [], []

    def keep(name: str, page: Tensor) -> None:
        Image.fromarray(page.permute(1, 2, 0).numpy()).save(root / name)

    def said(first: int, second: int | None, wording: int = 0) -> list[str]:
        return [said_of(first, second, wording, language) for language in LANGUAGES]

    for artist, split in SPLIT.items():
        drawn = data.pictures[artist][index]
        shown = [(k, None) for k in range(len(THINGS)) for _ in range(SINGLES)]
        for a, b in _pairs(generator, PAIRS):
            shown += [(a, b), (b, a)]
        for number, (first, second) in enumerate(shown):
            name = f"{artist}-{number:03d}.png"
            page = draw_page([drawn[k] for k in (first, second) if k is not None], generator)
            keep(name, page)
            kept.append((name, artist, first, second, page))
            signed = " by FxEmojis" if artist == "fxemoji" and number % 8 == 0 else ""
            for wording in range(2):
                en, zh = said(first, second, wording)
                rows.append([name, en + signed, zh, artist, split])
    copied = torch.randperm(len(kept), generator=generator)[:24].tolist()
    for k in copied[:8]:  # the same file twice
        name, artist, first, second, page = kept[k]
        keep(f"copy-of-{name}", page)
        rows.append([f"copy-of-{name}", *said(first, second), artist, SPLIT[artist]])
    for k in copied[8:]:  # printed again, a little brighter, and nobody knows where it comes from
        name, artist, first, second, page = kept[k]
        keep(f"reprint-{k:03d}.png", 255 - ((255 - page.float()) * 0.93).round().to(torch.uint8))
        rows.append([f"reprint-{k:03d}.png", *said(first, second), "", "train"])
    (root / "broken.png").write_bytes((root / kept[0][0]).read_bytes()[:300])
    rows += [["broken.png", "a dog", "狗", "", "train"], ["lost.png", "a cat", "猫", "", "train"],
             [kept[1][0], "", "", kept[1][1], ""]]
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(["file_name", "text", "text_zh", "source", "split"])
    writer.writerows(rows)
    (root / "metadata.csv").write_text(out.getvalue(), encoding="utf-8")
    return root


# -- a stand-in for a pretrained model --------------------------------------------------------------------------------

class StandIn(nn.Module):
    """顶替预训练模型的小编码器 / A small encoder that stands in for a pretrained one.

    It is used like `mmcore.from_clip`: `encode_pictures`, `encode_texts`. It knows only drawings and the words that it
    was trained on; other words become [UNK].

    用法同 `mmcore.from_clip`：`encode_pictures`、`encode_texts`。它只认得训练用的画法和词，别的词变成 [UNK]。
    """

    def __init__(self, tokenizer: object, width: int = WIDTH):
        super().__init__()
        self.model = nn.ModuleDict({"pictures": VisualEncoder(width), "texts": TextEncoder(
            feature_dim=width, tokenizer=tokenizer)})
        self.pixels = f"white square of {SIZE}"

    def forward(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        return self.model["pictures"](image), self.model["texts"](input_ids, attention_mask)

    def encode_pictures(self, pictures: Tensor | Sequence[Tensor]) -> Tensor:
        """uint8 图像，大小不限 → (N, D) / uint8 pictures of any size → features."""
        checks.require(isinstance(pictures, (list, tuple, Tensor)) and len(pictures) > 0,
                       f"pictures 需要是一列图像，不能是空的，收到 {type(pictures).__name__}",
                       f"pictures must be a list of pictures, not empty, got {type(pictures).__name__}", TypeError)
        for i, picture in enumerate(pictures):
            check_pictures(picture, f"pictures[{i}]", 3, "H", "W")
        with evaluating(self):
            return self.model["pictures"](torch.stack([square(x, SIZE) for x in pictures]) / 255)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """文本 → (N, D) / Texts → features."""
        tokens = self.model["texts"].tokenize(list(texts))
        with evaluating(self):
            return self.model["texts"](tokens["input_ids"], tokens["attention_mask"])


@typed
def square(picture: Tensor, size: int) -> Tensor:
    """缩放到白底的正方形里 / Scaled to fit a white square: (3, H, W) uint8 → (3, size, size) uint8."""
    check_pictures(picture, "picture", 3, "H", "W")
    size = checks.whole(size, "size")
    height, width = picture.shape[1:]
    if (height, width) == (size, size):
        return picture
    share = size / max(height, width)
    fitted = [max(1, round(x * share)) for x in (height, width)]
    small = F.interpolate(picture[None].float(), fitted, mode="bilinear", antialias=True)[0]
    out = torch.full((3, size, size), 255, dtype=torch.uint8)
    top, left = (size - fitted[0]) // 2, (size - fitted[1]) // 2
    out[:, top:top + fitted[0], left:left + fitted[1]] = small.round().clamp(0, 255).to(torch.uint8)
    return out


class Pretraining:
    """顶替者学的事：别的作者的图画与说明，对比损失 (2.1) / What the stand-in learns: drawings of others, by (2.1)."""

    def __init__(self, batch: int = 128):
        data = emoji.load("classroom")
        self.batch, names = batch, {language: data.names(language) for language in LANGUAGES}
        self.things = torch.tensor([names["en"].index(thing.concept) for thing in THINGS])
        self.drawings = torch.stack([data.pictures[artist] for artist in OTHERS])
        self.small = F.interpolate(self.drawings.flatten(0, 1).float(), (DRAWN, DRAWN), mode="bilinear",
                                   antialias=True).view(*self.drawings.shape[:3], DRAWN, DRAWN)
        self.large = F.interpolate(self.drawings.flatten(0, 1).float(), (36, 36), mode="bilinear",
                                   antialias=True).view(*self.drawings.shape[:3], 36, 36)
        said = []  # row: (wording, language, first, second) of things; then names of concepts
        count = len(THINGS)
        for wording in range(2):
            for language in LANGUAGES:
                said += [said_of(a, b, wording, language) for a in range(count) for b in range(count)]
        self.first_name = len(said)
        for language, forms in (("en", ("a {}", "a drawing of a {}")), ("zh", ("{}", "一幅{}的画"))):
            for form in forms:
                said += [form.format(name) for name in names[language]]
        self.tokenizer = text.build_tokenizer([*said, "an", "An"])
        rows = self.tokenizer.encode_batch(said)
        self.input_ids = torch.tensor([row.ids for row in rows])
        self.attention_mask = torch.tensor([row.attention_mask for row in rows])

    def begin(self, device: torch.device) -> Descent:
        return Descent.of(StandIn(self.tokenizer).to(device), self.losses, PRETRAINING[1], 0.3, total="L")

    def losses(self, model: StandIn, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"L": contrastive_loss(*model(**batch), TAU)}

    def step(self, trainer: Descent, generator: torch.Generator) -> Losses:
        return trainer.train_step(self.draw(generator))

    def draw(self, generator: torch.Generator) -> dict[str, Tensor]:
        """一批：一半是一样东西，一半是左右两样 / A batch, half of one thing and half of two side by side."""
        half, count, artists = self.batch // 2, len(THINGS), len(OTHERS)
        def below(n: int, many: int = half) -> Tensor:
            return torch.randint(n, (many,), generator=generator)
        one = torch.randperm(self.small.shape[1], generator=generator)[:half]
        pages = torch.full((2 * half, 3, SIZE, SIZE), 255.0)
        place = below(SIZE - 36 + 1, 2).tolist()
        pages[:half, :, place[0]:place[0] + 36, place[1]:place[1] + 36] = self.large[below(artists), one]
        first = torch.randint(count, (half,), generator=generator)
        second = (first + 1 + below(count - 1)) % count
        for k, things in enumerate((first, second)):
            y = int(below(SIZE - DRAWN + 1, 1))
            pages[half:, :, y:y + DRAWN, k * DRAWN:(k + 1) * DRAWN] = self.small[below(artists), self.things[things]]
        image = shaken(pages / 255, generator)
        wording, language = below(2), below(2)
        pair_rows = ((wording * 2 + language) * count + first) * count + second
        name_rows = self.first_name + below(4) * self.small.shape[1] + one
        rows = torch.cat([name_rows, pair_rows])
        mask = self.attention_mask[rows]
        longest = int(mask.sum(1).max())
        return {"image": image, "input_ids": self.input_ids[rows, :longest], "attention_mask": mask[:, :longest]}


def shaken(image: Tensor, generator: torch.Generator) -> Tensor:
    """随机地转、移、变色，左右不翻 / Turned, moved and coloured at random, never mirrored: left must stay left."""
    n = len(image)
    def uniform(low: float, high: float) -> Tensor:
        return torch.rand(n, generator=generator) * (high - low) + low
    angle, sx, sy = uniform(-0.3, 0.3), uniform(0.8, 1.25), uniform(0.8, 1.25)
    theta = torch.stack([torch.stack([sx * angle.cos(), -sy * angle.sin(), uniform(-0.15, 0.15)], 1),
                         torch.stack([sx * angle.sin(), sy * angle.cos(), uniform(-0.15, 0.15)], 1)], 1)
    grid = F.affine_grid(theta, image.shape, align_corners=False)
    moved = 1 - F.grid_sample(1 - image, grid, align_corners=False)
    light = uniform(0.75, 1.25).view(n, 1, 1, 1)
    tint = 1 + 0.25 * (torch.rand(n, 3, 1, 1, generator=generator) - 0.5)
    return ((moved - 0.5) * light * tint + 0.5).clamp(0, 1)


@typed
def pretrain(seed: int = 0, steps: int = PRETRAINING[0]) -> dict[str, Tensor]:
    """训练顶替者，返回权重 / Train the stand-in; its weights, which `stand_in` takes."""
    return Learner(Pretraining(), steps, seed, "cpu").finish().model.state_dict()


@typed
def stand_in(weights: Mapping[str, Tensor]) -> StandIn:
    """冻结的顶替者 / The stand-in with these weights, frozen."""
    with seeded(0):
        model = StandIn(Pretraining().tokenizer)
    try:
        model.load_state_dict(dict(weights))
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:
        checks.refuse(f"weights 不是 pretrain 给出的：{str(error)[:200]}",
                      f"weights are not those of pretrain: {str(error)[:200]}")
    return model.eval().requires_grad_(False)


# -- an album: the pictures and captions of one split -----------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class Part:
    """一部分：N 幅图，M 句不同的说明 / One split: N pictures, M different captions.

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `files`, `sources` | N | 文件名，来源 / names of the files, and their sources |
    | `texts` | M | 说明，每句一次 / the captions, each once |
    | `positives` | (N, M) bool | 哪句说的是哪幅 / which caption is of which picture |
    | `first` | N | 每幅的第一句说明 / the first caption of each picture |
    | `pixels` | (N, 3, 32, 32) uint8 | 缩小了的图 / the pictures, made small |
    | `f_v`, `f_t` | (N, D), (M, D) | 冻结的特征 / frozen features |
    """

    files: tuple[str, ...]
    sources: tuple[str, ...]
    texts: tuple[str, ...]
    positives: Tensor
    first: tuple[str, ...]
    pixels: Tensor
    f_v: Tensor
    f_t: Tensor


@typed
def part(data: folder.Folder, split: str, encoder: nn.Module, language: str = "en", without: Sequence[str] = (),
         strip: Sequence[str] = (), cache: str | Path | None = None) -> Part:
    """读一部分，算特征 / Read one split and compute its features, which are kept in `cache`.

    `without` are files to leave out, `strip` words to take out of the captions. With "zh" captions are `text_zh` where
    there is one. Raises ValueError where nothing is left.

    `without` 是不要的文件，`strip` 是从说明里去掉的词。"zh" 时，有 `text_zh` 就用它。一幅不剩时报 ValueError。
    """
    checks.one_of(language, "language", LANGUAGES)
    _check_encoder(encoder)
    shown = data.pictures(split)
    captions: dict[str, list[str]] = {}
    source = {}
    for index in data.splits[split].tolist():
        row = data.rows[index]
        if row.file not in without:
            said = (row.text_zh if language == "zh" else "") or row.text
            said = stripped(said, strip)
            if said:
                captions.setdefault(row.file, [])
                captions[row.file] += [said] if said not in captions[row.file] else []
                source[row.file] = row.source
    checks.require(len(captions) > 0, f"{split} 这一部分没有图画了；请多放几幅，或在表里写上 split",
                   f"there are no pictures in {split}; add some, or say the split in the table")
    files = tuple(captions)
    at = {}
    for i, index in enumerate(shown.which.tolist()):
        at.setdefault(data.rows[index].file, i)
    seen, small = {}, []

    def read():
        for file in files:
            picture = shown[at[file]]["picture"]
            small.append(square(picture, 32))
            yield file, picture

    seen = features(read(), encoder, cache)
    texts = tuple(dict.fromkeys(said for several in captions.values() for said in several))
    where = {said: j for j, said in enumerate(texts)}
    positives = torch.zeros(len(files), len(texts), dtype=torch.bool)
    for i, file in enumerate(files):
        for said in captions[file]:
            positives[i, where[said]] = True
    return Part(files, tuple(source[file] for file in files), texts, positives,
                tuple(captions[file][0] for file in files), torch.stack(small), seen.values, encode(encoder, texts))


@typed
def encode(encoder: nn.Module, texts: Sequence[str], batch: int = 64) -> Tensor:
    """说明的特征 / The features of texts: (M, D)."""
    _check_encoder(encoder)
    text.check_texts(texts)
    return torch.cat([encoder.encode_texts(list(texts[k:k + batch])) for k in range(0, len(texts), batch)]).float()


def _check_encoder(encoder: nn.Module) -> None:
    checks.require(all(hasattr(encoder, name) for name in ("encode_pictures", "encode_texts")),
                   f"encoder 需要有 encode_pictures 和 encode_texts，收到 {type(encoder).__name__}",
                   f"encoder must have encode_pictures and encode_texts, got {type(encoder).__name__}", TypeError)


def _check_parts(parts: Mapping[str, Part]) -> None:
    lacking = [split for split in ("train", "validation", "test") if split not in parts]
    checks.require(not lacking, f"parts 里缺 {lacking}", f"parts lacks {lacking}")


def stripped(said: str, words: Sequence[str]) -> str:
    """去掉这些词 / A caption without these words."""
    for word in words:
        said = re.sub(rf"\b{re.escape(word)}\b" if word.isascii() else re.escape(word), "", said, flags=re.IGNORECASE)
    return re.sub(r"\s+", " ", said).strip()


@typed
def pick(part: Part, rows: Tensor) -> Part:
    """只要这几幅图 / Only these pictures, and the captions that they have."""
    checks.require(rows.dtype == torch.int64 and rows.ndim == 1 and len(rows) > 0
                   and bool(((rows >= 0) & (rows < len(part.files))).all()),
                   f"rows 需要是 int64 的编号，在 0 到 {len(part.files) - 1} 之间",
                   f"rows must be int64 numbers from 0 to {len(part.files) - 1}")
    columns = part.positives[rows].any(0).nonzero().squeeze(1)
    def of(names: Sequence[str], which: Tensor) -> tuple[str, ...]:
        return tuple(names[i] for i in which.tolist())
    return Part(of(part.files, rows), of(part.sources, rows), of(part.texts, columns),
                part.positives[rows][:, columns], of(part.first, rows), part.pixels[rows], part.f_v[rows],
                part.f_t[columns])


# -- what is wrong with the data, before any score --------------------------------------------------------------------

@typed
def near_duplicates(data: folder.Folder, most: float = 0.999, size: int = 24) -> list[tuple[str, str, float]]:
    """不同部分里几乎一样的图 / Pictures of different splits that are nearly alike: (of the test, of training, cosine).

    Small pictures less their mean are compared by cosine, so brightness and contrast do not matter. Exact duplicates
    were already kept together by the loader.

    缩小的图减去平均，比余弦，所以明暗和对比度没有影响。完全相同的，载入时已经放在一起。
    """
    flat, names = {}, {}
    for split in ("train", "validation", "test"):
        shown = data.pictures(split, size)
        once = {data.rows[index].file: i for i, index in reversed(list(enumerate(shown.which.tolist())))}
        names[split] = sorted(once)
        rows = [shown[once[file]]["picture"].flatten().float() for file in names[split]]
        x = torch.stack(rows) if rows else torch.zeros(0, 3 * size * size)
        flat[split] = F.normalize(x - x.mean(1, keepdim=True), dim=1) if rows else x
    found = []
    for split in ("test", "validation"):
        if not len(flat[split]) or not len(flat["train"]):
            continue
        best, where = (flat[split] @ flat["train"].T).max(1)
        found += [(names[split][i], names["train"][where[i]], best[i].item())
                  for i in (best > most).nonzero().squeeze(1).tolist()]
    return found


@dataclass(frozen=True)
class Giveaway:
    """只有一个来源用的词 / A word that only one source uses."""

    word: str
    source: str
    count: int  # captions with it
    captions: int  # of this source


@typed
def giveaways(data: folder.Folder, least: int = 5) -> list[Giveaway]:
    """说明里透露来源的词 / Words of captions that tell the source: in `least` captions or more, and all of one source.

    Whoever reads such a word knows the style of the picture, and can choose among fewer. With fewer than two sources
    there is nothing to find.

    读到这样的词，就知道图是谁的画风，只需在少数几幅里选。来源不到两个时，没有可查的。
    """
    tokenizer = text.default_tokenizer()
    held, total = defaultdict(Counter), Counter()
    for row in data.rows:
        total[row.source] += 1
        for word in {word for word in text.words(tokenizer, row.text) if text.is_word(word)}:
            held[word][row.source] += 1
    if len([source for source in total if source]) < 2:
        return []
    found = [Giveaway(word, source, count, total[source]) for word, by in held.items() if len(by) == 1
             for source, count in by.items() if source and count >= least]
    return sorted(found, key=lambda each: (-each.count, each.word))


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


@typed
def by_pixels(known: Part, asked: Part) -> Tensor:
    """不学习：最像的已知图画的说明用了哪些词 / No learning: which words the captions of similar known pictures use.

    S_ij is the largest, over the known pictures, of how alike the pixels are times how many words the captions share.

    S_ij 是对所有已知图画取的最大值：像素有多像，乘以说明有多少词相同。
    """
    tokenizer = text.default_tokenizer()
    def bags(texts: Sequence[str], number: dict[str, int]) -> Tensor:
        out = torch.zeros(len(texts), len(number))
        for i, said in enumerate(texts):
            for word in set(text.words(tokenizer, said)):
                if word in number:
                    out[i, number[word]] = 1
        return F.normalize(out, dim=1)
    every = sorted({word for said in (*known.texts, *asked.texts) for word in text.words(tokenizer, said)})
    number = {word: i for i, word in enumerate(every)}
    alike = bags(known.texts, number) @ bags(asked.texts, number).T  # (known captions, asked captions)
    of_picture = torch.stack([alike[row].amax(0) for row in known.positives])  # (known pictures, asked captions)
    pixels = similar_pixels(asked.pixels, known.pixels).clamp_min(0)  # (asked pictures, known pictures)
    return torch.stack([(row[:, None] * of_picture).amax(0) for row in pixels])


@typed
def by_cca(known: Part, ridge: float = 0.1) -> Callable[[Part], Tensor]:
    """典型相关分析，第 02b 课的闭式解，用在冻结的特征上 / CCA, the closed form of lesson 02b, on frozen features."""
    pairs = known.positives.nonzero()
    A, B = known.f_v[pairs[:, 0]].double(), known.f_t[pairs[:, 1]].double()
    mean_A, mean_B = A.mean(0), B.mean(0)
    P, Q = correlated(A - mean_A, B - mean_B, checks.positive(ridge, "ridge"), WIDTH)
    return lambda part: cosine_similarity((part.f_v.double() - mean_A) @ P, (part.f_t.double() - mean_B) @ Q)


@typed
class Heads(nn.Module):
    """冻结的特征上的两个投影 / Two projections on frozen features; they begin as they are, and learn from there.

    | name | shape | meaning | 含义 |
    |---|---|---|---|
    | `a` | (N, D) | projected pictures | 投影后的图画 |
    | `b` | (N, D) | projected captions | 投影后的说明 |
    | `S` | (N, N) | cosine similarity | 余弦相似度 |
    | `L` | | loss (2.1), or (9.4) with exchanged captions `c` | 损失 |
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

    def similarity(self, part: Part) -> Tensor:
        """图画与说明 / Pictures with captions: (N, M)."""
        with evaluating(self):
            return cosine_similarity(self.picture(part.f_v), self.text(part.f_t))


class Aligning:
    """要学的事：训练部分的图画与说明 / What is to be learned: the pictures and captions of the training part.

    No two pictures of a batch have a caption in common, so that no negative is right.

    一批里没有两幅图有同样的说明，所以没有负例其实是对的。
    """

    def __init__(self, known: Part, exchanged: Mapping[int, Tensor] | None = None, batch: int = BATCH):
        self.known, self.batch = known, min(checks.whole(batch, "batch", 2), len(known.files))
        self.exchanged = exchanged or {}
        self.pairs = [row.nonzero().squeeze(1).tolist() for row in known.positives]

    def begin(self, device: torch.device) -> Descent:
        return Descent.of(Heads(self.known.f_v.shape[1]).to(device), self.losses, 1e-3, 0.05, total="L")

    def losses(self, model: Heads, batch: Mapping[str, Tensor], tau: float) -> dict[str, Tensor]:
        return {"L": model(**batch, tau=tau)["L"]}

    def step(self, trainer: Descent, generator: torch.Generator, tau: float = TAU, share: float = 0.0) -> Losses:
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
        chosen = [self.exchanged[j] for j in captions if j in self.exchanged]
        keep = torch.rand(len(chosen), generator=generator) < checks.share(share, "share")
        chosen = [x for x, wanted in zip(chosen, keep.tolist(), strict=True) if wanted]
        f_c = torch.stack(chosen) if chosen else self.known.f_t[:0]
        return {"f_v": self.known.f_v[rows], "f_t": self.known.f_t[captions], "f_c": f_c}


@typed
def learner(known: Part, encoder: nn.Module | None = None, things: Sequence[str] = (), steps: int = STEPS,
            seed: int = 0, batch: int = BATCH) -> Learner:
    """在特征上学对齐：`train_step(tau=…, share=…)` / Learns to align the features.

    With `encoder` and `things`, captions of two things get a version with the two exchanged, and `share` says how many
    of these join the negatives.

    给了 `encoder` 和 `things`，说到两样东西的说明有一句对调的，`share` 说负例里添上几成。
    """
    swapped = {}
    if encoder is not None:
        said = {j: other for j, caption in enumerate(known.texts)
                if (other := turned(caption, things)) is not None}
        if said:
            swapped = dict(zip(said, encode(encoder, list(said.values())), strict=True))
    return Learner(Aligning(known, swapped, batch), steps, seed, "cpu")


# -- exams ------------------------------------------------------------------------------------------------------------

@typed
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
    first, second = (part[0][:1].lower() + part[0][1:] for part in (other, one))  # without a capital
    said = f"{caption[:one.start()]}{first}{caption[one.end():other.start()]}{second}{caption[other.end():]}"
    return said[:1].upper() + said[1:] if caption[:1].isupper() else said


@typed
def order_questions(asked: Part, things: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """两幅图、两句话，用词相同而次序相反 / Two pictures and two captions of the same words in the opposite order.

    (picture, picture, its caption, its caption): both pictures are of one source, so that style does not tell.

    （图，图，前一幅的说明，后一幅的说明）：两幅是同一个来源，画风帮不上忙。
    """
    at = defaultdict(list)
    for i, (caption, source) in enumerate(zip(asked.first, asked.sources, strict=True)):
        at[caption.lower(), source].append(i)
    where, found = {caption: j for j, caption in enumerate(asked.texts)}, []
    for i, (caption, source) in enumerate(zip(asked.first, asked.sources, strict=True)):
        other = turned(caption, things)
        for j in at[other.lower(), source][:1] if other else ():
            if i < j:
                found.append((i, j, where[caption], where[asked.first[j]]))
    return found


@shapes(S="N M", least={"N": 1, "M": 1})
def squares(S: Tensor, questions: Sequence[tuple[int, int, int, int]]) -> Tensor:
    """(9.1) 到 (9.3) 要的四个数 / The four numbers that (9.1) to (9.3) want: (N, M) → (Q, 2, 2), where Q may be 0."""
    for row in questions:
        fits = len(row) == 4 and all(0 <= checks.whole(x, "questions", 0) < n
                                     for x, n in zip(row, (*S.shape[:1] * 2, *S.shape[1:] * 2), strict=True))
        checks.require(fits, f"questions 里的 {row} 不是 S 的两行和两列", f"{row} of questions is not two rows and two "
                       "columns of S")
    q = torch.tensor(list(questions), dtype=torch.int64).view(-1, 4)
    return torch.stack([S[q[:, k], q[:, 2 + j]] for k in range(2) for j in range(2)], 1).view(-1, 2, 2)


@typed
def exchange_cosine(encoder: nn.Module, part: Part, things: Sequence[str]) -> Tensor:
    """对调前后，说明的特征的余弦 / The cosine of a caption's features before and after the exchange: (T,), or (0,)."""
    said = [(caption, other) for caption in part.texts if (other := turned(caption, things)) is not None]
    if not said:
        return torch.zeros(0)
    before, after = (encode(encoder, list(side)) for side in zip(*said, strict=True))
    return F.cosine_similarity(before, after)


@typed
def frequency(known: Part, things: Sequence[str]) -> Tensor:
    """每样东西在几句说明里 / How many captions name each thing: (K,) float."""
    text.check_texts(things, "things")
    return torch.tensor([float(sum(thing in named(caption, things) for caption in known.texts)) for thing in things])


@typed
def frequent_words(known: Part, most: int = 30) -> list[str]:
    """说明里常见的词，当作“东西”；英文用 / Frequent words of captions, taken as things; for English.

    Words in at least three captions and at most a third of them, from two sources where there are two. For Chinese give
    the names yourself: characters are no words.

    至少三句、至多三分之一的说明里有，有两个来源时两个都要有。中文请自己给出名字：字不是词。
    """
    tokenizer, count, by = text.default_tokenizer(), Counter(), defaultdict(set)
    for j, caption in enumerate(known.texts):
        sources = {known.sources[i] for i in known.positives[:, j].nonzero().squeeze(1).tolist()}
        for word in set(text.words(tokenizer, caption)):
            if word.isascii() and word.isalpha() and len(word) > 2 and word not in PLAIN:
                count[word] += 1
                by[word] |= sources
    wanted = min(2, len(set(known.sources)))
    kept = [word for word, n in count.most_common() if 3 <= n <= len(known.texts) / 3 and len(by[word]) >= wanted]
    return kept[:most]


@dataclass(frozen=True)
class Asked:
    """“图里有没有……” / Questions “is there a … in the picture?”: (Q,) each."""

    picture: Tensor  # which
    thing: Tensor
    truth: Tensor  # bool
    kind: tuple[str, ...]  # of the wrong ones: how its thing was chosen


@typed
def whether(asked: Part, known: Part, things: Sequence[str], seed: int = 0) -> Asked:
    """POPE 的做法：有的和没有的一样多 / As POPE asks: for each thing that is there, one that is not.

    The missing one is drawn at random, is frequent in the training captions, or often comes with a thing that is there,
    in turn.

    没有的那样轮流取：随便一样；训练说明里常见的；常与图里的东西一起出现的。
    """
    text.check_texts(things, "things")

    def held(part: Part) -> Tensor:
        names = [named(caption, things) for caption in part.texts]
        of_text = torch.tensor([[thing in found for thing in things] for found in names])
        return (part.positives.double() @ of_text.double()) > 0
    there, before = held(asked), held(known).double()
    often, together = before.sum(0), before.T @ before
    generator = torch.Generator().manual_seed(checks.whole(seed, "seed", 0))
    rows = []
    for i, mine in enumerate(there):
        for k in mine.nonzero().squeeze(1).tolist():
            lots = torch.rand(len(things), generator=generator).double()
            kind = ("random", "frequent", "together")[len(rows) // 2 % 3]
            likes = {"random": lots, "frequent": often + lots,
                     "together": together[mine].sum(0) + lots}[kind].masked_fill(mine, -1.0)
            if not bool(mine.all()):
                rows += [(i, k, True, kind), (i, int(likes.argmax()), False, kind)]
    checks.require(len(rows) > 0, "这些说明里没有说到 things 里的任何一样，请自己给出 things",
                   "the captions name none of the things; give things of your own")
    picture, thing, truth, kind = zip(*rows, strict=True)
    return Asked(torch.tensor(picture), torch.tensor(thing), torch.tensor(truth), kind)


@shapes(scores="N", truth="bool N", least={"N": 1})
def threshold(scores: Tensor, truth: Tensor) -> float:
    """正确率最高的界线 / The bound above which to say yes, at which most of these questions are right."""
    checks.require(bool(scores.isfinite().all()), "scores 里有 NaN 或无穷", "scores holds NaN or infinity")
    order = scores.sort(descending=True)
    right = truth[order.indices].double()
    gained = torch.cat([torch.zeros(1, device=right.device), (2 * right - 1).cumsum(0).float()])
    k = int(gained.argmax())
    ends = torch.cat([order.values[:1] + 1, order.values, order.values[-1:] - 1])
    return ((ends[k] + ends[k + 1]) / 2).item()


# -- labels: zero-shot, a linear probe, few examples ------------------------------------------------------------------

@dataclass(frozen=True)
class Labels:
    """只说到一样东西的图 / Pictures whose captions name just one thing: K things that every split has.

    `rows[split]` are the pictures, `labels[split]` which of `things` each shows.

    `rows[split]` 是哪些图，`labels[split]` 是每幅画的是 `things` 里的哪一样。
    """

    things: tuple[str, ...]
    rows: dict[str, Tensor]
    labels: dict[str, Tensor]


@typed
def labelled(parts: Mapping[str, Part], things: Sequence[str]) -> Labels:
    """从说明里得到标签 / Labels from captions. There may be none: then `things` is empty. / 也可能一个也没有。"""
    _check_parts(parts)
    found: dict[str, dict[int, str]] = {}
    for split, part in parts.items():
        found[split] = {}
        of_text = [named(caption, things) for caption in part.texts]
        for i, row in enumerate(part.positives):
            names = {name for j in row.nonzero().squeeze(1).tolist() for name in of_text[j]}
            if len(names) == 1:
                found[split][i] = names.pop()
    kept = tuple(thing for thing in things if all(thing in mine.values() for mine in found.values()))
    rows = {split: [i for i, name in mine.items() if name in kept] for split, mine in found.items()}
    return Labels(kept, {split: torch.tensor(which, dtype=torch.int64) for split, which in rows.items()},
                  {split: torch.tensor([kept.index(found[split][i]) for i in which], dtype=torch.int64)
                   for split, which in rows.items()})


@typed
def per_thing(right: Tensor, labels: Tensor) -> Tensor:
    """每样东西几成对，几幅同样的画算一项 / The share right of each thing; pictures of one drawing are one item."""
    shape = isinstance(right, Tensor) and right.dtype == torch.bool and right.ndim in (1, 2) and right.numel() > 0
    checks.require(shape and right.shape[-1:] == labels.shape,
                   "right 需要是 (L,) 或 (S, L) 的真假，与 labels 同样多，不能是空的",
                   "right must be true or false, (L,) or (S, L), as many as labels and not empty")
    checks.classes(labels, "labels", len(labels), 2**31)
    return torch.stack([right[..., labels == k].double().mean(-1) for k in labels.unique().tolist()], -1)


@typed
def class_vectors(encoder: nn.Module, things: Sequence[str], prompts: Sequence[str]) -> Tensor:
    """每样东西一个向量 / One vector for each thing, of these prompts with {} in them (12.2): (K, D)."""
    text.check_texts(things, "things")
    checks.require(len(prompts) > 0, "prompts 是空的", "prompts is empty")
    for prompt in prompts:
        checks.require("{}" in prompt, f"prompts 的每一句要有 {{}}，收到 {prompt!r}",
                       f"each of the prompts must have {{}} in it, got {prompt!r}")
    said = [prompt.replace("{}", thing) for thing in things for prompt in prompts]
    return prompt_ensemble(encode(encoder, said).view(len(things), len(prompts), -1))


@typed
def linear_probe(f: Tensor, labels: Tensor, count: int, strength: float = 0.003) -> Callable[[Tensor], Tensor]:
    """逻辑回归，解到收敛 / Logistic regression on features of length 1, solved to the end: features → (N, count).

    A class without an example gets the score of one that was never seen. 没有例子的类别也有一个分数。
    """
    checks.positive(strength, "strength")
    checks.classes(labels, "labels", len(f), count)
    x = 4 * F.normalize(f.double(), dim=1)
    W = torch.zeros(count, x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([W], max_iter=100, line_search_fn="strong_wolfe")
    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(x @ W[:, :-1].T + W[:, -1], labels) + strength * W[:, :-1].square().sum()
        loss.backward()
        return loss
    solver.step(closure)
    learned = W.detach()
    return lambda g: (4 * F.normalize(g.double(), dim=1)) @ learned[:, :-1].T + learned[:, -1]


@typed
def few_shot(f: Tensor, labels: Tensor, count: int, shots: int, seed: int = 0) -> Callable[[Tensor], Tensor]:
    """每类只用几幅来训练探针 / A linear probe on so many drawn examples of each class.

    Raises ValueError where a class has fewer. 有一类不够时报 ValueError。
    """
    generator, rows = torch.Generator().manual_seed(seed), []
    for k in range(count):
        mine = (labels == k).nonzero().squeeze(1)
        checks.require(len(mine) >= checks.whole(shots, "shots"),
                       f"类别 {k} 只有 {len(mine)} 幅，不够 {shots} 幅",
                       f"class {k} has {len(mine)} pictures, fewer than {shots}")
        rows.append(mine[torch.randperm(len(mine), generator=generator)[:shots]])
    chosen = torch.cat(rows)
    return linear_probe(f[chosen], labels[chosen], count)


SHOTS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Recognised:
    """认东西的成绩，每幅测试图一个 / Who recognises what, right or wrong for each test picture: (L,) bool.

    `few[n]` is (5, L): five draws of n examples a label. 五次各抽 n 个例子。
    """

    pixels: Tensor
    zero_shot: dict[str, Tensor]  # by prompt, and "ensemble"
    few: dict[int, Tensor]
    probe: Tensor
    scores: dict[str, dict[str, Tensor]]  # cosines and scores of the probe, by split, for calibration


@typed
def recognise(parts: Mapping[str, Part], labels: Labels, encoder: nn.Module, prompts: Sequence[str]) -> Recognised:
    """零样本、少样本、线性探针和像素 / Zero-shot with each prompt and with all, few examples, the probe, and pixels.

    Raises ValueError where there are no labels. 没有标签时报 ValueError。
    """
    _check_parts(parts)
    _check_encoder(encoder)
    checks.require(len(labels.things) > 1, "需要至少两样东西，每一部分都有只说到它的图",
                   "two things are needed, each in every split with pictures whose captions name only it")
    f = {split: part.f_v[labels.rows[split]] for split, part in parts.items()}
    y, count = labels.labels, len(labels.things)
    unit = {split: F.normalize(x, dim=1) for split, x in f.items()}
    vectors = {prompt: class_vectors(encoder, labels.things, [prompt]) for prompt in prompts}
    vectors["ensemble"] = class_vectors(encoder, labels.things, prompts)
    near = similar_pixels(parts["test"].pixels[labels.rows["test"]], parts["train"].pixels[labels.rows["train"]])
    probe = linear_probe(f["train"], y["train"], count)
    least = int(torch.bincount(y["train"], minlength=count).min())
    few = {shots: torch.stack([few_shot(f["train"], y["train"], count, shots, seed)(f["test"]).argmax(1) == y["test"]
                               for seed in range(5)]) for shots in SHOTS if shots <= least}
    return Recognised(y["train"][near.argmax(1)] == y["test"],
                      {name: (unit["test"] @ w.T).argmax(1) == y["test"] for name, w in vectors.items()}, few,
                      probe(f["test"]).argmax(1) == y["test"],
                      {"zero-shot": {split: x @ vectors["ensemble"].T for split, x in unit.items()},
                       "probe": {split: probe(x) for split, x in f.items()}})


@shapes(scores="N K", labels="int64 N", least={"N": 1, "K": 2})
def best_temperature(scores: Tensor, labels: Tensor) -> float:
    """验证集上损失最小的温度 / The temperature at which these labels are most probable (temperature scaling)."""
    checks.classes(labels, "labels", *scores.shape)
    checks.require(bool(scores.isfinite().all()), "scores 里有 NaN 或无穷", "scores holds NaN or infinity")
    choices = torch.logspace(-3, 1, 161, dtype=torch.float64)
    losses = torch.stack([F.cross_entropy(scores.double() / t, labels) for t in choices])
    return choices[int(losses.argmin())].item()


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
