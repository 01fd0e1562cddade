"""From measurements per document and per recall sequence to `results.json`: estimates, intervals, verdicts.

Owns the shape of the results and what may be claimed: a gain counts as caused by memory only if it is there, its
interval without 0, and less than half of it left under every null control; one that random writes leave is not caused
by routing. It refuses to know how anything was measured.

bpc is bits per character and bits_per_byte bits per byte of the raw text, summed over whole held-out documents.
long_range_recall is the share of fresh pairs recalled over all distances beyond the window, with the quiet filler.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm.lab.ltm.config import POLICY
from swarm.stats import Interval, rate_interval, ratio_interval

Measured = Mapping[str, Any]
"""What `swarm.lab.ltm.evaluator.evaluate_condition` gives, conditions innermost: `documents` and `recall`."""

_BITS = 1 / math.log(2)

ROUTING = "random_writes"
"""The null control that takes away the choice of what is written, and leaves the memory."""


def lab_results(
    measured: Mapping[str, Sequence[Measured]],
    sizes: NDArray[np.int64],
    sources: Mapping[str, NDArray[np.bool_]],
    speed: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    seeds: Sequence[int],
    window: int,
    num_pairs: int,
    chance: float,
    parameters: Mapping[str, int],
) -> dict[str, Any]:
    """Return the results as JSON-able data.

    Args:
        measured: arm -> one measurement per seed.
        sizes: tokens, characters and bytes of each held-out document, (3, documents).
        sources: name -> which documents are from there.
        speed: kind (`read`, `train`) -> arm -> tokens per second, round by round, the arms in turn.
        seeds: of the trainings.
        window: STM in tokens; recall at longer distances is long-range.
        num_pairs: pairs per recall sequence.
        chance: recall without memory.
        parameters: arm -> parameters of its model.
    """
    results: dict[str, Any] = {}
    for arm, per_seed in measured.items():
        results[arm] = _arm(per_seed, sizes, sources, window, num_pairs)
        for kind, key in (("read", "tokens_per_sec"), ("train", "train_tokens_per_sec")):
            rounds = speed[kind][arm]
            results[arm][key] = float(np.median(rounds))
            results[arm]["details"][key] = {
                "estimate": results[arm][key],
                "low": float(min(rounds)),
                "high": float(max(rounds)),
                "rounds": len(rounds),
            }
        results[arm]["parameters"] = parameters[arm]
        results[arm]["n"] = {"documents": sizes.shape[1], "seeds": len(per_seed), "bytes": int(sizes[2].sum())}
        results[arm]["seeds"] = list(seeds)
    if {"baseline", "with_ltm"} <= set(measured):
        results["comparison"] = _comparison(measured, sizes, sources, speed)
        results["verdict"] = _verdict(results)
    results["chance"] = chance
    return results


def _nats(per_seed: Sequence[Measured], condition: str) -> NDArray[np.float64]:
    return np.array([measured["documents"][condition]["nats"] for measured in per_seed])


def _arm(
    per_seed: Sequence[Measured],
    sizes: NDArray[np.int64],
    sources: Mapping[str, NDArray[np.bool_]],
    window: int,
    num_pairs: int,
) -> dict[str, Any]:
    tokens, characters, size = sizes
    conditions = list(per_seed[0]["documents"])
    found: dict[str, Any] = {}
    for condition in conditions:
        bits = _nats(per_seed, condition) * _BITS
        recall = {
            filler: {
                distance: _recall([m["recall"][filler][distance][condition] for m in per_seed], num_pairs)
                for distance, scored in per_seed[0]["recall"][filler].items()
                if condition in scored
            }
            for filler in per_seed[0]["recall"]
        }
        far = [d for d in recall["quiet"] if int(d) > window]
        long_range = _pooled(per_seed, "quiet", far, condition, num_pairs) if far else None
        read = np.array([m["documents"][condition]["readings"] for m in per_seed]).sum(1)
        written = np.array([m["documents"][condition]["written"] for m in per_seed]).sum(1)
        found[condition] = {
            "bpc": _with_interval(ratio_interval(bits, characters)),
            "bits_per_byte": _with_interval(ratio_interval(bits, size)),
            "bits_per_token": _with_interval(ratio_interval(bits, tokens)),
            "bits_per_byte_by_source": {
                name: _with_interval(ratio_interval(bits[:, chosen], size[chosen])) for name, chosen in sources.items()
            },
            "bits_per_byte_by_seed": [float(x) for x in bits.sum(1) / size.sum()],
            "long_range_recall": long_range,
            "recall_by_distance": recall,
            "memory_hit_rate": float(read.mean() / tokens.sum()),
            "written_share": float(written.mean() / tokens.sum()),
            "sequences_per_distance": len(per_seed[0]["recall"]["quiet"][far[0]][condition]["recalled"]) if far else 0,
        }
    own = found.pop("none")
    arm: dict[str, Any] = {
        "bpc": own["bpc"]["estimate"],
        "long_range_recall": own["long_range_recall"]["estimate"] if own["long_range_recall"] else None,
        "memory_hit_rate": own["memory_hit_rate"],
        "details": own,
    }
    if found:
        arm["controls"] = {name: value for name, value in found.items() if not name.startswith(POLICY)}
        arm["policies"] = {k.removeprefix(POLICY): v for k, v in found.items() if k.startswith(POLICY)}
    return arm


def _recall(per_seed: Sequence[Measured], num_pairs: int) -> dict[str, Any]:
    """Return recall at one distance; a sequence is the unit that is resampled, with its pairs and under all seeds."""
    rate = _rate([one["recalled"] for one in per_seed], num_pairs)
    hits = np.array([one["hits"] for one in per_seed]).mean() / num_pairs
    written = np.array([one["written"] for one in per_seed]).mean()
    return {**_with_interval(rate), "hit_rate": float(hits), "written": float(written)}


def _pooled(
    per_seed: Sequence[Measured], filler: str, distances: Sequence[str], condition: str, num_pairs: int
) -> dict[str, float]:
    rows = [
        [count for distance in distances for count in measured["recall"][filler][distance][condition]["recalled"]]
        for measured in per_seed
    ]
    return _with_interval(_rate(rows, num_pairs))


def _rate(counts: Sequence[Sequence[int]], num_pairs: int) -> Interval:
    outcomes, clusters = [], []
    for row in counts:
        for unit, count in enumerate(row):
            outcomes += [True] * count + [False] * (num_pairs - count)
            clusters += [unit] * num_pairs
    return rate_interval(outcomes, clusters)


def _comparison(
    measured: Mapping[str, Sequence[Measured]],
    sizes: NDArray[np.int64],
    sources: Mapping[str, NDArray[np.bool_]],
    speed: Mapping[str, Mapping[str, Sequence[float]]],
) -> dict[str, Any]:
    """Return the arm with memory, and each of its controls, against the baseline: relative change of bits per byte."""
    baseline = _nats(measured["baseline"], "none") * _BITS
    size = sizes[2]
    base = float(baseline.mean(0).sum() / size.sum())
    found: dict[str, Any] = {}
    for condition in measured["with_ltm"][0]["documents"]:
        change = _nats(measured["with_ltm"], condition) * _BITS - baseline
        found["with_ltm" if condition == "none" else condition] = {
            "bits_per_byte": _with_interval(ratio_interval(change, size)),
            "relative": _with_interval(ratio_interval(change / base, size)),
            "relative_by_seed": [float(x) for x in change.sum(1) / baseline.sum(1)],
            "relative_by_source": {
                name: _with_interval(
                    ratio_interval(
                        change[:, chosen] / (baseline[:, chosen].mean(0).sum() / size[chosen].sum()), size[chosen]
                    )
                )
                for name, chosen in sources.items()
            },
        }
    for kind, rounds in speed.items():
        ratios = np.array(rounds["baseline"]) / np.array(rounds["with_ltm"])
        found[f"{kind}_time_ratio"] = {
            "estimate": float(np.median(ratios)),
            "low": float(ratios.min()),
            "high": float(ratios.max()),
            "rounds": len(ratios),
        }
    return found


def _verdict(results: Mapping[str, Any]) -> dict[str, str]:
    """Return what may be said, in words."""
    compared = results["comparison"]
    own = compared["with_ltm"]["relative"]
    controls: Mapping[str, Any] = {name: compared[name]["relative"] for name in results["with_ltm"].get("controls", {})}
    size = f"{-100 * own['estimate']:+.2f} % [{-100 * own['high']:+.2f}, {-100 * own['low']:+.2f}]"
    if own["high"] >= 0:
        compression = f"no saving in bits per byte is proven: {size}"
    else:
        # A control keeps the gain if half of it or more is left.
        kept = [name for name, value in controls.items() if value["estimate"] <= own["estimate"] / 2]
        compression = f"bits per byte saved: {size}, {_cause(controls, kept)}"
    far = results["with_ltm"]["details"]["long_range_recall"]
    base = results["baseline"]["details"]["long_range_recall"]
    if far is None or base is None:
        return {"compression": compression, "recall": "no distance beyond the window was scored"}
    controls = results["with_ltm"].get("controls", {})
    middle = (far["estimate"] + base["estimate"]) / 2
    kept = [name for name, value in controls.items() if value["long_range_recall"]["estimate"] >= middle]
    recall = f"long-range recall {far['estimate']:.3f} against {base['estimate']:.3f} without memory"
    recall += ": no gain is proven" if far["low"] <= base["high"] else f", {_cause(controls, kept)}"
    return {"compression": compression, "recall": recall}


def _cause(controls: Mapping[str, Any], kept: Sequence[str]) -> str:
    """Return what the null controls say of a gain; one keeps it if half of it or more is left."""
    if not controls:
        return "cause unknown: no null control was run"
    if memory_gone := [name for name in kept if name != ROUTING]:
        return f"but not caused by memory: it survives {', '.join(memory_gone)}"
    if not kept:
        return "less than half of it left under every null control"
    lost = ", ".join(name for name in controls if name not in kept)
    rest = f"; less than half left under {lost}, so memory may be a cause" if lost else ""
    return f"but not caused by surprisal routing: it survives {ROUTING}{rest}"


def _with_interval(interval: Interval) -> dict[str, float]:
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high}
