r"""跨模态对齐的公式 / The formulas of cross-modal alignment: (2.1).

字母 / Letters: N 对 pairs · D 特征宽度 feature width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcore import checks


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """两两余弦 / Every cosine: (N, D), (M, D) → (N, M)."""
    checks.matrix(a, "a")
    checks.matrix(b, "b", columns=a.shape[1])
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T


def contrastive_loss(a: Tensor, b: Tensor, tau: float | Tensor, positives: Tensor | None = None) -> Tensor:
    r"""对比损失 / Contrastive loss (InfoNCE, as in CLIP).

    每幅图像都在一批文字里找自己的那一句，每句文字也在一批图像里找自己的那一幅；认错得越有把握，损失越大。
    温度 τ 越小，越只计较最像的那几个对手。

    Every picture looks for its own text among the batch, and every text for its own picture; the more confidently it
    picks a wrong one, the larger the loss. The smaller the temperature τ, the more only the closest rivals count.

    $$L = -\frac{1}{2N} \sum_{i=1}^{N} \left[
    \log \frac{e^{\mathrm{sim}(a_i, b_i)/\tau}}{\sum_{j=1}^{N} e^{\mathrm{sim}(a_i, b_j)/\tau}} +
    \log \frac{e^{\mathrm{sim}(b_i, a_i)/\tau}}{\sum_{j=1}^{N} e^{\mathrm{sim}(b_i, a_j)/\tau}} \right] \tag{2.1}$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $a$ | `a` | (N, D) | 一种模态的特征 / features of one modality |
    | $b$ | `b` | (N, D) | 另一种模态的特征 / features of the other |
    | $\mathrm{sim}$ | `cosine_similarity` | (N, N) | 余弦相似度 / cosine similarity |
    | $\tau$ | `tau` | | 温度，大于 0 / temperature, above 0 |
    | $L$ | `L` | | 损失 / loss |

    `positives[i, j]` 为真，表示 aᵢ 与 bⱼ 意思相同（例如同一句说明出现两次）。这时对第 i 行的每个正例各算一次 log，
    再取平均；每个正例都在分母里。不给时只有对角线。

    `positives[i, j]` is true where aᵢ and bⱼ mean the same (a caption that occurs twice, say). Then row i takes the
    mean of the log over its positives, each of them in the denominator. Without it, the diagonal alone.

    计算时写成 softplus(其余的 logsumexp − 正例)：与公式相等，且损失接近 0 时梯度仍然准确。半精度的特征先变成 float32。

    It is computed as softplus(logsumexp of the others − positive): equal to the formula, and its gradient stays exact
    where the loss is near 0. Features of half precision become float32 first.

    Raises: TypeError / ValueError 形状、类型、τ 不对，N < 2，某个特征全是 0，或某行某列没有正例 / for a wrong shape,
    type or τ, N < 2, a feature that is all 0, or a row or column without a positive.
    Paper: van den Oord et al. 2018, Representation Learning with Contrastive Predictive Coding; Radford et al. 2021,
    Learning Transferable Visual Models From Natural Language Supervision.
    """
    checks.matrix(a, "a")
    checks.matrix(b, "b", *a.shape)
    checks.require(a.dtype == b.dtype, f"a 和 b 需要同一类型，收到 {a.dtype} 和 {b.dtype}",
                   f"a and b must have the same dtype, got {a.dtype} and {b.dtype}", TypeError)
    checks.positive(tau, "tau")
    n = a.shape[0]
    checks.require(n > 1, f"对比需要至少 2 对，收到 {n} 对：没有别的可比，损失恒为 0",
                   f"a contrast needs at least 2 pairs, got {n}: with nothing to compare, the loss is always 0")
    if positives is not None:
        _check_positives(positives, n)
    if a.dtype in (torch.float16, torch.bfloat16):
        a, b = a.float(), b.float()
    tau = tau.reshape(()).to(a) if isinstance(tau, Tensor) else float(tau)
    S = (a / _lengths(a, "a")) @ (b / (_lengths(b, "b") * tau)).T  # (N, N)
    if positives is not None:
        return (_several(S, positives) + _several(S.T, positives.T)) / 2
    positive = S.diagonal()
    others = S.diagonal_scatter(torch.full_like(positive, -torch.inf))
    rows, columns = _logsumexp_both(others, 1 / tau)
    return (F.softplus(rows - positive) + F.softplus(columns - positive)).mean() / 2


def _lengths(x: Tensor, name: str) -> Tensor:
    """每个特征的长度 / The length of each feature: (N, D) → (N, 1)."""
    length = x.norm(dim=1, keepdim=True)
    checks.require(not bool((length == 0).any()), f"{name} 有一行全是 0，没有方向，算不出余弦",
                   f"{name} has a row of zeros: it has no direction, and a cosine needs one")
    return length


def _logsumexp_both(S: Tensor, bound: float | Tensor) -> tuple[Tensor, Tensor]:
    """logsumexp 按行与按列 / Along rows and along columns, of an S whose entries lie in ±bound."""
    if 2 * float(torch.as_tensor(bound).detach()) > 80:
        # e⁻⁸⁰ is near the smallest float32: subtract the maximum of each row and column instead of one bound
        return S.logsumexp(1), S.logsumexp(0)
    e = (S - bound).exp()  # one exponential serves both
    return e.sum(1).log() + bound, e.sum(0).log() + bound


def _several(S: Tensor, positives: Tensor) -> Tensor:
    """按行，每次取每行的一个正例 / Along the rows, one positive of each row at a time.

    正例多于 8 个的行不必如此：它的损失至少是 ln 9，离 0 很远，直接算也准确。

    A row of more than 8 positives needs no such care: its loss is at least ln 9, far from 0, and exact when computed
    directly.
    """
    count = positives.sum(1)
    place = positives.int().sort(dim=1, descending=True, stable=True).indices  # the positives of each row come first
    total = S.new_zeros(len(S))
    for k in range(min(int(count.max()), 8)):
        p = place[:, k:k + 1]
        others = S.scatter(1, p, -torch.inf).logsumexp(1)
        total = total + torch.where(k < count, F.softplus(others - S.gather(1, p).squeeze(1)), 0.0)
    if int(count.max()) <= 8:
        return (total / count).mean()
    direct = S.logsumexp(1) - torch.where(positives, S, 0.0).sum(1) / count
    return torch.where(count > 8, direct, total / count).mean()


def _check_positives(positives: Tensor, n: int) -> None:
    checks.require(isinstance(positives, Tensor) and positives.dtype == torch.bool and positives.shape == (n, n),
                   f"positives 需要是 ({n}, {n}) 的布尔张量", f"positives must be a boolean tensor of shape ({n}, {n})")
    checks.require(bool(positives.any(0).all() and positives.any(1).all()),
                   "positives 的每一行、每一列都需要至少一个正例",
                   "every row and every column of positives needs at least one positive")
