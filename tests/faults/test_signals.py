import shutil
import signal
import subprocess
import sys

import pytest

from helpers.files import PROJECT


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    "test",
    [
        "tests/training/test_resume.py::test_a_second_ctrl_c_acts_at_once",
        "tests/test_cli.py::test_ctrl_c_leaves_whole_pictures_and_exits_130",
    ],
)
def test_the_tests_pass_when_started_with_ctrl_c_ignored(test):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
    done = subprocess.run(
        ["bash", "-c", "trap '' INT; exec \"$@\"", "bash", *command],
        cwd=PROJECT, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


STOP = "from helpers.training.signals import StopSignals; stop = StopSignals()"
INTERRUPT = "signal.raise_signal(signal.SIGINT); print('on')"


@pytest.mark.parametrize(
    "code",
    [f"import signal, helpers.cli; {INTERRUPT}",
     f"import signal; {STOP}; stop.__enter__(); {INTERRUPT} if not stop.received else 0",
     f"import signal; {STOP}\nwith stop: {INTERRUPT}\nassert not stop.received"],
)  # fmt: skip
def test_a_program_started_with_ctrl_c_ignored_goes_on_after_it(code):
    done = subprocess.run(
        [sys.executable, "-c", code],
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
        capture_output=True, text=True, cwd=PROJECT,
    )  # fmt: skip
    assert done.stdout == "on\n"
