"""训练投影 / Training the projections."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmcore.alignment import AlignmentLoss, CrossModalAligner, cosine_similarity
from tests.support import same, state

KEYS = ["total_loss", "contrastive_loss", "feature_loss", "semantic_loss"]


def pairs(n: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    """两个视角看同一些点 / Two views of the same points."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, 4, generator=generator)
    return hidden @ torch.randn(4, 6, generator=generator), hidden @ torch.randn(4, 5, generator=generator) + 1


def aligner(seed: int = 0, **weights: float) -> CrossModalAligner:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return CrossModalAligner((6, 5), "cpu", 4, **{"lr": 0.01, **weights})


def test_training_brings_two_views_of_the_same_points_together_and_new_points_too() -> None:
    trainer, (a, b) = aligner(), pairs()
    before = trainer.compute_alignment_score(a, b)
    first = trainer.train_step(a, b)
    for _ in range(200):
        last = trainer.train_step(a, b)
    assert list(first) == KEYS
    assert last["total_loss"] < first["total_loss"] / 2
    assert before["r@1"] < 0.5
    assert trainer.compute_alignment_score(a, b)["r@1"] == 1


def test_a_step_lowers_the_weighted_sum_that_it_reports() -> None:
    trainer, (a, b) = aligner(temperature=0.3, alpha=2.0, beta=0.5, gamma=0.25), pairs()
    y = torch.full((12, 12), 1 / 12)
    outputs = trainer.align_features(a, b, y)
    losses = trainer.train_step(a, b, y)
    wanted = AlignmentLoss(0.3, 2.0, 0.5, 0.25)(outputs["projected_A"], outputs["projected_B"], y)
    for name in KEYS:
        assert losses[name] == pytest.approx(wanted[name].item(), rel=1e-5)
        assert outputs[name].item() == pytest.approx(wanted[name].item(), rel=1e-5)
    assert trainer.align_features(a, b, y)["total_loss"] < outputs["total_loss"]


def test_a_weight_acts_from_the_very_next_step() -> None:
    trainer, (a, b) = aligner(), pairs()
    trainer.train_step(a, b)
    trainer.tune(temperature=0.5, alpha=0.0, beta=2.0, gamma=0.0)
    losses = trainer.train_step(a, b)
    assert losses["total_loss"] == pytest.approx(2 * losses["feature_loss"], rel=1e-6)
    trainer.tune(beta=0.0)
    assert trainer.train_step(a, b)["total_loss"] == 0
    assert (trainer.loss.temperature, trainer.alignment.temperature) == (0.5, 0.5)


@pytest.mark.parametrize(("values", "error", "match"), [
    ({"temperature": 0.5, "alpha": 3.0, "gamma": -1.0}, ValueError, r"gamma 不能小于 0，收到 -1.*may not be below 0"),
    ({"alpha": 3.0, "temperature": 0.0}, ValueError, "temperature must be positive and finite, got 0"),
    ({"alpha": float("inf")}, ValueError, "alpha must be finite"),
])
def test_of_several_values_one_of_which_is_wrong_none_is_taken(values: dict, error: type, match: str) -> None:
    trainer = aligner()
    with pytest.raises(error, match=match):
        trainer.tune(**values)
    loss = trainer.loss
    assert (loss.temperature, loss.alpha, loss.beta, loss.gamma) == (0.1, 0.5, 0.3, 0.2)


def as_they_are() -> CrossModalAligner:
    """两个投影什么也不改变 / The projections change nothing."""
    trainer = CrossModalAligner(2, "cpu", 2)
    with torch.no_grad():
        for layer in (trainer.alignment.projection_A, trainer.alignment.projection_B):
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
    return trainer


def test_the_score_is_the_mean_of_both_directions() -> None:
    """三对里 A → B 对一对，B → A 对两对 / Of three pairs, A → B finds one and B → A two."""
    trainer = as_they_are()

    def at(*degrees: float) -> Tensor:
        return torch.tensor([[math.cos(math.radians(x)), math.sin(math.radians(x))] for x in degrees])
    a, b = at(0, 10, 100), at(12, 40, 170)
    S = cosine_similarity(a, b)
    assert [(S.argmax(1) == torch.arange(3)).sum().item(), (S.argmax(0) == torch.arange(3)).sum().item()] == [1, 2]
    score = trainer.compute_alignment_score(a, b)
    assert score["r@1"] == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert score["mean_cosine"] == pytest.approx(S.diagonal().mean().item())


def test_a_score_counts_every_text_that_means_the_same_as_right() -> None:
    """两件事各说两遍：并列算错，除非说明它们同义 / Two things said twice each: ties, unless both are right."""
    twice, same = torch.eye(2).repeat_interleave(2, 0), torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).bool()
    alone, shared = (as_they_are().compute_alignment_score(twice, twice, positives) for positives in (None, same))
    assert (alone["r@1"], alone["chance"]) == (0, 0.25)
    assert (shared["r@1"], shared["chance"]) == (1, 0.5)


def test_training_evaluating_and_scoring_leave_no_gradient_and_no_other_mode() -> None:
    trainer, (a, b) = aligner(), pairs()
    trainer.alignment.train()
    before = state(trainer.alignment)
    outputs = trainer.align_features(a, b)
    trainer.compute_alignment_score(a, b)
    assert trainer.alignment.training
    assert not any(x.requires_grad for x in outputs.values())
    assert same(trainer.alignment, before)
    assert {"projected_A", "projected_B", "similarity", "semantic_A", "semantic_B", *KEYS} == set(outputs)


@pytest.mark.parametrize(("change", "error", "match"), [
    (lambda a, b: (a[:1], b[:1]), ValueError, "expected at least 2 pairs, got 1"),
    (lambda a, b: (a, b, torch.eye(11)), ValueError, r"y must have shape \(12, 12\), got \(11, 11\)"),
    (lambda a, b: (a, b, torch.ones(12, 12)), ValueError, "every row of y must sum to 1"),
    (lambda a, b: (a, b, None, torch.eye(12)), TypeError, "positives must be a boolean tensor"),
])
def test_a_step_on_what_does_not_fit_is_refused_and_changes_nothing(change: Callable, error: type, match: str) -> None:
    trainer = aligner()
    before = state(trainer.alignment)
    with pytest.raises(error, match=match):
        trainer.train_step(*change(*pairs()))
    assert same(trainer.alignment, before)
    assert not trainer.optimizer.state_dict()["state"]


def test_an_aligner_starts_from_its_documented_numbers() -> None:
    made = CrossModalAligner(device="cpu")
    assert [tuple(p.shape) for p in made.alignment.parameters()] == [(256, 512), (256,)] * 2
    assert [(g["lr"], g["weight_decay"]) for g in made.optimizer.param_groups] == [(3e-3, 0.01), (3e-3, 0.0)]
    assert (made.loss.temperature, made.loss.alpha, made.loss.beta, made.loss.gamma) == (0.1, 0.5, 0.3, 0.2)
    assert made.loss.normalize
    assert CrossModalAligner(4, "cpu", weight_decay=0.25).optimizer.param_groups[0]["weight_decay"] == 0.25


def test_an_aligner_hands_its_settings_on_to_the_projections_and_the_losses() -> None:
    made = CrossModalAligner(6, "cpu", 4, temperature=0.7, normalize=False)
    assert (made.alignment.temperature, made.loss.temperature, made.loss.normalize) == (0.7, 0.7, False)


def test_the_losses_that_are_shown_know_what_is_right_as_those_that_train_do() -> None:
    trainer, (a, b) = aligner(), pairs()
    positives = torch.eye(12, dtype=torch.bool)
    positives[0, 1:4] = positives[1, 0] = True
    assert trainer.align_features(a, b)["total_loss"] != trainer.align_features(a, b, None, positives)["total_loss"]
    shown = {name: trainer.align_features(a, b, None, positives)[name].item() for name in KEYS}
    assert trainer.train_step(a, b, None, positives) == pytest.approx(shown, rel=1e-5)


def test_a_score_without_a_negative_is_refused() -> None:
    """缺陷 17：一对里找一对，总是对的 / Fault 17: one out of one is always right."""
    a, b = pairs()
    with pytest.raises(ValueError, match=r"至少 2 对才有负例.*at least 2 pairs are needed"):
        aligner().compute_alignment_score(a[:1], b[:1])
    with pytest.raises(ValueError, match="as many on each side, got 3 and 2"):
        aligner().compute_alignment_score(a[:3], b[:2])
    assert aligner().compute_alignment_score(a[:2], b[:2])["chance"] == 0.5
