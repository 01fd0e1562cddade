"""Reading documents of any length: segment after segment, with the window's keys and the long-term memory carried on.

- One path for both arms of a comparison: a model without memory reads in the same way, and what differs is the memory.
- The state goes in and comes out. Rows are independent documents, each at its own place, and start anew when told to.
- Gradients flow through everything within one call; `StreamState.detach` cuts them between calls.
- Segments lie at fixed places of a document, so cutting the reading in calls between chunks changes nothing, and
  between segments of a chunk no more than the rounding of the blocks that see whole chunks.

Axes as in `ulm.model` and `ulm.memory.ltm`; K = window - 1 carried keys, S tokens of a segment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ulm.memory.ltm import Control, Reader, shuffled
from ulm.memory.state import SHOWN_TOKENS, LTMState, RowState, Staged
from ulm.model import IGNORE, Block, Decoder, attend


@dataclass(frozen=True, slots=True)
class StreamState(RowState):
    """What B rows remember of their documents.

    Attributes:
        kv_BLKED: rotated keys, then values, of the last K tokens of every layer.
        seen_B: tokens of the document read so far.
        tail_BN: ids of the last `SHOWN_TOKENS` - 1 tokens, -1 before the start.
        logits_BV: of the last token read; what is asked how surprising the next one is.
        key_BX: what the last token asked the memory.
        memory: None without one.
    """

    kv_BLKED: Tensor
    seen_B: Tensor
    tail_BN: Tensor
    logits_BV: Tensor
    key_BX: Tensor
    memory: LTMState | None

    @classmethod
    def empty(cls, model: Decoder, batch: int) -> StreamState:
        """Return the state before the first token."""
        c, device, dtype = model.config, model.device, model.dtype
        X = len(c.ltm.layers) * c.ltm.width if c.ltm else 0
        return cls(
            kv_BLKED=torch.zeros(
                batch, c.n_layer, c.window - 1, 2 * c.n_kv_head, c.head_size, device=device, dtype=dtype
            ),
            seen_B=torch.zeros(batch, device=device, dtype=torch.long),
            tail_BN=torch.full((batch, SHOWN_TOKENS - 1), -1, device=device, dtype=torch.long),
            logits_BV=torch.zeros(batch, c.vocab_size if c.ltm else 0, device=device),
            key_BX=torch.zeros(batch, X, device=device),
            memory=LTMState.empty(c.ltm, batch, device=device, dtype=dtype) if c.ltm else None,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return everything by name; what the memory holds is called `memory.` and its name there."""
        found = {name: tensor for name, tensor in super(StreamState, self).tensors().items() if name != "memory"}
        memory = self.memory.tensors() if self.memory else {}
        return found | {f"memory.{name}": tensor for name, tensor in memory.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor]) -> StreamState:
        """Rebuild what `tensors` gave."""
        memory = {k.removeprefix("memory."): v for k, v in tensors.items() if k.startswith("memory.")}
        own = {name: tensor for name, tensor in tensors.items() if not name.startswith("memory.")}
        return cls(**own, memory=LTMState.from_tensors(memory) if memory else None)

    def restarted(self, documents_B: Tensor, texts_B: Tensor | None = None) -> StreamState:
        """Return a state in which some rows start anew.

        Args:
            documents_B: rows that start another document: window and memory are empty.
            texts_B: rows that start another text of the same document, such as an agent's next prompt: the window is
                empty, the memory goes on.
        """
        emptied_B = documents_B if texts_B is None else documents_B | texts_B
        return replace(
            self,
            seen_B=self.seen_B * ~emptied_B,
            tail_BN=torch.where(emptied_B[:, None], -1, self.tail_BN),
            memory=self.memory.cleared(documents_B) if self.memory else None,
        )


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading a text gave.

    Attributes:
        logits: after each token, (B, S, V), in parts of one segment each.
        state: after the text.
        nats_BS: loss of each label, 0 where it is not learned; None without labels.
        written_BS: tokens that were written to memory; None without one.
        surprisal_BS: bits of each token, 0 where nothing predicted it; None without a memory.
        read_BS: whether a position read any item, with any layer; None without a memory.
        staged: what the last segment offered to the memory; None without one.
        hidden: the residual stream of the last segment at each block that reads, (B, S, C).
    """

    logits: tuple[Tensor, ...]
    state: StreamState
    nats_BS: Tensor | None = None
    written_BS: Tensor | None = None
    surprisal_BS: Tensor | None = None
    read_BS: Tensor | None = None
    staged: Staged | None = None
    hidden: tuple[Tensor, ...] = ()

    def all_logits(self) -> Tensor:
        """Return the logits of all parts, (B, S, V)."""
        return self.logits[0] if len(self.logits) == 1 else torch.cat(self.logits, dim=1)

    @classmethod
    def join(cls, parts: Sequence[Reading]) -> Reading:
        """Return what reading several parts of a text, one after the other, gave."""
        if len(parts) == 1:
            return parts[0]

        def joined(name: str) -> Tensor | None:
            found = [getattr(part, name) for part in parts]
            return None if found[0] is None else torch.cat(found, dim=1)

        return cls(
            logits=tuple(logits for part in parts for logits in part.logits),
            state=parts[-1].state,
            nats_BS=joined("nats_BS"),
            written_BS=joined("written_BS"),
            surprisal_BS=joined("surprisal_BS"),
            read_BS=joined("read_BS"),
            staged=parts[-1].staged,
            hidden=parts[-1].hidden,
        )


class _MemoryPass:
    """The memory's part in reading one segment: what is looked up on the way, and what is offered for writing."""

    def __init__(self, model: Decoder, state: LTMState, real_BS: Tensor | None, control: Control, seed: int) -> None:
        if model.ltm is None:
            raise ValueError("a state with a memory belongs to a model that has one")
        self.ltm = model.ltm
        self.state = state
        self.read_from = shuffled(state, seed) if control == "shuffled_values" else state
        self.there_BM = state.position_BM >= 0
        self.real_BS, self.control, self.seed = real_BS, control, seed
        self.readers = dict(zip(model.ltm.config.layers, model.ltm.readers, strict=True))
        self.hidden: list[Tensor] = []
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.read: list[Tensor] = []

    def add(self, layer: int, x_BSC: Tensor) -> Tensor:
        """Return the residual stream before a block, with what the memory has to say there."""
        if layer not in self.readers:
            return x_BSC
        reader = cast("Reader", self.readers[layer])
        keys_BSY, values_BSY = reader.project(x_BSC)
        Y = keys_BSY.shape[-1]
        part = slice(len(self.keys) * Y, (len(self.keys) + 1) * Y)
        memory = self.read_from
        added, read_BSM = reader.read(keys_BSY, memory.keys_BMX[..., part], memory.values_BMX[..., part], self.there_BM)
        self.hidden.append(x_BSC)
        self.keys.append(keys_BSY)
        self.values.append(values_BSY)
        self.read.append(read_BSM)
        return x_BSC if self.control == "no_reads" else x_BSC + added

    def finish(self, reading: Reading, before: StreamState, ids_BS: Tensor, counts_B: Tensor) -> Reading:
        """Write what was surprising, and return the reading with it."""
        surprisal_BS = _surprisal(reading.logits[0], before.logits_BV, ids_BS, reading.nats_BS)
        writable_BS = before.seen_B[:, None] + torch.arange(ids_BS.shape[1], device=ids_BS.device) > 0
        read_BSM = sum(self.read[1:], self.read[0].long())
        if self.real_BS is not None:
            writable_BS = writable_BS & self.real_BS
            read_BSM = read_BSM * self.real_BS[:, :, None]
        asked_BSX = torch.cat(self.keys, dim=-1)
        staged = Staged(
            keys_BSX=torch.cat((before.key_BX[:, None], asked_BSX[:, :-1]), dim=1),
            values_BSX=torch.cat(self.values, dim=-1),
            surprisal_BS=surprisal_BS,
            tokens_BSN=torch.cat((before.tail_BN, ids_BS), dim=1).unfold(1, SHOWN_TOKENS, 1),
            writable_BS=writable_BS,
            counts_B=counts_B,
            reads_BM=read_BSM.sum(1),
        )
        memory, written_BS = self.ltm.write(self.state, staged, self.control, self.seed)
        last = reading.logits[0][:, -1].detach().float()
        return replace(
            reading,
            state=replace(reading.state, memory=memory, logits_BV=last, key_BX=asked_BSX[:, -1]),
            written_BS=written_BS,
            surprisal_BS=surprisal_BS * writable_BS,
            read_BS=read_BSM.any(-1),
            staged=staged,
            hidden=tuple(self.hidden),
        )


def _surprisal(logits_BSV: Tensor, before_BV: Tensor, ids_BS: Tensor, nats_BS: Tensor | None) -> Tensor:
    """Return the bits of each token under the logits of the position before it.

    Args:
        logits_BSV: after each token.
        before_BV: before the first one.
        ids_BS: the tokens.
        nats_BS: the loss of labels that are the next tokens, where it is known already.
    """
    with torch.no_grad():
        first = F.cross_entropy(before_BV, ids_BS[:, 0], reduction="none")[:, None]
        if nats_BS is None:
            nats = F.cross_entropy(logits_BSV[:, :-1].flatten(0, 1).float(), ids_BS[:, 1:].flatten(), reduction="none")
            nats_BS = nats.view(ids_BS.shape[0], -1)
        else:
            nats_BS = nats_BS[:, :-1]
        return torch.cat((first, nats_BS), dim=1) / math.log(2)


class _WindowPass:
    """The window's part in reading: the keys that were carried here, those that come, and which of them a token sees.

    Args:
        model: the µLM.
        before: the state; its rows start anew if `fresh`.
        fresh: nothing was carried here.
        batch_invariant: as in `read_chunk`.
    """

    def __init__(self, model: Decoder, before: StreamState, fresh: bool, batch_invariant: bool) -> None:
        self.model = model
        self.before = before
        self.fresh = fresh
        self.batch_invariant = batch_invariant
        self.kv: list[list[Tensor]] = [[] for _ in model.blocks]
        self._biases: dict[tuple[int, int], Tensor | None] = {}

    def read(self, layer: int, x_BSC: Tensor, start: int, rotation: tuple[Tensor, Tensor]) -> Tensor:
        """Return the residual stream after a block, of tokens that begin `start` tokens after what was carried here."""
        block = cast("Block", self.model.blocks[layer])
        S = x_BSC.shape[1]
        cos, sin = (angles[:, start : start + S] for angles in rotation)
        q, k, v = block.project(x_BSC, cos, sin)
        new = torch.cat((k, v), dim=2)
        # The first tokens of what was carried have left the window since.
        seen = [] if self.fresh else [self.before.kv_BLKED[:, layer, start:].to(new.dtype)]
        seen += [*self.kv[layer], new]
        self.kv[layer].append(new)
        keys, values = (new if len(seen) == 1 else torch.cat(seen, dim=1)).chunk(2, dim=2)
        bias_BSQ = self._bias(start, S)
        if self.batch_invariant and bias_BSQ is not None:
            return block.finish(x_BSC, attend(q, keys, values, bias_BSQ))
        return block.finish(x_BSC, _attend_quickly(self.model, q, keys, values, bias_BSQ))

    def _bias(self, start: int, S: int) -> Tensor | None:
        """Return what attention adds to the scores of earlier and new keys, (B, S, Q): 0, or -inf where not seen.

        None stands for the new tokens alone, each seeing those before it.
        """
        if (start, S) not in self._biases:
            self._biases[start, S] = None if self.fresh and not start else self._make_bias(start, S)
        return self._biases[start, S]

    def _make_bias(self, start: int, S: int) -> Tensor:
        model, W, seen_B = self.model, self.model.config.window, self.before.seen_B
        offsets = torch.arange(S, device=model.device)
        # How much older than the first new token each earlier key is.
        older_K = torch.arange(start if self.fresh else W - 1, 0, -1, device=model.device)
        within_BSK = (older_K + offsets[:, None] < W) & (older_K <= seen_B[:, None, None] + start)
        causal_SS = offsets[:, None] >= offsets
        seen = torch.cat((within_BSK, causal_SS.expand(len(seen_B), S, S)), dim=-1)
        return torch.zeros_like(seen, dtype=model.dtype).masked_fill_(~seen, -math.inf)

    def carried_on(self, counts_B: Tensor) -> Tensor:
        """Return the last keys and values of all layers that are no padding."""
        K = self.model.config.window - 1
        kept_BK11 = (counts_B[:, None] + torch.arange(K, device=counts_B.device))[..., None, None]
        layers = []
        for before_BKED, new in zip(self.before.kv_BLKED.unbind(1), self.kv, strict=True):
            line = torch.cat((before_BKED.to(new[0].dtype), *new), dim=1)
            layers.append(line.gather(1, kept_BK11.expand(-1, -1, *line.shape[2:])))
        return torch.stack(layers, dim=1)


def _attend_quickly(model: Decoder, q: Tensor, keys: Tensor, values: Tensor, bias_BSQ: Tensor | None) -> Tensor:
    heads = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        keys.transpose(1, 2),
        values.transpose(1, 2),
        attn_mask=None if bias_BSQ is None else bias_BSQ[:, None].to(q.dtype),
        is_causal=bias_BSQ is None,
        enable_gqa=model.config.n_head != model.config.n_kv_head,
    )
    return heads.transpose(1, 2)


def read_chunk(
    model: Decoder,
    ids_BS: Tensor,
    state: StreamState | None,
    labels_BS: Tensor | None = None,
    *,
    counts_B: Tensor | None = None,
    control: Control = "none",
    seed: int = 0,
    batch_invariant: bool = False,
) -> Reading:
    """Read a chunk of every row, at most `ModelConfig.chunk` tokens; with a memory, segment after segment.

    Blocks below the first one that reads the memory know nothing of it, so they see all tokens at once.

    Args:
        model: the µLM.
        ids_BS: token ids. Only the last ones of a document may be no whole segments, or padded.
        state: after what was read before; None, which costs less, means that all rows are at their start.
        labels_BS: the next tokens, `IGNORE` at padding.
        counts_B: tokens of each row that are no padding, which comes last; None takes those with a label, or all
            without labels.
        control: takes one thing away that memory needs.
        seed: of the control's randomness.
        batch_invariant: attention by plain products, so that a row gets the same bits in any batch of a multiple of
            `ROW_MULTIPLE` rows; for decoding, with a state and one segment.

    Raises:
        ValueError: there are too many tokens.
    """
    c = model.config
    B, S = ids_BS.shape
    if c.chunk < S:
        raise ValueError(f"{S} tokens are more than a chunk of {c.chunk}; read them in parts")
    before = state or StreamState.empty(model, B)
    offsets = torch.arange(S, device=ids_BS.device)
    real_BS = None if counts_B is None else offsets < counts_B[:, None]
    if real_BS is None and labels_BS is not None:
        real_BS = labels_BS != IGNORE
    if counts_B is None:
        counts_B = torch.full_like(before.seen_B, S) if real_BS is None else real_BS.sum(1)
    window = _WindowPass(model, before, state is None, batch_invariant)
    rotation = model.rope(before.seen_B[:, None] + offsets)
    first = c.n_layer if c.ltm is None else c.ltm.layers[0]
    below_BSC = model.embed(ids_BS)
    for layer in range(first):
        below_BSC = window.read(layer, below_BSC, 0, rotation)
    parts: list[Reading] = []
    now = before
    for start in range(0, S, c.segment):
        part = slice(start, start + c.segment)
        ids, x = ids_BS[:, part], below_BSC[:, part]
        real = None if real_BS is None else real_BS[:, part]
        counts = (counts_B - start).clamp(0, ids.shape[1])
        memory = None if now.memory is None else _MemoryPass(model, now.memory, real, control, seed)
        for layer in range(first, c.n_layer):
            if memory is not None:
                x = memory.add(layer, x)
            x = window.read(layer, x, start, rotation)
        logits = model.logits(x)
        nats_BS = None
        if labels_BS is not None:
            labels = labels_BS[:, part].flatten()
            nats = F.cross_entropy(logits.flatten(0, 1).float(), labels, reduction="none", ignore_index=IGNORE)
            nats_BS = nats.view_as(ids)
        tail_BN = torch.cat((now.tail_BN, ids), dim=1)[:, ids.shape[1] :]
        reading = Reading((logits,), replace(now, seen_B=now.seen_B + counts, tail_BN=tail_BN), nats_BS)
        parts.append(reading if memory is None else memory.finish(reading, now, ids, counts))
        now = parts[-1].state
    whole = Reading.join(parts)
    return replace(whole, state=replace(now, kv_BLKED=window.carried_on(counts_B)))


def read_document(
    model: Decoder,
    ids_BT: Tensor,
    state: StreamState | None = None,
    labels_BT: Tensor | None = None,
    *,
    control: Control = "none",
    seed: int = 0,
) -> Reading:
    """Read T tokens of every row; arguments and result as in `read_chunk`.

    Without `state` the rows are at the start of their documents.
    """
    parts = []
    for start in range(0, ids_BT.shape[1], model.config.chunk):
        part = slice(start, start + model.config.chunk)
        labels_BS = None if labels_BT is None else labels_BT[:, part]
        parts.append(read_chunk(model, ids_BT[:, part], state, labels_BS, control=control, seed=seed))
        state = parts[-1].state
    if not parts:
        raise ValueError("there is nothing to read")
    return Reading.join(parts)
