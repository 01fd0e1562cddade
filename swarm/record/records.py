"""The records of a journal, one type per kind, and the check that a line of JSON is one of them.

Owns what a record may hold; `FORMAT` counts the changes of it. What belongs to agents stands in lists, in the order of
the agents, so nobody sorts names.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, NotRequired, TypeAlias

from pydantic import ConfigDict, Field, Strict, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict

FORMAT = 2
"""Number of the journal's format; a reader refuses all others."""

Said: TypeAlias = Annotated[tuple[str, str], Strict(False)]
"""(agent, text); JSON has lists for tuples."""

Cause: TypeAlias = Literal["learn", "share", "consolidate", "merge", "forget", "undo"]
"""Why what an agent keeps changes."""

_exact = with_config(ConfigDict(extra="forbid", strict=True))


@_exact
class Opening(TypedDict):
    """What one agent reads as an episode begins, and its first report."""

    agent: str
    observation: str
    report: NotRequired[str]


@_exact
class CallEntry(TypedDict):
    """What somebody's calls in a tick cost, and what went wrong with them; `thoughts` only with `keep_thoughts`."""

    prompt_tokens: int
    generated_tokens: int
    fault: NotRequired[str]
    thoughts: NotRequired[str]


@_exact
class AgentEntry(CallEntry):
    """One agent's call in a tick and what came of it; after a fault the world saw no action.

    `inlined`: the parts of the action, first character and the one after the last, that the world answered inline.
    """

    agent: str
    action: str
    feedback: str
    valid: bool
    reward: float
    report: NotRequired[str]
    inlined: NotRequired[list[Annotated[tuple[int, int], Strict(False)]]]


@_exact
class CoordinatorEntry(CallEntry):
    """The coordinator's calls in a tick; `declined`: what it was offered for an agent's group and did not choose."""

    calls: int
    declined: NotRequired[list[Annotated[tuple[str, list[str]], Strict(False)]]]


@_exact
class Review(TypedDict):
    """What a person who approves directives did."""

    answer: Literal["approved", "replaced"]
    proposed: NotRequired[list[Said]]
    hints: NotRequired[list[str]]


@_exact
class Steered(TypedDict):
    """What a person left for the run: a directive (`agents`, `text`) or a `hint` for the coordinator.

    `line` is its number in steer.jsonl; `instead_of` are the coordinator's directives that it replaced.
    """

    line: int
    tokens: int
    agents: NotRequired[list[str]]
    text: NotRequired[str]
    hint: NotRequired[str]
    instead_of: NotRequired[list[Said]]


@_exact
class SpentEntry(TypedDict):
    """What an episode has used so far."""

    tokens: int
    calls: int
    actions: int


@_exact
class _Chained(TypedDict):
    """What the journal adds to each record: its number, the hash of the record before it, and its own."""

    seq: NotRequired[int]
    prev: NotRequired[str]
    hash: NotRequired[str]


@_exact
class Header(_Chained):
    """The first record: every setting that decides results, defaults included, and path -> sha256 of checkpoints."""

    kind: Literal["header"]
    format: int
    config: dict[str, Any]
    checkpoints: dict[str, str]


@_exact
class EpisodeStart(_Chained):
    """An episode begins, at a level that `level_by` chose. `state` is the hash of the world's state after its reset."""

    kind: Literal["episode"]
    episode: int
    world: str
    seed: int
    level: int
    level_by: str
    goal: str
    agents: list[Opening]
    state: str


@_exact
class Told(TypedDict):
    """What an episode was told in a tick, and by whom. `coordinator` is None where it was not asked."""

    coordinator: CoordinatorEntry | None
    directives: list[Said]
    review: NotRequired[Review]
    steered: NotRequired[list[Steered]]


@_exact
class Tick(Told, _Chained):
    """One step of an episode's world. `memory`: kind -> what agents came to keep, of the kinds that say so."""

    kind: Literal["tick"]
    episode: int
    tick: int
    agents: list[AgentEntry]
    memory: dict[str, dict[str, Any]]
    spent: SpentEntry
    state: str
    terminated: bool
    truncated: bool


@_exact
class EpisodeEnd(SpentEntry, _Chained):
    """An episode is over. `unrecorded` is the cost of a step that has no record, for the world raised in it."""

    kind: Literal["episode_end"]
    episode: int
    solved: bool
    reason: str
    ticks: int
    solution: NotRequired[str]
    unrecorded: NotRequired[SpentEntry]


@_exact
class End(_Chained):
    """The run is over."""

    kind: Literal["end"]
    reason: str
    episodes: int
    solved: int
    tokens: int
    faults: int


@_exact
class EvidenceEntry(TypedDict):
    """What a change was made from: first and last `seq` of the records, and a hash and counts of what they gave."""

    records: list[int]
    digest: str
    counts: NotRequired[dict[str, int]]


@_exact
class TestEntry(TypedDict):
    """A part of an acceptance test.

    `before` is what `after` is compared with: of a probe the first value of all, not the last. `limit` is how far
    `after` may fall below `before`; of a distance, which has no `before`, how large it may be. `n` is the sample.
    """

    name: str
    before: float
    after: float
    limit: float
    n: int
    passed: bool


@_exact
class ChangeRecord(_Chained):
    """What an agent keeps changes for good; `swarm.record.change.Change` says what the fields mean."""

    kind: Literal["change"]
    memory: str
    agent: str | None
    cause: Cause
    parent: str
    result: str
    evidence: EvidenceEntry
    settings: dict[str, Any]
    seed: int
    cost: dict[str, int]
    tests: list[TestEntry]
    note: str
    accepted: bool


@_exact
class Exchange(_Chained):
    """A person and a model spoke (`swarm chat`); the last record of a number holds.

    `by`: who answered: the `base`, what was learned (`delta`), or the exact memory (`facts`). `mark`: `+` good, `-`
    bad, `=` where the person typed a `better` answer; "" where nothing was said about it.
    """

    kind: Literal["exchange"]
    exchange: int
    request: str
    answer: str
    by: Literal["base", "delta", "facts"]
    tokens: int
    mark: Literal["", "+", "-", "="]
    better: NotRequired[str]


Record: TypeAlias = Header | EpisodeStart | Tick | EpisodeEnd | ChangeRecord | Exchange | End

_RECORD: TypeAdapter[Record] = TypeAdapter(Annotated[Record, Field(discriminator="kind")])


def check_record(data: object) -> Record:
    """Return parsed JSON as the record that it is.

    Raises:
        ValueError: it is none; the message says what is wrong where.
    """
    try:
        return _RECORD.validate_python(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where}: {first['msg']}" if where else first["msg"]) from None


def in_agent_order(told: Mapping[str, str], agents: Iterable[str]) -> list[Said]:
    """Return agent -> text as a record holds it; names that are no agents are left out."""
    return [(agent, told[agent]) for agent in agents if agent in told]


def acted(entry: AgentEntry) -> bool:
    """Return whether the world saw an action of this agent: one whose call failed passed the tick."""
    return entry.get("fault") is None


def said_by_person(entry: Steered) -> str:
    """Return for readers what a person left for the run, and for whom."""
    whom, text = " ".join(entry.get("agents", ["coordinator"])), entry.get("hint", entry.get("text", ""))
    return f"a person says to {whom}: {text}"


def faults_in(record: Tick) -> list[tuple[str, str]]:
    """Return (who, what went wrong) of a tick, in agent order, the coordinator last."""
    calls: list[tuple[str, CallEntry | None]] = [(entry["agent"], entry) for entry in record["agents"]]
    calls.append(("coordinator", record["coordinator"]))
    return [(who, call["fault"]) for who, call in calls if call is not None and "fault" in call]
