"""Models that answer from other processes, started for a run: vLLM engines and endpoints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from swarm.agents.models import LoadedModels
from swarm.backends.protocol import TextModel
from swarm.config.experiment import AgentsConfig, CoordinatorConfig, ExperimentConfig

__all__ = ["start_remote"]

_Section = AgentsConfig | CoordinatorConfig


def _engine_key(section: _Section) -> tuple[str, str]:
    """Return what decides which vLLM engine a section asks."""
    base = section.backend.model_copy(update={"prompt": None, "adapter": None})
    return str(section.model), base.model_dump_json()


def start_remote(
    config: ExperimentConfig, models: LoadedModels, max_deaths: int, on_event: Callable[..., None]
) -> Mapping[str, TextModel]:
    """Start the models that answer from other processes; return them by whose they are.

    Agents and coordinator on vLLM share one engine when their model and its settings are the same, whatever their
    adapters.

    Raises:
        SwarmError: one cannot be started.
    """
    started: dict[str, TextModel] = {}
    engines: dict[tuple[str, str], Any] = {}
    sections: list[tuple[str, _Section]] = [("agents", config.agents), ("coordinator", config.coordinator)]
    try:
        for whose, section in sections:
            name, backend = str(section.model), section.backend
            if section.engine == "openai":
                from swarm.backends.openai import OpenAIModel

                started[whose] = OpenAIModel(name, models.endpoints[whose])
            elif section.engine == "vllm":
                from swarm.actors.vllm_engine import VllmModel

                key = _engine_key(section)
                if key not in engines:
                    sharing = [s.backend.adapter for _, s in sections if s.engine == "vllm" and _engine_key(s) == key]
                    adapters = [models.adapters[a] for a in dict.fromkeys(sharing) if a]
                    engines[key] = VllmModel(models.folders[name], backend, adapters, max_deaths, on_event)
                own = backend.adapter
                started[whose] = engines[key].adapted(models.adapters[own]) if own else engines[key]
    except BaseException:
        for model in started.values():
            model.close()
        raise
    return started
