"""Project paths, the two errors that users see, atomic writes, locks and file names."""

import contextlib
import hashlib
import json
import math
import os
import platform
import re
import secrets
import stat
import sys
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path, PurePosixPath

import psutil
from filelock import FileLock, SoftFileLock, Timeout

try:
    import resource
except ImportError:  # Windows
    resource = None

PROJECT = Path(__file__).resolve().parents[1]
OUTPUTS = PROJECT / "outputs"
TEMPORARY = ".deepcolor-tmp"  # the end of the name of a file that is being written
MAX_STEM_BYTES = 200  # file systems allow 255; this leaves room for suffixes


class InputError(Exception):
    """Unusable input; a one-line message gives the file, the reason and the next step."""


class WorkFailed(Exception):
    """Valid input, but the work failed; a one-line message says what, where, what next."""


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees either the old or the new content.

    The bytes are written to a temporary file in the same folder and flushed to disk, and
    the file is then renamed. A replaced file keeps its permissions; a new file's follow
    the umask. Raises InputError if the file cannot be written.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        old_mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else None
        mode = 0o666 if old_mode is None else old_mode
        with open(temporary, "xb", opener=partial(os.open, mode=mode)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if old_mode is not None:
            os.chmod(temporary, old_mode)  # not masked by the umask
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot write ({error.strerror}); check the permissions and the "
            "free space, or choose another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()  # it exists only after a failure


def refuse_existing(file: Path | None, force: bool) -> None:
    """Raise InputError if there is a file, unless `force` is given."""
    if file and file.exists() and not force:
        raise InputError(f"{file}: exists; choose another name, or use --force")


def make_folder(folder: Path) -> None:
    """Create a folder and its parents; raise InputError if that is impossible."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be created ({error.strerror}); choose another folder"
        ) from error


def write_json(path: Path, content: dict, indent: int | None = 2) -> None:
    """Write `content` as JSON, atomically; indent=None writes it on one line."""
    text = json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)
    write_atomic(path, (text + "\n").encode(errors="surrogateescape"))


def user_path(text: str | Path) -> Path:
    """Return a path with ~ replaced; raise InputError for an unknown user."""
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise InputError(f"{text}: no such user; write the whole path") from error


def read_json(path: Path) -> dict:
    """Read a JSON file; raise InputError if it is missing or not JSON."""
    try:
        return json.loads(Path(path).read_bytes().decode(errors="surrogateescape"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable JSON file ({error})") from error


def sha256(*parts: bytes) -> str:
    """Return the SHA-256 of the concatenated parts, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()


def unique_stems(names: Sequence[str]) -> list[str]:
    """Return one flat file stem per name, in order, all different when case is ignored.

    "a/b.png" becomes "a_b". A stem that is already taken gets -2, -3, and so on. Symbols
    that a file system may reject become "_", and very long stems are truncated.
    """
    stems = [_flat_stem(name) for name in names]
    plain, used, unique = {_file_key(stem) for stem in stems}, set(), []
    for stem in stems:
        candidate, n = stem, 1
        while _file_key(candidate) in (used if n == 1 else used | plain):
            n += 1
            candidate = f"{stem}-{n}"
        used.add(_file_key(candidate))
        unique.append(candidate)
    return unique


def _flat_stem(name: str) -> str:
    path = PurePosixPath(name)
    stem = str(path.with_suffix("")) if path.name else "image"
    stem = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*\ud800-\udfff]', "_", stem)
    while len(stem.encode()) > MAX_STEM_BYTES:
        stem = stem[:-1]
    return stem


def _file_key(stem: str) -> str:
    """Return the same key for stems that some file systems treat as the same file."""
    return unicodedata.normalize("NFC", stem.casefold())


@contextlib.contextmanager
def run_lock(folder: Path, log: Callable[[str], None] = print) -> Iterator[None]:
    """Lock `folder`, created if needed, for the run inside the `with` block.

    The operating system locks the file .lock and releases it however the process ends.
    The file is never deleted here: otherwise, a process that has opened it could lock a
    file that no longer has this name. Next to it, .holder.json names the process that
    holds the lock; if a killed run left one behind, `log` receives a line about it, and its
    temporary files are removed.

    Raises InputError if another run holds the folder, or if it cannot be locked.
    """
    folder = Path(folder)
    holder_file, lock = folder / ".holder.json", FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        # Without flock (some network disks), the file's existence is the lock.
        left_over = f" (if it is gone, delete {folder / '.lock'})"
        raise InputError(
            f"{folder}: in use by {_holder(holder_file)}; wait for it to end, or choose "
            f"another folder{left_over if isinstance(lock, SoftFileLock) else ''}"
        ) from None
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write or lock a file here ({error.strerror}); check the "
            "permissions, or choose another folder"
        ) from error
    try:
        _remove_temporaries(folder)
        if holder_file.exists():
            log(f"{folder}: taking over from {_holder(holder_file)}, which has ended")
        since = datetime.now().isoformat(timespec="seconds")
        holder = {"pid": os.getpid(), "host": platform.node(), "since": since}
        write_json(holder_file, holder)
        yield
    finally:
        holder_file.unlink(missing_ok=True)
        lock.release()


def _remove_temporaries(folder: Path) -> None:
    """Remove the files that killed calls of `write_atomic` left in a locked folder.

    Subfolders with a lock of their own are left alone: a run may be writing there.
    """
    for file in folder.rglob(f".*{TEMPORARY}"):
        inner = file.relative_to(folder).parents[:-1]
        if not any((folder / x / ".lock").exists() for x in inner):
            file.unlink(missing_ok=True)


def _holder(holder_file: Path) -> str:
    for _ in range(20):  # a run writes this file just after it acquires the lock
        with contextlib.suppress(InputError, KeyError, TypeError):
            holder = read_json(holder_file)
            pid, host, since = holder["pid"], holder["host"], holder["since"]
            return f"process {pid} on {host} since {since}"
        time.sleep(0.05)
    return "another process"


def free_cores() -> int:
    """Return the number of processor cores that this process may use.

    It is the smaller of the CPU affinity and the container's quota (cgroup 2), at least 1.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    return max(1, math.floor(min(cores, _cgroup_cores())))


def peak_memory() -> int:
    """Return the peak memory of this process, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux, where getrusage includes the parent's memory
        (line,) = [x for x in status.read_text().splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    if resource is None:  # Windows
        return psutil.Process().memory_info().peak_wset
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _cgroup_cores(root: Path = Path("/sys/fs/cgroup")) -> float:
    """Return the smallest CPU quota from this process's cgroup up to the root."""
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
