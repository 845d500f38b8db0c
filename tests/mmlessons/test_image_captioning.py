"""看图说话 / Image captioning."""

import math
from copy import deepcopy

import pytest
import torch

from mmlessons.data import scenes
from mmlessons.tasks import image_captioning as captioning
from mmlessons.tasks.image_captioning import STARTS, CaptioningModel, chrf, judge, tokens_of
from mmlessons.tasks.learner import Stages
from tests.support import check_seed, same, state

TRAIN = scenes.load("train")
BLANK = torch.full((3, 64, 64), 255, dtype=torch.uint8)


def learner(naming_steps: int = 2, caption_steps: int = 2, **options: int | bool) -> Stages:
    return captioning.learner(naming_steps, caption_steps, **{"batch": 8, "device": "cpu", **options})


@pytest.fixture(scope="module")
def model() -> CaptioningModel:
    """学得不多，什么都写一点 / It has learned a little and writes something of everything."""
    return learner(20, 25, batch=16).finish().model.eval()


@pytest.fixture(scope="module")
def drawn() -> dict[str, torch.Tensor]:
    return TRAIN.draw_to_describe(20, torch.Generator().manual_seed(0))


# -- the model --------------------------------------------------------------------------------------------------------

def test_shapes_and_names(model: CaptioningModel, drawn: dict[str, torch.Tensor]) -> None:
    tokens = tokens_of(model, drawn)
    out = model(TRAIN.pictures(drawn["cells"], drawn["artist"]) / 255, tokens[:, :-1])
    shapes = {name: tuple(x.shape) for name, x in out.items()}
    v, length = model.decoder.vocabulary, tokens.shape[1] - 1
    assert v == 130  # which the lesson says
    assert shapes == {"f_v": (20, 4, 128), "z": (20, 4, 31), "logits": (20, length, v)}


def test_tokens_begin_with_the_instruction_and_spell_the_caption(model, drawn) -> None:
    tokens, texts = tokens_of(model, drawn), captioning.captions_of(drawn)
    for n, text in enumerate(texts):
        language, order = scenes.LANGUAGES[drawn["language"][n]], scenes.ORDERS[drawn["order"][n]]
        assert text == scenes.caption(drawn["cells"][n].tolist(), language, order)
        assert STARTS[tokens[n, 0] - model.decoder.vocabulary] == (language, order)
        assert model.start(language, order).tolist() == [tokens[n, 0] - model.decoder.vocabulary]
        assert model.spell(tokens[n, 1:]) == text
        assert model.tokenizer.token_to_id("[UNK]") not in tokens[n]


def test_every_caption_fits_into_the_decoder(model: CaptioningModel) -> None:
    names = [[model.tokenizer.encode(said).ids[1:-1] for said in (f"一{t.measure}{t.zh}", t.article)]
             for t in scenes.THINGS]
    longest = [max(range(len(names)), key=lambda i: len(names[i][k])) for k in (0, 1)]
    for k, language in enumerate(scenes.LANGUAGES):
        for empty in range(4):
            cells = [scenes.EMPTY if cell == empty else longest[k] for cell in range(4)]
            for order in scenes.ORDERS:
                ids = model.tokenizer.encode(scenes.caption(cells, language, order)).ids
                assert len(ids) - 1 <= model.decoder.max_tokens


def test_without_a_picture_features_are_zero_and_a_float_picture_is_refused(model: CaptioningModel) -> None:
    assert not model.look(None).any()
    assert model.look(BLANK).shape == (1, 4, 128)
    assert model.look(BLANK).any(), "a white picture is a picture"
    with pytest.raises(TypeError, match="picture must be a uint8 tensor"):
        model.look(BLANK / 255)
    for wrong in (("fr", "reading"), ("zh", "random")):
        with pytest.raises(ValueError, match="must be one of"):
            model.start(*wrong)


# -- training ---------------------------------------------------------------------------------------------------------

def test_the_first_stage_moves_the_eyes_alone_and_the_second_the_decoder_alone() -> None:
    made = learner()
    seeing = torch.nn.ModuleList([made.model.visual_encoder, made.model.namer])
    eyes, decoder = state(seeing), state(made.model.decoder)
    assert made.stage == 0
    assert list(made.train_step()) == ["L_name", "L"]
    assert not same(seeing, eyes)
    assert same(made.model.decoder, decoder)
    made.train_step()
    assert made.stage == 1
    eyes = state(seeing)
    found = made.train_step()
    assert list(found) == ["L_caption", "L"]
    assert found["L"] == found["L_caption"]
    assert same(seeing, eyes)
    assert not same(made.model.decoder, decoder)


def test_a_single_stage_moves_encoder_and_decoder_together() -> None:
    made = learner(naming_steps=0)
    encoder, decoder = state(made.model.visual_encoder), state(made.model.decoder)
    made.train_step()
    moved = dict(made.model.visual_encoder.named_parameters())
    assert not [name for name, p in moved.items() if torch.equal(p, encoder[name])], "weights, not only statistics"
    assert not same(made.model.decoder, decoder)
    assert not [name for name, p in made.model.decoder.named_parameters() if p.grad is None or not p.grad.any()]


def test_a_single_stage_that_is_told_learns_the_names_by_the_same_steps_as_well() -> None:
    """只多一项损失：同样的种子，同样的说明，同样的 L_caption / One more loss: same seed, captions and L_caption."""
    told, plain = learner(naming_steps=0, told=True), learner(naming_steps=0)
    namer = state(told.model.namer)
    found, without = told.train_step(), plain.train_step()
    assert set(found) == {"L_caption", "L_name", "L"}
    assert found["L"] == pytest.approx(found["L_caption"] + found["L_name"])
    assert found["L_caption"] == without["L_caption"]
    assert found["L_name"] == pytest.approx(math.log(31), abs=1), "nothing is learned yet"
    assert not same(told.model.namer, namer)
    assert same(plain.model.namer, namer)


def test_the_second_stage_sees_in_kept_features_what_forward_sees_in_whole_pictures() -> None:
    made = learner(naming_steps=1)
    made.train_step()
    made.train_step()
    thing = torch.arange(31)
    kept = made.learners[0].task.features(None).view(captioning.KEPT, 31, -1)
    assert torch.isfinite(kept).all()
    centre = kept.mean(0)
    clean = made.model.eval().visual_encoder(TRAIN.with_empty[0] / 255)
    other = (clean[:, None] - centre[None]).norm(dim=2)
    assert (other.argmin(1) == thing).double().mean() > 0.5  # row 31 · k + i of the kept ones is thing i
    cells = torch.tensor([[0, 1, scenes.EMPTY, 2]])
    seen = made.model.see(TRAIN.pictures(cells, torch.tensor([0])) / 255)
    assert torch.allclose(seen[0], clean[[0, 1, 30, 2]], atol=1e-5)


def test_withheld_pictures_teach_nothing_about_pictures() -> None:
    made = learner(naming_steps=1, caption_steps=1)
    made.train_step()
    before = made.model.decoder.open.weight.clone()
    made.train_step(withhold=1.0)
    assert not made.model.decoder.open.weight.grad.any()
    assert torch.allclose(before, made.model.decoder.open.weight, atol=1e-4), "nothing but the decay of weights"


def test_the_same_seed_gives_the_same_model_and_reset_begins_anew() -> None:
    check_seed(learner(), learner(seed=1), 4)


def test_what_is_refused_changes_nothing() -> None:
    made = learner(1, 1)
    made.train_step()
    before = state(made.model)
    with pytest.raises(ValueError, match="withhold must be from 0 to 1"):
        made.train_step(withhold=1.5)
    assert same(made.model, before)
    made.train_step()
    with pytest.raises(ValueError, match="has 1 steps and all are done"):
        made.train_step()


@pytest.mark.parametrize(("call", "match"), [
    (lambda: learner(naming_steps=-1), "naming_steps must be at least 0"),
    (lambda: learner(caption_steps=0), "caption_steps must be at least 1"),
    (lambda: learner(batch=1), "batch must be at least 2"),
    (lambda: learner(told=True), "told=True needs naming_steps=0"),
    (lambda: captioning.study("best", 1), "variant must be one of two stages"),
])
def test_bad_options_are_refused(call, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


# -- scores -----------------------------------------------------------------------------------------------------------

def test_what_is_judged_right_is_exactly_what_greedy_writing_gives(model, drawn) -> None:
    """不写也知道：与真写出来的比 / Known without writing: compared with what is really written."""
    tokens = tokens_of(model, drawn)
    f_v = model.see(TRAIN.pictures(drawn["cells"], drawn["artist"]) / 255)
    with torch.no_grad():
        written = model.decoder.generate(f_v, tokens[:, 0] - model.decoder.vocabulary)[0]
        for n in range(10):  # make some right: the sentence that is written is the one that is wanted
            row = torch.cat([tokens[n, :1], written[n]])[:tokens.shape[1]]
            tokens[n] = torch.nn.functional.pad(row, (0, tokens.shape[1] - len(row)))
        exact, share = judge(model.decoder(f_v, tokens[:, :-1]), tokens)
    wanted = [model.words(a) == model.words(b[1:]) and model.decoder.end in a
              for a, b in zip(written, tokens, strict=True)]
    finished = [model.decoder.end in row for row in tokens]
    assert [e for e, f in zip(exact.tolist(), finished, strict=True) if f] == [
        w for w, f in zip(wanted, finished, strict=True) if f]
    assert any(wanted)
    assert not all(wanted)
    assert torch.equal(share == 1, exact)


def test_one_wrong_token_the_end_included_spoils_exactness_and_padding_never_does() -> None:
    tokens = torch.tensor([[9, 5, 6, 3], [9, 5, 3, 0]])
    logits = torch.nn.functional.one_hot(torch.tensor([[5, 6, 3], [5, 3, 7]]), 8).float()
    exact, share = judge(logits, tokens)
    assert exact.tolist() == [True, True]
    assert share.tolist() == [1, 1]
    logits[0, 2] = torch.nn.functional.one_hot(torch.tensor(4), 8)  # it goes on where it ought to end
    exact, share = judge(logits, tokens)
    assert exact.tolist() == [False, True]
    assert share.tolist() == pytest.approx([2 / 3, 1])


def test_what_it_says_comes_with_its_probability_token_by_token(model: CaptioningModel) -> None:
    f_v = model.look(TRAIN.pictures(torch.tensor([[0, 1, -1, -1]]), torch.tensor([0]))[0])
    greedy = model.say(f_v, "en", "reverse")
    tokens, p = model.decoder.generate(f_v, model.start("en", "reverse"))
    assert greedy.sentence == model.spell(tokens[0])
    assert greedy.log_p == pytest.approx(p.log().sum().item(), rel=1e-4)
    assert [step[1] for step in greedy.steps] == pytest.approx(p[0, :len(greedy.steps)].tolist(), rel=1e-4)
    assert all(own >= rival for _, own, _, rival in greedy.steps), "greedy takes the most likely"
    assert all(word != other for word, _, other, _ in greedy.steps)
    best = model.choices(f_v, "en", "reverse", beams=3)
    tokens, s = model.decoder.search(f_v, model.start("en", "reverse"), 3)
    assert [one.sentence for one in best] == [model.spell(line) for line in tokens[0]]
    assert [one.log_p for one in best] == pytest.approx(s[0].tolist(), rel=1e-4)
    drawn = [model.say(f_v, "zh", "reading", 3.0, torch.Generator().manual_seed(k)).sentence for k in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_ways_of_writing_and_strange_pictures_are_measured_on_any_model(model: CaptioningModel) -> None:
    ways = captioning.study_ways(model, TRAIN, 8)
    assert set(ways.drawn) == {0.5, 1, 2}
    every = (ways.greedy, ways.beam, *ways.drawn.values())
    assert all(way.exact.shape == way.log_p.shape == (8,) and (way.log_p < 0).all() for way in every)
    assert ways.beam.log_p.mean() > ways.greedy.log_p.mean() > ways.drawn[2.0].log_p.mean()
    exact = captioning.scores(model, TRAIN, 8, compared=0).exact
    assert torch.equal(ways.greedy.exact, exact), "greedy writing is what the scores judge"
    found = captioning.study_strange(model, TRAIN, 8)
    assert len(found.blank) == len(STARTS)
    assert found.four.shape == (8,)
    assert ((found.four >= 0) & (found.four <= captioning.MAX_TOKENS)).all()


def test_each_variant_is_tested_on_what_the_lesson_shows_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captioning, "scores", lambda model, data, **options: (data.role, options))
    two = captioning.study("two stages", 1, naming_steps=1, caption_steps=1, batch=2)
    blind = captioning.study("blind", 1, caption_steps=1, batch=2)
    assert (two.known, two.test) == (("train", {"blind": False}), ("test", {"blind": False}))
    assert two.elsewhere == captioning.DescribedElsewhere(
        ("validation", {"compared": 0}), ("shift", {"compared": 0}), ("train", {"pairs": "new", "compared": 0}),
        ("test", {"pairs": "new", "compared": 0}))
    assert two.ways.greedy.log_p.mean() < 0
    assert len(two.strange.blank) == len(STARTS)
    assert blind == captioning.CaptioningStudies(("train", {"blind": True}), ("test", {"blind": True}))


def test_the_things_of_a_sentence_are_those_it_was_made_of() -> None:
    for k, thing in enumerate(scenes.THINGS):
        cells = [k, scenes.EMPTY, (k + 1) % len(scenes.THINGS), (k + 2) % len(scenes.THINGS)]
        names = [scenes.THINGS[cell].title for cell in cells if cell != scenes.EMPTY]
        assert names[0] == thing.title
        for i, language in enumerate(scenes.LANGUAGES):
            assert captioning.things_in(scenes.caption(cells, language)) == [name[i] for name in names]
            assert captioning.things_in(scenes.caption(cells, language, "reverse")) == [name[i] for name in names[::-1]]
    assert captioning.things_in("A. at the bottom left.") == []


def test_every_scene_has_its_own_scores_and_cells_are_named_by_the_first_stage(model: CaptioningModel) -> None:
    """一幅一幅地重算 / Computed again, one picture at a time."""
    drawn = TRAIN.draw_to_describe(12, torch.Generator().manual_seed(3))
    found = captioning.scores(model, TRAIN, 12, seed=3, compared=12)
    pictures = TRAIN.pictures(drawn["cells"], drawn["artist"])
    for n, wanted in enumerate(captioning.captions_of(drawn)):
        f_v = model.look(pictures[n])
        called = model.namer(f_v).argmax(2)[0].tolist()
        facts = [30 if cell == scenes.EMPTY else cell for cell in drawn["cells"][n].tolist()]
        assert found.named[n] == pytest.approx(sum(a == b for a, b in zip(called, facts, strict=True)) / 4)
        assert found.whole[n] == (called == facts)
        said = model.say(f_v, scenes.LANGUAGES[drawn["language"][n]], scenes.ORDERS[drawn["order"][n]]).sentence
        assert found.exact[n] == (said == wanted)
        assert found.chrf[n] == pytest.approx(chrf(said, wanted), abs=1e-6)
    assert 0 < found.named.mean() < 1


def test_scores_repeat_and_lie_between_0_and_1(model: CaptioningModel) -> None:
    one, again = (captioning.scores(model, TRAIN, 60, compared=7) for _ in range(2))
    assert all(torch.equal(x, vars(again)[name]) for name, x in vars(one).items())
    assert all((x >= 0).all() and (x <= 1).all() for x in vars(one).values())
    assert {name: len(x) for name, x in vars(one).items()} == {"exact": 60, "token": 60, "chrf": 7, "named": 60}
    assert one.exact.double().mean() < one.token.mean()
    assert not torch.equal(captioning.scores(model, TRAIN, 60, compared=0, blind=True).named, one.named)


def test_chrf_is_1_for_the_same_and_0_for_nothing_in_common() -> None:
    assert chrf("A dog at the top left.", "A dog at the top left.") == pytest.approx(1)
    assert chrf("xyz", "左上有一只狗。") == pytest.approx(0)
    assert 0.5 < chrf("A dog at the top left.", "A cat at the top left.") < 1


def test_chrf_by_hand() -> None:
    """“ab” 写成 “ac”：一元对 1/2，二元对 0；F₂ 的平均在有的阶上取：(1/2 + 0) / 2 / Unigrams 1/2, bigrams 0."""
    assert chrf("ac", "ab") == pytest.approx(0.25, abs=0.01)


# -- rules that learn nothing -----------------------------------------------------------------------------------------

def test_the_most_frequent_caption_is_never_a_whole_answer() -> None:
    found = captioning.majority(TRAIN, 300, compared=5, examples=2000)
    assert found.exact.double().mean() < 0.03
    assert 0 < found.token.mean() < 0.5
    assert found.chrf.shape == (5,)


def test_the_pixel_neighbour_names_what_loops_find_and_an_empty_cell_by_its_white() -> None:
    test = scenes.load("test")
    names = captioning.pixel_names(test)
    assert names.shape == (1, 31)
    assert names[0, scenes.EMPTY] == 30
    for thing in range(0, 30, 7):
        x = test.tiles[0, thing].flatten().double()
        x = x - x.mean()
        likest = (-2.0, -1)
        for artist in TRAIN.tiles:
            for k, drawing in enumerate(artist):
                y = drawing.flatten().double()
                y = y - y.mean()
                likest = max(likest, ((x @ y / (x.norm() * y.norm())).item(), k))
        assert names[0, thing] == likest[1]
    assert torch.equal(captioning.pixel_names(TRAIN), torch.arange(31).expand(5, 31)), "its own nearest neighbour"


def test_a_drawing_that_stands_elsewhere_and_smaller_is_named_right_once_it_is_cropped() -> None:
    small = torch.full_like(TRAIN.tiles[:1], 255)
    small[..., 1:17, 14:30] = TRAIN.tiles[:1, :, :, ::2, ::2]
    moved = scenes.Scenes("moved", small, TRAIN.artists[:1])
    right = [(captioning.pixel_names(moved, crop)[0] == torch.arange(31)).double().mean() for crop in (False, True)]
    assert right[0] < 0.7
    assert right[1] > 0.9
    assert captioning.pixel_grammar(moved, 30, compared=0, crop=True).named.mean() > 0.9


def test_with_a_written_grammar_a_sentence_is_right_where_all_cells_are_named_and_nowhere_else() -> None:
    test = scenes.load("test")
    found, again = captioning.pixel_grammar(test, 60, compared=60), captioning.pixel_grammar(TRAIN, 60, compared=60)
    assert torch.equal(found.exact, found.whole)
    assert 0.5 < found.exact.double().mean() < 1
    assert torch.equal(found.chrf > 0.999, found.exact)
    assert (found.token[found.exact] == 1).all()
    for score in (again.exact, again.token, again.chrf, again.named):
        assert score.double().mean().item() == pytest.approx(1), "drawings it has seen"
    names, drawn = captioning.pixel_names(test)[0], test.draw_to_describe(60, torch.Generator().manual_seed(12345))
    for cells, named in zip(drawn["cells"].tolist(), found.named.tolist(), strict=True):
        assert named == sum(names[cell] == (30 if cell == scenes.EMPTY else cell) for cell in cells) / 4


def test_a_short_training_learns_to_speak(model: CaptioningModel) -> None:
    assert captioning.scores(model, TRAIN, 100, compared=0).token.mean() > 0.4


def test_what_was_kept_of_a_training_comes_back_with_its_stage_and_new_features() -> None:
    made = learner(3, 3)
    for _ in range(2):
        made.train_step()
    kept, before = [deepcopy(part.state_dict()) for part in made.keeps()], state(made.model)
    for _ in range(3):
        made.train_step()
    assert made.stage == 1
    features = made.learners[0].task.features(None)
    for part, was in zip(made.keeps(), kept, strict=True):
        part.load_state_dict(deepcopy(was))
    assert made.stage == 0
    assert same(made.model, before)
    made.train_step()
    assert made.stage == 1
    made.train_step()
    assert not same(made.model, before)
    assert not torch.equal(made.learners[0].task.features(None), features), "the encoder has learned something else"
