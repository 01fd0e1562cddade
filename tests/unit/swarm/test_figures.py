"""What all figures share: whiskers that never turn inside out, lines with bands, bytes that do not change."""

from __future__ import annotations

from swarm.figures import BLUE, new_figure, plot_band, style_axes, to_png, whiskers
from swarm.stats import Interval


def test_whiskers_reach_from_the_estimate_to_both_ends_and_never_inwards() -> None:
    below, above = whiskers([Interval(0.5, 0.25, 1.0), Interval(0.5, 0.75, 0.75)])
    assert below == [0.25, 0.0]
    assert above == [0.5, 0.25]


def test_band_lies_around_its_line_in_the_order_of_numbers() -> None:
    axes = new_figure(3, 2).add_subplot()
    found = {"1024": {"estimate": 0.2, "low": 0.1, "high": 0.3}, "64": {"estimate": 0.8, "low": 0.7, "high": 1.0}}
    plot_band(axes, found, BLUE, label="recall")
    assert axes.get_lines()[0].get_xydata().tolist() == [[64, 0.8], [1024, 0.2]]
    (band,) = axes.collections
    assert {(64, 0.7), (64, 1.0), (1024, 0.1), (1024, 0.3)} <= set(map(tuple, band.get_paths()[0].vertices.tolist()))


def test_styled_axes_have_their_words_and_two_spines() -> None:
    axes = new_figure(3, 2).add_subplot()
    style_axes(axes, "title", "x label", "y label")
    assert (axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel()) == ("title", "x label", "y label")
    assert [side for side, spine in axes.spines.items() if spine.get_visible()] == ["left", "bottom"]


def test_equal_figures_are_equal_bytes() -> None:
    def picture() -> bytes:
        figure = new_figure(2, 1)
        figure.add_subplot().plot([1, 2])
        return to_png(figure)

    assert picture() == picture()
    assert picture().startswith(b"\x89PNG\r\n\x1a\n")
