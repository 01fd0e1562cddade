"""Steering from another terminal: what reaches a live run, once, at its price, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes.endpoint_model import HELLO
from fakes.records import rewrite
from fakes.scripted_person import RANDOM

from swarm.agents.host import Host
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.files import FolderLock, is_locked
from swarm.messages import ActReply, ActRequest, DirectReply, DirectRequest
from swarm.record.journal import read_records
from swarm.run.runner import resume_run, start_run
from swarm.run.steering import STEERING_NAME, post
from swarm.view.dashboard_state import DashboardState
from swarm.view.replay import replay_run, transcript
from worlds.split_numbers.world import SplitNumbersWorld

Experiment = Callable[..., tuple[ExperimentConfig, Path]]


def ticks(run_dir: Path) -> list[dict[str, Any]]:
    return [record for record in read_records(run_dir / "journal.jsonl") if record["kind"] == "tick"]


def steered(run_dir: Path) -> dict[tuple[int, int], list[dict[str, Any]]]:
    return {(tick["episode"], tick["tick"]): tick["steered"] for tick in ticks(run_dir) if "steered" in tick}


@pytest.fixture
def run(experiment: Experiment, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that runs an experiment for which something was left before it began."""

    def make(*posts: tuple[Any, ...], name: str = "run", **sections: Any) -> Path:
        sections = {"agents": RANDOM, "budget": {"ticks": 4, "tokens": None}, **sections}
        config, path = experiment(**sections)
        (tmp_path / name).mkdir()
        for said in posts:
            post(tmp_path / name, *said)
        return start_run(config, path, tmp_path / name).run_dir

    return make


@pytest.fixture
def directing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[DirectRequest], dict[str, str]]], None]:
    """Return a function that lets every coordinator's call be answered by a function."""

    def install(says: Callable[[DirectRequest], dict[str, str]]) -> None:
        class Scripted(Host):
            def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
                return [DirectReply(request.key, says(request), 5, 7, 1) for request in requests]

            def act(self, requests: Sequence[ActRequest]) -> list[ActReply]:
                return [ActReply(request.key, request.prompt.splitlines()[-1], 5, 5) for request in requests]

        monkeypatch.setattr("swarm.agents.local_pool.Host", Scripted)
        monkeypatch.setattr("swarm.backends.openai.OpenAIModel.check", lambda self, probe: ("pattern", HELLO))

    return install


READER = {"kind": "model", "engine": {"kind": "openai", "model": "m", "url": "http://localhost:1/v1"}}
"""A coordinator that reads hints."""


# In the run


def test_a_run_to_which_nobody_speaks_has_nothing_of_it_on_record(run: Callable[..., Path]) -> None:
    for tick in ticks(run()):
        assert not {"steered", "review"} & set(tick)


def test_a_directive_reaches_the_agents_it_names_for_one_tick_and_replaces_the_coordinators(
    run: Callable[..., Path], directing: Callable[..., None]
) -> None:
    asked: list[DirectRequest] = []

    def says(request: DirectRequest) -> dict[str, str]:
        asked.append(request)
        return {"a0": "11-[1]", "a2": "11-[2]"}

    directing(says)
    run_dir = run(("24-[6]", ["a1", "a0"]), episodes=1, agents={}, coordinator={"kind": "rules", "every_ticks": 2})
    (entry,) = steered(run_dir)[0, 0]
    assert (entry["line"], entry["agents"], entry["text"]) == (1, ["a0", "a1"], "24-[6]")
    assert entry["instead_of"] == [("a0", "11-[1]")]
    played = ticks(run_dir)
    assert dict(played[0]["directives"]) == {"a0": "24-[6]", "a1": "24-[6]", "a2": "11-[2]"}
    heard = [[e["action"] for e in tick["agents"]][:3] for tick in played]  # agents say what they read last
    assert heard[0] == ["24-[6]", "24-[6]", "11-[2]"]
    assert heard[1][0::2] == ["11-[1]", "11-[2]"]  # the coordinator's word, which was given two ticks ago
    assert heard[1][1] not in ("24-[6]", "")
    assert asked[1].directives == ((0, "a0", "24-[6]"), (0, "a1", "24-[6]"), (0, "a2", "11-[2]"))
    assert replay_run(run_dir, check=True).finished


def test_a_person_can_direct_where_there_is_no_coordinator(run: Callable[..., Path]) -> None:
    run_dir = run(("[7]", ["a3"]), coordinator={"kind": "none"}, topology={"kind": "none"}, concurrency=2)
    for tick in ticks(run_dir):
        assert tick["coordinator"] is None
        assert tick["directives"] == ([("a3", "[7]")] if tick["tick"] == 0 else [])
    assert set(steered(run_dir)) == {(0, 0), (1, 0)}


def test_what_is_said_costs_its_tokens_once_for_each_agent_and_for_a_hint_once(run: Callable[..., Path]) -> None:
    alone = run(name="alone", coordinator={"kind": "none"}, episodes=1)
    said = run(("look", ["a0", "a1"]), ("hear me",), name="said", coordinator={"kind": "none"}, episodes=1)
    assert [entry["tokens"] for entry in steered(said)[0, 0]] == [8, 7]
    before, after = ticks(alone)[0], ticks(said)[0]
    read = [e["prompt_tokens"] - b["prompt_tokens"] for b, e in zip(before["agents"], after["agents"], strict=True)]
    assert read == [5, 5, 0, 0]  # with the end of the line
    generated = [sum(e["generated_tokens"] for e in tick["agents"]) for tick in (before, after)]
    assert after["spent"]["tokens"] - before["spent"]["tokens"] == 15 + 10 + generated[1] - generated[0]
    assert after["spent"]["calls"] == before["spent"]["calls"]
    assert replay_run(said, check=True).finished


def test_what_is_said_counts_before_agents_spend_the_rest(run: Callable[..., Path]) -> None:
    sections: dict[str, Any] = {"coordinator": {"kind": "none"}, "episodes": 1, "budget": {"tokens": 90, "ticks": None}}
    alone, said = run(name="alone", **sections), run(("x" * 80,), name="said", **sections)
    assert len(ticks(alone)[0]["agents"]) > len(ticks(said)[0]["agents"]) > 0


def test_a_hint_is_read_by_the_coordinator_for_the_rest_of_the_episode_and_no_longer(
    run: Callable[..., Path], directing: Callable[..., None]
) -> None:
    heard: dict[tuple[int, int], tuple[str, ...]] = {}

    def says(request: DirectRequest) -> dict[str, str]:
        heard[request.key[0], request.key[1]] = request.hints
        return {}

    directing(says)
    run_dir = run(("the left is empty",), ("for one", (), 0), ("[7]", ["a3"]), episodes=2, coordinator=READER)
    assert heard == {(e, t): ("the left is empty", "for one") if e == 0 else () for e in (0, 1) for t in range(4)}
    assert [entry.get("hint") for entry in steered(run_dir)[0, 0]] == ["the left is empty", "for one", None]
    assert replay_run(run_dir, check=True).finished


@pytest.mark.parametrize("concurrency", [1, 2])
def test_resume_from_every_line_hears_what_is_not_on_record_and_nothing_twice(
    run: Callable[..., Path], concurrency: int
) -> None:
    run_dir = run(("[7]", ["a3"]), ("[8]", ["a0"], 1), ("[9]", ["a1"]), episodes=3, concurrency=concurrency)
    expected = {(0, 0): [1, 3], (1, 0): [1, 2, 3]} if concurrency == 2 else {(0, 0): [1, 3]}
    assert {place: [entry["line"] for entry in said] for place, said in steered(run_dir).items()} == expected
    journal = run_dir / "journal.jsonl"
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(lines)):
        journal.write_bytes(b"".join(lines[:cut]) + lines[cut][: len(lines[cut]) // 2])
        resume_run(run_dir)
        assert journal.read_bytes() == whole, f"cut after line {cut}"


def test_what_is_left_for_a_killed_run_is_heard_after_its_last_record(run: Callable[..., Path]) -> None:
    run_dir = run(("[7]", ["a3"]), episodes=2, concurrency=2)
    journal = run_dir / "journal.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if b'"kind":"tick"' in line]
    until = lines.index(kept[4]) + 1  # tick 2 of episode 0, but not of episode 1
    journal.write_bytes(b"".join(lines[:until]))
    post(run_dir, "[5]", ["a0"])
    resume_run(run_dir)
    said = {place: [entry["line"] for entry in entries] for place, entries in steered(run_dir).items()}
    assert said == {(0, 0): [1], (1, 0): [1], (1, 2): [2], (0, 3): [2]}
    assert replay_run(run_dir, check=True).finished


def test_what_is_said_while_a_tick_is_played_is_heard_in_the_next(
    experiment: Experiment, tmp_path: Path, directing: Callable[..., None]
) -> None:
    def says(request: DirectRequest) -> dict[str, str]:
        if request.key[1] == 1:
            post(tmp_path / "run", "[6]", ["a2"])
        return {}

    directing(says)
    config, path = experiment(episodes=1, budget={"ticks": 4, "tokens": None})
    run_dir = start_run(config, path, tmp_path / "run").run_dir
    assert list(steered(run_dir)) == [(0, 2)]


def test_a_world_that_raises_does_not_make_words_free(
    run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: SplitNumbersWorld, actions: Any) -> Any:
        raise RuntimeError("boom")

    monkeypatch.setattr(SplitNumbersWorld, "step", step)
    closings = []
    for name, posts in (("alone", []), ("said", [("hear me",)])):
        run_dir = run(*posts, name=name, episodes=2, coordinator={"kind": "none"})
        closings.append([r for r in read_records(run_dir / "journal.jsonl") if r["kind"] == "episode_end"])
    for alone, said in zip(*closings, strict=True):  # not on record in the first, so heard in the second, too
        assert said["unrecorded"]["tokens"] == alone["unrecorded"]["tokens"] + len("hear me")
        assert said["tokens"] == said["unrecorded"]["tokens"]
    monkeypatch.undo()
    assert replay_run(run_dir, check=True).finished


# Those who read the journal


def test_replay_tells_what_was_said_and_the_dashboard_shows_it(run: Callable[..., Path]) -> None:
    run_dir = run(("[7]", ["a3"]), ("hear me",))
    story = list(transcript(run_dir))
    assert "  a person says to a3: [7]" in story
    assert "  a person says to coordinator: hear me" in story
    state = DashboardState()
    for record in read_records(run_dir / "journal.jsonl"):
        state.fold(record)
    assert "a person says to a3: [7] (episode 0, tick 0)" in state.events
    assert "a person says to coordinator: hear me (episode 0, tick 0)" in state.events
    assert state.end is not None
    assert state.tokens == state.end["tokens"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda said: said[0].update(tokens=0), "spent differs"),
        (lambda said: said[0].update(text="[8]"), "agent a3: directive of a person differs"),
        (lambda said: said.append({**said[0], "tokens": 0}), "line 1 of steer.jsonl was taken twice"),
        (lambda said: said[0].pop("line"), "steered.0.line: Field required"),
    ],
)
def test_replay_names_what_was_never_said(
    run: Callable[..., Path], change: Callable[[list[dict[str, Any]]], Any], message: str
) -> None:
    run_dir = run(("[7]", ["a3"]))

    def forge(record: dict[str, Any]) -> None:
        if "steered" in record:
            change(record["steered"])

    rewrite(run_dir, forge)
    with pytest.raises(SwarmError, match=message):
        replay_run(run_dir, check=True)


# The command


@pytest.fixture
def steer(swarm: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Return a function that gives the command: its exit code and what it printed."""
    return lambda *arguments: (swarm("steer", *arguments), "".join(capsys.readouterr()))


@pytest.fixture
def live(run: Callable[..., Path]) -> Iterator[Callable[..., Path]]:
    """Return a function that makes a folder in which a run seems to be going on, in its episodes 1 and 2."""
    locks: list[FolderLock] = []

    def make(**sections: Any) -> Path:
        run_dir = run(episodes=3, concurrency=2, **sections)
        rewrite(run_dir, lambda it: [] if it["kind"] == "episode_end" and it["episode"] == 1 else None)
        journal = run_dir / "journal.jsonl"
        lines = journal.read_bytes().splitlines(keepends=True)
        last = next(i for i, line in enumerate(lines) if b'"kind":"episode",' in line and b'"episode":2,' in line)
        journal.write_bytes(b"".join(lines[: last + 1]))
        locks.append(FolderLock(run_dir))
        return run_dir

    yield make
    for lock in locks:
        lock.close()


def left(run_dir: Path) -> list[dict[str, Any]]:
    path = run_dir / STEERING_NAME
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_the_command_leaves_directives_and_hints(
    live: Callable[..., Path], steer: Callable[..., tuple[int, str]], directing: Callable[..., None]
) -> None:
    directing(lambda request: {})
    run_dir = live(coordinator=READER)
    assert is_locked(run_dir)
    assert steer(run_dir, " look  left ") == (0, "the coordinator, from now on: look left\n")
    assert steer(run_dir, "24-[6]", "--agent", "a1", "--agent", "a0", "--episode", 2)[0] == 0
    assert left(run_dir) == [{"text": "look left"}, {"text": "24-[6]", "agents": ["a1", "a0"], "episode": 2}]


def test_its_help_ends_with_an_example(steer: Callable[..., tuple[int, str]]) -> None:
    code, shown = steer("--help")
    assert (code, "Example: swarm steer runs/puzzle-s1" in shown) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("",), "the text is empty"),
        (("x" * 501, "--agent", "a0"), "501 characters, 500 are the most"),
        (("a\x1bb", "--agent", "a0"), "cannot be printed"),
        (("go", "--agent", "a4"), "no agent 'a4' in this run; there are a0 to a3"),
        (("go", "--agent", "a0", "--episode", "0"), "episode 0 is not running; running: 1 2"),
        (("go",), "has coordinator 'rules', which cannot read a hint; direct agents yourself, such as --agent a0"),
    ],
)
def test_what_cannot_reach_anybody_is_refused_in_a_line(
    live: Callable[..., Path], steer: Callable[..., tuple[int, str]], arguments: tuple[str, ...], message: str
) -> None:
    run_dir = live()
    code, said = steer(run_dir, *arguments)
    assert (code, said.count("\n")) == (2, 1)
    assert said.startswith("error: ")
    assert message in said
    assert left(run_dir) == []


def test_a_hint_where_the_coordinator_is_cut_off_is_refused(
    live: Callable[..., Path], steer: Callable[..., tuple[int, str]], directing: Callable[..., None]
) -> None:
    directing(lambda request: {})
    code, said = steer(live(coordinator=READER, topology={"kind": "none"}), "go")
    assert (code, "no coordinator that could read a hint" in said) == (2, True)


def test_a_worker_that_plays_agents_in_turn_cannot_be_directed(
    live: Callable[..., Path], steer: Callable[..., tuple[int, str]]
) -> None:
    code, said = steer(live(agents={**RANDOM, "turns": "one_at_a_time"}, budget={"ticks": 8}), "go", "--agent", "a0")
    assert (code, "one worker plays all agents" in said) == (2, True)


def test_a_run_that_nobody_runs_or_that_is_over_or_is_none_is_refused(
    run: Callable[..., Path], steer: Callable[..., tuple[int, str]], tmp_path: Path
) -> None:
    run_dir = run()
    over = steer(run_dir, "[7]", "--agent", "a0")
    assert over == (2, f"error: the run in {run_dir} is over; see it with: swarm replay {run_dir}\n")
    journal = run_dir / "journal.jsonl"
    journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
    assert not is_locked(run_dir)
    left_alone = steer(run_dir, "[7]", "--agent", "a0")
    assert left_alone == (2, f"error: nobody runs {run_dir} now; continue it with: swarm resume {run_dir}\n")
    code, said = steer(tmp_path / "nowhere", "[7]", "--agent", "a0")
    assert (code, said.startswith("error: no run folder ")) == (2, True)
    assert left(run_dir) == []
