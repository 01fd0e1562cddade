"""Plots that a person can read: they show every arm, nothing runs out of the picture, no two curves look alike."""

from __future__ import annotations

import io
from typing import Any

import pytest

from swarm.compare import plots
from swarm.compare.analysis import ArmRow
from swarm.compare.arms import ARMS
from swarm.compare.plots import plot_coverage, plot_rates, plot_sweep
from swarm.figures import BLUE, to_png
from swarm.stats import Interval

NAMES = ["rules", "swarm", "ulm_coordinator", "untuned", "untuned_chat", "a_rival_with_a_name"]
LOW, HIGH = Interval(0.2, 0.1, 0.35), Interval(0.9, 0.8, 1.0)


def texts(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("names", [["swarm"], NAMES])
def test_labels_end_within_the_picture(names: list[str]) -> None:
    image = pytest.importorskip("matplotlib.image")
    curves = {name: [100 + 40 * index, 300, None] for index, name in enumerate(names)}
    pixels = image.imread(io.BytesIO(to_png(plot_coverage(curves, 550, "swarm", [1.0, 0.5]))))[..., :3]
    assert pixels.min() < 0.5
    assert pixels[:, -4:].min() > 0.99
    assert pixels[:, :4].min() > 0.99


def test_coverage_has_a_curve_and_an_end_label_for_every_arm_that_ended_a_puzzle() -> None:
    curves = {"swarm": [100, 300, None, None], "solo": [500, None, None, None], "rules": []}
    (axes,) = plot_coverage(curves, 600, "swarm", [1.0, 0.5]).axes
    steps = {line.get_color(): line for line in axes.get_lines() if line.get_drawstyle() == "steps-post"}
    assert len(steps) == 2
    swarm = steps[BLUE]
    assert [rate for tokens, rate in swarm.get_xydata() if tokens in (99, 150, 600)] == [0, 0.25, 0.5]
    assert all(swarm.get_linewidth() > line.get_linewidth() for line in steps.values() if line is not swarm)
    assert texts(axes) == ["1/2\n300", "full budget\n600", "solo  0.25", "swarm  0.50"]
    assert axes.get_title("left") == "Solve rate against tokens used"
    assert axes.get_xlim() == (0, 600)


def test_rates_have_a_bar_an_interval_and_a_number_for_every_arm() -> None:
    nothing: Any = (None,) * 9
    rows = [
        ArmRow("solo", "solo, sees all", 40, {1.0: LOW}, *nothing),
        ArmRow("swarm", "swarm", 60, {1.0: HIGH}, *nothing),
    ]
    (axes,) = plot_rates(rows, "swarm").axes
    assert [bar.get_width() for bar in axes.patches] == [0.2, 0.9]
    (whiskers,) = axes.collections
    assert [segment[:, 0].tolist() for segment in whiskers.get_segments()] == [
        pytest.approx([0.1, 0.35]),
        pytest.approx([0.8, 1.0]),
    ]
    assert texts(axes) == ["0.200", "0.900"]
    labels = axes.get_yticklabels()
    assert [label.get_text() for label in labels] == ["solo\nsolo, sees all", "swarm"]
    assert [label.get_fontweight() for label in labels] == ["normal", "bold"]
    assert "n = 40 to 60 per arm" in axes.get_xlabel()


def test_values_of_a_sweep_are_no_formulas() -> None:
    """Failed at a7f87d3: a "$" in them ended a sweep after all its runs with "this is a bug"."""
    figure = plot_sweep({"$a_$": {"swarm": LOW}, "$^{$": {"swarm": HIGH}}, "model")
    assert to_png(figure).startswith(b"\x89PNG")


def test_a_sweep_has_a_line_for_every_arm_over_the_values_at_which_it_ran() -> None:
    (axes,) = plot_sweep({"2": {"swarm": LOW, "solo": HIGH}, "8": {"swarm": HIGH}}, "count").axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["swarm", "solo"]
    assert [line.get_ydata().tolist() for line, *_ in axes.containers] == [[0.2, 0.9], [0.9]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "8"]
    assert axes.get_title("left") == "Solve rate over count"


def test_every_arm_has_a_style_of_its_own() -> None:
    assert set(plots._STYLES) == set(ARMS)
    assert len(set(plots._STYLES.values())) == len(ARMS)


def test_no_two_curves_look_alike() -> None:
    styles = plots._styles(NAMES)
    assert len({tuple(styles[name].values()) for name in NAMES}) == len(NAMES)
