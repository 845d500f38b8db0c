"""配对能教的，不训练也能得到几分 / What pairs can teach, and how much of it comes without training.

Three rules that take the same pairs as the projections of `cross_modal_alignment` and find their maps in one go: in
closed form (`cca`, `procrustes`), or with no map at all (`relative`).

三条规则，用的是 `cross_modal_alignment` 的那些配对。映射一次算出来，有闭式解（`cca`、`procrustes`）；或者根本没有映射
（`relative`）。
"""

import torch
from torch import Tensor

from mmcore import checks
from mmcore.alignment import cosine_similarity
from mmlessons.border import typed
from mmlessons.data import views
from mmlessons.tasks.cross_modal_alignment import LANGUAGES, WIDTH, Rule


@typed
def cca(data: views.Views, ridge: float = 0.001) -> Rule:
    """典型相关分析 / Canonical correlation analysis: the directions in which the two sides go together most.

    With C the covariances of all training pairs, the singular vectors of C_AA^(−1/2) C_AB C_BB^(−1/2) are the
    directions, its singular values their correlations; each direction counts as much as it correlates. `ridge`, in
    units of the mean variance, is added to the variances first: without it C_AA has no inverse, and a larger one
    trusts rare directions less.

    C 是全部训练配对的协方差；C_AA^(−1/2) C_AB C_BB^(−1/2) 的奇异向量是方向，奇异值是相关系数，相关多少就算多少。`ridge`
    以平均方差为单位，先加到方差上：不加，C_AA 没有逆；加得多，就少信罕见的方向。

    Paper: Hotelling 1936, Relations between Two Sets of Variates; Vinod 1976, Canonical Ridge and Econometrics of Joint
    Production.
    """
    checks.positive(ridge, "ridge")
    A, B, mean_A, mean_B = _centred(data)
    P, Q = correlated(A, B, ridge, WIDTH)
    return Rule(lambda a, b: ((a.double() - mean_A) @ P, (b.double() - mean_B) @ Q))


def correlated(A: Tensor, B: Tensor, ridge: float, width: int) -> tuple[Tensor, Tensor]:
    """两边去掉平均以后，各自的映射 / The map of each side, both centred: (n, d), (n, e) → (d, w), (e, w)."""
    white_A, white_B = (_inverse_root(x.T @ x / len(x), ridge) for x in (A, B))
    U, s, Vh = torch.linalg.svd(white_A @ (A.T @ B / len(A)) @ white_B)
    P, Q = (white @ side[:, :width] * s[:width] for white, side in ((white_A, U), (white_B, Vh.T)))
    return P, Q


@typed
def procrustes(data: views.Views) -> Rule:
    """正交的普洛克路斯忒斯 / Orthogonal Procrustes: pictures may be turned and mirrored, so as to lie on their names.

    The R with R^T R = 1 for which the sum of ‖a_i R − b_i‖² over all training pairs is least, both centred: R = U V^T
    from the singular value decomposition of A^T B.

    使全部训练配对的 ‖a_i R − b_i‖² 之和最小的正交矩阵 R，两边都先减去平均：A^T B 的奇异值分解给出 R = U V^T。

    Paper: Schönemann 1966, A Generalized Solution of the Orthogonal Procrustes Problem.
    """
    A, B, mean_A, mean_B = _centred(data)
    U, _, Vh = torch.linalg.svd(A.T @ B)
    return Rule(lambda a, b: ((a.double() - mean_A) @ U @ Vh, b.double() - mean_B))


@typed
def relative(data: views.Views, power: float = 4.0) -> Rule:
    """相对表示 / Relative representations: a thing is told by how alike it is to each known one of its own side.

    A picture becomes its cosines with the mean picture of each concept of `data`, a name its cosines with the mean
    name; entry k of both is about concept k, so that they can be compared. Each cosine is raised to `power`: the larger
    it is, the fewer neighbours count. Nothing is learned.

    一幅图画变成它与 `data` 里每个概念的平均图画的余弦，一个名字变成它与每个平均名字的余弦。两边的第 k 个数说的是同一个
    概念，所以可以比较。每个余弦取 `power` 次方：越大，算数的邻居越少。什么也不学。

    Paper: Moschella et al. 2023, Relative Representations Enable Zero-Shot Latent Space Communication; Norelli et al.
    2023, ASIF: Coupled Data Turns Unimodal Models to Multimodal without Training.
    """
    checks.positive(power, "power")
    pictures = torch.stack([data.pictures[artist] for artist in data.by_role("train")]).mean(0)
    names = torch.stack([data.names[language] for language in LANGUAGES]).mean(0)
    return Rule(lambda a, b: tuple(cosine_similarity(x.double(), known.double()).clamp_min(0) ** power
                                   for x, known in ((a, pictures), (b, names))))


def _centred(data: views.Views) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """All training pairs in float64 without their means, and the means: (n, 128), (n, 128), (128,), (128,)."""
    pairs = [(data.pictures[artist][data.drawn[artist]], data.names[language][data.drawn[artist]])
             for artist in data.by_role("train") for language in LANGUAGES]
    A, B = (torch.cat(side).double() for side in zip(*pairs, strict=True))
    return A - A.mean(0), B - B.mean(0), A.mean(0), B.mean(0)


def _inverse_root(C: Tensor, ridge: float) -> Tensor:
    """(C + ridge · mean variance)^(−1/2) of a symmetric C."""
    values, vectors = torch.linalg.eigh(C)
    return vectors / (values.clamp_min(0) + ridge * C.diagonal().mean()).sqrt() @ vectors.T
