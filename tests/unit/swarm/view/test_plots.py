"""The figures of one run show every puzzle, every part and the budget."""

from __future__ import annotations

from typing import Any

from swarm.view.plots import plot_puzzles, plot_token_parts


def puzzles(*tokens: int, solved: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    return [{"episode": i, "tokens": used, "solved": i in solved} for i, used in enumerate(tokens)]


def legend(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_solved_and_unsolved_puzzles_are_told_apart_and_stand_at_their_tokens() -> None:
    (axes,) = plot_puzzles(puzzles(120, 600, 300, solved=(0, 2)), 600).axes
    solved, failed, budget = axes.get_lines()
    assert solved.get_xydata().tolist() == [[0, 120], [2, 300]]
    assert failed.get_xydata().tolist() == [[1, 600]]
    assert list(budget.get_ydata()) == [600, 600]
    assert (solved.get_marker(), failed.get_marker()) == ("o", "x")
    assert legend(axes) == ["solved (2)", "not solved (1)", "budget (600 tokens)"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("puzzle (episode number)", "tokens used")


def test_without_a_budget_there_is_no_line_for_it_and_the_tallest_puzzle_fits() -> None:
    (axes,) = plot_puzzles(puzzles(120, 900, solved=(1,)), None).axes
    assert legend(axes) == ["solved (1)", "not solved (1)"]
    assert axes.get_ylim()[1] > 900


def test_every_part_has_a_bar_with_its_tokens_and_share() -> None:
    (axes,) = plot_token_parts({"agents read": 750, "agents write": 1250}).axes
    assert [bar.get_width() for bar in axes.patches] == [750, 1250]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["agents read", "agents write"]
    assert [text.get_text() for text in axes.texts] == ["750 (38%)", "1,250 (62%)"]
    assert axes.yaxis_inverted()  # the first part is on top


def test_a_run_that_used_no_tokens_still_has_its_figure() -> None:
    (axes,) = plot_token_parts({}).axes
    assert not axes.patches
