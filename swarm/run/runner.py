"""Starts and resumes runs: run folder, checkpoints, pool, runtime, in the order that loses nothing on an error.

Owns the life cycle of a run and what is in its folder. Everything that can be wrong with the user's files is found
before the folder exists.
"""

import pkgutil
import platform
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from itertools import count, islice
from pathlib import Path

from swarm.agents.host import HostSpec
from swarm.agents.ltm_files import MEMORY_FOLDER
from swarm.agents.memory import Place, make_memories
from swarm.agents.models import LoadedModels, load_models
from swarm.backends.kept import KEPT_NAME, KeptReplies
from swarm.config.coordinator import CoordinatorConfig
from swarm.config.experiment import ExperimentConfig
from swarm.config.memory import find_memory
from swarm.config.section import logical_settings
from swarm.config.shipped import find_file
from swarm.coordinator.human import operator_for
from swarm.coordinator.protocol import Terminal
from swarm.errors import Outage, SwarmError, WorkFailedError, first_line
from swarm.files import make_folder, sync
from swarm.identity import refuse_other
from swarm.messages import Operator, Pool
from swarm.process.machine import cpu_model
from swarm.prompt import agent_system
from swarm.record.folder import base_dir_of, move_base, needing_base, read_experiment, read_manifest, write_folder
from swarm.record.journal import JOURNAL_NAME, JournalWriter, read_header, read_records
from swarm.record.records import FORMAT
from swarm.record.tally import Tally
from swarm.record.telemetry import TELEMETRY_NAME, TelemetryWriter
from swarm.run.episode import world_of
from swarm.run.remote import start_remote
from swarm.run.skills import Skills
from swarm.run.steering import STEERING_NAME, Mailbox
from swarm.run.tick_loop import Runtime
from swarm.run.topology import neighbours
from worlds.results import WorldFaultError

Announce = Callable[[Path], None]
LEARNER = "swarm.learn.learner:Learner"
"""Takes part in a run as one more memory, which changes at the barrier after a round; named, for it is above us."""

_OURS = ("lock", STEERING_NAME)
"""What a run folder may hold before there is a journal: a killed start, and what people already left for the run."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended.

    `exit_code` is 0 only for a run that finished or used up its wall time as asked, and in which calls succeeded.

    Attributes:
        tally: calls that were made and answered, and what went wrong.
        played: False when the run had ended before, so that nothing was left to do.
        exam_episodes, exam_solved: those of the exam after the last round; `episodes` and `solved` count them, too.
    """

    run_dir: Path
    reason: str
    episodes: int
    solved: int
    tokens: int
    faults: int
    journal_hash: str
    played: bool = True
    tally: Tally = field(default_factory=Tally)
    exam_episodes: int = 0
    exam_solved: int = 0

    @property
    def failure(self) -> str | None:
        """Why the run counts as failed, None where it does not."""
        if self.reason not in ("finished", "wall_time", "budget: run_tokens"):
            return "too many faults ended the run"
        return self.tally.failure

    @property
    def exit_code(self) -> int:
        """Exit code for the command line."""
        return 0 if self.failure is None else 1


def check_files(config: ExperimentConfig, source: Path) -> LoadedModels:
    """Check that all files of an experiment are there and fit, and return its models; nothing is started.

    Raises:
        SwarmError: one does not.
    """
    base_dir = source.resolve().parent
    world = world_of(config, base_dir)
    for memory in config.agents.memory:
        needed = find_memory(memory.kind).of_world
        if needed and not getattr(world, needed, False):
            raise SwarmError(
                f"agents.memory names {memory.kind}, which would stay empty: world {world.id} has no "
                f"`{needed}`; leave {memory.kind} out"
            )
    try:
        if config.learning is not None and config.learning.levels == "fitting" and world.num_levels == 1:
            raise SwarmError(
                f"learning.levels: fitting chooses among levels of difficulty, and world {world.id} has one with these "
                f"options; leave it out"
            )
        world.tools()
    except WorldFaultError as error:
        raise SwarmError(str(error)) from error
    try:
        return load_models(config, base_dir)
    except Outage as error:  # nothing has begun that could go on
        raise SwarmError(str(error)) from error


def start_run(
    config: ExperimentConfig,
    source: Path,
    out: Path | None,
    announce: Announce = lambda run_dir: None,
    terminal: Terminal | None = None,
) -> RunOutcome:
    """Run an experiment, or go on with it: an unfinished run of it in `out` is continued, a finished one reported.

    Args:
        config: the experiment.
        source: its YAML file, or the name of a shipped one; paths in it are relative to that file's folder.
        out: the run folder; None makes `runs/<name>-s<seed>`, with a number where that exists.
        announce: called with the run folder once its journal exists and something will be played.
        terminal: where a person takes part, as the coordinator `human` or as the one who approves what another says.

    Raises:
        SwarmError: anything that one line can explain; no run folder is left behind by a mistake in the files.
        Outage: nobody answers any more; the same call, or `resume_run`, goes on.
        WorkFailedError: the run had begun and could not go on.
    """
    source = find_file(source)
    base_dir = source.resolve().parent
    operator = operator_for(config, terminal)
    if out is not None and (out / JOURNAL_NAME).is_file():
        journal = JournalWriter.resume(out / JOURNAL_NAME, config.runtime.durability)
        return _play(config, source, base_dir, journal, announce, operator)
    models = check_files(config, source)
    journal = JournalWriter(_create_folder(config, out) / JOURNAL_NAME, config.runtime.durability)
    return _play(config, source, base_dir, journal, announce, operator, models)


def resume_run(
    run_dir: Path,
    announce: Announce = lambda run_dir: None,
    terminal: Terminal | None = None,
    base: Path | None = None,
) -> RunOutcome:
    """Continue a run with the settings in its folder; other arguments and the result are those of `start_run`.

    Args:
        run_dir: the run folder.
        announce: as of `start_run`.
        terminal: as of `start_run`.
        base: where the folder of the experiment's file is now, if it was moved; the run folder remembers it.

    Raises:
        SwarmError: the folder is no run, is in use, is damaged, or its checkpoints changed.
    """
    config = read_experiment(run_dir, ExperimentConfig)
    if base is not None:
        move_base(run_dir, base)
    source, base_dir = Path(read_manifest(run_dir)["source"]), base_dir_of(run_dir)
    operator = operator_for(config, terminal)
    journal = JournalWriter.resume(run_dir / JOURNAL_NAME, config.runtime.durability)
    with needing_base(run_dir, base_dir):
        return _play(config, source, base_dir, journal, announce, operator)


def _play(
    config: ExperimentConfig,
    source: Path,
    base_dir: Path,
    journal: JournalWriter,
    announce: Announce,
    operator: Operator | None,
    models: LoadedModels | None = None,
) -> RunOutcome:
    """Play what the journal lacks, and close it."""
    run_dir = journal.path.parent
    with journal, TelemetryWriter(run_dir / TELEMETRY_NAME) as telemetry, KeptReplies(run_dir / KEPT_NAME) as kept:
        world = world_of(config, base_dir)
        memories = make_memories(
            config.agents.memory, Place.of(config, base_dir, run_dir / MEMORY_FOLDER, config.runtime.durability)
        )
        if config.learning is not None:
            memories.append(pkgutil.resolve_name(LEARNER)(config, base_dir, run_dir / MEMORY_FOLDER))
        runtime = Runtime(
            config,
            lambda episode: world_of(config.of_episode(episode), base_dir),
            neighbours(config.topology, world.possible_agents, config.seed, base_dir),
            journal,
            telemetry,
            memories,
            Mailbox(run_dir / STEERING_NAME),
            operator,
            kept.clear,
            Skills(config, world),
        )
        if (header := read_header(journal.path)) is not None:
            refuse_other(run_dir, header["config"], logical_settings(config))
            runtime.fold(islice(read_records(journal.path), 1, None))
        if played := not runtime.end["reason"]:  # otherwise it is only reported: its models may be gone
            models = models or load_models(config, base_dir)
            if header is None:  # new, or killed before the first record was durable
                _begin(config, source, base_dir, models, journal)
                telemetry.emit("start", **_versions())
            else:
                for path, digest in header["checkpoints"].items():
                    if models.hashes.get(path) != digest:
                        raise SwarmError(
                            f"checkpoint {path} changed since the run began; restore it or start a new run"
                        )
                telemetry.emit("resume", seq=journal.next_seq)
            for kind, facts in models.events:
                telemetry.emit(kind, **facts)
            announce(run_dir)
            try:
                with closing(_make_pool(config, base_dir, models, telemetry, kept)) as pool:
                    runtime.play(pool)
                kept.clear()
            except KeyboardInterrupt:
                telemetry.emit("interrupted")
                raise
            except SwarmError as error:
                telemetry.emit("outage", detail=first_line(error)[:300])
                if isinstance(error, Outage):
                    raise
                raise WorkFailedError(str(error)) from error  # the user's files were fine
            telemetry.emit("finish", reason=runtime.end["reason"])
        end = runtime.end
        return RunOutcome(
            run_dir,
            end["reason"],
            end["episodes"],
            end["solved"],
            end["tokens"],
            end["faults"],
            journal.last_hash,
            played,
            runtime.tally,
            *runtime.exam,
        )


def _begin(
    config: ExperimentConfig,
    source: Path,
    base_dir: Path,
    models: LoadedModels,
    journal: JournalWriter,
) -> None:
    """Write what resume needs, then the journal's first record; nobody else writes here, for the journal is locked."""
    manifest = {
        "base_dir": str(base_dir),
        "source": str(source),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "versions": _versions(),
        "checkpoints": models.hashes,
    }
    write_folder(journal.path.parent, config.model_dump(mode="json"), manifest)
    journal.append(
        {"kind": "header", "format": FORMAT, "config": logical_settings(config), "checkpoints": models.hashes}
    )


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in ("torch", "ray", "transformers", "numpy")}


def host_spec(config: ExperimentConfig, base_dir: Path, models: LoadedModels) -> HostSpec:
    """Return what the hosts of a run need to know."""
    if config.coordinator.traits.needs_terminal:  # it directs beside the tick loop
        config = config.model_copy(update={"coordinator": CoordinatorConfig()})
    tools = world_of(config, base_dir).tools()
    return HostSpec(
        config,
        models.agents,
        models.coordinator,
        tuple(tools) if config.coordinator.chats else (),
        agent_system(tools) if config.agents.engine.chats else None,
    )


def _make_pool(
    config: ExperimentConfig, base_dir: Path, models: LoadedModels, telemetry: TelemetryWriter, kept: KeptReplies
) -> Pool:
    spec = host_spec(config, base_dir, models)
    make_remote = partial(start_remote, models, config.faults, telemetry.emit, kept)
    if config.runtime.pool == "local":
        from swarm.agents.local_pool import LocalPool

        return LocalPool(spec, models.shared, remote=make_remote())
    from swarm.actors.pool import RayPool

    return RayPool(spec, models.shared, telemetry.emit, make_remote)


def _create_folder(config: ExperimentConfig, out: Path | None) -> Path:
    """Return a folder that is new, or empty; two runs that are started together get two."""
    stem = out or Path("runs") / f"{config.name}-s{config.seed}"
    try:
        if out is not None:
            make_folder(out)
            there = sorted(path.name for path in out.iterdir() if path.name not in _OURS)
            if there and JOURNAL_NAME not in there:  # else another process was faster, and has the lock
                raise SwarmError(f"{out} holds no run but {', '.join(there[:3])}; choose another folder with --out")
            return out
        make_folder(stem.parent)
        for number in count(1):
            run_dir = stem if number == 1 else stem.with_name(f"{stem.name}-{number}")
            with suppress(FileExistsError):
                run_dir.mkdir()
                sync(stem.parent)
                return run_dir
        raise AssertionError
    except OSError as error:
        raise SwarmError(f"cannot create run folder {stem}: {error.strerror}; choose another with --out") from error
