r"""小小的因果解码器：一个词一个词地写 / A small causal decoder: it writes one token at a time.

Letters: B batch, L tokens, V vocabulary, D feature width, W decoder width, K prefix. What does not fit is refused.

字母：B 批，L 词元，V 词表大小，D 特征宽度，W 解码器宽度，K 前缀。不符时报错。
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcore import checks
from mmcore.checks import refuse, shapes
from mmcore.training import Bounded


@shapes(logits="B L V", tokens="int64 B length")
def generation_loss(logits: Tensor, tokens: Tensor, pad: int = 0) -> Tensor:
    r"""生成损失，(1.4) 的第三项 / The loss of generation, the third term of (1.4): (B, L, V), (B, L + 1) → ().

    $$L_{\mathrm{generation}} = -\frac{1}{\sum_n L_n} \sum_{n=1}^{B} \sum_{l=1}^{L_n}
    \log p(y_{n,l} \mid h_n, y_{n,0}, \dots, y_{n,l-1})$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $y$ | `tokens` | (B, length) | start, name, end, padding; length is L + 1 | 起始、名字、结束、填充；长 L + 1 |
    | $p$ | `logits.softmax(-1)` | (B, L, V) | probability of the next token | 下一个词元的概率 |
    | $L_n$ | | | how many real tokens row n has to write | 第 n 行要写的真词元数 |

    Each position asks: given h and the tokens before, how probable is the true next token? Guessing blindly gives ln V.

    每个位置都问：给定 h 和前面的词元，真正的下一个词元有多大概率？填充不算。全凭猜测是 ln V。

    >>> blind = torch.zeros(1, 2, 9)  # nine tokens, all alike: ln 9
    >>> generation_loss(blind, torch.tensor([[8, 4, 3]]))
    tensor(2.1972)
    """
    checks.fits(tokens, "tokens", "int64 B length", B=len(logits), length=logits.shape[1] + 1)
    wanted = tokens[:, 1:]
    real = wanted != checks.whole(pad, "pad", 0)
    if not bool(real.any()):  # the mean of nothing would be NaN
        refuse("没有一个要写的词元，全是填充", "there is no token to write, all is padding")
    checks.classes(wanted[real], "tokens", int(real.sum()), logits.shape[2])
    return F.cross_entropy(logits[real], wanted[real])  # of the real tokens only: half the time of ignoring the others


@shapes(start="int64 B 1", least={"B": 1})
def beam_search(next_log_p: Callable[[Tensor], Tensor], start: Tensor, most: int, beams: int = 4,
                length_power: float = 0.0, pad: int = 0, end: int = 3) -> tuple[Tensor, Tensor]:
    r"""束搜索：同时写几句，留下最好的几句 / Beam search: write several texts at once and keep the best.

    $$\hat{y} = \arg\max_y\, s(y), \qquad
    s(y) = \frac{1}{L^{\lambda}} \sum_{l=1}^{L} \log p(y_l \mid v, y_0, \dots, y_{l-1}) \tag{5.2}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $\log p$ | `next_log_p(tokens)` | (B · beams, V) | log probability of the next token | 下一个词元的对数概率 |
    | $y_0$ | `start` | (B, 1) | start tokens | 起始词元 |
    | $L$ | | | how many tokens were written, the end included, `most` at most | 写了几个词元，连结束在内，至多 `most` |
    | $\lambda$ | `length_power` | | 0: probability itself; 1: the mean per token | 0：概率本身；1：每个词元的平均 |
    | $s$ | second result | (B, beams) | scores, from the best down | 得分，从高到低 |

    Greedy writing keeps one text and cannot take back a first word; beam search keeps the `beams` best at each step,
    finished ones among them. A probability is a product of many numbers below 1, which favours short texts; λ above 0
    makes up for that. `next_log_p` is given tokens (B · beams, l), the texts of one row together. Returns tokens
    (B, beams, ≤ most) and s, −∞ for no text.

    贪心每一步只留一句，所以第一个词选错就回不来；束搜索每一步留下得分最高的 `beams` 句，写完的也在其中。概率是许多小于
    1 的数相乘，句子越短越占便宜；λ 大于 0 就是在补偿。`next_log_p` 收到 (B · beams, l) 的词元，第 n 行的几句在一起。
    返回词元 (B, beams, ≤ most) 和 s；不够的得分是 −∞。

    Paper: Sutskever et al. 2014, Sequence to Sequence Learning; Wu et al. 2016, Google's NMT (division by length).

    >>> always = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()  # token 3 is the end
    >>> beam_search(lambda tokens: always.expand(len(tokens), -1), torch.tensor([[1]]), most=2, beams=2)[0].tolist()
    [[[3, 0], [2, 3]]]
    """
    most, beams = checks.whole(most, "most"), checks.whole(beams, "beams")
    length_power = checks.not_negative(length_power, "length_power")
    n, device = len(start), start.device
    tokens = start.repeat_interleave(beams, 0)  # (B · beams, 1): the texts so far
    total = torch.full((n, beams), -torch.inf, device=device)  # Σ log p
    total[:, 0] = 0.0  # all beams start alike: one is enough
    length = torch.zeros(n, beams, dtype=torch.long, device=device)
    done = torch.zeros(n, beams, dtype=torch.bool, device=device)
    for _ in range(most):
        log_p = next_log_p(tokens)
        checks.fits(log_p, "next_log_p", "N V", N=len(tokens))
        checks.ranked(log_p, "next_log_p")
        pad, end = (checks.index(x, name, log_p.shape[1]) for x, name in ((pad, "pad"), (end, "end")))
        log_p = log_p.view(n, beams, -1)  # (B, beams, V)
        stay = torch.full_like(log_p, -torch.inf)
        stay[..., pad] = 0.0  # a finished text goes on as it is, and in one way only
        new_total = total.to(log_p).unsqueeze(2) + torch.where(done.unsqueeze(2), stay, log_p)
        new_length = length + ~done
        s = new_total / new_length.to(log_p).unsqueeze(2) ** length_power
        s, best = s.flatten(1).topk(beams, 1)  # (B, beams), the best of all beams · V
        parent, token = best // log_p.shape[2], best % log_p.shape[2]
        total, length = new_total.flatten(1).gather(1, best), new_length.gather(1, parent)
        done = done.gather(1, parent) | (token == end)
        rows = parent + beams * torch.arange(n, device=device).unsqueeze(1)
        tokens = torch.cat([tokens[rows.flatten()], token.view(-1, 1)], 1)
        if bool(done.all()):
            break
    return tokens[:, 1:].view(n, beams, -1), s


class CausalDecoder(nn.Module):
    r"""因果解码器 / Causal decoder: p(next token | h, tokens before).

    $$x = [W v_1 + b; \dots; W v_K + b; E y_0; \dots; E y_{L-1}] + P, \quad
    p(y \mid v) = \prod_{l=1}^{L} p(y_l \mid v, y_0, \dots, y_{l-1}) \tag{5.1}$$

    | symbol | name | shape | meaning | 含义 |
    |---|---|---|---|---|
    | $v$ | `h` | (B, K, D) | the feature of each cell | 每格的特征 |
    | $W$, $b$ | `open.weight`, `open.bias` | (W, D), (W,) | turn features into a prefix | 把特征变成前缀 |
    | $E$ | `embed` | (V + starts, W) | the table of tokens | 词元表 |
    | $P$ | `positions` | (K + L, W) | one row for every position | 每个位置自己的一行 |
    | $y$ | `tokens` | (B, L + 1) | start token, words, end | 起始词元、词、结束 |

    A linear layer turns h into the first K = `prefix` positions, and the tokens follow; each position sees itself and
    those before it. One table of tokens serves input and output. The `starts` start tokens (one for each language, say)
    come after the vocabulary: they begin a text and can never be written. `forward(h, tokens)`: (B, D), (B, L) → logits
    (B, L, V), where position l predicts token l + 1. With `one_each=True` h is (B, K, D), as in (5.1).

    一个线性层把 h 变成开头的 K = `prefix` 个位置，词元跟在后面；每个位置只看见自己和前面的。输入和输出共用一张词元表。
    `starts` 个起始词元（例如每种语言一个）排在词表之后：它们只用来开头，永远写不出来。`forward(h, tokens)`：(B, D)，
    (B, L) → logits (B, L, V)，第 l 个位置预测第 l + 1 个词元。`one_each=True` 时，h 是 (B, K, D)，如 (5.1)。

    Paper: Vaswani et al. 2017, Attention Is All You Need; Press and Wolf 2017, Using the Output Embedding to Improve
    Language Models; Mokady et al. 2021, ClipCap; Tsimpoukelli et al. 2021, Multimodal Few-Shot Learning with Frozen
    Language Models; Liu et al. 2023, Visual Instruction Tuning.

    >>> decoder = CausalDecoder(vocabulary=9, feature_dim=5)
    >>> decoder(torch.ones(2, 5), torch.tensor([[9, 4, 7], [10, 4, 7]])).shape  # from start token 0, and from 1
    torch.Size([2, 3, 9])
    """

    def __init__(self, vocabulary: int, feature_dim: int, starts: int = 2, width: int = 64, layers: int = 1,
                 heads: int = 2, prefix: int = 1, max_tokens: int = 16, pad: int = 0, end: int = 3,
                 one_each: bool = False):
        super().__init__()
        self.vocabulary, self.starts = checks.whole(vocabulary, "vocabulary"), checks.whole(starts, "starts")
        self.prefix, self.max_tokens = checks.whole(prefix, "prefix"), checks.whole(max_tokens, "max_tokens")
        self.feature_dim, width = checks.whole(feature_dim, "feature_dim"), checks.whole(width, "width", 3)
        layers, heads = checks.whole(layers, "layers"), checks.whole(heads, "heads")
        if width % heads:
            refuse(f"width 需要是 heads 的倍数，收到 {width} 和 {heads}",
                   f"width must be a multiple of heads, got {width} and {heads}")
        self.pad, self.end = (checks.index(x, name, self.vocabulary) for x, name in ((pad, "pad"), (end, "end")))
        self.one_each = one_each
        self.open = Bounded(self.feature_dim, width if one_each else self.prefix * width)
        self.embed = nn.Embedding(self.vocabulary + self.starts, width)
        self.positions = nn.Embedding(self.prefix + self.max_tokens, width)
        self.blocks = nn.ModuleList(_Block(width, heads) for _ in range(layers))
        self.normalise = nn.LayerNorm(width)
        self.bias = nn.Parameter(torch.zeros(self.vocabulary))
        for table in (self.embed, self.positions):
            nn.init.normal_(table.weight, std=width ** -0.5)  # so that a product with it starts near 1
        if one_each:  # what is in a cell must not drown which cell it is: W v starts no larger than E, and P above both
            nn.init.normal_(self.open.weight, std=(self.feature_dim * width) ** -0.5)
            nn.init.zeros_(self.open.bias)
            nn.init.normal_(self.positions.weight, std=4 * width ** -0.5)

    @shapes(own="K=prefix D=feature_dim", like="open.weight", h="B D / B K D", tokens="int64 B L")
    def forward(self, h: Tensor, tokens: Tensor) -> Tensor:
        self._check_h(h)
        self.check_tokens(tokens)
        return self.logits(h, tokens)

    def logits(self, h: Tensor, tokens: Tensor) -> Tensor:
        """检查过的 h 和词元 → 得分 / h and tokens that have been checked → logits: what `forward` does."""
        x = torch.cat([self.open(h).view(len(h), self.prefix, self.embed.embedding_dim),
                       self.embed(tokens)], 1)  # (B, K + L, W)
        x = x + self.positions.weight[:x.shape[1]]
        for block in self.blocks:
            x = block(x)
        x = self.normalise(x[:, self.prefix:])  # (B, L, W)
        return F.linear(x, self.embed.weight[:self.vocabulary], self.bias)  # (B, L, V)

    @shapes(which="int64 B")
    def start(self, which: Tensor) -> Tensor:
        """起始词元的编号 / The ids of start tokens: (B,), 0 ≤ which < starts → (B, 1)."""
        if not bool(((which >= 0) & (which < self.starts)).all()):
            refuse(f"which 需要在 0 到 {self.starts - 1} 之间", f"which must hold numbers from 0 to {self.starts - 1}")
        return which.unsqueeze(1) + self.vocabulary

    def check_tokens(self, tokens: Tensor) -> None:
        """`forward` 对词元的要求；看数值 / What `forward` asks of tokens beyond their shape; their values are read."""
        if not 1 <= tokens.shape[1] <= self.max_tokens:
            refuse(f"需要 1 到 {self.max_tokens} 个词元，收到 {tokens.shape[1]} 个",
                   f"expected 1 to {self.max_tokens} tokens, got {tokens.shape[1]}")
        known = self.vocabulary + self.starts
        if not bool(((tokens >= 0) & (tokens < known)).all()):  # a number outside the table would crash a GPU
            refuse(f"词元编号需要在 0 到 {known - 1} 之间", f"token ids must lie between 0 and {known - 1}")

    @torch.no_grad()
    @shapes(own="K=prefix D=feature_dim", like="open.weight", h="B D / B K D", which="int64 B")
    def generate(self, h: Tensor, which: Tensor, temperature: float = 0.0,
                 generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """一个词元一个词元地写 / Write token by token: h, which (B,) → tokens (B, ≤ max_tokens), p of the same shape.

        A temperature of 0 takes the most probable token each time (greedy); above 0 the logits are divided by it and a
        token is drawn with `generator`. A row stops once it has written `end` and is padded. p is the probability of
        each token when it was chosen (before the temperature), 1 at padding.

        温度 0 每次取最可能的（贪心）；大于 0 时把 logits 除以它再采样，用 `generator` 的随机数。写出 `end` 就停，后面
        填充。p 是每个词元被选中时的概率（除以温度之前），填充处是 1。
        """
        temperature = checks.not_negative(temperature, "temperature")
        if temperature and generator is None:
            refuse("temperature 大于 0 时需要 generator", "a temperature above 0 needs a generator", TypeError)
        self._check_h(h)
        tokens = self.start(which)
        written, chances = [], []
        done = torch.zeros(len(h), dtype=torch.bool, device=h.device)
        for _ in range(self.max_tokens):
            logits = self.logits(h, tokens)[:, -1]  # (B, V)
            checks.ranked(logits, "logits")
            token = logits.argmax(1) if temperature == 0 else _draw(logits, temperature, generator)
            p = logits.softmax(1).gather(1, token.unsqueeze(1)).squeeze(1)
            written.append(token.masked_fill(done, self.pad))
            chances.append(p.masked_fill(done, 1.0))
            done = done | (token == self.end)
            if bool(done.all()):
                break
            tokens = torch.cat([tokens, token.unsqueeze(1)], 1)
        return torch.stack(written, 1), torch.stack(chances, 1)

    @torch.no_grad()
    @shapes(own="K=prefix D=feature_dim", like="open.weight", h="B D / B K D", which="int64 B")
    def search(self, h: Tensor, which: Tensor, beams: int = 4, length_power: float = 0.0) -> tuple[Tensor, Tensor]:
        """用 `beam_search` 写 / Write by `beam_search`: h, which → tokens (B, beams, ≤ max_tokens), s (B, beams)."""
        self._check_h(h)
        wide = h.repeat_interleave(checks.whole(beams, "beams"), 0)
        return beam_search(lambda tokens: self.logits(wide, tokens)[:, -1].log_softmax(1), self.start(which),
                           self.max_tokens, beams, length_power, self.pad, self.end)

    def _check_h(self, h: Tensor) -> None:
        checks.fits(h, "h", "B K D" if self.one_each else "B D", K=self.prefix, D=self.feature_dim)


class _Block(nn.Module):
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


def _draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    low = logits - logits.amax(1, keepdim=True)  # the largest is 0 then, and cannot overflow however cold it is
    p = (low / max(temperature, torch.finfo(low.dtype).tiny)).softmax(1).to(generator.device)
    return torch.multinomial(p, 1, generator=generator).squeeze(1).to(logits.device)
