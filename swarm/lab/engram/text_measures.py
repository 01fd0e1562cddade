"""Measurements on running text: how its likelihood changes, where logits change, and where gates open.

Owns them. It refuses to know what a result means.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from swarm.errors import SwarmError
from swarm.files import path_in, read_text
from swarm.lab.engram.arms import BATCH, Base, learned_arm, replies, with_facts
from swarm.lab.engram.config import EngramEvalConfig
from swarm.lab.engram.facts import Facts
from ulm.engram import GatedEngramAdapter, without_adapters
from ulm.train.answers import AnswerCollator


def change(config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path, arm: str) -> dict[str, Any]:
    """How the likelihood of running text changes."""
    model = with_facts(base, facts.told) if arm == "exact" else learned_arm(arm, base, place / arm)
    return changed_text(config, beside, base, model)


@torch.inference_mode()
def changed_text(
    config: EngramEvalConfig, beside: Path, base: Base, model: nn.Module, gate: nn.Module | None = None
) -> dict[str, Any]:
    """Return nats per row of text with the memory and without it, and at how many positions any logit differs.

    With a gate, its mixture is taken in place of the model with the memory.
    """
    found: dict[str, Any] = {"nats": [], "nats_bare": [], "tokens": [], "positions": 0, "changed": 0}
    for row in rows_of_text(config, beside, base.tokenizer):
        ids_1T = torch.tensor(row, device=base.model.device)[None]
        with without_adapters(model):
            before_TV = model(input_ids=ids_1T, use_cache=False).logits[0]
        after_TV = (gate or model)(input_ids=ids_1T, use_cache=False).logits[0]
        for name, logits_TV in (("nats_bare", before_TV), ("nats", after_TV)):
            found[name].append(float(cross_entropy(logits_TV[:-1].double(), ids_1T[0, 1:], reduction="sum")))
        found["tokens"].append(len(row) - 1)
        found["positions"] += len(row)
        found["changed"] += int((before_TV != after_TV).any(1).sum())
    return found


def gated(config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path, arm: str) -> dict[str, Any]:
    """A gate between the bare and the trained model: what it lets through of facts, and what of running text."""
    model = learned_arm(arm, base, place / arm)
    gate = GatedEngramAdapter(model)
    collator, told = AnswerCollator(base.tokenizer), [asdict(record) for record in facts.told]
    batches = [collator(told[start : start + BATCH]) for start in range(0, len(told), BATCH)]
    for row in rows_of_text(config, beside, base.tokenizer, config.text.gate_tokens, skip=config.text.tokens):
        ids_1T = torch.tensor(row)[None]
        batches.append({"input_ids": ids_1T, "attention_mask": torch.ones_like(ids_1T), "labels": ids_1T})
    batches = [{name: x.to(base.model.device) for name, x in batch.items()} for batch in batches]
    losses = gate.fit(batches)
    with torch.inference_mode():
        return {
            "said": replies(base, gate, facts.asked, config.max_new_tokens),
            "text": changed_text(config, beside, base, model, gate),
            "lines": [
                {"title": title, "gates": gate(torch.tensor(ids, device=base.model.device)[None]).gates[0].tolist()}
                for title, ids in _shown_lines(config, beside, base, facts).items()
            ],
            "losses": losses[::20],
        }


@torch.inference_mode()
def gates(config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path) -> dict[str, Any]:
    """Gates of the learned tier on sentences that were told, on others, and on running text."""
    model: Any = learned_arm("engram", base, place / "engram")
    found = []
    for title, ids in _shown_lines(config, beside, base, facts).items():
        model(input_ids=torch.tensor(ids, device=base.model.device)[None], use_cache=False)
        gates = {str(layer): gate[0].tolist() for layer, gate in model.gates.items()}
        found.append({"title": title, "tokens": [base.tokenizer.decode([i]) for i in ids], "gates": gates})
    return {"lines": found}


def _shown_lines(config: EngramEvalConfig, beside: Path, base: Base, facts: Facts) -> dict[str, list[int]]:
    """Return the ids of lines on which gates are shown: facts that were told, one that was not, and running text."""
    told = list({record.about[:2]: record for record in facts.told}.values())[:4]
    lines = {f"told: {record.category}": record.prompt + record.answer for record in told}
    unseen = [record for record in facts.asked if record.kind == "unseen"][:1]
    lines |= {f"never told: {record.category}": record.prompt + record.answer for record in unseen}
    lines["text"] = base.tokenizer.decode(rows_of_text(config, beside, base.tokenizer)[0][-24:])
    return {title: base.encode(line) for title, line in lines.items()}


def rows_of_text(
    config: EngramEvalConfig, beside: Path, tokenizer: Any, tokens: int | None = None, skip: int = 0
) -> list[list[int]]:
    """Return rows of the text: the part that is measured, or `tokens` after the first `skip`.

    Raises:
        SwarmError: the file cannot be read, or is too short.
    """
    tokens, file = tokens or config.text.tokens, path_in(beside, config.text.file)
    text = read_text("text.file", file)[: (skip + tokens) * 16]
    ids = tokenizer.encode(text, add_special_tokens=False)[skip : skip + tokens]
    if len(ids) < tokens:
        raise SwarmError(
            f"text.file: {file} has {skip + len(ids):,} tokens, {skip + tokens:,} are needed; lower text.tokens or "
            "text.gate_tokens"
        )
    length = min(config.text.length, tokens)
    return [ids[start : start + length] for start in range(0, len(ids) - length + 1, length)]
