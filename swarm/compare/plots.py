"""Draws results as PNG bytes: coverage over budget, solve rates, puzzles over a run, tokens by part.

Owns how figures look: readable without colour vision (Okabe-Ito colours, each with its own line style or
marker), labelled in place, units on every axis. Matplotlib is imported when a figure is drawn, with the Agg
renderer and no global state. It refuses to know runs, arms' meanings and files: numbers and names in, bytes
out.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

from swarm.stats import Interval, solved_by_budget

__all__ = ["Bar", "plot_coverage", "plot_puzzles", "plot_rates", "plot_sweep", "plot_token_parts"]

_BLUE, _VERMILLION, _ORANGE, _GREEN, _SKY, _PURPLE = (
    "#0072B2",
    "#D55E00",
    "#E69F00",
    "#009E73",
    "#56B4E9",
    "#CC79A7",
)
_GREY, _INK = "#767676", "#222222"
_STYLES: dict[str, tuple[str, Any]] = {
    "swarm": (_BLUE, "-"),
    "solo": (_VERMILLION, "-"),
    "solo_split": (_ORANGE, "-"),
    "time_slice": (_GREEN, "-"),
    "independent": (_VERMILLION, "--"),
    "no_messages": (_GREY, ":"),
    "rules": (_SKY, (0, (6, 1.5))),
    "shuffled": (_PURPLE, "--"),
    "random": (_INK, ":"),
    "memory_off": (_BLUE, ":"),
    "solo_memory_off": (_VERMILLION, ":"),
    "private_memory": (_GREEN, "--"),
    "shuffled_memory": (_PURPLE, ":"),
    "capacity_1": (_ORANGE, ":"),
}
_RIVALS = ("#332288", "#882255", "#117733", "#999933", "#AA4499")
"""Colours of arms that a file names, in their order."""
_DPI = 150


class Bar(NamedTuple):
    """One bar of `plot_rates`."""

    name: str
    title: str
    rate: Interval
    num_puzzles: int


def plot_coverage(
    curves: Mapping[str, Sequence[int | None]], budget: int, reference: str, marks: Sequence[float]
) -> bytes:
    """Return the share of puzzles solved against tokens used, one curve per arm.

    Args:
        curves: arm -> tokens at the solution of each puzzle, None where it was not solved.
        budget: tokens per puzzle, the right end of the axis.
        reference: the arm drawn boldest.
        marks: shares of the budget that get a vertical line and a dot on each curve.
    """
    figure = _figure(9.0, 5.4)
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
        axes.axvline(mark * budget, color=_GREY, linewidth=0.8, linestyle=(0, (2, 3)), zorder=1)
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
            color=_INK,
        )
    _label_ends(axes, ends, reference, styles)
    axes.annotate(
        "Solve rate against tokens used",
        (0, 1.0),
        xycoords="axes fraction",
        xytext=(0, 34),
        textcoords="offset points",
        fontsize=12,
        fontweight="bold",
        color=_INK,
    )
    axes.set_xlim(0, budget)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("tokens used per puzzle: prompts, actions, messages and coordinator")
    axes.set_ylabel("share of puzzles solved")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    _quiet(axes)
    return _png(figure)


def plot_sweep(rates: Mapping[str, Mapping[str, Interval]], setting: str) -> bytes:
    """Return solve rates with intervals over the values of a setting, one line per arm.

    Args:
        rates: value -> arm -> rate at the full budget.
        setting: what the values are of.
    """
    figure = _figure(8.0, 4.8)
    axes = figure.add_axes((0.1, 0.13, 0.66, 0.77))
    values = list(rates)
    arms = list(dict.fromkeys(arm for found in rates.values() for arm in found))
    styles = _styles(arms)
    for number, arm in enumerate(arms):
        colour, line = styles[arm]
        shown = [(place, rates[value][arm]) for place, value in enumerate(values) if arm in rates[value]]
        axes.errorbar(
            [place + (number - len(arms) / 2) * 0.03 for place, _ in shown],
            [rate.estimate for _, rate in shown],
            yerr=[[r.estimate - r.low for _, r in shown], [r.high - r.estimate for _, r in shown]],
            color=colour,
            linestyle=line,
            marker="osDv^X"[number % 6],
            capsize=3,
            linewidth=2.4 if arm == "swarm" else 1.6,
            label=arm,
        )
    axes.set_xticks(range(len(values)), values)
    axes.set_xlabel(setting)
    axes.set_ylabel("share of puzzles solved, equal tokens")
    axes.set_ylim(-0.02, 1.04)
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), fontsize=9, frameon=False)
    axes.set_title(f"Solve rate over {setting}", fontsize=12, fontweight="bold", loc="left")
    _quiet(axes)
    return _png(figure)


def plot_rates(bars: Sequence[Bar], reference: str) -> bytes:
    """Return horizontal bars of solve rates at the full budget with their intervals."""
    figure = _figure(9.0, 1.15 + 0.46 * max(1, len(bars)))
    axes = figure.add_subplot()
    for place, bar in enumerate(bars):
        rate, low, high = bar.rate
        is_reference = bar.name == reference
        axes.barh(place, rate, height=0.62, color=_BLUE if is_reference else "#B8C4CE", zorder=2)
        axes.errorbar(
            rate,
            place,
            xerr=[[rate - low], [high - rate]],
            fmt="none",
            ecolor=_INK,
            elinewidth=1.3,
            capsize=3.5,
            zorder=3,
            clip_on=False,
        )
        axes.annotate(
            f"{rate:.3f}",
            (max(high, rate), place),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            fontweight="bold" if is_reference else "normal",
            color=_INK,
            annotation_clip=False,
        )
    axes.set_yticks(
        range(len(bars)), [f"{bar.name}\n{bar.title}" if bar.title != bar.name else bar.name for bar in bars]
    )
    for label, bar in zip(axes.get_yticklabels(), bars, strict=True):
        label.set_fontsize(8.5)
        label.set_fontweight("bold" if bar.name == reference else "normal")
    axes.invert_yaxis()
    axes.set_xlim(0, 1.0)
    axes.set_title("Solve rate at equal tokens", loc="left", fontsize=12, fontweight="bold", color=_INK, pad=10)
    counts = sorted({bar.num_puzzles for bar in bars})
    shown = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}" if counts else "0"
    axes.set_xlabel(f"share of puzzles solved within the full budget, with 95 % interval (n = {shown} per arm)")
    _quiet(axes, grid="x")
    figure.tight_layout(pad=0.8)
    return _png(figure)


def plot_puzzles(puzzles: Sequence[tuple[int, int, bool]], budget: int | None) -> bytes:
    """Return one stem per puzzle, in order: tokens that it took, solved or not.

    Args:
        puzzles: (episode, tokens, solved) of each puzzle.
        budget: tokens per puzzle, or None when there is no such limit.
    """
    figure = _figure(9.0, 3.3)
    axes = figure.add_subplot()
    top = 1
    for solved, colour, marker, name in (
        (True, _BLUE, "o", "solved"),
        (False, _VERMILLION, "x", "not solved"),
    ):
        chosen = [(episode, tokens) for episode, tokens, won in puzzles if won == solved]
        if not chosen:
            continue
        episodes, tokens = zip(*chosen, strict=True)
        top = max(top, *tokens)
        size = 5 if len(puzzles) <= 120 else 3
        axes.vlines(episodes, 0, tokens, color=colour, linewidth=1.0, alpha=0.45)
        axes.plot(episodes, tokens, marker, color=colour, markersize=size, label=f"{name} ({len(chosen)})")
    if budget is not None:
        top = max(top, budget)
        axes.axhline(budget, color=_INK, linewidth=0.9, linestyle=(0, (4, 3)), label=f"budget ({budget:,} tokens)")
    axes.set_ylim(0, top * 1.06)
    axes.margins(x=0.02)
    axes.set_xlabel("puzzle (episode number)")
    axes.set_ylabel("tokens used")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, fontsize=9, borderaxespad=0.2)
    _quiet(axes)
    figure.tight_layout(pad=0.8)
    return _png(figure)


def plot_token_parts(parts: Mapping[str, int]) -> bytes:
    """Return horizontal bars of the tokens that each part of the run used, with their shares."""
    figure = _figure(9.0, 0.95 + 0.42 * max(1, len(parts)))
    axes = figure.add_subplot()
    total = sum(parts.values()) or 1
    axes.barh(list(parts), list(parts.values()), height=0.6, color=_BLUE, zorder=2)
    for place, tokens in enumerate(parts.values()):
        axes.annotate(
            f"{tokens:,} ({tokens / total:.0%})",
            (tokens, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=_INK,
        )
    axes.invert_yaxis()
    axes.set_xlim(0, max([1, *parts.values()]) * 1.22)
    axes.set_xlabel("tokens over the whole run")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.get_major_locator().set_params(nbins=5, integer=True)
    _quiet(axes, grid="x")
    figure.tight_layout(pad=0.8)
    return _png(figure)


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
            color=_INK,
            annotation_clip=False,
        )


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _quiet(axes: Any, grid: str = "y") -> None:
    axes.grid(axis=grid, color="#E4E4E4", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9A9A9A")
    axes.tick_params(color="#9A9A9A", labelcolor=_INK, labelsize=9)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
