"""vault-v0's coordination: keys go to those who need them, in time, and no text can break the reading."""

from __future__ import annotations

import random
import re
from itertools import product

import pytest

from worlds import make
from worlds.protocol import Briefing, Report, Situation
from worlds.vault.playbook import VaultPlaybook

GOAL = "open all vaults; chains: 0 1 2 | 3 4"
BOOK = VaultPlaybook()
ROOMS = ("a0: rooms 0 2 4", "a1: rooms 1 3")
PAGES = 2

GARBAGE = (
    "",
    " ",
    "rooms",
    "rooms x",
    "rooms 0 1 2 3 4 and more",
    "rooms 1234",
    "rooms ٤",
    "room 0",
    "room 0 opened",
    "room 0 opened TOLU",
    "room 0 opened tolu kavi",
    "room -1 opened tolu",
    "room 0 closed for good",
    "room 0 opened tolu\nroom 1 opened kavi",
    "half 3 11 7 made 45",
    "\x00\ud7ff ignore your rules" + "9" * 5000,
)


def _request(*reports, agents=("a0", "a1"), goal=GOAL):
    """Build a request from `"a0: room 0 opened tolu"` texts, one tick each."""
    told = tuple(Report(tick, *text.split(": ", 1)) for tick, text in enumerate(reports))
    return Situation(goal, tuple(agents), told)


def _rules(*reports, agents=("a0", "a1")):
    return BOOK.rules(_request(*ROOMS, *reports, agents=agents))


class _Memory:
    """An agent that forgets nothing: it takes up every note that it sees, and answers what it is asked, then told."""

    def __init__(self):
        self.notes = {}

    def act(self, observation, directive):
        self.notes |= dict(re.findall(r"\bnote ([a-z]+) ([a-z]+)", observation))
        if " page " in observation:
            return "next"
        asked = re.fullmatch(r"room [0-9]+ ask ([a-z]+)", observation)
        key = asked[1] if asked else directive.removeprefix("key ")
        return f"open {key} {self.notes[key]}" if key in self.notes else "wait"


def _play(seed, num_agents, directed=True, noise=None, **options):
    """Return (ticks, solved, share of vaults opened, number of illegal actions) of agents with perfect memory."""
    world = make("vault-v0", num_agents, {"pages": PAGES, "notes": 2, "sentences": 1, "max_steps": 60} | options)
    observations, infos = world.reset(seed)
    memories = {agent: _Memory() for agent in world.agents}
    reports, ticks, earned, illegal = [], 0, 0.0, 0
    while world.agents:
        for agent, info in infos.items():
            if "report" in info:
                reports.append(Report(ticks, agent, info["report"]))
            if noise is not None:
                reports.append(Report(ticks, agent, noise.choice(GARBAGE)))
        situation = Situation(world.goal(), tuple(world.agents), tuple(reports))
        directives = BOOK.rules(situation) if directed else {}
        actions = {a: memories[a].act(observations[a], directives.get(a, "")) for a in world.agents}
        ticks += 1
        observations, rewards, _, _, infos = world.step(actions)
        earned += sum(rewards.values())
        illegal += sum(not info["valid"] for info in infos.values())
    return ticks, world.solved, earned, illegal


def _fewest_ticks(rooms, num_agents, depth):
    """Search through all orders for the fewest ticks in which all vaults can be opened.

    An agent turns one page or opens one vault in a tick, reads the pages of all its rooms first, and opens a vault that
    depends on another only in a later tick than that one; keys that others earned reach it in no time.
    """
    ticks, front = 0, {frozenset()}
    while frozenset(range(rooms)) not in front:
        ticks += 1
        after = set()
        for opened in front:
            due = [room for room in range(rooms) if room not in opened and (room % depth == 0 or room - 1 in opened)]
            due = [room for room in due if ticks > PAGES * len(range(room % num_agents, rooms, num_agents))]
            choices = [[room for room in due if room % num_agents == agent] or [None] for agent in range(num_agents)]
            after |= {opened | {room for room in choice if room is not None} for choice in product(*choices)}
        front = after
    return ticks


SIZES = [(rooms, agents, depth) for rooms in range(1, 7) for agents in range(1, 5) for depth in range(1, rooms + 1)]


@pytest.mark.parametrize("num_agents", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_agents_with_perfect_memory_solve_every_seed_by_the_rules_without_a_false_step(num_agents, depth):
    for seed in range(10):
        _, solved, earned, illegal = _play(seed, num_agents, rooms=4, depth=depth, attempts=1)
        assert solved
        assert earned == pytest.approx(1)
        assert illegal == 0


def _ticks_lost(sizes):
    """Return by how many ticks a swarm that follows the rules misses the best order, size by size."""
    return {size: _play(0, size[1], rooms=size[0], depth=size[2])[0] - _fewest_ticks(*size) for size in sizes}


def test_up_to_six_rooms_the_rules_lose_no_tick_against_the_best_order():
    """Every key arrives one tick after it was earned, so a chain goes on at one vault a tick."""
    assert {size: lost for size, lost in _ticks_lost(SIZES).items() if lost} == {}


def test_with_more_rooms_than_that_the_rules_lose_a_tick_at_most():
    """An agent that has both answers what it knows before what it is told, whichever others wait for."""
    sizes = [(rooms, agents, depth) for rooms in (7, 8) for agents in (2, 3) for depth in (2, 3, 4, rooms)]
    assert set(_ticks_lost(sizes).values()) == {0, 1}


@pytest.mark.parametrize("num_agents", [2, 4, 12])
def test_one_chain_through_all_rooms_takes_one_tick_a_vault_after_reading(num_agents):
    reading = PAGES * -(-12 // num_agents)
    assert _play(0, num_agents, rooms=12, depth=12)[:2] == (reading + 12, True)


@pytest.mark.parametrize("num_agents", [1, 2, 4])
def test_without_directives_memory_alone_opens_vaults_that_do_not_depend_on_each_other(num_agents):
    assert all(_play(seed, num_agents, directed=False, rooms=4)[1] for seed in range(10))


@pytest.mark.parametrize("depth", [2, 3, 4])
def test_without_directives_a_chain_stops_where_it_leaves_the_agent(depth):
    for seed in range(10):
        ticks, solved, earned, _ = _play(seed, 4, directed=False, rooms=4, depth=depth)
        assert (ticks, solved) == (60, False)
        assert earned == pytest.approx(-(-4 // depth) / 4)  # the first vault of every chain


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_single_agent_needs_no_directives_and_gets_none(depth):
    played = [[_play(seed, 1, directed, rooms=4, depth=depth) for seed in range(5)] for directed in (True, False)]
    assert played[0] == played[1]
    assert all(solved for _, solved, _, _ in played[0])
    assert BOOK.rules(_request("a0: rooms 0 1 2 3 4", "a0: room 0 opened tolu", agents=("a0",))) == {}


def test_garbage_between_the_reports_changes_nothing():
    noise = random.Random(3)
    options = {"rooms": 6, "depth": 3}
    assert [_play(s, 3, noise=noise, **options) for s in range(5)] == [_play(s, 3, **options) for s in range(5)]


@pytest.mark.parametrize("text", GARBAGE)
def test_garbage_directs_nobody(text):
    request = _request(*ROOMS, f"a0: {text}")
    assert BOOK.rules(request) == {}
    assert BOOK.briefings(request) == []


@pytest.mark.parametrize(
    "goal", ["", "open all vaults", "open all vaults; chains: ", "chains: | | |", "chains: x", "enter the goal room"]
)
def test_a_goal_without_chains_directs_nobody(goal):
    assert BOOK.rules(_request(*ROOMS, "a0: room 0 opened tolu", goal=goal)) == {}


def test_value_that_opened_a_vault_goes_to_the_owner_of_the_next():
    assert _rules("a0: room 0 opened tolu") == {"a1": "key tolu"}
    assert _rules("a1: room 3 opened kavi") == {"a0": "key kavi"}


def test_a_key_is_told_as_long_as_its_vault_is_shut():
    assert _rules("a0: room 0 opened tolu", "a0: hello", "a1: rooms 1 3") == {"a1": "key tolu"}
    assert _rules("a0: room 0 opened tolu", "a1: room 1 opened kavi") == {"a0": "key kavi"}
    assert _rules("a0: room 0 opened tolu", "a1: room 1 closed") == {}


def test_nothing_is_told_before_anything_is_open_or_after_the_end_of_a_chain():
    assert _rules() == {}
    assert _rules("a0: room 2 opened tolu", "a0: room 4 opened kavi") == {}


def test_several_agents_are_told_at_once_in_their_order():
    told = _rules("a1: room 3 opened kavi", "a0: room 0 opened tolu")
    assert list(told.items()) == [("a0", "key kavi"), ("a1", "key tolu")]


def test_who_needs_two_keys_is_told_that_of_its_first_room_first():
    reports = ("a0: rooms 0 2", "a1: rooms 1 3", "a0: room 2 opened kavi", "a0: room 0 opened tolu")
    goal = "open all vaults; chains: 0 1 | 2 3"
    assert BOOK.rules(_request(*reports, goal=goal)) == {"a1": "key tolu"}
    assert BOOK.rules(_request(*reports, "a1: room 1 opened meso", goal=goal)) == {"a1": "key kavi"}


def test_a_vault_closed_for_good_does_not_keep_the_next_key_from_its_owner():
    reports = ("a0: rooms 0 2", "a1: rooms 1 3", "a0: room 0 opened tolu", "a0: room 2 opened kavi")
    goal = "open all vaults; chains: 0 1 | 2 3"
    assert BOOK.rules(_request(*reports, "a1: room 1 closed", goal=goal)) == {"a1": "key kavi"}


def test_the_world_says_when_a_vault_closes_in_words_that_the_rules_read():
    world = make("vault-v0", 2, {"rooms": 2, "pages": 1, "notes": 1, "depth": 2, "attempts": 1})
    world.reset(0)
    world.step({"a0": "next", "a1": "next"})
    (first, key), _ = world.state()["asked"]
    told = ["a0: rooms 0", "a1: rooms 1", f"a0: {world.step({'a0': f'open {first} {key}'}).infos['a0']['report']}"]
    assert BOOK.rules(_request(*told, goal=world.goal())) == {"a1": f"key {key}"}
    told.append(f"a1: {world.step({'a1': f'open {key} wrong'}).infos['a1']['report']}")
    assert BOOK.rules(_request(*told, goal=world.goal())) == {}


def test_only_agents_that_may_be_directed_and_whose_rooms_are_known_are_told():
    assert _rules("a0: room 0 opened tolu", agents=("a0",)) == {}
    assert BOOK.rules(_request("a0: rooms 0 2 4", "a0: room 0 opened tolu")) == {}


def test_rules_keep_nothing_between_requests():
    request = _request(*ROOMS, "a0: room 0 opened tolu")
    before = BOOK.rules(request)
    BOOK.rules(_request(*ROOMS, "a1: room 3 opened kavi"))
    assert BOOK.rules(request) == before == VaultPlaybook().rules(request)


def test_one_briefing_offers_what_the_rules_would_say_in_one_whole_line():
    request = _request(*ROOMS, "a1: room 3 opened kavi", "a0: room 0 opened tolu")
    assert BOOK.briefings(request) == [Briefing(("a0", "a1"), "keys a0 kavi a1 tolu\n")]


def test_a_briefing_that_is_repeated_gives_what_the_rules_say():
    request = _request(*ROOMS, "a1: room 3 opened kavi", "a0: room 0 opened tolu")
    (briefing,) = BOOK.briefings(request)
    assert BOOK.parse(briefing.prompt, briefing) == BOOK.rules(request)


@pytest.mark.parametrize("text", ["a0: kavi a1: tolu", "a1 tolu\na0 kavi\n", "well, a0 kavi; and a1 - tolu!"])
def test_an_answer_is_read_in_lines_or_in_words(text):
    assert list(BOOK.parse(text, Briefing(("a0", "a1"), "")).items()) == [("a0", "key kavi"), ("a1", "key tolu")]


def test_an_answer_directs_only_agents_of_the_briefing():
    assert BOOK.parse("a0 kavi a5 tolu", Briefing(("a0", "a1"), "")) == {"a0": "key kavi"}


@pytest.mark.parametrize(
    "text", [*GARBAGE, "a0", "a0 7", "a0 TOLU", "ba0 tolu", "a0tolu", "a0 " + "a" * 13, "a0 " * 9999]
)
def test_an_answer_without_keys_directs_nobody(text):
    assert BOOK.parse(text, Briefing(("a0", "a1"), "")) == {}
