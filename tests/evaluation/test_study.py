"""The ablation study: data, metrics and stopping rule, checked against small examples."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from helpers.data.faces import FaceSet, split_faces
from helpers.data.images import write_image
from helpers.data.pairs import (
    study_data,
    to_bytes,
    to_gray_rgb,
    to_signed,
    to_wrapped_bytes,
)
from helpers.evaluation.evaluate import evaluate
from helpers.evaluation.metrics import accuracy_12
from helpers.evaluation.predictions import save_estimations, write_predictions
from helpers.evaluation.task import TASKS
from helpers.experiments.profiles import PROFILES
from helpers.experiments.registry import EXPERIMENTS, get_experiment, stack_by_numbers
from helpers.files import InputError
from helpers.nets.base import count_parameters
from helpers.nets.baselines import RgbTable
from helpers.nets.report003 import FlatUNet, Stack, WeirdNet
from helpers.training.loop import fit
from helpers.training.optim import has_settled

# Layers ---------------------------------------------------------------------------


def convolutions(net):
    kinds = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    return [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in kinds]


def weights_and_biases(layers):
    return sum(i * o * k * k + o for i, o, k in layers)


STACKS = {
    "report003/default": [(1, 4, 5), (4, 3, 5)],
    "report003/layers-4": [(1, 4, 5), (4, 4, 5), (4, 4, 5), (4, 3, 5)],
    "report003/kernel-3": [(1, 4, 3), (4, 3, 3)],
    "report003/best": [(1, 16, 5), (16, 3, 5)],
}


@pytest.mark.parametrize("name", STACKS)
def test_a_stack_has_the_layers_of_its_line(name):
    net = Stack(**get_experiment(name).options)
    assert convolutions(net) == STACKS[name]
    assert count_parameters(net) == weights_and_biases(STACKS[name])


def test_the_u_net_has_the_layers_of_the_study():
    layers = [(1, 8), (8, 12), (12, 18), (18, 16), (28, 12), (20, 3)]
    layers = [(before, after, 5) for before, after in layers]
    assert convolutions(FlatUNet()) == layers
    assert count_parameters(FlatUNet()) == weights_and_biases(layers)


def test_the_weird_net_has_the_layers_of_the_study():
    layers = [(1, 8), (1, 16), (1, 32), (8, 4), (16, 8), (32, 16)]
    layers += [(12, 6), (20, 10), (24, 12), (28, 8), (8, 3)]
    layers = [(before, after, 5) for before, after in layers]
    assert convolutions(WeirdNet()) == layers
    assert count_parameters(WeirdNet()) == weights_and_biases(layers)


def test_batchnorm_as_it_was_stands_behind_every_layer_and_keeps_no_statistics():
    norms = [m for m in Stack(batchnorm="everywhere").layers if "Norm" in str(type(m))]
    assert [m.num_features for m in norms] == [4, 3]
    assert all(m.running_mean is None for m in norms)


def test_batchnorm_as_it_should_be_spares_the_last_layer_and_keeps_statistics():
    norms = [m for m in Stack(batchnorm="hidden").layers if "Norm" in str(type(m))]
    assert [m.num_features for m in norms] == [4]
    assert norms[0].running_mean is not None


@pytest.mark.parametrize(
    ("batchnorm", "depends"), [("everywhere", True), ("hidden", False)]
)
def test_whether_a_prediction_depends_on_the_company(batchnorm, depends):
    torch.manual_seed(0)
    net = Stack(batchnorm=batchnorm).eval()
    gray = torch.randint(0, 256, (6, 1, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        first, other = net.predict(gray[:3])[0], net.predict(gray[[0, 4, 5]])[0]
    assert torch.allclose(first, other, atol=1e-6) != depends


def test_the_lines_differ_from_their_base_in_what_they_say():
    base = vars(get_experiment("report003/preferred"))["options"]
    for name, changed in {
        "tanh": {"tanh"},
        "batchnorm": {"batchnorm"},
        "batchnorm-tanh": {"batchnorm", "tanh"},
        "best": {"maps", "tanh"},
    }.items():
        options = get_experiment(f"report003/{name}").options
        keys = base.keys() | options.keys()
        assert {key for key in keys if base.get(key) != options.get(key)} == changed


def test_a_network_by_its_numbers_is_the_same_as_by_its_name():
    numbers = get_experiment("report003/2,5,16,0.07,tanh")
    named = EXPERIMENTS["report003/best"]
    assert numbers.options == named.options
    assert numbers.recipe(100) == named.recipe(100)
    assert stack_by_numbers("2,5,8,0.07,batchnorm-hidden").options["batchnorm"] == (
        "hidden"
    )


@pytest.mark.parametrize(
    "numbers", ["2,5,16", "2,5,16,x", "2,5,16,0.07,tan", "2,4,16,0.07", "0,5,4,0.1"]
)
def test_numbers_that_are_no_network_are_refused(numbers):
    with pytest.raises(InputError, match=f"report003/{numbers}: "):
        get_experiment(f"report003/{numbers}")


# Metrics --------------------------------------------------------------------------


def test_accuracy_counts_values_within_twelve():
    truth = torch.full((2, 3, 2, 2), 100, dtype=torch.uint8)
    found = truth.clone()
    found[0, 0] = torch.tensor([[111, 112], [89, 88]])  # 2 of the 12 values are wrong
    found[1] = 255
    assert accuracy_12(found, truth).tolist() == pytest.approx([10 / 12, 0])


def test_accuracy_does_not_wrap_around():
    low = torch.zeros(1, 3, 1, 1, dtype=torch.uint8)
    assert accuracy_12(low, low + 250).item() == 0


@pytest.mark.parametrize(
    ("found", "truth"), [((1, 3, 2, 2), (2, 3, 2, 2)), ((1, 3, 2, 2), (1, 1, 2, 2))]
)
def test_accuracy_refuses_other_shapes(found, truth):
    found, truth = (torch.zeros(s, dtype=torch.uint8) for s in (found, truth))
    with pytest.raises(ValueError, match="shapes differ"):
        accuracy_12(found, truth)


def test_accuracy_refuses_floats():
    with pytest.raises(ValueError, match="needs uint8"):
        accuracy_12(torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2))


def test_bytes_are_rounded_and_clipped_or_as_it_was_wrapped():
    rgb = torch.tensor([-1.1, -1.0, 0.0, 1.0, 1.1]).view(1, 1, 1, 5)
    assert to_bytes(rgb).flatten().tolist() == [0, 0, 128, 255, 255]
    assert to_wrapped_bytes(rgb).flatten().tolist() == [244, 0, 127, 255, 11]


def test_every_byte_survives_the_way_there_and_back():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(to_signed(values)), values)


# The stopping rule ----------------------------------------------------------------

FLAT = [0.0100 + 0.00004 * (n % 2) for n in range(10)]


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([0.02, *FLAT], True),  # nine small changes at the end
        (FLAT, True),
        (FLAT[:9], False),  # ten losses are needed
        ([*FLAT[:-1], FLAT[-1] + 0.0001], False),  # the last change is large
        ([*FLAT[:5], 0.011, *FLAT[:5]], False),  # a jump, and back
        ([0.02 - 0.0001 * n for n in range(30)], False),  # keeps falling
        ([0.02 - 0.00004 * n for n in range(30)], True),  # keeps falling, but slowly
        ([0.01 + 0.0001 * n for n in range(30)], False),  # rises
        ([], False),
    ],
)
def test_it_stops_when_nine_changes_are_small(losses, stops):
    assert has_settled(losses, patience=10, delta=5e-5) == stops


# Data and training ----------------------------------------------------------------


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 16, 16), generator=generator)
    faces = FaceSet(images.to(torch.uint8), [f"{n:02d}.png" for n in range(20)])
    return study_data(faces, split_faces(faces, seed=1))


def test_gray_and_rgb_of_a_pure_red_picture():
    red_bgr = torch.tensor([0, 0, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    images = to_gray_rgb(red_bgr.expand(1, 3, 4, 4))
    assert images.rgb[0, :, 0, 0].tolist() == [255, 0, 0]
    assert images.gray[0, 0, 0, 0].item() == 76  # 0.299 of 255


def test_the_folders_train_and_val_are_the_parts(tmp_path):
    for part, number in (("train", 12), ("val", 5)):
        for n in range(number):
            picture = np.full((90, 80, 3), 10 * n, np.uint8)
            write_image(tmp_path / part / f"{n}.png", picture)
    profile = PROFILES["full"]
    found = TASKS["rgb"].load(str(tmp_path), "random", 3, profile)
    assert (len(found.train), len(found.validation)) == (12, 5)
    assert found.split.how == "folders train and val"
    assert found.train.gray.shape == (12, 1, 80, 80)
    assert found.faces.groups is None  # these folders are not sitters
    few = TASKS["rgb"].load(
        str(tmp_path), "random", 3, replace(profile, study_images=7)
    )
    assert len(few.train) == 7
    names = [few.faces.names[i] for i in few.split.train]
    assert names == sorted(names) != few.faces.names[:7]


def test_a_table_learns_the_mean_color_of_each_gray(data):
    table = RgbTable(data.train)
    level = int(data.train.gray[0, 0, 0, 0])
    at = data.train.gray[:, 0] == level
    wanted = torch.stack(
        [plane[at].float().mean() for plane in data.train.rgb.unbind(1)]
    )
    gray = torch.full((1, 1, 2, 2), level, dtype=torch.uint8)
    found = (table.predict(gray)[0, :, 0, 0] + 1) * 127.5
    torch.testing.assert_close(found, wanted, atol=1e-3, rtol=0)


def test_a_table_for_each_cell_knows_the_place(data):
    images = data.train[:1]

    class Table(RgbTable):
        cell = 1

    table = Table(images)
    assert evaluate(table, images).accuracy.mean == 1  # it memorizes the image


def test_training_keeps_the_epoch_of_the_best_accuracy(data):
    experiment = get_experiment("report003/2,3,4,0.1")
    torch.manual_seed(0)
    net = Stack(**experiment.options)
    recipe = replace(experiment.recipe(6), delta=0.0, patience=0)
    history = fit(net, data.for_training(), recipe)
    best = max(history["validation_accuracy"])
    assert evaluate(net, data.validation).accuracy.mean == pytest.approx(best)
    assert min(history["train_mse"]) < history["train_mse"][0]


def test_training_stops_when_the_loss_has_settled(data):
    experiment = get_experiment("report003/2,3,4,0.000001")  # hardly changes
    net = Stack(**experiment.options)
    history = fit(net, data.for_training(), experiment.recipe(100))
    assert history["epoch"][-1] == 10


def test_estimations_and_their_names(tmp_path):
    rgb_hat = torch.full((2, 3, 4, 5), -1.0)
    rgb_hat[1, 0] = 1.5  # red, above the range
    path = save_estimations(tmp_path, rgb_hat, ["b/1.jpg", "a/2.jpg"])
    stored = np.load(path)
    assert path.name == "estimations_test.npy"
    assert stored.shape == (2, 4, 5, 3) and stored.dtype == np.uint8
    assert stored[0].max() == 0 and stored[1, 0, 0].tolist() == [255, 0, 0]
    assert path.with_suffix(".txt").read_text() == "b/1.jpg\na/2.jpg\n"


def test_predictions_whose_names_collide_are_all_written(tmp_path):
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    names = ["a/b.png", "a_b.png", "a_b.jpg"]
    write_predictions(tmp_path, images, images, names)
    for kind in ("prediction", "truth", "grayscale"):
        assert len(list((tmp_path / kind).iterdir())) == 3
