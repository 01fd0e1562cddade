"""Engram: facts for any causal language model of transformers, and what trains and gates them.

Names are loaded on first use, and transformers with what needs it.
"""

import importlib
from typing import TYPE_CHECKING, Any

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

_HOMES = {
    "EngramConfig": "tables",
    "EngramModel": "model",
    "add_engram": "model",
    "engram_optimizer": "optimizer",
    "GatedEngramAdapter": "gated",
    "without_adapters": "gated",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"ulm.engram.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ulm.engram' has no attribute {name!r}")
