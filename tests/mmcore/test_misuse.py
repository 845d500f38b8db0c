"""坏输入：公开的名字，一个参数一个参数地弄坏 / Misuse: public names, spoiled one argument at a time.

A good call is written down once; hypothesis spoils one argument of it at a time. Each time there must be an error that
says in both languages what was wrong, and nothing may have changed.
"""

import re
from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mmcore
from mmcore import checkpoints
from mmcore import tokens as text
from mmcore.alignment import CrossModalAligner
from mmcore.fusion import MultimodalFusionTrainer

B, D, M = 4, 6, 3
CHINESE, ENGLISH = re.compile(r"[\u3400-\u9fff]"), re.compile(r"[a-z]{2,} ")
NO_TENSOR = st.sampled_from(["text", 3, 0.5, [[1.0, 2.0]], object()])


def floats(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# -- ways to spoil an argument: each takes the good value and gives a strategy of bad ones -----------------------------

def tensor(x: Tensor) -> st.SearchStrategy:
    """No tensor, whole numbers, a dimension too many."""
    return NO_TENSOR | st.sampled_from([(x * 10).long(), x.unsqueeze(0).unsqueeze(0)])


def sized(x: Tensor) -> st.SearchStrategy:
    """As `tensor`, or larger than the other arguments allow."""
    more = st.tuples(st.integers(0, x.ndim - 1), st.integers(1, 3)).map(
        lambda by: torch.cat([x, x.narrow(by[0], 0, 1).repeat_interleave(by[1], by[0])], by[0]))
    return tensor(x) | more


def wide(x: Tensor) -> st.SearchStrategy:
    """As `tensor`, or of another width."""
    return tensor(x) | st.integers(1, 3).map(lambda n: torch.cat([x, x[..., :1].expand(*x.shape[:-1], n)], -1))


def several(features: list[Tensor]) -> st.SearchStrategy:
    """A list of features: too few, a wrong one among them, rows that differ."""
    spoiled = st.integers(0, len(features) - 1).flatmap(lambda i: sized(features[i]).map(
        lambda bad: [*features[:i], bad, *features[i + 1:]]))
    return spoiled | st.sampled_from([[], features[:1]])


def shares(w: Tensor) -> st.SearchStrategy:
    """Weights: as `tensor`, or one too many, or with a sum that is not 1."""
    return tensor(w) | st.floats(1.1, 9).map(lambda by: w * by) | st.just(torch.cat([w, w[..., :1]], -1))


def whole(n: int) -> st.SearchStrategy:
    return st.sampled_from(["3", None, 2.5, True, [2]]) | st.integers(max_value=0)


def whole_or_none(n: int) -> st.SearchStrategy:
    return st.sampled_from(["3", 2.5, True, [2]]) | st.integers(max_value=0)


def widths(d: object) -> st.SearchStrategy:
    return st.sampled_from(["6", [], [6, 0], [6, "6"], (6, 6.0), -1])


def positive(x: float) -> st.SearchStrategy:
    return st.sampled_from(["0.1", [0.1], True, float("nan"), float("inf"), None]) | st.floats(
        max_value=0, allow_nan=False)


def not_negative(x: float) -> st.SearchStrategy:
    return st.sampled_from(["1", [1.0], True, float("nan"), float("inf")]) | st.floats(
        max_value=-1e-6, allow_nan=False)


def number(x: float) -> st.SearchStrategy:
    return st.sampled_from(["1", [1.0], None, float("nan"), float("-inf")])


def loss(x: float) -> st.SearchStrategy:
    return st.sampled_from(["1", [1.0], None, floats(2)])


def classes(y: Tensor) -> st.SearchStrategy:
    return NO_TENSOR | st.sampled_from([y.float(), y + 100, y - 100, y[:-1], y.unsqueeze(1)])


def tokens(y: Tensor) -> st.SearchStrategy:
    return NO_TENSOR | st.sampled_from([y.float(), y + 1000, -y - 1, y[:-1], y[0]])


def truths(positives: Tensor) -> st.SearchStrategy:
    return NO_TENSOR | st.sampled_from([positives.long(), positives[:-1], torch.zeros_like(positives)])


def starts(y: Tensor) -> st.SearchStrategy:
    return NO_TENSOR | st.sampled_from([y.float(), y[:, 0], y[:0], y.repeat(1, 2)])


def function(f: Callable) -> st.SearchStrategy:
    """No function, or one that returns no log probabilities of each text."""
    return st.sampled_from([None, "argmax", lambda tokens: tokens, lambda tokens: f(tokens)[:1]])


def numbered_from_0(n: int) -> st.SearchStrategy:
    return st.sampled_from(["3", None, 2.5, True, [2]]) | st.integers(max_value=-1)


def at_least_2(n: int) -> st.SearchStrategy:
    return whole(n) | st.just(1)


def frames(f: Tensor) -> st.SearchStrategy:
    """As `wide_frames`, or of another number of frames."""
    return wide_frames(f) | st.just(f[:, :-1])


def any_frames(f: Tensor) -> st.SearchStrategy:
    return tensor(f) | st.sampled_from([f[:, :0], f[0]])


def wide_frames(f: Tensor) -> st.SearchStrategy:
    return any_frames(f) | st.just(f[..., :-1])


def pictures(x: Tensor) -> st.SearchStrategy:
    return NO_TENSOR | st.sampled_from([x[0], x[:, :1], x.unsqueeze(0), x[:-1]])


def mask(m: Tensor) -> st.SearchStrategy:
    return st.sampled_from(["text", 3, m[:-1], m[:, :-1], m * 0, None])


def words(ids: Tensor) -> st.SearchStrategy:
    return st.sampled_from(["text", 3, ids.float(), ids[:-1], ids[0], ids + 1000, -ids - 1])


def truths_or_none(given: Tensor) -> st.SearchStrategy:
    return st.sampled_from(["yes", 3, given.long(), given[:-1]])


def choice(x: str) -> st.SearchStrategy:
    return st.text(max_size=8).filter(lambda text: text not in {"gates", "attention", "resnet-tiny", "bert-tiny"})


# -- the good calls: name, what is called, its arguments, how each is spoiled -----------------------------------------

FEATURES = [floats(B, D) for _ in range(M)]
PAIR = {"a": (floats(B, D), sized), "b": (floats(B, D) + 1, sized)}
EYE = torch.eye(B, dtype=torch.bool)
Y = torch.full((B, B), 1 / B)
W = torch.full((M,), 1 / M)
DECODER = mmcore.CausalDecoder(9, D, width=8)
WRITTEN = torch.tensor([[9, 4, 3, 0]] * B)
FUSION = mmcore.MultimodalFusion([D] * M, 5)

TOKENIZER = text.build_tokenizer(["red apple", "红苹果", "tree", "fruit", "水果"])
T = 5
FRAMES = floats(B, T, D)
torch.manual_seed(0)
VLM = mmcore.VisualLanguageModel(4, 16, tokenizer=TOKENIZER, name_tokenizer=TOKENIZER)
GIVEN = VLM.text_encoder.tokenize(["red apple", "苹果", "tree", "水果"])
SEEN = {"image": (torch.rand(B, 3, 32, 32), pictures), "input_ids": (GIVEN["input_ids"], words),
        "attention_mask": (GIVEN["attention_mask"], mask), "image_given": (torch.tensor([True] * B), truths_or_none),
        "text_given": (torch.tensor([True, False] * 2), truths_or_none)}
NAME_IDS = VLM.name_tokens(["red apple", "tree", "水果", "fruit"], ["en", "en", "zh", "en"])

CALLS: dict[str, tuple[Callable, dict]] = {
    "contrastive_loss": (mmcore.contrastive_loss, PAIR | {"tau": (0.1, positive), "positives": (EYE, truths)}),
    "feature_alignment_loss": (mmcore.feature_alignment_loss, PAIR),
    "semantic_similarity": (mmcore.semantic_similarity, {"a": (floats(B, D), wide), "b": (floats(B, D), wide)}),
    "semantic_alignment_loss": (mmcore.semantic_alignment_loss, PAIR | {"y": (Y, shares)}),
    "sigmoid_loss": (mmcore.sigmoid_loss, PAIR | {"tau": (0.1, positive), "bias": (-1.0, number)}),
    "modality_gap": (mmcore.modality_gap, {"a": (floats(B, D), wide), "b": (floats(B, D), wide)}),
    "cosine_similarity": (mmcore.cosine_similarity, {"a": (floats(B, D), wide), "b": (floats(B, D), wide)}),
    "ranks": (mmcore.ranks, {"S": (floats(B, B), sized), "positives": (EYE, truths)}),
    "retrieval_scores": (mmcore.retrieval_scores, {"S": (floats(B, B), sized)}),
    "weighted_sum": (mmcore.weighted_sum, {"w": (W, sized), "features": (FEATURES, several)}),
    "late_fusion": (mmcore.late_fusion, {"features": (FEATURES, several), "w": (W, shares)}),
    "attention_fusion_weights": (mmcore.attention_fusion_weights, {
        "features": (FEATURES, several), "W_f": (floats(2, D), sized), "b_f": (floats(2), sized),
        "W_a": (floats(2), sized), "b_a": (torch.zeros(()), loss)}),
    "gated_fusion_weights": (mmcore.gated_fusion_weights, {
        "features": (FEATURES, several), "W_g": (floats(M, D), sized), "b_g": (floats(M), sized)}),
    "adaptive_fusion_weights": (mmcore.adaptive_fusion_weights, {
        "candidates": ([floats(B, D)] * 4, several), "W_s": (floats(4, 4 * D), sized), "b_s": (floats(4), sized)}),
    "cell_attention_weights": (mmcore.cell_attention_weights, {
        "f_t": (floats(B, D), sized), "x": (floats(B, 4, D), tensor)}),
    "cell_gates": (mmcore.cell_gates, {
        "f_t": (floats(B, D), sized), "x": (floats(B, 4, D), tensor), "b_g": (torch.zeros(()), number)}),
    "cross_modal_fusion": (mmcore.cross_modal_fusion, {
        "f_v": (floats(B, D), sized), "f_t": (floats(B, D), sized), "W_v": (floats(5, D), sized),
        "W_t": (floats(5, D), sized), "b": (floats(5), sized)}),
    "multitask_loss": (mmcore.multitask_loss, {
        "L_cls": (1.0, loss), "L_retrieval": (1.0, loss), "L_generation": (1.0, loss),
        "alpha": (1.0, not_negative), "beta": (1.0, not_negative), "gamma": (1.0, not_negative)}),
    "generation_loss": (mmcore.generation_loss, {"logits": (floats(B, 3, 9), tensor), "tokens": (
        WRITTEN.clamp(max=8), lambda y: NO_TENSOR | st.sampled_from([y.float(), y[:-1], y[0], y * 0]))}),
    "EarlyFusion": (mmcore.EarlyFusion, {"feature_dims": ([D] * M, widths), "output_dim": (5, whole)}),
    "LateFusion": (mmcore.LateFusion, {"feature_dim": (D, whole), "num_modalities": (M, whole)}),
    "AttentionFusion": (mmcore.AttentionFusion, {"feature_dim": (D, whole), "hidden_dim": (2, whole_or_none)}),
    "GatedFusion": (mmcore.GatedFusion, {"feature_dim": (D, whole), "num_modalities": (M, whole)}),
    "MultimodalFusion": (mmcore.MultimodalFusion, {"feature_dims": ([D] * M, widths), "output_dim": (5, whole)}),
    "MultimodalFusion.forward": (FUSION, {"features": (FEATURES, several)}),
    "CellAttention": (mmcore.CellAttention, {
        "feature_dim": (D, whole), "cells": (4, whole), "look": ("gates", choice)}),
    "CrossModalAlignment": (mmcore.CrossModalAlignment, {
        "feature_dim": (D, lambda d: widths(d) | st.just([6, 6, 6])), "projection_dim": (4, whole),
        "temperature": (0.1, positive)}),
    "AlignmentLoss": (mmcore.AlignmentLoss, {
        "temperature": (0.1, positive), "alpha": (0.5, not_negative), "beta": (0.3, not_negative),
        "gamma": (0.2, not_negative)}),
    "CrossModalFusion": (mmcore.CrossModalFusion, {"feature_dim": (D, widths), "hidden_dim": (5, whole)}),
    "CausalDecoder": (mmcore.CausalDecoder, {
        "vocabulary": (9, whole), "feature_dim": (D, whole), "starts": (2, whole), "width": (8, whole),
        "layers": (1, whole), "heads": (2, whole), "prefix": (1, whole), "max_tokens": (4, whole)}),
    "CausalDecoder.forward": (DECODER, {"h": (floats(B, D), sized), "tokens": (WRITTEN, tokens)}),
    "VisualEncoder": (mmcore.VisualEncoder, {"feature_dim": (D, whole), "backbone": ("resnet-tiny", choice)}),
    "TextEncoder": (mmcore.TextEncoder, {"feature_dim": (D, whole)}),
    "beam_search": (mmcore.beam_search, {
        "next_log_p": (lambda tokens: torch.zeros(len(tokens), 9).log_softmax(1), function),
        "start": (torch.full((B, 1), 9), starts), "most": (3, whole), "beams": (2, whole),
        "length_power": (0.5, not_negative), "pad": (0, numbered_from_0), "end": (3, numbered_from_0)}),
    "mean_over_time": (mmcore.mean_over_time, {"f": (FRAMES, any_frames)}),
    "recurrent_states": (mmcore.recurrent_states, {
        "f": (FRAMES, wide_frames), "W": (floats(6, D), sized),
        "U": (floats(6, 2), sized), "b": (floats(6), sized), "c": (floats(2), sized)}),
    "temporal_attention_weights": (mmcore.temporal_attention_weights, {
        "x": (FRAMES, wide_frames), "W": (floats(3, D), sized),
        "b": (floats(3), sized), "w": (floats(2, 3), wide)}),
    "Recurrence": (mmcore.Recurrence, {"feature_dim": (D, whole), "hidden_dim": (3, whole)}),
    "TemporalAttention": (mmcore.TemporalAttention, {
        "feature_dim": (D, whole), "frames": (T, whole), "heads": (2, whole), "hidden_dim": (3, whole)}),
    "TemporalAttention.forward": (mmcore.TemporalAttention(D, T), {"f": (FRAMES, frames)}),
    "VisualLanguageModel": (
        lambda **given: mmcore.VisualLanguageModel(tokenizer=TOKENIZER, name_tokenizer=TOKENIZER, **given),
        {"num_classes": (4, at_least_2), "feature_dim": (16, whole), "backbone": ("resnet-tiny", choice),
         "hidden_dim": (8, whole_or_none), "decoder_width": (8, whole)}),
    "VisualLanguageModel.forward": (VLM, SEEN | {"name_ids": (NAME_IDS, words)}),
    "VLMTrainer": (mmcore.VLMTrainer, {
        "model": (VLM, lambda m: st.sampled_from([None, nn.Linear(2, 2), "model"])), "alpha": (1.0, not_negative),
        "beta": (1.0, not_negative), "gamma": (1.0, not_negative), "tau": (0.1, positive), "lr": (0.01, positive),
        "weight_decay": (0.3, not_negative)}),
    "CrossModalAligner": (CrossModalAligner, {
        "feature_dim": (D, widths), "lr": (0.01, positive), "weight_decay": (0.01, not_negative),
        "temperature": (0.1, positive)}),
    "MultimodalFusionTrainer": (MultimodalFusionTrainer, {
        "model": (FUSION, lambda m: st.sampled_from([None, nn.Linear(2, 2), "model"])), "lr": (0.01, positive),
        "num_classes": (3, whole_or_none), "pull": (0.02, not_negative)}),
}
ARGUMENTS = [(name, argument) for name, (_, arguments) in CALLS.items() for argument in arguments]


def refused(call: Callable, arguments: dict) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        call(**arguments)
    zh, slash, en = str(caught.value).partition(" / ")
    assert slash, caught.value
    assert CHINESE.search(zh), caught.value
    assert ENGLISH.search(en), caught.value


def test_there_are_at_least_sixty_arguments_to_spoil() -> None:
    assert len(ARGUMENTS) >= 60


@pytest.mark.parametrize("name", CALLS)
def test_the_good_call_is_good(name: str) -> None:
    call, arguments = CALLS[name]
    call(**{key: value for key, (value, _) in arguments.items()})


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_a_bad_argument_gets_a_clear_error_in_both_languages(name: str, argument: str) -> None:
    call, arguments = CALLS[name]
    good = {key: value for key, (value, _) in arguments.items()}
    before = deepcopy(call.state_dict()) if isinstance(call, nn.Module) else {}

    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(arguments[argument][1](good[argument]))
    def spoil(bad: object) -> None:
        refused(call, good | {argument: bad})

    spoil()
    assert all(torch.equal(before[key], now) for key, now in (call.state_dict() if before else {}).items())


# -- a step of training: whatever is refused, nothing has changed -----------------------------------------------------

def what_learns(trainer: object) -> nn.Module:
    return next(getattr(trainer, name) for name in ("learned", "alignment", "model") if hasattr(trainer, name))


def fusing() -> tuple[MultimodalFusionTrainer, dict]:
    torch.manual_seed(0)
    trainer = MultimodalFusionTrainer(mmcore.MultimodalFusion([D] * M, 5), "cpu", num_classes=3)
    return trainer, {"features": (FEATURES, several), "targets": (torch.tensor([0, 1, 2, 0]), classes)}


def aligning() -> tuple[CrossModalAligner, dict]:
    torch.manual_seed(0)
    return CrossModalAligner(D, "cpu"), {"features_A": (floats(B, D), sized), "features_B": (floats(B, D), sized)}


def seeing() -> tuple[mmcore.VLMTrainer, dict]:
    torch.manual_seed(0)
    model = mmcore.VisualLanguageModel(4, 16, tokenizer=TOKENIZER, name_tokenizer=TOKENIZER)
    return mmcore.VLMTrainer(model, "cpu"), SEEN | {
        "labels": (torch.tensor([0, 1, 2, 3]), classes), "name_ids": (NAME_IDS, words), "positives": (EYE, truths)}


@pytest.mark.parametrize("make", [fusing, aligning, seeing])
def test_a_step_that_is_refused_changes_neither_weights_nor_optimiser(make: Callable) -> None:
    trainer, arguments = make()
    learned = what_learns(trainer)
    good = {key: value for key, (value, _) in arguments.items()}
    trainer.train_step(**good)
    before, state = deepcopy(learned.state_dict()), deepcopy(trainer.optimizer.state_dict())

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.sampled_from(list(arguments)).flatmap(
        lambda key: arguments[key][1](good[key]).map(lambda bad: {key: bad})))
    def spoil(bad: dict) -> None:
        refused(trainer.train_step, good | bad)

    spoil()
    assert all(torch.equal(before[key], now) for key, now in learned.state_dict().items())
    after = trainer.optimizer.state_dict()["state"]
    assert all(torch.equal(state["state"][i][key], after[i][key]) for i in after for key in after[i])


@pytest.mark.parametrize("worth", [float("nan"), float("inf"), 1e38])
@pytest.mark.parametrize("make", [fusing, aligning, seeing])
def test_features_that_make_the_loss_infinite_change_nothing(make: Callable, worth: float) -> None:
    trainer, arguments = make()
    learned = what_learns(trainer)
    good = {key: value for key, (value, _) in arguments.items()}
    before = deepcopy(learned.state_dict())
    first = next(iter(good))
    bad = [x * worth for x in good[first]] if isinstance(good[first], list) else good[first] * worth
    with pytest.raises((FloatingPointError, ValueError)) as caught:
        trainer.train_step(**good | {first: bad})
    assert " / " in str(caught.value) or CHINESE.search(str(caught.value))
    assert all(torch.equal(before[key], now) for key, now in learned.state_dict().items())


# -- files -------------------------------------------------------------------------------------------------------------

@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_no_file_however_damaged_is_loaded_or_changes_the_model(tmp_path_factory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("damaged") / "model.safetensors"
    path.write_bytes(content)
    model = nn.Linear(2, 2)
    before = deepcopy(model.state_dict())
    with pytest.raises((ValueError, OSError)) as caught:
        checkpoints.load(model, path)
    assert " / " in str(caught.value)
    assert all(torch.equal(before[key], now) for key, now in model.state_dict().items())
