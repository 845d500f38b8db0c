"""笔记本里的公式，是文档里的公式 / The formulas of the notebooks are those of the docstrings."""

import importlib
import pkgutil
import re
from functools import cache
from pathlib import Path

import pytest

import mmcore
from tests.notebooks.formulas import formulas
from tests.notebooks.stored import LESSONS, NOTEBOOKS, label, prose_cells

TESTS = Path(__file__).parents[1]
NEXT = TESTS.parent / "docs/where_next.md"


@cache
def written() -> dict[str, list[str]]:
    """Every formula in the docstrings of mmcore: tag → how it is written, place by place."""
    found: dict[str, list[str]] = {}
    for module in pkgutil.walk_packages(mmcore.__path__, "mmcore."):
        for thing in vars(importlib.import_module(module.name)).values():
            if getattr(thing, "__module__", None) == module.name and thing.__doc__:
                for tag, body in formulas(thing.__doc__).items():
                    found.setdefault(tag, []).append(body)
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=label)
def test_every_formula_of_a_notebook_is_the_one_in_the_docstring(path: Path) -> None:
    shown = {tag: body for text in prose_cells(path) for tag, body in formulas(text).items()}
    assert bool(shown) == (path in LESSONS), "a lesson shows at least one tagged formula, and the start page none"
    for tag, body in shown.items():
        assert written().get(tag) == [body], f"({tag}) in {path.name} differs from the docstring"


def test_every_formula_has_one_home_and_a_test_by_explicit_loops() -> None:
    marked = set()
    for path in TESTS.rglob("test_*.py"):
        marked |= set(re.findall(r'@pytest\.mark\.formula\("([\d.]+)"\)', path.read_text("utf-8")))
    assert [tag for tag, places in written().items() if len(places) != 1] == []
    assert set(written()) == marked


def test_where_next_has_one_row_for_each_formula_beside_the_name_that_computes_it() -> None:
    rows = [line.partition("<br>")[0] for line in NEXT.read_text("utf-8").splitlines() if line.startswith("| (")]
    listed = [(re.findall(r"\(([\d.]+)\)", row), re.findall(r"`(\w+)`", row)) for row in rows]
    assert sorted(tag for tags, _ in listed for tag in tags) == sorted(written()), "docs/where_next.md: a row each"
    for tags, (name,) in listed:
        assert list(formulas(getattr(mmcore, name).__doc__)) == tags, name


@pytest.mark.parametrize("text", [r"$$a \tag{2.1a}$$", r"$$a \tag*{2.1}$$", r"$a \tag{2.1}$", r"$$a \tag{2.1} b$$",
                                  r"$$a \tag{2.1}$$ $$b \tag {2.2}$$"])
def test_a_number_the_formula_check_cannot_read_is_no_formula_unchecked(text: str) -> None:
    with pytest.raises(ValueError, match=r"could be read; write \$\$formula \\tag\{2.1\}\$\$"):
        formulas(text)


def test_one_number_for_two_formulas_is_refused_and_the_same_formula_twice_is_not() -> None:
    assert formulas("$$a  +b \\tag{2.1}$$ and again $$a\n+b \\tag{2.1}$$") == {"2.1": "a +b"}
    with pytest.raises(ValueError, match=r"the number 2.1 stands for two formulas: a and b"):
        formulas(r"$$a \tag{2.1}$$ $$b \tag{2.1}$$")
