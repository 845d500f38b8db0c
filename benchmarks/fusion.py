"""融合 (3.1)–(3.4) 与“拼接加一层线性”的时间之比 / (3.1)–(3.4) against concatenate and one linear layer, as a ratio.

    python -m benchmarks.fusion

Concatenate and one linear layer is MultiBench's ConcatWithLinear. All are timed in turn in one run, forward and
backward, one thread, and the median of the ratios is taken.

“拼接加一层线性”是 MultiBench 的 ConcatWithLinear。同一次运行里交替计时，前向加反向，取比值的中位数，单线程。
"""

import statistics
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from benchmarks.ratio import Ratio, main
from mmcore.fusion import AttentionFusion, EarlyFusion, GatedFusion, LateFusion

BATCH, WIDTH, MODALITIES, ROUNDS = 256, 512, 3, 200
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


if __name__ == "__main__":
    main(ratios)
