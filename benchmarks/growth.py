"""批越大，(2.1) 要多少时间和内存 / What (2.1) costs as the batch grows: time, memory, error, against others.

    python -m benchmarks.growth            # N = 2⁶ to 2¹⁵, then 1, 2 and 4 processes: about ten minutes
    python -m benchmarks.growth --quick    # does it run? numbers without meaning

D = 256, float32, one thread, forward and backward. Times are taken in turn in one run: ours over that of open_clip and
Hugging Face (up to N = 4,096, from there on they need gigabytes) and over the three matrix products that no exact
computation can do without. Memory is the highest resident size beyond the features, in a process of its own. The error
is that of the gradient against float64. The slope is how much faster memory grows than N: 1 is linear, 2 is the square.

D = 256，float32，单线程，前向加反向。时间在同一次运行里交替测，取我们与 open_clip、Hugging Face 之比（到 N = 4096，
再大它们要几个 GB），和与三次矩阵乘法之比，精确的算法都少不了这三次。内存是特征以外的最高驻留量，在单独的进程里量。
误差是梯度对 float64 的。slope 是内存比 N 涨得快多少：1 是线性，2 是平方。
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from benchmarks.contrastive import gradient_error, ours, pair, peers, seconds
from benchmarks.ratio import QUICK
from mmcore import distributed

WIDTH, WITH_PEERS, WITH_ERROR = 256, 4096, 2048
SIZES, PROCESSES = [2**k for k in range(6, 16)], (1, 2, 4)


def products(a: Tensor, b: Tensor) -> Tensor:
    """三次矩阵乘法 / The three products of a forward and a backward, and nothing else."""
    return (a @ b.T).sum()


def status(field: str) -> float:
    """VmRSS or VmHWM of this process, in MiB."""
    line = next(x for x in Path("/proc/self/status").read_text("utf-8").splitlines() if x.startswith(field))
    return int(line.split()[1]) / 1024


def memory(n: int) -> float:
    """多占了多少 / The highest resident size beyond the features, MiB. Linux says it."""
    seconds(ours, *pair(64, 1.0, WIDTH))
    a, b = pair(n, 1.0, WIDTH)
    Path("/proc/self/clear_refs").write_text("5", "utf-8")  # the highest so far is forgotten
    before = status("VmRSS")
    seconds(ours, a, b)
    return status("VmHWM") - before


def row(n: int, quick: bool) -> dict[str, float]:
    """One line of the table."""
    a, b = pair(n, 1.0, WIDTH)
    others: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"products": products}
    if n <= WITH_PEERS:
        others |= peers()
    rounds = 1 if quick or n > WITH_PEERS else max(5, 20_000 // n)
    taken = [(seconds(ours, a, b), {name: seconds(loss, a, b) for name, loss in others.items()}) for _ in range(rounds)]
    found = {f"/ {name}": statistics.median(mine / times[name] for mine, times in taken) for name in others}
    if n <= WITH_ERROR:
        found["error"] = gradient_error(ours, n, 1.0)
    child = subprocess.run([sys.executable, "-m", "benchmarks.growth", "--memory", str(n)], check=True,
                           capture_output=True, text=True)
    return {"seconds": statistics.median(mine for mine, _ in taken), "MiB": json.loads(child.stdout)} | found


def one_of(rank: int, size: int, n: int, folder: str) -> None:
    """What one of several processes does: its share of a batch of n."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=size)
    a, b = pair(n, 1.0, WIDTH)
    mine = slice(rank * n // size, (rank + 1) * n // size)
    a, b = a.detach()[mine].clone().requires_grad_(), b.detach()[mine].clone().requires_grad_()
    taken = [seconds(lambda a, b: distributed.contrastive_loss(a, b, 0.05), a, b) for _ in range(3)]
    Path(folder, f"{rank}").write_text(json.dumps([min(taken), status("VmHWM")]), "utf-8")
    dist.destroy_process_group()


def main() -> None:
    """The tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth")
    parser.add_argument("--quick", action="store_true", help=QUICK)
    parser.add_argument("--memory", type=int, help="only the memory of this many pairs, MiB")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.memory:
        print(memory(chosen.memory))
        return
    sizes, before = SIZES[:2] if chosen.quick else SIZES, None
    names = ["seconds", "MiB", "slope", "error", *(f"/ {name}" for name in ("products", *peers()))]
    print("N".rjust(6), *(name.rjust(max(9, len(name))) for name in names), sep="  ")
    for n in sizes:
        found = row(n, chosen.quick)
        if before and n >= 2048:
            found["slope"] = math.log2(found["MiB"] / before)
        before = found["MiB"]
        cells = [(f"{found[name]:.3g}" if name in found else "").rjust(max(9, len(name))) for name in names]
        print(str(n).rjust(6), *cells, sep="  ", flush=True)
    n = 256 if chosen.quick else 8192
    print(f"\nN = {n}, P processes on this machine: seconds, MiB resident in each")
    for size in PROCESSES[1:2] if chosen.quick else PROCESSES:
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(one_of, (size, n, folder), size)
            said = [json.loads(Path(folder, str(rank)).read_text("utf-8")) for rank in range(size)]
        took, most = (max(column) for column in zip(*said, strict=True))
        print(f"P = {size}: {took:.3g} s, {most:.0f} MiB", flush=True)


if __name__ == "__main__":
    main()
