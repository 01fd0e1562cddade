"""The model that a person talks with, and what it learns from them.

Every request stands alone: the model reads no earlier ones.
"""

from functools import lru_cache
from pathlib import Path

from swarm.agents.models import names_checkpoint
from swarm.errors import SwarmError
from swarm.learn.base import Base, Manner, open_base
from swarm.learn.ordinary import MANNER
from swarm.learn.samples import Sample


@lru_cache(maxsize=1)
def open_chat(name: str, base_dir: Path, sha256: str) -> Base:
    """Return a model, kept from step to step; `sha256` tells versions of it apart.

    Raises:
        SwarmError: there is no such model, or none that can learn here.
    """
    base = open_base(name, base_dir, sha256, Manner() if names_checkpoint(base_dir, name) else MANNER)
    if base.checkpoint.config.ltm is not None:
        raise SwarmError(f"model {name} has a long-term memory, which `swarm chat` cannot use; take one without")
    return base


def sample_of(base: Base, request: str, answer: str) -> Sample:
    """Return an answer as it is learned."""
    return Sample(base.reads(base.asked(request)), base.writes(answer))
