"""认数字的应用 / Recognising digits: seen, heard, read, fused."""

import math

import pytest
import torch

from mmlessons.data import digits
from mmlessons.data.digits import MODALITIES
from mmlessons.tasks import multimodal_fusion as recognition
from mmlessons.tasks.multimodal_fusion import AloneTrainer, DigitTrainer
from tests.support import same, state

TEST = digits.load("test")


@pytest.fixture(scope="module")
def alone() -> AloneTrainer:
    trainer = AloneTrainer(steps=60, device="cpu")
    for _ in range(60):
        trainer.train_step()
    return trainer


def test_a_short_training_of_each_modality_learns_far_above_chance(alone: AloneTrainer) -> None:
    assert min(alone.evaluate(recognition.observe_all(digits.load("validation"))).values()) > 0.25


def test_a_short_training_together_beats_the_best_alone(alone: AloneTrainer) -> None:
    together = DigitTrainer(alone, steps=40, device="cpu")
    for _ in range(40):
        together.train_step()
    seen = recognition.observe_all(digits.load("validation"))
    assert together.evaluate(seen)["f"] > max(alone.evaluate(seen).values())


def test_training_together_leaves_the_single_models_as_they_were(alone: AloneTrainer) -> None:
    before = state(alone.models)
    together = DigitTrainer(alone, steps=2, device="cpu")
    together.train_step()
    assert same(alone.models, before)
    together.reset()
    assert torch.equal(together.trainer.encoders[0][1].weight, alone.models["image"][0][1].weight)


@pytest.mark.parametrize("trainer", ["alone", "together"])
def test_the_same_seed_trains_the_same_and_reset_starts_anew(alone: AloneTrainer, trainer: str) -> None:
    def make(seed: int) -> AloneTrainer | DigitTrainer:
        return AloneTrainer(5, seed, device="cpu") if trainer == "alone" else DigitTrainer(alone, 5, seed, device="cpu")
    made = make(3)
    first = [made.train_step() for _ in range(3)]
    made.reset()
    assert [made.train_step() for _ in range(3)] == first
    other = make(4)
    assert [other.train_step() for _ in range(3)] != first


def test_training_leaves_the_global_random_numbers_alone(alone: AloneTrainer) -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    AloneTrainer(2, device="cpu").train_step()
    DigitTrainer(alone, 2, device="cpu").train_step()
    assert torch.equal(torch.rand(3), wanted)


def test_only_the_training_split_is_trained_on() -> None:
    assert AloneTrainer(1, device="cpu").data.role == "train"


@pytest.mark.parametrize(("values", "match"), [
    ({"dropout": 1.5}, "dropout must be from 0 to 1, got 1.5"),
    ({"dropout": float("nan")}, "dropout must be from 0 to 1, got nan"),
    ({"pull": -0.1}, "pull may not be below 0, got -0.1"),
])
def test_a_bad_slider_value_is_refused_and_the_model_kept(alone: AloneTrainer, values: dict, match: str) -> None:
    together = DigitTrainer(alone, 3, device="cpu")
    before, generator = state(together.trainer.learned), together.generator.get_state()
    with pytest.raises(ValueError, match=match):
        together.train_step(**values)
    assert same(together.trainer.learned, before)
    assert torch.equal(together.generator.get_state(), generator)
    together.train_step()


def test_no_step_beyond_the_last(alone: AloneTrainer) -> None:
    together = DigitTrainer(alone, 1, device="cpu")
    together.train_step()
    with pytest.raises(ValueError, match="has 1 steps and all are done"):
        together.train_step()


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


def test_weighing_decisions_turns_off_what_says_nothing() -> None:
    label = torch.arange(10).repeat(20)
    good = torch.full((200, 10), 0.02).scatter(1, label[:, None], 0.82)
    wild = torch.rand(200, 10, generator=torch.Generator().manual_seed(0)).pow(8)
    w = recognition.weigh_decisions([good, wild / wild.sum(1, keepdim=True)], label)
    assert w.sum().item() == pytest.approx(1)
    assert w[1] < 0.05


def test_bad_days_are_as_frequent_for_each_modality_whether_shared_or_not() -> None:
    for shared in (True, False):
        noise = recognition.good_and_bad_days(4000, shared)
        bad = [noise["image_noise"] > 0.5, noise["babble_snr_db"] < 5, noise["typo_rate"] > 0.4]
        assert all(rows.double().mean().item() == pytest.approx(0.5, abs=0.03) for rows in bad)
        together = (bad[0] & bad[1] & bad[2]).double().mean().item()
        assert together == pytest.approx(0.5 if shared else 0.125, abs=0.03)


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
def test_a_modality_that_is_nothing_but_noise_says_nothing_of_the_digit(alone: AloneTrainer, sense: str) -> None:
    """听到的也只剩嘈杂声，响度与 observe 的一样 / What is heard is babble alone, as loud as in `observe`."""
    right = 0
    for clip in TEST.clips:
        seen, _ = recognition.one_sample(TEST, clip, {}, noise_only=[sense])
        right += alone.evaluate(seen)[sense]
    assert right < 0.3 * len(TEST.clips)
    if sense == "sound":
        loud = recognition.observe_all(TEST, noise_only=sense)[sense].mean().item()
        assert seen[sense].mean().item() == pytest.approx(loud, rel=0.2)


def test_what_goes_on_from_a_start_starts_there_and_leaves_it_alone(alone: AloneTrainer) -> None:
    before = state(alone.models)
    further = AloneTrainer(2, device="cpu", start=alone)
    assert same(further.models, before)
    further.train_step(dropout=0.5)
    assert not same(further.models, before)
    assert same(alone.models, before)


def test_the_two_trainers_of_one_seed_draw_different_batches(alone: AloneTrainer) -> None:
    draws = [trainer.draw(0.0)["image"] for trainer in (AloneTrainer(1, device="cpu"),
                                                         DigitTrainer(alone, 1, device="cpu"))]
    assert not torch.equal(*draws)


def test_examining_freezes_the_weights_at_their_usual_mean(alone: AloneTrainer) -> None:
    together = DigitTrainer(alone, 3, device="cpu")
    for _ in range(3):
        together.train_step()
    results = recognition.examine(together, TEST, 1)
    assert list(results) == list(recognition.NOISY)
    seen = recognition.observe_all(TEST, 1, noise_only="sound")
    out = together.trainer.fuse(recognition.inputs(seen))
    g = torch.tensor(results["clean"]["g"])
    fused = sum(g[i] * out[f"f_{i + 1}"] for i in range(3))
    frozen = recognition.accuracy(together.trainer.head(fused), seen["label"])
    assert results["noise_only sound"]["g frozen"] == pytest.approx(frozen, abs=0.003)  # one of 382 may be a draw
    assert results["noise_only sound"]["f"] == together.evaluate(seen)["f"]
    assert results["noise_only sound"]["alpha"] == out["alpha"].mean(0).tolist()


def test_a_whole_run_reports_what_its_table_names_and_repeats() -> None:
    result = recognition.train_and_test(5, alone_steps=6, together_steps=4)
    assert set(result) == {"alone", "homework", "with", "without", "pulled", "free", "product", "warned", "sure",
                           "noisy w", "w", "fused", "apart", "shared"}
    assert all(sum(w) == pytest.approx(1) for w in [*result["w"].values(), *result["noisy w"].values()])
    alone = AloneTrainer(6, 5, device="cpu")
    for _ in range(6):
        alone.train_step()
    assert result["alone"] == alone.evaluate(recognition.observe_all(TEST, 2))
    warned = AloneTrainer(4, 5, device="cpu", start=alone)
    for _ in range(4):
        warned.train_step(recognition.DROPOUT)
    seen = recognition.observe_all(TEST, 2, noise_only="image")
    product = recognition.accuracy(recognition.product_rule(warned.decisions(seen)), seen["label"])
    assert result["warned"]["noise_only image"] == product
