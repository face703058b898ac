"""Where colorized photographs are written."""

from pathlib import Path

import pytest

from helpers.apps import photographs
from helpers.apps.photographs import Photograph, ignores_case, targets
from helpers.files import InputError

TWINS = [Photograph(name, Path(name), bytes) for name in ("A.png", "a.png")]


def test_whether_a_folder_ignores_case_is_found_out_by_trying(tmp_path):
    (tmp_path / "seen").write_text("")
    truth = (tmp_path / "SEEN").exists()
    assert ignores_case(tmp_path) is truth
    assert ignores_case(tmp_path / "new" / "folder") is truth
    assert [path.name for path in tmp_path.iterdir()] == ["seen"]


def test_a_folder_that_ignores_case_is_recognized(tmp_path, monkeypatch):
    def exists(path):
        return path.name.lower() in [x.name.lower() for x in path.parent.iterdir()]

    monkeypatch.setattr(Path, "exists", exists)
    assert ignores_case(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused_before_any_work(tmp_path):
    with pytest.raises(
        InputError, match=r"x: cannot write here .*choose another folder"
    ):
        targets(TWINS[:1], tmp_path / ("x" * 300), False, False)


def test_case_twins_are_two_files_or_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(photographs, "ignores_case", lambda folder: False)
    names = [path.name for path in targets(TWINS, tmp_path, False, False)]
    assert names == ["A.png", "a.png"]
    monkeypatch.setattr(photographs, "ignores_case", lambda folder: True)
    with pytest.raises(InputError, match=r"A\.png and a\.png: both would become"):
        targets(TWINS, tmp_path, False, False)
