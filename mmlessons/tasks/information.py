r"""信息分成几份 / Information in parts: what two sources share, what one has to itself, what only both together tell.

Everything here is counted in bits, from a table of probabilities that is known exactly; nothing is estimated.

这里的数都以比特计，由一张准确知道的概率表算出，没有一个是估计的。
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmcore import checks
from mmcore.checks import shapes

STEPS, SWEEPS = 1000, 20  # outer and inner iterations of `parts`
STILL = 1e-12  # bits: less change than this in a step, and it has settled


@dataclass(frozen=True)
class Parts:
    """两个来源关于 Y 的信息，分成四份，以比特计 / What two sources tell about Y, in four parts, in bits."""

    shared: float  # 两个都能单独说出的 / either tells it by itself (redundant)
    first: float  # 只有第一个有的 / only the first has it (unique)
    second: float
    joint: float  # 两个合在一起才有的 / only both together tell it (synergistic)

    @property
    def total(self) -> float:
        return self.shared + self.first + self.second + self.joint


def entropy(p: Tensor) -> float:
    """−Σ p log₂ p，比特 / in bits; 0 log 0 is 0."""
    return -torch.xlogy(p, p).sum().item() / torch.log(torch.tensor(2.0)).item()


@shapes(p="X Y")
def told(p: Tensor) -> float:
    """一个来源关于 Y 说了几比特 / How many bits a source tells about Y: the mutual information I(X; Y).

    `p` is the table p(x, y), (X, Y). Raises ValueError if it holds no probabilities that sum to 1.

    `p` 是表格 p(x, y)，(X, Y)。不是和为 1 的概率时报 ValueError。

    >>> told(torch.eye(2) / 2)  # x is y
    1.0
    """
    p = _table(p)
    return entropy(p.sum(1)) + entropy(p.sum(0)) - entropy(p)


@shapes(p="X Z Y")
def dependence(p: Tensor) -> float:
    """知道 Y 以后，两个来源还差多少才算条件独立 / How far two sources are from conditionally independent given Y.

    The conditional mutual information I(X; Z | Y) in bits, 0 if and only if they are conditionally independent. `p` is
    the table p(x, z, y), (X, Z, Y); errors as in `told`.

    条件互信息 I(X; Z | Y)，以比特计；等于 0，当且仅当条件独立。`p` 是表格 p(x, z, y)，(X, Z, Y)。报错与 `told` 相同。

    >>> dependence(torch.full((2, 2, 2), 1 / 8))
    0.0
    """
    p = _table(p)
    return entropy(p.sum(1)) + entropy(p.sum(0)) - entropy(p) - entropy(p.sum((0, 1)))


@shapes(p="X Z Y")
def parts(p: Tensor) -> Parts:
    r"""两个来源的信息分成四份 / The information of two sources in four parts (partial information decomposition).

    `p` is the table p(x, z, y), (X, Z, Y); errors as in `told`. The parts are those of Bertschinger et al. 2014: among
    all tables Q that have the same p(x, y) and the same p(z, y), take the one for which I_Q(X, Z; Y) is least. What
    I(X, Z; Y) has above it is joint, what it has above I(Z; Y) is the first's own, above I(X; Y) the second's, and
    shared is the rest. Other definitions give other numbers, see Williams and Beer 2010, who began it.

    Q is found by turns (Banerjee, Rauh and Montúfar 2018): from r = Q(x, z) the nearest table with the right p(x, y)
    and p(z, y), by scaling rows and columns in turn, and so on. The problem is convex, so that the start does not
    matter.

    `p` 是表格 p(x, z, y)，(X, Z, Y)，报错与 `told` 相同。四份照 Bertschinger 等 2014 的定义：在 p(x, y) 与 p(z, y)
    都不变的所有表格 Q 里，取 I_Q(X, Z; Y) 最小的。I(X, Z; Y) 比它多出的是合起来才有的；它比 I(Z; Y) 多出的归第一个，
    比 I(X; Y) 多出的归第二个；其余是共有的。别的定义会给出别的数，最早的是 Williams 与 Beer 2010。

    Q 用交替的办法求（Banerjee、Rauh 与 Montúfar 2018）：由 r = Q(x, z) 出发，轮流缩放行和列，求离它最近、
    p(x, y) 与 p(z, y) 又都对的表格，如此往复。这是凸问题，从哪里开始都一样。

    >>> xor = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]) / 4
    >>> parts(xor)
    Parts(shared=0.0, first=0.0, second=0.0, joint=1.0)
    """
    p = _table(p)
    by_first, by_second = p.sum(1), p.sum(0)  # p(x, y), p(z, y)
    q, before = ratio(by_first[:, None] * by_second, p.sum((0, 1)).expand_as(p)), float("inf")
    for _ in range(STEPS):
        q = q.sum(2, keepdim=True).expand_as(q)
        for _ in range(SWEEPS):
            q = q * ratio(by_first, q.sum(1))[:, None]
            q = q * ratio(by_second, q.sum(0))
        least = entropy(q.sum(2)) + entropy(q.sum((0, 1))) - entropy(q)
        if abs(before - least) < STILL:
            break
        before = least
    first, second, both = told(by_first), told(by_second), told(p.flatten(0, 1))
    return Parts(*(max(0.0, part) for part in (first + second - least, least - second, least - first, both - least)))


def _table(p: Tensor) -> Tensor:
    p = p.detach().to("cpu", torch.float64)
    checks.require(bool((p >= 0).all()) and abs(p.sum().item() - 1) < 1e-3,
                   "p 需要是概率：都不小于 0，和为 1", "p must hold probabilities: none below 0, and 1 in all")
    return p / p.sum()


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """逐项相除，0 / 0 算 0 / Divides element by element, where 0 / 0 counts as 0."""
    return torch.where(b > 0, a / b.clamp_min(torch.finfo(b.dtype).tiny), 0.0)
