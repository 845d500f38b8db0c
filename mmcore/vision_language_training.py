"""视觉-语言模型的训练 / Training the vision-language model."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcore import checks
from mmcore.alignment import contrastive_loss
from mmcore.generation import generation_loss
from mmcore.training import choose_device, evaluating, make_optimizer, train_on
from mmcore.vision_language import VisualLanguageModel, multitask_loss

LOSSES = ("total_loss", "classification_loss", "retrieval_loss", "generation_loss")


class VLMTrainer:
    """用 (1.4) 训练视觉-语言模型 / Trains the vision-language model by (1.4).

    `alpha`、`beta`、`gamma` 和检索的温度 `tau` 用 `tune` 在两步之间改变，从下一步起生效。

    `alpha`, `beta`, `gamma` and the temperature `tau` of retrieval are changed between steps with `tune` and act from
    the next step on.

    Raises: TypeError / ValueError 模型、权重、温度或步长不对 / for a wrong model, weight, temperature or step size.
    """

    def __init__(self, model: VisualLanguageModel, device: str | torch.device | None = None, alpha: float = 1.0,
                 beta: float = 1.0, gamma: float = 1.0, tau: float = 0.0625, lr: float = 1e-3,
                 weight_decay: float = 0.3):
        checks.require(isinstance(model, VisualLanguageModel),
                       f"model 需要是 VisualLanguageModel，收到 {type(model).__name__}",
                       f"model must be a VisualLanguageModel, got {type(model).__name__}", TypeError)
        checks.positive(lr, "lr")
        checks.not_negative(weight_decay, "weight_decay")
        for x, name in ((alpha, "alpha"), (beta, "beta"), (gamma, "gamma")):
            checks.not_negative(x, name)
        checks.positive(tau, "tau")
        self.tune(alpha, beta, gamma, tau)
        self.device = choose_device(device)
        self.model = model.to(self.device)
        self.optimizer = make_optimizer(self.model, lr, weight_decay)

    def tune(self, alpha: float | None = None, beta: float | None = None, gamma: float | None = None,
             tau: float | None = None) -> None:
        """改变权重与温度，没给的不变 / Change the weights and the temperature; what is not given stays.

        Raises: TypeError / ValueError 有一个不对，这时一个也不改变 / if one is wrong; then none is changed.
        """
        given = {name: x for name, x in (("alpha", alpha), ("beta", beta), ("gamma", gamma)) if x is not None}
        for name, x in given.items():
            checks.not_negative(x, name)
        if tau is not None:
            checks.positive(tau, "tau")
            given["tau"] = tau
        for name, x in given.items():
            setattr(self, name, x)

    def train_step(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, name_ids: Tensor,
                   positives: Tensor | None = None, image_given: Tensor | None = None,
                   text_given: Tensor | None = None) -> dict[str, float]:
        """走一步，返回各项损失 / Take one step, return the losses: `LOSSES`.

        Raises: TypeError / ValueError 输入或目标不符 / if inputs or targets do not fit; FloatingPointError 损失或梯度
        不是有限数 / if the loss or a gradient is not finite. In all cases the model stays as it was.
        """
        batch = self._moved(image=image, input_ids=input_ids, attention_mask=attention_mask, labels=labels,
                            name_ids=name_ids, positives=positives, image_given=image_given, text_given=text_given)

        def losses() -> dict[str, Tensor]:
            out = self._losses(**batch)
            return {name: out[name] for name in LOSSES}

        return train_on(self.model, self.optimizer, losses)

    def losses(self, **batch: Tensor) -> dict[str, Tensor]:
        """不训练：模型的有名字的张量和各项损失 / Without training: the model's named tensors, and the losses.

        参数与错误同 `train_step` / Arguments and errors are those of `train_step`.
        """
        with evaluating(self.model):
            return self._losses(**self._moved(**batch))

    def _losses(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, name_ids: Tensor,
                positives: Tensor | None = None, image_given: Tensor | None = None,
                text_given: Tensor | None = None) -> dict[str, Tensor]:
        self.model.visual_encoder.check(image)
        self._check_labels(labels, len(image))
        out = self.model(image, input_ids, attention_mask, name_ids, image_given, text_given)
        out["classification_loss"] = F.cross_entropy(out["classification_logits"], labels)
        out["retrieval_loss"] = contrastive_loss(out["retrieval_v"], out["retrieval_t"], self.tau, positives)
        out["generation_loss"] = generation_loss(out["generation_logits"], name_ids, self.model.generation_head.pad)
        out["total_loss"] = multitask_loss(out["classification_loss"], out["retrieval_loss"], out["generation_loss"],
                                           self.alpha, self.beta, self.gamma)
        return out

    def _check_labels(self, labels: Tensor, b: int) -> None:
        classes = self.model.classifier.out_features
        checks.require(isinstance(labels, Tensor) and labels.dtype == torch.int64 and labels.shape == (b,)
                       and bool(((labels >= 0) & (labels < classes)).all()),
                       f"labels 需要是 ({b},) 的 int64 类别，在 0 到 {classes - 1} 之间",
                       f"labels must be int64 classes of shape ({b},) between 0 and {classes - 1}")

    def _moved(self, **tensors: Tensor | None) -> dict[str, Tensor | None]:
        return {name: x.to(self.device) if isinstance(x, Tensor) else x for name, x in tensors.items()}
