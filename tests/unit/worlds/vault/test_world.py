"""vault-v0: notes are read once, vaults ask for one each, and the key of a chained one must be earned or told."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest
from fakes.vaults import SMALL, VAULTS, new_vault, notes_of, read_all

from worlds import WorldError, check_world, make
from worlds.vault.world import WORDS


def _answer(world, room):
    return "open " + " ".join(world.state()["asked"][room])


def _open(world, room):
    """Let the owner of a room give the right answer."""
    agent = f"a{room % len(world.possible_agents)}"
    return world.step({agent: _answer(world, room)})


def _feedback(world, action, agent="a0"):
    info = world.step({agent: action}).infos[agent]
    return info["feedback"], info["valid"]


def _wrong(world, room):
    key, value = world.state()["asked"][room]
    return f"open {key} {'baba' if value != 'baba' else 'bafe'}"


# Reading.


def test_pages_are_shown_once_each_in_order_room_by_room():
    world = make("vault-v0", 2, SMALL | {"rooms": 3})
    observations, _ = world.reset(0)
    text, seen = world.state()["text"], []
    for _ in range(4):
        seen.append(observations["a0"])
        observations = world.step({"a0": "next"}).observations
    assert seen == [f"room {room} page {page + 1} of 2 : {text[room][page]}" for room in (0, 2) for page in (0, 1)]
    assert observations["a0"] == f"room 0 ask {world.state()['asked'][0][0]}"
    assert observations["a1"] == f"room 1 page 1 of 2 : {text[1][0]}"


def test_an_agent_does_not_see_pages_of_others():
    world = make("vault-v0", 4, SMALL)
    observations, _ = world.reset(0)
    for _ in range(6):
        for agent, text in observations.items():
            own = {word for note in notes_of(world, int(agent[1])) for word in note}
            assert set(re.findall(r"note ([a-z]+) ([a-z]+)", text)) <= set(notes_of(world, int(agent[1])))
            assert re.fullmatch(rf"room {agent[1]} (page .*|ask [a-z]+)", text)
            assert not text.startswith("room 0 ask") or text.split()[-1] in own
        observations = world.step(dict.fromkeys(world.agents, "next")).observations


@pytest.mark.parametrize("num_agents", [1, 2, 3, 4, 7])
def test_rooms_are_split_among_the_agents_in_turn_and_reported_at_reset(num_agents):
    world = make("vault-v0", num_agents, SMALL | {"rooms": 4})
    observations, infos = world.reset(0)
    rooms = {agent: world.rooms_of(agent) for agent in world.possible_agents}
    assert sorted(room for own in rooms.values() for room in own) == [0, 1, 2, 3]
    for i, (agent, own) in enumerate(rooms.items()):
        assert own == [room for room in range(4) if room % num_agents == i]
        assert infos[agent] == ({"report": "rooms " + " ".join(map(str, own))} if own else {})
        assert (observations[agent] == "no room") == (not own)


def test_waiting_turns_no_page():
    world = new_vault(2)
    before = world.state()
    assert _feedback(world, "wait") == ("waited", True)
    assert world.state() == before | {"step": 1}


def test_an_agent_that_is_missing_passes():
    world = new_vault(2)
    result = world.step({"a1": "next"})
    assert result.infos["a0"] == {"feedback": "passed", "valid": True}
    assert world.state()["read"][:2] == [0, 1]


def test_no_vault_is_tried_before_all_own_pages_are_read():
    world = new_vault(2)
    world.step({"a0": "next"})
    world.step({"a0": "next"})  # room 0 is read, room 2 is not
    assert _feedback(world, _answer(world, 0)) == ("read on first; say: next", False)
    assert not any(world.state()["opened_by"])


# Opening.


def test_with_depth_one_all_vaults_open_at_once():
    world = new_vault(4)
    observations = read_all(world)
    assert observations == {f"a{room}": f"room {room} ask {world.state()['asked'][room][0]}" for room in range(4)}
    result = world.step({f"a{room}": _answer(world, room) for room in range(4)})
    assert world.solved
    assert world.agents == []
    assert set(result.rewards.values()) == {0.25}
    assert set(result.terminations.values()) == {True}
    assert set(result.truncations.values()) == {False}
    assert result.infos["a2"] == {
        "feedback": "opened",
        "valid": True,
        "report": f"room 2 opened {world.state()['asked'][2][1]}",
    }
    assert set(result.observations.values()) == {"no room"}


def test_with_one_single_chain_only_its_first_vault_can_be_opened():
    world = new_vault(4, depth=4)
    observations = read_all(world)
    assert observations == {"a0": f"room 0 ask {world.state()['asked'][0][0]}"} | {
        f"a{room}": f"room {room} locked" for room in (1, 2, 3)
    }
    # Agents act in order, so the ones after the first vault's owner go first, one step each.
    for room in (3, 2, 1):
        assert _open(world, room).infos[f"a{room}"]["valid"] is False
    assert not any(world.state()["opened_by"])
    for room in range(4):
        assert _open(world, room).infos[f"a{room}"]["feedback"] == "opened"
    assert world.solved


def test_who_opened_a_vault_knows_the_key_of_the_next():
    world = new_vault(1, depth=4)
    observations = read_all(world)
    for room in range(4):
        assert observations["a0"] == f"room {room} ask {world.state()['asked'][room][0]}"
        observations = _open(world, room).observations
    assert world.solved


def test_others_still_see_it_locked_but_open_it_when_they_were_told_the_key():
    world = new_vault(2, rooms=2, depth=2)
    read_all(world)
    result = _open(world, 0)
    value = result.infos["a0"]["report"].removeprefix("room 0 opened ")
    assert result.observations == {"a0": "no room", "a1": "room 1 locked"}
    note = next(note for note in notes_of(world, 1) if note[0] == value)
    assert _feedback(world, "open " + " ".join(note), "a1") == ("opened", True)
    assert world.solved


def test_an_agent_is_asked_what_it_can_answer_before_what_is_locked():
    world = new_vault(3, rooms=6, depth=2)  # a1 has rooms 1, which is chained, and 4, which is not
    assert read_all(world)["a1"] == f"room 4 ask {world.state()['asked'][4][0]}"
    assert _open(world, 4).observations["a1"] == "room 1 locked"


def test_a_told_key_picks_among_several_locked_vaults():
    world = new_vault(2, rooms=4, depth=2)  # a1 has rooms 1 and 3, both locked
    read_all(world)
    assert _open(world, 2).observations["a1"] == "room 1 locked"
    assert _open(world, 3).infos["a1"]["feedback"] == "opened"


def test_nobody_opens_the_vault_of_another_agent():
    world = new_vault(2)
    read_all(world)
    key = world.state()["asked"][1][0]
    assert _feedback(world, _answer(world, 1)) == (f"no vault of yours asks for {key}", False)


@pytest.mark.parametrize(("num_agents", "options"), VAULTS)
def test_rewards_sum_to_one_when_solved_and_go_to_the_openers(num_agents, options):
    world = make("vault-v0", num_agents, options)
    world.reset(1)
    read_all(world)
    earned = Counter()
    for room in range(world.options.rooms):
        earned.update(_open(world, room).rewards)
    assert world.solved
    assert sum(earned.values()) == pytest.approx(1)
    for agent in world.possible_agents:
        assert earned[agent] == pytest.approx(len(world.rooms_of(agent)) / world.options.rooms)


# Mistakes.


def test_a_vault_bears_so_many_wrong_answers_and_closes_for_good():
    world = new_vault(2, rooms=3, attempts=3)
    read_all(world)
    assert _feedback(world, _wrong(world, 0)) == ("wrong, 2 left", True)
    assert _feedback(world, _wrong(world, 0)) == ("wrong, 1 left", True)
    result = world.step({"a0": _wrong(world, 0)})
    assert result.infos["a0"] == {"feedback": "wrong, closed for good", "valid": True, "report": "room 0 closed"}
    assert result.observations["a0"].startswith("room 2 ask ")
    assert _open(world, 0).infos["a0"]["valid"] is False
    assert world.state()["opened_by"] == [None] * 3
    assert world.state()["wrong"] == [3, 0, 0]


def test_a_right_answer_after_a_wrong_one_still_opens():
    world = new_vault(2)
    read_all(world)
    _feedback(world, _wrong(world, 0))
    assert _feedback(world, _answer(world, 0)) == ("opened", True)


def test_a_key_that_no_vault_asks_for_costs_no_attempt():
    world = new_vault(2, attempts=1)
    read_all(world)
    other = next(key for key, _ in notes_of(world, 0) if key != world.state()["asked"][0][0])
    for key in (other, "nothing"):
        assert _feedback(world, f"open {key} baba") == (f"no vault of yours asks for {key}", False)
    assert world.state()["wrong"] == [0] * 4


def test_a_locked_vault_bears_answers_that_come_too_early():
    world = new_vault(2, rooms=2, depth=2, attempts=1)
    read_all(world)
    assert _feedback(world, _wrong(world, 1), "a1")[1] is False
    assert world.state()["wrong"] == [0, 0]


def test_a_closed_vault_ends_the_episode_unsolved_once_nothing_else_can_be_opened():
    world = new_vault(2, rooms=4, depth=3, attempts=1)  # chains 0 1 2 and 3
    read_all(world)
    result = world.step({"a0": _wrong(world, 0)})
    assert world.agents == ["a0", "a1"]
    assert not any(result.terminations.values())
    result = _open(world, 3)
    assert set(result.terminations.values()) == {True}
    assert set(result.truncations.values()) == {False}
    assert sum(result.rewards.values()) == 0.25
    assert not world.solved
    assert world.agents == []


def test_a_vault_closed_late_in_a_chain_ends_it_for_those_behind_only():
    world = new_vault(4, depth=4, attempts=1)
    read_all(world)
    _open(world, 0)
    result = world.step({"a1": _wrong(world, 1)})
    assert set(result.terminations.values()) == {True}
    assert world.state()["opened_by"] == ["a0", None, None, None]
    assert not world.solved


@pytest.mark.parametrize("action", ["", "nex", "NEXT", "next next", "room 0", "baba", "baba bafe", "wait!", "go 1"])
def test_what_makes_no_sense_among_pages_is_answered_and_changes_nothing(action):
    world = new_vault(2)
    before = world.state()
    assert _feedback(world, action) == ("read on first; say: next", False)
    assert world.state() == before | {"step": 1}


@pytest.mark.parametrize(
    "action", ["", "next", "baba", "baba  bafe", "baba bafe bahi", "BABA bafe", "baba 12", "a" * 13 + " baba", "bàba x"]
)
def test_what_makes_no_sense_at_a_vault_is_answered_and_changes_nothing(action):
    world = new_vault(2)
    read_all(world)
    before = world.state()
    assert _feedback(world, action) == ("not an action here; say: open KEY VALUE", False)
    assert world.state() == before | {"step": before["step"] + 1}


def test_who_has_no_room_can_only_wait():
    world = new_vault(2, rooms=1)
    for action in ("next", "baba bafe", ""):
        assert _feedback(world, action, "a1") == ("not an action here; say: wait", False)
    assert _feedback(world, "wait", "a1") == ("waited", True)


def test_space_around_an_action_is_no_mistake():
    world = new_vault(1, rooms=1)
    assert _feedback(world, " next\n") == ("read", True)
    world.step({"a0": "next"})
    assert _feedback(world, f" {_answer(world, 0)}\n") == ("opened", True)


# The end, chance and the contract.


def test_truncation_comes_with_the_last_step_and_is_no_termination():
    world = new_vault(2, max_steps=3)
    for _ in range(2):
        assert not any(world.step({"a0": "next"}).truncations.values())
    result = world.step({})
    assert set(result.truncations.values()) == {True}
    assert set(result.terminations.values()) == {False}
    assert world.agents == []
    assert not world.solved


def test_last_vault_opened_in_the_last_step_is_termination_and_not_truncation():
    world = new_vault(2, rooms=2, max_steps=3)
    read_all(world)
    result = world.step({"a0": _answer(world, 0), "a1": _answer(world, 1)})
    assert set(result.terminations.values()) == {True}
    assert set(result.truncations.values()) == {False}
    assert world.solved


def test_seed_alone_decides_the_notes():
    states = []
    for seed in (1, 1, 2):
        world = make("vault-v0", 2, {"depth": 2})
        world.reset(seed, {"episode": len(states)})
        states.append(world.state())
    assert states[0] == states[1]
    assert states[0]["asked"] != states[2]["asked"]


def test_reset_forgets_the_episode_before():
    world = new_vault(2, attempts=1)
    first = world.state()
    read_all(world)
    world.step({"a0": _wrong(world, 0), "a1": _answer(world, 1)})
    world.reset(0)
    assert world.state() == first


@pytest.mark.parametrize(("num_agents", "options"), VAULTS)
def test_world_keeps_the_contract_with_all_options(num_agents, options):
    assert check_world("vault-v0", seeds=(0, 1), num_agents=num_agents, options=options) == []


@pytest.mark.parametrize("directive", ["", "baba", "not a key", "BABA", "room 1 opened baba"])
def test_random_policy_says_what_the_pattern_allows_and_reads_on(directive):
    rng = random.Random(0)
    world = new_vault(2, rooms=5, depth=2, attempts=1)
    pattern = world.action_pattern("a0")
    for _ in range(20):
        actions = {agent: world.sample_action(agent, directive, rng) for agent in world.agents}
        assert all(re.fullmatch(pattern, action) for action in actions.values())
        for agent, action in actions.items():
            left = sum(world.options.pages - world.state()["read"][room] for room in world.rooms_of(agent))
            assert (action == "next") == (left > 0)
        world.step(actions)


def test_random_policy_of_a_locked_vault_tries_the_key_it_was_told_and_else_waits():
    rng = random.Random(0)
    world = new_vault(2, rooms=2, depth=2)
    read_all(world)
    values = {value for _, value in notes_of(world, 1)}
    assert {world.sample_action("a1", "", rng) for _ in range(20)} == {"wait"}
    assert {world.sample_action("a1", " key tolu ", rng) for _ in range(90)} == {f"open tolu {v}" for v in values}


def test_random_policy_picks_among_the_values_it_read_and_knows_no_more():
    """Of one answer, with 8 values read, one in eight is right: the asked one is no likelier than the others."""
    rng = random.Random(0)
    opened, trials = 0, 400
    for seed in range(trials):
        world = new_vault(1, seed, rooms=2, attempts=1)
        read_all(world)
        world.step({"a0": world.sample_action("a0", "", rng)})
        opened += world.state()["opened_by"][0] is not None
    assert 0.08 < opened / trials < 0.18  # 0.125, and 2.7 standard errors to either side


def test_random_policy_of_an_agent_that_is_done_waits():
    world = new_vault(2, rooms=1)
    assert {world.sample_action(agent, "baba", random.Random(0)) for agent in ("a1", "a9")} == {"wait"}


def test_tools_give_the_form_of_every_action():
    world = new_vault(1)
    tools = {tool["name"]: tool["text"] for tool in world.tools()}
    assert tools == {"next": "next", "open": "open {key} {value}", "wait": "wait"}
    for text in tools.values():
        assert re.fullmatch(world.action_pattern("a0"), text.format(key="kavi", value="tolu"))


def test_rendering_tells_open_and_closed_vaults():
    world = new_vault(2, rooms=3, attempts=1)
    read_all(world)
    world.step({"a0": _wrong(world, 0), "a1": _answer(world, 1)})
    assert world.render() == (
        "vault-v0 step 5/400 · 1/3 vaults open · depth 1\n"
        "room 0: read 2/2, closed\nroom 1: read 2/2, opened by a1\nroom 2: read 2/2, 0 wrong"
    )


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"depth": 5}, "'depth' is 5, but there are only 4 rooms"),
        ({"rooms": 64}, "768 notes need as many different keys, there are 400; lower 'pages'"),
        ({"rooms": 0}, "'rooms'"),
        ({"attempts": 0}, "'attempts'"),
        ({"pages": "many"}, "'pages'"),
        ({"dept": 2}, "did you mean 'depth'?"),
    ],
)
def test_bad_options_are_refused_with_one_line_that_names_them(options, says):
    with pytest.raises(WorldError) as refused:
        make("vault-v0", 2, options)
    (line,) = str(refused.value).splitlines()
    assert line.startswith("options of vault-v0: ")
    assert says in line


def test_as_many_notes_as_words_are_accepted():
    world = make("vault-v0", 1, {"rooms": 50, "pages": 8, "notes": 1, "depth": 50})
    world.reset(0)
    assert {key for room in range(50) for key, _ in notes_of(world, room)} == set(WORDS)
