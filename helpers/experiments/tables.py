"""Results as rows, and rows as tables in Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from helpers.evaluation.evaluate import Evaluation
from helpers.evaluation.metrics import Estimate
from helpers.evaluation.task import TASKS
from helpers.experiments.registry import Published


@dataclass(frozen=True)
class Row:
    """One network or baseline in metrics.json and in the tables.

    task         what it predicts, see `TASKS`
    test_mse     with its interval; mean_mse: of the mean colors of predicted maps
    accuracy     report 003's, or None
    single_pass_mse  without the average over the mirror image, where there is one
    parameters, gflop, epochs, seconds  0 for a baseline; gflop is that of `predict`
    passes       forward passes of `predict`: 2 with the mirror image
    published    the figure to compare with, or None
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
        """Return the row of a predictor that was evaluated."""
        return cls(
            task,
            evaluation.mse,
            evaluation.mean_mse,
            evaluation.accuracy,
            test_images=len(evaluation.per_image),
            **fields,
        )

    @classmethod
    def from_json(cls, content: Mapping) -> "Row":
        """Return the row that `to_json` wrote."""
        content = dict(content)
        for name in ("test_mse", "mean_mse", "accuracy", "single_pass_mse"):
            content[name] = content[name] and Estimate(**content[name])
        content["published"] = content["published"] and Published(
            **content["published"]
        )
        return cls(**content)

    def to_json(self) -> dict:
        """Return the row as plain values."""
        return asdict(self)


Cell = Callable[..., str]  # from a row, or from what belongs to it, to its text
RIGHT = {"parameters", "GFLOP", "epochs", "time", "ratio", "difference", "seeds"}


def markdown(columns: Mapping[str, Cell], items: Iterable[Sequence]) -> list[str]:
    """Return the lines of a table in Markdown, with an empty line behind it.

    columns  heading of each column, and the function of an item that makes its cell
    items    the arguments of the functions, one sequence per row; equal rows appear once
    """
    marks = ["---:" if name in RIGHT else "---" for name in columns]
    rows = [[cell(*item) for cell in columns.values()] for item in items]
    lines = dict.fromkeys(f"| {' | '.join(row)} |" for row in rows)
    return [f"| {' | '.join(row)} |" for row in (columns, marks)] + [*lines, ""]


def task_tables(first: str, rows: Sequence[tuple[str, str, Row]]) -> list[str]:
    """Return one section per task: heading and table.

    first  heading of the first column
    rows   (cell of the first column, name of the network, its row)
    """
    lines = []
    for task in TASKS.values():
        chosen = [row for row in rows if row[2].task == task.name]
        columns: dict[str, Cell] = {
            first: lambda first, name, row: first,
            "network": lambda first, name, row: name,
            **{
                heading: lambda first, name, row, cell=cell: cell(row)
                for heading, cell in (SIZE_COLUMNS | figure_columns(task.name)).items()
            },
        }
        if chosen:
            lines += [f"## {task.title}", "", *markdown(columns, chosen)]
    return lines


def figure_columns(task: str) -> dict[str, Cell]:
    """Return the columns with the figures of a task and the published ones."""
    if TASKS[task].headline == "accuracy":
        return {
            "MSE": lambda row: f"{row.test_mse.mean:.5f}",
            "accuracy": lambda row: share(row.accuracy),
            "published": lambda row: _published(row, "accuracy", ".4f"),
            "difference": _difference,
        }
    return {
        "test MSE": lambda row: estimate(row.test_mse),
        "single pass": lambda row: estimate(row.single_pass_mse),
        "published": lambda row: _published(row, "mse", ".3e"),
        "ratio": ratio,
    }


def estimate(value: Estimate | None) -> str:
    """Return an MSE with its interval."""
    if not value:
        return ""
    return f"**{value.mean:.3e}** [{value.low:.2e}, {value.high:.2e}]"


def share(value: Estimate) -> str:
    """Return an accuracy with its interval."""
    return f"**{value.mean:.4f}** [{value.low:.3f}, {value.high:.3f}]"


def duration(seconds: float) -> str:
    """Return seconds, or minutes from ten minutes on."""
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"


def ratio(row: Row) -> str:
    """Return our MSE as a multiple of the published one."""
    return f"{row.test_mse.mean / row.published.mse:.2f}" if row.published else ""


def _difference(row: Row) -> str:
    if not row.published:
        return ""
    return f"{row.accuracy.mean - row.published.accuracy:+.4f}"


def _published(row: Row, figure: str, form: str) -> str:
    if not row.published:
        return ""
    return f"{getattr(row.published, figure):{form}} ({row.published.network})"


SIZE_COLUMNS: dict[str, Cell] = {
    "parameters": lambda row: f"{row.parameters:,}" if row.parameters else "",
    "GFLOP": lambda row: f"{row.gflop:.3f}" if row.gflop else "",
    "epochs": lambda row: str(row.epochs or ""),
    "time": lambda row: duration(row.seconds) if row.epochs else "",
}
