"""Text worlds: text observation in, text action out.

`protocol` is the contract, `registry` finds a world by its id, `check` verifies a world against the contract. Every
folder is one world, with all that is known about it: its rules, how to steer it (playbook), what can be learned of it
before play (lessons). Nothing here knows models, tokens, Ray or the swarm.
"""

from worlds.check import check_world
from worlds.protocol import (
    Briefing,
    Example,
    Info,
    Lessons,
    Playbook,
    Report,
    Situation,
    StepResult,
    Turn,
    World,
    WorldError,
    WorldOptions,
    tool,
)
from worlds.registry import available, load_lessons, load_playbook, make, register, world_class

__all__ = [
    "Briefing",
    "Example",
    "Info",
    "Lessons",
    "Playbook",
    "Report",
    "Situation",
    "StepResult",
    "Turn",
    "World",
    "WorldError",
    "WorldOptions",
    "available",
    "check_world",
    "load_lessons",
    "load_playbook",
    "make",
    "register",
    "tool",
    "world_class",
]
