import io
import os
import struct
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.data import images
from helpers.data.faces import load_faces
from helpers.data.images import (
    FolderSource,
    UnreadableImage,
    ZipSource,
    decode_image,
    decode_picture,
    open_source,
    read_image,
    to_square,
    write_image,
)
from helpers.files import InputError

ORIENTATION = 0x0112
TOP, LEFT, RIGHT = (20, 60, 200), (90, 180, 10), (220, 40, 30)  # B, G, R


def scene() -> np.ndarray:
    """Return a 24x32 BGR image: upper half and two lower quarters, one color each."""
    image_bgr = np.empty((24, 32, 3), np.uint8)
    image_bgr[:12] = TOP
    image_bgr[12:, :16] = LEFT
    image_bgr[12:, 16:] = RIGHT
    return image_bgr


def pillow(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(scene()[..., ::-1])).convert(mode)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(value: int = 100, size: int = 6) -> bytes:
    return cv2.imencode(".png", np.full((size, size, 3), value, np.uint8))[1].tobytes()


def noise(kind: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    return saved(Image.fromarray(pixels), kind)


def assert_scene(image_bgr: np.ndarray, tolerance: int) -> None:
    assert image_bgr.dtype == np.uint8
    assert image_bgr.shape == (24, 32, 3)
    assert np.abs(image_bgr.astype(int) - scene()).max() <= tolerance


def write_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def assert_one_line_about(error: Exception, path: Path, *words: str) -> None:
    text = str(error)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    for word in words:
        assert word in text


# One file -------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff", ".ppm", ".sr"])
def test_lossless_files_of_opencv_come_back_pixel_by_pixel(suffix):
    done, data = cv2.imencode(suffix, scene())
    assert done
    assert_scene(decode_image(data.tobytes()), 0)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "JPEG2000", "PPM"])
def test_lossless_files_of_pillow_come_back_pixel_by_pixel(kind):
    assert_scene(decode_image(saved(pillow(), kind)), 0)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_other_files_of_pillow_come_back_in_their_colors(kind, options):
    assert_scene(decode_image(saved(pillow(), kind, **options)), 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
def test_gray_files_become_three_equal_channels(kind):
    gray = pillow("L")
    options = {"quality": 95} if kind == "JPEG" else {}
    image_bgr = decode_image(saved(gray, kind, **options))
    assert image_bgr.shape == (24, 32, 3)
    assert (image_bgr == image_bgr[..., :1]).all()
    assert np.abs(image_bgr[..., 0].astype(int) - np.array(gray)).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_palette_files_become_color(kind):
    palette = pillow().quantize(8)
    expected = np.array(palette.convert("RGB"))[..., ::-1]
    assert np.array_equal(decode_image(saved(palette, kind)), expected)


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})]
)
def test_alpha_is_dropped_and_colors_stay(kind, options):
    image = pillow("RGBA")
    image.putalpha(100)
    assert_scene(decode_image(saved(image, kind, **options)), 1)


def test_gray_with_alpha_becomes_three_channels():
    image_bgr = decode_image(saved(pillow("LA"), "PNG"))
    assert np.array_equal(image_bgr[..., 1], np.array(pillow("L")))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_sixteen_bit_color_keeps_its_top_eight_bits(suffix):
    deep = scene().astype(np.uint16) * 256 + 128
    assert_scene(decode_image(cv2.imencode(suffix, deep)[1].tobytes()), 1)


def test_sixteen_bit_gray_becomes_eight_bit_bgr():
    deep = np.full((5, 7), 200 * 257, np.uint16)
    image_bgr = decode_image(cv2.imencode(".png", deep)[1].tobytes())
    assert image_bgr.dtype == np.uint8
    assert image_bgr.shape == (5, 7, 3)
    assert (image_bgr == 200).all()


def test_cmyk_jpeg_becomes_bgr():
    assert_scene(decode_image(saved(pillow("CMYK"), "JPEG", quality=95)), 6)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_one_bit_files_become_black_and_white(kind):
    pattern = np.indices((24, 32)).sum(axis=0) % 3 == 0
    image_bgr = decode_image(saved(Image.fromarray(pattern), kind))
    assert np.array_equal(image_bgr, np.repeat(pattern[..., None] * 255, 3, axis=2))


def test_an_animated_gif_gives_its_first_frame():
    second = Image.new("RGB", (32, 24), (1, 2, 3))
    data = saved(pillow(), "GIF", save_all=True, append_images=[second])
    assert_scene(decode_image(data), 0)


def turned(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return an upright image as a camera stores it with an EXIF orientation."""
    return {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, 1),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: np.rot90(x, -1),
    }[orientation](image)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_of_a_jpeg_comes_out_upright(orientation):
    stored = np.ascontiguousarray(turned(scene()[..., ::-1], orientation))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = saved(Image.fromarray(stored), "JPEG", quality=95, subsampling=0, exif=exif)
    assert_scene(decode_image(data), 4)


@pytest.mark.parametrize("decode", [decode_image, decode_picture])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_an_avif_comes_out_upright(orientation, decode):
    stored = np.ascontiguousarray(turned(scene()[..., ::-1], orientation))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"quality": 100, "subsampling": "4:4:4"}
    data = saved(Image.fromarray(stored), "AVIF", exif=exif, **options)
    assert_scene(decode(data)[..., :3], 8)


# With alpha and 16 bits -----------------------------------------------------------


def with_alpha() -> np.ndarray:
    """Return the scene with an alpha channel that differs in every corner."""
    alpha = np.linspace(1, 255, 24 * 32).reshape(24, 32).astype(np.uint8)
    return np.dstack([scene(), alpha])


def pillow_alpha(image_bgra: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image_bgra[..., [2, 1, 0, 3]]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})]
)
def test_alpha_comes_out_upright_with_its_colors(orientation, kind, options):
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    stored = turned(with_alpha(), orientation)
    data = saved(pillow_alpha(stored), kind, exif=exif.tobytes(), **options)
    assert np.array_equal(decode_picture(data), with_alpha())


def test_gray_and_palette_files_keep_their_alpha():
    gray = saved(pillow_alpha(with_alpha()).convert("LA"), "PNG")
    assert np.array_equal(decode_picture(gray)[..., 3], with_alpha()[..., 3])
    colors = pillow().quantize(4, dither=Image.Dither.NONE)
    palette = saved(colors, "PNG", transparency=colors.getpixel((0, 0)))
    alpha = decode_picture(palette)[..., 3]
    assert (alpha[:12] == 0).all() and (alpha[12:] == 255).all()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_kept(suffix, channels):
    deep = np.random.default_rng(0).integers(0, 65536, (9, 7, channels), np.uint16)
    found = decode_picture(cv2.imencode(suffix, deep)[1].tobytes())
    assert found.dtype == np.uint16
    assert np.array_equal(found, np.broadcast_to(deep, (9, 7, 3)))


def test_sixteen_bits_with_alpha_are_kept():
    deep = np.random.default_rng(0).integers(0, 65536, (9, 7, 4), np.uint16)
    found = decode_picture(cv2.imencode(".png", deep)[1].tobytes())
    assert np.array_equal(found, deep)


@pytest.mark.parametrize("writer", ["Pillow", "OpenCV"])  # with and without a tag
def test_the_colors_of_a_tiff_are_not_multiplied_by_its_alpha(writer):
    data = saved(pillow_alpha(with_alpha()), "TIFF")
    if writer == "OpenCV":
        data = cv2.imencode(".tiff", with_alpha())[1].tobytes()
    found = decode_picture(data)
    assert np.array_equal(found[..., 3], with_alpha()[..., 3])
    solid = with_alpha()[..., 3] > 100  # OpenCV rounds the product with a small alpha
    assert_scene(np.where(solid[..., None], found[..., :3], scene()), 2)


def big_endian(data: bytes, gray: np.ndarray) -> bytes:
    """Return a TIFF of one strip of 16-bit gray with the other order of bytes."""
    start, number = struct.unpack("<IH", data[4:8] + data[8:10])
    assert start == 8
    fields = [struct.unpack_from("<HHII", data, 10 + 12 * n) for n in range(number)]
    short = [((tag, 3, 1), value) for tag, kind, _, value in fields if kind in (3, 4)]
    head = struct.pack(">2sHIH", b"MM", 42, 8, len(short))
    end = 8 + 2 + 12 * len(short) + 4
    for (tag, kind, count), value in short:
        value = {273: end, 279: gray.nbytes}.get(tag, value)
        head += struct.pack(">HHIHxx", tag, kind, count, value)
    return head + bytes(4) + gray.astype(">u2").tobytes()


@pytest.mark.parametrize("order", "<>")
def test_a_sixteen_bit_tiff_that_counts_from_white_is_no_negative(order):
    gray = np.random.default_rng(0).integers(0, 65536, (9, 7), np.uint16)
    data = bytearray(saved(Image.fromarray(gray), "TIFF"))
    tag = data.find(struct.pack("<HHI", 262, 3, 1))  # PhotometricInterpretation
    data[tag + 8] = 0
    if order == ">":
        data = big_endian(bytes(data), gray)
    found = decode_picture(bytes(data))
    assert np.array_equal(found[..., 0], 65535 - gray)
    assert np.abs(decode_image(bytes(data))[..., 0] - (65535 - gray) / 257).max() < 2


@pytest.mark.parametrize("mode", ["I", "F", "RGB"])
def test_thirty_two_bits_are_refused_by_name(mode):
    deep = np.ones((5, 7, 3), np.float32)
    data = cv2.imencode(".tiff", deep)[1].tobytes()
    if mode != "RGB":
        data = saved(pillow("L").convert(mode), "TIFF")
    for decode in (decode_image, decode_picture):
        with pytest.raises(UnreadableImage, match="save it with 8 or 16 unsigned bits"):
            decode(data)


def test_the_pictures_of_an_iphone_are_refused_by_name(tmp_path):
    heic = b"\0\0\0\x24ftypheic\0\0\0\0" + b"\0" * 99
    with pytest.raises(UnreadableImage, match="HEIC, which OpenCV cannot read"):
        decode_image(heic)
    (tmp_path / "IMG_1.HEIC").write_bytes(heic)
    assert FolderSource(tmp_path).names == ["IMG_1.HEIC"]
    for number in range(10):
        write_image(
            tmp_path / f"{number}.png", np.full((64, 64, 3), 20 * number, np.uint8)
        )
    faces = load_faces(str(tmp_path))  # more than 5 % are HEIC, but nothing is damaged
    assert len(faces) == 10 and [name for name, _ in faces.skipped] == ["IMG_1.HEIC"]


def test_without_stderr_a_jpeg_is_decoded(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)  # as in a daemon
    assert_scene(decode_image(saved(pillow(), "JPEG", quality=95, subsampling=0)), 4)


def test_a_single_image_instead_of_a_folder_is_named(tmp_path):
    path = tmp_path / "photo.jpg"
    write_image(path, scene())
    with pytest.raises(InputError, match="a single image; give a folder or zip"):
        open_source(path)


def test_other_formats_with_more_than_eight_bits_become_eight_bit():
    data = b"P5 2 2 1023\n" + np.full(4, 512, ">u2").tobytes()  # 10 bits
    found = decode_picture(data)
    assert found.dtype == np.uint8
    assert np.array_equal(found, decode_image(data))


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        *(("JPEG", mode) for mode in ("RGB", "L", "CMYK", "1")),
        *(("TIFF", mode) for mode in ("RGB", "L", "CMYK", "1", "P")),
        *((kind, mode) for kind in ("PNG", "BMP") for mode in ("RGB", "L", "1", "P")),
    ],
)
def test_without_alpha_and_sixteen_bits_decode_picture_equals_decode_image(kind, mode):
    data = saved(pillow(mode), kind)
    found = decode_picture(data)
    assert np.array_equal(found[..., :3], decode_image(data))
    assert (found[..., 3:] == 255).all()  # OpenCV adds an opaque alpha to a CMYK TIFF


def test_the_first_of_many_pages_is_decoded():
    pages = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = saved(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert (decode_picture(data) == (0, 0, 255)).all()


@pytest.mark.parametrize(
    "data", [b"", b"\x89PNG\r\n\x1a\n", b"II*\0", b"\xff\xd8", b"x"]
)
def test_invalid_pictures_are_refused_with_a_reason(data):
    with pytest.raises(UnreadableImage):
        decode_picture(data)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_orientation_does_not_lose_the_picture():
    data = saved(
        pillow_alpha(with_alpha()), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff"
    )
    assert np.array_equal(decode_picture(data)[..., :3], scene())


# Damaged --------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"hello", b"<!DOCTYPE html><p>404</p>", b"\0" * 999])
def test_invalid_images_are_refused_with_a_reason(data):
    with pytest.raises(UnreadableImage, match="not an image"):
        decode_image(data)


def test_an_empty_file_is_refused_as_empty():
    with pytest.raises(UnreadableImage, match=r"^empty file$"):
        decode_image(b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.9])
def test_a_truncated_file_is_refused(kind, share):
    data = noise(kind)
    assert decode_image(data).shape == (64, 64, 3)
    with pytest.raises(UnreadableImage, match="damaged"):
        decode_image(data[: int(share * len(data))])


def test_files_over_the_size_limit_are_refused(monkeypatch):
    data = png()
    monkeypatch.setattr(images, "MAX_FILE_BYTES", len(data))
    assert decode_image(data).shape == (6, 6, 3)
    monkeypatch.setattr(images, "MAX_FILE_BYTES", len(data) - 1)
    with pytest.raises(UnreadableImage, match="larger than"):
        decode_image(data)


@pytest.mark.parametrize(
    "first", ["import helpers.data.images", "import cv2"], ids=["helpers", "cv2"]
)
def test_a_decompression_bomb_is_refused_whichever_import_comes_first(tmp_path, first):
    bomb = tmp_path / "bomb.png"
    wide, high = 2**20, 129  # 135 megapixels, just over the limit
    bomb.write_bytes(saved(Image.new("1", (wide, high)), "PNG"))
    script = (
        f"{first}\nimport sys\nfrom helpers.data.images import read_image\n"
        "from helpers.files import InputError\n"
        "try:\n    read_image(sys.argv[1])\n"
        "except InputError as error:\n    print('refused', error)"
    )
    clean = {k: v for k, v in os.environ.items() if not k.startswith("OPENCV_")}
    done = subprocess.run(
        [sys.executable, "-c", script, str(bomb)],
        capture_output=True,
        text=True,
        env=clean,
        timeout=60,
    )
    assert done.stdout.startswith(f"refused {bomb}: "), done.stdout + done.stderr


def test_read_image_names_the_file_and_the_reason(tmp_path):
    path = tmp_path / "letter.jpg"
    path.write_text("Dear Sir")
    with pytest.raises(InputError) as caught:
        read_image(path)
    assert_one_line_about(caught.value, path, "not an image")


def test_a_missing_file_and_a_folder_named_like_a_jpeg_are_input_errors(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    for name in ("absent.jpg", "folder.jpg"):
        with pytest.raises(InputError) as caught:
            read_image(tmp_path / name)
        assert_one_line_about(caught.value, tmp_path / name, "cannot read")


def test_write_image_and_read_image_are_inverse(tmp_path):
    for name in ("a.png", "b.bmp", "no_suffix"):
        write_image(tmp_path / "new" / name, scene())
        assert_scene(read_image(tmp_path / "new" / name), 0)
    assert (tmp_path / "new" / "no_suffix").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["a.xyz", "a.jp2"])  # scene() is too small for JP2
def test_an_unsupported_format_is_an_input_error(tmp_path, name):
    with pytest.raises(InputError, match="cannot write this format") as caught:
        write_image(tmp_path / name, scene())
    assert_one_line_about(caught.value, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


# To a square ----------------------------------------------------------------------


def column_numbers(height: int, width: int) -> np.ndarray:
    row = np.arange(width, dtype=np.uint8)
    return np.broadcast_to(row[None, :, None], (height, width, 3)).copy()


@pytest.mark.parametrize(("width", "first"), [(8, 0), (12, 2), (13, 2), (20, 6)])
def test_to_square_crops_the_center(width, first):
    square = to_square(column_numbers(8, width), 8)
    assert square[0, :, 0].tolist() == list(range(first, first + 8))
    tall = to_square(column_numbers(8, width).transpose(1, 0, 2).copy(), 8)
    assert tall[:, 0, 0].tolist() == list(range(first, first + 8))


def test_to_square_averages_areas_when_it_shrinks():
    image = np.zeros((16, 16, 3), np.uint8)
    image[::4] = 200  # one-pixel stripes, which sampling would miss
    assert (to_square(image, 4) == 50).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (5, 3), (300, 200)])
def test_to_square_returns_the_size_and_keeps_a_uniform_color(shape):
    square = to_square(np.full((*shape, 3), (10, 20, 30), np.uint8), 128)
    assert square.shape == (128, 128, 3)
    assert square.dtype == np.uint8
    assert (square == (10, 20, 30)).all()


# Folders --------------------------------------------------------------------------


def test_a_folder_gives_its_images_at_any_depth_sorted(tmp_path):
    for name in ("b.png", "a/z.JPG", "a/deep/er/c.webp", "a/notes.txt", "Thumbs.db"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())
    source = FolderSource(tmp_path)
    assert source.names == ["a/deep/er/c.webp", "a/z.JPG", "b.png"]
    assert decode_image(source.read("a/z.JPG")).shape == (6, 6, 3)


def test_hidden_files_and_folders_and_macosx_are_skipped(tmp_path):
    for name in (".a.png", "._b.png", ".git/c.png", "__MACOSX/d.png", "e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(png())
    source = FolderSource(tmp_path)
    assert source.names == ["e.png"]


@pytest.mark.timeout(20)
def test_a_symlink_loop_ends_and_gives_each_file_once(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(png())
    (tmp_path / "in" / "up").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "in" / "self").symlink_to(tmp_path / "in", target_is_directory=True)
    assert FolderSource(tmp_path).names == ["in/a.png"]


def test_a_folder_with_two_names_is_listed_under_the_first_in_order(tmp_path):
    expected = []
    for i in range(6):  # created in both orders: the order on disk must not matter
        names = [f"{i}_a", f"{i}_b"][:: -1 if i % 2 else 1]
        (tmp_path / names[0]).mkdir()
        (tmp_path / names[0] / "x.png").write_bytes(png())
        (tmp_path / names[1]).symlink_to(names[0], target_is_directory=True)
        expected.append(f"{i}_a/x.png")
    assert FolderSource(tmp_path).names == expected


def test_a_file_with_two_names_is_listed_once(tmp_path):
    (tmp_path / "a.png").write_bytes(png())
    (tmp_path / "b.png").symlink_to("a.png")
    assert FolderSource(tmp_path).names == ["a.png"]


ODD_NAMES = [
    "two words.png",
    "Zoë Ångström.png",
    'it\'s "quoted".png',
    "new\nline.png",
    "<b>&amp;.png",
    "$(rm -r x);`ls`.png",
    "-o.png",
    "n" * 200 + ".png",
]


def test_odd_names_in_a_folder_work(tmp_path):
    for name in ODD_NAMES:
        (tmp_path / name).write_bytes(png())
    source = FolderSource(tmp_path)
    assert source.names == sorted(ODD_NAMES)
    for name in source.names:
        assert (decode_image(source.read(name)) == 100).all()


def test_a_dangling_link_and_a_vanished_file_are_unreadable(tmp_path):
    (tmp_path / "link.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "gone.png").write_bytes(png())
    source = FolderSource(tmp_path)
    assert source.names == ["gone.png", "link.png"]
    (tmp_path / "gone.png").unlink()
    for name in source.names:
        with pytest.raises(UnreadableImage, match="cannot read"):
            source.read(name)


@pytest.mark.timeout(3)
def test_a_named_pipe_is_refused_and_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    source = FolderSource(tmp_path)
    for name in source.names:
        with pytest.raises(UnreadableImage):
            source.read(name)
    assert len(source.names) <= 1


# Zips -----------------------------------------------------------------------------


def test_a_zip_gives_its_images_sorted(tmp_path):
    members = {"b.png": png(1), "top/a.JPG": png(2), "top/notes.txt": b"x"}
    source = ZipSource(write_zip(tmp_path / "a.zip", members | {"in.zip": b"PK"}))
    assert source.names == ["b.png", "top/a.JPG"]
    assert (decode_image(source.read("top/a.JPG")) == 2).all()
    assert source.refused == [
        ("in.zip", "a zip in the zip; unzip it, and pass the folder")
    ]


def test_a_zip_that_contains_only_a_zip_says_so(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"photos.zip": b"PK"})
    with pytest.raises(InputError) as caught:
        open_source(path)
    assert_one_line_about(caught.value, path, "'photos.zip': a zip in the zip", "unzip")


def test_odd_names_in_a_zip_work(tmp_path):
    members = {name: png(i) for i, name in enumerate(ODD_NAMES)}
    source = ZipSource(write_zip(tmp_path / "a.zip", members))
    assert source.names == sorted(ODD_NAMES)
    for i, name in enumerate(ODD_NAMES):
        assert (decode_image(source.read(name)) == i).all()


def test_members_outside_the_archive_are_refused_and_listed(tmp_path):
    unsafe = ["../x.png", "a/../../y.png", "/abs.png", "C:z.png", "C:\\w.png"]
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in [*unsafe, "good.png"]:
            archive.writestr(name, png())
        archive.writestr(link, "/etc/passwd")
    source = ZipSource(path)
    assert source.names == ["good.png"]
    assert {name for name, _ in source.refused} == {*unsafe, "link.png"}
    reasons = dict(source.refused)
    assert reasons["../x.png"] == reasons["C:z.png"] == "points outside the archive"
    assert reasons["link.png"] == "a symbolic link"


def test_resource_forks_and_hidden_members_are_ignored(tmp_path):
    members = {"__MACOSX/._a.png": b"x", "a/.b.png": b"x", ".c/d.png": b"x"}
    source = ZipSource(write_zip(tmp_path / "a.zip", members | {"a.png": png()}))
    assert source.names == ["a.png"]
    assert source.refused == []


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_members_are_listed_once_and_case_matters(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": png(1), "A.png": png(2)})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("a.png", png(3))
    source = ZipSource(path)
    assert source.names == ["A.png", "a.png"]
    assert (decode_image(source.read("A.png")) == 2).all()
    assert (decode_image(source.read("a.png")) == 1).all()
    assert source.refused == [("a.png", "a second file of this name")]


def test_reading_a_zip_writes_nothing_to_disk(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", {"d/a.png": png(), "../b.png": png()})
    before = path.read_bytes()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    source = open_source(path)
    assert (decode_image(source.read("d/a.png")) == 100).all()
    assert [p.name for p in tmp_path.rglob("*")] == ["a.zip"]
    assert path.read_bytes() == before


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_a_truncated_zip_is_an_input_error_and_the_complete_one_works(tmp_path, share):
    path = write_zip(tmp_path / "a.zip", {f"{i}.png": png(i) for i in range(9)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(InputError) as caught:
        open_source(path)
    assert_one_line_about(caught.value, path, "not a complete zip", "again")
    path.write_bytes(whole)
    assert len(open_source(path).names) == 9


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", b"\x1f\x8b tar" * 99])
def test_an_invalid_zip_is_an_input_error(tmp_path, data):
    path = tmp_path / "face_images.zip"
    path.write_bytes(data)
    with pytest.raises(InputError) as caught:
        open_source(path)
    assert_one_line_about(caught.value, path, "not a complete zip")


def test_one_flipped_bit_anywhere_in_a_zip_never_gives_a_traceback(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"é.png": png(5, 2), "b.png": png(6, 2)})
    whole = path.read_bytes()
    surprises, outcomes = [], set()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            source = open_source(path)
            for name in source.names:
                outcomes.add(int(decode_image(source.read(name)).max()))
        except UnreadableImage:
            outcomes.add("unreadable")
        except InputError:
            outcomes.add("refused")
        except Exception as error:
            surprises.append((position, repr(error)[:60]))
    assert outcomes == {5, 6, "unreadable", "refused"}
    assert surprises == []


def test_a_member_with_a_wrong_checksum_is_unreadable_and_the_others_are_read(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": png(1), "b.png": png(2)})
    data = bytearray(path.read_bytes())
    data[data.find(b"IDAT") + 6] ^= 0xFF
    path.write_bytes(data)
    source = ZipSource(path)
    with pytest.raises(UnreadableImage, match="damaged in the zip"):
        source.read("a.png")
    assert (decode_image(source.read("b.png")) == 2).all()


def test_an_encrypted_member_is_unreadable(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": png()})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the encryption flag, in the member's header and in the directory
    data[data.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match="encrypted"):
        ZipSource(path).read("a.png")


def test_a_member_that_lies_about_its_size_is_unreadable(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", png() + b"\0" * 1_000_000)
    data = bytearray(path.read_bytes())
    data[22:26] = struct.pack("<I", 10)
    where = data.find(b"PK\x01\x02") + 24
    data[where : where + 4] = struct.pack("<I", 10)
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match="damaged in the zip"):
        ZipSource(path).read("a.png")


def test_too_many_members_are_refused_and_the_limit_named(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", {f"{i}.png": png() for i in range(4)})
    monkeypatch.setattr(images, "MAX_ARCHIVE_MEMBERS", 4)
    assert len(ZipSource(path).names) == 4
    monkeypatch.setattr(images, "MAX_ARCHIVE_MEMBERS", 3)
    with pytest.raises(InputError) as caught:
        ZipSource(path)
    assert_one_line_about(caught.value, path, "4 members, more than 3", "unzip")


def test_too_many_bytes_inside_are_refused(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "a.zip", {"a.png": b"x" * 600, "b.png": b"x" * 600})
    monkeypatch.setattr(images, "MAX_ARCHIVE_BYTES", 1200)
    assert len(ZipSource(path).names) == 2
    monkeypatch.setattr(images, "MAX_ARCHIVE_BYTES", 1199)
    with pytest.raises(InputError) as caught:
        ZipSource(path)
    assert_one_line_about(caught.value, path, "GiB of images", "unzip")


def test_one_member_over_the_size_limit_is_refused_and_the_others_stay(
    tmp_path, monkeypatch
):
    path = write_zip(tmp_path / "a.zip", {"big.png": b"x" * 2000, "b.png": png()})
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 1999)
    source = ZipSource(path)
    assert source.names == ["b.png"]
    assert [name for name, _ in source.refused] == ["big.png"]
    assert "larger than" in source.refused[0][1]


# Either ---------------------------------------------------------------------------


def test_a_missing_path_is_an_input_error_that_says_what_to_do(tmp_path):
    with pytest.raises(InputError) as caught:
        open_source(tmp_path / "absent")
    assert_one_line_about(
        caught.value, tmp_path / "absent", "no such folder or zip", "check"
    )


@pytest.mark.parametrize("name", ["folder", "a.zip"])
def test_a_source_without_images_is_an_input_error(tmp_path, name):
    if name == "folder":
        (tmp_path / name).mkdir()
        (tmp_path / name / "notes.txt").write_text("x")
    else:
        write_zip(tmp_path / name, {"notes.txt": b"x", "folder.jpg/": b""})
    with pytest.raises(InputError) as caught:
        open_source(tmp_path / name)
    assert_one_line_about(caught.value, tmp_path / name, "contains no images", "add")


def test_a_folder_named_like_a_jpeg_is_a_folder(tmp_path):
    (tmp_path / "x.jpg").mkdir()
    (tmp_path / "x.jpg" / "inner.png").write_bytes(png())
    source = open_source(tmp_path)
    assert source.names == ["x.jpg/inner.png"]
    assert (decode_image(source.read("x.jpg/inner.png")) == 100).all()


def test_a_path_may_start_with_the_home_folder(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(png())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert open_source(Path("~")).names == ["a.png"]


def test_reading_gives_no_warnings(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"a.png": png()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (decode_image(open_source(path).read("a.png")) == 100).all()
