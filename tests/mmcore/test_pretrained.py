"""别人的权重：按名字，或按文件 / Weights of others, by name or by file."""

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
from mmcore.encoders import TextEncoder, VisualEncoder

TOKENIZER = text.build_tokenizer(["red apple", "红苹果", "tree"])


def images(n: int) -> torch.Tensor:
    return torch.rand(n, 3, 32, 32, generator=torch.Generator().manual_seed(0))


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
    with torch.device("meta"):  # shapes only: these models are large
        encoder = VisualEncoder(16, name)
    assert encoder.project.in_features == width
    assert encoder.standardise.size == size


def test_unknown_names_and_weights_are_refused_with_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"需要是 resnet-tiny、vit-tiny，或 .*收到 'resnet51' / backbone must be "
                                         r"resnet-tiny, vit-tiny or the name of a classification model of torchvision"):
        VisualEncoder(8, "resnet51")
    with pytest.raises(ValueError, match=r"weights of resnet18 must be one of IMAGENET1K_V1, DEFAULT or the path of "
                                         r"a file, got 'best'"):
        VisualEncoder(8, "resnet18", "best")


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
    single = encoder.tokenize(["tree"])
    assert torch.allclose(encoder(**tokens)[:1], encoder(**single), atol=1e-5)
    reader = model.get_encoder() if kind == "t5" else model
    with torch.no_grad():
        mean = reader(**single).last_hidden_state.mean(1)
        assert torch.allclose(encoder.project(mean), encoder.normalise(encoder.project(mean)), atol=1e-4)
        assert torch.allclose(encoder(**single), encoder.normalise(encoder.project(mean)), atol=1e-5)


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
