"""A delta of a pretrained Llama, as the folder of an adapter that PEFT loads.

- Projections that are fused here (q, k, v; gate, up) share their A there, and have their own rows of B.
- alpha is the rank, so that PEFT's scale is 1.
- Rows of the embedding are PEFT's trainable tokens, which hold the new rows themselves, not what was added.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ulm.delta import Delta
from ulm.files import TakenError, whole_folder
from ulm.hf.llama import parts_of
from ulm.model import Decoder

FILES = frozenset({"adapter_config.json", "adapter_model.safetensors", "learned.json"})
_PREFIX = "base_model.model."


def save_adapter(delta: Delta, base: Decoder, base_name: str, out: Path, about: dict[str, Any]) -> None:
    """Write the adapter, which replaces an adapter that was there.

    Args:
        delta: what was learned.
        base: the model that it was learned beside, as `from_llama` returns it.
        base_name: where users find that model: a folder, or a Hugging Face name.
        out: where to.
        about: where the delta comes from, JSON-able; it is written beside the adapter.

    Raises:
        ValueError: the delta belongs to another model, `out` holds something else, or the disk refuses.
    """
    delta.refuse_other(base)
    tensors, targets = _factors(delta, base)
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": delta.rank,
        "lora_alpha": delta.rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": sorted(targets),
        "inference_mode": True,
    }
    if len(delta.ids_E):
        rows_EC = base.state_dict()["embed.weight"][delta.ids_E] + delta.rows_EC
        tensors[f"{_PREFIX}model.embed_tokens.token_adapter.trainable_tokens_delta"] = rows_EC
        config["trainable_token_indices"] = {"embed_tokens": delta.ids_E.tolist()}
    try:
        with whole_folder(out, FILES) as fresh:
            ready = {name: tensor.detach().to("cpu", torch.float32).contiguous() for name, tensor in tensors.items()}
            save_file(ready, fresh / "adapter_model.safetensors", metadata={"format": "pt"})
            (fresh / "adapter_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
            (fresh / "learned.json").write_text(json.dumps(about, indent=2), encoding="utf-8")
    except TakenError as error:
        raise ValueError(f"adapter: {error}") from error
    except OSError as error:
        raise ValueError(f"cannot write adapter {out}: {error.strerror or error}") from error


def _factors(delta: Delta, base: Decoder) -> tuple[dict[str, Tensor], set[str]]:
    """Return the factors by their names in PEFT, and the names of the layers that have them."""
    c, parts = base.config, parts_of(base.config)
    rows = {
        "qkv": [c.n_head * c.head_size, c.n_kv_head * c.head_size, c.n_kv_head * c.head_size],
        "gate_up": [c.d_ff, c.d_ff],
    }
    tensors: dict[str, Tensor] = {}
    targets: set[str] = set()
    for name, (a_RK, b_NR) in delta.factors.items():
        fused = name.split(".")[-2]
        split = torch.split(b_NR, rows.get(fused, [len(b_NR)]))
        for part, part_NR in zip(parts[name], split, strict=True):
            layer = part.removesuffix(".weight")
            targets.add(layer.rpartition(".")[2])
            tensors[f"{_PREFIX}{layer}.lora_A.weight"] = a_RK.clone()
            tensors[f"{_PREFIX}{layer}.lora_B.weight"] = part_NR
    return tensors, targets
