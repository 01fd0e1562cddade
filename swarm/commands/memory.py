"""`swarm memory show RUN AGENT`: look into what an agent remembers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swarm.commands.options import RunFolder

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["EXAMPLE", "show"]

EXAMPLE = "swarm memory show runs/vault-s1 a0 --sort reads"


def show(
    run_folder: RunFolder,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="An agent id, such as a0.")],
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="Which memory, such as ltm. Default: all.")] = None,
    episode: Annotated[int | None, typer.Option(metavar="N", help="Which episode. Default: the last one.")] = None,
    sort: Annotated[str, typer.Option(metavar="KEY", help="Of ltm: time, surprisal or reads.")] = "time",
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most so many items.")] = 50,
) -> None:
    """Show what an agent remembers: facts with who wrote them, tokens with surprisal and reads, records of others."""
    from rich.console import Console

    from swarm.commands.run_folder import existing_run
    from swarm.errors import SwarmError
    from swarm.view.memory import kinds_of_memory

    console = Console()
    folder = existing_run(run_folder)
    kinds = list(kinds_of_memory(folder))
    if not kinds:
        raise SwarmError(f"agents of {folder} keep nothing from call to call; see agents.memory of its experiment")
    if kind is not None and kind not in kinds:
        raise SwarmError(f"agents of {folder} have no memory {kind!r}; they have: {', '.join(kinds)}")
    for each in kinds if kind is None else [kind]:
        if each == "facts":
            _show_facts(console, folder, agent, episode, limit)
        elif each == "ltm":
            _show_ltm(console, folder, agent, episode, sort, limit)
        else:
            _show_records(console, folder, each, episode, limit)


def _show_facts(console: Console, folder: Path, agent: str, episode: int | None, limit: int) -> None:
    from rich.table import Table
    from rich.text import Text

    from swarm.view.memory import view_facts

    facts = view_facts(folder, agent, episode)
    table = Table(title=f"facts that {agent} can recall", title_justify="left")
    for name in ("episode", "tick"):
        table.add_column(name, justify="right")
    for name in ("written by", "where", "what is right there"):
        table.add_column(name)
    for fact in facts[:limit]:
        table.add_row(str(fact.episode), str(fact.tick), fact.source, Text(fact.observation), Text(fact.action))
    console.print(table)
    console.print(f"{len(facts)} facts, {min(limit, len(facts))} shown")


def _show_ltm(console: Console, folder: Path, agent: str, episode: int | None, sort: str, limit: int) -> None:
    from rich.table import Table
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
    table = Table(title=f"{view.agent} after tick {view.tick} of episode {view.episode}", title_justify="left")
    for name in ("tick", "bits", "reads"):
        table.add_column(name, justify="right")
    table.add_column("what it read, and the word it stored")
    shown = sorted(view.items, key=orders[sort])[:limit]
    for item in shown:
        tick = str(item.tick) if item.episode == view.episode else f"{item.episode}/{item.tick}"
        text = Text(" ".join(item.before.split("\n")[-1].split()), style="dim")
        text.append(f" {item.token.strip() or repr(item.token)}", style="bold not dim")
        table.add_row(tick, f"{item.surprisal_bits:.1f}", str(item.reads), text)
    console.print(table)
    read = sum(item.reads > 0 for item in view.items)
    console.print(f"{len(view.items)} of {view.capacity} items, {read} were read; {len(shown)} shown")


def _show_records(console: Console, folder: Path, kind: str, episode: int | None, limit: int) -> None:
    """A kind of another package: what it put on record, the last ones."""
    from rich.table import Table
    from rich.text import Text

    from swarm.view.memory import view_records

    records = view_records(folder, kind, episode)
    table = Table(title=f"what memory {kind} put on record", title_justify="left")
    for name in ("episode", "tick"):
        table.add_column(name, justify="right")
    table.add_column("record")
    for at, tick, body in records[-limit:]:
        table.add_row(str(at), str(tick), Text(json.dumps(body, ensure_ascii=False)))
    console.print(table)
    console.print(f"{len(records)} records, {min(limit, len(records))} shown")
