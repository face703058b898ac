import subprocess
import sys

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from skimage import data

from helpers.apps import colorize_files, face_boxes
from helpers.apps.face_boxes import find_faces, is_available
from helpers.cli import main
from helpers.data.images import write_image
from helpers.files import PROJECT
from helpers.nets import build
from helpers.training.weights import save_weights

needs_detector = pytest.mark.skipif(not is_available(), reason="no extra `faces`")
CENTER = (225, 115)  # of the face in scikit-image's astronaut, x and y in pixels


def astronaut(dtype=np.uint8):
    gray = cv2.cvtColor(data.astronaut(), cv2.COLOR_RGB2GRAY)
    image_bgr = cv2.merge([gray] * 3)
    return image_bgr.astype(np.uint16) * 257 if dtype == np.uint16 else image_bgr


@needs_detector
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("scale", [1, 4])
def test_a_face_is_found_and_its_box_is_inside(dtype, scale):
    image = cv2.resize(astronaut(dtype), None, fx=scale, fy=scale)
    boxes, number = find_faces(image)
    (left, top, wide, high) = boxes[0]
    assert number == len(boxes) == 1
    assert left < CENTER[0] * scale < left + wide
    assert top < CENTER[1] * scale < top + high
    assert left >= 0 and top >= 0 and wide < 260 * scale


@needs_detector
def test_a_face_that_fills_the_photograph_needs_no_box():
    boxes, number = find_faces(np.ascontiguousarray(astronaut()[20:210, 130:320]))
    assert (boxes, number) == ([], 1)


@needs_detector
@pytest.mark.parametrize("shape", [(1, 1), (10, 500), (200, 200)])
def test_no_face_is_no_box(shape):
    assert find_faces(np.full((*shape, 3), 128, np.uint8)) == ([], 0)


@given(st.integers(40, 120), st.floats(0, 100), st.floats(0, 100), st.floats(9, 40))
def test_a_head_at_the_edge_is_inside_the_photograph(side, left, top, wide):
    if box := face_boxes._head((left, top, wide, wide), (side, side, 3)):
        assert min(box[:2]) >= 0 and box[0] + box[2] <= side >= box[1] + box[3]


@pytest.fixture
def command(tmp_path):
    save_weights(tmp_path / "n.safetensors", build("unet", base=2), "unet", {"base": 2})
    write_image(tmp_path / "astronaut.png", astronaut())
    write_image(tmp_path / "flat.png", np.full((64, 64, 3), 128, np.uint8))

    def run(*given):
        weights = ["--weights", str(tmp_path / "n.safetensors"), "--force"]
        inputs = [str(tmp_path / f"{n}.png") for n in ("astronaut", "flat")]
        arguments = ["colorize", *inputs, "-o", str(tmp_path / "out"), *weights]
        return CliRunner().invoke(main, [*arguments, *given])

    return run


@needs_detector
def test_a_photograph_without_a_face_gets_one_line(command):
    output = command().output
    line = "no face found in flat.png: the colors are rough guesses\n"
    assert output.count(line) == 1
    assert "no face" not in command("--no-faces").output


def test_without_the_detector_one_line_says_so(command, monkeypatch):
    monkeypatch.setattr(colorize_files, "is_available", lambda: False)
    result = command()
    assert result.exit_code == 0
    assert result.output.count(face_boxes.INSTALL) == 1
    assert face_boxes.INSTALL not in command("--no-faces").output


@needs_detector
def test_the_detector_works_without_imghdr():
    code = (
        "import sys; sys.modules['imghdr'] = None; del sys.modules['imghdr']\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'imghdr': raise ImportError(name)\n"
        "sys.meta_path.insert(0, Hide())\n"
        "import numpy as np\n"
        "from helpers.apps.face_boxes import find_faces\n"
        "print(find_faces(np.zeros((64, 64, 3), np.uint8)))\n"
    )
    command = [sys.executable, "-W", "error::SyntaxWarning", "-c", code]
    result = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert result.stdout == "([], 0)\n", result.stderr
