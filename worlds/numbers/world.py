"""`numbers-v0`: use every number once to hit a target, from generated puzzles or a file.

Owns the puzzle (`Puzzle`), its hash split into training and held-out puzzles, the reading of puzzle files, what all
number worlds share (`ExpressionWorld`), and the single-view world. The split-view world builds on it in
`worlds.split_numbers.world`.
"""

import csv
import hashlib
import json
import random
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from worlds.files import read_once
from worlds.numbers import solver
from worlds.numbers.arithmetic import Expression, ExpressionError, parse
from worlds.ordered import OrderedWorld
from worlds.protocol import Info, WorldError, WorldOptions, tool

HELD_OUT_FRACTION = 10  # one canonical puzzle in ten is held out of training, by hash


@dataclass(frozen=True, slots=True)
class Puzzle:
    """Tiles in ascending order and the target they must make."""

    tiles: tuple[int, ...]
    target: int

    def text(self) -> str:
        """Return the observation of an agent that sees everything."""
        return f"tiles {' '.join(map(str, self.tiles))} target {self.target}"


def is_held_out(tiles: Sequence[int], target: int) -> bool:
    """Return whether the canonical puzzle (all tiles sorted, target) belongs to evaluation, by its hash."""
    canonical = f"{','.join(map(str, sorted(tiles)))}={target}"
    return hashlib.sha256(canonical.encode()).digest()[0] % HELD_OUT_FRACTION == 0


class PuzzleOptions(WorldOptions):
    """Options of every number world."""

    low: int = Field(1, ge=0)
    """Smallest number."""

    high: int = Field(13, ge=1, le=1000)
    """Largest number."""

    target_low: int = Field(10, ge=0)
    """Smallest target that is drawn."""

    target_high: int = Field(100, ge=0, le=100_000)
    """Largest target that is drawn."""

    split: Literal["held_out", "train", "any"] = "held_out"
    """Draw only `held_out` puzzles, only those for training, or any."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if self.low > self.high or self.target_low > self.target_high:
            raise ValueError("low must not exceed high, nor target_low target_high")
        return self


class NumbersOptions(PuzzleOptions):
    """Options of numbers-v0."""

    count: int = Field(4, ge=1, le=8)
    """Numbers of a puzzle."""

    target: int | None = Field(None, ge=0)
    """A fixed target, for which `split` is ignored; null draws one between `target_low` and `target_high`."""

    file: Path | None = None
    """CSV (with a header) or JSONL of puzzles, used in order; then all options above but `target` are unused. null
    draws puzzles."""

    numbers_column: str = "numbers"
    """Column or key of the numbers: a list, or text parted by spaces or commas."""

    target_column: str | None = None
    """Column or key of the target; null takes `target`."""

    @model_validator(mode="after")
    def _file_has_targets(self) -> Self:
        if self.file is not None and self.target is None and self.target_column is None:
            raise ValueError("a puzzle file needs `target_column`, or a fixed `target`")
        return self


def _numbers(cell: Any) -> tuple[int, ...]:
    parts = cell if isinstance(cell, list) else str(cell).replace(",", " ").split()
    return tuple(sorted(_whole(part) for part in parts))


def _whole(cell: Any) -> int:
    if not re.fullmatch(r"[0-9]{1,7}", str(cell).strip()):
        raise ValueError(f"{cell!r} is no whole number of at most 7 digits")
    return int(str(cell))


def read_puzzles(path: Path, numbers_column: str, target_column: str | None, target: int | None) -> tuple[Puzzle, ...]:
    """Read every puzzle of a CSV or JSONL file and prove each solvable (up to 5 numbers).

    Raises:
        WorldError: the file cannot be read, a row is malformed or unsolvable; the message names the line.
    """
    return read_once(_parse_puzzles, path, numbers_column, target_column, target)


def _parse_puzzles(
    path: Path, text: str, numbers_column: str, target_column: str | None, target: int | None
) -> tuple[Puzzle, ...]:
    puzzles: list[Puzzle] = []
    for place, row in _rows(path, text):
        if not isinstance(row, dict):
            raise WorldError(f"{place}: expected an object with key {numbers_column!r}")
        for column in filter(None, (numbers_column, target_column)):
            if row.get(column) is None:
                raise WorldError(f"{place}: no column {column!r}; columns: {', '.join(map(str, row))}")
        try:
            tiles = _numbers(row[numbers_column])
            goal = _whole(row[target_column]) if target_column else target
            if goal is None or not tiles:
                raise ValueError("numbers or target are missing")
        except ValueError as error:
            raise WorldError(f"{place}: malformed puzzle: {error}") from error
        if len(tiles) <= solver.MAX_SEARCH_TILES and Fraction(goal) not in solver.reachable(tiles):
            raise WorldError(f"{place}: {' '.join(map(str, tiles))} cannot make {goal}")
        puzzles.append(Puzzle(tiles, goal))
    if not puzzles:
        raise WorldError(f"{path}: no puzzles in it")
    return tuple(puzzles)


def _rows(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """Yield the place of each row, for messages, and the row."""
    if path.suffix in (".jsonl", ".ndjson"):
        for number, line in enumerate(text.splitlines(), 1):
            try:
                if line.strip():
                    yield f"{path}:{number}", json.loads(line)
            except (ValueError, RecursionError) as error:
                raise WorldError(f"{path}:{number}: not JSON: {error}") from error
    else:
        reader = csv.DictReader(text.splitlines())
        try:
            yield from ((f"{path}:{reader.line_num}", row) for row in reader)
        except csv.Error as error:
            raise WorldError(f"{path}:{reader.line_num}: not CSV: {error}") from error


def check_tiles(expression: Expression, tiles: Sequence[int]) -> None:
    """Refuse an expression that does not use every tile exactly once.

    Raises:
        ExpressionError: says which number is to blame.
    """
    have, used = Counter(tiles), Counter(expression.literals)
    for number in expression.literals:
        if used[number] > have[number]:
            raise ExpressionError(f"tile {number} is used too often" if have[number] else f"{number} is not a tile")
    for tile in tiles:
        if used[tile] < have[tile]:
            raise ExpressionError(f"tile {tile} is not used")


def draw_puzzle(options: NumbersOptions, rng: random.Random) -> Puzzle:
    """Draw a solvable puzzle of the asked split.

    Raises:
        WorldError: none was found in 10,000 draws (the ranges hold no such puzzle, or hardly any).
    """
    low, high = (options.target_low, options.target_high) if options.target is None else (options.target,) * 2
    wanted = options.split if options.target is None else "any"
    for _ in range(10_000):
        tiles = tuple(sorted(rng.randint(options.low, options.high) for _ in range(options.count)))
        if len(tiles) <= 4:
            targets = [v for v in solver.whole_values(tiles) if low <= v <= high]
            if not targets:
                continue
            target = rng.choice(targets)
        else:  # too many tiles to search: take the value of a random expression
            value = parse(solver.random_expression(tiles, rng)).value()
            if value.denominator != 1 or not low <= value <= high:
                continue
            target = int(value)
        if wanted == "any" or is_held_out(tiles, target) == (wanted == "held_out"):
            return Puzzle(tiles, target)
    raise WorldError(
        f"numbers-v0: found no solvable puzzle with {options.count} numbers {options.low}..{options.high} and target "
        f"{options.target if options.target is not None else f'{options.target_low}..{options.target_high}'}"
    )


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
        """Evaluate an expression; a hit earns 1."""
        self.attempts += 1
        try:
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

    def goal(self) -> str:
        """Return the target."""
        return f"target {self.target}"

    def tools(self) -> list[dict[str, Any]]:
        """Return the one tool: an expression."""
        infix = {"type": "string", "description": "infix, + - * / and parentheses"}
        return [tool("expression", f"Try {self.asks}.", "{expression}", expression=infix)]

    def action_pattern(self, agent: str) -> str | None:
        """Return the characters an expression may have."""
        return r"[0-9()+\-*/]{1,60}"


class NumbersWorld(ExpressionWorld):
    """Use every number exactly once with + - * / and parentheses to make the target (Countdown, Game of 24).

    Observation: `tiles 1 3 4 6 target 24`. Action: an expression such as `6/(1-3/4)`. Feedback: what it evaluates
    to, or why it is illegal. All agents see the same puzzle; the first hit solves it for all, and whoever hits earns 1.
    Arithmetic is exact.
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

    @property
    def target(self) -> int:
        """What the tiles must make."""
        return self.puzzle.target

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """Draw the puzzle of this seed, or take row `options["episode"]` of the file."""
        super().begin(seed, options)
        self.puzzle = (
            self._file[int(options.get("episode", seed)) % len(self._file)]
            if self._file
            else draw_puzzle(self.options, random.Random(seed))  # noqa: S311 - not for secrets
        )
        self.best: dict[str, str] = {}

    def observe(self, agent: str) -> str:
        """Return the puzzle, the same for all."""
        return self.puzzle.text()

    def judge(self, agent: str, action: str, expression: Expression) -> tuple[Info, float]:
        """Evaluate an expression over all tiles."""
        check_tiles(expression, self.puzzle.tiles)
        value = expression.value()
        self.best[agent] = str(value)
        return Info(feedback=f"= {value}", valid=True), float(self.solves(value, action))

    def state(self) -> dict[str, Any]:
        """Return puzzle, attempts, last values and solution."""
        return {
            "tiles": list(self.puzzle.tiles),
            "target": self.puzzle.target,
            "attempts": self.attempts,
            "values": {a: self.best[a] for a in self.possible_agents if a in self.best},
            "solution": self.solution,
        }

    def render(self) -> str:
        """Return puzzle and last values."""
        values = "  ".join(f"{a}: {self.best[a]}" for a in self.possible_agents if a in self.best)
        return f"{self.puzzle.text()}\n{values or 'no attempts yet'}\n{self.solution and 'solved: ' + self.solution}"

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return a random expression over all tiles."""
        return solver.random_expression(self.puzzle.tiles, rng)
