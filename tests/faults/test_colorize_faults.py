"""What a user of `colorize` gets wrong, or the file system refuses."""

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from helpers import nets
from helpers.cli import main
from helpers.data.images import FolderSource
from helpers.files import write_atomic
from helpers.training.weights import save_weights


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    values = np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8)
    for name in "abc":
        cv2.imwrite(str(folder / f"{name}.png"), values)
    return folder


def colorize(*arguments):
    command = ["colorize", *map(str, arguments), "--no-faces"]
    return CliRunner().invoke(main, command)


@pytest.mark.parametrize("strength", ["nan", "-nan", "inf", "-1", "3", "much"])
def test_a_strength_that_is_no_number_is_refused(strength, photos, tmp_path):
    out = tmp_path / "out"
    result = colorize(photos, "-o", out, "--strength", strength)
    assert result.exit_code == 2 and not out.exists()


def test_weights_with_nan_are_refused(photos, tmp_path):
    net = nets.build("colorizer", num_down=3)
    with torch.no_grad():
        next(net.parameters()).fill_(float("nan"))
    save_weights(tmp_path / "bad.safetensors", net, "colorizer", {"num_down": 3})
    weights = tmp_path / "bad.safetensors"
    result = colorize(photos, "-o", tmp_path / "out", "--weights", weights)
    assert result.exit_code == 2 and "values that are no numbers" in result.output


def test_a_name_that_is_too_long_does_not_end_the_batch(photos, tmp_path):
    longest = "l" * 251 + ".jpg"  # NAME.png fits, NAME.compare.png does not
    (photos / "a.png").rename(photos / longest)
    result = colorize(photos, "-o", tmp_path / "out", "--compare")
    assert result.exit_code == 1 and "File name too long" in result.output
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"b.png", "b.compare.png", "c.png", "c.compare.png"} <= written
    assert not [name for name in written if name.startswith(".")]


def test_a_name_as_long_as_the_file_system_allows_is_written(tmp_path):
    path = tmp_path / ("l" * 251 + ".png")
    write_atomic(path, b"content")
    assert path.read_bytes() == b"content" and len(list(tmp_path.iterdir())) == 1


def test_an_input_with_a_name_that_is_too_long_is_one_line(tmp_path):
    result = colorize(tmp_path / ("x" * 300), "-o", tmp_path / "out")
    assert result.exit_code == 2 and "File name too long" in result.output


def test_a_subfolder_that_cannot_be_read_is_named_and_the_rest_is_done(
    photos, tmp_path, monkeypatch
):
    class Refusing(FolderSource):
        def __init__(self, folder):
            super().__init__(folder)
            self.refused = [("private/", "cannot read (Permission denied)")]

    monkeypatch.setattr("helpers.data.images.FolderSource", Refusing)
    result = colorize(photos, "-o", tmp_path / "out")
    assert result.exit_code == 1 and "private" in result.output
    assert len(list((tmp_path / "out").glob("*.png"))) == 3
