"""短片数据：一样东西在十二帧里做了什么，还有声音 / The clips data: what one thing does in twelve frames, with sound.

一切都由已知的事实生成：每一帧里它在哪里、多大、转到什么角度。图画来自表情数据，没有别的文件。见同一文件夹的 CARD.md。

All of it is generated from known facts: where the thing is in every frame, how large, turned how far. The pictures come
from the emoji data; there are no other files. See CARD.md in this folder.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcore import checks
from mmlessons.border import holds, typed
from mmlessons.data import emoji
from mmlessons.data.clips.sound import EARS, SAMPLES, SECONDS, STEPS, log_mel, sing, wind
from mmlessons.data.scenes.things import THINGS as SCENE_THINGS
from mmlessons.data.sound import MELS, to_wav

__all__ = ["EARS", "FRAMES", "MELS", "MOTIONS", "ROLES", "SAMPLES", "SECONDS", "SIZE", "STEPS", "THINGS",
           "Clips", "load", "log_mel", "reverse", "shuffle", "to_wav", "with_reversals"]

VERSION = 1  # of what a seed gives
ROLES = emoji.ROLES
FRAMES, SIZE = 12, 32
# 两两互为倒放 / each two of them are reversals of one another: 2k and 2k + 1
MOTIONS = (("向右", "to the right"), ("向左", "to the left"), ("向上", "up"), ("向下", "down"),
           ("变近", "nearer"), ("变远", "farther"), ("顺时针转", "clockwise"), ("逆时针转", "counter-clockwise"),
           ("先跳后转", "jump, then turn"), ("先转后跳", "turn, then jump"))
# 转起来看得出来，不是圆的 / things that show that they turn: none is round
THINGS = tuple(thing for thing in SCENE_THINGS
               if thing.en in ("dog", "fish", "snail", "car", "bicycle", "airplane", "ship", "rocket"))
SHAKE = 0.03  # of the camera, in halves of the picture
GONE = 0.1  # how often a frame is lost
LOST = 128  # the grey of a lost frame
_IN_TIME = ("x", "y", "size", "angle", "shake", "gone")  # what turns round when a clip is played backwards
_JUMP, _RIGHT, _UP, _NEARER, _CLOCKWISE = 4, 0, 1, 2, 3  # pairs of motions


FACTS = {  # what `Clips.draw` gives, see `border.holds`
    "thing": f"int64 B <{len(THINGS)}", "artist": "int64 B", "motion": f"int64 B <{len(MOTIONS)}", "mirrored": "bool B",
    **dict.fromkeys(("x", "y", "size", "angle"), f"B {FRAMES} finite"), "shake": f"B {FRAMES} 2 finite",
    "gone": f"bool B {FRAMES}", "ground": "B 3 4 4 finite", "bar": "B 4 finite", "pitch": "B finite",
    "snr_db": "B finite", "lot": "int64 B", "moment": f"int64 B <{FRAMES}", "order": f"int64 B {FRAMES} <{FRAMES}"}


@dataclass(frozen=True, eq=False)
class Clips:
    """一个划分：A 位作者画的八样东西 / One split: eight things as drawn by A artists.

    短片不是存着的，是抽出来的：同样的种子，同样的短片。种子里含着划分，所以两个划分没有一条轨迹是共用的。

    Clips are not stored but drawn: the same seed gives the same clips. The split is part of the seed, so that no path
    is shared by two splits.

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `tiles` | (A, 8, 3, 32, 32) uint8 | 图画，白底 / the drawings, on white |
    | `artists` | A | 作者的名字 / the titles of the artists |
    """

    role: str
    tiles: Tensor
    artists: tuple[str, ...]

    @typed
    def draw(self, count: int, seed: int) -> dict[str, Tensor]:
        """抽出 N 段短片的事实 / Draw the facts of N clips.

        | 返回 returned | 形状 shape | 含义 meaning |
        |---|---|---|
        | `thing`, `artist`, `mirrored` | (N,) | 什么东西，谁画的，左右是否翻转 / what, by whom, whether mirrored |
        | `motion` | (N,) int64 | 做了什么，`MOTIONS` 里的编号，各一样多 / what it does, equally many of each |
        | `x`, `y`, `size`, `angle` | (N, 12) | 每帧在哪里、多大、什么角度 / place, size and angle in every frame |
        | `shake`, `gone` | (N, 12, 2), (N, 12) | 镜头的抖动，丢了的帧 / the shaking of the camera, frames lost |
        | `ground`, `bar` | (N, 3, 4, 4), (N, 4) | 背景，遮住一部分的条 / the ground, a bar that hides a part |
        | `pitch`, `snr_db`, `lot` | (N,) | 音高，信噪比，风声的种子 / pitch, signal to noise, seed of the wind |
        | `moment`, `order` | (N,), (N, 12) | 一个时刻，一种打乱的次序 / one moment, one order to shuffle into |

        Raises: TypeError / ValueError 个数或种子不对 / for a wrong number or seed.
        """
        checks.whole(count, "count")
        checks.whole(seed, "seed", 0)
        g = torch.Generator().manual_seed(len(ROLES) * seed + ROLES.index(self.role))
        n = count

        def between(low: float, high: float, *shape: int) -> Tensor:
            return torch.rand(n, *shape, generator=g) * (high - low) + low

        def whole(high: int) -> Tensor:
            return torch.randint(high, (n,), generator=g)

        motion = torch.arange(n)[torch.randperm(n, generator=g)] % len(MOTIONS)
        time = torch.linspace(0, 1, FRAMES)
        u = time ** between(-0.4, 0.4, 1).exp() - 0.5  # faster at first or later
        is_pair = {pair: (motion // 2 == pair).float()[:, None] for pair in range(len(MOTIONS) // 2)}
        way, across = between(0.5, 1.1, 1) * u, between(-0.25, 0.25, 1) * u  # along and beside the path
        x = between(-0.3, 0.3, 1) + is_pair[_RIGHT] * way + (1 - is_pair[_RIGHT]) * across
        y = between(-0.3, 0.3, 1) - is_pair[_UP] * way + (1 - is_pair[_UP]) * across.flip(0)
        size = between(0.5, 0.7, 1) * (between(1.6, 2.6, 1).log() * u * is_pair[_NEARER]).exp()
        turning = between(-0.5, 0.5, 1) + between(1.5, 2.6, 1) * u
        tilt = between(-0.3, 0.3, 1)

        # 先跳后转：前一半跳，后一半转 / first it jumps, then it turns, to either side
        middle = between(0.4, 0.6, 1)
        before, after = (time / middle).clamp(max=1), ((time - middle) / (1 - middle)).clamp(min=0)
        leap = between(0.35, 0.6, 1) * 4 * before * (1 - before)
        side = torch.where(torch.rand(n, 1, generator=g) < 0.5, -1.0, 1.0)
        y = y - is_pair[_JUMP] * leap
        tilt = tilt + is_pair[_JUMP] * side * between(1.6, 2.8, 1) * after
        facts = {
            "thing": whole(len(THINGS)), "artist": whole(len(self.artists)), "motion": motion // 2 * 2,
            "mirrored": torch.rand(n, generator=g) < 0.5,
            "x": x, "y": y, "size": size, "angle": torch.where(is_pair[_CLOCKWISE] > 0, turning, tilt),
            "shake": SHAKE * torch.randn(n, FRAMES, 2, generator=g),
            "gone": torch.rand(n, FRAMES, generator=g) < GONE,
            "ground": _grounds(between(0, 1), between(0.6, 1, 3, 1, 1), between(-0.2, 0.2, 3, 4, 4)),
            "bar": torch.stack([between(-0.8, 0.8), between(0.08, 0.2), between(0, 1), between(0.2, 0.8)], 1),
            "pitch": 300 * 2 ** between(0, 1), "snr_db": between(3, 18),
            "lot": torch.randint(2 ** 31, (n,), generator=g),
            "moment": whole(FRAMES), "order": torch.rand(n, FRAMES, generator=g).argsort(1)}
        backwards = reverse(facts)
        odd = motion % 2 == 1
        return {name: torch.where(odd.view(-1, *[1] * (a.ndim - 1)), backwards[name], a) for name, a in facts.items()}

    def frames(self, facts: dict[str, Tensor]) -> Tensor:
        """画面 / The pictures: (N, 12, 3, 32, 32) uint8."""
        holds(facts, "facts", **FACTS | {"artist": f"int64 B <{len(self.artists)}"})
        n = len(facts["motion"])
        tile = self.tiles[facts["artist"], facts["thing"]] / 255
        tile = torch.where(facts["mirrored"].view(-1, 1, 1, 1), tile.flip(-1), tile)
        middle = torch.stack([facts["x"], facts["y"]], -1) + facts["shake"]  # (N, T, 2)
        cos, sin = facts["angle"].cos() / facts["size"], facts["angle"].sin() / facts["size"]
        turn = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)  # page → drawing
        theta = torch.cat([turn, -turn @ middle.unsqueeze(-1)], -1).flatten(0, 1)  # (N T, 2, 3)
        grid = F.affine_grid(theta, [n * FRAMES, 3, SIZE, SIZE], align_corners=False).view(n, FRAMES * SIZE, SIZE, 2)
        ink = F.grid_sample(1 - tile, grid, align_corners=False).view(n, 3, FRAMES, SIZE, SIZE)
        ground = F.interpolate(facts["ground"], SIZE, mode="bilinear", align_corners=True)
        seen = (ground.unsqueeze(2) * (1 - ink)).transpose(1, 2)  # drawn onto the ground like ink: (N, T, 3, 32, 32)
        hidden = self._bars(facts["bar"])[:, None, None]
        seen = torch.where(hidden, facts["bar"][:, 3].view(-1, 1, 1, 1, 1), seen)
        seen = torch.where(facts["gone"].view(n, FRAMES, 1, 1, 1), LOST / 255, seen)
        return (255 * seen).round().to(torch.uint8)

    def sound(self, facts: dict[str, Tensor]) -> Tensor:
        """两耳听到的波形，有风 / The waveforms at both ears, with the wind: (N, 2, 10000)."""
        holds(facts, "facts", **FACTS | {"artist": f"int64 B <{len(self.artists)}"})
        tone = sing(*(facts[name] for name in ("x", "y", "size", "angle", "pitch")))
        checks.require(bool(tone.isfinite().all()), "facts 里的数太大，没有这样的声音",
                       "numbers in facts are too large for a sound")
        return tone + wind(facts["lot"], facts["snr_db"])

    @staticmethod
    def _bars(bar: Tensor) -> Tensor:
        place = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
        inside = (place - bar[:, :1]).abs() < bar[:, 1:2]  # (N, 32)
        upright, flat = inside[:, None, :].expand(-1, SIZE, -1), inside[:, :, None].expand(-1, -1, SIZE)
        kind = bar[:, 2].view(-1, 1, 1)  # half of the clips have a bar, upright or flat
        return torch.where(kind < 0.25, upright, flat & (kind < 0.5))


def _grounds(lot: Tensor, colour: Tensor, pattern: Tensor) -> Tensor:
    plain = (lot < 0.4).view(-1, 1, 1, 1)
    return torch.where(plain, 1.0, (colour + pattern).clamp(0.3, 1))


def reverse(facts: dict[str, Tensor]) -> dict[str, Tensor]:
    """倒放：同样的十二帧，次序相反，答案也相反 / Played backwards: the same frames in the opposite order, and the
    opposite answer.

    `moment` 与 `order` 也反过来：那一刻看到的，打乱以后看到的，都与原来一模一样。

    `moment` and `order` are turned round too: what is seen at that moment, and in that order, is exactly the same.
    """
    holds(facts, "facts", **FACTS)
    turned = {name: facts[name].flip(1) for name in _IN_TIME}
    return {**facts, **turned, "motion": facts["motion"] ^ 1, "moment": FRAMES - 1 - facts["moment"],
            "order": FRAMES - 1 - facts["order"]}


def with_reversals(facts: dict[str, Tensor]) -> dict[str, Tensor]:
    """每段短片，再加上它的倒放 / Every clip, and then every clip played backwards: N → 2N."""
    backwards = reverse(facts)
    return {name: torch.cat([values, backwards[name]]) for name, values in facts.items()}


def shuffle(steps: Tensor, order: Tensor) -> Tensor:
    """把时间打乱 / Shuffle time: (N, T, …), (N, T) → (N, T, …), step t being what was step order[t]."""
    checks.require(steps.shape[:2] == order.shape,
                   f"order 需要形状 {tuple(steps.shape[:2])}，收到 {checks.shape_of(order)}",
                   f"order must have shape {tuple(steps.shape[:2])}, got {checks.shape_of(order)}")
    return steps[torch.arange(len(steps))[:, None], order]


@typed
def load(role: str = "train") -> Clips:
    """载入一个划分 / Load one split: "train", "validation", "test" or "shift", by artist as in the emoji data."""
    return Clips(role, *emoji.drawings([thing.concept for thing in THINGS], role))
