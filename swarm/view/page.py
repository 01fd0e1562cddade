"""Turns a template and plain data into one HTML file that needs no other file and no network.

Escaping is not left to the templates: everything that is not markup is escaped on its way in, and characters that
could steer a terminal or the direction of text become middle dots, so nothing a model wrote can become markup.
"""

import base64
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from swarm.errors import SwarmError
from swarm.files import make_folder, write_whole
from swarm.stats import Interval, format_interval
from swarm.text import printable


def render(template: Path, data: Mapping[str, Any]) -> str:
    """Return a page.

    Args:
        template: a file that extends `page.html`, beside the module that knows its data.
        data: the names that the template uses; pictures are PNG bytes.
    """
    environment = Environment(
        loader=FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": "{:,}".format,
        "interval": lambda found: format_interval(Interval(**found)),
        "png": lambda image: "data:image/png;base64," + base64.b64encode(image).decode("ascii"),
        "pretty": lambda value: json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False),
    }
    return environment.get_template(template.name).render(data)


def _visible(value: object) -> object:
    """Return what a template prints, unless it is markup, with control characters replaced; only line breaks stay."""
    return value if hasattr(value, "__html__") else "\n".join(map(printable, str(value).split("\n")))


def write(path: Path, content: str | bytes) -> Path:
    """Write a file of a report whole or not at all, and return its path.

    Raises:
        SwarmError: no permission or no space.
    """
    try:
        make_folder(path.parent)
        write_whole(path, content)
    except OSError as error:
        raise SwarmError(
            f"cannot write {path}: {error.strerror}; free space or choose another folder with --out"
        ) from error
    return path
