"""看图回答问题 / Answering questions about a picture."""

import pytest
import torch

from mmlessons.data import scenes
from mmlessons.tasks import visual_question_answering as answering
from mmlessons.tasks.learner import Learner
from mmlessons.tasks.visual_question_answering import AnsweringModel
from tests.support import check_seed, same, state

TRAIN = scenes.load("train")


def learner(**options: object) -> Learner:
    return answering.learner(**{"steps": 2, "batch": 16, "device": "cpu", **options})


@pytest.fixture(scope="module")
def model() -> AnsweringModel:
    return learner().model.eval()


def test_shapes_and_names(model: AnsweringModel) -> None:
    drawn = TRAIN.draw(3, torch.Generator().manual_seed(0))
    out = model(TRAIN.pictures(drawn["cells"], drawn["artist"]) / 255, **model.text_encoder.tokenize(["有狗吗？"] * 3))
    shapes = {name: tuple(x.shape) for name, x in out.items()}
    assert shapes == {"f_v": (3, 4, 128), "f_t": (3, 128), "x": (3, 4, 128), "w": (3, 4), "c": (3, 128),
                      "h": (3, 256), "z": (3, len(scenes.ANSWERS))}


def test_a_step_learns_from_cells_what_forward_sees_in_whole_pictures(model: AnsweringModel) -> None:
    drawn = TRAIN.draw(3, torch.Generator().manual_seed(0))
    tokens = model.text_encoder.tokenize(["有狗吗？"] * 3)
    cells = scenes.split(TRAIN.pictures(drawn["cells"], drawn["artist"])) / 255
    f_v = model.visual_encoder(cells.flatten(0, 1)).view(3, 4, -1)
    apart = model.answer(f_v, model.text_encoder(**tokens))["z"]
    assert torch.allclose(model(scenes.join(cells), **tokens)["z"], apart, atol=1e-5)


def test_every_parameter_gets_a_gradient() -> None:
    made = learner()
    made.train_step()
    assert not [name for name, p in made.model.named_parameters() if p.grad is None or not p.grad.any()]


def test_the_blind_model_does_not_depend_on_the_picture_nor_the_deaf_one_on_the_question() -> None:
    pictures = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for sees, alike in (("question", True), ("picture", False), ("both", False)):
        made = learner(sees=sees).model.eval()
        z = made(pictures, **made.text_encoder.tokenize(["Is there a dog?"] * 2))["z"]
        assert torch.allclose(z[0], z[1]) is alike
        one = made(pictures[:1].repeat(2, 1, 1, 1), **made.text_encoder.tokenize(["有狗吗？", "左上是什么？"]))["z"]
        assert torch.allclose(one[0], one[1]) is (sees == "picture")


def test_the_same_seed_gives_the_same_model_and_reset_begins_anew() -> None:
    check_seed(learner(), learner(seed=1))


def test_the_loss_is_answers_plus_beta_times_naming() -> None:
    losses = learner().train_step(beta=0.25)
    assert losses["L"] == pytest.approx(losses["L_answer"] + 0.25 * losses["L_name"], rel=1e-5)


def test_what_is_refused_changes_nothing() -> None:
    made = learner(steps=1)
    before = state(made.model)
    with pytest.raises(ValueError, match="beta may not be below 0"):
        made.train_step(beta=-1.0)
    assert same(made.model, before)
    made.train_step()
    with pytest.raises(ValueError, match="has 1 steps and all are done"):
        made.train_step()


@pytest.mark.parametrize(("call", "error", "match"), [
    (lambda: learner(steps=0), ValueError, "steps must be at least 1"),
    (lambda: learner(batch=1), ValueError, "batch must be at least 2"),
    (lambda: learner(sees="nothing"), ValueError, "sees must be one of both, question, picture"),
    (lambda: learner(look="stare"), ValueError, "look must be one of attention, gates"),
    (lambda: answering.study("best", 1), ValueError, "variant must be one of gates"),
])
def test_bad_options_are_refused(call, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        call()


@pytest.mark.parametrize("said", ["Is there a unicorn?", "有独角兽吗？"])
def test_a_word_never_learned_is_named_in_both_languages(model: AnsweringModel, said: str) -> None:
    with pytest.raises(ValueError, match=r"没有学过.* / never learned"):
        model.ask(torch.zeros(3, 64, 64, dtype=torch.uint8), said)


def test_an_empty_question_and_a_float_picture_are_refused(model: AnsweringModel) -> None:
    with pytest.raises(ValueError, match="请写点什么"):
        model.ask(torch.zeros(3, 64, 64, dtype=torch.uint8), "  ")
    with pytest.raises(TypeError, match="picture must be a uint8 tensor"):
        model.ask(torch.zeros(3, 64, 64), "有狗吗？")


def test_asking_gives_probabilities_and_leaves_the_model_in_its_mode(model: AnsweringModel) -> None:
    P, w = model.ask(torch.zeros(3, 64, 64, dtype=torch.uint8), "有狗吗？")
    assert P.shape == (len(scenes.ANSWERS),)
    assert P.sum().item() == pytest.approx(1)
    assert w.shape == (4,)
    assert not model.training


def test_the_spotlight_leaves_what_is_looked_at_and_darkens_the_rest() -> None:
    picture = torch.full((3, 64, 64), 200, dtype=torch.uint8)
    lit = answering.spotlight(picture, torch.tensor([1.0, 0.0, 0.5, 0.0]))
    assert (lit.dtype, tuple(lit.shape)) == (torch.uint8, (3, 64, 64))
    assert [int(lit[0, y, x]) for y, x in ((0, 0), (0, 63), (63, 0), (63, 63))] == [200, 30, 115, 30]


def test_the_majority_is_what_the_balance_allows() -> None:
    wanted = {"what": 1 / 30, "how many": 1 / 5, "whether": 1 / 2, "where": 1 / 4}
    found = answering.majority(4000)
    assert {kind: found[kind] for kind in wanted} == pytest.approx(wanted, abs=0.05)


def test_a_short_training_learns_to_look() -> None:
    made = answering.learner(40, seed=1, kinds=["where"], device="cpu").finish()
    assert answering.accuracy(made.model, TRAIN, 300, kinds=["where"])["where"] > 0.5  # chance: 0.25


def test_each_variant_is_tested_on_what_the_lesson_shows_of_it() -> None:
    full, biased = (answering.study(variant, 1, steps=1, batch=2) for variant in ("gates", "biased question"))
    assert set(full.test) == set(full.elsewhere.new) == {"all", *scenes.KINDS}
    assert full.biased is None
    assert set(biased.test) == set(biased.biased.alike) == set(biased.biased.turned) == {"all", "whether"}
    assert biased.elsewhere is None
