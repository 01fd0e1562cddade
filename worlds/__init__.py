"""Text worlds: text observation in, text action out.

`protocol` is the contract, `registry` finds a world by its id, `check` verifies a world against the contract,
and every other module is one world or a part of one. Nothing here knows models, tokens, Ray or the swarm.
"""

from __future__ import annotations

from worlds.check import check_world
from worlds.protocol import Info, StepResult, World, WorldError, WorldOptions
from worlds.registry import available, make, register, world_class

__all__ = [
    "Info",
    "StepResult",
    "World",
    "WorldError",
    "WorldOptions",
    "available",
    "check_world",
    "make",
    "register",
    "world_class",
]
