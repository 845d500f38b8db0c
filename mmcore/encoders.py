r"""视觉编码器与文本编码器 / The visual encoder and the text encoder: (1.1), (1.2).

Letters: B batch, L tokens, d_v and d_t feature widths (`feature_dim`). What does not fit: TypeError or ValueError.
Both are backbone → linear projection → batch normalisation. The backbones are torchvision's and transformers' own; of
the tiny ones the size is decided here, any other is loaded by its name (`pretrained`).

字母：B 批，L 词元，d_v、d_t 特征宽度（`feature_dim`）。不符时报 TypeError 或 ValueError。
两者都是骨干网络 → 线性投影 → 批归一化。骨干来自 torchvision 和 transformers：小的在这里定大小，别的按名字载入
（`pretrained`）。
"""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks, pretrained, tokens
from mmcore.checks import refuse, shapes, typed

BACKBONES = ("resnet-tiny", "vit-tiny")
TEXT_MODELS = ("bert-tiny", "gpt-tiny")
MAX_TOKENS = 64
PIXELS = 32  # the least width and height of a picture


class VisualEncoder(nn.Module):
    r"""视觉编码器 / Visual encoder.

    $$f_v = E_v(I) \in \mathbb{R}^{d_v} \tag{1.1}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $I$ | `image` | (B, 3, ≥32, ≥32) | pictures, values from 0 to 1 | 图像，值在 0 到 1 |
    | $E_v$ | `VisualEncoder` | | a ResNet or a ViT | ResNet 或 ViT |
    | $f_v$ | `f_v` | (B, d_v) | visual feature | 视觉特征 |

    Where it is trained from nothing, each picture first loses its own mean and is divided by its own deviation.

    `backbone`: "resnet-tiny" and "vit-tiny", trained from nothing, for pictures of 32 to 64 pixels; or the name of any
    classification model of torchvision, which loses its classifier and gets pictures resized to what it is used to.
    `weights`, for the latter only: None to start from nothing; "DEFAULT" or the name of a set of weights, which
    torchvision downloads once and checks by its hash (OSError without a network); or the path of a local state dict
    (.safetensors or .pth). With weights, pictures get the size, mean and deviation that belong to them; for a file that
    torchvision did not make these are DEFAULT's, and a ViT's own size.

    从零训练时，每幅图像先减去自己的均值、除以自己的标准差。

    `backbone`："resnet-tiny" 和 "vit-tiny" 为 32 到 64 像素的图画从零训练；或 torchvision 任何一个分类模型的名字，去掉
    它的分类层，图像缩放到它习惯的大小。`weights`（只用于后者）：None 从零开始；"DEFAULT" 或权重的名字，由 torchvision
    下载一次并核对校验和（没有网络时报 OSError）；或本地 state dict 的路径（.safetensors 或 .pth）。有权重时，图像的大小
    和归一化按这套权重来；不是 torchvision 做的文件，按 DEFAULT，ViT 的大小按它自己。

    Paper: He et al. 2016, Deep Residual Learning; Dosovitskiy et al. 2021, An Image Is Worth 16×16 Words.

    >>> encoder = VisualEncoder(feature_dim=8).eval()
    >>> encoder(torch.rand(2, 3, 32, 32)).shape
    torch.Size([2, 8])
    """

    @typed
    def __init__(self, feature_dim: int = 512, backbone: str = "resnet-tiny", weights: str | Path | None = None):
        super().__init__()
        feature_dim = checks.whole(feature_dim, "feature_dim")
        self.standardise: nn.Module = nn.GroupNorm(1, 3, affine=False)  # one group: the whole picture
        if backbone in BACKBONES:
            if weights is not None:
                refuse(f"{backbone} 从零训练，没有 weights 可载入，收到 {str(weights)!r}",
                       f"{backbone} is trained from nothing and has no weights to load, got {str(weights)!r}")
            self.backbone, width = _resnet_tiny() if backbone == "resnet-tiny" else _vit_tiny()
        else:
            self.standardise, self.backbone, width = pretrained.from_torchvision(backbone, weights, BACKBONES)
        self.project = nn.Linear(width, feature_dim, bias=False)  # the normalisation would take a bias away again
        self.normalise = nn.BatchNorm1d(feature_dim)
        self.to(memory_format=torch.channels_last)

    @shapes(like="project.weight", image="B 3 height width")
    def forward(self, image: Tensor) -> Tensor:
        self.check(image)
        return self.encode(image)

    def check(self, image: Tensor) -> None:
        """`forward` 对图像的要求，形状之外的 / What `forward` asks of pictures beyond their shape."""
        if min(image.shape[2:]) < PIXELS:
            refuse(f"image 需要形状 (B, 3, ≥{PIXELS}, ≥{PIXELS})，收到 {checks.shape_of(image)}",
                   f"image must have shape (B, 3, ≥{PIXELS}, ≥{PIXELS}), got {checks.shape_of(image)}")
        if not bool((image.abs() < 1e4).all()):  # of squares that overflow, standardising would make a blank picture
            refuse("image 的值需要在 0 到 1 之间", "image must hold values from 0 to 1")
        _check_batch(self.normalise, len(image))

    def encode(self, image: Tensor) -> Tensor:
        """检查过的图像 → 特征 / Pictures that have been checked → features: what `forward` does."""
        image = self.standardise(image.contiguous())  # twenty times as fast before the change of format as after it
        return self.normalise(self.project(self.backbone(image.contiguous(memory_format=torch.channels_last))))


class TextEncoder(nn.Module):
    r"""文本编码器 / Text encoder.

    $$f_t = E_t(T) \in \mathbb{R}^{d_t} \tag{1.2}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $T$ | `input_ids` | (B, L) | token ids | 词元编号 |
    | | `attention_mask` | (B, L) | 1 for real tokens, 0 for padding | 真词元为 1，补齐为 0 |
    | $E_t$ | `TextEncoder` | | a BERT or a GPT-2 | BERT 或 GPT-2 |
    | $f_t$ | `f_t` | (B, d_t) | text feature | 文本特征 |

    It is the mean over the real tokens of a text, without the [PAD] that fills up a batch.

    `model_name`: "bert-tiny" and "gpt-tiny", trained from nothing, with the bilingual tokenizer; or the name of a text
    model of Hugging Face, or its local folder, loaded with its own tokenizer, from safetensors only: a pickled file can
    hide a program. It is tried once and reads up to 1,024 tokens. OSError: it cannot be loaded, as without a network.

    对一句话里真正的词元求平均，补齐用的 [PAD] 不算。

    `model_name`："bert-tiny" 和 "gpt-tiny" 从零训练，用双语分词；或 Hugging Face 文本模型的名字，或它的本地文件夹，连同
    它自己的分词器一起载入，只读 safetensors：pickle 格式的文件可以藏着程序。载入时试用一次，最多读 1024 个词元。
    载入不了（例如没有网络）时报 OSError。

    Paper: Devlin et al. 2019, BERT; Radford et al. 2019, Language Models are Unsupervised Multitask Learners.

    >>> encoder = TextEncoder(feature_dim=8).eval()
    >>> encoder(**encoder.tokenize(["red apple", "红苹果"])).shape
    torch.Size([2, 8])
    """

    @typed
    def __init__(self, model_name: str = "bert-tiny", feature_dim: int = 512, tokenizer: Tokenizer | None = None):
        super().__init__()
        feature_dim = checks.whole(feature_dim, "feature_dim")
        self.max_tokens = MAX_TOKENS
        if model_name in TEXT_MODELS:
            self.tokenizer = tokenizer or tokens.default_tokenizer()
            size = max(self.tokenizer.get_vocab().values()) + 1  # ids may have gaps
            self.backbone, width = _bert_tiny(size) if model_name == "bert-tiny" else _gpt_tiny(size)
        elif tokenizer is not None:
            refuse(f"{model_name} 用它自己的分词器，不能另给 tokenizer",
                   f"{model_name} comes with its own tokenizer and takes no other")
        else:
            self.tokenizer, self.backbone, width, self.max_tokens = pretrained.from_hugging_face(
                str(model_name), TEXT_MODELS)
        self.project = nn.Linear(width, feature_dim, bias=False)
        self.normalise = nn.BatchNorm1d(feature_dim)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """文本 → 词元编号与掩码 / Texts → token ids and mask: {"input_ids", "attention_mask"}, both (B, L)."""
        tokens.check_texts(texts)
        try:
            if isinstance(self.tokenizer, Tokenizer):
                rows = [[i for i, real in zip(row.ids, row.attention_mask, strict=True) if real]
                        for row in self.tokenizer.encode_batch(list(texts))]
            else:
                rows = self.tokenizer(list(texts))["input_ids"]
        except Exception as error:  # a word that is not in its table and has no token to stand for it, most often
            refuse(f"分词器读不了这些文本：{error}", f"the tokenizer cannot read these texts: {error}")
        longest = max(map(len, rows))
        self._check_length(longest)
        # 0 is in every table, and the mask hides it: a [PAD] of Hugging Face's need not be
        return {"input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows], dtype=torch.long),
                "attention_mask": torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])}

    @shapes(like="project.weight", input_ids="int B L", attention_mask="mask B L")
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.check(input_ids, attention_mask)
        return self.encode(input_ids, attention_mask)

    def check(self, input_ids: Tensor, attention_mask: Tensor) -> None:
        """`forward` 对词元的要求；看数值 / What `forward` asks of tokens beyond their shape; their values are read."""
        self._check_length(input_ids.shape[1])
        known = self.backbone.get_input_embeddings().num_embeddings
        # a number outside the table would crash a GPU, and a row of padding would become NaN
        if not bool(((input_ids >= 0) & (input_ids < known)).all()):
            refuse(f"input_ids 需要在 0 到 {known - 1} 之间", f"input_ids must lie between 0 and {known - 1}")
        if not bool(attention_mask.any(1).all()):
            refuse("attention_mask 每行需要至少一个 1：有一行没有真词元",
                   "each row of attention_mask needs at least one 1: a row has no real token")
        _check_batch(self.normalise, len(input_ids))

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """检查过的词元 → 特征 / Tokens that have been checked → features: what `forward` does."""
        # the real tokens come first, wherever the padding was, and what is padding in every row costs nothing
        order = (attention_mask == 0).float().argsort(dim=1, stable=True)[:, :int((attention_mask != 0).sum(1).max())]
        input_ids, mask = input_ids.gather(1, order), (attention_mask.gather(1, order) != 0).long()
        states = self.backbone(input_ids=input_ids, attention_mask=mask).last_hidden_state  # (B, L, width)
        real = mask.unsqueeze(-1).to(states.dtype)
        return self.normalise(self.project((states * real).sum(1) / real.sum(1)))  # (B, d_t)

    def _check_length(self, count: int) -> None:
        if count > self.max_tokens:
            refuse(f"文本最多 {self.max_tokens} 个词元，收到 {count} 个",
                   f"a text may have at most {self.max_tokens} tokens, got {count}")


def _check_batch(normalise: nn.BatchNorm1d, b: int) -> None:
    if b < 2 and normalise.training:
        refuse(f"训练时一批需要至少 2 个样本，收到 {b} 个；不训练时请先 eval()",
               f"a batch in training needs at least 2 samples, got {b}; without training, call eval() first")


# -- the four tiny backbones: each comes with its width ---------------------------------------------------------------

def _resnet_tiny() -> tuple[nn.Module, int]:
    """torchvision's ResNet for pictures of 32 pixels: the stem makes 8 × 8 cells of them, one residual block 4 × 4."""
    from torchvision.models.resnet import BasicBlock, ResNet

    width, cells = 64, 4
    net = ResNet(BasicBlock, [1, 1, 1, 1])
    net.inplanes = width // 2
    net.conv1 = nn.Conv2d(3, width // 2, kernel_size=5, stride=2, padding=2, bias=False)
    net.bn1 = nn.BatchNorm2d(width // 2)
    net.relu, net.maxpool = nn.Identity(), nn.Sequential(net.maxpool, net.relu)  # the same, on a quarter of the numbers
    net.layer1 = net._make_layer(BasicBlock, width, 1, stride=2)
    net.layer2 = net.layer3 = net.layer4 = net.fc = nn.Identity()
    net.avgpool = _Cells(cells)  # no average over all cells: in pictures this small it matters what is where
    return net, width * cells * cells


class _Cells(nn.AdaptiveAvgPool2d):
    """(B, C, H, W) → (B, 4, 4, C): cell after cell, as channels_last lies in memory, so that nothing moves."""

    def forward(self, x: Tensor) -> Tensor:
        small = x.shape[2:] == (self.output_size, self.output_size)
        return (x if small else super().forward(x)).permute(0, 2, 3, 1)


class _MeanOfPatches(nn.Module):
    """The mean of the patches instead of [CLS], which learns too slowly at this size."""

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
