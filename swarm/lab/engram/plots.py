"""Pictures of an evaluation: rates by arm and category, recall over distraction, and where the gates open.

Numbers come from `results`. Every line has a marker of its own.
"""

from collections.abc import Callable, Mapping
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
    log_axis,
    new_figure,
    plot_band,
    style_axes,
    whiskers,
)

_ARMS = {
    "base": (GREY, "bare model"),
    "exact": (BLUE, "exact tier"),
    "hybrid": (SKY, "exact and content tier"),
    "engram": (GREEN, "learned tier"),
    "lora": (ORANGE, "LoRA"),
    "lora_engram": (VERMILLION, "LoRA and learned tier"),
}
_LINES = {
    "in_context": (GREY, "o", "bare model, everything in its context"),
    "window": (PURPLE, "v", "bare model, short window (null control)"),
    "exact": (BLUE, "s", "short window and exact tier: fresh facts"),
    "engram": (ORANGE, "X", "short window and learned tier: fresh facts"),
    "engram_told": (GREEN, "D", "learned tier: facts of its training"),
}


def plots(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return figures by file name."""
    return {f"{name}.png": draw(results[name]) for name, draw in _FIGURES.items() if results.get(name)}


def _arms(by_arm: Mapping[str, Any]) -> Any:
    figure = new_figure(11, 6.5)
    titles = {"same": "in the words in which it was told", "paraphrase": "in other words"}
    for axes, (kind, title) in zip(figure.subplots(2, 1), titles.items(), strict=True):
        rates = {arm: by_arm[arm][kind]["by_category"] for arm in _ARMS if kind in by_arm.get(arm, {})}
        categories = list(next(iter(rates.values())))
        width = 0.84 / len(rates)
        for number, (arm, by_category) in enumerate(rates.items()):
            intervals = [interval_of(by_category[category]) for category in categories]
            where = [i + (number - (len(rates) - 1) / 2) * width for i in range(len(categories))]
            estimates = [interval.estimate for interval in intervals]
            colour, label = _ARMS[arm]
            axes.bar(where, estimates, width * 0.92, color=colour, label=label, zorder=2)
            axes.errorbar(where, estimates, yerr=whiskers(intervals), fmt="none", color=INK, lw=0.8, zorder=3)
        axes.set_xticks(range(len(categories)), categories)
        axes.set_ylim(0, 1.08)
        style_axes(axes, f"Asked {title}", y="exact match")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=9, frameon=False, ncols=len(handles), loc="outside lower center")
    return figure


def _distraction(by_arm: Mapping[str, Any]) -> Any:
    figure = new_figure(8, 4.5)
    axes = figure.add_subplot()
    for arm, by_distance in by_arm.items():
        colour, marker, label = _LINES[arm]
        plot_band(axes, by_distance, colour, marker=marker, label=label, zorder=3)
    first = next(iter(by_arm.values()))
    log_axis(axes, first)
    axes.set_ylim(-0.03, 1.06)
    title = f"Recall under distraction ({next(iter(first.values()))['n']} sequences per distance)"
    style_axes(axes, title, "tokens of text between the fact and the question", "exact match")
    add_legend(axes, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _cost(cost: Mapping[str, Any]) -> Any:
    figure = new_figure(10, 4)
    left, right = figure.subplots(1, 2)
    rows = [rows for rows in cost["rows"] if rows != "base"]
    points = [interval_of({**cost["rows"][row], "estimate": cost["rows"][row]["of_base"]}) for row in rows]
    left.errorbar(
        [int(row) for row in rows],
        [point.estimate for point in points],
        yerr=whiskers(points),
        color=GREEN,
        marker="D",
        capsize=3,
    )
    left.axhline(1.0, color=GREY, linewidth=1)
    left.set_ylim(0.9, max(1.3, *(point.high for point in points)))
    style_axes(left, "Learned tier: table size", "rows of each table", "time per token, bare model = 1")
    lengths = sorted(cost["lengths"], key=int)
    for arm, (colour, marker, label) in {
        "base": (GREY, "o", "bare model"),
        "exact": (BLUE, "s", "exact tier"),
        "engram": (GREEN, "D", f"learned tier, {cost['rows_of_lengths']:,} rows"),
    }.items():
        right.plot(
            [int(length) for length in lengths],
            [cost["lengths"][length][arm]["ms"] for length in lengths],
            color=colour,
            marker=marker,
            label=label,
        )
    right.set_ylim(bottom=0)
    style_axes(right, "Length of the text", "tokens that are there already", "ms per token")
    add_legend(right)
    log_axis(left, rows)
    log_axis(right, lengths)
    return figure


def _gates(lines: list[dict[str, Any]]) -> Any:
    figure = new_figure(12, 0.95 * len(lines) + 1)
    for place, line in enumerate(lines):
        axes = figure.add_subplot(len(lines), 1, place + 1)
        layers = sorted(line["gates"], key=int)
        rows = [line["gates"][layer] for layer in layers] + [line["mixture"]]
        image = axes.imshow(rows, aspect="auto", cmap="viridis", vmin=0, vmax=1)
        axes.set_xticks(range(len(line["tokens"])), [token.replace("\n", "\\n") for token in line["tokens"]])
        axes.tick_params(axis="x", labelsize=7, length=0)
        axes.set_yticks(range(len(rows)), [*(f"block {layer}" for layer in layers), "mixture"], fontsize=7)
        axes.set_title(line["title"], fontsize=8, loc="left", pad=2)
    figure.colorbar(image, ax=figure.axes, shrink=0.6, label="gate")
    return figure


_FIGURES: dict[str, Callable[[Any], Any]] = {"arms": _arms, "distraction": _distraction, "cost": _cost, "gates": _gates}
