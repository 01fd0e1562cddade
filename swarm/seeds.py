"""Derived randomness: every random draw in a run has a seed computed from its logical place.

Owns `derive_seed`; refuses global generators, Python's `hash()`, clocks and UUIDs, so a run can be
played again and compared byte by byte.
"""

from __future__ import annotations

import hashlib

__all__ = ["derive_seed"]


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
