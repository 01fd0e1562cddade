"""codebook-v0: news are read once, vaults ask for what was told by then, and a page may be read before an answer."""

from __future__ import annotations

import random
import re

import pytest
from fakes.codebooks import MEMORIES, figures, play_run

from worlds import WorldError, make
from worlds.codebook.world import FOUND, NOTE, CodebookWorld
from worlds.protocol import Turn

SMALL = {"news": 1, "notes": 4, "sentences": 1, "one_offs": 1, "asked": 3}


def new_world(episode=0, num_agents=1, seed=0, **options):
    world = make("codebook-v0", num_agents, SMALL | options)
    world.reset(seed, {"episode": episode})
    return world


def read_news(world):
    """Let everybody read its news; return the last result."""
    while any(world.observe(agent).startswith("news") for agent in world.possible_agents):
        result = world.step(dict.fromkeys(world.agents, "next"))
    return result


def step(world, action, agent="a0"):
    info = world.step({agent: action}).infos[agent]
    return info["feedback"], info["valid"]


def vaults(world, agent="a0"):
    return world.state()["vaults"][agent]


def news(world, agent="a0"):
    return NOTE.findall(" ".join(page for page in world.state()["pages"][agent] if page.startswith("news")))


def right(vault):
    return f"open {vault['key']} {vault['value']}"


def test_news_are_read_page_by_page_and_then_vaults_ask_one_by_one():
    world = new_world(news=2, notes=2, one_offs=2)  # it tells no two notes of a class yet, so no vault asks for one
    pages = world.state()["pages"]["a0"]
    assert world.observe("a0") == pages[0]
    assert pages[0].startswith("news 1 of 2 : ")
    assert step(world, "next") == ("read", True)
    assert world.observe("a0") == pages[1]
    result = world.step({"a0": "next"})
    first, second = vaults(world)[:2]
    asks = [f"ask {vault['key']}" for vault in (first, second)]
    assert (result.observations["a0"], result.infos["a0"]["report"]) == (asks[0], asks[0])
    result = world.step({"a0": right(first)})
    assert result.infos["a0"]["report"] == f"opened {first['key']} {first['value']} ; {asks[1]}"
    assert result.rewards["a0"] == pytest.approx(1 / len(vaults(world)))


def test_the_page_of_a_vault_is_read_once_and_a_second_wish_gives_it_up():
    world = new_world()
    read_news(world)
    vault = vaults(world)[0]
    ask = world.observe("a0")
    assert step(world, "read") == ("a page", True)
    assert world.observe("a0") == vault["page"]
    assert step(world, right(vault)) == ("read on first; say: next", False)
    assert step(world, "next") == ("read", True)
    assert world.observe("a0") == ask
    assert step(world, "read") == (f"given up: {vault['kind']}, pages read: 1", True)
    assert vaults(world)[0]["result"] == "given up"
    assert world.observe("a0") != ask


def test_one_wrong_answer_closes_a_vault_and_a_wrong_key_does_not():
    world = new_world()
    read_news(world)
    vault = vaults(world)[0]
    assert step(world, "open baba baba baba baba") == (f"your vault asks for {vault['key']}", False)
    assert step(world, f"open {vault['key']} baba bafe") == (f"wrong: {vault['kind']}, pages read: 0", True)
    assert vaults(world)[0]["result"] == "wrong"


def test_of_a_class_the_first_word_of_the_value_is_right_with_or_without_a_second():
    for second in ("", " baba"):
        world = new_world(episode=12)
        read_news(world)
        while (vault := next(v for v in vaults(world) if not v["result"]))["kind"] != "class":
            step(world, right(vault))
        assert world.observe("a0") == f"ask first {vault['key']}"
        result = world.step({"a0": f"{right(vault)}{second}"})
        assert result.infos["a0"]["feedback"] == "right: class, pages read: 0"
        assert "opened" not in result.infos["a0"].get("report", "")  # it is no note that others could use


def test_all_vaults_opened_solve_the_episode_and_rewards_sum_to_one():
    world, earned = new_world(episode=9, num_agents=3, rooms=5), 0.0
    read_news(world)
    while world.agents:
        due = {a: next((v for v in vaults(world, a) if not v["result"]), None) for a in world.agents}
        result = world.step({a: right(vault) if vault else "wait" for a, vault in due.items()})
        earned += sum(result.rewards.values())
    assert world.solved
    assert earned == pytest.approx(1)
    assert set(result.terminations.values()) == {True}


def test_a_vault_given_up_ends_the_episode_unsolved():
    world = new_world(episode=9)
    read_news(world)
    for _ in vaults(world)[1:]:
        for action in ("read", "next", "read"):
            step(world, action)
    step(world, right(next(v for v in vaults(world) if not v["result"])))
    assert world.agents == []
    assert not world.solved


@pytest.mark.parametrize("foreign", [False, True])
def test_recurring_notes_are_asked_when_they_were_told_before_and_not_now(foreign):
    options = {"rooms": 2, "foreign": foreign, "news": 2, "notes": 8, "asked": 6}
    told, kinds = ([], []), set()
    for episode in range(20):
        world = new_world(episode, num_agents=2, seed=episode, **options)
        now = [news(world, agent) for agent in ("a0", "a1")]
        for room, agent in enumerate(("a0", "a1")):
            before = [*told[1 - room], *told[room]] if foreign else told[room]
            known = {key for key, _ in [*before, *now[room], *(now[1 - room] if foreign else ())]}
            for vault in vaults(world, agent):
                kind, key, value = vault["kind"], vault["key"], vault["value"]
                values = [said for known, said in before if known == key]
                kinds.add(kind)
                if kind in ("recurring", "changed"):
                    assert key not in dict(now[0] + now[1])
                    assert values[-1] == value
                    assert (len(set(values)) > 1) == (kind == "changed")
                elif kind == "one-off":
                    assert (key, value) in now[room]
                    assert not values
                else:
                    assert key not in known
                    assert sum(other.split()[0] == key.split()[0] for other in known) > 1
        for room, notes in enumerate(now):
            told[room].extend(notes)
    assert kinds == {"recurring", "changed", "one-off", "class"}


def test_a_fifth_of_the_pages_holds_the_note_that_is_asked_for():
    holds = []
    for episode in range(20):
        for seed in range(5):
            for vault in vaults(new_world(episode, seed=5 * episode + seed, notes=8)):
                has = f"note {vault['key']} {vault['value']} " in vault["page"]
                assert not (has and vault["kind"] == "class")
                if vault["kind"] != "class":
                    holds.append(has)
    assert sum(holds) / len(holds) == pytest.approx(FOUND, abs=0.06)  # about 400 pages: three standard errors


def test_pages_say_each_key_once_and_cost_what_is_promised():
    for episode in range(20):
        world = make("codebook-v0", 1)
        world.reset(episode, {"episode": episode})
        pages = [*world.state()["pages"]["a0"], *(vault["page"] for vault in vaults(world))]
        assert all(120 <= len(page.split()) <= 250 for page in pages)
        keys = [key for page in pages[:2] for key, _ in NOTE.findall(page)]
        assert len(set(keys)) == len(keys) == 16


def test_the_codebook_is_the_same_for_all_seeds_of_an_episode_and_one_off_values_are_not():
    one, two = (new_world(12, seed=seed) for seed in (0, 1))
    assert {key for key, _ in news(one)} == {key for key, _ in news(two)}
    assert len(set(news(one)) & set(news(two))) == 2  # the recurring half
    assert set(news(one)).isdisjoint(news(new_world(12, codebook=1)))


def test_more_agents_than_rooms_wait_and_rooms_are_dealt_in_turn():
    world = new_world(num_agents=3, rooms=2)
    assert world.observe("a2") == "no vault"
    assert step(world, "wait", "a2") == ("waited", True)
    assert step(world, "next", "a2")[1] is False
    alone = new_world(rooms=2)
    assert vaults(alone) == vaults(world, "a0") + vaults(world, "a1")


def test_the_random_policy_follows_a_directive_about_its_key_alone():
    world = new_world()
    read_news(world)
    key = vaults(world)[0]["key"]
    rng = random.Random(0)
    assert world.sample_action("a0", f"note {key} mine bora", rng) == f"open {key} mine bora"
    values = {value for _, value in news(world)}
    for _ in range(20):
        action = world.sample_action("a0", "note baba bafe mine bora", rng)
        assert re.fullmatch(world.action_pattern("a0"), action)
        assert action.removeprefix(f"open {key} ") in values


def test_it_measures_what_was_opened_by_kind():
    def turn(feedback):
        return Turn(0, "a0", "ask moru kavi", "read", True, 0.0, feedback)

    told = ["right: recurring, pages read: 0", "wrong: recurring, pages read: 1", "given up: changed, pages read: 1"]
    figures = CodebookWorld.measures([turn(text) for text in ("waited", *told, "a page")])
    assert figures == {"recurring opened": 0.5, "changed opened": 0.0, "pages per vault": pytest.approx(2 / 3)}
    assert CodebookWorld.measures([turn("waited")]) == {}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"one_offs": 5, "news": 1, "notes": 8}, "the news of a room have 4 one-off notes"),
        ({"rooms": 0}, "'rooms'"),
        ({"recuring": 2}, "did you mean 'recurring'?"),
    ],
)
def test_bad_options_are_refused_with_one_line_that_names_them(options, says):
    with pytest.raises(WorldError, match="options of codebook-v0: ") as refused:
        make("codebook-v0", 1, options)
    assert says in str(refused.value)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_world_tells_memories_of_a_run_from_those_of_an_episode(seed):
    """Figures of episodes 11 to 20; a table of ten codebooks: `python tests/fakes/codebooks.py`."""
    of = {name: figures(play_run(memory, seed), 10) for name, memory in MEMORIES.items()}
    run, fifo, episode = of["all of the run"], of["the last 128 notes"], of["this episode"]
    for kind in ("recurring", "changed", "one-off", "class"):
        assert run[f"{kind} opened"] == 1
    assert run["pages per vault"] == 0
    assert episode["one-off opened"] == 1
    assert max(episode["recurring opened"], episode["changed opened"]) < 0.5  # what the vaults' pages give
    assert episode["class opened"] <= 0.6  # no note of the class is told in the same episode, if that can be
    assert episode["recurring opened"] < fifo["recurring opened"] < 1
    tokens = [memory["tokens per opened vault"] for memory in (run, fifo, episode)]
    assert tokens[0] < 0.9 * tokens[1] < tokens[1] < 0.5 * tokens[2]


def test_directives_open_vaults_for_agents_that_were_not_told():
    options = {"num_agents": 4, "rooms": 4, "foreign": True, "episodes": 8}
    alone, directed = (figures(play_run("episode", 0, directed=told, **options), 2) for told in (False, True))
    assert directed["recurring opened"] > alone["recurring opened"] + 0.05
