"""From measurements to results: rates with intervals per category and kind, differences, and whether targets are met.

- A key is the unit that is resampled: all questions about it enter or leave a resample together.
- Owns what is compared with what. It refuses to know models and files.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from swarm.lab.engram.asking import is_right
from swarm.lab.engram.config import EngramEvalConfig
from swarm.lab.engram.facts import Facts
from swarm.lab.facts.exact_match import ExactMatch
from swarm.stats import Interval, paired_difference, rate_interval

KINDS = ("same", "paraphrase", "unseen")

Measured = Mapping[str, Any]


def engram_results(
    config: EngramEvalConfig, facts: Facts, measured: Measured, trained: Mapping[str, Any]
) -> dict[str, Any]:
    """Return everything that `results.json` holds.

    Args:
        config: the evaluation.
        facts: what was told and asked.
        measured: by the names of `evaluation.measurements`.
        trained: by learned arm, how its training went.
    """
    results: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "told": len(facts.told),
        "asked": len(facts.asked),
        "training": dict(trained),
        "arms": {},
    }
    right: dict[str, list[bool]] = {}
    for what, found in measured.items():
        if what.startswith("ask:"):
            _, arm, control = what.split(":")
            name = arm if control == "none" else f"{arm}, {control}"
            right[name] = [is_right(said, asked.answer) for said, asked in zip(found["said"], facts.asked, strict=True)]
            results["arms"][name] = _rates(right[name], facts.asked)
        elif what.startswith("gated:"):
            name = f"{what.split(':')[1]}, gated"
            right[name] = [is_right(said, asked.answer) for said, asked in zip(found["said"], facts.asked, strict=True)]
            results["arms"][name] = _rates(right[name], facts.asked)
    if "engram" in right:
        results["engram_minus_lora"] = _differences(right["engram"], right["lora"], facts.asked)
        results["engram_minus_base"] = _differences(right["engram"], right["base"], facts.asked)
    results["pairs"] = _pairs(config, facts, measured)
    results["edits"] = {
        arm: _edits([found for what, found in measured.items() if what.startswith(f"edits:{arm}:")])
        for arm in ("exact", "hybrid")
    }
    results["text"] = {
        what.split(":")[1]: _text(found) for what, found in measured.items() if what.startswith("change:")
    }
    for what, found in measured.items():
        if what.startswith("gated:"):
            results["text"][f"{what.split(':')[1]}, gated"] = _text(found["text"])
    if "faq" in measured:
        found = measured["faq"]
        results["faq"] = {
            **{name: _interval(found[name]) for name in ("right", "right_shuffled", "answered", "abstained")},
            **{name: found[name] for name in ("stored", "ms_per_question")},
        }
    results["distraction"] = {}
    for what, found in measured.items():
        if what.startswith("distraction:"):
            _, arm, distance = what.split(":")
            results["distraction"].setdefault(arm, {})[distance] = _interval(found["right"])
    if "speed" in measured:
        results["speed"] = _times(measured["speed"]["ms_per_token"])
        results["cost"] = {
            "rows": _times(measured["cost"]["rows"]),
            "lengths": {length: _times(times) for length, times in measured["cost"]["lengths"].items()},
            "rows_of_lengths": measured["cost"]["rows_of_lengths"],
        }
    if "gates" in measured:
        results["gates"] = measured["gates"]["lines"]
        for line, mixed in zip(results["gates"], measured["gated:engram"]["lines"], strict=True):
            line["mixture"] = mixed["gates"]
    return results


def _rates(right: Sequence[bool], asked: Sequence[ExactMatch]) -> dict[str, Any]:
    """Return rates per kind: of all, and by category."""
    found: dict[str, Any] = {}
    for kind in KINDS:
        chosen = [i for i, record in enumerate(asked) if record.kind == kind]
        if not chosen:
            continue
        by_category: dict[str, list[int]] = {}
        for i in chosen:
            by_category.setdefault(asked[i].category, []).append(i)
        found[kind] = {
            "all": _interval([right[i] for i in chosen], [_key(asked[i]) for i in chosen]),
            "by_category": {
                category: _interval([right[i] for i in places], [_key(asked[i]) for i in places])
                for category, places in by_category.items()
            },
        }
    return found


def _differences(a: Sequence[bool], b: Sequence[bool], asked: Sequence[ExactMatch]) -> dict[str, Any]:
    """Return paired differences in the words that were told, per category."""
    found = {}
    for category in sorted({record.category for record in asked}):
        chosen = [i for i, record in enumerate(asked) if record.category == category and record.kind == "same"]
        keys = [_key(asked[i]) for i in chosen]
        found[category] = _shown(paired_difference([a[i] for i in chosen], [b[i] for i in chosen], keys), len(chosen))
    return found


def _key(record: ExactMatch) -> str:
    return f"{record.category} {record.key}"


def _pairs(config: EngramEvalConfig, facts: Facts, measured: Measured) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for count in config.pairs.counts:
        one = measured[f"pairs:{count}:none"]
        found[str(count)] = {
            "right": _interval(one["right"]),
            "write_ms_median_p95_max": one["write_ms"],
            "write_ms_mean": one["write_ms_mean"],
            "bytes": one["bytes"],
            "controls": {
                control: _interval(measured[f"pairs:{count}:{control}"]["right"])
                for control in ("shuffled", "capacity_1")
                if f"pairs:{count}:{control}" in measured
            },
        }
        if "asked_elsewhere" in one:
            found[str(count)]["text"] = _text(one)
            bare = measured.get("ask:base:none")
            if bare is not None:
                same = [a == b for a, b in zip(bare["said"], one["asked_elsewhere"], strict=True)]
                others = {record.category for record in facts.asked} - {"pairs"}  # made alike, so a key may be the same
                for title, of in (("other_answers_unchanged", others), ("capitals_unchanged", {"capitals"})):
                    chosen = [x for x, record in zip(same, facts.asked, strict=True) if record.category in of]
                    if chosen:
                        found[str(count)][title] = _interval(chosen)
    return found


def _edits(draws: Sequence[Measured]) -> dict[str, Any]:
    """Return the editing metrics over all draws."""
    entries = {name: [x for draw in draws for x in draw[name]] for name in ("reliable", "general", "local")}
    return {
        **{name: _over_keys(found) for name, found in entries.items()},
        "local_by_draw": [_over_keys(draw["local"])["estimate"] for draw in draws],
        "general_by_category": _by_category(entries["general"]),
        "not_local": [entry for entry in entries["local"] if not entry["right"]],
        "write_ms": float(np.median([draw["write_ms"] for draw in draws])),
        "fitted_on": [draw["fitted_on"] for draw in draws],
    }


def _text(found: Measured) -> dict[str, Any]:
    """Return the relative change of perplexity with its interval over rows, and how many logits rows are the same."""
    tokens = np.array(found["tokens"], dtype=float)
    bare, with_memory = (np.array(found[name]) for name in ("nats_bare", "nats"))
    generator = np.random.Generator(np.random.PCG64(0))
    drawn = generator.integers(0, len(tokens), (10_000, len(tokens)))
    change = (with_memory - bare)[drawn].sum(1) / tokens[drawn].sum(1)
    low, high = np.expm1(np.quantile(change, [0.025, 0.975]))
    return {
        "perplexity_bare": float(np.exp(bare.sum() / tokens.sum())),
        "perplexity": float(np.exp(with_memory.sum() / tokens.sum())),
        "change": {
            "estimate": float(np.expm1((with_memory - bare).sum() / tokens.sum())),
            "low": float(low),
            "high": float(high),
            "n": len(tokens),
        },
        "positions": found["positions"],
        "positions_changed": found["changed"],
    }


def _times(times: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return the median time of each arm, and its share of the base model's with the middle half of the turns."""
    base = np.array(times["base"])
    found = {}
    for arm, values in times.items():
        low, middle, high = np.quantile(np.array(values) / base, [0.25, 0.5, 0.75])
        found[arm] = {"ms": float(np.median(values)), "of_base": float(middle), "low": float(low), "high": float(high)}
    return found


def _over_keys(entries: Sequence[Measured]) -> dict[str, Any]:
    return _interval([entry["right"] for entry in entries], [entry["key"] for entry in entries])


def _by_category(entries: Sequence[Measured]) -> dict[str, Any]:
    categories = sorted({entry["category"] for entry in entries})
    return {name: _over_keys([entry for entry in entries if entry["category"] == name]) for name in categories}


def _interval(values: Sequence[bool], keys: Sequence[str] | None = None) -> dict[str, Any]:
    return _shown(rate_interval(list(values), keys), len(values))


def _shown(interval: Interval, n: int) -> dict[str, Any]:
    return {"estimate": interval.estimate, "low": interval.low, "high": interval.high, "n": n}


def summary(results: Mapping[str, Any]) -> list[str]:
    """Return the results as lines of text."""
    lines = []
    if results["arms"]:
        categories = list(results["arms"]["base"]["same"]["by_category"])
        lines.append(
            f"exact match, free-running, {results['told']} facts told; by category in the words that were told"
        )
        header = f"{'arm':22}" + "".join(f"{kind:>23}" for kind in KINDS)
        lines.append(header + "  " + " ".join(f"{category[:9]:>9}" for category in categories))
        for arm, rates in results["arms"].items():
            line = f"{arm:22}" + "".join(
                f"{_text_of(rates[kind]['all']):>23}" if kind in rates else " " * 23 for kind in KINDS
            )
            by = rates["same"]["by_category"]
            lines.append(line + "  " + " ".join(f"{by[category]['estimate']:9.3f}" for category in categories))
        for title, name in (("Engram minus LoRA", "engram_minus_lora"), ("Engram minus base", "engram_minus_base")):
            if name in results:
                parts = [f"{category} {_text_of(found, '+.3f')}" for category, found in results[name].items()]
                lines.append(f"{title}, as told: " + " · ".join(parts))
    for count, found in results["pairs"].items():
        controls = ", ".join(f"{name} {_text_of(x)}" for name, x in found["controls"].items())
        lines.append(
            f"{int(count):,} pairs: {_text_of(found['right'])} of {found['right']['n']:,} asked"
            + (f" ({controls})" if controls else "")
            + f"; a write takes {found['write_ms_median_p95_max'][0]:.2f} ms (median), "
            + f"{found['write_ms_mean']:.2f} (mean)"
        )
        if "text" in found:
            text = found["text"]
            lines.append(
                f"    text: perplexity {text['perplexity_bare']:.4f} -> {text['perplexity']:.4f}, "
                f"{text['positions_changed']} of {text['positions']:,} positions changed"
                + "".join(
                    f"; {title} {_text_of(found[name])} of {found[name]['n']}"
                    for title, name in (
                        ("answers to other questions unchanged", "other_answers_unchanged"),
                        ("to capitals", "capitals_unchanged"),
                    )
                    if name in found
                )
            )
    for arm, found in results["edits"].items():
        lines.append(
            f"edits, {arm}: reliability {_text_of(found['reliable'])}, generalisation {_text_of(found['general'])}, "
            f"locality {_text_of(found['local'])}; n {found['reliable']['n']}, {found['general']['n']}, "
            f"{found['local']['n']}"
        )
        by = ", ".join(f"{name} {x['estimate']:.2f}" for name, x in found["general_by_category"].items())
        lines.append(f"    generalisation by category: {by}")
    for arm, found in results["text"].items():
        change = found["change"]
        lines.append(
            f"text, {arm}: perplexity {found['perplexity_bare']:.3f} -> {found['perplexity']:.3f} "
            f"({change['estimate']:+.2%} [{change['low']:+.2%}, {change['high']:+.2%}])"
        )
    if "faq" in results:
        faq = results["faq"]
        lines.append(
            f"faq: {_text_of(faq['right'])} of {faq['right']['n']:,} paraphrased questions right, "
            f"{_text_of(faq['abstained'])} of {faq['abstained']['n']:,} unanswerable ones left; answers shuffled "
            f"{_text_of(faq['right_shuffled'])}; {faq['stored']:,} stored, {faq['ms_per_question']:.0f} ms per question"
        )
    for arm, by_distance in results["distraction"].items():
        rates = ", ".join(f"{distance}: {_text_of(x)}" for distance, x in by_distance.items())
        lines.append(f"distraction, {arm}: {rates}")
    if "speed" in results:
        times = ", ".join(f"{arm} {x['ms']:.1f} ms ({x['of_base']:.3f}x)" for arm, x in results["speed"].items())
        lines.append(f"per token at batch 1: {times}")
        rows = ", ".join(f"{int(n):,}: {x['of_base']:.3f}x" for n, x in results["cost"]["rows"].items() if n != "base")
        lines.append(f"by rows of each table: {rows}")
        for length, found in results["cost"]["lengths"].items():
            shares = ", ".join(f"{arm} {x['ms']:.1f} ms ({x['of_base']:.3f}x)" for arm, x in found.items())
            lines.append(f"after {int(length):,} tokens: {shares}")
    return lines


def _text_of(found: Mapping[str, Any], form: str = ".3f") -> str:
    return f"{found['estimate']:{form}} [{found['low']:{form}}, {found['high']:{form}}]"
