"""The work that all sides of the framework benchmark do, and the one line each of them prints about it.

Owns the texts, the arguments and the result line of the `echo_*.py` scripts. It uses the standard library
only, as the frameworks we compare with run in an environment of their own.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass

__all__ = ["WARMUP_TICKS", "EchoResult", "EchoWork", "observation"]

WARMUP_TICKS = 10
"""Ticks before the clock starts, on every side: lazy imports and first connections are not the work."""


def observation(tick: int) -> str:
    """Return the short text that every agent hears at one tick and answers with: that of the world `echo-v0`."""
    return f"say {tick}"


@dataclass(frozen=True)
class EchoWork:
    """How much work one measurement is: every agent answers one observation in each of `ticks` ticks."""

    agents: int
    ticks: int
    hosts: int

    @classmethod
    def from_arguments(cls) -> EchoWork:
        """Read the work from this process's command line."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--agents", type=int, required=True)
        parser.add_argument("--ticks", type=int, required=True)
        parser.add_argument("--hosts", type=int, default=1)
        return cls(**vars(parser.parse_args()))

    def arguments(self) -> list[str]:
        """Return the command line that `from_arguments` reads back."""
        return [f"--{name}={value}" for name, value in asdict(self).items()]

    def check_answers(self, tick: int, answers: list[str]) -> None:
        """Raise RuntimeError unless every agent answered the observation of `tick`."""
        if answers != [observation(tick)] * self.agents:
            raise RuntimeError(f"tick {tick}: {len(answers)} answers, not {self.agents} times {observation(tick)!r}")


@dataclass(frozen=True)
class EchoResult:
    """What one side measured: `agent_steps` answered in `seconds`, after the warm-up."""

    side: str
    version: str
    agent_steps: int
    seconds: float

    @property
    def rate(self) -> float:
        """Agent-steps per second."""
        return self.agent_steps / self.seconds

    def print(self) -> None:
        """Print the result as the last line of this process, for `parse`."""
        sys.stdout.write(json.dumps(asdict(self)) + "\n")

    @classmethod
    def parse(cls, output: str) -> EchoResult:
        """Read the last line of a process's output."""
        return cls(**json.loads(output.strip().splitlines()[-1]))
