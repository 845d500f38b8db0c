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


def _check_steps(x: Tensor, name: str, steps: int | None = None) -> None:
    checks.require(isinstance(x, Tensor) and x.is_floating_point(), f"{name} 需要是浮点张量",
                   f"{name} must be a floating-point tensor", TypeError)
    wanted = f"(B, {'T' if steps is None else steps}, D)"
    checks.require(x.ndim == 3 and x.shape[1] > 0 and steps in (None, x.shape[1]),
                   f"{name} 需要形状 {wanted}，收到 {checks.shape_of(x)}",
                   f"{name} must have shape {wanted}, got {checks.shape_of(x)}")
