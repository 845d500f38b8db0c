"""最初设计里的十七个错 / The seventeen faults of the first design, each in our own words.

Each test writes the faulty thing, shows the damage as a number, and shows that mmcore does not have it.
"""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import mmcore
from mmcore import tokens as text
from mmcore.alignment import contrastive_loss, cosine_similarity, feature_alignment_loss
from mmcore.encoders import TextEncoder
from mmcore.fusion import AttentionFusion, EarlyFusion, GatedFusion, MultimodalFusion, MultimodalFusionTrainer
from mmcore.training import evaluating
from mmcore.vision_language import VisualLanguageModel

TOKENIZER = text.build_tokenizer(["red apple", "红苹果", "tree"])


def normal(*size: int, seed: int = 0) -> Tensor:
    return torch.randn(*size, generator=torch.Generator().manual_seed(seed))


def features(count: int, width: int = 4) -> list[Tensor]:
    return [normal(8, width, seed=i) for i in range(count)]


def test_01_new_layers_in_forward_would_make_two_evaluations_differ() -> None:
    def faulty(x: Tensor) -> Tensor:
        return nn.Linear(4, 4)(x)

    x = features(2)
    assert (faulty(x[0]) - faulty(x[0])).abs().max() > 0.1
    torch.manual_seed(0)
    model = MultimodalFusion([4, 4], 6)
    with evaluating(model):
        assert torch.equal(model(x)["f"], model(x)["f"])
    assert "projections.0.weight" in model.state_dict()


def test_02_attention_over_one_token_would_always_weigh_1_and_teach_no_query() -> None:
    a, b = normal(5, 4).requires_grad_(), normal(5, 4, seed=1)
    alone = (a.unsqueeze(1) @ b.unsqueeze(1).mT / 2).softmax(-1)  # (5, 1, 1): nothing to choose from
    assert torch.equal(alone, torch.ones(5, 1, 1))
    assert torch.autograd.grad(alone.sum(), a)[0].abs().max() == 0
    S = mmcore.semantic_similarity(a, b)
    assert torch.allclose(S.sum(1), torch.ones(5))
    assert torch.autograd.grad(S.diagonal().sum(), a)[0].abs().max() > 0.01


def test_03_a_negative_mean_cosine_would_not_mind_that_everything_is_alike() -> None:
    collapsed = torch.ones(6, 4)
    assert torch.allclose(-F.cosine_similarity(collapsed, collapsed).mean(), torch.tensor(-1.0))  # its best value
    identity = torch.eye(6)
    assert torch.allclose(mmcore.semantic_alignment_loss(collapsed, collapsed, identity), torch.tensor(math.log(6)))
    far_apart = 20 * identity
    assert mmcore.semantic_alignment_loss(far_apart, far_apart, identity) < 1e-3


def test_04_a_two_layer_network_would_not_be_the_one_sum_of_the_formula() -> None:
    f_v, f_t, W_v, W_t, b = normal(3, 4), normal(3, 5), normal(6, 4), normal(6, 5), normal(6)
    faulty = F.gelu(torch.cat([f_v, f_t], 1) @ torch.cat([W_v, W_t], 1).T + b) @ normal(6, 6, seed=2).T
    formula = torch.stack([F.gelu(W_v @ v + W_t @ t + b) for v, t in zip(f_v, f_t, strict=True)])
    assert (faulty - formula).abs().max() > 0.1
    assert torch.allclose(mmcore.cross_modal_fusion(f_v, f_t, W_v, W_t, b), formula, atol=1e-5)


def test_05_a_loss_without_generation_would_never_teach_the_decoder() -> None:
    torch.manual_seed(0)
    model = VisualLanguageModel(2, 8, tokenizer=TOKENIZER, name_tokenizer=TOKENIZER, hidden_dim=8)
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    name_ids = model.name_tokens(["red apple", "tree"], ["en", "en"])
    out = model(image, **model.text_encoder.tokenize(["red apple", "tree"]), name_ids=name_ids)
    L_cls = F.cross_entropy(out["classification_logits"], torch.tensor([0, 1]))
    L_retrieval = contrastive_loss(out["retrieval_v"], out["retrieval_t"], 0.1)
    L_generation = mmcore.generation_loss(out["generation_logits"], name_ids, model.generation_head.pad)

    def reaches(loss: Tensor) -> bool:
        learned = model.generation_head.parameters()
        return any(g is not None for g in torch.autograd.grad(loss, learned, retain_graph=True, allow_unused=True))

    assert not reaches(L_cls + L_retrieval)
    assert reaches(mmcore.multitask_loss(L_cls, L_retrieval, L_generation, 1.0, 1.0, 1.0))


def test_06_a_retrieval_loss_without_temperature_could_never_fall_below_3_2() -> None:
    n = 64
    corners = torch.eye(n) - 1 / n  # as far from each other as n directions can be
    floor = math.log(1 + (n - 1) * math.exp(-n / (n - 1)))
    assert abs(contrastive_loss(corners, corners, 1.0).item() - floor) < 1e-3
    assert floor > 3.1
    assert contrastive_loss(corners, corners, 0.07) < 1e-3


def test_07_self_attention_and_a_mean_would_have_no_weight_to_look_at() -> None:
    x = features(3)
    faulty = torch.stack(x).mean(0)  # every modality counts a third, whatever it holds
    torch.manual_seed(0)
    model = AttentionFusion(4)
    alpha = model.weights(x)
    assert torch.allclose(alpha.sum(-1), torch.ones(8))
    assert alpha.std(0).max() > 0.005  # they depend on the sample
    assert torch.allclose(model(x), sum(alpha[:, [i]] * x[i] for i in range(3)), atol=1e-6)
    assert (model(x) - faulty).abs().max() > 0.005


def test_08_zip_would_drop_a_fourth_modality_in_silence() -> None:
    x, gates = features(4), torch.full((8, 3), 0.5)
    faulty = [sum(g[:, None] * f for g, f in zip(gates.T, seen, strict=False)) for seen in (x, x[:3])]
    assert torch.equal(*faulty)
    model = GatedFusion(4, 4)
    changed = [*x[:3], x[3] + 1]
    assert (model(changed) - model(x)).abs().max() > 0.1
    with pytest.raises(ValueError, match="4"):
        GatedFusion(4, 3)(x)


def test_09_a_mean_for_a_squared_norm_would_be_off_by_the_width() -> None:
    a, b = normal(5, 7), normal(5, 7, seed=1)
    norm = sum(sum((a[i, d] - b[i, d]) ** 2 for d in range(7)) for i in range(5)) / 5
    assert torch.allclose(norm / F.mse_loss(a, b), torch.tensor(7.0))
    assert torch.allclose(feature_alignment_loss(a, b, normalize=False), norm)


def test_10_the_mean_cosine_of_a_batch_would_give_constant_features_full_marks() -> None:
    constant = torch.ones(10, 4)
    assert torch.allclose(F.cosine_similarity(constant, constant).mean(), torch.tensor(1.0))
    ranks = mmcore.ranks(cosine_similarity(constant, constant))
    assert ranks.tolist() == [10] * 10  # who cannot tell the pairs apart finds each of them last


def test_11_targets_of_noise_could_only_be_memorised() -> None:
    def fit(targets: Tensor, x: Tensor) -> tuple[float, float]:
        W = torch.linalg.lstsq(x[:20], targets[:20]).solution
        return tuple(F.mse_loss(x[half] @ W, targets[half]).item() for half in (slice(20), slice(20, None)))

    x = normal(200, 20)
    seen, unseen = fit(normal(200, 3, seed=1), x)
    assert seen < 1e-3
    assert unseen > 1  # worse than always saying the mean
    assert fit(x @ normal(20, 3, seed=2), x)[1] < 1e-2  # where targets follow from inputs there is something to learn


def test_12_without_a_selector_loss_the_weights_would_say_little() -> None:
    torch.manual_seed(0)
    trainer = MultimodalFusionTrainer(MultimodalFusion([4, 4], 6), "cpu", num_classes=2, lr=0.05)
    x, targets = features(2), torch.tensor([0, 1] * 4)
    for _ in range(3):
        losses = trainer.train_step(x, targets)
    own = [losses[f"{name}_loss"] for name in ("early", "attention", "gated", "late")]
    faulty = sum(own) / 4  # nothing of pi in it
    selecting = losses["final_loss"] + trainer.pull * losses["pull_loss"]
    assert abs(losses["total_loss"] - faulty - selecting) < 1e-4
    pi = trainer.fuse(x)["pi"]
    assert pi.shape == (8, 4)  # of every sample, not of one
    assert (pi - 0.25).abs().max() > 1e-4  # and learned: it began at a quarter each


def test_13_a_hard_wired_pooler_would_fail_for_gpt() -> None:
    for name in ("bert-tiny", "gpt-tiny"):
        encoder = TextEncoder(name, 8, TOKENIZER)
        ids = encoder.tokenize(["red apple", "tree"])
        assert encoder(**ids).shape == (2, 8)
    output = encoder.backbone(**ids)
    assert getattr(output, "pooler_output", None) is None  # GPT has none, and its width is not 768
    assert output.last_hidden_state.shape[-1] != 768


def test_14_padding_that_is_not_masked_would_change_a_feature() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder("bert-tiny", 8, TOKENIZER)
    short, padded = encoder.tokenize(["tree"]), encoder.tokenize(["tree", "red apple"])
    with evaluating(encoder):
        alone, beside = encoder(**short)[0], encoder(**padded)[0]
        faulty = encoder(padded["input_ids"], torch.ones_like(padded["attention_mask"]))[0]
    assert padded["input_ids"][0, -1] == 0
    assert (faulty - alone).abs().max() > 0.01
    assert torch.allclose(beside, alone, atol=1e-5)
    assert short["input_ids"][0, 0] == TOKENIZER.token_to_id(text.CLS)


def test_15_two_linear_layers_with_nothing_between_would_be_one() -> None:
    x = features(2)

    def bent(model) -> float:
        """How far a map is from f(2x) − f(x) = f(x) − f(0)."""
        twice, nothing = ([k * x_i for x_i in x] for k in (2, 0))
        return (model(twice) - 2 * model(x) + model(nothing)).abs().max().item()

    torch.manual_seed(0)
    model = EarlyFusion([4, 4], 6)
    assert bent(lambda x: model.outer(model.inner(torch.cat(x, -1)))) < 1e-5
    assert bent(model) > 0.01


def test_16_a_squared_distance_beside_a_cosine_would_fall_by_shrinking() -> None:
    a, b = normal(6, 4), normal(6, 4, seed=1)
    shrunk = [0.01 * x for x in (a, b)]
    faulty = [(x - y).square().sum(1).mean() for x, y in ((a, b), shrunk)]
    assert faulty[1] < 1e-3 * faulty[0]  # and nothing has been learned
    assert torch.allclose(feature_alignment_loss(*shrunk), feature_alignment_loss(a, b))


def test_17_a_repeated_caption_would_be_pushed_away_as_a_negative() -> None:
    pictures, caption = torch.eye(3), torch.ones(3)
    captions = torch.stack([caption, caption, -caption]).requires_grad_()  # 0 and 1 say the same
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])

    def pushed(positives: Tensor | None) -> float:
        """How much the loss rises as caption 1 nears picture 0, which it describes."""
        loss = contrastive_loss(pictures, captions, 0.1, positives)
        return (torch.autograd.grad(loss, captions)[0][1] @ pictures[0]).item()

    assert pushed(None) > 0.01
    assert pushed(same) < -0.01
    with pytest.raises(ValueError, match="at least 2"):
        contrastive_loss(pictures[:1], captions[:1], 0.1)  # one pair teaches nothing
