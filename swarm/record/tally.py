"""The calls of a run: how many were made and answered, by whom, and what went wrong most often."""

import re
from collections import Counter
from dataclasses import dataclass, field

from swarm.record.records import CallEntry, Record, faults_in


@dataclass(slots=True)
class Tally:
    """Folds records.

    Attributes:
        made, answered: `agents` or `coordinator` -> calls on record, and those without a fault.
        faults: what went wrong, in words without their numbers -> how often, and how it was said first.
    """

    made: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    _first: dict[str, str] = field(default_factory=dict)

    def take(self, record: Record) -> None:
        """Take in a record."""
        if record["kind"] == "tick":
            for entry in record["agents"]:
                self._count("agents", entry)
            told = record["coordinator"]
            if told is not None and (told["calls"] or "fault" in told):
                self._count("coordinator", told, bool(record["directives"]))
            for _, fault in faults_in(record):
                self._fault(fault)
        elif record["kind"] == "episode_end" and record["reason"].startswith("world fault"):
            self._fault(record["reason"])

    def _count(self, who: str, entry: CallEntry, is_answered: bool = False) -> None:
        self.made[who] += 1
        self.answered[who] += is_answered or "fault" not in entry

    def _fault(self, text: str) -> None:
        kind = re.sub(r"\d+", "#", text)[:100]
        self.faults[kind] += 1
        self._first.setdefault(kind, text)

    @property
    def failure(self) -> str | None:
        """Whose calls all failed, None where some of each succeeded."""
        whose = [who for who, made in self.made.items() if made and not self.answered[who]]
        return f"no call of the {' and none of the '.join(whose)} succeeded" if whose else None

    @property
    def worst(self) -> str:
        """The most frequent fault and how often it was, "" where there was none."""
        ((kind, times),) = self.faults.most_common(1) or [("", 0)]
        return f"{times} x {self._first[kind][:200]}" if times else ""
