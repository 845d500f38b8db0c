"""文档里的例子 / The examples in the docstrings."""

import doctest
import importlib
from pathlib import Path

import pytest

import mmcore

MODULES = sorted(path.stem for path in Path(mmcore.__file__).parent.glob("[!_]*.py"))


@pytest.mark.parametrize("name", MODULES)
def test_every_example_of_a_docstring_gives_what_it_shows(name: str) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    assert doctest.testmod(importlib.import_module(f"mmcore.{name}"), optionflags=flags).failed == 0
