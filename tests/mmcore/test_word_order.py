"""(9.1)–(9.4) 词序 / (9.1) to (9.4) word order, held against explicit loops in float64."""

import itertools
import math

import pytest
import torch
from torch import Tensor

import mmcore
from mmcore.alignment import contrastive_loss
from mmcore.ranking import ranks
from mmcore.word_order import exchange, exchanged_loss, winoground_scores

A, B, C = (torch.randn(n, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(n)) for n in (5, 5, 3))
B = A + B


def by_loops(a: Tensor, b: Tensor, c: Tensor, tau: float) -> float:
    """(9.4) 逐项照写 / (9.4) written out term by term, in Python numbers."""
    def e(x: Tensor, y: Tensor) -> float:
        dot = sum(float(p) * float(q) for p, q in zip(x, y, strict=True))
        lengths = sum(float(p) ** 2 for p in x) * sum(float(q) ** 2 for q in y)
        return math.exp(dot / math.sqrt(lengths) / tau)

    total, n = 0.0, len(a)
    for i in range(n):
        captions = sum(e(a[i], b[j]) for j in range(n)) + sum(e(a[i], c[m]) for m in range(len(c)))
        pictures = sum(e(b[i], a[j]) for j in range(n))
        total += math.log(e(a[i], b[i]) / captions) + math.log(e(b[i], a[i]) / pictures)
    return -total / (2 * n)


@pytest.mark.formula("9.4")
@pytest.mark.parametrize("tau", [0.02, 0.07, 1.0])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_9_4_equals_its_explicit_loops(tau: float, count: int) -> None:
    assert exchanged_loss(A, B, C[:count], tau).item() == pytest.approx(by_loops(A, B, C[:count], tau), rel=1e-10)


def test_9_4_without_exchanged_captions_is_2_1() -> None:
    assert torch.allclose(exchanged_loss(A, B, C[:0], 0.1), contrastive_loss(A, B, 0.1), rtol=1e-12)


def test_9_4_gradient_is_the_gradient_of_the_formula() -> None:
    a, b, c, tau = (x.clone().requires_grad_() for x in (A, B, C, torch.tensor(0.3, dtype=torch.float64)))
    assert torch.autograd.gradcheck(exchanged_loss, (a, b, c, tau))


@pytest.mark.formula("9.1")
@pytest.mark.formula("9.2")
@pytest.mark.formula("9.3")
def test_9_1_to_9_3_equal_their_explicit_loops_ties_included() -> None:
    S = torch.randint(4, (200, 2, 2), generator=torch.Generator().manual_seed(0)).double()
    found = winoground_scores(S)
    for n, ((s00, s01), (s10, s11)) in enumerate(S.tolist()):
        text, image = s00 > s01 and s11 > s10, s00 > s10 and s11 > s01
        assert [found[name][n].item() for name in ("text", "image", "group")] == [text, image, text and image]


def test_the_chances_are_a_quarter_a_quarter_and_a_sixth() -> None:
    """四个不同的数有 24 种次序 / Four different numbers have 24 orders: 6, 6 and 4 of them are right."""
    S = torch.tensor(list(itertools.permutations(range(4)))).view(24, 2, 2).double()
    assert [right.sum().item() for right in winoground_scores(S).values()] == [6, 6, 4]


def test_who_counts_words_gets_nothing_however_the_words_are_weighed() -> None:
    """两句用词相同，词袋的特征就相同 / The two captions have the same words, so a bag of words has one feature."""
    words = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    dog, left, cat = words[:3]
    captions = torch.stack([(dog + left + cat) / 3, (cat + left + dog) / 3])
    S = (torch.randn(50, 2, 4, generator=torch.Generator().manual_seed(1)) @ captions.double().float().T)
    S = S.round(decimals=4)  # what the order of summing leaves
    assert not winoground_scores(S)["group"].any()
    assert not winoground_scores(S)["text"].any()


def test_fault_18_exchanged_captions_that_exchange_nothing_would_punish_the_right_answer() -> None:
    """对调了两个相同的词，“换过的”就是对的那一句 / Two equal words exchanged leave the right caption as a negative."""
    perfect = 20 * torch.eye(8)
    right, wrong = perfect[:4], perfect[4:]
    assert exchanged_loss(right, right, wrong, 0.05) < 1e-3
    assert exchanged_loss(right, right, right, 0.05) > 0.3  # ln 2 / 2, however well it has learned
    S = torch.stack([torch.stack([right @ right.T, right @ right.T], 2).diagonal().T] * 2, 1)
    assert not winoground_scores(S)["text"].any()  # and a test with such captions gives everybody 0
    with pytest.raises(ValueError, match="one and other are both 'dog'"):
        exchange("The dog is left of the dog.", "dog", "dog")
    with pytest.raises(ValueError, match="text does not hold other, 'cat'"):
        exchange("The dog is left of the catfish.", "dog", "cat")


def test_a_perfect_search_may_know_nothing_of_the_order() -> None:
    """每个场景的两句一样好，检索仍是满分 / Both captions of each scene fit alike, and the search is still perfect."""
    S = torch.eye(6)
    assert bool((ranks(S) == 1).all())
    pairs = torch.ones(6, 2, 2)
    assert not winoground_scores(pairs)["group"].any()


@pytest.mark.parametrize(("text", "one", "other", "wanted"), [
    ("The dog is left of the cat.", "dog", "cat", "The cat is left of the dog."),
    ("狗在猫的左边。", "狗", "猫", "猫在狗的左边。"),
    ("The alarm clock is above the car.", "alarm clock", "car", "The car is above the alarm clock."),
    ("大象有两头，鱼有一条。", "两", "一", "大象有一头，鱼有两条。"),
    ("A cat, a cat, a dog.", "cat", "dog", "A dog, a dog, a cat."),
])
def test_two_words_change_places_wherever_they_stand(text: str, one: str, other: str, wanted: str) -> None:
    assert exchange(text, one, other) == wanted
    assert exchange(wanted, one, other) == text


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="S holds NaN"):
        winoground_scores(torch.full((1, 2, 2), torch.nan))
    with pytest.raises(ValueError, match="S must have shape"):
        winoground_scores(torch.ones(3, 2, 3))
    with pytest.raises(ValueError, match="tau must be positive"):
        exchanged_loss(A, B, C, 0.0)
    assert mmcore.exchange is exchange
