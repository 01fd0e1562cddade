"""What a world does wrong in a run ends its episode, is named on record, and the run goes on."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes.rogue_world import RogueWorld

from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.record.journal import read_records
from swarm.run.experience import experience
from swarm.run.runner import start_run
from swarm.view.replay import replay_run
from worlds.protocol import Info, StepResult


def _config(engine: str = "random", limit_s: float = 60.0, **options: Any) -> ExperimentConfig:
    return ExperimentConfig.model_validate(
        {
            "episodes": 3,
            "concurrency": 2,
            "world": {"id": RogueWorld.id, "options": {"episode": 1, **options}},
            "agents": {"count": 2, "engine": {"kind": engine}, "constrained": engine == "echo"},
            "topology": {"kind": "ring"},
            "faults": {"call_timeout_s": limit_s},
            "runtime": {"pool": "local", "durability": "group"},
        }
    )


def _played(folder: Path, config: ExperimentConfig) -> Path:
    run_dir = folder / "run"
    start_run(config, folder / "experiment.yaml", run_dir)
    return run_dir


def _reasons(run_dir: Path) -> dict[int, str]:
    records = read_records(run_dir / "journal.jsonl")
    return {record["episode"]: record["reason"] for record in records if record["kind"] == "episode_end"}


def _in_episode_1(**edits: Any) -> Any:
    """A `step` whose mappings hold other values in one step of one episode."""
    real = RogueWorld.step

    def step(self: RogueWorld, actions: Any) -> StepResult:
        result = real(self, actions)
        if self.episode != 1 or self.steps != 2:
            return result
        return result._replace(**{name: dict.fromkeys(getattr(result, name), it) for name, it in edits.items()})

    return step


_HALF = "half \ud83e"


def _when(value: Any, usual: Any) -> Any:
    """A method that returns a value in the midst of one episode."""
    return lambda self, *arguments: value if (self.episode, self.steps) == (1, 1) else usual


MEMBERS = {
    "step returned nan in 'rewards.a0'": {"step": _in_episode_1(rewards=float("nan"))},
    "step returned half a surrogate pair in 'infos.a0.report'": {
        "step": _in_episode_1(infos=Info(feedback="x", valid=True, report=_HALF))
    },
    "'step.infos.a0.report': input should be a valid string, got 3": {
        "step": _in_episode_1(infos={"feedback": "x", "valid": True, "report": 3})
    },
    "'step.terminations.a0': input should be a valid boolean, got None": {"step": _in_episode_1(terminations=None)},
    "state returned inf in 'x'": {"state": _when({"x": float("inf")}, {"x": 1})},
    "step raised SystemExit: 3": {"act": lambda self, *_: exit(3) if self.episode == 1 and self.steps else _noted()},
    "sample_action returned half a surrogate pair": {"sample_action": _when(_HALF, "x")},
    "sample_action raised ValueError: no": {"sample_action": lambda self, *_: _refuse() if self.episode == 1 else "x"},
}


def _noted() -> tuple[Info, float]:
    return Info(feedback="noted", valid=True), 0.0


def _refuse() -> str:
    raise ValueError("no")


@pytest.mark.parametrize("words", MEMBERS)
def test_a_world_that_answers_wrongly_ends_its_episode(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed at a7f87d3: these ended the whole run, some as "this is a bug"."""
    for name, member in MEMBERS[words].items():
        monkeypatch.setattr(RogueWorld, name, member)
    run_dir = _played(tmp_path, _config())
    reasons = _reasons(run_dir)
    assert reasons == {0: "truncated", 1: f"world fault: world rogue-v0: {words}", 2: "truncated"}
    assert replay_run(run_dir, check=True).finished


def test_a_pattern_that_is_none_ends_its_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed at a7f87d3: it was booked as the agents' faults, or ended the run."""
    monkeypatch.setattr(RogueWorld, "action_pattern", _when("(", None))
    reasons = _reasons(_played(tmp_path, _config("echo")))
    assert "world fault: world rogue-v0: 'action_pattern': no regular expression" in reasons[1]
    assert [reasons[0], reasons[2]] == ["truncated"] * 2


def test_numpy_scalars_give_the_journal_of_plain_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failed at a7f87d3: TypeError: Object of type bool_ is not JSON serializable."""
    plain = _played(tmp_path / "plain", _config())
    real = RogueWorld.step

    def step(self: RogueWorld, actions: Any) -> StepResult:
        result = real(self, actions)
        self.solved = np.bool_(False)  # type: ignore[assignment]
        infos = {
            a: {**info, "valid": np.bool_(info["valid"]), "report": np.str_(info["report"])}
            for a, info in result.infos.items()
        }
        ends = {agent: np.bool_(end) for agent, end in result.truncations.items()}
        rewards = {agent: np.float32(reward) for agent, reward in result.rewards.items()}
        return result._replace(infos=infos, truncations=ends, rewards=rewards)  # type: ignore[arg-type]

    monkeypatch.setattr(RogueWorld, "step", step)
    monkeypatch.setattr(
        RogueWorld, "state", lambda self: {"seed": np.int64(self.seed), "said": tuple(self.said), "steps": self.steps}
    )
    other = _played(tmp_path / "numpy", _config())
    assert (other / "journal.jsonl").read_bytes() == (plain / "journal.jsonl").read_bytes()
    assert list(experience(other)) == list(experience(plain))


def test_a_world_that_hangs_is_cut(tmp_path: Path) -> None:
    """Failed at a7f87d3: the run never ended, though `faults` promised it."""
    reasons = _reasons(_played(tmp_path, _config(limit_s=0.3, trouble="loop")))
    fault = "world fault: world rogue-v0: step took longer than 0.3 s"
    assert reasons == {0: "truncated", 1: fault, 2: "truncated"}


def test_a_directive_of_rules_that_is_none_is_a_fault_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed at a7f87d3: the journal took half a character for a directive."""
    from worlds import Playbook

    class Book(Playbook):
        directive, about = "x", "x"

        def rules(self, situation: Any) -> dict[str, str]:
            return {"a0": _HALF}

        def briefings(self, situation: Any) -> list[Any]:
            return []

        def parse(self, text: str, briefing: Any) -> dict[str, str]:
            return {}

    globals()["Book"] = Book
    monkeypatch.setattr(RogueWorld, "playbook", f"{__name__}:Book")
    config = _config()
    config = config.model_copy(update={"coordinator": config.coordinator.model_copy(update={"kind": "rules"})})
    run_dir = _played(tmp_path, config)
    faults = [
        record["coordinator"]["fault"]
        for record in read_records(run_dir / "journal.jsonl")
        if record["kind"] == "tick" and record["coordinator"] is not None
    ]
    assert faults
    assert all("world rogue-v0: playbook.rules() returned half a surrogate pair in 'a0'" in fault for fault in faults)


def test_a_random_number_survives_the_way_through_a_journal() -> None:
    rng = random.Random(3)
    numbers = [rng.uniform(-1, 1) * 10.0 ** rng.randint(-300, 300) for _ in range(1000)]
    assert json.loads(json.dumps(numbers)) == numbers


def test_tools_that_are_none_are_found_before_there_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failed at a7f87d3: a run went on with them."""
    monkeypatch.setattr(RogueWorld, "tools", lambda self: [{"name": 3}])
    with pytest.raises(SwarmError, match=r"^world rogue-v0: 'tools.0.name': input should be a valid string, got 3"):
        _played(tmp_path, _config())
    assert not (tmp_path / "run").exists()
