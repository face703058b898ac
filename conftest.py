"""Every test, and every kernel that nbval starts, sees the portraits and a scratch run.

So the tests pass for a student with photographs in face_images/, and touch no results.
Ctrl-C acts in them even if they were started with it ignored, as nohup and scripts do.
"""

import os
import shutil
import signal
import tempfile

from hypothesis import settings

settings.register_profile("tests", max_examples=60, deadline=None)
settings.register_profile("fuzz", max_examples=6000, deadline=None, print_blob=True)
settings.load_profile("tests")


def pytest_configure(config):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.scratch_run = tempfile.mkdtemp(prefix="deepcolor-")
    os.environ["DEEPCOLOR_IMAGES"] = "portraits"
    os.environ["DEEPCOLOR_RUN_DIR"] = config.scratch_run


def pytest_unconfigure(config):
    shutil.rmtree(config.scratch_run, ignore_errors=True)
