"""The figures of an evaluation show every arm, distance, table size and token that its results hold."""

from __future__ import annotations

from typing import Any

from swarm.figures import to_png
from swarm.lab.engram.plots import plots


def interval(estimate: float) -> dict[str, float]:
    return {"estimate": estimate, "low": estimate - 0.1, "high": estimate + 0.1, "n": 40}


def rates(*estimates: float) -> dict[str, Any]:
    by_category = {f"category {i}": interval(estimate) for i, estimate in enumerate(estimates)}
    return {"by_category": by_category}


RESULTS: dict[str, Any] = {
    "arms": {
        "base": {"same": rates(0.1, 0.2), "paraphrase": rates(0.1, 0.1)},
        "exact": {"same": rates(0.9, 0.8)},
        "exact, gated": {"same": rates(0.3, 0.3)},
    },
    "distraction": {
        "window": {"128": interval(0.2), "1024": interval(0.1)},
        "exact": {"128": interval(0.9), "1024": interval(0.8)},
    },
    "cost": {
        "rows": {
            "base": {"ms": 1.0},
            "1000": {"of_base": 1.1, "low": 1.0, "high": 1.2},
            "4000": {"of_base": 1.2, "low": 1.1, "high": 1.5},
        },
        "rows_of_lengths": 4000,
        "lengths": {"16": {arm: {"ms": 2.0} for arm in ("base", "exact", "engram")}},
    },
    "gates": [{"title": "a line", "tokens": ["a", "\n"], "gates": {"2": [0.1, 0.9]}, "mixture": [0.2, 0.3]}],
}


def legend(owner: Any) -> list[str]:
    return [text.get_text() for text in owner.texts]


def test_only_what_was_measured_is_drawn() -> None:
    assert plots({"arms": {}, "distraction": {}}) == {}
    figures = plots(RESULTS)
    assert list(figures) == ["arms.png", "distraction.png", "cost.png", "gates.png"]
    assert all(to_png(figure).startswith(b"\x89PNG") for figure in figures.values())


def test_arms_stand_side_by_side_in_every_category() -> None:
    figure = plots(RESULTS)["arms.png"]
    same, paraphrase = figure.axes
    assert [bar.get_height() for bar in same.patches] == [0.1, 0.2, 0.9, 0.8]
    assert [bar.get_height() for bar in paraphrase.patches] == [0.1, 0.1]
    assert [label.get_text() for label in same.get_xticklabels()] == ["category 0", "category 1"]
    assert legend(figure.legends[0]) == ["bare model", "exact tier"]


def test_recall_is_drawn_over_the_distances() -> None:
    (axes,) = plots(RESULTS)["distraction.png"].axes
    assert [line.get_xydata().tolist() for line in axes.get_lines()] == [
        [[128, 0.2], [1024, 0.1]],
        [[128, 0.9], [1024, 0.8]],
    ]
    assert legend(axes.get_legend())[0] == "bare model, short window (null control)"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["128", "1,024"]
    assert "40 sequences per distance" in axes.get_title("left")


def test_cost_leaves_out_the_base_and_fits_the_highest_interval() -> None:
    rows, lengths = plots(RESULTS)["cost.png"].axes
    assert rows.containers[0][0].get_xydata().tolist() == [[1000, 1.1], [4000, 1.2]]
    assert rows.get_ylim()[1] == 1.5
    assert legend(lengths.get_legend()) == ["bare model", "exact tier", "learned tier, 4,000 rows"]


def test_gates_show_each_block_and_the_mixture_over_the_tokens() -> None:
    axes, _ = plots(RESULTS)["gates.png"].axes
    assert axes.images[0].get_array().tolist() == [[0.1, 0.9], [0.2, 0.3]]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["block 2", "mixture"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["a", "\\n"]
