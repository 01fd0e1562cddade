"""Bad input on the real command line: one clear line on stderr, a stable exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakes.records import header

from swarm.commands.watcher import PARENT_VARIABLE
from swarm.config.experiment import ExperimentConfig
from swarm.config.section import logical_settings
from swarm.record.journal import JournalWriter

GOOD = "name: demo\nworld: {id: numbers-v0}\nagents: {engine: {kind: echo}, count: 2}\nruntime: {pool: local}\n"


def swarm(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swarm.cli", *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize(
    ("text", "arguments", "expected"),
    [
        (GOOD + "sede: 3\n", (), "error: x.yaml:5: unknown key 'sede'; did you mean 'seed'?"),
        (GOOD + "seed: x\n", (), 'error: x.yaml:5: seed is "x"; allowed: a whole number >= 0'),
        (GOOD.replace("numbers-v0", "nubmers-v0"), (), "error: x.yaml:2: world 'nubmers-v0' not found"),
        (GOOD, ("--set", "agents.count=0"), "error: --set agents.count=0: agents.count is 0; allowed"),
        (GOOD, ("--set", "agents.engine.kind=ulm", "--set", "agents.engine.model=nowhere"), "error: no checkpoint at "),
        (GOOD, ("--out", "x.yaml/run"), "error: cannot create run folder x.yaml/run"),
        ("", (), "error: x.yaml: the file is empty"),
    ],
)
def test_bad_experiment_is_one_line_and_exit_2(tmp_path, text, arguments, expected):
    (tmp_path / "x.yaml").write_text(text)
    done = swarm(tmp_path, "run", "x.yaml", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(expected)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            "engine.kind=openai engine.model=m engine.url=http://127.0.0.1:9/v1",
            "error: no endpoint at http://127.0.0.1:9/v1: ",
        ),
        (
            "engine.kind=openai engine.model=m",
            "error: --set coordinator.engine.kind=openai: missing key 'coordinator.engine.url'",
        ),
        (
            "engine.kind=openai engine.model=m engine.url=http://127.0.0.1:9/v1 engine.key_env=NO_SUCH_KEY",
            "error: the environment variable NO_SUCH_KEY is not set",
        ),
        (
            "engine.kind=transformers engine.model=./nowhere",
            "error: no model './nowhere': there is no such folder or GGUF file at ",
        ),
        ("engine.kind=vllm engine.model=smolm2-135m", "error: no model 'smolm2-135m': "),
        ("engine.kind=vlm engine.model=smollm2-135m", "error: --set coordinator.engine.kind=vlm: "),
    ],
)
def test_an_engine_that_cannot_be_asked_is_one_line_and_no_run(tmp_path, settings, expected):
    (tmp_path / "x.yaml").write_text(GOOD)
    arguments = [word for setting in settings.split() for word in ("--set", f"coordinator.{setting}")]
    arguments += ["--set", "coordinator.kind=model"]
    done = swarm(tmp_path, "run", "x.yaml", *arguments, HF_HUB_OFFLINE="1")
    assert done.returncode == 2
    assert done.stderr.startswith(expected)
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_missing_file_and_missing_run_are_one_line(tmp_path):
    for arguments in (("run", "x.yaml"), ("resume", "runs/x"), ("watch", "runs/x"), ("replay", "runs/x")):
        done = swarm(tmp_path, *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1


def test_completion_offers_commands(tmp_path):
    done = swarm(tmp_path, _SWARM_COMPLETE="complete_bash", COMP_WORDS="swarm re", COMP_CWORD="1")
    assert sorted(done.stdout.split()) == ["replay", "report", "resume"]


def test_closed_pipe_is_quiet(tmp_path):
    command = f"{sys.executable} -m swarm.cli worlds split-numbers-v0 | true"
    for _ in range(3):
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.stderr == ""


def test_watcher_ends_with_the_run_that_started_it(tmp_path):
    run_dir = tmp_path / "runs" / "demo-s0"
    run_dir.mkdir(parents=True)
    with JournalWriter(run_dir / "journal.jsonl") as journal:
        config = ExperimentConfig.model_validate(
            {"world": {"id": "numbers-v0"}, "agents": {"engine": {"kind": "echo"}}}
        )
        journal.append(header(**logical_settings(config)))
    killed_run = (
        "import os, subprocess, sys, time\n"
        f"os.environ['{PARENT_VARIABLE}'] = str(os.getpid())\n"
        "child = subprocess.Popen([sys.executable, '-m', 'swarm.cli', 'watch', sys.argv[1]])\n"
        "time.sleep(3); assert child.poll() is None; os._exit(9)"
    )
    command = [sys.executable, "-c", killed_run, str(run_dir)]
    # The watcher holds the other end of this pipe, so reading to its end waits for the watcher.
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode == 9


def test_ctrl_c_closes_the_journal_and_names_the_resume_command(tmp_path):
    (tmp_path / "x.yaml").write_text(GOOD + "episodes: 100000\nbudget: {ticks: 1000}\n")
    command = [sys.executable, "-m", "swarm.cli", "run", "x.yaml"]
    run = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A test run that was started in the background of a script ignores Ctrl-C, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    journal = tmp_path / "runs" / "demo-s0" / "journal.jsonl"
    while run.poll() is None and not (journal.is_file() and journal.stat().st_size > 20_000):
        time.sleep(0.05)
    os.killpg(run.pid, signal.SIGINT)  # a terminal sends Ctrl-C to the run and its watcher alike
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert said == "stopped; continue with: swarm resume runs/demo-s0\n"
    assert swarm(tmp_path, "replay", "runs/demo-s0", "--check").returncode == 0
