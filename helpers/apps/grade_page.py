"""The page of a grade: one HTML file with the evidence, links and pictures."""

import base64
import html
from collections.abc import Iterable
from pathlib import Path

import cv2

from helpers.apps.evidence import Finding
from helpers.apps.submission import read_square
from helpers.files import InputError

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Grade of {name}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; color: #222; background: #fff; }}
h2 {{ font-size: 1.1rem; margin: 1.5rem 0 .3rem; display: flex; gap: 1rem; }}
h2 span {{ margin-left: auto; font-weight: normal; white-space: nowrap; }}
p {{ margin: .2rem 0 .4rem; }}
table {{ border-collapse: collapse; width: 100%; }}
td {{ border-top: 1px solid #ddd; padding: .25rem .5rem; vertical-align: top; }}
td:first-child {{ width: 3rem; }} td:nth-child(2) {{ width: 45%; }}
.ok {{ color: #176d2f; }} .fail {{ color: #b00020; font-weight: bold; }}
figure {{ display: inline-block; margin: .5rem .5rem 0 0; }}
figcaption {{ font-size: .8rem; }}
img {{ height: 128px; display: block; }}
</style>
<h1>{name}: {verdict}</h1>
{body}
</html>
"""


def page_of(name: str, verdict: str, graded, whole, credits_found) -> str:
    """Return the page.

    graded         a `Graded` for each component
    whole          findings about the submission as a whole
    credits_found  what was found of each extra credit
    """
    parts = []
    for c in graded:
        score = f"<span>{c.verdict}, {c.reached:g} of {c.points}</span>"
        parts += [f"<h2>{html.escape(c.title)}{score}</h2>", _paragraph(c.places)]
        parts += [_table(c.findings), *map(_image, c.pictures)]
    parts.append(f"<h2>The submission as a whole</h2>{_table(whole)}")
    credit_rows = [
        f"<tr><td></td><td>{html.escape(title)}</td><td>{html.escape(found)}</td></tr>"
        for title, found in credits_found.items()
    ]
    parts.append(f"<h2>Extra credits</h2><table>{''.join(credit_rows)}</table>")
    return PAGE.format(name=html.escape(name), verdict=verdict, body="\n".join(parts))


def _paragraph(places: str) -> str:
    return f"<p>{html.escape(places)}</p>" * bool(places)


def _table(findings: Iterable[Finding]) -> str:
    rows = []
    for x in findings:
        kind = "ok" if x.holds else "fail"
        cells = [f'<td class="{kind}">{kind}</td>']
        cells += [f"<td>{html.escape(text)}</td>" for text in (x.check, x.found)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _image(picture: Path) -> str:
    """Return an image element that holds the picture, so that the page is one file."""
    name = html.escape(f"{picture.parent.name}: {picture.stem}")
    try:
        levels = read_square(picture.read_bytes()).mul(255).byte()
    except (InputError, OSError) as error:
        return f"<p>{name}: {html.escape(str(error))}</p>"
    png = cv2.imencode(".png", levels.permute(1, 2, 0).numpy())[1]
    data = base64.b64encode(png).decode()
    image = f'<img src="data:image/png;base64,{data}" alt="{name}">'
    return f"<figure>{image}<figcaption>{name}</figcaption></figure>"
