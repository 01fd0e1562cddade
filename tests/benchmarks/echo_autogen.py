"""The echo work on autogen-core: one RoutedAgent per agent, all messages of a tick in flight together.

It uses the in-process runtime with tracing switched off, which was the fastest way tried. It keeps no
record of the run, which our side does, and uses one core, as a Python event loop does.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from importlib.metadata import version

from autogen_core import AgentId, MessageContext, RoutedAgent, SingleThreadedAgentRuntime, message_handler
from echo_work import WARMUP_TICKS, EchoResult, EchoWork, observation
from opentelemetry.trace import NoOpTracerProvider


@dataclass
class Observation:
    """World to agent."""

    text: str


@dataclass
class Action:
    """Agent to world."""

    text: str


class EchoAgent(RoutedAgent):
    """Answers with what it hears."""

    def __init__(self) -> None:
        super().__init__("answers with what it hears")

    @message_handler
    async def on_observation(self, message: Observation, ctx: MessageContext) -> Action:
        """Answer one observation."""
        return Action(message.text)


async def measure(work: EchoWork) -> EchoResult:
    """Run the warm-up and the measured ticks on one runtime."""
    runtime = SingleThreadedAgentRuntime(tracer_provider=NoOpTracerProvider())
    await EchoAgent.register(runtime, "echo", EchoAgent)
    runtime.start()
    ids = [AgentId("echo", f"a{agent}") for agent in range(work.agents)]
    started = time.perf_counter()
    for tick in range(WARMUP_TICKS + work.ticks):
        if tick == WARMUP_TICKS:
            started = time.perf_counter()
        actions = await asyncio.gather(
            *(runtime.send_message(Observation(observation(tick)), agent_id) for agent_id in ids)
        )
        work.check_answers(tick, [action.text for action in actions])
    seconds = time.perf_counter() - started
    await runtime.stop()
    return EchoResult("autogen-core", version("autogen-core"), work.agents * work.ticks, seconds)


if __name__ == "__main__":
    asyncio.run(measure(EchoWork.from_arguments())).print()
