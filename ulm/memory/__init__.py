"""Memories that are added to a µLM, never woven into it: what is learned from them is the agent's own."""

from typing import TYPE_CHECKING

from ulm.lazy import names_from
from ulm.memory.ltm import CONTROLS, LTM, Control
from ulm.memory.state import LTMState, Staged

if TYPE_CHECKING:
    from ulm.memory.registry import EntityRegistry

__all__ = ["CONTROLS", "LTM", "Control", "EntityRegistry", "LTMState", "Staged"]

__getattr__ = names_from(__name__, {"registry": "EntityRegistry"})
