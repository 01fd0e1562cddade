"""Between text and registry: propositions, one decoder that reads, writes and asks, and what follows from relations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ulm.lazy import names_from

if TYPE_CHECKING:
    from ulm.symmetric.compositions import Compositions, derived
    from ulm.symmetric.network import Network, own_claims, own_texts
    from ulm.symmetric.pairs import Mixture, Pair, read_pairs, write_pairs
    from ulm.symmetric.propositions import Proposition

__all__ = [
    "Compositions",
    "Mixture",
    "Network",
    "Pair",
    "Proposition",
    "derived",
    "own_claims",
    "own_texts",
    "read_pairs",
    "write_pairs",
]

__getattr__ = names_from(
    __name__,
    {
        "compositions": "Compositions derived",
        "network": "Network own_claims own_texts",
        "pairs": "Mixture Pair read_pairs write_pairs",
        "propositions": "Proposition",
    },
)
