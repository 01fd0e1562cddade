"""The models of an evaluation: the bare one, and the same with the memory or the adapter of an arm.

Owns how an arm comes about, null controls included. It refuses to train and to measure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from swarm.errors import SwarmError
from swarm.lab.engram.config import LearnSection
from swarm.lab.facts.exact_match import ExactMatch
from ulm.engram.tables import EngramConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Base:
    """A bare model and its tokenizer."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


def open_base(model: str, beside: Path, device: str) -> Base:
    """Return a model in float32, ready to be asked.

    Args:
        model: a name of `swarm models list`, or a folder, relative to `beside` if it is not absolute.
        beside: folder of the YAML file.
        device: where it shall be.

    Raises:
        SwarmError: it was not fetched yet, or the folder holds no causal language model.
    """
    folder = model_folder(model, beside)
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        found = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32)
    except (OSError, ValueError, KeyError) as error:
        raise SwarmError(f"model: {folder} holds no causal language model of transformers ({error})") from error
    found.generation_config.max_length = None
    return Base(found.to(device).eval(), tokenizer)


def model_folder(model: str, beside: Path) -> Path:
    """Return the folder of a model; arguments and errors as of `open_base`."""
    from ulm.hf.pretrained import KNOWN, fetched

    if model in KNOWN:
        if (folder := fetched(model)) is None:
            raise SwarmError(f"model {model} is not here yet; run: swarm models fetch {model}")
        return folder
    if (beside / model / "config.json").is_file():
        return beside / model
    raise SwarmError(f"model: no {beside / model / 'config.json'}; give a folder, or one of: {', '.join(KNOWN)}")


def untrained_arm(name: str, base: Base, learn: LearnSection, seed: int) -> nn.Module:
    """Return the model of a learned arm before its training; the base model is changed by it.

    Args:
        name: one of `LEARNED`.
        base: the bare model; it is frozen.
        learn: shapes.
        seed: of initial weights.
    """
    from ulm.engram import add_engram

    torch.manual_seed(seed)
    model: nn.Module = base.model
    if name.startswith("lora"):
        from peft import LoraConfig, get_peft_model

        lora = LoraConfig(
            r=learn.lora_rank, lora_alpha=2 * learn.lora_rank, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        model = get_peft_model(base.model, lora)
    if name == "lora":
        return model
    changes: dict[str, Any] = {"seed": seed} | ({"rows": 1} if name == "engram_capacity_1" else {})
    return add_engram(model, learn.engram_config(**changes), base.tokenizer)


def learned_arm(name: str, base: Base, folder: Path) -> nn.Module:
    """Return the model of a learned arm after its training.

    Args:
        name: one of `LEARNED`.
        base: the bare model; it becomes part of what is returned.
        folder: what the training wrote.

    Raises:
        ValueError: a file is missing or damaged.
    """
    from ulm.engram import EngramModel
    from ulm.engram.optimizer import BASE_FOLDER

    model: nn.Module = base.model
    if name.startswith("lora"):
        from peft import PeftModel

        model = PeftModel.from_pretrained(base.model, str(folder if name == "lora" else folder / BASE_FOLDER))
    if name != "lora":
        model = EngramModel.from_pretrained(model, folder, base.tokenizer)
    return model.eval()


def shuffled(model: nn.Module, seed: int) -> nn.Module:
    """Give every used row of a learned tier what another used row of the same table held; returns the model."""
    from ulm.engram import EngramModel

    if not isinstance(model, EngramModel) or model.adapter.tables is None:
        raise ValueError("only a learned tier has tables to shuffle")
    generator = torch.Generator().manual_seed(seed)
    for layer in model.adapter.tables.layers:
        weight = layer.table.weight.data
        used = weight.any(1).nonzero()[:, 0]
        order = used[torch.randperm(len(used), generator=generator).to(used.device)]
        weight[order] = weight[order.roll(1)]
    return model


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
    from ulm.engram import add_engram

    values = [fact.answer for fact in facts]
    if control == "shuffled":
        generator = np.random.Generator(np.random.PCG64(seed))
        by_relation: dict[tuple[str, str], list[int]] = {}
        for i, fact in enumerate(facts):
            by_relation.setdefault((fact.category, fact.relation), []).append(i)
        for places in by_relation.values():
            order = generator.permutation(places)
            for place, other in zip(order, np.roll(order, 1), strict=True):
                values[place] = facts[other].answer
    written = [(fact.prompt, value, fact.category) for fact, value in zip(facts, values, strict=True)]
    if control == "capacity_1":
        written = written[-1:]
    model = add_engram(base.model, EngramConfig(content=content, conflicts="keep"), base.tokenizer)
    model.memory.write_all(written)
    return model.eval()
