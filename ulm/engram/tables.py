"""Engram: gated memory of n-grams, learned (Cheng et al., arXiv:2601.07372).

- The n-grams that end at a position lead to rows of a table (`ulm.memory.ngrams`). A gate of the hidden state and what
  was found decides how much of it is added to the residual stream before a block; a short causal convolution over the
  gated values comes on top.
- Tables begin at zero and so does the convolution: an untrained memory changes no bit, and what was never trained
  adds exactly nothing afterwards either.
- Departs from the paper: the gate is the sigmoid of the scaled product itself (the authors' code takes a signed root
  of it first, whose slope is infinite at 0), and tables are per layer, in one `nn.Embedding` with sparse gradients.
- What decoding needs of the past is explicit: the last tokens and the last inputs of the convolution.
- Knows no tokenizer, no transformers, no optimizer.

Axes: B rows, T tokens, H heads of a layer, D numbers per row of the table, E = H x D, C width, K taps of the
convolution, P = (K - 1) x dilation inputs that it looks back.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import AfterValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn
from torch.nn import functional as F

from ulm.files import write_whole
from ulm.memory.ngrams import NgramHash


def _rising(numbers: tuple[int, ...]) -> tuple[int, ...]:
    if list(numbers) != sorted(set(numbers)):
        raise ValueError("numbers must be rising")
    return numbers


_Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, slots=True, config=ConfigDict(strict=True))
class EngramConfig:
    """What an Engram memory consists of.

    Attributes:
        layers: blocks before which the learned tables are read, counted from 0; none means no learned tier.
        orders: lengths of the n-grams, each ending at the position that reads.
        heads: hashes per order.
        rows: rows per head, at least; a layer's table has about `len(orders) * heads` times as many. With 1 all
            n-grams share them: the null control of a memory that holds one thing.
        head_size: numbers per row.
        kernel: taps of the convolution, `max(orders)` tokens apart.
        compress: whether tokens that differ in case, accents or spacing alone are one (tokenizer compression).
        seed: of hashes and initial weights.
        table: where tables are: with the `model` on its device, in the host's `ram`, or on `disk`, memory-mapped and
            not trainable.
        exact: whether the exact tier is on: facts recalled by their whole key (`ulm.memory.exact`).
        certainty: probability that what the exact tier recalls gets.
        terminate: whether a recalled value is followed by the end of text.
        conflicts: what happens to a fact whose key has another value: `refuse`, `replace` or `keep`.
        content: whether prompts that say a key in other words are answered too (`ulm.engram.content`).

    Raises:
        ValueError: a value is out of range.
    """

    layers: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False), AfterValidator(_rising)] = ()
    orders: Annotated[tuple[_Count, ...], Field(strict=False, min_length=1), AfterValidator(_rising)] = (2, 3, 4)
    heads: _Count = 4
    rows: _Count = 20_000
    head_size: _Count = 32
    kernel: _Count = 4
    compress: bool = True
    seed: int = 0
    table: Literal["model", "ram", "disk"] = "model"
    exact: bool = True
    certainty: Annotated[float, Field(gt=0, lt=1)] = 0.999
    terminate: bool = True
    conflicts: Literal["refuse", "replace", "keep"] = "refuse"
    content: bool = False

    @model_validator(mode="after")
    def _has_a_tier(self) -> Self:
        if self.content and not self.exact:
            raise ValueError("content looks for facts, so exact must be on")
        if not self.layers and not self.exact:
            raise ValueError("neither layers nor exact is given, so there is nothing to remember with")
        return self

    @property
    def reach(self) -> int:
        """Inputs that a convolution looks back."""
        return (self.kernel - 1) * max(self.orders)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able data."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Build from `to_dict`'s data.

        Raises:
            ValueError: keys are unknown, or a value is out of range; in one line.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(data) - known):
            raise ValueError(f"engram: unknown keys {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        try:
            return cls(**data)
        except ValidationError as error:
            wrong = [(*map(str, each["loc"]), each["msg"].removeprefix("Value error, ")) for each in error.errors()]
            raise ValueError(f"engram: {'; '.join(map(': '.join, wrong))}") from error


class Table(nn.Module):
    """Rows that are looked up.

    Args:
        rows, width: its shape.
        place: as `EngramConfig.table`.
    """

    def __init__(self, rows: int, width: int, place: str) -> None:
        super().__init__()
        self.place, self.shape = place, (rows, width)
        self.weight: Tensor | None = None if place == "disk" else nn.Parameter(torch.zeros(rows, width))

    def map_file(self, path: Path) -> None:
        """Read rows from a file of `save_file` from now on, without loading it.

        Raises:
            ValueError: there is no such file, or it is damaged or has another shape.
        """
        try:
            self.weight = torch.from_numpy(np.load(path, mmap_mode="c"))  # "r" would make torch warn
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"cannot read the table {path}: {error}") from error
        if self.weight.shape != self.shape:
            raise ValueError(f"{path} holds a table of shape {tuple(self.weight.shape)}, wanted {self.shape}")

    def save_file(self, path: Path) -> None:
        """Write all rows for `map_file`; the file takes its name when it is whole."""
        if self.weight is None:
            raise ValueError("this table on disk has no file yet")
        rows = self.weight.detach().cpu().float().numpy()

        def write(fresh: Path) -> None:
            with fresh.open("wb") as file:  # numpy adds an ending to names that have none
                np.save(file, rows)

        write_whole(path, write)

    def forward(self, rows_BTH: Tensor) -> Tensor:
        """Return the rows, (B, T, H * D), on the device of the indices."""
        if self.weight is None:
            raise ValueError("this table on disk has no file yet; load it with from_pretrained")
        found = F.embedding(rows_BTH.to(self.weight.device), self.weight, sparse=True)
        return found.flatten(-2).to(rows_BTH.device)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        # In RAM a table stays where it is and as it is when the model moves.
        return self if self.place == "ram" else super()._apply(fn, recurse)  # type: ignore[no-untyped-call]


class EngramLayer(nn.Module):
    """The part of an Engram that belongs to one block.

    Args:
        config: of the memory.
        d_model: width of the residual stream.
        rows: of the table.
        seed: of the initial weights.
    """

    def __init__(self, config: EngramConfig, d_model: int, rows: int, seed: int) -> None:
        super().__init__()
        width = len(config.orders) * config.heads * config.head_size
        self.config = config
        self.table = Table(rows, config.head_size, config.table)
        generator = torch.Generator().manual_seed(seed)
        self.key = nn.Parameter(torch.randn(d_model, width, generator=generator) * width**-0.5)
        self.value = nn.Parameter(torch.randn(d_model, width, generator=generator) * width**-0.5)
        self.norm_query = nn.Parameter(torch.ones(d_model))
        self.norm_key = nn.Parameter(torch.ones(d_model))
        self.norm_conv = nn.Parameter(torch.ones(d_model))
        self.conv = nn.Parameter(torch.zeros(d_model, 1, config.kernel))

    def forward(
        self, x_BTC: Tensor, rows_BTH: Tensor, real_BT: Tensor | None, tail_BPC: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return what is added to the residual stream, the gates (B, T), and the convolution's inputs, (B, P + T, C).

        Args:
            x_BTC: residual stream before the block.
            rows_BTH: from `NgramHash`.
            real_BT: False at padding; None where there is none.
            tail_BPC: last inputs of the convolution; None at the start of the texts.
        """
        C = x_BTC.shape[-1]
        dtype = self.key.dtype
        found_BTE = self.table(rows_BTH).to(dtype)
        query_BTC = F.rms_norm(x_BTC.to(dtype), (C,), self.norm_query, 1e-6)
        key_BTC = F.rms_norm(F.linear(found_BTE, self.key), (C,), self.norm_key, 1e-6)
        gate_BT = torch.sigmoid((query_BTC * key_BTC).sum(-1) * C**-0.5)
        value_BTC = gate_BT[..., None] * F.linear(found_BTE, self.value)
        if real_BT is not None:
            value_BTC = value_BTC * real_BT[..., None]
        normed_BTC = F.rms_norm(value_BTC, (C,), self.norm_conv, 1e-6)
        if tail_BPC is None:
            tail_BPC = normed_BTC.new_zeros(normed_BTC.shape[0], self.config.reach, C)
        line_BTC = torch.cat((tail_BPC.to(dtype), normed_BTC), dim=1)
        # Tap by tap: for a few taps and one token this is a fraction of the time of a grouped conv1d on a CPU.
        T, taps_KC, dilation = x_BTC.shape[1], self.conv[:, 0].t(), max(self.config.orders)
        if T == 1:
            mixed_BTC = (line_BTC[:, ::dilation] * taps_KC).sum(1, keepdim=True)
        else:
            mixed_BTC = line_BTC[:, :T] * taps_KC[0]
            for k in range(1, self.config.kernel):
                mixed_BTC = mixed_BTC + line_BTC[:, k * dilation : k * dilation + T] * taps_KC[k]
        return (value_BTC + F.silu(mixed_BTC)).to(x_BTC.dtype), gate_BT, line_BTC


class EngramTables(nn.Module):
    """The learned tier: hashes and one `EngramLayer` per chosen block.

    Args:
        config: what to build.
        numbers: per token of the vocabulary, from `compressed`, or each token's own.
        d_model: width of the residual stream.
    """

    def __init__(self, config: EngramConfig, numbers: Sequence[int], d_model: int) -> None:
        super().__init__()
        self.config = config
        self.hash = NgramHash(numbers, len(config.layers), config.orders, config.heads, config.rows, config.seed)
        self.layers: Any = nn.ModuleList(
            EngramLayer(config, d_model, self.hash.rows(i), config.seed + i) for i in range(len(config.layers))
        )

    @torch.no_grad()
    def prepopulate(self, phrases: Sequence[tuple[Sequence[int], Tensor]]) -> int:
        """Let the ends of phrases add vectors of choice, as nearly as the tables can say them; return the rows written.

        The rows of a phrase's last n-grams, of all orders that fit into it, are set so that the value projection gives
        the vector (least squares); rows that several phrases share get their mean. Before the gate, that is: how much
        of it is added, the gate decides.

        Args:
            phrases: token ids, and the vector that is wanted, (C,).

        Raises:
            ValueError: a table is on disk, where nothing can be written.
        """
        count = 0
        for index, layer in enumerate(self.layers):
            weight = layer.table.weight
            if layer.table.place == "disk":
                raise ValueError("a table on disk cannot be written; fill it in RAM, then save it with table='disk'")
            inverse_CE = torch.linalg.pinv(layer.value.float().t()).to(weight.device)
            rows, values = [weight.new_zeros(0, dtype=torch.long)], [weight.new_zeros(0, self.config.head_size)]
            for ids, vector_C in phrases:
                fits_H = torch.tensor([o <= len(ids) for o in self.config.orders for _ in range(self.config.heads)])
                ids_1T = torch.tensor([list(ids)], device=self.hash.numbers_V.device)
                found_HD = (vector_C.float().to(weight.device) @ inverse_CE).view(-1, self.config.head_size)
                rows.append(self.hash(ids_1T, 1)[index, 0, 0].to(weight.device)[fits_H])
                values.append(found_HD[fits_H].to(weight.dtype))
            written, place = torch.unique(torch.cat(rows), return_inverse=True)
            sums = weight.new_zeros(len(written), self.config.head_size).index_add_(0, place, torch.cat(values))
            weight[written] = sums / place.bincount()[:, None]
            count += len(written)
        return count
