"""训练的公共部分 / What all trainers share."""

import pytest
import torch
from torch import nn

from mmcore.fusion import MultimodalFusion, MultimodalFusionTrainer
from mmcore.training import (
    choose_device,
    evaluating,
    make_optimizer,
    optimize,
    train_on,
)
from tests.support import OnMPS


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
    with pytest.raises(FloatingPointError, match=r"损失 loss .*请降低学习率 / .*nothing; lower the learning rate$"):
        optimize(net, optimizer, lambda: net(x * value).sum())
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    optimize(net, optimizer, lambda: net(x).pow(2).mean())  # and goes on


def test_a_gradient_that_is_not_finite_changes_nothing() -> None:
    net = model()
    optimizer = make_optimizer(net, 0.1, 0.1)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    with pytest.raises(FloatingPointError, match="梯度 gradient"):
        optimize(net, optimizer, lambda: (net(torch.randn(5, 3)) * 0).sum().sqrt())
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_forward_that_fails_after_a_batch_normalisation_changes_nothing(error: type[BaseException]) -> None:
    net = model()
    optimizer = make_optimizer(net, 0.1, 0.1)
    optimize(net, optimizer, lambda: net(torch.randn(5, 3)).pow(2).mean())
    before = {name: t.clone() for name, t in net.state_dict().items()}

    def forward() -> torch.Tensor:
        net(torch.randn(5, 3)).sum().backward()
        raise error("stop")

    with pytest.raises(error, match="stop"):
        optimize(net, optimizer, forward)
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_a_loss_that_does_not_depend_on_the_model_is_named_before_anything_changes() -> None:
    model, other = nn.Linear(2, 1), nn.Linear(2, 1)
    optimizer = make_optimizer(model, 0.1, 0.0)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(ValueError, match="the loss does not depend on this model"):
        optimize(model, optimizer, lambda: other(torch.ones(3, 2)).sum())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_evaluating_keeps_a_frozen_part_frozen_and_an_evaluated_net_evaluated(training: bool) -> None:
    net = model().train(training)
    net[1].train(not training)
    with evaluating(net):
        assert not any(module.training for module in net.modules())
    assert [module.training for module in net.modules()] == [training, training, not training, training]


def test_a_fusion_is_evaluated_on_a_device_without_float64() -> None:
    torch.manual_seed(0)
    trainer = MultimodalFusionTrainer(MultimodalFusion([3, 3], 4), "cpu", num_classes=2)
    features, targets = [torch.randn(6, 3), torch.randn(6, 3)], torch.tensor([0, 1, 0, 1, 0, 0])
    assert trainer.evaluate(features, targets.as_subclass(OnMPS)) == trainer.evaluate(features, targets)


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


@pytest.mark.parametrize(("cuda", "mps", "chosen"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")])
def test_where_no_device_is_named_cuda_comes_before_mps_and_mps_before_the_cpu(
        monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, chosen: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert choose_device() == torch.device(chosen)


def test_the_losses_come_back_as_numbers_and_the_one_that_is_named_goes_down() -> None:
    net = model().eval()
    x = torch.randn(5, 3)
    losses = train_on(net, make_optimizer(net, 0.1, 0.0), lambda: {"down": net(x).mean(), "up": -net(x).mean()}, "down")
    assert losses["down"] == pytest.approx(-losses["up"])
    assert not net.training
    assert net(x).mean().item() < losses["down"]
