"""Measurements of time: what a token costs with each arm, by rows of the tables and by length of the text.

Owns them. Nothing else may run beside them.
"""

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from swarm.lab.engram.arms import Base, learned_arm, open_base, with_facts
from swarm.lab.engram.config import LEARNED_ARMS, EngramEvalConfig
from swarm.lab.engram.facts import Facts, made_pairs
from swarm.lab.engram.text_measures import rows_of_text
from swarm.seeds import derive_seed
from ulm.engram import EngramConfig, add_engram


@torch.inference_mode()
def speed(config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path) -> dict[str, Any]:
    """Milliseconds per generated token at batch 1, the arms taking turns; base is the model without any memory."""
    pairs = made_pairs(max(config.pairs.counts), derive_seed(config.seed, "pairs"))

    models: dict[str, tuple[Any, str | None]] = {"base": (base.model, None)}
    for arm in ("exact", *(LEARNED_ARMS if config.learn.categories else ())):
        fresh = open_base(config.model, beside, str(base.model.device))
        models[arm] = with_facts(fresh, pairs) if arm == "exact" else learned_arm(arm, fresh, place / arm), None
    return {"ms_per_token": _in_turns(config, base, rows_of_text(config, beside, base.tokenizer)[0][:64], models)}


@torch.inference_mode()
def cost(config: EngramEvalConfig, beside: Path, base: Base, facts: Facts, place: Path) -> dict[str, Any]:
    """Milliseconds per generated token by rows of the tables, and by tokens that are there already."""
    shape = config.learn.engram_config()
    text = [i for row in rows_of_text(config, beside, base.tokenizer) for i in row]
    model = add_engram(base.model, EngramConfig(conflicts="keep"), base.tokenizer, "exact")
    pairs = made_pairs(max(config.pairs.counts), derive_seed(config.seed, "pairs"))
    model.memory.write_all([(pair.prompt, pair.answer, "pairs") for pair in pairs])
    generator = torch.Generator().manual_seed(derive_seed(config.seed, "tables") % 2**63)
    for rows in config.cost.rows:
        model.add_adapter(f"rows {rows}", replace(shape, rows=max(1, rows // (len(shape.orders) * shape.heads))))
        for layer in model.adapter.tables.layers if model.adapter.tables else ():
            layer.table.weight.data.copy_(torch.randn(layer.table.shape, generator=generator) * 0.01)
    arms = {"base": (model, ""), **{str(rows): (model, f"rows {rows}") for rows in config.cost.rows}}
    by_rows = _in_turns(config, base, text[:64], arms)
    middle = config.cost.rows[len(config.cost.rows) // 2]
    arms = {"base": (model, ""), "exact": (model, "exact"), "engram": (model, f"rows {middle}")}
    by_length = {str(n): _in_turns(config, base, text[:n], arms) for n in config.cost.lengths}
    return {"rows": by_rows, "lengths": by_length, "rows_of_lengths": middle}


def _in_turns(
    config: EngramEvalConfig, base: Base, prompt: Sequence[int], arms: Mapping[str, tuple[Any, str | None]]
) -> dict[str, list[float]]:
    """Return milliseconds per token and turn of each arm: a model, and the adapter that is to be active.

    No name leaves a model as it is, an empty one takes its adapters off. Every arm reads the prompt once; its tokens
    are the likeliest ones, chosen after the clock has stopped.
    """
    from transformers import DynamicCache

    ids_1T = torch.tensor(list(prompt), device=base.model.device)[None]
    found: dict[str, list[float]] = {arm: [] for arm in arms}
    caches = {arm: DynamicCache(config=base.model.config) for arm in arms}
    for turn in range(config.cost.turns + 1):
        for arm, (model, adapter) in arms.items():
            if adapter:
                model.set_adapter(adapter)
            with model.disable_adapter() if adapter == "" else contextlib.nullcontext():
                if not turn:
                    model(input_ids=ids_1T, past_key_values=caches[arm], use_cache=True, logits_to_keep=1)
                token, seconds = ids_1T[:, -1:], 0.0
                for _ in range(config.cost.tokens):
                    started = time.perf_counter()
                    logits = model(input_ids=token, past_key_values=caches[arm], use_cache=True).logits
                    seconds += time.perf_counter() - started
                    token = logits[:, -1:].argmax(-1)
            if turn:  # the first warms up
                found[arm].append(seconds * 1e3 / config.cost.tokens)
    return found
