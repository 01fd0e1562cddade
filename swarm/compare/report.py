"""Writes a comparison for people and programs: table.txt, comparison.json, two plots and report.html.

Owns the wording and layout of these files. Ties and losses stand beside the headline, never below it. It
refuses to compute results (`swarm.compare.analysis`) and to run experiments (`swarm.compare.runs`).
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import platform
import shlex
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from swarm.compare.analysis import MARKS, ArmRow, Comparison
from swarm.compare.arms import ARMS
from swarm.compare.plots import Bar, plot_coverage, plot_rates
from swarm.record.outcomes import RunOutcomes
from swarm.stats import format_interval, format_rate
from swarm.view import html as h

__all__ = ["provenance", "table_text", "write_comparison"]

_WIDTH = 100

METHOD = (
    "Every arm plays the same puzzles under the same seeds and the same token budget per puzzle; prompts, "
    "generated tokens, messages and the coordinator are all charged. A puzzle counts as solved at a mark of "
    "the budget when it was solved with at most so many tokens. Intervals are 95 % percentile intervals of "
    "the bootstrap (Efron 1979) with the puzzle as the unit that is resampled; differences are paired: each "
    "resampled puzzle brings its outcome in both arms. 'Beats' and 'loses' mean that the interval of the "
    "difference excludes 0; all else is a tie. Where an arm solved none or all, the exact binomial bound "
    "replaces the bootstrap's empty interval; a difference of [.000, .000] means that no puzzle told the two "
    "arms apart. 'Not worse' is a non-inferiority test whose margin is stated. Intervals are not "
    "corrected for the number of arms."
)
COSTS = (
    "Means per puzzle. Rounds are means over the puzzles that an arm solved; the ratio to the reference "
    "is taken over the puzzles that both solved. GFLOP = 2 x parameters x tokens (prompt and "
    "generated), agents and coordinator apart; it ignores attention and caching, is 0 where no model "
    "runs and blank where the size of a model is unknown. Wall time is that of all the arm's runs "
    "together, with as many puzzles in flight as the experiment's `concurrency`: throughput, not the "
    "latency of one puzzle."
)


def provenance() -> dict[str, Any]:
    """Return how and where this comparison was made: command, date, hardware, versions."""
    versions = {"python": platform.python_version()}
    for name in ("ulm-swarm", "torch", "ray", "transformers", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "hardware": f"{cores} cores, {_cpu_name()}, {platform.machine()}; {_gpu_name()}",
        "versions": versions,
    }


def write_comparison(
    out: Path, comparison: Comparison, runs: Mapping[str, Sequence[RunOutcomes]], source: Mapping[str, Any]
) -> None:
    """Write all files of a comparison into `out`.

    Args:
        out: existing or new folder.
        comparison: the analysed result.
        runs: arm -> its runs in the order of the seeds.
        source: from `provenance`.

    Raises:
        SwarmError: a file cannot be written.
    """
    reference = comparison.reference
    coverage = plot_coverage({row.arm: row.coverage for row in comparison.rows}, comparison.budget, reference, MARKS)
    rates = plot_rates(
        [Bar(row.arm, row.title, row.rates[1.0], row.n) for row in comparison.rows if row.rates], reference
    )
    h.write(out / "coverage.png", coverage)
    h.write(out / "solve_rate.png", rates)
    h.write(out / "table.txt", table_text(comparison))
    data = _as_json(comparison, runs, source)
    h.write(out / "comparison.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    h.write(out / "report.html", _page(comparison, runs, source, coverage, rates))


def table_text(comparison: Comparison) -> str:
    """Return both tables, verdicts and flags as plain text for a terminal."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=_WIDTH, color_system=None, highlight=False, markup=False, emoji=False)
    console.print(_setting(comparison))
    for head, rows in (_result_cells(comparison), _cost_cells(comparison)):
        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1))
        table.add_column(head[0], no_wrap=True)
        for name in head[1:]:
            table.add_column(name, justify="right", vertical="bottom")
        for row in rows:
            table.add_row(*row)
        console.print()
        console.print(table)
    console.print()
    for heading, lines in (
        ("Verdicts", [verdict.text for verdict in comparison.verdicts]),
        (f"Where {comparison.reference} ties or loses", comparison.setbacks or ["nowhere"]),
        ("! Departures from equal terms", _flag_lines(comparison)),
        ("Not run", [f"{arm}: {reason}" for arm, reason in comparison.skipped.items()]),
    ):
        if lines:
            console.print(heading)
            for line in lines:
                console.print(textwrap.fill(line, _WIDTH, initial_indent="- ", subsequent_indent="  "))
            console.print()
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip().split("\n")) + "\n"


def _setting(comparison: Comparison) -> str:
    seeds = ", ".join(map(str, comparison.seeds))
    return (
        f"{comparison.name} on {comparison.world}: {comparison.episodes} puzzles x seeds {seeds}, "
        f"{comparison.budget:,} tokens per puzzle, {comparison.resamples:,} resamples"
    )


def _label(row: ArmRow) -> str:
    return f"{row.arm} !" if row.flags else row.arm


def _result_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    head = ["arm", "n", "solved [95 %]", "at 1/2", "at 1/4", f"{comparison.reference} - arm [95 %]"]
    rows = []
    for row in comparison.rows:
        full, half, quarter = (row.rates.get(mark) for mark in MARKS)
        rows.append(
            [
                _label(row),
                str(row.n),
                format_interval(full) if full else "",
                format_rate(half.estimate) if half else "",
                format_rate(quarter.estimate) if quarter else "",
                format_interval(row.differences[0].interval, signed=True) if row.differences else "",
            ]
        )
    return head, rows


def _cost_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    head = [
        "arm",
        "tokens",
        "tokens till solved",
        "rounds",
        f"rounds / {comparison.reference}",
        "model calls",
        "GFLOP agents",
        "GFLOP coord.",
        "wall s (all)",
    ]
    rows = [
        [
            _label(row),
            _number(row.tokens),
            _number(row.tokens_until_solved),
            _number(row.rounds, 1),
            _number(row.rounds_ratio, 2),
            _number(row.calls, 1),
            _number(row.gflop_agents, 2),
            _number(row.gflop_coordinator, 2),
            _number(row.wall_s, 1),
        ]
        for row in comparison.rows
    ]
    return head, rows


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _flag_lines(comparison: Comparison) -> list[str]:
    return [f"{row.arm}: {flag}" for row in comparison.rows for flag in row.flags]


def _page(
    comparison: Comparison,
    runs: Mapping[str, Sequence[RunOutcomes]],
    source: Mapping[str, Any],
    coverage: bytes,
    rates: bytes,
) -> str:
    won = [verdict.text for verdict in comparison.verdicts if verdict.outcome == "beats"]
    verdicts = {verdict.arm: verdict for verdict in comparison.verdicts}
    result_head, result_rows = _result_cells(comparison)
    cost_head, cost_rows = _cost_cells(comparison)
    reference = comparison.reference
    strong = next((_label(row) for row in comparison.rows if row.arm == reference), "")
    questions = [
        (row.arm, row.title, verdicts[row.arm].question, verdicts[row.arm].text)
        if row.arm in verdicts
        else (row.arm, row.title, row.question, "")
        for row in comparison.rows
    ] + [(arm, ARMS[arm].title, ARMS[arm].question, reason) for arm, reason in comparison.skipped.items()]
    flags = _flag_lines(comparison)
    return h.page(
        f"{comparison.name}: {reference} against the other arms",
        h.paragraph(_headline(comparison), "lead"),
        h.paragraph(_setting(comparison), "note"),
        h.columns(
            h.section(f"Where {reference} wins", h.items(won) if won else h.paragraph("Nowhere.")),
            h.section(
                f"Where {reference} ties or loses",
                h.items(comparison.setbacks) if comparison.setbacks else h.paragraph("Nowhere."),
            ),
            h.section(
                "Departures from equal terms",
                h.items(flags) if flags else h.paragraph("None found: same puzzles, budget spent by every arm."),
            ),
        ),
        h.section("Results", h.table(result_head, result_rows, strong=strong)),
        h.image(rates, "solve rate of each arm with its interval"),
        h.image(coverage, "share of puzzles solved against tokens used, one curve per arm"),
        h.section("Costs", h.table(cost_head, cost_rows, strong=strong), h.paragraph(COSTS, "note")),
        h.section("What each arm asks", h.table(["arm", "what it is", "question", "answer"], questions, text=True)),
        h.section("Method", h.paragraph(METHOD)),
        h.section("Setting", h.facts(_facts(comparison, source))),
        h.section(
            f"What each arm changes against {reference}",
            h.table(["arm", "changes"], _changes(runs, reference), text=True),
        ),
        h.section(
            "Runs",
            h.table(
                ["run", "ended", "journal hash"],
                [(run.run_dir.name, run.end_reason, run.journal_hash) for each in runs.values() for run in each],
                text=True,
            ),
        ),
        h.section(
            f"Configuration of {reference}",
            h.preformatted(json.dumps(runs[reference][0].config, indent=2, sort_keys=True)),
        ),
    )


def _headline(comparison: Comparison) -> str:
    rows = {row.arm: row for row in comparison.rows}
    reference = rows[comparison.reference]
    if not reference.rates:
        return f"{comparison.reference} ended no puzzle."
    text = f"{comparison.reference} solved {format_interval(reference.rates[1.0])} of {reference.n} puzzles"
    text += f" within {comparison.budget:,} tokens each."
    solo = rows.get("solo")
    if solo is not None and solo.differences:
        difference = solo.differences[0]
        gain = format_interval(difference.interval, signed=True)
        text += f" One agent alone solved {format_interval(solo.rates[1.0])} with the same tokens: "
        text += f"{comparison.reference} {difference.outcome} it by {gain}."
    others = [row for row in comparison.rows if row.differences]
    behind = [row.arm for row in others if row.differences[0].outcome != "beats"]
    if behind:
        text += f" It does not beat {', '.join(behind)}."
    return text


def _facts(comparison: Comparison, source: Mapping[str, Any]) -> dict[str, object]:
    return {
        "command": source["command"],
        "date": source["date"],
        "seeds": ", ".join(map(str, comparison.seeds)),
        "puzzles": f"{comparison.episodes} per seed",
        "hardware": source["hardware"],
        "versions": ", ".join(f"{name} {number}" for name, number in source["versions"].items()),
    }


def _changes(runs: Mapping[str, Sequence[RunOutcomes]], reference: str) -> list[tuple[str, str]]:
    base = _flat(runs[reference][0].config)
    rows = []
    for arm, arm_runs in runs.items():
        changed = _flat(arm_runs[0].config)
        keys = sorted(key for key in base.keys() | changed.keys() if base.get(key) != changed.get(key))
        rows.append((arm, "; ".join(f"{key}: {changed.get(key)}" for key in keys if key != "name") or "nothing"))
    return rows


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            flat |= _flat(inner, f"{prefix}{key}.")
        else:
            flat[prefix + key] = inner
    return flat


def _as_json(
    comparison: Comparison, runs: Mapping[str, Sequence[RunOutcomes]], source: Mapping[str, Any]
) -> dict[str, Any]:
    data: dict[str, Any] = _plain(comparison)
    for row in data["rows"]:
        del row["coverage"]  # `outcomes` below says the same and more
    arms = {
        row.arm: {
            "title": row.title,
            "question": row.question,
            "runs": [
                {
                    "folder": run.run_dir.name,
                    "ended": run.end_reason,
                    "journal_hash": run.journal_hash,
                    "checkpoints": run.checkpoints,
                    "config": run.config,
                    "outcomes": [
                        {
                            "episode": puzzle.episode,
                            "solved": puzzle.solved,
                            "reason": puzzle.reason,
                            "tokens": puzzle.tokens,
                            "rounds": puzzle.rounds,
                            "calls": puzzle.calls,
                        }
                        for puzzle in run.puzzles
                    ],
                }
                for run in runs[row.arm]
            ],
        }
        for row in comparison.rows
    }
    return {"format": 1, **data, "arms": arms, "provenance": dict(source)}


def _plain(value: Any) -> Any:
    """Return dataclasses and named tuples as dicts, all the way down, with string keys."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(inner) for name, inner in value._asdict().items()}
    if isinstance(value, Mapping):
        return {f"{key:g}" if isinstance(key, float) else key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown CPU"


def _gpu_name() -> str:
    torch = sys.modules.get("torch")  # not worth importing for a line; a run that used a GPU has loaded it
    if torch is not None and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return "no GPU"
