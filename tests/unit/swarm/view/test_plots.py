"""The figures of one run show every puzzle, every part and the budget."""

from __future__ import annotations

from typing import Any

from swarm.view.plots import plot_learning, plot_puzzles, plot_token_parts, plot_training


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


def a_round(number: int, solved: int, probe: float | None, **counts: int) -> dict[str, Any]:
    rate = {"estimate": solved / 10, "low": solved / 20, "high": 0.9}
    steps = {"accepted": 0, "rejected": 0, "nothing": 0, **counts}
    return {"round": number, "solve_rate": rate, "reward": solved / 10, "probe": probe, **steps}


def test_a_learning_curve_has_each_round_the_exam_and_the_probe_under_its_limit() -> None:
    rounds = [a_round(1, 1, 0.96, accepted=2), a_round(2, 3, None, rejected=1), a_round(3, 5, 0.95, nothing=1)]
    exam = {"solve_rate": {"estimate": 0.6, "low": 0.5, "high": 0.7}}
    upper, lower = plot_learning(
        {"rounds": rounds, "exam": exam, "probe": {"first": 0.964, "drop": 0.02, "n": 200}}
    ).axes
    lines = {line.get_label(): line for line in upper.get_lines()}
    solved = next(found for found in upper.containers if found.get_label() == "solved")
    assert solved[0].get_xydata().tolist() == [[1, 0.1], [2, 0.3], [3, 0.5]]
    told = {
        "reward",
        "solved",
        "solved in the exam",
        "2 steps accepted",
        "1 steps rejected",
        "1 steps with nothing to learn",
    }
    assert set(legend(upper)) == told
    assert list(lines["1 steps rejected"].get_xdata()) == [2]
    curve, first, least = lower.get_lines()
    assert curve.get_xydata().tolist() == [[1, 0.96], [3, 0.95]]
    assert [first.get_ydata()[0], round(least.get_ydata()[0], 3)] == [0.964, 0.944]


def test_a_run_without_probe_and_exam_has_one_panel() -> None:
    (axes,) = plot_learning({"rounds": [a_round(1, 1, None, nothing=1)], "exam": None, "probe": None}).axes
    assert axes.get_xlabel() == "round"


def test_a_training_has_a_panel_for_losses_shares_and_levels_as_far_as_it_records_them() -> None:
    records = [{"step": 50 * n, "loss": 3.0 - n, "loss_far": 3.0, "bits_x": 1.0, "level_span": n} for n in (1, 2)]
    losses, levels = plot_training(records).axes
    assert legend(losses) == ["loss", "loss_far", "bits_x"]
    assert losses.get_lines()[0].get_xydata().tolist() == [[50, 2], [100, 1]]
    assert legend(levels) == ["level_span"]
    assert len({(line.get_color(), line.get_linestyle()) for line in losses.get_lines()}) == 3
    records[1]["share_next"] = 0.5
    assert [axes.get_ylabel() for axes in plot_training(records).axes] == ["loss", "share of the gradient", "level"]
    assert len(plot_training([]).axes) == 1
