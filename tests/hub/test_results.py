"""先算好的结果 / Results computed beforehand."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from makers import results

ROOT = Path(__file__).parents[2]
RUN = "from mmlessons.workers import Background; work = Background(divmod, [(7, 2), (9, 4)]); await work.results()"


@pytest.fixture
def lesson(tmp_path):
    path = tmp_path / "lessons/01_one.ipynb"
    path.parent.mkdir()
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(RUN)]), path)
    return path


@pytest.mark.skipif(os.name != "posix", reason="no umask here")
def test_a_lesson_leaves_its_results_as_the_umask_asks_and_is_not_changed_itself(lesson, tmp_path, capsys):
    before, old = lesson.read_bytes(), os.umask(0o027)
    try:
        results.compute(tmp_path / "new/results", ["01"], [lesson])
    finally:
        os.umask(old)
    kept = list((tmp_path / "new/results").iterdir())
    assert [stat.S_IMODE(path.stat().st_mode) for path in kept] == [0o640, 0o640]
    assert stat.S_IMODE((tmp_path / "new/results").stat().st_mode) == 0o750
    assert "+2" in capsys.readouterr().out
    assert [path.read_bytes() for path in lesson.parent.iterdir()] == [before]
    results.compute(tmp_path / "new/results", [], [lesson])
    assert "+0" in capsys.readouterr().out


def test_a_lesson_that_is_not_there_is_refused_before_anything_runs(lesson, tmp_path):
    with pytest.raises(SystemExit, match=r"没有这一课：09；.* / no such lesson: 09;"):
        results.compute(tmp_path / "results", ["01", "09"], [lesson])
    assert not (tmp_path / "results").exists()


def test_the_configuration_says_what_to_do_where_nothing_was_computed(tmp_path):
    pytest.importorskip("jupyterhub")
    done = subprocess.run([sys.executable, "-m", "jupyterhub", f"--config={ROOT / 'docs/jupyterhub_config.py'}"],
                          cwd=tmp_path, env=os.environ | {"MM_RESULTS": str(tmp_path / "none"),
                                                          "PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert done.returncode != 0
    assert f"python -m makers.results {tmp_path / 'none'}" in done.stderr
