"""Networks as tables in Markdown: a section for each thing that is predicted."""

from collections.abc import Iterable, Sequence

SECTIONS = {
    "map": "Color of each pixel",
    "mean": "Mean chrominance of each image",
    "rgb": "The ablation study: R, G, B from gray",
}
FIGURES = {
    "map": ["test MSE", "published", "ratio"],
    "mean": ["test MSE", "published", "ratio"],
    "rgb": ["MSE", "accuracy", "published", "difference"],
}
NUMBERS = {"parameters", "GFLOP", "epochs", "time", "ratio", "difference", "seeds"}


def sections(rows: Iterable[tuple[str, str, dict]], first: str) -> list[str]:
    """The lines of all sections that have rows.

    rows   (first cell, name of the network, its row as `network_row` makes it)
    first  the title of the first column
    """
    lines, rows = [], list(rows)
    for task, title in SECTIONS.items():
        chosen = [cells(*row) for row in rows if row[2]["task"] == task]
        if chosen:
            names = [first, "network", "parameters", "GFLOP", "epochs", "time"]
            head = [*names, *FIGURES[task]]
            lines += [f"## {title}", "", *table(head, chosen), ""]
    return lines


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table in Markdown; equal rows are shown once, numbers to the right."""
    marks = ["---:" if name in NUMBERS else "---" for name in head]
    lines = [f"| {' | '.join(row)} |" for row in (head, marks)]
    return lines + list(dict.fromkeys(f"| {' | '.join(row)} |" for row in rows))


def cells(first: str, name: str, row: dict) -> list[str]:
    """A network's cells under the head of its section."""
    start = [first, name, *size_cells(row)]
    start += [
        str(row["epochs"] or ""),
        duration(row["seconds"]) if row["epochs"] else "",
    ]
    published = row["published"]
    if row["task"] != "rgb":
        return [*start, estimate(row["test_mse"]), *against(row["test_mse"], published)]
    figures = [f"{row['test_mse']['mean']:.5f}", share(row["accuracy"])]
    return [*start, *figures, *accuracy_against(row["accuracy"], published)]


def size_cells(row: dict) -> list[str]:
    """Parameters and GFLOP; empty for what is no network."""
    gflop = row.get("gflop")
    return [
        f"{row['parameters']:,}" if row["parameters"] else "",
        f"{gflop:.3f}" if gflop else "",
    ]


def estimate(mse: dict) -> str:
    """An MSE with its interval."""
    return f"**{mse['mean']:.3e}** [{mse['low']:.2e}, {mse['high']:.2e}]"


def share(accuracy: dict) -> str:
    """An accuracy with its interval."""
    return f"**{accuracy['mean']:.4f}** [{accuracy['low']:.3f}, {accuracy['high']:.3f}]"


def against(mse: dict, published: dict | None) -> list[str]:
    """The published MSE, and ours as a multiple of it."""
    if not published:
        return ["", ""]
    words = f"{published['mse']:.3e} ({published['network']})"
    return [words, f"{mse['mean'] / published['mse']:.2f}"]


def accuracy_against(accuracy: dict, published: dict | None) -> list[str]:
    """The published accuracy, and how far ours lies above it."""
    if not published:
        return ["", ""]
    words = f"{published['accuracy']:.4f} ({published['network']})"
    return [words, f"{accuracy['mean'] - published['accuracy']:+.4f}"]


def duration(seconds: float) -> str:
    """Seconds, or minutes where they are many."""
    return f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
