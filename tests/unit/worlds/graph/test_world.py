"""graph-v0: every maze is solvable, agents see one room, and reports carry news and nothing else."""

from __future__ import annotations

import random
from collections import deque

import networkx as nx
import pytest

from worlds import make
from worlds.graph.world import COLOURS

MAZES = [
    pytest.param(options, id=" ".join(f"{key}={value}" for key, value in options.items()))
    for options in (
        {},
        {"rooms": 2, "doors": 0},
        {"rooms": 3, "doors": 1},
        {"rooms": 10, "doors": 8, "degree": 1.0},
        {"rooms": 40, "doors": 4, "degree": 4.0},
    )
]


def _plan(state, start):
    """Shortest solution of one agent: search over (room, keys in hand), from which opened doors follow."""
    ways: dict[int, list[tuple[int, str | None]]] = {}
    for a, b, colour in state["ways"]:
        ways.setdefault(a, []).append((b, colour))
        ways.setdefault(b, []).append((a, colour))
    first = (start, frozenset())
    plans, queue = {first: []}, deque([first])
    while queue:
        room, held = place = queue.popleft()
        if room == state["goal"]:
            return plans[place]
        moves = [(f"go {b}", (b, held)) for b, colour in ways[room] if colour is None or colour in held]
        moves += [(f"take {c}", (room, held | {c})) for c, lies in state["keys"].items() if lies == room]
        for action, after in moves:
            if after not in plans:
                plans[after] = [*plans[place], action]
                queue.append(after)
    return None


def _start(world):
    return world.state()["agents"]["a0"]["room"]


@pytest.mark.parametrize("options", MAZES)
def test_every_maze_is_connected_and_solved_by_the_plan_of_a_solver(options):
    for seed in range(40):
        world = make("graph-v0", 2, options)
        world.reset(seed)
        state = world.state()
        assert nx.is_connected(nx.Graph((a, b) for a, b, _ in state["ways"]))
        assert len({room for a, b, _ in state["ways"] for room in (a, b)}) == world.options.rooms
        plan = _plan(state, _start(world))
        assert plan, f"seed {seed} cannot be solved"
        assert len(plan) <= world.options.max_steps
        for action in plan:
            assert world.agents, "ended before the plan did"
            result = world.step({"a0": action})
            assert result.infos["a0"]["valid"], (action, result.infos["a0"])
        assert world.solved
        assert result.terminations == {"a0": True, "a1": True}
        assert result.rewards == {"a0": 1.0, "a1": 0.0}  # who entered
        assert result.truncations == {"a0": False, "a1": False}
        assert world.agents == []


def test_no_maze_is_solved_through_its_last_door_without_keys():
    """The doors matter: with the keys gone the goal is out of reach."""
    for seed in range(40):
        world = make("graph-v0", 1, {"doors": 1})
        world.reset(seed)
        assert _plan(world.state() | {"keys": {}}, _start(world)) is None


def test_seeds_alone_decide_the_maze():
    states = []
    for seed in (1, 1, 2):
        world = make("graph-v0", 1)
        world.reset(seed, {"episode": len(states)})
        states.append(world.state())
    assert states[0] == states[1]
    assert states[0] != states[2]


def test_room_numbers_do_not_give_away_start_or_goal():
    ends = set()
    for seed in range(60):
        world = make("graph-v0", 1)
        world.reset(seed)
        ends.add((_start(world), world.state()["goal"]))
    assert len({start for start, _ in ends}) > 12
    assert len({goal for _, goal in ends}) > 12


def test_degree_sets_the_mean_number_of_ways():
    for degree in (2.0, 3.0, 4.0):
        world = make("graph-v0", 1, {"rooms": 50, "degree": degree})
        world.reset(3)
        assert len(world.state()["ways"]) == pytest.approx(50 * degree / 2, abs=1)


@pytest.fixture
def corridor():
    """Three agents in room 0; ways 0-1 and 1-2, a blue key in 1, a blue door from 0 to the goal 3."""
    world = make("graph-v0", 3, {"rooms": 4, "doors": 2, "max_steps": 6})
    world.reset(0)
    world._graph = nx.Graph()
    for a, b, colour in ((0, 1, None), (1, 2, None), (0, 3, "blue")):
        world._graph.add_edge(a, b, colour=colour)
    world._keys, world._goal = {"blue": 1}, 3
    world._room = dict.fromkeys(world.possible_agents, 0)
    world._shown, world._told = {}, {}
    for agent in world.agents:
        world.news(agent)
    return world


def _feedback(world, action, agent="a0"):
    info = world.step({agent: action}).infos[agent]
    return info["feedback"], info["valid"]


def test_agents_see_their_own_room_only(corridor):
    result = corridor.step({"a1": "go 1"})
    assert result.observations == {
        "a0": "room 0 exits 1 door 3 blue",
        "a1": "room 1 exits 0 2 key blue",
        "a2": "room 0 exits 1 door 3 blue",
    }


def test_locked_door_needs_its_key_in_hand(corridor):
    assert _feedback(corridor, "go 3") == ("the door to 3 needs the blue key", False)
    assert not corridor.solved


def test_key_opens_the_door_for_everyone(corridor):
    corridor._goal = 2
    for action in ("go 1", "take blue", "go 0"):
        assert _feedback(corridor, action)[1]
    assert _feedback(corridor, "go 3") == ("opened the blue door to 3", True)
    assert _feedback(corridor, "go 3", "a1") == ("walked to 3", True)
    assert corridor.step({}).observations["a1"] == "room 3 exits 0"


def test_of_two_agents_that_take_one_key_the_first_gets_it(corridor):
    corridor.step({"a0": "go 1", "a1": "go 1"})
    result = corridor.step({"a1": "take blue", "a0": "take blue"})
    assert result.infos["a0"]["feedback"] == "took the blue key"
    assert (result.infos["a1"]["valid"], result.infos["a1"]["feedback"]) == (False, "no blue key in room 1")
    assert result.observations["a0"] == "room 1 exits 0 2 have blue"
    assert result.observations["a1"] == "room 1 exits 0 2"


@pytest.mark.parametrize(
    "action", ["go 2", "go 0", "go 99", "take red", "take blue", "go", "GO 1", "go -1", "jump", "go １"]
)
def test_illegal_actions_are_answered_and_change_nothing(corridor, action):
    before = corridor.state()
    feedback, valid = _feedback(corridor, action)
    assert feedback
    assert not valid
    assert corridor.state() == before | {"step": 1}


def test_space_around_an_action_is_no_mistake(corridor):
    assert _feedback(corridor, " go 1\n") == ("walked to 1", True)


def test_state_remembers_what_was_told_for_it_decides_the_next_reports(corridor):
    corridor.step({"a0": "go 1"})
    state = corridor.state()
    assert state["told"] == {"a0": "at 1", "a1": "at 0", "a2": "at 0"}
    assert state["shown"] == {"0": "room 0 exits 1 door 3 blue", "1": "room 1 exits 0 2 key blue"}


def test_look_stays(corridor):
    assert _feedback(corridor, "look") == ("looked around", True)
    assert _start(corridor) == 0


def test_truncation_comes_with_the_last_step_and_is_no_termination(corridor):
    for _ in range(5):
        result = corridor.step(dict.fromkeys(corridor.agents, "look"))
        assert not any(result.truncations.values())
    result = corridor.step({"a0": "look"})
    assert set(result.truncations.values()) == {True}
    assert set(result.terminations.values()) == {False}
    assert set(result.rewards.values()) == {0.0}
    assert corridor.agents == []
    assert not corridor.solved


def test_goal_reached_in_the_last_step_is_termination_and_not_truncation(corridor):
    for action in ("look", "look", "go 1", "take blue", "go 0", "go 3"):
        result = corridor.step({"a0": action})
    assert set(result.terminations.values()) == {True}
    assert set(result.truncations.values()) == {False}


def test_first_report_shows_the_room_and_later_ones_only_the_place():
    world = make("graph-v0", 3)
    observations, infos = world.reset(5)
    room = _start(world)
    assert infos["a0"]["report"] == observations["a0"]
    assert infos["a1"]["report"] == infos["a2"]["report"] == f"at {room}"


def test_new_room_is_reported_once_for_the_swarm(corridor):
    result = corridor.step({"a0": "go 1", "a1": "go 1"})
    assert result.infos["a0"]["report"] == "room 1 exits 0 2 key blue"
    assert result.infos["a1"]["report"] == "at 1"


def test_nothing_new_is_not_reported(corridor):
    result = corridor.step({"a0": "look", "a1": "go 99"})
    assert "report" not in result.infos["a0"]
    assert "report" not in result.infos["a1"]


def test_changed_room_is_reported_again_with_the_keys_in_hand(corridor):
    corridor.step({"a0": "go 1"})
    assert corridor.step({"a0": "take blue"}).infos["a0"]["report"] == "room 1 exits 0 2 have blue"
    assert corridor.step({"a0": "go 0"}).infos["a0"]["report"] == "at 0 have blue"


def test_passing_agent_keeps_its_news_until_it_acts(corridor):
    corridor.step({"a0": "go 1", "a1": "go 1"})
    passed = corridor.step({"a0": "go 2"})
    assert "report" not in passed.infos["a1"]
    corridor._keys = {}
    assert "report" not in corridor.step({}).infos["a1"]
    assert corridor.step({"a1": "look"}).infos["a1"]["report"] == "room 1 exits 0 2"


def test_goal_room_says_so(corridor):
    for action in ("go 1", "take blue", "go 0"):
        corridor.step({"a0": action})
    result = corridor.step({"a0": "go 3"})
    assert result.observations["a0"] == result.infos["a0"]["report"] == "room 3 exits 0 goal have blue"


def test_goal_line_hides_the_goal():
    world = make("graph-v0", 1, {"rooms": 12, "doors": 1})
    lines = set()
    for seed in range(5):
        world.reset(seed)
        lines.add(world.goal())
    assert lines == {"enter the goal room; rooms: 12, locked doors: 1"}


def test_random_policy_follows_a_legal_directive_and_ignores_an_illegal_one(corridor):
    rng = random.Random(0)
    corridor.step({"a0": "go 1"})
    for directive in ("go 2", "take blue"):
        assert {corridor.sample_action("a0", directive, rng) for _ in range(20)} == {directive}
    for directive in ("go 3", "take red", "", "make 45"):
        moves = {corridor.sample_action("a0", directive, rng) for _ in range(60)}
        assert moves == {"go 0", "go 2", "take blue"}


def test_random_policy_does_not_try_locked_doors(corridor):
    rng = random.Random(0)
    assert {corridor.sample_action("a0", "go 3", rng) for _ in range(30)} == {"go 1"}


def test_tools_name_the_keys_of_this_maze():
    names = {doors: [tool["name"] for tool in make("graph-v0", 1, {"doors": doors}).tools()] for doors in (0, 3)}
    assert names == {0: ["go", "look"], 3: ["go", "take", "look"]}
    take = make("graph-v0", 1, {"doors": 3}).tools()[1]
    assert take["parameters"]["properties"]["key"]["enum"] == list(COLOURS[:3])


def test_a_swarm_of_random_walkers_finds_the_goal_sooner_than_one():
    """Exploration can be shared: the median of eight walkers beats that of one by a wide margin."""

    def steps_to_goal(num_agents, seed):
        world = make("graph-v0", num_agents, {"max_steps": 3000})
        world.reset(seed)
        rng = random.Random(seed)
        while world.agents:
            world.step({agent: world.sample_action(agent, "", rng) for agent in world.agents})
        return world.state()["step"]

    one, eight = (sorted(steps_to_goal(n, seed) for seed in range(15))[7] for n in (1, 8))
    assert eight < 0.7 * one
