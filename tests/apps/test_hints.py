import json

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from helpers.apps.colorize import colorize
from helpers.apps.hints import (
    TONES,
    Hints,
    Point,
    make_hints,
    mean_color,
    parse_color,
    parse_point,
)
from helpers.cli import main
from helpers.data.images import read_image, write_image
from helpers.data.lab import bgr_to_lab
from helpers.data.portraits import render_portrait
from helpers.files import InputError
from helpers.nets import build
from helpers.nets.hinted import MEAN_MASK
from helpers.training.weights import WEIGHTS, load_weights


@pytest.fixture
def net():
    return load_weights(WEIGHTS / "portrait.safetensors")[0]


@pytest.mark.parametrize("color", ["red", "#ff0000", "#f00", " Red "])
def test_css_names_and_hex_codes_are_colors(color):
    a, b = parse_color(color)
    assert a == pytest.approx(80.1, abs=0.5) and b == pytest.approx(67.2, abs=0.5)


def test_a_point_is_parsed():
    point = parse_point("120,80=#c58c6a")
    assert (point.x, point.y) == (120, 80) and point.color == parse_color("#c58c6a")


@pytest.mark.parametrize(
    "given",
    [
        "",
        "1,2",
        "1=red",
        "a,b=red",
        "1,2=rde",
        "1,2=#12",
        "1,2,3=red",
        "1,2=rgb(300,0,0)",
    ],
)
def test_a_wrong_point_is_an_input_error(given):
    with pytest.raises(InputError, match=r"--hint .*write X,Y=COLOR"):
        parse_point(given)


def test_planes_hold_each_point_at_its_place():
    hints = Hints([Point(100, 50, (30.0, 20.0)), Point(399, 199, (1.0, 2.0))])
    planes = hints.planes((200, 400), (128, 256))
    assert planes.shape == (3, 128, 256)
    assert planes[:, 32, 64].tolist() == [30, 20, 1]
    assert planes[:, 127, 255].tolist() == [1, 2, 1]
    assert planes[2].sum() == 2 * 64


def test_the_mean_is_everywhere_except_at_points():
    planes = Hints([Point(0, 0, (9.0, 9.0))], (3.0, 4.0)).planes((64, 64), (32, 32))
    assert planes[:, 31, 31].tolist() == [3, 4, MEAN_MASK]
    assert planes[:, 0, 0].tolist() == [9, 9, 1]


def test_hints_inside_a_box_are_moved_into_it():
    hints = Hints([Point(10, 20, (1.0, 1.0)), Point(50, 60, (2.0, 2.0))])
    inside = hints.within((40, 40, 30, 30), (5.0, 6.0))
    assert inside == Hints([Point(10, 20, (2.0, 2.0))], (5.0, 6.0))
    assert not Hints().within((0, 0, 5, 5), (1.0, 1.0))


@pytest.mark.parametrize("boxes", [(), [(10, 10, 60, 50)]])
def test_a_hint_changes_the_colors_and_keeps_the_lightness(net, boxes):
    image = np.random.default_rng(0).integers(60, 200, (150, 180, 3)).astype(np.uint8)
    plain = colorize(net, image, 1.0, boxes)
    hints = Hints([Point(30, 30, (20.0, 20.0))])
    hinted = colorize(net, image, 1.0, boxes, hints)
    assert np.abs(hinted.astype(int) - plain).mean() > 0.5


@pytest.mark.parametrize("place", [(-1, 0), (180, 0), (0, 150)])
def test_a_point_outside_is_an_input_error(net, place):
    hints = Hints([Point(*place, (0.0, 0.0))])
    with pytest.raises(InputError, match="not inside the photograph of 180 x 150"):
        colorize(net, np.zeros((150, 180, 3), np.uint8), hints=hints)


def test_a_network_without_hint_planes_refuses_them():
    net = build("unet", base=4, levels=2)
    hints = Hints([Point(0, 0, (0.0, 0.0))])
    with pytest.raises(InputError, match="does not accept color hints"):
        colorize(net, np.zeros((50, 50, 3), np.uint8), hints=hints)
    with pytest.raises(InputError, match="takes no hints"):
        make_hints(net, tone="warm")


def test_the_tone_shifts_the_mean_of_the_training_photographs(net):
    net.scale.offset.copy_(torch.tensor([10.0, 12.0]))
    for tone, shift in TONES.items():
        mean = make_hints(net, tone=tone).mean
        assert mean == pytest.approx((10 + shift[0], 12 + shift[1]))


def test_the_mean_color_of_a_reference(net, tmp_path):
    orange = np.full((20, 20, 3), (60, 120, 220), np.uint8)
    write_image(tmp_path / "orange.png", orange)
    mean = make_hints(net, like=str(tmp_path / "orange.png")).mean
    assert mean == pytest.approx(mean_color(orange))
    assert mean == pytest.approx(bgr_to_lab(orange)[0, 0, 1:].tolist(), abs=1e-3)
    write_image(tmp_path / "gray.png", np.full((20, 20, 3), 90, np.uint8))
    with pytest.raises(InputError, match="has no color"):
        make_hints(net, like=str(tmp_path / "gray.png"))
    with pytest.raises(InputError, match="use only one"):
        make_hints(net, like="a.png", tone="warm")


def test_the_command_line_takes_hints(tmp_path):
    photo = tmp_path / "photo.png"
    image = np.random.default_rng(0).integers(60, 200, (90, 80)).astype(np.uint8)
    write_image(photo, cv2.merge([image] * 3))
    results = {}
    for name, given in {
        "plain": [],
        "point": ["--hint", "10,20=red"],
        "tone": ["--tone", "cool"],
        "like": ["--like", str(tmp_path / "color.png")],
        "vivid": ["--vivid"],
    }.items():
        write_image(tmp_path / "color.png", np.full((9, 9, 3), (20, 90, 220), np.uint8))
        command = ["colorize", photo, "-o", tmp_path / name, "--weights", "portrait"]
        result = CliRunner().invoke(main, [*map(str, command), "--no-faces", *given])
        assert result.exit_code == 0, result.output
        results[name] = read_image(tmp_path / name / "photo.png").tobytes()
    assert len(set(results.values())) == 5


def test_evaluate_measures_hints_tables_and_other_networks(tmp_path):
    for number in range(20):
        folder = tmp_path / "photos" / ("train" if number < 14 else "val")
        write_image(
            folder / f"{number}.png", render_portrait(number % 10, number // 10)
        )
    command = ["evaluate", "portrait", "--images", tmp_path / "photos", "--device=cpu"]
    output = tmp_path / "figures.json"
    more = ["--hints", "--against", "colorizer", "--output", output]
    run = CliRunner().invoke
    refused = run(main, [*map(str, command), "--tables"])
    assert refused.exit_code == 2 and "needs a training set" in refused.output
    command = [*command, "--split", "folders", *more, "--tables"]
    result = run(main, list(map(str, command)))
    assert result.exit_code == 0, result.output
    assert "over 6 images, the test set of split folders train and val" in result.output
    figures = json.loads(output.read_text())
    assert figures["images"] == 6
    assert list(figures["hints"]) == [
        *("none", "mean", "1 point", "3 points", "10 points")
    ]
    assert {"colorizer", "table L -> ab", "neutral gray"} <= figures["against"].keys()
    mean, low, high = figures["metrics"]["mse"]
    assert low <= mean <= high and figures["hints"]["none"][0] == mean
    difference = figures["against"]["colorizer"]["difference"][0]
    other = figures["against"]["colorizer"]["metrics"]["mse"][0]
    assert difference == pytest.approx(mean - other, rel=1e-4, abs=1e-9)
    refused = run(main, list(map(str, command)))
    assert refused.exit_code == 2 and "figures.json: exists" in refused.output
    assert json.loads(output.read_text()) == figures
    command.append("--force")
    other = ["--against", "regressor", *command[2:]]
    refused = run(main, list(map(str, [*command[:2], *other])))
    assert refused.exit_code == 2 and "two networks for the same task" in refused.output
    command[1] = "colorizer"
    refused = run(main, list(map(str, command)))
    assert refused.exit_code == 2 and "omit --hints" in refused.output
