"""Experiments that learn are compared by their exams; a token of learning counts as one that was spent in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.learning import learning_config, write_base

from swarm.compare.arms import ARMS, arms_of, equal_terms, not_applicable
from swarm.compare.learned import LEARNING_ARMS, break_even, exam_outcomes, with_exam_tokens
from swarm.compare.runs import compare_arms
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.record.outcomes import PuzzleOutcome, RunOutcomes

EXAM = {"exam": {"episodes": 3, "budget": {"actions": 5}}}


def experiment(base: Path = Path("base"), *, count: int = 2, **learning: Any) -> ExperimentConfig:
    config: ExperimentConfig = learning_config(base, count=count, learning=EXAM | {"share": "mean"} | learning)
    return config


def of(config: ExperimentConfig, arm: str) -> ExperimentConfig:
    return equal_terms(config, arm, 5, 99)


def run(config: ExperimentConfig) -> RunOutcomes:
    """Return a run whose rounds took 8 x 10 tokens, a learning step 25, and the exam 3 x 4."""
    puzzles = [PuzzleOutcome(number, 0, "", "", tokens=10 if number < 8 else 4) for number in range(11)]
    change: Any = {"cost": {"tokens": 25}}
    return RunOutcomes(Path(), config.model_dump(mode="json"), {}, puzzles, changes=[change])


def test_arms_of_an_experiment_that_learns_play_its_rounds_and_the_same_exam() -> None:
    base = experiment()
    for arm in LEARNING_ARMS:
        config = of(base, arm)
        assert config.learning is not None
        assert config.learning.exam is not None
        assert (config.seed, config.learning.exam.episodes) == (5, 3)
        assert config.episodes == (1 if arm in ("frozen", "more_attempts") else 8)
        assert config.budget == base.budget


def test_each_arm_changes_what_it_asks_about() -> None:
    base = experiment()
    settings = {arm: of(base, arm).learning for arm in LEARNING_ARMS}
    found = {arm: (s.steps, s.share, s.learner, s.control) for arm, s in settings.items() if s is not None}
    assert found == {
        "swarm": (2, "mean", "agent", "none"),
        "frozen": (0, "none", "agent", "none"),
        "more_attempts": (0, "none", "agent", "none"),
        "permuted": (2, "mean", "agent", "permuted"),
        "swapped": (2, "mean", "agent", "swapped"),
        "random_delta": (2, "mean", "agent", "random"),
        "share_none": (2, "none", "agent", "none"),
        "share_data": (2, "data", "agent", "none"),
        "one_learner": (4, "none", "team", "none"),
    }


def test_arms_that_make_no_sense_are_not_run_and_the_reason_is_told() -> None:
    assert "one learns alone" in str(not_applicable("share_data", experiment(count=1, share="none")))
    assert "one learns alone" in str(not_applicable("one_learner", experiment(learner="team", share="none")))
    assert "it is what the file states" in str(not_applicable("share_none", experiment(share="none")))
    assert not_applicable("swarm", experiment()) is None
    for learning in ({"share": "mean"}, {"learner": "team", "share": "none"}):
        assert "no deltas of their own" in str(not_applicable("swapped", experiment(**learning)))
    assert not_applicable("swapped", experiment(share="none")) is None
    assert not_applicable("random_delta", experiment(learner="team", share="none")) is None


@pytest.mark.parametrize(
    ("learning", "message"),
    [({"exam": None}, "a comparison of what was learned needs an exam: set learning.exam.episodes")],
)
def test_what_cannot_be_compared_is_one_clear_line(learning: dict[str, Any], message: str) -> None:
    with pytest.raises(SwarmError, match=message):
        of(experiment(**learning), "swarm")


def test_arms_of_the_other_kind_are_unknown(tmp_path: Path) -> None:
    with pytest.raises(SwarmError, match="unknown arm 'solo'"):
        compare_arms(experiment(), tmp_path / "x.yaml", tmp_path / "out", ["solo"])
    with pytest.raises(SwarmError, match="more_attempts spends what the arm swarm has spent; run both"):
        compare_arms(experiment(), tmp_path / "x.yaml", tmp_path / "out", ["more_attempts"])
    assert not set(LEARNING_ARMS) & (set(ARMS) - {"swarm"})


def test_a_rival_may_learn_otherwise() -> None:
    compare = {"rivals": {"slow": {"learning.lr": 1e-4}}}
    base = ExperimentConfig.model_validate({**experiment().model_dump(mode="json"), "compare": compare})
    learning = arms_of(base)["slow"].overrides(base).learning
    assert learning is not None
    assert learning.lr == 1e-4


def test_a_puzzle_of_the_exam_is_charged_its_share_of_rounds_and_learning() -> None:
    found = exam_outcomes(run(experiment()))
    assert [(puzzle.episode, puzzle.tokens) for puzzle in found.puzzles] == [(0, 39), (1, 39), (2, 39)]


def test_more_attempts_may_spend_in_the_exam_what_the_learner_spent_in_all() -> None:
    base = experiment()
    config = with_exam_tokens(of(base, "more_attempts"), run(base))
    budget = config.of_episode(1).budget
    assert budget.tokens == 39  # (80 + 25 + 12) / 3
    assert (budget.actions, budget.ticks, budget.calls) == (None, None, None)


def test_learning_is_worth_it_from_where_it_stays_ahead() -> None:
    curves = {
        "swarm": [50, 50, 60, None],
        "early": [1, 2, None, None],
        "better": [1, 1, 1, 1],
        "late": [55, 70, 80, None],
    }
    assert break_even(curves, "swarm") == {"early": 60, "better": None, "late": None}
    assert break_even({"swarm": [50, 55], "frozen": [None, 70]}, "swarm") == {"frozen": 50}


@pytest.mark.thorough
def test_a_comparison_of_learners_is_carried_out_and_goes_on_where_it_was(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    config = experiment(
        write_base(tmp_path / "base"), count=1, share="none", test={"on": False, "probe": 0, "tasks": 0}
    )
    lines: list[str] = []
    arms = ["swarm", "frozen", "more_attempts"]
    found = compare_arms(config, tmp_path / "x.yaml", tmp_path / "out", arms, [1], lines.append)
    assert [(row.arm, row.n) for row in found.rows] == [("swarm", 3), ("frozen", 3), ("more_attempts", 3)]
    rows = {row.arm: row for row in found.rows}
    assert rows["swarm"].tokens > rows["frozen"].tokens
    assert rows["more_attempts"].tokens > rows["frozen"].tokens
    assert set(found.break_even) == {"frozen", "more_attempts"}
    assert not [flag for row in found.rows for flag in row.flags if "differ" in flag]
    data = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert "learning included" in data["setting"]
    again = compare_arms(config, tmp_path / "x.yaml", tmp_path / "out", arms, [1], lines.append)
    assert again.rows == found.rows
    assert any("3 of them from before" in line for line in lines)
