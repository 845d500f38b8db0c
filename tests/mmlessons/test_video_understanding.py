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
        assert torch.equal(found.in_order[name], found.shuffled[name])
        assert found.in_order[name].shape == (20,)
        assert found.in_order[name].max() <= 0.5  # of a clip and its reversal one at most


def test_with_sound_every_sense_is_taken_away_once_and_turning_is_taken_apart() -> None:
    found = video.with_sound(1, steps=2, count=20, role="validation")
    for right in (found.everything, found.muted, found.blinded, found.shuffled):
        assert set(right) == set(WITH_SOUND)
        assert all(each.shape == (20,) for each in right.values())
    assert torch.equal(found.muted["recurrent"], found.everything["recurrent"])
    assert torch.equal(found.blinded["sound"], found.everything["sound"])
    turns = video.held_out("validation", 20)["motion"][:20] // 2 == video.TURNS
    for name, right in found.everything.items():
        for part in (found.said_to_turn[name], found.right_side[name]):
            assert (right[turns] <= part).all()


def test_turning_by_hand() -> None:
    """Four clips: clockwise, counter-clockwise twice, up; said to be clockwise, to the left, up, up."""
    motion, said = torch.tensor([6, 7, 7, 2]), torch.tensor([6, 1, 2, 2])
    assert [name for _, name in clips.MOTIONS[6:8]] == ["clockwise", "counter-clockwise"]
    assert clips.MOTIONS[1][1] == "to the left"
    z = torch.nn.functional.one_hot(said, len(clips.MOTIONS)).float()
    to_turn, side = video.turning(z, motion)
    assert to_turn.tolist() == [True, False, False]
    assert side.tolist() == [True, True, False]


def test_a_clip_and_its_reversal_count_as_one_and_a_tie_is_a_miss() -> None:
    """Up, nearer, clockwise and their reversals: both right, one right, and a tie with the other wrong."""
    motion = torch.tensor([2, 4, 6, 3, 5, 7])
    z = torch.nn.functional.one_hot(torch.tensor([2, 4, 6, 3, 4, 6]), len(MOTIONS)).float()
    z[2, 0] = 1
    assert video.right(z, {"motion": motion}).tolist() == [1.0, 0.5, 0.0]
    with pytest.raises(ValueError, match="clips first and then their reversals"):
        video.right(z, {"motion": motion.flip(0)[[0, 1, 3, 4, 2, 5]]})
    with pytest.raises(ValueError, match="z must"):
        video.right(z[:, :8], {"motion": motion})


def moving(x: float = 0.0, y: float = 0.0, wider: float = 1.0, turn: float = 0.0) -> Tensor:
    """A smooth hill, longer than wide and off the middle, that moves so many pixels, grows or turns, frame by frame."""
    frames = []
    for t in range(clips.FRAMES):
        s = t - 5.5
        rows, columns = torch.meshgrid(torch.arange(32.0) - 15.5 - y * s, torch.arange(32.0) - 15.5 - x * s,
                                       indexing="ij")
        cos, sin = (torch.tensor(turn * s).cos(), torch.tensor(turn * s).sin())
        along, across = cos * columns + sin * rows, cos * rows - sin * columns
        hill = (-((along / 7) ** 2 + (across / 4) ** 2) / wider ** (2 * s)).exp()
        frames.append((40 + 160 * hill).round().to(torch.uint8).expand(3, -1, -1))
    return torch.stack(frames)


def test_flow_measures_how_far_things_move_spread_and_turn() -> None:
    """Movements that are known: 0.5 pixels right, 0.3 up, 3% larger, 0.06 radians clockwise from frame to frame."""
    frames = torch.stack([moving(x=0.5), moving(y=-0.3), moving(wider=1.03), moving(turn=0.06)])
    found = video.flow(frames).mean(1)
    wanted = torch.diag(torch.tensor([0.5, -0.3, 16 * 0.03, 16 * 0.06]))
    assert torch.allclose(found, wanted, atol=0.12)
    assert torch.allclose(video.flow(frames.flip(1)).mean(1), -wanted, atol=0.12)


def test_a_lost_frame_counts_as_a_copy_of_the_one_before_and_a_blank_clip_does_not_move() -> None:
    frames = moving(x=0.5).unsqueeze(0).clone()
    frames[0, 4] = clips.LOST
    copied = frames.clone()
    copied[0, 4] = frames[0, 3]
    assert torch.equal(video.flow(frames), video.flow(copied))
    assert video.flow(frames)[0, 3].abs().max() < 1e-6
    assert video.flow(torch.full_like(frames, clips.LOST)).abs().max() == 0


def test_the_flow_rule_names_every_motion_that_can_be_drawn_by_hand() -> None:
    frames = torch.stack([moving(x=0.5), moving(x=-0.5), moving(y=-0.5), moving(y=0.5), moving(wider=1.04),
                          moving(wider=0.96), moving(turn=0.1), moving(turn=-0.1)])
    assert video.flow_rule({"frames": frames}).argmax(1).tolist() == list(range(8))


def test_the_flow_rule_knows_a_jump_before_a_turn_from_a_jump_after_it() -> None:
    seen = video.held_out("validation", 60)
    jumps = seen["motion"] >= 8
    said = video.flow_rule({"frames": seen["frames"][jumps]}).argmax(1)
    assert (said == seen["motion"][jumps]).double().mean() > 0.7


@pytest.mark.parametrize("sense", ["frames", "sound"])
def test_the_neighbour_of_a_training_clip_is_that_clip_and_backwards_it_has_the_opposite_answer(sense: str) -> None:
    pool = {name: values[:6] for name, values in video.training_set().items()}
    there = video.neighbour(pool, sense)
    turned = {"frames": pool["frames"].flip(1), "sound": pool["sound"].flip(-1)}
    back = video.neighbour(turned, sense)
    for n, motion in enumerate(pool["motion"].tolist()):
        assert there[n, motion].item() == pytest.approx(1, abs=1e-4)
        assert back[n, motion ^ 1].item() == pytest.approx(1, abs=1e-4)
    assert there.argmax(1).tolist() == pool["motion"].tolist()
    assert video.neighbour(turned, sense, asks="thing").argmax(1).tolist() == pool["thing"].tolist()


def test_the_neighbour_without_order_says_the_same_of_a_clip_and_its_reversal(seen: dict[str, Tensor]) -> None:
    z = video.neighbour(seen, "frames", in_order=False)
    assert torch.allclose(z[:20], z[20:], atol=1e-6)


def test_the_scores_of_rules_are_added_on_one_scale() -> None:
    one, other = torch.tensor([[0.0, 2.0, 4.0]]), torch.tensor([[300.0, 200.0, 100.0]])
    assert torch.allclose(video.added(one, one), 2 * torch.tensor([[-1.0, 0.0, 1.0]]))
    assert torch.allclose(video.added(one, other), torch.zeros(1, 3), atol=1e-6)
    with pytest.raises(ValueError, match="other must"):
        video.added(one, other[:, :2])


def test_what_is_cut_out_of_a_training_clip_is_recognised_wherever_it_is() -> None:
    pool = {name: values[:40] for name, values in video.training_set().items()}
    assert (video.cut_out(pool).argmax(1) == pool["thing"]).all()
    shifted = {"frames": pool["frames"].roll(3, -1)}
    assert (video.cut_out(shifted).argmax(1) == pool["thing"]).double().mean() > 0.8


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
    for right in (found.known, found.known_shuffled, found.unseen, found.unseen_shuffled):
        assert set(right) == set(PICTURE)
        assert all(each.shape == (20,) for each in right.values())
    learned, asked = (clips.load("train").draw(20, seed) for seed in (0, 1))
    assert not torch.equal(learned["x"], asked["x"])


def test_an_unknown_study_is_refused() -> None:
    with pytest.raises(ValueError, match="study must be one of picture, sound"):
        video.train_and_test("smell", 1)
