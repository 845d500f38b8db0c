"""训练的公共部分 / What all trainers share."""

import pytest
import torch
from torch import nn

from mmcore.training import choose_device, evaluating, make_optimizer, optimize


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def test_one_step_equals_adamw_by_hand() -> None:
    """第一步 AdamW 走 lr · sign(g)，矩阵再缩小 lr · weight_decay / The first step of AdamW is lr · sign(g)."""
    net = nn.Linear(2, 1)
    optimizer = make_optimizer(net, lr=0.1, weight_decay=0.5)
    weight, bias = net.weight.detach().clone(), net.bias.detach().clone()
    x = torch.tensor([[1.0, -2.0]])
    loss = optimize(net, optimizer, lambda: net(x).sum())
    assert loss == pytest.approx((weight @ x[0] + bias).item())
    assert torch.allclose(net.weight, weight * (1 - 0.1 * 0.5) - 0.1 * x.sign(), atol=1e-5)
    assert torch.allclose(net.bias, bias - 0.1, atol=1e-5)  # a bias does not decay


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_changes_nothing(value: float) -> None:
    net = model()
    optimizer = make_optimizer(net, 0.1, 0.1)
    x = torch.randn(5, 3)
    optimize(net, optimizer, lambda: net(x).pow(2).mean())
    before = {name: t.clone() for name, t in net.state_dict().items()}
    with pytest.raises(FloatingPointError, match=r"损失 loss 出现了 NaN.*has changed nothing"):
        optimize(net, optimizer, lambda: net(x * value).sum())
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    optimize(net, optimizer, lambda: net(x).pow(2).mean())  # and goes on


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    net = model()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    with pytest.raises(FloatingPointError, match="梯度 gradient"):
        optimize(net, make_optimizer(net, 0.1, 0.1), lambda: (net(torch.randn(5, 3)) * 0).sum().sqrt())
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())


def test_evaluating_restores_the_mode_even_after_an_error() -> None:
    net = model().train()
    def fails() -> None:
        with evaluating(net):
            assert not net.training
            assert not torch.is_grad_enabled()
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fails()
    assert net.training


def test_the_device_named_is_the_device_chosen() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device().type in ("cuda", "mps", "cpu")
