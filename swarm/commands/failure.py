"""The error of work that had begun properly and then failed: its exit code is 1, where a mistake's is 2."""

from swarm.errors import SwarmError


class WorkFailedError(SwarmError):
    """A run that could not go on, or a check that did not hold; the user's input was fine."""
