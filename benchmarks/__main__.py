"""一条命令，一张表 / One command, one table.

    python -m benchmarks               # the ratios, then the time and memory of each lesson: about fifteen minutes
    python -m benchmarks ratios        # the ratios alone: about two minutes

单线程，在一台安静的机器上。同行要装了才比：pip install -e ".[benchmarks]"。

One thread, on a quiet machine. Peers are compared with where they are installed: pip install -e ".[benchmarks]".
"""

import sys
from itertools import chain

import torch

from benchmarks import contrastive, fusion, live, notebooks, vision_language
from benchmarks.ratio import show

torch.set_num_threads(1)
show(chain(contrastive.ratios(), fusion.ratios(), live.ratios(), vision_language.ratios()))
if "ratios" not in sys.argv[1:]:
    print()
    for line in notebooks.lines():
        print(line, flush=True)
