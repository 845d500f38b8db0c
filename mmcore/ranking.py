"""检索的成绩 / How good a retrieval is.

字母 / Letters: N 个查询 queries · M 个候选 candidates.
"""

import torch
from torch import Tensor

from mmcore import checks


def ranks(S: Tensor, positives: Tensor | None = None) -> Tensor:
    """每个查询的正确答案排第几 / The rank of the right answer to each query: (N, M) → (N,), the best is 1.

    并列算错：与正确答案一样高的错误答案都排在它前面，所以常数特征得不到分。

    Ties count as misses: every wrong answer that scores as high as the right one is ranked before it, so that constant
    features earn nothing.

    `S[i, j]` 越大，候选 j 越像查询 i 的答案；`positives[i, j]` 为真表示 j 是对的，不给时只有对角线。有几个正确答案时
    取最高的。

    The larger `S[i, j]`, the more candidate j looks like the answer to query i; `positives[i, j]` is true where j is
    right, without it the diagonal alone. Of several right answers the best one counts.

    Raises: TypeError / ValueError 形状不对、有 NaN，或某个查询没有正确答案 / for a wrong shape, a NaN, or a query
    without a right answer.
    """
    checks.matrix(S, "S")
    checks.require(not bool(S.isnan().any()), "S 里有 NaN，无法排名", "S holds NaN and cannot be ranked")
    if positives is None:
        checks.matrix(S, "S", rows=S.shape[1])
        positives = torch.eye(len(S), dtype=torch.bool, device=S.device)
    checks.require(isinstance(positives, Tensor) and positives.dtype == torch.bool and positives.shape == S.shape
                   and bool(positives.any(1).all()),
                   f"positives 需要是 {checks.shape_of(S)} 的布尔张量，每行至少一个真",
                   f"positives must be a boolean tensor of shape {checks.shape_of(S)}, at least one true in each row")
    best = S.masked_fill(~positives, -torch.inf).amax(1, keepdim=True)
    return 1 + ((best <= S) & ~positives).sum(1)


def retrieval_scores(S: Tensor, positives: Tensor | None = None) -> dict[str, float]:
    """检索成绩与随机水平 / Retrieval scores beside chance: {"r@1", "r@5", "median_rank", "chance"}.

    r@k 是正确答案排进前 k 的比例；chance 是乱猜的 r@1。参数与错误同 `ranks`。

    r@k is the share of queries whose right answer is among the first k; chance is the r@1 of guessing. Arguments and
    errors are those of `ranks`.
    """
    place = ranks(S, positives).cpu().double()  # MPS has no float64
    right = 1.0 if positives is None else positives.cpu().double().sum(1).mean().item()
    return {"r@1": (place <= 1).double().mean().item(), "r@5": (place <= 5).double().mean().item(),
            "median_rank": place.median().item(), "chance": right / S.shape[1]}


def mutual_scores(S: Tensor, positives: Tensor | None = None) -> dict[str, float]:
    """两个方向的 `retrieval_scores`，逐项平均 / `retrieval_scores` of both directions, the mean of each."""
    there = retrieval_scores(S, positives)
    back = retrieval_scores(S.T, None if positives is None else positives.T)
    return {key: (there[key] + back[key]) / 2 for key in there}
