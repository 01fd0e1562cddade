"""The command line: a fast start, exit codes, and one line for whatever ends a command."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes.command_line import EXPERIMENT, Outcome, raising, runner_that

from swarm.errors import Outage, SwarmError
from swarm.record.tally import Tally

pytestmark = pytest.mark.usefixtures("workplace")

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
