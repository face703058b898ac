"""Trained networks as files: tensors, the network's name and options, a checksum.

The format is safetensors. A file is verified when it is loaded, and loading never executes
code. One more tensor holds the fingerprints of the images that the network was trained on.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from helpers import nets
from helpers.data.copies import are_copies
from helpers.evaluation.task import task_of
from helpers.files import PROJECT, InputError, sha256, write_atomic

WEIGHTS = PROJECT / "weights"  # the trained networks that come with the course
TRAINED_ON = "fingerprints of the training images"  # name of a tensor in the file


def save_weights(
    path: Path,
    net: torch.nn.Module,
    network: str,
    options: dict,
    half: bool = False,
    trained_on: np.ndarray | None = None,
) -> None:
    """Write a network; `load_weights` rebuilds it as nets.build(network, **options).

    `half` stores kernels (all tensors with more than one dimension) in float16. This halves
    the file size and changes each number by less than a thousandth.
    `trained_on` (N, 32) uint8 are the packed fingerprints of the training images, see
    `helpers.data.copies`; they show neither the images nor their names.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in net.state_dict().items()}
    if half:
        tensors = {k: v.half() if v.ndim > 1 else v for k, v in tensors.items()}
    if trained_on is not None:
        tensors[TRAINED_ON] = torch.from_numpy(trained_on)
    metadata = {
        "network": network,
        "options": json.dumps(options),
        "sha256": _digest(tensors),
    }
    write_atomic(path, save(tensors, metadata))


def find_weights(given: str) -> Path:
    """Return the path of a weights file; a bare name means one of the course's networks.

    "colorizer" is weights/colorizer.safetensors; "runs/best.safetensors" is that file.
    Raises InputError for an unknown bare name; the message lists the known ones.
    """
    path = Path(given)
    if path.suffix or path.name != given:
        return path
    own = WEIGHTS / f"{given}.safetensors"
    if not own.is_file():
        names = sorted(file.stem for file in WEIGHTS.glob("*.safetensors"))
        choice = f"use {' or '.join(names)}, or give" if names else "train one and give"
        raise InputError(
            f"weights/{own.name}: no such file; {choice} the path of a .safetensors file"
        )
    return own


def load_weights(path: Path, kind: str = "") -> tuple[torch.nn.Module, dict]:
    """Rebuild a saved network: (net in evaluation mode on the CPU, its metadata).

    kind  "colorizer" or "regressor" to accept only this kind of network

    Raises InputError if the file is missing, not a weights file (an HTML page, a Git LFS
    pointer, a pickle), truncated or modified, or holds a network of another shape or kind.
    """
    tensors, metadata = _read(Path(path))
    tensors.pop(TRAINED_ON, None)
    try:
        net = nets.build(metadata["network"], **json.loads(metadata["options"]))
        net.load_state_dict(tensors)
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        field = str(error).partition("\n\t")[2].partition("\n")[0]  # torch's first line
        raise InputError(
            f"{path}: does not match this version of network {metadata['network']!r} "
            f"({str(field or error)[:100]}); train it again"
        ) from error
    if kind and task_of(net).weights != kind:
        raise InputError(f"{path}: holds a {metadata['network']}; give a {kind}")
    return net.eval(), metadata


def fingerprints_of(path: Path) -> np.ndarray | None:
    """Return the packed fingerprints of a network's training images, None if not stored.

    Raises InputError as `load_weights` does.
    """
    found = _read(Path(path))[0].get(TRAINED_ON)
    if found is not None and (found.dtype, found.shape[1:]) != (torch.uint8, (32,)):
        raise InputError(f"{path}: damaged fingerprints; train it again")
    return None if found is None else found.numpy()


def count_trained_on(
    weights: str, images: torch.Tensor, log: Callable[[str], None]
) -> int | None:
    """Log and return how many images show a picture that the network was trained on.

    images   (N, 3, H, W) uint8 BGR
    returns  None if the weights do not say what they were trained on
    """
    packed = fingerprints_of(find_weights(weights))
    if packed is None:
        log(f"{weights}: the file does not say on which images it was trained")
        return None
    seen = int(are_copies(images, packed).sum())
    warning = ": these results are not test errors" if seen else ""
    log(
        f"{weights} was trained on {seen or 'none'} of these {len(images)} images{warning}"
    )
    return seen


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Return the verified tensors of a file and its metadata; raises InputError."""
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
            f"{path}: weights from another program; use a file from this course"
        )
    if metadata.get("sha256") != _digest(tensors):
        raise InputError(f"{path}: damaged (checksum differs); copy or train it again")
    if not all(tensor.isfinite().all() for tensor in tensors.values()):
        raise InputError(f"{path}: holds values that are no numbers; train it again")
    return tensors, metadata


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    parts = []
    for name in sorted(tensors):
        tensor = tensors[name]
        parts += [f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()]
        parts += [tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()]
    return sha256(*parts)
