r"""跨模态对齐的公式与模块 / The formulas and modules of cross-modal alignment: (2.1) to (2.4).

字母 / Letters: N 对 pairs · M 个候选 candidates · D 特征宽度 feature width · P 投影宽度 projection width.

三种说法，一个意思：在一批里选出自己的那一个 (2.1)；与自己的那一个靠近 (2.2)；按意思分给每一个 (2.3)。(2.4) 是 (2.1)
的姊妹：每一对各答一道是非题。

Three ways to say that two things mean the same: choose your own among a batch (2.1); lie close to your own (2.2); give
each its share of the meaning (2.3). (2.4) is a sibling of (2.1): every pair answers a yes-or-no question of its own.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.ranking import mutual_scores
from mmcore.training import choose_device, evaluating, make_optimizer, train_on


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

    只有一个正例的行，计算时写成 softplus(其余的 logsumexp − 正例)：与公式相等，且损失接近 0 时梯度仍然准确。半精度的
    特征先变成 float32。

    A row with one positive is computed as softplus(logsumexp of the others − positive): equal to the formula, and its
    gradient stays exact where the loss is near 0. Features of half precision become float32 first.

    Raises: TypeError / ValueError 形状、类型、τ 不对，N < 2，某个特征全是 0，或某行某列没有正例 / for a wrong shape,
    type or τ, N < 2, a feature that is all 0, or a row or column without a positive.
    Paper: van den Oord et al. 2018, Representation Learning with Contrastive Predictive Coding; Radford et al. 2021,
    Learning Transferable Visual Models From Natural Language Supervision.
    """
    a, b = _comparable(a, b, paired=True)
    checks.positive(tau, "tau")
    n = a.shape[0]
    checks.require(n > 1, f"对比需要至少 2 对，收到 {n} 对：没有别的可比，损失恒为 0",
                   f"a contrast needs at least 2 pairs, got {n}: with nothing to compare, the loss is always 0")
    if positives is not None:
        _check_positives(positives, n)
    tau = _one_number(tau, a)
    S = _cosines_over(a, b, tau)
    if positives is not None:
        return (_several(S, positives) + _several(S.T, positives.T)) / 2
    positive = S.diagonal()
    others = S.diagonal_scatter(torch.full_like(positive, -torch.inf))
    rows, columns = _logsumexp_both(others, 1 / tau)
    return (F.softplus(rows - positive) + F.softplus(columns - positive)).mean() / 2


def feature_alignment_loss(a: Tensor, b: Tensor, normalize: bool = True) -> Tensor:
    r"""特征对齐 / Feature alignment.

    每一对都要靠近，别的什么也不管。它没有负例：所有特征变成同一个向量时，它正好是 0，却什么也分不清，这叫坍缩。

    Every pair is to lie close, and nothing else matters. It has no negatives: where all features have become one and
    the same vector it is exactly 0, and nothing can be told apart. That is called collapse.

    $$f_A' = W_A f_A + b_A, \qquad f_B' = W_B f_B + b_B, \qquad
    L_{\mathrm{align}} = \frac{1}{N} \sum_{i=1}^{N} \lVert a_i' - b_i' \rVert_2^2 \tag{2.2}$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $f_A$, $f_B$ | `features_A`, `features_B` | (N, D_A), (N, D_B) | 两种模态的特征 / features of two modalities |
    | $W_A, b_A$ | `projection_A` | (P, D_A), (P,) | A 的投影 / the projection of A |
    | $W_B, b_B$ | `projection_B` | (P, D_B), (P,) | B 的投影 / the projection of B |
    | $f_A'$, $f_B'$ | `a`, `b` | (N, P) | 投影后的特征 / projected features |
    | $a_i'$, $b_i'$ | | (P,) | 第 i 行，默认先除以长度 / row i, by default divided by its length |
    | $L_{\mathrm{align}}$ | `feature_loss` | | 损失，默认在 0 与 4 之间 / loss, between 0 and 4 by default |

    投影由 `CrossModalAlignment` 做，这里算损失。是长度的平方，不是对宽度求平均：P 越宽，后者就越小。`normalize=False`
    不除以长度，这时把特征缩小一半，损失就降到四分之一，什么也不用学。

    `CrossModalAlignment` projects; this function is the loss. It is the squared length and not a mean over the width,
    which would be the smaller the wider P. `normalize=False` does not divide by the length; then features half as long
    have a quarter of the loss, and nothing need be learned.

    Raises: TypeError / ValueError 形状或类型不对，没有一对，或（要除以长度时）某个特征全是 0 / for a wrong shape or
    type, no pair at all, or (where lengths are divided by) a feature that is all 0.
    Paper: Hadsell et al. 2006, Dimensionality Reduction by Learning an Invariant Mapping; Wang and Isola 2020,
    Understanding Contrastive Representation Learning through Alignment and Uniformity on the Hypersphere.
    """
    a, b = _comparable(a, b, paired=True)
    if normalize:
        a, b = a / _lengths(a, "a"), b / _lengths(b, "b")
    return (a - b).square().sum() / len(a)


def semantic_similarity(a: Tensor, b: Tensor) -> Tensor:
    """语义相似度 S，(2.3) 的前一半 / Semantic similarity S, the first half of (2.3): (N, D), (M, D) → (N, M).

    每行和为 1：每个 a 把一份注意力分给全部 b。这就是注意力的公式，只是没有值。

    Every row sums to 1: each a shares out an attention of one among all b. It is the formula of attention, without
    values.

    Raises: TypeError / ValueError 形状或类型不对，或是空的 / for a wrong shape or type, or nothing at all.
    Paper: Vaswani et al. 2017, Attention Is All You Need.
    """
    return _scaled_products(a, b).softmax(1)


def semantic_alignment_loss(a: Tensor, b: Tensor, y: Tensor) -> Tensor:
    r"""语义对齐 / Semantic alignment.

    y 的第 i 行说明 aᵢ 的意思怎样分给每个 b：自己的那一个最多，同类的也有一些。损失是交叉熵，所以 S 学着变成 y：狗离猫
    比离钥匙近。

    Row i of y says how the meaning of aᵢ is shared out among the b: most of it to its own, some to others of its kind.
    The loss is the cross-entropy, so that S learns to become y: a dog lies nearer a cat than a key.

    $$S_{ij} = \mathrm{softmax}_j\left(\frac{a_i^\top b_j}{\sqrt{d}}\right), \qquad
    L_{\mathrm{semantic}} = -\frac{1}{N} \sum_{i=1}^{N} \sum_{j=1}^{M} y_{ij} \log S_{ij} \tag{2.3}$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $a$ | `a` | (N, D) | 一种模态的特征 / features of one modality |
    | $b$ | `b` | (M, D) | 另一种模态的特征 / features of the other |
    | $d$ | `a.shape[1]` | | 特征的宽度 D / the width D of the features |
    | $S$ | `semantic_similarity` | (N, M) | 语义相似度，每行和为 1 / semantic similarity, every row sums to 1 |
    | $y$ | `y` | (N, M) | 意思的分布，每行和为 1 / a distribution over meanings, every row sums to 1 |
    | $L_{\mathrm{semantic}}$ | `semantic_loss` | | 损失，不小于 y 的熵 / loss, never below the entropy of y |

    d 个数的内积，标准差随 √d 增长；除以 √d，宽的特征才不会一开始就让 softmax 只认一个。这里的特征不除以长度，所以
    长度也在学：它起温度的作用。

    The standard deviation of a product of d numbers grows like √d; divided by it, wide features do not make the softmax
    see one candidate alone from the start. Features keep their lengths here, so that lengths are learned too and do
    what a temperature does.

    Raises: TypeError / ValueError 形状或类型不对，是空的，或 y 有小于 0 的项、某行的和不是 1 / for a wrong shape or
    type, nothing at all, or a y with an entry below 0 or a row that does not sum to 1.
    Paper: Khosla et al. 2020, Supervised Contrastive Learning; Vaswani et al. 2017, Attention Is All You Need (√d).
    """
    logits = _scaled_products(a, b)
    _check_meanings(y, *logits.shape)
    return -(y.to(logits) * logits.log_softmax(1)).sum() / len(logits)


def sigmoid_loss(a: Tensor, b: Tensor, tau: float | Tensor, bias: float | Tensor,
                 positives: Tensor | None = None) -> Tensor:
    r"""成对的 sigmoid 损失 / The pairwise sigmoid loss (as in SigLIP).

    (2.1) 的姊妹。(2.1) 是选择题，一批里只有一个对；这里每个 (i, j) 是一道是非题：它们是一对吗？答案互不影响，所以几个
    都对也不矛盾。一批里 N 对是“是”，N² − N 对是“否”，c 从很低开始，免得一上来全答“是”。

    A sibling of (2.1). That is a multiple-choice question with one right answer in the batch; here every (i, j) is a
    yes-or-no question: are these a pair? No answer bears on another, so that several may be right. Of a batch N are
    “yes” and N² − N are “no”; c starts low, or everything would begin as a “yes”.

    $$L_{\mathrm{sigmoid}} = -\frac{1}{N} \sum_{i=1}^{N} \sum_{j=1}^{N} \log \mathrm{sigmoid}\left(
    z_{ij} \left(\frac{\mathrm{sim}(a_i, b_j)}{\tau} + c\right)\right) \tag{2.4}$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $a$, $b$ | `a`, `b` | (N, D) | 两种模态的特征 / features of two modalities |
    | $\mathrm{sim}$ | `cosine_similarity` | (N, N) | 余弦相似度 / cosine similarity |
    | $\tau$ | `tau` | | 温度，大于 0 / temperature, above 0 |
    | $c$ | `bias` | | 偏置，常从 −10 学起 / bias, commonly learned from −10 |
    | $z$ | | (N, N) | 是一对为 1，不是为 −1 / 1 for a pair, −1 for any other |
    | $L_{\mathrm{sigmoid}}$ | `L` | | 损失 / loss |

    `positives[i, j]` 为真处 z = 1；不给时只有对角线。

    z = 1 where `positives[i, j]` is true; without it, on the diagonal alone.

    Raises: TypeError / ValueError 形状、类型、τ、bias 不对，没有一对，某个特征全是 0，或某行某列没有正例 / for a wrong
    shape, type, τ or bias, no pair at all, a feature that is all 0, or a row or column without a positive.
    Paper: Zhai et al. 2023, Sigmoid Loss for Language Image Pre-Training.
    """
    a, b = _comparable(a, b, paired=True)
    checks.positive(tau, "tau")
    checks.number(bias, "bias")
    if positives is None:
        positives = torch.eye(len(a), dtype=torch.bool, device=a.device)
    _check_positives(positives, len(a))
    tau, bias = _one_number(tau, a), _one_number(bias, a)
    logits = _cosines_over(a, b, tau) + bias
    return F.softplus(torch.where(positives, -logits, logits)).sum() / len(a)


def modality_gap(a: Tensor, b: Tensor) -> Tensor:
    """模态间隙 / The modality gap: ‖mean a − mean b‖ of features divided by their lengths, between 0 and 2.

    两团点的中心隔多远。间隙大，不等于找不准：每个 a 只跟各个 b 比，整团一起挪开，名次可以不变。

    How far apart the centres of the two clouds lie. A wide gap need not spoil retrieval: an a is only compared with one
    b and another, and moving all of them together may leave their order as it was.

    Raises: TypeError / ValueError 形状或类型不对，或某个特征全是 0 / for a wrong shape or type, or a feature of zeros.
    Paper: Liang et al. 2022, Mind the Gap: Understanding the Modality Gap in Multi-modal Contrastive Representation
    Learning.
    """
    a, b = _comparable(a, b)
    return ((a / _lengths(a, "a")).mean(0) - (b / _lengths(b, "b")).mean(0)).norm()


class CrossModalAlignment(nn.Module):
    """(2.2) 的两个投影 / The two projections of (2.2).

    两种模态各有一个线性层，把宽度、含义都不同的特征放进同一个 P 维的空间。`feature_dim` 是一个宽度，或两个：
    (D_A, D_B)。

    Each modality has one linear layer, which brings features of different width and meaning into one space of P
    dimensions. `feature_dim` is one width, or two: (D_A, D_B).

    `forward(features_A, features_B)` 返回有名字的张量 / returns named tensors:

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `projected_A`, `projected_B` | (N, P), (M, P) | 投影后的特征 / projected features (2.2) |
    | `similarity` | (N, M) | 余弦除以 `temperature`，(2.1) 的指数 / cosine over `temperature`, exponents of (2.1) |
    | `semantic_A` | (N, M) | 每个 A 怎样分给各个 B，即 (2.3) 的 S / how each A is shared out among the B: S of (2.3) |
    | `semantic_B` | (M, N) | 反过来 / the other way round |

    Raises: TypeError / ValueError 宽度、温度、特征不符 / for a wrong width, temperature or feature.
    """

    def __init__(self, feature_dim: int | Sequence[int] = 512, projection_dim: int = 256, temperature: float = 0.1):
        super().__init__()
        self.feature_dim = checks.two_widths(feature_dim, "feature_dim")
        checks.whole(projection_dim, "projection_dim")
        checks.positive(temperature, "temperature")
        self.projection_dim, self.temperature = projection_dim, temperature
        self.projection_A = nn.Linear(self.feature_dim[0], projection_dim)
        self.projection_B = nn.Linear(self.feature_dim[1], projection_dim)

    def project(self, features_A: Tensor, features_B: Tensor) -> tuple[Tensor, Tensor]:
        """只投影 / The projections alone: (N, D_A), (M, D_B) → (N, P), (M, P)."""
        for x, name, width in ((features_A, "features_A", self.feature_dim[0]),
                               (features_B, "features_B", self.feature_dim[1])):
            checks.matrix(x, name, columns=width)
            checks.require(x.dtype == self.projection_A.weight.dtype,
                           f"{name} 需要是 {self.projection_A.weight.dtype}，收到 {x.dtype}",
                           f"{name} must be {self.projection_A.weight.dtype}, got {x.dtype}", TypeError)
        return self.projection_A(features_A), self.projection_B(features_B)

    def forward(self, features_A: Tensor, features_B: Tensor) -> dict[str, Tensor]:
        checks.positive(self.temperature, "temperature")
        projected_A, projected_B = self.project(features_A, features_B)
        return {"projected_A": projected_A, "projected_B": projected_B,
                "similarity": cosine_similarity(projected_A, projected_B) / self.temperature,
                "semantic_A": semantic_similarity(projected_A, projected_B),
                "semantic_B": semantic_similarity(projected_B, projected_A)}


class AlignmentLoss(nn.Module):
    """三种损失的加权和 / The three losses, weighted: α (2.1) + β (2.2) + γ (2.3).

    `loss(projected_A, projected_B, y)` 返回 / returns:

    | 名字 name | 含义 meaning |
    |---|---|
    | `contrastive_loss` | (2.1)，温度为 `temperature` / with the temperature `temperature` |
    | `feature_loss` | (2.2)，`normalize` 时特征先除以长度 / of features divided by their lengths if `normalize` |
    | `semantic_loss` | (2.3) |
    | `total_loss` | alpha · contrastive_loss + beta · feature_loss + gamma · semantic_loss |

    不给 `y` 时，每一对只与自己同义；给了 `positives`（意思见 (2.1)），就平分给它的每个正例。`temperature`、`alpha`、
    `beta`、`gamma` 可以在两步之间改变，每次用到时检查。(2.2) 若不除以长度，三项就不能这样相加：(2.1) 不管长度，(2.2)
    会靠缩短特征来下降。`normalize=False` 让人看见这件事。

    Without `y` each pair means itself alone; with `positives` (as in (2.1)) it is shared evenly among them.
    `temperature`, `alpha`, `beta` and `gamma` may be changed between steps and are checked at each use. If (2.2) did
    not divide by the lengths, the three could not be added like this: (2.1) does not feel the lengths, and (2.2) would
    fall by shortening the features. `normalize=False` lets one see that happen.

    Raises: TypeError / ValueError 权重小于 0，或任何一项不接受的输入 / for a weight below 0 and for what any of the
    three refuses.
    """

    def __init__(self, temperature: float = 0.1, alpha: float = 0.5, beta: float = 0.3, gamma: float = 0.2,
                 normalize: bool = True):
        super().__init__()
        self.temperature, self.alpha, self.beta, self.gamma = temperature, alpha, beta, gamma
        self.normalize = normalize
        self._check()

    def forward(self, projected_A: Tensor, projected_B: Tensor, y: Tensor | None = None,
                positives: Tensor | None = None) -> dict[str, Tensor]:
        self._check()
        a, b = projected_A, projected_B
        contrastive = contrastive_loss(a, b, self.temperature, positives)
        feature = feature_alignment_loss(a, b, self.normalize)
        if y is None:
            same = torch.eye(len(a), device=a.device) if positives is None else positives.float()
            y = same / same.sum(1, keepdim=True)
        semantic = semantic_alignment_loss(a, b, y)
        return {"total_loss": self.alpha * contrastive + self.beta * feature + self.gamma * semantic,
                "contrastive_loss": contrastive, "feature_loss": feature, "semantic_loss": semantic}

    def _check(self) -> None:
        checks.positive(self.temperature, "temperature")
        for name in ("alpha", "beta", "gamma"):
            checks.not_negative(getattr(self, name), name)


class CrossModalAligner:
    """对齐两种模态的特征：(2.2) 的投影，用 (2.1)、(2.2)、(2.3) 训练 / Aligns the features of two modalities.

    编码器已经训练好，不再改变；这里只学两个投影。`temperature`、`alpha`、`beta`、`gamma` 用 `tune` 在两步之间改变，从
    下一步起生效。`feature_dim` 是一个宽度，或两个：(D_A, D_B)。`normalize` 同 `AlignmentLoss`。

    The encoders are trained and stay as they are; only the two projections of (2.2) are learned, by (2.1), (2.2) and
    (2.3). `temperature`, `alpha`, `beta` and `gamma` are changed between steps with `tune` and act from the next step
    on. `feature_dim` is one width, or two: (D_A, D_B). `normalize` is that of `AlignmentLoss`.

    Raises: TypeError / ValueError 宽度、温度、权重或步长不对 / for a wrong width, temperature, weight or step size.
    """

    def __init__(self, feature_dim: int | Sequence[int] = 512, device: str | torch.device | None = None,
                 projection_dim: int = 256, temperature: float = 0.1, alpha: float = 0.5, beta: float = 0.3,
                 gamma: float = 0.2, lr: float = 3e-3, weight_decay: float = 0.01, normalize: bool = True):
        checks.positive(lr, "lr")
        checks.not_negative(weight_decay, "weight_decay")
        self.device = choose_device(device)
        self.model = self.alignment = CrossModalAlignment(feature_dim, projection_dim, temperature).to(self.device)
        self.loss = AlignmentLoss(temperature, alpha, beta, gamma, normalize)
        self.optimizer = make_optimizer(self.alignment, lr, weight_decay)

    def tune(self, temperature: float | None = None, alpha: float | None = None, beta: float | None = None,
             gamma: float | None = None) -> None:
        """改变温度与权重，没给的不变 / Change the temperature and the weights; what is not given stays.

        Raises: TypeError / ValueError 有一个不对，这时一个也不改变 / if one is wrong; then none is changed.
        """
        weights = {name: x for name, x in (("alpha", alpha), ("beta", beta), ("gamma", gamma)) if x is not None}
        if temperature is not None:
            checks.positive(temperature, "temperature")
        for name, x in weights.items():
            checks.not_negative(x, name)
        if temperature is not None:
            self.alignment.temperature = self.loss.temperature = temperature
        for name, x in weights.items():
            setattr(self.loss, name, x)

    def train_step(self, features_A: Tensor, features_B: Tensor, y: Tensor | None = None,
                   positives: Tensor | None = None) -> dict[str, float]:
        """走一步，返回各项损失 / Take one step, return the losses: the keys of `AlignmentLoss`.

        Raises: TypeError / ValueError 特征、y 或 positives 不符 / if features, y or positives do not fit;
        FloatingPointError 损失或梯度不是有限数 / if the loss or a gradient is not finite. In all cases the projections
        stay as they were.
        """
        features_A, features_B, y, positives = self._moved(features_A, features_B, y, positives)
        return train_on(self.alignment, self.optimizer,
                        lambda: self.loss(*self.alignment.project(features_A, features_B), y, positives))

    def align_features(self, features_A: Tensor, features_B: Tensor, y: Tensor | None = None,
                       positives: Tensor | None = None) -> dict[str, Tensor]:
        """投影、相似度与各项损失，不训练 / Projections, similarities and losses, without training.

        键是 `CrossModalAlignment` 与 `AlignmentLoss` 的 / The keys are those of `CrossModalAlignment` and
        `AlignmentLoss`.

        Raises: TypeError / ValueError 特征、y 或 positives 不符 / if features, y or positives do not fit.
        """
        features_A, features_B, y, positives = self._moved(features_A, features_B, y, positives)
        with evaluating(self.alignment):
            outputs = self.alignment(features_A, features_B)
            return {**outputs, **self.loss(outputs["projected_A"], outputs["projected_B"], y, positives)}

    def compute_alignment_score(self, features_A: Tensor, features_B: Tensor,
                                positives: Tensor | None = None) -> dict[str, float]:
        """对齐得好不好 / How good an alignment is: {"r@1", "r@5", "mean_cosine", "chance"}.

        r@k 是两个方向的平均：每个 A 在全部 B 里找，每个 B 在全部 A 里找，并列算错，所以常数特征得 0。mean_cosine 是配对
        的平均余弦，单独看不说明什么：常数特征得 1。

        r@k is the mean of both directions: each A searches all B, each B all A, and ties are misses, so that constant
        features get 0. mean_cosine is the mean cosine of the matching pairs and says nothing by itself: constant
        features get 1.

        Raises: TypeError / ValueError 特征或 positives 不符，或少于两对：没有负例 / if features or positives do not
        fit, or for fewer than two pairs, where there is no negative.
        """
        features_A, features_B, _, positives = self._moved(features_A, features_B, None, positives)
        with evaluating(self.alignment):
            a, b = self.alignment.project(features_A, features_B)
        checks.require(len(b) > 1, f"需要至少 2 对才有负例，收到 {len(b)} 对",
                       f"at least 2 pairs are needed for a negative, got {len(b)}")
        S = cosine_similarity(a, b)
        right = torch.eye(len(a), dtype=torch.bool, device=S.device) if positives is None else positives
        found = mutual_scores(S, right)
        return {"r@1": found["r@1"], "r@5": found["r@5"], "mean_cosine": S[right].cpu().double().mean().item(),
                "chance": found["chance"]}

    def _moved(self, *tensors: Tensor | None) -> list[Tensor | None]:
        return [x.to(self.device) if isinstance(x, Tensor) else x for x in tensors]


def _one_number(x: float | Tensor, like: Tensor) -> float | Tensor:
    return x.reshape(()).to(like) if isinstance(x, Tensor) else float(x)


def _comparable(a: Tensor, b: Tensor, paired: bool = False) -> tuple[Tensor, Tensor]:
    """同宽、同类型，半精度变成 float32 / Of one width and one type; half precision becomes float32."""
    checks.matrix(a, "a")
    checks.matrix(b, "b", rows=len(a) if paired else None, columns=a.shape[1])
    checks.require(a.dtype == b.dtype, f"a 和 b 需要同一类型，收到 {a.dtype} 和 {b.dtype}",
                   f"a and b must have the same dtype, got {a.dtype} and {b.dtype}", TypeError)
    checks.require(a.numel() > 0 and b.numel() > 0,
                   f"a 和 b 都不能是空的，收到 {len(a)} 对" if paired else "a 和 b 都不能是空的",
                   f"neither a nor b may be empty, got {len(a)} pairs" if paired else "neither a nor b may be empty")
    return (a.float(), b.float()) if a.dtype in (torch.float16, torch.bfloat16) else (a, b)


def _scaled_products(a: Tensor, b: Tensor) -> Tensor:
    """aᵢᵀ bⱼ / √d: (N, D), (M, D) → (N, M)."""
    a, b = _comparable(a, b)
    return (a / math.sqrt(a.shape[1])) @ b.T


def _check_meanings(y: Tensor, n: int, m: int) -> None:
    checks.matrix(y, "y", n, m)
    checks.require(bool((y >= 0).all()), "y 的每一项都不能小于 0", "no entry of y may be below 0")
    off = (y.detach().double().sum(1) - 1).abs().max().item()
    checks.require(off <= max(1e-4, torch.finfo(y.dtype).eps * m),
                   f"y 的每行和需要为 1，最多差了 {off:.3g}", f"every row of y must sum to 1, one is off by {off:.3g}")


def _lengths(x: Tensor, name: str) -> Tensor:
    """每个特征的长度 / The length of each feature: (N, D) → (N, 1)."""
    length = x.norm(dim=1, keepdim=True)
    checks.require(not bool((length == 0).any()), f"{name} 有一行全是 0，没有方向，算不出余弦",
                   f"{name} has a row of zeros: it has no direction, and a cosine needs one")
    return length


def _cosines_over(a: Tensor, b: Tensor, tau: float | Tensor) -> Tensor:
    """sim(aᵢ, bⱼ) / τ: (N, D), (N, D) → (N, N)."""
    return (a / _lengths(a, "a")) @ (b / (_lengths(b, "b") * tau)).T


def _logsumexp_both(S: Tensor, bound: float | Tensor) -> tuple[Tensor, Tensor]:
    """logsumexp 按行与按列 / Along rows and along columns, of an S whose entries lie in ±bound."""
    if 2 * float(torch.as_tensor(bound).detach()) > 80:
        # e⁻⁸⁰ is near the smallest float32: subtract the maximum of each row and column instead of one bound
        return S.logsumexp(1), S.logsumexp(0)
    e = (S - bound).exp()  # one exponential serves both
    return e.sum(1).log() + bound, e.sum(0).log() + bound


def _several(S: Tensor, positives: Tensor) -> Tensor:
    """按行，每个正例对所在的整行 / Along the rows, each positive against its whole row.

    只有一个正例的行，损失可以接近 0，这时 softplus 才准确。正例多于一个的行不必如此：它的损失至少是 ln 2，离 0 很远。

    The loss of a row with one positive can come near 0, where only softplus is exact. A row of more needs no such care:
    its loss is at least ln 2, far from 0.
    """
    count = positives.sum(1)
    alone = count == 1
    rivals = S.masked_fill(positives & alone.unsqueeze(1), -torch.inf).logsumexp(1)
    loss = rivals - torch.where(positives, S, 0.0).sum(1) / count
    return torch.where(alone, F.softplus(loss), loss).mean()


def _check_positives(positives: Tensor, n: int) -> None:
    checks.require(isinstance(positives, Tensor) and positives.dtype == torch.bool and positives.shape == (n, n),
                   f"positives 需要是 ({n}, {n}) 的布尔张量", f"positives must be a boolean tensor of shape ({n}, {n})")
    checks.require(bool(positives.any(0).all() and positives.any(1).all()),
                   "positives 的每一行、每一列都需要至少一个正例",
                   "every row and every column of positives needs at least one positive")
