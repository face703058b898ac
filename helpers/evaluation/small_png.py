"""Figures in notebooks as small PNG images.

A chart has few colors. With a palette of 256, its PNG needs a quarter of the bytes, and
the notebooks can store charts of 150 dpi. In pictures with more colors, each value is
rounded by at most 2 of 255, which nobody sees and which saves a third of the bytes.
"""

import sys
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

MAX_CHANGE = 16  # of 255, of any value, by a palette
MAX_MEAN_CHANGE = 0.5  # of 255, over the picture, by a palette
STEP = 4  # of 255, between the values that are left in photographs


def use_small_png() -> None:
    """Show figures of this notebook with `small_png`. Outside a notebook, do nothing."""
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    if shell:
        plt.close(
            plt.figure()
        )  # the first figure registers matplotlib's own way to show
        shell.display_formatter.formatters["image/png"].for_type(Figure, small_png)


def small_png(fig: Figure) -> bytes:
    """Return a figure as PNG, with a palette if that hardly changes any pixel."""
    full = BytesIO()
    fig.savefig(full, format="png", dpi=fig.dpi, bbox_inches="tight",
                metadata={"Software": None})  # fmt: skip
    picture = Image.open(full).convert("RGB")
    # MAXCOVERAGE keeps rare colors, such as one end of a color bar; the default does not
    shown = picture.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    change = np.abs(np.subtract(picture, shown.convert("RGB"), dtype=np.int16))
    if change.max() > MAX_CHANGE or change.mean() > MAX_MEAN_CHANGE:
        rounded = STEP * np.round(np.divide(picture, STEP))
        shown = Image.fromarray(np.minimum(rounded, 255).astype(np.uint8))
    small = BytesIO()
    shown.save(small, format="png", optimize=True)
    return small.getvalue()
