"""房子的样子：箭头只朝一个方向，导入是轻的 / The house as a whole: arrows point one way, and importing is light."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mmcore

ROOT = Path(__file__).parents[1]
MMCORE = [  # each imports only what stands before it
    {"checks"}, {"tiles", "training", "ranking", "tokens", "checkpoints"}, {"pretrained"},
    {"fusion", "alignment", "recurrence", "decoder", "encoders", "flow", "reporting"},
    {"attention", "distributed", "word_order", "projector", "shares"}, {"vision_language"}, {"__init__"}]
ABOVE = {"mmcore": {"mmlessons", "makers", "examples", "notebooks", "IPython", "ipywidgets", "matplotlib"},
         "mmlessons": {"makers", "examples", "notebooks"}}
WRITTEN = [path for folder in ("mmcore", "mmlessons", "examples") for path in (ROOT / folder).rglob("*.py")]


def imported(code: str) -> set[str]:
    """Every module that some code imports, dotted."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level < 2, f"import {node.module} by its full name"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} if node.level == 0 else set()
    return found


@pytest.mark.parametrize("package", ABOVE)
def test_no_package_imports_what_stands_above_it(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        tops = {name.partition(".")[0] for name in imported(path.read_text("utf-8"))}
        assert not tops & ABOVE[package], path


def test_inside_mmcore_formulas_do_not_import_upwards() -> None:
    order = {name: row for row, names in enumerate(MMCORE) for name in names}
    assert set(order) == {path.stem for path in (ROOT / "mmcore").glob("*.py")}
    for name, row in order.items():
        for other in imported((ROOT / f"mmcore/{name}.py").read_text("utf-8")):
            package, module = (*other.split("."), "")[:2]
            assert package != "mmcore" or order.get(module, 0) < row, f"{name} imports {other}"


def test_an_example_stands_on_the_two_packages_and_on_what_they_share() -> None:
    for path in (ROOT / "examples").glob("*.py"):
        tops = {name.partition(".")[0] for name in imported(path.read_text("utf-8"))} - sys.stdlib_module_names
        assert tops <= {"common", "mmcore", "mmlessons", "numpy", "torch", "tqdm"}, path


def test_live_knows_of_mmcore_only_how_errors_are_said() -> None:
    known = ("mmcore.checks", "mmlessons.border", "mmlessons.intervals", "mmlessons.live")
    for path in (ROOT / "mmlessons/live").glob("*.py"):
        ours = {name for name in imported(path.read_text("utf-8")) if name.startswith("mm")}
        assert all(name.startswith(known) for name in ours), path


def test_a_notebook_imports_the_two_packages_and_what_they_stand_on() -> None:
    for path in (ROOT / "notebooks").rglob("*.ipynb"):
        cells = json.loads(path.read_text("utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        tops = {name.partition(".")[0] for name in imported(code)} - sys.stdlib_module_names
        assert tops <= {"mmcore", "mmlessons", "torch", "transformers"}, path


def test_importing_mmcore_loads_torch_and_nothing_heavier() -> None:
    heavy = ["torchvision", "transformers", "tokenizers", "sklearn", "matplotlib", "ipywidgets", "IPython", "PIL"]
    program = ("import torch, sys; before = set(sys.modules); import mmcore; "
               f"print([m for m in {heavy} if m in set(sys.modules) - before])")
    assert subprocess.check_output([sys.executable, "-c", program], text=True, cwd=ROOT).strip() == "[]"


def test_every_name_mmcore_promises_is_there() -> None:
    for name in mmcore.__all__:
        assert getattr(mmcore, name).__name__ == name
    with pytest.raises(AttributeError, match="mmcore has no 'Nonsense'"):
        mmcore.Nonsense  # noqa: B018


def documented(tree: ast.AST) -> Iterator[str]:
    """The docstring of a module and of everything public in it."""
    yield ast.get_docstring(tree) or ""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_"):
            yield from documented(node)


def test_every_public_docstring_is_in_both_languages() -> None:
    for path in WRITTEN:
        for text in filter(None, documented(ast.parse(path.read_text("utf-8")))):
            assert any("一" <= c <= "鿿" for c in text), f"{path.name}: {text[:60]}"
            assert any("a" <= c.lower() <= "z" for c in text), f"{path.name}: {text[:60]}"


def test_no_two_classes_share_a_name() -> None:
    homes: dict[str, str] = {}
    for path in WRITTEN:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef):
                assert homes.setdefault(node.name, str(path)) == str(path), (node.name, homes[node.name], path)
