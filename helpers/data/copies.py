"""Find images that show the same picture: renamed, resized, mirrored or saved again.

The fingerprint is a difference hash (N. Krawetz, 2013): whether each of 16 x 16 cells is
clearly darker than its right neighbor. Two different images of the course's photographs
differ in at least 23 of the 256 bits, two portraits in at least 17; a portrait that was
resized, brightened or saved again differs from the first in at most 8.
"""

import cv2
import numpy as np
import torch

CELLS = 16
MAX_BITS = 12  # copies differ in at most so many of the 256 bits
MARGIN = 2  # of 255; smaller differences between cells are noise
MIN_CONTRAST = 2.0  # of 255; the hash of a plain image says nothing
CHUNK = 1024  # images compared with all others at a time


def fingerprints(images: torch.Tensor) -> np.ndarray:
    """Return a hash per image, (N, 256) bool, for (N, 3, H, W) uint8 BGR."""
    found = np.empty((len(images), CELLS * CELLS), bool)
    for number, image in enumerate(images):
        gray = cv2.cvtColor(image.permute(1, 2, 0).numpy(), cv2.COLOR_BGR2GRAY)
        size = (CELLS + 1, CELLS)
        cells = cv2.resize(gray, size, interpolation=cv2.INTER_AREA).astype(np.int16)
        found[number] = (cells[:, 1:] > cells[:, :-1] + MARGIN).ravel()
    return found


def find_copies(images: torch.Tensor) -> list[list[int]]:
    """Return the indices of images that show the same picture, two or more per list.

    images  (N, 3, H, W) uint8 BGR; images without contrast are never copies
    """
    plain = _are_plain(images)
    hashes, mirrored = fingerprints(images), fingerprints(images.flip(-1))
    first = np.arange(len(images))  # the first image of the same picture
    for start in range(0, len(images), CHUNK):
        rows = slice(start, start + CHUNK)
        bits = np.minimum(
            _differences(hashes[rows], hashes), _differences(hashes[rows], mirrored)
        )
        for i, j in zip(*np.nonzero(bits <= MAX_BITS), strict=True):
            i += start
            if i < j and not (plain[i] or plain[j]):
                first[first == first[j]] = first[i]
    groups: dict[int, list[int]] = {}
    for index, number in enumerate(first.tolist()):
        groups.setdefault(number, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def pack(hashes: np.ndarray) -> np.ndarray:
    """Pack fingerprints (N, 256) bool to (N, 32) uint8, as weights files store them."""
    return np.packbits(hashes, axis=1)


def are_copies(images: torch.Tensor, packed: np.ndarray) -> np.ndarray:
    """Return for each image whether it shows the same picture as one of the others.

    images  (N, 3, H, W) uint8 BGR; images without contrast are never copies
    packed  (M, 32) uint8, the packed fingerprints of the others
    returns (N,) bool
    """
    others = np.unpackbits(packed, axis=1).astype(bool)
    bits = np.full(len(images), CELLS * CELLS)
    if len(others):
        for one in (images, images.flip(-1)):
            found = _differences(fingerprints(one), others).min(axis=1)
            bits = np.minimum(bits, found)
    return (bits <= MAX_BITS) & ~_are_plain(images)


def _are_plain(images: torch.Tensor) -> np.ndarray:
    return (images.float().flatten(1).std(dim=1) < MIN_CONTRAST).numpy()


def _differences(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the number of different bits of each pair, (len(one), len(other))."""
    one, other = one.astype(np.float32), other.astype(np.float32)
    return one.sum(1)[:, None] + other.sum(1)[None] - 2 * one @ other.T
