"""Find images that show the same picture: renamed, resized, mirrored or saved again.

The fingerprint is a difference hash (N. Krawetz, 2013): whether each of 16 x 16 cells is
clearly darker than its right neighbor. Two different images of the course's photographs
differ in at least 23 of the 256 bits, two portraits in at least 17; a portrait that was
resized, brightened or saved again differs from the first in at most 8.

If nearly all bits of an image are equal, as in a clear sky, which only gets lighter in one
direction, its copies may differ in fewer bits. If all are equal, it never counts as a copy.
"""

import cv2
import numpy as np
import torch

CELLS = 16
MAX_BITS = 12  # copies differ in at most so many of the 256 bits
MARGIN = 2  # of 255; smaller differences between cells are noise
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

    images  (N, 3, H, W) uint8 BGR
    """
    hashes, mirrored = fingerprints(images), fingerprints(images.flip(-1))
    limit = _max_bits(hashes)
    first = np.arange(len(images))  # the first image of the same picture
    for start in range(0, len(images), CHUNK):
        rows = slice(start, start + CHUNK)
        bits = np.minimum(
            _differences(hashes[rows], hashes), _differences(hashes[rows], mirrored)
        )
        same = bits <= np.minimum(limit[rows, None], limit)
        for i, j in zip(*np.nonzero(np.triu(same, start + 1)), strict=True):
            first[first == first[j]] = first[start + i]
    groups: dict[int, list[int]] = {}
    for index, number in enumerate(first.tolist()):
        groups.setdefault(number, []).append(index)
    return [group for group in groups.values() if len(group) > 1]


def pack(hashes: np.ndarray) -> np.ndarray:
    """Pack fingerprints (N, 256) bool to (N, 32) uint8, as weights files store them."""
    return np.packbits(hashes, axis=1)


def are_copies(images: torch.Tensor, packed: np.ndarray) -> np.ndarray:
    """Return for each image whether it shows the same picture as one of the others.

    images  (N, 3, H, W) uint8 BGR
    packed  (M, 32) uint8, the packed fingerprints of the others
    returns (N,) bool
    """
    others = np.unpackbits(packed, axis=1).astype(bool)
    hashes, mirrored = fingerprints(images), fingerprints(images.flip(-1))
    bits = np.minimum(_differences(hashes, others), _differences(mirrored, others))
    limit = np.minimum(_max_bits(hashes)[:, None], _max_bits(others))
    return (bits <= limit).any(axis=1)


def _max_bits(hashes: np.ndarray) -> np.ndarray:
    """Return in how many bits a copy of each image may differ, (N,); -1: it has none.

    Fewer than half of the bits that are set, or of those that are not.
    """
    num_set = hashes.sum(axis=1)
    rarer = np.minimum(num_set, hashes.shape[1] - num_set)
    return np.minimum(MAX_BITS, (rarer + 1) // 2 - 1)


def _differences(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the number of different bits of each pair, (len(one), len(other))."""
    one, other = one.astype(np.float32), other.astype(np.float32)
    return one.sum(1)[:, None] + other.sum(1)[None] - 2 * one @ other.T
