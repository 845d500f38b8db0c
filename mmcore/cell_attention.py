r"""问题看图画的哪几格 / Which cells of a picture a question looks at: (4.1), (4.2).

字母 / Letters: B 批 batch · P 格 cells · D 特征宽度 feature width.

两个公式的得分相同，差的只是怎样变成权重：注意力让各格分一份总量为 1 的权重，门让每格自己决定开多大。

Both formulas have the same scores and differ in how these become weights: attention lets the cells share a total of 1,
gates let every cell decide for itself how far to open.
"""

import math

import torch
from torch import Tensor, nn

from mmcore import checks
from mmcore.fusion import weighted_sum

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
