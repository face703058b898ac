"""Load the face images, find their sitters, split them into training and test sets."""

import io
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image

from helpers.data import portraits
from helpers.data.copies import find_copies
from helpers.data.groups import find_groups
from helpers.data.image_checks import HEIC
from helpers.data.images import (
    JPEG_START,
    FolderSource,
    UnreadableImage,
    decode_image,
    is_visible,
    open_source,
    to_square,
)
from helpers.files import OUTPUTS, PROJECT, InputError, sha256, user_path

IMAGE_SIZE = 128
MIN_IMAGES = 10
MAX_BAD_SHARE = 0.05
MAX_LISTED = 20  # files in a message
FACE_IMAGES = PROJECT / "face_images"
PORTRAITS = "portraits"  # value of `images` for the embedded set
IMAGES_VARIABLE = "DEEPCOLOR_IMAGES"  # environment variable: default for `images`


@dataclass(frozen=True)
class FaceSet:
    """A set of face images, photographs or portraits.

    images       (N, 3, S, S) uint8, BGR, upright; S = 128 in the course
    names        N file names, sorted, relative to the folder or zip
    groups       the sitter of each image, or None if unknown
    groups_from  where the groups were found, in words
    source       where the images come from, in words
    synthetic    True for the embedded portraits
    skipped      (name, reason) for each file that could not be read
    copies       the indices of images that show one picture; see `find_copies`
    """

    images: torch.Tensor
    names: list[str]
    groups: list[str] | None = None
    groups_from: str = ""
    source: str = ""
    synthetic: bool = False
    skipped: list[tuple[str, str]] = field(default_factory=list)
    copies: list[list[int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_gray(self) -> int:
        """The number of images whose pixels have equal B, G and R."""
        B, G, R = self.images.unbind(1)
        return int(((B == G) & (G == R)).flatten(1).all(dim=1).sum())

    def data_hash(self) -> str:
        """Return the SHA-256 of all names and pixels."""
        names = "\n".join(self.names).encode(errors="surrogateescape")
        return sha256(names, self.images.numpy().tobytes())

    def describe(self) -> str:
        """Return a few lines: source, sitters, copies of one picture, skipped files."""
        lines = [f"{len(self)} images from {self.source}"]
        if self.synthetic:
            lines.append(
                "synthetic portraits: errors are not comparable with published ones"
            )
        if count := self.num_gray:
            how = "all images are" if count == len(self) else f"{count} images are"
            how = "1 image is" if count == 1 else how
            lines.append(f"{how} gray: no color can be learned there")
        if self.groups:
            lines.append(f"{len(set(self.groups))} sitters, from {self.groups_from}")
        for group in self.copies[:MAX_LISTED]:
            lines.append(f"one picture: {', '.join(self.names[i] for i in group)}")
        if self.copies:
            count = sum(map(len, self.copies))
            lines.append(
                f"{count} images are copies; random and group splits keep them together"
            )
        if self.skipped:
            noun = "file" if len(self.skipped) == 1 else "files"
            lines.append(f"skipped {len(self.skipped)} {noun}:")
            lines += [
                f"  {name!r}: {reason}" for name, reason in self.skipped[:MAX_LISTED]
            ]
            if len(self.skipped) > MAX_LISTED:
                lines.append(f"  ... and {len(self.skipped) - MAX_LISTED} more")
        return "\n".join(lines)


@dataclass(frozen=True)
class Split:
    """A split of the images into training and test sets.

    train, test  index tensors (int64) into a FaceSet, in shuffled order
    how          "random" or "groups", with the reason if it differs from the request
    """

    train: torch.Tensor
    test: torch.Tensor
    how: str


def load_faces(images: str = "", *, size: int = IMAGE_SIZE) -> FaceSet:
    """Load all face images as a FaceSet, cropped to their center squares and resized.

    `images` is a folder (searched recursively), a zip, "portraits" for the embedded set,
    or "" for the default: the value of $DEEPCOLOR_IMAGES, else the images in face_images/,
    else a zip there, else the embedded set. Files that cannot be read are listed in
    `skipped`. Raises InputError if there is nothing to load, if more than 5% of the files
    are damaged (HEIC files are only skipped), or if fewer than 10 images remain.
    """
    path = find_images(images)
    source = open_source(path or embedded_portraits())
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda name: _load_one(source, name, size), source.names)
    squares, names, comments, skipped = [], [], [], list(source.refused)
    for name, (image_bgr, comment, reason) in zip(source.names, results, strict=True):
        if reason:
            skipped.append((name, reason))
            continue
        names.append(name)
        squares.append(image_bgr.transpose(2, 0, 1))
        comments.append(comment)
    _check_enough(path or PORTRAITS, len(names), skipped)
    groups, groups_from = find_groups(source, names, comments)
    tensor = torch.from_numpy(np.ascontiguousarray(np.stack(squares)))
    return FaceSet(
        images=tensor,
        names=names,
        groups=groups,
        groups_from=groups_from,
        source=_display_path(path) if path else "the embedded portrait set",
        synthetic=path is None,
        skipped=skipped,
        copies=find_copies(tensor),
    )


def find_images(images: str = "") -> Path | None:
    """Return the folder or zip selected by `images`; None for the embedded portraits."""
    images = str(images) or os.environ.get(IMAGES_VARIABLE, "")
    if images == PORTRAITS:
        return None
    if images:
        return user_path(images)
    if FolderSource(FACE_IMAGES).names:
        return FACE_IMAGES
    zips = [path for path in FACE_IMAGES.glob("*.zip") if is_visible(path.name)]
    return min(zips, default=None)


def embedded_portraits() -> Path:
    """Return the folder with the embedded portraits; the first call draws them (seconds).

    The folder's name contains a hash of the renderer, so a changed renderer gets a new
    folder. The folder gets its final name only once it is complete.
    """
    renderer = sorted(Path(portraits.__file__).parent.glob("*.py"))
    version = sha256(*(file.read_bytes() for file in renderer))[:8]
    folder = OUTPUTS / f"portraits-{version}"
    if folder.is_dir():
        return folder
    try:
        OUTPUTS.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=OUTPUTS, prefix=".portraits-") as parent:
            drawn = Path(parent, "drawn")
            portraits.write_portraits(drawn)
            drawn.rename(folder)
    except (OSError, RuntimeError) as error:
        if not folder.is_dir():  # otherwise another process was faster
            raise InputError(
                f"{OUTPUTS}: cannot write the portraits ({error}); make it writable"
            ) from error
    return folder


def split_faces(
    faces: FaceSet,
    *,
    by: str = "random",
    seed: int = 0,
    test_fraction: float = 0.1,
    max_images: int | None = None,
) -> Split:
    """Split the images into training and test sets, before any augmentation.

    The seed is hashed with the name of each image (by="random") or sitter (by="groups").
    The images with the lowest hashes, `test_fraction` of all, are the test set. Adding an
    image does not change the other hashes, so in a random split without copies, it moves
    at most one other image. In a split by groups, all images of a sitter are in the same
    set and move together; if the groups are unknown, the split is random and `how` gives
    the reason. Images that show the same picture (`FaceSet.copies`) are in the same set
    and move together, too.
    Both sets are shuffled with torch.randperm; only the first `max_images` training
    images are kept. With by="folders", the images in folders named train and val are the
    two sets. Raises InputError for any other `by` or if a set would be empty.
    """
    if by == "folders":
        return _split_by_folders(faces.names, seed, max_images)
    if by not in ("random", "groups"):
        raise InputError(f"split {by!r}: unknown; use random, groups or folders")
    how, keys, num_test = by, faces.names, round(test_fraction * len(faces))
    if by == "groups" and not faces.groups:
        how = "random (no groups are known for these images)"
    elif by == "groups":
        keys, num_test = faces.groups, max(num_test, 1)
    test = _lowest_hashes(_joined(keys, faces.copies), seed, num_test)
    train = sorted(set(range(len(faces))) - set(test))
    if not test or not train:
        raise InputError(
            f"test_fraction {test_fraction}: leaves {len(train)} training and "
            f"{len(test)} test images of {len(faces)}; use about 0.1"
        )
    return Split(_shuffle(train, seed)[:max_images], _shuffle(test, seed), how)


def as_float(images: torch.Tensor) -> torch.Tensor:
    """Convert (N, 3, S, S) uint8 BGR to float32 BGR in [0, 1], as the assignment asks."""
    return images.float() / 255


def _load_one(source, name: str, size: int) -> tuple[np.ndarray | None, str, str]:
    """Return (image_bgr, JPEG comment, ""), or (None, "", reason) if it is unreadable."""
    try:
        data = source.read(name)
        return to_square(decode_image(data), size), _jpeg_comment(data), ""
    except UnreadableImage as error:
        return None, "", str(error)


def _jpeg_comment(data: bytes) -> str:
    if not data.startswith(JPEG_START):
        return ""
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.info.get("comment", b"").decode("ascii", "ignore").strip()
    except (OSError, ValueError):  # OpenCV reads some files that Pillow refuses
        return ""


def _check_enough(path, num_good: int, skipped: list[tuple[str, str]]) -> None:
    damaged = [(name, reason) for name, reason in skipped if reason != HEIC]
    total = num_good + len(damaged)
    if len(damaged) > MAX_BAD_SHARE * total:
        name, reason = damaged[0]
        raise InputError(
            f"{path}: {len(damaged)} of {total} images cannot be read, e.g. {name!r} "
            f"({reason}); remove or replace them (up to {MAX_BAD_SHARE:.0%} are skipped)"
        )
    if num_good < MIN_IMAGES:
        raise InputError(f"{path}: {num_good} images; at least {MIN_IMAGES} are needed")


def _joined(keys: list[str], copies: list[list[int]]) -> list[str]:
    """Return the keys, with a common one for images that show the same picture."""
    keys = list(keys)
    for group in copies:
        common, others = keys[group[0]], {keys[i] for i in group}
        keys = [common if key in others else key for key in keys]
    return keys


def _lowest_hashes(keys: list[str], seed: int, num_test: int) -> list[int]:
    """Return the sorted indices of the images whose keys have the lowest hashes.

    Images with the same key stay together, so only about `num_test` are returned: the last
    key is included if at least half of its images are needed. At least one key is included
    unless `num_test` is 0.
    """
    members: dict[str, list[int]] = {}
    for index, key in enumerate(keys):
        members.setdefault(key, []).append(index)
    hashes = {
        key: sha256(f"{seed}/{key}".encode(errors="surrogateescape")) for key in members
    }
    test: list[int] = []
    for key in sorted(members, key=hashes.get):
        if len(test) + len(members[key]) / 2 > num_test and (test or not num_test):
            break
        test += members[key]
    return sorted(test)


def _split_by_folders(names: list[str], seed: int, max_images: int | None) -> Split:
    sets = {"train": [], "val": []}
    for index, name in enumerate(names):
        if not (folder := split_folder(name)):
            raise InputError(f"{name}: not in a folder named train or val; move it")
        sets[folder].append(index)
    train, val = sets.values()
    if not train or not val:
        raise InputError("the folders train and val must both contain images; add some")
    train, val = _shuffle(train, seed)[:max_images], _shuffle(val, seed)
    return Split(train, val, "folders train and val")


def split_folder(name: str) -> str:
    """Return "train" or "val" if a file is in a folder of this name, else ""."""
    found = {"train", "val"} & set(PurePosixPath(name).parts[:-1])
    return found.pop() if len(found) == 1 else ""


def _shuffle(index: list[int], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.tensor(index)[torch.randperm(len(index), generator=generator)]


def _display_path(path: Path) -> str:
    """Return the path relative to the project, or just the name if it is elsewhere."""
    resolved = path.resolve()
    inside = resolved.is_relative_to(PROJECT)
    return str(resolved.relative_to(PROJECT) if inside else path.name)
