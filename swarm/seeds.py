"""Derived randomness: every random draw in a run has a seed computed from its logical place.

The rule itself lives in `worlds.seeds`: worlds draw by it, too, and know no swarm.
"""

from worlds.seeds import derive_seed as derive_seed
