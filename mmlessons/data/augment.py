"""图画的随机变化 / Random changes to pictures.

同一个概念换一位作者，形状会歪、颜色会变、一部分会缺。训练时随机地这样改，模型就少记画风、多记概念。

From one artist to the next the shape of a concept shifts, its colours change, a part is missing. Changing pictures
at random in the same ways lets a model remember less of the style and more of the concept.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcore import checks

# NTSC luma and chroma: the first row is brightness, the other two span the plane in which hue is an angle.
_TO_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_TO_RGB = torch.linalg.inv(_TO_YIQ)


@checks.shapes(image="B 3 H W", least={"B": 1})
def augment(image: Tensor, generator: torch.Generator) -> Tensor:
    """一批图画各自随机变化 / Change each picture of a batch at random: (B, 3, H, W), values from 0 to 1."""
    checks.instance(generator, "generator", torch.Generator)
    checks.require(image.dtype in (torch.float32, torch.float64),
                   f"image 需要是 float32 或 float64，收到 {image.dtype}",
                   f"image must be float32 or float64, got {image.dtype}", TypeError)
    return _erase(_recolour(_move(image, generator), generator), generator)


def _uniform(low: float, high: float, n: int, generator: torch.Generator) -> Tensor:
    return torch.rand(n, generator=generator) * (high - low) + low


def _move(image: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, scale, shear, shift, mirror."""
    n = len(image)
    angle = _uniform(-0.35, 0.35, n, generator)
    sx, sy = _uniform(0.8, 1.3, n, generator), _uniform(0.8, 1.3, n, generator)
    sx = sx * torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    shear = _uniform(-0.2, 0.2, n, generator)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack([sx * cos, sy * (shear * cos - sin), _uniform(-0.15, 0.15, n, generator),
                         sx * sin, sy * (shear * sin + cos), _uniform(-0.15, 0.15, n, generator)], 1).view(n, 2, 3)
    grid = F.affine_grid(theta.to(image.dtype), list(image.shape), align_corners=False)
    return 1 - F.grid_sample(1 - image, grid, align_corners=False)  # what comes in from outside is white


def _recolour(image: Tensor, generator: torch.Generator) -> Tensor:
    """Turn the hue, change saturation, brightness and contrast."""
    n = len(image)
    hue = _uniform(-0.1 * math.pi, 0.1 * math.pi, n, generator)
    chroma = _uniform(0.5, 1.5, n, generator) * (torch.rand(n, generator=generator) > 0.1)
    turn = torch.zeros(n, 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = chroma * hue.cos()
    turn[:, 2, 1] = chroma * hue.sin()
    turn[:, 1, 2] = -turn[:, 2, 1]
    contrast = _uniform(0.7, 1.3, n, generator).view(n, 1, 1)
    light = _uniform(-0.1, 0.1, n, generator).view(n, 1, 1)
    mixed = (_TO_RGB @ turn @ _TO_YIQ * contrast).to(image.dtype) @ image.flatten(2)
    return (mixed + light + 0.5 * (1 - contrast)).clamp(0, 1).view_as(image)


def _erase(image: Tensor, generator: torch.Generator) -> Tensor:
    """Three pictures in ten get a rectangle of some random colour."""
    n, _, height, width = image.shape
    def span(size: int) -> Tensor:
        half = _uniform(0.1, 0.25, n, generator) * size
        middle = _uniform(0, size, n, generator)
        place = torch.arange(size) + 0.5
        return (place - middle.unsqueeze(1)).abs() < half.unsqueeze(1)
    chosen = torch.rand(n, generator=generator) < 0.3
    hidden = span(height).unsqueeze(2) & span(width).unsqueeze(1) & chosen.view(n, 1, 1)
    return torch.where(hidden.unsqueeze(1), torch.rand(n, 3, 1, 1, generator=generator).to(image.dtype), image)
