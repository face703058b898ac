"""Grade a submission by evidence: the assignment's nine components and extra credits."""

import html
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from helpers.apps import evidence, integrity
from helpers.apps.evidence import Finding
from helpers.apps.runner import read_notebook
from helpers.apps.submission import open_submission
from helpers.data.images import MAX_ARCHIVE_BYTES
from helpers.files import InputError, WorkFailed, user_path, write_atomic, write_json

# Points, title, checks, and where this course solves it: notebook and headings
COMPONENTS = [
    (10, "Load the dataset", evidence.load, "01_load"),
    (10, "Augment the dataset", evidence.augment, "02_augment"),
    (10, "Convert to L*a*b*", evidence.lab, "03_lab"),
    (15, "Build a simple regressor", evidence.regressor, "04_regressor"),
    (15, "Colorize the image", evidence.colorizer, "05_colorizer"),
    (10, "Batch normalization", evidence.batchnorm, "06_batchnorm"),
    (10, "Training", evidence.training, "07_gpu_training"),
    (10, "GPU programming", evidence.gpu, "07_gpu_training"),
    (10, "Report and video tour", evidence.report_and_tour, ""),
]
EXTRA_CREDITS = {
    "Tanh in the last layer": "Tanh",
    "Number of feature maps": "maps",
    "Classifier or regressor": "classif",
}


@dataclass(frozen=True)
class Graded:
    """One component: its points, those reached, and what was found."""

    title: str
    points: int
    reached: float
    notebook: str
    findings: list[Finding]

    @property
    def verdict(self) -> str:
        """Return pass, part or fail."""
        if self.reached == self.points:
            return "pass"
        return "part" if self.reached else "fail"


def grade(given: Path, images: str = "", log: Callable[[str], None] = print) -> Path:
    """Grade a run folder, a zip of a submission, or another author's folder.

    The results are printed and written next to it: grade.json and grade.html. Returns the
    path of the page. Raises InputError if there is nothing to grade.
    """
    given = user_path(given)
    with tempfile.TemporaryDirectory() as scratch:
        folder = _unpacked(given, Path(scratch)) if given.is_file() else given
        work = open_submission(folder, images)
        graded, whole = list(components(work)), list(_found(integrity.notebooks, work))
        credits_found = dict(extra_credits(work))
    out = given.parent if given.is_file() else given
    _log(graded, whole, credits_found, log)
    total = sum(component.reached for component in graded)
    write_json(
        out / "grade.json",
        {
            "graded": given.name,
            "kind": work.kind,
            "points": total,
            "components": [{**asdict(c), "verdict": c.verdict} for c in graded],
            "whole": [asdict(finding) for finding in whole],
            "trusted": all(finding.holds for finding in whole),
            "extra_credits": credits_found,
        },
    )
    page = out / "grade.html"
    write_atomic(page, _page(given.name, graded, whole, credits_found).encode())
    log(f"{_verdict(total, whole)}; wrote {page}")
    return page


def _verdict(total: float, whole: list[Finding]) -> str:
    """Return the points, and whether the submission as a whole can be trusted."""
    failed = sum(not finding.holds for finding in whole)
    if not failed:
        return f"{total:g} of 100 points"
    checks = "a check" if failed == 1 else f"{failed} checks"
    return (
        f"{total:g} of 100 points, not to be given before somebody has looked: {checks} of "
        "the submission as a whole failed"
    )


def components(work) -> Iterator[Graded]:
    """Yield each component; its points are shared equally among its checks."""
    for points, title, check, notebook in COMPONENTS:
        findings = list(_found(check, work))
        share = sum(x.holds for x in findings) / len(findings)
        yield Graded(title, points, round(points * share, 1), notebook, findings)


def _found(check: Callable, work) -> Iterator[Finding]:
    """Yield what a check finds; an error in a submission is a finding, too."""
    findings = check(work)
    while True:
        try:
            finding = next(findings)
        except StopIteration:
            return
        except (
            InputError,
            WorkFailed,
            ValueError,
            RuntimeError,
            TypeError,
            AttributeError,
            KeyError,
            IndexError,
            OSError,
        ) as error:
            text = str(error).splitlines() or [type(error).__name__]
            yield Finding("the check could be made", False, text[0])
            return
        yield replace(finding, holds=bool(finding.holds))


def extra_credits(work) -> Iterator[tuple[str, str]]:
    """Yield each extra credit with the networks or headings that speak of it."""
    names = [n for metrics in work.results.values() for n in metrics["networks"]]
    cells = [c for p in work.notebooks.glob("*.ipynb") for c in read_notebook(p).cells]
    text = "\n".join(cell.source for cell in cells)
    for title, word in EXTRA_CREDITS.items():
        found = [name for name in names if word.lower() in name.lower()]
        in_text = (
            "in the notebooks' text" if word.lower() in text.lower() else "not found"
        )
        yield title, ", ".join(found[:4]) or in_text


def _unpacked(file: Path, scratch: Path) -> Path:
    """Unpack a zip into a scratch folder; return the folder that can be graded."""
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > MAX_ARCHIVE_BYTES:
                raise InputError(f"{file}: unpacks to {size / 2**30:.0f} GiB; refused")
            archive.extractall(scratch)  # zipfile keeps all members inside of it
    except (zipfile.BadZipFile, OSError) as error:
        raise InputError(f"{file}: not a complete zip file ({error})") from error
    for name in ("submission.py", "results.json"):
        if found := sorted(scratch.rglob(name)):
            return found[0].parent
    raise InputError(f"{file}: holds no results.json and no submission.py; see README")


def _log(graded, whole, credits_found, log) -> None:
    for component in graded:
        reached = f"{component.reached:g} of {component.points}"
        log(f"{component.verdict}  {reached:>10}  {component.title}")
        for finding in component.findings:
            log(f"      {_mark(finding)} {finding.check}: {finding.found}")
    for finding in whole:
        log(f"      {_mark(finding)} {finding.check}: {finding.found}")
    for title, found in credits_found.items():
        log(f"extra credit  {title}: {found}")


def _mark(finding: Finding) -> str:
    return "ok  " if finding.holds else "FAIL"


PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Grade of {name}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; color: #222; background: #fff; }}
h2 {{ font-size: 1.1rem; margin: 1.5rem 0 .3rem; display: flex; gap: 1rem; }}
h2 span {{ margin-left: auto; font-weight: normal; }}
table {{ border-collapse: collapse; width: 100%; }}
td {{ border-top: 1px solid #ddd; padding: .25rem .5rem; vertical-align: top; }}
td:first-child {{ width: 3rem; }} td:nth-child(2) {{ width: 45%; }}
.ok {{ color: #176d2f; }} .fail {{ color: #b00020; font-weight: bold; }}
img {{ height: 128px; margin: .2rem; image-rendering: auto; }}
</style>
<h1>{name}: {verdict}</h1>
{body}
</html>
"""


def _page(name: str, graded, whole, credits_found) -> str:
    parts = []
    for c in graded:
        link = f'<a href="notebooks/{c.notebook}.ipynb">{c.notebook}</a>' * bool(
            c.notebook
        )
        head = f"{html.escape(c.title)} {link}<span>{c.reached:g} of {c.points}</span>"
        parts.append(f"<h2>{head}</h2>{_table(c.findings)}")
    parts.append(f"<h2>The submission as a whole</h2>{_table(whole)}")
    credit_rows = [
        Finding(title, found != "not found", found)
        for title, found in credits_found.items()
    ]
    parts.append(f"<h2>Extra credits</h2>{_table(credit_rows)}")
    total = sum(component.reached for component in graded)
    verdict = _verdict(total, whole)
    return PAGE.format(name=html.escape(name), verdict=verdict, body="\n".join(parts))


def _table(findings: list[Finding]) -> str:
    rows = []
    for x in findings:
        kind = "ok" if x.holds else "fail"
        cells = [f'<td class="{kind}">{kind}</td>']
        cells += [f"<td>{html.escape(text)}</td>" for text in (x.check, x.found)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(rows)}</table>"
