"""Memories that are added to a µLM, never woven into it: what is learned from them is the agent's own."""

from ulm.memory.ltm import CONTROLS, LTM, Control
from ulm.memory.state import LTMState, Staged

__all__ = ["CONTROLS", "LTM", "Control", "LTMState", "Staged"]
