"""Wrong input of every kind ends in one line that names it, and in exit code 2."""

import io
import json
import pickle
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.apps.runner import choose_notebooks, read_notebook, run_notebooks
from helpers.cli import main
from helpers.data.images import ZipSource
from helpers.experiments.registry import get_experiment
from helpers.experiments.run_folder import collect, read_metrics, write_results
from helpers.files import PROJECT, InputError, read_json, run_lock, sha256, write_json
from helpers.training.checkpoint import MAGIC, VERSION, load_checkpoint


def refused(*arguments):
    """Return what a command prints; it must be one line, with exit code 2."""
    result = CliRunner().invoke(main, [*map(str, arguments)])
    assert result.exit_code == 2, result.output
    assert not isinstance(result.exception, Exception), result.output
    return result.output


@pytest.mark.parametrize("command", ["run", "train maps/3", "evaluate colorizer"])
def test_a_home_folder_of_nobody(command):
    output = refused(*command.split(), "--images", "~nosuchuser/x")
    assert "error: ~nosuchuser/x: no such user" in output


@pytest.mark.parametrize("command", ["run", "train maps/3", "sweep maps/3 --seeds"])
def test_a_seed_that_is_too_large(command):
    words = command.split()
    words += [] if words[-1] == "--seeds" else ["--seed"]
    assert "4294967295" in refused(*words, "99999999999999999999999")


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ("seed=-1", "seed=-1: must be a whole number from 0"),
        ("seed=9999999999999", "must be a whole number from 0"),
        ("split=people", "must be random or groups"),
        ("device=gpu", "use auto, cpu or cuda"),
        ("profile=fast", "profile 'fast': unknown"),
        ("run_dir=x", "give the folder with --run-dir"),
    ],
)
def test_a_bad_value_starts_no_kernel(parameter, message, tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.apps.runner.papermill.execute_notebook", None)
    output = refused("run", "-p", parameter, "--run-dir", tmp_path)
    assert message in output


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lr=0.1", "network 'lr=0.1': unknown"),
        ("maps/8,maps=99999999", "maps=99999999: at most 1024"),
        ("maps/wide,maps=(8,16,32,1e9)", "unknown|at most 1024|maps"),
    ],
)
def test_settings_that_no_network_can_have(name, message):
    with pytest.raises(InputError, match=message):
        get_experiment(name)
    assert "error: " in refused("train", name)


def test_epochs_of_a_notebook_that_trains_nothing(tmp_path):
    output = refused("run", "--only", "01", "--epochs", 1, "--run-dir", tmp_path)
    assert "parameter 'num_epochs' (--epochs): unknown to the notebooks" in output


def test_a_split_that_the_notebooks_do_not_have():
    assert "'folders' is not one of 'random', 'groups'" in refused(
        "run", "--split", "folders"
    )


def test_a_sweep_into_a_file(tmp_path):
    (tmp_path / "sweep").write_text("mine")
    output = refused("sweep", "maps/3", "--run-dir", tmp_path, "--images", "portraits")
    assert "cannot write or lock" in output
    assert (tmp_path / "sweep").read_text() == "mine"


def test_a_damaged_notebook(tmp_path):
    source = (PROJECT / "notebooks" / "01_load.ipynb").read_text()
    (tmp_path / "01_load.ipynb").write_text(source[: len(source) // 2])
    with pytest.raises(InputError, match=r"01_load\.ipynb: not a complete notebook"):
        run_notebooks(tmp_path / "run", {}, folder=tmp_path)
    assert choose_notebooks(tmp_path)  # it is found, but cannot be read
    for text in ("", "[]", "\0", source[:99]):
        (tmp_path / "01_load.ipynb").write_text(text)
        with pytest.raises(InputError, match="not a complete notebook"):
            read_notebook(tmp_path / "01_load.ipynb")
    for text in ("{}", '{"nbformat": 4, "cells": 3}'):  # notebooks, but not ours
        (tmp_path / "01_load.ipynb").write_text(text)
        with pytest.raises(InputError, match=r"01_load\.ipynb"):
            run_notebooks(tmp_path / "run", {}, folder=tmp_path)


def test_half_a_lock_file_does_not_stop_a_run(tmp_path):
    for text in ("", "[]", '{"pid": 3}', "3"):
        (tmp_path / ".holder.json").write_text(text)
        lines = []
        with run_lock(tmp_path, lines.append):
            pass
        assert lines == [
            f"{tmp_path}: taking over from another process, which has ended"
        ]


def test_an_empty_name_in_a_zip(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(zipfile.ZipInfo(""), b"?")
        archive.writestr("a.png", b"?")
    assert ZipSource(path).names == ["a.png"]


class Code:
    """Prints a word when it is unpickled."""

    def __reduce__(self):
        return print, ("executed",)


def as_checkpoint(path, data):
    path.write_bytes(MAGIC + VERSION + b"\n" + sha256(data).encode() + b"\n" + data)


def test_a_checkpoint_with_code_is_refused_without_bad_advice(tmp_path, capsys):
    buffer = io.BytesIO()
    torch.save({"state": Code()}, buffer)
    for data in (buffer.getvalue(), pickle.dumps(Code()), b"PK\3\4"):
        as_checkpoint(tmp_path / "c.pt", data)
        with pytest.raises(InputError, match="not a checkpoint of this") as error:
            load_checkpoint(tmp_path / "c.pt")
        assert "weights_only" not in str(error.value)
    assert capsys.readouterr().out == ""


def test_a_checkpoint_that_unpacks_to_much_more_is_refused(tmp_path):
    buffer, packed = io.BytesIO(), io.BytesIO()
    torch.save({"x": torch.zeros(2_000_000)}, buffer)
    with (
        zipfile.ZipFile(buffer) as plain,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
    assert len(packed.getvalue()) < 100_000
    as_checkpoint(tmp_path / "c.pt", packed.getvalue())
    with pytest.raises(InputError, match="it unpacks to 8"):
        load_checkpoint(tmp_path / "c.pt")
    as_checkpoint(tmp_path / "c.pt", buffer.getvalue())
    assert load_checkpoint(tmp_path / "c.pt")["x"].shape == (2_000_000,)


ROW = {
    "task": "map", "test_mse": {"mean": 1e-4, "low": 0.0, "high": 1.0},
    "mean_mse": None, "accuracy": None, "single_pass_mse": None, "published": None,
    "parameters": 7, "epochs": 1, "seconds": 3.0,
}  # fmt: skip
METRICS = {
    "schema": 2, "notebook": "04_x", "parameters": {"seed": 4}, "artifacts": [],
    "data": {"source": "x", "synthetic": True, "images": 3, "hash": "h", "split": "random",
             "training_images": 2, "test_images": 1},
    "networks": {"a": ROW},
}  # fmt: skip


def places(content, path=()):
    """Yield the path to each value of nested dictionaries."""
    for key, value in content.items():
        yield (*path, key)
        if isinstance(value, dict):
            yield from places(value, (*path, key))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(places(METRICS))),
    st.sampled_from(["gone", None, [], {}, "text", -1, float("inf")]),
)
def test_metrics_with_any_value_changed_never_end_in_a_traceback(place, value):
    content = json.loads(json.dumps(METRICS))
    inner = content
    for key in place[:-1]:
        inner = inner[key]
    if value == "gone":
        del inner[place[-1]]
    else:
        inner[place[-1]] = value
    with tempfile.TemporaryDirectory() as folder:  # hypothesis allows no tmp_path
        path = Path(folder) / "04_x" / "metrics.json"
        path.parent.mkdir()
        path.write_text(json.dumps(content))
        try:
            write_results(Path(folder))
        except InputError as error:
            assert "metrics.json" in str(error) and "\n" not in str(error)


def test_metrics_as_they_should_be_are_read(tmp_path):
    write_json(tmp_path / "04_x" / "metrics.json", METRICS)
    assert read_metrics(tmp_path / "04_x" / "metrics.json") == METRICS
    assert collect(tmp_path)["notebooks"] == {"04_x": METRICS}
    assert read_json(write_results(tmp_path).with_name("results.json"))
