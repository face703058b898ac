"""The committed example pictures are what the program writes."""

import cv2
import numpy as np

from helpers.apps.examples import EXAMPLES, write_examples


def test_the_committed_pictures_can_be_made_again(tmp_path):
    lines = []
    write_examples(tmp_path, lines.append)
    assert len(lines) == 3
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == sorted(file.name for file in EXAMPLES.iterdir())
    for name in names:
        here, there = (
            cv2.imread(str(folder / name)) for folder in (tmp_path, EXAMPLES)
        )
        assert here.shape == there.shape
        assert np.abs(here.astype(int) - there).mean() < 1.0, name
