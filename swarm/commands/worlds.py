"""`swarm worlds`: what worlds there are, their cards, and the contract check for authors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from worlds.protocol import World

EXAMPLE = "swarm worlds my-world-v0 --check"


def _ids(incomplete: str) -> list[str]:
    from worlds.registry import available

    return [world_id for world_id in available() if world_id.startswith(incomplete)]


def worlds(
    world_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Show this world's card.", autocompletion=_ids)
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Play the world and list the rules of the contract it breaks.")
    ] = False,
    contained: Annotated[
        bool, typer.Option("--contained", help="With --check: play it in a child interpreter, as world.contained does.")
    ] = False,
) -> None:
    """List the worlds; with an ID show its card, tools, options and a rendered example."""
    from swarm.errors import SwarmError
    from swarm.process.progress import progress
    from worlds.check import check_world
    from worlds.checked import card
    from worlds.registry import available, world_class

    if contained and not check:
        raise SwarmError("--contained says where --check plays the world; add --check")
    if world_id is None:
        if check:
            raise SwarmError("name the world to check, for example: swarm worlds my-world-v0 --check")
        for name in (ids := available()):
            lines = card(world_class(name)).splitlines()
            typer.echo(f"{name:<{max(map(len, ids))}}  {lines[0] if lines else ''}")
        typer.echo("\nmore: swarm worlds ID")
    elif not check:
        _show(world_class(world_id))
    else:
        with progress(f"playing {world_id}"):
            violations = check_world(world_id, contained=contained)
        typer.echo("\n".join(violations) or f"{world_id} keeps the contract")
        if violations:
            raise typer.Exit(1)


def _show(world_type: type[World]) -> None:
    import inspect

    from swarm.commands.settings import setting_lines
    from swarm.config.describe import describe
    from worlds.checked import card
    from worlds.contained import open_checked

    typer.echo(f"{world_type.id}\n\n{inspect.cleandoc(card(world_type))}\n\nOptions (world.options in YAML)")
    options = describe(world_type.Options)[0].settings
    typer.echo("\n".join(setting_lines(options)))
    if required := [one.name for one in options if one.default is None]:
        typer.echo(f"\nno example: {', '.join(required)} must be given first")
        return
    world = open_checked(world_type.id, 2)
    observations, _ = world.reset(0, {"episode": 0})
    typer.echo("\nTools")
    for tool in world.tools():
        typer.echo(f"  {tool.get('name')}: {tool.get('description', '')}\n    text: {tool.get('text', '')}")
    typer.echo(f"\nExample (2 agents, seed 0)\n  goal: {world.goal()}")
    for agent, text in observations.items():
        typer.echo(f"  {agent} reads: {text}")
    typer.echo("\n" + "\n".join(f"  {line}" for line in world.render().splitlines()))
