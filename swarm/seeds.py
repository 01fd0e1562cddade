"""Derived randomness: every random draw in a run has a seed computed from its logical place.

The rule itself lives in `worlds.seeds`: worlds draw by it, too, and know no swarm.
"""

from __future__ import annotations

from worlds.seeds import derive_seed

__all__ = ["derive_seed"]
