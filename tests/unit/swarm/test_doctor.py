"""The doctor names what is missing or broken, and the command that gets it."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm import doctor
from swarm.doctor import Finding, examine

EXPERIMENT = "world: {id: numbers-v0}\nagents: {engine: {kind: ulm, model: policies/agent-1}}\n"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(doctor, "_device", lambda: Finding("device", "stand-in, importing torch is slow"))
    (tmp_path / "experiments").mkdir()
    return tmp_path


def findings(root: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(root)}


def test_missing_checkpoint_names_its_recipe(root):
    folder = root / "experiments"
    (folder / "p.yaml").write_text(EXPERIMENT)
    (folder / "train_a.yaml").write_text("out: policies/agent-10\n")
    (folder / "train_b.yaml").write_text("out: policies/agent-1\n")
    found = findings(root)["model agent-1"]
    assert found == Finding("model agent-1", "named by p.yaml", f"swarm train {folder / 'train_b.yaml'}", optional=True)


def test_checkpoint_with_weights_is_ok_and_one_without_is_missing(root):
    (root / "experiments" / "p.yaml").write_text(EXPERIMENT)
    weights = root / "experiments" / "policies" / "agent-1" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"")
    assert findings(root)["model agent-1"].status == "missing"
    weights.write_bytes(b"weights")
    assert findings(root)["model agent-1"].status == "ok"


def test_unreadable_experiment_is_broken(root):
    file = root / "experiments" / "bad.yaml"
    file.write_text("a:\n\tb: 1\n")
    assert findings(root)[str(file)].status == "broken"


def test_run_folder_that_cannot_be_written_is_broken(root):
    assert findings(root)["run folders"].status == "ok"
    (root / "runs").write_text("a file where the folder should be")
    assert findings(root)["run folders"].status == "broken"


def test_full_disk_is_broken(root, monkeypatch):
    monkeypatch.setattr(doctor, "_LOW_DISK_BYTES", 10**18)
    assert findings(root)["disk"].status == "broken"


def test_absent_extra_names_its_install_command(root, monkeypatch):
    real = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: None if name == "vllm" else real(name))
    assert findings(root)["extra vllm"] == Finding(
        "extra vllm", "without vllm", "pip install -e '.[vllm]'", optional=True
    )


@pytest.mark.parametrize(("version", "status"), [(None, "broken"), ("2.0.0", "broken"), ("2.13.0+cpu", "ok")])
def test_core_package_must_be_there_in_the_right_version(root, monkeypatch, version, status):
    real = doctor._installed
    monkeypatch.setattr(doctor, "_installed", lambda name: version if name == "torch" else real(name))
    assert findings(root)["torch"].status == status


def test_ray_that_dies_is_broken_with_its_last_words(monkeypatch):
    monkeypatch.setattr(doctor, "_RAY_PROBE", "import sys; sys.exit('no room for the object store')")
    assert doctor._ray().status == "broken"
    assert doctor._ray().detail == "no room for the object store"
    monkeypatch.setattr(doctor, "_RAY_PROBE", "import time; time.sleep(9)")
    monkeypatch.setattr(doctor, "_RAY_TIMEOUT_S", 0.1)
    assert "no answer" in doctor._ray().detail


def test_limits_of_a_container_are_what_is_there(tmp_path):
    """Failed at a7f87d3: the host's memory and cores."""
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "self" / "cgroup").write_text("0::/\n")
    (tmp_path / "sys" / "fs" / "cgroup").mkdir(parents=True)
    (tmp_path / "sys" / "fs" / "cgroup" / "cpu.max").write_text("50000 100000\n")
    (tmp_path / "sys" / "fs" / "cgroup" / "memory.max").write_text("700000000\n")
    cpu, memory = doctor._cpu(tmp_path), doctor._memory(tmp_path)
    assert cpu.detail.startswith("0.5 cores may be used, the machine has ")
    assert memory.detail.startswith("0.7 GB may be used, the machine has ")
    assert (memory.status, memory.remedy[:27]) == ("missing", "set runtime.pool: local; Ra")


@pytest.mark.process
def test_ray_is_tried_as_a_run_would_start_it_and_says_what_a_run_would(monkeypatch):
    """Failed at a7f87d3: a remedy for everything: "check free memory, /dev/shm and the temp folder"."""
    monkeypatch.setenv("RAY_TMPDIR", "/dev/null")
    found = doctor._ray()
    assert found.status == "broken"
    assert (
        "/dev/null/ray, which cannot be written (Not a directory); set RAY_TMPDIR to a folder that can" in found.detail
    )


def test_a_recipe_that_only_starts_from_a_checkpoint_does_not_make_it(root):
    """Failed at a7f87d3: the first recipe that mentions the name was given, such as the one that lacks it."""
    folder = root / "experiments"
    (folder / "p.yaml").write_text(EXPERIMENT)
    (folder / "train_a.yaml").write_text("init: policies/agent-1\nout: policies/agent-2\n")
    (folder / "train_b.yaml").write_text("out: policies/agent-1\n")
    assert findings(root)["model agent-1"].remedy == f"swarm train {folder / 'train_b.yaml'}"
