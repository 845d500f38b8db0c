"""一个画的文件夹，和顶替预训练模型的小编码器 / A folder of drawings, and a small encoder in place of a pretrained one.

`write_folder` is for readers who have no pictures of their own, `stand_in` for those who have no pretrained model. The
two share no drawing: the folder is by four artists, and the stand-in learned from four others.

没有自己的图画时用 `write_folder`，没有预训练模型时用 `stand_in`。两者没有一幅相同的画：文件夹是四位作者画的，顶替者学的
是另外四位。
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from mmcore import checks
from mmcore import tokens as text
from mmcore.alignment import contrastive_loss
from mmcore.encoders import TextEncoder, VisualEncoder
from mmcore.training import evaluating
from mmlessons.border import check_pictures, typed
from mmlessons.data import emoji
from mmlessons.data.scenes import THINGS
from mmlessons.tasks.learner import Descent, Learner, Losses, seeded

OTHERS = ("noto", "noto-v1", "emojione", "emojione-v1")  # whose drawings the stand-in learns from
SIZE, DRAWN = 48, 24  # pixels of a picture, of a drawing in it at its usual size
SINGLES, PAIRS = 4, 100  # how often each artist draws one thing; of how many pairs of things, both ways round
SPLIT = {"fluent": "train", "fxemoji": "train", "openmoji": "validation", "twemoji": "test"}
WORDINGS = {  # what is said of two things side by side, and of one
    "en": ("{A} is left of {b}.", "{B} is right of {a}.", "{a}", "a drawing of {a}"),
    "zh": ("{a}在{b}的左边。", "{b}在{a}的右边。", "{a}", "一幅{a}的画")}
LANGUAGES = ("en", "zh")
WIDTH, TAU = 128, 0.07
PRETRAINING = 500, 5e-3  # steps and step size of the stand-in


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


@dataclass(frozen=True)
class Weights:
    """顶替者学到的 / What the stand-in learned."""

    tensors: dict[str, Tensor]


@typed
def pretrain(seed: int = 0, steps: int = PRETRAINING[0]) -> Weights:
    """训练顶替者，返回权重 / Train the stand-in; its weights, which `stand_in` takes."""
    return Weights(Learner(Pretraining(), steps, seed, "cpu").finish().model.state_dict())


@typed
def stand_in(weights: Weights) -> StandIn:
    """冻结的顶替者 / The stand-in with these weights, frozen."""
    with seeded(0):
        model = StandIn(Pretraining().tokenizer)
    model.load_state_dict(weights.tensors)
    return model.eval().requires_grad_(False)
