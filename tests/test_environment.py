import re
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from helpers.files import PROJECT

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
LOCK = [
    Requirement(line)
    for line in (PROJECT / "requirements.lock").read_text().splitlines()
    if line and not line.startswith("#")
]
DECLARED = [
    Requirement(text)
    for text in PYPROJECT["dependencies"] + PYPROJECT["optional-dependencies"]["test"]
]


def pinned_version(requirement):
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return specifier.version


def test_the_lock_pins_every_line_and_no_package_twice():
    names = [canonicalize_name(requirement.name) for requirement in LOCK]
    assert len(names) > 50
    assert sorted(names) == sorted(set(names))
    for requirement in LOCK:
        assert pinned_version(requirement)
        assert requirement.url is None


def test_torch_is_pinned_for_every_kind_of_machine():
    assert "torch==2.13.0" in (PROJECT / "requirements.lock").read_text().splitlines()
    of_cuda = [r.name for r in LOCK if r.name.startswith(("nvidia", "triton"))]
    assert not of_cuda, (
        "the lock was made with torch for CUDA, which not all can install"
    )


@pytest.mark.parametrize("declared", DECLARED, ids=lambda r: r.name)
def test_the_lock_lies_in_the_range_of_pyproject(declared):
    pins = {canonicalize_name(r.name): pinned_version(r) for r in LOCK}
    assert pins[canonicalize_name(declared.name)] in declared.specifier


def test_the_floor_of_torch_excludes_unsafe_loading():
    (torch,) = [r for r in DECLARED if r.name == "torch"]
    assert "2.9.1" not in torch.specifier


def test_the_installed_package_has_all_sub_packages():
    import setuptools

    with (PROJECT / "pyproject.toml").open("rb") as file:
        options = tomllib.load(file)["tool"]["setuptools"]["packages"]["find"]
    found = setuptools.find_packages(str(PROJECT), **options)
    modules = (PROJECT / "helpers").rglob("*.py")
    folders = {path.parent.relative_to(PROJECT).as_posix() for path in modules}
    assert {"helpers/data", "helpers/nets", "helpers/apps"} < folders
    assert {name.replace(".", "/") for name in found} == folders


def test_environment_yml_installs_the_lock_and_this_package():
    import yaml

    conda = yaml.safe_load((PROJECT / "environment.yml").read_text())
    python, pip, pip_lines = conda["dependencies"]
    assert pip == "pip"
    assert pip_lines == {"pip": ["-r requirements.lock", "-e ."]}
    version = python.removeprefix("python=")
    assert f"{version}.1" in SpecifierSet(PYPROJECT["requires-python"])


def test_this_environment_is_the_locked_one():
    from importlib.metadata import version

    pins = {canonicalize_name(r.name): pinned_version(r) for r in LOCK}
    declared = [canonicalize_name(r.name) for r in DECLARED]
    here = {name: version(name).split("+")[0] for name in declared}
    assert here == {name: pins[name] for name in declared}


@pytest.mark.parametrize("page", ["README.md", "tests/faults/README.md"])
def test_every_test_that_a_page_names_exists(page):
    text = (PROJECT / page).read_text()
    rows = re.findall(r"^\| .* \| (`test_.*`) \|$", text, re.M)
    names = [name for row in rows for name in re.findall(r"`(test_\w+(?:\.py)?)`", row)]
    files = list((PROJECT / "tests").rglob("test_*.py"))
    known = {file.name for file in files}
    for file in files:
        known |= set(re.findall(r"^def (test_\w+)", file.read_text(), re.M))
    assert len(names) >= 15
    assert set(names) <= known, set(names) - known
