"""一条命令，一张表 / One command, one table.

    python -m benchmarks               # the ratios, then the time and memory of each lesson: about twenty minutes
    python -m benchmarks ratios        # only the ratios: about two minutes
    python -m benchmarks ratios --quick      # does it run? half a minute, numbers without meaning

One thread, on a quiet machine. Peers are compared with where they are installed:

    pip install -e ".[benchmarks]"

单线程，在一台安静的机器上。别人的实现装了才比。
"""

import argparse
from itertools import chain

from benchmarks import contrastive, fusion, live, notebooks, vision_language
from benchmarks.ratio import QUICK, show

parser = argparse.ArgumentParser(prog="python -m benchmarks")
parser.add_argument("what", nargs="?", choices=["everything", "ratios"], default="everything")
parser.add_argument("--quick", action="store_true", help=f"{QUICK}; of the lessons only 00")
chosen = parser.parse_args()
show(chain.from_iterable(part.ratios(chosen.quick) for part in (contrastive, fusion, live, vision_language)))
if chosen.what == "everything":
    print()
    notebooks.show(["00"] if chosen.quick else [])
