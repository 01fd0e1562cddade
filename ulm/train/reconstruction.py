"""Learning by reconstruction: text is continued, holes are filled, pairs are recalled, sentences are told apart.

- Rows of a batch have kinds, by what they read (`ulm.data.infill`, `ulm.data.recall`); all share one loss, the nats of
  the next token, and are measured apart.
- Beside it stand two further parts. Consistency: with a consolidated memory the model says what it says with the whole
  one (as in CLS-ER, arXiv:2201.12604). Coherence: the sentence that follows is likelier than another of its document.
  Their weights follow from shares: of the gradient on the trunk, each part gets the share that it is given.
- Noise replaces input tokens of text by random ones; labels stay as they are. It pays where text is scarce
  (arXiv:2606.16246). What was replaced is never written to memory.
- All that is random follows from seed and step alone, and noise is drawn for all rows, whichever worker holds them.

Axes: N segments, B rows, S tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ulm.data.coherence import Continuations
from ulm.data.document_stream import DocumentStream
from ulm.data.infill import InfillTask
from ulm.memory.consolidation import ConsolidationConfig, Readers, consolidate, due
from ulm.model import IGNORE, Decoder, attend_quickly, padded
from ulm.streaming import read_document
from ulm.train.curriculum import Curriculum
from ulm.train.documents import DocumentObjective

KINDS = ("text", "recall", "context", "infill")
"""What labels belong to: plain text; recall sequences; text around holes; what fills them."""

PARTS = ("consistency", "coherence")
"""Parts of the loss beside reconstruction."""

RENEWED = 50
"""Steps between measurements of the parts' gradients."""

MOST = 10.0
"""Largest weight of a part."""

HIDDEN = 0.3
"""Share of the tokens that are hidden where text is read in both directions."""

MARGIN = 0.25
"""Nats per token by which a sentence should be likelier, as the temperature of its ranking."""


@dataclass(frozen=True, slots=True)
class ReconstructionRules:
    """What is done to batches, and what is learned beside them.

    Attributes:
        kinds: of each row: `text`, `recall` or `infill`.
        infill: knows the marks; None where no row has holes.
        noise: share of the input tokens of text rows that are replaced.
        two_way: share of the steps in which segments are read in both directions, without memory, and hidden tokens are
            told at the position before them (masked next-token prediction, GPT-BERT, arXiv:2410.24159).
        consistency, coherence: share of the gradient on the trunk that each part gets; 0 leaves it out.
        plain: take the shares as plain weights of the losses instead.
        continuations: draws sentences to tell apart, by a generator; for coherence.
        pairs: of sentences per step.
        curriculum: one of the stream's sources, whose level follows the training; None for none.
        seed: of all of it.
    """

    kinds: Sequence[str]
    infill: InfillTask | None = None
    noise: float = 0.0
    two_way: float = 0.0
    consistency: float = 0.0
    coherence: float = 0.0
    plain: bool = False
    continuations: Callable[[np.random.Generator], Continuations | None] | None = None
    pairs: int = 2
    curriculum: Curriculum | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.consistency < 0 or self.coherence < 0 or self.consistency + self.coherence >= 1:
            raise ValueError(
                f"shares of consistency {self.consistency:g} and coherence {self.coherence:g} must leave some of 1 for "
                "reconstruction"
            )
        if self.two_way and self.infill is None:
            raise ValueError("reading in both directions needs a mark for what is hidden; take a tokenizer with marks")
        if self.coherence and self.continuations is None:
            raise ValueError("coherence needs documents with sentences")


class ReconstructionObjective(DocumentObjective):
    """Arguments as of `DocumentObjective`.

    Args:
        rules: what is done to batches, and what is learned beside them.

    Raises:
        ValueError: consistency is asked of a model whose memory has no slots.
    """

    def __init__(self, *arguments: Any, rules: ReconstructionRules, **settings: Any) -> None:
        self.rules = rules
        model = arguments[0]
        weights_V = None
        if rules.infill is not None:
            weights_V = torch.from_numpy(rules.infill.weights(model.config.vocab_size)).to(model.device)
        super().__init__(*arguments, weights_V=weights_V, kinds=KINDS, **settings)
        if rules.consistency and (model.config.ltm is None or not model.config.ltm.slots):
            raise ValueError("consistency compares a memory with what is left of it; set slots in the model's ltm")
        first = [KINDS.index("context" if kind == "infill" else kind) for kind in rules.kinds]
        self._first_kinds_B = torch.tensor(first)
        self._shares = {part: getattr(rules, part) for part in PARTS if getattr(rules, part)}
        self._step = 0
        self._norms: dict[str, float] = {}
        """Running means of the gradients' lengths on the trunk."""
        self._trunk = [p for name, p in model.named_parameters() if not name.startswith("ltm.") and p.requires_grad]

    def batch(self, step: int) -> tuple[list[tuple[Any, ...]], int]:
        """Return this worker's groups of rows, with noise, and how many tokens they teach."""
        self._step = step
        parts, tokens = super().batch(step)
        noised_NBS, random_NBS = self._noise(step, parts[0][1].shape)
        found = []
        for (number, ids, labels, starts), rows in zip(parts, self._groups, strict=True):
            noised, random = (x[:, rows].to(ids.device) for x in (noised_NBS, random_NBS))
            noised = noised & (torch.arange(ids.shape[2], device=ids.device) > 0)  # a text's first token stays
            kinds = self._first_kinds_B[rows].to(ids.device)[None, :, None].expand_as(ids).clone()
            if self.rules.infill is not None:
                filled = (ids == self.rules.infill.fill_id).cumsum(-1) > 0
                kinds[filled & (kinds == KINDS.index("context"))] = KINDS.index("infill")
            found.append((number, torch.where(noised, random, ids), labels, starts, ~noised, kinds))
        return found, tokens

    def _noise(self, step: int, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """Return which tokens are replaced, and by what, for all rows, (N, B, S)."""
        generator = np.random.Generator(np.random.PCG64([self.rules.seed, step]))
        whole = (shape[0], len(self.rules.kinds), shape[2])
        noised = torch.from_numpy(generator.random(whole) < self.rules.noise)
        text = torch.tensor([kind == "text" for kind in self.rules.kinds])
        return noised & text[:, None], torch.from_numpy(generator.integers(3, self.model.config.vocab_size, whole))

    def loss(self, part: tuple[Any, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the summed nats with the further parts; measured is what `StreamingLoss` returns, and each part."""
        generator = np.random.Generator(np.random.PCG64([self.rules.seed, self._step, 2]))
        if generator.random() < self.rules.two_way:
            return self._two_way(part, generator)
        total, measured = super().loss(part)
        tokens = (part[2] != IGNORE).sum()
        found = {"consistency": self._consistency, "coherence": self._coherence}
        losses = {name: found[name](part) for name in self._shares}
        if losses and self._step % RENEWED == 0:
            self._renew({"reconstruction": total / tokens, **losses})
        for name, loss in losses.items():
            total = total + self.weight(name) * loss * tokens
            measured[f"loss_{name}"] = loss.detach() * tokens
        return total, measured

    def _two_way(self, part: tuple[Any, ...], generator: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the nats of hidden tokens, scaled to those of all, read in both directions and segment by segment."""
        assert self.rules.infill is not None  # noqa: S101 - checked at the start
        _, ids_NBS, labels_NBS, *_ = part
        ids_BT, labels_BT = ids_NBS.flatten(0, 1), labels_NBS.flatten(0, 1)
        hidden_BT = torch.from_numpy(generator.random(ids_BT.shape) < HIDDEN).to(ids_BT.device) & (labels_BT != IGNORE)
        hidden_BT[:, -1] = False  # its token is the next segment's
        shown_BT = ids_BT.masked_fill(F.pad(hidden_BT, (1, -1)), self.rules.infill.fill_id)
        with self.autocast():
            logits_BTV = _both_directions(self.model, shown_BT, labels_BT != IGNORE)
        nats_BT = F.cross_entropy(
            logits_BTV.flatten(0, 1).float(), labels_BT.flatten(), reduction="none", ignore_index=IGNORE
        )
        none = torch.zeros((), device=ids_BT.device)
        names = ("written", "written_bits", "readings", *(f"{w}_{k}" for w in ("nats", "tokens") for k in KINDS))
        parts = (f"loss_{name}" for name in self._shares)
        return (nats_BT * hidden_BT.flatten()).sum() / HIDDEN, dict.fromkeys((*names, *parts), none)

    def weight(self, name: str) -> float:
        """Return the weight of a part, so that it gets its share of the gradient; 0 before that was measured."""
        ratio = float(self._shares[name] / (1.0 - sum(self._shares.values())))
        if self.rules.plain:
            return ratio
        if name not in self._norms:
            return 0.0
        return min(MOST, ratio * self._norms["reconstruction"] / max(1e-12, self._norms[name]))

    def _renew(self, losses: dict[str, Tensor]) -> None:
        """Measure the parts' gradients on the trunk; a part that has none now keeps what was measured before."""
        lengths = []
        for loss in losses.values():
            gradients: Sequence[Tensor | None] = ()
            if loss.requires_grad:
                gradients = torch.autograd.grad(loss, self._trunk, retain_graph=True, allow_unused=True)
            lengths.append(sum(float(g.float().square().sum()) for g in gradients if g is not None) ** 0.5)
        for name, length in zip(losses, self.worker.total(lengths), strict=True):
            if length > 0:
                self._norms[name] = 0.5 * (self._norms.get(name, length) + length)

    def _coherence(self, part: tuple[Any, ...]) -> Tensor:
        """Return how far sentences that follow are from being likelier than others, by their mean token."""
        if self.rules.continuations is None:
            raise ValueError("coherence needs documents with sentences")
        number, device = part[0], self.worker.device
        generator = np.random.Generator(np.random.PCG64([self.rules.seed, self._step, self._rows.start, number, 1]))
        drawn: list[Continuations] = []
        for _ in range(20 * self.rules.pairs):
            if len(drawn) < self.rules.pairs and (pair := self.rules.continuations(generator)) is not None:
                drawn.append(pair)
        if not drawn:
            raise ValueError("coherence: the documents have too few sentences to tell apart")
        texts = [np.append(pair.context, one) for pair in drawn for one in (pair.right, pair.wrong)]
        counts = torch.tensor([len(one) for pair in drawn for one in (pair.right, pair.wrong)], device=device)
        width = self.model.config.segment
        ids_BT = padded([text[:-1] for text in texts], 0, width).to(device)
        labels_BT = padded([text[1:] for text in texts], IGNORE, width).to(device)
        with self.autocast():
            nats_BT = read_document(self.model, ids_BT, None, labels_BT).nats_BS
        assert nats_BT is not None  # noqa: S101 - labels were given
        ends_B1 = (labels_BT != IGNORE).sum(1, keepdim=True)
        place_T = torch.arange(labels_BT.shape[1], device=device)
        judged_BT = (place_T < ends_B1) & (place_T >= ends_B1 - counts[:, None])
        right, wrong = ((nats_BT * judged_BT).sum(1) / counts).view(-1, 2).unbind(1)
        loss: Tensor = F.softplus((right - wrong) / MARGIN).mean()
        return loss

    def _consistency(self, part: tuple[Any, ...]) -> Tensor:
        """Return how far predictions with a consolidated memory are from those with the whole one, in nats per token.

        One row is looked at, at the beginning of what this step reads; 0 where no memory is nearly full.
        """
        number, ids_NBS, labels_NBS, starts_NB, *_ = part
        state, rules = self._states[number], ConsolidationConfig(gate=False)
        ltm = self.model.ltm
        assert ltm is not None and state.memory is not None  # noqa: S101, PT018 - checked at the start
        rows = (due(state.memory, ltm.config, rules) & (starts_NB[0] == 0)).nonzero().flatten().tolist()
        if not rows:
            return torch.zeros((), device=ids_NBS.device)
        row = slice(rows[self._step % len(rows)], rows[self._step % len(rows)] + 1)
        whole = state.select(row)
        assert whole.memory is not None  # noqa: S101 - as above
        memory, _ = consolidate(whole.memory, ltm.config, Readers.of(ltm), rules)
        changed = replace(whole, memory=memory)
        ids_BS, labels_BS = ids_NBS[0, row], labels_NBS[0, row]
        with self.autocast():
            with torch.no_grad():
                aim = read_document(self.model, ids_BS, whole, labels_BS).all_logits().float().log_softmax(-1)
            ours = read_document(self.model, ids_BS, changed, labels_BS).all_logits().float().log_softmax(-1)
        real_BS = labels_BS != IGNORE
        far_BS = (aim.exp() * (aim - ours)).sum(-1) * real_BS
        mean: Tensor = far_BS.sum() / real_BS.sum().clamp(min=1)
        return mean

    def commit(self) -> None:
        """Let rows remember what this step read, and the curriculum go on."""
        super().commit()
        curriculum = self.rules.curriculum
        if curriculum is not None and isinstance(self.stream, DocumentStream):
            notice = curriculum.after(self._step, self.stream.drawn(curriculum), self.model)
            if notice is not None:
                self.worker.report({"notice": notice})

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return the cursor, what all rows remember, what was measured of the parts, and the curriculum's level."""
        progress, tensors = super().state()
        level = {} if self.rules.curriculum is None else {"curriculum": self.rules.curriculum.state()}
        return {**progress, "norms": dict(self._norms), **level}, tensors

    def restore(self, progress: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Go back to a `state`.

        Raises:
            ValueError: it has other rows.
        """
        if self.rules.curriculum is not None:  # the stream opens documents of the level that they had
            self.rules.curriculum.restore(progress["curriculum"])
        super().restore(progress, tensors)
        self._norms = dict(progress["norms"])

    def metrics(self, sums: dict[str, float], tokens: int) -> dict[str, Any]:
        """Return what memory did, bits per token of each kind that was read, and loss and gradient share of parts."""
        found = super().metrics(sums, tokens)
        for kind in KINDS:
            if count := sums[f"tokens_{kind}"]:
                found[f"bits_{kind}"] = round(sums[f"nats_{kind}"] / count / float(np.log(2)), 5)
        if self.rules.curriculum is not None:
            found["level_recall"] = self.rules.curriculum.level
        for name in self._shares:
            found[f"loss_{name}"] = round(sums[f"loss_{name}"] / tokens, 5)
        pulls = {name: self.weight(name) * self._norms.get(name, 0.0) for name in self._shares}
        whole = sum(pulls.values()) + self._norms.get("reconstruction", 1.0)
        return found | {f"share_{name}": round(pull / whole, 4) for name, pull in pulls.items()}


def _both_directions(model: Decoder, ids_BT: Tensor, real_BT: Tensor) -> Tensor:
    """Return the logits of texts in which every token sees all that are no padding, without a memory, (B, T, V)."""
    cos, sin = model.rope(torch.arange(ids_BT.shape[1], device=ids_BT.device)[None])
    bias_BTT = (
        torch.zeros_like(real_BT, dtype=model.dtype)
        .masked_fill_(~real_BT, -1e9)[:, None]
        .expand(-1, ids_BT.shape[1], -1)
    )
    x_BTC = model.embed(ids_BT)
    for block in model.blocks:
        q, k, v = block.project(x_BTC, cos, sin)  # type: ignore[operator]
        x_BTC = block.finish(x_BTC, attend_quickly(q, k, v, bias_BTT))  # type: ignore[operator]
    return model.logits(x_BTC)
