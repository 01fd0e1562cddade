"""The µLM core: token ids in, logits out.

Owns the list of public names and loads their modules on first use, so that reading a model config does not
cost the import of torch. Knows no Ray, no worlds, no swarm. Import and export of other models is in `ulm.hf`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ulm.lazy import names_from

if TYPE_CHECKING:
    from ulm.checkpoint import (
        Checkpoint,
        CheckpointConfig,
        CheckpointError,
        build_model,
        checkpoint_hash,
        load_checkpoint,
        load_weights_numpy,
        read_checkpoint_config,
        save_checkpoint,
    )
    from ulm.config import PRESETS, ModelConfig, preset
    from ulm.decode.constraint import Constraint
    from ulm.decode.engine import Engine, GenerationRequest, GenerationResult
    from ulm.model import Decoder, KVCache
    from ulm.tokenizer import Tokenizer

# MKL rounds products of few rows in another way than those of many (seen with AVX-512): what a text gets would depend
# on its company in a batch. MKL reads this at its first product; whoever sets another value keeps it.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

__all__ = [
    "PRESETS",
    "Checkpoint",
    "CheckpointConfig",
    "CheckpointError",
    "Constraint",
    "Decoder",
    "Engine",
    "GenerationRequest",
    "GenerationResult",
    "KVCache",
    "ModelConfig",
    "Tokenizer",
    "build_model",
    "checkpoint_hash",
    "load_checkpoint",
    "load_weights_numpy",
    "preset",
    "read_checkpoint_config",
    "save_checkpoint",
]

__getattr__ = names_from(
    __name__,
    {
        "checkpoint": "Checkpoint CheckpointConfig CheckpointError build_model checkpoint_hash load_checkpoint "
        "load_weights_numpy read_checkpoint_config save_checkpoint",
        "config": "PRESETS ModelConfig preset",
        "decode.constraint": "Constraint",
        "decode.engine": "Engine GenerationRequest GenerationResult",
        "model": "Decoder KVCache",
        "tokenizer": "Tokenizer",
    },
)
