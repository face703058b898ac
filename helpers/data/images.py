"""One image file or archive member in; checked, upright uint8 BGR out, or a reason."""

import glob
import io
import os
import zipfile
from itertools import takewhile
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from PIL import Image

from helpers.files import InputError, write_atomic

IMAGE_SUFFIXES = {
    *(".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".ras", ".sr", ".tif", ".tiff", ".webp"),
}
JPEG_START, PNG_START = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
EXIF_ORIENTATION = 0x0112
MAX_FILE_BYTES = 256 * 2**20
MAX_ARCHIVE_BYTES = 4 * 2**30
MAX_ARCHIVE_MEMBERS = 100_000


class UnreadableImage(InputError):
    """One image that cannot be read; the message is the reason, without the name."""


def decode_image(data: bytes) -> np.ndarray:
    """Decode the bytes of an image file.

    Returns image_bgr (H, W, 3) uint8, upright: OpenCV applies the EXIF orientation,
    repeats gray to three channels, drops alpha (a TIFF's colors come multiplied by it)
    and keeps the top 8 of 16 bits.
    Raises UnreadableImage with the reason.
    """
    return _decode(data, cv2.IMREAD_COLOR)


def decode_picture(data: bytes) -> np.ndarray:
    """Decode the bytes of an image file with its alpha and with all of 16 bits.

    Returns image_bgr (H, W, 3), or with alpha (H, W, 4), uint8, or uint16 where a PNG or
    TIFF has 16 bits; upright. Other formats come with 8 bits, whatever they hold, and
    of pages or an animation the first picture.
    Raises UnreadableImage with the reason.
    """
    if not data.startswith((PNG_START, *TIFF_STARTS)):
        image_bgr = decode_image(data)
    else:
        image_bgr = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if image_bgr.dtype not in (np.uint8, np.uint16):  # a TIFF of floats
            image_bgr = decode_image(data)
    if data.startswith(JPEG_START):  # it has no alpha
        return image_bgr
    stored = _decode(data, cv2.IMREAD_UNCHANGED)
    if stored.dtype != image_bgr.dtype or stored.ndim != 3 or stored.shape[2] != 4:
        return image_bgr
    alpha = stored[:, :, 3]
    if data.startswith(PNG_START) or data[8:12] == b"WEBP":
        alpha = _turned(alpha, _orientation(data))  # the others' alpha is upright
    is_fitting = alpha.shape == image_bgr.shape[:2]  # not with a damaged orientation
    return np.dstack([image_bgr, alpha]) if is_fitting else image_bgr


def _decode(data: bytes, flags: int) -> np.ndarray:
    """What OpenCV makes of the bytes; raises UnreadableImage with the reason."""
    if not data:
        raise UnreadableImage("empty file")
    if len(data) > MAX_FILE_BYTES:
        raise UnreadableImage(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise UnreadableImage(f"OpenCV refuses it ({error.err})") from error
    if image is None:
        raise UnreadableImage("not an image that OpenCV can decode, or damaged")
    return image


def _orientation(data: bytes) -> int:
    """The EXIF orientation of an image file, 1 to 8; 1, upright, where it has none."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(EXIF_ORIENTATION, 1)
    except Exception:  # a damaged tag can raise nearly anything
        return 1


def _turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """An array (H, W) turned upright from its EXIF orientation."""
    if orientation in (5, 6, 7, 8):
        values = values.T
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def read_image(path: Path) -> np.ndarray:
    """Read one image file as image_bgr (H, W, 3) uint8, upright.

    Raises InputError that names the file and the reason.
    """
    try:
        return decode_image(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot read ({error.strerror})") from error
    except UnreadableImage as error:
        raise InputError(f"{path}: {error}") from error


def write_image(path: Path, image_bgr: np.ndarray) -> None:
    """Write image_bgr in the format of the file's suffix, atomically.

    (H, W, 3) uint8; a PNG keeps alpha (H, W, 4) and uint16 as well.
    """
    try:
        done, data = cv2.imencode(Path(path).suffix or ".png", image_bgr)
    except cv2.error:
        done = False
    if not done:
        raise InputError(f"{path}: OpenCV cannot write this format; use .png or .jpg")
    write_atomic(path, data.tobytes())


def to_square(image_bgr: np.ndarray, size: int) -> np.ndarray:
    """Cut the center square and resize it to size x size.

    Takes and returns (H, W, 3) uint8 BGR. Shrinking averages areas (INTER_AREA), which
    does not alias; enlarging is cubic.
    """
    height, width = image_bgr.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image_bgr[top : top + side, left : left + side]
    if side == size:
        return square
    how = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(square, (size, size), interpolation=how)


class FolderSource:
    """The image files below a folder, at any depth, each once.

    `names` are sorted POSIX paths relative to the folder; `others` counts the files that
    are no images by their suffix. Hidden files and folders are passed over.
    """

    def __init__(self, folder: Path):
        self.path = Path(folder)
        self.others, self.refused = 0, []
        found, seen = {}, set()
        for parent, folders, files in os.walk(self.path, followlinks=True):
            real = os.path.realpath(parent)
            if real in seen:  # a link that leads back
                folders.clear()
                continue
            seen.add(real)
            folders[:] = sorted(filter(is_visible, folders))
            for file in filter(is_visible, files):
                full = Path(parent, file)
                if full.suffix.lower() in IMAGE_SUFFIXES:
                    name = full.relative_to(self.path).as_posix()
                    found.setdefault(os.path.realpath(full), []).append(name)
                else:
                    self.others += 1
        self.names = sorted(map(min, found.values()))

    def read(self, name: str) -> bytes:
        """The bytes of one file; raises UnreadableImage."""
        file = self.path / name
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise UnreadableImage("not a regular file")
        try:
            return file.read_bytes()
        except OSError as error:
            raise UnreadableImage(f"cannot read ({error.strerror})") from error

    def read_text(self, name: str) -> str | None:
        """A text file beside the images, or None when there is none."""
        file = self.path / name
        return decode_text(file, file.read_bytes()) if file.is_file() else None


class PatternSource(FolderSource):
    """The image files that a pattern such as scans/*.jpg or scans/**/*.png names.

    `path` is the folder before the first part with a wildcard; `names` are sorted POSIX
    paths relative to it. Hidden files and folders are passed over. Raises InputError
    when no image is there.
    """

    def __init__(self, pattern: str):
        parts = Path(pattern).expanduser().parts
        plain = list(takewhile(lambda part: not glob.has_magic(part), parts))
        self.path = Path(*plain)
        rest = Path(*parts[len(plain) :])
        found = glob.glob(str(rest), root_dir=self.path, recursive=True)
        files = [Path(file) for file in found if (self.path / file).is_file()]
        images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        self.others, self.refused = len(files) - len(images), []
        self.names = sorted({file.as_posix() for file in images})
        if not self.names:
            raise InputError(
                f"{pattern}: fits no image; check the folder and the pattern"
            )


class ZipSource:
    """The image files inside a zip, read straight from it: nothing is ever unpacked.

    `names` are sorted; members with unsafe names (absolute, `..`, a drive letter) or of
    an excessive size are listed in `refused` as (name, reason). Raises InputError when
    the file is not a complete zip or announces more than the limits above.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        try:
            self.archive = zipfile.ZipFile(self.path)
        except Exception as error:  # a changed bit can raise nearly anything
            raise InputError(
                f"{path}: not a complete zip ({error}); download or copy it again"
            ) from error
        members = [m for m in self.archive.infolist() if not m.is_dir()]
        if len(members) > MAX_ARCHIVE_MEMBERS:
            raise InputError(
                f"{path}: {len(members)} members, more than {MAX_ARCHIVE_MEMBERS}; "
                "unpack it yourself and give the folder"
            )
        self.names, self.others, self.refused = [], 0, []
        images = []
        for member in members:
            parts = PurePosixPath(member.filename).parts
            if not all(is_visible(part) for part in parts if part != ".."):
                continue
            if PurePosixPath(member.filename).suffix.lower() not in IMAGE_SUFFIXES:
                self.others += 1
            elif reason := _why_unsafe(member):
                self.refused.append((member.filename, reason))
            else:
                images.append(member)
        if sum(member.file_size for member in images) > MAX_ARCHIVE_BYTES:
            raise InputError(
                f"{path}: more than {MAX_ARCHIVE_BYTES // 2**30} GiB of images inside; "
                "unpack it yourself and give the folder"
            )
        self.names = sorted({member.filename for member in images})

    def read(self, name: str) -> bytes:
        """The bytes of one member; raises UnreadableImage."""
        try:
            with self.archive.open(name) as member:
                return member.read(MAX_FILE_BYTES + 1)
        except Exception as error:  # zipfile, zlib, lzma and bz2 each raise their own
            raise UnreadableImage(f"damaged in the zip ({error})") from error

    def read_text(self, name: str) -> str | None:
        """A text file with this base name anywhere in the zip, or None."""
        for member in self.archive.namelist():
            if PurePosixPath(member).name == name and "__MACOSX" not in member:
                try:
                    data = self.archive.read(member)
                except Exception as error:  # as in `read`
                    raise InputError(
                        f"{self.path}: {name} is damaged ({error}); pack it again"
                    ) from error
                return decode_text(self.path / name, data)
        return None


def open_source(path: Path) -> FolderSource | ZipSource:
    """Open a folder or a zip of images.

    Raises InputError when there is no such file, it is neither, or it holds no images.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        source = FolderSource(path)
    elif path.is_file():
        source = ZipSource(path)
    else:
        raise InputError(f"{path}: no such folder or zip; put the images there first")
    if not source.names:
        raise InputError(
            f"{path}: holds no images (jpg, png, ...); put some there first"
        )
    return source


def decode_text(path: Path, data: bytes) -> str:
    """The text of a file in UTF-8; raises InputError when it is not."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not in UTF-8; save it as UTF-8") from error


def is_visible(name: str) -> bool:
    """False for hidden files and for what macOS leaves behind."""
    return not name.startswith(".") and name != "__MACOSX"


def _why_unsafe(member: zipfile.ZipInfo) -> str | None:
    name = member.filename
    if name.startswith("/") or ".." in PurePosixPath(name).parts or ":" in name[:2]:
        return "leads out of the archive"
    if (member.external_attr >> 16) & 0o170000 == 0o120000:
        return "a symbolic link"
    if member.file_size > MAX_FILE_BYTES:
        return f"larger than {MAX_FILE_BYTES // 2**20} MiB"
    return None
