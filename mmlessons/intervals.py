"""区间：换一批题，成绩会变多少 / Intervals: how much a score would change with other questions.

A score on 256 questions is a sample of what other questions would have given. The interval is found by drawing the
questions again, with replacement, two thousand times (the bootstrap of Efron 1979). It holds 95% of what comes out. Two
rules asked the same questions are compared question by question (`paired`), which is much sharper than to look whether
two intervals overlap. How much trainings differ from seed to seed is another uncertainty, and no part of it.

256 道题上的成绩只是一次抽样，换一批题就会不同。区间这样求：有放回地重新抽这些题两千次（Efron 1979 的自助法），取中间的
95%。同样的题上比较两种做法，要一题一题地比（`paired`），这比看两个区间有没有重叠敏锐得多。换一个种子再训练，成绩也会变，
那是另一种不确定，不在这个区间里。
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mmcore.checks import require, shape_of
from mmlessons.border import typed

DRAWS = 2000
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """一个成绩，和它的 95% 区间 / A score and its 95% interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


@typed
def interval(scores: Tensor) -> Interval:
    """平均成绩和它的区间 / The mean score and its interval over the questions.

    `scores` is (N,), one score a question, right or wrong as True and False; or (S, N) for S trainings, which are
    averaged question by question first. Several questions about one picture are one item: give their mean. Where every
    answer is right, or every one wrong, drawing again shows nothing, and the bound is the exact binomial one. Raises
    TypeError or ValueError for anything else, for fewer than two questions and for NaN.

    `scores` 是 (N,)，一题一个成绩，对错写成 True 和 False；或者 (S, N)，是 S 次训练的，先一题一题地平均。一幅图上的几道
    题算一项，给它们的平均。全对或全错时，重抽看不出什么，界限取精确的二项界限。别的输入、不到两道题、有 NaN，都报
    TypeError 或 ValueError。

    >>> print(interval(torch.tensor([True] * 60 + [False] * 40)))
    0.60 [0.51, 0.69]
    """
    return _interval(_items(scores, "scores"), 0.0)


@typed
def paired(scores: Tensor, others: Tensor) -> Interval:
    """同样的题上高出多少 / By how much one score is higher than the other on the same questions.

    Both are as in `interval`, and of the same questions; the numbers of trainings may differ. If the interval holds 0,
    these questions do not tell the two apart.

    两者都与 `interval` 的一样，而且是同样的题，训练的次数可以不同。区间里若有 0，这些题就分不出高低。

    >>> print(paired(torch.tensor([True] * 30), torch.tensor([True] * 20 + [False] * 10)))
    0.33 [0.17, 0.50]
    """
    first, second = _items(scores, "scores"), _items(others, "others")
    require(len(first) == len(second),
            f"需要同样的题，收到 {shape_of(scores)} 与 {shape_of(others)}",
            f"the same questions are needed, got {shape_of(scores)} and {shape_of(others)}")
    return _interval(first - second, -1.0)


@typed
def resampled(statistic: Callable[..., float], *columns: Tensor, items: Tensor | None = None) -> Interval:
    """不是平均数的成绩的区间 / The interval of a score that is no mean, such as F1 or a calibration error.

    `statistic(*columns)` is computed again on questions drawn with replacement; `columns` have one row a question.
    With `items`, rows of one number are one item and are drawn together (the questions about one picture, say).
    Fewer draws than in `interval`, because each costs more. For a score that is larger on few questions (a calibration
    error is) the whole interval lies a little high.

    在有放回地重抽的题上重新计算 `statistic(*columns)`；`columns` 一题一行。给了 `items`，编号相同的行算一项，一起抽
    （例如一幅图上的几道题）。每抽一次都贵一些，所以抽得比 `interval` 少。
    题少时本来就偏大的成绩（例如校准误差），整个区间会偏高一点。

    >>> print(resampled(lambda x: x.double().mean().item(), torch.tensor([True] * 60 + [False] * 40)))
    0.60 [0.50, 0.69]
    """
    require(len(columns) > 0 and all(x.ndim > 0 and len(x) == len(columns[0]) >= 2 for x in columns),
            "每一列需要同样多的题，至少两道", "all columns must have as many questions, two at least")
    for x in columns:
        require(not x.is_complex() and bool(x.isfinite().all()), "有一列是复数，或有 NaN、无穷",
                "a column is complex, or holds NaN or infinity")
    groups = torch.arange(len(columns[0])) if items is None else items
    require(groups.dtype == torch.int64 and groups.shape == columns[0].shape[:1],
            "items 需要是 int64，一题一个编号", "items must be int64, a number for each question")
    rows_of = [(groups == item).nonzero().squeeze(1) for item in groups.unique()]
    generator, n, drawn = torch.Generator().manual_seed(0), len(rows_of), []
    for _ in range(DRAWS // 4):
        rows = torch.cat([rows_of[i] for i in torch.randint(n, (n,), generator=generator).tolist()])
        drawn.append(float(statistic(*(x[rows] for x in columns))))
    ends = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(statistic(*columns)), float(ends[0]), float(ends[1]))


def _items(scores: Tensor, name: str) -> Tensor:
    """One number a question, the mean over the trainings; float64, so that tenths stay tenths."""
    require(scores.ndim in (1, 2) and scores.shape[-1] >= 2 and scores.shape[0] >= 1,
            f"{name} 需要形状 (N,) 或 (S, N)，至少两道题，收到 {shape_of(scores)}",
            f"{name} must have shape (N,) or (S, N) with two questions or more, got {shape_of(scores)}")
    require(not scores.is_complex(), f"{name} 需要是实数", f"{name} must be real numbers", TypeError)
    items = scores.detach().to("cpu", torch.float64)
    require(bool(items.isfinite().all()), f"{name} 里有 NaN 或无穷", f"{name} holds NaN or infinity")
    return items.mean(0) if items.ndim == 2 else items


def _interval(items: Tensor, least: float) -> Interval:
    from scipy.stats import bootstrap  # takes two seconds to import, which only a lesson that asks for it should wait

    value = items.mean().item()
    if (items == items[0]).all():  # as many as this share of all questions may be answered otherwise, and none be seen
        unseen = 1 - ((1 - LEVEL) / 2) ** (1 / len(items))
        return Interval(value, value - unseen * max(0.0, value - least), value + unseen * max(0.0, 1 - value))
    found = bootstrap((items.numpy(),), np.mean, n_resamples=DRAWS, confidence_level=LEVEL, method="percentile",
                      rng=0).confidence_interval
    return Interval(value, float(found.low), float(found.high))
