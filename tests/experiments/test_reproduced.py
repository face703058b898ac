"""The table and the plot at the top of RESULTS.md."""

import pytest
from click.testing import CliRunner

from helpers.cli import main
from helpers.experiments.leaderboard import TITLE
from helpers.experiments.registry import EXPERIMENTS
from helpers.experiments.reproduced import compare, draw, with_opening
from helpers.files import PROJECT

RESULTS = (PROJECT / "RESULTS.md").read_text(encoding="utf-8")
MAP_HEAD = "| network | epochs | random split |\n| --- | --- | --- |\n"


def page(*rows):
    return f"{TITLE}\n\n## Color of each pixel\n\n{MAP_HEAD}{''.join(rows)}\n## Next\n"


def row(epochs, result, name="report000/sigmoid"):
    return f"| {name} | {epochs} / 1000 | {result} |\n"


def verdict(*rows, name="report000/sigmoid"):
    return next(x.verdict for x in compare(page(*rows)) if x.network == name)


def study(*rows):
    """Return the comparison for report003/default, given the rows of the study."""
    table = "| network | epochs | accuracy |\n| --- | --- | --- |\n"
    table += "\n".join(f"| {row} |" for row in rows)
    title = "## The ablation study: R, G, B from gray"
    compared = compare(f"{TITLE}\n\n{title}\n\n{table}\n")
    return next(x for x in compared if x.network == "report003/default")


@pytest.mark.parametrize(
    ("epochs", "result", "words"),
    [
        (1000, "**4.300e-04** [4.0e-04, 4.6e-04]", "yes"),
        (1000, "**6.000e-04** [5.0e-04, 7.0e-04]", "no: 43% larger"),
        (1000, "**3.000e-04** [2.5e-04, 3.5e-04]", "no: 29% smaller"),
        (
            1000,
            "**6.000e-04** [4.0e-04, 8.0e-04]",
            "undecided: 43% larger",
        ),
        (12, "**4.206e-04** [4.0e-04, 4.4e-04]", "open: 12 of 1000 epochs"),
        (999, "**4.206e-04** [4.0e-04, 4.4e-04]", "open: 999 of 1000 epochs"),
    ],
)
def test_the_verdict_needs_full_length_and_agreement(epochs, result, words):
    assert verdict(row(epochs, result)) == words


@pytest.mark.parametrize(
    ("epochs", "accuracy", "words"),
    [
        (45, "**0.731** [0.72, 0.74]", "yes"),
        (45, "**0.733** [0.72, 0.74]", "no: +0.021"),
        (45, "**0.691** [0.68, 0.70]", "no: -0.021"),
        (45, "**0.733** [0.70, 0.76]", "undecided: +0.021"),
        (25, "**0.712** [0.70, 0.72]", "open: 25 of 65 epochs"),
    ],
)
def test_an_accuracy_may_differ_by_a_fiftieth(epochs, accuracy, words):
    assert study(f"report003/default | {epochs} / 100 | {accuracy}").verdict == words


def test_runs_of_the_study_with_several_seeds_are_averaged():
    one = "report003/default, seed 1 | 45 / 100 | **0.7300** [0.72, 0.74]"
    short = "report003/default, seed 1 | 3 / 100 | **0.5000** [0.49, 0.51]"
    two = "report003/default, seed 2 | 40 / 100 | **0.7000** [0.69, 0.71]"
    found = study(one, short, two)
    assert found.cell == "0.7150 (0.7000 to 0.7300)"
    assert (found.epochs, found.verdict) == (40, "yes")


def test_a_longer_run_on_another_split_does_not_hide_ours():
    shown = row(1000, "**4.3e-04** [4.0e-04, 4.6e-04]", "report000/sigmoid on a.zip")
    assert verdict(row(2000, ""), shown) == "yes"


@pytest.mark.parametrize(
    ("mean", "words"),
    [
        ("**3.00e-04** (2.5e-04 to 3.5e-04)", "no: 29% smaller"),
        ("**3.00e-04** (2.5e-04 to 4.5e-04)", "undecided: 29% smaller"),
    ],
)
def test_a_mean_over_several_splits_counts_instead_of_one_run(mean, words):
    one_run = page(row(1000, "**4.206e-04** [4.0e-04, 4.4e-04]"))
    table = "| network | epochs | splits | random split |\n| --- | --- | --- | --- |\n"
    table += f"| report000/sigmoid | 1000 | 3 + 0 | {mean} |\n"
    table += "| report000/sigmoid | 12 | 5 + 0 | **9.00e-04** (8e-04 to 1e-03) |\n"
    text = one_run.replace("## Next", f"## Over several splits\n\n{table}\n## Next")
    found = next(x for x in compare(text) if x.network == "report000/sigmoid")
    assert found.verdict == words
    assert found.cell == mean.replace("*", "")


def test_the_best_are_means_over_splits_of_the_same_task():
    heads = "| network | splits | random split | mean colors (random) |\n| --- |\n"
    lines = [
        "| best/affine | 5 + 0 | **5.5e-05** (4e-05 to 7e-05) | **9.0e-06** (8e-06) |",
        "| regressor/relu | 5 + 0 | **9.5e-05** (8e-05 to 1e-04) |  |",
    ]
    page = f"{TITLE}\n\n## Over several splits\n\n{heads}" + "\n".join(lines)
    best = {x.network: x.best for x in compare(page)}
    assert best["report000/sigmoid"] == "5.50e-05"
    assert best["report000/regressor"] == "9.00e-06"


def test_the_longest_run_counts_and_a_missing_one_is_said():
    short = row(12, "**6.000e-04** [5.0e-04, 7.0e-04]")
    assert verdict(short, row(1000, "**4.3e-04** [4.0e-04, 4.6e-04]"), short) == "yes"
    assert verdict(short, name="report000/maps") == "not trained"


def test_of_equally_long_runs_the_first_counts():
    newer, older = (row(1000, f"**{x}e-04** [4.0e-04, 6.2e-04]") for x in (4.3, 6.1))
    assert verdict(newer, older) == "yes"
    one = "report003/default, seed 1 | 45 / 100 | **0.7300** [0.72, 0.74]"
    other = "report003/default, seed 1 | 45 / 100 | **0.6000** [0.59, 0.61]"
    assert study(one, other).cell == "0.7300 [0.72, 0.74]"


def test_every_published_result_is_in_the_table_of_the_project_and_agrees_with_it():
    compared = compare(RESULTS)
    expected = [name for name, x in EXPERIMENTS.items() if x.mse is not None]
    assert [x.network for x in compared] == expected
    assert with_opening(RESULTS, "RESULTS.png") == RESULTS, "run `deepcolor results`"
    text = with_opening(page(), "a.png").split("\n## ")
    assert len(text) == 4 and "![" in text[1] and "a.png" in text[1]


def test_the_plot_shows_each_network_once_with_its_result():
    compared = compare(RESULTS)
    axes = draw(compared).axes
    names = [t.get_text() for ax in axes for t in ax.get_yticklabels()]
    assert sorted(names) == sorted(x.network for x in compared)
    drawn = {line.get_xdata()[0] for ax in axes for line in ax.lines
             if line.get_marker() == "." and len(line.get_xdata())}  # fmt: skip
    assert drawn == {x.ours[0] for x in compared if x.ours}


def test_the_opening_is_renewed_without_run_folders(tmp_path):
    path = tmp_path / "RESULTS.md"
    path.write_text(page(row(1000, "**4.3e-04** [4.0e-04, 4.6e-04]")))
    for _ in range(2):
        result = CliRunner().invoke(main, ["results", "-o", str(path)])
        assert result.exit_code == 0, result.output
        assert path.read_text().count("| `report000/sigmoid` |") == 1
        assert (tmp_path / "RESULTS.png").stat().st_size > 1000
    path.write_text(page(row("many", "**4.3e-04** [4.0e-04, 4.6e-04]")))
    result = CliRunner().invoke(main, ["results", "-o", str(path)])
    assert result.exit_code == 2 and "cannot be read" in result.output
    path.write_text("# Results of my thesis\n")
    result = CliRunner().invoke(main, ["results", "-o", str(path)])
    assert result.exit_code == 2 and "is not a results page" in result.output
    assert path.read_text() == "# Results of my thesis\n"
