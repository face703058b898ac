"""Checkpoints: files from which a training run resumes exactly.

A checkpoint contains the form in which steps are computed, weights and buffers, optimizer,
schedule, epoch and step, this epoch's loss so far, the history, and the best weights (see
`TrainingState.state_dict`), plus the identity of the run: network, data hashes, random seed
and recipe. It contains no state of a random generator. The file is written atomically and
verified when it is read; the previous one is kept and used if the newer one is damaged.
Nothing in it is ever executed.
"""

import io
import os
import time
import warnings
import zipfile
from pathlib import Path
from signal import Signals

import torch

from helpers.files import InputError, sha256, write_atomic
from helpers.training import distributed
from helpers.training.execution import Execution
from helpers.training.signals import StopSignals
from helpers.training.state import TrainingState

MAGIC = b"deepcolor checkpoint "
VERSION = b"2"
SAVE_EVERY = 60.0  # seconds between checkpoints within an epoch


class Checkpointer:
    """Periodic checkpoints of a training run, also saved before the run stops.

    path   the checkpoint file, or None to save nothing
    stop   the signals that this process has received
    """

    def __init__(self, path: Path | None, state: TrainingState, stop: StopSignals):
        self.path, self.state, self.stop = path, state, stop
        self.identity = state.identity() if path else {}
        self.saved_at = time.monotonic()
        self.is_stopping = False

    def resume(self) -> Execution:
        """Load the checkpoint if there is one; return how steps are computed.

        Raises InputError if its data, network, recipe or random seed differ.
        """
        saved = load_checkpoint(self.path) if self.path else None
        if saved:
            _check_same(self.path, saved["identity"], self.identity)
            self.state.load_state_dict(saved)
        return self.state.execution

    def should_stop(self) -> bool:
        """Save between steps if a checkpoint is due; return whether to stop training.

        Under torchrun, all processes must call this; all stop when one receives a signal.
        """
        if self.is_stopping:
            return True
        due = time.monotonic() - self.saved_at >= SAVE_EVERY
        signal = self.stop.received or distributed.signal_of_lost_parent()
        signal, due = distributed.max_of_all(signal, int(due))
        if signal:
            self.stop.received, self.is_stopping = Signals(signal), True
        if signal or due:
            self.save()
        return self.is_stopping

    def save(self) -> None:
        """Write the checkpoint if there is a path; all processes must call this."""
        if self.path:
            content = {"identity": self.identity, **self.state.state_dict()}
            if distributed.rank() == 0:
                save_checkpoint(self.path, content)
        self.saved_at = time.monotonic()


def save_checkpoint(path: Path, content: dict) -> None:
    """Write a checkpoint (tensors and plain values); keep the previous file."""
    path = Path(path)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    if _verified(path):  # a damaged file must not replace a good previous one
        os.replace(path, previous(path))
    write_atomic(path, MAGIC + VERSION + b"\n" + sha256(data).encode() + b"\n" + data)


def load_checkpoint(path: Path) -> dict | None:
    """Return the newest complete checkpoint, or None if there is none.

    If the newest file is damaged, a warning names it and the previous one is used. Raises
    InputError if none is intact or if another version of the course wrote the file.
    """
    path = Path(path)
    damaged = False
    for candidate in filter(Path.exists, (path, previous(path))):
        if data := _verified(candidate):
            if damaged:
                warnings.warn(f"{path}: damaged, using {candidate}", stacklevel=2)
            return _unpacked(candidate, data)
        damaged = True
    if damaged:
        raise InputError(f"{path}: damaged; remove it to train from scratch")
    return None


def _unpacked(path: Path, data: bytes) -> dict:
    """Read tensors and plain values; refuse code, and data that unpack to more bytes."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size <= len(data):  # torch does not compress
            return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:  # a crafted file can raise nearly anything
        reason = type(error).__name__
    else:
        reason = f"it unpacks to {size} bytes"
    raise InputError(
        f"{path}: not a checkpoint of this course ({reason}); remove it to train from "
        "scratch"
    )


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and the previous one."""
    for file in (path, previous(path)):
        file.unlink(missing_ok=True)


def previous(path: Path) -> Path:
    """Return the path of the previous checkpoint."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _verified(path: Path) -> bytes | None:
    """Return a checkpoint's data, or None if it is missing or its checksum is wrong."""
    if not path.exists():
        return None
    head, _, rest = path.read_bytes().partition(b"\n")
    digest, _, data = rest.partition(b"\n")
    if not head.startswith(MAGIC) or digest != sha256(data).encode():
        return None
    if head != MAGIC + VERSION:
        raise InputError(
            f"{path}: written by another version of the course; remove it to train from "
            "scratch"
        )
    return data


def _check_same(path: Path, saved: dict, asked: dict) -> None:
    changed = [name for name in asked if saved.get(name) != asked[name]]
    if changed:
        name = changed[0]
        was, now = saved.get(name), asked[name]
        what = name if len(f"{was}{now}") > 60 else f"{name} was {was} and is now {now}"
        raise InputError(
            f"{path}: belongs to another training run ({what}); remove it or choose "
            "another run folder"
        )
