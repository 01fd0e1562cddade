"""Draws `results.png` of a lab: bars with intervals, recall over distance, hit rate over training.

Numbers come from `results.json`. Every line has a marker or style of its own.
"""

from collections.abc import Mapping
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
    plot_band,
    style_axes,
    thousands,
    whiskers,
)

_ARMS = {"baseline": (GREY, "without memory"), "with_ltm": (BLUE, "with LTM")}
_TEXT_DISTANCES = (128, 512, 1024)
_CONTROLS = {
    "shuffled_values": (VERMILLION, "v", "values shuffled"),
    "random_writes": (ORANGE, "s", "random writes"),
    "capacity_1": (GREEN, "D", "capacity 1"),
    "no_reads": (PURPLE, "X", "reads disabled"),
}


def plot_results(results: Mapping[str, Any], window: int) -> Any:
    """Return the figure.

    Args:
        results: what `swarm.lab.ltm.results.lab_results` gave.
        window: STM in tokens, drawn as a line.
    """
    figure = new_figure(11, 7)
    grid = figure.add_gridspec(2, 6)
    for place, (title, measure, form, top) in enumerate(
        (
            ("Bits per character, lower is better", "bpc", "{:.3f}", None),
            (f"Recall beyond the window of {window}", "long_range_recall", "{:.3f}", 1.0),
            ("Tokens/s read (range of rounds)", "tokens_per_sec", "{:,.0f}", None),
        )
    ):
        values = {arm: results[arm]["details"][measure] for arm in _ARMS if arm in results}
        _bars(figure.add_subplot(grid[0, 2 * place : 2 * place + 2]), title, values, form, top)
    _recall(figure.add_subplot(grid[1, 0:4]), results, window)
    _hits(figure.add_subplot(grid[1, 4:6]), results)
    return figure


def _bars(axes: Any, title: str, values: Mapping[str, Any], form: str, top: float | None) -> None:
    shown = {arm: interval_of(value) for arm, value in values.items() if value is not None}
    for place, (arm, interval) in enumerate(shown.items()):
        axes.bar(place, interval.estimate, width=0.6, color=_ARMS[arm][0], zorder=2)
        if interval.high > interval.low:
            axes.errorbar(place, interval.estimate, yerr=whiskers([interval]), color=INK, capsize=4)
        axes.annotate(
            form.format(interval.estimate),
            (place, interval.high),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            color=INK,
        )
    axes.set_xticks(range(len(shown)), [_ARMS[arm][1] for arm in shown])
    axes.set_ylim(0, 1.18 * (top or max((interval.high for interval in shown.values()), default=1.0)))
    style_axes(axes, title)


def _recall(axes: Any, results: Mapping[str, Any], window: int) -> None:
    for arm, (colour, title) in _ARMS.items():
        if arm in results:
            recall = results[arm]["details"]["recall_by_distance"]
            plot_band(axes, recall["quiet"], colour, label=title, marker="o", linewidth=2.4, zorder=4)
            if arm == "with_ltm" and recall["text"]:
                plot_band(axes, recall["text"], SKY, label=f"{title}, text as filler", marker="^", linestyle="--")
    for name, (colour, marker, title) in _CONTROLS.items():
        control = results.get("with_ltm", {}).get("controls", {}).get(name)
        if control:
            quiet = control["recall_by_distance"]["quiet"]
            plot_band(axes, quiet, colour, label=title, marker=marker, linestyle=":", linewidth=1.3)
    axes.axvline(window, color=GREY, linestyle=(0, (2, 3)), linewidth=1)
    axes.annotate("window", (window, 1.04), fontsize=8, ha="center", color=INK)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(thousands)
    axes.set_ylim(-0.02, 1.1)
    style_axes(
        axes, "Recall of fresh key-value pairs over distance", "tokens from a pair to its query", "share recalled"
    )
    add_legend(axes, ncols=2)


def _hits(axes: Any, results: Mapping[str, Any]) -> None:
    series = results.get("meta", {}).get("hit_rate_over_training", {})
    for (seed, points), style in zip(series.items(), ("-", "--", ":", "-.") * 8, strict=False):
        axes.plot([p[0] for p in points], [p[1] for p in points], style, color=BLUE, label=f"seed {seed}")
    axes.set_ylim(0, 1)
    style_axes(axes, "Share of tokens that read an item", "training step")
    if series:
        add_legend(axes)


def plot_arms(results: Mapping[str, Any]) -> Any:
    """Return the figure of a lab with arms: bits per byte beside the first arm, and recall through text.

    Args:
        results: what `swarm.lab.ltm.ablation.ablation` gave, under `arms`.
    """
    table = results["arms"]
    names = list(table)[::-1]
    figure = new_figure(11, max(3.5, 0.35 * len(names) + 1.5))
    bits, recall = figure.subplots(1, 2, sharey=True)
    for place, name in enumerate(names):
        found = interval_of(table[name]["bits_per_byte"]["relative"])
        color = BLUE if found.high < 0 else VERMILLION if found.low > 0 else GREY
        bits.errorbar(100 * found.estimate, place, xerr=[[100 * w[0]] for w in whiskers([found])], color=color, fmt="o")
        for (distance, rate), (shade, marker) in zip(
            [(d, r) for d, r in table[name]["recall_through_text"].items() if int(d) in _TEXT_DISTANCES],
            ((BLUE, "o"), (ORANGE, "s"), (GREEN, "D")),
            strict=False,
        ):
            label = f"{int(distance):,} tokens" if place == 0 else None
            recall.plot(rate, place, marker, color=shade, label=label)
    bits.axvline(0.0, color=INK, linewidth=0.8)
    bits.set_yticks(range(len(names)), names)
    recall.set_xlim(-0.03, 1.03)
    style_axes(bits, f"Bits per byte against {names[-1]}", "%, lower is better", grid="x")
    style_axes(recall, "Pairs recalled through text", "share", grid="x")
    add_legend(recall)
    return figure
