"""The written report of a run, on one page or in full, as PDF and HTML.

Every number comes from the run's results.json and environment.json, from the registry and
the networks it names, or from reference/. Sections in a student's own words replace the
default ones.
"""

import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import mistune

from helpers.apps.report_page import (
    CHOSEN,
    CHOSEN_EXPERIMENT,
    CONSTANT,
    EIGHT,
    NOT_RUN,
    REGRESSOR,
    TABLE,
    TANH,
    TANH_WRONG,
    THREE,
    UNET,
    Results,
    build,
    mse,
    report_content,
    scaled,
    stages_of,
)
from helpers.data.augment import AREA_RANGE, SCALE_RANGE
from helpers.data.faces import IMAGE_SIZE
from helpers.evaluation.task import TASKS
from helpers.experiments.profiles import known
from helpers.experiments.reference import file_of, load_reference
from helpers.experiments.registry import Experiment, get_experiment, published
from helpers.experiments.tables import Row
from helpers.files import InputError, WorkFailed, write_atomic, write_json

TEMPLATE = Path(__file__).with_name("report.typ")
TEXT_SIZES = (10, 9.5, 9, 8.75, 8.5, 8.25, 8)  # in points, largest first
WORDS_PER_LINE = 11  # in one of the two columns
CLASSIFIERS = ("unet/quarter", "classifier/plain", "classifier/rebalanced")
BLOCKS = {"paragraph", "list", "block_code"}  # of Markdown, as mistune names them
INSIDE = {"list", "list_item", "block_text", "text", "strong", "emphasis", "codespan"}
INSIDE |= {"paragraph", "blank_line", "link", "softbreak", "linebreak"}


def write_report(
    run_dir: Path, *, text: Path | None = None, authors: str = "", full: bool = False
) -> list[Path]:
    """Write report.pdf and report.html into a run folder; return their paths.

    text     a Markdown file whose sections replace the default ones (see `SECTIONS`)
    authors  names below the title
    full     also list every network and figure of the run, in report-full.pdf and .html

    Raises InputError if the folder has no results, for an unknown section, and for a text
    that is too long for one page.
    """
    results = Results(run_dir)
    sections = markdown_sections(
        "\n\n".join(f"## {h}\n{body}" for h, body in default_text(results).items()),
        "default text",
    )
    if text is not None:
        sections |= own_sections(Path(text))
    with tempfile.TemporaryDirectory() as folder:
        content = report_content(results, sections, authors, full, Path(folder))
        files = compile_report(content, Path(folder), not full, text or run_dir)
    paths = []
    for suffix, data in files.items():
        name = f"report{'-full' if full else ''}.{suffix}"
        paths.append(results.run_dir / name)
        write_atomic(paths[-1], data)
    return paths


def compile_report(
    content: Mapping, folder: Path, one_page: bool, source: Path
) -> dict[str, bytes]:
    """Return the report as {"pdf": ..., "html": ...}.

    content   what the template shows; its pictures are in `folder`
    one_page  whether the text must fit on one page: it is set in the largest size that
              fits, and InputError says how much is too long if none does
    source    the file or folder that the error names
    """
    try:
        import typst
    except ImportError as error:
        raise InputError(
            "deepcolor report: typst is not installed; run `pip install -e '.[report]'`"
        ) from error
    shutil.copy(TEMPLATE, folder / TEMPLATE.name)
    for size in TEXT_SIZES:
        write_json(folder / "report.json", {**content, "size": size}, indent=None)
        compiler = typst.Compiler(
            folder / TEMPLATE.name, root=folder, ignore_system_fonts=True
        )
        try:
            (end,) = json.loads(compiler.query("<end>", field="value"))
            if not one_page or end["pages"] == 1:
                return {kind: compiler.compile(format=kind) for kind in ("pdf", "html")}
        except RuntimeError as error:  # TypstError, and what `query` raises
            reason = str(error).splitlines()[0]
            raise WorkFailed(f"{source}: cannot be typeset ({reason})") from error
    lines = math.ceil(end["lines"])
    raise InputError(
        f"{source}: about {lines} lines ({lines * WORDS_PER_LINE} words) longer than one "
        f"page at {size:g} points; shorten the text, or use --full"
    )


def own_sections(path: Path) -> dict[str, list[dict]]:
    """Return a student's sections, by heading, as tokens; see `markdown_sections`.

    Raises InputError if the file cannot be read as text or has an unknown heading.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot read as text ({error}); write Markdown with the headings "
            f"{', '.join(SECTIONS)}"
        ) from error
    sections = markdown_sections(text, str(path))
    for heading in sections:
        known(heading, SECTIONS, f"{path}: section")
    return sections


def markdown_sections(text: str, source: str) -> dict[str, list[dict]]:
    """Return the blocks under each heading of a Markdown text, as mistune's tokens.

    Raises InputError, with `source` as the file's name, for text before the first heading,
    a heading that appears twice, and anything but paragraphs, lists and code.
    """
    sections: dict[str, list[dict]] = {}
    heading = None
    for token in mistune.create_markdown(renderer="ast")(text):
        if token["type"] == "heading":
            heading = "".join(child.get("raw", "") for child in token["children"])
            if heading in sections:
                raise InputError(f"{source}: two sections {heading!r}; join them")
            sections[heading] = []
        elif token["type"] != "blank_line":
            if heading is None:
                raise InputError(
                    f"{source}: text before the first heading; write `## Implementation` "
                    "above it"
                )
            _check(token, BLOCKS, heading, source)
            sections[heading].append(token)
    return sections


def _check(token: dict, allowed: set[str], heading: str, source: str) -> None:
    if token["type"] not in allowed:
        kind = token["type"].replace("_", " ")
        raise InputError(
            f"{source}: section {heading!r}: {kind} is not possible; use only "
            "paragraphs, lists, code, links, *emphasis* and **strong**"
        )
    for child in token.get("children", ()):
        _check(child, INSIDE, heading, source)


def default_text(results: Results) -> dict[str, str]:
    """Return the default sections of the report as Markdown, by heading."""
    return {heading: write(results) for heading, write in SECTIONS.items()}


def _implementation(results: Results) -> str:
    data, source = results.data, _escaped(results.data["source"])
    net = build("regressor/batchnorm", results)
    chosen = get_experiment(CHOSEN_EXPERIMENT)
    stages, _ = stages_of(build(CHOSEN_EXPERIMENT, results))
    num_down = sum(stage.kind == "down" for stage in stages)
    low, high = SCALE_RANGE
    modules = len(stages_of(net)[0]) - 1
    return f"""
**Data.** The {data["images"]} images of {source} are read as BGR, cropped to their center
squares and resized to {IMAGE_SIZE} x {IMAGE_SIZE} pixels. They are shuffled
with `torch.randperm` and split first: {data["training_images"]} for training,
{data["test_images"]} for the test (split: {data["split"]}).

**Augmentation** enlarges only the training set, here {chosen.copies_for(results.profile)}
times: flips, crops of {AREA_RANGE[0]:.0%} to {AREA_RANGE[1]:.0%} of the area that are
resized back, and one random factor from [{low}, {high}] for R, G and B. All three can apply
to one image.

**L\\*a\\*b\\*.** Images are converted in floating point. The input of a network is
L\\*/100. A colored image has the predicted a\\*, b\\* and the original L\\*.

**Regressor.** Its {modules} convolutions with stride 2 lead from {IMAGE_SIZE} pixels to 1.
A ReLU follows the first {modules - 1}; the last one returns the mean a\\* and b\\*.

**Colorizer.** N convolutions halve the size, and N transposed convolutions double it; in
the diagram, N = {num_down}. The output is linear, on labels with mean 0 and variance 1.
**BatchNorm** follows each hidden convolution; tests use the evaluation mode.

**Training.** {_recipe(chosen, results)}. The loss is the mean squared error of a\\*, b\\*.
Tests run in minibatches of {TASKS["map"].batch_size}. **GPU:** networks and minibatches are
moved to the chosen device; this run used {_device(results)}.
"""


def _escaped(text: str) -> str:
    """Return Markdown that shows the text as it is."""
    return re.sub(r"([\\`*_\[\]<>#&])", r"\\\1", text)


def _recipe(experiment: Experiment, results: Results) -> str:
    found = results.row(CHOSEN)
    epochs = f"{found.epochs} epochs" if found else NOT_RUN
    names = {"adamw": "AdamW", "onecycle": "OneCycle"}
    return (
        f"{names[experiment.optimizer]} with {names[experiment.schedule]} (highest rate "
        f"{experiment.lr}), minibatches of {experiment.batch_size}; {epochs}"
    )


def _gpu(results: Results) -> str:
    """Return the name of the GPU that the run used, or ""."""
    used = results.parameters["device"] != "cpu"
    return results.environment.get("gpu") or "" if used else ""


def _device(results: Results) -> str:
    if gpu := _gpu(results):
        return _escaped(gpu)
    return f"a CPU ({_escaped(results.environment.get('processor', 'unknown'))})"


def _evaluation(results: Results) -> str:
    sentences = []
    if (ours := results.row(REGRESSOR)) and (constant := results.row(CONSTANT)):
        share = ours.test_mse.mean / constant.test_mse.mean
        sentences.append(f"The regressor has {share:.0%} of the constant's error.")
    if rows := results.rows("map"):
        name, best = _best(rows)
        sentences.append(
            f"The smallest error per pixel in this run is {mse(best.test_mse)} ({name})."
        )
    if not results.data["synthetic"]:
        rows = [row for task in ("mean", "map") for row in results.rows(task).values()]
        compared = [row for row in rows if row.published]
        better = sum(row.test_mse.mean < row.published.mse for row in compared)
        sentences.append(
            f"Of {len(compared)} networks that are compared with a published error, "
            f"{better} have a smaller one."
        )
    else:
        sentences.append(
            "The published errors are for photographs and cannot be compared with those "
            f"of drawn portraits. {_on_photographs()}"
        )
    return " ".join(sentences)


def _on_photographs() -> str:
    """Compare the reference runs on the course's photographs with published errors."""
    phrases = []
    for name in ("regressor/batchnorm", "report000/sigmoid"):
        if file_of(name, "photographs").is_file():
            row = load_reference(name, "photographs").row
            phrases.append(
                f"{mse(row.test_mse)} for `{name}` (published: "
                f"{scaled(published(name).mse)})"
            )
    if not phrases:
        return ""
    return f"Our reference runs on photographs reached {' and '.join(phrases)}."


def _how_to_run(_: Results) -> str:
    return f"""
```
make run                       # install, run all notebooks
deepcolor run --images face_images.zip
deepcolor train {CHOSEN_EXPERIMENT}  # train one network
deepcolor evaluate WEIGHTS --images DIR --split random
deepcolor chrominance IMAGES   # mean a*, b* of each image
deepcolor colorize IMAGES -o DIR
```
In JupyterLab, the notebooks run cell by cell (`make lab`). Weights, figures and colorized
images of a run are in its folder.
"""


def _problems(results: Results) -> str:
    problems = []
    if results.data["synthetic"]:
        problems.append("The images of this run are drawn portraits, not photographs.")
    if results.data["split"] == "random":
        problems.append(
            "The random split has the same people in both sets. For new people, the error "
            "is larger."
        )
    rows, table = results.rows("map"), results.row(TABLE)
    if rows and table:
        worse = sum(row.test_mse.mean > table.test_mse.mean for row in rows.values())
        problems.append(
            f"{worse} of {len(rows)} networks have a larger error than the table from "
            "L\\* to a\\*, b\\*."
        )
    problems.append(
        "The square error favors the average of all plausible colors, so clothes and walls "
        "come out pale and brownish."
    )
    if not _gpu(results):
        problems.append("The code for CUDA was not executed in this run.")
    return "\n".join(f"- {problem}" for problem in problems)


def _tanh(results: Results) -> str:
    text = (
        "A Tanh returns values from -1 to 1, so a\\* and b\\* are divided by their limit "
        "for training and scaled back for the test. "
    )
    right, wrong = results.row(TANH), results.row(TANH_WRONG)
    if not (right and wrong):
        return text + f"Our experiment (notebook {TANH[0][:2]}): {NOT_RUN}."
    text += f"With this scale, the test MSE is {mse(right.test_mse)}; with labels "
    text += f"in [0, 1], it is {mse(wrong.test_mse)}"
    if wrong.published:
        text += f" (published: {scaled(wrong.published.mse)})"
    return text + "."


def _feature_maps(results: Results) -> str:
    tried = []
    for name, place in (("3 maps", THREE), ("8 maps", EIGHT), ("U-Net", UNET)):
        row = results.row(place)
        size = f" ({row.parameters:,} parameters)" if row else ""
        tried.append(f"{name}{size}: {mse(row and row.test_mse)}")
    text = f"We compared numbers of maps, and a U-Net. {'; '.join(tried)}."
    rows = {name: row for name, row in results.rows("map").items() if row.parameters}
    if rows:
        name, best = _best(rows)
        text += f" Best architecture: {name}, best MSE {scaled(best.test_mse.mean)}."
    return text


def _classification(results: Results) -> str:
    text = """
The squared error asks for the mean of all colors that are possible for an input. If a shirt
is either red or blue, the mean is a pale color between them. A classifier predicts a
probability for each of many color bins, so it can keep both and choose one. If rare colors
have more weight, its images can be more colorful. In squared error it can at best draw
level, because no prediction has a smaller expected squared error than the mean.
"""
    if not all(file_of(name, "portraits").is_file() for name in CLASSIFIERS):
        return text
    errors = [mse(load_reference(name).row.test_mse) for name in CLASSIFIERS]
    return f"""{text.rstrip()} Reference runs on the portraits, with one trunk: regressor
{errors[0]}, classifier {errors[1]}, with rebalancing {errors[2]}.
"""


def _best(rows: Mapping[str, Row]) -> tuple[str, Row]:
    """Return the row with the smallest error, and its name as Markdown."""
    name, row = min(rows.items(), key=lambda item: item[1].test_mse.mean)
    return _escaped(name), row


SECTIONS: dict[str, Callable[[Results], str]] = {
    "Implementation": _implementation,
    "Evaluation": _evaluation,
    "How to run": _how_to_run,
    "Known problems": _problems,
    "Extra credit: Tanh": _tanh,
    "Extra credit: feature maps": _feature_maps,
    "Extra credit: classification": _classification,
}
