"""One experiment: loading, training and saving."""

import signal

import pytest
import torch
from engine import assert_same_weights, weights

from helpers.data.course import course_data
from helpers.data.faces import FaceSet, split_faces
from helpers.evaluation.evaluate import evaluate, evaluate_single_pass
from helpers.experiments.profiles import PROFILES
from helpers.experiments.registry import EXPERIMENTS, get_experiment
from helpers.experiments.registry import published as published_for
from helpers.experiments.run import train_experiment
from helpers.files import InputError
from helpers.training import loop
from helpers.training.checkpoint import load_checkpoint


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 128, 128), generator=generator)
    names = [f"s{n // 5:02d}_{n % 5}.jpg" for n in range(20)]
    faces = FaceSet(images.to(torch.uint8), names, [name[:3] for name in names])
    return course_data(faces, split_faces(faces), copies=1, seed=0)


def test_copies_are_darkened_only_if_the_experiment_says_so(data):
    darkened = course_data(data.faces, data.split, copies=3, seed=0)
    plain = course_data(data.faces, data.split, 3, 0, scale_brightness=False)
    assert not torch.equal(darkened.train.L, plain.train.L)
    for name, expected in (("report000/sigmoid", plain), ("maps/3", darkened)):
        how = get_experiment(name).augmentation
        for given in (darkened, plain):
            assert torch.equal(given.for_training(**how).train.L, expected.train.L)
    assert torch.equal(plain.for_training().train.L, plain.train.L)


def test_an_experiment_uses_its_own_number_of_copies(data):
    ten = course_data(data.faces, data.split, copies=10, seed=0)
    for name, copies in (("report001/sigmoid", 2), ("report000/sigmoid", 10)):
        sets = ten.for_training(**get_experiment(name).augmentation)
        assert len(sets.train) == len(sets.names) == copies * len(data.split.train)


@pytest.mark.parametrize(
    "settings",
    [
        "classifier/plain,grid=0",
        "best/scratch,unshuffle=3",
        "best/scratch,base=0",
        "maps/3,num_down=8",
        "report000/sigmoid,planes=3",
        "report000/guided,planes=3",
        "colorizer/n3,momentum=0.5",
        "colorizer/n3,optimizer=sgd,momentum=0.5",
        "colorizer/n3,batch_size=25.0",
        "colorizer/n3,batch_size=True",
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(settings):
    with pytest.raises(InputError) as caught:
        get_experiment(settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("best/people", "base", 3), ("report000/guided", "head", "tanh")],
)
def test_the_options_of_every_network_can_be_changed(name, option, value):
    assert get_experiment(f"{name},{option}={value}").options[option] == value
    with pytest.raises(InputError, match=f"use one of .*{option}"):
        get_experiment(f"{name},unknown=1")


def train_guided(data, path):
    name = "report000/guided"
    return train_experiment(
        name, data, PROFILES["quick"], num_epochs=3, checkpoint=path
    )


def test_ctrl_c_in_the_regressor_stops_the_guided_colorizer_too(
    data, tmp_path, monkeypatch
):
    unbroken = train_guided(data, tmp_path / "unbroken/checkpoint.pt")
    path, steps, really_share = (
        tmp_path / "checkpoint.pt",
        [],
        loop.distributed.my_share,
    )

    def share(index):
        steps.append(None)
        if len(steps) == 2:  # of the regressor's three epochs of one step
            signal.raise_signal(signal.SIGINT)
        return really_share(index)

    monkeypatch.setattr(loop.distributed, "my_share", share)
    with pytest.raises(KeyboardInterrupt):
        train_guided(data, path)
    assert len(steps) == 2
    assert not path.exists()  # the colorizer has not started
    assert load_checkpoint(path.with_name("first.pt"))["epoch"] == 2
    again = train_guided(data, path)
    assert_same_weights(weights(again.net), weights(unbroken.net))


def test_both_figures_are_measured_where_two_passes_are_averaged(data):
    trained = train_experiment("best/adamw", data, PROFILES["quick"], num_epochs=1)
    net, row = trained.net, trained.row()
    assert net.flip_tta and row.passes == 2
    assert row.test_mse == evaluate(net, data.test).mse
    assert row.single_pass_mse == evaluate_single_pass(net, data.test).mse
    net.flip_tta = False
    assert evaluate(net, data.test).mse == row.single_pass_mse
    assert "single pass" in trained.summary()


def test_intervals_resample_the_sitters(data):
    trained = train_experiment("maps/3", data, PROFILES["quick"], num_epochs=1)
    assert data.test.group is not None
    assert torch.equal(trained.evaluation.group, data.test.group)


def test_every_published_figure_stands_in_one_row():
    figures = [e.mse for e in EXPERIMENTS.values() if e.mse is not None]
    assert len(set(figures)) == len(figures)
    for name, experiment in EXPERIMENTS.items():
        if experiment.compare_with:
            assert experiment.mse is None
            assert published_for(name) == published_for(experiment.compare_with)


def test_the_recipe_of_report_000_is_the_published_one():
    recipe = get_experiment("report000/sigmoid").recipe(1000)
    assert (recipe.optimizer, recipe.lr, recipe.momentum) == ("sgd", 0.1, 0.9)
    with pytest.raises(InputError, match="did you mean report000/sigmoid"):
        get_experiment("report000/sigmiod")
