"""公式、图、练习的核对本身 / The checks of formulas, diagrams and exercises themselves."""

import importlib
import json
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import mmcore
from mmcore import lesson

HERE = Path(__file__).parent
NOTEBOOKS = sorted((HERE.parent / "notebooks").glob("*.ipynb"))


def docstring_formulas() -> dict[str, list[str]]:
    """整个 mmcore 的公式，编号 → 各处的写法 / Every formula in mmcore: tag → how it is written, place by place."""
    found: dict[str, list[str]] = {}
    for module in pkgutil.walk_packages(mmcore.__path__, "mmcore."):
        if module.name.rpartition(".")[2] not in ("build", "fonts_build"):
            for thing in vars(importlib.import_module(module.name)).values():
                if getattr(thing, "__module__", None) == module.name and thing.__doc__:
                    for tag, body in lesson.formulas(thing.__doc__).items():
                        found.setdefault(tag, []).append(body)
    return found


def markdown(path: Path) -> list[str]:
    return ["".join(c["source"]) for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "markdown"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_formula_of_a_notebook_is_the_one_in_the_docstring(path: Path) -> None:
    written = docstring_formulas()
    shown = {tag: body for text in markdown(path) for tag, body in lesson.formulas(text).items()}
    assert shown, "a lesson shows at least one tagged formula"
    for tag, body in shown.items():
        assert written.get(tag) == [body], f"({tag}) in {path.name} differs from the docstring"


def test_every_formula_has_one_home_and_a_test_by_explicit_loops() -> None:
    marked = set()
    for path in HERE.glob("test_*.py"):
        marked |= set(re.findall(r'@pytest\.mark\.formula\("([\d.]+)"\)', path.read_text("utf-8")))
    written = docstring_formulas()
    assert [tag for tag, places in written.items() if len(places) != 1] == []
    assert set(written) == marked


# -- diagrams ---------------------------------------------------------------------------------------------------------

W = nn.Linear(4, 3, bias=False)


def forward(image: Tensor, ids: Tensor) -> dict[str, Tensor]:
    f_v = W(image)
    f_t = torch.nn.functional.one_hot(ids, 3).float()  # no gradient flows through ids
    h = torch.empty(2, 3)
    h[:] = f_v + f_t  # in place
    L = (h * f_v.detach()).sum()
    return {"f_v": f_v, "f_t": f_t, "h": h, "L": L}


INPUTS = {"image": torch.ones(2, 4), "ids": torch.tensor([0, 2])}
TRUE = """flowchart LR
    image["图像 / image --> (B, 4)"] --> f_v("特征 / feature") --> h
    ids --> f_t
    f_t --> h --> L
    f_v --> L"""


def test_a_true_diagram_holds_through_token_ids_in_place_writes_and_detached_tensors() -> None:
    assert lesson.drawn_arrows(TRUE) == lesson.computed_arrows(forward, INPUTS)


@pytest.mark.parametrize(("old", "new"), [("    ids --> f_t\n", ""), ("f_t --> h", "f_t --> f_v"),
                                          ("f_v --> L", "ids --> L")])
def test_a_diagram_that_says_more_or_less_than_the_code_is_caught(old: str, new: str) -> None:
    assert old in TRUE
    assert lesson.drawn_arrows(TRUE.replace(old, new)) != lesson.computed_arrows(forward, INPUTS)


@pytest.mark.parametrize("line", ["A -.-> B", "A & B --> C", "A ==> B", "subgraph X", "A --> "])
def test_a_line_the_diagram_check_cannot_read_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="cannot read this line of the diagram"):
        lesson.drawn_arrows("flowchart LR\n" + line)


def test_a_write_through_a_view_is_seen() -> None:
    def through_view(image: Tensor) -> dict[str, Tensor]:
        out = torch.zeros(2, 4)
        out[0].copy_(image[0])
        return {"out": out}
    assert lesson.computed_arrows(through_view, {"image": torch.ones(2, 4)}) == {("image", "out")}


# -- exercises --------------------------------------------------------------------------------------------------------

CASES = [lesson.Case((2,), 4.0, "二的平方", "two squared"), lesson.Case((3,), 9.0, "三的平方", "three squared")]
HINT = ("乘以自己", "times itself")


@pytest.mark.parametrize(("answer", "ok", "says"), [
    (lambda x: x * x, True, "all 2 checks passed"),
    (lambda x: None, False, "No answer yet. Hint: times itself"),
    (lambda x: 2 * x, False, "three squared: expected 9, got 6. Hint: times itself"),
    (lambda x: 1 / 0, False, "your code raised ZeroDivisionError"),
    (lambda x: "four", False, "expected one number, got str"),
    (lambda x: torch.ones(2), False, "expected one number, got Tensor"),
    (lambda x: float("nan"), False, "expected 4, got nan"),
])
def test_an_exercise_says_what_is_wrong_and_never_raises(answer: object, ok: bool, says: str) -> None:
    verdict = lesson.check(answer, CASES, HINT)
    assert verdict.ok is ok
    assert says in verdict.en
    assert verdict.zh
    assert "<script>" not in lesson.Verdict(False, "<script>", "<script>")._repr_html_()


def code(path: Path, tag: str) -> list[str]:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    return ["".join(c["source"]) for c in cells if tag in c["metadata"].get("tags", [])]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_published_solution_of_each_exercise_passes_and_the_blank_one_gets_a_hint(path: Path) -> None:
    """标签 setup、exercise、check 的格子可以单独运行 / Cells tagged setup, exercise and check run on their own."""
    solutions = [s for text in markdown(path)
                 for s in re.findall(r"<details.*?```python\n(.*?)```.*?</details>", text, re.DOTALL)]
    exercises, checks = code(path, "exercise"), code(path, "check")
    assert len(solutions) == len(exercises) == len(checks) > 0
    for solution, blank, check in zip(solutions, exercises, checks, strict=True):
        *lines, last = check.strip().rsplit("\n\n", 1)  # the verdict is the last paragraph of the cell
        program = "\n".join([*code(path, "setup"), "{answer}", *lines, f"verdict = {last}\nprint(verdict.ok)"])
        for answer, expected in ((solution, "True"), (blank, "False")):
            run = subprocess.run([sys.executable, "-c", program.replace("{answer}", answer)],
                                 capture_output=True, text=True, check=False)
            assert run.stdout.strip().endswith(expected), run.stdout + run.stderr
