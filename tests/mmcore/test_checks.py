"""入口的检查 / The border: what it lets through, what it refuses and how, and that it never waits for a value."""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

import mmcore
from mmcore import attention, checks, fusion, recurrence, vision_language
from mmcore.checks import fits, shapes


@shapes(a="N D", b="M D", c="3*M", s="scalar", positives="bool N M", least={"N": 2, "D": 1})
def products(a: Tensor, b: Tensor, c: Tensor | None = None, s: float = 1.0, positives: Tensor | None = None) -> Tensor:
    return s * (a @ b.T)


@shapes(w="M / B M", features="M*[B D]", labels="int64 B", ids="int B L", least={"M": 2})
def listed(features: list[Tensor], w: Tensor, labels: Tensor | None = None, ids: Tensor | None = None) -> int:
    return len(features)


class Holder:
    widths, kind, none = (3, 5), torch.zeros(1), None

    @shapes(own="M=widths D_i=widths T=none", like="kind", features="M*[B D_i]", f="T B")
    def take(self, features: list[Tensor], f: Tensor | None = None) -> int:
        return len(features)


A, B_, F2 = torch.ones(4, 3), torch.ones(2, 3), [torch.ones(4, 3), torch.ones(4, 3)]
W2 = torch.ones(2)


@pytest.mark.parametrize("call", [
    lambda: products(A, B_), lambda: products(A, b=B_), lambda: products(b=B_, a=A),
    lambda: products(A, B_, torch.ones(6), torch.tensor(2.0)), lambda: products(A, B_, None, 2),
    lambda: products(A, B_, s=np.float32(2)), lambda: products(A, B_, positives=torch.ones(4, 2, dtype=torch.bool)),
    lambda: products(A.double(), B_.double()), lambda: products(A.half(), B_.half()),
    lambda: listed(F2, W2), lambda: listed(tuple(F2), torch.ones(4, 2)),
    lambda: listed(F2, W2, torch.arange(4), torch.ones(4, 7, dtype=torch.int32)),
    lambda: Holder().take([torch.ones(4, 3), torch.ones(4, 5)]),
    lambda: Holder().take([torch.ones(4, 3), torch.ones(4, 5)], torch.ones(9, 4)),
])
def test_what_fits_passes(call: Callable) -> None:
    call()


@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda: products([[1.0]], B_), TypeError,
     r"a 需要是张量，收到 list；请用 torch.tensor\(a\) / a must be a tensor, got list; use torch.tensor\(a\)$"),
    (lambda: products(np.ones((2, 3)), B_), TypeError, r"got ndarray; use torch.from_numpy\(a\)$"),
    (lambda: products(A, None), TypeError, r"b must be a tensor, got NoneType$"),
    (lambda: products(A.long(), B_), TypeError, r"a must be a floating-point tensor, got torch.int64; use a.fl"),
    (lambda: products(A, B_.int()), TypeError, r"b must be a floating-point tensor, got torch.int32; use b.float\(\)$"),
    (lambda: products(A + 0j, B_), TypeError, "a must be a floating-point tensor, got torch.complex64$"),
    (lambda: products(A, B_.double()), TypeError,
     r"b 需要是 torch.float32，收到 torch.float64.* / b must be torch.float32, got torch.float64; use b.to\(torch"),
    (lambda: products(A, B_.to("meta")), ValueError, r"b 需要在 cpu 上，收到 meta.* / b must be on cpu, got meta"),
    (lambda: products(A, B_, positives=torch.ones(4, 2, device="meta").bool()), ValueError, "positives must be on cpu"),
    (lambda: products(A, torch.ones(2, 4)), ValueError,
     r"b 需要形状 \(2, 3\)，收到 \(2, 4\) / b must have shape \(2, 3\), got \(2, 4\)$"),
    (lambda: products(torch.ones(3), B_), ValueError, r"a must have shape \(N, D\), got \(3\)$"),
    (lambda: products(A, B_, torch.ones(5)), ValueError, r"c must have shape \(6\), got \(5\)$"),
    (lambda: products(A, B_, torch.ones(9)), ValueError, r"c must have shape \(6\), got \(9\)$"),
    (lambda: products(A, B_, s="1"), TypeError, "s must be one number, got str '1'$"),
    (lambda: products(A, B_, s=True), TypeError, "s must be one number, got bool True$"),
    (lambda: products(A, B_, s=float("nan")), ValueError, "s 需要有限，收到 nan / s must be finite, got nan$"),
    (lambda: products(A, B_, s=torch.ones(1)), ValueError, r"s must have shape \(\), got \(1\)$"),
    (lambda: products(A, B_, s=torch.tensor(1)), TypeError, "s must be a floating-point tensor"),
    (lambda: products(A, B_, positives=torch.ones(4, 2)), TypeError,
     "positives 需要是布尔张量，收到 torch.float32 / positives must be a boolean tensor, got torch.float32$"),
    (lambda: products(A[:1], B_), ValueError, "需要至少 2 对，收到 1 对 / expected at least 2 pairs, got 1$"),
    (lambda: products(A[:, :0], B_[:, :0]), ValueError, "expected at least 1 dimensions, got 0$"),
    (lambda: listed(torch.ones(2, 4, 3), W2), TypeError, "features must be a list, one tensor for each modality, got"),
    (lambda: listed(F2[:1], W2), ValueError, "需要 2 个模态，收到 1 个 / expected 2 modalities, got 1$"),
    (lambda: listed(F2[:1], W2[:1]), ValueError, "expected at least 2 modalities, got 1$"),
    (lambda: listed(F2, torch.ones(5, 2)), ValueError, r"features\[0\] must have shape \(5, D\), got \(4, 3\)$"),
    (lambda: listed(F2, torch.ones(1, 1, 2)), ValueError, r"w must have shape \(M\) or \(B, M\), got \(1, 1, 2\)$"),
    (lambda: listed([A, A.double()], W2), TypeError, r"features\[1\] must be torch.float32, got torch.float64"),
    (lambda: listed(F2, W2, torch.ones(4).int()), TypeError, "labels must be an int64 tensor, got torch.int32$"),
    (lambda: listed(F2, W2, None, torch.ones(4, 7)), TypeError, "ids must be an integer tensor, got torch.float32$"),
    (lambda: Holder().take([A, A]), ValueError, r"features\[1\] must have shape \(4, 5\), got \(4, 3\)$"),
    (lambda: Holder().take([A]), ValueError, "expected 2 modalities, got 1$"),
    (lambda: Holder().take([A.double(), A.double()]), TypeError, r"features\[0\] must be torch.float32"),
    (lambda: fits(A, "A", "4 H", H=5), ValueError, r"A must have shape \(4, 5\), got \(4, 3\)$"),
    (lambda: fits(A, "A", "B H", A.double()), TypeError, "A must be torch.float64"),
])
def test_what_does_not_fit_is_refused_by_name_in_both_languages(call: Callable, error: type, match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        call()
    zh, slash, en = str(caught.value).partition(" / ")
    assert slash
    assert re.search(r"[\u3400-\u9fff]", zh)
    assert re.search("[a-z]{3,}", en)


def test_what_is_missing_is_left_to_python() -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'b'"):
        products(A)


def test_under_autocast_floating_types_may_differ_but_whole_numbers_may_not() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        products(A, B_.bfloat16())
        with pytest.raises(TypeError, match="b must be a floating-point tensor"):
            products(A, B_.long())


def test_a_border_keeps_the_name_the_signature_and_the_body_of_what_it_guards() -> None:
    assert products.__name__ == "products"
    assert list(inspect.signature(products).parameters) == ["a", "b", "c", "s", "positives"]
    assert torch.equal(products.__wrapped__(A, B_), products(A, B_))
    assert products.shapes["b"] == "M D"


# -- single values ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("x", [3, np.int64(3), np.array(3), torch.tensor(3), torch.tensor(3, dtype=torch.uint8)])
def test_a_whole_number_of_any_kind_becomes_one_of_python(x: object) -> None:
    assert type(checks.whole(x, "n")) is int
    assert checks.whole(x, "n", least=3) == 3
    assert type(mmcore.EarlyFusion([x, x], x, x).feature_dims[1]) is int
    assert type(mmcore.CrossModalAlignment(x, x).projection_dim) is int


@pytest.mark.parametrize("x", [2.0, "2", True, None, [2], np.float64(2), np.bool_(True), np.array([2]),
                               torch.tensor(2.0), torch.tensor([2]), torch.tensor(True), torch.tensor(2 + 0j)])
def test_what_is_no_whole_number_is_refused(x: object) -> None:
    with pytest.raises(TypeError, match=r"n 需要是整数，收到 .* / n must be a whole number, got "):
        checks.whole(x, "n")


@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda: checks.whole(0, "n"), ValueError, "n 需要至少为 1，收到 0 / n must be at least 1, got 0$"),
    (lambda: checks.index(3, "i", 3), ValueError, "i 需要小于 3，收到 3 / i must be below 3, got 3$"),
    (lambda: checks.index(-1, "i", 3), ValueError, "i must be at least 0, got -1$"),
    (lambda: checks.positive(0, "x"), ValueError, "大于 0 且有限，收到 0 / x must be positive and finite, got 0$"),
    (lambda: checks.positive(float("inf"), "x"), ValueError, "positive and finite, got inf$"),
    (lambda: checks.positive(torch.ones(2), "x"), TypeError, r"x must be one number, got tensor \(2\)$"),
    (lambda: checks.number(float("-inf"), "x"), ValueError, "x must be finite, got -inf$"),
    (lambda: checks.number("x" * 200, "x"), TypeError, "x must be one number, got str 'x{75}$"),
    (lambda: checks.not_negative(-0.1, "x"), ValueError, "x 不能小于 0，收到 -0.1 / x may not be below 0, got -0.1$"),
    (lambda: checks.share(1.1, "x"), ValueError, "x 需要在 0 到 1 之间，收到 1.1 / x must be from 0 to 1, got 1.1$"),
    (lambda: checks.share(-0.1, "x"), ValueError, "x must be from 0 to 1"),
    (lambda: checks.two_widths((1, 2, 3), "d"), ValueError, r"d must be one width or two, got \(1, 2, 3\)$"),
    (lambda: checks.widths([4], "d"), ValueError, r"d must list at least two widths, one for each .*, got \[4\]$"),
    (lambda: checks.widths([4, 0], "d"), ValueError, r"d\[1\] must be at least 1, got 0$"),
    (lambda: checks.one_of("c", "x", ("a", "b")), ValueError, "x 需要是 a, b 之一，收到 'c' / x must be one of a, b"),
    (lambda: checks.instance(3, "x", str), TypeError, "x 需要是 str，收到 int / x must be a str, got int$"),
    (lambda: checks.classes(torch.tensor([0, 3]), "y", 2, 3), ValueError, r"y must be int64 classes of shape \(2,\)"),
    (lambda: checks.classes(torch.tensor([-1, 2]), "y", 2, 3), ValueError, "between 0 and 2$"),
    (lambda: checks.classes(torch.tensor([0, 2]), "y", 3, 3), ValueError, r"of shape \(3,\)"),
    (lambda: checks.require(False, "不对", "wrong", KeyError), KeyError, "不对 / wrong"),
])
def test_a_single_value_that_does_not_fit_is_refused(call: Callable, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        call()


def test_a_single_value_that_fits_is_returned_as_a_python_number() -> None:
    assert checks.positive(torch.tensor([0.5]), "x") == 0.5
    assert checks.positive(np.float32(0.5), "x") == 0.5
    assert type(checks.positive(torch.tensor(2), "x")) is float
    assert (checks.number(-1, "x"), checks.not_negative(0, "x")) == (-1.0, 0.0)
    assert (checks.share(0, "x"), checks.share(1, "x")) == (0.0, 1.0)
    assert (checks.index(0, "i", 3), checks.index(2, "i", 3)) == (0, 2)
    assert checks.two_widths(4, "d") == (4, 4)
    assert checks.two_widths([4, 5], "d") == (4, 5)
    assert checks.widths([4, 5, 6], "d") == (4, 5, 6)
    assert checks.one_of("a", "x", ("a", "b")) == "a"
    checks.classes(torch.tensor([0, 2]), "y", 2, 3)
    checks.require(True, "", "")


# -- the border and the docstring say the same -------------------------------------------------------------------------

def bordered() -> Iterator[tuple[str, Callable, str]]:
    """(name, what has a border, the docstring that describes it) of every public callable in mmcore."""
    for info in pkgutil.iter_modules(mmcore.__path__, "mmcore."):
        for name, thing in vars(importlib.import_module(info.name)).items():
            if name.startswith("_") or getattr(thing, "__module__", None) != info.name:
                continue
            if hasattr(thing, "shapes"):
                yield name, thing, thing.__doc__
            for method, inner in vars(thing).items() if inspect.isclass(thing) else ():
                if hasattr(inner, "shapes"):
                    yield f"{name}.{method}", inner, f"{thing.__doc__}\n{inner.__doc__ or ''}"


def table(docstring: str) -> dict[str, str]:
    """What the table says of every name in code: {"W_f": "H, D", "f[:, t]": "B, D"}."""
    said, shaped = {}, False
    for line in docstring.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")]
        if "symbol" in cells[0]:  # the head of a table; some have no column of shapes
            shaped = "shape" in cells[2]
        elif shaped and line.strip().startswith("|") and len(cells) >= 4:
            names = re.findall("`([^`]+)`", cells[1])
            sizes = re.findall(r"\(([^()]*)\)|(scalar)", cells[2])
            if len(names) == len(sizes):
                said |= {name: (inside or word).rstrip(",") for name, (inside, word) in zip(names, sizes, strict=True)}
    return said


def after_index(declared: str, index: str) -> str:
    """ "B T D" seen through [:, t] is "B, D"; a list seen through [i] is one of it."""
    inside = re.fullmatch(r"\w+\*\[(.*)\]", declared)
    if inside:
        assert index, "the table of a list shows one of it"
        return ", ".join(inside[1].split())
    sizes = declared.split()[1:] if declared.split()[0] in checks.KINDS else declared.split()
    at = [part.strip() for part in index.split(",")] if index else []
    kept = [size for k, size in enumerate(sizes) if k >= len(at) or at[k] == ":"]
    return ", ".join(size.replace("*", " ") for size in kept)


def test_the_shapes_at_the_border_are_those_of_the_table_in_the_docstring() -> None:
    held = set()
    for name, thing, docstring in bordered():
        for written, said in table(docstring).items():
            argument, _, index = written.rstrip("]").partition("[")
            declared = thing.shapes.get(argument)
            if declared and not re.search("[+≥]", said):  # a border says neither sums nor lower limits
                assert said in {after_index(option, index) for option in declared.split(" / ")}, f"{name}: {written}"
                held.add((name, argument))
    assert {name for name, _ in held} >= {"late_fusion", "EarlyFusion.forward", "contrastive_loss", "recurrent_states"}
    assert len(held) > 30


# -- no look at a value -----------------------------------------------------------------------------------------------

def pure() -> dict[str, Callable[[], object]]:
    """The formulas that need no value; each makes its own modules and inputs."""
    def f(*shape: int) -> Tensor:
        return torch.randn(shape)

    several = lambda m, *shape: [f(*shape) for _ in range(m)]  # noqa: E731
    return {
        "cross_modal_fusion": lambda: vision_language.cross_modal_fusion(f(4, 3), f(4, 5), f(6, 3), f(6, 5), f(6)),
        "weighted_sum": lambda: fusion.weighted_sum(f(4, 3), several(3, 4, 6)),
        "attention": lambda: fusion.attention_fusion_weights(several(3, 4, 6), f(2, 6), f(2), f(2), torch.zeros(())),
        "gated": lambda: fusion.gated_fusion_weights(several(3, 4, 6), f(3, 6), f(3)),
        "adaptive": lambda: fusion.adaptive_fusion_weights(several(4, 4, 6), f(4, 24), f(4)),
        "EarlyFusion": lambda: fusion.EarlyFusion([6, 6], 4)(several(2, 4, 6)),
        "LateFusion": lambda: fusion.LateFusion(6, 2)(several(2, 4, 6)),
        "AttentionFusion": lambda: fusion.AttentionFusion(6)(several(2, 4, 6)),
        "GatedFusion": lambda: fusion.GatedFusion(6, 2)(several(2, 4, 6)),
        "MultimodalFusion": lambda: fusion.MultimodalFusion([6, 6], 4)(several(2, 4, 6))["f"],
        "mean_over_time": lambda: recurrence.mean_over_time(f(4, 5, 6)),
        "recurrent_states": lambda: recurrence.recurrent_states(f(4, 5, 6), f(9, 6), f(9, 3), f(9), f(3)),
        "temporal_attention": lambda: attention.TemporalAttention(6, 5, 2)(f(4, 5, 6)),
        "cell_attention": lambda: attention.CellAttention(6, 5, "attention")(f(4, 6), f(4, 5, 6)),
        "cell_gates": lambda: attention.CellAttention(6, 5)(f(4, 6), f(4, 5, 6)),
        "cosine_similarity": lambda: mmcore.cosine_similarity(f(4, 6), f(3, 6)),
        "semantic_similarity": lambda: mmcore.semantic_similarity(f(4, 6), f(3, 6)),
        "project": lambda: mmcore.CrossModalAlignment((6, 5), 3)(f(4, 6), f(2, 5))["similarity"],
    }


@pytest.mark.parametrize("name", pure())
def test_a_formula_that_needs_no_value_never_waits_for_one(name: str) -> None:
    with FakeTensorMode():  # raises on any look at a value
        assert pure()[name]().shape[0] in (2, 4)


def test_the_mode_that_holds_this_does_see_a_look() -> None:
    with FakeTensorMode(), pytest.raises(torch._subclasses.fake_tensor.DataDependentOutputException):
        mmcore.late_fusion([torch.ones(4, 3), torch.ones(4, 3)], torch.full((2,), 0.5))
