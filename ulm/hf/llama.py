"""To and from the models of transformers.

Owns the map between `Decoder` and Llama-family models: config fields and tensor names, the fused projections
split and joined. It refuses to guess: a feature that `Decoder` lacks is an error that names it.

Llama has no sliding window, so `to_llama` computes the same logits for texts of at most `window` tokens, and
says so through `max_position_embeddings`. Mistral has one; `to_mistral` is equal at any length.
"""

import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    LlamaForCausalLM,
    MistralForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from ulm.config import ModelConfig
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer

_LAYER = {
    "attn_norm": ("input_layernorm.weight",),
    "qkv.weight": tuple(f"self_attn.{part}_proj.weight" for part in "qkv"),
    "out.weight": ("self_attn.o_proj.weight",),
    "mlp_norm": ("post_attention_layernorm.weight",),
    "gate_up.weight": ("mlp.gate_proj.weight", "mlp.up_proj.weight"),
    "down.weight": ("mlp.down_proj.weight",),
}
"""By the name of a block's tensor here: the names in transformers of what it consists of, row below row."""


def to_llama(model: Decoder, tokenizer: Tokenizer | None = None) -> LlamaForCausalLM:
    """Return transformers' Llama with a copy of the weights; logits are equal up to `window` tokens.

    Args:
        model: what to export.
        tokenizer: sets the end-of-text and padding ids, where `generate` and vLLM look for them.

    Raises:
        ValueError: the width is not a multiple of the heads, which Llama's config does not allow.
    """
    c = model.config
    if c.d_model % c.n_head:
        raise ValueError(f"Llama needs d_model ({c.d_model}) to be a multiple of n_head ({c.n_head}); use to_mistral")
    return _exported(LlamaForCausalLM, model, tokenizer, max_position_embeddings=c.window)


def to_mistral(model: Decoder, tokenizer: Tokenizer | None = None, max_length: int = 8192) -> MistralForCausalLM:
    """Return transformers' Mistral, which has the sliding window, with a copy of the weights.

    Args:
        model: what to export.
        tokenizer: sets the end-of-text and padding ids.
        max_length: `max_position_embeddings`, the longest text that servers accept; it changes no logit.
    """
    return _exported(
        MistralForCausalLM,
        model,
        tokenizer,
        max_position_embeddings=max_length,
        sliding_window=model.config.window,
    )


def from_llama(
    model_or_path: PreTrainedModel | str | Path, window: int | None = None
) -> tuple[Decoder, Tokenizer | None]:
    """Import a Llama or Mistral model of transformers.

    Args:
        model_or_path: a model, a folder, or a Hugging Face name; only safetensors are read.
        window: tokens a position sees; None takes the model's own sliding window, or all that it was made for
            (`max_position_embeddings`). A smaller one changes the logits of longer texts.

    Returns:
        The model in eval mode, float32 from a path and as it was otherwise; and the tokenizer, None where a
        model was given or the folder holds none.

    Raises:
        ValueError: nothing is there, or the model has a feature that `Decoder` lacks.
    """
    source, tokenizer = _load(model_or_path) if isinstance(model_or_path, (str, Path)) else (model_or_path, None)
    config = _import_config(source.config, window)
    theirs: dict[str, Tensor] = source.state_dict()
    model = Decoder(config).to(source.device, source.dtype)
    model.load_state_dict(
        {name: torch.cat([theirs[part] for part in parts]) for name, parts in parts_of(config).items()}
    )
    return model.eval(), tokenizer


def parts_of(config: ModelConfig) -> dict[str, list[str]]:
    """Return the names in transformers of what each tensor of a `Decoder` consists of."""
    parts = {"embed.weight": ["model.embed_tokens.weight"], "norm": ["model.norm.weight"]}
    if not config.tie_embeddings:
        parts["head.weight"] = ["lm_head.weight"]
    for i in range(config.n_layer):
        parts |= {f"blocks.{i}.{name}": [f"model.layers.{i}.{part}" for part in of] for name, of in _LAYER.items()}
    return parts


def to_fast_tokenizer(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    """Return what encodes as ours: markers in a text are text, and nothing is put before or after it."""
    inner = tokenizers.Tokenizer.from_str(json.dumps({**json.loads(tokenizer.to_json()), "post_processor": None}))
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token=inner.id_to_token(tokenizer.pad_id),
        eos_token=inner.id_to_token(tokenizer.eot_id),
        split_special_tokens=True,
        padding_side="left",  # as batches have to be padded that are continued
    )


def _exported(kind: Any, model: Decoder, tokenizer: Tokenizer | None, **fields: Any) -> Any:
    """Return a model of a class of transformers with our shape and a copy of our weights."""
    c = model.config
    if model.ltm is not None:
        raise ValueError("transformers has no long-term memory; export a model without one")
    config = kind.config_class(
        vocab_size=c.vocab_size,
        hidden_size=c.d_model,
        intermediate_size=c.d_ff,
        num_hidden_layers=c.n_layer,
        num_attention_heads=c.n_head,
        num_key_value_heads=c.n_kv_head,
        head_dim=c.head_size,
        hidden_act="silu",
        rms_norm_eps=c.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope_theta},
        tie_word_embeddings=c.tie_embeddings,
        bos_token_id=None,
        eos_token_id=tokenizer.eot_id if tokenizer else None,
        pad_token_id=tokenizer.pad_id if tokenizer else None,
        dtype=model.dtype,
        **fields,
    )
    with torch.random.fork_rng(devices=[]):  # its initial weights would draw from the global generator
        other_model = kind(config).to(model.device)
    for parameter in other_model.parameters():  # not `.to(dtype)`, which would round the rotary frequencies too
        parameter.data = parameter.data.to(model.dtype)
    theirs: dict[str, Tensor] = other_model.state_dict()
    ours = model.state_dict()
    for name, parts in parts_of(c).items():
        theirs |= zip(parts, ours[name].split([len(theirs[part]) for part in parts]), strict=True)
    if c.tie_embeddings:
        theirs["lm_head.weight"] = ours["embed.weight"]
    other_model.load_state_dict(theirs)
    return other_model.eval()


def _load(name_or_path: str | Path) -> tuple[PreTrainedModel, Tokenizer | None]:
    # The config before the weights, which may take long to fetch.
    _import_config(_pretrained(AutoConfig, name_or_path), None)
    model = _pretrained(AutoModelForCausalLM, name_or_path, dtype=torch.float32, use_safetensors=True)
    folder = Path(name_or_path)
    has_none = folder.is_dir() and not (folder / "tokenizer.json").is_file()
    return model, None if has_none else Tokenizer.load(name_or_path)


def _pretrained(kind: Any, name_or_path: str | Path, **options: Any) -> Any:
    try:
        return kind.from_pretrained(str(name_or_path), trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"no Llama model with safetensors at {name_or_path}: give a folder, or a Hugging Face name that "
            f"this machine can reach ({str(error).splitlines()[0]})"
        ) from error


def _import_config(config: PretrainedConfig, window: int | None) -> ModelConfig:
    """Return the shape of a transformers model, or say which of its features there is no room for."""
    if config.model_type not in ("llama", "mistral"):
        raise ValueError(f"cannot import a {config.model_type} model; only llama and mistral fit ulm's Decoder")
    rope = dict(getattr(config, "rope_parameters", None) or {})
    scaling = rope.get("rope_type", "default")
    unsupported = {
        "attention bias": getattr(config, "attention_bias", False),
        "MLP bias": getattr(config, "mlp_bias", False),
        f"activation {config.hidden_act}": config.hidden_act not in ("silu", "swish"),
        f"rope scaling {scaling}": scaling != "default",
        "interleaved rope": getattr(config, "rope_interleaved", False),
        "quantized weights": getattr(config, "quantization_config", None) is not None,
    }
    if found := [feature for feature, present in unsupported.items() if present]:
        raise ValueError(f"cannot import this {config.model_type} model: ulm's Decoder has no {', no '.join(found)}")
    return ModelConfig(
        vocab_size=config.vocab_size,
        n_layer=config.num_hidden_layers,
        n_head=config.num_attention_heads,
        n_kv_head=config.num_key_value_heads,
        d_model=config.hidden_size,
        d_ff=config.intermediate_size,
        head_size=config.head_dim or config.hidden_size // config.num_attention_heads,
        window=window or getattr(config, "sliding_window", None) or config.max_position_embeddings,
        rope_theta=float(rope.get("rope_theta", 10_000.0)),
        norm_eps=config.rms_norm_eps,
        tie_embeddings=config.tie_word_embeddings,
    )
