"""Stand-ins for what commands start: runs that end as told, and processes that end by themselves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swarm.record.tally import Tally

EXPERIMENT = "name: demo\nworld: {id: numbers-v0}\nagents: {engine: {kind: echo}, count: 2}\n"


@dataclass
class Outcome:
    run_dir: Path = Path("runs/demo-s0")
    reason: str = "finished"
    episodes: int = 4
    solved: int = 3
    tokens: int = 12_345
    faults: int = 0
    failure: str | None = None
    journal_hash: str = "c0ffee"
    played: bool = True
    tally: Tally = field(default_factory=Tally)
    exam_episodes: int = 0
    exam_solved: int = 0


class FakeProcess:
    """Stands for `subprocess.Popen`; ends by itself unless it is stubborn."""

    started: list[FakeProcess] = []  # noqa: RUF012
    code = 0

    def __init__(self, command: list[str], **options: Any) -> None:
        self.command, self.options, self.signals = command, options, []
        FakeProcess.started.append(self)

    def wait(self, timeout: float | None = None) -> int:
        return self.code

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


def make_run(name: str = "demo-s0") -> Path:
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text("{}\n")
    return folder


def runner_that(end: Callable[[], Any], announces: bool = True) -> Callable[..., Any]:
    def start_run(config: Any, source: Path, out: Path | None, announce: Callable[[Path], None]) -> Any:
        if announces:
            announce(Path("runs/demo-s0"))
        return end()

    return start_run


def raising(error: BaseException) -> Callable[[], Any]:
    def end() -> Any:
        raise error

    return end
