"""What an agent keeps from call to call: one life cycle for every kind of it.

- `AgentMemory` lives beside the tick loop and keeps the memories of its kind for all agents of a run. `handle` says
  what a call is given, `after_tick` takes in what it gave back, `save` makes durable what the journal does not hold.
- `MemoryReader` (`swarm.backends.protocol`) lives beside the engine, in every host, and opens handles.
- State that follows from the journal changes in `fold` alone, in play as on resume, so the two cannot differ.
- A package brings a kind through the entry-point group `ulm_swarm.memories`: name = its `AgentMemory`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

from swarm.backends.protocol import MemoryReader
from swarm.config.engine import UlmEngine
from swarm.config.memory import MemorySection, find_memory
from swarm.errors import SwarmError
from swarm.files import path_in
from swarm.messages import Handle
from swarm.record.change import Change
from swarm.record.records import EpisodeEnd, Record, Tick
from worlds.protocol import StepResult, WorldError
from worlds.registry import world_class

if TYPE_CHECKING:
    from swarm.config.experiment import ExperimentConfig

SectionT = TypeVar("SectionT", bound=MemorySection)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run keeps the memories of its agents.

    Attributes:
        folder: the run folder's `memory`; None where records are folded alone, and only versions count.
        durability: that of the journal.
        claims: relations of the world's claims, with their flags (`World.claims`).
        base: the folder that paths in settings start from.
        model: folder of the agents' checkpoint, for engine `ulm`; it may be missing where records are folded alone.
    """

    folder: Path | None = None
    durability: str = "tick"
    claims: Mapping[str, Sequence[str]] = field(default_factory=dict)
    base: Path = Path()
    model: Path | None = None

    @classmethod
    def of(cls, config: ExperimentConfig, base: Path, folder: Path | None = None, durability: str = "tick") -> Place:
        """Return one for the agents of an experiment.

        Raises:
            SwarmError: there is no such world.
        """
        engine = config.agents.engine
        model = path_in(base, engine.model) if isinstance(engine, UlmEngine) else None
        try:
            return cls(folder, durability, world_class(config.world.id).claims, base, model)
        except WorldError as error:
            raise SwarmError(str(error)) from error


class AgentMemory(Generic[SectionT]):
    """One kind of memory, for all agents of a run. All methods are called in the order of the journal.

    Attributes:
        kind: its name in `agents.memory` and in tick records.
        Section: its settings.
        Reader: its half in hosts, for the engine `ulm`; None for a memory that works through the prompt, with any.
        part: key of a checkpoint's config that it needs (and prefix of the weights), None for none.
        of_world: attribute of a world without which it would stay empty, None for none.
    """

    kind: ClassVar[str]
    Section: ClassVar[type[MemorySection]]
    Reader: ClassVar[type[MemoryReader] | None] = None
    part: ClassVar[str | None] = None
    of_world: ClassVar[str | None] = None

    def __init__(self, settings: SectionT, place: Place) -> None:
        self.settings = settings
        self.place = place

    def version(self, episode: int, agent: str) -> tuple[str, int] | None:
        """Return which memory the agent's next call is given and how often it has changed, by what was folded alone."""
        return None

    def handle(self, episode: int, agent: str) -> Handle | None:
        """Return what the agent's next call is given, without content where there is no folder; None for nothing."""
        return None

    def lines(self, episode: int, agent: str) -> Sequence[str]:
        """Return the lines that the agent's next prompt has of it; they are charged as the rest of the prompt."""
        return ()

    def lookup(self, episode: int) -> Callable[[str], str | None] | None:
        """Return what answers the coordinator's questions (`Situation.lookup`), picklable; None for nothing."""
        return None

    def asked(self, episode: int, agent: str, prompt: str) -> None:
        """Take in what an agent is about to read; its tick may fail, or never come on record."""

    def after_tick(self, record: Tick, result: StepResult, updates: Mapping[str, bytes]) -> dict[str, Any]:
        """Take in a tick that was played; return what stands in its record under `memory`, {} for nothing.

        Args:
            record: body of the tick record so far: what was said, done and answered.
            result: the world's answer.
            updates: agent -> what its reader wrote after the call.
        """
        return {}

    def pending(self) -> Iterable[Change]:
        """Yield what has to change because of a tick that was folded; called after each one, and after a kill.

        Each change is on record, and folded, before the next is asked for.
        """
        return ()

    def after_episode(self, ending: EpisodeEnd, live: Collection[int]) -> Iterable[Change]:
        """Yield what changes at the end of an episode; each is on record, and folded, before the next is asked for.

        After a kill it is called again and yields what is not folded yet. The `episode_end` record follows.

        Args:
            ending: body of that record.
            live: episodes in flight, this one included.
        """
        return ()

    def after_round(self, number: int) -> Iterable[Change]:
        """Yield what changes at the barrier after a round of episodes, as `after_episode` does."""
        return ()

    def fold(self, record: Record) -> None:
        """Take in a record of the journal, whole; called for every one, when it was written or is read again."""

    def save(self, episode: int, tick: int) -> None:
        """Make durable what the tick record that is written next relies on, and no record holds.

        Raises:
            SwarmError: the disk refuses.
        """

    def load(self) -> None:
        """Restore what `save` kept for the last records that were folded.

        Raises:
            SwarmError: it is missing or damaged.
        """


def make_memories(sections: Iterable[MemorySection], place: Place) -> list[AgentMemory[Any]]:
    """Return the memories that `agents.memory` names, empty."""
    return [find_memory(section.kind)(section, place) for section in sections]


class WindowSection(MemorySection):
    """The window, which every model has and which ends with its prompt; it has no settings of its own."""

    kind: Literal["stm"] = "stm"
    """Its name."""


class Window(AgentMemory[WindowSection]):
    """`stm`: nothing is kept from call to call."""

    kind = "stm"
    Section = WindowSection
