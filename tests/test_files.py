import errno
import hashlib
import json
import math
import os
import platform
import stat
import subprocess
import sys
import time

import pytest

from helpers import files
from helpers.files import (
    InputError,
    read_json,
    run_lock,
    sha256,
    unique_stems,
    write_atomic,
    write_json,
)


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


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    """Set the umask for one test."""
    old = os.umask(0o022)
    yield os.umask
    os.umask(old)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_a_new_file_gets_the_permissions_of_the_umask(tmp_path, umask, mask):
    umask(mask)
    write_atomic(tmp_path / "data.bin", b"x")
    assert mode(tmp_path / "data.bin") == 0o666 & ~mask


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
@pytest.mark.parametrize("permissions", [0o600, 0o640, 0o664, 0o444, 0o755])
def test_a_replaced_file_keeps_its_permissions(tmp_path, umask, permissions):
    path = tmp_path / "data.bin"
    path.write_bytes(b"old")
    path.chmod(permissions)
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert mode(path) == permissions


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_private_file_is_private_while_it_is_written(tmp_path, umask, monkeypatch):
    path = tmp_path / "data.bin"
    path.write_bytes(b"old")
    path.chmod(0o600)
    seen = []
    monkeypatch.setattr(
        os, "fsync", lambda _: seen.extend(mode(p) for p in tmp_path.iterdir())
    )
    write_atomic(path, b"new")
    assert seen == [0o600, 0o600]


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


def test_a_reader_never_sees_a_half_written_file(tmp_path, monkeypatch):
    path = tmp_path / "data.bin"
    path.write_bytes(b"old")
    seen = []
    really_sync = os.fsync

    def read_then_sync(handle):
        seen.append(path.read_bytes())
        really_sync(handle)

    monkeypatch.setattr(os, "fsync", read_then_sync)
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


def test_a_folder_with_the_name_of_the_file_is_an_input_error(tmp_path):
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


def test_json_is_read_back_equal_with_accents_and_null(tmp_path):
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
def test_a_file_that_is_not_json_is_an_input_error_naming_it(tmp_path, data):
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert str(caught.value).startswith(f"{path}: not a readable JSON file")


def test_missing_json_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_json(tmp_path / "absent.json")


def test_other_programs_can_read_the_written_json(tmp_path):
    write_json(tmp_path / "x.json", {"a": [1, 2]})
    assert json.loads((tmp_path / "x.json").read_bytes()) == {"a": [1, 2]}


def test_sha256_of_parts_equals_that_of_the_whole():
    assert sha256(b"ab", b"", b"c") == hashlib.sha256(b"abc").hexdigest()
    assert sha256().startswith("e3b0c44298fc1c14")


def test_stems_are_flat_and_unchanged_without_a_collision():
    names = [
        "a/b.png",
        "c.jpg",
        "x y.tar.gz",
        "Zoë/été.png",
        ".hidden.png",
        "no_suffix",
    ]
    stems = ["a_b", "c", "x y.tar", "Zoë_été", ".hidden", "no_suffix"]
    assert unique_stems(names) == stems


def test_stems_that_collide_are_numbered_in_the_order_of_the_names():
    assert unique_stems(["a/b.png", "a_b.png", "a_b.jpg"]) == ["a_b", "a_b-2", "a_b-3"]
    assert unique_stems(["a_b.jpg", "a/b.png"]) == ["a_b", "a_b-2"]
    assert unique_stems(["x.png", "x.png"]) == ["x", "x-2"]
    assert unique_stems([]) == []


def test_a_numbered_stem_never_takes_the_stem_of_another_name():
    names = ["a/b.png", "a_b.png", "a_b-2.png", "a_b-3.png", "a_b-2.jpg"]
    assert unique_stems(names) == ["a_b", "a_b-4", "a_b-2", "a_b-3", "a_b-2-2"]


def test_stems_differ_without_regard_to_case_and_unicode_form():
    assert unique_stems(["A.png", "a.png", "a-2.jpg"]) == ["A", "a-3", "a-2"]
    assert unique_stems(["\u00e9.png", "e\u0301.png"]) == ["\u00e9", "e\u0301-2"]
    assert unique_stems(["STRASSE.png", "straße.png"]) == ["STRASSE", "straße-2"]


def test_stems_of_odd_names_can_be_written_as_files(tmp_path):
    names = [
        "../up.png",
        "/root.png",
        "",
        ".",
        "..",
        "a\\b.png",
        "a:b?.png",
        "a\nb.png",
    ]
    names += ["\udcff.png", "\0.png", "é" * 300 + ".png", "é" * 301 + ".png"]
    stems = unique_stems(names)
    assert stems[:4] == [".._up", "_root", "image", "image-2"]
    for stem in stems:
        write_atomic(tmp_path / f"{stem}.png", b"x")
    assert len(list(tmp_path.iterdir())) == len(names)


ONE_START = """
import sys, time
from helpers.files import InputError, run_lock
print("ready", flush=True)
time.sleep(max(0, float(sys.stdin.readline()) - time.time()))
try:
    with run_lock(sys.argv[1], log=lambda line: None):
        print("in", flush=True)
        sys.stdin.readline()
except InputError as error:
    print(error, flush=True)
"""


@pytest.fixture
def start_runs():
    """Start processes that all try to lock a folder at the same moment."""
    started = []

    def start(folder, number=1):
        command = [sys.executable, "-c", ONE_START, str(folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        new = [subprocess.Popen(command, **pipes) for _ in range(number)]
        started.extend(new)
        assert {process.stdout.readline() for process in new} == {"ready\n"}
        for process in new:
            print(time.time() + 0.3, file=process.stdin, flush=True)
        return new

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_of_twenty_simultaneous_starts_exactly_one_gets_the_folder(
    start_runs, tmp_path
):
    runs = start_runs(tmp_path, number=20)
    answers = {process.pid: process.stdout.readline() for process in runs}
    (holder,) = [pid for pid, answer in answers.items() if answer == "in\n"]
    refusals = [answer for answer in answers.values() if answer != "in\n"]
    in_use = f"{tmp_path}: in use by process {holder} on {platform.node()} since 2"
    assert len(refusals) == 19
    assert all(answer.startswith(in_use) for answer in refusals)
    assert all("wait for it to end, or choose another" in answer for answer in refusals)


def test_the_lock_of_a_killed_run_is_free_and_the_takeover_is_logged(
    start_runs, tmp_path
):
    (run,) = start_runs(tmp_path)
    assert run.stdout.readline() == "in\n"
    with pytest.raises(InputError, match=f"in use by process {run.pid} on"):
        run_lock(tmp_path).__enter__()
    run.kill()
    run.wait()
    lines = []
    with run_lock(tmp_path, lines.append):
        assert read_json(tmp_path / ".holder.json")["pid"] == os.getpid()
    (line,) = lines
    assert line.startswith(f"{tmp_path}: taking over from process {run.pid} on ")


def test_a_lock_is_released_without_deleting_its_file(tmp_path):
    folder, lines = tmp_path / "a" / "run", []
    with run_lock(folder, lines.append):
        inode = (folder / ".lock").stat().st_ino
        with pytest.raises(InputError, match=f"process {os.getpid()}"):
            run_lock(folder).__enter__()
    with pytest.raises(ZeroDivisionError), run_lock(folder, lines.append):
        raise ZeroDivisionError
    with run_lock(folder, lines.append):
        pass
    assert (folder / ".lock").stat().st_ino == inode or os.name == "nt"
    assert not (folder / ".holder.json").exists()
    assert lines == []


def test_a_start_between_lock_and_holder_file_is_still_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with run_lock(tmp_path):
        (tmp_path / ".holder.json").unlink()
        with pytest.raises(InputError, match="in use by another process; wait"):
            run_lock(tmp_path).__enter__()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no flock")
@pytest.mark.filterwarnings("ignore:flock not supported")
def test_a_disk_without_flock_is_locked_by_the_existence_of_the_file(
    tmp_path, monkeypatch
):
    break_flock(monkeypatch, errno.ENOSYS)
    with run_lock(tmp_path):
        with pytest.raises(InputError, match=r"if it is gone, delete .*\.lock"):
            run_lock(tmp_path).__enter__()
        assert (tmp_path / ".lock").exists()
    with run_lock(tmp_path):
        pass


@pytest.mark.skipif(os.name == "nt", reason="Windows has no flock")
def test_a_disk_that_refuses_locks_is_an_input_error(tmp_path, monkeypatch):
    break_flock(monkeypatch, errno.ENOLCK)
    with pytest.raises(
        InputError, match=r"cannot write or lock .*choose another folder"
    ):
        run_lock(tmp_path).__enter__()


def break_flock(monkeypatch, code):
    import fcntl

    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)


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
def test_the_smallest_quota_up_to_the_root_counts(tmp_path):
    assert files._cgroup_cores(tmp_path) == math.inf
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert files._cgroup_cores(tmp_path) == math.inf
    (tmp_path / "cpu.max").write_text("250000 100000\n")
    assert files._cgroup_cores(tmp_path) == 2.5


def test_peak_memory_is_at_least_what_was_allocated():
    before = files.peak_memory()
    held = bytearray(b"x") * (64 * 2**20)
    assert files.peak_memory() >= 64 * 2**20
    assert files.peak_memory() >= before
    del held
