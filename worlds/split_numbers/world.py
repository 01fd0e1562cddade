"""`split-numbers-v0`: a hidden-profile number puzzle whose tiles are split over two groups of agents.

Owns who sees what, which values were posted, and when a composed action counts. It refuses to combine posted values
by itself: only an agent that makes the missing part from its own tiles solves the puzzle.
"""

import random
import re
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar, Literal

from pydantic import Field

from worlds.numbers import solver
from worlds.numbers.arithmetic import Expression, ExpressionError, Node, evaluate, parse
from worlds.numbers.puzzles import Puzzle, PuzzleOptions, check_tiles
from worlds.numbers.world import ExpressionWorld, made
from worlds.protocol import Info, StepResult, WorldError, WorldOptions

DIRECTIVE = re.compile(r"(?P<before>\d{1,7}[-+*/])?\[(?P<own>\d{1,7})\](?P<after>[-/]\d{1,7})?")
"""A directive: the brackets mark the part that the agent makes from its own tiles."""

_HALF = re.compile(r"half(?P<tiles>(?: [0-9]{1,7})+) target (?P<target>[0-9]{1,7})")


class SplitNumbersOptions(PuzzleOptions):
    """Options of split-numbers-v0."""

    half: int = Field(3, ge=1, le=4)
    """Tiles of each half."""

    target_low: int = Field(100, ge=1)
    """Smallest target."""

    target_high: int = Field(199, ge=1, le=100_000)
    """Largest target."""

    view: Literal["half", "full"] = "half"
    """`half` shows each agent its own half; `full` shows all tiles to all, as a solo needs."""


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
            if options.is_wanted(left + right, target)
            and any(s in theirs for v in solver.whole_values(left) for _, s in solver.sub_targets(v, target))
        ]
        if targets:
            target = rng.choice(targets)
            return Puzzle(left, target), Puzzle(right, target)
    raise WorldError(f"split-numbers-v0: found no solvable puzzle for the options {options!r}")


class SplitNumbersWorld(ExpressionWorld):
    """Hidden-profile puzzle: tiles are split over two groups of agents; all tiles together must make the target.

    Agent a0, a2, ... hold the first half, a1, a3, ... the second. Observation: `half 3 7 11 target 154` (view `full`:
    `tiles 2 3 4 7 9 11 target 154`). A free action is an expression that uses every tile of the own half once; its
    value is posted. A composed action adds one whole number that the other half posted in an earlier tick, such as
    `110+(2+9)*4`; it solves the puzzle when it equals the target. The world never joins posted values by itself,
    so a solution needs an agent that makes a wanted value on purpose; that agent earns 1. Reports: `half 3 7 11 made
    110`. Directives this world's coordinators give: `110+[44]`, make 44 from your tiles to complete a posted 110.
    """

    id: ClassVar[str] = "split-numbers-v0"
    Options: ClassVar[type[WorldOptions]] = SplitNumbersOptions
    playbook: ClassVar[str | None] = "worlds.split_numbers.playbook:SplitNumbersPlaybook"
    lessons: ClassVar[str | None] = "worlds.split_numbers.lessons:SplitNumbersLessons"
    asks: ClassVar[str] = "an expression over every own tile once, and at most one number that the other half posted"
    options: SplitNumbersOptions

    def __init__(self, num_agents: int, options: WorldOptions) -> None:
        super().__init__(num_agents, options)
        if self.options.view == "half" and num_agents < 2:
            raise WorldError("split-numbers-v0 with view half needs at least 2 agents, one per half; or set view: full")

    def half_of(self, agent: str) -> int:
        """Return 0 or 1."""
        return self.possible_agents.index(agent) % 2

    @property
    def target(self) -> int:
        """The number that all tiles together must make."""
        return self.halves[0].target

    def _own_tiles(self, agent: str) -> tuple[int, ...]:
        own = self.halves if self.options.view == "full" else (self.halves[self.half_of(agent)],)
        return tuple(sorted(tile for half in own for tile in half.tiles))

    def _own_name(self, agent: str) -> str:
        word = "tiles" if self.options.view == "full" else "half"
        return f"{word} {' '.join(map(str, self._own_tiles(agent)))}"

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """Draw the puzzle of this seed."""
        super().begin(seed, options)
        self.halves = draw_split(self.options, random.Random(seed))  # noqa: S311 - not for secrets
        self.posted: tuple[list[int], list[int]] = ([], [])

    def observe(self, agent: str) -> str:
        """Return the tiles that an agent sees, and the target."""
        return f"{self._own_name(agent)} target {self.target}"

    def news(self, agent: str) -> str | None:
        """Return the tiles of an agent, where others do not see them."""
        return None if self.options.view == "full" else self._own_name(agent)

    def step(self, actions: Mapping[str, str]) -> StepResult:
        """Judge one action per acting agent against the values posted before this step."""
        self._known = tuple(frozenset(values) for values in self.posted)
        return super().step(actions)

    def judge(self, agent: str, action: str, expression: Expression) -> tuple[Info, float]:
        """Evaluate an expression over the own tiles, or one that adds a number of the other half."""
        tiles, is_full = self._own_tiles(agent), self.options.view == "full"
        extra = list((Counter(expression.literals) - Counter(tiles)).elements())
        is_composed = not is_full and len(extra) == 1 and len(expression.literals) == len(tiles) + 1
        if not is_composed:
            check_tiles(expression, tiles)
        elif extra[0] not in self._known[1 - self.half_of(agent)]:
            raise ExpressionError(f"{extra[0]} was not posted by the other half")
        value = expression.value()
        info = Info(feedback=f"= {value}", valid=True)
        if (is_full or is_composed) and self.solves(value, action):
            return info, 1.0
        # A miss still shows what the own tiles made, where the borrowed number stands at the top of the expression.
        own = _beside(expression.root, extra[0]) if is_composed else expression.root
        if not is_full and own is not None:
            self._post(agent, evaluate(own), info)
        return info, 0.0

    def _post(self, agent: str, value: Fraction, info: Info) -> None:
        """Post a whole value that is new, and report it."""
        values = self.posted[self.half_of(agent)]
        if value.denominator == 1 and value >= 0 and value not in values:
            values.append(int(value))
            info["report"] = f"{self._own_name(agent)} made {value}"

    @classmethod
    def relabel(cls, options: WorldOptions, observation: str, action: str, info: Info) -> list[tuple[str, str]]:
        """Return an assigned value that an attempt has made, under the directive that assigns it.

        A free action that made 44 of a target of 154 would have completed a posted 110: it becomes `110+(2+9)*4` under
        `110+[44]`. A composed action keeps its directive, and what it came to is the target. An agent that sees
        all tiles is assigned nothing: its puzzle becomes the one that it solved, as in numbers-v0.
        """
        match, value = _HALF.fullmatch(observation), made(info)
        if match is None or value is None:
            return super().relabel(options, observation, action, info)
        action, target = action.strip(), int(match["target"])
        expression = parse(action)
        extra = list((Counter(expression.literals) - Counter(map(int, match["tiles"].split()))).elements())
        if extra:
            directive, target = _assigned(expression.root, extra[0]), value
        else:
            posted, form = abs(target - value), "{}+[{{}}]" if value < target else "[{{}}]-{}"
            directive = form.format(posted).format(value) if value and posted else None
            action = solver.complete(form.format(posted), action)
        if directive is None or not target:
            return []
        return [(f"half{match['tiles']} target {target}\n{directive}", action)]

    @classmethod
    def full_view(cls, options: WorldOptions) -> WorldOptions:
        """Return options that show all tiles to every agent."""
        return options.model_copy(update={"view": "full"})

    def state(self) -> dict[str, Any]:
        """Return halves, target, posted values, attempts and solution."""
        return {
            "halves": [list(half.tiles) for half in self.halves],
            "target": self.target,
            "posted": [list(values) for values in self.posted],
            "attempts": self.attempts,
            "solution": self.solution,
        }

    def render(self) -> str:
        """Return both halves, what was posted, and the solution."""
        halves = [
            f"half {' '.join(map(str, half.tiles))}: {' '.join(map(str, values)) or 'nothing posted'}"
            for half, values in zip(self.halves, self.posted, strict=True)
        ]
        return "\n".join([self.goal(), *halves, f"solved: {self.solution}" if self.solved else "open"])

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return a random expression over the own tiles, set into the form of the directive where it has one."""
        expression = solver.random_expression(self._own_tiles(agent), rng)
        match = DIRECTIVE.fullmatch(directive.strip())
        if match is None or not (match["before"] or match["after"]):
            return expression
        return f"{match['before'] or ''}({expression}){match['after'] or ''}"


def _beside(root: Node, number: int) -> Node | None:
    """Return what stands beside a number at the top of an expression, None where the number stands deeper."""
    if isinstance(root, int):
        return None
    _, left, right = root
    return right if left == number else left if right == number else None


def _assigned(root: Node, number: int) -> str | None:
    """Return the directive that an expression follows which joins a number and an own part; None where it is none."""
    own = _beside(root, number)
    if own is None or isinstance(root, int):
        return None
    made = evaluate(own)
    symbol, left, _ = root
    text = f"{number}{symbol}[{made}]" if left == number else f"[{made}]{symbol}{number}"
    return text if DIRECTIVE.fullmatch(text) and made else None
