"""The model that a person talks with, and what it learns from them.

Every request stands alone: the model reads no earlier ones.
"""

from functools import lru_cache
from pathlib import Path

from swarm.agents.models import names_checkpoint
from swarm.errors import SwarmError
from swarm.files import path_in
from swarm.learn.base import Base, Manner, open_base
from swarm.learn.ordinary import MANNER
from swarm.learn.samples import Sample
from ulm.checkpoint import read_checkpoint_config


@lru_cache(maxsize=1)
def open_chat(name: str, base_dir: Path, sha256: str) -> Base:
    """Return a model, kept from step to step; `sha256` tells versions of it apart.

    Raises:
        SwarmError: there is no such model, or none that can learn here.
    """
    if not names_checkpoint(base_dir, name):
        return open_base(name, base_dir, sha256, MANNER)
    try:
        config = read_checkpoint_config(path_in(base_dir, name)).model
    except ValueError as error:
        raise SwarmError(str(error)) from error
    if config.ltm is not None:  # a base that is opened to learn has none any more
        raise SwarmError(f"model {name} has a long-term memory, which `swarm chat` cannot use; take one without")
    return open_base(name, base_dir, sha256, Manner())


def sample_of(base: Base, request: str, answer: str) -> Sample:
    """Return an answer as it is learned."""
    return Sample(base.reads(base.asked(request)), base.writes(answer))
