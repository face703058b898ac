"""Reasons to refuse an image file: found in its header, or while it is decoded."""

import io
import os
import re
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable

import numpy as np
from PIL import Image

from helpers import MAX_PIXELS

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
HEIC_STARTS = re.compile(rb"....ftyp(?:hei[cxms]|hev[cxms])", re.DOTALL)
HEIC = "HEIC, which OpenCV cannot read; save it as JPEG"
TOO_DEEP = "signed or more than 16 bits per sample; save it with 8 or 16 unsigned bits"
IMAGE_STARTS = re.compile(  # of every format that OpenCV reads
    rb"\xff\xd8|\x89PNG|GIF8|BM|RIFF|II[*+]\0|MM\0[*+]|P[1-7]|\x59\xa6\x6a\x95"
    rb"|\0\0\0.ftyp|\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    re.DOTALL,
)
HARMLESS = 16  # unused bytes at the end of a JPEG, which some cameras write
_stderr_lock = threading.Lock()


def why_header_is_bad(data: bytes) -> str:
    """Return why an image must not be decoded, or "".

    OpenCV allocates what a header asks for, and reads its own limit on the number of pixels
    only if nothing imported it before this package.
    """
    if data.startswith(PNG_START) and (reason := _bad_chunk(data)):
        return reason
    if HEIC_STARTS.match(data):
        return HEIC
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                (width, height), mode = image.size, image.mode
    except Image.DecompressionBombError:
        return f"more than {MAX_PIXELS // 10**6} megapixels"
    except Exception:  # Pillow does not know the format; OpenCV may
        return ""
    if width * height > MAX_PIXELS:
        return f"more than {MAX_PIXELS // 10**6} megapixels"
    return TOO_DEEP if mode in ("F", "I") and data.startswith(TIFF_STARTS) else ""


def _bad_chunk(data: bytes) -> str:
    """Check that each chunk of a PNG ends inside of the file."""
    place = len(PNG_START)
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        kind = data[place + 4 : place + 8]
        place += length + 12  # length, kind, content, checksum
        if place > len(data):
            return "damaged: a part of the PNG is longer than the file"
        if kind == b"IEND":
            return ""
    return "damaged: the end of the PNG is missing"


def decode_checked(decode: Callable, data: bytes) -> tuple[np.ndarray | None, str]:
    """Call `decode`; return its image, and why it is damaged or "".

    A damaged JPEG is decoded to a picture with wrong colors. libjpeg reports that only on
    stderr, from where it is read.
    """
    if not data.startswith(JPEG_START) or sys.stderr is None:
        return decode(), ""
    image, text = _with_messages(decode)
    for line in text.splitlines():
        found = re.search(r"Corrupt JPEG data: (?:(\d+) extraneous bytes)?.*", line)
        if found and (not found[1] or int(found[1]) > HARMLESS):
            return image, f"damaged JPEG ({line.partition(': ')[2] or line})"
        if "Premature end of JPEG" in line:
            return image, "damaged JPEG (it ends too early)"
    return image, ""


def _with_messages(decode: Callable) -> tuple[np.ndarray | None, str]:
    """Call `decode`, and return what it returns and what it writes to stderr."""
    with _stderr_lock, tempfile.TemporaryFile() as scratch:
        sys.stderr.flush()
        kept = os.dup(2)
        os.dup2(scratch.fileno(), 2)
        try:
            image = decode()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        scratch.seek(0)
        return image, scratch.read().decode(errors="replace")


def why_too_dark(image: np.ndarray) -> str:
    """Return why a 16-bit image seems to hold fewer bits, or ""."""
    if image.dtype != np.uint16 or not 0 < (largest := int(image.max())) < 4096:
        return ""
    return (
        f"16 bits, but no value above {largest} of 65535: it seems to hold 12 bits or "
        "fewer; multiply its values by 16, or save it with 8 bits"
    )
