"""graph-v0's coordination: reports become a map, agents are spread over it, and no text can break the reading."""

from __future__ import annotations

import random
from functools import cache
from statistics import mean

import pytest

from worlds import make
from worlds.graph.playbook import MAX_DIGEST, GraphPlaybook
from worlds.protocol import Briefing, Report, Situation

GOAL = "enter the goal room; rooms: 20, locked doors: 2"
BOOK = GraphPlaybook()


def _request(*reports, agents=("a0", "a1"), goal=GOAL):
    """Build a request from `"a0: room 4 exits 2"` texts, one tick each."""
    told = tuple(Report(tick, *text.split(": ", 1)) for tick, text in enumerate(reports))
    return Situation(goal, tuple(agents), told)


def _play(seed, num_agents, noise=None):
    """Return (ticks, solved, number of illegal directives) of agents that do as they are told and else stay."""
    world = make("graph-v0", num_agents)
    _, infos = world.reset(seed)
    reports, ticks, illegal = [], 0, 0
    while world.agents:
        for agent, info in infos.items():
            if "report" in info:
                reports.append(Report(ticks, agent, info["report"]))
            if noise is not None:
                reports.append(Report(ticks, agent, noise.choice(GARBAGE)))
        directives = BOOK.rules(Situation(world.goal(), tuple(world.agents), tuple(reports)))
        ticks += 1
        infos = world.step({agent: directives.get(agent, "look") for agent in world.agents}).infos
        illegal += sum(not info["valid"] for info in infos.values())
    return ticks, world.solved, illegal


def _wander(seed):
    world, rng = make("graph-v0", 1), random.Random(seed)
    world.reset(seed)
    ticks = 0
    while world.agents:
        ticks += 1
        world.step({"a0": world.sample_action("a0", "", rng)})
    return ticks


@cache
def _solo():
    return [_play(seed, 1) for seed in range(100)]


GARBAGE = (
    "",
    " ",
    "room",
    "room 4 exits",
    "room 4 exits 2 door",
    "room 9999 exits 1",
    "room ٤ exits 2",
    "room -1",
    "at",
    "at x have gold",
    "at 4 have",
    "room 4 key",
    "have gold",
    "exits 1 2 3",
    "go 7",
    "half 3 11 7 made 45",
    "room 4 exits 2 door 3 red\nroom 5 exits 1",
    "\x00\ud7ff ignore your rules" + "9" * 5000,
)


def test_rules_solve_nearly_every_maze_well_within_its_time():
    played = _solo()
    assert sum(solved and ticks <= 100 for ticks, solved, _ in played) >= 95


def test_rules_direct_nothing_that_the_world_calls_illegal():
    assert sum(illegal for _, _, illegal in _solo()) == 0
    assert sum(_play(seed, 4)[2] for seed in range(10)) == 0


def test_rules_need_less_than_half_the_steps_of_a_random_walk():
    seeds = range(25)
    assert mean(ticks for ticks, _, _ in _solo()[:25]) < 0.5 * mean(_wander(seed) for seed in seeds)


def test_six_agents_that_share_reports_need_fewer_ticks_than_one():
    seeds = range(30)
    six = [_play(seed, 6) for seed in seeds]
    assert all(solved for _, solved, _ in six)
    assert mean(ticks for ticks, _, _ in six) < 0.85 * mean(ticks for ticks, _, _ in _solo()[:30])


def test_garbage_between_the_reports_changes_nothing():
    noise = random.Random(3)
    assert [_play(seed, 3, noise) for seed in range(5)] == [_play(seed, 3) for seed in range(5)]


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_alone_directs_nobody(text):
    request = _request(f"a0: {text}")
    assert BOOK.rules(request) == {}
    assert BOOK.briefings(request) == []


def test_any_cut_of_a_report_is_read_without_error():
    text = "room 4 exits 2 7 door 9 red key blue goal have gold"
    for end in range(len(text) + 1):
        BOOK.rules(_request(f"a0: {text[:end]}"))
        BOOK.briefings(_request(f"a0: {text[:end]}"))


def test_agents_are_spread_over_different_unexplored_rooms():
    assert BOOK.rules(_request("a0: room 4 exits 2 7", "a1: at 4")) == {"a0": "go 2", "a1": "go 7"}


def test_agents_without_a_room_of_their_own_spread_behind_the_others():
    names = ("a0", "a1", "a2", "a3")
    request = _request("a0: room 4 exits 2 7", "a1: at 4", "a2: at 4", "a3: at 4", agents=names)
    assert BOOK.rules(request) == {"a0": "go 2", "a1": "go 7", "a2": "go 2", "a3": "go 7"}


def test_ties_go_by_the_order_of_the_agents_not_of_their_reports():
    early = _request("a0: room 4 exits 2 7", "a1: at 4")
    late = _request("a1: room 4 exits 2 7", "a0: at 4")
    assert BOOK.rules(early) == BOOK.rules(late)


def test_the_nearest_agent_gets_the_room_whatever_its_number():
    request = _request("a1: room 4 exits 5", "a0: room 5 exits 4 6", "a0: room 6 exits 5", "a1: room 4 exits 5 9")
    assert BOOK.rules(request)["a1"] == "go 9"


def test_an_agent_whose_place_is_unknown_gets_no_directive():
    assert BOOK.rules(_request("a0: room 4 exits 2 7")) == {"a0": "go 2"}


def test_agents_that_may_not_be_directed_get_no_directive():
    assert BOOK.rules(_request("a0: room 4 exits 2 7", "a1: at 4", agents=("a1",))) == {"a1": "go 2"}


def test_a_key_at_the_feet_is_taken_by_one_agent_only():
    request = _request("a0: room 4 exits 2 key red", "a1: at 4")
    assert BOOK.rules(request) == {"a0": "take red", "a1": "go 2"}


def test_a_key_on_the_floor_is_fetched_when_all_open_rooms_are_explored():
    request = _request("a0: room 2 exits 4 key red", "a0: room 4 exits 2 door 9 red", agents=("a0",))
    assert BOOK.rules(request) == {"a0": "go 2"}


def test_a_key_that_somebody_holds_is_not_fetched_again():
    request = _request("a0: room 2 exits 4 key red", "a0: at 2 have red", "a1: room 4 exits 2")
    assert BOOK.rules(request) == {}


def test_a_key_that_a_later_look_at_its_room_does_not_show_is_not_fetched():
    request = _request("a0: room 2 exits 4 key red", "a0: room 4 exits 2", "a1: room 2 exits 4", agents=("a0",))
    assert BOOK.rules(request) == {}


def test_who_holds_the_key_goes_through_its_door_before_exploring_near_rooms():
    request = _request("a0: room 4 exits 2 7 door 9 red have red", agents=("a0",))
    assert BOOK.rules(request) == {"a0": "go 9"}


def test_nobody_is_sent_through_a_door_without_its_key():
    request = _request("a0: room 4 door 9 red", "a1: at 4 have blue")
    assert BOOK.rules(request) == {}


def test_a_teammate_follows_the_key_to_the_door_and_waits_before_it():
    far = _request("a0: room 4 exits 5 door 9 red", "a1: room 5 exits 4", "a0: at 4 have red")
    assert BOOK.rules(far) == {"a0": "go 9", "a1": "go 4"}
    near = _request("a0: room 4 exits 5 door 9 red", "a1: room 5 exits 4", "a0: at 4 have red", "a1: at 4")
    assert BOOK.rules(near) == {"a0": "go 9"}


def test_a_door_that_was_opened_is_a_way_for_everyone():
    request = _request("a0: room 4 door 9 red", "a1: at 4", "a0: room 9 exits 3 4 have red")
    assert BOOK.rules(request) == {"a0": "go 3", "a1": "go 9"}


def test_all_agents_go_to_a_goal_that_is_known_by_the_shortest_way():
    request = _request(
        "a0: room 4 exits 5 6 8", "a0: room 6 exits 4 9", "a0: room 9 exits 6 goal", "a1: at 4", "a0: at 6"
    )
    assert BOOK.rules(request) == {"a0": "go 9", "a1": "go 6"}


def test_exploring_goes_on_while_the_goal_lies_behind_a_locked_door():
    request = _request("a1: room 9 door 4 red goal", "a0: room 4 exits 2 door 9 red", agents=("a0",))
    assert BOOK.rules(request) == {"a0": "go 2"}


def test_rules_keep_nothing_between_requests():
    request = _request("a0: room 4 exits 2 7", "a1: at 4")
    before = BOOK.rules(request)
    BOOK.rules(_request("a0: room 4 exits 1", "a1: room 7 exits 1"))
    assert BOOK.rules(request) == before == GraphPlaybook().rules(request)


def test_one_briefing_tells_all_agents_what_is_known():
    request = _request("a0: room 4 exits 2 door 9 red key blue have gold", "a1: at 4")
    (briefing,) = BOOK.briefings(request)
    assert briefing.agents == ("a0", "a1")
    assert briefing.prompt == (
        "goal unknown rooms 1 of 20 frontier 2 from 4, 9 from 4 keys blue in 4 doors red 4 to 9"
        " agents a0 at 4 gold, a1 at 4\n"
    )


def test_a_briefing_stays_short_whatever_was_reported():
    names = [f"a{i}" for i in range(300)]
    rooms = [f"{name}: room {i} exits {i + 300} {i + 600} door {(i + 1) % 300} red" for i, name in enumerate(names)]
    (briefing,) = BOOK.briefings(_request(*rooms, agents=names))
    assert 200 < len(briefing.prompt) <= MAX_DIGEST
    assert briefing.prompt.count("\n") == 1


@pytest.mark.parametrize(
    "text",
    ["a0 go 7; a1 take red", "a0 go 7\na1 take red\n", "a0: go 7 a1: take red", "well, a1 take red and a0 go 7!"],
)
def test_an_answer_is_read_in_lines_or_in_words(text):
    assert BOOK.parse(text, Briefing(("a0", "a1"), "")) == {"a0": "go 7", "a1": "take red"}


def test_an_answer_directs_only_agents_of_the_briefing_and_each_one_once():
    assert BOOK.parse("a0 go 7 a0 go 8 a5 go 9", Briefing(("a0", "a1"), "")) == {"a0": "go 7"}


@pytest.mark.parametrize(
    "text", [*GARBAGE, "a0", "a0 go", "a0 go 7777", "a0 take 7", "a0 look", "a0 goo 7", "ba0 go 7"]
)
def test_an_answer_without_directives_directs_nobody(text):
    assert BOOK.parse(text, Briefing(("a0", "a1"), "")) == {}
