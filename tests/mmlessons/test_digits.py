"""数字数据 / The digits data."""

import io
import itertools
import math
import unicodedata
import wave

import pytest
import torch

from mmlessons.data import digits, sound
from mmlessons.data.digits.writing import with_typos


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def as_written(data: digits.Digits, seen: dict[str, torch.Tensor]) -> list[str]:
    pairs = zip(seen["label"].tolist(), seen["written"].tolist(), strict=True)
    return [data.forms[digit][form].text for digit, form in pairs]


@pytest.fixture(scope="module")
def splits() -> dict[str, digits.Digits]:
    return {role: digits.load(role) for role in digits.ROLES}


@pytest.fixture(scope="module")
def train(splits: dict[str, digits.Digits]) -> digits.Digits:
    return splits["train"]


def test_the_splits_hold_what_the_card_says(splits: dict[str, digits.Digits]) -> None:
    assert [len(splits[role].labels) for role in digits.ROLES] == [1157, 258, 382]
    assert [len(splits[role].voices) for role in digits.ROLES] == [15, 3, 6]
    assert [len(splits[role].clips) for role in digits.ROLES] == [40, 20, 40]
    for split in splits.values():
        assert split.image.shape == (len(split.labels), 1, 8, 8)
        assert (split.image.min(), split.image.max()) == (0, 1)
        assert split.power.shape == (10, 6 * len(split.voices), 24, 32)
        torch.testing.assert_close(split.power.mean((2, 3)), torch.ones(split.power.shape[:2]))
        assert split.labels.bincount().min() > 0.08 * len(split.labels)


def test_nothing_of_the_test_was_in_training(splits: dict[str, digits.Digits]) -> None:
    """图、嗓音、录音、嘈杂声，都不能两边都有 / No picture, voice, recording or babble may be on both sides."""
    for one, other in itertools.combinations(splits.values(), 2):
        assert torch.cdist(one.image.flatten(1), other.image.flatten(1)).min() > 0
        assert not {v.variant for v in one.voices} & {v.variant for v in other.voices}
        assert torch.cdist(one.power.flatten(0, 1).flatten(1), other.power.flatten(0, 1).flatten(1)).min() > 1
        for start in range(0, len(other.babble), len(other.babble) // 5):  # a piece of one is nowhere in the other
            piece = other.babble[start:start + 1000]
            if len(piece) == 1000:
                match = torch.nn.functional.conv1d(one.babble[None, None], (piece / piece.norm())[None, None])
                energy = torch.nn.functional.conv1d(one.babble.square()[None, None], torch.ones(1, 1, 1000)).sqrt()
                assert (match / energy.clamp(min=1e-3)).abs().max() < 0.9


def test_every_way_of_writing_belongs_to_one_digit(train: digits.Digits) -> None:
    texts = {form.text.casefold(): digit for digit, row in enumerate(train.forms) for form in row}
    assert all(texts[form.text.casefold()] == digit for digit, row in enumerate(train.forms) for form in row)
    assert {"seven", "七", "柒", "qi", "qī", "vii", "٧", "७"} <= {text for text, digit in texts.items() if digit == 7}
    assert {len(row) for row in train.forms} == {19}
    letters = {c for row in train.forms for form in row for c in form.text if c.isalpha()}
    scripts = {unicodedata.name(c).split()[0].replace("HIRAGANA", "KATAKANA") for c in letters}
    assert len(scripts) == 8, scripts


def test_what_is_observed_has_the_label_of_the_picture(train: digits.Digits) -> None:
    """录音与写法按标签配对 / Recordings and forms are paired by label."""
    seen = train.observe(torch.arange(500), seeded())
    assert torch.equal(seen["label"], train.labels[:500])
    assert torch.equal(seen["image"], train.image[:500])
    assert digits.decode(seen["text"]) == as_written(train, seen)
    torch.testing.assert_close(seen["sound"], digits.sound_feature(train.power[seen["label"], seen["spoken"]]))
    assert len(seen["spoken"].unique()) > 80
    assert len(seen["written"].unique()) == len(train.forms[0])


def test_shapes_types_and_ranges(train: digits.Digits) -> None:
    seen = train.observe(torch.arange(64), seeded(), digits.IMAGE_NOISE, digits.BABBLE_SNR_DB, digits.TYPO_RATE)
    shapes = {"image": (64, 1, 8, 8), "sound": (64, 1, 24, 32), "text": (64, 16), "label": (64,), "present": (64, 3),
              "spoken": (64,), "written": (64,)}
    assert {name: tuple(x.shape) for name, x in seen.items()} == shapes
    assert seen["image"].dtype == seen["sound"].dtype == torch.float32
    assert seen["text"].dtype == seen["label"].dtype == torch.int64
    assert seen["present"].all()
    assert 0 <= seen["sound"].min() <= seen["sound"].max() < 1.1
    assert 0 <= seen["text"].min() <= seen["text"].max() < 256


def test_the_same_generator_gives_the_same_batch_and_another_another(train: digits.Digits) -> None:
    first, again, other = (train.observe(torch.arange(64), seeded(seed), 0.5, 0.0, 0.35) for seed in (3, 3, 4))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert all(not torch.equal(first[name], other[name]) for name in digits.MODALITIES)


def test_turning_a_dial_moves_nothing_else(train: digits.Digits) -> None:
    rows = torch.arange(64)
    clean = train.observe(rows, seeded())
    dials = ({"image_noise": 0.7}, {"babble_snr_db": -3.0}, {"typo_rate": 0.9})
    for dial, name in zip(dials, digits.MODALITIES, strict=True):
        noisy = train.observe(rows, seeded(), **dial)
        assert [key for key in clean if not torch.equal(clean[key], noisy[key])] == [name]


def test_the_dial_of_the_picture_is_the_standard_deviation(train: digits.Digits) -> None:
    rows = torch.arange(1000)
    for sigma in (0.2, 0.5, 1.0):
        noise = train.observe(rows, seeded(), image_noise=sigma)["image"] - train.image[:1000]
        assert noise.std() == pytest.approx(sigma, rel=0.02)
        assert noise.mean().abs() < 0.02 * sigma


@pytest.mark.parametrize("snr", [-5.0, 0.0, 5.0, 20.0])
def test_the_dial_of_the_sound_is_the_ratio_of_speech_to_babble(train: digits.Digits, snr: float) -> None:
    """从特征算回功率，减去语音，剩下嘈杂声 / Back from the feature to power; what is not speech is babble."""
    seen = train.observe(torch.arange(200), seeded(), babble_snr_db=snr)
    total = 10 ** ((seen["sound"][:, 0].double() * 80 - 50) / 10) - 1e-5
    speech = train.power[seen["label"], seen["spoken"]].double()
    measured = 10 * (speech.mean((1, 2)) / (total - speech).mean((1, 2))).log10()
    assert (measured - snr).abs().max() < 0.2


@pytest.mark.parametrize("snr", [-5.0, 0.0, 5.0])
def test_what_is_heard_is_what_the_dial_says(train: digits.Digits, snr: float) -> None:
    """波形里的信噪比分毫不差；换算成梅尔功率，平均在 1 dB 之内 / Exact in the waveform, and within 1 dB on average in
    mel power, where the model hears."""
    in_mel = []
    for seed, clip in enumerate(train.clips):
        noisy = train.mixed(clip, seeded(seed), snr)
        babble = noisy - clip.samples
        assert 10 * (clip.samples.square().mean() / babble.square().mean()).log10() == pytest.approx(snr, abs=0.01)
        in_mel.append(10 * (digits.mel_power(clip.samples).mean() / digits.mel_power(babble).mean()).log10())
    assert torch.stack(in_mel).mean() == pytest.approx(snr, abs=1)
    assert torch.equal(train.mixed(train.clips[0], seeded()), train.clips[0].samples)


def test_adding_powers_is_nearly_adding_waveforms(train: digits.Digits) -> None:
    """`observe` 加功率，`mixed` 加波形；见 CARD.md / `observe` adds powers and `mixed` waveforms: see CARD.md."""
    errors = []
    for seed, clip in enumerate(train.clips):
        babble = train.mixed(clip, seeded(seed), 0.0) - clip.samples
        apart = digits.mel_power(clip.samples) + digits.mel_power(babble)
        errors.append(10 * (digits.mel_power(clip.samples + babble) / apart).log10())
    errors = torch.stack(errors)
    assert errors.abs().median() < 0.5
    assert errors.mean().abs() < 0.5


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.35, 1.0])
def test_the_dial_of_the_text_is_the_share_of_characters_hit(train: digits.Digits, rate: float) -> None:
    """n 个字符的词无错的概率是 (1 - r)ⁿ / A word of n characters stays as it is with probability (1 - r)ⁿ."""
    seen = train.observe(torch.arange(1157).repeat(10), seeded(), typo_rate=rate)
    read = digits.decode(seen["text"])
    assert not any("\N{REPLACEMENT CHARACTER}" in text for text in read)  # no character is cut in two
    asked = as_written(train, seen)
    for length in (1, 3, 5):
        same = [a == b for a, b in zip(asked, read, strict=True) if len(a) == length]
        assert sum(same) / len(same) == pytest.approx((1 - rate) ** length, abs=0.03)


def test_all_four_mistakes_are_made_and_no_word_vanishes(train: digits.Digits) -> None:
    letters = train.alphabet.forms[7, 0].expand(4000, -1)  # "seven"
    typed = with_typos(letters, torch.full((4000,), 0.2), train.alphabet, seeded())
    lengths = (typed > 0).sum(1)
    assert {4, 5, 6} <= set(lengths.tolist())
    bags = torch.stack([typed.sort(1).values[:, -5:], letters.sort(1).values[:, -5:]])
    swapped = (lengths == 5) & (bags[0] == bags[1]).all(1)  # the same characters in another order
    swapped &= torch.tensor([row[row > 0].tolist() != letters[0, :5].tolist() for row in typed])
    assert swapped.any()
    everything = with_typos(letters, torch.ones(4000), train.alphabet, seeded())
    assert ((everything > 0).sum(1) > 0).all()


def test_each_row_may_have_its_own_dial(train: digits.Digits) -> None:
    sigma = torch.tensor([0.0, 2.0]).repeat(50)
    snr = torch.tensor([math.inf, -10.0]).repeat(50)
    seen = train.observe(torch.arange(100), seeded(), sigma, snr, torch.tensor([0.0, 1.0]).repeat(50))
    clean = train.observe(torch.arange(100), seeded())
    for name in digits.MODALITIES:
        same = (seen[name] == clean[name]).flatten(1).all(1)
        assert same[::2].all()
        assert not same[1::2].any()


def test_missing_rows_are_zero_and_say_so(train: digits.Digits) -> None:
    mask = torch.arange(40) % 2 == 0
    seen = train.observe(torch.arange(40), seeded(), 0.5, 0.0, 0.3, missing={"sound": mask, "text": ~mask})
    assert torch.equal(seen["present"], torch.stack([torch.ones(40, dtype=torch.bool), ~mask, mask], dim=1))
    assert (seen["sound"][mask] == 0).all()
    assert (seen["text"][~mask] == 0).all()
    assert (seen["sound"][~mask].flatten(1).std(1) > 0).all()


@pytest.mark.parametrize("name", digits.MODALITIES)
def test_noise_only_has_nothing_to_do_with_the_label(train: digits.Digits, name: str) -> None:
    """各标签的平均只因偶然而异 / The means of the labels differ by chance alone."""
    rows = torch.arange(1157).repeat(4)
    everywhere = torch.ones(len(rows), dtype=torch.bool)
    for masks, apart in ((None, True), ({name: everywhere}, False)):
        seen = train.observe(rows, seeded(), noise_only=masks)
        x = seen[name].flatten(1).float()
        z = (x - x.mean(0)) / x.std(0).clamp(min=1e-3)
        means = torch.stack([z[seen["label"] == digit].mean(0) for digit in range(10)])  # spread about 1 / √460
        assert (means.square().mean().sqrt() > 0.1) == apart
        assert seen["present"].all()
        assert (x.std(1) > 0).all()


def test_a_clip_is_the_recording_that_the_model_sees(splits: dict[str, digits.Digits]) -> None:
    """同一段声音：能听的，与特征里的 / The same sound, to be heard and in the features."""
    for split in splits.values():
        for clip in split.clips:
            power = digits.mel_power(clip.samples)
            kept = split.power[clip.digit, clip.spoken]
            loud = kept > kept.max() / 1000
            assert (10 * (power / power.mean() / kept)[loud].log10()).abs().median() < 0.5
    heard = {(c.digit, c.language, c.voice) for split in splits.values() for c in split.clips}
    assert len(heard) == 100


def test_a_wav_can_be_played(train: digits.Digits) -> None:
    noisy = train.mixed(train.clips[0], seeded(), digits.BABBLE_SNR_DB)
    with wave.open(io.BytesIO(digits.to_wav(noisy))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 8000)
        assert file.getnframes() == 6600
        samples = torch.frombuffer(bytearray(file.readframes(6600)), dtype=torch.int16)
    assert samples.abs().max() == round(0.9 * 32767)
    assert torch.corrcoef(torch.stack([samples.float(), noisy]))[0, 1] > 0.999


def test_mel_power_counts_every_frequency_once_and_finds_a_tone() -> None:
    """对照：一个纯音的功率，落在它的频带里 / Against a pure tone, whose power lies in its own band."""
    filters = sound.mel_filters()
    frequency = torch.arange(257) * 8000 / 512
    torch.testing.assert_close(filters.sum(0)[(frequency > 120) & (frequency < 3500)],
                               torch.ones(int(((frequency > 120) & (frequency < 3500)).sum())))
    tone = torch.sin(2 * math.pi * 1000 * torch.arange(6600) / 8000)
    power = digits.mel_power(tone)
    assert power.shape == (24, 32)
    assert (power.argmax(0) == filters[:, 64].argmax()).all()
    expected = 512 * torch.hann_window(400).square().sum() / 4  # Parseval: half of the energy is at -1000 Hz
    torch.testing.assert_close(power.sum(0), expected.expand(32), rtol=0.01, atol=0)


@pytest.mark.parametrize(("change", "error", "message"), [
    ({"indices": [1, 2]}, TypeError, "indices 需要是张量.*indices must be a tensor, got list"),
    ({"indices": torch.tensor([0.0])}, TypeError, "indices must be an int64 tensor"),
    ({"indices": torch.tensor([1157])}, ValueError, "indices 需要在 0 到 1156 之间 / indices must be from 0 to 1156"),
    ({"indices": torch.tensor([-1])}, ValueError, "indices must be from 0 to 1156"),
    ({"generator": 3}, TypeError, "generator 需要是.*generator must be a Generator, got int"),
    ({"image_noise": -0.1}, ValueError, "image_noise 需要在 0 到 inf.*image_noise must be from 0"),
    ({"image_noise": math.nan}, ValueError, "image_noise must be from 0"),
    ({"image_noise": math.inf}, ValueError, "image_noise must be"),
    ({"image_noise": "loud"}, TypeError, "image_noise must be a number"),
    ({"image_noise": torch.zeros(7)}, TypeError, r"floating tensor of shape \(2,\), got torch.float32 \(7\)"),
    ({"babble_snr_db": -math.inf}, ValueError, "babble_snr_db must be from -60"),
    ({"typo_rate": 1.5}, ValueError, "typo_rate 需要在 0 到 1 之间.*typo_rate must be from 0 to 1, got float 1.5"),
    ({"typo_rate": True}, TypeError, "typo_rate must be a number"),
    ({"missing": {"smell": torch.tensor([True, False])}}, ValueError, "missing must be one of image, sound, text"),
    ({"noise_only": {"text": torch.tensor([1, 0])}}, TypeError, r"noise_only\['text'\] must be a boolean tensor"),
    ({"noise_only": {"text": torch.tensor([True])}}, TypeError, r"tensor of shape \(2,\), got torch.bool \(1\)"),
])
def test_a_bad_argument_is_refused(train: digits.Digits, change: dict, error: type, message: str) -> None:
    arguments = {"indices": torch.tensor([0, 1]), "generator": seeded(), **change}
    with pytest.raises(error, match=message):
        train.observe(**arguments)


def test_an_unknown_role_or_shape_is_refused(train: digits.Digits) -> None:
    with pytest.raises(ValueError, match=r"role 需要是.*role must be one of train, validation, test, got 'exam'"):
        digits.load("exam")
    with pytest.raises(ValueError, match=r"samples must have shape \(S\) or \(2, S\), got \(3, 2\)"):
        digits.to_wav(torch.zeros(3, 2))
    with pytest.raises(TypeError, match="at least 400 numbers"):
        digits.mel_power(torch.zeros(10))
    with pytest.raises(ValueError, match=r"power must have shape \(B, 24, 32\)"):
        digits.sound_feature(torch.zeros(24, 32))
    with pytest.raises(TypeError, match="text must be an int64 matrix of bytes"):
        digits.decode(torch.full((1, 16), 300))
    with pytest.raises(ValueError, match="babble_snr_db must be from -60"):
        train.mixed(train.clips[0], seeded(), math.nan)


def test_a_picture_for_people_is_black_on_white_and_keeps_its_place() -> None:
    image = torch.zeros(1, 8, 8)
    image[0, 0, 7], image[0, 3, 0] = 1.7, -0.4  # noise goes beyond ink and paper
    pixels = digits.to_pixels(image)
    assert (pixels.shape, pixels.dtype) == ((96, 96), torch.uint8)
    assert bool((pixels[:12, 84:] == 0).all())
    assert int(pixels.sum()) == 255 * (96 * 96 - 144)
