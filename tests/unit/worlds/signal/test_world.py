"""signal-v0: who sees what, what reaches whom, who is rewarded for what, and who plays with whom."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from worlds import make, world_class
from worlds.checked import holds_out
from worlds.protocol import Turn, WorldError
from worlds.signal.world import REACH, draw_pairs, is_held_out, split_objects

SIGNAL = world_class("signal-v0")


def _game(num_agents=2, seed=0, **options):
    world = make("signal-v0", num_agents, options)
    return world, world.reset(seed)[0]


def _senders(world):
    return [sender for sender, _ in world.pairs]


def _speak(world, *messages):
    """Let every sender say its message and the others wait."""
    said = dict(zip(_senders(world), messages, strict=True))
    return world.step({agent: said.get(agent, "wait") for agent in world.agents})


def _rebuild(world, *built):
    """Let every receiver rebuild its object and the others wait."""
    done = dict(zip((receiver for _, receiver in world.pairs), built, strict=True))
    return world.step({agent: done.get(agent, "wait") for agent in world.agents})


# One game


def test_only_the_sender_sees_the_object_and_only_the_message_reaches_the_receiver():
    world, observations = _game()
    sender, receiver = world.pairs[0]
    assert observations == {sender: f"object {world.objects[0]}", receiver: "wait"}
    result = _speak(world, "k d a b")
    assert result.observations == {sender: "sent k d a b", receiver: "message k d a b"}
    assert result.infos[sender] == {"feedback": "sent", "valid": True, "report": "k d a b"}
    assert result.rewards == {sender: 0.0, receiver: 0.0}


def test_who_speaks_explores_and_who_reads_does_not():
    world, observations = _game()
    sender, receiver = world.pairs[0]
    assert SIGNAL.explores(observations[sender])
    assert not SIGNAL.explores(_speak(world, "k d a b").observations[receiver])


def test_who_is_understood_and_who_understands_are_both_rewarded():
    world, _ = _game()
    sender, receiver = world.pairs[0]
    thing = world.objects[0]
    _speak(world, "k d a b")
    result = _rebuild(world, thing)
    assert result.rewards == {sender: 1.0, receiver: 1.0}
    assert result.infos[receiver]["feedback"] == f"right, it was {thing}"
    assert result.infos[sender]["feedback"] == f"right, read as {thing}"
    assert world.solved
    assert world.agents == []
    assert all(result.terminations.values())


def test_three_right_attributes_of_four_earn_nothing():
    world, _ = _game()
    sender, receiver = world.pairs[0]
    thing = world.objects[0]
    near = f"{(int(thing[0]) + 1) % 4}{thing[1:]}"
    _speak(world, "k d a b")
    result = _rebuild(world, near)
    assert result.rewards == {sender: 0.0, receiver: 0.0}
    assert result.infos[receiver]["feedback"] == f"wrong, it was {thing}"
    assert result.infos[sender]["feedback"] == f"wrong, read as {near}"
    assert not world.solved
    assert world.agents == []


@pytest.mark.parametrize("message", ["k d a", "k d a b c", "kdab", "K D A B", "k d a 1", "k  d a b", "wait", ""])
def test_what_is_no_message_does_not_arrive(message):
    world, _ = _game()
    sender, receiver = world.pairs[0]
    result = _speak(world, message)
    assert result.infos[sender]["valid"] is False
    assert "report" not in result.infos[sender]
    assert result.observations[receiver] == "message - - - -"


@pytest.mark.parametrize("built", ["0 1 2", "0 1 2 4", "0123", "wait", ""])
def test_what_is_no_object_is_illegal(built):
    world, _ = _game()
    _speak(world, "k d a b")
    assert _rebuild(world, built).infos[world.pairs[0][1]]["valid"] is False


def test_a_receiver_cannot_speak_and_a_sender_cannot_rebuild():
    world, _ = _game()
    sender, receiver = world.pairs[0]
    infos = world.step({sender: "k d a b", receiver: "a a a a"}).infos
    assert (infos[sender]["valid"], infos[receiver]["valid"]) == (True, False)
    result = world.step({sender: world.objects[0], receiver: "0 0 0 0"})
    assert result.infos[sender]["valid"] is False


def test_each_pair_is_rewarded_for_its_own_object():
    world, _ = _game(4)
    _speak(world, "a a a a", "b b b b")
    wrong = "0 0 0 0" if world.objects[1] != "0 0 0 0" else "1 1 1 1"
    result = _rebuild(world, world.objects[0], wrong)
    assert {agent for agent, reward in result.rewards.items() if reward == 1.0} == set(world.pairs[0])
    assert not world.solved


def test_of_an_odd_number_one_waits():
    world, observations = _game(5)
    (idle,) = set(world.agents) - {agent for pair in world.pairs for agent in pair}
    assert observations[idle] == "wait"
    result = _speak(world, "a a a a", "b b b b")
    assert result.observations[idle] == "wait"
    assert result.infos[idle] == {"feedback": "waited", "valid": True}


# The channel


def test_a_cut_channel_passes_nothing():
    world, _ = _game(channel="cut")
    assert _speak(world, "k d a b").observations[world.pairs[0][1]] == "message - - - -"


@pytest.mark.parametrize("num_agents", [4, 5, 8])
def test_a_shuffled_channel_passes_every_message_to_a_wrong_receiver(num_agents):
    world, _ = _game(num_agents, channel="shuffled")
    messages = [f"{letter} a a a" for letter in "bcde"[: len(world.pairs)]]
    observations = _speak(world, *messages).observations
    arrived = [observations[receiver].removeprefix("message ") for _, receiver in world.pairs]
    assert sorted(arrived) == messages
    assert all(one != other for one, other in zip(arrived, messages, strict=True))


# Objects

FIRST_HELD_OUT = ["0 0 0 0", "0 0 0 2", "0 0 1 3", "0 0 3 0", "0 0 3 3", "0 1 0 3"]


def test_one_object_in_five_is_held_out_and_every_value_is_seen():
    train, held_out = split_objects(4, 4)
    assert len(train) + len(held_out) == 256
    assert 0.15 < len(held_out) / 256 < 0.25
    assert [set(column) for column in zip(*train, strict=True)] == [{0, 1, 2, 3}] * 4


def test_the_held_out_objects_never_move():
    """These answers were written down once: a change would put evaluation objects into past training data."""
    assert [" ".join(map(str, thing)) for thing in split_objects(4, 4)[1][:6]] == FIRST_HELD_OUT


@pytest.mark.parametrize("split", ["held_out", "train"])
def test_objects_are_of_the_split_that_was_asked(split):
    shown = {thing for seed in range(30) for thing in _game(8, seed, split=split)[0].objects}
    assert len(shown) > 20
    assert {is_held_out(thing) for thing in shown} == {split == "held_out"}


def test_nobody_learns_from_a_held_out_object():
    options = SIGNAL.Options()
    shown = [f"object {a} {b} 0 1" for a in range(4) for b in range(4)]
    assert [holds_out(SIGNAL, options, text) for text in shown] == [is_held_out(text[7:]) for text in shown]
    assert not holds_out(SIGNAL, options, "message k d a b")
    assert SIGNAL.for_training(options).split == "train"


# Who plays with whom

AGENTS = [f"a{i}" for i in range(8)]


def _pairings(partners, count=400):
    return [draw_pairs(AGENTS, partners, random.Random(seed)) for seed in range(count)]


def _distance(pair):
    gap = abs(AGENTS.index(pair[0]) - AGENTS.index(pair[1]))
    return min(gap, len(AGENTS) - gap)


@pytest.mark.parametrize(("partners", "distances"), [("all", {1, 2, 3, 4}), ("met", {1, 2}), ("strangers", {3, 4})])
def test_partners_are_near_or_far_on_the_ring(partners, distances):
    pairings = _pairings(partners)
    assert {_distance(pair) for pairs in pairings for pair in pairs} == distances
    assert all(sorted(agent for pair in pairs for agent in pair) == AGENTS for pairs in pairings)


def test_each_of_eight_agents_meets_four_others_in_both_roles():
    met = Counter(pair for pairs in _pairings("met") for pair in pairs)
    assert len(met) == 8 * 2 * REACH
    assert min(met.values()) > 20


def test_pairs_depend_on_the_seed():
    assert _game(8, 3)[0].pairs == _game(8, 3)[0].pairs
    assert len({tuple(_game(8, seed)[0].pairs) for seed in range(10)}) > 8


# Hindsight


def test_a_receiver_learns_what_the_message_was_about_and_a_sender_what_it_was_read_as():
    world, _ = _game()
    sender, receiver = world.pairs[0]
    seen = _speak(world, "k d a b").observations
    built = "3 3 3 3" if world.objects[0] != "3 3 3 3" else "0 0 0 0"
    infos = _rebuild(world, built).infos
    assert SIGNAL.relabel(SIGNAL.Options(), seen[receiver], built, infos[receiver]) == [
        ("message k d a b", world.objects[0])
    ]
    assert SIGNAL.relabel(SIGNAL.Options(), seen[sender], "wait", infos[sender]) == [(f"object {built}", "k d a b")]


def test_who_says_nothing_that_can_be_read_learns_nothing():
    world, observations = _game()
    sender, receiver = world.pairs[0]
    first = _speak(world, "nonsense")
    assert SIGNAL.relabel(SIGNAL.Options(), observations[sender], "nonsense", first.infos[sender]) == []
    last = _rebuild(world, "0 0 0 0")
    assert SIGNAL.relabel(SIGNAL.Options(), first.observations[sender], "wait", last.infos[sender]) == []
    assert (
        SIGNAL.relabel(
            SIGNAL.Options(), first.observations[receiver], "nonsense", {"feedback": "no object", "valid": False}
        )
        == []
    )


# Options that make no game


@pytest.mark.parametrize(
    ("num_agents", "options", "message"),
    [
        (1, {}, "at least 2 agents"),
        (3, {"channel": "shuffled"}, "at least 4 agents"),
        (5, {"partners": "strangers"}, "at least 6"),
        (2, {"attributes": 1, "values": 2}, "too few objects"),
        (2, {"attributes": 6, "values": 10}, "1,000,000 objects are too many"),
        (2, {"channel": "noisy"}, "channel"),
    ],
)
def test_options_that_make_no_game_are_refused_in_one_line(num_agents, options, message):
    with pytest.raises(WorldError, match=message) as error:
        make("signal-v0", num_agents, options)
    assert "\n" not in str(error.value)


def test_a_small_game_has_small_signs():
    world, observations = _game(attributes=2, values=3, letters=5, length=1, split="any")
    assert world.action_pattern(_senders(world)[0]) == "[a-e]"
    assert len(observations[_senders(world)[0]].split()) == 3


# Rewards by attributes, and what is measured


def test_with_graded_rewards_each_right_attribute_pays():
    world, _ = _game(reward="attributes")
    thing = world.objects[0]
    near = f"{(int(thing[0]) + 1) % 4}{thing[1:]}"
    _speak(world, "k d a b")
    assert set(_rebuild(world, near).rewards.values()) == {0.75}
    assert not world.solved
    world, _ = _game(reward="attributes")
    _speak(world, "k d a b")
    assert set(_rebuild(world, "nonsense").rewards.values()) == {0.0}


def _turns(speak, listen, seeds=range(40)):
    """Play games in which senders say `speak(object)` and receivers build `listen(message)`; return the turns."""
    turns = []
    for seed in seeds:
        world, observations = _game(4, seed, split="any")
        while world.agents:
            actions = {}
            for agent in world.agents:
                word, _, rest = observations[agent].partition(" ")
                actions[agent] = {"object": speak, "message": listen}.get(word, lambda _: "wait")(rest)
            result = world.step(actions)
            turns += [
                Turn(seed, a, observations[a], actions[a], result.infos[a]["valid"], result.rewards[a]) for a in actions
            ]
            observations = result.observations
    return turns


def test_a_language_of_one_letter_per_value_is_understood_and_measured():
    spelled = str.maketrans("0123", "abcd")
    figures = SIGNAL.measures(
        _turns(
            lambda thing: thing.translate(spelled), lambda said: said.translate({97: "0", 98: "1", 99: "2", 100: "3"})
        )
    )
    assert figures["understood"] == 1.0
    assert figures["topographic similarity"] > 0.85
    assert figures["objects per agent"] > 10
    assert figures["entropy of messages (bits)"] > 3


def test_one_message_for_all_objects_is_not_understood_and_says_nothing():
    figures = SIGNAL.measures(_turns(lambda thing: "a a a a", lambda said: "0 0 0 0"))
    assert figures["understood"] < 0.1
    assert figures["topographic similarity"] == 0.0
    assert figures["entropy of messages (bits)"] == 0.0


def test_games_without_a_message_measure_nothing():
    assert SIGNAL.measures(_turns(lambda thing: "nonsense", lambda said: "0 0 0 0")) == {}
    assert SIGNAL.measures([]) == {}
