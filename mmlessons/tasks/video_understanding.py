"""看懂一段短片：一帧、平均、GRU、注意力，加上声音 / Understanding a clip: one frame, mean, GRU, attention, sound.

All models share a frame encoder: one small convolutional network gives the feature f_t of every frame and is trained by
all of them together. So the difference between them can come only from what follows f_t.

所有的模型共用一个帧编码器：每一帧的特征 f_t 由同一个小卷积网络给出，一起训练。所以它们之间的差别，只能来自 f_t 以后。
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.attention import TemporalAttention
from mmcore.checks import shapes
from mmcore.fusion import EarlyFusion, LateFusion
from mmcore.ranking import ranks
from mmcore.recurrence import Recurrence, mean_over_time
from mmcore.training import device_of, evaluating
from mmlessons.border import check_pictures, holds, typed
from mmlessons.data import clips
from mmlessons.data.clips import FRAMES, MOTIONS, THINGS
from mmlessons.tasks.learner import Descent, Learner, Losses
from mmlessons.tasks.scoring import accuracy, best

PICTURE = ("frame", "mean", "bag", "attention", "recurrent")  # bag: attention without positions
WITH_SOUND = ("recurrent", "sound", "early", "late")
READ = {"frame": "f_frame", "mean": "f_mean", "bag": "f_bag", "attention": "f_attention",  # what each model reads
        "recurrent": "h_v", "sound": "h_a", "early": "h_av", "late": "h_late"}
QUESTIONS = {"motion": MOTIONS, "thing": tuple((thing.zh, thing.en) for thing in THINGS)}  # what it does, what it is
FEATURE_DIM, HIDDEN_DIM, HEADS = 48, 64, 8
STEPS, BATCH = 250, 56  # chosen on the validation split, to train within ten seconds
LEARNING_RATE, WEIGHT_DECAY = 8e-3, 0.05
MUTE = 0.2  # the share of clips without sound, where a model is to learn to do without it
CLIPS = 2048  # that a training learns from, and as many backwards
TURNS = 3  # the pair of motions that turn
EAR_STEP = clips.EARS * clips.MELS * clips.STEPS // FRAMES  # numbers of sound for each frame

SEEN = {"frames": f"uint8 B {FRAMES} 3 32 32", "sound": "B 2 24 24", "moment": f"int64 B <{FRAMES}",
        "order": f"int64 B {FRAMES} <{FRAMES}", "motion": f"int64 B <{len(MOTIONS)}",
        "thing": f"int64 B <{len(THINGS)}"}  # what an observation holds, see `border.holds`
Seen = Mapping[str, Tensor]
Accuracies = dict[str, float]  # of every model
Found = dict[str, Tensor]  # of every model, one number for each clip


# -- the models -------------------------------------------------------------------------------------------------------

class FrameEncoder(nn.Module):
    """一帧帧地看 / Sees frame by frame: (B, T, 3, 32, 32) → (B, T, D); brightness and contrast do not count."""

    def __init__(self, feature_dim: int = FEATURE_DIM, width: int = 16):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 6, stride=4, padding=1), nn.BatchNorm2d(width), nn.GELU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.BatchNorm2d(2 * width), nn.GELU(), nn.Flatten(),
            nn.Linear(2 * width * 16, feature_dim))

    def forward(self, frames: Tensor) -> Tensor:
        b, t = frames.shape[:2]
        return self.layers(F.group_norm(frames.flatten(0, 1), 1)).view(b, t, -1)


@typed
class VideoModel(nn.Module):
    """看（和听）一段短片的几个模型，共用编码器 / Models that see (and hear) a clip, with shared encoders.

    `forward(frames, sound, moment)` returns named tensors, and computes only what the models in `answers` use:

    | name | shape | meaning | 含义 |
    |---|---|---|---|
    | `f_v`, `f_a` | (B, T, D) | features of the picture and of the sound at every frame | 每帧的画面、声音的特征 |
    | `f_frame` | (B, D) | the frame at `moment` | `moment` 那一帧 |
    | `f_mean` | (B, D) | the mean (8.1) | 平均 |
    | `f_bag`, `f_attention` | (B, 8 D) | attention (8.3), without and with positions | 注意力，没有位置、有位置 |
    | `h_v`, `h_a` | (B, H) | GRU (8.2): what was seen, what was heard | GRU：看到的、听到的 |
    | `f_av`, `h_av` | (B, T, D), (B, H) | each frame fused early (3.1), then a GRU | 每帧早期融合，再过 GRU |
    | `h_late` | (B, H) | late fusion (3.2) of h_v and h_a | 晚期融合：h_v 与 h_a |
    | `z_…` | (B, K) | scores of every model, see `QUESTIONS[asks]` | 每个模型对 `QUESTIONS[asks]` 的得分 |

    Raises ValueError for an unknown model in `answers` or an unknown question.

    `forward(frames, sound, moment)` 返回有名字的张量，只算 `answers` 里的模型用到的。`answers` 里有未知的模型，或问题
    未知时报 ValueError。
    """

    def __init__(self, answers: Sequence[str] = tuple(READ), asks: str = "motion"):
        super().__init__()
        checks.require(len(answers) > 0, "answers 需要至少一个模型", "answers must name one model at least")
        for name in answers:
            checks.one_of(name, "answers", tuple(READ))
        self.answers, self.asks = tuple(answers), checks.one_of(asks, "asks", tuple(QUESTIONS))
        d, h = FEATURE_DIM, HIDDEN_DIM
        self.eye = FrameEncoder(d)
        self.ear = nn.Sequential(nn.Linear(EAR_STEP, 64), nn.GELU(), nn.Linear(64, d))
        self.bag = TemporalAttention(d, FRAMES, HEADS, positions=False)
        self.attention = TemporalAttention(d, FRAMES, HEADS)
        self.seeing, self.hearing, self.both = (Recurrence(d, h) for _ in range(3))
        self.early_fusion = EarlyFusion([d, d], d, 2 * d)
        self.late_fusion = LateFusion(h, 2)
        widths = {"frame": d, "mean": d, "bag": HEADS * d, "attention": HEADS * d}
        self.heads = nn.ModuleDict({name: _head(widths.get(name, h), len(QUESTIONS[asks])) for name in READ})

    @shapes(like="late_fusion.logits", frames=f"B {FRAMES} 3 32 32", sound="B 2 24 24", moment="int64 B")
    def forward(self, frames: Tensor, sound: Tensor, moment: Tensor) -> dict[str, Tensor]:
        wanted, out = {*self.answers}, {}
        f_v = out["f_v"] = self.eye(frames)  # (B, T, D)
        if wanted & {"recurrent", "late"}:
            out["h_v"] = self.seeing(f_v)
        if "frame" in wanted:
            out["f_frame"] = f_v[torch.arange(len(f_v)), moment]
        if "mean" in wanted:
            out["f_mean"] = mean_over_time(f_v)
        if "bag" in wanted:
            out["f_bag"] = self.bag(f_v)
        if "attention" in wanted:
            out["f_attention"] = self.attention(f_v)
        if wanted & {"sound", "early", "late"}:
            f_a = out["f_a"] = self.ear(by_frame(sound))
            out["h_a"] = self.hearing(f_a)
        if "early" in wanted:
            fused = self.early_fusion([f_v.flatten(0, 1), f_a.flatten(0, 1)])  # (B T, D)
            out["f_av"] = fused.view_as(f_v)
            out["h_av"] = self.both(out["f_av"])
        if "late" in wanted:
            out["h_late"] = self.late_fusion([out["h_v"], out["h_a"]])
        for name in self.answers:
            out[f"z_{name}"] = self.heads[name](out[READ[name]])
        return out


def _head(width: int, choices: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, choices))


def by_frame(sound: Tensor) -> Tensor:
    """声音分给各帧 / The sound, dealt out to the frames: (B, 2, 24, 24) → (B, 12, 96), about 0.

    The two ears become their mean and their difference: left and right is in the difference only, enlarged four times.

    两耳换成它们的平均与差：东西在左在右只在差里，放大四倍。
    """
    left, right = sound.unflatten(-1, (FRAMES, -1)).unbind(1)  # (B, 24, T, 2)
    return torch.cat([left + right - 1, 4 * (left - right)], 1).movedim(2, 1).flatten(2)


# -- clips to learn from and to be tested on --------------------------------------------------------------------------

@typed
def observe(data: clips.Clips, facts: Seen) -> dict[str, Tensor]:
    """事实 → 画面与声音，连同事实 / Facts → pictures and sounds, with the facts.

    `frames` (N, 12, 3, 32, 32) uint8; `sound` (N, 2, 24, 24), see `clips.log_mel`.
    """
    holds(facts, "facts", **clips.FACTS)
    frames, sound = [], []
    for rows in torch.arange(len(facts["motion"])).split(64):  # a few at a time stay in the cache
        part = {name: values[rows] for name, values in facts.items()}
        frames.append(data.frames(part))
        sound.append(clips.log_mel(data.sound(part)))
    return {**facts, "frames": torch.cat(frames), "sound": torch.cat(sound)}


@cache
def training_set(count: int = CLIPS, seed: int = 0) -> dict[str, Tensor]:
    """训练的短片，算一次就留着 / The clips to learn from, kept once computed."""
    data = clips.load("train")
    return observe(data, data.draw(count, seed))


@typed
@cache
def held_out(role: str = "validation", count: int = 300, seed: int = 0) -> dict[str, Tensor]:
    """`count` 段短片，再加上每段的倒放 / `count` clips, and each of them backwards, 2 `count` in all.

    In the half that runs backwards, the one frame and the shuffled frames are exactly those of the other half, and the
    answers are opposite: a model that knows no order gets one of each two right at most.

    倒放的那一半里，被拍到的一帧、打乱以后的样子，都与原来的相同，答案却相反：不知道先后的模型，两个里至多对一个。
    """
    data = clips.load(role)
    return observe(data, clips.with_reversals(data.draw(count, seed)))


def _check(seen: Seen, *names: str) -> None:
    holds(seen, "seen", **{name: SEEN[name] for name in names})


def shuffled(seen: Seen) -> dict[str, Tensor]:
    """各帧打乱，声音跟着画面，`moment` 仍指着同一幅 / Frames shuffled into `order` with their sound, `moment` too."""
    _check(seen, "frames", "sound", "moment", "order")
    order = seen["order"]
    moment = order.argsort(1).gather(1, seen["moment"][:, None]).squeeze(1)
    return {**seen, "frames": clips.shuffle(seen["frames"], order), "sound": _heard_in(seen["sound"], order),
            "moment": moment}


def _heard_in(sound: Tensor, order: Tensor) -> Tensor:
    """The sound in the order of the frames: (N, 2, 24, 24), (N, T) → (N, 2, 24, 24)."""
    steps = sound.unflatten(-1, (FRAMES, -1)).movedim(3, 1)  # (N, T, 2, 24, 2): two steps in one frame
    return clips.shuffle(steps, order).movedim(1, 3).flatten(3)


def muted(seen: Seen) -> dict[str, Tensor]:
    """没有声音：功率是 0 / Without sound: all powers are 0, which `log_mel` calls 0."""
    _check(seen, "sound")
    return {**seen, "sound": torch.zeros_like(seen["sound"])}


def blinded(seen: Seen) -> dict[str, Tensor]:
    """没有画面：每一帧都丢了 / Without pictures: every frame is lost."""
    _check(seen, "frames")
    return {**seen, "frames": torch.full_like(seen["frames"], clips.LOST)}


# -- training ---------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, eq=False)
class Watching:
    """几个模型一起学，共用编码器 / Several models learn together, with shared encoders.

    In every batch half of the clips are played backwards, and red, green and blue change places at random. `asks` is
    the question to be answered: what the thing does, or what it is.

    每一批里，一半的短片倒着放，红绿蓝随机换位。`asks` 是要答的问题：它做什么，或它是什么。
    """

    clips: Seen
    answers: tuple[str, ...]
    asks: str
    batch: int

    def begin(self, device: torch.device) -> Descent:
        return Descent.of(VideoModel(self.answers, self.asks).to(device), self.losses, LEARNING_RATE, WEIGHT_DECAY)

    def losses(self, model: VideoModel, seen: Seen) -> dict[str, Tensor]:
        """每个模型的交叉熵，与它们的和 / The cross-entropy of every model, and their sum."""
        out = model(seen["frames"], seen["sound"], seen["moment"])
        own = {name: F.cross_entropy(out[f"z_{name}"], seen[self.asks]) for name in self.answers}
        return {**own, "total_loss": sum(own.values())}

    def step(self, trainer: Descent, generator: torch.Generator, shuffle: float = 0.0, mute: float = 0.0) -> Losses:
        """`shuffle`、`mute`：打乱的、没有声音的短片的比例 / The shares of clips that are shuffled and muted."""
        checks.share(shuffle, "shuffle")
        checks.share(mute, "mute")
        device = device_of(trainer.model)
        seen = {name: values.to(device) for name, values in self.draw(generator, shuffle, mute).items()}
        found = trainer.train_step(seen)
        return {name: found[name] for name in self.answers}

    @typed
    def draw(self, generator: torch.Generator, shuffle: float = 0.0, mute: float = 0.0) -> dict[str, Tensor]:
        """下一批 / The next batch."""
        g, n = generator, self.batch
        rows = torch.randint(len(self.clips["motion"]), (n,), generator=g)
        backwards = torch.rand(n, generator=g) < 0.5
        in_order = torch.where(backwards[:, None], torch.arange(FRAMES).flip(0), torch.arange(FRAMES))
        anyhow = torch.rand(n, FRAMES, generator=g).argsort(1)
        order = torch.where((torch.rand(n, generator=g) < shuffle)[:, None], anyhow, in_order)
        colours = torch.rand(n, 3, generator=g).argsort(1)
        frames = self.clips["frames"][rows[:, None, None], order[:, :, None], colours[:, None]]
        sound = self.clips["sound"][rows]
        turned = sound.unflatten(-1, (FRAMES, -1)).flip(-1).flatten(3)  # backwards within every frame, too
        sound = _heard_in(torch.where(backwards.view(-1, 1, 1, 1), turned, sound), order)
        sound = sound * (torch.rand(n, generator=g) >= mute).view(-1, 1, 1, 1)
        return {"frames": frames / 255, "sound": sound, "motion": self.clips["motion"][rows] ^ backwards.long(),
                "thing": self.clips["thing"][rows], "moment": torch.randint(FRAMES, (n,), generator=g)}


@typed
def learner(answers: Sequence[str] = PICTURE, steps: int = STEPS, seed: int = 0, asks: str = "motion",
            batch: int = BATCH, count: int = CLIPS, device: str | torch.device | None = None) -> Learner:
    """几个模型一起学 / Several models learn together; TypeError or ValueError for a wrong number, model or question."""
    pool = training_set(checks.whole(count, "count", 2))
    return Learner(Watching(pool, tuple(answers), asks, checks.whole(batch, "batch", 2)), steps, seed, device)


# -- what the trained models are asked --------------------------------------------------------------------------------

@typed
def scores(model: VideoModel, seen: Seen) -> dict[str, Tensor]:
    """所有有名字的张量 / All named tensors of the model, on the CPU."""
    _check(seen, "frames", "sound", "moment")
    parts, device = [], device_of(model)
    with evaluating(model):
        for rows in torch.arange(len(seen["frames"])).split(100):
            out = model(seen["frames"][rows].to(device) / 255, seen["sound"][rows].to(device),
                        seen["moment"][rows].to(device))
            parts.append({name: x.cpu() for name, x in out.items()})
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@typed
def accuracies(model: VideoModel, seen: Seen) -> Accuracies:
    """每个模型的正确率 / The accuracy of every model."""
    _check(seen, "frames", "sound", "moment", model.asks)
    out = scores(model, seen)
    return {name: accuracy(out[f"z_{name}"], seen[model.asks], name) for name in model.answers}


@typed
def right(z: Tensor, seen: Seen, asks: str = "motion") -> Tensor:
    """每段短片对几成：它自己和它的倒放 / How far each clip is right, as it is and backwards: (2N, K) → (N,), 0, ½ or 1.

    `seen` is a `held_out`, z the scores of anyone who answered it. Ties are misses. A clip and its reversal are one
    thing asked, so that an interval counts them once.

    `seen` 是 `held_out` 给的，z 是答它的得分，不论谁答的。并列算错。短片和它的倒放算一项，区间里只数一次。
    """
    checks.one_of(asks, "asks", tuple(QUESTIONS))
    _check(seen, "motion", asks)
    motion = seen["motion"]
    half = len(motion) // 2
    checks.require(half > 0 and torch.equal(motion[:half] ^ 1, motion[half:]),
                   "seen 需要先是短片，再是它们的倒放", "seen must hold clips first and then their reversals")
    _check_scores(z, "z", f"B {len(QUESTIONS[asks])}", B=len(motion))
    return _per_clip(ranks(z.cpu(), F.one_hot(seen[asks], z.shape[1]).bool()) == 1)


def _check_scores(z: Tensor, name: str, shape: str, **sizes: int) -> None:
    checks.fits(z, name, shape, **sizes)
    checks.require(bool(z.isfinite().all()), f"{name} 里有 NaN 或无穷", f"{name} holds NaN or infinity")


def _per_clip(answers: Tensor) -> Tensor:
    """The mean of a clip and its reversal, (2N,) → (N,)."""
    return answers.double().unflatten(0, (2, -1)).mean(0)


def _right(model: VideoModel, seen: Seen) -> Found:
    out = scores(model, seen)
    return {name: right(out[f"z_{name}"], seen, model.asks) for name in model.answers}


# -- rules that learn nothing -----------------------------------------------------------------------------------------

@typed
def flow(frames: Tensor) -> Tensor:
    """光流：每两帧之间怎样动了 / Optical flow, the movement from frame to frame: (N, 12, 3, 32, 32) → (N, 11, 4).

    Right and down in pixels, then how it spreads and turns clockwise, in pixels at half the width of a picture from its
    centre. A point keeps its brightness as it moves, I_t + u I_x + v I_y = 0, and u, v come from those four numbers, so
    least squares over all points give them (Lucas and Kanade 1981). A lost frame counts as a copy of the last one seen.

    先是向右、向下各几个像素，再是变大、顺时针转，以离中心半个画面处的像素计。点动了，亮度不变：
    I_t + u I_x + v I_y = 0，u、v 由这四个数决定，所以对所有的点做最小二乘就求得出来（Lucas 与 Kanade 1981）。丢了的帧
    当作上一帧没变。
    """
    check_pictures(frames, "frames", "N", FRAMES, 3, clips.SIZE, clips.SIZE)
    grey = frames.float().mean(2) / 255
    gone, n = _lost(frames), len(frames)
    last = torch.where(gone, -1, torch.arange(FRAMES)).cummax(1).values  # the last frame that was seen
    last = torch.where(last < 0, (~gone).int().argmax(1, keepdim=True), last)
    grey = F.avg_pool2d(grey[torch.arange(n)[:, None], last], 3, 1)  # (N, T, 30, 30)
    middle = (grey[:, 1:] + grey[:, :-1]) / 2
    d_x = (middle[..., 1:-1, 2:] - middle[..., 1:-1, :-2]) / 2
    d_y = (middle[..., 2:, 1:-1] - middle[..., :-2, 1:-1]) / 2
    d_t = (grey[:, 1:] - grey[:, :-1])[..., 1:-1, 1:-1]  # (N, T - 1, 28, 28)
    place = (torch.arange(28) - 13.5) / 16
    changed = d_t.square() / d_t.square().sum((2, 3), keepdim=True).clamp(min=1e-9)
    x = place - (changed * place).sum((2, 3), keepdim=True)  # from the centre of what changed
    y = place[:, None] - (changed * place[:, None]).sum((2, 3), keepdim=True)
    by = torch.stack([d_x, d_y, d_x * x + d_y * y, d_y * x - d_x * y], -1).flatten(2, 3)  # (N, T - 1, 784, 4)
    little = 1e-3 * torch.eye(4)  # where nothing is to be seen, nothing moves
    return -torch.linalg.solve(by.mT @ by + little, by.mT @ d_t.flatten(2).unsqueeze(-1)).squeeze(-1)


@typed
def flow_rule(seen: Seen) -> Tensor:
    """光流最像十种动作里的哪一种 / Which of the ten motions the flow is most like: scores (B, 10), without training.

    Eight motions are one number of `flow` that stays; the last two are a jump in one half and a turn in the other.

    八种动作是 `flow` 里的一个数一直不变，后两种是一半在跳，一半在转。
    """
    _check(seen, "frames")
    found = flow(seen["frames"])
    return torch.stack([_likeness(found), _likeness(-found.flip(1))], 2).flatten(1)  # odd motions are reversals


def _likeness(found: Tensor) -> Tensor:
    """How like the flow is to right, up, nearer, clockwise and jump-then-turn: (N, T - 1, 4) → (N, 5)."""
    right, down, spread, turn = found.unbind(-1)
    steps = found.shape[1]
    half = steps // 2 + 1
    fall = torch.linspace(-1, 1, half)  # of a jump: first up, then down
    jump = (down[:, :half] @ fall + turn[:, -half:].sum(1).abs()) / (fall.square().sum() + half).sqrt()
    return torch.stack([*(x.sum(1) / steps ** 0.5 for x in (right, -down, spread, turn)), jump], 1)


@typed
def neighbour(seen: Seen, sense: str = "frames", in_order: bool = True, asks: str = "motion") -> Tensor:
    """最像的训练短片 / The most similar clip of the training set: the cosine of the best with each answer, (B, K).

    `sense` is "frames" (8 × 8 grey) or "sound". Each pixel, or number of the sound, less its own median over the clip,
    so that what stands still drops out. The training clips come backwards as well. With `in_order=False` every pixel's
    twelve numbers are sorted first: it knows all of them, and not their order.

    `sense` 是 "frames"（8 × 8 的灰度）或 "sound"。每个像素（或声音里的每个数）减去它在这段短片里的中位数，不动的就
    没有了。训练的短片也倒着放一遍。`in_order=False` 时，每个像素的十二个数先排序：数都知道，先后不知道。
    """
    checks.one_of(sense, "sense", ("frames", "sound"))
    checks.one_of(asks, "asks", tuple(QUESTIONS))
    _check(seen, sense)
    moving = _moving_pixels if sense == "frames" else _moving_sound
    pool, asked = training_set(), moving(seen[sense])
    known, label = moving(pool[sense]), pool[asks]
    if in_order:
        backwards = known.flip(1) if sense == "frames" else moving(pool[sense].flip(-1))
        known, label = torch.cat([known, backwards]), torch.cat([label, label ^ 1 if asks == "motion" else label])
    else:
        asked, known = asked.sort(1).values, known.sort(1).values
    return _most_similar(asked, known, label, len(QUESTIONS[asks]))


def _moving_pixels(frames: Tensor) -> Tensor:
    """(N, T, 64): grey, each frame of mean 0 and length 1, less the median over time."""
    grey = F.avg_pool2d(frames.float().mean(2), 4).flatten(2)
    grey = F.normalize(grey - grey.mean(2, keepdim=True), dim=2)
    grey = grey.masked_fill(_lost(frames).unsqueeze(2), 0.0)
    return grey - grey.median(1, keepdim=True).values


def _moving_sound(sound: Tensor) -> Tensor:
    """(N, T, 96): what each frame sounds like, less the median over time."""
    heard = by_frame(sound)
    return heard - heard.median(1, keepdim=True).values


def _lost(frames: Tensor) -> Tensor:
    """Which frames are lost, (N, T)."""
    return (frames == clips.LOST).flatten(2).all(2)


def _most_similar(asked: Tensor, known: Tensor, label: Tensor, labels: int) -> Tensor:
    """The largest cosine with a known one of each label: (N, …), (M, …), (M,) → (N, labels)."""
    order = label.argsort(stable=True)
    counts = label.bincount(minlength=labels).tolist()
    known = F.normalize(known.flatten(1)[order], dim=1)
    found = [torch.stack([part.amax(1) for part in (rows @ known.T).split(counts, 1)], 1)
             for rows in F.normalize(asked.flatten(1), dim=1).split(500)]  # a few at a time stay in the cache
    return torch.cat(found)


@typed
def added(z: Tensor, other: Tensor) -> Tensor:
    """两个规则的得分，化成同样的尺度再相加 / The scores of two rules, brought to one scale and added: (B, K)."""
    _check_scores(z, "z", "B K")
    _check_scores(other, "other", "B K", B=z.shape[0], K=z.shape[1])
    return sum((x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True).clamp(min=1e-9) for x in (z, other))


@typed
def cut_out(seen: Seen) -> Tensor:
    """把动着的剪下来，看最像哪样东西 / Cuts out what moves and finds the thing it is most like: scores (B, 8).

    In each frame a square around the pixels that differ from the median of the clip is brought to 12 × 12 and compared
    with all those of the training clips; the best cosines of the twelve frames are added up for each thing.

    每一帧里，与整段短片的中位数不同的像素，取它们周围的方块，化成 12 × 12，与训练短片的所有方块相比；每样东西，把十二帧
    里最高的余弦加起来。
    """
    _check(seen, "frames")
    pool = training_set()
    known, asked = _squares(pool["frames"]), _squares(seen["frames"])
    thing = pool["thing"].repeat_interleave(FRAMES)
    found = _most_similar(asked.flatten(0, 1), known.flatten(0, 1), thing, len(THINGS))
    return found.unflatten(0, (-1, FRAMES)).sum(1)


def _squares(frames: Tensor, side: int = 12) -> Tensor:
    """(N, T, side²): what moves, less its mean; 0 where the frame is lost."""
    grey, gone = frames.float().mean(2) / 255, _lost(frames)
    weight = ((grey - grey.median(1, keepdim=True).values).abs() - 0.08).clamp(min=1e-6)
    weight = weight / weight.sum((2, 3), keepdim=True)
    place = (torch.arange(clips.SIZE) + 0.5) / clips.SIZE * 2 - 1
    x, y = (weight * place).sum((2, 3)), (weight * place[:, None]).sum((2, 3))
    far = (place - x[..., None, None]) ** 2 + (place[:, None] - y[..., None, None]) ** 2
    size = (1.7 * (weight * far).sum((2, 3)).sqrt()).clamp(0.1, 1)
    none = torch.zeros_like(size)
    theta = torch.stack([size, none, x, none, size, y], -1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [len(theta), 1, side, side], align_corners=False)
    cut = F.grid_sample(grey.flatten(0, 1).unsqueeze(1), grid, align_corners=False, padding_mode="border")
    cut = cut.view(*gone.shape, -1)
    return (cut - cut.mean(2, keepdim=True)).masked_fill(gone.unsqueeze(2), 0.0)


# -- the studies of the lesson ----------------------------------------------------------------------------------------

@dataclass(frozen=True)
class Order:
    """只看画面：每个模型，每段短片对几成 / Pictures only: how far each clip is `right`, (N,), for every model."""

    in_order: Found
    shuffled: Found


@dataclass(frozen=True)
class Sound:
    """有声音：每个模型，每段短片对几成 / With sound: how far each clip is `right`, (N,), for every model."""

    everything: Found
    muted: Found  # 没有声音 / without sound
    blinded: Found  # 没有画面 / without pictures
    shuffled: Found
    said_to_turn: Found  # 转的短片，说是转的有几成 / of each clip that turns, how far it is said to
    right_side: Found  # 转的短片，左右说对几成 / of each clip that turns, how far the side is right


@dataclass(frozen=True)
class ThingStudy:
    """问它是什么：每段短片对几成 / Asked what it is: how far each clip is `right`, by known artists and by another."""

    known: Found  # 训练里的作者，新的短片 / artists of the training set, new clips
    known_shuffled: Found
    unseen: Found
    unseen_shuffled: Found


@typed
def pictures_only(seed: int, steps: int = STEPS, count: int = 500, role: str = "test") -> Order:
    """训练只看画面的模型，再测试 / Train the models of pictures and test them."""
    model, seen = learner(PICTURE, steps, seed, device="cpu").finish().model, held_out(role, count)
    return Order(_right(model, seen), _right(model, shuffled(seen)))


@typed
def with_sound(seed: int, mute: float = MUTE, steps: int = STEPS, count: int = 500, role: str = "test") -> Sound:
    """训练有声音的模型，再测试 / Train the models with sound and test them; `mute` is the share of muted clips."""
    model, seen = learner(WITH_SOUND, steps, seed, device="cpu").finish(mute=mute).model, held_out(role, count)
    out = scores(model, seen)
    turns = {name: turning(out[f"z_{name}"], seen["motion"]) for name in WITH_SOUND}
    return Sound(_right(model, seen), _right(model, muted(seen)), _right(model, blinded(seen)),
                 _right(model, shuffled(seen)), {name: _per_clip(said) for name, (said, _) in turns.items()},
                 {name: _per_clip(side) for name, (_, side) in turns.items()})


@typed
def what_it_is(seed: int, steps: int = STEPS, count: int = 500, role: str = "test") -> ThingStudy:
    """训练只看画面的模型，问它是什么 / Train the models of pictures, asked what the thing is, and test them."""
    model = learner(PICTURE, steps, seed, "thing", device="cpu").finish().model
    known, unseen = held_out("train", count, seed=1), held_out(role, count)  # seed 0 is what was learned from
    return ThingStudy(_right(model, known), _right(model, shuffled(known)),
                      _right(model, unseen), _right(model, shuffled(unseen)))


def turning(z: Tensor, motion: Tensor) -> tuple[Tensor, Tensor]:
    """转的短片：哪些说是转，哪些左右说对 / Of the clips that turn: which are said to, which to the right side, (n,)."""
    turns = motion // 2 == TURNS
    checks.require(bool(turns.any()), "没有一段短片在转", "no clip turns")
    said, side = best(z[turns]), motion[turns] % 2
    return said // 2 == TURNS, ((said // 2 == TURNS) | (said // 2 == 0)) & (said % 2 == side)


STUDIES = {"picture": pictures_only, "sound": with_sound, "thing": what_it_is}


def train_and_test(study: str, *arguments: float) -> Order | Sound | ThingStudy:
    """做一项研究 / Do one of the `STUDIES`, by its name: train with a seed and test; ValueError for an unknown one."""
    return STUDIES[checks.one_of(study, "study", tuple(STUDIES))](*arguments)
