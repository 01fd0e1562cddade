"""The command line: exit codes, one line per error, the watcher, and a fast start."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from fakes.records import end, header

from swarm import cli
from swarm.commands import watcher
from swarm.commands.run_folder import existing_run
from swarm.doctor import Finding
from swarm.errors import SwarmError
from swarm.record.journal import JournalWriter

COMMANDS = [
    "run",
    "check",
    "baseline",
    "compare",
    "watch",
    "resume",
    "replay",
    "report",
    "train",
    "settings",
    "worlds",
    "doctor",
]
EXPERIMENT = "name: demo\nworld: {id: numbers-v0}\nagents: {engine: {kind: echo}, count: 2}\n"


@dataclass
class Outcome:
    run_dir: Path = Path("runs/demo-s0")
    reason: str = "finished"
    episodes: int = 4
    solved: int = 3
    tokens: int = 12_345
    faults: int = 0
    exit_code: int = 0
    journal_hash: str = "c0ffee"
    played: bool = True


class FakeProcess:
    """Stands for `subprocess.Popen`; ends by itself unless it is stubborn."""

    started: list[FakeProcess] = []  # noqa: RUF012

    def __init__(self, command: list[str], **options: Any) -> None:
        self.command, self.options, self.signals = command, options, []
        FakeProcess.started.append(self)

    def wait(self, timeout: float | None = None) -> int:
        return 0

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWARM_TRACEBACK", raising=False)
    monkeypatch.setattr(watcher, "subprocess", SimpleNamespace(Popen=FakeProcess, DEVNULL=None))
    FakeProcess.started = []
    (tmp_path / "x.yaml").write_text(EXPERIMENT)
    return tmp_path


@pytest.fixture
def swarm(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    def call(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["swarm", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0)

    return call


@pytest.fixture
def provide(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a stand-in for a module of the project where the commands import it."""

    def put(name: str, **members: Any) -> None:
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)

    return put


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


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_ends_with_an_example(swarm, capsys, command):
    assert swarm(command, "--help") == 0
    assert f"Example: swarm {command}" in capsys.readouterr().out


@pytest.mark.process
def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['swarm', '--help']\n"
        "from swarm.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'ray', 'transformers', 'matplotlib', 'pydantic', 'numpy', 'networkx', 'yaml'}\n"
        "print('heavy:', *sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == "heavy:"
    assert "compare" in done.stdout


def test_version_is_printed(swarm, capsys):
    assert swarm("--version") == 0
    assert capsys.readouterr().out.startswith("swarm ")


def test_unknown_option_and_command_exit_with_2(swarm, capsys):
    assert swarm("run", "x.yaml", "--sed", "3") == 2
    assert swarm("rnu") == 2
    assert "--seed" in capsys.readouterr().err


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


def test_failed_run_passes_its_exit_code_on(swarm, provide):
    provide("swarm.run.runner", start_run=runner_that(lambda: Outcome(reason="faults", exit_code=1)))
    assert swarm("run", "x.yaml") == 1


def test_user_mistake_is_one_line_and_exit_2(swarm, provide, capsys):
    provide("swarm.run.runner", start_run=runner_that(raising(SwarmError("no checkpoint p")), announces=False))
    assert swarm("run", "x.yaml") == 2
    assert capsys.readouterr().err == "error: no checkpoint p\n"


def test_each_mistake_of_a_file_is_its_own_error_line(swarm, capsys):
    Path("x.yaml").write_text(EXPERIMENT + "seed: -1\nepisodes: 0\n")
    assert swarm("run", "x.yaml") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[:2] for line in lines] == [["error", "x.yaml:4"], ["error", "x.yaml:5"]]


def test_failure_after_the_start_is_exit_1_and_names_the_resume_command(swarm, provide, capsys):
    provide("swarm.run.runner", start_run=runner_that(raising(SwarmError("no space left"))))
    assert swarm("run", "x.yaml") == 1
    shown = capsys.readouterr().err
    assert "swarm resume runs/demo-s0" in shown
    assert "error: no space left\n" in shown


def test_interrupt_is_exit_130_and_names_the_resume_command(swarm, provide, capsys):
    provide("swarm.run.runner", start_run=runner_that(raising(KeyboardInterrupt())))
    assert swarm("run", "x.yaml") == 130
    shown = capsys.readouterr()
    assert "swarm resume runs/demo-s0" in shown.err
    assert "Traceback" not in shown.err + shown.out


def test_bug_is_one_line_with_the_way_to_a_traceback(swarm, provide, capsys, monkeypatch):
    provide("swarm.run.runner", start_run=runner_that(raising(KeyError("a\nb")), announces=False))
    assert swarm("run", "x.yaml") == 70
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "this is a bug; run with SWARM_TRACEBACK=1" in shown
    monkeypatch.setenv("SWARM_TRACEBACK", "1")
    assert swarm("run", "x.yaml") == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_full_disk_is_no_bug(swarm, provide, capsys):
    full = OSError(errno.ENOSPC, "No space left on device", "runs/demo-s0/manifest.json")
    provide("swarm.run.runner", start_run=runner_that(raising(full), announces=False))
    assert swarm("run", "x.yaml") == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: No space left on device (runs/demo-s0/manifest.json)")
    assert "bug" not in shown


def test_watcher_is_told_the_run_folder_and_logs_plain_lines_without_a_terminal(swarm, provide):
    provide("swarm.run.runner", start_run=runner_that(Outcome))
    assert swarm("run", "x.yaml") == 0
    (process,) = FakeProcess.started
    assert process.command[1:] == ["-m", "swarm.cli", "watch", "runs/demo-s0", "--plain"]
    assert process.options["env"][watcher.PARENT_VARIABLE] == str(os.getpid())
    assert process.signals == []


@pytest.mark.parametrize(("option", "plain"), [("--live", False), ("--no-live", True)])
def test_terminal_gets_the_dashboard_unless_refused(swarm, provide, monkeypatch, option, plain):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    provide("swarm.run.runner", start_run=runner_that(Outcome))
    swarm("run", "x.yaml", option)
    assert ("--plain" in FakeProcess.started[0].command) is plain


@pytest.mark.process
def test_watcher_that_ignores_the_end_is_ended(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(watcher, "_QUIT_S", 0.05)
    stubborn = "import signal, time; [signal.signal(n, signal.SIG_IGN) for n in (2, 15)]; print(); time.sleep(60)"
    view = watcher.Watcher(live=False)
    view._process = process = subprocess.Popen([sys.executable, "-uc", stubborn], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    view.end(0.0)
    assert process.returncode == -signal.SIGKILL


def test_resume_continues_an_existing_run_only(swarm, provide, capsys):
    seen = []
    provide("swarm.run.runner", resume_run=lambda run_dir, announce: seen.append(run_dir) or Outcome())
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


def test_watch_shows_the_run_and_ends_quietly_on_interrupt(swarm, provide, capsys):
    make_run()
    seen = []
    provide("swarm.view.dashboard", watch=lambda *run, **how: seen.append((*run, *how.values())))
    assert swarm("watch", "runs/demo-s0", "--plain") == 0
    assert seen == [(Path("runs/demo-s0"), True, True)]
    provide("swarm.view.dashboard", watch=lambda *_, **__: raising(KeyboardInterrupt())())
    assert swarm("watch", "runs/demo-s0") == 130
    assert capsys.readouterr().err == ""


def test_report_and_train_print_what_they_wrote(swarm, provide, capsys):
    make_run()
    provide("swarm.view.report", write_report=lambda run_dir: run_dir / "report" / "report.html")
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
    config = {"seed": 0, "world": {"id": "numbers-v0", "options": {}}, "agents": {"count": 1}}
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
    monkeypatch.setattr("worlds.check.check_world", lambda world_id: ["reset: is not deterministic"])
    assert swarm("worlds", "graph-v0", "--check") == 1
    assert "not deterministic" in capsys.readouterr().out


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
