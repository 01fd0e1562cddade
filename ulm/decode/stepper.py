"""Decoding with few and small kernels: `LeanDecoder` reads short prompts, a `Stepper` one further token per row.

- The same arithmetic as `Decoder.extend` but for rounding. At the size of µLMs a forward pass is some hundred calls of
  a few microseconds, so every call that can be saved, folded into a table or written into a buffer that is there is.
- What a row gets depends on that row alone: matrix products see a multiple of four rows (see `ulm.model`), attention is
  one small product per row and head.
- Attention in steps is as wide as the longest text of the batch needs, which adds exact zeros to shorter ones; heads so
  small that width would decide on the kernel attend to the whole ring, whose size follows from a row's own length.
- The opening that many prompts have in common is read once and kept; it is read alone, so what follows it gets the same
  bits whether it was kept or not.
- Shares the weights of small models (no copies: hosts map them read-only) and writes the cache in place. On CPUs those
  of large ones are packed once more, as oneDNN reads them fastest: decoding such a model is reading its weights.

Axes as in `ulm.model`; A slots of a kept opening, S = A + T keys of a prompt after it; N rows of a matrix product
(tokens of prompts, or one per text); Z = H + 2 G heads of queries, keys and values; P positions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from ulm.decode.deltas import DeltaStack, PromptDeltas, RowDeltas, padded_shape
from ulm.decode.layers import Layer, Packed, Plain, Rows
from ulm.delta import Delta
from ulm.memory.stepping import MemoryStepper
from ulm.model import ROW_MULTIPLE, Block, Decoder, KVCache, round_up

PREFILL_TOKENS = {"cpu": 256}
"""Prompts are read so many tokens at a time, or one prompt: more would fall out of a CPU's cache."""

PACKED_TOKENS = 512
"""The same with packed weights, which do not fit a cache anyway: each time all of them are read."""

MANY_TOKENS = 16_384
"""The same on other devices, where memory is the limit."""

PADDED_MULTIPLE = 16
"""Attention over prompts is padded to so many tokens, those of equal padded length together: length decides on bits."""

POSITION_MULTIPLE = 64
"""Tables of rotations grow by so many positions."""

WIDTH_MULTIPLE = 16
"""Attention in steps is over so many slots or a multiple; those that are empty add exact zeros to what a row gets."""

SMALL_PRODUCT = 400
"""torch.bmm on CPU computes products of fewer multiplications in another way, with other last bits."""

MAX_OPENINGS = 4
"""Openings of prompts that are kept, those used last."""

MAX_STACKS = 4
"""Batches whose deltas are kept beside each other, those decoded last: agents of a host act together in every tick."""

PACK_FROM = 2**26
"""Models with so many weights are packed: then reading the weights is most of a step. A process holds its own copy."""


def _product_type(model: Decoder) -> type[Plain | Packed]:
    able = model.device.type == "cpu" and torch._C._has_mkldnn and model.ltm is None
    large = sum(weight.numel() for weight in model.parameters()) >= PACK_FROM
    half = model.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return Packed if able and large and (half or model.dtype == torch.float32) else Plain


Key = TypeVar("Key")
Value = TypeVar("Value")


def _kept(kept: dict[Key, Value], key: Key, make: Callable[[], Value], most: int) -> Value:
    """Return what is kept under a key, made where it is not; of more than `most` those go that were used first."""
    if key in kept:
        kept[key] = kept.pop(key)
    else:
        kept[key] = make()
        while len(kept) > most:
            del kept[next(iter(kept))]
    return kept[key]


class LeanDecoder:
    """A µLM's inner loop.

    Args:
        model: the µLM.
        pack: whether weights may be packed; False where `model` itself reads on in the cache.

    Attributes:
        dtype: of the cache and the logits.
    """

    def __init__(self, model: Decoder, pack: bool = True) -> None:
        self.model = model
        product = _product_type(model) if pack else Plain
        self.dtype = torch.float32 if product is Packed else model.dtype
        at_once = PREFILL_TOKENS.get(model.device.type, MANY_TOKENS)
        self._prefill_tokens = PACKED_TOKENS if product is Packed else at_once
        self.layers = [Layer(cast("Block", block), number, product) for number, block in enumerate(model.blocks)]
        self.head = product((model.embed if model.head is None else model.head).weight)
        self._tables = self._rotations(0)
        self._openings: dict[tuple[tuple[int, ...], str], Tensor] = {}
        self._stacks: dict[tuple[str, ...], DeltaStack] = {}

    def _rotations(self, positions: int) -> tuple[Tensor, Tensor]:
        """Return what rotates the heads at each position: cosines (P, Z * D) and sines (P, (H + G) * D / 2).

        Queries come out scaled for attention, values as they are.
        """
        c = self.model.config
        cos_P1D, sin_P1D = (
            x[0] for x in self.model.rope(torch.arange(positions, device=self.model.device)[None], self.dtype)
        )
        scale_Z = torch.ones(c.n_head + 2 * c.n_kv_head, device=cos_P1D.device, dtype=cos_P1D.dtype)
        scale_Z[: c.n_head] = c.head_size**-0.5
        rotated = c.n_head + c.n_kv_head
        cos_PZD = cos_P1D * scale_Z[:, None]
        cos_PZD[:, rotated:] = 1.0
        sin_PZD = sin_P1D[..., : c.head_size // 2] * scale_Z[:rotated, None]
        return cos_PZD.flatten(1), sin_PZD.flatten(1)

    def tables(self, positions: int) -> tuple[Tensor, Tensor]:
        """Return `_rotations` for at least so many positions; those of very long texts are not kept."""
        if self._tables[0].shape[0] >= positions:
            return self._tables
        tables = self._rotations(round_up(positions, POSITION_MULTIPLE))
        if positions <= self.model.config.window + POSITION_MULTIPLE:
            self._tables = tables
        return tables

    def row_deltas(self, deltas: Sequence[Delta | None]) -> RowDeltas | None:
        """Return what the deltas of some rows add, None for nothing; those of the last batches are kept.

        Raises:
            DeltaError: one of them belongs to another model.
        """
        runs, first = [], 0
        for shape, members in groupby(deltas, key=padded_shape):
            there = list(members)
            if any(shape):
                chosen = cast("list[Delta]", there)
                key = tuple(delta.sha256 for delta in chosen)
                runs.append((first, _kept(self._stacks, key, partial(self._stack, chosen), MAX_STACKS)))
            first += len(there)
        return RowDeltas(runs) if runs else None

    def _stack(self, deltas: Sequence[Delta]) -> DeltaStack:
        return DeltaStack.of(deltas, self.model, self.dtype)

    def prefill(
        self,
        prompts: Sequence[Sequence[int]],
        slots: int,
        openings: Sequence[int] | None = None,
        deltas: RowDeltas | None = None,
    ) -> tuple[KVCache, Tensor]:
        """Read whole prompts.

        Args:
            prompts: token ids, each of 1 to `slots` tokens.
            slots: size of the rings, at most the window.
            openings: of each prompt, how many tokens at its beginning are read apart and kept; fewer than it has.
            deltas: of the prompts.

        Returns:
            The cache and the (B, V) logits after each prompt, both padded to a multiple of `ROW_MULTIPLE` rows with
            copies of the first.
        """
        model = self.model
        filled = [*prompts, *[prompts[0]] * (-len(prompts) % ROW_MULTIPLE)]
        cache = KVCache.empty(model.config, len(filled), slots, device=model.device, dtype=self.dtype)
        logits_BV = torch.empty(len(filled), model.config.vocab_size, device=model.device, dtype=self.dtype)
        alike: dict[tuple[tuple[int, ...], int], list[int]] = {}
        for row, ids in enumerate(prompts):
            opening = tuple(ids[: openings[row]]) if openings else ()
            alike.setdefault((opening, deltas.run(row) if deltas else -1), []).append(row)
        for (opening, run), members in alike.items():
            rests = [prompts[row][len(opening) :] for row in members]
            for width, chosen in _chunks(rests, self._prefill_tokens):
                if run >= 0:
                    chosen.sort(key=lambda i: len(rests[i]))  # those of one length are multiplied together
                rows = [members[i] for i in chosen]
                stack, places = deltas.stack(rows) if deltas and run >= 0 else (None, [])
                opening_LBAED = None
                if opening:
                    owners = [stack.deltas[place] for place in places] if stack else []
                    opening_LBAED = self._read_openings(opening, owners, len(rows))
                    cache.kv_LBWED[:, rows, : len(opening)] = opening_LBAED[:, :, : len(opening)]
                logits_BV[rows] = self._prefill(
                    [rests[i] for i in chosen], rows, width, cache.kv_LBWED, len(opening), opening_LBAED, stack, places
                )
        logits_BV[len(prompts) :] = logits_BV[0]
        cache.kv_LBWED[:, len(prompts) :] = cache.kv_LBWED[:, :1]
        cache.lengths_B.copy_(torch.tensor([len(ids) for ids in filled]))
        slot_W = torch.arange(slots, device=model.device)
        cache.positions_BW.copy_(torch.where(slot_W < cache.lengths_B[:, None], slot_W, -1))
        cache.fresh = False
        return cache, logits_BV

    def _read_openings(self, ids: tuple[int, ...], owners: Sequence[Delta], rows: int) -> Tensor:
        """Return the keys and values of an opening as each of some rows reads it, (L, B, A, E, D)."""
        if not owners:
            return self._read_opening(ids, None, MAX_OPENINGS)[:, None].expand(-1, rows, -1, -1, -1)
        most = max(MAX_OPENINGS, rows)
        return torch.stack([self._read_opening(ids, delta, most) for delta in owners], 1)

    def _read_opening(self, ids: tuple[int, ...], delta: Delta | None, most: int) -> Tensor:
        """Return the keys and values of an opening (L, A, E, D); past its end, zeros.

        Attention over as many keys as there happen to be is not bit-stable on every CPU.
        """

        def read() -> Tensor:
            A = round_up(len(ids), PADDED_MULTIPLE)
            kept = KVCache.empty(self.model.config, 1, A, device=self.model.device, dtype=self.dtype)
            self._prefill([ids], [0], A, kept.kv_LBWED, 0, None, self._stack([delta]) if delta else None, [0])
            return kept.kv_LBWED[:, 0]

        return _kept(self._openings, (ids, delta.sha256 if delta else ""), read, most)

    def _prefill(
        self,
        prompts: Sequence[Sequence[int]],
        rows: Sequence[int],
        width: int,
        kv_LBWED: Tensor,
        before: int = 0,
        opening_LBAED: Tensor | None = None,
        stack: DeltaStack | None = None,
        places: Sequence[int] = (),
    ) -> Tensor:
        """Read some prompts of at most `width` tokens, or what follows their opening, into their rows of the cache.

        Args:
            prompts: what is read.
            rows: where each belongs.
            width: their padded length.
            kv_LBWED: the cache, written in place.
            before: tokens of the opening.
            opening_LBAED: what was kept of it.
            stack: has their deltas.
            places: which ones these are.

        Returns:
            Their logits.
        """
        c, device = self.model.config, self.model.device
        B, T, W = len(prompts), width, kv_LBWED.shape[2]
        A = 0 if opening_LBAED is None else opening_LBAED.shape[2]
        S = A + T
        H, G, D = c.n_head, c.n_kv_head, c.head_size
        R, Z = H // G, H + 2 * G
        counts_B = np.array([len(ids) for ids in prompts])
        starts_B = np.cumsum(counts_B) - counts_B
        tokens = int(counts_B.sum())
        N = round_up(tokens, ROW_MULTIPLE)
        ids_N, place_N, row_N = np.zeros(N, np.int64), np.zeros(N, np.int64), np.zeros(N, np.int64)
        ids_N[:tokens] = np.concatenate(prompts)
        row_N[:tokens] = np.repeat(np.arange(B), counts_B)
        place_N[:tokens] = np.arange(tokens) - starts_B[row_N[:tokens]]
        position_N = before + place_N
        slot_N = np.array(rows)[row_N] * W + position_N
        last_B = (starts_B + counts_B - 1)[np.arange(round_up(B, ROW_MULTIPLE)) % B]
        # Past its end a prompt repeats its last token; what looks there is itself past the end, and nobody reads it.
        padded_BT = starts_B[:, None] + np.minimum(np.arange(T), counts_B[:, None] - 1)
        ids, position, slot, last, padded, packed = (
            torch.from_numpy(x).to(device)
            for x in (ids_N, position_N, slot_N[:tokens], last_B, padded_BT.reshape(-1), row_N * T + place_N)
        )
        # A token sees the whole opening, not what pads it, and of its own prompt what comes before it.
        bias_TS = torch.full((T, S), float("-inf"), device=device, dtype=self.dtype).triu_(A + 1)
        bias_TS[:, before:A] = float("-inf")
        beside, after = (
            PromptDeltas(stack, places, counts) if stack else None for counts in (counts_B.tolist(), [1] * B)
        )
        some = Rows(self.model, self.head, self.dtype, N, beside)
        each = Rows(self.model, self.head, self.dtype, len(last_B), after)
        some.rotations(position, self.tables(before + T))
        x_NC = self.model.embed.weight[ids].to(self.dtype)
        if beside is not None:
            beside.embed(x_NC, ids)
        for number, (layer, ring_BWED) in enumerate(zip(self.layers, kv_LBWED, strict=True)):
            heads_NZD = some.project(x_NC, layer)
            ring_BWED.view(-1, 2 * G * D).index_copy_(0, slot, some.kv_NX[:tokens])
            heads_BTZD = heads_NZD.view(N, Z * D).index_select(0, padded).view(B, T, Z, D)
            queries = heads_BTZD[:, :, :H].view(B, T, G, R, D).permute(0, 2, 3, 1, 4).reshape(B * G, R * T, D)
            kv_BSED = heads_BTZD[:, :, H:]
            if opening_LBAED is not None:
                kv_BSED = torch.cat((opening_LBAED[number], kv_BSED), 1)
            # Transposed last: of one prompt a reshape is a view, and another layout has other last bits.
            keys = kv_BSED[:, :, :G].transpose(1, 2).reshape(B * G, S, D).transpose(1, 2)
            values = kv_BSED[:, :, G:].transpose(1, 2).reshape(B * G, S, D)
            scores = torch.bmm(queries, keys).view(B * G, R, T, S).add_(bias_TS)
            mixed = torch.bmm(scores.softmax(-1).view(B * G, R * T, S), values).view(B, G, R, T, D)
            mixed_TX = mixed.permute(0, 3, 1, 2, 4).reshape(B * T, H * D)
            if layer is self.layers[-1]:  # what nobody reads after the keys is not computed
                x_NC = each.finish(x_NC[last], mixed_TX[packed[last]], layer)
            else:
                x_NC = some.finish(x_NC, mixed_TX.index_select(0, packed), layer)
        return each.logits(x_NC)[:B]


def _chunks(prompts: Sequence[Sequence[int]], limit: int) -> Iterator[tuple[int, list[int]]]:
    """Yield which prompts are read together, at most `limit` tokens or one, as (padded length, their indices)."""
    by_width: dict[int, list[int]] = {}
    for index, ids in enumerate(prompts):
        by_width.setdefault(round_up(len(ids), PADDED_MULTIPLE), []).append(index)
    for width, indices in by_width.items():
        chunk, tokens = [indices[0]], len(prompts[indices[0]])
        for index in indices[1:]:
            tokens += len(prompts[index])
            if tokens > limit:
                yield width, chunk
                chunk, tokens = [], len(prompts[index])
            chunk.append(index)
        yield width, chunk


class Stepper:
    """Reads one token per row and call.

    Args:
        lean: the model.
        cache: what the rows have read so far, a multiple of `ROW_MULTIPLE` rows; written in place.
        steps: at most so many calls will follow.
        memory: reads and writes the rows' long-term memories; None without one.
        deltas: what the rows have learned; None without any.
    """

    def __init__(
        self,
        lean: LeanDecoder,
        cache: KVCache,
        steps: int,
        memory: MemoryStepper | None = None,
        deltas: RowDeltas | None = None,
    ) -> None:
        c, device = lean.model.config, lean.model.device
        self.lean = lean
        self.cache = cache
        self._memory = memory
        cache.fresh = False
        B, W = cache.positions_BW.shape
        self._rows = Rows(lean.model, lean.head, lean.dtype, B, deltas)
        self._longest = int(cache.lengths_B.max())
        self._tables = lean.tables(self._longest + steps)
        self._first_slot_B = torch.arange(B, device=device) * W
        self._bias_BW = torch.zeros(B, W, device=device, dtype=lean.dtype)
        self._bias_BW.masked_fill_(cache.positions_BW < 0, float("-inf"))
        self._x_BC = self._bias_BW.new_empty(B, c.d_model)
        same = lean.dtype == lean.model.dtype
        self._embedded_BC = self._x_BC if same else self._x_BC.to(lean.model.dtype)
        R, G = c.n_head // c.n_kv_head, c.n_kv_head
        self._queries = [self._rows.heads_NZD[:, g * R : (g + 1) * R] for g in range(G)]
        mixed_GBRD = self._bias_BW.new_empty(G, B, R, c.head_size)
        self._mixed, self._mixed_turned = list(mixed_GBRD), mixed_GBRD.transpose(0, 1)
        self._mixed_BGRD = self._bias_BW.new_empty(B, G, R, c.head_size)
        self._slots = [kv.view(B * W, 2 * G * c.head_size) for kv in cache.kv_LBWED]
        self._attend_to(0 if R * c.head_size * WIDTH_MULTIPLE >= SMALL_PRODUCT else W)

    def _attend_to(self, slots: int) -> None:
        """Make what attention over the first `slots` slots needs; the others hold nothing yet."""
        B, G, R, _ = self._mixed_BGRD.shape
        self._width = slots
        self._bias_B1W = self._bias_BW[:, None, :slots]
        # A product per key/value head, each into memory of its own: torch.bmm is slow where its result has gaps.
        self._scores_GBRW = self._bias_BW.new_empty(G, B, R, slots)
        self._shares_GBRW = self._bias_BW.new_empty(G, B, R, slots)
        self._scores, self._shares = list(self._scores_GBRW), list(self._shares_GBRW)
        used = [kv[:, :slots] for kv in self.cache.kv_LBWED]
        self._keys = [[kv[:, :, g].transpose(1, 2) for g in range(G)] for kv in used]
        self._values = [[kv[:, :, G + g] for g in range(G)] for kv in used]

    def __call__(self, ids_B: Tensor) -> Tensor:
        """Read one token per row and return the (B, V) logits after it, valid until the next call."""
        cache, rows = self.cache, self._rows
        self._longest += 1
        if self._width < min(self._longest, cache.slots):
            self._attend_to(min(cache.slots, round_up(self._longest, WIDTH_MULTIPLE)))
        position_B = cache.lengths_B
        slot_B = position_B % cache.slots
        flat_B = self._first_slot_B + slot_B
        rows.rotations(position_B, self._tables)
        self._bias_BW.view(-1).index_fill_(0, flat_B, 0.0)
        x_BC = self._x_BC
        torch.index_select(self.lean.model.embed.weight, 0, ids_B, out=self._embedded_BC)
        if x_BC is not self._embedded_BC:
            x_BC.copy_(self._embedded_BC)
        if rows.deltas is not None:
            rows.deltas.embed(x_BC, ids_B)
        mixed_BX = self._mixed_BGRD.flatten(1)
        if self._memory is not None:
            self._memory.begin(ids_B)
        for number, (layer, slots, keys, values) in enumerate(
            zip(self.lean.layers, self._slots, self._keys, self._values, strict=True)
        ):
            if self._memory is not None:
                self._memory.read(number, x_BC)
            rows.project(x_BC, layer)
            slots.index_copy_(0, flat_B, rows.kv_NX)
            for queries_BRD, keys_BDW, scores_BRW in zip(self._queries, keys, self._scores, strict=True):
                torch.bmm(queries_BRD, keys_BDW, out=scores_BRW)
            torch.softmax(self._scores_GBRW.add_(self._bias_B1W), -1, out=self._shares_GBRW)
            for shares_BRW, values_BWD, mixed_BRD in zip(self._shares, values, self._mixed, strict=True):
                torch.bmm(shares_BRW, values_BWD, out=mixed_BRD)
            self._mixed_BGRD.copy_(self._mixed_turned)
            rows.finish(x_BC, mixed_BX, layer)
        cache.positions_BW.scatter_(1, slot_B[:, None], position_B[:, None])
        cache.lengths_B += 1
        logits_BV = rows.logits(x_BC)
        if self._memory is not None:
            self._memory.end(logits_BV)
        return logits_BV
