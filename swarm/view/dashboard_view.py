"""Draws a `DashboardState` with rich, in the rows and columns it is given.

Owns the layout: one column of panels below 110 columns, two from there on; panels get shorter as the terminal
does, and say what they leave out rather than being cut. It refuses to read files and to remember anything.
"""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from swarm.record.records import EpisodeEnd
from swarm.text import one_line
from swarm.view.dashboard_state import AgentView, DashboardState, EpisodeView, LearnedView
from swarm.view.panels import Sparkline, bar, brief, duration, grid, panel, plural, side_by_side

TWO_COLUMNS_FROM = 110
QUIET_AFTER_S = 30.0
MAX_VIEWS = 3

_LEARNED_ROWS = 5

_AGENT_COLUMNS = {"action": 4, "feedback": 5, "← told → says": 5}
"""Columns of the table of agents that share its width, and in which ratio."""


def render(state: DashboardState, width: int, height: int, *, now_s: float | None = None) -> RenderableType:
    """Return the dashboard, at most `width` x `height` cells.

    Args:
        state: the picture of the run.
        width: columns of the terminal.
        height: rows of the terminal.
        now_s: unix seconds, to show how long a run has been going or silent; None for a finished picture.
    """
    if not state.config:
        return panel(Text("waiting for the first record of the run", style="dim"), "swarm", width, 3)
    if width >= TWO_COLUMNS_FROM:
        return _two_columns(state, width, height, now_s)
    bottom = 6 if height >= 16 else 0
    learned_rows = _LEARNED_ROWS if state.learned and 5 + 3 + _num_agents(state) + bottom + 8 <= height else 0
    height -= learned_rows
    mind_rows = 0 if _has_no_coordinator(state) or height < 20 else 3
    head_rows = 5 if 5 + 3 + _num_agents(state) + mind_rows + bottom <= height else 4
    if mind_rows:
        spare = height - head_rows - bottom - 3 - max(1, _num_agents(state))
        mind_rows = max(mind_rows, min(2 + len(_directive_groups(state)), spare))
    parts = [_head(state, width, head_rows, now_s), _agents(state, width, height - head_rows - bottom - mind_rows)]
    if mind_rows:
        parts.append(_coordinator(state, width, mind_rows))
    if learned_rows and state.learned is not None:
        parts.append(_learned(state.learned, width))
    if bottom:
        left = width // 2
        parts.append(side_by_side(_budget(state, left, 6), _swarm(state, width - left, 6)))
    return Group(*parts)


def status(state: DashboardState, now_s: float | None = None) -> tuple[str, str]:
    """Return what the run is doing, as text and its style."""
    if state.end is not None:
        return state.end["reason"], "bold green" if state.end["reason"] == "finished" else "bold yellow"
    if state.interrupted:
        return "interrupted, `swarm resume` continues it", "bold yellow"
    if state.abandoned:
        return "nobody runs it, `swarm resume` continues it", "bold yellow"
    if state.learned is not None and state.learned.computing is not None:
        return f"learning after round {state.learned.computing + 1}", "bold magenta"
    if now_s is not None and state.seen_at_s is not None and now_s - state.seen_at_s > QUIET_AFTER_S:
        return f"silent for {duration(now_s - state.seen_at_s)}", "bold yellow"
    return "running", "bold cyan"


def _two_columns(state: DashboardState, width: int, height: int, now_s: float | None) -> RenderableType:
    rows = max(13, height - 5)
    right = min(56, width * 2 // 5)
    left = width - right
    directed = not _has_no_coordinator(state) and rows >= 15
    mind_rows = min(2 + max(1, len(_directive_groups(state))), rows - 12) if directed else 0
    agent_rows = min(rows, 3 + max(1, _num_agents(state)))
    left_column = [_agents(state, left, agent_rows)]
    right_column = [_coordinator(state, right, mind_rows)] if mind_rows else []
    right_column += [_budget(state, right, 6), _swarm(state, right, 6)]
    if state.learned is not None and rows - 12 - mind_rows >= _LEARNED_ROWS:
        right_column.append(_learned(state.learned, right))
        mind_rows += _LEARNED_ROWS
    # The news go where room is left, below the agents if they are few.
    if rows - agent_rows >= 4:
        left_column.append(_recent_events(state, left, min(rows - agent_rows, 14)))
    elif rows - 12 - mind_rows >= 4:
        right_column.append(_recent_events(state, right, rows - 12 - mind_rows))
    return Group(_head(state, width, 5, now_s), side_by_side(Group(*left_column), Group(*right_column)))


def _head(state: DashboardState, width: int, rows: int, now_s: float | None) -> RenderableType:
    clock_s = state.work_s
    if state.end is None and not state.interrupted and now_s is not None and state.started_at_s is not None:
        clock_s = now_s - state.started_at_s
    state_text = Text.assemble(status(state, now_s), (f"  {duration(clock_s)}" if clock_s else "", "dim"))
    lines: list[tuple[RenderableType, ...]] = [
        ("goal", _goal(state), state_text),
        ("episodes", bar(state.num_ended, state.total_episodes, "green"), _score(state)),
        ("recent", _recent(state, width - 40), _where(state)),
    ]
    title = f"{state.config['name']} · {state.config['world']['id']} · seed {state.config['seed']}"
    return panel(grid(9, lines[: rows - 2], padding=(0, 1)), title, width, rows)


def _goal(state: DashboardState) -> Text:
    """Return the goal and, where the agents see few different things, what they see."""
    if state.shown is None:
        return Text("no episode yet", style="dim")
    views = state.shown.views if len(state.shown.views) <= MAX_VIEWS else []
    seen = ((f"  · {one_line(view)}", "not bold dim") for view in views)
    return Text.assemble(one_line(state.shown.goal), *seen, style="bold", no_wrap=True, overflow="ellipsis")


def _score(state: DashboardState) -> Text:
    exam = state.learned.exam if state.learned else (0, 0)
    ended, solved = state.num_ended - exam[0], state.num_solved - exam[1]
    share = f" ({solved / ended:.0%})" if ended else ""
    eta_s = state.eta_s()
    return Text.assemble(
        f"{state.num_ended}/{state.total_episodes}  ",
        (f"solved {solved}{share}", "green" if solved else ""),
        (f"  exam {exam[1]} of {exam[0]}" if exam[0] else "", "green" if exam[1] else ""),
        (f"  ETA {duration(eta_s)}" if eta_s is not None else "", "dim"),
    )


def _recent(state: DashboardState, room: int) -> Text:
    if not state.ended:
        return Text("no episode has ended yet", style="dim")
    return Text.assemble(*(_mark(ended) for ended in list(state.ended)[-max(1, room) :]), no_wrap=True)


def _mark(ended: EpisodeEnd) -> tuple[str, str]:
    return ("■", "green") if ended["solved"] else ("□", "red")


def _where(state: DashboardState) -> Text:
    more = f", {state.num_open} in flight" if state.num_open > 1 else ""
    where = f"episode {state.shown.index}, tick {state.shown.tick}{more}" if state.shown else ""
    return Text(where, style="dim")


def _num_agents(state: DashboardState) -> int:
    return len(state.shown.agents) if state.shown else 0


def _agents(state: DashboardState, width: int, rows: int) -> RenderableType:
    """Return the table of agents in at most `rows` rows; the last row counts those that do not fit."""
    shown = state.shown
    agents = list(shown.agents.items()) if shown else []
    fit = len(agents) if len(agents) <= rows - 3 else rows - 4
    table = Table(
        Column("agent", no_wrap=True, style="cyan", min_width=5),
        *(Column(name, ratio=ratio, no_wrap=True) for name, ratio in _AGENT_COLUMNS.items()),
        Column("tokens", justify="right", no_wrap=True, min_width=6, style="dim"),
        box=None,
        expand=True,
        padding=(0, 1, 0, 0),
        header_style="dim",
        pad_edge=False,
    )
    for name, agent in agents[:fit]:
        tokens = agent.entry["prompt_tokens"] + agent.entry["generated_tokens"] if agent.entry else 0
        table.add_row(one_line(name), *_last_action(agent), _last_message(agent), str(tokens or ""))
    body: RenderableType = table
    if fit < len(agents):
        body = Group(table, Text(f"+{len(agents) - fit} more", style="dim"))
    elif not agents:
        body = Text("the agents come with the first episode", style="dim")
    title = f"agents · episode {shown.index} · tick {shown.tick}" if shown else "agents"
    if shown and shown.outcome:
        title += f" · {one_line(shown.outcome)}"
    return panel(body, title, width, min(rows, 3 + max(1, len(agents))))


def _last_action(agent: AgentView) -> tuple[Text, Text]:
    """Return the action and what came of it; as long as no tick was read nothing is known."""
    style = _style(agent)
    if agent.entry is None:
        return Text("rests" if agent.rests else "…", style=style), Text("")
    if fault := agent.entry.get("fault"):
        return Text("fault", style=style), Text(one_line(fault), style=style)
    return Text(one_line(agent.entry["action"])), Text(one_line(agent.entry["feedback"]), style=style)


def _style(agent: AgentView) -> str:
    """Return the colour of what came of the agent's last action."""
    if agent.entry is None:
        return "dim"
    return "yellow" if agent.entry.get("fault") else "green" if agent.entry["valid"] else "red"


def _last_message(agent: AgentView) -> Text:
    """Return what the agent has in mind: the directive it was given, else what it last told the others."""
    if agent.directive:
        return Text(f"← {one_line(agent.directive)}", style="magenta")
    return Text(f"→ {one_line(agent.report)}" if agent.report else "", style="dim")


def _has_no_coordinator(state: DashboardState) -> bool:
    return bool(state.config["coordinator"]["kind"] == "none")


def _directive_groups(state: DashboardState) -> list[tuple[str, list[str]]]:
    """Return the last directives with the agents that got them, the most shared first."""
    groups: dict[str, list[str]] = {}
    for agent, text in (state.shown.directives if state.shown else {}).items():
        groups.setdefault(one_line(text), []).append(agent)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def _coordinator(state: DashboardState, width: int, rows: int) -> RenderableType:
    groups, room = _directive_groups(state), rows - 2
    fit = len(groups) if len(groups) <= room else max(1, room - 1)
    lines = [] if groups else [Text("no directive yet", style="dim")]
    for text, agents in groups[:fit]:
        names = " ".join(agents[:4]) + (f" +{len(agents) - 4}" if len(agents) > 4 else "")
        parts = ((text, "magenta"), (" → ", "dim"), (names, "cyan"))
        lines.append(Text.assemble(*parts, no_wrap=True, overflow="ellipsis"))
    if fit < len(groups):
        more = f"+{len(groups) - fit} more"
        if room > 1:
            lines.append(Text(more, style="dim"))
        else:
            lines[0].append(f"  {more}", style="dim")
    return panel(Group(*lines), f"coordinator · {state.config['coordinator']['kind']}", width, rows)


def _budget(state: DashboardState, width: int, rows: int) -> RenderableType:
    shown = state.shown or EpisodeView(0, "")
    spent: dict[str, Any] = {**shown.spent, "ticks": shown.tick}
    limits = state.limits(shown.index)
    lines: list[tuple[RenderableType, ...]] = []
    for name in ("tokens", "calls", "actions", "ticks"):
        used, limit = spent[name], limits.get(name)
        if limit is None:
            lines.append((name, Text("no limit", style="dim"), f"{used:,}"))
        else:
            style = "red" if used >= limit else "yellow" if used >= 0.8 * limit else "cyan"
            lines.append((name, bar(used, limit, style), f"{used:,}/{limit:,}"))
    return panel(grid(7, lines), f"budget · episode {shown.index}", width, rows)


def _swarm(state: DashboardState, width: int, rows: int) -> RenderableType:
    rates = state.rates()
    speed = "no commit yet" if rates is None else f"{brief(rates[0])} tokens/s, {brief(rates[1])} steps/s"
    counts = {"fault": state.num_faults, "host death": state.num_host_deaths, "resume": state.num_resumes}
    trouble = ", ".join(plural(count, name) for name, count in counts.items() if count)
    lines: list[tuple[RenderableType, ...]] = [
        ("links", Text(_links(state))),
        ("agents", _dots(state, width - 11)),
        ("speed", Text(speed, style="bold" if rates else "dim")),
        ("faults", Text(trouble or "none", style="yellow" if trouble else "dim")),
    ]
    return panel(grid(6, lines), f"swarm · {state.config['topology']['kind']}", width, rows)


def _learned(learned: LearnedView, width: int) -> RenderableType:
    """Return the learning curve, what came of the steps, and what that cost, in three lines."""
    done = sorted(learned.rounds.items())
    shares = [solved / ended for _, (ended, solved) in done]
    last = f"{done[-1][1][1] / done[-1][1][0]:.0%}" if done else ""
    steps = ", ".join(f"{count} {word}" for word, count in learned.counts.items())
    probe = "" if learned.probe is None else f"probe {learned.first_probe:.2f} → {learned.probe:.2f}"
    lines: list[tuple[RenderableType, ...]] = [
        ("solved", Sparkline(shares[-max(1, width - 30) :], (0.0, 1.0), "green"), last),
        ("steps", Text(steps or "none yet", style="" if steps else "dim"), probe),
        ("cost", Text(f"{brief(learned.tokens)} tokens"), ""),
    ]
    return panel(
        grid(6, lines), f"learning · round {min(len(done), learned.num_rounds)} of {learned.num_rounds}", width, 5
    )


def _links(state: DashboardState) -> str:
    """Return who reads whose reports, in one line."""
    topology, count = state.config["topology"], int(state.config["agents"]["count"])
    last = f"a{count - 1}"
    names = "a0" if count == 1 else f"a0 {last}" if count == 2 else f"a0 … {last}"
    drawn = {
        "none": f"{names}, nobody reads reports",
        "ring": f"a0─a1─…─{last}─a0" if count > 2 else names,
        "complete": f"{names}, all read all",
        "small_world": f"{names}, a small world",
        "file": f"{names}, from {one_line(topology.get('path'))}",
    }.get(topology["kind"], names)
    return drawn if topology["kind"] == "none" or _has_no_coordinator(state) else f"{drawn} ⇄ coordinator"


def _dots(state: DashboardState, room: int) -> Text:
    """Return one dot per agent: green acted, red was illegal, yellow failed, hollow rested."""
    agents = list(state.shown.agents.values()) if state.shown else []
    fit = len(agents) if len(agents) <= room else room - 6
    text = Text.assemble(*(("●" if agent.entry else "○", _style(agent)) for agent in agents[:fit]), no_wrap=True)
    if fit < len(agents):
        text.append(f" +{len(agents) - fit}", style="dim")
    return text


def _recent_events(state: DashboardState, width: int, rows: int) -> RenderableType:
    """Return the last trouble and the last ended episodes, newest first."""
    lines = [Text(one_line(event), style="yellow") for event in list(state.events)[-1:-4:-1]]
    lines += [_ended(ended) for ended in list(state.ended)[-1 : -(rows - 1) : -1]]
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    lines = lines[: rows - 2] or [Text("no episode has ended yet", style="dim")]
    return panel(Group(*lines), "latest", width, rows)


def _ended(ended: EpisodeEnd) -> Text:
    mark, colour = _mark(ended)
    return Text.assemble(
        (f"{mark} ", colour),
        f"{ended['episode']}: {one_line((ended['solved'] and ended.get('solution')) or ended['reason'])}",
        (f"  {plural(ended['ticks'], 'tick')}, {ended['tokens']:,} tokens", "dim"),
    )
