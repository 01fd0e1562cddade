"""What a language model or a person is told about an episode: a text built by code, the same for the same reports.

Owns which lines there are and in which order they are left out when they are too many: what was said long ago goes
first. It knows report texts, directives and hints; it refuses to know models.
"""

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from swarm.prompt import tool_lines
from worlds.protocol import Briefing, Playbook, Situation


def opening(tools: Sequence[Mapping[str, Any]], book: Playbook | None, form: str) -> str:
    """Return what opens the coordinator's chat.

    Args:
        tools: the world's actions.
        book: the world's playbook, None where it has none.
        form: how the answer is to be written, in a sentence.
    """
    lines = ["You coordinate agents that work on one goal. You cannot act; you read reports and say who shall do what."]
    if tools:
        lines += ["What agents can do:", *tool_lines(tools)]
    lines += [book.about if book else "A directive is one short instruction.", form]
    return "\n".join(lines)


def digest_lines(situation: Situation, briefings: Sequence[Briefing]) -> list[str]:
    """Return the lines of a digest, the most important first.

    That is the goal, what a person said last and before, what is open, what agents said last, what those that learn can
    do by now, what came of the directives, and what was said before.
    """
    last = {report.agent: report for report in situation.reports}
    came_back = {(report.tick, report.agent): report.text for report in situation.reports}
    lines = [f"Goal: {situation.goal}"]
    lines += [f"A person says: {hint}" for hint in reversed(situation.hints)]
    lines.append(f"Agents: {' '.join(situation.agents)}")
    for briefing in briefings:
        told = " ".join(briefing.options.values())
        lines.append(
            f"Open for {' '.join(briefing.agents)}: {told}" if told else f"In short: {briefing.prompt.strip()}"
        )
    lines += [f"{agent} says: {last[agent].text}" for agent in situation.agents if agent in last]
    silent = [agent for agent in situation.agents if agent not in last]
    if silent and situation.reports:
        lines.append(f"No word from {' '.join(silent)}")
    lines += [
        f"Lately {agent} was right at {', '.join(f'{skill} {score:.0%}' for skill, score in skills.items())}"
        for agent, skills in situation.skills.items()
    ]
    lines += [
        f"Told {agent} at tick {tick}: {text}; then {came_back.get((tick, agent)) or 'nothing was reported'}"
        for tick, agent, text in reversed(situation.directives)
    ]
    lines += [
        f"Before, {report.agent} said: {report.text}"
        for report in reversed(situation.reports)
        if report is not last[report.agent]
    ]
    return list(dict.fromkeys(lines))


def bounded(lines: Sequence[str], limit: int, count: Callable[[str], int]) -> str:
    """Return as many of the first lines as have at most `limit` tokens together; the first is always there.

    Args:
        lines: the most important first.
        limit: tokens.
        count: tokens of a text as the model will read it, marks of the chat included.
    """
    most = min(len(lines), max(limit, 1))  # a line has a token at least
    fitting = bisect_right(range(2, most + 1), limit, key=lambda number: count("\n".join(lines[:number])))
    return "\n".join(lines[: 1 + fitting])
