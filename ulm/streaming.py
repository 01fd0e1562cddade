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
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ulm.memory.ltm import LTM, Control, Reader, shuffled
from ulm.memory.state import SHOWN_TOKENS, LTMState, RowState, Staged
from ulm.model import IGNORE, Block, Decoder, attend, attend_quickly

Between = Callable[[LTMState], LTMState]


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


_PER_TOKEN = ("nats_BS", "written_BS", "surprisal_BS", "read_BS")
"""Fields of a reading with one entry per token."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What reading a text gave.

    Attributes:
        logits: after each token, (B, S, V), in parts of one segment each.
        state: after the text.
        nats_BS: loss of each label, 0 where it is not learned; None without labels.
        written_BS: tokens that were written to memory.
        surprisal_BS: bits of each token, 0 where nothing predicted it, or without a memory.
        read_BS: whether a position read any item, with any layer.
        staged: what the last segment offered to the memory; None without one.
        hidden: the residual stream of the last segment at each block that reads, (B, S, C).
    """

    logits: tuple[Tensor, ...]
    state: StreamState
    nats_BS: Tensor | None
    written_BS: Tensor
    surprisal_BS: Tensor
    read_BS: Tensor
    staged: Staged | None = None
    hidden: tuple[Tensor, ...] = ()

    def all_logits(self) -> Tensor:
        """Return the logits of all parts, (B, S, V)."""
        return self.logits[0] if len(self.logits) == 1 else torch.cat(self.logits, dim=1)

    @classmethod
    def join(cls, parts: Sequence[Reading]) -> Reading:
        """Return what reading several parts of a text, one after the other, gave."""
        by_name = {name: [getattr(part, name) for part in parts] for name in _PER_TOKEN}
        joined: Any = {name: torch.cat(found, dim=1) for name, found in by_name.items() if found[0] is not None}
        return replace(parts[-1], logits=tuple(logits for part in parts for logits in part.logits), **joined)


@dataclass(slots=True)
class _MemoryPass:
    """The memory's part in reading one segment: what is looked up on the way, and what is offered for writing.

    Attributes:
        ltm: readers and rules.
        state: the memory during the segment.
        real_BS: False at padding.
        writable_BS: False where nothing may be written; None forbids nothing.
        control, seed: as in `read_chunk`.
        passed: of each block that reads: the residual stream, keys and values made from it, and where items were read.
    """

    ltm: LTM
    state: LTMState
    real_BS: Tensor
    writable_BS: Tensor | None
    control: Control
    seed: int
    passed: list[tuple[Tensor, Tensor, Tensor, Tensor]] = field(default_factory=list)

    def add(self, layer: int, x_BSC: Tensor) -> Tensor:
        """Return the residual stream before a block, with what the memory has to say there."""
        if layer not in self.ltm.config.layers:
            return x_BSC
        number, Y = len(self.passed), self.ltm.config.width
        reader = cast("Reader", self.ltm.readers[number])
        keys_BSY, values_BSY = reader.project(x_BSC)
        memory = shuffled(self.state, self.seed) if self.control == "shuffled_values" else self.state
        part = slice(number * Y, (number + 1) * Y)
        there_BM = memory.position_BM >= 0
        keys_BMY, values_BMY, beta_BMH = memory.keys_BMX[..., part], memory.values_BMX[..., part], None
        if self.ltm.config.slots:
            H = self.ltm.config.n_head
            beta_BMH = memory.beta_BMG[..., number * H : (number + 1) * H]
        added, read_BSM = reader.read(keys_BSY, keys_BMY, values_BMY, there_BM, beta_BMH)
        self.passed.append((x_BSC, keys_BSY, values_BSY, read_BSM))
        return x_BSC if self.control == "no_reads" else x_BSC + added

    def finish(self, reading: Reading, before: StreamState, ids_BS: Tensor) -> Reading:
        """Write what was surprising, and return the reading with it."""
        surprisal_BS = _surprisal(reading.logits[0], before.logits_BV, ids_BS, reading.nats_BS)
        writable_BS = before.seen_B[:, None] + torch.arange(ids_BS.shape[1], device=ids_BS.device) > 0
        writable_BS = writable_BS & self.real_BS
        if self.writable_BS is not None:
            writable_BS = writable_BS & self.writable_BS
        hidden, keys, values, read = zip(*self.passed, strict=True)
        read_BSM = torch.stack(read).sum(0) * self.real_BS[:, :, None]
        asked_BSX = torch.cat(keys, dim=-1)
        staged = Staged(
            keys_BSX=torch.cat((before.key_BX[:, None], asked_BSX[:, :-1]), dim=1),
            values_BSX=torch.cat(values, dim=-1),
            surprisal_BS=surprisal_BS,
            tokens_BSN=torch.cat((before.tail_BN, ids_BS), dim=1).unfold(1, SHOWN_TOKENS, 1),
            writable_BS=writable_BS,
            counts_B=self.real_BS.sum(1),
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
            hidden=hidden,
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
            logits_NV, next_BS = logits_BSV[:, :-1].flatten(0, 1).float(), ids_BS[:, 1:]
            nats_BS = F.cross_entropy(logits_NV, next_BS.flatten(), reduction="none").view_as(next_BS)
        else:
            nats_BS = nats_BS[:, :-1]
        return torch.cat((first, nats_BS), dim=1) / math.log(2)


@dataclass(slots=True)
class _WindowPass:
    """The window's part in reading: the keys that were carried here, those that come, and which of them a token sees.

    Attributes:
        model: the µLM.
        before: the state; its rows start anew if `fresh`.
        fresh: nothing was carried here.
        batch_invariant: as in `read_chunk`.
        kv: per layer the keys and values that have come.
        biases: as `_bias` makes them, by place and number of tokens.
    """

    model: Decoder
    before: StreamState
    fresh: bool
    batch_invariant: bool
    kv: defaultdict[int, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    biases: dict[tuple[int, int], Tensor | None] = field(default_factory=dict)

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
        if (start, S) not in self.biases:
            self.biases[start, S] = self._bias(start, S)
        bias_BSQ = self.biases[start, S]
        if self.batch_invariant and bias_BSQ is not None:
            return block.finish(x_BSC, attend(q, keys, values, bias_BSQ))
        return block.finish(x_BSC, attend_quickly(q, keys, values, bias_BSQ))

    def _bias(self, start: int, S: int) -> Tensor | None:
        """Return what attention adds to the scores of earlier and new keys, (B, S, Q): 0, or -inf where not seen.

        None stands for the new tokens alone, each seeing those before it.
        """
        if self.fresh and not start:
            return None
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
        for layer, new in self.kv.items():
            line = torch.cat((self.before.kv_BLKED[:, layer].to(new[0].dtype), *new), dim=1)
            layers.append(line.gather(1, kept_BK11.expand(-1, -1, *line.shape[2:])))
        return torch.stack(layers, dim=1)


def read_chunk(
    model: Decoder,
    ids_BS: Tensor,
    state: StreamState | None,
    labels_BS: Tensor | None = None,
    *,
    counts_B: Tensor | None = None,
    writable_BS: Tensor | None = None,
    control: Control = "none",
    seed: int = 0,
    batch_invariant: bool = False,
    between: Between | None = None,
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
        writable_BS: False at tokens that may not be written to memory; None forbids nothing.
        control: takes one thing away that memory needs.
        seed: of the control's randomness.
        batch_invariant: attention by plain products, so that a row gets the same bits in any batch of a multiple of
            `ROW_MULTIPLE` rows; for decoding, with a state and one segment.
        between: what becomes of the memories after each segment, such as a `Consolidator`.

    Raises:
        ValueError: there are too many tokens.
    """
    c = model.config
    B, S = ids_BS.shape
    if c.chunk < S:
        raise ValueError(f"{S} tokens are more than a chunk of {c.chunk}; read them in parts")
    before = state or StreamState.empty(model, B)
    offsets = torch.arange(S, device=ids_BS.device)
    if counts_B is not None:
        real_BS = offsets < counts_B[:, None]
    else:
        real_BS = torch.ones_like(ids_BS, dtype=torch.bool) if labels_BS is None else labels_BS != IGNORE
    counts_B = real_BS.sum(1)
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
        ids, x, real = ids_BS[:, part], below_BSC[:, part], real_BS[:, part]
        memory = None
        if model.ltm is not None and now.memory is not None:
            writable = None if writable_BS is None else writable_BS[:, part]
            memory = _MemoryPass(model.ltm, now.memory, real, writable, control, seed)
        for layer in range(first, c.n_layer):
            if memory is not None:
                x = memory.add(layer, x)
            x = window.read(layer, x, start, rotation)
        logits = model.logits(x)
        nats_BS = None
        if labels_BS is not None:
            logits_NV, labels_N = logits.flatten(0, 1).float(), labels_BS[:, part].flatten()
            nats_BS = F.cross_entropy(logits_NV, labels_N, reduction="none", ignore_index=IGNORE).view_as(ids)
        tail_BN = torch.cat((now.tail_BN, ids), dim=1)[:, ids.shape[1] :]
        after, none_BS = replace(now, seen_B=now.seen_B + real.sum(1), tail_BN=tail_BN), torch.zeros_like(real)
        reading = Reading((logits,), after, nats_BS, none_BS, none_BS.float(), none_BS)
        parts.append(reading if memory is None else memory.finish(reading, now, ids))
        now = parts[-1].state
        if between is not None and now.memory is not None:
            now = replace(now, memory=between(now.memory))
    whole = Reading.join(parts)
    return replace(whole, state=replace(now, kv_BLKED=window.carried_on(counts_B)))


def read_chunks(
    model: Decoder,
    ids_BT: Tensor,
    state: StreamState | None = None,
    labels_BT: Tensor | None = None,
    *,
    writable_BT: Tensor | None = None,
    control: Control = "none",
    seed: int = 0,
    between: Between | None = None,
) -> Iterator[tuple[slice, Reading]]:
    """Read T tokens of every row; yield where each chunk lies and what reading it gave (arguments: `read_chunk`)."""
    for start in range(0, ids_BT.shape[1], model.config.chunk):
        place = slice(start, start + model.config.chunk)
        labels_BS = None if labels_BT is None else labels_BT[:, place]
        writable_BS = None if writable_BT is None else writable_BT[:, place]
        reading = read_chunk(
            model,
            ids_BT[:, place],
            state,
            labels_BS,
            writable_BS=writable_BS,
            control=control,
            seed=seed,
            between=between,
        )
        state = reading.state
        yield place, reading


def read_document(
    model: Decoder,
    ids_BT: Tensor,
    state: StreamState | None = None,
    labels_BT: Tensor | None = None,
    *,
    writable_BT: Tensor | None = None,
    control: Control = "none",
    seed: int = 0,
) -> Reading:
    """Read T tokens of every row; arguments and result as in `read_chunk`.

    Without `state` the rows are at the start of their documents.
    """
    if not ids_BT.shape[1]:
        raise ValueError("there is nothing to read")
    parts = read_chunks(model, ids_BT, state, labels_BT, writable_BT=writable_BT, control=control, seed=seed)
    return Reading.join([reading for _, reading in parts])
