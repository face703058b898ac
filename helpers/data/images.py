"""Read image files as upright BGR arrays, or raise an error that gives the reason."""

import glob
import io
import os
import zipfile
from functools import partial
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image

from helpers.data.image_checks import (
    IMAGE_STARTS,
    JPEG_START,
    PNG_START,
    TIFF_STARTS,
    TOO_DEEP,
    decode_checked,
    why_header_is_bad,
    why_too_dark,
)
from helpers.files import InputError, user_path, write_atomic

# A file that OpenCV cannot decode is refused by name; its log would only repeat that.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

IMAGE_SUFFIXES = {
    *(".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".ras", ".sr", ".tif", ".tiff", ".webp"),
    *(".heic", ".heif"),  # refused by name: OpenCV cannot read them
}
EXIF_ORIENTATION = 0x0112
TIFF_EXTRA_SAMPLES, UNASSOCIATED_ALPHA = 0x0152, 2
MAX_FILE_BYTES = 256 * 2**20
MAX_ARCHIVE_BYTES = 4 * 2**30
MAX_ARCHIVE_MEMBERS = 100_000


class UnreadableImage(InputError):
    """An image that cannot be read; the message is the reason, without the file name."""


def decode_image(data: bytes) -> np.ndarray:
    """Decode an image file to image_bgr (H, W, 3) uint8, upright.

    OpenCV applies the EXIF orientation, replicates gray to three channels, drops alpha
    (after multiplying a TIFF's colors by it) and keeps the upper 8 of 16 bits.
    Raises UnreadableImage.
    """
    if data.startswith((PNG_START, *TIFF_STARTS)):
        deep = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
        if deep.dtype == np.uint8:
            return deep
    return _decode(data, cv2.IMREAD_COLOR)


def decode_picture(data: bytes) -> np.ndarray:
    """Decode an image file, upright, keeping its alpha and 16-bit depth.

    Returns image_bgr (H, W, 3), or (H, W, 4) with alpha; uint16 for a 16-bit PNG or TIFF,
    otherwise uint8. Only the first page or frame is decoded. A gray TIFF loses its alpha.
    Raises UnreadableImage.
    """
    is_tiff = data.startswith(TIFF_STARTS)
    keeps_16_bits = is_tiff or data.startswith(PNG_START)
    depth = cv2.IMREAD_ANYDEPTH if keeps_16_bits else 0
    image_bgr = _decode(data, cv2.IMREAD_COLOR | depth)
    if data.startswith(JPEG_START):  # JPEG has no alpha
        return image_bgr
    is_deep = image_bgr.dtype == np.uint16
    if is_tiff and is_deep and _is_negative(image_bgr, _decode(data, cv2.IMREAD_COLOR)):
        image_bgr = ~image_bgr
    stored = _decode(data, cv2.IMREAD_UNCHANGED)
    if stored.dtype != image_bgr.dtype or stored.shape[2:] != (4,):
        return image_bgr
    alpha = stored[:, :, 3]
    if data.startswith(PNG_START) or data[8:12] == b"WEBP":
        alpha = _to_upright(alpha, data)  # OpenCV rotates the others
    if alpha.shape != image_bgr.shape[:2]:  # the orientation tag is damaged
        return image_bgr
    if is_tiff and not is_deep and _tag(data, TIFF_EXTRA_SAMPLES) == UNASSOCIATED_ALPHA:
        # OpenCV has multiplied the colors by alpha.
        colors = image_bgr * (255 / np.maximum(alpha, 1))[:, :, None]
        image_bgr = colors.round().clip(0, 255).astype(np.uint8)
    return np.dstack([image_bgr, alpha])


def _is_negative(deep: np.ndarray, upper: np.ndarray) -> bool:
    """Check 16 bits against their upper 8 bits.

    Only for the latter, OpenCV obeys the tag of a TIFF that counts from white.
    """
    found, upper = (deep[::8, ::8] >> 8).astype(np.uint8), upper[::8, ::8]
    return cv2.absdiff(found, upper).sum() > cv2.absdiff(~found, upper).sum()


def _decode(data: bytes, flags: int) -> np.ndarray:
    if not data:
        raise UnreadableImage("empty file")
    if len(data) > MAX_FILE_BYTES:
        raise UnreadableImage(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
    if reason := why_header_is_bad(data):
        raise UnreadableImage(reason)
    decode = partial(cv2.imdecode, np.frombuffer(data, np.uint8), flags)
    try:
        image, reason = decode_checked(decode, data)
    except cv2.error as error:
        raise UnreadableImage(f"OpenCV cannot decode it ({error.err})") from error
    if image is None:
        raise UnreadableImage("not an image that OpenCV can decode, or damaged")
    if image.dtype not in (np.uint8, np.uint16):
        raise UnreadableImage(TOO_DEEP)
    if data[4:8] == b"ftyp":  # OpenCV does not rotate AVIF
        image = _to_upright(image, data)
    if data.startswith((PNG_START, *TIFF_STARTS)):
        reason = why_too_dark(image)
    if reason:
        raise UnreadableImage(reason)
    return image


def _to_upright(array: np.ndarray, data: bytes) -> np.ndarray:
    """Rotate an array (H, W, ...) upright according to the EXIF orientation of its file."""
    orientation = _tag(data, EXIF_ORIENTATION)
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _tag(data: bytes, number: int) -> int | None:
    """Return an EXIF or TIFF tag of an image file; None without it."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.getexif().get(number)
    except Exception:  # a damaged tag can raise nearly anything
        return None


def read_image(path: Path) -> np.ndarray:
    """Read one image file as image_bgr (H, W, 3) uint8, upright; raises InputError."""
    try:
        return decode_image(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot read ({error.strerror})") from error
    except UnreadableImage as error:
        raise InputError(f"{path}: {error}") from error


def write_image(path: Path, image_bgr: np.ndarray) -> None:
    """Write image_bgr atomically, in the format given by the suffix.

    image_bgr is (H, W, 3) uint8; for a PNG, also (H, W, 4) with alpha, or uint16.
    """
    try:
        is_encoded, data = cv2.imencode(Path(path).suffix or ".png", image_bgr)
    except cv2.error:
        is_encoded = False
    if not is_encoded:
        raise InputError(f"{path}: OpenCV cannot write this format; use .png or .jpg")
    write_atomic(path, data.tobytes())


def to_square(image_bgr: np.ndarray, size: int) -> np.ndarray:
    """Crop the center square of (H, W, 3) uint8 BGR and resize it to size x size.

    Downsampling averages areas (INTER_AREA) to avoid aliasing; upsampling is cubic.
    """
    height, width = image_bgr.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image_bgr[top : top + side, left : left + side]
    if side == size:
        return square
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_CUBIC
    return cv2.resize(square, (size, size), interpolation=interpolation)


class FolderSource:
    """The image files in a folder and its subfolders.

    `names` are sorted POSIX paths relative to the folder. Each file is listed only once,
    even if links point to it. Hidden files and folders are skipped. `refused` lists (name,
    reason) for subfolders that cannot be read; InputError if that is the folder itself.
    """

    def __init__(self, folder: Path):
        self.path, self.refused = Path(folder), []
        names_of, visited = {}, set()
        walk = os.walk(self.path, followlinks=True, onerror=self._refuse)
        for parent, folders, files in walk:
            real = os.path.realpath(parent)
            if real in visited:  # reached before, through a link
                folders.clear()
                continue
            visited.add(real)
            folders[:] = sorted(filter(is_visible, folders))
            for file in filter(_is_image, files):
                path = Path(parent, file)
                name = path.relative_to(self.path).as_posix()
                names_of.setdefault(os.path.realpath(path), []).append(name)
        self.names = sorted(map(min, names_of.values()))

    def _refuse(self, error: OSError) -> None:
        if isinstance(error, FileNotFoundError):  # there is nothing to read
            return
        name = os.path.relpath(error.filename, self.path)
        if name == ".":
            raise InputError(f"{self.path}: cannot read ({error.strerror})") from error
        self.refused.append((f"{name}/", f"cannot read ({error.strerror})"))

    def read(self, name: str) -> bytes:
        """Return the bytes of one file; raises UnreadableImage."""
        path = self.path / name
        if path.exists() and not path.is_file():  # reading a pipe would block
            raise UnreadableImage("not a regular file")
        try:
            with path.open("rb") as file:
                return _read_image(file)
        except OSError as error:
            raise UnreadableImage(f"cannot read ({error.strerror})") from error


class PatternSource(FolderSource):
    """The image files that match a pattern such as scans/*.jpg or scans/**/*.png.

    `path` is the folder before the first wildcard; `names` are sorted POSIX paths
    relative to it. Hidden files and folders are skipped. Raises InputError if no image
    matches.
    """

    def __init__(self, pattern: str):
        parts = user_path(pattern).parts
        fixed = list(takewhile(lambda part: not glob.has_magic(part), parts))
        self.path, self.refused = Path(*fixed), []
        wildcards = str(Path(*parts[len(fixed) :]))
        found = map(Path, glob.glob(wildcards, root_dir=self.path, recursive=True))
        images = [x for x in found if x.suffix.lower() in IMAGE_SUFFIXES]
        self.names = sorted({x.as_posix() for x in images if (self.path / x).is_file()})
        if not self.names:
            raise InputError(f"{pattern}: matches no images; check the pattern")


class ZipSource:
    """The image files in a zip, which are read directly, without extracting them.

    `names` are sorted. `refused` lists (name, reason) for members that are too large, are
    symbolic links or zips, have an unsafe path (absolute, `..`, a drive letter) or the name
    of a member before them. Raises InputError if the zip is incomplete or exceeds the
    limits above.
    """

    def __init__(self, path: Path):
        self.path, self.refused = Path(path), []
        try:
            self.archive = zipfile.ZipFile(self.path)
        except Exception as error:  # a flipped bit can raise nearly anything
            raise InputError(
                f"{path}: not a complete zip ({error}); download or copy it again"
            ) from error
        members = [m for m in self.archive.infolist() if m.filename]  # "" breaks is_dir
        members = [m for m in members if not m.is_dir()]
        self.members: dict[str, zipfile.ZipInfo] = {}  # the images
        for member in members:
            name = member.filename
            if not (_is_image(name) or _is_zip(name)):
                continue
            reason = "a second file of this name" if name in self.members else ""
            if reason := reason or _why_refused(member):
                self.refused.append((name, reason))
            else:
                self.members[name] = member
        excess = ""
        if len(members) > MAX_ARCHIVE_MEMBERS:
            excess = f"{len(members)} members, more than {MAX_ARCHIVE_MEMBERS}"
        elif sum(m.file_size for m in self.members.values()) > MAX_ARCHIVE_BYTES:
            excess = f"more than {MAX_ARCHIVE_BYTES // 2**30} GiB of images"
        if excess:
            raise InputError(f"{path}: {excess}; unzip it and pass the folder")
        self.names = sorted(self.members)

    def read(self, name: str) -> bytes:
        """Return the bytes of one member; raises UnreadableImage."""
        try:
            with self.archive.open(self.members[name]) as member:
                return _read_image(member)
        except UnreadableImage:
            raise
        except Exception as error:  # zipfile, zlib, lzma and bz2 raise their own errors
            raise UnreadableImage(f"damaged in the zip ({error})") from error


def open_source(path: Path) -> FolderSource | ZipSource:
    """Open a folder or a zip of images; raises InputError if it contains none."""
    path = user_path(path)
    if path.is_dir():
        source = FolderSource(path)
    elif path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        raise InputError(f"{path}: a single image; give a folder or zip of images")
    elif path.is_file():
        source = ZipSource(path)
    else:
        raise InputError(f"{path}: no such folder or zip; check the path")
    if not source.names:
        why = "".join(f"; {name!r}: {reason}" for name, reason in source.refused[:1])
        raise InputError(f"{path}: contains no images (jpg, png, ...); add some{why}")
    return source


def is_visible(name: str) -> bool:
    """Return False for hidden files and folders and for the __MACOSX folder in a zip."""
    return not name.startswith(".") and name != "__MACOSX"


def _is_image(name: str) -> bool:
    """Check that the suffix is an image's and that no part of the path is hidden."""
    path = PurePosixPath(name)
    is_shown = all(is_visible(part) for part in path.parts if part != "..")
    return is_shown and path.suffix.lower() in IMAGE_SUFFIXES


def _is_zip(name: str) -> bool:
    return name.lower().endswith(".zip") and is_visible(PurePosixPath(name).name)


def _read_image(stream: BinaryIO) -> bytes:
    """Read a file, or only its start if no image format starts so."""
    start = stream.read(16)
    if start and not IMAGE_STARTS.match(start):
        raise UnreadableImage("not an image that OpenCV can decode, or damaged")
    return start + stream.read(MAX_FILE_BYTES + 1)


def _why_refused(member: zipfile.ZipInfo) -> str | None:
    name = member.filename
    if _is_zip(name):
        return "a zip in the zip; unzip it, and pass the folder"
    if name.startswith("/") or ".." in PurePosixPath(name).parts or ":" in name[:2]:
        return "points outside the archive"
    if (member.external_attr >> 16) & 0o170000 == 0o120000:
        return "a symbolic link"
    if member.file_size > MAX_FILE_BYTES:
        return f"larger than {MAX_FILE_BYTES // 2**20} MiB"
    return None
