"""Figures in notebooks as small PNG images.

A chart has few colors. With a palette of 256, its PNG needs a quarter of the bytes, and
the notebooks can store charts of 150 dpi. In photographs and color bars, each value is
rounded by at most 2 of 255, which nobody sees and which saves a third of the bytes.
"""

import sys
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

MAX_CHANGE = 8  # of 255; a palette may change more than that
MAX_SHARE = 0.001  # in only so many of all values
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
    shown = picture.quantize(256)
    change = np.subtract(picture, shown.convert("RGB"), dtype=np.int16)
    if np.mean(np.abs(change) > MAX_CHANGE) > MAX_SHARE:
        rounded = STEP * np.round(np.divide(picture, STEP))
        shown = Image.fromarray(np.minimum(rounded, 255).astype(np.uint8))
    small = BytesIO()
    shown.save(small, format="png", optimize=True)
    return small.getvalue()
