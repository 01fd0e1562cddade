"""One comparison for each value of a setting, and where the swarm and the solo change places.

Owns the order of the comparisons, each in a folder of its own, and their summary: `sweep.json`, `sweep.png`, a table.
A sweep that was killed continues when the same command is given again. It refuses to know what the setting means.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from swarm.compare.analysis import Comparison
from swarm.compare.arms import with_settings
from swarm.compare.plots import plot_sweep
from swarm.compare.runs import compare_arms
from swarm.config.experiment import ExperimentConfig
from swarm.errors import SwarmError
from swarm.figures import to_png
from swarm.files import write_whole
from swarm.identity import work_folder
from swarm.stats import Interval, format_interval


def run_sweep(
    config: ExperimentConfig,
    source: Path,
    out: Path,
    arms: Sequence[str] = (),
    seeds: Sequence[int] = (),
    echo: Callable[[str], None] = print,
) -> None:
    """Run what is missing of all comparisons and write the summary; arguments as for `compare_arms`.

    Raises:
        SwarmError: the key is no setting, or as `compare_arms`.
    """
    plan = config.compare
    if plan is None or not plan.sweep:
        raise SwarmError("this experiment has no compare.sweep")
    each = config.model_copy(update={"compare": plan.model_copy(update={"sweep": {}})})
    ((key, values),) = plan.sweep.items()
    name = key.rpartition(".")[2]
    planned = {str(value): with_settings(each, {key: value}, "compare.sweep") for value in values}
    with work_folder(out, "sweep"):
        found: dict[str, Comparison] = {}
        for value, one in planned.items():
            echo(f"== {key} = {value}")
            found[value] = compare_arms(one, source, out / f"{name}-{value}", arms, seeds, echo)
            echo("")
        rates = {
            value: {row.arm: row.rates[1.0] for row in result.rows if row.rates} for value, result in found.items()
        }
        differences = {
            value: {row.arm: row.differences[0].interval for row in result.rows if row.differences}
            for value, result in found.items()
        }
        summary: dict[str, Any] = {
            "key": key,
            "rates": _json(rates),
            "swarm_minus": _json(differences),
            "crossover": crossover(differences),
        }
        write_whole(out / "sweep.json", json.dumps(summary, indent=1))
        write_whole(out / "sweep.png", to_png(plot_sweep(rates, name)))
    for value, of_arms in rates.items():
        echo(f"{key} = {value}")
        for arm, rate in of_arms.items():
            ahead = differences[value].get(arm)
            versus = f"   swarm minus it {format_interval(ahead, signed=True)}" if ahead else ""
            echo(f"  {arm:16} {format_interval(rate)}{versus}")
    echo(summary["crossover"])


def crossover(differences: Mapping[str, Mapping[str, Interval]]) -> str:
    """Return at which value the solo overtakes the swarm, as a sentence; a difference is swarm minus solo."""
    if not all("solo" in found for found in differences.values()):
        return "crossover: not measured, for the arm solo was not run"
    ahead = [value for value, found in differences.items() if found["solo"].low > 0]
    behind = [value for value, found in differences.items() if found["solo"].high < 0]
    leads = [value for value, found in differences.items() if found["solo"].estimate < 0]
    if not leads:
        return (
            f"crossover: the solo does not overtake the swarm at any value (swarm ahead at {', '.join(ahead) or '-'})"
        )
    if leads != list(differences)[-len(leads) :]:
        return (
            f"crossover: at no value does the solo get ahead and stay there; it is ahead at {', '.join(leads)} "
            f"(significantly at {', '.join(behind) or 'no value'}), the swarm significantly at "
            f"{', '.join(ahead) or 'no value'}"
        )
    proven = f"significantly from {behind[0]}" if behind else "nowhere significantly"
    return (
        f"crossover: the solo is ahead from {leads[0]} on, {proven}; the swarm is at {', '.join(ahead) or 'no value'}"
    )


def _json(values: Mapping[str, Mapping[str, Interval]]) -> dict[str, dict[str, dict[str, float]]]:
    return {value: {arm: interval._asdict() for arm, interval in found.items()} for value, found in values.items()}
