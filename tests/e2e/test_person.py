"""A person at a real terminal: the command on a pseudo-terminal, with another terminal beside it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swarm.record.journal import read_records

SMOKE = str(Path(__file__).parents[2] / "experiments" / "smoke.yaml")
SWARM = [sys.executable, "-m", "swarm.cli"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "dumb"}
SMALL = ["--set", "episodes=2", "--set", "budget.tokens=400", "--set", "agents.engine.kind=random"]
ASKED = "approve? "
TIMEOUT_S = 120.0


class Session:
    """A command on a terminal of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.screen, terminal = pty.openpty()
        self.process = subprocess.Popen(
            [*SWARM, *arguments],
            cwd=folder,
            env=ENVIRONMENT,
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
        )
        os.close(terminal)
        self.unread = ""

    def read_until(self, text: str | None) -> str:
        """Return what is shown up to `text`, or up to the end."""
        deadline = time.monotonic() + TIMEOUT_S
        while text is None or text not in self.unread:
            assert time.monotonic() < deadline, f"no {text!r} in {self.unread!r}"
            if not select.select([self.screen], [], [], 1.0)[0]:
                continue
            try:
                found = os.read(self.screen, 65536)
            except OSError:  # how Linux says that nobody writes here any more
                found = b""
            if not found:
                assert text is None, f"no {text!r} in {self.unread!r}"
                break
            self.unread += found.decode().replace("\r\n", "\n")
        shown, _, self.unread = self.unread.partition(text) if text else (self.unread, "", "")
        return shown

    def type(self, line: str) -> None:
        os.write(self.screen, line.encode() + b"\n")

    def answer(self, line: str) -> str:
        """Type a line at the prompt and return what is shown up to the next prompt."""
        self.type(line)
        return self.read_until(ASKED)

    def end(self) -> tuple[int, str]:
        shown = self.read_until(None)
        return self.process.wait(TIMEOUT_S), shown

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.screen)


@pytest.fixture
def open_session(tmp_path: Path) -> Iterator[Callable[..., Session]]:
    opened: list[Session] = []

    def start(*arguments: str) -> Session:
        opened.append(Session(tmp_path, *arguments))
        return opened[-1]

    yield start
    for session in opened:
        session.close()


def swarm(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SWARM, *arguments], cwd=cwd, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


@pytest.mark.slow
def test_a_person_approves_edits_is_steered_from_elsewhere_leaves_and_comes_back(
    open_session: Callable[..., Session], tmp_path: Path
) -> None:
    run = open_session("run", SMOKE, *SMALL, "--approve", "--out", "run")
    first = run.read_until(ASKED)
    assert "episode 0 tick 0" in first
    assert "Goal: target 100" in first
    assert "\x1b[?1049h" not in first  # no dashboard
    assert "no agent 'a9' can be directed" in run.answer("a9: [6]")
    assert "a0 <- [6]" in run.answer("a0: [6]")
    assert "episode 1 tick 0" in run.answer("")

    from_elsewhere = swarm("steer", "run", "5+[1]", "--agent", "a1", cwd=tmp_path)
    assert (from_elsewhere.returncode, from_elsewhere.stderr) == (0, "")
    assert swarm("steer", "run", "think", cwd=tmp_path).returncode == 2  # rules read no hints
    assert "episode 0 tick 1" in run.answer("none")
    run.type("quit")
    code, shown = run.end()
    assert code == 130
    assert "stopped; continue with: swarm resume run --approve\n" in shown
    before = (tmp_path / "run" / "journal.jsonl").read_bytes()

    back = open_session("resume", "run", "--approve")
    assert "episode 0 tick 1" in back.read_until(ASKED)
    assert "episode 1 tick 1" in back.answer("")
    back.process.kill()
    back.end()
    refused = swarm("steer", "run", "5+[1]", "--agent", "a1", cwd=tmp_path)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    assert "nobody runs run now; continue it with: swarm resume run" in refused.stderr
    done = swarm("resume", "run", "--no-live", cwd=tmp_path)  # nobody has to approve what is left
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "journal.jsonl").read_bytes().startswith(before)

    ticks = {(r["episode"], r["tick"]): r for r in read_records(tmp_path / "run" / "journal.jsonl") if "tick" in r}
    assert dict(ticks[0, 0]["directives"])["a0"] == "[6]"
    assert ticks[0, 0]["review"]["answer"] == "replaced"
    assert ticks[1, 0]["directives"] == []
    for episode in (0, 1):  # said during tick 0, on record neither when the person left nor when the run was killed
        assert [entry["text"] for entry in ticks[episode, 1]["steered"]] == ["5+[1]"]
        assert dict(ticks[episode, 1]["directives"])["a1"] == "5+[1]"
        assert "review" not in ticks[episode, 1]
    assert [place for place, tick in sorted(ticks.items()) if "steered" in tick] == [(0, 1), (1, 1)]
    checked = swarm("replay", "run", "--check", cwd=tmp_path)
    assert checked.returncode == 0, checked.stderr
    story = swarm("replay", "run", cwd=tmp_path).stdout
    assert "a person replaced what the coordinator said" in story
    assert "a person says to a1: 5+[1]" in story


def test_a_person_who_coordinates_ends_the_input_with_ctrl_d(
    open_session: Callable[..., Session], tmp_path: Path
) -> None:
    human = open_session("run", SMOKE, *SMALL, "--set", "coordinator.kind=human", "--out", "run")
    human.read_until("\n> ")
    human.type("a0: [6]")
    human.read_until("> ")
    human.type("")
    assert "episode 1 tick 0" in human.read_until("\n> ")
    os.write(human.screen, b"\x04")
    code, shown = human.end()
    assert code == 130
    assert "stopped; continue with: swarm resume run\n" in shown
    assert not [r for r in read_records(tmp_path / "run" / "journal.jsonl") if r["kind"] == "tick"]


@pytest.mark.parametrize("how", [["--approve"], ["--set", "coordinator.kind=human"]])
def test_without_a_terminal_there_is_one_line_and_no_run_folder(tmp_path: Path, how: list[str]) -> None:
    done = swarm("run", SMOKE, *how, "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: a person takes part at a terminal, and standard input is none")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_comparison_refuses_to_wait_for_a_person(tmp_path: Path) -> None:
    done = swarm("compare", SMOKE, "--set", "coordinator.kind=human", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: a comparison cannot wait for a person")
    assert not (tmp_path / "runs").exists()
