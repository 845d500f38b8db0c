r"""小小的因果解码器：一个词一个词地写 / A small causal decoder: it writes one token at a time.

字母 / Letters: B 批 batch · L 词元 tokens · V 词表大小 vocabulary size · D 特征宽度 feature width · W 解码器宽度 width.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks


def generation_loss(logits: Tensor, tokens: Tensor, pad: int = 0) -> Tensor:
    r"""生成损失，(1.4) 的第三项 / The loss of generation, the third term of (1.4).

    每个位置都问：给定 h 和前面的词元，真正的下一个词元有多大概率？取 −ln，对全部真词元求平均；补齐不算。全凭猜测是
    ln V。

    Each place asks: given h and the tokens before, how probable is the true next token? It is the mean of −ln over all
    real tokens; padding does not count. Guessing blindly gives ln V.

    $$L_{\mathrm{generation}} = -\frac{1}{\sum_n L_n} \sum_{n=1}^{B} \sum_{l=1}^{L_n}
    \log p(y_{n,l} \mid h_n, y_{n,0}, \dots, y_{n,l-1})$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $y$ | `tokens` | (B, L + 1) | 起始词元、名字、结束、补齐 / start, name, end, padding |
    | $p$ | `logits.softmax(-1)` | (B, L, V) | 下一个词元的概率 / probability of the next token |
    | $L_n$ | | | 第 n 行要写的真词元数 / how many real tokens row n has to write |

    Raises: TypeError / ValueError 形状或类型不符，或没有一个真词元 / for a wrong shape or type, or no real token.
    """
    checks.require(isinstance(logits, Tensor) and logits.ndim == 3 and logits.is_floating_point(),
                   "logits 需要是 (B, L, V) 的浮点张量", "logits must be a floating tensor (B, L, V)", TypeError)
    check_tokens(tokens, len(logits), logits.shape[1] + 1)
    wanted = tokens[:, 1:]
    real = wanted != pad
    checks.require(bool(real.any()), "没有一个要写的词元，全是补齐", "there is no token to write, all is padding")
    return F.cross_entropy(logits[real], wanted[real])  # of the real tokens alone: half the time of ignoring the others


def beam_search(next_log_p: Callable[[Tensor], Tensor], start: Tensor, most: int, beams: int = 4,
                length_power: float = 0.0, pad: int = 0, end: int = 3) -> tuple[Tensor, Tensor]:
    r"""束搜索：同时写几句，留下最好的几句 / Beam search: write several texts at once and keep the best.

    贪心每一步只留一句，所以第一个词选错就回不来；束搜索每一步留下得分最高的 `beams` 句，写完的也在其中。`beams` 是 1 时
    就是贪心；大到一句也不用丢时，就是穷举。找的是：

    Greedy writing keeps one text and cannot take back a first word; beam search keeps the `beams` best at each step,
    finished ones among them. With 1 it is greedy; so large that nothing is dropped, it is exhaustive. It looks for:

    $$\hat{y} = \arg\max_y\, s(y), \qquad
    s(y) = \frac{1}{L^{\lambda}} \sum_{l=1}^{L} \log p(y_l \mid v, y_0, \dots, y_{l-1}) \tag{5.2}$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $\log p$ | `next_log_p(tokens)` | (B · beams, V) | 下一个词元的对数概率 / log probability of the next token |
    | $y_0$ | `start` | (B, 1) | 起始词元 / start tokens |
    | $L$ | | | 写了几个词元，连结束在内，至多 `most` / how many tokens were written, the end included, `most` at most |
    | $\lambda$ | `length_power` | | 0：概率本身；1：每个词元的平均 / 0: probability itself; 1: the mean per token |
    | $s$ | 第二个结果 second result | (B, beams) | 得分，从高到低 / scores, from the best down |

    概率是许多小于 1 的数相乘，句子越短越占便宜；λ 大于 0 就是在补偿。`next_log_p` 收到 (B · beams, l) 的词元，第 n 行的
    几句在一起。返回词元 (B, beams, ≤ most) 和 s；找不够 `beams` 句时，多出来的得分是 −∞。

    A probability is a product of many numbers below 1, which favours short texts; λ above 0 makes up for that.
    `next_log_p` is given tokens (B · beams, l), the texts of one row together. Returned are the tokens
    (B, beams, ≤ most) and s; where there are fewer than `beams` texts, the rest have a score of −∞.

    Raises: TypeError / ValueError 起始词元、`next_log_p`、`most`、`beams`、λ、`pad` 或 `end` 不对 / for wrong start
    tokens, or a wrong `next_log_p`, `most`, `beams`, λ, `pad` or `end`.
    Paper: Sutskever et al. 2014, Sequence to Sequence Learning; Wu et al. 2016, Google's Neural Machine Translation
    System (the division by length).
    """
    checks.require(callable(next_log_p), f"next_log_p 需要是函数，收到 {type(next_log_p).__name__}",
                   f"next_log_p must be a function, got {type(next_log_p).__name__}", TypeError)
    checks.require(isinstance(start, Tensor) and start.dtype == torch.int64 and start.ndim == 2
                   and start.shape[1] == 1 and len(start) > 0, "start 需要是 int64 张量 (B, 1)",
                   "start must be an int64 tensor (B, 1)", TypeError)
    for value, name, least in ((most, "most", 1), (beams, "beams", 1), (pad, "pad", 0), (end, "end", 0)):
        checks.whole(value, name, least)
    checks.not_negative(length_power, "length_power")
    n, device = len(start), start.device
    tokens = start.repeat_interleave(beams, 0)  # (B · beams, 1): the texts so far
    total = torch.full((n, beams), -torch.inf, device=device)  # Σ log p
    total[:, 0] = 0.0  # all beams start alike: one is enough
    length = torch.zeros(n, beams, dtype=torch.long, device=device)
    done = torch.zeros(n, beams, dtype=torch.bool, device=device)
    for _ in range(most):
        log_p = next_log_p(tokens)
        checks.matrix(log_p, "next_log_p", n * beams)
        log_p = log_p.view(n, beams, -1)  # (B, beams, V)
        stay = torch.full_like(log_p, -torch.inf)
        stay[..., pad] = 0.0  # a finished text goes on as it is, and in one way only
        new_total = total.to(log_p).unsqueeze(2) + torch.where(done.unsqueeze(2), stay, log_p)
        new_length = length + ~done
        s = new_total / new_length.to(log_p).unsqueeze(2) ** length_power
        s, place = s.flatten(1).topk(beams, 1)  # (B, beams), the best of all beams · V
        parent, token = place // log_p.shape[2], place % log_p.shape[2]
        total, length = new_total.flatten(1).gather(1, place), new_length.gather(1, parent)
        done = done.gather(1, parent) | (token == end)
        rows = parent + beams * torch.arange(n, device=device).unsqueeze(1)
        tokens = torch.cat([tokens[rows.flatten()], token.view(-1, 1)], 1)
        if bool(done.all()):
            break
    return tokens[:, 1:].view(n, beams, -1), s


class CausalDecoder(nn.Module):
    r"""因果解码器 / Causal decoder: p(next token | h, tokens before).

    h 经一个线性层变成开头的 `prefix` 个位置，词元跟在后面；每个位置只看得见自己和前面的。输入和输出共用一张词元表。
    `starts` 个起始词元（例如每种语言一个）排在词表之后：它们只用来开头，永远写不出来。

    A linear layer turns h into the first `prefix` places, and the tokens follow; each place sees itself and those
    before it. One table of tokens serves input and output. The `starts` start tokens (one for each language, say) come
    after the vocabulary: they begin a text and can never be written.

    `forward(h, tokens)`：(B, D)，(B, L) → logits (B, L, V)，第 l 个位置预测第 l + 1 个词元。

    `forward(h, tokens)`: (B, D), (B, L) → logits (B, L, V), where place l predicts token l + 1.

    **前缀** `one_each=True`：开头的 K = `prefix` 个位置各有自己的特征，h 是 (B, K, D)，同一个线性层用在每一个上。图画的
    每一格就这样成为句子前面的一个“词”：

    **A prefix**, with `one_each=True`: each of the first K = `prefix` places has a feature of its own, h is (B, K, D),
    and the same linear layer serves all. In this way each cell of a picture becomes a "word" in front of the sentence:

    $$x = [W v_1 + b; \dots; W v_K + b; E y_0; \dots; E y_{L-1}] + P, \quad
    p(y \mid v) = \prod_{l=1}^{L} p(y_l \mid v, y_0, \dots, y_{l-1}) \tag{5.1}$$

    | 符号 symbol | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|---|
    | $v$ | `h` | (B, K, D) | 每格的特征 / the feature of each cell |
    | $W$, $b$ | `open.weight`, `open.bias` | (W, D), (W,) | 把特征变成前缀 / turn features into a prefix |
    | $E$ | `embed` | (V + starts, W) | 词元表 / the table of tokens |
    | $P$ | `place` | (K + L, W) | 每个位置自己的一行 / one row for every place |
    | $y$ | `tokens` | (B, L + 1) | 起始词元、词、结束 / start token, words, end |

    Raises: TypeError / ValueError 大小、h 或词元不符 / for a wrong size, h or token.
    Paper: Vaswani et al. 2017, Attention Is All You Need; Press and Wolf 2017, Using the Output Embedding to Improve
    Language Models; Mokady et al. 2021, ClipCap; Tsimpoukelli et al. 2021, Multimodal Few-Shot Learning with Frozen
    Language Models; Liu et al. 2023, Visual Instruction Tuning.
    """

    def __init__(self, vocabulary: int, feature_dim: int, starts: int = 2, width: int = 64, layers: int = 1,
                 heads: int = 2, prefix: int = 1, max_tokens: int = 16, pad: int = 0, end: int = 3,
                 one_each: bool = False):
        super().__init__()
        for value, name in ((vocabulary, "vocabulary"), (feature_dim, "feature_dim"), (starts, "starts"),
                            (width, "width"), (layers, "layers"), (heads, "heads"), (prefix, "prefix"),
                            (max_tokens, "max_tokens")):
            checks.whole(value, name)
        checks.require(width % heads == 0, f"width 需要是 heads 的倍数，收到 {width} 和 {heads}",
                       f"width must be a multiple of heads, got {width} and {heads}")
        checks.require(0 <= pad < vocabulary and 0 <= end < vocabulary,
                       f"pad 和 end 需要在词表里（0 到 {vocabulary - 1}），收到 {pad} 和 {end}",
                       f"pad and end must be in the vocabulary (0 to {vocabulary - 1}), got {pad} and {end}")
        self.vocabulary, self.starts, self.prefix, self.max_tokens = vocabulary, starts, prefix, max_tokens
        self.pad, self.end = pad, end
        self.one_each = one_each
        self.open = nn.Linear(feature_dim, width if one_each else prefix * width)
        self.embed = nn.Embedding(vocabulary + starts, width)
        self.place = nn.Embedding(prefix + max_tokens, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.normalise = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        for table in (self.embed, self.place):
            nn.init.normal_(table.weight, std=width ** -0.5)  # so that a product with it starts near 1
        if one_each:  # what is in a cell must not drown which cell it is: W v starts no larger than E, and P above both
            nn.init.normal_(self.open.weight, std=(feature_dim * width) ** -0.5)
            nn.init.zeros_(self.open.bias)
            nn.init.normal_(self.place.weight, std=4 * width ** -0.5)

    def start(self, which: Tensor) -> Tensor:
        """起始词元的编号 / The ids of start tokens: (B,), 0 ≤ which < starts → (B, 1)."""
        checks.require(isinstance(which, Tensor) and which.dtype == torch.int64 and which.ndim == 1
                       and bool(((which >= 0) & (which < self.starts)).all()),
                       f"which 需要是 0 到 {self.starts - 1} 的 int64 张量 (B,)",
                       f"which must be an int64 tensor (B,) of numbers from 0 to {self.starts - 1}")
        return which.unsqueeze(1) + self.vocabulary

    def forward(self, h: Tensor, tokens: Tensor) -> Tensor:
        self._check_h(h)
        self.check_tokens(tokens, len(h))
        b, width = len(h), self.embed.embedding_dim
        x = torch.cat([self.open(h).view(b, self.prefix, width), self.embed(tokens)], 1)  # (B, prefix + L, W)
        x = x + self.place.weight[:x.shape[1]]
        for block in self.blocks:
            x = block(x)
        x = self.normalise(x[:, self.prefix:])  # (B, L, W)
        return F.linear(x, self.embed.weight[:self.vocabulary], self.bias)  # (B, L, V)

    def check_tokens(self, tokens: Tensor, b: int) -> None:
        """`forward` 能读这 b 行词元吗 / Whether `forward` can read these b rows of tokens.

        Raises: TypeError / ValueError 不能 / if not.
        """
        check_tokens(tokens, b)
        checks.require(1 <= tokens.shape[1] <= self.max_tokens,
                       f"需要 1 到 {self.max_tokens} 个词元，收到 {tokens.shape[1]} 个",
                       f"expected 1 to {self.max_tokens} tokens, got {tokens.shape[1]}")
        checks.require(bool(((tokens >= 0) & (tokens < self.vocabulary + self.starts)).all()),
                       f"词元编号需要在 0 到 {self.vocabulary + self.starts - 1} 之间",
                       f"token ids must lie between 0 and {self.vocabulary + self.starts - 1}")

    def generate(self, h: Tensor, which: Tensor, temperature: float = 0.0,
                 generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """一个词元一个词元地写 / Write token by token: h, which (B,) → tokens (B, ≤ max_tokens), p of the same shape.

        h 是 (B, D)，`one_each=True` 时是 (B, K, D)。

        h is (B, D), or (B, K, D) with `one_each=True`.

        温度 0 每次取最可能的（贪心）；大于 0 时把 logits 除以它再抽签，用 `generator` 的随机数。写出 `end` 就停，后面
        补齐。p 是每个词元被选中时的概率（除以温度之前），补齐处是 1。

        A temperature of 0 takes the most probable token each time (greedy); above 0 the logits are divided by it and a
        token is drawn with the random numbers of `generator`. A row stops once it has written `end` and is padded. p is
        the probability of each token when it was chosen (before the temperature), 1 at padding.

        Raises: TypeError / ValueError h、起始词元或温度不符，或要抽签而没有 `generator` / for a wrong h, start token or
        temperature, or if tokens are to be drawn without a `generator`.
        """
        if temperature != 0:
            checks.positive(temperature, "temperature")
            checks.require(isinstance(generator, torch.Generator), "temperature 大于 0 时需要 generator",
                           "a temperature above 0 needs a generator", TypeError)
        self._check_h(h)
        tokens = self.start(which)
        checks.require(len(tokens) == len(h), f"which 需要 {len(h)} 个，收到 {len(tokens)} 个",
                       f"which must have {len(h)} entries, got {len(tokens)}")
        written, chances = [], []
        done = torch.zeros(len(h), dtype=torch.bool, device=h.device)
        with torch.no_grad():
            for _ in range(self.max_tokens):
                logits = self(h, tokens)[:, -1]  # (B, V)
                token = logits.argmax(1) if temperature == 0 else _draw(logits / temperature, generator)
                p = logits.softmax(1).gather(1, token.unsqueeze(1)).squeeze(1)
                written.append(token.masked_fill(done, self.pad))
                chances.append(p.masked_fill(done, 1.0))
                done = done | (token == self.end)
                if bool(done.all()):
                    break
                tokens = torch.cat([tokens, token.unsqueeze(1)], 1)
        return torch.stack(written, 1), torch.stack(chances, 1)


    def search(self, h: Tensor, which: Tensor, beams: int = 4, length_power: float = 0.0) -> tuple[Tensor, Tensor]:
        """用 `beam_search` 写 / Write by `beam_search`: (B, …), (B,) → tokens (B, beams, ≤ max_tokens), s (B, beams).

        Raises: TypeError / ValueError h、起始词元、`beams` 或 λ 不符 / for a wrong h, start token, `beams` or λ.
        """
        checks.whole(beams, "beams")
        self._check_h(h)
        start = self.start(which)
        checks.require(len(start) == len(h), f"which 需要 {len(h)} 个，收到 {len(start)} 个",
                       f"which must have {len(h)} entries, got {len(start)}")
        wide = h.repeat_interleave(beams, 0)
        with torch.no_grad():
            return beam_search(lambda tokens: self(wide, tokens)[:, -1].log_softmax(1), start, self.max_tokens, beams,
                               length_power, self.pad, self.end)

    def _check_h(self, h: Tensor) -> None:
        if not self.one_each:
            checks.matrix(h, "h", columns=self.open.in_features)
            return
        checks.require(isinstance(h, Tensor) and h.is_floating_point(), "h 需要是浮点张量",
                       "h must be a floating tensor", TypeError)
        wanted = self.prefix, self.open.in_features
        checks.require(h.ndim == 3 and tuple(h.shape[1:]) == wanted,
                       f"h 需要形状 (*, {wanted[0]}, {wanted[1]})，收到 {checks.shape_of(h)}",
                       f"h must have shape (*, {wanted[0]}, {wanted[1]}), got {checks.shape_of(h)}")


class _Block(nn.Module):
    """注意力，再加两层的网络 / Attention, then a network of two layers."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.before_attention, self.before_network = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.network = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, length, width = x.shape
        q, k, v = self.qkv(self.before_attention(x)).view(b, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)  # (B, heads, length, W / heads)
        x = x + self.out(seen.transpose(1, 2).reshape(b, length, width))
        return x + self.network(self.before_network(x))


def _draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    p = logits.softmax(1).to(generator.device)
    return torch.multinomial(p, 1, generator=generator).squeeze(1).to(logits.device)


def check_tokens(tokens: Tensor, b: int, length: int | None = None) -> None:
    """b 行词元编号 / b rows of token ids; raises TypeError / ValueError 不是 / if they are not."""
    checks.require(isinstance(tokens, Tensor) and tokens.dtype == torch.int64, "tokens 需要是 int64 张量",
                   "tokens must be an int64 tensor", TypeError)
    checks.require(tokens.ndim == 2 and len(tokens) == b and length in (None, tokens.shape[1]),
                   f"tokens 需要形状 ({b}, {length or '*'})，收到 {checks.shape_of(tokens)}",
                   f"tokens must have shape ({b}, {length or '*'}), got {checks.shape_of(tokens)}")
