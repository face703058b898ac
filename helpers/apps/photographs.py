"""The photographs that a user names: where they lie, how one is read, where it goes."""

import glob
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from helpers.data.images import PatternSource, UnreadableImage, open_source
from helpers.files import InputError, WorkFailed

IGNORES_CASE = sys.platform in ("darwin", "win32")  # A.png and a.png are one file there


@dataclass(frozen=True)
class Photograph:
    """A photograph that is not read yet.

    name   of its picture in the output, with the folders below the one that was named
    place  the file, or the archive and the member in it, for messages
    read   read() returns its image_bgr, or raises InputError that names the place
    """

    name: str
    place: Path
    read: Callable[[], np.ndarray]


def find_photographs(
    inputs: Sequence[str], decode: Callable[[bytes], np.ndarray]
) -> list[Photograph]:
    """The photographs that files, folders, zips and patterns such as a/*.jpg stand for.

    `decode` makes an image of a file's bytes. Raises InputError for what is not there.
    """
    found = []
    for given in inputs:
        path = Path(given)
        if path.is_file() and path.suffix.lower() != ".zip":
            read = partial(_read, path, path.read_bytes, decode)
            found.append(Photograph(path.name, path, read))
            continue
        if path.exists():
            source = open_source(path)
        elif glob.has_magic(given):
            source = PatternSource(given)
        else:
            raise InputError(f"{given}: no such file, folder or zip; check the name")
        for name in source.names:
            place = source.path / name
            read = partial(_read, place, partial(source.read, name), decode)
            found.append(Photograph(name, place, read))
    return found


def targets(
    photographs: Sequence[Photograph], folder: Path, force: bool, compare: bool
) -> list[Path]:
    """The PNG in `folder` that each photograph becomes; nothing is written yet.

    Raises InputError where two would become one file, and, without `force`, where a file
    is in the way; with `compare` the one beside it (`comparison`) counts too.
    """
    taken, paths = {}, []
    for photograph in photographs:
        stem = Path(photograph.name).with_suffix("").as_posix()
        paths.append(folder / f"{stem}.png")
        for path in (paths[-1], comparison(paths[-1]))[: 2 if compare else 1]:
            key = str(path).casefold() if IGNORES_CASE else str(path)
            if key in taken:
                raise InputError(
                    f"{taken[key]} and {photograph.place}: both would become {path}; "
                    "rename one or color it into another folder"
                )
            if os.path.lexists(path) and not force:
                raise InputError(
                    f"{path}: already there; use --force or another folder"
                )
            taken[key] = photograph.place
    return paths


def comparison(path: Path) -> Path:
    """Where grayscale and colored go side by side: beside the colored photograph."""
    return path.with_suffix(".compare.png")


def check_all_read(errors: Sequence[str], total: int) -> None:
    """Raise WorkFailed that names the photographs which could not be read, if any.

    Raises InputError where that is all of them: then nothing was done.
    """
    if not errors:
        return
    broken = f"replace or remove: {'; '.join(errors)}"
    if len(errors) == total:
        raise InputError(f"no photograph can be read; {broken}")
    raise WorkFailed(
        f"{len(errors)} of {total} photographs cannot be read, the others are done; "
        f"{broken}"
    )


def _read(place: Path, read: Callable, decode: Callable) -> np.ndarray:
    try:
        return decode(read())
    except OSError as error:
        raise InputError(f"{place}: cannot read ({error.strerror})") from error
    except UnreadableImage as error:
        raise InputError(f"{place}: {error}") from error
