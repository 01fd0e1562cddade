"""`graph-v0`: rooms, locked doors and keys, one goal, and agents that see only the room they stand in.

Owns the generation of solvable mazes from a seed, their rules and their texts. It refuses to know who reads
the reports, and holds no plan: what was reported is remembered only to keep reports free of repetition.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import networkx as nx
from pydantic import Field, model_validator

from worlds.ordered import OrderedWorld
from worlds.protocol import Info, StepResult, WorldOptions, tool

COLOURS = ("red", "blue", "green", "gold", "pink", "grey", "brown", "white")

# Room numbers are ASCII digits of bounded length: int() would also take other scripts' digits, at any length.
_ACTION = re.compile(r"go ([0-9]{1,3})|take ([a-z]{1,8})|(look)")


class GraphOptions(WorldOptions):
    """Options of graph-v0."""

    rooms: int = Field(20, ge=2, le=999)
    """Rooms."""

    doors: int = Field(2, ge=0, le=len(COLOURS))
    """Locked doors, each with one key of its own colour; every door cuts the map in two."""

    degree: float = Field(2.6, ge=1.0, le=16.0)
    """Mean number of ways out of a room, as far as the map has space for it."""

    max_steps: int = Field(200, ge=1)
    """Steps after which the episode is truncated."""

    @model_validator(mode="after")
    def _rooms_suffice(self) -> GraphOptions:
        if self.rooms < self.doors + 2:
            raise ValueError(f"'rooms' is {self.rooms}, but {self.doors} doors need at least {self.doors + 2}")
        return self


class GraphWorld(OrderedWorld):
    """Search a dark maze of rooms for the one goal room; any agent that enters it wins for all.

    Rooms have numbers that mean nothing. Ways go in both directions. A door is a locked way; walking through
    it with the key of its colour opens it for everyone, for good. A key lies in one room until an agent takes
    it. All agents start in one room, and nobody knows where the goal is. One agent can solve every maze.

    observation  `room 4 exits 2 7 door 9 red key blue have gold`: open ways to 2 and 7, a red door to 9, a
                 blue key on the floor, a gold key in hand. Parts without content are left out, `door` and
                 `key` repeat, `have` lists all keys in hand. The goal room says `goal` after its keys.
    actions      `go 7` (an adjacent room, through a door if its key is in hand), `take blue`, `look` (stay).
    report       the observation, when what the room shows is new to the swarm or has changed;
                 `at 4` or `at 4 have gold`, when only the agent's own place or keys are new; else none.
    directive    one action, the next step: `go 7` (adjacent room) or `take red`.
    reward       1 for the agent that enters the goal, else 0; solved when one does.
    options      rooms (20), doors (2), degree (2.6), max_steps (200).
    """

    id: ClassVar[str] = "graph-v0"
    Options: ClassVar[type[WorldOptions]] = GraphOptions
    playbook: ClassVar[str | None] = "worlds.graph.playbook:GraphPlaybook"
    options: GraphOptions

    def begin(self, seed: int, options: Mapping[str, Any]) -> None:
        """Generate the maze of `seed` and put all agents into its start room; `options` change nothing."""
        self._graph, self._keys, start, self._goal = _generate(seed, self.options)
        self._room = dict.fromkeys(self.possible_agents, start)
        self._held: dict[str, list[str]] = {agent: [] for agent in self.possible_agents}
        self._shown: dict[int, str] = {}
        self._told: dict[str, str] = {}

    def step(self, actions: Mapping[str, str]) -> StepResult:
        """Apply the actions in agent order: of two agents that take one key, the first gets it."""
        acting = self.ordered(actions)
        result = super().step(actions)
        # An agent that passes keeps its news until it acts again: nobody may be listening to it now.
        for agent in acting:
            if report := self.news(agent):
                result.infos[agent]["report"] = report
        return result

    def state(self) -> dict[str, Any]:
        """Return the maze, where everything is, and what the swarm was told."""
        return {
            "step": self.steps,
            "solved": self.solved,
            "goal": self._goal,
            "ways": sorted([min(a, b), max(a, b), colour] for a, b, colour in self._graph.edges(data="colour")),
            "keys": dict(sorted(self._keys.items())),
            "agents": {
                agent: {
                    "live": agent in self.agents,
                    "room": self._room[agent],
                    "held": list(self._held[agent]),
                }
                for agent in self.possible_agents
            },
            "shown": {str(room): text for room, text in sorted(self._shown.items())},
            "told": dict(sorted(self._told.items())),
        }

    def goal(self) -> str:
        """Return what is sought and how large the maze is; where the goal is stays hidden."""
        return f"enter the goal room; rooms: {self.options.rooms}, locked doors: {self.options.doors}"

    def tools(self) -> list[dict[str, Any]]:
        """Return `go`, `take` (where there are keys) and `look`."""
        room = {"type": "integer", "minimum": 0, "maximum": self.options.rooms - 1}
        key = {"type": "string", "enum": self._colours()}
        take = tool("take", "Take a key that lies in this room.", "take {key}", key=key)
        return [
            tool("go", "Walk to an adjacent room; a door needs its key in hand.", "go {room}", room=room),
            *([take] if self._colours() else []),
            tool("look", "Stay and see the room again.", "look"),
        ]

    def render(self) -> str:
        """Return the progress of the search and where everyone is."""
        head = (
            f"graph-v0 step {self.steps}/{self.options.max_steps}"
            f" · seen {len(self._shown)}/{self.options.rooms} rooms · goal {self._goal}"
            + (" · reached" if self.solved else "")
        )
        crowds: dict[int, list[str]] = {}
        for agent in self.possible_agents:
            crowds.setdefault(self._room[agent], []).append(" ".join([agent, *self._held[agent]]))
        return "\n".join([head, *(f"room {room}: {', '.join(crowd)}" for room, crowd in sorted(crowds.items()))])

    def sample_action(self, agent: str, directive: str, rng: random.Random) -> str:
        """Return the directive if it is a legal action here, else a random legal move."""
        moves = self._moves(agent) if agent in self._room else []
        if directive.strip() in moves:
            return directive.strip()
        return rng.choice(moves) if moves else "look"

    def action_pattern(self, agent: str) -> str | None:
        """Return the grammar of the actions: any room number, any colour of this maze."""
        colours = self._colours()
        take = f"take ({'|'.join(colours)})|" if colours else ""
        return f"go [0-9]{{1,3}}|{take}look"

    def _colours(self) -> list[str]:
        return list(COLOURS[: self.options.doors])

    def act(self, agent: str, action: str) -> tuple[Info, float]:
        """Walk, take a key or look."""
        feedback, valid = self._do(agent, action)
        reached = self._room[agent] == self._goal
        self.solved = self.solved or reached
        return Info(feedback=feedback, valid=valid), float(reached)

    def _do(self, agent: str, action: str) -> tuple[str, bool]:
        match = _ACTION.fullmatch(action)
        if match is None:
            return "not an action; say: go ROOM, take KEY or look", False
        here = self._room[agent]
        if match[3]:
            return "looked around", True
        if key := match[2]:
            if self._keys.get(key) != here:
                return f"no {key} key in room {here}", False
            del self._keys[key]
            self._held[agent] = sorted([*self._held[agent], key])
            return f"took the {key} key", True
        there = int(match[1])
        if not self._graph.has_edge(here, there):
            return f"no way from room {here} to {there}", False
        colour = self._graph.edges[here, there]["colour"]
        if colour is not None and colour not in self._held[agent]:
            return f"the door to {there} needs the {colour} key", False
        self._graph.edges[here, there]["colour"] = None
        self._room[agent] = there
        return (f"opened the {colour} door to {there}" if colour else f"walked to {there}"), True

    def _moves(self, agent: str) -> list[str]:
        room, held = self._room[agent], self._held[agent]
        ways = sorted(self._graph.adj[room].items())
        moves = [f"go {there}" for there, way in ways if way["colour"] is None or way["colour"] in held]
        return moves + [f"take {colour}" for colour in self._keys_in(room)]

    def _keys_in(self, room: int) -> list[str]:
        return sorted(colour for colour, lies in self._keys.items() if lies == room)

    def _view(self, room: int) -> str:
        ways = sorted(self._graph.adj[room].items())
        exits = [str(there) for there, way in ways if way["colour"] is None]
        doors = [f"door {there} {way['colour']}" for there, way in ways if way["colour"] is not None]
        keys = [f"key {colour}" for colour in self._keys_in(room)]
        goal = ["goal"] if room == self._goal else []
        return " ".join([f"room {room}", *(["exits", *exits] if exits else []), *doors, *keys, *goal])

    def _in_hand(self, agent: str) -> str:
        return " ".join([" have", *self._held[agent]]) if self._held[agent] else ""

    def observe(self, agent: str) -> str:
        """Return the room that an agent stands in, and its keys."""
        return self._view(self._room[agent]) + self._in_hand(agent)

    def news(self, agent: str) -> str | None:
        """Return what an agent has to tell: its room or else its place, when it is news; it is none from now on."""
        room = self._room[agent]
        view, place = self._view(room), f"at {room}{self._in_hand(agent)}"
        is_news, moved = self._shown.get(room) != view, self._told.get(agent) != place
        self._shown[room], self._told[agent] = view, place
        return self.observe(agent) if is_news else place if moved else None


def _generate(seed: int, options: GraphOptions) -> tuple[Any, dict[str, int], int, int]:
    """Return a connected maze that can be solved: its graph, colour -> room of the key, start and goal.

    Edges carry `colour`, their door's or None.

    Doors split the rooms into regions, and region k hangs on an earlier region by door k alone, whose key
    lies in an earlier region. So region 0 (the start) is open, and once all regions before k are, so is k;
    the goal is in the last one.
    """
    rng = random.Random(seed)  # noqa: S311  a maze is no secret, it must be reproducible
    numbers = rng.sample(range(options.rooms), options.rooms)
    regions = [numbers[k :: options.doors + 1] for k in range(options.doors + 1)]
    graph = nx.Graph()
    for region in regions:
        graph.add_node(region[0])
        for i, room in enumerate(region[1:], start=1):
            # Hanging a room on one of the three before it gives corridors; on any before it, a star.
            graph.add_edge(room, rng.choice(region[max(0, i - 3) : i]), colour=None)
    keys: dict[str, int] = {}
    start = rng.choice(regions[0])
    for k, colour in enumerate(COLOURS[: options.doors], start=1):
        graph.add_edge(rng.choice(rng.choice(regions[:k])), rng.choice(regions[k]), colour=colour)
        before = [room for region in regions[:k] for room in region if room != start]
        keys[colour] = rng.choice(before or [start])
    spare_ways = round(options.rooms * options.degree / 2) - graph.number_of_edges()
    wide = [region for region in regions if len(region) > 2]
    for _ in range(20 * spare_ways if wide else 0):
        if spare_ways <= 0:
            break
        a, b = rng.sample(rng.choice(wide), 2)
        if not graph.has_edge(a, b):
            graph.add_edge(a, b, colour=None)
            spare_ways -= 1
    distance = nx.single_source_shortest_path_length(graph, start)
    farthest = max(distance[room] for room in regions[-1])
    goal = rng.choice([room for room in regions[-1] if distance[room] == farthest])
    return graph, keys, start, goal
