r"""跨模态对齐的公式与模块 / The formulas and modules of cross-modal alignment: (2.1) to (2.4).

Letters: N pairs, M candidates, D feature width, P projection width.
Three ways to say that two things mean the same: choose your own among a batch (2.1); lie close to your own (2.2); give
each its share of the meaning (2.3). (2.4) is a sibling of (2.1): every pair answers a yes-or-no question of its own.
What does not fit is refused with TypeError or ValueError, as is a feature of zeros where a loss divides by lengths.

字母：N 对，M 个候选，D 特征宽度，P 投影宽度。
三种说法，一个意思：在一批里选出自己的那一个 (2.1)；与自己的那一个靠近 (2.2)；按意思分给每一个 (2.3)。(2.4) 是 (2.1)
的姊妹：每一对各答一道是非题。不符时报 TypeError 或 ValueError；损失要除以长度而特征全是 0，也一样。
"""

import math
from collections.abc import Iterable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks, tiles
from mmcore.checks import refuse, shapes
from mmcore.ranking import SOME, mutual_scores
from mmcore.tiles import directions, near_1
from mmcore.training import brought, choose_device, evaluating, make_optimizer, train_on


@shapes(a="N D", b="M D", least={"D": 1}, precise="a b")
def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """两两余弦，与全是 0 的特征是 0 / Every cosine, 0 with a feature of zeros: (N, D), (M, D) → (N, M).

    >>> cosine_similarity(torch.tensor([[3.0, 0.0]]), torch.tensor([[5.0, 0.0], [0.0, 1.0]]))
    tensor([[1., 0.]])
    """
    return F.normalize(near_1(a)[0], dim=-1) @ F.normalize(near_1(b)[0], dim=-1).T


def choose_own(a: Tensor, b: Tensor, tau: Tensor) -> Tensor:
    """(2.1)，照公式写，不分片 / (2.1) as the formula has it, in one piece."""
    S, own = cosine_similarity(a, b) / tau, torch.arange(len(a), device=a.device)
    return (F.cross_entropy(S, own) + F.cross_entropy(S.T, own)) / 2


def answer_all(a: Tensor, b: Tensor, tau: Tensor, bias: Tensor, positives: Tensor | None = None) -> Tensor:
    """(2.4)，照公式写，不分片 / (2.4) as the formula has it, in one piece."""
    z = 2 * (torch.eye(len(a), device=a.device) if positives is None else positives.to(a)) - 1
    return -F.logsigmoid(z * (cosine_similarity(a, b) / tau + bias)).sum() / len(a)


@shapes(a="N D", b="N D", positives="bool N N", least={"N": 2, "D": 1}, precise="a b")
def contrastive_loss(a: Tensor, b: Tensor, tau: float | Tensor, positives: Tensor | None = None) -> Tensor:
    r"""对比损失 / Contrastive loss (InfoNCE, as in CLIP): (N, D), (N, D) → ().

    $$L = -\frac{1}{2N} \sum_{i=1}^{N} \left[
    \log \frac{e^{\mathrm{sim}(a_i, b_i)/\tau}}{\sum_{j=1}^{N} e^{\mathrm{sim}(a_i, b_j)/\tau}} +
    \log \frac{e^{\mathrm{sim}(b_i, a_i)/\tau}}{\sum_{j=1}^{N} e^{\mathrm{sim}(b_i, a_j)/\tau}} \right] \tag{2.1}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $a$, $b$ | `a`, `b` | (N, D), (N, D) | features of the two modalities | 两种模态的特征 |
    | $\mathrm{sim}$ | `cosine_similarity` | (N, N) | cosine similarity | 余弦相似度 |
    | $\tau$ | `tau` | | temperature, above 0 | 温度，大于 0 |
    | | `positives` | (N, N) | true where aᵢ and bⱼ mean the same | aᵢ 与 bⱼ 意思相同处为真 |

    Every picture looks for its own text among the batch, and every text for its own picture; a confident mistake costs
    most. The smaller τ, the more the closest rivals count. With `positives` (a caption that occurs twice, say) row i
    takes the mean of the log over its positives, all of them in the denominator; without it, only the diagonal is
    positive. Features of half precision become float32 first.

    每幅图像在一批文字里找自己的那一句，每句文字也找自己的那一幅；认错得越有把握，损失越大。τ 越小，越只计较最像的对手。
    给了 `positives`（例如同一句说明出现两次），就对第 i 行的每个正例各算一次 log，再取平均，它们都在分母里；不给时只有
    对角线。半精度的特征先变成 float32。

    Paper: Sohn 2016, Improved Deep Metric Learning with Multi-class N-pair Loss Objective; van den Oord et al. 2018,
    Contrastive Predictive Coding; Zhang et al. 2020, ConVIRT (both directions); Radford et al. 2021, CLIP.

    >>> contrastive_loss(torch.eye(2), torch.eye(2), tau=1.0)  # log(1 + 1/e)
    tensor(0.3133)
    """
    checks.positive(tau, "tau")
    if positives is not None:
        _check_positives(positives)
    tau = one_number(tau, a)
    if positives is None:
        return tiles.loss(tiles.contrastive, choose_own, tiles.ALONE, a, b, tau)
    if positives.numel() <= tiles.TILE:  # both directions from one table
        S = directions(a, "a")[0] @ (directions(b, "b")[0] / tau).T
        return (_rows(S, positives).mean() + _rows(S.T, positives.T).mean()) / 2
    return (_one_way(a, b, tau, positives) + _one_way(b, a, tau, positives.T)) / 2


@shapes(a="N P", b="N P", least=SOME, precise="a b")
def feature_alignment_loss(a: Tensor, b: Tensor, normalize: bool = True) -> Tensor:
    r"""特征对齐 / Feature alignment: (N, P), (N, P) → ().

    $$f_A' = W_A f_A + c_A, \qquad f_B' = W_B f_B + c_B, \qquad
    L_{\mathrm{align}} = \frac{1}{N} \sum_{i=1}^{N} \lVert \hat a_i - \hat b_i \rVert_2^2 \tag{2.2}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $f_A$, $f_B$ | `features_A`, `features_B` | (N, D_A), (N, D_B) | features of two modalities | 两种模态的特征 |
    | $W_A, c_A$ | `projection_A` | (P, D_A), (P,) | the projection of A | A 的投影 |
    | $W_B, c_B$ | `projection_B` | (P, D_B), (P,) | the projection of B | B 的投影 |
    | $f_A'$, $f_B'$ | `a`, `b` | (N, P), (N, P) | projected features | 投影后的特征 |
    | $\hat a_i$, $\hat b_i$ | | (P,) | row i, by default divided by its length | 第 i 行，默认先除以长度 |
    | $L_{\mathrm{align}}$ | returned | () | loss, between 0 and 4 by default | 损失，默认在 0 与 4 之间 |

    Every pair is to lie close, and nothing else matters. Without negatives the loss is exactly 0 where all features are
    the same vector and nothing can be told apart: collapse. It is the squared length. A mean over the width would
    shrink as P grows.

    每一对都要靠近，别的什么也不管。没有负例，所以全部特征变成同一个向量时，它正好是 0，却什么也分不清，这叫坍缩。它是
    长度的平方；若对宽度求平均，P 越宽就越小。

    Paper: Hadsell et al. 2006, Dimensionality Reduction by Learning an Invariant Mapping, the half that draws together
    (theirs also pushes apart); Wang and Isola 2020, Alignment and Uniformity on the Hypersphere.

    >>> feature_alignment_loss(torch.tensor([[3.0, 4.0]]), torch.tensor([[4.0, 3.0]]))  # 2 / 5²
    tensor(0.0800)
    """
    if normalize:
        (a, _), (b, _) = directions(a, "a"), directions(b, "b")
    return (a - b).square().sum() / len(a)


@shapes(a="N D", b="M D", least=SOME, precise="a b")
def semantic_similarity(a: Tensor, b: Tensor) -> Tensor:
    """语义相似度 S，(2.3) 的前一半 / Semantic similarity S, the first half of (2.3): (N, D), (M, D) → (N, M).

    Every row sums to 1: each a shares out an attention of one among all b: the formula of attention without values.

    每行和为 1：每个 a 把一份注意力分给全部 b。这就是注意力的公式，只是没有值。

    Paper: Vaswani et al. 2017, Attention Is All You Need.

    >>> semantic_similarity(torch.zeros(1, 4), torch.ones(2, 4))
    tensor([[0.5000, 0.5000]])
    """
    return ((a / math.sqrt(a.shape[1])) @ b.T).softmax(1)


@shapes(a="N D", b="M D", y="N M", least=SOME, precise="a b")
def semantic_alignment_loss(a: Tensor, b: Tensor, y: Tensor) -> Tensor:
    r"""语义对齐 / Semantic alignment: (N, D), (M, D), (N, M) → ().

    $$S_{ij} = \mathrm{softmax}_j\left(\frac{a_i^\top b_j}{\sqrt{d}}\right), \qquad
    L_{\mathrm{semantic}} = -\frac{1}{N} \sum_{i=1}^{N} \sum_{j=1}^{M} y_{ij} \log S_{ij} \tag{2.3}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $a$ | `a` | (N, D) | features of one modality | 一种模态的特征 |
    | $b$ | `b` | (M, D) | features of the other | 另一种模态的特征 |
    | $d$ | `a.shape[1]` | | the width D of the features | 特征的宽度 D |
    | $S$ | `semantic_similarity` | (N, M) | semantic similarity, every row sums to 1 | 语义相似度，每行和为 1 |
    | $y$ | `y` | (N, M) | target distribution (soft labels), rows sum to 1 | 目标分布（软标签），每行和为 1 |
    | $L_{\mathrm{semantic}}$ | returned | () | loss, never below the entropy of y | 损失，不小于 y 的熵 |

    Row i of y says how the meaning of aᵢ is shared out among the b: most of it to its own, some to others of its group.
    The loss is the cross-entropy, so that S learns to become y: a dog lies nearer a cat than a key. An inner product of
    independent numbers of mean 0 and variance 1 has a standard deviation of √d, so we divide by it.

    y 的第 i 行说明 aᵢ 的意思怎样分给每个 b：自己的那一个最多，同组的也有一些。损失是交叉熵，所以 S 学着变成 y：狗离猫
    比离钥匙近。各数独立、均值 0、方差 1 时，内积的标准差是 √d，所以除以它。

    Paper: Khosla et al. 2020, Supervised Contrastive Learning; Vaswani et al. 2017, Attention Is All You Need (√d).

    >>> semantic_alignment_loss(torch.zeros(1, 4), torch.ones(2, 4), torch.tensor([[0.5, 0.5]]))  # ln 2
    tensor(0.6931)
    """
    logits = (a / math.sqrt(a.shape[1])) @ b.T
    if not bool((y >= 0).all()):
        refuse("y 的每一项都不能小于 0", "no entry of y may be below 0")
    off = (y.sum(1, dtype=torch.promote_types(y.dtype, torch.float32)) - 1).abs().max().item()
    if not off <= max(1e-4, torch.finfo(y.dtype).eps * y.shape[1]):
        refuse(f"y 的每行和需要为 1，最多差了 {off:.3g}", f"every row of y must sum to 1, one is off by {off:.3g}")
    return -(y.to(logits) * logits.log_softmax(1)).sum() / len(logits)


@shapes(a="N D", b="N D", positives="bool N N", least=SOME, precise="a b")
def sigmoid_loss(a: Tensor, b: Tensor, tau: float | Tensor, bias: float | Tensor,
                 positives: Tensor | None = None) -> Tensor:
    r"""成对的 sigmoid 损失 / The pairwise sigmoid loss (as in SigLIP): (N, D), (N, D) → ().

    $$L_{\mathrm{sigmoid}} = -\frac{1}{N} \sum_{i=1}^{N} \sum_{j=1}^{N} \log \mathrm{sigmoid}\left(
    z_{ij} \left(\frac{\mathrm{sim}(a_i, b_j)}{\tau} + c\right)\right) \tag{2.4}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $a$, $b$ | `a`, `b` | (N, D), (N, D) | features of the two modalities | 两种模态的特征 |
    | $\mathrm{sim}$ | `cosine_similarity` | (N, N) | cosine similarity | 余弦相似度 |
    | $\tau$ | `tau` | | temperature, above 0 | 温度，大于 0 |
    | $c$ | `bias` | | bias, commonly learned from −10 | 偏置，常从 −10 学起 |
    | $z = 1$ | `positives` | (N, N) | where it is true; −1 elsewhere | 真处为 1，其余为 −1 |

    A sibling of (2.1). There one answer in the batch is right; here every (i, j) is a question of its own: are these a
    pair? Several may be right. Most answers are “no”, so c starts low. Without `positives`: the diagonal only.

    (2.1) 的姊妹。那里一批里只有一个对；这里每个 (i, j) 是一道是非题：它们是一对吗？几个都对也不矛盾。答案大多是“否”，
    所以 c 从很低开始。不给 `positives`：只有对角线。

    Paper: Zhai et al. 2023, Sigmoid Loss for Language Image Pre-Training.

    >>> sigmoid_loss(torch.eye(2), torch.eye(2), tau=1.0, bias=0.0)  # log(1 + 1/e) + ln 2
    tensor(1.0064)
    """
    checks.positive(tau, "tau")
    checks.number(bias, "bias")
    if positives is not None:
        _check_positives(positives)
    given = (a, b, one_number(tau, a), one_number(bias, a), *([] if positives is None else [positives]))
    return tiles.loss(tiles.sigmoid, answer_all, tiles.ALONE, *given)


@shapes(a="N D", b="M D", least=SOME, precise="a b")
def modality_gap(a: Tensor, b: Tensor) -> Tensor:
    """模态间隙 / The modality gap: ‖mean a − mean b‖ of features divided by their lengths, (N, D), (M, D) → ().

    How far apart the centres of the two clouds lie, between 0 and 2. A wide gap need not spoil retrieval: each a only
    compares the b with one another, and moving all of them together may leave their order as it was.

    两团点的中心隔多远，在 0 与 2 之间。间隙大，不等于找不准：每个 a 只跟各个 b 比，整团一起挪开，名次可以不变。

    Paper: Liang et al. 2022, Mind the Gap.

    >>> modality_gap(torch.tensor([[2.0, 0.0]]), torch.tensor([[-5.0, 0.0]]))
    tensor(2.)
    """
    return (directions(a, "a")[0].mean(0) - directions(b, "b")[0].mean(0)).norm()


class CrossModalAlignment(nn.Module):
    """(2.2) 的两个投影；`feature_dim` 一个宽度，或两个 / The two projections of (2.2); `feature_dim`: one width or two.

    `forward(features_A, features_B)` takes (N, D_A), (M, D_B) and returns named tensors:

    | name | shape | meaning | 含义 |
    |---|---|---|---|
    | `projected_A`, `projected_B` | (N, P), (M, P) | projected features (2.2) | 投影后的特征 |
    | `similarity` | (N, M) | cosine over `temperature`, exponents of (2.1) | 余弦除以 `temperature`，(2.1) 的指数 |
    | `semantic_A` | (N, M) | how each A is shared out among the B: S of (2.3) | 每个 A 怎样分给各个 B，即 (2.3) 的 S |
    | `semantic_B` | (M, N) | the other way round | 反过来 |

    >>> outputs = CrossModalAlignment((8, 6), 4)(torch.ones(3, 8), torch.ones(5, 6))
    >>> outputs["similarity"].shape
    torch.Size([3, 5])
    """

    def __init__(self, feature_dim: int | Sequence[int] = 512, projection_dim: int = 256, temperature: float = 0.1):
        super().__init__()
        self.feature_dim = checks.two_widths(feature_dim, "feature_dim")
        self.projection_dim = checks.whole(projection_dim, "projection_dim", least=2)  # a cosine of one number is ±1
        self.temperature = checks.positive(temperature, "temperature")
        self.projection_A = nn.Linear(self.feature_dim[0], self.projection_dim)
        self.projection_B = nn.Linear(self.feature_dim[1], self.projection_dim)

    @shapes(own="D_A=projection_A.in_features D_B=projection_B.in_features", like="projection_A.weight",
            features_A="N D_A", features_B="M D_B")
    def project(self, features_A: Tensor, features_B: Tensor) -> tuple[Tensor, Tensor]:
        """只投影 / The projections, nothing else: (N, D_A), (M, D_B) → (N, P), (M, P)."""
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

    `loss(projected_A, projected_B, y)` takes (N, P), (N, P), (N, N) and returns:

    | name | meaning | 含义 |
    |---|---|---|
    | `contrastive_loss` | (2.1) with the temperature `temperature` | (2.1)，温度为 `temperature` |
    | `feature_loss` | (2.2), features divided by their lengths if `normalize` | (2.2)，`normalize` 时特征先除以长度 |
    | `semantic_loss` | (2.3) | (2.3) |
    | `total_loss` | alpha · contrastive_loss + beta · feature_loss + gamma · semantic_loss | 加权和 |

    Without `y` each pair means only itself; with `positives` (as in (2.1)) it is shared evenly among them. Temperature
    and weights may be changed between steps. Without `normalize`, (2.2) falls by merely shortening the features.

    不给 `y` 时，每一对只与自己同义；给了 `positives`（意思见 (2.1)），就平分给它的每个正例。温度和权重可以在两步之间
    改变。不做 `normalize`，(2.2) 只靠缩短特征就能下降。

    >>> losses = AlignmentLoss(temperature=1.0)(torch.eye(2), torch.eye(2))
    >>> losses["contrastive_loss"], losses["feature_loss"]
    (tensor(0.3133), tensor(0.))
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
            same = torch.eye(len(a), dtype=a.dtype, device=a.device) if positives is None else positives.to(a.dtype)
            y = same / same.sum(1, keepdim=True)
        semantic = semantic_alignment_loss(a, b, y)
        return {"total_loss": self.alpha * contrastive + self.beta * feature + self.gamma * semantic,
                "contrastive_loss": contrastive, "feature_loss": feature, "semantic_loss": semantic}

    def _check(self) -> None:
        checks.positive(self.temperature, "temperature")
        for name in ("alpha", "beta", "gamma"):
            checks.not_negative(getattr(self, name), name)


class CrossModalAligner:
    """对齐两种模态的特征 / Aligns the features of two modalities: the projections of (2.2), trained by (2.1) to (2.3).

    The encoders stay as they are; only the projections are learned. What `tune` changes acts from the next step on.

    编码器不再改变；这里只学两个投影。`tune` 改变的，从下一步起生效。

    >>> aligner = CrossModalAligner((8, 6), "cpu", projection_dim=4)
    >>> losses = aligner.train_step(torch.randn(5, 8), torch.randn(5, 6))
    >>> sorted(losses)
    ['contrastive_loss', 'feature_loss', 'semantic_loss', 'total_loss']
    """

    def __init__(self, feature_dim: int | Sequence[int] = 512, device: str | torch.device | None = None,
                 projection_dim: int = 256, temperature: float = 0.1, alpha: float = 0.5, beta: float = 0.3,
                 gamma: float = 0.2, lr: float = 3e-3, weight_decay: float = 0.01, normalize: bool = True):
        lr, weight_decay = checks.positive(lr, "lr"), checks.not_negative(weight_decay, "weight_decay")
        self.device = choose_device(device)
        self.model = self.alignment = CrossModalAlignment(feature_dim, projection_dim, temperature).to(self.device)
        self.loss = AlignmentLoss(temperature, alpha, beta, gamma, normalize)
        self.optimizer = make_optimizer(self.alignment, lr, weight_decay)

    def tune(self, temperature: float | None = None, alpha: float | None = None, beta: float | None = None,
             gamma: float | None = None) -> None:
        """改变给出的温度与权重；有一个不对，都不变 / Change temperature and weights: all that are given, or none."""
        weights = {name: checks.not_negative(x, name)
                   for name, x in (("alpha", alpha), ("beta", beta), ("gamma", gamma)) if x is not None}
        if temperature is not None:
            self.alignment.temperature = self.loss.temperature = checks.positive(temperature, "temperature")
        vars(self.loss).update(weights)

    def train_step(self, features_A: Tensor, features_B: Tensor, y: Tensor | None = None,
                   positives: Tensor | None = None) -> dict[str, float]:
        """走一步，返回各项损失；出错时什么也不变 / Take one step, return the losses; an error changes nothing."""
        features_A, features_B, y, positives = self._moved(features_A, features_B, y, positives)
        return train_on(self.alignment, self.optimizer,
                        lambda: self.loss(*self.alignment.project(features_A, features_B), y, positives))

    def align_features(self, features_A: Tensor, features_B: Tensor, y: Tensor | None = None,
                       positives: Tensor | None = None) -> dict[str, Tensor]:
        """`CrossModalAlignment` 与 `AlignmentLoss` 的各项，不训练 / All that both of them name, without training."""
        features_A, features_B, y, positives = self._moved(features_A, features_B, y, positives)
        with evaluating(self.alignment):
            outputs = self.alignment(features_A, features_B)
            return {**outputs, **self.loss(outputs["projected_A"], outputs["projected_B"], y, positives)}

    def compute_alignment_score(self, features_A: Tensor, features_B: Tensor,
                                positives: Tensor | None = None) -> dict[str, float]:
        """对齐得好不好 / How good an alignment is: {"r@1", "r@5", "mean_cosine", "chance"}.

        r@k is the mean of both directions, each A among all B and each B among all A; ties are misses, so that constant
        features get 0. mean_cosine is that of the matching pairs and says nothing by itself: constant features get 1.

        r@k 是两个方向的平均，每个 A 在全部 B 里找，每个 B 在全部 A 里找；并列算错，所以常数特征得 0。mean_cosine 是配对
        的平均余弦，单独看不说明什么：常数特征得 1。
        """
        features_A, features_B, _, positives = self._moved(features_A, features_B, None, positives)
        with evaluating(self.alignment):
            a, b = self.alignment.project(features_A, features_B)
        if len(b) < 2 or (positives is None and len(a) != len(b)):
            refuse(f"需要至少 2 对才有负例，两边一样多，收到 {len(a)} 和 {len(b)}",
                   f"at least 2 pairs are needed for a negative, as many on each side, got {len(a)} and {len(b)}")
        S = cosine_similarity(a, b)
        right = torch.eye(len(a), dtype=torch.bool, device=S.device) if positives is None else positives
        found = mutual_scores(S, right) | {"mean_cosine": S[right].cpu().double().mean().item()}
        return {name: found[name] for name in ("r@1", "r@5", "mean_cosine", "chance")}

    def _moved(self, a: Tensor, b: Tensor, y: Tensor | None, positives: Tensor | None) -> Iterable:
        return brought(self.device, features_A=a, features_B=b, y=y, positives=positives).values()


def one_number(x: float | Tensor, like: Tensor) -> Tensor:
    """一个数，类型与设备同 `like` / One number, of the type and device of `like`: ()."""
    return x.reshape(()).to(like) if isinstance(x, Tensor) else like.new_tensor(float(x))


def _one_way(a: Tensor, b: Tensor, tau: Tensor, positives: Tensor) -> Tensor:
    def in_one_piece(a: Tensor, b: Tensor, tau: Tensor, positives: Tensor) -> Tensor:
        return _rows(cosine_similarity(a, b) / tau, positives).mean()
    return tiles.loss(partial(tiles.by_rows, rows=_rows), in_one_piece, tiles.ALONE, a, b, tau, positives)


def _rows(S: Tensor, positives: Tensor) -> Tensor:
    """Each positive against its whole row of S, the mean of every row."""
    count = positives.sum(1)
    single = count == 1  # its loss can come near 0, where only softplus is exact; with more it is at least ln 2
    rivals = S.masked_fill(positives & single.unsqueeze(1), -torch.inf).logsumexp(1)
    loss = rivals - torch.where(positives, S, 0.0).sum(1) / count
    return torch.where(single, F.softplus(loss), loss)


def _check_positives(positives: Tensor) -> None:
    if not bool(positives.any(0).all() and positives.any(1).all()):
        refuse("positives 的每一行、每一列都需要至少一个正例",
               "every row and every column of positives needs at least one positive")
