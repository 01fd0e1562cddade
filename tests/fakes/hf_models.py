"""Tiny models of transformers, and a tokenizer for them."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from ulm.tokenizer import Tokenizer

VOCAB = 280
_SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 256, "bos_token_id": None, "eos_token_id": 1,
    "pad_token_id": 0, "initializer_range": 0.2,
}  # fmt: skip
CONFIGS: dict[str, Any] = {
    "llama": LlamaConfig(**_SHAPE),
    "mistral": MistralConfig(**_SHAPE, sliding_window=8),
    "qwen3": Qwen3Config(**_SHAPE),
    "gemma2": Gemma2Config(**_SHAPE, sliding_window=8, query_pre_attn_scalar=8),
    "gpt2": GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=4, n_head=4, n_positions=256, bos_token_id=None, eos_token_id=1,
        pad_token_id=0, initializer_range=0.2,
    ),
}  # fmt: skip


def tiny_model(kind: str = "llama") -> Any:
    """A model with random weights, the same every time."""
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(CONFIGS[kind], attn_implementation="eager").eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """The byte tokenizer, as transformers wants it."""
    names = {"pad_token": "<pad>", "eos_token": "<eot>"}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.bytes().inner, **names)
