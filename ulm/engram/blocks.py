"""Parts of a model of transformers, whatever wraps it and whatever its architecture calls them."""

from torch import nn
from transformers import PreTrainedModel


def causal_model(model: nn.Module) -> PreTrainedModel:
    """Return the causal language model inside wrappers such as PEFT's.

    Raises:
        ValueError: there is none.
    """
    for module in model.modules():
        if isinstance(module, PreTrainedModel) and module.can_generate():
            return module
    raise ValueError(f"an Engram needs a causal language model of transformers, got {type(model).__name__}")


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
