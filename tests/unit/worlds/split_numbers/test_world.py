"""split-numbers-v0: who sees what, what may be composed, and that only an agent on purpose solves the puzzle."""

from __future__ import annotations

import random
from itertools import product

import pytest

from worlds import make
from worlds.numbers import solver
from worlds.numbers.arithmetic import ExpressionError, parse
from worlds.numbers.puzzles import Puzzle, is_held_out
from worlds.protocol import Info, WorldError
from worlds.split_numbers.world import DIRECTIVE, SplitNumbersWorld


@pytest.fixture
def world():
    """Four agents; a0 and a2 hold 3 7 11, a1 and a3 hold 2 4 9; the target is 145."""
    world = make("split-numbers-v0", 4)
    world.reset(0)
    world.halves = (Puzzle((3, 7, 11), 145), Puzzle((2, 4, 9), 145))
    return world


def _say(world, **actions):
    return world.step(actions)


# Who sees what


def test_each_agent_sees_its_half_and_the_target(world):
    observations = _say(world).observations
    assert observations["a0"] == observations["a2"] == "half 3 7 11 target 145"
    assert observations["a1"] == observations["a3"] == "half 2 4 9 target 145"


def test_every_agent_reports_its_half_at_reset():
    world = make("split-numbers-v0", 4)
    observations, infos = world.reset(3)
    for agent, observation in observations.items():
        assert infos[agent]["report"] == observation.split(" target ")[0]


def test_the_full_view_shows_all_tiles_and_reports_nothing():
    world = make("split-numbers-v0", 1, {"view": "full"})
    observations, infos = world.reset(3)
    tiles = sorted(world.halves[0].tiles + world.halves[1].tiles)
    assert observations == {"a0": f"tiles {' '.join(map(str, tiles))} target {world.target}"}
    assert infos == {"a0": {}}


def test_a_half_view_needs_an_agent_for_each_half():
    with pytest.raises(WorldError, match=r"at least 2 agents.*view: full"):
        make("split-numbers-v0", 1)


# Posting


def test_a_free_action_posts_its_value(world):
    info = _say(world, a0="3*7+11").infos["a0"]
    assert info == {"feedback": "= 32", "valid": True, "report": "half 3 7 11 made 32"}
    assert world.state()["posted"] == [[32], []]


def test_a_value_is_posted_once_per_half(world):
    assert "report" in _say(world, a0="3*7+11").infos["a0"]
    again = _say(world, a2="11+7*3").infos["a2"]
    assert again == {"feedback": "= 32", "valid": True}
    assert world.state()["posted"] == [[32], []]


@pytest.mark.parametrize(("action", "value"), [("3/7+11", "80/7"), ("3-7-11", "-15")])
def test_a_value_that_is_not_a_whole_number_from_zero_on_is_legal_but_not_posted(world, action, value):
    assert _say(world, a0=action).infos["a0"] == {"feedback": f"= {value}", "valid": True}
    assert world.state()["posted"] == [[], []]


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("3+7", "tile 11 is not used"),
        ("3+7+11+11", "was not posted"),
        ("3+7+11+2+4", "2 is not a tile"),
        ("2+4+9", "2 is not a tile"),
        ("3/(7-7)+11", "was not posted"),
        ("145", "145 is not a tile"),
        ("make 145", "expected a number"),
        ("", "empty"),
    ],
)
def test_an_illegal_action_posts_nothing_and_says_why(world, action, reason):
    info = _say(world, a0=action).infos["a0"]
    assert info["valid"] is False
    assert reason in info["feedback"]
    assert "report" not in info
    assert world.state()["posted"] == [[], []]


def test_a_division_by_zero_is_illegal(world):
    world.halves = (Puzzle((3, 3, 7), 145), world.halves[1])
    info = _say(world, a0="7/(3-3)").infos["a0"]
    assert info == {"feedback": "illegal: division by zero", "valid": False}


# Composing


def test_a_posted_value_of_the_other_half_solves_with_own_tiles(world):
    world.halves = (Puzzle((3, 7, 11), 142), Puzzle((2, 4, 9), 142))
    _say(world, a0="(11+3)*7")
    result = _say(world, a3="98+(9+2)*4", a0="3+7+11")
    assert result.terminations == dict.fromkeys(world.possible_agents, True)
    assert result.rewards == {"a0": 0.0, "a1": 0.0, "a2": 0.0, "a3": 1.0}  # each its own
    assert world.solved
    assert world.agents == []
    assert world.state()["solution"] == "98+(9+2)*4"


def test_a_value_that_nobody_posted_is_illegal_to_compose(world):
    info = _say(world, a1="101+(9+2)*4").infos["a1"]
    assert info == {"feedback": "illegal: 101 was not posted by the other half", "valid": False}
    assert not world.solved


def test_a_value_that_the_own_half_posted_is_illegal_to_compose(world):
    _say(world, a0="(11+3)*7")
    info = _say(world, a2="98+3+7+11").infos["a2"]
    assert info == {"feedback": "illegal: 98 was not posted by the other half", "valid": False}


def test_a_value_posted_in_the_same_tick_does_not_count(world):
    world.halves = (Puzzle((3, 7, 11), 142), Puzzle((2, 4, 9), 142))
    together = _say(world, a0="(11+3)*7", a1="98+(9+2)*4")
    assert together.infos["a1"] == {"feedback": "illegal: 98 was not posted by the other half", "valid": False}
    assert not world.solved
    _say(world, a1="98+(9+2)*4")
    assert world.solved


def test_two_posted_values_are_too_many(world):
    _say(world, a0="(11+3)*7", a2="3+7+11")
    info = _say(world, a1="98+21+(9+2)*4").infos["a1"]
    assert info["valid"] is False
    assert not world.solved


def test_a_composed_action_needs_every_own_tile(world):
    _say(world, a0="(11+3)*7")
    assert _say(world, a1="98+9*4").infos["a1"]["valid"] is False
    assert _say(world, a1="98").infos["a1"]["valid"] is False


def test_a_composed_miss_posts_what_the_own_tiles_made_and_not_the_whole(world):
    _say(world, a0="(11+3)*7")
    info = _say(world, a1="98-(9+2+4)").infos["a1"]
    assert info == {"feedback": "= 83", "valid": True, "report": "half 2 4 9 made 15"}
    assert world.state()["posted"] == [[98], [15]]


def test_a_composed_miss_with_the_borrowed_value_inside_posts_nothing(world):
    _say(world, a0="(11+3)*7")
    info = _say(world, a1="(98+9)*2+4").infos["a1"]
    assert info == {"feedback": "= 218", "valid": True}
    assert world.state()["posted"] == [[98], []]


def test_posted_values_never_solve_by_themselves(world):
    """Every pair of posted values that completes the target lies on the table, and the puzzle is still open."""
    left, right = solver.whole_values((3, 7, 11)), solver.whole_values((2, 4, 9))
    target = next(v for v in left if any(v == s for s in right) and v > 11)
    world.halves = (Puzzle((3, 7, 11), target), Puzzle((2, 4, 9), target))
    texts = [solver.expressions(tiles) for tiles in ((3, 7, 11), (2, 4, 9))]
    for mine, theirs in zip(left, right, strict=False):
        result = _say(world, a0=texts[0][mine][0], a1=texts[1][theirs][0])
        assert not any(result.terminations.values())
    _say(world, a0=texts[0][target][0], a1=texts[1][target][0])
    assert not world.solved
    posted = world.state()["posted"]
    joins = [form.format(s) for v, (form, s) in _completions(posted[0], target) if s in posted[1]]
    assert joins, "the test needs values that complete each other"
    for agent, text in product(world.possible_agents, [*joins, *map(str, posted[0]), f"{target}"]):
        assert _say(world, **{agent: text.replace("[", "").replace("]", "")}).infos[agent]["valid"] is False
    assert not world.solved


def _completions(values, target):
    return [(value, way) for value in values for way in solver.sub_targets(value, target)]


# The full view


def test_the_full_view_is_solved_by_all_tiles_at_once_only():
    world = make("split-numbers-v0", 2, {"view": "full"})
    world.reset(0)
    world.halves = (Puzzle((3, 7, 11), 142), Puzzle((2, 4, 9), 142))
    assert _say(world, a0="(11+3)*7").infos["a0"]["valid"] is False
    assert _say(world, a0="(11+3)*7+9+2+4").infos["a0"] == {"feedback": "= 113", "valid": True}
    _say(world, a1="(11+3)*7+(9+2)*4")
    assert world.solved


# Drawing


@pytest.mark.parametrize("split", ["held_out", "train"])
def test_drawn_puzzles_can_be_solved_by_one_hand_over_and_belong_to_the_split(split):
    world = make("split-numbers-v0", 2, {"split": split})
    for seed in range(10):
        world.reset(seed)
        left, right = (half.tiles for half in world.halves)
        ways = _completions(solver.whole_values(left), world.target)
        assert any(s in solver.whole_values(right) for _, (_, s) in ways)
        assert 100 <= world.target <= 199
        assert is_held_out(left + right, world.target) == (split == "held_out")


def test_options_without_any_puzzle_are_refused():
    world = make("split-numbers-v0", 2, {"half": 1, "high": 2, "target_low": 190, "target_high": 190})
    with pytest.raises(WorldError, match="no solvable puzzle"):
        world.reset(0)


# The random policy


@pytest.mark.parametrize("directive", ["100+[45]", "190-[45]", "5*[29]", "290/[2]", "[178]-33", "[290]/2"])
def test_the_random_policy_keeps_the_form_of_its_directive(world, directive):
    before, after = directive.split("[")[0], directive.split("]")[1]
    for seed in range(20):
        action = world.sample_action("a0", directive, random.Random(seed))
        assert action.startswith(before)
        assert action.endswith(after)
        own = action[len(before) : len(action) - len(after)]
        assert sorted(parse(own).literals) == [3, 7, 11]


@pytest.mark.parametrize("directive", ["", "go 7", "[45]", "100+45"])
def test_the_random_policy_posts_freely_without_a_directive_that_has_a_form(world, directive):
    for seed in range(20):
        action = world.sample_action("a1", directive, random.Random(seed))
        assert sorted(parse(action).literals) == [2, 4, 9]


@pytest.mark.parametrize(
    "text", ["100+45", "100+[45", "[45]+100", "[45]*3", "[]", "100[45]", "+[45]", "100+[4 5]", "1" * 8 + "+[45]"]
)
def test_a_text_in_another_form_is_no_directive(text):
    assert DIRECTIVE.fullmatch(text) is None


# Solver texts in the forms of directives


@pytest.mark.parametrize("value", [0, 1, 5, 29, 100, 145, 290, 435])
def test_every_sub_target_completes_its_value_to_the_target(value):
    ways = solver.sub_targets(value, 145)
    assert ways
    for form, s in ways:
        assert s > 0
        assert parse(form.format(s).replace("[", "(").replace("]", ")")).value() == 145


def test_sub_targets_cover_every_operator_on_either_side():
    assert solver.sub_targets(5, 145) == [("5+[{}]", 140), ("[{}]-5", 150), ("5*[{}]", 29), ("[{}]/5", 725)]
    assert solver.sub_targets(290, 145) == [
        ("290-[{}]", 145),
        ("[{}]-290", 435),
        ("290/[{}]", 2),
        ("[{}]/290", 42050),
    ]


def test_combine_refuses_to_divide_by_zero():
    with pytest.raises(ValueError, match="division by zero"):
        solver.combine("/", "7", "3-3")


def test_search_refuses_more_tiles_than_it_can_list():
    with pytest.raises(ValueError, match="1 to 5 tiles"):
        solver.reachable((1, 2, 3, 4, 5, 6))
    with pytest.raises(ValueError, match="1 to 5 tiles"):
        solver.reachable(())
    with pytest.raises(ValueError, match="at most 4 tiles"):
        solver.expressions((1, 2, 3, 4, 5))


def test_random_expressions_never_divide_by_zero():
    for seed in range(100):
        text = solver.random_expression((0, 0, 1, 1), random.Random(seed))
        try:
            parse(text).value()
        except ExpressionError:
            pytest.fail(f"{text} divides by zero")


# Hindsight


@pytest.mark.parametrize(
    ("observation", "action", "value", "under", "right"),
    [
        ("half 2 4 9 target 154", "(2+9)*4", 44, "target 154\n110+[44]", "110+(2+9)*4"),
        ("half 2 4 9 target 14", "(2+9)*4", 44, "target 14\n[44]-30", "(2+9)*4-30"),
        ("half 2 4 9 target 154", "110+(2+9)*4", 154, "target 154\n110+[44]", "110+(2+9)*4"),
        ("half 2 4 9 target 154", "100-(2+9-4)", 93, "target 93\n100-[7]", "100-(2+9-4)"),
        ("half 3 3 9 target 154", "3+(3+3+9)", 18, "target 18\n3+[15]", "3+(3+3+9)"),
    ],
)
def test_an_attempt_is_right_under_the_directive_that_assigns_what_it_made(observation, action, value, under, right):
    pairs = SplitNumbersWorld.relabel(
        SplitNumbersWorld.Options(), observation, action, Info(feedback=f"= {value}", valid=True)
    )
    assert pairs == [(f"{observation.split(' target')[0]} {under}", right)]
    directive = pairs[0][0].split("\n")[1]
    assert DIRECTIVE.fullmatch(directive)
    own = int(DIRECTIVE.fullmatch(directive)["own"])
    assert parse(directive.replace("[", "").replace("]", "")).value() == parse(right).value()
    assert str(own) not in right  # it is made, not copied


@pytest.mark.parametrize(
    ("action", "feedback", "valid"),
    [
        ("(2+9)*4+100", "= 144", True),  # directives put a posted summand first
        ("2*9*(4+10)", "= 252", True),  # the posted number stands inside
        ("2*4/9", "= 8/9", True),
        ("2-4-9", "= -11", True),
        ("101+(9+2)*4", "illegal: 101 was not posted by the other half", False),
        ("", "passed", True),
    ],
)
def test_an_attempt_that_follows_no_directive_teaches_nothing(action, feedback, valid):
    assert (
        SplitNumbersWorld.relabel(
            SplitNumbersWorld.Options(), "half 2 4 9 target 154", action, Info(feedback=feedback, valid=valid)
        )
        == []
    )


def test_who_sees_all_tiles_learns_the_puzzle_that_it_solved():
    info = Info(feedback="= 15", valid=True)
    options = SplitNumbersWorld.Options(target_low=10, target_high=20)
    pairs = SplitNumbersWorld.relabel(options, "tiles 2 4 9 target 154", "2+4+9", info)
    assert pairs == [("tiles 2 4 9 target 15", "9+4+2")]


def test_a_hit_under_a_directive_gives_itself(world):
    world.halves = (Puzzle((3, 7, 11), 142), Puzzle((2, 4, 9), 142))
    _say(world, a0="(11+3)*7")
    info = _say(world, a3="98+(9+2)*4").infos["a3"]
    assert SplitNumbersWorld.relabel(SplitNumbersWorld.Options(), "half 2 4 9 target 142", "98+(9+2)*4", info) == [
        ("half 2 4 9 target 142\n98+[44]", "98+(9+2)*4")
    ]
