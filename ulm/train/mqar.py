"""Multi-query associative recall (MQAR; Arora et al., arXiv:2312.04927) and its variant in which keys are reassigned.

A sequence tells pairs of key and value one after the other and later asks for every key once; the value that follows is
the answer. Keys, values and places are drawn anew for every sequence, so there is nothing to learn by heart. With
`reassigned` keys, so many pairs are told a second time with another value, and the last one counts.

Owns the sequences, training on them and what counts as recalled. Knows no files and no Ray.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ulm.memory.ltm import Control
from ulm.model import IGNORE, Decoder
from ulm.streaming import read_document
from ulm.train.evaluation import RecallScores, score_queries
from ulm.train.step import Objective, Worker

FILLER, START = 0, 1


@dataclass(frozen=True, slots=True)
class MqarBatch:
    """Sequences, one per row.

    Attributes:
        ids_BT: tokens, int64.
        asked_BQ: positions of the queried keys; the value stands one further.
        lag_BQ: tokens from the last pair of that key to its query.
    """

    ids_BT: NDArray[np.int64]
    asked_BQ: NDArray[np.int64]
    lag_BQ: NDArray[np.int64]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return ids, next-token labels, and the positions of the queried keys."""
        ids_BT = torch.from_numpy(self.ids_BT)
        labels_BT = torch.nn.functional.pad(ids_BT[:, 1:], (0, 1), value=IGNORE)
        return ids_BT, labels_BT, torch.from_numpy(self.asked_BQ)


@dataclass(frozen=True, slots=True)
class MqarTask:
    """Draws sequences: a start token, the pairs, the pairs told again, then queries with filler between them.

    Attributes:
        vocab_size: filler and start token, then keys (the lower half), then values (the upper half).
        length: tokens of a sequence.
        pairs: keys, each asked for once.
        reassigned: keys that get another value before the queries begin.
        power: queries stand at the n-th place with a probability proportional to n^(power - 1), so most of them near
            the pairs and some far away; 1 spreads them evenly. .01 is the authors' value.
        noise: the filler is random tokens, not one quiet token.

    Raises:
        ValueError: a value is out of range, or the sequence is too short.
    """

    vocab_size: int = 8192
    length: int = 512
    pairs: int = 64
    reassigned: int = 0
    power: float = 0.01
    noise: bool = False

    def __post_init__(self) -> None:
        if self.pairs < 1 or not 0 <= self.reassigned <= self.pairs:
            raise ValueError(
                f"mqar: {self.reassigned} of {self.pairs} pairs reassigned; give 1 pair or more, and 0 to all"
            )
        if self.vocab_size // 2 - 2 < self.pairs:
            raise ValueError(f"mqar: {self.pairs} pairs need as many keys, so a vocab_size of {2 * self.pairs + 4}")
        if not 0 < self.power <= 1:
            raise ValueError(f"mqar: power must be above 0 and at most 1, got {self.power}")
        if self._places < self.pairs:
            raise ValueError(
                f"mqar: {self.pairs} pairs, {self.reassigned} told again, and as many queries need a length of "
                f"{self._told + 2 * self.pairs}, got {self.length}"
            )

    @property
    def _told(self) -> int:
        """Tokens before the first query."""
        return 1 + 2 * (self.pairs + self.reassigned)

    @property
    def _places(self) -> int:
        return (self.length - self._told) // 2

    @property
    def chance(self) -> float:
        """Recall of one who knows which values were told, but not which belongs to a key."""
        return 1.0 / self.pairs

    def batch(self, generator: np.random.Generator, rows: int) -> MqarBatch:
        """Draw sequences."""
        P, R, half = self.pairs, self.reassigned, self.vocab_size // 2
        keys_BP = np.stack([generator.choice(half - 2, P, replace=False) + 2 for _ in range(rows)])
        values_BP = generator.integers(half, self.vocab_size, (rows, P))
        told_P = 1 + 2 * np.arange(P)
        last_BP = np.broadcast_to(told_P, (rows, P)).copy()
        filler: NDArray[np.int64] | int = FILLER
        if self.noise:
            filler = generator.integers(2, self.vocab_size, (rows, self.length))
        ids_BT = np.broadcast_to(filler, (rows, self.length)).astype(np.int64)
        ids_BT[:, 0] = START
        ids_BT[:, told_P], ids_BT[:, told_P + 1] = keys_BP, values_BP
        if R:
            again_BR = np.argsort(generator.random((rows, P)), axis=1)[:, :R]
            place_R = 1 + 2 * (P + np.arange(R))
            # Another value than before: one of the others, counted on from the old one.
            others = self.vocab_size - half
            old_BR = np.take_along_axis(values_BP, again_BR, 1) - half
            new_BR = half + (old_BR + generator.integers(1, others, (rows, R))) % others
            np.put_along_axis(values_BP, again_BR, new_BR, 1)
            np.put_along_axis(last_BP, again_BR, place_R[None], 1)
            ids_BT[:, place_R], ids_BT[:, place_R + 1] = np.take_along_axis(keys_BP, again_BR, 1), new_BR
        # The largest of log-weights plus Gumbel noise are a draw without replacement with those weights.
        weight_N = (self.power - 1) * np.log(np.arange(1, self._places + 1))
        chosen_BP = np.argsort(-(weight_N + generator.gumbel(size=(rows, self._places))), axis=1)[:, :P]
        asked_BP = self._told + 2 * generator.permuted(chosen_BP, axis=1)
        np.put_along_axis(ids_BT, asked_BP, keys_BP, 1)
        np.put_along_axis(ids_BT, asked_BP + 1, values_BP, 1)
        return MqarBatch(ids_BT, asked_BP, asked_BP - last_BP)


class MqarObjective(Objective):
    """The mean loss over all tokens plus that over the answers; a batch counts as one token that is learned.

    Learning the rest too is what makes filler unsurprising, so that it is not written to memory.

    Args:
        model: on the worker's device.
        optimizer: of its parameters.
        worker: the only one: sequences are drawn one after the other.
        task: draws them.
        batch_size: sequences per step.
        seed: of the sequences.
    """

    model: Decoder

    def __init__(
        self,
        model: Decoder,
        optimizer: torch.optim.Optimizer,
        worker: Worker,
        task: MqarTask,
        *,
        batch_size: int,
        seed: int,
    ) -> None:
        super().__init__(model, optimizer, worker)
        self._task, self._batch_size = task, batch_size
        self._generator = np.random.Generator(np.random.PCG64(seed))

    def batch(self, step: int) -> tuple[list[tuple[Tensor, ...]], int]:
        """Return ids, labels and where something is asked."""
        drawn = self._task.batch(self._generator, self._batch_size).tensors()
        return [tuple(x.to(self.worker.device) for x in drawn)], 1

    def loss(self, part: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the loss in nats; measured beside it are the mean nats of the values asked for."""
        ids_BT, labels_BT, at_BQ = part
        asked_BT = torch.zeros_like(ids_BT, dtype=torch.bool).scatter_(1, at_BQ, True)
        nats_BT = read_document(self.model, ids_BT, None, labels_BT).nats_BS
        assert nats_BT is not None  # noqa: S101 - labels were given
        asked = nats_BT[asked_BT].mean()
        return nats_BT.mean() + asked, {"asked": asked.detach()}


def score_mqar(
    model: Decoder, task: MqarTask, sequences: int, *, seed: int, control: Control = "none", batch_rows: int = 16
) -> tuple[RecallScores, NDArray[np.int64]]:
    """Return the scores of fresh sequences, the same for every model and control of a seed, and the queries' lags.

    Args:
        model: the µLM.
        task: draws the sequences.
        sequences: how many.
        seed: of the sequences and of the control's randomness; another one than that of training.
        control: takes one thing away that memory needs.
        batch_rows: sequences read together.
    """
    generator = np.random.Generator(np.random.PCG64([seed, 1]))
    drawn = [task.batch(generator, min(batch_rows, sequences - start)) for start in range(0, sequences, batch_rows)]
    scores = score_queries(model, (batch.tensors() for batch in drawn), control, seed)
    return scores, np.concatenate([batch.lag_BQ for batch in drawn])
