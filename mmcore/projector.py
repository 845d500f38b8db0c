r"""图画怎样进入解码器的前缀 / How pictures enter the prefix of a decoder that has only read: (10.1) to (10.6).

Letters: B batch, n places of the prefix, P cells, V vocabulary, D feature width, W decoder width, L and S places that
ask and are asked, d width of a query, m queries of the resampler. What does not fit: TypeError or ValueError.

字母：B 批，n 前缀的位置数，P 格，V 词表大小，D 特征宽度，W 解码器宽度，L、S 提问和被问的位置数，d 查询的宽度，m 查询
的个数。不符时报 TypeError 或 ValueError。
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.alignment import cosine_similarity
from mmcore.checks import refuse, require, shapes, typed

MASKS = ("causal", "prefix", "all")


@shapes(E="V W", words="int64 B n T")
def word_prefix(E: Tensor, words: Tensor, pad: int = 0) -> Tensor:
    r"""用词写成的前缀 / A prefix written in words: (V, W), (B, n, T) → (B, n, W).

    $$x_k = \frac{1}{T_k} \sum_{t=1}^{T_k} E_{w_{k,t}}, \qquad x_k = 0 \text{ if } T_k = 0 \tag{10.1}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $E$ | `E` | (V, W) | the table of tokens of the decoder | 解码器的词元表 |
    | $w_{k,t}$ | `words` | (B, n, T) | name of what is at place k, then `pad` | 第 k 个位置那样东西的名字，再填充 |
    | $T_k$ | | | how many they are; none where nothing is | 有几个；空的位置没有 |
    | $x_k$ | returned[:, k] | (B, W) | what the decoder reads at place k | 解码器在第 k 个位置读到的 |

    A fact, “a dog at the top left”, becomes what the decoder already knows how to read: the mean of the rows of its
    name, at the place that stands for the top left. No picture has any part in it.

    “左上是狗”这件事，变成解码器本来就会读的东西：名字各词元那几行的平均，放在代表左上的位置。这里没有图画的份。

    Paper: Tsimpoukelli et al. 2021, Multimodal Few-Shot Learning with Frozen Language Models (a prefix for a decoder
    that has only read).

    >>> word_prefix(torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 4.0]]), torch.tensor([[[1, 2], [1, 0], [0, 0]]]))
    tensor([[[1., 2.],
             [2., 0.],
             [0., 0.]]])
    """
    pad = checks.whole(pad, "pad", 0)
    if not bool(((words >= 0) & (words < len(E))).all()):
        refuse(f"words 需要在 0 与 {len(E) - 1} 之间", f"words must lie between 0 and {len(E) - 1}")
    real = (words != pad).unsqueeze(3).to(E)  # (B, n, T, 1)
    return (E[words] * real).sum(2) / real.sum(2).clamp(min=1)


@shapes(f="B n D", W="W D", b="W")
def project(f: Tensor, W: Tensor, b: Tensor) -> Tensor:
    r"""投影：图画写成的前缀 / The projector, a prefix made of pictures: (B, n, D) → (B, n, W).

    $$x_k = W f_k + b \tag{10.2}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $f_k$ | `f[:, k]` | (B, D) | the feature of cell k, from the encoder | 第 k 格的特征，来自编码器 |
    | $W$, $b$ | `W`, `b` | (W, D), (W,) | the projector, all that is learned | 投影，要学的只有它 |
    | $x_k$ | returned[:, k] | (B, W) | what the decoder reads at place k | 解码器在第 k 个位置读到的 |

    The same places of the same decoder as in (10.1). The picture has to come out as something it can read.

    与 (10.1) 是同一个解码器的同样几个位置。图画要变成它读得懂的东西。

    Paper: Liu et al. 2023, Visual Instruction Tuning (LLaVA); Merullo et al. 2023, Linearly Mapping from Image to Text
    Space.

    >>> project(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[1.0, 1.0], [0.0, 3.0]]), torch.tensor([0.5, 0.0]))
    tensor([[[3.5000, 6.0000]]])
    """
    require(f.shape[1] > 0, "f 里一个位置也没有", "f holds no place at all")
    return F.linear(f, W, b)


@shapes(x="N W", e="M W", least={"M": 1})
def nearest_word(x: Tensor, e: Tensor) -> Tensor:
    r"""离每个投影最近的词 / The word nearest to each projected picture: (N, W), (M, W) → (N,) int64.

    $$\hat{m}_i = \arg\max_m \mathrm{sim}(x_i, e_m) \tag{10.3}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $x_i$ | `x[i]` | (W,) | a projected picture (10.2) | 投影后的图画 (10.2) |
    | $e_m$ | `e[m]` | (W,) | a word as in (10.1) | 照 (10.1) 写成的词 |
    | $\mathrm{sim}$ | `cosine_similarity` | | cosine | 余弦相似度 |

    Nothing asked the projector to come near the words. How often it does says how far it speaks the language of the
    decoder.

    没有谁要求投影落在词的旁边。它有几成落在自己的词旁边，就说明它有几分在用解码器的语言。

    Paper: nostalgebraist 2020, interpreting GPT: the logit lens (asking which word is nearest to a vector inside).

    >>> nearest_word(torch.tensor([[3.0, 1.0]]), torch.tensor([[0.0, 1.0], [1.0, 0.0]]))
    tensor([1])
    """
    S = cosine_similarity(x, e)
    checks.ranked(S, "sim(x, e)")
    return S.argmax(1)


@shapes(Q="B L d", K="B S d", V="B S e", M="L S")
def masked_attention(Q: Tensor, K: Tensor, V: Tensor, M: Tensor) -> tuple[Tensor, Tensor]:
    r"""带掩码的注意力 / Masked attention: → Y (B, L, e), A (B, L, S).

    $$A_{ij} = \mathrm{softmax}_j\left(\frac{Q_i \cdot K_j}{\sqrt{d}} + M_{ij}\right), \qquad
    Y_i = \sum_j A_{ij} V_j \tag{10.4}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $Q$ | `Q` | (B, L, d) | queries: what each place looks for | 查询：每个位置在找什么 |
    | $K$ | `K` | (B, S, d) | keys: what each place answers to | 键：每个位置应的是什么 |
    | $V$ | `V` | (B, S, e) | values: what each place hands over | 值：每个位置交出什么 |
    | $M$ | `M` | (L, S) | 0 where i may look at j, −∞ where not (10.5) | i 可以看 j 是 0，不可以是 −∞ (10.5) |
    | $A$ | second result | (B, L, S) | weights, every row sums to 1 | 权重，每行的和是 1 |

    e to the power of −∞ is 0, so what a place must not see gets weight 0 exactly, and no gradient. Several heads are
    several rows of the batch.

    e 的 −∞ 次方是 0，所以不许看的位置权重正好是 0，也没有梯度。几个头就当作批里的几行。

    Paper: Vaswani et al. 2017, Attention Is All You Need.

    >>> Q = K = torch.zeros(1, 2, 4)  # all alike
    >>> masked_attention(Q, K, torch.tensor([[[1.0], [3.0]]]), torch.tensor([[0.0, -torch.inf], [0.0, 0.0]]))[0]
    tensor([[[1.],
             [2.]]])
    """
    require(not bool((M.isnan() | torch.isposinf(M)).any()), "M 里有 NaN 或 +∞", "M holds NaN or +∞")
    require(bool((~torch.isneginf(M)).any(1).all()), "M 有一行全是 −∞：那个位置什么也不许看",
            "M has a row of −∞ only: that place may look at nothing")
    A = (Q @ K.mT / math.sqrt(Q.shape[2]) + M).softmax(2)
    return A @ V, A


@typed
def attention_mask(length: int, prefix: int = 1, kind: str = "causal") -> Tensor:
    r"""谁可以看谁 / Who may look at whom: → (length, length), 0 or −∞.

    $$M_{ij} = \begin{cases} 0 & \text{causal: } j \le i; \quad \text{prefix: } j \le i \text{ or } j \le n;
    \quad \text{all: always} \\ -\infty & \text{otherwise} \end{cases} \tag{10.5}$$

    | symbol | name | meaning | 含义 |
    |---|---|---|---|
    | $i$ | row | the place that looks, counted from 1 | 看的位置，从 1 数起 |
    | $j$ | column | the place looked at | 被看的位置 |
    | $n$ | `prefix` | places of the prefix | 前缀的位置数 |

    "causal": itself and what comes before, so that no word sees the word it has to write. "prefix": the places of the
    prefix see each other as well, because nothing is written there. "all": each sees everything, as in an encoder.

    "causal"：自己和前面的，所以没有词看得见自己要写的那个词。"prefix"：前缀的几个位置也互相看，那里什么也不写。"all"：
    全都看得见，编码器就是这样。

    Paper: Vaswani et al. 2017, Attention Is All You Need; Raffel et al. 2020, Exploring the Limits of Transfer Learning
    (prefix).

    >>> attention_mask(3)
    tensor([[0., -inf, -inf],
            [0., 0., -inf],
            [0., 0., 0.]])
    """
    length, prefix = checks.whole(length, "length"), checks.whole(prefix, "prefix")
    checks.one_of(kind, "kind", MASKS)
    require(prefix <= length, f"prefix 需要不大于 length={length}，收到 {prefix}",
            f"prefix must not be above length={length}, got {prefix}")
    place = torch.arange(length)
    allowed = place <= place.unsqueeze(1)
    if kind != "causal":
        allowed = allowed | (place < (prefix if kind == "prefix" else length))
    return torch.zeros(length, length).masked_fill(~allowed, -torch.inf)


class Resampler(nn.Module):
    r"""重采样器：m 个查询看遍各格 / A resampler, m queries that look at all cells: (B, P, D) → (B, m, W).

    $$\alpha_{ik} = \mathrm{softmax}_k\left(\frac{q_i \cdot W_K g_k}{\sqrt{d}}\right), \qquad
    x_i = \sum_{k=1}^{P} \alpha_{ik} W_V g_k, \qquad g_k = f_k + p_k \tag{10.6}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $f_k$ | `f[:, k]` | (B, D) | the feature of cell k | 第 k 格的特征 |
    | $p_k$ | `p[k]` | (D,) | the position of cell k, learned | 第 k 格的位置，学到的 |
    | $q_i$ | `q[i]` | (W,) | query i, learned; no picture has a part in it | 第 i 个查询，学到的，与图无关 |
    | $W_K$, $W_V$ | `key`, `value` | (W, D) | give keys and values, each with a bias | 给出键和值，各有偏置 |
    | $d$ | | | the width of a query, W | 查询的宽度，就是 W |
    | $\alpha$ | `weights(f)` | (B, m, P) | who looks where, every row sums to 1 | 谁看哪里，每行的和是 1 |
    | $x_i$ | returned[:, i] | (B, W) | token i of the prefix | 前缀的第 i 个词元 |

    (10.4) without a mask, with queries that are parameters. However large the picture, the decoder reads m tokens.

    就是没有掩码的 (10.4)，查询是参数。图画再大，解码器也只读 m 个词元。

    Paper: Alayrac et al. 2022, Flamingo (the Perceiver resampler); Li et al. 2023, BLIP-2 (the Q-Former).

    >>> Resampler(8, width=6, queries=2, cells=4)(torch.ones(3, 4, 8)).shape
    torch.Size([3, 2, 6])
    """

    def __init__(self, feature_dim: int, width: int, queries: int = 4, cells: int = 4):
        super().__init__()
        self.feature_dim, width = checks.whole(feature_dim, "feature_dim"), checks.whole(width, "width")
        queries, self.cells = checks.whole(queries, "queries"), checks.whole(cells, "cells")
        self.q = nn.Parameter(torch.randn(queries, width))
        self.p = nn.Parameter(0.5 * torch.randn(self.cells, self.feature_dim))
        self.key, self.value = nn.Linear(self.feature_dim, width), nn.Linear(self.feature_dim, width)
        nn.init.normal_(self.value.weight, std=(self.feature_dim * width) ** -0.5)  # no larger than words at the start

    def _attend(self, f: Tensor) -> tuple[Tensor, Tensor]:
        g = f + self.p
        nothing_hidden = f.new_zeros(len(self.q), self.cells)
        return masked_attention(self.q.expand(len(f), -1, -1), self.key(g), self.value(g), nothing_hidden)

    @shapes(own="P=cells D=feature_dim", like="p", f="B P D")
    def forward(self, f: Tensor) -> Tensor:
        return self._attend(f)[0]

    @shapes(own="P=cells D=feature_dim", like="p", f="B P D")
    def weights(self, f: Tensor) -> Tensor:
        """每个查询看哪几格 α / Where each query looks, α: (B, m, P)."""
        return self._attend(f)[1]
