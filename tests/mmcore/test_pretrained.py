"""别人的权重：按名字，或按文件 / Weights of others, by name or by file."""

import os
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from torch import nn
from torchvision import models
from torchvision.transforms.functional import to_pil_image
from transformers import (
    AutoProcessor,
    BertConfig,
    BertModel,
    CLIPTokenizer,
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

import mmcore
from mmcore import pretrained
from mmcore import tokens as text
from mmcore.encoders import TextEncoder, VisualEncoder
from tests import tiny_models

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


@pytest.mark.parametrize(("name", "head"), [("googlenet", "fc"), ("inception_v3", "fc"), ("densenet121", "classifier"),
                                            ("mnasnet0_5", "classifier.1")])
def test_what_comes_from_outside_is_not_believed__a_file_by_name_and_by_path_gives_torchvisions_features(
        name: str, head: str, no_network: Path) -> None:
    """前两个要另改颜色；DenseNet 的文件用旧名字，MNASNet 的记着版本
    / Two change the colours again; DenseNet's file has old names, and MNASNet's tells its version."""
    torch.manual_seed(3)
    state = models.get_model(name, **({"init_weights": False} if head == "fc" else {})).state_dict()
    no_network.mkdir(parents=True)
    path = no_network / models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]
    if name == "densenet121":
        state = {re.sub(r"(denselayer\d+\.[a-z]+)(\d)", r"\1.\2", key): x for key, x in state.items()
                 if not key.endswith("num_batches_tracked")}
    torch.save(state, path)
    theirs = models.get_model(name, weights="DEFAULT").eval()
    theirs.set_submodule(head, nn.Identity())
    by_name, by_path = (VisualEncoder(16, name, weights).eval() for weights in ("DEFAULT", path))
    prepared = by_name.standardise(images(2))
    assert torch.equal(by_path.standardise(images(2)), prepared)
    with torch.no_grad():
        wanted = theirs(prepared)
        for encoder in (by_name, by_path):
            assert (encoder.backbone(prepared) - wanted).norm() < 1e-4 * wanted.norm()


@pytest.mark.parametrize("side", [32, 64])
def test_a_vit_gets_pictures_of_the_size_its_file_was_made_for(side: int, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "get_model", lambda name, weights=None, image_size=32: models.VisionTransformer(
        image_size, 16, 1, 2, 16, 16))
    torch.save(models.get_model("vit_b_16", image_size=side).state_dict(), tmp_path / "vit.pth")
    encoder = VisualEncoder(8, "vit_b_16", tmp_path / "vit.pth").eval()
    assert encoder.standardise.size == side
    assert encoder(images(2)).shape == (2, 8)


@pytest.mark.parametrize(("member", "size"), [("IMAGENET1K_V1", 224), ("IMAGENET1K_SWAG_E2E_V1", 384)])
def test_a_file_that_torchvision_gave_is_known_by_its_hash_whatever_it_is_called(
        member: str, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = models.get_model_weights("regnet_y_16gf")[member].url[-12:-4]
    torch.save({}, tmp_path / "renamed")  # in place of 300 MB
    monkeypatch.setattr(pretrained.hashlib, "sha256", lambda content: SimpleNamespace(hexdigest=lambda: digest + "0"))
    monkeypatch.setattr(pretrained, "_headless", lambda *_: (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), 3))
    assert VisualEncoder(8, "regnet_y_16gf", tmp_path / "renamed").standardise.size == size


def test_weights_that_give_nan_are_refused(tmp_path: Path) -> None:
    """vgg16 的 IMAGENET1K_FEATURES 就是这样 / As IMAGENET1K_FEATURES of vgg16 do."""
    state = models.squeezenet1_1().state_dict()
    state["features.0.bias"][0] = torch.nan
    torch.save(state, tmp_path / "nan.pth")
    with pytest.raises(ValueError, match=r"nan.pth 使特征成为 NaN 或无穷.*nan.pth makes the features NaN"):
        VisualEncoder(8, "squeezenet1_1", tmp_path / "nan.pth")


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


@pytest.mark.parametrize("content", [{"conv.weight": torch.zeros(2)}, {}, {"encoder.pos_embedding": torch.zeros(())},
                                     [torch.zeros(2)], None])
def test_a_state_of_another_model_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other.pth 不是这个骨干的 state dict.*; use one of torch.save"):
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


SPECIAL = {"pad_token": text.PAD, "unk_token": text.UNK, "cls_token": text.CLS, "sep_token": text.SEP,
           "eos_token": text.SEP}


def folder(path: Path, model: PreTrainedModel, tokenizer: Tokenizer = TOKENIZER, **special: str | None) -> str:
    """一个真的 Hugging Face 文件夹 / A real folder of Hugging Face's: weights, configuration, tokenizer."""
    model.save_pretrained(path)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL | special).save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("kind", SMALL)
def test_a_text_model_from_a_local_folder_is_the_one_saved_and_padding_changes_nothing(
        kind: str, tmp_path: Path, no_network: Path) -> None:
    torch.manual_seed(0)
    model = SMALL[kind]().eval()
    encoder = TextEncoder(folder(tmp_path / "model", model), 8).eval()
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


@pytest.mark.parametrize(("kind", "most"), [("gpt2", 20), ("bert", 20), ("roberta", 19)])
def test_a_loaded_model_reads_as_many_tokens_as_it_says_and_a_longer_text_is_refused(
        kind: str, most: int, tmp_path: Path) -> None:
    """RoBERTa 的位置从补齐的编号之后数起 / RoBERTa counts its positions from behind the id of its padding."""
    encoder = TextEncoder(folder(tmp_path, SMALL[kind]()), 8).eval()
    assert encoder(**encoder.tokenize(["tree " * (most - 2), "tree"])).shape == (2, 8)
    with pytest.raises(ValueError, match=f"最多 {most} 个词元，收到 {most + 1} 个 / a text may have at most {most} "):
        encoder.tokenize(["tree " * (most - 1)])


PLAIN = Tokenizer(WordLevel({"red": 0, "apple": 1, "tree": 2}))  # it has no token but words
PLAIN.pre_tokenizer = Whitespace()
PADDED = Tokenizer(WordLevel({"red": 0, "apple": 1, "tree": 2, "[UNK]": 3, "[PAD]": 50}, unk_token="[UNK]"))
PADDED.pre_tokenizer = Whitespace()
NONE = dict.fromkeys(SPECIAL)


@pytest.mark.parametrize("tokenizer", [PLAIN, PADDED], ids=["no pad, end or unknown", "pad outside the table"])
def test_a_tokenizer_whose_padding_cannot_be_looked_up_pads_all_the_same(tokenizer: Tokenizer, tmp_path: Path) -> None:
    special = NONE if tokenizer is PLAIN else NONE | {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    encoder = TextEncoder(folder(tmp_path, SMALL["gpt2"](), tokenizer, **special), 8).eval()
    tokens = encoder.tokenize(["tree", "red apple"])
    assert tokens["attention_mask"].tolist() == [[1, 0], [1, 1]]
    torch.testing.assert_close(encoder(**tokens)[:1], encoder(**encoder.tokenize(["tree"])))
    if tokenizer is PLAIN:
        with pytest.raises(ValueError, match=r"分词器读不了这些文本：.* / the tokenizer cannot read these texts: "):
            encoder.tokenize(["pear"])


def spoil_weights(path: Path, change: Callable[[dict], object]) -> None:
    state = load_file(path / "model.safetensors")
    change(state)
    save_file(state, path / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize(("kind", "key"), [("gpt2", "h.0.mlp.c_fc.weight"),
                                           ("bert", "encoder.layer.0.output.dense.bias"),
                                           ("t5", "encoder.block.0.layer.0.SelfAttention.q.weight")])
def test_a_folder_without_all_its_weights_is_refused_instead_of_left_to_chance(kind: str, key: str, tmp_path: Path):
    path = folder(tmp_path, SMALL[kind]())
    spoil_weights(tmp_path, lambda state: state.pop(key))
    with pytest.raises(ValueError, match=rf"缺少权重 '{key}'.* it lacks weights, as '{key}'; download it again"):
        TextEncoder(path, 8)


@pytest.mark.parametrize(("kind", "spare"), [("bert", "pooler."), ("t5", "decoder.")])
def test_a_folder_without_weights_that_are_not_used_is_loaded(kind: str, spare: str, tmp_path: Path) -> None:
    path = folder(tmp_path, SMALL[kind]())
    spoil_weights(tmp_path, lambda state: [state.pop(key) for key in list(state) if key.startswith(spare)])
    encoder = TextEncoder(path, 8).eval()
    assert encoder(**encoder.tokenize(["tree"])).isfinite().all()


def test_a_folder_with_nan_in_its_weights_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, SMALL["bert"]())
    spoil_weights(tmp_path, lambda state: state["encoder.layer.0.output.dense.weight"].fill_(torch.nan))
    with pytest.raises(ValueError, match=r"或特征是 'NaN'.* or they are 'NaN'"):
        TextEncoder(path, 8)


def test_a_model_that_reads_padding_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, forward = folder(tmp_path, SMALL["bert"]()), BertModel.forward
    monkeypatch.setattr(BertModel, "forward", lambda self, input_ids, attention_mask: forward(self, input_ids))
    with pytest.raises(ValueError, match=r"补齐改变特征.* padding changes its features.*; download it again, or use"):
        TextEncoder(path, 8)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    other = text.build_tokenizer(["red apple", "红苹果", "tree", "zebra"])
    with pytest.raises(ValueError, match=r"不认得自己的分词器的 '.*'.* does not know, of its own tokenizer, '"):
        TextEncoder(folder(tmp_path, SMALL["bert"](), other), 8)


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
    with pytest.raises(ValueError, match=r"不是文本模型：.* / .* is no text model: "):
        TextEncoder(folder(tmp_path, model), 8)


# -- any CLIP, Chinese-CLIP, SigLIP or model of open_clip -------------------------------------------------------------

def photos(n: int, height: int = 40, width: int = 56) -> torch.Tensor:
    """条纹多，缩放的方法稍有不同就看得出 / So much detail that another way to resize would be seen."""
    return torch.randint(0, 256, (n, 3, height, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def own_features(model: nn.Module, processor: Any, pictures: torch.Tensor, texts: list[str]) -> tuple:
    """照 transformers 的文档，从 PIL 图像算起 / As the documentation of transformers has it, from PIL pictures."""
    padding = "max_length" if "Siglip" in type(model).__name__ else True
    seen = processor(images=[to_pil_image(x) for x in pictures], return_tensors="pt")
    read = processor.tokenizer(texts, padding=padding, return_tensors="pt")
    with torch.no_grad():
        return model.get_image_features(**seen).pooler_output, model.get_text_features(**read).pooler_output


@pytest.mark.parametrize("size", [(40, 56), (32, 32), (9, 3), (120, 33)])
@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_features_are_those_of_the_model_itself_whatever_the_size_of_the_picture(kind: str, size: tuple) -> None:
    model, processor = tiny_models.KINDS[kind]()
    encoder = mmcore.from_clip(model, processor)
    f_v, f_t = own_features(model, processor, photos(3, *size), tiny_models.TEXTS)
    torch.testing.assert_close(encoder.encode_pictures(photos(3, *size)), f_v, rtol=0, atol=1e-5)
    torch.testing.assert_close(encoder.encode_texts(tiny_models.TEXTS), f_t, rtol=0, atol=1e-5)
    assert (f_v - f_v[0]).abs()[1:].max() > 1e-2 < (f_t - f_t[0]).abs()[1:].amax(1).min()  # and 1e-5 is little
    assert (f_v.norm(dim=1) - 1).abs().min() > 1e-2  # they are not normalised


@pytest.mark.parametrize("backend", ["torchvision", "pil"])
@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_a_folder_gives_the_features_of_the_model_saved_with_the_network_cut(
        kind: str, backend: str, tmp_path: Path, no_network: Path) -> None:
    model, processor = tiny_models.KINDS[kind]()
    model.half().float().save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path, backend=backend)
    wanted = own_features(model, processor, photos(2), tiny_models.TEXTS)
    encoders = [mmcore.from_clip(str(tmp_path), processor)]
    if backend == "torchvision":  # what a folder gets by itself
        encoders += [mmcore.from_clip(tmp_path), mmcore.from_clip(model, str(tmp_path))]
    for encoder in encoders:
        assert not encoder.training
        assert {p.dtype for p in encoder.parameters()} == {torch.float32}
        for found, f in zip((encoder.encode_pictures(photos(2)), encoder.encode_texts(tiny_models.TEXTS)), wanted,
                            strict=True):
            torch.testing.assert_close(found, f, rtol=0, atol=1e-5)


def test_a_list_of_pictures_of_several_sizes_is_encoded_one_by_one() -> None:
    encoder = mmcore.from_clip(*tiny_models.clip())
    one, other = photos(1), photos(1, 64, 20)
    torch.testing.assert_close(encoder.encode_pictures([one[0], other[0]]),
                               torch.cat([encoder.encode_pictures(one), encoder.encode_pictures(other)]))


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_modes_devices_and_what_is_frozen_are_the_users(kind: str) -> None:
    model, processor = tiny_models.KINDS[kind]()
    model.train()
    next(model.children()).eval()
    next(model.parameters()).requires_grad_(False)
    modes, frozen = [m.training for m in model.modules()], [p.requires_grad for p in model.parameters()]
    luck = torch.get_rng_state()
    encoder = mmcore.from_clip(model, processor)
    assert encoder.training
    assert torch.equal(torch.get_rng_state(), luck)
    for encode, given in ((encoder.encode_pictures, photos(2)), (encoder.encode_texts, ["a", "a red tree"])):
        assert not encode(given).requires_grad
        assert encode(given, gradients=True).requires_grad
        with torch.no_grad():
            assert not encode(given, gradients=True).requires_grad
    assert [m.training for m in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == frozen
    assert not any(encoder.requires_grad_(False).encode_pictures(photos(1), True).requires_grad for _ in "a")


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_what_is_made_on_the_way_lies_on_no_default_device(kind: str) -> None:
    model, processor = tiny_models.KINDS[kind]()
    wanted = own_features(model, processor, photos(2), tiny_models.TEXTS)
    pictures = photos(2)
    with torch.device("meta"):  # where all goes that does not say where
        encoder = mmcore.from_clip(model, processor)
        found = encoder.encode_pictures(pictures), encoder.encode_texts(tiny_models.TEXTS)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_a_head_and_the_model_below_it_can_learn() -> None:
    encoder = mmcore.from_clip(*tiny_models.clip())
    loss = encoder.encode_pictures(photos(2), gradients=True).pow(2).sum() + encoder.encode_texts(
        tiny_models.TEXTS, gradients=True).pow(2).sum()
    loss.backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == ["model.logit_scale"]


def test_a_model_in_half_precision_reads_in_half_precision() -> None:
    model, processor = tiny_models.clip()
    wanted = own_features(model, processor, photos(2), ["a"])
    encoder = mmcore.from_clip(model.bfloat16(), processor)
    found = encoder.encode_pictures(photos(2)), encoder.encode_texts(["a"])
    for f, g in zip(found, wanted, strict=True):
        assert f.dtype == torch.bfloat16
        assert (f - g).abs().max() < 0.1 * g.abs().max()


@pytest.mark.parametrize("kind", tiny_models.KINDS)
def test_a_text_is_read_to_its_last_token_or_refused(kind: str) -> None:
    encoder = mmcore.from_clip(*tiny_models.KINDS[kind]())
    most = 16 if kind == "siglip" else 24
    words = most - (1 if kind == "siglip" else 2)  # beside the tokens of beginning and end
    f = encoder.encode_texts(["a " * words, "a " * (words - 1) + "r"])
    assert (f[0] - f[1]).abs().max() > 1e-4
    with pytest.raises(ValueError, match=rf"texts\[1\] 超过了这个模型能读的 {most} 个词元.*than the {most} tokens"):
        encoder.encode_texts(["a", "a " * (words + 1)])


def misfit(kind: str, **change: Any) -> tuple[nn.Module, Any]:
    """一个模型，和一个有点不对的 processor / A model, and a processor that is somewhat wrong."""
    model, processor = tiny_models.KINDS[kind]()
    for name, value in change.items():
        owner = processor.image_processor if hasattr(processor.image_processor, name) else processor.tokenizer
        setattr(owner, name, value)
    return model, processor


LARGER = {"height": 48, "width": 48}


@pytest.mark.parametrize(("make", "why"), [
    (lambda: (tiny_models.clip()[0], tiny_models.clip(48)[1]), r"\(48, 48\)，模型读 \(32, 32\).*of \(48, 48\), not"),
    (lambda: (tiny_models.siglip()[0], tiny_models.siglip(35)[1]), r"of \(35, 35\), not \(32, 32\)"),  # as many patches
    (lambda: misfit("siglip", size=LARGER), r"of \(48, 48\), not \(32, 32\)"),
    (lambda: misfit("clip", do_center_crop=False), r"of \(32, 44\), not \(32, 32\)"),
    (lambda: misfit("clip", do_resize=False, do_center_crop=False), r"of \(40, 56\), not \(32, 32\)"),
    (lambda: misfit("clip", do_rescale=False), "没有按所说的均值和标准差归一化.*it does not normalise by the mean"),
    (lambda: misfit("siglip", model_max_length=8), "补齐到 8 个词元，模型读 16 个.*pads texts to 8 tokens, not 16"),
    (lambda: (tiny_models.clip()[0], tiny_models.siglip()[1]), "不同的文本特征相同.*different texts have"),
    (lambda: (tiny_models.siglip()[0], tiny_models.clip()[1]), r"不认得它的词元 '.*'.*does not know its token '.*'"),
])
def test_a_processor_of_another_model_is_refused(make: Callable, why: str) -> None:
    with pytest.raises(ValueError, match=rf"不能一起用：.*{why}.*; use the processor of this very model"):
        mmcore.from_clip(*make())


def test_weights_with_nan_are_refused() -> None:
    model, processor = tiny_models.clip()
    with torch.no_grad():
        model.visual_projection.weight[0, 0] = torch.nan
    with pytest.raises(ValueError, match=r"或是 NaN.*or are NaN"):
        mmcore.from_clip(model, processor)


@pytest.mark.parametrize(("arguments", "why"), [
    ((nn.Linear(2, 2),), "model must be a CLIP, a Chinese-CLIP, a SigLIP or one of open_clip, got Linear"),
    ((3,), "model must be a str or Path or Module, got int"),
    ((tiny_models.clip()[0],), r"processor must be that of the model, got NoneType; use AutoProcessor"),
    ((tiny_models.clip()[0], CLIPTokenizer()), r"processor must be that of the model, got CLIPTokenizer; use Auto"),
])
def test_what_is_no_model_or_no_processor_is_refused_by_its_name(arguments: tuple, why: str) -> None:
    with pytest.raises((TypeError, ValueError), match=why):
        mmcore.from_clip(*arguments)


@pytest.mark.parametrize(("pictures", "came"), [
    (torch.rand(2, 3, 8, 8), r"torch.float32 \(2, 3, 8, 8\)"), ("a.png", "str"), (photos(1).numpy(), "ndarray"),
    (photos(1)[0], r"torch.uint8 \(3, 40, 56\)"), (photos(2)[:, :1], r"torch.uint8 \(2, 1, 40, 56\)"),
    (photos(2)[:0], r"torch.uint8 \(0, 3"), (photos(2)[..., :0], r"torch.uint8 \(2, 3, 40, 0\)"), ([], "list"),
    ([photos(1)], "list"), ([photos(1)[0], None], "list"), (photos(1)[0, 0], r"torch.uint8 \(40, 56\)")])
def test_pictures_are_uint8_as_everywhere(pictures: object, came: str) -> None:
    with pytest.raises(TypeError, match=rf"pictures 需要是 uint8 .* / pictures must be a uint8 tensor .*, got {came}"):
        mmcore.from_clip(*tiny_models.clip()).encode_pictures(pictures)


def test_without_the_clip_and_the_network_the_error_says_what_to_do(no_network: Path) -> None:
    with pytest.raises(OSError, match=r"载入不了 'someone/never-downloaded'.*hf download .* / 'someone/never-down.*"
                                      r" cannot be loaded .*Run hf download NAME --local-dir FOLDER"):
        mmcore.from_clip("someone/never-downloaded")


def test_a_clip_without_all_its_weights_and_pickled_weights_are_refused(tmp_path: Path) -> None:
    model, processor = tiny_models.clip()
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    spoil_weights(tmp_path, lambda state: state.pop("text_projection.weight"))
    with pytest.raises(ValueError, match=r"缺少权重 'text_projection.weight'.*it lacks weights, as 'text_proj"):
        mmcore.from_clip(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save({"x": Malice(tmp_path / "canary")}, tmp_path / "pytorch_model.bin")
    with pytest.raises(OSError, match=r"权重须是 model.safetensors.*The weights must be model.safetensors"):
        mmcore.from_clip(tmp_path)
    assert not (tmp_path / "canary").exists()


# what open_clip makes; it comes with the extra `benchmarks`

def test_a_folder_of_open_clip_gives_the_features_of_its_model(tmp_path: Path, no_network: Path) -> None:
    theirs = pytest.importorskip("open_clip")
    path = tiny_models.open_clip(tmp_path)
    model, for_training, preprocess = theirs.create_model_and_transforms(f"local-dir:{path}")
    tokenize = theirs.get_tokenizer(f"local-dir:{path}")
    with torch.no_grad():
        f_v = model.eval().encode_image(torch.stack([preprocess(to_pil_image(x)) for x in photos(3)]))
        f_t = model.encode_text(tokenize(tiny_models.TEXTS))
    assert (f_t - f_t[0]).abs()[1:].amax(1).min() > 1e-2
    for encoder in (mmcore.from_clip(path), mmcore.from_clip(model, (preprocess, tokenize))):
        torch.testing.assert_close(encoder.encode_pictures(photos(3)), f_v, rtol=0, atol=1e-5)
        torch.testing.assert_close(encoder.encode_texts(tiny_models.TEXTS), f_t, rtol=0, atol=1e-5)
        assert encoder.encode_texts(["a " * 14], gradients=True).requires_grad
        with pytest.raises(ValueError, match=r"texts\[1\] is longer than the 16 tokens"):
            encoder.encode_texts(["a", "a " * 15])
    small, other = theirs.image_transform(24, False), theirs.image_transform(32, False)
    for processor, why in (((for_training, tokenize), "another picture each time .the preprocess for"),
                           ((small, tokenize), r"pictures of \(24, 24\), not \(32, 32\)"),
                           ((other, tokenize), "does not normalise by the mean"),
                           ((preprocess, theirs.get_tokenizer("ViT-B-32")), "pads texts to 77 tokens, not 16"),
                           (preprocess, r"got Compose; use \(preprocess, tokenizer\)")):
        with pytest.raises(ValueError, match=why):
            mmcore.from_clip(model, processor)


def test_a_folder_of_open_clip_without_weights_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("open_clip")
    path = tiny_models.open_clip(tmp_path)
    (tmp_path / "open_clip_model.safetensors").unlink()
    with pytest.raises(OSError, match=r"载入不了 '.* / '.*' cannot be loaded .Required pretrained weights"):
        mmcore.from_clip(path)


def test_without_open_clip_its_folder_is_refused_with_how_to_install_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "open_clip", None)
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(OSError, match="pip install open-clip-torch"):
        mmcore.from_clip(tmp_path)
