"""Draws a `TrainingState` with rich, in the rows and columns it is given.

Every group of metrics is a panel, every metric a line: name, curve, newest value. Losses come first; the other panels
share two columns below. Panels get shorter as the terminal does, and say how many lines they leave out.
"""

import math
from collections.abc import Iterable, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from swarm.text import one_line
from swarm.train.monitor import Points, Record, convergence, curves, total
from swarm.view.panels import Sparkline, bar, brief, duration, grid, panel, side_by_side
from swarm.view.training_state import TrainingState, status

LOSSES = ("loss", "loss_", "bits_")
TWO_COLUMNS_FROM = 70

_GROUPS: dict[str, tuple[str, ...]] = {
    "memory": ("reads_", "ltm_hit_rate", "routed_token_ratio", "avg_surprisal_routed", "consolidated", "rejected"),
    "gradient shares": ("share_",),
    "curriculum": ("level_",),
    "pace": ("tokens_per_s", "rss_mb", "padding_share", "end_rate", "grad_norm", "lr"),
}
"""Which metrics stand in which panel beside the losses."""

_LABELS = {
    "ltm_hit_rate": "hits",
    "routed_token_ratio": "routed",
    "avg_surprisal_routed": "bits routed",
    "tokens_per_s": "tokens/s",
    "rss_mb": "RSS, MB",
    "padding_share": "padding",
    "end_rate": "end token",
    "grad_norm": "gradient",
}
_SHARES = ("share_", "ltm_hit_rate", "routed_token_ratio", "padding_share", "end_rate")
_COUNTS = ("consolidated", "rejected")
_LABEL_WIDTH = 18

Line = tuple[str, RenderableType, RenderableType]


def render(state: TrainingState | None, width: int, height: int) -> RenderableType:
    """Return the view, at most `width` x `height` cells; None for a training without a record yet."""
    if state is None:
        return panel(Text("waiting for the first record of the training", style="dim"), "swarm", width, 3)
    head = _head(state)
    parts: list[RenderableType] = [panel(grid(9, head, padding=(0, 1)), state.title, width, len(head) + 2)]
    news = _news(state)
    left = height - len(head) - 2
    news_rows = min(len(news) + 2, max(3, left // 3)) if news else 0
    left -= news_rows
    losses = [_line(name, points, is_loss=True) for name, points in curves(state.records, *LOSSES).items()]
    groups = [(title, lines) for title, names in _GROUPS.items() if (lines := _lines(state, names))]
    if losses and left >= 3:
        rows = min(len(losses) + 2, max(3, left - 6) if groups else left)  # of each other panel a line at least
        parts.append(_panel("losses", losses, width, rows))
        left -= rows
    if len(groups) > 1 and width >= TWO_COLUMNS_FROM:
        half = width // 2
        parts.append(side_by_side(_stacked(groups[::2], half, left), _stacked(groups[1::2], width - half, left)))
    else:
        parts.append(_stacked(groups, width, left))
    if news:
        parts.append(panel(Group(*news[: news_rows - 2]), "latest", width, news_rows))
    return Group(*parts)


def in_one_line(record: Record) -> str:
    """Return a record in words: a notice, or the step with its losses, levels and pace; "" of others."""
    if "notice" in record:
        return one_line(record["notice"])
    if "step" not in record:
        return ""
    found = {**curves([record], *LOSSES), **curves([record], "level_")}
    words = [f"step {record['step']:,}", *(f"{name} {_number(name, points[-1][1])}" for name, points in found.items())]
    words += [f"{record['tokens_per_s']:,.0f} tokens/s"] if "tokens_per_s" in record else []
    words += [f"ETA {duration(record['eta_s'])}"] if record.get("eta_s") else []
    words += [f"sample: {one_line(record['sample'])}"] if "sample" in record else []
    return ", ".join(words)


def _head(state: TrainingState) -> list[tuple[RenderableType, ...]]:
    last = state.records[-1] if state.records else {}
    step, passed_s = last.get("step", 0), last.get("seconds", 0.0)
    left_s = 0.0 if state.is_trained or state.abandoned else max(0.0, last.get("eta_s", 0.0) - state.silent_s)
    said = Text.assemble(status(state), (f"  {duration(passed_s)}" if passed_s else "", "dim"))
    whole = f"/{state.steps:,}" if state.steps else ""
    ends = f"  ETA {duration(left_s)}" if left_s else ""
    pace = f"{brief(last['tokens'])} tokens" if "tokens" in last else "no step yet"
    if last and not state.is_trained and "tokens_per_s" in last:
        pace += f", {brief(last['tokens_per_s'])} tokens/s"
    lines: list[tuple[RenderableType, ...]] = [
        ("steps", bar(step, state.steps or step, "green"), Text.assemble(f"{step:,}{whole}", (ends, "dim"))),
        ("learned", Text(pace), said),
    ]
    if state.of > 1:
        lines.append(("trainings", bar(state.finished, state.of, "green"), f"{state.finished}/{state.of}"))
    return lines


def _lines(state: TrainingState, names: Iterable[str]) -> list[Line]:
    """Return a line for each metric of a group; of counts, which are those since the line before, the sum."""
    lines = []
    for name, points in (found for wanted in names for found in curves(state.records, wanted).items()):
        label, curve, value = _line(name, points)
        lines.append((label, curve, f"{total(state.records, name):g}" if name in _COUNTS else value))
    return lines


def _line(name: str, points: Points, *, is_loss: bool = False) -> Line:
    value = _number(name, points[-1][1])
    if is_loss and (slope := convergence(points)) is not None:
        value += f"  {slope:+.3g}/1k steps"
    label = _LABELS.get(name, name.removeprefix("share_").removeprefix("level_"))
    return label, _curve(name, points, is_loss), Text(value, style="" if math.isfinite(points[-1][1]) else "bold red")


def _curve(name: str, points: Points, is_loss: bool) -> Sparkline:
    """Return a curve over the whole training: losses between their extremes, shares from 0 to 1, others from 0 on."""
    values = [value for _, value in points if math.isfinite(value)]
    extremes = (min([0.0, *values]), max([0.0, *values]))
    bounds = None if is_loss else (0.0, 1.0) if name.startswith(_SHARES) else extremes
    return Sparkline(values, bounds, "cyan" if is_loss else "green")


def _number(name: str, value: float) -> str:
    if name.startswith(_SHARES):
        return f"{value:.1%}"
    return f"{value:.4g}" if abs(value) < 1000 or not math.isfinite(value) else brief(value)


def _stacked(groups: Sequence[tuple[str, list[Line]]], width: int, rows: int) -> RenderableType:
    """Return panels below each other in so many rows; each has a line at least as long as there is room for that."""
    drawn = []
    for number, (title, lines) in enumerate(groups, 1):
        fit = min(len(lines) + 2, max(3, rows - 3 * (len(groups) - number)))
        if fit <= rows:
            drawn.append(_panel(title, lines, width, fit))
            rows -= fit
    return Group(*drawn)


def _panel(title: str, lines: list[Line], width: int, rows: int) -> RenderableType:
    more = len(lines) - (rows - 2)
    title = title if more <= 0 else f"{title} · +{more} more"
    label_width = min(max(len(line[0]) for line in lines), _LABEL_WIDTH)
    return panel(grid(label_width, list(lines[: rows - 2])), title, width, rows)


def _news(state: TrainingState) -> list[Text]:
    """Return what to do, alarms, the newest sample and the last notices, a line each."""
    lines = [Text(f"continue it with: {state.again}", style="bold yellow")] if state.abandoned else []
    lines += [Text(f"! {alarm.text}", style="bold red") for alarm in state.alarms()]
    lines += [Text(f"sample: {state.sample}", style="italic")] if state.sample else []
    lines += [Text(notice, style="dim") for notice in reversed(state.notices)]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return lines
