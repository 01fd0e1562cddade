"""Models of transformers: import and export of µLMs, and memories for any causal language model.

Names are loaded on first use; transformers is imported when a function is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ulm.hf.engram_model import EngramModel, add_engram
    from ulm.hf.engram_trainer import AnswerCollator, AnswerTrainer, EngramTrainer
    from ulm.hf.gated import GatedEngramAdapter, without_adapters
    from ulm.hf.llama import from_llama, to_llama, to_mistral
    from ulm.memory.engram import EngramConfig

__all__ = [
    "AnswerCollator",
    "AnswerTrainer",
    "EngramConfig",
    "EngramModel",
    "EngramTrainer",
    "GatedEngramAdapter",
    "add_engram",
    "from_llama",
    "to_llama",
    "to_mistral",
    "without_adapters",
]

_HOMES = {
    "AnswerCollator": "ulm.hf.engram_trainer",
    "AnswerTrainer": "ulm.hf.engram_trainer",
    "EngramTrainer": "ulm.hf.engram_trainer",
    "EngramConfig": "ulm.memory.engram",
    "GatedEngramAdapter": "ulm.hf.gated",
    "EngramModel": "ulm.hf.engram_model",
    "add_engram": "ulm.hf.engram_model",
    "from_llama": "ulm.hf.llama",
    "to_llama": "ulm.hf.llama",
    "to_mistral": "ulm.hf.llama",
    "without_adapters": "ulm.hf.gated",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ulm.hf' has no attribute {name!r}")
