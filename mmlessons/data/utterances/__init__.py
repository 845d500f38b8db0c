"""话语数据：一句话、一张脸、一种语气 / The utterances data: a sentence, a face, a tone of voice.

句子是为本课程写的；脸是表情数据里的图画，语气由公式算出。见同一文件夹的 CARD.md：怎样写成、怎样配上、缺什么。

The sentences were written for this course; the faces are pictures of the emoji data, the tones are computed from
formulas. See CARD.md in this folder: how they were written and put together, and what is not in it.
"""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from mmcore import checks
from mmlessons.border import typed
from mmlessons.data import emoji, files
from mmlessons.data.utterances.prosody import FRAMES, MANNERS, MANNERS_OF, Voice, check_noise, contour, hum

__all__ = ["EXPRESSIONS", "FRAMES", "KINDS", "LANGUAGES", "MEANINGS", "MODALITIES", "ROLES", "Face", "Sentence",
           "Utterances", "Voice", "expression_odds", "hum", "load", "read_sentences"]

ASSETS = Path(__file__).parent / "assets"
VERSION = 1  # of the files in assets
BUILDER = "makers.utterances"
ROLES = ("train", "validation", "test")
LANGUAGES = ("zh", "en")
MODALITIES = ("text", "face", "tone")
MEANINGS = ("negative", "neutral", "positive")  # the classes, in their order
EXPRESSIONS = (*MEANINGS, "wry")  # what a face or a tone shows; wry: “I do not mean it literally”
KINDS = ("plain", "ironic", "open")

# 字面就是意思时，脸与语气显出什么 / what face and tone show where the words are meant literally:
# rows MEANINGS, columns EXPRESSIONS
SINCERE = ((0.66, 0.18, 0.07, 0.09), (0.12, 0.70, 0.12, 0.06), (0.07, 0.18, 0.66, 0.09))
# 说的是反话时 / where they are not: wry, the meaning, nothing, or the words (a straight face that gives nothing away)
NOT_LITERAL = {"wry": 0.60, "meaning": 0.20, "neutral": 0.10, "words": 0.10}


@dataclass(frozen=True)
class Sentence:
    """一句话，两种语言 / One sentence in two languages.

    `words`：字面说的是什么；`meant`：说话人的意思，"open" 表示单凭文字定不下来，褒贬都可能。

    `words`: what the words say; `meant`: what the speaker means, where "open" is what no text can settle: it may be
    praise or blame.
    """

    role: str
    words: str
    meant: str
    zh: str
    en: str

    @property
    def kind(self) -> str:
        """ "plain" 照字面 / as it says; "ironic" 反话 / the opposite; "open" 定不下来 / either."""
        return "open" if self.meant == "open" else "plain" if self.meant == self.words else "ironic"


@dataclass(frozen=True)
class Face:
    """一张脸 / One face: the emoji, what it shows, and who drew it."""

    char: str
    expression: str
    artist: str


@dataclass(frozen=True, eq=False)
class Utterances:
    """一个划分：S 句话，N 幅脸，V 个嗓音 / One split: S sentences, N pictures of faces, V voices.

    三个划分没有一句话、一位画脸的作者、一个嗓音是共有的。

    No sentence, no artist of faces and no voice is in two splits.

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `sentences` | S | 句子 / the sentences |
    | `faces` | N | 脸是什么、谁画的 / what each face is and who drew it |
    | `pictures` | (N, 3, 32, 32) uint8 | 脸的图画 / the pictures |
    | `voices` | V | 嗓音 / the voices |
    """

    role: str
    sentences: tuple[Sentence, ...]
    faces: tuple[Face, ...]
    pictures: Tensor
    voices: tuple[Voice, ...]

    @typed
    def observe(self, indices: Tensor, generator: torch.Generator, noise: float = 1.0) -> dict[str, Tensor]:
        """B 句话，各有人说了一遍 / B sentences, each said once by somebody.

        每一行随机取一种语言；"open" 的句子随机取褒或贬；再按 `expression_odds` 各自独立地抽出脸和语气显出什么，取一幅
        脸、一个嗓音。`noise` 是语气里随机偏差的倍数。

        Each row gets a language at random; an "open" sentence is meant as praise or as blame, at random; then what face
        and tone show is drawn from `expression_odds`, one apart from the other, and a picture and a voice. `noise` is
        how many times the usual random deviations the tone gets.

        | 返回 returned | 形状 shape | 含义 meaning |
        |---|---|---|
        | `sentence`, `language` | (B,) int64 | 哪一句，LANGUAGES 中的哪种语言 / which sentence, which of LANGUAGES |
        | `face` | (B, 3, 32, 32) float | 脸，0 到 1 / the face, 0 to 1 |
        | `tone` | (B, 3, 48) float | 语气，见 `prosody.contour` / the tone, see `prosody.contour` |
        | `label` | (B,) int64 | 说话人的意思，MEANINGS 中的编号 / what is meant, number in MEANINGS |
        | `words` | (B,) int64 | 字面，MEANINGS 中的编号 / what the words say |
        | `shown`, `sounds` | (B,) int64 | 脸和语气显出的，EXPRESSIONS 中的编号 / what face and tone show |
        | `picture`, `voice` | (B,) int64 | 哪一幅脸，哪个嗓音 / which picture, which voice |
        """
        checks.fits(indices, "indices", "int64 B")
        checks.require(len(indices) > 0 and bool(((indices >= 0) & (indices < len(self.sentences))).all()),
                       f"indices 需要在 0 到 {len(self.sentences) - 1} 之间，至少一个",
                       f"indices must be from 0 to {len(self.sentences) - 1}, at least one")
        check_noise(noise)
        b = len(indices)
        language = torch.randint(len(LANGUAGES), (b,), generator=generator)
        coin = 2 * torch.randint(2, (b,), generator=generator)  # negative or positive
        words = torch.tensor([MEANINGS.index(s.words) for s in self.sentences])[indices]
        meant = torch.tensor([MEANINGS.index(s.meant) if s.meant in MEANINGS else -1 for s in self.sentences])[indices]
        label = torch.where(meant < 0, coin, meant)
        odds = expression_odds(words, label)
        shown, sounds = torch.multinomial(odds, 2, replacement=True, generator=generator).unbind(1)
        picture = self._pick_face(shown, generator)
        voice = torch.randint(len(self.voices), (b,), generator=generator)
        return {"sentence": indices, "language": language, "face": self.pictures[picture] / 255,
                "tone": self.tone(sounds, voice, generator, noise), "label": label, "words": words, "shown": shown,
                "sounds": sounds, "picture": picture, "voice": voice}

    def texts(self, seen: dict[str, Tensor]) -> list[str]:
        """`observe` 的句子，写成文字 / The sentences of `observe` as text."""
        return [getattr(self.sentences[i], LANGUAGES[k])
                for i, k in zip(seen["sentence"].tolist(), seen["language"].tolist(), strict=True)]

    @typed
    def tone(self, sounds: Tensor, voice: Tensor, generator: torch.Generator, noise: float = 1.0) -> Tensor:
        """这些嗓音说出的语气 / Tones that show `sounds` (numbers in EXPRESSIONS), in these voices: (B, 3, 48)."""
        names = list(MANNERS)
        ways = torch.tensor([[names.index(MANNERS_OF[e][k % len(MANNERS_OF[e])]) for k in (0, 1)] for e in EXPRESSIONS])
        manner = ways[sounds, torch.randint(2, sounds.shape, generator=generator)]
        base, width, tempo, jitter = (torch.tensor([getattr(v, key) for v in self.voices])[voice]
                                      for key in ("base", "range", "tempo", "jitter"))
        return contour(manner, base, width, tempo, jitter, generator, noise)

    def _pick_face(self, shown: Tensor, generator: torch.Generator) -> Tensor:
        shows = torch.tensor([EXPRESSIONS.index(face.expression) for face in self.faces])
        fits = (shows == shown[:, None]).double()  # (B, N)
        return torch.multinomial(fits, 1, generator=generator).squeeze(1)


def expression_odds(words: Tensor, label: Tensor) -> Tensor:
    """脸（或语气）显出什么的概率 / How likely a face (or a tone) is to show what: (B,), (B,) → (B, 4).

    字面是褒、意思是贬，或者反过来，就是反话；其余都照 `SINCERE`。

    Praise in words that is meant as blame, or the reverse, is not literal; all else goes by `SINCERE`.
    """
    sincere = torch.tensor(SINCERE)[label]
    hidden = torch.full_like(sincere, 0.0)
    rows = torch.arange(len(label))
    for column, odds in ((EXPRESSIONS.index("wry"), NOT_LITERAL["wry"]), (label, NOT_LITERAL["meaning"]),
                         (MEANINGS.index("neutral"), NOT_LITERAL["neutral"]), (words, NOT_LITERAL["words"])):
        hidden[rows, column] += odds
    literal = (words == label) | (words == MEANINGS.index("neutral")) | (label == MEANINGS.index("neutral"))
    return torch.where(literal[:, None], sincere, hidden)


@typed
def load(role: str = "train", folder: Path | str = ASSETS) -> Utterances:
    """载入一个划分 / Load one split: "train", "validation" or "test"."""
    checks.one_of(role, "role", ROLES)
    return _read(Path(folder))[role]


def read_sentences(table: str) -> list[Sentence]:
    """读句子的表格 / Read the table of sentences: role, words, meant, zh, en, with tabs between.

    Raises ValueError for a line that is not as it should be, or a sentence that is there twice.

    某一行不合规定，或同一句出现两次时报 ValueError。
    """
    head, *lines = table.splitlines()
    columns = ["role", "words", "meant", "zh", "en"]
    checks.require(head.split("\t") == columns, f"第一行需要是 {columns}", f"the first line must be {columns}")
    sentences, taken = [], set()
    for number, line in enumerate(lines, 2):
        cells = line.split("\t")
        good = (len(cells) == len(columns) and cells[0] in ROLES and cells[1] in MEANINGS
                and cells[2] in (*MEANINGS, "open") and all(cell.strip() == cell != "" for cell in cells[3:]))
        checks.require(good, f"第 {number} 行读不懂：{line}", f"line {number} cannot be read: {line}")
        for text in cells[3:]:
            checks.require(text not in taken, f"第 {number} 行的句子出现过：{text}",
                           f"line {number} repeats a sentence: {text}")
            taken.add(text)
        sentences.append(Sentence(*cells))
    return sentences


@cache
def _read(folder: Path) -> dict[str, Utterances]:
    _, data = files.read(folder, VERSION, BUILDER)
    sentences = read_sentences(data["sentences.tsv"].decode())
    table = json.loads(data["faces.json"])
    voices = [Voice(**voice) for voice in json.loads(data["voices.json"])]
    drawings = emoji.load("all")
    place = {concept.char: i for i, concept in enumerate(drawings.concepts)}
    splits = {}
    for role in ROLES:
        mine = {role, "train"}  # validation and test see the faces of training too, by another artist
        faces = [Face(char, expression, artist) for artist in table["artists"][role]
                 for expression, chars in table["faces"].items() for part in ROLES if part in mine
                 for char in chars[part] if drawings.drawn[artist][place[char]]]
        splits[role] = Utterances(
            role=role, sentences=tuple(s for s in sentences if s.role == role), faces=tuple(faces),
            pictures=torch.stack([drawings.pictures[face.artist][place[face.char]] for face in faces]),
            voices=tuple(v for v in voices if v.role == role))
    return splits
