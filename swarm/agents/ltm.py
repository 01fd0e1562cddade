"""`ltm`: the long-term memory of a model that was trained with one, each agent's own.

Its state is what the model wrote, so the journal cannot give it back: the bytes of all agents are on disk before the
record of their tick is (`swarm.agents.ltm_files`).
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal

from swarm.agents.ltm_files import MemoryStore
from swarm.agents.memory import AgentMemory, Place
from swarm.backends.protocol import MemoryReader
from swarm.config.memory import KeptSection
from swarm.messages import Handle
from swarm.record.change import Change
from swarm.record.records import EpisodeEnd, Record, Tick, acted
from worlds.protocol import StepResult


class LtmSection(KeptSection):
    """The long-term memory; how it works is settled when its model is trained."""

    kind: Literal["ltm"] = "ltm"
    """Its name."""


class LtmReader(MemoryReader):
    """Opens a memory as `ulm.memory.LTMState`, one row."""

    def open(self, handle: Handle) -> Mapping[str, Any]:
        """Return the state that the call begins with."""
        from ulm.memory import LTMState

        model = self.engine.model
        if model.config.ltm is None:
            raise ValueError("the model has no long-term memory")
        return {"memory": LTMState.from_bytes(bytes(handle.packed().content), model.config.ltm, model.device)}

    def update(self, result: Any) -> bytes | None:
        """Return the state after prompt and answer."""
        return None if result.memory is None else bytes(result.memory.to_bytes())


class LongTermMemory(AgentMemory[LtmSection]):
    """What agents remember, as the hosts wrote it."""

    kind = "ltm"
    Section = LtmSection
    Reader = LtmReader
    part = "ltm"

    def __init__(self, settings: LtmSection, place: Place) -> None:
        super().__init__(settings, place)
        self._store = None if place.folder is None else MemoryStore(place.folder, place.durability)
        self._held: dict[str, dict[str, bytes]] = {}
        self._calls: dict[str, Counter[str]] = {}
        self._last: dict[str, tuple[int, int]] = {}

    def _home(self, episode: int) -> str:
        return "run" if self.settings.span == "run" else f"e{episode}"

    def version(self, episode: int, agent: str) -> tuple[str, int] | None:
        """Return the agent's memory and how many calls wrote it."""
        home = self._home(episode)
        calls = self._calls.get(home, Counter())[agent]
        return (f"{home}/{agent}", calls) if calls else None

    def handle(self, episode: int, agent: str) -> Handle | None:
        """Return the agent's memory as bytes."""
        data = self._held.get(self._home(episode), {}).get(agent)
        version = self.version(episode, agent)
        return None if data is None or version is None else Handle(self.kind, version, data)

    def after_tick(self, record: Tick, result: StepResult, updates: Mapping[str, bytes]) -> dict[str, Any]:
        """Keep what the hosts wrote; the last bits of floats depend on the machine and stay out of the record."""
        self._held.setdefault(self._home(record["episode"]), {}).update(updates)
        return {}

    def fold(self, record: Record) -> None:
        """Count the calls that wrote; forget an episode that is over, unless memories last the whole run.

        What an agent remembers was written by the weights that it had: it is empty once its delta has changed.
        """
        if record["kind"] == "tick":
            home = self._home(record["episode"])
            self._last[home] = record["episode"], record["tick"]
            answered = [entry["agent"] for entry in record["agents"] if acted(entry)]
            self._calls.setdefault(home, Counter()).update(answered)
        elif record["kind"] == "episode_end" and self.settings.span == "episode":
            for kept in (self._held, self._calls, self._last):
                kept.pop(self._home(record["episode"]), None)
        elif record["kind"] == "change" and record["memory"] == "delta" and record["accepted"]:
            for calls in self._calls.values():  # what no call has written is not handed out
                for agent in list(calls) if record["agent"] is None else [record["agent"]]:
                    calls.pop(agent, None)

    def save(self, episode: int, tick: int) -> None:
        """Write what all agents of the episode remember."""
        if self._store is not None:
            self._store.save(episode, tick, self._held.get(self._home(episode), {}))

    def load(self) -> None:
        """Read what agents remembered after the last record."""
        if self._store is not None:
            self._held = {home: self._store.load(*last) for home, last in self._last.items()}

    def after_episode(self, ending: EpisodeEnd, live: Collection[int]) -> Iterable[Change]:
        """Remove files that nobody needs any more."""
        if self._store is not None:
            self._store.end_episode(ending["episode"], live)
        return ()
