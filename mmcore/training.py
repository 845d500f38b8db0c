"""训练的公共部分 / What all trainers share.

一步训练要么完整地发生，要么什么也不改变。

A training step happens as a whole or changes nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.alignment import AlignmentLoss, CrossModalAlignment, cosine_similarity
from mmcore.fusion import CANDIDATES, MultimodalFusion, check_features
from mmcore.ranking import mutual_scores


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """没有指定时：CUDA，其次 MPS，再次 CPU / Where none is named: CUDA, then MPS, then the CPU."""
    if device is not None:
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def make_optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW，只对矩阵做权重衰减 / AdamW that decays matrices only: biases and normalisations need no pull to zero."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW([{"params": decayed, "weight_decay": weight_decay},
                              {"params": others, "weight_decay": 0.0}], lr=lr, fused=True)


def one_cycle(optimizer: torch.optim.Optimizer, steps: int, rise: float = 10,
              fall: float = 1000) -> torch.optim.lr_scheduler.OneCycleLR:
    """步长先升后降 / The step size rises, then falls.

    从 1/`rise` 升到优化器的步长，占前 15 %；再落到起点的 1/`fall`。

    From 1/`rise` of the optimiser's step size up to all of it, in the first 15 %, then down to 1/`fall` of the start.

    Paper: Smith and Topin 2018, Super-Convergence.
    """
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [group["lr"] for group in optimizer.param_groups], total_steps=steps + 1, pct_start=0.15,
        div_factor=rise, final_div_factor=fall, cycle_momentum=False)


def check_steps_left(schedule: torch.optim.lr_scheduler.OneCycleLR) -> None:
    """`one_cycle` 的步数走完了就报错 / An error once all steps of `one_cycle` are done."""
    steps = schedule.total_steps - 1
    checks.require(schedule.last_epoch < steps,
                   f"这次训练只有 {steps} 步，已经走完；reset() 可以从头再来",
                   f"this training has {steps} steps and all are done; reset() starts anew")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """期间的随机数由种子定，之后全局的照旧 / Random numbers inside are the seed's; the global ones stay as they were.

    模型在 CPU 上建好再搬走，所以只管 CPU 的随机数。

    Models are built on the CPU and then moved, so that its random numbers are the only ones.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def optimize(model: nn.Module, optimizer: torch.optim.Optimizer, forward: Callable[[], Tensor]) -> float:
    """算损失、求梯度、走一步，返回损失 / Compute the loss, its gradient, take one step, return the loss.

    损失或梯度出现 NaN 或无穷，`forward` 报错或被打断时，一切（包括批归一化的统计量）回到这一步之前。

    If the loss or a gradient is NaN or infinite, or `forward` fails or is interrupted, everything (the statistics of
    batch normalisation included) goes back to where it was before the step.

    Raises: FloatingPointError 损失或梯度不是有限数 / if the loss or a gradient is not finite;
    ValueError 损失与模型无关 / if the loss does not depend on the model; what `forward` raises.
    """
    before = [buffer.clone() for buffer in model.buffers()]
    optimizer.zero_grad()
    try:
        loss = forward()
        checks.finite(loss.detach(), "损失 loss")
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        checks.require(len(gradients) > 0, "没有一个参数有梯度：损失与这个模型无关",
                       "no parameter has a gradient: the loss does not depend on this model")
        # the norm squares, as AdamW does: what overflows there would spoil the optimiser for good
        checks.finite(nn.utils.get_total_norm(gradients), "梯度 gradient")
    except BaseException:
        optimizer.zero_grad()
        with torch.no_grad():
            for buffer, old in zip(model.buffers(), before, strict=True):
                buffer.copy_(old)
        raise
    optimizer.step()
    return loss.item()


def train_on(model: nn.Module, optimizer: torch.optim.Optimizer, losses: Callable[[], dict[str, Tensor]],
             total: str = "total_loss") -> dict[str, float]:
    """`optimize` 一步，下降的是 `losses()[total]`；返回各项损失 / One step of `optimize` down `losses()[total]`.

    模型换到训练模式 / The model goes into training mode. Returns all the losses, as numbers.

    Raises: 同 `optimize` / as `optimize`.
    """
    found: dict[str, Tensor] = {}

    def forward() -> Tensor:
        found.update(losses())
        return found[total]

    model.train()
    optimize(model, optimizer, forward)
    return {name: value.item() for name, value in found.items()}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """期间不训练、不记梯度，结束后恢复原状 / No training, no gradients inside; afterwards each mode is what it was.

    每个子模块各自恢复，所以冻结的编码器仍在 eval 模式。

    Each submodule gets its own mode back, so that a frozen encoder stays in eval mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, was in modes:
            module.training = was


class MultimodalFusionTrainer:
    """训练自适应融合 (3.5) / Trains adaptive fusion (3.5), on labels or on target features.

    给了 `num_classes`，目标是类别：一个线性的分类头由四种融合和它们的混合共用，从零开始，所以第一步的损失正是
    ln K；头是线性的，所以混合的得分就是四种得分的混合。不给 `num_classes`，目标是 (B, D) 的特征，损失是均方误差。

    With `num_classes` the targets are classes: one linear head is shared by the four fusions and their mixture. It
    starts at zero, so that the first loss is exactly ln K; it is linear, so that the scores of the mixture are the
    mixture of the four scores. Without `num_classes` the targets are features (B, D) and the loss is the mean squared
    error.

    total_loss = final_loss + 四种融合各自损失的平均 + pull · pull_loss。各自的损失让没被选中的融合也继续学；
    pull_loss = −¼ Σₖ ln(4 πₖ) 的平均把每个样本的 π 轻轻拉向均匀，某个 πₖ 越接近 0 就拉得越紧。没有它，选择会坍缩到
    一种融合上；若只拉一批的平均，每个样本仍会各自坍缩到随便一种，平均却看起来均匀。`pull` 可以在两步之间改变。

    total_loss = final_loss + the mean of the losses of the four fusions + pull · pull_loss. Their own losses let the
    fusions that are not chosen go on learning; pull_loss, the mean of −¼ Σₖ ln(4 πₖ), weakly pulls the π of every
    sample to uniform, the harder the closer some πₖ comes to 0. Without it the choice collapses onto one fusion; a pull
    on the batch mean alone lets every sample collapse onto any one of them while the mean looks even. `pull` may be
    changed between steps.

    给了 `encoders`（每个模态一个），特征就由它们从原始输入算出，并与融合一起训练；这时 `features` 是原始输入的列表。

    With `encoders`, one for each modality, they compute the features from raw inputs and are trained together with the
    fusion; `features` is then the list of raw inputs.

    Raises: TypeError / ValueError 模型、个数或步长不对 / for a wrong model, number or step size.
    Paper: Pereyra et al. 2017, Regularizing Neural Networks by Penalizing Confident Output Distributions.
    """

    def __init__(self, model: MultimodalFusion, device: str | torch.device | None = None,
                 num_classes: int | None = None, lr: float = 1e-3, weight_decay: float = 0.01, pull: float = 0.02,
                 encoders: Sequence[nn.Module] | None = None):
        checks.require(isinstance(model, MultimodalFusion),
                       f"model 需要是 MultimodalFusion，收到 {type(model).__name__}",
                       f"model must be a MultimodalFusion, got {type(model).__name__}", TypeError)
        checks.positive(lr, "lr")
        checks.not_negative(pull, "pull")
        if num_classes is not None:
            checks.whole(num_classes, "num_classes", least=2)
        checks.require(encoders is None or len(encoders) == len(model.feature_dims),
                       f"encoders 需要每个模态一个，共 {len(model.feature_dims)} 个",
                       f"encoders must be one for each modality, {len(model.feature_dims)} in all")
        self.num_classes, self.pull = num_classes, pull
        self.device = choose_device(device)
        self.model = model
        self.head = nn.Identity() if num_classes is None else nn.Linear(model.output_dim, num_classes)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)
        self.encoders = nn.ModuleList(encoders or [])
        self.learned = nn.ModuleList([self.model, self.head, self.encoders]).to(self.device)
        self.optimizer = make_optimizer(self.learned, lr, weight_decay)

    def train_step(self, features: Sequence[Tensor], targets: Tensor) -> dict[str, float]:
        """走一步，返回各项损失 / Take one step, return the losses.

        键 / keys: "total_loss", "early_loss", "attention_loss", "gated_loss", "late_loss", "final_loss",
        "pull_loss".

        Raises: TypeError / ValueError 特征或目标不符 / if features or targets do not fit; FloatingPointError 损失不是
        有限数 / if the loss is not finite. In all cases the model stays as it was.
        """
        features, targets = self._prepare(features, targets)
        return train_on(self.learned, self.optimizer, lambda: self._losses(features, targets))

    def evaluate(self, features: Sequence[Tensor], targets: Tensor) -> dict[str, float]:
        """每种融合与混合 "f" 的成绩 / The score of each fusion and of the mixture "f".

        有类别时是正确率，否则是均方误差。

        Accuracy where there are classes, else the mean squared error.

        Raises: TypeError / ValueError 特征或目标不符 / if features or targets do not fit.
        """
        features, targets = self._prepare(features, targets)
        with evaluating(self.learned):
            outputs = self.model(self._encode(features))
            answers = {name: self.head(outputs[name]) for name in (*CANDIDATES, "f")}
        if self.num_classes is None:
            return {name: F.mse_loss(answer, targets).item() for name, answer in answers.items()}
        return {name: (answer.argmax(1) == targets).cpu().double().mean().item() for name, answer in answers.items()}

    def fuse(self, features: Sequence[Tensor]) -> dict[str, Tensor]:
        """不训练，只融合：`model` 的有名字的张量 / Fuse without training: the named tensors of `model`.

        Raises: TypeError / ValueError 特征或输入不符 / if features or inputs do not fit.
        """
        if self.encoders:
            self._check_raw(features)
        with evaluating(self.learned):
            return self.model(self._encode([f_i.to(self.device) for f_i in features]))

    def _encode(self, features: Sequence[Tensor]) -> list[Tensor]:
        if not self.encoders:
            return list(features)
        return [encode(f_i) for encode, f_i in zip(self.encoders, features, strict=True)]

    def _check_raw(self, features: Sequence[Tensor]) -> None:
        checks.require(isinstance(features, (list, tuple)) and all(isinstance(f_i, Tensor) for f_i in features),
                       "输入需要是张量的列表，每个模态一个", "inputs must be a list of tensors, one for each modality",
                       TypeError)
        checks.require(len(features) == len(self.encoders),
                       f"需要 {len(self.encoders)} 个模态，收到 {len(features)} 个",
                       f"expected {len(self.encoders)} modalities, got {len(features)}")
        sizes = [len(f_i) for f_i in features]
        checks.require(len(set(sizes)) == 1, f"每个模态需要同样多的样本，收到 {sizes}",
                       f"each modality needs as many samples as the others, got {sizes}")

    def _losses(self, features: list[Tensor], targets: Tensor) -> dict[str, Tensor]:
        outputs = self.model(self._encode(features))
        loss = F.mse_loss if self.num_classes is None else F.cross_entropy
        own = {f"{name.removeprefix('f_')}_loss": loss(self.head(outputs[name]), targets) for name in CANDIDATES}
        final = loss(self.head(outputs["f"]), targets)
        tiny = torch.finfo(outputs["pi"].dtype).tiny  # a π that has underflowed to 0 has no logarithm
        pull = -(len(CANDIDATES) * outputs["pi"].clamp_min(tiny)).log().mean()
        total = final + sum(own.values()) / len(own) + self.pull * pull
        return {"total_loss": total, **own, "final_loss": final, "pull_loss": pull}

    def _prepare(self, features: Sequence[Tensor], targets: Tensor) -> tuple[list[Tensor], Tensor]:
        if self.encoders:
            self._check_raw(features)
        else:
            check_features(features, len(self.model.feature_dims), self.model.feature_dims)
        b = len(features[0])
        if self.num_classes is None:
            checks.matrix(targets, "targets", b, self.model.output_dim)
        else:
            checks.require(isinstance(targets, Tensor) and targets.dtype == torch.int64 and targets.shape == (b,),
                           f"targets 需要是 ({b},) 的 int64 类别",
                           f"targets must be int64 classes of shape ({b},)")
            checks.require(bool(((targets >= 0) & (targets < self.num_classes)).all()),
                           f"类别需要在 0 到 {self.num_classes - 1} 之间",
                           f"classes must lie between 0 and {self.num_classes - 1}")
        return [f_i.to(self.device) for f_i in features], targets.to(self.device)


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
        self.alignment = CrossModalAlignment(feature_dim, projection_dim, temperature).to(self.device)
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
