"""图画的随机变化 / Random changes to pictures."""

import pytest
import torch
from torch import Tensor

from mmlessons.data import augment as steps
from mmlessons.data.augment import augment

LUMA = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(n: int, height: int = 32, width: int = 32) -> Tensor:
    return torch.rand(n, 3, height, width, generator=generator(9))


def test_shape_type_and_range_are_kept_and_the_pictures_given_are_not_written_to() -> None:
    given = pictures(50, 20, 36)
    before = given.clone()
    changed = augment(given, generator())
    assert (changed.shape, changed.dtype) == (given.shape, torch.float32)
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert torch.equal(given, before)


def test_the_same_generator_gives_the_same_result_and_the_global_one_is_not_used() -> None:
    given = pictures(5)
    first = augment(given, generator(1))
    state = torch.get_rng_state()
    assert torch.equal(augment(given, generator(1)), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(augment(given, generator(2)), first)


@pytest.mark.parametrize("step", [augment, steps._move, steps._recolour])
def test_pictures_of_one_batch_change_differently(step: object) -> None:
    changed = step(pictures(1).expand(8, -1, -1, -1).contiguous(), generator())
    for i in range(8):
        for j in range(i):
            assert not torch.allclose(changed[i], changed[j], atol=1e-2)


def test_what_enters_from_outside_is_white() -> None:
    """黑图移动后只有黑、白和边上的灰，白的确实进来了；白图移动后仍是白的 / Black pictures let white in at the edges."""
    black = steps._move(torch.zeros(200, 3, 32, 32), generator())
    assert (black > 0.999).any(1).flatten(1).any(1).double().mean() > 0.5
    assert torch.allclose(black[:, :, 15:17, 15:17], torch.zeros(200, 3, 2, 2), atol=1e-5)
    assert torch.allclose(steps._move(torch.ones(20, 3, 32, 32), generator()), torch.ones(20, 3, 32, 32), atol=1e-5)


def test_turning_the_hue_keeps_the_luma_up_to_contrast_and_light() -> None:
    """亮度 Y 只按对比与明暗变：Y′ = c Y + l，与颜色无关 / The luma of each pixel is c Y + l, whatever its colour.

    灰度附近的颜色不会碰到 0 和 1，所以没有截断 / Colours near grey meet neither 0 nor 1, so that nothing is clamped.
    """
    given = 0.5 + 0.1 * (pictures(60) - 0.5)
    changed = steps._recolour(given, generator())
    before, after = ((x * LUMA).sum(1).flatten(1).double() for x in (given, changed))
    x, y = before - before.mean(1, keepdim=True), after - after.mean(1, keepdim=True)
    slope = (x * y).sum(1, keepdim=True) / (x * x).sum(1, keepdim=True)
    assert (y - slope * x).abs().max() < 2e-4
    assert slope.min() > 0.69
    assert slope.max() < 1.31
    assert (changed - given).abs().amax((1, 2, 3)).min() > 1e-3


def test_about_three_in_ten_pictures_get_one_rectangle_of_one_colour() -> None:
    given = pictures(2000)
    hidden = (steps._erase(given, generator()) != given).any(1)  # (B, H, W)
    assert hidden.flatten(1).any(1).double().mean().item() == pytest.approx(0.3, abs=0.03)
    assert torch.equal(hidden, hidden.any(2, keepdim=True) & hidden.any(1, keepdim=True))
    changed = steps._erase(given, generator())
    for i in hidden.flatten(1).any(1).nonzero().flatten()[:20].tolist():
        assert len(changed[i][:, hidden[i]].unique(dim=1).T) == 1


@pytest.mark.parametrize(("image", "error", "match"), [
    (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), TypeError, "use image / 255"),
    ([[1.0]], TypeError, "image must be a tensor, got list"),
    (torch.zeros(3, 8, 8), ValueError, r"image 需要形状 .*must have shape \(B, 3, H, W\), got \(3, 8, 8\)"),
    (torch.zeros(2, 1, 8, 8), ValueError, r"got \(2, 1, 8, 8\)"),
])
def test_bad_pictures_are_refused_before_a_random_number_is_drawn(image: object, error: type, match: str) -> None:
    random = generator()
    before = random.get_state()
    with pytest.raises(error, match=match):
        augment(image, random)
    assert torch.equal(random.get_state(), before)


def test_without_a_generator_the_global_random_numbers_are_not_taken_instead() -> None:
    with pytest.raises(TypeError, match=r"generator must be a Generator, got NoneType"):
        augment(pictures(2), None)


def test_half_precision_and_an_empty_batch_are_refused() -> None:
    with pytest.raises(TypeError, match="must be float32 or float64"):
        augment(torch.rand(2, 3, 32, 32).half(), torch.Generator())
    with pytest.raises(ValueError, match="expected at least 1 samples"):
        augment(torch.rand(0, 3, 32, 32), torch.Generator())
