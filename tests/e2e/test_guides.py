"""The code that the guides print works as it stands there."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from swarm.config.experiment import ExperimentConfig
from swarm.config.load import load_experiment
from swarm.record.journal import read_records
from swarm.run.runner import start_run

ROOT = Path(__file__).parents[2]
Experiment = Callable[..., tuple[ExperimentConfig, Path]]


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str, str], None]:
    """Install the code that a guide prints, as the guide's own entry point says."""

    def install(page: str, class_name: str, group: str) -> None:
        text = (ROOT / "docs" / "guides" / page).read_text()
        (code,) = (c for c in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if f"class {class_name}(" in c)
        (name, place) = re.search(rf'^(\w+) = "([\w.]+):{class_name}"', text, re.MULTILINE).groups()  # type: ignore[union-attr]
        module = types.ModuleType(place)
        monkeypatch.setitem(sys.modules, place, module)
        exec(compile(code, page, "exec"), module.__dict__)  # noqa: S102
        found = [EntryPoint(name, f"{place}:{class_name}", group)]
        monkeypatch.setattr("worlds.entry_points.entry_points", lambda group: found if group == found[0].group else [])

    return install


@pytest.mark.parametrize("shuffled", [False, True])
def test_the_coordinator_of_its_guide_directs_a_run(
    experiment: Experiment, tmp_path: Path, offer: Callable[[str, str, str], None], shuffled: bool
) -> None:
    offer("coordinator.md", "Repeater", "ulm_swarm.coordinators")
    section = {"kind": "repeater", "shuffled": shuffled}
    config, path = experiment(coordinator=section, agents={"engine": {"kind": "random"}})
    outcome = start_run(config, path, tmp_path / "run")
    ticks = [record for record in read_records(tmp_path / "run" / "journal.jsonl") if record["kind"] == "tick"]
    assert outcome.faults == 0
    assert any(record["directives"] for record in ticks)
    assert all(record["coordinator"] is not None and record["coordinator"]["prompt_tokens"] for record in ticks[:1])


def test_the_memory_of_its_guide_reaches_prompts(
    experiment: Experiment, tmp_path: Path, offer: Callable[[str, str, str], None]
) -> None:
    offer("memory.md", "Diary", "ulm_swarm.memories")
    agents = {"engine": {"kind": "echo"}, "memory": ["stm", "diary"], "max_new_tokens": 40}
    _, path = experiment(world={"id": "echo-v0"}, agents=agents, coordinator={"kind": "none"}, episodes=1)
    config = load_experiment(path)
    start_run(config, path, tmp_path / "run")
    ticks = [record for record in read_records(tmp_path / "run" / "journal.jsonl") if record["kind"] == "tick"]
    read = [entry["prompt_tokens"] for record in ticks for entry in record["agents"] if entry["agent"] == "a0"]
    assert read[0] < read[1] < read[2]
