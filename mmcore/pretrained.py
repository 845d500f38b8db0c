"""别人的权重，只当作张量来读，不运行任何代码 / Weights of others, read as tensors only: no code of theirs is run."""

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from mmcore.checks import refuse, shape_of, typed
from mmcore.tokens import check_texts
from mmcore.training import evaluating

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


# -- models that bring pictures and texts into one space --------------------------------------------------------------

@typed
def from_clip(model: str | Path | nn.Module, processor: object = None) -> "ClipEncoder":
    """CLIP、Chinese-CLIP、SigLIP 或 open_clip 的模型 / A CLIP, Chinese-CLIP or SigLIP, or any model of open_clip.

    `model` and `processor` are objects, or folders or names of Hugging Face (without `processor`, the same one for
    both). With open_clip, `processor` is (preprocess, tokenizer), and names begin with hf-hub:. The two are tried once;
    the mode of the model, its device and what is frozen stay as they are. ValueError says that the two do not belong
    together, OSError that nothing can be loaded, as without a network.

    `model` 和 `processor` 是对象，或 Hugging Face 的文件夹或名字（不给 `processor` 时两者用同一个）。open_clip 的
    `processor` 是 (preprocess, tokenizer)，名字以 hf-hub: 开头。两者试用一次；训练还是评估、在哪个设备上、哪些参数冻结
    都不变。两者不配时报 ValueError；载入不了（例如没有网络）时报 OSError。

    >>> from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer
    >>> words = {"<|startoftext|>": 0, "a</w>": 1, "tree</w>": 2, "<|endoftext|>": 3}
    >>> size = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    >>> model = CLIPModel(CLIPConfig(
    ...     text_config=size | {"vocab_size": 4, "max_position_embeddings": 16, "eos_token_id": 3},
    ...     vision_config=size | {"image_size": 32, "patch_size": 16}, projection_dim=6))
    >>> pixels = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    >>> encoder = from_clip(model.eval(), CLIPProcessor(pixels, CLIPTokenizer(words, [], model_max_length=16)))
    >>> encoder.encode_pictures(torch.zeros(2, 3, 40, 48, dtype=torch.uint8)).shape, encoder.encode_texts(["a"]).shape
    (torch.Size([2, 6]), torch.Size([1, 6]))
    """
    missing: Sequence[str] = ()
    name = next((str(x) for x in (model, processor) if isinstance(x, (str, Path))), "")
    folder = Path(name)
    try:
        if isinstance(model, (str, Path)) and (name.startswith(("hf-hub:", "local-dir:")) or (
                (folder / "open_clip_config.json").is_file() and not (folder / "config.json").is_file())):
            import open_clip

            where = name if ":" in name else f"local-dir:{name}"
            model, prepare = open_clip.create_model_from_pretrained(where, weights_only=True)  # tensors, no program
            model, processor = model.eval(), processor or (prepare, open_clip.get_tokenizer(where))
        elif name:
            from transformers import AutoModel, AutoProcessor

            if isinstance(processor, (str, Path)) or processor is None:
                processor = AutoProcessor.from_pretrained(str(processor or model), trust_remote_code=False)
            if isinstance(model, (str, Path)):
                model, report = AutoModel.from_pretrained(str(model), trust_remote_code=False, use_safetensors=True,
                                                          dtype=torch.float32, output_loading_info=True)
                missing = report["missing_keys"]
    except Exception as error:  # the hub has a dozen ways to say that it was not reached
        why = shorten(str(error), 200)
        refuse(f"载入不了 {name!r}（{why}）。请在有网络的机器上运行 hf download 名字 --local-dir 文件夹，拷过来，"
               "再给它的路径。权重须是 model.safetensors；open_clip 的模型还要 pip install open-clip-torch",
               f"{name!r} cannot be loaded ({why}). Run hf download NAME --local-dir FOLDER on a machine with a "
               "network, copy it here and give its path. The weights must be model.safetensors, and models of "
               "open_clip want pip install open-clip-torch as well", OSError)
    if missing:
        refuse(f"model 不能用：缺少权重 {min(missing)!r}；请重新下载",
               f"the model cannot be used: it lacks weights, as {min(missing)!r}; download it again")
    return ClipEncoder(model, processor)


class ClipEncoder(nn.Module):
    """图像和文本的特征，由别人的模型算出 / Features of pictures and texts, by a model of others (see `from_clip`).

    They are what the model itself gives, of its own pictures and tokens: not of length 1, unless the model sees to it
    (CoCa of open_clip does). `gradients`: whether the model can learn from them.

    特征就是模型自己给出的，图像和词元也照它自己的做法：长度不是 1，除非模型自己归一化（open_clip 的 CoCa 会）。
    `gradients`：模型能不能从它们学习。
    """

    def __init__(self, model: nn.Module, processor: Any):
        super().__init__()
        self.open = hasattr(model, "encode_image") and hasattr(model, "encode_text")
        if not self.open and not (hasattr(model, "get_image_features") and hasattr(model, "get_text_features")):
            refuse(f"model 需要是 CLIP、Chinese-CLIP、SigLIP 或 open_clip 的模型，收到 {type(model).__name__}",
                   f"model must be a CLIP, a Chinese-CLIP, a SigLIP or one of open_clip, got {type(model).__name__}")
        pair = isinstance(processor, (tuple, list)) and len(processor) == 2 and all(map(callable, processor))
        if not (pair if self.open else hasattr(processor, "image_processor") and hasattr(processor, "tokenizer")):
            use = "(preprocess, tokenizer)" if self.open else "AutoProcessor.from_pretrained"
            refuse(f"processor 需要是这个模型的，收到 {type(processor).__name__}；请用 {use}",
                   f"processor must be that of the model, got {type(processor).__name__}; use {use}")
        self.model, self.processor, self.training = model, processor, model.training
        self.pixels, self.tokenizer = processor if self.open else (processor.image_processor, processor.tokenizer)
        try:
            with evaluating(model):
                wrong = next(((zh, en) for bad, zh, en in self._tried() if bad), None)
        except (TypeError, ValueError, AttributeError, LookupError, RuntimeError, AssertionError) as error:
            wrong = f"试用时：{error}", f"when tried: {error}"
        if wrong:
            refuse(f"model 和 processor 不能一起用：{wrong[0]}；请用这个模型自己的 processor",
                   f"model and processor cannot be used together: {wrong[1]}; use the processor of this very model")

    def encode_pictures(self, pictures: Tensor | Sequence[Tensor], gradients: bool = False) -> Tensor:
        """uint8 图像 (N, 3, H, W)，或大小不一的 N 幅 (3, H, W) → (N, D) / Pictures, or N of any sizes → features."""
        one = isinstance(pictures, Tensor)
        if not (pictures.ndim == 4 if one else isinstance(pictures, (list, tuple))) or not len(pictures) or not all(
                isinstance(x, Tensor) and x.dtype == torch.uint8 and x.ndim == 3 == len(x) and x.numel()
                for x in pictures):
            came = f"{pictures.dtype} {shape_of(pictures)}" if one else type(pictures).__name__
            refuse(f"pictures 需要是 uint8 张量 (N, 3, H, W)，或一列 (3, H, W)，都不为空，收到 {came}",
                   "pictures must be a uint8 tensor (N, 3, H, W), or a list of (3, H, W), none of them empty, got "
                   f"{came}", TypeError)
        return self._features(self._prepare(pictures), gradients)

    def encode_texts(self, texts: Sequence[str], gradients: bool = False) -> Tensor:
        """N 句文本 → (N, D)；太长的不截断，而是报错 / N texts → features; one too long is refused, not cut off."""
        check_texts(texts)
        return self._features(self._tokenize(list(texts)), gradients)

    def _features(self, given: dict[str, Tensor], gradients: bool) -> Tensor:
        like = next((p for p in self.model.parameters() if p.ndim == 4), next(self.model.parameters()))
        given = {name: x.to(like.device, like.dtype if x.is_floating_point() else None) for name, x in given.items()}
        kind = "image" if "pixel_values" in given else "text"
        with torch.set_grad_enabled(gradients and torch.is_grad_enabled()):
            if self.open:
                return getattr(self.model, f"encode_{kind}")(*given.values())
            return getattr(self.model, f"get_{kind}_features")(**given, return_dict=True).pooler_output

    def _prepare(self, pictures: Tensor | Sequence[Tensor]) -> dict[str, Tensor]:
        pictures = [x.cpu() for x in pictures]  # on a GPU they would be resized a little differently
        with torch.device("cpu"):
            if self.open:
                from torchvision.transforms.functional import to_pil_image

                return {"pixel_values": torch.stack([self.pixels(to_pil_image(x)) for x in pictures])}
            return dict(self.processor(images=pictures, return_tensors="pt", input_data_format="channels_first"))

    def _tokenize(self, texts: list[str]) -> dict[str, Tensor]:
        try:
            with torch.device("cpu"):
                if self.open:  # which pads and cuts: with room for one more, that is padding, unless the text was cut
                    rows = self.tokenizer([*texts, "a"])
                    most, given = rows.shape[1], {"input_ids": rows[:-1]}
                    more = self.tokenizer([*texts, "a"], most + 1).sum(1) - rows.sum(1)
                    cut = (more != more[-1]).tolist()
                else:
                    config = self.model.config
                    most = min(config.text_config.max_position_embeddings, self.tokenizer.model_max_length)
                    padding = "max_length" if config.model_type.startswith("siglip") else True
                    given = dict(self.processor(text=texts, padding=padding, max_length=most, truncation=True,
                                                return_tensors="pt"))
                    cut = [len(row) > most for row in self.tokenizer(texts, verbose=False)["input_ids"]]
        except Exception as error:  # a word that is not in its table and has no token to stand for it, most often
            refuse(f"分词器读不了这些文本：{error}", f"the tokenizer cannot read these texts: {error}")
        if True in cut:
            refuse(f"texts[{cut.index(True)}] 超过了这个模型能读的 {most} 个词元；请写短些",
                   f"texts[{cut.index(True)}] is longer than the {most} tokens that this model reads; shorten it")
        return given

    def _tried(self) -> Iterator[tuple[Any, str, str]]:
        """What could be wrong with the two together, in both languages: seen on three pictures and three texts."""
        model, config, words = self.model, getattr(self.model, "config", None), getattr(
            self.tokenizer, "tokenizer", self.tokenizer)
        if self.open:
            visual = said = model.visual
            text, table = getattr(model, "text", model), getattr(words, "encoder", None) or words.get_vocab()
            reads, fixed = text.context_length, not hasattr(text, "config")
        else:
            visual, said, text, table = config.vision_config, self.pixels, config.text_config, words.get_vocab()
            reads, fixed = text.max_position_embeddings, config.model_type.startswith("siglip")
        shown = [torch.full((3, 40, 40), grey, dtype=torch.uint8, device="cpu") for grey in (0, 255)]
        shown += [torch.arange(6720, device="cpu").remainder(251).to(torch.uint8).view(3, 40, 56)] * 2
        black, white, one, other = (self._prepare([x])["pixel_values"] for x in shown)
        size, came = getattr(visual, "image_size", None), tuple(one.shape[2:])  # none: SigLIP 2 reads any size
        size = (size, size) if isinstance(size, int) else size and tuple(size)
        yield size and came != size, f"它做出的图像是 {came}，模型读 {size}", f"it makes pictures of {came}, not {size}"
        yield (not torch.equal(one, other), "它每次做出的图像不一样（训练用的 preprocess？）",
               "it makes another picture each time (the preprocess for training?)")
        if size and getattr(said, "image_mean", None):
            mean, std = (said.image_mean, said.image_std) if getattr(said, "do_normalize", True) else ([0.0], [1.0])
            mean, std = (torch.tensor(x, device="cpu").view(-1, 1, 1) for x in (mean, std))
            yield (max((black * std + mean).abs().max(), (white * std + mean - 1).abs().max()) > 1e-3,
                   "它没有按所说的均值和标准差归一化", "it does not normalise by the mean and deviation it should")
        known, special = getattr(text, "vocab_size", None), getattr(words, "all_special_tokens", ())
        alien = min((word for word, i in table.items() if known and i >= known and word not in special), default="")
        yield alien, f"模型不认得它的词元 {alien!r}", f"the model does not know its token {alien!r}"
        length = self._tokenize(["a"])["input_ids"].shape[1]
        yield (length > reads or (fixed and length < reads), f"它把文本补齐到 {length} 个词元，模型读 {reads} 个",
               f"it pads texts to {length} tokens, not {reads}")
        f_v, f_t, alone = self.encode_pictures(shown[2:]), self.encode_texts(["a", "a a a"]), self.encode_texts(["a"])
        yield (f_v.shape != f_t.shape or not (f_v.isfinite().all() and f_t.isfinite().all()),
               "特征宽度不同，或是 NaN", "the features differ in width, or are NaN")
        largest, rounding = f_t.abs().max(), max(1e-3, 8 * torch.finfo(f_t.dtype).eps)
        yield ((f_t[0] - f_t[1]).abs().max() < 1e-6 * largest, "不同的文本特征相同（它的结束符不是模型的）",
               "different texts have the same features (it ends them with another token)")
        yield (alone[0] - f_t[0]).abs().max() > rounding * largest, "补齐改变特征", "padding changes the features"
