"""读过书的，怎样学会看 / A reader learns to see."""

import pytest
import torch
from torch import Tensor

from mmcore import attention_mask
from mmlessons.data import scenes
from mmlessons.data.scenes import ANSWERS, KINDS, LANGUAGES, THINGS, answers_of
from mmlessons.tasks import a_reader_learns_to_see as assistant
from mmlessons.tasks import image_captioning as captioning
from mmlessons.tasks.learner import seeded
from mmlessons.tasks.word_order import Eyes, eyes, look

TEST = scenes.load("test")


@pytest.fixture(scope="module")
def looking() -> Eyes:
    return eyes(0, 3, "cpu")


@pytest.fixture(scope="module")
def model() -> assistant.Assistant:
    with seeded(0):
        return assistant.Assistant()


@pytest.fixture(scope="module")
def drawn() -> dict[str, Tensor]:
    return assistant.asked(TEST, 40)


# -- what is said and asked -------------------------------------------------------------------------------------------

def test_every_word_of_captions_questions_and_answers_is_known(model: assistant.Assistant) -> None:
    unknown = model.tokenizer.token_to_id("[UNK]")
    for line in [*scenes.questions(), *(x for pair in ANSWERS for x in pair)]:
        assert unknown not in model.tokenizer.encode(line).ids, line


def test_a_name_is_the_mean_of_the_rows_of_its_words(model: assistant.Assistant) -> None:
    rows, E = assistant.word_rows(model), model.decoder.embed.weight
    for language, each in zip(LANGUAGES, rows, strict=True):
        for thing, row in zip(THINGS, each, strict=False):
            ids = model.tokenizer.encode(getattr(thing, language)).ids[1:-1]
            assert torch.allclose(row, E[ids].mean(0))
    assert torch.equal(rows[:, -1], torch.zeros(2, assistant.WIDTH))


@pytest.mark.parametrize("kind", assistant.KINDS)
def test_questions_are_about_what_is_in_the_picture_and_their_answers_are_true(
        model: assistant.Assistant, drawn: dict[str, Tensor], kind: str) -> None:
    asked = assistant.draw_questions(drawn, kind, torch.Generator().manual_seed(0))
    tokens, wanted = assistant.question_tokens(model, asked)
    for n, cells in enumerate(drawn["cells"].tolist()):
        about, value = asked["about"][n].item(), asked["answer"][n].item() - answers_of(kind).start
        place, thing = (about, value) if kind == "what" else (value, about)
        assert cells[place] == thing >= 0
        language = LANGUAGES[asked["language"][n]]
        question = scenes.question(kind, about, language, asked["wording"][n].item())
        said = ANSWERS[asked["answer"][n]][asked["language"][n]]
        q, a = model.tokenizer.encode(question).ids[1:-1], model.tokenizer.encode(said).ids[1:]
        line = [assistant.start_of_question(model), *q, *a]
        assert tokens[n].tolist()[:len(line)] == line
        assert wanted[n].tolist()[:len(line)] == [0] * (1 + len(q)) + a
        assert not tokens[n, len(line):].any()


def test_the_loss_of_an_answer_does_not_mind_the_question(model: assistant.Assistant, drawn: dict) -> None:
    """问题不用它写 / The question is not for it to write: other logits there change nothing."""
    asked, wanted = assistant.question_tokens(
        model, assistant.draw_questions(drawn, "where", torch.Generator().manual_seed(0)))
    logits = torch.randn(*asked[:, 1:].shape, model.decoder.vocabulary)
    other = logits + 5 * torch.randn_like(logits) * (wanted[:, 1:] == 0).unsqueeze(2)
    assert torch.equal(assistant.generation_loss(logits, wanted), assistant.generation_loss(other, wanted))


# -- who learns -------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("learns", "count"), [("projector", 12_384), ("positions", 3_456), ("everything", 185_286)])
def test_only_those_who_may_learn_change(
        looking: Eyes, model: assistant.Assistant, learns: str, count: int) -> None:
    before = {name: p.clone() for name, p in model.named_parameters()}
    learner = assistant.seeing(model, looking, 2, 1)
    start = {name: p.clone() for name, p in learner.model.named_parameters()}
    learner.finish(learns=learns)
    free = {name for name, p in learner.model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for name, p in learner.model.named_parameters() if name in free) == count
    for name, p in learner.model.named_parameters():
        if name not in free:
            assert torch.equal(p, start[name]), name
    assert any(not torch.equal(p, start[name]) for name, p in learner.model.named_parameters() if name in free)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())  # it worked on a copy


def test_who_learns_may_change_from_one_step_to_the_next(looking: Eyes, model: assistant.Assistant) -> None:
    learner = assistant.seeing(model, looking, 4)
    learner.train_step(learns="everything")
    decoder = [p.clone() for p in learner.model.decoder.parameters()]
    learner.train_step(learns="projector")
    assert all(torch.equal(a, b) for a, b in zip(decoder, learner.model.decoder.parameters(), strict=True))
    with pytest.raises(ValueError, match="learns must be one of projector, positions, everything"):
        learner.train_step(learns="eyes")


def test_reading_moves_no_projector_and_never_sees_a_picture(model: assistant.Assistant) -> None:
    books = assistant.reading(1, 1, 3)
    before = [p.clone() for p in books.model.projector.parameters()]
    books.finish()
    assert all(torch.equal(a, b) for a, b in zip(before, books.model.projector.parameters(), strict=True))


def test_with_facts_hidden_the_prefix_says_nothing(model: assistant.Assistant, drawn: dict) -> None:
    hidden = assistant.FactReading(model, 8, 0, 1e-3, hidden=True)
    tokens = assistant.caption_tokens(model, drawn)
    losses = [hidden.losses(model, {"words": model.names[language, drawn["cells"] % 31], "tokens": tokens})["L"]
              for language in (0, 1)]
    assert losses[0] == losses[1]


def test_the_same_seed_gives_the_same_assistant(looking: Eyes) -> None:
    first, again = (assistant.seeing(assistant.reading(2, 1, 5).finish().model, looking, 2, 5).finish().model
                    for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_least_squares_comes_nearer_to_the_words_than_any_small_change(
        looking: Eyes, model: assistant.Assistant) -> None:
    wanted = assistant.word_rows(model).mean(0).repeat(len(looking.seen) // 31, 1).double()
    solved = assistant.least_squares(model, looking, pull=0.0)
    W, b = (p.detach().double() for p in solved.projector.parameters())

    def missed(W: Tensor, b: Tensor) -> float:
        return (looking.seen.double() @ W.T + b - wanted).square().sum().item()

    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        step = [1e-2 * torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in (W, b)]
        assert missed(W, b) < missed(W + step[0], b + step[1])


# -- what is tested ---------------------------------------------------------------------------------------------------

def test_the_scenes_are_those_of_the_pixel_rule(drawn: dict[str, Tensor]) -> None:
    found = captioning.pixel_grammar(TEST, len(drawn["cells"]), compared=0)
    again = TEST.draw_to_describe(len(drawn["cells"]), torch.Generator().manual_seed(12345))
    assert len(found.exact) == len(drawn["cells"])
    assert all(torch.equal(drawn[name], again[name]) for name in drawn)


def test_the_rule_is_right_where_it_sees_every_cell_right(monkeypatch: pytest.MonkeyPatch, drawn: dict) -> None:
    monkeypatch.setattr(assistant, "pixel_names", lambda data, crop: torch.arange(31).unsqueeze(0))
    assert all(right.all() for right in assistant.by_rule(TEST, drawn).values())
    monkeypatch.setattr(assistant, "pixel_names", lambda data, crop: torch.full((1, 31), 30))
    found = assistant.by_rule(TEST, drawn)
    assert not found["what"].any()


def test_greedy_writing_is_what_the_scores_say(model: assistant.Assistant, drawn: dict) -> None:
    """`scores` 不写，只判断；`say` 真的写 / `scores` judges without writing, and `say` writes."""
    books = assistant.reading(30, 1).finish().model
    x = assistant.placed(assistant.word_rows(books)[1], drawn)
    exact = assistant.scores(books, x, drawn).exact
    for n in range(6):
        language, order = LANGUAGES[drawn["language"][n]], scenes.ORDERS[drawn["order"][n]]
        wanted = scenes.caption(drawn["cells"][n].tolist(), language, order)
        assert (assistant.say(books, x[n], language, order) == wanted) == exact[n]


def test_m_tokens_stand_in_the_first_places_and_0_in_the_others(model: assistant.Assistant) -> None:
    squeezed = assistant.Squeezed(model, 2)
    x = squeezed.see(torch.randn(3, 4, assistant.FEATURE_DIM))
    assert torch.equal(x[:, 2:], torch.zeros(3, 2, assistant.WIDTH))
    assert x[:, :2].abs().min() > 0


# -- who looks at whom ------------------------------------------------------------------------------------------------

def test_attention_computed_by_the_formula_is_that_of_the_decoder(model: assistant.Assistant) -> None:
    x, tokens = torch.randn(4, assistant.WIDTH), torch.tensor([199, 5, 60, 7])
    weights, logits = assistant.attention(model, x, tokens)
    assert torch.allclose(logits, model.decoder.logits(x[None], tokens[None])[0], atol=1e-4)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 6, 8))
    assert not weights[..., attention_mask(8, 4) < 0].any()


def test_each_token_depends_on_itself_and_what_comes_before(model: assistant.Assistant) -> None:
    x, tokens = torch.randn(4, assistant.WIDTH), torch.tensor([199, 5, 60, 7])
    assert torch.equal(assistant.reach(model, x, tokens), attention_mask(8, 4)[4:] == 0)


def test_another_mask_gives_other_scores(model: assistant.Assistant) -> None:
    x, tokens = torch.randn(4, assistant.WIDTH), torch.tensor([199, 5, 60, 7])
    causal, prefix, everything = (assistant.attention(model, x, tokens, kind)[1]
                                  for kind in ("causal", "prefix", "all"))
    assert not torch.allclose(causal, prefix)
    assert not torch.allclose(causal[0], everything[0])


# -- the whole study, in a few steps ----------------------------------------------------------------------------------

def test_every_variant_is_trained_and_tested(monkeypatch: pytest.MonkeyPatch, looking: Eyes) -> None:
    monkeypatch.setattr(assistant, "eyes", lambda seed, device: looking)
    found = assistant.study(1, 1, 1, 1)
    assert tuple(found.learned) == assistant.VARIANTS
    for scores in (found.words, found.untrained, found.blind, found.least_squares, *found.learned.values(),
                   *found.shift.values()):
        assert len(scores.exact) == len(scores.what) == assistant.ASKED
        assert ((scores.token >= 0) & (scores.token <= 1)).all()
        assert (scores.token[scores.exact] == 1).all()
    assert {name: len(near.zh) for name, near in found.nearest.items()} == {"projector": 30, "least squares": 30}


@pytest.mark.parametrize(("call", "match"), [
    (lambda a, m: a.answer(m, torch.ones(4, 96), "Where is the unicorn?"), "never learned: unicorn"),
    (lambda a, m: a.answer(m, torch.ones(4, 96), "dog " * 31), "may have 30 tokens at most"),
    (lambda a, m: a.say(m, torch.ones(3, 96), "en"), r"x must have shape \(4, 96\)"),
    (lambda a, m: a.say(m, torch.ones(4, 96), "fr"), "language must be one of zh, en"),
    (lambda a, m: a.squeezing(m, a.Eyes(None, torch.ones(31, 128)), 5), "queries may be 4 at most, got 5"),
    (lambda a, m: a.scores(m, torch.ones(3, 4, 96), {}), "drawn lacks 'cells'"),
])
def test_what_is_wrong_is_said_clearly(model: assistant.Assistant, call, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call(assistant, model)


def test_what_it_sees_goes_through_the_eyes_of_lesson_05(looking: Eyes, model: assistant.Assistant) -> None:
    f = look(looking, TEST)
    rows = assistant.picture_rows(model, f)
    assert torch.allclose(rows, f @ model.projector.weight.T + model.projector.bias, atol=1e-5)
    near = assistant.nearest(model, f)
    assert near.zh.shape == near.en.shape == (30,)
    assert KINDS[0] == "what"
