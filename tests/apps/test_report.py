"""The one-page report. A fake run has the names of the real one and random numbers."""

import ast
import random
import re
import shutil
import sys
from html.parser import HTMLParser

import cv2
import nbformat
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from helpers import nets
from helpers.apps import report, report_page
from helpers.apps.report import SECTIONS, own_sections, write_report
from helpers.apps.report_page import LISTED, Results, build, draw_examples, stages_of
from helpers.apps.runner import NOTEBOOKS
from helpers.cli import main
from helpers.data.augment import AREA_RANGE, SCALE_RANGE
from helpers.data.faces import FaceSet, load_faces, split_faces
from helpers.data.images import write_image
from helpers.data.portraits import write_portraits
from helpers.evaluation.metrics import Estimate
from helpers.experiments.reference import file_of, load_reference
from helpers.experiments.registry import get_experiment, published
from helpers.experiments.run_folder import SCHEMA, describe_data, write_results
from helpers.experiments.tables import Row
from helpers.files import InputError, WorkFailed, read_json, write_json
from helpers.nets.baselines import BASELINES

NETWORKS = {  # notebook: {network: (task, experiment it is compared with)}
    "01_load": {},
    "02_augment": {},
    "03_lab": {"mean color": ("map", ""), "table L -> ab": ("map", "")},
    "04_regressor": {
        "constant": ("mean", ""),
        "regressor/relu": ("mean", "regressor/relu"),
        "regressor/batchnorm": ("mean", "regressor/batchnorm"),
    },
    "05_colorizer": {
        f"colorizer, {name}": ("map", "colorizer/n4")
        for name in ("N = 3", "N = 5", "N = 4, relu head", "N = 4, sigmoid head")
    },
    "06_batchnorm": {
        "colorizer, He, seed 4": ("map", ""),
        "colorizer, BatchNorm, seed 4": ("map", ""),
    },
    "07_gpu_training": {"colorizer, N = 3, 16 maps": ("map", "colorizer/chosen")},
    "08_extra_credit": {
        "colorizer, Tanh, labels in [-1, 1]": ("map", ""),
        "colorizer, Tanh, labels in [0, 1]": ("map", "report000/tanh"),
        "colorizer, 3 maps": ("map", "maps/3"),
        "colorizer, 8 maps": ("map", "maps/8"),
        "colorizer, U-Net, quarter size": ("map", "unet/quarter"),
    },
}


def make_run(folder, images, notebooks=NETWORKS, scale=1):
    """Write a run folder with random results."""
    rng = random.Random(scale)
    faces = load_faces(str(images))
    split = split_faces(faces, seed=4)
    for notebook in notebooks:
        rows = {}
        for name, (task, experiment) in NETWORKS[notebook].items():
            mean = scale * rng.uniform(1e-5, 9e-4)
            is_network = "=" in name or "/" in name or "colorizer" in name
            rows[name] = Row(
                task,
                Estimate(mean, 0.8 * mean, 1.2 * mean),
                test_images=len(split.test),
                parameters=rng.randint(500, 90_000) if is_network else 0,
                epochs=rng.randint(1, 99) if is_network else 0,
                seconds=rng.uniform(1, 99),
                published=published(experiment) if experiment else None,
            ).to_json()
        artifacts = []
        if notebook == "07_gpu_training":
            artifacts = colorize(folder, faces, split)
        content = {
            "notebook": notebook,
            "parameters": {"profile": "quick", "images": str(images), "seed": 4,
                           "split": "random", "device": "auto"},
            "data": describe_data(faces, split),
            "networks": rows,
            "artifacts": artifacts,
        }  # fmt: skip
        write_json(folder / notebook / "metrics.json", content)
    write_results(folder)
    write_json(
        folder / "environment.json", {"processor": "Test_Processor_ *R*", "gpu": None}
    )
    return folder


def colorize(folder, faces, split):
    artifacts = []
    for part, index in (("train", split.train), ("test", split.test)):
        for n in index[:6]:
            path = f"colorized/{part}/{faces.names[n].removesuffix('.jpg')}.png"
            image_bgr = faces.images[n].permute(1, 2, 0).numpy()
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / path), cv2.blur(image_bgr, (9, 9)))
            artifacts.append(path)
    return artifacts


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_portraits(folder, num_sitters=5, shots=4)  # 18 for training, 2 for the test
    return folder


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A run folder with its report."""
    folder = make_run(tmp_path_factory.mktemp("run"), images)
    write_report(folder, authors="Ada Lovelace")
    return folder


class Text(HTMLParser):
    """The visible text of a page."""

    def __init__(self):
        super().__init__()
        self.parts, self.hidden = [], False

    def handle_starttag(self, tag, attrs):
        self.hidden = tag == "style"

    def handle_endtag(self, tag):
        self.hidden = False

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data)


def text_of(folder, name="report.html"):
    parser = Text()
    parser.feed((folder / name).read_text(encoding="utf-8"))
    return " ".join(" ".join(parser.parts).split())


def num_pages(folder, name="report.pdf"):
    (kids,) = set(
        re.findall(rb"/Type/Pages.*?/Count (\d+)", (folder / name).read_bytes())
    )
    return int(kids)


# Every number on the page has a source. This is written without the report's own code.
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?%?")
DEFINITIONS = {
    "10", "4", "95%", "255",  # units of 10⁻⁴, 95% interval, ((a − â)/255)²
    "100", "1", "0", "2",  # L*/100; -1 to 1; mean 0, variance 1; stride 2
}  # fmt: skip


def in_units(value):
    value *= 1e4
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def sources(folder):
    """Return every number that the page may show, with its source."""
    found = dict.fromkeys(DEFINITIONS, "a definition")
    results = read_json(folder / "results.json")["notebooks"]
    rows = {}
    for notebook, metrics in results.items():
        rows |= {(notebook, n): row for n, row in metrics["networks"].items()}
        found |= dict.fromkeys(NUMBER.findall(notebook), "a notebook's name")
        for value in (*metrics["data"].values(), metrics["parameters"]["seed"]):
            if isinstance(value, int):
                found[f"{value:,}"] = f"results.json, data of {notebook}"
    for (notebook, name), row in rows.items():
        place = f"results.json, {notebook}, {name}"
        errors = [row["test_mse"][x] for x in ("mean", "low", "high")]
        errors += [row["published"]["mse"]] if row["published"] else []
        found |= {in_units(error): place for error in errors}
        found |= {f"{row[x]:,}": place for x in ("parameters", "epochs")}
        found |= dict.fromkeys(NUMBER.findall(name), "a network's name")
    maps = [r for r in rows.values() if r["task"] == "map" and r["epochs"]]
    table = rows.get(("03_lab", "table L -> ab"))
    if table and maps:
        worse = [r["test_mse"]["mean"] > table["test_mse"]["mean"] for r in maps]
        found[str(sum(worse))] = "networks worse than the table"
    found[str(len(maps))] = "networks"
    compared = [r for r in rows.values() if r["published"] and r["epochs"]]
    better = sum(r["test_mse"]["mean"] < r["published"]["mse"] for r in compared)
    found |= {str(len(compared)): "compared", str(better): "smaller than published"}
    errors = [
        rows.get(("04_regressor", name)) for name in ("regressor/batchnorm", "constant")
    ]
    if all(errors):
        ours, constant = (row["test_mse"]["mean"] for row in errors)
        found[f"{ours / constant:.0%}"] = "regressor relative to the constant"
    found |= {f"{x:.0%}": "data.augment" for x in AREA_RANGE}
    found |= {str(x): "data.augment" for x in SCALE_RANGE}
    chosen = get_experiment("colorizer/chosen")
    found |= {str(x): "registry" for x in (chosen.lr, chosen.batch_size)}
    for name in ("regressor/batchnorm", "colorizer/chosen"):
        net = build(name, Results(folder))
        found[f"{nets.count_parameters(net):,}"] = f"nets, {name}"
    for name in ("7", "6", "3", "128"):
        found[name] = "nets.Regressor, nets.Colorizer: see the test of the diagrams"
    for where in ("portraits", "photographs"):
        for name in (*report.CLASSIFIERS, "regressor/batchnorm", "report000/sigmoid"):
            if file_of(name, where).is_file():
                row = load_reference(name, where).row
                values = (row.test_mse.mean, row.test_mse.low, row.test_mse.high)
                found |= {in_units(x): f"reference/{where}, {name}" for x in values}
                if row.published:
                    found[in_units(row.published.mse)] = "registry"
    labels = " ".join(name for group in LISTED.values() for name in group)
    labels += " ".join(report_page.EIGHT + report_page.TANH)
    return found | dict.fromkeys(NUMBER.findall(labels), "labels")


def page_numbers(folder):
    text = text_of(folder)
    for name in ("report000", "report001"):  # in the names of networks
        text = text.replace(name, "")
    return set(NUMBER.findall(text))


def test_every_number_has_a_source(run):
    assert len(page_numbers(run)) > 60
    assert page_numbers(run) - sources(run).keys() == set()


def test_a_number_without_a_source_is_found(run, tmp_path):
    own = tmp_path / "my.md"
    own.write_text("# Evaluation\nWe reached 7.7777 after 4,321 epochs.")
    folder = shutil.copytree(run, tmp_path / "run")
    write_report(folder, text=own)
    assert page_numbers(folder) - sources(folder).keys() == {"7.7777", "4,321"}


def test_other_results_give_other_numbers(run, images, tmp_path):
    other = make_run(tmp_path, images, scale=1000)
    write_report(other)
    assert page_numbers(other) - sources(other).keys() == set()
    fixed = {n for n, place in sources(run).items() if "results.json" not in place}
    networks = ("regressor/relu", "maps/3", "unet/quarter", "report000/tanh")
    fixed |= {in_units(published(name).mse) for name in networks}
    both = (page_numbers(run) & page_numbers(other)) - fixed
    assert {number for number in both if "." in number} == set()
    assert len(page_numbers(run) - page_numbers(other)) > 40


def test_the_report_fills_one_page_in_two_columns_and_shows_images(run):
    assert num_pages(run) == 1
    html = (run / "report.html").read_text(encoding="utf-8")
    # 2 diagrams; 6 training and 2 test images: grayscale, truth, colorized
    assert html.count("data:image/svg+xml") == 2
    assert html.count("data:image/png") == (6 + 2) * 3
    text = text_of(run)
    for heading in ("Implementation", "Evaluation", "How to run", "Known problems"):
        assert f"{heading} " in text
    assert "a CPU (Test_Processor_ *R*)" in text
    assert "Ada Lovelace" in text and "not run" not in text
    assert str(run) not in html and str(run.parent) not in html


def test_the_table_shows_the_rows_of_the_run(run):
    rows = read_json(run / "results.json")["notebooks"]["08_extra_credit"]["networks"]
    row = rows["colorizer, U-Net, quarter size"]
    mean, low, high = (in_units(row["test_mse"][x]) for x in ("mean", "low", "high"))
    line = f"U-Net, quarter size {row['parameters']:,} {row['epochs']} {mean} "
    assert f"{line}[{low}, {high}] {in_units(row['published']['mse'])}" in text_of(run)


def test_missing_notebooks_are_not_run(images, tmp_path):
    make_run(tmp_path, images, ["04_regressor"])
    write_report(tmp_path)
    text = text_of(tmp_path)
    assert num_pages(tmp_path) == 1
    assert "N = 5 not run" in text and "Tanh output not run" in text
    assert "regressor, BatchNorm not run" not in text
    assert "(notebook 08): not run" in text
    assert page_numbers(tmp_path) - sources(tmp_path).keys() == set()


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"results.json: not found; run `deepcolor run`"
    ):
        write_report(tmp_path)
    write_json(tmp_path / "results.json", {"notebooks": {}})
    with pytest.raises(InputError, match="written by another version"):
        write_report(tmp_path)
    write_json(tmp_path / "results.json", {"schema": SCHEMA, "notebooks": {}})
    with pytest.raises(InputError, match="no notebook has finished"):
        write_report(tmp_path)


def test_without_typst_the_next_step_is_named(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "typst", None)
    with pytest.raises(InputError, match=r"typst is not installed; run `pip install"):
        write_report(run)


def test_images_that_have_changed_are_not_shown_as_the_truth(run, images, tmp_path):
    other = make_run(tmp_path / "run", images)
    results = read_json(other / "results.json")
    for metrics in results["notebooks"].values():
        metrics["data"]["hash"] = "0" * 64
    write_json(other / "results.json", results)
    write_report(other)
    html = (other / "report.html").read_text(encoding="utf-8")
    assert html.count("data:image/png") == (6 + 2) * 2
    assert "training set: grayscale, colorized" in text_of(other)


def test_a_network_that_is_not_the_drawn_one_is_named(run):
    rows = read_json(run / "results.json")["notebooks"]["04_regressor"]["networks"]
    own = rows["regressor/batchnorm"]["parameters"]
    assert f"this run's network has {own:,}" in text_of(run)


def test_own_sections_replace_the_default_ones(run, images, tmp_path):
    folder = make_run(tmp_path / "run", images)
    own = tmp_path / "my.md"
    awkward = "#set $x$ <3 @ref _ ~ `#raw` **bold\\*** [link](https://example.org)"
    own.write_text(
        f"## Known problems\n\nMy words.\n\n- {awkward}\n\n## How to run\n\nBy hand."
    )
    write_report(folder, text=own)
    text, default = text_of(folder), text_of(run)
    assert "Known problems My words. #set $x$ <3 @ref _ ~ #raw bold* link" in text
    assert "How to run By hand. Known" in text
    assert "make run" in default and "make run" not in text
    start = default.index("Implementation "), default.index("Evaluation ")
    assert default[slice(*start)] in text
    assert num_pages(folder) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("## Evalution\n\nx", "section 'Evalution': unknown; did you mean Evaluation?"),
        ("Hello\n\n## Evaluation", "text before the first heading"),
        ("## Evaluation\n\n![a](b.png)", "'Evaluation': image is not possible"),
        ("## Evaluation\n\nsome <b>bold</b>", "inline html is not possible"),
        ("## Evaluation\n\n> quote", "block quote is not possible"),
        ("## Evaluation\n\na\n\n# Evaluation\n\nb", "two sections 'Evaluation'"),
        (b"## Evaluation\n\n\xff", "cannot read as text"),
    ],
)
def test_an_unusable_text_is_refused(text, reason, tmp_path):
    own = tmp_path / "my.md"
    own.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=re.escape(reason)) as caught:
        own_sections(own)
    assert str(own) in str(caught.value) and "\n" not in str(caught.value)


def test_a_list_may_have_blank_lines_and_paragraphs(run, images, tmp_path):
    folder, own = make_run(tmp_path / "run", images), tmp_path / "my.md"
    own.write_text("## Evaluation\n\n- first\n\n- second,\n\n  and its end\n")
    write_report(folder, text=own)
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert "<p>second,</p><p>and its end</p>" in html


def test_what_typst_refuses_is_one_line(images, tmp_path):
    folder, own = make_run(tmp_path / "run", images), tmp_path / "my.md"
    own.write_text("## Evaluation\n\n[nowhere]()\n")
    with pytest.raises(WorkFailed, match=r"my\.md: cannot be typeset \(.*URL"):
        write_report(folder, text=own)


def test_a_text_that_is_too_long_says_how_much(run, tmp_path):
    before = (run / "report.pdf").read_bytes()
    lengths = []
    for words in (1000, 1440):
        own = tmp_path / "my.md"
        own.write_text("## Evaluation\n\n" + "colorize these words " * (words // 3))
        with pytest.raises(
            InputError, match="longer than one page at 8 points"
        ) as error:
            write_report(run, text=own)
        lengths.append(
            int(re.search(r"about (\d+) lines \(\d+ words\)", str(error.value))[1])
        )
    assert 30 < lengths[1] - lengths[0] < 50  # 440 words, 9 to 14 in a line
    assert (run / "report.pdf").read_bytes() == before


def test_the_full_report_has_every_network_and_figure(run):
    write_report(run, full=True)
    text, html = (
        text_of(run, "report-full.html"),
        (run / "report-full.html").read_text(),
    )
    for metrics in read_json(run / "results.json")["notebooks"].values():
        for name in metrics["networks"]:
            assert f" {name} " in text
    assert num_pages(run, "report-full.pdf") > 2
    assert html.count("data:image/svg+xml") == 3  # the U-Net, too
    assert html.count("data:image/png") == (6 + 2) * 3 + 1  # figures/results.png, too


def test_the_same_run_gives_the_same_bytes(run):
    before = [(run / name).read_bytes() for name in ("report.pdf", "report.html")]
    write_report(run, authors="Ada Lovelace")
    after = [(run / name).read_bytes() for name in ("report.pdf", "report.html")]
    assert before == after


@pytest.mark.parametrize(
    ("name", "maps", "sides", "skips"),
    [
        ("regressor/batchnorm", [1, *[3] * 6, 2], [2**n for n in range(7, -1, -1)], []),
        ("colorizer/chosen", [1, *[16] * 5, 2], [128, 64, 32, 16, 32, 64, 128], []),
        (
            "unet/quarter",
            [1, 16, 8, 16, 32, 64, 32, 16, 8, 2, 2],
            [128, 32, 32, 16, 8, 4, 8, 16, 32, 32, 128],
            [(4, 6), (3, 7), (2, 8)],
        ),
    ],
)
def test_the_diagram_shows_the_network(name, maps, sides, skips, run):
    stages, found = stages_of(build(name, Results(run)))
    assert [stage.maps for stage in stages] == maps
    assert [stage.side for stage in stages] == sides
    assert found == skips
    assert stages[0].kind == "input" and stages[-1].kind == "output"


def strings_of(notebook):
    """Return the literals and the f-strings, as patterns, in a notebook's code."""
    literals, patterns = set(), set()
    for cell in nbformat.read(notebook, as_version=4).cells:
        for node in ast.walk(
            ast.parse(cell.source if cell.cell_type == "code" else "")
        ):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                literals.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                texts = [
                    re.escape(part.value) if isinstance(part, ast.Constant) else "(.+)"
                    for part in node.values
                ]
                if any(text != "(.+)" for text in texts):
                    patterns.add("".join(texts))
    return literals, patterns


def is_written(name, literals, patterns):
    """Return whether a notebook's code can build a name from its strings."""
    if name in literals or name.isdecimal():
        return True
    found = (re.fullmatch(pattern, name) for pattern in patterns)
    return any(
        m and all(is_written(x, literals, patterns) for x in m.groups()) for m in found
    )


def test_the_networks_of_the_page_have_the_names_of_the_notebooks():
    places = [place for group in LISTED.values() for place in group.values()]
    places += [report_page.TANH_WRONG, report_page.THREE, report_page.EIGHT]
    for notebook, name in places:
        strings = strings_of(NOTEBOOKS / f"{notebook}.ipynb")
        name = name.format(seed=4)
        assert name in BASELINES or is_written(name, *strings), name
    assert not is_written(
        "colorizer, N = x", *strings_of(NOTEBOOKS / "05_colorizer.ipynb")
    )


def test_the_command_writes_both_files(images, tmp_path):
    make_run(tmp_path, images, ["04_regressor"])
    result = CliRunner().invoke(main, ["report", str(tmp_path), "--authors", "A. B."])
    assert result.exit_code == 0, result.output
    assert "report.pdf" in result.output and "report.html" in result.output
    result = CliRunner().invoke(main, ["report", str(tmp_path / "nowhere")])
    assert result.exit_code == 2 and result.output.count("\n") == 1
    assert "Extra credit: Tanh" in SECTIONS


def test_a_truth_is_left_out_where_two_files_have_its_name(tmp_path):
    images = torch.zeros(3, 3, 8, 8, dtype=torch.uint8)
    faces = FaceSet(images, ["a/x.jpg", "a/x.png", "y.png"])
    for name in ("a_x.png", "y.png"):
        write_image(tmp_path / name, np.zeros((8, 8, 3), np.uint8))
    shown = {
        name: list(draw_examples(tmp_path, [name], faces, tmp_path / "page"))
        for name in ("a_x.png", "y.png")
    }
    assert "truth" not in shown["a_x.png"] and "truth" in shown["y.png"]
