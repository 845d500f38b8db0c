"""nbval 与别的测试共用一次运行 / nbval and the other tests share one run of each lesson.

nbval compares what a kernel sends with what is stored. `install()` lets it compare the run of `fresh` instead, in which
nbclient has already done what JupyterLab does with `clear_output` and with updates of a display.
"""

from collections import deque

from nbval.plugin import IPyNbFile

from tests.harness import fresh


class Kernel:
    """What nbval takes for a kernel: each cell that it asks for is answered with what that cell gave in the run."""

    def __init__(self, run):
        self.cells, self.messages, self.count = iter(run.cells), deque(), 0

    def is_alive(self):
        return True

    def execute_cell_input(self, source, allow_stdin=None):
        cell = next(fresh_cell for _, _, fresh_cell in self.cells if fresh_cell.source == source)
        self.count += 1
        for output in cell.outputs:
            self.send(output.output_type, {key: value for key, value in output.items() if key != "output_type"})
        self.send("status", {"execution_state": "idle"})
        return self.count

    def send(self, kind, content):
        self.messages.append({"msg_type": kind, "parent_header": {"msg_id": self.count}, "content": content})

    def get_message(self, stream, timeout=None):
        return self.messages.popleft()

    def await_reply(self, msg_id, timeout=None):
        """The run is over."""

    await_idle = await_reply

    def stop(self):
        """There is nothing to stop."""


def install():
    """Let nbval ask `Kernel`."""

    def setup(file):
        file.kernel = Kernel(fresh.run(file.path))
        file.setup_sanitize_files()

    IPyNbFile.setup = setup
