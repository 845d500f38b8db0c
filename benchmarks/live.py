"""看得见的训练要多花多少时间 / What does it cost to watch a training?

    python -m benchmarks.live

同一次运行里量两件事：训练一共用的时间，和其中花在 step 里的时间。二者之比就是边看边训练的代价，目标不超过 1.05；
旁边另跑一个光秃秃的循环作对照。没有浏览器，控件的消息只到内核为止，但图照画，PNG 照压。

Two things are timed in the same run: the whole training, and what of it was spent inside step. Their ratio is the price
of watching, and the goal is 1.05 at most; a bare loop of the same steps runs beside it for comparison. There is no
browser, the widgets' messages end in the kernel, but the pictures are drawn and the PNGs packed all the same.
"""

import asyncio
import contextlib
import io
import os
import statistics
import time
from collections.abc import Iterator

import torch

from benchmarks.ratio import Ratio, show
from mmlessons import live

STEPS, ROUNDS, WIDTH = 250, 5, 1024


class Work:
    """约 20 毫秒的一步 / A step of about 20 ms."""

    def __init__(self):
        torch.manual_seed(0)
        layers = [torch.nn.Linear(WIDTH, WIDTH), torch.nn.GELU(), torch.nn.Linear(WIDTH, WIDTH)]
        self.model = torch.nn.Sequential(*layers)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3)
        self.x, self.seconds = torch.randn(96, WIDTH), 0.0

    def step(self, temperature=1.0):
        began = time.perf_counter()
        loss = torch.nn.functional.cross_entropy(self.model(self.x) / temperature, torch.arange(len(self.x)))
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        value = loss.item()
        self.seconds += time.perf_counter() - began
        return {"loss": value}


def bare() -> float:
    work = Work()
    for _ in range(STEPS):
        work.step()
    return work.seconds


async def watched() -> tuple[float, float]:
    work = Work()
    plots = [live.Plot("损失", "loss", {"loss": ("损失", "loss")}),
             live.Plot("损失（对数）", "loss (logarithmic)", {"loss": ("损失", "loss")}, log=True)]
    run = live.Training(work.step, STEPS, plots,
                        sliders={"temperature": live.slider("温度", "temperature", 1.0, 0.1, 2.0, step=0.1)})
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):  # outside a notebook, display() prints
        run.start()
        await run.wait()
    return time.perf_counter() - began, work.seconds


def ratios() -> Iterator[Ratio]:
    before, os.environ["MM_LIVE"] = os.environ.get("MM_LIVE"), "1"
    found = []
    try:
        for _ in range(ROUNDS):
            total, inside = asyncio.run(watched())
            found.append(total / inside)
    finally:
        os.environ.pop("MM_LIVE")
        if before is not None:
            os.environ["MM_LIVE"] = before
    yield Ratio("a training that is watched", "the time inside its steps", statistics.median(found), 1.05)


if __name__ == "__main__":
    torch.set_num_threads(1)
    alone = [bare() / STEPS for _ in range(ROUNDS)]
    print(f"a bare loop of the same steps: {1000 * min(alone):.1f} ms a step, best of {ROUNDS}")
    show(ratios())
