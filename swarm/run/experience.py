"""Every call of a run with what was read, what was answered and what came of it, rebuilt from its journal.

Owns the way from records to calls: recorded actions are played into fresh worlds, no model is loaded, and the prompts
are put together by the code that puts them together in play (`swarm.run.episode`). So it stands here: `swarm.record`
is below the worlds and knows none.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from swarm.agents.memory import Place, make_memories
from swarm.config.experiment import ExperimentConfig
from swarm.config.section import logical_settings
from swarm.coordinator.kinds import book_for
from swarm.identity import refuse_other
from swarm.messages import CallKey
from swarm.record.folder import base_dir_of, needing_base, read_experiment
from swarm.record.journal import JOURNAL_NAME, read_header, read_records
from swarm.record.records import Record, Tick
from swarm.run.episode import Episode, follow, world_of
from swarm.run.skills import Skills
from swarm.run.topology import neighbours
from worlds.protocol import Briefing
from worlds.registry import load_playbook


@dataclass(frozen=True, slots=True)
class Call:
    """One call of an agent, or one briefing of the coordinator.

    Attributes:
        key: (episode, tick, agent id or "coordinator"); briefings of one tick share it.
        role: `agent` or `coordinator`.
        prompt: what was read, in the layout of play; of an engine that chats, without its system message.
        answer: the action; of a coordinator, an answer that directs agents as they were directed, by whomever: words of
            the briefing's menu in their order, or `AGENT TEXT; ...`. Briefings without such an answer are left out.
        feedback: the world's answer to the action; empty for a coordinator and after a fault.
        reward: the agent's own in this tick; of a coordinator, that of the agents that it briefed, summed.
        solved: whether the episode was solved in the end.
        versions: kind of memory -> which memory the agent was given, and how often it had changed by then.
        fault: what went wrong with the call; the world saw no action then.
        observation: what the world let the agent see; part of its prompt.
        valid: whether the action was legal.
        generated_tokens: of the answer, its end included.
        undirected: the prompt without the directive that it has; "" where there was none.
        inlined: parts of the answer that the world appended inline, in characters.
    """

    key: CallKey
    role: str
    prompt: str
    answer: str
    feedback: str
    reward: float
    solved: bool = False
    versions: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    fault: str | None = None
    observation: str = ""
    valid: bool = False
    generated_tokens: int = 0
    undirected: str = ""
    inlined: tuple[tuple[int, int], ...] = ()


def experience(run_dir: Path) -> Iterator[Call]:
    """Yield the calls of each ended episode of a run, in the order in which episodes ended, then in that of the calls.

    Raises:
        SwarmError: the folder holds no run, or one that the worlds of this installation do not follow.
    """
    retelling = Retelling.of_run(run_dir)
    calls: dict[int, list[Call]] = {}
    for record in read_records(run_dir / JOURNAL_NAME):
        if record["kind"] == "tick":
            calls.setdefault(record["episode"], []).extend(retelling.calls(record))
        elif record["kind"] == "episode_end":
            for call in calls.pop(record["episode"], ()):
                yield replace(call, solved=record["solved"])
        retelling.take(record)


class Retelling:
    """The episodes of a run as they were before its next record.

    Args:
        config: of the run.
        base_dir: the folder of its experiment.
    """

    def __init__(self, config: ExperimentConfig, base_dir: Path) -> None:
        self.config, self.base_dir = config, base_dir
        self.live: dict[int, Episode] = {}
        self.memories = make_memories(self.config.agents.memory, Place.of(self.config, base_dir))
        world = world_of(config, base_dir)
        self.skills = Skills(config, world)
        self._sources = neighbours(self.config.topology, world.possible_agents, self.config.seed, self.base_dir)
        known = load_playbook(self.config.world.id) is not None
        self._book = book_for(self.config.coordinator, self.config.world.id) if known else None

    @classmethod
    def of_run(cls, run_dir: Path) -> Self:
        """Return that of a run folder, before its first record.

        Raises:
            SwarmError: the folder holds no run, or its experiment is not that of its journal.
        """
        header = read_header(run_dir / JOURNAL_NAME)
        config, base_dir = read_experiment(run_dir, ExperimentConfig), base_dir_of(run_dir)
        if header is not None:
            refuse_other(run_dir, header["config"], logical_settings(config))
        with needing_base(run_dir, base_dir):
            return cls(config, base_dir)

    def take(self, record: Record) -> None:
        """Go on by one record.

        Raises:
            SwarmError: the world goes another way than recorded.
        """
        follow(record, self.live, self._begin)
        self.skills.fold(record)
        for memory in self.memories:
            memory.fold(record)

    def _begin(self, index: int, *level: Any) -> Episode:
        episode = Episode(index, self.config, world_of(self.config.of_episode(index), self.base_dir), *level)
        episode.skills = self.skills.before(index)
        return episode

    def calls(self, record: Tick) -> Iterator[Call]:
        """Yield the calls of the tick that comes next: the coordinator's, then those of the agents."""
        episode = self.live[record["episode"]]
        told = dict(record["directives"])
        if record["coordinator"] is None:  # what was said before still holds
            told = episode.directives | told
        else:
            yield from self._briefed(episode, record, told)
        for entry in record["agents"]:
            agent, heard = entry["agent"], self._sources[entry["agent"]]
            found = ((memory.kind, memory.version(episode.index, agent)) for memory in self.memories)
            versions = {kind: version for kind, version in found if version is not None}
            yield Call(
                (episode.index, episode.ticks, agent),
                "agent",
                episode.prompt(agent, told, heard, self.memories),
                entry["action"],
                entry["feedback"],
                entry["reward"],
                versions=versions,
                fault=entry.get("fault"),
                observation=episode.observations[agent],
                valid=entry["valid"],
                generated_tokens=entry["generated_tokens"],
                undirected=episode.prompt(agent, {}, heard, self.memories) if told.get(agent) else "",
                inlined=tuple((start, end) for start, end in entry.get("inlined", ())),
            )

    def _briefed(self, episode: Episode, record: Tick, told: Mapping[str, str]) -> Iterator[Call]:
        if self._book is None or record["coordinator"] is None:
            return
        hints = [entry["hint"] for entry in record.get("steered", []) if "hint" in entry]
        rewards = {entry["agent"]: entry["reward"] for entry in record["agents"]}
        for briefing in self._book.briefings(episode.request(hints, self.memories)):
            directed = {agent: told[agent] for agent in briefing.agents if agent in told}
            answer = _answer(briefing, directed)
            if briefing.options or self._book.parse(answer, briefing) == directed:
                yield Call(
                    (episode.index, episode.ticks, "coordinator"),
                    "coordinator",
                    briefing.prompt,
                    answer,
                    "",
                    sum(rewards.get(agent, 0.0) for agent in briefing.agents),
                    fault=record["coordinator"].get("fault"),
                )


def _answer(briefing: Briefing, directed: Mapping[str, str]) -> str:
    """Return the answer that would have directed agents as they were."""
    if not briefing.options:
        return "; ".join(f"{agent} {text}" for agent, text in directed.items())
    given = set(directed.values())
    if briefing.pattern is not None:
        return "".join(f"{word}{'+' if text in given else '-'}" for word, text in briefing.options.items())
    return " ".join(word for word, text in briefing.options.items() if text in given)
