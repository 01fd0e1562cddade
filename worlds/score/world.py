"""`score-v0`: a goal of one's own, a function that scores a text.

Owns tries, scores and records of an episode. It refuses to know what is scored and how (`worlds.score.scorers`).
"""

import random
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, Field, FiniteFloat, model_validator

from worlds.ordered import OrderedWorld
from worlds.protocol import Info, WorldOptions, tool
from worlds.results import Pattern
from worlds.score.scorers import find_scorer

DEFAULT_SCORER, DEFAULT_TASK = "golomb", "ruler of 11 marks"
LONGEST_REPORT = 500


def _stripped(text: str) -> str:
    return text.strip()


class ScoreOptions(WorldOptions):
    """Options of score-v0."""

    scorer: str = DEFAULT_SCORER
    """Name of a scorer: `golomb`, or one that an installed package declares under `ulm_swarm.scorers`."""

    file: Path | None = None
    """A Python file, relative to the YAML file, that defines `score(text)`, in place of `scorer`. It is code, and runs
    only with `--trust`. null takes `scorer`."""

    task: Annotated[str, AfterValidator(_stripped)] = Field("", max_length=10_000)
    """What agents read. Empty: what the shipped scorer is about; every other one needs a text."""

    goal: FiniteFloat | None = None
    """The score that solves it; null for none: then agents go on until a budget ends."""

    pattern: Pattern | None = None
    """A regular expression that every well-formed text matches, for `agents.constrained`; null for none."""

    max_steps: int = Field(1000, ge=1)
    """Steps after which the episode is truncated."""

    @model_validator(mode="after")
    def _says_the_task(self) -> Self:
        if not self.task and (self.file is not None or self.scorer != DEFAULT_SCORER):
            raise ValueError("`task` is missing: what agents read about the goal")
        return self


class ScoreWorld(OrderedWorld):
    """Write a text that scores high: a goal of your own is a Python function of ten lines, `score(text) -> float`.

    All agents read the same task in every step. The scorer runs in a child interpreter with limits of time and memory.
    A text that it refuses, by any exception, is illegal. The shipped one, `golomb`, scores rulers of 11 marks such as
    `0 1 4 13 28 33 47 54 64 70 72` by 72 / length; each distance between two marks that repeats costs a quarter of it.

    observation  the task, by default `ruler of 11 marks`.
    action       the text.
    feedback     `score 0.8421`, or why the text was refused.
    report       `score 0.8421: TEXT` when it is the best of all agents so far, in one line of at most 500 characters.
    directive    none.
    reward       the score, to the agent that wrote the text; solved when one reaches `goal`.
    options      scorer (golomb), file, task, goal (none), pattern (none), max_steps (1000).
    """

    id: ClassVar[str] = "score-v0"
    Options: ClassVar[type[WorldOptions]] = ScoreOptions
    options: ScoreOptions

    def __init__(self, num_agents: int, options: WorldOptions) -> None:
        super().__init__(num_agents, options)
        self._scorer = find_scorer(self.options.scorer, self.options.file)
        self._scorer.load()
        self._task = self.options.task or DEFAULT_TASK

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """Forget all scores; the task is the same for every seed."""
        self.attempts = 0
        self.best: tuple[float, str, str] | None = None  # score, agent, text
        self.last: dict[str, float] = {}

    def observe(self, agent: str) -> str:
        """Return the task."""
        return self._task

    def act(self, agent: str, action: str) -> tuple[Info, float]:
        """Score a text."""
        self.attempts += 1
        score, problem = self._scorer.score(action)
        if score is None:
            return Info(feedback=f"illegal: {problem}", valid=False), 0.0
        self.last[agent] = score
        info = Info(feedback=f"score {score:.6g}", valid=True)
        if self.best is None or score > self.best[0]:
            self.best = score, agent, action
            if len(action) <= LONGEST_REPORT and len(action.splitlines()) == 1:
                info["report"] = f"score {score:.6g}: {action}"
        self.solved = self.solved or (self.options.goal is not None and score >= self.options.goal)
        return info, score

    def state(self) -> dict[str, Any]:
        """Return attempts, the best text and the last scores."""
        return {
            "step": self.steps,
            "solved": self.solved,
            "attempts": self.attempts,
            "best": None if self.best is None else list(self.best),
            "last": {agent: self.last[agent] for agent in self.possible_agents if agent in self.last},
            "live": list(self.agents),
        }

    def goal(self) -> str:
        """Return the task in one line, and what solves it."""
        wanted = "" if self.options.goal is None else f"; goal: score {self.options.goal:g}"
        return f"{' '.join(self._task.split())[:5000]}{wanted}"

    def tools(self) -> list[dict[str, Any]]:
        """Return the one tool: a text."""
        written = {"type": "string", "minLength": 1, "description": "the whole text"}
        return [tool("write", "Write a text that scores high.", "{written}", written=written)]

    def render(self) -> str:
        """Return the best text so far."""
        head = f"score-v0 step {self.steps}/{self.options.max_steps} · {self.attempts} texts scored"
        if self.best is None:
            return f"{head}\nnone could be scored yet"
        score, agent, text = self.best
        return f"{head}\nbest {score:.6g} by {agent}: {' '.join(text.split())[:200]}"

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return a random text of the scorer's, or random letters where it knows none."""
        seed = rng.getrandbits(32)
        text = self._scorer.sample(seed)
        return "".join(rng.choices(string.ascii_lowercase, k=12)) if text is None else text

    def action_pattern(self, agent: str) -> str | None:
        """Return the option `pattern`."""
        return self.options.pattern
