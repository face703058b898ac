import os
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen
from zipfile import ZipFile

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from helpers import nets
from helpers.apps import demo, page_canvas
from helpers.apps import page as demo_page
from helpers.apps.page import HOST, Settings
from helpers.cli import main
from helpers.data.images import decode_image, read_image, write_image
from helpers.data.lab import bgr_to_lab
from helpers.data.portraits import render_portrait
from helpers.files import PROJECT, InputError
from helpers.training import weights
from helpers.training.weights import load_weights, save_weights

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
PATIENCE = 300  # seconds; the machine may be busy
# Python runs this file at its start; it logs the hosts that the server connects to.
WATCH = """
import os, sys
def note(event, arguments):
    if event == "socket.connect":
        line = arguments[1]
    elif event == "socket.getaddrinfo":
        line = arguments[0]
    else:
        return
    with open(os.environ["CONTACTED"], "a") as file:
        print(line[0] if isinstance(line, tuple) else line, file=file)
sys.addaudithook(note)
"""


def save_net(path, ab=(15.0, 25.0)):
    """Save a small U-Net that predicts one color for every pixel."""
    net = nets.build("unet", base=4, levels=2)
    with torch.no_grad():
        net.last.bias.copy_(torch.tensor(ab))
    save_weights(path, net, "unet", {"base": 4, "levels": 2})
    return path


def save_hinted(path):
    """Save a small network that accepts hints, with random weights."""
    torch.manual_seed(0)
    net = nets.build("hinted_unet", base=4, levels=2)
    torch.nn.init.normal_(net.last.weight)
    save_weights(path, net, "hinted_unet", {"base": 4, "levels": 2})
    return path


def save_regressor(path):
    save_weights(path, nets.build("regressor"), "regressor", {})
    return path


def gray_portrait(path, size=200, crop=150):
    gray = cv2.cvtColor(render_portrait(5, 2), cv2.COLOR_BGR2GRAY)
    write_image(path, cv2.resize(gray, (size, size))[:crop])
    return path


def spread(image_bgr):
    """Return the mean difference between the largest and the smallest channel."""
    image = image_bgr.astype(int)
    return (image.max(2) - image.min(2)).mean()


# The functions --------------------------------------------------------------------


@pytest.fixture
def own_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "WEIGHTS", tmp_path)
    monkeypatch.setattr(weights, "WEIGHTS", tmp_path)
    return tmp_path


def test_by_default_the_course_s_available_networks_are_loaded(own_weights):
    save_net(own_weights / "another.safetensors")
    save_regressor(own_weights / "regressor.safetensors")
    save_net(own_weights / "portrait.safetensors")
    assert list(demo.load_networks()) == ["portrait"]
    assert list(demo.load_networks(("another",))) == ["another"]


def test_networks_are_found_by_name_or_file(own_weights, tmp_path):
    save_net(own_weights / "colorizer.safetensors")
    other = save_net(tmp_path / "runs" / "colorizer.safetensors")
    assert list(demo.load_networks(("colorizer", str(other)))) == [
        "colorizer",
        str(other),
    ]


def test_a_missing_colorizer_is_an_input_error(own_weights):
    with pytest.raises(
        InputError, match=r"weights/: contains no network that colorizes.*--weights"
    ):
        demo.load_networks()
    path = save_regressor(own_weights / "regressor.safetensors")
    with pytest.raises(InputError, match="contains no network that colorizes"):
        demo.load_networks()
    with pytest.raises(InputError, match=r"holds a regressor; give a colorizer"):
        demo.load_networks((str(path),))


def test_missing_gradio_is_an_input_error(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))  # the command changes it
    monkeypatch.setitem(sys.modules, "gradio", None)
    result = CliRunner().invoke(main, ["demo"])
    assert result.exit_code == 2
    assert result.output.startswith(
        "error: gradio is not installed; run pip install -e "
    )
    assert result.output.count("\n") == 1


def test_an_address_of_another_computer_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match=r"--host 192\.0\.2\.1: cannot be used here"):
        demo_page.launch(None, None, 7860, "192.0.2.1")  # reserved for documentation


def test_an_ipv6_address_is_an_input_error():
    with pytest.raises(InputError, match="--host ::1: give an IPv4 address"):
        demo_page.launch(None, None, 7860, "::1")


def test_no_free_port_is_an_input_error(tmp_path):
    path = save_net(tmp_path / "net.safetensors")
    command = [sys.executable, "-m", "helpers", "demo", "--weights", str(path)]
    with socket.socket() as taken:
        taken.bind((HOST, 2**16 - 1))  # the last port: there is no next one
        taken.listen()
        result = subprocess.run(
            [*command, "--port", str(2**16 - 1)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr == (
        "error: --port 65535: in use, as are the next ports; give another port\n"
    )


def test_16_bits_and_alpha_are_kept_in_the_download_only(tmp_path):
    image = np.full((6, 4, 4), 40_000, np.uint16)
    image[..., 3] = np.arange(4) * 1000
    cv2.imwrite(str(tmp_path / "deep.png"), image)
    net, _ = load_weights(save_net(tmp_path / "net.safetensors"))
    painter = demo.Painter({"net": net})
    files, _ = painter.paint([tmp_path / "deep.png"], Settings("net"), tmp_path)
    before, after, canvas, download = files
    colored = cv2.imread(str(download), cv2.IMREAD_UNCHANGED)
    assert colored.dtype == np.uint16
    assert np.array_equal(colored[..., 3], image[..., 3])
    for path in (before, after, canvas):
        stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert stored.dtype == np.uint8 and stored.shape == (6, 4, 3)
    assert np.abs(read_image(before).astype(int) - 40_000 // 256).max() <= 1


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    Image.new("L", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert demo.read_photograph(tmp_path / "turned.jpg").shape == (40, 20, 3)


@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"x" * 99]
)
def test_a_broken_file_is_named_without_its_folder(tmp_path, content):
    path = tmp_path / "old photo.png"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        demo.read_photograph(path)
    assert str(caught.value).startswith("old photo.png: ")
    assert str(caught.value).endswith("; choose another file")
    assert str(tmp_path) not in str(caught.value)


def test_a_deleted_photo_must_be_chosen_again(tmp_path):
    with pytest.raises(InputError, match=r"^a\.png: no longer available; choose"):
        demo.read_photograph(tmp_path / "a.png")


@pytest.mark.parametrize("side", [8001, 40_000])
def test_too_many_pixels_are_refused_before_they_are_decoded(
    tmp_path, monkeypatch, side
):
    path = tmp_path / "huge.pgm"
    path.write_bytes(b"P5 %d %d 255\n" % (side, side))
    monkeypatch.setattr(demo, "decode_picture", None)
    with pytest.raises(InputError, match=r"^huge.pgm: more than 64 megapixels; choose"):
        demo.read_photograph(path)


def test_too_many_pixels_are_refused_after_decoding_if_the_header_is_unknown(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(demo, "MAX_MEGAPIXELS", 0.001)
    monkeypatch.setattr(demo, "_announced_size", lambda path: (0, 0))
    with pytest.raises(InputError, match="megapixels"):
        demo.read_photograph(gray_portrait(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((90, 80), (90, 80)), ((1600, 20), (1600, 20)), ((3200, 1), (1600, 1))],
)
def test_a_preview_is_small(shape, expected):
    assert demo.preview(np.zeros((*shape, 3), np.uint8)).shape == (*expected, 3)


def test_a_file_is_colored_in_full_size_and_keeps_its_lightness(tmp_path):
    path = gray_portrait(tmp_path / "gray.png", size=1700, crop=1650)
    net, _ = load_weights(save_net(tmp_path / "net.safetensors"))
    painter = demo.Painter({"net": net})
    files, _ = painter.paint([path], Settings("net"), tmp_path)
    before, after, canvas, download = files
    assert download.name == "gray-colored.png"
    gray, colored = read_image(path), read_image(download)
    assert colored.shape == gray.shape == (1650, 1700, 3)
    assert spread(colored) > 10
    L = [bgr_to_lab(image_bgr)[..., 0] for image_bgr in (gray, colored)]
    assert np.abs(L[0] - L[1]).mean() < 0.5
    assert read_image(before).shape == read_image(after).shape == (1553, 1600, 3)
    assert read_image(canvas).shape == (1553, 1600, 3)
    (*_, download), _ = painter.paint([path], Settings("net", strength=0.0), tmp_path)
    assert spread(read_image(download)) < 1


def test_several_photos_become_one_zip_of_jpegs(tmp_path):
    paths = [gray_portrait(tmp_path / f) for f in ("a.png", "b.png", "a.tif")]
    net, _ = load_weights(save_net(tmp_path / "net.safetensors"))
    out = tmp_path / "out"
    out.mkdir()
    settings = Settings("net", jpeg=True)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    painter = demo.Painter({"net": net})
    (*_, download), unreadable = painter.paint([*paths, broken], settings, out)
    assert len(unreadable) == 1 and unreadable[0].startswith("broken.png: ")
    with ZipFile(download) as archive:
        assert archive.namelist() == [
            "a-colored.jpg",
            "b-colored.jpg",
            "a-2-colored.jpg",
        ]
        data = archive.read("b-colored.jpg")
    assert data.startswith(b"\xff\xd8") and spread(decode_image(data)) > 10


def test_a_point_is_colored_at_once_and_in_the_full_result(tmp_path):
    path = gray_portrait(tmp_path / "gray.png", size=1700, crop=1650)
    torch.manual_seed(0)
    net = nets.build("hinted_unet", base=4, levels=2).eval()
    with torch.no_grad():
        net.last.weight.normal_()
    painter = demo.Painter({"net": net})
    plain = Settings("net", faces=False)
    red = replace(plain, points=((0.5, 0.25, "#ff0000"),))
    pictures = []
    for settings in (plain, red):
        canvas = read_image(painter.touch(path, settings, tmp_path))
        (*_, download), _ = painter.paint([path], settings, tmp_path)
        pictures.append((canvas, read_image(download)))
    for before, after in zip(*pictures, strict=True):
        assert before.shape == after.shape and not np.array_equal(before, after)
    b, g, r = pictures[1][0][1553 // 4, 800]  # the mark of the hint
    assert r > 200 and g < 60 and b < 60


def test_a_box_drawn_by_hand_is_colored_separately_and_outlined(tmp_path):
    path = gray_portrait(tmp_path / "gray.png", size=800, crop=700)
    net = load_weights(save_hinted(tmp_path / "net.safetensors"), "colorizer")[0]
    painter = demo.Painter({"net": net})
    plain = Settings("net", faces=False)
    boxed = replace(plain, boxes=((0.25, 0.25, 0.5, 0.5),))
    (*_, canvas, before), _ = painter.paint([path], plain, tmp_path)
    (*_, canvas, after), _ = painter.paint([path], boxed, tmp_path)
    changed = np.flatnonzero((read_image(before) != read_image(after)).any((0, 2)))
    assert changed.min() >= 200 and changed.max() < 400
    assert (read_image(canvas)[175, 210:390] > 200).all()  # the white outline
    (*_, again), _ = painter.paint([path, path], boxed, tmp_path)
    with ZipFile(again) as archive:  # the box belongs to the first photo only
        first, second = (
            decode_image(archive.read(name)) for name in archive.namelist()
        )
    assert np.array_equal(first, read_image(after))
    assert np.array_equal(second, read_image(before))


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ("[0.5, 0.25]", (0.5, 0.25, "#0000ff")),
        ("[0.1, 0.2, 0.3, 0.4]", (0.1, 0.2, 0.3, 0.4)),
        ("[0.1, 0.2, 0.105, 0.4]", None),  # too narrow for a face
        ("[0.1, 0.2, 0.3]", None),
        ("[0.1, 1.2]", None),
        ("[NaN, 0.5]", None),
        ("[]", None),
        ("7", None),
        ("{", None),
    ],
)
def test_only_points_and_boxes_in_the_picture_are_marks(text, mark):
    assert page_canvas.parse_mark(text, "#0000ff") == mark


@pytest.mark.parametrize("color", ["", None, "hsl(20, 50%, 60%)", "red"])
def test_a_color_that_is_no_color_is_no_mark(color):
    assert page_canvas.parse_mark("[0.25, 0.5]", color) is None


@pytest.mark.parametrize(
    ("picked", "expected"),
    [("#C58C6A", "#C58C6A"), ("rgba(197.2, 140, 106.4, 1)", "#c58c6a")],
)
def test_the_picker_s_colors_become_hex(picked, expected):
    assert page_canvas.as_hex(picked) == expected


def test_another_host_is_served_with_a_password_only(monkeypatch, tmp_path):
    given = {}
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))

    def launch(gradio, page, port, host, password):
        given.update(host=host, password=password)
        raise InputError("stop here")

    monkeypatch.setattr(demo, "launch", launch)
    path = save_net(tmp_path / "net.safetensors")
    for host in ("127.0.0.1", "0.0.0.0"):
        with pytest.raises(InputError, match="stop here"):
            demo.serve((str(path),), 7860, print, host)
        assert given["host"] == host
        assert bool(given["password"]) == (host == "0.0.0.0")
    assert len(given["password"]) >= 12


def test_the_examples_look_old_and_are_reproducible(tmp_path):
    paths = demo.draw_examples(tmp_path / "one", size=64)
    again = demo.draw_examples(tmp_path / "two", size=64)
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]
    images = {path.stem: read_image(path) for path in paths[1:]}
    assert {image.shape for image in images.values()} == {(64, 64, 3)}
    assert [name for name, image in images.items() if spread(image)] == ["sepia"]
    assert images["faded"].min() >= 70 and images["faded"].std() < images["gray"].std()


def test_the_status_is_escaped():
    assert demo_page._plain_text("a_b*<i>.png") == "a\\_b\\*&lt;i&gt;.png"


def test_examples_are_kept_when_gradio_deletes_its_files(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    gradio = demo_page.import_gradio(7860)
    from gradio.route_utils import delete_files_created_by_app

    examples = demo.draw_examples(tmp_path / "examples", size=16)
    page = demo_page.build_page(gradio, ["net"], examples, None)
    delete_files_created_by_app(page, age=None)
    assert all(path.is_file() for path in examples)


# The page in a browser ------------------------------------------------------------


class Server:
    """`deepcolor demo` in its own process, started with a port that is in use."""

    def __init__(self, folder: Path):
        self.scratch, self.contacted = folder / "scratch", folder / "contacted"
        self.scratch.mkdir()
        (folder / "watch").mkdir()
        (folder / "watch/sitecustomize.py").write_text(WATCH)
        networks = [save_net(folder / f"{n}.safetensors") for n in ("one", "two")]
        networks.append(save_hinted(folder / "hinted.safetensors"))
        self.taken = socket.create_server((HOST, 0))
        port = self.taken.getsockname()[1]
        command = [sys.executable, "-m", "helpers", "demo", "--port", str(port)]
        for path in networks:
            command += ["--weights", str(path)]
        paths = {
            "TMPDIR": self.scratch,
            "CONTACTED": self.contacted,
            "PYTHONPATH": folder / "watch",
        }
        self.process = subprocess.Popen(
            command,
            cwd=PROJECT,
            env=os.environ | {name: str(path) for name, path in paths.items()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith("open "):
                break
        else:
            raise AssertionError("".join(self.lines))
        self.url = line.split()[1]

    def peak_memory(self) -> int:
        """Return the peak memory of the process in bytes, or 0 if unknown."""
        status = Path(f"/proc/{self.process.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        return sum(int(x.split()[1]) * 1024 for x in lines if x.startswith("VmHWM"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    started = Server(tmp_path_factory.mktemp("demo"))
    yield started
    if started.process.poll() is None:
        started.process.kill()
    started.process.wait()
    started.process.stdout.close()
    started.taken.close()


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"]
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def hosts():
    """The (scheme, host and port) of each browser request."""
    return set()


def open_page(browser, server, hosts, width):
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.set_default_timeout(PATIENCE * 1000)
    for event in ("request", "websocket"):
        page.on(event, lambda request: hosts.add(urlsplit(request.url)[:2]))
    page.goto(server.url)
    page.wait_for_selector("#status[role=status] p")
    return page


@pytest.fixture(scope="module")
def page(browser, server, hosts):
    """The page on a wide screen, shared by all tests."""
    return open_page(browser, server, hosts, width=1280)


def upload(page, path, said):
    """Choose a file; wait until the status contains the given text, and return it."""
    page.set_input_files("input[type=file]", path)
    return wait_for(page, said)


def wait_for(page, said):
    page.locator("#status", has_text=said).wait_for()
    return page.inner_text("#status")


def download(page, folder):
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download", exact=True).click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def test_a_photo_is_uploaded_compared_and_downloaded(page, tmp_path):
    gray = gray_portrait(tmp_path / "gray.png")
    assert page.get_by_role("button", name="Download", exact=True).is_disabled()
    upload(page, gray, "gray.png: colored by the network one in")

    slider = page.get_by_test_id("slider").first
    cut = page.get_by_test_id("imageslider-image").last
    before = cut.get_attribute("style")
    box = slider.locator(".icon-wrap").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 150, box["y"], steps=5)
    page.mouse.up()
    assert cut.get_attribute("style") != before

    path = download(page, tmp_path)
    assert path.name == "gray-colored.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    assert read_image(path).shape == read_image(gray).shape
    full = spread(read_image(path))
    assert full > 10

    pictures = page.get_by_test_id("imageslider-image").last
    source = pictures.get_attribute("src")
    page.get_by_test_id("number-input").fill("0.5")
    page.wait_for_function(
        "old => [...document.querySelectorAll('#pictures img')].at(-1).src != old",
        arg=source,
    )
    half = spread(read_image(download(page, tmp_path)))
    assert 0.3 * full < half < 0.7 * full

    page.get_by_label("two", exact=True).check()
    wait_for(page, "gray.png: colored by the network two in")
    page.get_by_label("one", exact=True).check()
    wait_for(page, "gray.png: colored by the network one in")


def drag(page, picture, start, end):
    box = picture.bounding_box()
    page.mouse.move(box["x"] + start[0], box["y"] + start[1])
    page.mouse.down()
    page.mouse.move(box["x"] + end[0], box["y"] + end[1], steps=5)
    page.mouse.up()


def test_clicks_add_colors_drags_add_boxes_and_undo_removes_them(page, tmp_path):
    upload(page, gray_portrait(tmp_path / "click.png"), "click.png: colored")
    page.get_by_label("hinted").check()
    wait_for(page, "colored by the network hinted")
    results = [read_image(download(page, tmp_path))]
    for _ in range(3):  # opened, closed, opened
        page.get_by_text("Choose colors yourself").click()
        page.wait_for_timeout(500)
    canvas = page.locator("#canvas img")
    canvas.scroll_into_view_if_needed()
    undo = page.locator("#hints").get_by_text("Undo")
    for act in (
        lambda: canvas.click(position={"x": 60, "y": 60}),
        lambda: drag(page, canvas, (40, 40), (160, 130)),
        undo.click,
        undo.click,
    ):
        source = page.get_by_test_id("imageslider-image").last.get_attribute("src")
        act()
        page.wait_for_function(
            "old => [...document.querySelectorAll('#pictures img')].at(-1).src != old",
            arg=source,
        )
        results.append(read_image(download(page, tmp_path)))
    plain, point, box, one_undone, two_undone = results
    assert not np.array_equal(plain, point) and not np.array_equal(point, box)
    assert np.array_equal(one_undone, point) and np.array_equal(two_undone, plain)
    page.get_by_label("one", exact=True).check()
    wait_for(page, "colored by the network one")


def test_a_broken_file_is_named_and_the_page_still_works(page, tmp_path):
    broken = tmp_path / "broken <b>_x_.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    said = upload(page, broken, "choose another file")
    assert "damaged: the end of the PNG is missing" in said
    assert page.get_by_role("button", name="Download", exact=True).is_disabled()
    page.get_by_label("Example 4").click()
    wait_for(page, "sepia.png: colored by the network one")
    assert read_image(download(page, tmp_path)).shape == (384, 384, 3)
    upload(page, gray_portrait(tmp_path / "next.png"), "next.png: colored")


def test_60_megapixels_are_colored_in_less_than_2_gb(page, server, tmp_path):
    image = np.broadcast_to(np.linspace(0, 255, 10_000, dtype=np.uint8), (6000, 10_000))
    write_image(tmp_path / "large.jpg", np.ascontiguousarray(image))
    upload(page, tmp_path / "large.jpg", "large.jpg: colored")
    assert server.peak_memory() < 2e9
    shown = page.get_by_test_id("imageslider-image").last
    assert shown.evaluate("i => i.decode().then(() => i.naturalWidth)") == 1600


def test_a_file_that_is_too_large_is_refused_and_the_page_still_works(page, tmp_path):
    (tmp_path / "huge.pgm").write_bytes(b"P5 10000 6500 255\n")
    said = upload(page, tmp_path / "huge.pgm", "huge")
    assert said == "huge.pgm: more than 64 megapixels; choose another file"
    with (tmp_path / "long.png").open("wb") as file:
        file.truncate(demo_page.MAX_MEGABYTES * 2**20 + 1)
    page.set_input_files("input[type=file]", tmp_path / "long.png")
    toast = page.get_by_test_id("toast-body")
    toast.filter(has_text="exceed the maximum allowed size").wait_for()
    page.get_by_label("Example 2").click()
    wait_for(page, "gray.png: colored")


def test_nothing_overflows_on_a_phone(server, browser, hosts, tmp_path):
    page = open_page(browser, server, hosts, width=360)
    upload(page, gray_portrait(tmp_path / f"{'long_name' * 9}.png"), "colored by")
    wide = page.evaluate(
        "[...document.querySelectorAll('main *')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1)"
        ".map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page.close()


def test_a_port_in_use_is_skipped(server):
    port = server.taken.getsockname()[1]
    assert port < urlsplit(server.url).port < port + demo_page.NUM_PORTS


def test_no_other_file_of_this_computer_is_served(server):
    for path in (PROJECT / "README.md", "/etc/hostname"):
        with pytest.raises(HTTPError, match=r"403|404"):
            urlopen(f"{server.url}/gradio_api/file={path}")


def test_a_request_under_another_host_name_is_refused(server):
    for host in ("evil.example", "evil.example:7860", "127.0.0.1.evil.example"):
        with pytest.raises(HTTPError, match="400"):
            urlopen(Request(server.url, headers={"Host": host}))
    port = urlsplit(server.url).port
    for host in (f"localhost:{port}", f"127.0.0.1:{port}"):
        assert urlopen(Request(server.url, headers={"Host": host})).status == 200


def test_nobody_else_is_asked(page, server, hosts):
    contacted = {host for scheme, host in hosts if scheme not in ("data", "blob")}
    assert contacted == {urlsplit(server.url).netloc}
    assert set(server.contacted.read_text().split()) == {HOST}


def test_term_ends_it_and_no_file_is_left(server):
    assert any(server.scratch.iterdir())
    server.process.send_signal(signal.SIGTERM)
    rest, _ = server.process.communicate(timeout=PATIENCE)
    assert server.process.returncode == 0
    assert "Traceback" not in rest
    assert server.lines[0] == "networks: one, two, hinted\n"
    assert list(server.scratch.iterdir()) == []
