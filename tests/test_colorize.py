import cv2
import numpy as np
import pytest
import torch
from torch import nn

from helpers import nets
from helpers.colorize import colorize, predict_mean_chrominance
from helpers.lab import bgr_to_lab

SHAPES = [(1, 1), (7, 300), (300, 200), (128, 128), (40, 1), (129, 257), (5, 3)]


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours of middle brightness, where no colour leaves sRGB."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(80, 170, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def small_net(**options) -> nets.Colorizer:
    torch.manual_seed(0)
    net = nets.Colorizer(**{"maps": 3, "num_down": 3, "head": "tanh", **options})
    net.train()(torch.rand(4, 1, 16, 16))  # statistics that no fresh network has
    return net


class Painter(nn.Module):
    """In a network's place: paints what `colour` makes of L*, notes what it is shown."""

    def __init__(self, colour, num_down: int = 5):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.colour, self.num_down, self.seen = colour, num_down, []

    def predict(self, L: torch.Tensor) -> torch.Tensor:
        self.seen.append(L.clone())
        return self.colour(L)


def constant(a: float, b: float):
    ab = torch.tensor([float(a), float(b)]).view(1, 2, 1, 1)
    return lambda L: ab.repeat(len(L), 1, *L.shape[2:])


def state(net: nn.Module) -> dict:
    return {name: value.clone() for name, value in net.state_dict().items()}


def luminance(image_bgr: np.ndarray) -> np.ndarray:
    return bgr_to_lab(image_bgr)[..., 0]


@pytest.mark.parametrize("network", ["colorizer", "unet"])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_size_comes_back_in_its_size_with_its_luminance(shape, network):
    image = photograph(*shape)
    unet = nets.UNet(base=2, levels=3, head="tanh")
    result = colorize(small_net() if network == "colorizer" else unet, image)
    assert result.shape == image.shape
    assert result.dtype == np.uint8
    assert np.abs(luminance(result) - luminance(image)).max() < 0.6


@pytest.mark.parametrize("shape", SHAPES)
def test_the_predicted_colour_is_what_the_picture_gets(shape):
    image = photograph(*shape)
    lab = bgr_to_lab(colorize(Painter(constant(20, -15)), image))
    assert np.abs(lab[..., 1] - 20).max() < 1.5
    assert np.abs(lab[..., 2] + 15).max() < 1.5
    assert np.abs(lab[..., 0] - luminance(image)).max() < 0.6


def test_the_finest_detail_of_the_luminance_stays():
    rng = np.random.default_rng(0)
    image = rng.integers(90, 160, (300, 200, 1), dtype=np.uint8).repeat(3, axis=2)
    result = colorize(Painter(constant(10, 10)), image)
    assert np.abs(luminance(result) - luminance(image)).max() < 0.6
    assert luminance(image).std() > 5


def test_a_grey_picture_gets_colour_and_a_colour_picture_loses_its_own():
    image = photograph(60, 90)
    lab = bgr_to_lab(image)
    lab[..., 1:] = 0
    grey = np.rint(255 * cv2.cvtColor(lab, cv2.COLOR_Lab2BGR)).astype(np.uint8)
    net = small_net()
    from_grey, from_colour = colorize(net, grey), colorize(net, image)
    assert np.abs(from_grey.astype(int) - from_colour).max() <= 4
    assert np.abs(from_colour.astype(int) - image).max() > 20
    painted = colorize(Painter(constant(30, 30)), grey)
    assert (painted[..., 2] > painted[..., 0].astype(int) + 20).all()


def test_each_colour_stands_where_its_luminance_stands():
    image = np.full((90, 240, 3), 90, np.uint8)
    image[:30, :60] = 160  # a light patch in the upper left corner

    def light_is_red(L):
        light = (L > 50).float()
        return torch.cat([40 * light - 20 * (1 - light), torch.zeros_like(L)], dim=1)

    a = bgr_to_lab(colorize(Painter(light_is_red), image))[..., 1]
    assert a[:26, :56].min() > 35
    assert a[34:].max() < -15
    assert a[:, 64:].max() < -15


@pytest.mark.parametrize(
    ("shape", "num_down", "expected"),
    [
        ((300, 200), 5, (192, 128)),
        ((128, 128), 5, (128, 128)),
        ((64, 96), 5, (128, 192)),
        ((300, 211), 3, (184, 128)),
        ((1, 1), 4, (128, 128)),
        ((500, 1000), 7, (128, 256)),
    ],
)
def test_the_network_sees_a_shorter_side_of_128_and_multiples_of_its_step(
    shape, num_down, expected
):
    painter = Painter(constant(0, 0), num_down)
    colorize(painter, photograph(*shape))
    assert painter.seen[0].shape == (1, 1, *expected)
    assert painter.seen[0].dtype == torch.float32


def test_the_network_sees_l_in_natural_units():
    painter = Painter(constant(0, 0))
    colorize(painter, np.full((50, 70, 3), 128, np.uint8))
    assert painter.seen[0].min().item() == pytest.approx(53.585, abs=0.02)
    assert painter.seen[0].max().item() == pytest.approx(53.585, abs=0.02)


def test_a_photograph_of_128_pixels_is_predicted_as_in_training():
    image, net = photograph(128, 128), small_net().eval()
    lab = torch.from_numpy(bgr_to_lab(image)).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = net.predict(lab[:, :1])[0].permute(1, 2, 0).numpy()
    found = bgr_to_lab(colorize(net, image))[..., 1:]
    assert np.abs(found - expected).max() < 1.5


def test_a_long_strip_is_not_enlarged_beyond_all_memory():
    painter = Painter(constant(0, 0))
    result = colorize(painter, photograph(1, 1000))
    assert result.shape == (1, 1000, 3)
    assert painter.seen[0].numel() <= 2**20  # 64 times a square of 128 pixels


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was_found(training):
    net = small_net().train(training)
    before = state(net)
    colorize(net, photograph(40, 60))
    assert all(module.training is training for module in net.modules())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_frozen_layer_is_left_frozen():
    net = small_net().train()
    net.down[1].eval()
    colorize(net, photograph(40, 60))
    assert net.training
    assert not net.down[1].training


def test_the_mode_is_restored_after_an_error():
    net = nets.Regressor().train()
    with pytest.raises(RuntimeError):
        net.layers[0].weight.data = torch.zeros(3, 4, 3, 3)
        predict_mean_chrominance(net, photograph(20, 20))
    assert net.training


def test_the_same_picture_twice_and_in_either_mode_is_equal():
    image, net = photograph(70, 50), small_net()
    first = colorize(net.train(), image)
    assert np.array_equal(first, colorize(net, image))
    colorize(net, photograph(30, 30, seed=1))
    assert np.array_equal(first, colorize(net.eval(), image))


def test_the_picture_given_is_not_changed():
    image = photograph(70, 50)
    before = image.copy()
    colorize(small_net(), image)
    predict_mean_chrominance(nets.Regressor(), image)
    assert np.array_equal(image, before)


def test_a_part_of_a_larger_picture_may_be_given():
    image = photograph(90, 90)
    part = image[10:60, 5:75]
    assert np.array_equal(
        colorize(small_net(), part), colorize(small_net(), part.copy())
    )


def test_black_and_white_stay_black_and_white_under_neutral_colour():
    image = np.zeros((40, 40, 3), np.uint8)
    assert colorize(Painter(constant(0, 0)), image).max() == 0
    assert colorize(Painter(constant(0, 0)), image + 255).min() >= 254


# The regressor --------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_the_mean_chrominance_is_two_numbers_for_any_size(shape):
    torch.manual_seed(0)
    a, b = predict_mean_chrominance(nets.Regressor(), photograph(*shape))
    assert type(a) is type(b) is float
    assert np.isfinite([a, b]).all()


def test_the_mean_chrominance_is_the_network_s_prediction():
    torch.manual_seed(0)
    net, image = nets.Regressor(8, batchnorm=True).train(), photograph(128, 128)
    L = torch.from_numpy(luminance(image))[None, None]
    with torch.no_grad():
        expected = net.eval().predict(L)[0].tolist()
    net.train()
    assert predict_mean_chrominance(net, image) == pytest.approx(expected, abs=1e-3)
    assert net.training


def test_the_regressor_sees_128_by_128_pixels_of_natural_luminance():
    painter = Painter(lambda L: L.mean(dim=(2, 3)) * torch.tensor([1.0, -1.0]))
    grey = np.full((300, 40, 3), 128, np.uint8)
    a, b = predict_mean_chrominance(painter, grey)
    assert painter.seen[0].shape == (1, 1, 128, 128)
    assert a == pytest.approx(53.585, abs=0.02)
    assert b == -a
