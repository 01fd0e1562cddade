"""The shape of a µLM: one frozen config and the presets by size.

Owns names, ranges and presets; refuses to know weights, devices and training.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

__all__ = ["PRESETS", "ModelConfig", "preset"]


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A Llama-family decoder with sliding-window attention (the STM).

    Attributes:
        vocab_size: tokens in the vocabulary.
        n_layer, n_head, n_kv_head, head_size: depth and attention; n_head is a multiple of n_kv_head (GQA).
        d_model, d_ff: width of the residual stream and of the SwiGLU.
        window: tokens a position attends to, itself included; also the size of the KV ring cache.
        rope_theta, norm_eps, tie_embeddings: as in transformers' LlamaConfig.

    Raises:
        ValueError: a size is out of range or sizes do not fit together.
    """

    vocab_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    d_model: int
    d_ff: int
    head_size: int = 32
    window: int = 128
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-5
    tie_embeddings: bool = True

    def __post_init__(self) -> None:
        for field in ("vocab_size", "n_layer", "n_head", "n_kv_head", "d_model", "d_ff", "head_size", "window"):
            value = getattr(self, field)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"model config: {field} must be a whole number of at least 1, got {value!r}")
        if self.n_head % self.n_kv_head:
            raise ValueError(f"model config: n_head {self.n_head} is not a multiple of n_kv_head {self.n_kv_head}")
        if self.head_size % 2:
            raise ValueError(f"model config: head_size {self.head_size} must be even for RoPE")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelConfig:
        """Build from `to_dict`'s data.

        Raises:
            ValueError: keys are unknown or missing.
        """
        names = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - names):
            raise ValueError(f"model config: unknown keys {', '.join(unknown)}; known: {', '.join(sorted(names))}")
        try:
            return cls(**data)
        except TypeError as error:
            raise ValueError(f"model config: {error}") from error

    def num_parameters(self) -> int:
        """Return the number of parameters, tied embeddings counted once."""
        q = self.n_head * self.head_size
        kv = self.n_kv_head * self.head_size
        layer = self.d_model * (2 * q + 2 * kv) + 3 * self.d_model * self.d_ff + 2 * self.d_model
        embeddings = self.vocab_size * self.d_model * (1 if self.tie_embeddings else 2)
        return embeddings + self.n_layer * layer + self.d_model


# Sizes without embeddings of a small vocabulary; `135m` is the shape of SmolLM2-135M (with its 49,152 tokens).
PRESETS: dict[str, dict[str, Any]] = {
    "tiny": {"n_layer": 2, "n_head": 2, "n_kv_head": 1, "d_model": 64, "d_ff": 128},
    "1m": {"n_layer": 6, "n_head": 4, "n_kv_head": 2, "d_model": 128, "d_ff": 384},
    "5m": {"n_layer": 6, "n_head": 8, "n_kv_head": 4, "d_model": 256, "d_ff": 960},
    "10m": {"n_layer": 8, "n_head": 10, "n_kv_head": 5, "d_model": 320, "d_ff": 1024},
    "30m": {"n_layer": 12, "n_head": 7, "n_kv_head": 7, "d_model": 448, "d_ff": 1280, "head_size": 64},
    "70m": {"n_layer": 14, "n_head": 10, "n_kv_head": 5, "d_model": 640, "d_ff": 1792, "head_size": 64},
    "135m": {
        "n_layer": 30,
        "n_head": 9,
        "n_kv_head": 3,
        "d_model": 576,
        "d_ff": 1536,
        "head_size": 64,
        "rope_theta": 100_000.0,
    },
}


def preset(name: str, vocab_size: int, **changes: Any) -> ModelConfig:
    """Return the preset `name` with the vocabulary filled in and `changes` applied.

    Raises:
        ValueError: no such preset, or the changes do not fit.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown model preset {name!r}; available: {', '.join(PRESETS)}")
    return ModelConfig.from_dict({"vocab_size": vocab_size, **PRESETS[name], **changes})
