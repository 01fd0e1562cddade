"""Where runs are written: never into what is not theirs, never two in one folder, and still there after a move."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest

from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.record.journal import JOURNAL_NAME, JournalError, JournalWriter, read_records
from swarm.run.runner import RunOutcome, check_files, resume_run, start_run
from swarm.view.replay import replay_run, transcript

Experiment = Callable[..., tuple[ExperimentConfig, Path]]
QUICK: dict[str, Any] = {"agents": {"engine": {"kind": "echo"}}, "episodes": 1, "budget": {"ticks": 1}}
PUZZLES = {
    **QUICK,
    "world": {"id": "numbers-v0", "options": {"file": "puzzles.csv", "target": 6}},
    "coordinator": {"kind": "none"},
}


@pytest.mark.parametrize("content", [b"", b"{}", b'{"message": "not a line yet"', b"\0\0\0a"])
def test_a_journal_of_something_else_is_not_cut_and_files_beside_it_stay(
    experiment: Experiment, tmp_path: Path, content: bytes
) -> None:
    """Failed at a7f87d3: a first line without its end counted as torn and was cut off; experiment.yaml was replaced."""
    config, path = experiment(**QUICK)
    (tmp_path / JOURNAL_NAME).write_bytes(content)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    with pytest.raises(SwarmError, match="choose another --out"):
        start_run(config, path, tmp_path)
    after = {file.name: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    assert {name: after[name] for name in before} == before


def test_a_start_that_was_killed_goes_on(experiment: Experiment, tmp_path: Path) -> None:
    config, path = experiment(**QUICK)
    whole = start_run(config, path, tmp_path / "run").journal_hash
    for left in (b"", b'{"ha', b"\0" * 512):
        (tmp_path / "run" / JOURNAL_NAME).write_bytes(left)
        assert start_run(config, path, tmp_path / "run").journal_hash == whole


def test_of_runs_that_start_together_in_one_folder_one_goes_on(experiment: Experiment, tmp_path: Path) -> None:
    """Failed at a7f87d3: those that came second were told of a folder of something else, its journal included."""
    config, path = experiment(**QUICK)

    def attempt(folder: Path, barrier: Barrier) -> RunOutcome | SwarmError:
        barrier.wait()
        try:
            return start_run(config, path, folder)
        except SwarmError as error:
            return error

    with ThreadPoolExecutor(3) as threads:
        for number in range(20):
            barrier = Barrier(3)
            tried = list(threads.map(lambda _, n=number, b=barrier: attempt(tmp_path / f"run{n}", b), range(3)))
            won = [one for one in tried if isinstance(one, RunOutcome)]
            assert any(one.played for one in won)
            # Whoever comes when the first has ended reports its run; whoever comes before is told of it.
            lost = [str(one) for one in tried if not isinstance(one, RunOutcome)]
            assert sum(one.played for one in won) == 1
            assert all("another process" in line or "already holds a run" in line for line in lost), lost
            assert len(list(read_records(tmp_path / f"run{number}" / JOURNAL_NAME))) == 5


def test_a_moved_project_says_what_is_missing_and_can_be_told(experiment: Experiment, tmp_path: Path) -> None:
    """Failed at a7f87d3: neither resume nor replay named the folder, and nothing told them another."""
    config, path = experiment(**PUZZLES)
    project = tmp_path / "project"
    project.mkdir()
    path.rename(project / "x.yaml")
    (project / "puzzles.csv").write_text("numbers\n1 2 3\n")
    run = tmp_path / "here" / "run"
    run.parent.mkdir()
    done = start_run(config, project / "x.yaml", run)
    (project).rename(tmp_path / "my project")
    lines = (run / JOURNAL_NAME).read_bytes().splitlines(keepends=True)
    (run / JOURNAL_NAME).write_bytes(b"".join(lines[:2]))
    told = rf"{project}, is gone: if it was moved, swarm resume {run} --base DIR"
    for attempt in (
        lambda: resume_run(run),
        lambda: replay_run(run, True),
        lambda: list(transcript(run, prompts=True)),
    ):
        with pytest.raises(SwarmError, match=told):
            attempt()
    assert resume_run(run, base=tmp_path / "my project").journal_hash == done.journal_hash
    assert replay_run(run, True).finished


def test_a_project_that_was_moved_whole_goes_on_as_it_is(experiment: Experiment, tmp_path: Path) -> None:
    """Failed at a7f87d3: the files were looked for in the old place."""
    config, path = experiment(**PUZZLES)
    project = tmp_path / "project"
    project.mkdir()
    path.rename(project / "x.yaml")
    (project / "puzzles.csv").write_text("numbers\n1 2 3\n")
    done = start_run(config, project / "x.yaml", project / "runs" / "r")
    moved = project.rename(tmp_path / "moved")
    assert replay_run(moved / "runs" / "r", True).finished
    assert not resume_run(moved / "runs" / "r").played
    assert resume_run(moved / "runs" / "r").journal_hash == done.journal_hash


def test_line_ends_that_were_changed_are_called_that(experiment: Experiment, tmp_path: Path) -> None:
    """Failed at a7f87d3: the record "was altered"."""
    config, path = experiment(**QUICK)
    run = start_run(config, path, tmp_path / "run").run_dir
    journal = run / JOURNAL_NAME
    journal.write_bytes(journal.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(JournalError, match=r"line 1: the record ends in CRLF: .* changed its line ends"):
        replay_run(run, True)
    with pytest.raises(JournalError, match="CRLF"):
        resume_run(run)


def test_a_folder_and_its_journal_are_on_the_disk_before_the_header(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed at a7f87d3: the entry of the run folder in its parent was never flushed."""
    synced: list[str] = []
    sync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(str(Path(f"/dev/fd/{fd}").resolve())), sync(fd)))
    append = JournalWriter.append

    def first(self: JournalWriter, record: Any) -> str:
        synced.append(record["kind"])
        return append(self, record)

    monkeypatch.setattr(JournalWriter, "append", first)
    config, path = experiment(**QUICK)
    out = tmp_path / "runs" / "deep" / "run"
    start_run(config, path, out)
    before = synced[: synced.index("header")]
    assert {str(tmp_path), str(tmp_path / "runs"), str(tmp_path / "runs" / "deep"), str(out)} <= {*before}
    assert before.count(str(out)) >= 3  # the journal, and each of the small files


def test_facts_where_the_world_states_none_are_refused(experiment: Experiment, tmp_path: Path) -> None:
    """Failed at a7f87d3: the memory stayed empty in silence."""
    config, path = experiment(agents={"memory": ["stm", "facts"]})
    with pytest.raises(
        SwarmError, match=r"names facts, which would stay empty: world split-numbers-v0 .*leave facts out"
    ):
        check_files(config, path)
    config, path = experiment(
        agents={"memory": ["stm", "facts"]}, world={"id": "facts-v0"}, coordinator={"kind": "none"}
    )
    check_files(config, path)


def test_a_home_folder_is_written_as_a_tilde(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed at a7f87d3: `~` was the name of a folder beside the file."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "puzzles.csv").write_text("numbers\n1 2 3\n")
    options = {"file": "~/puzzles.csv", "target": 6}
    config, path = experiment(**{**PUZZLES, "world": {"id": "numbers-v0", "options": options}})
    check_files(config, path)
    options = {"file": "~nobody-at-all/x.csv", "target": 6}
    config, path = experiment(**{**PUZZLES, "world": {"id": "numbers-v0", "options": options}})
    with pytest.raises(SwarmError, match=r"~nobody-at-all/x.csv: .*; write the whole path"):
        check_files(config, path)
