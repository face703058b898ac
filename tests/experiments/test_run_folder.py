import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from helpers.data.course import course_data
from helpers.data.faces import FaceSet, split_faces
from helpers.data.images import write_image
from helpers.data.pairs import study_data
from helpers.evaluation.evaluate import Evaluation, evaluate
from helpers.evaluation.metrics import Estimate
from helpers.experiments import run_folder as results
from helpers.experiments.profiles import PROFILES
from helpers.experiments.registry import EXPERIMENTS, get_experiment, published
from helpers.experiments.run import evaluate_baselines, train_experiment
from helpers.experiments.tables import Row
from helpers.files import InputError, read_json
from helpers.training.weights import load_weights

PARAMETERS = {
    "profile": "quick",
    "images": "portraits",
    "split": "random",
    "seed": 1,
    "device": "cpu",
    "num_epochs": 0,
}


@pytest.fixture
def faces():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 3, 128, 128), generator=generator)
    names = [f"s{n // 5:02d}_{n % 5}.jpg" for n in range(20)]
    return FaceSet(images.to(torch.uint8), names, [name[:3] for name in names])


@pytest.fixture
def data(faces):
    return course_data(faces, split_faces(faces), copies=2, seed=0)


def start(tmp_path, **changed):
    return results.start_run(
        "04_test", **{**PARAMETERS, "run_dir": str(tmp_path)} | changed
    )


def test_course_data_augments_the_training_part_only(faces, data):
    assert len(data.train) == 2 * 18
    assert len(data.plain) == 18
    assert len(data.test) == 2
    again = course_data(faces, data.split, copies=5, seed=9)
    assert torch.equal(again.test.ab, data.test.ab)
    assert torch.equal(again.plain.ab, data.plain.ab)


@pytest.mark.parametrize(
    "wrong",
    [
        {"seed": "1"},
        {"seed": -1},
        {"seed": True},
        {"num_epochs": 2.5},
        {"split": "persons"},
        {"profile": "fast"},
        {"device": "tpu"},
        {"images": 3},
    ],
    ids=str,
)
def test_a_wrong_parameter_is_named_before_any_work(wrong, tmp_path):
    with pytest.raises(InputError, match=next(iter(wrong))):
        start(tmp_path / "run", **wrong)
    assert not (tmp_path / "run").exists()


def test_too_few_images_are_refused_before_any_work(tmp_path):
    for number in range(12):
        write_image(tmp_path / f"{number}.png", np.full((8, 8, 3), number, np.uint8))
    with pytest.raises(InputError, match="12 images; the notebooks need at least 60"):
        start(tmp_path, images=str(tmp_path))


def test_the_profile_is_read_and_one_number_can_be_overridden(tmp_path):
    assert start(tmp_path).num_epochs("regressor/relu") == 10
    assert start(tmp_path, profile="full").num_epochs("regressor/relu") == 100
    assert start(tmp_path, num_epochs=3).num_epochs("regressor/relu") == 3


def test_metrics_come_last_and_an_old_one_is_removed_at_the_start(tmp_path, data):
    run = start(tmp_path)
    assert not run.metrics_file.exists()
    run.finish({}, data.faces, data.split)
    metrics = read_json(run.metrics_file)
    assert metrics["parameters"]["seed"] == 1
    assert metrics["data"]["test_images"] == 2
    assert metrics["data"]["hash"] == data.faces.data_hash()
    assert not start(tmp_path).metrics_file.exists()


def test_the_split_is_written_by_name(tmp_path, data):
    start(tmp_path).finish({}, data.faces, data.split)
    split = read_json(tmp_path / "split.json")
    assert len(split["train"]) == 18 and len(split["test"]) == 2
    assert not set(split["train"]) & set(split["test"])


def test_colorized_pictures_of_folders_do_not_collide(tmp_path):
    run = start(tmp_path)
    pictures = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    run.save_colorized("test", ["a/1.jpg", "b/1.jpg"], pictures)
    written = sorted(path.name for path in (tmp_path / "colorized/test").iterdir())
    assert written == ["a_1.png", "b_1.png"]


def test_colorized_pictures_whose_names_collide_are_all_kept(tmp_path):
    run = start(tmp_path)
    pictures = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    run.save_colorized("test", ["a/b.png", "a_b.png", "a_b.jpg"], pictures)
    assert len(list((tmp_path / "colorized/test").iterdir())) == 3


def test_the_environment_names_no_person_and_no_path():
    import getpass
    import platform
    from pathlib import Path

    text = json.dumps(results.environment())
    assert torch.__version__.split("+")[0] in text
    assert str(Path.home()) not in text
    assert f'"{platform.node()}"' not in text
    assert f'"{getpass.getuser()}"' not in text


def test_results_md_shows_each_figure_beside_the_published_one(tmp_path, data):
    errors = {"mse": torch.tensor([1e-4, 2e-4, 3e-4])}
    evaluation = Evaluation(errors, torch.zeros(3, 2))
    figures = {"parameters": 884, "epochs": 3, "published": published("regressor/relu")}
    row = Row.of("mean", evaluation, **figures)
    rows = {"regressor": row, "constant": Row.of("map", evaluation)}
    start(tmp_path).finish(rows, data.faces, data.split)
    page = results.write_results(tmp_path).read_text()
    line = next(x for x in page.splitlines() if "| regressor |" in x)
    assert "884" in line and "**2.000e-04**" in line and "1.195e-04" in line
    assert f"| {2e-4 / 1.195e-4:.2f} |" in line
    assert page.index("| constant |") < page.index("| regressor |")  # maps, then means
    assert read_json(tmp_path / "results.json")["notebooks"]["04_test"]["networks"]
    assert (tmp_path / "figures/results.png").stat().st_size > 1000


def test_results_md_names_the_images_of_each_notebook(tmp_path, data):
    evaluation = Evaluation({"mse": torch.ones(3)}, torch.zeros(3, 2))
    row = Row.of("mean", evaluation, published=published("regressor/relu"))
    drawn = replace(data.faces, source="portraits", synthetic=True)
    start(tmp_path).finish({"drawn": row}, drawn, data.split)
    again = results.start_run("05_test", **PARAMETERS | {"run_dir": str(tmp_path)})
    again.finish({"photographed": row}, data.faces, data.split)
    page = results.write_results(tmp_path).read_text()
    (synthetic,) = [line for line in page.splitlines() if "from portraits" in line]
    assert synthetic.startswith("- Notebook 04: ") and "not comparable" in synthetic
    assert "- Notebook 05: " in page and page.count("not comparable") == 1
    (row_of_drawn,) = [line for line in page.splitlines() if "| drawn |" in line]
    (other,) = [line for line in page.splitlines() if "| photographed |" in line]
    assert "1.195e-04" in other and "1.195e-04" not in row_of_drawn


def test_results_md_of_an_empty_folder_says_so(tmp_path):
    assert "No notebook has finished" in results.write_results(tmp_path).read_text()


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_can_be_built_trained_and_saved(name, tmp_path, data):
    if get_experiment(name).task == "rgb":
        data = study_data(data.faces, data.split)
    trained = train_experiment(name, data, PROFILES["quick"], num_epochs=1)
    predicted = trained.evaluation.prediction
    assert torch.isfinite(predicted).all()
    trained.save(tmp_path / "w.safetensors")
    net, metadata = load_weights(tmp_path / "w.safetensors")
    assert metadata["network"] == get_experiment(name).network
    again = evaluate(net, data.test).prediction
    torch.testing.assert_close(again, predicted, atol=1e-3, rtol=0)
    row = trained.row()
    assert row.task == net.task and row.gflop > 0
    assert (row.accuracy is not None) == (net.task == "rgb")
    assert (row.single_pass_mse is not None) == net.flip_tta == (row.passes == 2)
    assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row


def test_an_unknown_experiment_gets_a_hint():
    with pytest.raises(InputError, match="did you mean regressor/relu"):
        get_experiment("regresor/relu")


def test_every_baseline_is_tested_in_the_order_of_the_ladder(data):
    ladder = evaluate_baselines(data)
    assert next(iter(ladder)) == "neutral gray"
    assert list(ladder)[-1] == "table (L, position) -> ab"
    assert all(result.per_image.shape == (2,) for result in ladder.values())


def test_a_time_that_was_not_measured_is_left_out():
    mse = Estimate(1e-4, 0.0, 1.0)
    assert Row("map", mse, epochs=3).cells()["time"] == ""
    assert Row("map", mse, epochs=3, seconds=7).cells()["time"] == "7 s"
