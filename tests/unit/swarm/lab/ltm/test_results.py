"""What a lab may claim of its measurements, and what its figure shows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from swarm.lab.ltm.plots import plot_results
from swarm.lab.ltm.results import lab_results
from swarm.lab.ltm.stages import summary

pytestmark = pytest.mark.thorough

CONTROLS = ("shuffled_values", "no_reads")
WINDOW, PAIRS = 128, 4
DOCUMENTS = 60
SIZES = np.random.default_rng(1).integers(50, 500, DOCUMENTS)
TEXT_SIZES = np.array([SIZES // 4, SIZES, SIZES])
FIRST_HALF = np.arange(DOCUMENTS) < DOCUMENTS // 2
SOURCES = {"stories": FIRST_HALF, "books": ~FIRST_HALF}
SPEED: dict[str, dict[str, list[float]]] = {
    "read": {"baseline": [200.0, 220.0, 210.0], "with_ltm": [100.0, 100.0, 105.0]},
    "train": {"baseline": [60.0, 60.0, 60.0], "with_ltm": [20.0, 30.0, 40.0]},
}


def measured(bits: dict[str, float], recall: dict[str, float], seed: int, written: int = 3) -> dict[str, Any]:
    """Return condition -> what its evaluation gives: bits per byte over the corpus, and the share of pairs recalled."""
    hard = np.random.default_rng(0).normal(0, 0.3, DOCUMENTS)  # the same documents are hard for everybody
    generator = np.random.default_rng(seed)
    documents = {}
    for name, level in bits.items():
        rate = level + hard + generator.normal(0, 0.01, DOCUMENTS)
        documents[name] = {
            "nats": (rate * SIZES * np.log(2)).tolist(),
            "written": [written] * DOCUMENTS,
            "readings": [2 * written] * DOCUMENTS,
        }

    def scored(share: float) -> dict[str, list[int]]:
        return {"recalled": generator.binomial(PAIRS, share, 40).tolist(), "hits": [1] * 40, "written": [5] * 40}

    near, far, further = ({n: scored(max(share, nearby)) for n, share in recall.items()} for nearby in (1.0, 0.0, 0.0))
    return {
        name: {
            "documents": documents[name],
            "recall": {
                "quiet": {"64": near[name], "256": far[name], "1024": further[name]},
                "text": {"64": near[name]} if name == "none" else {},
            },
        }
        for name in recall
    }


def by_condition(*runs: dict[str, Any]) -> dict[str, list[Any]]:
    """Return condition -> measurements, one per seed."""
    return {name: [run[name] for run in runs] for name in runs[0]}


def results(
    bits: float = -0.1,
    recall: float = 0.9,
    controls: dict[str, tuple[float, float]] | None = None,
    sizes: np.ndarray = TEXT_SIZES,
    sources: dict[str, np.ndarray] = SOURCES,
) -> dict[str, Any]:
    """Return results of three seeds: a change in bits per byte and recall of the arm with memory, and of controls."""
    controls = dict.fromkeys(CONTROLS, (0.0, 0.05)) if controls is None else controls
    changes = {"none": (bits, recall), **controls}
    arms = {
        "baseline": by_condition(*(measured({"none": 2.0}, {"none": 0.05}, seed, 0) for seed in (1, 2, 3))),
        "with_ltm": by_condition(
            *(
                measured(
                    {n: 2.0 + c for n, (c, _) in changes.items()}, {n: r for n, (_, r) in changes.items()}, 10 + seed
                )
                for seed in (1, 2, 3)
            )
        ),
    }
    return lab_results(
        arms,
        sizes,
        sources,
        SPEED,
        seeds=(1, 2, 3),
        window=WINDOW,
        num_pairs=PAIRS,
        chance=0.01,
        parameters={"baseline": 1000, "with_ltm": 1001},
    )


def test_a_gain_that_every_control_loses_is_said_to_be_that_of_memory() -> None:
    verdict = results()["verdict"]
    assert verdict["compression"].startswith("bits per byte saved: +")
    assert verdict["compression"].endswith(", less than half of it left under every null control")
    assert verdict["recall"].startswith("long-range recall 0.9")
    assert verdict["recall"].endswith("without memory, less than half of it left under every null control")


def test_a_gain_that_a_control_keeps_is_not_said_to_be_caused_by_memory() -> None:
    verdict = results(controls={"shuffled_values": (-0.08, 0.8), "no_reads": (0.0, 0.05)})["verdict"]
    assert verdict["compression"].endswith("but not caused by memory: it survives shuffled_values")
    assert verdict["recall"].endswith("but not caused by memory: it survives shuffled_values")


def test_a_gain_that_random_writes_keep_is_that_of_memory_but_not_of_its_routing() -> None:
    controls = {"random_writes": (-0.08, 0.8), "no_reads": (0.0, 0.05)}
    verdict = results(controls=controls)["verdict"]
    words = "not caused by surprisal routing: it survives random_writes"
    words += "; less than half left under no_reads, so memory may be a cause"
    assert verdict["compression"].endswith(words)
    assert verdict["recall"].endswith(words)
    both = {**controls, "shuffled_values": (-0.08, 0.8)}
    assert results(controls=both)["verdict"]["recall"].endswith("not caused by memory: it survives shuffled_values")
    alone = results(controls={"random_writes": (-0.08, 0.8)})["verdict"]["recall"]
    assert alone.endswith("but not caused by surprisal routing: it survives random_writes")


@pytest.mark.parametrize(("kept", "survives"), [(-0.02, False), (-0.08, True)])
def test_a_control_keeps_a_gain_if_it_keeps_half_of_it(kept: float, survives: bool) -> None:
    verdict = results(controls={"no_reads": (kept, 0.05)})["verdict"]
    assert ("it survives no_reads" in verdict["compression"]) == survives


def test_without_a_control_the_cause_of_a_gain_is_unknown() -> None:
    verdict = results(controls={})["verdict"]
    assert verdict["compression"].endswith("cause unknown: no null control was run")
    assert verdict["recall"].endswith("cause unknown: no null control was run")


@pytest.mark.parametrize("bits", [0.0, 0.1])
def test_no_saving_is_claimed_where_the_interval_holds_zero_or_more(bits: float) -> None:
    verdict = results(bits=bits, recall=0.05)["verdict"]
    assert verdict["compression"].startswith("no saving in bits per byte is proven: ")
    assert verdict["recall"].endswith("without memory: no gain is proven")


def test_other_write_rules_are_no_controls() -> None:
    found = results(controls={"policy:by_use": (-0.1, 0.9), "no_reads": (0.0, 0.05)})
    assert found["verdict"]["compression"].endswith("less than half of it left under every null control")
    assert list(found["with_ltm"]["controls"]) == ["no_reads"]
    assert list(found["with_ltm"]["policies"]) == ["by_use"]


def test_intervals_hold_the_truth_and_pairing_makes_them_narrow() -> None:
    found = results()
    change = found["comparison"]["with_ltm"]["bits_per_byte"]
    assert change["low"] < change["estimate"] < change["high"]
    assert change["low"] <= -0.1 <= change["high"]
    relative = found["comparison"]["with_ltm"]["relative"]
    base = found["baseline"]["details"]["bits_per_byte"]
    assert relative["estimate"] == pytest.approx(change["estimate"] / base["estimate"])
    assert len(found["comparison"]["with_ltm"]["relative_by_seed"]) == 3
    assert change["high"] - change["low"] < (base["high"] - base["low"]) / 5  # hard documents are hard for both
    assert set(found["comparison"]["no_reads"]["relative_by_source"]) == set(SOURCES)


def test_bits_per_byte_of_a_source_are_those_of_its_documents() -> None:
    details = results()["baseline"]["details"]
    by_source = details["bits_per_byte_by_source"]
    parts = [by_source[name]["estimate"] * SIZES[chosen].sum() for name, chosen in SOURCES.items()]
    assert sum(parts) / SIZES.sum() == pytest.approx(details["bits_per_byte"]["estimate"])
    assert by_source["stories"]["estimate"] != by_source["books"]["estimate"]
    assert np.mean(details["bits_per_byte_by_seed"]) == pytest.approx(details["bits_per_byte"]["estimate"])


def test_characters_and_bytes_are_told_apart() -> None:
    ascii_only = results()["baseline"]["details"]
    assert ascii_only["bpc"] == ascii_only["bits_per_byte"]
    accents = results(sizes=np.array([SIZES // 4, SIZES // 2, SIZES]))["baseline"]
    assert accents["details"]["bits_per_byte"] == ascii_only["bits_per_byte"]
    ratio = SIZES.sum() / (SIZES // 2).sum()
    assert accents["bpc"] == pytest.approx(ascii_only["bits_per_byte"]["estimate"] * ratio)
    assert accents["details"]["bits_per_token"]["estimate"] > 3 * accents["details"]["bits_per_byte"]["estimate"]


def test_long_range_recall_is_of_the_distances_beyond_the_window_alone() -> None:
    found = results()["baseline"]
    by_distance = found["details"]["recall_by_distance"]["quiet"]
    assert by_distance["64"]["estimate"] == 1.0
    far = (by_distance["256"]["estimate"] + by_distance["1024"]["estimate"]) / 2
    assert found["long_range_recall"] == pytest.approx(far)
    assert found["long_range_recall"] < 0.2
    assert found["details"]["sequences_per_distance"] == 40


def test_without_distances_beyond_the_window_nothing_is_said_of_recall() -> None:
    arms = {arm: by_condition(measured({"none": 2.0}, {"none": 0.5}, 1)) for arm in ("baseline", "with_ltm")}
    for conditions in arms.values():
        for distance in ("256", "1024"):
            del conditions["none"][0]["recall"]["quiet"][distance]
    found = lab_results(
        arms, TEXT_SIZES, SOURCES, SPEED,
        seeds=(1,), window=WINDOW, num_pairs=PAIRS, chance=0.01, parameters=dict.fromkeys(arms, 1),
    )  # fmt: skip
    assert found["with_ltm"]["long_range_recall"] is None
    assert found["verdict"]["recall"] == "no distance beyond the window was scored"
    assert "no recall scored" in summary(found)[0]
    assert not plot_results(found, WINDOW).axes[1].patches


def test_the_baseline_alone_is_compared_with_nothing() -> None:
    found = lab_results(
        {"baseline": by_condition(measured({"none": 2.0}, {"none": 0.05}, 1))}, TEXT_SIZES, SOURCES, SPEED,
        seeds=(1,), window=WINDOW, num_pairs=PAIRS, chance=0.01, parameters={"baseline": 1},
    )  # fmt: skip
    assert "verdict" not in found
    assert "comparison" not in found
    assert len(summary(found)) == 1
    assert labels(plot_results(found, WINDOW).axes[3]) == ["without memory"]


def test_speed_is_a_ratio_round_by_round() -> None:
    found = results()
    assert found["baseline"]["tokens_per_sec"] == 210.0
    assert found["with_ltm"]["train_tokens_per_sec"] == 30.0
    assert found["baseline"]["details"]["tokens_per_sec"]["rounds"] == len(SPEED["read"]["baseline"])
    assert found["baseline"]["details"]["tokens_per_sec"]["low"] == min(SPEED["read"]["baseline"])
    assert found["comparison"]["read_time_ratio"] == {"estimate": 2.0, "low": 2.0, "high": 2.2, "rounds": 3}
    assert found["comparison"]["train_time_ratio"] == {"estimate": 2.0, "low": 1.5, "high": 3.0, "rounds": 3}


def test_hits_and_writes_are_shares_of_all_tokens() -> None:
    found = results()["with_ltm"]
    tokens = (SIZES // 4).sum()
    assert found["memory_hit_rate"] == pytest.approx(6 * DOCUMENTS / tokens)
    assert found["details"]["written_share"] == pytest.approx(3 * DOCUMENTS / tokens)
    assert found["n"] == {"documents": DOCUMENTS, "seeds": 3, "bytes": int(SIZES.sum())}


def test_results_are_plain_json() -> None:
    found = results()
    assert json.loads(json.dumps(found)) == found


def labels(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


def test_figure_has_a_bar_for_each_arm_and_a_line_for_each_control() -> None:
    found = results()
    found["meta"] = {"hit_rate_over_training": {"1": [(10, 0.1), (20, 0.3)], "2": [(10, 0.2), (20, 0.4)]}}
    bits, recall, speed, distance, hits = plot_results(json.loads(json.dumps(found)), WINDOW).axes
    for axes, measure in ((bits, "bpc"), (recall, "long_range_recall"), (speed, "tokens_per_sec")):
        values = [found[arm]["details"][measure]["estimate"] for arm in ("baseline", "with_ltm")]
        assert [bar.get_height() for bar in axes.patches] == values
        assert [label.get_text() for label in axes.get_xticklabels()] == ["without memory", "with LTM"]
    assert recall.get_title("left") == f"Recall beyond the window of {WINDOW}"
    assert labels(distance) == [
        "without memory",
        "with LTM",
        "with LTM, text as filler",
        "values shuffled",
        "reads disabled",
    ]
    line = distance.get_lines()[1]
    by_distance = found["with_ltm"]["details"]["recall_by_distance"]["quiet"]
    assert line.get_xdata().tolist() == [64, 256, 1024]
    assert line.get_ydata().tolist() == [by_distance[d]["estimate"] for d in ("64", "256", "1024")]
    assert distance.get_lines()[-1].get_xdata() == [WINDOW, WINDOW]
    assert labels(hits) == ["seed 1", "seed 2"]
    assert hits.get_lines()[1].get_ydata().tolist() == [0.2, 0.4]
