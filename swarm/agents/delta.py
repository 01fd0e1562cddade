"""`delta`: what agents have learned beside the weights that all share, one file for each version.

Which delta an agent has follows from the `Change` records of the journal alone; the file of a delta is on disk, under
its sha256, before the record that names it is. `swarm.learn` makes deltas; this kind of memory only hands them out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from swarm.agents.memory import AgentMemory, Place
from swarm.backends.protocol import MemoryReader
from swarm.config.memory import MemorySection
from swarm.errors import SwarmError
from swarm.messages import Handle
from swarm.record.records import Record

if TYPE_CHECKING:
    from ulm.decode.engine import Engine
    from ulm.delta import Delta

MAX_OPEN = 512
"""Deltas that a host keeps ready."""

KIND = "delta"

KEPT = 2
"""Newest deltas of each agent whose files stay between rounds; older ones can be computed anew from the journal."""


class DeltaSection(MemorySection):
    """What an agent has learned; how it learns is said in `learning`."""

    kind: Literal["delta"] = "delta"
    """Its name."""


class DeltaReader(MemoryReader):
    """Opens deltas as `ulm.delta.Delta`; a version is read once."""

    def __init__(self, settings: DeltaSection, engine: Engine) -> None:
        super().__init__(settings, engine)
        self._open: OrderedDict[str, Delta] = OrderedDict()

    def open(self, handle: Handle) -> Mapping[str, Any]:
        """Return the delta of this version.

        Raises:
            ValueError: it is damaged, or belongs to another model.
            OSError: it cannot be read.
        """
        from ulm.delta import Delta

        name = handle.version[0]
        found = self._open.pop(name, None)
        if found is None:
            found = Delta.from_bytes(bytes(handle.packed().content))
            found.refuse_other(self.engine.model)
            if found.sha256 != name:
                raise ValueError(f"the file of delta {name[:12]} holds another one")
        self._open[name] = found
        if len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)
        return {"delta": found}


def delta_path(folder: Path, sha256: str) -> Path:
    """Return the file of a delta in a run's folder of memories."""
    return folder.absolute() / "deltas" / f"{sha256}.safetensors"


def prune(folder: Path, needed: Collection[str]) -> tuple[int, int]:
    """Remove the files of deltas that are not needed from a run's folder of memories; return how many, and their bytes.

    Raises:
        SwarmError: the disk refuses.
    """
    files = bytes_freed = 0
    try:
        for path in sorted(delta_path(folder, "x").parent.glob("*.safetensors")):
            if path.stem not in needed:
                bytes_freed += path.stat().st_size
                path.unlink()
                files += 1
    except OSError as error:
        raise SwarmError(f"cannot remove {error.filename}: {error.strerror}") from error
    return files, bytes_freed


class Deltas(AgentMemory[DeltaSection]):
    """Which delta each agent has now.

    Attributes:
        versions: agent -> the deltas that were accepted and not undone, oldest first; None is the team.
    """

    kind = KIND
    Section = DeltaSection
    Reader = DeltaReader

    def __init__(self, settings: DeltaSection, place: Place) -> None:
        super().__init__(settings, place)
        self.versions: dict[str | None, list[str]] = {}

    def of(self, agent: str | None) -> str:
        """Return the sha256 of what an agent has learned, "" for nothing; a team's where it has none of its own."""
        held = self.versions.get(agent, self.versions.get(None, []))
        return held[-1] if held else ""

    def newest(self, count: int = KEPT) -> set[str]:
        """Return the last deltas of each agent: their files stay, so that a step can be undone."""
        return {name for held in self.versions.values() for name in held[-count:] if name}

    def version(self, episode: int, agent: str) -> tuple[str, int] | None:
        """Return the sha256 of the agent's delta; a version never changes."""
        return (found, 0) if (found := self.of(agent)) else None

    def handle(self, episode: int, agent: str) -> Handle | None:
        """Return the file of the agent's delta."""
        version = self.version(episode, agent)
        if version is None:
            return None
        folder = self.place.folder
        return Handle(self.kind, version, b"" if folder is None else delta_path(folder, version[0]))

    def fold(self, record: Record) -> None:
        """Take in what was learned and accepted, or undone."""
        if record["kind"] != "change" or record["memory"] != self.kind or not record["accepted"]:
            return
        held = self.versions.setdefault(record["agent"], [])
        if record["cause"] == "undo":
            while held and held[-1] != record["result"]:
                held.pop()
        else:
            held.append(record["result"])
