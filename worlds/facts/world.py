"""`facts-v0`: everybody reads documents of their own, and is asked about everybody's.

Owns facts, who reads which and who is asked what. It refuses to know how anybody remembers or tells.
"""

import csv
import json
import random
from collections.abc import Mapping
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from worlds.files import read_once
from worlds.ordered import OrderedWorld
from worlds.protocol import Info, WorldError, WorldOptions, tool
from worlds.words import WORDS

ASKED, DONE = "asked", "done"
LONGEST = 600
"""Characters of a question or an answer."""


class FactsOptions(WorldOptions):
    """Options of facts-v0."""

    file: Path | None = None
    """Questions and answers, relative to the YAML file: JSON (a list of objects with `question` and `answer`, or an
    object of such lists) or CSV with these columns. null makes some up."""

    desks: int = Field(4, ge=1, le=256)
    """Desks, each with a document and questions."""

    pages: int = Field(2, ge=1, le=64)
    """Pages of a document."""

    facts: int = Field(2, ge=1, le=16)
    """Facts on a page."""

    questions: int = Field(3, ge=1, le=256)
    """Questions that are asked at a desk."""

    foreign: float = Field(0.5, ge=0, le=1)
    """Share of them whose answer stands in the document of another desk."""

    attempts: int = Field(1, ge=1)
    """Wrong answers that a question bears; the last one closes it for good."""

    max_steps: int = Field(400, ge=1)
    """Steps after which the episode is truncated."""


class FactsWorld(OrderedWorld):
    """Read the documents of your own desks, then answer questions, some of which others have read the answer to.

    Desk d belongs to agent d modulo the number of agents. An agent reads the pages of its desks' documents one by one,
    once; then it is asked the questions of its desks one by one. A question whose answer it does not know may be
    passed: it is asked again after the others. What an agent has read, and every answer that was right, is a fact: the
    world says so in its `facts`, for whoever remembers them.

    observation  `desk 2 page 1 of 2 : how do i reset my pin ? ask at the counter . ...` while pages are left;
                 `asked how do i reset my pin ?`, then `done`.
    actions      `next` (the next page), `answer ask at the counter`, `pass` (ask me later), `wait` (when done).
    report       `answered 2 of 3` when an answer was right.
    directive    none.
    reward       1 / all questions to the agent whose answer is right; solved when all were answered right.
    ends         terminated when no question is open any more.
    options      file (made up), desks (4), pages (2), facts (2), questions (3), foreign (0.5), attempts (1),
                 max_steps (400).
    """

    id: ClassVar[str] = "facts-v0"
    Options: ClassVar[type[WorldOptions]] = FactsOptions
    lessons: ClassVar[str | None] = "worlds.facts.lessons:FactsLessons"
    states_facts: ClassVar[bool] = True
    options: FactsOptions

    def __init__(self, num_agents: int, options: WorldOptions) -> None:
        super().__init__(num_agents, options)
        o = self.options
        self._pool = _made_up() if o.file is None else read_once(_parse_facts, o.file)
        if (needed := o.desks * o.pages * o.facts) > len(self._pool):
            raise WorldError(
                f"{o.desks} desks with {o.pages} pages of {o.facts} facts need {needed} facts, there are "
                f"{len(self._pool)}; lower 'desks', 'pages' or 'facts'"
            )

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """Hand out documents and questions of `seed`; `options` change nothing."""
        o = self.options
        rng = random.Random(seed)  # noqa: S311 - a puzzle, not a secret
        each = o.pages * o.facts
        drawn = rng.sample(self._pool, o.desks * each)
        self._documents = [drawn[desk * each : (desk + 1) * each] for desk in range(o.desks)]
        self._asked: list[tuple[str, str]] = []
        self._open: dict[str, list[int]] = {agent: [] for agent in self.possible_agents}
        for desk, document in enumerate(self._documents):
            others = [fact for other in self._documents if other is not document for fact in other]
            foreign = min(len(others), round(o.foreign * o.questions))
            asked = rng.sample(others, foreign) + rng.sample(document, min(each, o.questions - foreign))
            rng.shuffle(asked)
            first = len(self._asked)
            self._asked += asked
            self._open[self.possible_agents[desk % len(self.possible_agents)]] += range(first, len(self._asked))
        self._due = {agent: len(numbers) for agent, numbers in self._open.items()}
        self._right = dict.fromkeys(self.possible_agents, 0)
        self._wrong = [0] * len(self._asked)
        self._read = [0] * o.desks

    def _unread(self, agent: str) -> int | None:
        """Return the desk whose document an agent is reading."""
        own = range(self.possible_agents.index(agent), self.options.desks, len(self.possible_agents))
        return next((desk for desk in own if self._read[desk] < self.options.pages), None)

    def _page(self, desk: int) -> list[tuple[str, str]]:
        first = self._read[desk] * self.options.facts
        return self._documents[desk][first : first + self.options.facts]

    def observe(self, agent: str) -> str:
        """Return a page, else a question, else that there is none."""
        if (desk := self._unread(agent)) is not None:
            text = " ".join(f"{question} {answer} ." for question, answer in self._page(desk))
            return f"desk {desk} page {self._read[desk] + 1} of {self.options.pages} : {text}"
        return f"{ASKED} {self._asked[self._open[agent][0]][0]}" if self._open[agent] else DONE

    def has_ended(self) -> bool:
        """Return whether no question is open any more."""
        return not any(self._open.values())

    def act(self, agent: str, action: str) -> tuple[Info, float]:
        """Turn a page or take an answer."""
        if (desk := self._unread(agent)) is not None:
            if action != "next":
                return {"feedback": "read on first; say: next", "valid": False}, 0.0
            facts = [(f"{ASKED} {question}", f"answer {answer}") for question, answer in self._page(desk)]
            self._read[desk] += 1
            return {"feedback": "read", "valid": True, "facts": facts}, 0.0
        if not self._open[agent]:
            valid = action == "wait"
            return {"feedback": "waited" if valid else "nothing is asked; say: wait", "valid": valid}, 0.0
        if action == "pass":
            self._open[agent].append(self._open[agent].pop(0))
            return {"feedback": "asked again later", "valid": True}, 0.0
        if not action.startswith("answer "):
            return {"feedback": "not an action here; say: answer TEXT, or: pass", "valid": False}, 0.0
        number = self._open[agent][0]
        question, answer = self._asked[number]
        if action.removeprefix("answer ").strip() == answer:
            self._open[agent].pop(0)
            self._right[agent] += 1
            self.solved = sum(self._right.values()) == len(self._asked)
            report = f"answered {self._right[agent]} of {self._due[agent]}"
            facts = [(f"{ASKED} {question}", f"answer {answer}")]
            return {"feedback": "right", "valid": True, "report": report, "facts": facts}, 1.0 / len(self._asked)
        self._wrong[number] += 1
        if left := self.options.attempts - self._wrong[number]:
            return {"feedback": f"wrong, {left} left", "valid": True}, 0.0
        self._open[agent].pop(0)
        return {"feedback": "wrong, closed for good", "valid": True}, 0.0

    def state(self) -> dict[str, Any]:
        """Return documents, questions, and how far everybody is."""
        return {
            "step": self.steps,
            "solved": self.solved,
            "documents": [[list(fact) for fact in document] for document in self._documents],
            "asked": [list(fact) for fact in self._asked],
            "read": list(self._read),
            "open": {agent: list(numbers) for agent, numbers in self._open.items()},
            "right": dict(self._right),
            "wrong": list(self._wrong),
            "live": list(self.agents),
        }

    def goal(self) -> str:
        """Return how many questions there are."""
        return f"answer all {len(self._asked)} questions"

    def tools(self) -> list[dict[str, Any]]:
        """Return `next`, `answer`, `pass` and `wait`."""
        return [
            tool("next", "Go on to the next page.", "next"),
            tool("answer", "Answer the question.", "answer {answer}", answer={"type": "string", "minLength": 1}),
            tool("pass", "Be asked this question again after the others.", "pass"),
            tool("wait", "Do nothing; when nothing is asked any more.", "wait"),
        ]

    def render(self) -> str:
        """Return how far everybody is."""
        o = self.options
        right = sum(self._right.values())
        lines = [f"facts-v0 step {self.steps}/{o.max_steps} · {right}/{len(self._asked)} questions answered"]
        for agent in self.possible_agents:
            doing = "reads" if self._unread(agent) is not None else f"{len(self._open[agent])} open"
            lines.append(f"{agent}: {self._right[agent]} of {self._due[agent]} right, {doing}")
        return "\n".join(lines)

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return what fits the moment: the next page, or the answer to some question that this agent has read."""
        if agent not in self.possible_agents or self._unread(agent) is not None:
            return "next"
        if not self._open[agent]:
            return "wait"
        own = self._documents[self.possible_agents.index(agent) % len(self._documents)]
        return f"answer {rng.choice(own)[1]}"

    def action_pattern(self, agent: str) -> str | None:
        """Return the grammar of the actions that make sense now."""
        if self._unread(agent) is not None:
            return "next"
        return r"pass|answer [^\n]+" if self._open[agent] else "wait"


@lru_cache(maxsize=1)
def _made_up() -> tuple[tuple[str, str], ...]:
    rng = random.Random(0)  # noqa: S311 - a puzzle, not a secret
    return tuple((f"what is the code of {word} ?", f"{rng.choice(WORDS)} {rng.choice(WORDS)}") for word in WORDS)


def _parse_facts(path: Path, text: str) -> tuple[tuple[str, str], ...]:
    """Return the questions and answers of a file.

    Raises:
        WorldError: it does not hold any.
    """
    try:
        is_csv = path.suffix == ".csv"
        rows: Any = csv.DictReader(text.splitlines(keepends=True)) if is_csv else json.loads(text)
        if isinstance(rows, dict):
            rows = chain.from_iterable(rows.values())
        pairs = {" ".join(row["question"].split()): " ".join(row["answer"].split()) for row in rows}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, csv.Error) as error:
        raise WorldError(
            f"{path} does not hold objects or rows with `question` and `answer` ({error!r:.100})"
        ) from error
    return tuple((q, a) for q, a in pairs.items() if q and a and max(len(q), len(a)) <= LONGEST)
