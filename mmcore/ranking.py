"""检索的成绩，N 个查询，M 个候选 / How good a retrieval is, with N queries and M candidates."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcore import checks
from mmcore.checks import refuse, shape_of, shapes

SOME = {"N": 1, "M": 1, "D": 1, "P": 1}  # where a mean is taken there has to be something


@shapes(S="N M", positives="bool N M", least=SOME)
def ranks(S: Tensor, positives: Tensor | None = None) -> Tensor:
    """每个查询的正确答案排第几 / The rank of the right answer to each query: (N, M) → (N,), the best is 1.

    The larger `S[i, j]`, the more candidate j looks like the answer to query i; `positives[i, j]` is true where j is
    right, without it the diagonal only. The best of several right answers counts, and ties are misses. NaN is refused.

    `S[i, j]` 越大，候选 j 越像查询 i 的答案；`positives[i, j]` 为真表示 j 是对的，不给时只有对角线。有几个正确答案时
    取最高的。并列算错，所以常数特征得不到分。有 NaN 时报错。

    >>> ranks(torch.tensor([[0.9, 0.1, 0.2], [0.8, 0.5, 0.3], [0.4, 0.0, 0.4]]))
    tensor([1, 2, 2])
    """
    checks.ranked(S, "S")
    if positives is None:
        if S.shape[0] != S.shape[1]:
            refuse(f"没有 positives 时，S 需要是方的，收到 {shape_of(S)}",
                   f"without positives S must be square, got {shape_of(S)}")
        positives = torch.eye(len(S), dtype=torch.bool, device=S.device)
    elif not bool(positives.any(1).all()):
        refuse("positives 需要每行至少一个真：每个查询都有正确答案",
               "positives must have at least one true in each row: a right answer to each query")
    best = S.masked_fill(~positives, -torch.inf).amax(1, keepdim=True)
    return 1 + ((best <= S) & ~positives).sum(1)


def retrieval_scores(S: Tensor, positives: Tensor | None = None) -> dict[str, float]:
    """检索成绩与随机水平 / Retrieval scores beside chance: {"r@1", "r@5", "median_rank", "chance"}.

    r@k is the share of queries whose right answer is among the first k; chance is the r@1 of guessing.

    r@k 是正确答案排进前 k 的比例；chance 是乱猜的 r@1。

    >>> retrieval_scores(torch.eye(4))
    {'r@1': 1.0, 'r@5': 1.0, 'median_rank': 1.0, 'chance': 0.25}
    """
    rank = ranks(S, positives).cpu().double()  # MPS has no float64
    right = 1.0 if positives is None else positives.cpu().double().sum(1).mean().item()
    return {"r@1": (rank <= 1).double().mean().item(), "r@5": (rank <= 5).double().mean().item(),
            "median_rank": rank.median().item(), "chance": right / S.shape[1]}


@shapes(scores="N M", labels="int64 N", least=SOME)
def accuracy(scores: Tensor, labels: Tensor) -> float:
    """正确率，并列算错，有 NaN 时报错，同 `ranks` / Accuracy; as in `ranks` ties are misses and NaN is refused.

    >>> accuracy(torch.tensor([[0.9, 0.1], [0.5, 0.5]]), torch.tensor([0, 0]))
    0.5
    """
    checks.classes(labels, "labels", *scores.shape)
    return (ranks(scores, F.one_hot(labels, scores.shape[1]).bool()) == 1).cpu().double().mean().item()


def mutual_scores(S: Tensor, positives: Tensor | None = None) -> dict[str, float]:
    """两个方向的 `retrieval_scores`，逐项平均 / `retrieval_scores` of both directions, the mean of each."""
    there = retrieval_scores(S, positives)
    back = retrieval_scores(S.T, None if positives is None else positives.T)
    return {key: (there[key] + back[key]) / 2 for key in there}
