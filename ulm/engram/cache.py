"""What an Engram knows of the past while a model of transformers decodes: one more layer of its KV cache.

transformers reorders, repeats, selects and crops caches layer by layer (beam search, assisted generation), so what
lies in a layer follows by itself.

Axes: B rows, T tokens, P inputs of a convolution, C width.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer


class EngramCacheLayer(CacheLayerMixin):  # type: ignore[misc]
    """Tokens seen so far, and the last inputs of each convolution.

    Args:
        owner: number of the memory whose past this is.
        reaches: how many inputs each convolution looks back.
        is_sliding: what the other layers are, so that masks are made from those.
    """

    is_compileable = False
    supports_early_init = False

    def __init__(self, owner: int, reaches: list[int], is_sliding: bool) -> None:
        super().__init__()
        self.owner = owner
        self.reaches = reaches
        self.is_sliding = is_sliding
        self.ids_BT: Tensor | None = None
        self.tails: list[Tensor | None] = [None] * len(reaches)
        self.recording = False

    def extend_ids(self, ids_BT: Tensor) -> Tensor:
        """Append tokens and return all of them, (B, T)."""
        self.ids_BT = ids_BT if self.ids_BT is None else torch.cat((self.ids_BT, ids_BT), dim=1)
        return self.ids_BT

    def tail(self, number: int) -> Tensor | None:
        """Return the last inputs of a convolution, (B, P, C); None before the first."""
        line = self.tails[number]
        return None if line is None else line[:, line.shape[1] - self.reaches[number] :]

    def extend_tail(self, number: int, line_BPC: Tensor) -> None:
        """Append to the inputs of a convolution; the first time, the tail included."""
        old, reach = self.tails[number], self.reaches[number]
        line_BPC = line_BPC.detach()
        if old is not None and self.recording:
            line_BPC = torch.cat((old, line_BPC[:, reach:]), dim=1)
        self.tails[number] = line_BPC if self.recording else line_BPC[:, line_BPC.shape[1] - reach :]

    @property
    def is_croppable(self) -> bool:
        """Whether `crop` can put everything back: the inputs of convolutions only if they were recorded."""
        return self.recording or not self.reaches

    def activate_past_recording(self) -> None:
        """Keep all inputs from now on, so that `crop` finds them."""
        self.recording = True

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens; a positive number is the length to keep, as in transformers."""
        length = self.get_seq_length()
        count = length - min(tokens_to_remove, length) if tokens_to_remove > 0 else -tokens_to_remove
        if not count or self.ids_BT is None:
            return
        if not self.is_croppable:
            raise RuntimeError("the Engram of this cache was not recorded; call activate_past_recording first")
        self.ids_BT = self.ids_BT[:, : length - count]
        self.tails = [None if line is None else line[:, : line.shape[1] - count] for line in self.tails]

    def _change(self, rows: Any) -> None:
        """Apply a function of rows to everything."""
        if self.ids_BT is not None:
            self.ids_BT = rows(self.ids_BT)
        self.tails = [None if line is None else rows(line) for line in self.tails]

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Follow the beams."""
        self._change(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row."""
        self._change(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows."""
        self._change(lambda x: x[indices])

    def reset(self) -> None:
        """Forget everything."""
        self.ids_BT = None
        self.tails = [None] * len(self.reaches)

    def get_seq_length(self) -> int:
        """Return how many tokens were seen."""
        return 0 if self.ids_BT is None else int(self.ids_BT.shape[1])

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return what a layer without a window would."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Return that there is no longest text."""
        return -1

    def offload(self) -> None:
        """Stay where it is: it is small."""

    def prefetch(self) -> None:
        """Nothing was moved."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Keys and values have no place here."""
        raise NotImplementedError

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Keys and values have no place here."""
        raise NotImplementedError


def engram_layer(cache: Cache, owner: int, reaches: list[int], num_layers: int) -> EngramCacheLayer:
    """Return the Engram's layer of a cache, appended behind the model's own where there is none yet.

    Raises:
        ValueError: the cache was filled while the memory was off, or with another one.
    """
    for layer in cache.layers:
        if isinstance(layer, EngramCacheLayer):
            found = layer
            break
    else:
        while len(cache.layers) < num_layers:  # those that are made on demand must come first
            cache.layers.append((cache.layer_class_to_replicate or DynamicLayer)())
        found = EngramCacheLayer(owner, reaches, all(cache.is_sliding))
        cache.layers.append(found)
    if found.owner != owner or found.get_seq_length() != cache.get_seq_length():
        raise ValueError("this cache was filled without this memory; begin the text anew, or disable the memory")
    return found
