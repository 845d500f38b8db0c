"""听懂一句话的应用 / Understanding an utterance."""

import math
import pickle
from functools import partial

import pytest
import torch
from torch import Tensor

from mmcore.fusion import MultimodalFusionTrainer, product_of_experts
from mmlessons.data import utterances
from mmlessons.data.utterances import MODALITIES
from mmlessons.tasks import multimodal_sentiment as sentiment
from mmlessons.tasks import scoring, signs
from mmlessons.tasks.learner import Learner
from mmlessons.tasks.multimodal_sentiment import separately, together
from mmlessons.tasks.several_modalities import Experts

VALIDATION = utterances.load("validation")
WORDS = sentiment.load_words()


@pytest.fixture(scope="module")
def experts() -> Experts:
    return separately(steps=60, batch=48, device="cpu").finish().model


@pytest.fixture(scope="module")
def trainer(experts: Experts) -> MultimodalFusionTrainer:
    return together(experts, steps=20, batch=48, device="cpu").finish().trainer


@pytest.fixture(scope="module")
def seen() -> dict[str, Tensor]:
    return sentiment.observe_all(VALIDATION, WORDS, 4)


def some_experts(m: int = 3, b: int = 4, k: int = 3) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(b, k, generator=generator, dtype=torch.float64).log_softmax(-1) for _ in range(m)]
    return rows, torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64).log()


# -- (7.1) ------------------------------------------------------------------------------------------------------------

@pytest.mark.formula("7.1")
@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_the_product_of_experts_is_the_formula(m: int) -> None:
    log_p, log_prior = some_experts(m)
    got = product_of_experts(log_p, log_prior)
    for row in range(4):
        score = []
        for y in range(3):
            total = 0.0
            for rows in log_p:
                total += rows[row, y].item()
            score.append(total - (m - 1) * log_prior[y].item())
        log_z = math.log(sum(math.exp(s) for s in score))
        for y in range(3):
            assert got[row, y].item() == pytest.approx(score[y] - log_z, abs=1e-12)


def test_the_product_of_experts_is_bayes_theorem_where_the_modalities_are_independent() -> None:
    generator = torch.Generator().manual_seed(1)
    prior = torch.tensor([0.6, 0.1, 0.3], dtype=torch.float64)
    given = [torch.rand(3, size, generator=generator, dtype=torch.float64) for size in (4, 5)]
    given = [table / table.sum(1, keepdim=True) for table in given]  # p(x_m | y), a row for each y
    log_p = []
    for table, x in zip(given, (2, 4), strict=True):
        joint = prior * table[:, x]
        log_p.append((joint / joint.sum()).log().unsqueeze(0))
    truth = prior * given[0][:, 2] * given[1][:, 4]
    torch.testing.assert_close(product_of_experts(log_p, prior.log())[0].exp(), truth / truth.sum())


def test_an_expert_that_knows_only_the_prior_changes_nothing() -> None:
    log_p, log_prior = some_experts(2)
    ignorant = log_prior.expand(4, 3)
    torch.testing.assert_close(product_of_experts([*log_p, ignorant], log_prior),
                               product_of_experts(log_p, log_prior))
    torch.testing.assert_close(product_of_experts([log_p[0]], log_prior), log_p[0])


@pytest.mark.parametrize(("log_p", "prior", "error", "match"), [
    ([], torch.zeros(3), ValueError, "expected at least 1 modalities, got 0"),
    (torch.zeros(2, 3), torch.zeros(3), TypeError, "log_p must be a list, one tensor for each modality"),
    ([torch.zeros(2, 3), torch.zeros(3, 3)], torch.zeros(3), ValueError, r"log_p\[1\] must have shape \(2, 3\)"),
    ([torch.zeros(2, 3)], torch.zeros(2), ValueError, r"log_prior must have shape \(3\)"),
])
def test_what_is_no_product_is_refused(log_p: object, prior: Tensor, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        product_of_experts(log_p, prior)


def test_the_prior_is_the_share_of_each_class_in_training() -> None:
    data = utterances.load("train")
    drawn = data.observe(torch.arange(len(data.sentences)).repeat(100), torch.Generator().manual_seed(0))["label"]
    torch.testing.assert_close(sentiment.log_prior().exp(), drawn.bincount(minlength=3) / len(drawn), atol=0.01, rtol=0)


# -- encoders and words -----------------------------------------------------------------------------------------------

def test_padding_changes_no_feature_of_a_sentence_and_no_word_at_all_gives_zeros() -> None:
    torch.manual_seed(0)
    encode = sentiment.SentenceEncoder(20, 6).eval()
    ids = torch.tensor([[2, 7, 9, 3]])
    padded = torch.cat([ids, torch.zeros(1, 5, dtype=torch.int64)], 1)
    torch.testing.assert_close(encode(padded), encode(ids))
    assert not encode(torch.zeros(2, 9, dtype=torch.int64)).any()
    encode(padded).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in encode.parameters())


def test_the_vocabulary_is_that_of_the_training_sentences_and_no_others() -> None:
    vocabulary = WORDS.tokenizer.get_vocab()
    train = utterances.load("train")
    texts = [text.lower() for s in train.sentences for text in (s.zh, s.en)]
    assert all(any(word in text for text in texts) for word in vocabulary if not word.startswith("["))
    unknown = WORDS.ids(["zyzzyva"])[0]
    assert unknown[1] == WORDS.unknown


def test_the_ids_of_what_is_observed_are_those_of_its_texts(seen: dict[str, Tensor]) -> None:
    rows = torch.arange(0, len(seen["label"]), 37)
    texts = VALIDATION.texts(seen)
    assert torch.equal(seen["text"][rows], WORDS.ids([texts[i] for i in rows]))
    assert seen["text"].shape[1] == sentiment.LONGEST


def test_a_typed_sentence_is_told_which_words_were_never_learned() -> None:
    assert WORDS.known("Thank you, zyzzyva!") == [("thank", True), ("you", True), ("zyzzyva", False)]
    assert WORDS.known("谢谢你！") == [("谢", True), ("谢", True), ("你", True)]
    with pytest.raises(ValueError, match="none of these words was ever learned: zyzzyva"):
        WORDS.known("zyzzyva")
    for nothing in ("", "  ", "?!"):
        with pytest.raises(ValueError, match="type a sentence"):
            WORDS.known(nothing)


# -- training ---------------------------------------------------------------------------------------------------------

def test_a_short_training_puts_together_more_than_the_best_single_one_knows(
        experts: Experts, seen: dict[str, Tensor]) -> None:
    single = experts.evaluate(seen)
    assert set(single) == set(MODALITIES)
    assert scoring.accuracy(sentiment.late(experts, seen), seen["label"]) > single["text"]


def test_training_together_leaves_the_single_models_as_they_were(experts: Experts) -> None:
    before = {name: value.clone() for name, value in experts.state_dict().items()}
    learner = together(experts, steps=2, batch=8, device="cpu")
    learner.train_step()
    assert all(torch.equal(value, before[name]) for name, value in experts.state_dict().items())
    with pytest.raises(ValueError, match="dropout must be from 0 to 1, got 2"):
        learner.train_step(dropout=2)


@pytest.mark.parametrize("which", ["separately", "together"])
def test_the_same_seed_trains_the_same_reset_starts_again_and_global_numbers_stay(experts: Experts, which: str) -> None:
    def make(seed: int) -> Learner:
        if which == "separately":
            return separately(5, seed, batch=8, device="cpu")
        return together(experts, 5, seed, batch=8, device="cpu")
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    made = make(3)
    first = [made.train_step() for _ in range(2)]
    made.reset()
    assert [made.train_step() for _ in range(2)] == first
    other = make(4)
    assert [other.train_step() for _ in range(2)] != first
    assert torch.equal(torch.rand(3), wanted)


def test_only_the_training_split_is_trained_on(experts: Experts) -> None:
    for learner in (separately(1, device="cpu"), together(experts, 1, device="cpu")):
        assert learner.task.modalities.draw.args[0].role == "train"


def test_modality_dropout_takes_one_modality_of_a_row_as_often_as_it_says() -> None:
    modalities, generator = sentiment.modalities(600), torch.Generator().manual_seed(1)
    batch = modalities.draw(generator, 0.6)
    gone = torch.stack([(batch[m].flatten(1) == 0).all(1) for m in MODALITIES], 1)
    assert gone.sum(1).max() == 1
    assert gone.double().sum(1).mean().item() == pytest.approx(0.6, abs=0.06)
    none = modalities.draw(generator, 0.0)
    assert not any((none[m].flatten(1) == 0).all(1).any() for m in MODALITIES)


def test_a_modality_left_out_has_no_say(
        experts: Experts, trainer: MultimodalFusionTrainer, seen: dict[str, Tensor]) -> None:
    blind = {**seen, "face": torch.rand_like(seen["face"])}
    late = partial(sentiment.late, experts)
    torch.testing.assert_close(late(seen, ("face",)), late(blind, ("face",)))
    torch.testing.assert_close(late(seen, ("face", "tone")), sentiment.log_p(experts, seen)[0])
    joint = partial(sentiment.joint, trainer)
    torch.testing.assert_close(joint(seen, ("face",)), joint(blind, ("face",)))
    torch.testing.assert_close(joint(seen, ("face",)), joint({**seen, "face": torch.zeros_like(seen["face"])}))


def test_the_groups_of_rows_are_what_they_say(seen: dict[str, Tensor]) -> None:
    rows = sentiment.groups(VALIDATION, seen)
    assert (sum(rows[kind].long() for kind in utterances.KINDS) == 1).all()
    assert rows["ironic"].sum() > 0
    assert not (rows["ironic"] & ~rows["reversed"]).any()
    assert not (rows["plain"] & rows["reversed"]).any()
    assert (rows["open"] & rows["reversed"]).any()


# -- one sample -------------------------------------------------------------------------------------------------------

def test_one_sample_is_the_sentence_face_and_tone_that_were_chosen() -> None:
    sample = sentiment.one_sample(VALIDATION, WORDS, "你可真行。", 3, "wry", 1)
    assert torch.equal(sample["text"], WORDS.ids(["你可真行。"]))
    assert torch.equal(sample["face"][0], VALIDATION.pictures[3] / 255)
    again = sentiment.one_sample(VALIDATION, WORDS, "你可真行。", 3, "wry", 1)
    assert torch.equal(sample["tone"], again["tone"])


@pytest.mark.parametrize(("values", "match"), [
    (("zyzzyva", 0, "wry", 0), "none of these words was ever learned: zyzzyva"),
    (("你好", 99, "wry", 0), "picture must be below 55, got 99"),
    (("你好", 0, "loud", 0), "sounds must be one of negative, neutral, positive, wry, got 'loud'"),
    (("你好", 0, "wry", 4), "voice must be below 4, got 4"),
])
def test_a_sample_that_cannot_be_is_refused(values: tuple, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        sentiment.one_sample(VALIDATION, WORDS, *values)


def test_a_contribution_is_what_leaving_it_out_changes(experts: Experts, trainer: MultimodalFusionTrainer) -> None:
    text = "谢谢你，很好。"
    sample = sentiment.one_sample(VALIDATION, WORDS, text, 0, "positive", 0)
    late, joint = partial(sentiment.late, experts), partial(sentiment.joint, trainer)
    found = sentiment.contributions(WORDS, sample, text, late)
    assert [(m, word) for m, word, _ in found] == [*(("text", c) for c in "谢谢你很好"), *((m, "") for m in MODALITIES)]
    whole = late(sample)[0]
    best = whole.argmax()
    ids = sample["text"].clone()
    ids[0, 3] = WORDS.unknown  # after [CLS]: 谢 谢 你
    assert found[2][2] == pytest.approx(float(whole[best] - late({**sample, "text": ids})[0, best]), abs=1e-6)
    assert found[-2][2] == pytest.approx(float(whole[best] - late(sample, ("face",))[0, best]), abs=1e-6)
    together = sentiment.contributions(WORDS, sample, text, joint)
    whole = joint(sample)[0]
    gone = joint({**sample, "tone": torch.zeros_like(sample["tone"])})[0]
    assert together[-1][2] == pytest.approx(float(whole[whole.argmax()] - gone[whole.argmax()]), abs=1e-6)


def test_an_unknown_method_is_refused(trainer: MultimodalFusionTrainer, seen: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="method must be one of"):
        sentiment.joint(trainer, seen, method="f_best")


def test_reading_learns_the_signs_and_never_hears_of_the_meaning() -> None:
    learner = sentiment.reading(2, batch=8, device="cpu")
    batch = learner.task.modalities.draw(torch.Generator().manual_seed(0), 0.0)
    wanted = learner.task.losses(learner.model, batch)
    other = learner.task.losses(learner.model, {**batch, "label": (batch["label"] + 1) % 3})
    assert all(torch.equal(wanted[m], other[m]) for m in MODALITIES)
    scores = learner.model(batch)
    for m, sign in zip(MODALITIES, signs.SIGNS, strict=True):
        assert wanted[m].item() == pytest.approx(torch.nn.functional.cross_entropy(scores[m], batch[sign]).item())


def test_what_was_read_is_probabilities_of_each_sign(seen: dict[str, Tensor]) -> None:
    found = sentiment.read(sentiment.reading(1, batch=8, device="cpu").model, seen)
    for sign, size in zip(signs.SIGNS, signs.SIZES, strict=False):
        assert found[sign].shape == (len(seen["label"]), size)
        torch.testing.assert_close(found[sign].sum(1), torch.ones(len(seen["label"])))


def test_the_nearest_of_a_training_utterance_is_itself() -> None:
    train = utterances.load("train")
    known = sentiment.observe_all(train, WORDS, 1, seed=0)
    found = sentiment.nearest(known, times=1, seed=0)
    for sign in ("shown", "sounds"):
        assert torch.equal(found[sign].argmax(1), known[sign])
    assert (found["words"].argmax(1) == known["words"]).double().mean() > 0.98  # a few sentences share all their words


def test_the_score_of_a_sentence_is_the_share_of_its_rows_and_one_without_rows_is_left_out() -> None:
    got = sentiment.by_sentence(torch.tensor([True, False, True, True, False]), torch.tensor([0, 0, 2, 3, 3]),
                                torch.tensor([True, True, False, True, True]))
    assert got.tolist() == [0.5, 0.5]


def test_a_whole_run_reports_every_method_on_every_group_and_can_be_sent_between_processes() -> None:
    result = sentiment.study(0, separate_steps=3, together_steps=2, times=2)
    sent = pickle.loads(pickle.dumps(result))
    assert all(torch.equal(sent.right[g][m], result.right[g][m]) for g in result.right for m in result.right[g])
    wanted = {*MODALITIES, "majority", "nearest", "late", "no prior", "f_early", "f", "read late", "read table"}
    for group, count in (("all", 84), ("plain", 54), ("ironic", 8), ("open", 22)):
        assert set(result.right[group]) >= wanted
        assert all(len(scores) == count and ((scores >= 0) & (scores <= 1)).all()
                   for scores in result.right[group].values())
    assert set(result.missing) == set(MODALITIES)
    assert result.neutral["truth"].mean().item() == pytest.approx(18 / 84)
    experts = separately(3, 0, device="cpu").finish().model
    seen = sentiment.observe_all(utterances.load("test"), WORDS, 2)
    right = sentiment.late(experts, seen, ("face",)).argmax(1) == seen["label"]
    torch.testing.assert_close(result.missing["face"]["late"], right.reshape(2, 84).double().mean(0))
    rows = sentiment.groups(utterances.load("test"), seen)["reversed"]
    blamed = (seen["label"] == 0)[rows].double()
    assert sorted(result.right["reversed"]["majority"].unique().tolist()) == [0, 1]
    assert len(result.right["reversed"]["majority"]) == len(seen["sentence"][rows].unique()) <= len(blamed)
