"""The networks of the earlier reports on a*, b*: their layers and protocols."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from helpers.data.course import course_data
from helpers.data.faces import FaceSet, split_faces
from helpers.data.lab import LabImages, is_gray
from helpers.experiments.profiles import PROFILES
from helpers.experiments.registry import EXPERIMENTS, get_experiment
from helpers.experiments.run import train_experiment
from helpers.nets import (
    GlobalLocal,
    GuidedColorizer,
    PooledColorizer,
    PooledRegressor,
    StridedColorizer,
    StridedRegressor,
    build,
    count_gflop,
    count_parameters,
)
from helpers.nets.report004 import ALPHA

REPORTS = [name for name in EXPERIMENTS if name.startswith("report")]
FULL = PROFILES["full"]


def kinds(net, *wanted):
    return [m for m in net.modules() if isinstance(m, wanted)]


def shapes(net, kind):
    return [(m.in_channels, m.out_channels) for m in kinds(net, kind)]


def sizes(net, size=128):
    """Return the heights of the outputs of all convolutions."""
    found = []
    for module in kinds(net, nn.Conv2d, nn.ConvTranspose2d):
        module.register_forward_hook(lambda _m, _i, y: found.append(y.shape[2]))
    net.eval()(torch.zeros(1, 1, size, size))
    return found


# Report 000 -----------------------------------------------------------------------


def test_the_regressor_of_report_000():
    net = PooledRegressor()
    assert shapes(net, nn.Conv2d) == [(1, 3)] + [(3, 3)] * 6
    assert sizes(net) == [128, 64, 32, 16, 8, 4, 2]
    assert [len(kinds(net, kind)) for kind in (nn.BatchNorm2d, nn.MaxPool2d)] == [7, 6]
    assert count_parameters(net) == (9 * 3 + 3) + 6 * (27 * 3 + 3) + 7 * 6 + 12 * 2 + 2


def test_the_colorizer_of_report_000():
    net = PooledColorizer()
    assert shapes(net, nn.Conv2d) == [(1, 3), (3, 3), (3, 3), (3, 3)]
    assert shapes(net, nn.ConvTranspose2d) == [(3, 3), (3, 3), (3, 3), (3, 2)]
    assert sizes(net) == [128, 64, 32, 16, 16, 32, 64, 128]
    down = (9 * 3 + 3) + 3 * (27 * 3 + 3) + 4 * 6
    up = 3 * (48 * 3 + 3) + 3 * 6 + (48 * 2 + 2)
    assert count_parameters(net) == down + up


def test_the_many_maps_of_report_000():
    experiment = get_experiment("report000/maps")
    net = build(experiment.network, **experiment.options_for(FULL))
    assert shapes(net, nn.Conv2d) == [(1, 64), (64, 128), (128, 256), (256, 512)]
    up = [(512, 512), (512, 256), (256, 64), (64, 2)]
    assert shapes(net, nn.ConvTranspose2d) == up
    assert round(count_parameters(net) / 1e6, 1) == 8.1


def test_the_guided_colorizer_gets_the_means_of_the_trained_regressor():
    torch.manual_seed(0)
    net, trained = GuidedColorizer(), PooledRegressor()
    net.load_pretrained(trained)
    L = torch.rand(2, 1, 128, 128)
    seen = []
    net.colorizer.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    net.train()(L)
    with torch.no_grad():
        means = trained.eval()(L)
    assert seen[0].shape == (2, 3, 128, 128)
    torch.testing.assert_close(seen[0][:, :1], L)
    torch.testing.assert_close(seen[0][:, 1:, 5, 7], means)
    assert not net.regressor.training and net.colorizer.training


def test_training_the_guided_colorizer_does_not_change_its_regressor(data):
    name = "report000/guided"
    first = train_experiment(
        "report000/regressor", data, PROFILES["quick"], num_epochs=1
    )
    guided = train_experiment(name, data, PROFILES["quick"], num_epochs=1)
    wanted = first.net.state_dict()
    for key, value in guided.net.regressor.state_dict().items():
        assert torch.equal(value, wanted[key]), key
    assert first.evaluation.mse.mean > 0


def test_tanh_with_the_labels_of_the_report_and_with_its_own():
    was, should = (
        build(e.network, **e.options)
        for e in map(get_experiment, ("report000/tanh", "report000/tanh-rescaled"))
    )
    gray = torch.zeros(1, 2, 1, 1)
    assert was.scale.encode(gray).mean() == pytest.approx(128 / 255)
    assert should.scale.encode(gray).abs().max() == 0
    assert len(kinds(was, nn.Tanh)) == len(kinds(should, nn.Tanh)) == 1


def test_report_000_does_not_scale_brightness_unless_darkened():
    assert not get_experiment("report000/sigmoid").scale_brightness
    assert get_experiment("report000/sigmoid-darkened").scale_brightness


# Report 001 -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maps", "parameters"),
    [((32, 64, 128, 256, 256, 512), 3_842_210), ((8, 16, 32, 64, 128, 256), 702_058)],
)
def test_the_regressors_of_report_001(maps, parameters):
    net = StridedRegressor(maps)
    assert shapes(net, nn.Conv2d) == list(zip((1, *maps), maps, strict=False))
    assert sizes(net) == [64, 32, 16, 8, 4, 2]
    assert kinds(net, nn.Linear)[0].in_features == maps[-1] * 2 * 2
    counted = sum(16 * i * o + 3 * o for i, o in zip((1, *maps), maps, strict=False))
    assert count_parameters(net) == counted + maps[-1] * 8 + 2 == parameters


def test_the_colorizer_of_report_001():
    net = StridedColorizer()
    up = [(512, 256), (256, 256), (256, 128), (128, 64), (64, 32), (32, 2)]
    assert shapes(net, nn.ConvTranspose2d) == up
    assert sizes(net) == [64, 32, 16, 8, 4, 2, 4, 8, 16, 32, 64, 128]
    assert isinstance(net.layers[-1], nn.Sigmoid)
    assert isinstance(StridedColorizer(head="tanh").layers[-1], nn.Tanh)


# Report 004 -----------------------------------------------------------------------


def test_the_paper_s_network_has_its_size():
    net = GlobalLocal(128, "paper")
    assert round(count_parameters(net) / 1e6, 1) == 24.9
    assert round(count_gflop(net), 1) == 5.6
    assert shapes(net.low, nn.Conv2d) == [
        (1, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512),
    ]  # fmt: skip
    assert [m.stride[0] for m in kinds(net.low, nn.Conv2d)] == [2, 1, 2, 1, 2, 1]
    assert shapes(net.mid, nn.Conv2d) == [(512, 512), (512, 256)]
    assert [m.stride[0] for m in kinds(net.global_conv, nn.Conv2d)] == [2, 1, 2, 1]
    assert shapes(net.colorization, nn.Conv2d) == [
        (256, 128), (128, 64), (64, 64), (64, 32), (32, 2),
    ]  # fmt: skip


def test_input_224_gives_labels_of_112():
    net = GlobalLocal(224, "small", width=1 / 32).eval()
    images = LabImages(torch.rand(2, 1, 128, 128) * 100, torch.zeros(2, 2, 128, 128))
    seen = net.inputs(images)
    assert seen.shape == (2, 1, 224, 224)
    assert net(seen).shape == (2, 2, 112, 112)
    assert net.predict(images.L).shape == (2, 2, 128, 128)
    assert kinds(net.global_conv, nn.Conv2d)[0].out_channels == 2  # 32, narrowed


def test_the_fusion_concatenates_one_global_vector_to_every_pixel():
    torch.manual_seed(0)
    net = GlobalLocal(32, "paper", width=1 / 32).eval()
    L = torch.rand(1, 1, 32, 32)
    seen = []
    net.fusion.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    net(L)
    told = seen[0][:, : seen[0].shape[1] // 2]
    assert torch.equal(told, told[:, :, :1, :1].expand_as(told))


def test_the_loss_is_the_paper_s_divided_by_the_values_of_an_image():
    torch.manual_seed(0)
    net = GlobalLocal(32, "paper", num_classes=3, width=1 / 32)
    ab = torch.randn(4, 2, 64, 64) * 10
    group = torch.tensor([0, 1, 2, 1])
    images = LabImages(torch.rand(4, 1, 64, 64) * 100, ab, group)
    y = net(net.inputs(images))
    truth = F.interpolate(net.target(ab), (16, 16), mode="area")
    squares = (y[0] - truth).square().flatten(1).sum(dim=1)
    paper = squares + ALPHA * F.cross_entropy(y[1], group, reduction="none")
    torch.testing.assert_close(net.loss(y, images), paper.mean() / (2 * 16 * 16))
    without = net.loss(y, LabImages(images.L, ab))
    torch.testing.assert_close(without, squares.mean() / (2 * 16 * 16))


def test_the_branch_has_one_class_per_sitter(data):
    trained = train_experiment(
        "report004/full-classes", data, PROFILES["quick"], num_epochs=1
    )
    assert trained.options["num_classes"] == 4
    assert trained.net.classifier[-1].out_features == 4


def test_without_known_sitters_there_is_no_branch(data):
    faces = FaceSet(data.faces.images, data.faces.names)
    unknown = course_data(faces, data.split, 1, seed=1)
    trained = train_experiment(
        "report004/full-classes", unknown, PROFILES["quick"], num_epochs=1
    )
    assert trained.net.classifier is None


@pytest.mark.parametrize(
    "options", [{"size": 100}, {"global_net": "big"}, {"global_net": "none", "n": 3}]
)
def test_wrong_options_are_refused(options):
    options = {"num_classes" if k == "n" else k: v for k, v in options.items()}
    with pytest.raises(ValueError):
        GlobalLocal(**options)


def test_an_image_is_gray_if_no_pixel_has_color():
    ab = torch.zeros(3, 2, 4, 4)
    ab[1, 0, 2, 2] = -1.5
    ab[2] = 0.9
    assert is_gray(LabImages(torch.zeros(3, 1, 4, 4), ab)).tolist() == [
        True,
        False,
        True,
    ]


# All ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data():
    """Images of four sitters whose lightness determines their color."""
    generator = torch.Generator().manual_seed(0)
    gray = torch.rand(24, 1, 8, 8, generator=generator)
    level = F.interpolate(gray, 128, mode="bilinear")
    bgr = torch.cat([60 + 90 * level, 200 * level, 220 - 80 * level], dim=1)
    names = [f"{n:02d}.png" for n in range(24)]
    groups = [f"s{n % 4}" for n in range(24)]
    faces = FaceSet(bgr.to(torch.uint8), names, groups)
    return course_data(faces, split_faces(faces, seed=1), 2, seed=1)


def test_training_images_have_their_sitter_numbers(data):
    sitters = [int(data.faces.groups[i][1:]) for i in data.split.train]
    assert data.train.group.tolist() == sitters * 2
    assert data.train[3:5].group.tolist() == sitters[3:5]


@pytest.mark.parametrize("name", [n for n in REPORTS if not n.startswith("report003")])
def test_the_loss_falls(name, data):
    """The loss falls within eight epochs on a small set."""
    trained = train_experiment(name, data, PROFILES["quick"], num_epochs=8)
    losses = trained.history["train_mse"]
    assert losses[-1] < 0.9 * losses[0]


def test_the_full_profile_follows_each_published_protocol():
    epochs = {name: get_experiment(name).epochs_for(FULL) for name in REPORTS}
    for name, published in {"report000": 1000, "report003": 100}.items():
        rows = [n for n in epochs if n.startswith(name) and "onecycle" not in n]
        assert {epochs[n] for n in rows} == {published}
    assert epochs["report001/sigmoid"] == 100 and epochs["report001/small-tanh"] == 50
    assert (
        epochs["report000/sigmoid"] == 1000 and epochs["report001/regressor-2"] == 400
    )
    recipe = get_experiment("report000/sigmoid").recipe(1000)
    assert (recipe.optimizer, recipe.lr, recipe.momentum) == ("sgd", 0.1, 0.9)
    assert (recipe.batch_size, recipe.schedule) == (100, "constant")
    study = get_experiment("report003/default").recipe(100)
    assert (study.batch_size, study.momentum, study.delta) == (16, 0.0, 5e-5)
