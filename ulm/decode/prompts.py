"""Reading prompts of any length with a long-term memory, so that they can be continued token by token.

Owns the step from `ulm.streaming`, which reads in segments, to what decoding needs: ring caches, and memories with what
the open segment has staged.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from ulm.memory.state import SHOWN_TOKENS, LTMState, Staged
from ulm.memory.stepping import MemoryCache
from ulm.model import ROW_MULTIPLE, Decoder, KVCache, padded
from ulm.streaming import StreamState, read_chunk


def read_prompts(
    model: Decoder, prompts: Sequence[Sequence[int]], memories: Sequence[LTMState | None], slots: int
) -> tuple[KVCache, Tensor, MemoryCache]:
    """Read prompts of any length with a memory.

    Args:
        model: a µLM that has one.
        prompts: token ids, at least one each.
        memories: what each text's memory holds, one row each; None means nothing.
        slots: size of the rings: the window, or at least all tokens that each text will have.

    Returns:
        The ring caches, the (B, V) logits after each prompt, and the memories; B is padded to a multiple of
        `ROW_MULTIPLE` rows with copies of the first.
    """
    c, device = model.config, model.device
    if c.ltm is None:
        raise ValueError("this model has no long-term memory")
    S = c.ltm.segment
    order = [*range(len(prompts)), *[0] * (-len(prompts) % ROW_MULTIPLE)]
    nothing = LTMState.empty(c.ltm, 1, device=device, dtype=model.dtype)
    memory = LTMState.join([memories[i] or nothing for i in order])
    state = replace(StreamState.empty(model, len(order)), memory=memory)
    like, B, L = memory.keys_BMX, len(order), len(c.ltm.layers)
    cache = MemoryCache(
        memory=memory,
        hidden_LBSC=like.new_zeros(L, B, S, c.d_model),
        before_LBC=like.new_zeros(L, B, c.d_model),
        nats_BS=memory.surprisal_BM.new_zeros(B, S),
        line_BS=memory.clock_B.new_full((B, SHOWN_TOKENS - 1 + S), -1),
        offset_B=torch.zeros_like(memory.clock_B),
        started_B=torch.zeros_like(memory.clock_B, dtype=torch.bool),
        logits_BV=memory.surprisal_BM.new_zeros(B, c.vocab_size),
    )
    lengths = torch.tensor([len(prompts[i]) for i in order])
    ids_BT = padded([prompts[i] for i in order], 0, S)
    for start in range(0, ids_BT.shape[1], S):
        open_rows = (lengths > start).nonzero()[:, 0]
        count = len(open_rows)
        filled = torch.cat((open_rows, open_rows[:1].expand(-count % ROW_MULTIPLE)))
        counts = (lengths[filled] - start).clamp(max=S).to(device)
        ids = ids_BT[filled, start : start + S].to(device)
        reading = read_chunk(model, ids, state.select(filled.to(device)), counts_B=counts, batch_invariant=True)
        rows, counts = open_rows.to(device), counts[:count]
        complete = counts == S
        here = torch.arange(count, device=device)
        memory = memory.replaced(rows[complete], cast("LTMState", reading.state.memory), here[complete])
        state = replace(state.replaced(rows, reading.state, here), memory=memory)
        cache.logits_BV[rows] = reading.logits[0][here, counts - 1].float()
        hidden = torch.stack([x[:count] for x in reading.hidden])
        staged = cast("Staged", reading.staged)
        cache.hidden_LBSC[:, rows] = hidden
        cache.nats_BS[rows] = staged.surprisal_BS[:count] * math.log(2)
        cache.line_BS[rows, SHOWN_TOKENS - 1 :] = ids[:count]
        cache.offset_B[rows] = torch.where(complete, 0, counts)
        # A complete segment is in memory already; the next one begins after it.
        done = rows[complete]
        cache.before_LBC[:, done] = hidden[:, complete, -1]
        cache.line_BS[done, : SHOWN_TOKENS - 1] = cache.line_BS[done, S:]
        cache.started_B[done] = True
    cache.memory = memory
    window = KVCache.empty(c, len(order), slots, device=device, dtype=model.dtype)
    K = c.window - 1
    positions = state.seen_B[:, None] - K + torch.arange(K, device=device)
    there_b, there_k = ((positions >= 0) & (positions >= state.seen_B[:, None] - window.slots)).nonzero(as_tuple=True)
    at = positions[there_b, there_k]
    window.kv_LBWED[:, there_b, at % window.slots] = state.kv_BLKED[there_b, :, there_k].transpose(0, 1)
    window.positions_BW[there_b, at % window.slots] = at
    window.lengths_B.copy_(state.seen_B)
    window.fresh = False
    return window, cache.logits_BV.to(model.dtype, copy=True), cache


def join_read(
    parts: Sequence[tuple[KVCache, Tensor, MemoryCache]], counts: Sequence[int]
) -> tuple[KVCache, Tensor, MemoryCache]:
    """Return what `read_prompts` would of several readings, each by a model of its own.

    Args:
        parts: the readings.
        counts: how many prompts each has; what else its rows are fills them up.
    """
    if len(parts) == 1:
        return parts[0]
    starts = np.cumsum([0, *(len(memory.offset_B) for _, _, memory in parts)])
    own = [int(start) + row for start, count in zip(starts, counts, strict=False) for row in range(count)]
    rows = torch.tensor([*own, *own[:1] * (-len(own) % ROW_MULTIPLE)], device=parts[0][1].device)
    memories = [memory for _, _, memory in parts]

    def joined(name: str, axis: int = 0) -> Tensor:
        return torch.cat([getattr(memory, name) for memory in memories], axis).index_select(axis, rows)

    memory = MemoryCache(
        memory=LTMState.join([memory.memory for memory in memories]).select(rows),
        hidden_LBSC=joined("hidden_LBSC", 1),
        before_LBC=joined("before_LBC", 1),
        nats_BS=joined("nats_BS"),
        line_BS=joined("line_BS"),
        offset_B=joined("offset_B"),
        started_B=joined("started_B"),
        logits_BV=joined("logits_BV"),
    )
    cache = KVCache.join([cache for cache, _, _ in parts]).select(rows)
    return cache, torch.cat([logits for _, logits, _ in parts])[rows], memory
