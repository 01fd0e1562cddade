"""Engram: facts for any causal language model of transformers, and what trains and gates them.

Names are loaded on first use, and transformers with what needs it.
"""

from typing import TYPE_CHECKING

from ulm.lazy import names_from

if TYPE_CHECKING:
    from ulm.engram.gated import GatedEngramAdapter, without_adapters
    from ulm.engram.model import EngramModel, add_engram
    from ulm.engram.optimizer import engram_optimizer
    from ulm.engram.tables import EngramConfig

__all__ = [
    "EngramConfig",
    "EngramModel",
    "GatedEngramAdapter",
    "add_engram",
    "engram_optimizer",
    "without_adapters",
]

__getattr__ = names_from(
    __name__,
    {
        "gated": "GatedEngramAdapter without_adapters",
        "model": "EngramModel add_engram",
        "optimizer": "engram_optimizer",
        "tables": "EngramConfig",
    },
)
