"""别人的权重：按名字，或按文件 / Weights of others, by name or by file."""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks

BACKBONES = ("resnet-tiny", "vit-tiny")
TEXT_MODELS = ("bert-tiny", "gpt-tiny")


def from_torchvision(name: str, weights: str | Path | None) -> tuple[nn.Module, nn.Module, int]:
    """torchvision 的分类模型，去掉分类层 / A classification model of torchvision without its classifier.

    返回：怎样准备图像，骨干，它的宽度 / Returns how pictures are prepared, the backbone, and its width.
    """
    from torchvision import models

    known = models.list_models(module=models)
    tiny = "、".join(BACKBONES), ", ".join(BACKBONES)
    checks.require(name in known,
                   f"backbone 需要是 {tiny[0]}，或 torchvision 分类模型的名字（如 resnet50、vit_b_16），收到 {name!r}",
                   f"backbone must be {tiny[1]} or the name of a classification model of torchvision "
                   f"(resnet50, vit_b_16, …), got {name!r}")
    choices = models.get_model_weights(name)
    chosen = None
    if weights is not None and not Path(weights).is_file():
        listed = ", ".join(choices.__members__)
        checks.require(str(weights) in choices.__members__,
                       f"{name} 的 weights 需要是 {listed} 之一，或一个文件的路径，收到 {str(weights)!r}",
                       f"weights of {name} must be one of {listed} or the path of a file, got {str(weights)!r}")
        chosen = choices[str(weights)]
        _fetch(name, chosen)
    quiet = {"init_weights": False} if name in ("googlenet", "inception_v3") and chosen is None else {}
    net = models.get_model(name, weights=chosen, **quiet)
    _without_helpers(net)
    head = [path for path, module in net.named_modules() if getattr(module, "out_features", None) == 1000
            or getattr(module, "out_channels", None) == 1000][-1]  # SqueezeNet classifies by a convolution
    last = net.get_submodule(head)
    net.set_submodule(head, nn.Identity())
    if weights is not None and chosen is None:
        _read_weights(net, Path(weights), head)
    usual = (chosen or choices.DEFAULT).transforms()
    size = usual.crop_size[0] if chosen else getattr(net, "image_size", usual.crop_size[0])
    prepare = _Prepare(size, *((usual.mean, usual.std) if weights is not None else (None, None)))
    return prepare, net, last.in_features if isinstance(last, nn.Linear) else last.in_channels


class _Prepare(nn.Module):
    """缩放到骨干习惯的大小，再归一化；不裁剪：图标的边也要紧 / Resize, then normalise; no crop, edges of icons count.

    有权重时减去它们的均值，除以它们的标准差；没有时每幅图像用自己的。

    With weights, subtract their mean and divide by their deviation; without, each picture uses its own.
    """

    def __init__(self, size: int, mean: list[float] | None, std: list[float] | None):
        super().__init__()
        self.size, self.own = size, mean is None
        for name, value in (("mean", mean or [0.0] * 3), ("std", std or [1.0] * 3)):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[2:] != (self.size, self.size):
            image = F.interpolate(image, size=(self.size, self.size), mode="bilinear", antialias=True)
        return F.group_norm(image, 1) if self.own else (image - self.mean) / self.std


def _fetch(name: str, chosen: Any) -> None:
    """先把权重拿到手，只当作张量读一遍 / Get hold of the weights first and read them once, as tensors alone."""
    try:
        chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # URLError, HTTPError, a socket's own, a wrong hash, a file that is more than tensors
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise OSError(
            f"拿不到 {name} 的权重（{_brief(error)}）。请在有网络的机器上下载 {chosen.url}，放进 {folder}；"
            f"或把 weights 设为那个文件的路径；或用不需要下载的 backbone='resnet-tiny' / "
            f"the weights of {name} cannot be had ({_brief(error)}). Download {chosen.url} on a machine with a network "
            f"and put it into {folder}; or give the path of that file as weights; or use backbone='resnet-tiny', which "
            "needs no download") from error


def _read_weights(net: nn.Module, path: Path, head: str) -> None:
    """一个 state dict 文件；分类层用不上 / A file with a state dict; its classifier is not needed."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        # auxiliary classifiers, which help in training alone, go with the head
        unused = [key for key in state if key.startswith((f"{head}.", "aux1.", "aux2.", "AuxLogits."))]
        net.load_state_dict({key: value for key, value in state.items() if key not in unused})
    except Exception as error:
        raise ValueError(
            f"{path.name} 不是这个骨干的 state dict：{_brief(error)}；请用 torch.save(model.state_dict(), …) 存的文件"
            f" / {path.name} is no state dict of this backbone: {_brief(error)}; use a file written by "
            "torch.save(model.state_dict(), …)") from error


def _without_helpers(net: nn.Module) -> None:
    """GoogLeNet 和 Inception 训练时的附加分类器 / The extra classifiers of GoogLeNet and Inception in training."""
    if hasattr(net, "aux_logits"):
        net.aux_logits = False
        for name in ("aux1", "aux2", "AuxLogits"):
            if hasattr(net, name):
                setattr(net, name, None)


def from_hugging_face(name: str) -> tuple[Any, nn.Module, int, int]:
    """分词器，骨干，它的宽度，最多几个词元 / The tokenizer, the backbone, its width, and how many tokens it takes."""
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        backbone = AutoModel.from_pretrained(name, trust_remote_code=False, use_safetensors=True, dtype=torch.float32)
    except Exception as error:  # the hub has a dozen ways to say that it was not reached
        raise OSError(
            f"载入不了文本模型 {name!r}（{_brief(error)}）。请用不需要下载的 {'、'.join(TEXT_MODELS)}，"
            f"或一个本地文件夹的路径：在有网络的机器上运行 hf download {name} --local-dir 文件夹，再拷过来。"
            f"权重须是 model.safetensors / the text model {name!r} cannot be loaded ({_brief(error)}). Use "
            f"{' or '.join(TEXT_MODELS)}, which need no download, or the path of a local folder; to get one, run "
            f"hf download {name} --local-dir FOLDER on a machine with a network and copy it here. The weights must be "
            "model.safetensors") from error
    if backbone.config.is_encoder_decoder:
        backbone = backbone.get_encoder()
    if hasattr(backbone, "pooler"):
        backbone.pooler = None  # the mean by the mask takes its place, and it would get no gradient
    backbone.config.use_cache = False
    tokenizer.padding_side = "right"  # GPT counts positions from the left, padding or not
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token  # which one is no matter under the mask
    most = min(tokenizer.model_max_length, getattr(backbone.config, "max_position_embeddings", None) or 512)
    probe = torch.tensor([[tokenizer.pad_token_id]])
    try:
        with torch.no_grad():
            width = backbone(input_ids=probe, attention_mask=torch.ones_like(probe)).last_hidden_state.shape[-1]
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{name!r} 不是文本模型 / {name!r} is no text model: {_brief(error)}") from error
    return tokenizer, backbone, width, most


def _brief(error: Exception) -> str:
    """错误的开头，一行 / The beginning of an error, in one line."""
    line = " ".join(str(error).split())
    return line if len(line) <= 200 else f"{line[:200]}…"
