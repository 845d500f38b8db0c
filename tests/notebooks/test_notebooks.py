"""笔记本：提交的样子、干净的一次运行、每个控件 / The lessons: as committed, run afresh, with every widget moved.

That the printed text is what the same run prints is nbval's part (`pytest notebooks`).
"""

import nbformat
import pytest

from tests.harness import NOTEBOOKS, claims, comparisons, fresh, stored

WIDGET = "application/vnd.jupyter.widget-view+json"


def test_there_are_lessons():
    assert NOTEBOOKS


@pytest.mark.parametrize("check", stored.CHECKS, ids=lambda check: check.__name__)
def test_as_committed(notebook, check):
    assert not list(check(nbformat.read(notebook, 4))), check.__doc__


def test_what_the_prose_compares_is_held_by_an_assert_or_needs_none(notebook):
    assert not comparisons.sort(nbformat.read(notebook, 4), notebook.stem)[2], "harness/comparisons.py"


def test_no_comparison_stands_beside_an_assert_that_is_never_made(run, notebook):
    made = {claim["cell"] for claim in run.claims}
    held = comparisons.sort(run.stored, notebook.stem)[0]
    assert not [(i, held[i]) for i, _, cell in run.cells if i in held and cell.execution_count not in made]


def test_small_enough_for_a_repository(notebook):
    assert notebook.stat().st_size < 1.5e6


def test_is_valid(notebook):
    nbformat.validate(nbformat.read(notebook, 4))


@pytest.fixture(scope="module")
def run(notebook):
    return fresh.run(notebook)


def test_runs_from_any_folder_without_errors(run):
    errors = [
        (i, output.get("ename"), output.get("evalue", output.get("text")))
        for i, _, cell in run.cells
        for output in cell.outputs
        if output.get("name") == "stderr"
        or (output.output_type == "error" and "raises-exception" not in cell.metadata.get("tags", []))
    ]
    assert not errors


def test_needs_no_network(run):
    assert not run.network


def test_the_list_of_claims_is_what_the_lesson_asserts(run, notebook):
    listed, now = claims.stored(notebook), [line.rstrip() for line in claims.section(run)]
    listed = [line.rstrip() for line in listed if line.strip()]
    now = [line for line in now if line]
    wrong = [(a, b) for a, b in zip(listed, now, strict=False) if not claims.alike(a, b)]
    assert (len(listed), wrong) == (len(now), []), "python tests/claims.py"


def test_stores_the_output_of_every_cell_that_has_one(run):
    assert not [i for i, old, new in run.cells if bool(old.outputs) != bool(new.outputs)]


def test_stored_figures_are_what_a_fresh_run_draws(run):
    wrong = []
    for i, old, new in run.cells:
        before, now = fresh.pictures(old), fresh.pictures(new)
        if len(before) != len(now):
            wrong.append(f"cell {i}: {len(before)} stored figures, {len(now)} fresh ones")
            continue
        differences = [fresh.difference(one, other) for one, other in zip(before, now, strict=True)]
        wrong += [f"cell {i}: {difference:.2f} of the ink differs" for difference in differences if difference > 0.25]
    assert not wrong


def test_every_widget_can_be_moved(run):
    """把每个控件拨到两端、填入奇怪的文字 / Each to its ends, each option, each button, each text also as rubbish."""
    assert not run.widget_problems
    assert run.moves or not any(WIDGET in o.get("data", {}) for _, _, cell in run.cells for o in cell.outputs)


def test_no_widget_hides_an_error(run):
    assert not run.held_errors
