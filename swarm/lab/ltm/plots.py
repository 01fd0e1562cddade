"""Draws `results.png` of a lab: bars with intervals, recall over distance, hit rate over training.

Owns how the figure looks; numbers come from `results.json`. Colours are told apart without colour vision and every line
has a marker or style of its own.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

__all__ = ["plot_results"]

_BLUE, _GREY, _INK = "#0072B2", "#8A949C", "#222222"
_ARMS = {"baseline": (_GREY, "without memory"), "with_ltm": (_BLUE, "with LTM")}
_CONTROLS = {
    "shuffled_values": ("#D55E00", "v", "values shuffled"),
    "random_writes": ("#E69F00", "s", "random writes"),
    "capacity_1": ("#009E73", "D", "capacity 1"),
    "no_reads": ("#CC79A7", "X", "reads disabled"),
}


def plot_results(results: Mapping[str, Any], window: int) -> bytes:
    """Return the figure as PNG.

    Args:
        results: what `swarm.lab.ltm.results.lab_results` gave.
        window: STM in tokens, drawn as a line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 6)
    arms = [arm for arm in _ARMS if arm in results]
    _bars(
        figure.add_subplot(grid[0, 0:2]),
        "Bits per character, lower is better",
        {arm: results[arm]["details"]["bpc"] for arm in arms},
        "{:.3f}",
    )
    _bars(
        figure.add_subplot(grid[0, 2:4]),
        f"Recall beyond the window of {window}",
        {arm: results[arm]["details"]["long_range_recall"] for arm in arms},
        "{:.3f}",
        top=1.0,
    )
    _bars(
        figure.add_subplot(grid[0, 4:6]),
        "Tokens read per second (range of rounds)",
        {arm: results[arm]["details"]["tokens_per_sec"] for arm in arms},
        "{:,.0f}",
    )
    _recall(figure.add_subplot(grid[1, 0:4]), results, window)
    _hits(figure.add_subplot(grid[1, 4:6]), results)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _bars(axes: Any, title: str, values: Mapping[str, Any], form: str, top: float | None = None) -> None:
    shown = {arm: value for arm, value in values.items() if value is not None}
    for place, (arm, value) in enumerate(shown.items()):
        colour, _ = _ARMS[arm]
        estimate, low, high = value["estimate"], value["low"], value["high"]
        axes.bar(place, estimate, width=0.6, color=colour, zorder=2)
        if high > low:
            axes.errorbar(
                place, estimate, yerr=[[max(0.0, estimate - low)], [max(0.0, high - estimate)]], color=_INK, capsize=4
            )
        axes.annotate(
            form.format(estimate), (place, high), xytext=(0, 5), textcoords="offset points", ha="center", color=_INK
        )
    axes.set_xticks(range(len(shown)), [_ARMS[arm][1] for arm in shown])
    highest = top or max((value["high"] for value in shown.values()), default=1.0)
    axes.set_ylim(0, highest * 1.18)
    axes.set_title(title, fontsize=10, loc="left")
    _quiet(axes)


def _recall(axes: Any, results: Mapping[str, Any], window: int) -> None:
    def line(by_distance: Mapping[str, Any], label: str, **style: Any) -> None:
        distances = sorted(by_distance, key=int)
        points = [by_distance[d] for d in distances]
        where = [int(d) for d in distances]
        axes.plot(where, [p["estimate"] for p in points], label=label, **style)
        axes.fill_between(
            where, [p["low"] for p in points], [p["high"] for p in points], color=style["color"], alpha=0.15, lw=0
        )

    for arm, (colour, title) in _ARMS.items():
        if arm in results:
            recall = results[arm]["details"]["recall_by_distance"]
            line(recall["quiet"], title, color=colour, marker="o", linewidth=2.4, zorder=4)
            if arm == "with_ltm" and recall["text"]:
                line(recall["text"], f"{title}, text as filler", color="#56B4E9", marker="^", linestyle="--")
    for name, (colour, marker, title) in _CONTROLS.items():
        control = results.get("with_ltm", {}).get("controls", {}).get(name)
        if control:
            line(
                control["recall_by_distance"]["quiet"], title, color=colour, marker=marker, linestyle=":", linewidth=1.3
            )
    axes.axvline(window, color=_GREY, linestyle=(0, (2, 3)), linewidth=1)
    axes.annotate("window", (window, 1.04), fontsize=8, ha="center", color=_INK)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_ylim(-0.02, 1.1)
    axes.set_xlabel("tokens from a pair to its query")
    axes.set_ylabel("share recalled")
    axes.set_title("Recall of fresh key-value pairs over distance", fontsize=10, loc="left")
    axes.legend(fontsize=8, frameon=False, ncols=2)
    _quiet(axes)


def _hits(axes: Any, results: Mapping[str, Any]) -> None:
    series = results.get("meta", {}).get("hit_rate_over_training", {})
    for (seed, points), style in zip(series.items(), ("-", "--", ":", "-.") * 8, strict=False):
        axes.plot([p[0] for p in points], [p[1] for p in points], style, color=_BLUE, label=f"seed {seed}")
    axes.set_ylim(0, 1)
    axes.set_xlabel("training step")
    axes.set_title("Share of tokens that read an item", fontsize=10, loc="left")
    if series:
        axes.legend(fontsize=8, frameon=False)
    _quiet(axes)


def _quiet(axes: Any) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#E6E9EC", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
