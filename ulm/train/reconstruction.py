"""Learning by reconstruction: text is continued, holes are filled, pairs are recalled, some of the input is noise.

- Rows of a batch have kinds, by what they read (`ulm.data.infill`, `ulm.data.recall`); all share one loss, the nats of
  the next token, and are measured apart.
- Noise replaces input tokens of text by random ones; labels stay as they are. It pays where text is scarce
  (arXiv:2606.16246). What was replaced is never written to memory.
- Noise follows from seed and step alone, and is drawn for all rows, whichever worker holds them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ulm.data.infill import InfillTask
from ulm.train.documents import DocumentObjective

KINDS = ("text", "recall", "context", "infill")
"""What labels belong to: plain text; recall sequences; text around holes; what fills them."""


@dataclass(frozen=True, slots=True)
class ReconstructionRules:
    """What is done to batches.

    Attributes:
        kinds: of each row: `text`, `recall` or `infill`.
        infill: knows the marks; None where no row has holes.
        noise: share of the input tokens of text rows that are replaced.
        seed: of the noise.
    """

    kinds: Sequence[str]
    infill: InfillTask | None = None
    noise: float = 0.0
    seed: int = 0


class ReconstructionObjective(DocumentObjective):
    """Arguments as of `DocumentObjective`.

    Args:
        rules: what is done to batches.
    """

    def __init__(self, *arguments: Any, rules: ReconstructionRules, **settings: Any) -> None:
        self.rules = rules
        model = arguments[0]
        weights_V = None
        if rules.infill is not None:
            weights_V = torch.from_numpy(rules.infill.weights(model.config.vocab_size)).to(model.device)
        super().__init__(*arguments, weights_V=weights_V, kinds=KINDS, **settings)
        self._first_kinds_B = torch.tensor(
            [KINDS.index("context" if kind == "infill" else kind) for kind in rules.kinds]
        )

    def batch(self, step: int) -> tuple[list[tuple[Any, ...]], int]:
        """Return this worker's groups of rows, with noise, and how many tokens they teach."""
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

    def metrics(self, sums: dict[str, float], tokens: int) -> dict[str, Any]:
        """Return what memory did, and bits per token of each kind that was read."""
        found = super().metrics(sums, tokens)
        for kind in KINDS:
            if count := sums[f"tokens_{kind}"]:
                found[f"bits_{kind}"] = round(sums[f"nats_{kind}"] / count / float(np.log(2)), 5)
        return found
