"""What an Engram knows of the past while a model of transformers decodes: one more layer of its KV cache.

transformers reorders, repeats, selects and crops the keys and values of every layer (beam search, assisted generation).
Here the keys are the tokens and the values the last inputs of the convolutions, so both follow by themselves.

Axes: B rows, T tokens, L convolutions, P inputs of a convolution, C width.
"""

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class EngramCacheLayer(DynamicLayer):  # type: ignore[misc]
    """Tokens seen so far (keys, B1T1), and the last inputs of each convolution (values, BLPC).

    Args:
        owner: number of the memory whose past this is.
        convolutions: how many there are.
        reach: how many inputs each looks back.
        is_sliding: what the other layers are, so that masks are made from those.
    """

    is_compileable = False
    supports_early_init = False

    def __init__(self, owner: int, convolutions: int, reach: int, is_sliding: bool) -> None:
        super().__init__()
        self.owner, self.convolutions, self.reach, self.is_sliding = owner, convolutions, reach, is_sliding
        self.recording = False
        self._fresh: list[Tensor] = []

    def extend_ids(self, ids_BT: Tensor) -> Tensor:
        """Append tokens and return all of them, (B, T)."""
        new_B1T1 = ids_BT[:, None, :, None]
        if not self.get_seq_length():
            self.keys, self.values, self.is_initialized = new_B1T1, new_B1T1[:, :0], True
        else:
            self.keys = torch.cat((self.keys, new_B1T1), dim=2)
        all_BT: Tensor = self.keys[:, 0, :, 0]
        return all_BT

    def tail(self, number: int) -> Tensor | None:
        """Return the last inputs of a convolution, (B, P, C); None before the first."""
        return self.values[:, number, self.values.shape[2] - self.reach :] if self.values.shape[1] else None

    def extend_tail(self, line_BPC: Tensor) -> None:
        """Append to the inputs of the next convolution; the line begins with its tail."""
        self._fresh.append(line_BPC.detach())
        if len(self._fresh) < self.convolutions:
            return
        lines_BLPC, self._fresh = torch.stack(self._fresh, 1), []
        if self.recording and self.values.shape[1]:
            lines_BLPC = torch.cat((self.values, lines_BLPC[:, :, self.reach :]), dim=2)
        self.values = lines_BLPC if self.recording else lines_BLPC[:, :, lines_BLPC.shape[2] - self.reach :]

    @property
    def is_croppable(self) -> bool:
        """Whether `crop` can put everything back: the inputs of convolutions only if they were recorded."""
        return self.recording or not self.convolutions * self.reach

    def activate_past_recording(self) -> None:
        """Keep all inputs from now on, so that `crop` finds them."""
        self.recording = True

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens; a positive number is the length to keep, as in transformers."""
        if not self.is_croppable:
            raise RuntimeError("the Engram of this cache was not recorded; call activate_past_recording first")
        super().crop(tokens_to_remove)

    def offload(self) -> None:
        """Stay where it is: it is small."""

    def prefetch(self) -> None:
        """Nothing was moved."""


def engram_layer(cache: Cache, owner: int, convolutions: int, reach: int, num_layers: int) -> EngramCacheLayer:
    """Return the Engram's layer of a cache, appended behind the model's own where there is none yet.

    Raises:
        ValueError: the cache was filled while the memory was off, or with another one.
    """
    found = next((layer for layer in cache.layers if isinstance(layer, EngramCacheLayer)), None)
    if found is None:
        while len(cache.layers) < num_layers:  # those that are made on demand must come first
            cache.layers.append((cache.layer_class_to_replicate or DynamicLayer)())
        found = EngramCacheLayer(owner, convolutions, reach, all(cache.is_sliding))
        cache.layers.append(found)
    if found.owner != owner or found.get_seq_length() != cache.get_seq_length():
        raise ValueError("this cache was filled without this memory; begin the text anew, or disable the memory")
    return found
