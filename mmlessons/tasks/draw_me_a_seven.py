"""画一个七：词变成图，谁说画得好 / Draw me a seven: words become pictures, and who says they are good?

A drawer learns by flow matching (11.1) to turn noise into handwritten digits, told by a word in any of its spellings.
Half of the pictures of nine sheets are shown to it and half are set aside, so that one may ask whether it draws or
copies: a new picture by the same hands is as near to the one half as to the other. Five other sheets, by other hands,
teach a judge, who therefore knows neither half. Rules that learn nothing stand beside the drawer and are measured in
the same way.

画图的模型用流匹配 (11.1) 学着把噪声变成手写数字，画什么由一个词说，怎样拼写都行。九张表上的图，一半给它看，一半留着，
这样才能问它是在画还是在抄：同样的人写的一幅新图，离这一半和那一半一样近。另外五张表出自别的手，用来教裁判，所以哪一半它也
没见过。旁边有几条什么也不学的规则，用同样的办法来量。
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.checks import require, shapes
from mmcore.flow import (
    euler_steps,
    flow_matching_loss,
    flow_path,
    frechet_distance,
    guided_velocity,
    nearest_distance,
    variety,
)
from mmcore.training import device_of, evaluating
from mmlessons.border import typed
from mmlessons.data import digits, emoji
from mmlessons.data.digits.writing import BYTES
from mmlessons.intervals import DRAWS, LEVEL, Interval
from mmlessons.tasks.learner import Descent, Learner, Losses, seeded

SIDE = 8
PIXELS = SIDE * SIDE
EACH = 56  # pictures of each digit in either half
COUNT = 10 * EACH
WIDTH, BLOCKS = 256, 3
STEPS, FEW_STEPS, BATCH = 1500, 600, 128
FEW = 60  # pictures, for a drawer that is shown few
RATE, DECAY = 4e-3, 0.01
WITHOUT = 0.15  # of the words hidden in training, so that guidance has something to start from
EULER = 20  # steps from noise to a picture
JUDGE_STEPS, JUDGE_WIDTH, JUDGE_NOISE = 400, 32, 0.3
GUIDANCE = (0.0, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0)
HALVES = ("shown", "aside", "others")


# -- pictures and words -----------------------------------------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class DigitPictures:
    """一组图 / A set of pictures: −1 is paper and 1 is ink."""

    x: Tensor  # (N, 64)
    digit: Tensor  # (N,) int64


@typed
@cache
def pictures(which: str) -> DigitPictures:
    """给看的一半、留着的一半、别人写的 / The half that is shown, the half set aside, or those by others.

    "shown" and "aside" are 560 pictures each, 56 of every digit and in turn (0, 1 … 9, 0 …), from the nine sheets of
    the training split. "others" are the 640 of the five sheets of validation and test.

    "shown" 和 "aside" 各 560 幅，每个数字 56 幅，轮流排（0、1……9、0……），取自训练划分的九张表。"others" 是验证和测试那
    五张表的 640 幅。
    """
    checks.one_of(which, "which", HALVES)
    if which == "others":
        parts = [digits.load(role) for role in ("validation", "test")]
        return DigitPictures(2 * torch.cat([part.image for part in parts]).flatten(1) - 1,
                        torch.cat([part.labels for part in parts]))
    data = digits.load("train")
    rows = torch.stack([(data.labels == digit).nonzero()[:2 * EACH, 0] for digit in range(10)])  # (10, 112)
    rows = rows[:, HALVES.index(which)::2].T.flatten()  # every other picture of a digit
    return DigitPictures(2 * data.image[rows].flatten(1) - 1, data.labels[rows])


@cache
def spellings() -> tuple[tuple[str, ...], ...]:
    """每个数字的二十种写法 / The twenty ways of writing each digit: those of the digits data, and 0 to 9."""
    forms = digits.load("train").forms
    return tuple((*(form.text for form in row), str(digit)) for digit, row in enumerate(forms))


@cache
def _table() -> Tensor:
    """(10, 20, 16), the bytes of every spelling."""
    return torch.stack([torch.stack([_bytes(word) for word in row]) for row in spellings()])


def _bytes(word: str) -> Tensor:
    return torch.tensor([*word.encode(), *[0] * BYTES][:BYTES])


@typed
def write(word: str) -> Tensor:
    """一个词 → 模型读到的字节 / A word as the bytes that the model reads: (16,) int64.

    Raises ValueError for no word and for more than 16 bytes (16 letters, or five Chinese characters).

    没有词，或者超过 16 个字节（16 个字母，或者五个汉字）时报 ValueError。
    """
    word = word.strip()
    require(bool(word), "先写一个词，例如 七", "type a word first, for example seven")
    length = len(word.encode())
    require(length <= BYTES, f"词最长 {BYTES} 个字节（一个汉字 3 个），这个有 {length} 个",
            f"a word may have {BYTES} bytes at most (a Chinese character has 3), this one has {length}")
    return _bytes(word)


@typed
def means(word: str) -> int | None:
    """这个写法在训练里是哪个数字，没有就是 None / Which digit this spelling was in training, or None if it was not."""
    return next((digit for digit, row in enumerate(spellings()) if word.strip() in row), None)


@typed
def spelt(digit: Tensor, generator: torch.Generator) -> Tensor:
    """每个数字随机取一种写法 / A random spelling of each digit: (N,) → (N, 16)."""
    checks.fits(digit, "digit", "int64 N")
    checks.classes(digit, "digit", len(digit), 10)
    return _table()[digit, torch.randint(_table().shape[1], digit.shape, generator=generator)]


# -- the drawer -------------------------------------------------------------------------------------------------------

class Drawer(nn.Module):
    """画图的模型：在 x_t 处往哪里走 / The drawer: which way to go from x_t.

    `forward` returns named tensors.

    | name | shape | meaning | 含义 |
    |---|---|---|---|
    | `x_t` | (B, 64) | a point on the path from noise to picture | 从噪声到图的路上的一点 |
    | `c` | (B, 256) | what the word says, or that there is none | 词说了什么，或者没有词 |
    | `v` | (B, 64) | the velocity there | 那里的速度 |
    | `L` | | the loss (11.1) | 损失 |
    """

    def __init__(self, pixels: int = PIXELS, width: int = WIDTH, blocks: int = BLOCKS):
        super().__init__()
        self.letters = nn.Embedding(256, 16)
        self.read = nn.Sequential(nn.Linear(16 * BYTES, 128), nn.GELU(), nn.Linear(128, width))
        self.no_word = nn.Parameter(torch.zeros(width))
        self.clock, self.open = nn.Linear(16, width), nn.Linear(pixels, width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(),
                                                  nn.Linear(width, width)) for _ in range(blocks))
        self.close = nn.Linear(width, pixels)

    @shapes(like="no_word", x_0="B P", x_1="B P", t="B 1", word=f"int64 B {BYTES}", told="bool B 1")
    def forward(self, x_0: Tensor, x_1: Tensor, t: Tensor, word: Tensor, told: Tensor) -> dict[str, Tensor]:
        x_t = flow_path(x_0, x_1, t)
        c = self.meaning(word, told)
        v = self.velocity(x_t, t, c)
        L = flow_matching_loss(v, x_0, x_1)
        return {"x_t": x_t, "c": c, "v": v, "L": L}

    def meaning(self, word: Tensor, told: Tensor) -> Tensor:
        return torch.where(told, self.read(self.letters(word).flatten(1)), self.no_word)

    def velocity(self, x_t: Tensor, t: Tensor, c: Tensor) -> Tensor:
        angle = t * torch.exp(torch.linspace(0, 5, 8, device=t.device))
        hint = F.gelu(self.clock(torch.cat([angle.sin(), angle.cos()], 1)) + c)
        h = self.open(x_t) + hint
        for block in self.blocks:
            h = h + block(h + hint)
        return self.close(h)


class Drawing:
    """学画 (11.1) / Learn to draw (11.1)."""

    def begin(self, device: torch.device) -> Descent:
        return Descent.of(Drawer().to(device), self.losses, RATE, DECAY, total="L")

    def draw(self, generator: torch.Generator, without: float = WITHOUT, shown: int = COUNT) -> dict[str, Tensor]:
        """一批：图、噪声、时间、词 / One batch: pictures, noise, times and words.

        `without` 是不告诉它词的占几成，`shown` 是只给它看前几幅 / how many words are hidden, how many pictures shown.
        """
        checks.share(without, "without")
        require(10 <= checks.whole(shown, "shown") <= COUNT, f"shown 需要在 10 到 {COUNT} 之间，收到 {shown}",
                f"shown must be from 10 to {COUNT}, got {shown}")
        half = pictures("shown")
        rows = torch.randint(shown, (BATCH,), generator=generator)
        x_1, word = half.x[rows], spelt(half.digit[rows], generator)
        x_0, t = torch.randn(x_1.shape, generator=generator), torch.rand(BATCH, 1, generator=generator)
        told = torch.rand(BATCH, 1, generator=generator) >= without
        return {"x_0": x_0, "x_1": x_1, "t": t, "word": word, "told": told}

    def step(self, trainer: Descent, generator: torch.Generator, without: float = WITHOUT,
             shown: int = COUNT) -> Losses:
        return trainer.train_step(self.draw(generator, without, shown))

    def losses(self, drawer: Drawer, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        device = device_of(drawer)
        return {"L": drawer(**{name: x.to(device) for name, x in batch.items()})["L"]}


@typed
def learner(steps: int = STEPS, seed: int = 0, device: str | torch.device | None = None) -> Learner:
    """学画的：`train_step(without=…, shown=…)` 用这一步的 / One that learns to draw: `train_step(without=…, shown=…)`.

    `without` is the share of words hidden in this very step, `shown` how many of the 560 pictures it is drawn from.
    Raises TypeError or ValueError for a wrong number of steps or seed.

    `without` 是这一步里不告诉它词的占几成，`shown` 是这一步从 560 幅图的前几幅里取。步数或种子不对时报 TypeError 或
    ValueError。
    """
    return Learner(Drawing(), steps, seed, device)


@typed
def draw(drawer: Drawer, word: Tensor, noise: Tensor, w: float = 1.0, steps: int = EULER) -> Tensor:
    """从噪声画到图，每一步都留着 / From noise to pictures, every step of it: (N, 16), (N, 64) → (steps + 1, N, 64).

    It uses (11.3) with the guided velocity (11.2). Ink and paper have their limits, so the very last frame is cut to
    −1 … 1.

    用 (11.3)，速度是引导过的 (11.2)。墨和纸都有限度，所以最后一帧截到 −1 与 1 之间。
    """
    checks.fits(word, "word", f"int64 N {BYTES}")
    checks.fits(noise, "noise", f"N {PIXELS}", drawer.no_word.cpu(), N=len(word))
    require(bool(((word >= 0) & (word < 256)).all()), "word 需要是 0 到 255 的字节", "word must be bytes from 0 to 255")
    checks.not_negative(w, "w")
    device = device_of(drawer)
    with evaluating(drawer):
        told = torch.ones(len(word), 1, dtype=torch.bool, device=device)
        c, nothing = (drawer.meaning(word.to(device), which) for which in (told, ~told))

        def velocity(x: Tensor, t: Tensor) -> Tensor:
            v_c = drawer.velocity(x, t, c)
            return v_c if w == 1 else guided_velocity(v_c, drawer.velocity(x, t, nothing), w)

        frames = euler_steps(velocity, noise.to(device), steps).cpu()
    frames[-1].clamp_(-1, 1)
    return frames


@typed
def drawings(drawer: Drawer, w: float = 1.0, steps: int = EULER, seed: int = 0) -> DigitPictures:
    """560 幅画，每个数字 56 幅，写法随机 / 560 drawings, 56 of each digit, asked for in random spellings.

    The same seed gives the same noise and words, whatever the drawer.

    同一个种子，噪声和词都一样，不管谁来画。
    """
    generator = torch.Generator().manual_seed(seed)
    digit = torch.arange(10).repeat(EACH)
    word, noise = spelt(digit, generator), torch.randn(COUNT, PIXELS, generator=generator)
    return DigitPictures(draw(drawer, word, noise, w, steps)[-1], digit)


# -- rules that learn nothing -----------------------------------------------------------------------------------------

RULES = ("mean", "copy", "noisy copy", "blend")
NEIGHBOURS = 5  # of which one is taken for a blend
COPY_NOISE = 0.35


@typed
def by_rule(rule: str, seed: int = 0) -> DigitPictures:
    """不学习的画法，560 幅 / A rule that learns nothing: 560 drawings.

    "mean": the mean of all pictures of that digit. "copy": one of them as it is. "noisy copy": one of them with normal
    noise of 0.35 on every pixel. "blend": half of one and half of another, one of the five that lie nearest to it.

    "mean"：那个数字全部图的平均。"copy"：照抄其中一幅。"noisy copy"：抄一幅，每个像素加上 0.35 的正态噪声。"blend"：
    一幅和它最近的五幅之一，各取一半。
    """
    checks.one_of(rule, "rule", RULES)
    half, generator = pictures("shown"), torch.Generator().manual_seed(seed)
    x, digit = half.x, half.digit
    if rule == "mean":
        x = torch.stack([x[digit == k].mean(0) for k in range(10)])[digit]
    elif rule == "noisy copy":
        x = (x + COPY_NOISE * torch.randn(x.shape, generator=generator)).clamp(-1, 1)
    elif rule == "blend":
        apart = torch.cdist(x, x) + 1e3 * (digit[:, None] != digit)  # only the same digit
        near = apart.topk(NEIGHBOURS + 1, largest=False).indices[:, 1:]
        x = (x + x[near.gather(1, torch.randint(NEIGHBOURS, (len(x), 1), generator=generator))[:, 0]]) / 2
    return DigitPictures(x, digit)


# -- who says that they are good --------------------------------------------------------------------------------------

@typed
@cache
def judge(seed: int = 0) -> nn.Sequential:
    """裁判：从别人写的 640 幅学认数字 / A judge who learned digits from 640 pictures by others.

    Its hidden layer gives the features of (11.4). It has met neither the half that is shown nor the half set aside.

    它的隐藏层给出 (11.4) 的特征。给看的和留着的那两半，它都没见过。
    """
    half, generator = pictures("others"), torch.Generator().manual_seed(seed)
    with seeded(seed):
        model = nn.Sequential(nn.Linear(PIXELS, JUDGE_WIDTH), nn.GELU(), nn.Linear(JUDGE_WIDTH, 10))

    class Judging:
        def begin(self, device: torch.device) -> Descent:
            return Descent.of(model, lambda m, batch: {"L": F.cross_entropy(m(batch["x"]), batch["digit"])},
                              1e-2, 0.01, total="L")

        def step(self, trainer: Descent, generator: torch.Generator) -> Losses:
            rows = torch.randint(len(half.x), (256,), generator=generator)
            noise = JUDGE_NOISE * torch.randn(256, PIXELS, generator=generator)
            return trainer.train_step({"x": half.x[rows] + noise, "digit": half.digit[rows]})

    Learner(Judging(), JUDGE_STEPS, seed, "cpu", draws=generator).finish()
    return model.eval().requires_grad_(False)


@dataclass(frozen=True, eq=False)
class Measures:
    """一组画的几项成绩，前四项一幅一个 / The measures of a set of drawings; the first four are one for each drawing."""

    right: Tensor  # (N,) the judge reads the digit that was asked for
    variety: Tensor  # (N,) the mean distance to the other drawings of its digit (11.5)
    nearest: Tensor  # (N,) the distance to the nearest picture that was shown (11.6)
    copied: Tensor  # (N,) 1 if it is nearer to the half that was shown than to the one set aside, 0 if not, ½ for a tie
    frechet: float  # to the half set aside (11.4)
    features: Tensor  # (N, 32) of the judge


@typed
def measure(drawn: DigitPictures, shown: int = COUNT) -> Measures:
    """量一组画 / Measure a set of drawings.

    `shown` is how many pictures the drawer was shown; as many of those set aside are compared with. Raises ValueError
    if a digit has fewer than two drawings.

    `shown` 是给它看过几幅，留着的也取同样多来比。有数字不到两幅时报 ValueError。
    """
    checks.fits(drawn.x, "drawn.x", f"N {PIXELS}", pictures("shown").x)
    checks.classes(drawn.digit, "drawn.digit", len(drawn.x), 10)
    require(10 <= shown <= COUNT, f"shown 需要在 10 到 {COUNT} 之间", f"shown must be from 10 to {COUNT}")
    referee = judge()
    apart = torch.zeros(len(drawn.x))
    for digit in drawn.digit.unique():
        same = drawn.digit == digit
        apart[same] = variety(drawn.x[same])
    near = nearest_distance(drawn.x, pictures("shown").x[:shown])
    far = nearest_distance(drawn.x, pictures("aside").x[:shown])
    return Measures(referee(drawn.x).argmax(1) == drawn.digit, apart, near,
                    (near < far).double() + (near == far).double() / 2,
                    frechet_distance(features(drawn), features(pictures("aside"))).item(), features(drawn))


@typed
def features(drawn: DigitPictures) -> Tensor:
    """裁判看到的特征 / The features that the judge sees: (N, 32)."""
    return judge()[:2](drawn.x)


@typed
def frechet_gap(one: Measures, other: Measures | None = None, draws: int = 300) -> Interval:
    """(11.4) 和它的区间，或者两组的差 / (11.4) with its interval, or by how much one set is above another.

    Of several trainings (`over_seeds`) it is the mean. Drawings are drawn again with replacement, and so are the
    pictures set aside; of two sets and of all trainings the same rows, since they were asked the same. Drawing again
    raises (11.4) by itself, for it leaves fewer different pictures. So the interval is shifted back until what was
    drawn again has the distance found as its mean.

    几次训练的（`over_seeds`）取平均。画和留着的图都有放回地重抽，两组和各次训练抽同样的行，因为问的是同样的题。重抽以后不同
    的图变少，(11.4) 自己就会升高，所以把区间移回去，使重抽的平均正好是量得的距离。
    """
    real, draws = features(pictures("aside")), checks.whole(draws, "draws", 2)
    sets = [each.features.float() for each in (one, other) if each is not None]
    sets = [x if x.ndim == 3 else x[None] for x in sets]  # (S, N, 32)
    count = sets[0].shape[1]
    require(all(x.shape[1] == count for x in sets), "两组画需要一样多", "both sets must have as many drawings")
    rng = torch.Generator().manual_seed(DRAWS)

    def found(rows: Tensor, places: Tensor) -> float:
        means = [np.mean([frechet_distance(x[rows], real[places]).item() for x in each]) for each in sets]
        return float(means[0] - sum(means[1:]))

    value = found(torch.arange(count), torch.arange(len(real)))
    again = np.array([found(torch.randint(count, (count,), generator=rng),
                            torch.randint(len(real), (len(real),), generator=rng)) for _ in range(draws)])
    low, high = np.quantile(again, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - again.mean()
    least = 0.0 if other is None else -np.inf  # a distance has an end, a difference has none
    return Interval(value, max(least, value + float(low)), value + float(high))


# -- the studies of the lesson ----------------------------------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class DrawingStudy:
    """一次训练的各项成绩 / What one training gave."""

    guided: dict[float, Measures]  # by guidance, with 20 steps
    stepped: dict[int, Measures]  # by steps, with a guidance of 1
    seconds: float  # of processor time for the training


VARIANTS = {"many": (STEPS, COUNT), "few": (FEW_STEPS, FEW)}
STEPPED = (1, 2, 5, 50)


@typed
def study(variant: str, seed: int, steps: int | None = None) -> DrawingStudy:
    """训练一次，再量 / Train once, then measure.

    "many" is shown 560 pictures, "few" 60 of them for fewer steps, so that each is seen about as often as it takes to
    draw. Raises ValueError for an unknown variant or a wrong number of steps.

    "many" 看 560 幅，"few" 只看其中 60 幅，步数也少。变体未知或步数不对时报 ValueError。
    """
    checks.one_of(variant, "variant", tuple(VARIANTS))
    usual, shown = VARIANTS[variant]
    begun = time.process_time()
    drawer = learner(usual if steps is None else steps, seed, "cpu").finish(shown=shown).model
    seconds = time.process_time() - begun
    guided = {w: measure(drawings(drawer, w, seed=seed), shown) for w in (GUIDANCE if variant == "many" else (1.0,))}
    stepped = {k: measure(drawings(drawer, 1.0, k, seed), shown) for k in STEPPED} if variant == "many" else {}
    return DrawingStudy(guided, stepped, seconds)


# -- in colour: a combination that was never shown --------------------------------------------------------------------

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black")
THINGS = ("heart", "book", "apple")
UNSEEN = "green", "heart"
COLOUR_SIDE, COLOUR_WIDTH, COLOUR_STEPS, COLOUR_RATE = 16, 384, 2500, 2e-3
COLOUR_COUNT = 100  # drawings
END = 0.05  # the least time that is left, so that no velocity grows without limit


@dataclass(frozen=True, eq=False)
class ColourPictures:
    """彩色的图，16 × 16 / Pictures in colour, 16 × 16: −1 is dark, 1 is bright."""

    x: Tensor  # (N, 768)
    colour: Tensor  # (N,) int64, of COLOURS
    thing: Tensor  # (N,) int64, of THINGS


@typed
@cache
def colour_pictures(unseen: bool = False) -> ColourPictures:
    """训练作者画的红心、绿书……，或者没给看的绿心 / Red hearts, green books and so on, or the green hearts not shown."""
    data, rows = emoji.load("all"), []
    for concept, name in enumerate(data.names("en")):
        colour, _, thing = name.partition(" ")
        if colour in COLOURS and thing in THINGS and ((colour, thing) == UNSEEN) == unseen:
            for artist in data.by_role("train"):
                if data.drawn[artist][concept]:
                    rows.append((data.pictures[artist][concept], COLOURS.index(colour), THINGS.index(thing)))
    pictures, colour, thing = zip(*rows, strict=True)
    small = F.avg_pool2d(torch.stack(pictures).float() / 255, 2)
    return ColourPictures(2 * small.flatten(1) - 1, torch.tensor(colour), torch.tensor(thing))


class ColourDrawer(nn.Module):
    """同样的画法，词是颜色和东西两样 / The same drawer, told a colour and a thing.

    It guesses the picture at the end of the path, and the velocity is what is left divided by the time that is left.
    The numbers of a picture are many more than it is wide, and so it need not carry the noise.

    它猜路的终点那幅图，速度就是余下的路除以余下的时间。一幅图的数比它的宽度多得多，这样它就不用记住噪声。
    """

    def __init__(self, width: int = COLOUR_WIDTH, blocks: int = BLOCKS):
        super().__init__()
        pixels = 3 * COLOUR_SIDE ** 2
        self.colour, self.thing = nn.Embedding(len(COLOURS) + 1, width), nn.Embedding(len(THINGS) + 1, width)
        self.clock, self.open = nn.Linear(16, width), nn.Linear(pixels, width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(),
                                                  nn.Linear(width, width)) for _ in range(blocks))
        self.close = nn.Linear(width, pixels)

    def velocity(self, x_t: Tensor, t: Tensor, colour: Tensor, thing: Tensor) -> Tensor:
        angle = t * torch.exp(torch.linspace(0, 5, 8, device=t.device))
        hint = F.gelu(self.clock(torch.cat([angle.sin(), angle.cos()], 1)) + self.colour(colour) + self.thing(thing))
        h = self.open(x_t) + hint
        for block in self.blocks:
            h = h + block(h + hint)
        return (self.close(h) - x_t) / (1 - t).clamp_min(END)


class Colouring:
    """学画彩色的 (11.1)，颜色和东西各藏起两成 / Learn (11.1) in colour; a fifth of colours and things is hidden."""

    def begin(self, device: torch.device) -> Descent:
        return Descent.of(ColourDrawer().to(device), self.losses, COLOUR_RATE, DECAY, total="L")

    def step(self, trainer: Descent, generator: torch.Generator) -> Losses:
        seen = colour_pictures()
        rows = torch.randint(len(seen.x), (BATCH,), generator=generator)
        hidden = torch.rand(2, BATCH, generator=generator) < 0.2
        return trainer.train_step({
            "x_0": torch.randn(BATCH, seen.x.shape[1], generator=generator), "x_1": seen.x[rows],
            "t": torch.rand(BATCH, 1, generator=generator),
            "colour": seen.colour[rows].masked_fill(hidden[0], len(COLOURS)),
            "thing": seen.thing[rows].masked_fill(hidden[1], len(THINGS))})

    def losses(self, drawer: ColourDrawer, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        x_t = flow_path(batch["x_0"], batch["x_1"], batch["t"])
        v = drawer.velocity(x_t, batch["t"], batch["colour"], batch["thing"])
        return {"L": flow_matching_loss(v, batch["x_0"], batch["x_1"])}


@dataclass(frozen=True, eq=False)
class ColourStudy:
    """画出的绿心、蓝心、蓝苹果 / The green hearts, blue hearts and blue apples that were drawn."""

    green_heart: Tensor  # (100, 768), never shown
    blue_heart: Tensor  # (100, 768), shown
    blue_apple: Tensor  # (100, 768), never shown, and there is no real one
    seconds: float  # of processor time for the training


@typed
def colour_study(seed: int, steps: int = COLOUR_STEPS) -> ColourStudy:
    """学画彩色的，再要没见过的绿心 / Learn to draw in colour, then ask for a green heart that was never shown."""
    begun = time.process_time()
    drawer = Learner(Colouring(), steps, seed, "cpu").finish().model
    seconds = time.process_time() - begun
    noise = torch.randn(COLOUR_COUNT, 3 * COLOUR_SIDE ** 2, generator=torch.Generator().manual_seed(seed))

    def asked(colour: str, thing: str) -> Tensor:
        which = (torch.full((COLOUR_COUNT,), COLOURS.index(colour)), torch.full((COLOUR_COUNT,), THINGS.index(thing)))
        return euler_steps(lambda x, t: drawer.velocity(x, t, *which), noise, EULER)[-1].clamp(-1, 1)

    with evaluating(drawer):
        return ColourStudy(asked(*UNSEEN), asked("blue", "heart"), asked("blue", "apple"), seconds)


@typed
def green_hearts_by_rule(rule: str) -> Tensor:
    """不学习的绿心，五位作者各一颗 / Green hearts by a rule that learns nothing, one for each of five artists.

    "half": half of a yellow heart and half of a green apple. "sum": red heart − red apple + green apple.

    "half"：半颗黄心加半个绿苹果。"sum"：红心 − 红苹果 + 绿苹果。
    """
    checks.one_of(rule, "rule", ("half", "sum"))
    seen = colour_pictures()

    def of(colour: str, thing: str) -> Tensor:
        return seen.x[(seen.colour == COLOURS.index(colour)) & (seen.thing == THINGS.index(thing))]

    if rule == "half":
        return (of("yellow", "heart") + of("green", "apple")) / 2
    return (of("red", "heart") - of("red", "apple") + of("green", "apple")).clamp(-1, 1)


@typed
def nearer_to_green_hearts(x: Tensor) -> Tensor:
    """离真的绿心比离哪一幅给看的都近吗 / Nearer to a real green heart than to any picture shown? → (N,) bool."""
    checks.fits(x, "x", f"N {3 * COLOUR_SIDE ** 2}", colour_pictures().x)
    require(bool(x.isfinite().all()), "x 里有 NaN 或无穷", "x holds NaN or infinity")
    return nearest_distance(x, colour_pictures(unseen=True).x) < nearest_distance(x, colour_pictures().x)


@typed
def colour_pixels(x: Tensor) -> Tensor:
    """彩色的图给人看 / Pictures in colour for people: (N, 768) → uint8 (N, 3, 64, 64)."""
    checks.fits(x, "x", f"N {3 * COLOUR_SIDE ** 2}", colour_pictures().x)
    require(bool(x.isfinite().all()), "x 里有 NaN 或无穷", "x holds NaN or infinity")
    page = (127.5 * (x.clamp(-1, 1) + 1)).round().byte().view(-1, 3, COLOUR_SIDE, COLOUR_SIDE)
    return page.repeat_interleave(4, 2).repeat_interleave(4, 3)


# -- pictures for people ----------------------------------------------------------------------------------------------

@typed
def to_pixels(x: Tensor, columns: int = 1) -> Tensor:
    """图给人看，黑墨白纸，几幅排成几列 / Pictures for people, black on white, in columns: (N, 64) → uint8 (3, h, w).

    What is beyond ink or paper is cut off. A last row that is not full is filled with paper.

    超出墨或纸的截去。最后一行不满的用白纸补足。
    """
    checks.fits(x, "x", f"N {PIXELS}")
    columns = checks.whole(columns, "columns")
    require(len(x) > 0 and bool(x.isfinite().all()), "x 需要至少一幅图，没有 NaN 或无穷",
            "x must be one picture at least, without NaN or infinity")
    ink = F.pad(x.clamp(-1, 1), (0, 0, 0, -len(x) % columns), value=-1).view(-1, columns, SIDE, SIDE)
    page = F.pad(ink, (0, 1, 0, 1), value=-1).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    page = (127.5 * (1 - page)).round().byte().repeat_interleave(8, 0).repeat_interleave(8, 1)
    return page.expand(3, -1, -1).contiguous()


@typed
def velocity_of_two(x: Tensor, t: Tensor) -> Tensor:
    """一个像素、两幅图时，最好的速度 / The best velocity for one pixel and two pictures: (B, 1), (B, 1) → (B, 1).

    There the mean over all paths through x_t can be written down: the two ends, each weighted by how probable it is
    that the path leads there.

    这时经过 x_t 的所有路的平均写得出来：两个终点，各按这条路通向它的可能性加权。
    """
    checks.fits(x, "x", "B 1")
    checks.fits(t, "t", "B 1", x, B=len(x))
    require(bool(((t >= 0) & (t < 1)).all()), "t 需要在 0 到 1 之间，不到 1", "t must be from 0 to below 1")
    goal = torch.tensor([[-1.0, 1.0]]).to(x)  # paper and ink
    likely = (-((x - t * goal) / (1 - t)).square() / 2).softmax(1)
    return ((likely * goal).sum(1, keepdim=True) - x) / (1 - t)
