"""The one exception for a user's mistake; the CLI prints it as a single line and exits non-zero."""

from __future__ import annotations

__all__ = ["SwarmError"]


class SwarmError(Exception):
    """A mistake of the user or the machine that one clear line can explain: what is wrong and what to do."""
