"""Replay: play the recorded actions into fresh worlds, compare what happens with what the journal says.

Owns the comparison of a journal with the worlds it speaks about, and the readable transcript. No model is
loaded and neither torch nor Ray is imported: actions come from the journal, so what is proven is that
observations, feedback, reports, rewards, states, outcomes and spending follow from them. It refuses to judge
why an agent acted as it did.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from swarm.errors import SwarmError
from swarm.record.journal import GENESIS, JOURNAL_NAME, JournalReader, LineTail, Record, state_hash
from swarm.run.budget import Spent
from swarm.seeds import derive_seed
from swarm.text import printable
from worlds.protocol import Info, StepResult, World, WorldError
from worlds.registry import make

__all__ = ["ReplayError", "ReplayResult", "journal_hash", "replay", "transcript"]

JOURNAL_FORMAT = 1
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


def replay(
    run_dir: Path,
    check: bool,
    *,
    base_dir: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ReplayResult:
    """Recompute every world state of a run from its journal.

    Args:
        run_dir: the run folder.
        check: verify the hash chain too.
        base_dir: folder that relative puzzle files are looked up in; default the run folder.
        progress: called after every record with (bytes read, bytes in the file).

    Raises:
        ReplayError: the worlds disagree with the journal.
        SwarmError: no journal, a broken chain, an unknown world.
    """
    replayer = _Replayer(run_dir, check, base_dir or run_dir)
    for _ in replayer.records():
        if progress is not None:
            progress(*replayer.position())
    return replayer.result()


def transcript(
    run_dir: Path, *, check: bool = False, base_dir: Path | None = None
) -> Generator[str, None, ReplayResult]:
    """Yield the run as readable lines while recomputing it; the generator returns the `ReplayResult`.

    Raises:
        ReplayError, SwarmError: as `replay`.
    """
    replayer = _Replayer(run_dir, check, base_dir or run_dir)
    for record in replayer.records():
        for line in _say(record, replayer.open):
            yield printable(line)
    return replayer.result()


def journal_hash(run_dir: Path) -> str:
    """Return the hash of the journal's last whole record; the chain makes it stand for the whole journal.

    Raises:
        SwarmError: there is no journal or no whole record in it.
    """
    path = _journal(run_dir)
    last = b""
    for line in LineTail(path).poll():
        last = line
    marker, place = b'"hash":"', last.rfind(b'"hash":"')
    if place < 0:
        raise SwarmError(f"{path} holds no whole record")
    return last[place + len(marker) : place + len(marker) + len(GENESIS)].decode("ascii", "replace")


def _journal(run_dir: Path) -> Path:
    path = run_dir / JOURNAL_NAME
    if not path.is_file():
        raise SwarmError(f"no journal at {path}; name the folder of a run")
    return path


class _Replayer:
    """Feeds records to one live world per open episode."""

    def __init__(self, run_dir: Path, check: bool, base_dir: Path) -> None:
        self.path = _journal(run_dir)
        self.base_dir = base_dir
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
            line = self.reader.tail.num_lines
            try:
                self._compare(record, first=line == 1)
            except (KeyError, TypeError, AttributeError, IndexError) as error:
                what = f"{type(error).__name__} {error}"
                raise ReplayError(f"{self.path}, line {line}: a field is missing or wrong: {what}") from error
            yield record
            if record["kind"] == "episode_end":
                del self.open[record["episode"]]
        if not self.config:
            raise SwarmError(f"{self.path} holds no whole record; the run was cut before it began")

    def _compare(self, record: Record, *, first: bool) -> None:
        kind = record["kind"]
        if first != (kind == "header"):
            raise ReplayError(f"{self.path}, line {self.reader.tail.num_lines}: a journal has one header, first")
        if self.finished:
            raise ReplayError(f"seq {record['seq']}: a record after the end of the run")
        if kind == "header":
            if record["format"] != JOURNAL_FORMAT:
                raise SwarmError(
                    f"{self.path} has journal format {record['format']!r}, this swarm reads {JOURNAL_FORMAT}:"
                    " use the version of swarm that the run's manifest.json names"
                )
            self.config = record["config"]
        elif kind == "episode":
            self._begin(record)
        elif kind == "tick":
            self._tick(record, self._episode_of(record))
        elif kind == "episode_end":
            self._end_episode(record, self._episode_of(record))
        elif kind == "end":
            self._end(record)
        else:
            raise ReplayError(f"seq {record['seq']}: unknown kind of record {kind!r}")

    def _episode_of(self, record: Record) -> _Episode:
        episode = self.open.get(record["episode"])
        if episode is None:
            raise ReplayError(f"{_place(record)}: a {record['kind']} of an episode that is not running")
        return episode

    def _begin(self, record: Record) -> None:
        index, place = record["episode"], _place(record)
        if index in self.open:
            raise ReplayError(f"{place}: the episode began twice")
        _same(place, "world", record["world"], self.config["world"]["id"])
        _same(place, "seed", record["seed"], derive_seed(self.config["seed"], "world", index))
        try:
            world = make(record["world"], self.config["agents"]["count"], self._options())
        except WorldError as error:
            raise SwarmError(f"{place}: {error}") from error
        options = {"episode": index, "level": record["level"]}
        observations, infos = _calling(place, "reset", lambda: world.reset(record["seed"], options=options))
        for agent in world.possible_agents:
            there = f"{place}, agent {agent}"
            _same(there, "observation", record["observations"].get(agent), observations.get(agent))
            _same(there, "report", record["reports"].get(agent), _report(infos, agent))
        _same(place, "goal", record["goal"], _calling(place, "goal", world.goal))
        _same(place, "state", record["state"], _calling(place, "state", lambda: state_hash(world.state())))
        self.open[index] = _Episode(index, world)

    def _options(self) -> dict[str, Any]:
        options = dict(self.config["world"].get("options") or {})
        file = options.get("file")
        if isinstance(file, str) and (self.base_dir / file).is_file():
            options["file"] = str(self.base_dir / file)
        return options

    def _tick(self, record: Record, episode: _Episode) -> None:
        place, world = _place(record), episode.world
        _same(place, "tick", record["tick"], episode.ticks)
        entries = record["agents"]
        names = [entry["agent"] for entry in entries]
        _same(place, "order of agents", names, [agent for agent in world.possible_agents if agent in names])
        actions = {entry["agent"]: entry["action"] for entry in entries if _acted(entry)}
        result = _calling(place, "step", lambda: world.step(actions))
        for entry in entries:
            if _acted(entry):
                _same_entry(place, entry, result)
        self._hear(place, record, episode)
        self._spend(record, episode.spent)
        _same(place, "spent", record["spent"], episode.spent.as_dict())
        _same(place, "state", record["state"], _calling(place, "state", lambda: state_hash(world.state())))
        _same(place, "terminated", record["terminated"], _all(result.terminations))
        _same(place, "truncated", record["truncated"], _all(result.truncations))
        episode.ticks += 1
        self.ticks += 1

    def _hear(self, place: str, record: Record, episode: _Episode) -> None:
        """Compare what a person said with what agents were told; nothing that was said may come twice."""
        told: dict[str, str] = {}
        for entry in record.get("steered", ()):
            if entry["line"] <= episode.steered:
                raise ReplayError(f"{place}: line {entry['line']} of steer.jsonl was taken twice")
            episode.steered = entry["line"]
            if "hint" not in entry:
                told.update(dict.fromkeys(entry["agents"], entry["text"]))
        for agent, text in told.items():
            _same(f"{place}, agent {agent}", "directive of a person", record["directives"].get(agent), text)

    def _spend(self, record: Record, spent: Spent) -> None:
        said = sum(entry["tokens"] for entry in record.get("steered", ()))
        spent.tokens += said
        self.tokens += said
        for entry in record["agents"]:
            tokens = entry["prompt_tokens"] + entry["generated_tokens"]
            spent.tokens += tokens
            spent.calls += 1
            spent.actions += _acted(entry)
            self.tokens += tokens
            self.faults += entry.get("fault") is not None
        if (mind := record["coordinator"]) is not None:
            tokens = mind["prompt_tokens"] + mind["generated_tokens"]
            spent.tokens += tokens
            spent.calls += mind["calls"]
            self.tokens += tokens
            self.faults += mind.get("fault") is not None

    def _end_episode(self, record: Record, episode: _Episode) -> None:
        place = _place(record)
        _same(place, "solved", record["solved"], episode.world.solved)
        _same(place, "reason is 'solved'", record["reason"] == "solved", episode.world.solved)
        fault = record["reason"].startswith("world fault")
        if fault:  # the step that raised has no tick record, only its cost
            unrecorded = Spent(record["unrecorded"]["tokens"], record["unrecorded"]["calls"])
            episode.spent.add(unrecorded)
            self.tokens += unrecorded.tokens
        for name, value in {"ticks": episode.ticks, **episode.spent.as_dict()}.items():
            _same(place, name, record[name], value)
        self.episodes += 1
        self.solved += episode.world.solved
        self.faults += fault

    def _end(self, record: Record) -> None:
        place = _place(record)
        _same(place, "episodes", record["episodes"], self.episodes)
        _same(place, "solved", record["solved"], self.solved)
        _same(place, "tokens", record["tokens"], self.tokens)
        _same(place, "faults", record["faults"], self.faults)
        self.finished = True


def _place(record: Record) -> str:
    parts = [f"seq {record['seq']}"]
    parts += [f"{name} {record[name]}" for name in ("episode", "tick") if name in record]
    return ", ".join(parts)


def _same(place: str, what: str, recorded: Any, recomputed: Any) -> None:
    if recorded != recomputed or (type(recorded) is bool) != (type(recomputed) is bool):
        raise ReplayError(f"{place}: {what} differs: the journal has {recorded!r}, recomputed is {recomputed!r}")


def _same_entry(place: str, entry: Mapping[str, Any], result: StepResult) -> None:
    agent = entry["agent"]
    there, info = f"{place}, agent {agent}", result.infos.get(agent, Info())
    _same(there, "feedback", entry["feedback"], info.get("feedback"))
    _same(there, "valid", entry["valid"], info.get("valid"))
    _same(there, "reward", entry["reward"], result.rewards.get(agent))
    _same(there, "report", entry.get("report"), _report(result.infos, agent))


def _report(infos: Mapping[str, Info], agent: str) -> str | None:
    return infos.get(agent, Info()).get("report")


def _acted(entry: Mapping[str, Any]) -> bool:
    """Whether the world saw an action of this agent: an agent whose call failed passed the tick."""
    return entry.get("fault") is None


def _all(flags: Mapping[str, bool]) -> bool:
    return bool(flags) and all(flags.values())


def _calling(place: str, what: str, call: Callable[[], _T]) -> _T:
    try:
        return call()
    except Exception as error:  # a world is anybody's code
        raise ReplayError(f"{place}: the world's {what} raised {type(error).__name__}: {error}") from error


def _numbered(agents: Iterable[str]) -> list[str]:
    """Return a0, a1, ... a10: the keys of a record are sorted as text, which puts a10 before a2."""
    return sorted(agents, key=lambda agent: (len(agent), agent))


def _say(record: Record, open_episodes: Mapping[int, _Episode]) -> Iterator[str]:
    """Yield the lines of one record for people."""
    kind = record["kind"]
    if kind == "header":
        config = record["config"]
        yield (
            f"{config.get('name', 'run')}: {config['world']['id']}, {config['agents']['count']} agents, "
            f"seed {config['seed']}"
        )
    elif kind == "episode":
        yield ""
        yield f"episode {record['episode']}: {record['goal']}"
        seen = record["observations"]
        yield from (f"  {agent:>5} sees {seen[agent]}" for agent in _numbered(seen))
    elif kind == "tick":
        spent = record["spent"]
        yield (
            f"episode {record['episode']} tick {record['tick']}  "
            f"tokens {spent['tokens']:,}  calls {spent['calls']:,}  actions {spent['actions']:,}"
        )
        yield from _say_person(record)
        for agent in _numbered(record["directives"]):
            yield f"  {agent:>5} <- {record['directives'][agent]}"
        for entry in record["agents"]:
            if entry.get("fault") is not None:
                yield f"  {entry['agent']:>5} !! {entry['fault']}"
            else:
                mark = " " if entry["valid"] else "x"
                yield f"  {entry['agent']:>5} {mark}  {entry['action']}  {entry['feedback']}"
    elif kind == "episode_end":
        solution = f": {record['solution']}" if record.get("solution") else ""
        yield (
            f"episode {record['episode']} ended, {record['reason']}{solution} "
            f"({record['ticks']} ticks, {record['tokens']:,} tokens)"
        )
        yield from (f"  | {line}" for line in open_episodes[record["episode"]].world.render().splitlines())
    elif kind == "end":
        yield ""
        yield (
            f"{record['reason']}: {record['solved']} of {record['episodes']} solved, "
            f"{record['tokens']:,} tokens, {record['faults']} faults"
        )


def _say_person(record: Record) -> Iterator[str]:
    """Yield what people said and did in a tick."""
    for entry in record.get("steered", ()):
        whom, text = ("coordinator", entry["hint"]) if "hint" in entry else (" ".join(entry["agents"]), entry["text"])
        yield f"  a person says to {whom}: {text}"
    if (review := record.get("review")) is not None:
        yield from (f"  a person says to coordinator: {hint}" for hint in review.get("hints", ()))
        yield f"  a person {review['answer']} what the coordinator said"
        for agent, text in sorted(review.get("proposed", {}).items()):
            if record["directives"].get(agent) != text:
                yield f"  {agent:>5} <- {text} (not passed on)"
