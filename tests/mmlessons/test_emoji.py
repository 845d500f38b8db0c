"""表情数据 / The emoji data."""

import json

import pytest
import torch

from makers import vocabulary
from mmcore import tokens
from mmlessons.data import emoji


def test_the_splits_hold_what_the_card_says() -> None:
    classroom, held_out, everything = (emoji.load(subset) for subset in emoji.SUBSETS)
    assert (len(classroom.concepts), len(held_out.concepts)) == (256, 64)
    assert [len(classroom.by_role(role)) for role in emoji.ROLES] == [5, 1, 1, 1]
    assert classroom.by_role("test") == ["twemoji"]
    assert not {c.char for c in classroom.concepts} & {c.char for c in held_out.concepts}
    assert {c.char for c in classroom.concepts + held_out.concepts} <= {c.char for c in everything.concepts}


@pytest.mark.parametrize("subset", ["classroom", "held-out"])
def test_every_artist_drew_every_concept_of_the_lessons(subset: str) -> None:
    data = emoji.load(subset)
    for artist, pictures in data.pictures.items():
        assert pictures.shape == (len(data.concepts), 3, 32, 32)
        assert data.drawn[artist].all()
        assert (pictures.float().std((1, 2, 3)) > 2).all(), f"{artist} has a blank picture"


def test_no_two_concepts_share_a_name_so_that_no_negative_is_false() -> None:
    data = emoji.load("all")
    for language in ("en", "zh"):
        assert len(set(data.names(language))) == len(data.concepts)


def test_no_test_picture_is_a_training_picture() -> None:
    """同一幅画出现在两边，就是泄漏 / A drawing on both sides would be a leak."""
    data = emoji.load()
    train = torch.stack([data.pictures[a] for a in data.by_role("train")]).float()  # (5, C, 3, 32, 32)
    for artist in (*data.by_role("validation"), *data.by_role("test"), *data.by_role("shift")):
        distance = (train - data.pictures[artist].float()).abs().mean((2, 3, 4))
        assert distance.min() > 2


def test_pictures_and_names_belong_together() -> None:
    data = emoji.load()
    apple = data.names("en").index("red apple")
    assert data.concepts[apple].char == "🍎"
    assert data.concepts[apple].names["zh"] == "红苹果"
    assert "水果" in data.concepts[apple].keywords["zh"]
    for pictures in (data.pictures[artist] for artist in data.by_role("train")):
        red, green, blue = pictures[apple].float().mean((1, 2))
        assert red > max(green, blue) + 20


def test_the_default_vocabulary_is_the_words_of_all_names_and_keywords() -> None:
    assert tokens.VOCABULARY.read_text("utf-8") == vocabulary.listed()
    made = tokens.build_tokenizer(emoji.load("all").texts())
    assert json.loads(tokens.default_tokenizer().to_str()) == json.loads(made.to_str())


def test_every_licence_named_is_shipped() -> None:
    for artist in emoji.load().artists.values():
        assert len((emoji.ASSETS / "licenses" / f"{artist.license}.txt").read_text()) > 1000


def test_an_unknown_subset_role_or_language_is_refused() -> None:
    with pytest.raises(ValueError, match="subset must be one of classroom, held-out, all, got 'everyday'"):
        emoji.load("everyday")
    with pytest.raises(ValueError, match="role must be one of"):
        emoji.load().by_role("teacher")
    with pytest.raises(ValueError, match="language must be one of en, zh, got 'fr'"):
        emoji.load().names("fr")


def test_an_unknown_concept_is_refused_in_both_languages() -> None:
    with pytest.raises(ValueError, match=r"没有叫 'unicorns' 的概念 / there is no concept named 'unicorns'"):
        emoji.drawings(["unicorns"], "train")
