import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from helpers.cli import main
from helpers.data.images import write_image
from helpers.data.portraits import render_portrait
from helpers.experiments.profiles import PROFILES
from helpers.nets import build
from helpers.training.weights import load_weights, save_weights

OPTIONS = {"base": 4, "levels": 2}


@pytest.fixture
def album(tmp_path):
    for number in range(12):
        image = render_portrait(number % 6, number // 6, size=64)
        write_image(tmp_path / "album" / f"{number:02}.png", image)
    return tmp_path / "album"


def train(folder, album, start, epochs=1, name="portrait"):
    arguments = ["train", name, "--images", album, "--epochs", epochs, "--plain"]
    arguments += ["--run-dir", folder, *(["--start", start] if start else [])]
    return CliRunner().invoke(main, list(map(str, arguments)))


def save_start(path, ab=(10.0, 20.0)):
    torch.manual_seed(0)
    net = build("hinted_unet", **OPTIONS)
    net.scale.offset.copy_(torch.tensor(ab))
    net.scale.unit.fill_(9.0)
    save_weights(path, net, "hinted_unet", OPTIONS)
    return path


def test_fine_tuning_starts_from_the_weights_and_compares(tmp_path, album):
    start = save_start(tmp_path / "start.safetensors")
    result = train(tmp_path / "run", album, start, epochs=3)
    assert result.exit_code == 0, result.output
    assert "before fine-tuning: test MSE" in result.output
    assert "fine-tuned minus before: " in result.output
    parameters = next((tmp_path / "run").rglob("parameters.json"))
    assert json.loads(parameters.read_text())["start"] == str(start)
    tuned, metadata = load_weights(next((tmp_path / "run").rglob("weights.safe*")))
    before, _ = load_weights(start)
    assert tuned.scale.offset.tolist() == [10.0, 20.0]  # the scale is kept
    assert float(tuned.scale.unit) == 9.0
    assert metadata["options"] == '{"base": 4, "levels": 2}'
    first = [net.trunk.down[0][0].weight.detach() for net in (before, tuned)]
    change = (first[0] - first[1]).norm() / first[0].norm()
    assert 0 < change < 0.5


def test_a_test_image_that_the_start_was_trained_on_is_reported(tmp_path, album):
    start = save_start(tmp_path / "start.safetensors")
    first = train(tmp_path / "run", album, start)
    assert "does not say on which images it was trained" in first.output
    tuned = next((tmp_path / "run").rglob("weights.safe*"))
    again = train(tmp_path / "again", album, tuned)
    assert "was trained on none of these 1 images" in again.output
    arguments = ["train", "portrait", "--images", album, "--epochs", 1, "--plain"]
    arguments += ["--run-dir", tmp_path / "other", "--start", tuned, "--seed", 5]
    other = CliRunner().invoke(main, list(map(str, arguments)))
    assert "trained on 1 of these 1 images: these results are not test" in other.output


def test_images_beyond_the_profile_s_limit_are_counted(tmp_path, album, monkeypatch):
    profile = replace(PROFILES["quick"], max_images=5)
    monkeypatch.setitem(PROFILES, "quick", profile)
    result = train(tmp_path / "run", album, "", name="maps/3")
    assert "profile quick trains on 5 of 11 training images" in result.output


def test_the_same_command_resumes_and_another_start_is_refused(tmp_path, album):
    start = save_start(tmp_path / "start.safetensors")
    first = train(tmp_path / "run", album, start)
    again = train(tmp_path / "run", album, start)
    assert first.exit_code == again.exit_code == 0
    weights = next((tmp_path / "run").rglob("weights.safetensors"))
    assert weights.is_file()
    other = save_start(tmp_path / "other.safetensors", ab=(5.0, 5.0))
    for given in ("", other):
        result = train(tmp_path / "run", album, given)
        assert result.exit_code == 2 and "checkpoint" in result.output


def test_weights_of_another_kind_are_refused(tmp_path, album):
    path = tmp_path / "unet.safetensors"
    save_weights(path, build("unet", base=2), "unet", {"base": 2})
    result = train(tmp_path / "run", album, path)
    assert result.exit_code == 2
    assert "holds a unet, but this experiment trains a hinted_unet" in result.output
    assert np.all([p.suffix != ".safetensors" for p in (tmp_path / "run").rglob("*")])
