r"""问题看图画的哪几格 / Which cells of a picture a question looks at: (4.1), (4.2).

字母 / Letters: B 批 batch · P 格 cells · D 特征宽度 feature width.

两个公式的得分相同，差的只是怎样变成权重：注意力让各格分一份总量为 1 的权重，门让每格自己决定开多大。

Both formulas have the same scores and differ in how these become weights: attention lets the cells share a total of 1,
gates let every cell decide for itself how far to open.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.fusion import weighted_sum
from mmcore.recurrence import _check_steps

LOOKS = ("attention", "gates")


def cell_scores(f_t: Tensor, x: Tensor) -> Tensor:
    """每一格与问题有多相合 / How well every cell fits the question: (B, D), (B, P, D) → (B, P), s of (4.1) and (4.2).

    Raises: TypeError / ValueError 类型或形状不符 / for a wrong type or shape.
    """
    checks.matrix(f_t, "f_t")
    checks.require(isinstance(x, Tensor) and x.is_floating_point(), "x 需要是浮点张量", "x must be a floating tensor",
                   TypeError)
    b, d = f_t.shape
    checks.require(x.ndim == 3 and x.shape[0] == b and x.shape[2] == d,
                   f"x 需要形状 ({b}, P, {d})，收到 {checks.shape_of(x)}",
                   f"x must have shape ({b}, P, {d}), got {checks.shape_of(x)}")
    return (x @ f_t.unsqueeze(-1)).squeeze(-1) / math.sqrt(d)


def cell_attention_weights(f_t: Tensor, x: Tensor) -> Tensor:
    r"""问题对各格的注意力 / The attention of a question to the cells.

    哪一格与问题的方向最相合，就多看哪一格。各格的权重加起来总是 1，所以一只狗和三只狗给出几乎一样的 c：
    平均不会数数。

    The better a cell fits the direction of the question, the more it is looked at. The weights of all cells always sum
    to 1, so that one dog and three dogs give nearly the same c: a mean cannot count.

    $$s_i = \frac{f_t^\top x_i}{\sqrt{D}}, \quad x_i = f_i + p_i, \qquad
    \alpha_i = \mathrm{softmax}_i(s_i), \qquad c = \sum_{i=1}^{P} \alpha_i x_i \tag{4.1}$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $f_t$ | `f_t` | (B, D) | 问题的特征 / feature of the question (1.2) |
    | $f_i$ | `f_v[:, i]` | (B, D) | 第 i 格的视觉特征 / visual feature of cell i (1.1) |
    | $p_i$ | `p[i]` | (D,) | 第 i 格的位置，学到的 / the place of cell i, learned |
    | $x_i$ | `x[:, i]` | (B, D) | 那里有什么、那里是哪里 / what is there, and where that is |
    | $s$ | `s` | (B, P) | 得分 / scores |
    | $\alpha$ | `w` | (B, P) | 权重，每行和为 1 / weights, every row sums to 1 |
    | $c$ | `c` | (B, D) | 看到的 / what was seen |

    Raises: TypeError / ValueError 类型或形状不符 / for a wrong type or shape.
    Paper: Yang et al. 2016, Stacked Attention Networks for Image Question Answering; Vaswani et al. 2017, Attention Is
    All You Need.
    """
    return cell_scores(f_t, x).softmax(-1)


def cell_gates(f_t: Tensor, x: Tensor, b_g: Tensor) -> Tensor:
    r"""问题给各格的门 / The gates that a question sets on the cells.

    得分与 (4.1) 相同，但每格有自己的门：两格都合，两扇都开，c 就有两份；都不合，都关着，c 就接近 0。

    The scores are those of (4.1), but every cell has a gate of its own: where two cells fit, two gates open and c holds
    two portions; where none fits, all stay shut and c comes near 0.

    $$g_i = \mathrm{sigmoid}(s_i + b_g), \qquad c = \sum_{i=1}^{P} g_i x_i \tag{4.2}$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $s_i$, $x_i$ | `cell_scores(f_t, x)`, `x` | (B, P), (B, P, D) | 与 (4.1) 相同 / as in (4.1) |
    | $b_g$ | `b_g` | 一个数 / one number | 门槛，学到的 / the threshold, learned |
    | $g$ | `w` | (B, P) | 权重，各在 0 与 1 之间 / weights, each between 0 and 1 |
    | $c$ | `c` | (B, D) | 看到的 / what was seen |

    Raises: TypeError / ValueError 类型或形状不符 / for a wrong type or shape.
    Paper: Zhang et al. 2018, Learning to Count Objects in Natural Images for Visual Question Answering (why a softmax
    cannot count; their remedy is another one).
    """
    checks.require(isinstance(b_g, Tensor) and b_g.numel() == 1, "b_g 需要是只有一个数的张量",
                   "b_g must be a tensor of one number", TypeError)
    return torch.sigmoid(cell_scores(f_t, x) + b_g)


class CellAttention(nn.Module):
    """由问题决定看哪几格 / Lets a question decide which cells to look at: (4.2), or (4.1).

    `look`："gates" 是 (4.2)，"attention" 是 (4.1)。位置 p 由这里学；门开始时大半关着。

    `look`: "gates" is (4.2), "attention" is (4.1). The places p are learned here; gates start mostly shut.

    Raises: ValueError 选项、宽度或格数不对 / for a wrong option, width or number of cells.
    """

    def __init__(self, feature_dim: int, cells: int, look: str = "gates"):
        super().__init__()
        checks.whole(feature_dim, "feature_dim")
        checks.whole(cells, "cells")
        checks.one_of(look, "look", LOOKS)
        self.look = look
        self.p = nn.Parameter(0.5 * torch.randn(cells, feature_dim))
        if look == "gates":
            self.b_g = nn.Parameter(torch.tensor(-2.0))

    def place(self, f_v: Tensor) -> Tensor:
        """每格的特征加上它的位置 / The feature of every cell plus its place: (B, P, D)."""
        return f_v + self.p

    def weights(self, f_t: Tensor, x: Tensor) -> Tensor:
        """每格的权重 / The weight of every cell: (B, P)."""
        return cell_gates(f_t, x, self.b_g) if self.look == "gates" else cell_attention_weights(f_t, x)

    def forward(self, f_t: Tensor, f_v: Tensor) -> Tensor:
        x = self.place(f_v)
        return weighted_sum(self.weights(f_t, x), x.unbind(1))


def temporal_attention_weights(x: Tensor, W: Tensor, b: Tensor, w: Tensor) -> Tensor:
    r"""对各帧的注意力 / Attention to the frames.

    这就是 (3.3)，只是在各帧之间分，而不是在各模态之间。分数只看那一帧，所以先后必须写在那一帧里：x_t = f_t + p_t。没有
    位置 p，打乱各帧只是打乱各项，和不变：它与平均一样不知道先后。A 个注意力各看各的。

    This is (3.3), shared among frames instead of modalities. A score sees one frame alone, so that the order has to be
    written into the frame: x_t = f_t + p_t. Without places p, shuffling the frames shuffles the terms and leaves their
    sum: it knows as little of the order as the mean. There are A attentions, and each looks for itself.

    $$x_t = f_t + p_t, \qquad \alpha_t^{(k)} = \mathrm{softmax}_t\left(w_k^\top \tanh(W x_t + b)\right), \qquad
    f^{(k)} = \sum_{t=1}^{T} \alpha_t^{(k)} x_t \tag{8.3}$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $f_t$, $p_t$ | `f[:, t]`, `p[t]` | (B, D), (D,) | 有什么；是第几帧（学到的）/ what is there; when (learned) |
    | $x_t$ | `x[:, t]` | (B, D) | 两者之和 / their sum |
    | $W, b$, $w_k$ | `W`, `b`, `w[k]` | (H, D), (H,), (H,) | 打分 / give the score |
    | $\alpha_t^{(k)}$ | 返回 returned`[:, t, k]` | (B,) | 权重，对 t 的和为 1 / weights, summing to 1 over t |
    | $f^{(k)}$ | `attended(alpha, x)[:, k]` | (B, D) | 第 k 个注意力看到的 / what attention k saw |

    Raises: TypeError / ValueError 类型或形状不符 / for a wrong type or shape.
    Paper: Bahdanau et al. 2015, Neural Machine Translation by Jointly Learning to Align and Translate; Vaswani et al.
    2017, Attention Is All You Need (places added to features; several heads).
    """
    _check_steps(x, "x")
    checks.matrix(W, "W", None, x.shape[2])
    checks.shape(b, "b", (len(W),))
    checks.matrix(w, "w", None, len(W))
    return F.linear(torch.tanh(F.linear(x, W, b)), w).softmax(1)


def attended(alpha: Tensor, x: Tensor) -> Tensor:
    """(8.3) 的加权和 / The weighted sums of (8.3): (B, T, A), (B, T, D) → (B, A, D).

    Raises: TypeError / ValueError 类型或形状不符 / for a wrong type or shape.
    """
    _check_steps(x, "x")
    _check_steps(alpha, "alpha")
    checks.require(alpha.shape[:2] == x.shape[:2],
                   f"alpha 与 x 的 B、T 需要相同，收到 {checks.shape_of(alpha)} 和 {checks.shape_of(x)}",
                   f"alpha and x must agree in B and T, got {checks.shape_of(alpha)} and {checks.shape_of(x)}")
    return alpha.mT @ x


class TemporalAttention(nn.Module):
    """(8.3) 与它的参数：(B, T, D) → (B, A D) / (8.3) and its parameters; what the attentions saw, side by side.

    `places=False`：没有位置，x_t = f_t / without places x_t is f_t.
    """

    def __init__(self, feature_dim: int, frames: int, heads: int = 1, hidden_dim: int = 32, places: bool = True):
        super().__init__()
        for value, name in ((feature_dim, "feature_dim"), (frames, "frames"), (heads, "heads"),
                            (hidden_dim, "hidden_dim")):
            checks.whole(value, name)
        self.p = nn.Parameter(0.5 * torch.randn(frames, feature_dim)) if places else None
        self.W = nn.Parameter(nn.init.xavier_uniform_(torch.empty(hidden_dim, feature_dim)))
        self.b = nn.Parameter(torch.zeros(hidden_dim))
        self.w = nn.Parameter(nn.init.normal_(torch.empty(heads, hidden_dim), std=hidden_dim ** -0.5))

    def place(self, f: Tensor) -> Tensor:
        """x：每帧的特征加上它的位置 / x: the feature of every frame plus its place, (B, T, D)."""
        _check_steps(f, "f", None if self.p is None else len(self.p))
        checks.shape(f, "f", (len(f), f.shape[1], self.W.shape[1]))
        return f if self.p is None else f + self.p

    def weights(self, f: Tensor) -> Tensor:
        """每帧的权重 α / The weight α of every frame: (B, T, A)."""
        return temporal_attention_weights(self.place(f), self.W, self.b, self.w)

    def forward(self, f: Tensor) -> Tensor:
        x = self.place(f)
        return attended(temporal_attention_weights(x, self.W, self.b, self.w), x).flatten(1)
