"""What the registry of a run holds, rebuilt from its journal; or a registry's file, opened."""

from __future__ import annotations

from pathlib import Path

from swarm.agents.memory import Place
from swarm.agents.registry import Registry, RegistrySection
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.record.folder import base_dir_of, read_experiment
from swarm.record.journal import JOURNAL_NAME, read_records
from swarm.view.memory import chosen, kinds_of_memory
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
    episode, agent = chosen(target, agent, episode)
    kept = Registry(settings, Place.of(config, base_dir_of(target)))
    first = 0 if settings.span == "run" else episode
    for record in read_records(target / JOURNAL_NAME):
        if record["kind"] == "tick":
            at = record["episode"]
        elif record["kind"] == "change" and record["memory"] == kept.kind:
            at = record["settings"]["episode"]
        else:
            continue
        if first <= at <= episode:
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
