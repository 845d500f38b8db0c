"""声音：波形、梅尔功率、嘈杂声 / Sound: waveform, mel power, babble.

每段 0.825 秒，8 000 Hz，切成 32 帧，每帧 50 毫秒，隔 25 毫秒一帧。嘈杂声加在波形上（`babble_at`），或加在梅尔功率
上（`Digits.observe`，快得多）。两个互不相关的声音相加，功率大致相加：

Each recording lasts 0.825 s at 8 000 Hz and is cut into 32 frames of 50 ms, one every 25 ms. Babble is added to the
waveform (`babble_at`) or to the mel power (`Digits.observe`, which is much faster). When two unrelated sounds are
added, their powers nearly add:

    |S + N|² = |S|² + |N|² + 2 Re(S N*),    E[2 Re(S N*)] = 0
"""

import io
import math
import wave
from functools import cache

import torch
from torch import Tensor

from mmcore import checks

RATE = 8000  # samples a second
WINDOW, HOP = 400, 200  # samples: 50 ms and 25 ms
MELS, FRAMES = 24, 32
BABBLE_WINDOW = (FRAMES - 1) * HOP + WINDOW  # 6600 samples, as long as a recording
FFT = 512
LOWEST, HIGHEST = 60.0, 3800.0  # Hz


def mel_power(samples: Tensor) -> Tensor:
    """梅尔功率 / Mel power.

        P[m, t] = Σ_k W[m, k] |Σ_n h[n] x[200 t + n] e^{-2πi k n / 512}|²

    | 符号 symbol | 代码 code | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | x | `samples` | (…, S) | 波形，可以有许多段 / the waveform, or many of them |
    | h | `hann` | (400,) | 汉宁窗 / the Hann window |
    | W | `mel_filters()` | (24, 257) | 三角滤波器 / triangular filters |
    | P | 返回 returned | (…, 24, T) | 每个频带、每帧的功率 / the power in each band and frame |
    """
    checks.require(isinstance(samples, Tensor) and samples.is_floating_point() and samples.ndim > 0
                   and samples.shape[-1] >= WINDOW,
                   f"samples 需要是浮点张量，每段至少 {WINDOW} 个数",
                   f"samples must be a floating tensor of at least {WINDOW} numbers each", TypeError)
    hann = torch.hann_window(WINDOW)
    spectrum = torch.fft.rfft(samples.unfold(-1, WINDOW, HOP) * hann, FFT)  # (…, T, 257)
    return mel_filters() @ spectrum.abs().square().mT


@cache
def mel_filters() -> Tensor:
    """24 个三角形 / 24 triangles, evenly apart on the mel scale, mel(f) = 2595 log₁₀(1 + f / 700).

    Each falls to zero at the tops of its neighbours, so that together they count every frequency once.
    """
    low, high = (2595 * math.log10(1 + f / 700) for f in (LOWEST, HIGHEST))
    tops = 700 * (10 ** (torch.linspace(low, high, MELS + 2) / 2595) - 1)  # Hz
    frequency = torch.arange(FFT // 2 + 1) * RATE / FFT
    rising = (frequency - tops[:-2, None]) / (tops[1:-1] - tops[:-2])[:, None]
    falling = (tops[2:, None] - frequency) / (tops[2:] - tops[1:-1])[:, None]
    return torch.minimum(rising, falling).clamp(min=0)


@checks.shapes(power=f"B {MELS} {FRAMES}")
def sound_feature(power: Tensor) -> Tensor:
    """模型所见：对数梅尔谱，-50 dB 及以下为 0，30 dB 为 1 / What a model sees: log-mel, 0 at -50 dB, 1 at 30 dB.

        s = (10 log₁₀(P + 10⁻⁵) + 50) / 80

    `power`: (B, 24, 32)，干净录音的平均为 1 / with a mean of 1 for a clean recording. Returns (B, 1, 24, 32).
    """
    return ((10 * (power + 1e-5).log10() + 50) / 80).unsqueeze(1)


def babble_at(samples: Tensor, babble: Tensor, snr_db: float) -> Tensor:
    """波形加嘈杂声 / A waveform with babble at a signal-to-noise ratio, both taken over the whole clip.

        y = x + n √(P_x / P_n) 10^{-SNR / 20}
    """
    ratio = (samples.square().mean() / babble.square().mean()).sqrt()
    return samples + babble * ratio * 10 ** (-snr_db / 20)


@checks.shapes(samples="S / 2 S")
def to_wav(samples: Tensor) -> bytes:
    """一个 WAV 文件的字节，供 `IPython.display.Audio(data=...)` 播放 / The bytes of a WAV file, to be played.

    `samples` is (S,), or (2, S) for a left and a right ear. The volume is set to a peak of 0.9, so that speech sounds
    fainter the louder the babble is.

    `samples` 是 (S,)，或左右两耳的 (2, S)。音量调到峰值 0.9，所以嘈杂声越响，人声听起来越轻。
    """
    checks.require(samples.numel() > 0, "samples 是空的，没有声音", "samples is empty, there is no sound")
    checks.require(bool(samples.isfinite().all()), "samples 里有 NaN 或无穷", "samples holds NaN or infinity")
    scaled = samples * (0.9 * 32767 / samples.abs().max().clamp(min=1e-9))
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(samples.ndim)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(torch.atleast_2d(scaled).T.round().to(torch.int16).numpy().astype("<i2").tobytes())
    return out.getvalue()
