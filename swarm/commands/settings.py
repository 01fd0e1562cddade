"""`swarm settings`: what a YAML file may say, from the sections that check it.

The page docs/reference/settings.md comes from here, too: `swarm settings --page > docs/reference/settings.md`.
"""

from __future__ import annotations

import pkgutil
import re
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel

    from swarm.config.describe import SectionText, Setting
    from swarm.errors import SwarmError

EXAMPLE = "swarm settings agents.engine"

FILES = {
    "experiment": "swarm.config.experiment:ExperimentConfig",
    "train": "swarm.train.recipe:RECIPES",
    "lab": "swarm.lab.ltm.config:LabConfig",
    "mqar": "swarm.lab.mqar.config:MqarConfig",
    "eval": "swarm.lab.engram.config:EngramEvalConfig",
    "exact-match": "swarm.lab.facts.config:ExactMatchConfig",
}
"""Kinds of files, named after the command that reads them, and where their section is, or all kinds of it."""

_OTHERS = ", ".join(name for name in FILES if name != "experiment")


def sections_of(file: str) -> list[type[BaseModel]]:
    """Return the section that a kind of file holds, or all kinds of it; their packages are loaded by that."""
    found = pkgutil.resolve_name(FILES[file])
    return list(found.values()) if isinstance(found, dict) else [found]


def settings(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="A section or setting of an experiment file, such as agents, agents.engine.vllm or budget.tokens; or "
            f"another kind of file ({_OTHERS}), or a section of it, such as lab.train.",
        ),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the file's JSON Schema, by which editors complete and check it.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--page", hidden=True, help="Print the reference of all files.")] = False,
) -> None:
    """Print what a YAML file may say: names, values, defaults and meanings."""
    if markdown:
        typer.echo(page(), nl=False)
    elif schema:
        import json

        from swarm.config.describe import json_schema

        if (file := name or "experiment") not in FILES:
            raise _unknown(file, list(FILES))
        typer.echo(json.dumps(json_schema(*sections_of(file)), indent=1))
    else:
        typer.echo("\n".join(_lines(name or "experiment")))


def page() -> str:
    """Return the reference of all settings in Markdown."""
    from dataclasses import replace

    from swarm.config.describe import describe
    from worlds.registry import available, world_class

    lines = [
        "# Settings",
        "",
        "What each kind of YAML file may say. `swarm settings NAME` prints the same. For editors that check YAML:",
        "`swarm settings --schema > experiment.schema.json`, and the comment",
        "`# yaml-language-server: $schema=experiment.schema.json` in the first line of the file.",
        "",
        "`swarm settings --page` makes this page from the code; do not edit it.",
    ]
    for file in FILES:
        lines += ["", f"## {file.capitalize()}", *_markdown(describe(*sections_of(file)))]
    ours = [world for world in map(world_class, available()) if world.__module__.startswith("worlds.")]
    options = [
        replace(section, name=".".join(filter(None, (world.id, section.name))))
        for world in ours
        for section in describe(world.Options)
    ]
    return "\n".join([*lines, "", "## World options", *_markdown(options)]) + "\n"


def _markdown(sections: Iterable[SectionText]) -> Iterator[str]:
    for section in sections:
        if title := _title(section):
            yield from ("", f"### {title}")
        yield from ("", section.about)
        if section.settings:
            yield from ("", "| setting | values | default | meaning |", "| --- | --- | --- | --- |")
        for one in section.settings:
            default = "required" if one.default is None else one.default and f"`{one.default}`"
            values = re.sub(r"matches (\S+)", r"matches `\1`", one.values)
            cells = (f"`{_key(one)}`", values, default, one.meaning)
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _title(section: SectionText) -> str:
    return ", ".join(filter(None, (section.name, section.kind and f"kind: {section.kind}")))


def _key(one: Setting) -> str:
    return one.name.rpartition(".")[2]


def _lines(name: str) -> Iterator[str]:
    """Yield the lines about a file, about a section with all that is in it, or about a setting.

    Raises:
        SwarmError: there is none of this name.
    """
    from swarm.config.describe import describe

    first, _, rest = name.partition(".")
    file, wanted = (first, rest) if first in FILES else ("experiment", name)
    found, known = False, []
    for section in describe(*sections_of(file)):
        path = ".".join(filter(None, (_plain(section.name), section.kind)))
        whole = not wanted or f"{path}.".startswith(f"{wanted}.")
        told = [one for one in section.settings if whole or (_plain(one.name) == wanted and not one.is_section)]
        known += [path, *(_plain(one.name) for one in section.settings)]
        if whole or told:
            yield from [""] * found
            yield from _section(section, told, whole)
            found = True
    if not found:
        raise _unknown(name, [*FILES, *(known if file == "experiment" else [f"{file}.{path}" for path in known])])
    if not wanted:
        yield f"\nOther files: swarm settings {', '.join(other for other in FILES if other != file)}"


def _plain(name: str) -> str:
    """Return a dotted name without what stands for items of lists and for names."""
    return name.replace("[]", "").replace(".NAME", "")


def _section(section: SectionText, told: list[Setting], whole: bool) -> Iterator[str]:
    if title := _title(section):
        yield title
    if whole:
        yield from textwrap.wrap(section.about, 78, initial_indent="  ", subsequent_indent="  ")
    yield from setting_lines(told)


def setting_lines(told: Iterable[Setting]) -> Iterator[str]:
    """Yield lines of at most 78 characters about settings: name, default, values, meaning."""
    for one in told:
        given = "required" if one.default is None else one.default and f"default {one.default}"
        head = f"  {_key(one)}: {'; '.join(filter(None, (given, one.values)))}"
        yield from textwrap.wrap(head, 78, subsequent_indent=" " * 6, break_on_hyphens=False)
        yield from textwrap.wrap(one.meaning, 78, initial_indent=" " * 8, subsequent_indent=" " * 8)


def _unknown(name: str, known: list[str]) -> SwarmError:
    from swarm.errors import SwarmError, did_you_mean

    sections = ", ".join(dict.fromkeys(path for path in known if path and "." not in path and path not in FILES))
    hint = did_you_mean(name, known, f"; there are: {sections}; other files: {_OTHERS}")
    return SwarmError(f"no settings of the name '{name}'{hint}")
