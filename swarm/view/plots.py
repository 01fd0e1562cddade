"""Draws one run: tokens of each puzzle, tokens by part, what was learned from round to round; and one training."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

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
    interval_of,
    new_figure,
    style_axes,
    thousands,
    whiskers,
)
from swarm.train.monitor import Record, curves

_CURVES = {"loss": ("loss", "loss_", "bits_"), "share of the gradient": ("share_",), "level": ("level_",)}
"""Panels of a training, and which metrics each shows."""

_LINE_COLOURS = (BLUE, VERMILLION, GREEN, ORANGE, PURPLE, SKY, GREY)


def plot_puzzles(puzzles: Sequence[Mapping[str, Any]], budget: int | None) -> Any:
    """Return a figure with one stem per puzzle, in order: tokens that it took, solved or not.

    Args:
        puzzles: `episode`, `tokens` and `solved` of each puzzle.
        budget: tokens per puzzle, or None when there is no such limit.
    """
    figure = new_figure(9.0, 3.3)
    axes = figure.add_subplot()
    size = 5 if len(puzzles) <= 120 else 3
    for solved, colour, marker, name in ((True, BLUE, "o", "solved"), (False, VERMILLION, "x", "not solved")):
        chosen = [puzzle for puzzle in puzzles if puzzle["solved"] == solved]
        if not chosen:
            continue
        episodes, tokens = [puzzle["episode"] for puzzle in chosen], [puzzle["tokens"] for puzzle in chosen]
        axes.vlines(episodes, 0, tokens, color=colour, linewidth=1.0, alpha=0.45)
        axes.plot(episodes, tokens, marker, color=colour, markersize=size, label=f"{name} ({len(chosen)})")
    if budget is not None:
        axes.axhline(budget, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label=f"budget ({budget:,} tokens)")
    axes.set_ylim(0, max([1, budget or 0, *(puzzle["tokens"] for puzzle in puzzles)]) * 1.06)
    axes.margins(x=0.02)
    axes.yaxis.set_major_formatter(thousands)
    axes.xaxis.get_major_locator().set_params(integer=True)
    style_axes(axes, x="puzzle (episode number)", y="tokens used")
    if puzzles or budget is not None:
        add_legend(axes, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2)
    return figure


def plot_token_parts(parts: Mapping[str, int]) -> Any:
    """Return a figure with horizontal bars of the tokens that each part of the run used, with their shares."""
    figure = new_figure(9.0, 0.95 + 0.42 * max(1, len(parts)))
    axes = figure.add_subplot()
    total = sum(parts.values()) or 1
    bars = axes.barh(list(parts), list(parts.values()), height=0.6, color=BLUE, zorder=2)
    axes.bar_label(
        bars, [f"{tokens:,} ({tokens / total:.0%})" for tokens in parts.values()], padding=6, fontsize=9.5, color=INK
    )
    axes.invert_yaxis()
    axes.set_xlim(0, max([1, *parts.values()]) * 1.22)
    axes.xaxis.set_major_formatter(thousands)
    axes.xaxis.get_major_locator().set_params(nbins=5, integer=True)
    style_axes(axes, x="tokens over the whole run", grid="x")
    return figure


def plot_learning(learning: Mapping[str, Any]) -> Any:
    """Return a figure of a learning curve: puzzles solved in each round and in the exam, above the probe.

    Args:
        learning: as `swarm.view.learning.learning_data` returns it, of at least one round.
    """
    rounds, exam, probe = learning["rounds"], learning["exam"], learning["probe"]
    figure = new_figure(9.0, 4.6 if probe else 3.3)
    panels = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1]) if probe else [figure.add_subplot()]
    upper = panels[0]
    at = [row["round"] for row in rounds]
    found = [interval_of(row["solve_rate"]) for row in rounds]
    rates = [one.estimate for one in found]
    upper.errorbar(at, rates, yerr=whiskers(found), color=BLUE, marker="o", markersize=4, capsize=2, label="solved")
    upper.plot(at, [row["reward"] for row in rounds], color=ORANGE, linestyle="--", linewidth=1.2, label="reward")
    if exam is not None:
        last = interval_of(exam["solve_rate"])
        style: dict[str, Any] = {"color": GREEN, "marker": "D", "markersize": 6, "capsize": 3, "linestyle": "none"}
        upper.errorbar([at[-1] + 1], [last.estimate], yerr=whiskers([last]), label="solved in the exam", **style)
    for name, colour, marker in (("accepted", GREEN, "^"), ("rejected", VERMILLION, "x"), ("nothing", GREY, ".")):
        places = [row["round"] for row in rounds if row[name]]
        label = f"{sum(row[name] for row in rounds)} steps {name}".replace("nothing", "with nothing to learn")
        if places:
            upper.plot(places, [-0.06] * len(places), marker, color=colour, markersize=6, clip_on=False, label=label)
    upper.set_ylim(-0.1, max([1.0, *(row["reward"] for row in rounds)]) * 1.04)
    upper.xaxis.get_major_locator().set_params(integer=True)
    style_axes(upper, x="" if probe else "round", y="share, or reward")
    add_legend(upper, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2)
    if probe:
        _plot_probe(panels[1], rounds, probe)
    return figure


def _plot_probe(axes: Any, rounds: Sequence[Mapping[str, Any]], probe: Mapping[str, float]) -> None:
    """Draw what agents can still do of what the base could, and how much of it an accepted step may lose."""
    known = [row for row in rounds if row["probe"] is not None]
    least = max(0.0, probe["first"] - probe["drop"])
    axes.plot([row["round"] for row in known], [row["probe"] for row in known], color=INK, marker="s", markersize=4)
    axes.axhline(probe["first"], color=GREY, linewidth=0.9)
    axes.axhline(least, color=VERMILLION, linewidth=0.9, linestyle=(0, (4, 3)))
    values = [probe["first"], least, *(row["probe"] for row in known)]
    axes.set_ylim(max(0.0, min(values) - 0.05), min(1.05, max(values) + 0.05))
    style_axes(axes, x="round (the exam comes last)", y="probe")


def plot_training(records: Sequence[Record]) -> Any:
    """Return a figure of a training: losses by kind, shares of the gradient and levels over steps.

    Args:
        records: lines of metrics by step; what none of them has is left out.
    """
    found = {title: curves(records, *names) for title, names in _CURVES.items()}
    found = {title: lines for title, lines in found.items() if lines} or {"loss": {}}
    figure = new_figure(9.0, 1.0 + 2.6 * len(found))
    panels = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    styles = [(colour, dash) for dash in ("-", "--", ":", "-.") for colour in _LINE_COLOURS]
    for axes, (title, lines) in zip(panels, found.items(), strict=True):
        for (name, points), (colour, dash) in zip(lines.items(), cycle(styles), strict=False):
            how = {"drawstyle": "steps-post"} if title == "level" else {}
            axes.plot(*zip(*points, strict=True), color=colour, linestyle=dash, linewidth=1.4, label=name, **how)
        style_axes(axes, x="step" if axes is panels[-1] else "", y=title)
        if lines:
            add_legend(axes, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    panels[-1].xaxis.set_major_formatter(thousands)
    return figure
