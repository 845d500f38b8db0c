"""在 Colab 的版本上运行课程 / Run lessons on the versions that Colab has.

    python3.13 -m tests.notebooks.colab           # lessons 00 and 06
    python3.13 -m tests.notebooks.colab 03 05

As on Colab the lessons are not installed at first: the first cell does it, here from the files that are committed in
this repository and not from its address. nbval then compares every output with the one that is stored. The Python that
runs this is the one that is used, and Colab's is 3.13. It downloads some 3 GB, which is why it is no part of the tests.

像在 Colab 上一样，课程起初没有装上，由第一格来装：这里装的是本仓库已提交的文件，不经过网上的地址。然后 nbval 把每个输出
与存着的相比。用哪个 Python 运行它，课程就用哪个，Colab 的是 3.13。要下载约 3 GB，所以它不在测试里。
"""

import argparse
import os
import subprocess
import tempfile
import tomllib
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
# pip-freeze.txt of github.com/googlecolab/backend-info, 19 August 2026, as far as the lessons use it
VERSIONS = [
    "huggingface_hub==1.27.0", "ipykernel==6.17.1", "ipython==7.34.0", "ipywidgets==7.7.1", "jupyter_client==7.4.9",
    "jupyter_core==5.9.1", "matplotlib==3.10.0", "matplotlib-inline==0.2.2", "nbformat==5.11.1", "numpy==2.1.3",
    "packaging==26.3", "pillow==11.3.0", "psutil==5.9.5", "pyzmq==26.2.1", "safetensors==0.8.0",
    "scipy==1.16.3", "tokenizers==0.22.2", "torch==2.11.0", "torchvision==0.26.0", "tornado==6.5.7", "traitlets==5.7.1",
    "transformers==5.15.0",
]
BESIDE = ["nbval==0.11.0", "pytest==9.2.0"]  # what compares


def run(lessons: Sequence[str]) -> int:
    """返回 nbval 的退出码 / The exit code of nbval."""
    address = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["urls"]["Repository"]
    with tempfile.TemporaryDirectory() as folder:
        here, python = Path(folder, "lessons"), f"{folder}/venv/bin/python"
        venv.create(f"{folder}/venv", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *VERSIONS, *BESIDE], check=True)
        before = installed(python)
        here.mkdir()
        (here / "pytest.ini").write_text("[pytest]\n", "utf-8")
        subprocess.run(["git", "archive", "-o", here / "main.zip", "HEAD"], cwd=ROOT, check=True)
        for path in ROOT.glob("notebooks/*.ipynb"):
            if path.stem[:2] in lessons:
                notebook = path.read_text("utf-8").replace(f"{address}/archive/refs/heads", str(here))
                (here / path.name).write_text(notebook, "utf-8")
        code = subprocess.run(
            [python, "-m", "pytest", "--nbval", "--nbval-current-env", "--nbval-cell-timeout=900", "-ra"], cwd=here,
            env={**os.environ, "COLAB_RELEASE_TAG": "1", "MM_LIVE": "0", "OMP_NUM_THREADS": "1", "PYTHONPATH": "",
                 "PYDEVD_DISABLE_FILE_VALIDATION": "1"}).returncode
        after = installed(python)
    print("the first cell installed", *sorted(after - before), "and replaced", *sorted(before - after) or ["nothing"])
    return code


def installed(python: str) -> set[str]:
    """每个包和它的版本 / Every package with its version."""
    return set(subprocess.check_output([python, "-m", "pip", "freeze", "--exclude", "mmcore"], text=True).splitlines())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="run lessons on the versions that Colab has")
    parser.add_argument("lessons", nargs="*", default=["00", "06"], help="the first digits of their names")
    raise SystemExit(run(parser.parse_args().lessons))
