"""The face photographs as one tensor, who is on them, and the training / test split."""

import csv
import io
import os
import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image

from helpers.data import portraits
from helpers.data.images import (
    FolderSource,
    UnreadableImage,
    ZipSource,
    decode_image,
    decode_text,
    is_visible,
    open_source,
    to_square,
)
from helpers.files import OUTPUTS, PROJECT, InputError, sha256

IMAGE_SIZE = 128
MIN_IMAGES = 10
MAX_BAD_SHARE = 0.05
FACE_IMAGES = PROJECT / "face_images"
PORTRAITS = "portraits"  # the word that asks for the embedded set
PARTS = {"train", "val", "validation", "test"}  # folders that are no sitters
IMAGES_VARIABLE = "DEEPCOLOR_IMAGES"  # what `images=""` means, when it is set


@dataclass(frozen=True)
class FaceSet:
    """A set of face photographs.

    images      (N, 3, S, S) uint8, BGR, upright; S = 128 in the course
    names       N file names, sorted, relative to the folder or zip
    groups      the sitter of each image, or None where nobody knows
    groups_from where the groups were read, in words
    source      where the images come from, in words
    synthetic   True for the embedded portraits
    skipped     (name, reason) of each file that could not be read
    """

    images: torch.Tensor
    names: list[str]
    groups: list[str] | None = None
    groups_from: str = ""
    source: str = ""
    synthetic: bool = False
    skipped: list[tuple[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    def data_hash(self) -> str:
        """SHA-256 of all names and pixels: equal hash, equal data."""
        names = "\n".join(self.names).encode(errors="surrogateescape")
        return sha256(names, self.images.numpy().tobytes())

    def describe(self) -> str:
        """A few lines for the top of a notebook or a log: what, from where, who."""
        lines = [f"{len(self)} images from {self.source}"]
        if self.synthetic:
            lines.append(
                "synthetic portraits: figures are not comparable with published ones"
            )
        if self.groups:
            lines.append(f"{len(set(self.groups))} sitters, from {self.groups_from}")
        if self.skipped:
            lines.append(f"skipped {len(self.skipped)} files:")
            lines += [f"  {name!r}: {reason}" for name, reason in self.skipped[:20]]
            if len(self.skipped) > 20:
                lines.append(f"  ... and {len(self.skipped) - 20} more")
        return "\n".join(lines)


@dataclass(frozen=True)
class Split:
    """Which images train and which test.

    train, test  index tensors (int64) into a FaceSet, in shuffled order
    how          "random" or "groups", with the reason where it is not what was asked
    """

    train: torch.Tensor
    test: torch.Tensor
    how: str


def load_faces(images: str = "", *, size: int = IMAGE_SIZE) -> FaceSet:
    """Load all face photographs as one FaceSet, each cut to its center square.

    `images` is a folder (any depth), a zip, "portraits" for the embedded synthetic set,
    or "" for: images in face_images/, a zip in face_images/, else the portraits. Files
    that cannot be read are listed in `skipped`. Raises InputError when there is nothing
    to load, more than 5 % of the files are bad, or fewer than 10 images remain.
    """
    path = find_images(images)
    source = open_source(path or embedded_portraits())
    with ThreadPoolExecutor() as pool:
        loaded = list(
            pool.map(lambda name: _load_one(source, name, size), source.names)
        )
    good = [(n, *x) for n, x in zip(source.names, loaded, strict=True) if len(x) == 2]
    skipped = list(source.refused)
    skipped += [
        (n, x[0]) for n, x in zip(source.names, loaded, strict=True) if len(x) == 1
    ]
    _check_enough(path or PORTRAITS, len(good), skipped)

    names = [name for name, _, _ in good]
    groups, groups_from = find_groups(
        source, names, [comment for _, _, comment in good]
    )
    stack = np.stack([image_bgr.transpose(2, 0, 1) for _, image_bgr, _ in good])
    return FaceSet(
        images=torch.from_numpy(np.ascontiguousarray(stack)),
        names=names,
        groups=groups,
        groups_from=groups_from,
        source=_shown(path) if path else "the embedded portrait set",
        synthetic=path is None,
        skipped=skipped,
    )


def find_images(images: str = "") -> Path | None:
    """The folder or zip that `images` stands for; None means the embedded portraits."""
    images = str(images) or os.environ.get(IMAGES_VARIABLE, "")
    if images == PORTRAITS:
        return None
    if images:
        return Path(images).expanduser()
    if FACE_IMAGES.is_dir():
        if FolderSource(FACE_IMAGES).names:
            return FACE_IMAGES
        zips = [path for path in FACE_IMAGES.glob("*.zip") if is_visible(path.name)]
        return min(zips, default=None)
    return None


def embedded_portraits() -> Path:
    """The folder of the embedded portraits, rendered at the first call (some seconds).

    The folder's name carries a hash of the renderer, so a changed renderer never meets
    old pictures; it appears under its name only when it is complete.
    """
    renderer = sorted(Path(portraits.__file__).parent.glob("*.py"))
    version = sha256(*(file.read_bytes() for file in renderer))[:8]
    folder = OUTPUTS / f"portraits-{version}"
    if folder.is_dir():
        return folder
    try:
        OUTPUTS.mkdir(exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=OUTPUTS, prefix=".portraits-"))
    except OSError as error:
        raise InputError(
            f"{OUTPUTS}: cannot write ({error.strerror}); make the folder writable"
        ) from error
    try:
        portraits.write_portraits(temporary)
        temporary.chmod(0o755)
        temporary.rename(folder)
    except (OSError, RuntimeError) as error:
        if not folder.is_dir():  # else another process was quicker
            raise InputError(
                f"{OUTPUTS}: cannot draw the portraits ({error})"
            ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def find_groups(
    source: FolderSource | ZipSource, names: list[str], comments: list[str]
) -> tuple[list[str] | None, str]:
    """Who is on each image: (one group a name, where it was found) or (None, "").

    Tried in this order; the first that gives every image a group and at least two groups
    counts: groups.csv (columns file, group) among or beside the images, the JPEG comment
    (`s1` to `s50`), names like `s01_02.jpg`, one sub-folder per sitter.
    """
    tries = [
        ("groups.csv", _groups_from_csv(source, names)),
        ("the JPEG comments", [_match(r"s\d+", comment) for comment in comments]),
        ("the file names", [_match(r"(s\d+)_", PurePosixPath(n).name) for n in names]),
        ("the sub-folders", [n.rpartition("/")[0] for n in names]),
    ]
    for groups_from, groups in tries:
        if {PurePosixPath(group).name for group in groups} <= PARTS:
            continue
        if all(groups) and 2 <= len(set(groups)) <= len(names) // 2:
            return groups, groups_from
    return None, ""


def split_faces(
    faces: FaceSet,
    *,
    by: str = "random",
    seed: int = 0,
    test_fraction: float = 0.1,
    max_images: int | None = None,
) -> Split:
    """Part the images into training and test, before anything else happens to them.

    Each image (by="random") or each sitter (by="groups") draws a lottery number, a hash
    of the seed and its name; the lowest tenth are the test part. The numbers of the
    others do not change when a photograph is added, so in the random split at most one
    image for each added one changes its side. By groups, no sitter stands in both parts
    and whole sitters may move; without known groups the split is random and `how` says
    so. Both parts come shuffled by torch.randperm; of the training part the first `max_images`
    remain, all without it.
    Raises InputError for another `by` or a fraction that leaves a part empty.
    """
    if by not in ("random", "groups"):
        raise InputError(f"split {by!r}: unknown; use random or groups")
    how = by
    if by == "groups" and not faces.groups:
        by, how = "random", "random (no groups are known for these images)"
    num_test = round(test_fraction * len(faces))
    if by == "groups":
        num_test, test = max(num_test, 1), []
        members: dict[str, list[int]] = {}
        for index, group in enumerate(faces.groups):
            members.setdefault(group, []).append(index)
        for group in sorted(members, key=lambda name: _lottery(seed, name)):
            if len(test) + len(members[group]) / 2 > num_test and test:
                break
            test += members[group]
    else:
        drawn = sorted(range(len(faces)), key=lambda i: _lottery(seed, faces.names[i]))
        test = drawn[:num_test]
    train = sorted(set(range(len(faces))) - set(test))
    if not test or not train:
        raise InputError(
            f"test_fraction {test_fraction}: leaves {len(train)} training and "
            f"{len(test)} test images of {len(faces)}; use about 0.1"
        )
    return Split(
        _shuffled(train, seed)[:max_images], _shuffled(sorted(test), seed), how
    )


def as_float(images: torch.Tensor) -> torch.Tensor:
    """The assignment's tensor: (N, 3, S, S) uint8 BGR to float32 BGR in [0, 1]."""
    return images.float() / 255


def _load_one(source, name: str, size: int) -> tuple:
    """(image_bgr, comment) of one file, or (reason,) when it cannot be read."""
    try:
        data = source.read(name)
        return to_square(decode_image(data), size), _jpeg_comment(data)
    except UnreadableImage as error:
        return (str(error),)


def _jpeg_comment(data: bytes) -> str:
    if not data.startswith(b"\xff\xd8"):
        return ""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.info.get("comment", b"").decode("ascii", "ignore").strip()
    except (OSError, ValueError):  # OpenCV reads some files that Pillow refuses
        return ""


def _check_enough(path, num_good: int, skipped: list[tuple[str, str]]) -> None:
    total = num_good + len(skipped)
    if len(skipped) > MAX_BAD_SHARE * total:
        name, reason = skipped[0]
        raise InputError(
            f"{path}: {len(skipped)} of {total} images cannot be read, first {name!r} "
            f"({reason}); remove or replace them (up to {MAX_BAD_SHARE:.0%} are skipped)"
        )
    if num_good < MIN_IMAGES:
        raise InputError(
            f"{path}: {num_good} images; the course needs at least {MIN_IMAGES}"
        )


def _groups_from_csv(source, names: list[str]) -> list[str]:
    text = source.read_text("groups.csv")
    beside = source.path.parent / "groups.csv"
    if text is None and isinstance(source, ZipSource) and beside.is_file():
        text = decode_text(beside, beside.read_bytes())
    if text is None:
        return [""]
    rows = csv.DictReader(io.StringIO(text))
    if not {"file", "group"} <= set(rows.fieldnames or ()):
        raise InputError(
            f"{source.path}: its groups.csv needs the columns file,group in the first line"
        )
    group_of = {row["file"]: row["group"] for row in rows}
    return [group_of.get(n) or group_of.get(PurePosixPath(n).name, "") for n in names]


def _match(pattern: str, text: str) -> str:
    found = re.match(pattern, text)
    return found.group(found.lastindex or 0) if found else ""


def _lottery(seed: int, name: str) -> str:
    return sha256(f"{seed}/{name}".encode(errors="surrogateescape"))


def _shuffled(index: list[int], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(index)[torch.randperm(len(index), generator=generator)]


def _shown(path: Path) -> str:
    """The path as it is shown: short, relative to the project where it lies inside."""
    resolved = path.resolve()
    inside = resolved.is_relative_to(PROJECT)
    return str(resolved.relative_to(PROJECT) if inside else path.name)
