"""The command line: exit codes, one line per error, the watcher, and a fast start."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from fakes.records import end, header

from swarm import cli
from swarm.commands import watcher
from swarm.commands.run_folder import existing_run
from swarm.doctor import Finding
from swarm.errors import Outage, SwarmError
from swarm.record.journal import JournalWriter
from swarm.record.tally import Tally

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
    failure: str | None = None
    journal_hash: str = "c0ffee"
    played: bool = True
    tally: Tally = field(default_factory=Tally)


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


def test_failed_run_is_exit_1_and_says_why(swarm, provide, capsys):
    tally = Tally()
    for fault in ("HTTP 401: no key 17", "HTTP 401: no key 18", "timeout"):
        tally.take({"kind": "tick", "agents": [{"agent": "a0", "fault": fault}], "coordinator": None})
    outcome = Outcome(reason="faults", faults=3, failure="too many faults ended the run", tally=tally)
    provide("swarm.run.runner", start_run=runner_that(lambda: outcome))
    assert swarm("run", "x.yaml") == 1
    shown = capsys.readouterr()
    assert "3; most often: 2 x HTTP 401: no key 17" in shown.out
    assert shown.err == "error: too many faults ended the run; most often: 2 x HTTP 401: no key 17\n"


def test_an_outage_is_exit_1_and_one_line_that_ends_with_the_resume_command(swarm, provide, capsys):
    """Failed at e48e5b3: there were no outages."""
    provide("swarm.run.runner", start_run=runner_that(raising(Outage("nobody answers at x for 600 s"))))
    assert swarm("run", "x.yaml") == 1
    shown = capsys.readouterr().err
    assert shown == "error: nobody answers at x for 600 s; continue with: swarm resume runs/demo-s0\n"


def test_an_outage_stops_a_comparison_which_the_same_command_continues(swarm, provide, capsys):
    """Failed at e48e5b3: exit code 2, and not a word of how to go on."""
    provide("swarm.compare.runs", compare_arms=lambda *_: raising(Outage("nobody answers at x for 600 s"))())
    assert swarm("compare", "x.yaml") == 1
    shown = capsys.readouterr().err
    assert shown == "error: nobody answers at x for 600 s; the same command continues where it was\n"


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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_end_a_run_as_an_interrupt_does(swarm, provide, capsys, number, code):
    """Failed at a7f87d3: the process died where it stood, without a word."""
    provide("swarm.run.runner", start_run=runner_that(lambda: signal.raise_signal(number)))
    assert swarm("run", "x.yaml") == code
    assert capsys.readouterr().err == "stopped; continue with: swarm resume runs/demo-s0\n"


@pytest.mark.parametrize(
    ("command", "module", "function", "how"),
    [
        (["train", "x.yaml"], "swarm.train.training", "train_policy", "continues where it was"),
        (["compare", "x.yaml"], "swarm.compare.runs", "compare_arms", "continues where it was"),
        (["mqar", "mqar.yaml"], "swarm.lab.mqar.experiment", "run_mqar", "continues where it was"),
        (["data", "exact-match", "x.yaml"], "swarm.lab.facts.exact_match", "write_exact_match", "does it anew"),
        (["models", "fetch", "smollm2-135m"], "ulm.hf.pretrained", "fetch", "fetches it anew"),
        (["export", "p", "--out", "o"], "ulm.hf.export", "export_checkpoint", "does it anew"),
    ],
)
def test_every_long_command_says_after_ctrl_c_what_it_does_next_time(
    swarm, provide, monkeypatch, capsys, command, module, function, how
):
    """Failed at a7f87d3 for mqar, data, models and export."""
    monkeypatch.setattr("swarm.commands.mqar.named_file", lambda file, *_: (file, SimpleNamespace(name="m")))
    monkeypatch.setattr("swarm.commands.data.named_file", lambda file, *_: (file, SimpleNamespace(name="d")))
    provide(module, **{function: lambda *_, **__: raising(KeyboardInterrupt())(), "summary": None, "KNOWN": {}})
    assert swarm(*command) == 130
    assert capsys.readouterr().err == f"stopped; the same command {how}\n"


def test_bug_is_one_line_with_the_way_to_a_traceback(swarm, provide, capsys, monkeypatch):
    provide("swarm.run.runner", start_run=runner_that(raising(KeyError("a\nb")), announces=False))
    assert swarm("run", "x.yaml") == 70
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "this is a bug; run with SWARM_TRACEBACK=1" in shown
    monkeypatch.setenv("SWARM_TRACEBACK", "1")
    assert swarm("run", "x.yaml") == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (IsADirectoryError(errno.EISDIR, "Is a directory", "x"), "error: Is a directory (x); "),
        (OSError(errno.EMFILE, "Too many open files"), "error: Too many open files; "),
        (OSError("cannot\nsay"), "error: cannot; "),
        (ConnectionResetError(), "error: ConnectionResetError; "),
    ],
)
def test_what_the_machine_refuses_is_no_bug(swarm, provide, capsys, error, shown):
    """Failed at a7f87d3: all but five errors of the machine were "a bug", with exit code 70."""
    provide("swarm.run.runner", start_run=runner_that(raising(error), announces=False))
    assert swarm("run", "x.yaml") == 1
    assert capsys.readouterr().err.startswith(shown)


def test_full_memory_is_no_bug(swarm, provide, capsys):
    """Failed at a7f87d3: exit 70."""
    provide("swarm.run.runner", start_run=runner_that(raising(MemoryError()), announces=False))
    assert swarm("run", "x.yaml") == 1
    assert capsys.readouterr().err.startswith("error: this process ran out of memory: close other programs")


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
    assert process.command[1:] == ["-P", "-m", "swarm.cli", "watch", "runs/demo-s0", "--plain"]
    assert process.options["env"][watcher.PARENT_VARIABLE] == str(os.getpid())
    assert process.signals == []


@pytest.mark.parametrize(("option", "plain"), [("--live", False), ("--no-live", True)])
def test_terminal_gets_the_dashboard_unless_refused(swarm, provide, monkeypatch, option, plain):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    provide("swarm.run.runner", start_run=runner_that(Outcome))
    swarm("run", "x.yaml", option)
    assert ("--plain" in FakeProcess.started[0].command) is plain


def test_a_view_that_dies_says_so_and_the_run_goes_on(swarm, provide, monkeypatch, capsys):
    """Failed at a7f87d3: nothing was shown, and nothing was said."""
    monkeypatch.setattr(FakeProcess, "code", 1)

    def start_run(config, source, out, announce):
        announce(Path("runs/demo-s0"))
        shown = ""
        while not (shown := shown + capsys.readouterr().err).endswith("\n"):
            pass
        assert shown == "the live view has died (exit code 1); the run goes on: swarm watch runs/demo-s0\n"
        return Outcome()

    provide("swarm.run.runner", start_run=start_run)
    assert swarm("run", "x.yaml") == 0


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


def test_watch_shows_the_run_and_ends_quietly_on_interrupt(swarm, provide, capsys):
    make_run()
    seen = []
    provide("swarm.view.dashboard", watch=lambda *run, **how: seen.append((*run, *how.values())))
    assert swarm("watch", "runs/demo-s0", "--plain") == 0
    assert seen == [(Path("runs/demo-s0"), True, True)]
    provide("swarm.view.dashboard", watch=lambda *_, **__: raising(KeyboardInterrupt())())
    assert swarm("watch", "runs/demo-s0") == 130
    assert capsys.readouterr().err == ""


def test_watch_of_a_run_that_nobody_runs_says_how_to_go_on(swarm, monkeypatch, capsys):
    """Failed at a7f87d3: it showed a killed run as running, for ever."""
    from fakes.toy_run import write_toy_run

    monkeypatch.setattr("swarm.view.dashboard.PATIENCE_S", 0.0)
    write_toy_run(Path("runs/a b"), finish=False)
    assert swarm("watch", "runs/a b") == 1
    shown = capsys.readouterr()
    assert shown.err == "error: nobody runs runs/a b now; continue it with: swarm resume 'runs/a b'\n"
    assert shown.out.splitlines()[-1].startswith("nobody runs it, `swarm resume` continues it: ")


@pytest.mark.parametrize("command", [["models", "list"], ["doctor"]])
def test_a_user_without_a_home_is_no_bug(swarm, monkeypatch, capsys, tmp_path, command):
    """Failed at a7f87d3: "RuntimeError: Could not determine home directory.; this is a bug", exit code 70."""
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HF_HOME", "ULM_SWARM_CACHE"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setattr(Path, "home", raising(RuntimeError("Could not determine home directory.")))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert swarm(*command) in (0, 1)
    shown = capsys.readouterr()
    assert shown.err == ""
    if command == ["doctor"]:
        (line,) = (line for line in shown.out.splitlines() if line.split()[1] == "caches")
        assert line.startswith("missing")
        assert "set HOME" in line


@pytest.mark.parametrize("options", [[], ["--approve"]])
def test_a_person_without_a_standard_input_is_one_line(swarm, monkeypatch, capsys, options):
    """Failed at a7f87d3: a closed standard input is None in Python, and that was "a bug"."""
    monkeypatch.setattr(sys, "stdin", None)
    kind = ["--set", "coordinator.kind=human"] if not options else []
    assert swarm("run", "x.yaml", *options, *kind) == 2
    assert capsys.readouterr().err.startswith("error: a person takes part at a terminal, and standard input is none")


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
    config = {"seed": 0, "world": {"id": "numbers-v0"}, "agents": {"count": 1, "engine": {"kind": "echo"}}}
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
