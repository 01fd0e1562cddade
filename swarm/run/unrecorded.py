"""Episodes that leave no run behind: played in this process, for an estimate or an acceptance test."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

from swarm.agents.local_pool import LocalPool
from swarm.agents.memory import AgentMemory
from swarm.agents.models import LoadedModels
from swarm.config.experiment import ExperimentConfig
from swarm.record.journal import JournalWriter
from swarm.record.records import Record
from swarm.record.telemetry import TelemetryWriter
from swarm.run.episode import world_of
from swarm.run.runner import host_spec
from swarm.run.skills import Scores, Skills
from swarm.run.steering import STEERING_NAME, Mailbox
from swarm.run.tick_loop import Runtime
from swarm.run.topology import neighbours


class _Listener:
    """Stands for a journal and for telemetry, and passes records on."""

    def __init__(self, on_record: Callable[[Record], None]) -> None:
        self.next_seq, self._on_record = 0, on_record

    def append(self, record: Record) -> None:
        self.next_seq += 1
        self._on_record(record)

    def emit(self, kind: str, **facts: Any) -> None:
        """Forget it."""


def play_unrecorded(
    config: ExperimentConfig,
    base_dir: Path,
    models: LoadedModels,
    memories: Sequence[AgentMemory[Any]],
    on_record: Callable[[Record], None],
    only: Mapping[int, int] | None = None,
    skills: Scores = MappingProxyType({}),
    on_start: Callable[[], None] = lambda: None,
) -> Runtime:
    """Play a run that is written nowhere; return it as it was at its end.

    Args:
        config: the experiment.
        base_dir: its folder.
        models: its models.
        memories: what agents keep.
        on_record: receives each record.
        only: the episodes to play, each with its level; None plays all.
        skills: what agents can do before it.
        on_start: called once the models are ready.

    Raises:
        SwarmError: the pool gave up.
    """
    listener = _Listener(on_record)
    world = world_of(config, base_dir)
    with tempfile.TemporaryDirectory(prefix="swarm-") as folder:
        runtime = Runtime(
            config,
            lambda episode: world_of(config.of_episode(episode), base_dir),
            neighbours(config.topology, world.possible_agents, config.seed, base_dir),
            cast(JournalWriter, listener),
            cast(TelemetryWriter, listener),
            memories,
            Mailbox(Path(folder) / STEERING_NAME),
            None,
            lambda: None,
            Skills(config, world, skills),
            only,
        )
        with closing(LocalPool(host_spec(config, base_dir, models), models.shared)) as pool:
            on_start()
            runtime.play(pool)
    return runtime
