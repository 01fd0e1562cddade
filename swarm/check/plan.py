"""What a file would do, and all that stands in its way."""

import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarm.commands.settings import FILES, sections_of
from swarm.config.document import read_document
from swarm.errors import SwarmError
from swarm.process.progress import duration
from worlds.protocol import WorldError

_CHECKS = {
    "experiment": "swarm.check.experiment:check_experiment",
    "train": "swarm.check.training:check_training",
    "lab": "swarm.check.lab:check_lab",
    "mqar": "swarm.check.lab:check_mqar",
    "eval": "swarm.check.lab:check_eval",
    "exact-match": "swarm.check.lab:check_exact_match",
}
_COMMANDS = {"experiment": "run", "exact-match": "data exact-match"}
"""What carries out a kind of file, where that is not its name."""


@dataclass(slots=True)
class Plan:
    """What a file would do.

    Attributes:
        command: what carries it out.
        lines: what there is to tell: what it is about, and what was found.
        missing: what stands in the way, each with what to do about it; the file would run where there is nothing.
    """

    command: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def tell(self, what: str, *details: str) -> None:
        """Add a line; empty details are left out."""
        self.lines.append((what, "; ".join(filter(None, details))))

    def lack(self, text: str) -> None:
        """Add what is missing, once."""
        if text not in self.missing:
            self.missing.append(text)

    @contextmanager
    def noting(self, prefix: str = "") -> Iterator[None]:
        """Note what the `with` block finds wrong, and go on after it."""
        try:
            yield
        except (SwarmError, WorldError, ValueError, OSError) as error:
            for line in str(error).splitlines():
                self.lack(f"{prefix}{line}")


def check_file(file: Path, overrides: Sequence[str] = ()) -> Plan:
    """Return what a file would do.

    Args:
        file: the YAML file.
        overrides: texts such as ``agents.count=4``.

    Raises:
        SwarmError: it cannot be read, or one line per mistake in it.
    """
    kind = kind_of(read_document(file, overrides).data)
    plan = Plan(_COMMANDS.get(kind, kind))
    pkgutil.resolve_name(_CHECKS[kind])(plan, file, list(overrides))
    return plan


def kind_of(data: Mapping[str, Any]) -> str:
    """Return which kind of file holds these keys: the one that knows most of them, an experiment where several do."""

    def known(kind: str) -> int:
        return max(sum(key in section.model_fields for key in data) for section in sections_of(kind))

    return max(FILES, key=known)


def size(num_bytes: float) -> str:
    """Return a number of bytes in words."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:.1f} {unit}"
    return f"{num_bytes:.0f} bytes"


def about(seconds: float | None, rests_on: str) -> str:
    """Return an estimate of a time with what it rests on."""
    return f"unknown: {rests_on}" if seconds is None else f"about {duration(seconds)}, {rests_on}"
