"""语气：音高、强弱与快慢 / The tone of a voice: pitch, loudness and tempo.

没有人说话：这里只有几条曲线。一种语气是一条音高曲线的样子，嗓音定下从哪里起、起伏多大、说多快；再加上随机的偏差和抖动。

Nobody speaks here: there are only a few curves. A tone is the shape of a pitch contour; the voice settles where it
starts, how widely it moves and how fast; then come random deviations and jitter.

    p(t) = level + range · shape(t / d) + jitter    半音，相对于嗓音的基频 / semitones above the voice's base
    e(t) = loudness + 3 cos(2π · syllables · t) − 6 (t / d)²    分贝 / decibels
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mmcore import checks

FRAMES, FRAME = 48, 0.04  # a contour is 48 frames of 40 ms; what is beyond its end is zero
RATE = 8000  # of the hummed waveform, samples a second
MIDDLE = 160.0  # Hz; a feature of 0 octaves
SECONDS = 1.3  # how long a voice of tempo 1 takes for a plain tone
SYLLABLES = 4.5  # a second


@dataclass(frozen=True)
class Manner:
    """一种语气的样子 / The shape of one tone: semitones, decibels, and times the voice's own tempo."""

    level: float
    range: float
    tempo: float
    loudness: float


# 生气与难过都是贬，听上去却相反 / anger and sadness are both negative and sound opposite
MANNERS = {"sad": Manner(-2.0, 2.0, 0.80, -5.0), "cross": Manner(2.0, 4.0, 1.20, 4.0),
           "flat": Manner(0.0, 1.5, 1.00, 0.0), "bright": Manner(2.5, 4.5, 1.10, 2.0),
           "drawn-out": Manner(-0.5, 4.5, 0.72, -1.0)}
MANNERS_OF = {"negative": ("sad", "cross"), "neutral": ("flat",), "positive": ("bright",), "wry": ("drawn-out",)}


@dataclass(frozen=True)
class Voice:
    """一个嗓音 / One voice: the frequency it starts from, how widely it moves, how fast and how steadily."""

    name: str
    role: str
    base: float  # Hz
    range: float  # times the range of the tone
    tempo: float
    jitter: float  # semitones


def shapes(u: Tensor) -> Tensor:
    """每种语气的音高曲线 / The pitch contour of each manner, in the order of MANNERS; u: time from 0 to 1, (…, T)."""
    return torch.stack([
        0.5 - u,  # falls slowly
        0.8 - 2.2 * u ** 2,  # falls steeply
        0.3 - 0.6 * u,  # hardly moves
        torch.sin(3 * math.pi * u) + 0.5 * u,  # up and down, and up at the end
        1.6 * torch.exp(-((u - 0.72) / 0.16) ** 2) - 0.5,  # waits, then swells late and dies away
    ], -2)


def check_noise(noise: float) -> None:
    """noise 须在 0 到 10 之间 / noise must be from 0 to 10."""
    checks.require(0 <= checks.number(noise, "noise") <= 10, f"noise 需要在 0 到 10 之间，收到 {noise}",
                   f"noise must be from 0 to 10, got {noise}")


def contour(manner: Tensor, base: Tensor, voice_range: Tensor, tempo: Tensor, jitter: Tensor,
            generator: torch.Generator, noise: float = 1.0) -> Tensor:
    """B 条语气曲线 / B contours of tones.

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `manner` | (B,) int64 | MANNERS 中的编号 / number in MANNERS |
    | `base`, `voice_range`, `tempo`, `jitter` | (B,) | 嗓音 / of the voice, see `Voice` |
    | `noise` | | 随机偏差的倍数，0 是没有 / times the random deviations, 0 is none |
    | 返回 returned | (B, 3, 48) float | 音高（八度）、强弱（十分贝）、有没有声 / pitch in octaves, loudness in tens of
      decibels, whether there is sound |
    """
    check_noise(noise)
    checks.require(bool(((manner >= 0) & (manner < len(MANNERS))).all()),
                   f"manner 需要在 0 到 {len(MANNERS) - 1} 之间", f"manner must be from 0 to {len(MANNERS) - 1}")
    b = len(manner)
    level, width, pace, loud = torch.tensor([[m.level, m.range, m.tempo, m.loudness] for m in MANNERS.values()])[
        manner].unbind(1)
    deviation = noise * torch.randn(4, b, generator=generator)
    wobble = noise * torch.randn(b, FRAMES, generator=generator) * jitter[:, None]
    uneven = noise * torch.randn(b, FRAMES, generator=generator)
    level = level + 1.5 * deviation[0]
    width = width * voice_range * (0.35 * deviation[1]).exp()
    pace = (pace * tempo * (0.15 * deviation[2]).exp())
    loud = loud + 3.0 * deviation[3]
    seconds = (SECONDS / pace).clamp(0.6, FRAMES * FRAME)
    time = torch.arange(FRAMES) * FRAME
    u = time / seconds[:, None]  # (B, T)
    heard = u <= 1
    shape = shapes(u.clamp(max=1)).gather(1, manner[:, None, None].expand(-1, 1, FRAMES)).squeeze(1)
    pitch = (base / MIDDLE).log2()[:, None] + (level[:, None] + width[:, None] * shape + wobble) / 12
    beat = torch.cos(2 * math.pi * SYLLABLES * pace[:, None] * time)
    energy = (loud[:, None] + 3 * beat - 6 * u ** 2 + uneven) / 10
    return torch.stack([pitch * heard, energy * heard, heard.float()], 1)


def hum(tone: Tensor) -> Tensor:
    """把一条曲线哼出来 / Hum one contour: (3, 48) → waveform at 8 000 Hz, from -1 to 1.

    八个泛音，越高越轻；相位是频率的累加，所以音高滑动时没有咔嗒声。

    Eight harmonics, the higher the softer; the phase adds up the frequency, so that nothing clicks as the pitch
    glides.
    """
    checks.fits(tone, "tone", f"3 {FRAMES}", torch.empty(0))
    checks.require(bool((tone.abs() < 100).all()), "tone 里有 NaN，或太大的数", "tone holds NaN or numbers too large")
    frames = int((tone[2] > 0).sum())
    checks.require(frames > 1, "tone 里没有声音", "tone holds no sound")
    count = int(frames * FRAME * RATE)
    pitch, loud = torch.nn.functional.interpolate(tone[None, :2, :frames], count, mode="linear", align_corners=True)[0]
    frequency = MIDDLE * 2 ** pitch
    phase = 2 * math.pi * (frequency / RATE).double().cumsum(0)
    wave = sum(torch.sin(k * phase) / k ** 1.3 * (k * frequency < 0.45 * RATE) for k in range(1, 9))
    edge = torch.linspace(0, 1, RATE // 40)
    fade = torch.ones(count)
    fade[:len(edge)], fade[-len(edge):] = edge, edge.flip(0)
    wave = wave.float() * 10 ** (loud / 2) * fade
    return 0.9 * wave / wave.abs().max()
