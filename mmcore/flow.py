r"""画图的公式 / The formulas of drawing: (11.1) to (11.6).

Letters: B pictures of P numbers each, K steps, D feature width, N and M pictures in a set. Time t runs from 0, pure
noise, to 1, a picture. What does not fit is refused with TypeError or ValueError.

字母：B 幅图，每幅 P 个数，K 步，D 特征宽度，一组图有 N 或 M 幅。时间 t 从 0（全是噪声）到 1（一幅图）。不符时报
TypeError 或 ValueError。
"""

from collections.abc import Callable

import torch
from torch import Tensor

from mmcore import checks
from mmcore.checks import require, shapes


@shapes(x_0="B P", x_1="B P", t="B 1")
def flow_path(x_0: Tensor, x_1: Tensor, t: Tensor) -> Tensor:
    r"""从噪声到图的直路上的一点 / A point on the straight path from noise to a picture: → (B, P).

    This is x_t of (11.1), (1 − t) x_0 + t x_1. A row of `t` is the time of one picture, from 0 to 1.

    就是 (11.1) 里的 x_t，(1 − t) x_0 + t x_1。`t` 的每一行是一幅图的时间，从 0 到 1。

    Paper: Liu et al. 2023, Flow Straight and Fast (rectified flow).

    >>> flow_path(torch.tensor([[4.0]]), torch.tensor([[0.0]]), torch.tensor([[0.25]]))
    tensor([[3.]])
    """
    require(bool(((t >= 0) & (t <= 1)).all()), "t 需要在 0 到 1 之间", "t must be from 0 to 1")
    return (1 - t) * x_0 + t * x_1


@shapes(v="B P", x_0="B P", x_1="B P", least={"B": 1, "P": 1}, precise="v x_0 x_1")
def flow_matching_loss(v: Tensor, x_0: Tensor, x_1: Tensor) -> Tensor:
    r"""流匹配的损失 / The loss of flow matching: → ().

    $$L = \frac{1}{BP} \sum_{i=1}^{B} \left\| v_\theta(x_t, t, c) - (x_1 - x_0) \right\|_i^2, \qquad
    x_t = (1 - t)\, x_0 + t\, x_1 \tag{11.1}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $v_\theta$ | `v` | (B, P) | the velocity that the model gives at x_t | 模型在 x_t 处给的速度 |
    | $x_0$ | `x_0` | (B, P) | noise, each number normal | 噪声，每个数服从正态分布 |
    | $x_1$ | `x_1` | (B, P) | training pictures | 训练的图 |
    | $t$ | `t` | (B, 1) | time, from 0 to 1 (`flow_path`) | 时间，0 到 1（`flow_path`） |
    | $c$ | `c` | | what the word says, or nothing | 词说了什么，或者没有词 |

    On a straight path travelled in one unit of time the velocity is the same everywhere: the end less the beginning,
    x_1 − x_0. The model does not know which picture a path leads to, so the best it can give is the mean over all
    paths through x_t.

    走一条直路，用一个单位的时间，速度处处一样，就是终点减起点 x_1 − x_0。模型不知道这条路通向哪一幅图，所以最好也只能给
    出经过 x_t 的所有路的平均。

    Papers: Lipman et al. 2023, Flow Matching for Generative Modeling; Liu et al. 2023.

    >>> flow_matching_loss(torch.tensor([[-3.0]]), x_0=torch.tensor([[4.0]]), x_1=torch.tensor([[0.0]]))
    tensor(1.)
    """
    return (v - (x_1 - x_0)).square().mean()


@shapes(v_c="B P", v_0="B P", w="scalar")
def guided_velocity(v_c: Tensor, v_0: Tensor, w: float | Tensor) -> Tensor:
    r"""无分类器引导 / Classifier-free guidance: → (B, P).

    $$v = v_\varnothing + w\,(v_c - v_\varnothing) \tag{11.2}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $v_c$ | `v_c` | (B, P) | the velocity with the word | 告诉它词时的速度 |
    | $v_\varnothing$ | `v_0` | (B, P) | the velocity without a word | 不告诉它词时的速度 |
    | $w$ | `w` | | guidance; 0 no word, 1 the word, more exaggerates | 引导；0 没有词，1 有词，再大就是夸张 |

    What the word changes, times w. The paper writes (1 + w) where we write w, so its 0 is our 1.

    词带来的变化，乘以 w。论文写的是 (1 + w)，它的 0 是我们的 1。

    Paper: Ho and Salimans 2022, Classifier-Free Diffusion Guidance.

    >>> guided_velocity(torch.tensor([[3.0]]), torch.tensor([[1.0]]), w=2.0)
    tensor([[5.]])
    """
    checks.not_negative(w, "w")
    return v_0 + w * (v_c - v_0)


@shapes(x_0="B P")
def euler_steps(velocity: Callable[[Tensor, Tensor], Tensor], x_0: Tensor, steps: int) -> Tensor:
    r"""欧拉法：顺着速度走 K 小步 / Euler's method: K small steps along the velocity: → (K + 1, B, P), x_0 first.

    $$x_{t + 1/K} = x_t + \frac{1}{K}\, v(x_t, t), \qquad t = 0, \tfrac{1}{K}, \ldots, \tfrac{K-1}{K} \tag{11.3}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $K$ | `steps` | | number of steps | 步数 |
    | $v$ | `velocity` | (B, P), (B, 1) → (B, P) | what gives the velocity at x and t | 给出 x、t 处的速度 |

    It raises ValueError if a velocity has another shape or is not finite.

    速度的形状不对，或者不是有限的数时，报 ValueError。

    Paper: Lipman et al. 2023, Flow Matching for Generative Modeling.

    >>> euler_steps(lambda x, t: -x, torch.tensor([[8.0]]), steps=2).flatten()
    tensor([8., 4., 2.])
    """
    steps, frames = checks.whole(steps, "steps"), [x_0]
    for k in range(steps):
        v = velocity(frames[-1], x_0.new_full((len(x_0), 1), k / steps))
        checks.fits(v, "velocity(x, t)", "B P", x_0, B=len(x_0), P=x_0.shape[1])
        require(bool(v.isfinite().all()), f"第 {k + 1} 步的速度不是有限的数",
                f"the velocity of step {k + 1} is not finite")
        frames.append(frames[-1] + v / steps)
    return torch.stack(frames)


@shapes(a="N D", b="M D", least={"N": 2, "M": 2, "D": 1}, precise="a b")
def frechet_distance(a: Tensor, b: Tensor) -> Tensor:
    r"""两组特征的弗雷歇距离 / The Fréchet distance of two sets of features: → ().

    $$F = \|\mu_a - \mu_b\|^2 +
    \mathrm{tr}\!\left(\Sigma_a + \Sigma_b - 2\,(\Sigma_a \Sigma_b)^{1/2}\right) \tag{11.4}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $a$, $b$ | `a`, `b` | (N, D), (M, D) | features of drawings, of real pictures | 画的图的特征，真的图的特征 |
    | $\mu$ | | (D,) | the mean of a set | 一组的平均 |
    | $\Sigma$ | | (D, D) | the covariance of a set | 一组的协方差 |

    0 where mean and covariance agree. With the features of an Inception network this is FID. The first term by itself
    does not see whether all drawings are one and the same. For few pictures it is too high even between two sets of
    real ones, so compare it for equal numbers only.

    平均和协方差都一样时是 0。特征取自 Inception 网络时，就是 FID。只有第一项时，看不出是不是全是同一幅。图少的时候，
    两组真的图之间也偏高，所以只能在数目相同时相比。

    Paper: Heusel et al. 2017, GANs Trained by a Two Time-Scale Update Rule (FID).

    >>> frechet_distance(torch.tensor([[0.0], [2.0]]), torch.tensor([[3.0], [3.0]]))
    tensor(6.)
    """
    for name, given in (("a", a), ("b", b)):
        require(bool(given.isfinite().all()), f"{name} 里有 NaN 或无穷", f"{name} holds NaN or infinity")
    x, y = a.cpu().double(), b.cpu().double()  # not every device has float64
    S_a, S_b = torch.cov(x.T).view(x.shape[1], -1), torch.cov(y.T).view(x.shape[1], -1)
    values, vectors = torch.linalg.eigh(S_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    mixed = torch.linalg.eigvalsh(root @ S_b @ root).clamp_min(0).sqrt().sum()  # tr (S_a S_b)^½
    return ((x.mean(0) - y.mean(0)).square().sum() + S_a.trace() + S_b.trace() - 2 * mixed).clamp_min(0).to(a)


@shapes(x="N P", least={"N": 2, "P": 1}, precise="x")
def variety(x: Tensor) -> Tensor:
    r"""一组图有多不一样 / How different the pictures of a set are: each one's mean distance to the others: → (N,).

    $$V_i = \frac{1}{N - 1} \sum_{j \ne i} \| x_i - x_j \| \tag{11.5}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $x$ | `x` | (N, P) | drawings of one word | 同一个词画出的图 |

    0 where all are the same.

    全都一样时是 0。

    Paper: none; a plain mean of distances.

    >>> variety(torch.tensor([[0.0], [1.0], [4.0]]))
    tensor([2.5000, 2.0000, 3.5000])
    """
    return _distances(x, x).sum(1) / (len(x) - 1)


@shapes(x="N P", X="M P", least={"M": 1, "P": 1}, precise="x X")
def nearest_distance(x: Tensor, X: Tensor) -> Tensor:
    r"""离一组图里最近的一幅有多远 / How far the nearest picture of a set is: → (N,).

    $$d_i = \min_{m} \| x_i - X_m \| \tag{11.6}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $x$ | `x` | (N, P) | drawings | 画的图 |
    | $X$ | `X` | (M, P) | training pictures, or others to compare with | 训练的图，或者用来比的别的图 |

    Exactly 0 for a copy. How small is small is a matter of comparison: ask it also of as many pictures that the
    training never saw.

    照抄的正好是 0。多小才算小，要比了才知道：拿同样多的、训练没见过的图也问一次。

    Paper: Meehan et al. 2020, A Non-Parametric Test to Detect Data-Copying in Generative Models.

    >>> nearest_distance(torch.tensor([[0.0], [5.0]]), torch.tensor([[1.0], [5.0]]))
    tensor([1., 0.])
    """
    checks.ranked(x, "x")
    checks.ranked(X, "X")
    return _distances(x, X).amin(1)


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """Exact, so that a copy is at 0: the quick way by products leaves some 1e-3."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
