"""The doors through which packages of other people bring their things, and one style for what can be wrong with one.

Every error line names the package, what is missing, and what to do. Nothing is imported before it is asked for.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from operator import attrgetter
from typing import Any


@dataclass(frozen=True, slots=True)
class Door:
    """A group of entry points: all that packages bring of one kind.

    Attributes:
        group: its name in packages, such as ``ulm_swarm.worlds``; an entry is ``name = "package.module:Class"``.
        noun: what comes through, for messages.
        error: what is raised.
    """

    group: str
    noun: str
    error: type[Exception]

    def names(self) -> list[str]:
        """Return the names of all that is offered, sorted; loads none of it."""
        return sorted({entry.name for entry in self.entries()})

    def entries(self) -> list[EntryPoint]:
        """Return what installed packages declare."""
        return list(entry_points(group=self.group))

    def load(self, name: str, base: type | None = None) -> Any:
        """Return what a package offers under a name; None when no package does.

        Args:
            name: the entry's.
            base: what it has to be a subclass of.

        Raises:
            Exception: of the type `error`: two packages offer the name, or the one that does is broken.
        """
        entries = [entry for entry in self.entries() if entry.name == name]
        if not entries:
            return None
        if len(entries) > 1:
            packages = sorted(map(_package, entries))
            raise self.error(f"{self.noun} {name!r} is claimed by {' and '.join(packages)}: uninstall all but one")
        source = self.source(name)
        found = load(entries[0].value, f"{source}, which", self.error)
        if base is not None and not (isinstance(found, type) and issubclass(found, base)):
            raise self.error(
                f"{source}, which is not a subclass of {base.__module__}.{base.__qualname__}; fix or uninstall it"
            )
        return found

    def source(self, name: str) -> str:
        """Return the beginning of a line about what is offered under a name: where it comes from."""
        entry = next((entry for entry in self.entries() if entry.name == name), None)
        where = f" comes from the package {_package(entry)} ({entry.value})" if entry else ""
        return f"{self.noun} {name!r}{where}"


def load(path: str, clause: str, error: type[Exception]) -> Any:
    """Return what ``"package.module:Name"`` names.

    Args:
        path: what to import.
        clause: how an error's line begins: ``world 'maze-v0' comes from the package maze 1.0 (maze:Maze), which``.
        error: the type to raise.

    Raises:
        Exception: of the type `error`: the module cannot be imported, or has no such name.
    """
    module_name, colon, name = path.partition(":") if isinstance(path, str) else ("", "", "")
    if not (module_name and colon and name):
        raise error(f"{clause} names nothing; write 'package.module:Name'")
    try:
        return attrgetter(name)(importlib.import_module(module_name))
    except (Exception, SystemExit) as problem:  # a foreign package may fail in any way, and the user needs its name
        raise error(f"{clause} failed to load: {error_line(problem)}; fix or uninstall it") from problem


def instance(path: str, needed: Sequence[str], clause: str, error: type[Exception]) -> Any:
    """Return an object of the class that ``"package.module:Class"`` names, made without arguments.

    Args:
        path: what to import.
        needed: the attributes and methods that the class has to have.
        clause: as for `load`: ``world 'maze-v0' comes from the package maze 1.0 (maze:Maze), whose playbook X``.
        error: the type to raise.

    Raises:
        Exception: of the type `error`: it cannot be loaded, is no class, cannot be made, or lacks something.
    """
    cls = load(path, clause, error)
    if not isinstance(cls, type):
        raise error(f"{clause} is no class; fix or uninstall it")
    try:
        found = cls()
    except (Exception, SystemExit) as problem:
        raise error(f"{clause} cannot be made: {error_line(problem)}; fix or uninstall it") from problem
    if missing := [part for part in needed if not hasattr(found, part)]:
        raise error(f"{clause} lacks {', '.join(missing)}; fix or uninstall it")
    return found


def error_line(problem: BaseException) -> str:
    """Return what an error says, in one line that can be printed; total, for it may be anybody's class."""
    name = type(problem).__name__
    try:
        line = " ".join(f"{name}: {problem}".split())[:300]
    except Exception:
        return name
    return "".join(char if char.isprintable() else "·" for char in line)


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
