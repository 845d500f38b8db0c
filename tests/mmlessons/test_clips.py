"""短片数据：事实、画面、声音 / The clips data: facts, pictures, sounds."""

import math

import pytest
import torch
from torch import Tensor

from mmlessons.data import clips
from mmlessons.data.clips import FRAMES, MOTIONS

N = 600


@pytest.fixture(scope="module")
def train() -> clips.Clips:
    return clips.load("train")


@pytest.fixture(scope="module")
def facts(train: clips.Clips) -> dict[str, Tensor]:
    return train.draw(N, 1)


def by_hand(x: list[float], y: list[float], size: list[float], angle: list[float]) -> str:
    """只看轨迹，说出做了什么 / What it does, from the path alone: by whatever changes most, or first."""
    turn = angle[-1] - angle[0]
    steady = max(abs(angle[t + 1] - angle[t]) for t in (0, 1, 2)) < 1e-4
    steady_end = max(abs(angle[t + 1] - angle[t]) for t in (-2, -3, -4)) < 1e-4
    if abs(turn) > 1 and steady and not steady_end:
        return "jump, then turn"
    if abs(turn) > 1 and steady_end:
        return "turn, then jump"
    if abs(turn) > 1:
        return "clockwise" if turn > 0 else "counter-clockwise"  # y points downwards
    if abs(math.log(size[-1] / size[0])) > 0.2:
        return "nearer" if size[-1] > size[0] else "farther"
    dx, dy = x[-1] - x[0], y[-1] - y[0]
    if abs(dx) > abs(dy):
        return "to the right" if dx > 0 else "to the left"
    return "down" if dy > 0 else "up"


def test_every_answer_is_the_one_that_the_path_gives(facts: dict[str, Tensor]) -> None:
    paths = zip(*(facts[name].tolist() for name in ("x", "y", "size", "angle")), strict=True)
    said = [by_hand(*path) for path in paths]
    assert said == [MOTIONS[k][1] for k in facts["motion"]]


def test_all_motions_are_equally_frequent_and_things_do_not_tell_them(facts: dict[str, Tensor]) -> None:
    assert torch.bincount(facts["motion"]).tolist() == [N // len(MOTIONS)] * len(MOTIONS)
    for name in ("thing", "artist", "mirrored", "moment"):
        low = facts[name][facts["motion"] < 5].double().mean()
        assert abs(low - facts[name][facts["motion"] >= 5].double().mean()) < 0.25 * facts[name].double().std() + 0.05


def test_a_reversal_has_the_same_frames_in_the_opposite_order_and_the_opposite_answer(train, facts) -> None:
    few = {name: values[:20] for name, values in facts.items()}
    back = clips.reverse(few)
    assert back["motion"].tolist() == (few["motion"] ^ 1).tolist()
    there, again = train.frames(few), train.frames(back)
    assert torch.equal(again, there.flip(1))
    twice = clips.reverse(back)
    assert all(torch.equal(twice[name], few[name]) for name in few)


def test_what_a_photograph_and_shuffled_frames_show_is_the_same_of_a_clip_and_its_reversal(train, facts) -> None:
    few = {name: values[:20] for name, values in facts.items()}
    both = clips.with_reversals(few)
    frames = train.frames(both)
    photo = frames[torch.arange(40), both["moment"]]
    assert torch.equal(photo[:20], photo[20:])
    mixed = clips.shuffle(frames, both["order"])
    assert torch.equal(mixed[:20], mixed[20:])
    assert sorted(both["order"][25].tolist()) == list(range(FRAMES))


def test_the_same_seed_gives_the_same_clips_and_no_path_is_in_two_splits() -> None:
    splits = {role: clips.load(role) for role in clips.ROLES}
    first = {role: data.draw(50, 3) for role, data in splits.items()}
    again = splits["train"].draw(50, 3)
    assert all(torch.equal(first["train"][name], again[name]) for name in again)
    paths = torch.cat([splits[role].draw(200, seed)["x"][:, 0] for role in splits for seed in range(3)])
    assert len(paths.unique()) == len(paths)


def plain(train: clips.Clips, **changes: float) -> dict[str, Tensor]:
    """一段没有干扰的短片 / One clip without anything that disturbs."""
    one = train.draw(1, 0)
    still = {name: torch.full((1, FRAMES), value) for name, value in
             {"x": 0.0, "y": 0.0, "size": 1.0, "angle": 0.0}.items()}
    calm = {"shake": torch.zeros(1, FRAMES, 2), "gone": torch.zeros(1, FRAMES, dtype=torch.bool),
            "ground": torch.ones(1, 3, 4, 4), "bar": torch.tensor([[0.0, 0.1, 0.9, 0.5]]),
            "mirrored": torch.tensor([False])}
    return {**one, **still, **calm, **{name: torch.full((1, FRAMES), value) for name, value in changes.items()}}


def test_in_the_middle_at_full_size_a_frame_is_the_drawing_itself(train: clips.Clips) -> None:
    one = plain(train)
    frames = train.frames(one)
    drawing = train.tiles[one["artist"][0], one["thing"][0]]
    assert (frames.shape, frames.dtype) == ((1, FRAMES, 3, 32, 32), torch.uint8)
    assert (frames[0, 5].int() - drawing.int()).abs().max() <= 1
    turned = train.frames(plain(train, angle=math.pi / 2))  # a quarter turn is clockwise as one sees it
    assert (turned[0, 0].int() - frames[0, 0].int().rot90(-1, (1, 2))).abs().max() <= 1


def test_a_thing_is_where_the_facts_say(train: clips.Clips) -> None:
    right = train.frames(plain(train, x=0.6, size=0.4))[0, 0]
    ink = (255 - right.double()).sum(0)
    place = (torch.arange(32) + 0.5) / 16 - 1
    assert float((ink.sum(0) * place).sum() / ink.sum()) == pytest.approx(0.6, abs=0.2)
    assert float((ink.sum(1) * place).sum() / ink.sum()) == pytest.approx(0.0, abs=0.2)


def test_lost_frames_are_grey_and_a_bar_hides_what_is_behind(train: clips.Clips) -> None:
    one = plain(train)
    one["gone"][0, 3] = True
    one["bar"] = torch.tensor([[0.0, 0.25, 0.0, 0.5]])
    frames = train.frames(one)[0]
    assert (frames[3] == clips.LOST).all()
    assert (frames[0, :, :, 12:20] == 128).all()
    assert not (frames[0, :, :, :8] == 128).all()


def test_of_ten_frames_one_is_lost_and_half_of_the_clips_have_a_bar(train: clips.Clips) -> None:
    facts = train.draw(2000, 3)
    assert facts["gone"].double().mean() == pytest.approx(0.1, abs=0.01)
    barred = train._bars(facts["bar"]).flatten(1).any(1)
    assert barred.double().mean() == pytest.approx(0.5, abs=0.05)


# -- sound ------------------------------------------------------------------------------------------------------------

def calm(facts: dict[str, Tensor]) -> Tensor:
    """没有风 / Without the wind."""
    return clips.sing(*(facts[name] for name in ("x", "y", "size", "angle", "pitch")))


def loudness(sound: Tensor) -> Tensor:
    return sound.square().mean(-1)[0]


def strongest(sound: Tensor) -> float:
    spectrum = torch.fft.rfft(sound[0].sum(0)).abs()
    return spectrum.argmax().item() * 8000 / clips.SAMPLES


def test_the_sound_follows_place_height_and_nearness(train: clips.Clips) -> None:
    def hear(**changes: float) -> Tensor:
        return calm({**plain(train, **changes), "pitch": torch.tensor([400.0])})

    left, right = loudness(hear(x=-0.9)), loudness(hear(x=0.9))
    assert left[0] > 5 * left[1]
    assert right[1] > 5 * right[0]
    level = 0.5  # the sound comes from the top, half a size above the middle
    assert strongest(hear(y=level)) == pytest.approx(400, abs=1)
    assert strongest(hear(y=level - 0.5)) == pytest.approx(400 * 2 ** 0.45, abs=1)
    assert loudness(hear(size=0.8)).sum() > 3 * loudness(hear(size=0.4)).sum()


def test_turning_to_the_right_and_moving_to_the_right_both_go_to_the_right_ear(train: clips.Clips) -> None:
    one = plain(train)
    for name, path in (("x", torch.linspace(-0.5, 0.5, FRAMES)), ("angle", torch.linspace(-1.0, 1.0, FRAMES))):
        sound = calm({**one, name: path[None]})
        begin, end = loudness(sound[..., :1000]), loudness(sound[..., -1000:])
        assert begin[0] > begin[1]
        assert end[1] > end[0]


def test_the_wind_is_as_strong_as_the_facts_say_and_repeats(train: clips.Clips, facts: dict[str, Tensor]) -> None:
    few = {name: values[:4] for name, values in facts.items()}
    assert torch.equal(train.sound(few), train.sound(few))
    noise = train.sound(few) - calm(few)
    wanted = 20 * math.log10(clips.sound.LEVEL) - few["snr_db"]
    assert torch.allclose(10 * noise.square().mean((1, 2)).log10(), wanted, atol=0.5)


def test_the_sound_feature_has_two_steps_for_each_frame(train: clips.Clips, facts: dict[str, Tensor]) -> None:
    heard = clips.log_mel(train.sound({name: values[:3] for name, values in facts.items()}))
    assert heard.shape == (3, clips.EARS, clips.MELS, 2 * FRAMES)
    assert heard.min() > 0
    assert heard.max() < 1.2
    assert torch.equal(clips.log_mel(torch.zeros(1, 2, clips.SAMPLES)), torch.zeros(1, 2, 24, 24))


@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda d: clips.load("exam"), ValueError, "role must be one of train, validation, test, shift"),
    (lambda d: d.draw(0, 1), ValueError, "count must be at least 1"),
    (lambda d: d.draw(3, -1), ValueError, "seed must be at least 0"),
    (lambda d: clips.shuffle(torch.zeros(2, 12, 1), torch.zeros(2, 3, dtype=torch.int64)), ValueError,
     r"order must have shape|order 需要形状"),
])
def test_bad_input_is_refused(train: clips.Clips, call, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        call(train)
