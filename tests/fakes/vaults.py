"""Small vaults, and what their tests do with them."""

from __future__ import annotations

import re

import pytest

from worlds import make

VAULTS = [
    pytest.param(num_agents, options, id=" ".join([str(num_agents), *(f"{k}={v}" for k, v in options.items())]))
    for num_agents, options in (
        (4, {}),
        (1, {"rooms": 1, "pages": 1, "notes": 1, "sentences": 0}),
        (2, {"rooms": 5, "depth": 2}),
        (1, {"rooms": 4, "depth": 4}),
        (3, {"rooms": 7, "depth": 3, "pages": 2}),
        (9, {"rooms": 4, "depth": 4, "notes": 1}),
    )
]
SMALL = {"pages": 2, "notes": 2, "sentences": 1}


def new_vault(num_agents, seed=0, **options):
    world = make("vault-v0", num_agents, SMALL | options)
    world.reset(seed)
    return world


def notes_of(world, room):
    """The notes of one room, as its text gives them."""
    return re.findall(r"\bnote ([a-z]+) ([a-z]+) \.", " ".join(world.state()["text"][room]))


def read_all(world):
    """Let everybody read its rooms; return the last observations."""
    longest = len(world.rooms_of("a0")) * world.options.pages
    for _ in range(longest):
        observations = world.step(dict.fromkeys(world.agents, "next")).observations
    return observations
