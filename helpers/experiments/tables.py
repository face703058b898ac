"""Results as rows, and rows as Markdown tables."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from helpers.evaluation.evaluate import Evaluation
from helpers.evaluation.metrics import Estimate
from helpers.evaluation.task import TASKS
from helpers.experiments.registry import Published

RIGHT = {"parameters", "GFLOP", "epochs", "time", "ratio", "difference", "seeds"}


@dataclass(frozen=True)
class Row:
    """One network or baseline in metrics.json and in the tables.

    task         what it predicts; see `TASKS`
    test_mse     with its interval; mean_mse is that of the mean colors of predicted maps
    accuracy     report 003's accuracy, or None
    single_pass_mse  without averaging over the mirror image, or None
    parameters, gflop, epochs, seconds  0 for a baseline; gflop is for one `predict`
    passes       forward passes in `predict`: 2 with the mirror image
    published    the result to compare with, or None
    """

    task: str
    test_mse: Estimate
    mean_mse: Estimate | None = None
    accuracy: Estimate | None = None
    single_pass_mse: Estimate | None = None
    test_images: int = 0
    parameters: int = 0
    gflop: float = 0.0
    passes: int = 1
    epochs: int = 0
    seconds: float = 0.0
    published: Published | None = None

    @classmethod
    def of(cls, task: str, evaluation: Evaluation, **fields) -> "Row":
        """Return the row for a predictor's evaluation."""
        figures = (evaluation.mse, evaluation.mean_mse, evaluation.accuracy)
        return cls(task, *figures, test_images=len(evaluation.per_image), **fields)

    @classmethod
    def from_json(cls, content: Mapping) -> "Row":
        """Return the row from the output of `to_json`."""
        content = dict(content)
        for name in ("test_mse", "mean_mse", "accuracy", "single_pass_mse"):
            content[name] = content[name] and Estimate(**content[name])
        if content["published"]:
            content["published"] = Published(**content["published"])
        return cls(**content)

    def to_json(self) -> dict:
        """Return the row as plain values."""
        return asdict(self)

    def cells(self) -> dict[str, str]:
        """Return the row's cells by column heading."""
        cells = {
            "parameters": f"{self.parameters:,}" if self.parameters else "",
            "GFLOP": f"{self.gflop:.3f}" if self.gflop else "",
            "epochs": str(self.epochs or ""),
            "time": duration(self.seconds) if self.epochs and self.seconds else "",
        }
        if self.accuracy:
            cells |= {
                "MSE": f"{self.test_mse.mean:.5f}",
                "accuracy": share(self.accuracy),
            }
            headings = ("published", "difference")
        else:
            cells |= {"test MSE": estimate(self.test_mse)}
            cells |= {"single pass": estimate(self.single_pass_mse)}
            headings = ("published", "ratio")
        return cells | dict(zip(headings, self._against_published(), strict=True))

    def _against_published(self) -> tuple[str, str]:
        figure = self.published
        if not figure:
            return "", ""
        if self.accuracy:
            difference = f"{self.accuracy.mean - figure.accuracy:+.4f}"
            return f"{figure.accuracy:.4f} ({figure.network})", difference
        ratio = f"{self.test_mse.mean / figure.mse:.2f}"
        return f"{figure.mse:.3e} ({figure.network})", ratio


def markdown(rows: Sequence[dict[str, str]]) -> list[str]:
    """Return the lines of a Markdown table, followed by an empty line.

    rows  each row's cells by heading; duplicate rows appear once
    """
    headings = list(rows[0])
    marks = ["---:" if heading in RIGHT else "---" for heading in headings]
    cells = [headings, marks, *([row[heading] for heading in headings] for row in rows)]
    return [*dict.fromkeys(f"| {' | '.join(row)} |" for row in cells), ""]


def task_tables(first: str, rows: Sequence[tuple[str, str, Row]]) -> list[str]:
    """Return one section per task: heading and table.

    first  heading of the first column
    rows   (cell in the first column, name of the network, its row)
    """
    lines = []
    for task in TASKS.values():
        chosen = [
            {first: cell, "network": name, **row.cells()}
            for cell, name, row in rows
            if row.task == task.name
        ]
        if chosen:
            lines += [f"## {task.title}", "", *markdown(chosen)]
    return lines


def estimate(value: Estimate | None) -> str:
    """Format an MSE with its interval."""
    if not value:
        return ""
    return f"**{value.mean:.3e}** [{value.low:.2e}, {value.high:.2e}]"


def share(value: Estimate) -> str:
    """Format an accuracy with its interval."""
    return f"**{value.mean:.4f}** [{value.low:.3f}, {value.high:.3f}]"


def duration(seconds: float) -> str:
    """Format a duration in seconds, or in minutes from ten minutes on."""
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
