import pytest
import torch

from helpers.data.lab import LabImages
from helpers.nets import build
from helpers.nets.hinted import (
    MAX_POINTS,
    MEAN_MASK,
    POINT_SIDES,
    mean_hint,
    point_hints,
    training_hints,
)


def hinted(**options):
    torch.manual_seed(0)
    net = build("hinted_unet", **({"base": 4, "levels": 2} | options)).eval()
    torch.nn.init.normal_(net.last.weight)
    return net


@pytest.mark.parametrize("upscale_maps", [0, 8])
def test_empty_hints_are_the_same_as_none(upscale_maps):
    net = hinted(unshuffle=4, upscale_maps=upscale_maps, flip_tta=True)
    L = 100 * torch.rand(2, 1, 32, 48)
    empty = torch.cat([L, torch.zeros(2, 3, 32, 48)], dim=1)
    assert torch.equal(net.predict(L), net.predict(empty))
    hint = empty.clone()
    hint[:, 1:, 8:16, 8:16] = torch.tensor([30.0, -40.0, 1.0])[:, None, None]
    assert not torch.allclose(net.predict(L), net.predict(hint))


def test_a_hint_is_mirrored_with_the_image():
    net = hinted(flip_tta=True)
    x = torch.cat([100 * torch.rand(1, 1, 32, 32), torch.zeros(1, 3, 32, 32)], dim=1)
    x[:, 1:, 4:12, 2:10] = torch.tensor([30.0, 20.0, 1.0])[:, None, None]
    mirrored = net.predict(x.flip(3)).flip(3)
    assert torch.allclose(net.predict(x), mirrored, atol=1e-3)


def test_points_show_the_mean_color_inside_them():
    torch.manual_seed(1)
    ab = torch.randn(3, 2, 40, 50)
    planes = point_hints(ab, torch.tensor([0, 1, 1]))
    assert planes.shape == (3, 3, 40, 50)
    assert planes[0].abs().sum() == 0
    for image, plane in zip(ab[1:], planes[1:], strict=True):
        inside = plane[2] == 1
        side = inside.sum().sqrt()
        assert side == side.round() and POINT_SIDES[0] <= side <= POINT_SIDES[1]
        assert torch.allclose(plane[:2, inside].mean(1), image[:, inside].mean(1))
        assert plane[:, ~inside].abs().sum() == 0


def test_overlapping_points_are_averaged():
    ab = torch.tensor([3.0, -7.0]).view(1, 2, 1, 1).expand(1, 2, 12, 12)
    planes = point_hints(ab, torch.tensor([10]), (12, 12))
    assert torch.allclose(planes[:, :2], ab, atol=1e-5)
    assert (planes[:, 2] == 1).all()


def test_training_draws_every_kind_of_hint():
    torch.manual_seed(0)
    ab = torch.randn(600, 2, 16, 16)
    mask = training_hints(ab)[:, 2].flatten(1)
    is_none, is_mean = (mask == 0).all(1), (mask == MEAN_MASK).all(1)
    assert 0.2 < is_none.float().mean() < 0.4
    assert 0.15 < is_mean.float().mean() < 0.35
    assert (mask[~is_none & ~is_mean].amax(1) == 1).all()
    hints = training_hints(ab)
    means = hints[:, 2].flatten(1).amax(1) == MEAN_MASK
    assert torch.allclose(hints[means][:, :2, 0, 0], ab[means].mean((2, 3)), atol=1e-5)


def test_the_number_of_points_is_at_most_max_points():
    torch.manual_seed(0)
    ab = torch.zeros(300, 2, 64, 64)
    area = training_hints(ab)[:, 2].flatten(1).sum(1)
    assert area.max() <= max(MAX_POINTS * POINT_SIDES[1] ** 2, MEAN_MASK * 64**2)


def test_the_mean_hint_fills_the_image():
    planes = mean_hint(torch.tensor([[1.0, 2.0]]), (4, 6))
    assert planes.shape == (1, 3, 4, 6)
    assert planes[0, :, 3, 5].tolist() == [1.0, 2.0, MEAN_MASK]


def test_the_training_input_holds_hints_and_depends_on_the_seed():
    net = hinted()
    images = LabImages(100 * torch.rand(8, 1, 16, 16), 20 * torch.randn(8, 2, 16, 16))
    inputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        inputs.append(net.inputs(images))
    assert inputs[0].shape == (8, 4, 16, 16) and inputs[0][:, 0].max() <= 1
    assert torch.equal(inputs[0], inputs[1])
    assert not torch.equal(inputs[0], inputs[2])
