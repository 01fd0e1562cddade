"""Writes a comparison for people and programs: table.txt, comparison.json, two plots and report.html.

`comparison_data` is what comparison.json holds and what the page shows; the page's words and layout are in
`report.html`. Ties and losses stand beside the headline, never below it. Results come from `swarm.compare.analysis`.
"""

import dataclasses
import io
import json
import platform
import re
import shlex
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Column, Table

from swarm.compare.analysis import MARKS, ArmRow, Comparison
from swarm.compare.arms import BUILT_IN
from swarm.compare.plots import plot_coverage, plot_rates
from swarm.figures import to_png
from swarm.process.machine import cores
from swarm.record.outcomes import RunOutcomes
from swarm.stats import format_interval, format_rate
from swarm.view.page import render, write

_WIDTH = 100


def provenance() -> dict[str, Any]:
    """Return how and where this comparison was made: command, date, hardware, versions."""
    installed = {found.name: found.version for found in distributions()}
    shown = ("ulm-swarm", "torch", "ray", "transformers", "numpy")
    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "hardware": f"{cores()} cores, {_cpu_name()}, {platform.machine()}; {_gpu_name()}",
        "versions": {
            "python": platform.python_version(),
            **{name: installed.get(name, "not installed") for name in shown},
        },
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
    curves = {row.arm: row.coverage for row in comparison.rows}
    pictures = {
        "solve_rate": to_png(plot_rates([row for row in comparison.rows if row.rates], comparison.reference)),
        "coverage": to_png(plot_coverage(curves, comparison.budget, comparison.reference, MARKS, comparison.learns)),
    }
    for name, picture in pictures.items():
        write(out / f"{name}.png", picture)
    write(out / "table.txt", table_text(comparison))
    data = comparison_data(comparison, runs, source)
    write(out / "comparison.json", json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    tables = {"results": _result_cells(comparison), "costs": _cost_cells(comparison)}
    page = render(Path(__file__).with_suffix(".html"), {**data, "tables": tables, "pictures": pictures})
    write(out / "report.html", page)


def table_text(comparison: Comparison) -> str:
    """Return both tables, verdicts and flags as plain text for a terminal."""
    buffer = io.StringIO()
    console = Console(file=buffer, width=_WIDTH, color_system=None, highlight=False, markup=False, emoji=False)
    console.print(_setting(comparison))
    for head, rows in (_result_cells(comparison), _cost_cells(comparison)):
        columns = (Column(name, justify="right", vertical="bottom") for name in head[1:])
        table = Table(
            Column(head[0], no_wrap=True), *columns, box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1)
        )
        for row in rows:
            table.add_row(*row)
        console.print("", table, sep="\n")
    console.print()
    for heading, lines in (
        ("Verdicts", [verdict.text for verdict in comparison.verdicts]),
        (f"Where {comparison.reference} ties or loses", comparison.setbacks or ["nowhere"]),
        ("Break-even", _break_even(comparison)),
        ("! Departures from equal terms", [f"{row.arm}: {flag}" for row in comparison.rows for flag in row.flags]),
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
    per = "tokens per puzzle at most, learning included" if comparison.learns else "tokens per puzzle"
    puzzles = f"{comparison.episodes} {'exam ' * comparison.learns}puzzles"
    return (
        f"{comparison.name} on {comparison.world}: {puzzles} x seeds {seeds}, "
        f"{comparison.budget:,} {per}, {comparison.resamples:,} resamples"
    )


def _break_even(comparison: Comparison) -> list[str]:
    """Return in words from when on learning was worth it."""
    return [
        f"{comparison.reference} never gets ahead of {arm} for good"
        if tokens is None
        else f"{comparison.reference} is ahead of {arm} from {tokens:,} tokens per puzzle on, learning included"
        for arm, tokens in comparison.break_even.items()
    ]


def _label(row: ArmRow) -> str:
    return f"{row.arm} !" if row.flags else row.arm


def _result_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    head = ["arm", "n", "solved [95 %]", "at 1/2", "at 1/4", f"{comparison.reference} - arm [95 %]"]
    return head, [
        [
            _label(row),
            str(row.n),
            format_interval(row.rates[1.0]) if row.rates else "",
            *(format_rate(row.rates[mark].estimate) if row.rates else "" for mark in MARKS[1:]),
            format_interval(row.differences[0].interval, signed=True) if row.differences else "",
        ]
        for row in comparison.rows
    ]


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
    return head, [
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


def _number(value: float | None, digits: int = 0) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _headline(comparison: Comparison) -> str:
    rows = {row.arm: row for row in comparison.rows}
    reference = rows[comparison.reference]
    if not reference.rates:
        return f"{comparison.reference} ended no puzzle."
    rate = format_interval(reference.rates[1.0])
    text = f"{comparison.reference} solved {rate} of {reference.n} puzzles within {comparison.budget:,} tokens each."
    if "solo" in rows and rows["solo"].differences:
        difference, rate = rows["solo"].differences[0], format_interval(rows["solo"].rates[1.0])
        gain = f"{comparison.reference} {difference.outcome} it by {format_interval(difference.interval, signed=True)}"
        text += f" One agent alone solved {rate} with the same tokens: {gain}."
    behind = [row.arm for row in comparison.rows if row.differences and row.differences[0].outcome != "beats"]
    return f"{text} It does not beat {', '.join(behind)}." if behind else text


def comparison_data(
    comparison: Comparison, runs: Mapping[str, Sequence[RunOutcomes]], source: Mapping[str, Any]
) -> dict[str, Any]:
    """Return all there is to say of a comparison: plain data, as JSON holds it.

    Args:
        comparison: the analysed result; its fields are kept under their names, but for the curves of the rows.
        runs: arm -> its runs in the order of the seeds.
        source: from `provenance`, kept as it is.

    Returns:
        Beside these, `headline` and `setting` as sentences; `questions`, one for each arm that ran or does not apply,
        with its answer; `arms`, what each arm changes against the reference, its runs and the outcome of each puzzle.
    """
    data: dict[str, Any] = _plain(comparison)
    for row in data["rows"]:
        del row["coverage"]  # the outcomes below say the same and more
    asked = [(row.arm, row.title, row.question, "") for row in comparison.rows]
    asked += [(arm, BUILT_IN[arm].title, BUILT_IN[arm].question, reason) for arm, reason in comparison.skipped.items()]
    answers = {verdict.arm: {"question": verdict.question, "answer": verdict.text} for verdict in comparison.verdicts}
    base = _flat(runs[comparison.reference][0].config)
    return {
        "format": 1,
        **data,
        "headline": _headline(comparison),
        "setting": _setting(comparison),
        "break_even_lines": _break_even(comparison),
        "questions": [
            {"arm": arm, "title": title, "question": question, "answer": reason, **answers.get(arm, {})}
            for arm, title, question, reason in asked
        ],
        "arms": {
            arm: {"changes": _changes(base, _flat(of_arm[0].config)), "runs": [_run_data(run) for run in of_arm]}
            for arm, of_arm in runs.items()
        },
        "provenance": dict(source),
    }


def _run_data(run: RunOutcomes) -> dict[str, Any]:
    shown = ("episode", "solved", "reason", "tokens", "rounds", "calls")
    return {
        "folder": run.run_dir.name,
        "ended": run.end_reason,
        "journal_hash": run.journal_hash,
        "checkpoints": run.checkpoints,
        "config": run.config,
        "outcomes": [{name: getattr(puzzle, name) for name in shown} for puzzle in run.puzzles],
    }


def _changes(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings, dotted, in which a run departs from the base; its name is none."""
    keys = sorted(base.keys() | other.keys())
    return {key: other.get(key) for key in keys if key != "name" and base.get(key) != other.get(key)}


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flat(inner, f"{prefix}{key}.") if isinstance(inner, Mapping) else {prefix + key: inner}
    return flat


def _plain(value: Any) -> Any:
    """Return dataclasses and named tuples as dicts, all the way down, with string keys."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    elif dataclasses.is_dataclass(value):
        value = vars(value)
    if isinstance(value, Mapping):
        return {f"{key:g}" if isinstance(key, float) else key: _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value


def _cpu_name() -> str:
    about = Path("/proc/cpuinfo")
    text = about.read_text(encoding="utf-8", errors="replace") if about.exists() else ""
    found = re.search(r"^model name\s*:(.*)", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or "unknown CPU"


def _gpu_name() -> str:
    torch = sys.modules.get("torch")  # not worth importing for a line; a run that used a GPU has loaded it
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_available() else "no GPU"
