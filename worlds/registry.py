"""Which worlds there are: from a versioned id to a world that is ready to reset.

Owns the ids of the built-in worlds, the entry-point group through which other packages add theirs, and the
one-line errors for a wrong id or a wrong option. It imports a world's module only when that world is asked
for, and refuses to know what any world is about.
"""

from __future__ import annotations

import difflib
import importlib
import re
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from worlds.protocol import World, WorldError, WorldOptions

__all__ = ["ENTRY_POINT_GROUP", "available", "make", "register", "world_class"]

ENTRY_POINT_GROUP = "ulm_swarm.worlds"
"""Group in which a package names its worlds: ``my-world-v0 = "my_package.my_world:MyWorld"``."""

_BUILT_IN = {
    "echo-v0": "worlds.echo.world:EchoWorld",
    "facts-v0": "worlds.facts.world:FactsWorld",
    "graph-v0": "worlds.graph.world:GraphWorld",
    "numbers-v0": "worlds.numbers.world:NumbersWorld",
    "split-numbers-v0": "worlds.split_numbers.world:SplitNumbersWorld",
    "vault-v0": "worlds.vault.world:VaultWorld",
}
_VERSIONED = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)-v([0-9]+)")
_registered: dict[str, type[World]] = {}


def available() -> list[str]:
    """Return the ids of all known worlds, sorted; loads none of them."""
    return sorted({*_BUILT_IN, *_registered, *(entry.name for entry in _entry_points())})


def register(cls: type[World]) -> type[World]:
    """Add a world class of this process under its own id; usable as a decorator.

    Worker processes do not see it: a package whose worlds run on Ray declares an entry point instead.

    Raises:
        WorldError: the class is no `World`, its id has no version, or another class holds the id.
    """
    if not (isinstance(cls, type) and issubclass(cls, World)):
        raise WorldError(f"{cls!r} is not a world: derive it from worlds.World")
    world_id = getattr(cls, "id", None)
    if not isinstance(world_id, str) or not _VERSIONED.fullmatch(world_id):
        raise WorldError(f"{cls.__name__}.id is {world_id!r}: use words and a version, like 'maze-v0'")
    if world_id in _BUILT_IN or _registered.get(world_id, cls) is not cls:
        raise WorldError(f"world id {world_id} is taken: give {cls.__name__} another name or version")
    _registered[world_id] = cls
    return cls


def world_class(world_id: str) -> type[World]:
    """Return the class of a world: a built-in, a registered one or one from an entry point, in this order.

    Raises:
        WorldError: no such id (the line names the nearest one), or the package that provides it is broken.
    """
    if world_id in _BUILT_IN:
        module, _, name = _BUILT_IN[world_id].partition(":")
        built_in: type[World] = getattr(importlib.import_module(module), name)
        return built_in
    if world_id in _registered:
        return _registered[world_id]
    entries = [entry for entry in _entry_points() if entry.name == world_id]
    if len(entries) > 1:
        packages = " and ".join(sorted(map(_package, entries)))
        raise WorldError(f"world {world_id} is claimed by {packages}: uninstall all but one")
    if entries:
        return _load(entries[0])
    raise WorldError(_not_found(str(world_id)))


def make(world_id: str, num_agents: int, options: Mapping[str, Any] | None = None) -> World:
    """Build a world from its id and the options of an experiment file.

    Args:
        world_id: versioned id, see `available`.
        num_agents: how many agents act in it.
        options: the world's own options; None means all defaults.

    Raises:
        WorldError: unknown id, or an option that is misspelt, of the wrong type or out of range.
    """
    cls = world_class(world_id)
    if options is not None and not isinstance(options, Mapping):
        raise WorldError(f"options of {world_id} must be a mapping of names to values, got {options!r:.60}")
    try:
        validated = cls.Options.model_validate(dict(options or {}))
    except ValidationError as error:
        problems = "; ".join(_explain(detail, cls.Options) for detail in error.errors())
        raise WorldError(f"options of {world_id}: {problems}") from None
    return cls(num_agents, validated)


def _entry_points() -> list[EntryPoint]:
    return list(entry_points(group=ENTRY_POINT_GROUP))


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _load(entry: EntryPoint) -> type[World]:
    source = f"world {entry.name} comes from the package {_package(entry)} ({entry.value})"
    try:
        cls = entry.load()
    except Exception as error:  # a foreign package may fail in any way, and the user needs its name
        text = " ".join(f"{type(error).__name__}: {error}".split())
        raise WorldError(f"{source}, which failed to load: {text}; fix or uninstall it") from error
    if not (isinstance(cls, type) and issubclass(cls, World)):
        raise WorldError(f"{source}, which is not a subclass of worlds.World; fix or uninstall it")
    if getattr(cls, "id", None) != entry.name:
        raise WorldError(f"{source}, whose class has the id {getattr(cls, 'id', None)!r}; make the two equal")
    return cls


def _not_found(world_id: str) -> str:
    known = available()
    match = _VERSIONED.fullmatch(world_id)
    name = match[1] if match else world_id
    versions = [other for other in known if (found := _VERSIONED.fullmatch(other)) and found[1] == name]
    if versions:
        return f"{world_id} not found; available version{'s'[: len(versions) > 1]}: {', '.join(versions)}"
    near = difflib.get_close_matches(world_id, known, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"world {world_id!r:.60} not found{hint} Available: {', '.join(known)}"


def _explain(detail: ErrorDetails, options: type[WorldOptions]) -> str:
    """Turn one pydantic error into a clause that names the option and the way out."""
    path = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        known = sorted(options.model_fields)
        near = difflib.get_close_matches(path, known, n=1)
        if near:
            return f"unknown option '{path}'; did you mean '{near[0]}'?"
        return f"unknown option '{path}'; valid options: {', '.join(known) or 'none'}"
    message = " ".join(detail["msg"].removeprefix("Value error, ").split())
    if not path:  # a validator of the whole model has named the options itself
        return message
    message = message[:1].lower() + message[1:]
    return f"'{path}': {message}" + ("" if detail["type"] == "missing" else f", got {detail['input']!r:.60}")
