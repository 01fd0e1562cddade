"""split-numbers-v0's coordination: posted values become sub-targets for the other half, and nothing else does."""

from __future__ import annotations

import pytest

from swarm.coordinator.kinds import playbook
from swarm.errors import SwarmError
from worlds.numbers.arithmetic import parse
from worlds.protocol import Briefing, Report, Situation
from worlds.split_numbers.playbook import (
    LARGEST,
    MAX_REPEATS,
    MAX_TRIES,
    MENU,
    SplitNumbersPlaybook,
    briefing_text,
    menu,
)
from worlds.split_numbers.world import DIRECTIVE

BOOK = SplitNumbersPlaybook()
AGENTS = ("a0", "a1", "a2", "a3")
LEFT, RIGHT = "half 3 7 11", "half 2 4 9"


def _request(*reports, agents=AGENTS, goal="target 145", given=(), declined=()):
    """Build a request: four agents that named their halves at tick 0, then `"a0: half 3 7 11 made 45"` texts."""
    told = [Report(0, agent, LEFT if i % 2 == 0 else RIGHT) for i, agent in enumerate(AGENTS)]
    told += [Report(tick, *text.split(": ", 1)) for tick, text in enumerate(reports, 1)]
    return Situation(goal, agents, tuple(told), tuple(given), tuple(declined))


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
    directives = BOOK.rules(Situation("target 145", AGENTS, told))
    assert set(directives) == {"a1", "a3"}


def test_one_half_alone_gets_no_directives():
    told = (Report(0, "a0", LEFT), Report(1, "a0", f"{LEFT} made 100"))
    request = Situation("target 145", AGENTS, told)
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


def test_a_briefing_offers_the_own_tiles_and_every_sub_target_by_size():
    (briefing,) = BOOK.briefings(_request(_made("a0", 100), _made("a2", 29)))
    options = {"5": "29*[5]", "45": "100+[45]", "116": "29+[116]", "174": "[174]-29", "245": "[245]-100"}
    assert briefing == Briefing(("a1", "a3"), briefing_text("2 4 9", [5, 45, 116, 174, 245]), options)
    assert briefing.prompt == "half 2 4 9 make 5 45 116 174 245\n"


def test_a_menu_completes_the_target_and_lists_no_sub_target_twice():
    ways = menu(145, [100, 190, 29, 7])
    assert list(ways) == sorted(set(ways))
    assert ways[45] == "190-[45]"  # the later of two ways
    assert max(ways) < LARGEST  # 1015/7 is one, too
    for s, text in ways.items():
        assert f"[{s}]" in text
        assert parse(text.replace("[", "(").replace("]", ")")).value() == 145


def test_each_half_that_can_complete_something_gets_its_own_briefing():
    briefings = BOOK.briefings(_request(_made("a0", 100), _made("a1", 50)))
    assert [b.agents for b in briefings] == [("a0", "a2"), ("a1", "a3")]
    assert [b.options["95"] for b in briefings if "95" in b.options] == ["50+[95]"]
    assert [b.options["45"] for b in briefings if "45" in b.options] == ["100+[45]"]


def test_a_briefing_holds_a_bounded_number_of_the_smallest_sub_targets():
    posted = [_made("a0", value) for value in range(100, 100 + MENU + 5)]
    (briefing,) = BOOK.briefings(_request(*posted))
    offered = [int(word) for word in briefing.prompt.split("make ")[1].split()]
    assert len(offered) == MENU
    assert offered == sorted(offered)
    assert offered == list(range(145 - 100 - MENU - 4, 145 - 100 - 4))


def test_a_shorter_menu_keeps_its_smallest_sub_targets() -> None:
    posted = [_made("a0", value) for value in range(100, 100 + MENU + 5)]
    (whole,), (short,) = BOOK.briefings(_request(*posted)), playbook("split-numbers-v0", 3).briefings(_request(*posted))
    assert list(short.options) == list(whole.options)[:3]
    assert len(short.prompt.split("make ")[1].split()) == 3
    assert playbook("split-numbers-v0").menu == MENU


def test_what_a_model_declined_is_not_offered_again_unless_its_half_posts_it() -> None:
    posted = [_made("a0", 100), _made("a2", 29)]
    (first,) = BOOK.briefings(_request(*posted))
    assert {"5", "45", "116"} <= set(first.options)
    passed = [("a1", first.options["45"]), ("a1", first.options["5"]), ("a0", first.options["116"])]
    (again,) = BOOK.briefings(_request(*posted, declined=passed))
    assert set(first.options) - set(again.options) == {"5", "45"}  # 116 was declined for the other half
    (more,) = BOOK.briefings(_request(*posted, _made("a0", 90), declined=passed))
    assert "55" in more.options
    assert "45" not in more.options
    posted_by_itself = _request(*posted, _made("a1", 45), declined=passed)
    assert any("45" in b.options for b in BOOK.briefings(posted_by_itself))


@pytest.mark.parametrize(
    ("answer", "cut", "left_out"),
    [
        (" 45", False, ["5", "116", "174"]),
        (" -", False, ["5", "45", "116", "174"]),
        (" 5 45 116 174", False, []),
        ("", False, []),  # says nothing
        (" 45 46", False, []),  # does not know the form
        (" 45", True, ["5"]),  # might have gone on
        ("", True, []),
        (" 5 116 174", False, ["45"]),  # three picks for two agents: of what comes after the second nothing is known
    ],
)
def test_an_answer_decides_against_what_it_leaves_out_as_far_as_it_goes(
    answer: str, cut: bool, left_out: list[str]
) -> None:
    options = {"5": "29*[5]", "45": "100+[45]", "116": "29+[116]", "174": "[174]-29"}
    briefing = Briefing(("a1", "a3"), "", options)
    assert BOOK.declined(answer, briefing, cut) == [options[word] for word in left_out]


def test_a_menu_may_be_gone_through_with_marks() -> None:
    marking = playbook("split-numbers-v0", 4, "marks")
    (briefing,) = marking.briefings(_request(_made("a0", 100), _made("a2", 29)))
    assert (briefing.prompt, briefing.pattern) == ("2 4 9:", "5[+-]45[+-]116[+-]174[+-]")
    assert marking.parse("5-45+116-174+", briefing) == {"a1": "100+[45]", "a3": "[174]-29"}
    assert marking.declined("5-45+116-174+", briefing, False) == ["29*[5]", "29+[116]"]
    assert marking.declined("5-45+11", briefing, True) == ["29*[5]"]  # cut: of what comes after nothing is known
    assert marking.parse("5+45+116+174+", briefing) == {"a1": "29*[5]", "a3": "100+[45]"}
    for garbage in ("", "45", "+-", "99+", "5 + 45 -"):
        assert marking.parse(garbage, briefing) == {}
        assert marking.declined(garbage, briefing, False) == []


def test_a_menu_is_refused_where_briefings_list_none() -> None:
    with pytest.raises(SwarmError, match=r"coordinator\.menu has no meaning in graph-v0"):
        playbook("graph-v0", 3)
    with pytest.raises(SwarmError, match=r"coordinator\.answers has no meaning in vault-v0"):
        playbook("vault-v0", answers="marks")


def test_a_sub_target_that_was_missed_often_enough_is_offered_no_more():
    posted = [_made("a0", 100), _made("a2", 29)]
    given = [(tick, "a1", "100+[45]") for tick in range(MAX_TRIES - 1)]
    (briefing,) = BOOK.briefings(_request(*posted, given=given))
    assert "45" in briefing.options
    given += [(9, "a3", "190-[45]")]  # another way to the same own part is the same to the half
    (briefing,) = BOOK.briefings(_request(*posted, given=given))
    assert "45" not in briefing.options
    briefings = BOOK.briefings(_request(*posted, _made("a3", 45), given=given))
    assert any("45" in b.options for b in briefings)  # the half has made it once: it is worth another try
    given += [(10, "a1", "100+[45]")] * MAX_REPEATS
    assert all("45" not in b.options for b in BOOK.briefings(_request(*posted, _made("a3", 45), given=given)))


def test_nothing_left_on_the_menu_means_no_briefing():
    given = [(tick, "a1", text) for tick in range(MAX_TRIES) for text in ("100+[45]", "[245]-100")]
    assert BOOK.briefings(_request(_made("a0", 100), given=given)) == []


def test_a_model_answer_is_dealt_out_in_order_and_garbage_in_it_skipped():
    options = {"5": "29*[5]", "45": "100+[45]", "116": "29+[116]"}
    briefing = Briefing(("a1", "a3", "a5"), "", options)
    assert BOOK.parse(" 45 nonsense 5", briefing) == {"a1": "100+[45]", "a3": "29*[5]"}
    assert BOOK.parse("5 45 116 5", Briefing(("a1", "a3"), "", options)) == {"a1": "29*[5]", "a3": "100+[45]"}
    for nothing in ("-", "", "46 100+[45] [[1]] \x00"):
        assert BOOK.parse(nothing, briefing) == {}
