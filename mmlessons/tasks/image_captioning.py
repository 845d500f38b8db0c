r"""看图说话 / Image captioning.

图画切成四格，每格一个视觉特征 (1.1)；四个特征排在句子前面，成为解码器的前缀 (5.1)，句子一个词元一个词元地接在后面。
用哪种语言、按哪种次序说，由起始词元决定。

The picture is cut into four cells with a visual feature each (1.1); the four features stand in front of the sentence,
the prefix of the decoder (5.1), and the sentence follows token by token. The start token says in which language and in
which order to speak.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks
from mmcore import tokens as text
from mmcore.decoder import CausalDecoder, generation_loss
from mmcore.encoders import VisualEncoder
from mmcore.training import check_steps_left, choose_device, evaluating, make_optimizer, one_cycle, seeded, train_on
from mmlessons.data import scenes
from mmlessons.data.augment import augment

FEATURE_DIM, WIDTH = 128, 96
MAX_TOKENS = 32
NAMING_STEPS, CAPTION_STEPS = 300, 1000
BATCH = 24
RATES = 6e-3, 4e-3  # of the encoder, of the decoder
DECAY = 0.3, 0.02  # the same
SMOOTHING = 0.1  # of the names in the first stage: surer is not better with an unseen artist
NOISE = 1.0  # on the features in the second stage, which vary by about 1: an unseen artist's lie elsewhere
BETAS = 0.9, 0.95  # of the decoder's AdamW: few steps, so that old gradients had better be forgotten sooner
DRAWINGS = 4  # of every thing in one step of naming
COMPARED = 100  # captions of an exam that chrF looks at: those that are wrong have to be written for it
KEPT = 96  # drawings of every thing whose features the second stage draws from
STARTS = [(language, order) for order in scenes.ORDERS for language in scenes.LANGUAGES]
TEMPERATURES = 0.5, 1.0, 2.0
VARIANTS = {  # what a training of the lesson differs in
    "two stages": {},
    "one stage": {"naming_steps": 0, "caption_steps": 900},  # 33 s of one thread; both stages together: 31 s
    "blind": {"withhold": 1.0, "naming_steps": 1, "caption_steps": 200},  # what it could name, it never sees
}
_NAMES = re.compile("|".join(
    [thing.zh for thing in scenes.THINGS] + [rf"\b{thing.en}\b" for thing in scenes.THINGS]))
EXAMS = {"two stages": ("known", "known new", "validation", "test", "test new", "shift"),
         "one stage": ("known", "test"), "blind": ("known", "test")}


class CaptioningModel(nn.Module):
    """看图说话的模型 / The model that describes.

    `forward(image, tokens)` 返回有名字的张量 / returns named tensors:

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `f_v` | (B, 4, D) | 每格的视觉特征，就是 (5.1) 的 v / visual features of the cells, the v of (5.1) |
    | `z` | (B, 4, 31) | 每格是哪样东西，最后一个是空 / which thing is in every cell, the last one is none |
    | `logits` | (B, L, V) | 下一个词元的得分 / scores of the next token |

    `tokens` 见 `tokens_of`：起始词元、词、结束、补齐 / for `tokens` see `tokens_of`: start, words, end, padding.
    """

    def __init__(self, feature_dim: int = FEATURE_DIM, width: int = WIDTH, tokenizer: Tokenizer | None = None):
        super().__init__()
        self.tokenizer = tokenizer or make_tokenizer()
        self.visual_encoder = VisualEncoder(feature_dim)
        self.namer = nn.Linear(feature_dim, len(scenes.THINGS) + 1)
        self.decoder = CausalDecoder(
            self.tokenizer.get_vocab_size(), feature_dim, starts=len(STARTS), width=width, layers=2, heads=6,
            prefix=scenes.CELLS, max_tokens=MAX_TOKENS, one_each=True)

    def forward(self, image: Tensor, tokens: Tensor) -> dict[str, Tensor]:
        f_v = self.see(image)
        return {"f_v": f_v, "z": self.namer(f_v), "logits": self.decoder(f_v, tokens)}

    def see(self, image: Tensor) -> Tensor:
        """整幅图画的四个特征 / The four features of whole pictures: (B, 3, 64, 64) → (B, 4, D)."""
        return self.visual_encoder(scenes.split(image).flatten(0, 1)).view(len(image), scenes.CELLS, -1)

    def look(self, picture: Tensor | None) -> Tensor:
        """一幅图画的特征；不给图画，全是 0 / The features of one picture, all 0 without one: (3, 64, 64) → (1, 4, D).

        Raises: TypeError 图画不是 uint8 / if the picture is not uint8.
        """
        device = next(self.parameters()).device
        if picture is None:
            return torch.zeros(1, scenes.CELLS, self.namer.in_features, device=device)
        checks.require(isinstance(picture, Tensor) and picture.dtype == torch.uint8, "picture 需要是 uint8 张量",
                       "picture must be a uint8 tensor", TypeError)
        with evaluating(self):
            return self.see(picture[None].to(device) / 255)

    def start(self, language: str, order: str = "reading") -> Tensor:
        """哪个起始词元 / Which start token: (1,).

        Raises: ValueError 语言或次序未知 / for an unknown language or order.
        """
        checks.one_of(language, "language", scenes.LANGUAGES)
        checks.one_of(order, "order", scenes.ORDERS)
        return torch.tensor([STARTS.index((language, order))], device=next(self.parameters()).device)

    def say(self, f_v: Tensor, language: str, order: str = "reading", temperature: float = 0.0,
            generator: torch.Generator | None = None) -> "Said":
        """看着特征说一句，贪心或抽签 / Say a sentence for features (1, 4, D): greedily, or by drawing as in `generate`.

        Raises: TypeError / ValueError 语言、次序、特征或温度不符 / for a wrong language, order, feature or temperature.
        """
        start = self.start(language, order)
        return self._said(f_v, start, self.decoder.generate(f_v, start, temperature, generator)[0])[0]

    def choices(self, f_v: Tensor, language: str, order: str = "reading", beams: int = 4,
                length_power: float = 0.0) -> list["Said"]:
        """束搜索找到的几句，最好的在前 / The sentences that beam search (5.2) finds, the best first.

        Raises: TypeError / ValueError 语言、次序、特征、`beams` 或 λ 不符 / for a wrong language, order, feature,
        number of beams or λ.
        """
        start = self.start(language, order)
        return self._said(f_v, start, self.decoder.search(f_v, start, beams, length_power)[0][0])

    def _said(self, f_v: Tensor, start: Tensor, tokens: Tensor) -> list["Said"]:
        given = torch.cat([self.decoder.start(start).expand(len(tokens), -1), tokens], 1)
        with evaluating(self):
            p = self.decoder(f_v.expand(len(tokens), -1, -1), given[:, :-1]).softmax(2)  # (beams, L, V)
        own = p.gather(2, tokens.unsqueeze(2)).squeeze(2)
        rival, other = p.scatter(2, tokens.unsqueeze(2), 0.0).max(2)
        found = []
        for row, line in enumerate(tokens.tolist()):
            end = line.index(self.decoder.end) + 1 if self.decoder.end in line else len(line)
            steps = [(self._word(line[k]), own[row, k].item(), self._word(int(other[row, k])), rival[row, k].item())
                     for k in range(end)]
            found.append(Said(self.spell(tokens[row]), own[row, :end].log().sum().item(), steps))
        return found

    def _word(self, token: int) -> str:
        return "■" if token == self.decoder.end else self.tokenizer.id_to_token(token)

    def words(self, tokens: Tensor) -> list[str]:
        """词元 → 词和字，到结束为止 / Tokens → words and characters, up to the end."""
        found = []
        for token in tokens.tolist():
            if token == self.decoder.end:
                break
            found.append(self.tokenizer.id_to_token(token))
        return [word for word in found if word != text.PAD]

    def spell(self, tokens: Tensor) -> str:
        """词元 → 一句话 / Tokens → a sentence: Chinese without spaces, English with a capital."""
        line = re.sub(r"(?<=[一-鿿，。]) | (?=[一-鿿，。,.])", "", " ".join(self.words(tokens)))
        return line[:1].upper() + line[1:]


@dataclass(frozen=True)
class Said:
    """说的一句话 / A sentence: its log probability, and for each token its p, its likeliest rival and the rival's p.

    最后一个词元是结束，写作 ■ / The last token is the end, written ■.
    """

    sentence: str
    log_p: float
    steps: list[tuple[str, float, str, float]]


def make_tokenizer() -> Tokenizer:
    """认得说明里每个词的分词器 / A tokenizer that knows every word of the captions."""
    return text.build_tokenizer(scenes.every_word())


def captions_of(drawn: Mapping[str, Tensor]) -> list[str]:
    """`draw_to_describe` 的每个场景该怎样说 / What is to be said of each scene of `draw_to_describe`."""
    columns = (drawn[name].tolist() for name in ("cells", "language", "order"))
    return [scenes.caption(cells, scenes.LANGUAGES[language], scenes.ORDERS[order])
            for cells, language, order in zip(*columns, strict=True)]


def tokens_of(model: CaptioningModel, drawn: Mapping[str, Tensor]) -> Tensor:
    """每个场景的起始词元、词、结束、补齐 / Start token, words, end and padding of every scene: (N, L + 1)."""
    tokens = torch.tensor([row.ids for row in model.tokenizer.encode_batch(captions_of(drawn))])
    tokens[:, :1] = model.decoder.start(drawn["language"] + len(scenes.LANGUAGES) * drawn["order"])
    return tokens


class CaptioningTrainer:
    """用场景数据分两段训练 / Trains on the scenes, in two stages.

    第一段 `naming_steps` 步，编码器学说出每一格是什么（30 样东西或空格）；第二段 `caption_steps` 步，编码器不再改变，
    解码器学说话。编码器不变，特征就只需算一次：每样东西 `KEPT` 幅随机变化过的画，存下特征，每一步从里面拼场景；再加
    一点噪声，因为没见过的作者的特征会落在别处。`naming_steps=0` 只有一段：编码器和解码器一起，从头跟着说明学。

    In the first stage, of `naming_steps`, the encoder learns to say what is in a cell (one of 30 things, or nothing);
    in the second, of `caption_steps`, it rests, and the decoder learns to speak. As the encoder rests, features need to
    be computed once only: those of `KEPT` drawings of each thing, changed at random, from which each step puts its
    scenes together, with some noise, since the features of an unseen artist lie elsewhere. `naming_steps=0` is a single
    stage: encoder and decoder learn together, from captions alone.

    Raises: TypeError / ValueError 个数不对 / for a wrong number.
    """

    def __init__(self, naming_steps: int = NAMING_STEPS, caption_steps: int = CAPTION_STEPS, seed: int = 0,
                 batch: int = BATCH, device: str | torch.device | None = None):
        for value, name, least in ((naming_steps, "naming_steps", 0), (caption_steps, "caption_steps", 1),
                                   (batch, "batch", 2), (seed, "seed", 0)):
            checks.whole(value, name, least)
        self.naming_steps, self.caption_steps, self.seed, self.batch = naming_steps, caption_steps, seed, batch
        self.device = choose_device(device)
        self.data = scenes.load("train")
        self.tiles = self.data.with_empty
        self.tokenizer = make_tokenizer()
        self.reset()

    @property
    def steps(self) -> int:
        """两段一共几步 / The steps of both stages."""
        return self.naming_steps + self.caption_steps

    @property
    def naming(self) -> bool:
        """还在第一段吗 / Is this still the first stage?"""
        return self._done < self.naming_steps

    def reset(self) -> None:
        """新的模型，新的优化器，同样的随机数 / A new model, new optimisers, the same random numbers."""
        with seeded(self.seed):
            self.model = CaptioningModel(tokenizer=self.tokenizer).to(self.device)
        self.generator = torch.Generator().manual_seed(self.seed)
        self.eyes = nn.ModuleList([self.model.visual_encoder, self.model.namer])
        self.see_optimizer = make_optimizer(self.eyes, RATES[0], DECAY[0])
        self.say_optimizer = make_optimizer(self.model.decoder, RATES[1], DECAY[1])
        for group in self.say_optimizer.param_groups:
            group["betas"] = BETAS
        if self.naming_steps == 0:  # a single stage: the eyes learn while it speaks, in their own way
            for group in self.see_optimizer.param_groups:
                own = {name: group[name] for name in ("params", "lr", "weight_decay", "betas")}
                self.say_optimizer.add_param_group(own)
        self.see_schedule = one_cycle(self.see_optimizer, max(1, self.naming_steps))
        self.say_schedule = one_cycle(self.say_optimizer, self.caption_steps)
        self._done, self._features = 0, None

    def state_dict(self) -> dict[str, object]:
        """学到的一切和走到了哪里，可以存下 / All that is learned and how far it came, to be kept."""
        return {name: part.state_dict() for name, part in self._parts.items()} | {"done": self._done}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """放回 `state_dict` 给的 / Put back what `state_dict` gave."""
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        self._done, self._features = state["done"], None

    @property
    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler]:
        return {"model": self.model, "see_optimizer": self.see_optimizer, "see_schedule": self.see_schedule,
                "say_optimizer": self.say_optimizer, "say_schedule": self.say_schedule}

    def train_step(self, withhold: float = 0.0) -> dict[str, float]:
        """走一步 / Take one step: {"L_name", "L"} in the first stage, {"L_caption", "L"} in the second.

        `L` 是这一段的损失，两段共用一个名字 / `L` is the loss of the stage, one name for both.

        `withhold`：第二段里不给看图的场景占几成，它们的特征是 0。

        `withhold`: the share of scenes in the second stage whose picture is withheld: their features are 0.

        Raises: ValueError `withhold` 不在 0 与 1 之间，或步数走完了 / if `withhold` is not between 0 and 1, or all
        steps are done; FloatingPointError 损失不是有限数 / if the loss is not finite. The model stays as it was.
        """
        checks.share(withhold, "withhold")
        if self.naming:
            found = train_on(self.eyes, self.see_optimizer, self._naming_loss, "L_name")
            self.see_schedule.step()
        else:
            check_steps_left(self.say_schedule)
            found = self._describe(withhold)
        self._done += 1
        return found | {"L": next(iter(found.values()))}

    def _draw_tiles(self, drawings: int) -> tuple[Tensor, Tensor]:
        thing = torch.arange(self.tiles.shape[1]).repeat(drawings)
        artist = torch.randint(len(self.tiles), thing.shape, generator=self.generator)
        return augment(self.tiles[artist, thing] / 255, self.generator).to(self.device), thing.to(self.device)

    def _naming_loss(self) -> dict[str, Tensor]:
        tiles, thing = self._draw_tiles(DRAWINGS)
        z = self.model.namer(self.model.visual_encoder(tiles))
        return {"L_name": F.cross_entropy(z, thing, label_smoothing=SMOOTHING)}

    def _describe(self, withhold: float) -> dict[str, float]:
        drawn = self.data.draw_to_describe(self.batch, self.generator)
        tokens = tokens_of(self.model, drawn).to(self.device)
        blind = torch.rand(self.batch, generator=self.generator) < withhold
        learns_to_see = self.naming_steps == 0
        drawings = DRAWINGS // 2 if learns_to_see else KEPT
        which = torch.randint(drawings, drawn["cells"].shape, generator=self.generator)
        cells = (drawn["cells"] % self.tiles.shape[1] + self.tiles.shape[1] * which).to(self.device)
        tiles = self._draw_tiles(drawings)[0] if learns_to_see else None
        noise = torch.randn(*cells.shape, FEATURE_DIM, generator=self.generator).to(self.device)
        noise = noise * (0.0 if learns_to_see else NOISE)

        def losses() -> dict[str, Tensor]:
            f = self.model.visual_encoder(tiles) if learns_to_see else self._kept()
            h = (f[cells] + noise).masked_fill(blind.view(-1, 1, 1).to(self.device), 0.0)
            return {"L_caption": generation_loss(self.model.decoder(h, tokens[:, :-1]), tokens)}

        found = train_on(self.model if learns_to_see else self.model.decoder, self.say_optimizer, losses, "L_caption")
        self.say_schedule.step()
        return found

    def _kept(self) -> Tensor:
        """第二段用的特征，第一次用到时算 / The features of the second stage, computed when first needed."""
        if self._features is None:
            with evaluating(self.model):
                self._features = torch.cat([self.model.visual_encoder(self._draw_tiles(DRAWINGS)[0])
                                            for _ in range(KEPT // DRAWINGS)])
        return self._features

    def examine(self, data: scenes.Scenes, count: int = 400, pairs: str = "seen", blind: bool = False,
                seed: int = 12345, compared: int = COMPARED) -> dict[str, float]:
        """在重新抽的 `count` 个场景上的成绩，从 0 到 1 / Scores on `count` scenes drawn anew, from 0 to 1.

        | 名字 name | 含义 meaning |
        |---|---|
        | `named` | 几成的格认对了 / the share of cells named right |
        | `exact` | 贪心写出的与正确的一字不差 / what greedy writing gives is right to the letter |
        | `exact_named` | 同上，只算四格都认对的场景 / the same, of the scenes all of whose cells were named right |
        | `token` | 给定前面正确的词，下一个词对了几成 / the share of next words right, given the right ones before |
        | `chrf` | 前 `compared` 句的 `chrf` / `chrf` of the first `compared` captions |

        没有一个场景四格都认对，`exact_named` 就是 0；`compared` 是 0，就没有 `chrf`。`blind`：不给看图。同样的 `seed`
        是同样的考卷。

        Where no scene has all its cells named right, `exact_named` is 0; with `compared` 0 there is no `chrf`. With
        `blind` the pictures are withheld. The same `seed` is the same paper.
        """
        drawn = data.draw_to_describe(count, torch.Generator().manual_seed(seed), pairs)
        wanted, named, right, token = [], [], [], []
        written: list[str] = []
        with evaluating(self.model):
            for rows in torch.arange(count).split(250):
                part = {name: values[rows] for name, values in drawn.items()}
                tokens = tokens_of(self.model, part).to(self.device)
                f_v = self.model.see(data.pictures(part["cells"], part["artist"]).to(self.device) / 255)
                f_v = torch.zeros_like(f_v) if blind else f_v
                named.append(self.model.namer(f_v).argmax(2).cpu() == part["cells"] % self.tiles.shape[1])
                exact, hits = judge(self.model.decoder(f_v, tokens[:, :-1]), tokens)
                right.append(exact.cpu())
                token.append(hits.cpu())
                few = max(0, compared - len(wanted))
                texts = captions_of(part)[:few]
                written += self._write(f_v[:few], tokens[:few, 0], exact[:few], texts)
                wanted += texts
        cells, exact = torch.cat(named), torch.cat(right)
        whole = cells.all(1)
        found = {"named": cells.double().mean().item(), "exact": exact.double().mean().item(),
                 "exact_named": int((exact & whole).sum()) / max(1, int(whole.sum())),
                 "token": torch.cat(token).double().mean().item()}
        return found | ({"chrf": chrf(written, wanted)} if compared else {})

    def _write(self, f_v: Tensor, start: Tensor, exact: Tensor, texts: Sequence[str]) -> list[str]:
        """贪心写出的句子；已知一字不差的不必再写 / What greedy writing gives, not written where known to be right."""
        wrong = (~exact).nonzero().squeeze(1)
        written = list(texts)
        if len(wrong):
            tokens = self.model.decoder.generate(f_v[wrong], start[wrong] - self.model.decoder.vocabulary)[0]
            for row, line in zip(wrong.tolist(), tokens, strict=True):
                written[row] = self.model.spell(line)
        return written


def judge(logits: Tensor, tokens: Tensor, pad: int = 0) -> tuple[Tensor, Tensor]:
    """哪几行一字不差，哪些词元对了 / Which rows are right to the letter, (B,) bool, and which of the real tokens are.

    贪心的每个词都由前面的词定。如果给定正确的前文，每一步最可能的都正好是下一个正确的词，那么贪心写出的就是这一句；
    只要有一步不是，就不是。所以不必真写，一次前向就知道。

    In greedy writing each word follows from those before. If, given the right words before, the likeliest next one is
    right at every place, greedy writing gives this very sentence; if it is wrong at one place, it does not. So nothing
    has to be written: one forward pass tells.
    """
    wanted = tokens[:, 1:]
    real, hit = wanted != pad, logits.argmax(2) == wanted
    return (hit | ~real).all(1), hit[real]


def chrf(written: Sequence[str], wanted: Sequence[str]) -> float:
    """chrF：字符片段重合了多少 / chrF: how far pieces of characters overlap, from 0 to 1, over all sentences.

    1 到 6 个字符的片段，两边都数，取精确与召回的 F₂；由 sacrebleu 计算，中文按字、英文按字母，都不用先分词。

    Pieces of 1 to 6 characters are counted on both sides, and precision and recall go into F₂; sacrebleu computes it,
    by characters in Chinese and letters in English, with no need to split words first.

    Paper: Popović 2015, chrF: character n-gram F-score for automatic MT evaluation.
    """
    from sacrebleu.metrics import CHRF

    return CHRF().corpus_score(list(written), [list(wanted)]).score / 100


def commonest(count: int = 1000, seed: int = 12345, examples: int = 20_000) -> dict[str, float]:
    """什么也不看，总说训练里最常见的那一句 / Looking at nothing: always the caption commonest in training.

    对每种语言和次序各选一句；成绩同 `examine`，只是 `token` 按位置比，看几成对得上。

    One for each language and order; scores as in `examine`, except that `token` compares place by place.
    """
    train, tokenizer = scenes.load("train"), make_tokenizer()
    known, drawn = (train.draw_to_describe(n, torch.Generator().manual_seed(s))
                    for n, s in ((examples, seed + 1), (count, seed)))
    counts: dict[tuple[int, int], Counter[str]] = {}
    for said, key in zip(captions_of(known), _instructions(known), strict=True):
        counts.setdefault(key, Counter())[said] += 1
    best = {key: said.most_common(1)[0][0] for key, said in counts.items()}
    written, wanted = [best[key] for key in _instructions(drawn)], captions_of(drawn)
    hits = total = 0
    for one, other in zip(written, wanted, strict=True):
        a, b = (tokenizer.encode(line).ids[1:] for line in (one, other))
        hits, total = hits + sum(x == y for x, y in zip(a, b, strict=False)), total + len(b)
    return {"exact": sum(a == b for a, b in zip(written, wanted, strict=True)) / count, "token": hits / total,
            "chrf": chrf(written, wanted)}


def _instructions(drawn: Mapping[str, Tensor]) -> list[tuple[int, int]]:
    return list(zip(drawn["language"].tolist(), drawn["order"].tolist(), strict=True))


def decode(trainer: CaptioningTrainer, data: scenes.Scenes, count: int = 80,
           seed: int = 12345) -> dict[str, dict[str, float]]:
    """同样的场景，几种写法 / The same scenes, written in several ways: {way: {"exact", "log_p" (the mean)}}.

    "greedy"、"beam"（四句）和 `TEMPERATURES` 的抽签；log p 是写出的句子的 / greedy, a beam of four, and drawing at
    `TEMPERATURES`; log p is that of the sentence written.
    """
    model = trainer.model
    drawn = data.draw_to_describe(count, torch.Generator().manual_seed(seed))
    which = tokens_of(model, drawn)[:, 0].to(trainer.device) - model.decoder.vocabulary
    with evaluating(model):
        f_v = model.see(data.pictures(drawn["cells"], drawn["artist"]).to(trainer.device) / 255)
        tokens, s = model.decoder.search(f_v, which)
        written = {"beam": (tokens[:, 0], s[:, 0])}
        for temperature in (0.0, *TEMPERATURES):
            tokens, p = model.decoder.generate(f_v, which, temperature, torch.Generator().manual_seed(seed))
            written[f"T = {temperature:g}" if temperature else "greedy"] = tokens, p.log().sum(1)
    texts = captions_of(drawn)
    return {way: {"exact": sum(model.spell(line) == text for line, text in zip(tokens, texts, strict=True)) / count,
                  "log_p": log_p.mean().item()} for way, (tokens, log_p) in written.items()}


def strange(trainer: CaptioningTrainer, data: scenes.Scenes, count: int = 60, seed: int = 12345) -> dict[str, object]:
    """训练里没有的图画 / Pictures that training did not have: {"blank", "four", "more"}.

    | 名字 name | 含义 meaning |
    |---|---|
    | `blank` | 全白的图画，每种语言和次序说的话 / what is said of a white picture, in each language and order |
    | `four` | 四格都满的图画，平均说到几样东西 / of pictures with four things, how many are named, the mean |
    | `more` | 其中说到的多于三样的占几成 / the share of these sentences that name more than three |
    """
    model, generator = trainer.model, torch.Generator().manual_seed(seed)
    f_v = model.look(torch.full((3, 2 * scenes.SIZE, 2 * scenes.SIZE), 255, dtype=torch.uint8))
    said = [model.say(f_v, language, order).sentence for language, order in STARTS]
    cells = torch.rand(count, len(scenes.THINGS), generator=generator).argsort(1)[:, :scenes.CELLS]
    with evaluating(model):
        f_v = model.see(data.pictures(cells, torch.zeros(count, dtype=torch.int64)).to(trainer.device) / 255)
    tokens = model.decoder.generate(f_v, torch.arange(count, device=trainer.device) % len(STARTS))[0]
    told = [len(things_in(model.spell(line))) for line in tokens]
    return {"blank": said, "four": sum(told) / count, "more": sum(n > scenes.MOST_NAMED for n in told) / count}


def things_in(sentence: str) -> list[str]:
    """句子里依次提到的东西 / The things a sentence names, in their order: "A dog at the top left." → ["dog"]."""
    return _NAMES.findall(sentence)


def train_and_test(variant: str, seed: int, naming_steps: int | None = None,
                   caption_steps: int | None = None) -> dict[str, dict]:
    """训练一次，考几场 / Train once and sit the exams: {exam: scores as in `examine`}.

    | 考试 exam | 考什么 what is tested |
    |---|---|
    | `known` | 学过的作者，重新抽的场景 / artists it learned from, scenes drawn anew |
    | `validation`, `test`, `shift` | 没见过的作者，最后一位画风迥异 / artists it never saw, the last of another style |
    | `known new`, `test new` | 同上，从不碰头的两样 / the same, with two things that never met in training |

    `variant` 是 `VARIANTS` 里的一个；"blind" 从不给看图，考试时也不给。步数不给就用它的。"two stages" 还有测试作者的
    `decode`、`strange`，和不给看图的一场 "test blind"。

    `variant` is one of `VARIANTS`; "blind" never sees a picture, in the exam neither. It has its own numbers of steps
    unless others are given. With "two stages" come `decode` and `strange` of the test artist, and "test blind", an exam
    with the pictures withheld.

    Raises: ValueError 变体未知 / for an unknown variant.
    """
    checks.one_of(variant, "variant", tuple(VARIANTS))
    options = dict(VARIANTS[variant])
    withhold = float(options.pop("withhold", 0.0))
    given = {"naming_steps": naming_steps, "caption_steps": caption_steps}
    options |= {name: value for name, value in given.items() if value is not None}
    trainer = CaptioningTrainer(seed=seed, device="cpu", **options)
    for _ in range(trainer.steps):
        trainer.train_step(withhold)
    papers = {"known": ("train", "seen"), "known new": ("train", "new"), "test new": ("test", "new"),
              **{role: (role, "seen") for role in ("validation", "test", "shift")}}
    found = {name: trainer.examine(scenes.load(papers[name][0]), pairs=papers[name][1], blind=variant == "blind")
             for name in EXAMS[variant]}
    if variant == "two stages":
        test = scenes.load("test")
        found |= {"decode": decode(trainer, test), "strange": strange(trainer, test),
                  "test blind": trainer.examine(test, 200, blind=True)}
    return found
