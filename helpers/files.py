"""What all helpers need: where things lie, errors a user sees, files never half written."""

import hashlib
import json
import math
import os
import sys
import tempfile
from pathlib import Path

import psutil

try:
    import resource
except ImportError:  # Windows
    resource = None

PROJECT = Path(__file__).resolve().parents[1]
OUTPUTS = PROJECT / "outputs"


class InputError(Exception):
    """What was given cannot be used; one line: the file, the reason, the next step."""


class WorkFailed(Exception):
    """The input was right and the work was not finished; one line: what, where, how on."""


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader finds the old file or the new, no other.

    The bytes go to a temporary file in the same folder, are forced to the disk, and the
    file is then renamed. Raises InputError when it cannot be written.
    """
    path, temporary = Path(path), None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot write ({error.strerror}); free the folder or choose another"
        ) from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)  # gone already when all went well


def write_json(path: Path, content: dict) -> None:
    """Write `content` as indented JSON, atomically."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode(errors="surrogateescape"))


def read_json(path: Path) -> dict:
    """Read a JSON file; raises InputError when it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_bytes().decode(errors="surrogateescape"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error})") from error


def sha256(*parts: bytes) -> str:
    """The SHA-256 of all parts in turn, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def free_cores() -> int:
    """The number of processor cores that this process may use.

    The least of what its affinity and its container's quota (cgroup 2) leave to it.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, math.floor(min(cores, _cgroup_cores())))


def peak_memory() -> int:
    """Bytes of memory that this process has held at most."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux; its getrusage counts the parent's memory as well
        (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    if resource is None:  # Windows
        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cgroup_cores(root: Path = Path("/sys/fs/cgroup")) -> float:
    """The smallest quota on the way from this process's cgroup up to the root."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:  # not Linux
        return math.inf
    paths = [line[3:].lstrip("/") for line in lines if line.startswith("0::")]
    folders = [root / path for path in paths] + [root]
    cores = math.inf
    for folder in {f for start in folders for f in (start, *start.parents)}:
        limit = folder / "cpu.max"
        if folder.is_relative_to(root) and limit.is_file():
            quota, period = limit.read_text().split()
            if quota != "max":
                cores = min(cores, int(quota) / int(period))
    return cores
