"""`swarm memory show RUN AGENT`: look into what an agent remembers."""

from __future__ import annotations

from typing import Annotated

import typer

from swarm.commands.options import RunFolder

__all__ = ["EXAMPLE", "show"]

EXAMPLE = "swarm memory show runs/my-run-s1 a0 --sort reads"


def show(
    run_folder: RunFolder,
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="An agent id, such as a0.")],
    episode: Annotated[int | None, typer.Option(metavar="N", help="Which episode. Default: the last one.")] = None,
    sort: Annotated[str, typer.Option(metavar="KEY", help="time, surprisal or reads.")] = "time",
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Show at most so many items.")] = 50,
) -> None:
    """Show what an agent remembers: facts with who wrote them, and tokens with their surprisal and reads."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from swarm.commands.run_folder import existing_run
    from swarm.errors import SwarmError
    from swarm.view.memory import kinds_of_memory, view_facts, view_memory

    orders = {
        "time": lambda item: (item.episode, item.tick),
        "surprisal": lambda item: -item.surprisal_bits,
        "reads": lambda item: -item.reads,
    }
    if sort not in orders:
        raise SwarmError(f"unknown order {sort!r}; available: {', '.join(orders)}")
    console = Console()
    folder = existing_run(run_folder)
    if "engram" in kinds_of_memory(folder):
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
        if "ltm" not in kinds_of_memory(folder):
            return
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
