"""Worlds, playbooks and lessons whose answers are checked: plain data, or a `WorldFaultError` that says what was wrong.

Owns which answer is of which kind (`worlds.results`). Whoever plays, replays, trains or checks asks these, never the
world's own code.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, PositiveInt

from worlds.protocol import (
    Briefing,
    Example,
    Info,
    Lessons,
    Playbook,
    Situation,
    StepResult,
    Turn,
    Words,
    World,
    WorldOptions,
)
from worlds.results import (
    KINDS,
    LIMIT_S,
    CallError,
    Examples,
    Pattern,
    Start,
    Step,
    Text,
    plain,
    refuse,
    start_faults,
    step_faults,
    text_of,
    within,
)

Ask = Callable[[str, Sequence[Any]], bytes]
"""(attribute or method of a world, arguments) -> its answer as JSON text; raises `CallError`."""

_FIELDS = {"reset": ("observations", "infos"), "step": StepResult._fields}


def answer(world: World, name: str, arguments: Sequence[Any]) -> Any:
    """Return what a world answers; with what it returns from `reset` and `step` comes what it then says of itself."""
    found = getattr(world, name)
    if callable(found):
        options = [world.options] if name == "relabel" else []  # they need not travel to a child
        found = found(*options, *arguments)
    if parts := _FIELDS.get(name):
        if not isinstance(found, tuple) or len(found) != len(parts):
            raise CallError(f"returned {type(found).__name__}, not a tuple of {', '.join(parts)}")
        return {**dict(zip(parts, found, strict=True)), "agents": world.agents, "solved": world.solved}
    return found


class CheckedWorld(World):
    """A world, wherever it runs, whose every answer is checked.

    `agents` and `solved` are what the world said at the end of the last `reset` or `step` that was sound.

    Args:
        cls: the world's class.
        options: its options.
        ask: how it is asked.

    Raises:
        WorldFaultError: it does not say who its agents are. So does every method whose answer is none of its kind.
    """

    def __init__(self, cls: type[World], options: WorldOptions, ask: Ask) -> None:
        self.cls, self.options, self._ask = cls, options, ask
        self.id = getattr(cls, "id", cls.__name__)  # type: ignore[misc]
        self.states_facts = getattr(cls, "states_facts", False)  # type: ignore[misc]
        self.claims = getattr(cls, "claims", {})  # type: ignore[misc]
        self.possible_agents = self._get("possible_agents")
        self.agents: list[str] = []
        self.solved = False

    def _get(self, name: str, *arguments: Any) -> Any:
        return plain(f"world {self.id}", name, KINDS[name], partial(self._ask, name, arguments))

    def reset(self, seed: int, options: Mapping[str, Any] | None = None) -> tuple[dict[str, str], dict[str, Info]]:
        """Start an episode."""
        start: Start = self._get("reset", seed, None if options is None else dict(options))
        refuse(f"world {self.id}", start_faults(start, self.possible_agents))
        self.agents, self.solved = start["agents"], start["solved"]
        return start["observations"], start["infos"]

    def step(self, actions: Mapping[str, str]) -> StepResult:
        """Apply actions."""
        live = self.agents
        step: Step = self._get("step", dict(actions))
        refuse(f"world {self.id}", step_faults(step, live, [agent for agent in live if agent in actions]))
        self.agents, self.solved = step["agents"], step["solved"]
        return StepResult(*(step[name] for name in StepResult._fields))  # type: ignore[literal-required]

    def state(self) -> dict[str, Any]:
        """Return the whole state."""
        found: dict[str, Any] = self._get("state")
        return found

    def goal(self) -> str:
        """Return the goal."""
        return str(self._get("goal"))

    def tools(self) -> list[dict[str, Any]]:
        """Return the actions."""
        found: list[dict[str, Any]] = self._get("tools")
        return found

    def render(self) -> str:
        """Return a few lines for people."""
        return str(self._get("render"))

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return a random action."""
        return str(self._get("sample_action", agent, directive, rng))

    def action_pattern(self, agent: str) -> str | None:
        """Return what actions match."""
        found: str | None = self._get("action_pattern", agent)
        return found

    @property
    def num_levels(self) -> int:
        """How many levels the world has."""
        return int(self._get("levels"))

    def relabel(self, options: WorldOptions, observation: str, action: str, info: Info) -> list[tuple[str, str]]:  # type: ignore[override]
        """Return what an attempt would have been right for, to who plays with the options of this world."""
        found: list[tuple[str, str]] = self._get("relabel", observation, action, info)
        return found

    def inline(self, observation: str, text: str) -> str | None:  # type: ignore[override]
        """Return what follows a text."""
        found: str | None = self._get("inline", observation, text)
        return found


def checked(world: World, limit_s: float = LIMIT_S) -> CheckedWorld:
    """Return a world of this process with checked answers; each may take so many seconds, in the main thread."""

    def ask(name: str, arguments: Sequence[Any]) -> bytes:
        return within(limit_s, partial(text_of, partial(answer, world, name, arguments)))

    return CheckedWorld(type(world), world.options, ask)


def card(cls: type[World]) -> str:
    """Return the card of a world.

    Raises:
        WorldFaultError: it is no text.
    """
    return str(_ask_here(f"world {cls.id}", "card", str, cls.card))


def other_options(cls: type[World], name: str, options: WorldOptions) -> WorldOptions | None:
    """Return what `World.full_view` or `World.for_training` makes of options.

    Raises:
        WorldFaultError: that is neither options of this world nor None.
    """
    found: list[WorldOptions | None] = []

    def ask() -> Any:
        found.append(getattr(cls, name)(options))
        if found[0] is not None and not isinstance(found[0], cls.Options):
            raise CallError(f"returns neither options nor None: {found[0]!r:.60}")

    plain(f"world {cls.id}", name, None, lambda: within(LIMIT_S, partial(text_of, ask)))
    return found[0]


def holds_out(cls: type[World], options: WorldOptions, observation: str) -> bool:
    """Return what `World.holds_out` says of an observation.

    Raises:
        WorldFaultError: that is neither true nor false.
    """
    return bool(_ask_here(f"world {cls.id}", "holds_out", bool, lambda: cls.holds_out(options, observation)))


def measures(cls: type[World], turns: Sequence[Turn]) -> dict[str, float]:
    """Return what `World.measures` says of some episodes.

    Raises:
        WorldFaultError: that is no mapping of names to finite numbers.
    """
    kind = dict[Text, FiniteFloat]
    found: dict[str, float] = _ask_here(f"world {cls.id}", "measures", kind, lambda: cls.measures(turns))
    return found


class CheckedPlaybook(Playbook):
    """A playbook whose every answer is checked.

    Args:
        world_id: whose it is.
        book: what the world brings.

    Raises:
        WorldFaultError: an attribute is none of its kind. So does every method whose answer is not.
    """

    def __init__(self, world_id: str, book: Playbook) -> None:
        self._book, self._whose = book, f"world {world_id}"
        self.directive = self._get("directive", Pattern, lambda: book.directive)
        self.about = self._get("about", Text, lambda: book.about)
        self.menu = self._get("menu", PositiveInt | None, lambda: book.menu)
        self.answers = book.answers if hasattr(book, "answers") else Playbook.answers

    def _get(self, name: str, kind: Any, call: Callable[[], Any]) -> Any:
        return _ask_here(self._whose, f"playbook.{name}", kind, call)

    def rules(self, situation: Situation) -> dict[str, str]:
        """Return directives by the rules."""
        found: dict[str, str] = self._get("rules()", dict[str, Words], lambda: self._book.rules(situation))
        return found

    def briefings(self, situation: Situation) -> list[Briefing]:
        """Return prompts."""
        found: list[Briefing] = self._get("briefings()", list[Briefing], lambda: self._book.briefings(situation))
        return found

    def parse(self, text: str, briefing: Briefing) -> dict[str, str]:
        """Return what an answer means."""
        found: dict[str, str] = self._get("parse()", dict[str, Words], lambda: self._book.parse(text, briefing))
        return found

    def declined(self, text: str, briefing: Briefing, cut: bool) -> list[str]:
        """Return what an answer decided against."""
        found: list[str] = self._get("declined()", list[Words], lambda: self._book.declined(text, briefing, cut))
        return found


class CheckedLessons(Lessons):
    """Lessons whose every answer is checked; arguments and errors as of `CheckedPlaybook`."""

    def __init__(self, world_id: str, lessons: Lessons) -> None:
        self._lessons, self._whose = lessons, f"world {world_id}"
        kinds = Annotated[dict[Text, Annotated[tuple[Text, ...], Field(min_length=1)]], Field(min_length=1)]
        self.tasks: Mapping[str, Sequence[str]] = self._get(
            "tasks", kinds, lambda: {task: list(shown) for task, shown in lessons.tasks.items()}
        )
        self.practice = frozenset(self._get("practice", list[str], lambda: sorted(lessons.practice)))
        self.pieces = self._get("pieces", str, lambda: getattr(lessons, "pieces", ""))

    def _get(self, name: str, kind: Any, call: Callable[[], Any]) -> Any:
        return _ask_here(self._whose, f"lessons.{name}", kind, call)

    def example(self, task: str, rng: random.Random, held_out: bool, kind: str | None = None) -> list[Example]:
        """Return an example."""
        # An argument that is not needed stays away: those who write lessons may have left it out.
        arguments = (task, rng, held_out) if kind is None else (task, rng, held_out, kind)
        found: list[Example] = self._get(task, Examples, lambda: self._lessons.example(*arguments))
        return found

    def corpus(self, task: str) -> Iterator[str | Example]:
        """Yield the tokenizer's texts."""
        texts: list[Iterator[Any]] = []

        def following() -> Any:
            texts.extend([iter(self._lessons.corpus(task))] * (not texts))
            return next(texts[0], None)

        while (text := self._get(f"corpus({task!r})", str | Example | None, following)) is not None:
            yield text

    def inline(self, observation: str, text: str) -> str | None:
        """Return what is appended to an answer; lessons that were written without it append nothing."""
        if not hasattr(self._lessons, "inline"):
            return None
        found: str | None = self._get("inline()", str | None, lambda: self._lessons.inline(observation, text))
        return found

    def judge(self, example: Example, answer: str) -> bool:
        """Return whether an answer is right."""
        return bool(self._get("judge()", bool, lambda: self._lessons.judge(example, answer)))


def _ask_here(whose: str, name: str, kind: Any, call: Callable[[], Any]) -> Any:
    return plain(whose, name, kind, lambda: within(LIMIT_S, partial(text_of, call)))
