"""Models of transformers: import and export of µLMs.

Names are loaded on first use, and transformers with what needs it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ulm.hf.export import export_checkpoint
    from ulm.hf.llama import from_llama, to_llama, to_mistral
    from ulm.hf.ulm_model import UlmConfig, UlmForCausalLM, to_ulm

__all__ = [
    "UlmConfig",
    "UlmForCausalLM",
    "export_checkpoint",
    "from_llama",
    "to_llama",
    "to_mistral",
    "to_ulm",
]

_HOMES = {
    "UlmConfig": "ulm.hf.ulm_model",
    "UlmForCausalLM": "ulm.hf.ulm_model",
    "export_checkpoint": "ulm.hf.export",
    "from_llama": "ulm.hf.llama",
    "to_llama": "ulm.hf.llama",
    "to_mistral": "ulm.hf.llama",
    "to_ulm": "ulm.hf.ulm_model",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ulm.hf' has no attribute {name!r}")
