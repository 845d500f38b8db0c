r"""许多帧合成一个特征 / Many frames become one feature: (8.1), (8.2), (8.3).

字母 / Letters: B 批 batch · T 帧 frames · D 特征宽度 feature width · H 隐藏宽度 hidden width · A 个注意力 attentions.

三个公式读的都是 f_1 … f_T，差的只是记不记得先后：平均不记得；循环一帧一帧地读；注意力把先后当作特征，加进每一帧。

All three formulas read f_1 … f_T and differ in whether they keep the order: the mean does not; recurrence reads frame
by frame; attention has the order as a feature, added to every frame.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks


def mean_over_time(f: Tensor) -> Tensor:
    r"""各帧的平均 / The mean over the frames.

    加法可以换次序，所以它不知道先后：一段短片和它的倒放，平均完全相同。

    Terms of a sum may change places, so the mean knows no order: a clip and the same clip backwards have the same mean.

    $$f_{\mathrm{mean}} = \frac{1}{T} \sum_{t=1}^{T} f_t \tag{8.1}$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $f_t$ | `f[:, t]` | (B, D) | 第 t 帧的特征 / feature of frame t |
    | $f_{\mathrm{mean}}$ | `f_mean` | (B, D) | 整段的特征 / feature of the clip |

    Raises: TypeError / ValueError 不是 (B, T, D) 的浮点张量 / if f is not a floating tensor (B, T, D).
    Paper: Karpathy et al. 2014, Large-Scale Video Classification with Convolutional Neural Networks (fusing frames);
    Yue-Hei Ng et al. 2015, Beyond Short Snippets.
    """
    _check_steps(f, "f")
    return f.mean(1)


def recurrent_states(f: Tensor, W: Tensor, U: Tensor, b: Tensor, c: Tensor) -> Tensor:
    r"""门控循环单元 / The gated recurrent unit.

    从 h_0 = 0 开始，一帧一帧地读。更新门 z 决定留下多少旧的，重置门 r 决定新的 n 看多少旧的。次序换了，h_T 就换了。

    Starts from h_0 = 0 and reads frame by frame. The update gate z decides how much of the old is kept, the reset gate
    r how much of it the new n sees. Another order gives another h_T.

    $$\begin{aligned}
    r_t &= \sigma(W_r f_t + U_r h_{t-1} + b_r), \qquad z_t = \sigma(W_z f_t + U_z h_{t-1} + b_z) \\
    n_t &= \tanh(W_n f_t + b_n + r_t \odot (U_n h_{t-1} + c)), \qquad
    h_t = (1 - z_t) \odot n_t + z_t \odot h_{t-1} \end{aligned} \tag{8.2}$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $f_t$ | `f[:, t]` | (B, D) | 第 t 帧的特征 / feature of frame t |
    | $W_r, W_z, W_n$ | `W`, 依次相叠 / stacked in this order | (3 H, D) | 读新的一帧 / read the new frame |
    | $U_r, U_z, U_n$ | `U` | (3 H, H) | 读记住的 / read what is remembered |
    | $b_r, b_z, b_n$, $c$ | `b`, `c` | (3 H,), (H,) | 偏置 / biases |
    | $h_t$ | 返回 returned`[:, t]` | (B, H) | 读到第 t 帧时记住的 / what is remembered at frame t |

    与 `torch.nn.GRU` 相同，只少两个多余的偏置。原论文把 r 乘在 h 上再乘 U；这里与 PyTorch 一样，先乘 U。

    The same as `torch.nn.GRU` without two biases that are one too many. The paper multiplies h by r before U; here, as
    in PyTorch, U comes first.

    Raises: TypeError / ValueError 类型或形状不符 / for a wrong type or shape.
    Paper: Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder.
    """
    _check_steps(f, "f")
    checks.matrix(U, "U")
    hidden = U.shape[1]
    checks.matrix(U, "U", 3 * hidden, hidden)
    checks.matrix(W, "W", 3 * hidden, f.shape[2])
    checks.shape(b, "b", (3 * hidden,))
    checks.shape(c, "c", (hidden,))
    read = F.linear(f, W, b)  # (B, T, 3 H), all frames at once: no order in this part
    h, states = f.new_zeros(len(f), hidden), []
    for new in read.unbind(1):
        r_z, n = new.split([2 * hidden, hidden], 1)
        u_rz, u_n = F.linear(h, U).split([2 * hidden, hidden], 1)
        r, z = torch.sigmoid(r_z + u_rz).chunk(2, 1)
        n = torch.tanh(n + r * (u_n + c))
        h = n + z * (h - n)
        states.append(h)
    return torch.stack(states, 1)


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


class Recurrence(nn.Module):
    """(8.2) 与它的参数；`forward` 给出 h_T / (8.2) and its parameters; `forward` gives h_T: (B, T, D) → (B, H)."""

    def __init__(self, feature_dim: int, hidden_dim: int):
        super().__init__()
        checks.whole(feature_dim, "feature_dim")
        checks.whole(hidden_dim, "hidden_dim")
        bound = hidden_dim ** -0.5
        self.W, self.U, self.b, self.c = (
            nn.Parameter(nn.init.uniform_(torch.empty(shape), -bound, bound))
            for shape in ((3 * hidden_dim, feature_dim), (3 * hidden_dim, hidden_dim), (3 * hidden_dim,),
                          (hidden_dim,)))

    def states(self, f: Tensor) -> Tensor:
        """每一帧时记住的 / What is remembered at every frame: (B, T, H)."""
        return recurrent_states(f, self.W, self.U, self.b, self.c)

    def forward(self, f: Tensor) -> Tensor:
        return self.states(f)[:, -1]


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


def _check_steps(x: Tensor, name: str, steps: int | None = None) -> None:
    checks.require(isinstance(x, Tensor) and x.is_floating_point(), f"{name} 需要是浮点张量",
                   f"{name} must be a floating-point tensor", TypeError)
    wanted = f"(B, {'T' if steps is None else steps}, D)"
    checks.require(x.ndim == 3 and x.shape[1] > 0 and steps in (None, x.shape[1]),
                   f"{name} 需要形状 {wanted}，收到 {checks.shape_of(x)}",
                   f"{name} must have shape {wanted}, got {checks.shape_of(x)}")
