"""Many training runs at once: in parallel on this machine, or as jobs on a cluster.

Each run is a `deepcolor train` process with its own folder. A failed run does not stop the
others, and a stopped run resumes when the sweep is started again.
"""

import fnmatch
import itertools
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

import matplotlib.pyplot as plt
import yaml

from helpers.data.faces import PORTRAITS, find_images, load_faces
from helpers.evaluation import figures
from helpers.evaluation.task import TASKS
from helpers.experiments.profiles import get_profile
from helpers.experiments.registry import DEFAULT_SEED, EXPERIMENTS, get_experiment
from helpers.experiments.run import folder_of, parameters_of
from helpers.experiments.run_folder import MAX_SEED, save_figure
from helpers.experiments.tables import Row, markdown, task_tables
from helpers.files import (
    PROJECT,
    InputError,
    WorkFailed,
    free_cores,
    read_json,
    run_lock,
    sha256,
    write_atomic,
    write_json,
)
from helpers.training.signals import StopSignals

COMMAND = (sys.executable, "-m", "helpers", "train")
GRACE = 60  # seconds that a stopped run has to save its state
POLL = 0.1  # seconds between checks of the running processes


@dataclass(frozen=True)
class SweepTask:
    """One training run in a sweep: network, random seed, folder, command, data."""

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
        """The file for the run's output."""
        return self.folder / "log.txt"

    def metrics(self) -> dict | None:
        """Return its metrics, or None if no run finished with these parameters and data."""
        file = folder_of(self.folder, self.name, self.seed) / "metrics.json"
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
    """Train every named network with every random seed; return the path of the table.

    patterns  names of experiments, or patterns such as "maps/*"
    jobs      simultaneous runs; 0 is one per free core, each with one thread
    cluster   "" for this machine, else submitit's name for a cluster ("slurm", "local")
    slurm     options for submitit: timeout_min, mem_gb, gpus_per_node, slurm_account...

    <run_dir>/sweep/ contains sweep.json, sweep.md and one folder per run. Runs that have
    finished with the same parameters and data are skipped.
    Raises InputError for an unknown name before any work is done, and WorkFailed at the end
    if runs failed; the message names them.
    """
    options = {"profile": profile, "images": images, "split": split, "device": device}
    folder = run_dir / "sweep"
    tasks = sweep_tasks(known_names(patterns), seeds, folder, epochs, options)
    with run_lock(folder, log):
        todo = [task for task in tasks if not task.metrics()]
        log(f"{len(tasks)} training runs, {len(tasks) - len(todo)} already finished")

        def report(task: SweepTask, code: int) -> None:
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
            f"{len(failed)} of {len(tasks)} training runs failed, the others are in "
            f"{page}: {'; '.join(failed)}; start the same sweep again to continue"
        )
    return page


def sweep_tasks(
    names: Sequence[str], seeds: Sequence[int], folder: Path, epochs: int, options: dict
) -> list[SweepTask]:
    """Return one task per name and random seed.

    options  profile, images, split and device of `deepcolor train`
    """
    chosen = find_images(options["images"])
    options = {**options, "images": str(chosen.resolve()) if chosen else PORTRAITS}
    profile = get_profile(options["profile"])
    sizes = {n: TASKS[get_experiment(n).task].image_size(profile) for n in names}
    hashes = {
        size: load_faces(options["images"], size=size).data_hash()
        for size in set(sizes.values())
    }
    return [
        _task(name, seed, folder, epochs, options, hashes[sizes[name]])
        for name in names
        for seed in dict.fromkeys(seeds)
    ]


def chosen(
    names: Sequence[str], seeds: Sequence[int]
) -> tuple[Sequence[str], Sequence[int]]:
    """Return names and seeds, from a YAML file if one is given instead of names.

    Seeds that are given replace those of the file.
    """
    if len(names) != 1 or not names[0].endswith((".yaml", ".yml")):
        return names, seeds or [DEFAULT_SEED]
    names, given = read_grid(Path(names[0]))
    return names, seeds or given or [DEFAULT_SEED]


def read_grid(path: Path) -> tuple[list[str], list[int]]:
    """Read a YAML file; return the names of all its experiments, and its random seeds.

        networks: [colorizer/n4]      # experiments to start from
        settings:                     # every combination is trained
          maps: [3, 8, 16]
          lr: [0.01, 0.02]
        seeds: [1, 2, 3]

    Raises InputError for a file that has another form.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        settings, seeds = content.get("settings") or {}, content.get("seeds") or []
        lists = [[f"{key}={value}" for value in settings[key]] for key in settings]
        names = [
            ",".join([network, *chosen])
            for network in content["networks"]
            for chosen in itertools.product(*lists)
        ]
        unknown = set(content) - {"networks", "settings", "seeds"}
        if unknown or not all(type(x) is int and 0 <= x <= MAX_SEED for x in seeds):
            raise ValueError(f"unknown: {', '.join(map(str, unknown)) or seeds}")
        if not isinstance(content["networks"], list):
            raise ValueError("networks: not a list")
    except (OSError, UnicodeError, yaml.YAMLError, AttributeError, KeyError, TypeError,
            ValueError) as error:  # fmt: skip
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: cannot be read as a sweep ({reason}); see README, Sweeps"
        ) from error
    return names, seeds


def known_names(patterns: Sequence[str]) -> list[str]:
    """Return the experiments that match; raise InputError for a pattern without a match."""
    names: list[str] = []
    for pattern in patterns:
        names += fnmatch.filter(EXPERIMENTS, pattern) or [pattern]
    for name in names:
        get_experiment(name)
    return list(dict.fromkeys(names))


def _task(
    name: str, seed: int, folder: Path, epochs: int, options: dict, data_hash: str
) -> SweepTask:
    """Return a task, whose folder depends on its parameters, registry row and data."""
    experiment, profile = get_experiment(name), get_profile(options["profile"])
    num_epochs = epochs or experiment.epochs_for(profile)
    parameters = parameters_of(name, profile.name, options["split"], seed, num_epochs)
    depends_on = (json.dumps(parameters), repr(experiment), repr(profile), data_hash)
    mark = sha256(*(text.encode() for text in depends_on))[:6]
    mine = folder / f"{name.replace('/', '_')}-seed{seed}-{mark}"
    command = [*COMMAND, name, "--run-dir", str(mine)]
    for option, value in {**options, "seed": seed, "epochs": epochs}.items():
        command += [f"--{option}", str(value)]
    return SweepTask(name, seed, mine, command, parameters, data_hash)


def _run_here(
    tasks: Sequence[SweepTask], jobs: int, report: Callable[[SweepTask, int], None]
) -> None:
    """Run at most `jobs` processes at a time; a signal stops them all."""
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


def _start(task: SweepTask, threads: int = 0) -> subprocess.Popen:
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
    deadline = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Job:
    """A training run as a submitit job; submitit calls `checkpoint` before a requeue."""

    def __init__(self, task: SweepTask):
        self.task, self.process = task, None

    def __call__(self) -> int:
        self.process = _start(self.task)
        return self.process.wait()

    def checkpoint(self):
        """Stop the run, which saves its state, and submit the job again."""
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
        given = {name: value for name, value in options.items() if value}
        executor.update_parameters(name="deepcolor", **given)
    except (RuntimeError, ValueError, NameError) as error:
        raise InputError(
            f"cluster {cluster!r}: {str(error).splitlines()[0]}; start the sweep on a "
            "machine with sbatch, or without --cluster"
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


def _line(task: SweepTask, code: int, metrics: dict | None) -> str:
    if metrics:
        row = metrics["networks"][task.name]
        return f"{task}: {row['test_mse']['mean']:.3e} after {row['seconds']:.0f} s"
    lines = task.log_file.read_text(errors="replace").splitlines()
    printed = [line for line in lines if line.strip()] or ["it printed nothing"]
    return f"{task}: FAILED with exit code {code}: {printed[-1]}"


def _write_table(folder: Path, found: Sequence[tuple[SweepTask, dict]]) -> Path:
    """Write sweep.json, sweep.png, and sweep.md: one row per run and means over seeds."""
    write_json(folder / "sweep.json", {"runs": [metrics for _, metrics in found]})
    rows = [
        (str(task.seed), task.name, Row.from_json(metrics["networks"][task.name]))
        for task, metrics in found
    ]
    lines = ["# Sweep", "", *task_tables("random seed", rows)]
    errors: dict[str, list[float]] = {}
    for _, name, row in rows:
        errors.setdefault(name, []).append(row.test_mse.mean)
    several = [(name, values) for name, values in errors.items() if len(values) > 1]
    if several:
        lines += markdown(
            [
                {
                    "network": name,
                    "seeds": str(len(values)),
                    "mean MSE": f"{statistics.mean(values):.3e}",
                    "lowest": f"{min(values):.3e}",
                    "highest": f"{max(values):.3e}",
                }
                for name, values in several
            ]
        )
    fig = figures.cost_against_error(
        {f"{name}, {seed}": row for seed, name, row in rows}
    )
    save_figure(fig, folder / "sweep.png")
    plt.close(fig)
    path = folder / "sweep.md"
    write_atomic(path, ("\n".join(lines) + "\n").encode())
    return path
