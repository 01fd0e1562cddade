"""The small files of a run folder: never over those of somebody else, told when damaged, found after a move."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.record import folder as run_folder
from swarm.record.folder import base_dir_of, read_experiment, read_manifest, write_folder

SETTINGS: dict[str, Any] = {"world": {"id": "numbers-v0"}, "agents": {"engine": {"kind": "echo"}}}


def write(folder: Path, base: Path) -> None:
    write_folder(folder, SETTINGS, {"base_dir": str(base), "source": str(base / "x.yaml")})


@pytest.mark.parametrize("name", ["experiment.yaml", "manifest.json"])
def test_files_of_somebody_else_stay(tmp_path: Path, name: str) -> None:
    """Failed at a7f87d3: they were replaced."""
    (tmp_path / name).write_text("mine: true\n")
    with pytest.raises(SwarmError, match=rf"holds a file {name} that no run wrote; choose another --out"):
        write(tmp_path, tmp_path)
    assert (tmp_path / name).read_text() == "mine: true\n"


def test_files_of_a_killed_start_are_replaced(tmp_path: Path) -> None:
    for _ in range(2):
        write(tmp_path, tmp_path)
    (tmp_path / "experiment.yaml").unlink()
    write(tmp_path, tmp_path)
    assert read_experiment(tmp_path, ExperimentConfig).agents.count == 8


@pytest.mark.parametrize("name", ["experiment.yaml", "manifest.json"])
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 4096,
        b"{",
        b"[1, 2]",
        b"\xff\xfe",
        b"- a\nb: c",
        b"agents: 3\nworld: {}\n",
        b"[" * 3000,
        b"a: &a [*a]",
        b'"\\U00110000"',
        b"null",
        b'{"base_dir": 1}',
    ],
)
def test_a_damaged_file_is_one_line_with_its_name_and_a_way_on(tmp_path: Path, name: str, content: bytes) -> None:
    """Failed at a7f87d3: an empty experiment.yaml ended in five lines of parser text."""
    write(tmp_path, tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SwarmError) as caught:
        read_experiment(tmp_path, ExperimentConfig) if name == "experiment.yaml" else read_manifest(tmp_path)
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / name} cannot be read (")
    assert f"swarm run FILE --out {tmp_path}" in said
    assert "\n" not in said
    assert len(said) < 300 + 2 * len(str(tmp_path))


def test_small_files_and_their_folders_are_on_the_disk_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened: list[str] = []
    replace, link = Path.replace, os.link
    monkeypatch.setattr(os, "link", lambda a, b: (happened.append(Path(b).name), link(a, b)))
    monkeypatch.setattr(Path, "replace", lambda a, b: (happened.append(Path(b).name), replace(a, b)))
    monkeypatch.setattr(os, "fsync", lambda fd: happened.append("sync"))
    write(tmp_path, tmp_path)
    assert happened == ["sync", "manifest.json", "sync", "sync", "experiment.yaml", "sync"]


def test_a_project_that_was_moved_as_a_whole_is_found(tmp_path: Path) -> None:
    """Failed at a7f87d3: the old folder was all that was known."""
    project = tmp_path / "old"
    (project / "runs" / "x").mkdir(parents=True)
    (project / "x.yaml").write_text("")
    write(project / "runs" / "x", project)
    assert base_dir_of(project / "runs" / "x") == project
    project.rename(tmp_path / "new")
    assert base_dir_of(tmp_path / "new" / "runs" / "x") == tmp_path / "new"
    shutil.move(tmp_path / "new" / "runs" / "x", tmp_path / "elsewhere")
    assert base_dir_of(tmp_path / "elsewhere") == project  # which is told as missing


def test_a_new_base_is_remembered(tmp_path: Path) -> None:
    """Failed at a7f87d3: a run could not be told."""
    run, base = tmp_path / "run", tmp_path / "base"
    run.mkdir()
    write(run, tmp_path / "gone")
    with pytest.raises(SwarmError, match=f"there is no folder {base}"):
        run_folder.move_base(run, base)
    with (
        pytest.raises(SwarmError, match=rf"no file; the folder .*gone, is gone: .*swarm resume {run} --base DIR"),
        run_folder.needing_base(run, base_dir_of(run)),
    ):
        raise SwarmError("no file")
    base.mkdir()
    run_folder.move_base(run, base)
    assert base_dir_of(run) == base
    assert json.loads((run / "manifest.json").read_text())["source"] == str(base / "x.yaml")
    with pytest.raises(SwarmError, match=r"^no file$"), run_folder.needing_base(run, base):
        raise SwarmError("no file")
