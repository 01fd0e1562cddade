"""Plots that a person can read: nothing runs out of the picture, no two curves look alike."""

from __future__ import annotations

import io

import pytest

from swarm.compare import plots
from swarm.compare.arms import ARMS

NAMES = ["rules", "swarm", "ulm_coordinator", "untuned", "untuned_chat", "a_rival_with_a_name"]


@pytest.mark.parametrize("names", [["swarm"], NAMES])
def test_labels_end_within_the_picture(names: list[str]) -> None:
    image = pytest.importorskip("matplotlib.image")
    curves = {name: [100 + 40 * index, 300, None] for index, name in enumerate(names)}
    pixels = image.imread(io.BytesIO(plots.plot_coverage(curves, 550, "swarm", [1.0, 0.5])))[..., :3]
    assert pixels.min() < 0.5
    assert pixels[:, -4:].min() > 0.99
    assert pixels[:, :4].min() > 0.99


def test_every_arm_has_a_style_of_its_own() -> None:
    assert set(plots._STYLES) == set(ARMS)
    assert len(set(plots._STYLES.values())) == len(ARMS)


def test_no_two_curves_look_alike() -> None:
    styles = plots._styles(NAMES)
    assert len({styles[name] for name in NAMES}) == len(NAMES)
