"""From what agents did to what they learn from, round by round; it follows from the journal and the settings alone.

- An attempt that was right (a reward above 0) is imitated, relabelled ones are imitated as answers to another prompt,
  and `grpo` weighs all attempts of a group.
- Never learned from: puzzles that are kept out for the acceptance test, those of the exam, and probes. A prompt is
  known by its text, so a relabelled attempt that is a puzzle of the exam is dropped, and counted.
- `explore` lets the world's random policy try the puzzles of a round, or others; what is right there is imitated, too.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from swarm.config.experiment import ExperimentConfig
from swarm.config.learning import LearningConfig
from swarm.errors import SwarmError
from swarm.learn.attempts import Attempt, random_attempts
from swarm.learn.imitated import MAX_KEPT, Imitated, Judged
from swarm.learn.samples import Sample, Samples
from swarm.process.progress import counted
from swarm.prompt import STOP, agent_prompt
from swarm.run.episode import Episode, open_world, start_of, world_of
from swarm.run.experience import Call
from swarm.seeds import derive_seed
from ulm.decode.inline import spans_in
from worlds.protocol import Info, WorldOptions
from worlds.registry import world_class
from worlds.seeds import DerivedRandom

ELITE = 256
"""Distinct answers that method `elite` imitates, the best of all rounds."""


class Pool(Imitated):
    """What one learner has to learn from.

    Args:
        settings: how it learns.
    """

    def __init__(self, settings: LearningConfig) -> None:
        super().__init__(settings.per_task)
        self.settings = settings
        self.best: dict[tuple[str, str], float] = {}
        self.weighed: list[Sample] = []
        self.answered: dict[tuple[str, str], None] = {}
        self.inlined: dict[tuple[str, str], tuple[tuple[int, int], ...]] = {}
        self.counts: Counter[str] = Counter()

    def begin_round(self) -> None:
        """Forget what counts for one round alone."""
        self.weighed, self.counts = [], Counter()

    def add(self, attempts: Sequence[Attempt]) -> None:
        """Take in the attempts of a round, all of a group at once."""
        settings = self.settings
        for attempt in attempts:
            self.counts["attempts"] += 1
            self.counts["legal"] += attempt.valid
            self.counts["right"] += attempt.reward > 0
            if settings.method == "elite" and attempt.valid:
                self.best[attempt.prompt, attempt.answer] = attempt.reward
            if settings.predict and attempt.feedback:
                self.answered[attempt.prompt + attempt.answer + STOP, attempt.feedback] = None
                _forget(self.answered)
        if settings.method == "elite":
            ranked = sorted(self.best.items(), key=lambda item: -item[1])  # stable: the first to say it stays
            self.best = dict(ranked[:ELITE])
        if settings.method == "grpo":
            self.weighed += weighed(attempts)

    def samples(self) -> Samples:
        """Return all that a step may draw from now."""
        if self.settings.method == "grpo":
            own = self.weighed
        elif self.settings.method == "elite":
            own = [Sample(prompt, answer + STOP) for prompt, answer in self.best]
        else:
            own = self.own()
        kinds = {
            "own": own,
            "hindsight": self.hindsight(),
            "predict": [Sample(prompt, feedback + STOP) for prompt, feedback in self.answered],
        }
        if self.inlined:
            kinds = {kind: [self._masked(sample) for sample in some] for kind, some in kinds.items()}
        counts = dict(self.counts) | {kind: len(found) for kind, found in kinds.items()}
        return Samples(kinds, dict(sorted(counts.items())))

    def _masked(self, sample: Sample) -> Sample:
        """Return a sample that knows what of its completion the world appended."""
        return sample._replace(inlined=self.inlined.get((sample.prompt, sample.completion.removesuffix(STOP)), ()))


def _forget(kept: dict[Any, Any]) -> None:
    if len(kept) > MAX_KEPT:
        del kept[next(iter(kept))]


def weighed(attempts: Iterable[Attempt]) -> list[Sample]:
    """Return attempts with their advantage in their group, centred; groups without variance have none to give."""
    groups: dict[tuple[int, str, int], list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        groups[attempt.group].append(attempt)
    found = []
    for group in groups.values():
        mean = sum(attempt.gain for attempt in group) / len(group)
        if any(attempt.gain != group[0].gain for attempt in group):
            found += [Sample(one.prompt, one.answer + STOP, one.gain - mean, one.tokens) for one in group]
    return found


class Gatherer:
    """Sorts the calls of each round into the pools of those who learn.

    Args:
        config: the experiment.
        base_dir: its folder.
        agents: all agents.

    Attributes:
        pools: learner -> what it has; None is the team.
        probe: hash of a puzzle that is kept out of learning -> the first episode of it.
    """

    def __init__(self, config: ExperimentConfig, base_dir: Path, agents: Sequence[str]) -> None:
        if config.learning is None:
            raise AssertionError
        self.config, self.settings, self.base_dir = config, config.learning, base_dir
        self.world = world_class(config.world.id)
        learners: list[str | None] = [None] if self.settings.learner == "team" else list(agents)
        self.pools = {learner: Pool(self.settings) for learner in learners}
        self.probe: dict[str, int] = {}
        self._options = self._explored = world_of(config, base_dir).options
        self._explores = config
        if (explore := self.settings.explore) and explore.puzzles:
            options = {**config.world.options, **explore.options}
            self._explores = config.model_copy(update={"world": config.world.model_copy(update={"options": options})})
            self._explored = world_of(self._explores, base_dir).options
        self._barred: set[str] | None = None
        self._posed: set[str] = set()
        self._kept_out: set[str] = set()

    def is_kept_out(self, puzzle: str) -> bool:
        """Return whether a puzzle, by the hash of its first state, is kept for the acceptance test."""
        return int(puzzle[:8], 16) < self.settings.test.tasks * 16**8

    def is_barred(self, observation: str) -> bool:
        """Return whether nothing may be learned about a puzzle: it is for the exam or the test, or held out."""
        kept_out = observation in self.barred or observation in self._kept_out
        return kept_out or self.world.holds_out(self._options, observation)

    @property
    def barred(self) -> set[str]:
        """The observations of the exam."""
        if self._barred is None:
            self._barred = set()
            for index in range(self.config.episodes, self.config.all_episodes):
                episode = Episode(index, self.config, world_of(self.config.of_episode(index), self.base_dir))
                self._barred |= set(episode.observations.values())
        return self._barred

    def add_round(self, number: int, calls: Mapping[int, Sequence[Call]], puzzles: Mapping[int, str]) -> None:
        """Take in a round.

        Args:
            number: of the round.
            calls: episode -> its calls, in order.
            puzzles: episode -> hash of its world's first state.
        """
        for pool in self.pools.values():
            pool.begin_round()
        learned = [index for index in sorted(calls) if not self.is_kept_out(puzzles[index])]
        by_learner: dict[str | None, list[Attempt]] = defaultdict(list)
        for index, some in calls.items():
            of = self._posed
            if self.is_kept_out(puzzles[index]):
                of = self._kept_out
                self.probe.setdefault(puzzles[index], index)
            of.update(call.observation for call in some if call.role == "agent")
        for index in learned:
            for attempt in self._attempts(index, calls[index]):
                for learner in self._who_learns(attempt.agent):
                    by_learner[learner].append(attempt)
        explored = list(self._explore(number, learned, puzzles))
        asked = dict.fromkeys(attempt.observation for attempt in explored)
        self._posed.update(observation for observation in asked if not self.is_barred(observation))
        for learner, pool in self.pools.items():
            own = self._controlled(by_learner[learner], number, "own")
            tried = [attempt for attempt in explored if learner in self._who_learns(attempt.agent)]
            pool.add(own)
            for attempt in own:
                self._imitate(pool, attempt, self._options)
            for attempt in self._controlled(tried, number, "explore"):
                self._imitate(pool, attempt, self._explored)
            pool.counts["explored"] = len(tried)

    def _who_learns(self, agent: str) -> Iterable[str | None]:
        if self.settings.learner == "team" or self.settings.share == "data":
            return self.pools
        return (agent,)

    def _attempts(self, index: int, calls: Sequence[Call]) -> Iterator[Attempt]:
        """Yield the attempts of an episode's agents that count."""
        mine = [call for call in calls if call.role == "agent"]
        by_tick: dict[int, list[Call]] = defaultdict(list)
        for call in mine:
            by_tick[call.key[1]].append(call)
        mixed, team = {}, self.settings.team_reward
        for tick, some in by_tick.items():
            mean = sum(call.reward for call in some) / len(some)
            for call in some:
                mixed[tick, call.key[2]] = (1 - team) * call.reward + team * mean
        gains: dict[str, float] = defaultdict(float)
        later: dict[tuple[int, str], float] = {}
        for call in reversed(mine):
            gains[call.key[2]] += mixed[call.key[1], call.key[2]]
            later[call.key[1], call.key[2]] = gains[call.key[2]]
        for call in mine:
            if call.fault is None:
                _, tick, agent = call.key
                yield Attempt(
                    agent,
                    (self.config.puzzle_of(index), agent, tick),
                    call.prompt,
                    call.observation,
                    call.answer,
                    call.feedback,
                    call.valid,
                    call.reward,
                    later[tick, agent],
                    call.generated_tokens,
                    call.inlined,
                )

    def _controlled(self, attempts: list[Attempt], number: int, what: str) -> list[Attempt]:
        """Return the attempts, under the null control with what came of them permuted among the legal ones."""
        if self.settings.control != "permuted":
            return attempts
        legal = [place for place, attempt in enumerate(attempts) if attempt.valid]
        others = list(legal)
        DerivedRandom(self.config.seed, "permuted", what, number).shuffle(others)
        found = list(attempts)
        for place, other in zip(legal, others, strict=True):
            came = attempts[other]
            found[place] = replace(attempts[place], feedback=came.feedback, reward=came.reward, gain=came.gain)
        return found

    def _imitate(self, pool: Pool, attempt: Attempt, options: WorldOptions) -> None:
        """Keep an attempt that was right, and what another one would have been right for."""
        told: list[tuple[str, str]] = []
        if attempt.valid and self.settings.hindsight:
            info = Info(feedback=attempt.feedback, valid=True)
            told = self.world.relabel(options, attempt.observation, attempt.answer, info)
        if self.config.agents.inline:
            for seen, answer in told:
                prompts = {agent_prompt(seen), attempt.prompt} if seen == attempt.observation else {agent_prompt(seen)}
                pool.inlined |= dict.fromkeys(((prompt, answer) for prompt in prompts), self._inlined(seen, answer))
            pool.inlined[attempt.prompt, attempt.answer] = attempt.inlined
        judged = Judged(attempt.prompt, attempt.observation, attempt.answer, attempt.reward > 0, told)
        if barred := pool.take(judged, self._posed, self.is_barred):
            pool.counts["barred"] += barred

    def _inlined(self, observation: str, answer: str) -> tuple[tuple[int, int], ...]:
        """Return what of an answer that nobody wrote in play the world would have appended."""
        return spans_in(partial(self.world.inline, observation), answer) if self.config.agents.inline else ()

    def _explore(self, number: int, episodes: Sequence[int], puzzles: Mapping[int, str]) -> Iterator[Attempt]:
        """Yield random legal attempts after a round."""
        explore = self.settings.explore
        if explore is None or number >= explore.rounds:
            return
        config = self._explores
        places = list({puzzles[index]: start_of(config, index, 0) for index in episodes}.values())
        if explore.puzzles:
            seeds = (derive_seed(config.seed, "explore", number, index) for index in range(explore.puzzles))
            places = [(seed, {"episode": index, "level": 0}) for index, seed in enumerate(seeds)]
        for index, (seed, options) in enumerate(counted("exploring", places, len(places), "puzzles")):
            rng = DerivedRandom(config.seed, "explore", number, index, "attempts")
            world = open_world(config.world, config.agents.count, self.base_dir, check=False)
            try:
                for one in random_attempts(world, seed, options, explore.attempts, rng):
                    yield replace(one, inlined=self._inlined(one.observation, one.answer))
            except Exception as error:  # it may be anybody's code
                raise SwarmError(
                    f"world {config.world.id} failed at a random attempt: {type(error).__name__}: {error}"
                ) from error


def seed_of(config: ExperimentConfig, number: int, learner: str | None) -> int:
    """Return the seed of a learning step."""
    return derive_seed(config.seed, "learn", number, learner or "team")
