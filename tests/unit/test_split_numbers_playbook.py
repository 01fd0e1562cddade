"""split-numbers-v0's coordination: posted values become sub-targets for the other half, and nothing else does."""

from __future__ import annotations

import pytest

from swarm.coordinator.protocol import Briefing
from swarm.coordinator.split_numbers import MAX_REPEATS, MAX_VALUES, SplitNumbersPlaybook, briefing_text
from swarm.messages import DirectRequest, Report
from worlds.arithmetic import parse
from worlds.split_numbers import DIRECTIVE

BOOK = SplitNumbersPlaybook()
AGENTS = ("a0", "a1", "a2", "a3")
LEFT, RIGHT = "half 3 7 11", "half 2 4 9"


def _request(*reports, agents=AGENTS, goal="target 145", given=()):
    """Build a request: four agents that named their halves at tick 0, then `"a0: half 3 7 11 made 45"` texts."""
    told = [Report(0, agent, LEFT if i % 2 == 0 else RIGHT) for i, agent in enumerate(AGENTS)]
    told += [Report(tick, *text.split(": ", 1)) for tick, text in enumerate(reports, 1)]
    return DirectRequest((0, len(told), "coordinator"), goal, agents, tuple(told), tuple(given), seed=0)


def _made(agent, value):
    return f"{agent}: {LEFT if int(agent[1:]) % 2 == 0 else RIGHT} made {value}"


def test_nothing_is_directed_before_a_value_is_posted():
    assert BOOK.rules(_request()) == {}
    assert BOOK.briefings(_request()) == []


def test_a_posted_value_directs_the_other_half_only():
    directives = BOOK.rules(_request(_made("a0", 100)))
    assert set(directives) == {"a1", "a3"}
    assert all("100" in text for text in directives.values())


def test_agents_get_different_guesses():
    directives = BOOK.rules(_request(_made("a0", 100), _made("a1", 50)))
    assert sorted(directives) == list(AGENTS)
    assert len(set(directives.values())) == 4


def test_every_directive_would_complete_the_target():
    directives = BOOK.rules(_request(_made("a0", 100), _made("a1", 290), _made("a2", 29), _made("a3", 5)))
    assert directives
    for text in directives.values():
        assert DIRECTIVE.fullmatch(text)
        assert parse(text.replace("[", "(").replace("]", ")")).value() == 145


def test_rules_take_the_smallest_fresh_sub_target_first():
    assert BOOK.rules(_request(_made("a0", 100), _made("a2", 140)))["a1"] == "140+[5]"


def test_a_sub_target_that_the_half_posted_itself_goes_to_two_of_its_agents():
    directives = BOOK.rules(_request(_made("a0", 100), _made("a1", 45)))
    assert directives["a1"] == directives["a3"] == "100+[45]"
    assert directives["a0"] == directives["a2"] == "45+[100]"


def test_a_guess_is_given_once():
    report = _made("a0", 100)
    first = BOOK.rules(_request(report))["a1"]
    again = BOOK.rules(_request(report, given=[(1, "a1", first)]))["a1"]
    assert again != first


def test_a_known_sub_target_is_given_up_after_its_repeats():
    reports = [_made("a0", 100), _made("a1", 45)]
    patient = [(1, "a1", "100+[45]")] * (MAX_REPEATS - 1)
    assert BOOK.rules(_request(*reports, given=patient))["a1"] == "100+[45]"
    tired = [(1, "a1", "100+[45]")] * (MAX_REPEATS)
    assert BOOK.rules(_request(*reports, given=tired)).get("a1") != "100+[45]"


def test_directives_to_the_other_half_do_not_count_as_given():
    reports = [_made("a0", 100), _made("a1", 45)]
    given = [(1, "a0", "100+[45]")] * (MAX_REPEATS)
    assert BOOK.rules(_request(*reports, given=given))["a1"] == "100+[45]"


def test_only_agents_of_the_request_are_directed():
    directives = BOOK.rules(_request(_made("a0", 100), _made("a1", 45), agents=("a2", "a3")))
    assert set(directives) == {"a2", "a3"}
    briefings = BOOK.briefings(_request(_made("a0", 100), agents=("a3",)))
    assert [briefing.agents for briefing in briefings] == [("a3",)]


def test_equal_tiles_in_both_halves_are_told_apart():
    told = (*(Report(0, agent, LEFT) for agent in AGENTS), Report(1, "a0", f"{LEFT} made 100"))
    directives = BOOK.rules(DirectRequest((0, 1, "coordinator"), "target 145", AGENTS, told, (), seed=0))
    assert set(directives) == {"a1", "a3"}


def test_one_half_alone_gets_no_directives():
    told = (Report(0, "a0", LEFT), Report(1, "a0", f"{LEFT} made 100"))
    request = DirectRequest((0, 1, "coordinator"), "target 145", AGENTS, told, (), seed=0)
    assert BOOK.rules(request) == {}
    assert BOOK.briefings(request) == []


@pytest.mark.parametrize(
    "garbage", ["", "made 45", "half", "half x made 3", "half 3 7 11 made", "room 4 exits 2", "\x00"]
)
def test_text_that_is_no_report_is_skipped(garbage):
    reports = [_made("a0", 100)]
    noisy = _request(f"a1: {garbage}", *reports, f"a0: {garbage}")
    assert BOOK.rules(noisy) == BOOK.rules(_request(*reports))
    assert BOOK.briefings(noisy) == BOOK.briefings(_request(*reports))


def test_without_a_target_in_the_goal_nothing_is_directed():
    assert BOOK.rules(_request(_made("a0", 100), goal="find the exit")) == {}
    assert BOOK.briefings(_request(_made("a0", 100), goal="find the exit")) == []


def test_a_briefing_names_the_target_the_own_tiles_and_the_values_of_the_others():
    (briefing,) = BOOK.briefings(_request(_made("a0", 100), _made("a2", 33)))
    assert briefing == Briefing(("a1", "a3"), briefing_text(145, "2 4 9", [33, 100]))
    assert briefing.prompt == "target 145 half 2 4 9 values 33 100\n"


def test_each_half_that_can_complete_something_gets_its_own_briefing():
    briefings = BOOK.briefings(_request(_made("a0", 100), _made("a1", 50)))
    assert [b.agents for b in briefings] == [("a0", "a2"), ("a1", "a3")]
    assert ["values 50" in briefings[0].prompt, "values 100" in briefings[1].prompt] == [True, True]


def test_a_value_is_briefed_once_however_often_it_is_posted():
    (briefing,) = BOOK.briefings(_request(_made("a0", 100), _made("a2", 100)))
    assert briefing.prompt.endswith("values 100\n")


def test_a_briefing_holds_a_bounded_number_of_the_newest_values():
    posted = [_made("a0", value) for value in range(201, 201 + MAX_VALUES + 3)]
    (briefing,) = BOOK.briefings(_request(*posted))
    values = briefing.prompt.split("values ")[1].split()
    assert values == [str(value) for value in range(200 + MAX_VALUES + 3, 203, -1)]


def test_values_that_were_directed_before_step_back_in_the_next_briefing():
    posted = [_made("a0", 100), _made("a2", 33)]
    (briefing,) = BOOK.briefings(_request(*posted, given=[(1, "a1", "33+[112]")]))
    assert briefing.prompt.endswith("values 100 33\n")
    (briefing,) = BOOK.briefings(_request(*posted, given=[(1, "a1", "[178]-33")]))
    assert briefing.prompt.endswith("values 100 33\n")


def test_a_model_answer_is_dealt_out_in_order_and_garbage_in_it_skipped():
    briefing = Briefing(("a1", "a3"), "")
    assert BOOK.parse("100+[45] nonsense [178]-33 33+[112]", briefing) == {"a1": "100+[45]", "a3": "[178]-33"}
    assert BOOK.parse("-", briefing) == {}
    assert BOOK.parse("", briefing) == {}
    assert BOOK.parse("100+45 [[1]] \x00", briefing) == {}
