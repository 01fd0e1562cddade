"""Replay: play the recorded actions into fresh worlds, compare what happens with what the journal says.

Owns the comparison of a journal with the worlds it speaks about, and the readable transcript. No model is
loaded and neither torch nor Ray is imported: actions come from the journal, so what is proven is that
observations, feedback, reports, rewards, states, outcomes and spending follow from them. It refuses to judge
why an agent acted as it did.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from swarm.agents.delta import Deltas, DeltaSection
from swarm.agents.memory import AgentMemory, Place, make_memories
from swarm.config.experiment import recorded_experiment
from swarm.errors import SwarmError
from swarm.record.folder import base_dir_of, needing_base
from swarm.record.journal import GENESIS, JOURNAL_NAME, JournalReader, state_hash
from swarm.record.records import (
    ChangeRecord,
    EpisodeEnd,
    EpisodeStart,
    Header,
    Record,
    Tick,
    acted,
    faults_in,
    said_by_person,
)
from swarm.run.budget import Spent
from swarm.run.episode import start_of, world_of
from swarm.run.experience import Retelling
from swarm.text import printable
from swarm.view.changes import in_one_line
from worlds.protocol import Info, World
from worlds.results import WorldFaultError


class ReplayError(SwarmError):
    """The journal and the world disagree; the message names the record, the place and both values."""


@dataclass(slots=True)
class ReplayResult:
    """What was replayed.

    Attributes:
        records: records read. episodes: episodes that ended. ticks: ticks of all episodes.
        solved: episodes solved. open_episodes: episodes without an end (of a run that was cut short).
        changes: of what agents keep for good, such as learning steps; `swarm.learn.recompute` takes those anew.
        finished: whether the journal has its `end` record.
        hash: hash of the last record.
    """

    records: int = 0
    episodes: int = 0
    solved: int = 0
    ticks: int = 0
    open_episodes: int = 0
    changes: int = 0
    finished: bool = False
    hash: str = GENESIS


@dataclass(slots=True)
class _Episode:
    """A running episode; `steered`: the last line of steer.jsonl that it was told."""

    world: World
    ticks: int = 0
    spent: Spent = field(default_factory=Spent)
    steered: int = 0


def replay_run(run_dir: Path, check: bool, *, progress: Callable[[int, int], None] | None = None) -> ReplayResult:
    """Recompute every world state of a run from its journal.

    Args:
        run_dir: the run folder.
        check: verify the hash chain too, and what agents keep as far as it follows from the journal.
        progress: called after every record with (bytes read, bytes in the file).

    Raises:
        ReplayError: the worlds disagree with the journal.
        SwarmError: no journal, a broken chain, an unknown world.
    """
    replayer = _Replayer(run_dir, check)
    for _ in replayer.records():
        if progress is not None:
            progress(replayer.reader.tail.offset, replayer.path.stat().st_size)
    return replayer.result


def transcript(run_dir: Path, *, check: bool = False, prompts: bool = False) -> Generator[str, None, ReplayResult]:
    """Yield the run as readable lines while recomputing it; the generator returns the `ReplayResult`.

    Args:
        run_dir: the run folder.
        check: verify the hash chain too.
        prompts: tell what agents and coordinator read, too.

    Raises:
        ReplayError, SwarmError: as `replay_run`.
    """
    replayer = _Replayer(run_dir, check)
    retelling = Retelling.of_run(run_dir) if prompts else None
    for record in replayer.records():
        if retelling is not None:
            yield from map(printable, _say_prompts(record, retelling))
        yield from map(printable, _say(record, replayer.open))
    return replayer.result


class _Replayer:
    """Feeds records to one live world per open episode."""

    def __init__(self, run_dir: Path, check: bool) -> None:
        self.path = run_dir / JOURNAL_NAME
        if not self.path.is_file():
            raise SwarmError(f"no journal at {self.path}; name the folder of a run")
        self.base_dir = run_dir  # a journal without its folder may have a world's file beside itself
        with suppress(SwarmError):
            self.base_dir = base_dir_of(run_dir)
        self.reader = JournalReader(self.path, verify=check)
        self.open: dict[int, _Episode] = {}
        self.result = ReplayResult()
        self.tokens = self.faults = 0
        self.deltas = Deltas(DeltaSection(), Place())
        self.check = check
        self.memories: list[AgentMemory[Any]] = []

    def records(self) -> Iterator[Record]:
        """Yield each record once it was compared; asking for the next one closes an ended episode."""
        for record in self.reader.poll():
            self._compare(record)
            yield record
            if record["kind"] == "episode_end":
                del self.open[record["episode"]]
            self.result.records, self.result.hash = self.reader.tail.num_lines, self.reader.last_hash
            self.result.open_episodes = len(self.open)
        if not self.reader.tail.num_lines:
            raise SwarmError(f"{self.path} holds no whole record; the run was cut before it began")

    def _compare(self, record: Record) -> None:
        undone = record["kind"] == "change" and record["cause"] == "undo"  # by a person, who may do it afterwards
        if self.result.finished and not undone:
            raise ReplayError(f"seq {record['seq']}: a record after the end of the run")
        match record["kind"]:
            case "header":
                self._read_config(record)
            case "episode":
                self._begin(record)
            case "tick":
                self._tick(record, self._episode_of(record))
            case "episode_end":
                self._end_episode(record, self._episode_of(record))
            case "change":
                self._change(record)
            case "end":
                counted = {"episodes": self.result.episodes, "solved": self.result.solved, "tokens": self.tokens}
                _follows(_place(record), record, **counted, faults=self.faults)
                self.result.finished = True
        for memory in self.memories:
            try:
                memory.fold(record)
            except SwarmError as error:
                raise ReplayError(f"{_place(record)}: {error}") from error

    def _read_config(self, header: Header) -> None:
        try:
            self.config = recorded_experiment(header["config"])
        except ValidationError as error:
            wrong = error.errors(include_url=False)[0]
            setting = ".".join(map(str, wrong["loc"]))
            raise ReplayError(f"{self.path}, line 1: the header lacks a setting: {setting}: {wrong['msg']}") from error
        if self.check:
            self.memories = make_memories(self.config.agents.memory, Place.of(self.config, self.base_dir))

    def _episode_of(self, record: Tick | EpisodeEnd) -> _Episode:
        episode = self.open.get(record["episode"])
        if episode is None:
            raise ReplayError(f"{_place(record)}: a {record['kind']} of an episode that is not running")
        return episode

    def _begin(self, record: EpisodeStart) -> None:
        index, place = record["episode"], _place(record)
        if index in self.open:
            raise ReplayError(f"{place}: the episode began twice")
        seed, options = start_of(self.config, index, record["level"])
        _follows(place, record, world=self.config.world.id, seed=seed)
        try:
            with needing_base(self.path.parent, self.base_dir):
                world = world_of(self.config.of_episode(index), self.base_dir)
        except SwarmError as error:
            raise SwarmError(f"{place}: {error}") from error
        with _placed(place):
            observations, infos = world.reset(record["seed"], options=options)
            goal, state = world.goal(), state_hash(world.state())
        _same(place, "agents", [opening["agent"] for opening in record["agents"]], world.possible_agents)
        for opening in record["agents"]:
            agent = opening["agent"]
            report = infos.get(agent, Info()).get("report")
            _follows(f"{place}, agent {agent}", opening, observation=observations.get(agent), report=report)
        _follows(place, record, goal=goal, state=state)
        self.open[index] = _Episode(world)

    def _tick(self, record: Tick, episode: _Episode) -> None:
        place, world = _place(record), episode.world
        _follows(place, record, tick=episode.ticks)
        names = [entry["agent"] for entry in record["agents"]]
        _same(place, "order of agents", names, [agent for agent in world.possible_agents if agent in names])
        actions = {entry["agent"]: entry["action"] for entry in record["agents"] if acted(entry)}
        with _placed(place):
            result, state = world.step(actions), state_hash(world.state())
        for entry in filter(acted, record["agents"]):
            agent = entry["agent"]
            info = result.infos.get(agent, Info())
            _follows(
                f"{place}, agent {agent}",
                entry,
                feedback=info.get("feedback"),
                valid=info.get("valid"),
                reward=result.rewards.get(agent),
                report=info.get("report"),
            )
        self._check_steered(place, record, episode)
        cost = Spent.of(record)
        episode.spent += cost
        self.tokens += cost.tokens
        self.faults += len(faults_in(record))
        _follows(
            place,
            record,
            spent=episode.spent.entry(),
            state=state,
            terminated=_all(result.terminations),
            truncated=_all(result.truncations),
        )
        episode.ticks += 1
        self.result.ticks += 1

    def _check_steered(self, place: str, record: Tick, episode: _Episode) -> None:
        """Compare what a person said with what agents were told; nothing that was said may come twice."""
        given, said = dict(record["directives"]), dict[str, str]()
        for entry in record.get("steered", []):
            if entry["line"] <= episode.steered:
                raise ReplayError(f"{place}: line {entry['line']} of steer.jsonl was taken twice")
            episode.steered = entry["line"]
            said |= dict.fromkeys(entry.get("agents", []), entry.get("text", ""))
        for agent, text in said.items():
            _same(f"{place}, agent {agent}", "directive of a person", given.get(agent), text)

    def _change(self, record: ChangeRecord) -> None:
        """Take in what agents keep from now on; a delta stands on the one that its agent had before."""
        if record["memory"] == self.deltas.kind:
            _follows(_place(record), record, parent=self.deltas.of(record["agent"]))
        self.deltas.fold(record)
        self.tokens += record["cost"].get("tokens", 0)
        self.result.changes += 1

    def _end_episode(self, record: EpisodeEnd, episode: _Episode) -> None:
        place, solved = _place(record), episode.world.solved
        _same(place, "solved", record["solved"], solved)
        _same(place, "reason is 'solved'", record["reason"] == "solved", solved)
        fault = record["reason"].startswith("world fault")
        if fault != ("unrecorded" in record):
            raise ReplayError(f"{place}: the cost of a step without a record stands with a world fault, and only there")
        if "unrecorded" in record:  # the step that raised has no tick record, only its cost
            unrecorded = Spent(**record["unrecorded"])
            episode.spent += unrecorded
            self.tokens += unrecorded.tokens
        _follows(place, record, ticks=episode.ticks, **episode.spent.entry())
        self.result.episodes += 1
        self.result.solved += solved
        self.faults += fault


def _place(record: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {record[name]}" for name in ("seq", "episode", "tick") if name in record)


def _same(place: str, what: str, recorded: Any, recomputed: Any) -> None:
    if recorded != recomputed or (type(recorded) is bool) != (type(recomputed) is bool):
        raise ReplayError(f"{place}: {what} differs: the journal has {recorded!r}, recomputed is {recomputed!r}")


def _follows(place: str, record: Mapping[str, Any], **recomputed: Any) -> None:
    """Compare some fields of a record, or of an entry in it, with what was recomputed."""
    for what, value in recomputed.items():
        _same(place, what, record.get(what), value)


def _all(flags: Mapping[str, bool]) -> bool:
    return bool(flags) and all(flags.values())


@contextmanager
def _placed(place: str) -> Iterator[None]:
    """Say where a world went wrong that does so in the `with` block."""
    try:
        yield
    except WorldFaultError as error:
        raise ReplayError(f"{place}: {error}") from error


def _say_prompts(record: Record, retelling: Retelling) -> Iterator[str]:
    """Yield what was read in a tick, and let the retelling go on."""
    if record["kind"] == "tick":
        for call in retelling.calls(record):
            who = call.key[2] if call.role == "agent" else "coord"
            yield from (f"  {who:>5} | {line}" for line in call.prompt.splitlines())
    retelling.take(record)


def _say(record: Record, open_episodes: Mapping[int, _Episode]) -> Iterator[str]:
    """Yield the lines of one record for people."""
    match record["kind"]:
        case "header":
            config = record["config"]
            about = f"{config['world']['id']}, {config['agents']['count']} agents, seed {config['seed']}"
            yield f"{config.get('name', 'run')}: {about}"
        case "episode":
            yield from ("", f"episode {record['episode']}: {record['goal']}")
            yield from (f"  {opening['agent']:>5} sees {opening['observation']}" for opening in record["agents"])
        case "tick":
            spent = record["spent"]
            cost = f"tokens {spent['tokens']:,}  calls {spent['calls']:,}  actions {spent['actions']:,}"
            yield f"episode {record['episode']} tick {record['tick']}  {cost}"
            yield from _say_person(record)
            yield from (f"  {agent:>5} <- {text}" for agent, text in record["directives"])
            for entry in record["agents"]:
                mark = " " if entry["valid"] else "x"
                said = f"{mark}  {entry['action']}  {entry['feedback']}" if acted(entry) else f"!! {entry.get('fault')}"
                yield f"  {entry['agent']:>5} {said}"
        case "change":
            yield in_one_line(record)
        case "episode_end":
            solution = f": {record['solution']}" if record.get("solution") else ""
            cost = f"{record['ticks']} ticks, {record['tokens']:,} tokens"
            yield f"episode {record['episode']} ended, {record['reason']}{solution} ({cost})"
            yield from (f"  | {line}" for line in open_episodes[record["episode"]].world.render().splitlines())
        case "end":
            solved = f"{record['solved']} of {record['episodes']} solved"
            yield from ("", f"{record['reason']}: {solved}, {record['tokens']:,} tokens, {record['faults']} faults")


def _say_person(record: Tick) -> Iterator[str]:
    """Yield what people said and did in a tick."""
    yield from (f"  {said_by_person(entry)}" for entry in record.get("steered", []))
    if (review := record.get("review")) is not None:
        yield from (f"  a person says to coordinator: {hint}" for hint in review.get("hints", []))
        yield f"  a person {review['answer']} what the coordinator said"
        for agent, text in review.get("proposed", []):
            if (agent, text) not in record["directives"]:
                yield f"  {agent:>5} <- {text} (not passed on)"
