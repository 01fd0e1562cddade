"""The parts that dashboards are drawn of: panels, lines of a label and a content, bars, sparklines, brief numbers."""

import math
from collections.abc import Iterable, Iterator
from itertools import pairwise
from statistics import fmean

from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.padding import PaddingDimensions
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from swarm.text import one_line

_LEVELS = "▁▂▃▄▅▆▇█"


def duration(seconds: float) -> str:
    """Return seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def plural(count: int, noun: str) -> str:
    """Return "1 tick", "2 ticks"."""
    return f"{count:,} {noun}{'s'[: count != 1]}"


def brief(number: float) -> str:
    """Return 9,999, 10.0k, 1.5M: short enough for half of 80 columns."""
    if number >= 999_950:
        return f"{number / 1e6:.1f}M"
    return f"{number / 1e3:.1f}k" if number >= 9999.5 else f"{number:,.0f}"


class Sparkline:
    """A curve of small blocks in the room there is; where values are more than columns, each shows the mean of some.

    Args:
        values: those that are not finite are left out.
        bounds: what the lowest and the highest block stand for; None for the extremes of the values.
        style: of the blocks.
    """

    def __init__(self, values: Iterable[float], bounds: tuple[float, float] | None = None, style: str = "") -> None:
        self.values = [value for value in values if math.isfinite(value)]
        self.bounds, self.style = bounds, style

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Text]:
        count, room = len(self.values), options.max_width
        cuts = range(count + 1) if count <= room else [count * column // room for column in range(room + 1)]
        means = [fmean(self.values[start:end]) for start, end in pairwise(cuts)]
        low, high = self.bounds or (min(means, default=0.0), max(means, default=0.0))
        places = [(mean - low) / (high - low) if high > low else 0.0 for mean in means]
        yield Text("".join(_LEVELS[round(place * (len(_LEVELS) - 1))] for place in places), self.style, no_wrap=True)


def bar(used: int, limit: int, style: str) -> ProgressBar:
    """Return a bar of what is used of a limit."""
    return ProgressBar(
        total=max(1, limit),
        completed=min(used, limit),
        style="bright_black",
        complete_style=style,
        finished_style=style,
    )


def panel(body: RenderableType, title: str, width: int, rows: int) -> Panel:
    """Return a panel of so many columns and rows, borders included."""
    return Panel(
        body,
        title=Text(one_line(title), style="bold"),
        title_align="left",
        box=box.ROUNDED,
        border_style="bright_black",
        width=width,
        height=rows,
        padding=(0, 1),
    )


def grid(label_width: int, lines: list[tuple[RenderableType, ...]], padding: PaddingDimensions = (0, 1, 0, 0)) -> Table:
    """Return lines of a label, a content that fills the room there is and, where they have one, an end at the right."""
    columns = (
        Column(width=label_width, style="dim", no_wrap=True),
        Column(ratio=1, no_wrap=True),
        Column(justify="right", no_wrap=True),
    )
    return _filled(Table.grid(*columns[: len(lines[0])], expand=True, padding=padding), lines)


def side_by_side(*parts: RenderableType) -> Table:
    """Return parts beside each other."""
    return _filled(Table.grid(*(Column(no_wrap=True) for _ in parts), padding=0), [parts])


def _filled(table: Table, lines: Iterable[tuple[RenderableType, ...]]) -> Table:
    for line in lines:
        table.add_row(*line)
    return table
