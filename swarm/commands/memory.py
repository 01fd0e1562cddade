"""`swarm memory`: look into what agents remember and learned, and take it back; one group for all kinds of memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swarm.commands.options import RunFolder, Trust, a_path

if TYPE_CHECKING:
    from rich.text import Text

    from swarm.record.records import ChangeRecord

EXAMPLE = "swarm memory show runs/my-run-s1 a0 --sort reads"
EXAMPLES = {
    "history": "swarm memory history runs/learn24-s1",
    "undo": "swarm memory undo runs/learn24-s1 a0",
    "prune": "swarm memory prune runs/learn24-s1",
    "forget": "swarm memory forget runs/chat-smollm2-135m 3",
}

Agent = Annotated[str | None, typer.Argument(metavar="AGENT", help="An agent id, such as a0. Default: all.")]
Kind = Annotated[str | None, typer.Option(metavar="KIND", help="Which memory, such as delta. Default: all.")]
_LEARNED = "delta"
"""The kind of memory whose versions can be told apart and taken back."""


def show(
    run_folder: RunFolder,
    agent: Agent = None,
    kind: Kind = None,
    episode: Annotated[int | None, typer.Option(metavar="N", help="Which episode. Default: the last one.")] = None,
    sort: Annotated[str, typer.Option(metavar="KEY", help="Of ltm: time, surprisal or reads.")] = "time",
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most so many items.")] = 50,
) -> None:
    """Show what an agent remembers: facts, entities, tokens with surprisal and reads, and what it learned.

    Of what it learned it tells, step by step, from what, what the acceptance test said, and what it cost.
    """
    from swarm.commands.entities import show_entities
    from swarm.commands.run_folder import existing_run
    from swarm.errors import SwarmError

    if run_folder.suffix == ".db":
        show_entities(run_folder, agent, episode, limit)
        return
    folder = existing_run(run_folder)
    for each in _kinds(folder, kind):
        if each == _LEARNED:
            _show_lineage(folder, agent, limit)
        elif each == "registry":
            show_entities(folder, agent, episode, limit)
        elif each not in ("facts", "ltm"):
            _show_records(folder, each, episode, limit)
        elif agent is None:
            raise SwarmError(f"name the agent whose {each} to show: swarm memory show RUN AGENT")
        elif each == "facts":
            _show_facts(folder, agent, episode, limit)
        else:
            _show_ltm(folder, agent, episode, sort, limit)


def history(run_folder: RunFolder, agent: Agent = None, kind: Kind = None) -> None:
    """Show how what agents keep changed from round to round, with the probe of what they could do first.

    Of a registry it shows all that was ever said.
    """
    from swarm.commands.entities import show_claims
    from swarm.commands.run_folder import existing_run
    from swarm.text import printable
    from swarm.view import changes
    from swarm.view.memory import view_changes

    folder = existing_run(run_folder)
    for each in _kinds(folder, kind):
        if each == "registry":
            show_claims(folder, agent)
            continue
        records = view_changes(folder, each, agent)
        typer.echo(changes.HEADING.rstrip())
        for record in records:
            typer.echo(printable(changes.in_columns(record)))
        typer.echo(f"{each}: {changes.summary(records)}")


def undo(run_folder: RunFolder, agent: Agent = None, kind: Kind = None, trust: Trust = False) -> None:
    """Take back the last accepted learning step or consolidation of an agent, or of all; a run goes on from there.

    The journal says so and keeps what was undone. Do it again to go back further. A run that has ended can be undone,
    too: `swarm export` takes what agents have then.
    """
    from swarm.commands.run_folder import existing_run
    from swarm.learn.undo import undo as take_back
    from swarm.learn.undo import undo_consolidation
    from swarm.view.changes import short

    folder = existing_run(run_folder)
    if kind != "ltm":
        _refuse_other(folder, kind, "undone")
    for change in undo_consolidation(folder, agent) if kind == "ltm" else take_back(folder, agent):
        when = f", of round {change.settings['round'] + 1}" if "round" in change.settings else ""
        typer.echo(f"{change.agent or 'the team':<13} {short(change.parent)} undone{when}; now {short(change.result)}")


def prune(run_folder: RunFolder, kind: Kind = None) -> None:
    """Remove files of deltas that nobody needs: all but the last two of each agent. They can be computed anew.

    Runs do so themselves after each round; this is for what was undone or left by a kill.
    """
    from swarm.agents.delta import prune as remove
    from swarm.agents.ltm_files import MEMORY_FOLDER
    from swarm.commands.run_folder import existing_run
    from swarm.files import FolderLock
    from swarm.learn.undo import held

    folder = existing_run(run_folder)
    _refuse_other(folder, kind, "pruned")
    with FolderLock(folder):
        files, freed = remove(folder / MEMORY_FOLDER, held(folder).newest())
    typer.echo(f"pruned        {files:,} files, {freed / 1e6:.1f} MB")


def _kinds(folder: Path, kind: str | None) -> list[str]:
    """Return the kinds of memory that a command is about.

    Raises:
        SwarmError: agents have none, or not this one.
    """
    from swarm.errors import SwarmError
    from swarm.view.memory import kinds_of_memory

    kinds = list(kinds_of_memory(folder))
    if not kinds:
        raise SwarmError(f"agents of {folder} keep nothing from call to call; see agents.memory of its experiment")
    if kind is not None and kind not in kinds:
        raise SwarmError(f"agents of {folder} have no memory {kind!r}; they have: {', '.join(kinds)}")
    return kinds if kind is None else [kind]


def _refuse_other(folder: Path, kind: str | None, what: str) -> None:
    """Refuse kinds of memory that keep no versions."""
    from swarm.errors import SwarmError

    if _LEARNED not in _kinds(folder, kind):
        raise SwarmError(f"only what agents learned (delta) can be {what}: other kinds of memory keep no versions")


def _show_lineage(folder: Path, agent: str | None, limit: int) -> None:
    from swarm.learn.undo import held
    from swarm.view.changes import short
    from swarm.view.memory import view_changes

    records = view_changes(folder, _LEARNED, agent)
    for record in records[-limit:]:
        _print_change(record)
    for who, versions in held(folder).versions.items():
        if agent is None or who in (agent, None):
            typer.echo(f"{'now':<10} {who or 'the team'} has {short(versions[-1] if versions else '')}")
    typer.echo(f"{len(records)} changes, {min(limit, len(records))} shown")


def _print_change(record: ChangeRecord) -> None:
    from swarm.text import printable
    from swarm.view import changes

    rounds = f"round {record['settings']['round'] + 1}, " if "round" in record["settings"] else ""
    first, last = (record["evidence"]["records"] or [0, 0])[:2]
    told = changes.counts(record)
    cost = record["cost"]
    trained, tested = cost.get("trained_tokens", 0), cost.get("test_tokens", 0)
    of_it = f"{trained:,} trained on, each charged as three, and {tested:,} in tests"
    lines = {
        f"{rounds}{changes.who(record)} {changes.verdict(record)}": "",
        "  version": f"{changes.short(record['parent'])} -> {changes.short(record['result'])}",
        "  from": f"{told}; records {first} to {last}, digest {record['evidence']['digest'][:12]}" if told else "",
        "  test": ", ".join(map(changes.of_test, record["tests"])),
        "  note": record["note"],
        "  cost": f"{cost['tokens']:,} tokens: {of_it}" if cost.get("tokens") else "",
    }
    for name, text in lines.items():
        if text or not name.startswith(" "):
            typer.echo(printable(f"{name:<10} {text}".rstrip()))


def forget(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR|FILE", help="The folder of a chat, or a registry's file.", parser=a_path)
    ],
    what: Annotated[str, typer.Argument(metavar="N|SOURCE", help="Which exchange (/history shows them), or source.")],
) -> None:
    """Remove an exchange of a chat from all that is learned, or a source from a registry.

    What a chat's model learned is learned anew without it; what other sources say holds again.
    """
    from swarm.chat.session import Chat, model_of
    from swarm.chat.talk import forgotten
    from swarm.commands.entities import forget_source
    from swarm.errors import SwarmError

    if folder.is_file():
        forget_source(folder, what)
        return
    if not what.isdigit():
        raise SwarmError(f"{what!r} is no number of an exchange; swarm chat shows them with /history")
    number = int(what)
    with Chat(model_of(folder), folder) as chat:
        typer.echo(forgotten(chat.forget(number), number))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str | Text]], summary: str) -> None:
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
    print_table(
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
    slots = sum(item.members > 0 for item in view.items)
    rows: list[tuple[str | Text, ...]] = []
    for item in sorted(view.items, key=orders[sort])[:limit]:
        tick = str(item.tick) if item.episode == view.episode else f"{item.episode}/{item.tick}"
        text = Text(" ".join(item.before.split("\n")[-1].split()), style="dim")
        text.append(f" {item.token.strip() or repr(item.token)}", style="bold not dim")
        tier = [f"slot of {item.members}" if item.members else "item"] if slots else []
        rows.append((tick, *tier, f"{item.surprisal_bits:.1f}", str(item.reads), text))
    read = sum(item.reads > 0 for item in view.items)
    print_table(
        f"{view.agent} after tick {view.tick} of episode {view.episode}",
        ("#tick", *(["tier"] if slots else []), "#bits", "#reads", "what it read, and the word it stored"),
        rows,
        f"{len(view.items) - slots} of {view.capacity} items{f', {slots} slots' if slots else ''}, {read} were read; "
        f"{len(rows)} shown",
    )


def _show_records(folder: Path, kind: str, episode: int | None, limit: int) -> None:
    from swarm.view.memory import view_records

    records = view_records(folder, kind, episode)
    print_table(
        f"what memory {kind} put on record",
        ("#episode", "#tick", "record"),
        ((str(at), str(tick), json.dumps(body, ensure_ascii=False)) for at, tick, body in records[-limit:]),
        f"{len(records)} records, {min(limit, len(records))} shown",
    )
