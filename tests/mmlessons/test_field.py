"""别人遇到过的，每种一个测试 / What happened to others, a test for each kind."""

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from mmcore import tokens as text
from mmlessons.data import digits, emoji, scenes, utterances, views
from mmlessons.tasks import cross_modal_alignment as alignment
from mmlessons.tasks import cross_modal_retrieval as retrieval
from mmlessons.tasks import image_captioning as captioning
from mmlessons.tasks import multimodal_fusion as fusion
from mmlessons.tasks import multimodal_sentiment as sentiment
from mmlessons.tasks import scoring
from mmlessons.tasks import video_understanding as video
from mmlessons.tasks import vision_language_model as naming
from mmlessons.tasks import visual_question_answering as answering
from mmlessons.tasks import what_weights_do_not_say as weighing
from mmlessons.tasks.learner import Learner, Stages, seeded
from mmlessons.tasks.several_modalities import Experts
from tests.support import MovingToMPS

PICTURE = torch.full((3, 64, 64), 200, dtype=torch.uint8)


# -- float64 on a device that has none --------------------------------------------------------------------------------

@cache
def experts(of: str) -> Experts:
    return {"digits": fusion, "feelings": sentiment}[of].separately(1, device="cpu").model


def digits_apart(learned: Learner) -> object:
    return learned.model.evaluate(fusion.observe_all(digits.load("validation")))


def digits_together(learned: Learner) -> object:
    test = digits.load("validation")
    return fusion.examine(learned.trainer, test, ["clean"], 1), weighing.bad_days(
        learned.trainer, experts("digits"), test, shared=True)


def feelings_apart(learned: Learner) -> object:
    seen = sentiment.observe_all(utterances.load("validation"), sentiment.load_words(), 1)
    return learned.model.evaluate(seen), sentiment.late(learned.model, seen).tolist()


def feelings_together(learned: Learner) -> object:
    seen = sentiment.observe_all(utterances.load("validation"), sentiment.load_words(), 1)
    return sentiment.joint(learned.trainer, seen).tolist()


def retrieved(learned: Learner) -> object:
    return (retrieval.across_artists(learned.model, emoji.load()), retrieval.new_concepts(learned.model),
            retrieval.across_languages(learned.model, emoji.load()))


def named(learned: Learner) -> object:
    concepts = learned.task.concepts
    return (naming.retrieve(learned.model, concepts, "twemoji"),
            naming.answer(learned.model, concepts, PICTURE, None, "zh", 1.0, torch.Generator().manual_seed(0)))


def answered(learned: Learner) -> object:
    model = learned.model
    return (answering.accuracy(model, scenes.load("validation"), 20), model.ask(PICTURE, "有狗吗？")[0].tolist())


def described(learned: Stages) -> object:
    model = learned.model
    f_v = model.look(PICTURE)
    said = model.say(f_v, "zh", "reading", 1.0, torch.Generator().manual_seed(0))
    return captioning.scores(model, scenes.load("validation"), 10, compared=2), said, model.choices(f_v, "en", beams=2)


def watched(learned: Learner) -> object:
    seen = video.held_out("validation", 10)
    return video.accuracies(learned.model, seen), video.accuracies(learned.model, video.shuffled(seen))


TRAINED = {  # what is trained, and what is then asked of it
    "digits apart": (lambda at: fusion.separately(2, batch=8, device=at), digits_apart),
    "digits together": (lambda at: fusion.together(experts("digits"), 2, batch=8, device=at),
                        digits_together),
    "feelings apart": (lambda at: sentiment.separately(2, batch=8, device=at), feelings_apart),
    "feelings together": (lambda at: sentiment.together(experts("feelings"), 2, batch=8, device=at), feelings_together),
    "alignment": (lambda at: alignment.learner(views.load(), batch=8, repeats=2, positives=True, device=at),
                  alignment.studies),
    "sigmoid alignment": (lambda at: alignment.learner(views.load(), sigmoid=True, batch=8, device=at),
                          alignment.studies),
    "retrieval": (lambda at: retrieval.learner(emoji.load(), 2, batch=8, device=at), retrieved),
    "naming": (lambda at: naming.learner(naming.load(), 2, batch=8, device=at), named),
    "answering": (lambda at: answering.learner(2, batch=8, device=at), answered),
    "captions": (lambda at: captioning.learner(1, 1, batch=2, device=at), described),
    "captions in one stage": (lambda at: captioning.learner(0, 2, batch=2, device=at, told=True), described),
    "clips": (lambda at: video.learner(video.WITH_SOUND, 2, batch=4, count=8, device=at), watched),
}


@pytest.mark.parametrize("what", TRAINED)
def test_float64_on_a_device_that_has_none_is_created_by_no_training_and_no_study(what: str) -> None:
    make, ask = TRAINED[what]

    def losses() -> list[dict[str, float]]:
        learned = make(torch.device("cpu"))
        found = [learned.train_step() for _ in range(2)]
        ask(learned)
        return found

    wanted = losses()
    with MovingToMPS():
        found = losses()
    assert [list(step) for step in found] == [list(step) for step in wanted]
    for step, right in zip(found, wanted, strict=True):
        assert [*step.values()] == pytest.approx([*right.values()], rel=1e-3)


# -- a mode chosen by the user is overruled ---------------------------------------------------------------------------

@pytest.mark.parametrize("what", TRAINED)
def test_a_mode_chosen_by_the_user_stays_through_every_study(what: str) -> None:
    make, ask = TRAINED[what]
    learned = make(torch.device("cpu"))
    for i, module in enumerate(learned.model.modules()):
        module.training = i % 2 == 0
    modes = [module.training for module in learned.model.modules()]
    before = {name: x.clone() for name, x in learned.model.state_dict().items()}
    ask(learned)
    assert [module.training for module in learned.model.modules()] == modes
    assert all(torch.equal(x, before[name]) for name, x in learned.model.state_dict().items())


@pytest.mark.parametrize("what", ["retrieval", "naming", "answering", "captions in one stage"])
def test_a_mode_chosen_by_the_user_stays_through_training(what: str) -> None:
    learned = TRAINED[what][0](torch.device("cpu"))
    frozen = learned.model.visual_encoder.eval().requires_grad_(False)
    before = {name: x.clone() for name, x in frozen.state_dict().items()}
    for _ in range(2):
        learned.train_step()
    assert not frozen.training
    assert all(torch.equal(x, before[name]) for name, x in frozen.state_dict().items())


# -- the unknown passes for the known ---------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def typed_into() -> dict[str, Callable[[str], object]]:
    """Every place where a reader types: the lesson → what is done with the text."""
    with seeded(0):
        data, concepts = emoji.load(), naming.load()
        index = retrieval.Index(retrieval.learner(data, 1, device="cpu").model, data.pictures["twemoji"][:9])
        namer, answerer = naming.learner(concepts, 1, device="cpu").model, answering.AnsweringModel()
    return {"01": lambda said: naming.answer(namer, concepts, None, said), "06": index.search,
            "01's names": lambda said: namer.name_tokens([said], ["zh"]),
            "04": lambda said: answerer.ask(PICTURE, said), "07": sentiment.load_words().known}


KNOWN = {"01": "水果", "01's names": "红苹果", "04": "有狗吗？", "06": "red apple", "07": "你可真行"}


@pytest.mark.parametrize("lesson", KNOWN)
def test_the_unknown_does_not_pass_for_the_known(typed_into: dict, lesson: str) -> None:
    ask, known = typed_into[lesson], KNOWN[lesson]
    ask(known)
    ask(known + "!!!")
    for nothing in ("", "  ", "？", "!!!", "\u200b", "…\u200d"):
        with pytest.raises(ValueError, match=r"(写|空).* / .*(type|write)"):
            ask(nothing)
    for unknown in ("🍎", "👩‍🚀", "🫩", "☎️"):
        with pytest.raises(ValueError, match=r"没有学过.* / .*never learned|都没有学过.* / .*ever learned"):
            ask(unknown)
    if lesson == "07":  # where it is enough that one word is known; the others are shown as unknown
        assert ("🍎", False) in ask(f"{known} 🍎")
    else:
        with pytest.raises(ValueError, match="never learned: 🍎"):
            ask(f"{known} 🍎")


def test_a_sign_of_arithmetic_is_unknown_but_punctuation_is_not() -> None:
    tokenizer = text.build_tokenizer(["red apple"])
    assert text.unknown_words(tokenizer, "red, (apple)… + 🍎") == ["+", "🍎"]


# -- a score for what cannot be scored --------------------------------------------------------------------------------

def spoil(model: nn.Module) -> nn.Module:
    """The same model with NaN for its last weights."""
    with torch.no_grad():
        [*model.parameters()][-1].fill_(torch.nan)
    return model


SCORED: dict[str, Callable[[], object]] = {
    "digits": lambda: spoil(fusion.separately(1, device="cpu").model).evaluate(
        fusion.observe_all(digits.load("validation"))),
    "retrieval": lambda: retrieval.evaluate(
        spoil(retrieval.learner(emoji.load(), 1, device="cpu").model), emoji.load(), "twemoji"),
    "search": lambda: retrieval.Index(
        spoil(retrieval.learner(emoji.load(), 1, device="cpu").model), emoji.load().pictures["twemoji"]).search("水"),
    "naming": lambda: naming.evaluate(broken(naming.learner(naming.load(), 1, device="cpu").model, "classifier"),
                                      naming.load(), "twemoji"),
    "answering": lambda: answering.accuracy(broken(answering.AnsweringModel(), "head"), scenes.load("test"), 3),
    "captions": lambda: captioning.scores(broken(captioning.CaptioningModel(), "namer"), scenes.load("test"), 3),
    "captions' words": lambda: captioning.scores(
        broken(captioning.CaptioningModel(), "decoder"), scenes.load("test"), 3, compared=0),
    "clips": lambda: video.accuracies(broken(video.VideoModel(), "heads"), video.held_out("validation", 10)),
    "words": lambda: scoring.accuracy(sentiment.late(
        broken(sentiment.separately(1, device="cpu").model, "heads"), heard()), torch.tensor([0])),
    "contributions": lambda: sentiment.contributions(
        sentiment.load_words(), heard(), "好", lambda *_: torch.full((1, 3), torch.nan)),
    "rows": lambda: scoring.accuracy(torch.tensor([[0.1, torch.nan]]), torch.tensor([0])),
    "no rows": lambda: scoring.accuracy(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)),
    "turning clips": lambda: video.turning(torch.zeros(2, 10), torch.tensor([0, 1])),
}


def broken(model: nn.Module, part: str) -> nn.Module:
    spoil(getattr(model, part))
    return model


def heard() -> dict[str, torch.Tensor]:
    return sentiment.one_sample(utterances.load("test"), sentiment.load_words(), "好", 0, "wry", 0)


@pytest.mark.parametrize("what", SCORED)
def test_a_score_for_what_cannot_be_scored_is_refused(what: str) -> None:
    with pytest.raises(ValueError, match=r"[一-鿿].* / .*[a-z]"):
        SCORED[what]()


@pytest.mark.parametrize("modality", digits.MODALITIES)
def test_a_score_for_what_cannot_be_scored_names_the_modality(modality: str) -> None:
    seen = fusion.observe_all(digits.load("validation"))
    if modality == "text":
        seen["text"][0, 0] = 999
    else:
        seen[modality][0] = -torch.inf
    with pytest.raises(ValueError, match=modality):
        fusion.separately(1, device="cpu").model.evaluate(seen)


def test_a_score_for_what_cannot_be_scored_ties_are_misses() -> None:
    experts = fusion.separately(1, device="cpu").model
    for head in experts.heads.values():
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    seen = fusion.observe_all(digits.load("validation"))
    assert set(experts.evaluate({**seen, "label": torch.zeros_like(seen["label"])}).values()) == {0.0}


# -- torch's own error reaches the reader -----------------------------------------------------------------------------

@pytest.mark.parametrize("picture", [
    np.zeros((3, 64, 64), np.uint8), np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64, 3)), PICTURE.movedim(0, 2),
    PICTURE / 255, PICTURE.double() / 255, PICTURE[:1], PICTURE[None], None, "a.png", PICTURE.tolist(),
])
def test_torchs_own_error_does_not_reach_the_reader_of_an_own_picture(picture: object) -> None:
    with seeded(0):
        towers = retrieval.learner(emoji.load(), 1, device="cpu").model
        namer = naming.learner(naming.load(), 1, device="cpu").model
    places = [lambda x: answering.AnsweringModel().ask(x, "有狗吗？"), captioning.CaptioningModel().look,
              lambda x: naming.answer(namer, naming.load(), x, None),
              lambda x: towers.encode_pictures(x if picture is None or isinstance(x, str | list) else x[None])]
    for i, ask in enumerate(places):
        if picture is None and i in (1, 2):
            continue  # where no picture is given, on purpose; lesson 01 then needs a hint, and says so
        with pytest.raises((TypeError, ValueError), match=r"pictures? 需要是.*收到.* / pictures? must .*, got") as said:
            ask(picture)
        if isinstance(picture, np.ndarray) or getattr(picture, "shape", ())[-1:] == (3,):
            assert "; use " in str(said.value)


def test_what_the_error_says_to_do_with_a_picture_makes_it_right() -> None:
    from mmlessons.border import check_pictures

    picture = np.random.default_rng(0).random((64, 64, 3))
    with pytest.raises(TypeError) as said:
        check_pictures(picture, "picture", 3, 64, 64)
    right = eval(str(said.value).rpartition("; use ")[2], {"torch": torch, "picture": picture})
    check_pictures(right, "picture", 3, 64, 64)
    assert np.allclose(right.movedim(0, 2).numpy() / 255, picture, atol=0.003)


@pytest.mark.parametrize("whole", [np.int64, np.int32, torch.tensor])
def test_a_whole_number_of_numpy_or_torch_is_as_good_as_pythons(whole: Callable) -> None:
    def losses(number: Callable) -> list[dict[str, float]]:
        learned = fusion.separately(number(2), number(3), number(8), device="cpu")
        return [learned.train_step() for _ in range(2)]

    assert losses(whole) == losses(int)
    seen, same = (fusion.observe_all(digits.load("test"), n(1), n(7)) for n in (whole, int))
    assert torch.equal(seen["sound"], same["sound"])
