"""成绩 / Scores: what cannot be scored is refused, since the largest of NaN is an index like any other."""

from torch import Tensor

from mmcore import checks, ranking
from mmcore.checks import shapes


@shapes(scores="B K", label="int64 B", least={"B": 1})
def accuracy(scores: Tensor, label: Tensor, name: str = "scores") -> float:
    """最大的一项就是标签的比例，并列算错 / The share of rows whose largest entry is the label; ties are misses.

    Raises ValueError if a score is NaN, naming it by `name`, or a label is no class.

    得分里有 NaN 时报 ValueError，用 `name` 说出是哪个；标签不是类别时也报。
    """
    checks.ranked(scores, name)
    return ranking.accuracy(scores, label.to(scores.device))


def best(scores: Tensor, name: str = "scores") -> Tensor:
    """最后一维里最大的一项在哪里；有 NaN 时报 ValueError / Where the largest is, in the last dimension; no NaN."""
    checks.ranked(scores, name)
    return scores.argmax(-1)
