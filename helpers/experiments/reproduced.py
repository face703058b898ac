"""The table and the plot at the top of RESULTS.md: published results beside ours.

Both are made from the tables further down on the same page, so they cannot disagree.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import mean

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from helpers.evaluation.task import TASKS
from helpers.experiments.registry import EXPERIMENTS
from helpers.experiments.tables import markdown

HEADING = "## Published results and ours"
NOTE = (
    "*Ours* is our longest run on the random split; brackets give its 95% bootstrap "
    "interval over the sitters in the test set, in report 003 over the test images. If "
    "there are several runs (several random splits or, in report 003, several seeds), it "
    "is their mean, with the lowest and the highest result in parentheses. *Epochs* are "
    "those of this run, or of the shortest of several; report 003's stopping rule ends "
    "some runs early. *Ours at best* is our best result in the same task: an MSE is a "
    "mean over several random splits, with predictions averaged over the image and its "
    "mirror image; an accuracy is a single run. *Reproduced* means within 15% of the "
    "published MSE, or within 0.02 of the published accuracy. *Undecided* means that the "
    "difference is larger, but our interval or range contains the published result."
)
NOTE_OPEN = (
    " *Open*: our run is shorter than the published one; in report 003, whose rule "
    "decides, shorter than 40% of it."
)
TOLERANCE = 0.15  # relative, of an MSE
ACCURACY_TOLERANCE = 0.02
COMPLETE = 0.4  # of the published epochs, where report 003's rule ended our run
TITLES = {task.title for task in TASKS.values()} | {"Over several splits"}
NUMBER = r"\d\.\d+(?:e-?\d+)?"


@dataclass(frozen=True)
class Compared:
    """A published result beside ours.

    best             our best result for the same task
    cell             our result and its interval, or its mean and range over several
                     splits or seeds, or ""
    epochs           the number of epochs trained, of several runs the smallest; 0 for a
                     network that was not trained
    """

    network: str
    best: str
    cell: str = ""
    epochs: int = 0

    @property
    def is_accuracy(self) -> bool:
        """Return whether the published result is report 003's accuracy, not an MSE."""
        return EXPERIMENTS[self.network].accuracy is not None

    @property
    def published(self) -> float:
        """Return the published result."""
        experiment = EXPERIMENTS[self.network]
        return experiment.accuracy if self.is_accuracy else experiment.mse

    @property
    def ours(self) -> list[float]:
        """Return our result and both ends of its interval or range; [] if none."""
        return [float(x) for x in re.findall(NUMBER, self.cell)]

    @property
    def verdict(self) -> str:
        """Say whether the published result is reproduced."""
        if not self.ours:
            return "not trained"
        length = EXPERIMENTS[self.network].published_epochs
        if self.epochs < length * (COMPLETE if self.is_accuracy else 1):
            return f"open: {self.epochs} of {length} epochs"
        ours, low, high = self.ours
        change = ours - self.published
        if self.is_accuracy:
            tolerance, words = ACCURACY_TOLERANCE, f"{change:+.3f}"
        else:
            tolerance = TOLERANCE * self.published
            words = f"{abs(change) / self.published:.0%} "
            words += "smaller" if change < 0 else "larger"
        if abs(change) <= tolerance:
            return "yes"
        return f"{'undecided' if low <= self.published <= high else 'no'}: {words}"

    @property
    def is_open(self) -> bool:
        """Return whether our run is too short to be compared."""
        return self.verdict.startswith("open")

    def cells(self) -> dict[str, str]:
        """Return the row of the table."""
        form = ".4f" if self.is_accuracy else ".3e"
        return {
            "network": f"`{self.network}`",
            "published": f"{self.published:{form}}",
            "ours": self.cell,
            "reproduced?": self.verdict,
            "epochs": f"{self.epochs or ''}",
            "ours at best": self.best,
        }


def compare(page: str) -> list[Compared]:
    """Compare each published result with the longest run on the page of results."""
    rows = list(_rows(page))
    best = _best(rows)
    several = [x for x in rows if x.get("splits")]
    means = {(_name(x), _epochs(x)): x["random split"] for x in several}
    compared = []
    for name, experiment in EXPERIMENTS.items():
        if experiment.mse is None:
            continue
        row = Compared(name, best.get(experiment.task, ""))
        column = "accuracy" if row.is_accuracy else "random split"
        single = [x for x in rows if _name(x) == name and "splits" not in x]
        ours = [x for x in single if _epochs(x) and x.get(column)]
        ours.sort(key=_epochs, reverse=True)  # of equally long runs, the first counts
        by_seed = {_seed(x): x for x in reversed(ours)}
        if chosen := list(by_seed.values()) if row.is_accuracy else ours[:1]:
            cells = [x[column].replace("*", "") for x in chosen]
            epochs = min(map(_epochs, chosen))
            cell = means.get((name, epochs)) or _mean(cells)
            row = replace(row, cell=cell.replace("*", ""), epochs=epochs)
        compared.append(row)
    return compared


def with_opening(page: str, plot: str) -> str:
    """Return the page with a new section at its top: the table, and a link to the plot."""
    head, _, rest = page.partition(f"{HEADING}\n")
    if rest:  # the old section ends at the next heading
        _, mark, rest = rest.partition("\n## ")
        rest = mark.lstrip("\n") + rest
    else:
        title, _, rest = page.partition("\n\n")
        head = f"{title}\n\n"
    compared = compare(page)
    rows = "\n".join(markdown([row.cells() for row in compared])).rstrip()
    note = NOTE + (NOTE_OPEN if any(row.is_open for row in compared) else "")
    alt = "Published results and ours, one row for each network"
    return f"{head}{HEADING}\n\n{note}\n\n{rows}\n\n![{alt}]({plot})\n\n{rest}"


def draw(compared: list[Compared]) -> Figure:
    """Draw the published results (circles) and ours (dots with their intervals)."""
    groups = [[x for x in compared if x.is_accuracy is kind] for kind in (False, True)]
    fig, axes = plt.subplots(
        1, 2, figsize=(11, 0.3 * max(map(len, groups)) + 1.2), layout="constrained"
    )
    for ax, group in zip(axes, groups, strict=True):
        places = range(len(group), 0, -1)
        ax.plot([x.published for x in group], places, "o", mfc="none", color="k",
                label="published")  # fmt: skip
        for place, x in zip(places, group, strict=True):
            if x.ours:
                ours, low, high = x.ours
                color = "0.7" if x.is_open else "C0"
                ax.plot([low, high], [place, place], "-", color=color)
                ax.plot(ours, place, ".", color=color, markersize=9)
        labels = {"C0": "ours"}
        labels |= {"0.7": "ours, open"} if any(x.is_open for x in compared) else {}
        for color, label in labels.items():
            ax.plot([], [], ".-", color=color, markersize=9, label=label)
        ax.set_yticks(places, [x.network for x in group])
        ax.grid(axis="x", color="0.9")
    axes[0].set_xscale("log")
    axes[0].set_xlabel("test MSE of a*, b* (smaller is better)")
    axes[1].set_xlabel("accuracy (larger is better)")
    handles, labels = axes[0].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False)
    return fig


def _rows(page: str) -> Iterator[dict[str, str]]:
    """Yield the rows of the tables of results, by their column's heading."""
    for section in page.split("\n## ")[1:]:
        lines = section.splitlines()
        table = [line for line in lines if line.startswith("|")]
        if lines[0] in TITLES and len(table) > 2:
            heads = [x.strip() for x in table[0].strip("|").split("|")]
            for line in table[2:]:
                cells = [x.strip() for x in line.strip("|").split("|")]
                pairs = list(zip(heads, cells, strict=True))
                # Of equal headings, the first counts: that of the random split.
                yield dict(reversed(pairs))


def _best(rows: list[dict[str, str]]) -> dict[str, str]:
    """Return our best result for each task: of single runs, or of means over splits."""
    found: dict[str, list[float]] = {"rgb": [], "map": [], "mean": []}
    for row in rows:
        if row.get("accuracy") and row.get("epochs"):
            found["rgb"].append(-_number(row["accuracy"]))
        experiment = EXPERIMENTS.get(_name(row))
        if "splits" not in row or experiment is None or not row["random split"]:
            continue
        found[experiment.task].append(_number(row["random split"]))
        of_means = row.get("mean colors (random)") or row.get("mean colors")
        if of_means:
            found["mean"].append(_number(of_means))
    best = {task: min(values) for task, values in found.items() if values}
    return {
        task: f"{-x:.4f}" if task == "rgb" else f"{x:.2e}" for task, x in best.items()
    }


def _name(row: dict[str, str]) -> str:
    """Return the name of a row's network without what tells rows apart."""
    return re.split(r",? seed | on |,? \d+ epochs| ¹", row["network"])[0]


def _seed(row: dict[str, str]) -> str:
    """Return the seed in the row's name, or "" if it has none."""
    return row["network"].partition(", seed ")[2]


def _mean(cells: list[str]) -> str:
    """Return the only cell, or the mean and the range of the results in several."""
    if len(cells) == 1:
        return cells[0]
    values = [_number(x) for x in cells]
    return f"{mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def _epochs(row: dict[str, str]) -> int:
    return int((row.get("epochs") or "0").split("/")[0])


def _number(cell: str) -> float:
    return float(re.search(NUMBER, cell)[0])
