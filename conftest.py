"""每次测试共同的环境，以及让 nbval 认识的前端 / The environment all tests share, and the front end nbval learns from.

This file lies at the root because pytest must read it for notebooks/ as well as for tests/.
"""

import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
sys.path.insert(0, str(ROOT / "tests"))  # so that `harness` can be imported before any test is collected

# Kernels inherit these: one thread repeats to the last bit, no person is watching, no hub is reached.
os.environ.update(
    OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false",
    MM_LIVE="0", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1",
    PYDEVD_DISABLE_FILE_VALIDATION="1", PYTHONUTF8="1",
)  # fmt: skip
os.environ.pop("JPY_SESSION_NAME", None)
# Each lesson runs three times (nbval, a fresh kernel, a browser); what it trains in the background is trained once.
RESULTS = None if "MM_RESULTS" in os.environ else tempfile.mkdtemp(prefix="mm-results-")
os.environ.setdefault("MM_RESULTS", RESULTS or "")


def pytest_configure(config):
    config.addinivalue_line("markers", "browser: needs JupyterLab and Chromium")
    # nbval hands every kernel an open /dev/null and closes none; jupyter_client leaves its sockets to the collector
    config.addinivalue_line("filterwarnings", "ignore:unclosed.*:ResourceWarning")
    config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnraisableExceptionWarning")
    if config.getoption("nbval", False):
        from harness import front_end

        front_end.install()


def pytest_unconfigure(config):
    if RESULTS:
        shutil.rmtree(RESULTS, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """一课在一个内核、一个浏览器里：各是一份活 / One lesson in one kernel or browser is one piece of work.

    Any other file of tests is one piece too.
    """
    from xdist.scheduler import LoadFileScheduling

    class ByLesson(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file, _, test = nodeid.partition("::")
            lesson = re.search(r"\[(\d\d_\w+)", test)
            apart = lesson and file.endswith(("test_browser.py", "test_notebooks.py"))
            return f"{file} {lesson[1]}" if apart else file

    return ByLesson(config, log)


def pytest_collection_finish(session):
    """Build matplotlib's font cache before a kernel does it and says so on stderr, a differing output."""
    if any(item.path.suffix == ".ipynb" for item in session.items):
        import matplotlib.font_manager  # noqa: F401
