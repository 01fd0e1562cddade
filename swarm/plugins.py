"""Finds what other packages add: a name becomes a class, and a broken package becomes one line.

A name is one of ours, or one that a package declares in an entry-point group. What is not asked for is not imported.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from swarm.errors import SwarmError

__all__ = ["Registry"]


@dataclass(frozen=True, slots=True)
class Registry:
    """The classes of one kind of thing, by name.

    Attributes:
        what: the kind of thing, for messages: `coordinator`.
        group: entry-point group in which a package names its own: ``name = "package.module:Class"``.
        base: what they all derive from, as "module:Class".
        built_in: the names of our own, as "module:Class".
    """

    what: str
    group: str
    base: str
    built_in: Mapping[str, str]

    def names(self) -> list[str]:
        """Return all known names, ours first; loads none of them."""
        return list(dict.fromkeys([*self.built_in, *sorted(entry.name for entry in self._entries())]))

    def find(self, name: str) -> type[Any]:
        """Return the class with this name.

        Raises:
            SwarmError: there is none (the line gives the nearest name), or the package that brings it is broken.
        """
        if name in self.built_in:
            return _imported(self.built_in[name])
        entries = [entry for entry in self._entries() if entry.name == name]
        if len(entries) > 1:
            packages = " and ".join(sorted(map(_package, entries)))
            raise SwarmError(f"{self.what} {name!r} is claimed by {packages}: uninstall all but one")
        if not entries:
            names = self.names()
            near = difflib.get_close_matches(name.lower(), names, n=1)
            hint = f"did you mean '{near[0]}'? " if near else ""
            raise SwarmError(f"no {self.what} {name!r:.60}; {hint}There are {', '.join(names)}")
        return self._load(entries[0])

    def _entries(self) -> list[EntryPoint]:
        return list(entry_points(group=self.group))

    def _load(self, entry: EntryPoint) -> type[Any]:
        source = f"{self.what} {entry.name!r} comes from the package {_package(entry)} ({entry.value})"
        try:
            found = entry.load()
        except Exception as error:  # a foreign package may fail in any way, and the user needs its name
            text = " ".join(f"{type(error).__name__}: {error}".split())
            raise SwarmError(f"{source}, which failed to load: {text}; fix or uninstall it") from error
        base = _imported(self.base)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise SwarmError(f"{source}, which is not a subclass of {self.base.replace(':', '.')}; fix or uninstall it")
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            raise SwarmError(f"{source}, which lacks {', '.join(missing)}; fix or uninstall it")
        return found


def _imported(place: str) -> type[Any]:
    module, _, name = place.partition(":")
    found: type[Any] = getattr(importlib.import_module(module), name)
    return found


def _package(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
