"""所有课共用的循环 / The loop that all lessons share."""

import pytest
import torch
from torch import nn

from mmcore.training import make_optimizer
from mmlessons.tasks.learner import check_steps_left, one_cycle, seeded


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
