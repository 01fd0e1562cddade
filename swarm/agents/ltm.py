"""`ltm`: the long-term memory of a model that was trained with one, each agent's own.

Its state is what the model wrote, so the journal cannot give it back: the bytes of all agents are on disk before the
record of their tick is (`swarm.agents.ltm_files`). Where it is to be written anew once its agent has learned, the texts
that it was written from stand beside it.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from functools import cached_property
from hashlib import sha256
from typing import Any, Literal

from pydantic import Field, model_validator

from swarm.agents.consolidation import NO_SLOTS, Consolidation, rules_of, with_policy
from swarm.agents.ltm_files import MemoryStore
from swarm.agents.memory import AgentMemory, Place
from swarm.backends.protocol import MemoryReader, ReadAgain
from swarm.config.memory import KeptSection
from swarm.config.section import refuse_where
from swarm.errors import SwarmError
from swarm.messages import Handle
from swarm.record.change import Change
from swarm.record.records import ChangeRecord, EpisodeEnd, Record, Tick, acted
from worlds.protocol import StepResult

TEXTS = "/texts"
"""Follows the name of an agent, or of its memory, where texts stand for what they are written as."""

BEFORE = "/before"
"""Follows the name of an agent where its memory stands as it was before its last consolidation."""

KEPT_TEXTS = 64
"""Calls whose texts are kept for `re-embed`, the last ones."""


class LtmSection(KeptSection):
    """The long-term memory; how it works is settled when its model is trained, but for `policy` and `consolidate`."""

    kind: Literal["ltm"] = "ltm"
    """Its name."""

    on_change: Literal["empty", "re-embed"] = "empty"
    """What becomes of it when its agent's delta changes: it is emptied, or what the agent read and said in its last 64
    calls is read again by the new weights (`re-embed`); those tokens are charged to its next call."""

    policy: dict[str, Any] = Field(default_factory=dict)
    """Rules of writing and forgetting that differ from the model's: fields of `ulm.config.LTMConfig`, such as
    `capacity`, `slots` and `overwrite`."""

    consolidate: dict[str, Any] | None = None
    """Consolidate it when it is nearly full, so that not just the oldest items go: fields of
    `ulm.memory.consolidation.ConsolidationConfig` that differ, `{}` for none; `policy` has to set `slots`."""

    def changed_model(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the config of a model with the policy in it.

        Raises:
            SwarmError: the policy does not fit, or leaves no place for slots.
        """
        from ulm.config import LTMConfig

        if not config.get("ltm") or (not self.policy and self.consolidate is None):
            return config
        changed = with_policy(LTMConfig.from_dict(config["ltm"]), self.policy)
        if self.consolidate is not None and rules_of(self.consolidate) and not changed.slots:
            raise SwarmError(NO_SLOTS)
        return {**config, "ltm": {**config["ltm"], **self.policy}}

    @model_validator(mode="after")
    def _lasts(self) -> "LtmSection":
        refuse_where(
            (
                self.on_change == "re-embed" and self.span == "episode",
                "an episode ends before a delta changes, and its memory with it; `on_change: re-embed` needs span: run",
            )
        )
        return self


class LtmReader(MemoryReader):
    """Opens a memory as `ulm.memory.LTMState`, one row."""

    def open(self, handle: Handle) -> Mapping[str, Any]:
        """Return the state that the call begins with."""
        from ulm.memory import LTMState

        if handle.version[0].endswith(TEXTS):
            return {"memory": ReadAgain(tuple(json.loads(bytes(handle.packed().content))))}
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
        self._asked: dict[tuple[int, str], str] = {}
        self._texts: dict[str, dict[str, list[str]]] = {}
        self._outdated: set[str] = set()
        """Memories that were written before their agent's delta changed."""
        self._due: dict[tuple[str, str], int] = {}
        """(home, agent) to consolidate -> `seq` of the tick after which it was nearly full."""
        self._before: dict[tuple[str, str], bytes] = {}
        """Memories as they were before their last consolidation, so that it can be undone."""
        self._after: dict[tuple[str, str], bytes] = {}
        """What consolidation made of memories whose change is about to go on record."""
        self._ahead: dict[tuple[str, str], str] = {}
        """Memories that changed since the last file was written -> hash of what they are."""

    @cached_property
    def _consolidation(self) -> Consolidation:
        settings, model = self.settings.consolidate, self.place.model
        if settings is None or model is None:
            raise SwarmError("agents.memory: ltm.consolidate needs agents with the engine ulm")
        return Consolidation(settings, self.settings.policy, model)

    def _home(self, episode: int) -> str:
        return "run" if self.settings.span == "run" else f"e{episode}"

    def version(self, episode: int, agent: str) -> tuple[str, int] | None:
        """Return the agent's memory and how many calls wrote it."""
        home = self._home(episode)
        name, calls = f"{home}/{agent}", self._calls.get(home, Counter())[agent]
        return (name + TEXTS * (name in self._outdated), calls) if calls else None

    def handle(self, episode: int, agent: str) -> Handle | None:
        """Return the agent's memory as bytes, or the texts that it is written from anew."""
        home, version = self._home(episode), self.version(episode, agent)
        data = self._held.get(home, {}).get(agent)
        if data is not None and version is not None and version[0].endswith(TEXTS):
            data = self._packed_texts(home, agent)
        return None if data is None or version is None else Handle(self.kind, version, data)

    def asked(self, episode: int, agent: str, prompt: str) -> None:
        """Keep the prompt until its answer is there."""
        if self.settings.on_change == "re-embed":
            self._asked[episode, agent] = prompt

    def _packed_texts(self, home: str, agent: str) -> bytes:
        return json.dumps(self._texts.get(home, {}).get(agent, [])).encode()

    def after_tick(self, record: Tick, result: StepResult, updates: Mapping[str, bytes]) -> dict[str, Any]:
        """Keep what the hosts wrote; whose memory is nearly full goes on record where it is to be consolidated."""
        home = self._home(record["episode"])
        self._held.setdefault(home, {}).update(updates)
        for entry in record["agents"]:
            prompt = self._asked.pop((record["episode"], entry["agent"]), None)
            if prompt is not None and entry["agent"] in updates:
                texts = self._texts.setdefault(home, {}).setdefault(entry["agent"], [])
                texts.append(prompt + entry["action"])
                del texts[:-KEPT_TEXTS]
        if self.settings.consolidate is None:
            return {}
        due = [agent for agent in sorted(updates) if self._consolidation.is_due(updates[agent])]
        return {"full": due} if due else {}

    def fold(self, record: Record) -> None:
        """Count the calls that wrote; forget an episode that is over, unless memories last the whole run.

        What an agent remembers was written by the weights that it had: once its delta has changed it is empty, or is
        written anew before the next call.
        """
        if record["kind"] == "tick":
            home = self._home(record["episode"])
            self._last[home] = record["episode"], record["tick"]
            answered = [entry["agent"] for entry in record["agents"] if acted(entry)]
            self._calls.setdefault(home, Counter()).update(answered)
            self._outdated -= {f"{home}/{agent}" for agent in answered}
            self._ahead = {of: digest for of, digest in self._ahead.items() if of[0] != home}
            self._due |= {(home, agent): record["seq"] for agent in record["memory"].get("ltm", {}).get("full", ())}
        elif record["kind"] == "episode_end" and self.settings.span == "episode":
            home = self._home(record["episode"])
            for kept in (self._held, self._calls, self._last):
                kept.pop(home, None)
            for of_agent in (self._before, self._due, self._ahead):
                for of in [of for of in of_agent if of[0] == home]:
                    of_agent.pop(of)
        elif record["kind"] == "change" and record["memory"] == "ltm":
            self._fold_change(record)
        elif record["kind"] == "change" and record["memory"] == "delta" and record["accepted"]:
            for home, calls in self._calls.items():
                for agent in list(calls) if record["agent"] is None else [record["agent"]]:
                    if self.settings.on_change == "empty":
                        calls.pop(agent, None)  # what no call has written is not handed out
                    elif calls[agent]:
                        calls[agent] += 1
                        self._outdated.add(f"{home}/{agent}")

    def _fold_change(self, record: ChangeRecord) -> None:
        """Take in a consolidation, or that it was undone."""
        home, agent = record["settings"]["home"], record["agent"] or ""
        self._due.pop((home, agent), None)
        if record["accepted"]:
            self._calls[home][agent] += 1
            self._ahead[home, agent] = record["result"]
            self._catch_up(home, agent)

    def _catch_up(self, home: str, agent: str) -> bool:
        """Bring a memory to what its last change made of it, if those bytes are here; return whether they were."""
        of, held = (home, agent), self._held.get(home, {})
        digest = self._ahead[of]
        if agent in held and sha256(held[agent]).hexdigest() == digest:
            return True
        if (after := self._after.pop(of, None)) is not None and sha256(after).hexdigest() == digest:
            self._before[of], held[agent] = held[agent], after
            return True
        if (before := self._before.get(of)) is not None and sha256(before).hexdigest() == digest:  # an undo
            held[agent] = self._before.pop(of)
            return True
        return False

    def pending(self) -> Iterable[Change]:
        """Consolidate what was nearly full after the last tick."""
        for (home, agent), seq in sorted(self._due.items()):
            data = self._held[home][agent]
            self._after[home, agent], change = self._consolidation.consolidate(data, (home, agent), seq)
            yield change
            self.save(*self._last[home])

    def save(self, episode: int, tick: int) -> None:
        """Write what all agents of the episode remember, and what they did before their last consolidation."""
        if self._store is not None:
            home = self._home(episode)
            texts = {agent + TEXTS: self._packed_texts(home, agent) for agent in self._texts.get(home, {})}
            before = {agent + BEFORE: data for (of, agent), data in self._before.items() if of == home}
            self._store.save(episode, tick, self._held.get(home, {}) | texts | before)

    def load(self) -> None:
        """Read what agents remembered after the last record."""
        if self._store is not None:
            for home, last in self._last.items():
                found = self._store.load(*last)
                for name, data in found.items():
                    if name.endswith(TEXTS):
                        self._texts.setdefault(home, {})[name.removesuffix(TEXTS)] = json.loads(data)
                    elif name.endswith(BEFORE):
                        self._before[home, name.removesuffix(BEFORE)] = data
                    else:
                        self._held.setdefault(home, {})[name] = data
            for home, agent in self._ahead:  # the file may be older than the last change
                if not self._catch_up(home, agent):
                    data = self._held[home][agent]
                    self._after[home, agent], _ = self._consolidation.consolidate(data, (home, agent), 0)
                    if not self._catch_up(home, agent):
                        raise SwarmError(f"the memory of {agent} is not what its journal says; start a new run")

    def after_episode(self, ending: EpisodeEnd, live: Collection[int]) -> Iterable[Change]:
        """Remove files that nobody needs any more."""
        if self._store is not None:
            self._store.end_episode(ending["episode"], live)
        return ()
