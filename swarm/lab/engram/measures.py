"""Measurements of what is recalled, each of one arm, each a task of its own.

- What is measured is returned as one entry per question, so that `results` can resample.
- Owns what is measured and how, and which measurement a name stands for. It refuses to know what a result means.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from swarm.lab.engram.arms import Base, is_right, learned_arm, marked, open_base, replies, shuffle, with_facts, written
from swarm.lab.engram.config import EngramEvalConfig
from swarm.lab.engram.cost_measures import cost, speed
from swarm.lab.engram.facts import Facts, choose_facts, edit_sets, made_pairs, unanswerable
from swarm.lab.engram.text_measures import change, changed_text, gated, gates, rows_of_text
from swarm.lab.facts.exact_match import ExactMatch
from swarm.seeds import derive_seed
from ulm.engram import EngramConfig, add_engram
from ulm.tokenizer import encode_after


def measure(what: str, config: EngramEvalConfig, beside: Path, folder: Path, device: str) -> Any:
    """Carry out one measurement.

    Args:
        what: its name, parts divided by `:`; see `evaluation.measurements`.
        config: the evaluation.
        beside: folder of its file.
        folder: of the evaluation, with the trained adapters.
        device: `cpu` or `cuda`.
    """
    name, *rest = what.split(":")
    base, facts = open_base(config.model, beside, device), choose_facts(config, beside)
    return _MEASURES[name](config, beside, base, facts, folder / "adapters", *rest)


def _ask(
    config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path, arm: str, control: str
) -> dict[str, Any]:
    """What an arm says to every question."""
    model: Any = base.model
    seed = derive_seed(config.seed, "shuffled")
    if arm in ("exact", "hybrid"):
        model = with_facts(base, facts.told, content=arm == "hybrid", control=control, seed=seed)
        if arm == "hybrid":
            _fit(model, [*facts.told, *facts.fitting], facts, config.edits.abstain)
    elif arm != "base":
        trained = f"{arm}_capacity_1" if control == "capacity_1" else arm
        model = learned_arm(trained, base, place / trained)
        if control == "shuffled":
            shuffle(model, seed)
    return {"said": replies(base, model, facts.asked, config.max_new_tokens)}


def _fit(model: Any, records: Sequence[ExactMatch], facts: Facts, abstain: float) -> None:
    """Let the content tier learn from records what paraphrases are, and from unseen keys when to abstain."""
    topics = [record.about[:2] for record in records]
    model.fit_content(
        [record.prompt for record in records],
        [record.about for record in records],
        [record.prompt for record in facts.sets["valid"] if record.kind == "unseen"],
        abstain,
        topics=topics if len(set(topics)) > 1 else None,
    )


def _write(model: Any, facts: Sequence[tuple[str, str, str]]) -> list[float]:
    """Write prompts, answers and categories one by one; return the milliseconds of each."""
    times = [time.perf_counter()]
    for fact in facts:
        model.memory.write(*fact)
        times.append(time.perf_counter())
    return (np.diff(times) * 1e3).tolist()  # type: ignore[no-any-return]


def _pairs(
    config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path, count: str, control: str
) -> dict[str, Any]:
    """Random pairs written one by one to a file and asked for; what else changes after that."""
    pairs = made_pairs(int(count), derive_seed(config.seed, "pairs"))
    generator = np.random.Generator(np.random.PCG64(derive_seed(config.seed, "asked pairs")))
    others = pairs[1:] + pairs[:1] if control == "shuffled" else pairs
    asked = [pairs[i] for i in sorted(generator.permutation(len(pairs))[: config.pairs.asked])]
    if control != "none":
        asked = asked[: config.pairs.asked_of_controls]
    with tempfile.TemporaryDirectory() as folder:
        model = add_engram(base.model, EngramConfig(), base.tokenizer, facts=Path(folder) / "facts.sqlite")
        told = [(pair.prompt, other.answer, "pairs") for pair, other in zip(pairs, others, strict=True)]
        write_ms = _write(model, told[-1:] if control == "capacity_1" else told)
        found: dict[str, Any] = {
            "right": [entry["right"] for entry in marked(replies(base, model, asked, config.max_new_tokens), asked)],
            "write_ms": [round(float(np.percentile(write_ms, q)), 3) for q in (50, 95, 100)],
            "write_ms_mean": float(np.mean(write_ms)),
            "bytes": sum(path.stat().st_size for path in Path(folder).iterdir()),
        }
        if control == "none" and int(count) == max(config.pairs.counts):
            found |= changed_text(config, beside, base, model)
            found["asked_elsewhere"] = replies(base, model, facts.asked, config.max_new_tokens)
        model.memory.close()
    return found


def _edits(
    config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path, arm: str, draw: str
) -> dict[str, Any]:
    """Facts written one after the other, then asked for in the same and other words; what else has changed."""
    edits, practice, elsewhere, paraphrases = edit_sets(config, facts, int(draw))
    model = with_facts(base, [], content=arm == "hybrid")
    write_ms = _write(model, [(edit.prompt, edit.answer, edit.category) for edit in edits])
    if arm == "hybrid":
        _fit(model, practice, facts, config.edits.abstain)
    limit = config.max_new_tokens
    with model.disable_adapter():
        bare = replies(base, model, elsewhere, limit)
    said = replies(base, model, elsewhere, limit)
    return {
        "reliable": marked(replies(base, model, edits, limit), edits),
        "general": marked(replies(base, model, paraphrases, limit), paraphrases),
        "local": [
            {"key": f"{r.category} {r.key}", "category": r.category, "right": a == b, "prompt": r.prompt, "said": b}
            for r, a, b in zip(elsewhere, bare, said, strict=True)
        ],
        "write_ms": float(np.median(write_ms)),
        "fitted_on": len(practice),
    }


def _faq(config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path) -> dict[str, Any]:
    """Questions in people's own words, and questions that nothing answers."""
    faq: Any = config.faq
    template = next(r for r in facts.sets["train"] if r.category == faq.category)
    strange = {
        name: [template.prompt.replace(template.question, question) for question in found]
        for name, found in unanswerable(faq, beside).items()
    }
    told = list({r.prompt: r for r in facts.sets["train"] if r.category == faq.category}.values())
    asked = [record for record in facts.sets["test"] if record.category == faq.category]
    generator = np.random.Generator(np.random.PCG64(derive_seed(config.seed, "faq")))
    asked = [asked[i] for i in sorted(generator.permutation(len(asked))[: faq.questions])]
    model = with_facts(base, told, content=True)
    model.fit_content(
        [record.prompt for record in told], [record.answer for record in told], strange["calibrate"], faq.abstain
    )
    started = time.perf_counter()
    said = replies(base, model, asked, config.max_new_tokens)
    seconds = time.perf_counter() - started
    meant = model.meant([record.prompt for record in asked])
    # The null control: each stored question has another one's answer, and the same question is found.
    order = generator.permutation(len(told))
    other = {told[i].prompt: told[j].answer for i, j in zip(order, np.roll(order, 1), strict=True)}
    return {
        "right": [entry["right"] for entry in marked(said, asked)],
        "right_shuffled": [
            fact is not None and other[fact.key] == record.answer
            for (fact, _), record in zip(meant, asked, strict=True)
        ],
        "answered": [fact is not None for fact, _ in meant],
        "abstained": [fact is None for fact, _ in model.meant(strange["asked"])],
        "stored": len(told),
        "ms_per_question": seconds * 1e3 / len(asked),
    }


def _distraction(
    config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path, arm: str, distance: str
) -> dict[str, Any]:
    """A fact, text about something else, then the question; `said` and `right` per sequence."""
    section = config.distraction
    text = [i for row in rows_of_text(config, beside, base.tokenizer) for i in row]
    generator = np.random.Generator(np.random.PCG64(derive_seed(config.seed, "distraction", distance)))
    if arm == "engram_told":
        records = [facts.told[i] for i in generator.permutation(len(facts.told))[: section.sequences]]
    else:
        records = made_pairs(section.sequences, derive_seed(config.seed, "fresh pairs", distance))
    model: Any = base.model
    if arm.startswith("engram"):
        model = learned_arm("engram", base, place / "engram")
    right = []
    for record in records:
        start = int(generator.integers(max(1, len(text) - int(distance))))
        told = [] if arm == "engram_told" else base.encode(f"{record.prompt}{record.answer}.\n")
        line = [*told, *text[start : start + int(distance)], *base.encode(f"\n{record.prompt}")]
        if arm in ("exact", "window", "engram"):
            line = line[-section.window :]
        if arm == "exact":
            model = with_facts(base, [record])
        _, answer = encode_after(base.encode, record.prompt, record.answer)
        right.append(is_right(written(base, model, [line], len(answer) + 2)[0], record.answer))
        if arm == "exact":
            model.unload()
    return {"right": right}


_MEASURES: dict[str, Callable[..., Any]] = {
    "ask": _ask,
    "pairs": _pairs,
    "change": change,
    "edits": _edits,
    "faq": _faq,
    "distraction": _distraction,
    "gated": gated,
    "gates": gates,
    "speed": speed,
    "cost": cost,
}
