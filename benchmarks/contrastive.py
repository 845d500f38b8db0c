"""对比损失 (2.1) 与 Hugging Face CLIP 损失的时间之比 / (2.1) against Hugging Face's CLIP loss, time as a ratio.

    python benchmarks/contrastive.py

同一次运行里交替计时，前向加反向，取比值的中位数；并列出 float32 梯度对 float64 的相对误差。

Both are timed in turn in one run, forward and backward, and the median of the ratios is taken; beside it the relative
error of the float32 gradient against float64.
"""

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from mmcore.alignment import contrastive_loss

TAU = 0.05


def theirs(a: Tensor, b: Tensor) -> Tensor:
    return image_text_contrastive_loss(F.normalize(b, dim=-1) @ F.normalize(a, dim=-1).T / TAU)


def ours(a: Tensor, b: Tensor) -> Tensor:
    return contrastive_loss(a, b, TAU)


def pair(n: int, noise: float, width: int = 128, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    a = torch.randn(n, width, generator=generator, dtype=torch.float64)
    b = a + noise * torch.randn(n, width, generator=generator, dtype=torch.float64)
    return a.to(dtype).requires_grad_(), b.to(dtype).requires_grad_()


def seconds(loss: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> float:
    start = time.perf_counter()
    torch.autograd.grad(loss(a, b), (a, b))
    return time.perf_counter() - start


def gradient_error(loss: Callable[[Tensor, Tensor], Tensor], n: int, noise: float) -> tuple[float, float]:
    a, b = pair(n, noise)
    exact_a, exact_b = (x.detach().double().requires_grad_() for x in (a, b))
    exact = ours(exact_a, exact_b)
    wanted = torch.cat(torch.autograd.grad(exact, (exact_a, exact_b)))
    got = torch.cat(torch.autograd.grad(loss(a, b), (a, b))).double()
    return exact.item(), ((got - wanted).norm() / wanted.norm()).item()


def main() -> None:
    torch.set_num_threads(1)
    print("N      time ours / theirs")
    for n in (64, 512, 2048):
        a, b = pair(n, 1.0)
        times = [(seconds(ours, a, b), seconds(theirs, a, b)) for _ in range(max(20, 20_000 // n))]
        ratio = statistics.median(mine / other for mine, other in times)
        print(f"{n:<6d} {ratio:.2f}")
    print("\nloss     gradient error ours   theirs")
    for noise in (1.0, 0.1, 0.01):
        loss, error = gradient_error(ours, 64, noise)
        print(f"{loss:.1e}  {error:.1e}               {gradient_error(theirs, 64, noise)[1]:.1e}")


if __name__ == "__main__":
    main()
