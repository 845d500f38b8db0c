"""一个班的后台结果，先算好 / The background results of a class, computed beforehand.

    python -m makers.results results          # all lessons
    python -m makers.results results 02 06    # these two

Runs the lessons from top to bottom with nobody watching, as they are, so that their trainings in the background have
exactly the arguments that a student's will have. Their results stay in the folder, for whoever sets MM_RESULTS to it;
the notebooks are not changed. With more cores, MM_WORKERS=8 in front of the command trains eight at a time. Run it
again whenever the lessons or their packages have changed.

把各课原样从头到尾运行一遍，没有人在看，所以后台训练的参数与学生的完全相同。结果留在这个文件夹里，MM_RESULTS 指到哪里，
就从哪里读；笔记本不变。核多的机器，在命令前面写上 MM_WORKERS=8，就八个一起训练。课或软件包变了，再运行一次。
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = sorted(Path(__file__).parents[1].glob("notebooks/*.ipynb"))


def compute(folder: Path, chosen: Sequence[str], notebooks: Sequence[Path] = NOTEBOOKS) -> None:
    """运行所选的课 / Run the lessons chosen, all of them if none is."""
    unknown = [each for each in chosen if not any(path.stem.startswith(each) for path in notebooks)]
    if unknown:
        raise SystemExit(f"没有这一课：{' '.join(unknown)}；写文件名开头的数字，例如 06 / no such lesson: "
                         f"{' '.join(unknown)}; give the first digits of a file name, such as 06")
    environment = os.environ | {"MM_RESULTS": str(folder.resolve()), "MM_LIVE": "0"}
    environment.pop("JPY_SESSION_NAME", None)
    folder.mkdir(parents=True, exist_ok=True)
    for path in notebooks:
        if not chosen or path.stem.startswith(tuple(chosen)):
            began, before = time.monotonic(), len(list(folder.glob("*.pt")))
            NotebookClient(nbformat.read(path, 4), timeout=None, resources={"metadata": {"path": str(path.parent)}}
                           ).execute(env=environment)
            now = len(list(folder.glob("*.pt")))
            print(f"{path.stem:<34s} {time.monotonic() - began:>5.0f} s   +{now - before}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="where the results go")
    parser.add_argument("lessons", nargs="*", help="the first digits of their names; all if none is given")
    given = parser.parse_args()
    compute(given.folder, given.lessons)
