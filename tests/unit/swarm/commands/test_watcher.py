"""The view of a run: the watcher that `run` starts beside it, and `watch`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from fakes.command_line import FakeProcess, Outcome, make_run, raising, runner_that

from swarm.commands import watcher

pytestmark = pytest.mark.usefixtures("workplace")


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

    monkeypatch.setattr("swarm.view.live.PATIENCE_S", 0.0)
    write_toy_run(Path("runs/a b"), finish=False)
    assert swarm("watch", "runs/a b") == 1
    shown = capsys.readouterr()
    assert shown.err == "error: nobody runs runs/a b now; continue it with: swarm resume 'runs/a b'\n"
    assert shown.out.splitlines()[-1].startswith("nobody runs it, `swarm resume` continues it: ")


def recorded(folder: Path, last: int) -> None:
    from swarm.actors.ray_train import METRICS, appending
    from swarm.files import FolderLock

    folder.mkdir(parents=True)
    FolderLock(folder, "train").close()
    append = appending(folder / METRICS)
    append({"began": "training tiny", "steps": 100, "others": 0, "command": "swarm train 'my file.yaml'"})
    append({"step": last, "loss": 1.0, "seconds": 1.0})


def test_watch_of_a_training_that_nobody_continues_says_how_to_go_on(swarm, monkeypatch, capsys):
    monkeypatch.setattr("swarm.view.live.PATIENCE_S", 0.0)
    recorded(Path("runs/train-tiny"), last=50)
    for place in ("runs/train-tiny", "runs/train-tiny/metrics.jsonl"):
        assert swarm("watch", place) == 1
        shown = capsys.readouterr()
        assert shown.out.splitlines()[-1] == "training tiny: nobody trains it, step 50 of 100"
        again = "continue it with: swarm train 'my file.yaml'"
        assert shown.err == f"error: nobody trains runs/train-tiny now; {again}\n"
    assert swarm("watch", "runs/train-tiny", "--no-follow") == 0


def test_watch_of_a_finished_training_draws_its_curves(swarm, capsys):
    recorded(Path("runs/train-tiny"), last=100)
    assert swarm("watch", "runs/train-tiny", "--plot", "curves.png") == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        "training tiny: trained, step 100 of 100",
        "plot          curves.png",
    ]
    assert Path("curves.png").read_bytes().startswith(b"\x89PNG")


def test_watch_refuses_what_holds_neither_run_nor_training(swarm, capsys):
    recorded(Path("runs/train-tiny"), last=100)
    make_run()
    assert swarm("watch", "runs") == 2
    assert "runs is no run folder" in capsys.readouterr().err
    assert swarm("watch", "runs/demo-s0", "--plot", "x.png") == 2
    assert "`swarm report runs/demo-s0` draws a run" in capsys.readouterr().err
