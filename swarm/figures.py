"""How every figure looks: Okabe-Ito colours, which are told apart without colour vision, quiet axes, PNG bytes.

A plot function returns the figure, so that a test can ask what it shows; `to_png` is the last step. Matplotlib is
imported when a figure is made, with the Agg renderer and no global state.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from swarm.stats import Interval

BLUE, VERMILLION, ORANGE, GREEN, SKY, PURPLE = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#56B4E9", "#CC79A7"
GREY, INK = "#767676", "#222222"
DPI = 150


def new_figure(width: float, height: float, layout: Literal["constrained"] | None = "constrained") -> Any:
    """Return an empty figure of so many inches; with `layout=None` the caller places its axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout=layout)
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Any, title: str = "", x: str = "", y: str = "", *, grid: str = "y", pad: float = 8) -> None:
    """Give axes their title (`pad` points above), labels, a light grid, two spines and grey ticks."""
    axes.grid(axis=grid, color="#E4E4E4", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#9A9A9A")
    axes.tick_params(color="#9A9A9A", labelcolor=INK, labelsize=9)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK, pad=pad)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)


def add_legend(axes: Any, **place: Any) -> None:
    """Name the labelled lines and bars of axes, without a frame."""
    axes.legend(fontsize=9, frameon=False, **place)


def thousands(value: float, _: object = None) -> str:
    """Return a tick's label such as `1,024`."""
    return f"{value:,.0f}"


def log_axis(axes: Any, places: Iterable[str]) -> None:
    """Make x logarithmic, with a tick at each place (numbers, as JSON keeps them) and no others."""
    axes.set_xscale("log")
    axes.set_xticks([int(place) for place in places])
    axes.xaxis.set_major_formatter(thousands)
    axes.minorticks_off()


def interval_of(found: Mapping[str, float]) -> Interval:
    """Return an interval as a results file keeps it, under `estimate`, `low` and `high`."""
    return Interval(found["estimate"], found["low"], found["high"])


def whiskers(intervals: Sequence[Interval]) -> list[list[float]]:
    """Return how far each interval reaches below and above its estimate, as `xerr` and `yerr` take it."""
    return [
        [max(0.0, found.estimate - found.low) for found in intervals],
        [max(0.0, found.high - found.estimate) for found in intervals],
    ]


def plot_band(axes: Any, by_place: Mapping[str, Mapping[str, float]], color: str, **line: Any) -> None:
    """Draw a line through estimates over places (numbers, as JSON keeps them), with a band for their intervals."""
    at = sorted(map(int, by_place))
    intervals = [interval_of(by_place[str(place)]) for place in at]
    axes.plot(at, [found.estimate for found in intervals], color=color, **line)
    axes.fill_between(
        at, [found.low for found in intervals], [found.high for found in intervals], color=color, alpha=0.14, lw=0
    )


def to_png(figure: Any) -> bytes:
    """Return the figure as PNG, without the date and version that would change its bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
