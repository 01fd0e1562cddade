"""What a host is told, for tests of hosts and pools that start without a run."""

from __future__ import annotations

from typing import Any

from swarm.agents.host import HostSpec, ResolvedModel
from swarm.backends.models import ChatFormat
from swarm.config.coordinator import CoordinatorConfig
from swarm.config.experiment import AgentsConfig, ExperimentConfig, FaultsConfig, RuntimeConfig, WorldConfig


def host_spec(
    agents: AgentsConfig,
    coordinator: str = "none",
    *,
    timeout_s: float = 60.0,
    tokenizer: str | None = None,
    chat: ChatFormat | None = None,
    system: str | None = None,
    **runtime: Any,
) -> HostSpec:
    """Return the spec of a host in `echo-v0` with seed 7; a time limit may be less than a config allows."""
    config = ExperimentConfig(
        seed=7,
        world=WorldConfig(id="echo-v0"),
        agents=agents,
        coordinator=CoordinatorConfig(kind=coordinator),
        runtime=RuntimeConfig(**runtime),
    )
    config = config.model_copy(update={"faults": FaultsConfig.model_construct(call_timeout_s=timeout_s)})
    return HostSpec(config, ResolvedModel(agents.engine, tokenizer, chat), ResolvedModel(), system=system)
