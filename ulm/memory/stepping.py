"""The long-term memory while a text is decoded token by token: the same reads and writes with few and small kernels.

- A step only looks the memory up; what it offers for writing is staged, and turned into keys and values when its
  segment is complete.
- Weights that never change are folded once: gates into the output matrix, norms into the query matrix.
- The null item is one more column of the scores, whose value is nothing.
- A write changes the places of the items that come and go, and copies no others.
- What a row reads and writes depends on that row alone.

Axes as in `ulm.memory.ltm`; Z = B x H products of one row and head each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ulm.memory.ltm import LTM, SHOWN_TOKENS, LTMState, Placement, Reader, Staged

__all__ = ["MemoryCache", "MemoryStepper"]


@dataclass(slots=True)
class MemoryCache:
    """Memories of B texts that are being decoded, and what their open segments have staged.

    Attributes:
        memory: after the last complete segment.
        hidden_LBSC: per layer that reads, the residual stream at each token of the open segment.
        before_LBC: the same for the token before the segment.
        nats_BS: surprisal of the tokens; line_BS: their ids, after those of the last tokens of the segment before.
        offset_B: tokens in the open segment.
        started_B: whether the segment's first token was predicted by something.
        logits_BV: after the last token.
    """

    memory: LTMState
    hidden_LBSC: Tensor
    before_LBC: Tensor
    nats_BS: Tensor
    line_BS: Tensor
    offset_B: Tensor
    started_B: Tensor
    logits_BV: Tensor

    @classmethod
    def empty(cls, ltm: LTM, d_model: int, vocab_size: int, memory: LTMState) -> MemoryCache:
        """Return the cache of texts that have not begun, with what their memories hold."""
        c = ltm.config
        B, L = memory.clock_B.shape[0], len(c.layers)
        like = memory.keys_BMX
        return cls(
            memory=memory,
            hidden_LBSC=like.new_zeros(L, B, c.segment, d_model),
            before_LBC=like.new_zeros(L, B, d_model),
            nats_BS=memory.surprisal_BM.new_zeros(B, c.segment),
            line_BS=memory.clock_B.new_full((B, SHOWN_TOKENS - 1 + c.segment), -1),
            offset_B=torch.zeros_like(memory.clock_B),
            started_B=torch.zeros_like(memory.clock_B, dtype=torch.bool),
            logits_BV=memory.surprisal_BM.new_zeros(B, vocab_size),
        )

    def select(self, rows: Tensor) -> MemoryCache:
        """Return a copy that holds only the given rows."""
        return MemoryCache(
            self.memory.select(rows),
            self.hidden_LBSC[:, rows],
            self.before_LBC[:, rows],
            *(getattr(self, field.name)[rows] for field in fields(self)[3:]),
        )


class MemoryStepper:
    """Reads and writes for one token per row and call.

    Args:
        ltm: the memory's weights and rules.
        cache: what the texts have read so far; from now on this object alone is up to date.
    """

    def __init__(self, ltm: LTM, cache: MemoryCache) -> None:
        c = ltm.config
        self.ltm = ltm
        self.cache = cache
        self.layers = {layer: number for number, layer in enumerate(c.layers)}
        self._readers = [cast("Reader", reader) for reader in ltm.readers]
        Y, B, M, H, D, S = c.width, len(cache.offset_B), c.capacity, c.n_head, c.head_size, c.segment
        like = cache.memory.keys_BMX
        # Queries have length 1, so the scale of the norm before them cancels, and its weights fold into the matrix.
        self._query_CY = [(reader.key_value.weight[:Y] * reader.norm).t().contiguous() for reader in self._readers]
        self._out_YC = [
            reader.out.weight.t() * reader.gate.tanh().repeat_interleave(D)[:, None] for reader in self._readers
        ]
        self._sharp_Z11 = [reader.log_temperature.exp().repeat(B)[:, None, None] for reader in self._readers]
        self._dull_Z11 = [-sharp for sharp in self._sharp_Z11]
        self._query_BY = like.new_empty(B, Y)
        self._query_Z1D = self._query_BY.view(-1, 1, D)
        self._length_Z11 = like.new_empty(B * H, 1, 1)
        self._cosine_Z1M = like.new_empty(B * H, 1, M)
        self._scores_Z1N = [like.new_empty(B * H, 1, M + 1) for _ in self._readers]
        for reader, scores in zip(self._readers, self._scores_Z1N, strict=True):
            scores[:, 0, M] = ((reader.null - 1.0) * reader.log_temperature.exp()).repeat(B)
        self._scores_Z1M = [scores[..., :M] for scores in self._scores_Z1N]
        self._weights_Z1N = like.new_empty(B * H, 1, M + 1)
        self._added_BY = like.new_empty(B, Y)
        self._added_Z1D = self._added_BY.view(-1, 1, D)
        # Keys and values as the products want them; the null item's value, the last, is 0.
        there_BM = cache.memory.position_BM >= 0
        keys_BMLHD, values_BMLHD = (
            (x * there_BM[..., None]).view(B, M, -1, H, D) for x in (like, cache.memory.values_BMX)
        )
        self._keys_BHDM = [keys.permute(0, 2, 3, 1).contiguous() for keys in keys_BMLHD.unbind(2)]
        self._values_BHND = [F.pad(values.transpose(1, 2), (0, 0, 0, 1)) for values in values_BMLHD.unbind(2)]
        self._keys_ZDM = [keys.view(-1, D, M) for keys in self._keys_BHDM]
        self._values_ZND = [values.view(-1, M + 1, D) for values in self._values_BHND]
        self._holds = bool(there_BM.any())
        # What open segments have staged: rings over time, the same for all rows, that begin with their oldest token.
        self._offsets: list[int] = cache.offset_B.tolist()
        self._time = 0
        newest_BS = (cache.offset_B[:, None] - S + torch.arange(S, device=like.device)).clamp(min=0)
        self._hidden_SBC = [_along(x_BSC, newest_BS).transpose(0, 1).contiguous() for x_BSC in cache.hidden_LBSC]
        self._nats_SB = cache.nats_BS.gather(1, newest_BS).t().contiguous()
        self._ids_SB = cache.line_BS[:, SHOWN_TOKENS - 1 :].gather(1, newest_BS).t().contiguous()
        self._hidden = [list(hidden_SBC) for hidden_SBC in self._hidden_SBC]
        self._nats, self._ids = list(self._nats_SB), list(self._ids_SB)
        self._logits_BV = cache.logits_BV
        self._offset_S = torch.arange(S, device=like.device)
        self._tail_N = torch.arange(SHOWN_TOKENS - 1, device=like.device)

    def begin(self, ids_B: Tensor) -> None:
        """Take in the tokens that are about to be read."""
        self._nats[self._time].copy_(F.cross_entropy(self._logits_BV, ids_B, reduction="none"))
        self._ids[self._time].copy_(ids_B)

    def read(self, layer: int, x_BC: Tensor) -> None:
        """Add what the memory says to the residual stream before a block, in place; blocks without reads are left."""
        if (number := self.layers.get(layer)) is None:
            return
        self._hidden[number][self._time].copy_(x_BC)
        if not self._holds:
            return
        torch.mm(x_BC, self._query_CY[number], out=self._query_BY)
        query_Z1D = self._query_Z1D
        torch.linalg.vector_norm(query_Z1D, dim=-1, keepdim=True, out=self._length_Z11)
        query_Z1D.div_(self._length_Z11.clamp_(min=1e-12))
        torch.bmm(query_Z1D, self._keys_ZDM[number], out=self._cosine_Z1M)
        torch.threshold_(self._cosine_Z1M, self.ltm.config.similarity, -1e4)
        sharp, dull = self._sharp_Z11[number], self._dull_Z11[number]
        torch.addcmul(dull, self._cosine_Z1M, sharp, out=self._scores_Z1M[number])
        torch.softmax(self._scores_Z1N[number], -1, out=self._weights_Z1N)
        torch.bmm(self._weights_Z1N, self._values_ZND[number], out=self._added_Z1D)
        x_BC.addmm_(self._added_BY, self._out_YC[number])

    def end(self, logits_BV: Tensor) -> None:
        """Take in what was predicted after the tokens; write where a segment is complete.

        Args:
            logits_BV: float32, valid until the next call of `begin` has returned.
        """
        S = self.ltm.config.segment
        self._logits_BV = logits_BV
        self._time = (self._time + 1) % S
        self._offsets = [offset + 1 for offset in self._offsets]
        complete = [row for row, offset in enumerate(self._offsets) if offset == S]
        if complete:
            self._write(complete)

    def flush(self, rows: Sequence[int]) -> LTMState:
        """Write what the open segments of some rows have staged, for their texts end here; return their memories."""
        self._write([row for row in rows if self._offsets[row]])
        return self.cache.memory.select(torch.tensor(rows, device=self.cache.offset_B.device))

    def select(self, rows: Tensor) -> MemoryStepper:
        """Return a stepper for some of the rows, with what they have staged."""
        cache = self.cache
        cache.offset_B = torch.tensor(self._offsets, device=rows.device)
        everybody = torch.arange(len(self._offsets), device=rows.device)
        hidden, cache.nats_BS, cache.line_BS[:, SHOWN_TOKENS - 1 :] = self._staged(everybody, cache.offset_B)
        cache.hidden_LBSC = torch.stack(hidden)
        cache.logits_BV = self._logits_BV
        return MemoryStepper(self.ltm, cache.select(rows))

    def _staged(self, rows_R: Tensor, count_R: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return hidden states, nats and ids of open segments, the first token first and the rest whatever it is."""
        at_RS = (self._offset_S + (self._time - count_R)[:, None]) % self.ltm.config.segment
        row_R1 = rows_R[:, None]
        return (
            [x_SBC[at_RS, row_R1] for x_SBC in self._hidden_SBC],
            self._nats_SB[at_RS, row_R1],
            self._ids_SB[at_RS, row_R1],
        )

    def _write(self, written: Sequence[int]) -> None:
        if not written:
            return
        cache, Y = self.cache, self.ltm.config.width
        rows = torch.tensor(written, device=cache.offset_B.device)
        place: Tensor | slice = rows
        if len(written) == len(self._offsets):  # slices are views and no copies
            place = slice(None)
        elif len(written) == 1:
            place = slice(written[0], written[0] + 1)
        count_R = torch.tensor([self._offsets[row] for row in written], device=rows.device)
        hidden, nats_RS, ids_RS = self._staged(rows, count_R)
        line_RS = torch.cat((cache.line_BS[place, : SHOWN_TOKENS - 1], ids_RS), dim=1)
        memory = cache.memory.select(place)
        there_RM = memory.position_BM >= 0
        keys, values, reads_RM = [], [], torch.zeros_like(memory.reads_BM)
        real_RS = self._offset_S < count_R[:, None]
        for number, reader in enumerate(self._readers):
            line_RTC = torch.cat((cache.before_LBC[number, place][:, None], hidden[number]), dim=1)
            own_keys, own_values = reader.project(line_RTC)
            part = slice(number * Y, (number + 1) * Y)
            read_RSM = reader.matches(own_keys[:, 1:], memory.keys_BMX[..., part], there_RM).any(1)
            reads_RM += (read_RSM & real_RS[:, :, None]).sum(1)
            keys.append(own_keys[:, :-1])
            values.append(own_values[:, 1:])
        staged = Staged(
            keys_BSX=torch.cat(keys, dim=-1),
            values_BSX=torch.cat(values, dim=-1),
            surprisal_BS=nats_RS / math.log(2),
            tokens_BSN=line_RS.unfold(1, SHOWN_TOKENS, 1),
            writable_BS=real_RS & (cache.started_B[place][:, None] | (self._offset_S > 0)),
            counts_B=count_R,
            reads_BM=reads_RM,
        )
        self._change(rows, place, memory, staged, self.ltm.place(memory, staged))
        each = torch.arange(len(rows), device=rows.device)
        for number, hidden_RSC in enumerate(hidden):
            cache.before_LBC[number, place] = hidden_RSC[each, count_R - 1]
        cache.line_BS[place, : SHOWN_TOKENS - 1] = line_RS.gather(1, count_R[:, None] + self._tail_N)
        cache.started_B[place] = True
        for row in written:
            self._offsets[row] = 0

    def _change(
        self, rows: Tensor, place: Tensor | slice, before: LTMState, staged: Staged, placement: Placement
    ) -> None:
        """Carry out in place what `LTM.write` would return.

        Args:
            rows: which ones are written.
            place: the same, or a slice.
            before: their memories, maybe views.
            staged: what they offer.
            placement: what to do.
        """
        c, memory = self.ltm.config, self.cache.memory
        r, s = placement.enters_BS.nonzero(as_tuple=True)
        b, m = rows[r], placement.place_BS[r, s]
        if c.overwrite is not None:  # places may be left empty
            gone_r, gone_m = ((before.position_BM >= 0) & ~placement.stays_BM).nonzero(as_tuple=True)
            for keys_BHDM in self._keys_BHDM:
                keys_BHDM[rows[gone_r], :, :, gone_m] = 0.0
        new_keys, new_values = (x[r, s].to(memory.keys_BMX.dtype) for x in (staged.keys_BSX, staged.values_BSX))
        memory.keys_BMX[b, m] = new_keys
        memory.values_BMX[b, m] = new_values
        per_layer = (-1, len(self._readers), c.n_head, c.head_size)
        for number, (keys_NHD, values_NHD) in enumerate(
            zip(new_keys.view(per_layer).unbind(1), new_values.view(per_layer).unbind(1), strict=True)
        ):
            self._keys_BHDM[number][b, :, :, m] = keys_NHD
            self._values_BHND[number][b, :, m] = values_NHD
        position_N = placement.position_BS[r, s]
        memory.position_BM[place] = before.position_BM.masked_fill(~placement.stays_BM, -1)
        memory.position_BM[b, m] = position_N
        memory.used_BM[place] = placement.used_BM
        memory.used_BM[b, m] = position_N
        memory.reads_BM[place] = before.reads_BM + staged.reads_BM
        memory.reads_BM[b, m] = 0
        memory.surprisal_BM[b, m] = placement.surprisal_BS[r, s]
        memory.tokens_BMN[b, m] = staged.tokens_BSN[r, s]
        memory.recent_BS[place] = placement.surprisal_BS.masked_fill(~staged.writable_BS, math.nan)
        memory.clock_B[place] = before.clock_B + staged.counts_B
        self._holds = self._holds or len(b) > 0


def _along(x_BSC: Tensor, index_BS: Tensor) -> Tensor:
    """Return the vectors at the given places of each row."""
    return x_BSC.gather(1, index_BS[..., None].expand(-1, -1, x_BSC.shape[-1]))
