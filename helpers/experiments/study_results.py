"""The long runs of the ablation study, read from RESULTS.md."""

import re
from pathlib import Path

from helpers.files import PROJECT, InputError

SECTION = "## The ablation study"
PREFIX = "report003/"


def read_study_results(
    path: Path = PROJECT / "RESULTS.md",
) -> tuple[dict[str, dict[int, dict]], dict[str, float], int]:
    """Return the runs on faces_80, the tables there, and the number of training images.

    runs    for each network, without "report003/", and each seed: a dict with its
            accuracy, in 0..1, and its epochs; the seed is 1 where none is given. Of
            several runs, this is the longest
    tables  the accuracy of each look-up table
    Raises InputError if the file has no such table.
    """
    text = path.read_text(encoding="utf-8")
    _, _, section = text.partition(SECTION)
    lines = [line for line in section.split("\n## ")[0].splitlines() if line[:1] == "|"]
    images = re.search(r"faces_80\S* (?:\d+ to )?(\d+) training", text)
    if len(lines) < 3 or not images:
        raise InputError(f"{path}: has no results under {SECTION!r}")
    heading, _, *rows = ([x.strip() for x in line[1:-1].split("|")] for line in lines)
    runs, tables = {}, {}
    for row in rows:
        cells = dict(zip(heading, row, strict=True))
        accuracy = float(re.search(r"\*\*(.+?)\*\*", cells["accuracy"])[1])
        name, _, seed = cells["network"].partition(", seed ")
        if name.startswith(PREFIX):
            values = {"accuracy": accuracy, "epochs": int(cells["epochs"].split()[0])}
            by_seed = runs.setdefault(name.removeprefix(PREFIX), {})
            other = by_seed.get(int(seed or 1), values)
            by_seed[int(seed or 1)] = max(other, values, key=lambda run: run["epochs"])
        else:
            tables[name] = accuracy
    return runs, tables, int(images[1])
