"""写下的命令都跑得起来 / Every command that a page or a docstring names is run, in a small form.

They are found by reading README.md, docs/, the cards of the data, examples/README.md and the docstrings of mmlessons,
makers, examples and benchmarks. A command that nobody says how to make small fails here.
"""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import nbformat
import pytest

from benchmarks import notebooks

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
HERE = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]), "PYTHONUTF8": "1"}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("mmlessons/data/*/CARD.md")),
         ROOT / "examples/README.md"]
MODULES = sorted(path for folder in ("mmlessons", "makers", "examples", "benchmarks")
                 for path in (ROOT / folder).rglob("*.py"))
PROGRAM = re.compile(r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?"
                     r"(python3?|pip|uv|npm|apt|apt-get|pytest|jupyter|jupyterhub|ruff)(?= [^ /·]|$)")
INSTALLS = {"pip", "uv", "npm", "apt", "apt-get"}  # they change the machine and need a network
OURS = re.compile(r"(tests|notebooks|mmcore|mmlessons|examples)(/|$)")  # how a path of ours begins
SETTING = re.compile(r"[A-Z_]+=")
UNKNOWN = "how is it made small? "
EXTRAS = {"resvg_py", "fontTools", "sklearn", "jupyterhub", "libcst", "mutmut"}  # imported by what an extra is for


def texts() -> dict[Path, str]:
    """What a reader reads: whole pages, and of a module its docstrings."""
    found = {path: path.read_text("utf-8") for path in PAGES}
    for path in MODULES:
        nodes = [node for node in ast.walk(ast.parse(path.read_text("utf-8")))
                 if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))]
        found[path] = "\n\n".join(ast.get_docstring(node) or "" for node in nodes)
    return found


def commands() -> dict[str, Path]:
    """Command → where it stands: lines of bash blocks, indented lines, and `code` of more than a name."""
    found: dict[str, Path] = {}
    for path, text in texts().items():
        text = text.replace("\\\n", " ")
        blocks = re.findall(r"^```bash\n(.*?)^```", text, re.M | re.S)
        text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
        lines = [line for block in blocks for line in block.splitlines()]
        lines += re.findall(r"^ {4,}(\S.*)$", text, re.M)
        lines += [code for code in re.findall(r"`([^`\n]+)`", text) if " " in code or "/" in code]
        for line in lines:
            for command in re.split(r" && ", re.sub(r" +#.*", "", line.strip())):
                if PROGRAM.match(command):
                    found.setdefault(" ".join(command.split()), path)
    return found


COMMANDS = commands()


def small(command: str) -> str | None:
    """The same command made small; None for one that only installs."""
    program, words = PROGRAM.match(command)[1], command.split()
    if program in INSTALLS or " -m venv " in command:
        return None
    if program == "pytest":  # are its options good? the suite itself runs without us
        kept = " ".join(word for word in words if not OURS.match(word) and not SETTING.match(word))
        return f"{kept} --collect-only -q -n0 tests/test_house.py"
    if program == "jupyter" and "nbconvert" in words:
        return re.sub(r"notebooks/\d\d_\w+\.ipynb", "notebooks/00_start_here.ipynb", command)
    if program == "jupyter":
        return f"{command} --version"
    if program == "jupyterhub":  # tests/hub starts a real one
        return "python -m jupyterhub --version"
    if program == "ruff":
        return f"{command} --help"
    if re.search(r"-m benchmarks( |$)", command):  # its other half is tested below
        return "python -m benchmarks ratios --quick"
    if match := re.match(r"(?:\.venv/bin/)?python -m (benchmarks|makers|tests)(\.\w+)+", command):
        return f"{match[0]} --help"
    if match := re.match(r"(?:\.venv/bin/)?python examples/\w+\.py", command):
        return f"python {match[0].split()[1]} --steps 2 --batch 8 --out OUT"
    return f"{UNKNOWN}{command}"


def test_the_reading_finds_the_commands_that_we_know() -> None:
    for known in ("python3 -m venv .venv", ".venv/bin/pytest", "python -m benchmarks", "python -m makers.views",
                  "python -m makers.emoji node_modules"):
        assert known in COMMANDS
    assert any("nbconvert" in command for command in COMMANDS)


def test_a_file_or_a_folder_that_a_command_names_is_there() -> None:
    named = {word for command in COMMANDS for word in command.split() if OURS.match(word)}
    assert [word for word in sorted(named) if not (ROOT / word.partition("::")[0]).exists()] == []


SMALL = sorted({short for command in COMMANDS if (short := small(command))})


@pytest.mark.parametrize("command", SMALL)
def test_a_command_runs(command: str, tmp_path: Path) -> None:
    assert not command.startswith(UNKNOWN), "say in small(), above, how this command is run in a small form"
    words = shlex.split(command)
    setting = dict(word.split("=", 1) for word in words if SETTING.match(word))
    program, *arguments = [str(tmp_path) if word == "OUT" else word for word in words if not SETTING.match(word)]
    name = Path(program).name
    if "--inplace" in arguments:  # on a copy
        (tmp_path / "notebooks").mkdir()
        notebook = next(word for word in arguments if word.endswith(".ipynb"))
        (tmp_path / notebook).write_bytes((ROOT / notebook).read_bytes())
    done = subprocess.run([sys.executable if name.startswith("python") else str(BIN / name), *arguments],
                          cwd=tmp_path if "--inplace" in arguments else ROOT, capture_output=True, text=True,
                          env={**HERE, **setting}, timeout=300)
    missing = re.search(r"No module named '?(\w+)", done.stderr)
    if missing and missing[1] in EXTRAS:
        pytest.skip(f"{missing[1]} is an extra that is not installed")
    assert done.returncode == 0, done.stderr[-2000:]


def test_the_time_and_memory_of_a_lesson_are_those_of_its_kernel(tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell("import time; held = bytearray(400_000_000); time.sleep(1)")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "one.ipynb")
    seconds, most = notebooks.run(tmp_path / "one.ipynb")
    assert seconds > 1
    assert 0.4 < most < 1  # GB; nbconvert itself is not counted


def test_an_extra_that_is_named_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    named = {name for command in COMMANDS for name in re.findall(r"\.\[(\w+)\]", command)}
    assert named <= set(extras)
    assert named


def test_the_lines_of_python_in_the_readme_find_drawings_by_their_names() -> None:
    program = re.search(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)[1]
    assert len([line for line in program.splitlines() if line]) <= 11
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=HERE, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    wanted = {"watermelon": "🍉", "cherries": "🍒", "bicycle": "🚲", "crescent moon": "🌙", "telephone": "☎"}
    found = dict(line.split(" → ") for line in done.stdout.splitlines())
    assert sum(char in found[name] for name, char in wanted.items()) >= 3  # chance: 0.1
