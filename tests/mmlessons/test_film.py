"""会动的画面 / Moving pictures."""

import io

import numpy as np
import pytest
from PIL import Image

from mmlessons import live
from mmlessons.data import digits
from mmlessons.live.film import REST

T = 5
FRAMES = np.random.default_rng(0).integers(0, 256, (T, 3, 8, 8), dtype=np.uint8)
NAME = ("短片", "a clip")


def opened(shown: live.Output) -> Image.Image:
    return Image.open(io.BytesIO(shown.png))


def test_a_film_shows_every_frame_in_order_for_its_time_and_rests_at_the_end() -> None:
    moving = opened(live.film(FRAMES, NAME, 1.0))
    assert (moving.n_frames, moving.info["loop"]) == (T, 0)
    times = []
    for t in range(T):
        moving.seek(t)
        assert np.array_equal(np.asarray(moving.convert("RGB")), FRAMES[t].transpose(1, 2, 0))
        times.append(moving.info["duration"])
    assert times == pytest.approx([200] * (T - 1) + [200 + 1000 * REST])
    alike, total = opened(live.film(FRAMES[[0, 1, 1, 2]], NAME, 1.0)), 0  # two lost frames are both grey
    for t in range(alike.n_frames):
        alike.seek(t)
        total += alike.info["duration"]
    assert total == pytest.approx(1000 + 1000 * REST)


def test_a_film_has_its_name_in_both_languages_and_its_sound() -> None:
    import torch

    silent, heard = live.film(FRAMES, NAME, 1.0), live.film(FRAMES, NAME, 1.0, digits.to_wav(torch.rand(2, 100)))
    assert '<span lang="zh">短片<' in silent.html
    assert 'alt="短片 / a clip"' in silent.html
    assert "<audio" not in silent.html
    assert "<audio" in heard.html
    assert repr(heard) == "短片 / a clip"


def test_a_strip_lays_the_frames_out_from_left_to_right() -> None:
    row = np.asarray(opened(live.strip(FRAMES, NAME)).convert("RGB"))
    for t in range(T):
        assert np.array_equal(row[:, 9 * t:9 * t + 8], FRAMES[t].transpose(1, 2, 0))
    html = live.strip(FRAMES, NAME, ["5", "3", "1", "2", "4"], np.eye(3)).html
    assert "<span>5</span><span>3</span>" in html
    assert html.count("<img") == 2


def test_the_lowest_row_of_the_sound_is_its_first_and_more_is_darker() -> None:
    import base64
    import re

    html = live.strip(FRAMES, NAME, below=np.array([[1.0, 0.0], [0.0, 0.5]])).html
    sound = base64.b64decode(re.findall(r"base64,([^\"]+)", html)[1])
    assert np.asarray(Image.open(io.BytesIO(sound)).convert("L")).tolist() == [[255, 128], [0, 255]]


@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda: live.film(FRAMES / 255, NAME, 1.0), TypeError, "frames must be uint8"),
    (lambda: live.film(FRAMES[0], NAME, 1.0), ValueError, r"frames must have shape \(T, 3, h, w\)"),
    (lambda: live.film(FRAMES, NAME, 0.0), ValueError, "seconds must be positive"),
    (lambda: live.film(FRAMES, NAME, 1.0, b"no sound"), TypeError, "bytes of a WAV file"),
    (lambda: live.strip(FRAMES, NAME, ["1"]), ValueError, "5 frames need 5 names, got 1"),
    (lambda: live.strip(FRAMES, NAME, below=np.zeros(3)), ValueError, "below must have two dimensions"),
])
def test_bad_input_is_refused(call, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        call()
