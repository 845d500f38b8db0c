r"""视觉-语言模型：两个编码器，一个融合的意思，三个任务 / Two encoders, one fused meaning, three tasks: (1.3), (1.4).

Letters: B batch, d_v and d_t feature widths, H hidden width, K classes, L tokens, V size of the vocabulary of names.
What does not fit: TypeError or ValueError.

字母：B 批，d_v、d_t 特征宽度，H 隐藏宽度，K 类，L 词元，V 名字的词表大小。不符时报 TypeError 或 ValueError。
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
from mmcore.checks import refuse, shapes, typed
from mmcore.decoder import CausalDecoder, generation_loss
from mmcore.encoders import TextEncoder, VisualEncoder
from mmcore.training import brought, choose_device, device_of, evaluating, make_optimizer, train_on

LOSSES = ("total_loss", "classification_loss", "retrieval_loss", "generation_loss")
LANGUAGES = ("zh", "en")  # the start tokens of the decoder, in this order
INPUTS = {"image": "B 3 height width", "input_ids": "int B L", "attention_mask": "mask B L", "name_ids": "int64 B N",
          "image_given": "bool B", "text_given": "bool B"}


@shapes(f_v="B d_v", f_t="B d_t", W_v="H d_v", W_t="H d_t", b="H")
def cross_modal_fusion(f_v: Tensor, f_t: Tensor, W_v: Tensor, W_t: Tensor, b: Tensor,
                       sigma: Callable[[Tensor], Tensor] = F.gelu) -> Tensor:
    r"""跨模态融合 / Cross-modal fusion.

    $$h = \sigma(W_v f_v + W_t f_t + b) \tag{1.3}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $f_v$ | `f_v` | (B, d_v) | visual feature | 视觉特征 |
    | $f_t$ | `f_t` | (B, d_t) | text feature | 文本特征 |
    | $W_v$ | `W_v` | (H, d_v) | visual projection | 视觉投影 |
    | $W_t$ | `W_t` | (H, d_t) | text projection | 文本投影 |
    | $b$ | `b` | (H,) | bias | 偏置 |
    | $\sigma$ | `sigma` | | activation, entry by entry | 激活函数，逐项作用 |
    | $h$ | `h` | (B, H) | fused meaning | 融合的意思 |

    The picture says its part, the text says its part; the two pieces of evidence are added and pass an activation once.
    Without a picture (or a text) its term is gone, which is f_v = 0 (or f_t = 0): no evidence adds nothing.

    图像说它的，文字说它的，两份证据相加，再过一次激活函数。没有图像（或文字）时，那一项就没有了，也就是 f_v = 0（或
    f_t = 0）：没有证据，不加不减。

    Paper: Baltrušaitis et al. 2019, Multimodal Machine Learning: A Survey and Taxonomy.

    >>> f_v, f_t, W_v, W_t = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0]]), torch.ones(1, 2), torch.tensor([[2.0]])
    >>> cross_modal_fusion(f_v, f_t, W_v, W_t, torch.tensor([-4.0]), torch.relu)  # 1 + 2 + 6 − 4
    tensor([[5.]])
    """
    return sigma(torch.addmm(F.linear(f_v, W_v, b), f_t, W_t.T))


@shapes(L_cls="scalar", L_retrieval="scalar", L_generation="scalar")
def multitask_loss(L_cls: Tensor | float, L_retrieval: Tensor | float, L_generation: Tensor | float,
                   alpha: float = 1.0, beta: float = 1.0, gamma: float = 1.0) -> Tensor | float:
    r"""多任务损失 / Multi-task loss.

    $$L_{\mathrm{total}} = \alpha L_{\mathrm{cls}} + \beta L_{\mathrm{retrieval}} + \gamma L_{\mathrm{generation}}
    \tag{1.4}$$

    | symbol | name | meaning | 含义 |
    |---|---|---|---|
    | $L_{\mathrm{cls}}$ | `L_cls` | cross-entropy of class scores computed from h | 类别得分的交叉熵，得分由 h 算出 |
    | $L_{\mathrm{retrieval}}$ | `L_retrieval` | (2.1) of projected f_v and f_t | (2.1)，在投影后的 f_v 与 f_t 之间 |
    | $L_{\mathrm{generation}}$ | `L_generation` | mean −ln p of the next token | 下一个词元的平均 −ln p，p 由 h 算出 |
    | $\alpha, \beta, \gamma$ | `alpha`, `beta`, `gamma` | weights, 0 or above | 权重，不小于 0 |

    A task of weight 0 learns nothing; the ratio of the weights decides whom the shared encoders listen to. Retrieval
    takes no h: the pictures of an index are encoded before any query comes and cannot have been fused with it.

    权重是 0 的任务什么也不学；权重的比例决定共用的编码器听谁的。检索不用 h：索引里的图像在查询到来之前就编好了，不可能
    已经与查询融合。

    Paper: Caruana 1997, Multitask Learning.

    >>> multitask_loss(2.0, 4.0, 7.0, alpha=0.5, beta=3.0, gamma=0.0)
    13.0
    """
    for name, weight in (("alpha", alpha), ("beta", beta), ("gamma", gamma)):
        checks.not_negative(weight, name)
    return alpha * L_cls + beta * L_retrieval + gamma * L_generation


class CrossModalFusion(nn.Module):
    """(1.3) 的参数 / The parameters of (1.3): W_v (H, d_v), W_t (H, d_t), b (H,).

    Give None to `forward` for a modality that is missing, and `image_given`, `text_given` where only some rows miss it.

    缺一种模态时，在 `forward` 里给 None；一批里只有几行缺时，给 `image_given`、`text_given`。

    >>> fuse = CrossModalFusion((4, 5), hidden_dim=6)
    >>> fuse(torch.ones(2, 4), None).shape  # no text
    torch.Size([2, 6])
    """

    @typed
    def __init__(self, feature_dim: int | Sequence[int] = 512, hidden_dim: int = 256,
                 sigma: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.d_v, self.d_t = checks.two_widths(feature_dim, "feature_dim")
        hidden_dim = checks.whole(hidden_dim, "hidden_dim")
        self.sigma = sigma or nn.GELU()
        self.W_v, self.W_t = (nn.Parameter(torch.empty(hidden_dim, width)) for width in (self.d_v, self.d_t))
        self.b = nn.Parameter(torch.zeros(hidden_dim))
        bound = math.sqrt(3 / (self.d_v + self.d_t))  # features of variance 1 give sums of variance 1
        for W in (self.W_v, self.W_t):
            nn.init.uniform_(W, -bound, bound)

    @shapes(own="d_v=d_v d_t=d_t", like="b", f_v="B d_v", f_t="B d_t", image_given="bool B", text_given="bool B")
    def forward(self, f_v: Tensor | None = None, f_t: Tensor | None = None, image_given: Tensor | None = None,
                text_given: Tensor | None = None) -> Tensor:
        if f_v is None and f_t is None:
            refuse("图像和文字都没有，无从融合", "neither picture nor text is there: nothing to fuse")
        known = f_v if f_v is not None else f_t
        f_v = known.new_zeros(len(known), self.d_v) if f_v is None else _hide(f_v, image_given)
        f_t = known.new_zeros(len(known), self.d_t) if f_t is None else _hide(f_t, text_given)
        return cross_modal_fusion(f_v, f_t, self.W_v, self.W_t, self.b, self.sigma)


def _hide(f: Tensor, given: Tensor | None) -> Tensor:
    return f if given is None else f.masked_fill(~given.unsqueeze(1), 0.0)


class VisualLanguageModel(nn.Module):
    """视觉-语言模型 / The vision-language model: (1.1) (1.2) (1.3) and three heads.

    `forward(image, input_ids, attention_mask, name_ids)` → named tensors:

    | name | shape | computed from | meaning | 含义 |
    |---|---|---|---|---|
    | `f_v` | (B, D) | `image` | visual feature (1.1) | 视觉特征 (1.1) |
    | `f_t` | (B, D) | `input_ids`, `attention_mask` | text feature (1.2) | 文本特征 (1.2) |
    | `h` | (B, H) | `f_v`, `f_t` | fused meaning (1.3) | 融合的意思 (1.3) |
    | `classification_logits` | (B, K) | `h` | class scores | 类别得分 |
    | `retrieval_v`, `retrieval_t` | (B, D) | `f_v`; `f_t` | projections that retrieval compares | 投影，检索时比较 |
    | `generation_logits` | (B, L, V) | `h`, `name_ids` | scores of the next token | 下一个词元的得分 |

    `image` or the text (one of them) may be None: its term in (1.3) vanishes, and so does what is computed from it.
    Where only some rows miss one, use `image_given` and `text_given`: the features of these rows only stay out of h.

    `image` 或文字（两者之一）可以是 None：那一项在 (1.3) 里消失，由它算出的也没有。一批里只有几行缺时，用
    `image_given`、`text_given`：这些行的特征照样算、照样检索，只是不进 h。

    >>> model = VisualLanguageModel(num_classes=4, feature_dim=8).eval()
    >>> list(model(torch.rand(2, 3, 32, 32)))
    ['f_v', 'retrieval_v', 'h', 'classification_logits']
    """

    @typed
    def __init__(self, num_classes: int = 1000, feature_dim: int = 512, backbone: str = "resnet-tiny",
                 model_name: str = "bert-tiny", weights: str | Path | None = None, hidden_dim: int | None = None,
                 tokenizer: Tokenizer | None = None, name_tokenizer: Tokenizer | None = None,
                 decoder_width: int = 64):
        super().__init__()
        num_classes = checks.whole(num_classes, "num_classes", least=2)
        feature_dim = checks.whole(feature_dim, "feature_dim", least=2)  # a cosine of one number is ±1
        hidden_dim = checks.whole(feature_dim if hidden_dim is None else hidden_dim, "hidden_dim")
        decoder_width = checks.whole(decoder_width, "decoder_width", least=3)
        with checks.luck_kept():
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

    @shapes(like="classifier.weight", **INPUTS)
    def forward(self, image: Tensor | None = None, input_ids: Tensor | None = None,
                attention_mask: Tensor | None = None, name_ids: Tensor | None = None,
                image_given: Tensor | None = None, text_given: Tensor | None = None) -> dict[str, Tensor]:
        self._check(image, input_ids, attention_mask, name_ids)
        out: dict[str, Tensor] = {}
        if image is not None:
            out["f_v"] = self.visual_encoder.encode(image)
            out["retrieval_v"] = self.retrieval_head_v(out["f_v"])
        if input_ids is not None:
            out["f_t"] = self.text_encoder.encode(input_ids, attention_mask)
            out["retrieval_t"] = self.retrieval_head_t(out["f_t"])
        out["h"] = self.fusion(out.get("f_v"), out.get("f_t"), image_given, text_given)
        out["classification_logits"] = self.classifier(out["h"])
        if name_ids is not None:
            out["generation_logits"] = self.generation_head.logits(out["h"], name_ids[:, :-1])
        return out

    def _check(self, image: Tensor | None, input_ids: Tensor | None, attention_mask: Tensor | None,
               name_ids: Tensor | None) -> None:
        """In training mode a pass moves running means: whatever is wrong must be said before the first encoder runs."""
        if (input_ids is None) != (attention_mask is None):
            refuse("input_ids 和 attention_mask 需要一起给", "input_ids and attention_mask must come together")
        if image is not None:
            self.visual_encoder.check(image)
        if input_ids is not None:
            self.text_encoder.check(input_ids, attention_mask)
        if name_ids is not None:
            self.generation_head.check_tokens(name_ids[:, :-1])

    def name_tokens(self, names: Sequence[str], languages: Sequence[str]) -> Tensor:
        """名字 → 词元 / Names → tokens (B, L + 1): language, words, end, padding."""
        text.check_texts(names, "names")
        starts = self.generation_head.start(self._languages(languages, len(names)).cpu())
        for name in names:
            text.check_known(self.name_tokenizer, name)
        rows = torch.tensor([row.ids for row in self.name_tokenizer.encode_batch(list(names))])
        most = self.generation_head.max_tokens
        if rows.shape[1] - 1 > most:
            refuse(f"名字最多 {most - 1} 个词元，收到 {rows.shape[1] - 2} 个",
                   f"a name may have at most {most - 1} tokens, got {rows.shape[1] - 2}")
        return torch.cat([starts, rows[:, 1:]], 1)  # the language stands where [CLS] was

    @shapes(h="B D")
    def write(self, h: Tensor, languages: Sequence[str], temperature: float = 0.0,
              generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """给定 h，用指定的语言写名字 / Write names in the languages asked for, given h, by `CausalDecoder.generate`."""
        return self.generation_head.generate(h, self._languages(languages, len(h)), temperature, generator)

    @shapes(tokens="int64 L")
    def words(self, tokens: Tensor) -> list[str]:
        """一行词元 → 词和字 / One row of tokens → its words and characters, without start, end and padding."""
        known = self.generation_head.vocabulary + len(LANGUAGES)
        found = [self.name_tokenizer.id_to_token(checks.index(token, "tokens", known)) for token in tokens.tolist()]
        return [word for word in found if word not in {None, text.PAD, text.CLS, text.SEP}]

    def spell(self, tokens: Tensor) -> str:
        """一行词元 → 文本 / One row of tokens → text: Chinese without spaces, English with."""
        line = " ".join(self.words(tokens))
        line = re.sub(r"(?<=[一-鿿]) | (?=[一-鿿])", "", line)
        return re.sub(r" ?([-'’]) ?", r"\1", line)

    def _languages(self, languages: Sequence[str], count: int) -> Tensor:
        if not isinstance(languages, (list, tuple)) or len(languages) != count:
            refuse(f"languages 需要 {count} 种，每行一种", f"languages must list {count}, one for each row")
        for language in languages:
            checks.one_of(language, "language", LANGUAGES)
        return torch.tensor([LANGUAGES.index(language) for language in languages], device=device_of(self))


class VLMTrainer:
    """用 (1.4) 训练视觉-语言模型，`tau` 是检索的温度 / Trains a vision-language model by (1.4), with `tau` for (2.1).

    >>> trainer = VLMTrainer(VisualLanguageModel(num_classes=2, feature_dim=8), "cpu")
    >>> names = trainer.model.name_tokens(["apple", "苹果"], ["en", "zh"])
    >>> hints = trainer.model.text_encoder.tokenize(["fruit", "水果"])
    >>> list(trainer.train_step(torch.rand(2, 3, 32, 32), **hints, labels=torch.tensor([0, 1]), name_ids=names))
    ['total_loss', 'classification_loss', 'retrieval_loss', 'generation_loss']
    """

    @typed
    def __init__(self, model: VisualLanguageModel, device: str | torch.device | None = None, alpha: float = 1.0,
                 beta: float = 1.0, gamma: float = 1.0, tau: float = 0.0625, lr: float = 1e-3,
                 weight_decay: float = 0.3):
        lr, weight_decay = checks.positive(lr, "lr"), checks.not_negative(weight_decay, "weight_decay")
        self.alpha, self.beta = checks.not_negative(alpha, "alpha"), checks.not_negative(beta, "beta")
        self.gamma, self.tau = checks.not_negative(gamma, "gamma"), checks.positive(tau, "tau")
        self.device = choose_device(device)
        self.model = model.to(self.device)
        self.optimizer = make_optimizer(self.model, lr, weight_decay)

    def tune(self, alpha: float | None = None, beta: float | None = None, gamma: float | None = None,
             tau: float | None = None) -> None:
        """改变给出的权重与温度；有一个不对，都不变 / Change weights and temperature: all that are given, or none."""
        given = {name: checks.not_negative(x, name)
                 for name, x in (("alpha", alpha), ("beta", beta), ("gamma", gamma)) if x is not None}
        if tau is not None:
            given["tau"] = checks.positive(tau, "tau")
        vars(self).update(given)

    def train_step(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, name_ids: Tensor,
                   positives: Tensor | None = None, image_given: Tensor | None = None,
                   text_given: Tensor | None = None) -> dict[str, float]:
        """走一步，返回各项损失；出错时什么也不变 / Take one step, return `LOSSES`; an error changes nothing."""
        batch = brought(self.device, image=image, input_ids=input_ids, attention_mask=attention_mask, labels=labels,
                        name_ids=name_ids, positives=positives, image_given=image_given, text_given=text_given)

        def losses() -> dict[str, Tensor]:
            out = self._losses(**batch)
            return {name: out[name] for name in LOSSES}

        return train_on(self.model, self.optimizer, losses)

    def losses(self, **batch: Tensor) -> dict[str, Tensor]:
        """有名字的张量和各项损失，不训练 / The named tensors and the losses, without training, of what a step takes."""
        with evaluating(self.model):
            return self._losses(**brought(self.device, **batch))

    @shapes(**INPUTS, labels="int64 B", positives="bool B B")
    def _losses(self, image: Tensor, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, name_ids: Tensor,
                positives: Tensor | None = None, image_given: Tensor | None = None,
                text_given: Tensor | None = None) -> dict[str, Tensor]:
        checks.classes(labels, "labels", len(image), self.model.classifier.out_features)
        out = self.model(image, input_ids, attention_mask, name_ids, image_given, text_given)
        out["classification_loss"] = F.cross_entropy(out["classification_logits"], labels)
        out["retrieval_loss"] = contrastive_loss(out["retrieval_v"], out["retrieval_t"], self.tau, positives)
        out["generation_loss"] = generation_loss(out["generation_logits"], name_ids, self.model.generation_head.pad)
        out["total_loss"] = multitask_loss(out["classification_loss"], out["retrieval_loss"], out["generation_loss"],
                                           self.alpha, self.beta, self.gamma)
        return out
