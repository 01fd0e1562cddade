"""An `OpenAIModel` at the fake endpoint, requests to it, and what results must look like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from fakes.endpoint import Endpoint

from swarm.backends.openai import OpenAIModel
from swarm.backends.protocol import TextRequest, TextResult
from swarm.config.engine import OpenAIEngine

KEY = "sk-0123456789abcdef-secret"
PLAIN = TextRequest("2 + 2 =", max_new_tokens=7)
CHAT = TextRequest("hi", system="Be brief.", max_new_tokens=7)
MOST = (len(PLAIN.prompt), 7)
"""Tokens that PLAIN is charged when nobody says what it cost."""
MOST_CHAT = (len("Be brief.") + len("hi") + 2 * 16, 7)
HELLO = TextResult("hello", 11, 3, "end")
PROBE = replace(CHAT, prompt="Say yes.")


async def at_once(_: float) -> None:
    """Retry without a wait."""


def model_at(
    at: Endpoint | str, key: str | None = None, sleep: Callable[[float], Any] = at_once, **settings: Any
) -> OpenAIModel:
    """Return a model that waits 0.5, 1 and 0.5 s, in none of which time passes, before it gives up."""
    url = at if isinstance(at, str) else at.url
    defaults = {"patience_s": 2.0, "timeout_s": 30.0, "on_event": lambda kind, **facts: None}
    patience = {name: settings.pop(name, default) for name, default in defaults.items()}
    engine = OpenAIEngine(model="tiny", url=url, key_env=key and "MY_KEY", **settings)
    return OpenAIModel("tiny", engine, {"MY_KEY": key} if key else {}, sleep, **patience)


def ask(at: Endpoint | str, request: TextRequest = PLAIN, **settings: Any) -> TextResult:
    return model_at(at, **settings).generate([request])[0]


def fault_of(result: TextResult) -> str:
    assert (result.text, result.finish) == ("", "fault")
    assert result.fault
    assert result.fault.isprintable()
    assert len(result.fault) < 400
    return result.fault


def cost(result: TextResult) -> tuple[int, int]:
    return result.prompt_tokens, result.generated_tokens
