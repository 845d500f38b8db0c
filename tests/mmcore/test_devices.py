"""设备由用户定 / The device is the user's: what is made on the way lies where the arguments lie."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import mmcore
from mmcore import CrossModalAligner, MultimodalFusion, MultimodalFusionTrainer, VisualLanguageModel, VLMTrainer
from mmcore.training import brought
from tests.mmcore.test_misuse import CALLS

FORMULAS = [name for name in mmcore.__all__ if hasattr(getattr(mmcore, name), "shapes")
            and name not in ("beam_search", "from_clip", "exchange", "attention_mask")]  # texts have no device
TRAINERS = [lambda device: CrossModalAligner(6, device),
            lambda device: MultimodalFusionTrainer(MultimodalFusion([3, 4], 5), device, num_classes=3),
            lambda device: VLMTrainer(VisualLanguageModel(4, 16), device)]


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_makes_nothing_on_the_default_device(name: str) -> None:
    call, arguments = CALLS[name]
    wanted = call(**arguments)
    with torch.device("meta"):  # where all goes that does not say where
        found = call(**arguments)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_losses_scores_and_diagonals_are_made_where_the_features_lie() -> None:
    a, b = torch.randn(2, 4, 6).unbind()
    aligner, S = CrossModalAligner(6, "cpu"), torch.randn(4, 4)
    wanted = aligner.loss(a, b)["total_loss"], mmcore.ranks(S), mmcore.sigmoid_loss(a, b, 0.1, -1.0)
    score = aligner.compute_alignment_score(a, b)
    with torch.device("meta"):
        found = aligner.loss(a, b)["total_loss"], mmcore.ranks(S), mmcore.sigmoid_loss(a, b, 0.1, -1.0)
        assert aligner.compute_alignment_score(a, b) == score
    assert all(map(torch.equal, found, wanted))


@pytest.mark.parametrize("make", TRAINERS)
def test_a_trainer_moves_all_that_learns_to_the_device_named_and_nowhere_else(make: Callable, monkeypatch) -> None:
    moved = []

    def to(self: nn.Module, *where: object, **layout: object) -> nn.Module:
        moved.extend(where)
        return self

    monkeypatch.setattr(nn.Module, "to", to)
    there = torch.device("meta")  # which no machine chooses by itself
    assert make(there).device == there
    assert moved == [there]


class Case(Tensor):
    """A tensor that says where it was asked to go."""

    def to(self, *where: object) -> tuple:
        return where


def test_what_a_trainer_is_given_is_brought_to_its_device_and_what_is_none_stays_none() -> None:
    x = torch.ones(2).as_subclass(Case)
    there = torch.device("cpu")
    assert brought(there, x=x, y=None, z=[x]) == {"x": (there,), "y": None, "z": [(there,)]}
