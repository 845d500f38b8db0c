"""mmlessons：笔记本站在上面的东西 / mmlessons: what the notebooks stand on.

data（数据）、tasks（每本笔记本训练和考试的，文件与笔记本同名）、live（面板、图、语言切换）、exercises（练习）、
workers（后台训练）、doctor（这台机器行不行）、machine（这台机器给多少）。它用 mmcore，mmcore 从不用它。

data; tasks (what each notebook trains and tests, in a file of the notebook's name); live (panel, figures, language
switch); exercises; workers (trainings in the background); doctor (whether this machine will do); machine (how much it
gives). It imports mmcore, never the other way.
"""

import codecs
import sys

SIGNS = {"✓": "v", "→": "->", "–": "-", "…": "..."}  # what stands for them in an output that lacks them


def _plain(error: UnicodeEncodeError) -> tuple[str, int]:
    return "".join(SIGNS.get(c, "?") for c in error.object[error.start:error.end]), error.end


codecs.register_error("mmlessons", _plain)
if getattr(sys.stdout, "errors", "") == "strict" and hasattr(sys.stdout, "reconfigure"):
    sys.stdout.reconfigure(errors="mmlessons")  # a terminal or a pipe in GBK, cp1252 or ASCII fails no lesson
