"""What a world's code returns to ours, turned into plain data of the types of `worlds.protocol`, or into a fault.

Owns the one way for every answer, wherever the world runs: it becomes JSON text (`text_of`) within a limit of time, and
the text becomes data of the kind that it should be (`plain`). So numbers and containers of other packages' types become
Python's own, nothing that a world keeps or changes later is shared with whoever reads its answer, and a world in a
process of its own answers exactly as one in ours does. A fault names world, method and the rule that was broken.
"""

import json
import math
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import cache
from types import FrameType
from typing import Annotated, Any, Literal, NotRequired, TypeVar

from pydantic import AfterValidator, Field, FiniteFloat, JsonValue, PositiveInt, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict

from worlds.entry_points import error_line
from worlds.protocol import Example, Info, Line, StepResult, Words, WorldError

LIMIT_S = 60.0
"""Seconds that one answer may take where nobody says otherwise."""

MAX_BYTES = 2**26
"""Of one answer."""

_T = TypeVar("_T")


class _Parameters(TypedDict):
    type: Literal["object"]
    properties: dict[str, dict[str, JsonValue]]
    required: NotRequired[list[str]]


def _known_names(schema: _Parameters) -> _Parameters:
    if not set(schema.get("required", [])) <= set(schema["properties"]):
        raise ValueError("`required` names what is no property")
    return schema


Text = Annotated[Words, Field(min_length=1)]
"""A text that is not empty."""


class _Tool(TypedDict):
    name: Text
    description: Text
    parameters: Annotated[_Parameters, AfterValidator(_known_names)]
    text: Text


def _unique(tools: list[_Tool]) -> list[_Tool]:
    if len(tools) > len({tool["name"] for tool in tools}):
        raise ValueError("two tools have one name")
    return tools


Tools = Annotated[list[_Tool], Field(min_length=1), AfterValidator(_unique)]
"""What `World.tools` returns; the parameters of a tool are a JSON Schema object."""


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("a name comes twice")
    return names


def _compiles(pattern: str) -> str:
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"no regular expression ({error})") from error
    return pattern


def _is_line(example: Example) -> Example:
    if example.answer.splitlines() != [example.answer]:
        raise ValueError("the answer is no line of text")
    return example


Pattern = Annotated[str, AfterValidator(_compiles)]
"""A regular expression, as text."""

Agents = Annotated[list[Text], AfterValidator(_distinct)]

Examples = Annotated[list[Annotated[Example, AfterValidator(_is_line)]], Field(min_length=1)]
"""What `Lessons.example` returns."""


class _Now(TypedDict):
    """What a world says of itself after `reset` and `step`."""

    agents: Agents
    solved: bool


class Start(_Now):
    """What `World.reset` returns, by name."""

    observations: dict[str, Words]
    infos: dict[str, Info]


class Step(_Now):
    """What `World.step` returns, by name."""

    observations: dict[str, Words]
    rewards: dict[str, FiniteFloat]
    terminations: dict[str, bool]
    truncations: dict[str, bool]
    infos: dict[str, Info]


KINDS: dict[str, Any] = {
    "possible_agents": Annotated[Agents, Field(min_length=1)],
    "levels": PositiveInt,
    "reset": Start,
    "step": Step,
    "state": dict[str, JsonValue],
    "goal": Annotated[Line, Field(max_length=10_000)],
    "tools": Tools,
    "render": str,
    "sample_action": Words,
    "action_pattern": Pattern | None,
    "relabel": list[tuple[Words, Words]],
    "inline": Words | None,
}
"""What a world answers, by attribute or method."""


class WorldFaultError(WorldError):
    """What a world does breaks its contract.

    Attributes:
        faults: rule -> what is wrong, one line; a rule is named alike wherever it is broken.
    """

    def __init__(self, whose: str, faults: Mapping[str, str]) -> None:
        super().__init__(f"{whose}: {'; '.join(faults.values())}")
        self.faults = faults


class CallError(Exception):
    """A call raised, took too long, or returned what is no data: a clause that begins with its verb."""


def text_of(call: Callable[[], Any]) -> bytes:
    """Return what a call returns, as JSON text in one line.

    Raises:
        CallError: it raises, or returns what is no data, or too much.
    """
    try:
        value = call()
    except CallError:
        raise
    except (Exception, SystemExit) as error:  # a world is anybody's code
        raise CallError(f"raised {error_line(error):.200}") from error
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_own).encode()
    except Exception as error:
        flaw = None
        with suppress(Exception):
            flaw = next(_flaws(value), None)
        raise CallError(f"returned {flaw or f'no plain data ({error_line(error):.160})'}") from error
    if len(text) > MAX_BYTES:
        raise CallError(f"returned {len(text):,} bytes, {MAX_BYTES:,} are the most")
    return text


def _own(value: Any) -> Any:
    """Return what JSON has for a value that it does not know: arrays and numbers of numpy among others."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    raise TypeError(f"{type(value).__name__} is no text, number, list or mapping")


def _flaws(value: Any, *place: str) -> Iterator[str]:
    """Yield what JSON or UTF-8 cannot say, with its place."""
    where = f" in '{'.'.join(place)}'" if place else ""
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            yield f"half a surrogate pair{where}"
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield f"{float(value)}{where}"
    elif isinstance(value, list | tuple):
        for number, one in enumerate(value):
            yield from _flaws(one, *place, str(number))
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _flaws(key, *place)
            yield from _flaws(one, *place, str(key))
    elif value is not None and not isinstance(value, int):
        try:
            own = _own(value)
        except TypeError as error:
            yield f"no plain data{where}: {error}"
        else:
            yield from _flaws(own, *place)


class _TimeIsUpError(BaseException):
    """Raised in the midst of a call; no `except Exception` of the call's own catches it."""


def within(limit_s: float, call: Callable[[], _T]) -> _T:
    """Return what a call returns, if it does so in time.

    The limit holds in the main thread, for code that returns to the interpreter now and then; whatever does not has to
    run in a process of its own (`worlds.contained`).

    Raises:
        CallError: it took longer.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    is_late = False

    def expire(number: int, frame: FrameType | None) -> None:
        nonlocal is_late
        is_late = True
        raise _TimeIsUpError

    handler = signal.signal(signal.SIGALRM, expire)
    try:
        outer = signal.setitimer(signal.ITIMER_REAL, limit_s)
        try:
            found = call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, *outer)
    except _TimeIsUpError:
        pass
    finally:
        signal.signal(signal.SIGALRM, handler or signal.SIG_DFL)
    if is_late:  # also where the call has caught it
        raise CallError(f"took longer than {limit_s:g} s")
    return found


def plain(whose: str, name: str, kind: Any, ask: Callable[[], bytes]) -> Any:
    """Return an answer as plain data of a kind.

    Args:
        whose: for messages: ``world maze-v0``.
        name: what was asked, for messages: ``goal``.
        kind: the type that the answer should have, as annotations say it.
        ask: returns the answer as JSON text.

    Raises:
        WorldFaultError: there is none, or it is nothing of the kind.
    """
    try:
        return _adapter(kind).validate_json(ask(), strict=True)
    except CallError as error:
        verb = str(error).partition(" ")[0]
        raise WorldFaultError(whose, {f"{name} {verb}": f"{name} {error}"}) from error
    except ValidationError as error:
        faults: dict[str, str] = {}
        for detail in error.errors():
            loc = detail["loc"]  # field, agent, and what is inside: a rule names no agent
            rule = " ".join(map(str, (name, *loc[:1], *loc[2:], detail["type"])))
            faults.setdefault(rule, clause(".".join(map(str, (name, *loc))), detail))
        raise WorldFaultError(whose, faults) from error


def plain_value(whose: str, name: str, kind: Any, value: Any) -> Any:
    """Return what somebody's code has returned as plain data of a kind; as `plain` otherwise."""
    return plain(whose, name, kind, lambda: text_of(lambda: value))


def refuse(whose: str, faults: Mapping[str, str]) -> None:
    """Raise faults, if there are any."""
    if faults:
        raise WorldFaultError(whose, faults)


def start_faults(start: Start, everyone: Sequence[str]) -> dict[str, str]:
    """Return what is wrong with the start of an episode, rule by rule."""
    faults: dict[str, str] = {}
    named: dict[str, Mapping[str, Any]] = {"observations": start["observations"], "infos": start["infos"]}
    for name, mapping in named.items():
        if set(mapping) != set(everyone):
            faults[f"reset {name}"] = f"{name} do not name every agent"
    if start["agents"] != list(everyone):
        faults["reset agents"] = "agents are not possible_agents"
    if start["solved"]:
        faults["reset solved"] = "solved is not False after reset"
    return faults


def step_faults(step: Step, live: Sequence[str], acting: Sequence[str]) -> dict[str, str]:
    """Return what is wrong with a step, rule by rule.

    Args:
        step: what came.
        live: the agents that were live before it.
        acting: those of them that acted.
    """
    faults: dict[str, str] = {}
    known, acts, stay = set(live), set(acting), set(step["agents"])
    for name in StepResult._fields:
        mapping = step[name]  # type: ignore[literal-required]
        if strange := sorted(mapping.keys() - known):
            faults[f"{name} strange"] = f"{name} name agents that were not live: {strange}"
        if missing := sorted(acts - mapping.keys()):
            faults[f"{name} missing"] = f"{name} miss acting agents: {missing}"
    for key in ("feedback", "valid"):
        if without := [agent for agent in acting if key not in step["infos"].get(agent, {})]:
            faults[key] = f"infos of {without} lack {key!r}"
    ends = step["terminations"], step["truncations"]
    if both := sorted(agent for agent, end in ends[0].items() if end and ends[1].get(agent)):
        faults["both ends"] = f"{both} both terminated and truncated in one step"
    for agent, reward in step["rewards"].items():
        if reward > 0 and agent not in acts:
            faults["own reward"] = f"{agent} passed and earns {reward}; rewards are each agent's own"
    ended = {agent for end in ends for agent, has_ended in end.items() if has_ended}
    if late := sorted(ended & stay):
        faults["finished stay"] = f"{late} finished but did not leave agents"
    if gone := sorted(known - stay - ended):
        faults["unannounced"] = f"{gone} left agents without termination or truncation"
    if step["agents"] != [agent for agent in live if agent in stay]:
        faults["agents order"] = "agents changed order, or finished ones are back"
    return faults


def clause(path: str, detail: ErrorDetails) -> str:
    """Return one error of pydantic in the words of one line: where, what is wrong, and what was given."""
    message = " ".join(detail["msg"].removeprefix("Value error, ").split())
    given = "" if detail["type"] == "missing" else f", got {detail['input']!r:.60}"
    return f"'{path}': {message[:1].lower()}{message[1:]}{given}"


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
