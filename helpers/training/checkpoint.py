"""Checkpoints: a training in progress as a file, from which it continues exactly.

A checkpoint holds what `TrainingState.state_dict` returns, and the identity of the
training. The file is written atomically and verified when it is read; the checkpoint
before it is kept, and used if the newer one is damaged. Nothing in it is ever executed.
"""

import io
import os
import time
import warnings
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
SAVE_EVERY = 60.0  # seconds between two checkpoints within an epoch


class Checkpointer:
    """Saves a training when it is due and before it stops; resumes it from the file.

    path   the checkpoint file, or None to save nothing
    stop   the signals that this process has received
    """

    def __init__(self, path: Path | None, state: TrainingState, stop: StopSignals):
        self.path, self.state, self.stop = path, state, stop
        self.identity = state.identity() if path else {}
        self.saved_at = time.monotonic()

    def resume(self) -> Execution:
        """Load the checkpoint if there is one; return how steps are computed.

        Raises InputError if it belongs to other data, another network or recipe.
        """
        saved = load_checkpoint(self.path) if self.path else None
        if saved:
            _check_same(self.path, saved["identity"], self.identity)
            self.state.load_state_dict(saved)
        return self.state.execution

    def should_stop(self) -> bool:
        """Between two steps: save if it is due; return whether the training should stop.

        Under torchrun all processes stop when one of them was told to.
        """
        if not self.state.is_checked:
            return False
        due = time.monotonic() - self.saved_at >= SAVE_EVERY
        signal = self.stop.received or distributed.signal_of_lost_parent()
        signal, due = distributed.max_of_all(signal, int(due))
        if signal:
            self.stop.received = Signals(signal)
        if signal or due:
            self.save()
        return bool(signal)

    def save(self) -> None:
        """Write the checkpoint where one is wanted; all processes must call this."""
        if self.path:
            content = {"identity": self.identity, **self.state.state_dict()}
            if distributed.rank() == 0:
                save_checkpoint(self.path, content)
        self.saved_at = time.monotonic()


def save_checkpoint(path: Path, content: dict) -> None:
    """Write a training in progress (tensors and plain values); keep the previous file."""
    path = Path(path)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    if _verified(path):  # a damaged file must not replace the good one before it
        os.replace(path, previous(path))
    write_atomic(path, MAGIC + VERSION + b"\n" + sha256(data).encode() + b"\n" + data)


def load_checkpoint(path: Path) -> dict | None:
    """Return the newest complete checkpoint, or None if there is none.

    A damaged file is named in a warning and the one before it is used. Raises InputError
    if both are damaged, or if an older version of the course wrote the file.
    """
    path = Path(path)
    damaged = False
    for candidate in filter(Path.exists, (path, previous(path))):
        if data := _verified(candidate):
            if damaged:
                warnings.warn(f"{path}: damaged, using {candidate}", stacklevel=2)
            return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        damaged = True
    if damaged:
        raise InputError(f"{path}: damaged; remove it to train from the start")
    return None


def remove_checkpoint(path: Path) -> None:
    """Remove a checkpoint and the one before it, when the training is finished."""
    for file in (path, previous(path)):
        file.unlink(missing_ok=True)


def previous(path: Path) -> Path:
    """Return the path of the checkpoint before this one."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _verified(path: Path) -> bytes | None:
    """Return what a checkpoint holds behind its checksum, or None if they disagree."""
    if not path.exists():
        return None
    head, _, rest = path.read_bytes().partition(b"\n")
    digest, _, data = rest.partition(b"\n")
    if not head.startswith(MAGIC) or digest != sha256(data).encode():
        return None
    if head != MAGIC + VERSION:
        raise InputError(
            f"{path}: written by another version of the course; remove it to train from "
            "the start"
        )
    return data


def _check_same(path: Path, saved: dict, asked: dict) -> None:
    changed = [name for name in asked if saved.get(name) != asked[name]]
    if changed:
        name = changed[0]
        was, now = saved.get(name), asked[name]
        what = name if len(f"{was}{now}") > 60 else f"{name} was {was} and is now {now}"
        raise InputError(
            f"{path}: belongs to another training ({what}); remove it or choose another "
            "run folder"
        )
