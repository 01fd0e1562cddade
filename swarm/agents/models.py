"""The models that an experiment names: found, checked, hashed and loaded before anything starts.

Owns the way from the names in a config to what hosts and engines are given. Whatever is wrong with a user's model, or
with the machine's means to run it, is found here, before there is a run folder.
"""

import importlib.util
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeGuard

from swarm.agents.host import ResolvedModel, SharedModel
from swarm.agents.model_sizes import check_adapter, check_sizes, num_weights
from swarm.backends.models import ModelFolder, find_here, find_model, folder_hash, open_model, with_marks
from swarm.backends.protocol import Structure, TextRequest
from swarm.backends.vllm import require_vllm
from swarm.config.engine import (
    AnyEngine,
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
from swarm.files import path_in, read_text
from swarm.process.progress import progress, to_stderr
from swarm.prompt import STOP

PROBE_TOKENS = 32
"""Of the answer that an endpoint is asked for at the start."""

_checked: dict[str, str] = {}
"""What an endpoint was asked in this process -> its form: of the runs of a comparison only the first asks."""


@dataclass(slots=True)
class LoadedModels:
    """What an experiment's models are.

    Attributes:
        agents, coordinator: what they run on.
        shared: models of our own engine, with their weights, by the name that the config gives them.
        hashes: what identifies models, adapters and what memories begin with, by name or path; the journal's header
            has them.
        events: what endpoints had to be told of, for the telemetry: (kind, facts).
    """

    agents: ResolvedModel = field(default_factory=ResolvedModel)
    coordinator: ResolvedModel = field(default_factory=ResolvedModel)
    shared: dict[str, SharedModel] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)


def load_models(config: ExperimentConfig, base_dir: Path) -> LoadedModels:
    """Return all models of an experiment; those that are asked elsewhere are not started yet.

    Raises:
        SwarmError: one is not there, is damaged, or cannot do what the config asks of it.
    """
    found = LoadedModels()
    book_for(config.coordinator, config.world.id)
    both = config.agents.engine, config.coordinator.engine
    check_sizes(config, {e.model: find_model(e.model, base_dir) for e in both if _is_pretrained(e, base_dir)})
    found.agents = resolve_model(found, "agents", config, base_dir)
    found.coordinator = resolve_model(found, "coordinator", config, base_dir)
    for memory in config.agents.memory:
        found.hashes.update(memory.hashes(base_dir))
        if isinstance(engine := config.agents.engine, UlmEngine):
            shared = found.shared[engine.model]
            found.shared[engine.model] = replace(shared, config=dict(memory.changed_model(shared.config)))
    return found


def resolve_model(found: LoadedModels, whose: str, config: ExperimentConfig, base_dir: Path) -> ResolvedModel:
    """Return what `agents` or the `coordinator` run on; weights and hashes are added to what was found.

    Raises:
        SwarmError: as of `load_models`.
    """
    engine = getattr(config, whose).engine
    if isinstance(engine, RandomEngine):  # charged as the model whose null control it is
        if engine.tokenizer is not None:
            return ResolvedModel(engine, _tokenizer(engine.tokenizer, base_dir)[0])
        return ResolvedModel(engine) if engine.model is None else _on_disk(found, engine, base_dir)
    if isinstance(engine, OpenAIEngine):
        return _endpoint(found, whose, config, base_dir)
    if not isinstance(engine, ModelEngine):
        return ResolvedModel(engine)
    if isinstance(engine, VllmEngine):
        require_vllm(engine.num_gpus)
        if config.runtime.pool == "local":
            raise SwarmError("engine vllm runs in a Ray actor; set runtime.pool: ray")
    model = _on_disk(found, engine, base_dir)
    if isinstance(engine, UlmEngine) and whose == "agents":
        _check_parts(config.agents, engine.model, found.shared[engine.model].config)
    if engine.chats and model.chat is None:
        raise SwarmError(f"model {engine.model} has no chat format; set {whose}.engine.prompt: plain")
    if isinstance(engine, TransformersEngine | VllmEngine) and model.folder is not None and engine.adapter:
        place = path_in(base_dir, engine.adapter)
        if not (place / "adapter_config.json").is_file() or not (place / "adapter_model.safetensors").is_file():
            raise SwarmError(
                f"{whose}.engine.adapter: no PEFT adapter (adapter_config.json, adapter_model.safetensors) at {place}"
            )
        check_adapter(place, Path(model.folder.path), engine.model)
        found.hashes.setdefault(engine.adapter, folder_hash(place))
        return replace(model, engine=engine.model_copy(update={"adapter": str(place)}))
    return model


def _on_disk(found: LoadedModels, engine: Any, base_dir: Path) -> ResolvedModel:
    """Return a model whose files are on this machine: a checkpoint of ours, or a pretrained one."""
    name = engine.model
    if not isinstance(engine, TransformersEngine | VllmEngine) and names_checkpoint(base_dir, name):
        return ResolvedModel(engine, _checkpoint(found, name, base_dir))
    folder = find_model(name, base_dir)  # what has to be fetched for that has a bar of the hub's own
    with progress(f"reading {name}"):
        opened = open_model(name, folder, engine.chat_template_kwargs)
        found.hashes.setdefault(name, folder_hash(folder))
        if isinstance(engine, UlmEngine):
            _llama(found, opened)
        else:
            _check_folder(engine, opened)
    return ResolvedModel(engine, read_text(f"model {name}", folder / "tokenizer.json"), opened.chat, opened)


def _is_pretrained(engine: AnyEngine | None, base_dir: Path) -> TypeGuard[ModelEngine]:
    """Return whether an engine is one of this cluster with a model that was not made here."""
    if isinstance(engine, UlmEngine):
        return not names_checkpoint(base_dir, engine.model)
    return isinstance(engine, TransformersEngine | VllmEngine)


def _check_parts(agents: AgentsConfig, model: str, shape: Mapping[str, Any]) -> None:
    """Refuse a memory that is part of a model where the model has no such part."""
    for memory in agents.memory:
        part = find_memory(memory.kind).part
        if part is not None and not shape.get(part):
            raise SwarmError(
                f"agents.memory names {memory.kind}, but {model} was trained without one; leave it out or take another "
                f"model"
            )


def _check_folder(engine: AnyEngine, opened: ModelFolder) -> None:
    """Refuse what an engine would find out only in its own process."""
    if isinstance(engine, VllmEngine) and engine.max_length is not None and engine.max_length > opened.max_length:
        raise SwarmError(
            f"engine.max_length is {engine.max_length}, and {opened.name} was made for {opened.max_length}"
        )
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


def names_checkpoint(base_dir: Path, name: str) -> bool:
    """Return whether a name means a checkpoint of ours, there or missing, and not a pretrained model."""
    from ulm.hf.pretrained import KNOWN

    if ((folder := path_in(base_dir, name)) / "config.json").is_file():
        return is_checkpoint(folder)
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

    if (folder := find_here(name, base_dir)) is None:
        return None
    try:
        is_ours = (folder / "config.json").is_file() and is_checkpoint(folder)
        has_weights = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
        is_theirs = not is_ours and (has_weights or (folder / "adapter_config.json").is_file())
        return folder_hash(folder) if is_theirs else checkpoint_hash(folder)
    except ValueError as error:
        raise SwarmError(str(error)) from error


def num_parameters(name: str, base_dir: Path) -> int | None:
    """Return how many parameters a model of an experiment has; None where its files are not here, or do not say."""
    try:
        if (folder := find_here(name, base_dir)) is None:
            return None
        stated = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("num_parameters")
        return stated if isinstance(stated, int) else num_weights(folder) or None
    except (OSError, ValueError, AttributeError, SwarmError):
        return None


def _checkpoint(found: LoadedModels, name: str, base_dir: Path) -> str:
    """Take in a checkpoint of ours; return its tokenizer."""
    from ulm.checkpoint import checkpoint_hash, load_weights_numpy, read_checkpoint_config

    folder = path_in(base_dir, name)
    try:
        shape = read_checkpoint_config(folder)
        tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
        if name not in found.shared:
            found.hashes[name] = checkpoint_hash(folder)
            found.shared[name] = SharedModel(
                shape.model.to_dict(), tokenizer, shape.pad_id, shape.eot_id, load_weights_numpy(folder)
            )
    except ValueError as error:
        raise SwarmError(str(error)) from error
    return tokenizer


def _llama(found: LoadedModels, opened: ModelFolder) -> None:
    """Load a pretrained Llama into our own core."""
    if opened.name in found.shared:
        return
    from transformers.utils import logging

    from ulm.hf.llama import from_llama

    logging.disable_progress_bar()
    try:
        model, tokenizer = from_llama(opened.path)
    except ValueError as error:
        raise SwarmError(f"model {opened.name}: {error}") from error
    if tokenizer is None:
        raise SwarmError(f"model {opened.name}: no tokenizer.json in {opened.path}")
    found.shared[opened.name] = SharedModel(
        model.config.to_dict(),
        with_marks(tokenizer).to_json(),
        opened.ends[0],
        opened.ends[0],
        {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()},
    )


def _endpoint(found: LoadedModels, whose: str, config: ExperimentConfig, base_dir: Path) -> ResolvedModel:
    """Return a model behind an endpoint, with its tokenizer if the config names one; ask it once whether it answers."""
    from swarm.backends.openai import OpenAIModel

    def on_event(kind: str, **facts: Any) -> None:
        found.events.append((kind, {"whose": whose, **facts}))
        if kind == "endpoint_waits":
            to_stderr(f"waiting for the endpoint {facts['url']}: {facts['detail']}")

    engine, text = getattr(config, whose).engine, None
    if engine.tokenizer is not None:
        text, folder = _tokenizer(engine.tokenizer, base_dir)
        engine = engine.model_copy(update={"tokenizer": str(folder)})
    faults, probe = config.faults, _probe(config, whose)
    if (key := repr((engine, probe))) not in _checked:
        made = OpenAIModel(
            engine.model, engine, timeout_s=faults.call_timeout_s, patience_s=faults.patience_s, on_event=on_event
        )
        with closing(made) as endpoint:
            _checked[key], answer = endpoint.check(probe)
        on_event("endpoint_check", prompt_tokens=answer.prompt_tokens, generated_tokens=answer.generated_tokens)
    return ResolvedModel(engine, text, form=_checked[key])


def _probe(config: ExperimentConfig, whose: str) -> TextRequest:
    """Return a small request of the kind that agents or the coordinator will make."""
    section = getattr(config, whose)
    chats, agents = section.engine.chats, whose == "agents"
    has_pattern = config.agents.constrained if agents else not chats and config.coordinator.answers == "marks"
    text = "Say yes."
    structure = Structure(regex="(?:north|south)") if has_pattern else None  # which nobody says to that by chance
    if chats and not agents:
        wanted = {"type": "object", "properties": {"a0": {"type": "string", "enum": ["yes", "no"]}}}
        structure = Structure(json_schema={**wanted, "required": ["a0"], "additionalProperties": False})
        text = 'Answer with this JSON: {"a0": "yes"}'
    stop = (STOP,) if (not chats or has_pattern) and (agents or not has_pattern) else ()
    system, most = "Be brief." if chats else None, min(section.max_new_tokens, PROBE_TOKENS)
    return TextRequest(text, system, 0, most, section.temperature, stop, structure)


def _tokenizer(name: str, base_dir: Path) -> tuple[str, Path]:
    """Return a tokenizer as text, and the folder that it is in."""
    folder = find_model(name, base_dir)
    if not (folder / "tokenizer.json").is_file():
        raise SwarmError(f"engine.tokenizer: no tokenizer.json in {folder}")
    return read_text("engine.tokenizer", folder / "tokenizer.json"), folder
