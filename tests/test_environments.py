"""别处的 Python / Python elsewhere: warnings that are errors, no asserts, other encodings, Chinese in a path."""

import importlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import mmlessons
from mmlessons import exercises, workers

ROOT = Path(__file__).parents[1]
EVERYTHING = """
import importlib, os, pathlib, pkgutil
import torch
import mmcore, mmlessons
from mmcore import *

for package in (mmcore, mmlessons):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
print(os.fsencode(pathlib.Path(mmcore.__file__).parents[1].name).decode("utf-8"))

CrossModalAligner((8, 6), "cpu", projection_dim=4).train_step(torch.randn(5, 8), torch.randn(5, 6))
fusing = MultimodalFusionTrainer(MultimodalFusion([3, 5], 4), "cpu", num_classes=2)
fusing.train_step([torch.ones(2, 3), torch.ones(2, 5)], torch.tensor([0, 1]))
seeing = VLMTrainer(VisualLanguageModel(num_classes=2, feature_dim=8), "cpu")
names, hints = seeing.model.name_tokens(["apple", "苹果"], ["en", "zh"]), ["fruit", "水果"]
seeing.train_step(torch.rand(2, 3, 32, 32), **seeing.model.text_encoder.tokenize(hints), labels=torch.tensor([0, 1]),
                  name_ids=names)
kept = mmcore.checkpoints.save(fusing.model, "kept", {"学到": "图"})
print(mmcore.checkpoints.load(fusing.model, kept)["学到"])

from mmlessons import exercises, live
from mmlessons.data import views
from mmlessons.tasks import *
tasks = mmlessons.tasks
experts = {task: task.separately(1, device="cpu") for task in (tasks.multimodal_fusion, tasks.multimodal_sentiment)}
learners = [*experts.values(), *(task.together(made.model, 1, device="cpu") for task, made in experts.items()),
            tasks.vision_language_model.learner(tasks.vision_language_model.load(), 1, device="cpu"),
            tasks.cross_modal_alignment.learner(views.load(), device="cpu"),
            tasks.visual_question_answering.learner(1, device="cpu"),
            tasks.image_captioning.learner(1, 1, batch=8, device="cpu"),
            tasks.cross_modal_retrieval.learner(mmlessons.data.emoji.load(), 1, device="cpu"),
            tasks.video_understanding.learner(steps=1, batch=8, count=16, device="cpu")]
for learner in learners:
    learner.train_step()

def refused(call, *arguments, **named):  # what is wrong must be refused by more than an assert
    try:
        call(*arguments, **named)
    except (TypeError, ValueError):
        return
    raise SystemExit(f"not refused: {call}")
refused(MultimodalFusion([3, 5], 4), [torch.ones(2, 3)])
refused(CrossModalAlignment(8), torch.ones(2, 7), torch.ones(2, 8))
refused(live.table, ["a"], [["b", "c"]])

print(live.table([("一", "one"), "🍎"], [["✓", "→"]], title=("表", "table")))
print(exercises.check(lambda: 1, [exercises.Case((), 1.0, "一", "one")], ("始", "start"), ("示", "hint")))
"""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}  # so are files, unless one says otherwise


@pytest.mark.parametrize(("options", "environment", "encoding"), [
    (["-W", "error"], {}, "utf-8"), (["-O"], {**ASCII, "PYTHONIOENCODING": "gbk"}, "gbk")],
    ids=["warnings are errors", "no asserts, files ASCII, output GBK"])
def test_everything_imports_and_every_trainer_takes_a_step_in_a_folder_with_chinese_characters_and_a_space(
        options: list[str], environment: dict[str, str], encoding: str, tmp_path: Path) -> None:
    home = tmp_path / "新 课"
    for package in ("mmcore", "mmlessons"):
        shutil.copytree(ROOT / package, home / package, ignore=shutil.ignore_patterns("__pycache__"))
    (home / "program.py").write_text(EVERYTHING, "utf-8")
    done = subprocess.run([sys.executable, *options, "program.py"], cwd=home, capture_output=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1", **environment})
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    folder, note, *_, verdict = done.stdout.decode(encoding).splitlines()
    assert (folder, note) == ("新 课", "图")
    assert verdict == f"[{'✓' if encoding == 'utf-8' else 'v'}] 1 项检查全部通过 / all 1 checks passed"


CASE = exercises.Case((), 1.0, "一", "one")
VERDICTS = [exercises.check(lambda got=got: got, [CASE], ("始", "start"), ("示", "hint")) for got in (1.0, 2.0, None)]


@pytest.mark.parametrize(("encoding", "sign", "arrow", "fruit"), [
    ("utf-8", "✓", "→", "🍉"), ("gbk", "v", "→", "?"), ("cp1252", "v", "->", "?"), ("ascii", "v", "->", "?")])
def test_an_output_of_another_encoding__a_verdict_is_printed_with_a_plain_sign(
        encoding: str, sign: str, arrow: str, fruit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", output)
    importlib.reload(mmlessons)
    workers._say_once.__wrapped__()
    print(*VERDICTS, sep="\n")
    print("watermelon", "→", "🍉")
    output.flush()
    store, passed, wrong, empty, found = output.buffer.getvalue().decode(encoding).splitlines()
    assert store.endswith(" / MM_RESULTS: some results cannot be kept or read; training as usual")
    assert passed.startswith(f"[{sign}] ")
    assert passed.endswith(" / all 1 checks passed")
    assert wrong.endswith(" / one: expected 1, got 2. Hint: hint")
    assert empty.endswith(" / No answer yet. start")
    assert found == f"watermelon {arrow} {fruit}"
