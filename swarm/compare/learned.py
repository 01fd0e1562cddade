"""Comparisons of what was learned: an arm plays its whole run, and its exam is what counts.

- The puzzles of the exam are the same for all arms, however many rounds are played before.
- What the rounds and their learning steps cost is shared by the puzzles of the exam: a puzzle's tokens are that share
  and its own until it ended. So a curve of learning starts late, and rises where it was worth it.
- `more_attempts` spends on the exam alone what the learner spent in its whole run with the same seed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from swarm.compare.arm import Arm, changed
from swarm.config.experiment import BudgetConfig, ExperimentConfig
from swarm.config.learning import ExamSettings, LearningConfig
from swarm.errors import SwarmError
from swarm.record.outcomes import PuzzleOutcome, RunOutcomes

MORE_ATTEMPTS = "more_attempts"


def _settings(config: ExperimentConfig) -> LearningConfig:
    if config.learning is None:
        raise AssertionError
    return config.learning


def exam_of(config: ExperimentConfig) -> ExamSettings:
    """Return the exam in which an experiment's arms are compared.

    Raises:
        SwarmError: it has none.
    """
    exam = _settings(config).exam
    if exam is None:
        raise SwarmError("a comparison of what was learned needs an exam: set learning.exam.episodes")
    return exam


def _frozen(config: ExperimentConfig) -> ExperimentConfig:
    """Go to the exam after one episode, the fewest that a run may have: rounds would teach nothing, and cost."""
    frozen = changed(config, "learning", steps=0, share="none", explore=None)
    return frozen.model_copy(update={"episodes": 1})


def _one_learner(config: ExperimentConfig) -> ExperimentConfig:
    """Let one delta learn from all, in as many optimizer steps as all learners take together."""
    steps = _settings(config).steps * config.agents.count
    return changed(config, "learning", learner="team", share="none", steps=steps)


LEARNING_ARMS: dict[str, Arm] = {
    "swarm": Arm("learning", "The experiment as its file states it.", lambda config: config, "", ""),
    "frozen": Arm(
        "frozen",
        "Does learning help at all?",
        _frozen,
        "what was learned solves more",
        "what was learned is not shown to solve more than the base",
    ),
    MORE_ATTEMPTS: Arm(
        "frozen, more attempts",
        "Does it beat the base that spends the learner's tokens on more attempts in the exam?",
        _frozen,
        "tokens are better spent on learning than on more attempts",
        "tokens spent on learning are not shown to solve more than the same tokens spent on attempts",
    ),
    "permuted": Arm(
        "goals permuted",
        "Does it matter what attempts came to (null control)?",
        lambda config: changed(config, "learning", control="permuted"),
        "it matters what attempts came to",
        "a gain that survives permuted goals is not learned from what attempts came to",
    ),
    "swapped": Arm(
        "deltas swapped",
        "Does it matter who has learned what (null control)?",
        lambda config: changed(config, "learning", control="swapped"),
        "what an agent has learned is its own",
        "what an agent has learned serves the next one as well",
        needs="own deltas",
    ),
    "random_delta": Arm(
        "random deltas",
        "Does it matter what was learned, and not only how far weights moved (null control)?",
        lambda config: changed(config, "learning", control="random"),
        "it matters what was learned",
        "a gain that survives random deltas of equal norm is not learned",
    ),
    "share_none": Arm(
        "nothing shared",
        "Does it need what others have learned?",
        lambda config: changed(config, "learning", share="none"),
        "what others have learned matters",
        "what others have learned is not shown to add anything",
        needs="learners",
    ),
    "share_data": Arm(
        "data shared",
        "Is it as good as sharing all right answers?",
        lambda config: changed(config, "learning", share="data"),
        "it is better than sharing right answers",
        "it is not shown to be better than sharing right answers",
        needs="learners",
    ),
    "one_learner": Arm(
        "one learner",
        "Does it beat one learner with everybody's data, at equal optimizer steps?",
        _one_learner,
        "many learners are better than one with everybody's data",
        "many learners are not shown to be better than one with everybody's data",
        needs="learners",
    ),
}
"""Arms of an experiment that learns, beside its rivals; `swarm` is the experiment itself."""


def with_exam_tokens(config: ExperimentConfig, run: RunOutcomes) -> ExperimentConfig:
    """Return an arm whose exam may spend what a run has spent in all, the same on each puzzle, and has no other limit.

    Args:
        config: of the arm.
        run: one with an exam of as many puzzles.
    """
    exam = exam_of(config)
    tokens = -(-(_before_exam(run) + sum(puzzle.tokens for puzzle in _exam(run))) // exam.episodes)
    limits = dict.fromkeys(("calls", "actions", "ticks"), None) | {"tokens": tokens}
    budget = {**exam.budget, **limits}
    BudgetConfig(**{**config.budget.model_dump(), **budget})
    return changed(config, "learning", exam=exam.model_copy(update={"budget": budget}))


def exam_outcomes(run: RunOutcomes) -> RunOutcomes:
    """Return a run of which only the exam is left, numbered from 0, each puzzle charged its share of what came before.

    Args:
        run: one that has ended.
    """
    exam = _exam(run)
    each = -(-_before_exam(run) // max(1, len(exam)))
    first = run.config["episodes"]
    return replace(
        run,
        puzzles=[replace(puzzle, episode=puzzle.episode - first, tokens=puzzle.tokens + each) for puzzle in exam],
    )


def _exam(run: RunOutcomes) -> list[PuzzleOutcome]:
    return [puzzle for puzzle in run.puzzles if puzzle.episode >= run.config["episodes"]]


def _before_exam(run: RunOutcomes) -> int:
    """Return the tokens of all rounds and their learning steps."""
    played = sum(puzzle.tokens for puzzle in run.puzzles if puzzle.episode < run.config["episodes"])
    return played + sum(record["cost"].get("tokens", 0) for record in run.changes)


def break_even(curves: Mapping[str, Sequence[int | None]], reference: str) -> dict[str, int | None]:
    """Return for each arm from how many tokens a puzzle on the reference has solved more of them, up to the end.

    Args:
        curves: arm -> tokens at the solution of each puzzle, learning included; None where it was not solved.
        reference: one of them.

    Returns:
        arm -> tokens; None where the reference ends no higher.
    """
    found: dict[str, int | None] = {}
    base = sorted(tokens for tokens in curves[reference] if tokens is not None)
    for arm, curve in curves.items():
        if arm == reference:
            continue
        other = sorted(tokens for tokens in curve if tokens is not None)
        ahead: int | None = None
        for tokens in sorted({*base, *other}):
            rate = sum(spent <= tokens for spent in base) / len(curves[reference])
            more = rate > sum(spent <= tokens for spent in other) / len(curve)
            ahead = (tokens if ahead is None else ahead) if more else None
        found[arm] = ahead
    return found
