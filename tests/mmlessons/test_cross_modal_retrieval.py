"""跨模态检索 / Cross-modal retrieval."""

import math
from dataclasses import asdict

import pytest
import torch

from mmlessons.data import emoji
from mmlessons.tasks import cross_modal_retrieval as retrieval
from mmlessons.tasks import pixels
from mmlessons.tasks.learner import Learner

DATA = emoji.load()


@pytest.fixture(scope="module")
def trained() -> Learner:
    return retrieval.learner(DATA, steps=80).finish()


def test_a_short_training_learns_far_above_chance_on_an_artist_never_seen(trained: Learner) -> None:
    recall = retrieval.found(retrieval.evaluate(trained.model, DATA, "fxemoji")).mean()
    assert recall > 20 / len(DATA.concepts)


def test_only_training_artists_are_trained_on() -> None:
    """别的作者的图画改成噪声，训练一字不差 / Turn all other artists' pictures into noise: no difference."""
    noise = {a: p if a in DATA.by_role("train") else torch.randint_like(p, 256) for a, p in DATA.pictures.items()}
    changed = emoji.Emoji(DATA.concepts, noise, DATA.drawn, DATA.artists)
    kept, other = (retrieval.learner(data, 3) for data in (DATA, changed))
    assert [kept.train_step() for _ in range(3)] == [other.train_step() for _ in range(3)]


def test_the_same_seed_trains_the_same_and_reset_starts_again() -> None:
    learner = retrieval.learner(DATA, steps=5, seed=3)
    first = [learner.train_step()["L"] for _ in range(3)]
    learner.reset()
    assert [learner.train_step()["L"] for _ in range(3)] == first
    assert retrieval.learner(DATA, steps=5, seed=4).train_step()["L"] != first[0]


def test_training_leaves_the_global_random_numbers_alone() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    retrieval.learner(DATA, steps=2).train_step()
    assert torch.equal(torch.rand(3), wanted)


def test_the_temperature_acts_on_the_very_next_step() -> None:
    learners = [retrieval.learner(DATA, steps=2) for _ in range(2)]
    warm, cold = learners[0].train_step(tau=1.0)["L"], learners[1].train_step(tau=0.05)["L"]
    assert abs(warm - cold) > 0.01


@pytest.mark.parametrize("tau", [0, -0.1, float("nan")])
def test_a_bad_temperature_is_refused_and_the_model_kept(tau: float) -> None:
    learner = retrieval.learner(DATA, steps=2)
    before = {name: t.clone() for name, t in learner.model.state_dict().items()}
    drawn = learner.generator.get_state()
    with pytest.raises(ValueError, match="tau must be positive"):
        learner.train_step(tau=tau)
    assert all(torch.equal(before[name], t) for name, t in learner.model.state_dict().items())
    assert torch.equal(learner.generator.get_state(), drawn)


def test_every_parameter_learns(trained: Learner) -> None:
    fresh = retrieval.learner(DATA, steps=80).model.state_dict()
    same = [name for name, p in trained.model.named_parameters() if torch.equal(p, fresh[name])]
    assert same == ["log_tau"]  # which learns when it is told to


def test_the_temperature_learns_when_it_is_told_to_and_is_then_the_one_in_the_loss() -> None:
    learner, given = retrieval.learner(DATA, steps=3), retrieval.learner(DATA, steps=3)
    start = learner.model.log_tau.item()
    assert math.exp(start) == pytest.approx(retrieval.TAU)
    first = learner.train_step(tau=1.0, learned=True)
    assert first == given.train_step(tau=retrieval.TAU)  # the τ of the slider plays no part
    assert learner.model.log_tau.item() != start
    assert given.model.log_tau.item() == start


def test_evaluation_looks_up_what_loops_look_up(trained: Learner) -> None:
    ranked = retrieval.evaluate(trained.model, DATA, "twemoji")
    f_v = trained.model.encode_pictures(DATA.pictures["twemoji"])
    for language in ("zh", "en"):
        f_t = torch.cat([trained.model.encode_texts([name]) for name in DATA.names(language)])
        cos = torch.stack([torch.cosine_similarity(v.unsqueeze(0), f_t) for v in f_v])
        for way, scores in (("image→text", cos), ("text→image", cos.T)):
            places = [int((row >= row[i]).sum()) for i, row in enumerate(scores)]
            assert (ranked[way, language] - torch.tensor(places)).abs().double().mean() < 0.1  # but for roundings
    assert trained.model.training, "evaluation leaves the model in the mode it was in"


def test_the_index_finds_in_either_language_and_sorts(trained: Learner) -> None:
    index = retrieval.Index(trained.model, DATA.pictures["noto"])
    for query in ("red apple", "红苹果"):
        found = index.search(query, k=5)
        assert [s for _, s in found] == sorted((s for _, s in found), reverse=True)
        assert "red apple" in [DATA.concepts[i].names["en"] for i, _ in found]


@pytest.mark.parametrize(("query", "match"), [("", "type something"), ("  ", "type something"),
                                              ("appel", "did you mean apple"), ("red xyzzy", "never learned: xyzzy")])
def test_an_empty_or_unknown_query_gets_a_clear_message(trained: Learner, query: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        retrieval.Index(trained.model, DATA.pictures["noto"]).search(query)


def test_found_is_the_share_of_queries_whose_first_answer_is_right() -> None:
    ranked = {"there": torch.tensor([1, 2, 1]), "back": torch.tensor([1, 1, 3])}
    assert retrieval.found(ranked).tolist() == [1, 0.5, 0.5]
    for bad in ({}, {"there": torch.tensor([1, 2]), "back": torch.tensor([1])}, {"there": torch.tensor([])}):
        with pytest.raises((ValueError, TypeError), match=r"ranked.* / .*ranked"):
            retrieval.found(bad)


def nearest(queries: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    found = torch.stack([torch.cosine_similarity(f.unsqueeze(0), features).argmax() for f in queries])
    return (found == torch.arange(len(features))).double()


def close(first: torch.Tensor, second: torch.Tensor) -> bool:
    """But for a rounding that may turn one answer."""
    return (first - second).abs().mean().item() < 0.02


def test_each_study_is_of_the_artist_and_the_concepts_it_names(trained: Learner) -> None:
    """考错了人就是泄漏 / A test of a training artist would be a leak."""
    model, new = trained.model, emoji.load("held-out")

    def by_loops(data: emoji.Emoji, artist: str, *languages: str) -> torch.Tensor:
        f_v = model.encode_pictures(data.pictures[artist])
        texts = [model.encode_texts(data.names(language)) for language in languages]
        return torch.stack([half for f_t in texts for half in (nearest(f_v, f_t), nearest(f_t, f_v))]).mean(0)

    artists = retrieval.across_artists(model, DATA)
    for role, name in (("known", "noto"), ("test", "twemoji"), ("shift", "openmoji")):
        assert close(getattr(artists, role), by_loops(DATA, name, "zh", "en"))
    found = retrieval.new_concepts(model)
    assert close(found.by_chinese, by_loops(new, "noto", "zh"))
    assert close(found.by_english, by_loops(new, "noto", "en"))
    f_test, f_known = (model.encode_pictures(new.pictures[artist]) for artist in ("twemoji", "noto"))
    assert close(found.by_picture, nearest(f_test, f_known))
    for data in (DATA, new):
        zh, en = (model.encode_texts(data.names(language)) for language in ("zh", "en"))
        assert close(retrieval.across_languages(model, data), (nearest(zh, en) + nearest(en, zh)) / 2)


def test_the_pixel_baseline_looks_both_ways() -> None:
    S = pixels.pixel_similarity(DATA.pictures["twemoji"], DATA.training_pictures())
    ranked = retrieval.pixel_baseline(DATA, "twemoji")
    right = torch.arange(len(S))
    for language in ("zh", "en"):
        assert torch.equal(ranked["image→text", language] == 1, S.argmax(1) == right)
        assert torch.equal(ranked["text→image", language] == 1, S.argmax(0) == right)


def test_a_background_run_trains_the_seed_and_temperature_it_was_given() -> None:
    first, again, warm = (asdict(retrieval.train_and_study(1, tau, 3)) for tau in (0.0625, 0.0625, 1.0))
    assert [study["tau"] for study in (first, again, warm)] == [0.0625, 0.0625, 1.0]
    assert retrieval.train_and_study(1, 1.0, 3, learned=True).tau != 1.0
    for study in ("artists", "new_concepts"):
        for name, scores in first[study].items():
            assert torch.equal(scores, again[study][name])
    for name, scores in first["untrained"].items():
        assert torch.equal(scores, warm["untrained"][name])
    assert not all(torch.equal(scores, warm["artists"][name]) for name, scores in first["artists"].items())


def test_concepts_that_an_artist_did_not_draw_are_refused() -> None:
    everything = emoji.load("all")
    with pytest.raises(ValueError, match=r"emojione did not draw \d+ of these concepts"):
        retrieval.learner(everything, 3)
    with pytest.raises(ValueError, match=r"fxemoji did not draw \d+ of these concepts"):
        retrieval.evaluate(retrieval.learner(DATA, 3).model, everything, "fxemoji")


def test_a_step_past_the_last_one_is_refused_before_it_changes_the_model() -> None:
    learner = retrieval.learner(DATA, 1)
    learner.train_step()
    before = {name: t.clone() for name, t in learner.model.state_dict().items()}
    with pytest.raises(ValueError, match="has 1 steps and all are done"):
        learner.train_step()
    assert all(torch.equal(before[name], t) for name, t in learner.model.state_dict().items())


def test_all_training_artists_and_both_languages_are_drawn_from(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = retrieval.learner(DATA, 1)
    learner.task.pictures[:] = torch.arange(5).view(5, 1, 1, 1, 1)  # the picture says whose it is
    artists: set[int] = set()
    monkeypatch.setattr(retrieval, "augment", lambda image, _: artists.update((image * 255).unique().int().tolist())
                        or image)
    forward, ids = learner.model.forward, []
    learner.model.forward = lambda image, input_ids, **rest: ids.append(input_ids) or forward(
        torch.rand_like(image), input_ids, **rest)  # plain pictures alone have no feature
    learner.train_step()
    chinese = {tuple(row) for row in learner.task.input_ids[:256].tolist()}
    assert artists == {0, 1, 2, 3, 4}
    assert {tuple(row) in chinese for row in ids[0].tolist()} == {True, False}


def test_the_pixel_baseline_with_cropping_looks_at_framed_drawings() -> None:
    known = DATA.training_pictures()
    S = pixels.pixel_similarity(pixels.framed(DATA.pictures["openmoji"]),
                                torch.stack([pixels.framed(drawings) for drawings in known]))
    ranked = retrieval.pixel_baseline(DATA, "openmoji", crop=True)
    assert torch.equal(ranked["image→text", "en"] == 1, S.argmax(1) == torch.arange(len(S)))


@pytest.mark.parametrize(("arguments", "match"), [
    ({"steps": 0}, "steps must be at least 1, got 0"),
    ({"steps": 5, "batch": 1}, "batch must be at least 2, got 1"),
    ({"steps": 5, "batch": 257}, "batch may be at most 256, each concept once, got 257"),
    ({"steps": 5, "seed": -1}, "seed must be at least 0, got -1"),
])
def test_a_training_that_could_not_be_made_is_refused(arguments: dict[str, int], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        retrieval.learner(DATA, **arguments)


def test_bad_pictures_and_artists_are_refused(trained: Learner) -> None:
    with pytest.raises(TypeError, match="pictures must be a uint8 tensor"):
        trained.model.encode_pictures(torch.rand(2, 3, 32, 32))
    with pytest.raises(ValueError, match="artist must be one of noto"):
        retrieval.evaluate(trained.model, DATA, "picasso")
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        retrieval.Index(trained.model, DATA.pictures["noto"]).search("apple", k=0)
