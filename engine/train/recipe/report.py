"""report.html: what a recipe has found, in one file without scripts, its pictures inside."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engine.train.figures import EXTRA, MISSED, RIGHT, Color
from engine.train.recipe.advice import Option
from engine.train.recipe.plan import Choice

PNG_PIXELS = 2**18  # larger pictures are JPEG, or a report would be as large as its folder

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.5rem; }
table { border-collapse: collapse; }
td, th { padding: .25rem .8rem; text-align: right; border-bottom: 1px solid #d8dee4; }
td:first-child, th:first-child { text-align: left; } td.text { text-align: left; }
.loud { background: #fff1d6; border-left: .3rem solid #d9822b; padding: .4rem .8rem; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; } figure { margin: 0; } figcaption { color: #57606a; }
img { max-width: 100%; } pre { background: #f6f8fa; padding: .8rem; overflow-x: auto; }
.swatch { display: inline-block; width: 1em; height: 1em; vertical-align: -.15em; margin: 0 .3em 0 .8em; }
"""


@dataclass(frozen=True)
class Picture:
    """An image that stands for a difference: its name and scores, and what to show of it, [h, w, 3] by caption."""

    title: str
    shown: dict[str, NDArray[np.uint8]]


@dataclass(frozen=True)
class Report:
    """All that the page says. Tables are rows of cells, the head first; `remarks` are said aloud."""

    title: str
    summary: str
    remarks: list[str]
    scores: list[list[str]]
    by_class: list[list[str]]
    seen: list[str]
    choices: list[Choice]
    history: bytes
    improving: str
    options: list[Option]
    now_ms: float
    where: str
    pictures: list[Picture]
    legend: dict[str, Color]
    commands: list[str]
    notes: list[str] = field(default_factory=list)


def html(report: Report) -> str:
    """The page."""
    body = [
        f"<h1>{escape(report.title)}</h1>",
        f"<p>{escape(report.summary)}</p>",
        *(f'<p class="loud">{escape(line)}</p>' for line in report.remarks),
        "<h2>Scores</h2>",
        _table(report.scores),
        *(["<h3>By class, all pixels pooled</h3>", _table(report.by_class)] if report.by_class else []),
        *(f"<p>{escape(line)}</p>" for line in report.notes),
        "<h2>Use it</h2>",
        f"<pre>{escape(chr(10).join(report.commands))}</pre>",
        "<h2>Where bits and full precision differ most</h2>",
        f"<p>{_legend(report.legend)}</p>",
        *(_picture(picture) for picture in report.pictures),
        "<h2>Learning</h2>",
        f'<p>{escape(report.improving)}</p><img alt="loss and validation" src="{_png(report.history)}">',
        "<h2>What to try next</h2>",
        _options(report),
        "<h2>The folder, and what followed from it</h2>",
        _list(report.seen),
        _list([str(choice) for choice in report.choices] or ["every setting is the default"]),
    ]
    head = f'<meta charset="utf-8"><title>{escape(report.title)}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(body) + "\n</body></html>\n"


def binary_legend() -> dict[str, Color]:
    """Of masks of one class, laid over their images."""
    return {"found": RIGHT, "found wrongly": EXTRA, "missed": MISSED}


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body]
    return f"<table>{''.join(lines)}</table>"


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _options(report: Report) -> str:
    def row(flag: str, ms: float, why: str) -> str:
        price = "not measured" if math.isnan(ms) else f"{ms:.2f} ms"
        return f'<tr><td>{escape(flag)}</td><td>{price}</td><td class="text">{escape(why)}</td></tr>'

    rows = [row("as it is", report.now_ms, ""), *(row(o.flag, o.ms, o.why) for o in report.options)]
    head = "<tr><th>flag</th><th>an image</th><th>why</th></tr>"
    return f"<p>{escape(report.where)}</p><table>{head}{''.join(rows)}</table>"


def _legend(colors: dict[str, Color]) -> str:
    return "".join(
        f'<span class="swatch" style="background: rgb{color}"></span>{escape(name)}' for name, color in colors.items()
    )


def _picture(picture: Picture) -> str:
    figures = "".join(
        f'<figure><img alt="{escape(caption)}" src="{_inline(pixels)}"><figcaption>{escape(caption)}</figcaption>'
        "</figure>"
        for caption, pixels in picture.shown.items()
    )
    return f'<h3>{escape(picture.title)}</h3><div class="pictures">{figures}</div>'


def _inline(pixels: NDArray[np.uint8]) -> str:
    """An address that holds the picture itself."""
    data = io.BytesIO()
    if pixels.shape[0] * pixels.shape[1] <= PNG_PIXELS:
        Image.fromarray(pixels).save(data, "PNG")
        return _png(data.getvalue())
    Image.fromarray(pixels).save(data, "JPEG", quality=90)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _png(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"
