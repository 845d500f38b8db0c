"""对比损失 (2.1) 与别家的时间之比 / (2.1) against Hugging Face's CLIP loss and open_clip's, time as a ratio.

    python -m benchmarks.contrastive

Both are timed in turn in one run, forward and backward, and the median of the ratios is taken. The last rows compare
the relative error of the float32 gradient, held against float64, where the loss is small.

同一次运行里交替计时，前向加反向，取比值的中位数。末尾几行比较 float32 梯度对 float64 的相对误差，损失很小时的。
"""

import time
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from benchmarks.ratio import Ratio, in_turn, main
from mmcore.alignment import contrastive_loss

TAU = 0.05


def hugging_face(a: Tensor, b: Tensor) -> Tensor:
    return image_text_contrastive_loss(F.normalize(b, dim=-1) @ F.normalize(a, dim=-1).T / TAU)


def peers() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    found = {"Hugging Face's CLIP loss": hugging_face}
    try:
        from open_clip import ClipLoss
    except ImportError:
        return found
    loss = ClipLoss()
    return found | {"open_clip's ClipLoss": lambda a, b: loss(F.normalize(a, dim=-1), F.normalize(b, dim=-1), 1 / TAU)}


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


def gradient_error(loss: Callable[[Tensor, Tensor], Tensor], n: int, noise: float) -> float:
    a, b = pair(n, noise)
    exact = [x.detach().double().requires_grad_() for x in (a, b)]
    wanted = torch.cat(torch.autograd.grad(ours(*exact), exact))
    got = torch.cat(torch.autograd.grad(loss(a, b), (a, b))).double()
    return ((got - wanted).norm() / wanted.norm()).item()


def ratios(quick: bool = False) -> Iterator[Ratio]:
    for name, theirs in peers().items():
        for n, goal in ((64, 1.0), (512, 0.7), (2048, None), (4096, 0.45)):
            a, b = pair(n, 1.0, 256)
            value = in_turn(lambda a=a, b=b: seconds(ours, a, b),
                            lambda a=a, b=b, theirs=theirs: seconds(theirs, a, b), 2 if quick else max(20, 20_000 // n))
            yield Ratio(f"(2.1), forward and backward, N = {n}", name, value, goal if "open_clip" in name else None)
    for noise in (1.0, 0.1, 0.01):
        yield Ratio(f"(2.1), error of the gradient, noise {noise}", "Hugging Face's CLIP loss",
                    gradient_error(ours, 64, noise) / gradient_error(hugging_face, 64, noise))


if __name__ == "__main__":
    main(ratios)
