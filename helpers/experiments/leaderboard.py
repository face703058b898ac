"""RESULTS.md: all networks' figures from trainings on real photographs, side by side.

Each training leaves a metrics.json (`deepcolor train`, `deepcolor sweep`). A network has
one row: its figure on the random split, the one where no person stands in both parts, and
the published one. A network that was trained with several seeds, and so on several splits,
has a second row with the means.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean

from helpers.experiments.registry import DEFAULT_SEED, EXPERIMENTS, get_experiment
from helpers.experiments.tables import (
    SECTIONS,
    accuracy_against,
    against,
    duration,
    estimate,
    share,
    size_cells,
    table,
)
from helpers.files import InputError, read_json, write_atomic

TITLE = "# Results"
PLAIN = "best/plain"  # what the means over several splits are compared with
Key = tuple[str, str, int, int]  # network, profile, epochs asked, seed


def write_ledger(folders: Sequence[Path], path: Path) -> Path:
    """Write the figures of all trainings below the run folders to `path`; returns it.

    Raises InputError when there is no training below them, or one on synthetic portraits,
    whose figures say nothing about photographs, and when `path` holds something else.
    """
    if path.exists() and not path.read_text(errors="replace").startswith(TITLE):
        raise InputError(f"{path}: is no page of results; choose another name")
    files = [
        f for folder in folders for f in sorted(folder.rglob("train/*/metrics.json"))
    ]
    trainings = [read_json(file) for file in files]
    if not trainings:
        words = ", ".join(map(str, folders))
        raise InputError(f"{words}: no training here; run `deepcolor sweep` first")
    for file, training in zip(files, trainings, strict=True):
        if "environment" not in training:
            raise InputError(f"{file}: of an older version; train again")
        if training["data"]["synthetic"]:
            raise InputError(
                f"{file}: trained on the synthetic portraits; leave it out"
            )
    write_atomic(path, ledger_page(trainings).encode())
    return path


def ledger_page(trainings: Iterable[dict]) -> str:
    """The page of trainings, as `deepcolor train` writes each into its metrics.json."""
    found: dict[Key, dict[str, dict]] = {}
    for training in trainings:
        asked = training["parameters"]
        key = (asked["name"], asked["profile"], asked["epochs"], asked["seed"])
        found.setdefault(key, {})[asked["split"]] = training
        for name, row in training.get("baselines", {}).items():
            baseline = found.setdefault((name, "", 0, asked["seed"]), {})
            baseline[asked["split"]] = {"networks": {name: row}}
    keys = sorted(found, key=_place)
    seeds = Counter(key[:3] for key in keys)
    lines = [
        TITLE,
        "",
        "MSE of a*, b* on scale S: the mean of ((a - a_hat)/255)² and ((b - b_hat)/255)² "
        "over the test images, with the 95 % bootstrap interval. *Epochs*: those trained, "
        "behind the stroke those of its protocol. *Ratio*: ours over the published figure.",
        "",
    ]
    for task, title in SECTIONS.items():
        chosen = [k for k in keys if _row(_any(found[k]))["task"] == task]
        cells, head = (_study, STUDY) if task == "rgb" else (_course, COURSE)
        if task != "rgb":  # of several splits the usual one stands for all
            chosen = [k for k in chosen if _is_shown(k, found)]
        if chosen:
            rows = [cells(key, found[key], seeds[key[:3]] > 1) for key in chosen]
            lines += [f"## {title}", "", *table(head, rows), ""]
    lines += _several_splits(found, keys)
    everything = [(k, t) for k in keys if k[2] for t in found[k].values()]
    return "\n".join([*lines, *_origins(everything), ""])


COURSE = [
    "network", "parameters", "GFLOP", "epochs", "time", "random split",
    "no person in both parts", "published", "ratio",
]  # fmt: skip
STUDY = [
    "network", "parameters", "GFLOP", "epochs", "time", "MSE", "accuracy", "published",
    "difference",
]  # fmt: skip


def _course(key: Key, splits: dict[str, dict], several_seeds: bool) -> list[str]:
    row = _row(_any(splits))
    figures = {split: _row(training)["test_mse"] for split, training in splits.items()}
    shown = [estimate(figures[s]) if s in figures else "" for s in ("random", "groups")]
    figure = figures.get("random", next(iter(figures.values())))
    words, ratio = against(figure, row["published"])
    ratio = ratio if "random" in figures else ""  # the published splits are random
    return [*_start(key, row, several_seeds), *shown, words, ratio]


def _is_shown(key: Key, found: dict) -> bool:
    usual = (*key[:3], DEFAULT_SEED)
    return key == usual or usual not in found


def _several_splits(found: dict[Key, dict], keys: list[Key]) -> list[str]:
    """A section with the means of what was trained on several splits of one set."""
    head = ["network", "splits"]
    for part in ("random split", "no person in both parts"):
        head += [part, "its mean colors", "against plain"]
    kinds = {key[:3]: _row(_any(found[key]))["task"] for key in keys}
    plain = next((one for one in kinds if one[0] == PLAIN), None)
    rows = []
    for one, task in kinds.items():
        if task == "rgb":
            continue
        cells, numbers = [], []
        is_map = task == "map"
        for split in ("random", "groups"):
            errors = _errors(found, split, one)
            means = _errors(found, split, one, "mean_mse")
            compared = _errors(found, split, plain) if is_map and one != plain else {}
            numbers.append(len(errors))
            cells += [_spread(errors), _spread(means), _against(errors, compared)]
        if max(numbers) > 1:
            rows.append([one[0], " + ".join(map(str, numbers)), *cells])
    if not rows:
        return []
    note = (
        "Mean over the splits of seeds 0, 1, 2..., in brackets the lowest and the highest; "
        f"the change against `{PLAIN}` on the same splits, in brackets that of each split."
    )
    return ["## Over several splits", "", note, "", *table(head, rows), ""]


def _errors(
    found, split: str, one: tuple, figure: str = "test_mse"
) -> dict[int, float]:
    """By seed: a figure of one network on one kind of split."""
    return {
        key[3]: _row(splits[split])[figure]["mean"]
        for key, splits in found.items()
        if key[:3] == one and split in splits and _row(splits[split]).get(figure)
    }


def _spread(errors: dict[int, float]) -> str:
    if not errors:
        return ""
    values = errors.values()
    return f"**{mean(values):.2e}** ({min(values):.2e} to {max(values):.2e})"


def _against(errors: dict[int, float], plain: dict[int, float]) -> str:
    common = sorted(errors.keys() & plain.keys())
    if not common:
        return ""
    total = sum(errors[s] for s in common) / sum(plain[s] for s in common) - 1
    each = ", ".join(f"{errors[s] / plain[s] - 1:+.0%}" for s in common)
    return f"{total:+.0%} ({each})"


def _study(key: Key, splits: dict[str, dict], several_seeds: bool) -> list[str]:
    row = _row(_any(splits))
    figures = [f"{row['test_mse']['mean']:.5f}", share(row["accuracy"])]
    compared = accuracy_against(row["accuracy"], row["published"])
    return [*_start(key, row, several_seeds), *figures, *compared]


def _start(key: Key, row: dict, several_seeds: bool) -> list[str]:
    name, _, epochs, seed = key
    if not epochs:  # no network
        return [name, *size_cells(row), "", ""]
    protocol = get_experiment(name).recipe.num_epochs
    epochs = f"{row['epochs']} / {protocol}" if protocol else str(row["epochs"])
    name = f"{name}, seed {seed}" if several_seeds else name
    return [name, *size_cells(row), epochs, duration(row["seconds"])]


def _origins(trainings: list[tuple[Key, dict]]) -> list[str]:
    """Where the figures come from: data, machines, and a command for each."""
    data = {(t["data"]["source"], t["data"]["split"]): t["data"] for _, t in trainings}
    machines: dict[str, str] = {}
    rows = []
    for (name, profile, epochs, _), training in trainings:
        where = _machine(training["environment"])
        mark = machines.setdefault(where, chr(ord("A") + len(machines)))
        asked, source = training["parameters"], training["data"]["source"]
        command = (
            f"`deepcolor train {name} --profile {profile} --images {source} "
            f"--split {asked['split']} --seed {asked['seed']} --epochs {epochs}`"
        )
        rows.append([command, training["finished"], mark])
    lines = ["## Data, machines, commands", ""]
    lines += [
        f"- {source}: {d['training_images']} training and {d['test_images']} test images"
        f", split {d['split']}"
        for (source, _), d in data.items()
    ]
    lines += [f"- machine {mark}: {where}" for where, mark in machines.items()]
    return [*lines, "", *table(["command", "date", "machine"], rows)]


def _machine(found: dict) -> str:
    gpu = f", {found['gpu']}" if found["gpu"] else ", no GPU"
    return (
        f"{found['processor']}, {found['cores']} cores{gpu}, torch "
        f"{found['versions']['torch']}; threads: {found['threads']}"
    )


def _place(key: Key) -> tuple:
    """First what is no network, then the order of EXPERIMENTS; longer trainings last."""
    name, profile, epochs, seed = key
    names = list(EXPERIMENTS)
    place = names.index(name) if name in names else len(names)
    return (place if epochs else -1, name if epochs else "", profile, epochs, seed)


def _any(splits: dict[str, dict]) -> dict:
    return splits.get("random") or next(iter(splits.values()))


def _row(training: dict) -> dict:
    return next(iter(training["networks"].values()))
