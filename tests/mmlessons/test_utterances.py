"""话语数据 / The utterances data."""

import itertools
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from makers import utterances as build
from mmlessons.data import utterances
from mmlessons.data.utterances import EXPRESSIONS, MEANINGS, ROLES, Utterances, prosody

SPLITS = {role: utterances.load(role) for role in ROLES}
EVERYTHING = [sentence for split in SPLITS.values() for sentence in split.sentences]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def said(split: Utterances, times: int = 20, **values: float) -> dict[str, Tensor]:
    return split.observe(torch.arange(len(split.sentences)).repeat(times), seeded(), **values)


def test_there_are_four_hundred_sentences_and_a_quarter_has_no_label() -> None:
    assert Counter(sentence.kind for sentence in EVERYTHING) == {"plain": 270, "ironic": 40, "open": 112}
    assert Counter(s.words for s in EVERYTHING if s.kind == "plain") == dict.fromkeys(MEANINGS, 90)


def test_every_sentence_is_short_and_in_both_languages() -> None:
    for sentence in EVERYTHING:
        assert any("一" <= c <= "鿿" for c in sentence.zh), sentence
        assert sentence.en.isascii(), sentence
        assert len(sentence.zh) <= 20, sentence
        assert len(sentence.en.split()) <= 13, sentence
        assert sentence.zh[-1] in "。！？…", sentence
        assert sentence.en[-1] in ".!?", sentence


def test_no_sentence_artist_or_voice_is_in_two_splits() -> None:
    for one, other in itertools.combinations(SPLITS.values(), 2):
        for part in (lambda s: {x.zh for x in s.sentences}, lambda s: {x.en for x in s.sentences},
                     lambda s: {x.artist for x in s.faces}, lambda s: {x.name for x in s.voices},
                     lambda s: {x.base for x in s.voices}):
            assert part(one)
            assert not part(one) & part(other)


def test_some_faces_of_the_test_are_never_seen_in_training() -> None:
    chars = {role: {face.char for face in split.faces} for role, split in SPLITS.items()}
    for role in ("validation", "test"):
        new = chars[role] - chars["train"]
        assert {face.expression for face in SPLITS[role].faces if face.char in new} == set(EXPRESSIONS)
    assert not (chars["test"] & chars["validation"]) - chars["train"]


def test_every_split_has_each_kind_face_and_number_of_the_card() -> None:
    assert [len(SPLITS[role].sentences) for role in ROLES] == [272, 66, 84]
    assert [len(SPLITS[role].faces) for role in ROLES] == [75, 55, 31]
    assert [len(SPLITS[role].voices) for role in ROLES] == [14, 4, 6]
    assert [sum(s.kind == "open" for s in SPLITS[role].sentences) for role in ROLES] == [72, 18, 22]
    assert [sum(s.kind == "ironic" for s in SPLITS[role].sentences) for role in ROLES] == [26, 6, 8]
    for split in SPLITS.values():
        assert {s.kind for s in split.sentences} == set(utterances.KINDS)
        assert {face.expression for face in split.faces} == set(EXPRESSIONS)
        assert split.pictures.shape == (len(split.faces), 3, 32, 32)
        assert split.pictures.dtype == torch.uint8


def test_what_is_observed_is_what_it_says() -> None:
    test = SPLITS["test"]
    seen = said(test)
    b = 20 * len(test.sentences)
    assert seen["face"].shape == (b, 3, 32, 32)
    assert seen["tone"].shape == (b, 3, utterances.FRAMES)
    texts = test.texts(seen)
    for row in range(0, b, 97):
        sentence, face = test.sentences[seen["sentence"][row]], test.faces[seen["picture"][row]]
        assert texts[row] == (sentence.zh, sentence.en)[seen["language"][row]]
        assert face.expression == EXPRESSIONS[seen["shown"][row]]
        assert torch.equal(seen["face"][row], test.pictures[seen["picture"][row]] / 255)
        if sentence.meant != "open":
            assert MEANINGS[seen["label"][row]] == sentence.meant


def test_a_sentence_that_no_text_can_settle_is_meant_either_way_equally_often() -> None:
    seen = said(SPLITS["train"], 60)
    loose = torch.tensor([s.meant == "open" for s in SPLITS["train"].sentences])[seen["sentence"]]
    share = seen["label"][loose].bincount(minlength=3) / loose.sum()
    assert share[1] == 0
    assert share[0].item() == pytest.approx(0.5, abs=0.03)


def test_faces_and_tones_follow_the_odds_of_the_card_and_are_drawn_apart() -> None:
    seen = said(SPLITS["train"], 120)
    for words, label in ((0, 0), (1, 1), (2, 2), (2, 0), (0, 2), (1, 0)):
        rows = (seen["words"] == words) & (seen["label"] == label)
        wanted = utterances.expression_odds(torch.tensor([words]), torch.tensor([label]))[0]
        assert wanted.sum().item() == pytest.approx(1)
        joint = torch.stack([seen["shown"], seen["sounds"]])[:, rows]
        for column in joint:
            torch.testing.assert_close(column.bincount(minlength=4) / rows.sum(), wanted, atol=0.04, rtol=0)
        both = (4 * joint[0] + joint[1]).bincount(minlength=16).view(4, 4) / rows.sum()
        torch.testing.assert_close(both, wanted[:, None] * wanted, atol=0.04, rtol=0)


def test_a_wry_face_leans_a_little_to_blame_and_words_that_say_the_opposite_are_few() -> None:
    """第 07 课这样说训练数据 / Lesson 07 says so of the training data."""
    seen = said(SPLITS["train"], 120)
    meant = seen["label"][seen["shown"] == EXPRESSIONS.index("wry")].bincount(minlength=3)
    assert 1 < meant[0] / meant[2] < 1.5
    opposite = (seen["words"] - seen["label"]).abs() == 2
    assert 0.1 < opposite.double().mean() < 0.25


def test_the_table_of_the_card_is_the_one_in_the_code() -> None:
    card = (utterances.ASSETS.parent / "CARD.md").read_text("utf-8")
    table = {"blame is meant": (0, 0), "| 意思是中性": (1, 1), "praise is meant": (2, 2),
             "words of praise, blame meant": (2, 0), "words of blame, praise meant": (0, 2)}
    for start, (words, label) in table.items():
        line = next(line for line in card.splitlines() if start in line and "0." in line)
        odds = [float(cell) for cell in line.split("|")[2:6]]
        wanted = utterances.expression_odds(torch.tensor([words]), torch.tensor([label]))[0]
        torch.testing.assert_close(torch.tensor(odds), wanted)
    faces = [char for chars in build.FACES.values() for part in chars.values() for char in part]
    assert all(char in card for char in faces)
    assert f"{len(set(faces))} faces" in card


def test_the_same_seed_observes_the_same_and_another_does_not() -> None:
    test, indices = SPLITS["test"], torch.arange(20)
    one, same, other = (test.observe(indices, seeded(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["tone"], other["tone"])


@pytest.mark.parametrize(("indices", "values", "error", "match"), [
    ([0, 1], {}, TypeError, "indices must be a tensor, got list"),
    (torch.tensor([0.5]), {}, TypeError, "indices must be an int64 tensor"),
    (torch.tensor([84]), {}, ValueError, "indices must be from 0 to 83, at least one"),
    (torch.tensor([], dtype=torch.int64), {}, ValueError, "at least one"),
    (torch.tensor([0]), {"noise": -1.0}, ValueError, "noise must be from 0 to 10"),
])
def test_what_cannot_be_observed_is_refused(indices: object, values: dict, error: type, match: str) -> None:
    with pytest.raises(error, match=match):
        SPLITS["test"].observe(indices, seeded(), **values)
    with pytest.raises(ValueError, match="role must be one of train, validation, test, got 'exam'"):
        utterances.load("exam")


# -- tones ------------------------------------------------------------------------------------------------------------

def plain_tone(name: str, base: float = 160.0, tempo: float = 1.0) -> Tensor:
    """没有噪声的语气 / A tone without noise."""
    one = torch.ones(1)
    manner = torch.tensor([list(prosody.MANNERS).index(name)])
    return prosody.contour(manner, base * one, one, tempo * one, 0 * one, seeded(), noise=0.0)[0]


def test_tones_differ_in_the_ways_the_card_says() -> None:
    made = {name: plain_tone(name) for name in prosody.MANNERS}
    seconds = {name: tone[2].sum().item() * prosody.FRAME for name, tone in made.items()}
    mean = {name: tone[0].sum().item() / tone[2].sum().item() for name, tone in made.items()}
    loud = {name: tone[1].sum().item() / tone[2].sum().item() for name, tone in made.items()}
    assert seconds["drawn-out"] > seconds["sad"] > seconds["flat"] > seconds["bright"] > seconds["cross"]
    assert mean["bright"] > mean["flat"] > mean["sad"]
    assert loud["cross"] > loud["flat"] > loud["sad"]


def test_a_contour_is_the_formula_of_the_module() -> None:
    tone = plain_tone("sad", base=320.0)
    sad = prosody.MANNERS["sad"]
    duration = prosody.SECONDS / sad.tempo
    for k in range(int(tone[2].sum())):
        semitones = sad.level + sad.range * (0.5 - k * prosody.FRAME / duration)
        assert tone[0, k].item() == pytest.approx(1 + semitones / 12, abs=1e-5)  # an octave above 160 Hz
    assert not tone[:, int(tone[2].sum()):].any()


def test_what_is_hummed_has_the_pitch_and_length_of_the_contour() -> None:
    tone = torch.zeros(3, utterances.FRAMES)
    tone[2, :25] = 1
    tone[0, :25] = 0.5  # half an octave above 160 Hz, all along
    wave = utterances.hum(tone)
    assert len(wave) == 25 * prosody.FRAME * prosody.RATE
    assert wave.abs().max().item() == pytest.approx(0.9, abs=1e-4)
    peak = torch.fft.rfft(wave).abs().argmax().item() * prosody.RATE / len(wave)
    assert peak == pytest.approx(160 * 2 ** 0.5, abs=2)


@pytest.mark.parametrize(("tone", "match"), [(torch.zeros(3, 48), "tone holds no sound"),
                                            (torch.zeros(2, 48), r"tone must have shape \(3, 48\)")])
def test_what_cannot_be_hummed_is_refused(tone: Tensor, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        utterances.hum(tone)


# -- files ------------------------------------------------------------------------------------------------------------

def test_the_builder_gives_these_very_files_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sentences.tsv").write_bytes((utterances.ASSETS / "sentences.tsv").read_bytes())
    monkeypatch.setattr(build, "ASSETS", tmp_path)
    build.main()
    for path in utterances.ASSETS.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


GOOD = "role\twords\tmeant\tzh\ten\ntrain\tpositive\tpositive\t好。\tGood."


@pytest.mark.parametrize(("table", "match"), [
    (GOOD.replace("role", "split"), "the first line must be"),
    (GOOD.replace("train", "exam"), "line 2 cannot be read"),
    (GOOD.replace("positive\tpositive", "positive\tnice"), "line 2 cannot be read"),
    (GOOD.replace("好。", " "), "line 2 cannot be read"),
    (GOOD.replace("\tGood.", ""), "line 2 cannot be read"),
    (GOOD + GOOD[GOOD.index("\ntrain"):].replace("好。", "好！"), "line 3 repeats a sentence: Good."),
])
def test_a_table_with_a_mistake_is_not_read(table: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        utterances.read_sentences(table)
    assert len(utterances.read_sentences(GOOD)) == 1
