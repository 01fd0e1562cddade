"""What a world returns, turned into plain data of the types of `worlds.protocol`, or into a fault that names the rule.

Owns the rules that can be seen in one result alone. Strings, numbers and containers of other packages' types become
Python's own, so nothing that a world keeps or changes later is shared with whoever reads its result.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, NotRequired

from pydantic import AfterValidator, Field, JsonValue, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict

from worlds.protocol import Info, StepResult


class Start(NamedTuple):
    """What `World.reset` returns."""

    observations: dict[str, str]
    infos: dict[str, Info]


class _Parameters(TypedDict):
    type: Literal["object"]
    properties: dict[str, dict[str, JsonValue]]
    required: NotRequired[list[str]]


def _known_names(schema: _Parameters) -> _Parameters:
    if not set(schema.get("required", [])) <= set(schema["properties"]):
        raise ValueError("`required` names what is no property")
    return schema


Text = Annotated[str, Field(min_length=1)]
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


class WorldFaultError(Exception):
    """What a world returned breaks its contract.

    Attributes:
        faults: rule -> what is wrong, one line; a rule is named alike wherever it is broken.
    """

    def __init__(self, faults: Mapping[str, str]) -> None:
        super().__init__("; ".join(faults.values()))
        self.faults = faults


def plain(name: str, kind: Any, data: Any) -> Any:
    """Return what a world returned as plain data of a kind.

    Args:
        name: where it comes from, for messages: ``goal``.
        kind: the type that it should have, as annotations say it.
        data: what came.

    Raises:
        WorldFaultError: it is nothing of the kind.
    """
    try:
        return _adapter(kind).validate_python(data, strict=True)
    except ValidationError as error:
        faults: dict[str, str] = {}
        for detail in error.errors():
            loc = detail["loc"]  # field, agent, and what is inside: a rule names no agent
            rule = " ".join(map(str, (name, *loc[:1], *loc[2:], detail["type"])))
            faults.setdefault(rule, clause(".".join(map(str, (name, *loc))), detail))
        raise WorldFaultError(faults) from error


def plain_step(result: Any, live: Sequence[str], acting: Sequence[str]) -> StepResult:
    """Return what `World.step` returned as plain data.

    Args:
        result: what came.
        live: the agents that were live before the step.
        acting: those of them that acted.

    Raises:
        WorldFaultError: it breaks a rule of the contract.
    """
    if type(result) is not StepResult:
        raise WorldFaultError({"step": f"step returned {type(result).__name__}, not StepResult"})
    step: StepResult = plain("step", StepResult, result)
    faults: dict[str, str] = {}
    for name, mapping in step._asdict().items():
        if strange := sorted(set(mapping) - set(live)):
            faults[f"{name} strange"] = f"{name} name agents that were not live: {strange}"
        if missing := sorted(set(acting) - set(mapping)):
            faults[f"{name} missing"] = f"{name} miss acting agents: {missing}"
    for key in ("feedback", "valid"):
        if without := [agent for agent in acting if key not in step.infos.get(agent, {})]:
            faults[key] = f"infos of {without} lack {key!r}"
    if both := [agent for agent in live if step.terminations.get(agent) and step.truncations.get(agent)]:
        faults["both ends"] = f"{both} both terminated and truncated in one step"
    for agent, reward in step.rewards.items():
        if reward > 0 and agent not in acting:
            faults["own reward"] = f"{agent} passed and earns {reward}; rewards are each agent's own"
    if faults:
        raise WorldFaultError(faults)
    return step


def clause(path: str, detail: ErrorDetails) -> str:
    """Return one error of pydantic in the words of one line: where, what is wrong, and what was given."""
    message = " ".join(detail["msg"].removeprefix("Value error, ").split())
    given = "" if detail["type"] == "missing" else f", got {detail['input']!r:.60}"
    return f"'{path}': {message[:1].lower()}{message[1:]}{given}"


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
