"""入口：笔记本用到的一切，一个参数一个参数地弄坏 / The border: all that notebooks use of mmlessons, spoiled.

What notebooks import and call is read from their cells, so that a new function is covered because it exists: it needs
one good call, in GOOD. Then one argument at a time, and everything inside a list or a dict, is spoiled in every way
that its kind allows. What comes of it is judged by what was done to it:

    SAME   the same value in another form (numpy's number, float64): the right result, or a clear error
    NO     wrong: a clear error
    LOUD   a NaN or an infinity: a clear error, or it is seen in the result
    ANY    unusual, but allowed: a result without NaN, or a clear error
    HUGE   as ANY, where a NaN may show that it was too much

A clear error says in both languages what is wrong. Never is there an error of torch or Python, and nothing given has
changed. Where a training would begin, it is stopped before its first step: what is wrong must be said before that.
These are about 8,600 cases.
"""

import ast
import importlib
import inspect
import io
import json
import re
import sys
import tempfile
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import mmcore.training
from mmlessons import exercises, intervals, live
from mmlessons.data import clips, digits, emoji, features, folder, scenes, utterances, views
from mmlessons.processes import Processes
from mmlessons.tasks import a_reader_learns_to_see as assistant
from mmlessons.tasks import cross_modal_alignment as alignment
from mmlessons.tasks import cross_modal_retrieval as retrieval
from mmlessons.tasks import draw_me_a_seven as drawing_task
from mmlessons.tasks import four_machines, information, learner, pixels, scoring, seeds, signs, stand_in, word_order
from mmlessons.tasks import image_captioning as captioning
from mmlessons.tasks import multimodal_fusion as fusion
from mmlessons.tasks import multimodal_sentiment as sentiment
from mmlessons.tasks import several_modalities as several
from mmlessons.tasks import video_understanding as video
from mmlessons.tasks import vision_language_model as naming
from mmlessons.tasks import visual_question_answering as answering
from mmlessons.tasks import what_pairs_do_not_say as pairs
from mmlessons.tasks import what_weights_do_not_say as weighing
from mmlessons.tasks import your_own_pictures as own
from tests import tiny_models

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").rglob("[0-9]*.ipynb"))
ELSEWHERE = ("mmlessons.workers", "mmlessons.doctor", "mmlessons.processes")  # these have tests of their own
CHINESE, ENGLISH = re.compile(r"[\u3400-\u9fff]"), re.compile(r"[a-z]{2,} ")


class Began(Exception):
    """A training began."""


# -- good things to call with -----------------------------------------------------------------------------------------

def floats(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def drawing(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def few(data, count: int = 6):
    """The first few concepts of a data set."""
    cut = {field.name: getattr(data, field.name) for field in fields(data)}
    for name in ("pictures", "names", "drawn"):
        if isinstance(cut.get(name), dict):
            cut[name] = {key: x[:count] for key, x in cut[name].items()}
    return replace(data, **{**cut, "concepts": data.concepts[:count]})


@cache
def made(what: str) -> object:
    """Models and observations, each made once, untrained and small."""
    with learner.seeded(0):
        return MAKE[what]()


MAKE = {
    "digits": lambda: digits.load("validation"),
    "experts": lambda: fusion.separately(1, device="cpu").model.eval(),
    "fusing": lambda: fusion.together(made("experts"), 1, device="cpu").trainer,
    "seen": lambda: made("digits").observe(torch.arange(3), drawing()),
    "out": lambda: made("fusing").fuse(fusion.inputs(made("seen"))),
    "utterances": lambda: utterances.load("validation"),
    "words": sentiment.load_words,
    "feeling": lambda: sentiment.separately(1, device="cpu").model.eval(),
    "feeling fused": lambda: sentiment.together(made("feeling"), 1, device="cpu").trainer,
    "said": lambda: sentiment.one_sample(made("utterances"), made("words"), "好", 0, "wry", 0),
    "heard": lambda: {name: x[:3] for name, x in sentiment.observe_all(
        made("utterances"), made("words"), 1).items()},
    "views": views.load,
    "projections": four_machines.projections,
    "step": lambda: four_machines.step(NoProcesses(), made("projections"), four_machines.batch_of(made("views"), 4),
                                       "ring", 2),
    "aligned": lambda: alignment.learner(made("views"), device="cpu", batch=4),
    "emoji": lambda: few(emoji.load()),
    "towers": lambda: retrieval.learner(made("emoji"), 1, batch=2, device="cpu").model.eval(),
    "index": lambda: retrieval.Index(made("towers"), made("emoji").pictures["twemoji"]),
    "concepts": lambda: small_concepts(),
    "namer": lambda: naming.learner(made("concepts"), 1, batch=2, device="cpu").model.eval(),
    "scenes": lambda: scenes.load("validation"),
    "drawn": lambda: made("scenes").draw(3, drawing()),
    "to describe": lambda: only(made("scenes").draw_to_describe(3, drawing()), captioning.DRAWN),
    "answerer": lambda: answering.AnsweringModel().eval(),
    "describer": lambda: captioning.CaptioningModel().eval(),
    "f_v": lambda: made("describer").look(None),
    "clip": lambda: mmcore.from_clip(*tiny_models.clip()),
    "eyes": lambda: word_order.eyes(0, 1, "cpu"),
    "readers": lambda: word_order.Towers().eval(),
    "told": lambda: word_order.asked("side", count=4),
    "assistant": lambda: assistant.Assistant().eval(),
    "squeezed": lambda: assistant.Squeezed(made("assistant"), 2).eval(),
    "asked": lambda: only(assistant.asked(made("scenes"), 3), assistant.DRAWN),
    "drawer": lambda: drawing_task.Drawer().eval(),
    "twenty": lambda: drawing_task.DigitPictures(floats(20, 64), torch.arange(10).repeat(2)),
    "clips": lambda: clips.load("validation"),
    "facts": lambda: made("clips").draw(2, 0),
    "folder": lambda: small_folder(),
    "stand-in": lambda: own.stand_in(own.pretrain(0, 1)),
    "album": lambda: own.album(made("folder"), made("stand-in"), things=["dog", "cat"]),
    "watched": lambda: video.observe(made("clips"), made("facts")),
    "video": lambda: video.VideoModel().eval(),
}


def small_concepts() -> naming.Concepts:
    whole = naming.load()
    keep = slice(0, 6)
    pairs = whole.pairs[keep]
    used = pairs.any(0)
    return replace(whole, data=few(whole.data), label=whole.label[keep], pairs=pairs[:, used],
                   fits=whole.fits[keep][:, used], hints=tuple(h for h, here in zip(whole.hints, used.tolist(),
                                                                                   strict=True) if here))


def a_png(seed: int = 0) -> bytes:
    picture = torch.randint(0, 256, (24, 20, 3), generator=drawing(seed), dtype=torch.uint8)
    out = io.BytesIO()
    Image.fromarray(picture.numpy()).save(out, "PNG")
    return out.getvalue()


def small_folder() -> folder.Folder:
    """A few pictures of dogs and cats, by the four artists."""
    root, rows = Path(tempfile.mkdtemp()), ["file_name,text,text_zh,source,split"]
    said = (("a dog", "狗"), ("a cat", "猫"), ("A dog is left of a cat.", "狗在猫的左边。"),
            ("A cat is left of a dog.", "猫在狗的左边。"))
    for artist, split in stand_in.SPLIT.items():
        for k in range(8):
            name = f"{artist}-{k}.png"
            (root / name).write_bytes(a_png(seed=len(rows)))
            rows.append(f"{name},{said[k % 4][0]},{said[k % 4][1]},{artist},{split}")
    (root / "metadata.csv").write_text("\n".join(rows), encoding="utf-8")
    return folder.load(root)


class NoProcesses(Processes):
    """Answers without a process."""

    def __init__(self) -> None: ...

    def run(self, job: Callable, shares: typing.Sequence[tuple]) -> list:
        return [four_machines.MachineAnswer(1.0, share[0], (four_machines.Message(0, 1, 3),), 0.0) for share in shares]


PICTURE = torch.full((3, 64, 64), 200, dtype=torch.uint8)
WHO = ("谁", "who")
LINE = {("线", "line"): [0.1, 0.2]}

GOOD: dict[str, tuple[Callable, Callable[[], dict]]] = {
    # data
    "data.clips.load": (clips.load, lambda: {"role": "test"}),
    "data.clips.reverse": (clips.reverse, lambda: {"facts": made("facts")}),
    "data.clips.with_reversals": (clips.with_reversals, lambda: {"facts": made("facts")}),
    "Clips.draw": (lambda **given: made("clips").draw(**given), lambda: {"count": 2, "seed": 1}),
    "Clips.frames": (lambda facts: made("clips").frames(facts), lambda: {"facts": made("facts")}),
    "Clips.sound": (lambda facts: made("clips").sound(facts), lambda: {"facts": made("facts")}),
    "data.digits.load": (digits.load, lambda: {"role": "test"}),
    "data.digits.writing.decode": (digits.decode, lambda: {"text": made("seen")["text"]}),
    "data.digits.to_pixels": (digits.to_pixels, lambda: {"image": floats(1, 8, 8)}),
    "data.sound.to_wav": (digits.to_wav, lambda: {"samples": floats(500)}),
    "Digits.observe": (lambda **given: made("digits").observe(**given), lambda: {
        "indices": torch.tensor([0, 5]), "generator": drawing(), "image_noise": 0.5, "babble_snr_db": 5.0,
        "typo_rate": 0.1, "noise_only": {"image": torch.tensor([True, False])},
        "missing": {"text": torch.tensor([True, False])}}),
    "data.emoji.load": (emoji.load, lambda: {"subset": "classroom"}),
    "data.features.features": (features.features, lambda: {
        "pictures": [("a.png", PICTURE), ("b.png", PICTURE[:, :9])], "encoder": made("clip"), "batch": 2}),
    "data.features.identity": (features.identity, lambda: {"encoder": made("clip")}),
    "Emoji.by_role": (lambda role: made("emoji").by_role(role), lambda: {"role": "test"}),
    "Emoji.names": (lambda language: made("emoji").names(language), lambda: {"language": "zh"}),
    "Emoji.training_pictures": (lambda: made("emoji").training_pictures(), dict),
    "data.scenes.load": (scenes.load, lambda: {"role": "test"}),
    "data.scenes.captions.caption": (scenes.caption, lambda: {
        "cells": [0, 1, -1, -1], "language": "zh", "order": "reading"}),
    "data.scenes.question": (scenes.question, lambda: {"kind": "where", "about": 2, "language": "zh", "wording": 1}),
    "data.scenes.reply": (scenes.reply, lambda: {"kind": "where", "about": 2, "language": "zh",
                                                 "answer": scenes.answers_of("where")[2]}),
    "Scenes.draw": (lambda **given: made("scenes").draw(**given), lambda: {
        "count": 3, "generator": drawing(), "kinds": ["where", "what"], "pairs": "seen", "bias": 0.9}),
    "Scenes.draw_to_describe": (lambda **given: made("scenes").draw_to_describe(**given), lambda: {
        "count": 3, "generator": drawing(), "pairs": "seen"}),
    "Scenes.pictures": (lambda **given: made("scenes").pictures(**given), lambda: {
        "cells": made("drawn")["cells"], "artist": made("drawn")["artist"]}),
    "data.utterances.load": (utterances.load, lambda: {"role": "test"}),
    "data.utterances.prosody.hum": (utterances.hum, lambda: {"tone": made("said")["tone"][0]}),
    "Utterances.observe": (lambda **given: made("utterances").observe(**given), lambda: {
        "indices": torch.tensor([0, 5]), "generator": drawing(), "noise": 1.0}),
    "data.views.load": (views.load, lambda: {"subset": "validation"}),
    "Views.by_role": (lambda role: made("views").by_role(role), lambda: {"role": "test"}),
    "Views.groups": (lambda: made("views").groups(), dict),
    # what lessons share
    "intervals.interval": (intervals.interval, lambda: {"scores": floats(2, 6)}),
    "intervals.paired": (intervals.paired, lambda: {"scores": floats(6), "others": floats(2, 6)}),
    "tasks.learner.Learner": (learner.Learner, lambda: {
        "task": alignment.ThreeLosses(alignment.Pairs(made("views"), 4)), "steps": 2, "seed": 3}),
    "Learner.train_step": (lambda **dials: made("aligned").train_step(**dials), lambda: {
        "tau": 0.1, "alpha": 1.0, "beta": 0.5, "gamma": 0.5}),
    "tasks.seeds.over_seeds": (seeds.over_seeds, lambda: {"results": [{"a": 1.0}, {"a": 2.0}]}),
    "tasks.several_modalities.Experts": (several.Experts, lambda: {"modalities": fusion.modalities(2)}),
    "Experts.decisions": (lambda seen: made("experts").decisions(seen), lambda: {
        "seen": only(made("seen"), fusion.MODALITIES)}),
    "Experts.evaluate": (lambda seen: made("experts").evaluate(seen), lambda: {
        "seen": only(made("seen"), (*fusion.MODALITIES, "label"))}),
    "tasks.several_modalities.mean_weights": (several.mean_weights, lambda: {
        "out": only(made("out"), ("w", "alpha", "g", "pi"))}),
    "tasks.several_modalities.projected": (several.projected, lambda: {
        "out": only(made("out"), ("w", "f_1", "f_2", "f_3"))}),
    # 02
    "tasks.cross_modal_alignment.Pairs": (alignment.Pairs, lambda: {
        "data": made("views"), "batch": 4, "repeats": 2, "share": 0.5}),
    "Pairs.draw": (lambda generator: made("aligned").task.pairs.draw(generator), lambda: {"generator": drawing()}),
    "tasks.cross_modal_alignment.Setting": (alignment.Setting, lambda: {
        "steps": 2, "batch": 4, "tau": 0.1, "alpha": 1.0, "beta": 0.5, "gamma": 0.5, "repeats": 2}),
    "tasks.cross_modal_alignment.ThreeLosses": (alignment.ThreeLosses, lambda: {"pairs": made("aligned").task.pairs}),
    "tasks.cross_modal_alignment.features_of": (alignment.features_of, lambda: {
        "learned": made("aligned"), "data": made("views"), "artist": "noto", "language": "zh"}),
    "tasks.cross_modal_alignment.learner": (alignment.learner, lambda: {
        "data": made("views"), "seed": 1, "batch": 4, "repeats": 2, "share": 0.5}),
    "tasks.cross_modal_alignment.meanings": (alignment.meanings, lambda: {
        "concept": torch.tensor([0, 1, 2, 2]), "group": torch.tensor([0, 0, 1, 1]), "share": 0.5}),
    "tasks.cross_modal_alignment.nearest_known": (alignment.nearest_known, lambda: {"data": made("views")}),
    "tasks.cross_modal_alignment.nearest_known_name": (alignment.nearest_known_name, lambda: {"data": made("views")}),
    "tasks.cross_modal_alignment.recall": (alignment.recall, lambda: {"learned": made("aligned")}),
    "tasks.cross_modal_alignment.recall_at_1": (alignment.recall_at_1, lambda: {
        "learned": made("aligned"), "data": made("views"), "artists": ["noto", "fluent"], "other": 1}),
    "tasks.cross_modal_alignment.same_group_at_random": (alignment.same_group_at_random, lambda: {
        "group": torch.tensor([0, 0, 1, 1]), "k": 1}),
    "tasks.cross_modal_alignment.shortening": (alignment.shortening, lambda: {
        "data": made("views"), "seed": 1, "steps": 2}),
    "tasks.cross_modal_alignment.studies": (alignment.studies, lambda: {"learned": made("aligned")}),
    "tasks.cross_modal_alignment.train_and_test": (alignment.train_and_test, lambda: {
        "setting": alignment.Setting(2, 4), "seed": 1}),
    # 02b
    "tasks.what_pairs_do_not_say.cca": (pairs.cca, lambda: {"data": made("views"), "ridge": 0.1}),
    "tasks.what_pairs_do_not_say.procrustes": (pairs.procrustes, lambda: {"data": made("views")}),
    "tasks.what_pairs_do_not_say.relative": (pairs.relative, lambda: {"data": made("views"), "power": 4.0}),
    # 06
    "tasks.cross_modal_retrieval.Index": (retrieval.Index, lambda: {
        "model": made("towers"), "pictures": made("emoji").pictures["twemoji"]}),
    "Index.search": (lambda **given: made("index").search(**given), lambda: {
        "query": made("emoji").concepts[0].names["en"], "k": 3}),
    "tasks.cross_modal_retrieval.Retrieval": (retrieval.Retrieval, lambda: {"data": made("emoji"), "batch": 2}),
    "Retrieval.draw": (lambda generator: retrieval.Retrieval(made("emoji"), 2).draw(generator), lambda: {
        "generator": drawing()}),
    "tasks.cross_modal_retrieval.RetrievalModel": (retrieval.RetrievalModel, lambda: {
        "tokenizer": made("towers").text_encoder.tokenizer, "feature_dim": 8}),
    "RetrievalModel.forward": (lambda **given: made("towers")(**given), lambda: {
        "image": floats(2, 3, 32, 32).sigmoid(), "tau": 0.1,
        **made("towers").text_encoder.tokenize(["red apple", "梨"])}),
    "RetrievalModel.encode_pictures": (lambda pictures: made("towers").encode_pictures(pictures), lambda: {
        "pictures": made("emoji").pictures["twemoji"][:2]}),
    "RetrievalModel.encode_texts": (lambda texts: made("towers").encode_texts(texts), lambda: {
        "texts": ["red apple", "梨"]}),
    "tasks.cross_modal_retrieval.evaluate": (retrieval.evaluate, lambda: {
        "model": made("towers"), "data": made("emoji"), "artist": "twemoji"}),
    "tasks.cross_modal_retrieval.learner": (retrieval.learner, lambda: {
        "data": made("emoji"), "steps": 2, "seed": 1, "batch": 2}),
    "tasks.cross_modal_retrieval.found": (retrieval.found, lambda: {
        "ranked": {"there": torch.tensor([1, 2, 1]), "back": torch.tensor([1, 1, 3])}}),
    "tasks.pixels.framed": (pixels.framed, lambda: {
        "pictures": made("emoji").pictures["twemoji"][:2]}),
    "tasks.cross_modal_retrieval.pixel_baseline": (retrieval.pixel_baseline, lambda: {
        "data": made("emoji"), "artist": "twemoji", "crop": True}),
    "tasks.pixels.pixel_similarity": (pixels.pixel_similarity, lambda: {
        "pictures": made("emoji").pictures["twemoji"][:2], "known": made("emoji").training_pictures()}),
    "tasks.cross_modal_retrieval.train_and_study": (retrieval.train_and_study, lambda: {
        "seed": 1, "tau": 0.1, "steps": 2, "learned": True}),
    # 05
    "tasks.image_captioning.captions_of": (captioning.captions_of, lambda: {"drawn": made("to describe")}),
    "tasks.image_captioning.tokens_of": (captioning.tokens_of, lambda: {
        "model": made("describer"), "drawn": made("to describe")}),
    "tasks.image_captioning.training_set": (captioning.training_set, dict),
    "tasks.image_captioning.chrf": (captioning.chrf, lambda: {"written": "a cat", "wanted": "a cat on the left"}),
    "tasks.image_captioning.CaptioningModel": (captioning.CaptioningModel, lambda: {"feature_dim": 8, "width": 12}),
    "CaptioningModel.forward": (lambda **given: made("describer")(**given), lambda: {
        "image": floats(2, 3, 64, 64).sigmoid(), "tokens": made("describer").decoder.start(torch.tensor([0, 1]))}),
    "CaptioningModel.look": (lambda picture: made("describer").look(picture), lambda: {"picture": PICTURE}),
    "CaptioningModel.say": (lambda **given: made("describer").say(**given), lambda: {
        "f_v": made("f_v"), "language": "zh", "order": "reading", "temperature": 0.5, "generator": drawing()}),
    "CaptioningModel.choices": (lambda **given: made("describer").choices(**given), lambda: {
        "f_v": made("f_v"), "language": "zh", "order": "reading", "beams": 2, "length_power": 0.5}),
    "CaptioningModel.start": (lambda **given: made("describer").start(**given), lambda: {
        "language": "zh", "order": "reading"}),
    "CaptioningModel.spell": (lambda tokens: made("describer").spell(tokens), lambda: {
        "tokens": torch.tensor([7, 8, 3, 0])}),
    "CaptioningModel.words": (lambda tokens: made("describer").words(tokens), lambda: {
        "tokens": torch.tensor([7, 8, 3, 0])}),
    "tasks.image_captioning.learner": (captioning.learner, lambda: {
        "naming_steps": 0, "caption_steps": 1, "seed": 1, "batch": 2, "told": True}),
    "tasks.image_captioning.majority": (captioning.majority, lambda: {
        "data": made("scenes"), "count": 4, "seed": 1, "compared": 0, "examples": 100}),
    "tasks.image_captioning.make_tokenizer": (captioning.make_tokenizer, dict),
    "tasks.image_captioning.pixel_grammar": (captioning.pixel_grammar, lambda: {
        "data": made("scenes"), "count": 2, "pairs": "seen", "seed": 1, "compared": 0, "crop": True}),
    "tasks.image_captioning.scores": (captioning.scores, lambda: {
        "model": made("describer"), "data": made("scenes"), "count": 2, "pairs": "seen", "seed": 1, "compared": 0}),
    "tasks.image_captioning.study": (captioning.study, lambda: {
        "variant": "one stage", "seed": 1, "caption_steps": 1}),
    "tasks.image_captioning.things_in": (captioning.things_in, lambda: {"sentence": "A dog at the top left."}),
    # 09
    "data.scenes.arrangements.sentence": (scenes.sentence, lambda: {
        "kind": "side", "first": 0, "second": 1, "language": "zh"}),
    "tasks.word_order.eyes": (word_order.eyes, lambda: {"seed": 1, "steps": 1}),
    "tasks.word_order.look": (word_order.look, lambda: {"looking": made("eyes"), "data": made("scenes")}),
    "tasks.word_order.learner": (word_order.learner, lambda: {
        "seen": made("eyes"), "steps": 1, "seed": 1, "batch": 2, "exchanged": ["side"], "bag": True}),
    "tasks.word_order.asked": (word_order.asked, lambda: {
        "kind": "side", "which": "new", "count": 3, "seed": 1}),
    "tasks.word_order.candidates": (word_order.candidates, lambda: {"count": 3, "seed": 1}),
    "tasks.word_order.said": (word_order.said, lambda: {"drawn": made("told"), "exchanged": True}),
    "tasks.word_order.squares": (word_order.squares, lambda: {
        "judge": made("readers"), "tiles": floats(31, 128), "drawn": made("told")}),
    "tasks.word_order.found": (word_order.found, lambda: {
        "judge": made("readers"), "tiles": floats(31, 128), "drawn": made("told")}),
    "tasks.word_order.by_rule": (word_order.by_rule, lambda: {
        "data": made("scenes"), "drawn": made("told"), "crop": True}),
    "tasks.word_order.found_by_rule": (word_order.found_by_rule, lambda: {
        "data": made("scenes"), "drawn": made("told"), "crop": True}),
    "tasks.word_order.fits": (word_order.fits, lambda: {
        "judge": made("readers"), "f": floats(4, 128), "texts": ["狗在猫的左边。", "The dog is left of the cat."]}),
    "tasks.word_order.study": (word_order.study, lambda: {"variant": "bag of words", "seed": 1, "steps": 1}),
    # 10
    **{f"tasks.a_reader_learns_to_see.{call.__name__}": (call, arguments) for call, arguments in (
        (assistant.asked, lambda: {"data": made("scenes"), "count": 3, "seed": 1}),
        (assistant.reading, lambda: {"steps": 1, "answering": 1, "seed": 1, "hidden": True}),
        (assistant.seeing, lambda: {"model": made("assistant"), "looking": made("eyes"), "steps": 1, "seed": 1}),
        (assistant.squeezing, lambda: {
            "model": made("assistant"), "looking": made("eyes"), "queries": 2, "steps": 1, "seed": 1}),
        (assistant.least_squares, lambda: {"model": made("assistant"), "looking": made("eyes"), "pull": 1.0}),
        (assistant.word_rows, lambda: {"model": made("assistant")}),
        (assistant.picture_rows, lambda: {"model": made("assistant"), "f": floats(31, 128)}),
        (assistant.scores, lambda: {"model": made("assistant"), "x": floats(3, 4, 96), "drawn": made("asked")}),
        (assistant.caption_tokens, lambda: {"model": made("assistant"), "drawn": made("asked")}),
        (assistant.placed, lambda: {"rows": floats(31, 96), "drawn": made("asked")}),
        (assistant.squeezed, lambda: {
            "model": made("squeezed"), "f": floats(31, 128), "drawn": made("asked")}),
        (assistant.nearest, lambda: {"model": made("assistant"), "f": floats(31, 128)}),
        (assistant.by_rule, lambda: {"data": made("scenes"), "drawn": made("asked")}),
        (assistant.say, lambda: {
            "model": made("assistant"), "x": floats(4, 96), "language": "en", "order": "reading"}),
        (assistant.answer, lambda: {
            "model": made("assistant"), "x": floats(4, 96), "question": "Where is the dog?"}),
        (assistant.attention, lambda: {
            "model": made("assistant"), "x": floats(4, 96), "tokens": torch.tensor([200, 5]), "kind": "causal"}),
        (assistant.reach, lambda: {
            "model": made("assistant"), "x": floats(4, 96), "tokens": torch.tensor([200, 5])}),
        (assistant.study, lambda: {"seed": 1, "reading_steps": 1, "answering": 1, "steps": 1}),
        (assistant.study_of, lambda: {
            "model": made("assistant"), "looking": made("eyes"), "seed": 1, "steps": 1}))},
    # 11
    "tasks.draw_me_a_seven.pictures": (drawing_task.pictures, lambda: {"which": "aside"}),
    "tasks.draw_me_a_seven.write": (drawing_task.write, lambda: {"word": "七"}),
    "tasks.draw_me_a_seven.means": (drawing_task.means, lambda: {"word": "七"}),
    "tasks.draw_me_a_seven.spelt": (drawing_task.spelt, lambda: {
        "digit": torch.tensor([7, 3]), "generator": drawing()}),
    "tasks.draw_me_a_seven.learner": (drawing_task.learner, lambda: {"steps": 1, "seed": 1}),
    "tasks.draw_me_a_seven.draw": (drawing_task.draw, lambda: {
        "drawer": made("drawer"), "word": torch.full((2, 16), 65), "noise": floats(2, 64), "w": 2.0, "steps": 1}),
    "tasks.draw_me_a_seven.drawings": (drawing_task.drawings, lambda: {
        "drawer": made("drawer"), "w": 1.0, "steps": 1, "seed": 1}),
    "tasks.draw_me_a_seven.by_rule": (drawing_task.by_rule, lambda: {"rule": "blend", "seed": 1}),
    "tasks.draw_me_a_seven.judge": (drawing_task.judge, lambda: {"seed": 0}),
    "tasks.draw_me_a_seven.measure": (drawing_task.measure, lambda: {"drawn": made("twenty"), "shown": 60}),
    "tasks.draw_me_a_seven.features": (drawing_task.features, lambda: {"drawn": made("twenty")}),
    "tasks.draw_me_a_seven.frechet_gap": (drawing_task.frechet_gap, lambda: {
        "one": drawing_task.measure(made("twenty")), "other": drawing_task.measure(made("twenty")), "draws": 2}),
    "tasks.draw_me_a_seven.study": (drawing_task.study, lambda: {"variant": "few", "seed": 1, "steps": 1}),
    "tasks.draw_me_a_seven.to_pixels": (drawing_task.to_pixels, lambda: {"x": floats(3, 64), "columns": 2}),
    "tasks.draw_me_a_seven.velocity_of_two": (drawing_task.velocity_of_two, lambda: {
        "x": floats(2, 1), "t": torch.full((2, 1), 0.5)}),
    "tasks.draw_me_a_seven.colour_pictures": (drawing_task.colour_pictures, lambda: {"unseen": True}),
    "tasks.draw_me_a_seven.colour_study": (drawing_task.colour_study, lambda: {"seed": 1, "steps": 1}),
    "tasks.draw_me_a_seven.green_hearts_by_rule": (drawing_task.green_hearts_by_rule, lambda: {"rule": "half"}),
    "tasks.draw_me_a_seven.nearer_to_green_hearts": (drawing_task.nearer_to_green_hearts, lambda: {
        "x": floats(2, 768)}),
    "tasks.draw_me_a_seven.colour_pixels": (drawing_task.colour_pixels, lambda: {"x": floats(2, 768)}),
    # 12
    "data.folder.load": (folder.load, lambda: {"path": made("folder").root, "seed": 1, "threads": 1}),
    "Folder.pictures": (lambda **given: made("folder").pictures(**given), lambda: {"split": "test", "size": 16}),
    "Folder.texts": (lambda split: made("folder").texts(split), lambda: {"split": "test"}),
    "intervals.resampled": (lambda columns: intervals.resampled(lambda x: x.double().mean().item(), columns), lambda: {
        "columns": floats(6)}),
    "Heads.similarity": (lambda part: own.Heads(128).similarity(part), lambda: {"part": made("album").test}),
    "OrderQuestions.squares": (lambda S: own.order_questions(made("album")).squares(S), lambda: {
        "S": floats(len(made("album").test.files), len(made("album").test.texts))}),
    "Recognised.by_thing": (lambda right: own.recognise(made("album")).by_thing(right), lambda: {
        "right": own.recognise(made("album")).pixels}),
    "tasks.your_own_pictures.album": (own.album, lambda: {
        "data": made("folder"), "encoder": made("stand-in"), "language": "zh", "things": ["狗", "猫"],
        "without": ["reprint-001.png"], "strip": ["by"]}),
    "tasks.your_own_pictures.ask": (own.ask, lambda: {"photos": made("album"), "content": a_png(), "most": 2}),
    "tasks.your_own_pictures.best_temperature": (own.best_temperature, lambda: {
        "scores": floats(3, 4), "labels": torch.tensor([0, 1, 3])}),
    "tasks.your_own_pictures.by_source": (own.by_source, lambda: {
        "photos": made("album"), "heads": [own.Heads(128).eval()]}),
    "tasks.your_own_pictures.chance": (own.chance, lambda: {"positives": torch.eye(3) > 0, "k": 2}),
    "tasks.your_own_pictures.giveaways": (own.giveaways, lambda: {"data": made("folder"), "language": "en"}),
    "tasks.your_own_pictures.learner": (own.learner, lambda: {
        "photos": made("album"), "steps": 1, "seed": 1, "batch": 2}),
    "tasks.your_own_pictures.near_duplicates": (own.near_duplicates, lambda: {"data": made("folder")}),
    "tasks.your_own_pictures.order_questions": (own.order_questions, lambda: {
        "photos": made("album"), "which": "test"}),
    "tasks.your_own_pictures.read_picture": (own.read_picture, lambda: {"content": a_png()}),
    "tasks.your_own_pictures.recognise": (own.recognise, lambda: {"photos": made("album")}),
    "tasks.your_own_pictures.searches": (lambda **given: list(own.searches(**given)), lambda: {
        "features": floats(5, 4), "count": 20, "queries": 3, "k": 2}),
    "tasks.your_own_pictures.simple": (own.simple, lambda: {"photos": made("album")}),
    "tasks.your_own_pictures.softmax_error": (own.softmax_error, lambda: {
        "scores": floats(3, 4), "labels": torch.tensor([0, 1, 3]), "temperature": 0.5}),
    "tasks.your_own_pictures.write_results": (lambda scores: own.write_results(
        Path(tempfile.mkdtemp()) / "results.json", scores).read_text(), lambda: {"scores": {"a": 0.5, "b": "text"}}),
    "tasks.your_own_pictures.yes_or_no": (own.yes_or_no, lambda: {"photos": made("album"), "seed": 1}),
    "tasks.stand_in.drawn_things": (own.drawn_things, lambda: {"language": "zh"}),
    "tasks.stand_in.pretrain": (own.pretrain, lambda: {"seed": 1, "steps": 1}),
    "tasks.stand_in.square": (own.square, lambda: {"picture": PICTURE, "size": 20}),
    "tasks.stand_in.stand_in": (own.stand_in, lambda: {"weights": stand_in.Weights(made("stand-in").state_dict())}),
    "tasks.stand_in.write_folder": (lambda seed: own.write_folder(Path(tempfile.mkdtemp()) / "x", seed).name, lambda: {
        "seed": 1}),
    # 03
    "tasks.scoring.accuracy": (scoring.accuracy, lambda: {
        "scores": floats(3, 4), "label": torch.tensor([0, 1, 3])}),
    "tasks.several_modalities.accuracy_of": (several.accuracy_of, lambda: {
        "trainer": made("fusing"), "out": only(made("out"), ("w", "f_1", "f_2", "f_3")),
        "label": made("seen")["label"], "w": [0.2, 0.3, 0.5]}),
    "tasks.multimodal_fusion.examine": (fusion.examine, lambda: {
        "trainer": made("fusing"), "data": made("digits"), "conditions": ["clean", "noise_only text"], "times": 1}),
    "tasks.multimodal_fusion.fused": (fusion.fused, lambda: {
        "trainer": made("fusing"), "seen": only(made("seen"), (*fusion.MODALITIES, "label")), "times": 1}),
    "tasks.multimodal_fusion.singles": (fusion.singles, lambda: {
        "experts": made("experts"), "seen": only(made("seen"), (*fusion.MODALITIES, "label")), "times": 1}),
    "tasks.multimodal_fusion.nearest": (fusion.nearest, lambda: {
        "known": only(made("seen"), (*fusion.MODALITIES, "label")),
        "seen": only(made("seen"), (*fusion.MODALITIES, "label")), "times": 1}),
    "tasks.multimodal_fusion.inputs": (fusion.inputs, lambda: {"seen": only(made("seen"), fusion.MODALITIES)}),
    "tasks.multimodal_fusion.observe_all": (fusion.observe_all, lambda: {
        "data": made("digits"), "times": 1, "seed": 1, "image_noise": 0.5, "noise_only": "text"}),
    "tasks.multimodal_fusion.observe_at": (fusion.observe_at, lambda: {
        "data": made("digits"), "levels": {"image": 1.0, "sound": 0.5}, "times": 1}),
    "tasks.multimodal_fusion.observe_under": (fusion.observe_under, lambda: {
        "data": made("digits"), "condition": "clean", "times": 1}),
    "tasks.multimodal_fusion.one_sample": (fusion.one_sample, lambda: {
        "data": made("digits"), "clip": made("digits").clips[0], "levels": {"image": 1.0, "sound": 0.5},
        "noise_only": ["image"], "missing": ["text"]}),
    "tasks.multimodal_fusion.product_rule": (fusion.product_rule, lambda: {
        "decisions": [floats(3, 4).softmax(1)] * 2}),
    "tasks.multimodal_fusion.separately": (fusion.separately, lambda: {
        "steps": 2, "seed": 1, "batch": 2, "start": made("experts")}),
    "tasks.multimodal_fusion.study": (fusion.study, lambda: {"seed": 1, "separate_steps": 1, "together_steps": 2}),
    "tasks.multimodal_fusion.together": (fusion.together, lambda: {
        "experts": made("experts"), "steps": 2, "seed": 1, "batch": 2}),
    # 03b
    "tasks.what_weights_do_not_say.exclusive_or": (weighing.exclusive_or, lambda: {
        "count": 3, "generator": drawing()}),
    "tasks.what_weights_do_not_say.puzzle": (weighing.puzzle, lambda: {"seed": 1, "steps": 2}),
    "tasks.what_weights_do_not_say.study": (weighing.study, lambda: {
        "seed": 1, "separate_steps": 1, "together_steps": 2}),
    # 07
    "tasks.multimodal_sentiment.SentenceEncoder": (sentiment.SentenceEncoder, lambda: {
        "vocabulary": 9, "feature_dim": 4, "width": 5}),
    "tasks.multimodal_sentiment.contributions": (sentiment.contributions, lambda: {
        "words": made("words"), "seen": only(made("said"), ("text", "face", "tone")), "text": "好",
        "answer": lambda seen, without: sentiment.late(made("feeling"), seen, without)}),
    "tasks.multimodal_sentiment.joint": (sentiment.joint, lambda: {
        "trainer": made("feeling fused"), "seen": only(made("heard"), ("text", "face", "tone")), "without": ["face"],
        "method": "f_late"}),
    "tasks.multimodal_sentiment.late": (sentiment.late, lambda: {
        "experts": made("feeling"), "seen": only(made("heard"), ("text", "face", "tone")), "without": ["face"]}),
    "tasks.multimodal_sentiment.load_words": (sentiment.load_words, dict),
    "tasks.multimodal_sentiment.log_p": (sentiment.log_p, lambda: {
        "experts": made("feeling"), "seen": only(made("heard"), ("text", "face", "tone"))}),
    "tasks.multimodal_sentiment.observe_all": (sentiment.observe_all, lambda: {
        "data": made("utterances"), "words": made("words"), "times": 1, "seed": 1}),
    "tasks.multimodal_sentiment.one_sample": (sentiment.one_sample, lambda: {
        "data": made("utterances"), "words": made("words"), "text": "好", "picture": 1, "sounds": "wry", "voice": 1,
        "seed": 1}),
    "Words.known": (lambda text: made("words").known(text), lambda: {"text": "好"}),
    "tasks.multimodal_sentiment.separately": (sentiment.separately, lambda: {"steps": 2, "seed": 1, "batch": 2}),
    "tasks.multimodal_sentiment.study": (sentiment.study, lambda: {
        "seed": 1, "separate_steps": 1, "together_steps": 2, "times": 1}),
    "tasks.multimodal_sentiment.together": (sentiment.together, lambda: {
        "experts": made("feeling"), "steps": 2, "seed": 1, "batch": 2}),
    "tasks.information.dependence": (information.dependence, lambda: {"p": torch.eye(2)[:, None] / 2}),
    "tasks.information.parts": (information.parts, lambda: {"p": torch.eye(2)[:, None] / 2}),
    "tasks.signs.everything": (signs.everything, dict),
    "tasks.signs.rules": (signs.rules, dict),
    "tasks.signs.with_perfect_senses": (signs.with_perfect_senses, dict),
    # 08
    "tasks.video_understanding.VideoModel": (video.VideoModel, lambda: {"answers": ["frame", "late"], "asks": "thing"}),
    "tasks.video_understanding.accuracies": (video.accuracies, lambda: {
        "model": made("video"), "seen": only(made("watched"), ("frames", "sound", "moment", "motion"))}),
    "tasks.video_understanding.added": (video.added, lambda: {
        "z": torch.eye(2, 10), "other": torch.eye(2, 10)}),
    "tasks.video_understanding.cut_out": (video.cut_out, lambda: {"seen": only(made("watched"), ("frames",))}),
    "tasks.video_understanding.flow": (video.flow, lambda: {"frames": made("watched")["frames"]}),
    "tasks.video_understanding.flow_rule": (video.flow_rule, lambda: {"seen": only(made("watched"), ("frames",))}),
    "tasks.video_understanding.neighbour": (video.neighbour, lambda: {
        "seen": only(made("watched"), ("frames",)), "sense": "frames", "in_order": True, "asks": "motion"}),
    "tasks.video_understanding.right": (video.right, lambda: {
        "z": torch.eye(2, 10), "seen": {"motion": torch.tensor([2, 3])}, "asks": "motion"}),
    "tasks.video_understanding.blinded": (video.blinded, lambda: {"seen": only(made("watched"), ("frames",))}),
    "tasks.video_understanding.held_out": (video.held_out, lambda: {"role": "validation", "count": 2, "seed": 1}),
    "tasks.video_understanding.learner": (video.learner, lambda: {
        "answers": ["frame", "late"], "steps": 2, "seed": 1, "asks": "thing", "batch": 2, "count": 4}),
    "tasks.video_understanding.muted": (video.muted, lambda: {"seen": only(made("watched"), ("sound",))}),
    "tasks.video_understanding.observe": (video.observe, lambda: {"data": made("clips"), "facts": made("facts")}),
    "tasks.video_understanding.scores": (video.scores, lambda: {
        "model": made("video"), "seen": only(made("watched"), ("frames", "sound", "moment"))}),
    "tasks.video_understanding.shuffled": (video.shuffled, lambda: {
        "seen": only(made("watched"), ("frames", "sound", "moment", "order"))}),
    "tasks.video_understanding.train_and_test": (lambda study, seed: video.train_and_test(study, seed), lambda: {
        "study": "picture", "seed": 1}),
    "Watching.draw": (lambda generator: video.learner(["frame"], 1, count=4, batch=2).task.draw(generator), lambda: {
        "generator": drawing()}),
    # 01
    "tasks.vision_language_model.answer": (naming.answer, lambda: {
        "model": made("namer"), "concepts": made("concepts"), "picture": PICTURE[:, :32, :32],
        "hint": made("concepts").hints[0], "language": "zh", "temperature": 0.5, "generator": drawing(), "k": 2}),
    "tasks.vision_language_model.evaluate": (naming.evaluate, lambda: {
        "model": made("namer"), "concepts": made("concepts"), "artist": "twemoji"}),
    "tasks.vision_language_model.learner": (naming.learner, lambda: {
        "concepts": made("concepts"), "steps": 2, "seed": 1, "batch": 2, "lr": 1e-3, "name_share": 0.5,
        "image_dropout": 0.5}),
    "tasks.vision_language_model.Naming": (naming.Naming, lambda: {
        "concepts": made("concepts"), "batch": 2, "lr": 1e-3, "name_share": 0.5, "image_dropout": 0.5}),
    "Naming.draw": (lambda generator: begun().draw(generator), lambda: {"generator": drawing()}),
    "tasks.vision_language_model.load": (naming.load, lambda: {"hints": "names", "subset": "held-out"}),
    "tasks.vision_language_model.loss_floor": (naming.loss_floor, lambda: {"n": 2, "tau": 0.1}),
    "tasks.vision_language_model.majority": (naming.majority, lambda: {"concepts": made("concepts")}),
    "tasks.vision_language_model.retrieve": (naming.retrieve, lambda: {
        "model": made("namer"), "concepts": made("concepts"), "artist": "twemoji"}),
    "tasks.vision_language_model.text_limit": (naming.text_limit, lambda: {
        "concepts": made("concepts"), "known": made("concepts")}),
    "tasks.vision_language_model.hold_out_pairs": (naming.hold_out_pairs, lambda: {
        "concepts": made("concepts"), "seed": 1}),
    "tasks.vision_language_model.pixel_neighbour": (naming.pixel_neighbour, lambda: {
        "concepts": made("concepts"), "artist": "twemoji"}),
    "tasks.vision_language_model.choose": (naming.choose, lambda: {
        "similarity": floats(6, 6), "concepts": made("concepts"), "known": made("concepts"), "penalty": 0.5,
        "by_class": True}),
    "tasks.vision_language_model.train_and_study": (naming.train_and_study, lambda: {
        "seed": 1, "steps": 1, "weights": [1.0, 0.5, 0.5], "hints": "names"}),
    "Concepts.shares": (lambda: made("concepts").shares(), dict),
    # 04
    "tasks.visual_question_answering.AnsweringModel": (answering.AnsweringModel, lambda: {
        "feature_dim": 16, "hidden_dim": 8, "look": "gates", "sees": "both"}),
    "AnsweringModel.forward": (lambda **given: made("answerer")(**given), lambda: {
        "image": floats(2, 3, 64, 64).sigmoid(),
        **made("answerer").text_encoder.tokenize(["有狗吗？", "Is there a dog?"])}),
    "AnsweringModel.answer": (lambda **given: made("answerer").answer(**given), lambda: {
        "f_v": floats(2, 4, 128), "f_t": floats(2, 128)}),
    "AnsweringModel.ask": (lambda **given: made("answerer").ask(**given), lambda: {
        "picture": PICTURE, "question": "有狗吗？"}),
    "tasks.visual_question_answering.Answering": (answering.Answering, lambda: {
        "batch": 2, "look": "gates", "sees": "both", "bias": 0.9, "kinds": ["whether"]}),
    "Answering.draw": (lambda generator: answering.Answering(2).draw(generator), lambda: {"generator": drawing()}),
    "tasks.visual_question_answering.accuracy": (answering.accuracy, lambda: {
        "model": made("answerer"), "data": made("scenes"), "count": 2, "seed": 1}),
    "tasks.visual_question_answering.learner": (answering.learner, lambda: {"steps": 2, "seed": 1, "batch": 2}),
    "tasks.visual_question_answering.majority": (answering.majority, lambda: {"count": 4, "seed": 1, "examples": 100}),
    "AnsweringModel.recognise": (lambda pictures: made("answerer").recognise(pictures), lambda: {
        "pictures": PICTURE[None]}),
    "tasks.visual_question_answering.by_pixels": (answering.by_pixels, lambda: {
        "pictures": PICTURE[None], "crop": True}),
    "tasks.visual_question_answering.by_program": (answering.by_program, lambda: {
        "eyes": answering.empty_or_not, "data": made("scenes"), "count": 2, "seed": 1}),
    "tasks.visual_question_answering.empty_or_not": (answering.empty_or_not, lambda: {"pictures": PICTURE[None]}),
    "tasks.visual_question_answering.execute": (answering.execute, lambda: {
        "seen": floats(3, 4, 31), "kind": torch.tensor([0, 1, 3]), "about": torch.tensor([2, 29, 0])}),
    "tasks.visual_question_answering.per_thing": (answering.per_thing, lambda: {
        "right": torch.tensor([[True, False, True]]), "seed": 1}),
    "tasks.visual_question_answering.scores": (answering.scores, lambda: {
        "model": made("answerer"), "data": made("scenes"), "count": 2, "seed": 1}),
    "tasks.visual_question_answering.study_bias": (answering.study_bias, lambda: {
        "answer": lambda data, **draw: {"all": torch.ones(2)}}),
    "tasks.visual_question_answering.spotlight": (answering.spotlight, lambda: {
        "picture": PICTURE, "w": torch.tensor([0.1, 0.2, 0.3, 0.4])}),
    "tasks.visual_question_answering.study": (answering.study, lambda: {
        "variant": "fair", "seed": 1, "steps": 1}),
    # 13
    "tasks.four_machines.batch_of": (four_machines.batch_of, lambda: {"data": made("views"), "batch": 4, "seed": 1}),
    "tasks.four_machines.extrapolate": (four_machines.extrapolate, lambda: {
        "counts": [10, 20, 40], "scores": [0.1, 0.15, 0.2], "at": 80}),
    "tasks.four_machines.learner": (four_machines.learner, lambda: {"data": made("views"), "seed": 1, "batch": 4}),
    "tasks.four_machines.put_back": (four_machines.put_back, lambda: {
        "A": floats(4, 3), "a": floats(2, 3), "first": 1}),
    "tasks.four_machines.split_loss": (four_machines.split_loss, lambda: {
        "model": made("projections"), "batch": four_machines.batch_of(made("views"), 4), "way": "own", "count": 2,
        "tau": 0.1}),
    "Step.arrows": (lambda: made("step").arrows(), dict),
    "Step.loss": (lambda: made("step").loss(), dict),
    "Step.numbers": (lambda: made("step").numbers(), dict),
    "tasks.four_machines.step": (lambda **given: four_machines.step(NoProcesses(), **given), lambda: {
        "model": made("projections"), "batch": four_machines.batch_of(made("views"), 4), "way": "own", "count": 2,
        "tau": 0.1}),
    "tasks.four_machines.study": (four_machines.study, lambda: {"question": "concepts", "value": 4, "seed": 1}),
    "tasks.four_machines.whole_gradient": (four_machines.whole_gradient, lambda: {
        "model": made("projections"), "batch": four_machines.batch_of(made("views"), 4), "tau": 0.1}),
    # live and exercises
    "exercises.Case": (exercises.Case, lambda: {"args": (1,), "expected": 2.0, "zh": "谁", "en": "who"}),
    "exercises.Refusal": (exercises.Refusal, dict),
    "exercises.Candidate": (exercises.Candidate, lambda: {"args": (1,), "zh": "谁", "en": "who"}),
    "exercises.separates": (exercises.separates, lambda: {
        "answer": lambda x: x, "able": [exercises.Candidate((1.0,), "会", "can")],
        "unable": [exercises.Candidate((0.0,), "不会", "cannot")], "start": ("想", "think"), "hint": ("比", "compare"),
        "margin": 0.2}),
    "exercises.check": (exercises.check, lambda: {
        "answer": abs, "cases": [exercises.Case((1,), 1.0, "谁", "who")], "start": WHO, "hint": WHO}),
    "live.Card": (live.Card, lambda: {"picture": PICTURE, "caption": WHO, "mark": True, "alt": WHO,
                                      "sound": digits.to_wav(floats(500))}),
    "live.Plot": (live.Plot, lambda: {"zh": "谁", "en": "who", "lines": {"L": WHO}, "levels": {WHO: 0.5},
                                      "ylim": (0.0, 1.0), "colours": {"L": "image"}}),
    "live.Training": (live.Training, lambda: {
        "step": lambda **given: {"L": 1.0}, "steps": 2, "plots": [live.Plot("谁", "who", {"L": WHO})],
        "sliders": {"tau": live.slider("谁", "who", 1, 0, 2)}, "every": 2}),
    "live.bars": (live.bars, lambda: {"rows": [(WHO, 0.5), ("b", 1.0)], "title": WHO, "colour": ["image", "#000000"],
                                      "digits": 2}),
    "live.beside": (lambda one, two: live.beside(one, two), lambda: {
        "one": live.note("谁", "who"), "two": live.note("谁", "who")}),
    "live.stack": (lambda one, two: live.stack(one, two), lambda: {
        "one": live.note("谁", "who"), "two": live.note("谁", "who")}),
    "live.chart": (live.chart, lambda: {
        "title": WHO, "x": WHO, "at": [1.0, 2.0], "lines": LINE, "levels": {WHO: 0.5},
        "bands": {("线", "line"): ([0.0, 0.1], [0.2, 0.3])}, "ylim": (0.0, 1.0), "colours": {("线", "line"): "image"}}),
    "live.claims": (lambda **row: claimed(tuple(row.values())), lambda: {
        "what": WHO, "values": [0.5, 0.6], "sign": ">", "line": 0.1}),
    "live.explore": (live.explore, lambda: {"sliders": {"tau": live.slider("谁", "who", 1, 0, 2)},
                                            "view": lambda tau: live.note("谁", "who")}),
    "live.field": (live.field, lambda: {"zh": "谁", "en": "who"}),
    "live.film": (live.film, lambda: {"frames": torch.zeros(2, 3, 8, 9, dtype=torch.uint8), "label": WHO,
                                      "seconds": 1.0, "sound": digits.to_wav(floats(500))}),
    "live.strip": (live.strip, lambda: {"frames": torch.zeros(2, 3, 8, 9, dtype=torch.uint8), "label": WHO,
                                        "names": ["a", "b"], "below": floats(4, 5).sigmoid()}),
    "live.gallery": (live.gallery, lambda: {"cards": [live.Card(caption=WHO)] * 2, "columns": 2, "title": WHO,
                                            "size": 64}),
    "live.is_live": (live.is_live, dict),
    "live.menu": (live.menu, lambda: {"zh": "谁", "en": "who", "options": {"a": WHO, "b": WHO}, "value": "b"}),
    "live.buttons": (live.buttons, lambda: {"zh": "谁", "en": "who", "options": {"a": WHO, "b": WHO}, "value": "b"}),
    "live.pad": (lambda answer: repr(live.pad(answer)), lambda: {
        "answer": lambda name, content: live.note("好", "good")}),
    "live.note": (live.note, lambda: {"zh": "谁", "en": "who"}),
    "live.page": (live.page, dict),
    "live.picture": (live.picture, lambda: {"matrix": floats(2, 3), "title": WHO, "size": 90, "low": -3.0,
                                            "high": 3.0}),
    "live.scatter": (live.scatter, lambda: {
        "points": floats(4, 2), "labels": [0, 1, 0, 1], "names": [WHO, "b"], "title": WHO, "size": (90, 80),
        "colours": ["image", "text"], "links": [(0, 1)], "limits": ((-3.0, 3.0), (-3.0, 3.0))}),
    "live.search_box": (live.search_box, lambda: {
        "zh": "谁", "en": "who", "search": lambda text: [live.Card(caption=text)], "examples": ["a"]}),
    "live.shares": (live.shares, lambda: {
        "rows": [(WHO, [0.2, 0.3])], "parts": [(WHO, "image"), ("b", "#000000")], "title": WHO, "total": 1.0}),
    "live.slider": (live.slider, lambda: {"zh": "谁", "en": "who", "value": 0.5, "min": 0.0, "max": 1.0, "step": 0.1}),
    "live.source": (lambda thing: live.source(thing), lambda: {"thing": abs_of}),
    "live.switch": (live.switch, lambda: {"zh": "谁", "en": "who", "value": True}),
    "live.table": (live.table, lambda: {"header": [WHO, "b"], "rows": [["a", 0.5], [WHO, [0.1, 0.2]]], "title": WHO,
                                        "digits": 2}),
    "live.weights": (live.weights, lambda: {
        "names": {"image": WHO, "text": WHO}, "value": {"image": 0.5, "text": 0.5},
        "presets": {WHO: {"image": 1.0, "text": 0.0}}}),
}


def only(seen: Mapping, names: tuple[str, ...]) -> dict:
    """What a call needs of an observation, so that a lack of any is wrong."""
    return {name: seen[name] for name in names}


def claimed(row: tuple) -> object:
    """What does not hold is said, which is what claims are for."""
    try:
        return live.claims(row)
    except AssertionError as error:
        return str(error)


def abs_of(x: float) -> float:
    return abs(x)


def begun() -> naming.Naming:
    task = naming.Naming(made("concepts"), 2)
    task.begin(torch.device("cpu"))
    return task


# -- what notebooks use -----------------------------------------------------------------------------------------------

def cells(notebook: Path) -> Iterator[ast.Module]:
    for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            yield ast.parse("".join(cell["source"]))


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but what is only shown: the arguments of `live.source`."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        shown = isinstance(tree, ast.Call) and getattr(tree.func, "attr", "") == "source" and child is not tree.func
        if not shown:
            yield from nodes(child)


def used() -> set[str]:
    """What notebooks call: functions and classes as "tasks.seeds.over_seeds", methods as "Index.search"."""
    found = set()
    for notebook in NOTEBOOKS:
        imported, said, attributes = {}, set(), set()
        for node in (node for cell in cells(notebook) for node in nodes(cell)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mmlessons"):
                module = importlib.import_module(node.module)
                imported |= {a.asname or a.name: getattr(module, a.name, None) or importlib.import_module(
                    f"{node.module}.{a.name}") for a in node.names}
            elif isinstance(node, ast.Name):
                said.add(node.id)
            elif isinstance(node, ast.Attribute):
                attributes.add((getattr(node.value, "id", ""), node.attr))
        modules = {name: x for name, x in imported.items() if isinstance(x, ModuleType)}
        things = [x for name, x in imported.items() if name in said and name not in modules]
        things += [getattr(modules[owner], name) for owner, name in attributes if owner in modules]
        found |= {label(x) for x in things if callable(x)}
        called = {name for owner, name in attributes if owner not in modules} - {"step"}  # which an optimiser takes
        homes = {sys.modules[x.__module__] for x in things if hasattr(x, "__module__")} | {*modules.values()}
        for home in homes:
            classes = [x for x in vars(home).values() if inspect.isclass(x) and x.__module__ == home.__name__]
            found |= {f"{x.__name__}.{name}" for x in classes for name, method in vars(x).items()
                      if name in called and name[0] != "_" and inspect.isfunction(method)
                      and home.__name__.startswith("mmlessons") and not home.__name__.startswith(FREE_HOMES)}
    return {name for name in found if name}


FREE_HOMES = ("mmlessons.live", *ELSEWHERE)  # panels are driven in test_live


def label(thing: Callable) -> str:
    home = thing.__module__
    if not home.startswith("mmlessons") or home.startswith(ELSEWHERE):
        return ""
    if home.startswith("mmlessons.live"):
        home = "mmlessons.live"
    return f"{home.removeprefix('mmlessons.')}.{thing.__qualname__}"


# -- ways to spoil ----------------------------------------------------------------------------------------------------

SAME, NO, LOUD, ANY, HUGE = "same", "no", "loud", "any", "huge"
CHOICES = {"role", "subset", "language", "kind", "order", "pairs", "artist", "artists", "hints", "variant", "method",
           "sounds", "condition", "conditions", "look", "sees", "asks", "sign", "study", "noise_only", "missing",
           "kinds", "answers", "without", "way"}  # strings of a fixed list
LEAST = {"count": 1, "steps": 1, "batch": 2, "times": 1, "repeats": 1, "n": 2, "beams": 1, "feature_dim": 1,
         "width": 1, "hidden_dim": 1, "caption_steps": 1, "separate_steps": 1, "together_steps": 1, "vocabulary": 1,
         "columns": 1, "every": 1, "examples": 1, "size": 16, "cells": -1}  # of whole numbers; 0 of all others


def spoiled(x: object, name: str) -> Iterator[tuple[object, str, str]]:
    """Every way to spoil a value: the bad one, what may come of it, and which part of it is bad."""
    yield from ((bad, NO, name) for bad in (None, object()))
    text = isinstance(x, tuple) and [*map(type, x)] == [str, str]  # a name, which may be one string for both languages
    key = re.split(r"[.\[]", name)[-1 if "." in name else 0]
    if isinstance(x, Tensor):
        yield from ((bad, outcome, name) for bad, outcome in spoiled_tensor(x))
    elif isinstance(x, bool):
        yield from ((bad, NO, name) for bad in ("yes", 3))
    elif isinstance(x, int):
        least = LEAST.get(key, 0)
        yield from ((form(x), SAME, name) for form in (np.int64, np.int32, torch.tensor))
        yield from ((bad, NO, name) for bad in (f"{x}", x + 0.5, [x], float("nan"), True, least - 1, -7))
        yield from ((n, ANY, name) for n in (0, 1) if n >= least)
    elif isinstance(x, float):
        yield from ((form(x), SAME, name) for form in (np.float64, np.float32, torch.tensor))
        yield from ((bad, NO, name) for bad in (f"{x}", [x], float("nan"), True))
        yield from ((bad, ANY, name) for bad in (float("inf"), -float("inf"), -1.0, 0.0, 1, 1e20, 1e-20))
    elif isinstance(x, str):
        yield from ((bad, NO, name) for bad in (3, [x], b"x"))
        if key in CHOICES:
            yield from ((bad, NO, name) for bad in ("", "nonsense", x.upper() + "!", "🍎"))
    elif isinstance(x, Mapping):
        yield from ((bad, NO, name) for bad in ([*x.values()], "text", 3))
        yield {}, f"{LENGTH} 0", name
        for k, value in x.items():
            yield from (({**x, k: bad}, *rest) for bad, *rest in spoiled(value, f"{name}.{k}"))
            yield {other: v for other, v in x.items() if other != k}, LENGTH, f"{name}.{k}"
    elif isinstance(x, (list, tuple)):
        yield from ((bad, NO, name) for bad in (dict(enumerate(x)), 3, *([] if text else ["text"])))
        yield type(x)(), f"{LENGTH} 0", name
        yield from ((type(x)(bad), LENGTH, name) for bad in ([*x, x[-1]], x[:-1]) if len(bad) > 0)
        for i, value in enumerate(x):  # the last of each kind
            if type(value) not in map(type, x[i + 1:]):
                yield from ((type(x)([*x[:i], bad, *x[i + 1:]]), *rest) for bad, *rest in spoiled(value, f"{name}[]"))
    else:
        yield from ((bad, NO, name) for bad in (3, "text", {}))


def spoiled_tensor(x: Tensor) -> Iterator[tuple[object, str]]:
    yield from ((bad, NO) for bad in ("text", {"x": x}, x > 0 if x.dtype != torch.bool else x.float(), x + 0j))
    yield from ((bad, SAME) for bad in (x.numpy(), x.tolist()))
    if x.is_floating_point():
        yield from ((bad, SAME) for bad in (x.double(), x.half()))
        yield (x * 10).long(), NO
        yield from ((torch.cat([x[:-1], torch.full_like(x[-1:], bad)]), LOUD)
                    for bad in (float("nan"), float("inf"), -float("inf")) if x.ndim)
        yield from [(x * 0, ANY), (x * 1e-20, ANY), (x * 1e20, HUGE)]
    elif x.dtype != torch.bool:
        yield x.float(), NO
        if x.dtype == torch.int64:
            yield from [(x.int(), SAME), (x + 100_000, NO), (-x - 100_000, NO)]
    for bad in (x.unsqueeze(0), *([x[0]] if x.ndim and len(x) else [])):
        yield bad, SHAPE
    for i, n in enumerate(x.shape):
        yield from ((bad, f"{SHAPE} {i}") for bad in (torch.cat([x, x.narrow(i, 0, 1)], i), x.narrow(i, 0, n - 1)))
        yield from ((x.narrow(i, 0, size), f"{SHAPE} {i}") for size in {0, 1} - {n, n - 1})


SHAPE, LENGTH = "shape", "length"  # of a tensor, of a list or a dict: only what FREE lists may differ
FREE = {  # call and part: what may come of it after all, or which sizes are free
    "Clips.frames.facts.lot": "no", "Clips.sound.facts.lot": "no",  # a seed may be any number
    "tasks.video_understanding.observe.facts.lot": "no", "data.clips.reverse.facts.lot": "no",
    "data.clips.with_reversals.facts.lot": "no", "data.clips.with_reversals.facts.artist": "no",
    "data.clips.reverse.facts.artist": "no", "tasks.cross_modal_alignment.meanings.concept": "no",
    "tasks.cross_modal_alignment.meanings.group": "no", "tasks.cross_modal_alignment.same_group_at_random.group":
        "no, shape 0", "data.digits.writing.decode.text": "shape 0, shape 1", "data.sound.to_wav.samples": "shape 0",
    "Digits.observe.noise_only": "length 0", "Digits.observe.noise_only.image": "length",
    "Digits.observe.missing": "length 0", "Digits.observe.missing.text": "length",
    "Scenes.draw.kinds": "length", "Utterances.observe.indices": "shape 0", "tasks.learner.Learner.steps": "no",
    "tasks.several_modalities.projected.out.w": "loud, shape 1",  # only their number counts
    "tasks.cross_modal_alignment.recall_at_1.artists": "length",
    "tasks.cross_modal_retrieval.Index.pictures": "shape 0, shape 2, shape 3",
    "RetrievalModel.forward.image": "shape 2, shape 3", "RetrievalModel.forward.attention_mask": "no",
    "RetrievalModel.encode_pictures.pictures": "shape 0, shape 2, shape 3",
    "RetrievalModel.encode_texts.texts": "length",
    "AnsweringModel.forward.attention_mask": "no",
    "tasks.a_reader_learns_to_see.placed.rows": "shape 1", "tasks.a_reader_learns_to_see.attention.tokens": "shape 0",
    "tasks.a_reader_learns_to_see.reach.tokens": "shape 0",
    "tasks.draw_me_a_seven.spelt.digit": "shape 0", "tasks.draw_me_a_seven.to_pixels.x": "shape 0",
    "tasks.draw_me_a_seven.nearer_to_green_hearts.x": "shape 0", "tasks.draw_me_a_seven.colour_pixels.x": "shape 0",
    "tasks.four_machines.put_back.A": "shape 0", "tasks.four_machines.put_back.a": "shape 0",
    "tasks.word_order.learner.exchanged": "length, length 0", "tasks.word_order.fits.texts": "length",
    **{f"Learner.train_step.{dial}": "no" for dial in ("tau", "alpha", "beta", "gamma")},  # None changes nothing
    "tasks.multimodal_sentiment.joint.without": "length, length 0", "tasks.multimodal_sentiment.late.without":
        "length, length 0", "tasks.multimodal_sentiment.late.seen.face": "loud",  # which is left out
    "tasks.multimodal_sentiment.joint.seen.face": "loud",
    "tasks.video_understanding.VideoModel.answers": "length", "tasks.video_understanding.learner.answers": "length",
    "tasks.video_understanding.cut_out.seen.frames": "shape 0", "tasks.video_understanding.flow.frames": "shape 0",
    "tasks.video_understanding.flow_rule.seen.frames": "shape 0",
    "tasks.video_understanding.neighbour.seen.frames": "shape 0",
    "tasks.video_understanding.blinded.seen.frames": "shape 0", "tasks.video_understanding.muted.seen.sound":
        "loud, shape 0", "tasks.vision_language_model.answer.picture": "shape 1, shape 2",
    "AnsweringModel.recognise.pictures": "shape 0", "tasks.visual_question_answering.by_pixels.pictures": "shape 0",
    "tasks.visual_question_answering.empty_or_not.pictures": "shape 0",
    "tasks.visual_question_answering.execute.seen": "loud",  # infinities compare
    "tasks.visual_question_answering.per_thing.right": "no, shape, shape 0, shape 1",  # any questions, any trainings
    "tasks.visual_question_answering.Answering.kinds": "length", "exercises.Case.args": "length, length 0",
    "exercises.Case.args[]": "no, any", "exercises.check.cases": "length",
    "exercises.Candidate.args": "length, length 0", "exercises.Candidate.args[]": "no, any",
    "exercises.separates.able": "length", "exercises.separates.unable": "length",
    "live.Card.picture": "shape, shape 1, shape 2",
    "live.Plot.levels": "length 0", "live.Plot.colours": "length 0", "live.Plot.colours.L": "length",
    "live.Training.plots": "length", "live.Training.sliders": "length 0", "live.Training.sliders.tau": "length",
    "live.chart.levels": "length 0", "live.chart.bands": "length 0", "live.chart.colours": "length 0",
    "live.film.frames": "shape 0, shape 2, shape 3", "live.strip.frames": "shape 2, shape 3, same",
    "live.strip.below": "same, shape 0, shape 1, no", "live.gallery.cards": "length, length 0",
    "live.picture.matrix": "shape 0, shape 1, no", "live.scatter.points": "same, no", "live.scatter.links":
        "length, length 0", "live.search_box.examples": "length, length 0", "live.shares.rows": "length, length 0",
    "live.table.rows": "length, length 0", "live.table.rows[][]": "length, no, same",
    "live.claims.values[]": "same, no",
    "intervals.interval.scores": "no, shape, shape 0, shape 1", "intervals.paired.scores": "no, shape",
    "intervals.paired.others": "no, shape, shape 0",  # answers are bool, trainings any number, questions their number
    "live.claims.line": "no", "live.claims.values": "no, length", "live.weights.presets": "length 0",
    "data.features.features.pictures": "length", "data.features.features.pictures[][]": "shape 1, shape 2",
    "data.features.features.batch": "no",  # one at a time gives the same
    "live.menu.options.a": "length", "live.buttons.options.a": "length",
    "intervals.resampled.columns": "no, any, shape, shape 0, same",  # one row a question, of any kind of number
    "OrderQuestions.squares.S": "loud, shape 0, shape 1, no, any", "Recognised.by_thing.right": "shape, no",
    "tasks.your_own_pictures.album.things": "length, length 0", "tasks.your_own_pictures.album.without":
        "length, length 0", "tasks.your_own_pictures.album.without[]": "no",  # not there
    "tasks.your_own_pictures.album.strip": "length, length 0",
    "tasks.your_own_pictures.by_source.heads": "length", "tasks.your_own_pictures.chance.positives":
        "shape 0, shape 1", "tasks.your_own_pictures.best_temperature.scores": "shape 1",
    "tasks.your_own_pictures.softmax_error.scores": "shape 1", "tasks.your_own_pictures.searches.features":
        "shape 0, shape 1", "tasks.stand_in.square.picture": "shape 1, shape 2",
    "tasks.stand_in.square.size": "no",
    "tasks.your_own_pictures.write_results.scores": "length 0", "tasks.your_own_pictures.write_results.scores.a":
        "length, no, same, any", "tasks.your_own_pictures.write_results.scores.b": "length, no",
    "Folder.pictures.size": "any, no",
    "tasks.seeds.over_seeds.results": "length", "tasks.seeds.over_seeds.results[].a":
        "no, any", "tasks.cross_modal_retrieval.found.ranked.there": "length, shape 0, no",
    "tasks.cross_modal_retrieval.found.ranked.back": "length, shape 0, no",
    "tasks.pixels.pixel_similarity.pictures": "shape 0",
    "tasks.pixels.framed.pictures": "shape 0, shape 2, shape 3",
    "tasks.pixels.pixel_similarity.known": "shape 0, shape 1",
    "CaptioningModel.forward.tokens": "shape 1", "CaptioningModel.spell.tokens": "shape 0",
    "CaptioningModel.words.tokens": "shape 0", "tasks.scoring.accuracy.scores": "loud, shape 1",  # infinities compare
    "tasks.several_modalities.accuracy_of.out.w": "loud", "tasks.multimodal_fusion.examine.conditions": "length",
    "tasks.multimodal_fusion.observe_all.noise_only": "no", "tasks.multimodal_fusion.observe_at.levels": "length 0",
    **{f"tasks.multimodal_fusion.{call}.levels.{m}": "length" for call in ("observe_at", "one_sample")
       for m in ("image", "sound")}, "tasks.multimodal_fusion.one_sample.levels": "length 0",
    **{f"tasks.multimodal_fusion.one_sample.{which}": "length, length 0" for which in ("noise_only", "missing")},
    "tasks.multimodal_fusion.product_rule.decisions": "length", "live.shares.rows[][][]": "same",
    "live.Plot.levels.('谁', 'who')": "length", "live.chart.levels.('谁', 'who')": "length",
    "live.chart.bands.('线', 'line')": "length", "live.chart.colours.('线', 'line')": "length",
    "live.weights.presets.('谁', 'who')": "length", "live.bars.colour": "no",
}


def free(call: str, part: str, outcome: str) -> bool:
    """May this come of it?"""
    return outcome in FREE.get(f"{call}.{part}", "").split(", ")


# -- what comes of it -------------------------------------------------------------------------------------------------

def parts(x: object) -> Iterator[object]:
    """All numbers, tensors and texts in a result."""
    if isinstance(x, Mapping):
        x = [*x.values()]
    elif isinstance(x, nn.Module):
        x = [*x.state_dict().values()]
    elif is_dataclass(x) and not isinstance(x, type):
        x = [getattr(x, field.name) for field in fields(x)]
    elif hasattr(x, "keeps"):
        x = [x.model]
    elif isinstance(x, torch.Generator):
        x = [x.get_state()]
    if isinstance(x, (list, tuple)):
        for one in x:
            yield from parts(one)
    else:
        yield x


def finite(result: object) -> bool:
    return all(bool(torch.as_tensor(x).isfinite().all()) for x in parts(result) if isinstance(x, (float, Tensor)))


def alike(a: object, b: object) -> bool:
    pairs = list(zip(parts(a), parts(b), strict=True))
    return all(close(x, y) for x, y in pairs if isinstance(x, (str, int, float, Tensor)))


def close(x: object, y: object) -> bool:
    if isinstance(x, str):
        return x == y
    x, y = torch.as_tensor(x).double(), torch.as_tensor(y).double()
    return x.shape == y.shape and torch.allclose(x, y, rtol=0.02, atol=0.02, equal_nan=True)


def called(call: Callable, given: dict) -> object:
    with learner.seeded(0):
        try:
            return call(**given)
        except Began:
            return "began"


@pytest.fixture(autouse=True)
def _no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*_: object) -> None:
        raise Began

    real = mmcore.training.optimize
    for module in list(sys.modules.values()):
        if getattr(module, "optimize", None) is real:
            monkeypatch.setattr(module, "optimize", begin)


def right(outcome: str, got: object, result: object) -> bool:
    """Is what came of a bad value as it may be?"""
    if outcome == SAME:
        return alike(got, result)
    if outcome == LOUD:
        return not finite(got)
    return outcome == HUGE or (outcome == ANY and (finite(got) or not finite(result)))


def small(given: dict) -> list[object]:
    """Copies of what a call could change of what it was given; of models, see `learned`."""
    return [x.clone() for x in parts([x for x in given.values() if not isinstance(x, nn.Module)])
            if isinstance(x, Tensor) and x.numel() < 1e5]


def learned(given: dict) -> list[Tensor]:
    models = [getattr(x, "model", x) for x in given.values()]
    return [x.clone() for model in models if isinstance(model, nn.Module) for x in model.state_dict().values()]


def judge(name: str, argument: str) -> Iterator[str]:
    """Call with every bad value; yields "" for what is right, and else what is wrong."""
    call, make = GOOD[name]
    result, models = called(call, make()), learned(make())
    optional = {p.name for p in parameters(name) if type(None) in (type(p.default), *typing.get_args(p.annotation))}
    for bad, outcome, part in spoiled(make()[argument], argument):
        if bad is None and part in optional:
            continue
        given, wrong = {**make(), argument: bad}, ""
        before = small(given)
        try:
            got = called(call, given)
        except (TypeError, ValueError, FloatingPointError) as error:
            zh, _, en = str(error).partition(" / ")
            if not (CHINESE.search(zh) and ENGLISH.search(en)):
                wrong = f"raw {type(error).__name__}: {error}"
            elif not alike(before, small(given)):
                wrong = "something has changed"
        except Exception as error:
            wrong = f"raw {type(error).__name__}: {error}"
        else:
            if not free(name, part, outcome) and not right(outcome, got, result):
                wrong = f"accepted ({outcome})"
        yield wrong and f"{name}({part}={str(bad)[:70]!r}): {wrong[:200]}"
    if not alike(models, learned(make())):
        yield f"{name}({argument}): a model has changed"


def parameters(name: str) -> list[inspect.Parameter]:
    """Of the function itself, even where GOOD calls it by way of an object."""
    owner, _, last = name.rpartition(".")
    call = GOOD[name][0]
    if owner[:1].isupper():
        home = next(x for module in list(sys.modules.values()) if module.__name__.startswith("mmlessons")
                    for x in vars(module).values() if inspect.isclass(x) and x.__name__ == owner)
        call = getattr(home, last)
    return [*inspect.signature(call).parameters.values()]


def test_everything_that_notebooks_use_has_a_good_call() -> None:
    assert used() <= set(GOOD)


@pytest.mark.parametrize("name", GOOD)
def test_the_good_call_is_good(name: str) -> None:
    call, make = GOOD[name]
    called(call, make())


@pytest.mark.parametrize(("name", "argument"), [(name, a) for name, (_, make) in GOOD.items() for a in make()])
def test_a_bad_argument_gets_a_clear_error_or_the_right_result(name: str, argument: str) -> None:
    wrong = list(filter(None, judge(name, argument)))
    assert not wrong, "\n".join(wrong)
