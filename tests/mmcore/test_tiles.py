"""(2.1) 与 (2.4) 分片算，和一整块算一样 / (2.1) and (2.4) in tiles are what they are in one piece."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mmcore import alignment, tiles
from mmcore.alignment import answer_all, choose_own, contrastive_loss, sigmoid_loss


def pairs(n: int, width: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(n, width, generator=generator, dtype=torch.float64)
    b = a + torch.randn(n, width, generator=generator, dtype=torch.float64)
    return a.requires_grad_(), b.requires_grad_()


def number(x: float) -> Tensor:
    return torch.tensor(x, dtype=torch.float64, requires_grad=True)


def positives_of(n: int) -> Tensor:
    right = torch.eye(n, dtype=torch.bool)
    right[0, 3] = right[5, 1] = right[5, 2] = True
    return right


@pytest.fixture(params=[0, 1, 2**19], ids=["many tiles", "none kept", "one tile"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Tiles of 64 rows, all kept from the first round or none, and one tile for all."""
    monkeypatch.setattr(tiles, "TILE", request.param)
    monkeypatch.setattr(tiles, "KEPT", 0 if request.param == 1 else 2**23)
    return request.param


def both_ways(a: Tensor, b: Tensor, tau: Tensor, right: Tensor) -> Tensor:
    S = (a / a.norm(dim=1, keepdim=True)) @ (b / b.norm(dim=1, keepdim=True)).T / tau
    rows, columns = ((S.log_softmax(d) * right).sum(d) / right.sum(d) for d in (1, 0))
    return -(rows.mean() + columns.mean()) / 2


RIGHT = positives_of(150)
LOSSES: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], tuple[float, ...]]] = {
    "(2.1)": (contrastive_loss, choose_own, (0.3,)),
    "(2.1), small temperature": (contrastive_loss, choose_own, (0.02,)),
    "(2.1), several positives": (lambda a, b, tau: contrastive_loss(a, b, tau, RIGHT),
                                 lambda a, b, tau: both_ways(a, b, tau, RIGHT), (0.3,)),
    "(2.4)": (sigmoid_loss, answer_all, (0.2, -3.0)),
    "(2.4), several positives": (lambda a, b, tau, bias: sigmoid_loss(a, b, tau, bias, RIGHT),
                                 lambda a, b, tau, bias: answer_all(a, b, tau, bias, RIGHT), (0.2, -3.0)),
}


@pytest.mark.parametrize("which", LOSSES)
def test_in_tiles_the_value_and_every_gradient_are_those_of_one_piece(size: int, which: str) -> None:
    ours, plain, numbers = LOSSES[which]
    given = (*pairs(150), *map(number, numbers))
    wanted, got = plain(*given), ours(*given)
    assert got.item() == pytest.approx(wanted.item(), rel=1e-10)
    for x, y in zip(torch.autograd.grad(got, given), torch.autograd.grad(wanted, given), strict=True):
        assert torch.allclose(x, y, rtol=1e-9, atol=1e-15)
    with torch.no_grad():
        assert ours(*given).item() == pytest.approx(wanted.item(), rel=1e-10)


@pytest.mark.parametrize("which", ["(2.1)", "(2.1), several positives", "(2.4)"])
def test_a_gradient_can_be_differentiated_once_more(size: int, which: str) -> None:
    ours, plain, numbers = LOSSES[which]
    given = (*pairs(150), *map(number, numbers))

    def second(loss: Callable[..., Tensor]) -> tuple[Tensor, ...]:
        first = torch.autograd.grad(loss(*given), given, create_graph=True)
        return torch.autograd.grad(sum(g.square().sum() for g in first), given)
    for x, y in zip(second(ours), second(plain), strict=True):
        assert torch.allclose(x, y, rtol=1e-8, atol=1e-12)


def test_rows_too_long_or_too_short_to_be_squared_get_their_gradient() -> None:
    a, b = (x.detach().float() for x in pairs(8))
    scale = torch.tensor([1e-25, 1e25, 1, 1, 1e-3, 1, 1e20, 1])[:, None]
    near, far = (x.clone().requires_grad_() for x in (a, a * scale))
    wanted, = torch.autograd.grad(contrastive_loss(near, b, 0.3), near)
    got, = torch.autograd.grad(contrastive_loss(far, b, 0.3), far)
    assert torch.allclose(got * scale, wanted, rtol=1e-4, atol=1e-7)


class Largest(TorchDispatchMode):
    """The most floating numbers in any tensor that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        out = func(*args, **kwargs or {})
        for x in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(x, Tensor) and x.is_floating_point():
                self.most = max(self.most, x.numel())
        return out


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("which", [contrastive_loss, sigmoid_loss])
def test_no_tensor_made_on_the_way_grows_with_the_square_of_the_batch(which: Callable, several: bool) -> None:
    n = 4096
    a, b = (x.detach().float().requires_grad_() for x in pairs(n))
    right = torch.eye(n, dtype=torch.bool) if several else None
    with Largest() as seen:
        loss = which(a, b, 0.1, *([0.0] if which is sigmoid_loss else []), positives=right)
        torch.autograd.grad(loss, (a, b))
    assert seen.most == tiles.TILE < n * n


def test_the_formula_in_one_piece_equals_its_explicit_loops() -> None:
    a, b = pairs(5)
    unit = [[x / x.norm() for x in side.detach()] for side in (a, b)]
    sim = [[float(x @ y) for y in unit[1]] for x in unit[0]]
    e = torch.tensor(sim, dtype=torch.float64).div(0.3).exp()
    by_loops = -sum((e[i, i] / e[i].sum()).log() + (e[i, i] / e[:, i].sum()).log() for i in range(5)) / 10
    assert alignment.choose_own(a, b, number(0.3)).item() == pytest.approx(by_loops.item(), rel=1e-12)
