"""What a dashboard knows about a run: a pure fold over journal and telemetry records.

Owns the picture: progress, the shown episode, budgets, rates, faults. It refuses to read files, to look at a clock and
to draw (`swarm.view.dashboard_view`).
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swarm.record.records import (
    AgentEntry,
    ChangeRecord,
    End,
    EpisodeEnd,
    EpisodeStart,
    Record,
    SpentEntry,
    Tick,
    faults_in,
    said_by_person,
)
from swarm.view.changes import in_one_line, verdict

RATE_WINDOW_S = 10.0


@dataclass(slots=True)
class AgentView:
    """What one agent did in the last tick, or its opening report before the first one.

    Attributes:
        report: the last one, in its opening or in the last tick.
        directive: the last one given to it, in whichever tick.
        entry: of the last tick. rests: that tick has none of this agent.
    """

    report: str = ""
    directive: str = ""
    entry: AgentEntry | None = None
    rests: bool = False


@dataclass(slots=True)
class EpisodeView:
    """One running or just ended episode.

    Attributes:
        tick: committed ticks. spent: in them. views: the different observations that the episode began with.
        directives: the last that the coordinator gave. outcome: why it ended, empty while it runs.
    """

    index: int
    goal: str
    tick: int = 0
    spent: SpentEntry = field(default_factory=lambda: SpentEntry(tokens=0, calls=0, actions=0))
    agents: dict[str, AgentView] = field(default_factory=dict)
    directives: dict[str, str] = field(default_factory=dict)
    views: list[str] = field(default_factory=list)
    outcome: str = ""


@dataclass(slots=True)
class LearnedView:
    """What rounds came to, and what followed them.

    Attributes:
        episodes, every, num_rounds: episodes before the exam, of a round, and how many rounds there are.
        rounds: episodes of each round that ended, and how many of them were solved. exam: likewise.
        counts: how often steps were accepted, rejected, or had nothing to learn.
        first_probe, probe: what the base could do, and what the last accepted step left of it.
        computing: the round after which a learning step is computed now.
    """

    episodes: int
    every: int
    num_rounds: int
    rounds: dict[int, tuple[int, int]] = field(default_factory=dict)
    exam: tuple[int, int] = (0, 0)
    counts: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    first_probe: float | None = None
    probe: float | None = None
    computing: int | None = None
    changes: deque[str] = field(default_factory=lambda: deque(maxlen=64))
    num_changes: int = 0

    def end(self, record: EpisodeEnd) -> None:
        """Count an episode that ended."""
        if record["episode"] >= self.episodes:
            self.exam = (self.exam[0] + 1, self.exam[1] + record["solved"])
            return
        number = record["episode"] // self.every
        ended, solved = self.rounds.get(number, (0, 0))
        self.rounds[number] = (ended + 1, solved + record["solved"])

    def change(self, record: ChangeRecord) -> None:
        """Take in a change of what agents keep."""
        self.counts[verdict(record)] += 1
        self.tokens += record["cost"].get("tokens", 0)
        self.num_changes += 1
        self.changes.append(in_one_line(record))
        for entry in record["tests"]:
            if entry["name"] == "probe":
                self.first_probe = entry["before"] if self.first_probe is None else self.first_probe
                self.probe = entry["after"] if record["accepted"] else self.probe


@dataclass(slots=True)
class DashboardState:
    """Folds records into a picture of the run.

    Attributes:
        config: the logical config of the header; empty until it was read.
        shown: the episode whose agents are shown; when it ends, the newest running one follows.
        num_ended, num_solved: episodes, those of the exam included. ended: the last of them.
        learned: what rounds and the exam came to; None for agents that do not learn.
        events: faults, host deaths and resumes, the last of `num_events`.
        tokens: of all episodes and learning steps so far. end: the `end` record once the run is over.
        work_s, steps: seconds and agent-steps of all commits.
        started_at_s, seen_at_s: unix time of the first and the last telemetry.
        interrupted: the run was stopped and not resumed.
        abandoned: it has not ended, and nobody runs it.
    """

    config: dict[str, Any] = field(default_factory=dict)
    shown: EpisodeView | None = None
    num_ended: int = 0
    num_solved: int = 0
    ended: deque[EpisodeEnd] = field(default_factory=lambda: deque(maxlen=1000))
    learned: LearnedView | None = None
    tokens: int = 0
    num_faults: int = 0
    num_events: int = 0
    events: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    end: End | None = None
    work_s: float = 0.0
    steps: int = 0
    started_at_s: float | None = None
    seen_at_s: float | None = None
    num_host_deaths: int = 0
    num_resumes: int = 0
    interrupted: bool = False
    abandoned: bool = False
    _open: dict[int, EpisodeView] = field(default_factory=dict)
    _window: deque[tuple[float, int, int]] = field(default_factory=lambda: deque(maxlen=4096))
    _tokens_at: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=4096))

    @property
    def total_episodes(self) -> int:
        """Episodes that the config asks for, those of an exam included; 0 while unknown."""
        return int(self.config.get("episodes", 0)) + int(self._exam.get("episodes", 0))

    @property
    def _exam(self) -> dict[str, Any]:
        return (self.config.get("learning") or {}).get("exam") or {}

    def limits(self, episode: int) -> dict[str, Any]:
        """Return the budget of an episode, which may differ in the exam."""
        differing = self._exam.get("budget", {}) if episode >= self.config["episodes"] else {}
        return {**self.config["budget"], **differing}

    @property
    def num_open(self) -> int:
        """Episodes in flight."""
        return len(self._open)

    def fold(self, record: Record) -> None:
        """Take in one journal record.

        Raises:
            KeyError: it is of an episode, or an agent, that has not begun.
        """
        match record["kind"]:
            case "header":
                self.config = record["config"]
                if (settings := self.config.get("learning")) is not None:
                    rounds = -(-self.config["episodes"] // settings["every"])
                    self.learned = LearnedView(self.config["episodes"], settings["every"], rounds)
            case "episode":
                self._begin(record)
            case "tick":
                self._count(record)
            case "episode_end":
                self._end_episode(record)
            case "change":
                self.tokens += record["cost"].get("tokens", 0)
                if self.learned is not None:
                    self.learned.change(record)
            case "end":
                self.end = record

    def fold_telemetry(self, fact: Mapping[str, Any]) -> None:
        """Take in one telemetry fact; unknown kinds and missing details are no error."""
        kind, at_s = fact["kind"], float(fact["at_s"])
        self.started_at_s = at_s if self.started_at_s is None else self.started_at_s
        self.seen_at_s, self.interrupted = at_s, kind in ("interrupted", "outage")
        match kind:
            case "start":
                self._window.clear()
            case "resume":
                self._window.clear()
                self.num_resumes += 1
                if self.learned is not None:
                    self.learned.computing = None
                self._note("resumed")
            case "learning" if self.learned is not None:
                self.learned.computing = int(fact.get("round", 0))
            case "endpoint_waits":
                self._note(f"waiting for the endpoint: {fact.get('detail', 'no answer')}")
            case "endpoint_back":
                self._note("the endpoint answers again")
            case "outage":
                self._note(f"stopped: {fact.get('detail', 'unknown')}")
            case "commit":
                self.work_s += float(fact.get("seconds", 0.0))
                if self.learned is not None:
                    self.learned.computing = None
                self.steps += int(fact.get("agent_steps", 0))
                self._window.append((at_s, self.steps, self._tokens_by(int(fact.get("seq", -1)))))
                while at_s - self._window[0][0] > RATE_WINDOW_S and len(self._window) > 2:
                    self._window.popleft()
            case "host_death":
                self.num_host_deaths += 1
                self._note(f"host {fact.get('host', '?')} died ({fact.get('detail', 'unknown')}), replacing it")
            case "host_ready" if isinstance(fact.get("recovered_s"), int | float):
                self._note(f"its calls were answered after {fact['recovered_s']:.1f} s")

    def rates(self) -> tuple[float, float] | None:
        """Return (tokens per second, agent-steps per second), recent while running and overall at the end."""
        if self.end is None and len(self._window) >= 2:
            (since_s, steps, tokens), (now_s, steps_now, tokens_now) = self._window[0], self._window[-1]
            if now_s > since_s:
                return (tokens_now - tokens) / (now_s - since_s), (steps_now - steps) / (now_s - since_s)
        return (self.tokens / self.work_s, self.steps / self.work_s) if self.work_s > 0 else None

    def eta_s(self) -> float | None:
        """Return the seconds that the episodes still to come take at the pace so far."""
        if self.end is not None or not self.num_ended or self.work_s <= 0:
            return None
        return (self.total_episodes - self.num_ended) * self.work_s / self.num_ended

    def _note(self, event: str) -> None:
        self.num_events += 1
        self.events.append(event)

    def _begin(self, record: EpisodeStart) -> None:
        self._open[record["episode"]] = episode = EpisodeView(
            record["episode"],
            record["goal"],
            agents={entry["agent"]: AgentView(entry.get("report", "")) for entry in record["agents"]},
            views=list(dict.fromkeys(entry["observation"] for entry in record["agents"])),
        )
        if self.shown is None or self.shown.outcome:
            self.shown = episode

    def _count(self, tick: Tick) -> None:
        episode = self._open[tick["episode"]]
        self.tokens += tick["spent"]["tokens"] - episode.spent["tokens"]
        episode.tick, episode.spent = tick["tick"] + 1, tick["spent"]
        if tick["directives"]:
            episode.directives = dict(tick["directives"])
            for name, text in tick["directives"]:
                episode.agents[name].directive = text
        where = f"(episode {episode.index}, tick {tick['tick']})"
        for said in tick.get("steered", []):
            self._note(f"{said_by_person(said)} {where}")
        for who, fault in faults_in(tick):
            self.num_faults += 1
            self._note(f"{who}: {fault} {where}")
        self._tokens_at.append((tick["seq"], self.tokens))
        if self.shown is episode:
            for agent in episode.agents.values():
                agent.report, agent.entry, agent.rests = "", None, True
            for entry in tick["agents"]:
                agent = episode.agents[entry["agent"]]
                agent.report, agent.entry, agent.rests = entry.get("report", ""), entry, False

    def _end_episode(self, record: EpisodeEnd) -> None:
        episode = self._open.pop(record["episode"])
        episode.outcome = record["reason"]
        self.num_ended += 1
        self.num_solved += record["solved"]
        self.ended.append(record)
        if self.learned is not None:
            self.learned.end(record)
        if self.shown is episode and self._open:
            self.shown = self._open[max(self._open)]

    def _tokens_by(self, seq: int) -> int:
        """Return the run's tokens up to record `seq`, or up to now where that is not known any more."""
        tokens = self.tokens
        while self._tokens_at and self._tokens_at[0][0] <= seq:
            tokens = self._tokens_at.popleft()[1]
        return tokens
