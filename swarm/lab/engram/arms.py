"""The models of an evaluation: the bare one, and the same with the memory or the adapter of an arm; and what they say.

Owns how an arm comes about, null controls included, and how it is asked: greedily, freely, and what a right answer is.
Training and measuring are elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from swarm.backends.models import find_model
from swarm.errors import SwarmError
from swarm.lab.engram.config import LearnSection
from swarm.lab.facts.exact_match import ExactMatch
from ulm.engram import EngramConfig, EngramModel, add_engram
from ulm.engram.optimizer import BASE_FOLDER
from ulm.tokenizer import encode_after

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


BATCH = 32
"""Prompts that are answered at once."""


@dataclass(frozen=True, slots=True)
class Base:
    """A bare model and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, none added."""
        return list(self.tokenizer.encode(text, add_special_tokens=False))


def open_base(model: str, beside: Path, device: str) -> Base:
    """Return a model in float32, ready to be asked.

    Args:
        model: as of `find_model`.
        beside: folder of the YAML file.
        device: where it shall be.

    Raises:
        SwarmError: it was not fetched yet, or the folder holds no causal language model.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    folder = find_model(model, beside)
    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        found = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise SwarmError(f"model: {folder} holds no causal language model of transformers ({error})") from error
    found.generation_config.max_length = None
    return Base(found.to(device).eval(), tokenizer)


def untrained_arm(name: str, base: Base, learn: LearnSection, seed: int) -> nn.Module:
    """Return the model of a learned arm before its training; the base model is changed by it.

    Args:
        name: one of `LEARNED`.
        base: the bare model; it is frozen.
        learn: shapes.
        seed: of initial weights.
    """
    torch.manual_seed(seed)
    model: nn.Module = base.model
    if name.startswith("lora"):
        from peft import LoraConfig, get_peft_model

        rank = learn.lora_rank
        lora = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(base.model, lora)
    if name == "lora":
        return model
    changes: dict[str, Any] = {"rows": 1} if name == "engram_capacity_1" else {}
    return add_engram(model, learn.engram_config(seed=seed, **changes), base.tokenizer)


def learned_arm(name: str, base: Base, folder: Path) -> nn.Module:
    """Return the model of a learned arm after its training.

    Args:
        name: one of `LEARNED`.
        base: the bare model; it becomes part of what is returned.
        folder: what the training wrote.

    Raises:
        ValueError: a file is missing or damaged.
    """
    model: nn.Module = base.model
    if name.startswith("lora"):
        from peft import PeftModel

        model = PeftModel.from_pretrained(base.model, str(folder if name == "lora" else folder / BASE_FOLDER))
    if name != "lora":
        model = EngramModel.from_pretrained(model, folder, base.tokenizer)
    return model.eval()


def shuffle(model: Any, seed: int) -> None:
    """Give every used row of a learned tier what another used row of the same table held."""
    generator = torch.Generator().manual_seed(seed)
    for layer in model.adapter.tables.layers:
        weight = layer.table.weight.data
        used = weight.any(1).nonzero()[:, 0]
        order = used[torch.randperm(len(used), generator=generator).to(used.device)]
        weight[order] = weight[order.roll(1)]


def with_facts(
    base: Base, facts: Sequence[ExactMatch], *, content: bool = False, control: str = "none", seed: int = 0
) -> Any:
    """Return the base model with facts in an exact memory.

    Args:
        base: the bare model; it is left as it is but for hooks (`unload` takes them off).
        facts: what is told; the prompt is the key.
        content: whether prompts in other words are looked up too; `fit_content` must follow.
        control: `shuffled` gives each key the value of another key of the same relation, `capacity_1` keeps the last
            fact alone, `none` is no control.
        seed: of shuffling.
    """
    values = [fact.answer for fact in facts]
    if control == "shuffled":
        generator = np.random.Generator(np.random.PCG64(seed))
        for relation in dict.fromkeys(fact.about[:2] for fact in facts):
            order = generator.permutation([i for i, fact in enumerate(facts) if fact.about[:2] == relation])
            for place, other in zip(order, np.roll(order, 1), strict=True):
                values[place] = facts[other].answer
    written = [(fact.prompt, value, fact.category) for fact, value in zip(facts, values, strict=True)]
    model = add_engram(base.model, EngramConfig(content=content, conflicts="keep"), base.tokenizer)
    model.memory.write_all(written[-1:] if control == "capacity_1" else written)
    return model.eval()


def is_right(generated: str, answer: str) -> bool:
    """Return whether a generated text begins with the answer, and the answer's last word ends there."""
    rest = generated[len(answer) :]
    return generated.startswith(answer) and not (rest and rest[0].isalnum())


def marked(said: Sequence[str], records: Sequence[ExactMatch]) -> list[dict[str, Any]]:
    """Return the key (with its category), the category and whether it is right of each answer."""
    return [
        {"key": f"{r.category} {r.key}", "category": r.category, "right": is_right(text, r.answer)}
        for text, r in zip(said, records, strict=True)
    ]


@torch.inference_mode()
def replies(base: Base, model: nn.Module, asked: Sequence[ExactMatch], limit: int) -> list[str]:
    """Return what a model says after each prompt, generated greedily.

    Args:
        base: tokenizer and device.
        model: bare or with a memory.
        asked: prompts with the answers that are wanted; these decide how far is generated, nothing else.
        limit: most tokens of an answer.
    """
    rows = []
    for record in asked:
        prompt_ids, answer_ids = encode_after(base.encode, record.prompt, record.answer)
        rows.append((prompt_ids, min(limit, len(answer_ids)) + 2))
    found = [""] * len(rows)
    order = sorted(range(len(rows)), key=lambda i: (rows[i][1], len(rows[i][0])))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        for i, text in zip(
            chosen, written(base, model, [rows[i][0] for i in chosen], rows[chosen[-1]][1]), strict=True
        ):
            found[i] = text
    return found


def written(base: Base, model: Any, rows: Sequence[Sequence[int]], most: int) -> list[str]:
    """Return what a model writes after each row of ids, greedily, at most so many tokens."""
    longest, device = max(len(row) for row in rows), base.model.device
    out = model.generate(
        input_ids=torch.tensor([[0] * (longest - len(row)) + [*row] for row in rows], device=device),
        attention_mask=torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device),
        max_new_tokens=most,
        do_sample=False,
        pad_token_id=base.tokenizer.eos_token_id,
    )
    return [base.tokenizer.decode(row, skip_special_tokens=True) for row in out[:, longest:]]
