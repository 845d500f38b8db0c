r"""一批分成几份 / A batch in several shares: (13.1) to (13.5).

Letters: P machines, n pairs on each, N = P n pairs in all, D feature width, K numbers of a gradient. What does not fit
is refused with TypeError or ValueError. Nothing here sends anything: `mmcore.distributed` does.

字母：P 台机器，每台 n 对，共 N = P n 对，D 特征宽度，梯度有 K 个数。不符时报 TypeError 或 ValueError。这里什么也不传，
传的在 `mmcore.distributed`。
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcore import checks
from mmcore.alignment import cosine_similarity
from mmcore.checks import refuse, shapes, typed

WAYS = ("local", "plain", "own", "gather", "ring")  # nothing travels; rows; rows; rows and gradients; both, in a ring


@shapes(a="N D", b="N D", A="M D", B="M D", least={"N": 1, "M": 2, "D": 1}, precise="a b A B")
def share_loss(a: Tensor, b: Tensor, A: Tensor, B: Tensor, first: int, tau: float | Tensor) -> Tensor:
    r"""自己的一份对全部 / The loss of one's own share against the rows of all: → ().

    $$L_p = -\frac{1}{2n} \sum_{i=1}^{n} \left[
    \log \frac{e^{\mathrm{sim}(a_i, b_i)/\tau}}{\sum_{j=1}^{N} e^{\mathrm{sim}(a_i, B_j)/\tau}} +
    \log \frac{e^{\mathrm{sim}(b_i, a_i)/\tau}}{\sum_{j=1}^{N} e^{\mathrm{sim}(b_i, A_j)/\tau}} \right] \tag{13.1}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $a$, $b$ | `a`, `b` | (n, D) | the rows of this machine | 这台机器的行 |
    | $A$, $B$ | `A`, `B` | (N, D) | the rows of all machines | 所有机器的行 |
    | | `first` | | where the own rows begin among all, from 0 | 自己的行在全部里从第几行起，从 0 数 |
    | $\tau$ | `tau` | | temperature, above 0 | 温度，大于 0 |

    The numerators are taken from A and B as well, at the rows from `first` on. With equal shares the mean of all L_p
    is (2.1) of the whole batch, and with P = 1 the share is the batch.

    分子也从 A、B 里取，就是从 `first` 起的那几行。每份一样大时，各个 L_p 的平均就是整批的 (2.1)；P = 1 时，一份就是
    整批。

    Paper: Radford et al. 2021, CLIP; Cherti et al. 2023, Reproducible Scaling Laws (open_clip, `local_loss`).

    >>> eye = torch.eye(2)
    >>> share_loss(eye[1:], eye[1:], eye, eye, first=1, tau=1.0)  # as (2.1): log(1 + 1/e)
    tensor(0.3133)
    """
    checks.positive(tau, "tau")
    first = checks.whole(first, "first", 0)
    if first + len(a) > len(A):
        refuse(f"从 first = {first} 起要有 {len(a)} 行，A 只有 {len(A)} 行",
               f"from first = {first} on there must be {len(a)} rows, and A has {len(A)}")
    own = torch.arange(first, first + len(a), device=a.device)
    S, T = cosine_similarity(a, B) / tau, cosine_similarity(b, A) / tau  # (n, N) each
    return (F.cross_entropy(S, own) + F.cross_entropy(T, own)) / 2


@shapes(g="P K", whole="K", least={"P": 1, "K": 1})
def gradient_error(g: Tensor, whole: Tensor) -> dict[str, Tensor]:
    r"""平均以后的梯度差多少 / How the averaged gradient differs from the true one → {"cosine", "length"}, each ().

    $$\bar g = \frac{1}{P} \sum_{p=1}^{P} g_p \tag{13.2}$$

    $$\cos = \frac{\bar g \cdot g}{\lVert \bar g \rVert \lVert g \rVert}, \quad
    r = \frac{\lVert \bar g \rVert}{\lVert g \rVert} \tag{13.3}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $g_p$ | `g` | (P, K) | what each machine found for the same parameters | 每台机器对同样的参数求出的 |
    | $g$ | `whole` | (K,) | the gradient of one machine with the whole batch | 一台机器算整批的梯度 |
    | $\cos$, $r$ | `cosine`, `length` | | 1 and 1 where nothing is wrong | 没有错时都是 1 |

    DistributedDataParallel averages like this after every step. The cosine says whether the direction is right, r
    whether the length is. The cosine with an average of zeros is 0. Raises ValueError if the true gradient is zeros.

    DistributedDataParallel 每一步都这样求平均。余弦说方向对不对，r 说长度对不对。平均以后全是 0 时，余弦是 0。真的梯度
    全是 0 时报 ValueError。

    Paper: Li et al. 2020, PyTorch Distributed: Experiences on Accelerating Data Parallel Training.

    >>> gradient_error(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([4.0, 0.0]))
    {'cosine': tensor(1.), 'length': tensor(0.2500)}
    """
    average, length = g.mean(0), whole.norm()
    if not length > 0:
        refuse("whole 全是 0，没有方向，比不出差多少", "whole is all zeros and has no direction to compare with")
    return {"cosine": cosine_similarity(average[None], whole[None])[0, 0], "length": average.norm() / length}


@typed
def numbers_sent(pairs: int, width: int, machines: int, way: str) -> int:
    r"""一台机器在一步里传出几个数 / How many numbers one machine sends in one step, forward and backward.

    $$G = 4\,(P - 1)\,n D \tag{13.4}$$

    $$R = n\,\bigl((3P - 2)\,D + 2P\bigr) \tag{13.5}$$

    | symbol | name | meaning | 含义 |
    |---|---|---|---|
    | $n$ | `pairs` | pairs on this machine | 这台机器有几对 |
    | $D$ | `width` | width of a feature | 特征的宽度 |
    | $P$ | `machines` | machines; one of them sends nothing | 几台机器，只有一台时什么也不传 |
    | $G$ | `way="gather"` | a and b to all others, then their gradients | a、b 给其余每一台，再送回梯度 |
    | $R$ | `way="ring"` | b goes round, with sums, then with gradients | b 转圈，带着和，再带着梯度 |

    "plain" and "own" send no gradients back, which is half of G, and "local" sends nothing. A float32 number has 4
    bytes. The gradients of the parameters are averaged besides, in every way alike.

    “plain”和“own”不送回梯度，是 G 的一半；“local”什么也不传。float32 的一个数是 4 字节。参数的梯度另外求平均，各种
    做法都一样。

    Paper: Cheng et al. 2024, Inf-CL (the ring).

    >>> numbers_sent(32, 64, 4, "gather"), numbers_sent(32, 64, 4, "ring"), numbers_sent(32, 64, 1, "ring")
    (24576, 20736, 0)
    """
    n, D, P = (checks.whole(x, name) for x, name in ((pairs, "pairs"), (width, "width"), (machines, "machines")))
    checks.one_of(way, "way", WAYS)
    gather, ring = 4 * (P - 1) * n * D, n * ((3 * P - 2) * D + 2 * P)
    return {"local": 0, "plain": gather // 2, "own": gather // 2, "gather": gather, "ring": ring}[way] if P > 1 else 0
