"""Figures in notebooks as small PNG images.

A chart has few colors. With a palette of 256, its PNG needs a quarter of the bytes, and
the notebooks can store charts of 150 dpi. Photographs keep all their colors.
"""

import sys
from io import BytesIO

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

MAX_DIFFERENCE = 0.5  # mean over the picture, of 255; photographs are far above it


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
    """Return a figure as PNG, with a palette if that hardly changes the picture."""
    full = BytesIO()
    fig.savefig(full, format="png", dpi=fig.dpi, bbox_inches="tight",
                metadata={"Software": None})  # fmt: skip
    picture = Image.open(full).convert("RGB")
    palette = picture.quantize(256)
    change = np.subtract(picture, palette.convert("RGB"), dtype=np.int16)
    if np.abs(change).mean() > MAX_DIFFERENCE:
        return full.getvalue()
    small = BytesIO()
    palette.save(small, format="png", optimize=True)
    return min(full.getvalue(), small.getvalue(), key=len)
