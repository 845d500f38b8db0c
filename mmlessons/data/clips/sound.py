"""一个动着的东西听起来怎样 / How a moving thing sounds.

声音从东西的顶上发出，跟着它走：左右在哪里，两耳就各听到多少；越高，音越高；越近，越响。所以向右走和顺时针转听起来
有些像：都是从左耳移到右耳。

The sound comes from the top of the thing and follows it: its place from left to right decides how much each ear gets;
the higher it is, the higher the pitch; the nearer, the louder. So moving to the right and turning clockwise sound
somewhat alike: both go from the left ear to the right.
"""

import math

import torch
from torch import Tensor

from mmlessons.data.sound import HOP, MELS, RATE, mel_power

SECONDS = 1.25
SAMPLES = int(SECONDS * RATE)  # 10 000
EARS, STEPS = 2, 24  # two steps of the sound to one frame of the picture
HARMONICS = 4
OCTAVES = 0.9  # the pitch rises so much from the middle of the picture to its upper edge
NEARNESS = 2.0  # the amplitude grows with this power of the size
MIDDLE_SIZE = 0.6
TOP = 0.5  # where the sound comes from: so far above the middle, in sizes
LEVEL = 0.02  # the amplitude of a thing in the middle: mel powers come to about 1


def sing(x: Tensor, y: Tensor, size: Tensor, angle: Tensor, pitch: Tensor) -> Tensor:
    """两耳听到的波形，没有噪声 / The waveforms at the two ears, without noise: (N, T) each, (N,) → (N, 2, 10000).

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `x`, `y` | (N, T) | 位置，−1 到 1，向右、向下为正 / place from −1 to 1, right and down being positive |
    | `size`, `angle` | (N, T) | 大小，转角（弧度）/ size, and angle in radians |
    | `pitch` | (N,) | 在画面正中时的频率，赫兹 / frequency in the middle of the picture, in Hz |
    """
    x, y, size = (_every_sample(path) for path in (x + TOP * size * angle.sin(), y - TOP * size * angle.cos(), size))
    frequency = pitch[:, None] * 2 ** (-OCTAVES * y)
    phase = 2 * math.pi * (frequency / RATE).double().cumsum(1) % (2 * math.pi)  # adds up, so that nothing clicks
    tone = sum(torch.sin(k * phase.float()) / k * (k * frequency < 0.45 * RATE) for k in range(1, HARMONICS + 1))
    loud = LEVEL * (size / MIDDLE_SIZE) ** NEARNESS
    side = (x.clamp(-1, 1) + 1) * math.pi / 4  # from 0, the left, to π / 2
    return torch.stack([side.cos(), side.sin()], 1) * (loud * tone).unsqueeze(1)


def wind(lot: Tensor, snr_db: Tensor) -> Tensor:
    """两耳各自的风声 / Wind, another one in each ear: (N,) seeds, (N,) decibels → (N, 2, 10000).

    The signal-to-noise ratio is that of a thing in the middle; the same `lot` gives the same wind.
    """
    gust = torch.stack([torch.randn(EARS, SAMPLES + 3, generator=torch.Generator().manual_seed(seed))
                        for seed in lot.tolist()])
    gust = gust.unfold(-1, 4, 1).mean(-1) * 2  # low sounds more than high ones, and still a variance of 1
    return gust * (LEVEL * 10 ** (-snr_db / 20))[:, None, None]


def log_mel(waveform: Tensor) -> Tensor:
    """模型所听：每只耳朵的对数梅尔谱 / What a model hears: log-mel for each ear, (N, 2, 10000) → (N, 2, 24, 24).

        s = (10 log₁₀(P + 10⁻⁵) + 50) / 80

    24 bands and 24 steps, two for each frame of the picture; P is `data.sound.mel_power`, the mean of two neighbours.
    """
    power = mel_power(waveform)[..., :2 * STEPS]  # 49 steps of 25 ms
    power = power.unflatten(-1, (STEPS, 2)).mean(-1)
    return (10 * (power + 1e-5).log10() + 50) / 80


def _every_sample(path: Tensor) -> Tensor:
    """One number for each frame → one for each sample: (N, T) → (N, 10000)."""
    return torch.nn.functional.interpolate(path.unsqueeze(1), SAMPLES, mode="linear", align_corners=True).squeeze(1)


assert 2 * STEPS * HOP <= SAMPLES
assert MELS == STEPS
