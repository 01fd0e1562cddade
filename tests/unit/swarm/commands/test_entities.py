"""`swarm memory` for entity registries: what is known of a run, exported, and changed in a file of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fakes.archive_reader import ArchiveReaders
from fakes.scripted_run import play
from typer.testing import CliRunner

from swarm.cli import app
from swarm.config.experiment import ExperimentConfig
from ulm.memory.registry import EntityRegistry


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive") / "run"
    options = {"persons": 12, "archives": 2, "questions": 4, "hops": 2, "reading": 0.5}
    config = ExperimentConfig.model_validate(
        {
            "name": "archive",
            "world": {"id": "archive-v0", "options": options},
            "agents": {"count": 2, "engine": {"kind": "ulm", "model": "rules"}, "memory": ["stm", "registry"]},
            "coordinator": {"kind": "rules"},
            "episodes": 2,
        }
    )
    play(folder, config, ArchiveReaders(config))
    return folder


def said(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, ["memory", *map(str, arguments)], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result.output


def test_what_a_run_knows_is_shown_exported_and_looked_up(run_dir: Path, tmp_path: Path) -> None:
    shown = said("show", run_dir, "--limit", 5)
    assert "5 shown" in shown
    said("export", run_dir, tmp_path / "known.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "known.jsonl").read_text().splitlines()]
    assert f"{len(rows)} entities" in shown
    person = next(row for row in rows if row["relations"].get("lives_in") and row["type"] == "person")
    place = next(row for row in rows if row["id"] == person["relations"]["lives_in"][0])
    name = max(person["names"], key=len)
    told = said("path", run_dir, f"[{name}] trade {person['properties']['trade'][0]} : lives_in")
    assert any(other in told for other in place["names"])
    history = said("history", run_dir)
    assert " lives_in " in history
    assert "registry: " in history
    said("export", run_dir, tmp_path / "first.csv", "--episode", 0)
    assert (tmp_path / "first.csv").read_text() != (tmp_path / "known.jsonl").read_text()


def test_a_file_is_changed_and_every_change_can_be_taken_back(run_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "entities.db"
    said("export", run_dir, file)
    before = said("show", file, "--limit", 100)
    persons = list(EntityRegistry(file, read_only=True))[:2]
    said("merge", file, *persons)
    assert said("show", file, "--limit", 100) != before
    said("split", file, *persons)
    assert said("show", file, "--limit", 100).rpartition(";")[0] == before.rpartition(";")[0]
    source = EntityRegistry(file, read_only=True).get_entity(persons[0]).sources[0]
    assert "assertions of" in said("forget", file, source)
    assert f"has nothing from '{source}'" in said("forget", file, source, code=2)


def test_mistakes_get_one_line(run_dir: Path, tmp_path: Path) -> None:
    file = tmp_path / "entities.db"
    said("export", run_dir, file)
    one, other = list(EntityRegistry(file, read_only=True))[:2]
    (tmp_path / "torn.db").write_bytes(file.read_bytes()[:3000])
    (tmp_path / "text.db").write_text("no registry")
    for arguments, line in {
        ("path", run_dir, "mara"): "is no look-up; write '[mara voss] : works_for seat'",
        ("path", run_dir, "[mara] : likes"): "there is no relation 'likes'; there are: trade",
        ("export", run_dir, file): "is there already",
        ("export", run_dir, tmp_path / "x.txt"): "name a .jsonl, .csv or .db file",
        ("export", run_dir, tmp_path / "no" / "x.csv"): "cannot write",
        ("merge", file, one, 99999): "there is no entity 99999",
        ("split", file, one, other): "are not held to be one",
        ("merge", tmp_path / "gone.db", 1, 2): "is no file of a registry; `swarm memory export RUN gone.db` makes one",
        ("show", tmp_path / "text.db"): "is damaged",
        ("show", tmp_path / "torn.db"): "damaged",
        ("show", run_dir, "a7"): "there is no agent 'a7'; agents: a0, a1",
        ("show", run_dir, "--episode", 9): "there is no episode 9",
        ("forget", run_dir, "some"): "'some' is no number of an exchange",
    }.items():
        output = said(*arguments, code=2)
        assert line in " ".join(output.split()), output
        assert len(output.strip().splitlines()) == 1
