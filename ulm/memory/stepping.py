"""The long-term memory while a text is decoded token by token: the same reads and writes with few and small kernels.

- A step only looks the memory up; what it offers for writing is staged, and turned into keys and values when its
  segment is complete.
- Weights that never change are folded once: gates into the output matrix, norms into the query matrix.
- The null item is one more column of the weights, the denominator one more column of the values.
- What a row reads and writes depends on that row alone.

Axes as in `ulm.memory.ltm`; Z = B x H products of one row and head each.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ulm.memory.ltm import LTM, SHOWN_TOKENS, LTMState, Reader, Staged

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
        readers = [cast("Reader", reader) for reader in ltm.readers]
        Y, B, M, H, D = c.width, len(cache.offset_B), c.capacity, c.n_head, c.head_size
        like = cache.memory.keys_BMX
        # Queries have length 1, so the scale of the norm before them cancels, and its weights fold into the matrix.
        self._query_CY = [(reader.key_value.weight[:Y] * reader.norm).t().contiguous() for reader in readers]
        self._out_YC = [reader.out.weight.t() * reader.gate.tanh().repeat_interleave(D)[:, None] for reader in readers]
        self._sharp_Z11 = [reader.log_temperature.exp().repeat(B)[:, None, None] for reader in readers]
        self._keys_ZDM = [like.new_zeros(B * H, D, M) for _ in readers]
        self._values_ZME = [like.new_zeros(B * H, M + 1, D + 1) for _ in readers]
        for values in self._values_ZME:
            values[..., D] = 1.0  # the last column counts weights, the null item's included
        self._query_BY = like.new_empty(B, Y)
        self._cosine_Z1M = like.new_empty(B * H, 1, M)
        self._weights_Z1N = [like.new_empty(B * H, 1, M + 1) for _ in readers]
        for reader, weights in zip(readers, self._weights_Z1N, strict=True):
            weights[:, 0, M] = ((reader.null - 1.0) * reader.log_temperature.exp()).exp().repeat(B)
        self._mixed_Z1E = like.new_empty(B * H, 1, D + 1)
        self._added_BY = like.new_empty(B, Y)
        self._offsets: list[int] = cache.offset_B.tolist()
        # What open segments have staged, one entry per token, the newest last: appending costs no call.
        newest_BS = (cache.offset_B[:, None] - c.segment + torch.arange(c.segment, device=like.device)).clamp(min=0)
        self._hidden = [deque(_along(x_BSC, newest_BS).unbind(1), c.segment) for x_BSC in cache.hidden_LBSC]
        self._nats = deque(cache.nats_BS.gather(1, newest_BS).unbind(1), c.segment)
        ids_BS = cache.line_BS[:, SHOWN_TOKENS - 1 :]
        self._ids = deque(ids_BS.gather(1, newest_BS).unbind(1), c.segment)
        self._logits_BV = cache.logits_BV
        self._holds = False
        self._arrange(torch.arange(B, device=like.device))

    def _arrange(self, rows: Tensor) -> None:
        """Lay out keys and values of some rows as the products want them."""
        c, memory = self.ltm.config, self.cache.memory
        there_RM1 = (memory.position_BM[rows] >= 0)[..., None]
        keys_RMX, values_RMX = memory.keys_BMX[rows] * there_RM1, memory.values_BMX[rows]
        Y, H, D, M = c.width, c.n_head, c.head_size, c.capacity
        heads = torch.arange(H, device=rows.device)
        for number, (keys_ZDM, values_ZME) in enumerate(zip(self._keys_ZDM, self._values_ZME, strict=True)):
            part = slice(number * Y, (number + 1) * Y)
            keys_ZDM.view(-1, H, D, M)[rows] = keys_RMX[..., part].reshape(-1, M, H, D).permute(0, 2, 3, 1)
            values = values_RMX[..., part].reshape(-1, M, H, D).transpose(1, 2)
            values_ZME.view(-1, H, M + 1, D + 1)[rows[:, None], heads, :M, :D] = values
        self._holds = self._holds or bool(there_RM1.any())

    def begin(self, ids_B: Tensor) -> None:
        """Take in the tokens that are about to be read."""
        self._nats.append(F.cross_entropy(self._logits_BV, ids_B, reduction="none"))
        self._ids.append(ids_B)

    def read(self, layer: int, x_BC: Tensor) -> None:
        """Add what the memory says to the residual stream before a block, in place; blocks without reads are left."""
        if (number := self.layers.get(layer)) is None:
            return
        c = self.ltm.config
        self._hidden[number].append(x_BC.clone())
        if not self._holds:
            return
        torch.mm(x_BC, self._query_CY[number], out=self._query_BY)
        query_Z1D = self._query_BY.view(-1, 1, c.head_size)
        torch.bmm(query_Z1D, self._keys_ZDM[number], out=self._cosine_Z1M)
        self._cosine_Z1M.div_(torch.linalg.vector_norm(query_Z1D, dim=-1, keepdim=True).clamp_(min=1e-12))
        torch.threshold_(self._cosine_Z1M, c.similarity, -1e4)
        weights = self._weights_Z1N[number]
        torch.mul(self._cosine_Z1M.sub_(1.0), self._sharp_Z11[number], out=weights[..., : c.capacity]).exp_()
        torch.bmm(weights, self._values_ZME[number], out=self._mixed_Z1E)
        mixed = self._mixed_Z1E
        torch.div(mixed[..., : c.head_size], mixed[..., c.head_size :], out=self._added_BY.view(-1, 1, c.head_size))
        x_BC.addmm_(self._added_BY, self._out_YC[number])

    def end(self, logits_BV: Tensor) -> None:
        """Take in what was predicted after the tokens; write where a segment is complete.

        Args:
            logits_BV: float32, valid until the next call of `begin` has returned.
        """
        self._logits_BV = logits_BV
        self._offsets = [offset + 1 for offset in self._offsets]
        complete = [row for row, offset in enumerate(self._offsets) if offset == self.ltm.config.segment]
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
        S = self.ltm.config.segment
        first_RS = (S - count_R[:, None] + torch.arange(S, device=rows_R.device)).clamp(max=S - 1)
        hidden = [_along(torch.stack(list(staged), dim=1)[rows_R], first_RS) for staged in self._hidden]
        nats_RS = torch.stack(list(self._nats), dim=1)[rows_R].gather(1, first_RS)
        ids_RS = torch.stack(list(self._ids), dim=1)[rows_R].gather(1, first_RS)
        return hidden, nats_RS, ids_RS

    def _write(self, written: Sequence[int]) -> None:
        if not written:
            return
        cache, S, Y = self.cache, self.ltm.config.segment, self.ltm.config.width
        rows = torch.tensor(written, device=cache.offset_B.device)
        count_R = torch.tensor([self._offsets[row] for row in written], device=rows.device)
        offsets = torch.arange(S, device=rows.device)
        hidden, nats_RS, ids_RS = self._staged(rows, count_R)
        line_RS = torch.cat((cache.line_BS[rows, : SHOWN_TOKENS - 1], ids_RS), dim=1)
        memory = cache.memory.select(rows)
        keys, values, reads_RM = [], [], torch.zeros_like(memory.reads_BM)
        real_RS = offsets < count_R[:, None]
        for number, reader in enumerate(self.ltm.readers):
            reader = cast("Reader", reader)
            whole = torch.cat((cache.before_LBC[number, rows][:, None], hidden[number]), dim=1)
            own_keys, own_values = reader.project(whole)
            part = slice(number * Y, (number + 1) * Y)
            read_RSM = reader.matches(own_keys[:, 1:], memory.keys_BMX[..., part], memory.position_BM >= 0).any(1)
            reads_RM += (read_RSM & real_RS[:, :, None]).sum(1)
            keys.append(own_keys[:, :-1])
            values.append(own_values[:, 1:])
        staged = Staged(
            keys_BSX=torch.cat(keys, dim=-1),
            values_BSX=torch.cat(values, dim=-1),
            surprisal_BS=nats_RS / math.log(2),
            tokens_BSN=line_RS.unfold(1, SHOWN_TOKENS, 1),
            writable_BS=real_RS & (cache.started_B[rows][:, None] | (offsets > 0)),
            counts_B=count_R,
            reads_BM=reads_RM,
        )
        after, _ = self.ltm.write(memory, staged)
        for field in fields(LTMState):
            getattr(cache.memory, field.name)[rows] = getattr(after, field.name)
        each = torch.arange(len(rows), device=rows.device)
        cache.before_LBC[:, rows] = torch.stack(hidden)[:, each, count_R - 1]
        tail = count_R[:, None] + torch.arange(SHOWN_TOKENS - 1, device=rows.device)
        cache.line_BS[rows, : SHOWN_TOKENS - 1] = line_RS.gather(1, tail)
        cache.started_B[rows] = True
        for row in written:
            self._offsets[row] = 0
        self._arrange(rows)


def _along(x_BSC: Tensor, index_BS: Tensor) -> Tensor:
    """Return the vectors at the given places of each row."""
    return x_BSC.gather(1, index_BS[..., None].expand(-1, -1, x_BSC.shape[-1]))
