r"""听懂一句话：文字、脸、语气 / Understanding an utterance: its words, a face, a tone of voice.

三个小编码器各看一种模态，给出褒、贬、中性的概率。把它们合起来有两条路：概率的对数相加（7.1），什么也不用再学；或者让
(3.1) 到 (3.5) 的融合一起学。

Three small encoders look at one modality each and give the probabilities of blame, neither and praise. There are two
ways to put them together: add the logarithms of the probabilities (7.1), with nothing more to learn; or train the
fusions of (3.1) to (3.5).
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks
from mmcore import tokens as tokens
from mmcore.fusion import CANDIDATES, product_of_experts
from mmlessons.data import utterances
from mmlessons.data.augment import augment
from mmlessons.data.utterances import LANGUAGES, MEANINGS, MODALITIES
from mmlessons.tasks import several_modalities as fusing
from mmlessons.tasks.several_modalities import accuracy, finish

WIDTHS = dict.fromkeys(MODALITIES, 48)  # of the features
FUSED = 64
CLASSES = len(MEANINGS)
ALONE_STEPS, TOGETHER_STEPS = 250, 150  # chosen on the validation split
ALONE_RATE, TOGETHER_RATE = 3e-3, 2e-3
DROPOUT = 0.3  # how often one modality of a row is absent when the fusions learn
WORD_DROPOUT = 0.4  # how often a word counts as unknown in training
LONGEST = 32  # tokens


class SentenceEncoder(nn.Module):
    """句子的小编码器 / A small encoder of sentences: (B, L) token ids → (B, D).

    每个词查到一列数，一层卷积看相邻的三个词，每个特征取整句里最大的一处。补齐不改变结果；一个词也没有时，特征是 0。

    Every word looks up its numbers, one convolution sees three neighbouring words, and each feature takes its largest
    value in the sentence. Padding changes nothing; where there is no word at all, the feature is 0.

    Paper: Kim 2014, Convolutional Neural Networks for Sentence Classification.
    """

    def __init__(self, vocabulary: int, feature_dim: int = 48, width: int = 32):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=0)
        nn.init.normal_(self.embedding.weight, std=0.3)
        with torch.no_grad():
            self.embedding.weight[0] = 0
        self.convolution = nn.Conv1d(width, feature_dim, 3, padding=1)

    def forward(self, ids: Tensor) -> Tensor:
        real = (ids != 0).unsqueeze(1)  # (B, 1, L)
        seen = F.gelu(self.convolution(self.embedding(ids).transpose(1, 2)))  # (B, D, L)
        return torch.where(real, seen, seen.new_tensor(-1e4)).amax(2) * real.any(2)


class FaceEncoder(nn.Module):
    """脸的小编码器 / A small encoder of faces: (B, 3, 32, 32) → (B, D); brightness and contrast do not count."""

    def __init__(self, feature_dim: int = 48):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.BatchNorm2d(16), nn.GELU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.GELU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(512, feature_dim), nn.GELU())

    def forward(self, face: Tensor) -> Tensor:
        return self.layers(F.group_norm(face, 1))


def make_tone_encoder(feature_dim: int = 48) -> nn.Module:
    """语气的小编码器 / A small encoder of tones: (B, 3, 48) → (B, D); convolutions run along time."""
    return nn.Sequential(nn.Conv1d(3, 32, 5, stride=2, padding=2), nn.GELU(),
                         nn.Conv1d(32, 32, 5, stride=2, padding=2), nn.GELU(), nn.Flatten(),
                         nn.Linear(32 * 12, feature_dim), nn.GELU())


class _Utterances:
    """听懂话：三个模态，三个类别 / Understanding utterances: three modalities, three classes."""

    modalities, classes, widths = MODALITIES, CLASSES, WIDTHS
    words: "Words"

    def make_encoders(self) -> dict[str, nn.Module]:
        return {"text": SentenceEncoder(self.words.tokenizer.get_vocab_size(), WIDTHS["text"]),
                "face": FaceEncoder(WIDTHS["face"]), "tone": make_tone_encoder(WIDTHS["tone"])}

    def draw(self, dropout: float) -> dict[str, Tensor]:
        checks.share(dropout, "dropout")
        g, b = self.generator, self.batch
        seen = self.data.observe(torch.randint(len(self.data.sentences), (b,), generator=g), g)
        seen["face"] = augment(seen["face"], g)
        ids = self.words.of(self.data, seen)
        forgotten = (torch.rand(ids.shape, generator=g) < WORD_DROPOUT) & (ids > self.words.special)
        seen["text"] = torch.where(forgotten, self.words.unknown, ids)
        which = torch.randint(len(MODALITIES), (b,), generator=g)
        absent = torch.where(torch.rand(b, generator=g) < dropout, which, -1)
        for m, modality in enumerate(MODALITIES):
            seen[modality][absent == m] = 0
        return seen


class Words:
    """句子 → 词元编号；词表只来自训练的句子 / Sentences → token ids, by the words of the training sentences alone."""

    def __init__(self, data: utterances.Utterances):
        self.tokenizer: Tokenizer = tokens.build_tokenizer([getattr(s, k) for s in data.sentences for k in LANGUAGES])
        self.unknown = torch.tensor(self.tokenizer.token_to_id(tokens.UNK))
        self.special = max(self.tokenizer.token_to_id(t) for t in (tokens.PAD, tokens.UNK, tokens.CLS, tokens.SEP))
        self.tables: dict[str, Tensor] = {}

    def ids(self, texts: Sequence[str]) -> Tensor:
        """(B, 32) 编号，末尾补 0；太长的截去 / ids, then zeros; what is too long is cut."""
        tokens.check_texts(texts)
        rows = [row.ids[:LONGEST] for row in self.tokenizer.encode_batch(list(texts), add_special_tokens=True)]
        return torch.tensor([row + [0] * (LONGEST - len(row)) for row in rows])

    def of(self, data: utterances.Utterances, seen: Mapping[str, Tensor]) -> Tensor:
        """`observe` 那些句子的编号 / The ids of the sentences in what `observe` gave."""
        if data.role not in self.tables:
            table = [self.ids([getattr(s, language) for s in data.sentences]) for language in LANGUAGES]
            self.tables[data.role] = torch.stack(table, 1)  # (S, 2, L)
        return self.tables[data.role][seen["sentence"], seen["language"]]

    def known(self, text: str) -> list[tuple[str, bool]]:
        """切开的词，各自认不认得 / The words of a text, and whether each is known; punctuation is left out.

        Raises: ValueError 一个词也没有，或一个也不认得 / if there is no word, or none that is known.
        """
        checks.require(isinstance(text, str) and text.strip() != "", "请写一句话", "type a sentence")
        vocabulary = self.tokenizer.get_vocab()
        found = [(word, word in vocabulary) for word in tokens.words(self.tokenizer, text)
                 if any(c.isalnum() for c in word)]
        checks.require(any(known for _, known in found),
                       f"这些词都没有学过：{'、'.join(w for w, _ in found) or text}；请换个说法",
                       f"none of these words was ever learned: {', '.join(w for w, _ in found) or text}; say it "
                       "in another way")
        return found


class AloneTrainer(_Utterances, fusing.AloneTrainer):
    """文字、脸、语气各学各的 / Words, face and tone, each by itself: see `fusing.AloneTrainer`.

    `log_prior` 是训练数据里各类的比例的对数 / is the log of the share of each class in the training data, (K,).
    """

    def __init__(self, steps: int = ALONE_STEPS, seed: int = 0, batch: int = 96,
                 device: str | torch.device | None = None, start: "AloneTrainer | None" = None):
        data = utterances.load("train")
        self.words = Words(data) if start is None else start.words
        super().__init__(data, steps, seed, batch, device, ALONE_RATE, start)
        self.log_prior = prior(data).log()

    def log_p(self, seen: Mapping[str, Tensor]) -> list[Tensor]:
        """每个模态的对数概率 / The log-probabilities of each modality: 3 × (B, 3)."""
        return [p.clamp(min=1e-9).log() for p in self.decisions(seen)]

    def late(self, seen: Mapping[str, Tensor], without: Collection[str] = ()) -> Tensor:
        """(7.1)，可以少几个模态 / (7.1), with some modalities left out: (B, 3), log-probabilities."""
        kept = [rows for rows, m in zip(self.log_p(seen), MODALITIES, strict=True) if m not in without]
        return product_of_experts(kept, self.log_prior)


class SentimentTrainer(_Utterances, fusing.TogetherTrainer):
    """三个编码器与五种融合一起学 / Three encoders and five ways of fusion: see `fusing.TogetherTrainer`."""

    def __init__(self, alone: AloneTrainer, steps: int = TOGETHER_STEPS, seed: int = 0, batch: int = 96,
                 device: str | torch.device | None = None):
        self.words = alone.words
        super().__init__(alone, utterances.load("train"), steps, seed, batch, device, TOGETHER_RATE, FUSED)

    def train_step(self, dropout: float = DROPOUT, pull: float = 0.02) -> dict[str, float]:
        """走一步 / Take one step, see `fusing.TogetherTrainer.train_step`."""
        return super().train_step(dropout, pull)

    def log_p(self, seen: Mapping[str, Tensor], method: str = "f") -> Tensor:
        """一种融合的对数概率 / The log-probabilities by one way of fusion: (B, 3)."""
        checks.one_of(method, "method", (*CANDIDATES, "f"))
        return self.trainer.head(self.trainer.fuse(self.inputs(seen))[method]).detach().cpu().log_softmax(-1)


def prior(data: utterances.Utterances) -> Tensor:
    """每一类的比例；"open" 的句子褒贬各半 / The share of each class, (3,); "open" sentences count half as each."""
    counts = Counter(sentence.meant for sentence in data.sentences)
    either = counts["open"] / 2
    shares = torch.tensor([counts[m] + either * (m != "neutral") for m in MEANINGS])
    return shares / shares.sum()


def observe_all(data: utterances.Utterances, words: Words, times: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """一个划分的每句话各说 `times` 遍 / Every sentence of a split, said `times` times, with its token ids as "text"."""
    checks.whole(times, "times")
    indices = torch.arange(len(data.sentences)).repeat(times)
    seen = data.observe(indices, torch.Generator().manual_seed(seed))
    return {**seen, "text": words.of(data, seen)}


def groups(data: utterances.Utterances, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """哪些行属于哪一种 / Which rows are of which sort, (B,) bool.

    "plain"、"ironic"、"open" 是句子的种类；"reversed" 是字面与意思相反的行（反话，定不下来的句子也会有）。

    "plain", "ironic", "open" are the kinds of sentences; "reversed" are the rows whose words say the opposite of what
    is meant (irony, which open sentences may have too).
    """
    kind = torch.tensor([utterances.KINDS.index(s.kind) for s in data.sentences])[seen["sentence"]]
    found = {name: kind == k for k, name in enumerate(utterances.KINDS)}
    found["reversed"] = (seen["words"] - seen["label"]).abs() == 2
    return found


def one_sample(data: utterances.Utterances, words: Words, text: str, picture: int, sounds: str, voice: int,
               seed: int = 0) -> dict[str, Tensor]:
    """一句话、一张脸、一种语气，由人选定 / One sentence, face and tone, as somebody chose them.

    Raises: ValueError 一个词也不认得，或没有这张脸、这种语气、这个嗓音 / if no word is known, or there is no such face,
    tone or voice.
    """
    words.known(text)
    checks.one_of(sounds, "sounds", utterances.EXPRESSIONS)
    for value, name, most in ((picture, "picture", len(data.faces)), (voice, "voice", len(data.voices))):
        checks.index(value, name, most)
    generator = torch.Generator().manual_seed(seed)
    shown = torch.tensor([utterances.EXPRESSIONS.index(sounds)])
    return {"text": words.ids([text]), "face": data.pictures[[picture]] / 255,
            "tone": data.tone(shown, torch.tensor([voice]), generator)}


def contributions(alone: AloneTrainer, seen: Mapping[str, Tensor], text: str,
                  together: SentimentTrainer | None = None) -> list[tuple[str, str, float]]:
    """每个词、脸、语气的作用：拿走它，答案的对数概率变多少 / What each word, the face and the tone contribute.

    对答案 ŷ，作用 = log p(ŷ | 全部) − log p(ŷ | 少了它)。大于 0 是支持，小于 0 是反对。拿走一个词，就是当作不认得它；
    拿走一个模态，(7.1) 里就少一项，M 少一；给了 `together` 则换成它的混合 f，那里缺失的模态是一串 0。

    For the answer ŷ, the contribution is log p(ŷ | all) − log p(ŷ | without it). Above 0 it speaks for the
    answer, below 0 against. A word is taken away by counting it as unknown; with a modality gone (7.1) has one term
    less, and M is one less. With `together` it is the mixture f of that one, where a missing modality is zeros.

    返回 / Returns: [(modality, word or "", contribution)].
    """
    def answer(rows: Mapping[str, Tensor], without: Collection[str] = ()) -> Tensor:
        if together is None:
            return alone.late(rows, without)[0]
        return together.log_p({m: rows[m] * (m not in without) for m in MODALITIES})[0]

    whole = answer(seen)
    best = int(whole.argmax())
    ids, found = seen["text"], []
    places = [i for i, token in enumerate(ids[0].tolist()) if token != 0][1:-1]  # without [CLS] and [SEP]
    for place, word in zip(places, tokens.words(alone.words.tokenizer, text), strict=False):
        if any(c.isalnum() for c in word):
            fewer = ids.clone()
            fewer[0, place] = alone.words.unknown
            found.append(("text", word, float(whole[best] - answer({**seen, "text": fewer})[best])))
    return [*found, *((m, "", float(whole[best] - answer(seen, (m,))[best])) for m in MODALITIES)]


def with_perfect_senses(times: int = 200, seed: int = 0) -> dict[str, dict[str, float]]:
    """假如看、听、读都不出错 / If reading, seeing and hearing never failed.

    字面、脸与语气显出什么都直接告诉你，剩下的只是怎样合：在训练集上数数，得到表格，再考测试集。"late" 是三张小表按
    (7.1) 相加；"joint" 是一张大表，三样的每种组合占一格。返回每种方法在 "all" 与 "reversed" 上的正确率。

    What the words say and what face and tone show is simply told; what is left is how to put it together: tables are
    counted on the training split and examined on the test. "late" adds three small tables by (7.1); "joint" is one
    large table with a cell for each combination of the three. Returns the accuracy of each on "all" and "reversed".
    """
    def told(role: str) -> tuple[utterances.Utterances, dict[str, Tensor]]:
        data = utterances.load(role)
        indices = torch.arange(len(data.sentences)).repeat(times)
        return data, data.observe(indices, torch.Generator().manual_seed(seed))

    data, seen = told("train")
    sizes = (CLASSES, len(utterances.EXPRESSIONS), len(utterances.EXPRESSIONS))
    counts = torch.ones(*sizes, CLASSES) * 0.1  # so that no cell is empty
    signs = ("words", "shown", "sounds")
    counts.index_put_((*(seen[name] for name in signs), seen["label"]), torch.ones(len(seen["label"])), accumulate=True)
    small = [counts.sum([k for k in range(3) if k != m]) for m in range(3)]  # (3 or 4, K) each
    test, seen = told("test")
    log_p = [(table / table.sum(1, keepdim=True)).log()[seen[name]] for table, name in zip(small, signs, strict=True)]
    scores = {"late": product_of_experts(log_p, prior(data).log()),
              "joint": counts[tuple(seen[name] for name in signs)]}
    rows = {"all": torch.ones(len(seen["label"]), dtype=torch.bool), "reversed": groups(test, seen)["reversed"]}
    return {method: {name: accuracy(s[these], seen["label"][these]) for name, these in rows.items()}
            for method, s in scores.items()}


def train_and_test(seed: int, alone_steps: int = ALONE_STEPS, together_steps: int = TOGETHER_STEPS,
                   times: int = 8) -> dict[str, dict]:
    """训练一遍，考一遍 / Train all of it once with one seed, and test it.

    | 键 key | 内容 what |
    |---|---|
    | `all`, `plain`, `ironic`, `open`, `reversed` | 这种行上各方法的正确率 / accuracy of every method on such rows |
    | `missing` | 少了哪个模态 → late、f 的正确率 / which modality is gone → accuracy of late and f |
    | `neutral` | 说成中性的有几成：truth、late、no prior / the share called neutral: in truth, by these two |

    方法 / methods: 各模态 modalities, "majority", "late" (7.1), "no prior"（不减先验 the prior not taken off），
    (3.1) – (3.5).
    """
    test = utterances.load("test")
    alone = finish(AloneTrainer(alone_steps, seed, device="cpu"))
    together = finish(SentimentTrainer(alone, together_steps, seed, device="cpu"))
    seen = observe_all(test, alone.words, times)
    log_p, late = alone.log_p(seen), alone.late(seen)
    scores = {**dict(zip(MODALITIES, log_p, strict=True)), "majority": alone.log_prior.expand(len(late), -1),
              "late": late, "no prior": sum(log_p), **{m: together.log_p(seen, m) for m in (*CANDIDATES, "f")}}
    rows = {"all": torch.ones(len(late), dtype=torch.bool), **groups(test, seen)}
    result = {name: {m: accuracy(s[these], seen["label"][these]) for m, s in scores.items()}
              for name, these in rows.items()}
    neutral = MEANINGS.index("neutral")
    result["neutral"] = {m: (scores[m].argmax(1) == neutral).double().mean().item() for m in ("late", "no prior")}
    result["neutral"]["truth"] = (seen["label"] == neutral).double().mean().item()
    result["missing"] = {}
    for m in MODALITIES:
        gone = {**seen, m: torch.zeros_like(seen[m])}
        result["missing"][m] = {"late": accuracy(alone.late(seen, (m,)), seen["label"]),
                                "f": accuracy(together.log_p(gone), seen["label"])}
    return result
