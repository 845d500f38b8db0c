"""看懂一段短片 / Understanding a clip."""

import pytest
import torch
from torch import Tensor

from mmlessons.data import clips
from mmlessons.data.clips import MOTIONS
from mmlessons.tasks import video_understanding as video
from mmlessons.tasks.learner import Learner
from mmlessons.tasks.video_understanding import PICTURE, READ, WITH_SOUND, VideoModel
from tests.support import check_seed, same, state

COUNT = 64


def learner(**options: object) -> Learner:
    return video.learner(**{"steps": 2, "batch": 8, "device": "cpu", "count": COUNT, **options})


def draw(made: Learner, shuffle: float = 0.0, mute: float = 0.0) -> dict[str, Tensor]:
    return made.task.draw(made.generator, shuffle, mute)


@pytest.fixture(scope="module")
def seen() -> dict[str, Tensor]:
    return video.held_out("validation", 20)


def forward(model: VideoModel, seen: dict[str, Tensor]) -> dict[str, Tensor]:
    return model(seen["frames"] / 255, seen["sound"], seen["moment"])


def test_shapes_and_names(seen: dict[str, Tensor]) -> None:
    out = forward(VideoModel().eval(), {name: values[:3] for name, values in seen.items()})
    shapes = {name: tuple(x.shape) for name, x in out.items()}
    assert shapes == {
        "f_v": (3, 12, 48), "f_a": (3, 12, 48), "h_v": (3, 64), "h_a": (3, 64), "f_frame": (3, 48), "f_mean": (3, 48),
        "f_bag": (3, 384), "f_attention": (3, 384), "f_av": (3, 12, 48), "h_av": (3, 64), "h_late": (3, 64),
        **{f"z_{name}": (3, len(MOTIONS)) for name in READ}}


def test_models_that_know_no_order_answer_a_clip_and_its_reversal_alike(seen: dict[str, Tensor]) -> None:
    out = forward(VideoModel().eval(), seen)
    for name in READ:
        z = out[f"z_{name}"]
        assert torch.allclose(z[:20], z[20:], atol=1e-5) is (name in ("frame", "mean", "bag")), name


def test_shuffled_all_models_of_pictures_answer_a_clip_and_its_reversal_alike(seen: dict[str, Tensor]) -> None:
    out = forward(VideoModel(PICTURE).eval(), video.shuffled(seen))
    for name in PICTURE:
        assert torch.allclose(out[f"z_{name}"][:20], out[f"z_{name}"][20:], atol=1e-5)


def test_shuffling_moves_each_frame_together_with_its_sound(seen: dict[str, Tensor]) -> None:
    mixed = video.shuffled(seen)
    heard, mixed_heard = video.by_frame(seen["sound"]), video.by_frame(mixed["sound"])
    for n in (0, 7, 33):
        for t, source in enumerate(seen["order"][n].tolist()):
            assert torch.equal(mixed["frames"][n, t], seen["frames"][n, source])
            assert torch.equal(mixed_heard[n, t], heard[n, source])
        assert torch.equal(mixed["frames"][n, mixed["moment"][n]], seen["frames"][n, seen["moment"][n]])


def test_the_sound_of_a_frame_is_the_mean_and_the_difference_of_its_two_steps(seen: dict[str, Tensor]) -> None:
    heard = video.by_frame(seen["sound"])
    for t in (0, 5, 11):
        left, right = seen["sound"][2, :, :, 2 * t:2 * t + 2]
        wanted = [*(left + right - 1).flatten(), *(4 * (left - right)).flatten()]
        assert torch.allclose(heard[2, t], torch.stack(wanted))


def test_muted_the_picture_decides_alone_and_blinded_the_sound(seen: dict[str, Tensor]) -> None:
    model = VideoModel(WITH_SOUND).eval()
    full, silent, dark = (forward(model, x) for x in (seen, video.muted(seen), video.blinded(seen)))
    assert torch.allclose(full["z_recurrent"], silent["z_recurrent"])
    assert torch.allclose(silent["z_sound"], silent["z_sound"][:1])
    assert torch.allclose(full["z_sound"], dark["z_sound"])
    assert torch.allclose(dark["z_recurrent"], dark["z_recurrent"][:1])
    for name in ("early", "late"):
        assert not torch.allclose(full[f"z_{name}"], silent[f"z_{name}"])
        assert not torch.allclose(full[f"z_{name}"], dark[f"z_{name}"])


@pytest.mark.parametrize("answers", [PICTURE, WITH_SOUND])
def test_every_parameter_in_use_gets_a_gradient(answers: tuple[str, ...]) -> None:
    made = learner(answers=answers)
    made.train_step()
    used = {"eye", "heads"} | ({"ear", "hearing", "seeing", "both", "early_fusion", "late_fusion"}
                               if answers == WITH_SOUND else {"bag", "attention", "seeing"})
    for name, parameter in made.model.named_parameters():
        first, *rest = name.split(".")
        if first in used and (first != "heads" or rest[0] in answers):
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


def test_a_batch_holds_clips_or_their_reversals_with_the_answer_that_fits() -> None:
    made = learner(batch=200)
    drawn = draw(made)
    pool = made.task.clips
    grey = drawn["frames"].mean(2)  # colours change places, their mean stays
    known = pool["frames"].float().mean(2) / 255
    backwards = 0
    for n in range(0, 200, 20):
        for source, flipped in ((known, 0), (known.flip(1), 1)):
            found = (source - grey[n]).abs().amax((1, 2, 3)) < 1e-5
            if found.any() and not torch.allclose(grey[n], grey[n].flip(0)):
                row = int(found.nonzero()[0])
                assert int(drawn["motion"][n]) == int(pool["motion"][row]) ^ flipped
                sound = pool["sound"][row].flip(-1) if flipped else pool["sound"][row]
                assert torch.equal(drawn["sound"][n], sound)
                backwards += 2 * flipped - 1
                break
        else:
            pytest.fail("a clip that is nowhere in the pool")
    assert abs(backwards) < 10


def test_shuffle_and_mute_do_what_they_say() -> None:
    made = learner(batch=100)
    assert draw(made, 0.0, 1.0)["sound"].abs().max() == 0
    some = (draw(made, 0.0, 0.3)["sound"].flatten(1).abs().sum(1) == 0).double().mean()
    assert 0.15 < some < 0.45
    pool = made.task.clips["frames"].float().mean((2, 3, 4)) / 255
    seen = draw(made, 1.0, 0.0)["frames"].mean((2, 3, 4))
    for row in seen[:10]:  # the same frames, in another order
        assert ((pool.sort(1).values - row.sort().values).abs().amax(1) < 1e-5).any()
        assert not ((pool - row).abs().amax(1) < 1e-5).any()


def test_the_same_seed_gives_the_same_model_and_reset_starts_again() -> None:
    check_seed(learner(), learner(seed=1))


def test_what_is_refused_changes_nothing() -> None:
    made = learner(steps=1)
    before = state(made.model)
    with pytest.raises(ValueError, match="shuffle must be from 0 to 1"):
        made.train_step(shuffle=1.5)
    with pytest.raises(ValueError, match="mute must be from 0 to 1"):
        made.train_step(mute=-0.1)
    assert same(made.model, before)
    made.train_step()
    with pytest.raises(ValueError, match="has 1 steps and all are done"):
        made.train_step()


@pytest.mark.parametrize(("options", "match"), [
    ({"answers": ("frame", "guess")}, "answers must be one of frame, mean"),
    ({"asks": "why"}, "asks must be one of motion, thing"), ({"steps": 0}, "steps must be at least 1"),
    ({"batch": 1}, "batch must be at least 2"), ({"count": 1}, "count must be at least 2"),
])
def test_bad_options_are_refused(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        learner(**options)


def test_a_short_training_learns_the_order() -> None:
    made = learner(answers=("mean", "recurrent"), steps=120, batch=32, count=512)
    right = video.accuracies(made.finish().model, video.held_out("train", 100))
    assert right["recurrent"] > 0.5  # more than any model without order could reach
    assert right["mean"] <= 0.5


def test_of_pictures_only_those_who_can_see_the_order_are_changed_by_shuffling() -> None:
    found = video.train_and_test("picture", 1, 2, 20, "validation")
    assert set(found.in_order) == set(found.shuffled) == set(PICTURE)
    for name in ("frame", "mean", "bag"):
        assert found.in_order[name] == found.shuffled[name] <= 0.5


def test_with_sound_every_sense_is_taken_away_once_and_turning_is_taken_apart() -> None:
    found = video.with_sound(1, steps=2, count=20, role="validation")
    for accuracies in (found.everything, found.muted, found.blinded, found.shuffled, found.pairs):
        assert set(accuracies) == set(WITH_SOUND)
    assert found.muted["recurrent"] == found.everything["recurrent"]
    assert found.blinded["sound"] == found.everything["sound"]
    for name, five in found.pairs.items():
        assert len(five) == 5
        assert five[video.TURNS] <= min(found.said_to_turn[name], found.right_side[name])


def test_pairs_and_turning_by_hand() -> None:
    """Four clips: clockwise, counter-clockwise twice, up; said to be clockwise, to the left, up, up."""
    motion, said = torch.tensor([6, 7, 7, 2]), torch.tensor([6, 1, 2, 2])
    assert [name for _, name in clips.MOTIONS[6:8]] == ["clockwise", "counter-clockwise"]
    assert clips.MOTIONS[1][1] == "to the left"
    z = torch.nn.functional.one_hot(said, len(clips.MOTIONS)).float()
    assert video.by_pair(z, motion)[1] == 1
    assert video.by_pair(z, motion)[video.TURNS] == pytest.approx(1 / 3)
    assert video.turning(z, motion) == (pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_asked_what_it_is_the_models_learn_things_and_not_motions() -> None:
    made = learner(answers=("mean",), asks="thing", steps=40, batch=32)
    drawn = draw(made)
    pool = made.task.clips
    known = pool["frames"].float().mean(2).flatten(1).sort(1).values / 255  # colours and order change, not these
    for n in range(5):
        row = (known - drawn["frames"][n].mean(1).flatten().sort().values).abs().amax(1).argmin()
        assert drawn["thing"][n] == pool["thing"][row]
    model = made.finish().model
    assert video.scores(model, pool)["z_mean"].shape[1] == len(clips.THINGS)
    assert video.accuracies(model, pool)["mean"] > 0.4  # of the clips it learned from; chance is 0.125


def test_on_things_there_are_new_clips_by_known_artists_as_well() -> None:
    found = video.train_and_test("thing", 1, 2, 20, "validation")
    for accuracies in (found.known, found.known_shuffled, found.unseen, found.unseen_shuffled):
        assert set(accuracies) == set(PICTURE)
    learned, asked = (clips.load("train").draw(20, seed) for seed in (0, 1))
    assert not torch.equal(learned["x"], asked["x"])


def test_an_unknown_study_is_refused() -> None:
    with pytest.raises(ValueError, match="study must be one of picture, sound"):
        video.train_and_test("smell", 1)
