"""Find the photographs that a user names, read them, and choose the output paths."""

import glob
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from helpers.data.images import PatternSource, UnreadableImage, open_source
from helpers.files import InputError, WorkFailed


@dataclass(frozen=True)
class Photograph:
    """A photograph that has not been read yet.

    name   path relative to the input folder, archive or pattern; for a file, its name
    place  the file, or the archive and its member, for messages
    read   read() returns image_bgr, or raises an InputError that names the place
    """

    name: str
    place: Path
    read: Callable[[], np.ndarray]


def find_photographs(
    inputs: Sequence[str], decode: Callable[[bytes], np.ndarray]
) -> list[Photograph]:
    """Find the photographs in files, folders, zips and patterns such as scans/*.jpg.

    `decode` converts a file's bytes to an image. Raises InputError if an input does not
    exist or contains no image.
    """
    found = []
    for given in inputs:
        path = Path(given)
        try:
            is_file, exists = path.is_file(), path.exists()
        except OSError as error:  # the name is too long
            raise InputError(f"{given}: {error.strerror}") from error
        if is_file and path.suffix.lower() != ".zip":
            read = partial(_read, path, path.read_bytes, decode)
            found.append(Photograph(path.name, path, read))
            continue
        if exists:
            source = open_source(path)
        elif glob.has_magic(given):
            source = PatternSource(given)
        else:
            raise InputError(f"{given}: no such file, folder or zip; check the path")
        for name in source.names:
            place = source.path / name
            read = partial(_read, place, partial(source.read, name), decode)
            found.append(Photograph(name, place, read))
        for name, reason in source.refused:
            place = source.path / name
            found.append(Photograph(name, place, partial(_refused, place, reason)))
    return found


def targets(
    photographs: Sequence[Photograph], folder: Path, force: bool, compare: bool
) -> list[Path]:
    """Return the PNG path in `folder` for each photograph; none is written.

    With `compare`, the paths from `comparison` are also checked. Raises InputError if two
    photographs have the same path or, without `force`, if a file already exists.
    """
    taken, paths = {}, []
    one_file = ignores_case(folder)
    for photograph in photographs:
        path = folder / Path(photograph.name).with_suffix(".png")
        paths.append(path)
        for file in (path, comparison(path)) if compare else (path,):
            key = str(file).casefold() if one_file else str(file)
            if key in taken:
                raise InputError(
                    f"{taken[key]} and {photograph.place}: both would become {file}; "
                    "rename one or use another output folder for it"
                )
            if os.path.lexists(file) and not force:
                raise InputError(
                    f"{file}: already exists; use --force or another folder"
                )
            taken[key] = photograph.place
    return paths


def ignores_case(folder: Path) -> bool:
    """Return whether A.png and a.png are one file in `folder`, which may not exist yet.

    Raises InputError if nothing can be written there.
    """
    existing = folder
    try:
        while not existing.exists() and existing != existing.parent:
            existing = existing.parent
        with tempfile.NamedTemporaryFile(prefix="case_", dir=existing) as file:
            path = Path(file.name)
            return path.with_name(path.name.upper()).exists()
    except OSError as error:
        raise InputError(
            f"{folder}: cannot write here ({error.strerror}); choose another folder"
        ) from error


def comparison(path: Path) -> Path:
    """Return the path of the side-by-side image for the path of a colorized photograph."""
    return path.with_suffix(".compare.png")


def check_all_read(errors: Sequence[str], total: int) -> None:
    """Raise an error that lists the unreadable photographs, if any.

    Raises InputError if no photograph could be read, otherwise WorkFailed.
    """
    if not errors:
        return
    broken = f"replace or remove: {'; '.join(errors)}"
    if len(errors) == total:
        raise InputError(f"no photograph can be read; {broken}")
    raise WorkFailed(
        f"{len(errors)} of {total} photographs cannot be read; the others are done; "
        f"{broken}"
    )


def _refused(place: Path, reason: str) -> np.ndarray:
    raise InputError(f"{place}: {reason}")


def _read(place: Path, read: Callable, decode: Callable) -> np.ndarray:
    try:
        return decode(read())
    except OSError as error:
        raise InputError(f"{place}: cannot read ({error.strerror})") from error
    except UnreadableImage as error:
        raise InputError(f"{place}: {error}") from error
