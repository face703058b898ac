from base64 import b64decode
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from helpers.evaluation.small_png import small_png


def test_a_chart_gets_a_palette_and_looks_the_same():
    fig, ax = plt.subplots(figsize=(4, 3), dpi=150)
    ax.plot(np.arange(20) ** 2, "--", label="a curve")
    ax.legend()
    full = BytesIO()
    fig.savefig(full, format="png", dpi=150, bbox_inches="tight")
    picture = small_png(fig)
    plt.close(fig)
    small = Image.open(BytesIO(picture))
    assert small.mode == "P" and len(picture) < len(full.getvalue()) / 2
    before = np.asarray(Image.open(full).convert("RGB"), dtype=int)
    after = np.asarray(small.convert("RGB"), dtype=int)
    assert before.shape == after.shape and np.abs(before - after).mean() < 0.5


def draw_noise(ax):
    ax.imshow(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8))


def draw_color_bar(ax):  # few pixels; a palette of frequent colors breaks them
    values = np.random.default_rng(0).uniform(-1, 1, (60, 60))
    ax.figure.colorbar(ax.imshow(values, cmap="RdYlGn"), ax=ax)


@pytest.mark.parametrize("draw, limit", [(draw_noise, 2), (draw_color_bar, 5)])
def test_photographs_and_color_bars_keep_their_colors(draw, limit):
    fig, ax = plt.subplots(figsize=(2, 2), dpi=150)
    draw(ax)
    full = BytesIO()
    fig.savefig(full, format="png", dpi=150, bbox_inches="tight")
    before = np.asarray(Image.open(full).convert("RGB"), dtype=int)
    after = np.asarray(Image.open(BytesIO(small_png(fig))).convert("RGB"), dtype=int)
    plt.close(fig)
    assert np.abs(before - after).max() <= limit
    assert (after[(before == 255).all(axis=2)] == 255).all()  # white stays white


def test_a_notebook_shows_charts_this_way():
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    use = "from helpers.evaluation.small_png import use_small_png\nuse_small_png()"
    cells = [new_code_cell(source) for source in (use, draw, draw)]
    notebook = new_notebook(cells=cells)
    NotebookClient(notebook, kernel_name="python3").execute()
    for cell in notebook.cells[1:]:
        (shown,) = [x.data["image/png"] for x in cell.outputs if "data" in x]
        assert Image.open(BytesIO(b64decode(shown))).mode == "P"
