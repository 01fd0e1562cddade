"""Batched decoding of many independent texts.

- One `Engine` per model; requests go in, results come out in the same order.
- What a request generates depends on the request alone, never on its batch: its ring
  follows from its own lengths, what the batch adds to its attention are exact zeros (see `ulm.decode.stepper`), matrix
  products see a multiple of `ROW_MULTIPLE` rows, and every row draws from its own stream of uniforms.
- Sampling inverts the cumulative distribution with one uniform per token, so a row's stream needs no shared generator.
- Knows text, not meaning: actions, agents and budgets live elsewhere.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor

from ulm.decode.constraint import Constraint, Matcher, mask_logits
from ulm.decode.deltas import RowDeltas, padded_shape
from ulm.decode.inline import Ask, Inline, answered
from ulm.decode.prompts import join_read, read_prompts
from ulm.decode.stepper import LeanDecoder, Stepper
from ulm.delta import Delta
from ulm.memory.exact import ExactIndex, recall
from ulm.memory.ltm import LTM
from ulm.memory.ngrams import NOTHING
from ulm.memory.state import LTMState
from ulm.memory.stepping import MemoryStepper
from ulm.model import ROW_MULTIPLE, Decoder, KVCache, padded, round_up
from ulm.tokenizer import Tokenizer

CHUNK_MULTIPLE = 4
FEWEST_SLOTS = 128
"""Rings have so many slots, or twice, four, eight times as many; rows with equally many are decoded together. One batch
for the prompts and actions of most worlds; rows of more than 64 tokens pay for at most twice the memory they need."""


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One text to continue.

    Attributes:
        prompt: text to read, or its ids; an empty one starts at end-of-text.
        seed: seeds this request's uniforms.
        max_new_tokens: at least 1.
        temperature: 0 takes the most likely token.
        top_p: nucleus sampling (Holtzman et al., arXiv:1904.09751); 1 turns it off.
        stop: generation ends when one of these strings appears; it is cut from the text.
        constraint: what the text may be.
        memory: what the long-term memory of a model that has one holds at the start, one row; None means nothing.
        facts: exact memory: where prompt and answer so far end with a key, its value follows, unless a constraint
            forbids it.
        opening: so many ids at the beginning of `prompt` open other prompts, too: they are read once and kept. Only for
            prompts of ids, of which it must leave one; with a long-term memory, or where a prompt is longer than the
            window, all is read. As the prompt does, it decides the result to the last bit.
        delta: what the writer of this text has learned beside the model; None reads and writes with the model alone.
        inline: answers what is being written where it ends with one of `inline_marks`; what it says is appended, counts
            for `max_new_tokens`, and is read before the text goes on. Not with a constraint.
    """

    prompt: str | tuple[int, ...]
    seed: int
    max_new_tokens: int = 32
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    constraint: Constraint | None = None
    memory: LTMState | None = None
    facts: ExactIndex | None = None
    opening: int = 0
    delta: Delta | None = None
    inline: Ask | None = None
    inline_marks: tuple[str, ...] = ("=",)


@dataclass(frozen=True, slots=True)
class GenerationResult:
    """What was generated. `generated_tokens` counts every sampled token, the stop included.

    `inlined` are the spans of the text, in characters, that inline answers appended, in `inlined_tokens` tokens.
    `memory` is what the long-term memory holds after prompt and answer, the last token not read; None without one.
    """

    text: str
    prompt_tokens: int
    generated_tokens: int
    finish: Literal["stop", "end", "length"]
    memory: LTMState | None = None
    inlined: tuple[tuple[int, int], ...] = ()
    inlined_tokens: int = 0


@dataclass(slots=True)
class _Row:
    request: GenerationRequest
    ids: list[int]
    uniforms: np.ndarray
    produced: list[int]
    matcher: Matcher | None
    text: str = ""
    finish: Literal["stop", "end", "length"] | None = None
    memory: LTMState | None = None
    delta: Delta | None = None
    inline: Inline | None = None

    def result(self) -> GenerationResult:
        spans, tokens = (tuple(self.inline.spans), self.inline.tokens) if self.inline else ((), 0)
        sampled = len(self.produced) - tokens
        return GenerationResult(self.text, len(self.ids), sampled, self.finish or "length", self.memory, spans, tokens)


def sample(logits_BV: Tensor, uniforms_B: Tensor, temperature: float, top_p: float) -> Tensor:
    """Return one token id per row.

    Args:
        logits_BV: float logits; -inf forbids a token.
        uniforms_B: one number in [0, 1) per row.
        temperature: 0 is greedy.
        top_p: keep the smallest set of most likely tokens whose probability reaches this.

    Returns:
        (B,) int64 ids; each depends on its own row only.
    """
    if temperature == 0.0:
        if logits_BV.device.type == "cpu" and logits_BV.dtype == torch.float32:  # an eighth of the time
            return torch.from_numpy(logits_BV.numpy().argmax(axis=-1))
        return logits_BV.argmax(dim=-1)
    probabilities = (logits_BV.float() / temperature).softmax(dim=-1)
    order: Tensor | None = None
    if top_p < 1.0:
        probabilities, order = probabilities.sort(dim=-1, descending=True, stable=True)
        before = probabilities.cumsum(dim=-1) - probabilities
        probabilities = probabilities.masked_fill(before >= top_p, 0.0)
    cumulative = probabilities.cumsum(dim=-1)
    # Scaling by the total keeps rounding from pointing past the last token that is allowed.
    threshold = uniforms_B[:, None] * cumulative[:, -1:]
    choice = torch.searchsorted(cumulative, threshold, right=True).clamp_(max=logits_BV.shape[-1] - 1)
    if order is not None:
        choice = order.gather(1, choice)
    return choice[:, 0]


def _recalled(logits_BV: Tensor, live: Sequence[_Row]) -> Tensor:
    """Return logits under which each row's facts are recalled; rows that end with no key keep theirs to the bit."""
    says_B1 = np.full((logits_BV.shape[0], 1), NOTHING, dtype=np.int64)
    for i, row in enumerate(live):
        if row.request.facts is not None and row.finish is None:
            says_B1[i] = row.request.facts.after([*row.ids, *row.produced])
    return recall(logits_BV[:, None], says_B1)[:, 0]


class Engine:
    """Decodes batches with one model.

    Args:
        model: the µLM, already on its device and of its final type: do not move it or replace its weights afterwards.
        tokenizer: its tokenizer.
        max_batch: rows per forward pass.
        compile: run decoding steps through torch.compile (worth it on GPU; compiling takes seconds).
        pack: copy the weights of large models into the order in which a CPU reads them fastest (takes a second).
    """

    def __init__(
        self, model: Decoder, tokenizer: Tokenizer, max_batch: int = 256, *, compile: bool = False, pack: bool = True
    ) -> None:
        if max_batch < ROW_MULTIPLE or max_batch % ROW_MULTIPLE:
            raise ValueError(f"max_batch must be a multiple of {ROW_MULTIPLE}, got {max_batch}")
        if compile and model.ltm is not None:
            raise ValueError("decoding with a long-term memory cannot be compiled; leave compile off")
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_batch = max_batch
        self._compiled = torch.compile(model.extend, dynamic=False) if compile else None
        self._lean = LeanDecoder(model, pack=pack and not compile)
        # Pretrained models may have more rows than their tokenizer has tokens, to fill up a round number.
        self._texts = tokenizer.token_texts + [""] * (model.config.vocab_size - len(tokenizer.token_texts))

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each text."""
        return [len(ids) for ids in self.tokenizer.encode_batch(texts)] if texts else []

    def generate(
        self, requests: Sequence[GenerationRequest], deadline_s: float | None = None
    ) -> list[GenerationResult]:
        """Continue every request.

        Args:
            requests: any number, any mixture of settings.
            deadline_s: `time.monotonic()` value after which decoding stops.

        Raises:
            ValueError: a request asks for no tokens, its constrained text cannot go on, or its opening leaves nothing.
            TimeoutError: the deadline passed.
        """
        rows: list[_Row] = []
        texts = [r.prompt for r in requests if isinstance(r.prompt, str)]
        encoded = iter(self.tokenizer.encode_batch(texts) if texts else [])
        for request in requests:
            ids = next(encoded) if isinstance(request.prompt, str) else list(request.prompt)
            if request.max_new_tokens < 1:
                raise ValueError("max_new_tokens must be at least 1")
            if request.opening and (isinstance(request.prompt, str) or not 0 < request.opening < len(ids)):
                raise ValueError(f"an opening of {request.opening} tokens needs a prompt of more ids, not text")
            # PCG64 streams are specified bit for bit by numpy, so a seed means the same on every machine.
            uniforms = np.random.Generator(np.random.PCG64(request.seed)).random(
                request.max_new_tokens, dtype=np.float32
            )
            matcher = request.constraint.matcher() if request.constraint else None
            row = _Row(request, ids or [self.tokenizer.eot_id], uniforms, [], matcher)
            if any(padded_shape(request.delta)):  # a delta that changes nothing is none
                if self._compiled is not None:
                    raise ValueError("decoding with a delta cannot be compiled; leave compile off")
                row.delta = request.delta
            if request.inline is not None:
                if matcher is not None:
                    raise ValueError("inline answers cannot be kept to a constraint; leave one of them out")
                row.inline = Inline(request.inline, request.inline_marks, self.tokenizer.encode)
            rows.append(row)
        groups: dict[tuple[int, float, float], list[_Row]] = {}
        for row in rows:
            slots = FEWEST_SLOTS
            while slots < len(row.ids) + row.request.max_new_tokens:
                slots *= 2
            slots = min(slots, self.model.config.window)
            groups.setdefault((slots, row.request.temperature, row.request.top_p), []).append(row)
        for (slots, temperature, top_p), members in groups.items():
            members.sort(key=lambda row: padded_shape(row.delta), reverse=True)  # in few runs, those without one last
            for start in range(0, len(members), self.max_batch):
                self._decode(members[start : start + self.max_batch], slots, temperature, top_p, deadline_s)
        return [row.result() for row in rows]

    @torch.inference_mode()
    def _decode(self, rows: list[_Row], slots: int, temperature: float, top_p: float, deadline_s: float | None) -> None:
        live, cache, logits, memory = self._read_prompts(rows, slots)
        deltas = self._lean.row_deltas([row.delta for row in live])
        steps = max(row.request.max_new_tokens for row in rows)
        advance = self._advance(cache, steps, memory, deltas)
        uniforms = np.zeros((logits.shape[0], steps), dtype=np.float32)
        for i, row in enumerate(live):
            uniforms[i, : len(row.uniforms)] = row.uniforms
        uniforms_BN = torch.from_numpy(uniforms).to(self.model.device)
        constrained = any(row.request.constraint for row in rows)
        remembering = any(row.request.facts for row in rows)
        answering = any(row.inline for row in rows)
        for step in range(steps):
            if deadline_s is not None and time.monotonic() > deadline_s:
                raise TimeoutError("decoding passed its deadline")
            if remembering:
                logits = _recalled(logits, live)
            if constrained:
                logits = mask_logits(logits, [row.matcher if row.finish is None else None for row in live])
            chosen_B = sample(logits, uniforms_BN[:, step], temperature, top_p)
            if answering:
                chosen_B = answered(chosen_B, [None if row.finish else row.inline for row in live])
            open_rows: list[int] = []
            ended: list[int] = []
            for i, (row, token) in enumerate(zip(live, chosen_B.tolist(), strict=False)):
                if row.finish is None:
                    self._accept(row, token)
                    (open_rows if row.finish is None else ended).append(i)
            if memory is not None and ended:
                kept = memory.flush(ended)
                for number, i in enumerate(ended):
                    live[i].memory = kept.select(torch.tensor([number], device=logits.device))
            if not open_rows:
                return
            # Finished rows cost as much as live ones: drop them once half of the batch is done.
            fewer = round_up(len(open_rows), ROW_MULTIPLE)
            if fewer <= logits.shape[0] // 2:
                keep = torch.tensor(open_rows + [open_rows[0]] * (fewer - len(open_rows)), device=logits.device)
                chosen_B, uniforms_BN = chosen_B[keep], uniforms_BN[keep]
                live = [live[i] for i in open_rows]
                if memory is not None:
                    memory = memory.select(keep)
                if deltas is not None:
                    deltas = deltas.select(open_rows)
                advance = self._advance(cache := cache.select(keep), steps - step, memory, deltas)
            logits = advance(chosen_B)

    def _advance(
        self, cache: KVCache, steps: int, memory: MemoryStepper | None, deltas: RowDeltas | None
    ) -> Callable[[Tensor], Tensor]:
        """Return a function that reads one token per row into the cache and returns the logits after it."""
        if self._compiled is None:
            return Stepper(self._lean, cache, steps, memory, deltas)
        compiled = self._compiled
        return lambda chosen_B: compiled(chosen_B[:, None], cache)[0][:, 0]

    def _read_prompts(self, rows: list[_Row], slots: int) -> tuple[list[_Row], KVCache, Tensor, MemoryStepper | None]:
        """Read the prompts: together those that fit the ring, others in chunks; with a memory in segments.

        Returns:
            The rows in the order of the cache, the cache, and the logits after each prompt; both are padded to a
            multiple of `ROW_MULTIPLE` rows with copies of the first. Last what reads and writes their memories.
        """
        if self.model.ltm is not None:
            return self._read_with_memory(rows, slots)
        by_length: dict[tuple[int, str], list[_Row]] = {}  # 0 for those that fit, which come last
        for row in sorted(rows, key=lambda row: len(row.ids) <= slots):
            fits = len(row.ids) <= slots
            # Those with a delta are read by a model of their own.
            key = (0, "") if fits else (round_up(len(row.ids), CHUNK_MULTIPLE), row.delta.sha256 if row.delta else "")
            by_length.setdefault(key, []).append(row)
        parts = [
            self._read_long(members, slots)
            if length
            else self._lean.prefill(
                [row.ids for row in members],
                slots,
                [row.request.opening for row in members],
                self._lean.row_deltas([row.delta for row in members]),
            )
            for (length, _), members in by_length.items()
        ]
        ordered = [row for members in by_length.values() for row in members]
        if list(by_length) == [(0, "")]:
            return ordered, *parts[0], None
        # Long parts come as they are, short ones padded: after all of them the first rows fill up.
        cache, logits = KVCache.join([cache for cache, _ in parts]), torch.cat([logits for _, logits in parts])
        filled = [*range(len(rows)), *[0] * (-len(rows) % ROW_MULTIPLE)]
        index = torch.tensor(filled, device=self.model.device)
        return ordered, cache.select(index), logits[index], None

    def _read_with_memory(
        self, rows: list[_Row], slots: int
    ) -> tuple[list[_Row], KVCache, Tensor, MemoryStepper | None]:
        """Read the prompts with a long-term memory, those of each delta apart."""
        by_delta: dict[str, list[_Row]] = {}
        for row in rows:
            by_delta.setdefault(row.delta.sha256 if row.delta else "", []).append(row)
        parts = [
            read_prompts(
                self._with(members[0].delta),
                [row.ids for row in members],
                [row.request.memory for row in members],
                slots,
            )
            for members in by_delta.values()
        ]
        ordered = [row for members in by_delta.values() for row in members]
        cache, logits, memory = join_read(parts, [len(members) for members in by_delta.values()])
        return ordered, cache, logits, MemoryStepper(cast("LTM", self.model.ltm), memory)

    def _with(self, delta: Delta | None) -> Decoder:
        """Return a model that has the delta in its weights; it reads what the inner loop cannot."""
        return delta.applied(self.model) if delta else self.model

    def _read_long(self, rows: list[_Row], slots: int) -> tuple[KVCache, Tensor]:
        """Read prompts of about one length, more than the ring holds; return cache and logits of each row."""
        model = self._with(rows[0].delta)
        device = self.model.device
        # Chunks are as long as the ring, whatever that is, so it is the rows that make the multiple.
        prompts = [row.ids for row in rows] + [rows[0].ids] * (-len(rows) % ROW_MULTIPLE)
        ids_BT = padded(prompts, self.tokenizer.pad_id, CHUNK_MULTIPLE)
        counts_B = torch.tensor([len(ids) for ids in prompts], device=device)
        cache = KVCache.empty(self.model.config, len(prompts), slots, device=device, dtype=self.model.dtype)
        logits_BV = torch.zeros(len(prompts), self.model.config.vocab_size, device=device, dtype=self.model.dtype)
        for start in range(0, ids_BT.shape[1], slots):
            chunk_BT = ids_BT[:, start : start + slots].to(device)
            here_B = (counts_B - start).clamp(min=0, max=chunk_BT.shape[1])
            here_BV = model.extend(chunk_BT, cache, here_B, last_only=True)[0][:, 0]
            logits_BV = torch.where((here_B > 0)[:, None], here_BV, logits_BV)
        cache = cache.select(torch.arange(len(rows), device=device))
        cache.kv_LBWED = cache.kv_LBWED.to(self._lean.dtype)
        return cache, logits_BV[: len(rows)].to(self._lean.dtype)

    def _accept(self, row: _Row, token: int) -> None:
        self._append(row, token)
        if row.inline is not None:
            row.inline.appended(row.text, row.finish is None)

    def _append(self, row: _Row, token: int) -> None:
        row.produced.append(token)
        if token == self.tokenizer.eot_id:
            row.finish = "end"
            return
        if row.matcher is not None:
            row.matcher.advance(token)
        piece = self._texts[token]
        if "\ufffd" in piece or "\ufffd" in row.text:
            row.text = self.tokenizer.decode(row.produced)  # a character spread over several byte tokens
        else:
            row.text += piece
        for stop in row.request.stop:
            found = row.text.find(stop, max(0, len(row.text) - len(piece) - len(stop)))
            if found >= 0:
                row.text = row.text[:found]
                row.finish = "stop"
                return
        if len(row.produced) >= row.request.max_new_tokens:
            row.finish = "length"
