"""Files that hold weights: atomic, verified, and never executed.

*Weights* (.safetensors) are a finished network: tensors, the network's name and options,
and a SHA-256 over the tensors. A *checkpoint* (.pt) is training in progress; the one
before it is kept, and taken when the newer one is damaged.
"""

import io
import json
import os
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from helpers import nets
from helpers.files import PROJECT, InputError, sha256, write_atomic

WEIGHTS = PROJECT / "weights"  # the trained networks that come with the course
KINDS = {"colorizer": "map", "regressor": "mean"}  # what a network predicts
MAGIC = b"deepcolor checkpoint 1\n"


def save_weights(
    path: Path,
    net: torch.nn.Module,
    network: str,
    options: dict,
    half: bool = False,
) -> None:
    """Write a network; `load_weights` rebuilds it as nets.build(network, **options).

    `half` keeps kernels (all that has more than one dimension) in float16, which halves
    the file and moves each of their numbers by less than a thousandth of itself.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    if half:
        tensors = {k: v.half() if v.ndim > 1 else v for k, v in tensors.items()}
    metadata = {
        "network": network,
        "options": json.dumps(options),
        "sha256": _digest(tensors),
    }
    write_atomic(path, save(tensors, metadata))


def find_weights(given: str) -> Path:
    """Where weights lie: a bare name is one of the course's own, anything else a path.

    "colorizer" is weights/colorizer.safetensors; "runs/best.safetensors" is that file.
    Raises InputError, with the names that there are, for a name that is not among them.
    """
    path = Path(given)
    if path.suffix or path.name != given:
        return path
    own = WEIGHTS / f"{given}.safetensors"
    if not own.is_file():
        names = sorted(file.stem for file in WEIGHTS.glob("*.safetensors"))
        instead = (
            f"use {' or '.join(names)}, or give" if names else "train one and give"
        )
        raise InputError(
            f"weights/{own.name}: no such file; {instead} the path of a .safetensors file"
        )
    return own


def load_weights(path: Path) -> tuple[torch.nn.Module, dict]:
    """Rebuild a saved network: (net in evaluation mode on the CPU, its metadata).

    Raises InputError when the file is missing, is no weights file (a page of HTML, a Git
    LFS pointer, a pickle), is cut or changed, or belongs to a network of another shape.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; train first or check the name")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path}: not a complete weights file ({error}); copy or train it again"
        ) from error
    if "network" not in metadata:
        raise InputError(
            f"{path}: weights of another program; use a file of this course"
        )
    if metadata.get("sha256") != _digest(tensors):
        raise InputError(f"{path}: damaged (checksum differs); copy or train it again")
    try:
        net = nets.build(metadata["network"], **json.loads(metadata["options"]))
        net.load_state_dict(tensors)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"{path}: does not fit network {metadata['network']!r} of this version; "
            "train it again"
        ) from error
    return net.eval(), metadata


def load_network(path: Path, kind: str) -> torch.nn.Module:
    """`load_weights` of a network of one kind, "colorizer" or "regressor".

    Raises InputError for another kind, and as `load_weights` does.
    """
    net, metadata = load_weights(path)
    if net.task != KINDS[kind]:
        raise InputError(f"{path}: holds a {metadata['network']}; give a {kind}")
    return net


def save_checkpoint(path: Path, content: dict) -> None:
    """Write training in progress (tensors and plain values); keep the last one as well."""
    path = Path(path)
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    if _verified(path):  # a damaged one must not push the good one out
        os.replace(path, previous(path))
    write_atomic(path, MAGIC + sha256(data).encode() + b"\n" + data)


def load_checkpoint(path: Path) -> dict | None:
    """The newest whole checkpoint, or None when there is none.

    A damaged file is named in a warning and the one before it is taken; raises
    InputError when both are damaged.
    """
    path = Path(path)
    damaged = False
    for candidate in filter(Path.exists, (path, previous(path))):
        if data := _verified(candidate):
            if damaged:
                warnings.warn(
                    f"{path}: damaged, going on from {candidate}", stacklevel=2
                )
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
    """Where the checkpoint before this one lies."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def _verified(path: Path) -> bytes | None:
    """What a checkpoint holds behind its checksum, or None when that does not agree."""
    if not path.exists():
        return None
    magic, _, rest = path.read_bytes().partition(b"\n")
    digest, _, data = rest.partition(b"\n")
    is_whole = magic + b"\n" == MAGIC and digest == sha256(data).encode()
    return data if is_whole else None


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    parts = []
    for name in sorted(tensors):
        tensor = tensors[name]
        parts += [f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()]
        parts += [tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()]
    return sha256(*parts)
