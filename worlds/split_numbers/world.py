"""`split-numbers-v0`: a hidden-profile number puzzle whose tiles are split over two groups of agents.

Owns who sees what, which values were posted, and when a composed action counts. It refuses to combine posted values
by itself: only an agent that makes the missing part from its own tiles solves the puzzle.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from worlds.numbers import solver
from worlds.numbers.arithmetic import Expression, ExpressionError, evaluate, format_value, parse
from worlds.numbers.world import Puzzle, check_tiles, expression_tool, is_held_out
from worlds.protocol import Info, StepResult, World, WorldError, WorldOptions

DIRECTIVE = re.compile(r"(?P<before>\d{1,7}[-+*/])?\[(?P<own>\d{1,7})\](?P<after>[-/]\d{1,7})?")
"""A directive: the brackets mark the part that the agent makes from its own tiles."""


class SplitNumbersOptions(WorldOptions):
    """Options of split-numbers-v0."""

    half: int = Field(3, ge=1, le=4)
    """Tiles of each half."""

    low: int = Field(1, ge=0)
    """Smallest tile."""

    high: int = Field(13, ge=1, le=1000)
    """Largest tile."""

    target_low: int = Field(100, ge=1)
    """Smallest target."""

    target_high: int = Field(199, ge=1, le=100_000)
    """Largest target."""

    view: Literal["half", "full"] = "half"
    """`half` shows each agent its own half; `full` shows all tiles to all, as a solo needs."""

    split: Literal["held_out", "train", "any"] = "held_out"
    """Draw only `held_out` puzzles, only those for training, or any."""

    @model_validator(mode="after")
    def _ranges(self) -> SplitNumbersOptions:
        if self.low > self.high or self.target_low > self.target_high:
            raise ValueError("low must not exceed high, nor target_low target_high")
        return self


def draw_split(options: SplitNumbersOptions, rng: random.Random) -> tuple[Puzzle, Puzzle]:
    """Draw two halves and a target, uniform over the targets that some value of each half can make together.

    Raises:
        WorldError: none was found in 1,000 draws.
    """
    for _ in range(1000):
        left, right = (
            tuple(sorted(rng.randint(options.low, options.high) for _ in range(options.half))) for _ in range(2)
        )
        theirs = frozenset(solver.whole_values(right))
        targets = [
            target
            for target in range(options.target_low, options.target_high + 1)
            if (options.split == "any" or is_held_out(left + right, target) == (options.split == "held_out"))
            and any(s in theirs for v in solver.whole_values(left) for _, s in solver.sub_targets(v, target))
        ]
        if targets:
            target = rng.choice(targets)
            return Puzzle(left, target), Puzzle(right, target)
    raise WorldError(f"split-numbers-v0: found no solvable puzzle for the options {options!r}")


class SplitNumbersWorld(World):
    """Hidden-profile puzzle: tiles are split over two groups of agents; all tiles together must make the target.

    Agent a0, a2, ... hold the first half, a1, a3, ... the second. Observation: `half 3 7 11 target 145` (view `full`:
    `tiles 2 3 4 7 9 11 target 145`). A free action is an expression that uses every tile of the own half once; its
    value is posted. A composed action adds one whole number that the other half posted in an earlier tick, such as
    `100+(3+7)*...`; it solves the puzzle when it equals the target. The world never joins posted values by itself,
    so a solution needs an agent that makes a wanted value on purpose; that agent earns 1. Reports: `half 3 7 11 made
    45`. Directives this world's coordinators give: `100+[45]`, make 45 from your tiles to complete a posted 100.
    """

    id: ClassVar[str] = "split-numbers-v0"
    Options: ClassVar[type[WorldOptions]] = SplitNumbersOptions
    playbook: ClassVar[str | None] = "worlds.split_numbers.playbook:SplitNumbersPlaybook"
    lessons: ClassVar[str | None] = "worlds.split_numbers.lessons:SplitNumbersLessons"
    options: SplitNumbersOptions

    def __init__(self, num_agents: int, options: WorldOptions) -> None:
        if not isinstance(options, SplitNumbersOptions):
            raise WorldError("split-numbers-v0 takes SplitNumbersOptions")
        if options.view == "half" and num_agents < 2:
            raise WorldError("split-numbers-v0 with view half needs at least 2 agents, one per half; or set view: full")
        super().__init__(num_agents, options)
        self.halves = (Puzzle((), 0), Puzzle((), 0))
        self.posted: tuple[list[int], list[int]] = ([], [])
        self.attempts = 0
        self.solution = ""

    def half_of(self, agent: str) -> int:
        """Return 0 or 1."""
        return self.possible_agents.index(agent) % 2

    @property
    def target(self) -> int:
        """The number that all tiles together must make."""
        return self.halves[0].target

    def _own_tiles(self, agent: str) -> tuple[int, ...]:
        if self.options.view == "full":
            return tuple(sorted(self.halves[0].tiles + self.halves[1].tiles))
        return self.halves[self.half_of(agent)].tiles

    def _observe(self, agent: str) -> str:
        word = "tiles" if self.options.view == "full" else "half"
        return f"{word} {' '.join(map(str, self._own_tiles(agent)))} target {self.target}"

    def _half_name(self, agent: str) -> str:
        return f"half {' '.join(map(str, self._own_tiles(agent)))}"

    def reset(self, seed: int, options: Mapping[str, Any] | None = None) -> tuple[dict[str, str], dict[str, Info]]:
        """Draw the puzzle of this seed."""
        self.halves = draw_split(self.options, random.Random(seed))  # noqa: S311 - not for secrets
        self.posted = ([], [])
        self.attempts, self.solution, self.solved = 0, "", False
        self.agents = list(self.possible_agents)
        infos: dict[str, Info] = {}
        for agent in self.agents:
            infos[agent] = Info() if self.options.view == "full" else Info(report=self._half_name(agent))
        return {a: self._observe(a) for a in self.agents}, infos

    def step(self, actions: Mapping[str, str]) -> StepResult:
        """Judge one action per acting agent against the values posted before this step."""
        acting = self.ordered(actions)
        known = tuple(frozenset(values) for values in self.posted)
        infos: dict[str, Info] = {}
        rewards: dict[str, float] = {}
        for agent in acting:
            self.attempts += 1
            infos[agent], hit = self._judge(agent, actions[agent].strip(), known[1 - self.half_of(agent)])
            rewards[agent] = float(hit)
        live = list(self.agents)
        result = StepResult(
            {a: self._observe(a) for a in live},
            rewards,
            dict.fromkeys(live, self.solved),
            dict.fromkeys(live, False),
            infos,
        )
        if self.solved:
            self.agents = []
        return result

    def _judge(self, agent: str, action: str, theirs: frozenset[int]) -> tuple[Info, bool]:
        """Return what an action did, and whether it made the target."""
        tiles = self._own_tiles(agent)
        try:
            expression = parse(action)
            extra = list((Counter(expression.literals) - Counter(tiles)).elements())
            if self.options.view == "half" and len(extra) == 1 and len(expression.literals) == len(tiles) + 1:
                return self._judge_composed(agent, action, expression, extra[0], theirs)
            if problem := check_tiles(expression, tiles):
                return Info(feedback=f"illegal: {problem}", valid=False), False
            value = expression.value()
        except ExpressionError as error:
            return Info(feedback=f"illegal: {error}", valid=False), False
        if self.options.view == "full":
            return Info(feedback=f"= {format_value(value)}", valid=True), self._solves(value, action)
        return self._post(agent, value, f"= {format_value(value)}"), False

    def _solves(self, value: Fraction, action: str) -> bool:
        hit = value == self.target
        if hit and not self.solved:
            self.solved, self.solution = True, action
        return hit

    def _judge_composed(
        self, agent: str, action: str, expression: Expression, borrowed: int, theirs: frozenset[int]
    ) -> tuple[Info, bool]:
        if borrowed not in theirs:
            return Info(feedback=f"illegal: {borrowed} was not posted by the other half", valid=False), False
        value = expression.value()
        feedback = f"= {format_value(value)}"
        if self._solves(value, action):
            return Info(feedback=feedback, valid=True), True
        # A miss still shows what the own tiles made, where the borrowed number stands at the top of the expression.
        root = expression.root
        if isinstance(root, tuple):
            _, left, right = root
            own = right if left == borrowed else left if right == borrowed else None
            if own is not None:
                return self._post(agent, evaluate(own), feedback), False
        return Info(feedback=feedback, valid=True), False

    def _post(self, agent: str, value: Fraction, feedback: str) -> Info:
        values = self.posted[self.half_of(agent)]
        if value.denominator != 1 or value < 0 or int(value) in values:
            return Info(feedback=feedback, valid=True)
        values.append(int(value))
        return Info(feedback=feedback, valid=True, report=f"{self._half_name(agent)} made {int(value)}")

    @classmethod
    def full_view(cls, options: WorldOptions) -> WorldOptions:
        """Return options that show all tiles to every agent."""
        return options.model_copy(update={"view": "full"})

    @classmethod
    def for_training(cls, options: WorldOptions) -> WorldOptions:
        """Return options that draw no puzzle kept for evaluation."""
        return options.model_copy(update={"split": "train"})

    def state(self) -> dict[str, Any]:
        """Return halves, target, posted values, attempts and solution."""
        return {
            "halves": [list(half.tiles) for half in self.halves],
            "target": self.target,
            "posted": [list(values) for values in self.posted],
            "attempts": self.attempts,
            "solution": self.solution,
        }

    def goal(self) -> str:
        """Return the target."""
        return f"target {self.target}"

    def tools(self) -> list[dict[str, Any]]:
        """Return the one tool: an expression."""
        return [
            expression_tool("an expression over every own tile once, and at most one number that the other half posted")
        ]

    def render(self) -> str:
        """Return both halves, what was posted, and the solution."""
        lines = [f"target {self.target}"]
        for half, values in zip(self.halves, self.posted, strict=True):
            lines.append(f"half {' '.join(map(str, half.tiles))}: {' '.join(map(str, values)) or 'nothing posted'}")
        return "\n".join([*lines, f"solved: {self.solution}" if self.solved else "open"])

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return a random expression over the own tiles, set into the form of the directive where it has one."""
        expression = solver.random_expression(self._own_tiles(agent), rng)
        match = DIRECTIVE.fullmatch(directive.strip())
        if match is None or not (match["before"] or match["after"]):
            return expression
        return f"{match['before'] or ''}({expression}){match['after'] or ''}"

    def action_pattern(self, agent: str) -> str | None:
        """Return the characters an expression may have."""
        return r"[0-9()+\-*/]{1,60}"
