"""`swarm memory`: look into what agents remember, and remove what was said in a chat."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swarm.commands.options import RunFolder, a_path

if TYPE_CHECKING:
    from rich.text import Text

EXAMPLE = "swarm memory show runs/my-run-s1 a0 --sort reads"


def show(
    run_folder: RunFolder,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="An agent id, such as a0.")],
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Which memory, such as ltm. Default: all.")] = None,
    episode: Annotated[int | None, typer.Option(metavar="N", help="Which episode. Default: the last one.")] = None,
    sort: Annotated[str, typer.Option(metavar="KEY", help="Of ltm: time, surprisal or reads.")] = "time",
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most so many items.")] = 50,
) -> None:
    """Show what an agent remembers: facts with who wrote them, tokens with surprisal and reads, records of others."""
    from swarm.commands.run_folder import existing_run
    from swarm.errors import SwarmError
    from swarm.view.memory import kinds_of_memory

    folder = existing_run(run_folder)
    kinds = list(kinds_of_memory(folder))
    if not kinds:
        raise SwarmError(f"agents of {folder} keep nothing from call to call; see agents.memory of its experiment")
    if kind is not None and kind not in kinds:
        raise SwarmError(f"agents of {folder} have no memory {kind!r}; they have: {', '.join(kinds)}")
    for each in kinds if kind is None else [kind]:
        match each:
            case "facts":
                _show_facts(folder, agent, episode, limit)
            case "ltm":
                _show_ltm(folder, agent, episode, sort, limit)
            case _:
                _show_records(folder, each, episode, limit)


def forget(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of a chat.", parser=a_path)],
    number: Annotated[int, typer.Argument(metavar="N", help="Which exchange; /history shows them.")],
) -> None:
    """Remove what was said in an exchange of a chat from all that is learned; the rest is learned anew."""
    from swarm.chat.session import Chat, model_of
    from swarm.chat.talk import forgotten

    with Chat(model_of(folder), folder) as chat:
        typer.echo(forgotten(chat.forget(number), number))


def _print(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], summary: str) -> None:
    """Print a table; columns whose names begin with `#` hold numbers."""
    from rich.table import Column, Table
    from rich.text import Text

    from swarm.process.console import stdout_console

    headers = (Column(name.removeprefix("#"), justify="right" if name[0] == "#" else "left") for name in columns)
    table = Table(*headers, title=title, title_justify="left")
    for row in rows:  # what agents wrote is no markup
        table.add_row(*(cell if isinstance(cell, Text) else Text(cell) for cell in row))
    stdout_console().print(table, summary, sep="\n")


def _show_facts(folder: Path, agent: str, episode: int | None, limit: int) -> None:
    from swarm.view.memory import view_facts

    facts = view_facts(folder, agent, episode)
    _print(
        f"facts that {agent} can recall",
        ("#episode", "#tick", "written by", "where", "what is right there"),
        ((str(f.episode), str(f.tick), f.source, f.observation, f.action) for f in facts[:limit]),
        f"{len(facts)} facts, {min(limit, len(facts))} shown",
    )


def _show_ltm(folder: Path, agent: str, episode: int | None, sort: str, limit: int) -> None:
    from rich.text import Text

    from swarm.errors import SwarmError
    from swarm.view.memory import view_memory

    orders = {
        "time": lambda item: (item.episode, item.tick),
        "surprisal": lambda item: -item.surprisal_bits,
        "reads": lambda item: -item.reads,
    }
    if sort not in orders:
        raise SwarmError(f"unknown order {sort!r}; available: {', '.join(orders)}")
    view = view_memory(folder, agent, episode)
    rows = []
    for item in sorted(view.items, key=orders[sort])[:limit]:
        tick = str(item.tick) if item.episode == view.episode else f"{item.episode}/{item.tick}"
        text = Text(" ".join(item.before.split("\n")[-1].split()), style="dim")
        text.append(f" {item.token.strip() or repr(item.token)}", style="bold not dim")
        rows.append((tick, f"{item.surprisal_bits:.1f}", str(item.reads), text))
    read = sum(item.reads > 0 for item in view.items)
    _print(
        f"{view.agent} after tick {view.tick} of episode {view.episode}",
        ("#tick", "#bits", "#reads", "what it read, and the word it stored"),
        rows,
        f"{len(view.items)} of {view.capacity} items, {read} were read; {len(rows)} shown",
    )


def _show_records(folder: Path, kind: str, episode: int | None, limit: int) -> None:
    from swarm.view.memory import view_records

    records = view_records(folder, kind, episode)
    _print(
        f"what memory {kind} put on record",
        ("#episode", "#tick", "record"),
        ((str(at), str(tick), json.dumps(body, ensure_ascii=False)) for at, tick, body in records[-limit:]),
        f"{len(records)} records, {min(limit, len(records))} shown",
    )
