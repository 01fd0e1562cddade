"""What agents can do by now, level by level, and at which level the next puzzle is played.

Everything follows from the records of the rounds before the one that is played, so a resumed run knows and chooses the
same, however many episodes are in flight.
"""

from collections import defaultdict, deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from swarm.config.experiment import ExperimentConfig
from swarm.record.records import Record
from worlds.checked import CheckedWorld

RECENT = 32
"""Episodes of each level, the last ones, that tell what agents can do there."""

LOWEST, HIGHEST = 0.1, 0.9
"""Success between which a level teaches: below there is hardly anything to imitate, above nothing new."""

OTHERS = 8
"""One puzzle in so many is of another level than the one that was chosen, each in turn: what is known stays current."""

Scores = Mapping[str, Mapping[str, float]]
"""Agent -> skill -> how well it does."""


class _Ended(NamedTuple):
    """How an episode went: whether the team solved it, and which agents earned something."""

    solved: bool
    earned: frozenset[str]


class Skills:
    """What the agents of a run that learns can do, by its journal.

    An agent's skill `level 2` is the share of the last `RECENT` episodes at that level in which it earned something.
    Skills change at the barrier after a round.

    Args:
        config: the experiment.
        world: its world.
        scores: what they can do before the first round.
    """

    def __init__(self, config: ExperimentConfig, world: CheckedWorld, scores: Scores = MappingProxyType({})) -> None:
        self.config, self.world = config, world
        self.scores: Scores = dict(scores)
        self._success: dict[int, float] = {}
        self._round = 0
        self._open: dict[int, tuple[int, dict[str, float]]] = {}
        self._ended: dict[int, deque[_Ended]] = defaultdict(lambda: deque(maxlen=RECENT))

    def before(self, index: int) -> Scores:
        """Return what agents could do when the round of an episode began; the rounds before are folded."""
        learning = self.config.learning
        if learning is None:
            return self.scores
        number = self.config.num_rounds if index >= self.config.episodes else index // learning.every
        if number > self._round:
            self._round = number
            ended = sorted(self._ended.items())
            self._success = {level: _mean([self._share(one) for one in some]) for level, some in ended}
            self.scores = {
                agent: {f"level {level}": _mean([float(agent in one.earned) for one in some]) for level, some in ended}
                for agent in self.world.possible_agents
            }
        return self.scores

    def level(self, index: int) -> tuple[int, str]:
        """Return the level at which an episode is played, and who chose it.

        With `levels: fitting` the first round goes through all levels in turn, and the exam is of the hardest one.
        """
        learning = self.config.learning
        if learning is None or learning.levels == "easiest":
            return 0, "default"
        if index >= self.config.episodes:
            return self.world.num_levels - 1, "exam"
        self.before(index)
        puzzle = self.config.puzzle_of(index)
        if not self._success:
            return puzzle % self.world.num_levels, "turn"
        chosen = min(self._success, key=self._distance)
        if puzzle % OTHERS == OTHERS - 1:
            others = [level for level in range(self.world.num_levels) if level != chosen]
            return others[puzzle // OTHERS % len(others)], "turn"
        return chosen, "skills"

    def fold(self, record: Record) -> None:
        """Take in a record of the journal."""
        if self.config.learning is None:
            return
        match record["kind"]:
            case "episode":
                self.before(record["episode"])
                self._open[record["episode"]] = record["level"], defaultdict(float)
            case "tick":
                for entry in record["agents"]:
                    self._open[record["episode"]][1][entry["agent"]] += entry["reward"]
            case "episode_end":
                level, rewards = self._open.pop(record["episode"])
                if record["episode"] < self.config.episodes:
                    earned = frozenset(agent for agent, reward in rewards.items() if reward > 0)
                    self._ended[level].append(_Ended(record["solved"], earned))

    def _share(self, one: _Ended) -> float:
        """Return how well an episode went; where all play one puzzle, one that solves it is enough."""
        return 1.0 if one.solved else len(one.earned) / len(self.world.possible_agents)

    def _distance(self, level: int) -> tuple[float, bool, int]:
        """Return how far a level is from those that teach; of equals the easiest that fails, else the hardest."""
        success = self._success[level]
        fails = success < LOWEST
        return round(max(LOWEST - success, success - HIGHEST, 0.0), 6), not fails, level if fails else -level


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
