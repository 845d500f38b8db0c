"""像素近邻，各课共用的不学习的基线 / The pixel nearest neighbour, a baseline that learns nothing, for all lessons."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmcore.alignment import cosine_similarity
from mmlessons.border import check_pictures, typed

PAPER = 245  # brighter than this is the white that a drawing stands on


@typed
def pixel_similarity(pictures: Tensor, known: Tensor, crop: bool = False) -> Tensor:
    """像素近邻：不用学习的基线 / Pixel nearest neighbour, the baseline that learns nothing.

    (N, 3, H, W), (A, C, 3, H, W) → (N, C). Each picture less its mean is compared with the A known drawings of each
    concept by cosine, and the closest one counts. With `crop` all are `framed` first.

    每幅图画减去均值后，与每个概念的 A 幅已知图画比余弦，取最像的一幅。`crop` 为真时，所有图画先 `framed`。
    """
    check_pictures(pictures, "pictures", "N", 3, "H", "W")
    check_pictures(known, "known", "A", "C", *pictures.shape[1:])
    if crop:
        pictures, known = framed(pictures), framed(known.flatten(0, 1)).view_as(known)

    def flat(x: Tensor) -> Tensor:
        x = x.flatten(-3).float()
        return x - x.mean(-1, keepdim=True)
    return torch.stack([cosine_similarity(flat(pictures), flat(drawings)) for drawings in known]).amax(0)


def framed(pictures: Tensor) -> Tensor:
    """裁到画的边，补成正方形，再放大到原来的大小 / Cropped to the drawing, made square, enlarged to the old size.

    (N, 3, H, W), uint8, of drawings on white: what a person would do first who is to compare pictures of another size.

    (N, 3, H, W)，uint8，白底的图画：要人来比大小不同的图画，他会先做这一步。
    """
    check_pictures(pictures, "pictures", "N", 3, "H", "W")
    result = pictures.clone()
    for k, picture in enumerate(pictures):
        drawn = picture.amin(0) < PAPER
        if not drawn.any():
            continue
        rows, columns = (drawn.any(side).nonzero().flatten().tolist() for side in (1, 0))
        part = 255 - picture[:, rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].float()  # white is 0, as padding is
        wide, high = (max(0, x) for x in (part.shape[1] - part.shape[2], part.shape[2] - part.shape[1]))
        part = F.pad(part, (wide // 2, wide - wide // 2, high // 2, high - high // 2))
        large = F.interpolate(part.unsqueeze(0), picture.shape[1:], mode="bilinear", antialias=True)[0]
        result[k] = (255 - large).round().clamp(0, 255)
    return result
