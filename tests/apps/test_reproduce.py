import pytest
from click.testing import CliRunner

from helpers.apps import reproduce as module
from helpers.apps.reproduce import claims_of, differences, reproduce
from helpers.cli import main
from helpers.experiments.run import folder_of, train_one
from helpers.experiments.run_folder import environment
from helpers.files import InputError, WorkFailed, read_json, write_json


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the metrics.json of a short training run on the portraits."""
    folder = tmp_path_factory.mktemp("run")
    how = {"images": "portraits", "epochs": 1, "device": "cpu", "run_dir": str(folder)}
    train_one("report000/regressor", **how, log=lambda line: None)
    return folder_of(folder, "report000/regressor", 4) / "metrics.json"


def test_a_training_run_is_reproduced(trained):
    lines = []
    reproduce(trained, log=lines.append)
    assert lines[-1] == "all 1 errors are reproduced within 10%"
    (row,) = [x for x in lines if x.startswith("report000/regressor ") and "e-" in x]
    assert row.endswith("+0.0%")


def test_a_claim_that_does_not_hold_is_named(trained, tmp_path):
    content = read_json(trained)
    content["networks"]["report000/regressor"]["test_mse"]["mean"] /= 2
    write_json(tmp_path / "claimed.json", content)
    with pytest.raises(WorkFailed, match=r"1 of 1 not .* 10%: report000/regressor"):
        reproduce(tmp_path / "claimed.json", log=lambda line: None)


def test_other_images_are_refused_before_the_training(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train_one", lambda *_, **__: pytest.fail("trained"))
    content = read_json(trained)
    content["data"]["hash"] = "another"
    write_json(tmp_path / "claimed.json", content)
    with pytest.raises(InputError, match=r"the images differ: .* --images"):
        reproduce(tmp_path / "claimed.json", log=lambda line: None)


def test_results_in_the_given_folder_are_not_taken_for_new_ones(trained):
    with pytest.raises(InputError, match=r"metrics.json: exists; choose a new folder"):
        reproduce(trained, run_dir=str(trained.parents[2]), log=lambda line: None)


def test_images_that_have_moved_are_asked_for(trained, tmp_path):
    content = read_json(trained)
    content["data"] |= {"synthetic": False, "source": "album"}
    write_json(tmp_path / "claimed.json", content)
    with pytest.raises(InputError, match=r"album: no such .* --images tells where"):
        reproduce(tmp_path / "claimed.json", log=lambda line: None)


class Faces:
    """The images that are found now."""

    source, hash = "another folder", "x"

    def data_hash(self):
        return self.hash

    def __len__(self):
        return 5


def results(tmp_path, data_hash="x"):
    """Write the results.json of a run of two notebooks."""
    row = {"task": "map", "test_mse": {"mean": 1e-4}}
    data = {"hash": data_hash, "images": 3, "source": "a folder"}
    parameters = {"images": "portraits", "profile": "quick", "seed": 4}
    parameters |= {"run_dir": "gone"}
    common = {"data": data, "parameters": parameters}
    notebooks = {
        "04_regressor": {**common, "networks": {"one": row, "two": row}},
        "05_colorizer": {**common, "networks": {"one": row}},
    }
    write_json(tmp_path / "results.json", {"notebooks": notebooks})
    write_json(tmp_path / "environment.json", environment() | {"jobs": 2})
    return tmp_path / "results.json"


def test_claims_are_chosen_by_network_or_notebook(tmp_path):
    content = read_json(results(tmp_path))
    assert len(dict(claims_of(content))) == 3
    assert list(dict(claims_of(content, "one"))) == [
        "04_regressor: one",
        "05_colorizer: one",
    ]
    assert list(dict(claims_of(content, "05"))) == ["05_colorizer: one"]
    with pytest.raises(InputError, match="claims nothing about three"):
        reproduce(tmp_path, only="three")


def test_notebooks_run_again_with_their_parameters(tmp_path, monkeypatch):
    def run_notebooks(folder, given, only, jobs, log):
        assert jobs == 2
        assert given == {"images": "portraits", "profile": "quick", "seed": "4"}
        assert only == ["04_regressor"]
        row = {"test_mse": {"mean": 1.05e-4}}
        networks = {"one": row, "two": row}
        found = {"notebooks": {"04_regressor": {"networks": networks}}}
        write_json(folder / "results.json", found)

    monkeypatch.setattr(module, "run_notebooks", run_notebooks)
    monkeypatch.setattr(module, "load_faces", lambda images, size: Faces())
    lines = []
    reproduce(results(tmp_path), only="04", log=lines.append)
    assert lines[-1] == "all 2 errors are reproduced within 10%"
    with pytest.raises(InputError, match="3 from a folder then, 5 from another folder"):
        reproduce(results(tmp_path, "other"), only="04", log=lines.append)


def test_each_notebook_s_own_parameters_and_images_are_used(tmp_path, monkeypatch):
    content = read_json(results(tmp_path))
    study = content["notebooks"]["09_ablation"] = content["notebooks"].pop(
        "05_colorizer"
    )
    study["parameters"] |= {"num_epochs": 5, "faces_80": "faces_80.zip"}
    study["networks"]["one"]["task"] = "rgb"
    study["data"]["hash"] = "y"
    write_json(tmp_path / "results.json", content)
    loaded, given = [], {}

    def load_faces(images, size):
        loaded.append((images, size))
        faces = Faces()
        faces.hash = "x" if size == 128 else "y"
        return faces

    def run_notebooks(folder, parameters, only, jobs, log):
        given.update(parameters)
        write_json(folder / "results.json", content)

    monkeypatch.setattr(module, "load_faces", load_faces)
    monkeypatch.setattr(module, "run_notebooks", run_notebooks)
    reproduce(tmp_path, log=lambda line: None)
    assert loaded == [("portraits", 128), ("faces_80.zip", 40)]
    assert given["num_epochs"] == "5" and given["faces_80"] == "faces_80.zip"
    study["parameters"]["images"] = "album"
    write_json(tmp_path / "results.json", content)
    with pytest.raises(InputError, match="images is 'portraits' in one notebook and"):
        reproduce(tmp_path, log=lambda line: None)


def test_a_fine_tuned_run_starts_from_the_same_weights(trained, tmp_path, monkeypatch):
    content = read_json(trained)
    content["parameters"]["start"] = "portrait"
    write_json(tmp_path / "claimed.json", content)

    def train_one(name, **how):
        raise InputError(f"from {how['start']}")

    monkeypatch.setattr(module, "train_one", train_one)
    with pytest.raises(InputError, match="from portrait"):
        reproduce(tmp_path / "claimed.json", log=lambda line: None)


def test_another_machine_is_named():
    now = environment()
    assert list(differences(now)) == []
    then = {**now, "processor": "Z80", "versions": {**now["versions"], "torch": "0.1"}}
    found = list(differences(then))
    assert found[0].startswith("processor differs: Z80 then, ")
    assert found[1].startswith("torch differs: 0.1 then, ")
    gone = {**now, "versions": {**now["versions"], "gone": "0.1"}}
    assert list(differences(gone)) == ["gone differs: 0.1 then, None now"]


@pytest.mark.parametrize(
    "content",
    [
        {"notebooks": {"a": {}}},
        {"notebooks": 3},
        {"notebooks": [1]},
        [1],
        {"networks": {"a": {"test_mse": {"mean": 1}}}},
        {"networks": {"a": 3}, "parameters": {}, "data": {}},
        {"networks": [], "parameters": {}, "data": {}},
        {
            "networks": {"a": {"test_mse": {"mean": 1}}},
            "data": {"hash": "x"},
            "parameters": {"profile": "quick"},
        },
    ],
)
def test_wrong_input_is_one_line(content, tmp_path):
    write_json(tmp_path / "x.json", content)
    result = CliRunner().invoke(main, ["reproduce", str(tmp_path / "x.json")])
    assert result.exit_code == 2 and "not a results file" in result.output
