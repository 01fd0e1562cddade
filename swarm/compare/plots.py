"""Draws a comparison: coverage over budget, solve rates, a sweep over a setting.

Every arm has a colour and a line of its own, labelled in place.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, cycle
from typing import Any

from swarm.compare.analysis import ArmRow
from swarm.figures import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    add_legend,
    new_figure,
    style_axes,
    thousands,
    whiskers,
)
from swarm.stats import Interval, solved_by_budget

_STYLES: dict[str, tuple[str, Any]] = {
    "swarm": (BLUE, "-"),
    "solo": (VERMILLION, "-"),
    "solo_split": (ORANGE, "-"),
    "time_slice": (GREEN, "-"),
    "independent": (VERMILLION, "--"),
    "no_messages": (GREY, ":"),
    "rules": (SKY, (0, (6, 1.5))),
    "shuffled": (PURPLE, "--"),
    "random": (INK, ":"),
    "memory_off": (BLUE, ":"),
    "solo_memory_off": (VERMILLION, ":"),
    "private_memory": (GREEN, "--"),
    "shuffled_memory": (PURPLE, ":"),
    "capacity_1": (ORANGE, ":"),
}
_RIVALS = ("#332288", "#882255", "#117733", "#999933", "#AA4499", "#44AA99")
"""Colours of arms that a file names, in their order."""


def plot_coverage(
    curves: Mapping[str, Sequence[int | None]],
    budget: int,
    reference: str,
    marks: Sequence[float],
    learns: bool = False,
) -> Any:
    """Return a figure of the share of puzzles solved against tokens used, one curve per arm.

    Args:
        curves: arm -> tokens at the solution of each puzzle, None where it was not solved.
        budget: tokens per puzzle, the right end of the axis.
        reference: the arm drawn boldest.
        marks: shares of the budget that get a vertical line and a dot on each curve.
        learns: whether the tokens include a share of what learning took.
    """
    figure = new_figure(9.0, 5.4, layout=None)
    room = 0.008 * max(len(f"{name}  0.00") for name in ["swarm", *curves])  # for the labels at the right
    axes = figure.add_axes((0.085, 0.125, min(0.70, (0.905 - room) / 1.085), 0.745))
    styles = _styles(curves)
    grid = [budget * step / 400 for step in range(401)]
    places = [mark * budget for mark in marks]
    ends: dict[str, float] = {}
    for name, spent in curves.items():
        if not spent:
            continue
        bold = name == reference
        rates = solved_by_budget(spent, grid)
        axes.plot(
            grid,
            rates,
            **styles[name],
            linewidth=3.0 if bold else 1.8,
            drawstyle="steps-post",
            zorder=4 if bold else 3,
        )
        axes.plot(
            places,
            solved_by_budget(spent, places),
            "o",
            color=styles[name]["color"],
            markersize=6 if bold else 4.5,
            markeredgecolor="white",
            markeredgewidth=0.8,
            zorder=5,
            clip_on=False,
        )
        ends[name] = float(rates[-1])
    for mark in sorted(marks):
        axes.axvline(mark * budget, color=GREY, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
        label = {1.0: "full budget", 0.5: "1/2", 0.25: "1/4"}.get(mark, f"{mark:g}")
        axes.annotate(
            f"{label}\n{mark * budget:,.0f}",
            (mark * budget, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=INK,
        )
    _label_ends(axes, ends, reference, styles)
    axes.set_xlim(0, budget)
    axes.set_ylim(0, 1.02)
    axes.xaxis.set_major_formatter(thousands)
    style_axes(
        axes,
        "Solve rate against tokens used",
        "tokens per puzzle of the exam, rounds and learning included"
        if learns
        else "tokens used per puzzle: prompts, actions, messages and coordinator",
        "share of puzzles solved",
        pad=34,
    )
    return figure


def plot_sweep(rates: Mapping[str, Mapping[str, Interval]], setting: str) -> Any:
    """Return a figure of solve rates with intervals over the values of a setting, one line per arm.

    Args:
        rates: value -> arm -> rate at the full budget.
        setting: what the values are of.
    """
    figure = new_figure(8.0, 4.8)
    axes = figure.add_subplot()
    values = list(rates)
    arms = list(dict.fromkeys(arm for found in rates.values() for arm in found))
    styles = _styles(arms)
    for number, arm in enumerate(arms):
        shown = [(place, rates[value][arm]) for place, value in enumerate(values) if arm in rates[value]]
        axes.errorbar(
            [place + (number - len(arms) / 2) * 0.03 for place, _ in shown],
            [rate.estimate for _, rate in shown],
            yerr=whiskers([rate for _, rate in shown]),
            **styles[arm],
            marker="osDv^X"[number % 6],
            capsize=3,
            linewidth=2.4 if arm == "swarm" else 1.6,
            label=arm,
        )
    axes.set_xticks(range(len(values)), [value.replace("$", r"\$") for value in values])  # no formulas
    axes.set_ylim(-0.02, 1.04)
    style_axes(axes, f"Solve rate over {setting}", setting, "share of puzzles solved, equal tokens")
    add_legend(axes, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def plot_rates(rows: Sequence[ArmRow], reference: str) -> Any:
    """Return a figure with horizontal bars of solve rates at the full budget with their intervals."""
    figure = new_figure(9.0, 1.15 + 0.46 * max(1, len(rows)))
    axes = figure.add_subplot()
    places, rates = range(len(rows)), [row.rates[1.0] for row in rows]
    ends = [rate.estimate for rate in rates]
    weights = ["bold" if row.arm == reference else "normal" for row in rows]
    axes.barh(places, ends, height=0.62, color=[BLUE if row.arm == reference else "#B8C4CE" for row in rows], zorder=2)
    axes.errorbar(
        ends,
        places,
        xerr=whiskers(rates),
        fmt="none",
        ecolor=INK,
        elinewidth=1.3,
        capsize=3.5,
        zorder=3,
        clip_on=False,
    )
    for place, rate, weight in zip(places, rates, weights, strict=True):
        axes.annotate(
            f"{rate.estimate:.3f}",
            (max(rate.high, rate.estimate), place),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            fontweight=weight,
            color=INK,
            annotation_clip=False,
        )
    axes.set_yticks(places, [f"{row.arm}\n{row.title}" if row.title != row.arm else row.arm for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.0)
    counts = sorted({row.n for row in rows}) or [0]
    shown = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    words = f"share of puzzles solved within the full budget, with 95 % interval (n = {shown} per arm)"
    style_axes(axes, "Solve rate at equal tokens", words, grid="x")
    for label, weight in zip(axes.get_yticklabels(), weights, strict=True):
        label.set(fontsize=8.5, fontweight=weight)
    return figure


def _styles(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return colour and line of each curve; those of arms that have none of their own are told apart by colour."""
    rivals = (name for name in names if name not in _STYLES)
    styles = _STYLES | {name: (colour, "-.") for name, colour in zip(rivals, cycle(_RIVALS), strict=False)}
    return {name: {"color": colour, "linestyle": line} for name, (colour, line) in styles.items()}


def _label_ends(axes: Any, ends: Mapping[str, float], reference: str, styles: Mapping[str, Mapping[str, Any]]) -> None:
    """Write each curve's name and end value at the right, pushed apart so that no two overlap."""
    gap = 0.052
    order = sorted(ends, key=lambda name: ends[name])
    raised = accumulate((ends[name] for name in order), lambda below, end: max(end, below + gap))
    lowered = accumulate(reversed([*raised]), lambda above, place: min(place, above - gap), initial=1.01 + gap)
    for name, place in zip(order, [*lowered][:0:-1], strict=True):
        # A short sample of the line ties the name to its curve without relying on colour.
        axes.plot(
            [1.012, 1.03, 1.075],
            [ends[name], place, place],
            **styles[name],
            linewidth=2.4 if name == reference else 1.6,
            transform=axes.get_yaxis_transform(),
            clip_on=False,
        )
        axes.annotate(
            f"{name}  {ends[name]:.2f}",
            (1.085, place),
            xycoords=axes.get_yaxis_transform(),
            va="center",
            fontsize=9.5,
            fontweight="bold" if name == reference else "normal",
            color=INK,
            annotation_clip=False,
        )
