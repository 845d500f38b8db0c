"""每课的第一格：在 Colab、Kaggle 上安装，在别处不动 / The first cell: installs on Colab and Kaggle, and nowhere else.

And everything that says where this repository is to be found says the same.
"""

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from tests.notebooks import stored

ROOT = Path(__file__).parents[2]
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]
README = (ROOT / "README.md").read_text("utf-8")
FIRST = [stored.code(nbformat.read(path, 4))[0][1] for path in stored.NOTEBOOKS]
SOURCE = FIRST[0].source
EVERYWHERE = ("COLAB_RELEASE_TAG", "KAGGLE_KERNEL_RUN_TYPE")


def test_every_lesson_begins_with_the_same_folded_cell():
    assert {cell.source for cell in FIRST} == {SOURCE}
    assert all(cell.metadata["jupyter"]["source_hidden"] and not cell.outputs for cell in FIRST)


@pytest.fixture
def run(monkeypatch):
    """Run the cell somewhere; `run.started` is what it would have started."""
    for name in EVERYWHERE:
        monkeypatch.delenv(name, raising=False)

    def run(*, installed, place=None, returns=0):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if installed else None)
        monkeypatch.setattr(subprocess, "run", lambda words: run.started.append(words) or SimpleNamespace(
            returncode=returns))
        if place:
            monkeypatch.setenv(place, "1")
        exec(SOURCE, {})

    run.started = []
    return run


@pytest.mark.parametrize("place", [None, *EVERYWHERE])
def test_where_the_lessons_are_installed_it_does_nothing(run, place):
    run(installed=True, place=place)
    assert run.started == []


def test_at_home_without_the_lessons_it_says_what_to_do_and_installs_nothing(run):
    with pytest.raises(ModuleNotFoundError, match=r"照 README 的第一条命令安装.* / .*the first command of the README"):
        run(installed=False)
    assert run.started == []


@pytest.mark.parametrize("place", EVERYWHERE)
def test_on_colab_and_kaggle_it_installs_this_repository_into_its_own_python(run, place):
    run(installed=False, place=place)
    assert run.started == [[sys.executable, "-m", "pip", "install", "-qq", f"{ADDRESS}/archive/refs/heads/main.zip"]]


def test_an_installation_that_fails_is_said_in_both_languages(run):
    with pytest.raises(OSError, match=r"没有装上.* / Not installed.*Internet"):
        run(installed=False, place="KAGGLE_KERNEL_RUN_TYPE", returns=1)


def test_the_readme_opens_every_lesson_in_colab_and_binder_from_the_same_address():
    owner_and_name = ADDRESS.removeprefix("https://github.com/")
    opened = re.findall(r"\(https://colab\.research\.google\.com/github/(\S+?\.ipynb)\)", README)
    wanted = [f"{owner_and_name}/blob/main/notebooks/{path.name}" for path in (stored.DOOR, *stored.LESSONS)]
    assert sorted(opened) == wanted
    assert f"(https://mybinder.org/v2/gh/{owner_and_name}/main?urlpath=lab/tree/notebooks/{stored.DOOR.name})" in README
