"""The long-term memory while a text is decoded token by token: the same reads and writes with few and small kernels.

- A step only looks the memory up; what it offers for writing is staged, and turned into keys and values when its
  segment is complete.
- Weights that never change are folded once: gates into the output matrix, norms into the query matrix.
- The null item is one more column of the scores, whose value is nothing.
- A write changes the places of the items that come and go, and copies no others. On a CPU it does its bookkeeping with
  NumPy, on the same memory: most writes are of a row or two, where what counts is the cost of a call.
- What a row reads and writes depends on that row alone.

Axes as in `ulm.memory.ltm`; Z = B x H products of one row and head each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ulm.memory.ltm import LTM, Reader, array_module, as_type
from ulm.memory.state import SHOWN_TOKENS, LTMState, Placement, Staged

_BOOKKEEPING = ("surprisal_BM", "position_BM", "used_BM", "reads_BM", "members_BM", "recent_BS", "clock_B")
"""What decides where tokens are written, if keys do not."""


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
        Y, B, M, H, D, S = c.width, len(cache.offset_B), c.places, c.n_head, c.head_size, c.segment
        like = cache.memory.keys_BMX
        # Queries have length 1, so the scale of the norm before them cancels, and its weights fold into the matrix.
        self._project_CX = [(reader.key_value.weight * reader.norm).t().contiguous() for reader in self._readers]
        self._query_CY = [project_CX[:, :Y].contiguous() for project_CX in self._project_CX]
        self._out_YC = [
            reader.out.weight.t() * reader.gate.tanh().repeat_interleave(D)[:, None] for reader in self._readers
        ]
        self._sharp_Z11 = [reader.log_temperature.exp().repeat(B)[:, None, None] for reader in self._readers]
        self._dull_Z1N = [-sharp for sharp in self._sharp_Z11]
        if c.slots:
            beta_BMLH = cache.memory.beta_BMG.view(B, M, -1, H)
            betas = (beta.transpose(1, 2).reshape(-1, 1, M) for beta in beta_BMLH.unbind(2))
            self._dull_Z1N = [dull + beta for dull, beta in zip(self._dull_Z1N, betas, strict=True)]
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
        # What open segments have staged, and the tokens before: rings over time, the same for all rows, that begin with
        # their oldest token.
        self._offsets: list[int] = cache.offset_B.tolist()
        self._started: list[bool] = cache.started_B.tolist()
        self._time = 0
        self._length = S + SHOWN_TOKENS - 1
        newest_BS = cache.offset_B[:, None] - S + torch.arange(S, device=like.device)
        newest_BT = cache.offset_B[:, None] + torch.arange(self._length, device=like.device)
        line_BT = F.pad(cache.line_BS, (S, 0), value=-1)
        self._ids_TB = line_BT.gather(1, newest_BT).t().contiguous()
        self._nats_TB = cache.nats_BS.new_zeros(self._length, B)
        self._nats_TB[-S:] = cache.nats_BS.gather(1, newest_BS.clamp(min=0)).t()
        self._hidden_TBC = []
        for hidden_BSC, before_BC in zip(cache.hidden_LBSC, cache.before_LBC, strict=True):
            hidden_TBC = hidden_BSC.new_zeros(self._length, B, hidden_BSC.shape[-1])
            line_BTC = torch.cat((before_BC[:, None], hidden_BSC), dim=1)
            place_BT1 = F.pad(newest_BS + 1, (1, 0)).clamp(min=0)[..., None]
            hidden_TBC[-S - 1 :] = torch.take_along_dim(line_BTC, place_BT1, dim=1).transpose(0, 1)
            self._hidden_TBC.append(hidden_TBC)
        self._hidden = [list(hidden_TBC) for hidden_TBC in self._hidden_TBC]
        self._nats, self._ids = list(self._nats_TB), list(self._ids_TB)
        self._logits_BV = cache.logits_BV
        # The same memory once more, as arrays that are cheap to index where there can be such: NumPy has no bfloat16.
        numpy = like.device.type == "cpu" and like.dtype != torch.bfloat16
        self._cheap: Callable[[Tensor], Any] = Tensor.numpy if numpy else lambda tensor: tensor
        views: Any = {name: self._cheap(tensor) for name, tensor in cache.memory.tensors().items()}
        self._memory = LTMState(**views)
        self._xp = array_module(self._memory.clock_B)
        self._cheap_keys, self._cheap_values = (
            [self._cheap(x) for x in layers] for layers in (self._keys_BHDM, self._values_BHND)
        )
        self._cheap_dull = [self._cheap(x.view(B, H, -1)) for x in self._dull_Z1N]
        self._staged_hidden = [self._cheap(x) for x in self._hidden_TBC]
        self._staged_nats, self._staged_ids = self._cheap(self._nats_TB), self._cheap(self._ids_TB)
        self._offset_S = self._cheap(torch.arange(S, device=like.device))
        self._line_T = self._cheap(torch.arange(1 - SHOWN_TOKENS, S, device=like.device))
        shown = np.arange(S)[:, None] + np.arange(SHOWN_TOKENS)
        self._shown_SN = self._cheap(torch.from_numpy(shown).to(like.device))

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
        sharp, dull = self._sharp_Z11[number], self._dull_Z1N[number]
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
        self._time = (self._time + 1) % self._length
        self._offsets = [offset + 1 for offset in self._offsets]
        self._write([row for row, offset in enumerate(self._offsets) if offset == S])

    def flush(self, rows: Sequence[int]) -> LTMState:
        """Write what the open segments of some rows have staged, for their texts end here; return their memories."""
        self._write([row for row in rows if self._offsets[row]])
        return self.cache.memory.select(torch.tensor(rows, device=self.cache.offset_B.device))

    def select(self, rows: Tensor) -> MemoryStepper:
        """Return a stepper for some of the rows, with what they have staged."""
        offset_B, started_B = (torch.tensor(x, device=rows.device)[rows] for x in (self._offsets, self._started))
        at_BT = self._places(offset_B, torch.as_tensor(self._line_T))
        at_BS, row_B1 = at_BT[:, SHOWN_TOKENS - 1 :], rows[:, None]
        lines_LBTC = torch.stack([x_TBC[at_BT[:, SHOWN_TOKENS - 2 :], row_B1] for x_TBC in self._hidden_TBC])
        cache = MemoryCache(
            memory=self.cache.memory.select(rows),
            hidden_LBSC=lines_LBTC[:, :, 1:],
            before_LBC=lines_LBTC[:, :, 0],
            nats_BS=self._nats_TB[at_BS, row_B1],
            line_BS=self._ids_TB[at_BT, row_B1],
            offset_B=offset_B,
            started_B=started_B,
            logits_BV=self._logits_BV[rows],
        )
        return MemoryStepper(self.ltm, cache)

    def _places(self, count_R: Any, offsets: Any) -> Any:
        """Return where tokens stand in the rings, counted from the first one of each row's open segment."""
        return ((self._time - count_R)[:, None] + offsets) % self._length

    def _write(self, written: Sequence[int]) -> None:
        if not written:
            return
        c, xp, memory = self.ltm.config, self._xp, self._memory
        count_R = self._array([self._offsets[row] for row in written])
        rows = self._array(written)
        place: Any = rows
        if len(written) == len(self._offsets):  # slices are views and no copies
            place = slice(None)
        elif len(written) == 1:
            place = slice(written[0], written[0] + 1)
        row_R1, at_RT = rows[:, None], self._places(count_R, self._line_T)
        at_RS = at_RT[:, SHOWN_TOKENS - 1 :]
        real_RS = self._offset_S < count_R[:, None]
        keys, values, reads_RM = [], [], 0
        for number, hidden_TBC in enumerate(self._staged_hidden):
            own_keys, own_values = self._project(number, hidden_TBC[at_RT[:, SHOWN_TOKENS - 2 :], row_R1])
            keys_BHDM = self._keys_BHDM[number]
            keys_RHDM = keys_BHDM.index_select(0, torch.as_tensor(rows)) if place is rows else keys_BHDM[place]
            best_RSM = (own_keys[:, 1:].transpose(1, 2) @ keys_RHDM.float()).amax(1)
            read_RSM = self._cheap(best_RSM > c.similarity)
            reads_RM = reads_RM + (read_RSM & real_RS[:, :, None]).sum(1)
            keys.append(self._cheap(own_keys[:, :-1].flatten(-2)))
            values.append(self._cheap(own_values[:, 1:]))
        started_R = self._array([self._started[row] for row in written])
        staged = Staged(
            keys_BSX=keys[0] if len(keys) == 1 else xp.concatenate(keys, axis=-1),
            values_BSX=values[0] if len(values) == 1 else xp.concatenate(values, axis=-1),
            surprisal_BS=self._staged_nats[at_RS, row_R1] / math.log(2),
            tokens_BSN=self._staged_ids[at_RT[:, self._shown_SN], rows[:, None, None]],
            writable_BS=real_RS & (started_R[:, None] | (self._offset_S > 0)),
            counts_B=count_R,
            reads_BM=cast("Tensor", reads_RM),
        )
        before = LTMState(
            keys_BMX=memory.keys_BMX[slice(0) if c.overwrite is None else place],  # as large as all the rest together
            values_BMX=memory.values_BMX[:0],
            tokens_BMN=memory.tokens_BMN[:0],
            beta_BMG=memory.beta_BMG[:0],
            **{name: getattr(memory, name)[place] for name in _BOOKKEEPING},
        )
        self._change(rows, place, before, staged, self.ltm.place(before, staged))
        for row in written:
            self._offsets[row], self._started[row] = 0, True

    def _project(self, number: int, line_RTC: Any) -> tuple[Tensor, Tensor]:
        """Return keys, (R, T, H, D), and values, (R, T, Y), as `Reader.project` does up to rounding."""
        c, reader = self.ltm.config, self._readers[number]
        line_RTC = torch.as_tensor(line_RTC)
        both_RTX = line_RTC @ self._project_CX[number]
        keys_RTHD = both_RTX[..., : c.width].float().unflatten(-1, (c.n_head, c.head_size))
        length_RT1 = torch.linalg.vector_norm(line_RTC.float(), dim=-1, keepdim=True)
        scale_RT1 = (length_RT1.square_() / line_RTC.shape[-1]).add_(reader.norm_eps).rsqrt_()
        return F.normalize(keys_RTHD, dim=-1), both_RTX[..., c.width :] * scale_RT1

    def _array(self, values: Sequence[int]) -> Any:
        return np.array(values) if self._xp is np else torch.tensor(values, device=self.cache.offset_B.device)

    def _change(self, rows: Any, place: Any, before: LTMState, staged: Staged, placement: Placement) -> None:
        """Carry out in place what `LTM.write` would return.

        Args:
            rows: which ones are written.
            place: the same, or a slice.
            before: their memories, maybe views.
            staged: what they offer.
            placement: what to do.
        """
        c, memory, xp = self.ltm.config, self._memory, self._xp
        r, s = xp.where(placement.enters_BS)
        b, m = rows[r], placement.place_BS[r, s]
        if c.overwrite is not None:  # places may be left empty
            gone_r, gone_m = xp.where((before.position_BM >= 0) & ~placement.stays_BM)
            for keys_BHDM in self._cheap_keys:
                keys_BHDM[rows[gone_r], :, :, gone_m] = 0.0
        dtype = memory.keys_BMX.dtype
        new_keys, new_values = (as_type(x[r, s], dtype) for x in (staged.keys_BSX, staged.values_BSX))
        memory.keys_BMX[b, m] = new_keys
        memory.values_BMX[b, m] = new_values
        heads = (len(r), len(self._readers), c.n_head, c.head_size)
        keys_NLHD, values_NLHD = new_keys.reshape(heads), new_values.reshape(heads)
        for number, (keys_BHDM, values_BHND) in enumerate(zip(self._cheap_keys, self._cheap_values, strict=True)):
            keys_BHDM[b, :, :, m] = keys_NLHD[:, number]
            values_BHND[b, :, m] = values_NLHD[:, number]
        position_N = placement.position_BS[r, s]
        memory.position_BM[place] = xp.where(placement.stays_BM, before.position_BM, -1)
        memory.position_BM[b, m] = position_N
        memory.used_BM[place] = placement.used_BM
        memory.used_BM[b, m] = position_N
        memory.reads_BM[place] = before.reads_BM + staged.reads_BM
        memory.reads_BM[b, m] = 0
        memory.surprisal_BM[b, m] = placement.surprisal_BS[r, s]
        memory.tokens_BMN[b, m] = staged.tokens_BSN[r, s]
        if c.slots:  # a slot may have been replaced
            memory.members_BM[b, m] = 0
            memory.beta_BMG[b, m] = 0.0
            for dull_BHM, sharp_Z11 in zip(self._cheap_dull, self._sharp_Z11, strict=True):
                dull_BHM[b, :, m] = -self._cheap(sharp_Z11.view(-1, c.n_head))[b]
        memory.recent_BS[place] = xp.where(staged.writable_BS, placement.surprisal_BS, math.nan)
        memory.clock_B[place] = before.clock_B + staged.counts_B
        self._holds = self._holds or len(b) > 0
