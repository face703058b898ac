import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.nets import (
    NETWORKS,
    Colorizer,
    MeanHeadUNet,
    Regressor,
    UNet,
    build,
    count_gflop,
    count_parameters,
)
from helpers.nets.mean_head import lightness_features

COURSE = [
    "regressor",
    "colorizer",
    "unet",
]  # made for the course: any head, initialized to neutral
HEADS = ["relu", "sigmoid", "tanh", "linear"]
SMALL = [  # name, options, side of the input
    *[("regressor", {"maps": 8, "head": head}, 128) for head in HEADS],
    ("regressor", {"batchnorm": True}, 128),
    *[("colorizer", {"maps": 4, "num_down": 3, "head": head}, 16) for head in HEADS],
    ("colorizer", {"maps": [4, 6], "upsample": "nearest"}, 16),
    ("colorizer", {"maps": [4, 6], "batchnorm": False}, 16),
    *[("unet", {"base": 4, "levels": 3, "head": head}, 16) for head in HEADS],
]
IDS = [f"{name}-{'-'.join(map(str, options.values()))}" for name, options, _ in SMALL]


def lightness(number: int, side: int, seed: int = 0) -> torch.Tensor:
    """Return L*/100 (B, 1, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(number, 1, side, side, generator=generator)


def seeded(name: str, seed: int = 0, **options) -> nn.Module:
    torch.manual_seed(seed)
    return build(name, **options)


@pytest.fixture(autouse=True)
def seeded_starts() -> None:
    """Seed torch: with some seeds every ReLU of the smallest networks is zero."""
    torch.manual_seed(0)


def clones(net: nn.Module) -> dict:
    return {name: value.clone() for name, value in net.state_dict().items()}


def assert_state_is(net: nn.Module, before: dict) -> None:
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


# Shapes ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("num_down", [3, 4, 5, 6])
@pytest.mark.parametrize("upsample", ["transposed", "nearest"])
def test_the_colorizer_returns_two_planes_of_the_input_s_size(num_down, size, upsample):
    net = Colorizer(2, num_down, upsample).eval()
    with torch.no_grad():
        assert net(lightness(2, size)).shape == (2, 2, size, size)
        assert net.down(lightness(1, size)).shape[2:] == (size >> num_down,) * 2
    assert net.num_down == num_down


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("batchnorm", [True, False])
def test_every_head_of_the_colorizer_keeps_a_size_that_is_not_square(head, batchnorm):
    net = Colorizer(3, 3, batchnorm=batchnorm, head=head)
    assert net(torch.rand(2, 1, 16, 40)).shape == (2, 2, 16, 40)


def test_maps_are_one_number_for_all_layers_or_a_list():
    def widths(net):
        return [m.out_channels for m in net.modules() if hasattr(m, "out_channels")]

    assert widths(Colorizer(7, 3)) == [7, 7, 7, 7, 7, 2]
    assert widths(Colorizer([8, 16, 32])) == [8, 16, 32, 16, 8, 2]
    assert Colorizer([8, 16, 32]).num_down == 3
    assert Colorizer((5, 6), num_down=9).num_down == 2


@pytest.mark.parametrize("size", [128, 64, 256])
@pytest.mark.parametrize("maps", [3, 8])
def test_the_regressor_returns_two_numbers_per_image(maps, size):
    assert Regressor(maps)(lightness(3, size)).shape == (3, 2)


@pytest.mark.parametrize("levels", [2, 3, 4])
@pytest.mark.parametrize("size", [32, 64, 128])
def test_the_unet_returns_two_planes_of_the_input_s_size(levels, size):
    net = UNet(base=2, levels=levels)
    assert net(lightness(2, size)).shape == (2, 2, size, size)
    assert net.num_down == levels


def test_every_level_of_the_unet_but_the_last_has_a_skip():
    net = UNet(base=4, levels=4, max_channels=16)
    assert [block[0].in_channels for block in net.trunk.down] == [4, 4, 8, 16]
    assert [block[0].out_channels for block in net.trunk.down] == [4, 8, 16, 16]
    assert len(net.trunk.up) == 3
    assert [block[0].in_channels for block in net.trunk.up] == [16 + 16, 16 + 8, 8 + 4]
    assert [block[0].out_channels for block in net.trunk.up] == [16, 8, 4]


def test_the_decoder_of_the_unet_may_have_one_convolution_per_level():
    net = UNet(base=4, levels=3, up_convs=1)
    assert [len(block) for block in net.trunk.down] == [6, 6, 6]
    assert [len(block) for block in net.trunk.up] == [3, 3]
    assert net(lightness(2, 16)).shape == (2, 2, 16, 16)


def test_with_flip_tta_the_unet_predicts_mirrored_maps_for_mirrored_images():
    net = UNet(base=4, levels=2, flip_tta=True).eval()
    nn.init.normal_(net.last.weight)
    L = 100 * lightness(2, 16)
    with torch.no_grad():
        one, other = net.predict(L), net.predict(L.flip(3)).flip(3)
        net.flip_tta = False
        once = net.predict(L)
    assert torch.allclose(one, other, atol=1e-5)
    assert (one - once).abs().max() > 1e-3


@pytest.mark.parametrize("unshuffle", [2, 4])
def test_the_unet_works_on_unshuffled_planes_and_enlarges_bilinearly(unshuffle):
    net = UNet(base=2, levels=2, unshuffle=unshuffle).eval()
    nn.init.normal_(net.last.weight)
    inner = []
    net.last.register_forward_hook(lambda *x: inner.append(x[-1]))
    with torch.no_grad():
        out = net(lightness(1, 16))
    assert inner[0].shape == (1, 2, 16 // unshuffle, 16 // unshuffle)
    expected = F.interpolate(inner[0], scale_factor=unshuffle, mode="bilinear")
    assert torch.equal(out, expected)
    assert out.std() > 0
    assert 2**net.num_down == 2 * unshuffle


def test_the_upscale_block_predicts_at_half_the_size_from_every_pixel():
    net = UNet(base=4, levels=2, unshuffle=4, upscale_maps=6).eval()
    nn.init.normal_(net.last.weight)
    inner = []
    net.last.register_forward_hook(lambda *x: inner.append(x[-1]))
    L = lightness(9, 16).requires_grad_()
    out = net(L)
    assert inner[0].shape == (9, 2, 8, 8)
    assert torch.equal(out, F.interpolate(inner[0], scale_factor=2, mode="bilinear"))
    assert (net.upscale, net.num_down) == (2, 3)
    net.trunk.requires_grad_(False)
    (near,) = torch.autograd.grad(inner[0][:, :, 4, 4].sum(), L)
    near = near.abs().sum(dim=0)[0]
    assert (near[6:12, 6:12] > 0).all()  # 3 x 3 patches of 2 x 2 pixels


def test_lightness_features_do_not_depend_on_positions():
    L = lightness(3, 32)
    found = lightness_features(L)
    assert found.shape == (3, 7)
    assert torch.allclose(found, lightness_features(L.flip(3)), atol=1e-5)
    assert torch.allclose(found, lightness_features(L.transpose(2, 3)), atol=1e-5)
    brighter = lightness_features(L + 0.1)
    assert torch.allclose(brighter[:, 0], found[:, 0] + 0.8, atol=1e-4)
    assert torch.allclose(brighter[:, 1:], found[:, 1:], atol=1e-4)


@pytest.mark.parametrize("upscale_maps", [0, 6])
def test_the_mean_head_does_not_train_the_encoder(
    upscale_maps,
):
    net = MeanHeadUNet(base=4, levels=2, upscale_maps=upscale_maps).eval()
    for layer in (net.last, net.from_lightness, net.from_features):
        nn.init.normal_(layer.weight)
    out = net(lightness(3, 32))
    mean = out.mean(dim=(2, 3))
    assert out.shape == (3, 2, 32, 32)
    assert mean.std() > 0.01 and (out - mean[:, :, None, None]).std() > 0.001
    mean.sum().backward()
    assert net.from_lightness.weight.grad.abs().min() > 0
    assert net.from_features.weight.grad.abs().max() > 0
    map_grad = max(p.grad.abs().max() for p in net.trunk.parameters() if p.ndim == 4)
    head_grad = net.from_features.weight.grad.abs().max()
    assert map_grad < 1e-4 * head_grad


# Parameters -----------------------------------------------------------------------


def test_the_assignment_s_regressor_has_1370_parameters():
    first, middle, last = 1 * 3 * 25 + 3, 3 * 3 * 25 + 3, 3 * 2 * 25 + 2
    assert first + 5 * middle + last == 1370
    assert count_parameters(Regressor()) == 1370


def test_batchnorm_replaces_the_bias_in_the_regressor():
    assert count_parameters(Regressor(batchnorm=True)) == 1370 + 6 * 3


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 27 + 4 * 81 + 4 * 144 + 9 * 6 + 98),  # 3 maps, 5 layers, BatchNorm
        ({"batchnorm": False}, 30 + 4 * 84 + 4 * 147 + 98),
        ({"batchnorm": False, "upsample": "nearest"}, 30 + 8 * 84 + 56),
        ({"maps": [8, 16]}, 72 + 16 + 1152 + 32 + 2048 + 16 + 258),
    ],
)
def test_the_colorizer_has_the_parameters_counted_by_hand(options, expected):
    assert count_parameters(Colorizer(**options)) == expected


def test_the_unet_has_the_parameters_counted_by_hand():
    down = (4 * 4 * 9 + 8) * 2 + (4 * 8 * 9 + 16) + (8 * 8 * 9 + 16)
    up = (12 * 4 * 9 + 8) + (4 * 4 * 9 + 8)
    assert count_parameters(UNet(base=4, levels=2)) == down + up + (4 * 2 + 2)


def test_frozen_parameters_are_not_counted():
    net = Regressor()
    net.layers[0].weight.requires_grad_(False)
    assert count_parameters(net) == 1370 - 75


# Predictions ----------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options", "side"), SMALL, ids=IDS)
def test_predict_is_forward_on_l_over_100_in_natural_units(name, options, side):
    net = build(name, **options).eval()
    L = lightness(2, side) * 100
    with torch.no_grad():
        ab_hat = net.predict(L)
        once = net.scale.decode(net(L / 100))
        mirrored = net.scale.decode(net(L.flip(3) / 100))
        expected = (once + mirrored) / 2 if name == "regressor" else once
        assert torch.allclose(ab_hat, expected, atol=1e-3)
        assert torch.allclose(net.predict(L.half()), ab_hat, atol=0.5)
    assert ab_hat.dtype == torch.float32
    assert ab_hat.shape == net.true_ab(torch.zeros(2, 2, side, side)).shape


@pytest.mark.parametrize("name", ["colorizer", "unet", "regressor"])
@pytest.mark.parametrize(
    ("head", "low", "high"),
    [("relu", -128, float("inf")), ("sigmoid", -128, 127), ("tanh", -128, 128)],
)
def test_predictions_stay_in_the_range_of_the_head(name, head, low, high):
    net = seeded(name, head=head)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=3)  # extreme weights
    ab_hat = net.predict(lightness(4, 128) * 100).detach()
    assert ab_hat.std() > 1
    assert ab_hat.min() >= low - 1e-3
    assert ab_hat.max() <= high + 1e-3


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", COURSE)
def test_an_untrained_network_predicts_near_neutral_and_can_learn(name, head):
    for seed in range(3):
        net = seeded(name, seed, head=head)
        L = lightness(2, 128) * 100
        with torch.no_grad():
            ab_hat = net.eval().predict(L)
        spread = 255 if head in ("relu", "sigmoid") else net.scale.unit.item()
        assert ab_hat.abs().max() < 0.5 * spread
        net.train()
        ab = torch.full((2, 2, 128, 128), 15.0)
        F.mse_loss(net(L / 100), net.target(ab)).backward()
        last = [p for p in net.parameters() if p.requires_grad][-1]
        assert last.grad.abs().min() > 0


@pytest.mark.parametrize("name", COURSE)
def test_a_relu_head_starts_above_zero_for_every_image(name):
    for seed in range(10):
        net = seeded(name, seed, head="relu").eval()
        with torch.no_grad():
            assert net(lightness(4, 128)).min() > 0


def test_the_regressor_predicts_the_mean_chrominance():
    ab = torch.zeros(2, 2, 128, 128, dtype=torch.float16)
    ab[0, 0, :64] = 100
    ab[1, 1] = -7
    assert Regressor().true_ab(ab).tolist() == [[50, 0], [0, -7]]
    target = Regressor().target(ab)
    assert target[1].tolist() == pytest.approx([128 / 255, 121 / 255])


def test_the_colorizer_predicts_every_pixel():
    ab = torch.randn(2, 2, 8, 8)
    assert torch.equal(Colorizer().true_ab(ab), ab)
    assert torch.allclose(Colorizer(head="tanh").target(ab), ab / 128)


def test_labels_may_have_another_scale_than_the_head():
    ab = torch.zeros(1, 2, 8, 8)
    net = Colorizer(head="tanh", labels="sigmoid")
    assert torch.allclose(net.target(ab), torch.tensor(128 / 255))
    assert Colorizer(head="tanh").target(ab).abs().max() == 0


def test_fit_scale_uses_the_statistics_of_the_labels():
    ab = torch.randn(40, 2, 8, 8) * 5 + torch.tensor([3.0, 8.0]).view(2, 1, 1)
    colorizer, regressor = Colorizer(head="linear"), Regressor(head="linear")
    colorizer.fit_scale(ab)
    regressor.fit_scale(ab)
    assert colorizer.scale.offset.tolist() == pytest.approx([3, 8], abs=0.4)
    assert colorizer.scale.unit.item() == pytest.approx(5, rel=0.05)
    assert regressor.scale.unit.item() == pytest.approx(5 / 8, rel=0.2)


# Learning -------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options", "side"), SMALL, ids=IDS)
def test_the_loss_falls_on_a_tiny_batch(name, options, side):
    net = seeded(name, **options)
    if name == "regressor":  # the brightness of an image determines its color
        L = lightness(6, side) * torch.linspace(0.2, 1, 6).view(-1, 1, 1, 1)
        level = L.mean(dim=(2, 3), keepdim=True).expand_as(L)
    else:  # the brightness of a patch determines its color
        level = L = F.interpolate(lightness(6, 2), side)
    ab = torch.cat([60 * level, 20 - 50 * level], dim=1)
    net.fit_scale(ab)
    target = net.target(ab)
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = F.mse_loss(net(L), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    channels = [0, *range(2, target.ndim)]
    constant = target.var(dim=channels, correction=0).mean().item()
    assert losses[-1] < 0.6 * losses[0]
    assert losses[-1] < 0.5 * constant  # it has learned more than the mean color


@pytest.mark.parametrize("name", NETWORKS)
def test_every_parameter_gets_a_gradient(name):
    net = seeded(name, **{"regressor": {"maps": 8}}.get(name, {}))
    for module in net.modules():  # the U-Net's last weights start at zero
        if isinstance(module, nn.Conv2d) and not module.weight.any():
            nn.init.normal_(module.weight)
    net(lightness(4, 128)).square().sum().backward()
    for key, parameter in net.named_parameters():
        if not parameter.requires_grad:  # the guided colorizer's trained regressor
            continue
        assert parameter.grad is not None, key
        assert parameter.grad.abs().sum() > 0, key


# Built by name --------------------------------------------------------------------


def test_networks_are_built_by_name_with_their_options():
    assert isinstance(build("regressor", maps=5), Regressor)
    assert isinstance(build("unet"), UNet)
    assert isinstance(build("colorizer", num_down=4), Colorizer)
    assert count_parameters(build("regressor", maps=4)) > 1370


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet", {}, "network 'resnet': use one of regressor, colorizer, unet"),
        ("colorizer", {"upsample": "bicubic"}, "upsample 'bicubic'"),
        ("colorizer", {"head": "softmax"}, "head 'softmax'"),
        ("colorizer", {"head": "softmax", "labels": "tanh"}, "head 'softmax'"),
        ("colorizer", {"labels": "softmax"}, "head 'softmax'"),
        ("regressor", {"head": "gelu"}, "head 'gelu'"),
        ("unet", {"head": "gelu"}, "head 'gelu'"),
    ],
)
def test_an_unknown_name_raises_and_is_in_the_message(name, options, message):
    with pytest.raises(ValueError, match=message):
        build(name, **options)


def test_an_unknown_option_raises():
    with pytest.raises(TypeError, match="depth"):
        build("unet", depth=3)


def test_the_same_seed_builds_the_same_network():
    for name in NETWORKS:
        assert_state_is(seeded(name, seed=3), clones(seeded(name, seed=3)))
        one, other = clones(seeded(name, seed=3)), clones(seeded(name, seed=4))
        assert any(not torch.equal(one[key], other[key]) for key in one)


def test_unet_mean_predicts_the_mean_of_its_map():
    options = {"base": 4, "levels": 2, "flip_tta": True}
    net, painter = build("unet_mean", **options).eval(), UNet(**options).eval()
    nn.init.normal_(net.last.weight)
    painter.load_state_dict(net.state_dict())
    ab = torch.randn(5, 2, 16, 16) * 9 + 4
    for one in (net, painter):
        one.fit_scale(ab)
    L = 100 * lightness(2, 16)
    with torch.no_grad():
        found, expected = net.predict(L), painter.predict(L).mean(dim=(2, 3))
    assert found.shape == (2, 2) and torch.equal(found, expected)
    assert torch.equal(net.target(ab), painter.target(ab)), "it learns the whole map"


MAPS = {
    "colorizer": {"num_down": 3},
    "unet": {"base": 2, "levels": 3},
    "mean_head_unet": {"base": 2, "levels": 3, "upscale_maps": 4, "unshuffle": 4},
    "hinted_unet": {"base": 2, "levels": 3},
    "classifier": {"base": 2, "levels": 3},
    "pooled_colorizer": {},
    "guided_colorizer": {},
    "strided_colorizer": {"maps": (2, 4, 4)},
    "global_local": {"size": 64, "width": 1 / 32},
}


def test_every_map_network_is_in_the_tests_below():
    assert {n for n, kind in NETWORKS.items() if kind.task == "map"} == set(MAPS)


@pytest.mark.parametrize("name", MAPS)
def test_a_map_is_predicted_for_photographs_that_are_not_square(name):
    net = build(name, **MAPS[name]).eval()
    L = 100 * torch.rand(1, 1, 160, 96)
    with torch.no_grad():
        ab, small = net.predict(L), net.predict_map(L)
    assert ab.shape == (1, 2, 160, 96) and ab.isfinite().all()
    side = (64, 64) if name == "global_local" else (160, 96)
    assert small.shape == (1, 2, *(n // net.upscale for n in side))
    if net.upscale == 1:
        assert torch.equal(small, ab)


@pytest.mark.parametrize("name", ["guided_colorizer", "global_local"])
def test_networks_of_reports_colorize_a_photograph_of_any_size(name):
    from helpers.apps.colorize import colorize

    net = build(name, **MAPS[name])
    image_bgr = np.random.default_rng(0).integers(0, 255, (150, 200, 3), np.uint8)
    result_bgr = colorize(net, image_bgr)
    assert result_bgr.shape == image_bgr.shape and result_bgr.dtype == np.uint8


def test_the_map_holds_the_mean_of_each_cell():
    net = build("unet", base=2, levels=2, flip_tta=True).eval()
    nn.init.normal_(net.last.weight)
    L = 100 * torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        small, ab = net.predict_map(L), net.predict(L)
    cells = ab.unflatten(3, (8, 2)).unflatten(2, (8, 2)).mean(dim=(3, 5))
    assert torch.allclose(small, cells, atol=1e-6)


def test_the_map_of_a_classifier_is_its_decoded_logits():
    net = build("classifier", base=2, levels=2).eval()
    L = 100 * torch.rand(2, 1, 16, 16)
    with torch.no_grad():
        small = net.decode(net(L / 100), net.temperature)
        assert torch.equal(net.predict_map(L), small)


@pytest.mark.parametrize("name", ["unet", "regressor"])
def test_two_passes_cost_twice_the_operations(name):
    once, twice = (build(name, flip_tta=flip_tta) for flip_tta in (False, True))
    assert (once.passes, twice.passes) == (1, 2)
    assert count_gflop(twice) == 2 * count_gflop(once) > 0


@pytest.mark.parametrize("flip_tta", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_predict_has_as_many_forward_passes_as_it_says(name, flip_tta):
    net = seeded(name, **MAPS.get(name, {})).eval()
    net.flip_tta = flip_tta
    inputs = (255 if net.task == "rgb" else 100) * lightness(2, 128)
    passes = []
    net.register_forward_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        y, mirrored = net.predict(inputs), net.predict(inputs.flip(3))
    assert len(passes) == 2 * net.passes == (4 if flip_tta else 2)
    if flip_tta:
        mirrored = mirrored.flip(3) if y.ndim == 4 else mirrored
        torch.testing.assert_close(y, mirrored, rtol=1e-4, atol=1e-3)
