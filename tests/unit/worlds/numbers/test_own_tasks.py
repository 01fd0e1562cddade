"""numbers-v0 as something to learn: hindsight, folds by hash, and puzzles of each agent's own."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from worlds import make, world_class
from worlds.checked import holds_out
from worlds.numbers import solver
from worlds.numbers.arithmetic import parse
from worlds.numbers.puzzles import Puzzle, is_held_out
from worlds.protocol import WorldError

NUMBERS = world_class("numbers-v0")
SEEN = "tiles 1 3 4 6 target 24"

# Hindsight


def _relabelled(action, **options):
    """Play an action on 1 3 4 6 -> 24 and relabel it as the world answered."""
    world = make("numbers-v0", 1, {"own_tasks": True})
    world.reset(0)
    world.puzzles["a0"] = Puzzle((1, 3, 4, 6), 24)
    return NUMBERS.relabel(NUMBERS.Options(**options), SEEN, action, world.step({"a0": action}).infos["a0"])


@pytest.mark.parametrize(
    ("action", "target", "answer"),
    [
        ("1+3+4+6", 14, "4+3+1+6"),
        ("6/(1-3/4)", 24, "6/(1-3/4)"),
        ("(3-1)*4*6", 48, "4*(3-1)*6"),
        (" 6*4 +(3-1)", 26, "6*4+3-1"),
    ],
)
def test_a_legal_attempt_is_right_for_the_target_that_it_made_in_one_form(action, target, answer):
    assert _relabelled(action) == [(f"tiles 1 3 4 6 target {target}", answer)]


def test_a_form_has_the_value_and_the_numbers_of_its_expression():
    rng = random.Random(3)
    for _ in range(300):
        text = solver.random_expression([rng.randint(0, 13) for _ in range(rng.randint(1, 5))], rng)
        form = solver.canonical(text)
        assert parse(form).value() == parse(text).value()
        assert sorted(parse(form).literals) == sorted(parse(text).literals)


@pytest.mark.parametrize("action", ["6*4", "1*3/4+6", "1-3-4-6", "", "6/(4-3-1)", "24"])
def test_an_illegal_attempt_or_one_that_is_no_whole_number_from_zero_on_teaches_nothing(action):
    assert _relabelled(action) == []


@pytest.mark.parametrize(
    ("options", "is_taught"),
    [
        ({"target_high": 48}, True),
        ({"target_high": 47}, False),
        ({"target_low": 49}, False),
        ({"own_tasks": True, "regimes": [{"target_low": 40, "target_high": 60}], "target_high": 20}, True),
        ({"own_tasks": True, "regimes": [{"target": 24}, {"target_high": 47}], "target_high": 20}, False),
    ],
)
def test_targets_that_are_out_of_range_teach_nothing(options, is_taught):
    assert bool(_relabelled("(3-1)*4*6", **options)) == is_taught


def test_what_was_asked_for_is_taught_whatever_the_range():
    assert _relabelled("6/(1-3/4)", target_high=20)


def test_relabelled_attempts_hit_in_the_puzzle_that_they_name():
    world, rng = make("numbers-v0", 1, {"split": "any"}), random.Random(2)
    observation = world.reset(4)[0]["a0"]
    hits = 0
    for _ in range(60):
        action = world.sample_action("a0", "", rng)
        for other, again in NUMBERS.relabel(world.options, observation, action, world.step({"a0": action}).infos["a0"]):
            there = make("numbers-v0", 1)
            there.reset(0)
            there.puzzles["a0"] = Puzzle(world.puzzle.tiles, int(other.split(" target ")[1]))
            assert there.step({"a0": again}).rewards == {"a0": 1.0}
            hits += 1
        if not world.agents:
            break
    assert hits > 5


# Folds

FOLDS_OF_TEN_TARGETS = [3, 1, 2, 1, 0, 2, 1, 1, 4, 1]


def test_every_row_of_a_file_is_held_out_by_one_of_five_folds(tmp_path):
    path = tmp_path / "p.csv"
    drawn = combinations(range(1, 11), 4)
    rows = [" ".join(map(str, tiles)) for tiles in drawn if 24 in solver.whole_values(tiles)][:60]
    path.write_text("numbers\n" + "\n".join(rows) + "\n", encoding="utf-8")

    def shown(**options):
        world = make("numbers-v0", 1, {"file": str(path), "target": 24, **options})
        return {world.reset(0, {"episode": episode})[0]["a0"] for episode in range(len(rows))}

    folds = [shown(fold=[k, 5]) for k in range(5)]
    everything = shown()
    assert sum(map(len, folds)) == len(everything) == len(set(rows))
    assert set().union(*folds) == everything
    for k in range(5):
        assert shown(fold=[k, 5], split="train") == everything - folds[k]
        assert shown(fold=[k, 5], split="any") == everything


@pytest.mark.parametrize("split", ["held_out", "train"])
def test_a_fold_splits_puzzles_of_a_fixed_target(split):
    world = make("numbers-v0", 1, {"target": 24, "fold": [1, 3], "split": split})
    for seed in range(20):
        world.reset(seed)
        assert is_held_out(world.puzzle.tiles, 24, (1, 3)) == (split == "held_out")


def test_folds_never_move():
    """These answers were written down once: a change would put evaluation puzzles into past training data."""
    folds = [next(k for k in range(5) if is_held_out((1, 3, 4, 6), target, (k, 5))) for target in range(20, 30)]
    assert folds == FOLDS_OF_TEN_TARGETS


def test_a_file_without_a_puzzle_of_the_fold_is_refused(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("numbers\n1 3 4 6\n", encoding="utf-8")
    held_out = next(k for k in range(5) if is_held_out((1, 3, 4, 6), 24, (k, 5)))
    make("numbers-v0", 1, {"file": str(path), "target": 24, "fold": [held_out, 5]})
    with pytest.raises(WorldError, match=r"no puzzle of split 'train' with fold"):
        make("numbers-v0", 1, {"file": str(path), "target": 24, "fold": [held_out, 5], "split": "train"})


def _holds_out(observation, **options):
    return holds_out(NUMBERS, NUMBERS.Options.model_validate(options), observation)


def test_a_relabelled_attempt_may_be_a_puzzle_that_is_held_out():
    held_out = [target for target in range(10, 101) if _holds_out(f"tiles 3 5 7 11 target {target}")]
    assert held_out == [target for target in range(10, 101) if is_held_out((3, 5, 7, 11), target)] != []
    fold = [k for k in range(5) if _holds_out(SEEN, target=24, fold=[k, 5], split="train")]
    assert len(fold) == 1
    assert not _holds_out(f"tiles 3 5 7 11 target {held_out[0]}", target=held_out[0])  # the split is ignored
    assert not _holds_out("no puzzle")


# Puzzles of each agent's own

REGIMES = [{"target": 24}, {"target_low": 200, "target_high": 299}, {"low": 14, "high": 20}, {"count": 5}]


def test_every_agent_plays_its_own_puzzle_of_its_regime():
    world = make("numbers-v0", 8, {"own_tasks": True, "regimes": REGIMES})
    for seed in range(5):
        world.reset(seed)
        for index, puzzle in enumerate(world.puzzles.values()):
            match index % 4:
                case 0:
                    assert puzzle.target == 24
                case 1:
                    assert 200 <= puzzle.target <= 299
                case 2:
                    assert min(puzzle.tiles) >= 14
                case 3:
                    assert len(puzzle.tiles) == 5
        assert len({puzzle.text() for puzzle in world.puzzles.values()}) == 8


def test_regimes_that_rotate_are_met_by_every_agent():
    world = make("numbers-v0", 2, {"own_tasks": True, "rotate": 1, "regimes": REGIMES[:3]})
    met = {agent: set() for agent in world.possible_agents}
    for episode in range(3):
        world.reset(5, {"episode": episode})
        for agent, puzzle in world.puzzles.items():
            met[agent].add("24" if puzzle.target == 24 else "large" if min(puzzle.tiles) >= 14 else "far")
    assert met == {"a0": {"24", "far", "large"}, "a1": {"24", "far", "large"}}


def test_regimes_follow_each_other_in_a_row():
    world = make("numbers-v0", 1, {"own_tasks": True, "rotate": 3, "regimes": [{"count": 2}, {"count": 3}]})
    lengths = []
    for episode in range(8):
        world.reset(episode, {"episode": episode})
        lengths.append(len(world.puzzle.tiles))
    assert lengths == [2, 2, 2, 3, 3, 3, 2, 2]


def test_the_puzzle_of_an_agent_does_not_depend_on_how_many_others_there_are():
    few, many = (make("numbers-v0", n, {"own_tasks": True}).reset(7)[0] for n in (2, 5))
    assert few == {agent: many[agent] for agent in few}


def _two_puzzles(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("numbers\n1 3 4 6\n1 4 7 8\n2 3 4 6\n", encoding="utf-8")
    return make("numbers-v0", 2, {"file": str(path), "target": 24, "own_tasks": True})


def test_agents_take_rows_of_a_file_that_follow_each_other(tmp_path):
    world = _two_puzzles(tmp_path)
    assert world.reset(0, {"episode": 1})[0] == {"a0": "tiles 2 3 4 6 target 24", "a1": "tiles 1 3 4 6 target 24"}


def test_who_solves_its_own_puzzle_is_done_and_the_others_play_on(tmp_path):
    world = _two_puzzles(tmp_path)
    world.reset(0, {"episode": 0})
    first = world.step({"a0": "6/(1-3/4)", "a1": "1+4+7+8"})
    assert first.rewards == {"a0": 1.0, "a1": 0.0}
    assert first.terminations == {"a0": True, "a1": False}
    assert world.agents == ["a1"]
    assert not world.solved
    last = world.step({"a0": "1+3+4+6", "a1": "(7-1)*(8-4)"})
    assert last.rewards == {"a1": 1.0}
    assert last.terminations == {"a1": True}
    assert world.solved
    assert world.agents == []


def test_what_makes_the_target_of_another_agent_earns_nothing(tmp_path):
    world = make("numbers-v0", 2, {"own_tasks": True})
    world.reset(0)
    world.puzzles = {"a0": Puzzle((2, 3), 6), "a1": Puzzle((2, 3), 5)}
    assert world.step({"a0": "2+3", "a1": "2*3"}).rewards == {"a0": 0.0, "a1": 0.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"regimes": REGIMES}, "need `own_tasks: true`"),
        ({"own_tasks": True, "regimes": [{}, {"low": 14}]}, r"entry 1: low must not exceed high"),
        ({"own_tasks": True, "regimes": [{"count": 9}]}, r"entry 0: .*less than or equal to 8"),
        ({"own_tasks": True, "regimes": [{"cuont": 3}]}, "unknown option 'regimes.0.cuont'"),
        ({"fold": [5, 5]}, "needs k below n"),
        ({"fold": 3}, "fold"),
    ],
)
def test_options_that_do_not_fit_are_one_line(options, message):
    with pytest.raises(WorldError, match=message) as error:
        make("numbers-v0", 2, options)
    assert "\n" not in str(error.value)
