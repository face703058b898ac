"""Images of one picture stay on one side of a split; weights know their training images."""

import shutil

import cv2
import numpy as np
import pytest
import torch

from helpers.apps.evaluate_weights import evaluate_weights
from helpers.data.copies import are_copies, find_copies, fingerprints, pack
from helpers.data.faces import FaceSet, load_faces, split_faces
from helpers.data.images import read_image
from helpers.experiments.run import train_one
from helpers.nets import Regressor
from helpers.training.weights import find_weights, fingerprints_of, save_weights


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


def test_clear_skies_are_not_taken_for_copies():
    """Images without detail in one direction have hashes that say nothing."""
    fall = torch.linspace(1, 0.4, 32)
    colors = torch.tensor([[250, 180, 90], [90, 80, 240], [0, 0, 255]]).float()
    skies = (colors[:, :, None, None] * fall[:, None]).expand(3, 3, 32, 32)
    skies = skies.to(torch.uint8).contiguous()
    assert not are_copies(skies, pack(fingerprints(skies))).any()
    for images in (skies, skies.transpose(2, 3), skies.transpose(2, 3).flip(3)):
        assert find_copies(images.contiguous()) == []


@pytest.mark.parametrize("side", [3, 8, 20, 40])
def test_small_objects_on_white_are_copies_only_of_themselves(side):
    noise = np.random.default_rng(0).integers(0, 256, (3, 3, side, side), np.uint8)
    images = torch.full((6, 3, 128, 128), 255, dtype=torch.uint8)
    for number, place in enumerate((8, 40, 70)):
        for copy in (number, number + 3):
            images[copy, :, place : place + side, place : place + side] = (
                torch.from_numpy(noise[number])
            )
    assert find_copies(images) == [[0, 3], [1, 4], [2, 5]]
    assert are_copies(images[:3], pack(fingerprints(images[3:]))).all()


def test_the_smaller_of_two_limits_counts_whichever_image_is_the_first():
    images = torch.full((1, 3, 128, 128), 255, dtype=torch.uint8)
    images[..., 40:80, 40:80] = torch.randint(0, 200, (40, 40), dtype=torch.uint8)
    (hashes,) = fingerprints(images)
    places = np.flatnonzero(hashes)
    num_changed = (len(places) + 1) // 2 - 1  # as many as the first one's limit
    other = hashes.copy()
    other[places[:num_changed]] = False
    assert are_copies(images, pack(hashes[None])).all()
    assert not are_copies(images, pack(other[None])).any()


def test_copies_in_both_folders_are_named_before_a_training(portraits, tmp_path):
    for number in range(20):
        folder = tmp_path / "photographs" / ("val" if number < 4 else "train")
        folder.mkdir(parents=True, exist_ok=True)
        image = portraits.images[18 * (number % 18)].permute(1, 2, 0).numpy()
        cv2.imwrite(str(folder / f"{number:02}.png"), image)
    lines = []
    how = {"images": str(tmp_path / "photographs"), "run_dir": str(tmp_path / "run")}
    how |= {"split": "folders", "device": "cpu", "plain": True, "epochs": 1}
    train_one("regressor/relu", log=lines.append, **how)
    assert "pictures in both sets: 2; the test error is too small" in lines


@pytest.fixture(scope="module")
def trained(portraits, tmp_path_factory):
    """A folder with 40 portraits, and the weights of a regressor trained on 36 of them."""
    folder = tmp_path_factory.mktemp("trained")
    for number in range(40):
        image = portraits.images[number * 18].permute(1, 2, 0).numpy()
        cv2.imwrite(str(folder / f"{number:02}.png"), image)
    run_dir = tmp_path_factory.mktemp("run")
    how = {"images": str(folder), "run_dir": str(run_dir), "device": "cpu"}
    train_one("regressor/relu", epochs=1, plain=True, log=lambda line: None, **how)
    (weights,) = run_dir.rglob("weights.safetensors")
    return folder, weights


def evaluated(weights, folder, **options) -> str:
    lines = []
    how = {"split": "all", "seed": 4, "device": "cpu"} | options
    evaluate_weights(str(weights), str(folder), log=lines.append, **how)
    return "\n".join(lines)


def test_evaluate_tells_training_images_from_test_images(trained):
    folder, weights = trained
    assert "trained on none of these 4 images" in evaluated(
        weights, folder, split="random"
    )
    report = evaluated(weights, folder)
    assert (
        "trained on 36 of these 40 images: these results are not test errors" in report
    )


@pytest.mark.parametrize("change", CHANGES)
def test_evaluate_knows_a_changed_training_image(change, trained, tmp_path):
    folder, weights = trained
    for file in folder.iterdir():
        cv2.imwrite(str(tmp_path / file.name), CHANGES[change](read_image(file)))
    line = evaluated(weights, tmp_path).partition("trained on ")[2]
    assert 34 <= int(line.split()[0]) <= 36


def test_fine_tuned_weights_know_the_images_of_both_trainings(trained, tmp_path):
    _, weights = trained
    how = {"images": "portraits", "run_dir": str(tmp_path), "device": "cpu"}
    how |= {"start": str(weights), "epochs": 1, "plain": True, "log": lambda line: None}
    train_one("regressor/relu", **how)
    (tuned,) = tmp_path.rglob("weights.safetensors")
    assert len(fingerprints_of(tuned)) == 36 + 300


def test_the_networks_that_it_is_compared_with_are_checked_too(trained):
    folder, weights = trained
    report = evaluated("regressor", folder, against=[str(weights)])
    assert "regressor was trained on none of these 40 images" in report
    assert "weights.safetensors was trained on 36 of these 40 images" in report


def test_weights_without_fingerprints_say_so(trained, tmp_path):
    save_weights(tmp_path / "old.safetensors", Regressor(), "regressor", {})
    report = evaluated(tmp_path / "old.safetensors", trained[0])
    assert "does not say on which images it was trained" in report


def test_the_shipped_networks_know_their_training_images(trained):
    for name, count in {"colorizer": 607, "portrait": 5995}.items():
        assert len(fingerprints_of(find_weights(name))) == count
        assert "trained on none of these 40 images" in evaluated(name, trained[0])
