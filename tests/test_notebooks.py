import copy
import subprocess
import sys
import types

import nbformat
import pytest
import torch
from engine import fit
from gates import functions_of, problems_of
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from helpers import nets
from helpers.apps.runner import declared_parameters
from helpers.data.lab import LabImages
from helpers.files import PROJECT
from helpers.training.execution import set_seed
from helpers.training.optim import Recipe, make_optimizer, minibatches

NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))
COURSE = (
    "01_load 02_augment 03_lab 04_regressor 05_colorizer 06_batchnorm 07_gpu_training "
    "08_extra_credit 09_ablation 10_global_features 11_colorize_photos"
)


def test_the_course_is_complete():
    assert [path.stem for path in NOTEBOOKS] == COURSE.split()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_committed_notebook_has_no_problems(path):
    assert problems_of(path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_runner_can_read_the_parameters_of_a_notebook(path):
    assert {"profile", "images", "seed", "run_dir"} <= set(declared_parameters(path))


def test_no_function_is_defined_in_two_notebooks():
    names = [name for path in NOTEBOOKS for name in functions_of(path)]
    assert len(names) > 5
    assert sorted(names) == sorted(set(names))


def test_every_notebook_leads_to_its_neighbors_and_to_the_glossary():
    glossary = f"{NOTEBOOKS[-1].name}#Glossary"
    for number, path in enumerate(NOTEBOOKS):
        links = nbformat.read(path, as_version=4).cells[-1].source.split("---")[-1]
        neighbors = NOTEBOOKS[max(0, number - 1) : number + 2]
        assert all(x.name in links for x in neighbors if x != path), path.stem
        assert glossary in links or path == NOTEBOOKS[-1], path.stem
    last = nbformat.read(NOTEBOOKS[-1], as_version=4).cells
    assert any("## Glossary" in cell.source for cell in last)


def rows_of_map(text):
    """Return the cells of each row of the map of the assignment."""
    table = text[text.index("| stage | points |") :].split("\n\n")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines()[2:]]
    return [[cell.replace("notebooks/", "").strip() for cell in row] for row in rows]


def test_the_map_of_the_assignment_leads_to_what_it_names():
    rows = rows_of_map((PROJECT / "README.md").read_text())
    cells = nbformat.read(NOTEBOOKS[0], as_version=4).cells
    source = next(cell.source for cell in cells if "| stage | points |" in cell.source)
    in_notebook = source.replace("this one", "[01_load](01_load.ipynb)")
    assert rows == rows_of_map(in_notebook)
    points = [int(row[1]) for row in rows if row[1] != "extra"]
    assert sum(points) == 100
    for _, _, link, headings, modules in rows:
        for module in modules.replace("`", "").split(", "):
            assert (PROJECT / "helpers" / module).is_file()
        if link:
            path = PROJECT / "notebooks" / link.split("(")[1].rstrip(")")
            found = {
                line.lstrip("# ")
                for cell in nbformat.read(path, as_version=4).cells
                for line in cell.source.splitlines()
                if cell.cell_type == "markdown" and line.startswith("#")
            }
            assert set(headings.split("; ")) <= found, path.stem


def good_notebook():
    """Return a minimal notebook without problems."""
    start = new_markdown_cell("# 01 Test\n\nIn this notebook you will\n\n- test")
    parameters = new_code_cell(
        "seed: int = 1  # a seed", metadata={"tags": ["parameters"]}
    )
    end = new_markdown_cell("## Checks\n\n## Summary\n\n## Exercises\n\n## References")
    cells = [start, parameters, checked_cell(0), end]
    for number in range(1, 5):
        cells += [checked_cell(number), new_markdown_cell("text")]
    for number in range(3):
        name = f"answer_{number}"
        source = f"{name} = None\n### BEGIN SOLUTION\n{name} = 7\n### END SOLUTION"
        check = f'assert {name} == 7, "not 7"'
        cells += [
            new_code_cell(source, metadata={"tags": ["solution"]}),
            new_code_cell(check, metadata={"tags": ["exercise-check"]}),
            new_markdown_cell("text"),
        ]
    code = [cell for cell in cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, 1):
        cell.execution_count = count
    return new_notebook(cells=cells)


def checked_cell(number):
    return new_code_cell(
        f"print({number})",
        metadata={"tags": ["nbval-check-output"]},
        outputs=[new_output("stream", name="stdout", text=f"{number}\n")],
    )


def unexecuted(notebook):
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.execution_count, cell.outputs = None, []


def executed_out_of_order(notebook):
    notebook.cells[1].execution_count = 7


def with_an_error(notebook):
    error = new_output("error", ename="ValueError", evalue="x", traceback=[])
    notebook.cells[2].outputs = [error]


def with_a_warning(notebook):
    warning = new_output("stream", name="stderr", text="careful")
    notebook.cells[2].outputs.append(warning)


def without_the_parameters_tag(notebook):
    notebook.cells[1].metadata = {}


def with_too_few_compared_cells(notebook):
    notebook.cells[2].metadata = {}


def with_a_compared_cell_that_prints_nothing(notebook):
    notebook.cells[2].outputs = []


def with_papermills_metadata(notebook):
    notebook.metadata["papermill"] = {"duration": 1}


def with_a_long_cell(notebook):
    notebook.cells[2].source = "x = 1\n" * 41


def with_a_wide_line(notebook):
    notebook.cells[2].source = f"x = '{'x' * 90}'"


def with_a_home_directory(notebook):
    output = new_output("stream", name="stdout", text="/home/someone/x\n")
    notebook.cells[2].outputs = [output]


def without_a_summary(notebook):
    notebook.cells[3].source = "## Checks\n\n## Exercises\n\n## References"


def with_a_figure_left_open(notebook):
    notebook.cells[2].source = "plt.plot([1, 2])"


def too_large(notebook):
    notebook.cells[3].source = "x" * 1_000_001 + "\n\n" + notebook.cells[3].source


def with_a_compared_image(notebook):
    image = new_output("display_data", data={"image/png": "x"})
    notebook.cells[2].outputs.append(image)


def with_execution_times(notebook):
    notebook.cells[2].metadata["execution"] = {"iopub.execute_input": "12:00"}


def with_two_parameters_cells(notebook):
    notebook.cells[2].metadata["tags"].append("parameters")


def with_an_untyped_parameter(notebook):
    notebook.cells[1].source = "seed = 1  # a seed"


def with_many_long_cells(notebook):
    for cell in (c for c in notebook.cells if c.cell_type == "code"):
        cell.source = "\n".join([cell.source, *["x = 1"] * 11])


def with_three_code_cells_in_a_row(notebook):
    notebook.cells[5].cell_type = notebook.cells[7].cell_type = "code"
    for cell in (notebook.cells[5], notebook.cells[7]):
        cell.outputs, cell.execution_count = [], 1


def without_goals(notebook):
    notebook.cells[0].source = "# 01 Test"


def with_too_few_exercises(notebook):
    tagged(notebook, "solution")[0].metadata = {}


def without_an_exercise_check(notebook):
    tagged(notebook, "exercise-check")[0].metadata = {}


def with_a_check_that_says_nothing(notebook):
    tagged(notebook, "exercise-check")[0].source = "assert answer_0 == 7"


def with_a_solution_that_cannot_be_taken_out(notebook):
    source = "def answer():\n    ### BEGIN SOLUTION\n    return 7\n    ### END SOLUTION"
    tagged(notebook, "solution")[0].source = source


def with_an_open_solution(notebook):
    tagged(notebook, "solution")[0].source = "x = 1\n### BEGIN SOLUTION\nx = 7"


def tagged(notebook, tag):
    """Return the cells with a tag."""
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


BAD = {
    with_too_few_exercises: "has only 2 exercises",
    without_an_exercise_check: "has a solution without a check",
    with_a_check_that_says_nothing: "has an exercise check that does not say",
    with_a_solution_that_cannot_be_taken_out: "has a solution that cannot be taken",
    with_an_open_solution: "has a solution that cannot be taken",
    unexecuted: "is not executed exactly once",
    executed_out_of_order: "is not executed exactly once",
    with_an_error: "contains the output of an error",
    with_a_warning: "contains warnings",
    without_the_parameters_tag: "has 0 cells tagged parameters",
    with_two_parameters_cells: "has 2 cells tagged parameters",
    with_an_untyped_parameter: "has a parameter without a type",
    with_too_few_compared_cells: "has only 4 cells whose output is compared",
    with_a_compared_cell_that_prints_nothing: "has a compared cell without output",
    with_a_compared_image: "has a compared cell with an image",
    with_papermills_metadata: "contains metadata of papermill",
    with_execution_times: "contains execution times",
    with_a_long_cell: "has a code cell of 41 lines",
    with_many_long_cells: "has code cells of 12",
    with_a_wide_line: "has a code line of more than 88 columns",
    with_three_code_cells_in_a_row: "has three code cells in a row",
    with_a_home_directory: "contains an absolute path",
    without_goals: "does not open with",
    without_a_summary: "does not end with",
    with_a_figure_left_open: "has a plotting cell",
    too_large: "is larger than",
}


@pytest.mark.parametrize("damage", BAD, ids=lambda damage: damage.__name__)
def test_a_bad_notebook_has_the_expected_problem(damage, tmp_path):
    path = tmp_path / "01_test.ipynb"
    nbformat.write(good_notebook(), path)
    assert problems_of(path) == []
    bad = copy.deepcopy(good_notebook())
    damage(bad)
    nbformat.write(bad, path)
    assert any(problem.startswith(BAD[damage]) for problem in problems_of(path))


def test_nbval_refuses_a_wrong_output(run_nbval):
    passed, failed = run_nbval("print(1 + 1)", stored="2\n")
    assert (passed, failed) == (True, False)
    passed, failed = run_nbval("print(1 + 1)", stored="3\n")
    assert (passed, failed) == (False, True)


@pytest.fixture
def run_nbval(tmp_path):
    """Run a notebook of one compared cell under nbval, as `make test` does."""

    def run(source, stored):
        cell = new_code_cell(
            source,
            metadata={"tags": ["nbval-check-output"]},
            outputs=[new_output("stream", name="stdout", text=stored)],
            execution_count=1,
        )
        path = tmp_path / "one.ipynb"
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        nbformat.write(
            new_notebook(cells=[cell], metadata={"kernelspec": kernel}), path
        )
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["--nbval-lax", "--nbval-current-env", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        return "1 passed" in done.stdout, "1 failed" in done.stdout

    return run


def definitions(notebook, *names):
    """Return these names as the code cells of a notebook define them."""
    space = {}
    for cell in nbformat.read(PROJECT / "notebooks" / notebook, as_version=4).cells:
        if cell.cell_type == "code" and cell.source.startswith(("import", "from")):
            exec(cell.source, space)
        if cell.cell_type == "code" and cell.source.startswith(("def ", "class ")):
            exec(cell.source, space)
    space["run"] = types.SimpleNamespace(device="cpu")
    return [space[name] for name in names]


def test_the_training_loop_of_notebook_04_equals_that_of_the_package():
    (train_one_epoch,) = definitions("04_regressor.ipynb", "train_one_epoch")
    generator = torch.Generator().manual_seed(0)
    train = LabImages(
        torch.rand(20, 1, 128, 128, generator=generator) * 100,
        torch.randn(20, 2, 128, 128, generator=generator) * 10,
    )
    recipe = Recipe(num_epochs=1, batch_size=5, lr=1e-3, schedule="constant")
    found = {}
    for who in ("notebook", "package"):
        set_seed(0)
        net = nets.build("regressor")
        if who == "notebook":
            optimizer, _ = make_optimizer(net, recipe, 4)
            batches = minibatches(20, 5, seed=0, epoch=1)
            loss = train_one_epoch(net, train, optimizer, batches)
            loss = net.scale.loss_on_scale_s(loss)
        else:
            (loss,) = fit(net, train, recipe=recipe, seed=0)["train_mse"]
        found[who] = loss, net.state_dict()
    assert found["notebook"][0] == pytest.approx(found["package"][0], rel=1e-6)
    torch.testing.assert_close(found["notebook"][1], found["package"][1])


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_the_batchnorm_of_notebook_06_equals_that_of_torch(mode):
    (BatchNorm,) = definitions("06_batchnorm.ipynb", "BatchNorm")
    ours, theirs = BatchNorm(4), torch.nn.BatchNorm2d(4)
    x = torch.randn(6, 4, 5, 7, generator=torch.Generator().manual_seed(0)) * 3 + 2
    for layer in (ours, theirs):
        layer(x)  # a minibatch in training mode updates the running averages
        layer.train(mode == "train")
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)
    torch.testing.assert_close(ours.running_var, theirs.running_var)
    assert ours.running_var.min() > 1  # they are not at their initial value
