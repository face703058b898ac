import base64
import importlib.util
import json
import re
import runpy
import subprocess
import sys
from fnmatch import fnmatch
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat
import pytest
import yaml
from bs4 import BeautifulSoup
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from helpers.files import PROJECT

BOOK = PROJECT / "book"
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
BADGES = runpy.run_path(str(BOOK / "badges.py"))


def builder() -> str | None:
    """Return a Python that has the book's packages; None if there is none."""
    if all(map(importlib.util.find_spec, ("sphinx", "myst_nb", "sphinx_book_theme"))):
        return sys.executable
    ready = (PROJECT / ".venv-book" / "ready").exists()
    return str(PROJECT / ".venv-book" / "bin" / "python") if ready else None


def broken_links(site: Path) -> list[str]:
    """Return every link, picture or script of a site that leads nowhere in it."""
    pages = {
        path: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")
        for path in site.rglob("*.html")
        if "_static" not in path.relative_to(site).parts
    }
    anchors = {
        path: {tag["id"] for tag in page.find_all(id=True)}
        for path, page in pages.items()
    }
    broken = []
    for path, page in pages.items():
        name = path.relative_to(site).as_posix()
        for tag in page.find_all(["a", "img", "link", "script"]):
            link = tag.get("href") or tag.get("src") or ""
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                if tag.name in ("img", "script") or "stylesheet" in tag.get("rel", ()):
                    broken.append(f"{name}: {link} needs the network")
                continue
            target = path
            if parts.path:
                target = (path.parent / unquote(parts.path)).resolve()
            if not target.is_file():
                broken.append(f"{name}: {link}")
            elif unquote(parts.fragment) not in {"", *anchors.get(target, ())}:
                broken.append(f"{name}: {link} has no such anchor")
    return broken


# The configuration -------------------------------------------------------------------


def test_every_notebook_and_every_page_it_links_to_is_in_the_book():
    conf = runpy.run_path(str(BOOK / "conf.py"))
    contents = (BOOK / "index.md").read_text()
    entries = re.findall(r"^(?:.*<)?/([\w/*]+)>?$", contents, re.MULTILINE)
    pages = [*NOTEBOOKS, *map(PROJECT.joinpath, ("README.md", "RESULTS.md"))]
    assert len(NOTEBOOKS) >= 11
    for page in pages:
        name = page.relative_to(PROJECT).as_posix()
        assert any(fnmatch(name, x) for x in conf["include_patterns"]), name
        assert any(fnmatch(name.split(".")[0], x) for x in entries), name
    assert conf["nb_execution_mode"] == "off"


def test_the_book_s_packages_are_pinned():
    lines = (BOOK / "requirements.txt").read_text().splitlines()
    pins = [Requirement(x) for x in lines if x and not x.startswith("#")]
    assert {"Sphinx", "myst-nb", "sphinx-book-theme"} <= {pin.name for pin in pins}
    assert all([s.operator for s in pin.specifier] == ["=="] for pin in pins)


def git(folder, *arguments):
    subprocess.run(["git", "-C", str(folder), *arguments], check=True)


@pytest.mark.parametrize(
    "address",
    ["https://github.com/ada/deep.color.git", "git@github.com:ada/deep.color"],
)
def test_badges_lead_to_the_remote_and_branch_of_the_clone(tmp_path, address):
    git(tmp_path, "init", "-q", "-b", "mine")
    assert BADGES["find_repository"](tmp_path) == ("", "")
    git(tmp_path, "remote", "add", "origin", address)
    repository, branch = BADGES["find_repository"](tmp_path)
    assert (repository, branch) == ("ada/deep.color", "mine")
    lines = BADGES["badge_lines"](repository, branch)
    assert "/v2/gh/ada/deep.color/mine?urlpath=lab/tree/notebooks/" in lines
    assert "/github/ada/deep.color/blob/mine/notebooks/01_load.ipynb" in lines
    assert (PROJECT / BADGES["FIRST_NOTEBOOK"]).is_file()


def test_badges_of_a_clone_from_elsewhere_are_an_error(tmp_path):
    (tmp_path / "book").mkdir()
    script = tmp_path / "book" / "badges.py"
    script.write_bytes((BOOK / "badges.py").read_bytes())
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


def test_binder_and_the_container_install_the_locked_course():
    conda = yaml.safe_load((PROJECT / ".binder" / "environment.yml").read_text())
    python = conda["dependencies"][0].removeprefix("python=")
    container = json.loads((PROJECT / ".devcontainer/devcontainer.json").read_text())
    versions = SpecifierSet(">=3.11,<3.14")
    assert f"{python}.1" in versions
    assert re.search(r"python:(\d\.\d+)", container["image"])[1] + ".1" in versions
    make = (PROJECT / "Makefile").read_text()
    target = container["postCreateCommand"].removeprefix("make ")
    assert f"READY := {target}\n" in make
    post_build = PROJECT / ".binder" / "postBuild"
    assert post_build.stat().st_mode & 0o111
    subprocess.run(["bash", "-n", post_build], check=True)
    assert "-r requirements.lock" in post_build.read_text()


# The built book ----------------------------------------------------------------------


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    python = builder()
    if python is None:
        pytest.skip("Sphinx and its theme are not installed; `make book` installs them")
    folder = tmp_path_factory.mktemp("book")
    done = subprocess.run(
        [python, "-m", "sphinx", "-q", "-n", "-c", BOOK, PROJECT, folder],
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    return folder


def test_every_link_and_anchor_of_the_book_leads_somewhere(site):
    assert broken_links(site) == []


def test_the_notebooks_show_their_stored_pictures(site):
    total = 0
    for path in NOTEBOOKS:
        page = BeautifulSoup(
            (site / "notebooks" / f"{path.stem}.html").read_text(), "html.parser"
        )
        shown = [
            (site / "notebooks" / tag["src"]).resolve().read_bytes()
            for tag in page.select("div.cell_output img")
        ]
        outputs = [
            output
            for cell in nbformat.read(path, as_version=4).cells
            for output in cell.get("outputs", [])
        ]
        stored = [
            base64.b64decode(output.data["image/png"])
            for output in outputs
            if "image/png" in output.get("data", {})
        ]
        assert shown == stored, path.name
        total += len(stored)
    assert total > 50


def test_previous_and_next_lead_through_all_notebooks(site):
    for here, following in pairwise(NOTEBOOKS):
        page = (site / "notebooks" / f"{here.stem}.html").read_text()
        (link,) = BeautifulSoup(page, "html.parser").select("a.right-next")
        assert link["href"] == f"{following.stem}.html"
        page = (site / "notebooks" / f"{following.stem}.html").read_text()
        (link,) = BeautifulSoup(page, "html.parser").select("a.left-prev")
        assert link["href"] == f"{here.stem}.html"


def test_words_of_the_notebooks_can_be_searched(site):
    index = (site / "searchindex.js").read_text()
    index = json.loads(index[index.index("{") : index.rindex("}") + 1])
    places = [index[kind].get("softmax", []) for kind in ("terms", "titleterms")]
    numbers = [n for x in places for n in (x if isinstance(x, list) else [x])]
    assert "notebooks/08_extra_credit" in [index["docnames"][n] for n in numbers]


def test_solutions_are_shown_after_a_click_only(site):
    page = (site / "notebooks" / "02_augment.html").read_text()
    page = BeautifulSoup(page, "html.parser")
    marked = [x for x in page.select("div.cell") if "BEGIN SOLUTION" in x.text]
    assert marked
    for cell in marked:
        (folded,) = cell.select("details:not([open])")
        assert "Show the solution" in folded.text and "BEGIN SOLUTION" in folded.text


def test_broken_links_are_found(tmp_path):
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="#top"></a><a href="b.html#yes"></a>'
        '<a href="#no"></a><a href="b.html#no"></a><a href="c.html"></a>'
        '<img src="d.png"><script src="https://e.org/f.js"></script>'
        '<a href="https://e.org"></a>'
    )
    (tmp_path / "b.html").write_text('<h1 id="yes">B</h1>')
    assert broken_links(tmp_path) == [
        "a.html: #no has no such anchor",
        "a.html: b.html#no has no such anchor",
        "a.html: c.html",
        "a.html: d.png",
        "a.html: https://e.org/f.js needs the network",
    ]
