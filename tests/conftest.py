"""所有课程的清单 / The list of lessons: a test that takes `notebook` runs for each; a new lesson needs no line here."""

import pytest

from tests.notebooks.stored import NOTEBOOKS


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    """The path of one lesson."""
    return request.param
