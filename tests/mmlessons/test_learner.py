"""所有课共用的循环 / The loop that all lessons share."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from mmcore.training import make_optimizer
from mmlessons.data import emoji, views
from mmlessons.tasks import (
    cross_modal_alignment,
    cross_modal_retrieval,
    image_captioning,
    multimodal_fusion,
    multimodal_sentiment,
    video_understanding,
    vision_language_model,
    visual_question_answering,
)
from mmlessons.tasks.learner import Learner, Stages, check_steps_left, one_cycle, seeded
from tests.support import same, state


def test_the_step_size_rises_for_15_percent_of_the_steps_then_falls_far_below_its_start() -> None:
    net = nn.Linear(2, 1)
    optimizer = make_optimizer(net, 0.5, 0.1)
    betas = optimizer.param_groups[0]["betas"]
    schedule = one_cycle(optimizer, 100)
    seen = []
    for _ in range(100):
        check_steps_left(schedule)
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert seen[0] == pytest.approx(0.05)
    assert max(seen) == pytest.approx(0.5, rel=0.01)
    assert seen.index(max(seen)) == 15
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.05 / 1000)
    assert optimizer.param_groups[1]["lr"] == pytest.approx(0.05 / 1000)
    assert optimizer.param_groups[0]["betas"] == betas
    with pytest.raises(ValueError, match=r"这次训练只有 100 步，.* / this training has 100 steps and all are done"):
        check_steps_left(schedule)
    other = make_optimizer(net, 0.5, 0.1)
    one_cycle(other, 10, rise=5)
    assert other.param_groups[0]["lr"] == pytest.approx(0.1)


def test_random_numbers_inside_are_the_seeds_and_the_global_ones_go_on() -> None:
    torch.manual_seed(5)
    wanted = torch.rand(2)
    torch.manual_seed(5)
    with seeded(3):
        first = torch.rand(2)
    assert torch.equal(torch.rand(2), wanted)
    with seeded(3):
        assert torch.equal(torch.rand(2), first)
    assert torch.equal(torch.rand(2, generator=torch.Generator().manual_seed(3)), first)


@pytest.mark.parametrize("make", [
    lambda: cross_modal_alignment.learner(views.load()),
    lambda: cross_modal_retrieval.learner(emoji.load(), 1),
    lambda: image_captioning.learner(1, 1),
    lambda: multimodal_fusion.separately(),
    lambda: multimodal_fusion.together(multimodal_fusion.separately().model),
    lambda: multimodal_sentiment.separately(),
    lambda: video_understanding.learner(steps=1, count=8),
    lambda: vision_language_model.learner(vision_language_model.load(), 1),
    lambda: visual_question_answering.learner(1),
], ids=lambda make: make.__code__.co_names[0])
def test_a_mode_chosen_by_the_user_is_kept_so_what_a_lesson_trains_must_begin_in_training_mode(
        make: Callable[[], Learner | Stages]) -> None:
    assert all(module.training for module in make().model.modules())


def test_a_mode_chosen_by_the_user_is_kept_a_frozen_tower_stays_what_it_was() -> None:
    learner = cross_modal_retrieval.learner(emoji.load(), 3)
    tower = learner.model.visual_encoder.eval().requires_grad_(False)
    before = state(tower)
    learner.finish()
    assert same(tower, before)  # running means and variances among it
    assert not any(module.training for module in tower.modules())
    assert all(module.training for module in learner.model.text_encoder.modules())
