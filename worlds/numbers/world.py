"""`numbers-v0`: use every number once to hit a target, from generated puzzles or a file.

Owns what all number worlds share (`ExpressionWorld`), and the world in which an agent sees all tiles. The split-view
world builds on it in `worlds.split_numbers.world`.
"""

import random
import re
from abc import abstractmethod
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar

from worlds.numbers import solver
from worlds.numbers.arithmetic import Expression, ExpressionError, parse
from worlds.numbers.puzzles import (
    NumbersOptions,
    Puzzle,
    PuzzleOptions,
    check_tiles,
    draw_puzzle,
    is_held_out,
    read_puzzles,
)
from worlds.numbers.thoughts import PATTERN, expression_of, last_search, result
from worlds.ordered import OrderedWorld
from worlds.protocol import Info, WorldError, WorldOptions, tool
from worlds.seeds import derive_seed

_SEEN = re.compile(r"tiles(?P<tiles>(?: [0-9]{1,7})+) target (?P<target>[0-9]{1,7})")
_MADE = re.compile(r"= (?P<value>[0-9]{1,7})")


def made(info: Info) -> int | None:
    """Return the whole number from 0 on that the feedback says an expression came to, else None."""
    match = _MADE.fullmatch(info.get("feedback", ""))
    return int(match["value"]) if match and info.get("valid") else None


class ExpressionWorld(OrderedWorld):
    """A world whose actions are expressions over tiles; the first one that makes the target solves it for all.

    Attributes:
        asks: what an action is, for the description of its tool.
        target: what the tiles must make.
        attempts: the actions of this episode.
        solution: the action that made the target; empty before.
    """

    asks: ClassVar[str]
    options: PuzzleOptions
    attempts: int
    solution: str

    @property
    @abstractmethod
    def target(self) -> int:
        """What the tiles must make."""

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """Forget the attempts of the episode before."""
        self.attempts, self.solution = 0, ""

    def act(self, agent: str, action: str) -> tuple[Info, float]:
        """Evaluate an expression, or steps if the options allow them; a hit earns 1."""
        self.attempts += 1
        try:
            if self.options.think:
                action = expression_of(action)
            return self.judge(agent, action, parse(action))
        except ExpressionError as error:
            return Info(feedback=f"illegal: {error}", valid=False), 0.0

    @abstractmethod
    def judge(self, agent: str, action: str, expression: Expression) -> tuple[Info, float]:
        """Return what an expression comes to, and its reward.

        Raises:
            ExpressionError: it breaks a rule.
        """

    def solves(self, value: Fraction, action: str) -> bool:
        """Return whether a value is the target, and keep the first action that made it."""
        hit = value == self.target
        if hit and not self.solved:
            self.solved, self.solution = True, action
        return hit

    @classmethod
    def for_training(cls, options: WorldOptions) -> WorldOptions:
        """Return options that draw no puzzle kept for evaluation."""
        return options.model_copy(update={"split": "train"})

    @classmethod
    def holds_out(cls, options: WorldOptions, observation: str) -> bool:
        """Return whether a puzzle that shows all tiles is held out, by its hash."""
        match = _SEEN.fullmatch(observation)
        if match is None or not isinstance(options, PuzzleOptions):
            return False
        target = int(match["target"])
        is_free = options.fold is None and target == getattr(options, "target", None)
        return not is_free and is_held_out([int(tile) for tile in match["tiles"].split()], target, options.fold)

    @classmethod
    def relabel(cls, options: WorldOptions, observation: str, action: str, info: Info) -> list[tuple[str, str]]:
        """Return the puzzle whose target is what the tiles came to; a hit gives the puzzle itself.

        Targets that are neither asked for nor between `target_low` and `target_high` are left out. The answer is the
        expression with its operands in order: of the many ways to write one idea, one is learned. Of an answer in steps
        what failed before is left out; its notes are about the target, so another puzzle cannot have it.
        """
        match, value = _SEEN.fullmatch(observation), made(info)
        if match is None or value is None or not isinstance(options, PuzzleOptions):
            return []
        is_hit, in_steps = value == int(match["target"]), "=" in action
        if not is_hit and (in_steps or not options.may_ask(value)):
            return []
        answer = last_search(action) if in_steps else solver.canonical(action)
        return [(f"tiles{match['tiles']} target {value}", answer)]

    @staticmethod
    def inline(observation: str, text: str) -> str | None:
        """Return the result of a step of thought: `21` behind `3*7=`."""
        return result(text)

    def goal(self) -> str:
        """Return the target."""
        return f"target {self.target}"

    def tools(self) -> list[dict[str, Any]]:
        """Return the one tool: an expression."""
        infix = {"type": "string", "description": "infix, + - * / and parentheses"}
        return [tool("expression", f"Try {self.asks}.", "{expression}", expression=infix)]

    def action_pattern(self, agent: str) -> str | None:
        """Return the characters an expression may have, or those of steps where they are allowed."""
        expression = r"[0-9()+\-*/]{1,60}"
        return f"{PATTERN}|{expression}" if self.options.think else expression


class NumbersWorld(ExpressionWorld):
    """Use every number exactly once with + - * / and parentheses to make the target (Countdown, Game of 24).

    Observation: `tiles 1 3 4 6 target 24`. Action: an expression such as `6/(1-3/4)`. Feedback: what it evaluates
    to, or why it is illegal. All agents see the same puzzle; the first hit solves it for all, and whoever hits earns 1.
    With `own_tasks` every agent plays a puzzle of its own, drawn alike or by `regimes`: an agent that hits earns 1 and
    is done, the others play on, and the episode is solved when all have hit. Of a file, the agents of one episode play
    rows that follow each other. `levels` has options by level of difficulty. With `think` an answer may be given
    in steps such as `3*7=21 21+3=24`. Arithmetic is exact.
    """

    id: ClassVar[str] = "numbers-v0"
    Options: ClassVar[type[WorldOptions]] = NumbersOptions
    lessons: ClassVar[str | None] = "worlds.numbers.lessons:NumbersLessons"
    asks: ClassVar[str] = "an expression that uses every tile exactly once"
    options: NumbersOptions

    def __init__(self, num_agents: int, options: WorldOptions) -> None:
        super().__init__(num_agents, options)
        o = self.options
        self._file = read_puzzles(o.file, o.numbers_column, o.target_column, o.target) if o.file is not None else ()
        if self._file and o.fold is not None:
            self._file = tuple(puzzle for puzzle in self._file if o.is_wanted(puzzle.tiles, puzzle.target))
            if not self._file:
                raise WorldError(f"{o.file}: no puzzle of split {o.split!r} with fold {list(o.fold)}")
        self.levels = max(1, len(o.levels))
        places = range(max(num_agents, len(o.regimes)))
        self._drawn_from = [[o.of_agent(index, level) for index in places] for level in range(self.levels)]

    @property
    def puzzle(self) -> Puzzle:
        """The puzzle that all play; with `own_tasks` that of the first agent."""
        return self.puzzles[self.possible_agents[0]]

    @property
    def target(self) -> int:
        """What the tiles must make; with `own_tasks` those of the first agent."""
        return self.puzzle.target

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """Draw the puzzles of this seed, or take row `options["episode"]` of the file, with `own_tasks` one each."""
        super().begin(seed, options)
        episode, own = int(options.get("episode", seed)), self.options.own_tasks
        drawn_from = self._drawn_from[int(options.get("level", 0))]
        self.puzzles: dict[str, Puzzle] = {}
        for index, agent in enumerate(self.possible_agents):
            if index and not own:
                self.puzzles[agent] = self.puzzle
            elif self._file:
                row = episode * len(self.possible_agents) + index if own else episode
                self.puzzles[agent] = self._file[row % len(self._file)]
            else:
                place = derive_seed(seed, "own task", index) if own else seed
                turns = episode // self.options.rotate if self.options.rotate else 0
                regime = (index + turns) % len(drawn_from)
                self.puzzles[agent] = draw_puzzle(drawn_from[regime], random.Random(place))  # noqa: S311 - not for secrets
        self.best: dict[str, str] = {}
        self.hits: dict[str, str] = {}

    def observe(self, agent: str) -> str:
        """Return the puzzle of an agent, the same for all without `own_tasks`."""
        return self.puzzles[agent].text()

    def judge(self, agent: str, action: str, expression: Expression) -> tuple[Info, float]:
        """Evaluate an expression over all tiles."""
        puzzle = self.puzzles[agent]
        check_tiles(expression, puzzle.tiles)
        value = expression.value()
        self.best[agent] = str(value)
        info = Info(feedback=f"= {value}", valid=True)
        if not self.options.own_tasks:
            return info, float(self.solves(value, action))
        if value != puzzle.target:
            return info, 0.0
        self.hits[agent] = action
        self.solved, self.solution = len(self.hits) == len(self.possible_agents), action
        return info, 1.0

    def is_done(self, agent: str) -> bool:
        """Return whether an agent has solved a puzzle of its own."""
        return agent in self.hits

    def goal(self) -> str:
        """Return the target; with `own_tasks` that of each agent."""
        if not self.options.own_tasks:
            return super().goal()
        return f"own targets {' '.join(f'{agent} {puzzle.target}' for agent, puzzle in self.puzzles.items())}"

    def state(self) -> dict[str, Any]:
        """Return puzzle, attempts, last values and solution; with `own_tasks` puzzles and solutions of all."""
        own: dict[str, Any] = {}
        if self.options.own_tasks:
            own["own"] = {
                agent: [list(p.tiles), p.target, self.hits.get(agent, "")] for agent, p in self.puzzles.items()
            }
        return {
            "tiles": list(self.puzzle.tiles),
            "target": self.puzzle.target,
            "attempts": self.attempts,
            "values": {a: self.best[a] for a in self.possible_agents if a in self.best},
            "solution": self.solution,
            **own,
        }

    def render(self) -> str:
        """Return puzzle and last values; with `own_tasks` a line for each agent."""
        if self.options.own_tasks:
            lines = (
                (a, p.text(), self.best.get(a, "no attempts yet"), self.hits.get(a, ""))
                for a, p in self.puzzles.items()
            )
            return "\n".join(f"{a}: {text}: {value}{hit and f', solved: {hit}'}" for a, text, value, hit in lines)
        values = "  ".join(f"{a}: {self.best[a]}" for a in self.possible_agents if a in self.best)
        return f"{self.puzzle.text()}\n{values or 'no attempts yet'}\n{self.solution and 'solved: ' + self.solution}"

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return a random expression over all tiles."""
        return solver.random_expression(self.puzzles[agent].tiles, rng)
