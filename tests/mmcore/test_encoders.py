"""(1.1) 视觉编码器与 (1.2) 文本编码器 / (1.1) the visual encoder and (1.2) the text encoder."""

import os
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from transformers import (
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    DistilBertConfig,
    DistilBertModel,
    GPT2Config,
    GPT2Model,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

from mmcore import tokens as text
from mmcore.encoders import BACKBONES, MAX_TOKENS, TEXT_MODELS, TextEncoder, VisualEncoder

TOKENIZER = text.build_tokenizer(["red apple", "红苹果", "tree"])


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
    alone = encoder(**encoder.tokenize(["tree"]))
    padded = encoder(**encoder.tokenize(["tree", "red apple 红苹果 red apple"]))[:1]
    assert torch.allclose(alone, padded, atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("model_name", TEXT_MODELS)
def test_every_parameter_is_registered_and_reached_by_a_gradient(backbone: str, model_name: str) -> None:
    visual, textual = VisualEncoder(16, backbone), TextEncoder(model_name, 16, TOKENIZER)
    f_v = visual(images(3))
    f_t = textual(**textual.tokenize(["red apple", "红苹果", "tree"]))
    (f_v * f_t).pow(2).sum().backward()
    still = [name for encoder in (visual, textual) for name, p in encoder.named_parameters() if p.grad is None]
    assert still == []


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_same_picture_gives_the_same_feature_in_eval_mode(backbone: str) -> None:
    encoder = VisualEncoder(16, backbone).eval()
    together = encoder(images(4))
    assert torch.equal(encoder(images(4)), together)
    assert torch.allclose(encoder(images(4)[:1]), together[:1], atol=1e-5)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_brightness_and_contrast_of_the_whole_picture_change_nothing(backbone: str) -> None:
    encoder = VisualEncoder(16, backbone).eval()
    assert torch.allclose(encoder(images(2)), encoder(0.2 + 0.5 * images(2)), atol=1e-2)


def test_a_state_dict_carries_an_encoder_over() -> None:
    for make in (lambda: VisualEncoder(16), lambda: TextEncoder("bert-tiny", 16, TOKENIZER)):
        first, second = make().eval(), make().eval()
        second.load_state_dict(first.state_dict())
        given = (images(2),) if isinstance(first, VisualEncoder) else tuple(first.tokenize(["tree", "red"]).values())
        assert torch.equal(first(*given), second(*given))


def test_without_a_tokenizer_the_text_encoder_knows_the_words_of_the_emoji_data() -> None:
    tokenizer = TextEncoder(feature_dim=8).tokenizer
    text.check_known(tokenizer, "red apple 红苹果 fruit 水果")


@pytest.mark.parametrize(("image", "error", "match"), [
    (torch.rand(2, 1, 32, 32), ValueError, r"got \(2, 1, 32, 32\)"),
    (torch.rand(2, 3, 16, 16), ValueError, r"got \(2, 3, 16, 16\)"),
    (torch.rand(3, 32, 32), ValueError, r"got \(3, 32, 32\)"),
    (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), TypeError, "divide uint8 pictures by 255"),
])
def test_pictures_of_a_wrong_shape_or_type_are_refused(image: torch.Tensor, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        VisualEncoder(8)(image)


def test_unknown_backbones_and_widths_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"需要是 resnet-tiny、vit-tiny，或 .*收到 'resnet51' / backbone must be "
                                         r"resnet-tiny, vit-tiny or the name of a classification model of torchvision"):
        VisualEncoder(8, "resnet51")
    with pytest.raises(ValueError, match="resnet-tiny is trained from nothing and has no weights to load, got 'DEF"):
        VisualEncoder(8, weights="DEFAULT")
    with pytest.raises(ValueError, match=r"weights of resnet18 must be one of IMAGENET1K_V1, DEFAULT or the path of "
                                         r"a file, got 'best'"):
        VisualEncoder(8, "resnet18", "best")
    with pytest.raises(ValueError, match="some-model comes with its own tokenizer and takes no other"):
        TextEncoder("some-model", 8, TOKENIZER)
    with pytest.raises(ValueError, match="feature_dim must be at least 1, got 0"):
        VisualEncoder(0)


def test_a_text_too_long_or_a_mask_of_another_shape_is_refused() -> None:
    encoder = TextEncoder("bert-tiny", 8, TOKENIZER)
    with pytest.raises(ValueError, match=f"at most {MAX_TOKENS} tokens"):
        encoder.tokenize(["tree " * MAX_TOKENS])
    with pytest.raises(ValueError, match="must both be"):
        encoder(torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 4, dtype=torch.long))


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
    (torch.ones(2, 3), torch.ones(2, 3), TypeError, "input_ids must be an integer tensor, got torch.float32"),
    (torch.ones(2, 65, dtype=torch.long), torch.ones(2, 65), ValueError, "at most 64 tokens, got 65"),
    (torch.ones(2, 3, dtype=torch.long), torch.tensor([[1, 1, 0], [0, 0, 0]]), ValueError, "a row has no real token"),
])
@pytest.mark.parametrize("model_name", TEXT_MODELS)
def test_token_ids_that_would_give_a_nan_or_an_index_error_are_refused(
        model_name: str, ids: torch.Tensor, mask: torch.Tensor, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        TextEncoder(model_name, 8, TOKENIZER).eval()(ids, mask)


# -- any torchvision model --------------------------------------------------------------------------------------------

@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """没有网络，也没有下载过的东西 / No network, and nothing downloaded before."""
    def refuse(*_: object) -> None:
        raise OSError("the network is cut")
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.parametrize(("name", "width"), [("squeezenet1_1", 512), ("shufflenet_v2_x0_5", 1024), ("resnet18", 512),
                                             ("mobilenet_v3_small", 1024), ("googlenet", 1024)])
def test_a_torchvision_model_by_name_loses_its_classifier_and_learns_in_every_parameter(name: str, width: int) -> None:
    encoder = VisualEncoder(16, name)
    assert encoder.project.in_features == width
    f_v = encoder(images(2))
    assert f_v.shape == (2, 16)
    (f_v * torch.randn(2, 16, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize(("name", "width", "size"), [("vit_b_16", 768, 224), ("resnet50", 2048, 224),
                                                     ("inception_v3", 2048, 299), ("vgg11", 4096, 224),
                                                     ("densenet121", 1024, 224), ("vit_h_14", 1280, 224)])
def test_no_width_and_no_size_is_hard_wired(name: str, width: int, size: int) -> None:
    with torch.device("meta"):  # shapes alone: these models are large
        encoder = VisualEncoder(16, name)
    assert encoder.project.in_features == width
    assert encoder.standardise.size == size


def by_hand(net: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """缩放、归一化、去掉分类层的 SqueezeNet / SqueezeNet by hand: resized, normalised, without its classifier."""
    mean, std = (torch.tensor(x).view(3, 1, 1) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    large = nn.functional.interpolate(image, size=(224, 224), mode="bilinear", antialias=True)
    with torch.no_grad():
        return net.features((large - mean) / std).relu().mean((2, 3))


@pytest.mark.parametrize("kind", ["state.pth", "state.safetensors", "DEFAULT"])
def test_weights_from_a_file_or_the_cache_are_the_ones_used_with_the_network_cut(kind: str, no_network: Path) -> None:
    torch.manual_seed(3)
    net = models.squeezenet1_1().eval()
    no_network.mkdir(parents=True)
    path = no_network / (kind if kind != "DEFAULT" else models.SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2])
    (save_file if path.suffix == ".safetensors" else torch.save)(net.state_dict(), path)
    encoder = VisualEncoder(16, "squeezenet1_1", "DEFAULT" if kind == "DEFAULT" else path).eval()
    features = encoder.backbone(encoder.standardise(images(2)))
    assert torch.allclose(features, by_hand(net, images(2)), atol=1e-4)
    assert "standardise.mean" not in encoder.state_dict()


def test_without_the_weights_and_the_network_the_error_says_what_to_do(no_network: Path) -> None:
    with pytest.raises(OSError, match=r"拿不到 squeezenet1_1 的权重.*backbone='resnet-tiny' / the weights of "
                                      r"squeezenet1_1 cannot be had .*Download https.*squeezenet1_1.*give the path"):
        VisualEncoder(8, "squeezenet1_1", "DEFAULT")
    assert VisualEncoder(8, "squeezenet1_1").eval()(images(1)).shape == (1, 8)  # from nothing it needs no network


class Malice:
    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("cached", [False, True])
def test_code_hidden_in_a_file_of_weights_is_never_run(cached: bool, no_network: Path) -> None:
    no_network.mkdir(parents=True)
    url = models.SqueezeNet1_1_Weights.DEFAULT.url
    path, canary = no_network / (url.rpartition("/")[2] if cached else "bad.pth"), no_network / "canary"
    torch.save({"x": Malice(canary)}, path)
    with pytest.raises((OSError, ValueError), match="squeezenet1_1" if cached else "bad.pth is no state dict"):
        VisualEncoder(8, "squeezenet1_1", "DEFAULT" if cached else path)
    assert not canary.exists()


def test_a_state_of_another_model_is_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth 不是这个骨干的 state dict.*use a file written by torch.save"):
        VisualEncoder(8, "squeezenet1_1", tmp_path / "other.pth")


# -- any Hugging Face text model --------------------------------------------------------------------------------------

SIZE = TOKENIZER.get_vocab_size()
SMALL = {
    "bert": lambda: BertModel(BertConfig(vocab_size=SIZE, hidden_size=24, num_hidden_layers=1, num_attention_heads=2,
                                         intermediate_size=16, max_position_embeddings=20)),
    "roberta": lambda: RobertaModel(RobertaConfig(vocab_size=SIZE, hidden_size=24, num_hidden_layers=1,
                                                  num_attention_heads=2, intermediate_size=16,
                                                  max_position_embeddings=20, pad_token_id=0)),
    "gpt2": lambda: GPT2Model(GPT2Config(vocab_size=SIZE, n_positions=20, n_embd=20, n_layer=1, n_head=2)),
    "distilbert": lambda: DistilBertModel(DistilBertConfig(vocab_size=SIZE, dim=12, n_layers=1, n_heads=2,
                                                           hidden_dim=16, max_position_embeddings=20)),
    "t5": lambda: T5Model(T5Config(vocab_size=SIZE, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2,
                                   decoder_start_token_id=0)),
}
WIDTHS = {"bert": 24, "roberta": 24, "gpt2": 20, "distilbert": 12, "t5": 16}


def folder(path: Path, model: PreTrainedModel, pad: str | None = text.PAD) -> str:
    """一个真的 Hugging Face 文件夹 / A real folder of Hugging Face's: weights, configuration, tokenizer."""
    model.save_pretrained(path)
    PreTrainedTokenizerFast(tokenizer_object=TOKENIZER, pad_token=pad, unk_token=text.UNK, cls_token=text.CLS,
                            sep_token=text.SEP, eos_token=text.SEP).save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("kind", SMALL)
def test_a_text_model_from_a_local_folder_is_the_one_saved_and_padding_changes_nothing(
        kind: str, tmp_path: Path, no_network: Path) -> None:
    torch.manual_seed(0)
    model = SMALL[kind]().eval()
    encoder = TextEncoder(folder(tmp_path / "model", model, None if kind == "gpt2" else text.PAD), 8).eval()
    assert encoder.project.in_features == WIDTHS[kind]
    tokens = encoder.tokenize(["tree", "red apple 红苹果 red apple"])
    assert int(tokens["attention_mask"][0].sum()) == 3  # [CLS] tree [SEP]
    alone = encoder.tokenize(["tree"])
    assert torch.allclose(encoder(**tokens)[:1], encoder(**alone), atol=1e-5)
    reader = model.get_encoder() if kind == "t5" else model
    with torch.no_grad():
        mean = reader(**alone).last_hidden_state.mean(1)
        assert torch.allclose(encoder.project(mean), encoder.normalise(encoder.project(mean)), atol=1e-4)
        assert torch.allclose(encoder(**alone), encoder.normalise(encoder.project(mean)), atol=1e-5)


@pytest.mark.parametrize("kind", SMALL)
def test_no_parameter_of_a_loaded_text_model_is_without_a_gradient(kind: str, tmp_path: Path) -> None:
    """缺陷 13：pooler_output 与 768 写死 / Fault 13: pooler_output and 768 hard-wired; a GPT has neither."""
    encoder = TextEncoder(folder(tmp_path, SMALL[kind]()), 8)
    encoder(**encoder.tokenize(["tree", "red apple", "红苹果"])).pow(3).sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


def test_weights_saved_in_half_precision_are_loaded_in_full(tmp_path: Path) -> None:
    encoder = TextEncoder(folder(tmp_path, SMALL["bert"]().bfloat16()), 8).eval()
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    assert encoder(**encoder.tokenize(["tree"])).dtype == torch.float32


def test_a_text_longer_than_the_loaded_model_can_read_is_refused(tmp_path: Path) -> None:
    encoder = TextEncoder(folder(tmp_path, SMALL["gpt2"]()), 8).eval()
    assert encoder(**encoder.tokenize(["tree " * 18])).shape == (1, 8)
    with pytest.raises(ValueError, match="最多 20 个词元，收到 21 个 / a text may have at most 20 tokens, got 21"):
        encoder.tokenize(["tree " * 19])


def test_without_the_model_and_the_network_the_error_says_what_to_do(no_network: Path) -> None:
    with pytest.raises(OSError, match=r"载入不了文本模型 'someone/never-downloaded'.*hf download someone/never-down.* "
                                      r"--local-dir.* / the text model .* cannot be loaded .*Use bert-tiny or gpt-"):
        TextEncoder("someone/never-downloaded", 8)


def test_pickled_weights_are_refused_and_never_opened(tmp_path: Path) -> None:
    path = folder(tmp_path, SMALL["gpt2"]())
    (tmp_path / "model.safetensors").unlink()
    torch.save({"x": Malice(tmp_path / "canary")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"权重须是 model.safetensors / .*The weights must be model.safetensors"):
        TextEncoder(path, 8)
    assert not (tmp_path / "canary").exists()


def test_a_model_that_reads_no_text_is_refused(tmp_path: Path) -> None:
    model = CLIPVisionModel(CLIPVisionConfig(hidden_size=8, intermediate_size=8, num_hidden_layers=1,
                                             num_attention_heads=1, image_size=32, patch_size=16))
    with pytest.raises(ValueError, match=r"不是文本模型 / .* is no text model"):
        TextEncoder(folder(tmp_path, model), 8)
