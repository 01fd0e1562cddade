"""Models that answer from other processes, started for a run: vLLM engines and endpoints."""

from collections.abc import Callable, Mapping
from typing import Any

from swarm.agents.models import LoadedModels
from swarm.backends.protocol import TextModel
from swarm.config.engine import OpenAIEngine, VllmEngine
from swarm.config.experiment import ExperimentConfig


def _apart(engine: VllmEngine) -> VllmEngine:
    """Return what decides which engine is asked: all settings but how it is asked, and with which adapter."""
    return engine.model_copy(update={"prompt": "chat", "adapter": None})


def start_remote(
    config: ExperimentConfig, models: LoadedModels, on_event: Callable[..., None]
) -> Mapping[str, TextModel]:
    """Start the models that answer from other processes; return them by whose they are.

    Agents and coordinator on vLLM share one engine when their model and its settings are the same, whatever their
    adapters.

    Raises:
        SwarmError: one cannot be started.
    """
    started: dict[str, TextModel] = {}
    engines: dict[VllmEngine, Any] = {}
    settings = {"agents": config.agents.engine, "coordinator": config.coordinator.engine}
    try:
        for whose, engine in settings.items():
            if isinstance(engine, OpenAIEngine):
                from swarm.backends.openai import OpenAIModel

                started[whose] = OpenAIModel(
                    engine.model, models.endpoints[whose], timeout_s=config.faults.call_timeout_s
                )
            elif isinstance(engine, VllmEngine):
                from swarm.actors.vllm_engine import VllmModel

                key = _apart(engine)
                if key not in engines:
                    sharing = [e.adapter for e in settings.values() if isinstance(e, VllmEngine) and _apart(e) == key]
                    adapters = [models.adapters[a] for a in dict.fromkeys(sharing) if a]
                    engines[key] = VllmModel(models.folders[engine.model], engine, adapters, on_event)
                own = engine.adapter
                started[whose] = engines[key].adapted(models.adapters[own]) if own else engines[key]
    except BaseException:
        for model in started.values():
            model.close()
        raise
    return started
