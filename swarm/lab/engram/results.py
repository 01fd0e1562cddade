"""From measurements to results: rates with intervals per category and kind, differences, and whether targets are met.

- A key is the unit that is resampled: all questions about it enter or leave a resample together.
- Owns what is compared with what. It refuses to know models and files.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from swarm.lab.engram.arms import marked
from swarm.lab.engram.config import EngramEvalConfig
from swarm.lab.engram.facts import Facts
from swarm.lab.facts.exact_match import ExactMatch
from swarm.lab.measurements import shown
from swarm.stats import paired_difference, rate_interval

KINDS = ("same", "paraphrase", "unseen")
UNCHANGED = {"other_answers_unchanged": "answers to other questions unchanged", "capitals_unchanged": "to capitals"}

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

    def of(kind: str) -> Iterator[tuple[list[str], Any]]:
        """Yield the measurements of a kind, each with the rest of its name."""
        return ((what.split(":")[1:], found) for what, found in measured.items() if what.split(":")[0] == kind)

    said = {arm if control == "none" else f"{arm}, {control}": found["said"] for (arm, control), found in of("ask")}
    said |= {f"{arm}, gated": found["said"] for (arm,), found in of("gated")}
    answers = {name: marked(texts, facts.asked) for name, texts in said.items()}
    distraction: dict[str, dict[str, Any]] = {}
    for (arm, distance), found in of("distraction"):
        distraction.setdefault(arm, {})[distance] = _interval(found["right"])
    results: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "told": len(facts.told),
        "asked": len(facts.asked),
        "training": dict(trained),
        "arms": {name: _rates(entries, facts.asked) for name, entries in answers.items()},
        "pairs": _pairs(config, facts, measured),
        "edits": {
            arm: _edits([found for (of_arm, _), found in of("edits") if of_arm == arm]) for arm in ("exact", "hybrid")
        },
        "text": {arm: _text(found) for (arm,), found in of("change")}
        | {f"{arm}, gated": _text(found["text"]) for (arm,), found in of("gated")},
        "distraction": distraction,
    }
    if "engram" in answers:
        for other in ("lora", "base"):
            results[f"engram_minus_{other}"] = _differences(answers["engram"], answers[other], facts.asked)
        results["gates"] = [
            {**line, "mixture": mixed["gates"]}
            for line, mixed in zip(measured["gates"]["lines"], measured["gated:engram"]["lines"], strict=True)
        ]
    if "faq" in measured:
        faq = measured["faq"]
        rates = {name: _interval(faq[name]) for name in ("right", "right_shuffled", "answered", "abstained")}
        results["faq"] = rates | {name: faq[name] for name in ("stored", "ms_per_question")}
    if "speed" in measured:
        cost = measured["cost"]
        results["speed"] = _times(measured["speed"]["ms_per_token"])
        results["cost"] = {
            "rows": _times(cost["rows"]),
            "lengths": {length: _times(times) for length, times in cost["lengths"].items()},
            "rows_of_lengths": cost["rows_of_lengths"],
        }
    return results


def _rates(entries: Sequence[Measured], asked: Sequence[ExactMatch]) -> dict[str, Any]:
    """Return rates per kind: of all, and by category."""
    by_kind = {kind: [x for x, record in zip(entries, asked, strict=True) if record.kind == kind] for kind in KINDS}
    return {
        kind: {"all": _over_keys(found), "by_category": _by_category(found)} for kind, found in by_kind.items() if found
    }


def _differences(a: Sequence[Measured], b: Sequence[Measured], asked: Sequence[ExactMatch]) -> dict[str, Any]:
    """Return paired differences in the words that were told, per category."""
    found = {}
    same = [(x, y) for x, y, record in zip(a, b, asked, strict=True) if record.kind == "same"]
    for category in sorted({record.category for record in asked}):
        chosen = [(x, y) for x, y in same if x["category"] == category]
        interval = paired_difference(
            [x["right"] for x, _ in chosen], [y["right"] for _, y in chosen], [x["key"] for x, _ in chosen]
        )
        found[category] = {**interval._asdict(), "n": len(chosen)}
    return found


def _pairs(config: EngramEvalConfig, facts: Facts, measured: Measured) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for count in config.pairs.counts:
        one = measured[f"pairs:{count}:none"]
        controls = {name: measured.get(f"pairs:{count}:{name}") for name in ("shuffled", "capacity_1")}
        found[str(count)] = {
            "right": _interval(one["right"]),
            "write_ms_median_p95_max": one["write_ms"],
            "write_ms_mean": one["write_ms_mean"],
            "bytes": one["bytes"],
            "controls": {name: _interval(control["right"]) for name, control in controls.items() if control},
        }
        if "asked_elsewhere" in one:
            found[str(count)]["text"] = _text(one)
        if "asked_elsewhere" in one and (bare := measured.get("ask:base:none")):
            same = [a == b for a, b in zip(bare["said"], one["asked_elsewhere"], strict=True)]
            others = {record.category for record in facts.asked} - {"pairs"}  # made alike, so a key may be the same
            for title, of in (("other_answers_unchanged", others), ("capitals_unchanged", {"capitals"})):
                if chosen := [x for x, record in zip(same, facts.asked, strict=True) if record.category in of]:
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
    return {
        category: _over_keys([entry for entry in entries if entry["category"] == category])
        for category in sorted({entry["category"] for entry in entries})
    }


def _interval(values: Sequence[bool], keys: Sequence[str] | None = None) -> dict[str, Any]:
    return {**rate_interval(values, keys)._asdict(), "n": len(values)}


def summary(results: Mapping[str, Any]) -> list[str]:
    """Return the results as lines of text."""
    lines = []
    if arms := results["arms"]:
        categories = list(arms["base"]["same"]["by_category"])
        lines += [
            f"exact match, free-running, {results['told']} facts told; by category in the words that were told",
            f"{'arm':22}{''.join(f'{kind:>23}' for kind in KINDS)}  {' '.join(f'{c[:9]:>9}' for c in categories)}",
        ]
        for arm, rates in arms.items():
            kinds = "".join(f"{shown(rates[kind]['all']) if kind in rates else '':>23}" for kind in KINDS)
            by = " ".join(f"{rates['same']['by_category'][category]['estimate']:9.3f}" for category in categories)
            lines.append(f"{arm:22}{kinds}  {by}")
        for title, name in (("Engram minus LoRA", "engram_minus_lora"), ("Engram minus base", "engram_minus_base")):
            parts = [f"{category} {shown(found, '+.3f')}" for category, found in results[name].items()]
            lines.append(f"{title}, as told: {' · '.join(parts)}")
    for count, found in results["pairs"].items():
        controls = ", ".join(f"{name} {shown(x)}" for name, x in found["controls"].items())
        lines.append(
            f"{int(count):,} pairs: {shown(found['right'])} of {found['right']['n']:,} asked"
            + (f" ({controls})" if controls else "")
            + f"; a write takes {found['write_ms_median_p95_max'][0]:.2f} ms (median), "
            + f"{found['write_ms_mean']:.2f} (mean)"
        )
        if text := found.get("text"):
            lines.append(
                f"    text: perplexity {text['perplexity_bare']:.4f} -> {text['perplexity']:.4f}, "
                f"{text['positions_changed']} of {text['positions']:,} positions changed"
                + "".join(
                    f"; {title} {shown(found[name])} of {found[name]['n']}"
                    for name, title in UNCHANGED.items()
                    if name in found
                )
            )
    for arm, found in results["edits"].items():
        lines += [
            f"edits, {arm}: reliability {shown(found['reliable'])}, generalisation {shown(found['general'])}, "
            f"locality {shown(found['local'])}; n {found['reliable']['n']}, {found['general']['n']}, "
            f"{found['local']['n']}",
            "    generalisation by category: "
            + ", ".join(f"{name} {x['estimate']:.2f}" for name, x in found["general_by_category"].items()),
        ]
    for arm, found in results["text"].items():
        lines.append(
            f"text, {arm}: perplexity {found['perplexity_bare']:.3f} -> {found['perplexity']:.3f} "
            f"({shown(found['change'], '+.2%')})"
        )
    if faq := results.get("faq"):
        lines.append(
            f"faq: {shown(faq['right'])} of {faq['right']['n']:,} paraphrased questions right, "
            f"{shown(faq['abstained'])} of {faq['abstained']['n']:,} unanswerable ones left; answers shuffled "
            f"{shown(faq['right_shuffled'])}; {faq['stored']:,} stored, {faq['ms_per_question']:.0f} ms per question"
        )
    for arm, rates in results["distraction"].items():
        lines.append(f"distraction, {arm}: {', '.join(f'{distance}: {shown(x)}' for distance, x in rates.items())}")
    if cost := results.get("cost"):
        rows = ", ".join(f"{int(n):,}: {x['of_base']:.3f}x" for n, x in cost["rows"].items() if n != "base")
        lines += [f"per token at batch 1: {_shares(results['speed'])}", f"by rows of each table: {rows}"]
        lines += [f"after {int(length):,} tokens: {_shares(found)}" for length, found in cost["lengths"].items()]
    return lines


def _shares(times: Mapping[str, Any]) -> str:
    return ", ".join(f"{arm} {x['ms']:.1f} ms ({x['of_base']:.3f}x)" for arm, x in times.items())
