"""场景数据：几样东西拼成一幅图，以及关于它的问题 / The scenes data: pictures of a few things, and questions about them.

一切都由已知的事实生成：哪一格里是什么。图画来自表情数据，没有别的文件。见同一文件夹的 CARD.md。

All of it is generated from known facts: what is in which cell. The pictures come from the emoji data; there are no
other files. See CARD.md in this folder.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from mmcore import checks
from mmlessons.border import typed
from mmlessons.data import emoji
from mmlessons.data.scenes.arrangements import ARRANGEMENTS, draw_arrangements, places, sentence
from mmlessons.data.scenes.captions import MOST_NAMED, ORDERS, RELATIONS, caption, every_word, relation
from mmlessons.data.scenes.things import LANGUAGES, NUMBERS, PLACES, THINGS, Thing

__all__ = ["ANSWERS", "ARRANGEMENTS", "CELLS", "EMPTY", "KINDS", "LANGUAGES", "MOST_NAMED", "ORDERS", "PAIRS",
           "PLACES", "RELATIONS", "ROLES", "SIZE", "THINGS", "WORDINGS", "Scenes", "Thing", "answers_of", "apart",
           "caption", "draw_arrangements", "every_word", "join", "load", "places", "question", "question_number",
           "questions", "relation", "reply", "sentence", "split"]

VERSION = 1  # of what a seed gives
ROLES = emoji.ROLES
CELLS, SIZE = 4, 32  # cells of a picture, in the order of PLACES; pixels of one side of a cell
EMPTY = -1  # what is in a cell where nothing is
KINDS = ("what", "how many", "whether", "where")
PAIRS = ("seen", "new")
WORDINGS = 2  # of each question in each language
ANSWERS = (*(thing.title for thing in THINGS), *NUMBERS, ("没有", "no"), ("有", "yes"), *PLACES)
_FIRST = {"what": 0, "how many": len(THINGS), "whether": len(THINGS) + len(NUMBERS),
          "where": len(THINGS) + len(NUMBERS) + 2}
_STEPS_APART = (4, 11, 15)


@dataclass(frozen=True, eq=False)
class Scenes:
    """一个划分：A 位作者画的 K 样东西 / One split: K things as drawn by A artists.

    场景不是存着的，是抽出来的：同样的种子，同样的场景。

    Scenes are not stored but drawn: the same seed gives the same scenes.

    | 名字 name | 形状 shape | 含义 meaning |
    |---|---|---|
    | `tiles` | (A, K, 3, 32, 32) uint8 | 图画，白底 / the drawings, on white |
    | `artists` | A | 作者的名字 / the titles of the artists |
    """

    role: str
    tiles: Tensor
    artists: tuple[str, ...]

    @typed
    def draw(self, count: int, generator: torch.Generator, kinds: Sequence[str] = KINDS, pairs: str = "seen",
             bias: float | None = None, turned: bool = False) -> dict[str, Tensor]:
        """抽出 N 个场景，每个带一个问题 / Draw N scenes, each with one question.

        四种问题一样多，答案在每一种里一样多（见 CARD.md）。`pairs`："seen" 从不把 `apart` 的两样放在一起，"new" 总有
        这样的一对。`bias`：有偏的数据，例如 0.9：问“有没有”时，编号为双的东西九成是有，单的九成是没有；
        `turned=True` 把它反过来。

        The four kinds of questions are equally frequent, and so are the answers within each (see CARD.md). `pairs`:
        "seen" never puts two things together that are `apart`, "new" always has such a pair. `bias` makes biased data,
        0.9 for example: asked whether there is one, things of even number are there nine times in ten, those of odd
        number are not; `turned=True` turns that round.

        | 返回 returned | 形状 shape | 含义 meaning |
        |---|---|---|
        | `cells` | (N, 4) int64 | 事实：每格里的东西，空为 −1 / the facts: the thing in each cell, −1 for none |
        | `artist` | (N,) int64 | 谁画的 / who drew it |
        | `kind` | (N,) int64 | 问题的种类，见 `KINDS` / the kind of question, see `KINDS` |
        | `about` | (N,) int64 | 问的东西；问“是什么”时是位置 / the thing asked about; of "what", the place |
        | `answer` | (N,) int64 | 答案，见 `ANSWERS` / the answer, see `ANSWERS` |
        | `language`, `wording` | (N,) int64 | 哪种语言、哪种说法 / which language, which wording |
        """
        _check_draw(count, generator, pairs)
        check_questions(kinds, bias)
        return _with_pairs(count, pairs, lambda n, known: self._draw(n, generator, kinds, known, bias, turned))

    @typed
    def draw_to_describe(self, count: int, generator: torch.Generator, pairs: str = "seen") -> dict[str, Tensor]:
        """抽出 N 个可以用一句话说完的场景，一到三样东西 / Draw N scenes for captions, of one to three different things.

        一样、两样、三样各三分之一（`pairs="new"` 时没有一样的）；每样在哪一格、哪种语言、哪种次序，都一样可能。
        `pairs` 同 `draw`。说明本身由 `caption` 从 `cells` 写出。

        One, two and three things are equally frequent (with `pairs="new"` there are no scenes of one); so are cells,
        languages and orders. `pairs` is that of `draw`. The caption itself is written from `cells` by `caption`.

        | 返回 returned | 形状 shape | 含义 meaning |
        |---|---|---|
        | `cells` | (N, 4) int64 | 事实：每格里的东西，空为 −1 / the facts: the thing in each cell, −1 for none |
        | `artist` | (N,) int64 | 谁画的 / who drew it |
        | `language`, `order` | (N,) int64 | 用哪种语言、按哪种次序说 / in which language and order to describe it |
        """
        _check_draw(count, generator, pairs)

        def draw(n: int, known: bool) -> dict[str, Tensor]:
            def below(count: int) -> Tensor:
                return torch.randint(count, (n,), generator=generator)

            things = _distinct(n, generator, known)
            cells = torch.where(torch.arange(CELLS) <= below(MOST_NAMED)[:, None], things, EMPTY)
            cells = cells.gather(1, torch.rand(n, CELLS, generator=generator).argsort(1))
            return {"cells": cells, "artist": below(len(self.artists)), "language": below(len(LANGUAGES)),
                    "order": below(len(ORDERS))}

        return _with_pairs(count, pairs, draw)

    def _draw(self, n: int, generator: torch.Generator, kinds: Sequence[str], known: bool, bias: float | None,
              turned: bool) -> dict[str, Tensor]:
        def whole(low: Tensor | int, high: Tensor | int) -> Tensor:  # both ends included
            low, high = torch.as_tensor(low), torch.as_tensor(high)
            return (low + (torch.rand(n, generator=generator) * (high - low + 1)).long()).clamp(max=high)

        kind = torch.tensor([KINDS.index(k) for k in kinds])[whole(0, len(kinds) - 1)]
        is_kind = {name: kind == k for k, name in enumerate(KINDS)}
        things = _distinct(n, generator, known)  # (N, 4): the thing asked about, then others
        focus = things[:, 0]
        yes = torch.rand(n, generator=generator) < (0.5 if bias is None else _chance_of_yes(focus, bias, turned))

        # how many cells are filled, and how many of them with the thing asked about
        filled = whole(1, CELLS)
        copies = torch.where(is_kind["where"], 1, whole(1, filled))
        copies = torch.where(is_kind["whether"] & ~yes, 0, copies)
        asked = whole(0, CELLS)
        copies = torch.where(is_kind["how many"], asked, copies)
        filled = torch.where(is_kind["how many"], whole(asked.clamp(min=1), CELLS), filled)

        slot = torch.arange(CELLS)
        other = (slot - copies[:, None]).clamp(min=0)  # the how-manieth of the others
        alike = torch.rand(n, 1, generator=generator) < 0.5  # half of the time all others are the same thing
        other = torch.where(alike, 0, other).clamp(max=CELLS - 2)
        cells = torch.where(slot < copies[:, None], focus[:, None], things[:, 1:].gather(1, other))
        cells = torch.where(slot < filled[:, None], cells, EMPTY)
        order = torch.rand(n, CELLS, generator=generator).argsort(1)
        cells = cells.gather(1, order)

        lot = torch.rand(n, CELLS, generator=generator)
        place = lot.masked_fill(cells == EMPTY, -1).argmax(1)  # any of the filled cells
        about = torch.where(is_kind["what"], place, focus)
        answer = torch.where(is_kind["what"], cells.gather(1, place[:, None]).squeeze(1), 0)
        answer = torch.where(is_kind["how many"], copies, answer)
        answer = torch.where(is_kind["whether"], yes.long(), answer)
        answer = torch.where(is_kind["where"], (cells == focus[:, None]).long().argmax(1), answer)
        answer = answer + torch.tensor(list(_FIRST.values()))[kind]
        return {"cells": cells, "artist": whole(0, len(self.artists) - 1), "kind": kind, "about": about,
                "answer": answer, "language": whole(0, len(LANGUAGES) - 1), "wording": whole(0, WORDINGS - 1)}

    @cached_property
    def with_empty(self) -> Tensor:
        """`tiles`，最后加上一格空白，EMPTY 指向它 / `tiles` and a blank one at the end, which EMPTY points to."""
        return torch.cat([self.tiles, torch.full_like(self.tiles[:, :1], 255)], 1)

    @checks.shapes(cells=f"int64 N {CELLS}", artist="int64 N")
    def pictures(self, cells: Tensor, artist: Tensor) -> Tensor:
        """整幅图画 / Whole pictures: (N, 4), (N,) → (N, 3, 64, 64) uint8."""
        for name, x, low, high in (("cells", cells, EMPTY, len(THINGS) - 1),
                                   ("artist", artist, 0, len(self.artists) - 1)):
            if not bool(((x >= low) & (x <= high)).all()):
                checks.refuse(f"{name} 需要在 {low} 与 {high} 之间", f"{name} must lie between {low} and {high}")
        return join(self.with_empty[artist[:, None], cells])


@typed
def load(role: str = "train") -> Scenes:
    """载入一个划分 / Load one split: "train", "validation", "test" or "shift", by artist as in the emoji data."""
    return Scenes(role, *emoji.drawings([thing.concept for thing in THINGS], role))


def join(tiles: Tensor) -> Tensor:
    """四格拼成一幅 / Four cells make a picture: (N, 4, 3, 32, 32) → (N, 3, 64, 64)."""
    n, _, channels, size, _ = tiles.shape
    grid = tiles.view(n, 2, 2, channels, size, size).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(n, channels, 2 * size, 2 * size)


def split(image: Tensor) -> Tensor:
    """一幅切成四格 / A picture cut into its four cells: (N, 3, 64, 64) → (N, 4, 3, 32, 32)."""
    n, channels, height, width = image.shape
    grid = image.reshape(n, channels, 2, height // 2, 2, width // 2).permute(0, 2, 4, 1, 3, 5)
    return grid.reshape(n, CELLS, channels, height // 2, width // 2)


def apart() -> Tensor:
    """训练中从不同在一幅图里的两样东西 / Which two things never stand in one picture of "seen" scenes: (K, K) bool.

    每样东西都有五个这样的伴，所以没有哪一样因此少见。

    Every thing has five such partners, so that none becomes rarer than another.
    """
    number = torch.arange(len(THINGS))
    step = (number[:, None] - number).abs()
    step = torch.minimum(step, len(THINGS) - step)  # round in a ring
    return torch.isin(step, torch.tensor(_STEPS_APART))


def check_questions(kinds: Sequence[str], bias: float | None) -> None:
    """`Scenes.draw` 的问题的种类和偏差 / The kinds of questions, and their bias, for `Scenes.draw`."""
    checks.require(len(kinds) > 0, "kinds 需要至少一种", "kinds must name one at least")
    for kind in kinds:
        checks.one_of(kind, "kinds", KINDS)
    if bias is not None:
        checks.share(bias, "bias")


def _check_draw(count: int, generator: torch.Generator, pairs: str) -> None:
    checks.whole(count, "count")
    checks.instance(generator, "generator", torch.Generator)
    checks.one_of(pairs, "pairs", PAIRS)


def _with_pairs(count: int, pairs: str, draw: Callable[[int, bool], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Draw `count`; "new" keeps those with a new pair."""
    if pairs == "seen":
        return draw(count, True)
    parts, found = [], 0
    while found < count:  # about one scene in four has such a pair
        part = draw(4 * count, False)
        keep = _has_new_pair(part["cells"]).nonzero().squeeze(1)[:count - found]
        parts.append({name: values[keep] for name, values in part.items()})
        found += len(keep)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _has_new_pair(cells: Tensor) -> Tensor:
    together = apart()[cells[:, :, None], cells[:, None]]  # EMPTY reads the last row, and is masked out
    real = cells != EMPTY
    return (together & real[:, :, None] & real[:, None]).flatten(1).any(1)


def _distinct(n: int, generator: torch.Generator, known: bool) -> Tensor:
    """Four different things a row; if `known`, none apart."""
    never = apart() if known else torch.zeros(len(THINGS), len(THINGS), dtype=torch.bool)
    never = never | torch.eye(len(THINGS), dtype=torch.bool)
    chosen: list[Tensor] = []
    for _ in range(CELLS):
        lot = torch.rand(n, len(THINGS), generator=generator)
        for earlier in chosen:
            lot = lot.masked_fill(never[earlier], -1)
        chosen.append(lot.argmax(1))
    return torch.stack(chosen, 1)


def _chance_of_yes(thing: Tensor, bias: float, turned: bool) -> Tensor:
    usual = (thing % 2 == 0) ^ turned
    return torch.where(usual, bias, 1 - bias)


# -- words ------------------------------------------------------------------------------------------------------------

def answers_of(kind: str) -> range:
    """这种问题的答案在 `ANSWERS` 里的位置 / Where the answers to this kind of question are in `ANSWERS`."""
    checks.one_of(kind, "kind", KINDS)
    ends = [*_FIRST.values(), len(ANSWERS)]
    place = KINDS.index(kind)
    return range(ends[place], ends[place + 1])


@typed
def question(kind: str, about: int, language: str = "en", wording: int = 0) -> str:
    """一个问题的话 / A question in words: question("where", 0) → "Where is the dog?".

    `about`：东西的编号；kind 是 "what" 时，是位置的编号。

    `about`: the number of a thing; where kind is "what", that of a place.
    """
    checks.one_of(kind, "kind", KINDS)
    checks.one_of(language, "language", LANGUAGES)
    checks.index(about, "about", _count_about(kind))
    checks.index(wording, "wording", WORDINGS)
    if kind == "what":
        zh, en = PLACES[about]
        said = {"zh": (f"{zh}是什么？", f"{zh}角有什么？"),
                "en": (f"What is at the {en}?", f"What is in the {en} corner?")}
    else:
        thing = THINGS[about]
        said = {
            "how many": {"zh": (f"有几{thing.measure}{thing.zh}？", f"图里有多少{thing.measure}{thing.zh}？"),
                         "en": (f"How many {thing.plural} are there?", f"How many {thing.plural} do you see?")},
            "whether": {"zh": (f"有{thing.zh}吗？", f"图里有没有{thing.zh}？"),
                        "en": (f"Is there {thing.article}?", f"Do you see {thing.article}?")},
            "where": {"zh": (f"{thing.zh}在哪里？", f"{thing.zh}在哪个角？"),
                      "en": (f"Where is the {thing.en}?", f"In which corner is the {thing.en}?")},
        }[kind]
    return said[language][wording]


def questions() -> list[str]:
    """所有的问题 / All questions there are, in the order of `question_number`."""
    return [question(kind, about, language, wording) for kind in KINDS for language in LANGUAGES
            for wording in range(WORDINGS) for about in range(_count_about(kind))]


def question_number(asked: dict[str, Tensor]) -> Tensor:
    """`draw` 给出的问题在 `questions()` 里的位置 / Where the questions that `draw` gave are in `questions()`: (N,)."""
    length = torch.tensor([_count_about(kind) for kind in KINDS])
    start = (length.cumsum(0) - length) * len(LANGUAGES) * WORDINGS
    version = asked["language"] * WORDINGS + asked["wording"]
    return start[asked["kind"]] + version * length[asked["kind"]] + asked["about"]


def _count_about(kind: str) -> int:
    return len(PLACES) if kind == "what" else len(THINGS)


@typed
def reply(kind: str, about: int, answer: int, language: str = "en") -> str:
    """整句的回答 / An answer as a sentence: reply("how many", 0, answers_of("how many")[2]) → "There are two dogs."."""
    question(kind, about, language)
    choices = answers_of(kind)
    checks.require(answer in choices, f"{kind} 的答案需要在 {choices.start} 与 {choices.stop - 1} 之间，收到 {answer}",
                   f"an answer to {kind} must lie between {choices.start} and {choices.stop - 1}, got {answer}")
    value = answer - choices.start
    if kind == "what":
        zh, en = PLACES[about]
        return f"{zh}是{THINGS[value].zh}。" if language == "zh" else f"At the {en} is {THINGS[value].article}."
    thing = THINGS[about]
    if kind == "where":
        zh, en = PLACES[value]
        return f"{thing.zh}在{zh}。" if language == "zh" else f"The {thing.en} is at the {en}."
    if kind == "whether":
        if language == "zh":
            return f"有{thing.zh}。" if value else f"没有{thing.zh}。"
        return f"Yes, there is {thing.article}." if value else f"No, there is no {thing.en}."
    if language == "zh":
        return f"有{thing.counted(value, 'zh')}。" if value else f"一{thing.measure}{thing.zh}也没有。"
    return f"There {'is' if value == 1 else 'are'} {thing.counted(value, 'en')}."
