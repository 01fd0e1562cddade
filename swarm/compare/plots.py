"""Draws a comparison: coverage over budget, solve rates, a sweep over a setting.

Every arm has a colour and a line of its own, labelled in place.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

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
_RIVALS = ("#332288", "#882255", "#117733", "#999933", "#AA4499")
"""Colours of arms that a file names, in their order."""


class Bar(NamedTuple):
    """One bar of `plot_rates`."""

    name: str
    title: str
    rate: Interval
    num_puzzles: int


def plot_coverage(
    curves: Mapping[str, Sequence[int | None]], budget: int, reference: str, marks: Sequence[float]
) -> Any:
    """Return a figure of the share of puzzles solved against tokens used, one curve per arm.

    Args:
        curves: arm -> tokens at the solution of each puzzle, None where it was not solved.
        budget: tokens per puzzle, the right end of the axis.
        reference: the arm drawn boldest.
        marks: shares of the budget that get a vertical line and a dot on each curve.
    """
    figure = new_figure(9.0, 5.4, layout=None)
    room = 0.008 * max(len(f"{name}  0.00") for name in ["swarm", *curves])  # for the labels at the right
    axes = figure.add_axes((0.085, 0.125, min(0.70, (0.905 - room) / 1.085), 0.745))
    styles = _styles(curves)
    grid = [budget * step / 400 for step in range(401)]
    ends: dict[str, float] = {}
    for name, spent in curves.items():
        if not spent:
            continue
        colour, line = styles[name]
        bold = name == reference
        rates = solved_by_budget(spent, grid)
        at_marks = solved_by_budget(spent, [mark * budget for mark in marks])
        axes.plot(
            grid,
            rates,
            color=colour,
            linestyle=line,
            linewidth=3.0 if bold else 1.8,
            drawstyle="steps-post",
            zorder=4 if bold else 3,
        )
        axes.plot(
            [mark * budget for mark in marks],
            at_marks,
            "o",
            color=colour,
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
    words = "tokens used per puzzle: prompts, actions, messages and coordinator"
    style_axes(axes, "Solve rate against tokens used", words, "share of puzzles solved", pad=34)
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
        colour, line = styles[arm]
        shown = [(place, rates[value][arm]) for place, value in enumerate(values) if arm in rates[value]]
        axes.errorbar(
            [place + (number - len(arms) / 2) * 0.03 for place, _ in shown],
            [rate.estimate for _, rate in shown],
            yerr=whiskers([rate for _, rate in shown]),
            color=colour,
            linestyle=line,
            marker="osDv^X"[number % 6],
            capsize=3,
            linewidth=2.4 if arm == "swarm" else 1.6,
            label=arm,
        )
    axes.set_xticks(range(len(values)), values)
    axes.set_ylim(-0.02, 1.04)
    style_axes(axes, f"Solve rate over {setting}", setting, "share of puzzles solved, equal tokens")
    add_legend(axes, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def plot_rates(bars: Sequence[Bar], reference: str) -> Any:
    """Return a figure with horizontal bars of solve rates at the full budget with their intervals."""
    figure = new_figure(9.0, 1.15 + 0.46 * max(1, len(bars)))
    axes = figure.add_subplot()
    places = range(len(bars))
    weights = ["bold" if bar.name == reference else "normal" for bar in bars]
    colours = [BLUE if bar.name == reference else "#B8C4CE" for bar in bars]
    rates = [bar.rate.estimate for bar in bars]
    axes.barh(places, rates, height=0.62, color=colours, zorder=2)
    error = whiskers([bar.rate for bar in bars])
    style = {"ecolor": INK, "elinewidth": 1.3, "capsize": 3.5, "zorder": 3, "clip_on": False}
    axes.errorbar(rates, places, xerr=error, fmt="none", **style)
    for place, bar, weight in zip(places, bars, weights, strict=True):
        axes.annotate(
            f"{bar.rate.estimate:.3f}",
            (max(bar.rate.high, bar.rate.estimate), place),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            fontweight=weight,
            color=INK,
            annotation_clip=False,
        )
    axes.set_yticks(places, [f"{bar.name}\n{bar.title}" if bar.title != bar.name else bar.name for bar in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.0)
    counts = sorted({bar.num_puzzles for bar in bars})
    shown = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else "0"
    words = f"share of puzzles solved within the full budget, with 95 % interval (n = {shown} per arm)"
    style_axes(axes, "Solve rate at equal tokens", words, grid="x")
    for label, weight in zip(axes.get_yticklabels(), weights, strict=True):
        label.set(fontsize=8.5, fontweight=weight)
    return figure


def _styles(names: Iterable[str]) -> dict[str, tuple[str, Any]]:
    """Return colour and line of each curve; those of arms that have none of their own are told apart by colour."""
    rivals = (name for name in names if name not in _STYLES)
    return _STYLES | {name: (colour, "-.") for name, colour in zip(rivals, cycle(_RIVALS), strict=False)}


def _label_ends(axes: Any, ends: Mapping[str, float], reference: str, styles: Mapping[str, tuple[str, Any]]) -> None:
    """Write each curve's name and end value at the right, pushed apart so that no two overlap."""
    gap = 0.052
    order = sorted(ends, key=lambda name: ends[name])
    places: list[float] = []
    for name in order:
        places.append(max(ends[name], places[-1] + gap if places else 0.0))
    for index in range(len(places) - 1, -1, -1):
        ceiling = 1.01 if index == len(places) - 1 else places[index + 1] - gap
        places[index] = min(places[index], ceiling)
    for name, place in zip(order, places, strict=True):
        colour, line = styles[name]
        weight = 2.4 if name == reference else 1.6
        # A short sample of the line ties the name to its curve without relying on colour.
        axes.plot(
            [1.012, 1.03, 1.075],
            [ends[name], place, place],
            color=colour,
            linestyle=line,
            linewidth=weight,
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
