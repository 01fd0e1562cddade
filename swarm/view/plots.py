"""Draws one run as PNG bytes: tokens of each puzzle, tokens by part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from swarm.figures import BLUE, INK, VERMILLION, new_figure, style_axes, to_png

__all__ = ["plot_puzzles", "plot_token_parts"]


def plot_puzzles(puzzles: Sequence[tuple[int, int, bool]], budget: int | None) -> bytes:
    """Return one stem per puzzle, in order: tokens that it took, solved or not.

    Args:
        puzzles: (episode, tokens, solved) of each puzzle.
        budget: tokens per puzzle, or None when there is no such limit.
    """
    figure = new_figure(9.0, 3.3)
    axes = figure.add_subplot()
    top = 1
    for solved, colour, marker, name in (
        (True, BLUE, "o", "solved"),
        (False, VERMILLION, "x", "not solved"),
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
        axes.axhline(budget, color=INK, linewidth=0.9, linestyle=(0, (4, 3)), label=f"budget ({budget:,} tokens)")
    axes.set_ylim(0, top * 1.06)
    axes.margins(x=0.02)
    axes.set_xlabel("puzzle (episode number)")
    axes.set_ylabel("tokens used")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, fontsize=9, borderaxespad=0.2)
    style_axes(axes)
    figure.tight_layout(pad=0.8)
    return to_png(figure)


def plot_token_parts(parts: Mapping[str, int]) -> bytes:
    """Return horizontal bars of the tokens that each part of the run used, with their shares."""
    figure = new_figure(9.0, 0.95 + 0.42 * max(1, len(parts)))
    axes = figure.add_subplot()
    total = sum(parts.values()) or 1
    axes.barh(list(parts), list(parts.values()), height=0.6, color=BLUE, zorder=2)
    for place, tokens in enumerate(parts.values()):
        axes.annotate(
            f"{tokens:,} ({tokens / total:.0%})",
            (tokens, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=INK,
        )
    axes.invert_yaxis()
    axes.set_xlim(0, max([1, *parts.values()]) * 1.22)
    axes.set_xlabel("tokens over the whole run")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.xaxis.get_major_locator().set_params(nbins=5, integer=True)
    style_axes(axes, grid="x")
    figure.tight_layout(pad=0.8)
    return to_png(figure)
