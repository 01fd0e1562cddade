"""What a coordinator is.

It is stateless: everything it may use is in the request, so a dead coordinator is replaced without loss and a retry
gives the same directives. What a world must offer to be coordinated is `worlds.protocol.Playbook`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from swarm.messages import DirectReply, DirectRequest

__all__ = ["Coordinator", "unlimited"]


def unlimited(count: int) -> float:
    """Return how many seconds so many calls of a model may take where nobody sets a limit."""
    return 3600.0


class Coordinator(Protocol):
    """A mind that reads reports and directs agents."""

    def direct(self, requests: Sequence[DirectRequest]) -> list[DirectReply]:
        """Answer requests of any number of episodes; a reply depends on its own request only."""
        ...
