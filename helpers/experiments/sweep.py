"""Many trainings in one go: side by side on this machine, or as jobs on a cluster.

Each is a process of `deepcolor train` with a folder of its own, so that one that fails
stops no other, and one that was stopped goes on when the sweep is started again.
"""

import fnmatch
import json
import os
import statistics
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from helpers.apps.runner import Lock
from helpers.data.faces import IMAGE_SIZE, PORTRAITS, find_images, load_faces
from helpers.experiments.registry import EXPERIMENTS, get_experiment, get_profile
from helpers.experiments.run import folder_of, parameters_of
from helpers.experiments.tables import sections, table
from helpers.files import (
    PROJECT,
    InputError,
    WorkFailed,
    free_cores,
    read_json,
    sha256,
    write_atomic,
    write_json,
)
from helpers.training.signals import StopSignals

COMMAND = (sys.executable, "-m", "helpers", "train")
PATIENCE = 60  # seconds that a stopped training has to save itself
POLL = 0.1  # seconds between two looks at the running ones


@dataclass(frozen=True)
class Task:
    """One training of a sweep: a network, a seed, its data, folder and what to call."""

    name: str
    seed: int
    folder: Path
    command: list[str]
    parameters: dict
    data_hash: str

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}"

    @property
    def log_file(self) -> Path:
        """What the training prints."""
        return self.folder / "log.txt"

    def metrics(self) -> dict | None:
        """What it has found, or None when it is not done with these parameters and data."""
        file = folder_of(self.folder, self.name) / "metrics.json"
        content = read_json(file) if file.exists() else {"parameters": None}
        same = content["parameters"] == self.parameters
        return content if same and content["data"]["hash"] == self.data_hash else None


def run_sweep(
    patterns: Sequence[str],
    seeds: Sequence[int],
    *,
    run_dir: Path,
    profile: str = "quick",
    images: str = "",
    split: str = "random",
    device: str = "auto",
    epochs: int = 0,
    jobs: int = 0,
    cluster: str = "",
    slurm: Mapping | None = None,
    log: Callable[[str], None] = print,
) -> Path:
    """Train every named network with every seed; returns the path of the table.

    patterns  names of EXPERIMENTS, or patterns such as "maps/*"
    jobs      trainings at a time; 0 is one for each free core, each with one thread
    cluster   "" for this machine, else submitit's name of a cluster ("slurm", "local")
    slurm     what submitit passes on: timeout_min, mem_gb, gpus_per_node, slurm_account...

    <run_dir>/sweep/ holds sweep.json, sweep.md and a folder for each training. What is
    done already, with the same parameters and data, is skipped.
    Raises InputError before any work for an unknown name, and at the end WorkFailed that
    names the trainings that failed.
    """
    names = known_names(patterns)
    chosen = find_images(images)
    images = str(chosen.resolve()) if chosen else PORTRAITS
    sizes = {name: _size(name, profile) for name in names}
    hashes = {n: load_faces(images, size=n).data_hash() for n in {*sizes.values()}}
    folder = run_dir / "sweep"
    options = {"profile": profile, "images": images, "split": split, "device": device}
    tasks = [
        _task(name, seed, folder, epochs, options, hashes[sizes[name]])
        for name in names
        for seed in seeds
    ]
    folder.mkdir(parents=True, exist_ok=True)
    with Lock(folder, log):
        todo = [task for task in tasks if not task.metrics()]
        log(f"{len(tasks)} trainings, {len(tasks) - len(todo)} of them done already")

        def report(task: Task, code: int) -> None:
            log(_line(task, code, task.metrics()))

        if cluster:
            _run_on_cluster(todo, cluster, slurm or {}, folder, report)
        else:
            _run_here(todo, jobs or min(free_cores(), len(todo) or 1), report)
        found = [(task, task.metrics()) for task in tasks]
        page = _write_table(folder, [(t, m) for t, m in found if m])
    failed = [f"{task} ({task.log_file})" for task, metrics in found if not metrics]
    if failed:
        raise WorkFailed(
            f"{len(failed)} of {len(tasks)} trainings failed, the others are in {page}: "
            f"{'; '.join(failed)}; start the same sweep again to go on"
        )
    return page


def known_names(patterns: Sequence[str]) -> list[str]:
    """The experiments that patterns stand for; raises InputError where there is none."""
    names: list[str] = []
    for pattern in patterns:
        names += fnmatch.filter(EXPERIMENTS, pattern) or [pattern]
    for name in names:
        get_experiment(name)
    return list(dict.fromkeys(names))


def _size(name: str, profile: str) -> int:
    """Pixels a side of the photographs that a network is trained on."""
    experiment = get_experiment(name)
    row = get_profile(profile)
    return row.study_size if experiment.is_study else IMAGE_SIZE


def _task(
    name: str, seed: int, folder: Path, epochs: int, options: dict, data_hash: str
) -> Task:
    """A training; another number of epochs or other photographs have another folder."""
    profile, split = options["profile"], options["split"]
    num_epochs = epochs or get_experiment(name).epochs_for(get_profile(profile))
    parameters = parameters_of(name, profile, split, seed, num_epochs)
    mark = sha256(json.dumps(parameters).encode(), data_hash.encode())[:6]
    mine = folder / f"{name.replace('/', '_')}-seed{seed}-{mark}"
    command = [*COMMAND, name, "--run-dir", str(mine)]
    for option, value in {**options, "seed": seed, "epochs": epochs}.items():
        command += [f"--{option}", str(value)]
    return Task(name, seed, mine, command, parameters, data_hash)


def _run_here(
    tasks: Sequence[Task], jobs: int, report: Callable[[Task, int], None]
) -> None:
    """At most `jobs` processes at a time; a signal stops them all and is passed on."""
    threads = max(1, free_cores() // jobs)
    waiting, running = deque(tasks), {}
    with StopSignals() as stop:
        try:
            while (waiting or running) and not stop.received:
                while waiting and len(running) < jobs:
                    task = waiting.popleft()
                    running[task.folder] = task, _start(task, threads)
                time.sleep(POLL)
                for key, (task, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[key]
                        report(task, process.returncode)
        finally:
            _end([process for _, process in running.values()])
    if stop.received:
        stop.pass_on()
        raise KeyboardInterrupt


def _start(task: Task, threads: int = 0) -> subprocess.Popen:
    task.folder.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ}
    if threads:
        environment.setdefault("OMP_NUM_THREADS", str(threads))
    with task.log_file.open("ab") as log:
        return subprocess.Popen(
            task.command,
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _end(processes: Sequence[subprocess.Popen]) -> None:
    """Ask the processes to save and stop; kill those that do not."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + PATIENCE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Job:
    """A training as a job of submitit, which asks for `checkpoint` before a requeue."""

    def __init__(self, task: Task):
        self.task, self.process = task, None

    def __call__(self) -> int:
        self.process = _start(self.task)
        return self.process.wait()

    def checkpoint(self):
        """Stop the training, which saves itself, and submit it again."""
        import submitit

        _end([self.process])
        return submitit.helpers.DelayedSubmission(_Job(self.task))


def _run_on_cluster(tasks, cluster: str, options: Mapping, folder: Path, report):
    try:
        import submitit
    except ImportError as error:
        raise InputError(
            'submitit is missing; pip install "deepcolor[slurm]"'
        ) from error
    try:
        executor = submitit.AutoExecutor(folder=folder / "jobs", cluster=cluster)
        executor.update_parameters(name="deepcolor", **options)
    except (RuntimeError, ValueError, NameError) as error:
        raise InputError(
            f"cluster {cluster!r}: {str(error).splitlines()[0]}; start the sweep where "
            "sbatch is known, or without --cluster"
        ) from error
    jobs = [(task, executor.submit(_Job(task))) for task in tasks]
    for task, job in jobs:
        try:
            code = job.result()
        except (submitit.core.utils.UncompletedJobError, OSError) as error:
            task.folder.mkdir(parents=True, exist_ok=True)
            with task.log_file.open("a") as log:
                log.write(f"{error}\n")
            code = 1
        report(task, code)


def _line(task: Task, code: int, metrics: dict | None) -> str:
    if metrics:
        row = metrics["networks"][task.name]
        return f"{task}: {row['test_mse']['mean']:.3e} after {row['seconds']:.0f} s"
    lines = task.log_file.read_text(errors="replace").splitlines()
    last = next(
        (line for line in reversed(lines) if line.strip()), "it printed nothing"
    )
    return f"{task}: FAILED with exit code {code}: {last}"


def _write_table(folder: Path, found: Sequence[tuple[Task, dict]]) -> Path:
    """sweep.json, and sweep.md with a row a training and the mean over seeds."""
    runs = [metrics for _, metrics in found]
    write_json(folder / "sweep.json", {"runs": runs})
    rows = [(str(t.seed), t.name, m["networks"][t.name]) for t, m in found]
    lines = ["# Sweep", "", *sections(rows, "seed")]
    errors: dict[str, list[float]] = {}
    for task, metrics in found:
        mean = metrics["networks"][task.name]["test_mse"]["mean"]
        errors.setdefault(task.name, []).append(mean)
    several = {name: values for name, values in errors.items() if len(values) > 1}
    means = []
    for name, values in several.items():
        numbers = (statistics.mean(values), min(values), max(values))
        means.append([name, str(len(values)), *(f"{number:.3e}" for number in numbers)])
    if means:
        lines += table(["network", "seeds", "mean MSE", "lowest", "highest"], means)
    path = folder / "sweep.md"
    write_atomic(path, ("\n".join(lines) + "\n").encode())
    return path
