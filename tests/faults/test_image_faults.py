"""Damaged and dangerous image files: refused by name, in bounded memory."""

import os
import resource
import struct
import subprocess
import sys
import zipfile
import zlib

import cv2
import numpy as np
import pytest

from helpers.data.images import (
    FolderSource,
    UnreadableImage,
    ZipSource,
    decode_image,
    decode_picture,
)
from helpers.files import PROJECT, InputError

RNG = np.random.default_rng(0)
X, Y = np.meshgrid(np.linspace(0, 255, 160), np.linspace(0, 255, 120))
PICTURE = np.dstack([X, Y, 255 - X]).astype(np.uint8)
PICTURE = cv2.add(PICTURE, RNG.integers(0, 40, PICTURE.shape, np.uint8))


def encode(suffix, image=PICTURE):
    return bytearray(cv2.imencode(suffix, image)[1].tobytes())


def chunk(kind, content, length=None):
    size = len(content) if length is None else length
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", size) + kind + content + struct.pack(">I", checksum)


def png_of_size(width, height, depth=8):
    header = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def zeroed(data):
    middle = len(data) // 2
    data[middle - 400 : middle + 400] = bytes(800)


def random_bytes(data):
    middle = len(data) // 2
    data[middle - 150 : middle + 150] = RNG.bytes(300)


def cut_and_closed(data):
    data[len(data) // 2 :] = b"\xff\xd9"


@pytest.mark.parametrize("damage", [zeroed, random_bytes, cut_and_closed])
@pytest.mark.parametrize("decode", [decode_image, decode_picture])
def test_a_jpeg_with_a_damaged_middle_is_refused(damage, decode):
    data = encode(".jpg")
    damage(data)
    with pytest.raises(UnreadableImage, match="damaged JPEG"):
        decode(bytes(data))


def test_a_jpeg_with_a_few_unused_bytes_is_read():
    data = encode(".jpg")
    data[-2:-2] = b"\0\0\0"  # some cameras do this
    assert np.array_equal(decode_image(bytes(data)), decode_image(encode(".jpg")))


def test_other_messages_still_reach_stderr():
    code = (
        "import os, sys; from helpers.data.images import decode_image, UnreadableImage\n"
        "data = open(sys.argv[1], 'rb').read()\n"
        "try: decode_image(data)\n"
        "except UnreadableImage: print('refused')\n"
        "os.write(2, b'later')"
    )
    path = PROJECT / "weights" / "colorizer.md"  # not an image
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True)
    assert done.stdout == b"refused\n" and done.stderr == b"later"


@pytest.mark.parametrize("length", [2**31 - 1, 2**30, 2**20])
def test_a_png_chunk_longer_than_the_file_is_refused_before_it_is_decoded(length):
    data = encode(".png")
    place = data.find(b"IDAT") - 4
    data[place : place + 4] = struct.pack(">I", length)
    with pytest.raises(UnreadableImage, match="longer than the file"):
        decode_image(bytes(data))


@pytest.mark.parametrize("place", [0, 1])
def test_a_cut_png_is_refused(place):
    data = encode(".png")
    cut = data[: len(data) // 2] if place else data[:-12]
    with pytest.raises(UnreadableImage, match="damaged: "):
        decode_image(bytes(cut))


@pytest.mark.parametrize("first", ["cv2", "helpers.data"])
def test_the_limit_on_pixels_holds_whatever_is_imported_first(first, tmp_path):
    (tmp_path / "big.png").write_bytes(png_of_size(20_000, 20_000))
    code = (
        f"import {first}, resource, sys\n"
        "from helpers.data.images import decode_image, UnreadableImage\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: decode_image(open(sys.argv[1], 'rb').read())\n"
        "except UnreadableImage as error: print(error)\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(after - before < 50_000)"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("OPENCV")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "big.png")],
        env=clean, capture_output=True, text=True, cwd=PROJECT,
    )  # fmt: skip
    assert done.stdout == "more than 134 megapixels\nTrue\n", done.stderr


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("decode", [decode_image, decode_picture])
def test_12_bits_in_a_16_bit_file_are_not_read_as_black(suffix, decode):
    values = PICTURE.astype(np.uint16) * 16
    with pytest.raises(UnreadableImage, match=r"no value above 40\d\d of 65535"):
        decode(bytes(encode(suffix, values)))
    assert decode(bytes(encode(suffix, values * 16))).shape == PICTURE.shape
    black = np.zeros((8, 8, 3), np.uint16)
    assert not decode(bytes(encode(suffix, black))).any()


def test_an_unreadable_subfolder_is_named(tmp_path, monkeypatch):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(encode(".png"))
    real = os.scandir

    def scandir(path):  # the superuser may read everything, so permissions do not help
        if os.path.basename(path) == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    source = FolderSource(tmp_path)
    assert source.names == ["a/x.png"]
    assert source.refused == [("b/", "cannot read (Permission denied)")]
    with pytest.raises(InputError, match="cannot read"):
        FolderSource(tmp_path / "b")


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_zeros_under_an_image_name_are_refused_from_their_start(kind, tmp_path):
    zeros = tmp_path / "photos" / "zeros.png"
    zeros.parent.mkdir()
    with open(zeros, "wb") as file:
        file.truncate(200 * 2**20)
    if kind == "zip":
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(zeros, "zeros.png")
        source = ZipSource(tmp_path / "a.zip")
    else:
        source = FolderSource(zeros.parent)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UnreadableImage, match="not an image"):
        source.read("zeros.png")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 50_000  # KiB


def test_every_format_that_opencv_writes_is_read_from_a_folder(tmp_path):
    suffixes = [".avif", ".bmp", ".dib", ".gif", ".jpe", ".jpeg", ".jpg"]
    suffixes += [
        ".png",
        ".pnm",
        ".ppm",
        ".ras",
        ".sr",
        ".tif",
        ".tiff",
        ".webp",
        ".jp2",
    ]
    picture = np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 64, 3))
    for suffix in suffixes:
        cv2.imwrite(str(tmp_path / f"a{suffix}"), picture)
    source = FolderSource(tmp_path)
    assert len(source.names) == len(suffixes)
    for name in source.names:
        assert decode_image(source.read(name)).shape == (64, 64, 3), name
