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
from swarm.stats import rate_interval, ratio_interval

Measured = Mapping[str, Sequence[Mapping[str, Any]]]
"""Condition -> what `swarm.lab.ltm.evaluator.evaluate_condition` gives, one per seed."""

ROUTING = "random_writes"
"""The null control that takes away the choice of what is written, and leaves the memory."""


def lab_results(
    measured: Mapping[str, Measured],
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
        measured: by arm.
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
    for arm, conditions in measured.items():
        found = {name: _condition(runs, sizes, sources, window, num_pairs) for name, runs in conditions.items()}
        own = found.pop("none")
        results[arm] = {
            "bpc": own["bpc"]["estimate"],
            "long_range_recall": own["long_range_recall"]["estimate"] if own["long_range_recall"] else None,
            "memory_hit_rate": own["memory_hit_rate"],
            "details": own,
            "parameters": parameters[arm],
            "n": {"documents": sizes.shape[1], "seeds": len(seeds), "bytes": int(sizes[2].sum())},
            "seeds": list(seeds),
        }
        for kind, key in (("read", "tokens_per_sec"), ("train", "train_tokens_per_sec")):
            own[key] = _range(np.array(speed[kind][arm]))
            results[arm][key] = own[key]["estimate"]
        if found:
            results[arm]["controls"] = {name: value for name, value in found.items() if not name.startswith(POLICY)}
            results[arm]["policies"] = {k.removeprefix(POLICY): v for k, v in found.items() if k.startswith(POLICY)}
    if {"baseline", "with_ltm"} <= set(measured):
        results["comparison"] = _comparison(measured, sizes[2], sources, speed)
        results["verdict"] = _verdict(results)
    results["chance"] = chance
    return results


def bits_of(runs: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    """Return bits of each document, (seeds, documents)."""
    return np.array([run["documents"]["nats"] for run in runs]) * (1 / math.log(2))


def _range(rounds: NDArray[np.float64]) -> dict[str, Any]:
    middle = float(np.median(rounds))
    return {"estimate": middle, "low": float(rounds.min()), "high": float(rounds.max()), "rounds": len(rounds)}


def _condition(
    runs: Sequence[Mapping[str, Any]],
    sizes: NDArray[np.int64],
    sources: Mapping[str, NDArray[np.bool_]],
    window: int,
    num_pairs: int,
) -> dict[str, Any]:
    tokens, characters, size = sizes
    bits = bits_of(runs)
    recall = {
        filler: {distance: _recall([run["recall"][filler][distance] for run in runs], num_pairs) for distance in scored}
        for filler, scored in runs[0]["recall"].items()
    }
    far = [[scores["recalled"] for d, scores in run["recall"]["quiet"].items() if int(d) > window] for run in runs]
    read, written = (np.array([run["documents"][name] for run in runs]).sum(1) for name in ("readings", "written"))
    return {
        "bpc": ratio_interval(bits, characters)._asdict(),
        "bits_per_byte": ratio_interval(bits, size)._asdict(),
        "bits_per_token": ratio_interval(bits, tokens)._asdict(),
        "bits_per_byte_by_source": {
            name: ratio_interval(bits[:, chosen], size[chosen])._asdict() for name, chosen in sources.items()
        },
        "bits_per_byte_by_seed": (bits.sum(1) / size.sum()).tolist(),
        "long_range_recall": _rate([np.concatenate(run) for run in far], num_pairs) if far[0] else None,
        "recall_by_distance": recall,
        "memory_hit_rate": float(read.mean() / tokens.sum()),
        "written_share": float(written.mean() / tokens.sum()),
        "sequences_per_distance": len(far[0][0]) if far[0] else 0,
    }


def _recall(runs: Sequence[Mapping[str, Sequence[int]]], num_pairs: int) -> dict[str, Any]:
    """Return recall at one distance; a sequence is the unit that is resampled, with its pairs and under all seeds."""
    hits, written = (float(np.mean([run[name] for run in runs])) for name in ("hits", "written"))
    return {**_rate([run["recalled"] for run in runs], num_pairs), "hit_rate": hits / num_pairs, "written": written}


def _rate(counts: Sequence[Any], num_pairs: int) -> dict[str, float]:
    """Return the share of pairs recalled; `counts` are those of each sequence, by seed."""
    recalled = np.arange(num_pairs) < np.array(counts)[..., None]
    units = np.broadcast_to(np.arange(recalled.shape[1])[:, None], recalled.shape)
    return rate_interval(recalled.ravel().tolist(), units.ravel().tolist())._asdict()


def _comparison(
    measured: Mapping[str, Measured],
    size: NDArray[np.int64],
    sources: Mapping[str, NDArray[np.bool_]],
    speed: Mapping[str, Mapping[str, Sequence[float]]],
) -> dict[str, Any]:
    """Return the arm with memory, and each of its controls, against the baseline: relative change of bits per byte."""
    baseline = bits_of(measured["baseline"]["none"])

    def relative(change: NDArray[np.float64], chosen: NDArray[np.bool_] | slice) -> dict[str, float]:
        base = baseline[:, chosen].mean(0).sum() / size[chosen].sum()
        return ratio_interval(change[:, chosen] / base, size[chosen])._asdict()

    found: dict[str, Any] = {}
    for condition, runs in measured["with_ltm"].items():
        change = bits_of(runs) - baseline
        found["with_ltm" if condition == "none" else condition] = {
            "bits_per_byte": ratio_interval(change, size)._asdict(),
            "relative": relative(change, slice(None)),
            "relative_by_seed": (change.sum(1) / baseline.sum(1)).tolist(),
            "relative_by_source": {name: relative(change, chosen) for name, chosen in sources.items()},
        }
    ratios = {kind: np.array(rounds["baseline"]) / np.array(rounds["with_ltm"]) for kind, rounds in speed.items()}
    return found | {f"{kind}_time_ratio": _range(rounds) for kind, rounds in ratios.items()}


def _verdict(results: Mapping[str, Any]) -> dict[str, str]:
    """Return what may be said, in words."""
    compared, controls = results["comparison"], results["with_ltm"].get("controls", {})
    own = compared["with_ltm"]["relative"]
    size = f"{-100 * own['estimate']:+.2f} % [{-100 * own['high']:+.2f}, {-100 * own['low']:+.2f}]"
    # A control keeps a gain if half of it or more is left.
    kept = [name for name in controls if compared[name]["relative"]["estimate"] <= own["estimate"] / 2]
    compression = f"no saving in bits per byte is proven: {size}"
    if own["high"] < 0:
        compression = f"bits per byte saved: {size}, {_cause(controls, kept)}"
    far, base = (results[arm]["details"]["long_range_recall"] for arm in ("with_ltm", "baseline"))
    if far is None or base is None:
        return {"compression": compression, "recall": "no distance beyond the window was scored"}
    middle = (far["estimate"] + base["estimate"]) / 2
    kept = [name for name, value in controls.items() if value["long_range_recall"]["estimate"] >= middle]
    recall = f"long-range recall {far['estimate']:.3f} against {base['estimate']:.3f} without memory"
    recall += ": no gain is proven" if far["low"] <= base["high"] else f", {_cause(controls, kept)}"
    return {"compression": compression, "recall": recall}


def _cause(controls: Mapping[str, Any], kept: Sequence[str]) -> str:
    """Return what the null controls say of a gain that some of them keep."""
    if not controls:
        return "cause unknown: no null control was run"
    if memory_gone := [name for name in kept if name != ROUTING]:
        return f"but not caused by memory: it survives {', '.join(memory_gone)}"
    if not kept:
        return "less than half of it left under every null control"
    lost = ", ".join(name for name in controls if name not in kept)
    rest = f"; less than half left under {lost}, so memory may be a cause" if lost else ""
    return f"but not caused by surprisal routing: it survives {ROUTING}{rest}"
