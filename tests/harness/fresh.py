"""在干净内核中运行一次 / One run of a notebook in a fresh kernel, from another folder, with the network cut.

What it asserts is heard (kernel_side/mm_claims.py); then every widget is moved (kernel_side/mm_probe.py). Everything is
only recorded here; the tests judge.
"""

import base64
import io
import os
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import nbformat
import numpy as np
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager
from PIL import Image

KERNEL_SIDE = Path(__file__).parent / "kernel_side"
LISTEN = "import mm_claims\nmm_claims.watch(get_ipython())"
MOVE = """import mm_claims, mm_probe
from IPython.display import display
claims = list(mm_claims.found)  # what a widget asserts when moved is no claim of the lesson
display({"application/json": await mm_probe.move_every_widget(get_ipython()) | {"claims": claims}}, raw=True)"""


def offline_env(folder):
    """The environment of a process whose Python cannot leave the machine; attempts are noted in folder/network."""
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and not k.startswith("JPY_")}
    path = os.pathsep.join(filter(None, [str(KERNEL_SIDE), os.environ.get("PYTHONPATH")]))
    return kept | {"PYTHONPATH": path, "MM_NETWORK_LOG": f"{folder}/network", "IPYTHONDIR": f"{folder}/ipython"}


def attempts(folder):
    """What tried to leave the machine under `offline_env(folder)`."""
    log = Path(folder, "network")
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


@dataclass
class Run:
    stored: nbformat.NotebookNode
    notebook: nbformat.NotebookNode
    network: list[str]
    moves: int
    widget_problems: list[str]
    held_errors: list[str]
    name: str
    claims: list[dict]  # as in mm_claims.found
    cells: list = field(init=False)  # (number, stored cell, fresh cell)

    def __post_init__(self):
        pairs = enumerate(zip(self.stored.cells, self.notebook.cells, strict=True))
        self.cells = [(i, old, new) for i, (old, new) in pairs if old.cell_type == "code"]


@cache
def run(path, timeout=900):
    """Run the notebook at `path` and move its widgets, once; nothing beside a temporary folder is written."""
    stored, notebook = nbformat.read(path, 4), nbformat.read(path, 4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    probe = new_code_cell(MOVE)
    notebook.cells.append(probe)
    kernel = AsyncKernelManager(kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager())
    with tempfile.TemporaryDirectory(prefix="mm-fresh-", ignore_cleanup_errors=True) as folder:
        startup = Path(folder, "ipython/profile_default/startup")
        startup.mkdir(parents=True)
        (startup / "listen.py").write_text(LISTEN)
        client = NotebookClient(notebook, km=kernel, timeout=timeout, allow_errors=True, coalesce_streams=True)
        client.execute(env=offline_env(folder), cwd=folder, cleanup_kc=True)
        network = attempts(folder)
    notebook.cells.pop()
    report, noise = {"moves": 0, "problems": [], "claims": []}, []
    for output in probe.outputs:
        if report_here := output.get("data", {}).get("application/json"):
            report = report_here
        elif output.output_type == "error":
            noise.append(f"{output.ename}: {output.evalue}")
        elif output.get("name") == "stderr":
            noise.append(f"stderr: {output.text.strip()}")
    states = client.widget_state.values()
    return Run(stored, notebook, network, report["moves"], report["problems"] + noise, held_errors(states),
               Path(path).stem, report["claims"])


def held_errors(states):
    """Errors and stderr inside Output widgets."""
    held = [output for state in states for output in state.get("outputs", ())]
    errors = [f"{o['ename']}: {o['evalue']}" for o in held if o["output_type"] == "error"]
    return errors + [f"stderr: {o['text'].strip()}" for o in held if o.get("name") == "stderr"]


def pictures(cell):
    return [o["data"]["image/png"] for o in cell.outputs if "image/png" in o.get("data", {})]


def difference(one, other):
    """How much of the ink of two base64 pictures is in different places: 0 the same, 1 about nothing in common.

    Looked at from afar (64 × 48, grey), so that another machine's last digit, antialiasing or font hinting is nothing.
    Ink is what differs from the most frequent grey: a white page would otherwise make any two curves alike.
    """
    inks = []
    for picture in (one, other):
        grey = Image.open(io.BytesIO(base64.b64decode(picture))).convert("L")
        small = np.asarray(grey.resize((64, 48), Image.Resampling.BOX), float)
        inks.append(small - np.bincount(np.asarray(grey).ravel()).argmax())
    a, b = inks
    ink = max(abs(a).sum(), abs(b).sum())
    return float(abs(a - b).sum() / ink) if ink else 0.0
