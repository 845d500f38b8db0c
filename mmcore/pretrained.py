"""别人的权重，只当作张量来读，不运行任何代码 / Weights of others, read as tensors only: no code of theirs is run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore.checks import refuse, typed


@typed
def from_torchvision(name: str, weights: str | Path | None = None,
                     tiny: Sequence[str] = ()) -> tuple[nn.Module, nn.Module, int]:
    """torchvision 的分类模型，去掉分类层 / A classification model of torchvision without its classifier.

    Returns how pictures are prepared, the backbone, and its width. Errors name our own backbones, `tiny`, as well.

    返回怎样准备图像、骨干、它的宽度。错误里也会提到我们自己的骨干 `tiny`。

    >>> prepare, backbone, width = from_torchvision("squeezenet1_1")
    >>> backbone.eval()(prepare(torch.rand(1, 3, 64, 64))).shape, width
    (torch.Size([1, 512]), 512)
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        refuse(f"backbone 需要是 {'、'.join(tiny)}，或 torchvision 分类模型的名字（resnet50 …），收到 {name!r}",
               f"backbone must be {', '.join(tiny)} or the name of a classification model of torchvision "
               f"(resnet50 …), got {name!r}")
    choices = models.get_model_weights(name)
    chosen = None
    if weights is not None and not Path(weights).is_file():
        if str(weights) not in choices.__members__:
            listed = ", ".join(choices.__members__)
            refuse(f"{name} 的 weights 需要是 {listed} 之一，或一个文件的路径，收到 {str(weights)!r}",
                   f"weights of {name} must be one of {listed} or the path of a file, got {str(weights)!r}")
        chosen = choices[str(weights)]
        _fetch(name, chosen)
    quiet = {"init_weights": False} if name in ("googlenet", "inception_v3") and chosen is None else {}
    net = models.get_model(name, weights=chosen, **quiet)
    if hasattr(net, "aux_logits"):  # the extra classifiers of GoogLeNet and Inception, which help in training
        net.aux_logits = False
        for helper in {"aux1", "aux2", "AuxLogits"} & dict(net.named_children()).keys():
            setattr(net, helper, None)
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


@typed
def from_hugging_face(name: str, tiny: Sequence[str] = ()) -> tuple[Any, nn.Module, int, int]:
    """Hugging Face 的文本模型，或它的本地文件夹 / A text model of Hugging Face, or its local folder.

    Returns the tokenizer, the backbone, its width, and how many tokens it takes. Errors name our own models, `tiny`.

    返回分词器、骨干、它的宽度、最多几个词元。错误里会提到我们自己的模型 `tiny`。

    >>> from_hugging_face("/no/such/folder", ["bert-tiny", "gpt-tiny"])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    OSError: 载入不了文本模型 '/no/such/folder'...Use bert-tiny or gpt-tiny, which need no download...
    """
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        backbone = AutoModel.from_pretrained(name, trust_remote_code=False, use_safetensors=True, dtype=torch.float32)
    except Exception as error:  # the hub has a dozen ways to say that it was not reached
        raise OSError(
            f"载入不了文本模型 {name!r}（{_brief(error)}）。请用不需要下载的 {'、'.join(tiny)}，"
            f"或一个本地文件夹的路径：在有网络的机器上运行 hf download {name} --local-dir 文件夹，再拷过来。"
            f"权重须是 model.safetensors / the text model {name!r} cannot be loaded ({_brief(error)}). Use "
            f"{' or '.join(tiny)}, which need no download, or the path of a local folder; to get one, run "
            f"hf download {name} --local-dir FOLDER on a machine with a network and copy it here. The weights must be "
            "model.safetensors") from error
    if backbone.config.is_encoder_decoder:
        backbone = backbone.get_encoder()
    if hasattr(backbone, "pooler"):
        backbone.pooler = None  # the mean by the mask stands for it, and it would get no gradient
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
    return tokenizer, backbone.train(), width, most  # it comes in eval mode


class _Prepare(nn.Module):
    """Resize without cropping, then normalise: with weights by their mean and deviation, without by the picture's."""

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
    """Get hold of the weights first and read them once, as tensors only."""
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
    """A file with a state dict; its classifier is not needed."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        # auxiliary classifiers go with the head
        unused = [key for key in state if key.startswith((f"{head}.", "aux1.", "aux2.", "AuxLogits."))]
        net.load_state_dict({key: value for key, value in state.items() if key not in unused})
    except Exception as error:
        raise ValueError(
            f"{path.name} 不是这个骨干的 state dict：{_brief(error)}；请用 torch.save(model.state_dict(), …) 存的文件"
            f" / {path.name} is no state dict of this backbone: {_brief(error)}; use a file written by "
            "torch.save(model.state_dict(), …)") from error


def _brief(error: Exception) -> str:
    """The beginning of an error, in one line."""
    line = " ".join(str(error).split())
    return line if len(line) <= 200 else f"{line[:200]}…"
