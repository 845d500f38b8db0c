"""一个比值：我们的时间比别人的 / One ratio: our time over somebody else's, timed in turn in one run."""

import argparse
import statistics
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch

QUICK = "a round or two, to see that it runs; the numbers mean nothing"


@dataclass(frozen=True)
class Ratio:
    """`what` 与 `peer` 相比，至多 `goal`（可以没有）/ `what` against `peer`, at most `goal` where there is one."""

    what: str
    peer: str
    value: float
    goal: float | None = None

    def __str__(self) -> str:
        goal = "" if self.goal is None else f"{self.goal:.2f} {'' if self.value <= self.goal else 'MISSED'}"
        return f"{self.what:<44s} {self.peer:<36s} {self.value:>6.3f}   {goal}".rstrip()


HEAD = f"{'what':<44s} {'against':<36s} {'ratio':>6s}   at most"


def in_turn(ours: Callable[[], float], theirs: Callable[[], float], rounds: int) -> float:
    """两边轮流计时，比值的中位数 / Both are timed in turn; the median of the ratios."""
    return statistics.median(ours() / theirs() for _ in range(rounds))


def show(ratios: Iterable[Ratio]) -> None:
    """一张表，单线程 / A table, measured on one thread."""
    torch.set_num_threads(1)
    print(HEAD)
    for ratio in ratios:
        print(ratio, flush=True)


def main(ratios: Callable[[bool], Iterator[Ratio]]) -> None:
    """一个文件自己的表 / The table of one file, run by itself."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help=QUICK)
    show(ratios(parser.parse_args().quick))
