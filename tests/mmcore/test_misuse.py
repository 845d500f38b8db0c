"""坏输入：公开的名字，一个参数一个参数地弄坏 / Misuse: public names, spoiled one argument at a time.

A good call is written down once; then one argument of it at a time is spoiled in every way that its kind and its
declared shape allow. Each time there must be an error that says in both languages what was wrong, and nothing may have
changed. A function that declares its shapes needs no good call: it is made from them.
"""

import inspect
import re
from collections.abc import Callable, Iterator
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mmcore
from mmcore import checkpoints
from mmcore import tokens as text
from tests import tiny_models

B, D, M, T = 4, 6, 3, 5
CHINESE, ENGLISH = re.compile(r"[\u3400-\u9fff]"), re.compile(r"[a-z]{2,} ")


def floats(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# -- ways to spoil an argument ----------------------------------------------------------------------------------------

NO_NUMBER = ["1", [1.0], True, float("nan"), float("inf")]
WRONG = {  # by argument, or by call and argument: values that are as wrong as a wrong type
    "pad": lambda n: [-1], "end": lambda n: [-1], "num_classes": lambda n: [1], "num_modalities": lambda n: [1],
    "bias": lambda x: [None, -float("inf")], "b_g": lambda x: [float("nan"), -float("inf")] if x.ndim == 0 else [],
    "b_a": lambda x: [floats(2)], "L_cls": lambda x: [floats(2)], "L_retrieval": lambda x: [floats(2)],
    "L_generation": lambda x: [floats(2)],
    "positives": lambda x: [torch.zeros_like(x)], "attention_mask": lambda x: [x * 0], "start": lambda x: [x[:0]],
    "tokens": lambda x: [x + 1000, -x - 1], "input_ids": lambda x: [x + 1000, -x - 1],
    "name_ids": lambda x: [x + 1000, -x - 1], "labels": lambda x: [x + 100, x - 100],
    "targets": lambda x: [x + 100, x - 100], "which": lambda x: [x + 100, x - 100],
    "generation_loss.tokens": lambda x: [x * 0], "calibration_error.p": lambda p: [p * 1.5, -p],
    "late_fusion.w": lambda w: [w * 1.5, -w],
    "semantic_alignment_loss.y": lambda y: [y * 1.5, -y],
    "f": lambda x: [x[:, :0]],
    "next_log_p": lambda f: [None, "argmax", lambda tokens: tokens, lambda tokens: f(tokens)[:1]],
    "model": lambda model: [None, nn.Linear(2, 2), "model"], "from_clip.model": lambda model: [nn.Linear(2, 2), 3],
    "processor": lambda x: [3, (x, x), tiny_models.clip(48)[1]],
}
POSITIVE = {"tau", "temperature", "lr"}


def spoiled(name: str, argument: str, good: object, optional: bool, shapes: dict[str, str]) -> Iterator[tuple]:
    """Bad values, each with whether it must be refused or may also be taken (a size that nothing else fixes)."""
    wrong = WRONG.get(f"{name}.{argument}", WRONG.get(argument, lambda x: []))
    yield from ((bad, True) for bad in wrong(good))
    if not optional:
        yield None, True
    if isinstance(good, Tensor) and good.ndim:
        yield from spoiled_tensor(argument, good, shapes)
    elif isinstance(good, (float, Tensor)):
        low = [] if argument in {"bias", "b_g", "b_a"} or argument.startswith("L_") else [-1e-6, -3.0]
        never = [] if isinstance(good, Tensor) or argument.startswith("L_") else NO_NUMBER[3:]
        yield from ((bad, True) for bad in NO_NUMBER[:3] + never + low + [0.0] * (argument in POSITIVE))
    elif isinstance(good, int):
        yield from ((bad, True) for bad in ["3", 2.5, True, [2], [6, 0], (6, "6"), [6, 6, 6], -7])
        if argument not in {"pad", "end", "first"}:
            yield 0, True
    elif isinstance(good, str):
        yield from ((bad, True) for bad in ["", "nonsense", good.upper()])
    elif isinstance(good, list) and isinstance(good[0], Tensor):
        yield good[:1], name != "product_of_experts"
        yield from ((bad, True) for bad in [[], dict(enumerate(good)), torch.stack(good), "text", 3])
        for i, one in enumerate(good):
            for bad, must in [(None, True), *spoiled_tensor(argument, one, shapes)]:
                yield [*good[:i], bad, *good[i + 1:]], must
    elif isinstance(good, list):
        yield from ((bad, True) for bad in ["6", [], [6], [6, 0], [6, "6"], (6, 6.0), -1])


def spoiled_tensor(argument: str, x: Tensor, shapes: dict[str, str]) -> Iterator[tuple]:
    """No tensor, another type, a dimension more or fewer, one more or fewer in a dimension."""
    yield from ((bad, True) for bad in ["text", 3, object(), x.tolist(), x.numpy(), {"x": x}])
    yield from ((bad, True) for bad in ([(x * 10).long(), x > 0, x.to(torch.complex64)] if x.is_floating_point()
                                        else [x.float(), x.to(torch.int16)]))
    floating = [text for text in shapes.values() if text.split()[0] not in {"int", "int64", "bool", "mask", "scalar"}]
    if x.is_floating_point() and argument in shapes and (len(floating) > 1 or "*[" in floating[0]):
        yield x.double(), True
    options = [option.split() for option in letters_of(shapes.get(argument, "")).split(" / ")]
    for bad in (x.unsqueeze(0), x[0]):
        yield bad, argument in shapes and bad.ndim not in map(len, options)
    yield x.unsqueeze(0).unsqueeze(0), True
    every = " ".join(letters_of(text) for text in shapes.values()).replace("*", " ").split()
    for i, n in enumerate(x.shape):
        own = [option[i] for option in options if len(option) == x.ndim]
        fixed = bool(own) and (own[0].isdecimal() or every.count(own[0].split("*")[-1]) > 1 or "*[" in shapes[argument])
        yield torch.cat([x, x.narrow(i, 0, 1)], i), fixed
        yield x.narrow(i, 0, n - 1), fixed


def letters_of(declared: str) -> str:
    """ "M*[B D]", "int64 B" → "B D", "B" """
    inside = declared.partition("*[")[2].removesuffix("]") or declared
    kind, _, rest = inside.partition(" ")
    return rest if kind in {"int", "int64", "bool", "mask"} else inside


# -- the good calls ---------------------------------------------------------------------------------------------------

SIZES = {"B": B, "N": B, "M": M, "T": T, "D": D}


def made(declared: str) -> object:
    """A good argument of the shape declared."""
    if declared == "scalar":
        return torch.tensor(1.0)
    count, several, _ = declared.partition("*[")
    if several:
        return [made(letters_of(declared))] * (int(count) if count.isdecimal() else SIZES[count])
    sizes = []
    for size in letters_of(declared).split(" / ")[0].split():
        factor, _, letter = size.rpartition("*")
        sizes.append(int(factor or 1) * (int(letter) if letter.isdecimal() else SIZES.get(letter, 2)))
    whole = {"bool": torch.bool, "mask": torch.bool, "int": torch.int32, "int64": torch.int64}
    kind = declared.split()[0]
    return torch.ones(sizes, dtype=whole[kind]) if kind in whole else floats(*sizes)


FEATURES = list(floats(M, B, D))
EYE = torch.eye(B, dtype=torch.bool)
TOKENIZER = text.build_tokenizer(["red apple", "红苹果", "tree", "fruit", "水果"])
torch.manual_seed(0)
FUSION = mmcore.MultimodalFusion([D] * M, 5)
DECODER = mmcore.CausalDecoder(9, D, width=8)
VLM = mmcore.VisualLanguageModel(4, 16, tokenizer=TOKENIZER, name_tokenizer=TOKENIZER)
SEEN = {"image": torch.rand(B, 3, 33, 33), **VLM.text_encoder.tokenize(["red apple", "苹果", "tree", "水果"]),
        "image_given": torch.tensor([True] * B), "text_given": torch.tensor([True, False] * 2)}
NAME_IDS = VLM.name_tokens(["red apple", "tree", "水果", "fruit"], ["en", "en", "zh", "en"])
WRITTEN = torch.tensor([[9, 4, 3, 0]] * B)

CALLS: dict[str, tuple[Callable, dict]] = {  # name: what is called, and those arguments that its shapes do not make
    "contrastive_loss": (mmcore.contrastive_loss, {"tau": 0.1}),
    "exchanged_loss": (mmcore.exchanged_loss, {"tau": 0.1}),
    "share_loss": (mmcore.share_loss, {"A": floats(6, D), "B": floats(6, D), "first": 1, "tau": 0.1}),
    "gradient_error": (mmcore.gradient_error, {}),
    "numbers_sent": (mmcore.numbers_sent, {"pairs": 4, "width": 8, "machines": 2, "way": "ring"}),
    "flow_path": (mmcore.flow_path, {"t": torch.full((B, 1), 0.5)}),
    "guided_velocity": (mmcore.guided_velocity, {"w": 2.0}),
    "euler_steps": (mmcore.euler_steps, {"velocity": lambda x, t: -x, "steps": 2}),
    "exchange": (mmcore.exchange, {"text": "red apple", "one": "red", "other": "apple"}),
    "word_prefix": (mmcore.word_prefix, {"pad": 0}),
    "masked_attention": (mmcore.masked_attention, {"M": torch.zeros(2, 2)}),
    "attention_mask": (mmcore.attention_mask, {"length": 5, "prefix": 2, "kind": "prefix"}),
    "Resampler": (mmcore.Resampler, {"feature_dim": D, "width": 5, "queries": 2, "cells": 4}),
    "semantic_alignment_loss": (mmcore.semantic_alignment_loss, {"y": torch.full((B, M), 1 / M)}),
    "sigmoid_loss": (mmcore.sigmoid_loss, {"tau": 0.1, "bias": -1.0}),
    "retrieval_scores": (mmcore.retrieval_scores, {"S": floats(B, B)}),
    "recall_at": (mmcore.recall_at, {"k": 2}),
    "calibration_error": (mmcore.calibration_error, {
        "p": floats(B, 3).softmax(1), "labels": torch.tensor([0, 1, 2, 0]), "bins": 5}),
    "late_fusion": (mmcore.late_fusion, {"w": torch.full((M,), 1 / M)}),
    "product_of_experts": (mmcore.product_of_experts, {
        "log_p": [floats(B, 2).log_softmax(1)] * M, "log_prior": floats(2).log_softmax(0)}),
    "multitask_loss": (mmcore.multitask_loss, {"L_cls": 1.0, "alpha": 1.0, "beta": 1.0, "gamma": 1.0}),
    "generation_loss": (mmcore.generation_loss, {"logits": floats(B, 3, 9), "tokens": WRITTEN.clamp(max=8)}),
    "beam_search": (mmcore.beam_search, {
        "next_log_p": lambda tokens: torch.zeros(len(tokens), 9).log_softmax(1), "most": 3, "beams": 2,
        "length_power": 0.5, "pad": 0, "end": 3}),
    "EarlyFusion": (mmcore.EarlyFusion, {"feature_dims": [D] * M, "output_dim": 5}),
    "LateFusion": (mmcore.LateFusion, {"feature_dim": D, "num_modalities": M}),
    "AttentionFusion": (mmcore.AttentionFusion, {"feature_dim": D, "hidden_dim": 2}),
    "GatedFusion": (mmcore.GatedFusion, {"feature_dim": D, "num_modalities": M}),
    "MultimodalFusion": (mmcore.MultimodalFusion, {"feature_dims": [D] * M, "output_dim": 5}),
    "CellAttention": (mmcore.CellAttention, {"feature_dim": D, "cells": 4, "look": "gates"}),
    "TemporalAttention": (mmcore.TemporalAttention, {"feature_dim": D, "frames": T, "heads": 2, "hidden_dim": 3}),
    "Recurrence": (mmcore.Recurrence, {"feature_dim": D, "hidden_dim": 3}),
    "CrossModalAlignment": (mmcore.CrossModalAlignment, {"feature_dim": D, "projection_dim": 4, "temperature": 0.1}),
    "AlignmentLoss": (mmcore.AlignmentLoss, {"temperature": 0.1, "alpha": 0.5, "beta": 0.3, "gamma": 0.2}),
    "CrossModalFusion": (mmcore.CrossModalFusion, {"feature_dim": D, "hidden_dim": 5}),
    "CausalDecoder": (mmcore.CausalDecoder, {
        "vocabulary": 9, "feature_dim": D, "starts": 2, "width": 8, "layers": 1, "heads": 2, "prefix": 1,
        "max_tokens": 4}),
    "VisualEncoder": (mmcore.VisualEncoder, {"feature_dim": D, "backbone": "resnet-tiny"}),
    "TextEncoder": (mmcore.TextEncoder, {"feature_dim": D, "tokenizer": TOKENIZER}),
    "from_clip": (mmcore.from_clip, dict(zip(("model", "processor"), tiny_models.clip(), strict=True))),
    "VisualLanguageModel": (mmcore.VisualLanguageModel, {
        "num_classes": 4, "feature_dim": 16, "backbone": "resnet-tiny", "hidden_dim": 8, "decoder_width": 8,
        "tokenizer": TOKENIZER, "name_tokenizer": TOKENIZER}),
    "CrossModalAligner": (mmcore.CrossModalAligner, {
        "feature_dim": D, "lr": 0.01, "weight_decay": 0.01, "temperature": 0.1}),
    "MultimodalFusionTrainer": (mmcore.MultimodalFusionTrainer, {
        "model": FUSION, "lr": 0.01, "num_classes": 3, "pull": 0.02}),
    "VLMTrainer": (mmcore.VLMTrainer, {
        "model": VLM, "alpha": 1.0, "beta": 1.0, "gamma": 1.0, "tau": 0.1, "lr": 0.01, "weight_decay": 0.3}),
    # what modules compute
    "EarlyFusion.forward": (mmcore.EarlyFusion([D] * M, 5), {"features": FEATURES}),
    "LateFusion.forward": (mmcore.LateFusion(D, M), {"features": FEATURES}),
    "AttentionFusion.forward": (mmcore.AttentionFusion(D, 2), {"features": FEATURES}),
    "GatedFusion.forward": (mmcore.GatedFusion(D, M), {"features": FEATURES}),
    "MultimodalFusion.forward": (FUSION, {"features": FEATURES}),
    "CellAttention.forward": (mmcore.CellAttention(D, 4), {"f_t": floats(B, D), "f_v": floats(B, 4, D)}),
    "TemporalAttention.forward": (mmcore.TemporalAttention(D, T), {"f": floats(B, T, D)}),
    "Resampler.forward": (mmcore.Resampler(D, 5), {"f": floats(B, 4, D)}),
    "Recurrence.forward": (mmcore.Recurrence(D, 3), {"f": floats(B, T, D)}),
    "CrossModalAlignment.forward": (mmcore.CrossModalAlignment(D, 4), {
        "features_A": floats(B, D), "features_B": floats(B, D)}),
    "CrossModalFusion.forward": (mmcore.CrossModalFusion(D, 5), {
        "f_v": floats(B, D), "f_t": floats(B, D), "image_given": EYE[0], "text_given": ~EYE[0]}),
    "CausalDecoder.forward": (DECODER, {"h": floats(B, D), "tokens": WRITTEN}),
    "CausalDecoder.generate": (DECODER.generate, {"h": floats(B, D), "which": torch.tensor([0, 1, 0, 1])}),
    "CausalDecoder.search": (DECODER.search, {
        "h": floats(B, D), "which": torch.tensor([0, 1, 0, 1]), "beams": 2, "length_power": 0.5}),
    "VisualEncoder.forward": (VLM.visual_encoder, {"image": SEEN["image"]}),
    "TextEncoder.forward": (VLM.text_encoder, {name: SEEN[name] for name in ("input_ids", "attention_mask")}),
    "VisualLanguageModel.forward": (VLM, SEEN | {"name_ids": NAME_IDS}),
}
for _name in mmcore.__all__:
    _call = getattr(mmcore, _name)
    if hasattr(_call, "shapes"):
        _given = CALLS.get(_name, (_call, {}))[1]
        CALLS[_name] = _call, {key: made(text) for key, text in _call.shapes.items()} | _given
ARGUMENTS = [(name, argument) for name, (_, arguments) in CALLS.items() for argument in arguments
             if "tokenizer" not in argument]


def declared_by(call: Callable) -> dict[str, str]:
    """The shapes that a function, or a method of a module, declares."""
    if isinstance(call, nn.Module):
        methods = [type(call).forward, *vars(type(call)).values()]
        return next((method.shapes for method in methods if hasattr(method, "shapes")), {})
    return getattr(call, "shapes", {})


def refused(call: Callable, arguments: dict, must: bool = True, named: str = "") -> None:
    """Both languages say why, and name what is wrong; where nothing needs to be wrong, the call may also succeed."""
    said = None
    try:
        call(**arguments)
    except (TypeError, ValueError) as error:
        said = str(error)
    assert said or not must, "accepted"
    if said:
        zh, _, en = said.partition(" / ")
        assert CHINESE.search(zh), said
        assert ENGLISH.search(en), said
        assert not named or all(re.search(rf"(?<![A-Za-z_]){named}(?![A-Za-z_])", part) for part in (zh, en)), said


def test_every_public_name_is_called_here() -> None:
    assert set(mmcore.__all__) <= set(CALLS)
    modules = {name for name in mmcore.__all__ if hasattr(getattr(mmcore, name), "forward")} - {"AlignmentLoss"}
    assert {f"{name}.forward" for name in modules} <= set(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_the_good_call_is_good(name: str) -> None:
    call, arguments = CALLS[name]
    call(**arguments)


@pytest.mark.parametrize(("name", "argument"), ARGUMENTS)
def test_a_bad_argument_gets_a_clear_error_in_both_languages(name: str, argument: str) -> None:
    call, good = CALLS[name]
    optional = inspect.signature(call.forward if isinstance(call, nn.Module) else call).parameters[argument].default
    call = call.eval() if isinstance(call, nn.Module) else call
    before = deepcopy(call.state_dict()) if isinstance(call, nn.Module) else {}
    several = isinstance(good[argument], list) and isinstance(good[argument][0], Tensor)
    named = "" if isinstance(good[argument], Tensor) or several else argument
    for bad, must in spoiled(name, argument, good[argument], optional is None, declared_by(call)):
        refused(call, good | {argument: bad}, must, named)
    assert all(torch.equal(before[key], now) for key, now in (call.state_dict() if before else {}).items())


# -- a step of training: whatever is refused, nothing has changed -----------------------------------------------------

FREE = {"image": (2, 3), "name_ids": (1,)}  # dimensions that may have any size


def fusing() -> tuple[mmcore.MultimodalFusionTrainer, nn.Module, dict]:
    trainer = mmcore.MultimodalFusionTrainer(mmcore.MultimodalFusion([D] * M, 5), "cpu", num_classes=3)
    return trainer, trainer.learned, {"features": FEATURES, "targets": torch.tensor([0, 1, 2, 0])}


def aligning() -> tuple[mmcore.CrossModalAligner, nn.Module, dict]:
    trainer = mmcore.CrossModalAligner(D, "cpu")
    return trainer, trainer.alignment, {"features_A": floats(B, D), "features_B": floats(B, D)}


def seeing() -> tuple[mmcore.VLMTrainer, nn.Module, dict]:
    model = mmcore.VisualLanguageModel(4, 16, tokenizer=TOKENIZER, name_tokenizer=TOKENIZER)
    return mmcore.VLMTrainer(model, "cpu"), model, SEEN | {
        "labels": torch.tensor([0, 1, 2, 3]), "name_ids": NAME_IDS, "positives": EYE}


def spoiled_step(argument: str, good: object) -> Iterator[object]:
    """Every bad value of an argument of `train_step`, all to be refused."""
    sizes = FREE.get(argument, ())
    if isinstance(good, list):
        shapes = {argument: f"{M}*[{B} {D}]"}
    else:
        shapes = {argument: " ".join(f"?{i}" if i in sizes else str(n) for i, n in enumerate(good.shape))}
    yield from (bad for bad, must in spoiled("train_step", argument, good, argument in OPTIONAL, shapes) if must)


OPTIONAL = {"positives", "image_given", "text_given"}


@pytest.mark.parametrize("make", [fusing, aligning, seeing])
def test_a_step_that_is_refused_changes_neither_weights_nor_optimiser(make: Callable) -> None:
    torch.manual_seed(0)
    trainer, learned, good = make()
    trainer.train_step(**good)
    before, state = deepcopy(learned.state_dict()), deepcopy(trainer.optimizer.state_dict())
    for argument, x in good.items():
        for bad in spoiled_step(argument, x):
            refused(trainer.train_step, good | {argument: bad})
    assert all(torch.equal(before[key], now) for key, now in learned.state_dict().items())
    after = trainer.optimizer.state_dict()["state"]
    assert all(torch.equal(state["state"][i][key], after[i][key]) for i in after for key in after[i])


@pytest.mark.parametrize("worth", [float("nan"), float("inf"), 1e38])
@pytest.mark.parametrize("make", [fusing, aligning, seeing])
def test_features_that_make_the_loss_infinite_change_nothing(make: Callable, worth: float) -> None:
    torch.manual_seed(0)
    trainer, learned, good = make()
    before = deepcopy(learned.state_dict())
    first = next(iter(good))
    bad = [x * worth for x in good[first]] if isinstance(good[first], list) else good[first] * worth
    with pytest.raises((FloatingPointError, ValueError)) as caught:
        trainer.train_step(**good | {first: bad})
    assert CHINESE.search(str(caught.value))
    assert " / " in str(caught.value)
    assert all(torch.equal(before[key], now) for key, now in learned.state_dict().items())


# -- files ------------------------------------------------------------------------------------------------------------

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
