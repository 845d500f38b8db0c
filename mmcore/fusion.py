r"""多模态融合的公式与模块 / The formulas and modules of multimodal fusion: (3.1) to (3.5), (7.1).

Letters: B batch, M modalities (M ≥ 2), D feature width, H hidden width, K classes.
Late, attention and gated fusion are one formula, f = Σ wᵢ fᵢ, and differ only in where w comes from: learned constants;
a budget of one to be shared; gates that do not compete. So each module has `weights(features) -> (B, M)` and
`weighted_sum` does the rest. What does not fit raises TypeError or ValueError.

字母：B 批，M 个模态（M ≥ 2），D 特征宽度，H 隐藏宽度，K 类。
晚期、注意力、门控是同一个公式 f = Σ wᵢ fᵢ，只差 w 从哪里来：一组学到的常数；大家分一份的注意力；各管各的门。
所以每个模块都有 `weights(features) -> (B, M)`，其余的都由 `weighted_sum` 完成。不符时报 TypeError 或 ValueError。
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.checks import refuse, shapes, typed
from mmcore.ranking import accuracy
from mmcore.training import Bounded, brought, choose_device, evaluating, make_optimizer, train_on

CANDIDATES = ("f_early", "f_attention", "f_gated", "f_late")  # in the order of (3.5)
TWO = {"M": 2}  # fewer are nothing to fuse


@shapes(features="M*[B D]", w="M / B M", least=TWO)
def weighted_sum(w: Tensor, features: Sequence[Tensor]) -> Tensor:
    """加权和 Σ wᵢ fᵢ，w 的和不必为 1 / Weighted sum Σ wᵢ fᵢ, w of any sum: (B, M) or (M,), M × (B, D) → (B, D).

    >>> seen, heard = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    >>> weighted_sum(torch.tensor([0.75, 0.25]), [seen, heard])
    tensor([[0.7500, 0.2500]])
    """
    first, *others = w.unsqueeze(-1).unbind(-2)  # each (1,) or (B, 1)
    total = first * features[0]
    for w_i, f_i in zip(others, features[1:], strict=True):
        total = torch.addcmul(total, w_i, f_i)  # no stacked (B, M, D) copy
    return total


_unchecked_sum = weighted_sum.__wrapped__  # the same, for what has passed a border already


class EarlyFusion(nn.Module):
    r"""早期融合 / Early fusion.

    $$f_{\mathrm{early}} = F_{\mathrm{early}}([f_1; \dots; f_M]), \qquad
    F_{\mathrm{early}}(x) = W_2\, \sigma(W_1 x + b_1) + b_2 \tag{3.1}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $f_i$ | `features[i]` | (B, D_i) | features of modality i, widths may differ | 第 i 个模态的特征，宽度可以不同 |
    | $W_1, b_1$ | `inner` | (H, ΣD_i), (H,) | first layer | 第一层 |
    | $\sigma$ | `F.gelu` | | activation | 激活函数 |
    | $W_2, b_2$ | `outer` | (D, H), (D,) | second layer, D = `output_dim` | 第二层，D = `output_dim` |
    | $f_{\mathrm{early}}$ | `f_early` | (B, D) | fused feature | 融合后的特征 |

    Concatenates first and then lets one small network see all modalities together, so that it can learn an "if … then"
    between them. Without σ its layers would be one linear map, which cannot learn exclusive or. By default H = D/2.

    先拼接，再让一个小网络一起看所有模态，所以它能学会“如果……那么……”。没有 σ，就只是线性映射，学不会异或。默认 H = D/2。

    Paper: Baltrušaitis et al. 2019, Multimodal Machine Learning: A Survey and Taxonomy.

    >>> fuse = EarlyFusion([48, 64], output_dim=32)
    >>> fuse([torch.ones(5, 48), torch.ones(5, 64)]).shape
    torch.Size([5, 32])
    """

    def __init__(self, feature_dims: Sequence[int], output_dim: int = 512, hidden_dim: int | None = None):
        super().__init__()
        self.feature_dims = checks.widths(feature_dims, "feature_dims")
        output_dim = checks.whole(output_dim, "output_dim")
        hidden_dim = checks.whole(math.ceil(output_dim / 2) if hidden_dim is None else hidden_dim, "hidden_dim")
        self.inner = nn.Linear(sum(self.feature_dims), hidden_dim)
        self.outer = nn.Linear(hidden_dim, output_dim)

    @shapes(own="M=feature_dims D_i=feature_dims", like="inner.weight", features="M*[B D_i]")
    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.outer(F.gelu(self.inner(torch.cat(list(features), -1))))  # (B, ΣD_i) → (B, D)


@shapes(features="M*[B D]", w="M", least=TWO)
def late_fusion(features: Sequence[Tensor], w: Tensor) -> Tensor:
    r"""晚期融合 / Late fusion: M × (B, D), (M,) → (B, D).

    $$f_{\mathrm{late}} = \sum_{i=1}^{M} w_i f_i, \qquad \sum_{i=1}^{M} w_i = 1 \tag{3.2}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $f_i$ | `features[i]` | (B, D) | features of modality i | 第 i 个模态的特征 |
    | $w$ | `w` | (M,) | weights, none below 0, sum 1 | 权重，不小于 0，和为 1 |
    | $f_{\mathrm{late}}$ | `f_late` | (B, D) | fused feature | 融合后的特征 |

    Each modality is worked out by itself to the end, then they are added in fixed proportions: the same weights for
    every sample, even for one whose sound has failed. The same formula fuses decisions, given probabilities of classes.

    每个模态各自算到最后，再按固定的比例相加：所有样本用同一组权重，哪怕一个样本的声音坏了。给它类别的概率，融合的就是决策。

    Paper: Kittler et al. 1998, On Combining Classifiers.

    >>> late_fusion([torch.tensor([[1.0, 2.0]]), torch.tensor([[5.0, -2.0]])], torch.tensor([0.25, 0.75]))
    tensor([[ 4., -1.]])
    """
    if not bool((w >= 0).all()):
        refuse(f"w 的每一项都不能小于 0，收到 {w.tolist()}", f"no entry of w may be below 0, got {w.tolist()}")
    total = w.sum().item()
    if not abs(total - 1) <= max(1e-4, torch.finfo(w.dtype).eps):
        refuse(f"w 的和需要为 1，收到 {total:.6g}", f"w must sum to 1, got {total:.6g}")
    return weighted_sum(w, features)


class LateFusion(nn.Module):
    """晚期融合 (3.2)，权重是 M 个参数的 softmax / Late fusion (3.2), whose weights are a softmax of M parameters.

    >>> LateFusion(8, num_modalities=2).weights([torch.ones(1, 8), torch.ones(1, 8)])
    tensor([[0.5000, 0.5000]], grad_fn=<ExpandBackward0>)
    """

    def __init__(self, feature_dim: int = 512, num_modalities: int = 3):
        super().__init__()
        self.feature_dim = checks.whole(feature_dim, "feature_dim")
        self.num_modalities = checks.whole(num_modalities, "num_modalities", least=2)
        self.logits = nn.Parameter(torch.zeros(self.num_modalities))

    @shapes(own="M=num_modalities D=feature_dim", like="logits", features="M*[B D]")
    def weights(self, features: Sequence[Tensor]) -> Tensor:
        """每个模态的权重，每行都一样 / The weight of every modality: (B, M), all rows alike."""
        return self.logits.softmax(0).expand(len(features[0]), -1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return weighted_sum(self.weights(features), features)


@shapes(W_f="H D", features="M*[B D]", b_f="H", W_a="H", b_a="scalar", least=TWO)
def attention_fusion_weights(features: Sequence[Tensor], W_f: Tensor, b_f: Tensor, W_a: Tensor,
                             b_a: float | Tensor) -> Tensor:
    r"""注意力融合的权重 / The weights of attention fusion: M × (B, D) → (B, M).

    $$\alpha_i = \mathrm{softmax}_i\left(W_a^\top \tanh(W_f f_i + b_f) + b_a\right), \qquad
    f_{\mathrm{attention}} = \sum_{i=1}^{M} \alpha_i f_i \tag{3.3}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $f_i$ | `features[i]` | (B, D) | features of modality i | 第 i 个模态的特征 |
    | $W_f, b_f$ | `W_f`, `b_f` | (H, D), (H,) | read the features | 读取特征 |
    | $W_a, b_a$ | `W_a`, `b_a` | (H,), scalar | give the score | 打分 |
    | $\alpha$ | returned | (B, M) | weights, every row sums to 1 | 权重，每行和为 1 |
    | $f_{\mathrm{attention}}$ | `weighted_sum(alpha, features)` | (B, D) | fused feature | 融合后的特征 |

    Every modality gets a score, then a softmax shares out an attention of one: what one modality gains, the others
    lose. All share their parameters, so M may be any number. b_a cancels in the softmax, and its gradient is 0.

    每个模态先得一个分数，再用 softmax 分一份总和为 1 的注意力：一个模态多得，别的就少得。所有模态共用一套参数，所以 M
    可以是任意的。b_a 在 softmax 里抵消，梯度恒为 0。

    Paper: Bahdanau et al. 2015, Neural Machine Translation by Jointly Learning to Align and Translate; Hori et al.
    2017, Attention-Based Multimodal Fusion for Video Description.

    >>> W_f, zeros = torch.eye(2), torch.zeros(2)
    >>> attention_fusion_weights([torch.zeros(1, 2), torch.ones(1, 2)], W_f, zeros, zeros, 0.0)
    tensor([[0.5000, 0.5000]])
    """
    scores = [torch.tanh(F.linear(f_i, W_f, b_f)) @ W_a + b_a for f_i in features]  # M × (B,)
    return torch.stack(scores, -1).softmax(-1)


class AttentionFusion(nn.Module):
    """注意力融合 (3.3) 与它的参数，默认 H = D/4 / Attention fusion (3.3) and its parameters, by default H = D/4.

    >>> fuse = AttentionFusion(8)
    >>> fuse([torch.ones(5, 8), torch.zeros(5, 8)]).shape
    torch.Size([5, 8])
    """

    def __init__(self, feature_dim: int = 512, hidden_dim: int | None = None):
        super().__init__()
        feature_dim = checks.whole(feature_dim, "feature_dim")
        hidden_dim = checks.whole(math.ceil(feature_dim / 4) if hidden_dim is None else hidden_dim, "hidden_dim")
        self.W_f = nn.Parameter(nn.init.xavier_uniform_(torch.empty(hidden_dim, feature_dim)))
        self.b_f = nn.Parameter(torch.zeros(hidden_dim))
        self.W_a = nn.Parameter(nn.init.normal_(torch.empty(hidden_dim), std=hidden_dim ** -0.5))
        self.b_a = nn.Parameter(torch.zeros(()))

    def weights(self, features: Sequence[Tensor]) -> Tensor:
        """每个样本给每个模态的权重 / The weight of every modality for every sample: (B, M)."""
        return attention_fusion_weights(features, self.W_f, self.b_f, self.W_a, self.b_a)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return weighted_sum(self.weights(features), features)


@shapes(W_g="M D", features="M*[B D]", b_g="M", least=TWO)
def gated_fusion_weights(features: Sequence[Tensor], W_g: Tensor, b_g: Tensor) -> Tensor:
    r"""门控融合的权重 / The weights of gated fusion: M × (B, D) → (B, M).

    $$g_i = \mathrm{sigmoid}\left(W_g^{(i)} f_i + b_g^{(i)}\right), \qquad
    f_{\mathrm{gated}} = \sum_{i=1}^{M} g_i f_i \tag{3.4}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $f_i$ | `features[i]` | (B, D) | features of modality i | 第 i 个模态的特征 |
    | $W_g^{(i)}, b_g^{(i)}$ | `W_g[i]`, `b_g[i]` | (D,), () | gate i | 第 i 个门 |
    | $g$ | returned | (B, M) | each between 0 and 1, any sum | 各在 0 与 1 之间，和不必为 1 |
    | $f_{\mathrm{gated}}$ | `weighted_sum(g, features)` | (B, D) | fused feature | 融合后的特征 |

    Every modality has a gate of its own that looks at it only: all may be open, all may be shut, none competes.

    每个模态有自己的门，只看自己：可以全开，也可以全关，互不相争。

    Paper: Arevalo et al. 2017, Gated Multimodal Units for Information Fusion.

    >>> gated_fusion_weights([torch.ones(1, 3), torch.ones(1, 3)], torch.zeros(2, 3), torch.tensor([0.0, 100.0]))
    tensor([[0.5000, 1.0000]])
    """
    scores = [f_i @ W_i for f_i, W_i in zip(features, W_g.unbind(), strict=True)]  # M × (B,)
    return torch.sigmoid(torch.stack(scores, -1) + b_g)


class GatedFusion(nn.Module):
    """门控融合 (3.4) 与它的参数，门从半开起 / Gated fusion (3.4) and its parameters; gates start half open.

    >>> GatedFusion(8, num_modalities=2)([torch.ones(1, 8), torch.ones(1, 8)]).sum().item()
    8.0
    """

    def __init__(self, feature_dim: int = 512, num_modalities: int = 3):
        super().__init__()
        feature_dim = checks.whole(feature_dim, "feature_dim")
        num_modalities = checks.whole(num_modalities, "num_modalities", least=2)
        self.W_g = nn.Parameter(torch.zeros(num_modalities, feature_dim))
        self.b_g = nn.Parameter(torch.zeros(num_modalities))

    def weights(self, features: Sequence[Tensor]) -> Tensor:
        """每个样本给每个模态的权重 / The weight of every modality for every sample: (B, M)."""
        return gated_fusion_weights(features, self.W_g, self.b_g)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return weighted_sum(self.weights(features), features)


@shapes(candidates="4*[B D]", W_s="4 4*D", b_s="4")
def adaptive_fusion_weights(candidates: Sequence[Tensor], W_s: Tensor, b_s: Tensor | None = None) -> Tensor:
    r"""自适应融合的权重 / The weights of adaptive fusion: 4 × (B, D) → (B, 4).

    $$\pi = \mathrm{softmax}\left(W_s
    [f_{\mathrm{early}}; f_{\mathrm{attention}}; f_{\mathrm{gated}}; f_{\mathrm{late}}]\right), \qquad
    f = \sum_{k=1}^{4} \pi_k f_k \tag{3.5}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $f_k$ | `candidates[k]` | (B, D) | results of the four fusions, in this order | 四种融合的结果，按这个顺序 |
    | $W_s$ | `W_s` | (4, 4 D) | selector | 选择器 |
    | | `b_s` | (4,) | may be left out, else added inside the softmax | 可以不给；给了就加在 softmax 里面 |
    | $\pi$ | returned | (B, 4) | weights, every row sums to 1 | 权重，每行和为 1 |
    | $f$ | `weighted_sum(pi, candidates)` | (B, D) | mixed feature | 混合后的特征 |

    All four fusions are computed, then each sample decides how far to trust each: a soft mixture, not a hard choice.

    四种融合都做，再按每个样本决定各信几分：软的混合，不是硬的选择。

    Paper: Jacobs et al. 1991, Adaptive Mixtures of Local Experts.

    >>> adaptive_fusion_weights([torch.ones(1, 2)] * 4, torch.zeros(4, 8))
    tensor([[0.2500, 0.2500, 0.2500, 0.2500]])
    """
    return F.linear(torch.cat(list(candidates), -1), W_s, b_s).softmax(-1)


@shapes(log_p="M*[B K]", log_prior="K", least={"M": 1, "K": 1})
def product_of_experts(log_p: Sequence[Tensor], log_prior: Tensor) -> Tensor:
    r"""对数概率的晚期融合 / Late fusion of log-probabilities: M × (B, K), (K,) → (B, K).

    $$\log p(y \mid x_1, \dots, x_M) = \sum_{m=1}^{M} \log p(y \mid x_m) - (M - 1) \log p(y) - \log Z \tag{7.1}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $\log p(y \mid x_m)$ | `log_p[m]` | (B, K) | expert m: what modality m says | 第 m 位专家 |
    | $\log p(y)$ | `log_prior` | (K,) | before anything is seen | 什么也没看见时 |
    | $\log Z$ | | (B,) | makes the probabilities sum to 1 | 使概率之和为 1 |

    If the modalities are conditionally independent given the class y, this is Bayes' theorem: nothing is to be learned.
    Each log p(y|x_m) holds the prior once, their sum M times: M − 1 are taken off. M may be any number from 1. A class
    of prior 0 that an expert rules out stays at 0. Experts that are certain of different classes are refused.

    若给定类别 y 以后各模态相互独立，这就是贝叶斯定理，什么也不用学。每个 log p(y|x_m) 里含着一份先验，加起来 M 份：所以
    减去 M − 1 份。M 可以是任意的，至少为 1。先验是 0、又有专家排除的类仍是 0。几位专家各自断定不同的类时报错。

    Paper: Hinton 2002, Training Products of Experts; Kittler et al. 1998, On Combining Classifiers.

    >>> says, even = torch.tensor([[0.8, 0.2]]).log(), torch.tensor([0.5, 0.5]).log()
    >>> product_of_experts([says, says], even).exp()  # two that agree are surer than one
    tensor([[0.9412, 0.0588]])
    """
    total = sum(log_p)
    never = (log_prior == -torch.inf) & (total == -torch.inf)  # and not −∞ − (M − 1)(−∞), which is NaN
    log_q = (total - (len(log_p) - 1) * log_prior).masked_fill(never, -torch.inf)
    if not bool(log_q.amax(-1).isfinite().all()):  # log Z would be NaN
        refuse("有一行里，专家们各自断定不同的类，或都不排除先验是 0 的类，或有 NaN",
               "a row where each expert is certain of another class, or none rules out a class of prior 0, or with NaN")
    return log_q.log_softmax(-1)


class MultimodalFusion(nn.Module):
    """四种融合与它们的混合 (3.5) / All four fusions and their mixture (3.5).

    `forward(features)` takes M × (B, D_i) and returns named tensors:

    | name | shape | meaning | 含义 |
    |---|---|---|---|
    | `f_1` … `f_M` | (B, D) | projected features, the fᵢ of (3.2) to (3.4) | 投影后的特征，(3.2) 到 (3.4) 的 fᵢ |
    | `w`, `alpha`, `g` | (B, M) | weights of late, attention and gated fusion | 晚期、注意力、门控的权重 |
    | `f_early`, `f_late`, `f_attention`, `f_gated` | (B, D) | results of the four fusions | 四种融合的结果 |
    | `pi` | (B, 4) | weights of the mixture, in the order of `CANDIDATES` | 混合的权重，顺序见 `CANDIDATES` |
    | `f` | (B, D) | mixed feature | 混合后的特征 |

    A linear layer of its own projects each modality to the common width. Then every fᵢ is centred and brought to the
    length √D (layer normalisation without parameters): otherwise a small weight might only mean that the feature is
    long. Early fusion sees the features before projection. The selector reads the four results detached from their
    gradients: it judges them and does not change them. It starts from W_s = 0, that is π = 1/4.

    每个模态先由自己的线性层投影到共同的宽度。然后每个 fᵢ 减去均值，再缩放到长度 √D（不带参数的层归一化）：否则权重小，
    可能只是因为特征长。早期融合直接看投影之前的特征。选择器读的是断开梯度的四个结果：只评判，不改变。从 π = 1/4 开始。

    >>> out = MultimodalFusion([48, 64], output_dim=32)([torch.ones(5, 48), torch.ones(5, 64)])
    >>> out["f"].shape, out["pi"].shape
    (torch.Size([5, 32]), torch.Size([5, 4]))
    """

    def __init__(self, feature_dims: Sequence[int], output_dim: int = 512):
        super().__init__()
        self.feature_dims = checks.widths(feature_dims, "feature_dims")
        self.output_dim = output_dim = checks.whole(output_dim, "output_dim", 3)  # of 2, layer norm makes a sign
        self.projections = nn.ModuleList(Bounded(width, output_dim) for width in self.feature_dims)
        self.early_fusion = EarlyFusion(self.feature_dims, output_dim)
        self.late_fusion = LateFusion(output_dim, len(self.feature_dims))
        self.attention_fusion = AttentionFusion(output_dim)
        self.gated_fusion = GatedFusion(output_dim, len(self.feature_dims))
        self.W_s = nn.Parameter(torch.zeros(len(CANDIDATES), len(CANDIDATES) * output_dim))
        self.b_s = nn.Parameter(torch.zeros(len(CANDIDATES)))

    @shapes(own="M=feature_dims D_i=feature_dims", like="W_s", features="M*[B D_i]")
    def forward(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        projected = [F.layer_norm(project(f_i), (self.output_dim,))
                     for project, f_i in zip(self.projections, features, strict=True)]  # M × (B, D)
        out = {f"f_{i}": f_i for i, f_i in enumerate(projected, start=1)}
        out["w"] = self.late_fusion.weights(projected)
        out["alpha"] = self.attention_fusion.weights(projected)
        out["g"] = self.gated_fusion.weights(projected)
        out["f_early"] = self.early_fusion(features)
        out["f_late"] = _unchecked_sum(out["w"], projected)
        out["f_attention"] = _unchecked_sum(out["alpha"], projected)
        out["f_gated"] = _unchecked_sum(out["g"], projected)
        candidates = [out[name] for name in CANDIDATES]
        out["pi"] = adaptive_fusion_weights([f_k.detach() for f_k in candidates], self.W_s, self.b_s)
        out["f"] = _unchecked_sum(out["pi"], candidates)
        return out


class MultimodalFusionTrainer:
    """训练自适应融合 (3.5) / Trains adaptive fusion (3.5), on labels or on target features.

    With `num_classes` the targets are classes: one linear head, shared by the four fusions and their mixture, starts at
    zero, so that the first loss is ln K. Without it they are features (B, D), and the loss is the mean squared error.
    With `encoders`, one for each modality and trained along, `features` is a list of raw inputs.

    total_loss = final_loss + the mean of the losses of the four fusions + pull · pull_loss. Their own losses let the
    fusions that are not chosen go on learning; pull_loss, the mean KL(uniform ‖ π) = −¼ Σₖ ln(4 πₖ), weakly pulls the π
    of every sample to uniform: without it the choice collapses onto one fusion. `pull` may be changed between steps.

    给了 `num_classes`，目标是类别：一个线性的分类头由四种融合和它们的混合共用，从零开始，所以第一步的损失是 ln K。不给
    时，目标是 (B, D) 的特征，损失是均方误差。给了 `encoders`（每个模态一个，一起训练），`features` 是原始输入。

    total_loss = final_loss + 四种融合各自损失的平均 + pull · pull_loss。各自的损失让没被选中的融合也继续学；pull_loss =
    −¼ Σₖ ln(4 πₖ) 的平均把每个样本的 π 轻轻拉向均匀：没有它，选择会坍缩到一种融合上。`pull` 可以在两步之间改变。

    Paper: Pereyra et al. 2017, Regularizing Neural Networks by Penalizing Confident Output Distributions.

    >>> trainer = MultimodalFusionTrainer(MultimodalFusion([3, 5], 4), "cpu", num_classes=2)
    >>> losses = trainer.train_step([torch.ones(2, 3), torch.ones(2, 5)], torch.tensor([0, 1]))
    >>> f"{losses['final_loss']:.4f}"  # ln 2
    '0.6931'
    """

    @typed
    def __init__(self, model: MultimodalFusion, device: str | torch.device | None = None,
                 num_classes: int | None = None, lr: float = 1e-3, weight_decay: float = 0.01, pull: float = 0.02,
                 encoders: Sequence[nn.Module] | None = None):
        lr, weight_decay = checks.positive(lr, "lr"), checks.not_negative(weight_decay, "weight_decay")
        self.pull = checks.not_negative(pull, "pull")
        self.num_classes = None if num_classes is None else checks.whole(num_classes, "num_classes", least=2)
        m = len(model.feature_dims)
        if encoders is not None and not (isinstance(encoders, (list, tuple, nn.ModuleList)) and len(encoders) == m
                                         and all(isinstance(encode, nn.Module) for encode in encoders)):
            refuse(f"encoders 需要每个模态一个，共 {m} 个", f"encoders must be one for each modality, {m} in all")
        self.device = choose_device(device)
        self.model = model
        self.head = nn.Identity() if num_classes is None else nn.Linear(model.output_dim, self.num_classes)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        self.encoders = nn.ModuleList(encoders or [])
        self.learned = nn.ModuleList([self.model, self.head, self.encoders]).to(self.device)
        self.optimizer = make_optimizer(self.learned, lr, weight_decay)

    def train_step(self, features: Sequence[Tensor], targets: Tensor) -> dict[str, float]:
        """走一步，返回各项损失；出错时什么也不变 / Take one step, return the losses; an error changes nothing."""
        features, targets = self._prepare(features, targets)
        return train_on(self.learned, self.optimizer, lambda: self._losses(features, targets))

    def evaluate(self, features: Sequence[Tensor], targets: Tensor) -> dict[str, float]:
        """每种融合与 "f" 的 `accuracy`，没有类别时是均方误差 / Of each fusion and "f": `accuracy`, or squared error."""
        features, targets = self._prepare(features, targets)
        with evaluating(self.learned):
            outputs = self.model(self._encode(features))
            answers = {name: self.head(outputs[name]) for name in (*CANDIDATES, "f")}
        if self.num_classes is None:
            return {name: F.mse_loss(answer, targets).item() for name, answer in answers.items()}
        return {name: accuracy(answer, targets) for name, answer in answers.items()}

    def fuse(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """不训练，只融合：`model` 的有名字的张量 / Fuse without training: the named tensors of `model`."""
        features = self._brought(features)
        with evaluating(self.learned):
            return self.model(self._encode(features))

    def _encode(self, features: Sequence[Tensor]) -> list[Tensor]:
        return [encode(f_i) for encode, f_i in zip(self.encoders, features, strict=True)] if self.encoders else features

    def _losses(self, features: list[Tensor], targets: Tensor) -> dict[str, Tensor]:
        outputs = self.model(self._encode(features))
        loss = F.mse_loss if self.num_classes is None else F.cross_entropy
        own = {f"{name.removeprefix('f_')}_loss": loss(self.head(outputs[name]), targets) for name in CANDIDATES}
        final = loss(self.head(outputs["f"]), targets)
        tiny = torch.finfo(outputs["pi"].dtype).tiny  # a π that has underflowed to 0 has no logarithm
        pull = -(len(CANDIDATES) * outputs["pi"].clamp_min(tiny)).log().mean()
        total = final + sum(own.values()) / len(own) + self.pull * pull
        return {"total_loss": total, **own, "final_loss": final, "pull_loss": pull}

    def _brought(self, features: Sequence[Tensor]) -> list[Tensor]:
        features, widths = brought(self.device, features=features)["features"], self.model.feature_dims
        if not self.encoders:
            checks.fits(features, "features", "M*[B D_i]", self.model.W_s, D_i=widths, M=len(widths))
        elif not isinstance(features, list) or [isinstance(x, Tensor) and x.ndim > 0 for x in features] != (
                [True] * len(widths)) or len({len(x) for x in features}) > 1:
            refuse(f"features 需要是 {len(widths)} 个张量的列表，每个模态一个，样本一样多",
                   f"features must be a list of {len(widths)} tensors, one for each modality, with as many samples")
        return features

    def _prepare(self, features: Sequence[Tensor], targets: Tensor) -> tuple[list[Tensor], Tensor]:
        features, model = self._brought(features), self.model
        if len(features[0]) == 0:
            refuse("需要至少 1 个样本，收到 0 个", "expected at least 1 samples, got 0")
        if self.num_classes is not None:
            checks.classes(targets, "targets", len(features[0]), self.num_classes)
        targets = brought(self.device, targets=targets)["targets"]
        if self.num_classes is None:
            checks.fits(targets, "targets", "B D", model.W_s, B=len(features[0]), D=model.output_dim)
        return features, targets
