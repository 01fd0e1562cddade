"""What `agents.memory` may say: a list of names or sections, each read by the kind of memory that it names."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import quote

from pydantic import BeforeValidator, SerializeAsAny, WithJsonSchema

from swarm.config.section import Section
from swarm.errors import SwarmError, did_you_mean
from swarm.plugins import Registry

MEMORIES = Registry(
    "memory",
    "ulm_swarm.memories",
    "swarm.agents.memory:AgentMemory",
    {
        "stm": "swarm.agents.memory:Window",
        "ltm": "swarm.agents.ltm:LongTermMemory",
        "facts": "swarm.agents.facts:Facts",
        "registry": "swarm.agents.registry:Registry",
        "delta": "swarm.agents.delta:Deltas",
    },
)


class MemorySection(Section):
    """Settings of one kind of memory."""

    kind: str
    """Its name."""

    inline: ClassVar[bool] = False
    """Whether it answers while an action is written, so that actions cannot be kept to a pattern."""

    def hashes(self, base: Path) -> Mapping[str, str]:
        """Return what identifies the files that it begins with, by their names; the journal's header has them.

        Args:
            base: the folder that names start from.

        Raises:
            SwarmError: one is missing, or something else.
        """
        return {}

    @classmethod
    def kinds(cls) -> list[type[MemorySection]]:
        """Return the sections of all known kinds, those of other packages included.

        Raises:
            SwarmError: a package that brings one is broken.
        """
        return [find_memory(name).Section for name in MEMORIES.names()]

    def changed_model(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the config of the agents' model (`ModelConfig.to_dict`) with what the memory changes in it.

        Raises:
            SwarmError: it cannot be changed like that.
        """
        return config

    def refuse(self, chats: bool) -> None:
        """Check that agents can have it.

        Args:
            chats: whether they are asked in their model's chat format.

        Raises:
            ValueError: they cannot, and what to do.
        """


class KeptSection(MemorySection):
    """Settings of a memory that outlives a call."""

    span: Literal["episode", "run"] = "episode"
    """How long it lasts: one episode, or the whole run."""


class SharedSection(KeptSection):
    """Settings of a memory that agents may have in common."""

    shared: bool = True
    """Whether all agents write to one memory and read it in the next tick, or each has its own."""

    def home(self, episode: int, agent: str) -> str:
        """Return which memory an agent reads and writes in an episode."""
        span = "run" if self.span == "run" else f"e{episode}"
        return span if self.shared else f"{span}-{quote(agent, safe='')}"


def find_memory(kind: str) -> Any:
    """Return the class of a kind of memory, an `AgentMemory`.

    Raises:
        SwarmError: there is no such kind, or the package that brings it is broken.
    """
    found = MEMORIES.find(kind)
    if missing := [name for name in ("kind", "Section") if not hasattr(found, name)]:
        raise SwarmError(f"memory {kind!r} comes from {found.__module__}, whose {found.__name__} lacks {missing[0]}")
    if found.kind != kind:
        raise SwarmError(
            f"memory {kind!r} comes from {found.__module__}, whose {found.__name__} has the kind {found.kind!r}; make "
            f"the two equal"
        )
    return found


def read_memory(value: Any) -> MemorySection:
    """Return the section that a name or a tagged section of `agents.memory` means.

    Raises:
        ValueError: it names no memory, its package is broken, or its settings are wrong.
    """
    if isinstance(value, MemorySection):
        return value
    settings = {"kind": value} if isinstance(value, str) else value
    if not isinstance(settings, dict) or not isinstance(kind := settings.get("kind"), str):
        raise ValueError("a memory is a name, such as ltm, or a section with its `kind`, such as {kind: ltm}")
    if kind == "engram":
        raise ValueError("engram is kept for hashed n-gram tables, which agents cannot have yet; write facts")
    try:
        section_class: type[MemorySection] = find_memory(kind).Section
    except SwarmError as error:
        raise ValueError(str(error)) from error
    known = section_class.model_fields
    if unknown := [str(key) for key in settings if key not in known]:  # which keys there are is known here alone
        hint = did_you_mean(unknown[0], known, f"; {kind} has: {', '.join(known)}")
        raise ValueError(f"unknown key '{unknown[0]}'{hint}")
    # As strict as the rest of a file, wherever the settings come from.
    return section_class.model_validate_json(json.dumps(settings), strict=True)


_Memory = Annotated[
    SerializeAsAny[MemorySection],
    BeforeValidator(read_memory),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object", "required": ["kind"]}]}),
]

Memories = tuple[_Memory, ...]
