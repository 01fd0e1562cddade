"""Who learns what, and when: takes part in a run as a memory that changes at the barrier after each round.

Everything it needs follows from the journal: it keeps the records of the round, has them told again as calls, and
builds the learning steps from those. So a resumed run, and `swarm replay --check --learn`, build the same steps.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from swarm.agents.delta import KIND, Deltas, DeltaSection, delta_path, prune
from swarm.agents.memory import AgentMemory, Place
from swarm.config.experiment import ExperimentConfig
from swarm.config.learning import PUT_TOGETHER
from swarm.config.memory import MemorySection
from swarm.learn.accept import Outcome, StepTask, keep_delta
from swarm.learn.base import agents_hash
from swarm.learn.control import random_like
from swarm.learn.gather import Gatherer, Puzzle, seed_of
from swarm.learn.samples import Samples
from swarm.learn.share import ShareTask
from swarm.learn.workers import run_steps
from swarm.process.progress import progress
from swarm.record.change import Change
from swarm.record.records import EvidenceEntry, Record
from swarm.run.episode import world_of
from swarm.run.experience import Call, Retelling
from swarm.seeds import derive_seed
from ulm.delta import Delta


class Learner(AgentMemory[MemorySection]):
    """Builds, computes and shares what agents learn.

    Args:
        config: the experiment.
        base_dir: its folder.
        memory: the run's folder of memories.
        keep: deltas whose files stay, however old they are.
    """

    kind = "learning"
    Section = MemorySection

    def __init__(
        self, config: ExperimentConfig, base_dir: Path, memory: Path, keep: Collection[str] = frozenset()
    ) -> None:
        super().__init__(MemorySection(kind=self.kind), Place(memory))
        if config.learning is None:
            raise AssertionError
        self.config, self.learning, self.base_dir, self.memory = config, config.learning, base_dir, memory
        self.agents = world_of(config, base_dir).possible_agents
        self.keep = frozenset(keep)
        self.deltas = Deltas(DeltaSection(), Place(memory))
        self._round: list[Record] = []
        self._retelling = Retelling(config, base_dir)
        self._gatherer = Gatherer(config, base_dir, self.agents)
        self._changed: set[tuple[str, str | None]] = set()
        self._before: dict[str | None, str] = {}
        self._learned: dict[str | None, str] = {}
        self._gathered = -1
        self._kept_out: dict[int, tuple[int, float]] = {}
        self._span = [0, 0]

    @property
    def learners(self) -> list[str | None]:
        """Whose deltas change, in order; None is the team."""
        return list(self._gatherer.pools)

    def fold(self, record: Record) -> None:
        """Keep a record for the end of its round."""
        if record["kind"] == "change" and record["memory"] == KIND:
            agent, cause = record["agent"], record["cause"]
            if cause in ("learn", "share"):
                self._gather(record["settings"]["round"])
                self._changed.add((record["settings"].get("mode", cause), agent))
                if cause == "learn" and record["accepted"]:
                    self._learned[agent] = record["result"]
            elif cause == "undo":  # by a person, perhaps at a barrier that a kill left half done
                self._learned[agent] = record["result"]
                if ("learn", agent) not in self._changed:
                    self._before[agent] = record["result"]
        elif record["kind"] in ("episode", "tick", "episode_end"):
            self._changed.clear()
            self._round.append(record)
        self.deltas.fold(record)

    def after_round(self, number: int) -> Iterable[Change]:
        """Yield what each has learned from a round, then what they share."""
        self._gather(number)
        todo = [learner for learner in self.learners if ("learn", learner) not in self._changed]
        with progress(f"learning after round {number + 1}"):
            tasks = [self.task(number, learner) for learner in todo]
            outcomes = run_steps(tasks)
        for task, outcome in zip(tasks, outcomes, strict=True):
            yield self.change(number, task, outcome)
        yield from self._shared(number)
        yield from self._replaced(number)
        self._prune()

    def _needed(self) -> set[str]:
        """Return the deltas without which the run cannot go on; at a barrier that is half done those before it, too."""
        half_done = {*self._before.values(), *self._learned.values()} - {""} if self._changed else set()
        return self.deltas.newest(1) | half_done

    def _prune(self) -> None:
        """Remove files of steps that failed, and of rounds before the last one.

        What agents had before this barrier stays: a power cut may lose the records that were just written.
        """
        prune(self.memory, self._needed() | self.keep)

    def load(self) -> None:
        """Compute files anew that are needed and gone.

        Raises:
            SwarmError: another machine made them, and cannot be asked.
        """
        if missing := {name for name in self._needed() if not delta_path(self.memory, name).is_file()}:
            from swarm.learn.recompute import restore  # it has a learner of its own

            restore(self.memory.parent, missing)

    def _gather(self, number: int) -> None:
        """Sort the records of a round into what is learned; once for each round."""
        if number <= self._gathered:
            return
        self._gathered = number
        self._before = {learner: self.deltas.of(learner) for learner in [None, *self.agents]}
        self._learned = dict(self._before)
        calls: dict[int, list[Call]] = {}
        puzzles: dict[int, Puzzle] = {}
        for record in self._round:
            if record["kind"] == "episode":
                puzzles[record["episode"]] = Puzzle(record["state"], record["level"])
                calls[record["episode"]] = []
            elif record["kind"] == "tick":
                calls[record["episode"]] += self._retelling.calls(record)
            self._retelling.take(record)
        seqs = [record["seq"] for record in self._round]
        self._span = [seqs[0], seqs[-1]] if seqs else [0, 0]
        self._round = []
        self._kept_out = {}
        for index in self._gatherer.add_round(number, calls, puzzles):
            reward = sum(call.reward for call in calls[index] if call.role == "agent") / len(self.agents)
            self._kept_out[index] = puzzles[index].level, reward

    def task(self, number: int, learner: str | None) -> StepTask:
        """Return the learning step of one learner after a round that was gathered."""
        held = {who: self._before[who] for who in self._before if self._before[who]}
        return StepTask(
            config=self.config,
            base_dir=self.base_dir,
            base_sha256=self.base_sha256,
            memory=self.memory.absolute(),
            learner=learner,
            parent=self._before.get(learner, ""),
            samples=self._gatherer.pools[learner].samples(),
            seed=seed_of(self.config, number, learner),
            deltas=held,
            kept_out=self._kept_out,
            skills=self._retelling.skills.scores,
            probe=dict(list(self._gatherer.probe.values())[: self.learning.test.probe]),
        )

    @cached_property
    def base_sha256(self) -> str:
        """What identifies the agents' model; a SwarmError where it is not there or damaged."""
        return agents_hash(self.config, self.base_dir)

    def change(self, number: int, task: StepTask, outcome: Outcome) -> Change:
        """Return the record of a step."""
        samples = task.samples
        return Change(
            KIND,
            task.learner,
            "learn",
            task.parent,
            outcome.result,
            EvidenceEntry(records=self._span, digest=samples.digest, counts=dict(samples.counts)),
            {"round": number, "method": self.learning.method, "size": outcome.size},
            task.seed,
            outcome.cost,
            outcome.tests,
            outcome.note,
            outcome.accepted,
        )

    def _shared(self, number: int) -> Iterator[Change]:
        """Yield what all have once deltas are put together, if that passes the test."""
        mode = self.learning.share
        if mode not in PUT_TOGETHER:
            return
        learned = {agent: self._learned[agent] for agent in self.agents if self._learned[agent]}
        todo = [agent for agent in self.agents if (mode, agent) not in self._changed]
        if not learned or not todo:
            return
        goes_on = self.learning.begin == "parent"
        befores = tuple(self._before[agent] if goes_on else "" for agent in learned)
        samples = tuple(self._gatherer.pools[agent].samples() for agent in learned)
        test = replace(self.task(number, self.learners[0]), learner=None, parent="", deltas={}, samples=Samples({}))
        with progress(f"sharing after round {number + 1}"):
            (outcome,) = run_steps([ShareTask(test, tuple(learned.values()), befores, samples)])
        for agent in todo:
            settings: Mapping[str, Any] = {
                "round": number,
                "mode": mode,
                "size": outcome.size,
                "of": list(learned.values()),
            }
            yield Change(
                KIND,
                agent,
                "share",
                self._learned[agent],
                outcome.result,
                settings=settings,
                cost=outcome.cost if agent == self.agents[0] else {},  # it was tested once, for all
                tests=outcome.tests,
                note=outcome.note,
                accepted=outcome.accepted,
            )

    def _replaced(self, number: int) -> Iterator[Change]:
        """Yield what a null control has in the place of what was learned, after the last round."""
        control = self.learning.control
        if control not in ("swapped", "random") or number + 1 < self.config.num_rounds:
            return
        for place, learner in enumerate(self.learners):
            own, following = self.deltas.of(learner), self.learners[(place + 1) % len(self.learners)]
            if (control, learner) in self._changed or (control == "random" and not own):
                continue
            seed = 0
            if control == "swapped":
                other = self._learned[following]
            else:
                seed = derive_seed(self.config.seed, "random delta", learner or "team")
                held = Delta.from_bytes(delta_path(self.memory, own).read_bytes())
                other = keep_delta(self.memory, random_like(held, seed))
            if other != own:
                yield Change(KIND, learner, "share", own, other, settings={"round": number, "mode": control}, seed=seed)
