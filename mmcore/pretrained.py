"""别人的权重，只当作张量来读，不运行任何代码 / Weights of others, read as tensors only: no code of theirs is run."""

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from mmcore.checks import refuse, typed

LONGEST = 1024  # tokens: how far a text model is tried, and so the most that it is given


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
    choices, file = models.get_model_weights(name), Path(str(weights))
    if file.is_file():  # torchvision names its files by the beginning of their checksum
        digest = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
        chosen = next((each for each in choices if f"-{digest}." in each.url), choices.DEFAULT)
    elif weights is None or str(weights) in choices.__members__:
        chosen = choices[str(weights or "DEFAULT")]
    else:
        listed = ", ".join(choices.__members__)
        refuse(f"{name} 的 weights 需要是 {listed} 之一，或一个文件的路径，收到 {str(weights)!r}",
               f"weights of {name} must be one of {listed} or the path of a file, got {str(weights)!r}")
    try:
        state = None
        if file.is_file():
            state = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
            state = {} if state is None else state
        elif weights:
            state = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
        net, width = _headless(name, state)
    except Exception as error:  # URLError, HTTPError, a socket's own, a wrong hash, a file that is more than tensors
        why, folder = shorten(str(error), 200), Path(torch.hub.get_dir()) / "checkpoints"
        if file.is_file():
            refuse(f"{file.name} 不是这个骨干的 state dict：{why}；请用 torch.save(model.state_dict(), …) 存的文件",
                   f"{file.name} is no state dict of this backbone: {why}; use one of torch.save(model.state_dict())")
        refuse(f"拿不到 {name} 的权重（{why}）。请在有网络的机器上下载 {chosen.url}，放进 {folder}；"
               "或把 weights 设为那个文件的路径；或用不需要下载的 backbone='resnet-tiny'",
               f"the weights of {name} cannot be had ({why}). Download {chosen.url} on a machine with a network and "
               f"put it into {folder}; or give the path of that file as weights; or use backbone='resnet-tiny', which "
               "needs no download", OSError)
    usual = chosen.transforms()
    prepare = _Prepare(getattr(net, "image_size", usual.crop_size[0]), *((usual.mean, usual.std) if weights else ()))
    with torch.no_grad():
        if weights and not net.eval()(prepare(torch.linspace(0, 1, 3072).view(1, 3, 32, 32))).isfinite().all():
            refuse(f"{weights} 使特征成为 NaN 或无穷；请换一套", f"{weights} makes the features NaN; use others")
    return prepare, net.train(), width


def _headless(name: str, state: dict[str, Tensor] | None) -> tuple[nn.Module, int]:
    """The model without its classifier, and its width. With weights it is set as torchvision sets it for them."""
    from torchvision import models

    settings: dict[str, Any] = {}
    if name in ("googlenet", "inception_v3"):  # without the extra classifiers, which help in training
        settings = {"init_weights": False, "aux_logits": False, "transform_input": state is not None}
    if state and "encoder.pos_embedding" in state:  # a ViT, of as many patches as there are positions without [CLS]
        side = math.isqrt(state["encoder.pos_embedding"].shape[1] - 1)
        settings = {"image_size": side * state["conv_proj.weight"].shape[-1]}
    net = models.get_model(name, weights=None, **settings)
    head = [path for path, module in net.named_modules() if getattr(module, "out_features", None) == 1000
            or getattr(module, "out_channels", None) == 1000][-1]  # SqueezeNet classifies by a convolution
    last = net.get_submodule(head)
    net.set_submodule(head, nn.Identity())
    if state is not None:
        for key in list(state):  # in place, for the dict may hold the version of each layer as well
            x = state.pop(key)
            if not key.startswith((f"{head}.", "aux1.", "aux2.", "AuxLogits.")):
                state[re.sub(r"(denselayer\d+\.\w+)\.(\d)", r"\1\2", key)] = x  # torchvision's files have old names
        net.load_state_dict(state)
    return net, last.in_features if isinstance(last, nn.Linear) else last.in_channels


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
        backbone, report = AutoModel.from_pretrained(name, trust_remote_code=False, use_safetensors=True,
                                                     dtype=torch.float32, output_loading_info=True)
    except Exception as error:  # the hub has a dozen ways to say that it was not reached
        why = shorten(str(error), 200)
        refuse(f"载入不了文本模型 {name!r}（{why}）。请用不需要下载的 {'、'.join(tiny)}，或一个本地文件夹的路径："
               f"在有网络的机器上运行 hf download {name} --local-dir 文件夹，再拷过来。权重须是 model.safetensors",
               f"the text model {name!r} cannot be loaded ({why}). Use {' or '.join(tiny)}, which need no "
               f"download, or the path of a local folder; to get one, run hf download {name} --local-dir FOLDER on a "
               "machine with a network and copy it here. The weights must be model.safetensors", OSError)
    if backbone.config.is_encoder_decoder:
        backbone = backbone.get_encoder()
    if hasattr(backbone, "pooler"):
        backbone.pooler = None  # the mean by the mask stands for it, and it would get no gradient
    backbone.config.use_cache = False
    own, special = backbone.state_dict(), tokenizer.all_special_tokens  # often a [PAD] that GPT-2 does not know
    try:
        known = backbone.get_input_embeddings().num_embeddings
        most = getattr(backbone.config, "max_position_embeddings", None) or 512
        width, most, steady = _try(backbone, known, min(most, tokenizer.model_max_length, LONGEST))
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        refuse(f"{name!r} 不是文本模型：{error}", f"{name!r} is no text model: {error}")
    for wrong, zh, en in (
            ([key for key in report["missing_keys"] if key in own or key.removeprefix("encoder.") in own],
             "缺少权重", "it lacks weights, as"),
            ([word for word, i in tokenizer.get_vocab().items() if i >= known and word not in special],
             "不认得自己的分词器的", "it does not know, of its own tokenizer,"),
            ([] if steady else ["NaN"], "补齐改变特征，或特征是", "padding changes its features, or they are")):
        if wrong:
            refuse(f"{name!r} 不能用：{zh} {min(wrong)!r}；请重新下载，或换一个模型",
                   f"{name!r} cannot be used: {en} {min(wrong)!r}; download it again, or use another model")
    return tokenizer, backbone.train(), width, most  # it comes in eval mode


def _try(backbone: nn.Module, known: int, most: int) -> tuple[int, int, bool]:
    """Read a token with padding up to `most` and without: width, most tokens taken, and whether both were the same."""
    padding = backbone.config.pad_token_id or 0
    token = next(i for i in range(1, known + 1) if i != padding)
    mask = torch.ones(2, most, dtype=torch.long)
    mask[0, 1:] = 0
    with torch.no_grad():
        single = backbone(input_ids=mask[:1, :1] * token, attention_mask=mask[:1, :1]).last_hidden_state
        try:
            padded = backbone(input_ids=mask * token, attention_mask=mask).last_hidden_state
        except (IndexError, RuntimeError):  # RoBERTa counts its positions from behind the number of its padding
            most -= padding + 1
            padded = backbone(input_ids=mask[:, :most] * token, attention_mask=mask[:, :most]).last_hidden_state
    return single.shape[-1], most, bool((padded[:1, :1] - single).abs().max() < 1e-3 * single.abs().max())


class _Prepare(nn.Module):
    """Resize without cropping, then normalise: with weights by their mean and deviation, without by the picture's."""

    def __init__(self, size: int, mean: list[float] | None = None, std: list[float] | None = None):
        super().__init__()
        self.size, self.own = size, mean is None
        for name, value in (("mean", mean or [0.0] * 3), ("std", std or [1.0] * 3)):
            self.register_buffer(name, torch.tensor(value).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[2:] != (self.size, self.size):
            image = F.interpolate(image, size=(self.size, self.size), mode="bilinear", antialias=True)
        return F.group_norm(image, 1) if self.own else (image - self.mean) / self.std
