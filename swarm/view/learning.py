"""What a run learned, round by round: how puzzles went, which steps were accepted, and what that cost."""

from collections.abc import Sequence
from typing import Any

from swarm.record.outcomes import PuzzleOutcome, RunOutcomes
from swarm.stats import rate_interval
from swarm.view.changes import of_test, short, verdict, who

MAX_CHANGES_SHOWN = 200


def learning_data(run: RunOutcomes) -> dict[str, Any] | None:
    """Return plain data on learning, None for a run whose agents do not learn.

    Returns:
        `rounds`: one row for each that was played, `exam`: rate over its puzzles, None before it.
        `probe`: what the base could do (`first`), how far below it a step may come (`drop`), and the sample `n`; None
        where there is no probe.
        `changes`: the last of them, in words; `num_changes` counts all.
        `cost`: what -> tokens, in the whole run.
    """
    settings = run.config.get("learning")
    if settings is None:
        return None
    last, every = run.config["episodes"], settings["every"]
    played = [puzzle for puzzle in run.puzzles if puzzle.episode < last]
    exam = [puzzle for puzzle in run.puzzles if puzzle.episode >= last]
    numbers = sorted({puzzle.episode // every for puzzle in played})
    changes = [record for record in run.changes if record["memory"] == "delta"]
    first = next((entry for record in changes for entry in record["tests"] if entry["name"] == "probe"), None)
    return {
        "rounds": [
            _round(number, [puzzle for puzzle in played if puzzle.episode // every == number], run)
            for number in numbers
        ],
        "exam": _rate(exam) if exam else None,
        "probe": first and {"first": first["before"], "drop": first["limit"], "n": first["n"]},
        "changes": [
            {
                "round": record["settings"].get("round", -1) + 1 or "",
                "whose": who(record),
                "what came of it": verdict(record),
                "version": short(record["result"]),
                "acceptance test": ", ".join(map(of_test, record["tests"])),
                "note": record["note"],
                "tokens": record["cost"].get("tokens", 0),
            }
            for record in changes[-MAX_CHANGES_SHOWN:]
        ],
        "num_changes": len(changes),
        "cost": {
            "play": sum(puzzle.tokens for puzzle in (*run.puzzles, *run.running)),
            "learning and its tests": sum(record["cost"].get("tokens", 0) for record in changes),
            "trained on, each charged as three": sum(record["cost"].get("trained_tokens", 0) for record in changes),
            "read and written in tests": sum(record["cost"].get("test_tokens", 0) for record in changes),
        },
    }


def _round(number: int, puzzles: Sequence[PuzzleOutcome], run: RunOutcomes) -> dict[str, Any]:
    changes = [r for r in run.changes if r["settings"].get("round") == number and r["cause"] in ("learn", "share")]
    probes = [e["after"] for r in changes if r["accepted"] for e in r["tests"] if e["name"] == "probe"]
    learned = [record for record in changes if record["cause"] == "learn"]
    return {
        "round": number + 1,
        **_rate(puzzles),
        "reward": sum(puzzle.reward for puzzle in puzzles) / len(puzzles),
        "accepted": sum(record["accepted"] for record in learned),
        "rejected": sum(not record["accepted"] and bool(record["result"]) for record in learned),
        "nothing": sum(not record["result"] for record in learned),
        "tokens": sum(record["cost"].get("tokens", 0) for record in changes),
        "probe": sum(probes) / len(probes) if probes else None,
    }


def _rate(puzzles: Sequence[PuzzleOutcome]) -> dict[str, Any]:
    solved = [puzzle.solved for puzzle in puzzles]
    interval = rate_interval(solved, [puzzle.puzzle for puzzle in puzzles])
    return {"puzzles": len(puzzles), "solved": sum(solved), "solve_rate": interval._asdict()}
