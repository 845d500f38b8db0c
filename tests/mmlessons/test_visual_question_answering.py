"""看图回答问题 / Answering questions about a picture."""

import pytest
import torch

from mmlessons.data import scenes
from mmlessons.tasks import visual_question_answering as answering
from mmlessons.tasks.learner import Learner
from mmlessons.tasks.pixels import framed
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


# -- what learns nothing ----------------------------------------------------------------------------------------------

def means(scores: answering.Scores) -> dict[str, float]:
    return {kind: right.double().mean().item() for kind, right in scores.items()}


def test_the_majority_is_what_the_balance_allows() -> None:
    found = means(answering.majority(4000))
    wanted = {"what": 1 / 30, "how many": 1 / 5, "whether": 1 / 2, "where": 1 / 4}
    assert {kind: found[kind] for kind in wanted} == pytest.approx(wanted, abs=0.05)


def test_seeing_only_which_cells_are_empty_is_worth_what_can_be_counted() -> None:
    """有几格不空就答几：1/5 × (0 + 1/4 + 1/3 + 1/2 + 1)；“在哪里”猜第一格不空的：1/4 × (1 + 1/2 + 1/3 + 1/4)。

    As many as there are filled cells is right for 0 never, for 1 in 1/4 of the cases, for 2 in 1/3, for 3 in 1/2, for 4
    always; of 1, 2, 3 or 4 filled cells the first is the right one in 1, 1/2, 1/3 or 1/4 of the cases.
    """
    found = means(answering.by_program(answering.empty_or_not, TRAIN, 4000))
    wanted = {"what": 1 / 30, "how many": 5 / 12, "whether": 1 / 2, "where": 25 / 48}
    assert {kind: found[kind] for kind in wanted} == pytest.approx(wanted, abs=0.05)


@pytest.mark.parametrize("draw", [{}, {"pairs": "new"}, {"kinds": ("whether",), "bias": 0.9, "turned": True}])
def test_the_program_is_always_right_about_what_is_really_there(draw: dict) -> None:
    drawn = TRAIN.draw(2000, torch.Generator().manual_seed(0), **draw)
    facts = torch.nn.functional.one_hot(drawn["cells"] % (len(scenes.THINGS) + 1)).float()
    assert torch.equal(answering.execute(facts, drawn["kind"], drawn["about"]), drawn["answer"])


def test_the_program_asks_which_cell_is_most_like_the_thing_even_where_each_is_more_like_another() -> None:
    """两格都更像别的，问“在哪里”时仍选更像狗的那一格 / Both look like something else, one of them more like a dog."""
    seen = torch.zeros(1, 4, len(scenes.THINGS) + 1)
    seen[0, :2, -1] = 1.0  # two empty cells
    seen[0, 2, [0, 5]] = torch.tensor([0.6, 0.7])  # 0 is the dog
    seen[0, 3, [0, 5]] = torch.tensor([0.4, 0.9])
    asked = {kind: answering.execute(seen, torch.tensor([k]), torch.tensor([3 if kind == "what" else 0])).item()
             - scenes.answers_of(kind).start for k, kind in enumerate(scenes.KINDS)}
    assert asked == {"what": 5, "how many": 0, "whether": 0, "where": 2}


@pytest.mark.parametrize("crop", [False, True])
def test_pixels_are_compared_as_an_explicit_loop_compares_them(crop: bool) -> None:
    test = scenes.load("test")

    def shown(drawing: torch.Tensor) -> torch.Tensor:
        return (framed(drawing[None])[0] if crop else drawing).double().flatten()

    cells = torch.tensor([[7, -1, 0, 29], [3, 3, -1, 12]])
    seen = answering.by_pixels(test.pictures(cells, torch.zeros(2, dtype=torch.int64)), crop)
    assert seen.shape == (2, 4, len(scenes.THINGS) + 1)
    for n, i, thing in ((0, 0, 7), (0, 3, 2), (1, 3, 12)):
        x, known = shown(test.tiles[0, cells[n, i]]), [shown(drawing) for drawing in TRAIN.tiles[:, thing]]
        cosines = [((x - x.mean()) @ (y - y.mean()) / (x - x.mean()).norm() / (y - y.mean()).norm()).item()
                   for y in known]
        assert seen[n, i, thing].item() == pytest.approx(max(cosines), abs=1e-5)
    assert torch.equal(seen.argmax(-1) == len(scenes.THINGS), cells == scenes.EMPTY)


def test_pixels_know_every_drawing_that_they_keep() -> None:
    assert all(right.all() for right in answering.by_program(answering.by_pixels, TRAIN, 300).values())


def test_the_eyes_that_were_learned_compare_a_cell_with_both_names_of_a_thing(model: AnsweringModel) -> None:
    picture = scenes.load("test").pictures(torch.tensor([[7, -1, 0, 29]]), torch.tensor([0]))
    seen = model.recognise(picture)
    with torch.no_grad():
        f_v = model.visual_encoder(scenes.split(picture)[0] / 255)[3].double()
        names = [model.text_encoder(**model.text_encoder.tokenize([name]))[0].double()
                 for name in scenes.THINGS[4].title]
    cosine = sum((f_v @ f / f_v.norm() / f.norm()).item() for f in names) / 2
    assert seen[0, 3, 4].item() == pytest.approx(cosine, abs=1e-5)
    assert (seen[0].argmax(-1) == len(scenes.THINGS)).tolist() == [False, True, False, False]


def test_what_the_program_cannot_be_asked_is_refused() -> None:
    seen, kind = torch.zeros(1, 4, len(scenes.THINGS) + 1), torch.tensor([1])
    with pytest.raises(ValueError, match=r"about must lie between 0 and 29"):
        answering.execute(seen, kind, torch.tensor([30]))
    with pytest.raises(ValueError, match=r"kind must lie between 0 and 3"):
        answering.execute(seen, kind + 3, kind)
    with pytest.raises(ValueError, match="seen holds NaN"):
        answering.execute(seen / 0, kind, kind)


# -- what is tested ---------------------------------------------------------------------------------------------------

def test_scores_say_of_every_question_whether_it_was_answered_right(model: AnsweringModel) -> None:
    drawn = TRAIN.draw(40, torch.Generator().manual_seed(3))
    z = model(TRAIN.pictures(drawn["cells"], drawn["artist"]) / 255,
              **{name: ids[scenes.question_number(drawn)] for name, ids in model.tokens.items()})["z"]
    right = z.argmax(1) == drawn["answer"]
    found = answering.scores(model, TRAIN, 40, seed=3)
    assert torch.equal(found["all"], right)
    assert torch.equal(found["where"], right[drawn["kind"] == scenes.KINDS.index("where")])
    assert answering.accuracy(model, TRAIN, 40, seed=3)["all"] == pytest.approx(right.double().mean().item())


def test_a_short_training_learns_to_look() -> None:
    made = answering.learner(40, seed=1, kinds=["where"], device="cpu").finish()
    assert answering.accuracy(made.model, TRAIN, 300, kinds=["where"])["where"] > 0.5  # chance: 0.25


def test_a_thing_gets_the_mean_of_the_questions_about_it_in_every_split() -> None:
    for role in ("test", "train"):
        drawn = scenes.load(role).draw(400, torch.Generator().manual_seed(12345))
        asked = [int(cells[about]) if kind == 0 else int(about) for cells, about, kind in
                 zip(drawn["cells"], drawn["about"], drawn["kind"], strict=True)]
        right = torch.rand(2, 400, generator=torch.Generator().manual_seed(0)) < 0.5
        wanted = [right[:, [n for n in range(400) if asked[n] == thing]].double().mean().item()
                  for thing in sorted(set(asked))]
        assert answering.per_thing(right).tolist() == pytest.approx(wanted)
        assert answering.per_thing(right[:1]).tolist() == answering.per_thing(right[0]).tolist()


def test_each_variant_is_tested_on_what_the_lesson_shows_of_it() -> None:
    full, biased = (answering.study(variant, 1, steps=1, batch=2) for variant in ("gates", "biased question"))
    kinds = {"all", *scenes.KINDS}
    assert set(full.test) == set(full.elsewhere["new"]) == set(full.eyes["shift"]) == kinds
    assert (set(full.elsewhere), set(full.eyes)) == ({"known", "validation", "shift", "new"},
                                                     {"test", "validation", "shift"})
    assert set(full.counting.beside) == set(scenes.PAIRS)
    assert full.biased == biased.elsewhere == biased.eyes == biased.counting.opened == {}
    assert set(biased.biased) == {"alike", "fair", "turned"}
    assert set(biased.test) == set(biased.biased["alike"]) == {"all", "whether"}
    assert full.test["all"].shape == (1000,)


def test_counting_is_told_apart_by_how_many_other_things_are_in_the_picture(
        monkeypatch: pytest.MonkeyPatch, model: AnsweringModel) -> None:
    """数不空的格子：只有没有别的东西时才对 / Who counts the filled cells is right where nothing else is there."""
    def count_filled(model: AnsweringModel, data: scenes.Scenes, drawn: dict) -> tuple[torch.Tensor, torch.Tensor]:
        filled = drawn["cells"] != scenes.EMPTY
        w = 0.25 + 0.5 * filled - 0.25 * (drawn["cells"] == drawn["about"][:, None])
        return scenes.answers_of("how many").start + filled.sum(1), w
    monkeypatch.setattr(answering, "predict", count_filled)
    found = answering.study_counting(model, 300)
    assert found.opened == {"asked": 0.5, "other": 0.75, "empty": 0.25}
    assert {pairs: list(by_others) for pairs, by_others in found.beside.items()} == {
        "seen": [0, 1, 2, 3], "new": [1, 2, 3]}
    assert found.beside["seen"].pop(0).all()
    assert not any(right.any() for by_others in found.beside.values() for right in by_others.values())


def test_bias_is_that_of_training_then_none_then_turned_round() -> None:
    def even_means_yes(data: scenes.Scenes, **draw: object) -> answering.Scores:
        drawn = data.draw(500, torch.Generator().manual_seed(0), **draw)
        yes = scenes.answers_of("whether")[1]
        return {"all": (drawn["about"] % 2 == 0) == (drawn["answer"] == yes)}
    found = {name: means(scores)["all"] for name, scores in answering.study_bias(even_means_yes).items()}
    assert found == pytest.approx({"alike": 0.97, "fair": 0.5, "turned": 0.03}, abs=0.06)
