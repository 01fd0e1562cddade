"""What an agent of a run remembers: tokens with their surprisal and reads, facts with who wrote them, and changes.

Owns the way from a run folder to a list of items. Reads the memory files, the journal (which says at which tick a token
was read) and the tokenizer; loads no model.
"""

from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple, cast

from swarm.agents.consolidation import with_policy
from swarm.agents.ltm import BEFORE, TEXTS
from swarm.agents.ltm_files import MEMORY_FOLDER, MemoryStore
from swarm.errors import SwarmError
from swarm.files import path_in
from swarm.record.folder import base_dir_of, needing_base
from swarm.record.journal import JOURNAL_NAME, read_header, read_records
from swarm.record.records import ChangeRecord, Tick, acted


class MemoryItem(NamedTuple):
    """One item.

    Attributes:
        episode, tick: when its token was read, by the journal.
        before: the text before it, a few tokens; token: the written token.
        surprisal_bits: of the token when it was read.
        reads: how many positions of later texts read it.
        members: items that it stands for where it is a slot of consolidation; 0 for an item as it was written.
    """

    episode: int
    tick: int
    before: str
    token: str
    surprisal_bits: float
    reads: int
    members: int = 0


class MemoryView(NamedTuple):
    """The memory of one agent after a tick, items in the order in which they were written."""

    agent: str
    episode: int
    tick: int
    capacity: int
    items: list[MemoryItem]


class FactItem(NamedTuple):
    """One fact of an exact memory.

    Attributes:
        episode, tick: when it was written; agents recall it from the next tick on.
        source: the agent that wrote it.
        observation, action: what was known to be right where.
    """

    episode: int
    tick: int
    source: str
    observation: str
    action: str


def kinds_of_memory(run_dir: Path) -> dict[str, dict[str, Any]]:
    """Return what the agents of a run keep beside their window: settings by kind."""
    return {memory["kind"]: memory for memory in _agents(run_dir)["memory"] if memory["kind"] != "stm"}


def _agents(run_dir: Path) -> dict[str, Any]:
    """Return the section `agents` of a run's header."""
    header = read_header(run_dir / JOURNAL_NAME)
    if header is None:
        raise SwarmError(f"{run_dir}: the run died before it began")
    return cast("dict[str, Any]", header["config"]["agents"])


def view_facts(run_dir: Path, agent: str, episode: int | None = None) -> list[FactItem]:
    """Return the facts that an agent can recall after the last tick of an episode, oldest first.

    Null controls are not applied: this is what was written.

    Args:
        run_dir: the run folder.
        agent: its id.
        episode: which one; None takes the last one that began.

    Raises:
        SwarmError: its agents know no facts, or there is no such agent or episode.
    """
    settings = kinds_of_memory(run_dir).get("facts")
    if settings is None:
        raise SwarmError(f"agents of {run_dir} keep no facts; run with agents.memory: [stm, facts]")
    episode, agent = chosen(run_dir, agent, episode)
    found: dict[str, FactItem] = {}
    for record in ticks_of(run_dir, settings["span"], episode):
        for source, observation, action in record["memory"].get("facts", {}).get("learned", ()):
            if settings["shared"] or source == agent:
                found.setdefault(observation, FactItem(record["episode"], record["tick"], source, observation, action))
    return list(found.values())


def chosen(run_dir: Path, agent: str | None, episode: int | None) -> tuple[int, str]:
    """Return the episode and the agent that are meant: the last episode that began, and its first agent, by default.

    Raises:
        SwarmError: there is no such agent or episode.
    """
    opened = {
        record["episode"]: [entry["agent"] for entry in record["agents"]]
        for record in read_records(run_dir / JOURNAL_NAME)
        if record["kind"] == "episode"
    }
    if not opened:
        raise SwarmError(f"{run_dir}: no episode has begun yet")
    episode = max(opened) if episode is None else episode
    if episode not in opened:
        raise SwarmError(f"there is no episode {episode} in {run_dir}; there are: {', '.join(map(str, opened))}")
    agent = opened[episode][0] if agent is None else agent
    if agent not in opened[episode]:
        raise SwarmError(f"there is no agent {agent!r}; agents: {', '.join(opened[episode])}")
    return episode, agent


def ticks_of(run_dir: Path, span: str, episode: int) -> Iterator[Tick]:
    """Yield the ticks that a memory of this span can hold after an episode: its own, or all up to there."""
    for record in read_records(run_dir / JOURNAL_NAME):
        if record["kind"] == "tick" and (0 if span == "run" else episode) <= record["episode"] <= episode:
            yield record


def view_changes(run_dir: Path, kind: str, agent: str | None = None) -> list[ChangeRecord]:
    """Return how a memory changed for good, in order.

    Args:
        run_dir: the run folder.
        kind: of memory.
        agent: whose, changes of the team included; None for all.

    Raises:
        SwarmError: there is no such agent.
    """
    found: list[ChangeRecord] = []
    agents: list[str] = []
    for record in read_records(run_dir / JOURNAL_NAME):
        if record["kind"] == "episode":
            agents = agents or [opening["agent"] for opening in record["agents"]]
        elif record["kind"] == "change" and record["memory"] == kind and agent in (None, record["agent"] or agent):
            found.append(record)
    if agent is not None and agents and agent not in agents:
        raise SwarmError(f"there is no agent {agent!r}; agents: {', '.join(agents)}")
    return found


def view_records(run_dir: Path, kind: str, episode: int | None = None) -> list[tuple[int, int, dict[str, Any]]]:
    """Return what a memory of any kind put on record: (episode, tick, body), of one episode or of all."""
    return [
        (record["episode"], record["tick"], record["memory"][kind])
        for record in read_records(run_dir / JOURNAL_NAME)
        if record["kind"] == "tick" and kind in record["memory"] and episode in (None, record["episode"])
    ]


def _is_undone(run_dir: Path, agent: str) -> bool:
    """Return whether the last change of an agent's long-term memory took back the one before."""
    last = [record["cause"] for record in view_changes(run_dir, "ltm", agent) if record["accepted"]]
    return last[-1:] == ["undo"]


def view_memory(run_dir: Path, agent: str, episode: int | None = None) -> MemoryView:
    """Return what an agent remembers after the last tick of an episode.

    Args:
        run_dir: the run folder.
        agent: its id.
        episode: which one; None takes the last one of which memories are there.

    Raises:
        SwarmError: the run has no memories, or none of this agent or episode; a file is missing or damaged.
    """
    store = MemoryStore(run_dir / MEMORY_FOLDER)
    there = store.episodes()
    if not there:
        raise SwarmError(f"{run_dir} holds no memories; run with agents.memory: [stm, ltm]")
    episode = max(there) if episode is None else episode
    if episode not in there:
        raise SwarmError(f"no memories of episode {episode} in {run_dir}; there are: {', '.join(map(str, there))}")
    tick = there[episode][-1]
    found = store.load(episode, tick)
    memories = {name: data for name, data in found.items() if not name.endswith((TEXTS, BEFORE))}
    if agent in memories and _is_undone(run_dir, agent):
        memories[agent] = found[agent + BEFORE]
    if agent not in memories:
        raise SwarmError(f"agent {agent!r} has no memory in episode {episode}; agents: {', '.join(sorted(memories))}")
    name = _agents(run_dir)["engine"]["model"]
    base_dir = base_dir_of(run_dir)
    model = path_in(base_dir, name)

    from ulm.checkpoint import read_checkpoint_config
    from ulm.memory import LTMState
    from ulm.tokenizer import Tokenizer

    with needing_base(run_dir, base_dir):
        try:
            config, tokenizer = read_checkpoint_config(model).model.ltm, Tokenizer.load(model)
            if config is None:
                raise ValueError(f"checkpoint {name} has no long-term memory any more")
            config = with_policy(config, kinds_of_memory(run_dir)["ltm"]["policy"])
            state = LTMState.from_bytes(memories[agent], config)
        except ValueError as error:
            raise SwarmError(f"the memory of {agent} cannot be read: {error}") from error
    calls = [
        (record["episode"], record["tick"], entry["prompt_tokens"] + entry["generated_tokens"])
        for record in ticks_of(run_dir, kinds_of_memory(run_dir)["ltm"]["span"], episode)
        for entry in record["agents"]
        if entry["agent"] == agent and acted(entry)
    ]
    # Up to which token it had read after each call; the model that wrote an answer does not read its last token.
    ends = list(accumulate(tokens - 1 for *_, tokens in calls))
    parts = (state.position_BM, state.surprisal_BM, state.reads_BM, state.members_BM, state.tokens_BMN)
    items = []
    for position, surprisal, reads, members, tokens in sorted(zip(*(part[0].tolist() for part in parts), strict=True)):
        if position >= 0:
            at, in_tick, _ = calls[min(bisect_right(ends, position), len(calls) - 1)]
            before = tokenizer.decode([token for token in tokens[:-1] if token >= 0])
            items.append(MemoryItem(at, in_tick, before, tokenizer.decode(tokens[-1:]), surprisal, reads, members))
    return MemoryView(agent, episode, tick, config.capacity, items)
