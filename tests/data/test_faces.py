import io
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.data import faces
from helpers.data.faces import FaceSet, as_float, load_faces, split_faces
from helpers.data.images import write_image
from helpers.files import InputError

SIZE = 8  # pixels, enough for these tests


def jpeg(seed: int, comment: str = "") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    options = {"comment": comment.encode()} if comment else {}
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def plain(number: int) -> dict[str, bytes]:
    """Return `number` photographs without any information on the sitters."""
    return {f"photo {i:03d}.jpg": jpeg(i) for i in range(number)}


def write_folder(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def face_set(number: int, groups: int = 0, *, first: int = 0) -> FaceSet:
    names = [f"photo {i:03d}.jpg" for i in range(first, first + number)]
    return FaceSet(
        images=torch.zeros(number, 3, 2, 2, dtype=torch.uint8),
        names=names,
        groups=[f"s{i % groups}" for i in range(number)] if groups else None,
    )


def load(path) -> FaceSet:
    return load_faces(str(path), size=SIZE)


# Load -----------------------------------------------------------------------------


def test_a_folder_and_its_zip_give_equal_tensors_and_names(tmp_path):
    files = plain(11) | {"deep/down/é.jpg": jpeg(50), "notes.txt": b"x"}
    folder = load(write_folder(tmp_path / "photos", files))
    packed = load(write_zip(tmp_path / "photos.zip", files))
    assert folder.images.shape == (12, 3, SIZE, SIZE)
    assert folder.images.dtype == torch.uint8
    assert torch.equal(folder.images, packed.images)
    assert folder.names == packed.names == sorted(n for n in files if n[-1] == "g")
    assert folder.data_hash() == packed.data_hash()
    assert folder.source == "photos"
    assert not folder.synthetic
    assert folder.skipped == []


def test_the_images_are_bgr_in_the_order_of_their_names(tmp_path):
    for i in range(10):
        color = (200 + i, 100, 7)  # R, G, B
        Image.new("RGB", (4, 4), color).save(tmp_path / f"{9 - i}.png")
    loaded = load(tmp_path)
    assert loaded.images[:, 0].unique().tolist() == [7]
    assert loaded.images[:, 1].unique().tolist() == [100]
    assert loaded.images[:, 2, 0, 0].tolist() == list(range(209, 199, -1))


def test_the_default_size_is_128(tmp_path):
    write_folder(tmp_path, plain(10))
    assert load_faces(str(tmp_path)).images.shape == (10, 3, 128, 128)


def test_three_bad_files_of_sixty_are_skipped_and_listed(tmp_path):
    bad = {"a.jpg": b"", "b.jpg": b"<html>", "c.jpg": jpeg(1)[:200]}
    loaded = load(write_folder(tmp_path, plain(57) | bad))
    assert len(loaded) == len(loaded.images) == 57
    assert [name for name, _ in loaded.skipped] == ["a.jpg", "b.jpg", "c.jpg"]
    assert loaded.skipped[0][1] == "empty file"
    assert all(reason for _, reason in loaded.skipped)
    assert not set(bad) & set(loaded.names)
    assert "'a.jpg': empty file" in loaded.describe()


def test_four_bad_files_of_sixty_raise_and_the_first_is_named(tmp_path):
    bad = {f"bad {i}.jpg": b"" for i in range(4)}
    with pytest.raises(InputError) as caught:
        load(write_folder(tmp_path, plain(56) | bad))
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}: 4 of 60 images cannot be read")
    assert "'bad 0.jpg' (empty file)" in text
    assert "\n" not in text


def test_refused_members_of_a_zip_are_listed_and_count_as_bad(tmp_path):
    files = plain(38) | {"../a.jpg": jpeg(1), "/b.jpg": jpeg(2)}
    loaded = load(write_zip(tmp_path / "a.zip", files))
    assert len(loaded) == 38
    assert {name for name, _ in loaded.skipped} == {"../a.jpg", "/b.jpg"}
    with pytest.raises(InputError, match="3 of 41 images cannot be read"):
        load(write_zip(tmp_path / "b.zip", files | {"../c.jpg": jpeg(3)}))


def test_ten_images_are_enough_and_nine_are_not(tmp_path):
    assert len(load(write_folder(tmp_path / "ten", plain(10)))) == 10
    with pytest.raises(InputError, match="9 images; at least 10 are needed"):
        load(write_folder(tmp_path / "nine", plain(9)))


def test_only_bad_files_raise_with_a_reason(tmp_path):
    files = {f"{i}.jpg": b"" for i in range(12)}
    with pytest.raises(InputError, match="12 of 12 images cannot be read"):
        load(write_folder(tmp_path, files))


def test_a_name_with_a_newline_is_shown_escaped_on_one_line(tmp_path):
    files = plain(40) | {"bad\nname.jpg": b""}
    loaded = load(write_folder(tmp_path, files))
    assert "'bad\\nname.jpg': empty file" in loaded.describe()
    files |= {f"bad\n{i}.jpg": b"" for i in range(4)}
    with pytest.raises(InputError) as caught:
        load(write_folder(tmp_path, files))
    assert "\n" not in str(caught.value)


def test_a_name_that_is_not_utf8_can_be_loaded_split_and_hashed(tmp_path):
    write_folder(tmp_path, plain(10))
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg"), "wb") as file:
        file.write(jpeg(99))
    loaded = load(tmp_path)
    assert len(loaded) == 11
    assert len(loaded.data_hash()) == 64
    split = split_faces(loaded)
    assert len(split.train) + len(split.test) == 11


def test_loading_changes_nothing_in_the_folder(tmp_path):
    files = plain(10) | {"sub/notes.txt": b"x"}
    write_folder(tmp_path, files)
    load(tmp_path)
    found = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")}
    assert found == set(files)
    assert all((tmp_path / name).read_bytes() == files[name] for name in files)


def test_describe_gives_number_source_and_sitters(tmp_path):
    files = {f"s{i % 3}_{i}.jpg": jpeg(i) for i in range(12)}
    text = load(write_folder(tmp_path / "mine", files)).describe()
    assert text == "12 images from mine\n3 sitters, from the file names"


def test_describe_lists_twenty_skipped_files_and_counts_the_rest():
    skipped = [(f"{i}.jpg", "empty file") for i in range(25)]
    lines = (
        FaceSet(torch.zeros(0, 3, 8, 8), [], skipped=skipped).describe().splitlines()
    )
    assert lines[1] == "skipped 25 files:"
    assert lines[2] == "  '0.jpg': empty file"
    assert lines[21] == "  '19.jpg': empty file"
    assert lines[22:] == ["  ... and 5 more"]


@pytest.mark.parametrize(("count", "words"), [(1, "1 file:"), (2, "2 files:")])
def test_describe_counts_one_file_in_the_singular(count, words):
    skipped = [(f"{i}.jpg", "empty file") for i in range(count)]
    lines = (
        FaceSet(torch.zeros(0, 3, 8, 8), [], skipped=skipped).describe().splitlines()
    )
    assert lines[1] == f"skipped {words}"


def test_as_float_scales_images_to_zero_to_one():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    assert as_float(images).dtype == torch.float32
    assert as_float(images).flatten().tolist() == pytest.approx([0, 0.2, 1])


# The sitters ----------------------------------------------------------------------


def files_with_four_group_sources() -> dict[str, bytes]:
    """Return twelve photographs with different groups in the four sources.

    The table has t0 to t1, the comments s0 to s2, the names s00 to s03 and the folders
    f0 to f5.
    """
    files = {}
    for i in range(12):
        name = f"f{i % 6}/s{i % 4:02d}_{i:02d}.jpg"
        files[name] = jpeg(i, comment=f"s{i % 3}")
    rows = [f"{name},t{i % 2}" for i, name in enumerate(files)]
    table = "\n".join(["file,group", *rows])
    return files | {"groups.csv": table.encode()}


def without(files: dict[str, bytes], *what: str) -> dict[str, bytes]:
    files = dict(files)
    if "csv" in what:
        files.pop("groups.csv", None)
    if "comment" in what:
        files = {
            n: jpeg(i) if n.endswith(".jpg") else d
            for i, (n, d) in enumerate(files.items())
        }
    if "name" in what:
        files = {n.replace("/s", "/x"): d for n, d in files.items()}
    if "folder" in what:
        files = {n.replace("/", "-"): d for n, d in files.items()}
    return files


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize(
    ("removed", "groups_from", "expected"),
    [
        ((), "groups.csv", {"t0", "t1"}),
        (("csv",), "the JPEG comments", {"s0", "s1", "s2"}),
        (("csv", "comment"), "the file names", {"s00", "s01", "s02", "s03"}),
        (("csv", "comment", "name"), "the subfolders", {f"f{i}" for i in range(6)}),
        (("csv", "comment", "name", "folder"), "", None),
    ],
)
def test_groups_come_from_the_first_source_that_has_them(
    tmp_path, kind, removed, groups_from, expected
):
    files = without(files_with_four_group_sources(), *removed)
    write = write_folder if kind == "folder" else write_zip
    loaded = load(write(tmp_path / f"a.{kind}", files))
    assert loaded.groups_from == groups_from
    assert (set(loaded.groups) if loaded.groups else None) == expected


def test_each_image_gets_its_own_group(tmp_path):
    loaded = load(
        write_folder(tmp_path, without(files_with_four_group_sources(), "csv"))
    )
    for name, group in zip(loaded.names, loaded.groups, strict=True):
        number = int(name[-6:-4])
        assert group == f"s{number % 3}"


@pytest.mark.parametrize("inside", [True, False])
def test_a_table_beside_the_zip_is_used_unless_one_is_inside(tmp_path, inside):
    files = files_with_four_group_sources()
    names = [name for name in files if name.endswith(".jpg")]
    rows = [f"{Path(name).name},beside{i % 2}" for i, name in enumerate(names)]
    (tmp_path / "groups.csv").write_text("file,group\n" + "\n".join(rows))
    packed = files if inside else without(files, "csv")
    loaded = load(write_zip(tmp_path / "a.zip", packed))
    assert loaded.groups_from == "groups.csv"
    assert set(loaded.groups) == ({"t0", "t1"} if inside else {"beside0", "beside1"})


def test_a_table_in_a_top_folder_of_the_zip_is_found(tmp_path):
    files = plain(10)
    rows = "".join(f"{name},{'ab'[i % 2]}\n" for i, name in enumerate(files))
    packed = {"__MACOSX/groups.csv": b"a resource fork"}
    packed |= {f"top/{name}": data for name, data in files.items()}
    packed["top/groups.csv"] = ("file,group\n" + rows).encode("utf-8-sig")
    loaded = load(write_zip(tmp_path / "a.zip", packed))
    assert loaded.groups == ["a", "b"] * 5


def test_an_image_missing_in_the_table_is_named(tmp_path):
    files = files_with_four_group_sources()
    files["groups.csv"] = b"\n".join(files["groups.csv"].split(b"\n")[:-1])
    message = (
        r"groups\.csv: no group for 'f5/s03_11\.jpg' \(1 of 12 images\); add a row"
    )
    with pytest.raises(InputError, match=message):
        load(write_folder(tmp_path, files))


def test_a_table_of_other_images_is_not_used(tmp_path):
    files = files_with_four_group_sources()
    files["groups.csv"] = b"file,group\nanother.jpg,t0\nyet another.jpg,t1\n"
    loaded = load(write_folder(tmp_path, files))
    assert loaded.groups_from == "the JPEG comments"


def test_a_sitter_in_the_table_may_be_called_test_and_blanks_do_not_count(tmp_path):
    files = plain(10)
    rows = [f"{name} ,{('test', 'other')[i % 2]} " for i, name in enumerate(files)]
    files["groups.csv"] = "\n".join(["file,group", *rows]).encode()
    assert load(write_folder(tmp_path, files)).groups == ["test", "other"] * 5


def test_a_line_of_the_table_without_a_group_leaves_the_group_unknown(tmp_path):
    files = plain(10) | {"groups.csv": b"file,group\nphoto 000.jpg\n"}
    assert load(write_folder(tmp_path, files)).groups is None


def test_a_table_with_other_columns_is_an_input_error(tmp_path):
    files = plain(10) | {"groups.csv": b"name,sitter\na.jpg,1\n"}
    with pytest.raises(InputError, match="needs the columns file,group"):
        load(write_folder(tmp_path, files))


@pytest.mark.parametrize("kind", ["folder", "zip"])
def test_a_table_that_is_not_utf8_is_an_input_error(tmp_path, kind):
    files = plain(10) | {"groups.csv": "file,group\nZoë.jpg,1\n".encode("latin-1")}
    write = write_folder if kind == "folder" else write_zip
    with pytest.raises(InputError, match=r"groups\.csv"):
        load(write(tmp_path / f"a.{kind}", files))


def test_a_damaged_table_in_a_zip_is_an_input_error(tmp_path):
    path = write_zip(tmp_path / "a.zip", plain(10) | {"groups.csv": b"file,group\nx,y"})
    data = bytearray(path.read_bytes())
    data[data.find(b"file,group")] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"groups\.csv"):
        load(path)


def test_one_group_for_all_or_one_for_each_image_is_ignored(tmp_path):
    same = {f"s1_{i}.jpg": jpeg(i) for i in range(10)}
    assert load(write_folder(tmp_path / "same", same)).groups is None
    each = {f"s{i}_1.jpg": jpeg(i) for i in range(10)}
    assert load(write_folder(tmp_path / "each", each)).groups is None


def test_a_single_top_folder_is_not_a_sitter(tmp_path):
    files = {f"top/{name}": data for name, data in plain(10).items()}
    loaded = load(write_zip(tmp_path / "a.zip", files))
    assert loaded.groups is None
    assert loaded.groups_from == ""


def test_images_beside_a_subfolder_are_not_a_sitter(tmp_path):
    files = plain(6) | {f"more/{i}.jpg": jpeg(i) for i in range(6)}
    assert load(write_folder(tmp_path, files)).groups is None


# Where images are -----------------------------------------------------------------


@pytest.fixture
def face_images(tmp_path, monkeypatch) -> Path:
    """Return an empty face_images/; the environment variable is not set."""
    folder = tmp_path / "face_images"
    folder.mkdir()
    monkeypatch.setattr(faces, "FACE_IMAGES", folder)
    monkeypatch.delenv(faces.IMAGES_VARIABLE, raising=False)
    return folder


def test_without_any_images_the_portraits_are_used(face_images):
    (face_images / "README.md").write_text("Put your photographs here.")
    assert faces.find_images() is None
    shutil.rmtree(face_images)
    assert faces.find_images() is None


def test_a_zip_in_face_images_is_found_and_image_files_have_priority(face_images):
    write_zip(face_images / "b.zip", plain(1))
    write_zip(face_images / "a.zip", plain(1))
    assert faces.find_images() == face_images / "a.zip"
    write_folder(face_images / "deep", plain(1))
    assert faces.find_images() == face_images


def test_a_resource_fork_is_not_mistaken_for_the_zip(face_images):
    write_zip(face_images / "face_images.zip", plain(10))
    (face_images / "._face_images.zip").write_bytes(b"\0\5\x16\7 resource fork")
    assert faces.find_images() == face_images / "face_images.zip"


def test_the_argument_has_priority_over_the_variable_and_that_over_face_images(
    face_images, monkeypatch
):
    write_folder(face_images, plain(1))
    monkeypatch.setenv(faces.IMAGES_VARIABLE, "/from/variable")
    assert faces.find_images() == Path("/from/variable")
    assert faces.find_images("/asked/for") == Path("/asked/for")
    assert faces.find_images("portraits") is None
    monkeypatch.setenv(faces.IMAGES_VARIABLE, "portraits")
    assert faces.find_images() is None
    monkeypatch.setenv(faces.IMAGES_VARIABLE, "")
    assert faces.find_images() == face_images


def test_the_argument_may_start_with_the_home_folder(face_images, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert faces.find_images("~/faces") == Path("/home/me/faces")


def test_a_missing_folder_of_images_raises(face_images, tmp_path):
    write_folder(face_images, plain(12))
    with pytest.raises(InputError, match="no such folder or zip"):
        load(tmp_path / "elsewhere")


# The embedded portraits -----------------------------------------------------------


@pytest.fixture
def drawn(tmp_path, monkeypatch, face_images) -> list[Path]:
    """Replace the portraits by small images; each drawing adds an item to the list."""
    calls = []

    def write_portraits(folder):
        calls.append(folder)
        files = {f"s{i % 4:02d}_{i:02d}.jpg": jpeg(i, f"s{i % 4}") for i in range(12)}
        return list(write_folder(folder, files).iterdir())

    monkeypatch.setattr(faces, "OUTPUTS", tmp_path / "outputs")
    monkeypatch.setattr(faces.portraits, "write_portraits", write_portraits)
    return calls


def test_the_portraits_are_drawn_once_and_then_found(drawn):
    folder = faces.embedded_portraits()
    assert folder == faces.embedded_portraits()
    assert len(drawn) == 1
    assert len(list(folder.glob("*.jpg"))) == 12
    assert [p.name for p in faces.OUTPUTS.iterdir()] == [folder.name]
    assert folder.name.startswith("portraits-")
    usual = faces.OUTPUTS / "usual"
    usual.mkdir()
    assert folder.stat().st_mode == usual.stat().st_mode


@pytest.mark.parametrize("images", ["", "portraits"])
def test_the_portraits_load_with_their_sitters_and_a_warning(drawn, images):
    loaded = load_faces(images, size=SIZE)
    assert len(drawn) == 1
    assert loaded.synthetic
    assert loaded.source == "the embedded portrait set"
    assert loaded.groups_from == "the JPEG comments"
    assert sorted(set(loaded.groups)) == ["s0", "s1", "s2", "s3"]
    assert "not comparable with published" in loaded.describe()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_drawing_leaves_no_folder_and_a_rerun_works(
    drawn, monkeypatch, error
):
    write_whole = faces.portraits.write_portraits

    def stop(folder):
        folder.mkdir()
        (folder / "s01_01.jpg").write_bytes(jpeg(1))
        raise error

    monkeypatch.setattr(faces.portraits, "write_portraits", stop)
    with pytest.raises((error, InputError)):
        faces.embedded_portraits()
    assert list(faces.OUTPUTS.iterdir()) == []
    monkeypatch.setattr(faces.portraits, "write_portraits", write_whole)
    assert len(list(faces.embedded_portraits().iterdir())) == 12


def test_two_processes_that_draw_at_once_both_get_the_folder(drawn, monkeypatch):
    write_whole = faces.portraits.write_portraits

    def write_while_another_finishes(folder):
        monkeypatch.setattr(faces.portraits, "write_portraits", write_whole)
        faces.embedded_portraits()
        write_whole(folder)

    monkeypatch.setattr(
        faces.portraits, "write_portraits", write_while_another_finishes
    )
    folder = faces.embedded_portraits()
    assert len(drawn) == 2
    assert len(list(folder.glob("*.jpg"))) == 12
    assert [p.name for p in faces.OUTPUTS.iterdir()] == [folder.name]


def test_a_changed_renderer_does_not_use_old_portraits(drawn, tmp_path, monkeypatch):
    package = write_folder(tmp_path / "renderer", {"__init__.py": b"", "hair.py": b"1"})
    monkeypatch.setattr(faces.portraits, "__file__", str(package / "__init__.py"))
    old = faces.embedded_portraits()
    assert faces.embedded_portraits() == old
    (package / "hair.py").write_bytes(b"2")
    assert faces.embedded_portraits() != old
    assert len(drawn) == 2


def test_an_outputs_folder_that_cannot_be_written_is_an_input_error(drawn):
    faces.OUTPUTS.write_bytes(b"a file, not a folder")
    with pytest.raises(InputError, match="cannot write"):
        faces.embedded_portraits()
    assert drawn == []


# The split ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "fraction", "num_test"),
    [(750, 0.1, 75), (100, 0.1, 10), (10, 0.1, 1), (16, 0.1, 2), (40, 0.25, 10)],
)
def test_the_split_has_the_right_sizes_and_contains_each_image_once(
    number, fraction, num_test
):
    split = split_faces(face_set(number), test_fraction=fraction)
    assert len(split.test) == num_test
    assert split.train.dtype == split.test.dtype == torch.int64
    both = torch.cat([split.train, split.test])
    assert sorted(both.tolist()) == list(range(number))
    assert split.how == "random"


def test_the_same_seed_gives_the_same_split_and_another_seed_another():
    images = face_set(200)
    one, again = split_faces(images, seed=3), split_faces(images, seed=3)
    assert torch.equal(one.train, again.train)
    assert torch.equal(one.test, again.test)
    other = split_faces(images, seed=4)
    assert set(one.test.tolist()) != set(other.test.tolist())


def test_both_sets_are_shuffled_by_torch_randperm():
    split = split_faces(face_set(100), seed=5)
    for index in (split.train, split.test):
        order = torch.randperm(len(index), generator=torch.Generator().manual_seed(5))
        assert torch.equal(index, index.sort().values[order])
    assert split.train.tolist() != sorted(split.train.tolist())


def test_max_images_keeps_the_first_training_images():
    whole, short = split_faces(face_set(100)), split_faces(face_set(100), max_images=20)
    assert torch.equal(short.train, whole.train[:20])
    assert torch.equal(short.test, whole.test)
    assert len(split_faces(face_set(100), max_images=1000).train) == 90


def test_every_image_is_in_the_test_set_of_some_seeds_but_not_of_all():
    times = torch.zeros(50)
    for seed in range(100):
        times[split_faces(face_set(50), seed=seed).test] += 1
    assert times.sum() == 100 * 5
    assert times.min() > 0
    assert times.max() < 30


@pytest.mark.parametrize("seed", range(5))
def test_by_groups_no_sitter_is_in_both_sets(seed):
    images = face_set(300, groups=30)
    split = split_faces(images, by="groups", seed=seed)
    train = {images.groups[i] for i in split.train.tolist()}
    test = {images.groups[i] for i in split.test.tolist()}
    assert split.how == "groups"
    assert train.isdisjoint(test)
    assert len(train) + len(test) == 30
    assert len(split.test) == 30
    both = torch.cat([split.train, split.test])
    assert sorted(both.tolist()) == list(range(300))


@pytest.mark.parametrize("seed", range(5))
def test_by_groups_with_unequal_sitters_the_test_set_is_about_a_tenth(seed):
    sizes = [1, 2, 3, 5, 8, 13, 4, 6, 7, 9, 2, 10, 3, 12, 15]
    groups = [f"s{g}" for g, size in enumerate(sizes) for _ in range(size)]
    images = FaceSet(torch.zeros(100), [str(i) for i in range(100)], groups)
    split = split_faces(images, by="groups", seed=seed)
    assert 1 <= len(split.test) <= 10 + max(sizes) / 2
    assert {groups[i] for i in split.train}.isdisjoint(groups[i] for i in split.test)


def test_by_groups_without_known_groups_is_random_and_gives_the_reason():
    split = split_faces(face_set(100), by="groups")
    assert split.how.startswith("random (no groups are known")
    assert torch.equal(split.test, split_faces(face_set(100)).test)


def test_an_unknown_kind_of_split_is_an_input_error():
    with pytest.raises(InputError, match="split 'sitter': unknown; use random, groups"):
        split_faces(face_set(100), by="sitter")


def test_a_split_by_folders_uses_the_folders_train_and_val():
    names = ["train/a/1.png", "train/2.png", "val/b/3.png", "val/4.png"]
    faces = FaceSet(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), names)
    split = split_faces(faces, by="folders", seed=1)
    assert sorted(split.train.tolist()) == [0, 1]
    assert sorted(split.test.tolist()) == [2, 3]
    assert split.how == "folders train and val"
    for bad in (["a/1.png"], ["train/val/1.png"]):
        with pytest.raises(InputError, match="not in a folder named train or val"):
            split_faces(FaceSet(faces.images[:1], bad), by="folders")
    with pytest.raises(InputError, match="must both contain images"):
        split_faces(FaceSet(faces.images[:2], names[:2]), by="folders")


def test_folders_of_a_split_are_not_sitters(tmp_path):
    for name in ("train/faces", "train/scenes", "val/faces"):
        for number in range(5):
            image = np.full((8, 8, 3), number * 20, np.uint8)
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            write_image(tmp_path / name / f"{number}.png", image)
    assert load_faces(str(tmp_path)).groups is None


@pytest.mark.parametrize("fraction", [0.0, 0.01, 1.0])
def test_a_fraction_that_leaves_a_set_empty_is_an_input_error(fraction):
    with pytest.raises(InputError, match=f"test_fraction {fraction}: leaves"):
        split_faces(face_set(10), test_fraction=fraction)


def test_groups_that_leave_no_training_set_are_an_input_error():
    with pytest.raises(InputError, match="leaves 0 training"):
        split_faces(face_set(10, groups=2), by="groups", test_fraction=1.0)


def names_of(images: FaceSet, index: torch.Tensor) -> set[str]:
    return {images.names[i] for i in index.tolist()}


@pytest.mark.parametrize("number", range(90, 110))
def test_adding_an_image_moves_at_most_one_other_image(number):
    before, after = face_set(number, first=1), face_set(number + 1)
    old = names_of(before, split_faces(before).test)
    new = names_of(after, split_faces(after).test)
    assert len((old ^ new) - {"photo 000.jpg"}) <= 1


def test_the_split_does_not_depend_on_the_order_of_the_images():
    images = face_set(100, groups=20)
    mixed = FaceSet(images.images, images.names[::-1], images.groups[::-1])
    for by in ("random", "groups"):
        one, other = split_faces(images, by=by), split_faces(mixed, by=by)
        assert names_of(images, one.test) == names_of(mixed, other.test)


# The hash -------------------------------------------------------------------------


def test_the_data_hash_changes_with_one_pixel_and_with_one_name():
    images = face_set(10)
    assert images.data_hash() == face_set(10).data_hash()
    assert len(images.data_hash()) == 64
    pixel = face_set(10)
    pixel.images[3, 1, 0, 1] += 1
    assert pixel.data_hash() != images.data_hash()
    renamed = face_set(10)
    renamed.names[4] += "x"
    assert renamed.data_hash() != images.data_hash()
    fewer = FaceSet(images.images[:-1], images.names[:-1])
    assert fewer.data_hash() != images.data_hash()
