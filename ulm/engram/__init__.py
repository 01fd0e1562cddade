"""Engram: facts for any causal language model of transformers, and what trains and gates them.

Names are loaded on first use; transformers is imported when a function is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ulm.engram.gated import GatedEngramAdapter, without_adapters
    from ulm.engram.model import EngramModel, add_engram
    from ulm.engram.tables import EngramConfig
    from ulm.engram.trainer import AnswerCollator, AnswerTrainer, EngramTrainer

__all__ = [
    "AnswerCollator",
    "AnswerTrainer",
    "EngramConfig",
    "EngramModel",
    "EngramTrainer",
    "GatedEngramAdapter",
    "add_engram",
    "without_adapters",
]

_HOMES = {
    "AnswerCollator": "trainer",
    "AnswerTrainer": "trainer",
    "EngramTrainer": "trainer",
    "EngramConfig": "tables",
    "EngramModel": "model",
    "add_engram": "model",
    "GatedEngramAdapter": "gated",
    "without_adapters": "gated",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"ulm.engram.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'ulm.engram' has no attribute {name!r}")
