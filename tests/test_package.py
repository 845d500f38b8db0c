"""包的样子 / What the package is like as a whole."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import mmcore

ROOT = Path(mmcore.__file__).parent
BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
LAYERS = [
    "checks", "background", "checkpoints", "text", "data", "ranking", "encoders", "generation", "alignment",
    "vision_language", "fusion", "cell_attention", "temporal", "training",
    "vision_language_training", "applications", "machine"]


def test_importing_mmcore_loads_torch_and_nothing_heavier() -> None:
    heavy = ["torchvision", "transformers", "tokenizers", "sklearn", "matplotlib", "ipywidgets", "IPython", "PIL"]
    program = ("import torch, sys; before = set(sys.modules); import mmcore; "
               f"print([m for m in {heavy} if m in set(sys.modules) - before])")
    assert subprocess.check_output([sys.executable, "-c", program], text=True).strip() == "[]"


def test_every_name_mmcore_promises_is_there() -> None:
    for name in mmcore.__all__:
        assert getattr(mmcore, name).__name__ == name
    with pytest.raises(AttributeError, match="mmcore has no 'Nonsense'"):
        mmcore.Nonsense  # noqa: B018


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mmcore"):
            inside = node.module.removeprefix("mmcore").lstrip(".")
            found |= {inside.split(".")[0]} if inside else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 2 and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_imports_point_one_way() -> None:
    """checks、text → data → 公式与模块 → 训练 → 应用；live 只认识 checks / and live knows checks alone."""
    for path in ROOT.rglob("*.py"):
        home = path.relative_to(ROOT).parts[0].removesuffix(".py")
        if path.stem == "build":
            home = LAYERS[-1]  # a script that makes data with whatever it needs; nothing imports it
        if home in LAYERS:
            above = imports(path) & {*LAYERS[LAYERS.index(home) + 1:], "live", "lesson"}
            assert not above, f"{path.name} imports {above} from a layer above it"
        elif home in ("live", "lesson"):
            assert imports(path) <= {"checks", home}


def test_every_public_docstring_is_in_both_languages() -> None:
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
                text = ast.get_docstring(node) or ""
                public = not getattr(node, "name", "module").startswith("_")
                if text and public:
                    assert any("一" <= c <= "鿿" for c in text), f"{path.name}: {text[:60]}"
                    assert any("a" <= c.lower() <= "z" for c in text), f"{path.name}: {text[:60]}"


@pytest.mark.parametrize("name", sorted(p.stem for p in BENCHMARKS.glob("*.py") if p.stem[0] != "_"))
def test_a_benchmark_still_fits_the_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS.parent)
    importlib.import_module(f"benchmarks.{name}")
