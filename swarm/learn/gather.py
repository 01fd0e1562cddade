"""From what agents did to what they learn from, round by round; it follows from the journal and the settings alone.

- An attempt that was right (a reward above 0) is imitated, relabelled ones are imitated as answers to another prompt,
  and `grpo` weighs all attempts of a group. With `team_reward` an attempt is as good as all that came in its episode
  from it on, with the team's share: who speaks is right if it was understood later.
- With `teach` what was right under a directive is imitated as an answer without it, too (context distillation,
  Askell et al., arXiv:2112.00861).
- Never learned from: puzzles that are kept out for the acceptance test, those of the exam, and probes. A prompt is
  known by its text, so a relabelled attempt that is a puzzle of the exam is dropped, and counted.
- `explore` lets the world's random policy try the puzzles of a round, and others; what is right there is imitated, too.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from swarm.config.experiment import ExperimentConfig
from swarm.config.learning import LearningConfig
from swarm.errors import SwarmError
from swarm.learn.attempts import Attempt, random_attempts
from swarm.learn.imitated import Imitated, Judged, forget
from swarm.learn.samples import Sample, Samples
from swarm.process.progress import counted
from swarm.prompt import STOP, agent_prompt
from swarm.run.episode import Episode, open_world, start_of, world_of
from swarm.run.experience import Call
from swarm.run.skills import Skills
from swarm.seeds import derive_seed
from ulm.decode.inline import spans_in
from worlds.protocol import Info
from worlds.registry import world_class
from worlds.seeds import DerivedRandom

ELITE = 256
"""Distinct answers that method `elite` imitates, the best of all rounds."""


class Puzzle(NamedTuple):
    """The puzzle of an episode: hash of its world's first state, and its level of difficulty."""

    state: str
    level: int = 0


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
        if self.settings.method == "best_of_group":  # what agents of earlier rounds did is another policy's by now
            self.right.clear()
            self.relabelled.clear()
            self.answered.clear()

    def add(self, attempts: Sequence[Attempt], explored: Sequence[Attempt] = ()) -> None:
        """Take in the attempts of a round, all of a group at once.

        Args:
            attempts: of agents.
            explored: random ones at the puzzles that were posed, which have scores, too.
        """
        settings = self.settings
        for attempt in attempts:
            self.counts["attempts"] += 1
            self.counts["legal"] += attempt.valid
            self.counts["right"] += attempt.reward > 0
            if attempt.reward > 0 and attempt.undirected:
                self.counts["taught"] += 1
            if settings.predict and attempt.feedback:
                self.answered[attempt.prompt + attempt.answer + STOP, attempt.feedback] = None
                forget(self.answered)
        if settings.method == "elite":
            for attempt in (*attempts, *explored):
                for prompt in attempt.prompts if attempt.valid else ():
                    self.best[prompt, attempt.answer] = attempt.reward
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
        kinds = {"own": own, "hindsight": self.hindsight(), "predict": self.predictions()}
        if self.inlined:
            kinds = {kind: [self._masked(sample) for sample in some] for kind, some in kinds.items()}
        counts = dict(self.counts) | {kind: len(found) for kind, found in kinds.items()}
        return Samples(kinds, dict(sorted(counts.items())))

    def predictions(self) -> list[Sample]:
        """Return actions with what the world answered; under the null control with what it answered to another."""
        answers = [feedback for _, feedback in self.answered]
        if self.settings.control == "answers":
            DerivedRandom(len(answers), "answers").shuffle(answers)
        return [Sample(text, answer + STOP) for (text, _), answer in zip(self.answered, answers, strict=True)]

    def _masked(self, sample: Sample) -> Sample:
        """Return a sample that knows what of its completion the world appended."""
        return sample._replace(inlined=self.inlined.get((sample.prompt, sample.completion.removesuffix(STOP)), ()))


def _groups(attempts: Iterable[Attempt]) -> Iterable[list[Attempt]]:
    """Return attempts by the puzzle, the agent and the turn."""
    groups: dict[tuple[int, str, int], list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        groups[attempt.group].append(attempt)
    return groups.values()


def best_of_groups(attempts: Iterable[Attempt]) -> list[Attempt]:
    """Return the best legal attempt of each group, of equals the first; none of a group that earned nothing."""
    best = [
        max((attempt for attempt in group if attempt.valid), key=lambda attempt: attempt.gain, default=None)
        for group in _groups(attempts)
    ]
    return [attempt for attempt in best if attempt is not None and attempt.gain > 0]


def weighed(attempts: Iterable[Attempt]) -> list[Sample]:
    """Return attempts with their advantage in their group, centred; groups without variance have none to give."""
    found = []
    for group in _groups(attempts):
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
        probe: hash of a puzzle that is kept out of learning -> the first episode of it, and its level.
    """

    def __init__(self, config: ExperimentConfig, base_dir: Path, agents: Sequence[str]) -> None:
        if config.learning is None:
            raise AssertionError
        self.config, self.settings, self.base_dir = config, config.learning, base_dir
        self.world = world_class(config.world.id)
        learners: list[str | None] = [None] if self.settings.learner == "team" else list(agents)
        self.pools = {learner: Pool(self.settings) for learner in learners}
        self.probe: dict[str, tuple[int, int]] = {}
        self._options = world_of(config, base_dir).options
        self._barred: set[str] | None = None
        self._posed: set[str] = set()
        self._asked: set[str] = set()  # explored ones, too
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
            world = world_of(self.config.of_episode(self.config.all_episodes - 1), self.base_dir)
            skills = Skills(self.config, world)
            for index in range(self.config.episodes, self.config.all_episodes):
                episode = Episode(index, self.config, world, *skills.level(index))
                self._barred |= set(episode.observations.values())
        return self._barred

    def add_round(self, number: int, calls: Mapping[int, Sequence[Call]], puzzles: Mapping[int, Puzzle]) -> list[int]:
        """Take in a round.

        Args:
            number: of the round.
            calls: episode -> its calls, in order.
            puzzles: episode -> what was played.

        Returns:
            The episodes that are kept out of learning, for the acceptance test.
        """
        kept_out = sorted(index for index in calls if self.is_kept_out(puzzles[index].state))
        for index, some in calls.items():
            of = self._posed
            if index in kept_out:
                of = self._kept_out
                self.probe.setdefault(puzzles[index].state, (index, puzzles[index].level))
            of.update(call.observation for call in some if call.role == "agent")
        learned = sorted(calls.keys() - set(kept_out))
        attempts = [attempt for index in learned for attempt in self._attempts(index, calls[index])]
        explored = list(self._explore(number, learned, puzzles))
        others = {attempt.observation for attempt in explored} - self._posed
        self._asked |= self._posed | {observation for observation in others if not self.is_barred(observation)}
        for learner, pool in self.pools.items():
            pool.begin_round()
            own = self._controlled(self._of(learner, attempts), number, "own")
            tried = self._controlled(self._of(learner, explored), number, "explore")
            pool.add(own, [attempt for attempt in tried if attempt.observation in self._posed])
            for attempt in best_of_groups(own) if self.settings.method == "best_of_group" else (*own, *tried):
                self._imitate(pool, attempt)
            pool.counts["explored"] = len(tried)
        return kept_out

    def _of(self, learner: str | None, attempts: Iterable[Attempt]) -> list[Attempt]:
        """Return the attempts that a learner learns from."""
        everybody = learner is None or self.settings.share == "data"
        return [attempt for attempt in attempts if everybody or attempt.agent == learner]

    def _attempts(self, index: int, calls: Sequence[Call]) -> list[Attempt]:
        """Return the attempts of an episode's agents that count, in order."""
        mine = [call for call in calls if call.role == "agent"]
        team = self.settings.team_reward
        rewards = {tick: [call.reward for call in some] for tick, some in groupby(mine, lambda call: call.key[1])}
        gains: dict[str, float] = defaultdict(float)  # agent -> what is still to come
        found = []
        for call in reversed(mine):
            _, tick, agent = call.key
            gains[agent] += (1 - team) * call.reward + team * (sum(rewards[tick]) / len(rewards[tick]))
            if call.fault is None:
                found.append(
                    Attempt(
                        agent,
                        (self.config.puzzle_of(index), agent, tick),
                        call.prompt,
                        call.observation,
                        call.answer,
                        call.feedback,
                        call.valid,
                        gains[agent] if team else call.reward,
                        gains[agent],
                        call.generated_tokens,
                        call.undirected if self.settings.teach else "",
                        call.inlined,
                    )
                )
        return found[::-1]

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

    def _imitate(self, pool: Pool, attempt: Attempt) -> None:
        """Keep an attempt that was right, and what another one would have been right for."""
        told: list[tuple[str, str]] = []
        is_best = self.settings.method == "best_of_group"
        if attempt.valid and (self.settings.hindsight or is_best):
            info = Info(feedback=attempt.feedback, valid=True)
            told = self.world.relabel(self._options, attempt.observation, attempt.answer, info)
        if is_best:  # imitated as what it was for, and where it missed as the world corrects it
            told = [(seen, answer) for seen, answer in told if seen == attempt.observation]
        if self.config.agents.inline:
            for seen, answer in told:
                prompts = {agent_prompt(seen), *(attempt.prompts if seen == attempt.observation else ())}
                pool.inlined |= dict.fromkeys(((prompt, answer) for prompt in prompts), self._inlined(seen, answer))
            pool.inlined |= {(prompt, attempt.answer): attempt.inlined for prompt in attempt.prompts}
        what = attempt.prompt, attempt.observation, attempt.answer
        judged = Judged(*what, attempt.reward > 0, told, attempt.undirected)
        if barred := pool.take(judged, self._asked, self.is_barred):
            pool.counts["barred"] += barred

    def _inlined(self, observation: str, answer: str) -> tuple[tuple[int, int], ...]:
        """Return what of an answer that nobody wrote in play the world would have appended."""
        return spans_in(partial(self.world.inline, observation), answer) if self.config.agents.inline else ()

    def _explore(self, number: int, episodes: Sequence[int], puzzles: Mapping[int, Puzzle]) -> Iterator[Attempt]:
        """Yield random legal attempts after a round."""
        explore = self.settings.explore
        if explore is None:
            return
        config, inline = self.config, self.config.agents.inline
        starts = {puzzles[i].state: start_of(config, i, puzzles[i].level) for i in episodes}.values()
        places = [(config.world, *start) for start in starts]
        if explore.puzzles:
            options = {**config.world.options, **explore.options}
            other = config.world.model_copy(update={"options": options})
            seeds = (derive_seed(config.seed, "explore", number, index) for index in range(explore.puzzles))
            places += [(other, seed, {"episode": index, "level": 0}) for index, seed in enumerate(seeds)]
        for index, (where, seed, start) in enumerate(counted("exploring", places, len(places), "puzzles")):
            rng = DerivedRandom(config.seed, "explore", number, index, "attempts")
            world = open_world(where, config.agents.count, self.base_dir, check=False)
            try:
                for one in random_attempts(world, seed, start, explore.attempts, rng):
                    yield replace(one, inlined=self._inlined(one.observation, one.answer)) if inline else one
            except Exception as error:  # it may be anybody's code
                raise SwarmError(
                    f"world {config.world.id} failed at a random attempt: {type(error).__name__}: {error}"
                ) from error


def seed_of(config: ExperimentConfig, number: int, learner: str | None) -> int:
    """Return the seed of a learning step."""
    return derive_seed(config.seed, "learn", number, learner or "team")
