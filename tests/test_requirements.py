"""装什么 / What is installed: one list of versions for every place, and without an NVIDIA card nothing of CUDA."""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mmlessons.doctor import TRIED

ROOT = Path(__file__).parents[1]
CUDA = re.compile(r"(cuda|nvidia|triton)\b")


def lines(file: str) -> list[str]:
    return [line for line in (ROOT / file).read_text("utf-8").splitlines() if line and not line.startswith("#")]


PINS = [Requirement(line) for line in lines("constraints.txt")]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def pinned(name: str) -> str:
    return next(str(pin.specifier).removeprefix("==") for pin in PINS if pin.name == name)


def test_every_version_is_pinned_and_satisfies_the_bounds_of_the_package() -> None:
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in PINS)
    extras = PROJECT["optional-dependencies"]
    for wanted in map(Requirement, [*PROJECT["dependencies"], *extras["lab"], *extras["test"]]):
        found = [pin for pin in PINS if pin.name == wanted.name]
        assert found, f"{wanted.name} is not in constraints.txt"
        assert all(wanted.specifier.contains(str(pin.specifier).removeprefix("==")) for pin in found), wanted


@pytest.mark.parametrize("file", ["requirements-cpu.txt", ".binder/requirements.txt"])
def test_without_an_nvidia_card_the_same_pytorch_is_taken_from_its_builds_for_a_processor(file: str) -> None:
    wanted = [Requirement(line) for line in lines(file) if not line.startswith("-")]
    assert {each.name: str(each.specifier) for each in wanted} == {
        name: f"=={pinned(name)}+cpu" for name in ("torch", "torchvision")}
    assert [line for line in lines(file) if line.startswith("--find-links")] == [
        f"--find-links https://download.pytorch.org/whl/cpu/{name}/" for name in ("torch", "torchvision")]


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-cpu.txt", ".binder/requirements.txt"])
def test_what_cuda_needs_is_pinned_and_never_asked_for(file: str) -> None:
    assert any(CUDA.match(pin.name) for pin in PINS)
    assert [line for line in lines(file) if CUDA.match(line)] == []


def test_the_cpu_list_is_the_full_list_and_both_take_their_versions_from_one_place() -> None:
    assert lines("requirements.txt") == ["-c constraints.txt", "-e .[lab,test]"]
    assert "-r requirements.txt" in lines("requirements-cpu.txt")
    assert "-c ../constraints.txt" in lines(".binder/requirements.txt")


@pytest.mark.skipif(os.name == "nt", reason="Binder is Linux")
def test_binder_saves_panels_with_a_notebook(tmp_path: Path) -> None:
    environment = {**os.environ, "NB_PYTHON_PREFIX": str(tmp_path)}
    subprocess.run([ROOT / ".binder/postBuild"], cwd=ROOT, env=environment, check=True)
    settings = json.loads((tmp_path / "share/jupyter/lab/settings/overrides.json").read_text("utf-8"))
    assert settings == json.loads((ROOT / "docs/jupyterlab/overrides.json").read_text("utf-8"))


def test_binder_and_the_dev_container_have_a_python_that_was_tried() -> None:
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text("utf-8"))
    found = {(ROOT / ".binder/runtime.txt").read_text("utf-8").strip().removeprefix("python-"),
             container["image"].partition(":")[2]}
    assert len(found) == 1
    oldest, newest = TRIED
    assert oldest <= tuple(map(int, found.pop().split("."))) <= newest
    assert container["postCreateCommand"].endswith("pip install -r requirements-cpu.txt")
