"""Replay: play the recorded actions into fresh worlds, compare what happens with what the journal says.

Owns the comparison of a journal with the worlds it speaks about, and the readable transcript. No model is
loaded and neither torch nor Ray is imported: actions come from the journal, so what is proven is that
observations, feedback, reports, rewards, states, outcomes and spending follow from them. It refuses to judge
why an agent acted as it did.
"""

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from swarm.errors import SwarmError
from swarm.record.folder import base_dir_of
from swarm.record.journal import JOURNAL_NAME, JournalReader, state_hash
from swarm.record.records import AgentEntry, End, EpisodeEnd, EpisodeStart, Header, Record, Tick, acted, faults_in
from swarm.run.budget import Spent
from swarm.run.episode import open_world
from swarm.run.experience import Retelling
from swarm.seeds import derive_seed
from swarm.text import printable
from worlds.protocol import Info, StepResult, World

_T = TypeVar("_T")


class ReplayError(SwarmError):
    """The journal and the world disagree; the message names the record, the place and both values."""


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What was replayed.

    Attributes:
        records: records read. episodes: episodes that ended. ticks: ticks of all episodes.
        solved: episodes solved. open_episodes: episodes without an end (of a run that was cut short).
        finished: whether the journal has its `end` record.
        hash: hash of the last record.
    """

    records: int
    episodes: int
    solved: int
    ticks: int
    open_episodes: int
    finished: bool
    hash: str


@dataclass(slots=True)
class _Episode:
    index: int
    world: World
    ticks: int = 0
    spent: Spent = field(default_factory=Spent)
    steered: int = 0


def replay_run(run_dir: Path, check: bool, *, progress: Callable[[int, int], None] | None = None) -> ReplayResult:
    """Recompute every world state of a run from its journal.

    Args:
        run_dir: the run folder.
        check: verify the hash chain too.
        progress: called after every record with (bytes read, bytes in the file).

    Raises:
        ReplayError: the worlds disagree with the journal.
        SwarmError: no journal, a broken chain, an unknown world.
    """
    replayer = _Replayer(run_dir, check)
    for _ in replayer.records():
        if progress is not None:
            progress(*replayer.position())
    return replayer.result()


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
    retelling = Retelling(run_dir) if prompts else None
    for record in replayer.records():
        lines = _say(record, replayer.open)
        if retelling is not None:
            lines = chain(_say_prompts(record, retelling), lines)
        for line in lines:
            yield printable(line)
    return replayer.result()


class _Replayer:
    """Feeds records to one live world per open episode."""

    def __init__(self, run_dir: Path, check: bool) -> None:
        self.path = run_dir / JOURNAL_NAME
        if not self.path.is_file():
            raise SwarmError(f"no journal at {self.path}; name the folder of a run")
        self.run_dir = run_dir
        self.reader = JournalReader(self.path, verify=check)
        self.open: dict[int, _Episode] = {}
        self.config: dict[str, Any] = {}
        self.episodes = self.solved = self.ticks = self.tokens = self.faults = 0
        self.finished = False

    def position(self) -> tuple[int, int]:
        return self.reader.tail.offset, self.path.stat().st_size

    def result(self) -> ReplayResult:
        num_records, last_hash = self.reader.tail.num_lines, self.reader.last_hash
        return ReplayResult(
            num_records, self.episodes, self.solved, self.ticks, len(self.open), self.finished, last_hash
        )

    def records(self) -> Iterator[Record]:
        """Yield each record once it was compared; asking for the next one closes an ended episode."""
        for record in self.reader.poll():
            self._compare(record)
            yield record
            if record["kind"] == "episode_end":
                del self.open[record["episode"]]
        if not self.config:
            raise SwarmError(f"{self.path} holds no whole record; the run was cut before it began")

    def _compare(self, record: Record) -> None:
        if self.finished:
            raise ReplayError(f"seq {record['seq']}: a record after the end of the run")
        if record["kind"] == "header":
            self._read_config(record)
        elif record["kind"] == "episode":
            self._begin(record)
        elif record["kind"] == "tick":
            self._tick(record, self._episode_of(record))
        elif record["kind"] == "episode_end":
            self._end_episode(record, self._episode_of(record))
        elif record["kind"] == "end":
            self._end(record)

    def _read_config(self, header: Header) -> None:
        config = header["config"]
        try:
            self.world_id, self.options = str(config["world"]["id"]), dict(config["world"]["options"])
            self.num_agents, self.seed = int(config["agents"]["count"]), int(config["seed"])
        except (KeyError, TypeError, ValueError) as error:
            raise ReplayError(f"{self.path}, line 1: the header lacks a setting: {error!r}") from error
        self.config = config

    def _episode_of(self, record: Tick | EpisodeEnd) -> _Episode:
        episode = self.open.get(record["episode"])
        if episode is None:
            raise ReplayError(f"{_place(record)}: a {record['kind']} of an episode that is not running")
        return episode

    def _begin(self, record: EpisodeStart) -> None:
        index, place = record["episode"], _place(record)
        if index in self.open:
            raise ReplayError(f"{place}: the episode began twice")
        _same(place, "world", record["world"], self.world_id)
        _same(place, "seed", record["seed"], derive_seed(self.seed, "world", index))
        try:
            world = open_world(self.world_id, self.num_agents, self.options, self._base_dir())
        except SwarmError as error:
            raise SwarmError(f"{place}: {error}") from error
        options = {"episode": index, "level": record["level"]}
        observations, infos = _calling(place, "reset", lambda: world.reset(record["seed"], options=options))
        _same(place, "agents", [opening["agent"] for opening in record["agents"]], world.possible_agents)
        for opening in record["agents"]:
            agent = opening["agent"]
            there = f"{place}, agent {agent}"
            _same(there, "observation", opening["observation"], observations.get(agent))
            _same(there, "report", opening.get("report"), _report(infos, agent))
        _same(place, "goal", record["goal"], _calling(place, "goal", world.goal))
        _same(place, "state", record["state"], _calling(place, "state", lambda: state_hash(world.state())))
        self.open[index] = _Episode(index, world)

    def _base_dir(self) -> Path:
        """Return where a world's file is looked for: a journal without its folder may have it beside itself."""
        try:
            return base_dir_of(self.run_dir)
        except SwarmError:
            return self.run_dir

    def _tick(self, record: Tick, episode: _Episode) -> None:
        place, world = _place(record), episode.world
        _same(place, "tick", record["tick"], episode.ticks)
        entries = record["agents"]
        names = [entry["agent"] for entry in entries]
        _same(place, "order of agents", names, [agent for agent in world.possible_agents if agent in names])
        actions = {entry["agent"]: entry["action"] for entry in entries if acted(entry)}
        result = _calling(place, "step", lambda: world.step(actions))
        for entry in entries:
            if acted(entry):
                _same_entry(place, entry, result)
        self._check_steered(place, record, episode)
        cost = Spent.of(record)
        episode.spent += cost
        self.tokens += cost.tokens
        self.faults += len(faults_in(record))
        _same(place, "spent", record["spent"], episode.spent.entry())
        _same(place, "state", record["state"], _calling(place, "state", lambda: state_hash(world.state())))
        _same(place, "terminated", record["terminated"], _all(result.terminations))
        _same(place, "truncated", record["truncated"], _all(result.truncations))
        episode.ticks += 1
        self.ticks += 1

    def _check_steered(self, place: str, record: Tick, episode: _Episode) -> None:
        """Compare what a person said with what agents were told; nothing that was said may come twice."""
        given = dict(record["directives"])
        for entry in record.get("steered", []):
            if entry["line"] <= episode.steered:
                raise ReplayError(f"{place}: line {entry['line']} of steer.jsonl was taken twice")
            episode.steered = entry["line"]
        for agent, text in _directed_by_people(record).items():
            _same(f"{place}, agent {agent}", "directive of a person", given.get(agent), text)

    def _end_episode(self, record: EpisodeEnd, episode: _Episode) -> None:
        place = _place(record)
        _same(place, "solved", record["solved"], episode.world.solved)
        _same(place, "reason is 'solved'", record["reason"] == "solved", episode.world.solved)
        fault = record["reason"].startswith("world fault")
        if fault != ("unrecorded" in record):
            raise ReplayError(f"{place}: the cost of a step without a record stands with a world fault, and only there")
        if "unrecorded" in record:  # the step that raised has no tick record, only its cost
            unrecorded = Spent(**record["unrecorded"])
            episode.spent += unrecorded
            self.tokens += unrecorded.tokens
        spent = episode.spent
        for name, recorded, value in (
            ("ticks", record["ticks"], episode.ticks),
            ("tokens", record["tokens"], spent.tokens),
            ("calls", record["calls"], spent.calls),
            ("actions", record["actions"], spent.actions),
        ):
            _same(place, name, recorded, value)
        self.episodes += 1
        self.solved += episode.world.solved
        self.faults += fault

    def _end(self, record: End) -> None:
        place = _place(record)
        _same(place, "episodes", record["episodes"], self.episodes)
        _same(place, "solved", record["solved"], self.solved)
        _same(place, "tokens", record["tokens"], self.tokens)
        _same(place, "faults", record["faults"], self.faults)
        self.finished = True


def _place(record: Record) -> str:
    place = f"seq {record['seq']}"
    if record["kind"] in ("episode", "tick", "episode_end"):
        place += f", episode {record['episode']}"
    return f"{place}, tick {record['tick']}" if record["kind"] == "tick" else place


def _same(place: str, what: str, recorded: Any, recomputed: Any) -> None:
    if recorded != recomputed or (type(recorded) is bool) != (type(recomputed) is bool):
        raise ReplayError(f"{place}: {what} differs: the journal has {recorded!r}, recomputed is {recomputed!r}")


def _same_entry(place: str, entry: AgentEntry, result: StepResult) -> None:
    agent = entry["agent"]
    there, info = f"{place}, agent {agent}", result.infos.get(agent, Info())
    _same(there, "feedback", entry["feedback"], info.get("feedback"))
    _same(there, "valid", entry["valid"], info.get("valid"))
    _same(there, "reward", entry["reward"], result.rewards.get(agent))
    _same(there, "report", entry.get("report"), _report(result.infos, agent))


def _report(infos: Mapping[str, Info], agent: str) -> str | None:
    return infos.get(agent, Info()).get("report")


def _all(flags: Mapping[str, bool]) -> bool:
    return bool(flags) and all(flags.values())


def _calling(place: str, what: str, call: Callable[[], _T]) -> _T:
    try:
        return call()
    except Exception as error:  # a world is anybody's code
        raise ReplayError(f"{place}: the world's {what} raised {type(error).__name__}: {error}") from error


def _directed_by_people(record: Tick) -> dict[str, str]:
    told: dict[str, str] = {}
    for entry in record.get("steered", []):
        told.update(dict.fromkeys(entry.get("agents", []), entry.get("text", "")))
    return told


def _say_prompts(record: Record, retelling: Retelling) -> Iterator[str]:
    """Yield what was read in a tick, and let the retelling go on."""
    if record["kind"] == "tick":
        for call in retelling.calls(record):
            who = call.key[2] if call.role == "agent" else "coord"
            yield from (f"  {who:>5} | {line}" for line in call.prompt.splitlines())
    retelling.take(record)


def _say(record: Record, open_episodes: Mapping[int, _Episode]) -> Iterator[str]:
    """Yield the lines of one record for people."""
    if record["kind"] == "header":
        config = record["config"]
        yield (
            f"{config.get('name', 'run')}: {config['world']['id']}, {config['agents']['count']} agents, "
            f"seed {config['seed']}"
        )
    elif record["kind"] == "episode":
        yield ""
        yield f"episode {record['episode']}: {record['goal']}"
        yield from (f"  {opening['agent']:>5} sees {opening['observation']}" for opening in record["agents"])
    elif record["kind"] == "tick":
        spent = record["spent"]
        yield (
            f"episode {record['episode']} tick {record['tick']}  "
            f"tokens {spent['tokens']:,}  calls {spent['calls']:,}  actions {spent['actions']:,}"
        )
        yield from _say_person(record)
        yield from (f"  {agent:>5} <- {text}" for agent, text in record["directives"])
        for entry in record["agents"]:
            if not acted(entry):
                yield f"  {entry['agent']:>5} !! {entry.get('fault')}"
            else:
                mark = " " if entry["valid"] else "x"
                yield f"  {entry['agent']:>5} {mark}  {entry['action']}  {entry['feedback']}"
    elif record["kind"] == "episode_end":
        solution = f": {record['solution']}" if record.get("solution") else ""
        yield (
            f"episode {record['episode']} ended, {record['reason']}{solution} "
            f"({record['ticks']} ticks, {record['tokens']:,} tokens)"
        )
        yield from (f"  | {line}" for line in open_episodes[record["episode"]].world.render().splitlines())
    elif record["kind"] == "end":
        yield ""
        yield (
            f"{record['reason']}: {record['solved']} of {record['episodes']} solved, "
            f"{record['tokens']:,} tokens, {record['faults']} faults"
        )


def _say_person(record: Tick) -> Iterator[str]:
    """Yield what people said and did in a tick."""
    for entry in record.get("steered", []):
        whom = " ".join(entry.get("agents", ["coordinator"]))
        yield f"  a person says to {whom}: {entry.get('hint', entry.get('text'))}"
    if (review := record.get("review")) is not None:
        yield from (f"  a person says to coordinator: {hint}" for hint in review.get("hints", []))
        yield f"  a person {review['answer']} what the coordinator said"
        for agent, text in review.get("proposed", []):
            if (agent, text) not in record["directives"]:
                yield f"  {agent:>5} <- {text} (not passed on)"
