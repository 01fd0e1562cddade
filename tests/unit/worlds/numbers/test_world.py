"""numbers-v0: one puzzle for all, exact feedback, a stable held-out split, puzzle files that name their bad lines."""

from __future__ import annotations

import random

import pytest

from worlds import make
from worlds.numbers import solver
from worlds.numbers.arithmetic import ExpressionError, parse
from worlds.numbers.puzzles import Puzzle, check_tiles, is_held_out, read_puzzles
from worlds.protocol import WorldError

# The feedback and the end of an episode


def _game_of_24(tmp_path, agents=2, tiles="1 3 4 6"):
    path = tmp_path / "puzzles.csv"
    path.write_text(f"numbers\n{tiles}\n", encoding="utf-8")
    world = make("numbers-v0", agents, {"file": str(path), "target": 24})
    return world, *world.reset(0)


def test_all_agents_see_the_same_puzzle(tmp_path):
    _, observations, _ = _game_of_24(tmp_path)
    assert observations == {"a0": "tiles 1 3 4 6 target 24", "a1": "tiles 1 3 4 6 target 24"}


def test_the_first_hit_solves_the_puzzle_for_all(tmp_path):
    world, _, _ = _game_of_24(tmp_path)
    result = world.step({"a0": "1+3+4+6", "a1": "6/(1-3/4)"})
    assert result.infos["a0"] == {"feedback": "= 14", "valid": True}
    assert result.infos["a1"] == {"feedback": "= 24", "valid": True}
    assert result.rewards == {"a0": 0.0, "a1": 1.0}  # each its own
    assert result.terminations == {"a0": True, "a1": True}
    assert not any(result.truncations.values())
    assert world.solved
    assert world.agents == []
    assert world.state()["solution"] == "6/(1-3/4)"


def test_a_miss_leaves_the_puzzle_open_and_says_its_value(tmp_path):
    world, _, _ = _game_of_24(tmp_path)
    result = world.step({"a0": "1*3/4+6"})
    assert result.infos["a0"] == {"feedback": "= 27/4", "valid": True}
    assert result.rewards["a0"] == 0.0
    assert not world.solved
    assert world.agents == ["a0", "a1"]


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("6*4", "tile 1 is not used"),
        ("6*4*1", "tile 3 is not used"),
        ("6*4*1*3/3", "tile 3 is used too often"),
        ("24", "24 is not a tile"),
        ("6/(1-3/4)+0", "0 is not a tile"),
        ("64/(3-1)", "64 is not a tile"),
        ("(6-4)/(1-1)+3", "tile 1 is used too often"),
        ("6/(4-3-1)", "division by zero"),
        ("24 please", "cannot read"),
        ("", "empty"),
    ],
)
def test_an_illegal_action_is_answered_with_its_reason_and_solves_nothing(tmp_path, action, reason):
    world, _, _ = _game_of_24(tmp_path)
    info = world.step({"a0": action}).infos["a0"]
    assert info["valid"] is False
    assert info["feedback"].startswith("illegal: ")
    assert reason in info["feedback"]
    assert not world.solved


def test_a_tile_that_is_there_twice_must_be_used_twice():
    check_tiles(parse("3*3+7"), (3, 3, 7))
    with pytest.raises(ExpressionError, match="tile 3 is not used"):
        check_tiles(parse("3+7"), (3, 3, 7))
    with pytest.raises(ExpressionError, match="tile 3 is used too often"):
        check_tiles(parse("3+3+3+7"), (3, 3, 7))


def test_random_actions_are_legal_unless_they_divide_by_zero():
    world, rng = make("numbers-v0", 1), random.Random(1)
    world.reset(1)
    for _ in range(50):
        action = world.sample_action("a0", "", rng)
        check_tiles(parse(action), world.puzzle.tiles)
        parse(action).value()


# Drawing and the held-out split

HELD_OUT_OF_ONE_TO_SIX = [104, 106, 110, 115, 118, 148, 150, 152, 162, 163, 169, 175]
HELD_OUT_OF_FOUR = [13, 22, 39, 43, 48, 49, 54, 61, 79, 91]


def test_a_seed_draws_one_puzzle_and_other_seeds_draw_others():
    world = make("numbers-v0", 1)
    assert world.reset(5) == world.reset(5)
    assert len({world.reset(seed)[0]["a0"] for seed in range(10)}) > 7


@pytest.mark.parametrize("split", ["held_out", "train"])
def test_drawn_puzzles_are_solvable_and_of_the_split_that_was_asked(split):
    world = make("numbers-v0", 1, {"split": split})
    for seed in range(20):
        world.reset(seed)
        assert world.puzzle.target in solver.whole_values(world.puzzle.tiles)
        assert 10 <= world.puzzle.target <= 100
        assert is_held_out(world.puzzle.tiles, world.puzzle.target) == (split == "held_out")


def test_a_fixed_target_is_kept():
    world = make("numbers-v0", 1, {"target": 24})
    assert {world.reset(seed)[0]["a0"].split(" target ")[1] for seed in range(10)} == {"24"}


def test_options_without_any_puzzle_are_refused():
    world = make("numbers-v0", 1, {"count": 2, "low": 1, "high": 2, "target_low": 90, "target_high": 90})
    with pytest.raises(WorldError, match=r"no solvable puzzle with 2 numbers 1\.\.2 and target 90\.\.90"):
        world.reset(0)


def test_the_held_out_split_never_moves():
    """These answers were written down once: a change would put evaluation puzzles into past training data."""
    held_out = [target for target in range(100, 200) if is_held_out((1, 2, 3, 4, 5, 6), target)]
    assert held_out == HELD_OUT_OF_ONE_TO_SIX
    assert [target for target in range(10, 101) if is_held_out((3, 5, 7, 11), target)] == HELD_OUT_OF_FOUR


def test_the_held_out_split_depends_on_the_puzzle_not_on_the_order_of_its_tiles():
    for target in range(100, 150):
        assert is_held_out((1, 2, 3, 4, 5, 6), target) == is_held_out([6, 4, 2, 5, 3, 1], target)


def test_about_one_puzzle_in_ten_is_held_out():
    share = sum(is_held_out((a, 5, 9, 12), target) for a in range(1, 14) for target in range(1, 201)) / (13 * 200)
    assert 0.08 < share < 0.12


# Puzzle files


def _file(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_a_csv_file_with_a_target_column_is_read_in_order(tmp_path):
    path = _file(tmp_path, "p.csv", 'rank,Puzzles,goal\n1,6 4 3 1,24\n2,"2,3",6\n')
    assert read_puzzles(path, "Puzzles", "goal", None) == (Puzzle((1, 3, 4, 6), 24), Puzzle((2, 3), 6))


def test_a_jsonl_file_with_lists_and_a_fixed_target_is_read(tmp_path):
    path = _file(tmp_path, "p.jsonl", '{"numbers": [6, 4, 3, 1]}\n\n{"numbers": "4 1 8 7"}\n')
    assert read_puzzles(path, "numbers", None, 24) == (Puzzle((1, 3, 4, 6), 24), Puzzle((1, 4, 7, 8), 24))


def test_the_episode_picks_the_row_of_a_file(tmp_path):
    path = _file(tmp_path, "p.jsonl", '{"numbers": [1, 3, 4, 6]}\n{"numbers": [1, 4, 7, 8]}\n')
    world = make("numbers-v0", 1, {"file": str(path), "target": 24})
    shown = [world.reset(99, {"episode": episode})[0]["a0"] for episode in range(3)]
    assert shown == ["tiles 1 3 4 6 target 24", "tiles 1 4 7 8 target 24", "tiles 1 3 4 6 target 24"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("p.csv", "numbers\n1 3 4 6\n1 1 1 1\n", r"p\.csv:3: 1 1 1 1 cannot make 24"),
        ("p.csv", "numbers\n1 3 4 6\n1 3 x 6\n", r"p\.csv:3: malformed puzzle"),
        ("p.csv", "numbers\n1 3 -4 6\n", r"p\.csv:2: malformed puzzle: .*no whole number"),
        ("p.csv", "numbers\n1 3 4.5 6\n", r"p\.csv:2: malformed puzzle"),
        ("p.csv", "tiles\n1 3 4 6\n", r"p\.csv:2: no column 'numbers'; columns: tiles"),
        ("p.csv", "rank,numbers\n1,1 3 4 6\n2\n", r"p\.csv:3: no column 'numbers'"),
        ("p.csv", 'numbers\n""\n', r"p\.csv:2: malformed puzzle"),
        ("p.csv", "numbers\n", r"p\.csv: no puzzles"),
        ("p.csv", "", r"p\.csv: no puzzles"),
        ("p.jsonl", '{"numbers": [1, 3, 4, 6]}\n{"numbers": [1\n', r"p\.jsonl:2: not JSON"),
        ("p.jsonl", "[1, 3, 4, 6]\n", r"p\.jsonl:1: expected an object with key 'numbers'"),
        ("p.jsonl", '\n\n{"numbers": [1, true]}\n', r"p\.jsonl:3: malformed puzzle"),
        ("p.jsonl", '{"tiles": [1, 3, 4, 6]}\n', r"p\.jsonl:1: no column 'numbers'; columns: tiles"),
    ],
)
def test_a_bad_puzzle_file_is_refused_by_file_and_line(tmp_path, name, text, message):
    path = _file(tmp_path, name, text)
    with pytest.raises(WorldError, match=message):
        read_puzzles(path, "numbers", None, 24)


def test_a_bad_target_is_refused_by_line(tmp_path):
    path = _file(tmp_path, "p.csv", "numbers,goal\n1 3 4 6,24\n1 3 4 6,many\n")
    with pytest.raises(WorldError, match=r"p\.csv:3: malformed puzzle"):
        read_puzzles(path, "numbers", "goal", None)


def test_a_missing_or_unreadable_file_is_refused(tmp_path):
    with pytest.raises(WorldError, match=r"cannot read .*none\.csv"):
        make("numbers-v0", 1, {"file": str(tmp_path / "none.csv"), "target": 24})
    binary = tmp_path / "p.csv"
    binary.write_bytes(b"numbers\n\xff\xfe")
    with pytest.raises(WorldError, match=r"cannot read .*p\.csv"):
        read_puzzles(binary, "numbers", None, 24)


def test_a_file_without_any_target_is_refused(tmp_path):
    path = _file(tmp_path, "p.csv", "numbers\n1 3 4 6\n")
    with pytest.raises(WorldError, match="target_column"):
        make("numbers-v0", 1, {"file": str(path)})
