"""融合的时间之比 / Ratios of the time of fusion: against concatenate and one linear layer, and against no checks.

    python -m benchmarks.fusion

Concatenate and one linear layer is MultiBench's ConcatWithLinear. All are timed in turn in one run, forward and
backward, one thread, and the median of the ratios is taken.

“拼接加一层线性”是 MultiBench 的 ConcatWithLinear。同一次运行里交替计时，前向加反向，取比值的中位数，单线程。
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from benchmarks.ratio import Ratio, in_turn, main
from mmcore import fusion
from mmcore.fusion import AttentionFusion, EarlyFusion, GatedFusion, LateFusion, MultimodalFusion

BATCH, WIDTH, MODALITIES, ROUNDS = 256, 512, 3, 200
LESSON_WIDTH = 64
TARGETS = {"early": 1.1, "attention": 0.55, "late": 0.12, "gated": 0.25}


class ConcatWithLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(MODALITIES * WIDTH, WIDTH)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        return self.linear(torch.cat(list(features), -1))


def seconds(module: nn.Module, features: list[Tensor], gradient: Tensor) -> float:
    start = time.perf_counter()
    torch.autograd.grad(module(features), [*features, *module.parameters()], gradient)
    return time.perf_counter() - start


@contextmanager
def unchecked() -> Iterator[None]:
    """期间 mmcore.fusion 的入口都不检查 / Inside, no border of mmcore.fusion checks anything."""
    homes = [fusion, *(thing for thing in vars(fusion).values() if isinstance(thing, type))]
    borders = [(home, name, thing) for home in homes for name, thing in vars(home).items()
               if callable(thing) and hasattr(thing, "shapes")]
    for home, name, thing in borders:
        setattr(home, name, thing.__wrapped__)
    try:
        yield
    finally:
        for home, name, thing in borders:
            setattr(home, name, thing)


def share_of_checks(rounds: int) -> Ratio:
    """至多占 15 %，即至多 1/0.85 倍 / At most 15 % of the time are checks, so that the ratio is at most 1/0.85."""
    model = MultimodalFusion([LESSON_WIDTH] * MODALITIES, LESSON_WIDTH)
    features = [torch.randn(BATCH, LESSON_WIDTH) for _ in range(MODALITIES)]

    def checked() -> float:
        start = time.perf_counter()
        model(features)
        return time.perf_counter() - start

    def bare() -> float:
        with unchecked():
            return checked()

    return Ratio(f"all fusions forward, B {BATCH}, D {LESSON_WIDTH}, M {MODALITIES}", "the same without its checks",
                 in_turn(checked, bare, rounds), 1 / 0.85)


def ratios(quick: bool = False) -> Iterator[Ratio]:
    torch.manual_seed(0)
    features = [torch.randn(BATCH, WIDTH, requires_grad=True) for _ in range(MODALITIES)]
    gradient = torch.randn(BATCH, WIDTH)
    theirs = ConcatWithLinear()
    ours = {"early": EarlyFusion([WIDTH] * MODALITIES, WIDTH), "attention": AttentionFusion(WIDTH),
            "late": LateFusion(WIDTH, MODALITIES), "gated": GatedFusion(WIDTH, MODALITIES)}
    found: dict[str, list[float]] = {name: [] for name in ours}
    for _ in range(2 if quick else ROUNDS):
        other = seconds(theirs, features, gradient)
        for name, module in ours.items():
            found[name].append(seconds(module, features, gradient) / other)
    for name, measured in found.items():
        yield Ratio(f"{name} fusion, B {BATCH}, D {WIDTH}, M {MODALITIES}", "MultiBench's ConcatWithLinear",
                    statistics.median(measured), TARGETS[name])
    yield share_of_checks(2 if quick else 2 * ROUNDS)


if __name__ == "__main__":
    main(ratios)
