"""Pictures of an evaluation: rates by arm and category, recall over distraction, and where the gates open.

Owns how they look; numbers come from `results`. Colours are told apart without colour vision, and every line has a
marker of its own.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

__all__ = ["plots"]

_INK, _GREY = "#222222", "#8A949C"
_ARMS = {
    "base": (_GREY, "bare model"),
    "exact": ("#0072B2", "exact tier"),
    "hybrid": ("#56B4E9", "exact and content tier"),
    "engram": ("#009E73", "learned tier"),
    "lora": ("#E69F00", "LoRA"),
    "lora_engram": ("#D55E00", "LoRA and learned tier"),
}
_LINES = {
    "in_context": (_GREY, "o", "bare model, everything in its context"),
    "window": ("#CC79A7", "v", "bare model, short window (null control)"),
    "exact": ("#0072B2", "s", "short window and exact tier: fresh facts"),
    "engram": ("#E69F00", "X", "short window and learned tier: fresh facts"),
    "engram_told": ("#009E73", "D", "learned tier: facts of its training"),
}


def plots(results: Mapping[str, Any]) -> dict[str, bytes]:
    """Return PNGs by file name."""
    found = {}
    if results["arms"]:
        found["arms.png"] = _arms(results)
    if results["distraction"]:
        found["distraction.png"] = _distraction(results)
    if "cost" in results:
        found["cost.png"] = _cost(results["cost"])
    if "gates" in results:
        found["gates.png"] = _gates(results)
    return found


def _arms(results: Mapping[str, Any]) -> bytes:
    figure = _figure(11, 6.5)
    for place, (kind, title) in enumerate(
        (("same", "in the words in which it was told"), ("paraphrase", "in other words"))
    ):
        axes = figure.add_subplot(2, 1, place + 1)
        arms = [arm for arm in _ARMS if arm in results["arms"] and kind in results["arms"][arm]]
        categories = list(results["arms"][arms[0]][kind]["by_category"])
        width = 0.84 / len(arms)
        for number, arm in enumerate(arms):
            rates = [results["arms"][arm][kind]["by_category"][category] for category in categories]
            where = [i + (number - (len(arms) - 1) / 2) * width for i in range(len(categories))]
            colour, label = _ARMS[arm]
            axes.bar(where, [x["estimate"] for x in rates], width * 0.92, color=colour, label=label, zorder=2)
            spread = [[x["estimate"] - x["low"] for x in rates], [x["high"] - x["estimate"] for x in rates]]
            axes.errorbar(where, [x["estimate"] for x in rates], yerr=spread, fmt="none", color=_INK, lw=0.8, zorder=3)
        axes.set_xticks(range(len(categories)), categories)
        axes.set_ylim(0, 1.08)
        axes.set_ylabel("exact match")
        axes.set_title(f"Asked {title}", fontsize=10, loc="left")
        _quiet(axes)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, ncols=len(handles), loc="outside lower center")
    return _png(figure)


def _distraction(results: Mapping[str, Any]) -> bytes:
    figure = _figure(8, 4.5)
    axes = figure.add_subplot()
    for arm, by_distance in results["distraction"].items():
        colour, marker, label = _LINES[arm]
        distances = sorted(by_distance, key=int)
        points = [by_distance[d] for d in distances]
        where = [int(d) for d in distances]
        axes.plot(where, [p["estimate"] for p in points], color=colour, marker=marker, label=label, zorder=3)
        axes.fill_between(
            where, [p["low"] for p in points], [p["high"] for p in points], color=colour, alpha=0.13, lw=0
        )
    axes.set_xscale("log")
    axes.set_xticks(where, [f"{x:,}" for x in where])
    axes.minorticks_off()
    axes.set_ylim(-0.03, 1.06)
    axes.set_xlabel("tokens of text between the fact and the question")
    axes.set_ylabel("exact match")
    n = next(iter(next(iter(results["distraction"].values())).values()))["n"]
    axes.set_title(f"Recall under distraction ({n} sequences per distance)", fontsize=10, loc="left")
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _quiet(axes)
    return _png(figure)


def _cost(cost: Mapping[str, Any]) -> bytes:
    figure = _figure(10, 4)
    left, right = figure.subplots(1, 2)
    rows = [n for n in cost["rows"] if n != "base"]
    points = [cost["rows"][n] for n in rows]
    spread = [[p["of_base"] - p["low"] for p in points], [p["high"] - p["of_base"] for p in points]]
    left.errorbar(
        [int(n) for n in rows], [p["of_base"] for p in points], yerr=spread, color="#009E73", marker="D", capsize=3
    )
    left.axhline(1.0, color=_GREY, linewidth=1)
    left.set_xscale("log")
    left.set_ylim(0.9, max(1.3, *(p["high"] for p in points)))
    left.set_xlabel("rows of each table")
    left.set_ylabel("time per token, bare model = 1")
    left.set_title("Learned tier: table size", fontsize=10, loc="left")
    lengths = sorted(cost["lengths"], key=int)
    for arm, (colour, marker, label) in {
        "base": (_GREY, "o", "bare model"),
        "exact": ("#0072B2", "s", "exact tier"),
        "engram": ("#009E73", "D", f"learned tier, {cost['rows_of_lengths']:,} rows"),
    }.items():
        times = [cost["lengths"][n][arm]["ms"] for n in lengths]
        right.plot([int(n) for n in lengths], times, color=colour, marker=marker, label=label)
    right.set_xscale("log")
    right.set_ylim(bottom=0)
    right.set_xlabel("tokens that are there already")
    right.set_ylabel("ms per token")
    right.set_title("Length of the text", fontsize=10, loc="left")
    right.legend(fontsize=8, frameon=False)
    for axes in (left, right):
        _quiet(axes)
    return _png(figure)


def _gates(results: Mapping[str, Any]) -> bytes:
    lines = results["gates"]
    figure = _figure(12, 0.95 * len(lines) + 1)
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
    return _png(figure)


def _figure(width: float, height: float) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _quiet(axes: Any) -> None:
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
