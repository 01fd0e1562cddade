"""The shape of a µLM and of its long-term memory: frozen configs and the presets by size.

Owns names, ranges and presets; refuses to know weights, devices and training.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

Eviction = Literal["age", "use", "surprisal"]
EVICTIONS: tuple[Eviction, ...] = get_args(Eviction)

PARTS = ("ltm",)
"""Parts that a model may lack: keys of its config, and the first words of their weights' names."""


def _check_numbers(part: str, config: Any) -> None:
    """Refuse values that are no numbers of their fields' types; whole ones are at least 1."""
    for field in dataclasses.fields(config):
        value, kind = getattr(config, field.name), str(field.type)
        if value is None and "None" in kind:
            continue
        hint = "; or leave it out" if "None" in kind else ""
        if kind.startswith("int") and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{part}: {field.name} must be a whole number of at least 1, got {value!r}{hint}")
        if kind.startswith("float") and (not isinstance(value, int | float) or not math.isfinite(value)):
            raise ValueError(f"{part}: {field.name} must be a number, got {value!r}{hint}")


def _check_keys(part: str, config_class: type, data: dict[str, Any]) -> None:
    known = {field.name for field in dataclasses.fields(config_class)}
    if unknown := sorted(set(data) - known):
        raise ValueError(f"{part}: unknown keys {', '.join(unknown)}; known: {', '.join(sorted(known))}")


@dataclass(frozen=True, slots=True)
class LTMConfig:
    """A long-term memory beside the window: what is written, what is kept, what is read (see `ulm.memory.ltm`).

    Attributes:
        layers: blocks before which the memory is read, counted from 0.
        n_head, head_size: of the reads.
        capacity: items kept per sequence.
        slots: places beside them for what consolidation keeps (`ulm.memory.consolidation`), None for none.
        segment: tokens between writes, counted from the start of a document; at most the window, so that what has
            left the window is always in memory.
        threshold_bits: a token is written if its surprisal exceeds this.
        gamma: if given, the threshold is mean + gamma x standard deviation of the surprisals of the `segment` tokens
            before instead (EM-LLM, arXiv:2407.09450).
        write_budget: at most so many tokens of a segment are written, the most surprising ones; None means all.
        eviction: what a full memory loses first: the oldest item (`age`), the one that was not read for longest
            (`use`), or the least surprising one (`surprisal`).
        similarity: an item is read where the cosine of its key and the query exceeds this.
        overwrite: if given, a new item replaces those whose keys have a higher cosine than this with its own, with
            every head; so what was last said of a thing is what is read.

    Raises:
        ValueError: a value is out of range.
    """

    layers: tuple[int, ...]
    n_head: int = 2
    head_size: int = 64
    capacity: int = 256
    segment: int = 128
    threshold_bits: float = 4.5
    gamma: float | None = None
    write_budget: int | None = None
    eviction: Eviction = "age"
    similarity: float = 0.8
    overwrite: float | None = None
    slots: int | None = None

    def __post_init__(self) -> None:
        _check_numbers("ltm", self)
        whole = all(isinstance(layer, int) for layer in self.layers)
        if not self.layers or not whole or list(self.layers) != sorted(set(self.layers)) or self.layers[0] < 0:
            raise ValueError(f"ltm: layers must be rising block numbers from 0, got {list(self.layers)}")
        if self.eviction not in EVICTIONS:
            raise ValueError(f"ltm: unknown eviction {self.eviction!r}; available: {', '.join(EVICTIONS)}")
        for name, cosine in (("similarity", self.similarity), ("overwrite", self.overwrite)):
            if cosine is not None and not 0.0 <= cosine < 1.0:
                raise ValueError(f"ltm: {name} must be from 0 to below 1, got {cosine}")

    @property
    def width(self) -> int:
        """Numbers in a key, and in a value, of one layer."""
        return self.n_head * self.head_size

    @property
    def places(self) -> int:
        """Items and slots together."""
        return self.capacity + (self.slots or 0)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LTMConfig:
        """Build from JSON data.

        Raises:
            ValueError: keys are unknown or missing, or a value is out of range.
        """
        _check_keys("ltm", cls, data)
        if not isinstance(data.get("layers"), list | tuple):
            raise ValueError(f"ltm: layers must be a list of block numbers, got {data.get('layers')!r}")
        return cls(**{**data, "layers": tuple(data["layers"])})


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A Llama-family decoder with sliding-window attention (the STM).

    Attributes:
        vocab_size: tokens in the vocabulary.
        n_layer, n_head, n_kv_head, head_size: depth and attention; n_head is a multiple of n_kv_head (GQA).
        d_model, d_ff: width of the residual stream and of the SwiGLU.
        window: tokens a position attends to, itself included; also the size of the KV ring cache.
        rope_theta, norm_eps, tie_embeddings: as in transformers' LlamaConfig.
        ltm: long-term memory; None, the default, means none.

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
    ltm: LTMConfig | None = None

    def __post_init__(self) -> None:
        _check_numbers("model config", self)
        if self.n_head % self.n_kv_head:
            raise ValueError(f"model config: n_head {self.n_head} is not a multiple of n_kv_head {self.n_kv_head}")
        if self.head_size % 2:
            raise ValueError(f"model config: head_size {self.head_size} must be even for RoPE")
        if self.ltm is not None:
            if self.ltm.layers[-1] >= self.n_layer:
                raise ValueError(f"ltm: layer {self.ltm.layers[-1]} of a model of {self.n_layer} layers")
            if self.ltm.segment > self.window:
                raise ValueError(f"ltm: segment {self.ltm.segment} must not exceed the window {self.window}")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able data."""
        data = dataclasses.asdict(self)
        if self.ltm is not None:
            data["ltm"]["layers"] = list(self.ltm.layers)
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> ModelConfig:
        """Build from `to_dict`'s data.

        Raises:
            ValueError: keys are unknown or missing.
        """
        _check_keys("model config", cls, data)
        if isinstance(ltm := data.get("ltm"), dict):
            data = {**data, "ltm": LTMConfig.from_dict(ltm)}
        try:
            return cls(**data)
        except TypeError as error:
            raise ValueError(f"model config: {error}") from error

    @property
    def segment(self) -> int:
        """Tokens between writes to the memory; the window without one."""
        return self.ltm.segment if self.ltm else self.window

    @property
    def chunk(self) -> int:
        """Tokens that are read at a time: as many whole segments as the window holds."""
        return self.window // self.segment * self.segment

    def num_parameters(self) -> int:
        """Return the number of parameters, tied embeddings counted once."""
        C, heads = self.d_model, self.n_head + self.n_kv_head
        layer = 2 * C * heads * self.head_size + 3 * C * self.d_ff + 2 * C
        total = self.vocab_size * C * (1 if self.tie_embeddings else 2) + self.n_layer * layer + C
        if self.ltm is not None:
            total += len(self.ltm.layers) * (3 * C * self.ltm.width + C + 3 * self.ltm.n_head)
        return total


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

# Pairs that differ in memory alone, named by their parameters: the small ones with 4,096 tokens, 70m with GPT-2's
# 50,257. `ltm-*` has the memory, `gpt-*` is the same without it and wider in its SwiGLUs by as many parameters.
PAIRS: dict[str, dict[str, Any]] = {
    "1m": {
        "n_layer": 5,
        "n_head": 3,
        "n_kv_head": 1,
        "d_model": 96,
        "d_ff": 256,
        "ltm": {"layers": (2,), "head_size": 32},
    },
    "4m": {"n_layer": 7, "n_head": 6, "n_kv_head": 3, "d_model": 192, "d_ff": 512, "ltm": {"layers": (3,)}},
    "10m": {"n_layer": 11, "n_head": 8, "n_kv_head": 4, "d_model": 256, "d_ff": 704, "ltm": {"layers": (5,)}},
    "70m": {
        "n_layer": 14,
        "n_head": 8,
        "n_kv_head": 4,
        "head_size": 64,
        "d_model": 512,
        "d_ff": 1408,
        "ltm": {"layers": (7,), "n_head": 4},
    },
}


def preset(name: str, vocab_size: int, **changes: Any) -> ModelConfig:
    """Return the preset `name` with the vocabulary filled in and `changes` applied.

    Args:
        name: one of `PRESETS`, or `gpt-` or `ltm-` and one of `PAIRS`.
        vocab_size: tokens in the vocabulary.
        changes: fields of `ModelConfig`; `ltm` may be fields of `LTMConfig` to change.

    Raises:
        ValueError: no such preset, or the changes do not fit.
    """
    kind, _, size = name.partition("-")
    if kind in ("gpt", "ltm") and size in PAIRS:
        fields = {**PAIRS[size], **changes, "ltm": {**PAIRS[size]["ltm"], **(changes.get("ltm") or {})}}
        with_memory = ModelConfig.from_dict({"vocab_size": vocab_size, **fields})
        return with_memory if kind == "ltm" else matched_without_memory(with_memory)
    if name not in PRESETS:
        known = [*PRESETS, *(f"{kind}-{size}" for size in PAIRS for kind in ("gpt", "ltm"))]
        raise ValueError(f"unknown model preset {name!r}; available: {', '.join(known)}")
    return ModelConfig.from_dict({"vocab_size": vocab_size, **PRESETS[name], **changes})


def matched_without_memory(config: ModelConfig) -> ModelConfig:
    """Return the same model without long-term memory, its SwiGLUs widened to about as many parameters.

    Widths are multiples of 8: matrix products of odd widths are slower, and a baseline must not be slowed down.
    """
    bare = dataclasses.replace(config, ltm=None)
    missing = config.num_parameters() - bare.num_parameters()
    width = config.d_ff + missing / (3 * config.d_model * config.n_layer)
    return dataclasses.replace(bare, d_ff=max(8, 8 * round(width / 8)))
