"""How to steer vault-v0: the value that opened one vault goes to the agent whose vault asks with it.

Owns the domain knowledge of this one world's coordination: which room follows which, whose a room is, and who has to be
told. It reads goal and report texts only and keeps nothing between calls.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from worlds.protocol import Briefing, Playbook, Report, Situation

_CHAINS = re.compile(r"chains: ([0-9 |]+)")
_ROOMS = re.compile(r"rooms((?: [0-9]{1,3})+)")
_OPENED = re.compile(r"room ([0-9]{1,3}) opened ([a-z]{1,12})")
_CLOSED = re.compile(r"room ([0-9]{1,3}) closed")
_ANSWER = re.compile(r"\b(?P<agent>a[0-9]{1,6})\W{1,3}(?P<key>[a-z]{1,12})\b")


@dataclass(slots=True)
class _News:
    """What the reports say: whose a room is, by whom and with which value it was opened, which ones are closed."""

    owner: dict[int, str] = field(default_factory=dict)
    opened: dict[int, tuple[str, str]] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)


def _fold(reports: Sequence[Report]) -> _News:
    news = _News()
    for report in reports:
        text = report.text.strip()
        if rooms := _ROOMS.fullmatch(text):
            news.owner |= dict.fromkeys(map(int, rooms[1].split()), report.agent)
        elif opened := _OPENED.fullmatch(text):
            news.opened[int(opened[1])] = (report.agent, opened[2])
        elif closed := _CLOSED.fullmatch(text):
            news.closed.add(int(closed[1]))
    return news


class VaultPlaybook(Playbook):
    """Rules, briefings and parsing for vault-v0."""

    directive = r"key [a-z]{1,12}"
    about = (
        "A directive such as key tolu tells the agent whose vault comes next the value that opened the one before it."
    )

    def rules(self, situation: Situation) -> dict[str, str]:
        """Tell the owner of every vault that is next in its chain the value that opened the one before it.

        Who opened that one itself knows it. An agent is told one key at a time, that of its first such room.
        """
        chains = _CHAINS.search(situation.goal)
        if chains is None:
            return {}
        news = _fold(situation.reports)
        told: dict[str, str] = {}
        for chain in chains[1].split("|"):
            rooms = [int(room) for room in chain.split()]
            for before, room in pairwise(rooms):
                if before not in news.opened or room in news.opened or room in news.closed:
                    continue
                opener, value = news.opened[before]
                owner = news.owner.get(room)
                if owner is not None and owner != opener and owner in situation.agents:
                    told.setdefault(owner, value)
        return {agent: f"key {told[agent]}" for agent in situation.agents if agent in told}

    def briefings(self, situation: Situation) -> list[Briefing]:
        """Offer a model what the rules would say, in one line; none when there is nothing to tell."""
        told = self.rules(situation)
        if not told:
            return []
        lines = [f"{agent} {directive.removeprefix('key ')}" for agent, directive in told.items()]
        return [Briefing(tuple(told), f"keys {' '.join(lines)}\n")]

    def parse(self, text: str, briefing: Briefing) -> dict[str, str]:
        """Return `AGENT: KEY` pairs for the agents of the briefing; total on any text."""
        found = {match["agent"]: f"key {match['key']}" for match in _ANSWER.finditer(text)}
        return {agent: found[agent] for agent in briefing.agents if agent in found}
