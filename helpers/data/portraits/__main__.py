"""Draw a share of the sitters, as one of the processes of `write_portraits`."""

import sys
from pathlib import Path

import cv2

from helpers.data.portraits import write_sitter

if __name__ == "__main__":
    folder, *numbers = sys.argv[1:]
    seed, shots, first, last, step = map(int, numbers)
    cv2.setNumThreads(1)  # the processes share the cores already
    for sitter in range(first, last + 1, step):
        write_sitter(Path(folder), sitter, seed, shots)
