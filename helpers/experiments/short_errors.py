"""Errors that users can mend, shown in one line in notebooks."""

import sys

from helpers.files import InputError, WorkFailed


def use_short_errors() -> None:
    """Show our own errors of this notebook in one line, without a traceback.

    The cell still fails, for papermill too, and `%tb` shows the traceback. Outside a
    notebook, do nothing.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython and ipython.get_ipython()
    if shell:
        shell.set_custom_exc((InputError, WorkFailed), _one_line)


def _one_line(shell, kind, error, traceback, tb_offset=None) -> list[str]:
    # %tb shows these
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, traceback
    lines = [f"error: {error}"]
    shell._showtraceback(kind, error, lines)
    return lines
