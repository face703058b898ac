"""Sphinx configuration of the book: `make book` builds it into outputs/book.

The source folder is the root of the project, so that links between the notebooks and
to RESULTS.md need no change. The notebooks are shown as they are stored, not run.
"""

import functools
import json
import re
import runpy
from pathlib import Path

BADGES = runpy.run_path(str(Path(__file__).with_name("badges.py")))

project = "Deep colorization"
html_title = project
language = "en"

extensions = ["myst_nb", "sphinx_copybutton", "sphinx-mathjax-offline"]
root_doc = "book/index"
include_patterns = [
    "book/index.md",
    "README.md",
    "RESULTS.md",
    "CONTRIBUTING.md",
    "tests/faults/README.md",
    "notebooks/*.ipynb",
    "weights/*.md",
]
exclude_patterns = ["**/.ipynb_checkpoints"]

nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "Show the solution"  # no other cells are hidden
nb_code_prompt_hide = "Hide the solution"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# "Map of the assignment" has the anchor Map-of-the-assignment, as in JupyterLab.
myst_heading_slug_func = functools.partial(re.sub, r"\s", "-")

html_theme = "sphinx_book_theme"
html_theme_options = {
    "show_toc_level": 2,
    "use_download_button": False,
    "navbar_persistent": [],  # the search field is in the sidebar
    "footer_content_items": [],
}
html_context = {"default_mode": "auto"}  # light or dark, as the system has it
html_additional_pages = {"index": "redirect.html"}  # to book/index.html
html_static_path = ["static"]
html_css_files = ["book.css"]
html_copy_source = False
templates_path = ["templates"]

repository, branch = BADGES["find_repository"]()
if repository:  # buttons that open a page in Binder or Colab
    html_theme_options |= {
        "repository_url": f"https://github.com/{repository}",
        "repository_branch": branch,
        "launch_buttons": {
            "binderhub_url": BADGES["BINDER"],
            "colab_url": BADGES["COLAB"],
            "notebook_interface": "jupyterlab",
        },
    }


def fold_solutions(app, doc, source):
    """Show the solutions of exercises only after a click."""
    if not doc.startswith("notebooks/"):
        return
    notebook = json.loads(source[0])
    for cell in notebook["cells"]:
        if "solution" in cell["metadata"].get("tags", []):
            cell["metadata"]["tags"].append("hide-input")
    source[0] = json.dumps(notebook)


def setup(app):
    """Register the steps of this file."""
    app.connect("source-read", fold_solutions)
