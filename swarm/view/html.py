"""The pieces of a self-contained HTML report: sections, tables, embedded images.

Owns escaping and looks. Any text that is not `Html` is escaped on its way in, so nothing a model wrote can
become markup; the page loads nothing from anywhere. It refuses to know what is reported.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from swarm.errors import SwarmError
from swarm.files import write_whole

__all__ = [
    "Html",
    "facts",
    "image",
    "items",
    "page",
    "paragraph",
    "preformatted",
    "section",
    "table",
    "write",
]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")

_CSS = """ :root { color-scheme: light; } body { font: 15px/1.5 system-ui, sans-serif; color: #222;
background: #fff; margin: 2rem auto; padding: 0 1rem; max-width: 62rem; } h1 { font-size: 1.5rem; margin-
bottom: .2rem; } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem; } .lead { font-size: 1.1rem; margin: .2rem 0
1rem; } .note { color: #555; font-size: .9rem; } .scroll { overflow-x: auto; } table { border-collapse:
collapse; font-variant-numeric: tabular-nums; } th, td { padding: .25rem .7rem; text-align: right; border-
bottom: 1px solid #ddd; white-space: nowrap; } th { font-weight: 600; border-bottom: 2px solid #888;
vertical-align: bottom; } th:first-child, td:first-child, .text th, .text td { text-align: left; } .text td
{ white-space: normal; vertical-align: top; } tr.strong td { background: #e8f1f8; font-weight: 600; } pre {
background: #f5f5f5; padding: .7rem; overflow-x: auto; font-size: .85rem; } img { max-width: 100%; height:
auto; } dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt { color: #555; }
dd { margin: 0; overflow-wrap: anywhere; } .columns { display: grid; grid-template-columns: repeat(auto-fit,
minmax(22rem, 1fr)); gap: 1rem; } .columns > section { border: 1px solid #ccc; border-radius: .4rem;
padding: 0 1rem .5rem; } .columns h2 { margin-top: .8rem; }
"""


class Html(str):
    """Text that is markup already; everything else gets escaped."""

    __slots__ = ()


def escape(text: object) -> Html:
    """Return text as safe markup; control and direction-changing characters become visible codes."""
    if isinstance(text, Html):
        return text
    visible = _CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", str(text))
    return Html(html.escape(visible))


def paragraph(text: object, kind: str = "") -> Html:
    """Return a paragraph; `kind` is a CSS class such as `lead` or `note`."""
    return Html(f'<p class="{escape(kind)}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>")


def preformatted(text: str) -> Html:
    """Return text with its line breaks and spaces kept."""
    lines = "\n".join(escape(line) for line in text.split("\n"))
    return Html(f"<pre>{lines}</pre>")


def items(texts: Iterable[object]) -> Html:
    """Return a bullet list."""
    return Html("<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>")


def facts(pairs: Mapping[str, object]) -> Html:
    """Return names and values, one pair per line."""
    return Html(
        "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs.items()) + "</dl>"
    )


def table(head: Sequence[object], rows: Iterable[Sequence[object]], *, strong: str = "", text: bool = False) -> Html:
    """Return a table.

    Args:
        head: column names.
        rows: cells; the first column is left-aligned, the others are numbers unless `text`.
        strong: the row whose first cell is this text stands out.
        text: columns hold prose.
    """
    body = []
    for row in rows:
        mark = ' class="strong"' if strong and str(row[0]) == strong else ""
        body.append(f"<tr{mark}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    opening = '<table class="text">' if text else "<table>"
    content = f"{opening}<thead><tr>{header}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return Html(f'<div class="scroll">{content}</div>')


def image(png: bytes, description: str) -> Html:
    """Return a PNG embedded in the page, with its description for those who cannot see it."""
    data = base64.b64encode(png).decode("ascii")
    return Html(f'<p><img alt="{escape(description)}" src="data:image/png;base64,{data}"></p>')


def section(heading: str, *parts: object) -> Html:
    """Return a section with its heading."""
    return Html(f"<section><h2>{escape(heading)}</h2>{''.join(map(escape, parts))}</section>")


def columns(*sections: Html) -> Html:
    """Return sections side by side where the window is wide enough."""
    return Html(f'<div class="columns">{"".join(sections)}</div>')


def page(title: str, *parts: object) -> str:
    """Return a whole document that needs no other file and no network."""
    body = "".join(escape(part) for part in parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        f"<title>{escape(title)}</title><style>{_CSS}</style></head>"
        f"<body><h1>{escape(title)}</h1>{body}</body></html>\n"
    )


def write(path: Path, content: str | bytes) -> Path:
    """Write a file of a report whole or not at all, and return its path.

    Raises:
        SwarmError: no permission or no space.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        raise SwarmError(f"cannot write {path}: {error.strerror}; free space or choose another folder") from error
    return path
