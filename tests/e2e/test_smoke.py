"""The command line on the experiment that ships for this purpose: `experiments/smoke.yaml`, with the trained policy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.record.journal import read_records

ROOT = Path(__file__).parents[2]
SMOKE = str(ROOT / "experiments" / "smoke.yaml")
GOLDEN = [
    ("target 100", "half 5 6 7 target 100", "half 5 7 7 target 100"),
    ("target 191", "half 1 1 10 target 191", "half 5 5 8 target 191"),
    ("target 112", "half 4 5 12 target 112", "half 2 3 7 target 112"),
    ("target 192", "half 1 3 9 target 192", "half 4 5 8 target 192"),
]


def swarm(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "swarm.cli", *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of one smoke run."""
    folder = tmp_path_factory.mktemp("smoke")
    done = swarm("run", SMOKE, "--no-live", "--out", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "swarm replay" in done.stdout
    return folder / "run"


def test_puzzles_are_the_ones_of_the_seed(smoke: Path) -> None:
    episodes = [r for r in read_records(smoke / "journal.jsonl") if r["kind"] == "episode"]
    assert [(r["goal"], *(entry["observation"] for entry in r["agents"][:2])) for r in episodes] == GOLDEN


def test_trained_agents_act_legally(smoke: Path) -> None:
    entries = [e for r in read_records(smoke / "journal.jsonl") if r["kind"] == "tick" for e in r["agents"]]
    assert sum(entry["valid"] for entry in entries) / len(entries) > 0.8


def test_trained_agents_hit_what_they_are_directed_to(smoke: Path) -> None:
    solved = [r["solved"] for r in read_records(smoke / "journal.jsonl") if r["kind"] == "episode_end"]
    assert sum(solved) >= 1


def test_replay_verifies_and_prints_the_hash_last(smoke: Path) -> None:
    done = swarm("replay", str(smoke), "--check", cwd=smoke.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == list(read_records(smoke / "journal.jsonl"))[-1]["hash"]


def test_an_altered_journal_is_refused(smoke: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("experiment.yaml", "manifest.json"):
        (copy / name).write_bytes((smoke / name).read_bytes())
    text = (smoke / "journal.jsonl").read_text()
    (copy / "journal.jsonl").write_text(text.replace('"valid":true', '"valid":false', 1))
    done = swarm("replay", str(copy), "--check", cwd=tmp_path)
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1


def test_resuming_a_finished_run_changes_nothing(smoke: Path) -> None:
    before = (smoke / "journal.jsonl").read_bytes()
    assert swarm("resume", str(smoke), "--no-live", cwd=smoke.parent).returncode == 0
    assert (smoke / "journal.jsonl").read_bytes() == before


def test_report_is_one_self_contained_page(smoke: Path) -> None:
    assert swarm("report", str(smoke), cwd=smoke.parent).returncode == 0
    page = (smoke / "report" / "report.html").read_text()
    assert "data:image/png;base64" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_watch_shows_a_finished_run(smoke: Path) -> None:
    done = swarm("watch", str(smoke), cwd=smoke.parent)
    assert done.returncode == 0
    assert "finished" in done.stdout


def test_baseline_plays_the_same_puzzles_alone(smoke: Path, tmp_path: Path) -> None:
    done = swarm("baseline", SMOKE, "--no-live", "--out", "solo", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    goals = [
        [r["goal"] for r in read_records(path / "journal.jsonl") if r["kind"] == "episode"]
        for path in (smoke, tmp_path / "solo")
    ]
    assert goals[0] == goals[1]


@pytest.mark.ray
def test_ray_writes_the_same_journal(smoke: Path, tmp_path: Path) -> None:
    done = swarm("run", SMOKE, "--no-live", "--out", "ray", "--set", "runtime.pool=ray", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ray" / "journal.jsonl").read_bytes() == (smoke / "journal.jsonl").read_bytes()
