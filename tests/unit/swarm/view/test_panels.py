"""The parts of dashboards."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from swarm.view.panels import Sparkline


@pytest.mark.parametrize(
    ("values", "bounds", "wanted"),
    [
        ([0, 7, 3.5], None, "▁█▅"),
        ([0, 0.5, 1], (0.0, 2.0), "▁▃▅"),
        ([1, math.nan, 2, math.inf], None, "▁█"),
        ([2, 2], None, "▁▁"),
        ([], None, ""),
        ([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7], None, "▁▂▃▄▅▆▇█"),  # two values a column
        ([0, 8, 0, 8, 0, 8, 0, 8, 8], (0.0, 8.0), "▁█▁█▁█▁█"),
    ],
)
def test_a_curve_fills_at_most_its_room_from_the_lowest_to_the_highest(
    values: list[float], bounds: tuple[float, float] | None, wanted: str
) -> None:
    console = Console(width=8, file=io.StringIO(), record=True)
    console.print(Sparkline(values, bounds))
    assert console.export_text().rstrip("\n") == wanted
