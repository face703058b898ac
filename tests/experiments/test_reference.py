import json

import pytest
from click.testing import CliRunner

from helpers.cli import main
from helpers.data.faces import PORTRAITS, load_faces
from helpers.evaluation.evaluate import evaluate
from helpers.evaluation.task import task_of
from helpers.experiments import reference
from helpers.experiments.profiles import get_profile
from helpers.experiments.reference import (
    MAX_BYTES,
    REFERENCE,
    SETS,
    load_reference,
    load_references,
)
from helpers.experiments.registry import get_experiment
from helpers.files import InputError

FILES = sorted(path for name in SETS for path in (REFERENCE / name).glob("*.json"))
WEIGHTS = sorted((REFERENCE / "portraits").glob("*.safetensors"))


def name_of(path):
    return json.loads(path.read_text())["parameters"]["name"]


@pytest.mark.parametrize(
    "path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_a_reference_run_is_complete(path):
    run = load_reference(name_of(path), path.parent.name)
    get_experiment(run.name)
    epochs = run.history["epoch"]
    assert epochs == list(range(1, len(epochs) + 1)) and len(epochs) >= 10
    assert run.row.epochs == len(epochs)
    assert all(len(values) == len(epochs) for values in run.history.values())
    assert run.command.startswith(f"deepcolor reference {run.name} ")
    assert run.baselines and run.machine and run.finished


def test_small_weights_trained_on_the_portraits_are_kept():
    sizes = [path.stat().st_size for path in REFERENCE.rglob("*") if path.is_file()]
    assert sum(sizes) < 8e6
    for path in WEIGHTS:
        assert path.stat().st_size <= MAX_BYTES and path.with_suffix(".json").is_file()
    assert not list((REFERENCE / "photographs").glob("*.safetensors"))


@pytest.fixture(scope="module")
def portraits():
    return load_faces(PORTRAITS)


@pytest.mark.parametrize("path", WEIGHTS, ids=lambda path: path.stem)
def test_the_result_on_the_portraits_can_be_measured_again(path, portraits):
    content = json.loads(path.with_suffix(".json").read_text())
    run = load_reference(content["parameters"]["name"])
    net = run.load_net()
    task = task_of(net)
    how = content["parameters"]
    if task.name == "rgb":  # the study has its own size and number of images
        profile = get_profile(how["profile"])
        faces = load_faces(PORTRAITS, size=task.image_size(profile))
        split = task.split(faces, how["split"], how["seed"], profile.study_images)
    else:
        faces, split = portraits, task.split(portraits, how["split"], how["seed"])
    test = task.encode(faces.images[split.test])
    assert len(test) == run.row.test_images
    assert evaluate(net, test).mse.mean == pytest.approx(
        run.row.test_mse.mean, rel=0.01
    )


def test_the_command_keeps_history_results_and_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(reference, "REFERENCE", tmp_path / "reference")
    monkeypatch.setattr(reference, "PROJECT", tmp_path)
    arguments = ["reference", "regressor/batchnorm", "--images", "portraits"]
    arguments += ["--epochs", "2", "--run-dir", str(tmp_path / "runs")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    assert "wrote reference/portraits/regressor_batchnorm.json" in result.output
    run = load_references(["regressor/batchnorm"])["regressor/batchnorm"]
    assert run.history["epoch"] == [1, 2] and len(run.history["test_mse"]) == 2
    assert "--profile quick --images portraits --split random --seed 4" in run.command
    assert run.load_net().task == "mean"
    assert "regressor/batchnorm: 2 epochs, about " in str(run)
    assert run.baselines["constant"].test_mse.mean > 0


def test_a_missing_run_is_named_with_the_command():
    with pytest.raises(InputError, match="deepcolor reference maps/99"):
        load_reference("maps/99", "photographs")


def test_weights_that_are_not_kept_are_named(tmp_path, monkeypatch):
    if not FILES:
        pytest.skip("no reference run")
    run = next(load_reference(name_of(p), p.parent.name) for p in FILES
               if not p.with_suffix(".safetensors").exists())  # fmt: skip
    with pytest.raises(InputError, match="not kept; run `deepcolor reference"):
        run.load_net()
