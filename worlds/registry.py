"""Which worlds there are: from a versioned id to a world that is ready to reset.

Owns the ids of the built-in worlds, the entry-point group through which other packages add theirs, and the
one-line errors for a wrong id, a wrong option, and a playbook or lessons that are not what the world says. It imports
a world's modules only when they are asked for, and refuses to know what any world is about.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from worlds.checked import CheckedLessons, CheckedPlaybook
from worlds.entry_points import Door, error_line, instance, load
from worlds.protocol import Lessons, Playbook, World, WorldError, WorldOptions
from worlds.results import LIMIT_S, CallError, clause, within

DOOR = Door("ulm_swarm.worlds", "world", WorldError)
"""Where a package names its worlds: ``my-world-v0 = "my_package.my_world:MyWorld"``."""

_BUILT_IN = {
    "archive-v0": "worlds.archive.world:ArchiveWorld",
    "codebook-v0": "worlds.codebook.world:CodebookWorld",
    "echo-v0": "worlds.echo.world:EchoWorld",
    "facts-v0": "worlds.facts.world:FactsWorld",
    "graph-v0": "worlds.graph.world:GraphWorld",
    "numbers-v0": "worlds.numbers.world:NumbersWorld",
    "score-v0": "worlds.score.world:ScoreWorld",
    "signal-v0": "worlds.signal.world:SignalWorld",
    "split-numbers-v0": "worlds.split_numbers.world:SplitNumbersWorld",
    "vault-v0": "worlds.vault.world:VaultWorld",
}
VERSIONED = re.compile(r"([a-z0-9]+(?:-[a-z0-9]+)*)-v([0-9]+)")
_registered: dict[str, type[World]] = {}


def available() -> list[str]:
    """Return the ids of all known worlds, sorted; loads none of them."""
    return sorted({*_BUILT_IN, *_registered, *DOOR.names()})


def register(cls: type[World]) -> type[World]:
    """Add a world class of this process under its own id; usable as a decorator.

    Worker processes do not see it: a package whose worlds run on Ray declares an entry point instead.

    Raises:
        WorldError: the class is no `World`, its id has no version, or another class holds the id.
    """
    if not (isinstance(cls, type) and issubclass(cls, World)):
        raise WorldError(f"{cls!r} is not a world: derive it from worlds.World")
    world_id = getattr(cls, "id", None)
    if not isinstance(world_id, str) or not VERSIONED.fullmatch(world_id):
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
    cls: type[World] | None = (
        load(_BUILT_IN[world_id], f"world {world_id!r}", WorldError)
        if world_id in _BUILT_IN
        else _registered.get(world_id) or DOOR.load(world_id, World)
    )
    if cls is None:
        raise WorldError(_not_found(str(world_id)))
    if (has := getattr(cls, "id", None)) != world_id:
        raise WorldError(f"{DOOR.source(world_id)}, whose class has the id {has!r}; make the two equal")
    return cls


def load_playbook(world: str | type[World], **settings: Any) -> Playbook | None:
    """Return a new playbook of a world, with checked answers; None where the world brings none.

    Args:
        world: its id or its class.
        settings: attributes of the playbook to set, `menu` and `answers`.

    Raises:
        WorldError: no such world, or its playbook is broken.
    """
    members = ("directive", "about", "menu", "rules", "briefings", "parse", "declined")
    book: Playbook | None = _part(world, "playbook", members)
    if book is None:
        return None
    for name, value in settings.items():
        setattr(book, name, value)
    return CheckedPlaybook(_id(world), book)


def load_lessons(world: str | type[World]) -> Lessons | None:
    """Return the lessons of a world, given by its id or its class, with checked answers; None where it brings none.

    Raises:
        WorldError: no such world, or its lessons are broken.
    """
    lessons: Lessons | None = _part(world, "lessons", ("tasks", "practice", "example", "corpus", "judge"))
    return None if lessons is None else CheckedLessons(_id(world), lessons)


def _id(world: str | type[World]) -> str:
    return world if isinstance(world, str) else str(getattr(world, "id", world.__name__))


def _part(world: str | type[World], name: str, needed: Sequence[str]) -> Any:
    """Return an object of the class that a world names as its playbook or lessons."""
    cls = world_class(world) if isinstance(world, str) else world
    path = getattr(cls, name, None)
    if path is None:
        return None
    whose = f"{_source(cls)}, whose {name} {path}"
    part = instance(path, needed, whose, WorldError)
    if name == "lessons" and not (isinstance(part.tasks, Mapping) and part.tasks):
        raise WorldError(f"{whose} have no tasks; name one, or set lessons = None")
    return part


def _source(cls: type[World]) -> str:
    if cls.id in DOOR.names():
        return DOOR.source(cls.id)
    return f"world {cls.id!r}" if cls.id in _BUILT_IN else f"world {cls.id!r} ({cls.__module__}:{cls.__qualname__})"


def make(world_id: str, num_agents: int, options: Mapping[str, Any] | None = None) -> World:
    """Build a world from its id and the options of an experiment file.

    Args:
        world_id: versioned id, see `available`.
        num_agents: how many agents act in it.
        options: the world's own options; None means all defaults.

    Raises:
        WorldError: unknown id, an option that is misspelt, of the wrong type or out of range, or a class that fails.
    """
    return build(world_class(world_id), num_agents, options)


def build(cls: type[World], num_agents: int, options: Mapping[str, Any] | None = None) -> World:
    """Build a world from its class; arguments and errors otherwise as of `make`."""
    try:
        return within(LIMIT_S, lambda: cls(num_agents, cls.Options.model_validate({} if options is None else options)))
    except ValidationError as error:
        problems = "; ".join(_explain(detail, cls.Options) for detail in error.errors())
        raise WorldError(f"options of {cls.id}: {problems}") from None
    except WorldError:
        raise
    except CallError as error:
        raise WorldError(f"{_source(cls)} cannot be made: its constructor {error}") from error
    except (Exception, SystemExit) as error:  # it may be anybody's code
        raise WorldError(f"{_source(cls)} cannot be made: {error_line(error)}") from error


def _not_found(world_id: str) -> str:
    known = available()
    name = re.sub(r"-v[0-9]+$", "", world_id)
    if versions := [other for other in known if other.rpartition("-v")[0] == name]:
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
        hint = f"did you mean '{near[0]}'?" if near else f"valid options: {', '.join(known) or 'none'}"
        return f"unknown option '{path}'; {hint}"
    if not path:  # it is about all options, and names those that matter
        return " ".join(detail["msg"].removeprefix("Value error, ").split())
    return clause(path, detail)
