r"""视觉编码器与文本编码器 / The visual encoder and the text encoder: (1.1), (1.2).

字母 / Letters: B 批 batch · L 词元 tokens · d_v、d_t 特征宽度 feature widths (`feature_dim`).

两者同一结构：骨干网络 → 线性投影 → 批归一化。骨干来自 torchvision 和 transformers，这里只决定它们的大小。

Both are built alike: backbone → linear projection → batch normalisation. The backbones are torchvision's and
transformers' own; only their size is decided here.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks, text
from mmcore.data import emoji

BACKBONES = ("resnet-tiny", "vit-tiny")
TEXT_MODELS = ("bert-tiny", "gpt-tiny")
MAX_TOKENS = 64


class VisualEncoder(nn.Module):
    r"""视觉编码器 / Visual encoder.

    把一幅图像变成一个向量。每幅图像先减去自己的均值、除以自己的标准差，所以整体变亮变暗不影响结果。

    Turns a picture into a vector. Each picture first loses its own mean and is divided by its own standard deviation,
    so that making it brighter or darker as a whole changes nothing.

    $$f_v = E_v(I) \in \mathbb{R}^{d_v} \tag{1.1}$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $I$ | `image` | (B, 3, 32…64, 32…64) | 图像，值在 0 到 1 / pictures, values from 0 to 1 |
    | $E_v$ | `VisualEncoder` | | ResNet 或 ViT / a ResNet or a ViT |
    | $f_v$ | `f_v` | (B, d_v) | 视觉特征 / visual feature |

    Raises: ValueError 骨干未知、形状不符，或训练时只有一幅 / for an unknown backbone, a wrong shape, or a single
    picture in training; TypeError 不是浮点图像 / if the pictures are no floats.
    Paper: He et al. 2016, Deep Residual Learning; Dosovitskiy et al. 2021, An Image Is Worth 16×16 Words.
    """

    def __init__(self, feature_dim: int = 512, backbone: str = "resnet-tiny"):
        super().__init__()
        checks.whole(feature_dim, "feature_dim")
        checks.one_of(backbone, "backbone", BACKBONES)
        self.standardise = nn.GroupNorm(1, 3, affine=False)  # one group: the whole picture
        self.backbone, width = _resnet_tiny() if backbone == "resnet-tiny" else _vit_tiny()
        self.project = nn.Linear(width, feature_dim, bias=False)  # the normalisation would take a bias away again
        self.normalise = nn.BatchNorm1d(feature_dim)
        self.to(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        checks.require(isinstance(image, Tensor) and image.is_floating_point(),
                       "image 需要是 0 到 1 的浮点张量；uint8 图像请先除以 255",
                       "image must be a floating tensor from 0 to 1; divide uint8 pictures by 255 first", TypeError)
        checks.require(image.ndim == 4 and image.shape[1] == 3 and min(image.shape[2:]) >= 32,
                       f"image 需要形状 (B, 3, ≥32, ≥32)，收到 {checks.shape_of(image)}",
                       f"image must have shape (B, 3, ≥32, ≥32), got {checks.shape_of(image)}")
        _check_batch(self.normalise, len(image))
        image = image.contiguous(memory_format=torch.channels_last)
        return self.normalise(self.project(self.backbone(self.standardise(image))))


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

    Raises: ValueError 模型未知、文本为空或太长、形状不符、某行全是补齐，或训练时只有一句 / for an unknown model, an
    empty or too long text, a wrong shape, a row of padding alone, or a single text in training; TypeError 编号不是整数
    / if the ids are no integers.
    Paper: Devlin et al. 2019, BERT; Radford et al. 2019, Language Models are Unsupervised Multitask Learners.
    """

    def __init__(self, model_name: str = "bert-tiny", feature_dim: int = 512, tokenizer: Tokenizer | None = None):
        super().__init__()
        checks.one_of(model_name, "model_name", TEXT_MODELS)
        checks.whole(feature_dim, "feature_dim")
        self.tokenizer = tokenizer or text.build_tokenizer(emoji.load("all").texts())
        size = self.tokenizer.get_vocab_size()
        self.backbone, width = _bert_tiny(size) if model_name == "bert-tiny" else _gpt_tiny(size)
        self.project = nn.Linear(width, feature_dim, bias=False)
        self.normalise = nn.BatchNorm1d(feature_dim)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """文本 → 词元编号与掩码 / Texts → token ids and mask: {"input_ids", "attention_mask"}, both (B, L)."""
        text.check_texts(texts)
        rows = self.tokenizer.encode_batch(list(texts))
        longest = max(len(row.ids) for row in rows)
        checks.require(longest <= MAX_TOKENS, f"文本最多 {MAX_TOKENS} 个词元，收到 {longest} 个",
                       f"a text may have at most {MAX_TOKENS} tokens, got {longest}")
        return {"input_ids": torch.tensor([row.ids for row in rows]),
                "attention_mask": torch.tensor([row.attention_mask for row in rows])}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        checks.require(input_ids.dtype in (torch.int32, torch.int64),
                       f"input_ids 需要是整数张量，收到 {input_ids.dtype}",
                       f"input_ids must be an integer tensor, got {input_ids.dtype}", TypeError)
        checks.require(input_ids.ndim == 2 and input_ids.shape == attention_mask.shape,
                       "input_ids 和 attention_mask 需要同为 (B, L)，"
                       f"收到 {checks.shape_of(input_ids)} 和 {checks.shape_of(attention_mask)}",
                       "input_ids and attention_mask must both be (B, L), "
                       f"got {checks.shape_of(input_ids)} and {checks.shape_of(attention_mask)}")
        checks.require(input_ids.shape[1] <= MAX_TOKENS, f"文本最多 {MAX_TOKENS} 个词元，收到 {input_ids.shape[1]} 个",
                       f"a text may have at most {MAX_TOKENS} tokens, got {input_ids.shape[1]}")
        checks.require(bool(attention_mask.any(1).all()),
                       "attention_mask 每行需要至少一个 1：有一行没有真词元",
                       "each row of attention_mask needs at least one 1: a row has no real token")
        _check_batch(self.normalise, len(input_ids))
        states = self.backbone(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, L, width)
        real = attention_mask.unsqueeze(-1).to(states.dtype)
        return self.normalise(self.project((states * real).sum(1) / real.sum(1)))  # (B, d_t)


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
    net.layer1 = net._make_layer(BasicBlock, width, 1, stride=2)
    net.layer2 = net.layer3 = net.layer4 = net.fc = nn.Identity()
    net.avgpool = nn.AdaptiveAvgPool2d(cells)  # changes nothing at 32 pixels; larger pictures come down to 4 × 4 too
    return net, width * cells * cells


class _MeanOfPatches(nn.Module):
    """对图块求平均，代替 [CLS] / The mean of the patches instead of [CLS], which learns too slowly at this size."""

    def __init__(self, vit: nn.Module):
        super().__init__()
        self.vit = vit

    def forward(self, image: Tensor) -> Tensor:
        image = F.adaptive_avg_pool2d(image, self.vit.image_size)  # changes nothing at 32 pixels
        patches = self.vit._process_input(image)  # (B, patches, width)
        start = self.vit.class_token.expand(len(image), -1, -1)
        return self.vit.encoder(torch.cat([start, patches], 1))[:, 1:].mean(1)


def _vit_tiny() -> tuple[nn.Module, int]:
    from torchvision.models import VisionTransformer

    width = 96
    vit = VisionTransformer(image_size=32, patch_size=8, num_layers=3, num_heads=3, hidden_dim=width, mlp_dim=2 * width)
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
