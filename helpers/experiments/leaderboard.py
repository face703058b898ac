"""RESULTS.md: the results of all training runs on real photographs, side by side.

Each run writes a metrics.json (`deepcolor train`, `deepcolor sweep`). A network has one row
with its results on the random split, on the split with no person in both sets, and the
published result. A network trained on several splits (random seeds) also appears in a
second table, with its means.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from helpers.evaluation.small_png import small_png
from helpers.evaluation.task import TASKS
from helpers.experiments.profiles import get_profile
from helpers.experiments.registry import DEFAULT_SEED, EXPERIMENTS, get_experiment
from helpers.experiments.reproduced import compare, draw, with_opening
from helpers.experiments.tables import Row, estimate, markdown
from helpers.files import InputError, read_json, write_atomic

TITLE = "# Results"
LEGEND = "\n## How to read the tables"  # written by hand, too, once the page exists
BY_HAND = "\n## What was tried"  # from here on, the page is written by hand, and kept
REFERENCE = "best/plain"  # means over several splits are compared with this network's
SPLITS = {"random": "random split", "groups": "no person in both sets"}
FOLDERS = {"folders": "folders train and val"}  # a column only if there is such a run


class Key(NamedTuple):
    """What distinguishes one training run from another; epochs is 0 for a baseline.

    The profile of a baseline is only named if it limits the number of training images.
    """

    name: str
    profile: str
    epochs: int
    start: str  # the weights that were fine-tuned
    data: str  # hash of the images
    seed: int

    @property
    def network(self) -> "Key":
        """The key that all random seeds share."""
        return self._replace(seed=0)

    @property
    def title(self) -> str:
        """The network's name, and the weights it started from."""
        return f"{self.name} from {self.start}" if self.start else self.name


@dataclass(frozen=True)
class Found:
    """The rows and metrics of all training runs with the same key, by split."""

    rows: dict[str, Row]
    metrics: dict[str, dict]

    @property
    def row(self) -> Row:
        """The row for the random split, or for the other split if there is none."""
        return self.rows.get("random") or next(iter(self.rows.values()))


def write_leaderboard(folders: Sequence[Path], path: Path) -> Path:
    """Write the results of all training runs in the run folders to `path`; return it.

    Raises InputError if there is no run, if one used the synthetic portraits, whose results
    are not comparable, or if `path` exists and is not a results page.
    """
    old = _read(path) if path.exists() else ""
    files = [f for d in folders for f in sorted(d.rglob("train/*/metrics.json"))]
    trainings = [read_json(file) for file in files]
    if not trainings:
        words = ", ".join(map(str, folders))
        raise InputError(f"{words}: no training runs here; run `deepcolor sweep` first")
    for file, training in zip(files, trainings, strict=True):
        if "environment" not in training or "task" not in _first(training["networks"]):
            raise InputError(f"{file}: written by an older version; train again")
        if training["data"]["synthetic"]:
            raise InputError(
                f"{file}: trained on the synthetic portraits; leave it out"
            )
    page = leaderboard_page(trainings)
    _, mark, legend = old.partition(LEGEND)
    if mark:  # the old legend ends at the next heading
        head, _, rest = page.partition(LEGEND)
        page = "\n## ".join(
            [head + mark + legend.partition("\n## ")[0], rest.partition("\n## ")[2]]
        )
    _, mark, by_hand = old.partition(BY_HAND)
    return _write(page + mark + by_hand, path)


def renew_opening(path: Path) -> Path:
    """Write the table and the plot at the top of a results page again, from its tables.

    Raises InputError if `path` is not a results page.
    """
    return _write(_read(path), path)


def _read(path: Path) -> str:
    """Return the text of a results page; raise InputError if `path` is none."""
    page = path.read_text("utf-8-sig", errors="replace") if path.is_file() else ""
    if page.partition("\n")[0].rstrip() != TITLE:
        raise InputError(f"{path}: is not a results page; choose another name")
    return page


def _write(page: str, path: Path) -> Path:
    """Write a results page with its opening table, and the plot beside it."""
    plot = path.with_suffix(".png")
    try:
        picture, text = small_png(draw(compare(page))), with_opening(page, plot.name)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(
            f"{path}: a table of results cannot be read ({error}); correct the table"
        ) from error
    write_atomic(plot, picture)
    write_atomic(path, text.encode())
    return path


def leaderboard_page(trainings: Iterable[dict]) -> str:
    """Return the results page for training runs, given the content of each metrics.json."""
    found: dict[Key, Found] = {}
    for training in trainings:
        asked, data = training["parameters"], training["data"]["hash"]
        split, seed = asked["split"], asked["seed"]
        how = asked["profile"], asked["epochs"], asked.get("start", "")
        key = Key(asked["name"], *how, data, seed)
        entry = found.setdefault(key, Found({}, {}))
        entry.rows[split] = Row.from_json(_first(training["networks"]))
        entry.metrics[split] = training
        limit = get_profile(asked["profile"])
        is_study = entry.rows[split].task == "rgb"
        limited = limit.study_images if is_study else limit.max_images
        profile = asked["profile"] if limited else ""
        for name, row in training.get("baselines", {}).items():
            same = Key(name, profile, 0, "", data, seed)
            baseline = found.setdefault(same, Found({}, {}))
            baseline.rows[split] = Row.from_json(row)
    found = dict(sorted(found.items(), key=lambda item: _position(item[0])))
    lines = [
        TITLE,
        "",
        LEGEND.strip(),
        "",
        "MSE of a*, b* on scale S: the mean of ((a - a_hat)/255)² and ((b - b_hat)/255)² "
        "over the test images, with a 95% bootstrap interval over the sitters, or over "
        "the images if the sitters are unknown. *Single pass*: without averaging over the "
        "mirror image. *Epochs*: those trained and, after the slash, those in the full "
        "profile. *Ratio*: our MSE divided by the published one.",
        "",
    ]
    for task in TASKS.values():
        cells = [
            _cells(key, entry, found)
            for key, entry in found.items()
            if entry.row.task == task.name and _is_shown(key, found)
        ]
        if cells:
            lines += [f"## {task.title}", "", *markdown(cells)]
    return "\n".join([*lines, *_several_splits(found), *_origins(found)])


def _cells(key: Key, entry: Found, found: dict[Key, Found]) -> dict[str, str]:
    """Return the cells of a key's row, with one test MSE column per split."""
    cells = {"network": _name(key, found)}
    has_folders = any("folders" in other.rows for other in found.values())
    splits = SPLITS | (FOLDERS if has_folders else {})
    for heading, cell in entry.row.cells().items():
        if heading == "test MSE":
            for split, title in splits.items():
                row = entry.rows.get(split)
                cells[title] = estimate(row.test_mse) if row else ""
        else:
            cells[heading] = cell
    if key.epochs:
        cells["epochs"] += f" / {get_experiment(key.name).epochs[-1]}"
    if "ratio" in cells and "random" not in entry.rows:  # published splits are random
        cells["ratio"] = ""
    return cells


def _name(key: Key, found: dict[Key, Found]) -> str:
    """Return a network's name, extended if needed to tell apart rows of the same name."""
    shown = [k for k in found if k.name == key.name and _is_shown(k, found)]
    name = key.title
    if key.profile and not key.epochs and len({k.profile for k in shown}) > 1:
        name += f", profile {key.profile}"
    if len({k.data for k in shown}) > 1 and found[key].metrics:
        name += f" on {_first(found[key].metrics)['data']['source']}"
    if len({k.seed for k in shown}) > 1:
        name += f", seed {key.seed}"
    return name


def _is_shown(key: Key, found: dict[Key, Found]) -> bool:
    """Return whether a key has a row: of several splits, only the default one does."""
    usual = key._replace(seed=DEFAULT_SEED)
    return found[key].row.task == "rgb" or key == usual or usual not in found


def _several_splits(found: dict[Key, Found]) -> list[str]:
    """Return a section with the means over several splits of the same images."""
    by_network: dict[Key, dict[int, Found]] = {}
    for key, entry in found.items():
        if entry.row.task != "rgb":
            by_network.setdefault(key.network, {})[key.seed] = entry
    references = {
        key.data: seeds for key, seeds in by_network.items() if key.title == REFERENCE
    }
    rows = []
    for network, seeds in by_network.items():
        counts = [len(_figures(seeds, split, "test_mse")) for split in SPLITS]
        if max(counts) < 2:
            continue
        is_map = _first(seeds).row.task == "map"
        reference = references.get(network.data, {}) if is_map else {}
        cells = {"network": network.title, "epochs": str(network.epochs or "")}
        cells |= {"splits": " + ".join(map(str, counts))}
        for split, title in SPLITS.items():
            cells[title] = _spread(seeds, split, "test_mse")
            cells[f"single pass ({split})"] = _spread(seeds, split, "single_pass_mse")
            cells[f"mean colors ({split})"] = _spread(seeds, split, "mean_mse")
            cells[f"against {REFERENCE} ({split})"] = _against(seeds, reference, split)
        rows.append(cells)
    if not rows:
        return []
    note = (
        "Mean over the splits with random seeds 0, 1, 2, ..., with the lowest and the "
        f"highest in parentheses; the change relative to `{REFERENCE}` on the same splits, "
        "with that for each split in parentheses."
    )
    return ["## Over several splits", "", note, "", *markdown(rows)]


def _figures(seeds: dict[int, Found], split: str, figure: str) -> dict[int, float]:
    """Return one metric of a network on one kind of split, by random seed."""
    rows = {
        seed: found.rows[split] for seed, found in seeds.items() if split in found.rows
    }
    return {
        s: getattr(row, figure).mean for s, row in rows.items() if getattr(row, figure)
    }


def _spread(seeds: dict[int, Found], split: str, figure: str) -> str:
    values = _figures(seeds, split, figure).values()
    if not values:
        return ""
    return f"**{mean(values):.2e}** ({min(values):.2e} to {max(values):.2e})"


def _against(seeds: dict[int, Found], reference: dict[int, Found], split: str) -> str:
    ours, theirs = (_figures(s, split, "test_mse") for s in (seeds, reference))
    common = sorted(ours.keys() & theirs.keys())
    if not common or seeds is reference:
        return ""
    total = sum(ours[s] for s in common) / sum(theirs[s] for s in common) - 1
    each = ", ".join(f"{ours[s] / theirs[s] - 1:+.0%}" for s in common)
    return f"{total:+.0%} ({each})"


def _origins(found: dict[Key, Found]) -> list[str]:
    """Return the origin of the results: data, machines, and one command per run."""
    machines: dict[str, str] = {}
    data, rows = {}, []
    for training in (t for entry in found.values() for t in entry.metrics.values()):
        asked, source = training["parameters"], training["data"]["source"]
        data.setdefault((source, training["data"]["split"]), []).append(
            training["data"]
        )
        machine = _machine(training["environment"])
        letter = machines.setdefault(machine, chr(ord("A") + len(machines)))
        start = asked.get("start", "")
        command = (
            f"`deepcolor train {asked['name']} --profile {asked['profile']} --images "
            f"{source} --split {asked['split']} --seed {asked['seed']} --epochs "
            f"{asked['epochs']}{' --start ' + start if start else ''}`"
        )
        rows.append(
            {"command": command, "date": training["finished"], "machine": letter}
        )
    lines = ["## Data, machines, commands", ""]
    lines += [
        f"- {source}: {_range(d, 'training_images')} training and "
        f"{_range(d, 'test_images')} test images, split {split}"
        for (source, split), d in data.items()
    ]
    lines += [f"- machine {letter}: {machine}" for machine, letter in machines.items()]
    return [*lines, "", *markdown(rows)]


def _range(data: list[dict], count: str) -> str:
    """Return the count, or the lowest and the highest of different ones."""
    low, high = min(d[count] for d in data), max(d[count] for d in data)
    return f"{low}" if low == high else f"{low} to {high}"


def _machine(environment: dict) -> str:
    gpu = f", {environment['gpu']}" if environment["gpu"] else ", no GPU"
    return (
        f"{environment['processor']}, {environment['cores']} cores{gpu}, torch "
        f"{environment['versions']['torch']}; threads: {environment['threads']}"
    )


def _position(key: Key) -> tuple:
    """Return the sort key: baselines, then EXPERIMENTS in order; longer runs last."""
    names = list(EXPERIMENTS)
    place = names.index(key.name) if key.name in names else len(names)
    return (place if key.epochs else -1, *(key if key.epochs else ("", *key[1:])))


def _first(values: dict):
    return next(iter(values.values()))
