"""What commands hand over to the packages that do the work, and what they print of it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from fakes.command_line import EXPERIMENT, Outcome, make_run
from fakes.records import end, header

from swarm.commands.run_folder import existing_run
from swarm.doctor import Finding
from swarm.errors import SwarmError
from swarm.record.journal import JournalWriter

pytestmark = pytest.mark.usefixtures("workplace")


def test_run_hands_over_config_file_and_folder_and_prints_a_summary(swarm, provide, capsys):
    calls = []

    def start_run(config, source, out, announce):
        calls.append((config.agents.count, config.seed, source, out))
        announce(Path("runs/demo-s0"))
        return Outcome()

    provide("swarm.run.runner", start_run=start_run)
    assert swarm("run", "x.yaml", "--set", "agents.count=5", "--seed", "9", "--out", "there") == 0
    assert calls == [(5, 9, Path("x.yaml"), Path("there"))]
    shown = capsys.readouterr().out
    for part in (
        "3 of 4",
        "12,345",
        "c0ffee",
        "swarm replay runs/demo-s0 --check",
        "swarm report runs/demo-s0",
    ):
        assert part in shown


def test_the_summary_keeps_what_was_solved_in_the_exam_apart(swarm, provide, capsys):
    outcome = Outcome(episodes=14, solved=9, exam_episodes=4, exam_solved=3)
    provide("swarm.run.runner", start_run=lambda *_: outcome)
    assert swarm("run", "x.yaml") == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["solved", "6 of 10"] in lines
    assert ["in", "the exam   3 of 4"] in lines


def test_baseline_runs_the_solo_config(swarm, provide):
    seen = []
    provide("swarm.compare.arms", solo_config=lambda config: ("solo", config.seed))
    provide("swarm.run.runner", start_run=lambda config, *rest: seen.append(config) or Outcome())
    assert swarm("baseline", "x.yaml", "--seed", "4") == 0
    assert seen == [("solo", 4)]


def test_compare_passes_arms_and_seeds_of_the_command_line(swarm, provide, capsys):
    seen = []

    def compare_arms(config, source, out, arms, seeds, echo):
        seen.append((out, arms, seeds))
        echo("working")

    provide("swarm.compare.runs", compare_arms=compare_arms)
    assert swarm("compare", "x.yaml") == 0
    assert swarm("compare", "x.yaml", "--arm", "rules", "--arm", "solo", "--seed", "1") == 0
    folder = Path("runs/demo-compare")
    assert seen == [(folder, [], []), (folder, ["rules", "solo"], [1])]
    assert "runs/demo-compare/report.html" in capsys.readouterr().out


def test_a_sweep_is_named_after_its_experiment(swarm, provide, capsys):
    seen = []
    provide("swarm.compare.sweep", run_sweep=lambda *given: seen.append(given[2]))
    Path("x.yaml").write_text(EXPERIMENT + "compare: {sweep: {agents.count: [2, 4]}}\n")
    assert swarm("compare", "x.yaml") == 0
    assert seen == [Path("runs/demo-sweep")]
    assert "runs/demo-sweep/sweep.png" in capsys.readouterr().out


def test_resume_continues_an_existing_run_only(swarm, provide, capsys):
    seen = []
    provide("swarm.run.runner", resume_run=lambda run_dir, announce, base: seen.append(run_dir) or Outcome())
    make_run()
    assert swarm("resume", "runs/demo-s0") == 0
    assert seen == [Path("runs/demo-s0")]
    assert swarm("resume", "runs/demo-s1") == 2
    assert capsys.readouterr().err == "error: no run folder runs/demo-s1; newest runs: runs/demo-s0\n"


def test_newest_runs_are_suggested_first():
    for age, name in enumerate(["new-s0", "mid-s0", "old-s0"]):
        os.utime(make_run(name) / "journal.jsonl", (1000 - age, 1000 - age))
    with pytest.raises(SwarmError, match="newest runs: runs/new-s0, runs/mid-s0, runs/old-s0"):
        existing_run(Path("runs"))


def test_journal_file_stands_for_its_folder():
    assert existing_run(make_run() / "journal.jsonl") == Path("runs/demo-s0")


def test_report_and_train_print_what_they_wrote(swarm, provide, capsys):
    make_run()
    provide("swarm.view.report", write_report=lambda run_dir, out: run_dir / "report" / "report.html")
    assert swarm("report", "runs/demo-s0") == 0
    assert "runs/demo-s0/report/report.html" in capsys.readouterr().out
    seen = []
    provide(
        "swarm.train.training", train_policy=lambda *given, **how: seen.append((given, how)) or Path("policies/agent")
    )
    assert swarm("train", "x.yaml", "--set", "a=1", "--workers", "2") == 0
    (given, how) = seen[0]
    assert given == (Path("x.yaml"), ["a=1"])
    assert (how["out"], how["workers"]) == (None, 2)
    assert "policies/agent" in capsys.readouterr().out


def test_replay_check_of_a_broken_journal_is_exit_1(swarm, capsys):
    (make_run() / "journal.jsonl").write_text('{"seq":7}\n')
    assert swarm("replay", "runs/demo-s0", "--check") == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_replay_check_prints_the_hash_last(swarm, capsys):
    folder = Path("runs/demo-s0")
    folder.mkdir(parents=True)
    config = {
        "seed": 0,
        "world": {"id": "numbers-v0", "options": {}},
        "agents": {"count": 1, "engine": {"kind": "echo"}},
    }
    with JournalWriter(folder / "journal.jsonl") as journal:
        journal.append(header(**config))
        last = journal.append({**end(), "episodes": 0, "solved": 0, "tokens": 0})
    assert swarm("replay", str(folder), "--check") == 0
    assert capsys.readouterr().out.splitlines()[-1] == last
    assert swarm("replay", str(folder)) == 0
    assert "finished: 0 of 0 solved" in capsys.readouterr().out


def test_worlds_lists_shows_and_checks(swarm, capsys):
    assert swarm("worlds") == 0
    assert "split-numbers-v0" in capsys.readouterr().out
    assert swarm("worlds", "split-numbers-v0") == 0
    shown = capsys.readouterr().out
    for part in ("Hidden-profile", "target_low:", "Tools", "a0 reads: half"):
        assert part in shown
    assert swarm("worlds", "--check", "graph-v0") == 0
    assert swarm("worlds", "--check") == 2
    assert swarm("worlds", "grahp-v0") == 2
    assert "did you mean graph-v0" in capsys.readouterr().err


def test_broken_world_fails_its_check(swarm, monkeypatch, capsys):
    monkeypatch.setattr("worlds.check.check_world", lambda world_id, **_: ["reset: is not deterministic"])
    assert swarm("worlds", "graph-v0", "--check") == 1
    assert "not deterministic" in capsys.readouterr().out
    assert swarm("worlds", "graph-v0", "--contained") == 2
    assert "add --check" in capsys.readouterr().err


def test_doctor_exits_with_1_only_if_something_is_broken(swarm, monkeypatch, capsys):
    missing = Finding("extra vllm", "without vllm", "pip install -e '.[vllm]'", optional=True)
    monkeypatch.setattr("swarm.doctor.examine", lambda start_ray: iter([missing]))
    assert swarm("doctor") == 0
    broken = Finding("disk", "0.0 GB free", "free some space")
    monkeypatch.setattr("swarm.doctor.examine", lambda start_ray: iter([missing, broken]))
    assert swarm("doctor") == 1
    assert "free some space" in capsys.readouterr().out


def test_doctor_on_a_terminal_keeps_the_brackets_of_commands(swarm, monkeypatch, capsys):
    missing = Finding("extra vllm", "without vllm", "pip install -e '.[vllm]'", optional=True)
    monkeypatch.setattr("swarm.doctor.examine", lambda start_ray: iter([missing]))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert swarm("doctor") == 0
    assert "pip install -e '.[vllm]'" in capsys.readouterr().out
