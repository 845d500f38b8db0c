"""所有测试共同的环境，与 nbval 共用的运行 / What all tests share: the environment, and with nbval a run of each lesson.

This file lies at the root because pytest must read it for notebooks/ as well as for tests/.
"""

import os
import re
import shutil
import tempfile

import pytest

# Kernels inherit these: one thread unless MM_THREADS says more, no person is watching, no hub is reached.
THREADS = os.environ.get("MM_THREADS", "1")
os.environ.update(
    OMP_NUM_THREADS=THREADS, MKL_NUM_THREADS=THREADS, OPENBLAS_NUM_THREADS=THREADS, TOKENIZERS_PARALLELISM="false",
    MM_LIVE="0", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1",
    PYDEVD_DISABLE_FILE_VALIDATION="1", PYTHONUTF8="1",
)  # fmt: skip
os.environ.pop("JPY_SESSION_NAME", None)
# Each lesson runs twice (in a fresh kernel and in a browser); what it trains in the background is trained once.
RESULTS = None if "MM_RESULTS" in os.environ else tempfile.mkdtemp(prefix="mm-results-")
os.environ.setdefault("MM_RESULTS", RESULTS or "")


def pytest_configure(config):
    config.addinivalue_line("markers", "browser: needs JupyterLab and Chromium")
    # jupyter_client leaves its sockets to the collector
    config.addinivalue_line("filterwarnings", "ignore:unclosed.*:ResourceWarning")
    config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnraisableExceptionWarning")
    if config.getoption("nbval", False):
        from tests.harness import replay

        replay.install()


def pytest_unconfigure(config):
    if RESULTS:
        shutil.rmtree(RESULTS, ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """一课在一个内核里、在一个浏览器里，各是一份活 / A lesson in a kernel is one piece of work; in a browser, another.

    Any other file of tests is one piece too.
    """
    from xdist.scheduler import LoadFileScheduling

    class ByLesson(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file, lesson = nodeid.partition("::")[0], re.search(r"\b\d\d_\w+", nodeid)
            if lesson and file.endswith(("test_notebooks.py", ".ipynb")):
                return lesson[0]  # tests/test_notebooks.py and nbval look at the same run
            return f"{file} {lesson[0]}" if lesson and file.endswith("test_browser.py") else file

    return ByLesson(config, log)


def pytest_collection_finish(session):
    """Build matplotlib's font cache before a kernel does it and says so on stderr, a differing output."""
    if any(item.path.suffix == ".ipynb" for item in session.items):
        import matplotlib.font_manager  # noqa: F401
