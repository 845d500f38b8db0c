"""对齐一课的任务与测量 / The tasks and the measurements of the lesson on alignment."""

import pytest
import torch

from mmcore.alignment import AlignmentLoss
from mmlessons.data import views
from mmlessons.tasks import cross_modal_alignment as alignment
from mmlessons.tasks.learner import Learner
from mmlessons.tasks.seeds import over_seeds
from tests.support import check_seed, same, state


@pytest.fixture(scope="module")
def data() -> views.Views:
    return views.load()


def learner(data: views.Views, **options: object) -> Learner:
    return alignment.learner(data, device="cpu", **options)


def test_meanings_share_a_part_among_the_group_and_keep_the_rest() -> None:
    concept, group = torch.tensor([0, 1, 2, 3, 0]), torch.tensor([5, 5, 5, 6, 5])
    y = alignment.meanings(concept, group, 0.4)
    assert y[0].tolist() == pytest.approx([0.3, 0.2, 0.2, 0, 0.3])  # its concept comes twice
    assert y[1].tolist() == pytest.approx([0.4 / 3, 0.6, 0.4 / 3, 0, 0.4 / 3])
    assert y[3].tolist() == [0, 0, 0, 1, 0]  # alone in its group
    assert y.sum(1).tolist() == pytest.approx([1] * 5)
    assert torch.equal(alignment.meanings(concept[:4], group[:4], 0.0), torch.eye(4))


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_leaves_a_pair_nothing_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="share must be from 0 to below 1"):
        alignment.meanings(torch.arange(3), torch.zeros(3).long(), share)


def test_concepts_and_groups_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"group must have shape \(3\), got \(2\)"):
        alignment.meanings(torch.arange(3), torch.zeros(2).long())


def test_a_batch_holds_each_concept_as_often_as_asked_and_drawings_that_exist() -> None:
    everything, generator = views.load("all"), torch.Generator().manual_seed(0)
    for repeats, positives in ((1, False), (2, False), (2, True)):
        pairs = alignment.Pairs(everything, batch=128, repeats=repeats, positives=positives)
        for _ in range(10):
            batch = pairs.draw(generator)
            assert batch["concept"].bincount(minlength=953).unique().tolist() == [0, repeats]
            assert bool(batch["features_A"].any(1).all())
            assert torch.allclose(batch["y"].sum(1), torch.ones(128))
            assert batch["positives"] is None if not positives else batch["positives"].sum() == 256


def test_repeated_concepts_are_drawn_by_different_artists_and_one_language_stays_with_each(data: views.Views) -> None:
    pairs = alignment.Pairs(data, batch=64, repeats=4, one_language=True)
    batch = pairs.draw(torch.Generator().manual_seed(0))
    for i, concept in enumerate(batch["concept"].tolist()):
        k, = (k for k, artist in enumerate(data.by_role("train"))
              if torch.equal(data.pictures[artist][concept], batch["features_A"][i]))
        assert torch.equal(data.names[("zh", "en")[k % 2]][concept], batch["features_B"][i])
    for concept in batch["concept"].unique():
        assert len(batch["features_A"][batch["concept"] == concept].unique(dim=0)) == 4


@pytest.mark.parametrize("sigmoid", [False, True])
def test_the_same_seed_gives_the_same_projections_and_reset_starts_again(data: views.Views, sigmoid: bool) -> None:
    check_seed(learner(data, seed=3, sigmoid=sigmoid), learner(data, seed=4, sigmoid=sigmoid))


def test_a_wrong_weight_stops_a_step_before_it_draws_a_batch(data: views.Views) -> None:
    made, other = learner(data), learner(data)
    before = state(made.model)
    with pytest.raises(ValueError, match="beta may not be below 0"):
        made.train_step(tau=0.1, alpha=1.0, beta=-1.0, gamma=0.0)
    assert same(made.model, before)
    assert made.train_step() == other.train_step()


def test_a_step_takes_the_dials_and_goes_down_their_sum(data: views.Views) -> None:
    made = learner(data, batch=8)
    batch = made.task.pairs.draw(torch.Generator().manual_seed(0))
    projected = made.model.project(batch["features_A"], batch["features_B"])
    wanted = AlignmentLoss(0.2, 1.0, 0.5, 0.25)(*projected, batch["y"])
    found = made.train_step(tau=0.2, alpha=1.0, beta=0.5, gamma=0.25)
    assert found == pytest.approx({name: loss.item() for name, loss in wanted.items()}, rel=1e-6)


def test_lengths_shrink_only_where_they_are_not_divided_by(data: views.Views) -> None:
    left = alignment.shortening(data, 0, steps=60)
    assert left.length < 0.8
    assert left.square == pytest.approx(left.length ** 2)
    kept = learner(data, batch=64)
    start = torch.cat(alignment.features_of(kept, data, "noto", "zh")).norm(dim=1).mean()
    for _ in range(60):
        kept.train_step(alpha=0.0, beta=1.0)
    assert torch.cat(alignment.features_of(kept, data, "noto", "zh")).norm(dim=1).mean() > 0.8 * start


def test_the_raw_features_know_nothing_of_each_other_and_a_short_training_beats_them() -> None:
    raw, trained = alignment.studies(None), alignment.train_and_test(alignment.Setting(steps=150, batch=256), 0)
    assert max(x.mean() for x in (raw.recall.seen, raw.recall.validation, raw.recall.unseen_artist)) < 0.02
    assert raw.geometry.pairs > 0.1  # and yet somewhat alike: no number of an encoder is below 0
    assert trained.recall.seen.mean() > 0.5
    assert trained.recall.unseen_artist.mean() > 0.2
    assert trained.geometry.pairs > trained.geometry.others
    assert trained.same_group.nearest.mean() > raw.same_group.nearest.mean()


def test_every_score_is_one_for_each_concept_asked() -> None:
    found = alignment.studies(None)
    sizes = {name: len(scores) for part in (found.recall, found.same_group) for name, scores in vars(part).items()}
    assert sizes == {"seen": 256, "other_language": 256, "validation": 256, "unseen_artist": 256,
                     "unseen_concepts": 64, "validation_concepts": 64, "nearest": 179, "nearest_unseen": 32,
                     "wrong": 256, "wrong_within": 256}


def test_the_score_of_a_concept_is_the_mean_of_its_questions_by_hand(data: views.Views) -> None:
    """猴头：四位作者、两种语言、两个方向，一共十六题 / Concept 0 by four artists: sixteen questions."""
    right = 0
    for artist in data.by_role("train"):
        for language in ("zh", "en"):
            a, b = (x / x.norm(dim=1, keepdim=True) for x in (data.pictures[artist], data.names[language]))
            right += int((a @ b[0]).argmax() == 0) + int((b @ a[0]).argmax() == 0)
    assert alignment.recall_at_1(None, data, data.by_role("train"))[0].item() == right / 16
    both = sum(alignment.recall_at_1(None, data, data.by_role("train"), k) for k in (0, 1)) / 2
    assert torch.allclose(both, alignment.recall_at_1(None, data, data.by_role("train")))


def test_a_concept_that_nobody_drew_has_no_score() -> None:
    fresh = views.load("validation")
    assert len(alignment.recall_at_1(None, fresh, ["fxemoji"])) == fresh.drawn["fxemoji"].sum() == 23
    assert len(alignment.recall_at_1(None, fresh, ["noto", "fxemoji"])) == 64


def test_looking_up_the_nearest_known_picture_by_hand(data: views.Views) -> None:
    rule, picture = alignment.nearest_known(data), data.pictures["twemoji"][7]
    a, b = rule.represent(picture.unsqueeze(0), data.names["en"])
    for k in (0, 7, 200):
        cosines = [(picture @ data.pictures[artist][k] / (picture.norm() * data.pictures[artist][k].norm())).item()
                   for artist in data.by_role("train")]
        assert a[0, k].item() == pytest.approx(max(cosines), abs=1e-6)
    assert torch.equal(b, torch.eye(256))
    found = alignment.recall(rule)
    assert found.seen.mean() > 0.99  # the very pictures
    assert found.unseen_concepts.mean() == 0  # of a name it never saw it knows nothing
    assert 0.6 < found.unseen_artist.mean() < 0.8


def test_going_on_from_the_name_of_the_nearest_known_picture_by_hand(data: views.Views) -> None:
    """一幅新图画变成最像的旧图的平均名字 / A new picture becomes the mean name of the old picture most like it."""
    rule, picture = alignment.nearest_known_name(data), data.pictures["twemoji"][7]
    alike = [max(torch.cosine_similarity(picture, data.pictures[artist][k], 0).item() for artist in
                 data.by_role("train")) for k in range(256)]
    k = max(range(256), key=alike.__getitem__)
    a, b = rule.represent(picture.unsqueeze(0), data.names["en"])
    assert torch.allclose(a[0], (data.names["zh"][k] + data.names["en"][k]) / 2)
    assert torch.equal(b, data.names["en"])
    found = alignment.studies(rule)
    assert found.recall.seen.mean() > 0.97  # the mean of both names is mostly nearest to either
    assert found.recall.unseen_concepts.mean() > 4 / 64  # it has an answer for names it never saw
    assert found.same_group.nearest.mean() > alignment.studies(None).same_group.nearest.mean() + 0.3


def test_with_one_language_an_artist_is_measured_in_the_language_it_was_given() -> None:
    found = alignment.train_and_test(alignment.Setting(steps=100, one_language=True), 0).recall
    assert found.seen.mean() > found.other_language.mean()


def test_by_the_sigmoid_loss_temperature_and_bias_are_learned_too(data: views.Views) -> None:
    made = learner(data, sigmoid=True)
    first = made.train_step()
    assert (first["tau"], first["bias"]) == pytest.approx((0.1, -10))
    for _ in range(100):
        last = made.train_step()
    assert last["sigmoid_loss"] < first["sigmoid_loss"]
    assert last["tau"] != first["tau"]
    assert last["bias"] != first["bias"]


def test_several_seeds_become_one_study_whose_fields_hold_them_all() -> None:
    both = over_seeds([alignment.Shortening(0.5, 0.25, 0.125, torch.ones(3)),
                       alignment.Shortening(1.0, 1.0, 1.0, torch.zeros(3))])
    assert both.length.tolist() == [0.5, 1.0]
    assert both.recall.tolist() == [[1.0] * 3, [0.0] * 3]
    assert over_seeds([{"a": [1, 2]}, {"a": [3, 4]}])["a"].tolist() == [[1, 2], [3, 4]]


def test_the_measures_by_hand() -> None:
    """四个点两两垂直或相同 / Four points, each pair alike or at right angles."""
    x = torch.tensor([[1.0, 0], [2.0, 0], [0, 1.0], [0, 3.0]])
    assert alignment.cosine_within(x) == pytest.approx(1 / 3)  # of twelve ordered pairs four are alike
    assert alignment.cosine_within(torch.ones(5, 2)) == pytest.approx(1)
    group = torch.tensor([0, 0, 1, 1])
    assert alignment.same_group_among_nearest(x, x, group, 1).tolist() == [1] * 4
    assert alignment.same_group_among_nearest(x, x, torch.tensor([0, 1, 0, 1]), 1).tolist() == [0] * 4
    assert alignment.same_group_among_nearest(x, x, torch.tensor([0, 0, 0, 1]), 1).tolist() == [1, 1, 0]  # 2 is like 3
    assert alignment.same_group_at_random(torch.tensor([0, 0, 0, 1]), 1) == (3, pytest.approx(2 / 3))
    names = torch.eye(4)[[2, 0, 1, 3]]  # picture 0 is taken for 1, of its group; 1 for 2 and 2 for 0; 3 is right
    wrong, within = alignment.mistakes(torch.eye(4), names, group)
    assert wrong.tolist() == [1, 1, 1, 0]
    assert within.tolist() == [1, 0, 0, 0]


@pytest.mark.parametrize(("wrong", "match"), [({"batch": 300}, "at most 256, got 300"), ({"seed": -1}, "seed must be"),
                                              ({"batch": 255, "repeats": 2}, "a multiple of repeats"),
                                              ({"batch": 250, "repeats": 5}, "repeats may be at most 4"),
                                              ({"batch": 1}, "batch must be at least 2"),
                                              ({"repeats": 0}, "repeats must be at least 1")])
def test_a_learner_made_of_wrong_numbers_is_refused(data: views.Views, wrong: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        learner(data, **wrong)
