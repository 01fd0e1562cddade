"""`swarm memory`: what it prints of what agents learned, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fakes.learned_run import write_learned_run
from fakes.toy_run import write_toy_run
from typer.testing import CliRunner, Result

from swarm.cli import app


def swarm(*words: object) -> Result:
    return CliRunner().invoke(app, ["memory", *map(str, words)])


def test_show_tells_where_a_delta_comes_from(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    done = swarm("show", tmp_path / "run", "a0")
    assert done.exit_code == 0, done.output
    assert "round 1, a0 learned" in done.output
    assert "round 2, a0 learned" in done.output
    assert not re.search(r"\ba1\b", done.output)  # a hash may hold the two letters
    for told in (
        "version  nothing -> ",
        "attempts, ",
        "digest ",
        "kl ",
        "trained on, each charged as three",
        "now        a0 has ",
    ):
        assert told in done.output


def test_history_has_a_line_for_each_change(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run", share="mean")
    done = swarm("history", tmp_path / "run", "--kind", "delta")
    assert done.exit_code == 0, done.output
    assert done.output.count("shared") == 4 + 1
    assert len(done.output.splitlines()) == 1 + 8 + 1
    assert "8 changes: 4 learned, 4 shared" in done.output


def test_undo_and_prune_say_what_they_did(tmp_path: Path) -> None:
    write_learned_run(tmp_path / "run")
    undone = swarm("undo", tmp_path / "run", "a1")
    assert undone.exit_code == 0, undone.output
    assert undone.output.startswith("a1 ")
    assert "undone, of round 2; now " in undone.output
    pruned = swarm("prune", tmp_path / "run")
    assert pruned.output.startswith("pruned        1 files, ")
    assert "a1 undone" in swarm("show", tmp_path / "run", "a1").output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("show", "RUN", "a7"), "there is no agent 'a7'; agents: a0, a1"),
        (("undo", "RUN", "--kind", "facts"), "have no memory 'facts'; they have: delta"),
        (("undo", "RUN", "a7"), "a7 has learned nothing that could be undone"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    write_learned_run(tmp_path / "run")
    done = swarm(*(tmp_path / "run" if word == "RUN" else word for word in words))
    assert done.exit_code == 2
    assert said in done.output
    assert done.output.count("\n") == 1


def test_agents_that_keep_nothing_have_nothing_to_undo(tmp_path: Path) -> None:
    write_toy_run(tmp_path / "run")
    done = swarm("undo", tmp_path / "run")
    assert done.exit_code == 2
    assert "keep nothing from call to call" in done.output
