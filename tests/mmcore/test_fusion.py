"""(3.1)–(3.5) 多模态融合 / (3.1) to (3.5) multimodal fusion, held against explicit loops in float64."""

import math

import pytest
import torch
from torch import Tensor, nn

from mmcore.fusion import (
    CANDIDATES,
    AttentionFusion,
    EarlyFusion,
    GatedFusion,
    LateFusion,
    MultimodalFusion,
    MultimodalFusionTrainer,
    adaptive_fusion_weights,
    attention_fusion_weights,
    gated_fusion_weights,
    late_fusion,
    product_of_experts,
    weighted_sum,
)
from tests.support import same as unchanged
from tests.support import state, tensor

B, D, H = 3, 4, 5


def modalities(m: int, b: int = B, d: int = D) -> list[Tensor]:
    return list(tensor(m, b, d, seed=m))


def attention_parameters() -> tuple[Tensor, ...]:
    return tensor(H, D, seed=1), tensor(H, seed=2), tensor(H, seed=3), tensor(seed=4)


def dot(x: Tensor, y: Tensor) -> float:
    return sum(float(p) * float(q) for p, q in zip(x, y, strict=True))


def softmax(scores: list[float]) -> list[float]:
    total = sum(math.exp(s) for s in scores)
    return [math.exp(s) / total for s in scores]


def sum_by_loops(w: list[list[float]], features: list[Tensor]) -> Tensor:
    b, d = features[0].shape
    f = [f_i.tolist() for f_i in features]
    rows = [[sum(w[n][i] * f_i[n][k] for i, f_i in enumerate(f)) for k in range(d)] for n in range(b)]
    return torch.tensor(rows, dtype=torch.float64)


def same(x: Tensor, y: Tensor) -> bool:
    return x.shape == y.shape and torch.allclose(x, y, rtol=1e-10, atol=1e-12)


def randomise(module: nn.Module) -> nn.Module:
    """每个参数都不是零，公式的每一项才都算数 / No parameter at zero, so that every term of a formula counts."""
    for seed, parameter in enumerate(module.parameters()):
        with torch.no_grad():
            parameter.copy_(0.5 * tensor(*parameter.shape, seed=100 + seed))
    return module


# -- formulas ---------------------------------------------------------------------------------------------------------

@pytest.mark.formula("3.1")
@pytest.mark.parametrize("widths", [(2, 3), (4, 4, 4), (1, 5, 2, 3, 4)])
def test_3_1_equals_its_explicit_loops(widths: tuple[int, ...]) -> None:
    module = randomise(EarlyFusion(widths, D).double())
    features = [tensor(B, d, seed=i) for i, d in enumerate(widths)]
    (W_1, b_1, W_2, b_2), rows = [p.detach() for p in module.parameters()], []
    for n in range(B):
        x = [float(v) for f_i in features for v in f_i[n]]
        inner = [sum(float(a) * v for a, v in zip(W, x, strict=True)) + float(b) for W, b in zip(W_1, b_1, strict=True)]
        inner = [v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in inner]
        rows.append([sum(float(a) * v for a, v in zip(W, inner, strict=True)) + float(b)
                     for W, b in zip(W_2, b_2, strict=True)])
    assert same(module(features), torch.tensor(rows, dtype=torch.float64))


@pytest.mark.formula("3.2")
@pytest.mark.parametrize("m", [2, 3, 5])
def test_3_2_equals_its_explicit_loops(m: int) -> None:
    features, module = modalities(m), randomise(LateFusion(D, m).double())
    w = softmax(module.logits.tolist())
    wanted = sum_by_loops([w] * B, features)
    assert same(late_fusion(features, torch.tensor(w, dtype=torch.float64)), wanted)
    assert same(module(features), wanted)
    assert same(module.weights(features), torch.tensor([w] * B, dtype=torch.float64))


@pytest.mark.formula("3.3")
@pytest.mark.parametrize("m", [2, 3, 5])
def test_3_3_equals_its_explicit_loops(m: int) -> None:
    features, (W_f, b_f, W_a, b_a) = modalities(m), attention_parameters()
    alpha = []
    for n in range(B):
        scores = []
        for f_i in features:
            inner = [math.tanh(dot(W_f[k], f_i[n]) + float(b_f[k])) for k in range(H)]
            scores.append(sum(float(W_a[k]) * inner[k] for k in range(H)) + float(b_a))
        alpha.append(softmax(scores))
    module = AttentionFusion(D, H).double()
    module.load_state_dict({"W_f": W_f, "b_f": b_f, "W_a": W_a, "b_a": b_a})
    for got in (attention_fusion_weights(features, W_f, b_f, W_a, b_a), module.weights(features)):
        assert same(got, torch.tensor(alpha, dtype=torch.float64))
    assert same(module(features), sum_by_loops(alpha, features))


@pytest.mark.formula("3.4")
@pytest.mark.parametrize("m", [2, 3, 5])
def test_3_4_equals_its_explicit_loops(m: int) -> None:
    features, W_g, b_g = modalities(m), tensor(m, D, seed=1), tensor(m, seed=2)
    g = [[1 / (1 + math.exp(-dot(W_g[i], features[i][n]) - float(b_g[i]))) for i in range(m)] for n in range(B)]
    module = GatedFusion(D, m).double()
    module.load_state_dict({"W_g": W_g, "b_g": b_g})
    for got in (gated_fusion_weights(features, W_g, b_g), module.weights(features)):
        assert same(got, torch.tensor(g, dtype=torch.float64))
    assert same(module(features), sum_by_loops(g, features))


@pytest.mark.formula("3.5")
@pytest.mark.parametrize("biased", [False, True])
def test_3_5_equals_its_explicit_loops(biased: bool) -> None:
    candidates, W_s, b_s = modalities(4), tensor(4, 4 * D, seed=1), tensor(4, seed=2)
    pi = []
    for n in range(B):
        x = torch.tensor([float(v) for f_k in candidates for v in f_k[n]], dtype=torch.float64)
        pi.append(softmax([dot(W_s[k], x) + (float(b_s[k]) if biased else 0.0) for k in range(4)]))
    got = adaptive_fusion_weights(candidates, W_s, b_s) if biased else adaptive_fusion_weights(candidates, W_s)
    assert same(got, torch.tensor(pi, dtype=torch.float64))
    assert same(weighted_sum(got, candidates), sum_by_loops(pi, candidates))


@pytest.mark.parametrize("m", [2, 3, 5])
def test_the_mixture_is_3_5_of_the_four_fusions_of_the_projected_features(m: int) -> None:
    widths = list(range(2, 2 + m))
    model = randomise(MultimodalFusion(widths, D).double())
    features = [tensor(B, d, seed=d) for d in widths]
    out = model(features)
    projected = []
    for f_i, p in zip(features, model.projections, strict=True):
        x = f_i @ p.weight.T + p.bias
        x = x - x.mean(1, keepdim=True)
        projected.append(x / (x.pow(2).mean(1, keepdim=True) + 1e-5).sqrt())
    for i, f_i in enumerate(projected, start=1):
        assert same(out[f"f_{i}"], f_i)
    for weights, fused, part in (("w", "f_late", model.late_fusion), ("alpha", "f_attention", model.attention_fusion),
                                 ("g", "f_gated", model.gated_fusion)):
        assert same(out[weights], part.weights(projected))
        assert same(out[fused], part(projected))
    assert same(out["f_early"], model.early_fusion(features))
    candidates = [out[name] for name in ("f_early", "f_attention", "f_gated", "f_late")]
    assert same(out["pi"], adaptive_fusion_weights(candidates, model.W_s, model.b_s))
    assert same(out["f"], sum_by_loops(out["pi"].tolist(), candidates))


def test_the_gradients_are_those_of_the_formulas() -> None:
    features = [f_i.requires_grad_() for f_i in modalities(3)]
    candidates = [f_k.requires_grad_() for f_k in modalities(4, 2, 2)]

    def leaf(*shape: int) -> Tensor:
        return tensor(*shape, seed=9).requires_grad_()

    check = torch.autograd.gradcheck
    assert check(lambda w, *f: weighted_sum(w, f), (leaf(B, 3), *features))
    assert check(lambda w, *f: late_fusion(f, w.softmax(0)), (leaf(3), *features))
    assert check(lambda W, b, a, *f: attention_fusion_weights(f, W, b, a, 0.3),
                 (leaf(H, D), leaf(H), leaf(H), *features))
    assert check(lambda W, b, *f: gated_fusion_weights(f, W, b), (leaf(3, D), leaf(3), *features))
    assert check(lambda W, b, *f: adaptive_fusion_weights(f, W, b), (leaf(4, 8), leaf(4), *candidates))


# -- what sets the fusions apart --------------------------------------------------------------------------------------

def test_one_row_of_weights_serves_the_whole_batch_and_need_not_sum_to_1() -> None:
    features, w = modalities(3), torch.tensor([0.5, 2.0, -1.0], dtype=torch.float64)
    assert same(weighted_sum(w, features), weighted_sum(w.expand(B, 3), features))
    assert same(weighted_sum(w, features), sum_by_loops([w.tolist()] * B, features))


def test_b_a_cancels_in_the_softmax() -> None:
    features, (W_f, b_f, W_a, b_a) = modalities(3), attention_parameters()
    b_a.requires_grad_()
    alpha = attention_fusion_weights(features, W_f, b_f, W_a, b_a)
    assert same(alpha, attention_fusion_weights(features, W_f, b_f, W_a, b_a + 7))
    gradient, = torch.autograd.grad(weighted_sum(alpha, features).pow(2).sum(), b_a)
    assert abs(gradient.item()) < 1e-12


# -- modules ----------------------------------------------------------------------------------------------------------

WIDTHS = (6, 5, 4)
MODULES = {"early": lambda: EarlyFusion([D] * 3, D), "late": lambda: LateFusion(D, 3),
           "attention": lambda: AttentionFusion(D), "gated": lambda: GatedFusion(D, 3),
           "multimodal": lambda: MultimodalFusion([D] * 3, D)}


def test_the_selector_judges_the_candidates_without_changing_them() -> None:
    model = randomise(MultimodalFusion(WIDTHS, D))
    out = model([tensor(B, d).float() for d in WIDTHS])
    out["pi"][:, 0].sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {"W_s", "b_s"}


def test_modules_start_from_their_documented_widths_and_leave_no_preference() -> None:
    early, attention, model = EarlyFusion([6, 5], 5), AttentionFusion(5), MultimodalFusion(WIDTHS, D)
    assert (early.inner.weight.shape, early.outer.weight.shape) == ((3, 11), (5, 3))
    assert attention.W_f.shape == (2, 5)
    torch.manual_seed(0)
    attention = AttentionFusion(5)
    torch.manual_seed(0)
    assert torch.equal(attention.W_f, nn.init.xavier_uniform_(torch.empty(2, 5)))
    assert torch.equal(attention.W_a, torch.empty(2).normal_(std=2 ** -0.5))
    for start in (attention.b_f, attention.b_a, model.late_fusion.logits, model.gated_fusion.W_g,
                  model.gated_fusion.b_g, model.W_s, model.b_s):
        assert not start.any()
    assert (LateFusion().feature_dim, LateFusion().num_modalities) == (512, 3)
    assert (AttentionFusion().W_f.shape, GatedFusion().W_g.shape) == ((128, 512), (3, 512))
    assert EarlyFusion([6, 5]).outer.weight.shape == (512, 256)
    assert MultimodalFusion([6, 5]).output_dim == 512


def test_7_1_by_hand() -> None:
    """先验各半；两位专家都说 4 : 1，合起来 16 : 1；若先验已是 4 : 1，他们什么也没添，仍是 4 : 1。

    Even prior: two experts who both say 4 : 1 together say 16 : 1. Where the prior says so already, they add nothing.
    """
    says = torch.tensor([[0.8, 0.2]]).log()
    even, known = torch.tensor([0.5, 0.5]).log(), says[0]
    assert product_of_experts([says, says], even).exp()[0].tolist() == pytest.approx([16 / 17, 1 / 17])
    assert product_of_experts([says, says], known).exp()[0].tolist() == pytest.approx([0.8, 0.2])
    assert product_of_experts([says], known).exp()[0].tolist() == pytest.approx([0.8, 0.2])
    with pytest.raises(ValueError, match="expected at least 1 modalities, got 0"):
        product_of_experts([], even)


def test_a_late_weight_may_be_0_and_a_sum_off_by_rounding() -> None:
    features = [torch.ones(1, 2), torch.zeros(1, 2)]
    assert late_fusion(features, torch.tensor([0.0, 1.0])).tolist() == [[0.0, 0.0]]
    late_fusion(features, torch.tensor([0.5, 0.50005]))
    for off in (0.5002, 0.4998):
        with pytest.raises(ValueError, match=f"w must sum to 1, got {0.5 + off:.4f}"):
            late_fusion(features, torch.tensor([0.5, off]))


# -- errors -----------------------------------------------------------------------------------------------------------

F3 = modalities(3)
KNOWING = {name: make().double() for name, make in MODULES.items()}
KNOWING["weights"] = lambda features: gated_fusion_weights(features, tensor(3, D), tensor(3))


@pytest.mark.parametrize("name", KNOWING)
def test_what_knows_number_and_width_of_the_modalities_drops_none_in_silence(name: str) -> None:
    for m in (2, 4) if name != "attention" else ():
        with pytest.raises(ValueError, match=f"需要 3 个模态，收到 {m} 个 / expected 3 modalities, got {m}"):
            KNOWING[name](modalities(m))
    with pytest.raises(ValueError, match=r"must have shape .*, got "):
        KNOWING[name](modalities(3, d=7))


@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda: late_fusion(F3, tensor(3).softmax(0) * 1.01), ValueError, "w must sum to 1, got 1.01"),
    (lambda: late_fusion(F3, torch.tensor([0.7, 0.7, -0.4]).double()), ValueError, "no entry of w may be below 0"),
    (lambda: late_fusion(F3, torch.tensor([float("nan")] * 3).double()), ValueError, "no entry of w may be below 0"),
    (lambda: weighted_sum(tensor(2, 3), F3), ValueError, r"w must have shape \(3\) or \(3, 3\), got \(2, 3\)"),
    (lambda: EarlyFusion([D, D], D, 0), ValueError, "hidden_dim must be at least 1, got 0"),
])
def test_weights_parameters_and_sizes_that_do_not_fit_are_refused(call: object, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_softmax_of_any_precision_sums_to_1_well_enough(dtype: torch.dtype) -> None:
    features = [f_i.to(dtype) for f_i in modalities(5)]
    for seed in range(50):
        assert late_fusion(features, tensor(5, seed=seed).to(dtype).softmax(0)).dtype == dtype


# -- the trainer ------------------------------------------------------------------------------------------------------

def four_classes(n: int, seed: int) -> tuple[list[Tensor], Tensor]:
    """四类，每个模态都带一点消息：四种融合一样好 / Four classes, some news in each modality: all fusions do alike."""
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(4, (n,), generator=generator)
    return [tensor(4, d, seed=d).float()[y] + torch.randn(n, d, generator=generator) for d in WIDTHS], y


def exclusive_or(n: int, seed: int) -> tuple[list[Tensor], Tensor]:
    """两个模态各给一位，答案是异或 / Each of two modalities gives one bit, the answer is their exclusive or."""
    generator = torch.Generator().manual_seed(seed)
    bits = torch.randint(2, (n, 2), generator=generator)
    noise = 0.3 * torch.randn(2, n, 2, generator=generator)
    return [torch.stack([1 - 2.0 * bits[:, i], torch.ones(n)], 1) + noise[i] for i in (0, 1)], bits[:, 0] ^ bits[:, 1]


def trained(task: object, widths: tuple[int, ...], classes: int, **options: float) -> MultimodalFusionTrainer:
    torch.manual_seed(0)
    trainer = MultimodalFusionTrainer(MultimodalFusion(widths, 16), "cpu", classes, lr=2e-2, **options)
    for step in range(80):
        trainer.train_step(*task(128, seed=1000 + step))
    return trainer


def test_all_fusions_learn_and_equal_fusions_are_weighted_alike_only_under_the_pull() -> None:
    features, y = four_classes(1000, seed=5)
    for pull in (0.02, 0.0):
        trainer = trained(four_classes, WIDTHS, 4, pull=pull)
        assert min(trainer.evaluate(features, y).values()) > 0.95
        pi = trainer.model(features)["pi"]
        if pull:
            assert pi.mean(0).min() > 0.15
            assert pi.amax(1).mean() < 0.6  # nor does each sample collapse by itself
        else:
            assert pi.mean(0).min() < 0.1


def test_exclusive_or_needs_early_fusion_and_the_selector_finds_it() -> None:
    """加法做不到异或：a(x₁) + b(x₂) 至多对四分之三 / A sum a(x₁) + b(x₂) gets at most three of the four cases right."""
    trainer = trained(exclusive_or, (2, 2), 2)
    features, y = exclusive_or(1000, seed=5)
    right = trainer.evaluate(features, y)
    assert list(right) == [*CANDIDATES, "f"]
    assert right["f_early"] > 0.97
    assert right["f"] > 0.97
    assert max(right["f_late"], right["f_gated"]) < 0.8
    pi = trainer.model(features)["pi"].mean(0)
    assert pi[0] > 0.3
    assert pi.argmax() == 0


def test_the_losses_are_what_they_say() -> None:
    """分类头从零开始：每项都是 ln K；π 从 ¼ 开始：拉力为 0 / The head starts at zero: each is ln K, and no pull yet."""
    trainer = MultimodalFusionTrainer(MultimodalFusion(WIDTHS, D), "cpu", 4)
    first = trainer.train_step(*four_classes(8, 0))
    fusions = ["early_loss", "attention_loss", "gated_loss", "late_loss"]
    assert list(first) == ["total_loss", *fusions, "final_loss", "pull_loss"]
    assert [first[name] for name in [*fusions, "final_loss"]] == pytest.approx([math.log(4)] * 5)
    assert first["pull_loss"] == pytest.approx(0, abs=1e-6)

    randomise(trainer.learned)
    trainer.pull = 3.0
    features, y = four_classes(8, 1)
    out = trainer.model(features)
    wanted = {name: nn.functional.cross_entropy(trainer.head(out[name]), y).item() for name in (*CANDIDATES, "f")}
    got = trainer.train_step(features, y)
    assert [got[name] for name in [*fusions, "final_loss"]] == pytest.approx(list(wanted.values()), rel=1e-5)
    pull = -sum(math.log(4 * p) for row in out["pi"].tolist() for p in row) / 32
    assert got["pull_loss"] == pytest.approx(pull, rel=1e-4)
    total = got["final_loss"] + sum(got[name] for name in fusions) / 4 + 3.0 * got["pull_loss"]
    assert got["total_loss"] == pytest.approx(total, rel=1e-5)


def test_encoders_turn_raw_inputs_into_features_and_learn_along() -> None:
    torch.manual_seed(0)
    encoders = [nn.Linear(3, d) for d in WIDTHS]
    trainer = MultimodalFusionTrainer(MultimodalFusion(WIDTHS, D), "cpu", 4, encoders=encoders)
    raw, y = [tensor(8, 3, seed=i).float() for i in range(3)], torch.arange(8) % 4
    wanted = trainer.model([encode(x) for encode, x in zip(encoders, raw, strict=True)])["f"]
    assert torch.equal(trainer.fuse(raw)["f"], wanted)
    before = state(trainer.learned)
    for _ in range(2):  # the head starts at zero: the first step moves it alone
        trainer.train_step(raw, y)
    after = state(trainer.learned)
    assert all(not torch.equal(after[name], before[name]) for name in after if name.startswith("2."))
    before = state(trainer.learned)
    with pytest.raises(ValueError, match=r"features\[0\] holds NaN or infinity"):
        trainer.train_step([raw[0] * torch.nan, *raw[1:]], y)
    with pytest.raises(ValueError, match="of 3 tensors, one for each modality, with as many samples"):
        trainer.fuse([raw[0][:7], *raw[1:]])
    for call in (lambda: trainer.train_step(raw[:2], y), lambda: trainer.fuse(raw[:2])):
        with pytest.raises(ValueError, match="features must be a list of 3 tensors"):
            call()
    assert unchanged(trainer.learned, before)
    with pytest.raises(ValueError, match="encoders must be one for each modality, 3 in all"):
        MultimodalFusionTrainer(MultimodalFusion(WIDTHS, D), "cpu", 4, encoders=encoders[:2])


def test_target_features_are_learned_too() -> None:
    torch.manual_seed(0)
    trainer = MultimodalFusionTrainer(MultimodalFusion(WIDTHS, D), "cpu", lr=1e-2)
    features = [tensor(64, d, seed=d).float() for d in WIDTHS]
    targets = features[0][:, :D] + features[1][:, :D]
    before = trainer.evaluate(features, targets)
    for _ in range(200):
        trainer.train_step(features, targets)
    after = trainer.evaluate(features, targets)
    assert all(after[name] < before[name] / 2 for name in (*CANDIDATES, "f"))
    wanted = (trainer.model(features)["f_late"] - targets).pow(2).mean().item()
    assert after["f_late"] == pytest.approx(wanted, rel=1e-5)


def test_a_choice_that_underflows_to_0_is_no_reason_to_stop() -> None:
    trainer = MultimodalFusionTrainer(MultimodalFusion(WIDTHS, D), "cpu", 4, pull=0.0)
    with torch.no_grad():
        trainer.model.b_s.copy_(torch.tensor([0.0, 0.0, 0.0, 200.0]))
    assert math.isfinite(trainer.train_step(*four_classes(8, 0))["total_loss"])


def test_evaluating_changes_neither_the_model_nor_its_mode() -> None:
    trainer = MultimodalFusionTrainer(MultimodalFusion(WIDTHS, D), "cpu", 4)
    trainer.train_step(*four_classes(8, 0))
    before = state(trainer.learned)
    assert trainer.evaluate(*four_classes(8, 1)) == trainer.evaluate(*four_classes(8, 1))
    assert trainer.model.training
    assert unchanged(trainer.learned, before)


FEATURES, Y = four_classes(8, 0)


@pytest.mark.parametrize(("classes", "features", "targets", "error", "match"), [
    (4, FEATURES, Y[:7], ValueError, r"targets must be int64 classes of shape \(8,\)"),
    (4, FEATURES, Y + 4, ValueError, r"int64 classes of shape \(8,\) between 0 and 3"),
    (None, FEATURES, Y, TypeError, "targets must be a floating-point tensor"),
    (None, FEATURES, torch.ones(8, D + 1), ValueError, r"targets must have shape \(8, 4\), got \(8, 5\)"),
    (None, FEATURES, torch.ones(8, D).double(), TypeError, "targets must be torch.float32, got torch.float64"),
    (4, [*FEATURES[:2], FEATURES[2][:7]], Y, ValueError, r"features\[2\] must have shape \(8, 4\), got \(7, 4\)"),
])
def test_features_and_targets_that_do_not_fit_are_refused(classes: int | None, features: list[Tensor], targets: Tensor,
                                                          error: type, match: str) -> None:
    trainer = MultimodalFusionTrainer(MultimodalFusion(WIDTHS, D), "cpu", classes)
    before = state(trainer.learned)
    for call in (trainer.train_step, trainer.evaluate):
        with pytest.raises(error, match=match):
            call(features, targets)
    assert unchanged(trainer.learned, before)


def test_a_trainer_starts_from_its_documented_numbers() -> None:
    made = MultimodalFusionTrainer(MultimodalFusion(WIDTHS, D), "cpu")
    assert [(g["lr"], g["weight_decay"]) for g in made.optimizer.param_groups] == [(1e-3, 0.01), (1e-3, 0.0)]
    assert (made.pull, made.num_classes) == (0.02, None)
    assert MultimodalFusionTrainer(MultimodalFusion(WIDTHS, D), "cpu", weight_decay=0.5).optimizer.param_groups[0][
        "weight_decay"] == 0.5


@pytest.mark.parametrize("num_classes", [None, 3])
def test_features_and_targets_follow_the_trainer_to_its_device(num_classes) -> None:
    trainer = MultimodalFusionTrainer(MultimodalFusion([3, 5], 4), "cpu", num_classes)
    trainer.device = torch.device("meta")  # stands in for a device that this machine lacks
    trainer.learned.to("meta")
    targets = torch.ones(2, 4) if num_classes is None else torch.tensor([0, 2])
    features, moved = trainer._prepare([torch.ones(2, 3), torch.ones(2, 5)], targets)
    assert {x.device.type for x in (*features, moved)} == {"meta"}
