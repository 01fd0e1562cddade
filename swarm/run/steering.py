"""What a person says to a live run from elsewhere, and what agents are told in a tick when somebody does.

Owns `steer.jsonl`, in which `swarm steer` leaves what a person says and in which the tick loop finds it, and the rule
that a person's word goes before the coordinator's. The file is a letter box: what came of it is in the journal, and
what the journal has is never applied again. Nothing in it is trusted: a line that cannot be meant is no line.
"""

import fcntl
import json
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import NoneType
from typing import cast

from swarm.errors import SwarmError
from swarm.files import LineTail, sync
from swarm.messages import DirectReply
from swarm.record.journal import canonical_json
from swarm.record.records import CoordinatorEntry, Review, Steered, Told, in_agent_order
from swarm.text import checked_text

STEERING_NAME = "steer.jsonl"


@dataclass(frozen=True, slots=True)
class Steer:
    """One thing that a person said to a live run: a directive for agents, or a hint for the coordinator.

    Attributes:
        line: its number in the file, from 1.
        text: what was said.
        agents: whom it directs in the next tick; empty for a hint.
        episode: the one that it is for; None means every episode that is running.
        tokens: what it costs the episode, 0 while nobody has counted.
    """

    line: int
    text: str
    agents: tuple[str, ...] = ()
    episode: int | None = None
    tokens: int = 0


def post(run_dir: Path, text: str, agents: Sequence[str] = (), episode: int | None = None) -> None:
    """Leave a line for the run in `run_dir`; it is on disk when this returns.

    Args:
        run_dir: the run folder.
        text: as `checked_text` returns it.
        agents: whom it directs; none makes it a hint for the coordinator.
        episode: the one that it is for; None means every episode that is running.

    Raises:
        SwarmError: the file cannot be written.
    """
    said = {"text": text, "agents": list(agents) or None, "episode": episode}
    path = run_dir / STEERING_NAME
    try:
        is_new = not path.exists()
        with path.open("ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # whoever else is steering needs a moment only
            whole = path.read_bytes().rfind(b"\n") + 1
            file.truncate(whole)  # half a line of a writer that was killed, which nobody has read
            line = canonical_json({key: value for key, value in said.items() if value is not None}) + b"\n"
            if file.write(line) != len(line):
                file.truncate(whole)
                raise SwarmError(f"cannot write {path}: no space left; make some and say it again")
            os.fsync(file)
        if is_new:
            sync(run_dir)
    except OSError as error:
        raise SwarmError(f"cannot write {path}: {error.strerror}") from error


class Mailbox:
    """What was left for a run, read as it comes.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._tail = LineTail(path)
        self._steers: list[Steer] = []

    def look(self) -> None:
        """Read what is new: a look at the size of the file, most of the time."""
        with suppress(OSError):  # nobody has left anything
            if self._tail.path.stat().st_size > self._tail.offset:
                read = (_read(line, self._tail.num_lines) for line in self._tail.poll())
                self._steers += (steer for steer in read if steer is not None)

    def due(
        self, episode: int, after: int, agents: Sequence[str], count: Callable[[Sequence[str]], list[int]]
    ) -> tuple[Steer, ...]:
        """Return what an episode has not heard yet, with its tokens.

        Args:
            episode: its number.
            after: the last line that the episode has heard.
            agents: those that can be directed; others are left out.
            count: counts the tokens of texts.
        """
        if not self._steers or self._steers[-1].line <= after:
            return ()
        own = [steer for steer in self._steers if steer.line > after and steer.episode in (None, episode)]
        known = [tuple(agent for agent in agents if agent in steer.agents) for steer in own]
        found = [replace(steer, agents=k) for steer, k in zip(own, known, strict=True) if k or not steer.agents]
        counts = count([steer.text for steer in found]) if found else []
        # Written once for every agent that it is for, as a coordinator writes its directives.
        return tuple(
            replace(steer, tokens=tokens * max(1, len(steer.agents)))
            for steer, tokens in zip(found, counts, strict=True)
        )


def _read(line: bytes, number: int) -> Steer | None:
    """Return what a line of the file says, None when it says nothing that can be meant."""
    try:
        said = json.loads(line)
        text, agents, episode = checked_text(said["text"]), said.get("agents", []), said.get("episode")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, SwarmError):
        return None
    named = isinstance(agents, list) and all(isinstance(agent, str) for agent in agents)
    return Steer(number, text, tuple(agents), episode) if named and type(episode) in (int, NoneType) else None


@dataclass(frozen=True, slots=True)
class Orders:
    """What one episode is told in one tick.

    Attributes:
        reply: what its coordinator said, None when it was not asked.
        steers: what a person said from elsewhere.
    """

    reply: DirectReply | None = None
    steers: tuple[Steer, ...] = ()

    @property
    def tokens(self) -> int:
        """What it costs."""
        return sum(steer.tokens for steer in self.steers) + (self.reply.tokens if self.reply else 0)

    @property
    def calls(self) -> int:
        """The model calls that it took."""
        return self.reply.calls if self.reply else 0

    def directives(self, otherwise: Mapping[str, str]) -> dict[str, str]:
        """Return agent -> text; `otherwise` holds where the coordinator was not asked."""
        told = dict(otherwise if self.reply is None else self.reply.directives)
        for steer in self.steers:
            told.update(dict.fromkeys(steer.agents, steer.text))
        return told

    def enter(self, record: Told, agents: Sequence[str]) -> None:
        """Write it into a tick record that says nothing of it yet."""
        record["directives"] = in_agent_order(self.directives({}), agents)
        if (reply := self.reply) is not None:
            called: CoordinatorEntry = {
                "prompt_tokens": reply.prompt_tokens,
                "generated_tokens": reply.generated_tokens,
                "calls": reply.calls,
            }
            if reply.fault is not None:
                called["fault"] = reply.fault
            if reply.thoughts:
                called["thoughts"] = reply.thoughts
            if reply.declined:
                called["declined"] = [(a, reply.declined[a]) for a in agents if a in reply.declined]
            record["coordinator"] = called
            if reply.review is not None:
                record["review"] = cast(Review, reply.review)
        if self.steers:
            record["steered"] = [self._entry(steer) for steer in self.steers]

    def _entry(self, steer: Steer) -> Steered:
        entry: Steered = {"line": steer.line, "tokens": steer.tokens}
        if not steer.agents:
            return {**entry, "hint": steer.text}
        entry |= {"agents": list(steer.agents), "text": steer.text}
        if self.reply is not None and (instead_of := in_agent_order(self.reply.directives, steer.agents)):
            entry["instead_of"] = instead_of
        return entry
