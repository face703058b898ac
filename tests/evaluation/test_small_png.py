from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
from IPython.core.interactiveshell import InteractiveShell
from matplotlib.figure import Figure
from PIL import Image

from helpers.evaluation.small_png import small_png, use_small_png


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


def test_a_photograph_keeps_its_colors():
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)
    fig, ax = plt.subplots(figsize=(2, 2), dpi=150)
    ax.imshow(noise)
    picture = Image.open(BytesIO(small_png(fig)))
    plt.close(fig)
    assert picture.mode in ("RGB", "RGBA")


def test_a_notebook_shows_figures_this_way():
    shell = InteractiveShell.instance()
    use_small_png()
    fig = plt.figure(figsize=(1, 1))
    formatter = shell.display_formatter.formatters["image/png"]
    assert formatter.lookup_by_type(Figure) is small_png
    assert formatter(fig).startswith(b"\x89PNG")
    plt.close(fig)
    InteractiveShell.clear_instance()
