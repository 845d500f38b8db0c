"""看图、听提示、说名字 / Look at a picture, hear a hint, say the name."""

import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from mmcore.alignment import contrastive_loss
from mmcore.vision_language import LANGUAGES
from mmlessons.tasks import vision_language_model as naming
from mmlessons.tasks.learner import Learner
from mmlessons.tasks.vision_language_model import ByInput
from tests.support import same, state

CONCEPTS = naming.load()
STEPS = 90


@pytest.fixture(scope="module")
def trained() -> Learner:
    return naming.learner(CONCEPTS, STEPS, device="cpu").finish()


# -- the task ---------------------------------------------------------------------------------------------------------

def test_no_hint_is_a_name_of_its_concept_and_three_concepts_share_each() -> None:
    for c, concept in enumerate(CONCEPTS.data.concepts):
        names = {name.lower() for name in concept.names.values()}
        own = {word for word, paired in zip(CONCEPTS.hints, CONCEPTS.pairs[c], strict=True) if paired}
        keywords = {word.lower() for words in concept.keywords.values() for word in words}
        assert own
        assert not own & names
        assert own <= keywords
        true = {word for word, fits in zip(CONCEPTS.hints, CONCEPTS.fits[c], strict=True) if fits}
        assert true == own | (names & set(CONCEPTS.hints)), "a hint that names another concept is true of that one"
    assert CONCEPTS.pairs.sum(0).min() >= naming.SHARED_BY


def test_the_task_is_as_large_as_the_lesson_says() -> None:
    """第 01 课说的数 / The numbers that lesson 01 gives."""
    assert (len(CONCEPTS.label), len(CONCEPTS.classes), len(CONCEPTS.hints)) == (200, 40, 121)
    chinese = torch.tensor([not word.isascii() for word in CONCEPTS.hints])
    assert 0 < ((CONCEPTS.pairs & chinese).sum(1) == 0).sum() < 100, "some concepts have English hints alone"
    model = naming.learner(CONCEPTS, 1, batch=16, device="cpu").model
    assert model.name_tokenizer.get_vocab_size() == 551


def test_a_task_is_the_same_each_time_and_keeps_pictures_beside_their_concepts() -> None:
    again = naming.load()
    assert (again.hints, again.classes) == (CONCEPTS.hints, CONCEPTS.classes)
    assert torch.equal(again.fits, CONCEPTS.fits)
    everything = naming.emoji.load()
    place = [everything.concepts.index(concept) for concept in CONCEPTS.data.concepts]
    for artist, pictures in CONCEPTS.data.pictures.items():
        assert torch.equal(pictures, everything.pictures[artist][place])
    assert [CONCEPTS.classes[k] for k in CONCEPTS.label] == [concept.subgroup for concept in CONCEPTS.data.concepts]


def by_loops(data: naming.Concepts, answer_of: list) -> float:
    """每个提示答最可能的那个，按概率加起来 / Answer the likeliest for each hint, add up the probabilities."""
    concepts = [c for c in range(len(data.label)) if data.pairs[c].any()]
    right = 0.0
    for h in range(len(data.hints)):
        chance: Counter = Counter()
        for c in concepts:
            if data.pairs[c, h]:
                chance[answer_of[c]] += 1 / len(concepts) / int(data.pairs[c].sum())
        right += max(chance.values(), default=0.0)
    return right


def test_the_limit_of_text_alone_equals_its_loops() -> None:
    limit = naming.text_limit(CONCEPTS)
    assert limit.name.mean().item() == pytest.approx(by_loops(CONCEPTS, list(range(len(CONCEPTS.label)))))
    assert limit.kind.mean().item() == pytest.approx(by_loops(CONCEPTS, CONCEPTS.label.tolist()))
    assert CONCEPTS.shares().sum().item() == pytest.approx(1)


def test_the_limit_by_hand() -> None:
    """两个概念，提示甲属于两者，乙只属于第二个：½ · 1 + (½ · ½) = ¾。

    Two concepts; the first hint is true of both, the second of the second concept alone. Concept 1 always says hint 1
    (½), concept 2 says either (¼ each): the best guesses are right in ½ + ¼ of the cases.
    """
    two = of_two([[True, False], [True, True]])
    limit, most = naming.text_limit(two), naming.majority(two)
    assert limit.kind.tolist() == limit.name.tolist() == [1, 0.5]
    assert (limit.name.mean().item(), most.kind.mean().item(), most.name.mean().item()) == (0.75, 0.5, 0.5)


def of_two(pairs: list[list[bool]]) -> naming.Concepts:
    true = torch.tensor(pairs)
    return replace(CONCEPTS, label=torch.tensor([0, 1]), hints=("a", "b"), fits=true, pairs=true)


def test_a_list_of_other_pairs_is_no_limit_and_knows_no_pair_that_is_not_on_it() -> None:
    """训练时只见过 (1, 甲)、(2, 乙)，问的是 (1, 乙)、(2, 甲)：一个也答不对 / Trained on 1a and 2b, asked 1b and 2a."""
    known, asked = of_two([[True, False], [False, True]]), of_two([[False, True], [True, False]])
    assert naming.text_limit(asked, known).name.tolist() == [0, 0]
    assert naming.text_limit(known, known).name.tolist() == [1, 1]


def test_the_majority_is_counted() -> None:
    count = Counter(CONCEPTS.label.tolist()).most_common(1)[0][1]
    assert naming.majority(CONCEPTS).kind.sum().item() == pytest.approx(count)
    assert naming.majority(CONCEPTS).name.sum().item() == pytest.approx(1)


def test_with_names_for_hints_the_text_alone_could_answer_everything() -> None:
    leak = naming.load("names")
    assert leak.data.concepts == CONCEPTS.data.concepts
    assert naming.text_limit(leak).kind.min() == naming.text_limit(leak).name.min() == 1
    assert naming.text_limit(CONCEPTS).name.mean() < 0.3


def test_held_out_pairs_are_true_pairs_of_learned_hints_and_never_in_the_training() -> None:
    train, test = naming.hold_out_pairs(CONCEPTS)
    assert not (train.pairs & test.pairs).any()
    assert torch.equal(train.pairs | test.pairs, CONCEPTS.pairs)
    assert train.pairs.any(1).all()
    assert torch.equal(test.pairs.any(1), CONCEPTS.pairs.sum(1) > 1)
    assert test.pairs.sum(1).max() == 1
    assert torch.equal(train.fits, CONCEPTS.fits)
    assert not torch.equal(naming.hold_out_pairs(CONCEPTS, 1)[1].pairs, test.pairs)
    assert naming.text_limit(test, train).name.max() == 0, "a perfect learner of the training gives them no chance"
    assert naming.text_limit(test, train).kind.mean() > 0.3, "of the class the absence says little"
    learner, draw = naming.learner(train, 3, device="cpu"), set()
    row = {tuple(ids): h for h, ids in enumerate(learner.task.tokens["input_ids"][:len(CONCEPTS.hints)].tolist())}
    name = {tuple(ids): i % len(CONCEPTS.label) for i, ids in enumerate(learner.task.name_ids.tolist())}
    drawn = learner.task.draw(learner.generator)
    for said, ids, given in zip(drawn["input_ids"].tolist(), drawn["name_ids"].tolist(), drawn["text_given"],
                                strict=True):
        if given:
            draw.add((name[tuple(ids)], row[tuple(said)]))
    assert draw
    assert all(train.pairs[pair] for pair in draw)


# -- the floor --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("n", "tau"), [(2, 1.0), (8, 1.0), (64, 1.0), (8, 0.25)])
def test_the_floor_is_reached_by_the_corners_of_a_simplex_and_by_nothing_lower(n: int, tau: float) -> None:
    """单形的顶点两两余弦都是 −1/(N−1) / The corners of a simplex have a cosine of −1/(N−1) two by two."""
    corners = torch.eye(n, dtype=torch.float64) - 1 / n
    assert contrastive_loss(corners, corners, tau).item() == pytest.approx(naming.loss_floor(n, tau), rel=1e-9)
    for seed in range(5):
        x = corners + 0.1 * torch.randn(n, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        assert contrastive_loss(x, corners, tau).item() >= naming.loss_floor(n, tau) - 1e-12


def test_without_a_temperature_64_pairs_cannot_fall_below_3_2() -> None:
    assert naming.loss_floor(64) == pytest.approx(3.2, abs=0.05)
    assert naming.loss_floor(64, naming.TAU) < 1e-4
    with pytest.raises(ValueError, match="n must be at least 2, got 1"):
        naming.loss_floor(1)


# -- the batches ------------------------------------------------------------------------------------------------------

def test_fusion_never_sees_the_name_and_always_sees_something() -> None:
    """没有泄漏：文字是名字的行，融合看不见文字 / No leak: where the text is a name, fusion does not see the text."""
    learner = naming.learner(CONCEPTS, 3, device="cpu")
    hints, count = len(CONCEPTS.hints), len(CONCEPTS.label)
    words = learner.task.tokens["input_ids"].tolist()
    row, names = ({tuple(ids): i for i, ids in enumerate(part)} for part in (words[:hints], words[hints:]))
    asked = {tuple(ids): i for i, ids in enumerate(learner.task.name_ids.tolist())}
    seen: Counter = Counter()
    for _ in range(6):
        drawn = learner.task.draw(learner.generator)
        for n in range(learner.task.batch):
            name, said = asked[tuple(drawn["name_ids"][n].tolist())], tuple(drawn["input_ids"][n].tolist())
            concept, text, image = name % count, bool(drawn["text_given"][n]), bool(drawn["image_given"][n])
            assert CONCEPTS.pairs[concept, row[said]] if text else names[said] % count == concept
            assert int(drawn["labels"][n]) == int(CONCEPTS.label[concept])
            assert image or text
            assert drawn["positives"][n, n]
            seen.update([("text", text), ("image", image), ("asked", LANGUAGES[name // count]),
                         ("said", "hint" if text else LANGUAGES[names[said] // count])])
    total = 6 * learner.task.batch
    assert seen["text", True] / total == pytest.approx(1 - naming.NAME_SHARE, abs=0.06)
    assert seen["image", False] / total == pytest.approx(naming.IMAGE_DROPOUT * (1 - naming.NAME_SHARE), abs=0.03)
    assert seen["asked", "zh"] / total == pytest.approx(0.5, abs=0.06)
    assert seen["said", "zh"] / (seen["said", "zh"] + seen["said", "en"]) == pytest.approx(0.5, abs=0.08)


def test_a_hint_that_is_true_of_several_pictures_has_them_all_for_positives() -> None:
    learner = naming.learner(CONCEPTS, 3, device="cpu")
    drawn, count, hints = learner.task.draw(learner.generator), len(CONCEPTS.label), len(CONCEPTS.hints)
    words = learner.task.tokens["input_ids"].tolist()
    row = {tuple(ids): i for i, ids in enumerate(words[:hints])}
    asked = {tuple(ids): i % count for i, ids in enumerate(learner.task.name_ids.tolist())}
    concept = [asked[tuple(ids)] for ids in drawn["name_ids"].tolist()]
    for j in range(learner.task.batch):
        said = tuple(drawn["input_ids"][j].tolist())
        for i in range(0, learner.task.batch, 7):
            true = bool(CONCEPTS.fits[concept[i], row[said]]) if drawn["text_given"][j] else concept[i] == concept[j]
            assert bool(drawn["positives"][i, j]) == true
    assert int(drawn["positives"].sum()) > learner.task.batch


def test_only_training_artists_are_trained_on() -> None:
    data = CONCEPTS.data
    noise = {a: p if a in data.by_role("train") else torch.randint_like(p, 256) for a, p in data.pictures.items()}
    changed = replace(CONCEPTS, data=replace(data, pictures=noise))
    kept, other = (naming.learner(concepts, 2, device="cpu") for concepts in (CONCEPTS, changed))
    assert [kept.train_step() for _ in range(2)] == [other.train_step() for _ in range(2)]


def test_a_resnet_sees_changed_drawings_alone_and_a_vit_some_as_they_are() -> None:
    for backbone, share in (("resnet-tiny", 0.0), ("vit-tiny", naming.UNCHANGED["vit-tiny"])):
        learner = naming.learner(CONCEPTS, 3, backbone=backbone, device="cpu")
        known = {tuple(picture.flatten().tolist()) for picture in learner.task.pictures.flatten(0, 1)}
        drawn = (learner.task.draw(learner.generator)["image"] * 255).round().to(torch.uint8)
        plain = sum(tuple(picture.flatten().tolist()) in known for picture in drawn) / len(drawn)
        assert plain == pytest.approx(share, abs=0.15)


# -- the learner ------------------------------------------------------------------------------------------------------

def test_the_same_seed_trains_the_same_and_reset_starts_again() -> None:
    torch.manual_seed(7)
    wanted = torch.rand(2)
    torch.manual_seed(7)
    learner = naming.learner(CONCEPTS, 4, seed=3, device="cpu")
    first = [learner.train_step() for _ in range(2)]
    assert torch.equal(torch.rand(2), wanted), "the global random numbers stay"
    learner.reset()
    assert [learner.train_step() for _ in range(2)] == first
    assert naming.learner(CONCEPTS, 4, seed=4, device="cpu").train_step() != first[0]


def test_weights_and_temperature_act_on_the_very_next_step() -> None:
    learner = naming.learner(CONCEPTS, 4, device="cpu")
    plain = learner.train_step()
    learner.reset()
    tuned = learner.train_step(alpha=0.5, beta=2.0, gamma=0.0, tau=1.0)
    assert tuned["classification_loss"] == plain["classification_loss"]
    assert tuned["retrieval_loss"] != plain["retrieval_loss"]
    assert tuned["total_loss"] == pytest.approx(
        0.5 * tuned["classification_loss"] + 2 * tuned["retrieval_loss"], rel=1e-6)


def test_a_bad_weight_or_a_step_too_many_changes_nothing() -> None:
    learner = naming.learner(CONCEPTS, 1, device="cpu")
    before, drawn = state(learner.model), learner.generator.get_state()
    with pytest.raises(ValueError, match="beta may not be below 0"):
        learner.train_step(beta=-1)
    assert torch.equal(learner.generator.get_state(), drawn)
    assert same(learner.model, before)
    learner.train_step()
    before = state(learner.model)
    with pytest.raises(ValueError, match="has 1 steps and all are done"):
        learner.train_step()
    assert same(learner.model, before)


@pytest.mark.parametrize(("options", "match"), [
    ({"steps": 0}, "steps must be at least 1, got 0"), ({"batch": 1000}, "each concept once, got 1000"),
    ({"name_share": 1.5}, "name_share must be from 0 to 1"), ({"image_dropout": -0.1}, "image_dropout must be from"),
    ({"concepts": naming.hold_out_pairs(CONCEPTS)[1]}, "every concept to train on needs at least one hint"),
    ({"backbone": "resnet51"}, "got 'resnet51'"),
])
def test_a_learner_that_could_not_train_is_refused(options: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        naming.learner(**{"concepts": CONCEPTS, "device": "cpu", **options})


# -- the test ---------------------------------------------------------------------------------------------------------

def means(scores: ByInput) -> dict[tuple[str, str], float]:
    return {(given, what): getattr(getattr(scores, given), what).mean().item()
            for given in ("picture", "text", "both") for what in ("kind", "name")}


def test_a_short_training_is_above_chance_at_every_task_and_both_beat_either(trained: Learner) -> None:
    found = means(naming.evaluate(trained.model, CONCEPTS, "fxemoji"))
    base, limit = naming.majority(CONCEPTS), naming.text_limit(CONCEPTS)
    assert found["both", "kind"] > 3 * base.kind.mean()
    assert found["both", "kind"] > max(found["picture", "kind"], found["text", "kind"])
    assert found["both", "name"] > found["picture", "name"]
    assert found["text", "kind"] <= limit.kind.mean() + 1e-9, "nobody exceeds the limit"
    assert found["text", "name"] <= limit.name.mean() + 1e-9, "nobody exceeds the limit"
    assert naming.retrieve(trained.model, CONCEPTS, "fxemoji").mean() > 20 / len(CONCEPTS.label)


def test_evaluation_asks_every_pair_as_loops_do(trained: Learner) -> None:
    model, asked = trained.model, range(0, 24, 2)
    few = replace(CONCEPTS, pairs=CONCEPTS.pairs & torch.tensor([c in asked for c in range(200)]).unsqueeze(1))
    table = naming.evaluate(model, few, "twemoji")
    for row, c in enumerate(asked):
        found: Counter = Counter()
        hints = [h for h in range(len(CONCEPTS.hints)) if CONCEPTS.pairs[c, h]]
        picture = CONCEPTS.data.pictures["twemoji"][c]
        for h in hints:
            for given, (image, hint) in {"picture": (picture, None), "text": (None, CONCEPTS.hints[h]),
                                         "both": (picture, CONCEPTS.hints[h])}.items():
                for language in LANGUAGES:
                    said = naming.answer(model, CONCEPTS, image, hint, language, k=1)
                    weight = 1 / len(hints) / 2
                    found[given, "kind"] += weight * (said.classes[0][0] == CONCEPTS.classes[CONCEPTS.label[c]])
                    ids = model.name_tokens([CONCEPTS.data.concepts[c].names[language]], [language])
                    found[given, "name"] += weight * (said.name == model.spell(ids[0]))
        for given in ("picture", "text", "both"):
            for what in ("kind", "name"):
                scores = getattr(getattr(table, given), what)
                assert scores.shape == (len(asked),)
                assert scores[row].item() == pytest.approx(found[given, what], abs=0.02), (c, given, what)
    assert model.training


def test_retrieval_looks_both_ways_in_both_languages(trained: Learner) -> None:
    S = similarity_of_names(trained)
    right = torch.arange(len(CONCEPTS.label))
    found = [(each.argmax(d) == right).double() for each in S for d in (0, 1)]
    retrieved = naming.retrieve(trained.model, CONCEPTS, "twemoji")
    assert (retrieved - torch.stack(found).mean(0)).abs().mean() < 0.02  # but for a rounding that turns an answer


def similarity_of_names(trained: Learner) -> list[torch.Tensor]:
    model = trained.model.eval()
    with torch.no_grad():
        v = model(CONCEPTS.data.pictures["twemoji"] / 255)["retrieval_v"]
        texts = [model(**model.text_encoder.tokenize(CONCEPTS.data.names(language)))["retrieval_t"]
                 for language in LANGUAGES]
    model.train()
    return [torch.cosine_similarity(v.unsqueeze(1), t.unsqueeze(0), dim=2) for t in texts]


# -- rules that choose from the list ----------------------------------------------------------------------------------

def test_a_picture_is_as_like_a_concept_as_the_nearest_known_drawing_of_it(trained: Learner) -> None:
    data, model = CONCEPTS.data, trained.model
    by_pixels, by_names = naming.pixel_neighbour(CONCEPTS, "twemoji"), naming.name_neighbour(model, CONCEPTS, "twemoji")
    by_features = naming.feature_neighbour(model, CONCEPTS, "twemoji")
    assert torch.allclose(by_names, sum(similarity_of_names(trained)) / 2, atol=1e-4)
    model.eval()
    for picture, concept in ((0, 0), (0, 7), (150, 99)):
        seen = data.pictures["twemoji"][picture].double()
        known = [data.pictures[artist][concept].double() for artist in data.by_role("train")]
        pixels = [torch.cosine_similarity((seen - seen.mean()).flatten(), (x - x.mean()).flatten(), 0) for x in known]
        assert by_pixels[picture, concept].item() == pytest.approx(max(pixels).item(), abs=1e-5)
        with torch.no_grad():
            f, *others = (model.visual_encoder(x.float().unsqueeze(0) / 255)[0] for x in (seen, *known))
        features = max(torch.cosine_similarity(f, x, 0).item() for x in others)
        assert by_features[picture, concept].item() == pytest.approx(features, abs=1e-4)
    model.train()


def test_a_filter_chooses_among_those_on_the_list_and_a_penalty_can_be_overcome() -> None:
    """第 1 幅图更像概念 2，提示甲的单子上却只有概念 1 / Picture 1 is more like concept 2, but only 1 is listed."""
    S, two = torch.tensor([[0.5, 0.9], [0.1, 0.8]]), of_two([[True, False], [False, True]])
    assert naming.choose(S, two).name.tolist() == [0, 1]
    assert naming.choose(S, two, penalty=0.3).name.tolist() == [0, 1]
    assert naming.choose(S, two, penalty=0.5).name.tolist() == [1, 1]
    assert naming.choose(S, two, penalty=naming.FILTER).name.tolist() == [1, 1]
    assert naming.choose(S, two, penalty=naming.FILTER).kind.tolist() == [1, 1]
    known = of_two([[False, True], [False, False]])  # hint a lists nobody, hint b the wrong one
    assert naming.choose(S, two, known, naming.FILTER).name.tolist() == [0, 0]
    with pytest.raises(ValueError, match="penalty may not be below 0"):
        naming.choose(S, two, penalty=-0.1)


def test_a_filter_by_the_training_list_never_finds_a_pair_that_is_not_on_it() -> None:
    train, test = naming.hold_out_pairs(CONCEPTS)
    S = naming.pixel_neighbour(CONCEPTS, "twemoji")
    assert naming.choose(S, train, train, naming.FILTER).name.mean() > naming.choose(S, train, train).name.mean() + 0.1
    listed = train.pairs.any(0)[test.pairs.nonzero().T[1]]  # but for hints that list nobody any more
    assert naming.choose(S, test, train, naming.FILTER).name[listed].max() == 0


def test_a_list_widened_to_classes_admits_what_is_of_a_class_on_it_and_nothing_else() -> None:
    """一项一项地数 / Counted one by one: a concept is admitted if another one of its class is paired with the hint."""
    train, test = naming.hold_out_pairs(CONCEPTS)
    S = naming.pixel_neighbour(CONCEPTS, "twemoji")
    right = torch.zeros(len(CONCEPTS.label), dtype=torch.float64)
    for c, h in test.pairs.nonzero().tolist():
        classes = {int(CONCEPTS.label[i]) for i in train.pairs[:, h].nonzero().flatten()}
        admitted = [i for i, k in enumerate(CONCEPTS.label.tolist()) if k in classes or not classes]
        right[c] = max(admitted, key=lambda i: S[c, i].item()) == c
    found = naming.choose(S, test, train, naming.FILTER, by_class=True).name
    assert torch.equal(found, right[test.pairs.any(1)])
    assert found.mean() > naming.choose(S, test, train, naming.FILTER).name.mean() + 0.3


def test_an_answer_lists_its_words_with_their_probabilities(trained: Learner) -> None:
    picture = CONCEPTS.data.pictures["noto"][0]
    said = naming.answer(trained.model, CONCEPTS, picture, "animal", "en")
    assert said.name == " ".join(word for word, _ in said.words)
    assert all(0 < p <= 1 for _, p in said.words)
    assert [p for _, p in said.classes] == sorted((p for _, p in said.classes), reverse=True)
    drawn = [naming.answer(trained.model, CONCEPTS, picture, None, "zh", 2.0, torch.Generator().manual_seed(s))
             for s in (1, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len({answer.name for answer in drawn}) > 1


PICTURE = CONCEPTS.data.pictures["noto"][0]


@pytest.mark.parametrize(("arguments", "error", "match"), [
    ((None, None), ValueError, "neither picture nor text is there"),
    ((PICTURE / 255, None), TypeError, r"picture must be a uint8 tensor \(3, H, W\)"),
    ((None, "xyzzy"), ValueError, "never learned: xyzzy"),
    ((None, " "), ValueError, "type something"),
    ((PICTURE, None, "fr"), ValueError, "language must be one of zh, en"),
    ((PICTURE, None, "en", -1.0), ValueError, "temperature may not be below 0"),
    ((PICTURE, None, "en", 1.0), TypeError, "needs a generator"),
])
def test_a_question_that_cannot_be_asked_is_refused(trained: Learner, arguments: tuple, error: type,
                                                    match: str) -> None:
    with pytest.raises(error, match=match):
        naming.answer(trained.model, CONCEPTS, *arguments)


def test_a_background_run_trains_what_it_was_told() -> None:
    first, again, other = (naming.train_and_study(1, 2, weights) for weights in ((1, 1, 1), (1, 1, 1), (1, 0, 0)))
    for which in ("retrieval", "by_name", "by_drawing"):
        assert torch.equal(getattr(first.test, which), getattr(again.test, which))
    assert means(first.test.scores) == means(again.test.scores)
    assert not torch.equal(first.test.by_name, other.test.by_name)
    assert not torch.equal(first.test.by_drawing, first.shift.by_drawing)
    assert first.never_met is None
    assert math.isfinite(first.seconds)
    apart = naming.train_and_study(1, 2, hold_out=True)
    assert len(apart.never_met.both.name) == (CONCEPTS.pairs.sum(1) > 1).sum()
    with pytest.raises(ValueError, match="artist must be one of"):
        naming.evaluate(naming.learner(CONCEPTS, 1, device="cpu").model, CONCEPTS, "picasso")


def test_each_artist_of_a_study_is_the_one_it_is_called(trained: Learner) -> None:
    for role in ("test", "shift"):
        artist = CONCEPTS.data.by_role(role)[0]
        tested = naming._tested(trained.model, CONCEPTS, artist)
        assert torch.equal(tested.by_drawing, naming.feature_neighbour(trained.model, CONCEPTS, artist))
        assert torch.equal(tested.retrieval, naming.retrieve(trained.model, CONCEPTS, artist))
