import hashlib
import json
import math
import os
import stat

import pytest

from helpers import files
from helpers.files import InputError, read_json, sha256, write_atomic, write_json


def test_write_atomic_creates_the_folders_and_writes_every_byte(tmp_path):
    path = tmp_path / "a" / "b" / "data.bin"
    write_atomic(path, b"\x00\xff\n" * 1000)
    assert path.read_bytes() == b"\x00\xff\n" * 1000


def test_write_atomic_replaces_a_file_and_leaves_no_temporary(tmp_path):
    path = tmp_path / "data.bin"
    write_atomic(path, b"a long first version")
    write_atomic(path, b"second")
    assert path.read_bytes() == b"second"
    assert [p.name for p in tmp_path.iterdir()] == ["data.bin"]


def test_written_files_are_readable_by_others(tmp_path):
    write_atomic(tmp_path / "data.bin", b"x")
    assert stat.S_IMODE((tmp_path / "data.bin").stat().st_mode) == 0o644


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_stop_during_a_write_leaves_the_old_file_and_no_temporary(
    tmp_path, monkeypatch, step
):
    path = tmp_path / "data.bin"
    path.write_bytes(b"old")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, step, stop)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["data.bin"]


def test_a_reader_never_meets_a_half_written_file(tmp_path, monkeypatch):
    path = tmp_path / "data.bin"
    path.write_bytes(b"old")
    seen = []
    really_sync = os.fsync

    def look_then_sync(handle):
        seen.append(path.read_bytes())
        really_sync(handle)

    monkeypatch.setattr(os, "fsync", look_then_sync)
    write_atomic(path, b"new")
    assert seen == [b"old"]
    assert path.read_bytes() == b"new"


def test_a_folder_that_cannot_be_written_is_an_input_error_naming_the_file(tmp_path):
    (tmp_path / "file").write_bytes(b"not a folder")
    path = tmp_path / "file" / "data.bin"
    with pytest.raises(InputError, match="cannot write") as caught:
        write_atomic(path, b"x")
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_folder_in_the_place_of_the_file_is_an_input_error(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(InputError, match="taken: cannot write"):
        write_atomic(tmp_path / "taken", b"x")


def test_a_full_disk_is_an_input_error_and_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "data.bin"
    path.write_bytes(b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"


def test_json_comes_back_equal_with_accents_and_null(tmp_path):
    content = {"name": "Zoë", "values": [1, 2.5, None, True], "inner": {"a*": 1e-3}}
    write_json(tmp_path / "x.json", content)
    assert read_json(tmp_path / "x.json") == content
    text = (tmp_path / "x.json").read_text(encoding="utf-8")
    assert "Zoë" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_json_never_holds_a_number_that_is_not_finite(tmp_path, number):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"mse": number})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"{", b"<html>404</html>", b"\xff\xfe{}"])
def test_what_is_not_json_is_an_input_error_naming_the_file(tmp_path, data):
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: not a readable JSON file")


def test_missing_json_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_json(tmp_path / "absent.json")


def test_written_json_is_json_to_other_programs(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1, 2]})
    assert json.loads((tmp_path / "x.json").read_bytes()) == {"a": [1, 2]}


def test_sha256_of_parts_is_that_of_the_whole():
    assert sha256(b"ab", b"", b"c") == hashlib.sha256(b"abc").hexdigest()
    assert sha256().startswith("e3b0c44298fc1c14")


def test_free_cores_are_limited_by_affinity(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3}, raising=False)
    monkeypatch.setattr(files, "_cgroup_cores", lambda: math.inf)
    assert files.free_cores() == 2


@pytest.mark.parametrize(
    ("quota", "cores"), [("150000 100000", 1), ("50000 100000", 1), ("max 100000", 8)]
)
def test_free_cores_are_limited_by_the_quota(monkeypatch, quota, cores):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    amount, period = quota.split()
    limit = math.inf if amount == "max" else int(amount) / int(period)
    monkeypatch.setattr(files, "_cgroup_cores", lambda: limit)
    assert files.free_cores() == cores


@pytest.mark.skipif(not os.path.exists("/proc/self/cgroup"), reason="needs Linux")
def test_the_quota_is_the_smallest_up_to_the_root(tmp_path):
    assert files._cgroup_cores(tmp_path) == math.inf
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert files._cgroup_cores(tmp_path) == math.inf
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert files._cgroup_cores(tmp_path) == 2.5


def test_the_peak_of_memory_is_at_least_what_was_held():
    before = files.peak_memory()
    held = bytearray(b"x") * (64 * 2**20)
    assert files.peak_memory() >= 64 * 2**20
    assert files.peak_memory() >= before
    del held
