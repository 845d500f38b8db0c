"""所有测试共同的环境，和活儿的先后 / What all tests share: the environment, and the order of the work.

This file lies at the root because pytest must read it for notebooks/ as well as for tests/. The notebooks need nothing
of it: a plain `pytest --nbval` on a copy of one runs it as it is.
"""

import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

# Kernels inherit these: one thread unless MM_THREADS says more, no person is watching, no network (tests/startup).
THREADS = os.environ.get("MM_THREADS", "1")
STARTUP = str(Path(__file__).parent / "tests/startup")
os.environ.update(
    OMP_NUM_THREADS=THREADS, MKL_NUM_THREADS=THREADS, OPENBLAS_NUM_THREADS=THREADS, TOKENIZERS_PARALLELISM="false",
    MM_LIVE="0", HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", PYDEVD_DISABLE_FILE_VALIDATION="1", PYTHONUTF8="1",
    PYTHONPATH=os.pathsep.join(filter(None, [STARTUP, os.environ.get("PYTHONPATH")])),
)  # fmt: skip
os.environ.pop("JPY_SESSION_NAME", None)
# A lesson runs twice, under nbval and in a browser; what it trains in the background is trained once and kept here.
OWN = None if "MM_RESULTS" in os.environ else tempfile.mkdtemp(prefix="mm-results-")
os.environ.setdefault("MM_RESULTS", OWN or "")
NETWORK = Path(os.environ.setdefault("MM_NETWORK_LOG", f"{tempfile.gettempdir()}/mm-network-{os.getpid()}"))


def pytest_configure(config):
    config.addinivalue_line("markers", "browser: needs JupyterLab and Chromium")
    # jupyter_client leaves its sockets to the collector
    config.addinivalue_line("filterwarnings", "ignore:unclosed.*:ResourceWarning")
    config.addinivalue_line("filterwarnings", "ignore::pytest.PytestUnraisableExceptionWarning")


def piece(nodeid):
    """What one worker does in one go: a notebook, a lesson in the browser, or a file of tests."""
    file, lesson = nodeid.partition("::")[0], re.search(r"\b\d\d[a-z]?_\w+", nodeid)
    return f"{file} {lesson[0]}" if lesson and file.endswith("test_browser.py") else file


def pytest_collection_modifyitems(items):
    """Lessons first, each some way before its own visit in the browser, and while others are visited."""
    def turn(item):
        lesson = re.search(r"\b(\d\d)[a-z]?_\w+", piece(item.nodeid))
        return (2 * int(lesson[1]) + (0 if item.path.suffix == ".ipynb" else 5)) if lesson else 1000
    items.sort(key=turn)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """By `piece`. (xdist's own groups rename tests by their `_nodeid`, which pytest 9.2 no longer reads.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByPiece(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return piece(nodeid)

    config.option.loadscopereorder = False  # keep the order above
    return ByPiece(config, log)


def pytest_collection_finish(session):
    """Build matplotlib's font cache before a kernel does it and says so on stderr, a differing output."""
    if any(item.path.suffix == ".ipynb" for item in session.items):
        import matplotlib.font_manager  # noqa: F401


def pytest_sessionfinish(session):
    """Any process that tried to leave the machine fails the whole run."""
    if not hasattr(session.config, "workerinput") and NETWORK.exists():
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    if NETWORK.exists():
        terminalreporter.section("FAILED: something tried to leave the machine")
        terminalreporter.write(NETWORK.read_text("utf-8"))


def pytest_unconfigure(config):
    if OWN:  # as in the process that the user started, and not in its workers
        shutil.rmtree(OWN, ignore_errors=True)
        NETWORK.unlink(missing_ok=True)
