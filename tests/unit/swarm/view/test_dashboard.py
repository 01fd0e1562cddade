"""The dashboard shows what the journal says, fits the terminal, and costs little."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fakes.records import end
from fakes.toy_run import write_toy_run
from rich.console import Console

from swarm.agents.host import Host
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.files import FolderLock
from swarm.messages import ActReply, ActRequest
from swarm.record.journal import read_records
from swarm.record.records import check_record
from swarm.run.runner import start_run
from swarm.view import live
from swarm.view.dashboard import RunPoller, watch
from swarm.view.dashboard_state import DashboardState
from swarm.view.dashboard_view import render
from swarm.view.panels import duration


def polled(run_dir: Path) -> DashboardState:
    poller = RunPoller(run_dir)
    poller.poll()
    return poller.state


def drawn(state: DashboardState, width: int, height: int, now_s: float | None = None) -> str:
    console = Console(width=width, height=height, record=True, force_terminal=True, file=io.StringIO())
    console.print(render(state, width, height, now_s=now_s))
    return console.export_text()


def assert_fits(text: str, width: int, height: int) -> None:
    lines = text.splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    opened, closed = text.count("╭"), text.count("╰")
    assert opened == closed > 0, "a panel was cut"
    assert text.count("╮") == text.count("╯") == opened


def test_the_final_picture_agrees_with_the_end_record(tmp_path: Path) -> None:
    write_toy_run(tmp_path, episodes=5)
    state, last = polled(tmp_path), list(read_records(tmp_path / "journal.jsonl"))[-1]
    assert state.end == last
    assert last["kind"] == "end"
    assert (state.num_ended, state.num_solved) == (last["episodes"], last["solved"])
    assert (state.tokens, state.num_faults) == (last["tokens"], last["faults"])
    assert state.num_host_deaths == 1


class Moody(Host):
    """Its agents post a value, talk nonsense, or fail; after nonsense they rest."""

    def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
        replies = []
        for request in requests:
            mood = random.Random(str(request.key)).randrange(16)
            tiles = request.prompt.split("half ")[1].split(" target")[0].split()
            value = ("{}+{}+{}", "{}*{}+{}", "{}+{}*{}", "{}*{}*{}")[request.key[1] % 4].format(*tiles)
            text, fault = ("nonsense", None) if mood < 6 else (value, None) if mood < 15 else ("", "timed out")
            replies.append(ActReply(request.key, text, 5, mood, fault))
        return replies


@pytest.fixture
def journal_lines(
    experiment: Callable[..., tuple[ExperimentConfig, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[bytes]:
    """The journal of a real run of three episodes, two at a time, in which agents rest, fail and report."""
    monkeypatch.setattr("swarm.agents.local_pool.Host", Moody)
    monkeypatch.setattr("swarm.run.episode.MAX_RETRIES", 1)
    config, path = experiment(episodes=3, concurrency=2, budget={"ticks": 8, "tokens": None})
    run_dir = start_run(config, path, tmp_path / "run").run_dir
    return (run_dir / "journal.jsonl").read_bytes().splitlines(keepends=True)


def picture(lines: Iterable[bytes], parts: Sequence[int], folder: Path) -> DashboardState:
    """Let a poller look at a growing file after so many lines each time."""
    folder.mkdir(exist_ok=True)
    journal = folder / "journal.jsonl"
    journal.write_bytes(b"")
    poller, whole = RunPoller(folder), list(lines)
    for start, stop in pairwise(parts):
        with journal.open("ab") as file:
            file.writelines(whole[start:stop])
        poller.poll()
    return poller.state


def test_one_journal_gives_one_picture_however_it_is_read(journal_lines: list[bytes], tmp_path: Path) -> None:
    rng = random.Random(5)
    for size in range(1, len(journal_lines) + 1):
        lines = journal_lines[:size]
        whole = picture(lines, [0, size], tmp_path / "whole")
        assert picture(lines, range(size + 1), tmp_path / "each") == whole
        assert picture(lines, sorted({0, size, *rng.choices(range(size), k=4)}), tmp_path / "some") == whole
    assert drawn(whole, 140, 40)


def test_an_agent_without_an_entry_in_the_last_tick_rests(journal_lines: list[bytes]) -> None:
    state, rested = DashboardState(), 0
    for line in journal_lines:
        record = check_record(json.loads(line))
        state.fold(record)
        if record["kind"] != "tick" or state.shown is None or record["episode"] != state.shown.index:
            continue
        acted = {entry["agent"] for entry in record["agents"]}
        assert {name for name, agent in state.shown.agents.items() if not agent.rests} == acted
        assert drawn(state, 140, 40).count("rests") == len(state.shown.agents) - len(acted)
        rested += len(state.shown.agents) - len(acted)
    assert rested > 5


def test_a_growing_file_is_followed_record_by_record_through_torn_tails(tmp_path: Path) -> None:
    write_toy_run(tmp_path / "whole", episodes=2)
    raw = (tmp_path / "whole" / "journal.jsonl").read_bytes()
    growing = tmp_path / "growing"
    growing.mkdir()
    poller = RunPoller(growing)
    assert poller.poll() is False
    assert "waiting" in drawn(poller.state, 80, 24)
    for number, size in enumerate(range(0, len(raw) + 97, 97)):
        (growing / "journal.jsonl").write_bytes(raw[:size])
        poller.poll()
        if number % 10 == 0:
            assert_fits(drawn(poller.state, 80, 24), 80, 24)
    whole = polled(tmp_path / "whole")
    assert (poller.state.tokens, poller.state.end) == (whole.tokens, whole.end)


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (120, 24), (140, 40), (60, 15), (200, 60)])
@pytest.mark.parametrize("agents", [1, 2, 8, 64])
@pytest.mark.parametrize("kind", ["none", "rules"])
def test_every_panel_is_whole_at_every_size(tmp_path: Path, size: tuple[int, int], agents: int, kind: str) -> None:
    write_toy_run(tmp_path, agents=agents, coordinator={"kind": kind}, finish=False)
    text = drawn(polled(tmp_path), *size)
    assert_fits(text, *size)
    assert ("coordinator ·" in text) == (kind == "rules" and size != (60, 15))
    rows = [line for line in text.splitlines() if line.startswith("│ a")]
    names = [line.split()[1] for line in rows if line.split()[1][1:].isdigit()]
    assert names == [f"a{i}" for i in range(len(names))], "agents stand in their order"
    if len(names) < agents:
        assert f"+{agents - len(names)} more" in text


def test_eighty_columns_show_goal_progress_agents_budget_and_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("swarm.run.episode.MAX_RETRIES", 1)
    write_toy_run(tmp_path, agents=8, episodes=6, finish=False, ticks=2)
    text = drawn(polled(tmp_path), 80, 24, now_s=1_700_000_012.0)
    for wanted in (
        "toy · toy-guess-v0 · seed 7",
        "find the number below 30",
        "5/6  solved 3 (60%)",
        "running  0:12",
        "agents · episode 5 · tick 2",
        "illegal: ?! is no n",
        "← try above 1",
        "rests",
        "try above 1 → a1 a3 a5 a7",
        "255/600",
        "no limit",
        "a0 … a7 ⇄ coordinator",
        "○○●○●●●●",
        "416 tokens/s, 18 steps/s",
        "19 faults, 1 host death",
    ):
        assert wanted in text


@pytest.mark.parametrize(
    ("topology", "wanted"),
    [
        ({"kind": "ring"}, "a0─a1─…─a3─a0"),
        ({"kind": "complete"}, "all read all"),
        ({"kind": "small_world"}, "a small world"),
        ({"kind": "none"}, "nobody reads reports"),
        ({"kind": "file", "path": "links.txt"}, "from links.txt"),
    ],
)
def test_the_topology_is_summed_up(tmp_path: Path, topology: dict[str, Any], wanted: str) -> None:
    (tmp_path / "links.txt").write_text("0 1\n")
    write_toy_run(tmp_path / "run", topology=topology)
    assert wanted in drawn(polled(tmp_path / "run"), 140, 40)


def test_a_run_says_how_it_stands(tmp_path: Path) -> None:
    write_toy_run(tmp_path, finish=False)
    state = polled(tmp_path)
    last_s = state.seen_at_s
    assert last_s is not None
    assert "running" in drawn(state, 80, 24, now_s=last_s + 1)
    assert "silent for 0:40" in drawn(state, 80, 24, now_s=last_s + 40)
    state.fold_telemetry({"kind": "interrupted", "at_s": last_s + 41})
    assert "interrupted" in drawn(state, 80, 24, now_s=last_s + 99)
    state.fold_telemetry({"kind": "resume", "at_s": last_s + 100})
    text = drawn(state, 140, 24, now_s=last_s + 101)
    assert "running" in text
    assert "1 resume" in text


def test_text_of_models_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    write_toy_run(tmp_path, finish=False)
    state = polled(tmp_path)
    assert state.shown is not None
    evil = "\x1b[2J[bold red]x\r\n\u202ey"
    agent = state.shown.agents["a0"]
    assert agent.entry is not None
    agent.entry["action"] = agent.entry["feedback"] = agent.directive = evil
    state.shown.goal, state.shown.directives = evil, {"a0": evil}
    console = Console(width=140, height=40, record=True, file=io.StringIO())
    console.print(render(state, 140, 40))
    text = console.export_text()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "·[2J[bold red]x ·y" in text


def test_a_rate_is_recent_while_running_and_overall_at_the_end(tmp_path: Path) -> None:
    state = DashboardState()
    assert state.rates() is None
    for number in range(40):
        state.fold_telemetry(
            {"kind": "commit", "at_s": 100.0 + number, "seq": number, "agent_steps": number, "seconds": 1}
        )
    recent, overall = state.rates(), sum(range(40)) / 40
    assert recent is not None
    assert recent[1] == pytest.approx(sum(range(30, 40)) / 10)
    state.end = end()
    assert state.rates() == (0.0, overall)


def test_durations_read_like_a_clock() -> None:
    assert [duration(s) for s in (0, 59.9, 61, 3661)] == ["0:00", "0:59", "1:01", "1:01:01"]


def plain_console() -> Console:
    return Console(file=io.StringIO(), width=80)


def said(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_without_a_terminal_each_episode_end_is_one_line(tmp_path: Path) -> None:
    write_toy_run(tmp_path, episodes=5)
    console = plain_console()
    watch(tmp_path, console=console)
    lines = said(console)
    assert [line.split()[0] for line in lines if line.startswith("[")] == [f"[{i}/5]" for i in range(1, 6)]
    assert any(line.startswith("! host 1 died") for line in lines)
    assert "! its calls were answered after 0.8 s" in lines
    assert lines[-1].startswith("finished: ")
    assert "\x1b" not in "".join(lines)


def test_following_without_a_terminal_ends_with_the_run(tmp_path: Path) -> None:
    write_toy_run(tmp_path / "whole", episodes=3)
    raw = (tmp_path / "whole" / "journal.jsonl").read_bytes()
    live = tmp_path / "live"
    live.mkdir()
    console = plain_console()
    watcher = threading.Thread(target=watch, args=(live,), kwargs={"console": console, "refresh_hz": 200.0})
    watcher.start()
    with (live / "journal.jsonl").open("ab", buffering=0) as file:
        for start in range(0, len(raw), 1500):
            file.write(raw[start : start + 1500])
            time.sleep(0.005)
    watcher.join(20)
    assert not watcher.is_alive()
    assert len([line for line in said(console) if line.startswith("[")]) == 3


def test_forced_colours_do_not_make_a_screen_of_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Failed at a7f87d3: full-screen codes, once per poll."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    write_toy_run(tmp_path, finish=False)
    monkeypatch.setattr(live, "PATIENCE_S", 0.0)
    watch(tmp_path)
    shown = capsys.readouterr().out
    assert shown.startswith("[1/2] ")
    assert "\x1b[?" not in shown


def test_a_run_that_is_resumed_soon_is_followed_further(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody holds the lock for a moment, or on another machine; failed at a7f87d3 without PATIENCE_S."""
    write_toy_run(tmp_path, finish=False)
    poller = RunPoller(tmp_path)
    assert not poller.is_over(patience_s=60.0)
    with FolderLock(tmp_path):
        assert not poller.is_over(patience_s=0.0)
    assert poller.is_over(patience_s=0.0)
    assert "nobody runs it" in drawn(poller.state, 140, 24)


def test_a_dead_run_is_not_shown_as_running(tmp_path: Path) -> None:
    """Failed at a7f87d3: "running: 1 of 1 solved"."""
    write_toy_run(tmp_path, finish=False)
    console = plain_console()
    assert watch(tmp_path, follow=False, console=console) is False
    assert said(console)[-1].startswith("nobody runs it, `swarm resume` continues it: ")
    with FolderLock(tmp_path):
        watch(tmp_path, follow=False, console=console)
    assert said(console)[-1].startswith("running: ")


def test_a_finished_run_on_a_terminal_is_drawn_once(tmp_path: Path) -> None:
    write_toy_run(tmp_path)
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=25, record=True)
    console.is_dumb_terminal  # noqa: B018 - TERM may be unset here; the picture must come all the same
    poller = RunPoller(tmp_path)
    live.show_screen(poller, partial(render, poller.state), console, 0.01, follow=True)
    assert "finished" in console.export_text()


def test_a_missing_or_broken_journal_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SwarmError, match="no journal with a whole record"):
        watch(tmp_path, follow=False, console=plain_console())
    write_toy_run(tmp_path / "whole")
    header, episode, tick = (tmp_path / "whole" / "journal.jsonl").read_bytes().splitlines(keepends=True)[:3]
    no_action = header + episode + tick.replace(b'"action"', b'"deed"')
    unknown = header + episode + tick.replace(b'"agent":"a1"', b'"agent":"a9"')
    lines = (b"nonsense\n", b"[1]\n", b'{"kind":"tick"}\n', header + tick, no_action, unknown)
    for broken in lines:
        (tmp_path / "journal.jsonl").write_bytes(broken)
        with pytest.raises(SwarmError, match=r"journal.jsonl, line [123]: "):
            watch(tmp_path, follow=False, console=plain_console())


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_watching_quietly(tmp_path: Path, number: int) -> None:
    write_toy_run(tmp_path, finish=False)
    process = subprocess.Popen(
        [sys.executable, "-m", "swarm.cli", "watch", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("[1/2]")
    process.send_signal(number)
    _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (128 + number, "")
