"""假如什么也不看错：概率和各种做法 / If nothing were misread: the odds, and the rules counted on them."""

import math

import pytest
import torch
from torch import Tensor

from mmcore.fusion import product_of_experts
from mmlessons.data import utterances
from mmlessons.tasks import information, signs

TEST = utterances.load("test")
BLAME, PRAISE = signs.BLAME, signs.PRAISE


@pytest.fixture(scope="module")
def perfect() -> signs.PerfectSenses:
    return signs.with_perfect_senses()


def test_the_odds_are_how_often_observe_draws_each_combination() -> None:
    times = 400
    seen = TEST.observe(torch.arange(len(TEST.sentences)).repeat(times), torch.Generator().manual_seed(0))
    counts = torch.zeros(signs.SIZES).index_put_(
        tuple(seen[name] for name in (*signs.SIGNS, "label")), torch.ones(len(seen["label"])), accumulate=True)
    odds = signs.odds(TEST)
    assert odds.flatten(1).sum(1) == pytest.approx(torch.ones(len(odds)))
    torch.testing.assert_close(odds.mean(0).float(), counts / counts.sum(), atol=4e-3, rtol=0)


def test_the_small_tables_are_counted_on_one_sign_each_and_added_by_7_1() -> None:
    p = signs.everything()
    words, face, tone = 2, 3, 1
    opinions = [p[words].sum((0, 1)), p[:, face].sum((0, 1)), p[:, :, tone].sum((0, 1))]
    opinions = [(row / row.sum()).clamp_min(1e-9).log()[None] for row in opinions]
    wanted = product_of_experts(opinions, p.sum((0, 1, 2)).log()).exp()[0]
    torch.testing.assert_close(signs.rules()["late"][words, face, tone], wanted)


def test_the_best_sum_is_logistic_regression_without_interactions() -> None:
    p = signs.everything()
    weights = torch.zeros(3 + 4 + 4, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=1000, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def rule() -> Tensor:
        return (weights[:3, None, None] + weights[3:7, None] + weights[7:]).log_softmax(-1)

    def loss() -> Tensor:
        optimizer.zero_grad()
        found = -(p * rule()).sum() + 1e-7 * weights.square().sum()  # some odds are 0, whose weight would be −∞
        found.backward()
        return found

    optimizer.step(loss)
    seen = p.sum(3) > 0
    torch.testing.assert_close(signs.rules()["sum"][seen], rule().exp().detach()[seen], atol=2e-3, rtol=0)


def test_a_sum_has_no_interaction_and_the_large_table_has() -> None:
    def turns(rule: Tensor) -> float:
        """By how much a wry face, against a flat one, moves praise over blame, more after words of blame."""
        log = rule[:, :, 1].log()  # the tone is flat
        moved = (log[..., PRAISE] - log[..., BLAME])[:, 3] - (log[..., PRAISE] - log[..., BLAME])[:, 1]
        return (moved[BLAME] - moved[PRAISE]).item()
    rules = signs.rules()
    assert turns(rules["sum"]) == pytest.approx(0, abs=1e-6)
    assert turns(rules["late"]) == pytest.approx(0, abs=1e-6)
    assert turns(rules["table"]) > 1


def test_what_learns_nothing_is_what_its_name_says() -> None:
    rules = signs.rules()
    for words in range(3):
        assert (rules["majority"][words].argmax(-1) == BLAME).all()
        assert (rules["literal"][words].argmax(-1) == words).all()
        assert (rules["opposite"][words].argmax(-1) == 2 - words).all()


def test_the_scores_are_what_drawing_gives(perfect: signs.PerfectSenses) -> None:
    times = 300
    seen = TEST.observe(torch.arange(len(TEST.sentences)).repeat(times), torch.Generator().manual_seed(1))
    turned = (seen["words"] - seen["label"]).abs() == 2
    for name, rule in signs.rules().items():
        said = rule[tuple(seen[sign] for sign in signs.SIGNS)].argmax(-1)
        right = (said == seen["label"]).double()
        assert perfect.right["all"][name].mean().item() == pytest.approx(right.mean().item(), abs=0.02)
        by_sentence = [right[turned & (seen["sentence"] == i)].mean().item() for i in range(len(TEST.sentences))
                       if (turned & (seen["sentence"] == i)).any()]
        assert len(perfect.right["reversed"][name]) == len(by_sentence) == 22
        assert perfect.right["reversed"][name].mean().item() == pytest.approx(sum(by_sentence) / 22, abs=0.03)


def test_always_blame_wins_one_way_and_loses_the_other_and_only_the_table_turns_both_ways(
        perfect: signs.PerfectSenses) -> None:
    assert (perfect.turned["praise"]["majority"], perfect.turned["blame"]["majority"]) == (1, 0)
    assert perfect.turned["praise"]["sum"] > 0.7 > 0.5 > perfect.turned["blame"]["sum"]
    assert min(perfect.turned[words]["table"] for words in ("praise", "blame")) > 0.7


def test_the_bits_of_the_large_table_are_all_there_are_and_a_sum_gives_less(perfect: signs.PerfectSenses) -> None:
    assert perfect.bits["table"] == pytest.approx(information.told(signs.everything().flatten(0, 2)))
    assert perfect.bits["late"] < perfect.bits["sum"] < perfect.bits["table"]


def test_a_rule_is_looked_up_by_how_likely_each_sign_is() -> None:
    rule = signs.rules()["table"]
    some = {"words": torch.tensor([[0.0, 0.0, 1.0]]), "shown": torch.tensor([[0.0, 0.0, 0.5, 0.5]]),
            "sounds": torch.tensor([[1.0, 0.0, 0.0, 0.0]])}
    torch.testing.assert_close(signs.by_rule(some, rule)[0], (rule[2, 2, 0] + rule[2, 3, 0]) / 2)
    assert math.isclose(signs.by_rule(some, rule).sum().item(), 1, abs_tol=1e-9)
