"""`swarm check` says what learning would cost before it does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.learned_run import learned_config, write_policy

from swarm.check import Plan, check_file
from swarm.check import measure as measuring


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measuring, "PLAYED_S", 0.1)


def checked(*overrides: str, **learning: Any) -> Plan:
    Path("file.yaml").write_text(yaml.safe_dump(learned_config(**learning).model_dump(mode="json")))
    return check_file(Path("file.yaml"), overrides)


def lines_of(plan: Plan) -> list[str]:
    texts = [text for _, text in plan.lines]
    at = next(number for number, (name, _) in enumerate(plan.lines) if name == "learns")
    return texts[at : at + 5]


def test_rounds_learners_steps_and_tokens_are_told() -> None:
    write_policy(Path("policy"))
    plan = checked("budget.run_tokens=5000", rounds=3)
    assert plan.missing == []
    learns, exam, tests, tokens, seconds = lines_of(plan)
    assert learns == "3 rounds x 2 learners, each 3 optimizer steps of 4 examples"
    assert exam == "2 episode(s) after the last round"
    assert tests == "each step is tested"
    # An attempt is a number and the end of its line: 3 x 2 x 3 x 4 examples of two tokens.
    assert tokens == "about 144 tokens are trained on, charged as 432"
    assert seconds.startswith("about ")
    assert ("at most", "the run: 5,000 tokens, learning included") in plan.lines
    assert not Path("runs").exists()


def test_a_team_takes_one_step_a_round_and_tests_are_named() -> None:
    write_policy(Path("policy"))
    plan = checked(learner="team", test={"probe": 40, "tasks": 0.25}, exam=None)
    learns, tests, *_ = lines_of(plan)
    assert learns.startswith("2 rounds x 1 learners")
    assert tests == "each step is tested; probe of 40; 25% of the puzzles kept out"


def test_without_the_base_nothing_is_measured_and_the_base_is_what_is_missing() -> None:
    plan = checked()
    assert any("policy" in text for text in plan.missing)
    assert not any("trained on" in text for _, text in plan.lines)
