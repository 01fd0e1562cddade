"""Commands of `swarm memory` for an entity registry: of a run, or in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from swarm.commands.options import a_path

if TYPE_CHECKING:
    from rich.text import Text

    from ulm.memory.registry import EntityRegistry

EXAMPLES = {
    "path": "swarm memory path runs/my-run-s1 '[mara voss] : works_for seat'",
    "export": "swarm memory export runs/my-run-s1 entities.jsonl",
    "merge": "swarm memory merge entities.db 3 17",
    "split": "swarm memory split entities.db 3 17",
}

Where = Annotated[
    Path, typer.Argument(metavar="RUN|FILE", help="A run folder, or the file of a registry.", parser=a_path)
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The file of a registry.", parser=a_path)]
Number = Annotated[int, typer.Argument(metavar="N", help="Number of an entity; `show` prints them.")]
Agent = Annotated[str | None, typer.Option(metavar="AGENT", help="Whose, where each agent has one. Default: a0.")]
Episode = Annotated[int | None, typer.Option(metavar="N", help="After which episode. Default: the last one.")]


def path(
    where: Where,
    query: Annotated[str, typer.Argument(metavar="QUERY", help="As agents look up: '[NAME] KNOWN : RELATIONS'.")],
    agent: Agent = None,
    episode: Episode = None,
) -> None:
    """Look something up in a registry, one relation after the other."""
    from swarm.errors import SwarmError
    from ulm.memory.registry import answered

    registry = _opened(where, agent, episode)
    start, _, relations = query.removesuffix("=").strip().partition(" : ")
    words = relations.split()
    known = registry.store.relations()
    if answered(registry, f"{start} : {' '.join(words)} =", {}) is None:
        raise SwarmError(f"{query!r} is no look-up; write '[mara voss] : works_for seat'")
    if unknown := [word for word in words if word not in known]:
        raise SwarmError(f"there is no relation {unknown[0]!r}; there are: {', '.join(_relations(registry))}")
    for reach in range(1, len(words) + 1):
        said = answered(registry, f"{start} : {' '.join(words[:reach])} =", {}) or ""
        typer.echo(f"{words[reach - 1]:<14}{said}")


def export(
    where: Where,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="A new .jsonl, .csv or .db file.", parser=a_path)],
    agent: Agent = None,
    episode: Episode = None,
) -> None:
    """Write a registry as JSON lines, as CSV, or as a file of its own (.db)."""
    from swarm.errors import SwarmError

    if out.suffix not in (".jsonl", ".csv", ".db"):
        raise SwarmError(f"{out}: name a .jsonl, .csv or .db file")
    if out.exists():
        raise SwarmError(f"{out} is there already; name another file, or remove it")
    registry = _opened(where, agent, episode)
    try:
        if out.suffix == ".db":
            registry.save(out)
        else:
            registry.export(out)
    except OSError as error:
        raise SwarmError(f"cannot write {out}: {error.strerror}") from error
    typer.echo(f"exported      {registry.num_entities:,} entities to {out}")


def merge(file: File, one: Number, other: Number) -> None:
    """Say that two entities are one; `split` takes it back."""
    _changed(file, lambda registry: f"{one} and {other} are one, {registry.merge(one, other)}")


def split(file: File, one: Number, other: Number) -> None:
    """Take back that two entities are one."""

    def parted(registry: EntityRegistry) -> str:
        registry.split(one, other)
        return f"{one} and {other} are two"

    _changed(file, parted)


def forget_source(file: Path, source: str) -> None:
    """Forget all that a source says."""
    from swarm.errors import SwarmError

    def forgotten(registry: EntityRegistry) -> str:
        if not (count := registry.forget(source)):
            raise SwarmError(f"{file} has nothing from {source!r}; `swarm memory show {file}` prints sources")
        return f"{count} assertions of {source}"

    _changed(file, forgotten)


def show_entities(where: Path, agent: str | None, episode: int | None, limit: int) -> None:
    """Print what a registry knows, entity by entity."""
    from swarm.commands.memory import print_table

    registry = _opened(where, agent, episode)
    numbers = list(registry)
    print_table(
        f"what is known, {len(numbers)} entities",
        ("#entity", "type", "names", "what is known of it", "by"),
        (_row(registry, number) for number in numbers[:limit]),
        f"{len(numbers)} entities, {min(limit, len(numbers))} shown; registry {registry.digest[:12]}",
    )


def show_claims(where: Path, agent: str | None) -> None:
    """Print all that was ever said in the registry of a run, in order, what was taken back, and by which changes."""
    from swarm.text import printable
    from swarm.view.changes import in_one_line
    from swarm.view.memory import view_changes

    registry = _opened(where, agent, None)
    said = sorted({one.id: one for number in registry for one in registry.history(number)}.items())
    typer.echo(f"{'tick':>5} {'agent':<6} {'source':<14} said")
    for _, one in said:
        gone = "  (taken back)" if one.gone else ""
        since = f" since {one.valid_from}" if not one.relation.startswith(":") else ""
        line = f"{one.tick:>5} {one.agent:<6} {one.source:<14} {one.subject} {one.relation} {one.value}{since}{gone}"
        typer.echo(printable(line))
    for record in view_changes(where, "registry", agent):
        typer.echo(printable(in_one_line(record)))
    typer.echo(f"registry: {len(said)} assertions, {sum(bool(one.gone) for _, one in said)} taken back")


def _row(registry: EntityRegistry, number: int) -> tuple[str | Text, ...]:
    entity = registry.get_entity(number)
    said = [f"{name} {', '.join(values)}" for name, values in entity.properties.items()]
    said += [
        f"{name} {', '.join(registry.names(other)[0] for other in others)}" for name, others in entity.relations.items()
    ]
    return str(number), entity.entity_type, ", ".join(entity.names), "; ".join(said), ", ".join(entity.sources)


def _relations(registry: EntityRegistry) -> list[str]:
    return [name for name in registry.store.relations() if not name.startswith(":")]


def _opened(where: Path, agent: str | None, episode: int | None) -> EntityRegistry:
    from swarm.commands.run_folder import existing_run
    from swarm.view.entities import registry_of

    return registry_of(where if where.is_file() else existing_run(where), agent, episode)


def _changed(file: Path, change: Callable[[EntityRegistry], str]) -> None:
    """Change a registry's file, and say what was done."""
    from contextlib import closing

    from swarm.errors import SwarmError
    from swarm.view.entities import open_registry

    if not file.is_file():
        raise SwarmError(
            f"{file} is no file of a registry; `swarm memory export RUN {file.stem}.db` makes one of a run"
        )
    with closing(open_registry(file, writing=True)) as registry:
        try:
            typer.echo(change(registry))
        except ValueError as error:
            raise SwarmError(str(error)) from error
