import copy

import pytest
import torch
from engine import fit
from torch import nn

from helpers import nets
from helpers.data.lab import LabImages
from helpers.training.muon import Muon, orthogonal
from helpers.training.optim import Recipe, make_optimizer


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (16, 16)])
def test_orthogonal_keeps_directions_and_equalizes_singular_values(shape):
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    U, S, V = torch.linalg.svd(matrix, full_matrices=False)
    step = orthogonal(matrix)
    inner = U.T @ step @ V.T  # diagonal if the singular vectors are kept
    singular_values = inner.diagonal()
    assert (inner - singular_values.diag()).abs().max() < 1e-3
    if shape != (16, 16):  # a random square matrix has singular values near zero
        assert S.max() / S.min() > 1.5
        assert singular_values.min() > 0.65 and singular_values.max() < 1.25


def test_the_collected_iteration_equals_the_plain_one():
    torch.manual_seed(0)
    matrix = torch.randn(8, 50, dtype=torch.float64)
    X = matrix / matrix.norm()
    for _ in range(5):
        gram = X @ X.T
        X = 3.4445 * X - 4.7750 * gram @ X + 2.0315 * gram @ gram @ X
    assert torch.allclose(orthogonal(matrix), X, atol=1e-5)


def test_a_zero_gradient_gives_a_zero_step():
    assert torch.equal(orthogonal(torch.zeros(3, 9)), torch.zeros(3, 9))


def test_kernels_take_orthogonal_steps_and_other_parameters_adam_steps():
    torch.manual_seed(0)
    net = nn.Sequential()
    net.add_module("first", nn.Conv2d(1, 4, 3))
    net.add_module("last", nn.Conv2d(4, 2, 1))
    before = copy.deepcopy(net)
    optimizer = Muon(net, lr=0.1, weight_decay=0.0)
    net(torch.rand(2, 1, 8, 8)).square().mean().backward()
    gradients = {name: p.grad.clone() for name, p in net.named_parameters()}
    optimizer.step()
    moved = {
        name: p - q
        for (name, p), q in zip(
            net.named_parameters(), before.parameters(), strict=True
        )
    }
    nesterov = gradients["first.weight"] * (0.05 + 0.95 * 0.05)
    assert torch.allclose(
        moved["first.weight"].flatten(1),
        -0.1 * orthogonal(nesterov.flatten(1)),
        atol=1e-4,
    )
    for name in ("first.bias", "last.weight", "last.bias"):
        other = copy.deepcopy(before)
        parameter = dict(other.named_parameters())[name]
        parameter.grad = gradients[name]
        torch.optim.Adam([parameter], 0.02).step()
        start = dict(before.named_parameters())[name]
        assert torch.allclose(moved[name], parameter - start, atol=1e-6), name


def test_weight_decay_applies_to_kernels_only():
    net = nn.Conv2d(1, 4, 3)
    optimizer = Muon(net, lr=0.1, weight_decay=0.5)
    for parameter in net.parameters():
        nn.init.ones_(parameter)
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.allclose(net.weight, torch.full_like(net.weight, 0.95))
    assert torch.equal(net.bias, torch.ones(4))


def test_the_schedule_scales_both_learning_rates():
    net = nets.build("unet", base=2, levels=2)
    recipe = Recipe(num_epochs=4, optimizer="muon", lr=0.04)
    optimizer, scheduler = make_optimizer(net, recipe, steps_per_epoch=5)
    rates = []
    for _ in range(20):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    kernels, _ = zip(*rates, strict=True)
    assert max(kernels) == pytest.approx(0.04, rel=0.02)
    assert kernels[-1] < 1e-4
    assert all(b == pytest.approx(0.2 * a) for a, b in rates)
    assert optimizer.param_groups[0]["momentum"] == 0.95, "not cycled"


def test_the_loss_falls():
    torch.manual_seed(0)
    L = torch.rand(20, 1, 1, 1).expand(-1, -1, 16, 16) * 100
    images = LabImages(L.half(), torch.cat([L / 4, -L / 5], dim=1).half())
    net = nets.build("unet", base=4, levels=2)
    recipe = Recipe(num_epochs=30, batch_size=5, optimizer="muon", lr=0.05)
    history = fit(net, images, recipe=recipe)
    assert history["train_mse"][-1] < history["train_mse"][0] / 5
