r"""视觉-语言模型：两个编码器，一个融合的意思，三个任务 / Two encoders, one fused meaning, three tasks: (1.3), (1.4).

字母 / Letters: B 批 batch · d_v、d_t 特征宽度 feature widths · H 隐藏宽度 hidden width · K 类 classes · L 词元 tokens ·
V 名字的词表大小 size of the vocabulary of names.
"""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks
from mmcore import tokens as text
from mmcore.alignment import contrastive_loss
from mmcore.decoder import CausalDecoder, check_tokens, generation_loss
from mmcore.encoders import TextEncoder, VisualEncoder
from mmcore.training import choose_device, evaluating, make_optimizer, train_on

LOSSES = ("total_loss", "classification_loss", "retrieval_loss", "generation_loss")
LANGUAGES = ("zh", "en")  # the start tokens of the decoder, in this order


def cross_modal_fusion(f_v: Tensor, f_t: Tensor, W_v: Tensor, W_t: Tensor, b: Tensor,
                       sigma: Callable[[Tensor], Tensor] = F.gelu) -> Tensor:
    r"""跨模态融合 / Cross-modal fusion.

    图像说它的，文字说它的，两份证据相加，再过一次激活函数。偏置只有一个：两个偏置加起来还是一个。

    The picture says its part, the text says its part; the two pieces of evidence are added and pass an activation once.
    There is one bias: two would add up to one anyway.

    $$h = \sigma(W_v f_v + W_t f_t + b) \tag{1.3}$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $f_v$ | `f_v` | (B, d_v) | 视觉特征 / visual feature |
    | $f_t$ | `f_t` | (B, d_t) | 文本特征 / text feature |
    | $W_v$ | `W_v` | (H, d_v) | 视觉投影 / visual projection |
    | $W_t$ | `W_t` | (H, d_t) | 文本投影 / text projection |
    | $b$ | `b` | (H,) | 偏置 / bias |
    | $\sigma$ | `sigma` | | 激活函数，逐项作用 / activation, entry by entry |
    | $h$ | `h` | (B, H) | 融合的意思 / fused meaning |

    没有图像（或文字）时，那一项就没有了，也就是 f_v = 0（或 f_t = 0）：没有证据，不加不减。

    Without a picture (or a text) that term is gone, which is f_v = 0 (or f_t = 0): no evidence adds nothing and takes
    nothing away.

    Raises: TypeError / ValueError 类型或形状不符 / for a wrong type or shape.
    Paper: Baltrušaitis et al. 2019, Multimodal Machine Learning: A Survey and Taxonomy.
    """
    checks.matrix(f_v, "f_v")
    checks.matrix(f_t, "f_t", rows=len(f_v))
    checks.matrix(W_v, "W_v", columns=f_v.shape[1])
    checks.matrix(W_t, "W_t", len(W_v), f_t.shape[1])
    checks.require(isinstance(b, Tensor) and b.is_floating_point() and tuple(b.shape) == (len(W_v),),
                   f"b 需要是形状 ({len(W_v)},) 的浮点张量", f"b must be a floating tensor of shape ({len(W_v)},)")
    return sigma(torch.addmm(F.linear(f_v, W_v, b), f_t, W_t.T))


def multitask_loss(L_cls: Tensor | float, L_retrieval: Tensor | float, L_generation: Tensor | float,
                   alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> Tensor | float:
    r"""多任务损失 / Multi-task loss.

    三个任务各有一个损失，按权重相加。权重是 0 的任务什么也不学；权重的比例决定共用的编码器听谁的。

    Each of the three tasks has a loss, and they are added by weight. A task of weight 0 learns nothing; the ratio of
    the weights decides whom the shared encoders listen to.

    $$L_{\mathrm{total}} = \alpha L_{\mathrm{cls}} + \beta L_{\mathrm{retrieval}} + \gamma L_{\mathrm{generation}}
    \tag{1.4}$$

    | 符号 symbol | 名字 name | 含义 meaning |
    |---|---|---|
    | $L_{\mathrm{cls}}$ | `L_cls` | 类别得分的交叉熵，得分由 h 算出 / cross-entropy of class scores computed from h |
    | $L_{\mathrm{retrieval}}$ | `L_retrieval` | (2.1)，在投影后的 f_v 与 f_t 之间 / (2.1) of projected f_v and f_t |
    | $L_{\mathrm{generation}}$ | `L_generation` | 下一个词元的平均 −ln p，p 由 h 算出 / mean −ln p of the next token |
    | $\alpha, \beta, \gamma$ | `alpha`, `beta`, `gamma` | 权重，不小于 0 / weights, 0 or above |
    | $L_{\mathrm{total}}$ | `L_total` | 总损失 / total loss |

    `VLMTrainer` 把它们叫作 `classification_loss`、`retrieval_loss`、`generation_loss`、`total_loss`。

    `VLMTrainer` calls them `classification_loss`, `retrieval_loss`, `generation_loss` and `total_loss`.

    检索用 f_v 和 f_t，不用 h：索引里的图像在查询到来之前就编好了，不可能已经与查询融合。

    Retrieval takes f_v and f_t and not h: the pictures of an index are encoded before any query comes and cannot have
    been fused with it.

    Raises: TypeError / ValueError 权重不是有限数，或小于 0；损失不是一个数 / if a weight is no finite number or below
    0, or a loss is not one number.
    Paper: Caruana 1997, Multitask Learning.
    """
    for name, loss in (("L_cls", L_cls), ("L_retrieval", L_retrieval), ("L_generation", L_generation)):
        checks.one_number(loss, name)
    for name, weight in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        checks.not_negative(weight, name)
    return alpha * L_cls + beta * L_retrieval + gamma * L_generation


class CrossModalFusion(nn.Module):
    """(1.3) 的参数 / The parameters of (1.3): W_v (H, d_v), W_t (H, d_t), b (H,).

    `feature_dim` 是一个宽度，或两个：(d_v, d_t)。缺一种模态时，在 `forward` 里给 None；一批里只有几行缺时，给
    `image_given`、`text_given`：(B,) 的布尔张量。

    `feature_dim` is one width, or two: (d_v, d_t). Give None to `forward` for a modality that is missing; where some
    rows of a batch miss it, give `image_given` and `text_given`, boolean tensors (B,).

    Raises: TypeError / ValueError 宽度或特征不符，或两种模态都没有 / for a wrong width or feature, or if both
    modalities are missing.
    """

    def __init__(self, feature_dim: int | Sequence[int] = 512, hidden_dim: int = 256,
                 sigma: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.feature_dim = checks.two_widths(feature_dim, "feature_dim")
        checks.whole(hidden_dim, "hidden_dim")
        self.sigma = sigma or nn.GELU()
        self.W_v, self.W_t = (nn.Parameter(torch.empty(hidden_dim, width)) for width in self.feature_dim)
        self.b = nn.Parameter(torch.zeros(hidden_dim))
        bound = math.sqrt(3 / sum(self.feature_dim))  # features of variance 1 give sums of variance 1
        for W in (self.W_v, self.W_t):
            nn.init.uniform_(W, -bound, bound)

    def forward(self, f_v: Tensor | None, f_t: Tensor | None, image_given: Tensor | None = None,
                text_given: Tensor | None = None) -> Tensor:
        checks.require(f_v is not None or f_t is not None, "图像和文字都没有，无从融合",
                       "neither picture nor text is there: nothing to fuse")
        known = f_v if f_v is not None else f_t
        d_v, d_t = self.feature_dim
        f_v = known.new_zeros(len(known), d_v) if f_v is None else _hide(f_v, image_given, "image_given")
        f_t = known.new_zeros(len(known), d_t) if f_t is None else _hide(f_t, text_given, "text_given")
        return cross_modal_fusion(f_v, f_t, self.W_v, self.W_t, self.b, self.sigma)


class VisualLanguageModel(nn.Module):
    """视觉-语言模型 / The vision-language model: (1.1) (1.2) (1.3) and three heads.

    `forward(image, input_ids, attention_mask, name_ids)` 返回有名字的张量 / returns named tensors:

    | 名字 name | 形状 shape | 由什么算出 computed from | 含义 meaning |
    |---|---|---|---|
    | `f_v` | (B, D) | `image` | 视觉特征 / visual feature (1.1) |
    | `f_t` | (B, D) | `input_ids`, `attention_mask` | 文本特征 / text feature (1.2) |
    | `h` | (B, H) | `f_v`, `f_t` | 融合的意思 / fused meaning (1.3) |
    | `classification_logits` | (B, K) | `h` | 类别得分 / class scores |
    | `retrieval_v`, `retrieval_t` | (B, D) | `f_v`; `f_t` | 投影，检索时比较 / projections that retrieval compares |
    | `generation_logits` | (B, L, V) | `h`, `name_ids` | 下一个词元的得分 / scores of the next token |

    `image` 或文字（两者之一）可以是 None：那一项在 (1.3) 里消失，也没有它的特征和投影。一批里只有几行缺时，用
    `image_given`、`text_given`；这些行的特征照样算、照样检索，只是不进 h。模型要学会应付，训练时就得时常缺一样（模态
    丢弃）。不给 `name_ids` 就没有 `generation_logits`。

    `image` or the text (one of them) may be None: its term in (1.3) vanishes, and its feature and projection are not
    returned. Where only some rows miss one, use `image_given` and `text_given`; the features of these rows are computed
    and searched all the same and only kept out of h. To cope with that, a model must have met it in training (modality
    dropout). Without `name_ids` there are no `generation_logits`.

    Raises: TypeError / ValueError 个数、宽度或输入不符 / for a wrong number, width or input.
    """

    def __init__(self, num_classes: int = 1000, feature_dim: int = 512, backbone: str = "resnet-tiny",
                 model_name: str = "bert-tiny", weights: str | Path | None = None, hidden_dim: int | None = None,
                 tokenizer: Tokenizer | None = None, name_tokenizer: Tokenizer | None = None,
                 decoder_width: int = 64):
        super().__init__()
        checks.whole(num_classes, "num_classes", least=2)
        checks.whole(feature_dim, "feature_dim")
        hidden_dim = feature_dim if hidden_dim is None else hidden_dim
        self.visual_encoder = VisualEncoder(feature_dim, backbone, weights)
        self.text_encoder = TextEncoder(model_name, feature_dim, tokenizer)
        self.fusion = CrossModalFusion(feature_dim, hidden_dim)
        self.classifier = nn.Linear(hidden_dim, num_classes)
        self.retrieval_head_v = nn.Linear(feature_dim, feature_dim)
        self.retrieval_head_t = nn.Linear(feature_dim, feature_dim)
        for head in (self.retrieval_head_v, self.retrieval_head_t):  # retrieval starts by comparing f_v and f_t
            nn.init.eye_(head.weight)
            nn.init.zeros_(head.bias)
        self.name_tokenizer = name_tokenizer or text.default_tokenizer()
        self.generation_head = CausalDecoder(self.name_tokenizer.get_vocab_size(), hidden_dim, len(LANGUAGES),
                                             decoder_width, end=self.name_tokenizer.token_to_id(text.SEP))

    def forward(self, image: Tensor | None = None, input_ids: Tensor | None = None,
                attention_mask: Tensor | None = None, name_ids: Tensor | None = None,
                image_given: Tensor | None = None, text_given: Tensor | None = None) -> dict[str, Tensor]:
        self._check(image, input_ids, attention_mask, name_ids, image_given, text_given)
        out: dict[str, Tensor] = {}
        if image is not None:
            out["f_v"] = self.visual_encoder(image)
            out["retrieval_v"] = self.retrieval_head_v(out["f_v"])
        if input_ids is not None:
            out["f_t"] = self.text_encoder(input_ids, attention_mask)
            out["retrieval_t"] = self.retrieval_head_t(out["f_t"])
        out["h"] = self.fusion(out.get("f_v"), out.get("f_t"), image_given, text_given)
        out["classification_logits"] = self.classifier(out["h"])
        if name_ids is not None:
            out["generation_logits"] = self.generation_head(out["h"], name_ids[:, :-1])
        return out

    def _check(self, image: Tensor | None, input_ids: Tensor | None, attention_mask: Tensor | None,
               name_ids: Tensor | None, image_given: Tensor | None, text_given: Tensor | None) -> None:
        """In training mode a pass moves running means: whatever is wrong must be said before the first encoder runs."""
        checks.require((input_ids is None) == (attention_mask is None), "input_ids 和 attention_mask 需要一起给",
                       "input_ids and attention_mask must come together")
        checks.require(image is not None or input_ids is not None, "图像和文字都没有，无从融合",
                       "neither picture nor text is there: nothing to fuse")
        if image is not None:
            self.visual_encoder.check(image)
        if input_ids is not None:
            self.text_encoder.check(input_ids, attention_mask)
        checks.require(image is None or input_ids is None or len(image) == len(input_ids),
                       "image 和 input_ids 需要同样多行", "image and input_ids must have the same number of rows")
        b = len(image if image is not None else input_ids)
        _check_given(image_given, b, "image_given")
        _check_given(text_given, b, "text_given")
        if name_ids is not None:
            check_tokens(name_ids, b)
            self.generation_head.check_tokens(name_ids[:, :-1], b)

    def name_tokens(self, names: Sequence[str], languages: Sequence[str]) -> Tensor:
        """名字 → 词元 / Names → tokens (B, L + 1): language, words, end, padding.

        Raises: TypeError / ValueError 名字为空、含没学过的词或太长，语言未知，或个数不同 / for an empty, unknown or too
        long name, an unknown language, or different numbers of both.
        """
        text.check_texts(names, "names")
        starts = self.generation_head.start(self._languages(languages, len(names)).cpu())
        for name in names:
            text.check_known(self.name_tokenizer, name)
        rows = torch.tensor([row.ids for row in self.name_tokenizer.encode_batch(list(names))])
        most = self.generation_head.max_tokens
        checks.require(rows.shape[1] - 1 <= most, f"名字最多 {most - 1} 个词元，收到 {rows.shape[1] - 2} 个",
                       f"a name may have at most {most - 1} tokens, got {rows.shape[1] - 2}")
        return torch.cat([starts, rows[:, 1:]], 1)  # the language takes the place of [CLS]

    def write(self, h: Tensor, languages: Sequence[str], temperature: float = 0.0,
              generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """给定 h，用指定的语言写名字 / Write names in the languages asked for, given h: see `CausalDecoder.generate`.

        Raises: TypeError / ValueError 语言未知、个数不同，或 h、温度不符 / for an unknown language, different numbers,
        or a wrong h or temperature.
        """
        return self.generation_head.generate(h, self._languages(languages, len(h)), temperature, generator)

    def words(self, tokens: Tensor) -> list[str]:
        """一行词元 → 词和字 / One row of tokens → its words and characters, without start, end and padding."""
        special = {text.PAD, text.CLS, text.SEP}
        found = [self.name_tokenizer.id_to_token(int(token)) for token in tokens]
        return [word for word in found if word is not None and word not in special]

    def spell(self, tokens: Tensor) -> str:
        """一行词元 → 文本 / One row of tokens → text: Chinese without spaces, English with."""
        line = " ".join(self.words(tokens))
        line = re.sub(r"(?<=[一-鿿]) | (?=[一-鿿])", "", line)
        return re.sub(r" ?([-'’]) ?", r"\1", line)

    def _languages(self, languages: Sequence[str], count: int) -> Tensor:
        checks.require(not isinstance(languages, str) and len(languages) == count,
                       f"languages 需要 {count} 种，每行一种", f"languages must list {count}, one for each row")
        for language in languages:
            checks.one_of(language, "language", LANGUAGES)
        return torch.tensor([LANGUAGES.index(language) for language in languages], device=self.device)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


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


def _hide(f: Tensor, given: Tensor | None, name: str) -> Tensor:
    """没给的行变成 0 / Rows that were not given become 0."""
    _check_given(given, len(f), name)
    return f if given is None else f.masked_fill(~given.unsqueeze(1), 0.0)


def _check_given(given: Tensor | None, b: int, name: str) -> None:
    checks.require(given is None or (isinstance(given, Tensor) and given.dtype == torch.bool and given.shape == (b,)),
                   f"{name} 需要是形状 ({b},) 的布尔张量", f"{name} must be a boolean tensor of shape ({b},)")
