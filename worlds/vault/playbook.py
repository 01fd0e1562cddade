"""How to steer vault-v0: the value that opened one vault goes to the agent whose vault asks with it.

Owns the domain knowledge of this one world's coordination: which room follows which, whose a room is, and who has to be
told. It reads goal and report texts only and keeps nothing between calls.
"""

import re
from itertools import pairwise

from worlds.protocol import Briefing, Playbook, Situation

_CHAINS = re.compile(r"chains: ([0-9 |]+)")
_ROOMS = re.compile(r"rooms((?: [0-9]{1,3})+)")
_OPENED = re.compile(r"room ([0-9]{1,3}) opened ([a-z]{1,12})")
_CLOSED = re.compile(r"room ([0-9]{1,3}) closed")
_ANSWER = re.compile(r"\b(?P<agent>a[0-9]{1,6})\W{1,3}(?P<key>[a-z]{1,12})\b")


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
        owner: dict[int, str] = {}
        opened: dict[int, tuple[str, str]] = {}  # room -> by whom, with which value
        closed: set[int] = set()
        for report in situation.reports:
            text = report.text.strip()
            if match := _ROOMS.fullmatch(text):
                owner |= dict.fromkeys(map(int, match[1].split()), report.agent)
            elif match := _OPENED.fullmatch(text):
                opened[int(match[1])] = (report.agent, match[2])
            elif match := _CLOSED.fullmatch(text):
                closed.add(int(match[1]))
        told: dict[str, str] = {}
        for chain in chains[1].split("|"):
            for before, room in pairwise(map(int, chain.split())):
                if before in opened and room not in opened and room not in closed:
                    opener, value = opened[before]
                    if owner.get(room, opener) != opener:
                        told.setdefault(owner[room], f"key {value}")
        return {agent: told[agent] for agent in situation.agents if agent in told}

    def briefings(self, situation: Situation) -> list[Briefing]:
        """Offer a model what the rules would say, in one line; none when there is nothing to tell."""
        told = self.rules(situation)
        lines = [f"{agent} {directive.removeprefix('key ')}" for agent, directive in told.items()]
        return [Briefing(tuple(told), f"keys {' '.join(lines)}\n")] if told else []

    def parse(self, text: str, briefing: Briefing) -> dict[str, str]:
        """Return `AGENT: KEY` pairs for the agents of the briefing; total on any text."""
        found = {match["agent"]: f"key {match['key']}" for match in _ANSWER.finditer(text)}
        return {agent: found[agent] for agent in briefing.agents if agent in found}
