"""场景数据 / The scenes data."""

import re
from itertools import combinations, permutations
from math import comb

import pytest
import torch
from torch import Tensor

from mmlessons.data import emoji, scenes
from mmlessons.data.scenes import ANSWERS, CELLS, EMPTY, KINDS, LANGUAGES, PLACES, THINGS, WORDINGS

N = 4000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def train() -> scenes.Scenes:
    return scenes.load("train")


@pytest.fixture(scope="module")
def drawn(train: scenes.Scenes) -> dict[str, Tensor]:
    return train.draw(N, generator())


@pytest.fixture(scope="module")
def described(train: scenes.Scenes) -> dict[str, Tensor]:
    return train.draw_to_describe(N, generator())


def rows(drawn: dict[str, Tensor]) -> list[dict]:
    return [dict(zip(drawn, values, strict=True)) for values in zip(*(x.tolist() for x in drawn.values()), strict=True)]


def by_hand(kind: str, cells: list[int], about: int) -> int:
    if kind == "what":
        return cells[about]
    if kind == "how many":
        return cells.count(about)
    return int(about in cells) if kind == "whether" else cells.index(about)


# -- facts, questions, answers ----------------------------------------------------------------------------------------

def test_every_answer_is_the_one_that_the_facts_give(drawn: dict[str, Tensor]) -> None:
    assert set((drawn["cells"] != EMPTY).sum(1).tolist()) == {1, 2, 3, 4}
    for row in rows(drawn):
        kind, cells, about = KINDS[row["kind"]], row["cells"], row["about"]
        value = row["answer"] - scenes.answers_of(kind).start
        assert value == by_hand(kind, cells, about)
        assert row["answer"] in scenes.answers_of(kind)
        if kind == "where":
            assert cells.count(about) == 1, "where it is must have one answer"
        if kind == "what":
            assert cells[about] != EMPTY


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_and_answers_are_balanced_as_the_card_says(drawn: dict[str, Tensor], kind: str) -> None:
    mine = drawn["kind"] == KINDS.index(kind)
    choices = scenes.answers_of(kind)
    count = torch.bincount(drawn["answer"][mine] - choices.start, minlength=len(choices)).double()
    assert abs(mine.double().mean() - 1 / len(KINDS)) < 0.03
    assert ((count / count.sum() - 1 / len(choices)).abs() < 0.05).all()


def test_answers_of_all_kinds_are_all_answers_once() -> None:
    assert [k for kind in KINDS for k in scenes.answers_of(kind)] == list(range(len(ANSWERS)))
    assert [ANSWERS[k][1] for k in scenes.answers_of("whether")] == ["no", "yes"]
    assert [ANSWERS[k] for k in scenes.answers_of("where")] == list(PLACES)
    assert [ANSWERS[k][1] for k in scenes.answers_of("how many")] == ["zero", "one", "two", "three", "four"]


def test_the_same_seed_gives_the_same_scenes_and_another_one_does_not(train: scenes.Scenes) -> None:
    one, again, other = (train.draw(50, generator(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["cells"], other["cells"])


# -- pairs and bias ---------------------------------------------------------------------------------------------------

def test_things_that_are_apart_meet_in_every_new_scene_and_in_no_seen_one(train, drawn, described) -> None:
    apart = scenes.apart()
    assert torch.equal(apart, apart.T)
    assert not apart.diagonal().any()
    assert apart.sum(1).tolist() == [5] * len(THINGS)

    def meet(cells: list[int]) -> bool:
        there = [thing for thing in cells if thing != EMPTY]
        return any(bool(apart[a, b]) for a in there for b in there)

    for seen, draw in ((drawn, train.draw), (described, train.draw_to_describe)):
        new = draw(300, generator(), pairs="new")
        assert len(new["cells"]) == 300
        assert all(meet(cells) for cells in new["cells"].tolist())
        assert not any(meet(cells) for cells in seen["cells"].tolist())


@pytest.mark.parametrize("turned", [False, True])
def test_the_bias_makes_whether_depend_on_the_thing_asked_about_and_turned_round_it_says_the_opposite(train, turned):
    drawn = train.draw(N, generator(), ["whether"], bias=0.9, turned=turned)
    assert set(drawn["kind"].tolist()) == {KINDS.index("whether")}
    yes = drawn["answer"] == scenes.answers_of("whether")[1]
    even = drawn["about"] % 2 == 0
    shares = yes[even].double().mean(), yes[~even].double().mean()
    wanted = (0.1, 0.9) if turned else (0.9, 0.1)
    assert shares == pytest.approx(wanted, abs=0.03)


# -- pictures ---------------------------------------------------------------------------------------------------------

def test_a_picture_shows_the_drawing_of_each_thing_in_its_cell_and_white_where_nothing_is(train: scenes.Scenes) -> None:
    data = emoji.load()
    cells, artist = torch.tensor([[0, EMPTY, 7, 0], [29, 28, EMPTY, EMPTY]]), torch.tensor([1, 4])
    pictures = train.pictures(cells, artist)
    assert pictures.shape == (2, 3, 64, 64)
    names = data.names("en")
    for n in range(2):
        own = data.pictures[data.by_role("train")[int(artist[n])]]
        for p in range(CELLS):
            y, x = 32 * (p // 2), 32 * (p % 2)
            tile = pictures[n, :, y:y + 32, x:x + 32]
            thing = int(cells[n, p])
            assert torch.equal(tile, torch.full_like(tile, 255) if thing == EMPTY
                               else own[names.index(THINGS[thing].concept)])
    assert torch.equal(scenes.join(scenes.split(pictures)), pictures)


def test_the_splits_have_the_artists_of_the_emoji_data_and_none_twice() -> None:
    data = emoji.load()
    titles = [scenes.load(role).artists for role in scenes.ROLES]
    assert titles == [tuple(data.artists[a].title for a in data.by_role(role)) for role in scenes.ROLES]
    assert [len(names) for names in titles] == [5, 1, 1, 1]


# -- words ------------------------------------------------------------------------------------------------------------

SAID = {
    ("what", 0, "zh"): ["左上是什么？", "左上角有什么？"],
    ("what", 3, "en"): ["What is at the bottom right?", "What is in the bottom right corner?"],
    ("how many", 0, "zh"): ["有几只狗？", "图里有多少只狗？"],
    ("how many", 4, "en"): ["How many fish are there?", "How many fish do you see?"],
    ("whether", 7, "en"): ["Is there an apple?", "Do you see an apple?"],
    ("whether", 25, "zh"): ["有闹钟吗？", "图里有没有闹钟？"],
    ("where", 29, "en"): ["Where is the snowman?", "In which corner is the snowman?"],
    ("where", 18, "zh"): ["船在哪里？", "船在哪个角？"],
}


@pytest.mark.parametrize(("kind", "about", "language"), SAID)
def test_questions_are_said_in_good_grammar(kind: str, about: int, language: str) -> None:
    assert [scenes.question(kind, about, language, k) for k in range(WORDINGS)] == SAID[kind, about, language]


@pytest.mark.parametrize(("kind", "about", "value", "zh", "en"), [
    ("what", 0, 2, "左上是大象。", "At the top left is an elephant."),
    ("how many", 16, 2, "有两辆自行车。", "There are two bicycles."),
    ("how many", 29, 3, "有三个雪人。", "There are three snowmen."),
    ("how many", 4, 1, "有一条鱼。", "There is one fish."),
    ("how many", 0, 0, "一只狗也没有。", "There are no dogs."),
    ("whether", 25, 1, "有闹钟。", "Yes, there is an alarm clock."),
    ("whether", 25, 0, "没有闹钟。", "No, there is no alarm clock."),
    ("where", 1, 3, "猫在右下。", "The cat is at the bottom right."),
])
def test_answers_are_whole_sentences_in_good_grammar(kind, about, value, zh, en) -> None:
    answer = scenes.answers_of(kind)[value]
    assert (scenes.reply(kind, about, answer, "zh"), scenes.reply(kind, about, answer, "en")) == (zh, en)


def test_question_number_finds_the_words_of_a_question(drawn: dict[str, Tensor]) -> None:
    texts = scenes.questions()
    assert len(set(texts)) == len(texts) == 376
    for row, number in zip(rows(drawn), scenes.question_number(drawn).tolist(), strict=True):
        assert texts[number] == scenes.question(KINDS[row["kind"]], row["about"], LANGUAGES[row["language"]],
                                                row["wording"])


# -- captions ---------------------------------------------------------------------------------------------------------

CAPTIONS = {
    ((0, 1, -1, -1), "reading"): ("左上有一只狗，它右边有一只猫。", "A dog at the top left, a cat to its right."),
    ((0, 1, -1, -1), "reverse"): ("右上有一只猫，它左边有一只狗。", "A cat at the top right, a dog to its left."),
    ((-1, 7, 25, -1), "reading"): ("右上有一个苹果，它左下方有一个闹钟。",
                                   "An apple at the top right, an alarm clock to its lower left."),
    ((10, -1, 4, 2), "reverse"): ("右下有一头大象，它左边有一条鱼，它左上方有一个梨。",
                                  "An elephant at the bottom right, a fish to its left, a pear to its upper left."),
    ((-1, -1, -1, 20), "reading"): ("右下有一把钥匙。", "A key at the bottom right."),
}


@pytest.mark.parametrize(("cells", "order"), CAPTIONS)
def test_captions_are_said_in_good_grammar(cells: tuple[int, ...], order: str) -> None:
    found = tuple(scenes.caption(cells, language, order) for language in LANGUAGES)
    assert found == CAPTIONS[cells, order]


MEASURES = "".join({thing.measure for thing in THINGS})
PARTS = {"zh": re.compile(rf"(?P<where>[左右][上下]|它..?[边面方])有一[{MEASURES}](?P<what>.+)"),
         "en": re.compile(r"an? (?P<what>.+?) (?P<where>(at|to|above|below) .+)")}


def parse(said: str, language: str) -> tuple[list[int], list[int]]:
    """从说明倒推事实，和说的次序 / From a caption back to its facts, and the order in which it names them."""
    k = LANGUAGES.index(language)
    steps = {"右": (0, 1), "左": (0, -1), "下": (1, 0), "上": (-1, 0)}
    steps |= {"right": (0, 1), "left": (0, -1), "below": (1, 0), "above": (-1, 0), "lower": (1, 0), "upper": (-1, 0)}
    cells, named = [EMPTY] * CELLS, []
    for part in re.split("，|, ", said.rstrip("。.")):
        found = PARTS[language].fullmatch(part[0].lower() + part[1:])
        where = found["where"]
        if not named:
            cell = [place[k] for place in PLACES].index(where.removeprefix("at the "))
        else:
            moves = [move for word, move in steps.items() if word in where]
            row, column = named[0] // 2 + sum(m[0] for m in moves), named[0] % 2 + sum(m[1] for m in moves)
            assert row in (0, 1)
            assert column in (0, 1)
            cell = 2 * row + column
        assert cells[cell] == EMPTY
        cells[cell] = [thing.title[k] for thing in THINGS].index(found["what"])
        named.append(cell)
    return cells, named


def test_how_many_scenes_there_are_to_describe_and_how_many_of_those_drawn_anew_were_drawn_before(
        train: scenes.Scenes) -> None:
    """CARD.md 和第 5 课说的数 / What CARD.md and lesson 5 say: most scenes of one or two things are not new."""
    apart, things = scenes.apart(), range(len(THINGS))
    groups = [[group for group in permutations(things, count)
               if not any(apart[a, b] for a, b in combinations(group, 2))] for count in (1, 2, 3)]
    assert [comb(CELLS, count) * len(group) for count, group in enumerate(groups, 1)] == [120, 4320, 52800]
    learned, anew = (train.draw_to_describe(count, generator(seed))["cells"].tolist()
                     for count, seed in ((24_000, 1), (2000, 2)))
    known = {tuple(cells) for cells in learned}
    met = {count: [tuple(cells) in known for cells in anew if 4 - cells.count(EMPTY) == count] for count in (1, 2, 3)}
    share = {count: sum(found) / len(found) for count, found in met.items()}
    assert share[1] == 1
    assert 0.8 < share[2] < 0.9
    assert 0.1 < share[3] < 0.2
    assert all(0.3 < len(found) / len(anew) < 0.37 for found in met.values())


def test_a_caption_tells_all_the_facts_and_each_of_its_words_is_known(described: dict[str, Tensor]) -> None:
    known = {c for said in scenes.every_word() for c in re.findall(r"[a-z]+|.", said.lower())}
    relations = set()
    for row in rows(described):
        language, order = LANGUAGES[row["language"]], scenes.ORDERS[row["order"]]
        said = scenes.caption(row["cells"], language, order)
        filled = [cell for cell in range(CELLS) if row["cells"][cell] != EMPTY]
        filled = filled if order == "reading" else filled[::-1]
        assert parse(said, language) == (row["cells"], filled)
        assert {*re.findall(r"[a-z]+|.", said.lower())} <= known
        relations |= {scenes.relation(filled[0], cell)[1] for cell in filled[1:]}
    assert relations == {said for _, said in scenes.RELATIONS.values()}
    assert len(relations) == 8
    assert scenes.relation(2, 2) == ("", "")


def test_scenes_to_describe_are_balanced_as_the_card_says(described: dict[str, Tensor]) -> None:
    cells = described["cells"]
    filled = cells != EMPTY
    for count in (1, 2, 3):
        assert (filled.sum(1) == count).double().mean() == pytest.approx(1 / 3, abs=0.03)
    assert filled.double().mean(0).tolist() == pytest.approx([0.5] * CELLS, abs=0.03)
    assert all(len(set(row)) == len(row) for row in ([c for c in r if c != EMPTY] for r in cells.tolist()))
    for name in ("language", "order"):
        assert described[name].double().mean() == pytest.approx(0.5, abs=0.03)
    assert torch.bincount(described["artist"], minlength=5).min() > N / 6


# -- bad input --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda s: scenes.load("exam"), ValueError, "role must be one of train, validation, test, shift"),
    (lambda s: s.draw(0, generator()), ValueError, "count must be at least 1"),
    (lambda s: s.draw(2, 7), TypeError, "generator must be a Generator, got int"),
    (lambda s: s.draw(2, generator(), ["why"]), ValueError, "kinds must be one of what, how many"),
    (lambda s: s.draw(2, generator(), []), ValueError, "kinds must name one at least"),
    (lambda s: s.draw(2, generator(), pairs="old"), ValueError, "pairs must be one of seen, new"),
    (lambda s: s.draw(2, generator(), bias=1.5), ValueError, "bias must be from 0 to 1, got 1.5"),
    (lambda s: s.pictures(torch.zeros(1, 3, dtype=torch.int64), torch.tensor([0])), ValueError,
     r"cells must have shape \(1, 4\), got \(1, 3\)"),
    (lambda s: s.pictures(torch.zeros(1, 4), torch.tensor([0])), TypeError, "cells must be an int64 tensor"),
    (lambda s: s.pictures(torch.full((1, 4), 30), torch.tensor([0])), ValueError, "cells must lie between -1 and 29"),
    (lambda s: s.pictures(torch.zeros(1, 4, dtype=torch.int64), torch.tensor([5])), ValueError,
     "artist must lie between 0 and 4"),
    (lambda s: s.pictures(torch.zeros(1, 4, dtype=torch.int64), torch.tensor([0, 1])), ValueError,
     r"artist must have shape \(1\), got \(2\)"),
    (lambda s: s.draw_to_describe(0, generator()), ValueError, "count must be at least 1"),
    (lambda s: s.draw_to_describe(2, generator(), "old"), ValueError, "pairs must be one of seen, new"),
    (lambda s: scenes.caption([0, 1, 2, 3]), ValueError, "a caption names 1 to 3 things, the picture has 4"),
    (lambda s: scenes.caption([-1] * 4), ValueError, "a caption names 1 to 3 things, the picture has 0"),
    (lambda s: scenes.caption([0, 1, 30, -1]), ValueError, "cells must be 4 numbers from −1 .empty. to 29"),
    (lambda s: scenes.caption([0, -1, -1, -1], "fr"), ValueError, "language must be one of zh, en"),
    (lambda s: scenes.caption([0, -1, -1, -1], "en", "random"), ValueError, "order must be one of reading, reverse"),
    (lambda s: scenes.question("why", 0), ValueError, "kind must be one of"),
    (lambda s: scenes.question("what", 4), ValueError, "about must be below 4, got 4"),
    (lambda s: scenes.question("where", 0, "fr"), ValueError, "language must be one of zh, en"),
    (lambda s: scenes.question("where", 0, "en", 2), ValueError, "wording must be below 2"),
    (lambda s: scenes.reply("where", 0, 0), ValueError, "an answer to where must lie between 37 and 40, got 0"),
])
def test_bad_input_is_refused_in_both_languages(train: scenes.Scenes, call, error: type, match: str) -> None:
    with pytest.raises(error, match=match) as caught:
        call(train)
    assert " / " in str(caught.value)
