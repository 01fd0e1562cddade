"""Finds what other packages add: a name becomes a class, and a broken package becomes one line.

A name is one of ours, or one that a package declares in an entry-point group. What is not asked for is not imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from swarm.errors import SwarmError, did_you_mean
from worlds.entry_points import Door, load


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

    @property
    def door(self) -> Door:
        """Where packages name theirs."""
        return Door(self.group, self.what, SwarmError)

    def names(self) -> list[str]:
        """Return all known names, ours first; loads none of them."""
        return list(dict.fromkeys([*self.built_in, *self.door.names()]))

    def find(self, name: str) -> type[Any]:
        """Return the class with this name.

        Raises:
            SwarmError: there is none (the line gives the nearest name), or the package that brings it is broken.
        """
        if name in self.built_in:
            return self._ours(self.built_in[name])
        found: type[Any] | None = self.door.load(name, self._ours(self.base))
        if found is None:
            names = self.names()
            raise SwarmError(
                f"no {self.what} {name!r:.60}{did_you_mean(name, names, ';')} There are {', '.join(names)}"
            )
        if missing := sorted(getattr(found, "__abstractmethods__", ())):
            raise SwarmError(f"{self.door.source(name)}, which lacks {', '.join(missing)}; fix or uninstall it")
        return found

    def _ours(self, place: str) -> type[Any]:
        found: type[Any] = load(place, f"{self.what} {place}", SwarmError)
        return found
