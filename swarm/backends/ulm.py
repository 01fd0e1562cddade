"""Our own engine behind the protocol of text generation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from swarm.backends.constraints import Constraints
from swarm.backends.models import ChatFormat
from swarm.backends.protocol import TextRequest, TextResult
from swarm.errors import SwarmError

if TYPE_CHECKING:
    from ulm.generation import Engine

__all__ = ["UlmModel"]


class UlmModel:
    """A µLM, or a pretrained Llama in our core; what a request gets depends on that request alone.

    Args:
        engine: the model, ready to decode.
        chat: its chat format; without one, requests with a system message are refused.
        max_length: tokens of prompt and answer; our attention slides, so it is a matter of taste.
    """

    def __init__(self, engine: Engine, chat: ChatFormat | None = None, max_length: int = 1 << 20) -> None:
        self._engine = engine
        self._chat = chat
        self._max_length = max_length
        self._constraints = Constraints(engine.tokenizer)

    @property
    def max_length(self) -> int:
        """Tokens of prompt and answer together."""
        return self._max_length

    def _text(self, request: TextRequest) -> str:
        if request.system is None:
            return request.prompt
        if self._chat is None:
            raise SwarmError("this model has no chat format; set backend.prompt: plain")
        return self._chat.render(request.system, request.prompt)

    def generate(self, requests: Sequence[TextRequest], deadline_s: float | None = None) -> list[TextResult]:
        """Answer every request; past the deadline all of them are faults, for they are decoded together."""
        from ulm.generation import GenerationRequest

        asked = [
            GenerationRequest(
                self._text(request),
                request.seed,
                request.max_new_tokens,
                request.temperature,
                request.top_p,
                request.stop,
                self._constraints.of(request.structure) if request.structure else None,
            )
            for request in requests
        ]
        try:
            found = self._engine.generate(asked, deadline_s)
        except TimeoutError:
            return [TextResult.failed("timeout: decoding passed its deadline") for _ in requests]
        return [TextResult(r.text, r.prompt_tokens, r.generated_tokens, r.finish) for r in found]

    def count_prompts(self, requests: Sequence[TextRequest]) -> list[int]:
        """Return the tokens of each prompt."""
        return self.count_tokens([self._text(request) for request in requests])

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text."""
        return self._engine.count_tokens(texts)

    def close(self) -> None:
        """Nothing to give back: hosts own their engines."""
