"""`facts`: the exact memory, what the world vouches for, of one agent or of the whole swarm.

- Facts are on record with the tick that they were learned in, so the journal gives all of them back. They are read
  from the next tick on. The first to say something stays right: a key that is known keeps its action.
- Hosts read them from an append-only file, which follows from the journal and is written anew by a resumed run: a
  call carries its path and how many lines of it count, and a reader follows line by line. Nothing has to be durable,
  so a tick costs one short write and no transaction.
- The null controls are laid over the facts when they are read; what was written stays as it was.
"""

from __future__ import annotations

import io
import json
from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from swarm.agents.memory import AgentMemory, Place
from swarm.backends.protocol import MemoryReader
from swarm.config.memory import SharedSection
from swarm.errors import SwarmError
from swarm.messages import Handle
from swarm.prompt import STOP, agent_prompt
from swarm.record.change import Change
from swarm.record.records import EpisodeEnd, Record, Tick, acted
from worlds.protocol import StepResult

if TYPE_CHECKING:
    from ulm.decode.engine import Engine
    from ulm.memory.exact import ExactIndex

MAX_OPEN = 256
"""Indices that a host keeps ready: of so many agents, or episodes in flight."""

_Fact = tuple[str, str]


class FactsSection(SharedSection):
    """The exact memory."""

    kind: Literal["facts"] = "facts"
    """Its name."""

    control: Literal["none", "shuffled", "capacity_1"] = "none"
    """Null controls: `shuffled` gives each key another key's action, `capacity_1` keeps the last fact alone."""

    def refuse(self, chats: bool) -> None:
        """Refuse chats, which end in marks that no key has."""
        if chats:
            raise ValueError("facts continue plain prompts; set engine.prompt: plain, or leave facts out of `memory`")


@dataclass(slots=True)
class _Open:
    """An index and how much of its file it has read."""

    index: ExactIndex
    count: int = 0
    offset: int = 0


class FactsReader(MemoryReader):
    """Opens facts as `ulm.memory.exact.ExactIndex`; one that has only grown is extended."""

    settings: FactsSection

    def __init__(self, settings: FactsSection, engine: Engine) -> None:
        super().__init__(settings, engine)
        self._open: OrderedDict[str, _Open] = OrderedDict()

    def open(self, handle: Handle) -> Mapping[str, Any]:
        """Return the index of all facts of this version.

        Raises:
            ValueError: the file has fewer.
            OSError: it cannot be read.
        """
        from ulm.memory.exact import ExactIndex
        from ulm.tokenizer import encode_after

        name, wanted = handle.version
        known = self._open.pop(name, None)
        if known is None or known.count > wanted or self.settings.control != "none":
            known = _Open(ExactIndex())
        facts, known.offset = _read(handle, known.offset, wanted - known.count)
        for key, action in _controlled(facts, self.settings.control):
            known.index.add(*encode_after(self.engine.tokenizer.encode, key, action))
        known.count = wanted
        self._open[name] = known
        if len(self._open) > MAX_OPEN:
            self._open.popitem(last=False)
        return {"facts": known.index}


def _read(handle: Handle, offset: int, count: int) -> tuple[list[_Fact], int]:
    """Return so many facts from a place of the file on, and the place after them."""
    content = handle.content
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        file.seek(offset)
        lines = list(islice(file, count))
        offset = file.tell()
    if len(lines) < count:
        raise ValueError(f"facts {handle.version[0]}: {count - len(lines)} of {handle.version[1]} are missing")
    return [(key, action) for key, action in map(json.loads, lines)], offset


def _controlled(facts: Sequence[_Fact], control: str) -> Sequence[_Fact]:
    if control == "capacity_1":
        return facts[-1:]
    if control == "shuffled":
        actions = [action for _, action in facts]
        return [(key, action) for (key, _), action in zip(facts, actions[1:] + actions[:1], strict=True)]
    return facts


class Facts(AgentMemory[FactsSection]):
    """All facts of a run, by who may read them."""

    kind = "facts"
    Section = FactsSection
    Reader = FactsReader
    of_world = "states_facts"

    def __init__(self, settings: FactsSection, place: Place) -> None:
        super().__init__(settings, place)
        self._known: dict[str, dict[str, str]] = {}
        self._unwritten: dict[str, list[_Fact]] = {}

    def version(self, episode: int, agent: str) -> tuple[str, int] | None:
        """Return whose facts the agent can recall and how many there are."""
        home = self.settings.home(episode, agent)
        return (home, len(known)) if (known := self._known.get(home)) else None

    def handle(self, episode: int, agent: str) -> Handle | None:
        """Return what the agent can recall: the path of a file, and how many of its lines count."""
        version = self.version(episode, agent)
        if version is None:
            return None
        if self.place.folder is None:
            return Handle(self.kind, version, b"")
        home, count = version
        path = self._path(self.place.folder, home)
        if lacking := self._unwritten.pop(home, None):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                # What a killed run left behind goes.
                with path.open("ab" if len(lacking) < count else "wb") as file:
                    file.write("".join(f"{json.dumps(fact)}\n" for fact in lacking).encode())
            except OSError as error:
                raise SwarmError(f"cannot write {path}: {error.strerror}; check space and write permission") from error
        return Handle(self.kind, version, path)

    def _path(self, folder: Path, home: str) -> Path:
        return folder.absolute() / f"facts-{home}.jsonl"

    def after_tick(self, record: Tick, result: StepResult, updates: Mapping[str, bytes]) -> dict[str, Any]:
        """Return the facts that agents have learned, in agent order: (agent, observation, action)."""
        learned = [
            [entry["agent"], observation, action]
            for entry in record["agents"]
            if acted(entry)
            for observation, action in result.infos[entry["agent"]].get("facts", ())
        ]
        return {"learned": learned} if learned else {}

    def fold(self, record: Record) -> None:
        """Take in what a tick has taught; forget an episode that is over, unless facts last the whole run."""
        if record["kind"] == "tick":
            for agent, observation, action in record["memory"].get(self.kind, {}).get("learned", ()):
                home, key = self.settings.home(record["episode"], agent), agent_prompt(observation)
                known = self._known.setdefault(home, {})
                if key not in known:
                    known[key] = action + STOP
                    self._unwritten.setdefault(home, []).append((key, known[key]))
        elif record["kind"] == "episode_end" and self.settings.span == "episode":
            for home in self._homes(record["episode"]):
                del self._known[home]
                self._unwritten.pop(home, None)

    def _homes(self, episode: int) -> list[str]:
        return [home for home in self._known if home.partition("-")[0] == f"e{episode}"]

    def after_episode(self, ending: EpisodeEnd, live: Collection[int]) -> Iterable[Change]:
        """Remove the files of an episode that is over; the journal has all that was in them."""
        if self.settings.span == "episode" and self.place.folder is not None:
            for home in self._homes(ending["episode"]):
                self._path(self.place.folder, home).unlink(missing_ok=True)
        return ()
