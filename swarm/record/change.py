"""One record for every way in which what an agent keeps changes for good.

Learning, sharing, consolidation, merging, forgetting and undoing all write it, so that where a memory or a weight
came from is one chain of records (`parent` -> `result`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from swarm.record.journal import Record

__all__ = ["CHANGE", "Cause", "Change", "Evidence", "Test"]

CHANGE = "change"
"""Kind of the record."""

Cause = Literal["learn", "share", "consolidate", "merge", "forget", "undo"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a change was made from.

    Attributes:
        records: `seq` of journal records, in order.
        digest: hash of what was taken from them.
    """

    records: tuple[int, ...] = ()
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Test:
    """The acceptance test of a change, on held-out probes.

    Attributes:
        before, after: what was measured, before the first change of all and after this one.
        limit: how far `after` may fall below `before`.
    """

    __test__ = False  # not pytest's

    before: float
    after: float
    limit: float


@dataclass(frozen=True, slots=True)
class Change:
    """A change of what an agent keeps, accepted or not.

    Attributes:
        memory: its kind, as in `agents.memory`.
        agent: whose it is, None for all of the swarm.
        cause: why it changed.
        parent, result: version or hash before and after; `result` is what was refused where it was not accepted.
        evidence: what it was made from.
        settings: what decided how.
        seed: of its randomness.
        cost: what it used: tokens, calls, actions.
        test: its acceptance test, None where none was needed.
        accepted: whether `result` holds from now on; otherwise `parent` still does.
    """

    memory: str
    agent: str | None
    cause: Cause
    parent: str
    result: str
    evidence: Evidence = Evidence()
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    cost: Mapping[str, int] = field(default_factory=dict)
    test: Test | None = None
    accepted: bool = True

    def as_record(self) -> Record:
        """Return the body of its record."""
        body = asdict(self)
        body["evidence"]["records"] = list(self.evidence.records)
        return body

    @classmethod
    def from_record(cls, record: Record) -> Change:
        """Return the change that a record of the journal tells.

        Raises:
            ValueError: it tells none.
        """
        try:
            body = {name: record[name] for name in cls.__dataclass_fields__}
            evidence, test = body["evidence"], body["test"]
            body["evidence"] = Evidence(tuple(evidence["records"]), evidence["digest"])
            body["test"] = None if test is None else Test(**test)
        except (KeyError, TypeError) as error:
            raise ValueError(f"no change of a memory: {type(error).__name__} {error}") from error
        if body["cause"] not in get_args(Cause):
            raise ValueError(f"no change of a memory: cause {body['cause']!r}")
        return cls(**body)
