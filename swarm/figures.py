"""How every figure looks: Okabe-Ito colours, which are told apart without colour vision, quiet axes, PNG bytes.

Matplotlib is imported when a figure is made, with the Agg renderer and no global state.
"""

from __future__ import annotations

import io
from typing import Any

__all__ = [
    "BLUE",
    "GREEN",
    "GREY",
    "INK",
    "ORANGE",
    "PURPLE",
    "SKY",
    "VERMILLION",
    "new_figure",
    "style_axes",
    "to_png",
]

BLUE, VERMILLION, ORANGE, GREEN, SKY, PURPLE = "#0072B2", "#D55E00", "#E69F00", "#009E73", "#56B4E9", "#CC79A7"
GREY, INK = "#767676", "#222222"
DPI = 150


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure of so many inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def style_axes(axes: Any, grid: str = "y") -> None:
    """Leave axes a light grid, two spines and grey ticks."""
    axes.grid(axis=grid, color="#E4E4E4", linewidth=0.8, zorder=0)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#9A9A9A")
    axes.tick_params(color="#9A9A9A", labelcolor=INK, labelsize=9)


def to_png(figure: Any) -> bytes:
    """Return the figure as PNG, without the date and version that would change its bytes."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
