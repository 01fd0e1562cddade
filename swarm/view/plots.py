"""Draws one run: tokens of each puzzle, tokens by part."""

from collections.abc import Mapping, Sequence
from typing import Any

from swarm.figures import BLUE, INK, VERMILLION, add_legend, new_figure, style_axes, thousands


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
