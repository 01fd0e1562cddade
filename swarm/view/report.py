"""The report of one run: outcome, costs, plots and one puzzle as it went, in one page.

`report_data` reads the run's journal and telemetry, streams both, and loads no model, world or Ray; whatever shows a
run (the page here, a browser) reads what it returns. The words and the layout are in `report.html`. For comparisons of
arms see `swarm.compare.report`.
"""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from swarm.figures import to_png
from swarm.identity import work_folder
from swarm.record.journal import JOURNAL_NAME, read_records
from swarm.record.outcomes import PuzzleOutcome, RunOutcomes, read_run
from swarm.record.records import ChangeRecord
from swarm.stats import rate_interval
from swarm.view.learning import learning_data
from swarm.view.page import render, write
from swarm.view.plots import plot_learning, plot_puzzles, plot_token_parts

MAX_TRANSCRIPT_ROUNDS = 200


def write_report(run_dir: Path, out: Path | None = None) -> Path:
    """Write report.html for a finished or a still unfinished run.

    Args:
        run_dir: the run folder.
        out: where to, a new folder or one with a report; None for `report` in the run folder.

    Returns:
        The path of the page.

    Raises:
        SwarmError: there is no readable journal, or the page cannot be written.
    """
    data = report_data(run_dir)
    learning = data["learning"]
    pictures = {
        "learning": to_png(plot_learning(learning)) if learning and learning["rounds"] else b"",
        "puzzles": to_png(plot_puzzles(data["puzzles"], data["budget_tokens"])),
        "tokens_by_part": to_png(plot_token_parts(data["tokens_by_part"])),
    }
    page = render(Path(__file__).with_suffix(".html"), {**data, "pictures": pictures})
    if out is None:
        return write(run_dir / "report" / "report.html", page)
    with work_folder(out, "report"):
        return write(out / "report.html", page)


def report_data(run_dir: Path) -> dict[str, Any]:
    """Return what there is to say of the run in a folder: plain data, as JSON holds it.

    Returns:
        Names, counts and settings under these keys, among them:
        `episodes`: puzzles that were asked for. `end_reason`: None while the run has not finished.
        `puzzles`: the ended ones, with the fields of `PuzzleOutcome`. `ended_by`: reason -> count, the commonest first.
        `solve_rate`: `estimate`, `low`, `high` (95 % bootstrap over puzzles); None before the first puzzle ended. It
        and `num_solved` leave out the exam.
        `learning`: what `swarm.view.learning.learning_data` returns, None where agents do not learn.
        `means`: what -> `mean` and `largest` over puzzles, tokens first.
        `tokens_by_part`: who read or wrote them -> tokens over the whole run, running puzzles included.
        `faults`: the first of them; `num_faults` counts all.
        `budget_tokens`: per puzzle, None without a limit. `wall_s`: 0 without telemetry.
        `first_solved`: that puzzle as it went, None where none is solved. `observations`: what each agent sees at its
        start, `steps`: one row per action.
        `checkpoints`: path -> sha256. `config`: all logical settings.

    Raises:
        SwarmError: there is no readable journal.
    """
    run = read_run(run_dir)
    config, puzzles = run.config, run.puzzles
    solved = [puzzle for puzzle in puzzles if puzzle.solved]
    played = [puzzle for puzzle in puzzles if puzzle.episode < config["episodes"]]
    rate = rate_interval([p.solved for p in played], [p.puzzle for p in played])._asdict() if played else None
    agents = config["agents"]
    return {
        "name": str(config.get("name", run_dir.name)),
        "seed": config["seed"],
        "world": config["world"]["id"],
        "agents": f"{agents['count']} ({agents['engine']['kind']}, {agents['turns'].replace('_', ' ')})",
        "coordinator": config["coordinator"]["kind"],
        "topology": config["topology"]["kind"],
        "episodes": config["episodes"],
        "budget_tokens": config["budget"]["tokens"],
        "end_reason": run.end_reason,
        "puzzles": [asdict(puzzle) for puzzle in puzzles],
        "num_solved": sum(puzzle.solved for puzzle in played),
        "num_played": len(played),
        "solve_rate": rate,
        "means": {
            what: {"mean": sum(values) / len(values), "largest": max(values)}
            for what, values in (
                ("tokens per puzzle", [puzzle.tokens for puzzle in puzzles]),
                ("tokens until solved", [puzzle.tokens for puzzle in solved]),
                ("rounds until solved", [puzzle.rounds for puzzle in solved]),
                ("model calls per puzzle", [puzzle.calls for puzzle in puzzles]),
            )
            if values
        },
        "actions": sum(puzzle.actions for puzzle in puzzles),
        "invalid_actions": sum(puzzle.invalid_actions for puzzle in puzzles),
        "ended_by": dict(Counter(sorted(puzzle.reason for puzzle in puzzles)).most_common()),
        "tokens_by_part": _tokens_by_part([*puzzles, *run.running], run.changes),
        "learning": learning_data(run),
        "faults": [asdict(fault) for fault in run.faults],
        "num_faults": run.num_faults,
        "host_deaths": run.telemetry.host_deaths,
        "resumes": run.telemetry.resumes,
        "wall_s": run.telemetry.wall_s,
        "agent_steps": run.telemetry.agent_steps,
        "first_solved": _transcript(run, min(solved, key=lambda puzzle: puzzle.episode)) if solved else None,
        "journal_hash": run.journal_hash,
        "num_records": run.num_records,
        "checkpoints": run.checkpoints,
        "config": config,
    }


def _tokens_by_part(puzzles: list[PuzzleOutcome], changes: list[ChangeRecord]) -> dict[str, int]:
    parts = {
        "agents read": sum(p.agent_prompt_tokens for p in puzzles),
        "agents write": sum(p.agent_generated_tokens for p in puzzles),
        "coordinator reads": sum(p.coordinator_prompt_tokens for p in puzzles),
        "coordinator writes": sum(p.coordinator_generated_tokens for p in puzzles),
    }
    parts["charged otherwise"] = sum(p.tokens for p in puzzles) - sum(parts.values())
    parts["learning"] = sum(record["cost"].get("tokens", 0) for record in changes)
    return {name: tokens for name, tokens in parts.items() if tokens}


def _transcript(run: RunOutcomes, puzzle: PuzzleOutcome) -> dict[str, Any]:
    """Return a puzzle as it went, from a second pass over the journal."""
    observations: dict[str, str] = {}
    steps: list[dict[str, Any]] = []
    directives: dict[str, str] = {}
    for record in read_records(run.run_dir / JOURNAL_NAME, verify=False):
        if record["kind"] == "episode" and record["episode"] == puzzle.episode:
            observations = {entry["agent"]: entry["observation"] for entry in record["agents"]}
        elif record["kind"] == "tick" and record["episode"] == puzzle.episode:
            if record["tick"] == MAX_TRANSCRIPT_ROUNDS:
                break
            if record["coordinator"] is not None:
                directives = dict(record["directives"])  # they stay in force until the coordinator's next turn
            steps += [
                {
                    "tick": record["tick"],
                    "agent": entry["agent"],
                    "directive": directives.get(entry["agent"], ""),
                    "action": entry["action"],
                    "feedback": f"fault: {entry['fault']}" if entry.get("fault") else entry["feedback"],
                    "report": entry.get("report", ""),
                }
                for entry in record["agents"]
            ]
        elif record["kind"] == "episode_end" and record["episode"] == puzzle.episode:
            break
    return {
        "episode": puzzle.episode,
        "goal": puzzle.goal,
        "solution": puzzle.solution,
        "tokens": puzzle.tokens,
        "rounds": puzzle.rounds,
        "rounds_shown": min(puzzle.rounds, MAX_TRANSCRIPT_ROUNDS),
        "observations": observations,
        "steps": steps,
    }
