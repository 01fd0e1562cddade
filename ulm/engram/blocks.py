"""Where the decoder blocks of a model of transformers are, whatever its architecture calls them."""

from torch import nn


def decoder_blocks(causal: nn.Module, count: int) -> tuple[str, nn.ModuleList]:
    """Return the name of the list of decoder blocks, and the list.

    Args:
        causal: a causal language model.
        count: blocks that its config gives it.

    Raises:
        ValueError: it has no list of so many modules.
    """
    lists = {name: module for name, module in causal.named_modules() if isinstance(module, nn.ModuleList)}
    for name, found in lists.items():
        if len(found) == count:
            return name, found
    there = ", ".join(f"{name} ({len(found)})" for name, found in lists.items()) or "none"
    raise ValueError(f"found no list of {count} blocks in {type(causal).__name__}; lists of modules there: {there}")
