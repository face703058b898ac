"""Many training runs at once, mostly with a stand-in for the training."""

import os
import re
import signal
import sys
import threading
import time
from dataclasses import replace

import psutil
import pytest
from click.testing import CliRunner

from helpers.cli import main
from helpers.data.faces import load_faces
from helpers.data.portraits import write_portraits
from helpers.experiments import sweep
from helpers.experiments.registry import EXPERIMENTS, get_experiment
from helpers.experiments.sweep import chosen, known_names, run_sweep, sweep_tasks
from helpers.files import InputError, WorkFailed, read_json, run_lock

# Stand-in for `deepcolor train`: logs its call, then acts according to the network's name.
STAND_IN = """
import json, os, pathlib, sys, time
name, options = sys.argv[1], dict(zip(sys.argv[2::2], sys.argv[3::2]))
folder = pathlib.Path(options["--run-dir"])
calls = pathlib.Path(os.environ["CALLS"])
with calls.open("a") as file:
    file.write(f"{name} {options['--seed']} {os.environ['OMP_NUM_THREADS']}\\n")
if name in os.environ.get("SLEEPS", ""):
    time.sleep(60)
if name in os.environ.get("FAILS", ""):
    print("error: the disk is full")
    sys.exit(1)
epochs = int(options["--epochs"])
parameters = {"name": name, "profile": options["--profile"], "epochs": epochs,
              "split": options["--split"], "seed": int(options["--seed"])}
mse = {"mean": 1e-4 * int(options["--seed"]), "low": 0.0, "high": 1.0}
row = {"task": "map", "test_mse": mse, "mean_mse": None, "accuracy": None,
       "single_pass_mse": None, "parameters": 7, "epochs": epochs, "seconds": 3.0,
       "published": None}
out = folder / "train" / (name.replace("/", "_") + "_seed" + options["--seed"])
out.mkdir(parents=True, exist_ok=True)
content = {"parameters": parameters, "data": {"hash": os.environ["HASH"]},
           "networks": {name: row}}
(out / "metrics.json").write_text(json.dumps(content))
"""


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    write_portraits(folder, num_sitters=10, shots=6)
    return folder


@pytest.fixture
def run(faces, tmp_path, monkeypatch):
    """run(patterns, seeds, ...) -> (lines, page); `run.calls()` are the runs started."""
    script = tmp_path / "train.py"
    script.write_text(STAND_IN)
    monkeypatch.setattr(sweep, "COMMAND", (sys.executable, str(script)))
    monkeypatch.setattr(sweep, "free_cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("HASH", load_faces(str(faces)).data_hash())

    def call(patterns, seeds=(1,), **options):
        lines = []
        options = {"images": str(faces), "run_dir": tmp_path, "epochs": 2, **options}
        call.lines = lines
        page = run_sweep(patterns, seeds, log=lines.append, **options)
        return lines, page.read_text()

    def calls():
        path = tmp_path / "calls"
        return sorted(path.read_text().splitlines()) if path.exists() else []

    call.calls, call.folder = calls, tmp_path
    return call


def test_every_network_is_trained_with_every_seed_and_stands_in_the_table(run):
    lines, page = run(["maps/3", "maps/8"], (1, 2))
    assert [call.rsplit(" ", 1)[0] for call in run.calls()] == [
        "maps/3 1", "maps/3 2", "maps/8 1", "maps/8 2",
    ]  # fmt: skip
    assert lines[0] == "4 training runs, 0 already finished"
    assert "maps/8, seed 2: 2.000e-04 after 3 s" in lines
    assert (
        len(re.findall(r"^\| [12] \| maps/[38] \| 7 \|  \| 2 \| 3 s", page, re.M)) == 4
    )
    assert "| maps/3 | 2 | 1.500e-04 | 1.000e-04 | 2.000e-04 |" in page
    assert (run.folder / "sweep" / "sweep.png").read_bytes().startswith(b"\x89PNG")


def test_what_is_done_is_skipped_and_a_change_trains_again(run):
    run(["maps/3"], (1, 2))
    lines, page = run(["maps/3"], (1, 2, 3))
    assert lines[0] == "3 training runs, 2 already finished"
    assert len(run.calls()) == 3
    assert "| 1 | maps/3 |" in page and "| 3 | maps/3 |" in page
    run(["maps/3"], (1,), epochs=5)
    assert len(run.calls()) == 4


def test_a_changed_row_of_the_registry_trains_again(run, monkeypatch):
    run(["maps/3"])
    changed = replace(EXPERIMENTS["maps/3"], lr=5.0)
    monkeypatch.setitem(EXPERIMENTS, "maps/3", changed)
    run(["maps/3"])
    assert len(run.calls()) == 2


def test_other_photographs_train_again(run, faces, tmp_path, monkeypatch):
    run(["maps/3"])
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    for photograph in sorted(faces.iterdir())[:30]:
        (fewer / photograph.name).write_bytes(photograph.read_bytes())
    monkeypatch.setenv("HASH", load_faces(str(fewer)).data_hash())
    run(["maps/3"], images=str(fewer))
    assert len(run.calls()) == 2


def test_one_that_fails_is_named_and_stops_no_other(run, monkeypatch, tmp_path):
    monkeypatch.setenv("FAILS", "maps/8")
    with pytest.raises(WorkFailed) as caught:
        run(["maps/3", "maps/8", "maps/32"])
    text = str(caught.value)
    assert "1 of 3 training runs failed" in text and "maps/8, seed 1" in text
    assert "\n" not in text
    words = "maps/8, seed 1: FAILED with exit code 1: error: the disk is full"
    assert words in run.lines
    page = (tmp_path / "sweep/sweep.md").read_text()
    assert "maps/3" in page and "maps/32" in page and "maps/8" not in page
    assert len(read_json(tmp_path / "sweep/sweep.json")["runs"]) == 2
    monkeypatch.setenv("FAILS", "")
    lines, _ = run(["maps/3", "maps/8", "maps/32"])
    assert lines[0] == "3 training runs, 2 already finished"


@pytest.mark.parametrize(
    ("seeds", "threads"), [((1, 2, 3, 4), 1), ((1, 2), 2), ((1,), 4)]
)
def test_the_cores_are_shared_by_the_trainings(run, seeds, threads):
    run(["maps/3"], seeds)
    assert {call.split()[-1] for call in run.calls()} == {str(threads)}


def test_no_more_run_at_a_time_than_asked_for(run, monkeypatch):
    running, most = [0], [0]
    really_start = sweep._start

    def start(task, threads):
        process = really_start(task, threads)
        running.append(process)
        alive = sum(p.poll() is None for p in running[1:])
        most[0] = max(most[0], alive)
        return process

    monkeypatch.setattr(sweep, "_start", start)
    run(["maps/3"], range(1, 7), jobs=2)
    assert 1 <= most[0] <= 2
    assert len(run.calls()) == 6


def children():
    return [c for c in psutil.Process().children() if c.status() != "zombie"]


def test_ctrl_c_leaves_no_training_behind_and_the_next_sweep_goes_on(run, monkeypatch):
    monkeypatch.setenv("SLEEPS", "maps/8")
    before = len(children())

    def press():
        deadline = time.monotonic() + 30
        while len(run.calls()) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        run(["maps/3", "maps/8"], jobs=2)
    thread.join()
    assert len(children()) == before
    monkeypatch.setenv("SLEEPS", "")
    run(["maps/3", "maps/8"])


def test_two_sweeps_in_one_folder_are_refused(run, tmp_path):
    with (
        run_lock(tmp_path / "sweep"),
        pytest.raises(InputError, match="in use by process"),
    ):
        run(["maps/3"])
    assert run.calls() == []


def test_patterns_stand_for_names():
    assert known_names(["maps/*"])[:2] == ["maps/3", "maps/8"]
    assert known_names(["maps/3", "maps/3"]) == ["maps/3"]
    assert len(known_names(["*"])) > 10


@pytest.mark.parametrize("name", ["maps/4", "mops/*"])
def test_an_unknown_name_is_refused_before_anything_starts(run, name):
    with pytest.raises(InputError, match=f"network '{re.escape(name)}': unknown"):
        run(["maps/3", name])
    assert run.calls() == []


GRID = """
networks: [colorizer/n4, colorizer/n5]
settings:
  maps: [3, 8]
  lr: [0.01, 0.02]
seeds: [1, 2]
"""


def test_a_file_names_every_combination(tmp_path):
    file = tmp_path / "class.yaml"
    file.write_text(GRID)
    names, seeds = chosen([str(file)], [])
    assert len(names) == 8 and seeds == [1, 2]
    assert chosen([str(file)], [7])[1] == [7]
    assert names[0] == "colorizer/n4,maps=3,lr=0.01"
    experiment = get_experiment(names[-1])
    assert experiment.options["maps"] == 8 and experiment.lr == 0.02
    assert experiment.options["num_down"] == 5 and experiment.mse is None
    file.write_text("networks: [maps/3]")
    assert chosen([str(file)], []) == (["maps/3"], [4])
    assert chosen(["maps/3"], [5]) == (["maps/3"], [5])


def test_a_seed_given_twice_is_trained_once(faces, tmp_path):
    options = {"profile": "quick", "images": str(faces), "split": "random"}
    options |= {"device": "cpu"}
    tasks = sweep_tasks(["maps/3"], [1, 2, 1], tmp_path, 1, options)
    assert [task.seed for task in tasks] == [1, 2]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "networks: 3",
        "networks: colorizer/n4",
        "nets: [a]",
        GRID + "lr: [1]",
        GRID[:-7] + "[-1]",
        GRID[:-7] + f"[{2**32}]",
    ],
)
def test_a_file_of_another_form_is_refused(text, tmp_path):
    (tmp_path / "class.yaml").write_text(text)
    with pytest.raises(InputError, match=r"class\.yaml: cannot be read as a sweep"):
        chosen([str(tmp_path / "class.yaml")], [4])
    with pytest.raises(InputError, match="cannot be read"):
        chosen([str(tmp_path / "none.yaml")], [4])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("maps/3,map=8", "did you mean maps"),
        ("maps/3,head=foo", "use one of relu"),
        ("maps/3,lr=fast", "lr must be a number between 0 and 10"),
        ("maps/3,batch_size=0", "batch_size must be a whole number"),
        ("maps/3,optimizer=foo", "optimizer must be one of adamw"),
        ("maps/3,maps=-1", "negative dimension"),
        ("nets/3,maps=4", "network 'nets/3': unknown"),
    ],
)
def test_a_wrong_setting_is_refused(name, message):
    with pytest.raises(InputError, match=message):
        known_names([name])


def test_changed_settings_are_trained_for_real(faces, tmp_path):
    command = ["sweep", "maps/3,maps=4,lr=0.01", "--images", str(faces)]
    command += ["--epochs", "1", "--run-dir", str(tmp_path)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    assert "| maps/3,maps=4,lr=0.01 | 1,4" in result.output  # parameters


def test_without_submitit_the_next_step_is_told(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"submitit is missing; pip install"):
        run(["maps/3"], cluster="slurm")


@pytest.mark.parametrize("cluster", ["slurm", "nowhere"])
def test_a_cluster_that_is_not_there_is_told_in_one_line(run, cluster, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match=f"^cluster '{cluster}': .*; start the sweep"):
        run(["maps/3"], cluster=cluster)
    assert run.calls() == []


def test_a_cluster_s_jobs_end_in_the_same_table(run, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("FAILS", "maps/8")
    with pytest.raises(WorkFailed, match="1 of 2 training runs failed"):
        run(["maps/3", "maps/8"], cluster="local", slurm={"timeout_min": 2})
    assert len(run.calls()) == 2
    assert "maps/3, seed 1: 1.000e-04 after 3 s" in run.lines


def test_the_command_trains_for_real(faces, tmp_path):
    command = ["sweep", "maps/3", "--images", str(faces), "--seeds", "1,2"]
    command += ["--epochs", "1", "--run-dir", str(tmp_path)]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 0, result.output
    rows = r"^\| [12] \| maps/3 \| 842 \| 0.002 \| 1 \|"
    assert len(re.findall(rows, result.output, re.M)) == 2
    weights = "sweep/maps_3-seed2-*/train/maps_3_seed2/weights.safetensors"
    assert len(list(tmp_path.glob(weights))) == 1
    again = CliRunner().invoke(main, command)
    assert "2 training runs, 2 already finished" in again.output
    longer = [*command[:-4], "--epochs", "2", *command[-2:]]
    more = CliRunner().invoke(main, longer)
    assert more.exit_code == 0, more.output
    assert "2 training runs, 0 already finished" in more.output


def test_seeds_that_are_no_numbers_are_refused():
    result = CliRunner().invoke(main, ["sweep", "maps/3", "--seeds", "1,x"])
    assert result.exit_code == 2 and "--seeds 1,x: write whole numbers" in result.output
