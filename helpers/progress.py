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
    in_jupyterlab = JUPYTERLAB_VARIABLE in os.environ
    options |= {"leave": False, "delay": DELAY}
    return tqdm(
        items,
        description,
        # JupyterLab shows stderr in a red box, as if something were wrong.
        file=sys.stdout if in_jupyterlab else sys.stderr,
        disable=not (shown and (in_jupyterlab or sys.stderr.isatty())),
        **options,
    )
