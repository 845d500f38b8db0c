"""词序 / Word order."""

from collections import Counter

import pytest
import torch
from torch import Tensor

from mmcore import exchange
from mmcore.alignment import contrastive_loss
from mmlessons.data import scenes
from mmlessons.data.scenes import ARRANGEMENTS, LANGUAGES, THINGS, sentence
from mmlessons.tasks import word_order
from mmlessons.tasks.learner import Learner

TEST = scenes.load("test")


@pytest.fixture(scope="module")
def looking() -> word_order.Eyes:
    return word_order.eyes(0, 3, "cpu")


@pytest.fixture(scope="module")
def tiles(looking: word_order.Eyes) -> Tensor:
    return word_order.look(looking, TEST)


def words(text: str) -> Counter:
    return Counter(word_order.sentences().tokenizer.encode(text).tokens)


# -- the data ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("kind", "zh", "en"), [
    ("side", "狗在猫的左边。", "The dog is left of the cat."),
    ("height", "狗在猫的上面。", "The dog is above the cat."),
    ("count", "狗有两只，猫有一只。", "The dog twice, the cat once."),
])
def test_sentences(kind: str, zh: str, en: str) -> None:
    assert (sentence(kind, 0, 1, "zh"), sentence(kind, 0, 1)) == (zh, en)


def test_an_exchanged_sentence_has_the_same_words_and_is_another_sentence() -> None:
    for kind in ARRANGEMENTS:
        for a, b in word_order.pairs()[:60]:
            for language in LANGUAGES:
                said, other = sentence(kind, a, b, language), sentence(kind, b, a, language)
                assert said != other
                assert words(said) == words(other)
                names = [getattr(THINGS[thing], language) for thing in (a, b)]
                if THINGS[a].measure == THINGS[b].measure or kind != "count" or language == "en":
                    assert exchange(said.lower(), *names) == other.lower()


def test_two_equal_things_would_exchange_nothing_and_are_refused() -> None:
    with pytest.raises(ValueError, match="first and second are both 3: two different things"):
        sentence("side", 3, 3)


def test_every_sentence_is_true_of_its_picture_and_not_of_the_mirrored_one() -> None:
    drawn = scenes.draw_arrangements(300, torch.Generator().manual_seed(0), word_order.pairs())
    names = ("kind", "first", "second", "cells", "mirrored")
    for kind, a, b, cells, other in zip(*(drawn[name].tolist() for name in names), strict=True):
        at = [[k for k in range(4) if cells[k] == thing] for thing in (a, b)]
        assert [[k for k in range(4) if other[k] == thing] for thing in (b, a)] == at
        assert len({*cells}) == 3
        if ARRANGEMENTS[kind] == "count":
            assert [len(x) for x in at] == [2, 1]
        else:
            assert scenes.relation(*(x for x, in at))[1] == {
                "side": "to its right", "height": "below it"}[ARRANGEMENTS[kind]]


def test_places_are_equally_frequent_where_there_are_fewer_than_twelve() -> None:
    for kind, ways in zip(ARRANGEMENTS, scenes.arrangements.places().tolist(), strict=True):
        counts = Counter(map(tuple, ways))
        assert (len(counts), {*counts.values()}) == ((12, {1}) if kind == "count" else (2, {6}))


def test_in_one_draw_no_sentence_is_another_one_exchanged() -> None:
    drawn = word_order.candidates()
    two = torch.stack([drawn["first"], drawn["second"]], 1).sort(1).values
    assert len({*zip(drawn["kind"].tolist(), *two.T.tolist(), strict=True)}) == 500


def test_rows_point_at_the_sentences() -> None:
    table, drawn = word_order.sentences(), word_order.candidates(60)
    for exchanged in (False, True):
        said = word_order.said(drawn, exchanged)
        ids = table.of(word_order.row_of(drawn, exchanged), torch.device("cpu"))["input_ids"]
        for row, text in zip(ids.tolist(), said, strict=True):
            assert [i for i in row if i] == table.tokenizer.encode(text).ids
    assert table.tokenizer.token_to_id("[UNK]") not in table.input_ids
    assert table.input_ids.shape[1] <= word_order.WORDS


def test_seen_and_new_pairs_are_all_there_are() -> None:
    seen, new = word_order.pairs(), word_order.pairs("new")
    assert (len(seen), len(new), len({*seen, *new})) == (360, 75, 435)


# -- the models -------------------------------------------------------------------------------------------------------

def test_without_exchanged_captions_the_loss_is_2_1(looking: word_order.Eyes) -> None:
    task = word_order.Comparing(looking, 8)
    towers, batch = task.begin(torch.device("cpu")).model, task.draw(torch.Generator().manual_seed(0), 0.0)
    out = towers(batch["f"], batch["input_ids"], batch["attention_mask"], 0.1)
    assert {name: tuple(x.shape) for name, x in out.items()} == {
        "f_v": (8, 128), "f_t": (8, 128), "c": (0, 128), "S": (8, 8), "L": ()}
    assert torch.allclose(out["L"], contrastive_loss(out["f_v"], out["f_t"], 0.1), atol=1e-5)


@pytest.mark.parametrize(("share", "exchanged", "least", "most"), [
    (0.0, ARRANGEMENTS, 0, 0), (1.0, ARRANGEMENTS, 96, 96), (0.5, ARRANGEMENTS, 30, 66), (1.0, ("side",), 15, 50)])
def test_the_share_says_how_many_captions_are_exchanged(
        looking: word_order.Eyes, share: float, exchanged: tuple, least: int, most: int) -> None:
    batch = word_order.Comparing(looking, 96, exchanged).draw(torch.Generator().manual_seed(0), share)
    assert least <= len(batch["input_ids"]) - 96 <= most
    assert len(batch["input_ids"]) - 96 == batch["chosen"].sum()


def test_a_bag_of_words_gets_nothing_trained_or_not(looking: word_order.Eyes, tiles: Tensor) -> None:
    bag = word_order.learner(looking, 3, bag=True).finish(share=1.0).model
    for kind in ARRANGEMENTS:
        S = word_order.squares(bag, tiles, word_order.asked(kind, count=60))
        assert torch.equal(S[:, :, 0], S[:, :, 1])
        assert not word_order.order(S).text.any()


def test_who_cannot_see_gets_nothing(looking: word_order.Eyes, tiles: Tensor) -> None:
    blind = Learner(word_order.Writing(looking, 8, blind=True), 2, 0, "cpu").finish().model
    S = word_order.squares(blind, tiles, word_order.asked("side", count=60))
    assert torch.equal(S[:, 0], S[:, 1])
    assert not word_order.order(S).image.any()


@pytest.mark.parametrize("variant", word_order.VARIANTS)
def test_every_variant_learns_a_step_and_is_tested(
        monkeypatch: pytest.MonkeyPatch, looking: word_order.Eyes, variant: str) -> None:
    monkeypatch.setattr(word_order, "eyes", lambda seed, device: looking)
    found = word_order.study(variant, 1, 1)
    assert set(found.seen) == set(ARRANGEMENTS)
    for score in (*found.seen.values(), found.new, found.shift):
        assert not (score.group & ~score.text).any()
        assert not (score.group & ~score.image).any()
    assert len(found.new.group) == 75


def test_the_same_seed_gives_the_same_towers(looking: word_order.Eyes) -> None:
    first, again = (word_order.learner(looking, 2, 5, 8).finish(share=0.5).model for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_one_picture_and_every_caption_are_scored_alike_alone_and_together(
        looking: word_order.Eyes, tiles: Tensor) -> None:
    drawn = word_order.candidates(12)
    f, rows = tiles[drawn["cells"] % 31], word_order.row_of(drawn)
    for judge in (word_order.Towers(), word_order.OneTransformer(), word_order.Writer()):
        together = word_order.match(judge, f, rows)
        alone = torch.cat([word_order.match(judge, f[i:i + 1], rows[i:i + 1]) for i in range(12)])
        assert torch.allclose(together, alone, atol=1e-4)
        typed = word_order.fits(judge, f[0], word_order.said(drawn)[:1])
        assert torch.allclose(typed, alone[:1], atol=1e-4)


# -- a rule -----------------------------------------------------------------------------------------------------------

def test_who_sees_every_cell_right_answers_everything_by_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_order, "pixel_similarity", lambda pictures, known, crop: torch.eye(30))
    for kind in ARRANGEMENTS:
        S = word_order.by_rule(TEST, word_order.asked(kind, count=50))
        assert torch.equal(S[:, [0, 1], [0, 1]], torch.full((50, 2), 4.0))
        assert word_order.order(S).group.all()


def test_who_sees_all_things_alike_gets_nothing_by_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_order, "pixel_similarity", lambda pictures, known, crop: torch.ones(30, 30))
    for kind in ARRANGEMENTS:
        assert not word_order.order(word_order.by_rule(TEST, word_order.asked(kind, count=20))).text.any()


def test_a_sentence_and_a_picture_agree_as_their_cells_do() -> None:
    """狗在猫的左边：上面一排或下面一排 / The dog is left of the cat: in the upper row or in the lower."""
    told = {**word_order.asked("side", count=1), "first": torch.tensor([0]), "second": torch.tensor([1]),
            "cells": torch.tensor([[-1, -1, 0, 1]]), "mirrored": torch.tensor([[-1, -1, 1, 0]])}
    like = word_order.pixel_similarity(TEST.tiles[0, :2], word_order.training_set().tiles[:, :2], True)
    right, wrong = like[0, 0] + like[1, 1] + 2, like[0, 1] + like[1, 0] + 2
    assert torch.allclose(word_order.by_rule(TEST, told), torch.stack([right, wrong, wrong, right]).view(1, 2, 2))


def test_a_search_by_the_rule_ranks_captions_by_what_the_rule_says_of_each_pair() -> None:
    asked, told = word_order.candidates(12), ("kind", "first", "second")
    S = torch.stack([word_order.by_rule(TEST, {**asked, "cells": cells.expand(12, -1)})[:, 0, 0]
                     for cells in asked["cells"]])
    ranks = [1 + sum(other >= row[i] for j, other in enumerate(row) if j != i) for i, row in enumerate(S.tolist())]
    assert word_order.found_by_rule(TEST, asked).tolist() == ranks
    assert len({tuple(asked[name][i].item() for name in told) for i in range(12)}) == 12


# -- clear errors -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda w: w.study("nonsense", 1), ValueError, "variant must be one of ordinary, exchanged"),
    (lambda w: w.asked("nonsense"), ValueError, "kinds must be one of side, height, count"),
    (lambda w: w.asked("side", "nonsense"), ValueError, "which must be one of seen, new"),
    (lambda w: w.asked("side", "new", 76), ValueError, "count must be from 1 to 75, got 76"),
    (lambda w: w.squares(torch.nn.Linear(2, 2), torch.ones(31, 128), w.asked("side")), TypeError, "must have match"),
    (lambda w: w.squares(w.Towers(), torch.ones(30, 128), w.asked("side")), ValueError, r"tiles must have shape"),
    (lambda w: w.fits(w.Towers(), torch.ones(4, 128), ["The dog is right of the cat."]), ValueError,
     "never learned: right"),
    (lambda w: w.fits(w.Towers(), torch.ones(4, 128), ["dog " * 20]), ValueError, "may have 14 tokens at most"),
])
def test_what_is_wrong_is_said_clearly(call, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        call(word_order)


def test_a_share_that_is_none_changes_nothing(looking: word_order.Eyes) -> None:
    learner = word_order.learner(looking, 3, 1, 8)
    before = [p.clone() for p in learner.model.parameters()]
    for bad in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="share must be"):
            learner.train_step(share=bad)
    assert all(torch.equal(a, b) for a, b in zip(before, learner.model.parameters(), strict=True))
