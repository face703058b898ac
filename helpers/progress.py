"""A progress bar where somebody looks: on a terminal and in JupyterLab."""

import os
import sys
from collections.abc import Iterable

from tqdm import tqdm

JUPYTERLAB_VARIABLE = "JPY_SESSION_NAME"  # set for the kernels that JupyterLab starts


def progress(
    items: Iterable, description: str, *, shown: bool = True, **options
) -> tqdm:
    """Go through `items` with a bar, which is gone when they are done.

    It appears after a second, so that short work stays quiet, and never in a log, under
    papermill or nbval. `options` go to tqdm (`total`, `initial`).
    """
    shown = shown and (sys.stderr.isatty() or JUPYTERLAB_VARIABLE in os.environ)
    return tqdm(items, description, leave=False, delay=1, disable=not shown, **options)
