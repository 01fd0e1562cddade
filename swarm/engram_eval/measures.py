"""The measurements of an evaluation, each of one arm, each a task of its own.

- Answers are generated freely and greedily; one is right if the text begins with it and no letter or digit follows.
- What is measured is returned as one entry per question, so that `results` can resample.
- Owns what is measured and how. It refuses to know what a result means.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from swarm.engram_eval.arms import Base, learned_arm, open_base, shuffled, with_facts
from swarm.engram_eval.config import EngramEvalConfig
from swarm.engram_eval.facts import Facts, choose_facts, made_pairs
from swarm.errors import SwarmError
from swarm.exact_match import ExactMatch
from swarm.seeds import derive_seed
from ulm.tokenizer import encode_after

__all__ = ["answers", "edit_sets", "is_right", "measure", "unanswerable"]

BATCH = 32


def measure(what: str, settings: dict[str, Any], beside: str, folder: str, device: str) -> Any:
    """Carry out one measurement.

    Args:
        what: its name, parts divided by `:`; see `evaluation.measurements`.
        settings: fields of `EngramEvalConfig`.
        beside: folder of the evaluation's file.
        folder: of the evaluation, with the trained adapters.
        device: `cpu` or `cuda`.
    """
    config = EngramEvalConfig.model_validate(settings)
    name, *rest = what.split(":")
    base = open_base(config.model, Path(beside), device)
    facts = choose_facts(config, Path(beside))
    place = Path(folder) / "adapters"
    carry_out: Callable[..., Any] = _MEASURES[name]
    return carry_out(config, Path(beside), base, facts, place, *rest)


def is_right(generated: str, answer: str) -> bool:
    """Return whether a generated text begins with the answer, and the answer's last word ends there."""
    rest = generated[len(answer) :]
    return generated.startswith(answer) and not (rest and rest[0].isalnum())


@torch.inference_mode()
def answers(base: Base, model: nn.Module, questions: Sequence[tuple[str, str]], limit: int) -> list[str]:
    """Return what a model says after each prompt, generated greedily.

    Args:
        base: tokenizer and device.
        model: bare or with a memory.
        questions: prompts with the answers that are wanted; they decide how far is generated, nothing else.
        limit: most tokens of an answer.
    """
    tokenizer = base.tokenizer
    encode = partial(tokenizer.encode, add_special_tokens=False)
    rows = []
    for prompt, answer in questions:
        prompt_ids, answer_ids = encode_after(encode, prompt, answer)
        rows.append((prompt_ids, min(limit, len(answer_ids)) + 2))
    found = [""] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: (rows[i][1], len(rows[i][0])))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        ids_BT, mask_BT = _padded([rows[i][0] for i in chosen], base)
        out = model.generate(  # type: ignore[operator]
            input_ids=ids_BT,
            attention_mask=mask_BT,
            max_new_tokens=max(rows[i][1] for i in chosen),
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
        for i, row in zip(chosen, out[:, ids_BT.shape[1] :], strict=True):
            found[i] = tokenizer.decode(row, skip_special_tokens=True)
    return found


def _padded(rows: Sequence[Sequence[int]], base: Base) -> tuple[Tensor, Tensor]:
    """Return ids and mask, padded on the left, (B, T)."""
    longest = max(len(row) for row in rows)
    ids_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    mask_BT = torch.zeros(len(rows), longest, dtype=torch.long)
    for b, row in enumerate(rows):
        ids_BT[b, longest - len(row) :] = torch.tensor(row)
        mask_BT[b, longest - len(row) :] = 1
    return ids_BT.to(base.model.device), mask_BT.to(base.model.device)


def _asked(base: Base, model: nn.Module, records: Sequence[ExactMatch], limit: int) -> list[str]:
    return answers(base, model, [(record.prompt, record.answer) for record in records], limit)


def _hybrid(base: Base, facts: Facts, told: Sequence[ExactMatch], control: str, seed: int, abstain: float) -> Any:
    """Return the base model with exact and content tier, fitted on paraphrases of the validation split."""
    model = with_facts(base, told, content=True, control=control, seed=seed)
    _fit(model, [*facts.told, *facts.fitting], facts, abstain)
    return model


def _fit(model: Any, records: Sequence[ExactMatch], facts: Facts, abstain: float) -> None:
    topics = [(record.category, record.relation) for record in records]
    model.fit_content(
        [record.prompt for record in records],
        [(record.category, record.relation, record.key) for record in records],
        [record.prompt for record in facts.sets["valid"] if record.kind == "unseen"],
        abstain,
        topics=topics if len(set(topics)) > 1 else None,
    )


def _ask(
    config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path, arm: str, control: str
) -> dict[str, Any]:
    """What an arm says to every question."""
    model: Any = base.model
    seed = derive_seed(config.seed, "shuffled")
    if arm == "exact":
        model = with_facts(base, facts.told, control=control, seed=seed)
    elif arm == "hybrid":
        model = _hybrid(base, facts, facts.told, control, seed, config.edits.abstain)
    elif arm != "base":
        trained = f"{arm}_capacity_1" if control == "capacity_1" else arm
        model = learned_arm(trained, base, place / trained)
        if control == "shuffled":
            model = shuffled(model, seed)
    return {"said": _asked(base, model, facts.asked, config.max_new_tokens)}


def _pairs(
    config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path, count: str, control: str
) -> dict[str, Any]:
    """Random pairs written one by one to a file and asked for; what else changes after that."""
    import tempfile

    from ulm.hf import EngramConfig, add_engram

    pairs = made_pairs(int(count), derive_seed(config.seed, "pairs"))
    generator = np.random.Generator(np.random.PCG64(derive_seed(config.seed, "asked pairs")))
    values = [pair.answer for pair in pairs]
    if control == "shuffled":
        values = values[1:] + values[:1]
    asked = [pairs[i] for i in sorted(generator.permutation(len(pairs))[: config.pairs.asked])]
    if control != "none":
        asked = asked[: config.pairs.asked_of_controls]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "facts.sqlite"
        model = add_engram(base.model, EngramConfig(), base.tokenizer, facts=file)
        seconds = []
        written = list(zip(pairs, values, strict=True))
        for pair, value in written[-1:] if control == "capacity_1" else written:
            started = time.perf_counter()
            model.memory.write(pair.prompt, value, "pairs")
            seconds.append(time.perf_counter() - started)
        said = _asked(base, model, asked, config.max_new_tokens)
        found: dict[str, Any] = {
            "right": [is_right(text, pair.answer) for text, pair in zip(said, asked, strict=True)],
            "write_ms": [round(float(np.percentile(seconds, q)) * 1e3, 3) for q in (50, 95, 100)],
            "write_ms_mean": float(np.mean(seconds)) * 1e3,
            "bytes": sum(path.stat().st_size for path in Path(folder).iterdir()),
        }
        if control == "none" and int(count) == max(config.pairs.counts):
            found |= _changed_text(config, beside, base, model)
            found["asked_elsewhere"] = _asked(base, model, facts.asked, config.max_new_tokens)
        model.memory.close()
    return found


def _change(config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path, arm: str) -> dict[str, Any]:
    """How the likelihood of running text changes."""
    model = with_facts(base, facts.told) if arm == "exact" else learned_arm(arm, base, place / arm)
    return _changed_text(config, beside, base, model)


@torch.inference_mode()
def _changed_text(
    config: EngramEvalConfig, beside: Path, base: Base, model: nn.Module, gate: nn.Module | None = None
) -> dict[str, Any]:
    """Return nats per row of text with the memory and without it, and at how many positions any logit differs.

    With a gate, its mixture is taken in place of the model with the memory.
    """
    rows = _rows_of_text(config, beside, base)
    found: dict[str, Any] = {"nats": [], "nats_bare": [], "tokens": [], "positions": 0, "changed": 0}
    for row in rows:
        ids_1T = torch.tensor(row, device=base.model.device)[None]
        with _bare(model):
            before_TV = model(input_ids=ids_1T, use_cache=False).logits[0]
        after_TV = (gate or model)(input_ids=ids_1T, use_cache=False).logits[0]
        for name, logits_TV in (("nats_bare", before_TV), ("nats", after_TV)):
            loss = nn.functional.cross_entropy(logits_TV[:-1].double(), ids_1T[0, 1:], reduction="sum")
            found[name].append(float(loss))
        found["tokens"].append(len(row) - 1)
        found["positions"] += len(row)
        found["changed"] += int((before_TV != after_TV).any(1).sum())
    return found


def _bare(model: Any) -> Any:
    """Return a context in which neither an Engram nor LoRA is active."""
    import contextlib

    stack = contextlib.ExitStack()
    stack.enter_context(model.disable_adapter())
    inner: Any = getattr(model, "base_model", None)
    if hasattr(inner, "peft_config") and hasattr(inner, "disable_adapter"):
        stack.enter_context(inner.disable_adapter())
    return stack


def _gated(config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path, arm: str) -> dict[str, Any]:
    """A gate between the bare and the trained model: what it lets through of facts, and what of running text."""
    from ulm.hf import AnswerCollator, GatedEngramAdapter

    model = learned_arm(arm, base, place / arm)
    gate = GatedEngramAdapter(model)
    collator, told = AnswerCollator(base.tokenizer), [asdict(record) for record in facts.told]
    batches = [collator(told[start : start + BATCH]) for start in range(0, len(told), BATCH)]
    for row in _rows_of_text(config, beside, base, config.text.gate_tokens, skip=config.text.tokens):
        ids_1T = torch.tensor(row)[None]
        batches.append({"input_ids": ids_1T, "attention_mask": torch.ones_like(ids_1T), "labels": ids_1T})
    batches = [{name: x.to(base.model.device) for name, x in batch.items()} for batch in batches]
    losses = gate.fit(batches, steps=20 * len(batches))
    with torch.inference_mode():
        said = _asked(base, gate, facts.asked, config.max_new_tokens)
        text = _changed_text(config, beside, base, model, gate)
        lines = []
        for title, line in _shown_lines(config, beside, base, facts).items():
            ids = base.tokenizer.encode(line, add_special_tokens=False)
            gates = gate(torch.tensor(ids, device=base.model.device)[None]).gates[0].tolist()
            lines.append({"title": title, "gates": gates})
    return {"said": said, "text": text, "lines": lines, "losses": losses[:: len(batches)]}


def _rows_of_text(
    config: EngramEvalConfig, beside: Path, base: Base, tokens: int | None = None, skip: int = 0
) -> list[list[int]]:
    """Return rows of the text: the part that is measured, or `tokens` after the first `skip`."""
    tokens = tokens or config.text.tokens
    file = beside / config.text.file
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SwarmError(f"text.file: cannot read {file} ({error})") from error
    ids = base.tokenizer.encode(text[: (skip + tokens) * 16], add_special_tokens=False)[skip : skip + tokens]
    length = min(config.text.length, tokens)
    return [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]


def _edits(config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path, arm: str) -> dict[str, Any]:
    """Facts written one after the other, then asked for in the same and other words; what else has changed."""
    edits, practice, elsewhere, paraphrases = edit_sets(config, facts)
    model = with_facts(base, [], content=arm == "hybrid")
    seconds = []
    for edit in edits:
        started = time.perf_counter()
        model.memory.write(edit.prompt, edit.answer, edit.category)
        seconds.append(time.perf_counter() - started)
    if arm == "hybrid":
        _fit(model, practice, facts, config.edits.abstain)
    limit = config.max_new_tokens
    with model.disable_adapter():
        bare = _asked(base, model, elsewhere, limit)
    said = _asked(base, model, elsewhere, limit)
    return {
        "reliable": _right(_asked(base, model, edits, limit), edits),
        "general": _right(_asked(base, model, paraphrases, limit), paraphrases),
        "local": [a == b for a, b in zip(bare, said, strict=True)],
        "write_ms": float(np.median(seconds)) * 1e3,
        "fitted_on": len(practice),
    }


def edit_sets(
    config: EngramEvalConfig, facts: Facts
) -> tuple[list[ExactMatch], list[ExactMatch], list[ExactMatch], list[ExactMatch]]:
    """Return edits, what the content tier learns from, questions about something else, and paraphrases of edits.

    Raises:
        SwarmError: there are not enough facts.
    """
    sets = {split: [r for r in records if r.relation] for split, records in facts.sets.items()}
    generator = np.random.Generator(np.random.PCG64(derive_seed(config.seed, "edits")))
    keys = sorted({(record.category, record.key) for record in sets["train"]})
    order = generator.permutation(len(keys))
    held = {keys[i] for i in order[: round(config.edits.fit_share * len(keys))]}
    open_ = [record for record in sets["train"] if (record.category, record.key) not in held]
    if len(open_) < config.edits.count:
        raise SwarmError(
            f"edits.count: {config.edits.count}, but there are {len(open_)} facts; raise the counts in {config.facts}, "
            f"or lower edits.fit_share"
        )
    edits = [open_[i] for i in generator.permutation(len(open_))[: config.edits.count]]
    chosen = {(record.category, record.relation, record.key) for record in edits}
    paraphrases: dict[tuple[str, str, str], list[ExactMatch]] = {}
    for record in sets["test"]:
        name = (record.category, record.relation, record.key)
        if record.kind == "paraphrase" and name in chosen:
            paraphrases.setdefault(name, []).append(record)
    one_each = [found[int(generator.integers(len(found)))] for _, found in sorted(paraphrases.items())]
    practice = [
        record
        for split in ("train", "valid")
        for record in sets[split]
        if (record.category, record.key) in held and record.kind in ("told", "paraphrase")
    ]
    neighbours = [record for record in sets["train"] if (record.category, record.key) in held]
    elsewhere = [record for record in sets["test"] if record.kind == "unseen"] + neighbours
    return edits, practice, elsewhere, one_each


def _right(said: Sequence[str], records: Sequence[ExactMatch]) -> dict[str, list[bool]]:
    found: dict[str, list[bool]] = {}
    for text, record in zip(said, records, strict=True):
        found.setdefault(record.category, []).append(is_right(text, record.answer))
    return found


def unanswerable(config: EngramEvalConfig, beside: Path) -> dict[str, list[str]]:
    """Return questions that no stored answer fits: those that calibrate, and those that are asked.

    Raises:
        SwarmError: the file is missing or does not hold them.
    """
    if config.faq is None:
        raise AssertionError("only called where there is a faq")
    file = beside / config.faq.unanswerable
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        lists = {name: data[getattr(config.faq, name)] for name in ("calibrate", "asked")}
        return {name: [q if isinstance(q, str) else str(q[0]) for q in found] for name, found in lists.items()}
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise SwarmError(f"faq.unanswerable: cannot read the questions in {file} ({error!r})") from error


def _faq(config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path) -> dict[str, Any]:
    """Questions in people's own words, and questions that nothing answers."""
    if config.faq is None:
        raise AssertionError("only measured where there is a faq")
    template = next(r for r in facts.sets["train"] if r.category == config.faq.category)
    strange = {
        name: [template.prompt.replace(template.question, question) for question in found]
        for name, found in unanswerable(config, beside).items()
    }
    told = list({r.prompt: r for r in facts.sets["train"] if r.category == config.faq.category}.values())
    asked = [record for record in facts.sets["test"] if record.category == config.faq.category]
    generator = np.random.Generator(np.random.PCG64(derive_seed(config.seed, "faq")))
    asked = [asked[i] for i in sorted(generator.permutation(len(asked))[: config.faq.questions])]
    model = with_facts(base, told, content=True)
    model.fit_content(
        [record.prompt for record in told], [record.answer for record in told], strange["calibrate"], config.faq.abstain
    )
    started = time.perf_counter()
    said = _asked(base, model, asked, config.max_new_tokens)
    seconds = time.perf_counter() - started
    meant = model.meant([record.prompt for record in asked])
    # The null control: each stored question has another one's answer, and the same question is found.
    order = generator.permutation(len(told))
    other = {told[i].prompt: told[j].answer for i, j in zip(order, np.roll(order, 1), strict=True)}
    return {
        "right": [is_right(text, record.answer) for text, record in zip(said, asked, strict=True)],
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
    section, tokenizer = config.distraction, base.tokenizer
    encode = partial(tokenizer.encode, add_special_tokens=False)
    text = [i for row in _rows_of_text(config, beside, base) for i in row]
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
        filler = text[start : start + int(distance)]
        told = [] if arm == "engram_told" else encode(f"{record.prompt}{record.answer}.\n")
        line = [*told, *filler, *encode(f"\n{record.prompt}")]
        if arm in ("exact", "window", "engram"):
            line = line[-section.window :]
        if arm == "exact":
            model = with_facts(base, [record])
        ids_1T = torch.tensor(line, device=base.model.device)[None]
        _, answer = encode_after(encode, record.prompt, record.answer)
        out = model.generate(
            input_ids=ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            max_new_tokens=len(answer) + 2,
            do_sample=False,
            pad_token_id=tokenizer.eos_token_id,
        )
        right.append(is_right(tokenizer.decode(out[0, ids_1T.shape[1] :], skip_special_tokens=True), record.answer))
        if arm == "exact":
            model.unload()
    return {"right": right}


@torch.inference_mode()
def _gates(config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path) -> dict[str, Any]:
    """Gates of the learned tier on sentences that were told, on others, and on running text."""
    model: Any = learned_arm("engram", base, place / "engram")
    found = []
    for title, line in _shown_lines(config, beside, base, facts).items():
        ids = base.tokenizer.encode(line, add_special_tokens=False)
        model(input_ids=torch.tensor(ids, device=base.model.device)[None], use_cache=False)
        gates = {str(layer): gate[0].tolist() for layer, gate in model.gates.items()}
        found.append({"title": title, "tokens": [base.tokenizer.decode([i]) for i in ids], "gates": gates})
    return {"lines": found}


def _shown_lines(config: EngramEvalConfig, beside: Path, base: Base, facts: Facts) -> dict[str, str]:
    """Return lines on which gates are shown: facts that were told, one that was not, and running text."""
    lines = {}
    by_relation = {(record.category, record.relation): record for record in facts.told}
    for record in list(by_relation.values())[:4]:
        lines[f"told: {record.category}"] = record.prompt + record.answer
    unseen = next((record for record in facts.asked if record.kind == "unseen"), None)
    if unseen is not None:
        lines[f"never told: {unseen.category}"] = unseen.prompt + unseen.answer
    lines["text"] = base.tokenizer.decode(_rows_of_text(config, beside, base)[0][-24:])
    return lines


@torch.inference_mode()
def _speed(config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path) -> dict[str, Any]:
    """Milliseconds per generated token at batch 1, the arms taking turns, and per prompt where one is looked up."""
    pairs = made_pairs(max(config.pairs.counts), derive_seed(config.seed, "pairs"))

    def fresh() -> Base:
        return open_base(config.model, beside, str(base.model.device))

    models: dict[str, Any] = {"base": base.model, "exact": with_facts(fresh(), pairs)}
    if config.learn.categories:
        models |= {arm: learned_arm(arm, fresh(), place / arm) for arm in ("engram", "lora", "lora_engram")}
    ids_1T = torch.tensor([_rows_of_text(config, beside, base)[0][:64]], device=base.model.device)
    found: dict[str, list[float]] = {arm: [] for arm in models}
    for turn in range(config.speed_turns + 1):
        for arm, model in models.items():
            started = time.perf_counter()
            model.generate(
                input_ids=ids_1T,
                attention_mask=torch.ones_like(ids_1T),
                max_new_tokens=config.speed_tokens,
                min_new_tokens=config.speed_tokens,
                do_sample=False,
                pad_token_id=base.tokenizer.eos_token_id,
            )
            if turn:  # the first warms up
                found[arm].append((time.perf_counter() - started) * 1e3 / config.speed_tokens)
    return {"ms_per_token": found}


_MEASURES: dict[str, Callable[..., Any]] = {
    "ask": _ask,
    "pairs": _pairs,
    "change": _change,
    "edits": _edits,
    "faq": _faq,
    "distraction": _distraction,
    "gated": _gated,
    "gates": _gates,
    "speed": _speed,
}
