"""Find the sitter of each face image: in groups.csv, comments, names or folders."""

import csv
import io
import re
from pathlib import Path, PurePosixPath

from helpers.data.images import MAX_FILE_BYTES, FolderSource, ZipSource
from helpers.files import InputError

SPLIT_FOLDERS = {"train", "val", "validation", "test"}  # not sitters' names


def find_groups(
    source: FolderSource | ZipSource, names: list[str], comments: list[str]
) -> tuple[list[str] | None, str]:
    """Return (each name's group, where the groups were found), or (None, "") if unknown.

    Sources, in this order: groups.csv (columns file, group) among the images or beside
    the zip, JPEG comments (`s1` to `s50`), names such as `s01_02.jpg`, one subfolder per
    sitter. A source is used if it gives every image a group, with at least two groups
    and an average of at least two images per group. Raises InputError if groups.csv has
    groups for some of the images only.
    """
    candidates = [
        ("groups.csv", _groups_from_csv(source, names)),
        ("the JPEG comments", [_match(r"s\d+", comment) for comment in comments]),
        ("the file names", [_match(r"(s\d+)_", PurePosixPath(n).name) for n in names]),
        ("the subfolders", _groups_from_folders(names)),
    ]
    for groups_from, groups in candidates:
        if all(groups) and 2 <= len(set(groups)) <= len(names) // 2:
            return groups, groups_from
    return None, ""


def _groups_from_csv(source, names: list[str]) -> list[str]:
    """Look up each name's group in groups.csv; return [""] if there is no such file."""
    table, data = _find_csv(source)
    if data is None:
        return [""]
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""))
        rows, columns = list(reader), set(reader.fieldnames or ())
    except UnicodeDecodeError as error:
        raise InputError(f"{table}: not UTF-8; save it as UTF-8") from error
    except csv.Error as error:
        raise InputError(f"{table}: not a table ({error}); save it as CSV") from error
    if not {"file", "group"} <= columns:
        raise InputError(f"{table}: needs the columns file,group in its first line")
    group_of = {(r["file"] or "").strip(): (r["group"] or "").strip() for r in rows}
    groups = [group_of.get(n) or group_of.get(PurePosixPath(n).name, "") for n in names]
    without = [name for name, group in zip(names, groups, strict=True) if not group]
    if 0 < len(without) < len(names):
        raise InputError(
            f"{table}: no group for {without[0]!r} ({len(without)} of {len(names)} "
            "images); add a row for each, or remove the table"
        )
    return groups


def _find_csv(source) -> tuple[Path, bytes | None]:
    """Return the path and bytes of groups.csv, in the folder or zip or beside the zip."""
    folder = source.path
    if isinstance(source, ZipSource):
        folder = source.path.parent
        for member in source.archive.namelist():
            if PurePosixPath(member).name == "groups.csv" and "__MACOSX" not in member:
                table = source.path / member
                try:
                    with source.archive.open(member) as file:
                        return table, file.read(MAX_FILE_BYTES)
                except Exception as error:  # zipfile and zlib raise their own errors
                    raise InputError(f"{table}: {error}; zip it again") from error
    table = folder / "groups.csv"
    return table, table.read_bytes() if table.is_file() else None


def _groups_from_folders(names: list[str]) -> list[str]:
    """Return each name's folder, or [""] if the folders are those of a split."""
    folders = [name.rpartition("/")[0] for name in names]
    are_sets = any(SPLIT_FOLDERS & set(folder.split("/")) for folder in folders)
    return [""] if are_sets else folders


def _match(pattern: str, text: str) -> str:
    found = re.match(pattern, text)
    return found.group(found.lastindex or 0) if found else ""
