r"""听懂一句话：文字、脸、语气 / Understanding an utterance: its words, a face, a tone of voice.

Three small encoders look at one modality each and give the probabilities of blame, neither and praise. There are two
ways to put them together: add the logarithms of the probabilities (7.1), with nothing more to learn (`late`); or train
the fusions of (3.1) to (3.5) (`together`, `joint`). `study` is what runs in the background. What would be if nothing
were misread is in `signs`.

三个小编码器各看一种模态，给出褒、贬、中性的概率。把它们合起来有两条路：概率的对数相加（7.1），什么也不用再学
（`late`）；或者让 (3.1) 到 (3.5) 的融合一起学（`together`、`joint`）。在后台运行的是 `study`。假如什么都没有看错听错，
见 `signs`。
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from mmcore import checks, tokens
from mmcore.fusion import CANDIDATES, MultimodalFusionTrainer, product_of_experts
from mmlessons.border import holds, typed
from mmlessons.data import utterances
from mmlessons.data.augment import augment
from mmlessons.data.utterances import LANGUAGES, MEANINGS, MODALITIES
from mmlessons.tasks import scoring, signs
from mmlessons.tasks import several_modalities as several
from mmlessons.tasks.learner import Learner
from mmlessons.tasks.several_modalities import Experts, Modalities

WIDTHS = dict.fromkeys(MODALITIES, 48)  # of the features
FUSED = 64
CLASSES = len(MEANINGS)
SEPARATE_STEPS, TOGETHER_STEPS = 250, 150  # chosen on the validation split
SEPARATE_RATE, TOGETHER_RATE = 3e-3, 2e-3
DROPOUT = 0.3  # how often one modality of a row is absent when the fusions learn
WORD_DROPOUT = 0.4  # how often a word counts as unknown in training
LONGEST = 32  # tokens


@typed
class SentenceEncoder(nn.Module):
    """句子的小编码器 / A small encoder of sentences: (B, L) token ids → (B, D).

    Every word looks up its numbers, one convolution sees three neighbouring words, and each feature takes its largest
    value in the sentence. Padding changes nothing; where there is no word at all, the feature is 0.

    每个词查到一列数，一层卷积看相邻的三个词，每个特征取整句里最大的一处。补齐不改变结果；一个词也没有时，特征是 0。

    Paper: Kim 2014, Convolutional Neural Networks for Sentence Classification.
    """

    def __init__(self, vocabulary: int, feature_dim: int = 48, width: int = 32):
        super().__init__()
        for size, name in ((vocabulary, "vocabulary"), (feature_dim, "feature_dim"), (width, "width")):
            checks.whole(size, name)
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

    @typed
    def known(self, text: str) -> list[tuple[str, bool]]:
        """切开的词，各自认不认得 / The words of a text, and whether each is known; punctuation is left out.

        Raises ValueError if there is no word, or none that is known.

        一个词也没有，或一个也不认得时报 ValueError。
        """
        said = filter(tokens.is_word, tokens.words(self.tokenizer, text) if isinstance(text, str) else [])
        found = [(word, self.tokenizer.token_to_id(word) is not None) for word in said]
        checks.require(len(found) > 0, "请写一句话", "type a sentence")
        checks.require(any(known for _, known in found),
                       f"这些词都没有学过：{'、'.join(w for w, _ in found)}；请换个说法",
                       f"none of these words was ever learned: {', '.join(w for w, _ in found)}; say it in another way")
        return found


@cache
def load_words() -> Words:
    """训练的句子里的词 / The words of the training sentences."""
    return Words(utterances.load("train"))


def make_encoders() -> dict[str, nn.Module]:
    """每个模态一个小编码器 / A small encoder for each modality."""
    return {"text": SentenceEncoder(load_words().tokenizer.get_vocab_size(), WIDTHS["text"]),
            "face": FaceEncoder(WIDTHS["face"]), "tone": make_tone_encoder(WIDTHS["tone"])}


def draw(data: utterances.Utterances, batch: int, generator: torch.Generator, dropout: float) -> dict[str, Tensor]:
    """一批：有的词装作不认得，有的行缺一个模态 / A batch: some words made unknown, some rows lack a modality.

    With probability `dropout` (ValueError if it is not from 0 to 1) one of the three is absent.

    以概率 `dropout`（不在 0 到 1 时报 ValueError）缺三个模态之一。
    """
    checks.share(dropout, "dropout")
    words = load_words()
    seen = data.observe(torch.randint(len(data.sentences), (batch,), generator=generator), generator)
    seen["face"] = augment(seen["face"], generator)
    ids = words.of(data, seen)
    forgotten = (torch.rand(ids.shape, generator=generator) < WORD_DROPOUT) & (ids > words.special)
    seen["text"] = torch.where(forgotten, words.unknown, ids)
    which = torch.randint(len(MODALITIES), (batch,), generator=generator)
    absent = torch.where(torch.rand(batch, generator=generator) < dropout, which, -1)
    for m, modality in enumerate(MODALITIES):
        seen[modality][absent == m] = 0
    return seen


def modalities(batch: int) -> Modalities:
    """三个模态，三个类别，取自训练集 / Three modalities, three classes, drawn from the training set."""
    drawn = partial(draw, utterances.load("train"), checks.whole(batch, "batch", 2))
    return Modalities(MODALITIES, CLASSES, WIDTHS, make_encoders, drawn, inputs())


@typed
def separately(steps: int = SEPARATE_STEPS, seed: int = 0, batch: int = 96,
               device: str | torch.device | None = None) -> Learner:
    """文字、脸、语气各学各的 / Words, face and tone, each by itself."""
    return several.learner(several.Separately(modalities(batch), SEPARATE_RATE), steps, seed, device)


@typed
def together(experts: Experts, steps: int = TOGETHER_STEPS, seed: int = 0, batch: int = 96,
             device: str | torch.device | None = None) -> Learner:
    """编码器从 `experts` 的副本开始，与五种融合一起学 / The encoders, from copies, learn with the five fusions."""
    task = several.Together(modalities(batch), TOGETHER_RATE, experts, FUSED, DROPOUT)
    return several.learner(task, steps, seed, device)


def inputs() -> dict[str, str]:
    """每个编码器接受什么 / What each encoder takes, see `border.holds`."""
    words = load_words().tokenizer.get_vocab_size()
    return {"text": f"int64 B {LONGEST} <{words}", "face": "B 3 32 32", "tone": "B 3 48"}


def prior(data: utterances.Utterances) -> Tensor:
    """每一类的比例；"open" 的句子褒贬各半 / The share of each class, (3,); "open" sentences count half as each."""
    counts = Counter(sentence.meant for sentence in data.sentences)
    either = counts["open"] / 2
    shares = torch.tensor([counts[m] + either * (m != "neutral") for m in MEANINGS])
    return shares / shares.sum()


@cache
def log_prior() -> Tensor:
    """训练数据里各类的比例的对数 / The log of the share of each class in the training data, (3,)."""
    return prior(utterances.load("train")).log()


@typed
def log_p(experts: Experts, seen: Mapping[str, Tensor]) -> list[Tensor]:
    """每个模态的对数概率 / The log-probabilities of each modality: 3 × (B, 3)."""
    return [p.clamp(min=1e-9).log() for p in experts.decisions(seen)]


@typed
def late(experts: Experts, seen: Mapping[str, Tensor], without: Collection[str] = ()) -> Tensor:
    """(7.1)，可以少几个模态 / (7.1), with some modalities left out: (B, 3), log-probabilities."""
    _check_names(without)
    kept = [rows for rows, m in zip(log_p(experts, seen), MODALITIES, strict=True) if m not in without]
    return product_of_experts(kept, log_prior())


@typed
def joint(trainer: MultimodalFusionTrainer, seen: Mapping[str, Tensor], without: Collection[str] = (),
          method: str = "f") -> Tensor:
    """一种融合的对数概率，缺的模态是一串 0 / The log-probabilities by one fusion, (B, 3); absent modalities are zeros.

    Raises ValueError if there is no such method.

    没有这种融合时报 ValueError。
    """
    checks.one_of(method, "method", (*CANDIDATES, "f"))
    _check_names(without)
    holds(seen, "seen", **inputs())
    features = [seen[m] * (m not in without) for m in MODALITIES]
    return trainer.head(trainer.fuse(features)[method]).detach().cpu().log_softmax(-1)


def _check_names(without: Collection[str]) -> None:
    for modality in without:
        checks.one_of(modality, "without", MODALITIES)


@typed
def observe_all(data: utterances.Utterances, words: Words, times: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """一个划分的每句话各说 `times` 遍 / Every sentence of a split, said `times` times, with its token ids as "text"."""
    checks.whole(times, "times")
    indices = torch.arange(len(data.sentences)).repeat(times)
    seen = data.observe(indices, torch.Generator().manual_seed(seed))
    return {**seen, "text": words.of(data, seen)}


def groups(data: utterances.Utterances, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """哪些行属于哪一种 / Which rows are of which sort, (B,) bool.

    "plain", "ironic", "open" are the kinds of sentences; "reversed" are the rows whose words say the opposite of what
    is meant (irony, which open sentences may have too).

    "plain"、"ironic"、"open" 是句子的种类；"reversed" 是字面与意思相反的行（反话，定不下来的句子也会有）。
    """
    kind = torch.tensor([utterances.KINDS.index(s.kind) for s in data.sentences])[seen["sentence"]]
    found = {name: kind == k for k, name in enumerate(utterances.KINDS)}
    found["reversed"] = (seen["words"] - seen["label"]).abs() == 2
    return found


@typed
def one_sample(data: utterances.Utterances, words: Words, text: str, picture: int, sounds: str, voice: int,
               seed: int = 0) -> dict[str, Tensor]:
    """一句话、一张脸、一种语气，由人选定 / One sentence, face and tone, as somebody chose them.

    Raises ValueError if no word is known, or there is no such face, tone or voice.

    一个词也不认得，或没有这张脸、这种语气、这个嗓音时报 ValueError。
    """
    words.known(text)
    checks.one_of(sounds, "sounds", utterances.EXPRESSIONS)
    for value, name, most in ((picture, "picture", len(data.faces)), (voice, "voice", len(data.voices))):
        checks.index(value, name, most)
    generator = torch.Generator().manual_seed(seed)
    shown = torch.tensor([utterances.EXPRESSIONS.index(sounds)])
    return {"text": words.ids([text]), "face": data.pictures[[picture]] / 255,
            "tone": data.tone(shown, torch.tensor([voice]), generator)}


@typed
def contributions(words: Words, seen: Mapping[str, Tensor], text: str,
                  answer: Callable[[Mapping[str, Tensor], Collection[str]], Tensor]) -> list[tuple[str, str, float]]:
    """每个词、脸、语气的作用：拿走它，答案的对数概率变多少 / What each word, the face and the tone contribute.

    `answer(seen, without)` gives log-probabilities (1, 3), as `late` and `joint` do. For the answer ŷ the contribution
    is log p(ŷ | all) − log p(ŷ | without it): above 0 it speaks for the answer, below 0 against. A word is taken away
    by counting it as unknown. Returns [(modality, word or "", contribution)].

    `answer(seen, without)` 给出对数概率 (1, 3)，就像 `late` 和 `joint`。对答案 ŷ，作用是 log p(ŷ | 全部) −
    log p(ŷ | 少了它)：大于 0 是支持，小于 0 是反对。拿走一个词，就是当作不认得它。返回 [(模态, 词或 "", 作用)]。
    """
    holds(seen, "seen", **inputs())
    whole = answer(seen, ())[0]
    best = int(scoring.best(whole, "answer"))
    ids, found = seen["text"], []
    positions = [i for i, token in enumerate(ids[0].tolist()) if token != 0][1:-1]  # without [CLS] and [SEP]
    for position, word in zip(positions, tokens.words(words.tokenizer, text), strict=False):
        if tokens.is_word(word):
            fewer = ids.clone()
            fewer[0, position] = words.unknown
            found.append(("text", word, float(whole[best] - answer({**seen, "text": fewer}, ())[0, best])))
    return [*found, *((m, "", float(whole[best] - answer(seen, (m,))[0, best])) for m in MODALITIES)]


# -- reading the signs ------------------------------------------------------------------------------------------------

class Reading(several.Separately):
    """每个编码器认自己的迹象，不问意思 / Each encoder tells its own sign, and nothing is said of the meaning.

    The signs are those of `signs.SIGNS`: what the words say, what the face shows, what the tone shows.

    迹象就是 `signs.SIGNS`：字面说什么，脸显出什么，语气显出什么。
    """

    def losses(self, experts: Experts, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        own = {m: F.cross_entropy(scores, batch[sign].to(scores.device))
               for (m, scores), sign in zip(experts(batch).items(), signs.SIGNS, strict=True)}
        return {**own, "total_loss": sum(own.values())}


def reading(steps: int = SEPARATE_STEPS, seed: int = 0, batch: int = 96,
            device: str | torch.device | None = None) -> Learner:
    """学着认迹象 / Learns to read the signs; the words have three, the fourth class of theirs is never right."""
    told = replace(modalities(batch), classes=len(utterances.EXPRESSIONS))
    return several.learner(Reading(told, SEPARATE_RATE), steps, seed, device)


def read(experts: Experts, seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`reading` 学会的模型认出的迹象 / The signs that a model of `reading` reads: probabilities, (B, 3 or 4) each."""
    found = dict(zip(signs.SIGNS, experts.decisions(seen), strict=True))
    words = found["words"][:, :CLASSES]
    return {**found, "words": words / words.sum(1, keepdim=True)}


def nearest(seen: Mapping[str, Tensor], times: int = 20, seed: int = 0) -> dict[str, Tensor]:
    """什么也不学：像谁，就认作谁的迹象 / Learns nothing: each sign is that of the nearest thing in the training set.

    For a sentence that is the one that shares most of its words, the rare ones counting more (tf-idf); for a face the
    nearest drawing pixel by pixel; for a tone the nearest of those that the training voices make, each sentence said
    `times` times. Returns the signs as `read` does, with one of each certain.

    一句话，取与它相同的词最多的一句（少见的词分量重，即 tf-idf）；一张脸，取逐像素最近的一幅；一种语气，取训练的嗓音说
    出的语气里最近的一种，每句说 `times` 遍。返回的样子与 `read` 相同，每样只认一个。
    """
    train, words = utterances.load("train"), load_words()
    known = observe_all(train, words, times, seed)
    sentences = torch.cat([words.ids([getattr(s, k) for s in train.sentences]) for k in LANGUAGES])
    say = torch.tensor([MEANINGS.index(s.words) for s in train.sentences]).repeat(len(LANGUAGES))
    shows = torch.tensor([utterances.EXPRESSIONS.index(face.expression) for face in train.faces])

    def counts(ids: Tensor) -> Tensor:
        has = torch.zeros(len(ids), words.tokenizer.get_vocab_size()).scatter_(1, ids, 1.0)
        has[:, :words.special + 1] = 0
        return has

    rare = (len(sentences) / (1 + counts(sentences).sum(0))).log()
    like = [F.normalize(counts(ids) * rare, dim=1) for ids in (seen["text"], sentences)]
    found = {"words": say[(like[0] @ like[1].T).argmax(1)],
             "shown": shows[_closest(seen["face"], train.pictures / 255)],
             "sounds": known["sounds"][_closest(seen["tone"], known["tone"])]}
    return {name: F.one_hot(found[name], size).double() for name, size in zip(signs.SIGNS, signs.SIZES, strict=False)}


def _closest(x: Tensor, known: Tensor) -> Tensor:
    return torch.cdist(x.flatten(1), known.flatten(1)).argmin(1)


# -- studies ----------------------------------------------------------------------------------------------------------

@dataclass(frozen=True)
class SentimentStudies:
    """一个种子的全部实验，在测试集上：每句话一个成绩 / All studies of one seed, on the test set: a score a sentence.

    Every tensor is (S,), one number for each sentence, the share of its utterances that were right. Methods are the
    modalities, "majority", "nearest", "late" (7.1), "no prior" (the prior not taken off), (3.1) to (3.5), and "read
    late", "read sum", "read table": the signs are read, then put together by that rule of `signs`.

    每个张量是 (S,)，一句话一个数：说了几遍，其中几成答对。方法有各个模态、"majority"、"nearest"、"late" (7.1)、
    "no prior"（不减先验）、(3.1) 到 (3.5)，还有 "read late"、"read sum"、"read table"：先认迹象，再照 `signs` 里的
    那种做法合起来。
    """

    right: dict[str, dict[str, Tensor]]  # "all" and the `groups` → method → its sentences
    missing: dict[str, dict[str, Tensor]]  # which modality is gone → "late", "f" → sentences
    neutral: dict[str, Tensor]  # how often "late", "no prior" call a sentence neutral, and the "truth"


def by_sentence(right: Tensor, sentence: Tensor, rows: Tensor) -> Tensor:
    """每句话在这些行里对了几成 / For each sentence, the share of these rows that is right: → (S,) float64.

    `right` and `rows` are (B,) bool, `sentence` is (B,), its number. A sentence without such rows is left out. The
    utterances of one sentence are one item, see `intervals`.

    `right` 和 `rows` 是 (B,) 的真假，`sentence` 是 (B,) 的编号。没有这种行的句子略去。一句话说了几遍仍是一项，见
    `intervals`。
    """
    asked = torch.bincount(sentence[rows])
    got = torch.bincount(sentence[rows], right[rows].double(), minlength=len(asked))
    return (got / asked)[asked > 0]


def answers(experts: Experts, trainer: MultimodalFusionTrainer, reader: Experts,
            seen: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """各方法的得分 / The scores of every method: (B, 3) each."""
    single, both, rules = log_p(experts, seen), late(experts, seen), signs.rules()
    alike, told = nearest(seen), read(reader, seen)
    return {**dict(zip(MODALITIES, single, strict=True)), "majority": log_prior().expand(len(both), -1),
            "nearest": signs.by_rule(alike, rules["late"]), "late": both, "no prior": sum(single),
            **{m: joint(trainer, seen, (), m) for m in (*CANDIDATES, "f")},
            **{f"read {rule}": signs.by_rule(told, rules[rule]) for rule in ("late", "sum", "table")}}


@typed
def study(seed: int, separate_steps: int = SEPARATE_STEPS, together_steps: int = TOGETHER_STEPS,
          times: int = 16) -> SentimentStudies:
    """用一个种子训练一遍，做全部实验 / Train all of it once with one seed, and do all studies."""
    for value, name in ((together_steps, "together_steps"), (times, "times")):
        checks.whole(value, name)
    test = utterances.load("test")
    experts = separately(separate_steps, seed, device="cpu").finish().model
    trainer = together(experts, together_steps, seed, device="cpu").finish().trainer
    reader = reading(separate_steps, seed, device="cpu").finish().model
    seen = observe_all(test, load_words(), times)
    label, everything = seen["label"], torch.ones(len(seen["label"]), dtype=torch.bool)

    def each(said: Tensor, rows: Tensor = everything) -> Tensor:
        return by_sentence(said, seen["sentence"], rows)

    said = {m: scoring.best(scores, m) for m, scores in answers(experts, trainer, reader, seen).items()}
    right = {name: {m: each(answer == label, rows) for m, answer in said.items()}
             for name, rows in {"all": everything, **groups(test, seen)}.items()}
    missing = {m: {"late": each(scoring.best(late(experts, seen, (m,)), m) == label),
                   "f": each(scoring.best(joint(trainer, seen, (m,)), m) == label)} for m in MODALITIES}
    neutral = {"late": said["late"], "no prior": said["no prior"], "truth": label}
    return SentimentStudies(right, missing, {name: each(answer == MEANINGS.index("neutral"))
                                             for name, answer in neutral.items()})
