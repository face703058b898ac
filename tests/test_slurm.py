"""The job scripts, run by bash with stand-ins for SLURM's and our programs."""

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from helpers.data.portraits import write_portraits
from helpers.files import PROJECT

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
SCRIPTS = sorted((PROJECT / "slurm").glob("*.sbatch"))
NAMES = [path.name for path in SCRIPTS]
LIMIT = 30  # seconds

# A training that notes how it was called and what it is told, and ends as it is told to.
STAND_IN = """#!/usr/bin/env bash
echo "$(basename "$0")" >> calls
for argument in "$@"; do echo "[$argument]" >> calls; done
trap 'echo got USR1 >> calls; exit 138' USR1
trap 'echo got TERM >> calls; exit 143' TERM
[ "${WAIT:-}" ] || exit "${CODE:-0}"
echo ready >> calls
while true; do sleep 0.05; done
"""


@pytest.fixture
def node(tmp_path):
    """A folder with the programs that a job calls, each noting its calls."""
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("deepcolor", "torchrun"):
        (programs / name).write_text(STAND_IN)
    note = '#!/usr/bin/env bash\necho "scontrol $*" >> calls\n'
    (programs / "scontrol").write_text(note)
    (programs / "python").write_text('#!/usr/bin/env bash\nexit "${NO_CUDA:-0}"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    return tmp_path


def start(script, node, *arguments, **variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    environment |= {"SLURM_SUBMIT_DIR": str(node), "SLURM_JOB_ID": "4711", **variables}
    return subprocess.Popen(
        ["bash", str(PROJECT / "slurm" / script), *arguments],
        cwd=PROJECT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def calls(node):
    path = node / "calls"
    return path.read_text().splitlines() if path.exists() else []


def wait_until_ready(node):
    deadline = time.monotonic() + LIMIT
    while "ready" not in calls(node):
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("script", NAMES)
def test_bash_reads_the_script_and_the_head_is_sbatch_s(script):
    path = PROJECT / "slurm" / script
    subprocess.run(["bash", "-n", str(path)], check=True, timeout=LIMIT)
    lines = path.read_text().splitlines()
    last = max(i for i, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert all(
        line.startswith("#") for line in lines[:last]
    )  # sbatch stops at a command
    assert "#SBATCH --signal=B:USR1@120" in lines and "#SBATCH --requeue" in lines


@pytest.mark.parametrize("script", NAMES)
@pytest.mark.parametrize("code", [0, 1, 2])
def test_the_exit_code_is_the_training_s_and_arguments_arrive_whole(script, code, node):
    arguments = ["maps/*", "--images", "my faces.zip"]
    job = start(script, node, *arguments, CODE=str(code))
    output, _ = job.communicate(timeout=LIMIT)
    assert job.returncode == code, output
    command = script.partition(".")[0]
    assert calls(node) == ["deepcolor", f"[{command}]", *(f"[{a}]" for a in arguments)]


@pytest.mark.parametrize("script", NAMES)
def test_usr1_reaches_the_training_and_the_job_is_queued_again(script, node):
    job = start(script, node, "maps/3", WAIT="1")
    wait_until_ready(node)
    job.send_signal(signal.SIGUSR1)
    output, _ = job.communicate(timeout=LIMIT)
    assert job.returncode == 0, output
    assert calls(node)[-2:] == ["got USR1", "scontrol requeue 4711"]
    assert "stopped by USR1; requeued" in output


@pytest.mark.parametrize("script", NAMES)
def test_term_reaches_the_training_and_nothing_is_queued(script, node):
    job = start(script, node, "maps/3", WAIT="1")
    wait_until_ready(node)
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=LIMIT)
    assert job.returncode == 143
    assert calls(node)[-1] == "got TERM"


@pytest.mark.parametrize("script", NAMES)
def test_a_gpu_that_is_not_visible_fails_before_anything_starts(script, node):
    job = start(script, node, "maps/3", SLURM_GPUS_ON_NODE="1", NO_CUDA="1")
    output, _ = job.communicate(timeout=LIMIT)
    assert job.returncode == 1
    assert "GPU requested, but CUDA is not visible on this node" in output
    assert calls(node) == []


def test_several_gpus_train_under_torchrun(node):
    job = start("train.sbatch", node, "maps/32", "--seed", "3", SLURM_GPUS_ON_NODE="4")
    output, _ = job.communicate(timeout=LIMIT)
    assert job.returncode == 0, output
    command = "[--standalone] [--nproc-per-node=4] "
    command += "[--signals-to-handle=SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1] "
    command += "[-m] [helpers] [train] [maps/32] [--seed] [3]"
    assert calls(node) == ["torchrun", *command.split()]


def test_usr1_under_a_real_torchrun_saves_and_leaves_no_process_behind(node):
    programs = node / ".venv" / "bin"
    torchrun = '#!/usr/bin/env bash\nexec "{}" -m torch.distributed.run "$@"\n'
    (programs / "torchrun").write_text(torchrun.format(sys.executable))
    is_cuda = 'case "$*" in *is_available*) exit 0;; esac\nexec "{}" "$@"\n'
    (programs / "python").unlink()
    (programs / "python").write_text(
        "#!/usr/bin/env bash\n" + is_cuda.format(sys.executable)
    )
    (programs / "python").chmod(0o755)
    write_portraits(node / "faces", num_sitters=4, shots=5)
    options = ["--images", "faces", "--run-dir", "run", "--device", "cpu"]
    job = start(
        "train.sbatch",
        node,
        *("maps/8", *options, "--epochs", "2000"),
        SLURM_GPUS_ON_NODE="2",
        OMP_NUM_THREADS="1",
        PYTHONPATH=str(PROJECT),
    )
    workers = []
    try:
        for line in job.stdout:
            if line.startswith("epoch    2 "):
                break
        children = psutil.Process(job.pid).children(recursive=True)
        workers = [c for c in children if "train" in c.cmdline()]
        job.send_signal(signal.SIGUSR1)
        output, _ = job.communicate(timeout=120)
    finally:
        job.kill()
    assert len(workers) == 3  # torchrun and its two processes
    assert not any(is_alive(worker) for worker in workers)
    assert output.count("stopped by SIGUSR1 at epoch") == 1
    assert calls(node)[-1] == "scontrol requeue 4711"
    assert (node / "run/train/maps_8_seed4/checkpoint.pt").exists()


def is_alive(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
