"""笔记本提交时的样子 / The notebooks as committed.

That each prints the same when it is run is nbval's part (`pytest notebooks`).
"""

import ast
import json
import re
import subprocess
import sys

import nbformat
import pytest

from tests.notebooks import stored


@pytest.mark.parametrize("check", stored.CHECKS, ids=lambda check: check.__name__)
def test_as_committed(notebook, check):
    assert not list(check(nbformat.read(notebook, 4))), check.__doc__


def test_is_valid_and_small_enough_for_a_repository(notebook):
    nbformat.validate(nbformat.read(notebook, 4))
    assert notebook.stat().st_size < 1.5e6


def tagged(path, tag):
    return [cell.source for _, cell in stored.code(nbformat.read(path, 4)) if tag in cell.metadata.get("tags", [])]


# One process for a lesson; every program starts from what the setup cells left.
RUN_ALONE = """
import json, sys
setup, programs = json.load(sys.stdin)
start = {}
exec("\\n".join(setup), start)
verdicts = []
for program in programs:
    before = dict(start)
    exec(program, start)  # in the very names that the functions of the setup cells know
    verdict = start["verdict"]
    start.clear()
    start.update(before)
    verdicts.append(verdict.ok)
    if verdict.ok != (len(verdicts) % 2 == 1):
        print(verdict.en)
print(json.dumps(verdicts))
"""


def test_the_published_solution_of_each_exercise_passes_and_the_blank_one_gets_a_hint(notebook):
    """标签 setup、exercise、check 的格子可以单独运行 / Cells tagged setup, exercise and check run on their own."""
    solutions = [s for text in stored.prose_cells(notebook)
                 for s in re.findall(r"<details.*?```python\n(.*?)```.*?</details>", text, re.DOTALL)]
    exercises, checks = tagged(notebook, "exercise"), tagged(notebook, "check")
    assert len(solutions) == len(exercises) == len(checks)
    assert checks or notebook not in stored.WORKSHOPS
    if not checks:
        return
    programs = []
    for solution, blank, check in zip(solutions, exercises, checks, strict=True):
        *before, verdict = ast.parse(check).body  # the verdict is the last expression of the cell
        lines = "\n".join([*map(ast.unparse, before), f"verdict = {ast.unparse(verdict)}"])
        programs += [f"{answer}\n{lines}" for answer in (solution, blank)]
    run = subprocess.run([sys.executable, "-c", RUN_ALONE], input=json.dumps([tagged(notebook, "setup"), programs]),
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout.splitlines()[-1]) == [True, False] * len(checks), run.stdout + run.stderr
