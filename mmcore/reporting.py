r"""通用的成绩：别人也这样报告 / Scores as others report them: (12.1) to (12.4).

Letters: N queries or questions, M candidates, K classes, P prompts, D feature width. What does not fit is refused with
TypeError or ValueError.

字母：N 个查询或问题，M 个候选，K 个类别，P 种说法，D 特征宽度。不符时报 TypeError 或 ValueError。
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcore import checks
from mmcore.checks import refuse, shapes
from mmcore.ranking import ranks


@shapes(S="N M", positives="bool N M", least={"N": 1, "M": 1})
def recall_at(S: Tensor, positives: Tensor, k: int = 1) -> Tensor:
    r"""R@k，一个查询可以有几个正确答案 / R@k where a query may have several right answers: (N, M) → (N,) bool.

    $$\mathrm{R@}k = \frac{1}{N} \sum_{i=1}^{N} \Big[ \min_{j \in P_i} r_{ij} \le k \Big], \qquad
    r_{ij} = 1 + \big|\{\, l \notin P_i : S_{il} \ge S_{ij} \,\}\big| \tag{12.1}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $S$ | `S` | (N, M) | how well candidate j answers query i | 候选 j 与查询 i 有多配 |
    | $P_i$ | `positives[i]` | (M,) | the right answers to query i, one at least | 查询 i 的正确答案，至少一个 |
    | $r_{ij}$ | | | rank of a right answer among the wrong ones | 一个正确答案在错误答案里排第几 |

    What is returned says of each query whether it is a hit; R@k is the mean. A picture with five captions is a hit if
    any of them is among the first k, and each caption asks for its one picture: this is COCO's protocol. Ties are
    misses.

    返回每个查询中没中，平均就是 R@k。一幅图有五句说明时，任何一句进了前 k 就算中；反过来每一句各找一次它的图。这就是
    COCO 的做法。并列算错。

    Paper: Karpathy and Fei-Fei 2015, Deep Visual-Semantic Alignments; Chen et al. 2015, Microsoft COCO Captions.

    >>> S = torch.tensor([[0.9, 0.2, 0.8, 0.1], [0.7, 0.6, 0.3, 0.5]])  # two pictures, two captions each
    >>> recall_at(S, torch.tensor([[True, True, False, False], [False, False, True, True]]))
    tensor([ True, False])
    """
    return ranks(S, positives) <= checks.whole(k, "k")


@shapes(t="K P D", least={"K": 1, "P": 1, "D": 1}, precise="t")
def prompt_ensemble(t: Tensor) -> Tensor:
    r"""几种说法合成一个类别向量 / Several prompts become one vector for each class: (K, P, D) → (K, D).

    $$w_k = \frac{\bar t_k}{\lVert \bar t_k \rVert}, \qquad
    \bar t_k = \frac{1}{P} \sum_{p=1}^{P} \frac{t_{kp}}{\lVert t_{kp} \rVert} \tag{12.2}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $t_{kp}$ | `t` | (K, P, D) | feature of class k said in way p | 类别 k 第 p 种说法的特征 |
    | $w_k$ | | (K, D) | what pictures are compared with | 图画拿来比的向量 |

    Zero-shot classification: the class whose vector has the largest cosine with the feature of the picture. A feature
    of length 0 is refused, and so are features whose mean is 0.

    零样本分类：与图画特征余弦最大的那个类别。特征长度为 0，或平均为 0 时报错。

    Paper: Radford et al. 2021, Learning Transferable Visual Models From Natural Language Supervision, section 3.1.4.

    >>> prompt_ensemble(torch.tensor([[[3.0, 0.0], [0.0, 0.5]]]))
    tensor([[0.7071, 0.7071]])
    """
    if not bool((t.norm(dim=2) > 0).all()):
        refuse("t 里有长度为 0 的特征", "t holds a feature of length 0")
    mean = F.normalize(t, dim=2).mean(1)
    if not bool((mean.norm(dim=1) > 1e-6).all()):
        refuse("有一个类别的几种说法互相抵消", "the prompts of a class cancel each other")
    return F.normalize(mean, dim=1)


@shapes(p="N K", labels="int64 N", least={"N": 1, "K": 2})
def calibration_error(p: Tensor, labels: Tensor, bins: int = 10) -> float:
    r"""期望校准误差：说有几成把握，就对几成吗 / Expected calibration error: is it right as often as it says?

    $$\mathrm{ECE} = \sum_{b=1}^{B} \frac{|I_b|}{N} \,\Big|\, \frac{1}{|I_b|} \sum_{i \in I_b} [\hat y_i = y_i] -
    \frac{1}{|I_b|} \sum_{i \in I_b} \hat p_i \,\Big| \tag{12.3}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $p$ | `p` | (N, K) | probabilities, each row a sum of 1 | 概率，每行的和是 1 |
    | $\hat y_i$, $\hat p_i$ | | | where the largest of row i is, and the largest itself | 第 i 行最大的在哪里，是多少 |
    | $y$ | `labels` | (N,) | what is right | 正确答案 |
    | $I_b$ | | | rows whose $\hat p_i$ lies in $((b-1)/B,\ b/B]$ | $\hat p_i$ 落在这一段的那些行 |

    0 is perfect. On few questions even a perfect model has more than 0, because each bin is a small sample.

    0 最好。题少时，完美的模型也大于 0，因为每一段里只有几道题。

    Paper: Guo et al. 2017, On Calibration of Modern Neural Networks.

    >>> p = torch.tensor([[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.75, 0.25]])
    >>> calibration_error(p, torch.tensor([0, 0, 0, 1])), calibration_error(p, torch.tensor([0, 0, 1, 1]))
    (0.0, 0.25)
    """
    bins = checks.whole(bins, "bins")
    checks.classes(labels, "labels", *p.shape)
    x = p.detach().cpu().double()
    if not bool(((x >= 0) & (x <= 1 + 1e-6)).all()) or not bool(((x.sum(1) - 1).abs() < 1e-3).all()):
        refuse("p 需要是概率，每行的和是 1", "p must be probabilities with rows that sum to 1")
    surest, said = x.max(1)
    which = torch.clamp((surest * bins - 1e-9).ceil().long(), 1, bins) - 1
    gaps = F.one_hot(which, bins).T.to(x) @ ((said == labels.cpu()).to(x) - surest)  # right minus said, bin by bin
    return (gaps.abs().sum() / len(x)).item()


@shapes(yes="bool N", truth="bool N", least={"N": 1})
def yes_no_scores(yes: Tensor, truth: Tensor) -> dict[str, float]:
    r"""“有没有”问题的成绩 / Scores of yes-or-no questions: {"accuracy", "precision", "recall", "f1", "yes"}.

    $$\mathrm{F}_1 = \frac{2\,\mathrm{TP}}{2\,\mathrm{TP} + \mathrm{FP} + \mathrm{FN}} \tag{12.4}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | TP | `yes & truth` | | said yes, and it is there | 说有，也真有 |
    | FP | `yes & ~truth` | | said yes, and it is not there | 说有，其实没有 |
    | FN | `~yes & truth` | | said no, and it is there | 说没有，其实有 |

    Precision is TP/(TP + FP), recall TP/(TP + FN), `yes` the share of answers that are yes. What would be 0/0 is 0. Who
    always says yes has an F1 of 2/3 where half of the answers are yes, so that it is never to be given without `yes`.

    查准率 TP/(TP + FP)，查全率 TP/(TP + FN)，`yes` 是说“有”的占几成。0/0 记作 0。一半的答案是“有”时，永远说“有”的 F1 是
    2/3，所以 F1 总要和 `yes` 一起看。

    Paper: Li et al. 2023, Evaluating Object Hallucination in Large Vision-Language Models (POPE).

    >>> yes_no_scores(torch.tensor([True, True, True, True]), torch.tensor([True, False, True, False]))["accuracy"]
    0.5
    """
    tp, fp, fn, right = (int(rows.sum()) for rows in (yes & truth, yes & ~truth, ~yes & truth, yes == truth))

    def over(a: float, b: float) -> float:
        return a / b if b else 0.0

    return {"accuracy": right / len(yes), "precision": over(tp, tp + fp), "recall": over(tp, tp + fn),
            "f1": over(2 * tp, 2 * tp + fp + fn), "yes": (tp + fp) / len(yes)}
