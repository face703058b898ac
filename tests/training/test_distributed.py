"""Two or three processes under torchrun compute the same results as one."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from safetensors.torch import load_file

from helpers.data.portraits import write_portraits
from helpers.files import InputError
from helpers.training import distributed

pytestmark = pytest.mark.skipif(os.name == "nt", reason="gloo and signals of Unix")
LIMIT = 240  # seconds; a hang is a failure


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    write_portraits(folder, num_sitters=10, shots=6)
    return folder


def start(number, name, faces, run_dir, *options):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(number), "-m", "helpers", "train", name]
    command += ["--images", str(faces), "--run-dir", str(run_dir), *options]
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def train(number, name, faces, run_dir, *options):
    """Train in this many processes; return (weights, metrics, output)."""
    process = start(number, name, faces, run_dir, *options)
    output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, output
    folder = run_dir / "train" / f"{name.replace('/', '_')}_seed4"
    metrics = json.loads((folder / "metrics.json").read_text())
    return load_file(folder / "weights.safetensors"), metrics, output


WITHOUT_BATCHNORM = ["regressor/relu", "report003/default"]
NAMES = [*WITHOUT_BATCHNORM, "unet/fresh"]


@pytest.mark.parametrize("name", NAMES)
def test_several_processes_train_the_network_that_one_trains(name, faces, tmp_path):
    # 54 photographs in minibatches of 18: three processes have 6 each, two 9
    options = ("--epochs", "2")
    alone, expected, _ = train(1, name, faces, tmp_path / "1", *options)
    number = 3 if name == "unet/fresh" else 2
    shared, metrics, output = train(number, name, faces, tmp_path / "2", *options)
    # On a CPU, BatchNorm computes its statistics over each process's share: errors differ
    # by up to 10 %; without BatchNorm, only by rounding.
    tolerance = 1e-3 if name in WITHOUT_BATCHNORM else 0.1
    for key in {"train_mse", "test_mse"} & set(expected["history"]):
        found, known = metrics["history"][key], expected["history"][key]
        assert found == pytest.approx(known, rel=tolerance)
    if name in WITHOUT_BATCHNORM:
        torch.testing.assert_close(shared, alone, rtol=1e-3, atol=1e-4)
    assert output.count("epoch    1 of 2") == 1  # only the first process logs
    assert "Warning" not in output


def test_uneven_parts_give_the_mean_over_all_images(faces, tmp_path):
    for photograph in sorted(faces.iterdir())[:7]:
        (tmp_path / photograph.name).write_bytes(photograph.read_bytes())
    for photograph in sorted(faces.iterdir())[30:37]:
        (tmp_path / photograph.name).write_bytes(photograph.read_bytes())
    options = ("--epochs", "3")  # 13 training images: shares of 7 and 6
    _, expected, _ = train(1, "unet/fresh", tmp_path, tmp_path / "1", *options)
    _, metrics, _ = train(2, "unet/fresh", tmp_path, tmp_path / "2", *options)
    known = expected["history"]["train_mse"]
    assert metrics["history"]["train_mse"] == pytest.approx(known, rel=0.01)


def workers_of(process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children = psutil.Process(process.pid).children(recursive=True)
        workers = [c for c in children if "helpers" in " ".join(c.cmdline())]
        if len(workers) == 2:
            return workers
        time.sleep(0.2)
    raise AssertionError("the processes did not start")


def test_when_one_dies_all_end_and_the_same_command_goes_on(faces, tmp_path):
    arguments = (2, "maps/8", faces, tmp_path)
    process = start(*arguments, "--epochs", "12")
    try:
        workers = workers_of(process)
        for line in process.stdout:
            if line.startswith("epoch    3 "):
                break
        workers[1].send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode != 0
    assert "Signal 9 (SIGKILL)" in output  # the output names the cause
    assert not any(worker.is_running() for worker in workers)
    _, metrics, output = train(*arguments, "--epochs", "12")
    assert metrics["history"]["epoch"] == list(range(1, 13))
    assert "epoch    1 of 12" not in output


@pytest.mark.parametrize("told", ["all", "the second"])
def test_term_saves_and_ends_all(told, faces, tmp_path):
    process = start(2, "maps/8", faces, tmp_path, "--epochs", "2000")
    try:
        second = workers_of(process)[1]
        for line in process.stdout:
            if line.startswith("epoch    2 "):
                break
        (process if told == "all" else second).send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode != 0
    assert output.count("stopped by SIGTERM at epoch") == 1
    assert (tmp_path / "train/maps_8_seed4/checkpoint.pt").exists()
    assert not (
        tmp_path / "train/maps_8_seed4/metrics.json"
    ).exists()  # the run has not finished


def test_alone_nothing_is_shared():
    index = torch.arange(7)
    assert distributed.count() == 1 and distributed.rank() == 0
    assert torch.equal(distributed.my_share(index), index)
    assert torch.equal(distributed.gather(index), index)
    assert distributed.max_of_all(15, 0) == [15, 0]
    net = torch.nn.BatchNorm2d(3)
    assert distributed.wrap(net) is net
    assert distributed.join("cpu") == "cpu"


def test_parts_differ_by_one_image_at_most(monkeypatch):
    monkeypatch.setattr(distributed, "count", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        parts.append(distributed.my_share(torch.arange(8)))
    assert [len(part) for part in parts] == [3, 3, 2]
    assert torch.equal(torch.cat(parts), torch.arange(8))
    with pytest.raises(InputError, match="2 images for 3 processes; start fewer"):
        distributed.my_share(torch.arange(2))


def test_when_torchrun_dies_its_processes_save_and_end(faces, tmp_path):
    process = start(2, "maps/8", faces, tmp_path, "--epochs", "2000")
    workers = workers_of(process)
    for line in process.stdout:
        if line.startswith("epoch    2 "):
            break
    process.send_signal(signal.SIGUSR1)  # it kills torchrun, which does not forward it
    process.wait(60)
    _, alive = psutil.wait_procs(workers, timeout=60)
    for worker in alive:
        worker.kill()
    assert not alive
    assert (tmp_path / "train/maps_8_seed4/checkpoint.pt").exists()
