"""权重说明什么，不说明什么 / What the weights of a fusion say, and what they do not."""

import pickle

import pytest
import torch

from mmlessons.data import digits
from mmlessons.tasks import multimodal_fusion as recognition
from mmlessons.tasks import what_weights_do_not_say as weighing
from mmlessons.tasks.multimodal_fusion import inputs, separately, together

TEST = digits.load("test")


def test_weighing_decisions_turns_off_what_says_nothing() -> None:
    label = torch.arange(10).repeat(20)
    good = torch.full((200, 10), 0.02).scatter(1, label[:, None], 0.82)
    wild = torch.rand(200, 10, generator=torch.Generator().manual_seed(0)).pow(8)
    w = weighing.weigh_decisions([good, wild / wild.sum(1, keepdim=True)], label)
    assert w.sum().item() == pytest.approx(1)
    assert w[1] < 0.05


def test_bad_days_are_as_frequent_for_each_modality_whether_shared_or_not() -> None:
    for shared in (True, False):
        noise = weighing.good_and_bad_days(4000, shared)
        bad = [noise["image_noise"] > 0.5, noise["babble_snr_db"] < 5, noise["typo_rate"] > 0.4]
        assert all(rows.double().mean().item() == pytest.approx(0.5, abs=0.03) for rows in bad)
        together = (bad[0] & bad[1] & bad[2]).double().mean().item()
        assert together == pytest.approx(0.5 if shared else 0.125, abs=0.03)


def test_exclusive_or_is_a_bit_for_each_modality_and_their_product_solves_it() -> None:
    (first, second), label = weighing.exclusive_or(4000, torch.Generator().manual_seed(3))
    assert first.shape == second.shape == (4000, 2)
    assert torch.equal(first[:, 1], torch.ones(4000))
    bits = [(x[:, 0] < 0).long() for x in (first, second)]
    assert ((bits[0] ^ bits[1]) == label).double().mean() > 0.99
    assert ((first[:, 0] * second[:, 0] < 0) == label.bool()).double().mean() > 0.99
    for x in (first, second):  # by itself a modality says nothing
        assert ((x[:, 0] < 0).long() == label).double().mean().item() == pytest.approx(0.5, abs=0.03)


def test_the_puzzle_asks_every_seed_the_same_questions() -> None:
    one, other = weighing.puzzle(1, steps=60), weighing.puzzle(2, steps=60)
    assert one.right["f_early"].shape == (weighing.ASKED,)
    assert min(x.right["f_early"].double().mean().item() for x in (one, other)) > 0.9
    assert max(x.right["f_gated"].double().mean().item() for x in (one, other)) < 0.78
    assert one.loss != other.loss
    assert weighing.puzzle(1, steps=60).loss == one.loss
    assert sum(one.pi) == pytest.approx(1, abs=1e-5)


def test_a_puzzle_leaves_the_global_random_numbers_alone() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    weighing.puzzle(1, steps=1)
    assert torch.equal(torch.rand(3), wanted)


def test_a_whole_run_can_be_sent_between_processes_and_is_what_its_steps_give() -> None:
    result = pickle.loads(pickle.dumps(weighing.study(5, separate_steps=6, together_steps=4)))
    assert set(result.constants) == {"train", "validation", "equal"}
    learned = [*(c.w for c in result.constants.values()), *result.noise_weights.values()]
    assert all(sum(w) == pytest.approx(1) for w in learned)
    experts = separately(6, 5, device="cpu").finish().model
    assert result.elsewhere["train"] == experts.evaluate(recognition.observe_all(digits.load("train")))
    assert torch.equal(result.single["clean"].right["sound"],
                       recognition.examine_singles(experts, TEST)["clean"].right["sound"])
    for dials, found in (({}, result.dropout), ({"dropout": 0.0}, result.no_dropout)):
        trainer = together(experts, 4, 5, device="cpu").finish(**dials).trainer
        seen = recognition.observe_under(TEST, "noise_only sound", recognition.TIMES)
        right = trainer.evaluate(inputs(seen), seen["label"])
        tested = found["noise_only sound"].right
        assert {m: scores.mean().item() for m, scores in tested.items()} == pytest.approx(right)
    free = together(experts, 2, 5, device="cpu").finish(pull=0.0).trainer
    clean = recognition.observe_under(TEST, "clean", recognition.TIMES)
    assert torch.equal(result.free.right["f"], recognition.fused(free, clean, recognition.TIMES).right["f"])
