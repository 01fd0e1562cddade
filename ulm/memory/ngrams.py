"""Addresses of n-grams: which rows of a table a text's last few tokens lead to.

- Tokens that are the same but for case, accents and spacing get one number before they are hashed (tokenizer
  compression of Engram, arXiv:2601.07372, section 2.2).
- Every head of every layer has its own multipliers and its own prime number of rows, so two n-grams that meet in one
  head part in the others.
- A position's n-grams end with its own token. Before the start of a text, and where there is padding, stands
  `NOTHING`, so a padded text has the addresses that it has alone.
- Multipliers, primes and the map are part of what a memory is: they are saved and compared with it.

Axes: B rows of a batch, T tokens, H heads of one layer over all orders, N tokens of the longest n-gram, L layers.
"""

import itertools
import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

NOTHING = -1
"""In place of a token, where there is none."""

SHIFT, MASK = 29, (1 << 62) - 1
"""How a mixed n-gram is folded before its rest is taken."""


def compressed(texts: Sequence[str]) -> list[int]:
    """Return a number per token, the same for texts that differ in case, accents, width or spacing alone.

    Args:
        texts: of all tokens; bytes that are no character on their own (U+FFFD) keep a number of their own.
    """
    numbers: dict[object, int] = {}
    return [numbers.setdefault(i if "\ufffd" in text else _plain(text), len(numbers)) for i, text in enumerate(texts)]


def _plain(text: str) -> str:
    text = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text))
    text = "".join(c for c in text if not unicodedata.combining(c)).casefold()
    return re.sub(r"\s+", " ", text).strip() or text


class NgramHash(nn.Module):
    """Maps texts to rows.

    Args:
        numbers: per token, from `compressed`, or each token's own.
        layers: how many tables there are.
        orders: lengths of the n-grams.
        heads: per order.
        rows: each head has the next free prime number of rows from here on; with 1 every head has a single row, so
            that all n-grams meet (a null control).
        seed: of the multipliers.
    """

    numbers_V: Tensor
    multipliers_LHN: Tensor
    primes_LH: Tensor
    offsets_LH: Tensor

    def __init__(
        self, numbers: Sequence[int], layers: int, orders: Sequence[int], heads: int, rows: int, seed: int
    ) -> None:
        super().__init__()
        self.longest = max(orders)
        per_order = [order for order in orders for _ in range(heads)]
        generator = np.random.Generator(np.random.PCG64(seed))
        shape = (layers, len(per_order), self.longest)
        multipliers = generator.integers(0, 1 << 62, shape) * 2 + 1
        multipliers[:, np.arange(self.longest) >= np.array(per_order)[:, None]] = 0  # tokens that an order leaves out
        count = layers * len(per_order)
        primes = torch.tensor([1] * count if rows == 1 else _primes(rows, count)).view(layers, -1)
        self.register_buffer("numbers_V", torch.tensor(numbers))
        self.register_buffer("multipliers_LHN", torch.from_numpy(multipliers))
        self.register_buffer("primes_LH", primes)
        self.register_buffer("offsets_LH", primes.cumsum(1) - primes, persistent=False)

    def rows(self, layer: int) -> int:
        """Return the number of rows of a layer's table, all heads together."""
        return int(self.primes_LH[layer].sum())

    def forward(self, ids_BT: Tensor, last: int) -> Tensor:
        """Return the rows of the n-grams that end at each of the last positions, for all tables: (L, B, last, H).

        Args:
            ids_BT: token ids, `NOTHING` where there is none; positions before the first count as such.
            last: how many positions are asked for.
        """
        N = self.longest
        near_BT = ids_BT[:, max(0, ids_BT.shape[1] - last - N + 1) :]
        number_BT = ids_BT.new_zeros(len(ids_BT), last + N - 1)
        arrays: Any = (near_BT, number_BT, self.numbers_V, self.multipliers_LHN, self.primes_LH, self.offsets_LH)
        if ids_BT.device.type == "cpu":  # calls of NumPy cost a fraction of torch's, and for one token they are all
            arrays = [array.numpy() for array in arrays]
        near_BT, number_BT, numbers_V, multipliers_LHN, primes_LH, offsets_LH = arrays
        number_BT[:, last + N - 1 - near_BT.shape[1] :] = (numbers_V[near_BT] + 1) * (near_BT >= 0)
        mixed_LBTH = 0
        for n in range(N):  # the newest token first
            number_BT1 = number_BT[:, N - 1 - n : last + N - 1 - n, None]
            mixed_LBTH = mixed_LBTH ^ (number_BT1 * multipliers_LHN[:, None, None, :, n])
        mixed_LBTH = (mixed_LBTH ^ (mixed_LBTH >> SHIFT)) & MASK
        return torch.as_tensor(mixed_LBTH % primes_LH[:, None, None] + offsets_LH[:, None, None])


def _primes(start: int, count: int) -> list[int]:
    """Return the first primes that are not below a number."""
    numbers = itertools.count(max(2, start))
    primes = (n for n in numbers if n < 4 or (n % 2 and all(n % d for d in range(3, int(n**0.5) + 1, 2))))
    return list(itertools.islice(primes, count))
