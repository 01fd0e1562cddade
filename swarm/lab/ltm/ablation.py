"""What each way of learning comes to beside the first one: the table of a lab with `arms`.

Everything is paired: arms read the same documents, passages and sequences, which are resampled with what all of them
made of them, under every seed. Relative changes are of sums.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swarm.lab.ltm.config import POLICY
from swarm.lab.ltm.results import Measured, bits_of
from swarm.lab.measurements import shown
from swarm.stats import Interval, rate_interval, ratio_interval

Table = dict[str, Any]


def ablation(measured: Mapping[str, Measured], size: NDArray[np.int64], num_pairs: int) -> dict[str, Table]:
    """Return by arm what it measured, and its difference from the first arm.

    Args:
        measured: arm -> condition -> one measurement per seed.
        size: bytes of each held-out document.
        num_pairs: pairs of a recall sequence.
    """
    first = next(iter(measured))
    return {
        arm: _arm(runs, None if arm == first else measured[first], size, num_pairs) for arm, runs in measured.items()
    }


def _arm(conditions: Measured, first: Measured | None, size: NDArray[np.int64], num_pairs: int) -> Table:
    own = conditions["none"]
    found: Table = {
        "bits_per_byte": _relative(bits_of(own), bits_of((first or conditions)["none"]), size),
        "recall_through_text": _recall(own, "text", num_pairs),
        "recall_through_filler": _recall(own, "quiet", num_pairs),
        **_comprehension(own),
    }
    if first is not None:
        found |= {f"{name}_gain": gain for name, gain in _gains(own, first["none"]).items()}
    found["memory"] = {
        name.removeprefix(POLICY): {
            "bits_per_byte": _relative(bits_of(runs), bits_of(own), size),
            "recall_through_text": _recall(runs, "text", num_pairs),
            **({"consolidations": runs[0]["consolidations"]} if "consolidations" in runs[0] else {}),
        }
        for name, runs in conditions.items()
        if name != "none"
    }
    return found


def _relative(bits: NDArray[np.float64], base: NDArray[np.float64], size: NDArray[np.int64]) -> Table:
    """Return bits per byte, and how much more they are than those of the base, relative to it."""
    change = ratio_interval((bits - base) / (base.mean(0).sum() / size.sum()), size)
    return {"estimate": float(bits.mean(0).sum() / size.sum()), "relative": change._asdict()}


def _recall(runs: Sequence[Mapping[str, Any]], filler: str, num_pairs: int) -> dict[str, float]:
    """Return the share of pairs recalled by distance."""
    return {
        distance: float(np.mean([run["recall"][filler][distance]["recalled"] for run in runs]) / num_pairs)
        for distance in runs[0]["recall"][filler]
    }


def _comprehension(runs: Sequence[Mapping[str, Any]]) -> Table:
    told = [run.get("comprehension") or {} for run in runs]
    if not told[0]:
        return {}
    nats = {name: np.array([one[name] for one in told]) for name in told[0] if name.startswith("span_")}
    sizes = nats.pop("span_sizes").mean(0)

    def against(name: str, other: str) -> dict[str, float]:
        base = nats[other].mean(0).sum() / sizes.sum()
        return ratio_interval((nats[name] - nats[other]) / base, sizes)._asdict()

    rates = [name for name in told[0] if not name.startswith("span_") and told[0][name]]
    return {
        "span_bits_per_byte": {n: float(x.mean(0).sum() / sizes.sum() / np.log(2)) for n, x in nats.items()},
        "both_sides_against_prefix": against("span_both", "span_prefix"),
        "shuffled_side_against_prefix": against("span_shuffled", "span_prefix"),
        "far_sides_against_shuffled": against("span_far", "span_far_shuffled"),
        **{name: {**_rate(told, name)._asdict(), "n": len(told[0][name])} for name in rates},
    }


def _rate(told: Sequence[Mapping[str, Any]], name: str) -> Interval:
    right = np.array([one[name] for one in told])
    items = np.broadcast_to(np.arange(right.shape[1]), right.shape)
    return rate_interval(right.ravel().tolist(), items.ravel().tolist())


def _gains(runs: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return differences of rates from the first arm; filled words are compared with its reranked ones."""
    ours, theirs = ([run.get("comprehension") or {} for run in some] for some in (runs, base))
    if not ours[0]:
        return {}
    pairs = {name: name for name in ours[0] if not name.startswith("span_")} | {"cloze_filled": "cloze_rerank"}
    found = {}
    for name, other in ((name, other) for name, other in pairs.items() if ours[0][name]):
        change = np.array([one[name] for one in ours], float) - np.array([one[other] for one in theirs], float)
        found[name] = ratio_interval(change, np.ones(change.shape[1]))._asdict()
    return found


def ablation_lines(table: Mapping[str, Table]) -> list[str]:
    """Return the table as lines of text."""
    lines = []
    for arm, one in table.items():
        bits = one["bits_per_byte"]
        lines.append(
            f"{arm}: {bits['estimate']:.4f} bits per byte, {shown(bits['relative'], '+.2%')} of the first arm's"
        )
        for what, recall in (("text", one["recall_through_text"]), ("filler", one["recall_through_filler"])):
            told = "  ".join(f"{distance}: {rate:.3f}" for distance, rate in recall.items())
            lines.append(f"    recall through {what:6}  {told}")
        lines += [
            f"    {name.replace('_', ' ')}: {shown(one[name], '+.2%')}"
            for name in ("both_sides_against_prefix", "shuffled_side_against_prefix", "far_sides_against_shuffled")
            if name in one
        ]
        for name in ("cloze_rerank", "cloze_filled", "cloze_shuffled", "order_1", "order_4", "next"):
            if name in one:
                gain = f"  {shown(one[f'{name}_gain'], '+.3f')}" if f"{name}_gain" in one else ""
                lines.append(f"    {name.replace('_', ' '):14} {shown(one[name])} n = {one[name]['n']}{gain}")
        for name, memory in one["memory"].items():
            bits = memory["bits_per_byte"]
            slept = memory.get("consolidations")
            lines.append(
                f"    memory {name:22} {bits['estimate']:.4f} {shown(bits['relative'], '+.2%')}"
                + "".join(f"  {d}: {rate:.3f}" for d, rate in memory["recall_through_text"].items())
                + (f"  {slept['accepted']:,} of {slept['all']:,} merged, {slept['bytes']:,} bytes" if slept else "")
            )
    return lines
