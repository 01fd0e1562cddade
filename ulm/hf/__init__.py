"""Models of transformers: import and export of µLMs, and memories for any causal language model.

Names are loaded on first use; transformers is imported when a function is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ulm.hf.engram_model import EngramModel, add_engram
    from ulm.hf.engram_trainer import AnswerCollator, AnswerTrainer, EngramTrainer
    from ulm.hf.export import export_checkpoint
    from ulm.hf.gated import GatedEngramAdapter, without_adapters
    from ulm.hf.llama import from_llama, to_llama, to_mistral
    from ulm.hf.ulm_model import UlmConfig, UlmForCausalLM, to_ulm
    from ulm.memory.engram import EngramConfig

__all__ = [
    "AnswerCollator",
    "AnswerTrainer",
    "EngramConfig",
    "EngramModel",
    "EngramTrainer",
    "GatedEngramAdapter",
    "UlmConfig",
    "UlmForCausalLM",
    "add_engram",
    "export_checkpoint",
    "from_llama",
    "to_llama",
    "to_mistral",
    "to_ulm",
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
    "UlmConfig": "ulm.hf.ulm_model",
    "UlmForCausalLM": "ulm.hf.ulm_model",
    "export_checkpoint": "ulm.hf.export",
    "from_llama": "ulm.hf.llama",
    "to_llama": "ulm.hf.llama",
    "to_mistral": "ulm.hf.llama",
    "to_ulm": "ulm.hf.ulm_model",
    "without_adapters": "ulm.hf.gated",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ulm.hf' has no attribute {name!r}")
