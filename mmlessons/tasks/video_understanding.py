"""看懂一段短片：一帧、平均、循环、注意力，加上声音 / Understanding a clip: a frame, mean, recurrence, attention, sound.

所有的模型共用一双眼睛：每一帧的特征 f_t 由同一个小卷积网络给出，一起训练。所以它们之间的差别，只能来自 f_t 以后。

All models share their eyes: one small convolutional network gives the feature f_t of every frame and is trained by all
of them together. So the difference between them can come only from what follows f_t.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.attention import TemporalAttention
from mmcore.fusion import EarlyFusion, LateFusion
from mmcore.recurrence import Recurrence, mean_over_time
from mmcore.training import check_steps_left, choose_device, evaluating, make_optimizer, one_cycle, seeded, train_on
from mmlessons.data import clips
from mmlessons.data.clips import FRAMES, MOTIONS, THINGS
from mmlessons.tasks.several_modalities import accuracy

PICTURE = ("frame", "mean", "bag", "attention", "recurrent")  # bag: attention without places
WITH_SOUND = ("recurrent", "sound", "early", "late")
GROUPS = {"picture": PICTURE, "sound": WITH_SOUND, "thing": PICTURE}
ANSWERS = tuple(dict.fromkeys(PICTURE + WITH_SOUND))
QUESTIONS = {"motion": MOTIONS, "thing": tuple((thing.zh, thing.en) for thing in THINGS)}  # what it does, what it is
FEATURE_DIM, HIDDEN_DIM, HEADS = 48, 64, 8
STEPS, BATCH = 250, 56  # chosen on the validation split, to train within ten seconds
LEARNING_RATE = 8e-3
MUTE = 0.2  # the share of clips without sound, where a model is to learn to do without it
CLIPS = 2048  # that a training learns from, and as many backwards
TURNS = 3  # the pair of motions that turn
EAR_STEP = clips.EARS * clips.MELS * clips.STEPS // FRAMES  # numbers of sound for each frame


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


class VideoModel(nn.Module):
    """看（和听）一段短片的几个模型，共用眼睛和耳朵 / Models that see (and hear) a clip, with common eyes and ears.

    `forward(frames, sound, moment)` 返回有名字的张量 / returns named tensors:

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `f_v`, `f_a` | (B, T, D) | 每帧的画面、声音的特征 / features of the picture and of the sound at every frame |
    | `f_frame` | (B, D) | `moment` 那一帧 / the frame at `moment` |
    | `f_mean` | (B, D) | 平均 (8.1) / the mean |
    | `f_bag`, `f_attention` | (B, 8 D) | 注意力 (8.3)，没有位置、有位置 / attention, without and with places |
    | `h_v`, `h_a` | (B, H) | 循环 (8.2)：看到的、听到的 / recurrence: what was seen, what was heard |
    | `f_av`, `h_av` | (B, T, D), (B, H) | 每帧早期融合 (3.1)，再循环 / each frame fused early, then recurrence |
    | `h_late` | (B, H) | 晚期融合 (3.2)：h_v 与 h_a / late fusion of h_v and h_a |
    | `z_…` | (B, K) | 每个模型对 `QUESTIONS[asks]` 的得分 / scores of every model, see `QUESTIONS[asks]` |

    只算 `answers` 里的模型用到的 / Only what the models in `answers` use is computed.

    Raises: ValueError `answers` 里有未知的模型，或问题未知 / for an unknown model in `answers` or an unknown question.
    """

    def __init__(self, answers: Sequence[str] = ANSWERS, asks: str = "motion"):
        super().__init__()
        for name in answers:
            checks.one_of(name, "answers", ANSWERS)
        checks.one_of(asks, "asks", tuple(QUESTIONS))
        d, h = FEATURE_DIM, HIDDEN_DIM
        self.answers = tuple(answers)
        self.eye = FrameEncoder(d)
        self.ear = nn.Sequential(nn.Linear(EAR_STEP, 64), nn.GELU(), nn.Linear(64, d))
        self.bag = TemporalAttention(d, FRAMES, HEADS, positions=False)
        self.attention = TemporalAttention(d, FRAMES, HEADS)
        self.seeing, self.hearing, self.both = (Recurrence(d, h) for _ in range(3))
        self.early_fusion = EarlyFusion([d, d], d, 2 * d)
        self.late_fusion = LateFusion(h, 2)
        widths = {"frame": d, "mean": d, "bag": HEADS * d, "attention": HEADS * d}
        self.heads = nn.ModuleDict({name: _head(widths.get(name, h), len(QUESTIONS[asks])) for name in ANSWERS})

    def forward(self, frames: Tensor, sound: Tensor, moment: Tensor) -> dict[str, Tensor]:
        out: dict[str, Tensor] = {}
        f_v = out["f_v"] = self.eye(frames)
        if {"sound", "early", "late"} & {*self.answers}:
            f_a = out["f_a"] = self.ear(by_frame(sound))
            h_a = out["h_a"] = self.hearing(f_a)
        if {"recurrent", "late"} & {*self.answers}:
            h_v = out["h_v"] = self.seeing(f_v)
        read = {"recurrent": "h_v", "sound": "h_a", "early": "h_av", "late": "h_late"}
        for name in self.answers:
            if name == "frame":
                out["f_frame"] = f_v[torch.arange(len(f_v)), moment]
            elif name == "mean":
                out["f_mean"] = mean_over_time(f_v)
            elif name in ("bag", "attention"):
                out[f"f_{name}"] = getattr(self, name)(f_v)
            elif name == "early":
                fused = self.early_fusion([f_v.flatten(0, 1), f_a.flatten(0, 1)])
                out["f_av"] = fused.view_as(f_v)
                out["h_av"] = self.both(out["f_av"])
            elif name == "late":
                out["h_late"] = self.late_fusion([h_v, h_a])
            out[f"z_{name}"] = self.heads[name](out[read.get(name, f"f_{name}")])
        return out


def _head(width: int, choices: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, 64), nn.GELU(), nn.Linear(64, choices))


def by_frame(sound: Tensor) -> Tensor:
    """声音分给各帧 / The sound, dealt out to the frames: (B, 2, 24, 24) → (B, 12, 96), about 0.

    两耳换成它们的平均与差：东西在左在右只在差里，放大四倍。

    The two ears become their mean and their difference: left and right is in the difference alone, enlarged four times.
    """
    left, right = sound.unflatten(-1, (FRAMES, -1)).unbind(1)  # (B, 24, T, 2)
    return torch.cat([left + right - 1, 4 * (left - right)], 1).movedim(2, 1).flatten(2)


# -- clips to learn from, papers to be examined on --------------------------------------------------------------------

def observe(data: clips.Clips, facts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """事实 → 画面与声音，连同事实 / Facts → pictures and sounds, with the facts.

    `frames` (N, 12, 3, 32, 32) uint8，`sound` (N, 2, 24, 24) 见 `clips.log_mel` / see `clips.log_mel`.
    """
    frames, sound = [], []
    for rows in torch.arange(len(facts["motion"])).split(64):  # a few at a time stay in the cache
        part = {name: values[rows] for name, values in facts.items()}
        frames.append(data.frames(part))
        sound.append(clips.log_mel(data.sound(part)))
    return {**facts, "frames": torch.cat(frames), "sound": torch.cat(sound)}


@cache
def lessons(count: int = CLIPS, seed: int = 0) -> dict[str, Tensor]:
    """训练的短片，算一次就留着 / The clips to learn from, kept once computed."""
    data = clips.load("train")
    return observe(data, data.draw(count, seed))


@cache
def paper(role: str = "validation", count: int = 300, seed: int = 0) -> dict[str, Tensor]:
    """考卷：`count` 段短片，再加上每段的倒放 / An exam: `count` clips, and each of them backwards, 2 `count` in all.

    倒放的那一半里，被拍到的一帧、打乱以后的样子，都与原来的相同，答案却相反：不知道先后的模型，两个里至多对一个。

    In the half that runs backwards, the one frame and the shuffled frames are exactly those of the other half, and the
    answers are opposite: a model that knows no order gets one of each two right at most.
    """
    data = clips.load(role)
    return observe(data, clips.with_reversals(data.draw(count, seed)))


def shuffled(seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """各帧打乱，声音跟着画面 / Frames shuffled into `order`, the sound together with the pictures.

    `moment` 仍指着同一幅画面 / still points to the same picture.
    """
    order = seen["order"]
    moment = order.argsort(1).gather(1, seen["moment"][:, None]).squeeze(1)
    return {**seen, "frames": clips.shuffle(seen["frames"], order), "sound": _heard_in(seen["sound"], order),
            "moment": moment}


def _heard_in(sound: Tensor, order: Tensor) -> Tensor:
    """声音按帧的次序重排 / The sound in the order of the frames: (N, 2, 24, 24), (N, T) → (N, 2, 24, 24)."""
    steps = sound.unflatten(-1, (FRAMES, -1)).movedim(3, 1)  # (N, T, 2, 24, 2): two steps in one frame
    return clips.shuffle(steps, order).movedim(1, 3).flatten(3)


def muted(seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """没有声音：功率是 0 / Without sound: all powers are 0, which `log_mel` calls 0."""
    return {**seen, "sound": torch.zeros_like(seen["sound"])}


def blinded(seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """没有画面：每一帧都丢了 / Without pictures: every frame is lost."""
    return {**seen, "frames": torch.full_like(seen["frames"], clips.LOST)}


# -- training ---------------------------------------------------------------------------------------------------------

class VideoTrainer:
    """几个模型一起学，共用眼睛和耳朵 / Several models learn together, with common eyes and ears.

    每一批里，一半的短片倒着放，红绿蓝随机换位。`asks` 是要答的问题：它做什么，或它是什么。

    In every batch half of the clips are played backwards, and red, green and blue change places at random. `asks` is
    the question to be answered: what the thing does, or what it is.

    Raises: TypeError / ValueError 个数、模型或问题不对 / for a wrong number, model or question.
    """

    def __init__(self, answers: Sequence[str] = PICTURE, steps: int = STEPS, seed: int = 0, batch: int = BATCH,
                 device: str | torch.device | None = None, count: int = CLIPS, asks: str = "motion"):
        for value, name, least in ((steps, "steps", 1), (seed, "seed", 0), (batch, "batch", 2), (count, "count", 2)):
            checks.whole(value, name, least)
        self.answers, self.asks, self.steps, self.seed, self.batch = tuple(answers), asks, steps, seed, batch
        self.device, self.pool = choose_device(device), lessons(count)
        self.reset()

    def reset(self) -> None:
        """从头再来，同样的随机数 / Start anew with the same random numbers."""
        self.generator = torch.Generator().manual_seed(self.seed)
        with seeded(self.seed):
            self.model = VideoModel(self.answers, self.asks).to(self.device)
        self.optimizer = make_optimizer(self.model, LEARNING_RATE, weight_decay=0.05)
        self.schedule = one_cycle(self.optimizer, self.steps)

    def train_step(self, shuffle: float = 0.0, mute: float = 0.0) -> dict[str, float]:
        """走一步，返回每个模型的损失 / Take one step, return the loss of each model.

        `shuffle` 是打乱的短片的比例，`mute` 是没有声音的比例 / are the shares of clips that are shuffled and muted.

        Raises: ValueError 比例不在 0 到 1，或步数走完了 / for a share not from 0 to 1, or once all steps are done;
        FloatingPointError 损失不是有限数 / if the loss is not finite. The model stays as it was.
        """
        checks.share(shuffle, "shuffle")
        checks.share(mute, "mute")
        check_steps_left(self.schedule)
        seen = {name: values.to(self.device) for name, values in self._draw(shuffle, mute).items()}

        def losses() -> dict[str, Tensor]:
            out = self.model(seen["frames"], seen["sound"], seen["moment"])
            own = {name: F.cross_entropy(out[f"z_{name}"], seen[self.asks]) for name in self.answers}
            return {**own, "total_loss": sum(own.values())}

        found = train_on(self.model, self.optimizer, losses)
        self.schedule.step()
        return {name: found[name] for name in self.answers}

    def _draw(self, shuffle: float, mute: float) -> dict[str, Tensor]:
        g, n, pool = self.generator, self.batch, self.pool
        rows = torch.randint(len(pool["motion"]), (n,), generator=g)
        backwards = torch.rand(n, generator=g) < 0.5
        in_order = torch.where(backwards[:, None], torch.arange(FRAMES).flip(0), torch.arange(FRAMES))
        anyhow = torch.rand(n, FRAMES, generator=g).argsort(1)
        order = torch.where((torch.rand(n, generator=g) < shuffle)[:, None], anyhow, in_order)
        colours = torch.rand(n, 3, generator=g).argsort(1)
        frames = pool["frames"][rows[:, None, None], order[:, :, None], colours[:, None]]
        sound = pool["sound"][rows]
        turned = sound.unflatten(-1, (FRAMES, -1)).flip(-1).flatten(3)  # backwards within every frame, too
        sound = _heard_in(torch.where(backwards.view(-1, 1, 1, 1), turned, sound), order)
        sound = sound * (torch.rand(n, generator=g) >= mute).view(-1, 1, 1, 1)
        return {"frames": frames / 255, "sound": sound, "motion": pool["motion"][rows] ^ backwards.long(),
                "thing": pool["thing"][rows], "moment": torch.randint(FRAMES, (n,), generator=g)}

    def scores(self, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """所有有名字的张量 / All named tensors of the model, on the CPU."""
        parts = []
        with evaluating(self.model):
            for rows in torch.arange(len(seen["frames"])).split(100):
                out = self.model(seen["frames"][rows].to(self.device) / 255, seen["sound"][rows].to(self.device),
                                 seen["moment"][rows].to(self.device))
                parts.append({name: x.cpu() for name, x in out.items()})
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def evaluate(self, seen: Mapping[str, Tensor]) -> dict[str, float]:
        """每个模型的正确率 / The accuracy of every model."""
        return self.marks(self.scores(seen), seen)

    def marks(self, out: Mapping[str, Tensor], seen: Mapping[str, Tensor]) -> dict[str, float]:
        """`scores` 里每个模型的正确率 / The accuracy of every model in what `scores` gave."""
        return {name: accuracy(out[f"z_{name}"], seen[self.asks]) for name in self.answers}


def train_and_test(models: str, seed: int, mute: float = MUTE, steps: int = STEPS, count: int = 500,
                   role: str = "test") -> dict[str, dict]:
    """训练一遍，考一遍 / Train once with one seed, and test it: {exam: {model: accuracy}}.

    `models`："picture" 是只看画面的模型，"sound" 是有声音的；"thing" 是只看画面的模型，但问的是它是什么。

    `models`: "picture" are the models of pictures alone, "sound" those with sound; "thing" are the models of pictures
    alone, asked what the thing is.

    | 键 key | 内容 what |
    |---|---|
    | `ordered`, `shuffled` | 按次序，打乱 / in order, shuffled |
    | `known`, `known shuffled` | 同上，训练里的作者，新的短片；只有 "thing" / by artists of the training, new clips |
    | `muted`, `blinded` | 没有声音，没有画面；只有 "sound" 才考 / without sound, without pictures; of "sound" alone |
    | `pairs` | 五对动作上各一个数；"thing" 没有 / a number for each of the five pairs of motions; not of "thing" |
    | `turns` | 转的短片：多少说是转，多少左右说对 / clips that turn: how many said to, how many to the right side |

    Raises: ValueError `models` 未知 / for unknown `models`.
    """
    checks.one_of(models, "models", tuple(GROUPS))
    seen = paper(role, count)
    asks = "thing" if models == "thing" else "motion"
    trained = finish(VideoTrainer(GROUPS[models], steps, seed, device="cpu", asks=asks), mute=mute)
    out = trained.scores(seen)
    exams = {"shuffled": shuffled(seen)}
    if models == "sound":
        exams |= {"muted": muted(seen), "blinded": blinded(seen)}
    if models == "thing":
        known = paper("train", count, seed=1)  # 0 is what was learned from
        exams |= {"known": known, "known shuffled": shuffled(known)}
    result = {"ordered": trained.marks(out, seen), **{name: trained.evaluate(exam) for name, exam in exams.items()}}
    return result if models == "thing" else {**result, **_by_motion(trained.answers, out, seen["motion"])}


def _by_motion(answers: Sequence[str], out: Mapping[str, Tensor], motion: Tensor) -> dict[str, dict]:
    """`train_and_test` 的 "pairs" 与 "turns" / "pairs" and "turns" of `train_and_test`."""
    pair, side = motion // 2, motion % 2
    turning, pairs, turns = pair == TURNS, {}, {}
    for name in answers:
        z = out[f"z_{name}"]
        pairs[name] = [accuracy(z[pair == k], motion[pair == k]) for k in range(len(MOTIONS) // 2)]
        said = z[turning].argmax(1)
        sideways = ((said // 2 == TURNS) | (said // 2 == 0)) & (said % 2 == side[turning])
        turns[name] = [(said // 2 == TURNS).double().mean().item(), sideways.double().mean().item()]
    return {"pairs": pairs, "turns": turns}


def finish(trainer: VideoTrainer, **values: float) -> VideoTrainer:
    """走完所有的步 / Take all steps; `values` go to `train_step`."""
    for _ in range(trainer.steps):
        trainer.train_step(**values)
    return trainer
