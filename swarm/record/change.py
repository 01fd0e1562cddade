"""One record for every way in which what an agent keeps changes for good.

Learning, sharing, consolidation, merging, forgetting and undoing all write it, so that where a memory or a weight
came from is one chain of records (`parent` -> `result`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self, cast

from swarm.record.records import Cause, ChangeRecord, EvidenceEntry, TestEntry


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
        cost: what it used: `tokens` as they are charged, and what they were made of.
        tests: its acceptance test, empty where none was needed.
        note: why it is as it is, where that is worth a line: what was rejected, or why nothing was learned.
        accepted: whether `result` holds from now on; otherwise `parent` still does.
    """

    memory: str
    agent: str | None
    cause: Cause
    parent: str
    result: str
    evidence: EvidenceEntry = field(default_factory=lambda: EvidenceEntry(records=[], digest=""))
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    cost: Mapping[str, int] = field(default_factory=dict)
    tests: Sequence[TestEntry] = ()
    note: str = ""
    accepted: bool = True

    def as_record(self) -> ChangeRecord:
        """Return its record."""
        return cast(ChangeRecord, {"kind": "change", **asdict(self), "tests": [*self.tests]})

    @classmethod
    def from_record(cls, record: ChangeRecord) -> Self:
        """Return the change that a record of the journal tells."""
        told: Mapping[str, Any] = record
        return cls(**{**{one.name: told[one.name] for one in fields(cls)}, "tests": tuple(told["tests"])})
