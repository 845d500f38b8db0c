r"""视觉编码器与文本编码器 / The visual encoder and the text encoder: (1.1), (1.2).

字母 / Letters: B 批 batch · L 词元 tokens · d_v、d_t 特征宽度 feature widths (`feature_dim`).

两者同一结构：骨干网络 → 线性投影 → 批归一化。骨干来自 torchvision 和 transformers：小的从零训练，这里只决定它们的大小；
别的按名字载入，宽度都问骨干自己。

Both are built alike: backbone → linear projection → batch normalisation. The backbones are torchvision's and
transformers' own: the tiny ones are trained from nothing, and only their size is decided here; any other is loaded by
its name, and its width is asked of the backbone itself.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks, pretrained, tokens
from mmcore.pretrained import BACKBONES, TEXT_MODELS

MAX_TOKENS = 64


class VisualEncoder(nn.Module):
    r"""视觉编码器 / Visual encoder.

    把一幅图像变成一个向量。从零训练时，每幅图像先减去自己的均值、除以自己的标准差，所以整体变亮变暗不影响结果。

    Turns a picture into a vector. Where it is trained from nothing, each picture first loses its own mean and is
    divided by its own standard deviation, so that making it brighter or darker as a whole changes nothing.

    $$f_v = E_v(I) \in \mathbb{R}^{d_v} \tag{1.1}$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $I$ | `image` | (B, 3, ≥32, ≥32) | 图像，值在 0 到 1 / pictures, values from 0 to 1 |
    | $E_v$ | `VisualEncoder` | | ResNet 或 ViT / a ResNet or a ViT |
    | $f_v$ | `f_v` | (B, d_v) | 视觉特征 / visual feature |

    `backbone`："resnet-tiny" 和 "vit-tiny" 为 32 到 64 像素的图画从零训练；或 torchvision 任何一个分类模型的名字，去掉
    它的分类层，图像缩放到它习惯的大小。`weights`（只用于后者）：None 从零开始；"DEFAULT" 或权重的名字，由 torchvision
    下载一次并核对校验和；或本地文件的路径（state dict，.safetensors 或 .pth）。有权重时，图像按这套权重的均值和标准差
    归一化。文件一律只当作张量来读，其中的代码不会运行。

    `backbone`: "resnet-tiny" and "vit-tiny", trained from nothing, for pictures of 32 to 64 pixels; or the name of any
    classification model of torchvision, which loses its classifier and gets pictures resized to what it is used to.
    `weights` (for the latter alone): None to start from nothing; "DEFAULT" or the name of a set of weights, which
    torchvision downloads once and checks by its hash; or the path of a local file (a state dict, .safetensors or .pth).
    With weights, pictures are normalised by the mean and deviation that belong to them. A file is read as tensors
    alone; no code in it is run.

    Raises: ValueError 骨干或权重未知、形状不符，或训练时只有一幅 / for unknown backbones or weights, a wrong shape, or
    a single picture in training; TypeError 不是浮点图像 / if the pictures are no floats; OSError 没有权重，也没有网络 /
    if the weights are not at hand and there is no network.
    Paper: He et al. 2016, Deep Residual Learning; Dosovitskiy et al. 2021, An Image Is Worth 16×16 Words.
    """

    def __init__(self, feature_dim: int = 512, backbone: str = "resnet-tiny", weights: str | Path | None = None):
        super().__init__()
        checks.whole(feature_dim, "feature_dim")
        self.standardise: nn.Module = nn.GroupNorm(1, 3, affine=False)  # one group: the whole picture
        if backbone in BACKBONES:
            checks.require(weights is None, f"{backbone} 从零训练，没有 weights 可载入，收到 {str(weights)!r}",
                           f"{backbone} is trained from nothing and has no weights to load, got {str(weights)!r}")
            self.backbone, width = _resnet_tiny() if backbone == "resnet-tiny" else _vit_tiny()
        else:
            self.standardise, self.backbone, width = pretrained.from_torchvision(backbone, weights)
        self.project = nn.Linear(width, feature_dim, bias=False)  # the normalisation would take a bias away again
        self.normalise = nn.BatchNorm1d(feature_dim)
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        self.check(image)
        image = self.standardise(image.contiguous())  # twenty times as fast before the change of format as after it
        return self.normalise(self.project(self.backbone(image.contiguous(memory_format=torch.channels_last))))

    def check(self, image: Tensor) -> None:
        """`forward` 能用它吗 / Whether `forward` can take it.

        Raises: TypeError / ValueError 不能 / if not.
        """
        checks.require(isinstance(image, Tensor) and image.is_floating_point(),
                       "image 需要是 0 到 1 的浮点张量；uint8 图像请先除以 255",
                       "image must be a floating tensor from 0 to 1; divide uint8 pictures by 255 first", TypeError)
        checks.require(image.ndim == 4 and image.shape[1] == 3 and min(image.shape[2:]) >= 32,
                       f"image 需要形状 (B, 3, ≥32, ≥32)，收到 {checks.shape_of(image)}",
                       f"image must have shape (B, 3, ≥32, ≥32), got {checks.shape_of(image)}")
        _check_batch(self.normalise, len(image))


class TextEncoder(nn.Module):
    r"""文本编码器 / Text encoder.

    把一句话变成一个向量：对真正的词元求平均，补齐用的 [PAD] 不算，所以补得多长都不改变结果。

    Turns a sentence into a vector: the mean over its real tokens, leaving out the [PAD] that fills up a batch, so
    that padding changes nothing.

    $$f_t = E_t(T) \in \mathbb{R}^{d_t} \tag{1.2}$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $T$ | `input_ids` | (B, L) | 词元编号 / token ids |
    | | `attention_mask` | (B, L) | 真词元为 1，补齐为 0 / 1 for real tokens, 0 for padding |
    | $E_t$ | `TextEncoder` | | BERT 或 GPT-2 / a BERT or a GPT-2 |
    | $f_t$ | `f_t` | (B, d_t) | 文本特征 / text feature |

    `model_name`："bert-tiny" 和 "gpt-tiny" 从零训练，用双语分词；或 Hugging Face 文本模型的名字，或它的本地文件夹，连同
    它自己的分词器一起载入。只读 safetensors 格式的权重，不运行仓库里的代码：pickle 格式的文件可以藏着程序。

    `model_name`: "bert-tiny" and "gpt-tiny", trained from nothing, with the bilingual tokenizer; or the name of a text
    model of Hugging Face, or its local folder, loaded together with its own tokenizer. Only weights in the safetensors
    format are read and no code of a repository is run: a pickled file can hide a program.

    Raises: ValueError 文本为空或太长、形状不符、某行全是补齐，或训练时只有一句 / for an empty or too long text, a wrong
    shape, a row of padding alone, or a single text in training; TypeError 编号不是整数 / if the ids are no integers;
    OSError 模型载入不了，例如没有网络 / if the model cannot be loaded, as without a network.
    Paper: Devlin et al. 2019, BERT; Radford et al. 2019, Language Models are Unsupervised Multitask Learners.
    """

    def __init__(self, model_name: str = "bert-tiny", feature_dim: int = 512, tokenizer: Tokenizer | None = None):
        super().__init__()
        checks.whole(feature_dim, "feature_dim")
        self.max_tokens = MAX_TOKENS
        if model_name in TEXT_MODELS:
            self.tokenizer = tokenizer or tokens.default_tokenizer()
            size = self.tokenizer.get_vocab_size()
            self.backbone, width = _bert_tiny(size) if model_name == "bert-tiny" else _gpt_tiny(size)
        else:
            checks.require(tokenizer is None, f"{model_name} 用它自己的分词器，不能另给 tokenizer",
                           f"{model_name} comes with its own tokenizer and takes no other")
            self.tokenizer, self.backbone, width, self.max_tokens = pretrained.from_hugging_face(str(model_name))
        self.project = nn.Linear(width, feature_dim, bias=False)
        self.normalise = nn.BatchNorm1d(feature_dim)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """文本 → 词元编号与掩码 / Texts → token ids and mask: {"input_ids", "attention_mask"}, both (B, L)."""
        tokens.check_texts(texts)
        if isinstance(self.tokenizer, Tokenizer):
            rows = self.tokenizer.encode_batch(list(texts))
            ids, mask = [row.ids for row in rows], [row.attention_mask for row in rows]
        else:
            rows = self.tokenizer(list(texts), padding=True)
            ids, mask = rows["input_ids"], rows["attention_mask"]
        self._check_length(len(ids[0]))
        return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.check(input_ids, attention_mask)
        longest = int(attention_mask.any(0).nonzero().max()) + 1  # what is padding in every row costs nothing
        input_ids, attention_mask = input_ids[:, :longest], attention_mask[:, :longest]
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, L, width)
        real = attention_mask.unsqueeze(-1).to(states.dtype)
        return self.normalise(self.project((states * real).sum(1) / real.sum(1)))  # (B, d_t)

    def check(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        """`forward` 能用它们吗 / Whether `forward` can take them.

        Raises: TypeError / ValueError 不能 / if not.
        """
        for x, name in ((input_ids, "input_ids"), (attention_mask, "attention_mask")):
            checks.require(isinstance(x, Tensor), f"{name} 需要是张量，收到 {type(x).__name__}",
                           f"{name} must be a tensor, got {type(x).__name__}", TypeError)
        checks.require(input_ids.dtype in (torch.int32, torch.int64),
                       f"input_ids 需要是整数张量，收到 {input_ids.dtype}",
                       f"input_ids must be an integer tensor, got {input_ids.dtype}", TypeError)
        checks.require(input_ids.ndim == 2 and input_ids.shape == attention_mask.shape,
                       "input_ids 和 attention_mask 需要同为 (B, L)，"
                       f"收到 {checks.shape_of(input_ids)} 和 {checks.shape_of(attention_mask)}",
                       "input_ids and attention_mask must both be (B, L), "
                       f"got {checks.shape_of(input_ids)} and {checks.shape_of(attention_mask)}")
        self._check_length(input_ids.shape[1])
        known = self.backbone.get_input_embeddings().num_embeddings
        checks.require(bool(((input_ids >= 0) & (input_ids < known)).all()),
                       f"input_ids 需要在 0 到 {known - 1} 之间",
                       f"input_ids must lie between 0 and {known - 1}")
        checks.require(bool(attention_mask.any(1).all()),
                       "attention_mask 每行需要至少一个 1：有一行没有真词元",
                       "each row of attention_mask needs at least one 1: a row has no real token")
        _check_batch(self.normalise, len(input_ids))

    def _check_length(self, tokens: int) -> None:
        checks.require(tokens <= self.max_tokens, f"文本最多 {self.max_tokens} 个词元，收到 {tokens} 个",
                       f"a text may have at most {self.max_tokens} tokens, got {tokens}")


def _check_batch(normalise: nn.BatchNorm1d, b: int) -> None:
    checks.require(b > 1 or not normalise.training,
                   f"训练时一批需要至少 2 个样本，收到 {b} 个；不训练时请先 eval()",
                   f"a batch in training needs at least 2 samples, got {b}; without training, call eval() first")


def _resnet_tiny() -> tuple[nn.Module, int]:
    """torchvision 的 ResNet，缩到 32 像素的图画 / torchvision's ResNet, made small for pictures of 32 pixels.

    ResNet 的开头把 32 像素变成 8 × 8 格，一个残差块再变成 4 × 4；不求平均，所以特征记得什么在哪里：在这样小的图画上，
    位置很要紧。

    The stem of a ResNet turns 32 pixels into 8 × 8 cells, one residual block turns these into 4 × 4; no average over
    the cells, so that a feature remembers what is where: in pictures this small, place matters.
    """
    from torchvision.models.resnet import BasicBlock, ResNet

    width, cells = 64, 4
    net = ResNet(BasicBlock, [1, 1, 1, 1])
    net.inplanes = width // 2
    net.conv1 = nn.Conv2d(3, width // 2, kernel_size=5, stride=2, padding=2, bias=False)
    net.bn1 = nn.BatchNorm2d(width // 2)
    net.relu, net.maxpool = nn.Identity(), nn.Sequential(net.maxpool, net.relu)  # the same, on a quarter of the numbers
    net.layer1 = net._make_layer(BasicBlock, width, 1, stride=2)
    net.layer2 = net.layer3 = net.layer4 = net.fc = nn.Identity()
    net.avgpool = _Cells(cells)  # at 32 pixels 4 × 4 already; larger pictures come down to 4 × 4 too
    return net, width * cells * cells


class _Cells(nn.AdaptiveAvgPool2d):
    """(B, C, H, W) → (B, 4, 4, C)：一格接一格，正是 channels_last 在内存里的次序，摊平时什么也不用搬。

    没有可平均的就不平均，省下时间。

    (B, C, H, W) → (B, 4, 4, C): cell after cell, which is how channels_last lies in memory, so that nothing is moved
    when it is flattened. What needs no averaging is not averaged, which saves its time.
    """

    def forward(self, x: Tensor) -> Tensor:
        small = x.shape[2:] == (self.output_size, self.output_size)
        return (x if small else super().forward(x)).permute(0, 2, 3, 1)


class _MeanOfPatches(nn.Module):
    """对图块求平均，代替 [CLS] / The mean of the patches instead of [CLS], which learns too slowly at this size."""

    def __init__(self, vit: nn.Module):
        super().__init__()
        self.vit = vit

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[2:] != (self.vit.image_size, self.vit.image_size):
            image = F.adaptive_avg_pool2d(image, self.vit.image_size)
        patches = self.vit._process_input(image)  # (B, patches, width)
        start = self.vit.class_token.expand(len(image), -1, -1)
        return self.vit.encoder(torch.cat([start, patches], 1))[:, 1:].mean(1)


def _vit_tiny() -> tuple[nn.Module, int]:
    from torchvision.models import VisionTransformer

    width = 64  # two narrow layers make twice the steps in the same time as three of 96, and get further
    vit = VisionTransformer(image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=width, mlp_dim=2 * width)
    vit.heads = nn.Identity()
    return _MeanOfPatches(vit), width


def _bert_tiny(vocabulary: int) -> tuple[nn.Module, int]:
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=vocabulary, hidden_size=64, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=128, max_position_embeddings=MAX_TOKENS, pad_token_id=0,
                        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    return BertModel(config, add_pooling_layer=False), config.hidden_size


def _gpt_tiny(vocabulary: int) -> tuple[nn.Module, int]:
    from transformers import GPT2Config, GPT2Model

    config = GPT2Config(vocab_size=vocabulary, n_positions=MAX_TOKENS, n_embd=64, n_layer=1, n_head=2,
                        embd_pdrop=0.0, attn_pdrop=0.0, resid_pdrop=0.0, bos_token_id=2, eos_token_id=3)
    config.use_cache = False
    return GPT2Model(config), config.n_embd
