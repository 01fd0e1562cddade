"""The puzzles of the number worlds: drawn from a seed or read from a file, and held out by hash.

Owns the puzzle (`Puzzle`), which puzzles are kept for evaluation (`is_held_out`), the options of puzzles, their drawing
and the reading of puzzle files. It does not know how they are played.
"""

import csv
import hashlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from worlds.files import read_once
from worlds.numbers import solver
from worlds.numbers.arithmetic import Expression, ExpressionError, parse
from worlds.protocol import WorldError, WorldOptions

HELD_OUT_FRACTION = 10  # one canonical puzzle in ten is held out of training, by hash


@dataclass(frozen=True, slots=True)
class Puzzle:
    """Tiles in ascending order and the target they must make."""

    tiles: tuple[int, ...]
    target: int

    def text(self) -> str:
        """Return the observation of an agent that sees everything."""
        return f"tiles {' '.join(map(str, self.tiles))} target {self.target}"


def is_held_out(tiles: Sequence[int], target: int, fold: tuple[int, int] | None = None) -> bool:
    """Return whether the canonical puzzle (all tiles sorted, target) belongs to evaluation, by its hash.

    Args:
        tiles: in any order.
        target: what they must make.
        fold: (k, n) keeps the puzzles of fold k of n, so that each is kept by one of n folds; None keeps one in ten.
    """
    canonical = f"{','.join(map(str, sorted(tiles)))}={target}"
    digest = hashlib.sha256(canonical.encode()).digest()
    if fold is None:
        return digest[0] % HELD_OUT_FRACTION == 0
    return int.from_bytes(digest[:8], "big") % fold[1] == fold[0]


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

    fold: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=2, le=100)]] | None = None
    """`[k, n]` holds out fold k of n by hash, 0 being the first, of a fixed target and of a file, too; null holds out
    one puzzle in ten, none with a fixed target and none of a file."""

    think: bool = False
    """Whether an answer may be given in steps such as `3*7=21 21+3=24`, in the place of an expression."""

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if self.low > self.high or self.target_low > self.target_high:
            raise ValueError("low must not exceed high, nor target_low target_high")
        if self.fold is not None and self.fold[0] >= self.fold[1]:
            raise ValueError(f"fold [k, n] needs k below n, got {list(self.fold)}")
        return self

    def may_ask(self, target: int) -> bool:
        """Return whether a target is between `target_low` and `target_high`, whether puzzles are drawn or not."""
        return self.target_low <= target <= self.target_high

    def is_wanted(self, tiles: Sequence[int], target: int) -> bool:
        """Return whether a puzzle is of the asked split."""
        return self.split == "any" or is_held_out(tiles, target, self.fold) == (self.split == "held_out")


class Regime(WorldOptions):
    """Options of numbers-v0 that differ for some agents, or at a level; whatever is left out is as for all."""

    count: int | None = None
    """Numbers of a puzzle."""

    low: int | None = None
    """Smallest number."""

    high: int | None = None
    """Largest number."""

    target: int | None = None
    """A fixed target; null draws one."""

    target_low: int | None = None
    """Smallest target that is drawn."""

    target_high: int | None = None
    """Largest target that is drawn."""


class NumbersOptions(PuzzleOptions):
    """Options of numbers-v0."""

    count: int = Field(4, ge=1, le=8)
    """Numbers of a puzzle."""

    target: int | None = Field(None, ge=0)
    """A fixed target, for which `split` is ignored without `fold`; null draws one between `target_low` and
    `target_high`."""

    file: Path | None = None
    """CSV (with a header) or JSONL of puzzles, used in order; of the options above only `target` matters then and, with
    `fold`, `split`. null draws puzzles."""

    numbers_column: str = "numbers"
    """Column or key of the numbers: a list, or text parted by spaces or commas."""

    target_column: str | None = None
    """Column or key of the target; null takes `target`."""

    own_tasks: bool = False
    """Whether every agent plays a puzzle of its own."""

    regimes: tuple[Regime, ...] = ()
    """Options by agent, with `own_tasks`: agent i takes entry i modulo their number, such as `{target: 24}` or `{low:
    14, high: 20}`, over the options above. Empty: all draw alike."""

    rotate: int = Field(0, ge=0)
    """Episodes after which each agent goes on to the next of the `regimes`, and so meets all of them; 0 for never."""

    levels: tuple[Regime, ...] = ()
    """Options by level of difficulty, the easiest first, such as `{count: 3}` and `{count: 4}`, over the options above
    and under those of `regimes`. Empty: there is one level."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.file is not None and self.target is None and self.target_column is None:
            raise ValueError("a puzzle file needs `target_column`, or a fixed `target`")
        if self.regimes and (not self.own_tasks or self.file is not None):
            raise ValueError("`regimes` need `own_tasks: true` and puzzles that are drawn, not those of a `file`")
        if self.levels and self.file is not None:
            raise ValueError("`levels` need puzzles that are drawn, not those of a `file`")
        for level in range(max(1, len(self.levels))):
            for index in range(max(1, len(self.regimes))):
                try:
                    self.of_agent(index, level)
                except ValidationError as error:
                    places = [f"`levels`, entry {level}"] * bool(self.levels)
                    places += [f"`regimes`, entry {index}"] * bool(self.regimes)
                    reason = error.errors()[0]["msg"].removeprefix("Value error, ")
                    raise ValueError(f"{', '.join(places)}: {reason}") from error
        return self

    @cached_property
    def drawn_from(self) -> "tuple[NumbersOptions, ...]":
        """All options that puzzles are drawn from: of each level and regime."""
        levels, regimes = len(self.levels) or 1, len(self.regimes) or 1
        return tuple(self.of_agent(index, level) for level in range(levels) for index in range(regimes))

    def may_ask(self, target: int) -> bool:
        """Return whether a target is between `target_low` and `target_high`, here, at a level or in a regime."""
        return any(PuzzleOptions.may_ask(options, target) for options in (self, *self.drawn_from))

    def of_agent(self, index: int, level: int = 0) -> "NumbersOptions":
        """Return the options from which the puzzles of an agent are drawn.

        Raises:
            pydantic.ValidationError: its regime, or the level, does not fit.
        """
        changes = [some[number % len(some)] for some, number in ((self.levels, level), (self.regimes, index)) if some]
        if not changes:
            return self
        whole = self.model_dump(exclude={"regimes", "levels"})
        for change in changes:
            whole |= change.model_dump(exclude_unset=True)
        return NumbersOptions.model_validate(whole)


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
        if (options.target is not None and options.fold is None) or options.is_wanted(tiles, target):
            return Puzzle(tiles, target)
    raise WorldError(
        f"numbers-v0: found no solvable puzzle with {options.count} numbers {options.low}..{options.high} and target "
        f"{options.target if options.target is not None else f'{options.target_low}..{options.target_high}'}"
    )
