"""Writes the report of one run: outcome, costs, plots and one puzzle as it went, in one page.

Owns the page's contents. It reads the run's journal and telemetry and nothing else, streams both, and
refuses to load models, worlds or Ray. For comparisons of arms see `swarm.compare.runs`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from swarm.record.journal import JOURNAL_NAME, Record, read_records
from swarm.record.outcomes import PuzzleOutcome, RunOutcomes, read_run
from swarm.stats import format_interval, rate_interval
from swarm.view import html as h
from swarm.view.plots import plot_puzzles, plot_token_parts

__all__ = ["write_report"]

MAX_TRANSCRIPT_ROUNDS = 200


def write_report(run_dir: Path) -> Path:
    """Write `report/report.html` in a run folder, for a finished or a still unfinished run.

    Returns:
        The path of the page.

    Raises:
        SwarmError: there is no readable journal, or the page cannot be written.
    """
    run = read_run(run_dir)
    name = str(run.config.get("name", run_dir.name))
    parts: list[object] = [
        h.paragraph(_outcome(run), "lead"),
        h.section("Result", h.facts(_results(run))),
    ]
    if run.puzzles:
        budget = run.config["budget"]["tokens"]
        picture = plot_puzzles([(p.episode, p.tokens, p.solved) for p in run.puzzles], budget)
        parts.append(h.section("Puzzles", h.image(picture, "tokens used by each puzzle, solved or not"), _ends(run)))
    if tokens := _token_parts(run):
        picture = plot_token_parts(tokens)
        parts.append(h.section("Tokens by part", h.image(picture, "tokens used by each part of the run")))
    parts.append(h.section("Faults and recovery", *_faults(run)))
    parts.append(_transcript_section(run))
    parts.append(h.section("Checkpoints and hashes", h.facts(_hashes(run))))
    parts.append(h.section("Configuration", h.preformatted(json.dumps(run.config, indent=2, sort_keys=True))))
    title = f"{name}, seed {run.config.get('seed')}"
    return h.write(run_dir / "report" / "report.html", h.page(title, *parts))


def _outcome(run: RunOutcomes) -> str:
    solved = sum(puzzle.solved for puzzle in run.puzzles)
    asked = run.config["episodes"]
    text = f"Solved {solved} of {len(run.puzzles)} puzzles"
    if run.end_reason is None:
        return f"{text} so far; the run has not finished ({len(run.puzzles)} of {asked} puzzles ended)."
    if run.end_reason != "finished":
        return f"{text}, {asked} were asked for; the run was stopped by '{run.end_reason}'."
    return f"{text}; the run finished."


def _results(run: RunOutcomes) -> dict[str, object]:
    puzzles = run.puzzles
    results: dict[str, object] = {
        "world": run.config["world"]["id"],
        "agents": f"{run.config['agents']['count']} ({run.config['agents']['engine']['kind']}, "
        f"{run.config['agents']['turns'].replace('_', ' ')})",
        "coordinator": run.config["coordinator"]["kind"],
        "topology": run.config["topology"]["kind"],
    }
    if puzzles:
        clusters = [puzzle.puzzle for puzzle in puzzles]
        rate = rate_interval([puzzle.solved for puzzle in puzzles], clusters)
        results["solve rate"] = f"{format_interval(rate)} (95 % bootstrap over puzzles, n = {len(puzzles)})"
        results["tokens per puzzle"] = _mean_of([p.tokens for p in puzzles]) + _share_of_budget(run)
        solved = [puzzle for puzzle in puzzles if puzzle.solved]
        if solved:
            results["tokens until solved"] = _mean_of([p.tokens for p in solved])
            results["rounds until solved"] = _mean_of([p.rounds for p in solved])
        results["model calls per puzzle"] = _mean_of([p.calls for p in puzzles])
        actions = sum(p.actions for p in puzzles)
        illegal = sum(p.invalid_actions for p in puzzles)
        if actions:
            results["illegal actions"] = f"{illegal:,} of {actions:,} ({illegal / actions:.1%})"
    seconds = run.telemetry.wall_s
    if seconds > 0:
        results["wall time"] = f"{seconds:,.1f} s, {run.telemetry.agent_steps / seconds:,.1f} agent-steps/s"
    return results


def _mean_of(values: list[int]) -> str:
    return f"mean {sum(values) / len(values):,.1f}, largest {max(values):,}"


def _share_of_budget(run: RunOutcomes) -> str:
    budget = run.config["budget"]["tokens"]
    if budget is None:
        return "; no token budget"
    used = sum(puzzle.tokens for puzzle in run.puzzles) / (budget * len(run.puzzles))
    return f"; {used:.0%} of the budget of {budget:,}"


def _ends(run: RunOutcomes) -> h.Html:
    reasons: dict[str, int] = {}
    for puzzle in run.puzzles:
        reasons[puzzle.reason] = reasons.get(puzzle.reason, 0) + 1
    rows = sorted(reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    return h.table(["puzzles ended by", "count"], rows)


def _token_parts(run: RunOutcomes) -> dict[str, int]:
    puzzles = [*run.puzzles, *run.running]
    parts = {
        "agents read": sum(p.agent_prompt_tokens for p in puzzles),
        "agents write": sum(p.agent_generated_tokens for p in puzzles),
        "coordinator reads": sum(p.coordinator_prompt_tokens for p in puzzles),
        "coordinator writes": sum(p.coordinator_generated_tokens for p in puzzles),
    }
    rest = sum(p.tokens for p in puzzles) - sum(parts.values())
    if rest:
        parts["charged otherwise"] = rest
    return {name: tokens for name, tokens in parts.items() if tokens}


def _faults(run: RunOutcomes) -> list[h.Html]:
    parts = [
        h.paragraph(
            f"{run.num_faults} faults, {len(run.telemetry.host_deaths)} host deaths, {run.telemetry.resumes} resumes."
        )
    ]
    if run.faults:
        rows = [(fault.episode, fault.tick, fault.who, fault.text) for fault in run.faults]
        parts.append(h.table(["puzzle", "tick", "who", "what"], rows, text=True))
        if run.num_faults > len(run.faults):
            parts.append(h.paragraph(f"The first {len(run.faults)} are shown.", "note"))
    if run.telemetry.host_deaths:
        parts.append(h.items(run.telemetry.host_deaths))
    return parts


def _transcript_section(run: RunOutcomes) -> h.Html:
    solved = [puzzle for puzzle in run.puzzles if puzzle.solved]
    if not solved:
        return h.section("A puzzle as it went", h.paragraph("No puzzle was solved."))
    first = min(solved, key=lambda puzzle: puzzle.episode)
    return h.section(f"The first solved puzzle: number {first.episode}", *_transcript(run, first))


def _transcript(run: RunOutcomes, puzzle: PuzzleOutcome) -> list[h.Html]:
    """Return goal, views, and one row per action of a puzzle, from a second pass over the journal."""
    parts = [
        h.facts(
            {
                "goal": puzzle.goal,
                "solution": puzzle.solution or "not recorded",
                "cost": f"{puzzle.tokens:,} tokens, {puzzle.rounds} rounds",
            }
        )
    ]
    rows: list[tuple[object, ...]] = []
    directives: dict[str, str] = {}
    for record in read_records(run.run_dir / JOURNAL_NAME, verify=False):
        if record.get("episode") != puzzle.episode:
            continue
        if record["kind"] == "episode":
            parts.append(h.table(["agent", "sees"], record["observations"].items(), text=True))
        elif record["kind"] == "tick":
            if record["coordinator"] is not None:
                directives = record["directives"]  # they stay in force until the coordinator speaks again
            if record["tick"] < MAX_TRANSCRIPT_ROUNDS:
                rows += _transcript_rows(record, directives)
        elif record["kind"] == "episode_end":
            break
    parts.append(h.table(["tick", "agent", "directive", "action", "feedback", "report"], rows, text=True))
    if puzzle.rounds > MAX_TRANSCRIPT_ROUNDS:
        parts.append(h.paragraph(f"The first {MAX_TRANSCRIPT_ROUNDS} rounds are shown.", "note"))
    return parts


def _transcript_rows(record: Record, directives: dict[str, str]) -> list[tuple[object, ...]]:
    def row(entry: dict[str, Any]) -> tuple[object, ...]:
        feedback = f"fault: {entry['fault']}" if entry.get("fault") else entry["feedback"]
        directive = directives.get(entry["agent"], "")
        return record["tick"], entry["agent"], directive, entry["action"], feedback, entry.get("report") or ""

    return [row(entry) for entry in record["agents"]]


def _hashes(run: RunOutcomes) -> dict[str, object]:
    return {
        "journal": f"{run.journal_hash} ({run.num_records:,} records, chain verified)",
        **{f"checkpoint {path}": digest for path, digest in run.checkpoints.items()},
    }
