"""The page of a grade: one HTML file with the evidence, links and pictures."""

import base64
import html
from collections.abc import Iterable
from pathlib import Path

from helpers.apps.evidence import Finding
from helpers.apps.rubric import Place

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
<p>The links name a notebook and a heading. To read the notebooks, open JupyterLab in this
page's folder.</p>
{body}
</html>
"""


def write_page(name: str, verdict: str, graded, whole, credits_found) -> str:
    """Return the page.

    graded         a `Graded` for each component
    whole          findings about the submission as a whole
    credits_found  what was found of each extra credit
    """
    parts = []
    for c in graded:
        score = f"<span>{c.verdict}, {c.reached:g} of {c.points}</span>"
        parts += [f"<h2>{html.escape(c.title)}{score}</h2>", _links(c.places)]
        parts += [_table(c.findings), *map(_image, c.pictures)]
    parts.append(f"<h2>The submission as a whole</h2>{_table(whole)}")
    credit_rows = [
        Finding(title, found != "not found", found)
        for title, found in credits_found.items()
    ]
    parts.append(f"<h2>Extra credits</h2>{_table(credit_rows)}")
    return PAGE.format(name=html.escape(name), verdict=verdict, body="\n".join(parts))


def _links(places: Iterable[Place]) -> str:
    links = [
        f'<a href="{html.escape(x.link)}">{html.escape(str(x))}</a>' for x in places
    ]
    return f"<p>{' &middot; '.join(links)}</p>" * bool(links)


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
    data = base64.b64encode(picture.read_bytes()).decode()
    kind = picture.suffix.lower().lstrip(".").replace("jpg", "jpeg")
    name = html.escape(f"{picture.parent.name}: {picture.stem}")
    image = f'<img src="data:image/{kind};base64,{data}" alt="{name}">'
    return f"<figure>{image}<figcaption>{name}</figcaption></figure>"
