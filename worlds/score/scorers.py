"""Where a scorer comes from and how it is asked: always in a child interpreter, by text, with limits.

A scorer is a function `score(text) -> float`, a higher number being better; it refuses a text by any exception, whose
message the agent reads. Beside it there may be `sample(seed) -> str`, a random text that can be scored. Owns the door
for those of packages (entry-point group `ulm_swarm.scorers`).
"""

import importlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from worlds.contained import Contained
from worlds.entry_points import Door, error_line
from worlds.files import read_once
from worlds.protocol import WorldError
from worlds.results import CallError
from worlds.trust import refuse_untrusted

DOOR = Door("ulm_swarm.scorers", "scorer", WorldError)
"""Where a package names its scorers: ``my-goal = "my_package.my_module:score"``."""

BUILT_IN = {"golomb": "worlds.score.golomb:score"}

LIMIT_S = 10.0
"""Of one text."""

MEMORY_MB = 2048
"""Address space of the child."""


@dataclass(frozen=True, slots=True)
class Scorer:
    """A scorer, wherever it runs.

    Attributes:
        place: "package.module:function", or the path of a file that defines `score`.
        source: the text of that file; None for a function of an installed package.
    """

    place: str
    source: str | None = None

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return self.place if self.source is None else Path(self.place).name

    def load(self) -> None:
        """Load it.

        Raises:
            WorldError: it cannot be loaded, or is no function.
        """
        try:
            self._ask("load", None)
        except CallError as error:
            raise WorldError(f"scorer {self.name} {error}") from error

    def score(self, text: str) -> tuple[float | None, str]:
        """Return the score of a text and an empty line, or None and why it was refused.

        Raises:
            CallError: it took too long, or ended its process.
        """
        score, problem = self._ask("score", text)
        return score, problem

    def sample(self, seed: int) -> str | None:
        """Return a random text that can be scored, None where the scorer knows none.

        Raises:
            CallError: it raised, took too long, or ended its process.
        """
        found = self._ask("sample", seed)
        return None if found is None else str(found)

    def _ask(self, what: str, argument: Any) -> Any:
        return json.loads(_child()((self.place, self.source, what, argument), LIMIT_S))


def find_scorer(name: str, file: Path | None) -> Scorer:
    """Return a scorer by its name, or the one that a file defines.

    Raises:
        WorldError: there is none of this name, or code that nobody has trusted.
    """
    if file is not None:
        refuse_untrusted(file)
        return read_once(_of_file, file)
    places = {entry.value for entry in DOOR.entries() if entry.name == name}
    if name in BUILT_IN:
        places = {BUILT_IN[name]}
    if len(places) > 1:
        raise WorldError(f"scorer {name!r} is claimed by {' and '.join(sorted(places))}: uninstall all but one")
    if not places:
        known = ", ".join(sorted({*BUILT_IN, *DOOR.names()}))
        raise WorldError(f"no scorer {name!r:.60}; there are {known}. One of your own: `file: my_goal.py`")
    return Scorer(places.pop())


def _of_file(path: Path, text: str) -> Scorer:
    return Scorer(str(path), text)


@cache
def _child() -> Contained:
    """Return the child that all scorers of this process share."""
    return Contained(f"{__name__}:answer", MEMORY_MB)


# In the child.


def answer(place: str, source: str | None, what: str, argument: Any) -> Any:
    """Answer one call of a `Scorer`."""
    score, module = _load(place, source)
    if what == "load":
        return None
    if what == "sample":
        sample = getattr(module, "sample", None)
        return None if sample is None else sample(argument)
    try:
        found = float(score(argument))
    except Exception as error:  # whatever an agent wrote, it has to be told and not to stop the run
        return None, error_line(error).removeprefix("ValueError: ")
    return (found, "") if math.isfinite(found) else (None, f"the score is {found}")


@cache
def _load(place: str, source: str | None) -> tuple[Callable[[str], float], ModuleType]:
    """Return the function and its module.

    Raises:
        TypeError: there is no such function.
    """
    if source is None:
        path, _, name = place.partition(":")
        module = importlib.import_module(path)
    else:
        name, module = "score", ModuleType(Path(place).stem)
        module.__file__ = place
        exec(compile(source, place, "exec"), module.__dict__)  # noqa: S102 - a person has trusted it, see `find_scorer`
    score = getattr(module, name, None)
    if not callable(score):
        raise TypeError(f"it defines no function `{name}`")
    return score, module
