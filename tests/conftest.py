"""所有笔记本的清单 / The list of notebooks: a test that takes `notebook` runs for each, and a new one needs no line."""

import pytest

from tests.notebooks.stored import NOTEBOOKS, label


@pytest.fixture(scope="module", params=NOTEBOOKS, ids=label)
def notebook(request):
    """The path of one lesson or workshop."""
    return request.param
