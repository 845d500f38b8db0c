"""nbval 没有的前端 / The front end that nbval lacks.

nbval compares what a kernel sends with what is stored, but what is stored is what JupyterLab made of it: a
`clear_output` removed what came before, an update replaced a display, an Output widget kept its content to itself.
`install()` puts these three rules between kernel and comparison.
"""

from nbformat import NotebookNode
from nbval.plugin import IPyNbCell, IPyNbFile

SHOWN = {"display_data", "execute_result", "stream"}


class CellView:
    """What JupyterLab would show below one cell; `outputs` is nbval's own list, changed in place."""

    def __init__(self, outputs):
        self.outputs, self.clear_first, self.places = outputs, False, {}

    def passes(self, kind, content):
        """Whether nbval should see this message; acts on those that it should not."""
        if kind == "clear_output":
            self.clear_first = True
            if not content.get("wait"):
                self.clear()
        elif kind == "update_display_data":
            for place in self.places.get(content["transient"]["display_id"], ()):
                self.outputs[place]["data"] = NotebookNode(content["data"])
        elif kind in SHOWN:
            if self.clear_first:
                self.clear()
            if display_id := content.get("transient", {}).get("display_id"):
                self.places.setdefault(display_id, []).append(len(self.outputs))
        return kind not in {"clear_output", "update_display_data"}

    def clear(self):
        self.outputs.clear()
        self.places.clear()
        self.clear_first = False


class FrontEnd:
    """All messages of one kernel: finds the cell each belongs to, and which Output widget holds it."""

    def __init__(self):
        self.cell, self.views, self.holders = None, {}, {}

    def passes(self, message):
        kind, content, parent = message["msg_type"], message["content"], message["parent_header"].get("msg_id")
        if kind in {"comm_open", "comm_msg"}:
            self.notice(kind, content)
        if parent in self.holders.values() and kind in SHOWN | {"clear_output", "update_display_data"}:
            return False  # an error still passes: no lesson hides one in a widget
        if parent not in self.views:
            self.views[parent] = CellView(self.cell.test_outputs)
        return self.views[parent].passes(kind, content)

    def notice(self, kind, content):
        """An Output widget tells by `msg_id` whose output it takes from now on, and by an empty one that it stops."""
        state, widget = (content.get("data") or {}).get("state") or {}, content["comm_id"]
        if kind == "comm_open" and state.get("_model_name") == "OutputModel":
            self.holders[widget] = ""
        if widget in self.holders and "msg_id" in state:
            self.holders[widget] = state["msg_id"]


def install():
    """Teach nbval's two classes, once."""
    if hasattr(IPyNbFile, "front_end"):
        return
    IPyNbFile.front_end = property(lambda file: file.__dict__.setdefault("_front_end", FrontEnd()))
    take, run = IPyNbFile.get_kernel_message, IPyNbCell.runtest

    def get_kernel_message(file, timeout=None, stream="iopub"):
        while True:
            message = take(file, timeout=timeout, stream=stream)
            if stream != "iopub" or file.front_end.passes(message):
                return message

    def runtest(cell):
        cell.parent.front_end.cell = cell
        run(cell)

    IPyNbFile.get_kernel_message, IPyNbCell.runtest = get_kernel_message, runtest
