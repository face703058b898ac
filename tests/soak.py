"""Train, kill, resume, evaluate and colorize in a loop, for a given time: `make soak`.

Each round trains a network by the command line, with plain PyTorch, and kills it at random
moments with random signals until it finishes. Its weights must equal those of an unbroken
run, bit for bit. The network then colorizes the photographs in this process, whose memory
must not grow. At the end of each round, no photograph may have changed, no result may be
missing, and no temporary file or process may be left.
"""

import argparse
import contextlib
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from helpers.apps.colorize_files import colorize_files, load_network
from helpers.apps.evaluate_weights import evaluate_weights
from helpers.data.portraits import write_portraits
from helpers.experiments.run import folder_of
from helpers.files import PROJECT, sha256
from helpers.training.weights import load_weights

NAMES = ("colorizer/n4", "regressor/batchnorm", "unet/fresh")
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
EPOCHS = 6
WAIT = (3, 10)
WARM_UP = 3  # rounds before memory is compared
MAX_GROWTH = 100 * 2**20  # bytes


def soak(
    minutes: float, seed: int = 0, epochs: int = EPOCHS, wait: tuple = WAIT
) -> dict[str, int]:
    """Run rounds until the time is over, at least one; return what was done, in numbers.

    wait  the shortest and longest time, in seconds, before the first kill of a round

    Raises AssertionError at the first difference.
    """
    draw, end = random.Random(seed), time.monotonic() + 60 * minutes
    done = dict.fromkeys(("rounds", "kills", "photographs"), 0)
    memory = []
    with tempfile.TemporaryDirectory() as folder:
        photographs, unbroken = Path(folder, "photographs"), {}
        write_portraits(photographs, num_sitters=6, shots=5)
        before = _content(photographs)
        while not done["rounds"] or time.monotonic() < end:
            name = NAMES[done["rounds"] % len(NAMES)]
            if name not in unbroken:
                run_dir = Path(folder, "unbroken")
                assert _train(name, photographs, run_dir, epochs).wait() == 0
                unbroken[name] = _hash(_weights(run_dir, name))
            run_dir = Path(folder, f"run{done['rounds']}")
            done["kills"] += _train_and_kill(
                name, photographs, run_dir, epochs, draw, wait
            )
            weights = _weights(run_dir, name)
            assert _hash(weights) == unbroken[name], f"{name}: other weights"
            done["photographs"] += _use(weights, photographs, run_dir / "colorized")
            assert _content(photographs) == before, "a photograph has changed"
            _assert_nothing_left(run_dir)
            done["rounds"] += 1
            memory.append(psutil.Process().memory_info().rss)
            print(f"{name:<20} {done}, {memory[-1] / 2**20:.0f} MiB", flush=True)
    if len(memory) > WARM_UP:
        growth = memory[-1] - memory[WARM_UP]
        assert growth < MAX_GROWTH, f"memory has grown by {growth / 2**20:.0f} MiB"
    return done


def _train(name: str, photographs: Path, run_dir: Path, epochs: int):
    command = [sys.executable, "-m", "helpers", "train", name, "--plain"]
    command += ["--images", photographs, "--run-dir", run_dir, "--epochs", str(epochs)]
    log = run_dir.with_suffix(".log").open("a")
    return subprocess.Popen(command, cwd=PROJECT, stdout=log, stderr=log)


def _train_and_kill(name, photographs, run_dir, epochs, draw, wait) -> int:
    """Start a training run until it finishes; return how often it was killed."""
    for kills in range(50):
        process = _train(name, photographs, run_dir, epochs)
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Later rounds of a training run get more time, so that it finishes.
            code = process.wait(draw.uniform(*wait) * 1.5**kills)
            assert code == 0, run_dir.with_suffix(".log").read_text()
            return kills
        process.send_signal(draw.choice(SIGNALS))
        process.wait(120)
    raise AssertionError(f"{name}: not finished after 50 starts")


def _use(weights: Path, photographs: Path, output: Path) -> int:
    """Evaluate or colorize with the weights; return the number of photographs."""
    count = len(list(photographs.iterdir()))
    lines = []
    evaluate_weights(str(weights), str(photographs), "all", 0, "cpu", log=lines.append)
    assert any(line.startswith("mse ") for line in lines), lines
    if "regressor" in str(weights):
        return count
    net = load_network(str(weights), "", "", "colorizer")
    colorize_files(net, [str(photographs)], output, log=lines.append)
    assert len(list(output.iterdir())) == count, "a colorized photograph is missing"
    return count


def _assert_nothing_left(run_dir: Path) -> None:
    """Check for temporary files, and for processes that name the folder."""
    kept = {".lock"}
    hidden = {file.name for file in run_dir.rglob(".*")} - kept
    assert not hidden, f"left behind: {hidden}"
    found = [p for p in psutil.process_iter(["cmdline"]) if p.info["cmdline"]]
    left = [p for p in found if any(str(run_dir) in x for x in p.info["cmdline"])]
    assert not left, f"still running: {left}"


def _weights(run_dir: Path, name: str) -> Path:
    return folder_of(run_dir, name, 4) / "weights.safetensors"


def _hash(weights: Path) -> str:
    return load_weights(weights)[1]["sha256"]  # the file's own order of fields varies


def _content(folder: Path) -> dict[str, str]:
    return {file.name: sha256(file.read_bytes()) for file in folder.iterdir()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("minutes", type=float, nargs="?", default=60)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(soak(given.minutes, given.seed))
