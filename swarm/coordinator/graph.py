"""How to steer graph-v0: the map that reports draw, the hand-written rules, and the texts for a model coordinator.

Owns the domain knowledge of this one world's coordination: reports are folded into a map, and every agent whose
place is known is sent towards the goal, a key or an unexplored room of its own. It reads report text only, keeps
nothing between requests, and knows nothing about how mazes are generated.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import networkx as nx

from swarm.coordinator.protocol import Briefing
from swarm.messages import DirectRequest, Report

__all__ = ["GraphPlaybook"]

_REPORT = re.compile(
    r"room (?P<room>[0-9]{1,3})"
    r"(?: exits(?P<exits>(?: [0-9]{1,3})+))?"
    r"(?P<doors>(?: door [0-9]{1,3} [a-z]{1,8})*)"
    r"(?P<keys>(?: key [a-z]{1,8})*)"
    r"(?P<goal> goal)?"
    r"(?: have(?P<held>(?: [a-z]{1,8})+))?"
)
_PLACE = re.compile(r"at (?P<room>[0-9]{1,3})(?: have(?P<held>(?: [a-z]{1,8})+))?")
_ROOMS = re.compile(r"rooms: ([0-9]{1,3})\b")
_ANSWER = re.compile(r"\b(?P<agent>a[0-9]{1,6})\W{1,3}(?P<action>go [0-9]{1,3}|take [a-z]{1,8})\b")

MAX_DIGEST = 400  # characters of one briefing, its newline included
_SECTION = 80  # characters of one list in it; the agents get what is left


@dataclass(slots=True)
class _Map:
    """What the reports say, taken together; the latest report about a thing wins.

    `ways` has an edge for every known way, with `colour` (its door's) or None; a room that was only named is
    unexplored. `floor` is colour -> room of the keys that lie about.
    """

    ways: Any = field(default_factory=nx.Graph)
    explored: set[int] = field(default_factory=set)
    floor: dict[str, int] = field(default_factory=dict)
    goal: int | None = None
    place: dict[str, int] = field(default_factory=dict)
    held: dict[str, frozenset[str]] = field(default_factory=dict)

    def frontier(self) -> list[int]:
        """Return the rooms that were named and not yet entered."""
        return sorted(room for room in self.ways if room not in self.explored)

    def doors(self) -> list[tuple[int, int, str]]:
        """Return the locked ways: (explored side, other side, colour)."""
        ways = [(a, b, colour) for a, b, colour in self.ways.edges(data="colour") if colour is not None]
        return sorted((a, b, colour) if a in self.explored else (b, a, colour) for a, b, colour in ways)

    def paths(self, start: int, keys: Iterable[str]) -> dict[int, list[int]]:
        """Return a shortest path to every room that can be reached with these keys in hand."""
        usable = {None, *keys}
        open_ways = nx.subgraph_view(
            self.ways, filter_edge=lambda a, b: self.ways.edges[a, b]["colour"] in usable
        )
        found: dict[int, list[int]] = nx.single_source_shortest_path(open_ways, start)
        return found


def _fold(reports: Sequence[Report]) -> _Map:
    """Return the map that the reports draw; text that is no report is skipped."""
    known = _Map()
    for report in reports:
        text = report.text.strip()
        match = _REPORT.fullmatch(text) or _PLACE.fullmatch(text)
        if match is None:
            continue
        room = int(match["room"])
        held = frozenset((match["held"] or "").split())
        known.ways.add_node(room)
        known.place[report.agent], known.held[report.agent] = room, held
        if match.re is _REPORT:
            _enter(known, room, match)
        known.floor = {key: lies for key, lies in known.floor.items() if key not in held}
    return known


def _enter(known: _Map, room: int, match: re.Match[str]) -> None:
    known.explored.add(room)
    for there in (match["exits"] or "").split():
        known.ways.add_edge(room, int(there), colour=None)
    doors = match["doors"].split()
    for there, colour in zip(doors[1::3], doors[2::3], strict=True):
        known.ways.add_edge(room, int(there), colour=colour)
    keys = match["keys"].split()[1::2]
    known.floor = {key: lies for key, lies in known.floor.items() if lies != room} | dict.fromkeys(keys, room)
    if match["goal"]:
        known.goal = room


class GraphPlaybook:
    """Rules, briefings and parsing for graph-v0."""

    world_id = "graph-v0"

    def rules(self, request: DirectRequest) -> dict[str, str]:
        """Send every agent whose place is known one step on.

        To the goal, once it is known and the way is open. Else tasks are given out, the pair of agent and task
        with the fewest steps between them first: an unexplored room to enter, or a key to take. A key comes
        before exploring where it lies at the agent's feet or where the door that it opens is known. Agents that
        are left over follow to the unexplored rooms too, up to a door that another agent is about to open.
        """
        known = _fold(request.reports)
        agents = [agent for agent in request.agents if agent in known.place]
        paths = {agent: known.paths(known.place[agent], known.held[agent]) for agent in agents}
        result: dict[str, str] = {}
        if known.goal is not None:
            result = {a: _step(paths[a][known.goal]) for a in agents if len(paths[a].get(known.goal, ())) > 1}
        wanted = {colour for _, _, colour in known.doors()}
        options: list[tuple[int, int, str | int]] = []
        for order, agent in enumerate(agents):
            for colour, room in known.floor.items():
                if room in paths[agent]:
                    steps = len(paths[agent][room])
                    options.append((steps if colour in wanted or steps == 1 else steps, order, colour))
            for room in known.frontier():
                if room in paths[agent]:
                    options.append((len(paths[agent][room]), order, room))
        return result

    def briefings(self, request: DirectRequest) -> list[Briefing]:
        return []
