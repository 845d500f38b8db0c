"""看一遍机器：缺什么就说什么，什么也不泄露 / A look at the machine: what is missing is named, nothing private told."""

import getpass
import re
import socket
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mmlessons import doctor as machine

ROOT = Path(machine.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
HERE = {"numpy": "2.4.6", "torch": "2.15.0+cpu", "torchvision": "0.29.2", "pillow": "13.0.0"}
WANTED = [Requirement(line) for line in ("numpy>=2.2", "torch>=2.14", "torchvision>=0.29", "pillow>=11")]


def look_at_packages(here=None, wanted=WANTED, **replaced):
    here = HERE if here is None else here

    def version(name):
        if name not in here:
            raise metadata.PackageNotFoundError(name)
        return here[name]

    return machine.packages(wanted, version, **{"find": lambda name: object(), "load": lambda file: None} | replaced)


def test_this_machine_which_runs_the_tests_will_do():
    findings = machine.look(live=False)
    assert [f for f in findings if f.todo and f.what[1] not in ("memory", "processor", "Python", "panel of a training")
            ] == []
    for finding in findings:
        assert all(text for text in (*finding.what, *finding.found))
        assert len(finding.row()) == 3


def test_nothing_private_is_told(monkeypatch):
    monkeypatch.setenv("VSCODE_CWD", "/secret/place")
    findings = machine.look(live=False)
    told = " ".join(str(finding.row()) for finding in findings)
    for secret in (socket.gethostname(), str(Path.home()), str(ROOT), "/secret/place"):
        assert secret not in told
    assert re.search(rf"\b{re.escape(getpass.getuser())}\b", told) is None
    assert "/" not in told.replace(" / ", "")  # no path at all


def test_the_verdict_counts_what_is_to_be_done():
    good = machine.Finding(("一", "one"), ("好", "fine"))
    bad = machine.Finding(("二", "two"), ("坏", "broken"), ("修", "fix it"))
    assert machine.verdict([good, good]) == ("都好了，可以上课。", "All is well: the lessons will run here.")
    assert "2" in machine.verdict([bad, good, bad])[1]
    assert good.row() == [("一", "one"), ("好", "fine"), "✓"]
    assert bad.row()[2] == ("→ 修", "→ fix it")


@pytest.mark.parametrize(("version", "says"), [
    ((3, 10, 12), "install Python 3.11 to 3.14"), ((3, 11, 0), None), ((3, 14, 8), None), ((3, 15, 0), "not tried")])
def test_python_too_old_or_not_tried(version, says):
    finding = machine.python(version)
    assert finding.todo is None if says is None else says in finding.todo[1]


def test_the_pythons_that_were_tried_are_those_of_the_readme_and_of_pip():
    oldest, newest = (".".join(map(str, version)) for version in machine.TRIED)
    assert f"(Python {oldest} – {newest})" in (ROOT / "README.md").read_text("utf-8")
    assert PROJECT["requires-python"] == f">={oldest}"


def test_the_packages_are_those_of_pyproject():
    assert [str(each) for each in machine.wanted_packages()] == PROJECT["dependencies"]


def test_packages_of_an_extra_or_of_another_system_are_not_asked_for(monkeypatch):
    lines = ["numpy>=2.2", 'ruff>=0.15 ; extra == "test"', 'pywin32 ; sys_platform == "none"',
             'torch ; python_version > "3"']
    monkeypatch.setattr(machine.metadata, "requires", lambda name: lines)
    assert [each.name for each in machine.wanted_packages()] == ["numpy", "torch"]

    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(machine.metadata, "requires", nothing)
    missing = machine.packages(machine.wanted_packages())
    assert (missing.found[1], missing.todo) == ("mmcore is not installed", machine.INSTALL)


@pytest.mark.parametrize(("here", "says"), [
    (HERE, None),
    ({**HERE, "torch": "2.14"}, None),
    ({**HERE, "torch": "2.15.0.dev20261101"}, None),
    ({name: HERE[name] for name in HERE if name != "numpy"}, "numpy is missing"),
    ({**HERE, "torch": "2.9.1"}, "torch 2.9.1 is too old, 2.14 is needed"),  # 2.9 is below 2.14
    ({}, "numpy is missing; torch is missing; torchvision is missing; pillow is missing"),
])
def test_a_missing_or_old_package_is_named_with_what_to_do(here, says):
    finding = look_at_packages(here)
    if says is None:
        assert finding.todo is None
    else:
        assert says in finding.found[1]
        assert "pip install -r requirements.txt" in finding.todo[1]


def test_a_package_that_cannot_be_found_is_named_by_the_name_it_is_imported_by():
    asked = []
    finding = look_at_packages(find=lambda name: asked.append(name) or (None if name == "PIL" else object()))
    assert "PIL" in asked
    assert finding.found[1] == "pillow was installed and cannot be found"


def test_a_torchvision_that_does_not_fit_torch_is_named(tmp_path):
    (tmp_path / "_C.so").write_bytes(b"")
    package = type("Spec", (), {"submodule_search_locations": [str(tmp_path)]})

    def load(file):
        assert file.endswith("_C.so")
        raise OSError(f"undefined symbol in {file}")

    finding = look_at_packages(find=lambda name: package, load=load)
    assert "torchvision 0.29.2 does not fit torch" in finding.found[1]
    assert str(tmp_path) not in str(finding)


def test_every_data_set_is_looked_at():
    folders = {path.parent.name for path in (ROOT / "mmlessons/data").glob("*/CARD.md")}
    assert set(machine.loaders()) == folders
    assert machine.data_sets(machine.loaders()).todo is None


def test_damaged_data_are_named_without_their_folder():
    def damaged():
        raise ValueError("数据文件 a.png 已损坏 / the data file a.png is damaged")

    def unreadable():
        raise PermissionError(13, "no", "/secret/place")

    finding = machine.data_sets({"digits": damaged, "emoji": dict, "views": unreadable})
    assert finding.found == ("digits：数据文件 a.png 已损坏；views：读不出来（PermissionError）",
                             "digits: the data file a.png is damaged; views: cannot be read (PermissionError)")
    assert finding.todo


def test_a_font_that_is_missing_or_no_font(tmp_path):
    assert machine.font(machine.FONT).todo is None
    assert machine.font(tmp_path / "none.ttf").todo
    (tmp_path / "page.ttf").write_text("<html>")
    assert machine.font(tmp_path / "page.ttf").todo


def test_little_memory_and_one_core_are_said_and_a_gpu_is_never_needed():
    assert [machine.memory(gigabytes).todo is None for gigabytes in (0.5, 2.0, 4.0)] == [False, False, True]
    assert machine.cores(2).todo is None
    assert machine.cores(1).found[1] == "1 core"
    assert "twice the time" in machine.cores(1).todo[1]
    for gpu, said in ((None, "none is needed"), ("CUDA", "a GPU (CUDA); it is not needed")):
        assert said in machine.nothing_more(gpu).found[1]
        assert machine.nothing_more(gpu).todo is None


@pytest.mark.parametrize(("live", "environment", "modules", "says", "todo"), [
    (True, {}, {}, "sliders act on the next step", False),
    (False, {}, {}, "nobody is watching", False),
    (False, {"VSCODE_PID": "1"}, {}, "VS Code", True),
    (True, {"VSCODE_PID": "1"}, {}, "sliders act", False),  # JupyterLab, started in a terminal of VS Code
    (False, {"VSCODE_PID": "1"}, {}, "not tried there", True),
    (False, {}, {"google.colab": None}, "Google Colab: three lessons ran with the versions that Colab has", True),
    (True, {"COLAB_RELEASE_TAG": "x"}, {}, "Google Colab", True),
    (False, {"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, {}, "Kaggle", True),
])
def test_where_the_notebook_was_opened(live, environment, modules, says, todo):
    finding = machine.place(live, environment, modules)
    assert says in finding.found[1]
    assert bool(finding.todo) == todo
