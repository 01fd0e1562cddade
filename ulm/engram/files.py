"""Engrams as files: adapter_config.json, adapter_model.safetensors, memory.sqlite, and tables that stay on disk.

Owns the format, its version, and the refusal of everything that does not fit to the last key.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ulm.engram.adapter import EngramAdapter
from ulm.engram.tables import EngramConfig
from ulm.files import write_whole

FORMAT = 1
_CONFIG, _WEIGHTS, _FACTS, _TABLE = "adapter_config.json", "adapter_model.safetensors", "memory.sqlite", "table_{}.npy"


def write_adapter(adapter: EngramAdapter, base: dict[str, Any], folder: Path, tables_on_disk: bool = False) -> None:
    """Write an adapter into a folder; the configuration, without which it is none, comes last.

    Args:
        adapter: what to write.
        base: what of the model and its tokenizer must be the same where it is loaded.
        folder: made if it is not there.
        tables_on_disk: write tables as files that stay on disk where the adapter is loaded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(adapter.config, table="disk") if tables_on_disk else adapter.config
    weights = {
        key: tensor.detach().cpu().contiguous()
        for key, tensor in adapter.state_dict().items()
        if config.table != "disk" or not key.endswith("table.weight")
    }
    if adapter.content is not None:
        weights |= adapter.content.tensors()
    write_whole(folder / _WEIGHTS, lambda fresh: save_file(weights, fresh))
    if adapter.tables is not None and config.table == "disk":
        for i, layer in enumerate(adapter.tables.layers):
            layer.table.save_file(folder / _TABLE.format(i))
    if adapter.memory is not None:
        adapter.memory.copy_to(folder / _FACTS)
    text = json.dumps({"format": FORMAT, "kind": "engram", **base, "engram": config.to_dict()}, indent=1) + "\n"
    write_whole(folder / _CONFIG, text)


def read_about(folder: Path, base: dict[str, Any]) -> EngramConfig:
    """Return the configuration of an adapter in a folder.

    Raises:
        ValueError: there is none, or it is of another version, or was made for another model or tokenizer.
    """
    file = folder / _CONFIG
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"there is no Engram in {folder}: cannot read {file} ({error})") from error
    if not isinstance(about, dict) or about.get("kind") != "engram":
        raise ValueError(f"{file} describes no Engram; PEFT's own adapters load with PeftModel.from_pretrained")
    if about.get("format") != FORMAT:
        raise ValueError(f"{file} has format {about.get('format')}, this version reads {FORMAT}")
    if other := [f"{key} {about.get(key)}, here {value}" for key, value in base.items() if about.get(key) != value]:
        raise ValueError(f"the Engram in {folder} was made for another model or tokenizer: {'; '.join(other)}")
    return EngramConfig.from_dict(about["engram"])


def fill_adapter(adapter: EngramAdapter, folder: Path) -> None:
    """Give a new adapter what a folder holds.

    Raises:
        ValueError: keys, shapes or hashes do not fit, or a file is missing or damaged.
    """
    try:
        weights = load_file(folder / _WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read {folder / _WEIGHTS}: {error}") from error
    if adapter.content is not None:
        adapter.content.load_tensors({key: weights.pop(key) for key in list(weights) if key.startswith("content.")})
    own = adapter.state_dict()
    wrong = [
        f"{key}: " + ("missing" if key not in weights else "unknown" if key not in own else "another shape")
        for key in sorted(set(own) | set(weights))
        if key not in weights or key not in own or weights[key].shape != own[key].shape
    ]
    # Hashes are buffers: with others the tables would be read at the wrong places.
    wrong += [
        f"{key}: other values"
        for key in own
        if key.startswith("tables.hash.") and key in weights and not torch.equal(own[key].cpu(), weights[key])
    ]
    if wrong:
        raise ValueError(f"the Engram in {folder} does not fit its configuration: {'; '.join(wrong)}")
    adapter.load_state_dict(weights)
    if adapter.tables is not None and adapter.config.table == "disk":
        for i, layer in enumerate(adapter.tables.layers):
            layer.table.map_file(folder / _TABLE.format(i))
    if adapter.memory is not None:
        if not (folder / _FACTS).is_file():
            raise ValueError(f"the Engram in {folder} has no {_FACTS}")
        adapter.memory.copy_from(folder / _FACTS)
