"""你自己的图画：写出的文件夹、顶替者、各项研究 / Your own pictures: the folder, the stand-in, the studies."""

import io
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import mmcore
from mmcore import winoground_scores
from mmlessons import live
from mmlessons.data import folder
from mmlessons.intervals import Interval, interval, resampled
from mmlessons.tasks import stand_in
from mmlessons.tasks import your_own_pictures as own
from tests import tiny_models

THINGS = own.drawn_things()


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return own.write_folder(tmp_path_factory.mktemp("own") / "drawings")


@pytest.fixture(scope="module")
def data(root: Path) -> folder.Folder:
    return folder.load(root)


@pytest.fixture(scope="module")
def encoder() -> torch.nn.Module:
    return own.stand_in(own.pretrain(0, 2))


@pytest.fixture(scope="module")
def album(data: folder.Folder, encoder: torch.nn.Module) -> own.Album:
    copies = [train for _, train, _ in own.near_duplicates(data)]
    return own.album(data, encoder, things=THINGS, without=copies, strip=["by", "FxEmojis"])


# -- the folder and its faults ----------------------------------------------------------------------------------------

def test_the_folder_has_every_fault_that_was_put_in_and_no_other(data: folder.Folder) -> None:
    unusable = {problem.kind for problem in data.problems if not problem.used}
    assert unusable == {"broken", "no_file", "no_text"}
    assert {problem.kind for problem in data.problems if problem.used} == {"copy"}
    assert len(data.duplicates) == 8
    sources = {split: {data.rows[i].source for i in rows.tolist()} - {""} for split, rows in data.splits.items()}
    assert sources == {"train": {"fluent", "fxemoji"}, "validation": {"openmoji"}, "test": {"twemoji"}}


def test_every_reprint_of_a_picture_of_another_split_is_found_and_nothing_else(data: folder.Folder) -> None:
    found = own.near_duplicates(data)
    assert len(found) == 8
    for original, reprint, cosine in found:
        assert reprint.startswith("reprint-")
        assert original.startswith(("openmoji", "twemoji"))
        assert cosine > 0.999


def test_the_signature_is_found_and_the_words_of_all_sources_are_not(data: folder.Folder) -> None:
    assert [(each.word, each.source) for each in own.giveaways(data)] == [("by", "fxemoji"), ("fxemojis", "fxemoji")]
    assert own.giveaways(data, "zh") == []


def test_a_folder_is_never_written_over(root: Path) -> None:
    with pytest.raises(ValueError, match="is not empty; name a new folder"):
        own.write_folder(root)


def test_a_word_that_is_taken_out_leaves_the_rest_of_the_caption(album: own.Album) -> None:
    assert not any("FxEmojis" in caption or " by" in caption for caption in album.train.texts)
    assert "a drawing of a dog" in album.train.texts


# -- the album --------------------------------------------------------------------------------------------------------

def test_no_artist_of_the_stand_in_drew_the_folder() -> None:
    assert not set(stand_in.OTHERS) & set(stand_in.SPLIT)


def test_what_is_held_out_shares_no_picture_and_no_pair_of_things(album: own.Album) -> None:
    held, fitted = album.held, album.fitted
    assert not set(held.files) & set(fitted.files)
    assert len(held.files) + len(fitted.files) == len(album.train.files)
    assert len(held.files) == pytest.approx(len(album.train.files) / 4, abs=5)
    pairs = [{tuple(row) for row in part.holds[part.holds.sum(1) == 2].tolist()} for part in (held, fitted)]
    assert pairs[0]
    assert not pairs[0] & pairs[1]


def test_captions_belong_to_their_pictures(album: own.Album) -> None:
    part = album.test
    assert bool(part.positives.any(1).all())
    assert bool(part.positives.any(0).all())
    for i in range(0, len(part.files), 40):
        mine = [part.texts[j] for j in part.positives[i].nonzero().squeeze(1).tolist()]
        assert part.first[i] in mine
        assert {name for caption in mine for name in own.named(caption, THINGS)} == {
            THINGS[k] for k in part.holds[i].nonzero().squeeze(1).tolist()}


def test_a_pretrained_model_takes_the_place_of_the_stand_in(data: folder.Folder) -> None:
    model, processor = tiny_models.chinese_clip()
    found = own.album(data, mmcore.from_clip(model, processor), things=["dog"])
    assert found.test.f_v.shape[1] == found.test.f_t.shape[1] == 12
    assert found.tau == pytest.approx(1 / model.logit_scale.exp().item(), rel=1e-4)


def small(tmp_path: Path, rows: list[str], pictures: int) -> folder.Folder:
    for k in range(pictures):
        colour = tuple(torch.randint(0, 255, (3,), generator=torch.Generator().manual_seed(k)).tolist())
        Image.new("RGB", (20 + k, 24), colour).save(tmp_path / f"{k}.png")
    (tmp_path / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder.load(tmp_path)


def test_too_few_pictures_are_refused_with_their_numbers(tmp_path: Path, encoder: torch.nn.Module) -> None:
    rows = ["file_name,text,split", *(f"{k}.png,a dog,{'train' if k < 3 else 'test'}" for k in range(5))]
    with pytest.raises(ValueError, match=r"现在是 3、0、2.*there are 3, 0 and 2"):
        own.album(small(tmp_path, rows, 5), encoder)


def test_a_folder_without_things_gives_studies_without_questions(tmp_path: Path, encoder: torch.nn.Module) -> None:
    part = ["train"] * 9 + ["validation"] * 3 + ["test"] * 3
    rows = ["file_name,text,split", *(f"{k}.png,{chr(0x4e00 + k)}{chr(0x5e00 + k)},{part[k]}" for k in range(15))]
    found = own.album(small(tmp_path, rows, 15), encoder, "zh")
    assert found.things == ()
    assert own.yes_or_no(found) is None
    assert own.recognise(found) is None
    assert len(own.order_questions(found).rows) == 0
    assert not found.divided
    assert own.by_source(found, [own.Heads(128).eval()])
    assert set(own.simple(found)) == {"pixels", "frozen", "cca"}


def test_labels_are_taken_for_things(tmp_path: Path, encoder: torch.nn.Module) -> None:
    part = ["train"] * 12 + ["validation"] * 4 + ["test"] * 4
    rows = ["file_name,text,split", *(f"{k}.png,{'a dog' if k % 2 else 'a cat'},{part[k]}" for k in range(20))]
    found = own.album(small(tmp_path, rows, 20), encoder)
    assert set(found.things) == {"dog", "cat"}
    recognised = own.recognise(found)
    assert set(recognised.things) == {"dog", "cat"}
    assert list(recognised.few) == [1, 2, 4]
    assert len(recognised.probe) == 4


# -- the studies ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("caption", "turned"), [
    ("A dog is left of an apple.", "An apple is left of a dog."), ("狗在猫的左边。", "猫在狗的左边。"),
    ("An alarm clock is right of a car.", "A car is right of an alarm clock."), ("a dog", None), ("nothing", None),
    ("A dog, a cat and a car.", None)])
def test_two_things_change_places_with_their_articles(caption: str, turned: str | None) -> None:
    things = [*THINGS, *own.drawn_things("zh")]
    assert own.turned(caption, things) == turned
    if turned:
        assert own.turned(turned, things) == caption


def test_order_questions_are_two_pictures_of_one_source_with_the_same_words(album: own.Album) -> None:
    questions, part = own.order_questions(album), album.test
    assert len(questions.rows) == 100
    for i, j, a, b in questions.rows[::10].tolist():
        assert sorted(part.texts[a].lower().split()) != part.texts[a].lower().split()
        assert own.turned(part.texts[a], THINGS).lower() == part.texts[b].lower()
        assert (part.positives[i, a], part.positives[j, b], part.positives[i, b]) == (True, True, False)
        assert part.sources[i] == part.sources[j]
    perfect = winoground_scores(questions.squares(part.positives.float()))
    assert perfect["group"].all()
    assert not winoground_scores(questions.squares(torch.ones(part.positives.shape)))["text"].any()


def test_half_of_the_yes_or_no_questions_are_true_and_none_is_wrong(album: own.Album) -> None:
    asked = own.yes_or_no(album)
    assert asked.truth.double().mean() == 0.5
    assert {*asked.kind} == {"random", "popular", "adversarial"}
    assert mmcore.yes_no_scores(asked.answers["always"], asked.truth)["f1"] == pytest.approx(2 / 3)


def test_a_threshold_is_the_one_at_which_most_are_right() -> None:
    scores, truth = torch.tensor([0.9, 0.8, 0.3, 0.1]), torch.tensor([True, True, False, False])
    assert 0.3 < own._threshold(scores, truth) < 0.8
    same = torch.ones(4)  # what is equal cannot be parted
    assert bool(((same > own._threshold(same, truth)) == (same > own._threshold(same, truth))[0]).all())


def test_who_sees_the_caption_finds_it_and_chance_is_the_mean_over_the_pictures(album: own.Album) -> None:
    part = album.test
    assert mmcore.recall_at(part.positives.float(), part.positives).all()
    drawn = [mmcore.recall_at(torch.rand(part.positives.shape, generator=torch.Generator().manual_seed(k)),
                              part.positives, 5).double().mean() for k in range(30)]
    assert own.chance(part.positives, 5) == pytest.approx(torch.stack(drawn).mean().item(), abs=0.004)
    assert own.chance(torch.eye(4) > 0) == 0.25
    assert own.chance(torch.eye(4) > 0, 4) == 1.0


def test_the_heads_begin_as_the_frozen_features_and_no_batch_has_a_right_negative(album: own.Album) -> None:
    learner = own.learner(album, steps=2, batch=40)
    S = own.simple(album)["frozen"]
    assert torch.allclose(learner.model.similarity(album.test), S, atol=1e-5)
    batch = learner.task.draw(torch.Generator().manual_seed(0), share=1.0)
    assert batch["f_v"].shape == batch["f_t"].shape
    assert len(batch["f_v"]) == 40
    assert 0 < len(batch["f_c"]) <= 40
    assert len(learner.task.draw(torch.Generator().manual_seed(0), share=0.0)["f_c"]) == 0
    first = [own.learner(album, steps=2, seed=3).finish(share=0.5).model.text.weight for _ in range(2)]
    assert torch.equal(*first)


def test_pixels_find_a_picture_that_is_in_training(album: own.Album) -> None:
    S = own.by_pixels(album.train, album.train)
    assert mmcore.recall_at(S, album.train.positives, 10).double().mean() > 0.9


def test_few_shot_and_the_probe_learn_what_can_be_learned() -> None:
    labels = torch.arange(4).repeat(10)
    f = torch.eye(4)[labels] + 0.05 * torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    assert (own.linear_probe(f, labels, 4)(f).argmax(1) == labels).all()
    assert (own._few_shot(f, labels, 4, 1, 0)(f).argmax(1) == labels).all()


def test_scaling_finds_the_temperature_that_made_the_scores() -> None:
    logits = 3 * torch.randn(4000, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = torch.multinomial(logits.softmax(1), 1, generator=torch.Generator().manual_seed(1)).squeeze(1)
    found = own.best_temperature(0.1 * logits, labels)
    assert found == pytest.approx(0.1, rel=0.1)
    assert own.softmax_error(0.1 * logits, labels, found) < 0.03 < own.softmax_error(0.1 * logits, labels, 1.0)


def test_an_index_finds_most_of_what_exact_search_finds() -> None:
    pytest.importorskip("faiss")
    found = own.searches(torch.randn(50, 16, generator=torch.Generator().manual_seed(0)), 2000, queries=50)
    assert found["64"].found.mean() > 0.9


def test_without_faiss_there_is_the_exact_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    assert set(own.searches(torch.randn(50, 16), 200, queries=5)) == {"exact"}


def test_results_are_written_with_their_intervals(tmp_path: Path) -> None:
    path = own.write_results(tmp_path / "results.json", {"R@1": Interval(0.5, 0.4, 0.6), "pictures": 3, "name": "图"})
    assert json.loads(path.read_text("utf-8")) == {
        "R@1": {"value": 0.5, "low": 0.4, "high": 0.6}, "pictures": 3, "name": "图"}
    with pytest.raises(TypeError, match="R@1 must be an Interval, a number or a text, got list"):
        own.write_results(tmp_path / "results.json", {"R@1": [1]})


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n broken"])
def test_an_upload_that_is_no_picture_gets_a_word_in_both_languages(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"这个文件.* / this file "):
        own.read_picture(content)


# -- an interval of what is no mean -----------------------------------------------------------------------------------

def test_a_mean_has_the_interval_that_interval_gives_it() -> None:
    scores = torch.rand(200, generator=torch.Generator().manual_seed(0))
    mine, theirs = resampled(lambda x: x.mean().item(), scores), interval(scores)
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_questions_of_one_item_are_drawn_together_so_that_copies_do_not_count() -> None:
    scores = torch.rand(40, generator=torch.Generator().manual_seed(0))
    def mean(x: Tensor) -> float:
        return x.mean().item()
    once = resampled(mean, scores)
    copied = resampled(mean, scores.repeat(10), items=torch.arange(40).repeat(10))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert resampled(mean, scores.repeat(10)).high < once.high


# -- the pad ----------------------------------------------------------------------------------------------------------

PAD = sys.modules["mmlessons.live.pad"]  # the module, whose name is also that of the class


def answering(seen: list) -> live.pad:
    def answer(name: str, content: bytes) -> object:
        seen.append((name, own.read_picture(content)))
        return live.note("好", "good")
    return live.pad(answer)


def test_an_upload_is_answered_and_what_is_no_picture_gets_a_word() -> None:
    seen: list = []
    pad = answering(seen)
    out = io.BytesIO()
    Image.new("RGB", (9, 7), "red").save(out, "PNG")
    pad._uploaded({"new": ({"name": "a.png", "content": memoryview(out.getvalue())},
                           {"name": "<b>.png", "content": memoryview(b"no")})})
    assert [(name, tuple(x.shape)) for name, x in seen] == [("a.png", (3, 7, 9))]
    assert "good" in pad.shown.value
    assert "this file" in pad.shown.value
    assert "<b>" not in pad.shown.value


def test_what_is_drawn_is_what_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipycanvas")
    monkeypatch.setattr(PAD, "is_live", lambda: True)
    seen: list = []
    pad = answering(seen)
    pad.move(5, 5)  # the pen is up
    pad.ask()
    assert seen[-1][1].min() == 255
    pad.down(20, 144)
    pad.move(200, 144)
    pad.up(200, 144)
    pad.move(200, 10)
    pad.ask()
    picture = seen[-1][1]
    assert picture.shape == (3, 288, 288)
    assert picture[:, 144, 100].tolist() == [0xc0, 0x39, 0x2b]
    assert picture[:, 20, 200].tolist() == [255] * 3
    pad.clear()
    pad.ask()
    assert seen[-1][1].min() == 255


def test_without_ipycanvas_the_page_says_so_and_uploads_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ipycanvas", None)
    monkeypatch.setattr(PAD, "is_live", lambda: True)
    pad = answering([])
    assert pad.canvas is None
    assert "pip install ipycanvas" in pad.children[0].value
    assert pad.upload in pad.children[1].children
