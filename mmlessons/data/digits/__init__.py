"""数字数据：同一个数字，写成图、说出声、拼成字 / The digits data: one digit drawn, spoken and spelt.

三种模态按标签随机配对，各有一个噪声旋钮。见同一文件夹的 CARD.md：来源、许可证、怎样制成、缺什么。

The three modalities are paired at random by label, and each has a dial for its noise. See CARD.md in this folder:
source, licences, how it was made, what is not in it.
"""

import io
import json
import math
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmcore import checks
from mmlessons.border import fit, typed
from mmlessons.data import files
from mmlessons.data.digits.writing import Alphabet, Form, decode, encode, scribble, with_typos
from mmlessons.data.sound import BABBLE_WINDOW, FRAMES, MELS, babble_at, mel_power, sound_feature, to_wav

__all__ = ["BABBLE_SNR_DB", "IMAGE_NOISE", "MODALITIES", "ROLES", "TYPO_RATE", "Clip", "Digits", "Form", "Speaker",
           "decode", "load", "mel_power", "sound_feature", "to_pixels", "to_wav"]

ASSETS = Path(__file__).parent / "assets"
VERSION = 1  # of the files in assets
BUILDER = "makers.digits"
ROLES = ("train", "validation", "test")
MODALITIES = ("image", "sound", "text")

# Where the dials stand in the lessons: here each modality alone is right on 65 to 85 % of the test (see CARD.md).
IMAGE_NOISE = 0.5  # standard deviation; the ink of a picture goes from 0 to 1
BABBLE_SNR_DB = 5.0  # speech five decibels above the babble
TYPO_RATE = 0.4  # of the characters


@dataclass(frozen=True)
class Speaker:
    """一个嗓音，在两种语言里都说 / One voice, which speaks both languages."""

    name: str
    variant: str  # of espeak-ng
    accent: str  # of its English
    role: str


@dataclass(frozen=True, eq=False)
class Clip:
    """一段能听的录音：8 000 Hz，0.825 秒 / A clip to listen to: 8 000 Hz, 0.825 seconds."""

    digit: int
    language: str  # "en" or "zh"
    voice: str
    spoken: int  # where the same recording is in `Digits.power[digit]`
    samples: Tensor  # (6600,) float, -1 to 1


@dataclass(frozen=True, eq=False)
class Digits:
    """一个划分：N 幅图，V 个嗓音，F 种写法 / One split: N pictures, V voices, F ways of writing.

    **按标签配对：**没有人既写了某幅图又说了某段音。`observe` 为每幅图随机取一段说同一个数字的录音、一种同一个数字
    的写法；给定标签后，三种模态相互独立。融合的好处因此有一部分是造出来的。

    **Paired by label:** nobody both wrote a picture and spoke a recording. For each picture `observe` draws at random
    a recording and a way of writing of the same digit; given the label, the three modalities are independent. A part
    of what fusion gains is thus built in.

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `labels` | (N,) int64 | 图中的数字 / the digit in each picture |
    | `image` | (N, 1, 8, 8) float | 图，墨迹 0 到 1 / the pictures, ink from 0 to 1 |
    | `power` | (10, 6V, 24, 32) float | 每个数字的录音：梅尔功率，平均为 1 / recordings: mel power, mean 1 |
    | `babble` | (S,) float | 人声嘈杂，只属于这个划分 / babble of voices, of this split only |
    | `forms` | 10 × F | 每个数字的写法 / the ways of writing each digit |
    | `voices` | V | 这个划分的嗓音 / the voices of this split |
    | `clips` | | 能听的录音 / the clips to listen to |
    """

    role: str
    labels: Tensor
    image: Tensor
    power: Tensor
    babble: Tensor
    babble_power: Tensor  # (24, frames of all of the babble)
    forms: tuple[tuple[Form, ...], ...]
    voices: tuple[Speaker, ...]
    clips: tuple[Clip, ...]
    alphabet: Alphabet

    def observe(self, indices: Tensor, generator: torch.Generator, image_noise: float | Tensor = 0.0,
                babble_snr_db: float | Tensor | None = None, typo_rate: float | Tensor = 0.0,
                noise_only: dict[str, Tensor] | None = None,
                missing: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
        """B 幅图，各配上录音与写法，加上噪声 / B pictures, each with a recording and a way of writing, and noise.

        每个旋钮是一个数，或每行一个数的 (B,) 张量；`babble_snr_db` 为 None 就没有嘈杂声。`noise_only` 与 `missing`
        把模态名映射到 (B,) 布尔张量：前者的那些行只剩噪声，与标签毫无关系；后者的那些行全是 0，`present` 记为
        False。转动旋钮不改变配对：同一个种子，同样的录音与写法。

        Each dial is one number, or a (B,) tensor with a number for every row; `babble_snr_db` None means no babble.
        `noise_only` and `missing` map the name of a modality to a (B,) tensor of booleans: those rows hold nothing
        but noise, which has nothing to do with the label, or nothing but zeros, with `present` False. Turning a dial
        does not change the pairs: the same seed gives the same recordings and ways of writing.

        | 返回 returned | 形状 shape | 含义 meaning |
        |---|---|---|
        | `image` | (B, 1, 8, 8) float | 图加高斯噪声 / the picture plus Gaussian noise |
        | `sound` | (B, 1, 24, 32) float | 对数梅尔谱，-50 dB 为 0，30 dB 为 1 / log-mel, -50 dB is 0 and 30 dB is 1 |
        | `text` | (B, 16) int64 | UTF-8 字节，末尾补 0 / bytes in UTF-8, then zeros |
        | `label` | (B,) int64 | 数字 / the digit |
        | `present` | (B, 3) bool | 各模态在不在 / whether each modality is there |
        | `spoken`, `written` | (B,) int64 | 取了哪段录音、哪种写法 / which recording and which form |
        """
        checks.fits(indices, "indices", "int64 B")
        last = len(self.labels) - 1
        checks.require(bool(((indices >= 0) & (indices <= last)).all()),
                       f"indices 需要在 0 到 {last} 之间", f"indices must be from 0 to {last}")
        count = len(indices)
        noise = _masks(noise_only, "noise_only", count)
        lost = _masks(missing, "missing", count)
        dials = (_dial(image_noise, "image_noise", count, 0.0), _dial(typo_rate, "typo_rate", count, 0.0, 1.0),
                 _dial(math.inf if babble_snr_db is None else babble_snr_db, "babble_snr_db", count, -60.0, math.inf))
        labels = self.labels[indices]
        streams = [_child(generator) for _ in MODALITIES]  # so that no dial of one modality moves another's draws
        image = self._draw_image(indices, streams[0], dials[0], noise["image"])
        sound, spoken = self._draw_sound(labels, streams[1], dials[2], noise["sound"])
        text, written = self._draw_text(labels, streams[2], dials[1], noise["text"])
        seen = {"image": image, "sound": sound, "text": text}
        for name, gone in lost.items():
            seen[name][gone] = 0
        present = torch.stack([~lost[name] for name in MODALITIES], dim=1)  # (B, 3)
        return {**seen, "label": labels, "present": present, "spoken": spoken, "written": written}

    def mixed(self, clip: Clip, generator: torch.Generator, babble_snr_db: float | None = None) -> Tensor:
        """一段录音加上这个划分的嘈杂声 / A clip with this split's babble at the dial's signal-to-noise ratio.

        与 `observe` 是同一个旋钮，这里加在波形上，所以听到的就是旋钮所说的。`to_wav` 把结果变成能播放的字节，
        `sound_feature` 把它变成模型所见。

        The dial is that of `observe`, here added to the waveform, so that what is heard is what the dial says.
        `to_wav` turns the result into bytes to play, `sound_feature` into what a model sees.
        """
        checks.instance(clip, "clip", Clip)
        snr = float(_dial(math.inf if babble_snr_db is None else babble_snr_db, "babble_snr_db", 1, -60.0, math.inf))
        start = int(torch.randint(len(self.babble) - BABBLE_WINDOW + 1, (), generator=generator))
        return babble_at(clip.samples, self.babble[start:start + BABBLE_WINDOW], snr)

    def _draw_image(self, indices: Tensor, generator: torch.Generator, sigma: Tensor, noise_only: Tensor) -> Tensor:
        image = self.image[indices]
        noise = torch.randn(image.shape, generator=generator)
        if noise_only.any():  # the ink of any picture, scattered: as dark as a digit, without one
            other = self.image[torch.randint(len(self.image), (len(indices),), generator=generator)].flatten(1)
            order = torch.rand(other.shape, generator=generator).argsort(1)
            image = torch.where(noise_only[:, None, None, None], other.gather(1, order).view_as(image), image)
        return image + sigma[:, None, None, None] * noise

    def _draw_sound(self, labels: Tensor, generator: torch.Generator, snr: Tensor,
                    noise_only: Tensor) -> tuple[Tensor, Tensor]:
        spoken = torch.randint(self.power.shape[1], labels.shape, generator=generator)
        starts = torch.randint(self.babble_power.shape[1] - FRAMES + 1, labels.shape, generator=generator)
        windows = self.babble_power.unfold(1, FRAMES, 1).transpose(0, 1)[starts]  # (B, 24, 32)
        windows = windows / windows.mean((1, 2), keepdim=True)
        loudness = 10 ** (-snr / 10)
        loudness = torch.where(noise_only, loudness.clamp(min=1), loudness)  # no speech, and never silence
        speech = torch.where(noise_only[:, None, None], 0.0, self.power[labels, spoken])
        return sound_feature(speech + loudness[:, None, None] * windows), spoken

    def _draw_text(self, labels: Tensor, generator: torch.Generator, rate: Tensor,
                   noise_only: Tensor) -> tuple[Tensor, Tensor]:
        written = torch.randint(self.alphabet.forms.shape[1], labels.shape, generator=generator)
        letters = self.alphabet.forms[labels, written]  # (B, L)
        letters = with_typos(letters, rate, self.alphabet, generator)
        if noise_only.any():
            letters = torch.where(noise_only[:, None], scribble(letters, self.alphabet, generator), letters)
        return encode(letters, self.alphabet), written


@typed
def load(role: str = "train", folder: Path | str = ASSETS) -> Digits:
    """载入一个划分 / Load one split: "train", "validation" or "test"."""
    checks.one_of(role, "role", ROLES)
    return _read(Path(folder))[role]


@checks.shapes(image="1 8 8")
def to_pixels(image: Tensor) -> Tensor:
    """一幅图，供人看：黑墨白纸 / A picture for people, black ink on white paper: (1, 8, 8) → uint8 (96, 96).

    Noise takes ink beyond 0 to 1; what is beyond is cut off.

    噪声会使墨迹超出 0 到 1，超出的部分截去。
    """
    checks.require(bool(image.isfinite().all()), "image 里有 NaN 或无穷", "image holds NaN or infinity")
    paper = (255 * (1 - image.squeeze(0))).clamp(0, 255).byte()
    return paper.repeat_interleave(12, 0).repeat_interleave(12, 1)


@cache
def _read(folder: Path) -> dict[str, Digits]:
    manifest, data = files.read(folder, VERSION, BUILDER)
    labels = torch.tensor([int(digit) for digit in manifest["labels"]])
    pictures = _tiles(data["pictures.png"], 8, 8)[:len(labels), None] / 16  # (1797, 1, 8, 8)
    voices = [Speaker(**voice) for voice in manifest["voices"]]
    recordings = _tiles(data["recordings.png"], MELS, FRAMES).flip(1)  # low pitch is at the foot of the page
    power = 10 ** ((recordings / 3 - 55) / 10)  # a byte is a third of a decibel
    power = (power / power.mean((1, 2), keepdim=True)).view(10, len(voices), -1, MELS, FRAMES)
    clips = _waveform(data["clips.wav"]).view(-1, BABBLE_WINDOW)
    rows = json.loads(data["forms.json"])
    forms = tuple(tuple(Form(text, kind) for kind, text in row.items()) for row in rows["forms"])
    alphabet = Alphabet.of(forms, rows["pools"])
    splits = {}
    for role in ROLES:
        start, stop = manifest["pictures"][role]
        mine = [i for i, voice in enumerate(voices) if voice.role == role]
        names = [voices[i].name for i in mine]
        babble = _waveform(data[f"babble-{role}.wav"])
        splits[role] = Digits(
            role=role, labels=labels[start:stop], image=pictures[start:stop],
            power=power[:, mine].flatten(1, 2), babble=babble, babble_power=mel_power(babble), forms=forms,
            voices=tuple(voices[i] for i in mine), alphabet=alphabet,
            clips=tuple(Clip(c["digit"], c["language"], c["voice"],
                             names.index(c["voice"]) * power.shape[2] + c["recording"], samples)
                        for c, samples in zip(manifest["clips"], clips, strict=True) if c["voice"] in names))
    return splits


def _tiles(png: bytes, height: int, width: int) -> Tensor:
    """A page cut into tiles."""
    page = torch.from_numpy(np.array(Image.open(io.BytesIO(png)), dtype=np.float32))
    return page.unfold(0, height, height).unfold(1, width, width).flatten(0, 1).contiguous()


def _waveform(wav: bytes) -> Tensor:
    with wave.open(io.BytesIO(wav)) as file:  # 8 bits a sample, 128 is silence
        return torch.frombuffer(bytearray(file.readframes(file.getnframes())), dtype=torch.uint8).float() / 128 - 1


def _child(generator: torch.Generator) -> torch.Generator:
    checks.instance(generator, "generator", torch.Generator)
    return torch.Generator().manual_seed(int(torch.randint(2 ** 62, (), generator=generator)))


def _dial(x: float | Tensor, name: str, count: int, low: float, high: float = math.inf) -> Tensor:
    """The value of a dial for every row, (B,)."""
    number = isinstance(x, (int, float)) and not isinstance(x, bool)
    rows = isinstance(x, Tensor) and x.is_floating_point() and x.shape in ((), (count,))
    checks.require(number or rows, f"{name} 需要是一个数或形状 ({count},) 的浮点张量，收到 {_kind(x)}",
                   f"{name} must be a number or a floating tensor of shape ({count},), got {_kind(x)}", TypeError)
    value = torch.as_tensor(x, dtype=torch.float32).expand(count)
    inside = (value >= low) & (value <= high) & (value.isfinite() | (name == "babble_snr_db"))
    checks.require(bool(inside.all()), f"{name} 需要在 {low:g} 到 {high:g} 之间，收到 {_kind(x)}",
                   f"{name} must be from {low:g} to {high:g}, got {_kind(x)}")
    return value


def _masks(masks: dict[str, Tensor] | None, name: str, count: int) -> dict[str, Tensor]:
    masks = fit(masks, name, Mapping | None) or {}
    for modality, mask in masks.items():
        checks.one_of(modality, name, MODALITIES)
        good = isinstance(mask, Tensor) and mask.dtype == torch.bool and mask.shape == (count,)
        checks.require(good, f"{name}[{modality!r}] 需要是形状 ({count},) 的布尔张量，收到 {_kind(mask)}",
                       f"{name}[{modality!r}] must be a boolean tensor of shape ({count},), got {_kind(mask)}",
                       TypeError)
    return {m: masks.get(m, torch.zeros(count, dtype=torch.bool)) for m in MODALITIES}


def _kind(x: object) -> str:
    return f"{x.dtype} {checks.shape_of(x)}" if isinstance(x, Tensor) else f"{type(x).__name__} {x!r}"[:80]
