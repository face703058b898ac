"""`deepcolor grade`: an honest solution of another author, and tampered ones."""

import importlib.util
import json
import shutil
import zipfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import cv2
import nbformat
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers.apps.grade import _unpacked, grade
from helpers.apps.rubric import COMPONENTS, places_of, read_outline
from helpers.apps.runner import NOTEBOOKS
from helpers.apps.submission import find_tour, open_submission
from helpers.cli import main
from helpers.data.faces import load_faces
from helpers.files import PROJECT, InputError, read_json, write_json

SOLUTION = Path(__file__).with_name("other_solution")
FILM_SECONDS = 330


def import_solution(folder):
    spec = importlib.util.spec_from_file_location("solution", folder / "submission.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def to_picture(image):
    """Convert (3, H, W) float BGR in 0..1 to what cv2.imwrite takes."""
    return (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


@pytest.fixture(scope="session")
def honest(tmp_path_factory):
    """Return the folder of a complete submission by another author."""
    folder = tmp_path_factory.mktemp("honest")
    shutil.copy(SOLUTION / "submission.py", folder)
    (folder / "reported.txt").write_text("{}")
    (folder / "images").mkdir()
    for number, image in enumerate(load_faces("portraits").images[:40]):
        cv2.imwrite(
            str(folder / "images" / f"{number:02}.png"), to_picture(image / 255.0)
        )
    solution, reported = import_solution(folder), {}
    for name in ("regressor", "colorizer"):
        torch.manual_seed(0)
        net = getattr(solution, name.capitalize())()
        reported[name] = solution.train(net)
        torch.save(net.state_dict(), folder / f"{name}.pt")
    (folder / "reported.txt").write_text(repr(reported))
    write_pictures(folder, solution)
    write_notebook(folder)
    (folder / "my_report.pdf").write_bytes(b"%PDF-1.7")
    write_film(folder / "videotour" / "tour.mp4")
    return folder


def write_pictures(folder, solution):
    images, net = solution.load(), solution.colorizer()
    for part, index in zip(("train", "test"), solution.split(), strict=True):
        (folder / "colorized" / part).mkdir(parents=True)
        lab = solution.to_lab(images[index[:2]])
        with torch.no_grad():
            lab[:, 1:] = net(lab[:, :1] / 100)
        for number, one in enumerate(lab):
            bgr = cv2.cvtColor(one.permute(1, 2, 0).numpy(), cv2.COLOR_LAB2BGR)
            path = folder / "colorized" / part / f"{number}.png"
            cv2.imwrite(str(path), (bgr * 255).round().astype(np.uint8))


def write_notebook(folder):
    source = "import torch\ndevice = torch.cuda.is_available()\nnet.to(device)"
    output = new_output("stream", name="stdout", text="epoch 1\n")
    cell = new_code_cell(source, execution_count=1, outputs=[output])
    (folder / "notebooks").mkdir()
    nbformat.write(new_notebook(cells=[cell]), folder / "notebooks" / "all.ipynb")


def write_film(path):
    """Write a film of 330 frames at one frame per second."""
    path.parent.mkdir()
    film = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 1, (64, 64))
    for number in range(FILM_SECONDS):
        film.write(np.full((64, 64, 3), number % 255, np.uint8))
    film.release()


@pytest.fixture
def copy(honest, tmp_path):
    return shutil.copytree(honest, tmp_path / "submission")


@contextmanager
def changed_notebook(folder):
    """Yield the submission's notebook; write it again at the end."""
    path = folder / "notebooks" / "all.ipynb"
    notebook = nbformat.read(path, as_version=4)
    yield notebook
    nbformat.write(notebook, path)


def failures(folder, **given):
    """Return the failed checks of each component that does not pass."""
    grade(folder, log=lambda line: None, **given)
    content = read_json(folder / "grade.json")
    found = {
        c["title"]: [f["check"] for f in c["findings"] if not f["holds"]]
        for c in content["components"]
    }
    found["whole"] = [f["check"] for f in content["whole"] if not f["holds"]]
    return {title: checks for title, checks in found.items() if checks}


def test_an_honest_solution_of_another_author_gets_full_marks(copy):
    assert failures(copy) == {}
    content = read_json(copy / "grade.json")
    assert content["points"] == 100
    assert all(c["verdict"] == "pass" for c in content["components"])
    page = (copy / "grade.html").read_text()
    assert "100 of 100" in page and "Batch normalization" in page


def replace(folder, old, new, file="submission.py"):
    path = folder / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def augmented_test_images(folder):
    replace(folder, "class Regressor", TEST_IMAGES + "class Regressor")


TEST_IMAGES = """def test_images():
    return augment(load()[split()[1]])


"""


def wrong_stride(folder):
    replace(folder, "nn.Conv2d(channels, 3, 3, 2, 1), nn.BatchNorm2d(3), nn.ReLU()]\n"
            "            channels = 3\n        self.layers = nn.Sequential(*layers, nn.Conv2d(3, 2, 3, 2, 1))",  # noqa: E501
            "nn.Conv2d(channels, 3, 3, 1, 1), nn.BatchNorm2d(3), nn.ReLU()]\n"
            "            channels = 3\n        self.layers = nn.Sequential(*layers, nn.Conv2d(3, 2, 3, 2, 1), nn.AdaptiveAvgPool2d(1))")  # noqa: E501  # fmt: skip


def typed_error(folder):
    content = eval((folder / "reported.txt").read_text())
    content["colorizer"] = 2.7e-5
    (folder / "reported.txt").write_text(repr(content))


def training_mode(folder):
    replace(folder, "colorizer.pt\"))\n    return net.eval()", "colorizer.pt\"))\n    return net.train()")  # noqa: E501  # fmt: skip


def swapped_channels(folder):
    replace(folder, "np.stack(images))", "np.stack(images)[..., ::-1].copy())")


def missing_notebook(folder):
    (folder / "notebooks" / "all.ipynb").unlink()


def not_executed(folder):
    replace(
        folder, '"execution_count": 1', '"execution_count": 3', "notebooks/all.ipynb"
    )


def other_weights(folder):
    torch.manual_seed(5)
    torch.save(
        import_solution(folder).Colorizer().state_dict(), folder / "colorizer.pt"
    )


def leaked_images(folder):
    replace(folder, "return order[num_test:], order[:num_test]",
            "return order[num_test - 2 :], order[:num_test]")  # fmt: skip


def leaked_copies(folder):
    shutil.copy(folder / "images" / "00.png", folder / "images" / "99.png")
    for number in range(1, 12):  # some of the copies are on the other side
        image = cv2.imread(str(folder / "images" / f"{number:02}.png"))
        cv2.imwrite(str(folder / "images" / f"m{number:02}.png"), image[:, ::-1])


def leaked_copies_saved_again(folder):
    for number in range(12):  # some of the copies are on the other side
        image = cv2.imread(str(folder / "images" / f"{number:02}.png"))
        packed = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
        path = folder / "images" / f"c{number:02}.png"
        cv2.imwrite(str(path), cv2.imdecode(packed, cv2.IMREAD_COLOR))


def untrained_norms(folder):
    net = import_solution(folder).Regressor()
    torch.save(net.state_dict(), folder / "regressor.pt")
    old = 'regressor.pt"))\n    return net.eval()'
    replace(folder, old, old.replace("eval", "train"))


def not_natural_units(folder):
    replace(folder, "cv2.COLOR_BGR2LAB)", "cv2.COLOR_BGR2LAB) / 100")


def five_copies(folder):
    replace(folder, "range(9)", "range(4)")


def no_darkening(folder):
    replace(folder, "rng.uniform(0.6, 1.0)", "1.0")


def pictures_of_others(folder):
    noise = np.random.default_rng(0).integers(0, 255, (128, 128, 3), np.uint8)
    for path in (folder / "colorized" / "test").iterdir():
        cv2.imwrite(str(path), noise)


def no_batchnorm(folder):
    replace(folder, "[nn.BatchNorm2d(3), nn.ReLU()]", "[nn.Identity(), nn.ReLU()]")


def short_film(folder):
    shutil.rmtree(folder / "videotour")
    (folder / "my_report.pdf").unlink()


TAMPERED = {
    augmented_test_images: ("Augment the dataset", "test images are not augmented"),
    wrong_stride: (
        "Build a simple regressor",
        "seven convolutions, each halves the image",
    ),
    typed_error: (
        "Colorize the image",
        "the reported test MSE is that of these weights",
    ),
    training_mode: ("Batch normalization", "colorizer: evaluation mode in the test"),
    swapped_channels: (
        "Load the dataset",
        "channels blue, green, red, as OpenCV reads them",
    ),
    missing_notebook: ("whole", "all notebooks are there"),
    not_executed: ("whole", "all was run as it is"),
    other_weights: (
        "Colorize the image",
        "the reported test MSE is that of these weights",
    ),
    leaked_images: ("Training", "no test image is in the training set"),
    leaked_copies: ("Training", "no test image is in the training set"),
    leaked_copies_saved_again: ("Training", "no test image is in the training set"),
    untrained_norms: ("Batch normalization", "regressor: running statistics"),
    not_natural_units: ("Convert to L*a*b*", "a*, b* in natural units"),
    five_copies: ("Augment the dataset", "ten times as many"),
    no_darkening: (
        "Augment the dataset",
        "one random factor from 0.6 to 1 for all channels",
    ),
    pictures_of_others: ("Training", "it is a test image with its own L*"),
    no_batchnorm: ("Colorize the image", "the check could be made"),
    short_film: ("Report and video tour", "a written report"),
}


@pytest.mark.parametrize("tamper", TAMPERED, ids=lambda f: f.__name__)
def test_a_tampered_submission_is_caught_and_the_fault_is_named(tamper, copy):
    tamper(copy)
    component, check = TAMPERED[tamper]
    found = failures(copy)
    assert check in found[component], found


def test_a_zip_is_graded_and_the_result_is_written_beside_it(copy, tmp_path):
    file = tmp_path / "handed_in.zip"
    with zipfile.ZipFile(file, "w") as archive:
        for path in copy.rglob("*"):
            archive.write(path, Path("work") / path.relative_to(copy))
    grade(file, log=lambda line: None)
    assert read_json(tmp_path / "handed_in.grade.json")["points"] == 100
    assert (tmp_path / "handed_in.grade.html").is_file()


def test_points_of_a_submission_that_fails_as_a_whole_are_not_simply_given(copy):
    lines = []
    grade(copy, log=lines.append)
    assert lines[-1].startswith("100 of 100 points; wrote")
    assert read_json(copy / "grade.json")["trusted"]
    with changed_notebook(copy) as notebook:
        notebook.cells[0].execution_count = None
    grade(copy, log=lines.append)
    assert "not to be given before somebody has looked" in lines[-1]
    assert not read_json(copy / "grade.json")["trusted"]
    assert "not to be given" in (copy / "grade.html").read_text()


def test_a_picture_s_bytes_are_no_extra_credit(copy):
    with changed_notebook(copy) as notebook:
        data = {"image/png": "abcTanhmapsclassif"}  # base64 holds any word by chance
        notebook.cells[0].outputs = [new_output("display_data", data=data)]
    failures(copy)
    found = read_json(copy / "grade.json")["extra_credits"]
    assert set(found.values()) == {"not found"}


def test_in_a_hand_in_the_run_folder_and_its_film_are_found(tmp_path):
    """The zip of `deepcolor submit` holds modules named submission.py, too."""
    names = ["helpers/apps/submission.py", "tests/apps/other_solution/submission.py"]
    names += ["outputs/quick/results.json", "outputs/quick/notebooks/01_load.ipynb"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in [*names, "notebooks/01_load.ipynb", "videotour/tour.mp4"]:
            archive.writestr(name, "{}")
    folder = _unpacked(tmp_path / "a.zip", tmp_path / "scratch")
    assert folder == tmp_path / "scratch" / "outputs" / "quick"
    assert find_tour(folder) == tmp_path / "scratch" / "videotour" / "tour.mp4"


def test_the_film_of_a_run_folder_is_in_it_or_in_its_project(tmp_path):
    project = tmp_path / "student"
    (project / "videotour").mkdir(parents=True)
    (project / "videotour" / "tour.mp4").write_bytes(b"film")
    (tmp_path / "disk" / "quick").mkdir(parents=True)
    (project / "outputs").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert (
        find_tour(project / "outputs" / "quick") == project / "videotour" / "tour.mp4"
    )
    assert find_tour(tmp_path / "disk" / "quick") is None


def test_the_names_of_report_and_film_may_have_capitals(tmp_path):
    shutil.copy(SOLUTION / "submission.py", tmp_path)
    (tmp_path / "reported.txt").write_text("{}")
    (tmp_path / "videotour").mkdir()
    for name in ("Final_Report.PDF", "videotour/Tour.WEBM"):
        (tmp_path / name).write_bytes(b"x")
    work = open_submission(tmp_path)
    assert work.report() == tmp_path / "Final_Report.PDF"
    assert work.tour() == tmp_path / "videotour" / "Tour.WEBM"


def test_a_zip_with_a_password_is_refused(tmp_path):
    path = tmp_path / "locked.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("results.json", "{}")
    data = bytearray(path.read_bytes())
    for start, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        data[data.find(start) + place] |= 1  # the flag of an encrypted member
    path.write_bytes(data)
    with pytest.raises(
        InputError, match=r"locked\.zip: cannot be unpacked \(.*password"
    ):
        grade(path)


@pytest.mark.parametrize(
    "content",
    [
        {"accuracy": 0.9},
        [1],
        {"notebooks": 3},
        {"notebooks": {"04": {}}},
        {"notebooks": {"04": {"parameters": {}, "data": {}}}},
    ],
)
def test_results_of_another_program_are_refused(content, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="not written by `deepcolor run`"):
        grade(tmp_path)


@pytest.mark.parametrize("body", ["undefined_name", "assert False", "exit()"])
def test_whatever_the_code_raises_costs_its_own_checks_only(body, copy):
    replace(copy, "def augment(images):\n", f"def augment(images):\n    {body}\n")
    assert set(failures(copy)) == {"Augment the dataset"}


def test_an_adapter_may_import_its_own_modules(copy):
    (copy / "other_author_module.py").write_text("SEED = 1\n")
    replace(copy, "torch.manual_seed(1)", "torch.manual_seed(other_author_module.SEED)")
    replace(copy, "import glob\n", "import glob\nimport other_author_module\n")
    assert failures(copy) == {}


def test_images_of_another_author_s_solution_are_its_own(copy):
    with pytest.raises(InputError, match=r"--images: .*submission\.py loads its own"):
        grade(copy, "portraits")


def test_a_zip_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("helpers.apps.grade.MAX_ARCHIVE_BYTES", 1000)
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("results.json", b"0" * 2000)
    with pytest.raises(InputError, match=r"unpacks to .* refused"):
        grade(tmp_path / "bomb.zip")


def test_what_cannot_be_graded_is_one_line(tmp_path, copy):
    with pytest.raises(InputError, match=r"neither results.json nor submission\.py"):
        grade(tmp_path / "nothing")
    (tmp_path / "bad.zip").write_bytes(b"PK not a zip")
    with pytest.raises(InputError, match=r"bad.zip: not a complete zip file"):
        grade(tmp_path / "bad.zip")
    with zipfile.ZipFile(tmp_path / "bad.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("results.json", bytes(range(256)) * 100)
    content = bytearray((tmp_path / "bad.zip").read_bytes())
    content[50:90] = b"x" * 40
    (tmp_path / "bad.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"bad.zip: not a complete zip file"):
        grade(tmp_path / "bad.zip")
    old = {"parameters": {"images": "portraits"}, "data": {}, "networks": {}}
    write_json(tmp_path / "old" / "results.json", {"notebooks": {"04_x": old}})
    with pytest.raises(InputError, match="not written by `deepcolor run`"):
        grade(tmp_path / "old")
    replace(copy, "def augment", "def other_name")
    with pytest.raises(InputError, match="lacks augment"):
        grade(copy)
    (copy / "submission.py").write_text("import no_such_package")
    result = CliRunner().invoke(main, ["grade", str(copy)])
    assert result.exit_code == 2 and "No module named" in result.output


def test_an_error_in_the_submission_fails_its_check_and_no_other(copy):
    replace(
        copy, "def augment(images):", "def augment(images):\n    raise ValueError('x')"
    )
    assert failures(copy) == {"Augment the dataset": ["the check could be made"]}
    content = json.loads((copy / "grade.json").read_text())
    assert content["points"] == 90


def test_the_headings_of_the_rubric_are_in_our_notebooks():
    course = SimpleNamespace(folder=PROJECT, notebooks=NOTEBOOKS, originals=NOTEBOOKS)
    outline = read_outline(course)
    for component in COMPONENTS:
        words = ", ".join(component.headings)
        expected = f"{component.notebook}: {words}" if words else ""
        assert places_of(course, component, outline) == expected
        if component.headings:  # as in the README's map
            words = "; ".join(component.headings)
            row = f"](notebooks/{component.notebook}.ipynb) | {words} |"
            assert row in (PROJECT / "README.md").read_text(), component.title


def test_the_page_names_headings_of_another_author_and_shows_pictures(copy):
    with changed_notebook(copy) as notebook:
        text = "# My solution\n## A small <regressor>\ntext\n## Tanh at the end\n"
        text += "```python\n# a regressor in code is no heading\n```\n"
        notebook.cells.insert(0, new_markdown_cell(text))
    failures(copy)
    content = read_json(copy / "grade.json")
    assert content["components"][3]["places"] == "all: A small <regressor>"
    assert content["extra_credits"]["Tanh in the last layer"] == "all: Tanh at the end"
    page = (copy / "grade.html").read_text()
    assert "all: A small &lt;regressor&gt;" in page
    assert page.count('<img src="data:image/png;base64,') == 4  # 2 of each set


def test_a_missing_gpu_path_says_what_was_looked_for(copy):
    with changed_notebook(copy) as notebook:
        notebook.cells[0].source = "print('epoch 1')"
    assert len(failures(copy)["GPU programming"]) == 2
    gpu = read_json(copy / "grade.json")["components"][7]["findings"]
    assert gpu[0]["found"] == "no cell contains cuda.is_available or choose_device"


def test_a_comment_is_no_code_path_for_a_gpu(copy):
    with changed_notebook(copy) as notebook:
        notebook.cells[0].source = "# TODO: torch.cuda.is_available(), net.to(device)"
    assert len(failures(copy)["GPU programming"]) == 2


def test_odd_pictures_and_a_damaged_notebook_are_no_reason_to_stop(copy):
    (copy / "colorized" / "test" / "._0.png").write_bytes(b"resource fork")
    (copy / "colorized" / "test" / "z.png").write_bytes(b"no picture")
    large = np.full((2000, 1000, 3), 128, np.uint8)
    cv2.imwrite(str(copy / "colorized" / "test" / "2.tiff"), large)
    (copy / "notebooks" / "zz.ipynb").write_text('{"cells": [')
    found = failures(copy)
    assert list(found) == ["whole"]
    page = (copy / "grade.html").read_text()
    assert "._0" not in page and len(page) < 1_000_000
    assert page.count("data:image/png") == 5


def test_relu_is_found_where_it_acts(copy):
    assert "ReLU" in (copy / "submission.py").read_text()
    content = (copy / "submission.py").read_text()
    (copy / "submission.py").write_text(content.replace("nn.ReLU()", "nn.Identity()"))
    assert (
        "ReLU after the hidden convolutions"
        in failures(copy)["Build a simple regressor"]
    )
