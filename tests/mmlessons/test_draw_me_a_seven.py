"""画一个七 / Draw me a seven."""

import math

import pytest
import torch
from torch import Tensor

from mmcore.flow import frechet_distance
from mmlessons.tasks import draw_me_a_seven as drawing
from mmlessons.tasks.draw_me_a_seven import DigitPictures, Drawer, Drawing
from mmlessons.tasks.learner import seeded
from mmlessons.tasks.seeds import over_seeds


@pytest.fixture(scope="module")
def drawer() -> Drawer:
    with seeded(0):
        return Drawer().eval()


# -- pictures and words -----------------------------------------------------------------------------------------------

def test_the_two_halves_are_equal_in_every_digit_and_share_no_picture() -> None:
    shown, aside = drawing.pictures("shown"), drawing.pictures("aside")
    for half in (shown, aside):
        assert half.x.shape == (560, 64)
        assert half.digit.bincount().tolist() == [56] * 10
        assert half.digit[:60].bincount().tolist() == [6] * 10  # so that the first few are fair too
        assert (half.x.min(), half.x.max()) == (-1, 1)
    assert torch.cdist(shown.x, aside.x).min() > 0.1
    others = drawing.pictures("others")
    assert len(others.x) == 640
    assert torch.cdist(others.x, shown.x).min() > 0.1


def test_every_spelling_belongs_to_one_digit_and_fits() -> None:
    for digit, row in enumerate(drawing.spellings()):
        for word in row:
            assert drawing.means(word) == digit
            assert bytes(drawing.write(word).tolist()).rstrip(b"\0").decode() == word
    assert [drawing.means(word) for word in ("seven", "七", "7", " VII ")] == [7] * 4
    assert drawing.means("sevn") is None


@pytest.mark.parametrize(("word", "says"), [("", "type a word first"), ("  ", "type a word first"),
                                            ("a" * 17, "this one has 17"), ("画一个七啊啊", "this one has 18")])
def test_no_word_and_too_long_a_word_are_refused(word: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        drawing.write(word)


def test_a_word_is_spelt_in_all_its_ways() -> None:
    words = drawing.spelt(torch.full((500,), 7), torch.Generator().manual_seed(0))
    assert {bytes(row).rstrip(b"\0").decode() for row in words.tolist()} == set(drawing.spellings()[7])


# -- the drawer -------------------------------------------------------------------------------------------------------

def test_hidden_words_are_hidden_and_few_pictures_are_few() -> None:
    generator = torch.Generator().manual_seed(0)
    batch = Drawing().draw(generator, without=0.0, shown=60)
    assert bool(batch["told"].all())
    assert not Drawing().draw(generator, without=1.0)["told"].any()
    few = drawing.pictures("shown").x[:60]
    assert torch.cdist(batch["x_1"], few).amin(1).max() < 1e-2
    with pytest.raises(ValueError, match="shown must be from 10 to 560"):
        Drawing().draw(generator, shown=5)


def test_where_the_word_is_hidden_it_makes_no_difference(drawer: Drawer) -> None:
    batch = Drawing().draw(torch.Generator().manual_seed(0))
    other = {**batch, "word": batch["word"].flip(0)}
    told = torch.zeros_like(batch["told"])
    assert torch.equal(drawer(**{**batch, "told": told})["v"], drawer(**{**other, "told": told})["v"])
    assert not torch.equal(drawer(**{**batch, "told": ~told})["v"], drawer(**{**other, "told": ~told})["v"])


def test_every_parameter_learns(drawer: Drawer) -> None:
    learner = drawing.learner(2, device="cpu")
    learner.train_step(without=0.5)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learner.model.parameters())


def test_the_same_seed_gives_the_same_drawings_and_the_last_frame_is_paper_and_ink(drawer: Drawer) -> None:
    one, other = drawing.drawings(drawer, steps=2, seed=3), drawing.drawings(drawer, steps=2, seed=3)
    assert torch.equal(one.x, other.x)
    assert one.x.abs().max() <= 1
    word, noise = drawing.write("七").expand(3, -1), torch.randn(3, 64)
    frames = drawing.draw(drawer, word, noise, 1.0, 4)
    assert frames.shape == (5, 3, 64)
    assert torch.equal(frames[0], noise)


def test_guidance_0_ignores_the_word_and_1_takes_it(drawer: Drawer) -> None:
    noise = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    drawn = {(word, w): drawing.draw(drawer, drawing.write(word).expand(2, -1), noise, w, 3)[-1]
             for word in ("七", "3") for w in (0.0, 1.0, 2.0)}
    assert torch.equal(drawn["七", 0.0], drawn["3", 0.0])
    assert not torch.equal(drawn["七", 1.0], drawn["3", 1.0])
    assert not torch.equal(drawn["七", 1.0], drawn["七", 2.0])


def test_it_learns() -> None:
    learner = drawing.learner(60, device="cpu")
    losses = [learner.train_step()["L"] for _ in range(60)]
    assert losses[0] > 1.2
    assert sum(losses[-5:]) / 5 < 0.9


# -- rules and measures -----------------------------------------------------------------------------------------------

def test_the_rules_do_what_they_say() -> None:
    shown = drawing.pictures("shown")
    assert torch.equal(drawing.by_rule("copy").x, shown.x)
    mean = drawing.by_rule("mean")
    assert len(mean.x.unique(dim=0)) == 10
    assert torch.allclose(mean.x[7], shown.x[shown.digit == 7].mean(0))
    blend, noisy = drawing.by_rule("blend"), drawing.by_rule("noisy copy")
    partner = 2 * blend.x - shown.x
    nearest = torch.cdist(partner, shown.x).min(1)
    assert nearest.values.max() < 1e-2
    assert torch.equal(shown.digit[nearest.indices], shown.digit)
    assert not (nearest.indices == torch.arange(560)).any()
    assert noisy.x.abs().max() <= 1


def test_a_copy_is_at_0_and_the_half_set_aside_is_at_0_from_itself() -> None:
    copied, aside = drawing.measure(drawing.by_rule("copy")), drawing.measure(drawing.pictures("aside"))
    assert copied.nearest.tolist() == [0.0] * 560
    assert copied.copied.tolist() == [1.0] * 560
    assert aside.copied.tolist() == [0.0] * 560
    assert aside.frechet == pytest.approx(0, abs=1e-4)
    assert copied.frechet == pytest.approx(
        frechet_distance(drawing.features(drawing.by_rule("copy")), drawing.features(drawing.pictures("aside"))).item())


def test_who_is_neither_shown_nor_set_aside_is_as_near_to_the_one_as_to_the_other() -> None:
    others = drawing.measure(drawing.pictures("others"))
    assert 0.45 < others.copied.mean() < 0.56
    halfway = DigitPictures((drawing.pictures("shown").x[:20] + drawing.pictures("aside").x[:20]) / 2,
                       drawing.pictures("shown").digit[:20])
    found = drawing.measure(halfway).copied
    assert set(found.tolist()) <= {0.0, 0.5, 1.0}


def test_the_judge_knows_digits_by_people_it_never_met_and_likes_the_mean_best() -> None:
    aside, mean = drawing.measure(drawing.pictures("aside")), drawing.measure(drawing.by_rule("mean"))
    assert aside.right.double().mean() > 0.82
    assert mean.right.all()
    assert mean.variety.max() < 1e-3


def test_the_interval_of_a_frechet_distance_lies_round_it_and_the_mean_of_seeds_is_their_mean() -> None:
    one, other = drawing.measure(drawing.by_rule("blend")), drawing.measure(drawing.by_rule("noisy copy"))
    gap = drawing.frechet_gap(other, one, draws=40)
    assert gap.value == pytest.approx(other.frechet - one.frechet, rel=1e-4)
    assert 0 < gap.low < gap.value < gap.high
    assert drawing.frechet_gap(one, one, draws=20).value == 0
    both = over_seeds([one, other])
    assert drawing.frechet_gap(both, draws=2).value == pytest.approx((one.frechet + other.frechet) / 2, rel=1e-4)
    with pytest.raises(ValueError, match="both sets must have as many drawings"):
        drawing.frechet_gap(one, drawing.measure(DigitPictures(torch.zeros(20, 64), torch.arange(10).repeat(2))))


def test_a_study_gives_every_measure() -> None:
    found = drawing.study("many", 1, steps=2)
    assert tuple(found.guided) == drawing.GUIDANCE
    assert tuple(found.stepped) == drawing.STEPPED
    assert found.guided[1.0].right.shape == (560,)
    assert tuple(drawing.study("few", 1, steps=2).guided) == (1.0,)
    with pytest.raises(ValueError, match="variant must be one of many, few"):
        drawing.study("all", 1)


# -- the example of one pixel -----------------------------------------------------------------------------------------

def test_the_best_velocity_of_one_pixel_is_the_mean_over_the_paths_through_it() -> None:
    generator = torch.Generator().manual_seed(0)
    x_1 = 2.0 * torch.randint(2, (400_000, 1), generator=generator) - 1
    x_0 = torch.randn(400_000, 1, generator=generator)
    for t, x in ((0.0, 1.0), (0.5, 0.3), (0.8, -0.4)):
        near = ((1 - t) * x_0 + t * x_1 - x).abs() < 0.02
        wanted = (x_1 - x_0)[near].mean().item()
        found = drawing.velocity_of_two(torch.tensor([[x]]), torch.tensor([[t]])).item()
        assert found == pytest.approx(wanted, abs=0.08)
    by_hand = (math.tanh(0.5 * 0.5 / 0.25) - 0.5) / 0.5  # E[x_1 | x_t] = tanh(t x / (1 − t)²)
    assert drawing.velocity_of_two(torch.tensor([[0.5]]), torch.tensor([[0.5]])).item() == pytest.approx(by_hand)


def test_pictures_for_people() -> None:
    page = drawing.to_pixels(torch.stack([torch.full((64,), 2.0), torch.full((64,), -2.0), torch.zeros(64)]), 2)
    assert page.shape == (3, 2 * 9 * 8, 2 * 9 * 8)
    assert page[0, 0, 0] == 0  # ink
    assert page[0, 0, 80] == 255  # paper
    assert page[0, 80, 80] == 255  # and where no picture is

    def shades(x: Tensor) -> list[int]:
        return x.unique().tolist()
    assert shades(page) == [0, 128, 255]


# -- in colour --------------------------------------------------------------------------------------------------------

def test_no_green_heart_is_shown_and_the_hearts_that_were_not_are_all_green_hearts() -> None:
    shown, unseen = drawing.colour_pictures(), drawing.colour_pictures(unseen=True)
    green, heart = drawing.COLOURS.index("green"), drawing.THINGS.index("heart")
    assert len(shown.x) == 49
    assert not ((shown.colour == green) & (shown.thing == heart)).any()
    assert {green} == set(unseen.colour.tolist())
    assert {heart} == set(unseen.thing.tolist())
    for word in (shown.colour == green, shown.thing == heart):
        assert word.sum() > 5  # and yet it has met both words
    colours = unseen.x.view(5, 3, -1).mean(2)
    assert bool((colours[:, 1] > colours[:, 0]).all())  # more green than red


def test_the_rules_for_green_hearts() -> None:
    seen = drawing.colour_pictures()
    half = drawing.green_hearts_by_rule("half")
    apple = (seen.colour == drawing.COLOURS.index("green")) & (seen.thing == drawing.THINGS.index("apple"))
    yellow = (seen.colour == drawing.COLOURS.index("yellow")) & (seen.thing == drawing.THINGS.index("heart"))
    assert torch.allclose(2 * half, seen.x[apple] + seen.x[yellow])
    assert drawing.green_hearts_by_rule("sum").abs().max() <= 1
    assert drawing.nearer_to_green_hearts(drawing.colour_pictures(unseen=True).x).all()
    assert not drawing.nearer_to_green_hearts(seen.x).any()


def test_a_study_in_colour() -> None:
    found = drawing.colour_study(1, steps=2)
    for x in (found.green_heart, found.blue_heart, found.blue_apple):
        assert x.shape == (100, 768)
        assert x.abs().max() <= 1
    assert not torch.equal(found.green_heart, found.blue_heart)
    assert drawing.colour_pixels(found.blue_apple[:2]).shape == (2, 3, 64, 64)
