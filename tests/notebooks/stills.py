"""控件的静止画面，存在笔记本里 / A still picture of every widget, stored in the notebook.

    python -m tests.notebooks.stills 00 06      # all of them if none is named

On GitHub, in a file that is not trusted and before the first run there is no widget to see. So every output that would
be a widget and nothing else holds a picture as well: what the run that is stored left there, shown by a real browser
from the state in the notebook. Nothing is run again. nbval compares no pictures.

在 GitHub 上、在不受信任的文件里、在第一次运行之前，控件都看不见。所以凡是只有控件的输出，都另存一幅画：由真的浏览器按
笔记本里的状态画出，就是所存的那次运行留下的样子，什么也不重新运行。nbval 不比较图画。
"""

import argparse
import base64
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import nbformat
from nbformat.sign import NotebookNotary
from PIL import Image

from tests.notebooks.lab import Lab
from tests.notebooks.stored import NOTEBOOKS, widgets_alone

SIZE = (1000, 3000)  # pixels of the window: the pictures fit GitHub's column, and the highest is seen whole
COLOURS = 32
MOVES = "静止的画面，运行笔记本以后就能动 · a still picture, which moves once the notebook has been run"
ALT = "控件的静止画面 · a still picture of the controls"
STYLE = ".jupyter-widgets-disconnected::before { display: none !important; }"  # no kernel is behind them, for once
FIND = """([cell, output, line]) => {
    const node = lab.output(cell, output);
    if (line) node.insertAdjacentHTML('beforeend', `<div style="padding: 6px 10px; color: #595959">${line}</div>`);
    return node; }"""


def taken(path: Path, which: Sequence[tuple[int, int, bool]]) -> Iterator[bytes]:
    """What the browser shows of these outputs: (cell, number of the output, has it something to move?)."""
    with Lab(path.parent) as lab:
        copy = lab.folder / "notebooks" / path.name
        NotebookNotary(data_dir=str(lab.folder / "data")).sign(nbformat.read(copy, 4))
        page = lab.open(path.name, *SIZE)
        page.window.add_style_tag(content=STYLE)
        page.settle(3)
        if wrong := page.errors():
            raise RuntimeError(f"{path.name}: {wrong}")
        for cell, output, moves in which:
            node = page.window.evaluate_handle(FIND, [cell, output, MOVES if moves else ""]).as_element()
            node.scroll_into_view_if_needed()
            page.settle(0.5)
            yield node.screenshot()


def small(png: bytes) -> bytes:
    """The same in few colours."""
    picture, few = Image.open(io.BytesIO(png)).convert("RGB"), io.BytesIO()
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(few, "PNG", optimize=True)
    return few.getvalue()


def slim(notebook: nbformat.NotebookNode) -> None:
    """状态里的默认值不用存 / What the state of a widget would be without saying: nulls, and what its kind decides."""
    kept = notebook.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {"state": {}})
    for model in kept["state"].values():
        model["state"] = {name: value for name, value in model["state"].items()
                          if value is not None and not name.startswith(("_model_", "_view_"))}


def add(path: Path) -> None:
    """笔记本里缺的画面都补上 / Give the notebook the pictures that it lacks."""
    notebook = nbformat.read(path, 4)
    slim(notebook)
    nbformat.write(notebook, path)
    which = list(widgets_alone(notebook))
    for (cell, number, _), png in zip(which, taken(path, which), strict=True):
        output = notebook.cells[cell].outputs[number]
        output.data["image/png"] = base64.b64encode(small(png)).decode() + "\n"
        output.metadata["image/png"] = {"alt": ALT}
    nbformat.write(notebook, path)
    print(f"{path.stem}: {len(which)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("lessons", nargs="*", help="the first digits of their names; all if none is given")
    chosen = tuple(parser.parse_args().lessons)
    for lesson in NOTEBOOKS:
        if not chosen or lesson.stem.startswith(chosen):
            add(lesson)
