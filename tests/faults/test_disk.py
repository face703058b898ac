"""A disk that is full while notebooks run, and weights that may not be read."""

import subprocess
import sys

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers.files import PROJECT, InputError
from helpers.nets import Regressor
from helpers.training.weights import load_weights, save_weights

RUN_WITH_FULL_DISK = """
import resource, sys
import torch
from pathlib import Path
from helpers.apps import runner
from helpers.data.faces import FaceSet
from helpers.files import InputError

images = torch.zeros(20, 3, 2, 2, dtype=torch.uint8)
faces = FaceSet(images, [f"{n}.jpg" for n in range(20)], source="here")
runner.load_faces = lambda images: faces
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    runner.run_notebooks(Path(sys.argv[2]), {}, folder=Path(sys.argv[1]))
except InputError as error:
    print("refused:", error)
"""


def test_a_disk_that_is_full_at_the_executed_notebook_is_named(tmp_path):
    cells = [
        new_code_cell(
            'images: str = ""\nrun_dir: str = ""', metadata={"tags": ["parameters"]}
        ),
        new_code_cell("print('x' * 300_000)"),
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = new_notebook(cells=cells, metadata={"kernelspec": kernel})
    (tmp_path / "notebooks").mkdir()
    nbformat.write(notebook, tmp_path / "notebooks" / "01_a.ipynb")
    command = [sys.executable, "-c", RUN_WITH_FULL_DISK]
    done = subprocess.run(
        [*command, str(tmp_path / "notebooks"), str(tmp_path / "run")],
        cwd=PROJECT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    (line,) = [x for x in done.stdout.splitlines() if x.startswith("refused: ")]
    assert "01_a.ipynb: cannot write (File too large)" in line, done.stderr


def test_weights_that_may_not_be_read_are_named(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    save_weights(path, Regressor(), "regressor", {})

    def refuse(*arguments, **options):  # the superuser may read everything
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("helpers.training.weights.safe_open", refuse)
    with pytest.raises(InputError, match=r"net\.safetensors: .*Permission denied"):
        load_weights(path)
