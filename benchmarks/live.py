"""看得见的训练要多花多少时间 / What does it cost to watch a training?

    python -m benchmarks.live

Two things are timed in the same run: the whole training, and what of it was spent inside step. Their ratio is the price
of watching. There is no browser, so the widgets' messages end in the kernel, but the pictures are drawn and the PNGs
packed all the same.

同一次运行里量两件事：训练一共用的时间，和其中花在 step 里的时间。二者之比就是边看边训练的代价。没有浏览器，控件的消息
只到内核为止，但图照画，PNG 照压。
"""

import asyncio
import contextlib
import io
import os
import statistics
import time
from collections.abc import Iterator

import torch

from benchmarks.ratio import Ratio, main
from mmlessons import live

STEPS, ROUNDS, WIDTH = 250, 5, 1024


class Work:
    """A step of about 20 ms."""

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


async def watched(steps: int) -> tuple[float, float]:
    work = Work()
    plots = [live.Plot("损失", "loss", {"loss": ("损失", "loss")}),
             live.Plot("同一个损失", "the same loss", {"loss": ("损失", "loss")})]
    run = live.Training(work.step, steps, plots,
                        sliders={"temperature": live.slider("温度", "temperature", 1.0, 0.1, 2.0, step=0.1)})
    began = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):  # outside a notebook, display() prints
        run.start()
        await run.wait()
    return time.perf_counter() - began, work.seconds


def ratios(quick: bool = False) -> Iterator[Ratio]:
    before, os.environ["MM_LIVE"] = os.environ.get("MM_LIVE"), "1"
    found = []
    try:
        for _ in range(1 if quick else ROUNDS):
            total, inside = asyncio.run(watched(20 if quick else STEPS))
            found.append(total / inside)
    finally:
        os.environ.pop("MM_LIVE")
        if before is not None:
            os.environ["MM_LIVE"] = before
    yield Ratio("a training that is watched", "the time inside its steps", statistics.median(found), 1.05)


if __name__ == "__main__":
    main(ratios)
