r"""许多帧合成一个特征，一帧一帧地读 / Many frames become one feature, read frame by frame: (8.1), (8.2).

Letters: B batch, T frames, D feature width, H hidden width. What does not fit raises TypeError or ValueError.
The mean (8.1) does not keep their order, recurrence (8.2) does; so does (8.3), which stands with the other attentions.

字母：B 批，T 帧，D 特征宽度，H 隐藏宽度。类型或形状不符时报 TypeError 或 ValueError。
平均 (8.1) 不记得先后，循环 (8.2) 记得；放在注意力那里的 (8.3) 也记得。
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.checks import shapes

FRAMES = {"T": 1}


@shapes(f="B T D", least=FRAMES)
def mean_over_time(f: Tensor) -> Tensor:
    r"""各帧的平均 / The mean over the frames: (B, T, D) → (B, D).

    $$f_{\mathrm{mean}} = \frac{1}{T} \sum_{t=1}^{T} f_t \tag{8.1}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $f_t$ | `f[:, t]` | (B, D) | feature of frame t | 第 t 帧的特征 |

    Terms of a sum may be swapped, so the mean knows no order: a clip and the same clip backwards have the same mean.

    加法可以换次序，所以它不知道先后：一段短片和它的倒放，平均完全相同。

    Paper: Karpathy et al. 2014, Large-Scale Video Classification with Convolutional Neural Networks (fusing frames);
    Yue-Hei Ng et al. 2015, Beyond Short Snippets.

    >>> mean_over_time(torch.tensor([[[1.0, 0.0], [3.0, 4.0]]]))
    tensor([[2., 2.]])
    """
    return f.mean(1)


@shapes(f="B T D", U="3*H H", W="3*H D", b="3*H", c="H", least=FRAMES)
def recurrent_states(f: Tensor, W: Tensor, U: Tensor, b: Tensor, c: Tensor) -> Tensor:
    r"""门控循环单元 / The gated recurrent unit: what is remembered at every frame, (B, T, D) → (B, T, H).

    $$\begin{aligned}
    r_t &= \sigma(W_r f_t + U_r h_{t-1} + b_r), \qquad z_t = \sigma(W_z f_t + U_z h_{t-1} + b_z) \\
    n_t &= \tanh(W_n f_t + b_n + r_t \odot (U_n h_{t-1} + c)), \qquad
    h_t = (1 - z_t) \odot n_t + z_t \odot h_{t-1} \end{aligned} \tag{8.2}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $f_t$ | `f[:, t]` | (B, D) | feature of frame t | 第 t 帧的特征 |
    | $W_r, W_z, W_n$ | `W` | (3 H, D) | read the new frame; stacked in this order | 读新的一帧，依次相叠 |
    | $U_r, U_z, U_n$ | `U` | (3 H, H) | read what is remembered | 读记住的 |
    | $b_r, b_z, b_n$, $c$ | `b`, `c` | (3 H,), (H,) | biases | 偏置 |
    | $h_t$ | returned[:, t] | (B, H) | what is remembered at frame t | 读到第 t 帧时记住的 |

    Starts from h_0 = 0 and reads frame by frame. The update gate z decides how much of the old is kept, the reset gate
    r how much of it the new n sees. Another order gives another h_T. This is the form of cuDNN and `torch.nn.GRU`,
    without two spare biases.

    从 h_0 = 0 开始，一帧一帧地读。更新门 z 决定留下多少旧的，重置门 r 决定新的 n 看多少旧的。次序换了，h_T 就换了。它是
    cuDNN 与 `torch.nn.GRU` 的写法，只少两个多余的偏置。

    Paper: Cho et al. 2014, Learning Phrase Representations using RNN Encoder-Decoder (there r comes before U).

    >>> f = torch.ones(2, 5, 4)  # 5 frames, H = 3
    >>> recurrent_states(f, torch.zeros(9, 4), torch.zeros(9, 3), torch.zeros(9), torch.zeros(3)).shape
    torch.Size([2, 5, 3])
    """
    hidden = U.shape[1]
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
    """(8.2) 与它的参数，给出 h_T / (8.2) and its parameters, to give h_T: (B, T, D) → (B, H).

    >>> Recurrence(4, hidden_dim=3)(torch.ones(2, 5, 4)).shape
    torch.Size([2, 3])
    """

    def __init__(self, feature_dim: int, hidden_dim: int):
        super().__init__()
        d, h = checks.whole(feature_dim, "feature_dim"), checks.whole(hidden_dim, "hidden_dim")
        self.W, self.U, self.b, self.c = (
            nn.Parameter(nn.init.uniform_(torch.empty(shape), -h ** -0.5, h ** -0.5))
            for shape in ((3 * h, d), (3 * h, h), (3 * h,), (h,)))

    def states(self, f: Tensor) -> Tensor:
        """每一帧时记住的 / What is remembered at every frame: (B, T, D) → (B, T, H)."""
        return recurrent_states(f, self.W, self.U, self.b, self.c)

    def forward(self, f: Tensor) -> Tensor:
        return self.states(f)[:, -1]
