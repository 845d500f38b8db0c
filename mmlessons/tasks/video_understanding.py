"""看懂一段短片：一帧、平均、循环、注意力，加上声音 / Understanding a clip: a frame, mean, recurrence, attention, sound.

All models share their eyes: one small convolutional network gives the feature f_t of every frame and is trained by all
of them together. So the difference between them can come only from what follows f_t.

所有的模型共用一双眼睛：每一帧的特征 f_t 由同一个小卷积网络给出，一起训练。所以它们之间的差别，只能来自 f_t 以后。
"""

import math
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
from mmcore.recurrence import Recurrence, mean_over_time
from mmcore.training import device_of, evaluating
from mmlessons.border import holds, typed
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
    """看（和听）一段短片的几个模型，共用眼睛和耳朵 / Models that see (and hear) a clip, with common eyes and ears.

    `forward(frames, sound, moment)` returns named tensors, and computes only what the models in `answers` use:

    | name | shape | meaning | 含义 |
    |---|---|---|---|
    | `f_v`, `f_a` | (B, T, D) | features of the picture and of the sound at every frame | 每帧的画面、声音的特征 |
    | `f_frame` | (B, D) | the frame at `moment` | `moment` 那一帧 |
    | `f_mean` | (B, D) | the mean (8.1) | 平均 |
    | `f_bag`, `f_attention` | (B, 8 D) | attention (8.3), without and with positions | 注意力，没有位置、有位置 |
    | `h_v`, `h_a` | (B, H) | recurrence (8.2): what was seen, what was heard | 循环：看到的、听到的 |
    | `f_av`, `h_av` | (B, T, D), (B, H) | each frame fused early (3.1), then recurrence | 每帧早期融合，再循环 |
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
    """几个模型一起学，共用眼睛和耳朵 / Several models learn together, with common eyes and ears.

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


@dataclass(frozen=True)
class Order:
    """只看画面 / Pictures only: the accuracy of every model, in order and shuffled."""

    in_order: Accuracies
    shuffled: Accuracies


@dataclass(frozen=True)
class Sound:
    """有声音 / With sound: the accuracy of every model, …"""

    everything: Accuracies
    muted: Accuracies  # 没有声音 / without sound
    blinded: Accuracies  # 没有画面 / without pictures
    shuffled: Accuracies
    pairs: dict[str, list[float]]  # 五对动作上各一个 / on each of the five pairs of motions
    said_to_turn: Accuracies  # 转的短片，多少说是转 / of the clips that turn, how many are said to
    right_side: Accuracies  # 转的短片，多少左右说对 / of the clips that turn, how many to the right side


@dataclass(frozen=True)
class ThingStudy:
    """问它是什么 / Asked what it is: the accuracy of every model, by artists of the training set and by another."""

    known: Accuracies  # 训练里的作者，新的短片 / artists of the training set, new clips
    known_shuffled: Accuracies
    unseen: Accuracies
    unseen_shuffled: Accuracies


@typed
def pictures_only(seed: int, steps: int = STEPS, count: int = 500, role: str = "test") -> Order:
    """训练只看画面的模型，再考 / Train the models of pictures and test them."""
    model, seen = learner(PICTURE, steps, seed, device="cpu").finish().model, held_out(role, count)
    return Order(accuracies(model, seen), accuracies(model, shuffled(seen)))


@typed
def with_sound(seed: int, mute: float = MUTE, steps: int = STEPS, count: int = 500, role: str = "test") -> Sound:
    """训练有声音的模型，再考 / Train the models with sound and test them; `mute` is the share of muted clips."""
    model, seen = learner(WITH_SOUND, steps, seed, device="cpu").finish(mute=mute).model, held_out(role, count)
    out, motion = scores(model, seen), seen["motion"]
    z = {name: out[f"z_{name}"] for name in WITH_SOUND}
    turns = {name: turning(z[name], motion) for name in WITH_SOUND}
    return Sound(accuracies(model, seen), accuracies(model, muted(seen)), accuracies(model, blinded(seen)),
                 accuracies(model, shuffled(seen)), {name: by_pair(z[name], motion) for name in WITH_SOUND},
                 {name: said for name, (said, _) in turns.items()}, {name: side for name, (_, side) in turns.items()})


@typed
def what_it_is(seed: int, steps: int = STEPS, count: int = 500, role: str = "test") -> ThingStudy:
    """训练只看画面的模型，问它是什么 / Train the models of pictures, asked what the thing is, and test them."""
    model = learner(PICTURE, steps, seed, "thing", device="cpu").finish().model
    known, unseen = held_out("train", count, seed=1), held_out(role, count)  # seed 0 is what was learned from
    return ThingStudy(accuracies(model, known), accuracies(model, shuffled(known)),
                 accuracies(model, unseen), accuracies(model, shuffled(unseen)))


def by_pair(z: Tensor, motion: Tensor) -> list[float]:
    """五对动作上的正确率，没有的是 nan / The accuracy on each of the five pairs of motions, nan without clips."""
    pairs = [motion // 2 == k for k in range(len(MOTIONS) // 2)]
    return [accuracy(z[these], motion[these]) if bool(these.any()) else math.nan for these in pairs]


def turning(z: Tensor, motion: Tensor) -> tuple[float, float]:
    """转的短片：多少说是转，多少左右说对 / Of the clips that turn: how many are said to, how many to the right side."""
    turns = motion // 2 == TURNS
    checks.require(bool(turns.any()), "没有一段短片在转", "no clip turns")
    said, side = best(z[turns]), motion[turns] % 2
    sideways = ((said // 2 == TURNS) | (said // 2 == 0)) & (said % 2 == side)
    return (said // 2 == TURNS).double().mean().item(), sideways.double().mean().item()


STUDIES = {"picture": pictures_only, "sound": with_sound, "thing": what_it_is}


def train_and_test(study: str, *arguments: float) -> Order | Sound | ThingStudy:
    """做一项研究 / Do one of the `STUDIES`, by its name: train with a seed and test; ValueError for an unknown one."""
    return STUDIES[checks.one_of(study, "study", tuple(STUDIES))](*arguments)
