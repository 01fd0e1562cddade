"""Trained µLMs on disk: a folder of `model.safetensors`, `config.json` and `tokenizer.json`.

Owns the format and its version, the atomic replacement of a folder, the checks that turn a damaged folder
into one clear line, and models whose weights alias arrays that other processes map too. Weights are
safetensors and the rest is JSON: nothing here can run code from a file. It refuses to know training, Ray and
transformers.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import tokenizers
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ulm.config import ModelConfig
from ulm.files import TakenError, previous_of, sha256, whole_folder
from ulm.model import Decoder
from ulm.tokenizer import Tokenizer

FORMAT = 1
WEIGHTS, CONFIG, TOKENIZER = "model.safetensors", "config.json", "tokenizer.json"
_HASHED = (WEIGHTS, TOKENIZER)
FILES = frozenset({WEIGHTS, CONFIG, TOKENIZER})
"""All that a checkpoint holds."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read or written; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class CheckpointConfig:
    """What `config.json` says.

    Attributes:
        model: shape of the model.
        num_parameters: tied embeddings counted once.
        meta: recipe, seed, training time, scores; free JSON data.
        pad_id, eot_id: the tokenizer's ids for padding and end of text.
        sha256: hex digest by file name.
    """

    model: ModelConfig
    num_parameters: int
    meta: dict[str, Any]
    pad_id: int
    eot_id: int
    sha256: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """A loaded checkpoint: the model in eval mode, its tokenizer, its shape and its meta data."""

    model: Decoder
    tokenizer: Tokenizer
    config: ModelConfig
    meta: dict[str, Any]


def save_checkpoint(
    folder: Path, model: Decoder, tokenizer: Tokenizer, meta: dict[str, Any], dtype: torch.dtype | None = None
) -> None:
    """Write a checkpoint folder, replacing a checkpoint that was there.

    Atomic: killed at any point, a reader of `folder` finds the old checkpoint or the new one, complete.

    Args:
        folder: where to; parents are created.
        model: weights are copied to the CPU.
        tokenizer: its tokenizer, of at most as many tokens as the model has.
        meta: JSON-able data such as recipe, seed and scores; it is not part of `checkpoint_hash`.
        dtype: floating type on disk; None keeps the weights' own. bfloat16 halves the size and rounds.

    Raises:
        CheckpointError: meta is not JSON-able, the tokenizer does not fit, the folder holds something else, or the
            disk refuses.
    """
    if tokenizer.vocab_size > model.config.vocab_size:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.vocab_size} tokens and the model {model.config.vocab_size}; "
            f"build the model with vocab_size of at least the tokenizer's"
        )
    state = {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in model.state_dict().items()}
    try:
        with whole_folder(folder, FILES) as fresh:
            save_file(state, fresh / WEIGHTS, metadata={"format": "pt"})
            (fresh / TOKENIZER).write_text(tokenizer.to_json(), encoding="utf-8")
            config = {
                "format": FORMAT,
                "model": model.config.to_dict(),
                "num_parameters": model.num_parameters(),
                "meta": meta,
                "special_ids": {"eot": tokenizer.eot_id, "pad": tokenizer.pad_id},
                "sha256": {name: sha256(fresh / name) for name in _HASHED},
            }
            try:
                text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
            except (TypeError, ValueError) as error:
                raise CheckpointError(
                    f"checkpoint meta is not JSON: {error}; keep to strings, numbers, lists"
                ) from error
            (fresh / CONFIG).write_text(text + "\n", encoding="utf-8")
    except TakenError as error:
        raise CheckpointError(f"checkpoint: {error}") from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write checkpoint {folder}: {error}; check space and write permission") from error


def read_checkpoint_config(folder: Path) -> CheckpointConfig:
    """Return what `config.json` says, without opening the weights.

    Raises:
        CheckpointError: it is missing, no JSON, of a newer format, or incomplete.
    """
    folder = _locate(folder)
    path = _require(folder / CONFIG)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}); {_REMEDY}") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} is not a JSON object; {_REMEDY}")
    version = data.get("format")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise CheckpointError(
            f"{path} has no format version (found {version!r}), so it is no µLM checkpoint; {_REMEDY}"
        )
    if version > FORMAT:
        raise CheckpointError(f"{path}: format {version}, this version reads up to {FORMAT}; upgrade ulm-swarm")
    try:
        special = data["special_ids"]
        config = CheckpointConfig(
            model=ModelConfig.from_dict(dict(data["model"])),
            num_parameters=int(data["num_parameters"]),
            meta=dict(data["meta"]),
            pad_id=int(special["pad"]),
            eot_id=int(special["eot"]),
            sha256={name: str(data["sha256"][name]) for name in _HASHED},
        )
        counted = config.model.num_parameters()
    except KeyError as error:
        raise CheckpointError(f"{path} lacks the key {error}; {_REMEDY}") from error
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}; {_REMEDY}") from error
    if counted != config.num_parameters:
        raise CheckpointError(
            f"{path}: the model config means {counted:,} parameters, not {config.num_parameters:,}; {_REMEDY}"
        )
    return config


def load_checkpoint(folder: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> Checkpoint:
    """Load and verify a checkpoint.

    Args:
        folder: what `save_checkpoint` wrote.
        device: where the weights go.
        dtype: type of the weights in memory.

    Raises:
        CheckpointError: a file is missing, truncated, altered, of a newer format, or does not fit the others.
    """
    folder = _locate(folder)
    config = read_checkpoint_config(folder)
    tokenizer = _read_tokenizer(folder, config)
    state = {name: tensor.to(device, dtype, copy=True) for name, tensor in _read_weights(folder, config)}
    model = _assemble(config.model, state).to(device)
    return Checkpoint(model.requires_grad_(True), tokenizer, config.model, config.meta)


def checkpoint_hash(folder: Path) -> str:
    """Return the hex sha256 over weights, model config and tokenizer; meta data does not change it.

    Raises:
        CheckpointError: a file is missing or altered.
    """
    folder = _locate(folder)
    config = read_checkpoint_config(folder)
    for name in _HASHED:
        _verify(folder / name, config.sha256[name])
    special = {"eot": config.eot_id, "pad": config.pad_id}
    identity = {"model": config.model.to_dict(), "special_ids": special, "sha256": config.sha256}
    return hashlib.sha256(json.dumps(identity, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def load_weights_numpy(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Return the verified weights by name for `build_model`, as float32 because numpy has no bfloat16.

    Raises:
        CheckpointError: as `load_checkpoint`.
    """
    folder = _locate(folder)
    config = read_checkpoint_config(folder)
    return {name: tensor.to(torch.float32, copy=True).numpy() for name, tensor in _read_weights(folder, config)}


def build_model(
    config: ModelConfig, arrays: Mapping[str, np.ndarray[Any, Any]], *, differentiable: bool = False
) -> Decoder:
    """Return a frozen model, in eval mode, whose parameters are the given arrays, not copies.

    Arrays may be read-only memory that many processes map, such as Ray's object store.

    Args:
        config: its shape.
        arrays: by parameter name, as `load_weights_numpy` returns them; C-contiguous, floating.
        differentiable: False makes the weights inference tensors, so that writing to them in place outside of
            `torch.inference_mode()` raises RuntimeError. That makes the mistake loud but does not undo it:
            torch 2.13 checks after the write. True gives plain tensors without gradient, which a backward pass
            to private adapters needs, and nothing then notices a write.

    Raises:
        CheckpointError: names or shapes do not fit the config, or an array would have to be copied.
    """
    for name, array in arrays.items():
        if array.dtype.kind != "f" or not array.flags.c_contiguous or not array.dtype.isnative:
            raise CheckpointError(
                f"weights {name}: need a C-contiguous float array to share without a copy, got {array.dtype}"
            )
    with warnings.catch_warnings(), torch.inference_mode(not differentiable):
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        state = {name: torch.from_numpy(array) for name, array in arrays.items()}
        return _assemble(config, state)


_REMEDY = "restore the folder from its source or train it again"


def _locate(folder: Path) -> Path:
    """Return the folder to read: the previous one where a replacement was killed between its renames."""
    for place in (folder, previous_of(folder)):
        if place.is_dir():
            return place
    if folder.exists():
        raise CheckpointError(f"checkpoint {folder} is a file; give the folder that holds {WEIGHTS}")
    raise CheckpointError(f"no checkpoint at {folder}; give a folder with {CONFIG}, or train one with `swarm train`")


def _require(path: Path) -> Path:
    if not path.is_file():
        raise CheckpointError(f"checkpoint file {path} is missing; {_REMEDY}")
    return path


def _verify(path: Path, expected: str) -> None:
    try:
        found = sha256(_require(path))
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error}") from error
    if found != expected:
        raise CheckpointError(f"{path} was altered: its sha256 is not the one in {CONFIG}; {_REMEDY}")


def _read_tokenizer(folder: Path, config: CheckpointConfig) -> Tokenizer:
    path = folder / TOKENIZER
    _verify(path, config.sha256[TOKENIZER])
    try:
        inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise CheckpointError(f"{path} cannot be read ({error}); {_REMEDY}") from error
    tokenizer = Tokenizer(inner, config.pad_id, config.eot_id)
    if tokenizer.vocab_size > config.model.vocab_size:
        raise CheckpointError(
            f"{path} has {tokenizer.vocab_size} tokens, the model {config.model.vocab_size}; {_REMEDY}"
        )
    return tokenizer


def _read_weights(folder: Path, config: CheckpointConfig) -> Iterator[tuple[str, Tensor]]:
    """Yield each verified tensor, mapped from the file; the caller copies what it keeps."""
    path = _require(folder / WEIGHTS)
    try:
        # The header first: "truncated" says more than "altered".
        with safe_open(path, framework="pt") as file:
            _verify(path, config.sha256[WEIGHTS])
            for name in file.keys():  # noqa: SIM118 - not a mapping
                yield name, file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is truncated or no safetensors file ({error}); {_REMEDY}") from error


def _assemble(config: ModelConfig, state: dict[str, Tensor]) -> Decoder:
    """Build a model around tensors, without ever allocating its weights."""
    with torch.device("meta"):
        model = Decoder(config)
    try:
        model.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"these are weights of another model config: {shorten(str(error), 300)}") from error
    return model.requires_grad_(False).eval()
