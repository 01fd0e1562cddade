"""Paths on the command line: what is empty is none, `~` is the home, what is printed can be pasted."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from swarm.text import command

EXPERIMENT = (
    "name: demo\nworld: {id: numbers-v0}\nagents: {engine: {kind: echo}, count: 2}\nruntime: {pool: local}\n"
    "budget: {ticks: 1, tokens: 99}\ncompare: {seeds: [1], episodes: 2, arms: [swarm]}\n"
)
Swarm = Callable[..., tuple[int, str]]


@pytest.fixture
def swarm(
    swarm: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Swarm:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SWARM_TRACEBACK", raising=False)
    (tmp_path / "x.yaml").write_text(EXPERIMENT)
    return lambda *arguments: (swarm(*arguments), " ".join("".join(capsys.readouterr()).split()))


@pytest.mark.parametrize(
    "line",
    [
        "run x.yaml",
        "baseline x.yaml",
        "compare x.yaml",
        "train train.yaml",
        "lab lab.yaml",
        "mqar mqar.yaml",
        "eval engram.yaml",
        "data exact-match facts.yaml",
        "export policy",
        "new world treasure-hunt",
        "report runs/x",
    ],
)
def test_an_empty_out_is_no_folder(swarm: Swarm, tmp_path: Path, line: str) -> None:
    """Failed at a7f87d3: it was the current folder."""
    before = sorted(tmp_path.rglob("*"))
    status, said = swarm(*line.split(), "--out", "")
    assert status == 2
    assert "it is empty; the current folder is '.'" in said
    assert sorted(tmp_path.rglob("*")) == before


def test_a_tilde_is_the_home_folder(swarm: Swarm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed at a7f87d3: a folder `~` was made."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    status, said = swarm("run", "x.yaml", "--out", "~/my runs/r", "--no-live")
    assert status in (0, 1), said
    assert (tmp_path / "home" / "my runs" / "r" / "journal.jsonl").is_file()
    assert not (tmp_path / "~").exists()
    assert f"swarm replay '{tmp_path}/home/my runs/r' --check" in said
    assert "write the whole path" in swarm("run", "x.yaml", "--out", "~nobody-at-all/r")[1]


@pytest.mark.parametrize("line", ["run x.yaml --out .", "compare x.yaml --out .", "baseline x.yaml --out ."])
def test_a_folder_of_ones_own_is_left_alone(swarm: Swarm, tmp_path: Path, line: str) -> None:
    """Failed at a7f87d3: `compare` wrote table.txt and more beside whatever was there."""
    (tmp_path / "table.txt").write_text("mine")
    (tmp_path / "manifest.json").write_text("mine")
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    status, said = swarm(*line.split())
    assert status == 2
    assert "choose another" in said
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_name_that_is_too_long_is_the_machines_matter(swarm: Swarm, tmp_path: Path) -> None:
    """Failed at a7f87d3: exit code 70, "this is a bug"."""
    long = "x" * 260
    for line in (f"new world treasure-hunt --out {long}", f"resume {long}", f"watch {long}", f"replay {long}/b"):
        status, said = swarm(*line.split())
        assert status in (1, 2), line
        assert "bug" not in said
        assert "File name too long" in said
    status, said = swarm("run", "x.yaml", "--set", f"name={long}")
    assert (status, "name is " in said) == (2, True)


def test_a_report_goes_where_it_is_told_and_not_among_other_files(swarm: Swarm, tmp_path: Path) -> None:
    """Failed at a7f87d3: there was no --out."""
    swarm("run", "x.yaml", "--out", "r", "--no-live")
    for _ in range(2):
        assert swarm("report", "r", "--out", "page")[0] == 0
    assert (tmp_path / "page" / "report.html").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "report.html").write_text("mine")
    assert swarm("report", "r", "--out", "mine")[0] == 2
    assert (tmp_path / "mine" / "report.html").read_text() == "mine"
    (tmp_path / "r" / "report").write_text("in the way")
    status, said = swarm("report", "r")
    assert (status, "--out" in said) == (2, True)


def test_windows_is_told_in_one_line(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed at a7f87d3: "No module named fcntl"."""
    monkeypatch.setattr(sys, "platform", "win32")
    status, said = swarm("run", "x.yaml")
    assert (status, said) == (2, "error: swarm runs on Linux and macOS; on Windows install it in WSL (wsl --install)")


@pytest.mark.parametrize("name", ["runs/a b", "it's", "a;b", "$HOME", "-x", "µ"])
def test_a_printed_command_can_be_pasted(name: str) -> None:
    """Failed at a7f87d3: paths were printed as they are."""
    words = shlex.split(command("resume", Path(name), "--approve"))
    assert words[:2] == ["swarm", "resume"]
    assert Path(words[2]) == Path(name)
    assert not words[2].startswith("-")
