"""冻结的特征 / The frozen features."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch

from mmcore.alignment import cosine_similarity
from mmcore.ranking import retrieval_scores
from mmlessons.data import emoji, views

SIZES = {"classroom": 256, "validation": 64, "held-out": 64, "large": 825, "all": 953}


@pytest.mark.parametrize("subset", views.SUBSETS)
def test_a_subset_holds_what_the_card_says(subset: str) -> None:
    data, n = views.load(subset), SIZES[subset]
    assert len(data.concepts) == n
    assert tuple(data.pictures) == tuple(views.ARTISTS)
    assert tuple(data.names) == views.LANGUAGES
    for x in (*data.pictures.values(), *data.names.values()):
        assert x.shape == (n, 128)
        assert x.dtype == torch.float32
        assert x.min() == 0  # a ReLU is the last thing an encoder does
    for artist, drawn in data.drawn.items():
        assert torch.equal(data.pictures[artist].any(1), drawn)  # zeros where there is no drawing, and nowhere else
    assert all(bool(x.any(1).all()) for x in data.names.values())


def test_nothing_to_learn_from_is_unseen_and_no_concept_is_lost() -> None:
    chars = {subset: {c.char for c in views.load(subset).concepts} for subset in views.SUBSETS}
    assert chars["classroom"] < chars["large"]
    assert chars["large"] | chars["validation"] | chars["held-out"] == chars["all"]
    assert SIZES["large"] + SIZES["validation"] + SIZES["held-out"] == SIZES["all"]
    for subset in ("classroom", "held-out"):
        assert views.load(subset).concepts == emoji.load(subset).concepts


def test_the_roles_are_those_of_the_emoji_and_no_artist_is_under_share_alike() -> None:
    artists = emoji.load().artists
    assert {name: artists[name].role for name in views.ARTISTS} == views.ARTISTS
    assert not [name for name in views.ARTISTS if "SA" in artists[name].license]
    assert [views.load().by_role(role) for role in ("validation", "test")] == [["fxemoji"], ["twemoji"]]


def test_everyone_drew_every_concept_of_the_lessons() -> None:
    for subset in ("classroom", "held-out"):
        assert all(bool(drawn.all()) for drawn in views.load(subset).drawn.values())
    drawn = views.load("validation").drawn
    assert all(bool(drawn[artist].all()) for artist, role in views.ARTISTS.items() if role != "validation")


def test_each_encoder_knows_its_own_kind_and_the_two_have_never_met() -> None:
    data = views.load()
    pictures, names = data.pictures, data.names
    assert retrieval_scores(cosine_similarity(pictures["twemoji"], pictures["noto"]))["r@1"] > 0.3
    assert retrieval_scores(cosine_similarity(names["zh"], names["en"]))["r@1"] > 0.8
    assert retrieval_scores(cosine_similarity(pictures["noto"], names["en"]))["r@1"] < 0.02


def test_the_groups_are_the_subgroups_of_the_concepts() -> None:
    data = views.load()
    group, subgroups = data.groups(), [c.subgroup for c in data.concepts]
    for i in range(0, 256, 5):
        assert [bool(same) for same in group == group[i]] == [name == subgroups[i] for name in subgroups]


def test_an_unknown_subset_or_role_is_refused() -> None:
    with pytest.raises(ValueError, match="subset must be one of classroom, large"):
        views.load("train")
    with pytest.raises(ValueError, match="role must be one of train, validation, test"):
        views.load().by_role("shift")


def test_features_of_another_number_of_concepts_are_refused(tmp_path: Path) -> None:
    """表情数据增减以后，第 i 行就不再是第 i 个概念 / Once the emoji change, row i is no longer concept i."""
    copied = Path(shutil.copytree(views.ASSETS, tmp_path / "assets"))
    manifest = json.loads((copied / "manifest.json").read_text("utf-8"))
    shutil.copy(emoji.ASSETS / "noto.png", copied / "noto.png")
    manifest["sha256"]["noto.png"] = hashlib.sha256((copied / "noto.png").read_bytes()).hexdigest()
    (copied / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(ValueError, match="noto must have features of 953 concepts, got 960"):
        views.load(folder=copied)
