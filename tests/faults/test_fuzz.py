"""Files and values changed at random: accepted, or refused in one line that names them.

`make fuzz` runs the same tests with a hundred times as many examples, in about ten minutes.
"""

import io
import json
import resource
import tempfile
import zipfile
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.apps.colorize_files import parse_box
from helpers.apps.demo import read_photograph
from helpers.apps.hints import parse_point
from helpers.apps.runner import read_notebook
from helpers.data.groups import find_groups
from helpers.data.images import (
    FolderSource,
    UnreadableImage,
    ZipSource,
    decode_image,
    decode_picture,
)
from helpers.experiments.registry import get_experiment
from helpers.experiments.run_folder import check_values
from helpers.experiments.sweep import read_grid
from helpers.files import PROJECT, InputError, sha256
from helpers.nets import Regressor
from helpers.training.checkpoint import MAGIC, VERSION, load_checkpoint
from helpers.training.weights import fingerprints_of, load_weights, save_weights

MAX_MEMORY = 2 * 2**20  # KiB, of this process
RAMP = np.tile(np.arange(48, dtype=np.uint8)[:, None, None], (1, 40, 3))
SUFFIXES = (".jpg", ".png", ".tiff", ".bmp", ".gif", ".webp", ".avif", ".ppm", ".ras")
IMAGES = {suffix: cv2.imencode(suffix, RAMP)[1].tobytes() for suffix in SUFFIXES}
IMAGES["16 bits"] = cv2.imencode(".png", RAMP.astype(np.uint16) * 256)[1].tobytes()


@st.composite
def changed(draw, originals):
    """One of the originals with up to six changes: bytes replaced, cut out or repeated."""
    data = bytearray(draw(originals))
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        length = draw(st.integers(1, 12))
        how = draw(st.sampled_from(["replace", "cut", "repeat", "end"]))
        if how == "replace":
            data[place : place + length] = draw(
                st.binary(min_size=length, max_size=length)
            )
        elif how == "cut":
            del data[place : place + length]
        elif how == "repeat":
            data[place:place] = data[place : place + length]
        else:
            del data[place + 1 :]
    return bytes(data)


def assert_memory_is_bounded():
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < MAX_MEMORY


def assert_one_line(error, *words):
    text = str(error)
    assert text and "\n" not in text, text
    assert all(str(word) in text for word in words), text


@given(changed(st.sampled_from(sorted(IMAGES.values()))))
def test_image_bytes(data):
    for decode in (decode_image, decode_picture):
        try:
            image = decode(data)
        except UnreadableImage as error:
            assert_one_line(error)
        else:
            assert image.ndim == 3 and image.dtype in (np.uint8, np.uint16)
    assert_memory_is_bounded()


@example(IMAGES[".avif"].replace(b"av01", b"av02"))  # RuntimeError in Pillow
@given(changed(st.sampled_from([IMAGES[".avif"], IMAGES[".jpg"], IMAGES[".png"]])))
def test_files_dropped_on_the_demo_page(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "photo.avif")
        path.write_bytes(data)
        try:
            read_photograph(path)
        except InputError as error:
            assert_one_line(error, "photo.avif: ", "choose another file")


def a_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for suffix in (".jpg", ".png"):
            archive.writestr(f"people/a{suffix}", IMAGES[suffix])
        archive.writestr("groups.csv", "file,group\na.jpg,1\na.png,2\n")
    return buffer.getvalue()


@given(changed(st.just(a_zip())))
def test_zip_bytes(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "photos.zip")
        path.write_bytes(data)
        try:
            source = ZipSource(path)
            find_groups(source, source.names, [""] * len(source.names))
        except InputError as error:
            assert_one_line(error, "photos.zip")
            return
        for name in source.names:
            try:
                decode_image(source.read(name))
            except UnreadableImage as error:
                assert_one_line(error)
        assert [file.name for file in Path(folder).iterdir()] == ["photos.zip"]
    assert_memory_is_bounded()


@example(b"\r\x00")  # csv.Error
@given(st.binary(max_size=60) | changed(st.just(b"file,group\na.jpg,1\nb.jpg,2\n")))
def test_groups_csv(data):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "groups.csv").write_bytes(data)
        try:
            find_groups(FolderSource(Path(folder)), ["a.jpg", "b.jpg"] * 2, [""] * 4)
        except InputError as error:
            assert_one_line(error, "groups.csv")


def weights_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.safetensors")
        seen = np.zeros((3, 32), np.uint8)
        save_weights(path, Regressor(), "regressor", {}, trained_on=seen)
        return path.read_bytes()


@given(changed(st.just(weights_file())))
def test_weights(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "net.safetensors")
        path.write_bytes(data)
        for read in (load_weights, fingerprints_of):
            try:
                read(path)
            except InputError as error:
                assert_one_line(error, "net.safetensors")


def checkpoint_content() -> bytes:
    buffer = io.BytesIO()
    torch.save({"epoch": 3, "weights": {"w": torch.ones(5)}, "best": None}, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("is_signed", [False, True])
@given(content=changed(st.just(checkpoint_content())))
def test_checkpoints(is_signed, content):
    digest = sha256(content if is_signed else b"").encode()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "checkpoint.pt")
        path.write_bytes(MAGIC + VERSION + b"\n" + digest + b"\n" + content)
        try:
            load_checkpoint(path)
        except InputError as error:
            assert_one_line(error, "checkpoint.pt", "remove it")
    assert_memory_is_bounded()


@given(
    changed(st.just((PROJECT / "notebooks" / "02_augment.ipynb").read_bytes()[:4000]))
)
def test_notebooks(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "01_x.ipynb")
        path.write_bytes(data)
        try:
            assert isinstance(read_notebook(path), nbformat.NotebookNode)
        except InputError as error:
            assert_one_line(error, "01_x.ipynb", "restore it")


GRID = b"networks: [maps/3]\nlr: [0.01, 0.02]\nseeds: [1, 2]\n"


@given(changed(st.just(GRID)) | st.binary(max_size=40))
def test_sweep_files(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "class.yaml")
        path.write_bytes(data)
        try:
            names, seeds = read_grid(path)
        except InputError as error:
            assert_one_line(error)
        else:
            assert names and all(isinstance(seed, int) for seed in seeds)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(["seed", "split", "device", "profile"]), VALUES))
def test_parameters(values):
    try:
        check_values(values)
    except InputError as error:
        assert_one_line(error)
    else:
        json.dumps(values)


@pytest.mark.parametrize(
    ("parse", "start"),
    [
        (parse_point, "120,80=#c58c6a"),
        (parse_box, "10,20,30,40"),
        (get_experiment, "maps/8,lr=0.01,batch_size=4"),
        (get_experiment, "stack/k3,l4,m8"),
    ],
)
@given(st.data())
def test_values_of_options(parse, start, data):
    edited = changed(st.just(start.encode())).map(lambda b: b.decode(errors="replace"))
    text = data.draw(st.text(max_size=20) | edited)
    try:
        parse(text)
    except InputError as error:
        assert str(error)
