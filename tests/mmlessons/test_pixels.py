"""像素近邻 / The pixel nearest neighbour."""

import pytest
import torch

from mmlessons.data import emoji
from mmlessons.tasks import pixels

DATA = emoji.load()


def test_pixel_similarity_equals_loops_and_knows_a_picture_it_has_seen() -> None:
    pictures, known = DATA.pictures["twemoji"][:3], torch.stack([DATA.pictures[a][:4] for a in DATA.by_role("train")])
    S = pixels.pixel_similarity(pictures, known)
    for i, picture in enumerate(pictures.double()):
        for j in range(4):
            cosines = []
            for drawing in known[:, j].double():
                x, y = (picture - picture.mean()).flatten(), (drawing - drawing.mean()).flatten()
                cosines.append((x @ y / (x.norm() * y.norm())).item())
            assert S[i, j].item() == pytest.approx(max(cosines), abs=1e-5)
    assert pixels.pixel_similarity(known[0], known).diagonal().min() > 0.9999


def test_a_framed_drawing_fills_its_frame_wherever_it_stood_and_whatever_its_size() -> None:
    square = torch.full((3, 32, 32), 255, dtype=torch.uint8)
    small, large = square.clone(), square.clone()
    small[:, 3:11, 5:13] = torch.tensor([200, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    large[:, 2:26, 6:30] = torch.tensor([200, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    first, second, empty = pixels.framed(torch.stack([small, large, square]))
    assert torch.equal(first, second)
    assert first[0].eq(200).all()
    assert torch.equal(empty, square)
    wide = square.clone()
    wide[:, 10:14, 4:20] = 0  # four times as wide as high: white above and below
    rows = pixels.framed(wide.unsqueeze(0))[0, 0].float().mean(1)
    assert rows[16] < 10
    assert rows[2] > 250
    assert rows[29] > 250
