"""What the registry of a run holds, rebuilt from its journal; or a registry's file, opened."""

from __future__ import annotations

from pathlib import Path

from swarm.agents.memory import Place
from swarm.agents.registry import Registry, RegistrySection
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.record.folder import read_experiment
from swarm.record.journal import JOURNAL_NAME, read_records
from swarm.view.memory import kinds_of_memory
from ulm.memory.registry import EntityRegistry


def registry_of(target: Path, agent: str | None = None, episode: int | None = None) -> EntityRegistry:
    """Return a registry as it was after an episode; null controls are not applied.

    Args:
        target: a run folder, or the file of a registry.
        agent: whose, where each agent has one; None takes the first's.
        episode: which one; None takes the last one that began.

    Raises:
        SwarmError: there is none, or no such agent or episode.
    """
    if target.is_file():
        return open_registry(target)
    if "registry" not in kinds_of_memory(target):
        raise SwarmError(f"agents of {target} keep no registry; run with agents.memory: [stm, registry]")
    config = read_experiment(target, ExperimentConfig)
    settings = next(one for one in config.agents.memory if isinstance(one, RegistrySection))
    records = list(read_records(target / JOURNAL_NAME))
    opened = {r["episode"]: [entry["agent"] for entry in r["agents"]] for r in records if r["kind"] == "episode"}
    if not opened:
        raise SwarmError(f"{target}: no episode has begun yet")
    episode = max(opened) if episode is None else episode
    if episode not in opened:
        raise SwarmError(f"there is no episode {episode} in {target}; there are: {', '.join(map(str, opened))}")
    agent = opened[episode][0] if agent is None else agent
    if agent not in opened[episode]:
        raise SwarmError(f"there is no agent {agent!r}; agents: {', '.join(opened[episode])}")
    kept = Registry(settings, Place.of(config))
    first = 0 if settings.span == "run" else episode
    for record in records:
        if record["kind"] == "tick" and first <= record["episode"] <= episode:
            kept.fold(record)
    return kept.registry(episode, agent)


def open_registry(path: Path, *, writing: bool = False) -> EntityRegistry:
    """Return the registry in a file.

    Raises:
        SwarmError: it is none, is damaged, or is not there.
    """
    from ulm.memory.registry import Identity

    try:
        identity = Identity.load()
        return EntityRegistry.load(path, identity) if writing else EntityRegistry(path, read_only=True)
    except (ValueError, OSError) as error:
        raise SwarmError(str(error)) from error
