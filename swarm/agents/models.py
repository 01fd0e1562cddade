"""The models that an experiment names: found, checked, hashed and loaded before anything starts.

Owns the way from the names in a config to what hosts and engines are given. Whatever is wrong with a user's model, or
with the machine's means to run it, is found here, before there is a run folder.
"""

import importlib.util
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from swarm.agents.host import SharedModel
from swarm.agents.model_sizes import check_adapter, check_sizes, num_weights
from swarm.backends.models import ChatFormat, ModelFolder, find_here, find_model, folder_hash, open_model
from swarm.backends.vllm import require_vllm
from swarm.config.engine import (
    ModelEngine,
    OpenAIEngine,
    RandomEngine,
    TransformersEngine,
    UlmEngine,
    VllmEngine,
)
from swarm.config.experiment import AgentsConfig, ExperimentConfig
from swarm.config.memory import find_memory
from swarm.coordinator.kinds import book_for
from swarm.errors import SwarmError


@dataclass(slots=True)
class LoadedModels:
    """What an experiment's models are.

    Attributes:
        shared: models of our own engine, with their weights, by the name that the config gives them.
        folders: models of `transformers` and `vllm`, by name.
        adapters: folders of their LoRA adapters, by the path that the config gives.
        tokenizers: `tokenizer.json` as text, by whose it is (`agents`, `coordinator`); for models on this machine.
        chats: their chat formats, by whose they are.
        endpoints: settings of those behind endpoints, by whose they are; their files are not here to be hashed.
        hashes: what identifies models and adapters, by name or path; the journal's header has them.
    """

    shared: dict[str, SharedModel] = field(default_factory=dict)
    folders: dict[str, ModelFolder] = field(default_factory=dict)
    adapters: dict[str, Path] = field(default_factory=dict)
    tokenizers: dict[str, str] = field(default_factory=dict)
    chats: dict[str, ChatFormat] = field(default_factory=dict)
    endpoints: dict[str, OpenAIEngine] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)


def load_models(config: ExperimentConfig, base_dir: Path) -> LoadedModels:
    """Return all models of an experiment; those that are asked elsewhere are not started yet.

    Raises:
        SwarmError: one is not there, is damaged, or cannot do what the config asks of it.
    """
    found = LoadedModels()
    book_for(config.coordinator, config.world.id)
    engines = {"agents": config.agents.engine, "coordinator": config.coordinator.engine}
    models = {whose: engine for whose, engine in engines.items() if isinstance(engine, ModelEngine)}
    if isinstance(config.agents.engine, RandomEngine):
        _count_only(found, config.agents.engine, base_dir)
    check_sizes(config, _pretrained(models.values(), base_dir))
    for whose, engine in models.items():
        if isinstance(engine, OpenAIEngine):
            _endpoint(found, whose, engine, base_dir)
        else:
            _local(found, whose, engine, base_dir, config)
    return found


def _pretrained(engines: Iterable[ModelEngine], base_dir: Path) -> dict[str, Path]:
    """Return the folders of the pretrained models that are computed on this cluster, by name."""
    return {
        engine.model: find_model(engine.model, base_dir)
        for engine in engines
        if isinstance(engine, TransformersEngine | VllmEngine)
        or (isinstance(engine, UlmEngine) and not _is_checkpoint(base_dir, engine.model))
    }


def _local(found: LoadedModels, whose: str, engine: ModelEngine, base_dir: Path, config: ExperimentConfig) -> None:
    """Take in a model that is computed on this cluster."""
    name = engine.model
    if isinstance(engine, VllmEngine):
        require_vllm(engine.num_gpus)
        if config.runtime.pool == "local":
            raise SwarmError("engine vllm runs in a Ray actor; set runtime.pool: ray")
    if isinstance(engine, UlmEngine) and _is_checkpoint(base_dir, name):
        found.tokenizers[whose] = _checkpoint(found, name, base_dir)
    else:
        folder = find_model(name, base_dir)
        opened = open_model(name, folder)
        _remember(found, whose, opened)
        found.hashes.setdefault(name, folder_hash(folder))
        if isinstance(engine, UlmEngine):
            _llama(found, opened)
        else:
            found.folders[name] = opened
            _check_folder(engine, opened)
    if isinstance(engine, UlmEngine) and whose == "agents":
        _check_parts(config.agents, name, found.shared[name].config)
    if engine.chats and whose not in found.chats:
        raise SwarmError(f"model {name} has no chat format; set {whose}.engine.prompt: plain")
    if isinstance(engine, TransformersEngine | VllmEngine) and (adapter := engine.adapter):
        place = base_dir / adapter
        if not (place / "adapter_config.json").is_file() or not (place / "adapter_model.safetensors").is_file():
            raise SwarmError(
                f"{whose}.engine.adapter: no PEFT adapter (adapter_config.json, adapter_model.safetensors) at {place}"
            )
        check_adapter(place, Path(found.folders[name].path), name)
        found.adapters[adapter] = place
        found.hashes.setdefault(adapter, folder_hash(place))


def _check_parts(agents: AgentsConfig, model: str, shape: Mapping[str, Any]) -> None:
    """Refuse a memory that is part of a model where the model has no such part."""
    for memory in agents.memory:
        part = find_memory(memory.kind).part
        if part is not None and not shape.get(part):
            raise SwarmError(
                f"agents.memory names {memory.kind}, but {model} was trained without one; leave it out or take another "
                f"model"
            )


def _check_folder(engine: ModelEngine, opened: ModelFolder) -> None:
    """Refuse what an engine would find out only in its own process."""
    if isinstance(engine, VllmEngine):
        opened.refuse_longer(engine.max_length)
    if not isinstance(engine, TransformersEngine):
        return
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    kind = json.loads((Path(opened.path) / "config.json").read_text(encoding="utf-8"))["model_type"]
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise SwarmError(
            f"model {opened.name} is of type {kind!r}, and transformers {metadata.version('transformers')} knows no "
            f"language model of that type"
        )
    if engine.adapter and importlib.util.find_spec("peft") is None:
        raise SwarmError("engine.adapter needs the package peft: pip install 'ulm-swarm[hf]'")


def _is_checkpoint(base_dir: Path, name: str) -> bool:
    """Return whether a name means a checkpoint of ours, there or missing, and not a pretrained model."""
    from ulm.hf.pretrained import KNOWN

    config = base_dir / name / "config.json"
    if config.is_file():
        return is_checkpoint(config.parent)
    return not name.endswith(".gguf") and name not in KNOWN


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder with a config.json is a checkpoint of ours rather than one of transformers."""
    return '"model_type"' not in (folder / "config.json").read_text(encoding="utf-8", errors="replace")


def current_hash(name: str, base_dir: Path) -> str | None:
    """Return what identifies a model or an adapter of a run's header now; None where its folder is not here.

    Raises:
        SwarmError: it is damaged.
    """
    from ulm.checkpoint import checkpoint_hash

    folder = find_here(name, base_dir)
    if folder is None:
        return None
    try:
        is_ours = (folder / "config.json").is_file() and is_checkpoint(folder)
        is_adapter = (folder / "adapter_config.json").is_file()
        return checkpoint_hash(folder) if is_ours or not (is_adapter or _has_weights(folder)) else folder_hash(folder)
    except ValueError as error:
        raise SwarmError(str(error)) from error


def num_parameters(name: str, base_dir: Path) -> int | None:
    """Return how many parameters a model of an experiment has; None where its files are not here, or do not say."""
    from ulm.hf.pretrained import KNOWN, fetched

    folder = next((place for place in (base_dir / name, Path(name)) if place.is_dir()), None)
    if folder is None and name in KNOWN:
        folder = fetched(name)
    if folder is None:
        return None
    try:
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("num_parameters")
        return stated if isinstance(stated, int) else num_weights(folder) or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _has_weights(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _checkpoint(found: LoadedModels, name: str, base_dir: Path) -> str:
    """Take in a checkpoint of ours; return its tokenizer."""
    from ulm.checkpoint import checkpoint_hash, load_weights_numpy, read_checkpoint_config

    folder = base_dir / name
    try:
        shape = read_checkpoint_config(folder)
        tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
        if name not in found.shared:
            found.hashes[name] = checkpoint_hash(folder)
            arrays = load_weights_numpy(folder)
            found.shared[name] = SharedModel(shape.model.to_dict(), tokenizer, shape.pad_id, shape.eot_id, arrays)
    except ValueError as error:
        raise SwarmError(str(error)) from error
    return tokenizer


def _llama(found: LoadedModels, opened: ModelFolder) -> None:
    """Load a pretrained Llama into our own core."""
    if opened.name in found.shared:
        return
    from ulm.hf.llama import from_llama

    try:
        model, tokenizer = from_llama(opened.path)
    except ValueError as error:
        raise SwarmError(f"model {opened.name}: {error}") from error
    if tokenizer is None:
        raise SwarmError(f"model {opened.name}: no tokenizer.json in {opened.path}")
    arrays = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    shape, end = model.config.to_dict(), opened.ends[0]
    found.shared[opened.name] = SharedModel(shape, tokenizer.to_json(), end, end, arrays, opened.chat)


def _count_only(found: LoadedModels, engine: RandomEngine, base_dir: Path) -> None:
    """Take in the tokenizer of the model whose null control is to be charged alike."""
    name = engine.model
    if engine.tokenizer is not None:
        found.tokenizers["agents"] = _tokenizer(engine.tokenizer, base_dir)[0]
    elif name is None:
        return
    elif _is_checkpoint(base_dir, name):
        found.tokenizers["agents"] = _checkpoint(found, name, base_dir)
    else:
        folder = find_model(name, base_dir)
        _remember(found, "agents", open_model(name, folder))
        found.hashes.setdefault(name, folder_hash(folder))


def _remember(found: LoadedModels, whose: str, opened: ModelFolder) -> None:
    found.tokenizers[whose] = (Path(opened.path) / "tokenizer.json").read_text(encoding="utf-8")
    if opened.chat is not None:
        found.chats[whose] = opened.chat


def _endpoint(found: LoadedModels, whose: str, engine: OpenAIEngine, base_dir: Path) -> None:
    """Take in a model behind an endpoint, with its tokenizer if the config names one; ask whether it is there."""
    from swarm.backends.openai import OpenAIModel

    if engine.tokenizer is not None:
        found.tokenizers[whose], folder = _tokenizer(engine.tokenizer, base_dir)
        engine = engine.model_copy(update={"tokenizer": str(folder)})
    endpoint = OpenAIModel(engine.model, engine)
    endpoint.check()
    endpoint.close()
    found.endpoints[whose] = engine


def _tokenizer(name: str, base_dir: Path) -> tuple[str, Path]:
    """Return a tokenizer as text, and the folder that it is in."""
    folder = find_model(name, base_dir)
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise SwarmError(f"engine.tokenizer: no tokenizer.json in {folder}")
    return file.read_text(encoding="utf-8"), folder
