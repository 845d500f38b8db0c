"""别人遇到过的错，一类一类 / Faults that others met, by kind: each with its smallest case, and what is right.

A kind is tried in every place that can have it: the places are the good calls of tests/mmcore/test_border.py.
"""

import math
from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mmcore
from mmcore.alignment import contrastive_loss, cosine_similarity
from mmcore.encoders import TextEncoder, VisualEncoder
from mmcore.fusion import CANDIDATES, MultimodalFusion, MultimodalFusionTrainer, product_of_experts
from mmcore.ranking import accuracy
from mmcore.training import make_optimizer, train_on
from tests.mmcore.test_border import GOOD, differs, numbers_of, run
from tests.mmcore.test_misuse import aligning, floats, fusing, seeing
from tests.support import OnMPS, same, state

COMPUTED = [name for name in GOOD if any(isinstance(x, Tensor | list) for x in GOOD[name]()[1].values())
            and name not in {"EarlyFusion", "MultimodalFusion", "build_tokenizer"}]
ALIGNMENT = ["contrastive_loss", "feature_alignment_loss", "semantic_similarity", "semantic_alignment_loss",
             "sigmoid_loss", "modality_gap", "cosine_similarity", "AlignmentLoss.forward"]


# -- float64 on a device that has none ---------------------------------------------------------------------------------

def on_mps(x: object) -> object:
    if isinstance(x, list):
        return [on_mps(each) for each in x]
    return x.as_subclass(OnMPS) if isinstance(x, Tensor) else x


@pytest.mark.parametrize("name", COMPUTED)
def test_float64_on_a_device_that_has_none_every_formula_and_trainer_gives_what_the_cpu_gives(name: str) -> None:
    call, arguments = GOOD[name]()
    wanted = run(call, arguments)
    call, arguments = GOOD[name]()
    assert not differs(run(call, {key: on_mps(x) for key, x in arguments.items()}), wanted, 1e-6)


def test_float64_on_a_device_that_has_none_the_stand_in_refuses_it() -> None:
    for make in (lambda x: x.double(), lambda x: x.to(torch.float64), lambda x: x.sum(dtype=torch.float64),
                 lambda x: torch.add(x, torch.ones(2, dtype=torch.float64))):
        with pytest.raises(TypeError, match="MPS has no float64"):
            make(torch.ones(2).as_subclass(OnMPS))
    assert torch.ones(2).as_subclass(OnMPS).cpu().double().dtype == torch.float64


def test_float64_that_cannot_be_moved_to_the_device_gets_the_error_of_the_border(monkeypatch) -> None:
    trainer, _, good = aligning()
    moved = Tensor.to

    def to(x: Tensor, *where: object, **how: object) -> Tensor:
        if x.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return moved(x, *where, **how)

    monkeypatch.setattr(Tensor, "to", to)
    with pytest.raises(TypeError, match=r"features_A must be torch.float32, got torch.float64; use features_A.to\("):
        trainer.train_step(**good | {"features_A": good["features_A"].double()})


# -- a mode chosen by the user is overruled ----------------------------------------------------------------------------

def frozen_fusion() -> tuple[nn.Module, Callable]:
    encoders = [VisualEncoder(8), nn.Linear(4, 6)]
    trainer = MultimodalFusionTrainer(MultimodalFusion([8, 6], 5), "cpu", num_classes=2, encoders=encoders)
    image, x, y = torch.rand(4, 3, 32, 32), torch.randn(4, 4), torch.tensor([0, 1, 0, 1])
    return encoders[0], lambda: trainer.train_step([image, x], y)


def frozen_vlm(part: str) -> Callable:
    def make() -> tuple[nn.Module, Callable]:
        trainer, model, batch = seeing()
        return getattr(model, part), lambda: trainer.train_step(**batch)
    return make


def frozen_layer() -> tuple[nn.Module, Callable]:
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))
    optimizer, x = make_optimizer(net, 0.1, 0.1), torch.randn(4, 3) + 2
    return net[0], lambda: train_on(net, optimizer, lambda: {"total_loss": net(x).square().mean()})


@pytest.mark.parametrize("make", [frozen_fusion, frozen_vlm("visual_encoder"), frozen_vlm("text_encoder"),
                                  frozen_layer])
def test_a_mode_chosen_by_the_user_is_kept_a_frozen_encoder_stays_what_it_was(make: Callable) -> None:
    torch.manual_seed(0)
    frozen, step = make()
    frozen.eval().requires_grad_(False)
    before = state(frozen)
    first = [step() for _ in range(20)]
    assert same(frozen, before)  # running means and variances among it
    assert not any(module.training for module in frozen.modules())
    assert first[-1]["total_loss"] < first[0]["total_loss"]  # the rest learns


@pytest.mark.parametrize("make", [fusing, aligning, seeing])
def test_a_mode_chosen_by_the_user_is_kept_what_was_training_goes_on_after_an_evaluation(make: Callable) -> None:
    trainer, learned, good = make()
    evaluate = getattr(trainer, {"MultimodalFusionTrainer": "evaluate", "CrossModalAligner": "align_features",
                                 "VLMTrainer": "losses"}[type(trainer).__name__])
    evaluate(**good)
    assert all(module.training for module in learned.modules())
    trainer.train_step(**good)
    assert all(module.training for module in learned.modules())


# -- a score for what cannot be scored ---------------------------------------------------------------------------------

@pytest.mark.parametrize("worth", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["train_step", "evaluate", "fuse"])
def test_a_score_for_what_cannot_be_scored_a_column_without_numbers_is_refused_with_its_modality(name: str,
                                                                                                 worth: float) -> None:
    trainer, learned, good = fusing()
    before = state(learned)
    good["features"] = [x.clone() for x in good["features"]]
    good["features"][1][:, 2] = worth
    if name == "fuse":
        del good["targets"]
    with pytest.raises(ValueError, match=r"features\[1\] 里有 NaN 或无穷.* / features\[1\] holds NaN or infinity"):
        getattr(trainer, name)(**good)
    assert same(learned, before)


@pytest.mark.parametrize("name", ["train_step", "align_features", "compute_alignment_score"])
def test_a_score_for_what_cannot_be_scored_an_aligner_names_the_side(name: str) -> None:
    trainer, _, good = aligning()
    good["features_B"] = good["features_B"].clone()
    good["features_B"][0, 0] = -torch.inf
    with pytest.raises(ValueError, match="features_B holds NaN or infinity"):
        getattr(trainer, name)(**good)


def test_a_score_for_what_cannot_be_scored_features_that_overflow_inside_are_no_class_0() -> None:
    trainer, _, good = fusing()
    with torch.no_grad():
        trainer.head.weight.fill_(3e38)
    with pytest.raises(ValueError, match="S holds NaN and cannot be ranked"):
        trainer.evaluate(good["features"], torch.zeros(4, dtype=torch.int64))


def test_a_score_for_what_cannot_be_scored_ties_are_misses_as_in_ranks() -> None:
    trainer, _, good = fusing()  # its head is all zeros: every class scores alike
    assert set(trainer.evaluate(good["features"], torch.zeros(4, dtype=torch.int64)).values()) == {0.0}
    scores = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.2, 0.1]])
    assert accuracy(scores, torch.tensor([0, 1, 0, 1])) == 0.5
    with pytest.raises(ValueError, match="S holds NaN"):
        accuracy(scores * torch.nan, torch.tensor([0, 1, 0, 1]))


@pytest.mark.parametrize("name", ["generate", "search"])
def test_a_score_for_what_cannot_be_scored_no_token_is_chosen_from_nan(name: str) -> None:
    decoder = mmcore.CausalDecoder(9, 6, width=8)
    h = floats(2, 6)
    h[1, 0] = torch.nan
    with pytest.raises(ValueError, match="holds NaN and cannot be ranked"):
        getattr(decoder, name)(h, torch.tensor([0, 1]))


@pytest.mark.parametrize("temperature", [1e-20, 1e-40, 1e-300])
def test_at_the_edge_of_a_value_a_very_low_temperature_writes_as_greedily_as_none(temperature: float) -> None:
    decoder = mmcore.CausalDecoder(9, 6, width=8)
    h, which = floats(3, 6), torch.tensor([0, 1, 0])
    cold = decoder.generate(h, which, temperature, torch.Generator().manual_seed(0))
    assert all(map(torch.equal, cold, decoder.generate(h, which)))


# -- torch's own error reaches the reader (every other case: test_border.py) -------------------------------------------

@pytest.mark.parametrize(("call", "match"), [
    (lambda: VisualEncoder(8)(torch.from_numpy(np.zeros((2, 3, 32, 32)))),
     r"image must be torch.float32, got torch.float64; use image.to\(torch.float32\)"),
    (lambda: contrastive_loss(floats(3, 4), np.ones((3, 4)), 0.1), "b must be a tensor, got ndarray"),
    (lambda: MultimodalFusion([3, 3], 4)([floats(2, 3), None]), r"features\[1\] must be a tensor, got NoneType"),
    (lambda: fusing()[0].evaluate([*fusing()[2]["features"][:2], None], torch.zeros(4).long()),
     r"features\[2\] must be a tensor, got NoneType"),
    (lambda: MultimodalFusion([3, 3], 4)({0: floats(2, 3), 1: floats(2, 3)}), "features must be a list"),
    (lambda: mmcore.generation_loss(torch.zeros(1, 2, 9), torch.tensor([[9, 4, 9]])),
     "tokens must be int64 classes .* 8$"),
])
def test_torch_s_own_error_does_not_reach_the_reader(call: Callable, match: str) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        call()


@pytest.mark.parametrize("count", [np.array([0, 2, 1]).max() + 1, torch.tensor([0, 2, 1]).max() + 1])
def test_a_whole_number_of_numpy_or_torch_is_a_number_of_classes(count: object) -> None:
    trainer = MultimodalFusionTrainer(MultimodalFusion([6] * 3, 5), "cpu", num_classes=count)
    assert trainer.head.out_features == 3
    assert type(trainer.num_classes) is int


def test_no_device_of_that_name() -> None:
    with pytest.raises(ValueError, match=r"没有 nonsense 这个设备.* / there is no device nonsense here"):
        MultimodalFusionTrainer(MultimodalFusion([6] * 3, 5), "nonsense", num_classes=3)


# -- a wrong number, silently, at the edge of a size or a value --------------------------------------------------------

@pytest.mark.parametrize(("make", "least"), [
    (lambda n: MultimodalFusion([30, 20, 10], output_dim=n), 3),
    (lambda n: mmcore.CausalDecoder(9, 6, width=n, heads=1), 3),
    (lambda n: mmcore.VisualLanguageModel(2, 8, decoder_width=n), 3),
    (lambda n: mmcore.CrossModalAlignment(6, projection_dim=n), 2),
    (lambda n: mmcore.VisualLanguageModel(2, feature_dim=n), 2)])
def test_at_the_edge_of_a_size_what_could_not_learn_is_refused(make: Callable, least: int) -> None:
    """Layer normalisation of one number is 0, and of two a sign; a cosine of one number is a sign."""
    for n in range(1, least):
        with pytest.raises(ValueError, match=f"must be at least {least}, got {n}"):
            make(n)


def test_at_the_edge_of_a_size_the_narrowest_fusion_learns() -> None:
    torch.manual_seed(0)
    model = MultimodalFusion([30, 20, 10], output_dim=3)
    out = model([torch.randn(5, d) for d in (30, 20, 10)])
    for name in CANDIDATES:
        loss = out[name].pow(3).sum()
        gradients = torch.autograd.grad(loss, model.parameters(), retain_graph=True, allow_unused=True)
        assert max(g.abs().max() for g in gradients if g is not None) > 1e-3
        assert out[name].std() > 0.01


def test_at_the_edge_of_a_value_experts_who_are_certain_and_disagree_are_refused_and_prior_0_stays_0() -> None:
    sure, other = torch.tensor([[1.0, 0.0, 0.0]]).log(), torch.tensor([[0.0, 1.0, 0.0]]).log()
    even = torch.full((3,), 1 / 3).log()
    assert product_of_experts([sure, sure], even).exp().tolist() == [[1, 0, 0]]
    with pytest.raises(ValueError, match="each expert is certain of another class"):
        product_of_experts([torch.cat([sure, sure]), torch.cat([sure, other])], even)
    prior = torch.tensor([0.5, 0.5, 0.0]).log()
    p = product_of_experts([torch.tensor([[0.7, 0.3, 0.0]]).log(), torch.tensor([[0.6, 0.4, 0.0]]).log()], prior).exp()
    assert p.tolist()[0] == pytest.approx([0.42 / 0.54, 0.12 / 0.54, 0])  # .78, .22, 0
    with pytest.raises(ValueError, match="class of prior 0"):
        product_of_experts([even.unsqueeze(0), even.unsqueeze(0)], prior)


@pytest.mark.parametrize("scale", [1e20, 1e-20, 1e30, 1e-30])
def test_at_the_edge_of_a_value_a_cosine_does_not_depend_on_lengths_whose_squares_overflow(scale: float) -> None:
    a, b = floats(5, 4), floats(5, 4).roll(1) + 0.1
    assert torch.allclose(cosine_similarity(a * scale, b), cosine_similarity(a, b), atol=1e-5)
    for name in ("contrastive_loss", "feature_alignment_loss", "modality_gap", "sigmoid_loss"):
        more = {"contrastive_loss": (0.1,), "sigmoid_loss": (0.1, -1.0)}.get(name, ())
        loss = getattr(mmcore, name)
        assert loss(a, b * scale, *more).item() == pytest.approx(loss(a, b, *more).item(), rel=1e-4)


def test_at_the_edge_of_a_value_layer_normalisation_does_not_make_zeros_of_a_long_row() -> None:
    torch.manual_seed(0)
    model, x = MultimodalFusion([3, 3], 4), [torch.randn(2, 3), torch.randn(2, 3)]
    long = [1e20 * x[0], x[1]]
    wanted = deepcopy(model).double()([f_i.double() for f_i in long])["f_1"]
    assert torch.allclose(model(long)["f_1"].double(), wanted, atol=1e-4)
    assert wanted.abs().max() > 0.5


def test_at_the_edge_of_a_value_a_decoder_reads_a_feature_whose_square_overflows() -> None:
    torch.manual_seed(0)
    decoder, h, tokens = mmcore.CausalDecoder(9, 6, width=8), 1e20 * floats(2, 6), torch.tensor([[9, 4], [10, 3]])
    wanted = deepcopy(decoder).double()(h.double(), tokens)
    assert torch.allclose(decoder(h, tokens).double(), wanted, atol=1e-4)
    assert not torch.allclose(decoder(0 * h, tokens).double(), wanted, atol=0.01)


def test_at_the_edge_of_a_value_a_picture_far_out_of_range_is_refused_and_not_taken_for_a_blank_one() -> None:
    with pytest.raises(ValueError, match="image 的值需要在 0 到 1 之间 / image must hold values from 0 to 1"):
        VisualEncoder(8)(1e20 * torch.rand(2, 3, 32, 32))


@pytest.mark.parametrize("score", [mmcore.retrieval_scores, lambda S: accuracy(S, torch.zeros(0).long())])
def test_at_the_edge_of_a_size_the_score_of_nothing_is_refused(score: Callable) -> None:
    with pytest.raises(ValueError, match="expected at least 1"):
        score(torch.ones(0, 0))


# -- two computations of one thing that disagree -----------------------------------------------------------------------

@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ALIGNMENT)
def test_two_computations_of_one_thing_agree_autocast_leaves_2_1_to_2_4_in_float32(name: str,
                                                                                   kind: torch.dtype) -> None:
    call, arguments = GOOD[name]()
    wanted = run(call, arguments)
    with torch.autocast("cpu", dtype=kind):
        got = run(call, arguments)
        half = run(call, {key: x.to(kind) if isinstance(x, Tensor) and x.is_floating_point() and key != "y" else x
                          for key, x in arguments.items()})
    assert all(map(np.array_equal, numbers_of(got), numbers_of(wanted)))
    outputs = [x for out in (got, half) for x in (out.values() if isinstance(out, dict) else [out])]
    assert {x.dtype for x in outputs} == {torch.float32}
    assert not differs(half, wanted, 5e-2)


@pytest.mark.parametrize("name", COMPUTED)
def test_two_computations_of_one_thing_agree_autocast_changes_rounding_only(name: str) -> None:
    call, arguments = GOOD[name]()
    wanted = run(call, arguments)
    call, arguments = GOOD[name]()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = run(call, arguments)
    if not name.endswith(("generate", "write", "words", "spell")):  # what is drawn may fall on the other side
        assert not differs(got, wanted, 0.1)


def test_two_computations_of_one_thing_agree_autocast_does_not_mix_float64_with_others() -> None:
    refused = pytest.raises(TypeError, match=r"b must be torch\.float32, got torch\.float64")
    with torch.autocast("cpu", dtype=torch.bfloat16), refused:
        cosine_similarity(floats(3, 4), floats(3, 4).double())


def test_text_features_of_an_encoder_in_double_precision_are_those_of_single() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(feature_dim=8).eval()
    given = encoder.tokenize(["red apple", "水果"])
    assert torch.allclose(deepcopy(encoder).double()(**given).float(), encoder(**given), atol=1e-5)
    assert math.isfinite(encoder(**given).sum().item())
