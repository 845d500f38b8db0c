"""假如看、听、读都不出错 / If reading, seeing and hearing never failed: what is left is how to put it together.

A sign is what the words say, what the face shows or what the tone shows. By how the utterances are made, the
probability of every combination of signs and meaning is known exactly. So nothing is drawn here and nothing trained: a
rule is a table that gives each combination of signs a probability for every meaning.

字面说什么、脸显出什么、语气显出什么，各是一个迹象。这些话怎样造成是知道的，所以三个迹象与意思的每种组合有多大概率，都能
准确算出。这里不采样，也不训练：一种做法就是一张表，给每种组合写上各个意思的概率。
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcore.fusion import product_of_experts
from mmlessons.border import typed
from mmlessons.data import utterances
from mmlessons.data.utterances import EXPRESSIONS, MEANINGS
from mmlessons.tasks import scoring
from mmlessons.tasks.information import entropy, ratio

SIGNS = ("words", "shown", "sounds")  # as `Utterances.observe` calls them
SIZES = (len(MEANINGS), len(EXPRESSIONS), len(EXPRESSIONS), len(MEANINGS))  # of the three, and of the meaning
BLAME, PRAISE = MEANINGS.index("negative"), MEANINGS.index("positive")
SWEEPS = 500  # of `best_sum`


def odds(data: utterances.Utterances) -> Tensor:
    """每句话：三个迹象与意思的概率 / For each sentence the probability of signs and meaning: (S, 3, 4, 4, 3).

    What `Utterances.observe` draws, written down instead.

    就是 `Utterances.observe` 抽取的那些，只是把概率写出来。
    """
    found = torch.zeros(len(data.sentences), *SIZES, dtype=torch.float64)
    for table, sentence in zip(found, data.sentences, strict=True):
        words = MEANINGS.index(sentence.words)
        meant = [BLAME, PRAISE] if sentence.meant == "open" else [MEANINGS.index(sentence.meant)]
        for meaning in meant:
            shows = utterances.expression_odds(torch.tensor([words]), torch.tensor([meaning]))[0].double()
            table[words, :, :, meaning] = shows[:, None] * shows / shows.sum() ** 2 / len(meant)
    return found


@cache
def everything() -> Tensor:
    """训练集的 p(字面, 脸, 语气, 意思) / p(words, face, tone, meaning) of the training set: (3, 4, 4, 3)."""
    return odds(utterances.load("train")).mean(0)


# -- rules ------------------------------------------------------------------------------------------------------------

def late(p: Tensor) -> Tensor:
    """三张小表，按 (7.1) 相加 / Three small tables, added by (7.1)."""
    prior = p.sum((0, 1, 2)).log()
    small = [p.sum([k for k in range(3) if k != m]) for m in range(3)]  # p(sign, meaning): (3 or 4, 3)
    opinions = [(table / table.sum(1, keepdim=True)).clamp_min(1e-9).log() for table in small]
    rows = torch.cartesian_prod(*(torch.arange(size) for size in SIZES[:3]))  # every combination of signs
    return product_of_experts([table[row] for table, row in zip(opinions, rows.T, strict=True)],
                              prior).exp().reshape(SIZES)


def best_sum(p: Tensor) -> Tensor:
    """最好的相加：没有交互项的逻辑回归 / The best sum: logistic regression without interactions.

    Of all rules whose log-probability is a sum, one number for the words, one for the face and one for the tone, this
    has the least cross-entropy. It is found without gradients: start from no opinion and scale the table in turn until
    each sign goes with each meaning as often as it does in p (iterative proportional fitting).

    对数概率写成相加的做法里（字面一个数，脸一个数，语气一个数），它的交叉熵最小。求它不用梯度：从没有意见开始，轮流缩放
    表格，直到每个迹象与每个意思同时出现的概率都与 p 里的一样（迭代比例拟合）。

    Book: Bishop, Fienberg and Holland 1975, Discrete Multivariate Analysis.
    """
    q = p.sum(3, keepdim=True).expand_as(p) / len(MEANINGS)
    for _ in range(SWEEPS):
        for others in ((1, 2), (0, 2), (0, 1), 3):  # words, face, tone with the meaning; then all three signs
            q = q * ratio(p.sum(others, keepdim=True), q.sum(others, keepdim=True))
    return _given_signs(q)


def large_table(p: Tensor) -> Tensor:
    """一张大表，每种组合一格 / One large table with a cell for each combination: p(meaning | all three signs)."""
    return _given_signs(p)


def _given_signs(p: Tensor) -> Tensor:
    seen = p.sum(3, keepdim=True)
    return torch.where(seen > 0, p / seen.clamp_min(1e-300), p.sum((0, 1, 2)))


@cache
def rules() -> dict[str, Tensor]:
    """各种做法，每种是一张表 / The rules, each a table of probabilities: (3, 4, 4, 3).

    "majority" always says blame, "literal" believes the words, "opposite" turns them around; these learn nothing.
    "late", "sum" and "table" are counted on the training set.

    "majority" 永远答贬，"literal" 照字面听，"opposite" 永远反着听；这三种什么也不学。"late"、"sum"、"table" 由训练集
    数出。
    """
    p = everything()
    same = torch.eye(len(MEANINGS), dtype=torch.float64)[:, None, None]
    return {"majority": F.one_hot(torch.tensor(BLAME), 3).double().expand(SIZES), "literal": same.expand(SIZES),
            "opposite": same.flip(0).expand(SIZES), "late": late(p), "sum": best_sum(p), "table": large_table(p)}


def by_rule(signs: Mapping[str, Tensor], rule: Tensor) -> Tensor:
    """迹象的概率 → 意思的概率 / Probabilities of the signs → of the meaning: (B, 3)."""
    return torch.einsum("bi,bj,bk,ijky->by", *(signs[name].double() for name in SIGNS), rule)


# -- how good they are ------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class PerfectSenses:
    """看、听、读都不出错时，各种做法的成绩 / How good the rules are if nothing is misread."""

    right: dict[str, dict[str, Tensor]]  # "all", "reversed" → rule → each test sentence: how often it is right
    turned: dict[str, dict[str, float]]  # words of "praise", "blame" that mean the opposite → rule → accuracy
    bits: dict[str, float]  # rule → how many bits of the meaning it gives


@typed
def with_perfect_senses() -> PerfectSenses:
    """各种做法，在测试集的每一句上 / Every rule on every sentence of the test set.

    "reversed" is asked only where the words say the opposite of what is meant, of the sentences where that can be. What
    a rule gives in bits is H(meaning) less its cross-entropy, by the odds it was counted on.

    "reversed" 只问字面与意思相反的时候，只有可能相反的句子才算在内。一种做法给出几比特，是 H(意思) 减去它的交叉熵，
    用的是它数过的那些概率。
    """
    test, p = odds(utterances.load("test")), everything()
    turned = torch.zeros(SIZES, dtype=torch.bool)
    turned[PRAISE, :, :, BLAME] = turned[BLAME, :, :, PRAISE] = True
    hits = {name: F.one_hot(scoring.best(rule, name), len(MEANINGS)) for name, rule in rules().items()}
    asked = (test * turned).flatten(1).sum(1)
    able = asked > 0
    right = {"all": {name: (test * hit).flatten(1).sum(1) for name, hit in hits.items()},
             "reversed": {name: (test * turned * hit).flatten(1).sum(1)[able] / asked[able]
                          for name, hit in hits.items()}}
    by_words = {name: {rule: ((p * hit)[said, ..., meant].sum() / p[said, ..., meant].sum()).item()
                       for rule, hit in hits.items()}
                for name, said, meant in (("praise", PRAISE, BLAME), ("blame", BLAME, PRAISE))}
    bits = {name: entropy(p.sum((0, 1, 2))) + (torch.xlogy(p, rules()[name]).sum() / torch.tensor(2.0).log()).item()
            for name in ("late", "sum", "table")}
    return PerfectSenses(right, by_words, bits)
