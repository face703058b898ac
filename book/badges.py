"""Where this clone can be opened in Binder and Colab: `make badges` prints it.

Both services fetch the course from GitHub, so the addresses follow from the remote
`origin` of this clone and from the branch that is checked out.
"""

import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
BINDER = "https://mybinder.org"
COLAB = "https://colab.research.google.com"
FIRST_NOTEBOOK = "notebooks/01_load.ipynb"


def git(*arguments: str, folder: Path = PROJECT) -> str:
    """Return what a git command prints; "" if it fails or git is missing."""
    try:
        command = ["git", "-C", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def find_repository(folder: Path = PROJECT) -> tuple[str, str]:
    """Return "owner/name" on GitHub and the branch; "", "" if `origin` is elsewhere."""
    address = git("remote", "get-url", "origin", folder=folder)
    found = re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?/?$", address)
    branch = git("symbolic-ref", "--short", "HEAD", folder=folder)
    return (found[1], branch) if found and branch else ("", "")


def badge_lines(repository: str, branch: str) -> str:
    """Return the badges as Markdown, and the cell that Colab needs first."""
    binder = f"{BINDER}/v2/gh/{repository}/{branch}?urlpath=lab/tree/{FIRST_NOTEBOOK}"
    colab = f"{COLAB}/github/{repository}/blob/{branch}/{FIRST_NOTEBOOK}"
    return f"""For README.md:

[![Binder]({BINDER}/badge_logo.svg)]({binder})
[![Colab]({COLAB}/assets/colab-badge.svg)]({colab})

In Colab, run this in a new cell at the top of a notebook:

!git clone --depth 1 --branch {branch} https://github.com/{repository} course
%cd course
%pip install --quiet .
import sys; sys.path.insert(0, ".")
"""


def main() -> int:
    """Print the badges of this clone."""
    repository, branch = find_repository()
    if not repository:
        print(
            "error: origin: not a repository on GitHub; fork the course there, clone "
            "your fork, and run this again",
            file=sys.stderr,
        )
        return 2
    print(badge_lines(repository, branch))
    return 0


if __name__ == "__main__":
    sys.exit(main())
