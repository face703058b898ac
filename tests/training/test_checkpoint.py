import pickle
import warnings
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from helpers import nets
from helpers.files import InputError
from helpers.training import checkpoint as module
from helpers.training import weights as weights_module
from helpers.training.checkpoint import (
    load_checkpoint,
    previous,
    remove_checkpoint,
    save_checkpoint,
)
from helpers.training.weights import load_weights, save_weights

NETWORKS = [
    ("regressor", {"maps": 4, "batchnorm": True, "head": "tanh"}),
    ("regressor", {}),
    ("colorizer", {"maps": [4, 6], "upsample": "nearest", "head": "linear"}),
    ("colorizer", {"num_down": 3, "head": "tanh", "labels": "sigmoid"}),
    ("unet", {"base": 4, "levels": 2}),
]
HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


class Touch:
    """An object that creates a file when unpickled: code inside a pickle."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def trained(name: str, options: dict) -> torch.nn.Module:
    """Return a network whose weights, statistics and scale differ from a new one's."""
    torch.manual_seed(1)
    net = nets.build(name, **options)
    net.fit_scale(torch.randn(8, 2, 4, 4) * 9 + 3)
    net.train()
    net(torch.rand(2, 1, 128, 128))
    return net


def saved(tmp_path, name="regressor", options=None) -> Path:
    path = tmp_path / "net.safetensors"
    options = {} if options is None else options
    save_weights(path, trained(name, options), name, options)
    return path


def assert_refused(path: Path, *words: str) -> None:
    with pytest.raises(InputError) as caught:
        load_weights(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert "weights_only" not in text
    for word in words:
        assert word in text


# Weights --------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "options"), NETWORKS)
def test_every_network_comes_back_with_its_options_and_predicts_the_same(
    tmp_path, name, options
):
    net = trained(name, options)
    path = tmp_path / "new" / "net.safetensors"
    save_weights(path, net, name, options)
    assert net.training
    loaded, metadata = load_weights(path)
    assert metadata["network"] == name
    assert not loaded.training
    assert str(loaded) == str(net)
    before, after = net.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    for key in before:
        assert before[key].dtype == after[key].dtype
        assert torch.equal(before[key], after[key]), key
    L = torch.rand(2, 1, 128, 128) * 100
    with torch.no_grad():
        assert torch.equal(net.eval().predict(L), loaded.predict(L))


def test_half_weights_are_half_the_file_and_predict_nearly_the_same(tmp_path):
    options = {"base": 16, "levels": 3}
    net = trained("unet", options).eval()
    torch.nn.init.normal_(net.last.weight)
    whole, half = tmp_path / "whole.safetensors", tmp_path / "half.safetensors"
    save_weights(whole, net, "unet", options)
    save_weights(half, net, "unet", options, half=True)
    assert half.stat().st_size < 0.6 * whole.stat().st_size
    loaded, _ = load_weights(half)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    L = torch.rand(2, 1, 32, 32) * 100
    with torch.no_grad():
        expected, found = net.predict(L), loaded.predict(L)
    assert not torch.equal(found, expected)
    assert (found - expected).abs().max() < 0.01 * expected.std()


def test_saving_leaves_one_file_and_replaces_it(tmp_path):
    path = saved(tmp_path)
    assert load_weights(path)[1]["network"] == "regressor"
    saved(tmp_path, "unet", {"base": 4, "levels": 2})
    assert load_weights(path)[1]["network"] == "unet"
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_a_bare_name_is_one_of_the_courses_own_and_the_rest_a_path(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(weights_module, "WEIGHTS", tmp_path)
    with pytest.raises(InputError) as caught:
        weights_module.find_weights("colorizer")
    assert str(caught.value).startswith("weights/colorizer.safetensors: no such file")
    for name in ("colorizer", "regressor"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"")
    assert (
        weights_module.find_weights("regressor") == tmp_path / "regressor.safetensors"
    )
    with pytest.raises(InputError, match="use colorizer or regressor, or give the"):
        weights_module.find_weights("colorzier")
    for given in ("runs/best", "best.safetensors", "./colorizer", "/a/colorizer"):
        assert weights_module.find_weights(given) == Path(given)


def test_missing_weights_are_an_input_error(tmp_path):
    assert_refused(tmp_path / "absent.safetensors", "no such weights file")
    assert_refused(tmp_path, "no such weights file")


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 100, 1500, -1])
def test_cut_weights_are_an_input_error(tmp_path, keep):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    assert_refused(path, "not a complete weights file")


@pytest.mark.parametrize("data", [HTML, LFS, b"\0" * 500, b"\xff" * 500])
def test_what_are_no_weights_is_an_input_error(tmp_path, data):
    path = tmp_path / "net.safetensors"
    path.write_bytes(data)
    assert_refused(path, "not a complete weights file")


def test_a_pickle_with_code_is_refused_and_never_executed(tmp_path):
    path, harm = tmp_path / "net.safetensors", tmp_path / "harm"
    for write in (
        lambda: path.write_bytes(pickle.dumps(Touch(harm))),
        lambda: torch.save({"weights": Touch(harm)}, path),
    ):
        write()
        assert_refused(path, "not a complete weights file")
        assert not harm.exists()
    pickle.loads(pickle.dumps(Touch(harm)))  # unpickling does run the code
    assert harm.exists()


def test_one_flipped_bit_in_any_tensor_is_found(tmp_path):
    path = saved(tmp_path)
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    assert len(whole) - start == 1370 * 4 + 3 * 4  # weights, offset and unit
    for position in range(start, len(whole), 61):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        assert_refused(path, "damaged (checksum differs)")
    path.write_bytes(whole)
    load_weights(path)


def test_one_flipped_bit_in_the_header_is_an_input_error_or_changes_nothing(tmp_path):
    path = saved(tmp_path, options={"maps": 3, "head": "relu"})
    whole = path.read_bytes()
    start = 8 + int.from_bytes(whole[:8], "little")
    expected = load_weights(path)[0].state_dict()
    surprises, refused = [], 0
    for position in range(start):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 5
        path.write_bytes(damaged)
        try:
            loaded = load_weights(path)[0].state_dict()
            if not all(torch.equal(loaded[key], expected[key]) for key in expected):
                surprises.append((position, "other weights"))
        except InputError:
            refused += 1
        except Exception as error:
            surprises.append((position, repr(error)))
    assert refused > 0.9 * start - 60
    assert surprises == []


def test_weights_of_another_program_are_an_input_error(tmp_path):
    path = tmp_path / "net.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    assert_refused(path, "weights from another program")
    save_file({"weight": torch.zeros(3)}, path, {"format": "pt"})
    assert_refused(path, "weights from another program")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("regressor", {"maps": 5}),  # other shapes
        ("unet", {}),  # other names
        ("regressor", {"batchnorm": True}),  # more tensors
        ("resnet", {}),  # a network unknown to this version
        ("regressor", {"depth": 9}),  # an option unknown to it
        ("regressor", {"head": "gelu"}),
        ("colorizer", {"head": "gelu", "labels": "tanh"}),
    ],
)
def test_weights_of_another_architecture_are_an_input_error(tmp_path, name, options):
    path = tmp_path / "net.safetensors"
    save_weights(path, trained("regressor", {}), name, options)
    assert_refused(
        path, f"does not match this version of network '{name}'", "train it again"
    )


# Checkpoints ----------------------------------------------------------------------


def content(epoch: int) -> dict:
    return {
        "epoch": epoch,
        "weights": {"w": torch.full((3,), float(epoch))},
        "history": {"mse": [0.5, 0.25]},
        "best": None,
    }


def save_two(tmp_path) -> Path:
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, content(1))
    save_checkpoint(path, content(2))
    return path


def quietly(path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load_checkpoint(path)


def test_a_checkpoint_comes_back_equal(tmp_path):
    path = tmp_path / "new" / "checkpoint.pt"
    save_checkpoint(path, content(7))
    loaded = quietly(path)
    assert loaded["epoch"] == 7
    assert torch.equal(loaded["weights"]["w"], torch.full((3,), 7.0))
    assert loaded["history"] == {"mse": [0.5, 0.25]}
    assert loaded["best"] is None


def test_without_a_checkpoint_there_is_none(tmp_path):
    assert quietly(tmp_path / "checkpoint.pt") is None
    assert quietly(tmp_path / "absent" / "checkpoint.pt") is None


def test_the_newest_is_taken_and_the_one_before_it_is_kept(tmp_path):
    path = save_two(tmp_path)
    assert quietly(path)["epoch"] == 2
    assert quietly(previous(path))["epoch"] == 1
    save_checkpoint(path, content(3))
    assert quietly(path)["epoch"] == 3
    assert quietly(previous(path))["epoch"] == 2
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["checkpoint.previous.pt", "checkpoint.pt"]


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[-40] ^= 1
    path.write_bytes(
        {
            "cut": data[:-1],
            "half": data[: len(data) // 2],
            "empty": b"",
            "html": HTML,
            "flipped": bytes(flipped),
            "longer": data + b"x",
            "bytes": b"\xff\n" * 40,
        }[how]
    )
    assert path.read_bytes() != data


DAMAGES = [
    "cut",
    "half",
    "empty",
    "html",
    "flipped",
    "longer",
    "bytes",
]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_newest_is_named_in_a_warning_and_the_one_before_taken(tmp_path, how):
    path = save_two(tmp_path)
    damage(path, how)
    with pytest.warns(UserWarning, match=r"checkpoint\.pt: damaged, using"):
        assert load_checkpoint(path)["epoch"] == 1


@pytest.mark.parametrize("how", DAMAGES)
def test_both_damaged_are_an_input_error_with_the_next_step(tmp_path, how):
    path = save_two(tmp_path)
    damage(path, how)
    damage(previous(path), how)
    with pytest.raises(InputError, match="damaged; remove it to train from scratch"):
        load_checkpoint(path)


def test_a_checkpoint_of_an_older_version_is_refused_in_one_line(tmp_path):
    path = save_two(tmp_path)
    path.write_bytes(path.read_bytes().replace(b"checkpoint 2\n", b"checkpoint 1\n", 1))
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    assert str(caught.value) == (
        f"{path}: written by another version of the course; remove it to train from "
        "scratch"
    )


def test_one_damaged_alone_is_an_input_error(tmp_path):
    path = tmp_path / "checkpoint.pt"
    save_checkpoint(path, content(1))
    damage(path, "cut")
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(path)


def test_a_stray_temporary_of_a_killed_save_is_ignored(tmp_path):
    path = save_two(tmp_path)
    (tmp_path / ".checkpoint.pt.x1y2z3").write_bytes(path.read_bytes()[:99])
    assert quietly(path)["epoch"] == 2
    path.unlink()  # killed between moving the old one and writing the new one
    assert quietly(path)["epoch"] == 1


def test_a_save_that_fails_loses_nothing(tmp_path, monkeypatch):
    path = save_two(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_atomic", full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(path, content(3))
    assert quietly(path)["epoch"] == 2


def test_a_damaged_newest_never_pushes_the_good_one_out(tmp_path, monkeypatch):
    path = save_two(tmp_path)
    damage(path, "cut")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, content(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert load_checkpoint(path)["epoch"] == 1


def test_a_checkpoint_is_removed_with_the_one_before_it_and_nothing_else(tmp_path):
    path = save_two(tmp_path)
    (tmp_path / "checkpoint.pt.txt").write_text("mine")
    remove_checkpoint(path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt.txt"]
    assert quietly(path) is None
    remove_checkpoint(path)  # removing it twice is not an error


@pytest.mark.parametrize("make", [pickle.dumps, None], ids=["pickle", "torch"])
def test_a_checkpoint_with_code_is_refused_and_never_executed(tmp_path, make):
    path, harm = tmp_path / "checkpoint.pt", tmp_path / "harm"
    if make:
        path.write_bytes(make(Touch(harm)))
    else:
        torch.save({"epoch": Touch(harm)}, path)
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(path)
    assert not harm.exists()


def test_code_behind_a_right_checksum_is_not_executed_either(tmp_path):
    path, harm = tmp_path / "checkpoint.pt", tmp_path / "harm"
    save_checkpoint(path, {"epoch": Touch(harm)})
    with pytest.raises((pickle.UnpicklingError, InputError)):
        load_checkpoint(path)
    assert not harm.exists()


def test_a_checkpoint_of_a_gpu_loads_on_the_cpu(tmp_path, monkeypatch):
    asked = []
    really_load = torch.load

    def load(*args, **options):
        asked.append(options)
        return really_load(*args, **options)

    monkeypatch.setattr(torch, "load", load)
    quietly(save_two(tmp_path))
    assert asked == [{"weights_only": True, "map_location": "cpu"}]
