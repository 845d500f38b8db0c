"""(1.3) 跨模态融合、(1.4) 多任务损失，模型与训练器 / Cross-modal fusion, multi-task loss, the model and its trainer."""

import inspect
import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mmcore import tokens as text
from mmcore.alignment import contrastive_loss
from mmcore.decoder import generation_loss
from mmcore.training import brought, choose_device
from mmcore.vision_language import (
    LOSSES,
    CrossModalFusion,
    VisualLanguageModel,
    VLMTrainer,
    cross_modal_fusion,
    multitask_loss,
)
from tests import support as trained
from tests.notebooks.diagrams import computed_arrows
from tests.support import tensor

B, D_V, D_T, H = 3, 4, 5, 6
TOKENIZER = text.build_tokenizer(["red apple", "红苹果", "tree", "fruit", "水果"])
NAMES = text.build_tokenizer(["red apple", "红苹果", "tree", "树", "T-shirt", "king's ’"])
PAIRS = [(b, m) for b in ("resnet-tiny", "vit-tiny") for m in ("bert-tiny", "gpt-tiny")]


def parameters() -> tuple[Tensor, Tensor, Tensor]:
    return tensor(H, D_V, seed=1), tensor(H, D_T, seed=2), tensor(H, seed=3)


def same(x: Tensor, y: Tensor) -> bool:
    return x.shape == y.shape and torch.allclose(x, y, rtol=1e-10, atol=1e-12)


# -- (1.3) ------------------------------------------------------------------------------------------------------------

@pytest.mark.formula("1.3")
@pytest.mark.parametrize(("sigma", "by_hand"), [
    (None, lambda x: x * (1 + math.erf(x / math.sqrt(2))) / 2),
    (torch.tanh, math.tanh),
    (torch.relu, lambda x: max(x, 0.0)),
])
def test_1_3_equals_its_explicit_loops(sigma: Callable | None, by_hand: Callable[[float], float]) -> None:
    f_v, f_t, (W_v, W_t, b) = tensor(B, D_V, seed=8), tensor(B, D_T, seed=9), parameters()
    wanted = torch.zeros(B, H, dtype=torch.float64)
    for n in range(B):
        for k in range(H):
            total = float(b[k])
            total += sum(float(W_v[k, i]) * float(f_v[n, i]) for i in range(D_V))
            total += sum(float(W_t[k, i]) * float(f_t[n, i]) for i in range(D_T))
            wanted[n, k] = by_hand(total)
    given = {} if sigma is None else {"sigma": sigma}
    assert same(cross_modal_fusion(f_v, f_t, W_v, W_t, b, **given), wanted)
    module = CrossModalFusion((D_V, D_T), H, sigma).double()
    module.load_state_dict({"W_v": W_v, "W_t": W_t, "b": b})
    assert same(module(f_v, f_t), wanted)


def test_the_gradient_is_that_of_the_formula() -> None:
    leaves = [x.requires_grad_() for x in (tensor(2, D_V), tensor(2, D_T), *parameters())]
    assert torch.autograd.gradcheck(cross_modal_fusion, leaves)


def test_a_missing_modality_is_a_feature_of_zeros_row_by_row() -> None:
    module = CrossModalFusion((D_V, D_T), H).double()
    f_v, f_t = tensor(B, D_V), tensor(B, D_T)
    given = torch.tensor([True, False, True])
    mixed = module(f_v, f_t, image_given=given, text_given=~given)
    assert same(mixed[0:1], module(f_v[0:1], None))
    assert same(mixed[1:2], module(None, f_t[1:2]))
    assert same(module(f_v, None), module(f_v, torch.zeros_like(f_t)))


def test_a_fusion_keeps_the_spread_of_its_inputs_at_the_start() -> None:
    torch.manual_seed(0)
    module = CrossModalFusion((256, 128), 300, sigma=nn.Identity())
    assert module(torch.randn(500, 256), torch.randn(500, 128)).std().item() == pytest.approx(1, abs=0.05)


# -- (1.4) ------------------------------------------------------------------------------------------------------------

@pytest.mark.formula("1.4")
def test_1_4_equals_its_explicit_sum() -> None:
    """0.5 · 2 + 3 · 4 + 0 · 7 = 13."""
    assert multitask_loss(2.0, 4.0, 7.0, 0.5, 3.0, 0.0) == 13.0
    L, weights = [tensor(seed=i).abs() for i in range(3)], [0.3, 1.7, 2.5]
    total = 0.0
    for w, loss in zip(weights, L, strict=True):
        total += w * float(loss)
    assert multitask_loss(*L, *weights).item() == pytest.approx(total, rel=1e-12)


# -- the model --------------------------------------------------------------------------------------------------------

def make(backbone: str = "resnet-tiny", model_name: str = "bert-tiny", **options: object) -> VisualLanguageModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return VisualLanguageModel(4, 16, backbone, model_name, tokenizer=TOKENIZER, name_tokenizer=NAMES, **options)


def batch(model: VisualLanguageModel) -> dict[str, Tensor]:
    return {"image": torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
            **model.text_encoder.tokenize(["fruit", "水果", "tree", "red fruit"]),
            "labels": torch.tensor([0, 1, 2, 3]),
            "name_ids": model.name_tokens(["red apple", "红苹果", "tree", "树"], ["en", "zh", "en", "zh"])}


NAMED = ["f_v", "retrieval_v", "f_t", "retrieval_t", "h", "classification_logits", "generation_logits"]


@pytest.mark.parametrize(("backbone", "model_name"), PAIRS)
def test_all_four_pairs_of_encoders_give_all_named_tensors(backbone: str, model_name: str) -> None:
    model = make(backbone, model_name)
    given = batch(model)
    given.pop("labels")
    out = model(**given)
    length, vocabulary = given["name_ids"].shape[1] - 1, NAMES.get_vocab_size()
    assert {name: tuple(x.shape) for name, x in out.items()} == {
        "f_v": (4, 16), "retrieval_v": (4, 16), "f_t": (4, 16), "retrieval_t": (4, 16), "h": (4, 16),
        "classification_logits": (4, 4), "generation_logits": (4, length, vocabulary)}


@pytest.mark.parametrize(("backbone", "model_name"), PAIRS)
def test_no_parameter_is_without_a_gradient(backbone: str, model_name: str) -> None:
    """缺陷 5：检索头、生成头从没有梯度 / Fault 5: the heads of retrieval and generation never got a gradient."""
    model = make(backbone, model_name)
    trainer = VLMTrainer(model, "cpu", lr=1e-9)
    trainer.train_step(**batch(model))
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_the_diagram_of_the_model_is_its_computation() -> None:
    """f_v 与 f_t（不是 h）去检索，h 去分类与生成 / f_v and f_t, not h, go to retrieval; h to the other two tasks."""
    model = make()
    trainer = VLMTrainer(model, "cpu")
    given = batch(model)
    arrows = computed_arrows(lambda **inputs: trainer.losses(**inputs), given)
    assert arrows == {
        ("image", "f_v"), ("input_ids", "f_t"), ("attention_mask", "f_t"), ("f_v", "h"), ("f_t", "h"),
        ("h", "classification_logits"), ("f_v", "retrieval_v"), ("f_t", "retrieval_t"), ("h", "generation_logits"),
        ("name_ids", "generation_logits"), ("classification_logits", "classification_loss"),
        ("labels", "classification_loss"), ("retrieval_v", "retrieval_loss"), ("retrieval_t", "retrieval_loss"),
        ("generation_logits", "generation_loss"), ("name_ids", "generation_loss"),
        ("classification_loss", "total_loss"), ("retrieval_loss", "total_loss"), ("generation_loss", "total_loss")}


def test_the_named_tensors_are_those_of_the_formulas() -> None:
    model = make().eval()
    given = batch(model)
    given.pop("labels")
    out = model(**given)
    assert torch.equal(out["f_v"], model.visual_encoder(given["image"]))
    assert torch.equal(out["f_t"], model.text_encoder(given["input_ids"], given["attention_mask"]))
    assert torch.allclose(out["h"], cross_modal_fusion(out["f_v"], out["f_t"], model.fusion.W_v, model.fusion.W_t,
                                                       model.fusion.b))
    assert torch.equal(out["classification_logits"], model.classifier(out["h"]))
    assert torch.equal(out["generation_logits"], model.generation_head(out["h"], given["name_ids"][:, :-1]))
    assert torch.equal(out["retrieval_v"], out["f_v"])  # the projections start as the identity
    assert torch.equal(out["retrieval_t"], out["f_t"])


def test_one_modality_leaves_the_other_out_and_a_hidden_row_keeps_its_feature() -> None:
    model = make().eval()
    given = batch(model)
    words = {name: given[name] for name in ("input_ids", "attention_mask")}
    picture, phrase, both = model(given["image"]), model(**words), model(given["image"], **words)
    assert list(picture) == ["f_v", "retrieval_v", "h", "classification_logits"]
    assert list(phrase) == ["f_t", "retrieval_t", "h", "classification_logits"]
    seen = torch.tensor([True, False, True, False])
    mixed = model(given["image"], **words, image_given=seen, text_given=~seen)
    assert torch.allclose(mixed["h"], torch.where(seen.unsqueeze(1), picture["h"], phrase["h"]), atol=1e-5)
    for name in ("f_v", "f_t", "retrieval_v", "retrieval_t"):
        assert torch.equal(mixed[name], both[name])


def test_a_name_becomes_tokens_and_comes_back_in_its_language() -> None:
    model = make()
    ids = model.name_tokens(["red apple", "红苹果", "T-shirt"], ["en", "zh", "en"])
    size = model.generation_head.vocabulary
    assert ids[:, 0].tolist() == [size + 1, size, size + 1]  # the language is the start token
    assert [model.spell(row[1:]) for row in ids] == ["red apple", "红苹果", "t-shirt"]
    assert model.words(ids[1, 1:]) == ["红", "苹", "果"]
    end = NAMES.token_to_id(text.SEP)
    assert [row.tolist().count(end) for row in ids] == [1, 1, 1]


def test_spelling_joins_chinese_to_what_stands_beside_it_and_english_at_hyphens_and_apostrophes() -> None:
    model = make()
    names = ["red 红 苹果 tree apple", "king's T-shirt", "king’s"]
    assert [model.spell(row) for row in model.name_tokens(names, ["zh", "en", "en"])] == [
        "red红苹果tree apple", "king's t-shirt", "king’s"]


def test_a_name_may_be_as_long_as_the_decoder_writes() -> None:
    model = make()
    ids = model.name_tokens(["tree " * 15, "red"], ["en", "zh"])
    assert ids.shape == (2, model.generation_head.max_tokens + 1)
    assert model(X, name_ids=ids)["generation_logits"].shape[1] == 16


def test_what_is_not_given_is_what_the_lessons_use() -> None:
    model = VisualLanguageModel(feature_dim=8, tokenizer=TOKENIZER, name_tokenizer=NAMES)
    assert model.classifier.weight.shape == (1000, 8)
    assert model.generation_head.embed.embedding_dim == 64
    assert {name: p.default for name, p in inspect.signature(VisualLanguageModel).parameters.items()} == {
        "num_classes": 1000, "feature_dim": 512, "backbone": "resnet-tiny", "model_name": "bert-tiny", "weights": None,
        "hidden_dim": None, "tokenizer": None, "name_tokenizer": None, "decoder_width": 64}
    fusion = CrossModalFusion()
    assert (fusion.W_v.shape, fusion.W_t.shape) == ((256, 512), (256, 512))
    assert not fusion.b.any()
    trainer = VLMTrainer(model, "cpu")
    assert (trainer.alpha, trainer.beta, trainer.gamma, trainer.tau) == (1.0, 1.0, 1.0, 0.0625)
    assert [(group["lr"], group["weight_decay"]) for group in trainer.optimizer.param_groups] == [
        (1e-3, 0.3), (1e-3, 0.0)]
    assert multitask_loss(1.0, 10.0, 100.0) == 111.0


def test_writing_is_generation_from_the_language_asked_for() -> None:
    model = make().eval()
    h = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
    tokens, p = model.write(h, ["en", "zh"])
    wanted, chances = model.generation_head.generate(h, torch.tensor([1, 0]))
    assert torch.equal(tokens, wanted)
    assert torch.equal(p, chances)
    drawn, wanted = (write(h, languages, 1.5, torch.Generator().manual_seed(0))[0] for write, languages in (
        (model.write, ["en", "zh"]), (model.generation_head.generate, torch.tensor([1, 0]))))
    assert torch.equal(drawn, wanted)


def test_without_tokenizers_the_model_knows_the_emoji_data() -> None:
    model = VisualLanguageModel(feature_dim=8)
    assert model.classifier.out_features == 1000
    assert model.spell(model.name_tokens(["red apple"], ["en"])[0]) == "red apple"


MODEL = make()
X, H4 = torch.rand(2, 3, 32, 32), torch.zeros(4, 16)


@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda: MODEL(), ValueError, "neither picture nor text is there"),
    (lambda: CrossModalFusion(4, 5)(None, None), ValueError, "图像和文字都没有.*neither picture nor text is there"),
    (lambda: MODEL(X, torch.ones(2, 3, dtype=torch.long)), ValueError, "must come together"),
    (lambda: MODEL.name_tokens(["pear"], ["en"]), ValueError, "never learned: pear"),
    (lambda: MODEL.name_tokens(["tree"], ["fr"]), ValueError, "language must be one of zh, en, got 'fr'"),
    (lambda: MODEL.name_tokens(["tree", "树"], ["en"]), ValueError, "languages must list 2, one for each row"),
    (lambda: MODEL.name_tokens(["tree"], "en"), ValueError, "languages must list 1, one for each row"),
    (lambda: MODEL.name_tokens([], []), ValueError, "names is empty"),
    (lambda: MODEL.name_tokens(["tree " * 16], ["en"]), ValueError, "at most 15 tokens, got 16"),
    (lambda: MODEL.write(H4, ["en"]), ValueError, "languages must list 4"),
])
def test_inputs_that_do_not_fit_are_refused(call: Callable, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        call()


# -- the trainer ------------------------------------------------------------------------------------------------------

def test_the_losses_are_what_they_say() -> None:
    model = make()
    trainer = VLMTrainer(model, "cpu", 0.5, 2.0, 3.0, tau=0.2)
    given = batch(model)
    before = trained.state(model)
    out = trainer.losses(**given)
    assert trained.same(model, before)  # looking trains nothing
    assert model.training
    assert list(out) == [*NAMED, "classification_loss", "retrieval_loss", "generation_loss", "total_loss"]
    p = out["classification_logits"].softmax(1)
    assert out["classification_loss"].item() == pytest.approx(
        -sum(math.log(p[i, i]) for i in range(4)) / 4, rel=1e-5)
    assert torch.equal(out["retrieval_loss"], contrastive_loss(out["retrieval_v"], out["retrieval_t"], 0.2))
    q, nll = out["generation_logits"].softmax(2), []
    for n, row in enumerate(given["name_ids"].tolist()):
        nll += [-math.log(q[n, position, token]) for position, token in enumerate(row[1:]) if token != 0]
    assert out["generation_loss"].item() == pytest.approx(sum(nll) / len(nll), rel=1e-5)
    assert out["total_loss"].item() == pytest.approx(
        0.5 * out["classification_loss"].item() + 2 * out["retrieval_loss"].item()
        + 3 * out["generation_loss"].item(), rel=1e-6)


def test_a_text_true_of_two_pictures_is_no_negative_of_either() -> None:
    model = make()
    trainer, given = VLMTrainer(model, "cpu"), batch(model)
    positives = torch.eye(4, dtype=torch.bool)
    positives[0, 1] = positives[1, 0] = True
    out = trainer.losses(**given, positives=positives)
    assert torch.equal(out["retrieval_loss"], contrastive_loss(out["retrieval_v"], out["retrieval_t"], trainer.tau,
                                                               positives))
    assert trainer.losses(**given)["retrieval_loss"] != out["retrieval_loss"]


def test_a_step_and_its_losses_know_which_pictures_and_texts_are_given() -> None:
    model = make()
    trainer, batch_of_all = VLMTrainer(model, "cpu"), batch(model)
    hidden = {"image_given": torch.tensor([True, False, True, True]),
              "text_given": torch.tensor([True, True, False, True])}
    model.eval()
    out, wanted = trainer.losses(**batch_of_all, **hidden), model(**{
        name: x for name, x in batch_of_all.items() if name != "labels"}, **hidden)
    assert torch.equal(out["h"], wanted["h"])
    for name in hidden:
        assert not torch.equal(trainer.losses(**batch_of_all, **{name: hidden[name]})["h"], out["h"])


def test_the_padding_that_does_not_count_is_that_of_the_models_decoder() -> None:
    model = make()
    trainer, given = VLMTrainer(model, "cpu"), batch(model)
    model.generation_head.pad = int(given["name_ids"][0, 1])
    out = trainer.losses(**given)
    assert torch.equal(out["generation_loss"], generation_loss(out["generation_logits"], given["name_ids"],
                                                               model.generation_head.pad))
    assert not torch.equal(out["generation_loss"], generation_loss(out["generation_logits"], given["name_ids"]))


@pytest.mark.parametrize("wrong", [{"backbone": "no-such-net"}, {"model_name": "no-such-model"},
                                   {"tokenizer": "words"}, {"weights": "no such file"}])
def test_a_model_that_is_refused_late_has_drawn_no_random_numbers(wrong: dict) -> None:
    before = torch.get_rng_state()
    with pytest.raises((TypeError, ValueError, OSError), match=" / "):
        VisualLanguageModel(4, 16, **wrong)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_step_returns_plain_numbers_and_lowers_every_loss_in_time() -> None:
    model = make()
    trainer, given = VLMTrainer(model, "cpu", lr=3e-3), batch(model)
    first = trainer.train_step(**given)
    assert list(first) == list(LOSSES)
    assert {type(value) for value in first.values()} == {float}
    for _ in range(30):
        last = trainer.train_step(**given)
    assert all(last[name] < first[name] / 2 for name in LOSSES)
    assert [model.spell(row) for row in model.write(trainer.losses(**given)["h"], ["en", "zh", "en", "zh"])[0]] == [
        "red apple", "红苹果", "tree", "树"]


def test_weights_and_temperature_act_on_the_very_next_step() -> None:
    model = make()
    trainer, given = VLMTrainer(model, "cpu", lr=1e-9), batch(model)
    one = trainer.train_step(**given)
    trainer.tune(alpha=2, beta=0, gamma=0.5)
    two = trainer.train_step(**given)
    assert two["total_loss"] == pytest.approx(2 * two["classification_loss"] + 0.5 * two["generation_loss"], rel=1e-6)
    assert two["classification_loss"] == pytest.approx(one["classification_loss"], rel=1e-3)
    trainer.tune(tau=1.0)
    assert abs(trainer.train_step(**given)["retrieval_loss"] - one["retrieval_loss"]) > 0.01


@pytest.mark.parametrize(("change", "error", "match"), [
    ({"alpha": 2.0, "beta": float("inf")}, ValueError, "beta must be finite"),
    ({"alpha": 2.0, "tau": 0.0}, ValueError, "tau must be positive"),
])
def test_one_bad_weight_changes_none(change: dict, error: type, match: str) -> None:
    trainer = VLMTrainer(make(), "cpu", 0.1, 0.2, 0.3, 0.4)
    with pytest.raises(error, match=match):
        trainer.tune(**change)
    assert (trainer.alpha, trainer.beta, trainer.gamma, trainer.tau) == (0.1, 0.2, 0.3, 0.4)


@pytest.mark.parametrize(("change", "error", "match"), [
    ({"image": torch.full((4, 3, 32, 32), float("nan"))}, Exception, "NaN"),
    ({"labels": torch.tensor([0, 1, 2, 4])}, ValueError, "labels must be int64 classes of shape (4,) between 0 and 3"),
    ({"name_ids": torch.zeros(4, 3, dtype=torch.long)}, ValueError, "all is padding"),
    ({"positives": torch.zeros(4, 4, dtype=torch.bool)}, ValueError, "at least one positive"),
])
def test_a_step_that_cannot_be_made_changes_nothing(change: dict, error: type, match: str) -> None:
    model = make()
    trainer, given = VLMTrainer(model, "cpu"), batch(model)
    trainer.train_step(**given)
    before = trained.state(model)
    with pytest.raises(error, match=re.escape(match)):
        trainer.train_step(**{**given, **change})
    assert trained.same(model, before)
    trainer.train_step(**given)  # and goes on


def test_without_a_device_the_trainer_takes_what_is_there_and_moves_model_and_batch() -> None:
    """缺陷 14：默认 cuda，输入从不搬过去 / Fault 14: cuda by default, and inputs that were never moved."""
    model = make()
    given = batch(model)
    trainer = VLMTrainer(model)
    assert trainer.device == choose_device()
    trainer.device = torch.device("meta")
    moved = brought(trainer.device, **given, positives=None).values()
    assert {x.device.type for x in moved if x is not None} == {"meta"}
    trainer.device = choose_device()
    assert next(model.parameters()).device.type == trainer.device.type
    assert math.isfinite(trainer.train_step(**given)["total_loss"])
