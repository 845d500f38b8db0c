"""区间：它说 95%，就该有 95% / Intervals: what says 95% must hold 95%."""

import math

import pytest
import torch

from mmlessons.intervals import interval, paired


def answers(right: int, wrong: int) -> torch.Tensor:
    return torch.tensor([True] * right + [False] * wrong)


def test_an_interval_agrees_with_the_normal_approximation_on_many_questions() -> None:
    found = interval(answers(700, 300))
    half = 1.96 * math.sqrt(0.7 * 0.3 / 1000)
    assert found.value == pytest.approx(0.7)
    assert found.low == pytest.approx(0.7 - half, abs=0.003)
    assert found.high == pytest.approx(0.7 + half, abs=0.003)


def test_nineteen_of_twenty_intervals_hold_the_true_score() -> None:
    generator = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(200):
        found = interval(torch.rand(100, generator=generator) < 0.7)
        held += found.low <= 0.7 <= found.high
    assert 0.90 <= held / 200 <= 0.99


def test_the_trainings_are_averaged_and_do_not_make_more_questions() -> None:
    one = answers(60, 40)
    assert interval(torch.stack([one, one, one])) == interval(one)


def test_full_marks_on_few_questions_promise_less_than_on_many() -> None:
    few, many = interval(answers(20, 0)), interval(answers(2000, 0))
    assert few.low == pytest.approx(0.025 ** (1 / 20))  # the exact binomial bound: p ** n = 0.025
    assert few.low < many.low < many.high == 1
    none = interval(answers(0, 20))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(1 - few.low)


def test_two_rules_are_compared_question_by_question() -> None:
    weak = answers(60, 40)
    strong = weak.clone()
    strong[60:68] = True  # right wherever the other is, and eight times more
    apart = paired(strong, weak)
    assert apart.value == pytest.approx(0.08)
    assert apart.low > 0
    assert interval(strong).low < interval(weak).high  # their own intervals overlap and would not tell


def test_that_two_rules_never_differed_leaves_room_for_both_to_be_the_better_one() -> None:
    few, many = (paired(answers(n, n), answers(n, n)) for n in (5, 500))
    assert few.value == many.value == 0
    assert few.low < many.low < 0 < many.high < few.high
    assert few.high == pytest.approx(1 - 0.025 ** (1 / 10))


@pytest.mark.parametrize("scores", [torch.tensor([1.0]), torch.zeros(2, 2, 2), torch.zeros(0), torch.zeros(0, 3),
                                    torch.tensor([1.0, math.nan]), torch.tensor([1.0, math.inf])])
def test_what_has_no_interval_is_refused_in_both_languages(scores: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"scores .*[需有].* / scores "):
        interval(scores)


def test_other_questions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"同样的题.* / the same questions"):
        paired(answers(3, 3), answers(3, 4))
