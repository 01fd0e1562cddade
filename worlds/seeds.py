"""Derived randomness: every random draw has a seed computed from its logical place.

Owns `derive_seed`; refuses global generators, Python's `hash()`, clocks and UUIDs, so whatever was drawn can be drawn
again and compared byte by byte.
"""

from __future__ import annotations

import hashlib
import random
from typing import Any


def derive_seed(run_seed: int, *place: str | int) -> int:
    """Return a 63-bit seed for one purpose at one place of a run.

    Args:
        run_seed: the seed of the run.
        place: names and indices such as ``("agent", "a3", episode, tick, "sample")``; order matters.

    Returns:
        A non-negative int below 2**63, equal on every machine and for every PYTHONHASHSEED.
    """
    text = "\x1f".join([str(run_seed), *(f"{type(part).__name__}:{part}" for part in place)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


class DerivedRandom(random.Random):
    """The generator of one place, which also knows the seeds of other purposes at that place.

    Args:
        seed: the seed of the run.
        purpose: what is drawn.
        place: where.
    """

    def __new__(cls, *_: Any) -> DerivedRandom:
        """Leave the seed to `__init__`: the generator of the standard library takes one argument."""
        return super().__new__(cls)

    def __init__(self, seed: int, purpose: str, *place: str | int) -> None:
        super().__init__(derive_seed(seed, purpose, *place))
        self._root, self._place = seed, place

    def derive(self, purpose: str) -> int:
        """Return a seed for something else at the same place; what was drawn so far does not matter."""
        return derive_seed(self._root, purpose, *self._place)
