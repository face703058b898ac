"""A training run's TensorBoard files, read with TensorBoard's own reader."""

import sys

import numpy as np
import pytest
from click.testing import CliRunner
from engine import photographs, small_net
from PIL import Image

from helpers import nets
from helpers.cli import main
from helpers.data.course import Datasets
from helpers.data.lab import to_bgr_images
from helpers.data.portraits import write_portraits
from helpers.evaluation.evaluate import evaluate
from helpers.files import InputError
from helpers.training.tensorboard import TensorBoardLogger

ROW = {"epoch": 3, "lr": 0.01, "train_mse": 2e-4, "test_mse": 3e-4, "seconds": 0.5}


def read(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_errors_speed_rate_and_pictures_are_written(tmp_path):
    test, net = photographs(8, side=32), small_net(head="linear")
    TensorBoardLogger(tmp_path, Datasets(range(200), test), 25)(ROW, net)
    events = read(tmp_path)
    found = {
        name: (e.step, e.value)
        for name in events.Tags()["scalars"]
        for e in events.Scalars(name)
    }
    known = {name: (3, ROW[name]) for name in ("train_mse", "test_mse", "lr")}
    known["images per second"] = (3, 400.0)
    known["steps per second"] = (3, 16.0)
    assert found == {n: (s, pytest.approx(v)) for n, (s, v) in known.items()}
    (picture,) = events.Images("grayscale, truth, prediction")
    assert (picture.height, picture.width) == (3 * 32, 6 * 32)


def test_the_pictures_are_grayscale_truth_and_prediction_in_rgb(tmp_path):
    import io

    test, net = photographs(8, side=32), small_net(head="linear")
    TensorBoardLogger(tmp_path, Datasets(range(200), test), 25)(ROW, net)
    (event,) = read(tmp_path).Images("grayscale, truth, prediction")
    shown = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    truth = to_bgr_images(test.L[:1], test.ab[:1])[0].flip(0).permute(1, 2, 0).numpy()
    assert np.array_equal(shown[32:64, :32], truth)
    assert np.ptp(shown[:32], axis=2).max() <= 1
    ab_hat = evaluate(net, test[:6]).prediction
    last = to_bgr_images(test.L[5:6], ab_hat[5:6])[0].flip(0).permute(1, 2, 0)
    assert np.abs(shown[64:, -32:].astype(int) - last.numpy()).max() <= 1


def test_a_regressor_has_no_pictures(tmp_path):
    TensorBoardLogger(tmp_path, Datasets(range(10), photographs(3, side=128)), 25)(
        ROW, nets.Regressor()
    )
    assert read(tmp_path).Tags()["images"] == []


def test_without_tensorboard_the_next_step_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError, match="tensorboard is missing; pip install"):
        TensorBoardLogger(tmp_path, Datasets(range(10), photographs(3)), 25)


def test_train_writes_one_point_an_epoch(tmp_path):
    write_portraits(tmp_path / "faces", num_sitters=10, shots=6)
    command = ["train", "maps/3", "--images", str(tmp_path / "faces"), "--epochs", "2"]
    command += ["--run-dir", str(tmp_path), "--tensorboard"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    events = read(tmp_path / "train/maps_3_seed4/board")
    assert [e.step for e in events.Scalars("test_mse")] == [1, 2]
