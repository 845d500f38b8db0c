r"""注意力与门 / Attention and gates: which cells of a picture (4.1), (4.2), and which frames (8.3), are looked at.

Letters: B batch, P cells, T frames, D feature width, H hidden width, A attention heads. In (4.1), (4.2) f_t is the
feature of a question, in (8.3) that of frame t. What does not fit raises TypeError or ValueError.

字母：B 批，P 格，T 帧，D 特征宽度，H 隐藏宽度，A 个注意力头。f_t 在 (4.1)、(4.2) 里是问题的特征，在 (8.3) 里是第 t 帧
的。不符时报 TypeError 或 ValueError。
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.checks import shapes
from mmcore.recurrence import FRAMES

LOOKS = ("attention", "gates")


@shapes(f_t="B D", x="B P D")
def cell_scores(f_t: Tensor, x: Tensor) -> Tensor:
    """每一格与问题有多相合 / How well every cell fits the question: (B, D), (B, P, D) → (B, P), s of (4.1) and (4.2).

    >>> cell_scores(torch.tensor([[2.0, 0, 0, 0]]), torch.eye(4).unsqueeze(0))
    tensor([[1., 0., 0., 0.]])
    """
    return (x @ f_t.unsqueeze(-1)).squeeze(-1) / math.sqrt(f_t.shape[1])


@shapes(f_t="B D", x="B P D")
def cell_attention_weights(f_t: Tensor, x: Tensor) -> Tensor:
    r"""问题对各格的注意力 / The attention of a question to the cells: (B, D), (B, P, D) → (B, P).

    $$s_i = \frac{f_t^\top x_i}{\sqrt{D}}, \quad x_i = f_i + p_i, \qquad
    \alpha_i = \mathrm{softmax}_i(s_i), \qquad c = \sum_{i=1}^{P} \alpha_i x_i \tag{4.1}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $f_t$ | `f_t` | (B, D) | feature of the question (1.2) | 问题的特征 |
    | $f_i$ | `f_v[:, i]` | (B, D) | visual feature of cell i (1.1) | 第 i 格的视觉特征 |
    | $p_i$ | `p[i]` | (D,) | the position of cell i, learned | 第 i 格的位置，学到的 |
    | $x_i$ | `x[:, i]` | (B, D) | what is there, and where that is | 那一格有什么、在什么位置 |
    | $s$ | `cell_scores(f_t, x)` | (B, P) | scores | 得分 |
    | $\alpha$ | returned | (B, P) | weights, every row sums to 1 | 权重，每行和为 1 |
    | $c$ | `weighted_sum(alpha, x.unbind(1))` | (B, D) | what was seen | 看到的 |

    The better a cell fits the direction of the question, the more it is looked at. The weights of all cells always sum
    to 1, so that one dog and three dogs give nearly the same c: a mean cannot count.

    哪一格与问题的方向最相合，就多看哪一格。各格的权重加起来总是 1，所以一只狗和三只狗给出几乎一样的 c：平均不会数数。

    Paper: Yang et al. 2016, Stacked Attention Networks; Vaswani et al. 2017, Attention Is All You Need.

    >>> cell_attention_weights(torch.ones(1, 4), torch.ones(1, 2, 4))  # both cells fit alike
    tensor([[0.5000, 0.5000]])
    """
    return cell_scores(f_t, x).softmax(-1)


@shapes(f_t="B D", x="B P D", b_g="scalar")
def cell_gates(f_t: Tensor, x: Tensor, b_g: float | Tensor) -> Tensor:
    r"""问题给各格的门 / The gates that a question sets on the cells: (B, D), (B, P, D) → (B, P).

    $$g_i = \mathrm{sigmoid}(s_i + b_g), \qquad c = \sum_{i=1}^{P} g_i x_i \tag{4.2}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $s$ | `cell_scores(f_t, x)` | (B, P) | scores, as in (4.1) | 得分，与 (4.1) 相同 |
    | $x_i$ | `x[:, i]` | (B, D) | what is there, and where that is | 那一格有什么、在什么位置 |
    | $b_g$ | `b_g` | scalar | the bias, learned; the threshold is −b_g | 偏置，学到的；门槛是 −b_g |
    | $g$ | returned | (B, P) | weights, each between 0 and 1 | 权重，各在 0 与 1 之间 |
    | $c$ | `weighted_sum(g, x.unbind(1))` | (B, D) | what was seen | 看到的 |

    The scores are those of (4.1), but every cell has a gate of its own: where two cells fit, two gates open and c holds
    two portions; where none fits, all stay shut and c comes near 0.

    得分与 (4.1) 相同，但每格有自己的门：两格都合，两扇都开，c 就有两份；都不合，都关着，c 就接近 0。

    Paper: Zhang et al. 2018, Learning to Count Objects in Natural Images for VQA (why a softmax cannot count).

    >>> cell_gates(torch.zeros(1, 4), torch.ones(1, 2, 4), 0.0)  # no question, half open
    tensor([[0.5000, 0.5000]])
    """
    return torch.sigmoid(cell_scores(f_t, x) + b_g)


class CellAttention(nn.Module):
    """由问题决定看哪几格 / Lets a question decide which cells to look at: (B, D), (B, P, D) → (B, D).

    `look`: "gates" is (4.2), "attention" is (4.1). The positions p are learned here; gates start mostly shut.

    `look`："gates" 是 (4.2)，"attention" 是 (4.1)。位置 p 由这里学；门开始时大半关着。

    >>> look = CellAttention(8, cells=4)
    >>> look(torch.ones(2, 8), torch.ones(2, 4, 8)).shape
    torch.Size([2, 8])
    """

    def __init__(self, feature_dim: int, cells: int, look: str = "gates"):
        super().__init__()
        self.feature_dim, self.cells = checks.whole(feature_dim, "feature_dim"), checks.whole(cells, "cells")
        self.look = checks.one_of(look, "look", LOOKS)
        self.p = nn.Parameter(0.5 * torch.randn(self.cells, self.feature_dim))
        if look == "gates":
            self.b_g = nn.Parameter(torch.tensor(-2.0))

    @shapes(own="P=cells D=feature_dim", like="p", f_v="B P D")
    def with_positions(self, f_v: Tensor) -> Tensor:
        """x：每格的特征加上它的位置 / x: the feature of every cell plus its position, (B, P, D)."""
        return f_v + self.p

    def weights(self, f_t: Tensor, x: Tensor) -> Tensor:
        """每格的权重 / The weight of every cell: (B, P)."""
        return cell_gates(f_t, x, self.b_g) if self.look == "gates" else cell_attention_weights(f_t, x)

    def forward(self, f_t: Tensor, f_v: Tensor) -> Tensor:
        x = self.with_positions(f_v)
        return attended(self.weights(f_t, x).unsqueeze(2), x).squeeze(1)


@shapes(x="B T D", W="H D", b="H", w="A H", least=FRAMES)
def temporal_attention_weights(x: Tensor, W: Tensor, b: Tensor, w: Tensor) -> Tensor:
    r"""对各帧的注意力 / Attention to the frames: (B, T, D) → (B, T, A).

    $$x_t = f_t + p_t, \qquad \alpha_t^{(k)} = \mathrm{softmax}_t\left(w_k^\top \tanh(W x_t + b)\right), \qquad
    f^{(k)} = \sum_{t=1}^{T} \alpha_t^{(k)} x_t \tag{8.3}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $f_t$, $p_t$ | `f[:, t]`, `p[t]` | (B, D), (D,) | what is there; when, learned | 有什么；是第几帧，学到的 |
    | $x_t$ | `x[:, t]` | (B, D) | their sum | 两者之和 |
    | $W, b$, $w_k$ | `W`, `b`, `w[k]` | (H, D), (H,), (H,) | give the score | 打分 |
    | $\alpha_t^{(k)}$ | returned[:, t, k] | (B,) | weights, summing to 1 over t | 权重，对 t 的和为 1 |
    | $f^{(k)}$ | `attended(alpha, x)[:, k]` | (B, D) | output of head k | 第 k 个头的输出 |

    This is (3.3), shared among frames instead of modalities. A score sees one frame only, so the order is written into
    it: without p, shuffling the frames leaves the sum. There are A heads, each for itself.

    这就是 (3.3)，只是在各帧之间分。分数只看那一帧，所以先后写在那一帧里：没有 p，打乱各帧，和也不变。A 个头各看各的。

    Paper: Bahdanau et al. 2015, Neural Machine Translation by Jointly Learning to Align and Translate; Vaswani et al.
    2017, Attention Is All You Need (positions added to features; several heads).

    >>> temporal_attention_weights(torch.ones(1, 2, 3), torch.ones(4, 3), torch.zeros(4), torch.ones(1, 4)).squeeze()
    tensor([0.5000, 0.5000])
    """
    return F.linear(torch.tanh(F.linear(x, W, b)), w).softmax(1)


@shapes(x="B T D", alpha="B T A", least=FRAMES)
def attended(alpha: Tensor, x: Tensor) -> Tensor:
    """(8.3) 的加权和 / The weighted sums of (8.3): (B, T, A), (B, T, D) → (B, A, D).

    >>> attended(torch.tensor([[[0.25], [0.75]]]), torch.tensor([[[4.0, 0.0], [0.0, 4.0]]]))
    tensor([[[1., 3.]]])
    """
    return alpha.mT @ x


class TemporalAttention(nn.Module):
    """(8.3) 与它的参数，`positions=False` 时没有 p / (8.3) and its parameters, without p if `positions=False`.

    >>> TemporalAttention(8, frames=5, heads=2)(torch.ones(3, 5, 8)).shape
    torch.Size([3, 16])
    """

    def __init__(self, feature_dim: int, frames: int, heads: int = 1, hidden_dim: int = 32, positions: bool = True):
        super().__init__()
        self.feature_dim, frames = checks.whole(feature_dim, "feature_dim"), checks.whole(frames, "frames")
        heads, hidden_dim = checks.whole(heads, "heads"), checks.whole(hidden_dim, "hidden_dim")
        self.frames = frames if positions else None
        self.p = nn.Parameter(0.5 * torch.randn(frames, self.feature_dim)) if positions else None
        self.W = nn.Parameter(nn.init.xavier_uniform_(torch.empty(hidden_dim, self.feature_dim)))
        self.b = nn.Parameter(torch.zeros(hidden_dim))
        self.w = nn.Parameter(nn.init.normal_(torch.empty(heads, hidden_dim), std=hidden_dim ** -0.5))

    @shapes(own="T=frames D=feature_dim", like="W", f="B T D")
    def with_positions(self, f: Tensor) -> Tensor:
        """x：每帧的特征加上它的位置 / x: the feature of every frame plus its position, (B, T, D)."""
        return f if self.p is None else f + self.p

    def weights(self, f: Tensor) -> Tensor:
        """每帧的权重 α / The weight α of every frame: (B, T, A)."""
        return temporal_attention_weights(self.with_positions(f), self.W, self.b, self.w)

    def forward(self, f: Tensor) -> Tensor:
        x = self.with_positions(f)
        return attended(temporal_attention_weights(x, self.W, self.b, self.w), x).flatten(1)
