"""What a view knows about a training: a fold over the records that it appends. Reads no file and no clock."""

from collections import deque
from dataclasses import dataclass, field

from swarm.text import one_line
from swarm.train.monitor import Alarm, Record, add_record, alarms, longest_silence_s


@dataclass(slots=True)
class TrainingState:
    """What one training has recorded.

    Attributes:
        title, steps, others, command: as it began: its name, its length (0 where that is unknown), how many trainings
            come after it, and what goes on with it.
        records: lines of metrics by step. notices: the last of them. sample: the last text that it reported.
        news: records that have not been told yet as plain lines.
        changed_s: unix time of the last record. silent_s: seconds since then, 0 where none is expected.
        finished, of: how many trainings of the folder are trained, and how many there will be.
        abandoned: it, or one that was to follow, is not trained, and nobody trains.
    """

    title: str
    steps: int = 0
    others: int = 0
    command: str = ""
    records: list[Record] = field(default_factory=list)
    notices: deque[str] = field(default_factory=lambda: deque(maxlen=20))
    sample: str = ""
    news: list[Record] = field(default_factory=list)
    changed_s: float = 0.0
    silent_s: float = 0.0
    finished: int = 0
    of: int = 1
    abandoned: bool = False

    @property
    def is_trained(self) -> bool:
        """Whether the last step was taken."""
        if not self.records:
            return False
        last = self.records[-1]
        return bool(last["step"] >= self.steps if self.steps else last.get("eta_s") == 0)

    @property
    def again(self) -> str:
        """The command that goes on with it."""
        return self.command or "the command that began it"

    @property
    def is_silent(self) -> bool:
        """Whether the next record is overdue."""
        limit_s = longest_silence_s(self.records)
        return limit_s is not None and self.silent_s > limit_s

    def fold(self, record: Record) -> None:
        """Take in one record; what is unknown is no error."""
        if "began" in record:
            self.title, self.steps = one_line(record["began"]), int(record.get("steps", 0))
            self.others, self.command = int(record.get("others", 0)), str(record.get("command", ""))
        elif "notice" in record:
            self.notices.append(one_line(record["notice"]))
        elif isinstance(record.get("step"), int):
            add_record(self.records, record)
            self.sample = one_line(record.get("sample", self.sample))
        self.news.append(record)

    def alarms(self) -> list[Alarm]:
        """Return what is wrong with it now."""
        return alarms(self.records, self.silent_s)


def status(state: TrainingState) -> tuple[str, str]:
    """Return what a training is doing, as text and its style."""
    if state.abandoned:
        return "nobody trains it", "bold yellow"
    if state.is_trained:
        return "trained", "bold green"
    return ("silent", "bold yellow") if state.is_silent else ("training", "bold cyan")
