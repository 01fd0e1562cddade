"""Models that answer from other processes, started for a run: vLLM engines and endpoints."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from swarm.agents.models import LoadedModels
from swarm.backends.kept import KeptModel, KeptReplies
from swarm.backends.protocol import TextModel
from swarm.config.engine import OpenAIEngine, VllmEngine
from swarm.config.experiment import FaultsConfig


def _apart(engine: VllmEngine) -> str:
    """Return what decides which engine is asked: all settings but how it is asked, and with which adapter."""
    return engine.model_dump_json(exclude={"prompt", "adapter", "chat_template_kwargs"})


def start_remote(
    models: LoadedModels, faults: FaultsConfig, on_event: Callable[..., None], kept: KeptReplies
) -> Mapping[str, TextModel]:
    """Start the models that answer from other processes; return them by whose they are.

    Answers of endpoints are kept until their tick is on record.

    Agents and coordinator on vLLM share one engine when their model and its settings are the same, whatever their
    adapters.

    Raises:
        SwarmError: one cannot be started.
    """
    started: dict[str, TextModel] = {}
    engines: dict[str, Any] = {}
    both = {"agents": models.agents, "coordinator": models.coordinator}
    on_vllm = [model.engine for model in both.values() if isinstance(model.engine, VllmEngine)]
    try:
        for whose, model in both.items():
            engine = model.engine
            if isinstance(engine, OpenAIEngine):
                from swarm.backends.openai import OpenAIModel

                asked = OpenAIModel(
                    engine.model,
                    engine,
                    timeout_s=faults.call_timeout_s,
                    patience_s=faults.patience_s,
                    form=model.form,
                    on_event=partial(on_event, whose=whose),
                )
                started[whose] = KeptModel(asked, kept, whose)
            elif isinstance(engine, VllmEngine) and model.folder is not None:
                from swarm.actors.vllm_engine import VllmModel, VllmServer

                key = _apart(engine)
                if key not in engines:
                    adapters = dict.fromkeys(e.adapter for e in on_vllm if e.adapter and _apart(e) == key)
                    engines[key] = VllmServer(model.folder, engine, list(adapters), on_event)
                started[whose] = VllmModel(engines[key], engine.adapter, model.chat)
    except BaseException:
        for running in started.values():
            running.close()
        raise
    return started
