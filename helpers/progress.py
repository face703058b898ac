"""Progress bars on a terminal and in JupyterLab."""

import os
import sys
from collections.abc import Iterable

from tqdm import tqdm

DELAY = 1.0  # seconds before a bar appears
JUPYTERLAB_VARIABLE = "JPY_SESSION_NAME"  # set in kernels that JupyterLab starts


def progress(
    items: Iterable, description: str, *, shown: bool = True, **options
) -> tqdm:
    """Iterate over `items` with a progress bar that is removed at the end.

    No bar appears in logs, papermill or nbval. `options` are passed to tqdm.
    """
    shown = shown and (sys.stderr.isatty() or JUPYTERLAB_VARIABLE in os.environ)
    return tqdm(
        items, description, leave=False, delay=DELAY, disable=not shown, **options
    )
