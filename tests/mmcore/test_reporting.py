"""(12.1)–(12.4) 通用的成绩 / (12.1) to (12.4) scores as others report them, against explicit loops in float64."""

import math

import pytest
import torch
from torch import Tensor

from mmcore.ranking import retrieval_scores
from mmcore.reporting import calibration_error, prompt_ensemble, recall_at, yes_no_scores


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.formula("12.1")
@pytest.mark.parametrize("k", [1, 2, 5])
def test_12_1_equals_its_explicit_loops_ties_included(k: int) -> None:
    S = (2 * draws(40, 9)).round()  # ties
    positives = draws(40, 9, seed=1) > 0.5
    positives[:, 0] |= ~positives.any(1)
    wanted = []
    for scores, mine in zip(S.tolist(), positives.tolist(), strict=True):
        best = math.inf
        for j, right in enumerate(mine):
            if right:
                before = sum(1 for x, own in zip(scores, mine, strict=True) if not own and x >= scores[j])
                best = min(best, 1 + before)
        wanted.append(best <= k)
    assert recall_at(S, positives, k).tolist() == wanted


def test_12_1_with_five_captions_a_picture_is_the_protocol_of_coco() -> None:
    """图找句：五句里任何一句；句找图：每句一次 / Any of five captions; and each caption asks for its picture."""
    positives = torch.eye(6).repeat_interleave(5, 1).bool()  # (6, 30)
    S = draws(6, 30)
    top = S.topk(5).indices
    assert recall_at(S, positives, 5).tolist() == [bool((row // 5 == i).any()) for i, row in enumerate(top)]
    assert recall_at(S.T, positives.T).tolist() == [S[:, j].argmax().item() == j // 5 for j in range(30)]


def test_12_1_with_one_right_answer_is_the_recall_of_retrieval_scores() -> None:
    S = draws(20, 20)
    found = retrieval_scores(S)
    for k in (1, 5):
        assert recall_at(S, torch.eye(20).bool(), k).double().mean().item() == pytest.approx(found[f"r@{k}"])


@pytest.mark.formula("12.2")
def test_12_2_equals_its_explicit_loops() -> None:
    t = draws(3, 4, 5)
    found = prompt_ensemble(t)
    for k in range(3):
        mean = [0.0] * 5
        for p in range(4):
            length = math.sqrt(sum(x * x for x in t[k, p].tolist()))
            mean = [m + x / length / 4 for m, x in zip(mean, t[k, p].tolist(), strict=True)]
        length = math.sqrt(sum(m * m for m in mean))
        assert found[k].tolist() == pytest.approx([m / length for m in mean], rel=1e-12)


def test_12_2_a_long_prompt_has_no_louder_voice_and_one_prompt_is_itself() -> None:
    t = draws(2, 3, 4)
    scaled = t * torch.tensor([1.0, 100.0, 0.01], dtype=torch.float64)[None, :, None]
    assert torch.allclose(prompt_ensemble(t), prompt_ensemble(scaled))
    assert torch.allclose(prompt_ensemble(t[:, :1]), t[:, 0] / t[:, 0].norm(dim=1, keepdim=True))


@pytest.mark.formula("12.3")
@pytest.mark.parametrize("bins", [1, 5, 10])
def test_12_3_equals_its_explicit_loops(bins: int) -> None:
    p, labels = (2 * draws(200, 4)).softmax(1), torch.randint(4, (200,), generator=torch.Generator().manual_seed(2))
    total = 0.0
    for b in range(bins):
        inside = [(max(row), row.index(max(row)) == y) for row, y in zip(p.tolist(), labels.tolist(), strict=True)
                  if b / bins < max(row) <= (b + 1) / bins]
        if inside:
            gap = sum(hit for _, hit in inside) / len(inside) - sum(x for x, _ in inside) / len(inside)
            total += len(inside) / 200 * abs(gap)
    assert calibration_error(p, labels, bins) == pytest.approx(total, rel=1e-9)


def test_12_3_is_that_of_torchmetrics() -> None:
    theirs = pytest.importorskip("torchmetrics.functional.classification").multiclass_calibration_error
    p, labels = draws(300, 5).softmax(1), torch.randint(5, (300,), generator=torch.Generator().manual_seed(3))
    assert calibration_error(p, labels, 15) == pytest.approx(theirs(p, labels, 5, n_bins=15).item(), abs=1e-6)


def test_12_3_who_is_sure_and_right_has_none_and_who_is_sure_and_wrong_has_all() -> None:
    p = torch.eye(2).double()
    assert calibration_error(p, torch.tensor([0, 1])) == 0.0
    assert calibration_error(p, torch.tensor([1, 0])) == 1.0


@pytest.mark.formula("12.4")
def test_12_4_equals_its_explicit_loops() -> None:
    yes, truth = draws(50) > 0, draws(50, seed=1) > 0.3
    pairs = list(zip(yes.tolist(), truth.tolist(), strict=True))
    tp, fp, fn = (pairs.count(kind) for kind in ((True, True), (True, False), (False, True)))
    found = yes_no_scores(yes, truth)
    assert found["f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert found["precision"] == pytest.approx(tp / (tp + fp))
    assert found["recall"] == pytest.approx(tp / (tp + fn))
    assert found["f1"] == pytest.approx(2 / (1 / found["precision"] + 1 / found["recall"]))
    assert found["accuracy"] == pytest.approx(sum(a == b for a, b in pairs) / 50)
    assert found["yes"] == pytest.approx(sum(yes.tolist()) / 50)


def test_12_4_who_always_says_yes_has_two_thirds_and_who_never_does_has_nothing() -> None:
    truth = torch.tensor([True, False] * 10)
    assert yes_no_scores(torch.ones_like(truth), truth)["f1"] == pytest.approx(2 / 3)
    assert yes_no_scores(torch.zeros_like(truth), truth) == {
        "accuracy": 0.5, "precision": 0.0, "recall": 0.0, "f1": 0.0, "yes": 0.0}


def test_what_cannot_be_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="each row"):
        recall_at(torch.ones(2, 3), torch.zeros(2, 3).bool())
    with pytest.raises(ValueError, match="length 0"):
        prompt_ensemble(torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match="cancel each other"):
        prompt_ensemble(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]))
    with pytest.raises(ValueError, match="rows that sum to 1"):
        calibration_error(torch.ones(2, 2), torch.tensor([0, 1]))
