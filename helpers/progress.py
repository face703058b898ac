"""A progress bar where somebody looks: on a terminal and in JupyterLab."""

import os
import sys
from collections.abc import Iterable

from tqdm import tqdm

DELAY = 1.0  # seconds before a bar appears: short work stays quiet
JUPYTERLAB_VARIABLE = "JPY_SESSION_NAME"  # set for the kernels that JupyterLab starts


def progress(
    items: Iterable, description: str, *, shown: bool = True, **options
) -> tqdm:
    """Go through `items` with a bar, which is gone when they are done.

    None appears in a log, under papermill or under nbval. `options` go to tqdm.
    """
    shown = shown and (sys.stderr.isatty() or JUPYTERLAB_VARIABLE in os.environ)
    return tqdm(
        items, description, leave=False, delay=DELAY, disable=not shown, **options
    )
