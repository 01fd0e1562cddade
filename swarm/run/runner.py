"""Starts and resumes runs: run folder, checkpoints, pool, runtime, in the order that loses nothing on an error.

Owns the life cycle of a run and what is in its folder. Everything that can be wrong with the user's files is found
before the folder exists.
"""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from swarm.agents.host import HostSpec
from swarm.agents.ltm_files import MEMORY_FOLDER, MemoryStore
from swarm.agents.models import LoadedModels, load_models
from swarm.config.coordinator import CoordinatorConfig
from swarm.config.experiment import ExperimentConfig
from swarm.coordinator.human import Terminal, operator_for
from swarm.errors import SwarmError
from swarm.messages import Operator, Pool
from swarm.prompt import agent_system
from swarm.record.journal import JOURNAL_NAME, JournalWriter, Record, read_records
from swarm.record.telemetry import TELEMETRY_NAME, TelemetryWriter
from swarm.run.remote import start_remote
from swarm.run.steering import STEERING_NAME, Mailbox
from swarm.run.tick_loop import Runtime
from swarm.run.topology import neighbours
from worlds.protocol import World, WorldError
from worlds.registry import make

__all__ = ["RunOutcome", "check_files", "resume_run", "start_run"]

FORMAT = 1
Announce = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended. `exit_code` is 0 only for a run that finished or used up its wall time as asked."""

    run_dir: Path
    reason: str
    episodes: int
    solved: int
    tokens: int
    faults: int
    journal_hash: str

    @property
    def exit_code(self) -> int:
        """Exit code for the command line."""
        return 0 if self.reason in ("finished", "wall_time") else 1


def check_files(config: ExperimentConfig, source: Path) -> None:
    """Check that all files of an experiment are there and fit; nothing is started.

    Raises:
        SwarmError: one does not.
    """
    base_dir = source.resolve().parent
    load_models(config, base_dir)
    _world(config, base_dir)


def start_run(
    config: ExperimentConfig,
    source: Path,
    out: Path | None,
    announce: Announce = lambda run_dir: None,
    terminal: Terminal | None = None,
) -> RunOutcome:
    """Run an experiment from the start.

    Args:
        config: the experiment.
        source: its YAML file; paths in it are relative to that file's folder.
        out: run folder to create; None makes `runs/<name>-s<seed>`, with a number where that exists.
        announce: called with the run folder once its journal exists.
        terminal: where a person takes part, as the coordinator `human` or as the one who approves what another says.

    Raises:
        SwarmError: anything that one line can explain; no run folder is left behind by a mistake in the files.
    """
    base_dir = source.resolve().parent
    operator = operator_for(config, terminal)
    models = load_models(config, base_dir)
    _world(config, base_dir)
    run_dir = _create_folder(config, out)
    manifest: dict[str, Any] = {
        "base_dir": str(base_dir),
        "source": str(source),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "machine": platform.machine(),
        "versions": {name: metadata.version(name) for name in ("torch", "ray", "transformers", "numpy")},
        "checkpoints": models.hashes,
    }
    (run_dir / "experiment.yaml").write_text(
        yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), encoding="utf-8"
    )
    (run_dir / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    runtime_config = config.runtime
    with (
        JournalWriter(run_dir / JOURNAL_NAME, runtime_config.durability) as journal,
        TelemetryWriter(run_dir / TELEMETRY_NAME) as telemetry,
    ):
        journal.append("header", {"format": FORMAT, "config": config.logical(), "checkpoints": models.hashes})
        telemetry.emit("start", **manifest["versions"])
        announce(run_dir)
        runtime = _runtime(config, base_dir, run_dir, journal, telemetry, operator)
        return _carry_out(config, base_dir, run_dir, runtime, models, journal, telemetry)


def resume_run(
    run_dir: Path, announce: Announce = lambda run_dir: None, terminal: Terminal | None = None
) -> RunOutcome:
    """Continue a run where its journal ends; a finished one is reported as it is. `terminal` is as in `start_run`.

    Raises:
        SwarmError: the folder is no run, is in use, is damaged, or its checkpoints changed.
    """
    try:
        config = ExperimentConfig.model_validate(
            yaml.safe_load((run_dir / "experiment.yaml").read_text(encoding="utf-8"))
        )
        manifest: dict[str, Any] = json.loads((run_dir / "manifest.json").read_text(encoding="utf-8"))
        base_dir = Path(manifest["base_dir"])
    except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
        raise SwarmError(f"{run_dir} cannot be resumed: {error}") from error
    operator = operator_for(config, terminal)
    # A run that is over is only reported: its models may be gone.
    is_over = any(record["kind"] == "end" for record in read_records(run_dir / JOURNAL_NAME))
    models = LoadedModels() if is_over else load_models(config, base_dir)
    runtime_config = config.runtime
    with (
        JournalWriter.resume(run_dir / JOURNAL_NAME, runtime_config.durability) as journal,
        TelemetryWriter(run_dir / TELEMETRY_NAME) as telemetry,
    ):
        records = read_records(run_dir / JOURNAL_NAME)
        header = next(records, None)
        if header is None:  # killed before the first record was durable
            journal.append("header", {"format": FORMAT, "config": config.logical(), "checkpoints": models.hashes})
        else:
            _check_header(header, config, header["checkpoints"] if is_over else models.hashes)
        runtime = _runtime(config, base_dir, run_dir, journal, telemetry, operator)
        runtime.fold(records)
        telemetry.emit("resume", seq=journal.next_seq)
        announce(run_dir)
        return _carry_out(config, base_dir, run_dir, runtime, models, journal, telemetry)


def _check_header(header: Record, config: ExperimentConfig, hashes: dict[str, str]) -> None:
    if header["format"] != FORMAT:
        raise SwarmError(f"journal format {header['format']} is not the format {FORMAT} that this version writes")
    if _but_for_addresses(header["config"]) != _but_for_addresses(config.logical()):
        raise SwarmError("experiment.yaml of the run folder no longer fits its journal; restore it or start a new run")
    for path, digest in header["checkpoints"].items():
        if hashes.get(path) != digest:
            raise SwarmError(f"checkpoint {path} changed since the run began; restore it or start a new run")


def _but_for_addresses(logical: Record) -> Record:
    """Return a logical config without the endpoints' addresses: a run may go on with a server that moved."""
    found = dict(logical)
    for name in ("agents", "coordinator"):
        if engine := found[name]["engine"]:
            found[name] = {**found[name], "engine": {key: value for key, value in engine.items() if key != "url"}}
    return found


def _carry_out(
    config: ExperimentConfig,
    base_dir: Path,
    run_dir: Path,
    runtime: Runtime,
    models: LoadedModels,
    journal: JournalWriter,
    telemetry: TelemetryWriter,
) -> RunOutcome:
    if runtime.ended is None:
        pool: Pool | None = None
        try:
            pool = _make_pool(config, base_dir, models, telemetry)
            runtime.play(pool)
        except KeyboardInterrupt:
            telemetry.emit("interrupted")
            raise
        finally:
            if pool is not None:
                pool.close()
    totals = runtime.totals
    telemetry.emit("finish", reason=runtime.ended)
    return RunOutcome(
        run_dir,
        str(runtime.ended),
        totals.episodes,
        totals.solved,
        totals.tokens,
        totals.faults,
        journal.last_hash,
    )


def _make_pool(config: ExperimentConfig, base_dir: Path, models: LoadedModels, telemetry: TelemetryWriter) -> Pool:
    runtime, agents = config.runtime, config.agents
    world = _world(config, base_dir)
    spec = HostSpec(
        config.seed,
        agents,
        CoordinatorConfig() if config.coordinator.traits.needs_terminal else config.coordinator,
        config.world.id,
        config.faults.call_timeout_s,
        runtime.device,
        runtime.dtype,
        runtime.compile,
        runtime.threads_per_host,
        tuple(world.tools()) if config.coordinator.chats else (),
        agent_system(world.tools()) if agents.engine.chats else None,
        models.folders,
        {name: str(path) for name, path in models.adapters.items()},
        models.tokenizers.get("agents"),
        models.chats.get("agents"),
    )
    if runtime.pool == "local":
        from swarm.agents.local_pool import LocalPool

        return LocalPool(spec, models.shared, remote=start_remote(config, models, telemetry.emit))
    from swarm.actors.pool import RayPool

    return RayPool(
        spec,
        models.shared,
        runtime,
        agents.count * config.concurrency,
        telemetry.emit,
        lambda: start_remote(config, models, telemetry.emit),
    )


def _world(config: ExperimentConfig, base_dir: Path) -> World:
    options = dict(config.world.options)
    if isinstance(options.get("file"), str):
        options["file"] = str(base_dir / options["file"])
    try:
        return make(config.world.id, config.agents.count, options)
    except WorldError as error:
        raise SwarmError(str(error)) from error


def _runtime(
    config: ExperimentConfig,
    base_dir: Path,
    run_dir: Path,
    journal: JournalWriter,
    telemetry: TelemetryWriter,
    operator: Operator | None,
) -> Runtime:
    agents = _world(config, base_dir).possible_agents
    heard_by = neighbours(config.topology, agents, config.seed, base_dir)
    memories = MemoryStore(run_dir / MEMORY_FOLDER, config.runtime.durability) if config.agents.has_ltm else None
    mailbox = Mailbox(run_dir / STEERING_NAME)
    return Runtime(config, lambda: _world(config, base_dir), heard_by, journal, telemetry, memories, mailbox, operator)


def _create_folder(config: ExperimentConfig, out: Path | None) -> Path:
    if out is not None:
        run_dir = out
        if (run_dir / JOURNAL_NAME).exists():
            raise SwarmError(
                f"{run_dir} already holds a run; resume it with `swarm resume {run_dir}` or choose another --out"
            )
    else:
        stem = Path("runs") / f"{config.name}-s{config.seed}"
        run_dir, number = stem, 1
        while run_dir.exists():
            number += 1
            run_dir = stem.with_name(f"{stem.name}-{number}")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SwarmError(f"cannot create run folder {run_dir}: {error.strerror}; choose another with --out") from error
    return run_dir
