"""Numbers that would be quietly wrong: named, or refused."""

import math

import pytest
import torch

from helpers.data.course import course_data
from helpers.data.faces import FaceSet, load_faces, split_faces
from helpers.data.lab import to_lab_images
from helpers.evaluation.evaluate import evaluate
from helpers.evaluation.metrics import bootstrap
from helpers.experiments.run import train_one
from helpers.files import TEMPORARY, InputError, WorkFailed, run_lock, write_atomic
from helpers.nets import Colorizer
from helpers.nets.baselines import MeanChrominance
from helpers.training import Recipe, fit

RNG = torch.Generator().manual_seed(0)
IMAGES = torch.randint(0, 256, (20, 3, 16, 16), generator=RNG).to(torch.uint8)


def data(images=IMAGES):
    faces = FaceSet(images, [f"{n:02}.png" for n in range(len(images))])
    return course_data(faces, split_faces(faces), copies=1, seed=0)


def test_a_prediction_that_is_not_a_number_is_no_error_of_nan():
    net = Colorizer(num_down=2)
    net.fit_scale(data().train.ab)
    evaluate(net, data().test)
    with torch.no_grad():
        next(net.parameters())[0] = math.nan
    with pytest.raises(WorkFailed, match="not finite in 2 of 2 images"):
        evaluate(net, data().test)


def test_one_bad_image_among_many_is_counted():
    class Bad:
        task = "map"

        def predict(self, L):
            ab = torch.zeros(len(L), 2, *L.shape[2:])
            ab[3, 1, 0, 0] = math.inf
            return ab

    with pytest.raises(WorkFailed, match="not finite in 1 of 20 images"):
        evaluate(Bad(), to_lab_images(IMAGES))


def test_a_network_that_diverges_at_the_end_of_an_epoch_stops_its_training(monkeypatch):
    net = Colorizer(num_down=2)
    real = net.predict
    monkeypatch.setattr(net, "predict", lambda L: real(L) * math.nan)
    with pytest.raises(WorkFailed, match="lower the learning rate"):
        fit(net, data().for_training(), Recipe(2, batch_size=9, lr=0.01))


def test_one_image_has_no_interval():
    assert str(bootstrap([0.5])) == "0.5 (one image: no interval)"
    assert str(bootstrap([0.5], [7])) == "0.5 (one image: no interval)"
    assert bootstrap([0.5, 0.7]).unit == "images"


def test_the_mean_over_minibatches_of_different_sizes_is_the_mean_over_images():
    sets = data()
    ten, seven = (
        evaluate(MeanChrominance(sets.plain), sets.plain, batch_size=n) for n in (10, 7)
    )
    assert ten.mse == seven.mse
    assert ten.mse.mean == pytest.approx(ten.per_image.mean().item())


@pytest.mark.parametrize(
    ("count", "words"), [(20, "all images are"), (3, "3 images are"), (1, "1 image is")]
)
def test_gray_images_are_named(count, words):
    images = IMAGES.clone()
    images[:count] = images[:count, :1]
    faces = FaceSet(images, [f"{n}.png" for n in range(20)])
    assert f"{words} gray: no color can be learned there" in faces.describe()
    assert "gray" not in FaceSet(IMAGES, faces.names).describe()


def test_gray_images_can_be_trained_on():
    gray = IMAGES[:, :1].expand(-1, 3, -1, -1).contiguous()
    sets, net = data(gray), Colorizer(num_down=2)
    history = fit(net, sets.for_training(), Recipe(1, batch_size=9, lr=0.01))
    assert all(map(math.isfinite, history["test_mse"]))


def test_another_seed_is_named_when_a_training_run_is_resumed(tmp_path):
    faces = load_faces("portraits")
    how = {"images": "portraits", "run_dir": str(tmp_path), "epochs": 1, "plain": True}
    how |= {"device": "cpu", "log": lambda line: None}
    assert len(faces) == 750
    train_one("regressor/relu", seed=4, **how)
    folder = tmp_path / "train"
    (folder / "regressor_relu_seed4").rename(folder / "regressor_relu_seed5")
    with pytest.raises(InputError, match="random seed was 4 and is now 5"):
        train_one("regressor/relu", seed=5, **how)


def test_the_next_run_removes_what_killed_writers_left(tmp_path):
    write_atomic(tmp_path / "deep" / "net.safetensors", b"whole")
    left = tmp_path / "deep" / f".net.safetensors.0123abcd{TEMPORARY}"
    left.write_bytes(b"half")
    mine = [tmp_path / ".notes.txt", tmp_path / "deep" / ".bashrc.20240131"]
    for file in mine:
        file.write_text("mine")
    with run_lock(tmp_path):
        assert not left.exists()
    assert all(file.exists() for file in mine)
    assert (tmp_path / "deep" / "net.safetensors").read_bytes() == b"whole"


def test_the_files_that_another_run_is_writing_stay(tmp_path):
    with run_lock(tmp_path / "train" / "net"):
        half = tmp_path / "train" / "net" / "deep" / f".checkpoint.pt.12{TEMPORARY}"
        half.parent.mkdir()
        half.write_bytes(b"half")
        with run_lock(tmp_path):
            assert half.exists()
