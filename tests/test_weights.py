"""The weights that the course brings: small, whole, with a card, as good as it says."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from helpers.cli import main
from helpers.data.faces import load_faces, split_faces
from helpers.data.lab import to_lab_images
from helpers.evaluation.evaluate import evaluate
from helpers.files import PROJECT, read_json
from helpers.training.weights import WEIGHTS, find_weights, load_weights

NAMES = {"colorizer": "map", "regressor": "mean", "classifier": "map"}
NAMES |= {"portrait": "map"}
PHOTOGRAPHS = PROJECT.parent / "shared" / "face_images.zip"
FACES_80 = PROJECT.parent / "shared" / "faces_80.zip"


def card(name: str) -> str:
    return (WEIGHTS / f"{name}.md").read_text(encoding="utf-8")


def test_no_other_weights_are_there():
    assert {file.stem for file in WEIGHTS.glob("*.safetensors")} == NAMES.keys()


@pytest.mark.parametrize("name", NAMES)
def test_the_weights_are_small_and_load(name):
    path = find_weights(name)
    assert path.stat().st_size < 8e6
    net, _ = load_weights(path)
    assert net.task == NAMES[name]


@pytest.mark.parametrize("name", NAMES)
def test_the_card_is_of_this_very_file(name):
    _, metadata = load_weights(find_weights(name))
    assert metadata["sha256"] in card(name)
    for word in ("## Data", "## Training", "## Results", "## Limits", "license"):
        assert word in card(name), word


@pytest.mark.skipif(
    not PHOTOGRAPHS.exists(), reason="the course's photographs are away"
)
@pytest.mark.parametrize("name", ["colorizer", "regressor", "classifier"])
def test_the_figure_on_the_card_can_be_measured_again(name):
    command = ["evaluate", name, "--images", str(PHOTOGRAPHS), "--split", "random"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    found = re.search(r"^mse +([\d.e-]+)", result.output, re.M)[1]
    claimed = re.search(r"^mse +([\d.e-]+)", card(name), re.M)[1]
    assert float(found) == pytest.approx(float(claimed), rel=0.01)


@pytest.mark.skipif(not FACES_80.exists(), reason="the web photographs are away")
def test_the_figures_for_unseen_people_can_be_measured_again():
    measured = read_json(PROJECT / "reference" / "unseen_people.json")
    net, _ = load_weights(find_weights("portrait"))
    faces = load_faces(str(FACES_80))
    val = split_faces(faces, by="folders").test.sort().values
    result = evaluate(net, to_lab_images(faces.images[val]))
    assert len(val) == measured["images"]
    assert result.mse.mean == pytest.approx(measured["metrics"]["mse"][0], rel=0.01)
    claimed = re.search(r"^mse +([\d.e-]+)", card("portrait"), re.M)[1]
    assert result.mse.mean == pytest.approx(float(claimed), rel=0.01)


def test_nothing_else_lies_beside_the_weights():
    beside = {file.name for file in Path(WEIGHTS).iterdir()}
    assert beside == {f"{n}.{end}" for n in NAMES for end in ("safetensors", "md")}
