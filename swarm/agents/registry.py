"""`registry`: what agents note of texts, as entities with relations, of one agent or of the whole swarm.

- Claims are on record with the tick that they were noted in, so the journal gives the registry back: who is meant is
  decided when a record is folded, by weights that are fixed, and no model is asked. A record names the hash of the
  registry that its tick read; one that comes out otherwise on a replay ends it.
- Hosts and coordinators look up in the registry's file, which is not written while they do. A look-up is text that a
  model writes, and what it is answered follows there, as an inline answer; so the journal has both.
- A source that turns out to be forged is forgotten, as if nobody had read it, and what it still says is not noted. A
  `Change` says so.
- The null controls are laid over what is read; what was written stays as it was.
"""

from __future__ import annotations

import tempfile
import threading
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

from swarm.agents.memory import AgentMemory, Place
from swarm.backends.protocol import MemoryReader
from swarm.config.memory import SharedSection
from swarm.errors import SwarmError
from swarm.files import path_in
from swarm.messages import Handle
from swarm.record.change import Change
from swarm.record.records import EpisodeEnd, EvidenceEntry, Record, Tick, acted
from worlds.protocol import StepResult

if TYPE_CHECKING:
    from ulm.memory.registry import EntityRegistry

Control = Literal["none", "by_name", "by_text", "shuffled_values", "shuffled_subjects", "capacity_1", "no_reads"]


class RegistrySection(SharedSection):
    """The registry of entities."""

    kind: Literal["registry"] = "registry"
    """Its name."""

    inline = True

    conflicts: Literal["newest", "oldest"] = "newest"
    """Of two texts that contradict each other about the same time, which counts: the one that was noted last, or
    first. What is valid since later always goes before."""

    control: Control = "none"
    """Null controls: a name means all who have it (`by_name`), or somebody else in each text (`by_text`); look-ups give
    the values of others (`shuffled_values`), are about others (`shuffled_subjects`), know the last claim alone
    (`capacity_1`), or nothing (`no_reads`)."""

    start: str | None = None
    """File of a registry that each begins as a copy of: `swarm memory export RUN FILE.db` makes one of a run. The file
    stays as it is, and has to until the run is over."""

    def hashes(self, base: Path) -> Mapping[str, str]:
        """Return the hash of the registry that it begins with."""
        if self.start is None:
            return {}
        from ulm.memory.registry import EntityRegistry

        try:
            with closing(EntityRegistry(path_in(base, self.start), read_only=True)) as registry:
                return {self.start: registry.digest}
        except (ValueError, OSError) as error:
            raise SwarmError(f"agents.memory, start: {error}") from error

    def refuse(self, chats: bool) -> None:
        """Refuse chats, whose models write no look-ups."""
        if chats:
            raise ValueError("registry continues plain prompts; set engine.prompt: plain, or leave it out of `memory`")


_opened = threading.local()
"""Registries that a thread has opened for reading: SQLite's connections belong to a thread."""

MAX_OPEN = 64
"""Of them."""


def reading(handle: Handle, settings: RegistrySection) -> EntityRegistry:
    """Return a registry for reading.

    Raises:
        ValueError, OSError: it cannot be read.
    """
    from ulm.memory.registry import EntityRegistry

    known: dict[Any, EntityRegistry] = _opened.__dict__.setdefault("registries", {})
    content = handle.content
    which = (content, content.stat().st_ino) if isinstance(content, Path) else (handle.version, zlib.crc32(content))
    key = *which, settings.conflicts
    if key not in known:
        if len(known) >= MAX_OPEN:
            known.pop(next(iter(known))).close()
        if isinstance(content, Path):
            known[key] = EntityRegistry(content, read_only=True, conflicts=settings.conflicts)
        else:  # of another machine: all is in the file, so there is no write-ahead log to look for
            with tempfile.NamedTemporaryFile(suffix=".db") as file:
                file.write(content[:18] + b"\1\1" + content[20:])
                file.flush()
                known[key] = EntityRegistry(Path(file.name), read_only=True, conflicts=settings.conflicts)
    return known[key]


@dataclass(frozen=True, slots=True)
class Lookup:
    """Answers questions from a registry, in whatever process it is asked.

    Attributes:
        handle: where the registry is.
        settings: how it is read.
    """

    handle: Handle
    settings: RegistrySection

    def __call__(self, text: str, prompt: str = "") -> str | None:
        """Return what is known, without the space before it; None where the text asks nothing."""
        found = look_up(reading(self.handle, self.settings), self.settings.control, prompt, text)
        return None if found is None else found.strip()

    def packed(self) -> Lookup:
        """Return the same with the registry in it, for a process on another machine."""
        return replace(self, handle=self.handle.packed())


class RegistryReader(MemoryReader):
    """Answers the look-ups that a model writes."""

    settings: RegistrySection

    def open(self, handle: Handle) -> Mapping[str, Any]:
        """Return what answers a text: (prompt, text) -> what follows.

        Raises:
            ValueError, OSError: the registry cannot be read.
        """
        return {"inline": partial(look_up, reading(handle, self.settings), self.settings.control)}


def look_up(registry: EntityRegistry, control: Control, prompt: str, text: str) -> str | None:
    """Return what follows a text that ends in a look-up, under a null control; None where it does not end in one."""
    from ulm.memory.registry import UNKNOWN, answered, mentions_of

    hop = _hop(registry, control)
    found = answered(registry, text, mentions_of(prompt), hop)
    return f" {UNKNOWN}" if found is not None and control == "no_reads" else found


def _hop(registry: EntityRegistry, control: Control) -> Callable[[int, str], Sequence[int | str]] | None:
    """Return what stands in for the registry's look-ups under a null control."""
    if control == "capacity_1":
        last = registry.store.last()

        def only_the_last(entity: int, relation: str) -> Sequence[int | str]:
            if last is None or registry.store.relations().get(relation, (0,))[0] != last.relation:
                return []
            said = last.value if last.other is None else last.other
            return [said] if registry.representative(last.subject) == entity else []

        return only_the_last
    if control not in ("shuffled_values", "shuffled_subjects"):
        return None

    def of_another(entity: int, relation: str) -> Sequence[int | str]:
        """Return what the next one has: for values the next that has another one, for subjects whoever is next."""
        which = relation if control == "shuffled_values" else ""
        others = _of_type(registry, registry.revision, registry.type_of(entity), which)
        if entity not in others:
            return []
        at = others.index(entity)
        following = (registry.lookup(other, relation) for other in others[at + 1 :] + others[:at])
        if control == "shuffled_subjects":
            return next(following, [])
        own = registry.lookup(entity, relation)
        return next((values for values in following if values != own), [])

    return of_another


@lru_cache(maxsize=256)
def _of_type(registry: EntityRegistry, revision: int, entity_type: str, relation: str) -> list[int]:
    """Return the entities of a type that have a value of a relation; "" for any."""
    own = (entity for entity in registry if registry.type_of(entity) == entity_type)
    return [entity for entity in own if not relation or registry.lookup(entity, relation)]


class Registry(AgentMemory[RegistrySection]):
    """All registries of a run, by who may read them."""

    kind = "registry"
    Section = RegistrySection
    Reader = RegistryReader
    of_world = "claims"

    def __init__(self, settings: RegistrySection, place: Place) -> None:
        super().__init__(settings, place)
        self._registries: dict[str, EntityRegistry] = {}
        self._forged: dict[str, set[str]] = {}
        self._pending: dict[tuple[int, str, str], int] = {}  # (episode, home, source) to forget -> seq of the tick

    def registry(self, episode: int, agent: str) -> EntityRegistry:
        """Return the registry that an agent reads in an episode."""
        return self._registry(self.settings.home(episode, agent))

    def _registry(self, home: str) -> EntityRegistry:
        """Return a registry, empty where it is asked for the first time: what a killed run left behind goes."""
        from ulm.memory.registry import EntityRegistry, Identity, Relation

        if home not in self._registries:
            path = self._path(home)
            try:
                if path is not None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    _remove(path)
                controls = {"by_name": Identity.by_name, "by_text": Identity.by_text}
                identity = controls.get(self.settings.control, Identity.load)()
                made = EntityRegistry(path, conflicts=self.settings.conflicts, identity=identity)
                if self.settings.start is not None:
                    made.store.copy_from(path_in(self.place.base, self.settings.start))
                for name, flags in self.place.claims.items():
                    made.declare(Relation.of(name, flags))
            except (OSError, ValueError) as error:
                raise SwarmError(f"cannot keep a registry: {error}") from error
            made.store.fold_log()
            self._registries[home] = made
        return self._registries[home]

    def _path(self, home: str) -> Path | None:
        return None if self.place.folder is None else self.place.folder.absolute() / f"registry-{home}.db"

    def version(self, episode: int, agent: str) -> tuple[str, int] | None:
        """Return which registry the agent looks up in, and how often it has changed."""
        home = self.settings.home(episode, agent)
        return (home, self._registries[home].revision) if home in self._registries else None

    def handle(self, episode: int, agent: str) -> Handle | None:
        """Return the path of the registry that the agent looks up in."""
        home = self.settings.home(episode, agent)
        version, path = (home, self._registry(home).revision), self._path(home)
        return Handle(self.kind, version, b"" if path is None else path)

    def lookup(self, episode: int) -> Callable[[str], str | None] | None:
        """Return what answers the coordinator, where all agents have one registry."""
        if not self.settings.shared:
            return None
        if self.place.folder is None:
            registry = self._registry(self.settings.home(episode, ""))
            return lambda text: (look_up(registry, self.settings.control, "", text) or "").strip() or None
        handle = self.handle(episode, "")
        return None if handle is None else Lookup(handle, self.settings)

    def after_tick(self, record: Tick, result: StepResult, updates: Mapping[str, bytes]) -> dict[str, Any]:
        """Return what agents have noted, in agent order, what is forged, and the hash of what all that is added to."""
        claims, forged = list[list[Any]](), list[list[str]]()
        for entry in record["agents"]:
            agent = entry["agent"]
            info = result.infos[agent] if acted(entry) else {}
            claims += [[agent, *claim] for claim in info.get("claims", ())]
            forged += [[agent, source] for source in info.get("forged", ())]
        homes = dict.fromkeys(self.settings.home(record["episode"], row[0]) for row in claims + forged)
        if not homes:
            return {}
        before = {home: self._registry(home).digest for home in homes}
        return {"claims": claims, "forged": forged, "before": before}

    def fold(self, record: Record) -> None:
        """Commit what agents have noted, a change, and the end of an episode.

        Raises:
            SwarmError: the registry is not the one that was written to in play.
        """
        if record["kind"] == "tick":
            found: Mapping[str, Any] = record["memory"].get(self.kind, {})
            for home, digest in found.get("before", {}).items():
                self._refuse_other(home, digest, f"at tick {record['tick']} of episode {record['episode']}")
            self._commit(record, found)
        elif record["kind"] == "change" and record["memory"] == self.kind:
            home, source = record["settings"]["home"], record["settings"]["source"]
            self._refuse_other(home, record["parent"], f"before {source} was forgotten")
            self._registry(home).forget(source)
            self._refuse_other(home, record["result"], f"after {source} was forgotten")
            self._registry(home).store.fold_log()
            self._pending.pop((record["settings"]["episode"], home, source), None)
        elif record["kind"] == "episode_end" and self.settings.span == "episode":
            for home in self._homes(record["episode"]):
                self._registries.pop(home).close()
                self._forged.pop(home, None)

    def _refuse_other(self, home: str, digest: str, when: str) -> None:
        """Refuse a registry that is not the one that was there in play."""
        if self._registry(home).digest != digest:
            why = "by other code" if self.settings.start is None else f"by other code or {self.settings.start}"
            raise SwarmError(f"registry {home} is not what it was {when}; the journal was made {why}")

    def _commit(self, record: Tick, found: Mapping[str, Any]) -> None:
        from ulm.memory.registry import Claim

        noted: dict[str, list[Claim]] = {}
        for agent, *claim in found.get("claims", ()):
            noted.setdefault(agent, []).append(Claim(*claim))
        for agent, claims in noted.items():
            home = self.settings.home(record["episode"], agent)
            forged = self._forged.get(home, ())
            self._registry(home).note([one for one in claims if one.source not in forged], agent, record["tick"])
        for agent, source in found.get("forged", ()):
            home = self.settings.home(record["episode"], agent)
            if source not in self._forged.setdefault(home, set()):
                self._forged[home].add(source)
                self._pending[record["episode"], home, source] = record["seq"]
        for home in found.get("before", ()):
            self._registry(home).store.fold_log()  # hosts elsewhere are sent the bytes of the file alone

    def pending(self) -> Iterable[Change]:
        """Yield that sources are forgotten which turned out to be forged."""
        for (episode, home, source), seq in tuple(self._pending.items()):
            registry = self._registry(home)
            before, after = registry.digest, registry.without(source)
            if before == after:  # nothing of it was ever noted
                del self._pending[episode, home, source]
                continue
            agent = None if self.settings.shared else unquote(home.partition("-")[2])
            settings = {"episode": episode, "home": home, "source": source}
            evidence = EvidenceEntry(records=[seq, seq], digest="")
            note = f"{source} of episode {episode} is forged"
            yield Change(self.kind, agent, "forget", before, after, evidence, settings, note=note)

    def _homes(self, episode: int) -> list[str]:
        return [home for home in self._registries if home.partition("-")[0] == f"e{episode}"]

    def after_episode(self, ending: EpisodeEnd, live: Collection[int]) -> Iterable[Change]:
        """Remove the files of an episode that is over; the journal has all that was in them."""
        if self.settings.span == "episode":
            for home in self._homes(ending["episode"]):
                if (path := self._path(home)) is not None:
                    _remove(path)
        return ()


def _remove(path: Path) -> None:
    """Remove a file of SQLite, and what belongs to it."""
    for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
        with suppress(FileNotFoundError):
            name.unlink()
