"""Which models a person can talk with."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.chat.model import open_chat
from swarm.errors import SwarmError
from swarm.learn.base import hash_of

EXPERIMENTS = Path(__file__).parents[4] / "experiments"


def test_a_model_with_a_long_term_memory_is_refused_in_one_line() -> None:
    """Failed at 611ff97: a base that is opened to learn is without its memory, so nothing was left to refuse."""
    name = "policies/vault-agent"
    with pytest.raises(SwarmError, match="has a long-term memory, which `swarm chat` cannot use; take one without"):
        open_chat(name, EXPERIMENTS, hash_of(name, EXPERIMENTS))
