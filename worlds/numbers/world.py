"""`numbers-v0`: use every number once to hit a target, from generated puzzles or a file.

Owns the puzzle (`Puzzle`), its hash split into training and held-out puzzles, the reading of puzzle files, and the
single-view world. The split-view world builds on it in `worlds.split_numbers.world`.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from worlds.numbers import solver
from worlds.numbers.arithmetic import Expression, ExpressionError, format_value, parse
from worlds.protocol import Info, StepResult, World, WorldError, WorldOptions

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


class NumbersOptions(WorldOptions):
    """Options of numbers-v0."""

    count: int = Field(4, ge=1, le=8)
    """Numbers of a puzzle."""

    low: int = Field(1, ge=0)
    """Smallest number."""

    high: int = Field(13, ge=1, le=1000)
    """Largest number."""

    target: int | None = Field(None, ge=0)
    """A fixed target; null draws one between `target_low` and `target_high`."""

    target_low: int = Field(10, ge=0)
    """Smallest target that is drawn."""

    target_high: int = Field(100, ge=0, le=100_000)
    """Largest target that is drawn."""

    split: Literal["held_out", "train", "any"] = "held_out"
    """Draw only `held_out` puzzles, only those for training, or any. Puzzles with a fixed target ignore it."""

    file: str | None = None
    """CSV (with a header) or JSONL of puzzles, used in order; then all options above but `target` are unused. null
    draws puzzles."""

    numbers_column: str = "numbers"
    """Column or key of the numbers: a list, or text parted by spaces or commas."""

    target_column: str | None = None
    """Column or key of the target; null takes `target`."""

    @model_validator(mode="after")
    def _ranges(self) -> NumbersOptions:
        if self.low > self.high or self.target_low > self.target_high:
            raise ValueError("low must not exceed high, nor target_low target_high")
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


@lru_cache(maxsize=16)
def _read_once(path: Path, modified_ns: int, options: NumbersOptions) -> tuple[Puzzle, ...]:
    """Read and prove a file once per process: every episode makes a world of its own."""
    return tuple(read_puzzles(path, options.numbers_column, options.target_column, options.target))


def read_puzzles(path: Path, numbers_column: str, target_column: str | None, target: int | None) -> list[Puzzle]:
    """Read every puzzle of a CSV or JSONL file and prove each solvable (up to 5 numbers).

    Raises:
        WorldError: the file cannot be read, a row is malformed or unsolvable; the message names the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WorldError(f"cannot read puzzle file {path}: {error}") from error
    rows: list[tuple[int, Mapping[str, Any]]] = []
    if path.suffix in (".jsonl", ".ndjson"):
        for line_number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise WorldError(f"{path}:{line_number}: not JSON: {error}") from error
                if not isinstance(row, dict):
                    raise WorldError(f"{path}:{line_number}: expected an object with key {numbers_column!r}")
                rows.append((line_number, row))
    else:
        reader = csv.DictReader(text.splitlines())
        try:
            rows.extend((reader.line_num, row) for row in reader)
        except csv.Error as error:
            raise WorldError(f"{path}:{reader.line_num}: not CSV: {error}") from error
    puzzles: list[Puzzle] = []
    for line_number, row in rows:
        for column in filter(None, (numbers_column, target_column)):
            if row.get(column) is None:
                raise WorldError(f"{path}:{line_number}: no column {column!r}; columns: {', '.join(map(str, row))}")
        try:
            tiles = _numbers(row[numbers_column])
            goal = _whole(row[target_column]) if target_column else target
            if goal is None or not tiles or min(tiles) < 0 or goal < 0:
                raise ValueError("numbers and target must be whole and not negative")
        except ValueError as error:
            raise WorldError(f"{path}:{line_number}: malformed puzzle: {error}") from error
        if len(tiles) <= solver.MAX_SEARCH_TILES and Fraction(goal) not in solver.reachable(tiles):
            raise WorldError(f"{path}:{line_number}: {' '.join(map(str, tiles))} cannot make {goal}")
        puzzles.append(Puzzle(tiles, goal))
    if not puzzles:
        raise WorldError(f"{path}: no puzzles in it")
    return puzzles


def check_tiles(expression: Expression, tiles: Sequence[int]) -> str | None:
    """Return why the expression does not use every tile exactly once, or None when it does."""
    have, used = Counter(tiles), Counter(expression.literals)
    for number in expression.literals:
        if used[number] > have[number]:
            return f"{number} is not a tile" if not have[number] else f"tile {number} is used too often"
    for tile in tiles:
        if used[tile] < have[tile]:
            return f"tile {tile} is not used"
    return None


def draw_puzzle(options: NumbersOptions, rng: random.Random) -> Puzzle:
    """Draw a solvable puzzle of the asked split.

    Raises:
        WorldError: none was found in 10,000 draws (the ranges hold no such puzzle, or hardly any).
    """
    for _ in range(10_000):
        tiles = tuple(sorted(rng.randint(options.low, options.high) for _ in range(options.count)))
        low = options.target_low if options.target is None else options.target
        high = options.target_high if options.target is None else options.target
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
        wanted = options.split if options.target is None else "any"
        if wanted == "any" or is_held_out(tiles, target) == (wanted == "held_out"):
            return Puzzle(tiles, target)
    raise WorldError(
        f"numbers-v0: found no solvable puzzle with {options.count} numbers {options.low}..{options.high} and target "
        f"{options.target if options.target is not None else f'{options.target_low}..{options.target_high}'}"
    )


class NumbersWorld(World):
    """Use every number exactly once with + - * / and parentheses to make the target (Countdown, Game of 24).

    Observation: `tiles 1 3 4 6 target 24`. Action: an expression such as `6/(1-3/4)`. Feedback: what it evaluates
    to, or why it is illegal. All agents see the same puzzle; the first hit solves it for all, and whoever hits earns 1.
    Arithmetic is exact.
    """

    id: ClassVar[str] = "numbers-v0"
    Options: ClassVar[type[WorldOptions]] = NumbersOptions
    lessons: ClassVar[str | None] = "worlds.numbers.lessons:NumbersLessons"
    options: NumbersOptions

    def __init__(self, num_agents: int, options: WorldOptions) -> None:
        if not isinstance(options, NumbersOptions):
            raise WorldError("numbers-v0 takes NumbersOptions")
        super().__init__(num_agents, options)
        self._file: tuple[Puzzle, ...] = ()
        if options.file is not None:
            path = Path(options.file)
            try:
                modified_ns = path.stat().st_mtime_ns
            except OSError as error:
                raise WorldError(f"cannot read puzzle file {path}: {error.strerror}") from error
            self._file = _read_once(path, modified_ns, options)
        self.puzzle = Puzzle((), 0)
        self.attempts = 0
        self.best: dict[str, str] = {}
        self.solution = ""

    def reset(self, seed: int, options: Mapping[str, Any] | None = None) -> tuple[dict[str, str], dict[str, Info]]:
        """Draw the puzzle of this seed, or take row `options["episode"]` of the file."""
        if self._file:
            self.puzzle = self._file[int((options or {}).get("episode", seed)) % len(self._file)]
        else:
            self.puzzle = draw_puzzle(self.options, random.Random(seed))  # noqa: S311 - not for secrets
        self.agents = list(self.possible_agents)
        self.solved, self.attempts, self.solution, self.best = False, 0, "", {}
        return {a: self.puzzle.text() for a in self.agents}, {a: Info() for a in self.agents}

    def step(self, actions: Mapping[str, str]) -> StepResult:
        """Evaluate one expression per acting agent."""
        acting = self.ordered(actions)
        infos: dict[str, Info] = {}
        rewards: dict[str, float] = {}
        for agent in acting:
            self.attempts += 1
            infos[agent], rewards[agent] = self._judge(agent, actions[agent].strip())
        live = list(self.agents)
        terminations = dict.fromkeys(live, self.solved)
        truncations = dict.fromkeys(live, False)
        observations = {a: self.puzzle.text() for a in live}
        if self.solved:
            self.agents = []
        return StepResult(observations, rewards, terminations, truncations, infos)

    def _judge(self, agent: str, action: str) -> tuple[Info, float]:
        try:
            expression = parse(action)
            if problem := check_tiles(expression, self.puzzle.tiles):
                return Info(feedback=f"illegal: {problem}", valid=False), 0.0
            value = expression.value()
        except ExpressionError as error:
            return Info(feedback=f"illegal: {error}", valid=False), 0.0
        hit = value == self.puzzle.target
        if hit and not self.solved:
            self.solved, self.solution = True, action
        self.best[agent] = format_value(value)
        return Info(feedback=f"= {format_value(value)}", valid=True), float(hit)

    @classmethod
    def for_training(cls, options: WorldOptions) -> WorldOptions:
        """Return options that draw no puzzle kept for evaluation."""
        return options.model_copy(update={"split": "train"})

    def state(self) -> dict[str, Any]:
        """Return puzzle, attempts, last values and solution."""
        return {
            "tiles": list(self.puzzle.tiles),
            "target": self.puzzle.target,
            "attempts": self.attempts,
            "values": {a: self.best[a] for a in self.possible_agents if a in self.best},
            "solution": self.solution,
        }

    def goal(self) -> str:
        """Return the target."""
        return f"target {self.puzzle.target}"

    def tools(self) -> list[dict[str, Any]]:
        """Return the one tool: an expression."""
        return [expression_tool("an expression that uses every tile exactly once")]

    def render(self) -> str:
        """Return puzzle and last values."""
        values = "  ".join(f"{a}: {self.best[a]}" for a in self.possible_agents if a in self.best)
        return f"{self.puzzle.text()}\n{values or 'no attempts yet'}\n{self.solution and 'solved: ' + self.solution}"

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return a random expression over all tiles."""
        return solver.random_expression(self.puzzle.tiles, rng)

    def action_pattern(self, agent: str) -> str | None:
        """Return the characters an expression may have."""
        return r"[0-9()+\-*/]{1,60}"


def expression_tool(meaning: str) -> dict[str, Any]:
    """Return the JSON Schema of the action `expression`; its text form is the bare expression."""
    return {
        "name": "expression",
        "description": f"Try {meaning}.",
        "parameters": {
            "type": "object",
            "properties": {"expression": {"type": "string", "description": "infix, + - * / and parentheses"}},
            "required": ["expression"],
            "additionalProperties": False,
        },
        "text": "{expression}",
    }
