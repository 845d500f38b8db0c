"""检索成绩 / Retrieval scores, held against a count by loops."""

import pytest
import torch

from mmcore.ranking import mutual_scores, ranks, retrieval_scores
from tests.support import OnMPS


def test_ranks_equal_a_count_by_loops() -> None:
    S = torch.randn(20, 20, generator=torch.Generator().manual_seed(0))
    counted = [1 + sum(1 for j in range(20) if j != i and S[i, j] >= S[i, i]) for i in range(20)]
    assert ranks(S).tolist() == counted


def test_constant_features_earn_nothing() -> None:
    """余弦全是 1 时，平均余弦给满分，这里给 0 / Where every cosine is 1 the mean cosine is perfect; here it is 0."""
    scores = retrieval_scores(torch.ones(10, 10))
    assert scores == {"r@1": 0.0, "r@5": 0.0, "median_rank": 10.0, "chance": 0.1}


def test_scores_by_hand() -> None:
    """三个查询：第一名、第二名、与错误答案并列 / Three queries: first, second, and tied with a wrong answer."""
    S = torch.tensor([[.9, .1, .2], [.8, .5, .3], [.4, .0, .4]])
    assert ranks(S).tolist() == [1, 2, 2]
    assert retrieval_scores(S) == pytest.approx({"r@1": 1 / 3, "r@5": 1.0, "median_rank": 2.0, "chance": 1 / 3})


def test_the_fifth_is_among_the_first_five_and_the_sixth_is_not() -> None:
    S = torch.zeros(2, 7)
    S[0, 1:5], S[1, 1:6] = 1.0, 1.0
    S[:, 0] = 0.5
    right = torch.zeros(2, 7, dtype=torch.bool)
    right[:, 0] = True
    assert ranks(S, right).tolist() == [5, 6]
    assert retrieval_scores(S, right) == {"r@1": 0.0, "r@5": 0.5, "median_rank": 5.0, "chance": 1 / 7}


def test_the_best_of_several_right_answers_counts() -> None:
    S = torch.tensor([[.1, .9, .5, .2], [.3, .2, .1, .0]])
    positives = torch.tensor([[True, False, True, False], [False, False, True, True]])
    assert ranks(S, positives).tolist() == [2, 3]
    assert retrieval_scores(S, positives)["chance"] == 0.5


@pytest.mark.parametrize(("S", "positives", "match"), [
    (torch.ones(2, 3), None, r"without positives S must be square, got \(2, 3\)"),
    (torch.full((2, 2), torch.nan), None, "S holds NaN"),
    (torch.ones(2, 2), torch.zeros(2, 2, dtype=torch.bool), "at least one true in each row"),
])
def test_scores_that_cannot_be_ranked_are_refused(S: torch.Tensor, positives: torch.Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ranks(S, positives)


def test_scores_on_a_device_without_float64_are_those_of_the_cpu() -> None:
    S = torch.tensor([[.9, .1, .2], [.8, .5, .3], [.4, .0, .4]])
    right = torch.eye(3, dtype=torch.bool)
    with pytest.raises(TypeError, match="MPS has no float64"):
        (S.as_subclass(OnMPS) <= 1).double()
    assert retrieval_scores(S.as_subclass(OnMPS), right.as_subclass(OnMPS)) == retrieval_scores(S)


def test_both_directions_count_alike_and_several_right_answers_are_turned_with_the_scores() -> None:
    S, right = torch.tensor([[.9, .1, .2], [.8, .5, .3]]), torch.tensor([[True, False, False], [False, True, True]])
    there, back = retrieval_scores(S, right), retrieval_scores(S.T, right.T)
    assert (there["r@1"], back["r@1"]) == (0.5, 1.0)
    assert mutual_scores(S, right) == {key: (there[key] + back[key]) / 2 for key in there}
    assert mutual_scores(torch.eye(3))["r@1"] == 1
