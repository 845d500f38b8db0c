"""这一课的训练器 / The trainer of the lesson on alignment."""

import math

import pytest
import torch

from mmlessons.data import views
from mmlessons.tasks import cross_modal_alignment as alignment
from tests.notebooks.diagrams import computed_arrows

KEYS = ["total_loss", "contrastive_loss", "feature_loss", "semantic_loss"]


@pytest.fixture(scope="module")
def data() -> views.Views:
    return views.load()


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
        alignment.meanings(torch.arange(3), torch.zeros(3), share)


def test_a_batch_holds_each_concept_as_often_as_asked_and_drawings_that_exist() -> None:
    everything = views.load("all")
    for repeats, mend in ((1, False), (2, False), (2, True)):
        trainer = alignment.AlignmentTrainer(everything, batch=128, repeats=repeats, mend=mend, device="cpu")
        for _ in range(10):
            batch = trainer.draw()
            assert batch["concept"].bincount(minlength=953).unique().tolist() == [0, repeats]
            assert bool(batch["features_A"].any(1).all())
            assert torch.allclose(batch["y"].sum(1), torch.ones(128))
            assert trainer._positives(batch) is None if not mend else trainer._positives(batch).sum() == 256


def test_repeated_concepts_are_drawn_by_different_artists_and_one_language_stays_with_each(data: views.Views) -> None:
    trainer = alignment.AlignmentTrainer(data, batch=64, repeats=4, one_language=True, device="cpu")
    batch = trainer.draw()
    for i, concept in enumerate(batch["concept"].tolist()):
        k, = (k for k, artist in enumerate(data.by_role("train"))
              if torch.equal(data.pictures[artist][concept], batch["features_A"][i]))
        assert torch.equal(data.names[("zh", "en")[k % 2]][concept], batch["features_B"][i])
    for concept in batch["concept"].unique():
        assert len(batch["features_A"][batch["concept"] == concept].unique(dim=0)) == 4


def test_the_same_seed_gives_the_same_projections_and_reset_starts_anew(data: views.Views) -> None:
    def run(trainer: alignment.AlignmentTrainer) -> list[float]:
        return [trainer.train_step(0.1, 1.0, 0.5, 0.5)["total_loss"] for _ in range(5)]

    trainer = alignment.AlignmentTrainer(data, seed=3, device="cpu")
    first = run(trainer)
    assert run(trainer) != first
    trainer.reset()
    assert run(trainer) == first
    assert run(alignment.AlignmentTrainer(data, seed=3, device="cpu")) == first
    assert run(alignment.AlignmentTrainer(data, seed=4, device="cpu")) != first


def test_a_wrong_weight_stops_a_step_before_it_draws_a_batch(data: views.Views) -> None:
    trainer, other = (alignment.AlignmentTrainer(data, device="cpu") for _ in range(2))
    with pytest.raises(ValueError, match="beta may not be below 0"):
        trainer.train_step(0.1, 1.0, -1.0, 0.0)
    assert trainer.train_step() == other.train_step()


def test_the_diagram_is_the_computation_and_the_computation_is_the_step(data: views.Views) -> None:
    trainer = alignment.AlignmentTrainer(data, batch=8, device="cpu")
    batch = trainer.draw()
    inputs = {name: batch[name] for name in ("features_A", "features_B", "y")}
    dials = {"tau": 0.2, "alpha": 1.0, "beta": 0.5, "gamma": 0.25}
    inputs |= {name: torch.tensor(value) for name, value in dials.items()}
    both = {f"projected_{side}" for side in "AB"}
    assert computed_arrows(trainer.forward, inputs) == {
        ("features_A", "projected_A"), ("features_B", "projected_B"), ("y", "semantic_loss"),
        ("tau", "contrastive_loss"), *((p, loss) for p in both for loss in KEYS[1:]),
        *((loss, "total_loss") for loss in KEYS[1:]), *((dial, "total_loss") for dial in ("alpha", "beta", "gamma"))}
    wanted = {name: trainer.forward(**inputs)[name].item() for name in KEYS}
    trainer.reset()
    assert trainer.train_step(**dials) == pytest.approx(wanted, rel=1e-6)


def test_the_raw_features_know_nothing_of_each_other_and_a_short_training_beats_them() -> None:
    raw, trained = alignment.take_exams(None), alignment.train_and_test(0, 150)
    assert raw.keys() == trained.keys()
    assert max(raw[name] for name in ("seen", "validation", "artist")) < 0.02
    assert raw["mean_cosine"] > 0.1  # and yet somewhat alike: no number of an encoder is below 0
    assert trained["seen"] > 0.5
    assert trained["artist"] > 0.2


def test_the_sigmoid_trainer_learns_its_temperature_and_bias_too(data: views.Views) -> None:
    trainer = alignment.SigmoidTrainer(data, device="cpu")
    first = trainer.train_step()
    assert first["tau"] == pytest.approx(0.1, rel=0.02)  # after one step
    for _ in range(100):
        last = trainer.train_step()
    assert last["sigmoid_loss"] < first["sigmoid_loss"]
    assert last["bias"] != first["bias"]


def test_the_measures_by_hand() -> None:
    """四个点两两垂直或相同 / Four points, each pair alike or at right angles."""
    x = torch.tensor([[1.0, 0], [2.0, 0], [0, 1.0], [0, 3.0]])
    assert alignment.spread(x) == pytest.approx(1 / 3)  # of twelve ordered pairs four are alike
    assert alignment.spread(torch.ones(5, 2)) == pytest.approx(1)
    group = torch.tensor([0, 0, 1, 1])
    assert alignment.kin_among_nearest(x, x, group, 1) == 1
    assert alignment.kin_among_nearest(x, x, torch.tensor([0, 1, 0, 1]), 1) == 0
    names = torch.eye(4)[[2, 0, 1, 3]]  # picture 0 is taken for 1, its kin; 1 for 2 and 2 for 0; 3 is right
    assert alignment.mistaken_for_kin(torch.eye(4), names, group) == pytest.approx(1 / 3)
    assert math.isnan(alignment.mistaken_for_kin(torch.eye(4), torch.eye(4), group))


@pytest.mark.parametrize(("wrong", "match"), [({"batch": 300}, "at most 256, got 300"), ({"seed": -1}, "seed must be"),
                                              ({"batch": 255, "repeats": 2}, "a multiple of repeats"),
                                              ({"batch": 250, "repeats": 5}, "repeats may be at most 4"),
                                              ({"batch": 1}, "batch must be at least 2")])
def test_a_trainer_made_of_wrong_numbers_is_refused(data: views.Views, wrong: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        alignment.AlignmentTrainer(data, **wrong)
