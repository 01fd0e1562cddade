"""Models of transformers: import and export of µLMs.

Names are loaded on first use, and transformers with what needs it.
"""

from typing import TYPE_CHECKING

from ulm.lazy import names_from

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

__getattr__ = names_from(
    __name__,
    {
        "export": "export_checkpoint",
        "llama": "from_llama to_llama to_mistral",
        "ulm_model": "UlmConfig UlmForCausalLM to_ulm",
    },
)
