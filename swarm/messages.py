"""The plain values that travel between runtime, pools, hosts and coordinators.

Owns their shapes and nothing else. They are frozen, picklable by Ray and hold only text and numbers, so a pool may
live in this process or on another machine without the logic noticing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from worlds.protocol import Situation

CallKey = tuple[int, int, str]
"""(episode, tick, agent id): the idempotency key of a call within its run."""


Update = tuple[str, bytes]
"""(kind of memory, what it holds after a call)."""


class Handle(NamedTuple):
    """What a call needs to know of one memory of its agent: small ones travel as bytes, large ones as a path.

    Attributes:
        kind: as in `agents.memory`.
        version: which memory, and how often it has changed: equal versions of a kind hold the same.
        content: all of it, or the file that holds it and may grow later.
    """

    kind: str
    version: tuple[str, int]
    content: bytes | Path

    def packed(self) -> Handle:
        """Return the same with all bytes in it, for a host that cannot read the files of this machine."""
        return self if isinstance(self.content, bytes) else self._replace(content=self.content.read_bytes())


@dataclass(frozen=True, slots=True)
class ActRequest:
    """One model call of one agent.

    Attributes:
        key: (episode, tick, agent); a retry carries the same key and must give the same reply.
        prompt: the full text the agent reads. The call's randomness follows from the run's seed and the key.
        max_new_tokens: hard limit on generated tokens.
        pattern: regular expression the action must match, or None for free text.
        memories: those of the agent that hold anything.
        observation: what the world shows, with the agent's directive as its last line; None without inline answers.
        greedy: whether the most likely answer is wanted, whatever the agents' temperature (`World.explores`).
    """

    key: CallKey
    prompt: str
    max_new_tokens: int
    pattern: str | None = None
    memories: tuple[Handle, ...] = ()
    observation: str | None = None
    greedy: bool = False

    def failed(self, fault: str) -> ActReply:
        """Return the reply to a call that went wrong and used nothing."""
        return ActReply(self.key, "", 0, 0, fault)


@dataclass(frozen=True, slots=True)
class ActReply:
    """The reply to one `ActRequest`. `fault` names what went wrong; `text` is then empty.

    `updates` are the memories that the call has changed; none after a fault. `thoughts` is what a model that thinks
    wrote beside its answer, where the journal is to have it (`keep_thoughts`). `inlined` are the parts of the text,
    first character and the one after the last, that the world answered while it was written: prompt tokens.
    """

    key: CallKey
    text: str
    prompt_tokens: int
    generated_tokens: int
    fault: str | None = None
    updates: tuple[Update, ...] = ()
    thoughts: str = ""
    inlined: tuple[tuple[int, int], ...] = ()

    @property
    def tokens(self) -> int:
        """What the call costs: prompt and generated tokens."""
        return self.prompt_tokens + self.generated_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectRequest(Situation):
    """One coordinator call: what a playbook may know, and what the call may cost.

    Attributes:
        key: (episode, tick, "coordinator").
        max_tokens: tokens this call may still use, or None when the budget has no token limit.
        unread: how many of the last reports arrived since the coordinator was last asked.
    """

    key: CallKey
    max_tokens: int | None = None
    unread: int = 0

    @property
    def news(self) -> list[str]:
        """The texts of the unread reports."""
        return [report.text for report in self.reports[len(self.reports) - self.unread :]]

    def failed(self, fault: str) -> DirectReply:
        """Return the reply to a call that went wrong and used nothing."""
        return DirectReply(self.key, fault=fault)


@dataclass(frozen=True, slots=True)
class DirectReply:
    """Directives for some agents plus everything they cost.

    Attributes:
        directives: agent id -> text; an agent that is absent gets no directive this tick.
        prompt_tokens: tokens read by the coordinator (reports count, for rules too).
        generated_tokens: tokens written by the coordinator (directives count, for rules too).
        calls: model calls made; 0 for rules.
        review: what a person who looks at directives before they are passed on did, for the journal; None without one.
        declined: agent id -> directives that it was offered for that agent and those beside it, and did not choose.
        thoughts: as of `ActReply`.
    """

    key: CallKey
    directives: dict[str, str] = field(default_factory=dict)
    prompt_tokens: int = 0
    generated_tokens: int = 0
    calls: int = 0
    fault: str | None = None
    review: Mapping[str, Any] | None = None
    declined: dict[str, list[str]] = field(default_factory=dict)
    thoughts: str = ""

    @property
    def tokens(self) -> int:
        """What the calls cost: prompt and generated tokens."""
        return self.prompt_tokens + self.generated_tokens


class Pool(Protocol):
    """Where model calls run: here (`swarm.agents.local_pool.LocalPool`) or on Ray (`swarm.actors.pool.RayPool`).

    Replies come back in the order of the requests. A call that raises, hangs past its timeout or returns garbage
    becomes a reply with a `fault`. A host that dies is replaced and its calls are retried with the same keys.
    """

    def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
        """Run agent calls."""

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Run coordinator calls."""

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text under the agents' tokenizer."""

    def count_prompts(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens that an agent reads when it is asked with each of these prompts."""

    def close(self) -> None:
        """Release processes and memory; idempotent."""


class Operator(Protocol):
    """A person in the loop: is the coordinator, or looks at what it says before agents read it."""

    def direct(self, requests: Sequence[DirectRequest], pool: Pool) -> list[DirectReply]:
        """Answer in place of the pool's coordinator, which may be asked, too; waits for the person.

        Raises:
            KeyboardInterrupt: the person stops the run.
        """

    def on_episode_end(self, episode: int, reason: str, ticks: int, tokens: int) -> None:
        """Tell the person how an episode ended."""
