import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.files import PROJECT

LAYERS = ["data", "nets", "evaluation", "training", "experiments", "apps", "cli"]
BASE = ["__init__", "files", "progress"]  # below all layers
TOP_LEVEL = {*BASE, "__main__", *LAYERS}
RANK = {**dict.fromkeys(BASE, 0), **{x: n for n, x in enumerate(LAYERS, 1)}}
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 59


def problems_of(package: Path) -> list[str]:
    """Return all problems of a package's structure; `package` is the folder helpers/."""
    found = []
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package.parent).as_posix()
        layer = path.relative_to(package).parts[0].removesuffix(".py")
        if layer not in TOP_LEVEL or (layer in LAYERS and path.parent == package):
            found.append(f"{name}: not in one of the packages")
            continue
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text)
        found += [
            f"{name}:{line} imports helpers.{imported}"
            for line, imported in imports_of(tree, path.relative_to(package))
            if layer != "__main__" and RANK.get(imported, 99) > RANK[layer]
        ]
        found += [f"{name}: {x}" for x in long_functions(tree)]
        if (lines := len(text.splitlines())) > MAX_MODULE_LINES:
            found.append(f"{name}: {lines} lines")
    return found


def imports_of(tree: ast.Module, path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and layer ("data", "files") of all imports from the package.

    `path` is that of the module inside the package; relative imports need it.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parents = ["helpers", *path.parent.parts]
            start = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*start, *filter(None, [node.module])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, *rest = name.split(".")
            if first == "helpers":
                is_constant = not rest or rest[0].isupper()  # MAX_PIXELS of __init__
                yield node.lineno, "__init__" if is_constant else rest[0]


def long_functions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = node.end_lineno - node.lineno + 1  # decorators are not counted
            if lines > MAX_FUNCTION_LINES:
                yield f"{node.name} has {lines} lines"


def test_each_package_imports_only_from_those_before_it():
    assert problems_of(PROJECT / "helpers") == []


GOOD = {
    "__init__.py": "MAX_PIXELS = 1",
    "__main__.py": "from helpers.cli import main",
    "files.py": "import os",
    "progress.py": "from helpers.files import OUTPUTS",
    "data/__init__.py": "",
    "data/lab.py": "from helpers import MAX_PIXELS\nfrom helpers import files\nimport cv2",
    "data/portraits/brush.py": "from ..lab import x\nfrom ... import files",
    "nets/__init__.py": "from helpers.data.lab import x\nfrom . import unet",
    "nets/unet.py": "import torch",
    "apps/demo.py": "from helpers.training.loop import fit\nimport helpers.nets",
    "cli/__init__.py": "def main():\n    from helpers.apps.demo import x",
    "cli/run.py": "from helpers.cli import main\nfrom helpers.apps import demo",
}
BAD = {
    "data/up.py": (
        "from helpers.nets import build",
        "data/up.py:1 imports helpers.nets",
    ),
    "data/up_inside.py": (
        "def f():\n    import helpers.training.loop",
        "data/up_inside.py:2 imports helpers.training",
    ),
    "data/up_from_root.py": (
        "from helpers import files, evaluation",
        "data/up_from_root.py:1 imports helpers.evaluation",
    ),
    "data/portraits/up.py": (
        "from ...nets.unet import UNet",
        "data/portraits/up.py:1 imports helpers.nets",
    ),
    "nets/up.py": ("from .. import apps", "nets/up.py:1 imports helpers.apps"),
    "apps/up.py": ("from helpers.cli import main", "apps/up.py:1 imports helpers.cli"),
    "nets/main.py": (
        "from helpers.__main__ import x",
        "nets/main.py:1 imports helpers.__main__",
    ),
    "data/old.py": ("import helpers.faces", "data/old.py:1 imports helpers.faces"),
    "files.py": ("from helpers.data import lab", "files.py:1 imports helpers.data"),
    "faces.py": ("", "faces.py: not in one of the packages"),
    "data.py": ("", "data.py: not in one of the packages"),
    "cli.py": ("", "cli.py: not in one of the packages"),
    "tools/new.py": ("", "tools/new.py: not in one of the packages"),
    "data/long.py": ("x = 1\n" * 401, "data/long.py: 401 lines"),
    "nets/long.py": (
        "class A:\n    @f\n    def g(self):\n" + "        x = 1\n" * 59,
        "nets/long.py: g has 60 lines",
    ),
    "apps/long.py": (
        "def f():\n    async def g():\n" + "        x = 1\n" * 59,
        "apps/long.py: g has 60 lines",
    ),
}


@pytest.fixture
def package(tmp_path):
    for name, text in GOOD.items():
        path = tmp_path / "helpers" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "helpers"


def test_a_good_package_has_no_problems(package):
    (package / "nets/exact.py").write_text("def f():\n" + "    x = 1\n" * 58)
    (package / "data/exact.py").write_text("x = 1\n" * 400)
    assert problems_of(package) == []


@pytest.mark.parametrize("name", BAD)
def test_a_bad_module_has_the_expected_problem(package, name):
    text, problem = BAD[name]
    (package / name).parent.mkdir(exist_ok=True)
    (package / name).write_text(text)
    assert f"helpers/{problem}" in problems_of(package)
