"""边界：每个公开的函数，每个参数，每一种近乎对的输入 / The border: every public callable, argument by argument.

What is tried follows from the kind of a good argument, so that a new function is covered because it exists: it fails
here until `GOOD` has a good call of it. An outcome is right in one of two ways: a clear error in both languages with
nothing changed, or the right value. The right value comes from elsewhere: from the same call in float64, from the same
number in another type, or, for a row of NaN or −∞, from what depends on that row at all.
"""

import contextlib
import importlib
import inspect
import pkgutil
import random
import re
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmcore
from mmcore import attention, checkpoints, pretrained, ranking, tokens, training
from tests import tiny_models
from tests.mmcore.test_misuse import (
    CALLS,
    DECODER,
    NAME_IDS,
    OPTIONAL,
    TOKENIZER,
    VLM,
    B,
    D,
    M,
    T,
    aligning,
    declared_by,
    floats,
    fusing,
    letters_of,
    seeing,
)

CHINESE, ENGLISH = re.compile("[\u3400-\u9fff]"), re.compile("[a-z]{2,} ")
UNCHECKED = {  # these stand inside the border: what they take has been checked, or is checked next
    "brought", "Bounded", "Bounded.forward", "choose_own", "answer_all", "one_number",
    "CausalDecoder.logits", "CausalDecoder.check_tokens", "VisualEncoder.check", "VisualEncoder.encode",
    "TextEncoder.check", "TextEncoder.encode"}


# -- every public callable, and a good call of it ----------------------------------------------------------------------

def public() -> Iterator[str]:
    """Functions, classes and methods of mmcore: "late_fusion", "CausalDecoder", "CausalDecoder.generate"."""
    for info in pkgutil.iter_modules(mmcore.__path__, "mmcore."):
        if info.name in ("mmcore.checks", "mmcore.tiles", "mmcore.distributed"):
            continue  # the border itself (test_checks.py), what stands inside it, what several processes call
        for name, thing in vars(importlib.import_module(info.name)).items():
            if callable(thing) and not name.startswith("_") and getattr(thing, "__module__", None) == info.name:
                yield name
                for method, inner in vars(thing).items() if inspect.isclass(thing) else ():
                    if callable(inner) and not method.startswith("_"):
                        yield f"{name}.{method}"


def line() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    net = nn.Linear(2, 1)
    return net, training.make_optimizer(net, 0.1, 0.0)


def method(owner: Callable, name: str, **arguments: object) -> Callable[[], tuple[Callable, dict]]:
    """A good call of a method: `owner()` makes what has it."""
    return lambda: (getattr(owner(), name), arguments)


def stepping(make: Callable, name: str = "train_step", without: tuple = (), **more: object) -> Callable:
    def good() -> tuple[Callable, dict]:
        torch.manual_seed(0)
        trainer, _, arguments = make()
        return getattr(trainer, name), {key: x for key, x in arguments.items() if key not in without} | more
    return good


def train_on_line(function: Callable, **more: object) -> Callable:
    def good() -> tuple[Callable, dict]:
        net, optimizer = line()
        x = floats(3, 2)
        losses = (lambda: net(x).square().mean()) if function is training.optimize else (
            lambda: {"total_loss": net(x).square().mean()})
        name = "forward" if function is training.optimize else "losses"
        return function, {"model": net, "optimizer": optimizer, name: losses} | more
    return good


def with_y() -> tuple:
    trainer, learned, arguments = aligning()
    return trainer, learned, arguments | {"y": torch.full((B, B), 1 / B), "positives": torch.eye(B, dtype=torch.bool)}


WHICH = torch.tensor([0, 1, 0, 1])
SAVED = Path(__file__).with_name("gone.safetensors")
Call = tuple[Callable, dict]
GOOD: dict[str, Callable[[], Call]] = {name: lambda call=call: call for name, call in CALLS.items()} | {
    "mutual_scores": lambda: (ranking.mutual_scores, {
        "S": floats(B, B), "positives": torch.eye(B, dtype=torch.bool)}),
    "retrieval_scores": lambda: (mmcore.retrieval_scores, {"S": floats(B, B), "positives": torch.eye(B).bool()}),
    "accuracy": lambda: (ranking.accuracy, {
        "scores": floats(B, 3), "labels": torch.tensor([0, 1, 2, 0])}),
    "cell_scores": lambda: (attention.cell_scores, {
        "f_t": floats(B, D), "x": floats(B, 4, D)}),
    "attended": lambda: (attention.attended, {
        "alpha": floats(B, T, 2), "x": floats(B, T, D)}),
    "AlignmentLoss.forward": method(lambda: mmcore.AlignmentLoss(), "forward", projected_A=floats(B, D),
                                    projected_B=floats(B, D) + 1, y=torch.full((B, B), 1 / B),
                                    positives=torch.eye(B).bool()),
    "CrossModalAlignment.project": method(lambda: CALLS["CrossModalAlignment.forward"][0], "project",
                                          features_A=floats(B, D), features_B=floats(B, D)),
    "CrossModalAligner.tune": stepping(aligning, "tune", ("features_A", "features_B"), temperature=0.2, alpha=1.0,
                                       beta=0.5, gamma=0.1),
    "CrossModalAligner.train_step": stepping(with_y),
    "CrossModalAligner.align_features": stepping(with_y, "align_features"),
    "CrossModalAligner.compute_alignment_score": stepping(with_y, "compute_alignment_score", ("y",)),
    "MultimodalFusionTrainer.train_step": stepping(fusing),
    "MultimodalFusionTrainer.evaluate": stepping(fusing, "evaluate"),
    "MultimodalFusionTrainer.fuse": stepping(fusing, "fuse", ("targets",)),
    "VLMTrainer.tune": stepping(seeing, "tune", tuple(seeing()[2]), alpha=1.0, beta=0.5, gamma=0.1, tau=0.2),
    "VLMTrainer.train_step": stepping(seeing),
    "VLMTrainer.losses": stepping(seeing, "losses"),
    "LateFusion.weights": method(lambda: CALLS["LateFusion.forward"][0], "weights", features=list(floats(M, B, D))),
    "AttentionFusion.weights": method(lambda: CALLS["AttentionFusion.forward"][0], "weights",
                                      features=list(floats(M, B, D))),
    "GatedFusion.weights": method(lambda: CALLS["GatedFusion.forward"][0], "weights", features=list(floats(M, B, D))),
    "CellAttention.with_positions": method(lambda: CALLS["CellAttention.forward"][0], "with_positions",
                                           f_v=floats(B, 4, D)),
    "CellAttention.weights": method(lambda: CALLS["CellAttention.forward"][0], "weights", f_t=floats(B, D),
                                    x=floats(B, 4, D)),
    "TemporalAttention.with_positions": method(lambda: CALLS["TemporalAttention.forward"][0], "with_positions",
                                               f=floats(B, T, D)),
    "TemporalAttention.weights": method(lambda: CALLS["TemporalAttention.forward"][0], "weights", f=floats(B, T, D)),
    "Resampler.weights": method(lambda: CALLS["Resampler.forward"][0], "weights", f=floats(B, 4, D)),
    "Recurrence.states": method(lambda: CALLS["Recurrence.forward"][0], "states", f=floats(B, T, D)),
    "CausalDecoder.start": method(lambda: DECODER, "start", which=WHICH),
    "CausalDecoder.generate": lambda: (DECODER.generate, {
        "h": floats(B, D), "which": WHICH, "temperature": 0.5, "generator": torch.Generator().manual_seed(0)}),
    "VisualLanguageModel.name_tokens": method(lambda: VLM, "name_tokens", names=["red apple", "水果"],
                                              languages=["en", "zh"]),
    "VisualLanguageModel.write": lambda: (VLM.write, {
        "h": floats(2, 16), "languages": ["en", "zh"], "temperature": 0.5,
        "generator": torch.Generator().manual_seed(0)}),
    "VisualLanguageModel.words": method(lambda: VLM, "words", tokens=NAME_IDS[0, 1:]),
    "VisualLanguageModel.spell": method(lambda: VLM, "spell", tokens=NAME_IDS[0, 1:]),
    "TextEncoder.tokenize": method(lambda: VLM.text_encoder, "tokenize", texts=["red apple", "水果"]),
    "build_tokenizer": lambda: (tokens.build_tokenizer, {"texts": ["red apple", "水果"]}),
    "default_tokenizer": lambda: (tokens.default_tokenizer, {}),
    "words": lambda: (tokens.words, {"tokenizer": TOKENIZER, "text": "red apple"}),
    "unknown_words": lambda: (tokens.unknown_words, {"tokenizer": TOKENIZER, "text": "red pear"}),
    "check_known": lambda: (tokens.check_known, {"tokenizer": TOKENIZER, "text": "red apple"}),
    "check_texts": lambda: (tokens.check_texts, {"texts": ["red apple", "水果"]}),
    "is_word": lambda: (tokens.is_word, {"word": "apple"}),
    "device_of": lambda: (training.device_of, {"model": line()[0]}),
    "choose_device": lambda: (training.choose_device, {"device": "cpu"}),
    "make_optimizer": lambda: (training.make_optimizer, {"model": line()[0], "lr": 0.1, "weight_decay": 0.1}),
    "evaluating": lambda: (training.evaluating, {"model": line()[0]}),
    "optimize": train_on_line(training.optimize),
    "train_on": train_on_line(training.train_on, total="total_loss"),
    "save": lambda: (checkpoints.save, {"model": line()[0], "path": SAVED.parent / "no such folder" / "x",
                                        "about": {"steps": 3}}),
    "load": lambda: (checkpoints.load, {"model": line()[0], "path": SAVED}),
    "from_torchvision": lambda: (pretrained.from_torchvision, {
        "name": "squeezenet1_1"}),
    "from_hugging_face": lambda: (pretrained.from_hugging_face, {
        "name": "/no/such/folder"}),
    "ClipEncoder": lambda: (pretrained.ClipEncoder, CALLS["from_clip"][1]),
    "ClipEncoder.encode_pictures": method(lambda: mmcore.from_clip(*tiny_models.clip()), "encode_pictures",
                                          pictures=torch.arange(2880, dtype=torch.uint8).view(2, 3, 20, 24)),
    "ClipEncoder.encode_texts": method(lambda: mmcore.from_clip(*tiny_models.clip()), "encode_texts",
                                       texts=["a red tree", "水果"]),
}
NEVER = {"save", "load", "from_hugging_face"}  # without a file their good call is an error as well: which is clear
LEARNS = {"optimize", "train_on"}  # these change what they are given, and so does every `train_step`
FREE = {  # dimensions that may be of any size, where `shapes` of the callable itself does not say so
    "image": (2, 3), "pictures": (0, 2, 3), "VisualEncoder.forward.image": (0, 2, 3), "name_ids": (1,),
    "CausalDecoder.forward.tokens": (1,),
    "VisualLanguageModel.words.tokens": (0,), "VisualLanguageModel.spell.tokens": (0,), "CellAttention.weights.x": (1,),
    "TemporalAttention.weights.f": (0,), "Recurrence.states.f": (0, 1), "Recurrence.forward.f": (0, 1)}


def test_every_public_callable_has_a_good_call() -> None:
    assert set(public()) - UNCHECKED <= set(GOOD)


# -- what is noted before a call and held against afterwards -----------------------------------------------------------

def noted(x: object) -> object:
    """All that a call could change in x, in a form that can be compared."""
    if isinstance(x, Tensor):
        flat = x.detach().flatten().contiguous()
        return str(x.dtype), tuple(x.shape), flat.view(torch.uint8).numpy().tobytes() if x.numel() else b""
    if isinstance(x, nn.Module):
        plain = {key: value for key, value in vars(x).items() if isinstance(value, (int, float, str, tuple))}
        return noted(x.state_dict()), [m.training for m in x.modules()], repr(plain)
    if isinstance(x, torch.optim.Optimizer):
        return noted(x.state_dict())
    if isinstance(x, torch.Generator):
        return noted(x.get_state())
    if isinstance(x, np.ndarray):
        return x.tobytes()
    if isinstance(x, dict):
        return [(key, noted(value)) for key, value in x.items()]
    if isinstance(x, (list, tuple)):
        return [noted(value) for value in x]
    if hasattr(x, "optimizer"):  # a trainer
        return noted(vars(x))
    return repr(x) if isinstance(x, (int, float, str, type(None))) else id(x)


def luck() -> object:
    """The state of every global source of random numbers."""
    return torch.get_rng_state().numpy().tobytes(), np.random.get_state()[1].tobytes(), random.getstate()


def owner_of(call: Callable) -> object:
    return call if isinstance(call, nn.Module) else getattr(call, "__self__", None)


def in_double(call: Callable) -> Callable:
    """The same call, of a copy of its owner in float64."""
    owner = owner_of(call)
    if owner is None:
        return call
    copy = deepcopy(owner)
    for part in [copy, *vars(copy).values()]:
        if isinstance(part, nn.Module):
            part.double()
    return copy if call is owner else getattr(copy, call.__name__)


def double(x: object) -> object:
    if isinstance(x, Tensor):
        return x.double() if x.is_floating_point() else x
    return [double(each) for each in x] if isinstance(x, list) else x


def numbers_of(x: object) -> list[np.ndarray]:
    """All numbers of a result, in order; of an object, of its parameters."""
    if isinstance(x, Tensor):
        return [x.detach().cpu().double().numpy()]
    if isinstance(x, nn.Module):
        return numbers_of(x.state_dict())
    if isinstance(x, dict):
        return [each for value in x.values() for each in numbers_of(value)]
    if isinstance(x, (list, tuple)):
        return [each for value in x for each in numbers_of(value)]
    if isinstance(x, (bool, int, float)):
        return [np.array(float(x))]
    if hasattr(x, "optimizer"):
        return [each for part in vars(x).values() for each in numbers_of(part)]
    return [np.array([float(ord(letter)) for letter in x])] if isinstance(x, str) else []


def close(x: np.ndarray, y: np.ndarray, rtol: float, infinite: bool = False) -> np.ndarray:
    """Where x is y, up to rounding: of the number itself or of the largest in its row; or, if it may, is no number."""
    with np.errstate(all="ignore"):
        rows = np.abs(np.where(np.isfinite(y), y, 0.0))
        rows = rows.max(tuple(range(1, y.ndim)), keepdims=True) if y.ndim > 1 and y.size else rows
        over = ((np.abs(y) > 3e38) | infinite) & ~np.isfinite(x)
        return over | (np.abs(x - y) <= rtol * (np.abs(y) + rows) + rtol / 100) | (x == y)


def differs(got: object, wanted: object, rtol: float = 1e-3, infinite: bool = False) -> str:
    x, y = numbers_of(got), numbers_of(wanted)
    if [each.shape for each in x] != [each.shape for each in y]:
        return "another shape of result"
    off = next((i for i in range(len(x)) if not close(x[i], y[i], rtol, infinite).all()), None)
    return "" if off is None else f"gave {x[off].flatten()[:4]} for {y[off].flatten()[:4]}"


# -- a call, and what is wrong with its outcome ------------------------------------------------------------------------

READY: dict[str, tuple[Callable, dict]] = {}  # good calls as they were made, until one has changed its owner


def ready(name: str) -> tuple[Callable, dict]:
    if name not in READY:
        READY[name] = GOOD[name]()
        owner = owner_of(READY[name][0])
        if isinstance(owner, nn.Module):
            owner.eval()  # rows of a batch do not bear on each other
    return READY[name]


def run(call: Callable, arguments: dict) -> object:
    """The result; the same numbers are drawn each time."""
    torch.manual_seed(0)
    for x in arguments.values():
        if isinstance(x, torch.Generator):
            x.manual_seed(0)
    result = call(**arguments)
    if isinstance(result, contextlib.AbstractContextManager):
        with result:
            pass
        return None
    return result


def watched(name: str, argument: str, value: object) -> tuple[object, bool, list[str]]:
    """(result, refused?, what was wrong with it) of the good call with one argument replaced."""
    call, arguments = ready(name)
    arguments = arguments | {argument: value}
    result, refused, wrong = None, False, []
    torch.manual_seed(0)
    for x in arguments.values():
        if isinstance(x, torch.Generator):
            x.manual_seed(0)
    before = noted(owner_of(call)), noted(list(arguments.values())), luck()
    try:
        result = run(call, arguments)
    except Exception as error:
        refused = True
        zh, slash, en = str(error).partition(" / ")
        clear = isinstance(error, (TypeError, ValueError, FloatingPointError, OSError))
        if not (clear and slash and CHINESE.search(zh) and ENGLISH.search(en)):
            wrong.append(f"raw {type(error).__name__}: {str(error)[:100]}")
    after = noted(owner_of(call)), noted(list(arguments.values())), luck()
    learns = name in LEARNS or name.endswith((".train_step", ".tune"))
    makes = name[0].isupper() and "." not in name  # a constructor draws its first weights
    allowed = (learns, learns or "generator" in arguments, makes)
    for what, was, now, may in zip(("the state", "an argument", "the luck"), before, after, allowed, strict=True):
        if was != now:
            if refused or not may:
                wrong.append(f"changed {what}")
            READY.pop(name, None)
    return result, refused, wrong


def reference(name: str, argument: str, value: object) -> object:
    """What the same call gives in float64; an error is what it gives, too."""
    call, arguments = ready(name)
    try:
        return run(in_double(call), {key: double(x) for key, x in arguments.items()} | {argument: double(value)})
    except Exception as error:
        return error


def plain(name: str, argument: str, value: object) -> object:
    """What the call gives with another value; what it changes is a copy."""
    call, arguments = deepcopy(ready(name))
    try:
        return run(call, arguments | {argument: value})
    except Exception as error:
        return error


def judged(name: str, argument: str, label: str, rule: str, value: object, *more: object) -> str:
    """What is wrong with the outcome, or nothing. The rules:

    refuse   it has to be refused
    equal    it has to be what `more[0]` gives
    same     so, or refused
    double   what float64 gives, or refused
    depends  not a number wherever the result depends on what was replaced, and elsewhere what it was; or refused
    limit    what float64 gives for very low numbers, if two of them agree; else not a number; or refused
    any      a result without NaN, or refused
    """
    result, refused, wrong = watched(name, argument, value)
    if wrong:
        return "; ".join(wrong)
    if refused:
        return "refused" if rule == "equal" and name not in NEVER else ""
    if rule == "refuse":
        return "accepted"
    if rule in ("equal", "same"):
        wanted = plain(name, argument, more[0])
        return f"but {wanted}" if isinstance(wanted, Exception) else differs(result, wanted, more[1])
    got = numbers_of(result)
    if rule == "double":
        wanted = reference(name, argument, value)
        if isinstance(wanted, Exception):
            return f"but float64 gives {wanted}"[:120]
        if any(np.isnan(x).any() for x in numbers_of(wanted)):
            return "NaN of finite numbers"
        return differs(result, wanted, infinite=label.startswith("1e20"))  # too large for float32, and it says so
    if rule == "any":
        return "NaN of finite numbers" if any(np.isnan(x).any() for x in got) else ""
    one, other = (reference(name, argument, each) for each in more)
    if isinstance(one, Exception) or isinstance(other, Exception):
        return ""  # there is no right value; the numbers themselves are refused
    one, other = numbers_of(one), numbers_of(other)
    if [x.shape for x in one] != [x.shape for x in got] or [x.shape for x in other] != [x.shape for x in got]:
        return "another shape of result"
    for x, a, b in zip(got, one, other, strict=True):
        fixed = close(a, b, 1e-6)
        good = ~np.isfinite(x) | (fixed & close(x, b, 1e-3))
        if not good.all():
            return f"a plausible number: {x[~good].flatten()[:3]}"
    return ""


# -- what is tried -----------------------------------------------------------------------------------------------------

Place = Callable[[object], object]
ODD = [object(), "text", 3, {"x": 1}, [None]]


def tries(name: str, argument: str, good: object, optional: bool) -> Iterator[tuple]:
    """(label, rule, value, …) for every way to replace a good argument."""
    yield "None", "any" if optional else "refuse", None
    if isinstance(good, Tensor) and good.ndim:
        yield from of_tensor(name, argument, good, lambda x: x)
    elif isinstance(good, Tensor | float):
        yield from of_number(argument, float(good))
    elif isinstance(good, bool):
        pass
    elif isinstance(good, int):
        yield from of_whole_number(good)
    elif isinstance(good, list) and isinstance(good[0], Tensor):
        yield from of_tensors(name, argument, good)
    elif isinstance(good, list) and isinstance(good[0], int):
        yield from of_whole_numbers(good)
    elif isinstance(good, list):
        yield from of_texts(name, argument, good)
    elif isinstance(good, str):
        yield from ((repr(x), "refuse", x) for x in [3, b"text", ["text"], np.array(["a", "b"]), object()])
        if argument not in {"text", "total", "device", "path", "name", "word"}:
            yield from ((repr(x), "refuse", x) for x in ["", "nonsense", good.upper()])
        elif argument in {"total", "device", "name"}:
            yield "another", "refuse", "nonsense"
    else:
        yield from ((repr(x)[:30], "refuse", x) for x in ["text", 3, object(), [good], nn.Linear(2, 2)]
                    if not isinstance(x, type(good)) and not (argument == "path" and x == "text")
                    and not (callable(good) and callable(x)))
        if argument == "next_log_p":
            for label, f in [("None", lambda t: None), ("array", lambda t: good(t).numpy()),
                             ("NaN", lambda t: good(t) * torch.nan), ("one row", lambda t: good(t)[:1]),
                             ("whole", lambda t: good(t).long())]:
                yield f"gives {label}", "refuse", f
        elif argument in {"forward", "losses"}:
            for x in [None, 3.0, torch.ones(2), "text"]:
                yield f"gives {x}", "refuse", (lambda x=x: x) if argument == "forward" else (
                    lambda x=x: {"total_loss": x})


def of_tensor(name: str, argument: str, x: Tensor, place: Place) -> Iterator[tuple]:
    for odd in [*ODD, x.tolist(), x.numpy(), {"x": x}]:
        yield type(odd).__name__, "refuse", place(odd)
    yield "complex", "refuse", place(x.to(torch.complex64))
    if x.is_floating_point():
        yield "float64", "same", place(x.double()), place(x), 1e-3
        yield "float16", "same", place(x.half()), place(x.half().float()), 2e-2
        yield "bfloat16", "same", place(x.bfloat16()), place(x.bfloat16().float()), 5e-2
        yield from (("whole", "refuse", place((x * 10).to(kind))) for kind in (torch.int64, torch.uint8, torch.bool))
        for label, worth in (("zeros", 0.0), ("1e20", 1e20), ("1e-20", 1e-20)):
            yield label, "double", place(with_row(x, lambda row, worth=worth: row * worth))
        others = [place(with_row(x, lambda row, k=k: 0.3 + k * row.roll(1))) for k in (1.7, -0.6)]
        low = [place(with_row(x, lambda row, k=k: row * 0 - k)) for k in (1e12, 1e14)]
        yield "NaN", "depends", place(with_row(x, lambda row: row * torch.nan)), *others
        yield "-inf", "limit", place(with_row(x, lambda row: row * 0 - torch.inf)), *low
        if x.ndim > 1:
            others = [place(with_row(x.mT, lambda row, k=k: 0.3 + k * row.roll(1)).mT) for k in (1.7, -0.6)]
            yield "a column of NaN", "depends", place(with_row(x.mT, lambda row: row * torch.nan).mT), *others
    else:
        yield "float", "refuse", place(x.float())
        for kind in (torch.bool, torch.uint8, torch.int16, torch.int32, torch.int64):
            if kind != x.dtype:
                yield str(kind), "same", place(x.to(kind)), place(x), 1e-5
        for worth in {torch.bool: (0, 1), torch.uint8: (0, 1, 255)}.get(x.dtype, (-1, 0, 1, 1000)):
            yield f"a row of {worth}", "double", place(with_row(x, lambda row, worth=worth: row * 0 + worth))
            yield f"all {worth}", "double", place(torch.full_like(x, worth))
    declared = declared_by(ready(name)[0]).get(argument)
    options = [len(option.split()) for option in letters_of(declared).split(" / ")] if declared else [x.ndim]
    for bad in (x.unsqueeze(0), x[0], x.unsqueeze(0).unsqueeze(0), x.flatten()[0]):
        yield f"shape {tuple(bad.shape)}", "double" if bad.ndim in options else "refuse", place(bad)
    for i, n in enumerate(x.shape):
        rule = "refuse" if fixed(name, argument, x, i) else "double"
        for label, bad in [("one more", torch.cat([x, x.narrow(i, 0, 1)], i)), ("one fewer", x.narrow(i, 0, n - 1)),
                           ("none", x.narrow(i, 0, 0)), ("one", x.narrow(i, 0, 1))]:
            if bad.shape[i] != n:
                yield f"{label} in dimension {i}", rule, place(bad)


def with_row(x: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """A copy whose first row is another one."""
    x = x.clone()
    x[0] = change(x[0])
    return x


def fixed(name: str, argument: str, x: Tensor, i: int) -> bool:
    """Does another argument, or the owner, fix the size of dimension i?"""
    free = FREE.get(f"{name}.{argument}", FREE.get(argument))
    if free is not None:
        return i not in free
    call, arguments = ready(name)
    declared = {key: text for key, text in declared_by(call).items() if arguments.get(key) is not None}
    if argument not in declared:
        return True
    own = [option for option in map(str.split, letters_of(declared[argument]).split(" / ")) if len(option) == x.ndim]
    every = " ".join(letters_of(text) for text in declared.values()).replace("*", " ").split()
    return own[0][i].isdecimal() or every.count(own[0][i].split("*")[-1]) > 1 or "*[" in declared[argument]


def of_number(argument: str, good: float) -> Iterator[tuple]:
    for x in (np.float64(good), np.float32(good), torch.tensor(good)):
        yield type(x).__name__, "equal", x, good, 1e-5
    for x in (torch.nan, torch.inf, -torch.inf, "1", [good], {"x": 1}, True, object(), np.ones(2), torch.ones(2)):
        yield repr(x), "refuse", x
    for x in (0, 0.0, -1.0, 1e-20, 1e20):
        yield repr(x), "any", x


def of_whole_number(good: int) -> Iterator[tuple]:
    for x in (np.int64(good), np.int32(good), np.array(good), torch.tensor(good)):
        yield type(x).__name__, "equal", x, good, 1e-6
    for x in (2.5, float(good), "3", True, torch.nan, {"x": 1}, object(), np.array([2.5]), torch.tensor([True])):
        yield repr(x), "refuse", x
    for x in (0, -1, 1, [good]):
        yield repr(x), "any", x


def of_whole_numbers(good: list[int]) -> Iterator[tuple]:
    for x in (tuple(good), [np.int64(n) for n in good], [torch.tensor(n) for n in good]):
        yield f"{type(x).__name__} of {type(x[0]).__name__}", "equal", x, good, 1e-6
    for x in ([], good[:1], dict(enumerate(good)), "66", 6, object(), iter(good), [*good[1:], None], [*good[1:], 2.5],
              [*good[1:], 0], [*good[1:], -1]):
        yield repr(x), "refuse", x
    for x in (good[:-1], [*good, 3], [1] * len(good), np.array(good), torch.tensor(good)):
        yield repr(x), "any", x


def of_tensors(name: str, argument: str, good: list[Tensor]) -> Iterator[tuple]:
    any_number = name == "product_of_experts" or ("ttention" in name and "Multimodal" not in name)
    yield "tuple", "equal", tuple(good), good, 1e-6
    yield "float64", "same", [x.double() for x in good], good, 1e-3
    yield "float16", "same", [x.half() for x in good], [x.half().float() for x in good], 2e-2
    for label, x in [("empty", []), ("dict", dict(enumerate(good))), ("stacked", torch.stack(good)), ("text", "text"),
                     ("number", 3), ("object", object()), ("iterator", iter(good)),
                     ("arrays", [x.numpy() for x in good])]:
        yield label, "refuse", x
    for label, x in [("one", good[:1]), ("short", good[:-1]), ("long", [*good, good[0]])]:
        yield label, "double" if any_number else "refuse", x
    for i in (0, len(good) - 1):
        for label, rule, *values in [("None", "refuse", [*good[:i], None, *good[i + 1:]]), *of_tensor(
                name, argument, good[i], lambda x, i=i: [*good[:i], x, *good[i + 1:]])]:
            yield f"{label} in [{i}]", rule, *values


def of_texts(name: str, argument: str, good: list[str]) -> Iterator[tuple]:
    yield "tuple", "equal", tuple(good), good, 1e-6
    if argument != "tiny":  # which only error messages name
        for x in ("text", [], dict.fromkeys(good), 3, object(), [*good[1:], None], [*good[1:], 3], [*good[1:], b"x"],
                  [*good[1:], ""]):
            yield repr(x), "refuse", x
        for x in (good[:1], [*good, good[0]]):
            yield f"{len(x)} texts", "refuse" if argument in {"names", "languages"} else "any", x


# -- and all of it is tried --------------------------------------------------------------------------------------------

CASES = [(name, argument) for name in GOOD for argument in ready(name)[1]]


def tries_of(name: str, argument: str) -> list[tuple]:
    call, good = ready(name)
    function = call.forward if isinstance(call, nn.Module) else call
    parameter = inspect.signature(function).parameters.get(argument)  # `losses(**batch)` names none
    optional = argument in OPTIONAL if parameter is None else parameter.default is None
    return list(tries(name, argument, good[argument], optional))


@pytest.mark.parametrize(("name", "argument"), CASES)
def test_what_is_nearly_right_is_right_or_refused_with_nothing_changed(name: str, argument: str) -> None:
    wrong = []
    for label, rule, *values in tries_of(name, argument):
        found = judged(name, argument, label, rule, *values)
        wrong += [f"{label}: {found}"] * bool(found)
    assert not wrong, "\n".join(wrong)


def test_the_border_is_tried_by_thousands_of_cases() -> None:
    assert sum(len(tries_of(*case)) for case in CASES) > 5000
