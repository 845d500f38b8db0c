"""读者自己的图画 / Pictures that readers bring: what they must be, and what to do where they are not."""

import numpy as np
import torch
from torch import Tensor

from mmcore import checks


def check_pictures(x: object, name: str, *shape: int | str) -> None:
    """x 必须是 uint8 的图画，形状如所给，字母是任意大小 / x must be uint8 pictures of this shape; letters are any size.

    A TypeError if x is no tensor or not uint8, else a ValueError; either says what came and how to make it right.

    x 不是张量或不是 uint8 时报 TypeError，形状不对时报 ValueError；都说出收到了什么、怎样改。
    """
    array = isinstance(x, (Tensor, np.ndarray))
    right = isinstance(x, Tensor) and x.dtype == torch.uint8
    fits = array and len(x.shape) == len(shape) and all(
        n > 0 if isinstance(wanted, str) else n == wanted for n, wanted in zip(x.shape, shape, strict=True))
    if right and fits:
        return
    use = name if isinstance(x, Tensor) else f"torch.from_numpy({name})"
    if array and len(x.shape) == len(shape) and x.shape[-1] == 3 != x.shape[-3]:
        use += ".movedim(-1, -3)"
    if array and str(x.dtype).removeprefix("torch.").startswith("float"):
        use = f"(255 * {use}).round().to(torch.uint8)"
    came = f"{x.dtype} {checks.shape_of(x)}" if array else type(x).__name__
    size, known = f"({', '.join(map(str, shape))})", array and use != name
    checks.refuse(f"{name} 需要是 uint8 张量 {size}，收到 {came}" + (f"；请用 {use}" if known else ""),
                  f"{name} must be a uint8 tensor {size}, got {came}" + (f"; use {use}" if known else ""),
                  ValueError if right else TypeError)
