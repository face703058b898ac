"""Numba, set up for the compiled loops, and its cache."""

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import llvmlite.binding
import numba
from numba.core.caching import NullCache

from helpers.files import sha256

FASTMATH = {"reassoc", "contract", "nsz"}  # NaN and infinity stay what they are


def _set_up_numba() -> None:
    """Use 512-bit vectors if the CPU has them, and a cache for this version of the loops.

    Numba compiles a function again if its own file changes, but not if a function in
    another file does. Therefore, the folder's name depends on all files.
    """
    features = llvmlite.binding.get_host_cpu_features()
    if numba.config.CPU_FEATURES is None and features.get("avx512f"):
        numba.config.CPU_FEATURES = f"{features.flatten()},-prefer-256-bit"
    here = Path(__file__).parent
    version = sha256(*(path.read_bytes() for path in sorted(here.glob("*.py"))))[:12]
    folders = [here / "__pycache__"]
    with suppress(RuntimeError):  # a user without a home
        folders.append(Path.home() / ".cache/deepcolor")
    folders = [Path(numba.config.CACHE_DIR)] if numba.config.CACHE_DIR else folders
    for folder in folders:
        with suppress(OSError):
            (folder / version).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder / version).close()  # can it be written?
            numba.config.CACHE_DIR = str(folder / version)
            return
    scratch = tempfile.mkdtemp()  # for this process
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    numba.config.CACHE_DIR = str(Path(scratch) / version)


_set_up_numba()
_compiled = []


def jit(function):
    """Compile a function when it is first called.

    Reference counting (_nrt) would cost a fifth of the time. Without it, a function cannot
    allocate or return an array.
    """
    options = {"error_model": "numpy", "fastmath": FASTMATH, "_nrt": False}
    _compiled.append(numba.njit(nogil=True, cache=True, **options)(function))
    return _compiled[-1]


def compile_in_another_process(use: str) -> None:
    """Fill numba's cache for this processor, unless that was done before.

    use  code that uses all loops and may refer to `narrow`
    """
    folder = Path(numba.config.CACHE_DIR)
    mark = folder / f"complete-{llvmlite.binding.get_host_cpu_name()}"
    if not mark.exists():
        code = f"import sys; sys.path[:] = {sys.path!r}\n"
        code += f"from helpers.training import narrow; {use}"
        env = os.environ | {"NUMBA_CACHE_DIR": str(folder.parent)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True
        )
        if done.returncode == 0:
            with suppress(OSError):
                mark.touch()


def discard_cache() -> None:
    """Remove the files in numba's cache and compile without it: it is damaged or full."""
    folder = Path(numba.config.CACHE_DIR)
    for path in (*folder.rglob("*.nb?"), *folder.glob("complete-*")):
        with suppress(OSError):
            path.unlink()
    for function in _compiled:
        function._cache = NullCache()
