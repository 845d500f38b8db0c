"""测试所用的工具 / What the tests of the notebooks stand on.

stored       what can be seen in a notebook as committed, without running it
comparisons  what the prose compares, and what guards it
claims       the list of what the lessons assert
fresh        one run in a fresh kernel with the network cut, then every widget moved
replay       lets nbval look at that run
kernel_side  the two files that run inside that kernel
lab          JupyterLab in a headless Chromium
devices      what stands in for a device that this machine lacks
"""

from pathlib import Path

DOOR = Path(__file__).parents[2] / "notebooks/00_start_here.ipynb"  # the door: it runs like a lesson and teaches none
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
LESSONS = [path for path in NOTEBOOKS if path != DOOR]
