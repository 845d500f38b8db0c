"""第 12 课遇上各种文件夹：从头到尾走完，写出成绩 / Lesson 12 on folders of many kinds: to its end, with results.

The code cells run one after another with an untrained stand-in and a few steps, so the scores mean nothing here.

代码一格一格地运行，替身没有训练，只走几步，所以这里的成绩没有意义。
"""

import ast
import asyncio
import csv
import inspect
import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import nbformat
import pytest

from mmlessons import intervals, workers
from mmlessons.live.output import Output
from mmlessons.tasks import stand_in
from mmlessons.tasks import your_own_pictures as own
from tests.notebooks import stored

PAGE = next(path for path in stored.LESSONS if path.stem == "12_your_own_pictures")
ROW = dict[str, str]


class Ready:
    """In place of `Background`, so that no process starts and nothing is learned for long."""

    def __init__(self, job: Callable, arguments: list) -> None:
        self.weights = [job(*row, steps=1) for row in arguments]

    async def results(self) -> list[stand_in.Weights]:
        return self.weights


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return own.write_folder(tmp_path_factory.mktemp("drawings") / "all")


@pytest.fixture(scope="module")
def rows(drawings: Path) -> list[ROW]:
    with (drawings / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["text"] and row["source"]]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM_LIVE", "0")
    monkeypatch.setattr(workers, "Background", Ready)
    monkeypatch.setattr(intervals, "DRAWS", 20)
    monkeypatch.setattr(own, "learner", lambda photos, steps=2, seed=0: LEARNER(photos, min(steps, 2), seed))
    monkeypatch.setattr(own, "searches", lambda features, count: SEARCHES(features, 100, queries=5))


LEARNER, SEARCHES = own.learner, own.searches


def run_page(**lines: str) -> tuple[dict, list]:
    """What the cells leave behind, and what they display; `lines` are put in place of the assignments of the page."""
    names, shown, lines = {}, [], {"LONGER": "2", **lines}
    names["display"] = shown.append
    for _, cell in stored.code(nbformat.read(PAGE, 4)):
        if cell.get("id") == "install":
            continue
        tree = ast.parse(cell.source)
        for line in tree.body:
            if isinstance(line, ast.Assign) and getattr(line.targets[0], "id", "") in lines:
                line.value = ast.parse(lines[line.targets[0].id], mode="eval").body
        found = eval(compile(tree, cell.id, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        if inspect.isawaitable(found):
            asyncio.run(found)
    return names, shown


def labels(rows: list[ROW], source: Path, to: Path) -> None:
    """One folder for each label, without a table."""
    for row in rows:
        name = row["text"].removeprefix("a ")
        if name in ("dog", "cat", "car"):
            (to / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(source / row["file_name"], to / name)


def table(rows: list[ROW], source: Path, to: Path, every: int, columns: list[str], sources: int = 4,
          said: str = "text") -> None:
    """One picture of every so many, with these columns, by the first artists."""
    to.mkdir()
    artists = list(stand_in.SPLIT)[:sources]
    files = list(dict.fromkeys(row["file_name"] for row in rows if row["source"] in artists))[::every]
    with (to / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            if row["file_name"] in files:
                shutil.copy(source / row["file_name"], to)
                writer.writerow(row | {"text": row[said]})


FOLDERS = {  # how the folder is made, what the reader writes into the page, and whether there are things to ask about
    "labels": (labels, {}, True),
    "one source": (partial(table, every=4, columns=["file_name", "text"], sources=1), {}, True),
    "Chinese captions": (partial(table, every=8, columns=["file_name", "text", "source"], said="text_zh"),
                         {"LANGUAGE": "'zh'"}, False),
    "Chinese captions, with things": (
        partial(table, every=8, columns=["file_name", "text", "source"], said="text_zh"),
        {"LANGUAGE": "'zh'", "THINGS": "['狗', '猫', '车']"}, True),
    "no source": (partial(table, every=8, columns=["file_name", "text"]), {}, True),
    "thirty pictures": (partial(table, every=42, columns=["file_name", "text", "source"]), {}, False)}


@pytest.mark.parametrize("kind", FOLDERS)
def test_the_page_comes_to_its_end_and_writes_results(kind: str, rows: list[ROW], drawings: Path, tmp_path: Path,
                                                      quick: None) -> None:
    make, lines, asks = FOLDERS[kind]
    make(rows, drawings, tmp_path / "mine")
    names, shown = run_page(FOLDER=repr(str(tmp_path / "mine")), **lines)
    assert (len(names["photos"].things) > 1) == asks
    said = "".join(x.html for x in shown if isinstance(x, Output))
    assert ("这一节跳过" in said and "this section is skipped" in said) == (not names["order_scores"])
    assert ("No names of things could be guessed" in said) == (not asks)
    report = json.loads((tmp_path / "mine-results.json").read_text("utf-8"))
    assert {"pictures", "R@1 chance", "R@1 frozen", "R@1 cca", "R@1 pixels"} < set(report)
    assert not (tmp_path / "results.json").exists()


def test_five_pictures_are_too_few_and_the_page_says_how_many_it_needs(rows: list[ROW], drawings: Path, tmp_path: Path,
                                                                       quick: None) -> None:
    table(rows, drawings, tmp_path / "mine", 250, ["file_name", "text"])
    with pytest.raises(ValueError, match=r"至少要 8 幅训练.* / scores need 8 pictures for training"):
        run_page(FOLDER=repr(str(tmp_path / "mine")))


def test_the_written_folder_runs_with_chinese_captions(quick: None) -> None:
    names, _ = run_page(LANGUAGE="'zh'")
    assert len(names["photos"].things) == 30
    assert names["written"].name == "drawings-results.json"
