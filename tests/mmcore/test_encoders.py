"""(1.1) 视觉编码器与 (1.2) 文本编码器 / (1.1) the visual encoder and (1.2) the text encoder."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from mmcore import tokens as text
from mmcore.encoders import BACKBONES, MAX_TOKENS, TEXT_MODELS, TextEncoder, VisualEncoder

TOKENIZER = text.build_tokenizer(["red apple", "红苹果", "tree"])
SIZE = TOKENIZER.get_vocab_size()


def images(n: int, size: int = 32) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.formula("1.1")
@pytest.mark.parametrize("backbone", BACKBONES)
def test_1_1_is_backbone_then_projection_then_normalisation(backbone: str) -> None:
    """逐步照算：标准化、骨干、矩阵乘、批归一化 / Step by step in float64: standardise, backbone, matrix, batch norm."""
    encoder = VisualEncoder(16, backbone).double().eval()
    image = images(4).double()
    rows = []
    for picture in image:
        standard = (picture - picture.mean()) / (picture.var(unbiased=False) + 1e-5).sqrt()
        features = encoder.backbone(standard.unsqueeze(0))[0]
        rows.append(torch.stack([(w * features).sum() for w in encoder.project.weight]))
    norm = encoder.normalise
    wanted = (torch.stack(rows) - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    assert torch.allclose(encoder(image), wanted, atol=1e-9)
    assert wanted.shape == (4, 16)


@pytest.mark.formula("1.2")
@pytest.mark.parametrize("model_name", TEXT_MODELS)
def test_1_2_is_the_mean_of_the_real_tokens(model_name: str) -> None:
    encoder = TextEncoder(model_name, 16, TOKENIZER).double().eval()
    tokens = encoder.tokenize(["red apple", "tree"])
    states = encoder.backbone(**tokens).last_hidden_state
    norm, rows = encoder.normalise, []
    for state, mask in zip(states, tokens["attention_mask"], strict=True):
        real = [token for token, keep in zip(state, mask, strict=True) if keep]
        rows.append(encoder.project.weight @ (sum(real) / len(real)))
    wanted = (torch.stack(rows) - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
    assert torch.allclose(encoder(**tokens), wanted, atol=1e-9)


@pytest.mark.parametrize("model_name", TEXT_MODELS)
def test_padding_changes_no_text_feature(model_name: str) -> None:
    encoder = TextEncoder(model_name, 16, TOKENIZER).eval()
    single = encoder(**encoder.tokenize(["tree"]))
    padded = encoder(**encoder.tokenize(["tree", "red apple 红苹果 red apple"]))[:1]
    assert torch.allclose(single, padded, atol=1e-5)


@pytest.mark.parametrize("model_name", TEXT_MODELS)
def test_what_comes_from_outside_is_not_believed__padding_on_the_left_changes_no_text_feature(model_name: str) -> None:
    """左边的、夹在中间的补齐 / Padding on the left, and in between."""
    encoder = TextEncoder(model_name, 16, TOKENIZER).eval()
    tokens = encoder.tokenize(["tree", "red apple 红苹果", "红"])
    left = {name: torch.stack([row.roll(int((mask == 0).sum())) for row, mask in
                               zip(x, tokens["attention_mask"], strict=True)]) for name, x in tokens.items()}
    assert left["attention_mask"][0, 0] == 0
    spread = {name: torch.stack([x, torch.zeros_like(x)], 2).flatten(1) for name, x in tokens.items()}
    for other in (left, spread, {**left, "attention_mask": left["attention_mask"].bool()}):
        torch.testing.assert_close(encoder(**other), encoder(**tokens), rtol=0, atol=0)


@pytest.mark.parametrize("change", [lambda t: t.no_padding(), lambda t: t.enable_padding(length=20),
                                    lambda t: t.enable_padding(direction="left"), lambda t: t.add_tokens(["pear"])])
def test_a_tokenizer_of_ones_own_may_pad_as_it_likes(change: Callable) -> None:
    tokenizer, wanted = (text.build_tokenizer(["red apple", "tree"]) for _ in range(2))
    change(tokenizer)
    encoder = TextEncoder("bert-tiny", 8, tokenizer).eval()
    tokens = encoder.tokenize(["tree", "red apple"])
    assert tokens["input_ids"].tolist() == [row.ids for row in wanted.encode_batch(["tree", "red apple"])]
    assert tokens["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert encoder(**tokens).shape == (2, 8)


@pytest.mark.parametrize(("make", "numbers", "width"), [
    (lambda: VisualEncoder(16, "resnet-tiny"), 60_192, 64 * 4 * 4), (lambda: VisualEncoder(16, "vit-tiny"), 80_576, 64),
    (lambda: TextEncoder("bert-tiny", 16, TOKENIZER), 37_824 + 64 * SIZE, 64),
    (lambda: TextEncoder("gpt-tiny", 16, TOKENIZER), 54_208 + 64 * SIZE, 64)])
def test_the_tiny_backbones_are_as_large_as_they_were_chosen_to_be(make: Callable, numbers: int, width: int) -> None:
    encoder = make()
    assert sum(p.numel() for p in encoder.backbone.parameters()) == numbers
    assert encoder.project.in_features == width


@pytest.mark.parametrize("size", [32, 64, 100])
def test_the_tiny_resnet_layer_by_layer(size: int) -> None:
    net, x = VisualEncoder(16).backbone.eval(), images(2, size)
    block = net.layer1[0]
    x = F.max_pool2d(net.bn1(F.conv2d(x, net.conv1.weight, stride=2, padding=2)).relu(), 3, stride=2, padding=1)
    inner = block.bn1(F.conv2d(x, block.conv1.weight, stride=2, padding=1)).relu()
    around = block.downsample[1](F.conv2d(x, block.downsample[0].weight, stride=2))
    x = (block.bn2(F.conv2d(inner, block.conv2.weight, padding=1)) + around).relu()
    wanted = F.adaptive_avg_pool2d(x, 4).permute(0, 2, 3, 1).flatten(1)  # cell after cell
    assert torch.allclose(net(images(2, size)), wanted, atol=1e-5)


def test_the_tiny_vit_takes_the_mean_of_its_patches_and_larger_pictures_come_down_to_32() -> None:
    net = VisualEncoder(16, "vit-tiny").backbone.eval()
    patches = net.vit.conv_proj(images(2)).flatten(2).transpose(1, 2)  # 4 × 4 of them
    seen = net.vit.encoder(torch.cat([net.vit.class_token.expand(2, -1, -1), patches], 1))
    assert torch.allclose(net(images(2)), seen[:, 1:].mean(1), atol=1e-6)
    assert torch.equal(net(images(2, 64)), net(F.avg_pool2d(images(2, 64), 2)))
    assert torch.equal(net(images(2, 64)[..., :32]), net(F.avg_pool2d(images(2, 64)[..., :32], (2, 1))))


@pytest.mark.parametrize("model_name", TEXT_MODELS)
def test_a_tiny_text_model_reads_up_to_64_tokens_and_drops_nothing_at_random(model_name: str) -> None:
    encoder = TextEncoder(model_name, 16, TOKENIZER)
    tokens = encoder.tokenize(["tree " * (MAX_TOKENS - 2), "red"])
    assert tokens["input_ids"].shape == (2, MAX_TOKENS)
    assert torch.equal(encoder(**tokens), encoder(**tokens))  # in training mode


def test_without_a_tokenizer_the_text_encoder_knows_the_words_of_the_emoji_data() -> None:
    tokenizer = TextEncoder(feature_dim=8).tokenizer
    text.check_known(tokenizer, "red apple 红苹果 fruit 水果")


@pytest.mark.parametrize(("image", "error", "match"), [
    (torch.rand(2, 3, 16, 16), ValueError, r"got \(2, 3, 16, 16\)"),
    (torch.rand(2, 3, 32, 31), ValueError, r"must have shape \(B, 3, ≥32, ≥32\), got \(2, 3, 32, 31\)"),
    (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), TypeError, "got torch.uint8; use image / 255"),
    (torch.rand(2, 3, 32, 32).double(), TypeError, "image must be torch.float32, got torch.float64; use image.to"),
])
def test_pictures_of_a_wrong_shape_or_type_are_refused(image: torch.Tensor, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        VisualEncoder(8)(image)


@pytest.mark.parametrize(("make", "match"), [
    (lambda: VisualEncoder(8, weights="DEFAULT"),
     "resnet-tiny is trained from nothing and has no weights to load, got 'DEFAULT'"),
    (lambda: TextEncoder("some-model", 8, TOKENIZER), "some-model comes with its own tokenizer and takes no other"),
])
def test_an_encoder_that_cannot_be_built_is_refused(make: Callable, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make()


def test_a_text_too_long_is_refused() -> None:
    encoder = TextEncoder("bert-tiny", 8, TOKENIZER)
    with pytest.raises(ValueError, match=f"at most {MAX_TOKENS} tokens"):
        encoder.tokenize(["tree " * MAX_TOKENS])


@pytest.mark.parametrize("kind", [*BACKBONES, *TEXT_MODELS])
def test_a_batch_of_one_in_training_is_refused_before_the_statistics_change(kind: str) -> None:
    visual = kind in BACKBONES
    encoder = VisualEncoder(8, kind) if visual else TextEncoder(kind, 8, TOKENIZER)
    given = (images(1),) if visual else tuple(encoder.tokenize(["tree"]).values())
    before = {name: t.clone() for name, t in encoder.state_dict().items()}
    with pytest.raises(ValueError, match=r"需要至少 2 个样本，收到 1 个.*needs at least 2 samples, got 1"):
        encoder(*given)
    assert all(torch.equal(before[name], t) for name, t in encoder.state_dict().items())
    assert encoder.eval()(*given).shape == (1, 8)


@pytest.mark.parametrize(("ids", "mask", "error", "match"), [
    (torch.ones(2, 65, dtype=torch.long), torch.ones(2, 65).bool(), ValueError, "at most 64 tokens, got 65"),
    (torch.tensor([[SIZE]]), torch.ones(1, 1).int(), ValueError, f"input_ids must lie between 0 and {SIZE - 1}"),
    (torch.tensor([[-1]]), torch.ones(1, 1).int(), ValueError, f"input_ids must lie between 0 and {SIZE - 1}"),
    (torch.ones(2, 3, dtype=torch.long), torch.tensor([[1, 1, 0], [0, 0, 0]]), ValueError, "a row has no real token"),
])
@pytest.mark.parametrize("model_name", TEXT_MODELS)
def test_token_ids_that_would_give_a_nan_or_an_index_error_are_refused(
        model_name: str, ids: torch.Tensor, mask: torch.Tensor, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        TextEncoder(model_name, 8, TOKENIZER).eval()(ids, mask)
