"""Grade a submission by evidence: the assignment's nine components and extra credits."""

import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from helpers.apps import evidence, integrity
from helpers.apps.evidence import Finding
from helpers.apps.grade_page import page_of
from helpers.apps.rubric import COMPONENTS, extra_credits, places_of, read_outline
from helpers.apps.submission import ADAPTER, open_submission
from helpers.data.images import MAX_ARCHIVE_BYTES
from helpers.files import InputError, user_path, write_atomic, write_json

PICTURES = 3  # of each set, on the page


@dataclass(frozen=True)
class Graded:
    """One component: its points, those reached, what was found, and where it is shown."""

    title: str
    points: int
    reached: float
    findings: list[Finding]
    places: str
    pictures: list[Path]

    @property
    def verdict(self) -> str:
        """Return pass, part or fail."""
        if self.reached == self.points:
            return "pass"
        return "part" if self.reached else "fail"

    def to_json(self) -> dict:
        """Return what grade.json holds of it."""
        content = asdict(self) | {"verdict": self.verdict}
        del content["pictures"]
        return content


def grade(given: Path, images: str = "", log: Callable[[str], None] = print) -> Path:
    """Grade a run folder, a zip of a submission, or another author's folder.

    The results are printed and written: grade.json and grade.html in the folder, or
    NAME.grade.json and NAME.grade.html beside NAME.zip. Returns the path of the page.
    Raises InputError if there is nothing to grade.
    """
    given = user_path(given)
    with tempfile.TemporaryDirectory() as scratch:
        folder = _unpacked(given, Path(scratch)) if given.is_file() else given
        work = open_submission(folder, images)
        outline = read_outline(work)
        graded = list(components(work, outline))
        whole = list(_found(integrity.notebooks, work))
        credits_found = dict(extra_credits(work, outline))
        total = sum(component.reached for component in graded)
        verdict = _verdict(total, whole)
        page_html = page_of(given.name, verdict, graded, whole, credits_found)
    name = given.with_suffix(".grade") if given.is_file() else given / "grade"
    _log(graded, whole, credits_found, log)
    write_json(
        name.with_name(f"{name.name}.json"),
        {
            "graded": given.name,
            "kind": work.kind,
            "points": total,
            "components": [c.to_json() for c in graded],
            "whole": [asdict(finding) for finding in whole],
            "trusted": all(finding.holds for finding in whole),
            "extra_credits": credits_found,
        },
    )
    page = name.with_name(f"{name.name}.html")
    write_atomic(page, page_html.encode())
    log(f"{verdict}; wrote {page}")
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


def components(work, outline) -> Iterator[Graded]:
    """Yield each component; its points are shared equally among its checks."""
    for component in COMPONENTS:
        findings = list(_found(component.check, work))
        share = sum(x.holds for x in findings) / len(findings)
        yield Graded(
            component.title,
            component.points,
            round(component.points * share, 1),
            findings,
            places_of(work, component, outline),
            _pictures(work) if component.check is evidence.training else [],
        )


def _pictures(work) -> list[Path]:
    return [
        picture
        for part in ("train", "test")
        for picture in work.pictures(part)[:PICTURES]
    ]


def _found(check: Callable, work) -> Iterator[Finding]:
    """Yield what a check finds; an error in a submission is a finding, too."""
    findings = check(work)
    while True:
        try:
            finding = next(findings)
        except StopIteration:
            return
        except (Exception, SystemExit) as error:  # of another author's code
            text = str(error).splitlines() or [type(error).__name__]
            yield Finding("the check could be made", False, text[0])
            return
        yield replace(finding, holds=bool(finding.holds))


def _unpacked(file: Path, scratch: Path) -> Path:
    """Unpack a zip into a scratch folder; return the folder that can be graded."""
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
            if size > MAX_ARCHIVE_BYTES:
                raise InputError(f"{file}: unpacks to {size / 2**30:.0f} GiB; refused")
            archive.extractall(scratch)  # zipfile keeps all members inside of it
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise InputError(f"{file}: not a complete zip file ({error})") from error
    except (RuntimeError, NotImplementedError) as error:  # a password, another method
        raise InputError(
            f"{file}: cannot be unpacked ({error}); zip it again"
        ) from error
    found = [*scratch.rglob(ADAPTER), *scratch.rglob("results.json")]
    if found:
        return min((path.parent for path in found), key=_sort_key)
    raise InputError(f"{file}: holds no results.json and no submission.py; see README")


def _sort_key(folder: Path) -> tuple[bool, int, str]:
    """Return a sort key: folders with notebooks first, then those nearest to the top."""
    has_notebooks = any(folder.glob("*.ipynb")) or any(folder.glob("*/*.ipynb"))
    return not has_notebooks, len(folder.parts), str(folder)


def _log(graded, whole, credits_found, log) -> None:
    for component in graded:
        reached = f"{component.reached:g} of {component.points}"
        log(f"{component.verdict}  {reached:>10}  {component.title}")
        if component.places:
            log(f"      in   {component.places}")
        for finding in component.findings:
            log(f"      {_mark(finding)} {finding.check}: {finding.found}")
    for finding in whole:
        log(f"      {_mark(finding)} {finding.check}: {finding.found}")
    for title, found in credits_found.items():
        log(f"extra credit  {title}: {found}")


def _mark(finding: Finding) -> str:
    return "ok  " if finding.holds else "FAIL"
