"""What an agent of a run remembers, in words: what was stored, when, how surprising it was, how often it was read.

Owns the way from a run folder to a list of items. Reads the memory files, the journal (which says at which tick a token
was read) and the tokenizer; loads no model.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from pathlib import Path
from typing import NamedTuple

from swarm.errors import SwarmError
from swarm.journal import JOURNAL_NAME, read_records
from swarm.memories import MEMORY_FOLDER, MemoryStore

__all__ = ["MemoryItem", "MemoryView", "view_memory"]


class MemoryItem(NamedTuple):
    """One item.

    Attributes:
        episode, tick: when its token was read, by the journal.
        before: the text before it, a few tokens; token: the written token.
        surprisal_bits: of the token when it was read.
        reads: how many positions of later texts read it.
    """

    episode: int
    tick: int
    before: str
    token: str
    surprisal_bits: float
    reads: int


class MemoryView(NamedTuple):
    """The memory of one agent after a tick, items in the order in which they were written."""

    agent: str
    episode: int
    tick: int
    capacity: int
    items: list[MemoryItem]


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
        raise SwarmError(f"{run_dir} holds no long-term memories; run with agents.memory: [stm, ltm]")
    episode = max(there) if episode is None else episode
    if episode not in there:
        raise SwarmError(f"no memories of episode {episode} in {run_dir}; there are: {', '.join(map(str, there))}")
    tick = there[episode][-1]
    memories = store.load(episode, tick)
    if agent not in memories:
        raise SwarmError(f"agent {agent!r} has no memory in episode {episode}; agents: {', '.join(sorted(memories))}")
    header = next(iter(read_records(run_dir / JOURNAL_NAME)))
    model = header["config"]["agents"]["model"]
    try:
        base_dir = Path(json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))["base_dir"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SwarmError(
            f"{run_dir / 'manifest.json'} is missing or damaged ({error}); it says where the model is"
        ) from error

    from ulm.checkpoint import read_checkpoint_config
    from ulm.memory import LTMState
    from ulm.tokenizer import Tokenizer

    try:
        config = read_checkpoint_config(base_dir / model).model.ltm
        tokenizer = Tokenizer.load(base_dir / model)
        if config is None:
            raise ValueError(f"checkpoint {model} has no long-term memory any more")
        state = LTMState.from_bytes(memories[agent], config)
    except ValueError as error:
        raise SwarmError(f"the memory of {agent} cannot be read: {error}") from error
    ends, places = _clock(run_dir, agent, episode, header["config"]["agents"]["memory_span"] == "run")
    items = []
    for position, surprisal, reads, tokens in zip(
        state.position_BM[0].tolist(),
        state.surprisal_BM[0].tolist(),
        state.reads_BM[0].tolist(),
        state.tokens_BMN[0].tolist(),
        strict=True,
    ):
        if position >= 0:
            when = places[min(bisect_right(ends, position), len(places) - 1)]
            before = tokenizer.decode([token for token in tokens[:-1] if token >= 0])
            items.append((position, MemoryItem(*when, before, tokenizer.decode(tokens[-1:]), surprisal, reads)))
    return MemoryView(agent, episode, tick, config.capacity, [item for _, item in sorted(items)])


def _clock(run_dir: Path, agent: str, episode: int, whole_run: bool) -> tuple[list[int], list[tuple[int, int]]]:
    """Return up to which token an agent had read after each of its calls, and the (episode, tick) of each.

    The last token of an answer is not read by the model that wrote it.
    """
    ends: list[int] = []
    places: list[tuple[int, int]] = []
    for record in read_records(run_dir / JOURNAL_NAME):
        if record["kind"] != "tick" or (record["episode"] != episode and not whole_run) or record["episode"] > episode:
            continue
        for entry in record["agents"]:
            if entry["agent"] == agent and entry.get("fault") is None:
                read = entry["prompt_tokens"] + entry["generated_tokens"] - 1
                ends.append((ends[-1] if ends else 0) + read)
                places.append((record["episode"], record["tick"]))
    return ends, places
