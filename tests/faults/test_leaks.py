"""Images of one picture are found and stay on one side of every split."""

import shutil

import cv2
import numpy as np
import pytest
import torch

from helpers.data.copies import find_copies
from helpers.data.faces import FaceSet, load_faces, split_faces
from helpers.data.images import read_image


def saved_again(image):
    return cv2.imdecode(cv2.imencode(".jpg", image, [1, 70])[1], 1)


def resized(image):
    return cv2.resize(image, (70, 70), interpolation=cv2.INTER_AREA)


def mirrored(image):
    return np.ascontiguousarray(image[:, ::-1])


def brightened(image):
    return np.clip(image * 1.08 + 4, 0, 255).astype(np.uint8)


CHANGES = {f.__name__: f for f in (saved_again, resized, mirrored, brightened)}


@pytest.fixture(scope="module")
def portraits():
    return load_faces("portraits")


def test_the_portraits_have_no_copies(portraits):
    assert portraits.copies == []


@pytest.mark.parametrize("change", CHANGES)
def test_planted_copies_are_found_named_and_kept_together(change, portraits, tmp_path):
    count = 60
    for number in range(count):
        image = portraits.images[number * 12].permute(1, 2, 0).numpy()
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), image)
        cv2.imwrite(str(tmp_path / f"z{number:02}.png"), CHANGES[change](image))
    faces = load_faces(str(tmp_path))
    pairs = [sorted(faces.names[i] for i in group) for group in faces.copies]
    expected = [[f"{n:02}.png", f"z{n:02}.png"] for n in range(count)]
    assert sum(pair in expected for pair in pairs) >= 0.95 * count
    assert all(pair in expected for pair in pairs)
    assert f"{2 * len(pairs)} images are copies" in faces.describe()
    assert "one picture: 00.png, z00.png" in faces.describe()
    for seed in range(5):
        split = split_faces(faces, seed=seed)
        test = set(split.test.tolist())
        assert len(test) == 12
        assert all(len(test & set(group)) in (0, 2) for group in faces.copies)


def test_a_renamed_photograph_is_a_copy(tmp_path, portraits):
    image = portraits.images[0].permute(1, 2, 0).numpy()
    for number in range(12):
        other = portraits.images[number * 40 + 1].permute(1, 2, 0).numpy()
        cv2.imwrite(str(tmp_path / f"{number:02}.png"), other)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    shutil.copy(tmp_path / "a.png", tmp_path / "holiday.png")
    assert np.array_equal(read_image(tmp_path / "holiday.png"), image)
    faces = load_faces(str(tmp_path))
    (group,) = faces.copies
    assert [faces.names[i] for i in group] == ["a.png", "holiday.png"]


def test_sitters_that_share_a_picture_are_on_one_side(portraits):
    chosen = [*range(0, 750, 15), 0]  # the first one again, for another sitter
    groups = [f"s{n}" for n in range(len(chosen))]
    images = portraits.images[chosen]
    names = [f"{n}.png" for n in range(len(chosen))]
    faces = FaceSet(images, names, groups, copies=find_copies(images))
    assert faces.copies == [[0, 50]]
    for seed in range(20):
        split = split_faces(faces, by="groups", seed=seed)
        assert (0 in split.test.tolist()) == (50 in split.test.tolist())


def test_plain_images_are_not_taken_for_copies():
    images = torch.arange(12, dtype=torch.uint8)[:, None, None, None]
    assert find_copies(images.expand(12, 3, 32, 32).contiguous()) == []
