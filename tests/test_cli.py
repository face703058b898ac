import os
import re
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from offline import can_isolate, offline

from helpers import nets
from helpers.cli import main, options
from helpers.data.portraits import write_portraits
from helpers.experiments.profiles import PROFILES
from helpers.experiments.registry import DEFAULT_SEED
from helpers.experiments.run_folder import MAX_SEED
from helpers.files import PROJECT, read_json
from helpers.progress import JUPYTERLAB_VARIABLE
from helpers.training import weights as weights_module
from helpers.training.weights import save_weights

COURSE = PROJECT.parent / "shared" / "face_images.zip"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder of 60 small photographs: 10 sitters, 6 shots each."""
    folder = tmp_path_factory.mktemp("photographs")
    write_portraits(folder, num_sitters=10, shots=6)
    return folder


def deepcolor(*arguments, exit_code=0):
    """Run the command line; returns everything it printed."""
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == exit_code, result.output
    return result.output


def one_error_line(output):
    (line,) = [x for x in output.splitlines() if x.startswith("error: ")]
    assert "Traceback" not in output
    return line


@pytest.fixture(scope="module")
def course_images(photographs):
    """The course's photographs if available, otherwise the 60 portraits."""
    return COURSE if COURSE.exists() else photographs


@pytest.fixture(scope="module")
def course_run(course_images, tmp_path_factory):
    """A run of the whole course with one epoch per network, without a network."""
    run_dir = tmp_path_factory.mktemp("run")
    command = [sys.executable, "-m", "helpers", "run", "--images", str(course_images)]
    command += ["--run-dir", str(run_dir), "--epochs", "1"]
    done = subprocess.run(offline(command), capture_output=True, text=True, cwd=PROJECT)
    assert done.returncode == 0, done.stdout + done.stderr
    return run_dir, done.stdout


@pytest.mark.skipif(not can_isolate(), reason="network namespaces are not allowed here")
def test_the_course_of_these_tests_has_no_network():
    code = "import socket; socket.create_connection(('192.0.2.1', 80), 1)"
    done = subprocess.run(
        offline([sys.executable, "-c", code]), capture_output=True, text=True
    )
    assert "Network is unreachable" in done.stderr


@pytest.mark.timeout(1800)
def test_the_course_runs_end_to_end(course_run, course_images):
    run_dir, output = course_run
    number = 675 if course_images == COURSE else 60
    assert f"{number} images" in output
    results = read_json(run_dir / "results.json")
    assert len(results["notebooks"]) == 11
    data = {name: n["data"] for name, n in results["notebooks"].items()}
    assert {d["images"] for d in data.values()} == {number}
    del data["01_load"]  # shows the whole split
    most = PROFILES["quick"].max_images
    assert max(d["training_images"] for d in data.values()) <= most
    page = (run_dir / "results.md").read_text()
    assert "report000/" in page and "U-Net" in page
    assert list((run_dir / "colorized/train").glob("*.png"))
    assert list((run_dir / "colorized/test").glob("*.png"))
    assert len(list((run_dir / "figures").glob("*.png"))) > 10
    assert read_json(run_dir / "environment.json")["versions"]["torch"]


def test_resume_recomputes_nothing(course_run, course_images):
    run_dir, _ = course_run
    command = ["run", "--images", course_images, "--run-dir", run_dir]
    output = deepcolor(*command, "--epochs", 1, "--resume")
    assert output.count("unchanged, skipped") == 11


def test_chrominance_prints_a_table(course_run, photographs):
    run_dir, _ = course_run
    output = deepcolor("chrominance", photographs, "--run-dir", run_dir)
    rows = re.findall(r"^(s\d\d_\d\d\.jpg) +(-?[\d.]+) +(-?[\d.]+)$", output, re.M)
    assert len(rows) == 60
    assert all(abs(float(a)) < 128 and abs(float(b)) < 128 for _, a, b in rows)


def test_colorize_keeps_size_and_lightness_and_never_overwrites(
    course_run, photographs, tmp_path
):
    run_dir, _ = course_run
    gray = cv2.imread(str(photographs / "s01_01.jpg"), cv2.IMREAD_GRAYSCALE)
    cv2.imwrite(str(tmp_path / "old photo.png"), cv2.resize(gray, (211, 307)))
    command = ["colorize", tmp_path / "old photo.png", "-o", tmp_path / "out"]
    command += ["--run-dir", run_dir]
    deepcolor(*command)
    colored = cv2.imread(str(tmp_path / "out/old photo.png"))
    assert colored.shape == (307, 211, 3)
    assert np.ptp(colored.astype(int), axis=2).max() > 0  # it has color now
    line = one_error_line(deepcolor(*command, exit_code=2))
    assert "old photo.png: already exists" in line
    deepcolor(*command, "--force")


def test_a_regressor_is_refused_for_colorizing_and_a_colorizer_for_means(
    course_run, photographs, tmp_path
):
    run_dir, _ = course_run
    regressor = run_dir / "04_regressor/regressor.safetensors"
    unet = run_dir / "08_extra_credit/best.safetensors"
    command = ["colorize", photographs, "-o", tmp_path, "--weights", regressor]
    assert "holds a regressor" in one_error_line(deepcolor(*command, exit_code=2))
    line = one_error_line(deepcolor(*command, "--profile", "quick", exit_code=2))
    assert "--weights: cannot be combined with --profile" in line
    command = ["chrominance", photographs, "--weights", unet]
    assert "holds a unet" in one_error_line(deepcolor(*command, exit_code=2))


def test_evaluate_prints_every_metric(course_run, photographs):
    run_dir, _ = course_run
    weights = run_dir / "08_extra_credit/best.safetensors"
    output = deepcolor("evaluate", weights, "--images", photographs)
    for name in ("mse", "psnr", "ssim", "ciede2000", "colorfulness"):
        assert re.search(rf"^{name} +[\d.e-]+ \[", output, re.M), name


def test_evaluate_takes_our_own_weights_and_the_test_part_of_a_split(photographs):
    everything = deepcolor("evaluate", "regressor", "--images", photographs)
    command = ["evaluate", "regressor", "--images", photographs, "--split", "random"]
    output, other = deepcolor(*command), deepcolor(*command, "--seed", 1)
    assert "over 60 images\n" in everything
    assert "over 6 images, the test set of split random, seed 4\n" in output
    figures = {text.splitlines()[-1] for text in (everything, output, other)}
    assert len(figures) == 3


@pytest.fixture(scope="module")
def stack_weights(tmp_path_factory):
    """An untrained network from the ablation study."""
    path = tmp_path_factory.mktemp("weights") / "stack.safetensors"
    save_weights(path, nets.Stack(), "stack", {})
    return path


@pytest.mark.parametrize("kind", ["stack", "unet"])
def test_predict_writes_pictures_truths_and_estimations(
    kind, photographs, unet_weights, stack_weights, tmp_path
):
    weights, side = (stack_weights, 80) if kind == "stack" else (unet_weights, 128)
    command = ["predict", weights, "--images", photographs, "-o", tmp_path]
    output = deepcolor(*command, "--save-estimations")
    for folder in ("prediction", "truth", "grayscale"):
        assert len(list((tmp_path / folder).glob("*.png"))) == 60
    assert re.search(r"^accuracy +0\.\d+ \[", output, re.M)
    stored = np.load(tmp_path / "estimations_test.npy")
    assert stored.shape == (60, side, side, 3) and stored.dtype == np.uint8
    names = (tmp_path / "estimations_test.txt").read_text().splitlines()
    assert names == sorted(p.name for p in photographs.glob("*.jpg"))
    picture = cv2.imread(str(tmp_path / "prediction" / names[3].replace("jpg", "png")))
    assert (picture[..., ::-1] == stored[3]).all()  # RGB there, BGR here
    line = one_error_line(deepcolor(*command, exit_code=2))
    assert "prediction: exists; use --force" in line
    shutil.rmtree(tmp_path / "prediction")  # as in a folder of the user's own
    before = (tmp_path / "truth" / names[0].replace("jpg", "png")).stat().st_mtime_ns
    line = one_error_line(deepcolor(*command, exit_code=2))
    assert "truth: exists; use --force" in line
    after = (tmp_path / "truth" / names[0].replace("jpg", "png")).stat().st_mtime_ns
    assert before == after


def test_compare_tells_the_paired_difference(photographs, unet_weights, tmp_path):
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    save_weights(other, nets.Colorizer(3, 2), "colorizer", {"maps": 3, "num_down": 2})
    command = ["compare", unet_weights, other, "--images", photographs]
    output = deepcolor(*command, "--split", "groups")
    assert "6 test images, split groups" in output
    errors = re.findall(r"mse on scale S ([\d.e-]+) \[", output)
    difference = re.search(r"first minus second: ([\d.e-]+) \[", output)[1]
    assert float(difference) == pytest.approx(
        float(errors[0]) - float(errors[1]), rel=0.1
    )
    regressor = tmp_path / "regressor.safetensors"
    save_weights(regressor, nets.Regressor(), "regressor", {})
    command = ["compare", unet_weights, regressor, "--images", photographs]
    line = one_error_line(deepcolor(*command, exit_code=2))
    assert "for example two colorizers or two regressors" in line


def test_networks_with_inputs_of_different_sizes_are_compared_on_the_same_images(
    photographs, unet_weights, tmp_path
):
    small, options = tmp_path / "small.safetensors", {"size": 64, "width": 0.125}
    save_weights(small, nets.build("global_local", **options), "global_local", options)
    output = deepcolor("compare", unet_weights, small, "--images", photographs)
    assert "first minus second" in output


def test_predict_refuses_a_regressor_and_evaluate_takes_the_study(
    photographs, stack_weights, tmp_path
):
    regressor = tmp_path / "regressor.safetensors"
    save_weights(regressor, nets.Regressor(), "regressor", {})
    command = ["predict", regressor, "--images", photographs, "-o", tmp_path]
    line = one_error_line(deepcolor(*command, exit_code=2))
    assert "use `deepcolor chrominance`" in line
    output = deepcolor("evaluate", stack_weights, "--images", photographs)
    assert "MSE of R, G, B in -1..1 over 60 images" in output
    command = ["colorize", photographs, "-o", tmp_path, "--weights", stack_weights]
    assert "holds a stack" in one_error_line(deepcolor(*command, exit_code=2))


def test_another_seed_trains_in_the_same_run_folder(photographs, tmp_path):
    command = ["train", "maps/3", "--images", photographs, "--run-dir", tmp_path]
    for seed in (4, 5):
        deepcolor(*command, "--epochs", 1, "--seed", seed)
    folders = sorted(path.name for path in (tmp_path / "train").iterdir())
    assert folders == ["maps_3_seed4", "maps_3_seed5"]


def test_evaluate_tests_the_study_on_its_own_validation_folder(
    photographs, stack_weights, tmp_path
):
    for number, photograph in enumerate(sorted(photographs.iterdir())[:40]):
        folder = tmp_path / ("val" if number % 4 == 0 else "train")
        folder.mkdir(exist_ok=True)
        shutil.copy(photograph, folder)
    command = ["evaluate", stack_weights, "--images", tmp_path, "--split", "random"]
    output = deepcolor(*command)
    assert "over 10 images, the test set of split folders train and val" in output


def test_evaluate_states_the_figure_of_a_single_pass(photographs, tmp_path):
    path, options = tmp_path / "w.safetensors", {"base": 2, "flip_tta": True}
    torch.manual_seed(0)
    net = nets.build("unet", **options)
    torch.nn.init.normal_(net.last.weight, std=1e5)
    save_weights(path, net, "unet", options)
    output = deepcolor("evaluate", path, "--images", photographs)
    assert "average of 2 passes" in output
    two, one = (
        re.search(rf"^{name} +([\d.e-]+) ", output, re.M)[1]
        for name in ("mse", "mse_single_pass")
    )
    assert float(two) < float(one)


def test_train_goes_on_where_it_was_and_saves_weights(photographs, tmp_path):
    command = ["train", "maps/3", "--images", photographs, "--run-dir", tmp_path]
    first = deepcolor(*command, "--epochs", 2)
    assert "epoch    2 of 2" in first
    again = deepcolor(*command, "--epochs", 2)
    assert "epoch    1 of 2" not in again  # finished: nothing is trained twice
    weights = tmp_path / "train/maps_3_seed4/weights.safetensors"
    assert "mse" in deepcolor("evaluate", weights, "--images", photographs)
    other = one_error_line(deepcolor(*command, "--epochs", 3, exit_code=2))
    assert "num_epochs was 2 and is now 3" in other
    (tmp_path / "train/maps_3_seed4/checkpoint.pt").write_bytes(b"cut")
    with pytest.warns(UserWarning, match="damaged, using") as caught:
        deepcolor(*command, "--epochs", 2)
    line = warnings.formatwarning(caught[0].message, UserWarning, "x.py", 7)
    assert line.startswith("warning: ") and line.count("\n") == 1


def test_a_profile_says_how_many_photographs_train(photographs, tmp_path, monkeypatch):
    short = replace(PROFILES["quick"], max_images=30)
    monkeypatch.setitem(PROFILES, "quick", short)
    command = ["train", "maps/3", "--images", photographs, "--run-dir", tmp_path]
    deepcolor(*command, "--epochs", 1)
    data = read_json(tmp_path / "train/maps_3_seed4/metrics.json")["data"]
    assert (data["training_images"], data["test_images"]) == (30, 6)


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
@pytest.mark.parametrize(
    ("name", "code"), [("SIGINT", 130), ("SIGTERM", -15), ("SIGUSR1", -10)]
)
def test_a_signal_saves_the_training_and_the_same_command_goes_on(
    name, code, photographs, tmp_path
):
    command = [sys.executable, "-m", "helpers", "train", "maps/3", "--images"]
    command += [str(photographs), "--run-dir", str(tmp_path), "--epochs", "30"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    for line in process.stdout:
        if line.startswith("epoch    2 "):
            break
    process.send_signal(getattr(signal, name))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert f"stopped by {name} at epoch" in output
    assert "Traceback" not in output
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert "epoch    1 of 30" not in again.stdout
    assert "epoch   30 of 30" in again.stdout


def test_a_folder_that_cannot_be_written_to_is_found_out_before_training(
    photographs, tmp_path
):
    (tmp_path / "file").write_text("not a folder")
    command = ["train", "maps/3", "--images", photographs, "--epochs", 1]
    output = deepcolor(*command, "--run-dir", tmp_path / "file", exit_code=2)
    assert "cannot write" in one_error_line(output)
    assert "epoch" not in output


def test_train_takes_a_form_or_refuses_an_unknown_trick(photographs, tmp_path):
    command = ["train", "unet/fresh", "--images", photographs, "--epochs", 1]
    deepcolor(*command, "--plain", "--run-dir", tmp_path / "1")
    deepcolor(*command, "--without", "bf16", "--run-dir", tmp_path / "2")
    command += ["--without", "magic", "--run-dir", tmp_path / "3"]
    line = one_error_line(deepcolor(*command, exit_code=2))
    assert "option 'magic': unknown" in line
    metrics = read_json(tmp_path / "1/train/unet_fresh_seed4/metrics.json")
    assert metrics["parameters"]["epochs"] == 1
    assert metrics["networks"]["unet/fresh"]["epochs"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "-p", "num_epoch=1"], "did you mean num_epochs"),
        (["run", "-p", "num_epochs"], "NAME=VALUE"),
        (["run", "--images", "/nowhere/faces"], "no such folder or zip"),
        (["run", "--only", "12"], "notebook '12': unknown"),
        (["train", "maps/4"], "network 'maps/4': unknown"),
        (["evaluate", "none.safetensors"], "no such weights file"),
        (
            ["chrominance", "x.jpg", "--run-dir", "/nowhere"],
            "run `deepcolor run` first",
        ),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_wrong_input_gets_one_line_and_exit_code_2(arguments, words):
    assert words in one_error_line(deepcolor(*arguments, exit_code=2))


def test_three_broken_files_among_sixty_are_named_and_skipped(photographs, tmp_path):
    for number, photograph in enumerate(sorted(photographs.iterdir())):
        data = b"" if number < 3 else photograph.read_bytes()
        (tmp_path / photograph.name).write_bytes(data)
    command = ["train", "regressor/relu", "--images", tmp_path, "--epochs", 1]
    output = deepcolor(*command, "--run-dir", tmp_path / "run")
    assert "57 images" in output and "skipped 3 files" in output
    assert output.count("empty file") == 3


def test_a_missing_photograph_is_named_and_the_others_are_done(
    course_run, photographs, tmp_path
):
    run_dir, _ = course_run
    good = sorted(photographs.iterdir())[0]
    (tmp_path / good.name).write_bytes(good.read_bytes())
    (tmp_path / "torn.jpg").write_bytes(b"")
    command = ["colorize", tmp_path, "-o", tmp_path / "out", "--run-dir", run_dir]
    line = one_error_line(deepcolor(*command, exit_code=1))
    assert "torn.jpg" in line and "the others are done" in line
    assert (tmp_path / "out" / good.with_suffix(".png").name).exists()


@pytest.mark.parametrize("number", [1, 2])
def test_where_no_photograph_can_be_read_the_input_is_wrong(tmp_path, number):
    texts = [tmp_path / f"{n}.txt" for n in range(number)]
    for text in texts:
        text.write_text("a letter")
    for command in (["colorize", "-o", tmp_path / "out"], ["chrominance"]):
        line = one_error_line(deepcolor(*command, *texts, exit_code=2))
        assert all(text.name in line for text in texts)
        assert "others" not in line
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def unet_weights(tmp_path_factory):
    """An untrained U-Net."""
    path = tmp_path_factory.mktemp("weights") / "unet.safetensors"
    save_weights(path, nets.UNet(base=2), "unet", {"base": 2})
    return path


def names_below(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*.png"))


def test_a_folder_is_colored_in_order_with_one_line_each_and_a_summary(
    photographs, unet_weights, tmp_path
):
    command = ["colorize", photographs, "-o", tmp_path, "--weights", unet_weights]
    *lines, summary = deepcolor(*command, "--no-faces").splitlines()
    expected = [f"s{s:02}_{n:02}.png" for s in range(1, 11) for n in range(1, 7)]
    assert lines == [str(tmp_path / name) for name in expected]
    assert names_below(tmp_path) == expected
    assert re.fullmatch(
        r"colorized 60 of 60 photographs in [\d.]+ s \([\d.]+/s\), "
        r"peak memory \d+ MiB",
        summary,
    )


def test_a_zip_gives_the_same_pictures_as_its_folder(
    photographs, unet_weights, tmp_path
):
    archive = shutil.make_archive(str(tmp_path / "faces"), "zip", photographs)
    for given, output in ((photographs, "a"), (archive, "b")):
        command = ["colorize", given, "-o", tmp_path / output]
        deepcolor(*command, "--weights", unet_weights)
    names = names_below(tmp_path / "a")
    assert len(names) == 60 and names == names_below(tmp_path / "b")
    for name in names:
        a, b = (tmp_path / folder / name for folder in "ab")
        assert a.read_bytes() == b.read_bytes()


def test_two_photographs_for_one_file_are_refused_before_any_work(
    photographs, unet_weights, tmp_path
):
    good, *_ = photographs.iterdir()
    for path in ("1/first.jpg", "1/x.jpg", "1/x.jpeg", "2/x.jpg"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        shutil.copy(good, tmp_path / path)
    command = ["colorize", "-o", tmp_path / "out", "--weights", unet_weights, "--force"]
    for given in (["1"], ["2", "1/x.jpg"]):
        inputs = [tmp_path / name for name in given]
        line = one_error_line(deepcolor(*command, *inputs, exit_code=2))
        places = re.match(r"error: (.*) and (.*): both would become (.*);", line)
        both = {Path(place) for place in places.groups()[:2]}
        expected = ("1/x.jpg", "1/x.jpeg") if given == ["1"] else ("1/x.jpg", "2/x.jpg")
        assert both == {tmp_path / name for name in expected}
        assert places[3] == str(tmp_path / "out/x.png")
        assert not (tmp_path / "out").exists()


def test_a_last_picture_that_is_already_there_stops_the_work_before_the_first(
    photographs, unet_weights, tmp_path
):
    (tmp_path / "s10_06.png").write_bytes(b"mine")
    command = ["colorize", photographs, "-o", tmp_path, "--weights", unet_weights]
    line = one_error_line(deepcolor(*command, exit_code=2))
    assert f"{tmp_path / 's10_06.png'}: already exists; use --force" in line
    assert names_below(tmp_path) == ["s10_06.png"]
    assert (tmp_path / "s10_06.png").read_bytes() == b"mine"
    deepcolor(*command, "--force")
    assert cv2.imread(str(tmp_path / "s10_06.png")).shape == (128, 128, 3)


def test_all_unreadable_photographs_are_named_at_the_end(
    photographs, unet_weights, tmp_path
):
    (tmp_path / "in").mkdir()
    for number, photograph in enumerate(sorted(photographs.iterdir())[:20]):
        torn = number in (0, 7)
        data = photograph.read_bytes()[: 0 if torn else None]
        (tmp_path / "in" / photograph.name).write_bytes(data)
    (tmp_path / "note.jpg").write_text("not a photograph")
    command = ["colorize", tmp_path / "note.jpg", tmp_path / "in"]
    command += ["-o", tmp_path / "out", "--weights", unet_weights]
    output = deepcolor(*command, exit_code=1)
    line = one_error_line(output)
    assert line.startswith("error: 3 of 21 photographs cannot be read; the others are")
    assert f"{tmp_path / 'in' / 's01_01.jpg'}: empty file" in line
    assert f"{tmp_path / 'in' / 's02_02.jpg'}: empty file" in line
    assert f"{tmp_path / 'note.jpg'}: not an image" in line
    assert "colorized 18 of 21 photographs" in output
    assert len(names_below(tmp_path / "out")) == 18


def test_means_of_unreadable_photographs_are_named_at_the_end(photographs, tmp_path):
    weights = tmp_path / "regressor.safetensors"
    save_weights(weights, nets.Regressor(), "regressor", {})
    good = sorted(photographs.iterdir())[:2]
    (tmp_path / "torn.jpg").write_bytes(b"")
    command = ["chrominance", good[0], tmp_path / "torn.jpg", good[1]]
    output = deepcolor(*command, "--weights", weights, exit_code=1)
    assert re.findall(r"^(s\d\d_\d\d.jpg) ", output, re.M) == [p.name for p in good]
    line = one_error_line(output)
    assert line.startswith("error: 1 of 3") and "torn.jpg: empty file" in line


def test_a_picture_that_cannot_be_written_is_one_line(
    photographs, unet_weights, tmp_path
):
    (tmp_path / "file").write_bytes(b"not a folder")
    command = ["colorize", photographs, "-o", tmp_path / "file"]
    command += ["--weights", unet_weights]
    assert "file: cannot write here" in one_error_line(deepcolor(*command, exit_code=2))


@pytest.fixture
def own_weights(tmp_path, monkeypatch, unet_weights):
    """A weights/ folder with a colorizer, another colorizer and a regressor."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setattr(weights_module, "WEIGHTS", folder)
    shutil.copy(unet_weights, folder / "portrait.safetensors")
    torch.manual_seed(1)
    other = nets.UNet(base=2, levels=2, head="tanh")
    torch.nn.init.normal_(other.last.weight)
    options = {"base": 2, "levels": 2, "head": "tanh"}
    save_weights(folder / "other.safetensors", other, "unet", options)
    save_weights(folder / "regressor.safetensors", nets.Regressor(), "regressor", {})
    return folder


def test_without_a_word_the_own_weights_are_taken(photographs, own_weights, tmp_path):
    one = photographs / "s01_01.jpg"
    for name, given in {
        "a": [],
        "b": ["--weights", "portrait"],
        "c": ["--weights", own_weights / "portrait.safetensors"],
        "d": ["--weights", "other"],
    }.items():
        deepcolor("colorize", one, "-o", tmp_path / name, *given)
    a, b, c, d = ((tmp_path / x / "s01_01.png").read_bytes() for x in "abcd")
    assert a == b == c != d
    tables = {
        deepcolor("chrominance", one, *given)
        for given in ([], ["--weights", "regressor"])
    }
    assert len(tables) == 1 and "s01_01.jpg" in tables.pop()


def test_missing_own_weights_are_one_line(photographs, own_weights, tmp_path):
    command = ["colorize", photographs, "-o", tmp_path / "out"]
    line = one_error_line(deepcolor(*command, "--weights", "best", exit_code=2))
    assert "weights/best.safetensors: no such file; use other or portrait or" in line
    for file in own_weights.iterdir():
        file.unlink()
    for given in (command, ["chrominance", photographs]):
        line = one_error_line(deepcolor(*given, exit_code=2))
        assert (
            "no such file; train one and give the path of a .safetensors file" in line
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("given", ["--run-dir", "--profile"])
def test_a_run_that_is_named_gives_its_own_network(
    given, photographs, own_weights, tmp_path, monkeypatch
):
    monkeypatch.setenv("DEEPCOLOR_RUN_DIR", str(tmp_path / "run"))
    value = tmp_path / "run" if given == "--run-dir" else "standard"
    command = ["colorize", photographs / "s01_01.jpg", given, value]
    output = deepcolor(*command, "-o", tmp_path / "out", exit_code=2)
    assert "no trained colorizer here; run `deepcolor run`" in one_error_line(output)
    best = tmp_path / "run/07_gpu_training/chosen.safetensors"
    best.parent.mkdir(parents=True)
    shutil.copy(own_weights / "other.safetensors", best)
    deepcolor(*command, "-o", tmp_path / "out")
    deepcolor(*command[:2], "-o", tmp_path / "other", "--weights", "other")
    first, second = (tmp_path / x / "s01_01.png" for x in ("out", "other"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.usefixtures("own_weights")
def test_a_pattern_names_photographs_and_keeps_their_folders(photographs, tmp_path):
    for name in ("scans/a.jpg", "scans/old/b.jpg", "scans/old/c.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photographs / "s01_01.jpg", tmp_path / name)
    for pattern, expected in {
        "*.jpg": ["a.png"],
        "**/*.jpg": ["a.png", "old/b.png"],
        "o?d/*": ["old/b.png"],
    }.items():
        output = tmp_path / f"out{len(expected)}{pattern[0]}".replace("*", "s")
        deepcolor("colorize", tmp_path / "scans" / pattern, "-o", output)
        assert names_below(output) == expected
    command = ["colorize", tmp_path / "scans/*.bmp", "-o", tmp_path / "none"]
    line = one_error_line(deepcolor(*command, exit_code=2))
    assert "scans/*.bmp: matches no images; check" in line
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("own_weights")
def test_a_file_whose_name_looks_like_a_pattern_is_a_file(photographs, tmp_path):
    shutil.copy(photographs / "s01_01.jpg", tmp_path / "me [1].jpg")
    deepcolor("colorize", tmp_path / "me [1].jpg", "-o", tmp_path / "out")
    assert names_below(tmp_path / "out") == ["me [1].png"]


@pytest.mark.usefixtures("own_weights")
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_alpha_and_sixteen_bits_come_out_as_they_went_in(dtype, tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, np.iinfo(dtype).max, (20, 30, 4)).astype(dtype)
    cv2.imwrite(str(tmp_path / "x.png"), image)
    deepcolor("colorize", tmp_path / "x.png", "-o", tmp_path / "out", "--compare")
    for name, columns in (("x.png", 30), ("x.compare.png", 60)):
        found = cv2.imread(str(tmp_path / "out" / name), cv2.IMREAD_UNCHANGED)
        assert found.dtype == dtype and found.shape == (20, columns, 4)
        assert np.array_equal(found[:, -30:, 3], image[..., 3])


@pytest.mark.usefixtures("own_weights")
def test_compare_puts_grayscale_and_colored_side_by_side(photographs, tmp_path):
    command = ["colorize", photographs / "s01_01.jpg", "-o", tmp_path]
    command += ["--weights", "other", "--strength", "2", "--compare"]
    deepcolor(*command)
    both = cv2.imread(str(tmp_path / "s01_01.compare.png")).astype(int)
    assert both.shape == (128, 256, 3)
    assert np.ptp(both[:, :128], axis=2).max() <= 1
    assert np.ptp(both[:, 128:], axis=2).max() > 10
    assert np.array_equal(both[:, 128:], cv2.imread(str(tmp_path / "s01_01.png")))
    (tmp_path / "s01_01.png").unlink()  # the comparison alone is in the way, too
    line = one_error_line(deepcolor(*command, exit_code=2))
    assert "s01_01.compare.png: already exists; use --force" in line
    deepcolor(*command, "--force")


@pytest.mark.usefixtures("own_weights")
def test_a_photograph_named_like_a_comparison_is_refused_before_any_work(
    photographs, tmp_path
):
    for name in ("x.jpg", "x.compare.jpg"):
        shutil.copy(photographs / "s01_01.jpg", tmp_path / name)
    command = ["colorize", tmp_path, "-o", tmp_path / "out"]
    line = one_error_line(deepcolor(*command, "--compare", exit_code=2))
    assert "both would become" in line
    assert not (tmp_path / "out").exists()
    deepcolor(*command)
    assert names_below(tmp_path / "out") == ["x.compare.png", "x.png"]


@pytest.mark.usefixtures("own_weights")
def test_strength_0_is_gray_and_beyond_2_is_wrong_usage(photographs, tmp_path):
    command = ["colorize", photographs / "s01_01.jpg", "-o", tmp_path]
    command += ["--weights", "other", "--force", "--strength"]
    spread = []
    for strength in ("0", "1", "2"):
        deepcolor(*command, strength)
        picture = cv2.imread(str(tmp_path / "s01_01.png")).astype(int)
        spread.append(np.ptp(picture, axis=2).mean())
    assert spread[0] <= 1 and spread[0] < spread[1] < spread[2]
    assert "is not in the range 0<=x<=2" in deepcolor(*command, "2.5", exit_code=2)


@pytest.mark.usefixtures("own_weights")
def test_a_box_is_colored_by_itself_and_checked(photographs, tmp_path):
    one = photographs / "s01_01.jpg"
    command = ["colorize", one, "--weights", "other"]
    deepcolor(*command, "-o", tmp_path / "a")
    boxes = ["--box", "10,20,30,30", "--box", "70,20,30,40"]
    deepcolor(*command, "-o", tmp_path / "b", *boxes)
    a, b = (cv2.imread(str(tmp_path / x / "s01_01.png")).astype(int) for x in "ab")
    differ = np.abs(a - b).max(axis=2) > 0
    assert differ[20:50, 10:40].any() and differ[20:60, 70:100].any()
    differ[20:50, 10:40] = differ[20:60, 70:100] = False
    assert not differ.any()
    command += ["-o", tmp_path / "c", "--box"]
    for box, words in {
        "100,100,29,5": "box 100,100,29,5: not inside the photograph of 128 x 128 pixels",
        "1,2,3": "--box 1,2,3: write X,Y,W,H",
        "1,2,3,x": "--box 1,2,3,x: write X,Y,W,H",
    }.items():
        assert words in one_error_line(deepcolor(*command, box, exit_code=2))
    command[1] = photographs
    line = one_error_line(deepcolor(*command, "0,0,9,9", exit_code=2))
    assert "--box: works with one photograph, not 60; give only one" in line
    assert not (tmp_path / "c").exists()


def test_a_bar_takes_the_place_of_the_lines(
    photographs, unet_weights, tmp_path, monkeypatch
):
    monkeypatch.setenv(JUPYTERLAB_VARIABLE, "a notebook")
    command = ["colorize", photographs, "-o", tmp_path, "--weights", unet_weights]
    output = deepcolor(*command, "--no-faces")
    assert ".png" not in output and "colorized 60 of 60" in output


@pytest.mark.skipif(os.name == "nt", reason="no such signals on Windows")
def test_ctrl_c_leaves_whole_pictures_and_exits_130(
    photographs, unet_weights, tmp_path
):
    (tmp_path / "in").mkdir()
    for photograph in photographs.iterdir():
        for copy in range(100):
            os.link(photograph, tmp_path / "in" / f"{copy}_{photograph.name}")
    command = ["-m", "helpers", "colorize", tmp_path / "in", "-o", tmp_path / "out"]
    process = subprocess.Popen(
        [sys.executable, *map(str, command), "--weights", str(unet_weights)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    process.stdout.readline()  # the first picture is there
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "stopped by Ctrl-C; finished results are kept\n"
    pictures = list((tmp_path / "out").iterdir())
    assert 0 < len(pictures) < 6000
    assert all(cv2.imread(str(p)).shape == (128, 128, 3) for p in pictures)


def test_the_default_seed_is_that_of_the_registry():
    assert options.DEFAULT_SEED == DEFAULT_SEED
    assert options.MAX_SEED == MAX_SEED


def test_without_debug_there_is_no_traceback_and_with_it_there_is():
    assert "Traceback" not in deepcolor("evaluate", "x", exit_code=2)
    result = CliRunner().invoke(main, ["--debug", "evaluate", "x"])
    assert result.exc_info[0].__name__ == "InputError"
