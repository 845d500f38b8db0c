"""读者的练习怎样被核对 / How readers' exercises are checked."""

from dataclasses import replace

import pytest
import torch

from mmlessons import exercises as lesson

CASES = [lesson.Case((2,), 4.0, "二的平方", "two squared"), lesson.Case((3,), 9.0, "三的平方", "three squared")]
START, HINT = ("想想正方形。", "Think of a square."), ("乘以自己", "times itself")


@pytest.mark.filterwarnings("error")  # an answer with a gradient is compared without a warning
@pytest.mark.parametrize(("answer", "ok", "says"), [
    (lambda x: x * x, True, "all 2 checks passed"),
    (lambda x: torch.tensor(1.0 * x, requires_grad=True) * x, True, "all 2 checks passed"),
    (lambda x: None, False, "No answer yet. Think of a square."),
    (lambda x: 2 * x, False, "three squared: expected 9, got 6. Hint: times itself"),
    (lambda x: 1 / 0, False, "your code raised ZeroDivisionError"),
    (lambda x: "four", False, "expected one number, got str"),
    (lambda x: "4", False, "expected one number, got str"),
    (lambda x: 10 ** 400, False, "expected one number, got int"),
    (lambda x: torch.ones(2), False, "expected one number, got Tensor"),
    (lambda x: float("nan"), False, "expected 4, got nan"),
])
def test_an_exercise_says_what_is_wrong_and_never_raises(answer: object, ok: bool, says: str) -> None:
    verdict = lesson.check(answer, CASES, START, HINT)
    assert verdict.ok is ok
    assert says in verdict.en
    assert verdict.zh
    assert "<script>" not in lesson.Verdict(False, "<script>", "<script>")._repr_html_()


def root(x: float) -> float:
    if x < 0:
        raise ValueError(f"expected a number from 0 up, got {x}")
    return x**0.5


@pytest.mark.parametrize(("answer", "ok", "says"), [
    (root, True, "all 1 checks passed"),
    (lambda x: 0.0, False, "expected a ValueError, and there was no error"),
    (lambda x: None, False, "No answer yet. Think of a square."),
    (lambda x: [][0], False, "expected a ValueError, got IndexError: list index out of range"),
    (lambda x: root(-1), False, "the ValueError should tell -4, and says: expected a number from 0 up, got -1. Hint"),
])
def test_an_exercise_that_wants_an_error_says_what_is_wrong_with_the_one_it_gets(answer, ok, says) -> None:
    refused = lesson.Case((-4,), lesson.Refusal(says=("-4",)), "负数", "a negative number")
    verdict = lesson.check(answer, [refused], START, HINT)
    assert verdict.ok is ok
    assert says in verdict.en
    assert verdict.zh


def test_a_case_may_measure_what_makes_use_of_the_answer() -> None:
    def answer(x):
        return x * x

    twice = lesson.Case((2,), 8.0, "平方的两倍", "twice the square", of=lambda x: 2 * answer(x))
    assert lesson.check(answer, [twice], START, HINT).ok
    assert "expected 9, got 8" in lesson.check(answer, [replace(twice, expected=9.0)], START, HINT).en


def test_an_answer_that_changes_its_input_spoils_no_later_case_and_a_case_may_have_its_own_hint() -> None:
    x = torch.ones(2)
    own = lesson.Case((x,), 3.0, "三", "three", hint=("再加一", "add one"))
    verdict = lesson.check(lambda t: t.add_(1)[0], [lesson.Case((x,), 2.0, "二", "two"), own], START, HINT)
    assert x.tolist() == [1, 1]
    assert lesson.check(lambda ts: ts[0].add_(1)[0], [lesson.Case(([x],), 2.0, "二", "two")] * 2, START, HINT).ok
    assert verdict.en == "three: expected 3, got 2. Hint: add one"


WANTED = torch.tensor([[1.0, 2.0], [3.0, 0.0]])


@pytest.mark.parametrize(("got", "ok", "says"), [
    (WANTED.double() * (1 + 1e-5), True, "all 1 checks passed"),
    (WANTED.clone().requires_grad_(), True, "all 1 checks passed"),
    (WANTED.T, False, "table: at [0, 1] expected 2, got 3. Hint: times itself"),
    (WANTED + 1e-6 * torch.eye(2), False, "at [1, 1] expected 0, got 1e-06"),
    (WANTED * torch.nan, False, "at [0, 0] expected 1, got nan"),
    (WANTED[0], False, "expected a tensor of shape (2, 2), got (2)"),
    (WANTED[:, :, None], False, "expected a tensor of shape (2, 2), got (2, 2, 1)"),
    (WANTED.tolist(), False, "expected a tensor of shape (2, 2), got list"),
    (WANTED + 0j, False, "got (2, 2) torch.complex64"),
    ("four", False, "expected a tensor of shape (2, 2), got str"),
    (None, False, "No answer yet. Think of a square."),
])
def test_an_exercise_that_asks_for_a_tensor_compares_shape_and_every_number(got: object, ok: bool, says: str) -> None:
    verdict = lesson.check(lambda: got, [lesson.Case((), WANTED, "表", "table")], START, HINT)
    assert verdict.ok is ok
    assert says in verdict.en


ABLE = [lesson.Candidate((0.9,), "会的", "who can"), lesson.Candidate((0.7,), "也会的", "who can as well")]
UNABLE = [lesson.Candidate((0.1,), "不会的", "who cannot"), lesson.Candidate((0.3,), "也不会的", "who cannot either")]


@pytest.mark.parametrize(("test", "ok", "says"), [
    (lambda score: score, True, "at least 0.70 for who can as well, at most 0.30 for who cannot either"),
    (lambda score: torch.tensor(score), True, "Told apart"),
    (lambda score: 0.5, False, "Not told apart: 0.50 for who can, 0.50 for who cannot. Hint: times itself"),
    (lambda score: score / 4, False, "Not told apart: 0.17 for who can as well, 0.07 for who cannot either"),
    (lambda score: 1 - score, False, "Not told apart: 0.10 for who can, 0.90 for who cannot"),
    (lambda score: float("nan"), False, "who can: expected one number, got nan"),
    (lambda score: float("inf"), False, "who can: expected one number, got inf"),
    (lambda score: "0.9", False, "who can: expected one number, got str"),
    (lambda score: 1 / 0, False, "who can: your code raised ZeroDivisionError"),
    (lambda score: None, False, "No answer yet. Think of a square."),
])
def test_a_reader_s_test_must_tell_the_worst_of_the_able_from_the_best_of_the_unable(test, ok, says) -> None:
    verdict = lesson.separates(test, ABLE, UNABLE, START, HINT)
    assert verdict.ok is ok
    assert says in verdict.en
    assert lesson.separates(lambda score: score, ABLE, UNABLE, START, HINT, margin=0.5).ok is False
