"""One record for every way in which what an agent keeps changes for good.

Learning, sharing, consolidation, merging, forgetting and undoing all write it, so that where a memory or a weight
came from is one chain of records (`parent` -> `result`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from swarm.record.records import Cause, ChangeRecord


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

    def as_record(self) -> ChangeRecord:
        """Return its record."""
        test = self.test
        return {
            "kind": "change",
            "memory": self.memory,
            "agent": self.agent,
            "cause": self.cause,
            "parent": self.parent,
            "result": self.result,
            "evidence": {"records": list(self.evidence.records), "digest": self.evidence.digest},
            "settings": dict(self.settings),
            "seed": self.seed,
            "cost": dict(self.cost),
            "test": None if test is None else {"before": test.before, "after": test.after, "limit": test.limit},
            "accepted": self.accepted,
        }

    @classmethod
    def from_record(cls, record: ChangeRecord) -> Change:
        """Return the change that a record of the journal tells."""
        evidence, test = record["evidence"], record["test"]
        return cls(
            record["memory"],
            record["agent"],
            record["cause"],
            record["parent"],
            record["result"],
            Evidence(tuple(evidence["records"]), evidence["digest"]),
            record["settings"],
            record["seed"],
            record["cost"],
            None if test is None else Test(test["before"], test["after"], test["limit"]),
            record["accepted"],
        )
