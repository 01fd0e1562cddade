"""`stm`: the window, which every model has and which ends with its prompt."""

from typing import Literal

from swarm.agents.memory import AgentMemory
from swarm.config.memory import MemorySection


class WindowSection(MemorySection):
    """The window; it has no settings of its own."""

    kind: Literal["stm"] = "stm"
    """Its name."""


class Window(AgentMemory[WindowSection]):
    """Nothing is kept from call to call."""

    kind = "stm"
    Section = WindowSection
