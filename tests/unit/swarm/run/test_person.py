"""A person as the coordinator: what is asked, what can be typed, what it costs, and where there can be none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.scripted_person import RANDOM, Script, Steady, Words, approve, direct, records, request
from hypothesis import given
from hypothesis import strategies as st

from swarm.commands.watcher import Watcher
from swarm.compare.arms import equal_terms
from swarm.config.experiment import CoordinatorConfig, ExperimentConfig
from swarm.coordinator.digest import digest_lines
from swarm.coordinator.human import HumanCoordinator, Terminal, at_terminal, operator_for
from swarm.coordinator.kinds import playbook
from swarm.coordinator.protocol import Setup
from swarm.errors import SwarmError
from swarm.messages import DirectReply
from swarm.run.runner import resume_run, start_run
from swarm.view.replay import replay_run
from worlds.protocol import Report

Experiment = Callable[..., tuple[ExperimentConfig, Path]]


# The coordinator is a person


def test_a_person_directs_the_agents_that_are_named_and_pays_for_reading_and_writing() -> None:
    reply, script = direct(["a2: look left", "a0:  make   3 ", ""])
    assert list(reply.directives.items()) == [("a0", "make 3"), ("a2", "look left")]
    assert (reply.prompt_tokens, reply.generated_tokens, reply.calls) == (5, 4, 0)  # half 1 2 made 3
    assert script.shown.index("Goal: target 12") == script.shown.index("episode 4 tick 2") + 1
    assert "a0 says: half 1 2 made 3" in script.shown


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([""], {}),
        (["all: rest", ""], {"a0": "rest", "a1": "rest", "a2": "rest"}),
        (["all: rest", "a1:", ""], {"a0": "rest", "a2": "rest"}),
        (["a0: go", "a0: wait", ""], {"a0": "wait"}),
        (["a0: go", "none"], {}),
        (["a1: key: tolu", ""], {"a1": "key: tolu"}),
    ],
)
def test_lines_add_up_until_an_empty_one(lines: list[str], expected: dict[str, str]) -> None:
    assert direct(lines)[0].directives == expected


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("hello", "not understood: hello"),
        ("a9: go", "no agent 'a9' can be directed; there are: a0 a1 a2"),
        (": go", "no agent '' can be directed"),
        ("hint: think", "no agent 'hint'"),
        ("a0: \x1b[2J", "cannot be printed"),
        ("a0: \udc80", "cannot be printed"),
        ("a0: " + "x" * 501, "501 characters, 500 are the most"),
        ("?", "takes its directive away"),
        ("more", "that was all"),
    ],
)
def test_whatever_cannot_be_meant_is_answered_and_asked_again(line: str, answer: str) -> None:
    reply, script = direct(["a1: first", line, "a0: then", ""])
    assert reply.directives == {"a0": "then", "a1": "first"}
    assert answer in script.text
    assert all(shown.isprintable() for shown in script.shown)
    reply, script, _ = approve([line, "none"])
    assert reply.directives == {}
    assert all(shown.isprintable() for shown in script.shown)


@given(st.lists(st.text().filter(lambda line: line.strip() not in ("quit", "none", ""))))
def test_no_line_is_a_crash(lines: list[str]) -> None:
    reply, _ = direct([*lines, ""])
    assert set(reply.directives) <= {"a0", "a1", "a2"}
    approve([*lines, ""])


def test_bytes_that_are_no_text_are_asked_again() -> None:
    script = Script(["a0: go", ""])
    terminal, broken = script.terminal(), [True]

    def ask(prompt: str) -> str:
        if broken.pop() if broken else False:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        return terminal.ask(prompt)

    setup = Setup(CoordinatorConfig(kind="human"), Words().count_tokens, terminal=Terminal(ask, terminal.say))
    (reply,) = HumanCoordinator(setup).direct([request()])
    assert reply.directives == {"a0": "go"}
    assert "that was no text" in script.text


@pytest.mark.parametrize("lines", [["a0: go", "quit"], ["a0: go"]], ids=["quit", "end of input"])
def test_quit_and_the_end_of_the_input_stop_the_run_as_ctrl_c_does(lines: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        direct(lines)
    with pytest.raises(KeyboardInterrupt):
        approve(lines)


def test_a_person_is_not_asked_what_the_episode_cannot_pay_for() -> None:
    reply, script = direct([], max_tokens=4)  # the report has five words
    assert reply == DirectReply(request().key)
    assert script.shown == []
    reply, script = direct(["a0: one two three", "", "a0: one", ""], max_tokens=6)
    assert (reply.directives, reply.tokens) == ({"a0": "one"}, 6)
    assert "that takes 8 tokens and the episode has 6 left" in script.text


def test_a_long_digest_is_cut_and_shown_on_request() -> None:
    reports = tuple(Report(tick, f"a{tick % 3}", f"tick {tick}") for tick in range(100))
    reply, script = direct([""], reports=reports, unread=0)
    assert len(script.shown) < 50
    assert "Before, a0 said: tick 0" not in script.shown
    _, script = direct(["more", ""], reports=reports, unread=0)
    assert "Before, a0 said: tick 0" in script.shown
    assert (reply.prompt_tokens, reply.generated_tokens) == (0, 0)


def test_what_agents_report_cannot_rewrite_the_terminal() -> None:
    _, script = direct([""], reports=(Report(0, "a0", "\x1b[2J gone"),))
    assert "a0 says: ·[2J gone" in script.shown


def test_hints_follow_the_goal_the_last_one_first_for_everyone_who_can_read() -> None:
    told = request(hints=("try seven", "no, eight"))
    assert digest_lines(told, [])[:4] == [
        "Goal: target 12",
        "A person says: no, eight",
        "A person says: try seven",
        "Agents: a0 a1 a2",
    ]
    assert "A person says: try seven" in direct([""], hints=told.hints)[1].shown


@pytest.mark.parametrize("world", ["split-numbers-v0", "numbers-v0"])  # the latter has no playbook
@pytest.mark.parametrize("topology", ["star", "none"])
def test_a_person_coordinates_any_world_and_replay_accepts_it(
    experiment: Experiment, tmp_path: Path, world: str, topology: str
) -> None:
    person = Steady(lambda episode, tick: [f"a{tick % 4}: go {episode}.{tick}", ""])
    config, path = experiment(
        agents=RANDOM,
        world={"id": world},
        coordinator={"kind": "human", "every_ticks": 2},
        topology={"kind": topology},
        budget={"ticks": 4, "tokens": None},
    )
    run_dir = start_run(config, path, tmp_path / "run", terminal=person.terminal()).run_dir
    for tick in records(run_dir):
        if tick["tick"] % 2:
            assert tick["coordinator"] is None
            continue
        text = f"go {tick['episode']}.{tick['tick']}"
        assert tick["directives"] == [(f"a{tick['tick'] % 4}", text)]
        assert (tick["coordinator"]["generated_tokens"], tick["coordinator"]["calls"]) == (len(text), 0)
        assert (tick["coordinator"]["prompt_tokens"] > 0) is (topology == "star" and world == "split-numbers-v0")
        assert "review" not in tick
    heard = any(line.startswith("a0 says: ") for line in person.shown)
    assert heard is (topology == "star" and world == "split-numbers-v0")
    assert "Told a0 at tick 0: go 0.0; then nothing was reported" in person.shown or heard
    assert replay_run(run_dir, check=True).finished


def test_agents_read_what_the_person_writes(experiment: Experiment, tmp_path: Path) -> None:
    def lengths(name: str, text: str) -> list[int]:
        person = Steady(lambda episode, tick: [f"a1: {text}", ""])
        config, path = experiment(agents=RANDOM, coordinator={"kind": "human"}, episodes=1, budget={"ticks": 1})
        run_dir = start_run(config, path, tmp_path / name, terminal=person.terminal()).run_dir
        return [entry["prompt_tokens"] for entry in records(run_dir)[0]["agents"]]

    short, long = lengths("short", "[5]"), lengths("long", "[12345]")
    assert [b - a for a, b in zip(short, long, strict=True)] == [0, 4, 0, 0]


def test_resume_from_every_line_asks_the_person_again_and_gives_the_same_journal(
    experiment: Experiment, tmp_path: Path
) -> None:
    def answer(episode: int, tick: int) -> list[str]:
        return [f"a{(episode + tick) % 4}: [{tick + 1}]", ""]

    config, path = experiment(
        agents=RANDOM, coordinator={"kind": "human"}, episodes=3, concurrency=2, budget={"tokens": 700}
    )
    run_dir = start_run(config, path, tmp_path / "run", terminal=Steady(answer).terminal()).run_dir
    journal = run_dir / "journal.jsonl"
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    assert len(lines) > 8
    for cut in range(len(lines)):
        journal.write_bytes(b"".join(lines[:cut]) + lines[cut][: len(lines[cut]) // 2])
        resume_run(run_dir, terminal=Steady(answer).terminal())
        assert journal.read_bytes() == whole, f"cut after line {cut}"


def test_a_person_who_quits_loses_nothing(experiment: Experiment, tmp_path: Path) -> None:
    def answer(episode: int, tick: int) -> list[str]:
        return [f"all: [{tick}]", ""]

    config, path = experiment(agents=RANDOM, coordinator={"kind": "human"}, concurrency=2)
    whole = start_run(config, path, tmp_path / "whole", terminal=Steady(answer).terminal()).journal_hash
    leaving = Steady(
        lambda episode, tick: ["all: [99]", "quit"] if (episode, tick) == (1, 1) else answer(episode, tick)
    )
    with pytest.raises(KeyboardInterrupt):
        start_run(config, path, tmp_path / "cut", terminal=leaving.terminal())
    assert [(tick["episode"], tick["tick"]) for tick in records(tmp_path / "cut")] == [(0, 0), (1, 0)]
    back = Steady(answer)
    assert resume_run(tmp_path / "cut", terminal=back.terminal()).journal_hash == whole
    assert back.asked[:2] == [(0, 1), (1, 1)]


# Where there can be no person


def test_a_human_coordinator_without_a_terminal_leaves_no_run_folder(experiment: Experiment, tmp_path: Path) -> None:
    config, path = experiment(agents=RANDOM, coordinator={"kind": "human"})
    with pytest.raises(SwarmError, match="a person at a terminal, and here is none"):
        start_run(config, path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("section", ["coordinator", "topology"])
def test_there_is_nothing_to_approve_where_nobody_is_directed(
    experiment: Experiment, tmp_path: Path, section: str
) -> None:
    config, path = experiment(agents=RANDOM, **{section: {"kind": "none"}})
    with pytest.raises(SwarmError, match=rf"{section}\.kind: none nobody is directed"):
        start_run(config, path, tmp_path / "run", terminal=Script().terminal())
    assert not (tmp_path / "run").exists()


def test_nobody_is_asked_who_is_not_there(experiment: Experiment) -> None:
    assert operator_for(experiment()[0], None) is None


def test_no_watcher_writes_between_the_questions(capsys: pytest.CaptureFixture[str]) -> None:
    watcher = Watcher(live=True, attended=True)
    watcher.start(Path("runs/demo-s0"))
    assert (watcher.run_dir, watcher._process) == (Path("runs/demo-s0"), None)
    watcher.end(0.0)
    assert "swarm watch runs/demo-s0" in capsys.readouterr().out


def test_a_standard_input_that_is_no_terminal_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    with pytest.raises(SwarmError, match="standard input is none"):
        at_terminal()


def test_a_person_cannot_be_compared() -> None:
    data = {
        "world": {"id": "split-numbers-v0"},
        "agents": RANDOM,
        "coordinator": {"kind": "human"},
        "budget": {"tokens": 500},
    }
    config = ExperimentConfig.model_validate(data)
    for arm in ("solo", "swarm"):
        with pytest.raises(SwarmError, match="a comparison cannot wait for a person"):
            equal_terms(config, arm, 1, 1)


def test_who_reads_hints() -> None:
    def reads(kind: str, **fields: Any) -> bool:
        return CoordinatorConfig(kind=kind, **fields).traits.reads_hints

    assert reads("human")
    assert reads("model", engine={"kind": "transformers", "model": "m"})
    assert reads("model", engine={"kind": "transformers", "model": "m"}, shuffled=True)
    assert reads("model", engine={"kind": "ulm", "model": "m", "prompt": "chat"})
    assert not reads("model", engine={"kind": "ulm", "model": "m"})
    assert not reads("model", engine={"kind": "transformers", "model": "m", "prompt": "plain"})
    assert not reads("rules")
    assert not reads("none")


@pytest.mark.parametrize("world_id", ["graph-v0", "split-numbers-v0", "vault-v0"])
@given(texts=st.lists(st.text(st.characters(exclude_categories=("C",)), min_size=1), max_size=4))
def test_playbooks_cope_with_directives_in_a_persons_own_words(world_id: str, texts: list[str]) -> None:
    told = tuple((0, f"a{number % 3}", text) for number, text in enumerate(texts))
    book = playbook(world_id)
    book.rules(request(directives=told))
    book.briefings(request(directives=told))
