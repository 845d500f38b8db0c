"""认数字的应用 / Recognising digits: seen, heard, read, fused."""

import math
import pickle
from copy import deepcopy

import pytest
import torch

from mmlessons.data import digits
from mmlessons.data.digits import MODALITIES
from mmlessons.tasks import multimodal_fusion as recognition
from mmlessons.tasks.learner import Learner
from mmlessons.tasks.multimodal_fusion import inputs, separately, together
from mmlessons.tasks.scoring import accuracy
from mmlessons.tasks.several_modalities import Experts, accuracy_of
from tests.support import same, state

TEST = digits.load("test")


@pytest.fixture(scope="module")
def experts() -> Experts:
    return separately(steps=60, device="cpu").finish().model


def fused_accuracy(learner: Learner, seen: dict[str, torch.Tensor]) -> float:
    return learner.trainer.evaluate(inputs(seen), seen["label"])["f"]


def test_a_short_training_of_each_modality_learns_far_above_chance(experts: Experts) -> None:
    assert min(experts.evaluate(recognition.observe_all(digits.load("validation"))).values()) > 0.25


def test_a_short_training_together_beats_the_best_single_one(experts: Experts) -> None:
    seen = recognition.observe_all(digits.load("validation"))
    learner = together(experts, steps=40, device="cpu").finish()
    assert fused_accuracy(learner, seen) > max(experts.evaluate(seen).values())


def test_training_together_leaves_the_single_models_as_they_were(experts: Experts) -> None:
    before = state(experts)
    learner = together(experts, steps=2, device="cpu")
    learner.train_step()
    assert same(experts, before)
    learner.reset()
    assert torch.equal(learner.trainer.encoders[0][1].weight, experts.encoders["image"][1].weight)


def test_what_can_be_kept_holds_encoders_and_head_too(experts: Experts) -> None:
    learner = together(experts, steps=3, device="cpu")
    kept = [deepcopy(part.state_dict()) for part in learner.keeps()]
    before = state(learner.trainer.learned)
    learner.train_step()
    assert not same(learner.trainer.learned, before)
    for part, saved in zip(learner.keeps(), kept, strict=True):
        part.load_state_dict(saved)
    assert same(learner.trainer.learned, before)


@pytest.mark.parametrize("which", ["separately", "together"])
def test_the_same_seed_trains_the_same_and_reset_starts_again(experts: Experts, which: str) -> None:
    def make(seed: int) -> Learner:
        return separately(5, seed, device="cpu") if which == "separately" else together(experts, 5, seed, device="cpu")
    made = make(3)
    first = [made.train_step() for _ in range(3)]
    made.reset()
    assert [made.train_step() for _ in range(3)] == first
    other = make(4)
    assert [other.train_step() for _ in range(3)] != first


def test_training_leaves_the_global_random_numbers_alone(experts: Experts) -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    separately(2, device="cpu").train_step()
    together(experts, 2, device="cpu").train_step()
    assert torch.equal(torch.rand(3), wanted)


def test_only_the_training_split_is_trained_on() -> None:
    assert separately(1, device="cpu").task.modalities.draw.args[0].role == "train"


@pytest.mark.parametrize(("values", "match"), [
    ({"dropout": 1.5}, "dropout must be from 0 to 1, got 1.5"),
    ({"dropout": float("nan")}, "dropout must be from 0 to 1, got nan"),
    ({"pull": -0.1}, "pull may not be below 0, got -0.1"),
])
def test_a_bad_slider_value_is_refused_and_the_model_kept(experts: Experts, values: dict, match: str) -> None:
    learner = together(experts, 3, device="cpu")
    before, generator = state(learner.trainer.learned), learner.generator.get_state()
    with pytest.raises(ValueError, match=match):
        learner.train_step(**values)
    assert same(learner.trainer.learned, before)
    assert torch.equal(learner.generator.get_state(), generator)
    learner.train_step()


def test_no_step_beyond_the_last(experts: Experts) -> None:
    learner = together(experts, 1, device="cpu").finish()
    with pytest.raises(ValueError, match="has 1 steps and all are done"):
        learner.train_step()


def test_modality_dropout_hits_one_modality_of_a_row_as_often_as_it_says() -> None:
    noise = recognition.training_noise(4000, torch.Generator().manual_seed(0), 0.6)
    hits = sum(noise[how][m].double() for how in ("noise_only", "missing") for m in MODALITIES)
    assert hits.max() == 1
    assert hits.mean().item() == pytest.approx(0.6, abs=0.03)
    for how in ("noise_only", "missing"):
        for m in MODALITIES:
            assert noise[how][m].double().mean().item() == pytest.approx(0.1, abs=0.02)
    never = recognition.training_noise(100, torch.Generator().manual_seed(0), 0.0)
    assert not any(never[how][m].any() for how in ("noise_only", "missing") for m in MODALITIES)


def test_the_dials_mean_what_they_say() -> None:
    """1 是平常；声音按振幅：两倍轻 6 分贝 / 1 is the usual; sound goes by amplitude: twice is 6 dB less."""
    assert recognition.dials({"image": 1.0})["image_noise"] == pytest.approx(digits.IMAGE_NOISE)
    assert float(recognition.dials({"sound": 1.0})["babble_snr_db"]) == pytest.approx(digits.BABBLE_SNR_DB)
    assert float(recognition.dials({"text": 1.0})["typo_rate"]) == pytest.approx(digits.TYPO_RATE)
    lower = float(recognition.dials({"sound": 2.0})["babble_snr_db"])
    assert lower == pytest.approx(digits.BABBLE_SNR_DB - 20 * math.log10(2))
    assert float(recognition.dials({"text": 4.0})["typo_rate"]) == 1
    with pytest.raises(ValueError, match="modality must be one of image, sound, text, got 'smell'"):
        recognition.dials({"smell": 1.0})


def test_the_product_rule_is_bayes_theorem() -> None:
    """p(y | x₁, x₂) ∝ p(x₁ | y) p(x₂ | y)，在各类一样多时 / with equally frequent classes."""
    given = [torch.rand(10, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in (0, 1)]
    given = [p / p.sum(1, keepdim=True) for p in given]  # p(x_i | y), rows y
    posterior = [(p / p.sum(0)).T for p in given]  # p(y | x_i), rows x_i
    scores = recognition.product_rule([posterior[0][[2]], posterior[1][[4]]])
    joint = given[0][:, 2] * given[1][:, 4]
    assert torch.allclose(scores.softmax(1)[0], joint / joint.sum(), atol=1e-6)


def test_what_is_heard_is_what_the_model_gets() -> None:
    """波形算出的特征与 observe 给出的相同，除了嘈杂声 / Without babble the feature of the wave is that of observe."""
    clip = TEST.clips[3]
    seen, heard = recognition.one_sample(TEST, clip, {"image": 0.0, "sound": 0.0, "text": 0.0})
    assert len(heard) == len(clip.samples)
    assert int(seen["label"]) == clip.digit
    recorded = digits.sound_feature(TEST.power[clip.digit, clip.spoken].unsqueeze(0))
    assert (seen["sound"] - recorded).abs().mean() < 0.03  # another recording is 0.04 away
    assert seen["spoken"].tolist() == [clip.spoken]
    assert digits.decode(seen["text"])[0] in {form.text for form in TEST.forms[clip.digit]}


def test_a_sample_is_the_same_picture_and_word_whatever_the_dials() -> None:
    quiet, _ = recognition.one_sample(TEST, TEST.clips[0], {"image": 0.0})
    loud, heard = recognition.one_sample(TEST, TEST.clips[0], {"image": 0.0, "sound": 3.0}, missing=["sound"])
    assert torch.equal(quiet["image"], loud["image"])
    assert torch.equal(quiet["text"], loud["text"])
    assert not loud["sound"].any()
    assert loud["present"].tolist() == [[True, False, True]]
    assert heard.abs().max() > 0


def test_observing_all_repeats_and_masks_whole_modalities() -> None:
    seen = recognition.observe_all(TEST, 2, missing="text")
    assert len(seen["label"]) == 2 * len(TEST.labels)
    assert not seen["text"].any()
    again = recognition.observe_all(TEST, 2, missing="text")
    assert torch.equal(seen["sound"], again["sound"])


@pytest.mark.parametrize("sense", MODALITIES)
def test_a_modality_that_is_nothing_but_noise_says_nothing_of_the_digit(experts: Experts, sense: str) -> None:
    """听到的也只剩嘈杂声，响度与 observe 的一样 / What is heard is babble alone, as loud as in `observe`."""
    right = 0
    for clip in TEST.clips:
        seen, _ = recognition.one_sample(TEST, clip, {}, noise_only=[sense])
        right += experts.evaluate(seen)[sense]
    assert right < 0.3 * len(TEST.clips)
    if sense == "sound":
        loud = recognition.observe_all(TEST, noise_only=sense)[sense].mean().item()
        assert seen[sense].mean().item() == pytest.approx(loud, rel=0.2)


def test_what_goes_on_from_a_start_starts_there_and_leaves_it_as_it_was(experts: Experts) -> None:
    before = state(experts)
    further = separately(2, device="cpu", start=experts)
    assert same(further.model, before)
    further.train_step(dropout=0.5)
    assert not same(further.model, before)
    assert same(experts, before)


def test_two_learners_of_one_seed_that_follow_one_another_draw_different_batches(experts: Experts) -> None:
    images = [learner.task.modalities.draw(learner.generator, 0.0)["image"]
              for learner in (separately(1, device="cpu"), together(experts, 1, device="cpu"))]
    assert not torch.equal(*images)


def test_observing_under_a_condition_is_observing_with_its_noise() -> None:
    seen = recognition.observe_under(TEST, "missing text", 2)
    assert torch.equal(seen["sound"], recognition.observe_all(TEST, 2, missing="text")["sound"])
    assert torch.equal(recognition.observe_at(TEST, {"image": 1.0})["image"], recognition.observe_all(TEST)["image"])
    with pytest.raises(ValueError, match="condition must be one of clean, "):
        recognition.observe_under(TEST, "rainy")


# -- studies ----------------------------------------------------------------------------------------------------------


def test_the_observations_of_one_picture_are_one_item() -> None:
    right = torch.tensor([True, False, True, True, False, False])  # two pictures, three times, in the order of observe
    assert recognition.by_picture(right, 3).tolist() == pytest.approx([2 / 3, 1 / 3])


def test_examining_freezes_the_weights_at_their_usual_mean(experts: Experts) -> None:
    learner = together(experts, 3, device="cpu").finish()
    results = recognition.examine(learner.trainer, TEST, times=2)
    assert list(results) == list(recognition.NOISY)
    seen = recognition.observe_all(TEST, 2, noise_only="sound")
    out = learner.trainer.fuse(inputs(seen))
    g = torch.tensor(results["clean"].weights["g"])
    fused = sum(g[i] * out[f"f_{i + 1}"] for i in range(3))
    right = (learner.trainer.head(fused).argmax(1) == seen["label"]).view(2, -1).double().mean(0)
    tested = results["noise_only sound"]
    assert (tested.frozen["g"] - right).abs().mean() < 0.003  # one of 764 may be a draw
    assert tested.right["f"].mean().item() == pytest.approx(fused_accuracy(learner, seen))
    assert tested.right["f"].shape == TEST.labels.shape
    assert tested.weights["alpha"] == out["alpha"].mean(0).tolist()


def test_the_single_models_are_examined_on_the_same_samples_as_the_fusions(experts: Experts) -> None:
    tested = recognition.examine_singles(experts, TEST, ("clean", "noise_only text"), 2)
    seen = recognition.observe_under(TEST, "clean", 2)
    right = {name: scores.mean().item() for name, scores in tested["clean"].right.items()}
    assert {m: right[m] for m in MODALITIES} == pytest.approx(experts.evaluate(seen))
    decisions = experts.decisions(seen)
    assert right["product"] == pytest.approx(accuracy(recognition.product_rule(decisions), seen["label"]))
    assert right["any"] >= max(right[m] for m in MODALITIES)
    for i, m in enumerate(MODALITIES):
        assert tested["clean"].sure[m] == pytest.approx(decisions[i].amax(1).mean().item())


def test_the_nearest_kept_sample_names_the_digit() -> None:
    known, seen = recognition.observe_all(digits.load("train"), seed=1), recognition.observe_all(TEST, 2)
    right = recognition.nearest(known, seen, 2)
    for m in MODALITIES:
        for i in (0, 7, 200):  # the two views of a picture are half the samples apart
            views = []
            for view in (i, i + len(TEST.labels)):
                gaps = [((x != seen[m][view]).sum() if m == "text" else (x - seen[m][view]).square().sum()).item()
                        for x in known[m]]
                views.append(known["label"][gaps.index(min(gaps))] == seen["label"][view])
            assert right[m][i].item() == sum(map(float, views)) / 2
    itself = recognition.nearest(seen, seen)
    assert all(itself[m].mean() > 0.99 for m in ("image", "sound"))


def test_samples_that_are_not_so_many_of_each_picture_are_refused(experts: Experts) -> None:
    with pytest.raises(ValueError, match="382 samples cannot be 3 of each picture"):
        recognition.singles(experts, recognition.observe_all(TEST), 3)


def test_the_best_constants_are_found_by_trying_them_all(experts: Experts) -> None:
    validation = digits.load("validation")
    trainer = together(experts, 20, device="cpu").finish().trainer
    found = recognition.best_constants(trainer, validation, TEST, parts=2, times=1)
    assert list(found) == [*recognition.NOISY, "worst", "learned"]
    sample = recognition.observe_under(validation, "noise_only sound")
    out = trainer.fuse(inputs(sample))
    tried = [(a / 2, b / 2, (2 - a - b) / 2) for a in range(3) for b in range(3 - a)]
    scores = [accuracy_of(trainer, out, sample["label"], w) for w in tried]
    assert accuracy_of(trainer, out, sample["label"], found["noise_only sound"].w) == pytest.approx(max(scores))
    asked = recognition.observe_under(TEST, "noise_only text")
    seen = trainer.fuse(inputs(asked))
    for constants in found.values():
        assert sum(constants.w) == pytest.approx(1)
        assert constants.right["noise_only text"].mean().item() == pytest.approx(
            accuracy_of(trainer, seen, asked["label"], constants.w), abs=0.004)
    assert found["learned"].w == pytest.approx(seen["w"][0].tolist())


def test_a_whole_run_can_be_sent_between_processes_and_is_what_its_steps_give() -> None:
    result = pickle.loads(pickle.dumps(recognition.study(5, separate_steps=6, together_steps=4)))
    experts = separately(6, 5, device="cpu").finish().model
    warned = separately(4, 5, device="cpu", start=experts).finish(dropout=recognition.DROPOUT).model
    trainer = together(experts, 4, 5, device="cpu").finish().trainer
    for condition in recognition.NOISY:
        seen = recognition.observe_under(TEST, condition, recognition.TIMES)
        for found, models in ((result.unwarned, experts), (result.warned, warned)):
            product = accuracy(recognition.product_rule(models.decisions(seen)), seen["label"])
            assert found[condition].right["product"].mean().item() == pytest.approx(product, abs=0.002)
        right = trainer.evaluate(inputs(seen), seen["label"])
        assert {m: scores.mean().item() for m, scores in result.fused[condition].right.items()} == pytest.approx(right)
    assert list(result.fused) == list(recognition.CONDITIONS)
